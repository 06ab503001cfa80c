//! `/proc/stat`: the time that each CPU has spent in each mode.
//!
//! A line that is cut off or does not describe a CPU is skipped. Columns that an old kernel does
//! not have are 0.
//!
//! Pure.

use super::number;

/// The ticks of one CPU since the system started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) user: u64,
    pub(crate) nice: u64,
    pub(crate) system: u64,
    pub(crate) idle: u64,
    pub(crate) iowait: u64,
    pub(crate) irq: u64,
    pub(crate) softirq: u64,
    pub(crate) steal: u64,
}

/// Calls `each` with the number and the ticks of every CPU that is online, in the file's order.
pub(crate) fn cpus(stat: &[u8], mut each: impl FnMut(u32, Ticks)) {
    for line in stat.split_inclusive(|byte| *byte == b'\n') {
        // The CPUs come first, and the rest of the file can be long.
        let Some(rest) = line.strip_prefix(b"cpu") else { break };
        // The first line is the sum of all CPUs and has no number.
        let mut fields = rest;
        if rest.first().is_none_or(|byte| !byte.is_ascii_digit()) || !line.ends_with(b"\n") {
            continue;
        }
        let Some(id) = number(&mut fields).and_then(|id| u32::try_from(id).ok()) else { continue };
        let mut column = || number(&mut fields);
        let (Some(user), Some(nice), Some(system), Some(idle)) =
            (column(), column(), column(), column())
        else {
            continue;
        };
        let (iowait, irq) = (column().unwrap_or(0), column().unwrap_or(0));
        let (softirq, steal) = (column().unwrap_or(0), column().unwrap_or(0));
        each(id, Ticks { user, nice, system, idle, iowait, irq, softirq, steal });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(stat: &[u8]) -> Vec<(u32, Ticks)> {
        let mut found = Vec::new();
        cpus(stat, |id, ticks| found.push((id, ticks)));
        found
    }

    #[test]
    fn the_cpus_of_a_recorded_file_are_read_without_the_sum() {
        let found = all(include_bytes!("../../recorded/stat/two-cpus"));
        let (id, ticks) = found[1];
        assert_eq!((found.len(), id), (2, 1));
        assert_eq!((ticks.user, ticks.nice, ticks.system, ticks.idle), (5227, 0, 2510, 197_783));
        assert_eq!((ticks.iowait, ticks.irq, ticks.softirq, ticks.steal), (634, 0, 28, 7));
    }

    #[test]
    fn offline_cpus_leave_gaps_in_the_numbers() {
        let found = all(include_bytes!("../../recorded/stat/cpus-1-and-3-offline"));
        assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn one_to_512_cpus_are_read() {
        for count in [1, 2, 64, 511, 512] {
            let lines = (0..count).map(|id| format!("cpu{id} {id} 2 3 4 5 6 7 8 9 10\n"));
            let stat = format!("cpu  1 2 3 4\n{}intr 5 6\n", lines.collect::<String>());
            let found = all(stat.as_bytes());
            assert_eq!(found.len(), count as usize);
            assert!(
                found.iter().all(|(id, ticks)| ticks.user == u64::from(*id) && ticks.steal == 8)
            );
        }
    }

    #[test]
    fn old_kernels_have_four_columns() {
        let found = all(b"cpu 1 2 3 4\ncpu0 1 2 3 4\n");
        assert_eq!(
            found,
            [(0, Ticks { user: 1, nice: 2, system: 3, idle: 4, ..Ticks::default() })]
        );
    }

    #[test]
    fn cut_off_and_garbage_lines_are_skipped() {
        let stat = b"cpu0 1 2 3 4\ncpu1 1 2\ncpux 1 2 3 4\ncpu2 1 2 3 4x\n\
            cpu99999999999 1 2 3 4\ncpu3 99999999999999999999999 1 1 1\ncpu4 1 2 3 45";
        assert_eq!(all(stat).len(), 1);
        for garbage in [&b""[..], b"\n", b"\xff\xfe", b"intr 5", b"cpu", b"cpu\n"] {
            assert!(all(garbage).is_empty());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..2000) {
            all(&bytes);
            all(&[b"cpu0 ", &bytes[..], b"\n"].concat());
            let recorded = include_bytes!("../../recorded/stat/two-cpus");
            prop_assert!(all(&recorded[..cut.min(recorded.len())]).len() <= 2);
        }
    }
}
