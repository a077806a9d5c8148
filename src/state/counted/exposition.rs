//! Reads what a pod counted from Prometheus' text format (version 0.0.4; that of `OpenMetrics` is close enough).
//!
//! Only what is wanted is taken, and everything else is skipped. What is missing, ambiguous or not a
//! count is a gap, never 0.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Counted, Wanted};
use crate::analysis::{
    count,
    ledger::{Counters, Gap, Outcomes},
    moments::Moments,
};

/// The counter of predictions of the meter that Laurel adds to its runtimes, by their outcome.
const PREDICTIONS: &str = "laurel_model_predictions_total";
/// Its counter of predicted values, by their class.
const CLASSES: &str = "laurel_model_predicted_class_total";
/// The class of everything beyond the first 20 classes.
const OTHERS: &str = "other";
/// Its sums of predicted numbers.
const VALUES: &str = "laurel_model_prediction_values_total";
const SUM: &str = "laurel_model_prediction_sum";
const SQUARES: &str = "laurel_model_prediction_sum_of_squares";
const PROCESS_START: &str = "process_start_time_seconds";

/// Where in the text the numbers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The histogram of request durations in seconds.
    pub requests: String,
    /// Its label with the HTTP status of the answer.
    pub status: String,
}

/// What a pod counted since its server started.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) counters: Counters,
    /// When the server started, where it says so.
    pub(super) started_at: Option<Timestamp>,
}

/// Reads what is wanted.
///
/// # Errors
/// What is missing or makes no sense.
pub(super) fn read(text: &str, names: &Names, wanted: &[Wanted]) -> Result<Sample, Gap> {
    let bucket = format!("{}_bucket", names.requests);
    let total = format!("{}_count", names.requests);
    let mut seen = Seen::default();
    let mut series = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim();
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let is_request = name == bucket || name == total;
        if !is_request && ![PREDICTIONS, CLASSES, VALUES, SUM, SQUARES, PROCESS_START].contains(&name) {
            continue;
        }
        let Some(Line { identity, labels, value }) = parsed(line) else { return Err(Gap::NotACount) };
        if !series.insert(identity) {
            return Err(Gap::Ambiguous);
        }
        if name == PROCESS_START {
            seen.started_at = value.parse().ok().and_then(timestamp);
            continue;
        }
        if name == SUM || name == SQUARES {
            let sum = value.parse().ok().filter(|sum: &f64| sum.is_finite()).ok_or(Gap::NotACount)?;
            *(if name == SUM { &mut seen.sum } else { &mut seen.squares }) = Some(sum);
            continue;
        }
        let counted = value.parse().ok().and_then(count).ok_or(Gap::NotACount)?;
        if name == total {
            let is_good = labels.get(&names.status).map(|status| status.starts_with('2'));
            seen.add(is_good, counted);
        } else if name == bucket {
            let bound = labels.get("le").and_then(|le| le.parse::<f64>().ok()).ok_or(Gap::Missing)?;
            seen.add_bucket(bound, counted);
        } else if name == VALUES {
            seen.values = Some(counted);
        } else {
            let (by, label) = if name == CLASSES {
                (&mut seen.classes, "class")
            } else {
                (&mut seen.predictions, "outcome")
            };
            let sum = by.entry(labels.get(label).cloned().unwrap_or_default()).or_default();
            *sum = sum.saturating_add(counted);
        }
    }
    let counters = seen.counters(wanted)?;
    Ok(Sample { counters, started_at: seen.started_at })
}

#[derive(Default)]
struct Seen {
    histograms: usize,
    requests: u64,
    failures: u64,
    /// Whether a series lacks the status.
    lacks_status: bool,
    /// By the bound in milliseconds: how many series have it, and the sum of what they counted.
    buckets: BTreeMap<u64, (usize, u64)>,
    predictions: BTreeMap<String, u64>,
    classes: BTreeMap<String, u64>,
    values: Option<u64>,
    sum: Option<f64>,
    squares: Option<f64>,
    started_at: Option<Timestamp>,
}

