//! The error numbers of the kernel, as constants, names and texts.

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

/// Returns the name and the meaning of an error, for messages.
#[must_use]
pub fn describe(error: &io::Error) -> (&'static str, String) {
    match error.raw_os_error() {
        Some(errno) => (name(errno), text(errno)),
        None => ("UNKNOWN", error.to_string()),
    }
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
}
