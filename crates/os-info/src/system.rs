//! A reader of the system that keeps its files open.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::cpu::{self, Cpu, Models, STAT, TickRate};
use crate::files::{Root, read_record, read_start};
use crate::groups::QuotaFiles;
use crate::limits::{self, Limits, Pressure};
use crate::memory::{self, Memory};
use crate::parse::{cgroup, meminfo, stat};
use crate::snapshot::{CpuSample, SystemSnapshot};
use crate::{Error, parallelism};

/// A reader of the system for programs that call often.
///
/// The reader keeps descriptors, paths and buffers, so that a call is little more than one read.
/// Files are opened on first use; creating a reader costs nothing and cannot fail. Values that
/// change are read on every call. The reader remembers the models of the CPUs, until other CPUs are
/// online, and the speed of CPUs whose speed no driver scales.
///
/// A reader must not be used on both sides of a fork, because the kernel's files belong to the
/// process that opened them.
///
/// ```
/// let mut system = brood_os_info::System::new();
/// for _ in 0..3 {
///     let free = system.freemem()?;
///     let cpus = system.cpus()?.len();
///     println!("{cpus} CPUs, {free} bytes free, {} threads", system.available_parallelism());
/// }
/// # Ok::<(), brood_os_info::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct System {
    root: Root,
    buffer: Vec<u8>,
    stat: OpenFile,
    meminfo: OpenFile,
    membership: OpenFile,
    quota: Option<QuotaFiles>,
    cpus: Vec<Cpu>,
    models: Option<Models>,
}

/// A file that is opened on first use and stays open.
#[derive(Debug, Default)]
struct OpenFile(Option<File>);

impl OpenFile {
    fn get(&mut self, root: &Root, path: &'static str) -> Result<&File, Error> {
        if self.0.is_none() {
            self.0 = Some(root.open(path)?);
        }
        Ok(self.0.as_ref().expect("it was opened above"))
    }
}

impl System {
    /// Creates a reader of this system.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a reader of the system whose `proc` and `sys` are below `root`.
    ///
    /// `root` can be the mount of the host's files in a monitoring container, or a recorded system.
    /// Values that come from no file are those of this process and machine: the affinity of the
    /// calling thread, and the memory where `meminfo` cannot be read.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: Root::new(root), ..Self::default() }
    }

    /// Lists the CPUs that are online, like [`cpus`](crate::cpus()).
    ///
    /// The list is valid until the next call.
    ///
    /// # Errors
    ///
    /// The same as for [`cpus`](crate::cpus()).
    pub fn cpus(&mut self) -> Result<&[Cpu], Error> {
        self.read_stat()?;
        let same = cpu::update(&mut self.cpus, &self.buffer)?;
        match &self.models {
            Some(models) if same => models.apply_speeds(&mut self.cpus),
            _ => {
                let models = Models::read(&self.root, &self.cpus);
                models.apply(&mut self.cpus);
                self.models = Some(models);
            }
        }
        Ok(&self.cpus)
    }

    /// Returns the memory that programs can allocate, like [`freemem`](crate::freemem).
    ///
    /// # Errors
    ///
    /// The same as for [`freemem`](crate::freemem).
    pub fn freemem(&mut self) -> Result<u64, Error> {
        let mut buffer = [0; 256];
        let file = self.meminfo.get(&self.root, MEMINFO).ok();
        let read = file.and_then(|file| meminfo::available(read_start(file, &mut buffer).ok()?));
        memory::available_or_free(read)
    }

    /// Returns the memory of the host.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `EACCES` from `/proc/meminfo` where the file is missing; [`Error::Malformed`]
    /// where it does not state total and free memory.
    pub fn memory(&mut self) -> Result<Memory, Error> {
        let file = self.meminfo.get(&self.root, MEMINFO)?;
        read_record(file, &mut self.buffer).map_err(|error| Error::os(MEMINFO, error))?;
        memory::from_meminfo(&self.buffer)
    }

    /// Returns the number of threads that can run at the same time, like
    /// [`available_parallelism`](crate::available_parallelism).
    ///
    /// The result follows the process when it is moved to another group.
    #[must_use]
    pub fn available_parallelism(&mut self) -> NonZeroUsize {
        let cpus = parallelism::affinity();
        if cpus == NonZeroUsize::MIN {
            return cpus;
        }
        parallelism::limited_by_quota(cpus, self.cpu_quota())
    }

    fn cpu_quota(&mut self) -> Option<cgroup::CpuQuota> {
        let file = self.membership.get(&self.root, "/proc/self/cgroup").ok()?;
        read_record(file, &mut self.buffer).ok()?;
        // The files are opened again when the process was moved, or when its group was removed and
        // created again under the same name. The second case shows only when a read fails.
        for _ in 0..2 {
            let known = self.quota.take().filter(|files| files.are_current_for(&self.buffer));
            let files = known.unwrap_or_else(|| QuotaFiles::open(&self.root, &self.buffer));
            if let Ok(quota) = files.quota() {
                self.quota = Some(files);
                return quota;
            }
        }
        None
    }

    /// Returns the limits of the container, like [`limits`](crate::limits).
    ///
    /// # Errors
    ///
    /// The same as for [`limits`](crate::limits).
    pub fn limits(&self) -> Result<Limits, Error> {
        limits::limits_below(&self.root)
    }

    /// Returns the pressure of the whole host, like [`pressure`](crate::pressure).
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        limits::pressure_below(&self.root)
    }

    /// Reads all counters at this moment. [`SystemSnapshot::since`] compares two snapshots.
    ///
    /// # Errors
    ///
    /// The errors of reading `/proc/stat` and `/proc/meminfo`.
    pub fn snapshot(&mut self) -> Result<SystemSnapshot, Error> {
        self.read_stat()?;
        let rate = TickRate::of_system();
        let mut cpus = Vec::with_capacity(self.cpus.len());
        stat::cpus(&self.buffer, |id, ticks| {
            cpus.push(CpuSample {
                id,
                user_ms: rate.ms(ticks.user),
                nice_ms: rate.ms(ticks.nice),
                system_ms: rate.ms(ticks.system),
                idle_ms: rate.ms(ticks.idle),
                iowait_ms: rate.ms(ticks.iowait),
                irq_ms: rate.ms(ticks.irq),
                softirq_ms: rate.ms(ticks.softirq),
                steal_ms: rate.ms(ticks.steal),
            });
        });
        if cpus.is_empty() {
            return Err(Error::Malformed { file: STAT });
        }
        let uptime = crate::uptime()?;
        Ok(SystemSnapshot { uptime, cpus, memory: self.memory()?, load: crate::loadavg()? })
    }

    fn read_stat(&mut self) -> Result<(), Error> {
        let file = self.stat.get(&self.root, STAT)?;
        read_record(file, &mut self.buffer).map_err(|error| Error::os(STAT, error))
    }
}

const MEMINFO: &str = "/proc/meminfo";
