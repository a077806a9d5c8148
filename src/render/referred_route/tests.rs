use pretty_assertions::assert_eq;
use proptest::{option, prelude::*, sample::subsequence};

use super::*;

fn number(version: u32) -> Version {
    Version::new(version).unwrap()
}

fn referrer(rule: Option<&str>) -> Referrer<'_> {
    Referrer {
        namespace: "risk",
        name: "fraud",
        rule,
        challengers: ["rival".to_owned()].into(),
        namesakes: ["fraud-v77".to_owned()].into(),
    }
}

fn backend(name: &str, weight: u32) -> Value {
    let port = if name.starts_with("fraud-v") { 80 } else { 8080 };
    json!({ "group": "", "kind": "Service", "name": name, "port": port, "weight": weight })
}

fn rule(backends: &[Value]) -> Value {
    json!({ "name": "main", "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
        "timeouts": { "request": "30s" }, "backendRefs": backends })
}

fn mirror_of(name: &str) -> Value {
    json!({ "type": "RequestMirror", "requestMirror": { "backendRef":
        { "group": "", "kind": "Service", "name": name, "port": 80 } } })
}

/// What a user writes on the first day, as the API server has it.
fn first_day() -> Vec<Value> {
    vec![rule(&[backend("other", 1)]), rule(&[backend("fraud", 1)])]
}

fn written(rules: &[Value], shares: &Shares) -> Vec<Value> {
    rewrite(rules, &referrer(None), shares, 8080).unwrap_or_else(|| rules.to_vec())
}

fn names(rule: &Value) -> Vec<(&str, u64)> {
    let backends = list(rule, "backendRefs").iter();
    backends.map(|backend| (backend["name"].as_str().unwrap(), weight(backend))).collect()
}

#[test]
fn a_route_of_the_first_day_follows_the_service_and_is_left_as_it_is() {
    for weight in [1, 7, 100, 1_000_000] {
        let rules = vec![rule(&[backend("fraud", weight)])];
        let seen = read(&rules, &referrer(None));
        assert!(seen.shares.follow_service() && seen.shares.are_handed_back(), "{seen:?}");
        assert_eq!((seen.outdated, seen.unusable, seen.shares.service()), (false, None, Shares::WHOLE));
        assert_eq!(rewrite(&rules, &referrer(None), &seen.shares, 9), None);
    }
}

#[test]
fn the_services_of_versions_take_its_place_and_hand_it_back() {
    let rules = first_day();
    let entering = Shares::led_by_service([(number(4), Shares::LEAST)], BTreeMap::new());
    let entered = written(&rules, &entering);
    assert_eq!(names(&entered[1]), [("fraud", 999_999), ("fraud-v4", 1)]);
    let led = written(&entered, &Shares::beside(number(4), [(number(5), 100_000)]));
    assert_eq!(names(&led[1]), [("fraud-v4", 900_000), ("fraud-v5", 100_000)]);
    assert_eq!(
        led[1]["backendRefs"][0],
        json!({ "group": "", "kind": "Service", "name": "fraud-v4", "port": 80,
        "weight": 900_000 })
    );
    assert_eq!(written(&led, &Shares::led_by_service([], BTreeMap::new())), rules, "it is as it was");
}

#[test]
fn what_else_a_backend_has_is_the_same_for_all() {
    let filters = json!([{ "type": "RequestHeaderModifier", "requestHeaderModifier": {} }]);
    let mut before = backend("fraud", 1);
    before["filters"] = filters.clone();
    let after = written(&[rule(&[before])], &Shares::led_by(number(4), [number(3)]));
    let backends = list(&after[0], "backendRefs");
    assert!(
        backends.len() == 2 && backends.iter().all(|backend| backend["filters"] == filters),
        "{backends:?}"
    );
}

#[test]
fn copies_are_added_and_removed_and_those_of_others_stay() {
    let mut theirs = rule(&[backend("fraud-v4", 1_000_000)]);
    theirs["filters"] = json!([mirror_of("audit"), { "type": "URLRewrite", "urlRewrite": {} }]);
    for per_cent in [100, 30] {
        let mirror = Mirror { version: number(5), per_cent };
        let alone = Shares::led_by(number(4), []);
        let with = written(&[theirs.clone()], &alone.clone().with_mirror(Some(mirror)));
        assert_eq!(list(&with[0], "filters").len(), 3);
        assert_eq!(read(&with, &referrer(None)).shares.mirror(), Some(mirror));
        assert_eq!(written(&with, &alone), [theirs.clone()]);
    }
    let bare = rule(&[backend("fraud-v4", 1_000_000)]);
    let mirror = Mirror { version: number(5), per_cent: 100 };
    let with = written(std::slice::from_ref(&bare), &Shares::led_by(number(4), []).with_mirror(Some(mirror)));
    assert_eq!(written(&with, &Shares::led_by(number(4), [])), [bare]);
}

