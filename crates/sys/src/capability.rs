//! Capabilities: the rights of root, one by one. See `capabilities(7)`.

use std::fmt;
use std::io;

/// One right of root, by its number in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

macro_rules! capabilities {
    ($($name:ident = $number:literal,)*) => {
        impl Capability {
            $(
                #[doc = concat!("`CAP_", stringify!($name), "`")]
                pub const $name: Self = Self($number);
            )*

            /// Every capability with a name.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(concat!("CAP_", stringify!($name))),)*
                    _ => None,
                }
            }
        }
    };
}

capabilities! {
    CHOWN = 0,
    DAC_OVERRIDE = 1,
    DAC_READ_SEARCH = 2,
    FOWNER = 3,
    FSETID = 4,
    KILL = 5,
    SETGID = 6,
    SETUID = 7,
    SETPCAP = 8,
    LINUX_IMMUTABLE = 9,
    NET_BIND_SERVICE = 10,
    NET_BROADCAST = 11,
    NET_ADMIN = 12,
    NET_RAW = 13,
    IPC_LOCK = 14,
    IPC_OWNER = 15,
    SYS_MODULE = 16,
    SYS_RAWIO = 17,
    SYS_CHROOT = 18,
    SYS_PTRACE = 19,
    SYS_PACCT = 20,
    SYS_ADMIN = 21,
    SYS_BOOT = 22,
    SYS_NICE = 23,
    SYS_RESOURCE = 24,
    SYS_TIME = 25,
    SYS_TTY_CONFIG = 26,
    MKNOD = 27,
    LEASE = 28,
    AUDIT_WRITE = 29,
    AUDIT_CONTROL = 30,
    SETFCAP = 31,
    MAC_OVERRIDE = 32,
    MAC_ADMIN = 33,
    SYSLOG = 34,
    WAKE_ALARM = 35,
    BLOCK_SUSPEND = 36,
    AUDIT_READ = 37,
    PERFMON = 38,
    BPF = 39,
    CHECKPOINT_RESTORE = 40,
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "capability {}", self.0),
        }
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The set without a capability.
    pub const NONE: Self = Self(0);

    /// Returns whether the capability is in the set.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 >> capability.0 & 1 == 1
    }

    /// Returns the capabilities that are in this set and not in the other one.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether the set has no capability.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |set, one| set | 1 << one.0))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = (0..64).map(Capability).filter(|one| self.contains(*one));
        f.debug_set().entries(numbers).finish()
    }
}

/// The header of `capget(2)` and `capset(2)`.
#[repr(C)]
pub(crate) struct Header {
    version: u32,
    pid: i32,
}

/// The header for the calling thread, with the version that has 64 capabilities.
pub(crate) static OF_THIS_THREAD: Header = Header { version: 0x2008_0522, pid: 0 };

/// Half of the sets of a thread: capabilities 0 to 31, or 32 to 63.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Half {
    pub(crate) effective: u32,
    pub(crate) permitted: u32,
    pub(crate) inheritable: u32,
}

/// Returns the effective capabilities of the calling thread.
///
/// # Errors
///
/// Those of `capget(2)`, which only a sandbox causes.
pub fn effective() -> io::Result<Capabilities> {
    let mut halves = [Half::default(); 2];
    let header = &raw const OF_THIS_THREAD;
    // SAFETY: a header of the version that writes two halves, which are ours.
    let answer = unsafe { libc::syscall(libc::SYS_capget, header, halves.as_mut_ptr()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = halves;
    Ok(Capabilities(u64::from(low.effective) | u64::from(high.effective) << 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_capabilities_that_were_put_into_it() {
        let set: Capabilities = [Capability::KILL, Capability::BPF].into_iter().collect();
        assert!(set.contains(Capability::KILL) && set.contains(Capability::BPF));
        assert!(!set.contains(Capability::CHOWN) && !set.is_empty());
        assert_eq!(format!("{set:?}"), "{CAP_KILL, CAP_BPF}");
        assert_eq!(set.without([Capability::KILL].into_iter().collect()).bits(), 1 << 39);
        assert_eq!(Capability::ALL.len(), 41);
    }

    #[test]
    fn the_effective_set_is_that_of_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        let expected = u64::from_str_radix(line, 16).unwrap();
        assert_eq!(effective().unwrap().bits(), expected);
    }
}
