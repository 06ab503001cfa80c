//! Reading the kernel's files, below `/` or below another directory that has `proc` and `sys`.

use crate::Error;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The longest file that is read: `/proc/cpuinfo` of 8192 CPUs is shorter.
const FILE_BYTES_MAX: usize = 32 << 20;

/// The directory that `proc` and `sys` are in.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    pub(crate) fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Where `path`, which begins with a slash, is.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads the whole of `path`, which the kernel is expected to have.
    pub(crate) fn read(&self, path: &'static str) -> Result<Vec<u8>, Error> {
        read_whole(&self.at(path)).map_err(|error| Error::os(path, error))
    }
}

impl Default for Root {
    fn default() -> Self {
        Self("/".into())
    }
}

/// Reads the short file at `path`, which the kernel writes in one piece, into `buffer`: what fits
/// of it.
pub(crate) fn read_short<'a>(path: &Path, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut file = File::open(path)?;
    loop {
        match file.read(buffer) {
            Ok(length) => return Ok(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads the file at `path`, however long it is.
///
/// # Errors
///
/// `EFBIG` for one that is longer than any of the kernel's.
pub(crate) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_from_start(&File::open(path)?, &mut bytes)?;
    Ok(bytes)
}

/// Reads an open file from its start to its end, whatever was read from it before.
///
/// The kernel makes most files of `/proc` anew on each read from the start, so that a kept
/// descriptor saves opening and closing, not freshness.
pub(crate) fn read_from_start(file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    fill(file, bytes, false)
}

/// As [`read_from_start`], for the files that the kernel writes in one piece (`/proc/stat`,
/// `/proc/meminfo`, `/proc/self/cgroup`): a read that leaves room has got all of it.
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
