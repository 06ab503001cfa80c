//! Handles: open sockets, files and pipes as parts of a message.

use crate::side_table::SideTable;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};
use std::any::type_name;
use std::fs::File;
use std::marker::PhantomData;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};
use sys::fd::Kind;

/// The name under which the codecs recognise a handle.
pub(crate) const MARKER: &str = "\u{0}brood::Handle";

/// Slots on their way from [`Handle`] to the serializer, which takes their descriptors.
pub(crate) static OUTGOING: LazyLock<SideTable<Arc<Slot>>> = SideTable::lazy();

/// Received descriptors on their way from the deserializer to [`Handle`].
pub(crate) static INCOMING: LazyLock<SideTable<OwnedFd>> = SideTable::lazy();

/// A type that a [`Handle`] can hold: an open descriptor and nothing more.
///
/// The kind is checked when a handle arrives, so a peer cannot pass a file off as a socket.
pub trait Transfer: From<OwnedFd> + Into<OwnedFd> {
    /// Whether every kind is accepted, so that nothing is checked.
    const ANY: bool = false;

    /// Returns whether a descriptor of this kind may become `Self`.
    fn accepts(kind: Kind) -> bool;
}

macro_rules! transfer {
    ($($kind:ty: $pattern:pat,)*) => {
        $(impl Transfer for $kind {
            fn accepts(kind: Kind) -> bool {
                matches!(kind, $pattern)
            }
        })*
    };
}

impl Transfer for OwnedFd {
    const ANY: bool = true;

    fn accepts(_: Kind) -> bool {
        true
    }
}

transfer! {
    TcpListener: Kind::TcpListener,
    TcpStream: Kind::TcpStream,
    UdpSocket: Kind::Udp,
    UnixListener: Kind::UnixListener,
    UnixStream: Kind::UnixStream,
    UnixDatagram: Kind::UnixDatagram,
    File: Kind::File | Kind::Directory | Kind::Memfd | Kind::CharDevice | Kind::Pipe,
    ChildStdin: Kind::Pipe,
    ChildStdout: Kind::Pipe,
    ChildStderr: Kind::Pipe,
}

/// An open descriptor as a part of a message: a field, an element, the content of an enum.
///
/// Sending **moves** the descriptor: after a successful `send`, this process no longer has it, and
/// [`is_sent`](Handle::is_sent) returns `true`. After a failed `send` the handle is still in the
/// value, and usable. To keep a descriptor, send a [`try_clone`](Handle::try_clone). The receiver checks that the descriptor is of the kind `T`.
///
/// A handle travels only through the channels of this crate. Every other serde format returns an
/// error. `#[serde(flatten)]`, `untagged` and internally tagged enums around a handle are errors,
/// too, because serde buffers their content in a format of its own.
///
/// ```
/// use brood_ipc::Handle;
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Job {
///     name: String,
///     to: Handle<UnixStream>,
/// }
///
/// let (parent, child) = brood_ipc::channel::<Job, ()>()?;
/// let (mut ours, theirs) = UnixStream::pair()?;
/// parent.send(&Job { name: "greet".into(), to: Handle::new(theirs) })?;
///
/// let job = child.recv()?;
/// job.to.into_inner().write_all(job.name.as_bytes())?;
/// let mut text = String::new();
/// ours.read_to_string(&mut text)?;
/// assert_eq!(text, "greet");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Handle<T> {
    slot: Arc<Slot>,
    kind: PhantomData<fn() -> T>,
}

/// The place of the descriptor until a message takes it.
pub(crate) struct Slot(Mutex<Option<OwnedFd>>);

