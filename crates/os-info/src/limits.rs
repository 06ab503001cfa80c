//! The limits of the container, and the pressure of container and host.

use std::io;
use std::path::Path;

use crate::Error;
use crate::files::{Root, read_short, read_whole};
use crate::groups::{GroupPath, cpu_quota, find, read_value};
use crate::parse::cgroup::{self, CpuQuota, Version};
use crate::parse::cpu_list;
use crate::parse::pressure::{Stalls, stalls};

/// The limits that the control groups of this process set. `None` means that there is no limit.
///
/// Each value is the strictest one on the path from the process's own group to the root, as far as
/// the container can see the path.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Limits {
    /// The limit of CPU time.
    pub cpu_quota: Option<CpuQuota>,
    /// The numbers of the CPUs that the process may use; `None` where the kernel has no such
    /// controller.
    pub cpu_set: Option<Vec<u32>>,
    /// The limits of memory.
    pub memory: MemoryLimit,
    /// The maximum number of processes and threads.
    pub pids_max: Option<u64>,
    /// The current number of processes and threads in the group that sets `pids_max`.
    pub pids_current: Option<u64>,
    /// The pressure on the tasks of this process's own group.
    pub pressure: Pressure,
}

/// The memory limits of the control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryLimit {
    /// The hard limit in bytes. Above it the kernel kills a process.
    pub max_bytes: Option<u64>,
    /// The soft limit in bytes. Above it the kernel slows processes down and reclaims memory. Only
    /// cgroup v2 has this limit.
    pub high_bytes: Option<u64>,
    /// The number of bytes in use, caches included. The number belongs to the group with the
    /// strictest visible limit, or to the process's own group where no limit is visible. With
    /// cgroup v1, `max_bytes` may come from a group outside of the container, whose usage is not
    /// visible.
    pub current_bytes: Option<u64>,
}

/// The time that tasks wait for resources. `None` where the kernel does not report the pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Pressure {
    /// The pressure on CPUs.
    pub cpu: Option<Stalls>,
    /// The pressure on memory.
    pub memory: Option<Stalls>,
    /// The pressure on disks.
    pub io: Option<Stalls>,
}

/// Returns the limits that the container sets for this process.
///
/// The function works with cgroup v1, v2 and both at once. Nothing is cached.
///
/// ```
/// let limits = brood_os_info::limits()?;
/// let memory = limits.memory.max_bytes.unwrap_or(brood_os_info::totalmem()?);
/// # assert!(memory > 0);
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// `ENOENT` or `EACCES` from `/proc/self/cgroup` where `/proc` is missing. On a kernel without
/// control groups the result has no limits, which is no error.
pub fn limits() -> Result<Limits, Error> {
    limits_below(&Root::default())
}

/// Returns the pressure on the tasks of the whole host.
///
/// All fields are `None` where the kernel does not report the pressure: before version 4.20, or
/// where it is switched off.
#[must_use]
pub fn pressure() -> Pressure {
    pressure_below(&Root::default())
}

pub(crate) fn pressure_below(root: &Root) -> Pressure {
    pressure_of(|name| root.at("/proc/pressure").join(name))
}

pub(crate) fn limits_below(root: &Root) -> Result<Limits, Error> {
    let membership = match root.read("/proc/self/cgroup") {
        Ok(membership) => membership,
        Err(Error::Os { error, .. })
            if error.kind() == io::ErrorKind::NotFound && root.at("/proc/self").exists() =>
        {
            return Ok(Limits::default());
        }
        Err(error) => return Err(error),
    };
    let group = |controller| find(root, &membership, controller);
    let pids_group = group("pids");
    let pids = pids_group.as_ref().and_then(|path| strictest(path, "pids.max", cgroup::limit));
    Ok(Limits {
        cpu_quota: cpu_quota(root, &membership),
        cpu_set: group("cpuset").and_then(|path| cpu_set(&path)),
        memory: group("memory").map_or_else(MemoryLimit::default, |path| memory(&path)),
        pids_max: pids.map(|(max, _)| max),
        pids_current: pids
            .and_then(|(_, level)| cgroup::limit(&read_value(level, "pids.current")?)),
        // No hierarchy of v1 has a controller of this name, so that the lookup finds the group of
        // v2, the only version with pressure files.
        pressure: group("pressure")
            .as_ref()
            .and_then(GroupPath::own)
            .map_or_else(Pressure::default, |own| {
                pressure_of(|name| own.join(format!("{name}.pressure")))
            }),
    })
}

/// Returns the smallest value on the path, and the group that has it.
///
/// Among equal values the outermost group wins, because its usage includes that of the others.
fn strictest<'a>(
    path: &'a GroupPath,
    name: &str,
    read: impl Fn(&[u8]) -> Option<u64>,
) -> Option<(u64, &'a Path)> {
    let outermost_first = path.levels.iter().rev();
    outermost_first
        .filter_map(|level| Some((read(&read_value(level, name)?)?, level.as_path())))
        .min_by_key(|(value, _)| *value)
}

fn memory(path: &GroupPath) -> MemoryLimit {
    let (max, high, current) = match path.version {
        Version::V2 => (
            strictest(path, "memory.max", cgroup::limit),
            strictest(path, "memory.high", cgroup::limit),
            "memory.current",
        ),
        Version::V1 => (
            strictest(path, "memory.limit_in_bytes", cgroup::limit_v1),
            None,
            "memory.usage_in_bytes",
        ),
    };
    let used = |level: &Path| cgroup::limit(&read_value(level, current)?);
    MemoryLimit {
        max_bytes: [max.map(|(max, _)| max), hierarchical(path)].into_iter().flatten().min(),
        high_bytes: high.map(|(high, _)| high),
        current_bytes: match max {
            Some((_, level)) => used(level),
            // A group may leave the accounting to its parent: the nearest group with a count wins.
            None => path.own().and_then(|_| path.levels.iter().find_map(|level| used(level))),
        },
    }
}

/// Returns the strictest limit of v1 as the kernel reports it, which includes parents outside of
/// the container's view.
fn hierarchical(path: &GroupPath) -> Option<u64> {
    let mut buffer = [0; 8192];
    let file = path.levels.first()?.join("memory.stat");
    let stat = read_short(&file, &mut buffer).ok()?;
    let mut lines = stat.split_inclusive(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(b"hierarchical_memory_limit "))?;
    cgroup::limit_v1(value)
}

fn cpu_set(path: &GroupPath) -> Option<Vec<u32>> {
    // A group without a CPU set of its own has an empty file. The set of its nearest parent then
    // applies.
    path.own()?;
    let names = ["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"];
    path.levels.iter().find_map(|level| {
        names.iter().find_map(|name| {
            // The file is as long as the machine is large, and a part of it could end in a wrong
            // CPU number.
            cpu_list::cpus(&read_whole(&level.join(name)).ok()?)
        })
    })
}

fn pressure_of(path: impl Fn(&str) -> std::path::PathBuf) -> Pressure {
    let read = |name| {
        let mut buffer = [0; 512];
        stalls(read_short(&path(name), &mut buffer).ok()?)
    };
    Pressure { cpu: read("cpu"), memory: read("memory"), io: read("io") }
}
