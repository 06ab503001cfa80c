//! Tests that the functions without arguments read this machine.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::fs;
use std::time::Duration;

use brood_os_info::{Limits, System};

/// Returns the values that do not change from one call to the next.
fn settings(limits: &Limits) -> impl PartialEq + std::fmt::Debug {
    let memory = (limits.memory.max_bytes, limits.memory.high_bytes);
    (limits.cpu_quota, limits.cpu_set.clone(), memory, limits.pids_max)
}

#[test]
fn limits_are_those_of_this_process() {
    let limits = brood_os_info::limits().unwrap();
    let same = System::at("/").limits().unwrap();
    println!("{limits:?}");
    assert_eq!(settings(&limits), settings(&same));
    let is_known =
        |limits: &Limits| (limits.memory.current_bytes.is_some(), limits.pressure.cpu.is_some());
    assert_eq!(is_known(&limits), is_known(&same));
    // The root group of version 1 has these files, and the kernel lists the processors there.
    if fs::exists("/sys/fs/cgroup/cpuset/cgroup.procs").unwrap() {
        assert!(limits.cpu_set.is_some_and(|cpus| !cpus.is_empty()));
    }
}

#[test]
fn pressure_is_that_of_the_host() {
    let total = |name: &str| {
        let text = fs::read_to_string(format!("/proc/pressure/{name}")).ok()?;
        let total = text.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="));
        Some(Duration::from_micros(total?.parse().unwrap()))
    };
    for (name, of) in [
        ("cpu", (|it| it.cpu) as fn(brood_os_info::Pressure) -> _),
        ("memory", |it| it.memory),
        ("io", |it| it.io),
    ] {
        let before = total(name);
        let found = of(brood_os_info::pressure()).map(|stalls| stalls.some.total);
        let after = total(name);
        println!("{name}: {before:?}, {found:?}, {after:?}");
        assert!(before <= found && found <= after, "{name}: {before:?}, {found:?}, {after:?}");
    }
}
