//! Control groups: which group this process is in, where its files are, and what they say.
//!
//! `/proc/self/cgroup` names the group of each hierarchy, `/proc/self/mountinfo` says where the
//! hierarchies are mounted and how much of them is visible. With v1, every controller may have
//! its own hierarchy; with v2 there is one; on a hybrid system a controller that v1 has is not
//! in v2. A limit holds for all groups below the one that has it, so that the strictest on the
//! [path](levels) counts.
//!
//! Garbage is answered by "no such group", "no such mount" and "no limit". So is a value without
//! the newline at its end, which is not all of it.
//!
//! Pure.

use std::ffi::OsStr;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Which of the kernel's two interfaces a hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The group of this process in one hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group<'a> {
    pub(crate) version: Version,
    /// `cpu,cpuacct`; empty with v2.
    pub(crate) controllers: &'a [u8],
    /// `/user.slice/x.scope`, seen from the root of the cgroup namespace.
    pub(crate) path: &'a [u8],
}

/// Finds the group that rules over `controller` in the bytes of `/proc/self/cgroup`.
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

/// Where a hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The group that is seen at `point`: `/` for the whole hierarchy.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
}

/// Finds the hierarchy of `group` in the bytes of `/proc/self/mountinfo`: the mount that shows
/// the group itself where there is one, otherwise the first.
pub(crate) fn mount(mountinfo: &[u8], group: &Group<'_>, controller: &str) -> Option<Mount> {
    let mut first = None;
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some(found) = mount_of_line(line, group.version, controller) else { continue };
        if path(group.path).starts_with(&found.root) {
            return Some(found);
        }
        first = first.or(Some(found));
    }
    first
}

/// `31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw`
fn mount_of_line(line: &[u8], version: Version, controller: &str) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    // Any number of optional fields, then a dash.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next()?;
    let right = match version {
        Version::V2 => kind == b"cgroup2",
        Version::V1 => kind == b"cgroup" && lists(fields.nth(1)?, controller),
    };
    right
        .then(|| Mount { root: path(&unescape(root)).into(), point: path(&unescape(point)).into() })
}

/// Undoes `\040` and its like, by which mountinfo writes blanks and backslashes.
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

/// The directories of `group` and of all its parents that `mount` shows, the group's own first.
///
/// A group outside of what is mounted (a container that sees its parent's paths) is taken for
/// the root of the mount, which is the nearest that can be read.
pub(crate) fn levels(group: &[u8], mount: &Mount) -> Vec<PathBuf> {
    let below = path(group).strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let climbs = below.components().any(|part| !matches!(part, Component::Normal(_)));
    let below = if climbs { Path::new("") } else { below };
    below.ancestors().map(|level| mount.point.join(level)).collect()
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn lists(names: &[u8], wanted: &str) -> bool {
    names.split(|byte| *byte == b',').any(|name| name == wanted.as_bytes())
}

/// How much CPU time a group may use in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CpuQuota {
    /// Microseconds of CPU time that may be used per period.
    pub quota_us: u64,
    /// The length of the period in microseconds.
    pub period_us: NonZeroU64,
}

impl CpuQuota {
    /// The quota as a number of CPUs: 1.5 for 150 ms in each 100 ms.
    #[must_use]
    pub fn cpus(&self) -> f64 {
        self.quota_us as f64 / self.period_us.get() as f64
    }

    /// The number of CPUs that this quota can keep busy: rounded up, at least 1.
    #[must_use]
    pub fn parallelism(&self) -> usize {
        usize::try_from(self.quota_us.div_ceil(self.period_us.get())).unwrap_or(usize::MAX).max(1)
    }

    /// The stricter one of two.
    #[must_use]
    pub(crate) fn stricter(self, other: Self) -> Self {
        let product = |a: u64, b: NonZeroU64| u128::from(a) * u128::from(b.get());
        let (mine, its) =
            (product(self.quota_us, other.period_us), product(other.quota_us, self.period_us));
        if its < mine { other } else { self }
    }
}

/// The value of `cpu.max`: `max 100000` or `150000 100000`.
pub(crate) fn cpu_max(bytes: &[u8]) -> Option<CpuQuota> {
    let mut fields = bytes.strip_suffix(b"\n")?.split(u8::is_ascii_whitespace);
    let quota_us = number(fields.next()?)?;
    // The kernel lets the period out of what is written, never out of what is read.
    let period_us = number(fields.next()?)?;
    Some(CpuQuota { quota_us, period_us: NonZeroU64::new(period_us)? })
}

/// The values of `cpu.cfs_quota_us` (−1: none) and `cpu.cfs_period_us`.
pub(crate) fn cfs(quota: &[u8], period: &[u8]) -> Option<CpuQuota> {
    Some(CpuQuota { quota_us: limit(quota)?, period_us: NonZeroU64::new(limit(period)?)? })
}

/// A file with one number in it; nothing for `max`, `-1`, and what is no number.
pub(crate) fn limit(bytes: &[u8]) -> Option<u64> {
    number(bytes.strip_suffix(b"\n")?)
}

/// A memory file of v1: as [`limit`], but "no limit" is a number of about 2⁶³, rounded down to
/// a page, whose size is the machine's.
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
