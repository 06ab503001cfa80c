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

use child_process::{Fork, Module, Stdio};
use crossbeam_channel::Sender;

use crate::core::{WorkerId, WorkerKind};
use crate::node;
use crate::settings::Settings;
use crate::shared::{Job, Shared, Spawned};

/// The variable that makes a process a worker, as in Node.
pub(crate) const UNIQUE_ID: &str = "NODE_UNIQUE_ID";
/// A second spelling of it, set and understood too.
pub(crate) const UNIQUE_NO: &str = "NODE_UNIQUE_NO";
/// Names the descriptor that is the worker's real standard error.
pub(crate) const STDERR: &str = "BROOD_STDERR";
/// Where a worker finds its real standard error until it puts it back.
const STDERR_SLOT: i32 = 4;

/// So many pieces of at most 64 KiB wait to be written to our standard error.
pub(crate) const WRITES_QUEUED_MAX: usize = 16;

/// Start a worker; keep its standard error for the last words when asked.
#[derive(Debug)]
struct Order {
    worker: WorkerId,
    keep_stderr: bool,
}

/// Gives orders to the thread.
#[derive(Debug)]
pub(crate) struct Spawner {
    orders: Sender<Order>,
    writes: OnceCell<Option<Sender<Vec<u8>>>>,
}

impl Spawner {
    pub(crate) fn start(settings: Settings, shared: Arc<Shared>) -> io::Result<Self> {
        let (orders, received) = crossbeam_channel::unbounded::<Order>();
        thread::Builder::new().name("brood-spawner".into()).spawn(move || {
            for order in received {
                spawn(&settings, &shared, order.worker, order.keep_stderr);
            }
        })?;
        Ok(Self { orders, writes: OnceCell::new() })
    }

    pub(crate) fn spawn(&self, worker: WorkerId, keep_stderr: bool) {
        let order = Order { worker, keep_stderr };
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
fn spawn(settings: &Settings, shared: &Arc<Shared>, worker: WorkerId, keep_stderr: bool) {
    let spawned = match start(settings, worker, keep_stderr) {
        Ok(spawned) => spawned,
        Err(error) => return shared.job(Job::Spawned { worker, result: Err(error) }),
    };
    let child = spawned.child.clone();
    shared.job(Job::Spawned { worker, result: Ok(spawned) });
    let told = shared.clone();
    child.subscribe(move |event| told.job(Job::Child(worker, event)));
}

fn start(
    settings: &Settings,
    worker: WorkerId,
    keep_stderr: bool,
) -> Result<Spawned, child_process::Error> {
    let mut fork = fork(settings);
    fork.env(UNIQUE_ID, worker.to_string())
        // Ctrl-C reaches the primary alone, and the primary drains its workers.
        .process_group(0);
    for (name, value) in &settings.env {
        fork.env(name, value);
    }
    if let Some(dir) = &settings.current_dir {
        fork.current_dir(dir);
    }
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
    if let Some(serialization) = settings.serialization {
        fork.serialization(serialization);
    }
    // Node does not put the real one back.
    if keep_stderr && kind == WorkerKind::Native {
        real = std::io::stderr().as_fd().try_clone_to_owned().ok();
    }
    let inode = real.as_ref().and_then(|real| sys::fd::inode(real.as_fd()).ok());
    let (Some(real), Some(inode)) = (real, inode) else {
        return Ok(Spawned { child: Arc::new(fork.spawn()?), kind, stderr: None });
    };
    fork.stderr(Stdio::pipe())
        .descriptor(STDERR_SLOT, real)
        .env(STDERR, format!("{STDERR_SLOT}:{inode}"));
    let mut child = fork.spawn()?;
    let stderr = child.take_stderr().map(Into::into);
    Ok(Spawned { child: Arc::new(child), kind, stderr })
}

/// What the settings say of the program.
fn fork(settings: &Settings) -> Fork {
    let module = match &settings.exec {
        Some(exec) => Module::from_path(exec),
        None => Module::this_program(),
    };
    let mut fork = Fork::new(module);
    if let Some(path) = &settings.exec_path {
        fork.exec_path(path);
    }
    fork.exec_argv(&settings.exec_argv).args(&settings.args);
    fork
}
