//! The processors: what they are and what they did.

use crate::Error;
use crate::files::{Root, read_record, read_short};
use crate::parse::{cpuinfo, stat};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// One CPU that is online.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cpu {
    /// Its number; offline CPUs leave gaps.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub id: u32,
    /// What it is called: `AMD EPYC`; `unknown` where the kernel does not say.
    pub model: String,
    /// Its speed at this moment in MHz; 0 where the kernel does not say.
    ///
    /// Node: 20 says 0 on most virtual machines, where no driver scales the speed. Here the one
    /// that `/proc/cpuinfo` names stands in; on x86 that of the first CPU for all.
    #[cfg_attr(feature = "serde", serde(rename = "speed"))]
    pub speed_mhz: u32,
    /// What it did since the system started.
    pub times: CpuTimes,
}

/// What a CPU did since the system started, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CpuTimes {
    /// Ran programs.
    #[cfg_attr(feature = "serde", serde(rename = "user"))]
    pub user_ms: u64,
    /// Ran programs of low priority.
    #[cfg_attr(feature = "serde", serde(rename = "nice"))]
    pub nice_ms: u64,
    /// Ran the kernel.
    #[cfg_attr(feature = "serde", serde(rename = "sys"))]
    pub sys_ms: u64,
    /// Had nothing to do.
    #[cfg_attr(feature = "serde", serde(rename = "idle"))]
    pub idle_ms: u64,
    /// Served interrupts.
    #[cfg_attr(feature = "serde", serde(rename = "irq"))]
    pub irq_ms: u64,
}

/// Lists the CPUs that are online, whatever this program may use of them.
///
/// ```
/// let cpus = os_info::cpus()?;
/// println!("{} × {}", cpus.len(), cpus[0].model);
/// # Ok::<(), os_info::Error>(())
/// ```
///
/// # Errors
///
/// `ENOENT` or `EACCES` from `/proc/stat` where that is missing; [`Error::Malformed`] where it
/// names no CPU. Without `/proc/cpuinfo` models are `unknown`.
///
/// Node: answers an empty list instead of an error.
pub fn cpus() -> Result<Vec<Cpu>, Error> {
    let root = Root::default();
    let mut cpus = Vec::new();
    let mut stat = Vec::new();
    let file = File::open(root.at(STAT)).map_err(|error| Error::os(STAT, error))?;
    read_record(&file, &mut stat).map_err(|error| Error::os(STAT, error))?;
    update(&mut cpus, &stat)?;
    Kinds::read(&root, &cpus).apply(&mut cpus);
    Ok(cpus)
}

pub(crate) const STAT: &str = "/proc/stat";

/// Brings the times up to date. Says whether the CPUs are still the same ones.
pub(crate) fn update(cpus: &mut Vec<Cpu>, stat: &[u8]) -> Result<bool, Error> {
    let clock = Clock::of_system();
    let (mut count, mut same) = (0, true);
    stat::cpus(stat, |id, ticks| {
        let times = times(ticks, clock);
        match cpus.get_mut(count) {
            Some(cpu) if cpu.id == id => cpu.times = times,
            _ => {
                same = false;
                cpus.truncate(count);
                cpus.push(Cpu { id, model: String::new(), speed_mhz: 0, times });
            }
        }
        count += 1;
    });
    if count == 0 {
        return Err(Error::Malformed { file: STAT });
    }
    same &= cpus.len() == count;
    cpus.truncate(count);
    Ok(same)
}

fn times(ticks: stat::Ticks, clock: Clock) -> CpuTimes {
    CpuTimes {
        user_ms: clock.ms(ticks.user),
        nice_ms: clock.ms(ticks.nice),
        sys_ms: clock.ms(ticks.system),
        idle_ms: clock.ms(ticks.idle),
        irq_ms: clock.ms(ticks.irq),
    }
}

/// How long a tick is: mostly 10 ms. A constant of the running kernel.
#[derive(Clone, Copy)]
pub(crate) struct Clock(u64);

