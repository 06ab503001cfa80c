//! Tests with files in `proc` and `sys` that no kernel would put there: pipes, directories,
//! devices, sockets, endless files and arbitrary bytes. Every question gets an answer at once.

#![allow(clippy::unwrap_used, reason = "test code")]

mod tree;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use brood_os_info::{Limits, Pressure};
use proptest::prelude::*;
use tree::Tree;

/// The files that this crate reads, with a content that is right on two CPUs.
const V2: &[(&str, &str)] = &[
    ("proc/stat", "cpu 1 1 1 1\ncpu0 1 2 3 4\ncpu1 1 2 3 4\n"),
    ("proc/meminfo", "MemTotal: 9 kB\nMemFree: 5 kB\nMemAvailable: 6 kB\n"),
    ("proc/cpuinfo", "processor : 0\nmodel name : A\ncpu MHz : 5\n"),
    ("proc/self/cgroup", "0::/a\n"),
    ("proc/self/mountinfo", "31 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
    ("proc/pressure/cpu", "some avg10=1.00 avg60=0 avg300=0 total=1\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "7000\n"),
    ("sys/fs/cgroup/a/cgroup.procs", ""),
    ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
    ("sys/fs/cgroup/a/cpuset.cpus.effective", "0-1\n"),
    ("sys/fs/cgroup/a/memory.max", "1000\n"),
    ("sys/fs/cgroup/a/memory.high", "900\n"),
    ("sys/fs/cgroup/a/memory.current", "500\n"),
    ("sys/fs/cgroup/a/pids.max", "100\n"),
    ("sys/fs/cgroup/a/pids.current", "9\n"),
    ("sys/fs/cgroup/a/cpu.pressure", "some avg10=1.00 avg60=0 avg300=0 total=1\n"),
];

const V1: &[(&str, &str)] = &[
    ("proc/self/cgroup", "2:memory:/a\n1:cpu:/a\n"),
    ("sys/fs/cgroup/cpu/a/cgroup.procs", ""),
    ("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "150000\n"),
    ("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"),
    ("sys/fs/cgroup/memory/a/cgroup.procs", ""),
    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n"),
    ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "500\n"),
    ("sys/fs/cgroup/memory/a/memory.stat", "hierarchical_memory_limit 800\n"),
];

/// Asks every question about the system below `tree`, twice with the same reader, because a reader
/// keeps its files open.
fn ask_everything(tree: &Tree) {
    let mut system = tree.system();
    for _ in 0..2 {
        let _ = (system.cpus().map(<[_]>::len), system.freemem(), system.memory());
        let _ = (system.limits(), system.pressure());
        let _ = system.snapshot().map(|now| now.since(&now));
        assert!(system.available_parallelism().get() >= 1);
    }
}

/// Runs `ask` on a thread and returns its answer; fails when none comes.
#[track_caller]
fn soon<T: Send + 'static>(what: &str, ask: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = channel();
    let asking = thread::spawn(move || done.send(ask()));
    match finished.recv_timeout(Duration::from_secs(60)) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => panic!("no answer with {what}"),
        Err(RecvTimeoutError::Disconnected) => panic!("{what}: {:?}", asking.join()),
    }
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn no_file_that_is_replaced_by_something_else_blocks_an_answer() {
    type Make = fn(&Path);
    let kinds: [(&str, Make); 6] = [
        ("a pipe", make_fifo),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("an endless device", |path| symlink("/dev/zero", path).unwrap()),
        ("a terminal", |path| symlink("/dev/tty", path).unwrap()),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("a link to itself", |path| symlink(path, path).unwrap()),
    ];
    for files in [V2, V1] {
        for (name, _) in files {
            for (kind, make) in kinds {
                let tree = Tree::new(files);
                let path = tree.0.join(name);
                fs::remove_file(&path).unwrap();
                make(&path);
                soon(&format!("{kind} as {name}"), move || ask_everything(&tree));
            }
        }
    }
}

#[test]
fn a_pipe_has_no_value_and_the_others_keep_theirs() {
    let tree = Tree::new(V2);
    for name in ["memory.max", "cpu.max", "cpuset.cpus.effective"] {
        let path = tree.0.join("sys/fs/cgroup/a").join(name);
        fs::remove_file(&path).unwrap();
        make_fifo(&path);
    }
    let limits = soon("pipes", move || tree.system().limits()).unwrap();
    assert_eq!((limits.memory.max_bytes, limits.cpu_quota, limits.cpu_set), (None, None, None));
    assert_eq!((limits.memory.high_bytes, limits.pids_max), (Some(900), Some(100)));
}

#[test]
fn a_required_file_that_is_no_file_is_an_error_with_its_name() {
    for name in ["proc/stat", "proc/meminfo", "proc/self/cgroup"] {
        let tree = Tree::new(V2);
        fs::remove_file(tree.0.join(name)).unwrap();
        make_fifo(&tree.0.join(name));
        let ask = move || match name {
            "proc/stat" => tree.system().cpus().map(drop),
            "proc/meminfo" => tree.system().memory().map(drop),
            _ => tree.system().limits().map(drop),
        };
        let error = soon(name, ask).unwrap_err();
        assert_eq!((error.code(), error.call()), ("EBADMSG", format!("/{name}").as_str()));
    }
}

#[test]
fn a_pipe_that_appears_in_place_of_a_missing_quota_does_not_block_an_open_reader() {
    let tree = Tree::new(V2);
    fs::remove_file(tree.0.join("sys/fs/cgroup/a/cpu.max")).unwrap();
    let mut system = tree.system();
    let before = system.available_parallelism();
    make_fifo(&tree.0.join("sys/fs/cgroup/a/cpu.max"));
    assert_eq!(soon("a new pipe", move || system.available_parallelism()), before);
}

#[test]
fn a_file_without_end_is_read_in_part_only() {
    let whole = [
        "proc/stat",
        "proc/meminfo",
        "proc/cpuinfo",
        "proc/self/cgroup",
        "proc/self/mountinfo",
        "sys/fs/cgroup/a/cpuset.cpus.effective",
    ];
    for name in whole.into_iter().chain(["sys/fs/cgroup/a/memory.max"]) {
        let tree = Tree::new(V2);
        // The rest of the file is a hole, which takes no space on the disk.
        let file = fs::OpenOptions::new().write(true).open(tree.0.join(name)).unwrap();
        file.set_len(1 << 40).unwrap();
        soon(&format!("{name} of 1 TiB"), move || ask_everything(&tree));
    }
}

/// Returns the limits of a system with v2 in which `name` has the given content.
fn limits_with(name: &str, content: &str) -> Limits {
    let tree = Tree::new(V2);
    tree.write(&format!("sys/fs/cgroup/a/{name}"), content);
    tree.system().limits().unwrap()
}

#[test]
fn limits_at_their_ends_are_values_and_never_a_panic() {
    let most = u64::MAX;
    for (text, expected) in [
        ("max\n".to_owned(), None),
        ("0\n".to_owned(), Some(0)),
        (format!("{most}\n"), Some(most)),
        (format!("{}\n", u128::from(most) + 1), None),
        ("-1\n".to_owned(), None),
        ("\n".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(limits_with("memory.max", &text).memory.max_bytes, expected, "{text:?}");
        assert_eq!(limits_with("memory.high", &text).memory.high_bytes, expected, "{text:?}");
        assert_eq!(limits_with("memory.current", &text).memory.current_bytes, expected);
        assert_eq!(limits_with("pids.max", &text).pids_max, expected, "{text:?}");
        assert_eq!(limits_with("pids.current", &text).pids_current, expected, "{text:?}");
    }
    for (text, expected) in [
        (format!("{most} 1\n"), Some(usize::MAX)),
        (format!("{most} {most}\n"), Some(1)),
        (format!("1 {most}\n"), Some(1)),
        ("0 100000\n".to_owned(), Some(1)),
        ("100000 0\n".to_owned(), None),
        (format!("max {most}\n"), None),
    ] {
        let quota = limits_with("cpu.max", &text).cpu_quota;
        assert_eq!(quota.map(|quota| quota.parallelism()), expected, "{text:?}");
        assert!(quota.is_none_or(|quota| quota.cpus() >= 0.0), "{text:?}");
    }
    for (text, expected) in [
        ("65535\n", Some(vec![65_535])),
        ("65536\n", None),
        ("4294967295\n", None),
        ("4294967296\n", None),
        ("0-0\n", Some(vec![0])),
        ("0-18446744073709551615\n", None),
        ("\n", None),
    ] {
        assert_eq!(limits_with("cpuset.cpus.effective", text).cpu_set, expected, "{text:?}");
    }
    assert_eq!(limits_with("cpuset.cpus.effective", "0-65535\n").cpu_set.unwrap().len(), 65_536);
    let total = format!("some avg10=100.00 avg60=0 avg300=0 total={most}\n");
    let some = limits_with("cpu.pressure", &total).pressure.cpu.unwrap().some;
    assert_eq!((some.avg10_percent, some.total), (100.0, Duration::from_micros(most)));
}

#[test]
fn counters_at_their_ends_are_values_and_never_a_panic() {
    let most = u64::MAX;
    let tree = Tree::new(V2);
    tree.write("proc/stat", &format!("cpu0 {}\n", [most.to_string().as_str(); 10].join(" ")));
    tree.write("proc/meminfo", &format!("MemTotal: {} kB\nMemFree: 0 kB\n", most / 1024));
    let mut system = tree.system();
    assert_eq!(system.cpus().unwrap()[0].times.user_ms, most);
    let full = system.snapshot().unwrap();
    assert_eq!((full.cpus[0].steal_ms, full.memory.available_bytes), (most, 0));
    assert_eq!(full.memory.total_bytes, most / 1024 * 1024);
    tree.write("proc/stat", "cpu4294967295 0 0 0 0\n");
    tree.write("proc/meminfo", &format!("MemTotal: 0 kB\nMemFree: {} kB\n", most / 1024));
    let empty = tree.system().snapshot().unwrap();
    assert_eq!(empty.cpus[0].id, u32::MAX);
    for (later, earlier) in [(&full, &empty), (&empty, &full), (&full, &full)] {
        let usage = later.since(earlier);
        assert!((0.0..=1.0).contains(&usage.cpu), "{usage:?}");
    }
    // A number that does not fit is no number, and a CPU without a number is no CPU.
    tree.write("proc/stat", "cpu4294967296 0 0 0 0\ncpu0 18446744073709551616 0 0 0\n");
    assert_eq!(tree.system().cpus().unwrap_err().code(), "EBADMSG");
    tree.write("proc/stat", "cpu 1 2 3 4\nintr 1\n");
    assert_eq!(tree.system().cpus().unwrap_err().code(), "EBADMSG");
    tree.write("proc/stat", "cpu0 0 0 0 0\n");
    for speed in ["4294967295999\n", "18446744073709551615\n", "0\n", "-1\n"] {
        tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", speed);
        let _ = tree.system().cpus().unwrap();
    }
}

#[test]
fn empty_files_are_no_values() {
    let tree = Tree::new(&V2.iter().map(|(name, _)| (*name, "")).collect::<Vec<_>>());
    let mut system = tree.system();
    assert_eq!(system.limits().unwrap(), Limits::default());
    assert_eq!(system.pressure(), Pressure::default());
    assert_eq!(system.cpus().unwrap_err().code(), "EBADMSG");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_content_of_any_file_ends_in_a_panic(
        which in 0..V2.len() + V1.len(),
        start in 0usize..30,
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"0189 \n:,-./=max".to_vec())],
            0..200,
        ),
    ) {
        let (files, which) =
            if which < V2.len() { (V2, which) } else { (V1, which - V2.len()) };
        let tree = Tree::new(files);
        let (name, content) = files[which];
        // The beginning of the right content lets the parsers come past their first fields.
        let kept = content.len().min(start);
        fs::write(tree.0.join(name), [&content.as_bytes()[..kept], &bytes].concat()).unwrap();
        ask_everything(&tree);
    }
}
