//! An experiment for a terminal.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    axis::{Axis, drawable, minute, number},
    better, measured, place, primary,
};
use crate::{
    api::{
        ModelExperiment, ModelExperimentSpec, ModelExperimentStatus,
        condition::{ConditionType, condition},
        model_experiment::{
            ArmStatus, ExperimentPhase, IntervalPoint, MetricRole, VERDICT_TAG, WithdrawnVersion,
        },
        signed_duration,
    },
    cli::table::{Row, table},
};

/// A wider picture is harder to read.
const WIDTH_MAX: usize = 100;
/// The most lines of a picture.
const LINES_MAX: usize = 16;
const INDENT: &str = "  ";

/// Formats an experiment for a terminal of this width.
pub(super) fn text(experiment: &ModelExperiment, width: usize) -> String {
    let width = width.min(WIDTH_MAX);
    let (namespace, name) = place(experiment);
    let default = ModelExperimentStatus::default();
    let status = experiment.status.as_ref().unwrap_or(&default);
    let phase = status.phase.unwrap_or_default();
    let mut text = format!("ModelExperiment {namespace}/{name}: {phase}\n");
    text.push_str(&rows(&head(&experiment.spec, status), width));
    for arm in &status.arms {
        text.push('\n');
        text.push_str(&headline(arm));
        text.push('\n');
        let mut facts = facts(arm, name);
        let is_it = |it: &&WithdrawnVersion| it.alias == arm.alias && Some(it.version) == arm.version;
        let withdrawn = status.withdrawn.iter().find(is_it);
        facts.extend(withdrawn.map(|it| ("withdrawn", it.message.clone())));
        text.push_str(&rows(&facts, width));
        let margin = primary(&experiment.spec).and_then(|metric| metric.margin).unwrap_or_default();
        if let Some(picture) = picture(&arm.history, margin, width) {
            text.push('\n');
            text.push_str(&picture);
        }
    }
    // What a class is called is up to the data: it must not control the terminal.
    text.replace(|each: char| each.is_control() && each != '\n', "\u{fffd}")
}

type Fact = (&'static str, String);

fn head(spec: &ModelExperimentSpec, status: &ModelExperimentStatus) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(began) = status.started_at {
        let ended = status.concluded_at.map_or_else(String::new, |at| format!(", ended {}", second(at)));
        facts.push(("began", second(began) + &ended));
    }
    if let Some(metric) = primary(spec) {
        let margin = metric.margin.filter(|margin| *margin > 0.0);
        let margin = margin
            .map_or_else(String::new, |margin| format!(", less than {} does not matter", number(margin)));
        facts.push(("metric", format!("{}: {}; {}{margin}", metric.name, measured(metric), better(metric))));
    }
    let guardrails: Vec<String> = spec
        .metrics
        .iter()
        .filter(|metric| metric.role == MetricRole::Guardrail)
        .map(|metric| format!("{}: {}", metric.name, measured(metric)))
        .collect();
    if !guardrails.is_empty() {
        facts.push(("guardrails", guardrails.join("; ")));
    }
    if let Some(ends) = ends(spec, status) {
        facts.push(("verdicts", ends));
    }
    let version = status.champion_version.map_or_else(String::new, |version| format!(", version {version}"));
    facts.push(("champion", format!("{}{version}", spec.champion_ref.name)));
    if let Some(winner) = &status.winner {
        let set = match (&status.alias_skipped, status.alias_set) {
            (Some(why), _) => format!("; the alias in the registry was not set to its version: {why}"),
            (None, true) => "; the alias in the registry was set to its version".to_owned(),
            (None, false) => String::new(),
        };
        facts.push(("winner", format!("{winner}{set}")));
    }
    let condition = |type_| condition(&status.conditions, type_);
    facts.extend(condition(ConditionType::Ready).map(|it| ("ready", described(it))));
    facts.extend(
        condition(ConditionType::SplitAsPlanned)
            .filter(|it| it.status != "True")
            .map(|it| ("split", described(it))),
    );
    facts
}

fn described(condition: &Condition) -> String {
    format!("{}, {}: {}", condition.status, condition.reason, condition.message)
}

/// When there can be verdicts.
fn ends(spec: &ModelExperimentSpec, status: &ModelExperimentStatus) -> Option<String> {
    let began = status.started_at.filter(|_| status.phase == Some(ExperimentPhase::Collecting))?;
    let after = |duration| began.checked_add(signed_duration(duration)).ok().map(second);
    Some(format!(
        "not before {}, unless a guardrail fails; at the latest {}",
        after(spec.duration.at_least)?,
        after(spec.duration.at_most)?
    ))
}

fn headline(arm: &ArmStatus) -> String {
    let mut text = arm.alias.clone();
    if let Some(version) = arm.version {
        let _ = write!(text, ", version {version}");
    }
    if let Some(weight) = arm.weight {
        let _ = write!(text, ", {weight} % of the requests");
    }
    if let Some(result) = &arm.result {
        let _ = write!(text, ": {} ({})", result.verdict, result.reason);
    }
    text
}

