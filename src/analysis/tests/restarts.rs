//! A restart of the operator loses batches, and never adds any: what is found then is what the others show.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::support::{batch, key, pairs, rules};
use crate::analysis::live::{Data, Verdict, Watch, judge};

fn same_verdict(one: &Watch, other: &Watch) -> bool {
    let verdict = |watch: &Watch| judge(watch, &rules(), Data::Arriving)[0].verdict;
    verdict(one) == verdict(other)
}

proptest! {
    /// The status is written now and then; after a crash the watch goes on from what it has, and the batches
    /// between are lost.
    #[test]
    fn a_restored_watch_is_the_fold_of_the_batches_that_are_left(
        batches in prop::collection::vec((pairs(300), any::<bool>(), prop::bool::weighted(0.1)), 0..30),
    ) {
        let rules = rules();
        let mut watch = Watch::new(key(Some("4")), &rules);
        let mut stored: Option<String> = None;
        // The indices of the batches that are in the watch, and in the stored one.
        let (mut kept, mut kept_when_stored) = (Vec::new(), Vec::new());
        for (index, (pair, is_stored, has_crashed)) in batches.iter().enumerate() {
            watch.add(&batch(index, *pair, [0.5, 0.5]), &rules);
            kept.push(index);
            if *is_stored {
                stored = Some(serde_json::to_string(&watch).unwrap());
                kept_when_stored.clone_from(&kept);
            }
            if *has_crashed {
                let read = stored.as_deref().map(|text| serde_json::from_str(text).unwrap());
                watch = Watch::restored(read, key(Some("4")), &rules);
                kept.clone_from(&kept_when_stored);
            }
        }
        let mut folded = Watch::new(key(Some("4")), &rules);
        for index in &kept {
            folded.add(&batch(*index, batches[*index].0, [0.5, 0.5]), &rules);
        }
        prop_assert_eq!(watch.requests(), folded.requests());
        prop_assert_eq!(watch.covered(), folded.covered());
        prop_assert_eq!(watch.checks()[0].counted, folded.checks()[0].counted);
        let evidence = |watch: &Watch| judge(watch, &rules, Data::Arriving)[0].evidence;
        prop_assert!((evidence(&watch) - evidence(&folded)).abs() < 1e-9);
        prop_assert!(same_verdict(&watch, &folded));
    }

    /// What was proven to be worse stays so, whatever comes after it.
    #[test]
    fn worse_stays_worse(batches in prop::collection::vec(pairs(300), 1..20)) {
        let rules = rules();
        let mut watch = Watch::new(key(Some("4")), &rules);
        let mut was_worse = false;
        for (index, pair) in batches.iter().enumerate() {
            // Shared as it came, so that only the check is judged.
            watch.add(&batch(index, *pair, [0.5, 0.5]), &rules);
            let verdict = judge(&watch, &rules, Data::Arriving)[0].verdict;
            prop_assert!(!was_worse || matches!(verdict, Verdict::Worse | Verdict::Untrusted));
            was_worse = verdict == Verdict::Worse;
        }
    }

    /// A day later, the same batches give the same findings.
    #[test]
    fn the_time_of_day_does_not_matter(batches in prop::collection::vec(pairs(300), 1..10)) {
        let rules = rules();
        let after = |first: usize| {
            let mut watch = Watch::new(key(Some("4")), &rules);
            for (index, pair) in batches.iter().enumerate() {
                watch.add(&batch(first + index, *pair, [0.5, 0.5]), &rules);
            }
            watch
        };
        let (today, tomorrow) = (after(0), after(24 * 240));
        prop_assert_eq!(judge(&today, &rules, Data::Arriving), judge(&tomorrow, &rules, Data::Arriving));
        prop_assert_eq!(today.covered(), tomorrow.covered());
        let shift = tomorrow.last_batch_at().unwrap().duration_since(today.last_batch_at().unwrap());
        prop_assert_eq!(shift, SignedDuration::from_hours(24));
    }

    /// The same batches give the same bytes.
    #[test]
    fn a_watch_is_a_function_of_its_batches(batches in prop::collection::vec(pairs(300), 0..10)) {
        let text = || serde_json::to_string(&super::support::watched(&rules(), &batches)).unwrap();
        prop_assert_eq!(text(), text());
    }
}
