//! Experiments as people see them.

use clap::Parser;
use kube::{Client, Config};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

use super::{
    axis::{Axis, times},
    *,
};
use crate::{
    api::model_experiment::IntervalPoint,
    cli::{Cli, Command},
};

/// Points, one every six hours: an interval around an estimate that gets narrower.
fn history(points: u32, estimate: f64) -> Vec<IntervalPoint> {
    let began: jiff::Timestamp = "2026-11-01T09:00:00Z".parse().unwrap();
    let point = |index: u32| {
        let half = 0.12 / f64::from(index + 1).sqrt();
        let estimate = estimate + if index.is_multiple_of(2) { half / 8.0 } else { -half / 8.0 };
        IntervalPoint {
            at: began + jiff::SignedDuration::from_hours(6 * i64::from(index + 1)),
            estimate,
            lower: estimate - half,
            upper: estimate + half,
            samples: i64::from(index + 1) * 3000,
        }
    };
    (0..points).map(point).collect()
}

fn arm(alias: &str, version: &str, verdict: (&str, &str), history: &[IntervalPoint]) -> Value {
    json!({
        "alias": alias, "version": version, "against": "4", "since": "2026-11-01T09:00:00Z", "weight": 10,
        "result": {
            "verdict": verdict.0, "reason": verdict.1, "estimate": "0.03", "interval": "0.0154 to 0.0446",
            "pValue": "0.000083", "samples": [162_000, 18_000],
            "message": "approved: 18000 samples against 162000, difference 0.03 (0.0154 to 0.0446), p-value \
                        0.000083; and why it has this verdict",
        },
        "history": history,
        "evidence": "{}",
    })
}

/// An experiment in the namespace risk, with the class and the status given.
fn experiment(class: &str, status: &Value) -> ModelExperiment {
    serde_json::from_value(json!({
        "apiVersion": "laurel.dev/v1alpha1",
        "kind": "ModelExperiment",
        "metadata": { "name": "fraud-q4", "namespace": "risk" },
        "spec": {
            "championRef": { "name": "fraud-champion" },
            "challengers": [{ "aliasRef": { "name": "fraud-challenger" } }],
            "metrics": [
                {
                    "name": "approved", "role": "Primary", "goal": "Maximize", "margin": 0.01,
                    "predictions": { "class": class },
                },
                { "name": "failures", "role": "Guardrail", "failures": {} },
                { "name": "slow", "role": "Guardrail", "slow": { "over": "250ms" } },
            ],
        },
        "status": status,
    }))
    .unwrap()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-01T09:00:00Z",
    })
}

fn collecting() -> ModelExperiment {
    let arms = [
        arm("fraud-challenger", "5", ("Collecting", "TooEarly"), &history(20, 0.03)),
        arm("fraud-other", "6", ("Collecting", "TooWide"), &history(1, -0.02)),
    ];
    let split = "pods of fraud-champion counted 95 % of the requests, planned are 80 %";
    let conditions = [
        condition("Ready", "True", "Collecting", "two challengers are compared with version 4"),
        condition("SplitAsPlanned", "False", "SplitMismatch", split),
    ];
    let status = json!({
        "phase": "Collecting", "startedAt": "2026-11-01T09:00:00Z", "championVersion": "4", "arms": arms,
        "conditions": conditions,
    });
    experiment("1", &status)
}

fn concluded() -> ModelExperiment {
    let mut winner = arm("fraud-challenger", "5", ("ChallengerWins", "Significant"), &history(64, 0.03));
    winner["tagged"] = "wins".into();
    let worse = arm("fraud-other", "6", ("ChampionWins", "GuardrailFailed"), &[]);
    let message = "failures: 50 of 100 against 0 of 900";
    let withdrawn = json!([{ "alias": "fraud-other", "version": "6", "message": message }]);
    let status = json!({
        "phase": "Concluded", "startedAt": "2026-11-01T09:00:00Z", "concludedAt": "2026-11-17T09:00:00Z",
        "championVersion": "4", "arms": [winner, worse], "withdrawn": withdrawn, "winner": "fraud-challenger", "aliasSet": true,
    });
    experiment("1", &status)
}

