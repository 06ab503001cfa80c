//! Pipelines, input and output of children.

use std::io::{Read, Write};

use child_process::{Command, Error, ExitStatus, OutputStream, Signal};

use crate::harness::{apply, case, storm};
use crate::support::shell::sh;

#[apply(storm)]
fn a_pipeline_moves_a_gibibyte_without_this_process() {
    let before = bytes_moved();
    let mut zeros = Command::new("head").args(["-c", "1073741824", "/dev/zero"]).spawn().unwrap();
    let mut cat = Command::new("cat").stdin(zeros.take_stdout().unwrap()).spawn().unwrap();
    let count = Command::new("wc").arg("-c").stdin(cat.take_stdout().unwrap()).output().unwrap();
    assert_eq!(count.stdout_text().trim(), "1073741824");
    assert!(zeros.wait().unwrap().success() && cat.wait().unwrap().success());
    let moved = bytes_moved() - before;
    assert!(moved < 1 << 20, "this process has read and written {moved} bytes");
}

/// Returns the number of bytes that the threads of this process have read and written, in files and
/// pipes. The number of the process as a whole includes those of the children that it has reaped.
fn bytes_moved() -> u64 {
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let io = std::fs::read_to_string(task.unwrap().path().join("io")).unwrap();
        let number = |name| {
            let line = io.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        number("rchar:") + number("wchar:")
    };
    std::fs::read_dir("/proc/self/task").unwrap().map(of_thread).sum()
}

#[apply(case)]
fn a_pipeline_ends_when_its_reader_does() {
    let mut yes = Command::new("yes").spawn().unwrap();
    let head = Command::new("head").arg("-1").stdin(yes.take_stdout().unwrap()).output().unwrap();
    assert_eq!(head.stdout, b"y\n");
    assert_eq!(yes.wait().unwrap(), ExitStatus::Signal(Signal::PIPE));
}

#[apply(case)]
fn too_much_output_is_cut_exactly() {
    for (stream, script) in [(OutputStream::Stdout, "yes"), (OutputStream::Stderr, "yes >&2")] {
        let check = |error: child_process::ExecError| {
            assert!(matches!(error.error, Error::MaxBuffer(of) if of == stream), "{error}");
            let (full, other) = match stream {
                OutputStream::Stdout => (&error.stdout, &error.stderr),
                OutputStream::Stderr => (&error.stderr, &error.stdout),
            };
            assert_eq!((full.len(), other.len()), (100_001, 0));
        };
        let script = format!("exec {script}");
        check(sh(&script).max_buffer(100_001).output().unwrap_err());
        check(sh(&script).max_buffer(100_001).exec().unwrap().wait().unwrap_err());
    }
}

#[apply(storm)]
fn a_hundred_loud_children_are_collected_within_bounds() {
    let script = "head -c 10485760 /dev/zero; head -c 10485760 /dev/zero >&2";
    // The peak starts anew: it must not count pages that this process has touched before.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = kib_at_most();
    let running: Vec<_> = (0..100).map(|_| sh(script).max_buffer(65_536).exec().unwrap()).collect();
    for exec in running {
        let error = exec.wait().unwrap_err();
        assert_eq!(error.code(), "ERR_CHILD_PROCESS_STDIO_MAXBUFFER");
        assert!(error.stdout.len() + error.stderr.len() <= 2 * 65_536);
    }
    // 100 × 2 × 64 KiB are kept of the 2,000 MiB that the children write.
    let grown = kib_at_most() - before;
    assert!(grown < 40 << 10, "{grown} KiB more were resident");
    let both = sh(script).max_buffer_unlimited().output().unwrap();
    assert_eq!((both.stdout.len(), both.stderr.len()), (10_485_760, 10_485_760));
}

/// Returns the peak resident size of this process, in KiB.
fn kib_at_most() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[apply(case)]
fn input_is_fed_while_output_is_read() {
    // No two pages are equal, so that a page that is lost or doubled is noticed.
    let input: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
    let run = |command: &mut Command| command.input(input.clone()).max_buffer_unlimited().output();
    assert!(run(&mut Command::new("cat")).unwrap().stdout == input);
    // This program reads a part of its input only.
    assert_eq!(run(Command::new("head").args(["-c", "5"])).unwrap().stdout, input[..5]);
    let exec = Command::new("cat").input(input.clone()).max_buffer_unlimited().exec().unwrap();
    assert!(exec.wait().unwrap().stdout == input);
    assert!(
        Command::new("cat").output().unwrap().stdout.is_empty(),
        "a command without input has empty input"
    );
}

#[apply(case)]
fn standard_input_is_written_and_ended() {
    let mut cat = Command::new("cat").spawn().unwrap();
    let mut stdin = cat.take_stdin().unwrap();
    stdin.write_all(b"written").unwrap();
    drop(stdin);
    let mut text = String::new();
    cat.take_stdout().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "written");
    assert!(cat.wait().unwrap().success());
}
