//! Opens sockets: in the primary for its workers, in a worker for itself, and in a program alone.
//!
//! The folder of a Unix socket is looked up once. The socket's file is made in that folder, and
//! removed from it when its [`Bound`] is dropped, if it is still the same file. A file that a dead
//! process left behind is replaced where the caller allows that.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::bind::UnixKind;
use sys::fd::Kind;
use sys::folder::{FileId, Folder};
use sys::socket_file;
use sys::spawn::{Attributes, Member, SocketName, SocketOrder};

use crate::listen_rules::Credentials;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

/// A socket, and the address at which it is bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: OwnedFd,
    pub(crate) address: Address,
    pub(crate) file: Option<SocketFile>,
}

/// The file of a Unix socket that was bound by this process. `drop` removes the file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Takes one descriptor for as long as the socket is open.
    folder: Folder,
    name: OsString,
    /// Tells the file from another one with the same name.
    id: FileId,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Fails where the user has removed the folder, or the right to change it.
        let _ = self.folder.remove(&self.name, self.id);
    }
}

/// Opens and binds a socket. A stream socket also listens.
///
/// With `replaces_stale`, a socket file that a dead process left behind is replaced.
pub(crate) fn bind(
    address: &Address,
    options: &ListenOptions,
    replaces_stale: bool,
) -> io::Result<Bound> {
    let unnamed = |socket, address| Ok(Bound { socket, address, file: None });
    match address {
        Address::Tcp { address, v6_only } => {
            let socket = sys::socket::listen_tcp(*address, options.backlog, *v6_only)?;
            let address = sys::socket::local_address(socket.as_fd())?;
            unnamed(socket, Address::Tcp { address, v6_only: *v6_only })
        }
        Address::Udp { address, v6_only } => {
            let socket = sys::bind::udp(*address, *v6_only, options.reuse_address)?;
            let address = sys::socket::local_address(socket.as_fd())?;
            unnamed(socket, Address::Udp { address, v6_only: *v6_only })
        }
        Address::UnixAbstract(name) => {
            let socket = sys::bind::unix_abstract(UnixKind::Stream, name)?;
            sys::socket::listen(socket.as_fd(), options.backlog)?;
            unnamed(socket, address.clone())
        }
        Address::DatagramAbstract(name) => {
            let socket = sys::bind::unix_abstract(UnixKind::Datagram, name)?;
            unnamed(socket, address.clone())
        }
        Address::UnixPath(path) => {
            let (socket, file) = bind_path(UnixKind::Stream, path, options, replaces_stale)?;
            sys::socket::listen(socket.as_fd(), options.backlog)?;
            Ok(Bound { socket, address: address.clone(), file: Some(file) })
        }
        Address::DatagramPath(path) => {
            let (socket, file) = bind_path(UnixKind::Datagram, path, options, replaces_stale)?;
            Ok(Bound { socket, address: address.clone(), file: Some(file) })
        }
        // The primary has resolved the names of its inherited sockets: this is not one of them.
        Address::Inherited(_) => Err(io::Error::from_raw_os_error(sys::errno::EBADF)),
    }
}

