//! The files that `execve` opens itself: a program, the interpreter of a script, the loader.
//!
//! Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The number of bytes at the beginning of a program that are enough for [`interpreter_of`], with
/// any header that compilers and linkers make.
pub(crate) const HEAD_BYTES: usize = 4096;

/// The file by which the kernel, or the shell in its place, runs a program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Interpreter {
    /// A program without one: it is linked statically.
    None,
    /// The interpreter that the first line of a script names.
    Script(PathBuf),
    /// The loader of a dynamic program.
    Loader(PathBuf),
    /// A file without a header, which `/bin/sh` runs.
    Shell,
}

/// Returns the interpreter of the program that begins with `head`.
pub(crate) fn interpreter_of(head: &[u8]) -> Interpreter {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|it| !it.is_empty());
        return words.next().map_or(Interpreter::Shell, |word| Interpreter::Script(path(word)));
    }
    if head.starts_with(b"\x7fELF") {
        return loader_of(head).map_or(Interpreter::None, Interpreter::Loader);
    }
    Interpreter::Shell
}

fn path(bytes: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(bytes)).to_owned()
}

/// Returns the path in the `PT_INTERP` header of a 64-bit program.
fn loader_of(head: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u32 = 3;
    const OFFSET_OF_HEADERS: usize = 32;
    const OFFSET_OF_SIZE: usize = 54;
    const OFFSET_OF_COUNT: usize = 56;
    let first = usize::try_from(u64_at(head, OFFSET_OF_HEADERS)?).ok()?;
    let (size, count) = (u16_at(head, OFFSET_OF_SIZE)?, u16_at(head, OFFSET_OF_COUNT)?);
    let header = (0..usize::from(count)).find_map(|index| {
        let begin = first.checked_add(index.checked_mul(usize::from(size))?)?;
        let header = head.get(begin..begin.checked_add(56)?)?;
        (u32_at(header, 0)? == PT_INTERP).then_some(header)
    })?;
    let begin = usize::try_from(u64_at(header, 8)?).ok()?;
    let length = usize::try_from(u64_at(header, 32)?).ok()?;
    let text = head.get(begin..begin.checked_add(length)?)?;
    text.split(|byte| *byte == 0).next().filter(|text| !text.is_empty()).map(path)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        let script = |text: &str| interpreter_of(text.as_bytes());
        assert_eq!(script("#!/bin/sh\nexit"), Interpreter::Script("/bin/sh".into()));
        assert_eq!(script("#! \t/usr/bin/env node"), Interpreter::Script("/usr/bin/env".into()));
        assert_eq!(script("#!\necho"), Interpreter::Shell);
        assert_eq!(script("echo"), Interpreter::Shell);
        assert_eq!(script(""), Interpreter::Shell);
    }

    /// Returns a program with one header, of `kind`, for the text at byte 120.
    fn elf(kind: u32, text: &[u8]) -> Vec<u8> {
        let mut head = vec![0; 120];
        head[..4].copy_from_slice(b"\x7fELF");
        head[32..40].copy_from_slice(&64_u64.to_le_bytes());
        head[54..56].copy_from_slice(&56_u16.to_le_bytes());
        head[56..58].copy_from_slice(&1_u16.to_le_bytes());
        head[64..68].copy_from_slice(&kind.to_le_bytes());
        head[72..80].copy_from_slice(&120_u64.to_le_bytes());
        head[96..104].copy_from_slice(&(text.len() as u64).to_le_bytes());
        head.extend(text);
        head
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        let dynamic = elf(3, b"/lib64/ld.so\0");
        assert_eq!(interpreter_of(&dynamic), Interpreter::Loader("/lib64/ld.so".into()));
        assert_eq!(interpreter_of(&elf(1, b"/lib64/ld.so\0")), Interpreter::None);
        assert_eq!(interpreter_of(&elf(3, b"\0")), Interpreter::None);
        for end in 0..dynamic.len() {
            let cut = interpreter_of(&dynamic[..end]);
            assert!(matches!(cut, Interpreter::None | Interpreter::Shell), "{end}: {cut:?}");
        }
        let mut far = dynamic;
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(interpreter_of(&far), Interpreter::None);
    }
}
