//! The machine: architecture, kernel and host name.

use crate::Error;

/// Returns the CPU architecture of this program, with Node's name: `x64`, `arm64`, …
///
/// ```
/// assert_eq!(brood_os_info::arch() == "x64", cfg!(target_arch = "x86_64"));
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
        // Node and Rust have the same name for arm, mips, riscv64 and s390x.
        std::env::consts::ARCH
    }
}

/// Returns the operating system of this program: `linux`.
#[must_use]
pub const fn platform() -> &'static str {
    "linux"
}

/// Returns the byte order of this program: `LE` or `BE`.
#[must_use]
pub const fn endianness() -> &'static str {
    if cfg!(target_endian = "little") { "LE" } else { "BE" }
}

/// Returns the name of the kernel: `Linux`.
///
/// # Errors
///
/// The error of `uname(2)`. The call is not known to fail.
#[doc(alias = "type")]
pub fn os_type() -> Result<String, Error> {
    Ok(text(names()?.system))
}

/// Returns the release of the kernel: `6.8.0-45-generic`.
///
/// # Errors
///
/// The same as for [`os_type`].
pub fn release() -> Result<String, Error> {
    Ok(text(names()?.release))
}

/// Returns the version of the kernel: `#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC
/// 2024`.
///
/// # Errors
///
/// The same as for [`os_type`].
pub fn version() -> Result<String, Error> {
    Ok(text(names()?.version))
}

/// Returns the kernel's name for the kind of machine: `x86_64`, `aarch64`.
///
/// # Errors
///
/// The same as for [`os_type`].
pub fn machine() -> Result<String, Error> {
    Ok(text(names()?.machine))
}

/// Returns the name of this host.
///
/// ```
/// println!("on {}", brood_os_info::hostname()?);
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::NotUtf8`] with the bytes of the name when the name is not UTF-8, or the error of
/// `uname(2)`.
///
/// Node: puts replacement characters into a name that is not UTF-8. The result names no host.
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

/// Converts a text of the kernel. The kernel's own names are ASCII.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_that_is_not_utf8_is_an_error_with_its_bytes() {
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
