//! The CPUs: models, speeds and times.

use std::fs::File;

use crate::Error;
use crate::files::{Root, open, read_record, read_short, read_start};
use crate::parse::{cpuinfo, stat};

/// One CPU that is online.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Cpu {
    /// The number of the CPU. The numbers of offline CPUs are missing from the list.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub id: u32,
    /// The name of the model: `AMD EPYC`; `unknown` where the kernel does not report a name.
    pub model: String,
    /// The current speed in MHz; 0 where the kernel does not report a speed.
    ///
    /// Node: version 20 returns 0 on most virtual machines, where no driver scales the speed. This
    /// crate then returns the speed from `/proc/cpuinfo`; on x86 the speed of the first CPU stands
    /// for all.
    #[cfg_attr(feature = "serde", serde(rename = "speed"))]
    pub speed_mhz: u32,
    /// The time that the CPU has spent in each mode since the system started.
    pub times: CpuTimes,
}

/// The time that a CPU has spent in each mode since the system started, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CpuTimes {
    /// Time in user mode.
    #[cfg_attr(feature = "serde", serde(rename = "user"))]
    pub user_ms: u64,
    /// Time in user mode with low priority.
    #[cfg_attr(feature = "serde", serde(rename = "nice"))]
    pub nice_ms: u64,
    /// Time in the kernel.
    #[cfg_attr(feature = "serde", serde(rename = "sys"))]
    pub sys_ms: u64,
    /// Time without a task to run.
    #[cfg_attr(feature = "serde", serde(rename = "idle"))]
    pub idle_ms: u64,
    /// Time in interrupt handlers.
    #[cfg_attr(feature = "serde", serde(rename = "irq"))]
    pub irq_ms: u64,
}

/// Lists the CPUs that are online, including those that this program may not use.
///
/// ```
/// let cpus = brood_os_info::cpus()?;
/// println!("{} × {}", cpus.len(), cpus[0].model);
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// `ENOENT` or `EACCES` from `/proc/stat` where the file is missing; [`Error::Malformed`] where it
/// names no CPU. Without `/proc/cpuinfo` the models are `unknown`.
///
/// Node: returns an empty list instead of an error.
pub fn cpus() -> Result<Vec<Cpu>, Error> {
    let root = Root::default();
    let mut cpus = Vec::new();
    let mut stat = Vec::new();
    let file = root.open(STAT)?;
    read_record(&file, &mut stat).map_err(|error| Error::os(STAT, error))?;
    update(&mut cpus, &stat)?;
    Models::read(&root, &cpus).apply(&mut cpus);
    Ok(cpus)
}

pub(crate) const STAT: &str = "/proc/stat";

/// Updates the times of `cpus`. Returns whether the list still names the same CPUs.
pub(crate) fn update(cpus: &mut Vec<Cpu>, stat: &[u8]) -> Result<bool, Error> {
    let rate = TickRate::of_system();
    let (mut count, mut same) = (0, true);
    stat::cpus(stat, |id, ticks| {
        let times = times(ticks, rate);
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

fn times(ticks: stat::Ticks, rate: TickRate) -> CpuTimes {
    CpuTimes {
        user_ms: rate.ms(ticks.user),
        nice_ms: rate.ms(ticks.nice),
        sys_ms: rate.ms(ticks.system),
        idle_ms: rate.ms(ticks.idle),
        irq_ms: rate.ms(ticks.irq),
    }
}

/// The number of ticks per second: mostly 100. A constant of the running kernel.
#[derive(Clone, Copy)]
pub(crate) struct TickRate(u64);

impl TickRate {
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

/// The facts about CPUs that stay the same between calls: the models, and the files with speeds.
#[derive(Debug)]
pub(crate) struct Models {
    models: Vec<cpuinfo::Model>,
    /// For each CPU the kernel's file with the speed, where a driver scales the speed.
    speeds: Vec<Option<File>>,
}

impl Models {
    pub(crate) fn read(root: &Root, cpus: &[Cpu]) -> Self {
        // A driver scales all CPUs or none. On nearly every virtual machine it scales none, and
        // one check saves one failed `open` per CPU.
        let scaled = cpus.first().is_some_and(|cpu| {
            root.at(format!("/sys/devices/system/cpu/cpu{}/cpufreq", cpu.id)).exists()
        });
        let open_speed = |cpu: &Cpu| {
            let name = format!("/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq", cpu.id);
            open(&root.at(name)).ok()
        };
        let speeds = cpus.iter().map(|cpu| scaled.then(|| open_speed(cpu)).flatten()).collect();
        Self { models: models(root, cpus), speeds }
    }

    /// Writes models and speeds into `cpus`, the list that they were read for.
    pub(crate) fn apply(&self, cpus: &mut [Cpu]) {
        // Some kernels name the model once, for all CPUs.
        let mut last = None;
        for (index, cpu) in cpus.iter_mut().enumerate() {
            let model = match self.models.get(index) {
                Some(model) if model.id == cpu.id => Some(model),
                _ => self.models.iter().find(|model| model.id == cpu.id),
            };
            let name = model.and_then(|model| model.name.as_deref());
            last = name.or(last);
            cpu.model.clear();
            cpu.model.push_str(last.unwrap_or("unknown"));
            cpu.speed_mhz = model.and_then(|model| model.speed_mhz).map_or(0, |speed| speed as u32);
        }
        self.apply_speeds(cpus);
    }

    /// Reads the speeds again where a driver scales them.
    pub(crate) fn apply_speeds(&self, cpus: &mut [Cpu]) {
        for (cpu, file) in cpus.iter_mut().zip(&self.speeds) {
            let Some(file) = file else { continue };
            let mut buffer = [0; 32];
            let text = read_start(file, &mut buffer).unwrap_or_default();
            if let Some(khz) = crate::parse::cgroup::limit(text) {
                cpu.speed_mhz = u32::try_from(khz / 1000).unwrap_or(u32::MAX);
            }
        }
    }
}

/// Reads `/proc/cpuinfo`: on x86 only the first CPU, elsewhere the whole file.
///
/// On x86 the kernel writes 1.5 KiB for each CPU, which takes longer than every other read of this
/// crate, and refuses to run CPUs of different models. The model of the first CPU therefore stands
/// for all, and so does its speed, which is used where no driver scales the speed.
fn models(root: &Root, cpus: &[Cpu]) -> Vec<cpuinfo::Model> {
    const PATH: &str = "/proc/cpuinfo";
    if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        let mut start = [0; 1024];
        let start = read_short(&root.at(PATH), &mut start).unwrap_or_default();
        // The buffer may end inside of a line.
        let end = start.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let first = cpuinfo::models(&start[..end]).into_iter().next();
        let first = first.filter(|model| model.name.is_some() && model.speed_mhz.is_some());
        if let Some(first) = first {
            let same = |cpu: &Cpu| cpuinfo::Model { id: cpu.id, ..first.clone() };
            return cpus.iter().map(same).collect();
        }
    }
    cpuinfo::models(&root.read(PATH).unwrap_or_default())
}
