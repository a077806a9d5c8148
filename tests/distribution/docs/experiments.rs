//! The figures and the picture in `docs/experiments.md` are computed by the code that the operator uses.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::{SignedDuration, Timestamp};
use laurel::{
    analysis::{
        self, Tally,
        experiment::{Conclusion, ExperimentEvidence, ExperimentRules, Kind, Outcome, conclude},
        ledger::{ArmBatch, Batch},
        sequential::Interval,
    },
    api::{ModelExperiment, model_experiment::IntervalPoint},
    cli::experiment::svg,
};
use pretty_assertions::assert_eq;
use serde_json::json;

#[path = "../../bench/analysis/simulation/mod.rs"]
#[expect(dead_code, reason = "only experiments are simulated here")]
mod simulation;

use simulation::{experiment::Experiment, random::Random};

const PAGE: &str = "docs/experiments.md";
const PICTURE: &str = "docs/experiment.svg";

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_default()
}

/// Two shares that are compared, and what part of the requests the challenger answers.
#[derive(Clone, Copy)]
struct Case {
    truth: [f64; 2],
    share: f64,
    margin: f64,
    guardrails: usize,
}

impl Case {
    fn rules(&self) -> ExperimentRules {
        let experiment =
            Experiment { per_hour: 1.0, share: self.share, truth: (0.5, 0.5), kind: Kind::Share, days: 28 };
        let mut rules = experiment.rules();
        rules.primary.margin = self.margin;
        rules.guardrails = (0..self.guardrails).map(|index| (index.to_string(), 1.0)).collect();
        rules
    }

    /// The outcome if so many requests show exactly the truth.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small")]
    #[expect(clippy::cast_sign_loss, reason = "not negative")]
    fn outcome(&self, requests: u64) -> Outcome {
        let rules = self.rules();
        let weights = vec![1.0 - self.share, self.share];
        let arm = |index: usize| {
            let answered = (requests as f64 * weights[index]).round();
            let tally = Tally::new((answered * self.truth[index]).round() as u64, answered as u64);
            let tallies = BTreeMap::from([("approved".to_owned(), tally.expect("a part of it"))]);
            ArmBatch { requests: answered as u64, tallies, ..ArmBatch::default() }
        };
        let arms = vec![arm(0), arm(1)];
        let mut evidence = ExperimentEvidence::new(&rules);
        let (from, to) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + SignedDuration::from_mins(1));
        evidence.add(&Batch { from, to, weights, arms }, &rules);
        conclude(&evidence, &rules, rules.at_least).outcome
    }

    /// How many requests, of both together, show what there is.
    fn needed(&self) -> u64 {
        let mut enough = 1000;
        while self.outcome(enough) == Outcome::Collecting {
            enough *= 2;
        }
        let mut few = enough / 2;
        while enough - few > enough / 1000 + 1 {
            let middle = u64::midpoint(few, enough);
            if self.outcome(middle) == Outcome::Collecting { few = middle } else { enough = middle }
        }
        enough
    }
}

/// With two significant digits, and commas.
fn rounded(number: u64) -> String {
    let digits = number.to_string().len();
    let unit = 10_u64.pow(u32::try_from(digits.saturating_sub(2)).expect("small"));
    let text = ((number + unit / 2) / unit * unit).to_string();
    let parts: Vec<&str> =
        text.as_bytes().rchunks(3).rev().map(|part| std::str::from_utf8(part).expect("digits")).collect();
    parts.join(",")
}

/// How long it takes at 20 requests a minute.
fn days(requests: u64) -> String {
    let tenths = (requests * 10).div_ceil(20 * 60 * 24);
    if tenths < 100 { format!("{}.{}", tenths / 10, tenths % 10) } else { tenths.div_ceil(10).to_string() }
}

fn row((champion, challenger): (f64, f64)) -> String {
    let cells = [0.5, 0.1].map(|share| {
        let case = Case { truth: [champion, challenger], share, margin: 0.0, guardrails: 0 };
        let needed = case.needed();
        format!("{} | {}", rounded(needed), days(needed))
    });
    let per_cent = |share: f64| format!("{} %", (share * 1e4).round() / 100.0);
    format!("| {} | {} | {} |", per_cent(champion), per_cent(challenger), cells.join(" | "))
}