/// Opens and binds a socket in a child with these rights, within this time. A stream socket also
/// listens.
pub(crate) fn bind_with_rights(
    address: &Address,
    options: &ListenOptions,
    member: Member,
    rights: &Credentials,
    within: Duration,
) -> io::Result<Bound> {
    let path = match address {
        Address::UnixPath(path) | Address::DatagramPath(path) => Some(std::path::absolute(path)?),
        Address::Tcp { .. }
        | Address::Udp { .. }
        | Address::UnixAbstract(_)
        | Address::DatagramAbstract(_)
        | Address::Inherited(_) => None,
    };
    let name = match (address, &path) {
        (Address::Tcp { address, v6_only } | Address::Udp { address, v6_only }, _) => {
            SocketName::Ip { address: *address, v6_only: *v6_only }
        }
        (Address::UnixAbstract(name) | Address::DatagramAbstract(name), _) => {
            SocketName::Abstract(name)
        }
        (_, Some(path)) => SocketName::Path(path),
        _ => return Err(io::Error::from_raw_os_error(sys::errno::EBADF)),
    };
    let order = SocketOrder {
        address: name,
        datagram: address.is_datagram(),
        backlog: options.backlog,
        reuse_address: options.reuse_address,
        member,
        mode: options.file_mode(),
    };
    let Credentials { uid, gid, groups } = rights.clone();
    let attributes = Attributes { uid, gid, groups, ..Attributes::default() };
    let opened = sys::spawn::open_socket(&order, &attributes, within)?;
    let local = || sys::socket::local_address(opened.socket.as_fd());
    let address = match address {
        Address::Tcp { v6_only, .. } => Address::Tcp { address: local()?, v6_only: *v6_only },
        Address::Udp { v6_only, .. } => Address::Udp { address: local()?, v6_only: *v6_only },
        other => other.clone(),
    };
    // In the folder that the child has found with its rights, which may lie elsewhere by now.
    let file = path.zip(opened.folder).map(|(path, folder)| {
        let (folder, name) = (Folder::from_descriptor(folder)?, split(&path).1);
        Ok::<_, io::Error>(SocketFile { id: folder.id_of(name)?, name: name.to_owned(), folder })
    });
    let file = file.transpose()?;
    Ok(Bound { socket: opened.socket, address, file })
}

/// Opens the first of several TCP sockets at one address.
pub(crate) fn bind_first(address: &Address, backlog: u32) -> io::Result<Bound> {
    bind_reuse_port(address, |address, v6_only| {
        sys::reuse_port::bind_first(address, backlog, v6_only)
    })
}

/// Opens a further socket at an address that was opened with [`bind_first`].
pub(crate) fn bind_next(address: &Address, backlog: u32) -> io::Result<Bound> {
    bind_reuse_port(address, |address, v6_only| {
        sys::reuse_port::bind_next(address, backlog, v6_only)
    })
}

fn bind_reuse_port(
    address: &Address,
    open: impl Fn(SocketAddr, bool) -> io::Result<OwnedFd>,
) -> io::Result<Bound> {
    let Address::Tcp { address, v6_only } = address else {
        return Err(io::Error::from_raw_os_error(sys::errno::EOPNOTSUPP));
    };
    let socket = open(*address, *v6_only)?;
    let address = sys::socket::local_address(socket.as_fd())?;
    Ok(Bound { socket, address: Address::Tcp { address, v6_only: *v6_only }, file: None })
}

/// Binds a path and sets the mode of its file.
fn bind_path(
    kind: UnixKind,
    path: &Path,
    options: &ListenOptions,
    replaces_stale: bool,
) -> io::Result<(OwnedFd, SocketFile)> {
    let path = std::path::absolute(path)?;
    let (folder, name) = split(&path);
    let folder = Folder::open(folder)?;
    let bind = || socket_file::bind(kind, &folder, name, &path, options.file_mode());
    let (socket, id) = match bind() {
        Err(error) if error.raw_os_error() == Some(sys::errno::EADDRINUSE) => {
            let removed =
                replaces_stale && socket_file::remove_stale(&folder, name, &path).unwrap_or(false);
            if removed { bind()? } else { return Err(error) }
        }
        bound => bound?,
    };
    Ok((socket, SocketFile { name: name.to_owned(), folder, id }))
}

/// Splits an absolute path at its last slash. The name is empty if the path ends with the slash.
fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (folder, name) = bytes.split_at(start);
    (Path::new(OsStr::from_bytes(folder)), OsStr::from_bytes(name))
}

