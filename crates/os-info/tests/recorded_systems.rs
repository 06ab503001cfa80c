//! Tests with whole recorded systems: `proc` and `sys` of many shapes, each below a directory of
//! its own.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use brood_os_info::{MemoryLimit, Pressure};

mod tree;
use tree::Tree;

const STAT: &str = include_str!("../recorded/stat/two-cpus");
const V2_MOUNT: &str = "31 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

/// Returns the files of a service in a slice, with cgroup v2 only.
fn nested_v2() -> Tree {
    Tree::new(&[
        ("proc/self/cgroup", "0::/a/b/c\n"),
        ("proc/self/mountinfo", V2_MOUNT),
        ("sys/fs/cgroup/cgroup.procs", ""),
        ("sys/fs/cgroup/cpuset.cpus.effective", "0-7\n"),
        ("sys/fs/cgroup/a/cgroup.procs", ""),
        ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/a/cpuset.cpus.effective", "0,2-3\n"),
        ("sys/fs/cgroup/a/memory.max", "1000000\n"),
        ("sys/fs/cgroup/a/memory.high", "900000\n"),
        ("sys/fs/cgroup/a/memory.current", "500000\n"),
        ("sys/fs/cgroup/a/pids.max", "100\n"),
        ("sys/fs/cgroup/a/pids.current", "9\n"),
        ("sys/fs/cgroup/a/b/cgroup.procs", ""),
        ("sys/fs/cgroup/a/b/cpu.max", "400000 100000\n"),
        ("sys/fs/cgroup/a/b/memory.max", "2000000\n"),
        ("sys/fs/cgroup/a/b/memory.high", "800000\n"),
        ("sys/fs/cgroup/a/b/memory.current", "300000\n"),
        ("sys/fs/cgroup/a/b/pids.max", "max\n"),
        ("sys/fs/cgroup/a/b/c/cgroup.procs", ""),
        ("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/a/b/c/memory.max", "max\n"),
        ("sys/fs/cgroup/a/b/c/memory.current", "1000\n"),
        ("sys/fs/cgroup/a/b/c/cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\n"),
    ])
}

#[test]
fn the_strictest_limit_on_the_path_counts() {
    let limits = nested_v2().system().limits().unwrap();
    assert_eq!(limits.cpu_quota.unwrap().cpus(), 1.5);
    assert_eq!(limits.cpu_set, Some(vec![0, 2, 3]));
    assert_eq!(limits.memory.max_bytes, Some(1_000_000));
    assert_eq!(limits.memory.high_bytes, Some(800_000));
    // The usage is that of the group that sets the limit, because its other groups count, too.
    assert_eq!(limits.memory.current_bytes, Some(500_000));
    assert_eq!((limits.pids_max, limits.pids_current), (Some(100), Some(9)));
    let pressure = limits.pressure.cpu.unwrap();
    assert_eq!(pressure.some.avg10_percent, 1.5);
    assert_eq!(pressure.some.total, Duration::from_micros(12));
    assert!(limits.pressure.io.is_none());
}

#[test]
fn a_quota_of_one_and_a_half_gives_two_threads_where_there_are_two_cpus() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let tree = nested_v2();
    let mut system = tree.system();
    let mut parallelism = |quota: &str| {
        tree.write("sys/fs/cgroup/a/cpu.max", quota);
        system.available_parallelism().get()
    };
    assert_eq!(parallelism("150000 100000\n"), 2.min(cpus));
    // The same files are read again, so that a changed quota takes effect at once.
    assert_eq!(parallelism("20000 100000\n"), 1);
    assert_eq!(parallelism("garbage\n"), 4.min(cpus));
}

#[test]
fn a_process_that_moves_to_another_group_has_its_limits() {
    let tree = nested_v2();
    tree.write("sys/fs/cgroup/free/cgroup.procs", "");
    tree.write("sys/fs/cgroup/free/cpu.max", "50000 100000\n");
    let mut system = tree.system();
    let before = system.available_parallelism().get();
    tree.write("proc/self/cgroup", "0::/free\n");
    assert_eq!(system.available_parallelism().get(), 1);
    tree.write("proc/self/cgroup", "0::/a/b/c\n");
    assert_eq!(system.available_parallelism().get(), before);
}

