//! Workers of another user than the primary: what they may listen on, and who opens it.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use child_process::Signal;
use cluster::{
    Address, AsyncStream, Builder, Error, Event, ListenOptions, ListenPermission, ListenRules,
    Listener, Policy, Primary, Stream, WorkerOptions,
};

use crate::cluster::accepting::{address_of, ask, me};
use crate::harness::{apply, case, role};
use crate::support::pool::Pool;
use crate::support::{Folder, current_exe, udp};

pub(crate) const NOBODY: u32 = 65_534;

/// `ask_for WHAT…`: listens on each of `127.0.0.1:0`, `/a/path`, `@name` and `udp:127.0.0.1:0`, sends
/// the addresses or the codes of the errors, and its number to every client.
#[apply(role)]
fn ask_for(args: &[String]) {
    let worker = me();
    let number = worker.id().get().to_string();
    let mut sockets = Vec::new();
    std::thread::scope(|scope| {
        let serve_tcp = |listener: Listener<TcpStream>| {
            let (address, number) = (listener.address().to_string(), &number);
            scope.spawn(move || serve(&listener, number));
            address
        };
        let serve_unix = |listener: Listener<UnixStream>| {
            let (address, number) = (listener.address().to_string(), &number);
            scope.spawn(move || serve(&listener, number));
            address
        };
        let outcomes = args.iter().map(|text| {
            let options = ListenOptions::new();
            let listened = match text.strip_prefix("udp:") {
                Some(address) => udp::bind(address, &options).map(|socket| {
                    let address = socket.local_addr().expect("bound").to_string();
                    sockets.push(socket);
                    address
                }),
                None => match address_of(text) {
                    address @ Address::Tcp { .. } => options.listen_at(address).map(serve_tcp),
                    address => options.listen_at(address).map(serve_unix),
                },
            };
            listened.unwrap_or_else(|error| error.code().to_owned())
        });
        let outcomes: Vec<String> = outcomes.collect();
        worker.send(&outcomes).expect("send");
        worker.draining().wait();
    });
}

fn serve<S: AsyncStream + Stream + std::io::Write>(listener: &Listener<S>, number: &str) {
    for accepted in listener.incoming() {
        let (mut stream, _peer) = accepted.expect("accept");
        stream.write_all(number.as_bytes()).expect("an answer is short");
    }
}

/// A folder with the program, which every user may run, and a place for sockets of root and one for
/// those of the user `nobody`.
struct Places {
    folder: Folder,
    closed: PathBuf,
    owned: PathBuf,
}

impl Places {
    /// `None` where this process is not root.
    fn new(name: &str) -> Option<Self> {
        if fs::metadata("/proc/self").expect("ourselves").uid() != 0 {
            eprintln!("SKIPPED: only root starts workers of another user");
            return None;
        }
        let folder = Folder::new(name);
        fs::set_permissions(&folder.0, Permissions::from_mode(0o755)).expect("its mode");
        fs::copy(current_exe(), folder.0.join("processes")).expect("copied");
        let (closed, owned) = (folder.0.join("closed"), folder.0.join("owned"));
        for (path, owner) in [(&closed, 0), (&owned, NOBODY)] {
            fs::create_dir(path).expect("a folder");
            fs::set_permissions(path, Permissions::from_mode(0o700)).expect("its mode");
            chown(path, Some(owner), Some(owner)).expect("its owner");
        }
        Some(Self { folder, closed, owned })
    }

