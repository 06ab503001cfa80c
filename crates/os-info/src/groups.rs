//! Where the control groups of this process are, and what their files hold.

use crate::files::{Root, read_short};
use crate::parse::cgroup::{self, CpuQuota, Group, Mount, Version};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The group that rules over one controller.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) version: Version,
    /// The directories of the group and of all its visible parents, the group's own first.
    pub(crate) levels: Vec<PathBuf>,
}

/// Finds the group for `controller`, given the bytes of `/proc/self/cgroup`; nothing where no
/// such hierarchy is mounted.
pub(crate) fn place(root: &Root, membership: &[u8], controller: &str) -> Option<Place> {
    let group = cgroup::group(membership, controller)?;
    let mount = usual_mount(root, &group, controller).or_else(|| {
        let mountinfo = root.read("/proc/self/mountinfo").ok()?;
        let mount = cgroup::mount(&mountinfo, &group, controller)?;
        Some(Mount { point: root.at(&mount.point), ..mount })
    })?;
    Some(Place { version: group.version, levels: cgroup::levels(group.path, &mount) })
}

/// Where nearly every system mounts its groups, if this one does: mountinfo can be long, and is
/// then the dearest part of a call.
fn usual_mount(root: &Root, group: &Group<'_>, controller: &str) -> Option<Mount> {
    let base = root.at("/sys/fs/cgroup");
    let points = match group.version {
        Version::V2 => [Some(base), None],
        Version::V1 => {
            let all = std::str::from_utf8(group.controllers).ok();
            [Some(base.join(controller)), all.map(|all| base.join(all))]
        }
    };
    points.into_iter().flatten().find_map(|point| {
        let mount = Mount { root: "/".into(), point };
        let own = cgroup::levels(group.path, &mount).into_iter().next()?;
        own.join("cgroup.procs").exists().then_some(mount)
    })
}

/// The strictest CPU quota on the path of the group in `membership`.
pub(crate) fn cpu_quota(root: &Root, membership: &[u8]) -> Option<CpuQuota> {
    let place = place(root, membership, "cpu")?;
    let quotas = place.levels.iter().filter_map(|level| match place.version {
        Version::V2 => cgroup::cpu_max(&short(level, CPU_MAX)?),
        Version::V1 => {
            let quota = short(level, CFS_QUOTA)?;
            cgroup::limit(&quota)?;
            cgroup::cfs(&quota, &short(level, "cpu.cfs_period_us")?)
        }
    });
    quotas.reduce(CpuQuota::stricter)
}

const CPU_MAX: &str = "cpu.max";
const CFS_QUOTA: &str = "cpu.cfs_quota_us";

/// What the file `name` of a group holds; nothing where it is missing or may not be read.
pub(crate) fn short(level: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = [0; 128];
    Some(read_short(&level.join(name), &mut buffer).ok()?.to_vec())
}

/// The files with the CPU quota of one group and its parents, kept open.
#[derive(Debug)]
pub(crate) struct QuotaFiles {
    /// What `/proc/self/cgroup` held when they were opened.
    membership: Vec<u8>,
    levels: Vec<(File, Option<File>)>,
    /// Where a quota file was missing and would be the first to appear; two at most.
    absent: Vec<PathBuf>,
}

impl QuotaFiles {
    pub(crate) fn open(root: &Root, membership: &[u8]) -> Self {
        let mut files =
            Self { membership: membership.to_vec(), levels: Vec::new(), absent: Vec::new() };
        let Some(place) = place(root, membership, "cpu") else { return files };
        let name = match place.version {
            Version::V1 => CFS_QUOTA,
            Version::V2 => CPU_MAX,
        };
        let open = |level: &PathBuf| {
            let quota = File::open(level.join(name)).ok()?;
            Some(match place.version {
                Version::V1 => (quota, Some(File::open(level.join("cpu.cfs_period_us")).ok()?)),
                Version::V2 => (quota, None),
            })
        };
        // From the outermost group inwards, as a controller is enabled: a group without the file
        // outside of one that has it is the root of all, which never gets one.
        for level in place.levels.iter().rev() {
            match open(level) {
                Some(opened) => {
                    files.absent.clear();
                    files.levels.push(opened);
                }
                None => files.absent.push(level.join(name)),
            }
        }
        // Where no group has one, the outermost may be that root: then the next is the first.
        files.absent.truncate(if files.levels.is_empty() { 2 } else { 1 });
        files
    }

    /// Whether these are still all the files of the group in `membership`: the process was not
    /// moved, and none was added, as when somebody enables the controller.
    pub(crate) fn belong_to(&self, membership: &[u8]) -> bool {
        self.membership == membership && !self.absent.iter().any(|file| File::open(file).is_ok())
    }

    /// # Errors
    ///
    /// `ENODEV` when a group was removed.
    pub(crate) fn quota(&self) -> io::Result<Option<CpuQuota>> {
        let mut strictest: Option<CpuQuota> = None;
        for (quota, period) in &self.levels {
            let (mut first, mut second) = ([0; 64], [0; 64]);
            let first = read_start(quota, &mut first)?;
            let found = match period {
                None => cgroup::cpu_max(first),
                Some(period) if cgroup::limit(first).is_some() => {
                    cgroup::cfs(first, read_start(period, &mut second)?)
                }
                Some(_) => None,
            };
            strictest = match (strictest, found) {
                (Some(a), Some(b)) => Some(a.stricter(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(strictest)
    }
}

/// One read: the kernel gives these short files whole or not at all.
fn read_start<'a>(file: &File, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let length = file.read_at(buffer, 0)?;
    Ok(&buffer[..length])
}
