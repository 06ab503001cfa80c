//! The messages that no worker of this crate sends, and the limits by which they are known.
//!
//! A worker's runtime checks each message before it sends the message, so that a mistake of the
//! worker's program is an error there. A message that arrives over a limit, or in a state in which
//! the runtime does not send it, comes from a program that speaks the protocol by itself, from a
//! worker whose memory is corrupt, or from one that has been captured.
//!
//! Pure.

use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::message::ToPrimary;

/// The longest path of a socket in a message, in bytes: `PATH_MAX` of the kernel.
pub(crate) const PATH_BYTES_MAX: usize = 4096;
/// The longest name in the abstract namespace in a message, in bytes: the kernel's limit.
pub(crate) const ABSTRACT_NAME_BYTES_MAX: usize = 107;
/// The longest name of an inherited socket in a message, in bytes: the limit of systemd.
pub(crate) const SOCKET_NAME_BYTES_MAX: usize = 255;

/// The rule of the protocol that a worker broke.
///
/// The worker is sent `SIGKILL` and replaced as one that crashed: see
/// [`Event::Violation`](crate::Event::Violation). `Display` is the rule as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The bytes of the channel are no frames.
    Frame(ipc::FrameError),
    /// An internal message has a form that this version does not know.
    UnknownMessage,
    /// A path, a name or data in a message is too long.
    TooLong {
        /// The part of the message: `"path"`, `"abstract name"`, `"socket name"` or `"data"`.
        part: &'static str,
        /// The length that arrived, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The worker requested a limit of no connection, which can never serve any.
    NoConnections,
    /// The worker sent a message before it was online, or was online a second time.
    OutOfTurn {
        /// The name of the message.
        message: &'static str,
    },
    /// The worker sends requests and does not read the answers.
    AnswersUnread,
    /// The worker named a listener that it was not granted, or that it has closed.
    NotGranted {
        /// The name of the message.
        message: &'static str,
        /// The number of the listener in the message.
        listener: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::UnknownMessage => f.write_str("internal message of an unknown form"),
            Self::TooLong { part, bytes, max } => {
                write!(f, "{part} of {bytes} bytes, over the limit of {max}")
            }
            Self::NoConnections => f.write_str("listen request with a limit of 0 connections"),
            Self::OutOfTurn { message } => write!(f, "message `{message}` out of turn"),
            Self::AnswersUnread => f.write_str("more requests than the worker reads answers"),
            Self::NotGranted { message, listener } => {
                write!(f, "message `{message}` for listener {listener}, which the worker has not")
            }
        }
    }
}

impl ToPrimary {
    /// Returns the limit that the message exceeds.
    pub(crate) fn violation(&self) -> Option<Violation> {
        match self {
            Self::Listen { request: _, address, options } => {
                too_long(address).or_else(|| of_options(options))
            }
            Self::ListensAlone { address } => too_long(address),
            Self::Online
            | Self::Listening { .. }
            | Self::Close { .. }
            | Self::HasRoom { .. }
            | Self::Disconnect => None,
        }
    }
}

/// Returns the limit that an address exceeds.
pub(crate) fn too_long(address: &Address) -> Option<Violation> {
    let (part, bytes, max) = match address {
        Address::UnixPath(path) | Address::DatagramPath(path) => {
            ("path", path.as_os_str().as_bytes().len(), PATH_BYTES_MAX)
        }
        Address::UnixAbstract(name) | Address::DatagramAbstract(name) => {
            ("abstract name", name.len(), ABSTRACT_NAME_BYTES_MAX)
        }
        Address::Inherited(name) => ("socket name", name.len(), SOCKET_NAME_BYTES_MAX),
        Address::Tcp { .. } | Address::Udp { .. } => return None,
    };
    (bytes > max).then_some(Violation::TooLong { part, bytes, max })
}

fn of_options(options: &ListenOptions) -> Option<Violation> {
    let (bytes, max) = (options.data.as_ref().map_or(0, Vec::len), ListenOptions::DATA_BYTES_MAX);
    if bytes > max {
        return Some(Violation::TooLong { part: "data", bytes, max });
    }
    (options.max_connections == Some(0)).then_some(Violation::NoConnections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: Address, options: ListenOptions) -> ToPrimary {
        ToPrimary::Listen { request: 1, address, options }
    }

    #[test]
    fn every_part_of_a_message_has_a_limit_that_may_be_reached_and_not_exceeded() {
        let paths = |bytes| Address::UnixPath("p".repeat(bytes).into());
        let datagrams = |bytes| Address::DatagramPath("p".repeat(bytes).into());
        let names = |bytes| Address::UnixAbstract(vec![b'n'; bytes]);
        let packets = |bytes| Address::DatagramAbstract(vec![b'n'; bytes]);
        let inherited = |bytes| Address::Inherited("i".repeat(bytes));
        type OfLength<'a> = &'a dyn Fn(usize) -> Address;
        let kinds: [(OfLength<'_>, usize, &str); 5] = [
            (&paths, PATH_BYTES_MAX, "path"),
            (&datagrams, PATH_BYTES_MAX, "path"),
            (&names, ABSTRACT_NAME_BYTES_MAX, "abstract name"),
            (&packets, ABSTRACT_NAME_BYTES_MAX, "abstract name"),
            (&inherited, SOCKET_NAME_BYTES_MAX, "socket name"),
        ];
        for (address, max, part) in kinds {
            let too_long = Some(Violation::TooLong { part, bytes: max + 1, max });
            for (bytes, expected) in [(max, None), (max + 1, too_long)] {
                let message = listen(address(bytes), ListenOptions::new());
                assert_eq!(message.violation(), expected);
                let message = ToPrimary::ListensAlone { address: address(bytes) };
                assert_eq!(message.violation(), expected);
            }
        }
    }

    #[test]
    fn data_and_limits_of_connections_are_checked() {
        let max = ListenOptions::DATA_BYTES_MAX;
        let options = |bytes| ListenOptions::new().data(vec![0; bytes]);
        assert_eq!(listen(Address::UnixAbstract(vec![]), options(max)).violation(), None);
        let violation = listen(Address::UnixAbstract(vec![]), options(max + 1)).violation();
        assert_eq!(violation, Some(Violation::TooLong { part: "data", bytes: max + 1, max }));
        for (connections, expected) in [(1, None), (0, Some(Violation::NoConnections))] {
            let options = ListenOptions::new().max_connections(connections);
            assert_eq!(listen(Address::UnixAbstract(vec![]), options).violation(), expected);
        }
    }

    #[test]
    fn a_violation_is_displayed_as_one_line() {
        let lines = [
            (Violation::Frame(ipc::FrameError::Flags(3)), "frame with unknown flags 0x03"),
            (
                Violation::NotGranted { message: "close", listener: 7 },
                "message `close` for listener 7, which the worker has not",
            ),
            (Violation::OutOfTurn { message: "online" }, "message `online` out of turn"),
        ];
        for (violation, line) in lines {
            assert_eq!(violation.to_string(), line);
        }
    }
}
