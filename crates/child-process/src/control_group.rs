//! The control group of a child: its directory, looked up once, and the files in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use sys::folder::Folder;

use crate::proc_fs;

/// A control group. It stays the same group when another one gets its path: a signal for a group
/// that was removed reaches nobody.
#[derive(Debug)]
pub(crate) struct ControlGroup(Folder);

impl ControlGroup {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        Folder::open(directory).map(Self)
    }

    /// Returns the descriptor by which a process moves itself into the group.
    pub(crate) fn joining(&self) -> io::Result<OwnedFd> {
        self.file("cgroup.procs", true).map(OwnedFd::from)
    }

    /// Returns the processes in the group; none if the group was removed, as it can be when empty.
    pub(crate) fn processes(&self) -> io::Result<Vec<u32>> {
        let mut list = String::new();
        match self.file("cgroup.procs", false).and_then(|mut it| it.read_to_string(&mut list)) {
            Ok(_) => Ok(proc_fs::numbers(&list)),
            Err(error) if is_removed(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Sends `SIGKILL` to every process in the group, where the kernel has that for this hierarchy.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.file("cgroup.kill", true)?.write_all(b"1")
    }

    fn file(&self, name: &str, writes: bool) -> io::Result<File> {
        self.0.open_file(name.as_ref(), writes)
    }
}

fn is_removed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(sys::errno::ENOENT | sys::errno::ENODEV))
}
