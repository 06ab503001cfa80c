//! Folders: looked up once, then named by their descriptor.
//!
//! A program that looks up a path twice may find two different files, if another user can rename
//! what lies on the way. A [`Folder`] is the result of one lookup. All further steps name an entry
//! of that folder, so that nobody can lead them somewhere else.
//!
//! The lookup follows the symbolic links of root and of the caller's own effective user. A link of
//! another user is followed only to a folder of that user: it cannot lead a privileged process to
//! a place that its owner has no right to.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::fd::above_standard;

/// The most symbolic links that one lookup follows, as in the kernel.
const LINKS_MAX: u32 = 40;

/// The identity of a file: device and inode.
pub type FileId = (u64, u64);

/// A folder that was looked up once. It stays the same folder, whatever is renamed or removed.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    is_private: bool,
    is_sticky: bool,
}

impl Folder {
    /// Looks up a folder. A relative path starts at the working directory.
    ///
    /// # Errors
    ///
    /// `ELOOP` when a symbolic link of another user leads to a folder that is not that user's, and
    /// after 40 links; the errors of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Walk::new(path)?.run()?)
    }

    /// Wraps a folder that another process opened. Others are taken to be able to write to it.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` when the descriptor is no folder; the errors of `fstat(2)`.
    pub fn from_descriptor(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        if kind(&stat) != SFlag::S_IFDIR {
            return Err(Errno::ENOTDIR.into());
        }
        Ok(Self { fd, is_private: false, is_sticky: is_sticky(&stat) })
    }

    /// Returns whether only root and this process's effective user can change what the path of the
    /// folder leads to, and the files of that user in the folder.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// Returns the identity of the folder.
    ///
    /// # Errors
    ///
    /// As `fstat(2)`.
    pub fn id(&self) -> io::Result<FileId> {
        Ok(id(&fstat(&self.fd)?))
    }

    /// Returns the identity of an entry. A symbolic link is not followed.
    ///
    /// # Errors
    ///
    /// As `fstatat(2)`.
    pub fn id_of(&self, name: &OsStr) -> io::Result<FileId> {
        Ok(id(&self.stat(name)?))
    }

    /// Opens an existing file for reading or for writing. A symbolic link is not followed, and the
    /// call never waits for another process.
    ///
    /// # Errors
    ///
    /// `ELOOP` for a symbolic link; the other errors of `openat(2)`.
    pub fn open_file(&self, name: &OsStr, writes: bool) -> io::Result<File> {
        let access = if writes { OFlag::O_WRONLY } else { OFlag::O_RDONLY };
        let never = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&self.fd, name, access | never, Mode::empty())?;
        Ok(above_standard(file).into())
    }

    /// Removes the file `name` if it is still the one with this identity, and returns whether.
    ///
    /// Another user who may write to the folder can exchange the file between the check and the
    /// removal, but only for a file of this folder, which that user could remove as well.
    ///
    /// # Errors
    ///
    /// As `unlinkat(2)`.
    pub fn remove(&self, name: &OsStr, file: FileId) -> io::Result<bool> {
        match self.id_of(name) {
            Ok(found) if found == file => unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?,
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Opens an entry without access to its content. A symbolic link is opened, not followed.
    pub(crate) fn entry(&self, name: &OsStr) -> io::Result<(OwnedFd, FileStat)> {
        let fd = open_at(self.fd.as_fd(), name, OFlag::O_NOFOLLOW)?;
        let stat = fstat(&fd)?;
        Ok((fd, stat))
    }

    /// Returns the attributes of an entry. A symbolic link is not followed.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Returns whether only its owner may remove a file of the folder.
    pub(crate) fn is_sticky(&self) -> bool {
        self.is_sticky
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns a path to the object of a descriptor, for calls that take no descriptor; `None` where
/// `/proc` is not mounted.
#[must_use]
pub fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let own = open_at(AT_FDCWD, OsStr::new("/proc/self/fd"), OFlag::O_DIRECTORY).ok()?;
    is_proc(own.as_fd()).then(|| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())))
}

