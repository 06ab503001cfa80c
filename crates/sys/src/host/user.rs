//! The user database and the priority of processes.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::ptr;

use nix::errno::Errno;

/// The largest entry of the user database that is read, in bytes.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// One entry of the user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The id of the primary group.
    pub gid: u32,
    /// The login name.
    pub name: OsString,
    /// The home directory.
    pub home: OsString,
    /// The login shell; empty if the entry has none.
    pub shell: OsString,
}

/// The ids with which a user's processes run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user id.
    pub uid: u32,
    /// The id of the primary group.
    pub gid: u32,
    /// The ids of all groups, the primary one among them.
    pub groups: Vec<u32>,
}

/// Returns the ids and groups of the user `name`, or `None` if the database has no such user. See
/// `getpwnam_r(3)` and `getgrouplist(3)`.
///
/// # Errors
///
/// The errors of the two calls.
pub fn account(name: &OsStr) -> io::Result<Option<Account>> {
    // A name with a zero byte is in no database.
    let (Some(text), Ok(c_name)) = (name.to_str(), CString::new(name.as_bytes())) else {
        return Ok(None);
    };
    let user = match nix::unistd::User::from_name(text) {
        Ok(Some(user)) => user,
        // A missing entry is no error, but some databases report one.
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let groups = nix::unistd::getgrouplist(&c_name, user.gid)?;
    let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
    Ok(Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups }))
}

/// Returns the effective user and group of this process.
#[must_use]
pub fn effective_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// Returns whether this program runs with more privileges than its user has (setuid and the like).
#[must_use]
pub fn is_elevated() -> bool {
    // SAFETY: the call takes an integer and touches no memory of ours.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Returns whether this program runs with more privileges than its user has because of its file:
/// by a set-user-ID or set-group-ID bit, or by capabilities. Every start of this program has them
/// again, unless it is forbidden to gain privileges.
///
/// A program whose file cannot be looked at counts as one that has them.
#[must_use]
pub fn is_elevated_by_own_file() -> bool {
    const ANY_ID: u32 = libc::S_ISUID | libc::S_ISGID;
    let (file, name) = (c"/proc/self/exe", c"security.capability");
    let mode = || std::fs::metadata("/proc/self/exe").map(|file| file.mode());
    // SAFETY: two C strings; nothing is written where the size is zero.
    let capabilities =
        || unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), ptr::null_mut(), 0) };
    is_elevated() && (mode().map_or(true, |mode| mode & ANY_ID != 0) || capabilities() > 0)
}

/// Returns the entry of `uid` in the user database, or `None` if there is none.
///
/// # Errors
///
/// As `getpwuid_r(3)`.
pub fn user(uid: u32) -> io::Result<Option<User>> {
    let mut buffer = vec![0u8; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut result = ptr::null_mut();
        let text = buffer.as_mut_ptr().cast();
        // SAFETY: every pointer leads to memory of ours that outlives the call; the length is
        // that of `buffer`.
        let answer = unsafe {
            libc::getpwuid_r(uid, entry.as_mut_ptr(), text, buffer.len(), &raw mut result)
        };
        match answer {
            libc::ERANGE if buffer.len() < ENTRY_BYTES_MAX => buffer.resize(buffer.len() * 4, 0),
            // A missing entry is no error, but some databases report one.
            0 | libc::ENOENT | libc::ESRCH if result.is_null() => return Ok(None),
            0 => {
                // SAFETY: the call succeeded and `result` leads to `entry`, which it filled.
                let entry = unsafe { entry.assume_init() };
                let string = |text: *const libc::c_char| {
                    if text.is_null() {
                        return OsString::new();
                    }
                    // SAFETY: the strings of an entry end with a zero and lie in `buffer`, which
                    // lives until the copy is made.
                    let text = unsafe { CStr::from_ptr(text) };
                    OsString::from_vec(text.to_bytes().to_vec())
                };
                return Ok(Some(User {
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                    name: string(entry.pw_name),
                    home: string(entry.pw_dir),
                    shell: string(entry.pw_shell),
                }));
            }
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Returns the priority of the process or thread `id`; 0 is the calling thread.
///
/// # Errors
///
/// As `getpriority(2)`.
pub fn priority(id: u32) -> io::Result<i32> {
    nix::errno::Errno::clear();
    // SAFETY: the call takes integers and touches no memory of ours.
    let priority = unsafe { libc::getpriority(libc::PRIO_PROCESS as _, id) };
    // -1 is a valid priority as well; only errno tells it from an error.
    match nix::errno::Errno::last_raw() {
        errno if priority == -1 && errno != 0 => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(priority),
    }
}

/// Sets the priority of the process or thread `id` alone; 0 is the calling thread.
///
/// # Errors
///
/// As `setpriority(2)`.
pub fn set_priority(id: u32, priority: i32) -> io::Result<()> {
    // SAFETY: the call takes integers and touches no memory of ours.
    crate::fd::cvt(unsafe { libc::setpriority(libc::PRIO_PROCESS as _, id, priority) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number_and_missing_ones_are_none() {
        assert_eq!(user(0).unwrap().unwrap().name, "root");
        assert_eq!(user(4_000_000_007).unwrap(), None);
    }

    #[test]
    fn the_priority_of_a_missing_process_is_an_error() {
        assert!((-20..20).contains(&priority(0).unwrap()));
        let missing = i32::MAX as u32;
        assert_eq!(priority(missing).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(set_priority(missing, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
