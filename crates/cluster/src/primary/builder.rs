//! The options of a primary and its workers.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use child_process::{Sandbox, Signal};

use crate::contract::{Restart, SupervisorOptions, WORKERS_MAX, WorkerId};
use crate::error::Error;
use crate::listen_rules::{ListenPermission, ListenRules};
use crate::policy::Policy;
use crate::primary::settings::Settings;
use crate::protocol::address::Address;
use crate::worker_options::WorkerOptions;

/// The signals that the primary handles.
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

type Decide = dyn Fn(WorkerId, &Address) -> ListenPermission + Send + Sync;

/// The function that decides about addresses that no rule allows.
#[derive(Clone)]
pub(crate) struct PermissionFunction(pub(crate) Arc<Decide>);

impl fmt::Debug for PermissionFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PermissionFunction")
    }
}

/// The options of a [`Primary`](crate::Primary).
///
/// Every option has a default that suits a server: one worker for each processor that this process
/// may use, connections in rotation, crashed workers replaced, and workers that run this program
/// with the arguments of this process.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    pub(crate) settings: Settings,
    pub(crate) supervisor: SupervisorOptions,
    pub(crate) workers: u32,
    pub(crate) signals: Signals,
    pub(crate) sockets: Vec<(String, Arc<OwnedFd>)>,
    pub(crate) relays: bool,
    pub(crate) permission: Option<PermissionFunction>,
}

impl Builder {
    /// The greatest number of workers of one primary: 4096.
    pub const WORKERS_MAX: u32 = WORKERS_MAX;

    pub(crate) fn new() -> Self {
        let settings = Settings::of_this_process();
        let workers = os_info::available_parallelism();
        let workers = u32::try_from(workers.get()).unwrap_or(WORKERS_MAX).min(WORKERS_MAX);
        let variable = std::env::var_os("NODE_CLUSTER_SCHED_POLICY");
        let policy = Policy::from_environment(variable.as_deref());
        let supervisor = SupervisorOptions { policy, ..SupervisorOptions::default() };
        let signals = Signals::default();
        let (sockets, relays, permission) = (Vec::new(), false, None);
        Self { settings, supervisor, workers, signals, sockets, relays, permission }
    }

    /// Sets the number of workers, 1 to [`WORKERS_MAX`](Self::WORKERS_MAX); by default one for each processor.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Adds an inherited socket: a std listener, a datagram socket or an inherited descriptor that
    /// is already bound, and that already listens if it is a stream socket.
    ///
    /// A worker gets the socket when it listens on the socket's address, or on
    /// [`Address::Inherited`](crate::Address::Inherited) with this name.
    ///
    /// A socket that listens becomes non-blocking. The flag belongs to the open socket, so clones of
    /// it, in this process and in others, become non-blocking, too.
    ///
    /// Sockets that systemd passes (`LISTEN_FDS`) need no call: the first primary of a process has
    /// them, under the names of `LISTEN_FDNAMES`. See `sd_listen_fds(3)`.
    ///
    /// Node: `listen({ fd })` in a worker names a descriptor of the primary. A Node worker can name
    /// the sockets that were added here, by the number that they had then, and the descriptors that
    /// the primary was started with. Other numbers fail with `EINVAL`.
    pub fn socket(mut self, name: impl Into<String>, socket: impl Into<OwnedFd>) -> Self {
        self.sockets.push((name.into(), Arc::new(socket.into())));
        self
    }

    /// Sets the addresses on which workers may listen; by default there is no list.
    ///
    /// The primary opens a socket that a rule allows, whatever the rights of the worker are. The
    /// answer to any other request depends on the worker:
    ///
    /// | | without a list | with a list |
    /// |---|---|---|
    /// | worker with the user and group of the primary | the primary opens the socket | `EACCES` |
    /// | worker with a [user](WorkerOptions::uid) or [group](WorkerOptions::gid) of its own | the kernel decides by the worker's rights | the kernel decides by the worker's rights |
    /// | inherited socket, by [`socket`](Self::socket) or from systemd | the worker gets it | `EACCES` |
    /// | other descriptor of the primary, by Node's `{ fd }` | the worker gets it, unless it has a user or group of its own | the address decides |
    ///
    /// For the kernel's decision a child of the primary becomes the worker's user, opens the socket
    /// and sends it to the primary, which dispatches the connections as it always does. Such a
    /// socket is shared among workers of the same user and group. A file that a dead process of that
    /// user left at a socket's path is replaced, and no other file.
    ///
    /// A refused worker gets `EACCES`, and [`Event::Error`](crate::Event::Error) reports
    /// [`Error::NotAllowed`] with the worker and the address.
    ///
    /// Node: a worker gets every address that its primary can open.
    pub fn may_listen(mut self, rules: ListenRules) -> Self {
        self.supervisor.listen_rules = Some(rules);
        self
    }

