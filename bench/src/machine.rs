//! The machine, the versions and the date, which every figure depends on.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::report::Machine;

/// The peers and libraries whose versions are listed.
const CRATES: &[&str] =
    &["tokio", "axum", "hyper", "ipc-channel", "sysinfo", "num_cpus", "bincode", "mio"];

pub fn describe() -> Machine {
    let mut facts = vec![("date".to_owned(), date())];
    let mut fact = |name: &str, value: Option<String>| {
        facts.push((name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned())));
    };
    fact("commit", output("git", &["describe", "--always", "--dirty"]));
    fact("processor", processor());
    fact("memory", memory());
    fact("kernel", read("/proc/sys/kernel/osrelease"));
    fact("transparent huge pages", read("/sys/kernel/mm/transparent_hugepage/enabled"));
    fact("libc", output("getconf", &["GNU_LIBC_VERSION"]));
    fact("rustc", output("rustc", &["--version"]));
    fact("node", Some(output("node", &["--version"]).unwrap_or_else(|| "absent".to_owned())));
    fact("nginx", Some(nginx().unwrap_or_else(|| "absent".to_owned())));
    fact("wrk", Some(wrk().unwrap_or_else(|| "absent".to_owned())));
    fact("crates", Some(crates()));
    facts
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Returns the version of nginx, which nginx prints on standard error.
fn nginx() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(text.rsplit('/').next()?.trim().to_owned())
}

/// Returns the version of wrk, whose exit code is 1 then.
fn wrk() -> Option<String> {
    let output = Command::new("wrk").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().nth(1)?.to_owned())
}

fn processor() -> Option<String> {
    let info = read("/proc/cpuinfo")?;
    let name = info.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split_once(": ")).map_or("unknown", |pair| pair.1);
    let count = std::thread::available_parallelism().ok()?;
    let cloud = info.lines().any(|line| line.starts_with("flags") && line.contains("hypervisor"));
    Some(format!("{count} × {name}{}", if cloud { ", virtual" } else { "" }))
}

fn memory() -> Option<String> {
    let info = read("/proc/meminfo")?;
    let kib: f64 = info.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{:.1} GiB", kib / 1024.0 / 1024.0))
}

/// Returns the versions in the lock file of the benchmarks.
fn crates() -> String {
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let (_, tail) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", tail.split('"').next()?))
    };
    CRATES.iter().filter_map(|name| version(name)).collect::<Vec<_>>().join(", ")
}

fn date() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil(i64::try_from(now / 86_400).unwrap_or(0));
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", now / 3600 % 24, now / 60 % 60)
}

/// Returns the date of a day counted from 1970. The function walks over years and months.
fn civil(days: i64) -> (i64, u32, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut days) = (1970, days);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if days < length {
            return (year, month, days + 1);
        }
        days -= length;
    }
    unreachable!("a year has no more days than its months")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
        assert_eq!(civil(20_818), (2026, 12, 31));
    }
}
