//! The numbers that programs know by name.

/// What ends a line of text here.
pub const EOL: &str = "\n";

/// The path of the file that forgets.
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

/// The named levels of priority, one by one.
pub mod priority {
    /// Runs when nobody else wants to.
    #[doc(alias = "PRIORITY_LOW")]
    pub const LOW: i32 = 19;
    /// Less than usual.
    #[doc(alias = "PRIORITY_BELOW_NORMAL")]
    pub const BELOW_NORMAL: i32 = 10;
    /// What a process starts with.
    #[doc(alias = "PRIORITY_NORMAL")]
    pub const NORMAL: i32 = 0;
    /// More than usual; needs a right to it, as all that follow.
    #[doc(alias = "PRIORITY_ABOVE_NORMAL")]
    pub const ABOVE_NORMAL: i32 = -7;
    /// Much more than usual.
    #[doc(alias = "PRIORITY_HIGH")]
    pub const HIGH: i32 = -14;
    /// As much as there is.
    #[doc(alias = "PRIORITY_HIGHEST")]
    pub const HIGHEST: i32 = -20;
}

/// The option by which a UDP port is shared, as Node lists it.
pub const UV_UDP_REUSEADDR: i32 = 4;

pub use sys::host::constants::{DLOPEN, ERRNO, SIGNALS};

/// The number of the signal with this name.
///
/// ```
/// assert_eq!(os_info::constants::signal("SIGTERM"), Some(15));
/// assert_eq!(os_info::constants::signal("SIGNOTHING"), None);
/// ```
#[must_use]
pub fn signal(name: &str) -> Option<i32> {
    find(SIGNALS, name)
}

/// The error number with this name.
///
/// ```
/// assert_eq!(os_info::constants::errno("ENOENT"), Some(2));
/// ```
#[must_use]
pub fn errno(name: &str) -> Option<i32> {
    find(ERRNO, name)
}

fn find(table: &[(&str, i32)], name: &str) -> Option<i32> {
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}
