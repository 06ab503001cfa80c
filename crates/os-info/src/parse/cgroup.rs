//! Control groups: parsers for the group of this process, its mounts, and its limits.
//!
//! `/proc/self/cgroup` names the group in each hierarchy. `/proc/self/mountinfo` states the mount
//! point of each hierarchy and the visible part of it. With v1, every controller may have its own
//! hierarchy; v2 has one hierarchy. On a hybrid system, a controller of v1 is not in v2. A limit
//! applies to all groups below the group that sets it, so that the strictest limit on the
//! [path](levels) counts.
//!
//! The parsers treat garbage as "no such group", "no such mount" and "no limit". A value
//! without its final newline may be cut off, and is treated in the same way.
//!
//! Pure.

use std::ffi::OsStr;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The version of the kernel's interface for a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The group of this process in one hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group<'a> {
    pub(crate) version: Version,
    /// The controllers of the hierarchy: `cpu,cpuacct`; empty with v2.
    pub(crate) controllers: &'a [u8],
    /// The path of the group from the root of the cgroup namespace: `/user.slice/x.scope`.
    pub(crate) path: &'a [u8],
}

/// Finds the group for `controller` in the bytes of `/proc/self/cgroup`.
pub(crate) fn group<'a>(membership: &'a [u8], controller: &str) -> Option<Group<'a>> {
    let mut unified = None;
    for line in membership.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if controllers.is_empty() && id == b"0" {
            unified = Some(Group { version: Version::V2, controllers, path });
        } else if lists(controllers, controller) {
            return Some(Group { version: Version::V1, controllers, path });
        }
    }
    unified
}

/// A mount of a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The group that is visible at `point`: `/` for the whole hierarchy.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
}

/// Finds a mount of the hierarchy of `group` in the bytes of `/proc/self/mountinfo`.
///
/// The result is the mount that shows the group itself, or else the first mount that shows some
/// group whose limits apply.
pub(crate) fn mount(mountinfo: &[u8], group: &Group<'_>, controller: &str) -> Option<Mount> {
    let mut first = None;
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some(found) = mount_of_line(line, group.version, controller) else { continue };
        match view(group.path, &found) {
            View::Group(_) => return Some(found),
            View::Elsewhere | View::Parent => first = first.or(Some(found)),
            View::Nothing => {}
        }
    }
    first
}

/// Reads a line: `31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw`.
fn mount_of_line(line: &[u8], version: Version, controller: &str) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    // Any number of optional fields precedes the dash.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next()?;
    let matches = match version {
        Version::V2 => kind == b"cgroup2",
        Version::V1 => kind == b"cgroup" && lists(fields.nth(1)?, controller),
    };
    matches
        .then(|| Mount { root: path(&unescape(root)).into(), point: path(&unescape(point)).into() })
}

/// Decodes escapes such as `\040`, with which mountinfo writes blanks and backslashes.
fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    while let [first, rest @ ..] = field {
        match rest {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                field = after;
            }
            _ => {
                plain.push(*first);
                field = rest;
            }
        }
    }
    plain
}

/// The directories in which a mount shows a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// The directories of the group and of all its parents that the mount shows, from the group
    /// outwards.
    pub(crate) directories: Vec<PathBuf>,
    /// Whether the first directory is that of the group itself.
    pub(crate) shows_group: bool,
}

/// The part of a hierarchy that a mount shows, from the view of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View<'a> {
    /// The group, at this path below the mount.
    Group(&'a Path),
    /// A parent of the group. The path from there to the group is not known.
    Parent,
    /// A group with another path, in a container that sees the paths of its host.
    Elsewhere,
    /// Groups that do not contain the group.
    Nothing,
}

