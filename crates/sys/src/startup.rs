//! The environment variables and descriptors that this process was started with.
//!
//! A process that was forked with a channel finds the channel through its environment. These
//! variables must not reach the children of the process: a stray `NODE_UNIQUE_ID` makes every `listen` of a
//! Node grandchild hang for ever. Changing the environment is sound only while there is one thread,
//! which `main` cannot promise. An `.init_array` function therefore runs before `main`: it copies
//! the variables of [`NAMES`], removes them, and makes the descriptors they name close-on-exec. In a
//! worker with a native channel, the function also holds `SIGTERM`, `SIGINT` and `SIGHUP` until the
//! worker's runtime takes them over; see [`signal::release_held`].
//!
//! [`variable`] and [`take_descriptor`] use that copy. A library that contains this one and is loaded
//! into a running program takes nothing: the program has threads that read the environment, and
//! another owner of its descriptors. The first call then reads the variables and leaves them in
//! place. The same holds in a program whose libraries have started threads before `main`.
//!
//! A program with more privileges than the user who starts it (`AT_SECURE`, see `getauxval(3)`)
//! believes no environment: with one of these variables it ends before `main`, with status 1 and a
//! line on standard error. If it went on without them, a program that starts itself as its worker
//! would start another primary, and that one another, without end.
//!
//! The variables of a service manager are not among them: another library of the program may be
//! the one that takes its sockets. [`listen_sockets`] takes them when it is called, and none in a
//! program with more privileges than its user.

use std::ffi::{CStr, OsStr, OsString};
use std::io::Write;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::host::user::is_elevated;
use crate::{at_exit, fd, main_program, signal};

/// The variables that are removed. `*_CHANNEL`, `*_FD` and `BROOD_STDERR` name descriptors.
pub const NAMES: [&str; 9] = [
    "BROOD_CHANNEL",
    "BROOD_DESCRIPTORS",
    "BROOD_MODULE",
    "BROOD_SANDBOX",
    "BROOD_STDERR",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "NODE_UNIQUE_NO",
];

/// [`NAMES`] again, as C strings.
const C_NAMES: [&CStr; 9] = [
    c"BROOD_CHANNEL",
    c"BROOD_DESCRIPTORS",
    c"BROOD_MODULE",
    c"BROOD_SANDBOX",
    c"BROOD_STDERR",
    c"NODE_CHANNEL_FD",
    c"NODE_CHANNEL_SERIALIZATION_MODE",
    c"NODE_UNIQUE_ID",
    c"NODE_UNIQUE_NO",
];

/// The indices of variables in [`NAMES`].
const CHANNEL: usize = 0;
const MODULE: usize = 2;
const UNIQUE_ID: usize = 7;

struct Entry {
    value: Option<OsString>,
    /// The descriptor that the value names, if the check has recognised it.
    descriptor: Option<i32>,
    taken: AtomicBool,
}

static ENTRIES: OnceLock<[Entry; 9]> = OnceLock::new();

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let is_set = |name: &&CStr| {
        // SAFETY: the name is a C string.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        !value.is_null()
    };
    // The common case has no variable, and needs no look at the process.
    let Some(found) = C_NAMES.iter().copied().find(is_set) else { return };
    if !main_program::contains(before_main as *const () as usize) {
        return;
    }
    if is_elevated() {
        refuse(found);
    }
    if !main_program::has_one_thread() {
        return;
    }
    let taken = ENTRIES.get_or_init(|| C_NAMES.map(|name| read(name, true)));
    if taken.get(MODULE).is_some_and(|module| module.value.is_some()) {
        at_exit::at_exit(report_forgotten_module);
    }
    let has_channel = taken.get(CHANNEL).is_some_and(|channel| channel.descriptor.is_some());
    if has_channel && taken.get(UNIQUE_ID).is_some_and(|id| id.value.is_some()) {
        signal::hold();
    }
}

