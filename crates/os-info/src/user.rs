//! The user of this program, and the user's directories.

#[cfg(feature = "serde")]
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::Error;

/// The user of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UserInfo {
    /// The number of the effective user.
    pub uid: u32,
    /// The number of the user's group: the primary group in the user database, or the effective
    /// group without an entry.
    pub gid: u32,
    /// The login name; `None` where the user database has no entry for the number.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub username: Option<OsString>,
    /// The home directory in the user database; `None` without an entry, or with an empty one.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub homedir: Option<PathBuf>,
    /// The login shell; `None` without an entry, or with an empty one.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub shell: Option<PathBuf>,
}

/// Serializes as text, with replacement characters where the value is not UTF-8.
#[cfg(feature = "serde")]
fn as_text<S: serde::Serializer>(
    value: &Option<impl AsRef<OsStr>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = value.as_ref().map(|value| value.as_ref().to_string_lossy());
    serde::Serialize::serialize(&text, serializer)
}

/// Looks up the effective user in the user database. The environment is not used.
///
/// A number without an entry, as is common in containers, is no error: the result then has the
/// numbers without the names.
///
/// ```
/// let user = brood_os_info::user_info()?;
/// match user.username {
///     Some(name) => println!("{} ({})", name.to_string_lossy(), user.uid),
///     None => println!("user {}", user.uid),
/// }
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// The error of `getpwuid_r(3)` where the database cannot be read.
///
/// Node: throws for a number without an entry, and returns the empty text for an empty home
/// directory or shell.
#[doc(alias = "userInfo")]
pub fn user_info() -> Result<UserInfo, Error> {
    let (uid, gid) = sys::host::user::effective_ids();
    let found = sys::host::user::user(uid).map_err(|error| Error::os("getpwuid_r", error))?;
    Ok(match found {
        Some(user) => of_entry(user),
        None => UserInfo { uid, gid, username: None, homedir: None, shell: None },
    })
}

fn of_entry(user: sys::host::user::User) -> UserInfo {
    let path = |text: OsString| Some(text).filter(|text| !text.is_empty()).map(PathBuf::from);
    UserInfo {
        uid: user.uid,
        gid: user.gid,
        username: Some(user.name),
        homedir: path(user.home),
        shell: path(user.shell),
    }
}

/// Returns the home directory of the user: `HOME`, or else the entry of the user database.
///
/// The path need not be UTF-8, and the directory need not exist.
///
/// # Errors
///
/// [`Error::Empty`] when `HOME` is set to the empty text; `ENOENT` from `getpwuid_r` when `HOME` is
/// not set and the user has no entry, or an entry without a home.
///
/// Node: returns the empty text for an empty `HOME` or an empty entry. Every path made of it
/// silently leads to the current directory.
pub fn homedir() -> Result<PathBuf, Error> {
    match std::env::var_os("HOME") {
        Some(home) if home.is_empty() => return Err(Error::Empty { variable: "HOME" }),
        Some(home) => return Ok(home.into()),
        None => {}
    }
    let missing = || std::io::Error::from_raw_os_error(sys::errno::ENOENT);
    user_info()?.homedir.ok_or_else(|| Error::os("getpwuid_r", missing()))
}

/// Returns the directory for temporary files.
///
/// The result is the first of `TMPDIR`, `TMP` and `TEMP` that is not empty, or `/tmp`. One slash at
/// its end is removed. A program with more privileges than its user (setuid) ignores the
/// environment. The directory need not exist.
///
/// ```
/// let file = brood_os_info::tmpdir().join("draft");
/// # assert!(file.ends_with("draft"));
/// ```
#[must_use]
pub fn tmpdir() -> PathBuf {
    let variables =
        if sys::host::user::is_elevated() { &[][..] } else { &["TMPDIR", "TMP", "TEMP"] };
    tmpdir_of(variables.iter().filter_map(std::env::var_os))
}

fn tmpdir_of(candidates: impl IntoIterator<Item = OsString>) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let found = candidates.into_iter().find(|value| !value.is_empty());
    let Some(directory) = found else { return "/tmp".into() };
    match directory.as_bytes() {
        [kept @ .., b'/'] if !kept.is_empty() => OsString::from_vec(kept.to_vec()).into(),
        _ => directory.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_home_or_shell_of_the_user_database_is_none() {
        let entry = |home: &str, shell: &str| {
            let (name, home, shell) = ("n".into(), home.into(), shell.into());
            of_entry(sys::host::user::User { uid: 1, gid: 2, name, home, shell })
        };
        let empty = entry("", "");
        assert_eq!((empty.uid, empty.gid, empty.username), (1, 2, Some("n".into())));
        assert_eq!((empty.homedir, empty.shell), (None, None));
        let full = entry("/h", "/s");
        assert_eq!((full.homedir, full.shell), (Some("/h".into()), Some("/s".into())));
    }

    #[test]
    fn one_slash_is_removed_and_empty_variables_count_as_missing() {
        for (given, expected) in [
            (&["/a/b/"][..], "/a/b"),
            (&["/a/b//"], "/a/b/"),
            (&["/"], "/"),
            (&["", "", "/c"], "/c"),
            (&[""], "/tmp"),
            (&[], "/tmp"),
        ] {
            let found = tmpdir_of(given.iter().map(OsString::from));
            assert_eq!(found.as_os_str(), expected, "{given:?}");
        }
    }
}