impl Slot {
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        self.lock().take()
    }

    /// Puts back the descriptor of a message that could not be sent.
    pub(crate) fn restore(&self, fd: OwnedFd) {
        *self.lock() = Some(fd);
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Transfer> Handle<T> {
    /// Makes a handle of `value`.
    pub fn new(value: T) -> Handle<T> {
        Handle::from_fd(value.into())
    }

    fn from_fd(fd: OwnedFd) -> Handle<T> {
        Handle { slot: Arc::new(Slot(Mutex::new(Some(fd)))), kind: PhantomData }
    }

    /// Returns the socket, file or pipe.
    ///
    /// # Panics
    ///
    /// Panics when the handle was sent; see [`is_sent`](Handle::is_sent).
    #[must_use]
    pub fn into_inner(self) -> T {
        T::from(self.slot.take().expect("the handle was sent"))
    }

    /// Duplicates the handle, to send one and keep the other.
    ///
    /// # Errors
    ///
    /// `EBADF` when the handle was sent; `EMFILE` when no descriptor number is left.
    pub fn try_clone(&self) -> io::Result<Handle<T>> {
        let slot = self.slot.lock();
        let fd = slot.as_ref().ok_or_else(|| io::Error::from_raw_os_error(sys::errno::EBADF))?;
        Ok(Handle::from_fd(fd.try_clone()?))
    }

    /// Returns whether a message has taken the descriptor.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.slot.lock().is_none()
    }
}

impl<T: Transfer> From<T> for Handle<T> {
    fn from(value: T) -> Handle<T> {
        Handle::new(value)
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = type_name::<T>();
        match &*self.slot.lock() {
            Some(fd) => write!(f, "Handle<{name}>({fd:?})"),
            None => write!(f, "Handle<{name}>(sent)"),
        }
    }
}

impl<T> Serialize for Handle<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(MARKER, &OutgoingHandle(&self.slot))
    }
}

struct OutgoingHandle<'a>(&'a Arc<Slot>);

impl Serialize for OutgoingHandle<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = OUTGOING.insert(Arc::clone(self.0));
        // The serializer of this crate removes the entry while it handles this number.
        let result = serializer.serialize_u64(number);
        if OUTGOING.remove(number).is_some() {
            return Err(S::Error::custom("a handle can only be sent through an ipc channel"));
        }
        result
    }
}

impl<'de, T: Transfer> Deserialize<'de> for Handle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Handle<T>, D::Error> {
        deserializer.deserialize_newtype_struct(MARKER, HandleVisitor(PhantomData))
    }
}

struct HandleVisitor<T>(PhantomData<T>);

impl<'de, T: Transfer> Visitor<'de> for HandleVisitor<T> {
    type Value = Handle<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a handle out of an ipc channel")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Handle<T>, D::Error> {
        let number = u64::deserialize(inner)?;
        let fd = INCOMING.remove(number).ok_or_else(|| {
            de::Error::custom("a handle can only be received through an ipc channel")
        })?;
        check_kind::<T>(fd.as_fd()).map_err(de::Error::custom)?;
        Ok(Handle::from_fd(fd))
    }
}

fn check_kind<T: Transfer>(fd: BorrowedFd<'_>) -> Result<(), String> {
    if T::ANY {
        return Ok(());
    }
    match sys::fd::kind(fd) {
        Ok(kind) if T::accepts(kind) => Ok(()),
        Ok(kind) => Err(format!("handle is a {kind:?}, not a {}", type_name::<T>())),
        Err(error) => Err(format!("handle cannot be examined: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_refuse_handles_and_the_handle_stays_whole() {
        let handle = Handle::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let json = serde_json::to_string(&handle).unwrap_err();
        assert!(json.to_string().contains("only be sent through an ipc channel"));
        assert!(bincode::serialize(&handle).is_err());
        assert!(!handle.is_sent());
        handle.into_inner().local_addr().unwrap();
    }

    #[test]
    fn other_formats_cannot_forge_a_handle() {
        for text in ["0", "1", "18446744073709551615"] {
            let forged = serde_json::from_str::<Handle<OwnedFd>>(text).unwrap_err();
            assert!(forged.to_string().contains("only be received through an ipc channel"));
        }
    }

    #[test]
    fn a_clone_is_another_descriptor_of_the_same_thing() {
        let first = Handle::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let second = first.try_clone().unwrap();
        let address = first.into_inner().local_addr().unwrap();
        assert_eq!(second.into_inner().local_addr().unwrap(), address);
    }
}