pub(crate) fn id(stat: &FileStat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn is_sticky(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_ISVTX != 0
}

/// Returns whether this user's files are safe from others: root, or the caller's own.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

fn is_proc(fd: BorrowedFd<'_>) -> bool {
    fstatfs(fd).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

fn open_at(folder: BorrowedFd<'_>, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_PATH | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::empty()).map(above_standard)
}

/// A lookup under way.
struct Walk {
    at: OwnedFd,
    /// The names that are still to be looked up, the next one last.
    rest: Vec<OsString>,
    is_private: bool,
    links: u32,
    /// The owner of the links that are not trusted.
    leader: Option<u32>,
}

impl Walk {
    fn new(path: &Path) -> nix::Result<Self> {
        let start = if path.is_absolute() { "/" } else { "." };
        let at = open_at(AT_FDCWD, OsStr::new(start), OFlag::O_DIRECTORY)?;
        let mut walk = Self { at, rest: Vec::new(), is_private: true, links: 0, leader: None };
        walk.judge(&fstat(&walk.at)?);
        walk.push(path.as_os_str());
        Ok(walk)
    }

    fn run(mut self) -> nix::Result<Folder> {
        while let Some(name) = self.rest.pop() {
            // With O_DIRECTORY the kernel mounts what it mounts on demand.
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            match open_at(self.at.as_fd(), &name, flags) {
                Ok(next) => self.enter(next)?,
                Err(Errno::ENOTDIR | Errno::ELOOP) => self.follow(&name)?,
                Err(error) => return Err(error),
            }
        }
        let stat = fstat(&self.at)?;
        if self.leader.is_some_and(|leader| leader != stat.st_uid) {
            return Err(Errno::ELOOP);
        }
        Ok(Folder { is_sticky: is_sticky(&stat), fd: self.at, is_private: self.is_private })
    }

    fn push(&mut self, path: &OsStr) {
        let names = path.as_bytes().split(|byte| *byte == b'/');
        let names = names.filter(|name| !name.is_empty() && *name != b".");
        let first = self.rest.len();
        self.rest.extend(names.map(|name| OsStr::from_bytes(name).to_owned()));
        self.rest[first..].reverse();
    }

    fn enter(&mut self, next: OwnedFd) -> nix::Result<()> {
        self.judge(&fstat(&next)?);
        self.at = next;
        Ok(())
    }

    /// Notes whether others can exchange what lies in this folder.
    fn judge(&mut self, folder: &FileStat) {
        let others_write = folder.st_mode & 0o022 != 0 && !is_sticky(folder);
        self.is_private &= is_trusted(folder.st_uid) && !others_write;
    }

    fn follow(&mut self, name: &OsStr) -> nix::Result<()> {
        let link = open_at(self.at.as_fd(), name, OFlag::O_NOFOLLOW)?;
        let stat = fstat(&link)?;
        if kind(&stat) != SFlag::S_IFLNK {
            return Err(Errno::ENOTDIR);
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::ELOOP);
        }
        // The owner of a folder may have a second name of a link there that is not his.
        let is_trusted = is_trusted(stat.st_uid) && (self.is_private || stat.st_nlink == 1);
        if is_proc(self.at.as_fd()) {
            // The links of /proc lead to an object, not to a path. The folder with the link belongs
            // to one process, so the name cannot mean another one meanwhile.
            if !is_trusted {
                return Err(Errno::ELOOP);
            }
            return self.enter(open_at(self.at.as_fd(), name, OFlag::O_DIRECTORY)?);
        }
        if !is_trusted {
            self.is_private = false;
            if *self.leader.get_or_insert(stat.st_uid) != stat.st_uid {
                return Err(Errno::ELOOP);
            }
        }
        let target = readlinkat(&link, "")?;
        if target.as_bytes().first() == Some(&b'/') {
            self.enter(open_at(AT_FDCWD, OsStr::new("/"), OFlag::O_DIRECTORY)?)?;
        }
        self.push(&target);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("brood-folder-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    fn open_id(path: &Path) -> Result<FileId, Option<i32>> {
        Folder::open(path).and_then(|it| it.id()).map_err(|error| error.raw_os_error())
    }

    #[test]
    fn a_lookup_finds_the_folder_that_the_kernel_finds() {
        let base = temporary("walk");
        fs::create_dir_all(base.join("a/b")).unwrap();
        fs::write(base.join("file"), "").unwrap();
        symlink("a/b", base.join("relative")).unwrap();
        symlink(base.join("a/../relative"), base.join("a/absolute")).unwrap();
        symlink("round", base.join("round")).unwrap();
        for path in ["a", "a/b/", "./a//b/..", "relative", "a/absolute/.", "a/absolute/../../a"] {
            let about = fs::metadata(base.join(path)).unwrap();
            assert_eq!(open_id(&base.join(path)), Ok((about.dev(), about.ino())), "{path}");
        }
        for path in ["none", "a/none/b", "file", "file/b", "round/a"] {
            let error = fs::read_dir(base.join(path)).unwrap_err();
            assert_eq!(open_id(&base.join(path)), Err(error.raw_os_error()), "{path}");
        }
        let own = fs::metadata(".").unwrap();
        assert_eq!(open_id(Path::new("")), Ok((own.dev(), own.ino())));
        assert_eq!(open_id(Path::new("/proc/self/cwd")), Ok((own.dev(), own.ino())));
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_folder_is_private_when_no_other_user_can_exchange_what_lies_there() {
        let base = temporary("private");
        let is_private = || Folder::open(&base).unwrap().is_private();
        for (mode, expected) in [(0o755, true), (0o1777, true), (0o777, false), (0o775, false)] {
            fs::set_permissions(&base, Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_private(), expected, "{mode:o}");
        }
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_link_of_another_user_leads_only_to_folders_of_that_user() {
        if !geteuid().is_root() {
            return println!("SKIPPED: only root can make files of another user");
        }
        let base = temporary("links");
        let (theirs, ours) = (base.join("theirs"), base.join("ours"));
        for folder in [&theirs, &ours] {
            fs::create_dir(folder).unwrap();
        }
        let link = |name: &str, to: &Path, owner| {
            symlink(to, base.join(name)).unwrap();
            lchown(base.join(name), Some(owner), Some(owner)).unwrap();
            base.join(name)
        };
        lchown(&theirs, Some(65534), Some(65534)).unwrap();
        let (to_ours, to_theirs) = (link("1", &ours, 65534), link("2", &theirs, 65534));
        let of_a_third = link("3", &theirs, 65533);
        let (trusted, twice) = (link("4", &ours, 0), link("5", &to_theirs, 65533));
        assert_eq!(open_id(&to_ours), Err(Some(libc::ELOOP)));
        assert_eq!(open_id(&of_a_third), Err(Some(libc::ELOOP)));
        assert_eq!(open_id(&twice), Err(Some(libc::ELOOP)));
        assert_eq!(open_id(&to_theirs), open_id(&theirs));
        assert_eq!(open_id(&trusted), open_id(&ours));
        assert!(!Folder::open(&to_theirs).unwrap().is_private());
        assert!(Folder::open(&trusted).unwrap().is_private());
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn only_the_file_with_the_identity_is_removed() {
        let base = temporary("remove");
        let folder = Folder::open(&base).unwrap();
        let name = OsStr::new("f");
        fs::write(base.join(name), "").unwrap();
        let file = folder.id_of(name).unwrap();
        symlink(name, base.join("l")).unwrap();
        let link = folder.open_file(OsStr::new("l"), true).unwrap_err();
        assert_eq!(link.raw_os_error(), Some(libc::ELOOP));
        folder.open_file(name, true).unwrap();
        assert!(!folder.remove(name, (file.0, file.1 + 1)).unwrap());
        // The folder is the same under another name.
        let moved = base.with_extension("moved");
        fs::rename(&base, &moved).unwrap();
        assert!(folder.remove(name, file).unwrap());
        assert!(!folder.remove(name, file).unwrap(), "no longer there");
        assert!(Folder::from_descriptor(fs::File::open("/dev/null").unwrap().into()).is_err());
        fs::remove_dir_all(&moved).unwrap();
    }
}