/// Compares the paths of a group and of the root of a mount.
///
/// Both begin at the root of the cgroup namespace. The kernel writes `/..` for each step from
/// there outwards, and then no names that could tell the way back.
fn view<'a>(group: &'a [u8], mount: &Mount) -> View<'a> {
    let is_normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    let (group, root) = (path(group), mount.root.as_path());
    if let Ok(below) = group.strip_prefix(root) {
        if below.components().all(is_normal) {
            return View::Group(below);
        }
        return View::Nothing;
    }
    let steps_out =
        |path: &Path| path.components().filter(|part| *part == Component::ParentDir).count();
    let (of_group, of_root) = (steps_out(group), steps_out(root));
    if of_group == 0 && of_root == 0 {
        View::Elsewhere
    } else if of_root > of_group && !root.components().any(is_normal) {
        View::Parent
    } else {
        View::Nothing
    }
}

/// Returns the directories of `group` and of its parents that `mount` shows.
///
/// For a group with another path than the mount (a container that sees its host's paths) the
/// result is the root of the mount, which is what such a container has of its group.
pub(crate) fn levels(group: &[u8], mount: &Mount) -> Levels {
    let (below, shows_group) = match view(group, mount) {
        View::Group(below) => (below, true),
        View::Elsewhere => (Path::new(""), true),
        View::Parent => (Path::new(""), false),
        View::Nothing => return Levels::default(),
    };
    let directories = below.ancestors().map(|level| mount.point.join(level)).collect();
    Levels { directories, shows_group }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn lists(names: &[u8], wanted: &str) -> bool {
    names.split(|byte| *byte == b',').any(|name| name == wanted.as_bytes())
}

/// The CPU time that a group may use in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CpuQuota {
    /// The CPU time that the group may use per period, in microseconds.
    pub quota_us: u64,
    /// The length of the period in microseconds.
    pub period_us: NonZeroU64,
}

impl CpuQuota {
    /// Returns the quota as a number of CPUs: 1.5 for 150 ms in each 100 ms.
    #[must_use]
    pub fn cpus(&self) -> f64 {
        self.quota_us as f64 / self.period_us.get() as f64
    }

    /// Returns the number of CPUs that this quota can keep busy, rounded up and at least 1.
    #[must_use]
    pub fn parallelism(&self) -> usize {
        usize::try_from(self.quota_us.div_ceil(self.period_us.get())).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the stricter of two quotas.
    #[must_use]
    pub(crate) fn stricter(self, other: Self) -> Self {
        let product = |a: u64, b: NonZeroU64| u128::from(a) * u128::from(b.get());
        let (mine, its) =
            (product(self.quota_us, other.period_us), product(other.quota_us, self.period_us));
        if its < mine { other } else { self }
    }
}

/// Reads the value of `cpu.max`: `max 100000` or `150000 100000`.
pub(crate) fn cpu_max(bytes: &[u8]) -> Option<CpuQuota> {
    let mut fields = bytes.strip_suffix(b"\n")?.split(u8::is_ascii_whitespace);
    let quota_us = number(fields.next()?)?;
    // A writer may leave out the period, but the kernel always returns it.
    let period_us = number(fields.next()?)?;
    Some(CpuQuota { quota_us, period_us: NonZeroU64::new(period_us)? })
}

/// Reads the values of `cpu.cfs_quota_us` (−1 without a quota) and `cpu.cfs_period_us`.
pub(crate) fn cfs(quota: &[u8], period: &[u8]) -> Option<CpuQuota> {
    Some(CpuQuota { quota_us: limit(quota)?, period_us: NonZeroU64::new(limit(period)?)? })
}

/// Reads a file with one number; `None` for `max`, `-1` and anything that is no number.
pub(crate) fn limit(bytes: &[u8]) -> Option<u64> {
    number(bytes.strip_suffix(b"\n")?)
}

/// Reads a memory file of v1 like [`limit`].
///
/// In these files a number of about 2⁶³, rounded down to a page of the machine's size, means that
/// there is no limit.
pub(crate) fn limit_v1(bytes: &[u8]) -> Option<u64> {
    const NONE: u64 = i64::MAX as u64 - (1 << 20);
    limit(bytes).filter(|limit| *limit < NONE)
}

fn number(digits: &[u8]) -> Option<u64> {
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