/// Ends a program that has more privileges than the user who wants it to be a worker.
fn refuse(found: &CStr) -> ! {
    // Not the print macros: they panic when standard error is closed.
    let _ = writeln!(
        std::io::stderr(),
        "{} is set, but the file of this program gives it more privileges than its user has: it is \
         no worker and no child with a channel (give a service AmbientCapabilities= instead)",
        found.to_string_lossy()
    );
    // SAFETY: an integer only; nothing is to be run at the exit, because nothing has begun.
    unsafe { libc::_exit(1) }
}

fn entries() -> &'static [Entry; 9] {
    // The linker takes an object out of a library only if another object refers to a symbol in it.
    // This read refers to the object with the `.init_array` entry in every program that comes here.
    std::hint::black_box(&BEFORE_MAIN);
    ENTRIES.get_or_init(|| C_NAMES.map(|name| read(name, false)))
}

fn read(name: &'static CStr, remove: bool) -> Entry {
    let absent = || Entry { value: None, descriptor: None, taken: AtomicBool::new(false) };
    // A library in such a program.
    if is_elevated() {
        return absent();
    }
    // SAFETY: the name is a C string. Before main there is one thread; later the library was
    // loaded into a running program, which must not change its environment meanwhile.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return absent();
    }
    // SAFETY: `getenv` gave a C string that lives until the environment changes, below.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes().to_vec();
    if remove {
        // SAFETY: the name is a C string, and before main no other thread reads the environment.
        unsafe { libc::unsetenv(name.as_ptr()) };
    }
    let descriptor = named_descriptor(name, &value);
    if let Some(number) = descriptor.filter(|_| remove) {
        close_on_exec(number);
    }
    Entry { value: Some(OsString::from_vec(value)), descriptor, taken: AtomicBool::new(false) }
}

/// Returns the descriptor that a value such as `3`, `3:81234` or `3:81234:1:bincode` names.
///
/// The descriptor must be open, have the inode if the value names one, and for Node be a Unix
/// stream socket. Otherwise a program between the parent and this process may have put the number
/// to another use.
fn named_descriptor(name: &CStr, value: &[u8]) -> Option<i32> {
    let names_one =
        name == c"BROOD_CHANNEL" || name == c"BROOD_STDERR" || name == c"NODE_CHANNEL_FD";
    if !names_one {
        return None;
    }
    let mut fields = value.split(|&byte| byte == b':').map(number);
    let number = i32::try_from(fields.next()??).ok()?;
    // SAFETY: only used while this function runs, on numbers that may be closed: every call
    // below answers EBADF then.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let inode = fd::inode(fd).ok()?;
    if fields.next().is_some_and(|wanted| wanted != Some(inode)) {
        return None;
    }
    if name == c"NODE_CHANNEL_FD" && fd::kind(fd).ok()? != fd::Kind::UnixStream {
        return None;
    }
    Some(number)
}

fn close_on_exec(number: i32) {
    // SAFETY: integers only; a number that is closed answers EBADF.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}

fn number(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(field).ok()?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

fn entry(name: &str) -> Option<&'static Entry> {
    let index = NAMES.iter().position(|known| *known == name)?;
    entries().get(index)
}

/// Returns the value that `name`, one of [`NAMES`], had when this process started.
///
/// ```
/// assert_eq!(brood_sys::startup::variable("BROOD_CHANNEL"), None);
/// ```
#[must_use]
pub fn variable(name: &str) -> Option<&'static OsStr> {
    entry(name)?.value.as_deref()
}

/// Takes the descriptor that `name` (`BROOD_CHANNEL`, `BROOD_STDERR` or `NODE_CHANNEL_FD`) names.
///
/// Returns it once, and only if it was open and passed the check when this process started.
#[must_use]
pub fn take_descriptor(name: &str) -> Option<OwnedFd> {
    let entry = entry(name)?;
    let number = entry.descriptor?;
    if entry.taken.swap(true, Ordering::AcqRel) {
        return None;
    }
    close_on_exec(number);
    // SAFETY: our parent opened it for us and told us its number; `taken` makes us its only
    // owner in this process.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether this process has asked for the module that it was started to run.
static MODULE_TAKEN: AtomicBool = AtomicBool::new(false);

/// Returns the module that this process was started to run, `BROOD_MODULE`, and records that the
/// process has asked for the name.
#[must_use]
pub fn take_module() -> Option<&'static str> {
    MODULE_TAKEN.store(true, Ordering::Release);
    variable_text(NAMES[MODULE])
}