#[test]
fn a_route_that_cannot_be_shared_says_why() {
    let why = |rules: &[Value], name: Option<&str>| read(rules, &referrer(name)).unusable.unwrap_or_default();
    let cases = [
        (
            vec![rule(&[backend("other", 1)])],
            None,
            "has no rule that sends requests to the Service \"fraud\"",
        ),
        (first_day(), Some("canary"), "has no rule with the name \"canary\""),
        (vec![rule(&[backend("other", 1)])], Some("main"), "does not send requests to the Service \"fraud\""),
        (vec![rule(&[backend("fraud", 1), backend("other", 1)])], None, "to the Service \"other\" as well"),
        (vec![rule(&[backend("fraud-v77", 1)])], None, "has no rule"),
        (vec![rule(&[backend("fraud", 1), backend("fraud-v77", 1)])], None, "\"fraud-v77\" as well"),
    ];
    for (rules, name, part) in cases {
        assert!(why(&rules, name).contains(part), "{part}: {}", why(&rules, name));
    }
    let elsewhere = json!({ "kind": "Service", "name": "fraud", "namespace": "other", "port": 80 });
    assert!(why(&[rule(&[elsewhere])], None).contains("has no rule"));
    let here = json!({ "kind": "Service", "name": "fraud", "namespace": "risk", "port": 80 });
    assert_eq!(why(&[rule(&[here])], None), "");
    assert_eq!(why(&first_day(), None), "");
}

#[test]
fn a_named_rule_is_the_only_one_that_is_written() {
    let mut second = rule(&[backend("fraud", 1)]);
    second["name"] = "second".into();
    let rules = vec![rule(&[backend("fraud", 1)]), second];
    let after = rewrite(&rules, &referrer(Some("second")), &Shares::led_by(number(4), []), 8080).unwrap();
    assert_eq!((&after[0], names(&after[1])), (&rules[0], vec![("fraud-v4", 1_000_000)]));
}

#[test]
fn of_rules_that_differ_the_largest_weights_count_and_they_are_made_equal() {
    let rules = vec![rule(&[backend("fraud-v4", 1_000_000)]), rule(&[backend("fraud", 1)])];
    let seen = read(&rules, &referrer(None));
    assert!(seen.outdated && seen.shares.follow_service() && seen.shares.of(number(4)) > 0, "{seen:?}");
    let after = written(&rules, &Shares::led_by(number(4), []));
    assert_eq!(names(&after[0]), names(&after[1]));
}

/// Backends of this ModelAlias and of others, with any weights.
fn backends(with_foreign: bool) -> impl Strategy<Value = Vec<Value>> {
    let own = ["fraud", "fraud-v1", "fraud-v2", "fraud-v3", "rival"];
    let foreign = ["other", "fraud-v77", "fraudulent", "fraud-vx"];
    let all = own.into_iter().chain(foreign.into_iter().filter(move |_| with_foreign));
    let all: Vec<&str> = all.collect();
    let weights = prop::collection::vec(prop_oneof![Just(0), Just(1), 2..200u32, Just(1_000_000)], all.len());
    let count = all.len();
    (subsequence(all, 0..=count).prop_shuffle(), weights).prop_map(|(names, weights)| {
        names.into_iter().zip(weights).map(|(name, weight)| backend(name, weight)).collect()
    })
}

fn rules(with_foreign: bool) -> impl Strategy<Value = Vec<Value>> {
    let filters = subsequence(
        vec![
            mirror_of("audit"),
            mirror_of("fraud-v2"),
            mirror_of("rival"),
            json!({ "type": "URLRewrite", "urlRewrite": { "hostname": "x" } }),
        ],
        0..=4,
    );
    let rule = (backends(with_foreign), option::of(filters), option::of("[a-z]{1,3}")).prop_map(
        |(backends, filters, name)| {
            let mut rule = rule(&backends);
            rule["name"] = name.unwrap_or_else(|| "main".to_owned()).into();
            if let Some(filters) = filters.filter(|filters| !filters.is_empty()) {
                rule["filters"] = filters.into();
            }
            rule
        },
    );
    prop::collection::vec(rule, 1..5)
}

