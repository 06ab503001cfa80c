//! Moving an endpoint: inside a message of another channel, or through the environment to a child.

use crate::channel::Channel;
use crate::error::Error;
use crate::handle::Handle;
use crate::options::Options;
use crate::serialization::Serialization;
use serde::{Deserialize, Serialize};
use std::env;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

/// The version of the text that announces a channel to a child. The handshake has the version of the
/// protocol.
const ANNOUNCEMENT: u16 = 1;

/// An endpoint on its way to another owner, as a part of any message.
///
/// Made by [`Channel::into_handle`].
///
/// ```
/// use brood_ipc::{Channel, ChannelHandle};
///
/// let (a, b) = brood_ipc::channel::<ChannelHandle<String, ()>, ()>()?;
/// let (ours, theirs) = brood_ipc::channel::<(), String>()?;
/// a.send(&theirs.into_handle()?)?;
/// let theirs: Channel<String, ()> = b.recv()?.open();
/// theirs.send(&"over the second channel".to_owned())?;
/// assert_eq!(ours.recv()?, "over the second channel");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct ChannelHandle<S, R> {
    socket: Handle<OwnedFd>,
    codec: u8,
    tag: String,
    // The names in a message of JSON stay as they are: other builds read them.
    #[serde(rename = "greeted")]
    handshake_sent: bool,
    #[serde(rename = "heard")]
    handshake_received: bool,
    types: PhantomData<fn(S) -> R>,
}

impl<S, R> ChannelHandle<S, R> {
    pub(crate) fn new(
        socket: OwnedFd,
        options: &Options,
        handshake_sent: bool,
        handshake_received: bool,
    ) -> ChannelHandle<S, R> {
        ChannelHandle {
            socket: Handle::new(socket),
            codec: options.serialization.number(),
            tag: options.tag.clone(),
            handshake_sent,
            handshake_received,
            types: PhantomData,
        }
    }

    /// Makes the endpoint with default limits.
    ///
    /// # Panics
    ///
    /// Panics when the handle was sent.
    #[must_use]
    pub fn open(self) -> Channel<S, R> {
        self.open_with(Options::new())
    }

    /// Makes the endpoint with the given limits, and with the codec and tag that the channel has.
    ///
    /// # Panics
    ///
    /// Panics when the handle was sent.
    #[must_use]
    pub fn open_with(self, options: Options) -> Channel<S, R> {
        let serialization = Serialization::from_number(self.codec).unwrap_or_default();
        let options = options.serialization(serialization).tag(self.tag);
        Channel::resumed(
            self.socket.into_inner(),
            options,
            self.handshake_sent,
            self.handshake_received,
        )
    }

    /// Turns the handle into a descriptor for a child and the text of an environment variable.
    ///
    /// The child must find the descriptor under `number`. It makes the endpoint with
    /// [`Channel::from_env`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the endpoint has sent or received already, which the variable cannot
    /// express, and for a number over `i32::MAX`, which no descriptor has.
    pub fn into_env(self, number: u32) -> io::Result<(OwnedFd, String)> {
        // The child would send a second handshake, and the peer would refuse it.
        if self.handshake_sent || self.handshake_received || i32::try_from(number).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let socket = self.socket.into_inner();
        let inode = sys::fd::inode(socket.as_fd())?;
        let codec = Serialization::from_number(self.codec).unwrap_or_default();
        Ok((socket, format!("{number}:{inode}:{ANNOUNCEMENT}:{codec}")))
    }
}

