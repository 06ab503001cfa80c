//! The files of Unix sockets: made, replaced and removed in a [`Folder`] that was looked up once.
//!
//! A socket can only be bound by a path, and nothing returns which file `bind(2)` has made. In a
//! private folder that does no harm: nobody else can exchange the file or the way to it, and the
//! socket is bound at the path as it was given, which `getsockname(2)`, peers and `ss(8)` show.
//!
//! In any other folder the socket is bound in a new subfolder of mode 700, gets its mode there, and
//! is renamed into the folder in one step that never replaces a file. The path for that leads
//! through `/proc/self/fd`, and the socket keeps it as its name: peers see `/proc/self/fd/9/s`.
//! Where `/proc` is not mounted, a thread with a working directory of its own binds the bare name.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{self as ns, AddressFamily, SockFlag, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchdir, geteuid, linkat, unlinkat};

use crate::bind::{PATH_BYTES_MAX, UnixKind, is_stale};
use crate::fd::above_standard;
use crate::folder::{self, FileId, Folder};

/// The number of names that are tried for a subfolder. More are taken only by another user, on
/// purpose.
const NAMES_MAX: u32 = 16;

/// Binds a Unix socket to the entry `name` of a folder, and adds `mode` to the permissions of its
/// file. Returns the socket and the identity of the file.
///
/// `path` is the path that led to `folder`, with the name. No entry is replaced or followed.
///
/// # Errors
///
/// `EADDRINUSE` when the entry exists, `ENAMETOOLONG` for a name of more than 107 bytes; `EPERM`
/// where others may write and the file system does not store the owners of files; the other errors
/// of `bind(2)`, `mkdir(2)` and `rename(2)`.
pub fn bind(
    kind: UnixKind,
    folder: &Folder,
    name: &OsStr,
    path: &Path,
    mode: u32,
) -> io::Result<(OwnedFd, FileId)> {
    if name.len() > PATH_BYTES_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if matches!(name.as_bytes(), b"" | b"." | b"..") || folder.stat(name).is_ok() {
        return Err(Errno::EADDRINUSE.into());
    }
    if folder.is_private() {
        let socket = if path.as_os_str().len() <= PATH_BYTES_MAX {
            let socket = unbound(kind)?;
            bind_path(&socket, path)?;
            socket
        } else {
            bind_in(kind, folder, name)?
        };
        // Root or this user may have put another folder at the path meanwhile, as a release is put
        // in place. Then the file lies there, and the promise about it is kept by another one.
        if let Ok(file) = set_mode(folder, name, mode) {
            return Ok((socket, file));
        }
    }
    let mut stage = Stage::make(folder)?;
    let socket = bind_in(kind, &stage.folder, name)?;
    stage.file = Some(name);
    let file = set_mode(&stage.folder, name, mode)?;
    stage.publish(name)?;
    Ok((socket, file))
}

/// Removes a socket file to which no open socket is bound, and returns whether.
///
/// `path` is the path that led to `folder`, with the name. In a sticky folder only a file of this
/// process's effective user is removed, also for root. Where `/proc` is not mounted, only a file of
/// a private folder is.
///
/// # Errors
///
/// As `open(2)` and `unlinkat(2)`.
pub fn remove_stale(folder: &Folder, name: &OsStr, path: &Path) -> io::Result<bool> {
    let (entry, stat) = folder.entry(name)?;
    let is_foreign = folder.is_sticky() && stat.st_uid != geteuid().as_raw();
    if folder::kind(&stat) != SFlag::S_IFSOCK || is_foreign {
        return Ok(false);
    }
    let path = match folder::path_of(entry.as_fd()) {
        Some(path) => path,
        None if folder.is_private() => path.to_owned(),
        None => return Ok(false),
    };
    Ok(is_stale(&path).unwrap_or(false) && folder.remove(name, folder::id(&stat))?)
}

/// A subfolder in which a socket is bound, to which only this user has access. `drop` removes it.
struct Stage<'a> {
    parent: &'a Folder,
    folder: Folder,
    /// The name of the subfolder in its parent.
    own_name: OsString,
    /// The name of the socket's file, once it was made and until it is renamed.
    file: Option<&'a OsStr>,
}

