//! The uptime and the load of the system.

use std::time::Duration;

use crate::Error;

/// Returns the time since the system started, including the time in suspend.
///
/// ```
/// println!("up {} s", brood_os_info::uptime()?.as_secs());
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// The error of `clock_gettime(2)`. On Linux the call is not known to fail.
///
/// Node: reads `/proc/uptime`, which has two decimals only.
pub fn uptime() -> Result<Duration, Error> {
    sys::host::uptime().map_err(|error| Error::os("clock_gettime", error))
}

/// Returns the load of the host: the average number of tasks that ran or waited, over 1, 5 and 15
/// minutes.
///
/// The values have two decimals, rounded as the kernel rounds them for `/proc/loadavg`.
///
/// # Errors
///
/// The error of `sysinfo(2)`.
pub fn loadavg() -> Result<[f64; 3], Error> {
    let load = sys::host::load().map_err(|error| Error::os("sysinfo", error))?;
    Ok(load.loads.map(two_decimals))
}

/// Rounds a load of `sysinfo(2)` to two decimals as the kernel does for `/proc/loadavg`.
///
/// The kernel counts in units of 1/2048, adds half a hundredth and truncates. `sysinfo` returns the
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
    fn the_uptime_grows() {
        let before = uptime().unwrap();
        assert!(before > Duration::ZERO && uptime().unwrap() >= before);
    }
}
