//! The callback thread: where user code runs when it asked for callbacks.
//!
//! One thread, `brood-callbacks`, started on first use. Jobs run in the order in which they were
//! given. Nothing inside this project waits for it, so a slow callback delays only other
//! callbacks. A job that panics is reported (the panic hook of the program prints it, then
//! [`on_panic`]'s hook is called) and the next one runs.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

type Job = Box<dyn FnOnce() + Send>;
type Hook = Arc<dyn Fn(&(dyn Any + Send)) + Send + Sync>;

static HOOK: Mutex<Option<Hook>> = Mutex::new(None);

thread_local! {
    static ON_CALLBACK_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Runs `job` on the callback thread, after the ones given before. Does not wait.
///
/// The queue has no bound of its own: what feeds it (messages) is bounded by credit.
///
/// ```
/// let (done, heard) = crossbeam_channel::unbounded();
/// reactor::callback::call(move || done.send(reactor::callback::on_callback_thread()).unwrap());
/// assert_eq!(heard.recv(), Ok(true));
/// ```
pub fn call(job: impl FnOnce() + Send + 'static) {
    let queue = queue();
    // Cannot fail: the queue keeps a receiver of its own.
    let _ = queue.jobs.send(Box::new(job));
    queue.start();
}

/// A function that has `action` called, on the callback thread, with each value it is given: one after
/// the other, in the order in which they were given, the ones after a panic as well. `action` is
/// dropped there, too.
///
/// ```
/// let (tell, heard) = crossbeam_channel::unbounded();
/// let each = reactor::callback::each(move |number: u32| tell.send(number * 2).unwrap());
/// each(1);
/// each(2);
/// assert_eq!(heard.iter().take(2).collect::<Vec<_>>(), [2, 4]);
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

/// What is called for each value. It is dropped where it is called: what it holds may be user code
/// as well.
struct Action<F: Send + 'static>(Option<Arc<Mutex<F>>>);

impl<F: Send + 'static> Drop for Action<F> {
    fn drop(&mut self) {
        let action = self.0.take();
        call(move || drop(action));
    }
}

/// Whether the caller runs on the callback thread, where waiting for something that only a later
/// callback could bring would be a deadlock.
#[must_use]
pub fn on_callback_thread() -> bool {
    ON_CALLBACK_THREAD.get()
}

/// Has `hook` called, on the callback thread, with the payload of each panic of a job. Replaces
/// the hook from before.
pub fn on_panic(hook: impl Fn(&(dyn Any + Send)) + Send + Sync + 'static) {
    *HOOK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
}

struct Queue {
    jobs: Sender<Job>,
    waiting: Receiver<Job>,
    running: Mutex<bool>,
}

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Queue> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let (jobs, waiting) = unbounded();
        Queue { jobs, waiting, running: Mutex::new(false) }
    })
}

impl Queue {
    /// Starts the thread. When there are too many threads now, the job waits and the next call
    /// tries again.
    fn start(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !*running {
            let waiting = self.waiting.clone();
            let thread = thread::Builder::new().name("brood-callbacks".to_owned());
            *running = thread.spawn(move || run(&waiting)).is_ok();
        }
    }
}

fn run(waiting: &Receiver<Job>) {
    ON_CALLBACK_THREAD.set(true);
    for job in waiting {
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
        let (done, heard) = unbounded();
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
        let heard: Vec<String> = heard.iter().take(5).collect();
        assert_eq!(heard, ["0", "1", "2", "expected by a test", "after"]);
        assert!(!on_callback_thread());
    }
}