    /// Asks `decide` about each request to listen that no rule of [`may_listen`](Self::may_listen)
    /// allows.
    ///
    /// The function runs on the callback thread, after the callbacks of earlier events, so it may
    /// take its time; the worker waits for the answer. A function that panics refuses. Inherited
    /// sockets have the address to which they are bound; [`ListenPermission::OwnRights`] refuses
    /// them to a worker with a user or group of its own.
    ///
    /// ```
    /// use brood_cluster::{Address, ListenPermission, Primary};
    ///
    /// let primary = Primary::builder()
    ///     .may_listen_fn(|worker, address| match address {
    ///         Address::Tcp { address, .. } if address.ip().is_loopback() => ListenPermission::Granted,
    ///         _ => {
    ///             eprintln!("worker {worker} asked for {address}");
    ///             ListenPermission::Refused
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    pub fn may_listen_fn(
        mut self,
        decide: impl Fn(WorkerId, &Address) -> ListenPermission + Send + Sync + 'static,
    ) -> Self {
        self.supervisor.asks_permission = true;
        self.permission = Some(PermissionFunction(Arc::new(decide)));
        self
    }

    /// Sets how many listeners and bound sockets one worker may have from the primary at once; at
    /// least 1, by default 64.
    ///
    /// One more fails with `EMFILE`, and [`Event::Error`](crate::Event::Error) reports
    /// [`Error::TooManyListeners`]. Independently of this limit, four descriptors for each worker are
    /// not used for listeners, so that workers can be restarted: a listener that would take them
    /// fails with `EMFILE`, too.
    pub fn listens_max(mut self, listeners: u32) -> Self {
        self.supervisor.listens_max = listeners;
        self
    }

