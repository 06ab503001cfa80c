//! Releases: a reload starts the program that lies at the path by which the primary was started, in
//! whatever way it was put there, and fails when none lies there.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use child_process::{Command, Signal};
use cluster::{Error, Event, Primary, Worker, WorkerOptions};

use crate::harness::{apply, case, role};
use crate::support::node::node;
use crate::support::node_cluster::Cluster;
use crate::support::pool::Pool;
use crate::support::{Folder, current_exe};

/// The ways to put a release in place, with the path by which the program is started. The folder
/// has the releases in `1/program` and `2/program`.
const WAYS: [(&str, &str); 7] = [
    ("the file is renamed over the old one", "1/program"),
    ("the file is removed and made anew", "1/program"),
    ("the link to the file is switched", "link"),
    ("the link to the folder is switched", "current/program"),
    ("the folder is replaced", "1/program"),
    ("the working directory is replaced", "./program"),
    ("the link in the search path is switched", "program"),
];

/// Puts the second release in place. A new link is renamed over the old one.
fn deploy(way: &str, folder: &Path) {
    let at = |name: &str| folder.join(name);
    let switch = |link: &str, to: &str| {
        symlink(to, at("next")).expect("linked");
        fs::rename(at("next"), at(link)).expect("renamed");
    };
    match way {
        "the file is renamed over the old one" => {
            fs::rename(at("2/program"), at("1/program")).expect("renamed");
        }
        "the file is removed and made anew" => {
            fs::remove_file(at("1/program")).expect("removed");
            fs::hard_link(at("2/program"), at("1/program")).expect("linked");
        }
        "the link to the file is switched" => switch("link", "2/program"),
        "the link to the folder is switched" => switch("current", "2"),
        "the folder is replaced" | "the working directory is replaced" => {
            fs::rename(at("1"), at("old")).expect("renamed");
            fs::rename(at("2"), at("1")).expect("renamed");
        }
        "the link in the search path is switched" => switch("bin/program", "../2/program"),
        other => panic!("no way {other:?}"),
    }
}

/// Takes everything away that lies at the path of the program.
fn withdraw(way: &str, folder: &Path) {
    let gone = match way {
        "the link to the file is switched" => "link",
        "the link to the folder is switched" => "current",
        "the link in the search path is switched" => "bin/program",
        "the working directory is replaced" => "1",
        _ => "1/program",
    };
    fs::rename(folder.join(gone), folder.join("gone")).expect("renamed");
}

/// `releases WAY FOLDER`: puts a release in place in this WAY, and takes it away again; reloads each
/// time. A worker sends the file that it runs.
#[apply(role)]
fn releases(args: &[String]) {
    let program = || fs::metadata("/proc/self/exe").expect("a program").ino();
    if let Some(worker) = Worker::current() {
        worker.send(&program()).expect("send");
        return worker.draining().wait();
    }
    let (way, folder) = (args[0].as_str(), Path::new(&args[1]));
    let of = |path: &str| fs::metadata(folder.join(path)).expect("a file").ino();
    let (old, new) = (of("1/program"), of("2/program"));
    assert!(program() == old && old != new);
    let pool = Pool::of(Primary::builder().workers(1).listens(false), &["releases", way]);
    assert_eq!(pool.said::<u64>(), (1, old), "{way}");
    deploy(way, folder);
    pool.primary.reload().expect("reload");
    assert_eq!(pool.said::<u64>(), (2, new), "{way}");
    withdraw(way, folder);
    let error = pool.primary.reload().expect_err("nothing lies there");
    assert!(matches!(error, Error::Fork(_)), "{way}: {error:?}");
    assert_eq!(error.code(), "ENOENT", "{way}: {error:?}");
    // The worker was kept, and its successor after a crash runs the file of the primary.
    pool.worker(2).kill(Signal::KILL).expect("kill");
    assert_eq!(pool.said::<u64>().1, old, "{way}");
    pool.primary.shutdown();
    pool.primary.wait().expect("ended without a failure");
}

#[apply(case)]
fn a_reload_starts_what_lies_at_the_path_by_then_or_fails() {
    let folder = Folder::new("releases");
    for name in ["old", "new"] {
        fs::copy(current_exe(), folder.0.join(name)).expect("copied");
    }
    for (number, (way, path)) in WAYS.into_iter().enumerate() {
        let here = folder.0.join(format!("way {number}"));
        for (release, file) in [("1", "old"), ("2", "new")] {
            fs::create_dir_all(here.join(release)).expect("a folder");
            fs::hard_link(folder.0.join(file), here.join(release).join("program")).expect("linked");
        }
        symlink("1/program", here.join("link")).expect("linked");
        symlink("1", here.join("current")).expect("linked");
        fs::create_dir(here.join("bin")).expect("a folder");
        symlink("../1/program", here.join("bin/program")).expect("linked");
        let program = match path {
            "./program" | "program" => PathBuf::from(path),
            path => here.join(path),
        };
        let mut command = Command::new(program);
        if path == "./program" {
            command.current_dir(here.join("1")).env("PWD", here.join("1"));
        } else if path == "program" {
            let search = std::env::var("PATH").expect("a search path");
            command.env("PATH", format!("{}:{search}", here.join("bin").display()));
        }
        let args = ["role".as_ref(), "releases".as_ref(), way.as_ref(), here.as_os_str()];
        let ended = command.args(args).output().map_err(|error| error.to_string());
        let ended = ended.unwrap_or_else(|error| panic!("{way}: {error}"));
        println!("{way}: {}", String::from_utf8_lossy(&ended.stdout).trim_end());
    }
}

/// `node_releases FOLDER`: runs the script `app.js` of its working directory, which is replaced.
#[apply(role)]
fn node_releases(args: &[String]) {
    let folder = Path::new(&args[0]);
    let Some(node) = node() else { return };
    let worker = WorkerOptions::new().exec("app.js").exec_path(node);
    let cluster = Cluster::start(Primary::builder().workers(1).worker(worker).listens(false));
    let said = || {
        cluster.find(|event| match event {
            Event::Message { message, .. } => Some(message.decode::<String>().expect("text")),
            _ => None,
        })
    };
    let place = folder.join("app").display().to_string();
    assert_eq!(said(), format!("1 {place} {place}"));
    fs::rename(folder.join("app"), folder.join("old")).expect("renamed");
    fs::rename(folder.join("new"), folder.join("app")).expect("renamed");
    cluster.primary.reload().expect("reload");
    assert_eq!(said(), format!("2 {place} {place}"));
    fs::remove_file(folder.join("app/app.js")).expect("removed");
    let error = cluster.primary.reload().expect_err("no script lies there");
    assert!(error.to_string().contains("Cannot find module"), "{error}");
    cluster.primary.shutdown();
    cluster.primary.wait().expect("ended without a failure");
}

#[apply(case)]
fn a_script_is_the_one_of_the_directory_that_lies_at_the_path() {
    if node().is_none() {
        return;
    }
    let folder = Folder::new("node-releases");
    for (name, number) in [("app", 1), ("new", 2)] {
        fs::create_dir(folder.0.join(name)).expect("a folder");
        let script = format!(
            "process.send('{number} ' + __dirname + ' ' + process.cwd());\n\
             process.on('disconnect', () => process.exit());\n"
        );
        fs::write(folder.0.join(name).join("app.js"), script).expect("written");
    }
    let mut command = Command::new(current_exe());
    command.current_dir(folder.0.join("app")).env("PWD", folder.0.join("app"));
    let ended = command.args(["role", "node_releases", folder.path()]).output();
    ended.unwrap_or_else(|error| panic!("{error}"));
}
