//! How a primary and its workers are set up.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use child_process::Signal;

use ipc::Serialization;

use crate::contract::{Restart, SupervisorOptions, WORKERS_MAX};
use crate::error::Error;
use crate::policy::Policy;
use crate::primary::settings::Settings;
use crate::worker_options::WorkerOptions;

/// Which signals the primary takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signals {
    pub(crate) shutdown: bool,
    pub(crate) reload: bool,
}

impl Signals {
    pub(crate) fn list(self) -> Vec<Signal> {
        let shutdown: &[Signal] = if self.shutdown { &[Signal::TERM, Signal::INT] } else { &[] };
        let reload: &[Signal] = if self.reload { &[Signal::HUP] } else { &[] };
        [shutdown, reload].concat()
    }
}

/// Collects the options of a [`Primary`](crate::Primary).
///
/// Every option has a default that suits a server: one worker per processor this process may
/// use, round robin, crashed workers restarted, this program run again with its own arguments.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    pub(crate) settings: Settings,
    pub(crate) supervisor: SupervisorOptions,
    pub(crate) workers: u32,
    pub(crate) signals: Signals,
    pub(crate) sockets: Vec<(String, Arc<OwnedFd>)>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let settings = Settings::of_this_process();
        let workers = os_info::available_parallelism();
        let workers = u32::try_from(workers.get()).unwrap_or(WORKERS_MAX).min(WORKERS_MAX);
        let asked = std::env::var_os("NODE_CLUSTER_SCHED_POLICY");
        let policy = Policy::asked_for(asked.as_deref());
        let supervisor = SupervisorOptions { policy, ..SupervisorOptions::default() };
        let signals = Signals::default();
        Self { settings, supervisor, workers, signals, sockets: Vec::new() }
    }

    /// How many workers to run: 1 to [`WORKERS_MAX`].
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Gives the primary a socket that is bound already, and listens if it is one for
    /// connections: a std listener or datagram socket, or an inherited descriptor. Workers get it
    /// when they listen on its address, or on [`Address::Inherited`](crate::Address::Given) with this
    /// name.
    ///
    /// Sockets that systemd passes (`LISTEN_FDS`) need not be given: the first primary of a
    /// process has them, under the names of `LISTEN_FDNAMES`.
    ///
    /// Node: `listen({ fd })` in a worker means a descriptor of the primary. A Node worker gets
    /// those that were given here by the number they had then, and those that the primary was
    /// started with; others are `EINVAL`.
    pub fn socket(mut self, name: impl Into<String>, socket: impl Into<OwnedFd>) -> Self {
        self.sockets.push((name.into(), Arc::new(socket.into())));
        self
    }

    /// How connections are dealt; by default as `NODE_CLUSTER_SCHED_POLICY` says, `rr` or `none`,
    /// and otherwise in rotation.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.supervisor.policy = policy;
        self
    }

    /// Which workers are replaced when they end.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.supervisor.restart.restart = restart;
        self
    }

    /// What the workers are started with; what `setup` does not name stays as it was. The methods
    /// from here to [`current_dir`](Self::current_dir) are short forms of it.
    pub fn setup(mut self, setup: WorkerOptions) -> Self {
        self.settings.overlay(&setup);
        self
    }

    /// What the workers run instead of this program: another program, or a script for Node
    /// (`.js`, `.mjs`, `.cjs`, `.ts`).
    ///
    /// A Node application needs no change: its `listen` calls come here. It gets no arguments
    /// unless [`args`](Self::args) names some.
    pub fn exec(self, exec: impl AsRef<Path>) -> Self {
        self.setup(WorkerOptions::new().exec(exec))
    }

    /// Which Node runs the script of [`exec`](Self::exec); by default `node` of the `PATH`.
    #[doc(alias = "execPath")]
    pub fn exec_path(self, path: impl AsRef<OsStr>) -> Self {
        self.setup(WorkerOptions::new().exec_path(path))
    }

    /// Options for Node itself, in front of the script.
    #[doc(alias = "execArgv")]
    pub fn exec_argv<I: IntoIterator<Item: AsRef<OsStr>>>(self, args: I) -> Self {
        self.setup(WorkerOptions::new().exec_argv(args))
    }

    /// How messages between primary and workers are written; by default compactly for Rust
    /// workers, as JSON for Node workers. A Node worker has what is its own with
    /// [`Serialization::Advanced`]: maps, big integers, buffers, and values that contain
    /// themselves.
    pub fn serialization(self, serialization: Serialization) -> Self {
        self.setup(WorkerOptions::new().serialization(serialization))
    }

    /// The arguments of the workers, without the program itself; by default those of this process.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(self, args: I) -> Self {
        self.setup(WorkerOptions::new().args(args))
    }

    /// Adds a variable to the workers' environment, which is otherwise this process's own.
    pub fn env(self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.setup(WorkerOptions::new().env(name, value))
    }

    /// The directory the workers start in; by default that of this process.
    #[doc(alias = "cwd")]
    pub fn current_dir(self, dir: impl AsRef<Path>) -> Self {
        self.setup(WorkerOptions::new().current_dir(dir))
    }

    /// How many connections may wait in one worker's queue: 1 to 64, by default 64.
    pub fn window(mut self, records: u32) -> Self {
        self.supervisor.window = records;
        self
    }

    /// How long a worker may leave its queue unread before it is killed and replaced; by
    /// default 30 s.
    ///
    /// What waited there has long been given to others: the limit is there to replace a worker
    /// that hangs, not to save its connections, so it may be generous to slow handlers.
    pub fn unresponsive_after(mut self, limit: Duration) -> Self {
        self.supervisor.unresponsive = limit;
        self.supervisor.unresponsive_node = limit;
        self
    }

    /// How long a disconnected worker may finish what it has before it gets `SIGTERM`; by
    /// default 5 s.
    ///
    /// Where nobody is to go on, up to half of it is for those who are connected and not accepted:
    /// they go to whoever is alive, also when a worker dies or hangs. In what is left each worker has
    /// what lies in its queue; if one dies then, what it has not accepted is closed and counted.
    pub fn disconnect_within(mut self, limit: Duration) -> Self {
        self.supervisor.disconnect = limit;
        self
    }

    /// How long a worker may take to end after `SIGTERM` before it gets `SIGKILL`; by default
    /// 2 s.
    pub fn terminate_within(mut self, limit: Duration) -> Self {
        self.supervisor.term = limit;
        self
    }

    /// Whether workers listen, by default they do: a worker is ready when it listens, and one of
    /// the first start that ends before fails the start. Otherwise being online is enough.
    pub fn listens(mut self, listens: bool) -> Self {
        self.supervisor.listens = listens;
        self
    }

    /// Drains and ends the cluster on the first `SIGTERM` or `SIGINT`, kills it on the second.
    ///
    /// Handlers are installed by `build` and the earlier ones put back when the cluster has
    /// ended. Without this option no signal is touched.
    pub fn shutdown_on_signals(mut self) -> Self {
        self.signals.shutdown = true;
        self
    }

    /// Reloads on `SIGHUP`, as [`Primary::reload`](crate::Primary::reload) does; a reload that fails is told as
    /// [`Event::Error`](crate::Event::Error). The handler goes as those of
    /// [`shutdown_on_signals`](Self::shutdown_on_signals) do.
    pub fn reload_on_hangup(mut self) -> Self {
        self.signals.reload = true;
        self
    }

    /// How long a new worker may take to listen when it is to relieve another, before the reload
    /// is given up; by default 10 s.
    #[doc(alias = "ready_ms")]
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.supervisor.ready = limit;
        self
    }

    /// How many restarts of one worker's place happen at once, by default 5, and for how long its
    /// workers have to listen to earn one back, by default 1 s. With 0 every restart waits.
    pub fn restart_burst(mut self, restarts: u32, refill: Duration) -> Self {
        self.supervisor.restart.burst = restarts;
        self.supervisor.restart.refill = refill;
        self
    }

    /// How long a restart waits when the burst is used up, by default 100 ms; each further one
    /// twice as long, to `max` at the most, by default 30 s. Give or take a quarter.
    pub fn restart_delay(mut self, first: Duration, max: Duration) -> Self {
        self.supervisor.restart.delay_min = first;
        self.supervisor.restart.delay_max = max;
        self
    }

    /// For how long a worker has to listen until the next restart of its place waits no longer
    /// than the first; by default 10 s.
    pub fn restart_reset(mut self, listened: Duration) -> Self {
        self.supervisor.restart.reset = listened;
        self
    }
}

pub(crate) fn check_workers(workers: u32) -> Result<(), Error> {
    if (1..=WORKERS_MAX).contains(&workers) {
        return Ok(());
    }
    Err(Error::Option("workers", format!("{workers} is not between 1 and {WORKERS_MAX}")))
}
