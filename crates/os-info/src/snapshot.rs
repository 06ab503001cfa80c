//! Snapshots of the system's counters, and the usage between two of them.
//!
//! Pure.

use std::time::Duration;

use crate::memory::Memory;

/// The counters of the system at one moment. See [`System::snapshot`](crate::System::snapshot).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SystemSnapshot {
    /// The moment of the snapshot, as the time since the system started.
    pub uptime: Duration,
    /// The CPUs that were online.
    pub cpus: Vec<CpuSample>,
    /// The memory of the host.
    pub memory: Memory,
    /// The load over 1, 5 and 15 minutes.
    pub load: [f64; 3],
}

/// The time that one CPU has spent in each mode since the system started, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CpuSample {
    /// The number of the CPU.
    pub id: u32,
    /// Time in user mode.
    pub user_ms: u64,
    /// Time in user mode with low priority.
    pub nice_ms: u64,
    /// Time in the kernel.
    pub system_ms: u64,
    /// Time without a task to run.
    pub idle_ms: u64,
    /// Time without a task to run, while a task waited for a disk.
    pub iowait_ms: u64,
    /// Time in interrupt handlers.
    pub irq_ms: u64,
    /// Time in the deferred work of interrupts.
    pub softirq_ms: u64,
    /// Time that the hypervisor spent on other virtual machines.
    pub steal_ms: u64,
}

/// The usage of the system between two [`SystemSnapshot`]s.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SystemUsage {
    /// The time between the two snapshots.
    pub interval: Duration,
    /// The busy share of all CPUs together, from 0 to 1.
    pub cpu: f64,
    /// The CPUs that were online at both moments.
    pub cpus: Vec<CpuUsage>,
    /// The memory at the later moment.
    pub memory: Memory,
    /// The growth of the available memory, in bytes.
    pub memory_available_change_bytes: i64,
    /// The load at the later moment.
    pub load: [f64; 3],
    /// The growth of the load.
    pub load_change: [f64; 3],
}

/// The usage of one CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CpuUsage {
    /// The number of the CPU.
    pub id: u32,
    /// The busy share of the interval, from 0 to 1. Waiting for a disk does not count as busy; time
    /// of other virtual machines does.
    pub busy: f64,
}

impl SystemSnapshot {
    /// Returns the usage of the system since `earlier`.
    ///
    /// A CPU that went offline or came online in between is left out. A counter that ran backwards,
    /// as happens with some kernels, counts as unchanged. Without any counted time the CPUs were
    /// idle.
    ///
    /// ```
    /// use brood_os_info::System;
    /// let mut system = System::new();
    /// let before = system.snapshot()?;
    /// // … some time …
    /// let usage = system.snapshot()?.since(&before);
    /// println!("{:.0} % busy in {:?}", usage.cpu * 100.0, usage.interval);
    /// # Ok::<(), brood_os_info::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> SystemUsage {
        let (mut all_busy, mut all_idle) = (0u64, 0u64);
        let mut cpus = Vec::with_capacity(self.cpus.len());
        for now in &self.cpus {
            let Some(before) = earlier.cpus.iter().find(|cpu| cpu.id == now.id) else { continue };
            let (busy, idle) = now.busy_and_idle_since(before);
            all_busy = all_busy.saturating_add(busy);
            all_idle = all_idle.saturating_add(idle);
            cpus.push(CpuUsage { id: now.id, busy: share(busy, idle) });
        }
        let change = |index: usize| self.load[index] - earlier.load[index];
        let (now, before) = (self.memory.available_bytes, earlier.memory.available_bytes);
        SystemUsage {
            interval: self.uptime.saturating_sub(earlier.uptime),
            cpu: share(all_busy, all_idle),
            cpus,
            memory: self.memory,
            memory_available_change_bytes: i64::try_from(i128::from(now) - i128::from(before))
                .unwrap_or(if now > before { i64::MAX } else { i64::MIN }),
            load: self.load,
            load_change: [change(0), change(1), change(2)],
        }
    }
}

impl CpuSample {
    /// Returns the busy and the idle milliseconds since `before`.
    fn busy_and_idle_since(&self, before: &Self) -> (u64, u64) {
        let column = |of: fn(&Self) -> u64| of(self).saturating_sub(of(before));
        let sum = |columns: &[fn(&Self) -> u64]| {
            columns.iter().fold(0u64, |sum, of| sum.saturating_add(column(*of)))
        };
        let busy = sum(&[
            |cpu| cpu.user_ms,
            |cpu| cpu.nice_ms,
            |cpu| cpu.system_ms,
            |cpu| cpu.irq_ms,
            |cpu| cpu.softirq_ms,
            |cpu| cpu.steal_ms,
        ]);
        (busy, sum(&[|cpu| cpu.idle_ms, |cpu| cpu.iowait_ms]))
    }
}

fn share(busy: u64, idle: u64) -> f64 {
    let all = busy as f64 + idle as f64;
    if all > 0.0 { busy as f64 / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(seconds: u64, cpus: Vec<CpuSample>) -> SystemSnapshot {
        let memory =
            Memory { total_bytes: 100, available_bytes: 50 - seconds, ..Memory::default() };
        SystemSnapshot { uptime: Duration::from_secs(seconds), cpus, memory, load: [1.0; 3] }
    }

    fn cpu(id: u32, user_ms: u64, idle_ms: u64) -> CpuSample {
        CpuSample { id, user_ms, idle_ms, ..CpuSample::default() }
    }

    #[test]
    fn usage_is_counted_per_core_and_in_total() {
        let before = snapshot(10, vec![cpu(0, 1000, 1000), cpu(1, 0, 0)]);
        let after = snapshot(11, vec![cpu(0, 1750, 1250), cpu(1, 0, 1000)]);
        let usage = after.since(&before);
        assert_eq!((usage.cpus[0].busy, usage.cpus[1].busy, usage.cpu), (0.75, 0.0, 0.375));
        assert_eq!(usage.interval, Duration::from_secs(1));
        assert_eq!(usage.memory_available_change_bytes, -1);
        assert_eq!(usage.load_change, [0.0; 3]);
    }

    #[test]
    fn a_cpu_that_came_or_went_is_left_out() {
        let before = snapshot(1, vec![cpu(0, 5, 5), cpu(1, 5, 5)]);
        let after = snapshot(2, vec![cpu(1, 10, 5), cpu(2, 90, 90)]);
        assert_eq!(after.since(&before).cpus, [CpuUsage { id: 1, busy: 1.0 }]);
    }

    #[test]
    fn no_time_and_time_backwards_are_idle() {
        let (a, b) = (snapshot(1, vec![cpu(0, 5, 5)]), snapshot(2, vec![cpu(0, 9, 9)]));
        for usage in [a.since(&a), a.since(&b)] {
            assert_eq!((usage.cpu, usage.cpus[0].busy, usage.interval), (0.0, 0.0, Duration::ZERO));
        }
    }

    proptest! {
        #[test]
        fn shares_are_always_shares(a: [u64; 4], b: [u64; 4]) {
            let all = |x: [u64; 4]| CpuSample {
                user_ms: x[0], idle_ms: x[1], steal_ms: x[2], iowait_ms: x[3], ..CpuSample::default()
            };
            let usage = snapshot(2, vec![all(a)]).since(&snapshot(1, vec![all(b)]));
            prop_assert!((0.0..=1.0).contains(&usage.cpu) && (0.0..=1.0).contains(&usage.cpus[0].busy));
        }
    }
}
