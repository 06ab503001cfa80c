//! Listening, dealing, datagrams, bind errors.

rows! {
    listening_port: "test-cluster-listening-port", "test-cluster-net-listen";
    server_restart_rr: "test-cluster-server-restart-rr";
    http_pipe: "test-cluster-http-pipe";
    listen_pipe_readable_writable: "test-cluster-listen-pipe-readable-writable";
    net_listen_relative_path: "test-cluster-net-listen-relative-path";
    dgram_1: "test-cluster-dgram-1";
    net_listen_ipv6only_false: "test-cluster-net-listen-ipv6only-false";
    net_listen_exclusive_random_ports: "test-net-listen-exclusive-random-ports";
    listen_fd_cluster: "test-listen-fd-cluster";
    tls_ticket_cluster: "test-tls-ticket-cluster";
    eaddrinuse: "test-cluster-eaddrinuse", "test-cluster-shared-handle-bind-error";
    bind_twice: "test-cluster-bind-twice";
    dgram_cluster_bind_error: "test-dgram-cluster-bind-error";
    child_index: "test-cluster-child-index-net", "test-cluster-child-index-dgram", "test-dgram-cluster-close-in-listening";
    dgram_reuse: "test-cluster-dgram-reuse", "known_issues/test-dgram-bind-shared-ports-after-port-0";
    server_restart_none: "test-cluster-server-restart-none";
    worker_handle_close: "test-cluster-worker-handle-close", "test-cluster-rr-handle-close";
    dgram_bind_fd: "test-cluster-dgram-bind-fd";
    shared_leak: "test-cluster-shared-leak";
    accept_fail: "test-cluster-accept-fail";
    net_server_drop_connection: "test-cluster-net-server-drop-connection";
    bind_privileged_port: "test-cluster-bind-privileged-port", "test-cluster-shared-handle-bind-privileged-port";
    net_listen_shared_ports: "test-net-listen-shared-ports";
    dgram_bind_shared_ports: "test-dgram-bind-shared-ports";
}

/// Rows without a test here, and why.
pub(crate) const NOT: &[(&str, &str)] = &[
    (
        "test-dgram-cluster-close-during-bind",
        "bind blocks until the answer: there is nothing to close before",
    ),
    (
        "test-dgram-exclusive-implicit-bind",
        "sockets that only send are std's own: nothing of ours to test",
    ),
    ("benchmark/test-benchmark-cluster", "bench measures ours"),
];
