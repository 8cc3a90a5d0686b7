//! The conformance suite for backends: one story for each rule of the contract in `storage`, over the traits alone.
//!
//! Open the backend with [`options`], then run the [`STORIES`] one by one, to name them in your own
//! test harness. Every story uses fresh names, so all may share one backend and run side by side, and leftovers of an
//! earlier run do no harm. A story panics with the rule that was broken. None of them asserts how fast anything is:
//! waits have generous bounds, and only a backend that never answers runs into them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story fails by panicking")]

mod audit;
mod fixture;
mod forms;

mod agreement;
mod bounds;
mod counters;
mod dead_letters;
mod evicting;
mod fetching;
mod inbox;
mod quarantine;
mod recovery;
mod retries;
mod settling;
mod state;
mod streams;
mod timers;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use tidemill_storage::{Backend, Options};

pub(crate) type Story = fn(Arc<dyn Backend>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many dead letters a subscription keeps during the suite: few, so that a story can overflow them.
pub const DEAD_LETTERS_MAX: u64 = 20;
/// Their bytes at most.
pub(crate) const DEAD_LETTERS_BYTES_MAX: u64 = 1 << 20;

/// How many timers may wait during the suite.
pub(crate) const TIMERS_MAX: u64 = 20;

/// The largest event of the suite, and what one fetch delivers at most, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
pub(crate) const FETCH_BYTES_MAX: usize = 3 << 20;

/// What a backend under test is opened with.
pub fn options() -> Options {
    Options {
        timers_bytes: 0,
        inbox_window: Duration::from_secs(3600),
        dead_letters_max: DEAD_LETTERS_MAX,
        dead_letters_bytes_max: DEAD_LETTERS_BYTES_MAX,
        timers_max: TIMERS_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        fetch_bytes_max: FETCH_BYTES_MAX,
    }
}

macro_rules! stories {
    ($($topic:ident: $($name:ident)*;)*) => {
        &[$($((stringify!($name), |backend| Box::pin($topic::$name(backend)))),*),*]
    };
}

/// Every rule, by name.
pub const STORIES: &[(&str, Story)] = stories! {
    fetching:
        what_is_published_is_fetched_in_order
        two_handlers_each_get_every_entry
        an_entry_is_handed_to_one_consumer_only
        fetch_takes_no_more_than_asked
        fetch_waits_and_wakes
        fetch_wakes_for_emitted_and_replayed_events
        fetch_wakes_for_what_is_due_again
        both_queues_are_served
        a_subscription_without_a_group_says_so
        making_a_group_twice_changes_nothing
        start_new_skips_history
        binary_payloads_survive
        what_is_too_large_is_told_by_its_beginning_and_its_hash
        fetch_is_bounded_in_bytes_and_loses_nothing
        what_comes_back_is_bounded_with_its_records;
    settling:
        settled_is_not_fetched_again
        a_commit_applies_emits_state_inbox_and_ack_together
        emits_keep_their_order
        the_same_token_is_settled_once
        a_stranger_is_fenced
        what_is_settled_is_fenced_for_a_second_token
        a_fenced_entry_does_not_spoil_its_batch
        answers_come_in_the_order_of_the_entries
        a_large_settlement_is_settled_whole
        settlements_side_by_side_do_not_mix;
    inbox:
        a_commit_is_remembered
        a_duplicate_drops_its_effects
        a_duplicate_within_one_settlement_drops_its_effects
        a_conflict_stays_pending
        a_conflict_within_one_settlement_stays_pending
        only_a_commit_marks_the_inbox
        each_handler_has_its_own_inbox
        a_duplicate_is_a_duplicate_whatever_its_state_version;
    state:
        state_is_written_read_and_deleted
        states_are_looked_up_as_far_as_there_is_room
        a_stale_state_version_stays_pending
        a_stale_entry_leaves_no_mark
        only_a_commit_depends_on_the_state_version
        reading_state_does_not_raise_its_version
        a_chain_on_one_key_commits_in_one_settlement
        a_broken_chain_makes_its_followers_stale
        a_chain_whose_first_entry_is_stale_is_stale_throughout
        each_handler_has_its_own_state
        deleting_the_last_value_keeps_the_version
        states_are_listed_in_the_order_of_their_keys
        odd_keys_and_names_are_kept_apart;
    retries:
        a_retry_comes_back_with_its_history_when_it_is_due
        a_retry_is_not_promoted_before_its_time
        a_retry_comes_back_again_and_again
        a_long_history_keeps_its_ends
        promotion_is_bounded
        a_retry_belongs_to_its_own_handler;
    timers:
        a_timer_is_set_by_the_commit_and_comes_back_once
        what_does_not_commit_sets_no_timer
        a_settlement_sent_again_sets_no_timer_twice
        timers_come_in_the_order_of_their_time
        a_timer_is_not_promoted_before_its_time
        a_timer_is_retried_and_dies_as_a_timer
        a_timer_survives_the_host_that_set_it
        timers_are_bounded;
    dead_letters:
        a_dead_letter_keeps_the_exact_bytes
        a_dead_letter_without_a_try_has_no_history
        dead_letters_are_listed_in_pages
        dead_letters_are_bounded
        replay_goes_to_its_own_handler_only_and_once
        a_replayed_letter_starts_afresh_and_can_die_again;
    evicting:
        what_never_ran_goes_before_what_ran
        what_never_ran_has_half_at_most
        a_letter_with_an_attempt_on_record_has_run
        dead_letters_are_bounded_by_their_bytes
        what_never_ran_has_half_of_the_bytes
        what_is_dropped_and_replayed_leaves_the_account;
    quarantine:
        what_is_released_goes_to_whoever_comes_next_with_no_crash
        a_suspect_is_set_aside_until_it_is_taken
        who_dies_with_a_suspect_died_alone
        who_leaves_with_a_suspect_has_not_died
        what_the_third_host_died_with_is_set_aside_unread
        what_two_hosts_died_with_comes_a_few_at_a_time;
    audit:
        a_replay_is_linked_to_its_letter_and_counted
        one_letter_replayed_by_many_at_once_is_replayed_once
        dropped_letters_balance_the_counters
        an_edited_letter_comes_back_with_its_new_body
        who_did_what_is_written_down_in_order
        an_act_on_nothing_leaves_no_record
        audit_records_are_bounded
        a_pause_stays_until_it_is_ended
        acts_on_one_subscription_do_not_show_in_another;
    agreement:
        a_group_is_made_once_and_never_begins_elsewhere
        hosts_are_told_what_others_wish
        what_nobody_wants_is_skipped_by_the_agreement_alone
        what_is_left_waits_for_who_takes_it
        looking_after_a_subscription_changes_no_counters;
    recovery:
        own_pending_is_found_again_minus_what_is_held
        what_a_dead_consumer_held_is_recovered_with_a_crash_counted
        crashes_add_up_and_survive_a_retry
        what_a_living_consumer_holds_is_left_alone
        a_dead_consumer_s_lease_is_waited_for
        recovery_finds_the_redelivery_queue_too
        recovery_is_bounded
        who_takes_leave_is_dead_at_once
        a_host_is_listed_with_its_note_while_it_lives;
    streams:
        publish_knows_its_ids
        publish_knows_its_ids_within_one_call
        each_stream_has_its_own_ids
        entries_are_listed_in_pages
        trim_spares_what_a_group_has_not_finished
        trim_by_age_spares_what_is_pending
        a_stream_that_nobody_reads_is_trimmed;
    bounds:
        trimming_tells_what_is_left
        what_is_held_over_the_bounds_is_counted
        overflow_drop_is_counted
        overflow_drop_by_age_spares_the_young
        what_is_dropped_in_a_living_hand_is_settled
        what_is_dropped_in_a_dead_hand_is_recorded
        examining_changes_nothing;
    counters:
        the_counters_balance
        waiting_has_an_age
        what_is_in_flight_has_an_age_of_its_own
        consumers_are_counted
        a_backend_has_a_size
        the_secret_for_ids_is_made_once
        a_duplicate_is_counted_as_skipped
        each_version_of_a_plugin_has_its_counter
        the_counters_of_old_versions_become_one;
};

/// A story that needs more than the traits: how an entry without the field `event` gets on a stream depends on the
/// backend, so the caller passes `put`.
pub async fn foreign_fields_are_kept<F>(backend: Arc<dyn Backend>, put: F)
where
    F: AsyncFn(&str, &[(Bytes, Bytes)]),
{
    dead_letters::foreign_fields_are_kept(backend, put).await;
}
