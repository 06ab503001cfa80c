//! The release that workers run: the names by which this program and its working directory were
//! started, and what lies there when a worker is started.
//!
//! A release is put in place by a new file under the same name, by a symbolic link that points
//! somewhere else, or by another directory at the same path. Therefore the names are kept as they
//! were given, with their symbolic links, and resolved for each worker.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mark that the kernel adds to the path of an executable that was removed.
const DELETED: &[u8] = b" (deleted)";

/// A file by its identity.
type Inode = (u64, u64);

/// The working directory of this process, as its path was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkingDirectory {
    path: PathBuf,
    inode: Inode,
}

impl WorkingDirectory {
    /// Returns the directory of this process; `None` if it has no path.
    pub(crate) fn of_this_process() -> Option<Self> {
        let inode = inode(Path::new("."))?;
        let given = std::env::var_os("PWD").map(PathBuf::from);
        let given = given.filter(|it| it.is_absolute() && self::inode(it) == Some(inode));
        let path = given.or_else(|| std::env::current_dir().ok())?;
        Some(Self { path, inode })
    }

    /// Returns the directory for a new worker if it is not that of this process: another one lies at
    /// the path. With `must_exist` it is also returned when none lies there, so that the start
    /// fails. A program that has changed its directory since has named another one.
    pub(crate) fn replaced(&self, must_exist: bool) -> Option<&Path> {
        if inode(Path::new(".")) != Some(self.inode) {
            return None;
        }
        let moved = match inode(&self.path) {
            Some(there) => there != self.inode,
            None => must_exist,
        };
        moved.then_some(&self.path)
    }
}

/// Returns the path by which this program was started, or the one that the kernel knows.
pub(crate) fn own_program(directory: Option<&WorkingDirectory>) -> Option<PathBuf> {
    let running = inode(Path::new("/proc/self/exe"));
    let argv0 = std::env::args_os().next().unwrap_or_default();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let base = directory.map_or(Path::new("/"), |directory| &directory.path);
    let named = candidates(&argv0, &search, base);
    // `argv[0]` is only a text: it counts if it leads to the file that runs.
    let named = named.into_iter().find(|it| running.is_some() && inode(it) == running);
    named.or_else(|| std::env::current_exe().ok().map(without_mark))
}

/// Returns the paths that `argv0` may stand for, as a shell resolves it.
fn candidates(argv0: &OsStr, search: &OsStr, base: &Path) -> Vec<PathBuf> {
    if argv0.is_empty() {
        return Vec::new();
    }
    if argv0.as_bytes().contains(&b'/') {
        return vec![base.join(argv0)];
    }
    std::env::split_paths(search).map(|folder| base.join(folder).join(argv0)).collect()
}

/// Removes the mark of a removed file, unless a file has that name.
fn without_mark(path: PathBuf) -> PathBuf {
    if path.exists() {
        return path;
    }
    let mut bytes = path.into_os_string().into_vec();
    if bytes.ends_with(DELETED) {
        bytes.truncate(bytes.len() - DELETED.len());
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_by_a_path_or_by_the_search_path() {
        let all = |argv0: &str| {
            candidates(argv0.as_ref(), "/usr/bin:bin:".as_ref(), "/srv/current".as_ref())
        };
        assert_eq!(all("/opt/app"), [PathBuf::from("/opt/app")]);
        assert_eq!(all("./app"), [PathBuf::from("/srv/current/./app")]);
        assert_eq!(all("bin/app"), [PathBuf::from("/srv/current/bin/app")]);
        let searched = ["/usr/bin/app", "/srv/current/bin/app", "/srv/current/app"];
        assert_eq!(all("app"), searched.map(PathBuf::from));
        assert!(all("").is_empty());
    }

    #[test]
    fn the_mark_of_a_removed_file_is_no_part_of_its_name() {
        let gone = without_mark("/nonexistent/app (deleted)".into());
        assert_eq!(gone, Path::new("/nonexistent/app"));
        assert_eq!(without_mark("/nonexistent/app".into()), Path::new("/nonexistent/app"));
        assert_eq!(own_program(None).and_then(|it| inode(&it)), inode("/proc/self/exe".as_ref()));
    }

    #[test]
    fn a_directory_that_stays_in_place_is_inherited() {
        let own = WorkingDirectory::of_this_process().expect("it exists");
        assert_eq!(own.replaced(true), None);
        let path = own.path.join("nonexistent");
        let gone = WorkingDirectory { path: path.clone(), ..own.clone() };
        assert_eq!((gone.replaced(true), gone.replaced(false)), (Some(&*path), None));
        let other = WorkingDirectory { path: "/".into(), ..own.clone() };
        assert_eq!(other.replaced(false), Some(Path::new("/")));
        // The program has changed its directory since.
        let left = WorkingDirectory { inode: (0, 0), ..other };
        assert_eq!(left.replaced(true), None);
    }
}
