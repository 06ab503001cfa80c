//! The thread that starts workers. A spawn blocks until `exec(2)`, so it must not run on the loop.
//!
//! The thread also starts the thread of [`binder`], which has the same namespaces, capabilities and
//! filters then. Both end when the [`Spawner`] is dropped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use child_process::internal::InternalChannel;
use child_process::{Signal, Stdio};
use crossbeam_channel::{Receiver, Sender};

use crate::contract::{WorkerId, WorkerKind};
use crate::primary::binder::{self, BindOrder};
use crate::primary::primary_state::{Job, Shared, Spawned};
use crate::primary::settings::{Settings, is_another_user};
use crate::primary::worker_process::Pipes;
use crate::protocol::message::{KEEP_DESCRIPTORS, STDERR, UNIQUE_ID, UNIQUE_NO};

/// The descriptor number at which a worker finds its real standard error until its runtime restores
/// it, unless the user has that number.
const STDERR_SLOT: i32 = 4;

/// An order to start a worker, and perhaps to capture its standard error.
#[derive(Debug)]
pub(crate) struct SpawnOrder {
    pub(crate) worker: WorkerId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) capture_stderr: bool,
    /// The worker is the new one of a reload.
    pub(crate) is_successor: bool,
}

/// An order for the thread.
#[derive(Debug)]
pub(crate) enum Order {
    /// Start a worker, unless the order was given up.
    Worker(SpawnOrder, Arc<AtomicBool>),
    /// Start the thread that opens sockets with the rights of workers.
    Binder(Receiver<BindOrder>),
}

/// The handle of the thread.
#[derive(Debug)]
pub(crate) struct Spawner {
    orders: Sender<Order>,
    binder: Option<Sender<BindOrder>>,
    /// The orders of workers that are not answered, with their cancellation.
    unanswered: BTreeMap<WorkerId, Arc<AtomicBool>>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The errors of `pthread_create(3)`.
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (orders, received) = crossbeam_channel::unbounded::<Order>();
        thread::Builder::new().name("brood-spawner".into()).spawn(move || {
            for order in received {
                match order {
                    Order::Worker(order, is_canceled) => spawn(&shared, &order, &is_canceled),
                    Order::Binder(orders) => binder::start(orders),
                }
            }
        })?;
        Ok(Self { orders, binder: None, unanswered: BTreeMap::new() })
    }

    /// Returns a spawner without a thread, and its orders, which a test answers.
    #[cfg(test)]
    pub(crate) fn recording() -> (Self, crossbeam_channel::Receiver<Order>) {
        let (orders, received) = crossbeam_channel::unbounded();
        (Self { orders, binder: None, unanswered: BTreeMap::new() }, received)
    }

    /// Orders the start of a worker. [`Job::Spawned`] reports the result.
    pub(crate) fn spawn(&mut self, order: SpawnOrder) {
        let is_canceled = Arc::new(AtomicBool::new(false));
        self.unanswered.insert(order.worker, is_canceled.clone());
        self.send(Order::Worker(order, is_canceled));
    }

    /// Records the answer to an order; `false` if the order was canceled.
    pub(crate) fn answered(&mut self, worker: WorkerId) -> bool {
        self.unanswered.remove(&worker).is_some()
    }

    /// Gives up an order. A worker that is started after all is killed.
    pub(crate) fn cancel(&mut self, worker: WorkerId) {
        if let Some(is_canceled) = self.unanswered.remove(&worker) {
            is_canceled.store(true, Ordering::Relaxed);
        }
    }

    /// Orders a socket. [`Job::SocketOpened`] reports the result.
    pub(crate) fn bind(&mut self, order: BindOrder) {
        let order = match &self.binder {
            Some(binder) => match binder.send(order) {
                Ok(()) => return,
                // The thread could not be started the last time.
                Err(unsent) => unsent.0,
            },
            None => order,
        };
        let (binder, orders) = crossbeam_channel::unbounded();
        self.send(Order::Binder(orders));
        // Fails when the thread could not be started: the dropped order answers.
        let _ = binder.send(order);
        self.binder = Some(binder);
    }

    fn send(&self, order: Order) {
        self.orders.send(order).expect("the thread receives as long as the sender lives");
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        for is_canceled in self.unanswered.values() {
            is_canceled.store(true, Ordering::Relaxed);
        }
    }
}

/// Starts one worker and reports to the driver. `Spawned` precedes all events of the child.
fn spawn(shared: &Arc<Shared>, order: &SpawnOrder, is_canceled: &AtomicBool) {
    let worker = order.worker;
    if is_canceled.load(Ordering::Relaxed) {
        return;
    }
    // A panic must not end the thread, which later orders need.
    let started = std::panic::catch_unwind(|| start(order));
    let panicked = || Err(child_process::Error::Os("spawn", io::Error::other("it panicked")));
    let spawned = match started.unwrap_or_else(|_| panicked()) {
        Ok(spawned) => spawned,
        Err(error) => return shared.send_job(Job::Spawned { worker, result: Err(error) }),
    };
    let child = spawned.child.clone();
    if is_canceled.load(Ordering::Relaxed) {
        // Fails only if the process has ended.
        let _ = child.kill(Signal::KILL);
        return;
    }
    shared.send_job(Job::Spawned { worker, result: Ok(spawned) });
    let shared = shared.clone();
    child.subscribe(move |event| shared.send_job(Job::Child(worker, event)));
}

/// Starts the worker of an order.
fn start(order: &SpawnOrder) -> Result<Spawned, child_process::Error> {
    let SpawnOrder { worker, settings, capture_stderr, is_successor } = order;
    let credentials = settings.credentials()?;
    let mut fork = settings.fork(worker.get(), *is_successor, credentials.as_ref())?;
    fork.start_within(settings.start_within);
    fork.env(UNIQUE_ID, worker.to_string())
        // Ctrl-C reaches the primary alone, and the primary drains its workers.
        .process_group(0);
    let kind = if fork.speaks_node() { WorkerKind::Node } else { WorkerKind::Native };
    let mut real = None;
    match kind {
        WorkerKind::Native => {
            fork.env(UNIQUE_NO, worker.to_string());
            if !settings.raises_descriptors {
                fork.env(KEEP_DESCRIPTORS, "keep");
            }
        }
        // Node does not remove the second name from the environment of its own children.
        WorkerKind::Node => {
            fork.env_remove(UNIQUE_NO);
        }
    }
    // Node does not restore the real one.
    if *capture_stderr && kind == WorkerKind::Native && settings.inherits_stderr() {
        real = std::io::stderr().as_fd().try_clone_to_owned().ok();
    }
    let inode = real.as_ref().and_then(|real| sys::fd::inode(real.as_fd()).ok());
    let captured = real.zip(inode);
    let is_captured = captured.is_some();
    if let Some((real, inode)) = captured {
        let number = settings.free_number(STDERR_SLOT);
        fork.stderr(Stdio::pipe())
            .descriptor(number, real)
            .env(STDERR, format!("{number}:{inode}"));
    }
    let mut child = fork.spawn()?;
    let stderr = if is_captured { child.take_stderr().map(Into::into) } else { None };
    let pipes = Pipes::take_from(&mut child, settings);
    let exec = settings.exec.clone();
    // A worker of the same user has the rights of the primary: the list decides alone.
    let credentials = credentials.filter(is_another_user);
    Ok(Spawned { child: Arc::new(child), kind, stderr, exec, pipes, credentials })
}
