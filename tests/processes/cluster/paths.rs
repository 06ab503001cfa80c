//! Socket files in folders of another user, who exchanges what lies there while root binds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{ListenOptions, Listener, Primary, Worker};

use crate::harness::{apply, case, role, storm};
use crate::support::pool::Pool;
use crate::support::{Folder, current_exe, storm_time};

/// A user without privileges.
const NOBODY: u32 = 65_534;

/// The number of files with a bait, and of stale sockets with the same names.
const BAITS: u32 = 4;

/// The fewest sockets that the storm binds.
const BOUND_MIN: u32 = 20;

/// The options of a file that all users may use.
fn open_to_all() -> ListenOptions {
    ListenOptions::new().readable_all(true).writable_all(true)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("ourselves").uid() == 0
}

/// `exchanges FOLDER BAITS`: the owner of the folder exchanges its subfolder `d` and the link `l` to
/// the folder with the baits, and each socket in `d` and a link to a bait, until its input ends.
#[apply(role)]
fn exchanges(args: &[String]) {
    let [folder, baits] = args else { panic!("two arguments") };
    let (folder, baits) = (PathBuf::from(folder), PathBuf::from(baits));
    let (d, l) = (folder.join("d"), folder.join("l"));
    fs::create_dir(&d).expect("a folder");
    symlink(&baits, &l).expect("a link");
    println!("ready");
    thread::spawn(move || {
        loop {
            sys::testing::exchange(&d, &l).expect("both are there");
            (0..200).for_each(|_| std::hint::spin_loop());
        }
    });
    thread::spawn(move || {
        for round in 0.. {
            let link = folder.join("link");
            let _ = symlink(baits.join(bait(round)), &link);
            // Stale sockets, for which the primary looks at the file before it replaces it.
            let place = folder.join("d").join(bait(round));
            drop(UnixListener::bind(&place));
            let entries = fs::read_dir(folder.join("d")).into_iter().flatten().flatten();
            let is_new = |it: &fs::DirEntry| it.file_name().as_encoded_bytes().starts_with(b"s");
            for entry in entries.filter(is_new) {
                if entry.file_type().is_ok_and(|it| it.is_socket()) {
                    let _ = fs::rename(&link, entry.path());
                    break;
                }
            }
        }
    });
    let _ = std::io::stdin().lines().next();
}

fn bait(number: u32) -> String {
    format!("bait{}", number % BAITS)
}

/// `binds_in FOLDER MILLIS`: listens in the subfolder `d`, through the primary and by itself, under
/// new names and at stale files. Sends how often that went well, and the errors.
#[apply(role)]
fn binds_in(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let folder = Path::new(&args[0]).join("d");
    let until = Instant::now() + Duration::from_millis(args[1].parse().expect("a number"));
    let (mut bound, mut errors) = (0_u32, BTreeSet::new());
    for round in 0.. {
        // A busy machine needs longer for an attempt that proves something.
        if Instant::now() >= until && bound >= BOUND_MIN {
            break;
        }
        let name = if round % 4 < 2 { format!("s{round}") } else { bait(round / 4) };
        let options = open_to_all().exclusive(round % 2 == 0);
        match options.listen_unix(folder.join(name)) {
            Ok(listener) => {
                bound += 1;
                drop::<Listener<UnixStream>>(listener);
            }
            Err(error) => _ = errors.insert(error.code().to_owned()),
        }
    }
    worker.send(&(bound, errors)).expect("send");
    worker.draining().wait();
}

/// Returns what another user must not change, for each file of a folder and the folder itself.
fn state(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, u64, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("a folder").map(|it| it.expect("an entry").path());
    let all = entries.chain([folder.to_owned()]);
    let about = |path: PathBuf| {
        let found = fs::symlink_metadata(&path).expect("it stays");
        let content = if found.is_file() { fs::read(&path).expect("read") } else { Vec::new() };
        (path, (found.mode(), found.uid(), found.ino(), found.nlink(), content))
    };
    all.map(about).collect()
}