impl Seen {
    fn add(&mut self, is_good: Option<bool>, counted: u64) {
        self.histograms += 1;
        self.requests = self.requests.saturating_add(counted);
        self.lacks_status |= is_good.is_none();
        if is_good == Some(false) {
            self.failures = self.failures.saturating_add(counted);
        }
    }

    fn add_bucket(&mut self, bound: f64, counted: u64) {
        let Some(milliseconds) = count((bound * 1000.0).round()) else { return };
        let (series, sum) = self.buckets.entry(milliseconds).or_default();
        *series += 1;
        *sum = sum.saturating_add(counted);
    }

    fn counters(&self, wanted: &[Wanted]) -> Result<Counters, Gap> {
        if self.histograms == 0 {
            return Err(Gap::Missing);
        }
        let mut counters = Counters { requests: self.requests, ..Counters::default() };
        for Wanted { name, counted } in wanted {
            if *counted == Counted::Mean {
                counters.values.insert(name.clone(), self.moments()?);
            } else {
                counters.checks.insert(name.clone(), self.outcomes(counted)?);
            }
        }
        Ok(counters)
    }

    fn moments(&self) -> Result<Moments, Gap> {
        let (values, sum, squares) = (self.values, self.sum, self.squares);
        let (Some(n), Some(sum), Some(squares)) = (values, sum, squares) else { return Err(Gap::Missing) };
        Moments::new(n, sum, squares).ok_or(Gap::NotACount)
    }

    fn outcomes(&self, counted: &Counted) -> Result<Outcomes, Gap> {
        let total = self.requests;
        match counted {
            Counted::Slow(milliseconds) => {
                let bound = u64::from(*milliseconds);
                let known = self.buckets.get(&bound).filter(|(series, _)| *series == self.histograms);
                let (_, in_time) = known.ok_or(Gap::Missing)?;
                Ok(Outcomes { bad: total.checked_sub(*in_time).ok_or(Gap::Inconsistent)?, total })
            }
            Counted::Missing => {
                let bad = *self.predictions.get("Missing").ok_or(Gap::Missing)?;
                Ok(Outcomes { bad, total: sum(&self.predictions) })
            }
            Counted::Class(class) => {
                let others = *self.classes.get(OTHERS).ok_or(Gap::Missing)?;
                // A class that was never predicted has no series yet; nor has one that is among the others.
                let bad = match self.classes.get(class) {
                    Some(predicted) => *predicted,
                    None if others == 0 => 0,
                    None => return Err(Gap::Missing),
                };
                Ok(Outcomes { bad, total: sum(&self.classes) })
            }
            Counted::Mean => Err(Gap::Missing),
            Counted::Failures if self.lacks_status => Err(Gap::Missing),
            Counted::Failures => Ok(Outcomes { bad: self.failures, total }),
        }
    }
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().fold(0, |sum: u64, more| sum.saturating_add(*more))
}

fn timestamp(seconds: f64) -> Option<Timestamp> {
    let milliseconds = i64::try_from(count((seconds * 1000.0).round())?).ok()?;
    Timestamp::from_millisecond(milliseconds).ok()
}

struct Line<'a> {
    /// The name with its labels.
    identity: &'a str,
    labels: BTreeMap<String, String>,
    value: &'a str,
}

/// Reads `name{label="value",…} 1 [timestamp]`.
fn parsed(line: &str) -> Option<Line<'_>> {
    let (labels, end) = match line.find('{') {
        Some(begin) => labels(line, begin + 1)?,
        None => (BTreeMap::new(), line.find(' ')?),
    };
    let (identity, rest) = line.split_at_checked(end)?;
    Some(Line { identity, labels, value: rest.split_whitespace().next()? })
}

