//! The number of threads that can run at the same time.

use std::num::NonZeroUsize;

use crate::files::{Root, read_short};
use crate::groups;

/// Returns the number of threads of this program that can run at the same time.
///
/// The result is a good number of workers. The function takes the smaller of two numbers: the CPUs
/// that the calling thread may run on (its affinity, which includes the CPU set of a container),
/// and the CPU quota of the control group. The strictest quota of the group and its visible parents
/// counts, with cgroup v1, v2 and both.
///
/// A quota is **rounded up**: 1.5 CPUs give 2, because rounding down would leave a third of the
/// quota unused. A limit that the kernel does not report (in a sandbox without `/proc`) does not
/// count. Nothing is cached, so a changed quota takes effect at once. Programs that call often use
/// [`System`](crate::System).
///
/// Node: version 20 counts the affinity alone. The standard library rounds the quota down.
///
/// ```
/// let workers = brood_os_info::available_parallelism();
/// assert!(workers.get() >= 1);
/// ```
#[doc(alias = "availableParallelism")]
#[must_use]
pub fn available_parallelism() -> NonZeroUsize {
    let cpus = affinity();
    // No quota can lower the result further, so the files need not be read.
    if cpus == NonZeroUsize::MIN {
        return cpus;
    }
    limited_by_quota(cpus, quota(&Root::default()))
}

/// Returns the quota of this process's group; `None` without a quota, or where the kernel reports
/// none.
fn quota(root: &Root) -> Option<crate::CpuQuota> {
    const MEMBERSHIP: &str = "/proc/self/cgroup";
    let mut buffer = [0; 8192];
    let start = read_short(&root.at(MEMBERSHIP), &mut buffer).ok()?;
    if start.len() < 8192 {
        return groups::cpu_quota(root, start);
    }
    // The list filled the buffer, and the rest of it may name the group: groups that are nested
    // deeply have long names.
    groups::cpu_quota(root, &root.read(MEMBERSHIP).ok()?)
}

/// Returns the smaller of the CPUs and the CPUs that the quota can keep busy.
pub(crate) fn limited_by_quota(cpus: NonZeroUsize, quota: Option<crate::CpuQuota>) -> NonZeroUsize {
    let quota = quota.and_then(|quota| NonZeroUsize::new(quota.parallelism()));
    quota.map_or(cpus, |quota| cpus.min(quota))
}

/// Returns the number of CPUs that this thread may run on, or of all CPUs that are online where the
/// kernel does not report the affinity.
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
