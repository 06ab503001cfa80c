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
}

/// Rows without a test here, and why.
pub(crate) const NOT: &[(&str, &str)] = &[
    ("test-cluster-shared-leak", "listening: not there yet"),
    ("test-cluster-accept-fail", "listening: not there yet"),
    ("test-cluster-worker-handle-close", "listening: not there yet"),
    ("test-cluster-rr-handle-close", "listening: not there yet"),
    ("test-cluster-net-server-drop-connection", "listening: not there yet"),
    ("test-cluster-dgram-bind-fd", "listening: not there yet"),
    ("test-dgram-cluster-close-during-bind", "listening: not there yet"),
    ("test-dgram-exclusive-implicit-bind", "listening: not there yet"),
    ("test-cluster-bind-privileged-port", "listening: not there yet"),
    ("test-cluster-shared-handle-bind-privileged-port", "listening: not there yet"),
    ("benchmark/test-benchmark-cluster", "listening: not there yet"),
    ("test-net-listen-shared-ports", "listening: not there yet"),
    ("test-dgram-bind-shared-ports", "listening: not there yet"),
];