/// Reads the labels from `at`; returns them, and where they end.
fn labels(line: &str, mut at: usize) -> Option<(BTreeMap<String, String>, usize)> {
    let mut labels = BTreeMap::new();
    loop {
        let rest = line.get(at..)?;
        let skipped = rest.len() - rest.trim_start_matches([' ', ',']).len();
        at += skipped;
        let rest = line.get(at..)?;
        if rest.starts_with('}') {
            return Some((labels, at + 1));
        }
        let equals = rest.find("=\"")?;
        let name = rest.get(..equals)?.trim().to_owned();
        let (value, length) = quoted(rest.get(equals + 2..)?)?;
        labels.insert(name, value);
        at += equals + 2 + length;
    }
}

/// Reads a value up to its quote; returns it, and how long it was with the quote.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, at + 1)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::{live::LiveCheck, model_experiment::ExperimentMetric};

    fn names() -> Names {
        Names {
            requests: "http_server_request_duration_seconds".into(),
            status: "http_response_status_code".into(),
        }
    }

    fn checks(yaml: &str) -> Vec<Wanted> {
        let checks: Vec<LiveCheck> = serde_yaml::from_str(yaml).unwrap();
        checks.iter().map(Wanted::from).collect()
    }

    fn all() -> Vec<Wanted> {
        checks(
            "[{name: failures, failures: {}}, {name: slow, slow: {over: 250ms}}, {name: nan, missing: {}}]",
        )
    }

    const TEXT: &str = r#"
