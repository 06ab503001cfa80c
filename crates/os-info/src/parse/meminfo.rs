//! `/proc/meminfo`: the memory of the host.
//!
//! Pure.

use super::number;

/// The values that this crate uses, in bytes; `None` where a line is missing or malformed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meminfo {
    pub(crate) total: Option<u64>,
    pub(crate) free: Option<u64>,
    pub(crate) available: Option<u64>,
    pub(crate) swap_total: Option<u64>,
    pub(crate) swap_free: Option<u64>,
}

/// Reads the values of the whole file.
pub(crate) fn all(meminfo: &[u8]) -> Meminfo {
    let mut found = Meminfo::default();
    for line in meminfo.split_inclusive(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = match &line[..colon] {
            b"MemTotal" => &mut found.total,
            b"MemFree" => &mut found.free,
            b"MemAvailable" => &mut found.available,
            b"SwapTotal" => &mut found.swap_total,
            b"SwapFree" => &mut found.swap_free,
            _ => continue,
        };
        *value = bytes(&line[colon + 1..]);
    }
    found
}

/// Reads the one line that `freemem` needs. The line is near the start of the file, so that the
/// rest is not read.
pub(crate) fn available(meminfo: &[u8]) -> Option<u64> {
    let mut lines = meminfo.split_inclusive(|byte| *byte == b'\n');
    bytes(lines.find_map(|line| line.strip_prefix(b"MemAvailable:"))?)
}

/// Reads `   24684092 kB` with the end of the line. Without the end the number may be cut off.
fn bytes(mut value: &[u8]) -> Option<u64> {
    let amount = number(&mut value)?;
    (value == b" kB\n").then(|| amount.checked_mul(1024)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECORDED: &[u8] = include_bytes!("../../recorded/meminfo/linux-6.18");

    #[test]
    fn the_values_of_a_recorded_file_are_bytes() {
        let found = all(RECORDED);
        assert_eq!(found.total, Some(24_684_092 * 1024));
        assert_eq!(found.free, Some(23_422_512 * 1024));
        assert_eq!(found.available, Some(24_251_128 * 1024));
        assert_eq!((found.swap_total, found.swap_free), (Some(0), Some(0)));
        assert_eq!(available(RECORDED), found.available);
    }

    #[test]
    fn kernels_before_3_14_have_no_available_memory() {
        let old = include_bytes!("../../recorded/meminfo/linux-2.6.32");
        assert_eq!((all(old).available, available(old)), (None, None));
        assert_eq!(all(old).free, Some(1_234_568 * 1024));
    }

    #[test]
    fn garbage_is_no_memory() {
        for garbage in [
            &b""[..],
            b":",
            b"MemAvailable",
            b"MemAvailable:",
            b"MemAvailable: \n",
            b"MemAvailable: 12",
            b"MemAvailable: 12 kB",
            b"MemAvailable: 12 MB\n",
            b"MemAvailable: -5 kB\n",
            b"MemAvailable: 99999999999999999999 kB\n",
            b"MemAvailable: 18446744073709551615 kB\n",
            b"\xff\xff\xff",
        ] {
            assert_eq!((available(garbage), all(garbage)), (None, Meminfo::default()));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..2000) {
            all(&bytes);
            available(&[b"MemAvailable:", &bytes[..]].concat());
            // A file that is cut off yields the right number or none.
            let part = &RECORDED[..cut.min(RECORDED.len())];
            prop_assert!(available(part).is_none() || available(part) == available(RECORDED));
        }
    }
}
