//! Experiments as people write them.

use pretty_assertions::assert_eq;

use super::{alias, challenger, model, reported};

const APPROVED: &str = "{name: approved, role: Primary, goal: Maximize, predictions: {class: '1'}}";
const AMOUNT: &str = "{name: amount, role: Primary, goal: Maximize, predictions: {mean: {}}}";
const FAILURES: &str = "{name: failures, role: Primary, failures: {}}";
const MISSING: &str = "{name: missing, role: Guardrail, missing: {}}";

fn experiment(name: &str, metrics: &str, more: &str) -> String {
    format!(
        "kind: ModelExperiment\nmetadata: {{name: {name}}}\nspec: {{championRef: {{name: a}}, challengers: \
         [{{aliasRef: {{name: b}}}}], metrics: [{metrics}]{more}}}"
    )
}

/// The champion a: what it follows or serves, more of `serving`, and its challengers.
fn champion(goal: &str, serving: &str, challengers: &str) -> String {
    let traffic = format!("gateway: {{parentRefs: [{{name: public}}]}}, challengers: [{challengers}]");
    let spec = format!("alias: champion, {goal}, serving: {{image: i{serving}}}, traffic: {{{traffic}}}");
    alias("a", "fraud", &spec)
}

/// The challenger b of a model.
fn rival(model: &str, serving: &str) -> String {
    alias("b", model, &format!("alias: challenger, version: '2', serving: {{image: i{serving}}}"))
}

/// What is found in an experiment among these manifests.
fn found(experiment: &str, others: &[String]) -> Vec<String> {
    let mut documents = vec![model("fraud", "")];
    documents.extend_from_slice(others);
    documents.push(experiment.to_owned());
    let all = reported(&documents.iter().map(String::as_str).collect::<Vec<_>>());
    all.into_iter().filter(|finding| finding.contains("ModelExperiment")).collect()
}

/// As [`found`], for a champion and a challenger with more of `serving`.
fn counted(metrics: &str, serving: [&str; 2]) -> Vec<String> {
    let arms = [champion("version: '1'", serving[0], &challenger("b", 10)), rival("fraud", serving[1])];
    found(&experiment("e", metrics, ""), &arms)
}

#[test]
fn a_complete_experiment_has_no_findings_and_another_one_may_compare_the_same() {
    let arms = [champion("version: '1'", "", &challenger("b", 10)), rival("fraud", "")];
    let one = experiment("one", &format!("{APPROVED}, {MISSING}"), "");
    let other = experiment("other", FAILURES, ", falseAlarm: 0.01, duration: {atLeast: 24h, atMost: 48h}");
    assert_eq!(found(&one, &[arms.as_slice(), &[other]].concat()), [""; 0]);
}

#[test]
fn the_rules_of_the_api_apply() {
    for (metrics, more, part) in [
        (MISSING, "", "spec.metrics: exactly one metric has the role Primary"),
        (FAILURES, ", falseAlarm: 0", "falseAlarm"),
        (FAILURES, ", duration: {atLeast: 5h, atMost: 4h}", "duration.atLeast is at most duration.atMost"),
        (FAILURES, ", winner: b", "spec.winner: unknown field"),
        ("{name: x, role: Primary, predictions: {class: '1'}}", "", "predictions need a goal"),
        ("{name: x, role: Primary, failures: {}, missing: {}}", "", "a metric has exactly one of"),
        ("{name: x, role: Primary, slow: {over: 260ms}}", "", "spec.metrics[0].slow.over"),
    ] {
        let found = found(&experiment("e", metrics, more), &[]);
        let matching = found.iter().filter(|it| it.starts_with("error ModelExperiment e spec"));
        assert!(matching.into_iter().any(|it| it.contains(part)), "{part:?} is missing: {found:?}");
    }
}

