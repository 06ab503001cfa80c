//! How long the system runs, and how much it has to do.

use crate::Error;
use std::time::Duration;

/// How long the system runs, the time it slept included.
///
/// ```
/// println!("up {} s", os_info::uptime()?.as_secs());
/// # Ok::<(), os_info::Error>(())
/// ```
///
/// # Errors
///
/// What `clock_gettime(2)` answers, which on Linux never failed yet.
///
/// Node: reads `/proc/uptime`, which has two decimals.
pub fn uptime() -> Result<Duration, Error> {
    sys::host::uptime().map_err(|error| Error::os("clock_gettime", error))
}

/// The load of the host: how many tasks ran or waited, averaged over 1, 5 and 15 minutes.
///
/// Two decimals, rounded as the kernel rounds them for `/proc/loadavg`.
///
/// # Errors
///
/// What `sysinfo(2)` answers.
pub fn loadavg() -> Result<[f64; 3], Error> {
    let load = sys::host::load().map_err(|error| Error::os("sysinfo", error))?;
    Ok(load.loads.map(two_decimals))
}

/// The kernel counts in parts of 2048, adds half a hundredth and cuts off; `sysinfo` gives the
/// same number times 32.
fn two_decimals(load: u64) -> f64 {
    let parts = load / 32 + 2048 / 200;
    (parts / 2048) as f64 + ((parts % 2048) * 100 / 2048) as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_have_two_decimals_as_in_proc() {
        assert_eq!(two_decimals(0), 0.0);
        assert_eq!(two_decimals(65536), 1.0);
        assert_eq!(two_decimals(65536 * 3 / 2), 1.5);
        assert_eq!(two_decimals(65536 * 7 + 21627), 7.33);
        assert!(two_decimals(u64::MAX).is_finite());
    }

    #[test]
    fn the_time_passes() {
        let before = uptime().unwrap();
        assert!(before > Duration::ZERO && uptime().unwrap() >= before);
    }
}
