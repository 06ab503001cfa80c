//! Passed descriptors, and shared memory.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use ipc::{Handle, SharedMemory};
use sys::memory::Draft;
use sys::scm;

use super::*;

/// The size of the shared memory.
pub const SHARED: usize = 16 << 20;

/// The handles of a message, and whether the sender wants an answer.
pub type Passed = (bool, Vec<Handle<OwnedFd>>);

pub fn descriptors(context: &Context) -> Measure {
    let mut measure = Measure::new("Descriptors passed", Unit::PerSecond, Better::Higher)
        .along("per message", Chart::Bars);
    for (count, times) in [(1, context.pick(2_000, 10_000)), (16, context.pick(500, 2_000))] {
        let amount = (count * times) as f64;
        let ours = Remote::start("handle-sink", "").and_then(|mut remote| {
            let channel = remote.channel::<Passed, Ping>(true)?;
            Ok((remote, channel, OwnedFd::from(UnixStream::pair()?.0)))
        });
        let handles = contender(Role::Ours, "brood", ours, move |ends| {
            rate(amount, || {
                for left in (0..times).rev() {
                    let handles: Result<_, std::io::Error> =
                        (0..count).map(|_| ends.2.try_clone().map(Handle::new)).collect();
                    ends.1.send(&(left == 0, handles?))?;
                }
                ends.1.recv()?;
                Ok(())
            })
        });
        let made = Remote::start("raw-handles", "")
            .and_then(|remote| Ok((remote, OwnedFd::from(UnixStream::pair()?.0))));
        let raw = contender(Role::Peer, "sendmsg", made, move |(remote, fd)| {
            let mut stream = remote.socket.as_ref().ok_or("taken")?;
            rate(amount, || {
                for left in (0..times).rev() {
                    let own: Result<Vec<_>, _> = (0..count).map(|_| fd.try_clone()).collect();
                    let own = own?;
                    let lent: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).collect();
                    let bytes = [u8::from(left == 0)];
                    scm::send_blocking(stream.as_fd(), &[IoSlice::new(&bytes)], &lent)?;
                }
                stream.read_exact(&mut [0])?;
                Ok(())
            })
        });
        let label = count.to_string();
        let place = (label.as_str(), count as f64);
        let all = vec![handles, raw];
        measure.rows.push(context.compare("ipc", place, Better::Higher, all));
    }
    measure
}

/// The shared memory of a message, and whether the sender wants an answer.
pub type Shared = (bool, SharedMemory);

pub fn memory(context: &Context) -> Measure {
    let mut measure = Measure::new(
        "16 MiB of shared memory handed over, and its first page read",
        Unit::Nanoseconds,
        Better::Lower,
    )
    .along("case", Chart::Bars);
    let times = context.pick(500, 2_000);
    for (label, each) in [("answered each time", true), ("one after the other", false)] {
        let all = vec![shared(times, each), any(times, each), mapped(times, each)];
        measure.rows.push(context.compare("ipc", (label, 0.0), Better::Lower, all));
    }
    measure
}

fn shared(times: usize, each: bool) -> Contender<'static> {
    let ours = Remote::start("memory-sink", "").and_then(|mut remote| {
        let channel = remote.channel::<Shared, Ping>(true)?;
        Ok((remote, channel, SharedMemory::with(SHARED, |bytes| bytes.fill(1))?))
    });
    contender(Role::Ours, "brood, shared memory", ours, move |ends| {
        per_each(times, || {
            for left in (0..times).rev() {
                let asks = each || left == 0;
                ends.1.send(&(asks, ends.2.try_clone()?))?;
                if asks {
                    ends.1.recv()?;
                }
            }
            Ok(())
        })
    })
}

fn any(times: usize, each: bool) -> Contender<'static> {
    let ours = Remote::start("handle-sink", "").and_then(|mut remote| {
        let channel = remote.channel::<Passed, Ping>(true)?;
        Ok((remote, channel, OwnedFd::from(UnixStream::pair()?.0)))
    });
    contender(Role::Peer, "brood, any descriptor", ours, move |ends| {
        per_each(times, || {
            for left in (0..times).rev() {
                let asks = each || left == 0;
                let handle = Handle::new(ends.2.try_clone()?);
                ends.1.send(&(asks, vec![handle]))?;
                if asks {
                    ends.1.recv()?;
                }
            }
            Ok(())
        })
    })
}

/// Returns the contender with bare calls: `sendmsg`, `recvmsg`, `mmap`, a page fault, `munmap`.
fn mapped(times: usize, each: bool) -> Contender<'static> {
    let made = Remote::start("raw-memory", "").and_then(|remote| {
        let mut draft = Draft::new("bench", SHARED)?;
        draft.bytes_mut().fill(1);
        Ok((remote, draft.seal()?))
    });
    contender(Role::Peer, "sendmsg, mmap", made, move |(remote, memory)| {
        let mut stream = remote.socket.as_ref().ok_or("taken")?;
        per_each(times, || {
            for left in (0..times).rev() {
                let asks = each || left == 0;
                let own = memory.try_clone()?;
                let bytes = [u8::from(asks)];
                scm::send_blocking(stream.as_fd(), &[IoSlice::new(&bytes)], &[own.as_fd()])?;
                if asks {
                    stream.read_exact(&mut [0])?;
                }
            }
            Ok(())
        })
    })
}
