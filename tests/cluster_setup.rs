//! What workers are started with, and one by one. The bodies are in
//! `src/bin/fixture/cases/cluster_setup.rs` and `cluster_lives.rs`.

mod common;

common::cases![
    setup_master_sets_for_good,
    a_worker_may_run_as_another_user,
    a_descriptor_may_be_shared_by_all_workers,
    a_program_may_replace_its_workers_itself,
];
