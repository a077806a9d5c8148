//! The scenarios in `scenarios/`: important sequences, and every counterexample ever found. Each file is a
//! test of its name. A failure prints everything that happened.

use std::{collections::BTreeSet, fs, path::PathBuf};

use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::{random::scenario, scenario::Scenario};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src/decide/tests/scenarios"].iter().collect()
}

fn play(test: &str) {
    let file = folder().join(format!("{}.yaml", test.replace('_', "-")));
    let story: Scenario = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let broken = story.broken();
    assert!(broken.is_empty(), "{}\n{}\n{}", story.title, broken.join("\n"), story.reported());
}

macro_rules! stories {
    ($(fn $name:ident();)*) => {
        $(
            #[test]
            fn $name() {
                play(stringify!($name));
            }
        )*

        const STORIES: &[&str] = &[$(stringify!($name)),*];
    };
}

stories! {
    fn a_previous_version_whose_restart_failed_is_scaled_down();
    fn promise_7_a_follower_turns_to_the_next_version_while_a_gateway_accepts_nothing();
    fn a_service_deleted_by_hand_is_restored();
    fn rolling_back_in_mid_exchange_starts_no_pods_that_somebody_changed();
    fn removing_the_size_right_after_a_crash_does_not_shrink_the_serving_version();
    fn with_skip_a_version_whose_smoke_test_cannot_run_serves_without_it();
    fn an_alias_moved_occasionally_is_put_back_each_time();
    fn promise_10_a_version_that_was_registered_again_does_not_slip_in();
    fn promise_10_a_version_that_does_not_exist_is_reported();
    fn promise_11_nothing_starts_while_another_modelalias_owns_the_alias();
    fn promise_1_a_blocker_does_not_freeze_traffic();
    fn promise_1_a_failover_does_not_wait_for_the_size();
    fn promise_1_a_rebuilt_cluster_serves_the_live_version_while_the_newest_fails();
    fn promise_1_a_rebuilt_cluster_serves_the_live_version_while_the_rules_reject_the_newest();
    fn promise_1_a_rollback_to_a_version_scaled_to_zero_needs_no_registeredmodel();
    fn promise_1_a_service_with_another_owner_is_not_touched();
    fn promise_1_a_gateway_whose_controller_goes_away_sends_nothing_to_a_stopped_version();
    fn a_size_that_was_removed_before_it_was_seen_is_not_desired();
    fn a_serving_version_without_a_service_does_not_shrink_when_its_size_is_removed();
    fn rolling_blocked_in_mid_exchange_has_all_its_pods();
    fn rolling_has_no_room_for_a_rollback_while_bad_settings_of_what_serves_take_it();
    fn promise_1_a_route_goes_on_after_the_status_and_the_service_are_lost();
    fn promise_1_a_version_that_fails_its_smoke_test_gets_no_traffic();
    fn promise_1_the_warm_version_replaces_one_that_loses_all_its_pods();
    fn promise_1_a_change_of_strategy_in_mid_exchange_stops_no_pod_that_answers();
    fn promise_1_endpoints_older_than_a_restored_service_stop_no_pods();
    fn promise_1_rolling_replaces_pods_within_its_bounds_and_rolls_back_the_same_way();
    fn promise_1_rolling_grows_again_only_as_terminating_pods_free_room();
    fn promise_1_behind_a_route_a_version_that_only_the_alias_named_has_not_served();
    fn promise_1_rolling_with_a_lost_status_stays_within_its_bounds();
    fn promise_1_a_version_that_only_the_alias_named_has_not_served();
    fn promise_1_two_bad_versions_in_a_row_do_not_move_traffic();
    fn promise_2_a_canary_keeps_its_time_when_another_version_was_tried_before_it();
    fn promise_2_a_promotion_and_a_rollback_never_leave_fewer_pods_answering();
    fn promise_3_a_list_that_lacks_the_serving_version_moves_no_follower();
    fn promise_3_denied_permission_and_a_missing_model_do_not_affect_serving();
    fn promise_3_a_new_version_waits_for_an_unreachable_registry();
    fn promise_3_an_operator_that_has_not_read_the_registry_yet_does_not_move_traffic_back();
    fn promise_3_an_operator_that_has_not_read_the_registry_yet_abandons_no_rollout();
    fn promise_3_nothing_changes_while_the_registry_is_unreachable();
    fn promise_4_an_alias_is_contested_only_after_the_last_attempt_ended();
    fn promise_4_an_alias_moved_by_hand_is_put_back();
    fn promise_4_a_restarted_operator_recognizes_its_own_alias_write();
    fn promise_4_ready_waits_until_the_alias_is_known_to_name_the_serving_version();
    fn promise_5_a_rollback_to_a_version_scaled_to_zero_needs_no_registry();
    fn promise_5_a_rollback_does_not_wait_for_the_size();
    fn promise_6_a_change_of_size_does_not_extend_the_deadline();
    fn promise_6_a_follower_retries_a_failed_version_only_when_the_alias_is_set_again();
    fn promise_6_a_retry_sends_the_input_example_again();
    fn promise_6_a_retry_that_is_not_possible_yet_stays_pending();
    fn promise_6_an_aborted_smoke_test_does_not_count_in_a_later_attempt();
    fn promise_6_a_smoke_test_that_cannot_run_rejects_no_version();
    fn promise_6_a_version_is_not_rejected_for_lack_of_capacity();
    fn promise_6_a_version_requested_again_is_tested_again();
    fn promise_6_a_version_whose_node_is_gone_is_not_rejected();
    fn promise_6_a_version_whose_pods_were_evicted_is_not_rejected();
    fn promise_6_an_unreadable_input_example_rejects_no_version();
    fn promise_6_changed_settings_are_a_new_attempt();
    fn promise_6_with_drift_report_the_alias_stays_and_the_version_stays_rejected_until_a_retry();
    fn promise_7_a_follower_finishes_one_start_before_the_next();
    fn promise_7_a_contested_alias_is_not_touched_until_a_retry();
    fn promise_7_rolling_with_a_lost_status_completes_with_changed_settings();
    fn promise_7_rolling_with_a_lost_status_makes_room_for_a_third_version();
    fn promise_7_a_version_held_for_a_blocked_request_is_not_rejected_repeatedly();
    fn promise_7_the_warm_version_takes_over_once_while_a_blocked_request_has_other_settings();
    fn promise_9_a_deletion_deletes_the_aliases();
    fn promise_9_a_deletion_waits_for_the_registry_with_a_deadline();
    fn rolling_with_bad_settings_and_a_third_version_restores_what_served_first();
    fn settings_of_a_rejected_version_do_not_reach_the_serving_one();
    fn nothing_changes_while_suspended();
    fn the_warm_version_is_scaled_down_after_its_time_and_history_is_kept();
    fn the_serving_version_grows_but_does_not_shrink_during_a_rollout();
}

#[test]
fn every_file_is_a_test() {
    let files =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.collect();
    let tests = STORIES.iter().map(|test| format!("{}.yaml", test.replace('_', "-")));
    assert_eq!(files, tests.collect::<BTreeSet<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A printed counterexample can be kept in the folder as it is.
    #[test]
    fn a_story_says_all_in_yaml(story in scenario(30)) {
        prop_assert_eq!(serde_yaml::from_str::<Scenario>(&story.yaml()).unwrap(), story);
    }
}