fn pending() -> ModelExperiment {
    let message = "ModelAlias fraud-champion does not exist";
    let status = json!({ "conditions": [condition("Ready", "False", "ChampionUnavailable", message)] });
    experiment("1", &status)
}

#[test]
fn for_a_terminal() {
    insta::assert_snapshot!("collecting", text(&collecting(), 90));
    insta::assert_snapshot!("concluded", text(&concluded(), 200));
    insta::assert_snapshot!("pending", text(&pending(), 80));
}

#[test]
fn every_line_fits_the_terminal() {
    for width in [80, 100, 250] {
        for experiment in [collecting(), concluded(), pending()] {
            let text = text(&experiment, width);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.min(100), "{widest} columns of {width}:\n{text}");
        }
    }
}

#[test]
fn as_svg() {
    insta::assert_snapshot!("svg", svg(&concluded()));
    let pending = svg(&pending());
    assert!(pending.contains("<title id=\"title\">ModelExperiment risk/fraud-q4</title>"), "{pending}");
    assert!(!pending.contains("<g"), "no panels: {pending}");
}

#[test]
fn what_a_class_is_called_is_only_text() {
    let status = collecting().status.unwrap();
    let class = "<script>&\"'\u{1b}[2J]]>\u{85}\u{ffff}";
    let experiment = experiment(class, &serde_json::to_value(status).unwrap());
    let picture = svg(&experiment);
    assert!(!picture.contains("<script") && picture.contains("&lt;script&gt;&amp;"), "{picture}");
    let is_text = |text: &str| text.chars().all(|each| !each.is_control() || each == '\n');
    assert!(is_text(&picture) && !picture.contains('\u{ffff}'), "{picture}");
    let text = text(&experiment, 80);
    assert!(is_text(&text), "{text}");
}

#[test]
fn as_json() {
    let report: Value = serde_json::from_str(&json(&concluded()).unwrap()).unwrap();
    assert_eq!(report["namespace"], "risk");
    assert_eq!(report["name"], "fraud-q4");
    assert_eq!(report["spec"]["championRef"]["name"], "fraud-champion");
    assert_eq!(report["status"]["winner"], "fraud-challenger");
    assert_eq!(report["status"]["arms"][0]["history"].as_array().unwrap().len(), 64);
    assert_eq!(report["status"]["arms"][0]["evidence"], Value::Null, "it is Laurel's own");
}

fn options(words: &[&str]) -> Result<ExperimentOptions, clap::Error> {
    match Cli::try_parse_from([&["laurel", "experiment"], words].concat())?.command {
        Command::Experiment(options) => Ok(options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_picture_is_written_to_a_file_or_the_error_names_it() {
    let folder = std::env::temp_dir().join(format!("laurel-experiment-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("fraud.svg");
    let options_for = |file: &str| options(&["fraud-q4", "--svg", file]).unwrap();
    let mut out = Vec::new();
    options_for(file.to_str().unwrap()).print(&concluded(), 80, &mut out).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), svg(&concluded()));
    assert_eq!(String::from_utf8(out).unwrap(), text(&concluded(), 80));
    std::fs::remove_dir_all(&folder).unwrap();
    let error = options_for("/nowhere/fraud.svg").print(&concluded(), 80, Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("cannot write /nowhere/fraud.svg: "), "{error}");
}

#[test]
fn names_that_would_lead_elsewhere_are_rejected() {
    for words in [&["../secrets"] as &[&str], &["a/b"], &["A"], &["a", "-n", "b?x"], &[""], &[]] {
        assert!(options(words).is_err(), "{words:?}");
    }
    assert_eq!(options(&["a.b", "-n", "risk"]).unwrap().namespace.as_deref(), Some("risk"));
}

/// The error with which a query of an API server ends.
async fn error(answers: &[(&str, u16, Value)]) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = MockServer::start().await;
    for (resource, code, body) in answers {
        let at = format!("/apis/laurel.dev/v1alpha1/namespaces/risk/modelexperiments{resource}");
        let response = ResponseTemplate::new(*code).set_body_json(body);
        Mock::given(path(at)).respond_with(response).mount(&server).await;
    }
    let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
    read(Api::namespaced(client, "risk"), "risk", "fraud-q4").await.unwrap_err().to_string()
}

fn failure(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": "it says so",
    })
}

