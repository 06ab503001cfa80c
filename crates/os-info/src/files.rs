//! Reading of the kernel's files, below `/` or below another directory with `proc` and `sys`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// The maximum size of a file that is read. `/proc/cpuinfo` of 8192 CPUs is shorter.
const FILE_BYTES_MAX: usize = 32 << 20;

/// The directory that contains `proc` and `sys`.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    pub(crate) fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Returns the location of `path`, which begins with a slash, below this directory.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads the whole file `path`.
    pub(crate) fn read(&self, path: &'static str) -> Result<Vec<u8>, Error> {
        read_whole(&self.at(path)).map_err(|error| Error::of_file(path, error))
    }

    /// Opens the file `path`.
    pub(crate) fn open(&self, path: &'static str) -> Result<File, Error> {
        open(&self.at(path)).map_err(|error| Error::of_file(path, error))
    }
}

impl Default for Root {
    fn default() -> Self {
        Self("/".into())
    }
}

/// Opens a file for reading, and never waits for another process. All files of this crate are opened
/// here.
///
/// # Errors
///
/// Those of `open(2)`; [`InvalidData`](io::ErrorKind::InvalidData) for a pipe, a device or anything
/// else that is no regular file. The kernel's files are regular; a read of another kind may have no
/// end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    sys::fd::open_regular(path)
}

/// Reads the start of the file at `path`, as far as `buffer` has room.
pub(crate) fn read_short<'a>(path: &Path, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    read_start(&open(path)?, buffer)
}

/// Reads the start of an open file, as far as `buffer` has room.
///
/// One read suffices, because the kernel writes these short files in one piece.
pub(crate) fn read_start<'a>(file: &File, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    loop {
        match file.read_at(buffer, 0) {
            Ok(length) => return Ok(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads the whole file at `path`.
///
/// # Errors
///
/// `EFBIG` for a file over [`FILE_BYTES_MAX`].
pub(crate) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_from_start(&open(path)?, &mut bytes)?;
    Ok(bytes)
}

/// Reads an open file from its start to its end; earlier reads do not matter.
///
/// The kernel generates most files of `/proc` again on each read from the start. A descriptor that
/// stays open therefore saves the opening and closing, and the content is still current.
pub(crate) fn read_from_start(file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    fill(file, bytes, false)
}

/// Reads like [`read_from_start`] a file that the kernel writes in one piece (`/proc/stat`,
/// `/proc/meminfo`, `/proc/self/cgroup`). A read that leaves room in the buffer has reached the
/// end, which saves one call.
pub(crate) fn read_record(file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    fill(file, bytes, true)
}

fn fill(file: &File, bytes: &mut Vec<u8>, one_piece: bool) -> io::Result<()> {
    bytes.resize(bytes.capacity().max(8192), 0);
    let mut length = 0;
    loop {
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => {
                length += count;
                if one_piece && length < bytes.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length > FILE_BYTES_MAX {
            return Err(io::Error::from_raw_os_error(sys::errno::EFBIG));
        }
    }
    bytes.truncate(length);
    Ok(())
}
