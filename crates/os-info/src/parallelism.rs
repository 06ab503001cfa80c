//! How many threads are worth starting.

use crate::files::{Root, read_short};
use crate::groups;
use std::num::NonZeroUsize;

/// Says how many threads of this program can run at the same time: how many workers to start.
///
/// That is the number of CPUs the calling thread may run on (its affinity, in which the CPU set
/// of a container is contained), or the CPU quota of the control group, if that is less. The
/// strictest quota of the group and its visible parents counts, with cgroup v1, v2 and both.
/// A quota is **rounded up**: with 1.5 CPUs the answer is 2, because rounded down a third of
/// what was granted could never be used. Where the kernel will not say (a sandbox without
/// `/proc`), what is missing limits nothing. Nothing is cached: a changed quota shows at once.
/// A program that asks often does so through [`System`](crate::System).
///
/// Node: 20 counts the affinity alone. The standard library rounds the quota down.
///
/// ```
/// let workers = os_info::available_parallelism();
/// assert!(workers.get() >= 1);
/// ```
#[doc(alias = "availableParallelism")]
#[must_use]
pub fn available_parallelism() -> NonZeroUsize {
    let cpus = affinity();
    // No quota can make this less.
    if cpus == NonZeroUsize::MIN {
        return cpus;
    }
    within(cpus, quota(&Root::default()))
}

/// The quota of this process's group; nothing where there is none, or the kernel does not say.
fn quota(root: &Root) -> Option<crate::CpuQuota> {
    const MEMBERSHIP: &str = "/proc/self/cgroup";
    let mut buffer = [0; 8192];
    let start = read_short(&root.at(MEMBERSHIP), &mut buffer).ok()?;
    if start.len() < 8192 {
        return groups::cpu_quota(root, start);
    }
    // Deep groups have long names, and there may be more than what fits.
    groups::cpu_quota(root, &root.read(MEMBERSHIP).ok()?)
}

/// The smaller of the CPUs and what the quota keeps busy.
pub(crate) fn within(cpus: NonZeroUsize, quota: Option<crate::CpuQuota>) -> NonZeroUsize {
    let quota = quota.and_then(|quota| NonZeroUsize::new(quota.parallelism()));
    quota.map_or(cpus, |quota| cpus.min(quota))
}

/// The CPUs this thread may run on; all that are online where the kernel does not say.
pub(crate) fn affinity() -> NonZeroUsize {
    let count = sys::host::affinity_count().or_else(|_| sys::host::cpus_online());
    count.ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_group_that_is_named_late_in_a_long_list_is_found() {
        let base = std::env::temp_dir().join(format!("os-info-long-{}", std::process::id()));
        let group = base.join("sys/fs/cgroup/a");
        fs::create_dir_all(base.join("proc/self")).unwrap();
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cgroup.procs"), "").unwrap();
        fs::write(group.join("cpu.max"), "150000 100000\n").unwrap();
        let others: String = (1..700).map(|id| format!("{id}:name=x:/other\n")).collect();
        assert!(others.len() > 8192);
        fs::write(base.join("proc/self/cgroup"), others + "0::/a\n").unwrap();
        let found = quota(&Root::new(&base));
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(found.map(|quota| quota.parallelism()), Some(2));
    }
}