impl Clock {
    pub(crate) fn of_system() -> Self {
        Self(sys::host::ticks_per_second())
    }

    pub(crate) fn ms(self, ticks: u64) -> u64 {
        if self.0 == 100 {
            return ticks.saturating_mul(10);
        }
        u64::try_from(u128::from(ticks) * 1000 / u128::from(self.0)).unwrap_or(u64::MAX)
    }
}

/// What does not change from call to call: models, and where the speed is read.
#[derive(Debug)]
pub(crate) struct Kinds {
    kinds: Vec<cpuinfo::Kind>,
    /// For each CPU the kernel's file with its speed, where a driver scales it.
    speeds: Vec<Option<File>>,
}

impl Kinds {
    pub(crate) fn read(root: &Root, cpus: &[Cpu]) -> Self {
        // All CPUs are scaled, or none: on nearly every virtual machine.
        let scaled = cpus.first().is_some_and(|cpu| {
            root.at(format!("/sys/devices/system/cpu/cpu{}/cpufreq", cpu.id)).exists()
        });
        let open = |cpu: &Cpu| {
            let name = format!("/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq", cpu.id);
            File::open(root.at(name)).ok()
        };
        let speeds = cpus.iter().map(|cpu| scaled.then(|| open(cpu)).flatten()).collect();
        Self { kinds: kinds(root, cpus), speeds }
    }

    /// Writes models and speeds into the CPUs these were read for.
    pub(crate) fn apply(&self, cpus: &mut [Cpu]) {
        // Some kernels name the model once, for all.
        let mut last = None;
        for (place, cpu) in cpus.iter_mut().enumerate() {
            let kind = match self.kinds.get(place) {
                Some(kind) if kind.id == cpu.id => Some(kind),
                _ => self.kinds.iter().find(|kind| kind.id == cpu.id),
            };
            let model = kind.and_then(|kind| kind.model.as_deref());
            last = model.or(last);
            cpu.model.clear();
            cpu.model.push_str(last.unwrap_or("unknown"));
            cpu.speed_mhz = kind.and_then(|kind| kind.speed_mhz).map_or(0, |speed| speed as u32);
        }
        self.apply_speeds(cpus);
    }

    /// Reads the speeds anew where a driver scales them.
    pub(crate) fn apply_speeds(&self, cpus: &mut [Cpu]) {
        for (cpu, file) in cpus.iter_mut().zip(&self.speeds) {
            let Some(file) = file else { continue };
            let mut buffer = [0; 32];
            let length = file.read_at(&mut buffer, 0).unwrap_or(0);
            let khz = crate::parse::cgroup::limit(&buffer[..length]);
            if let Some(khz) = khz {
                cpu.speed_mhz = u32::try_from(khz / 1000).unwrap_or(u32::MAX);
            }
        }
    }
}

/// Reads `/proc/cpuinfo`: on x86 no more than the first CPU of it.
///
/// There the kernel writes a kilobyte and a half for each CPU, slower than all else that is asked
/// here, and refuses to run CPUs of different models. So the first one's model stands for all, and
/// so does its speed, which is used where no driver scales it.
fn kinds(root: &Root, cpus: &[Cpu]) -> Vec<cpuinfo::Kind> {
    const PATH: &str = "/proc/cpuinfo";
    if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        let mut start = [0; 1024];
        let start = read_short(&root.at(PATH), &mut start).unwrap_or_default();
        // The last line may be cut off.
        let end = start.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let first = cpuinfo::kinds(&start[..end]).into_iter().next();
        let first = first.filter(|kind| kind.model.is_some() && kind.speed_mhz.is_some());
        if let Some(first) = first {
            let same = |cpu: &Cpu| cpuinfo::Kind { id: cpu.id, ..first.clone() };
            return cpus.iter().map(same).collect();
        }
    }
    cpuinfo::kinds(&root.read(PATH).unwrap_or_default())
}