fn facts(arm: &ArmStatus, experiment: &str) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let (Some(against), Some(since)) = (arm.against, arm.since) {
        facts.push(("compared", format!("with version {against} since {}", second(since))));
    }
    if let Some(result) = &arm.result {
        let interval = result.interval.as_ref().map_or_else(String::new, |it| format!(" ({it})"));
        facts.extend(result.estimate.as_ref().map(|it| ("difference", format!("{it}{interval}"))));
        facts.extend(result.p_value.clone().map(|it| ("p-value", it)));
        if let [champion, challenger] = result.samples[..] {
            facts.push(("samples", format!("{challenger}, of the champion {champion}")));
        }
        facts.push(("message", result.message.clone()));
    }
    facts.extend(arm.tagged.as_ref().map(|tag| ("tag", format!("{VERDICT_TAG}{experiment}={tag}"))));
    facts
}

fn rows(facts: &[Fact], width: usize) -> String {
    let rows = facts.iter().map(|(name, value)| Row::from(vec![(*name).to_owned(), value.clone()]));
    let text = table(&rows.collect::<Vec<_>>(), width.saturating_sub(INDENT.len()));
    text.lines().fold(String::new(), |text, line| text + INDENT + line + "\n")
}

/// The interval over time, one line for each of some points.
fn picture(history: &[IntervalPoint], margin: f64, width: usize) -> Option<String> {
    const TIME: usize = "2026-11-22 14:00".len();
    const SAMPLES: usize = 11;
    let points = drawable(history);
    let axis = Axis::of(&points, margin)?;
    let columns = width.saturating_sub(INDENT.len() + TIME + 2 + 1 + SAMPLES).max(20);
    let plot = Plot { axis, columns, margin };
    let mut text = format!("{INDENT}{:TIME$}  {} {:>SAMPLES$}\n", "", plot.labels(), "samples");
    for point in chosen(&points) {
        let line = plot.line(point);
        let _ = writeln!(text, "{INDENT}{:TIME$}  {line} {:>SAMPLES$}", minute(point.at), point.samples);
    }
    let band = if margin > 0.0 { format!("   ┊ margin {}", number(margin)) } else { String::new() };
    let _ = writeln!(text, "{INDENT}│ no difference   ├●┤ difference and interval{band}");
    Some(text)
}

/// The first point, the last one, and some between.
fn chosen(points: &[IntervalPoint]) -> Vec<&IntervalPoint> {
    let lines = points.len().min(LINES_MAX);
    (0..lines).filter_map(|line| points.get(line * (points.len() - 1) / (lines - 1).max(1))).collect()
}

struct Plot {
    axis: Axis,
    columns: usize,
    margin: f64,
}

impl Plot {
    /// The column of a value, if the picture shows it.
    fn column(&self, value: f64) -> Option<usize> {
        let position = self.axis.position(value);
        #[expect(clippy::cast_precision_loss, reason = "the width of a terminal")]
        let last = (self.columns - 1) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the width")]
        (0.0..=1.0).contains(&position).then(|| (position * last).round() as usize)
    }

    /// The labels of the axis, each in the middle above its column.
    fn labels(&self) -> String {
        let mut line = vec![' '; self.columns];
        let mut free = 0;
        for (tick, label) in self.axis.ticks(4) {
            let Some(column) = self.column(tick) else { continue };
            let begin = column.saturating_sub(label.chars().count() / 2);
            let end = begin + label.chars().count();
            if begin < free || end > self.columns {
                continue;
            }
            line.splice(begin..end, label.chars());
            free = end + 1;
        }
        line.into_iter().collect()
    }

    fn line(&self, point: &IntervalPoint) -> String {
        let mut line = vec![' '; self.columns];
        let mut set = |column: Option<usize>, mark: char| {
            if let Some(place) = column.and_then(|column| line.get_mut(column)) {
                *place = mark;
            }
        };
        if self.margin > 0.0 {
            set(self.column(-self.margin), '┊');
            set(self.column(self.margin), '┊');
        }
        let zero = self.column(0.0);
        set(zero, '│');
        let last = self.columns - 1;
        // What lies beyond the axis ends in an arrow.
        let end = |value: f64, mark: char| match self.column(value) {
            Some(column) => (column, mark),
            None if value < self.axis.low => (0, '◂'),
            None => (last, '▸'),
        };
        let (lower, upper) = (end(point.lower, '├'), end(point.upper, '┤'));
        for column in lower.0..=upper.0 {
            set(Some(column), if Some(column) == zero { '┼' } else { '─' });
        }
        for (column, mark) in [lower, upper] {
            set(Some(column), mark);
        }
        set(self.column(point.estimate), '●');
        line.into_iter().collect()
    }
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
