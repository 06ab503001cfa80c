//! Messages that nobody reads. The bodies are in `src/bin/fixture/cases/cluster_unread.rs`.

mod common;

common::cases![
    workers_whose_messages_nobody_reads_are_workers_like_any_other,
    a_full_worker_that_is_not_heard_gets_the_next_client,
    a_wish_to_listen_behind_unread_messages_is_not_lost,
    what_a_worker_wants_is_not_lost_behind_one_long_message,
    a_listener_that_is_closed_unheard_gets_nothing_more,
    workers_that_read_no_messages_are_served_and_end,
    events_that_nobody_reads_hold_no_descriptors,
    unread_messages_hold_two_descriptors_until_they_are_read,
];