#[test]
fn a_quota_that_appears_while_the_process_runs_takes_effect_at_once() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    // Each row names the group that gets the first file, and the one that gets the second. The
    // controller is enabled from the outside inwards.
    for (path, first, second) in [
        ("0::/\n", "cpu.max", None),
        ("0::/a\n", "a/cpu.max", None),
        ("0::/a\n", "cpu.max", Some("a/cpu.max")),
        ("0::/a/b/c\n", "a/cpu.max", Some("a/b/cpu.max")),
    ] {
        let tree = Tree::new(&[
            ("proc/self/cgroup", path),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/cgroup.procs", ""),
            ("sys/fs/cgroup/a/cgroup.procs", ""),
            ("sys/fs/cgroup/a/b/c/cgroup.procs", ""),
        ]);
        let mut system = tree.system();
        assert_eq!(system.available_parallelism().get(), cpus);
        let quota = if second.is_some() { "max 100000\n" } else { "50000 100000\n" };
        tree.write(&format!("sys/fs/cgroup/{first}"), quota);
        assert_eq!(
            system.available_parallelism(),
            tree.system().available_parallelism(),
            "{path} {first}"
        );
        if let Some(second) = second {
            tree.write(&format!("sys/fs/cgroup/{second}"), "50000 100000\n");
        }
        assert_eq!(system.available_parallelism().get(), 1, "{path} {first} {second:?}");
    }
}

#[test]
fn v1_has_a_hierarchy_for_each_controller() {
    let tree = Tree::new(&[
        ("proc/self/cgroup", "5:memory:/m/n\n4:cpu,cpuacct:/c\n3:pids:/\n2:cpuset:/s\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cgroup.procs", ""),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/c/cgroup.procs", ""),
        ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "25000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "50000\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "5000000\n"),
        ("sys/fs/cgroup/memory/m/memory.usage_in_bytes", "4000000\n"),
        ("sys/fs/cgroup/memory/m/n/cgroup.procs", ""),
        ("sys/fs/cgroup/memory/m/n/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/m/n/memory.stat", "cache 1\nhierarchical_memory_limit 3000000\n"),
        ("sys/fs/cgroup/pids/cgroup.procs", ""),
        ("sys/fs/cgroup/cpuset/s/cgroup.procs", ""),
        ("sys/fs/cgroup/cpuset/s/cpuset.cpus", "\n"),
        ("sys/fs/cgroup/cpuset/cpuset.cpus", "0-1\n"),
    ]);
    let limits = tree.system().limits().unwrap();
    assert_eq!(limits.cpu_quota.unwrap().cpus(), 0.5);
    assert_eq!(tree.system().available_parallelism().get(), 1);
    // A parent outside of the view is stricter. Only the kernel's own summary includes it.
    assert_eq!(limits.memory.max_bytes, Some(3_000_000));
    assert_eq!(limits.memory.current_bytes, Some(4_000_000));
    assert_eq!((limits.memory.high_bytes, limits.pids_max), (None, None));
    assert_eq!(limits.cpu_set, Some(vec![0, 1]));
}

