//! Programs that speak the protocol of a worker by themselves, and break it.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, unbounded};
use ipc::internal::{Event, send_internal, start_paused};
use ipc::{Handle, Link, Options};
use serde::{Deserialize, Serialize};

/// The messages of a worker, as the primary decodes them.
#[derive(Clone, Debug, Serialize)]
pub(crate) enum ToPrimary {
    Online,
    Listen {
        request: u32,
        address: Address,
        options: ListenOptions,
    },
    ListensAlone {
        address: Address,
    },
    Listening {
        key: u64,
    },
    Close {
        key: u64,
    },
    HasRoom {
        key: u64,
    },
    Disconnect,
    /// No primary knows this one.
    Unknown {
        number: u64,
    },
}

/// An address, as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Address {
    Tcp(Ip, bool),
    UnixPath(Vec<u8>),
    UnixAbstract(Vec<u8>),
    Udp(Ip, bool),
    DatagramPath(Vec<u8>),
    DatagramAbstract(Vec<u8>),
    Inherited(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ip {
    pub(crate) ip: std::net::IpAddr,
    pub(crate) port: u16,
    pub(crate) flow: u32,
    pub(crate) scope: u32,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ListenOptions {
    pub(crate) backlog: u32,
    pub(crate) exclusive: bool,
    pub(crate) v6_only: bool,
    pub(crate) readable_all: bool,
    pub(crate) writable_all: bool,
    pub(crate) reuse_address: bool,
    pub(crate) max_connections: Option<u32>,
    pub(crate) data: Option<Vec<u8>>,
}

/// The messages of a primary.
#[derive(Debug, Deserialize)]
enum ToWorker {
    #[expect(dead_code, reason = "a request is answered in its turn")]
    Listen {
        request: u32,
        result: Result<Grant, i32>,
    },
    Disconnect,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "the descriptors are kept open")]
pub(crate) struct Grant {
    pub(crate) key: u64,
    address: Address,
    descriptor: Handle<OwnedFd>,
    own_socket: Option<Handle<OwnedFd>>,
    data: Option<Vec<u8>>,
    pub(crate) page: Option<Handle<OwnedFd>>,
    counts_closed: bool,
}

/// A port of the loopback.
pub(crate) fn tcp(port: u16) -> Address {
    let ip = std::net::Ipv4Addr::LOCALHOST.into();
    Address::Tcp(Ip { ip, port, flow: 0, scope: 0 }, false)
}

/// The channel of this process to its primary.
pub(crate) struct Primary {
    /// The socket below the link, for bytes that are no frames.
    pub(crate) socket: Arc<OwnedFd>,
    link: Link,
    answers: Receiver<Result<Grant, i32>>,
    requests: u32,
}

impl Primary {
    /// Takes the channel that this process was started with.
    pub(crate) fn take() -> Self {
        let socket = sys::startup::take_descriptor("BROOD_CHANNEL").expect("started by a primary");
        let raw = Arc::new(socket.try_clone().expect("a descriptor is left"));
        let (answer, answers) = unbounded();
        let link = start_paused(socket, Options::new(), move |event| {
            if let Event::Internal(message) = event
                && let Ok(ToWorker::Listen { result, .. }) = message.decode()
            {
                let _ = answer.send(result);
            }
        });
        let link = link.expect("a channel");
        Self { socket: raw, link, answers, requests: 0 }
    }

    /// Lets answers arrive.
    pub(crate) fn read(&self) {
        self.link.resume();
    }

    /// Sends a message, and waits while the queue is full. A closed channel ends the process.
    pub(crate) fn say(&self, message: &ToPrimary) {
        while let Err(error) = send_internal(&self.link, message) {
            match error {
                ipc::Error::Full => super::wait(std::time::Duration::from_millis(1)),
                _ => std::process::exit(0),
            }
        }
    }

    /// Sends a message of the program.
    pub(crate) fn send(&self, message: &impl Serialize) {
        // The queue may be full.
        let _ = self.link.send(message);
    }

    /// Requests to listen.
    pub(crate) fn request(&mut self, address: Address, options: ListenOptions) {
        self.requests = self.requests.wrapping_add(1);
        self.say(&ToPrimary::Listen { request: self.requests, address, options });
    }

    /// Waits for the next answer to a request.
    pub(crate) fn answer(&self) -> Option<Result<Grant, i32>> {
        self.answers.recv_timeout(std::time::Duration::from_millis(100)).ok()
    }

    /// Writes bytes and descriptors past the link.
    pub(crate) fn write(&self, bytes: &[u8], descriptors: &[OwnedFd]) {
        // The primary may read nothing.
        for _ in 0..100 {
            if self.link.queued_bytes() == 0 {
                break;
            }
            super::wait(std::time::Duration::from_millis(1));
        }
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        // The socket may be full, or closed by the primary.
        let _ = sys::scm::send(self.socket.as_fd(), &[IoSlice::new(bytes)], &descriptors);
    }
}

/// The header of a frame, with its numbers as they are.
pub(crate) fn header(kind: u8, handles: u8, length: u32) -> [u8; 12] {
    let [a, b, c, d] = length.to_le_bytes();
    [2, kind, 0, handles, a, b, c, d, 0, 0, 0, 0]
}
