//! The announcement of a channel: the environment variables by which a parent names the channel's
//! descriptor to its child.
//!
//! This file has both sides of the protocol. A child of this crate finds `BROOD_CHANNEL`, whose
//! value is `number:inode:version:codec`. A child that expects Node's channel finds
//! `NODE_CHANNEL_FD` and `NODE_CHANNEL_SERIALIZATION_MODE`.

use std::os::fd::OwnedFd;

use ipc::Serialization;

const CHANNEL: &str = "BROOD_CHANNEL";
const NODE_CHANNEL: &str = "NODE_CHANNEL_FD";
const NODE_CODEC: &str = "NODE_CHANNEL_SERIALIZATION_MODE";

/// The version of the value of `BROOD_CHANNEL`.
const VERSION: u32 = 1;

/// Returns the variables that announce a channel at descriptor `number` of the child.
///
/// `inode` is the inode of the child's socket. By it the child notices that a program in between
/// has put the number to another use.
pub(crate) fn variables(
    number: i32,
    inode: u64,
    codec: Serialization,
    is_node: bool,
) -> Vec<(&'static str, String)> {
    let codec = codec.name();
    if is_node {
        return vec![(NODE_CHANNEL, number.to_string()), (NODE_CODEC, codec.to_owned())];
    }
    vec![(CHANNEL, format!("{number}:{inode}:{VERSION}:{codec}"))]
}

/// The channel that was announced to this process.
pub(crate) struct Announcement {
    pub(crate) socket: OwnedFd,
    pub(crate) serialization: Serialization,
    pub(crate) is_node: bool,
}

impl Announcement {
    /// Takes the channel that this process was started with. Returns `None` from then on.
    pub(crate) fn take() -> Option<Self> {
        Self::from_brood().or_else(Self::from_node)
    }

    fn from_brood() -> Option<Self> {
        let value = sys::startup::variable_text(CHANNEL)?;
        // `take_descriptor` has checked the number and the inode.
        let mut fields = value.split(':').skip(2);
        let version = fields.next().and_then(|version| version.parse().ok());
        if version != Some(VERSION) {
            return None;
        }
        let serialization = Serialization::from_name(fields.next()?)?;
        let socket = sys::startup::take_descriptor(CHANNEL)?;
        Some(Self { socket, serialization, is_node: false })
    }

    fn from_node() -> Option<Self> {
        let serialization = match sys::startup::variable(NODE_CODEC) {
            // Node named no codec before it had two of them.
            None => Serialization::Json,
            // Bincode is no codec of Node.
            Some(name) => Serialization::from_name(name.to_str()?)
                .filter(|codec| *codec != Serialization::Bincode)?,
        };
        let socket = sys::startup::take_descriptor(NODE_CHANNEL)?;
        Some(Self { socket, serialization, is_node: true })
    }
}
