//! Control groups: the directories of this process's groups, and the values in their files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{Root, open, read_short, read_start};
use crate::parse::cgroup::{self, CpuQuota, Group, Levels, Mount, Version};

/// The group of this process for one controller, with its visible parents.
#[derive(Debug)]
pub(crate) struct GroupPath {
    pub(crate) version: Version,
    /// The directories of the group and of all its visible parents, from the group outwards.
    pub(crate) levels: Vec<PathBuf>,
    /// Whether the first level is the group itself. In a cgroup namespace with the mounts of its
    /// parent only the levels outside of the namespace can be read.
    shows_group: bool,
}

impl GroupPath {
    /// Returns the directory of the group itself, if the mount shows it.
    pub(crate) fn own(&self) -> Option<&Path> {
        self.levels.first().filter(|_| self.shows_group).map(PathBuf::as_path)
    }
}

/// Finds the group for `controller`; `membership` has the bytes of `/proc/self/cgroup`.
///
/// Returns `None` where no hierarchy with the controller is mounted.
pub(crate) fn find(root: &Root, membership: &[u8], controller: &str) -> Option<GroupPath> {
    let group = cgroup::group(membership, controller)?;
    let mount = usual_mount(root, &group, controller).or_else(|| {
        let mountinfo = root.read("/proc/self/mountinfo").ok()?;
        let mount = cgroup::mount(&mountinfo, &group, controller)?;
        Some(Mount { point: root.at(&mount.point), ..mount })
    })?;
    let Levels { directories, shows_group } = cgroup::levels(group.path, &mount);
    Some(GroupPath { version: group.version, levels: directories, shows_group })
}

/// Returns the mount at the usual location, if the group is there.
///
/// This check saves reading mountinfo, which can be long and is then the most expensive part of a
/// call. In a cgroup namespace the check would not suffice: where the namespace has no mounts of
/// its own, the path of the group leads to a group of the same name outside of the namespace.
fn usual_mount(root: &Root, group: &Group<'_>, controller: &str) -> Option<Mount> {
    let namespace = fs::read_link(root.at("/proc/self/ns/cgroup"));
    if namespace.is_ok_and(|namespace| namespace.as_os_str() != INITIAL_NAMESPACE) {
        return None;
    }
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
        let own = cgroup::levels(group.path, &mount).directories.into_iter().next()?;
        own.join("cgroup.procs").exists().then_some(mount)
    })
}

/// The link of `/proc/self/ns/cgroup` in the namespace that the kernel started with. The number is
/// part of the kernel's interface.
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// Returns the strictest CPU quota on the path of the group in `membership`.
pub(crate) fn cpu_quota(root: &Root, membership: &[u8]) -> Option<CpuQuota> {
    let path = find(root, membership, "cpu")?;
    let quotas = path.levels.iter().filter_map(|level| match path.version {
        Version::V2 => cgroup::cpu_max(&read_value(level, CPU_MAX)?),
        Version::V1 => {
            let quota = read_value(level, CFS_QUOTA)?;
            cgroup::limit(&quota)?;
            cgroup::cfs(&quota, &read_value(level, "cpu.cfs_period_us")?)
        }
    });
    quotas.reduce(CpuQuota::stricter)
}

const CPU_MAX: &str = "cpu.max";
const CFS_QUOTA: &str = "cpu.cfs_quota_us";

/// Reads the short file `name` of a group; `None` where the file is missing or not readable.
pub(crate) fn read_value(level: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = [0; 128];
    Some(read_short(&level.join(name), &mut buffer).ok()?.to_vec())
}

/// The open files with the CPU quotas of one group and its parents.
#[derive(Debug)]
pub(crate) struct QuotaFiles {
    /// The content of `/proc/self/cgroup` when the files were opened.
    membership: Vec<u8>,
    levels: Vec<(File, Option<File>)>,
    /// The paths, at most two, at which a missing quota file would appear first.
    absent: Vec<PathBuf>,
}

impl QuotaFiles {
    pub(crate) fn open(root: &Root, membership: &[u8]) -> Self {
        let mut files =
            Self { membership: membership.to_vec(), levels: Vec::new(), absent: Vec::new() };
        let Some(path) = find(root, membership, "cpu") else { return files };
        let name = match path.version {
            Version::V1 => CFS_QUOTA,
            Version::V2 => CPU_MAX,
        };
        let open_level = |level: &PathBuf| {
            let quota = open(&level.join(name)).ok()?;
            Some(match path.version {
                Version::V1 => (quota, Some(open(&level.join("cpu.cfs_period_us")).ok()?)),
                Version::V2 => (quota, None),
            })
        };
        // Controllers are enabled from the outermost group inwards. A group without the file that
        // encloses a group with the file is therefore the root, which never gets the file.
        for level in path.levels.iter().rev() {
            match open_level(level) {
                Some(opened) => {
                    files.absent.clear();
                    files.levels.push(opened);
                }
                None => files.absent.push(level.join(name)),
            }
        }
        // Where no group has the file, the outermost group may be the root. The next group is then
        // the first to get the file.
        files.absent.truncate(if files.levels.is_empty() { 2 } else { 1 });
        files
    }

    /// Returns whether these are still all quota files of the group in `membership`.
    ///
    /// The answer is no when the process was moved to another group, or when the controller was
    /// enabled and a file was added.
    pub(crate) fn are_current_for(&self, membership: &[u8]) -> bool {
        self.membership == membership && !self.absent.iter().any(|file| open(file).is_ok())
    }

    /// Reads the strictest quota.
    ///
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
