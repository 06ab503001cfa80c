//! The thread that starts workers: a spawn blocks until exec, so it never happens on the loop.
//!
//! What workers said on their standard error before their runtime was up is written on by a
//! thread of its own, started when there is something: that may block for ever. At most
//! [`WRITES_QUEUED_MAX`] pieces wait for it, the rest is dropped. Both threads end when the
//! [`Spawner`] is dropped.

use std::cell::OnceCell;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use child_process::Stdio;
use crossbeam_channel::Sender;

use crate::contract::{WorkerId, WorkerKind};
use crate::node;
use crate::primary::settings::Settings;
use crate::primary::shared::{Job, Shared, Spawned};
use crate::primary::worker_process::Pipes;
use crate::protocol::message::{STDERR, UNIQUE_ID, UNIQUE_NO};

/// Where a worker finds its real standard error until it puts it back, unless the user has this
/// number.
const STDERR_SLOT: i32 = 4;

/// So many pieces of at most 64 KiB wait to be written to our standard error.
pub(crate) const WRITES_QUEUED_MAX: usize = 16;

/// Start a worker; keep its standard error for the last words when asked.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) worker: WorkerId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) capture_stderr: bool,
}

/// Gives orders to the thread.
#[derive(Debug)]
pub(crate) struct Spawner {
    orders: Sender<Order>,
    writes: OnceCell<Option<Sender<Vec<u8>>>>,
}

impl Spawner {
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (orders, received) = crossbeam_channel::unbounded::<Order>();
        thread::Builder::new().name("brood-spawner".into()).spawn(move || {
            for order in received {
                spawn(&shared, &order);
            }
        })?;
        Ok(Self { orders, writes: OnceCell::new() })
    }

    pub(crate) fn spawn(&self, order: Order) {
        self.orders.send(order).expect("the thread receives as long as the sender lives");
    }

    /// Writes to our own standard error, or drops it where that is stuck.
    pub(crate) fn write_stderr(&self, bytes: Vec<u8>) {
        if let Some(writes) = self.writes.get_or_init(start_writing) {
            let _ = writes.try_send(bytes);
        }
    }
}

/// Starts the writing thread; without one nothing is written.
fn start_writing() -> Option<Sender<Vec<u8>>> {
    let (writes, received) = crossbeam_channel::bounded::<Vec<u8>>(WRITES_QUEUED_MAX);
    let thread = thread::Builder::new().name("brood-stderr".into()).spawn(move || {
        for bytes in received {
            // Nowhere is left to say that standard error is closed.
            let _ = io::stderr().write_all(&bytes);
        }
    });
    thread.ok().map(|_| writes)
}

/// Starts one worker and tells the driver; `Spawned` is told before anything of the child.
fn spawn(shared: &Arc<Shared>, order: &Order) {
    let worker = order.worker;
    // An order that makes this panic must not take those after it away.
    let started = std::panic::catch_unwind(|| start(order));
    let panicked = || Err(child_process::Error::Os("spawn", io::Error::other("it panicked")));
    let spawned = match started.unwrap_or_else(|_| panicked()) {
        Ok(spawned) => spawned,
        Err(error) => return shared.send_job(Job::Spawned { worker, result: Err(error) }),
    };
    let child = spawned.child.clone();
    shared.send_job(Job::Spawned { worker, result: Ok(spawned) });
    let told = shared.clone();
    child.subscribe(move |event| told.send_job(Job::Child(worker, event)));
}

fn start(order: &Order) -> Result<Spawned, child_process::Error> {
    let Order { worker, settings, capture_stderr } = order;
    let mut fork = settings.fork()?;
    fork.env(UNIQUE_ID, worker.to_string())
        // Ctrl-C reaches the primary alone, and the primary drains its workers.
        .process_group(0);
    let kind = if fork.speaks_node() { WorkerKind::Node } else { WorkerKind::Native };
    let mut real = None;
    match kind {
        WorkerKind::Native => {
            fork.env(UNIQUE_NO, worker.to_string());
        }
        // It would not take the second name out of its children's environment.
        WorkerKind::Node => {
            fork.env_remove(UNIQUE_NO).channel_options(node::channel_options());
        }
    }
    // Node does not put the real one back.
    if *capture_stderr && kind == WorkerKind::Native && settings.inherits_stderr() {
        real = std::io::stderr().as_fd().try_clone_to_owned().ok();
    }
    let inode = real.as_ref().and_then(|real| sys::fd::inode(real.as_fd()).ok());
    let kept = real.zip(inode);
    let keeps = kept.is_some();
    if let Some((real, inode)) = kept {
        let number = settings.free_number(STDERR_SLOT);
        fork.stderr(Stdio::pipe())
            .descriptor(number, real)
            .env(STDERR, format!("{number}:{inode}"));
    }
    let mut child = fork.spawn()?;
    let stderr = if keeps { child.take_stderr().map(Into::into) } else { None };
    let pipes = Pipes::take_from(&mut child, settings);
    Ok(Spawned { child: Arc::new(child), kind, stderr, pipes })
}
