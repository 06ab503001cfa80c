//! Node's own suite for child processes, row by row: what each of its tests asserts, asserted of
//! ours. The rows are those of `child-process-behaviours.md` that are meaningful here.
//!
//! A row is a name of a file of Node's (`parallel/` and `.js` left out). Its test is the case of
//! the name in front of it.

#[path = "../common/mod.rs"]
mod common;

macro_rules! rows {
    ($($case:ident: $($row:literal),+;)*) => {
        $(#[test] fn $case() { common::case(stringify!($case)); })*
        const DONE: &[&str] = &[$($($row),+),*];
    };
}

rows! {
    constructor: "test-child-process-constructor";
    cwd: "test-child-process-cwd";
    default_options: "test-child-process-default-options";
    env: "test-child-process-env";
    exit_code: "test-child-process-exit-code";
    reject_null_bytes: "test-child-process-reject-null-bytes";
    spawn_argv0: "test-child-process-spawn-argv0";
    spawn_error: "test-child-process-spawn-error";
    spawn_event: "test-child-process-spawn-event";
    spawn_shell: "test-child-process-spawn-shell";
    spawn_typeerror: "test-child-process-spawn-typeerror";
    uid_gid: "test-child-process-uid-gid";
    fork_and_spawn: "test-child-process-fork-and-spawn";
    detached: "test-child-process-detached";
    emfile: "sequential/test-child-process-emfile";
    a_chain_of_five: "sequential/test-child-process-exit";
    cwd_enoent: "test-cwd-enoent";
    process_execpath: "test-process-execpath";
    bad_stdio: "test-child-process-bad-stdio";
    can_write_to_stdout: "test-child-process-can-write-to-stdout";
    double_pipe: "test-child-process-double-pipe";
    flush_stdio: "test-child-process-flush-stdio";
    pipe_dataflow: "test-child-process-pipe-dataflow";
    server_close: "test-child-process-server-close";
    set_blocking: "test-child-process-set-blocking";
    stdin: "test-child-process-stdin";
    stdio_inherit: "test-child-process-stdio-inherit";
    stdio_merge_stdouts_into_cat: "test-child-process-stdio-merge-stdouts-into-cat";
    stdio_reuse_readable_stdio: "test-child-process-stdio-reuse-readable-stdio";
    stdio: "test-child-process-stdio";
    validate_stdio: "test-child-process-validate-stdio";
    stdin_ipc: "test-child-process-stdin-ipc";
    stdout_ipc: "test-child-process-stdout-ipc";
    stdout_flush: "test-child-process-stdout-flush";
    stdout_flush_exit: "test-child-process-stdout-flush-exit";
    interactive_echo: "test-child-process-ipc";
    stdio_closed: "test-stdio-closed";
    stdio_pipe_redirect: "test-stdio-pipe-redirect";
    stdio_pipe_stderr: "test-stdio-pipe-stderr";
    stdin_script_child: "test-stdin-script-child";
    stdin_from_file_spawn: "test-stdin-from-file-spawn";
    stdin_pipe_large: "test-stdin-pipe-large";
    stdout_close_catch: "test-stdout-close-catch";
    stdout_to_file: "test-stdout-to-file";
    pipe_head: "test-pipe-head";
    process_external_stdio_close:
        "test-process-external-stdio-close", "test-process-external-stdio-close-spawn";
    listen_fd_server: "test-listen-fd-server", "test-listen-fd-detached-inherit";
}