#[test]
fn a_hybrid_system_may_mount_its_groups_at_unusual_paths() {
    let tree = Tree::new(&[
        ("proc/self/cgroup", "1:memory:/job\n0::/job\n"),
        (
            "proc/self/mountinfo",
            "40 31 0:35 / /cg/mem rw - cgroup cgroup rw,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        ),
        ("cg/mem/job/cgroup.procs", ""),
        ("cg/mem/job/memory.limit_in_bytes", "777\n"),
        ("sys/fs/cgroup/unified/job/cgroup.procs", ""),
        ("sys/fs/cgroup/unified/job/cpu.max", "10000 100000\n"),
        ("sys/fs/cgroup/unified/job/memory.max", "1\n"),
    ]);
    let limits = tree.system().limits().unwrap();
    assert_eq!(limits.memory.max_bytes, Some(777), "v1 has the memory controller here");
    assert_eq!(limits.cpu_quota.unwrap().cpus(), 0.1);
    assert_eq!(tree.system().available_parallelism().get(), 1);
}

#[test]
fn a_long_list_of_cpus_is_read_whole() {
    let cpus: Vec<u32> = (0..8192).step_by(2).collect();
    let list = cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let tree = Tree::new(&[
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/cgroup.procs", ""),
        ("sys/fs/cgroup/cpuset.cpus.effective", &(list + "\n")),
    ]);
    assert_eq!(tree.system().limits().unwrap().cpu_set, Some(cpus));
}

#[test]
fn a_file_that_has_no_end_is_an_error_with_errno() {
    let tree = Tree::new(&[("proc/self/cgroup", "")]);
    let file = fs::File::create(tree.0.join("proc/self/cgroup")).unwrap();
    file.set_len(65 << 20).unwrap();
    let error = tree.system().limits().unwrap_err();
    assert_eq!((error.code(), error.call()), ("EFBIG", "/proc/self/cgroup"));
}

#[test]
fn a_group_that_leaves_its_memory_to_its_parent_shows_what_the_parent_uses() {
    let tree = Tree::new(&[
        ("proc/self/cgroup", "0::/a/b\n"),
        ("sys/fs/cgroup/a/b/cgroup.procs", ""),
        ("sys/fs/cgroup/a/memory.current", "5\n"),
        ("sys/fs/cgroup/a/memory.max", "max\n"),
    ]);
    let memory = tree.system().limits().unwrap().memory;
    assert_eq!((memory.max_bytes, memory.current_bytes), (None, Some(5)));
}

#[test]
fn without_control_groups_nothing_is_limited() {
    let tree = Tree::new(&[("proc/self/stat", "")]);
    assert_eq!(tree.system().limits().unwrap(), brood_os_info::Limits::default());
    let tree = Tree::new(&[("proc/self/cgroup", "0::/a\n"), ("proc/self/mountinfo", "garbage")]);
    assert_eq!(tree.system().limits().unwrap(), brood_os_info::Limits::default());
}

#[test]
fn without_proc_errors_name_the_file_and_freemem_uses_a_call() {
    let tree = Tree::new(&[]);
    let mut system = tree.system();
    for (error, call) in [
        (system.cpus().map(drop).unwrap_err(), "/proc/stat"),
        (system.memory().map(drop).unwrap_err(), "/proc/meminfo"),
        (system.snapshot().map(drop).unwrap_err(), "/proc/stat"),
        (system.limits().map(drop).unwrap_err(), "/proc/self/cgroup"),
    ] {
        assert_eq!((error.call(), error.code(), error.errno()), (call, "ENOENT", Some(2)));
        assert_eq!(error.to_string(), format!("{call} failed"));
    }
    assert!(system.freemem().unwrap() > 0);
    assert!(system.available_parallelism().get() >= 1);
    assert_eq!(system.pressure(), brood_os_info::Pressure::default());
}

#[test]
fn garbage_in_proc_is_an_error_and_not_a_panic() {
    for garbage in ["", "\n", "cpu", "cpu0 1", "\u{0}\u{1}", "cpu0 x y z w\n"] {
        let tree = Tree::new(&[
            ("proc/stat", garbage),
            ("proc/meminfo", garbage),
            ("proc/cpuinfo", garbage),
            ("proc/self/cgroup", garbage),
            ("proc/self/mountinfo", garbage),
        ]);
        let mut system = tree.system();
        assert_eq!(system.cpus().unwrap_err().code(), "EBADMSG");
        assert_eq!(system.memory().unwrap_err().code(), "EBADMSG");
        assert_eq!(system.limits().unwrap(), brood_os_info::Limits::default());
        assert!(system.freemem().unwrap() > 0);
    }
}

#[test]
fn models_and_speeds_follow_the_cpus_that_are_online() {
    let tree = Tree::new(&[
        ("proc/stat", STAT),
        ("proc/cpuinfo", include_str!("../recorded/cpuinfo/arm64-neoverse")),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", "cppc_cpufreq\n"),
        ("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "1800000\n"),
    ]);
    let mut system = tree.system();
    let cpus = system.cpus().unwrap();
    assert_eq!((cpus[0].model.as_str(), cpus[0].speed_mhz), ("Neoverse-N1", 0));
    assert_eq!((cpus[1].model.as_str(), cpus[1].speed_mhz), ("Neoverse-N1", 1800));
    assert_eq!(cpus[1].times.idle_ms, 1_977_830);
    tree.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "600000\n");
    assert_eq!(system.cpus().unwrap()[1].speed_mhz, 600);
    // CPU 0 goes offline. The values of CPU 1 stay with CPU 1.
    tree.write("proc/stat", "cpu 1 1 1 1\ncpu1 1 2 3 4 5 6\n");
    tree.write("proc/cpuinfo", "processor : 1\nmodel name : Other\n");
    let cpus = system.cpus().unwrap();
    assert_eq!((cpus.len(), cpus[0].id, cpus[0].model.as_str()), (1, 1, "Other"));
    assert_eq!((cpus[0].speed_mhz, cpus[0].times.irq_ms), (600, 60));
}

#[test]
fn a_cpu_without_a_name_is_unknown() {
    let tree = Tree::new(&[("proc/stat", STAT)]);
    let mut system = tree.system();
    let cpus = system.cpus().unwrap();
    assert!(cpus.iter().all(|cpu| cpu.model == "unknown" && cpu.speed_mhz == 0));
}

#[test]
fn five_hundred_and_twelve_cpus_are_read_whole() {
    let stat: String = (0..512).map(|id| format!("cpu{id} 1 2 3 {id} 5 6 7 8 0 0\n")).collect();
    let info: String =
        (0..512).map(|id| format!("processor\t: {id}\nmodel name\t: Model {id}\n\n")).collect();
    let tree = Tree::new(&[
        ("proc/stat", &format!("cpu 1 2 3 4\n{stat}intr 5\n")),
        ("proc/cpuinfo", &info),
        ("proc/meminfo", include_str!("../recorded/meminfo/linux-6.18")),
    ]);
    let mut system = tree.system();
    for _ in 0..2 {
        let cpus = system.cpus().unwrap();
        assert_eq!((cpus.len(), cpus[511].model.as_str()), (512, "Model 511"));
        assert_eq!(cpus[511].times.idle_ms, 5110);
    }
    assert_eq!(system.snapshot().unwrap().cpus[511].steal_ms, 80);
}

/// Returns the system of a process in a cgroup namespace, whose group is the root of it, with the
/// mounts of the namespace's parent: `root` is shown at the usual location.
fn namespace(version: u32, root: &str) -> Tree {
    let (group, mount) = match version {
        2 => ("0::/\n", format!("31 22 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")),
        _ => (
            "3:cpuset:/\n2:memory:/\n1:cpu:/\n",
            ["cpuset", "memory", "cpu"]
                .map(|name| {
                    format!("31 22 0:26 {root} /sys/fs/cgroup/{name} rw - cgroup x rw,{name}\n")
                })
                .concat(),
        ),
    };
    let tree = Tree::new(&[
        ("proc/self/cgroup", group),
        ("proc/self/mountinfo", &mount),
        ("sys/fs/cgroup/cgroup.procs", ""),
        ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ("sys/fs/cgroup/cpuset.cpus.effective", "0-7\n"),
        ("sys/fs/cgroup/memory.max", "max\n"),
        ("sys/fs/cgroup/memory.current", "4700000000\n"),
        ("sys/fs/cgroup/pids.max", "max\n"),
        ("sys/fs/cgroup/pids.current", "4000\n"),
        ("sys/fs/cgroup/cpu.pressure", "some avg10=1.00 avg60=0 avg300=0 total=1\n"),
        ("sys/fs/cgroup/cpu/cgroup.procs", ""),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/memory/cgroup.procs", ""),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "4700000000\n"),
        ("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712\n"),
        ("sys/fs/cgroup/cpuset/cgroup.procs", ""),
        ("sys/fs/cgroup/cpuset/cpuset.effective_cpus", "0-7\n"),
    ]);
    fs::create_dir_all(tree.0.join("proc/self/ns")).unwrap();
    symlink("cgroup:[4026532177]", tree.0.join("proc/self/ns/cgroup")).unwrap();
    tree
}

#[test]
fn a_namespace_with_mounts_of_its_own_has_its_own_values() {
    for version in [1, 2] {
        let limits = namespace(version, "/").system().limits().unwrap();
        assert_eq!(limits.memory.current_bytes, Some(4_700_000_000), "v{version}");
        assert_eq!(limits.cpu_quota.unwrap().cpus(), 0.5);
        assert_eq!(limits.cpu_set.unwrap().len(), 8);
    }
}

#[test]
fn a_namespace_with_the_mounts_of_its_parent_has_no_values_of_others() {
    for version in [1, 2] {
        for root in ["/..", "/../.."] {
            let tree = namespace(version, root);
            let limits = tree.system().limits().unwrap();
            assert_eq!(limits.memory, MemoryLimit::default(), "v{version} {root}");
            assert_eq!((&limits.cpu_set, limits.pids_current), (&None, None));
            assert_eq!(limits.pressure, Pressure::default());
            // The quota of a parent holds for all groups below it.
            assert_eq!(limits.cpu_quota.unwrap().cpus(), 0.5);
            assert_eq!(tree.system().available_parallelism().get(), 1);
        }
        for root in ["/../other", "/../../other/one"] {
            let tree = namespace(version, root);
            let cpus = std::thread::available_parallelism().unwrap();
            assert_eq!(tree.system().limits().unwrap(), brood_os_info::Limits::default());
            assert_eq!(tree.system().available_parallelism(), cpus);
        }
    }
}

#[test]
fn a_group_of_the_same_name_outside_of_the_namespace_is_not_taken() {
    let tree = namespace(2, "/../..");
    tree.write("proc/self/cgroup", "0::/init.scope\n");
    tree.write("sys/fs/cgroup/init.scope/cgroup.procs", "");
    tree.write("sys/fs/cgroup/init.scope/memory.max", "1000\n");
    tree.write("sys/fs/cgroup/init.scope/memory.current", "500\n");
    assert_eq!(tree.system().limits().unwrap().memory, MemoryLimit::default());
}
