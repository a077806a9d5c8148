//! Tests of each rule and of their combination.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pretty_assertions::assert_eq;

use super::{Evidence, EvidenceFacts, Measured, Metrics, RuleFinding, RuleOutcome, examine, listed};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        metric::Metric,
        names::Version,
        promotion::PromotionRule,
    },
    decide::{RegistryView, VersionView},
};

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn metrics(values: &[(&str, f64)]) -> Metrics {
    Metrics::Known(values.iter().map(|(name, value)| ((*name).to_owned(), Metric::new(*value))).collect())
}

fn facts(metrics: Metrics) -> EvidenceFacts {
    EvidenceFacts {
        registered_at: Timestamp::UNIX_EPOCH,
        has_description: true,
        tags: BTreeMap::from([("validated".to_owned(), "true".to_owned())]),
        metrics,
        measured: Measured::Run,
        of_logged_model: BTreeSet::new(),
        unread: None,
    }
}

/// Version 5 is the candidate and `challenger`; version 4 is `champion`.
fn registry(candidate: EvidenceFacts, champion: Metrics) -> RegistryView {
    let evidence = [(version(5), Evidence::Known(candidate)), (version(4), Evidence::Known(facts(champion)))];
    RegistryView {
        aliases: BTreeMap::from([("challenger".to_owned(), version(5)), ("champion".to_owned(), version(4))]),
        evidence: evidence.into(),
        ..RegistryView::default()
    }
}

