//! Workers whose start does not end by itself.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use child_process::{Command, Step};
use cluster::{Error, Event, Primary, WorkerOptions};
use nix::mount::{MntFlags, MsFlags, mount};

use crate::harness::{apply, case, role};
use crate::support::{Folder, WAIT_MAX, current_exe};

const SOON: Duration = Duration::from_millis(300);

/// `primary_of_hanging_starts`: a primary whose workers start in a folder that never answers.
#[apply(role)]
fn primary_of_hanging_starts(_: &[String]) {
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    let folder = Folder::new("hanging");
    let Ok(server) = std::fs::File::options().read(true).write(true).open("/dev/fuse") else {
        return println!("SKIPPED: no /dev/fuse");
    };
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let mounted = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, private, none))
        .and_then(|()| {
            let (what, kind) = (Some("dead"), Some("fuse"));
            mount(what, &folder.0, kind, MsFlags::empty(), Some(data.as_str()))
        });
    if let Err(error) = mounted {
        return println!("SKIPPED: no file system of our own: {error}");
    }
    let hanging = WorkerOptions::new().current_dir(folder.0.join("x")).args(["role", "hang"]);
    let builder = Primary::builder().workers(2).worker(hanging).start_within(SOON);
    let primary = builder.build().expect("build");
    let events = primary.take_events().expect("taken once");
    primary.start();
    let begun = Instant::now();
    let failed = primary.ready().expect_err("no worker starts");
    let Error::Fork(failed) = failed else { panic!("{failed:?}") };
    println!("ready: {:?} {}", failed.step(), failed.code());
    assert_eq!((failed.step(), failed.code()), (Some(Step::CurrentDir), "ETIMEDOUT"));
    primary.shutdown();
    let _ = primary.wait();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let forked = events.try_iter().filter(|event| matches!(event, Event::Fork { .. })).count();
    assert_eq!(forked, 0, "a worker that did not start is not reported as one");
    drop(primary);
    let _ = nix::mount::umount2(&folder.0, MntFlags::MNT_DETACH);
    println!("ended");
}

#[apply(case)]
fn a_start_that_hangs_fails_and_the_shutdown_ends() {
    let mut role = Command::new(current_exe());
    role.args(["role", "primary_of_hanging_starts"]).timeout(WAIT_MAX);
    let output = role.output().unwrap_or_else(|failed| panic!("{failed:?}"));
    let said = output.stdout_text().into_owned();
    print!("{said}");
    let done = said.ends_with("ended\n") || said.contains("SKIPPED");
    assert!(done, "{said}{}", output.stderr_text());
}

#[apply(case)]
fn a_start_without_time_is_refused() {
    let error = Primary::builder().start_within(Duration::ZERO).build().expect_err("no time");
    assert_eq!(error.to_string(), "start_within: must be longer than zero");
}
