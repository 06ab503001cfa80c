//! Who accepts a new connection, and who is restarted.
//!
//! Pure.

/// How new connections are dealt to the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[doc(alias = "schedulingPolicy")]
pub enum Policy {
    /// The primary accepts and deals in strict rotation. Node's `SCHED_RR`, value 2.
    ///
    /// A worker that does not take what it was given is skipped until it does.
    #[default]
    #[doc(alias = "SCHED_RR")]
    RoundRobin,
    /// The workers share the listening socket and accept by themselves. Node's `SCHED_NONE`,
    /// value 1.
    ///
    /// Cheapest for the primary, but the kernel wakes whom it likes: the load is uneven.
    #[doc(alias = "SCHED_NONE")]
    Shared,
    /// The primary accepts, and deals to the worker with the fewest connections: those in its
    /// queue and those that it has open, for the same address. In rotation among equals. Value 3;
    /// beyond Node.
    ///
    /// A connection is open until its [`Accepted`](crate::Accepted) is dropped. Long-lived ones
    /// that pin a worker so send the new ones elsewhere. Workers that are Node programs count
    /// only what they have not answered.
    LeastLoaded,
    /// The primary accepts, and deals by the client's address: the same client goes to the same
    /// worker, and to its successor when it is replaced. Value 4; beyond Node.
    ///
    /// A client moves only when workers come or go and it is among the few that have to, and for
    /// as long as its worker has no room or has left unread for a second what it was given, where
    /// other policies wait a tenth of that: a client that moves loses what its worker knows of it.
    /// Behind a proxy all clients have the
    /// proxy's address and so one worker; clients of a Unix socket have none and are dealt in
    /// rotation.
    Sticky,
    /// Each worker accepts by itself, from a socket of its own at the same port (`SO_REUSEPORT`);
    /// the kernel deals by a hash of the client's address and port. Value 5; beyond Node.
    ///
    /// As cheap as [`Shared`](Self::Shared), and evener: each worker gets about its share. The sockets
    /// are the primary's, one for each place in the cluster, and outlive the workers: what waits in
    /// one whose worker died, froze or leaves is accepted by the primary, and dealt to the others
    /// in rotation. So nobody is reset, as with sockets that the workers open themselves. A frozen
    /// worker is noticed after a fifth of a second.
    ///
    /// The primary deals, in rotation, where there can be no such sockets: Unix sockets, a socket
    /// that was [given](crate::Builder::socket); and what comes in at a socket of its own, opened
    /// as soon as a worker may have only [so many](crate::ListenOptions::max_connections) open or
    /// is a Node program. The socket of a place that is given up by
    /// [`scale`](crate::Primary::scale) stays, and the primary goes on dealing what comes in there.
    ReusePort,
}

impl Policy {
    /// Node's number for the policy, or ours.
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
    /// What `NODE_CLUSTER_SCHED_POLICY` asks for: `rr` or `none`; anything else is ignored.
    pub(crate) fn asked_for(value: Option<&std::ffi::OsStr>) -> Self {
        match value.and_then(std::ffi::OsStr::to_str) {
            Some("none") => Self::Shared,
            _ => Self::RoundRobin,
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = String;

    /// Reads `rr` or `none`, as `NODE_CLUSTER_SCHED_POLICY` spells them, `least-loaded`,
    /// `sticky` or `reuse-port`.
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
            assert_eq!(Policy::asked_for(value.map(OsStr::new)), policy, "{value:?}");
        }
    }
}
