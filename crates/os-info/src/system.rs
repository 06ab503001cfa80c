//! A reader that keeps what it has opened.

use crate::cpu::{self, Clock, Cpu, Kinds, STAT};
use crate::files::{Root, read_record};
use crate::groups::QuotaFiles;
use crate::limits::{self, Limits, Pressure};
use crate::memory::{self, Memory};
use crate::parse::{cgroup, meminfo, stat};
use crate::snapshot::{CpuSample, SystemSnapshot};
use crate::{Error, parallelism};
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// A reader for programs that ask often: it keeps descriptors, paths and buffers, so that a call
/// is little more than one read.
///
/// Files are opened when they are first needed; making one costs nothing and cannot fail. What
/// changes is read on every call. What is kept is which models the CPUs have, until other CPUs
/// are online, and the speed of those whose speed no driver scales.
///
/// One must not be used on both sides of a fork: its files know the process that opened them.
///
/// ```
/// let mut system = os_info::System::new();
/// for _ in 0..3 {
///     let free = system.freemem()?;
///     let cpus = system.cpus()?.len();
///     println!("{cpus} CPUs, {free} bytes free, {} threads", system.available_parallelism());
/// }
/// # Ok::<(), os_info::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct System {
    root: Root,
    buffer: Vec<u8>,
    stat: Kept,
    meminfo: Kept,
    membership: Kept,
    quota: Option<QuotaFiles>,
    cpus: Vec<Cpu>,
    kinds: Option<Kinds>,
}

/// A file that stays open.
#[derive(Debug, Default)]
struct Kept(Option<File>);

impl Kept {
    fn open(&mut self, root: &Root, path: &'static str) -> Result<&File, Error> {
        if self.0.is_none() {
            let file = File::open(root.at(path)).map_err(|error| Error::os(path, error))?;
            self.0 = Some(file);
        }
        Ok(self.0.as_ref().expect("it was opened above"))
    }
}

impl System {
    /// A reader of this system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A reader of the system whose `proc` and `sys` are below `root`: the host's, as monitoring
    /// containers mount it, or a recorded one.
    ///
    /// What is no file is of this process and machine all the same: the affinity, which is that of
    /// the calling thread, and memory where `meminfo` cannot be read.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: Root::new(root), ..Self::default() }
    }

    /// As [`cpus`](crate::cpus()). The list is valid until the next call.
    ///
    /// # Errors
    ///
    /// As [`cpus`](crate::cpus()).
    pub fn cpus(&mut self) -> Result<&[Cpu], Error> {
        self.read_stat()?;
        let same = cpu::update(&mut self.cpus, &self.buffer)?;
        match &self.kinds {
            Some(kinds) if same => kinds.apply_speeds(&mut self.cpus),
            _ => {
                let kinds = Kinds::read(&self.root, &self.cpus);
                kinds.apply(&mut self.cpus);
                self.kinds = Some(kinds);
            }
        }
        Ok(&self.cpus)
    }

    /// As [`freemem`](crate::freemem).
    ///
    /// # Errors
    ///
    /// As [`freemem`](crate::freemem).
    pub fn freemem(&mut self) -> Result<u64, Error> {
        let mut buffer = [0; 256];
        let file = self.meminfo.open(&self.root, MEMINFO).ok();
        let read = file.and_then(|file| {
            let length = std::os::unix::fs::FileExt::read_at(file, &mut buffer, 0).ok()?;
            meminfo::available(&buffer[..length])
        });
        memory::available_or_free(read)
    }

    /// The memory of the host.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `EACCES` from `/proc/meminfo` where that is missing; [`Error::Malformed`]
    /// where it does not name total and free memory.
    pub fn memory(&mut self) -> Result<Memory, Error> {
        let file = self.meminfo.open(&self.root, MEMINFO)?;
        read_record(file, &mut self.buffer).map_err(|error| Error::os(MEMINFO, error))?;
        memory::from_meminfo(&self.buffer)
    }

    /// As [`available_parallelism`](crate::available_parallelism); follows the process when it
    /// is moved to another group.
    #[must_use]
    pub fn available_parallelism(&mut self) -> NonZeroUsize {
        let cpus = parallelism::affinity();
        if cpus == NonZeroUsize::MIN {
            return cpus;
        }
        parallelism::within(cpus, self.cpu_quota())
    }

    fn cpu_quota(&mut self) -> Option<cgroup::CpuQuota> {
        let file = self.membership.open(&self.root, "/proc/self/cgroup").ok()?;
        read_record(file, &mut self.buffer).ok()?;
        // Opened anew when the process was moved, or when its group was removed and made again
        // under the same name.
        for _ in 0..2 {
            let known = self.quota.take().filter(|files| files.belong_to(&self.buffer));
            let files = known.unwrap_or_else(|| QuotaFiles::open(&self.root, &self.buffer));
            if let Ok(quota) = files.quota() {
                self.quota = Some(files);
                return quota;
            }
        }
        None
    }

    /// As [`limits`](crate::limits).
    ///
    /// # Errors
    ///
    /// As [`limits`](crate::limits).
    pub fn limits(&self) -> Result<Limits, Error> {
        limits::limits_below(&self.root)
    }

    /// As [`pressure`](crate::pressure).
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        limits::pressure_below(&self.root)
    }

    /// Takes all counters at this moment; [`SystemSnapshot::since`] compares two.
    ///
    /// # Errors
    ///
    /// What reading `/proc/stat` and `/proc/meminfo` answers.
    pub fn snapshot(&mut self) -> Result<SystemSnapshot, Error> {
        self.read_stat()?;
        let clock = Clock::of_system();
        let mut cpus = Vec::with_capacity(self.cpus.len());
        stat::cpus(&self.buffer, |id, ticks| {
            cpus.push(CpuSample {
                id,
                user_ms: clock.ms(ticks.user),
                nice_ms: clock.ms(ticks.nice),
                system_ms: clock.ms(ticks.system),
                idle_ms: clock.ms(ticks.idle),
                iowait_ms: clock.ms(ticks.iowait),
                irq_ms: clock.ms(ticks.irq),
                softirq_ms: clock.ms(ticks.softirq),
                steal_ms: clock.ms(ticks.steal),
            });
        });
        if cpus.is_empty() {
            return Err(Error::Malformed { file: STAT });
        }
        let uptime = crate::uptime()?;
        Ok(SystemSnapshot { uptime, cpus, memory: self.memory()?, load: crate::loadavg()? })
    }

    fn read_stat(&mut self) -> Result<(), Error> {
        let file = self.stat.open(&self.root, STAT)?;
        read_record(file, &mut self.buffer).map_err(|error| Error::os(STAT, error))
    }
}

const MEMINFO: &str = "/proc/meminfo";