/// Takes over a socket that is bound already, and reads its address.
///
/// # Errors
///
/// `EINVAL` when the descriptor is not a bound socket of a supported kind.
pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Bound> {
    let v6_only = sys::bind::is_v6_only(socket.as_fd());
    let inet = |socket: &OwnedFd| sys::socket::local_address(socket.as_fd());
    let (socket, address) = match sys::fd::kind(socket.as_fd())? {
        Kind::TcpListener => {
            let address = inet(&socket)?;
            (socket, Address::Tcp { address, v6_only })
        }
        Kind::Udp => {
            let address = inet(&socket)?;
            (socket, Address::Udp { address, v6_only })
        }
        Kind::UnixListener => {
            let socket = UnixListener::from(socket);
            let name = socket.local_addr()?;
            let address = named(&name, Address::UnixPath, Address::UnixAbstract)?;
            (socket.into(), address)
        }
        Kind::UnixDatagram => {
            let socket = UnixDatagram::from(socket);
            let name = socket.local_addr()?;
            let address = named(&name, Address::DatagramPath, Address::DatagramAbstract)?;
            (socket.into(), address)
        }
        _ => return Err(io::Error::from_raw_os_error(sys::errno::EINVAL)),
    };
    if !address.is_datagram() {
        sys::socket::set_nonblocking(socket.as_fd(), true)?;
    }
    Ok(Bound { socket, address, file: None })
}

/// Returns the address of a Unix socket; `EINVAL` if the socket is not bound.
fn named(
    name: &std::os::unix::net::SocketAddr,
    path: fn(PathBuf) -> Address,
    abstract_name: fn(Vec<u8>) -> Address,
) -> io::Result<Address> {
    if let Some(name) = name.as_abstract_name() {
        return Ok(abstract_name(name.to_vec()));
    }
    let unnamed = || io::Error::from_raw_os_error(sys::errno::EINVAL);
    Ok(path(std::path::absolute(name.as_pathname().ok_or_else(unnamed)?)?))
}

/// Returns whether an error of `accept4(2)` belongs to the new connection alone. The manual page
/// lists the network errors that are pending on it, which are to be treated like `EAGAIN`.
pub(crate) fn is_of_the_connection(errno: i32) -> bool {
    use sys::errno as e;
    matches!(
        errno,
        e::ECONNABORTED
            | e::EINTR
            | e::ENETDOWN
            | e::EPROTO
            | e::ENOPROTOOPT
            | e::EHOSTUNREACH
            | e::EOPNOTSUPP
            | e::ENETUNREACH
            | e::EPERM
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn at(path: &Path) -> Address {
        Address::UnixPath(path.to_owned())
    }

    #[test]
    fn a_stale_file_is_replaced_a_live_one_is_in_use_and_the_bound_one_is_removed() {
        let folder = std::env::temp_dir().join(format!("brood-bind-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let options = ListenOptions::new().readable_all(true).writable_all(true);
        let kept = bind(&at(&path), &options, false).unwrap_err();
        assert_eq!(kept.raw_os_error(), Some(sys::errno::EADDRINUSE));
        let bound = bind(&at(&path), &options, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        UnixStream::connect(&path).unwrap();
        let taken = bind(&at(&path), &options, true).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(sys::errno::EADDRINUSE));
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        let taken = bind(&at(&path), &options, true).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(sys::errno::EADDRINUSE));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_is_split_as_the_kernel_does() {
        for (path, folder, name) in [
            ("/s", "/", "s"),
            ("/a/b/s", "/a/b/", "s"),
            ("/a/s/", "/a/s/", ""),
            ("/a/..", "/a/", ".."),
        ] {
            assert_eq!(split(Path::new(path)), (Path::new(folder), OsStr::new(name)), "{path}");
        }
    }

    #[test]
    fn every_kind_of_bound_socket_can_be_adopted() {
        let tcp = Address::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap());
        let udp = Address::Udp { address: "127.0.0.1:0".parse().unwrap(), v6_only: false };
        let name = format!("brood-adopt-{}", std::process::id()).into_bytes();
        let (stream, datagram) =
            (Address::UnixAbstract(name.clone()), Address::DatagramAbstract(name));
        for address in [tcp, udp, stream, datagram] {
            let bound = bind(&address, &ListenOptions::new(), true).unwrap();
            let adopted = adopt(bound.socket).unwrap();
            assert_eq!(adopted.address, bound.address);
        }
        let (pipe, _end) = sys::pipe::pipe().unwrap();
        assert!(adopt(pipe).is_err(), "no socket");
    }
}
