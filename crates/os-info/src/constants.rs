//! Constants: line ending, null device, priorities, signals and errors by name.

/// The end of a line of text on this platform.
pub const EOL: &str = "\n";

/// The path of the null device, which discards all bytes written to it.
#[doc(alias = "devNull")]
pub const DEV_NULL: &str = "/dev/null";

/// The named levels of [`set_priority`](crate::set_priority), with Node's names.
pub const PRIORITIES: &[(&str, i32)] = &[
    ("PRIORITY_LOW", priority::LOW),
    ("PRIORITY_BELOW_NORMAL", priority::BELOW_NORMAL),
    ("PRIORITY_NORMAL", priority::NORMAL),
    ("PRIORITY_ABOVE_NORMAL", priority::ABOVE_NORMAL),
    ("PRIORITY_HIGH", priority::HIGH),
    ("PRIORITY_HIGHEST", priority::HIGHEST),
];

/// The named levels of priority as separate constants.
///
/// Levels above normal need a privilege. See `setpriority(2)`.
pub mod priority {
    /// The lowest priority: the process runs when no other one needs the CPU.
    #[doc(alias = "PRIORITY_LOW")]
    pub const LOW: i32 = 19;
    /// Less CPU time than a normal process.
    #[doc(alias = "PRIORITY_BELOW_NORMAL")]
    pub const BELOW_NORMAL: i32 = 10;
    /// The default priority of a process.
    #[doc(alias = "PRIORITY_NORMAL")]
    pub const NORMAL: i32 = 0;
    /// More CPU time than a normal process.
    #[doc(alias = "PRIORITY_ABOVE_NORMAL")]
    pub const ABOVE_NORMAL: i32 = -7;
    /// Much more CPU time than a normal process.
    #[doc(alias = "PRIORITY_HIGH")]
    pub const HIGH: i32 = -14;
    /// The highest priority.
    #[doc(alias = "PRIORITY_HIGHEST")]
    pub const HIGHEST: i32 = -20;
}

/// The option that shares a UDP port, as Node lists it.
pub const UV_UDP_REUSEADDR: i32 = 4;

pub use sys::host::constants::{DLOPEN, ERRNO, SIGNALS};

/// Returns the number of the signal `name`.
///
/// ```
/// assert_eq!(brood_os_info::constants::signal("SIGTERM"), Some(15));
/// assert_eq!(brood_os_info::constants::signal("SIGNOTHING"), None);
/// ```
#[must_use]
pub fn signal(name: &str) -> Option<i32> {
    find(SIGNALS, name)
}

/// Returns the error number `name`.
///
/// ```
/// assert_eq!(brood_os_info::constants::errno("ENOENT"), Some(2));
/// ```
#[must_use]
pub fn errno(name: &str) -> Option<i32> {
    find(ERRNO, name)
}

fn find(table: &[(&str, i32)], name: &str) -> Option<i32> {
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}
