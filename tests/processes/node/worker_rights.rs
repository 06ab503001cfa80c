//! Node workers of another user than the primary: what they may listen on.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};

use child_process::Signal;
use cluster::{Builder, Error, Event, ListenRules, Policy, WorkerOptions};
use serde_json::Value;

use crate::harness::{apply, case};
use crate::support::node_cluster::{Cluster, answer, application};
use crate::support::{Folder, WAIT_MAX};

const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    let is_root = fs::metadata("/proc/self").expect("ourselves").uid() == 0;
    if !is_root {
        eprintln!("SKIPPED: only root starts workers of another user");
    }
    is_root
}

fn as_nobody(builder: Builder) -> Builder {
    builder.worker(WorkerOptions::new().uid(NOBODY).gid(NOBODY))
}

/// Starts one worker; returns the worker's error and whether the primary reports that the worker
/// may not listen.
fn refused(builder: Builder) -> (Value, bool) {
    let primary = builder.workers(1).build().expect("build");
    let events = primary.take_events().expect("taken once");
    primary.start();
    let (mut seen, mut is_reported) = (None, false);
    while seen.is_none() {
        match events.recv_timeout(WAIT_MAX).expect("the worker reports its error") {
            Event::Message { message, .. } => seen = message.decode::<Value>().ok(),
            Event::Error { error, .. } => {
                is_reported |= matches!(*error, Error::NotAllowed { .. });
            }
            _ => {}
        }
    }
    primary.shutdown();
    // A first start that was refused has failed.
    let _ = primary.wait();
    (seen.expect("just received")["error"].take(), is_reported)
}

/// The folder of the socket belongs to the user of the workers, or to root.
#[apply(case)]
fn a_node_worker_gets_the_socket_paths_of_its_user() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("node-rights");
    fs::set_permissions(&folder.0, Permissions::from_mode(0o755)).expect("its mode");
    let (closed, owned) = (folder.0.join("closed"), folder.0.join("owned"));
    for (path, owner) in [(&closed, 0), (&owned, NOBODY)] {
        fs::create_dir(path).expect("a folder");
        fs::set_permissions(path, Permissions::from_mode(0o700)).expect("its mode");
        chown(path, Some(owner), Some(owner)).expect("its owner");
    }
    let victim = closed.join("service");
    drop(UnixListener::bind(&victim).expect("a service that is down for a moment"));
    for policy in [Policy::RoundRobin, Policy::Shared, Policy::ReusePort] {
        let path = victim.to_str().expect("text");
        let Some(builder) = application("cluster_net.js", &[path]) else { return };
        let refusal = refused(as_nobody(builder).policy(policy));
        assert_eq!(refusal, (Value::from("EACCES"), true), "{policy:?}");
        assert!(victim.exists(), "the file of another service stays");
        let path = owned.join("s");
        let text = path.to_str().expect("text");
        let builder = application("cluster_net.js", &[text, "all"]).expect("Node is installed");
        let cluster = Cluster::start(as_nobody(builder).policy(policy).workers(2));
        let about = fs::symlink_metadata(&path).expect("bound");
        assert_eq!((about.uid(), about.mode() & 0o666), (NOBODY, 0o666), "{policy:?}");
        let ask = || {
            let mut line = String::new();
            let stream = UnixStream::connect(&path).expect("connect");
            BufReader::new(stream).read_line(&mut line).expect("an answer");
            line.trim().parse::<u32>().expect("a number")
        };
        ask();
        cluster.worker(1).kill(Signal::KILL).expect("kill");
        cluster.wait_for_workers(2);
        assert_ne!(ask(), 1);
        cluster.primary.reload().expect("reloaded");
        ask();
        cluster.end();
        assert!(!path.exists(), "{policy:?}");
    }
}

/// `{ fd }` reaches a descriptor that the builder or the list names, and no other of the primary.
#[apply(case)]
fn a_node_worker_of_another_user_names_only_descriptors_that_it_was_given() {
    if !is_root() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    // As if the primary had been started with it.
    sys::fd::set_close_on_exec(listener.as_fd(), false).expect("inheritable");
    let number = sys::fd::number(listener.as_fd());
    let text = number.to_string();
    let Some(builder) = application("cluster_fd.js", &[&text]) else { return };
    assert_eq!(refused(as_nobody(builder.clone())), (Value::from("EACCES"), true));
    let other = ListenRules::new().descriptor(number + 1);
    let by_another_rule = as_nobody(builder.clone()).may_listen(other);
    assert_eq!(refused(by_another_rule), (Value::from("EACCES"), true));
    let rules = ListenRules::new().descriptor(number);
    let named = as_nobody(builder.clone()).may_listen(rules);
    let cluster = Cluster::start(named.workers(1));
    answer(address);
    cluster.end();
    let copy = listener.try_clone().expect("a copy");
    let text = sys::fd::number(copy.as_fd()).to_string();
    let given = as_nobody(builder).worker(WorkerOptions::new().args([text.as_str()]));
    let cluster = Cluster::start(given.socket("web", copy).workers(1));
    answer(address);
    cluster.end();
}
