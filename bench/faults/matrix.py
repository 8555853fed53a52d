"""The rows. A test is named by its file and function: all of its parameters count."""

from __future__ import annotations

from dataclasses import dataclass

_INTEGRATION = "tests/integration/"


@dataclass(frozen=True)
class Row:
    """`tests` make the fault happen. `lacks` is the part of the row that they do not, and where
    that is run, if it is."""

    number: int
    fault: str
    expected: str
    tests: tuple[str, ...] = ()
    lacks: str = ""


def _row(number: int, fault: str, expected: str, *tests: str, lacks: str = "") -> Row:
    paths = (test if test.startswith("tests/") else _INTEGRATION + test for test in tests)
    return Row(number, fault, expected, tuple(paths), lacks)


_KILLS = "test_kill_loop.py::test_kill_loop"
_REAL_KILLS = "test_kill_loop.py::test_kill_loop_on_real_kafka"
_HOSTILE = "test_ingest_hostile.py::test_each_ends_in_the_dead_letters_with_its_reason"
_ORDER = "test_closing_order.py::test_order_duplicates_batches_and_restarts_change_nothing"
_TWO_CLUSTERS = (
    "faults/test_two_clusters.py::test_a_site_is_lost_and_comes_back_and_every_event_counts_once"
)
_DRILL = (
    "MirrorMaker itself, between two sites: `make drill` (root); here the copies are made by hand"
)