#[test]
fn what_is_not_among_the_manifests_is_unknown() {
    let found = found(&experiment("e", AMOUNT, ", onWinner: SetAlias"), &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    let parts = [
        r#"warning ModelExperiment e spec.challengers[0]: these manifests have no ModelAlias "b"; it must"#,
        r#"warning ModelExperiment e spec.championRef: these manifests have no ModelAlias "a"; it must"#,
    ];
    for (finding, part) in found.iter().zip(parts) {
        assert!(finding.starts_with(part), "{finding}");
    }
}

#[test]
fn a_challenger_answers_a_share_of_the_requests_to_the_champion() {
    let with = |challengers: &str| {
        found(
            &experiment("e", FAILURES, ""),
            &[champion("version: '1'", "", challengers), rival("fraud", "")],
        )
    };
    assert_eq!(
        with(&challenger("c", 10)),
        [
            r#"error ModelExperiment e spec.challengers[0]: spec.traffic.challengers of "a" does not list "b", so it gets no requests: list it there with a weight"#
        ]
    );
    assert_eq!(
        with("{aliasRef: {name: b}, mirror: 100}"),
        [
            r#"error ModelExperiment e spec.challengers[0]: "b" gets only copies of the requests to "a", and an experiment compares answers: give it a weight instead of mirror"#
        ]
    );
}

#[test]
fn every_arm_counts_what_is_compared() {
    let (numbers, off) = (", metrics: {predictions: Numbers}", ", metrics: {predictions: Disabled}");
    let (custom, shown) = (", runtime: custom", ", runtime: custom, metrics: {port: 9090}");
    assert_eq!(counted(AMOUNT, [numbers, numbers]), [""; 0]);
    assert_eq!(counted(FAILURES, [shown, off]), [""; 0]);
    for (metrics, serving, part) in [
        (
            AMOUNT,
            [numbers, ""],
            r#""b" needs spec.serving.metrics.predictions: Numbers for "amount"; now it is Classes"#,
        ),
        (
            AMOUNT,
            [off, numbers],
            r#""a" needs spec.serving.metrics.predictions: Numbers for "amount"; now it is Disabled"#,
        ),
        (
            APPROVED,
            ["", numbers],
            r#""b" needs spec.serving.metrics.predictions: Classes for "approved"; now it is Numbers"#,
        ),
        (
            APPROVED,
            [off, ""],
            r#""a" needs spec.serving.metrics.predictions: Classes for "approved"; now it is Disabled"#,
        ),
        (
            APPROVED,
            ["", shown],
            r#""b" has the runtime custom, whose predictions are not counted, as "approved" needs: use failures or slow, or another runtime"#,
        ),
        (
            FAILURES,
            ["", custom],
            r#""b" has the runtime custom: set its spec.serving.metrics.port, or its requests are not counted"#,
        ),
    ] {
        assert_eq!(counted(metrics, serving), [format!("error ModelExperiment e spec.metrics[0]: {part}")]);
    }
    let guardrail = counted(&format!("{FAILURES}, {MISSING}"), [shown, ""]);
    assert!(
        guardrail.len() == 1 && guardrail[0].contains(r#"spec.metrics[1]: "a" has the runtime custom"#),
        "{guardrail:?}"
    );
}

#[test]
fn a_winner_can_only_be_set_where_the_champion_follows_its_alias() {
    let set = experiment("e", FAILURES, ", onWinner: SetAlias");
    let with = |goal: &str, others: &[String]| {
        let champion = champion(goal, "", &challenger("b", 10));
        found(&set, &[&[champion], others].concat())
    };
    let follows = "follow: {registry: {}}";
    assert_eq!(with(follows, &[rival("fraud", "")]), [""; 0]);
    for goal in ["version: '1'", "follow: {latest: {}}"] {
        assert_eq!(
            with(goal, &[rival("fraud", "")]),
            [
                r#"error ModelExperiment e spec.onWinner: SetAlias sets the alias champion in the registry, and "a" does not follow it: set spec.follow.registry there, or onWinner: Report here"#
            ],
            "{goal}"
        );
    }
    let same = model("again", "modelName: fraud");
    assert_eq!(with(follows, &[same, rival("again", "")]), [""; 0], "one model under two names");
    assert_eq!(with(follows, &[rival("elsewhere", "")]), [""; 0], "it may be the same model");
    assert_eq!(
        with(follows, &[model("churn", ""), rival("churn", "")]),
        [
            r#"error ModelExperiment e spec.onWinner: SetAlias cannot set the alias champion to a version of "b", which serves another model than "a": use Report"#
        ]
    );
}
