//! WorkerOptions, fork, messages, life and death, disconnect.

rows! {
    setup_primary_argv: "test-cluster-setup-primary-argv";
    setup_primary_cumulative: "test-cluster-setup-primary-cumulative";
    setup_primary_multiple: "test-cluster-setup-primary-multiple";
    worker_cwd: "test-cluster-cwd";
    worker_advanced_serialization: "test-cluster-advanced-serialization";
    worker_constructor: "test-cluster-worker-constructor";
    basic: "test-cluster-basic";
    worker_fork_env: "test-cluster-fork-env";
    worker_stdio: "test-cluster-fork-stdio", "test-net-socket-constructor";
    preload: "test-preload";
    worker_message: "test-cluster-message";
    worker_events: "test-cluster-worker-events";
    worker_init: "test-cluster-worker-init";
    send_deadlock: "test-cluster-send-deadlock";
    send_handle_large_payload: "sequential/test-cluster-send-handle-large-payload";
    send_socket_to_worker_http_server: "test-cluster-send-socket-to-worker-http-server";
    net_send: "test-cluster-net-send";
    worker_death: "test-cluster-worker-death";
    worker_exit: "test-cluster-worker-exit";
    worker_kill: "test-cluster-worker-kill";
    worker_isconnected: "test-cluster-worker-isconnected";
    worker_isdead: "test-cluster-worker-isdead";
    kill_disconnect: "test-cluster-kill-disconnect";
    worker_forced_exit: "test-cluster-worker-forced-exit";
    process_disconnect: "test-cluster-process-disconnect";
    worker_no_exit: "test-cluster-worker-no-exit";
    primary_error: "test-cluster-primary-error";
    primary_kill: "test-cluster-primary-kill";
    ipc_throw: "test-cluster-ipc-throw";
    cluster_disconnect: "test-cluster-disconnect";
    disconnect_with_no_workers: "test-cluster-disconnect-with-no-workers";
    disconnect_idle_worker: "test-cluster-disconnect-idle-worker";
    disconnect_before_exit: "test-cluster-disconnect-before-exit";
    disconnect_leak: "test-cluster-disconnect-leak";
    disconnect_race: "test-cluster-disconnect-race", "test-cluster-disconnect-unshared-udp";
    call_and_destroy: "test-cluster-call-and-destroy";
    concurrent_disconnect: "test-cluster-concurrent-disconnect";
}

/// Rows without a test here, and why.
pub(crate) const NOT: &[(&str, &str)] = &[(
    "test-cluster-send-handle-twice",
    "a socket is moved into its message: there is nothing left to send a second time",
)];