impl<S, R> fmt::Debug for ChannelHandle<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelHandle").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl<S, R> Channel<S, R> {
    /// Makes an endpoint of the socket that the parent announced in the environment variable
    /// `name`.
    ///
    /// The variable holds the text of [`ChannelHandle::into_env`] and works once. Before the
    /// descriptor is touched, the announcement is checked: the descriptor must be open, lead to the
    /// inode that the parent saw, and be a Unix stream socket. The descriptor is then made
    /// close-on-exec, so that children of this process do not inherit it. The announced codec
    /// replaces the one in `options`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAChannel`] with the part of the announcement that is wrong;
    /// [`Error::InvalidOption`].
    pub fn from_env(name: &str, options: Options) -> Result<Channel<S, R>, Error> {
        // Before the descriptor is taken, which works once.
        options.check()?;
        let text = env::var(name).map_err(|_| Error::NotAChannel("the variable is not set"))?;
        let (number, inode, codec) = parse(&text)?;
        // The inode guards against a number that was closed and used again since the announcement.
        let socket = sys::fd::take_inherited(number, inode)
            .map_err(|_| Error::NotAChannel("the descriptor is not the announced one"))?;
        Channel::from_fd(socket, options.serialization(codec))
    }
}

fn parse(text: &str) -> Result<(i32, u64, Serialization), Error> {
    let malformed = || Error::NotAChannel("the variable is malformed");
    let mut parts = text.split(':');
    let mut next = || parts.next().ok_or_else(malformed);
    let number = next()?.parse().map_err(|_| malformed())?;
    let inode = next()?.parse().map_err(|_| malformed())?;
    let version: u16 = next()?.parse().map_err(|_| malformed())?;
    let codec = Serialization::from_name(next()?).ok_or_else(malformed)?;
    if parts.next().is_some() {
        return Err(malformed());
    }
    if version != ANNOUNCEMENT {
        return Err(Error::NotAChannel("the announcement is of another version"));
    }
    Ok((number, inode, codec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_announcements_are_refused() {
        for text in [
            "",
            "5",
            "5:1:1",
            "x:1:1:bincode",
            "5:-1:1:bincode",
            "5:1:1:yaml",
            "5:1:2:bincode",
            "5:1:1:bincode:",
            "99999999999:1:1:json",
        ] {
            assert!(matches!(parse(text), Err(Error::NotAChannel(_))), "{text}");
        }
        assert_eq!(parse("5:77:1:json").unwrap(), (5, 77, Serialization::Json));
    }

    #[test]
    fn a_descriptor_is_claimed_once_and_only_if_it_is_the_announced_one() {
        let (a, _b) = sys::socket::pair_stream().unwrap();
        let (number, inode) = (sys::fd::number(a.as_fd()), sys::fd::inode(a.as_fd()).unwrap());
        assert!(sys::fd::take_inherited(number, inode + 1).is_err());
        assert!(sys::fd::take_inherited(0, 0).is_err());
        assert!(sys::fd::take_inherited(1_000_000, 1).is_err());
    }

    #[test]
    fn a_used_endpoint_moves_with_its_handshake_state_and_a_busy_one_stays() {
        let (a, b) = crate::channel::<u8, u8>().unwrap();
        a.send(&1).unwrap();
        b.send(&2).unwrap();
        assert_eq!((a.recv().unwrap(), b.recv().unwrap()), (2, 1));
        let a = a.into_handle().unwrap().open();
        a.send(&3).unwrap();
        b.send(&4).unwrap();
        assert_eq!((a.recv().unwrap(), b.recv().unwrap()), (4, 3));
        a.feed(&5).unwrap();
        assert!(a.into_handle().is_err());
    }

    #[test]
    fn the_field_names_of_a_handle_in_json_do_not_change() {
        let options = Options::new().serialization(Serialization::Json);
        let (a, b) = crate::channel_with::<ChannelHandle<u8, u8>, ()>(&options).unwrap();
        let (moved, _peer) = crate::channel::<u8, u8>().unwrap();
        a.send(&moved.into_handle().unwrap()).unwrap();
        let message = b.recv_message().unwrap();
        let expected =
            br#"{"socket":0,"codec":1,"tag":"","greeted":false,"heard":false,"types":null}"#;
        assert_eq!(message.bytes(), expected);
    }
}
