//! The callback thread, which runs the callbacks of users.
//!
//! The process has one such thread, `brood-callbacks`, started on first use. Jobs run in the order
//! of their submission. Nothing inside this project waits for the thread, so a slow callback
//! delays only other callbacks. When a job panics, the panic hook of the program prints the
//! panic, the hook of [`on_panic`] is called, and the next job runs.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use sys::origin::Origin;

type Job = Box<dyn FnOnce() + Send>;
type Hook = Arc<dyn Fn(&(dyn Any + Send)) + Send + Sync>;

static HOOK: Mutex<Option<Hook>> = Mutex::new(None);

thread_local! {
    static ON_CALLBACK_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Runs `job` on the callback thread, after all jobs submitted before. Does not wait.
///
/// The queue has no bound of its own. Its input, messages, is bounded by credit. In a process that
/// was forked after the first use, which has no such thread, `job` is dropped.
///
/// ```
/// let (sender, receiver) = crossbeam_channel::unbounded();
/// brood_reactor::callback::call(move || sender.send(brood_reactor::callback::on_callback_thread()).unwrap());
/// assert_eq!(receiver.recv(), Ok(true));
/// ```
pub fn call(job: impl FnOnce() + Send + 'static) {
    let queue = queue();
    if !queue.home.is_here() {
        return;
    }
    // The send cannot fail, because the queue keeps a receiver of its own.
    let _ = queue.sender.send(Box::new(job));
    queue.start();
}

/// Returns a function that passes its argument to `action`, which runs on the callback thread.
///
/// The calls of `action` run one after the other, in the order of the arguments; a panic in one
/// does not stop the later ones. `action` is dropped on the callback thread, too.
///
/// ```
/// let (sender, receiver) = crossbeam_channel::unbounded();
/// let each = brood_reactor::callback::each(move |number: u32| sender.send(number * 2).unwrap());
/// each(1);
/// each(2);
/// assert_eq!(receiver.iter().take(2).collect::<Vec<_>>(), [2, 4]);
/// ```
pub fn each<T: Send + 'static>(
    action: impl FnMut(T) + Send + 'static,
) -> impl Fn(T) + Send + Sync + 'static {
    let action = Action(Some(Arc::new(Mutex::new(action))));
    move |value| {
        let Some(action) = action.0.clone() else { return };
        call(move || {
            // A panic in an earlier call must not silence the later ones.
            let mut action = action.lock().unwrap_or_else(PoisonError::into_inner);
            (*action)(value);
        });
    }
}

/// The action of [`each`], dropped on the thread that calls it, because the values in the action may
/// run user code in their `drop` as well.
struct Action<F: Send + 'static>(Option<Arc<Mutex<F>>>);

impl<F: Send + 'static> Drop for Action<F> {
    fn drop(&mut self) {
        let action = self.0.take();
        call(move || drop(action));
    }
}

/// Returns whether the caller runs on the callback thread.
///
/// Waiting there for the effect of a later callback would be a deadlock.
#[must_use]
pub fn on_callback_thread() -> bool {
    ON_CALLBACK_THREAD.get()
}

/// Sets the hook that is called, on the callback thread, with the payload of each panic of a job.
///
/// The new hook replaces the previous one.
pub fn on_panic(hook: impl Fn(&(dyn Any + Send)) + Send + Sync + 'static) {
    *HOOK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
}

struct Queue {
    sender: Sender<Job>,
    receiver: Receiver<Job>,
    started: Mutex<bool>,
    /// The process that has the thread.
    home: Origin,
}

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let (sender, receiver) = unbounded();
        Queue { sender, receiver, started: Mutex::new(false), home: Origin::here() }
    })
}

impl Queue {
    /// Starts the thread, unless it runs already.
    ///
    /// When the process has too many threads, the job stays queued and the next call tries again.
    fn start(&self) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if !*started {
            let receiver = self.receiver.clone();
            let thread = thread::Builder::new().name("brood-callbacks".to_owned());
            *started = thread.spawn(move || run(&receiver)).is_ok();
        }
    }
}

fn run(jobs: &Receiver<Job>) {
    ON_CALLBACK_THREAD.set(true);
    for job in jobs {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
            // A hook that panics must not end the thread either.
            let _ = catch_unwind(AssertUnwindSafe(|| report(&*panic)));
        }
    }
}

fn report(panic: &(dyn Any + Send)) {
    let hook = HOOK.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(hook) = hook {
        hook(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_in_order_and_a_panic_is_reported_without_stopping_the_next() {
        let (done, results) = unbounded();
        let panics = done.clone();
        on_panic(move |payload| {
            let text = payload.downcast_ref::<&str>().copied().unwrap_or_default();
            panics.send(text.to_owned()).unwrap();
        });
        for i in 0..3 {
            let done = done.clone();
            call(move || done.send(i.to_string()).unwrap());
        }
        call(|| panic!("expected by a test"));
        call(move || done.send("after".to_owned()).unwrap());
        let results: Vec<String> = results.iter().take(5).collect();
        assert_eq!(results, ["0", "1", "2", "expected by a test", "after"]);
        assert!(!on_callback_thread());
    }
}