    fn builder(&self, workers: u32) -> Builder {
        let program = self.folder.0.join("processes");
        let worker = WorkerOptions::new().exec(program).uid(NOBODY).gid(NOBODY);
        Primary::builder().workers(workers).listens(false).worker(worker)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Returns a port of 127.0.0.1 that only root may have; `None` where all may have it.
fn low_port() -> Option<u16> {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("one");
    let start: u16 = start.trim().parse().expect("a number");
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (600..start).find(free).or_else(|| {
        eprintln!("SKIPPED: a low port, for here every user may have it");
        None
    })
}

fn next_refused(pool: &Pool) -> (u32, String) {
    let is_refusal = |event: &Event| {
        matches!(event, Event::Error { worker: Some(_), error }
            if matches!(**error, Error::NotAllowed { .. }))
    };
    match pool.next("refusal", is_refusal) {
        Event::Error { worker: Some(worker), error } => match &*error {
            Error::NotAllowed { address } => (worker.get(), address.to_string()),
            _ => unreachable!("not asked for"),
        },
        _ => unreachable!("not asked for"),
    }
}

const POLICIES: [Policy; 5] =
    [Policy::RoundRobin, Policy::LeastLoaded, Policy::Sticky, Policy::Shared, Policy::ReusePort];

/// The kernel decides by the user of the workers. A restart and a reload get the same sockets.
#[apply(case)]
fn without_a_list_a_worker_gets_what_its_user_may_have() {
    let Some(places) = Places::new("own-rights") else { return };
    let victim = places.closed.join("service");
    drop(UnixListener::bind(&victim).expect("a service that is down for a moment"));
    let own = places.owned.join("s");
    let name = format!("@brood-rights-{}", std::process::id());
    let low = low_port().map(|port| format!("127.0.0.1:{port}"));
    let refused = [Some(text(&victim)), low.as_deref()].into_iter().flatten();
    let refused: Vec<&str> = refused.collect();
    for policy in POLICIES {
        let mut role = vec!["ask_for"];
        role.extend(&refused);
        role.extend([text(&own), &name, "127.0.0.1:0", "udp:127.0.0.1:0"]);
        let pool = Pool::of(places.builder(2).policy(policy), &role);
        let first: (u32, Vec<String>) = pool.said();
        let second: (u32, Vec<String>) = pool.said();
        assert_eq!(first.1, second.1, "{policy:?}");
        let (codes, addresses) = first.1.split_at(refused.len());
        assert!(codes.iter().all(|code| code == "EACCES"), "{policy:?} {codes:?}");
        assert_eq!(addresses[..2], [text(&own).to_owned(), name.clone()], "{policy:?}");
        assert!(addresses[2].starts_with("127.0.0.1:"), "{policy:?} {addresses:?}");
        for _ in 0..2 * refused.len() {
            let (worker, address) = next_refused(&pool);
            assert!((1..=2).contains(&worker) && refused.contains(&address.as_str()));
        }
        assert!(victim.exists(), "the file of another service stays");
        let about = fs::symlink_metadata(&own).expect("bound");
        assert_eq!((about.uid(), about.gid()), (NOBODY, NOBODY), "{policy:?}");
        let answers = || {
            for address in [&addresses[0], &addresses[1], &addresses[2]] {
                let number = ask(&address_of(address));
                assert!(number.parse::<u32>().is_ok(), "{policy:?} {address} {number:?}");
            }
        };
        answers();
        pool.worker(1).kill(Signal::KILL).expect("kill");
        assert_eq!(pool.said_by::<Vec<String>>(3), first.1, "{policy:?}: restarted");
        answers();
        pool.primary.reload().expect("reloaded");
        for worker in [4, 5] {
            assert_eq!(pool.said_by::<Vec<String>>(worker), first.1, "{policy:?}: reloaded");
        }
        answers();
        pool.end();
        assert!(!own.exists(), "{policy:?}: the file goes with the cluster");
    }
}

/// A user that is named has the rights of its ids in the user database.
#[apply(case)]
fn a_worker_of_a_named_user_gets_what_that_user_may_have() {
    let Some(places) = Places::new("named") else { return };
    let victim = places.closed.join("service");
    drop(UnixListener::bind(&victim).expect("a service that is down for a moment"));
    let program = places.folder.0.join("processes");
    let worker = WorkerOptions::new().exec(program).user("nobody");
    let builder = Primary::builder().workers(1).listens(false).worker(worker);
    let own = places.owned.join("s");
    let pool = Pool::of(builder, &["ask_for", text(&victim), text(&own)]);
    let (_, outcomes): (u32, Vec<String>) = pool.said();
    assert_eq!(outcomes, ["EACCES", text(&own)]);
    assert_eq!(fs::symlink_metadata(&own).expect("bound").uid(), NOBODY);
    pool.end();
}

/// The list names a low port and a folder that the worker cannot enter. Everything else is decided
/// by the kernel, or refused to a worker of the primary's user.
#[apply(case)]
fn the_list_allows_what_the_user_of_a_worker_may_not_have() {
    let Some(places) = Places::new("list") else { return };
    let victim = places.closed.join("service");
    let port = low_port();
    let low = format!("127.0.0.1:{}", port.unwrap_or(0));
    let port = port.unwrap_or(0);
    let rules = || ListenRules::new().ports(port..=port).folder(&places.closed);
    for policy in POLICIES {
        drop(UnixListener::bind(&victim).expect("a stale file of root"));
        let role = ["ask_for", &low, text(&victim), "@brood-not-listed", "udp:127.0.0.1:0"];
        let pool = Pool::of(places.builder(2).policy(policy).may_listen(rules()), &role);
        for _ in 0..2 {
            let (_, outcomes): (u32, Vec<String>) = pool.said();
            assert!(outcomes[0].starts_with("127.0.0.1:"), "{policy:?} {outcomes:?}");
            assert_eq!(outcomes[1], text(&victim), "{policy:?}");
            assert_eq!(outcomes[2], "@brood-not-listed", "{policy:?}: by its own rights");
        }
        assert_eq!(fs::symlink_metadata(&victim).expect("bound").uid(), 0);
        ask(&Address::UnixPath(victim.clone()));
        pool.end();
        assert!(!victim.exists());
    }
}

/// A worker of the primary's own user has the rights of the primary, so the list decides alone.
#[apply(case)]
fn the_list_refuses_to_workers_of_the_same_user_all_else() {
    let Some(places) = Places::new("same-user") else { return };
    let listed = places.closed.join("service");
    let inner = places.closed.join("..").join("owned").join("s");
    let role = ["ask_for", "@brood-not-listed", text(&listed), text(&inner)];
    let options = WorkerOptions::new;
    for same_user in
        [options(), options().uid(0).gid(0), options().gid(NOBODY), options().user("root")]
    {
        let builder = Primary::builder().workers(1).listens(false).worker(same_user);
        let rules = ListenRules::new().folder(&places.closed);
        let pool = Pool::of(builder.may_listen(rules), &role);
        let (_, outcomes): (u32, Vec<String>) = pool.said();
        assert_eq!(outcomes, ["EACCES", text(&listed), "EACCES"]);
        pool.end();
    }
}

/// The function is asked with the worker and the address, and answers in one of three ways.
#[apply(case)]
fn a_function_decides_about_each_address() {
    let Some(places) = Places::new("function") else { return };
    let (victim, own) = (places.closed.join("s"), places.owned.join("s"));
    let granted = victim.clone();
    let builder = places.builder(2).may_listen_fn(move |worker, address| match address {
        Address::UnixPath(path) if *path == granted => ListenPermission::Granted,
        Address::UnixPath(_) => ListenPermission::OwnRights,
        Address::UnixAbstract(_) if worker.get() == 1 => panic!("this refuses"),
        _ => ListenPermission::Refused,
    });
    let role = ["ask_for", text(&victim), text(&own), "127.0.0.1:0", "@brood-panics"];
    let pool = Pool::of(builder, &role);
    for _ in 0..2 {
        let (_, outcomes): (u32, Vec<String>) = pool.said();
        assert_eq!(outcomes, [text(&victim), text(&own), "EACCES", "EACCES"]);
    }
    let owners = [&victim, &own].map(|path| fs::symlink_metadata(path).expect("bound").uid());
    assert_eq!(owners, [0, NOBODY]);
    pool.end();
}

/// `listen_until_refused`: worker 1 opens listeners until one fails, and sends their number and the
/// error. Every worker serves the first port.
#[apply(role)]
fn listen_until_refused(_args: &[String]) {
    let worker = me();
    let first = cluster::listen("127.0.0.1:0").expect("listen");
    let mut kept = Vec::new();
    if worker.id().get() == 1 {
        let error = loop {
            match cluster::listen("127.0.0.1:0") {
                Ok(listener) => kept.push(listener),
                Err(error) => break error,
            }
        };
        worker.send(&(kept.len() + 1, error.code())).expect("send");
    }
    serve(&first, &worker.id().get().to_string());
}

fn error_of(pool: &Pool, wanted: fn(&Error) -> bool) -> u32 {
    let is_wanted =
        |event: &Event| matches!(event, Event::Error { worker: Some(_), error } if wanted(error));
    match pool.next("error", is_wanted) {
        Event::Error { worker: Some(worker), .. } => worker.get(),
        _ => unreachable!("not asked for"),
    }
}

#[apply(case)]
fn a_worker_has_at_most_64_listeners_by_default() {
    let pool = Pool::start(2, &["listen_until_refused"]);
    assert_eq!(pool.said_by::<(usize, String)>(1), (64, "EMFILE".to_owned()));
    let of = error_of(&pool, |error| matches!(error, Error::TooManyListeners { max: 64, .. }));
    assert_eq!(of, 1);
    pool.end();
}

/// The listeners of one worker do not take the descriptors that the restart of another needs.
#[apply(case)]
fn a_primary_without_descriptors_for_listeners_still_restarts_workers() {
    sys::rlimit::set_descriptors(200).expect("lower");
    let builder = Primary::builder().workers(3).listens(false).raise_descriptors(false);
    let pool = Pool::of(builder.listens_max(100_000), &["listen_until_refused"]);
    let (count, code): (usize, String) = pool.said_by(1);
    println!("{count} listeners, then {code}");
    assert!(code == "EMFILE" && (20..200).contains(&count), "{count} {code}");
    let out_of_descriptors =
        |error: &Error| matches!(error, Error::Listen { .. }) && error.code() == "EMFILE";
    assert_eq!(error_of(&pool, out_of_descriptors), 1, "the event names the worker");
    let (_, address) = pool.listening();
    let comes_up = |id: u32| {
        let is_up = |event: &Event| matches!(event, Event::Listening { worker, .. } if worker.id().get() == id);
        pool.next("worker that listens", is_up);
        assert!(ask(&address).parse::<u32>().is_ok(), "worker {id}");
    };
    // No worker has left a descriptor for this one.
    pool.primary.scale(4).expect("a number of workers");
    comes_up(4);
    for successor in 5..10 {
        pool.worker(successor - 1).kill(Signal::KILL).expect("kill");
        comes_up(successor);
    }
    pool.end();
}