/// A primary of root binds in a folder whose owner exchanges links and folders all the time. No
/// file outside of that folder changes: no mode, no owner, no content, no file more or less.
#[apply(storm)]
fn the_owner_of_a_folder_leads_a_primary_of_root_to_no_other_folder() {
    if !is_root() {
        return println!("SKIPPED: only root can start another user's process");
    }
    let base = Folder::new("paths");
    let program = base.0.join("processes");
    fs::copy(current_exe(), &program).expect("copied");
    let (theirs, baits) = (base.0.join("theirs"), base.0.join("baits"));
    fs::create_dir(&theirs).expect("a folder");
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("given away");
    fs::create_dir(&baits).expect("a folder");
    for number in 0..BAITS {
        fs::write(baits.join(bait(number)), "secret").expect("written");
        fs::set_permissions(baits.join(bait(number)), Permissions::from_mode(0o600)).expect("set");
    }
    let _service = UnixListener::bind(baits.join("service")).expect("bind");
    let before = state(&baits);

    let mut command = Command::new(&program);
    command.args(["role", "exchanges"]).args([&theirs, &baits]).uid(NOBODY).gid(NOBODY);
    let mut owner = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn");
    let mut ready = String::new();
    let stdout = owner.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut ready).expect("it is ready");

    let time = storm_time(2, 10);
    let builder =
        Primary::builder().workers(1).listens(false).ready_within(Duration::from_millis(20));
    let role = ["binds_in", theirs.to_str().expect("text"), &time.as_millis().to_string()];
    let pool = Pool::of(builder, &role);
    let (bound, errors) = pool.said_by::<(u32, BTreeSet<String>)>(1);
    pool.end();
    owner.kill().expect("it runs");
    owner.wait().expect("reaped");

    println!("{bound} sockets were bound in {time:?}; errors: {errors:?}");
    let after = state(&baits);
    assert_eq!(after, before, "a folder of root has changed");
}

/// `binds_without WHAT FOLDER`: hides `/proc` or refuses `renameat2`, binds sockets in the folder,
/// and prints their names.
#[apply(role)]
fn binds_without(args: &[String]) {
    let [what, folder] = args else { panic!("two arguments") };
    if what == "proc" {
        if let Err(error) = crate::sandbox::hide_proc() {
            return println!("SKIPPED: /proc stays: {error}");
        }
    } else {
        let numbers = [sys::errno::ENOSYS, sys::errno::EPERM, sys::errno::EINVAL];
        let errno = numbers.into_iter().find(|it| sys::errno::name(*it) == what).expect("known");
        sys::testing::refuse(&[sys::testing::RENAMEAT2], errno).expect("a filter");
    }
    let path = Path::new(folder).join("s");
    let listener = open_to_all().listen_unix(&path).expect("listen");
    let about = fs::symlink_metadata(&path).expect("made");
    assert_eq!((about.mode() & 0o666, about.nlink()), (0o666, 1));
    UnixStream::connect(&path).expect("it listens");
    assert_eq!(fs::read_dir(folder).expect("a folder").count(), 1, "nothing else is left");
    drop(listener);
    let socket = ListenOptions::new().bind_datagram::<UnixDatagram>(path.clone()).expect("bind");
    UnixDatagram::unbound().and_then(|it| it.send_to(b"x", &path)).expect("it is bound");
    drop(socket);
    assert_eq!(fs::read_dir(folder).expect("a folder").count(), 0);
    println!("works");
}

/// Sockets are bound where others may write although `/proc` is missing, or a file cannot be renamed
/// without replacing another one.
#[apply(case)]
fn socket_files_need_neither_proc_nor_renameat2() {
    for mode in [0o755, 0o777] {
        let folder = Folder::new("without");
        fs::set_permissions(&folder.0, Permissions::from_mode(mode)).expect("its mode");
        for what in ["proc", "ENOSYS", "EPERM", "EINVAL"] {
            let mut command = Command::new(current_exe());
            let output = command.args(["role", "binds_without", what, folder.path()]).output();
            let output = output.expect("the program runs");
            let said = String::from_utf8_lossy(&output.stdout);
            if said.contains("SKIPPED") {
                println!("{said}");
            } else {
                assert_eq!(said.trim(), "works", "{what} {mode:o}: {output:?}");
            }
        }
    }
}