# HELP http_server_request_duration_seconds Time to answer.
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{http_response_status_code="200",http_route="/invocations",le="0.1"} 7
http_server_request_duration_seconds_bucket{http_response_status_code="200",http_route="/invocations",le="0.25"} 9
http_server_request_duration_seconds_bucket{http_response_status_code="200",http_route="/invocations",le="+Inf"} 10
http_server_request_duration_seconds_sum{http_response_status_code="200",http_route="/invocations"} 0.7
http_server_request_duration_seconds_count{http_response_status_code="200",http_route="/invocations"} 10
http_server_request_duration_seconds_bucket{http_response_status_code="400",http_route="/invocations",le="0.25"} 2
http_server_request_duration_seconds_count{http_response_status_code="400",http_route="/invocations"} 2.0
laurel_model_predictions_total{outcome="Returned"} 9
laurel_model_predictions_total{outcome="Failed"} 2
laurel_model_predictions_total{outcome="Missing"} 1
other_metric{text="a \"quote\", a } and a \\"} NaN
process_start_time_seconds 1.7644e9
"#;

    #[test]
    fn failures_slow_answers_and_missing_predictions_are_counted() {
        let sample = read(TEXT, &names(), &all()).unwrap();
        assert_eq!(sample.counters.requests, 12);
        let of = |name: &str| sample.counters.checks[name];
        assert_eq!(of("failures"), Outcomes { bad: 2, total: 12 });
        assert_eq!(of("slow"), Outcomes { bad: 1, total: 12 });
        assert_eq!(of("nan"), Outcomes { bad: 1, total: 12 });
        assert_eq!(sample.started_at, Some(Timestamp::from_second(1_764_400_000).unwrap()));
    }

    #[test]
    fn classes_and_numbers_are_counted_by_value() {
        let metrics: Vec<ExperimentMetric> = serde_yaml::from_str(
            "[{name: approved, role: Primary, predictions: {class: '1'}}, {name: new, role: Primary, predictions: \
             {class: '7'}}]",
        )
        .unwrap();
        let wanted: Vec<Wanted> = metrics.iter().map(Wanted::from).collect();
        let classes = "laurel_model_predicted_class_total{class=\"other\"} 0\n\
                       laurel_model_predicted_class_total{class=\"0\"} 6\n\
                       laurel_model_predicted_class_total{class=\"1\"} 4\n";
        let sample = read(&format!("{TEXT}{classes}"), &names(), &wanted).unwrap();
        assert_eq!(sample.counters.checks["approved"], Outcomes { bad: 4, total: 10 });
        assert_eq!(sample.counters.checks["new"], Outcomes { bad: 0, total: 10 }, "never predicted yet");
        assert_eq!(read(TEXT, &names(), &wanted), Err(Gap::Missing), "classes are not counted at all");
        let many = classes.replace("\"other\"} 0", "\"other\"} 3");
        assert_eq!(
            read(&format!("{TEXT}{many}"), &names(), &wanted),
            Err(Gap::Missing),
            "7 may be among them"
        );
        assert!(read(&format!("{TEXT}{many}"), &names(), &wanted[..1]).is_ok());

        let metric = "{name: amount, role: Primary, predictions: {mean: {}}}";
        let wanted = [Wanted::from(&serde_yaml::from_str::<ExperimentMetric>(metric).unwrap())];
        let numbers = "laurel_model_prediction_values_total 3\nlaurel_model_prediction_sum -6.5\n\
                       laurel_model_prediction_sum_of_squares 20.25\n";
        let sample = read(&format!("{TEXT}{numbers}"), &names(), &wanted).unwrap();
        assert_eq!(sample.counters.values["amount"], Moments::new(3, -6.5, 20.25).unwrap());
        assert_eq!(read(TEXT, &names(), &wanted), Err(Gap::Missing));
        let broken = numbers.replace("-6.5", "NaN");
        assert_eq!(read(&format!("{TEXT}{broken}"), &names(), &wanted), Err(Gap::NotACount));
    }

    #[test]
    fn what_is_missing_is_never_zero() {
        let gap = |text: &str, checks: &[Wanted]| read(text, &names(), checks).unwrap_err();
        assert_eq!(gap("", &all()), Gap::Missing);
        assert_eq!(gap("<html>404</html>", &all()), Gap::Missing);
        let without = |part: &str| -> String {
            TEXT.lines()
                .filter(|line| !line.contains(part))
                .fold(String::new(), |all, line| all + line + "\n")
        };
        assert_eq!(gap(&without("Missing"), &all()), Gap::Missing);
        assert_eq!(gap(&without("0.25"), &all()), Gap::Missing, "a bound that is not counted");
        let other = checks("[{name: slow, slow: {over: 500ms}}]");
        assert_eq!(gap(TEXT, &other), Gap::Missing);
        let nameless = TEXT.replace("http_response_status_code=\"400\",", "");
        assert_eq!(gap(&nameless, &checks("[{name: failures, failures: {}}]")), Gap::Missing);
    }

    #[test]
    fn what_is_no_count_or_there_twice_is_not_believed() {
        let gap = |text: &str| read(text, &names(), &all()).unwrap_err();
        let count = "http_server_request_duration_seconds_count{http_response_status_code=\"400\",http_route=\"/invocations\"}";
        for value in ["NaN", "+Inf", "-1", "2.5", "many", ""] {
            let text = TEXT.replace(&format!("{count} 2.0"), &format!("{count} {value}"));
            assert_eq!(gap(&text), Gap::NotACount, "{value:?}");
        }
        assert_eq!(gap(&format!("{TEXT}{count} 3\n")), Gap::Ambiguous);
        let more = TEXT.replace("le=\"0.25\"} 9", "le=\"0.25\"} 90");
        assert_eq!(gap(&more), Gap::Inconsistent);
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in "\\PC{0,200}", line in "[a-z_]{0,3}\\{[a-z=\",\\\\{} ]{0,40}[0-9 .eN-]{0,8}") {
            let known = format!("http_server_request_duration_seconds_count{line}");
            for text in [text.as_str(), known.as_str()] {
                let _ = read(&format!("{TEXT}{text}"), &names(), &all());
                let _ = read(text, &names(), &all());
            }
        }
    }
}
