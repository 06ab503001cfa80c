//! Process 1 of a container, and processes that become children of this one.

use crate::error::Error;

/// Makes this program safe to run as process 1 of a container. Call it first in `main`.
///
/// In every other process the call does nothing. Process 1 forks: the parent stays process 1 as a
/// small init, and the call returns in the child, which goes on as the program. No other init, such
/// as `docker run --init`, is needed.
///
/// The init
/// - reaps every process that it gets because its parent is gone; the program's own children stay
///   the program's, so no status is lost;
/// - passes every signal on to the program, which then has the usual default actions: `SIGTERM` ends
///   a program without a handler, which process 1 would ignore;
/// - exits with the code of the program when that ends, or with 128 and the number of the signal
///   that ended it; the kernel then ends all other processes of the container;
/// - has only the standard streams open, so that a socket or pipe that the program closes is closed.
///   Other processes of a container can write its log through `/proc/1/fd/1`.
///
/// The program leads a process group of its own. If process 1 was in the foreground of a terminal,
/// the program is. Ctrl-Z stops it, as there is no shell to prevent that; `SIGCONT` to process 1
/// continues it. `LISTEN_PID` and `WATCHDOG_PID` name the program if they named process 1.
///
/// Without this call, a program as process 1 leaves orphans as zombies, until the limit of
/// processes is reached. A program that cannot make the call can use
/// [`reap_orphans`](crate::reap_orphans).
///
/// ```
/// fn main() -> Result<(), brood_child_process::Error> {
///     brood_child_process::init()?;
///     assert_ne!(std::process::id(), 1);
///     Ok(())
/// }
/// ```
///
/// Node: has no such function; `node` as process 1 leaves orphans as zombies.
///
/// # Errors
///
/// [`Error::Os`] when process 1 has several threads already, or when no process can be made.
pub fn init() -> Result<(), Error> {
    sys::init::divide().map_err(|error| Error::Os("dividing process 1", error))
}
