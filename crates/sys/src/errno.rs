//! The error numbers of the kernel, as constants, names and texts, and the text of an error with
//! its causes.

use std::error::Error;
use std::fmt;
use std::io;

macro_rules! errno {
    ($($name:ident,)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`, see `errno(3)`.")]
            pub const $name: i32 = libc::$name;
        )*
        const NAMES: &[(i32, &str)] = &[$((libc::$name, stringify!($name)),)*];
    };
}

errno! {
    E2BIG, EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EALREADY, EBADF, EBADMSG,
    EBUSY, ECANCELED, ECHILD, ECONNABORTED, ECONNREFUSED, ECONNRESET, EDEADLK, EDESTADDRREQ, EDOM,
    EDQUOT, EEXIST, EFAULT, EFBIG, EHOSTUNREACH, EIDRM, EILSEQ, EINPROGRESS, EINTR, EINVAL, EIO,
    EISCONN, EISDIR, ELOOP, EMFILE, EMLINK, EMSGSIZE, ENAMETOOLONG, ENETDOWN, ENETRESET,
    ENETUNREACH, ENFILE, ENOBUFS, ENODEV, ENOENT, ENOEXEC, ENOLCK, ENOLINK, ENOMEM, ENOMSG,
    ENOPROTOOPT, ENOSPC, ENOSYS, ENOTBLK, ENOTCONN, ENOTDIR, ENOTEMPTY, ENOTSOCK, ENOTTY, ENXIO,
    EOPNOTSUPP, EOVERFLOW, EOWNERDEAD, EPERM, EPIPE, EPROTO, EPROTONOSUPPORT, EPROTOTYPE, ERANGE,
    EROFS, ESHUTDOWN, ESOCKTNOSUPPORT, ESPIPE, ESRCH, ESTALE, ETIMEDOUT, ETOOMANYREFS, ETXTBSY,
    EUSERS, EXDEV,
}

/// Returns the name of an error number, such as `"ENOENT"`; `"UNKNOWN"` for a number not listed
/// here.
#[must_use]
pub fn name(errno: i32) -> &'static str {
    NAMES.iter().find(|(number, _)| *number == errno).map_or("UNKNOWN", |(_, name)| name)
}

/// Returns the name of an error, as [`name`] does; `"UNKNOWN"` if it has no error number.
#[must_use]
pub fn name_of(error: &io::Error) -> &'static str {
    error.raw_os_error().map_or("UNKNOWN", name)
}

/// Returns the meaning of an error number, without the number: `"no such file or directory"`.
#[must_use]
pub fn text(errno: i32) -> String {
    let mut text = nix::errno::Errno::from_raw(errno).desc().to_owned();
    // The text stands inside a sentence: "address already in use", but "I/O error".
    if text.chars().nth(1).is_some_and(char::is_lowercase) {
        text[..1].make_ascii_lowercase();
    }
    text
}

/// Returns whether a sandbox or an emulator may have refused a call that the kernel itself would
/// have taken: `EPERM` and `ENOSYS` of a seccomp filter, `EINVAL` of an emulator.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EINVAL))
}

/// Returns the name and the meaning of an error, for messages.
#[must_use]
pub fn describe(error: &io::Error) -> (&'static str, String) {
    match error.raw_os_error() {
        Some(errno) => (name(errno), text(errno)),
        None => ("UNKNOWN", error.to_string()),
    }
}

/// Writes an error and all its causes on one line, joined by `": "`.
///
/// The crates above use it for `{:?}` of their errors: `main -> Result<(), Box<dyn Error>>` prints
/// an error in that form.
///
/// # Errors
///
/// The errors of `formatter`.
pub fn write_with_causes(error: &dyn Error, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(formatter, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(formatter, ": {error}")?;
        cause = error.source();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_usual_names_and_texts() {
        assert_eq!(name(EADDRINUSE), "EADDRINUSE");
        assert_eq!(name(-1), "UNKNOWN");
        let error = io::Error::from_raw_os_error(EADDRINUSE);
        assert_eq!(describe(&error), ("EADDRINUSE", "address already in use".to_owned()));
        assert_eq!(name_of(&io::Error::other("x")), "UNKNOWN");
    }

    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Debug for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_with_causes(self, f)
        }
    }

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|cause| cause as _)
        }
    }

    #[test]
    fn an_error_is_written_with_all_its_causes() {
        let error = Layer("a", Some(Box::new(Layer("b", Some(Box::new(Layer("c", None)))))));
        assert_eq!(format!("{error:?}"), "a: b: c");
    }
}
