//! Node's own suite for child processes, row by row: what each of its tests asserts, asserted of
//! ours. The rows are those of `child-process-behaviours.md` that are meaningful here.
//!
//! A row is a name of a file of Node's (`parallel/` and `.js` left out). Its test is the case of
//! the name in front of it.

use std::io::Write as _;

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
    exec_cwd: "test-child-process-exec-cwd";
    exec_encoding: "test-child-process-exec-encoding";
    exec_env: "test-child-process-exec-env";
    exec_error: "test-child-process-exec-error";
    exec_kill_throws: "test-child-process-exec-kill-throws";
    execfile_maxbuf: "test-child-process-execfile-maxbuf";
    exec_timeout_expire: "test-child-process-exec-timeout-expire";
    exec_timeout_kill: "test-child-process-exec-timeout-kill";
    exec_timeout_not_expired: "test-child-process-exec-timeout-not-expired";
    execfile: "test-child-process-execfile";
    promisified: "test-child-process-promisified";
    exec_abortcontroller: "test-child-process-exec-abortcontroller-promisified";
    execfile_abortcontroller: "test-child-process-execFile-promisified-abortController";
    spawnsync_env: "test-child-process-spawnsync-env";
    spawnsync_kill_signal: "test-child-process-spawnsync-kill-signal";
    spawnsync_maxbuf: "test-child-process-spawnsync-maxbuf";
    spawnsync_shell: "test-child-process-spawnsync-shell";
    spawnsync_timeout: "test-child-process-spawnsync-timeout";
    spawnsync_validation_errors: "test-child-process-spawnsync-validation-errors";
    execfilesync_maxbuf: "test-child-process-execfilesync-maxbuf";
    execsync_maxbuf: "test-child-process-execsync-maxbuf";
    execsync: "sequential/test-child-process-execsync";
    destroy: "test-child-process-destroy";
    process_kill_null: "test-process-kill-null";
    process_kill_pid: "test-process-kill-pid";
    kill_segfault: "test-kill-segfault-freebsd";
    sigint_infinite_loop: "test-sigint-infinite-loop";
    signal_unregister: "test-signal-unregister";
    spawn_controller: "test-child-process-spawn-controller";
    fork_abort_signal: "test-child-process-fork-abort-signal";
    spawn_timeout_kill_signal: "test-child-process-spawn-timeout-kill-signal";
    fork_timeout_kill_signal: "test-child-process-fork-timeout-kill-signal";
    fork: "test-child-process-fork";
    fork3: "test-child-process-fork3";
    fork_args: "test-child-process-fork-args";
    fork_close: "test-child-process-fork-close";
    fork_detached: "test-child-process-fork-detached";
    fork_exec_argv: "test-child-process-fork-exec-argv";
    fork_exec_path: "test-child-process-fork-exec-path";
    fork_no_shell: "test-child-process-fork-no-shell";
    fork_ref: "test-child-process-fork-ref";
    fork_ref2: "test-child-process-fork-ref2";
    fork_stdio_string_variant: "test-child-process-fork-stdio-string-variant";
    fork_stdio: "test-child-process-fork-stdio";
    silent: "test-child-process-silent";
    disconnect: "test-child-process-disconnect";
    fork_closed_channel: "test-child-process-fork-closed-channel-segfault";
    early_messages_are_kept: "test-esm-child-process-fork-main";
    ipc_next_tick: "test-child-process-ipc-next-tick";
    send_after_close: "test-child-process-send-after-close";
    send_cb: "test-child-process-send-cb";
    process_getgroups: "test-process-getgroups";
    send_utf8: "test-child-process-send-utf8";
    large_buffers: "test-child-process-advanced-serialization-largebuffer";
    advanced_serialization: "test-child-process-advanced-serialization";
    connect_reset: "test-net-child-process-connect-reset";
    recv_handle: "test-child-process-recv-handle", "test-child-process-fork-net-server";
    fork_dgram: "test-child-process-fork-dgram";
    fork_net_socket: "test-child-process-fork-net-socket";
    send_keep_open: "test-child-process-send-keep-open";
    large_payload_with_handle: "sequential/test-cluster-send-handle-large-payload";
    pass_fd: "sequential/test-child-process-pass-fd";
    internal: "test-child-process-internal";
    send_returns_boolean: "test-child-process-send-returns-boolean";
    net_socket_constructor: "test-net-socket-constructor";
    fork_net: "test-child-process-fork-net", "test-child-process-fork-getconnections";
    send_handle_twice: "test-cluster-send-handle-twice";
}

/// Rows without a test of their own here, and why.
const NOT: &[(&str, &str)] = &[
    ("test-listen-fd-cluster", "a row of node_suite_cluster: listening"),
    ("test-listen-fd-ebadf", "a kind is checked where it arrives: Handle::kind in ipc"),
    ("test-cluster-fork-env", "a row of node_suite_cluster: lives"),
    ("test-cluster-fork-stdio", "a row of node_suite_cluster: lives"),
    ("test-cluster-advanced-serialization", "a row of node_suite_cluster: lives"),
    ("test-cluster-message", "a row of node_suite_cluster: lives"),
    ("test-cluster-ipc-throw", "a row of node_suite_cluster: lives"),
    ("test-cluster-process-disconnect", "a row of node_suite_cluster: lives"),
    ("test-cluster-send-deadlock", "a row of node_suite_cluster: lives"),
    ("test-cluster-accept-fail", "a row of node_suite_cluster: listening"),
    ("test-handle-wrap-hasref", "there is no loop that a handle could keep alive"),
    ("test-os", "os-info: every_stable_field_is_what_node_says in tests/os_info.rs"),
    ("test-os-eol", "os-info: a const, compared with Node's by tests/os_info.rs"),
    ("test-os-homedir-no-envvar", "os-info: tests of its user.rs and tests/os_info.rs"),
    ("test-os-process-priority", "os-info: tests/priority.rs there"),
    ("test-os-checked-function", "os-info: errors name call, errno and code"),
];

/// PORT and ADAPT rows of the table.
const ROWS: usize = 134;

#[test]
fn every_row_has_a_test_or_a_reason() {
    let mut names: Vec<_> = DONE.iter().chain(NOT.iter().map(|(row, _)| row)).collect();
    names.sort();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before, "a row is named twice");
    // Not by `println!`: that of a test that passes is not shown.
    let (done, reasons) = (DONE.len(), NOT.len());
    writeln!(std::io::stderr(), "{done} of {ROWS} rows done, {reasons} with a reason why not")
        .expect("told");
    assert_eq!(before, ROWS, "{} rows are missing", ROWS.abs_diff(before));
}