impl<'a> Stage<'a> {
    fn make(parent: &'a Folder) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..NAMES_MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let own_name = OsString::from(format!(".brood-{}-{number}", process::id()));
            match mkdirat(parent, &*own_name, Mode::S_IRWXU) {
                Err(Errno::EEXIST) => continue,
                made => made?,
            }
            // Another user may have put something else there. If that is as closed to the user as
            // the subfolder was, it serves as well; in all else, nothing is made or removed.
            let (fd, stat) = parent.entry(&own_name)?;
            if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
                return Err(Errno::EPERM.into());
            }
            return Ok(Self { parent, folder: Folder::from_descriptor(fd)?, own_name, file: None });
        }
        Err(Errno::EEXIST.into())
    }

    /// Moves the file to the parent, where it must not replace another one.
    fn publish(&mut self, name: &OsStr) -> io::Result<()> {
        let moved = match rename_new(&self.folder, self.parent, name) {
            Ok(()) => {
                self.file = None;
                Ok(())
            }
            // Not every file system can do that.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => {
                linkat(&self.folder, name, self.parent, name, AtFlags::empty())
            }
            Err(error) => Err(error),
        };
        moved.map_err(|error| match error {
            Errno::EEXIST => Errno::EADDRINUSE.into(),
            other => other.into(),
        })
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file {
            let _ = unlinkat(&self.folder, file, UnlinkatFlags::NoRemoveDir);
        }
        let own = self.folder.id();
        if own.is_ok_and(|own| self.parent.id_of(&self.own_name).is_ok_and(|it| it == own)) {
            let _ = unlinkat(self.parent, &*self.own_name, UnlinkatFlags::RemoveDir);
        }
    }
}

/// Renames the entry `name` of a folder to the same name in another one, where it must be new.
fn rename_new(from: &Folder, to: &Folder, name: &OsStr) -> nix::Result<()> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let (call, flag) = (libc::SYS_renameat2, libc::RENAME_NOREPLACE);
    // SAFETY: the name ends with a zero and lives until the call returns; the rest are integers.
    let answer = unsafe { libc::syscall(call, from, name.as_ptr(), to, name.as_ptr(), flag) };
    Errno::result(answer).map(drop)
}

