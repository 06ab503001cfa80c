//! What this machine is and what it is called.

use crate::Error;

/// The processor architecture this program was built for, in Node's words: `x64`, `arm64`, …
///
/// ```
/// assert_eq!(os_info::arch() == "x64", cfg!(target_arch = "x86_64"));
/// ```
#[must_use]
pub const fn arch() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "x64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else if cfg!(target_arch = "x86") {
        "ia32"
    } else if cfg!(target_arch = "loongarch64") {
        "loong64"
    } else if cfg!(target_arch = "mips") && cfg!(target_endian = "little") {
        "mipsel"
    } else if cfg!(target_arch = "mips64") && cfg!(target_endian = "little") {
        "mips64el"
    } else if cfg!(target_arch = "powerpc64") {
        "ppc64"
    } else if cfg!(target_arch = "powerpc") {
        "ppc"
    } else {
        // arm, mips, riscv64, s390x: the same in both languages.
        std::env::consts::ARCH
    }
}

/// The operating system this program was built for: `linux`.
#[must_use]
pub const fn platform() -> &'static str {
    "linux"
}

/// The order of bytes in a number: `LE` or `BE`.
#[must_use]
pub const fn endianness() -> &'static str {
    if cfg!(target_endian = "little") { "LE" } else { "BE" }
}

/// The kernel's name: `Linux`.
///
/// # Errors
///
/// What `uname(2)` answers, which never failed yet; so with the three that follow.
#[doc(alias = "type")]
pub fn os_type() -> Result<String, Error> {
    Ok(text(names()?.system))
}

/// The kernel's release: `6.8.0-45-generic`.
///
/// # Errors
///
/// As [`os_type`].
pub fn release() -> Result<String, Error> {
    Ok(text(names()?.release))
}

/// The kernel's version: `#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024`.
///
/// # Errors
///
/// As [`os_type`].
pub fn version() -> Result<String, Error> {
    Ok(text(names()?.version))
}

/// The machine's kind as the kernel names it: `x86_64`, `aarch64`.
///
/// # Errors
///
/// As [`os_type`].
pub fn machine() -> Result<String, Error> {
    Ok(text(names()?.machine))
}

/// The name of this host.
///
/// ```
/// println!("on {}", os_info::hostname()?);
/// # Ok::<(), os_info::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::NotUtf8`], which holds the name as it is, where it is not text. What `uname(2)`
/// answers.
///
/// Node: puts replacement characters into a name that is not UTF-8, so that it names no host.
pub fn hostname() -> Result<String, Error> {
    hostname_of(names()?.node)
}

fn hostname_of(name: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(name)
        .map_err(|error| Error::NotUtf8 { call: "uname", bytes: error.into_bytes() })
}

fn names() -> Result<sys::host::Names, Error> {
    sys::host::names().map_err(|error| Error::os("uname", error))
}

/// The kernel's own words are ASCII.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_that_is_not_utf8_is_an_error_that_holds_it() {
        let error = hostname_of(b"h\xffst".to_vec()).unwrap_err();
        assert_eq!((error.code(), error.call()), ("EILSEQ", "uname"));
        assert_eq!(error.to_string(), "uname gave a text that is not UTF-8: h\\xffst");
        assert!(matches!(error, Error::NotUtf8 { bytes, .. } if bytes == b"h\xffst"));
    }

    #[test]
    fn this_is_linux() {
        assert_eq!((os_type().unwrap().as_str(), platform()), ("Linux", "linux"));
        assert!(version().unwrap().starts_with('#'));
        assert!(!release().unwrap().is_empty() && !machine().unwrap().is_empty());
    }
}