/// Weights that add up to the whole.
fn shares() -> impl Strategy<Value = Shares> {
    let version = || (1..4u32).prop_map(number);
    let others = prop::collection::btree_map(version(), prop_oneof![Just(1), 2..200_000u32], 0..3);
    let challenger = option::of(1..100_000u32);
    let mirror = option::of((version(), 1..=100u32));
    let copies = option::of(1..=100u32);
    let all = (option::of(version()), others, challenger, mirror, copies);
    all.prop_map(|(leader, others, challenger, mirror, copies)| {
        let share = |weight| ("rival".to_owned(), ChallengerShare { port: 8080, weight });
        let challengers: BTreeMap<_, _> = challenger.map(share).into_iter().collect();
        let mirror = mirror.map(|(version, per_cent)| Mirror { version, per_cent });
        let shadow = |per_cent| ("rival".to_owned(), Shadow { port: 8080, per_cent });
        match leader {
            Some(leader) => {
                let weights = Shares::beside(leader, others).beside_challengers(leader, challengers);
                weights.with_mirror(mirror).with_shadows(copies.map(shadow).into_iter().collect())
            }
            None => Shares::led_by_service(others, challengers),
        }
    })
}

/// A rule without what belongs to the ModelAlias.
fn without_own(rule: &Value, referrer: &Referrer<'_>) -> Value {
    let mut rule = rule.clone();
    if referrer.backends(&rule).is_some() {
        let theirs = list(&rule, "backendRefs").iter();
        let theirs = theirs.filter(|backend| matches!(referrer.backend(backend), Backend::Foreign(_)));
        rule["backendRefs"] = theirs.cloned().collect();
        let theirs = list(&rule, "filters").iter().filter(|filter| referrer.copied_to(filter).is_none());
        let theirs: Vec<Value> = theirs.cloned().collect();
        rule["filters"] = theirs.into();
    }
    rule
}

proptest! {
    /// Everything that is not ours stays as it is, and in its order.
    #[test]
    fn promise_1_nothing_else_in_the_route_of_somebody_else_is_changed(
        rules in rules(true), shares in shares(),
    ) {
        let referrer = referrer(None);
        let after = written(&rules, &shares);
        prop_assert_eq!(after.len(), rules.len());
        for (before, after) in rules.iter().zip(&after) {
            if referrer.backends(before).is_none() {
                prop_assert_eq!(before, after);
            }
            prop_assert_eq!(without_own(before, &referrer), without_own(after, &referrer));
        }
    }

    /// What was written is what is seen, and writing it again changes nothing.
    #[test]
    fn promise_7_weights_that_were_written_are_not_written_again(rules in rules(false), shares in shares()) {
        let referrer = referrer(None);
        let after = written(&rules, &shares);
        prop_assert_eq!(rewrite(&after, &referrer, &shares, 8080), None);
        let seen = read(&after, &referrer);
        if seen.unusable.is_none() {
            prop_assert!(!seen.outdated);
            prop_assert_eq!(&seen.shares, &shares);
        }
        for rule in after.iter().filter(|rule| referrer.backends(rule).is_some()) {
            let sum: u64 = names(rule).iter().map(|(_, weight)| weight).sum();
            let due = if shares.are_handed_back() { sum } else { Shares::WHOLE.into() };
            prop_assert_eq!(sum, due);
        }
    }

    /// Whatever somebody else set, the parts add up to the whole, and what is named keeps a part.
    #[test]
    fn weights_of_others_are_seen_as_parts_of_the_whole(backends in backends(false)) {
        let (referrer, rules) = (referrer(None), [rule(&backends)]);
        let shares = read(&rules, &referrer).shares;
        let challengers = shares.challengers().values().map(|share| share.weight);
        let versions = shares.iter().map(|(_, weight)| weight);
        let sum: u32 = versions.chain(challengers).chain([shares.service()]).sum();
        let is_own = referrer.backends(&rules[0]).is_some();
        let is_named = names(&rules[0]).iter().any(|(_, weight)| *weight > 0);
        prop_assert_eq!(sum, if is_own && is_named { Shares::WHOLE } else { 0 });
        for (name, weight) in names(&rules[0]) {
            let Some(version) = version(name, "fraud").filter(|_| is_own) else { continue };
            let part = shares.iter().find(|(named, _)| *named == version).map_or(0, |(_, part)| part);
            prop_assert_eq!(part == 0, weight == 0, "version {} has {} of the whole", version, part);
        }
    }

    /// Reading a projection gives the same as reading the whole rules.
    #[test]
    fn what_is_kept_of_a_route_is_enough(rules in rules(true)) {
        let kept: Vec<Value> = rules.iter().map(projection).collect();
        prop_assert_eq!(read(&kept, &referrer(None)), read(&rules, &referrer(None)));
    }
}