/// Returns the module that this process was started to run, if the process has never asked for the
/// name by [`take_module`]: the program then runs from its beginning in place of the module.
#[must_use]
pub fn forgotten_module() -> Option<&'static str> {
    if MODULE_TAKEN.load(Ordering::Acquire) { None } else { variable_text(NAMES[MODULE]) }
}

/// Writes a line to standard error if the process ends without having asked for its module: without
/// that line, the child of a program that never calls `run_modules` ends like a good one.
fn report_forgotten_module() {
    if let Some(name) = forgotten_module() {
        // Not the print macros: they panic when standard error is closed.
        let _ = writeln!(
            std::io::stderr(),
            "the module {name:?} did not run: call `run_modules` first in `main`"
        );
    }
}

/// The variables of a service manager, see `sd_listen_fds(3)`.
pub const SERVICE_MANAGER_NAMES: [&str; 3] = ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"];

/// The largest number of sockets that are taken from a service manager.
const LISTEN_FDS_MAX: i32 = 1024;

/// Whether this process has taken the sockets of its service manager.
static SOCKETS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Returns the descriptors of the sockets that a service manager passed to this very process.
fn passed(pid: Option<&[u8]>, count: Option<&[u8]>) -> std::ops::Range<i32> {
    let for_us = pid.and_then(number) == Some(u64::from(std::process::id()));
    let count = count.and_then(number).and_then(|count| i32::try_from(count).ok());
    3..3 + count.filter(|_| for_us).unwrap_or(0).min(LISTEN_FDS_MAX)
}

/// Takes the sockets that a service manager passed, with their names: `LISTEN_FDS`, see
/// `sd_listen_fds(3)`.
///
/// Returns them once, and none if `LISTEN_PID` names another process, or if this program has more
/// privileges than the user who starts it: the sockets could be those of the user. They become
/// close-on-exec.
/// The variables stay in the environment of this process, where other threads may read it; see
/// [`listen_sockets_taken`].
///
/// Another library must not take them as well: each socket would have two owners.
pub fn listen_sockets() -> Vec<(String, OwnedFd)> {
    let variable = |name| std::env::var_os(name).map(OsString::into_vec);
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    let numbers = passed(pid.as_deref(), count.as_deref());
    if numbers.is_empty() || is_elevated() || SOCKETS_TAKEN.swap(true, Ordering::AcqRel) {
        return Vec::new();
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(Some).chain(std::iter::repeat(None));
    let named = numbers.zip(names).filter_map(|(number, name)| {
        // SAFETY: integers only; a number that is closed answers EBADF.
        fd::cvt(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }).ok()?;
        let name = name.filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
        // SAFETY: the service manager opened it for us and told us its number; `SOCKETS_TAKEN`
        // makes us its only owner in this process.
        Some((name, unsafe { OwnedFd::from_raw_fd(number) }))
    });
    named.collect()
}

/// Returns whether this process has taken the sockets of its service manager. Its children get none
/// of [`SERVICE_MANAGER_NAMES`] then.
#[must_use]
pub fn listen_sockets_taken() -> bool {
    SOCKETS_TAKEN.load(Ordering::Acquire)
}

/// Duplicates descriptor `number`, which this process was started with. The copy is close-on-exec.
///
/// For descriptors whose number parent and child have agreed on. The original stays open, and the
/// copy refers to whatever `number` refers to at the time of the call.
///
/// # Errors
///
/// `EBADF` when it is closed; `EMFILE` when no descriptor is left.
pub fn inherited(number: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: integers only: a number that is closed, or another's, is at worst duplicated.
    let copy = fd::cvt(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Duplicates descriptor `number` if a program that this process starts or becomes would inherit
/// it: it is not close-on-exec, as are descriptors that this process has inherited itself. The copy
/// is close-on-exec.
///
/// # Errors
///
/// `EBADF` when it is closed, or close-on-exec; `EMFILE` when no descriptor is left.
pub fn inheritable(number: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: integers only; a number that is closed answers EBADF.
    let flags = fd::cvt(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF));
    }
    inherited(number)
}

