//! Filters of system calls: programs for `seccomp(2)`, as data.
//!
//! A [`Filter`] comes ready made from [`Filter::new`], or from [`Filter::deny`] as a list of calls
//! that fail. A filter is permanent, and holds for everything that the process starts.

mod presets;

use std::io;
use std::sync::Arc;

/// One instruction of a filter: a `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// The number of instructions to skip when a test is true.
    pub jump_true: u8,
    /// The number of instructions to skip when a test is false.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// A program that decides about each system call. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Arc<[Instruction]>);

/// A system call, or one use of it, that fails with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The number of the call on this platform: `libc::SYS_*`.
    pub number: i64,
    /// The use of the call that is denied; `None` for every use.
    pub when: Option<Argument>,
    /// The error that the caller sees.
    pub errno: i32,
}

/// A condition on the lower half of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The place of the argument, from 0 to 5.
    pub index: u8,
    /// The test that it must pass.
    pub test: Test,
}

/// A test of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Test {
    /// The bits are these.
    Is(u32),
    /// At least one of these bits is set.
    HasAny(u32),
}

impl Filter {
    /// The largest number of instructions, which is the kernel's.
    pub const INSTRUCTIONS_MAX: usize = 4096;

    /// Creates a filter from its program. The kernel checks the program when the filter is
    /// installed.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the program is empty or longer than
    /// [`INSTRUCTIONS_MAX`](Self::INSTRUCTIONS_MAX).
    pub fn new(program: impl Into<Vec<Instruction>>) -> io::Result<Self> {
        let program = program.into();
        if program.is_empty() || program.len() > Self::INSTRUCTIONS_MAX {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self(program.into()))
    }

