//! The process that accepts a new connection, and the choice of a worker for it.
//!
//! Pure.

/// The rule by which new connections are dispatched to the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[doc(alias = "schedulingPolicy")]
pub enum Policy {
    /// The primary accepts and dispatches in strict rotation. Node's `SCHED_RR`, value 2.
    ///
    /// A worker that does not accept its connections is skipped until it does: after 20 ms no more
    /// are dispatched to it, and after 100 ms those in its queue go to others. A worker whose accept
    /// loop pauses delays some clients by up to that time; under [`Shared`](Self::Shared) the other
    /// workers accept at once.
    ///
    /// A worker gets the turns back that it missed because it was behind, at most 1,024, by every
    /// second connection. The workers therefore end with equal numbers of connections, also where
    /// connections live long. A worker that was behind for 100 ms gets nothing back.
    #[default]
    #[doc(alias = "SCHED_RR")]
    RoundRobin,
    /// The workers share the listening socket and accept by themselves. Node's `SCHED_NONE`,
    /// value 1.
    ///
    /// This policy costs the primary least. The kernel chooses the worker that it wakes, so the
    /// load is uneven.
    #[doc(alias = "SCHED_NONE")]
    Shared,
    /// The primary accepts, and dispatches to the worker with the fewest connections for the same
    /// address: those in its queue and those that it has open. Equal workers take turns. Value 3;
    /// not in Node.
    ///
    /// A connection is open until its [`Accepted`](crate::Accepted) is dropped, so a worker with
    /// long-lived connections gets fewer new ones. For workers that are Node programs only the
    /// connections that they have not answered count.
    LeastLoaded,
    /// The primary accepts, and dispatches by the client's address: the same client goes to the
    /// same worker, and to its successor when the worker is replaced. Value 4; not in Node.
    ///
    /// A client that moves to another worker loses the state that its worker keeps for it. A client
    /// therefore waits for its worker, Rust or Node, however many requests are under way and however
    /// slow the worker is. Its connections wait in the worker's queue and then in the primary; other
    /// clients are served meanwhile. A client moves only in these cases:
    ///
    /// - Workers come or go: a small part of the clients moves. The clients of a worker that has
    ///   died go to others until its successor listens.
    /// - The worker has left its queue unread for
    ///   [`unresponsive_after`](crate::Builder::unresponsive_after), and is killed.
    /// - The worker has no free descriptor, or is at its [connection
    ///   limit](crate::ListenOptions::max_connections).
    /// - The worker has read nothing for a second, and 1,024 connections wait in the primary and in
    ///   the queues. Otherwise one worker that hangs would keep all clients waiting.
    /// - The worker is a Node program, and this program leaves so many of its messages unread that
    ///   the primary cannot see the worker's answers.
    ///
    /// Behind a proxy all clients have the proxy's address, and therefore one worker. Clients of a
    /// Unix socket have no address and are dispatched in rotation.
    Sticky,
    /// Each worker accepts by itself, from a socket of its own at the same port (`SO_REUSEPORT`).
    /// The kernel chooses the socket by a hash of the client's address and port, see `socket(7)`.
    /// Value 5; not in Node.
    ///
    /// This policy costs as little as [`Shared`](Self::Shared), and the load is more even: each
    /// worker gets about its share. The sockets belong to the primary, one for each slot, and
    /// outlive the workers. When a worker died, stalled or is leaving, the primary accepts the
    /// connections in its socket and dispatches them to the others in rotation. No client is reset,
    /// unlike with sockets that the workers open themselves. A stalled worker is noticed after a
    /// fifth of a second.
    ///
    /// The primary dispatches in rotation where each slot cannot have a socket: on Unix sockets and
    /// [inherited sockets](crate::Builder::socket). Workers with a [connection
    /// limit](crate::ListenOptions::max_connections) and Node programs do not accept by themselves;
    /// with the first of them the primary opens one more socket at the port, and dispatches its
    /// connections. The socket of a slot that [`scale`](crate::Primary::scale) gives up stays open,
    /// and the primary dispatches its connections, too.
    ReusePort,
}

impl Policy {
    /// Returns the number of the policy: Node's for its own policies, and 3 to 5 for the others.
    #[must_use]
    pub fn value(self) -> u8 {
        match self {
            Self::RoundRobin => 2,
            Self::Shared => 1,
            Self::LeastLoaded => 3,
            Self::Sticky => 4,
            Self::ReusePort => 5,
        }
    }
}

impl Policy {
    /// Reads the value of `NODE_CLUSTER_SCHED_POLICY`: `rr` or `none`; any other value is ignored.
    pub(crate) fn from_environment(value: Option<&std::ffi::OsStr>) -> Self {
        match value.and_then(std::ffi::OsStr::to_str) {
            Some("none") => Self::Shared,
            _ => Self::RoundRobin,
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = String;

    /// Parses `rr` or `none`, as `NODE_CLUSTER_SCHED_POLICY` spells them, `least-loaded`, `sticky`
    /// or `reuse-port`.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "rr" => Ok(Self::RoundRobin),
            "none" => Ok(Self::Shared),
            "least-loaded" => Ok(Self::LeastLoaded),
            "sticky" => Ok(Self::Sticky),
            "reuse-port" => Ok(Self::ReusePort),
            _ => Err(format!(
                "unknown policy '{name}', expected 'rr', 'none', 'least-loaded', 'sticky' or \
                 'reuse-port'"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn names_and_numbers_are_nodes_where_node_has_them() {
        for (name, policy, value) in [
            ("rr", Policy::RoundRobin, 2),
            ("none", Policy::Shared, 1),
            ("sticky", Policy::Sticky, 4),
            ("least-loaded", Policy::LeastLoaded, 3),
            ("reuse-port", Policy::ReusePort, 5),
        ] {
            assert_eq!((name.parse(), policy.value()), (Ok(policy), value));
        }
        assert!("fair".parse::<Policy>().is_err());
    }

    #[test]
    fn the_environment_asks_in_nodes_words_only() {
        for (value, policy) in [
            (Some("none"), Policy::Shared),
            (Some("rr"), Policy::RoundRobin),
            (Some("sticky"), Policy::RoundRobin),
            (Some(""), Policy::RoundRobin),
            (None, Policy::RoundRobin),
        ] {
            assert_eq!(Policy::from_environment(value.map(OsStr::new)), policy, "{value:?}");
        }
    }
}