#[test]
fn the_table_of_required_samples_is_computed() {
    let cases = [
        (0.5, 0.55),
        (0.5, 0.52),
        (0.5, 0.51),
        (0.1, 0.12),
        (0.1, 0.11),
        (0.1, 0.105),
        (0.01, 0.015),
        (0.01, 0.012),
    ];
    let table = cases.map(row).join("\n");
    let page = read(PAGE);
    let shown: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && line.contains(" % | ")).collect();
    assert_eq!(shown.join("\n"), table);
}

#[test]
fn what_the_page_says_about_margins_and_guardrails_is_so() {
    let found = Case { truth: [0.1, 0.11], share: 0.1, margin: 0.0, guardrails: 0 };
    let alike = Case { truth: [0.1, 0.1], margin: 0.01, ..found };
    let guarded = Case { guardrails: 2, ..found };
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let ratio = |case: Case| case.needed() as f64 / found.needed() as f64;
    println!("alike {:.2}, guarded {:.2}", ratio(alike), ratio(guarded));
    // "About as many", and "a quarter more".
    assert!((0.85..1.15).contains(&ratio(alike)));
    assert!((1.15..1.35).contains(&ratio(guarded)));
    assert_eq!(alike.outcome(alike.needed()), Outcome::NoDifference);
    assert_eq!(found.outcome(found.needed()), Outcome::ChallengerWins);
}

fn point(began: Timestamp, hour: i64, seen: &Conclusion) -> Option<IntervalPoint> {
    let Interval { estimate, lower, upper, .. } = seen.difference?;
    let samples = seen.samples.iter().sum::<u64>();
    let at = began + SignedDuration::from_hours(hour);
    Some(IntervalPoint { at, estimate, lower, upper, samples: i64::try_from(samples).expect("small") })
}

/// A simulated experiment as the operator would show it: 10 % against 11 %, a tenth of 300 requests an hour.
fn simulated() -> ModelExperiment {
    const SEED: u64 = 20_261_129;
    let began: Timestamp = "2026-10-05T08:00:00Z".parse().expect("a time");
    let experiment =
        Experiment { per_hour: 300.0, share: 0.1, truth: (0.1, 0.11), kind: Kind::Share, days: 28 };
    let mut history = Vec::new();
    let mut every = 1;
    let (hours, conclusion) = experiment.run_with(&mut Random::new(SEED, 0), |hour, seen| {
        history.extend(point(began, hour, seen).filter(|_| hour % every == 0));
        if history.len() > 63 {
            every *= 2;
            let mut index = 0;
            history.retain(|_| {
                index += 1;
                index % 2 == 0
            });
        }
    });
    history.extend(point(began, hours, &conclusion).filter(|_| hours % every > 0));
    let result = &conclusion;
    let difference = result.difference.expect("it has concluded");
    let status = json!({
        "phase": "Concluded",
        "startedAt": began,
        "concludedAt": began + SignedDuration::from_hours(hours),
        "championVersion": "4",
        "winner": "fraud-challenger",
        "arms": [{
            "alias": "fraud-challenger", "version": "5", "against": "4", "since": began, "weight": 10,
            "result": {
                "verdict": result.outcome.to_string(),
                "reason": result.why.to_string(),
                "estimate": format!("{:.4}", difference.estimate),
                "interval": format!("{:.4} to {:.4}", difference.lower, difference.upper),
                "pValue": format!("{:.4}", difference.p_value),
                "samples": result.samples,
                "message": result.message,
            },
            "history": history,
        }],
    });
    let object = json!({
        "apiVersion": "laurel.dev/v1alpha1",
        "kind": "ModelExperiment",
        "metadata": { "name": "fraud-q4", "namespace": "risk" },
        "spec": {
            "championRef": { "name": "fraud-champion" },
            "challengers": [{ "aliasRef": { "name": "fraud-challenger" } }],
            "metrics": [{
                "name": "approved", "role": "Primary", "goal": "Maximize", "margin": 0.01,
                "predictions": { "class": "approved" },
            }],
        },
        "status": status,
    });
    serde_json::from_value(object).expect("it is a ModelExperiment")
}

/// `INSTA_UPDATE=always` writes the picture anew.
#[test]
fn the_picture_is_what_laurel_draws() {
    let drawn = svg(&simulated());
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(PICTURE), &drawn).expect("it can be written");
    }
    assert!(drawn == read(PICTURE), "{PICTURE} is not what laurel experiment draws now");
    assert!(read(PAGE).contains("(experiment.svg)"));
}
