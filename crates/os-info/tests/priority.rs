//! Tests of priorities. Copies of this program run the tests that change a process.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use brood_os_info::{Error, constants::priority, get_priority, set_priority};

const ROLE: &str = "OS_INFO_TEST_ROLE";

/// Runs the test `name` in another process, as user `uid` if given. Returns whether it passed, or
/// `None` where the user cannot run it.
fn run_in_process(name: &str, uid: Option<u32>) -> Option<bool> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(ROLE, name);
    if let Some(uid) = uid {
        command.uid(uid);
    }
    match command.status() {
        Ok(status) => Some(status.success()),
        Err(error) => {
            println!("SKIPPED: another user cannot run this here: {error}");
            None
        }
    }
}

fn is_role() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Returns the priority of each thread of this process.
fn priorities() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread that has ended in between has no file any more.
    let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
    // The priority is field 19. Fields are counted from behind the name, field 2, which may contain
    // blanks.
    let field = |stat: String| {
        let after = stat.rsplit_once(')').unwrap().1.to_owned();
        after.split_ascii_whitespace().nth(16).unwrap().to_owned()
    };
    stats.map(field).collect()
}

#[test]
fn a_priority_out_of_range_is_refused_before_any_call() {
    for value in [-21, 20, i32::MIN, i32::MAX] {
        let error = set_priority(0, value).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { value: reported, .. } if reported == value));
        assert_eq!((error.code(), error.call()), ("ERR_OUT_OF_RANGE", "setpriority"));
        assert!(error.to_string().contains("from -20 to 19"));
    }
}

#[test]
fn a_missing_process_is_reported_with_errno_and_call() {
    for missing in [i32::MAX as u32, u32::MAX] {
        for (error, call) in [
            (get_priority(missing).unwrap_err(), "getpriority"),
            (set_priority(missing, 0).unwrap_err(), "setpriority"),
        ] {
            assert_eq!((error.code(), error.call(), error.errno()), ("ESRCH", call, Some(3)));
            assert_eq!(error.to_string(), format!("{call} failed"));
        }
    }
}

#[test]
fn every_thread_gets_the_priority() {
    if !is_role() {
        assert_eq!(run_in_process("every_thread_gets_the_priority", None), Some(true));
        return;
    }
    let (ready, started) = mpsc::channel();
    let threads: Vec<_> = std::iter::repeat_with(|| {
        let (ready, (done, held)) = (ready.clone(), mpsc::channel::<()>());
        let thread = thread::spawn(move || {
            ready.send(()).unwrap();
            let _ = held.recv();
        });
        (done, thread)
    })
    .take(3)
    .collect();
    for _ in &threads {
        started.recv().unwrap();
    }
    set_priority(0, priority::BELOW_NORMAL).unwrap();
    assert_eq!(get_priority(0).unwrap(), 10);
    assert!(priorities().iter().all(|priority| priority == "10"), "{:?}", priorities());
    for (done, thread) in threads {
        drop(done);
        thread.join().unwrap();
    }
}

#[test]
fn threads_that_come_and_go_meanwhile_get_the_priority() {
    const NAME: &str = "threads_that_come_and_go_meanwhile_get_the_priority";
    if !is_role() {
        assert_eq!(run_in_process(NAME, None), Some(true));
        return;
    }
    /// Starts a thread that starts the next one and ends, until `stay` is set.
    fn chain(stay: Arc<Mutex<bool>>, stays: mpsc::Sender<()>, held: Arc<Mutex<()>>) {
        thread::spawn(move || {
            if *stay.lock().unwrap() {
                stays.send(()).unwrap();
                drop(held.lock());
            } else {
                chain(stay, stays, held);
            }
        });
    }
    let (stay, held) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(())));
    let (stays, staying) = mpsc::channel();
    for _ in 0..4 {
        chain(stay.clone(), stays.clone(), held.clone());
    }
    set_priority(0, priority::BELOW_NORMAL).unwrap();
    let hold = held.lock().unwrap();
    *stay.lock().unwrap() = true;
    for _ in 0..4 {
        staying.recv().unwrap();
    }
    let priorities = priorities();
    assert!(priorities.len() >= 5, "{priorities:?}");
    assert!(priorities.iter().all(|priority| priority == "10"), "{priorities:?}");
    drop(hold);
}

#[test]
fn a_foreign_process_and_more_than_allowed_are_refused() {
    if !is_role() {
        let nobody = (brood_os_info::user_info().unwrap().uid == 0).then_some(65534);
        let done = run_in_process("a_foreign_process_and_more_than_allowed_are_refused", nobody);
        assert_ne!(done, Some(false));
        return;
    }
    let foreign = set_priority(1, 5).unwrap_err();
    assert_eq!(
        (foreign.code(), foreign.call(), foreign.errno()),
        ("EPERM", "setpriority", Some(1))
    );
    let more = set_priority(0, priority::HIGHEST).unwrap_err();
    assert_eq!((more.code(), more.call(), more.errno()), ("EACCES", "setpriority", Some(13)));
}