fn list(names: &[&str]) -> Value {
    let item = |name: &&str| {
        let mut experiment = serde_json::to_value(concluded()).unwrap();
        experiment["metadata"]["name"] = (*name).into();
        experiment
    };
    json!({
        "kind": "ModelExperimentList", "apiVersion": "laurel.dev/v1alpha1", "metadata": {},
        "items": names.iter().map(item).collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn errors_name_the_object_and_the_next_step() {
    let missing = || ("/fraud-q4", 404, failure(404, "NotFound"));
    assert_eq!(
        error(&[missing(), ("", 200, list(&["churn", "fraud-q3"]))]).await,
        r#"no ModelExperiment risk/fraud-q4: the namespace "risk" has churn, fraud-q3"#
    );
    assert_eq!(
        error(&[missing(), ("", 200, list(&[]))]).await,
        r#"no ModelExperiment risk/fraud-q4: the namespace "risk" has none; name another one with -n"#
    );
    assert_eq!(
        error(&[missing(), ("", 403, failure(403, "Forbidden"))]).await,
        "no ModelExperiment risk/fraud-q4: check the name and the namespace (-n)"
    );
    let no_kind = error(&[missing(), ("", 404, failure(404, "NotFound"))]).await;
    assert!(no_kind.starts_with("this cluster has no kind ModelExperiment: install"), "{no_kind}");
    assert_eq!(
        error(&[("/fraud-q4", 403, failure(403, "Forbidden"))]).await,
        r#"not allowed to read ModelExperiment risk/fraud-q4: ask for a role that may get modelexperiments.laurel.dev in the namespace "risk""#
    );
    assert_eq!(
        error(&[("/fraud-q4", 500, failure(500, "InternalError"))]).await,
        "cannot read ModelExperiment risk/fraud-q4: it says so"
    );
}

#[test]
fn labels_are_round() {
    let labels = |low, high, about| {
        let ticks = Axis { low, high }.ticks(about);
        ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>()
    };
    assert_eq!(labels(-0.013, 0.021, 4), ["-0.01", "0", "0.01", "0.02"]);
    assert_eq!(labels(-250.0, 90.0, 4), ["-200", "-100", "0"]);
    assert_eq!(labels(-3e-12, 3e-12, 4), ["-2.0e-12", "0.0e0", "2.0e-12"]);
    let days = |days: i64| {
        let began: jiff::Timestamp = "2026-11-01T09:30:00Z".parse().unwrap();
        let labels = times(began, began + jiff::SignedDuration::from_hours(24 * days));
        labels.into_iter().map(|(_, label)| label).collect::<Vec<_>>()
    };
    assert_eq!(days(4), ["11-02", "11-03", "11-04", "11-05"]);
    assert_eq!(days(0), [""; 0]);
    assert_eq!(days(1), ["11-01 12:00", "11-01 18:00", "11-02 00:00", "11-02 06:00"]);
    assert!((3..=8).contains(&days(300).len()), "{:?}", days(300));
}

/// Numbers of every magnitude.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![prop::num::f64::NORMAL, -1.0..1.0_f64, Just(0.0)]
}

proptest! {
    /// Whatever was stored, the picture has its size, and no coordinate that is not a number.
    #[test]
    fn whatever_was_stored_can_be_drawn(
        points in prop::collection::vec((0..4_000_000_000_i64, number(), number(), number()), 0..40),
        margin in prop_oneof![Just(0.0), 0.0..1e300_f64],
    ) {
        let points: Vec<IntervalPoint> = points
            .into_iter()
            .map(|(second, lower, estimate, upper)| IntervalPoint {
                at: jiff::Timestamp::from_second(second).unwrap(), estimate, lower, upper, samples: second,
            })
            .collect();
        let mut experiment = concluded();
        experiment.spec.metrics[0].margin = Some(margin);
        experiment.status.as_mut().unwrap().arms[0].history = points;
        let text = text(&experiment, 80);
        let lines = text.lines().filter(|line| !line.contains("metric") && !line.contains("margin"));
        prop_assert!(lines.clone().all(|line| line.chars().count() <= 80), "{text}");
        let picture = svg(&experiment);
        prop_assert!(!picture.contains("NaN") && !picture.contains("inf\""), "{picture}");
    }
}
