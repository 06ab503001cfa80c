//! Programs that have closed their standard streams: nothing of ours gets their numbers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use child_process::{Command, Fork, Module, Signal, exec};
use sys::signal::SignalWatch;

use crate::harness::{apply, case, role};
use crate::support::current_exe;
use crate::support::shell::{TestFolder, sh};

#[apply(case)]
fn the_standard_numbers_stay_closed() {
    let folder = TestFolder::new("closed-streams");
    for closed in ["0", "1", "2", "01", "02", "12", "012"] {
        let report = folder.0.join(closed);
        let mut program = Command::new(current_exe());
        program.args(["role", "closes", closed]).arg(&report);
        let status = program.output().unwrap().status;
        let text = fs::read_to_string(&report).unwrap();
        assert!(status.success() && text == "all is well", "{closed}: {status}, {text}");
    }
}

/// Asserts that the numbers are closed still.
fn stay_closed(closed: &str, after: &str, report: &mut File) {
    let open = sys::fd::open_descriptors().unwrap();
    let taken = |number: &i32| *number < 3 && closed.contains(&number.to_string());
    let taken: Vec<i32> = open.into_iter().filter(taken).collect();
    if !taken.is_empty() {
        write!(report, "after {after} the numbers {taken:?} are taken").unwrap();
        std::process::exit(1);
    }
}

/// `closes NUMBERS FILE`: closes standard streams, uses everything that opens descriptors, and
/// reports in the file.
#[apply(role)]
fn closes(args: &[String]) {
    let mut report = File::create(&args[1]).unwrap();
    let closed = args[0].as_str();
    for number in closed.bytes() {
        nix::unistd::close(i32::from(number - b'0')).unwrap();
    }
    let mut stays = |after: &str| stay_closed(closed, after, &mut report);
    let mut cat = Command::new("cat").spawn().unwrap();
    stays("a spawn with pipes");
    let mut input = cat.take_stdin().unwrap();
    input.write_all(b"input").unwrap();
    drop(input);
    let mut text = String::new();
    cat.take_stdout().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "input");
    assert!(cat.wait().unwrap().success());
    drop(cat);
    // The loop starts here.
    let running = exec("cat; echo done").unwrap();
    stays("the loop and an exec");
    assert_eq!(running.wait().unwrap().stdout_text(), "done\n");
    let mut fork = Fork::new(Module::program("/bin/sh"));
    let child = fork.args(["-c", "exec sleep 60"]).spawn().unwrap();
    let events = child.take_events().unwrap();
    stays("a fork");
    child.kill(Signal::KILL).unwrap();
    events.iter().for_each(drop);
    drop(child);
    let output = sh("cat").input(vec![b'x'; 1 << 20]).output().unwrap();
    assert_eq!(output.stdout.len(), 1 << 20);
    stays("an output");
    let memory = sys::memory::create("test", 16).unwrap();
    let watch = SignalWatch::new(&[Signal::USR1]).unwrap();
    let count = sys::eventfd::Semaphore::new().unwrap();
    let gated = sys::nested_epoll::GatedFd::new(count.as_fd()).unwrap();
    let pidfd = sys::pidfd::PidFd::open(std::process::id()).unwrap();
    stays("the other descriptors of the library");
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = sys::socket::listen_tcp(any, 8, false).unwrap();
    stays("a listener");
    let client = TcpStream::connect(sys::socket::local_address(listener.as_fd()).unwrap());
    let client = lifted(client.unwrap());
    assert!(sys::poll::readable(listener.as_fd(), Some(Duration::from_secs(5))).unwrap());
    let accepted = sys::socket::accept(listener.as_fd()).unwrap();
    stays("an accepted connection");
    let (one, other) = sys::socket::pair_stream().unwrap();
    let sent = sys::scm::send(one.as_fd(), &[std::io::IoSlice::new(b"x")], &[client.as_fd()]);
    sent.unwrap();
    let received = received(other.as_fd());
    stays("a received descriptor");
    drop((memory, watch, gated, count, pidfd, accepted, received, client));
    report.write_all(b"all is well").unwrap();
}

/// Returns a duplicate above the standard numbers, which the standard library's socket may have.
fn lifted(socket: TcpStream) -> TcpStream {
    socket.try_clone().unwrap()
}

fn received(socket: std::os::fd::BorrowedFd<'_>) -> Vec<std::os::fd::OwnedFd> {
    let mut buffer = [0; 8];
    let flags = sys::scm::RecvFlags::default();
    sys::scm::recv(socket, &mut buffer, 1, flags).unwrap().fds
}
