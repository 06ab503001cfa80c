//! What the container allows, beside what the host has.

use crate::Error;
use crate::files::{Root, read_short, read_whole};
use crate::groups::{Place, cpu_quota, place, short};
use crate::parse::cgroup::{self, CpuQuota, Version};
use crate::parse::cpu_list;
use crate::parse::pressure::{Stalls, stalls};
use std::io;
use std::path::Path;

/// What the control groups of this process allow it. Nothing stands for "no limit".
///
/// Of each limit the strictest on the path from the process's own group to the root counts, as
/// far as the container sees it.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Limits {
    /// How much CPU time there is.
    pub cpu_quota: Option<CpuQuota>,
    /// The numbers of the CPUs that may be used; nothing where the kernel has no such controller.
    pub cpu_set: Option<Vec<u32>>,
    /// How much memory there is.
    pub memory: MemoryLimit,
    /// How many processes and threads there may be.
    pub pids_max: Option<u64>,
    /// How many there are, in the group whose limit this is.
    pub pids_current: Option<u64>,
    /// How much the tasks of this process's own group wait.
    pub pressure: Pressure,
}

/// How much memory the control groups allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MemoryLimit {
    /// Over this many bytes, a process is killed.
    pub max_bytes: Option<u64>,
    /// Over this many bytes, processes are slowed down and memory is taken back. Only cgroup v2
    /// has it.
    pub high_bytes: Option<u64>,
    /// How many bytes are in use: in the group of the strictest limit that can be seen, or in the
    /// process's own where there is none. Caches count. With cgroup v1 `max_bytes` may be that of
    /// a group further out, whose use cannot be seen.
    pub current_bytes: Option<u64>,
}

/// How much tasks wait for what they need. Nothing where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Pressure {
    /// For a CPU.
    pub cpu: Option<Stalls>,
    /// For memory.
    pub memory: Option<Stalls>,
    /// For disks.
    pub io: Option<Stalls>,
}

/// Says what the container allows this process.
///
/// Works with cgroup v1, v2 and both at once; nothing is cached.
///
/// ```
/// let limits = os_info::limits()?;
/// let memory = limits.memory.max_bytes.unwrap_or(os_info::totalmem()?);
/// # assert!(memory > 0);
/// # Ok::<(), os_info::Error>(())
/// ```
///
/// # Errors
///
/// `ENOENT` or `EACCES` from `/proc/self/cgroup` where `/proc` is missing. A kernel without
/// control groups limits nothing, which is no error.
pub fn limits() -> Result<Limits, Error> {
    limits_below(&Root::default())
}

/// How much the tasks of the whole host wait.
///
/// Nothing in it where the kernel does not say (older than 4.20, or told not to).
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
    let of = |controller| place(root, &membership, controller);
    let pids_place = of("pids");
    let pids = pids_place.as_ref().and_then(|place| strictest(place, "pids.max", cgroup::limit));
    let own = |place: Place| place.levels.into_iter().next();
    Ok(Limits {
        cpu_quota: cpu_quota(root, &membership),
        cpu_set: of("cpuset").and_then(|place| cpu_set(&place)),
        memory: of("memory").map_or_else(MemoryLimit::default, |place| memory(&place)),
        pids_max: pids.map(|(max, _)| max),
        pids_current: pids.and_then(|(_, level)| cgroup::limit(&short(level, "pids.current")?)),
        // Pressure is a matter of v2 alone, whatever v1 rules over.
        pressure: of("pressure").and_then(own).map_or_else(Pressure::default, |level| {
            pressure_of(|name| level.join(format!("{name}.pressure")))
        }),
    })
}

/// The smallest value on the path, and the group that has it. Of equal ones the outermost: what
/// it uses counts the others' use.
fn strictest<'a>(
    place: &'a Place,
    name: &str,
    read: impl Fn(&[u8]) -> Option<u64>,
) -> Option<(u64, &'a Path)> {
    let values = place.levels.iter().rev();
    values
        .filter_map(|level| Some((read(&short(level, name)?)?, level.as_path())))
        .min_by_key(|(value, _)| *value)
}

fn memory(place: &Place) -> MemoryLimit {
    let (max, high, current) = match place.version {
        Version::V2 => (
            strictest(place, "memory.max", cgroup::limit),
            strictest(place, "memory.high", cgroup::limit),
            "memory.current",
        ),
        Version::V1 => (
            strictest(place, "memory.limit_in_bytes", cgroup::limit_v1),
            None,
            "memory.usage_in_bytes",
        ),
    };
    let used = |level: &Path| cgroup::limit(&short(level, current)?);
    MemoryLimit {
        max_bytes: [max.map(|(max, _)| max), hierarchical(place)].into_iter().flatten().min(),
        high_bytes: high.map(|(high, _)| high),
        current_bytes: match max {
            Some((_, level)) => used(level),
            // The nearest that counts: a group may leave it to its parent.
            None => place.levels.iter().find_map(|level| used(level)),
        },
    }
}

/// The kernel's own word on the strictest limit of v1, which knows of parents outside of what
/// the container sees.
fn hierarchical(place: &Place) -> Option<u64> {
    let mut buffer = [0; 8192];
    let file = place.levels.first()?.join("memory.stat");
    let stat = read_short(&file, &mut buffer).ok()?;
    let mut lines = stat.split_inclusive(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(b"hierarchical_memory_limit "))?;
    cgroup::limit_v1(value)
}

fn cpu_set(place: &Place) -> Option<Vec<u32>> {
    // A group that never set its own has an empty file; then its nearest parent's holds.
    let names = ["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"];
    place.levels.iter().find_map(|level| {
        names.iter().find_map(|name| {
            // As long as the machine is large: a part of it could name a CPU that is not there.
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
