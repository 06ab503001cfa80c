//! Pressure stall information: the time that tasks waited for a resource.
//!
//! Pure.

use std::time::Duration;

/// The shares of time in which tasks waited for one resource.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stall {
    /// The percentage of the last 10 seconds.
    pub avg10_percent: f64,
    /// The percentage of the last 60 seconds.
    pub avg60_percent: f64,
    /// The percentage of the last 300 seconds.
    pub avg300_percent: f64,
    /// The total waiting time since the start of the system or of the group.
    pub total: Duration,
}

/// The pressure on one resource: the time in which some tasks and in which all tasks waited.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stalls {
    /// The time in which at least one task waited.
    pub some: Stall,
    /// The time in which all tasks that were not idle waited. Kernels before 5.13 do not report it
    /// for CPUs.
    pub full: Option<Stall>,
}

/// Reads a file of `/proc/pressure`, or a file such as `cpu.pressure` of a group.
pub(crate) fn stalls(bytes: &[u8]) -> Option<Stalls> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = |name| text.lines().find_map(|line| stall(line.strip_prefix(name)?));
    Some(Stalls { some: line("some ")?, full: line("full ") })
}

/// Reads the fields of a line: `avg10=2.75 avg60=3.01 avg300=1.49 total=13244388`.
fn stall(line: &str) -> Option<Stall> {
    let field = |name: &str| {
        line.split_ascii_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    let percent = |name| {
        let value: f64 = field(name)?.parse().ok()?;
        (0.0..=100.0).contains(&value).then_some(value)
    };
    Some(Stall {
        avg10_percent: percent("avg10")?,
        avg60_percent: percent("avg60")?,
        avg300_percent: percent("avg300")?,
        total: Duration::from_micros(field("total")?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_lines_are_read() {
        let found = stalls(include_bytes!("../../recorded/pressure/cpu")).unwrap();
        assert_eq!((found.some.avg10_percent, found.some.avg300_percent), (2.75, 1.49));
        assert_eq!(found.some.total, Duration::from_micros(13_244_388));
        assert_eq!(found.full.unwrap().avg60_percent, 0.0);
    }

    #[test]
    fn older_kernels_have_one_line_for_cpus() {
        let found = stalls(b"some avg10=0.10 avg60=0.20 avg300=0.30 total=4\n").unwrap();
        assert_eq!((found.some.avg60_percent, found.full), (0.2, None));
    }

    #[test]
    fn garbage_is_no_pressure() {
        for garbage in [
            "",
            "some",
            "some avg10=1",
            "some avg10=x avg60=0 avg300=0 total=0",
            "some avg10=NaN avg60=0 avg300=0 total=0",
            "some avg10=-1 avg60=0 avg300=0 total=0",
            "some avg10=0 avg60=0 avg300=0 total=-1",
            "full avg10=0 avg60=0 avg300=0 total=0",
        ] {
            assert_eq!(stalls(garbage.as_bytes()), None, "{garbage}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "(some|full| |avg[136]0*=|total=|[0-9.e-]){0,20}") {
            let _ = (stalls(&bytes), stalls(text.as_bytes()));
        }
    }
}
