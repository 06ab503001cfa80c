//! Processes that become children of this one because their parent is gone.
//!
//! A process that has ended stays a zombie until its parent waits for it. The kernel does not say
//! whether other code of the parent is going to wait, so a zombie that stays for a while is taken to
//! be an orphan.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reactor::{Event, Handle, Interest, Source, Token, Turn, reactor};
use sys::signal::{Signal, SignalWatch};

use crate::error::Error;
use crate::proc_fs;
use crate::process;

/// The shortest grace.
const GRACE_MIN: Duration = Duration::from_millis(10);

static GRACE: Mutex<Duration> = Mutex::new(GRACE_MIN);

fn grace() -> MutexGuard<'static, Duration> {
    GRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps processes that this one gets because their parent is gone, from now until it ends.
///
/// For process 1 of a container that cannot call [`init()`](crate::init()), and for a process that
/// is a child subreaper (`PR_SET_CHILD_SUBREAPER`). Every other process gets no orphans.
///
/// An orphan cannot be told from a child that other code of this process has started and will wait
/// for later. A child that has been a zombie for `grace` to twice `grace` is reaped, **and its
/// status is lost to that code**: `std::process::Child::wait` then fails with `ECHILD`. Children
/// that this crate has started are never taken. A grace of some seconds suits a program whose other
/// code waits at once; less than 10 ms means 10 ms.
///
/// A handler of `SIGCHLD` is installed. A second call changes the grace.
///
/// ```
/// use std::time::Duration;
///
/// brood_child_process::reap_orphans(Duration::from_secs(5))?;
/// # Ok::<(), brood_child_process::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Os`] when the loop cannot be started, when the handler cannot be installed, and when
/// `/proc` is missing or shows the processes of another pid namespace, so that orphans are not found.
pub fn reap_orphans(grace_of_zombies: Duration) -> Result<(), Error> {
    static REAPER: Mutex<Option<Handle>> = Mutex::new(None);
    let reactor = reactor()?;
    proc_fs::check().map_err(|error| Error::Os("reading /proc", error))?;
    *grace() = grace_of_zombies.max(GRACE_MIN);
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    match &*reaper {
        Some(reaper) => reaper.wake(),
        None => {
            let watch = SignalWatch::new(&[Signal::CHLD]);
            let watch = watch.map_err(|error| Error::Os("watching SIGCHLD", error))?;
            *reaper = Some(reactor.add(Reaper { watch, seen: BTreeSet::new() }));
        }
    }
    Ok(())
}

struct Reaper {
    watch: SignalWatch,
    /// The zombies of the last search.
    seen: BTreeSet<u32>,
}

impl Reaper {
    /// Reaps the zombies that were there in the last search, and returns whether another search is
    /// needed.
    fn search(&mut self) -> bool {
        // No descriptor is left, for example: searched again after the grace.
        let Ok(zombies) = zombies() else {
            self.seen.clear();
            return true;
        };
        let (old, new): (BTreeSet<u32>, _) =
            zombies.into_iter().partition(|pid| self.seen.contains(pid));
        for pid in old {
            sys::pidfd::reap(pid);
        }
        self.seen = new;
        !self.seen.is_empty()
    }
}

impl Source for Reaper {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        let search = match event {
            Event::Start => {
                // Without a watch, the zombies of this moment are all that is reaped.
                let _ = turn.register(self.watch.as_fd(), Token(0), Interest::READABLE);
                true
            }
            Event::Ready { .. } => {
                let _ = self.watch.take();
                // While there are zombies, the deadline searches.
                self.seen.is_empty()
            }
            Event::Deadline => true,
            Event::Wake => {
                // Another grace, which counts from here.
                self.seen.clear();
                true
            }
            Event::Again => false,
        };
        if search {
            let again = self.search();
            let next = turn.now().checked_add(*grace());
            turn.set_deadline(next.filter(|_| again));
        }
    }
}

/// Returns the children of this process that have ended and that no [`Child`](crate::Child) holds.
fn zombies() -> io::Result<BTreeSet<u32>> {
    let children = proc_fs::children(std::process::id())?;
    let is_orphan = |pid: &u32| !process::is_held(*pid) && proc_fs::is_zombie(*pid);
    Ok(children.into_iter().filter(is_orphan).collect())
}