/// Adds permissions to the file of a socket, in a folder whose entries nobody else can exchange.
fn set_mode(folder: &Folder, name: &OsStr, more: u32) -> io::Result<FileId> {
    let stat = folder.stat(name)?;
    let is_ours = stat.st_uid == geteuid().as_raw();
    if folder::kind(&stat) != SFlag::S_IFSOCK || !is_ours {
        return Err(Errno::ENOENT.into());
    }
    if more != 0 {
        let mode = Mode::from_bits_truncate((stat.st_mode | more) & 0o777);
        fchmodat(folder, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(folder::id(&stat))
}

/// Binds a new socket to an entry of a folder, whatever path leads there.
fn bind_in(kind: UnixKind, folder: &Folder, name: &OsStr) -> io::Result<OwnedFd> {
    let socket = unbound(kind)?;
    let path = folder::path_of(folder.as_fd()).map(|path| path.join(name));
    match path.filter(|path| path.as_os_str().len() <= PATH_BYTES_MAX) {
        Some(path) => bind_path(&socket, &path)?,
        None => thread::scope(|scope| {
            let bind = || {
                // Without its own copy, the thread would move the whole process.
                unshare(CloneFlags::CLONE_FS)?;
                fchdir(folder)?;
                bind_path(&socket, Path::new(name))
            };
            let thread = thread::Builder::new().name("brood-bind".to_owned());
            let bound = thread.spawn_scoped(scope, bind)?.join();
            bound.unwrap_or_else(|_| Err(io::Error::other("the thread that binds has ended")))
        })?,
    }
    Ok(socket)
}

fn bind_path(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    Ok(ns::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?)
}

fn unbound(kind: UnixKind) -> io::Result<OwnedFd> {
    let flags = kind.flags() | SockFlag::SOCK_CLOEXEC;
    Ok(above_standard(ns::socket(AddressFamily::Unix, kind.socket_type(), flags, None)?))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;

    use super::*;

    const S: &str = "s";

    /// A folder of this mode, and the path of a socket in it.
    fn temporary(name: &str, mode: u32) -> (PathBuf, PathBuf) {
        let path = std::env::temp_dir().join(format!("brood-file-{name}-{}", process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let socket = path.join(S);
        (path, socket)
    }

    fn made(kind: UnixKind, path: &Path, mode: u32) -> io::Result<(OwnedFd, FileId, Folder)> {
        let folder = Folder::open(path.parent().unwrap())?;
        let name = path.file_name().unwrap();
        bind(kind, &folder, name, path, mode).map(|(socket, file)| (socket, file, folder))
    }

    fn is_removed(path: &Path) -> bool {
        let folder = Folder::open(path.parent().unwrap()).unwrap();
        remove_stale(&folder, path.file_name().unwrap(), path).unwrap()
    }

    #[test]
    fn a_file_is_made_with_its_mode_in_private_and_in_shared_folders() {
        for (name, mode) in [("own", 0o755), ("sticky", 0o1777), ("shared", 0o777)] {
            let (base, path) = temporary(name, mode);
            for kind in [UnixKind::Stream, UnixKind::Datagram] {
                let (socket, file, folder) = made(kind, &path, 0o666).unwrap();
                let about = fs::symlink_metadata(&path).unwrap();
                assert!(about.file_type().is_socket());
                assert_eq!(about.permissions().mode() & 0o666, 0o666);
                assert_eq!(fs::read_dir(&base).unwrap().count(), 1, "nothing else is left");
                let again = made(kind, &path, 0).unwrap_err();
                assert_eq!(again.raw_os_error(), Some(libc::EADDRINUSE));
                if kind == UnixKind::Stream {
                    crate::socket::listen(socket.as_fd(), 1).unwrap();
                    UnixStream::connect(&path).unwrap();
                    let shown = UnixListener::from(socket).local_addr().unwrap();
                    let is_path = shown.as_pathname() == Some(&path);
                    assert_eq!(is_path, mode != 0o777, "{shown:?}");
                }
                assert!(folder.remove(OsStr::new(S), file).unwrap());
            }
            fs::remove_dir_all(&base).unwrap();
        }
    }

    #[test]
    fn the_path_may_be_long_and_the_name_has_107_bytes() {
        for mode in [0o755, 0o777] {
            let (base, _) = temporary("long", mode);
            let deep = base.join("d".repeat(200)).join("e".repeat(200));
            fs::create_dir_all(&deep).unwrap();
            for length in [1, 80, 100, PATH_BYTES_MAX] {
                made(UnixKind::Stream, &deep.join("n".repeat(length)), 0).unwrap();
            }
            let long = made(UnixKind::Stream, &deep.join("n".repeat(PATH_BYTES_MAX + 1)), 0);
            assert_eq!(long.unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
            fs::remove_dir_all(&base).unwrap();
        }
    }

    #[test]
    fn a_socket_file_is_stale_when_no_socket_is_bound_to_it() {
        for mode in [0o755, 0o777] {
            let (base, path) = temporary("stale", mode);
            let (stream, ..) = made(UnixKind::Stream, &path, 0).unwrap();
            crate::socket::listen(stream.as_fd(), 0).unwrap();
            assert!(!is_removed(&path));
            // The connection of the first check still fills the backlog.
            assert!(!is_removed(&path), "its backlog is full");
            drop(stream);
            // The check follows the file, not the name.
            let (link, other) = (base.join("link"), base.join("other"));
            std::os::unix::fs::symlink(&path, &link).unwrap();
            fs::write(&other, "precious").unwrap();
            assert!(!is_removed(&link) && !is_removed(&other));
            assert!(is_removed(&path) && !path.exists());
            let _datagram = made(UnixKind::Datagram, &path, 0).unwrap();
            assert!(!is_removed(&path));
            fs::remove_dir_all(&base).unwrap();
        }
    }

    #[test]
    fn a_stale_file_of_another_user_stays_in_a_sticky_folder() {
        if !geteuid().is_root() {
            return println!("SKIPPED: only root can make files of another user");
        }
        let (base, path) = temporary("foreign", 0o1777);
        drop(UnixListener::bind(&path).unwrap());
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(!is_removed(&path));
        fs::set_permissions(&base, Permissions::from_mode(0o777)).unwrap();
        assert!(is_removed(&path));
        fs::remove_dir_all(&base).unwrap();
    }
}