    /// Creates a filter that lets these calls fail, and allows all others.
    ///
    /// Calls of another architecture, such as those of 32-bit programs and of x32, fail with
    /// `ENOSYS`: their numbers mean other calls. See [`new`](Self::new) for the errors; a denied
    /// call takes up to five instructions.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the list is too long, or an argument has no such place.
    pub fn deny(calls: &[Denied]) -> io::Result<Self> {
        let mut program = prologue();
        for call in calls {
            if call.when.is_some_and(|argument| argument.index > 5) {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            add(&mut program, *call);
        }
        program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
        Self::new(program)
    }

    /// Returns the program in the kernel's form. Valid while the filter is.
    pub(crate) fn as_program(&self) -> libc::sock_fprog {
        // The kernel reads the instructions only.
        let filter = self.0.as_ptr().cast::<libc::sock_filter>().cast_mut();
        libc::sock_fprog { len: self.0.len() as u16, filter }
    }

    /// Installs the filter for every thread of this process, which can then gain no privileges.
    ///
    /// # Errors
    ///
    /// Those of `seccomp(2)`: `EINVAL` where the kernel has no filters or refuses the program,
    /// `ESRCH` when a thread has another filter than the calling one.
    pub fn install(&self) -> io::Result<()> {
        // A process without privileges may install a filter only after this; the filter's flag
        // extends it to all threads.
        // SAFETY: integers only.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let program = self.as_program();
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        let (operation, program) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
        // SAFETY: the program and its length belong together, and outlive the call.
        let answer = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, program) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The program of the crate `seccompiler`, version 0.5.
#[cfg(feature = "seccomp")]
impl TryFrom<seccompiler::BpfProgram> for Filter {
    type Error = io::Error;

    fn try_from(program: seccompiler::BpfProgram) -> io::Result<Self> {
        let instruction = |it: &seccompiler::sock_filter| Instruction {
            code: it.code,
            jump_true: it.jt,
            jump_false: it.jf,
            operand: it.k,
        };
        Self::new(program.iter().map(instruction).collect::<Vec<_>>())
    }
}

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// The places in `struct seccomp_data`. The lower half of an argument comes first on the supported
/// platforms.
const OFFSET_OF_NUMBER: u32 = 0;
const OFFSET_OF_ARCHITECTURE: u32 = 4;
const OFFSET_OF_ARGUMENTS: u32 = 16;

/// Refuses calls of other architectures, and leaves the number of the call loaded.
fn prologue() -> Vec<Instruction> {
    let unknown = errno(libc::ENOSYS);
    let mut program = vec![load(OFFSET_OF_ARCHITECTURE)];
    program.extend([skip_if(libc::BPF_JEQ, NATIVE, 1), unknown, load(OFFSET_OF_NUMBER)]);
    if cfg!(target_arch = "x86_64") {
        const X32: u32 = 0x4000_0000;
        program.extend([skip_unless(libc::BPF_JGE, X32, 1), unknown]);
    }
    program
}

fn add(program: &mut Vec<Instruction>, call: Denied) {
    let answer = errno(call.errno);
    let Some(Argument { index, test }) = call.when else {
        return program.extend([skip_unless(libc::BPF_JEQ, call.number as u32, 1), answer]);
    };
    let (test, value) = match test {
        Test::Is(value) => (libc::BPF_JEQ, value),
        Test::HasAny(bits) => (libc::BPF_JSET, bits),
    };
    program.extend([
        skip_unless(libc::BPF_JEQ, call.number as u32, 4),
        load(OFFSET_OF_ARGUMENTS + 8 * u32::from(index)),
        skip_unless(test, value, 1),
        answer,
        load(OFFSET_OF_NUMBER),
    ]);
}

const fn errno(errno: i32) -> Instruction {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32)
}

const fn load(offset: u32) -> Instruction {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

const fn statement(code: u32, operand: u32) -> Instruction {
    Instruction { code: code as u16, jump_true: 0, jump_false: 0, operand }
}

/// Skips the next `count` instructions unless the test is true.
const fn skip_unless(test: u32, operand: u32, count: u8) -> Instruction {
    let code = (libc::BPF_JMP | test | libc::BPF_K) as u16;
    Instruction { code, jump_true: 0, jump_false: count, operand }
}

/// Skips the next `count` instructions if the test is true.
const fn skip_if(test: u32, operand: u32, count: u8) -> Instruction {
    let code = (libc::BPF_JMP | test | libc::BPF_K) as u16;
    Instruction { code, jump_true: count, jump_false: 0, operand }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_the_kernel_cannot_take_are_refused() {
        let one = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
        let refused = |program: Vec<Instruction>| Filter::new(program).unwrap_err().raw_os_error();
        assert_eq!(refused(Vec::new()), Some(libc::EINVAL));
        assert_eq!(refused(vec![one; Filter::INSTRUCTIONS_MAX + 1]), Some(libc::EINVAL));
        assert!(Filter::new(vec![one; Filter::INSTRUCTIONS_MAX]).is_ok());
        let when = Some(Argument { index: 6, test: Test::Is(0) });
        let call = Denied { number: libc::SYS_getppid, when, errno: libc::EPERM };
        assert_eq!(Filter::deny(&[call]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[cfg(feature = "seccomp")]
    #[test]
    fn a_program_of_seccompiler_is_taken_as_it_is() {
        use seccompiler::{SeccompAction, SeccompFilter};
        let target = std::env::consts::ARCH.try_into().unwrap();
        let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(1));
        let rules = [(libc::SYS_uname, Vec::new())].into();
        let program = SeccompFilter::new(rules, allow, refuse, target).unwrap();
        let program: seccompiler::BpfProgram = program.try_into().unwrap();
        let filter = Filter::try_from(program.clone()).unwrap();
        assert_eq!(filter.0.len(), program.len());
        let same = filter.0.iter().zip(&program);
        assert!(same.into_iter().all(|(ours, theirs)| {
            (ours.code, ours.jump_true, ours.jump_false, ours.operand)
                == (theirs.code, theirs.jt, theirs.jf, theirs.k)
        }));
        assert!(Filter::try_from(seccompiler::BpfProgram::new()).is_err());
    }
}
