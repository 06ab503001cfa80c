//! Lists of CPUs as the kernel writes them: `0-3,8,10-11`.
//!
//! Pure.

/// The highest CPU number that is accepted; the kernel's own limit is lower.
const CPU_MAX: u32 = 65_535;

/// Reads a list. Returns `None` for an empty list, for garbage, and for a list without its final
/// newline, which is not the whole list.
pub(crate) fn cpus(list: &[u8]) -> Option<Vec<u32>> {
    let text = std::str::from_utf8(list.strip_suffix(b"\n")?).ok()?;
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (cpu(first)?, cpu(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
        // A short text can name the same range many times and so ask for much memory.
        if cpus.len() > CPU_MAX as usize + 1 {
            return None;
        }
    }
    Some(cpus)
}

fn cpu(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|cpu| plain && *cpu <= CPU_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_and_single_numbers_are_read() {
        assert_eq!(cpus(b"0\n"), Some(vec![0]));
        assert_eq!(cpus(b"0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
    }

    #[test]
    fn garbage_is_no_list() {
        for garbage in ["", "\n", "a", "3-1", "1-", "-1", "1,,2", "+1", "0-4294967295", "1-2-3"] {
            assert_eq!(cpus(garbage.as_bytes()), None, "{garbage}");
            assert_eq!(cpus(format!("{garbage}\n").as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn a_list_names_at_most_as_many_numbers_as_there_are() {
        assert_eq!(cpus(b"0-65535\n").map(|cpus| cpus.len()), Some(65_536));
        assert_eq!(cpus(b"0-65535,0\n"), None);
        assert_eq!(cpus(("0-65535,".repeat(50) + "0\n").as_bytes()), None);
    }

    #[test]
    fn a_list_that_was_cut_off_is_no_list() {
        let whole = b"0-3,8,10-11\n";
        for length in 0..whole.len() {
            assert_eq!(cpus(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[0-9,-]{0,30}\n") {
            let _ = (cpus(&bytes), cpus(text.as_bytes()));
        }
    }
}
