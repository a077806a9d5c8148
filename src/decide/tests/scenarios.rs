//! The stories in `scenarios/`: sequences that matter, and every counterexample that was ever found. Each
//! file is a test of its name. A failure tells all that happened.

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
    fn a_previous_version_that_was_started_again_in_vain_comes_to_rest();
    fn a_service_deleted_by_hand_comes_back();
    fn a_size_that_is_taken_out_right_after_a_crash_does_not_shrink_what_serves();
    fn a_version_whose_smoke_test_cannot_be_done_serves_without_it_where_that_is_asked_for();
    fn an_alias_moved_now_and_then_is_put_back_each_time();
    fn promise_10_a_version_registered_anew_does_not_slip_in();
    fn promise_10_a_version_that_does_not_exist_is_refused();
    fn promise_11_nothing_is_begun_while_another_modelalias_owns_the_alias();
    fn promise_1_a_blocker_does_not_freeze_traffic();
    fn promise_1_a_failover_waits_for_no_size();
    fn promise_1_a_rebuilt_cluster_serves_what_was_live_while_the_newest_version_fails();
    fn promise_1_a_rebuilt_cluster_serves_what_was_live_while_the_rules_refuse();
    fn promise_1_a_rollback_to_a_version_at_rest_needs_no_registeredmodel();
    fn promise_1_a_service_that_belongs_to_somebody_else_is_left_alone();
    fn promise_1_a_version_that_fails_its_smoke_test_gets_no_traffic();
    fn promise_1_a_version_that_loses_all_its_pods_gives_way_to_the_warm_one();
    fn promise_1_endpoints_from_before_the_service_came_back_end_no_pods();
    fn promise_1_rolling_exchanges_pods_in_the_room_there_is_and_goes_back_the_same_way();
    fn promise_1_rolling_grows_again_only_into_the_room_that_ending_pods_leave();
    fn promise_1_rolling_without_a_memory_of_what_served_keeps_to_the_room_there_is();
    fn promise_1_that_the_alias_named_a_version_does_not_count_as_having_served();
    fn promise_1_two_bad_versions_in_a_row_leave_traffic_where_it_is();
    fn promise_2_a_promotion_and_a_rollback_never_leave_fewer_pods_answering();
    fn promise_3_a_list_that_lacks_what_serves_moves_no_follower();
    fn promise_3_a_login_that_may_not_and_a_model_that_is_gone_change_nothing_that_serves();
    fn promise_3_a_new_version_waits_for_a_registry_that_is_away();
    fn promise_3_an_operator_that_has_not_read_the_registry_yet_does_not_move_traffic_back();
    fn promise_3_an_operator_that_has_not_read_the_registry_yet_gives_up_nothing_that_was_begun();
    fn promise_3_nothing_is_touched_while_the_registry_is_away();
    fn promise_4_an_alias_moved_by_hand_is_put_back();
    fn promise_4_an_operator_that_has_just_begun_knows_its_own_write();
    fn promise_4_what_serves_is_not_called_ready_before_the_alias_is_known_to_name_it();
    fn promise_5_a_rollback_to_a_version_scaled_to_zero_needs_no_registry();
    fn promise_5_a_rollback_waits_for_no_size();
    fn promise_6_a_change_of_size_gives_a_start_no_more_time();
    fn promise_6_a_follower_does_not_go_back_to_what_failed_until_the_alias_is_set_again();
    fn promise_6_a_retry_sends_the_input_example_again();
    fn promise_6_a_retry_that_cannot_be_tried_yet_is_not_forgotten();
    fn promise_6_a_smoke_test_cut_short_does_not_condemn_the_version_later();
    fn promise_6_a_smoke_test_that_cannot_be_done_rejects_nothing();
    fn promise_6_a_version_is_not_rejected_for_want_of_room();
    fn promise_6_a_version_wanted_again_is_tested_again();
    fn promise_6_a_version_whose_node_is_gone_is_waited_for();
    fn promise_6_a_version_whose_pods_were_evicted_is_not_rejected();
    fn promise_6_an_input_example_that_cannot_be_read_rejects_nothing();
    fn promise_6_other_settings_are_another_try();
    fn promise_6_with_drift_report_the_alias_stays_and_the_version_stays_rejected_until_somebody_asks();
    fn promise_7_a_follower_finishes_a_start_before_the_next();
    fn promise_7_an_alias_that_somebody_keeps_moving_is_left_alone_until_a_person_asks();
    fn promise_7_rolling_without_a_memory_of_what_served_comes_to_an_end_with_other_settings();
    fn promise_7_rolling_without_a_memory_of_what_served_makes_room_for_a_third_version();
    fn promise_7_what_is_held_because_the_wish_cannot_be_met_is_not_given_up_again_and_again();
    fn promise_7_what_serves_fails_under_a_wish_that_cannot_be_met_with_other_settings();
    fn promise_9_a_deletion_takes_the_alias_with_it();
    fn promise_9_a_deletion_waits_for_the_registry_only_so_long();
    fn rolling_other_settings_and_another_wish_amid_an_exchange_go_back_to_what_served();
    fn settings_meant_for_a_rejected_version_do_not_reach_the_one_that_serves();
    fn suspension_changes_nothing_until_it_is_over();
    fn the_warm_version_rests_when_its_time_is_over_and_history_is_kept();
    fn what_serves_grows_while_another_version_comes_up_and_does_not_shrink();
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

    /// What a counterexample is printed as can be kept in the folder.
    #[test]
    fn a_story_says_all_in_yaml(story in scenario(30)) {
        prop_assert_eq!(serde_yaml::from_str::<Scenario>(&story.yaml()).unwrap(), story);
    }
}
