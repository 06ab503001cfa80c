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
    None,
}

impl Policy {
    /// Node's number for the policy.
    #[must_use]
    pub fn value(self) -> u8 {
        match self {
            Self::RoundRobin => 2,
            Self::None => 1,
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = String;

    /// Reads `rr` or `none`, as `NODE_CLUSTER_SCHED_POLICY` spells them.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "rr" => Ok(Self::RoundRobin),
            "none" => Ok(Self::None),
            _ => Err(format!("unknown policy '{name}', expected 'rr' or 'none'")),
        }
    }
}