/// Returns the value as text; `None` if it is absent or not UTF-8.
#[must_use]
pub fn variable_text(name: &str) -> Option<&'static str> {
    std::str::from_utf8(variable(name)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};
    use std::process::Command;

    use super::*;

    #[test]
    fn the_two_lists_of_names_agree() {
        for (name, c_name) in NAMES.iter().zip(C_NAMES) {
            assert_eq!(c_name.to_str().unwrap(), *name);
        }
        let indexed = [NAMES[CHANNEL], NAMES[MODULE], NAMES[UNIQUE_ID]];
        assert_eq!(indexed, ["BROOD_CHANNEL", "BROOD_MODULE", "NODE_UNIQUE_ID"]);
    }

    #[test]
    fn sockets_are_taken_only_if_they_were_passed_to_this_process() {
        let me = std::process::id().to_string();
        assert_eq!(passed(Some(me.as_bytes()), Some(b"2")), 3..5);
        assert_eq!(passed(Some(b"1"), Some(b"2")), 3..3);
        assert_eq!(passed(Some(me.as_bytes()), Some(b"x")), 3..3);
        assert_eq!(passed(None, Some(b"2")), 3..3);
    }

    #[test]
    fn only_plain_numbers_name_descriptors() {
        for bad in ["", "-1", "+3", "3x", " 3", "99999999999999999999"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(number(b"17"), Some(17));
    }

    /// Runs this test program again with the variables set; `inside_the_child` has the checks.
    #[test]
    fn variables_are_removed_before_main_and_can_still_be_read() {
        let me = std::env::current_exe().unwrap();
        let output = Command::new(me)
            .args(["--exact", "startup::tests::inside_the_child", "--ignored", "--nocapture"])
            .envs([("BROOD_CHANNEL", "0:1:1:bincode"), ("NODE_UNIQUE_ID", "5"), ("OTHER", "x")])
            .env("NODE_CHANNEL_FD", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    #[ignore = "runs only inside variables_are_removed_before_main_and_can_still_be_read"]
    fn inside_the_child() {
        for name in NAMES {
            assert_eq!(std::env::var_os(name), None, "{name} was not removed");
        }
        assert_eq!(std::env::var("OTHER").unwrap(), "x");
        assert_eq!(variable_text("BROOD_CHANNEL"), Some("0:1:1:bincode"));
        assert_eq!(variable_text("NODE_UNIQUE_ID"), Some("5"));
        assert_eq!(variable("BROOD_MODULE"), None);
        assert_eq!(variable("HOME"), None);
        assert!(take_descriptor("BROOD_CHANNEL").is_none(), "the inode is another");
        assert!(take_descriptor("NODE_CHANNEL_FD").is_none(), "a pipe is no channel");
    }

    #[test]
    fn a_named_descriptor_is_checked() {
        let (a, _b) = crate::socket::pair_stream().unwrap();
        fd::set_close_on_exec(a.as_fd(), false).unwrap();
        let number = a.as_raw_fd();
        let inode = fd::inode(a.as_fd()).unwrap();
        let named = |text: String| named_descriptor(c"BROOD_CHANNEL", text.as_bytes());
        assert_eq!(named(format!("{number}:{}", inode + 1)), None);
        assert_eq!(named("1000000:1".to_owned()), None);
        assert_eq!(named(format!("{number}:{inode}:1:bincode")), Some(number));
        // Only the program that takes the variable owns the descriptor.
        assert!(!fd::is_close_on_exec(a.as_fd()).unwrap());
        close_on_exec(number);
        assert!(fd::is_close_on_exec(a.as_fd()).unwrap());
    }
}