    /// Sets how connections are dispatched; by default as the environment variable
    /// `NODE_CLUSTER_SCHED_POLICY` says, `rr` or `none`, and otherwise in rotation.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.supervisor.policy = policy;
        self
    }

    /// Sets which workers are replaced when they end; by default all.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.supervisor.restart.restart = restart;
        self
    }

    /// Changes the settings that workers are started with, as far as `options` names them.
    ///
    /// ```no_run
    /// use brood_cluster::{Primary, WorkerOptions};
    ///
    /// // A Node application needs no change: its `listen` calls reach this primary.
    /// let app = WorkerOptions::new().exec("app.js").args(["--quiet"]).env("NODE_ENV", "production");
    /// let primary = Primary::builder().workers(4).worker(app).build()?;
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    ///
    /// Node: `cluster.setupPrimary(settings)`, as [`Primary::setup_primary`](crate::Primary::setup_primary)
    /// on a primary that exists.
    #[doc(alias = "setupPrimary")]
    pub fn worker(mut self, options: WorkerOptions) -> Self {
        self.settings.overlay(&options);
        self
    }

    /// Gives the workers the sandbox that suits most servers, [`Sandbox::hardened`], in place of any
    /// other: they serve connections, and reach next to nothing else.
    ///
    /// A worker that needs more gets `Sandbox::hardened()` with further rules, by
    /// [`WorkerOptions::sandbox`]. [`build`](Self::build) refuses hardened workers that would run as
    /// root, or with the group of root.
    ///
    /// ```no_run
    /// use brood_cluster::{Primary, WorkerOptions};
    ///
    /// let nobody = WorkerOptions::new().uid(65_534).gid(65_534);
    /// let primary = Primary::builder().worker(nobody).harden().build()?;
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    pub fn harden(self) -> Self {
        self.worker(WorkerOptions::new().sandbox(Sandbox::hardened()))
    }

    /// Sets how many connections may wait in the queue of one worker: 1 to 64, by default 64.
    pub fn window(mut self, records: u32) -> Self {
        self.supervisor.window = records;
        self
    }

    /// Sets how long a worker may leave its queue unread before it is killed and replaced; by
    /// default 30 s, and 5 s for a connection that a Node worker does not answer.
    ///
    /// The connections in that queue have been dispatched to other workers long before. The limit
    /// only replaces a worker that hangs, so it can leave slow handlers enough time. Every sign of
    /// life begins the time anew: an accepted connection, a closed one, and a message of the program.
    ///
    /// Two ways to limit the work of a worker are never taken for a hang:
    /// [`max_connections`](crate::ListenOptions::max_connections) limits the open connections, and
    /// [`Listener::pause`](crate::Listener::pause) announces any other reason not to accept.
    pub fn unresponsive_after(mut self, limit: Duration) -> Self {
        self.supervisor.unresponsive = limit;
        self.supervisor.unresponsive_node = limit;
        self
    }

    /// Sets how long a disconnected worker may finish its connections before it gets `SIGTERM`; by
    /// default 5 s, and 9 s for a Node worker.
    ///
    /// A Node program is not notified of its disconnect before its last connection has ended.
    /// `SIGTERM` is its first notification, and ends a program without a handler. See
    /// [`sigterm_after`](Self::sigterm_after).
    ///
    /// Where no worker goes on serving, up to half of this time is for connections that no worker
    /// has accepted: they go to any worker that is alive, even when another one dies or hangs. In
    /// the time that is left each worker keeps the connections in its queue. Connections that a
    /// worker has not accepted when it dies then are closed and counted.
    pub fn disconnect_within(mut self, limit: Duration) -> Self {
        self.supervisor.disconnect = limit;
        self.supervisor.disconnect_node = limit;
        self
    }

    /// Sets how long a worker may take to end after `SIGTERM` before it gets `SIGKILL`; by default
    /// 2 s, and 18 s for a Node worker, which may begin to close its connections only then.
    pub fn terminate_within(mut self, limit: Duration) -> Self {
        self.supervisor.term = limit;
        self.supervisor.term_node = limit;
        self
    }

    /// Sends `SIGTERM` to a Node worker this long after it was disconnected, and not only after
    /// [`disconnect_within`](Self::disconnect_within). The time of `SIGKILL` stays the same.
    ///
    /// The option is for programs that handle the signal: that close WebSockets and streams, and
    /// exit after their last answer. They have nearly all of the time for it with
    /// `Duration::ZERO`, which means 200 ms, because a program without connections needs a moment
    /// to exit by itself. A program without a handler is ended by the signal in the middle of its
    /// requests. The primary cannot find out whether there is a handler, because Node itself
    /// always has one.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use brood_cluster::{Primary, WorkerOptions};
    ///
    /// // process.on('SIGTERM', () => { for (const socket of wss.clients) socket.close(1001); });
    /// let app = WorkerOptions::new().exec("websockets.js");
    /// let primary = Primary::builder().worker(app).sigterm_after(Duration::ZERO).build()?;
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    pub fn sigterm_after(mut self, delay: Duration) -> Self {
        self.supervisor.sigterm_node = Some(delay);
        self
    }

    /// Sets whether workers listen; by default their behaviour decides, see
    /// [`listens_after`](Self::listens_after).
    ///
    /// With `true` a worker is ready when it has a listener, however long that takes; with `false`
    /// as soon as it is online.
    pub fn listens(mut self, listens: bool) -> Self {
        self.supervisor.listens_after = if listens { None } else { Some(Duration::ZERO) };
        self
    }

    /// Sets how long a worker is online without a listener before it counts as one that does not
    /// listen, and is ready; by default 10 s.
    ///
    /// A worker that listens is ready at once, and the next worker of a slot whose worker never
    /// listened after 1 s. A listener that the primary does not see, such as one that a Node
    /// worker opens with `exclusive: true`, does not count.
    pub fn listens_after(mut self, limit: Duration) -> Self {
        self.supervisor.listens_after = Some(limit);
        self
    }

    /// Sets whether the primary and its Rust workers raise their soft limits of open descriptors;
    /// by default they do, as Node does for itself.
    ///
    /// [`build`](Self::build) raises the limit of the primary, and
    /// [`Worker::current`](crate::Worker::current) that of a worker: to the hard limit, at most to
    /// 1,048,576. A limit is never lowered. Other children of these processes get the previous soft
    /// limit, because a program that calls `select(2)` cannot use numbers over 1,023.
    pub fn raise_descriptors(mut self, raise: bool) -> Self {
        self.settings.raises_descriptors = raise;
        self
    }

    /// Sends every message of a worker on to all other workers.
    ///
    /// Node applications often do this in the branch that runs in their own primary, as with
    /// `setupPrimary()` of `@socket.io/cluster-adapter`. Under this primary that branch does not
    /// run. Order is kept: each worker gets the messages of another in the order in which they were
    /// sent. The events of this primary report the messages as well.
    ///
    /// A message goes to the workers that have the same codec as its sender, see
    /// [`WorkerOptions::serialization`]: a Rust worker that shares messages with Node workers has
    /// JSON, and must know all types that they send. Messages with handles are not sent on.
    /// [`Event::Error`](crate::Event::Error) names a worker that missed messages for one of these
    /// reasons, or because it has left too many unread; a worker whose channel is closed gets none
    /// without a report.
    ///
    /// ```no_run
    /// use brood_cluster::{Policy, Primary, WorkerOptions};
    ///
    /// let app = WorkerOptions::new().exec("chat.js");
    /// let primary = Primary::builder().worker(app).policy(Policy::Sticky).relay().build()?;
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    pub fn relay(mut self) -> Self {
        self.relays = true;
        self
    }

    /// Drains and ends the cluster on the first `SIGTERM` or `SIGINT`, and kills it on the second.
    ///
    /// [`build`](Self::build) installs the handlers. The earlier handlers return when the cluster
    /// has ended. Without this option the primary handles no signal.
    pub fn shutdown_on_signals(mut self) -> Self {
        self.signals.shutdown = true;
        self
    }

    /// Reloads on `SIGHUP`, as [`Primary::reload`](crate::Primary::reload) does.
    ///
    /// The kernel sends the same signal when the controlling terminal ends. The cluster then drains
    /// and ends, because a server that nobody sees any more would hold its ports.
    ///
    /// [`Event::Error`](crate::Event::Error) reports a reload that fails. The handler is installed
    /// and removed together with those of [`shutdown_on_signals`](Self::shutdown_on_signals).
    pub fn reload_on_hangup(mut self) -> Self {
        self.signals.reload = true;
        self
    }

    /// Sets how long workers may take to be ready; by default 30 s.
    ///
    /// [`Primary::ready`](crate::Primary::ready) waits no longer; its error says what is missing, and
    /// ends a first start. A reload fails when a new worker takes longer to be ready and to listen
    /// on all addresses of its predecessor, and the earlier worker stays. An address that all
    /// workers have closed stays open for this time, and is then given up, see
    /// [`Event::AddressClosed`](crate::Event::AddressClosed).
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.supervisor.ready = limit;
        self
    }

    /// Sets how long the start of a worker may take, until it has executed its program; by default
    /// 10 s. With `Duration::MAX` there is no limit, and zero is refused.
    ///
    /// Another process can stop a worker that has its user already and not its program yet. Such a
    /// worker is killed, counts as one that could not be started, and is replaced after a delay. The
    /// starts of other workers wait meanwhile. See
    /// [`Command::start_within`](child_process::Command::start_within).
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.supervisor.start = limit;
        self.settings.start_within = limit;
        self
    }

    /// Sets how many workers of one slot are replaced without delay, by default 5, and how long its
    /// workers have to listen to regain one such restart, by default 1 s. With 0 restarts every
    /// restart is delayed, and with a time of 0 any listening regains all of them.
    pub fn restart_burst(mut self, restarts: u32, refill: Duration) -> Self {
        self.supervisor.restart.burst = restarts;
        self.supervisor.restart.refill = refill;
        self
    }

    /// Sets the delay of a restart after the burst, by default 100 ms. Each further delay is twice
    /// as long, up to `max`, by default 30 s. A random quarter is added or subtracted.
    pub fn restart_delay(mut self, first: Duration, max: Duration) -> Self {
        self.supervisor.restart.delay_min = first;
        self.supervisor.restart.delay_max = max;
        self
    }

    /// Sets how long a worker has to listen until the next restart of its slot has the first delay
    /// again; by default 10 s.
    pub fn restart_reset(mut self, listened: Duration) -> Self {
        self.supervisor.restart.reset = listened;
        self
    }
}

pub(crate) fn check_workers(workers: u32) -> Result<(), Error> {
    if (1..=WORKERS_MAX).contains(&workers) {
        return Ok(());
    }
    let why = format!("use 1 to {WORKERS_MAX} workers, not {workers}");
    Err(Error::InvalidOption { option: "workers", why })
}