ROWS = (
    _row(1, "SIGKILL after poll, before the raw write", "read again", _KILLS, _REAL_KILLS),
    _row(
        2,
        "SIGKILL after the raw write, before the mark",
        "the replay finds duplicates and marks all of it",
        _KILLS,
        "test_closing_groups.py::test_what_was_stored_by_somebody_who_died_before_he_marked_it_is_not_missed",
    ),
    _row(3, "SIGKILL after the mark, before the commit", "duplicates only", _KILLS, _REAL_KILLS),
    _row(
        4,
        "SIGKILL while closing, before and after the write",
        "computed again, guarded by done_gen",
        "test_closing.py::test_a_crash_before_the_write_leaves_all_of_it_to_the_next",
        "test_rollups.py::test_a_crash_at_any_point_is_made_good",
        "test_far_reaching.py::test_no_death_loses_or_doubles_anything",
    ),
    _row(
        5,
        "SIGKILL between dead letter and commit",
        "a copy at most, none missing",
        _KILLS,
        _REAL_KILLS,
    ),
    _row(
        6,
        "SIGTERM under load; a second one; while MongoDB is down",
        "a clean commit; an end at once; within 30 s",
        "test_ingest_faults.py::test_sigterm_finishes_the_batch_and_a_second_one_ends_at_once",
        "test_ingest_faults.py::test_stopping_while_mongodb_is_down_takes_no_longer_than_promised",
    ),
    _row(
        7,
        "members 1, 12, 3, 12 under load",
        "nothing lost; one partition for each of twelve",
        "faults/test_group.py::test_members_come_and_go_under_load",
        "test_ingest_faults.py::test_two_processors_share_and_one_is_killed",
    ),
    _row(
        8,
        "one replica more than partitions",
        "idle and healthy, says why, no loop of errors; takes over",
        "faults/test_group.py::test_one_replica_more_than_partitions_is_idle_and_takes_over",
    ),
    _row(
        9,
        "a batch longer than max.poll.interval.ms",
        "another member takes over; the zombie's late write is a duplicate, its commit none",
        "faults/test_zombie.py::test_a_zombie_past_its_poll_interval_writes_late_and_harms_nobody",
        "faults/test_group.py::test_a_member_slower_than_the_poll_interval_commits_nothing_any_more",
    ),
    _row(
        10,
        "SIGSTOP for sessions, then SIGCONT",
        "late writes are duplicates, no offset goes back",
        "test_ingest_faults.py::test_a_zombie_does_no_harm",
    ),
    _row(
        11,
        "commit for a partition that was given away",
        "refused by the owner's own count",
        "test_kafka_clients.py::test_only_what_is_owned_in_this_assignment_is_committed",
    ),
    _row(
        12,
        "OffsetCommit answers 7, 14, 15, 16, 22, 25, 27, 30, 113",
        "tried again, left, or an error; no crash loop",
        "test_kafka_clients.py::test_a_commit_is_tried_again",
        "test_kafka_clients.py::test_a_commit_that_came_too_late_is_no_error",
        "test_kafka_clients.py::test_a_commit_that_is_not_allowed_is_an_error",
    ),
    _row(
        13,
        "one broker of two, with copies and without; all of them for two minutes",
        "the other one's partitions go on; stalls in good health, resumes",
        "test_ingest_real_kafka.py::test_a_broker_restart_is_survived",
        "faults/test_group.py::test_partitions_of_a_broker_that_is_away_keep_nobody_waiting",
        "faults/test_kafka_cluster.py::test_one_of_two_brokers_goes_and_then_both_for_minutes",
    ),
    _row(
        14,
        "records deleted below the position",
        "an error, exit 1, nothing skipped",
        "test_ingest_faults.py::test_records_deleted_before_they_were_read_stop_the_process",
        "test_ingest_real_kafka.py::test_records_deleted_before_they_were_read_stop_the_process",
    ),
    _row(
        15,
        "a group without offsets",
        "exit 1 with the command that seeds them",
        "test_ingest_faults.py::test_a_group_without_offsets_stops_with_the_command_to_run",
    ),
    _row(
        16,
        "an unclean leader: the log lost its end, with and without the group's offsets",
        "exit 1, no offset moved; or read on, and nothing of what was read lost or doubled",
        "faults/test_kafka_cluster.py::test_a_leader_that_lacks_records_hides_no_loss",
        "faults/test_real_kafka.py::test_a_log_that_lost_its_end_stops_it",
    ),
    _row(
        17,
        "an aborted producer transaction",
        "never seen",
        "test_ingest_real_kafka.py::test_an_aborted_transaction_is_never_seen",
    ),
    _row(
        18,
        "MongoDB's answer lost, once and again",
        "repeated, each event once",
        "faults/test_cut.py::test_an_answer_that_is_lost_after_the_write_is_asked_for_again",
        "test_store_writes.py::test_no_answer_and_no_primary_mean_repeat",
    ),
    _row(
        19,
        "MongoDB not primary; stepped down",
        "repeated; waited for",
        "test_store_writes.py::test_no_answer_and_no_primary_mean_repeat",
        "faults/test_store.py::test_a_server_that_takes_no_writes_for_a_while_is_waited_for",
    ),
    _row(
        20,
        "write concern error, also among duplicates",
        "the whole batch again, no commit",
        "test_store_writes.py::test_an_unknown_durability_is_no_success_even_among_duplicates",
        "test_store_writes.py::test_a_ledger_write_of_unknown_durability_is_no_success",
    ),
    _row(
        21,
        "MongoDB killed; frozen; its primary killed; its majority gone for two minutes",
        "pauses, keeps its partitions, no dead letters; what was taken back is stored again",
        "test_ingest_faults.py::test_a_mongodb_outage_is_waited_out",
        "faults/test_replica_set.py::test_a_primary_dies_and_then_the_majority_for_minutes",
    ),
    _row(
        22,
        "MongoDB's disk full; read-only; rights revoked",
        "waits for a mongod that ended; stops and says so; no commit, no dead letter",
        "faults/test_store.py::test_a_full_disk_of_mongodb_is_waited_out",
        "test_store_writes.py::test_what_repeating_does_not_repair_stops",
        "faults/test_store.py::test_rights_taken_away_stop_it_and_given_back_lose_nothing",
    ),
    _row(
        23,
        "five seconds a write, ten times; 200,000 events at once",
        "the lag grows, memory stays below 400 MB, partitions stay",
        "faults/test_store.py::test_five_seconds_a_write_and_ten_times_the_input_grow_a_lag_and_nothing_else",
    ),
    _row(
        24,
        "the same event twice: in a batch, later, elsewhere",
        "stored once, counted once",
        _ORDER,
        "test_store_writes.py::test_new_known_and_conflicting",
        _TWO_CLUSTERS,
    ),
    _row(
        25,
        "the same id with another payload",
        "the first stays, the second is a dead letter",
        "test_ingest_hostile.py::test_the_same_id_with_another_payload_is_a_dead_letter",
    ),
    _row(
        26,
        "out of order; late; late after final",
        "counted; a correction where it was final",
        _ORDER,
        "test_closing_order.py::test_sparse_events_in_any_order_give_one_ledger",
        "test_closing.py::test_a_late_event_moves_money_of_a_final_cell_by_a_correction",
    ),
    _row(
        27,
        "times in 2099, 1970, without zone, in no calendar",
        "dead letters; the broker's clock counts",
        _HOSTILE,
        "test_ingest_real_kafka.py::test_the_clock_that_counts_is_the_brokers",
    ),
    _row(
        28,
        "one GPU silent; a partition silent, or stalled",
        "silence is paid for minute by minute; stalled is an error, idle is none",
        "test_closing_silence.py::test_silence_is_opened_minute_by_minute_and_goes_on_after_what_is_heard_in_it",
        "test_closing.py::test_silent_minutes_between_and_after_are_paid_for_as_unobserved",
        "test_kafka_clients.py::test_a_partition_that_stalls_is_an_error_and_one_that_is_idle_is_not",
    ),
    _row(
        29,
        "a price after its tokens; missing; changed",
        "computed again; null, never 0; as of its time",
        "test_closing.py::test_a_retroactive_price_reaches_open_and_final_cells",
        "test_known_gpus.py::test_what_comes_later_makes_it_whole",
        "test_known_gpus.py::test_a_record_that_invents_gpus_moves_no_money",
    ),
    _row(
        30, "NaN, Infinity, 1e999, 2^63, 5,000 digits, true as a number", "dead letters", _HOSTILE
    ),
    _row(
        31,
        "depth 100,000, many keys, a key twice, NUL, surrogates, UTF-16, gzip",
        "dead letters, memory flat",
        _HOSTILE,
        "test_ingest_hostile.py::test_memory_stays_flat",
    ),
    _row(
        32,
        "null, no bytes, 1 MiB and more; 10,000 headers",
        "dead letters; headers are read by nobody",
        _HOSTILE,
        "test_ingest_hostile.py::test_ten_thousand_headers_are_read_by_nobody",
    ),
    _row(
        33,
        "dead-letter topic not authorised; record too large for it",
        "stops and says so, no commit; cut, with length and hash, and nobody waits",
        "faults/test_real_kafka.py::test_a_dead_letter_topic_it_may_not_write_to_stops_it",
        "faults/test_real_kafka.py::test_a_record_too_large_for_the_dead_letter_topic_is_cut_and_holds_nobody_up",
    ),
    _row(
        34,
        "all records bad",
        "said loudly, every one a dead letter; whoever sends good ones does not wait",
        "test_ingest_faults.py::test_bad_records_stop_nobody_however_many_they_are",
    ),
    _row(
        35,
        "an unknown field; an unknown schema",
        "counted and told; a dead letter",
        _HOSTILE,
        "api/test_api_answers.py::test_a_misspelt_field_is_accepted_told_counted_and_refused_on_request",
    ),
    _row(
        36,
        "clock set by an hour, forward and back",
        "stops and says so; no value changes",
        "faults/test_host.py::test_a_clock_that_is_set_by_an_hour_changes_no_value",
    ),
    _row(
        37,
        "out of memory; out of descriptors; full log volume",
        "ends or waits; nothing lost",
        "faults/test_host.py::test_out_of_memory_it_ends_and_the_next_one_loses_nothing",
        "faults/test_host.py::test_the_kernels_end_for_want_of_memory_loses_nothing",
        "tests/unit/processor/test_watchdog.py::test_only_what_stands_still_is_ended",
        "faults/test_host.py::test_out_of_file_descriptors_it_waits_and_loses_nothing",
        "faults/test_host.py::test_a_full_log_volume_stops_nobody",
    ),
    _row(
        38,
        "a site lost; re-read at the other; back",
        "each event once",
        _TWO_CLUSTERS,
        lacks=_DRILL,
    ),
    _row(
        39,
        "MirrorMaker's duplicates, its lag at the loss",
        "each event once; complete",
        _TWO_CLUSTERS,
        lacks=_DRILL,
    ),
    _row(
        40,
        "cut off from MongoDB only; from Kafka only; both ways, and each way alone",
        "stalls, no half commit",
        "faults/test_cut.py::test_cut_off_from_mongodb_only_it_stalls_and_commits_no_half",
        "faults/test_cut.py::test_cut_off_from_kafka_only_it_stalls_and_commits_no_half",
    ),
    _row(
        41,
        "raw events would expire before their cells are final",
        "the setting is refused at the start",
        "tests/unit/test_settings.py::test_what_cannot_be_used_is_named_with_its_rule",
        "test_closing.py::test_a_cell_whose_raw_events_have_expired_stays_as_it_is",
    ),
    _row(
        42,
        "two replicas compute the same cells at once",
        "guarded, one result",
        "test_closing.py::test_two_closers_at_once_agree",
        "test_rollups.py::test_two_writers_and_a_closer_at_once_end_in_the_right_sums",
    ),
)