fn find(rule: &str, registry: &RegistryView) -> RuleFinding {
    let rule: PromotionRule =
        serde_yaml::from_str(&format!("{{name: r, aliases: [champion], {rule}}}")).unwrap();
    let found = examine(&[rule], version(5), registry);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

/// Asserts a rule's finding for the candidate: required value, actual value and whether it is met.
fn says(rule: &str, registry: &RegistryView, (required, seen, holds): (&str, &str, bool)) {
    let outcome = if holds { RuleOutcome::Passed } else { RuleOutcome::Failed };
    assert_eq!(
        find(rule, registry),
        RuleFinding { required: required.into(), seen: seen.into(), outcome },
        "{rule}"
    );
}

#[test]
fn a_metric_must_be_within_bounds_and_missing_or_nan_fails() {
    let known = |values: &[(&str, f64)]| registry(facts(metrics(values)), metrics(&[]));
    let good = known(&[("auc", 0.93), ("p99_ms", 41.0)]);
    let min = "metrics: [{name: auc, min: 0.90}]";
    says(min, &good, ("metric auc at least 0.9", "0.93", true));
    says(min, &known(&[("auc", 0.9)]), ("metric auc at least 0.9", "0.9", true));
    says(min, &known(&[("auc", 0.87)]), ("metric auc at least 0.9", "0.87", false));
    says(min, &known(&[]), ("metric auc at least 0.9", "its run has no such metric", false));
    says(min, &known(&[("auc", f64::NAN)]), ("metric auc at least 0.9", "NaN", false));
    says("metrics: [{name: p99_ms, max: 50}]", &good, ("metric p99_ms at most 50", "41", true));
    says("metrics: [{name: p99_ms, max: 40}]", &good, ("metric p99_ms at most 40", "41", false));
    let nan = known(&[("p99_ms", f64::NAN)]);
    says("metrics: [{name: p99_ms, max: 50}]", &nan, ("metric p99_ms at most 50", "NaN", false));
    says(
        "metrics: [{name: auc, min: 0.5, max: 0.92}]",
        &good,
        ("metric auc from 0.5 to 0.92", "0.93", false),
    );
    // MLflow writes infinity like this.
    let huge = known(&[("cost", f64::MAX)]);
    let seen = "1.7976931348623157e308";
    says("metrics: [{name: cost, max: 1000}]", &huge, ("metric cost at most 1000", seen, false));
}

/// MLflow 3: a version may be registered from a logged model, without a run.
#[test]
fn a_metric_of_a_logged_model_counts_where_the_run_has_none_and_is_named_as_such() {
    let min = "metrics: [{name: auc, min: 0.90}]";
    let measured = |measured, of_logged_model: &[&str], values: &[(&str, f64)]| {
        let of_logged_model = of_logged_model.iter().map(|name| (*name).to_owned()).collect();
        let facts = EvidenceFacts { measured, of_logged_model, ..facts(metrics(values)) };
        registry(facts, metrics(&[("auc", 0.9)]))
    };
    let logged = measured(Measured::LoggedModel, &["auc"], &[("auc", 0.93)]);
    says(min, &logged, ("metric auc at least 0.9", "0.93 (of its logged model)", true));
    let improves = "improves: {metric: auc, over: champion}";
    let required = "metric auc no worse than that of champion";
    says(improves, &logged, (required, "0.93 (of its logged model), and 0.9 of version 4", true));
    let of_run = measured(Measured::Both, &[], &[("auc", 0.93)]);
    says(min, &of_run, ("metric auc at least 0.9", "0.93", true));

    let missing = [
        (Measured::Run, "its run has no such metric"),
        (Measured::LoggedModel, "its logged model has no such metric"),
        (Measured::Both, "neither its run nor its logged model has such a metric"),
        (
            Measured::Nothing,
            "it names no run and no logged model, so it has no metrics: register it from a run, or as models:/m-…",
        ),
    ];
    for (source, seen) in missing {
        says(min, &measured(source, &[], &[]), ("metric auc at least 0.9", seen, false));
        says(improves, &measured(source, &[], &[]), (required, seen, false));
    }
}

#[test]
fn an_alias_that_differs_only_in_letter_case_is_named() {
    let mut view = registry(facts(metrics(&[("auc", 0.9)])), metrics(&[]));
    view.aliases.clear();
    view.similar_aliases = BTreeMap::from([
        ("challenger".to_owned(), "Challenger".to_owned()),
        ("champion".to_owned(), "CHAMPION".to_owned()),
    ]);
    let seen = "it names no version; the registry has \"Challenger\": letter case counts";
    says("requiredAlias: challenger", &view, ("alias challenger", seen, false));
    let seen =
        "champion names no version, so any is better; the registry has \"CHAMPION\": letter case counts";
    let required = "metric auc no worse than that of champion";
    says("improves: {metric: auc, over: champion}", &view, (required, seen, true));
}

#[test]
fn what_a_logged_model_that_cannot_be_read_may_have_is_unknown_and_not_missing() {
    let why = ReasonMessage::new(Reason::RegistryForbidden, "403");
    let unread = |values: &[(&str, f64)]| {
        let facts =
            EvidenceFacts { measured: Measured::Both, unread: Some(why.clone()), ..facts(metrics(values)) };
        registry(facts, metrics(&[("auc", 0.9)]))
    };
    for rule in ["metrics: [{name: auc, min: 0.90}]", "improves: {metric: auc, over: champion}"] {
        let outcome = |view: &RegistryView| find(rule, view).outcome;
        assert_eq!(outcome(&unread(&[])), RuleOutcome::Unknown(why.clone()), "{rule}");
        assert_eq!(
            outcome(&unread(&[("auc", 0.93)])),
            RuleOutcome::Passed,
            "what the run has is known: {rule}"
        );
    }
}

#[test]
fn an_improvement_compares_with_the_version_that_the_alias_names_now() {
    let over = |candidate: &[(&str, f64)], champion: &[(&str, f64)]| {
        registry(facts(metrics(candidate)), metrics(champion))
    };
    let auc = "improves: {metric: auc, over: champion}";
    let required = "metric auc no worse than that of champion";
    says(auc, &over(&[("auc", 0.92)], &[("auc", 0.92)]), (required, "0.92, and 0.92 of version 4", true));
    says(auc, &over(&[("auc", 0.91)], &[("auc", 0.92)]), (required, "0.91, and 0.92 of version 4", false));
    says(auc, &over(&[], &[("auc", 0.92)]), (required, "its run has no such metric", false));
    says(auc, &over(&[("auc", f64::NAN)], &[("auc", 0.9)]), (required, "NaN", false));
    let seen = "0.92; version 4, which is champion, has no such metric to compare it with";
    says(auc, &over(&[("auc", 0.92)], &[]), (required, seen, false));
    says(auc, &over(&[("auc", 0.92)], &[("auc", f64::NAN)]), (required, seen, false));

    let by = "improves: {metric: auc, over: champion, by: 0.01}";
    let required = "metric auc at least 0.01 above that of champion";
    says(by, &over(&[("auc", 0.93)], &[("auc", 0.92)]), (required, "0.93, and 0.92 of version 4", true));
    says(by, &over(&[("auc", 0.929)], &[("auc", 0.92)]), (required, "0.929, and 0.92 of version 4", false));
    let cost = "improves: {metric: cost, over: champion, by: 5, goal: Minimize}";
    let required = "metric cost at least 5 below that of champion";
    says(cost, &over(&[("cost", 90.0)], &[("cost", 95.0)]), (required, "90, and 95 of version 4", true));
    says(cost, &over(&[("cost", 99.0)], &[("cost", 95.0)]), (required, "99, and 95 of version 4", false));
}

#[test]
fn an_improvement_passes_if_there_is_no_version_to_compare_with() {
    let registry = registry(facts(metrics(&[])), metrics(&[]));
    let required = |alias| format!("metric auc no worse than that of {alias}");
    let nobody = "nobody names no version, so any is better";
    says("improves: {metric: auc, over: nobody}", &registry, (&required("nobody"), nobody, true));
    let itself = "it is challenger itself";
    says("improves: {metric: auc, over: challenger}", &registry, (&required("challenger"), itself, true));
}

#[test]
fn a_tag_has_exactly_its_value() {
    let good = registry(facts(metrics(&[])), metrics(&[]));
    says("tags: {validated: 'true'}", &good, ("tag validated = \"true\"", "\"true\"", true));
    says("tags: {validated: yes!}", &good, ("tag validated = \"yes!\"", "\"true\"", false));
    says("tags: {approved_by: risk}", &good, ("tag approved_by = \"risk\"", "not set", false));
}

#[test]
fn a_description_and_a_required_alias_must_exist() {
    let good = registry(facts(metrics(&[])), metrics(&[]));
    let bare = registry(EvidenceFacts { has_description: false, ..facts(metrics(&[])) }, metrics(&[]));
    says("description: Required", &good, ("a description", "there", true));
    says("description: Required", &bare, ("a description", "none", false));
    says("requiredAlias: challenger", &good, ("alias challenger", "it names version 5", true));
    says("requiredAlias: champion", &good, ("alias champion", "it names version 4", false));
    says("requiredAlias: nobody", &good, ("alias nobody", "it names no version", false));
}

#[test]
fn unreadable_evidence_is_unknown_with_its_cause() {
    let rules = [
        "metrics: [{name: auc, min: 0.9}]",
        "improves: {metric: auc, over: champion}",
        "tags: {validated: 'true'}",
        "description: Required",
        "requiredAlias: challenger",
    ];
    let cause = |reason| ReasonMessage::new(reason, "why");
    let away = RegistryView {
        error: Some(cause(Reason::RegistryUnreachable)),
        ..registry(facts(metrics(&[("auc", 1.0)])), metrics(&[("auc", 0.1)]))
    };
    for rule in rules {
        let found = find(rule, &away);
        assert_eq!(found.outcome, RuleOutcome::Unknown(cause(Reason::RegistryUnreachable)), "{rule}");
        assert_eq!(found.seen, "not known yet");
    }
    let forbidden = || Metrics::Unread(cause(Reason::RegistryForbidden));
    let unread = RuleOutcome::Unknown(cause(Reason::RegistryForbidden));
    assert_eq!(find(rules[0], &registry(facts(forbidden()), metrics(&[]))).outcome, unread);
    assert_eq!(find(rules[1], &registry(facts(metrics(&[("auc", 1.0)])), forbidden())).outcome, unread);
    assert_eq!(find(rules[2], &registry(facts(forbidden()), metrics(&[]))).outcome, RuleOutcome::Passed);
    let absent = RegistryView {
        versions: BTreeMap::from([(version(5), VersionView::Absent)]),
        ..RegistryView::default()
    };
    let RuleOutcome::Unknown(lines_of) = find(rules[2], &absent).outcome else {
        panic!("the outcome is not Unknown")
    };
    assert_eq!(lines_of.reason, Reason::VersionNotFound);
    let RuleOutcome::Unknown(lines_of) = find(rules[0], &RegistryView::default()).outcome else {
        panic!("not known")
    };
    assert_eq!(lines_of.reason, Reason::RegistryNotRead);
}

#[test]
fn all_rules_are_listed_and_failed_ones_come_first() {
    let registry = registry(facts(metrics(&[("auc", 0.87)])), metrics(&[]));
    let rule: PromotionRule = serde_yaml::from_str(
        "{name: r, aliases: [champion], metrics: [{name: auc, min: 0.9}], tags: {validated: 'true'}, \
         requiredAlias: challenger}",
    )
    .unwrap();
    let found = examine(&[rule], version(5), &registry);
    assert_eq!(
        listed(version(5), &found),
        "version 5 | failed: metric auc at least 0.9: 0.87 | passed: tag validated = \"true\": \"true\"; \
         alias challenger: it names version 5"
    );
}
