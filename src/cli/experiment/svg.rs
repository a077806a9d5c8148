//! The picture of an experiment as SVG: the interval over time, one panel for each challenger.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    axis::{Axis, drawable, minute, number, times},
    better, measured, place, primary,
};
use crate::api::{
    ModelExperiment,
    model_experiment::{ArmStatus, ExperimentMetric, IntervalPoint},
};

const WIDTH: f64 = 760.0;
const HEAD: f64 = 64.0;
const PANEL: f64 = 280.0;
/// A panel with nothing to draw.
const EMPTY: f64 = 76.0;
const FOOT: f64 = 36.0;
/// Where the axes of a panel are.
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = PANEL - 32.0;

/// Colours for light and for dark backgrounds. The fonts are those of the reader's system.
const STYLE: &str = "\
svg{background:#fff;color-scheme:light dark}
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}
.title{font-weight:600;font-size:15px}
.muted{fill:#59636e;font-size:12px}
.background{fill:#fff}
.grid{stroke:#d1d9e0;stroke-width:1}
.zero{stroke:#1f2328;stroke-width:1.5}
.margin{fill:#9a6700;fill-opacity:.13}
.interval{fill:#0969da;fill-opacity:.22;stroke:#0969da;stroke-opacity:.55;stroke-width:1}
.estimate{fill:none;stroke:#0969da;stroke-width:2;stroke-linejoin:round}
.last{fill:#0969da}
@media (prefers-color-scheme:dark){
svg{background:#0d1117}
text{fill:#f0f6fc}
.muted{fill:#9198a1}
.background{fill:#0d1117}
.grid{stroke:#3d444d}
.zero{stroke:#f0f6fc}
.margin{fill:#d29922;fill-opacity:.18}
.interval{fill:#4493f8;fill-opacity:.25;stroke:#4493f8}
.estimate{stroke:#4493f8}
.last{fill:#4493f8}
}";

/// Draws an experiment.
#[must_use]
pub fn svg(experiment: &ModelExperiment) -> String {
    let (namespace, name) = place(experiment);
    let arms = experiment.status.as_ref().map(|status| status.arms.as_slice()).unwrap_or_default();
    let title = format!("ModelExperiment {namespace}/{name}");
    let metric = primary(&experiment.spec);
    let what = metric.map_or_else(String::new, |metric| {
        format!(
            "Difference of {} to {}: {}; {}",
            metric.name,
            experiment.spec.champion_ref.name,
            measured(metric),
            better(metric)
        )
    });
    let margin = metric.and_then(|metric| metric.margin).unwrap_or_default();
    let panels: Vec<(f64, String)> =
        arms.iter().enumerate().map(|(index, arm)| panel(arm, metric, index)).collect();
    let height = HEAD + panels.iter().map(|(height, _)| height).sum::<f64>() + FOOT;
    let described: Vec<String> =
        arms.iter().map(|arm| format!("{}. {}", headline(arm), result(arm))).collect();
    // Writing to a String cannot fail.
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\">\n<title \
         id=\"title\">{}</title>\n<desc id=\"desc\">{}. {}</desc>\n<style>\n{STYLE}\n</style>\n<rect \
         class=\"background\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        escaped(&title),
        escaped(&what),
        escaped(&described.join(" ")),
    );
    picture.push_str(&words("title", 16.0, 28.0, &title));
    picture.push_str(&words("muted", 16.0, 48.0, &what));
    let mut top = HEAD;
    for (height, panel) in panels {
        let _ = writeln!(picture, "<g transform=\"translate(0 {top})\">\n{panel}</g>");
        top += height;
    }
    let band = if margin > 0.0 {
        format!("; yellow: less than the margin {}", number(margin))
    } else {
        String::new()
    };
    let legend =
        format!("Line: the difference so far; blue: the interval that holds the true one{band}. UTC.");
    picture.push_str(&words("muted", 16.0, height - 14.0, &legend));
    picture.push_str("</svg>\n");
    picture
}

fn headline(arm: &ArmStatus) -> String {
    let version = |version: Option<_>| version.map_or_else(String::new, |it| format!(" version {it}"));
    let against = arm.against.map_or_else(String::new, |it| format!(" against version {it}"));
    format!("{}{}{against}", arm.alias, version(arm.version))
}

fn result(arm: &ArmStatus) -> String {
    let Some(result) = &arm.result else { return "Nothing has been counted yet".to_owned() };
    let mut text = format!("{} ({})", result.verdict, result.reason);
    if let Some(estimate) = &result.estimate {
        let _ = write!(text, ": difference {estimate}");
    }
    if let Some(interval) = &result.interval {
        let _ = write!(text, " ({interval})");
    }
    if let Some(p_value) = &result.p_value {
        let _ = write!(text, ", p-value {p_value}");
    }
    text
}

/// Returns the height of a challenger's panel, and the panel.
fn panel(arm: &ArmStatus, metric: Option<&ExperimentMetric>, index: usize) -> (f64, String) {
    let margin = metric.and_then(|metric| metric.margin).unwrap_or_default();
    let mut panel = words("", LEFT, 16.0, &headline(arm)) + &words("muted", LEFT, 34.0, &result(arm));
    let points = drawable(&arm.history);
    let (Some(axis), [first, .., last]) = (Axis::of(&points, margin), points.as_slice()) else {
        panel.push_str(&words("muted", LEFT, 54.0, "No interval over time yet"));
        return (EMPTY, panel);
    };
    let plot = Plot { axis, from: first.at, to: last.at };
    panel.push_str(&plot.frame(margin, index));
    panel.push_str(&plot.curves(&points, index));
    let (x, y) = (24.0, f64::midpoint(TOP, BOTTOM));
    let _ = writeln!(
        panel,
        "<text class=\"muted\" text-anchor=\"middle\" transform=\"translate({x} {y}) \
         rotate(-90)\">difference of {}</text>",
        escaped(metric.map_or("?", |metric| metric.name.as_str()))
    );
    (PANEL, panel)
}

/// The coordinates of a panel.
struct Plot {
    axis: Axis,
    from: Timestamp,
    to: Timestamp,
}

impl Plot {
    fn x(&self, at: Timestamp) -> f64 {
        let seconds = |at: Timestamp| at.duration_since(self.from).as_secs_f64();
        LEFT + (RIGHT - LEFT) * (seconds(at) / seconds(self.to).max(1.0)).clamp(0.0, 1.0)
    }

    /// What lies far beyond the axis is cut off anyway.
    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * self.axis.position(value).clamp(-20.0, 20.0)
    }

    /// The axes with their labels, the margin and 0.
    fn frame(&self, margin: f64, index: usize) -> String {
        let (width, height) = (RIGHT - LEFT, BOTTOM - TOP);
        let rect = format!("x=\"{LEFT}\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\"");
        let mut frame = format!("<clipPath id=\"clip{index}\"><rect {rect}/></clipPath>\n");
        if margin > 0.0 {
            let (top, bottom) = (self.y(margin), self.y(-margin));
            let _ = writeln!(
                frame,
                "<rect class=\"margin\" clip-path=\"url(#clip{index})\" x=\"{LEFT}\" y=\"{top:.1}\" \
                 width=\"{width}\" height=\"{:.1}\"/>",
                bottom - top
            );
        }
        for (tick, label) in self.axis.ticks(5) {
            let y = self.y(tick);
            frame.push_str(&line("grid", (LEFT, y), (RIGHT, y)));
            frame.push_str(&anchored("end", LEFT - 8.0, y + 4.0, &label));
        }
        for (at, label) in times(self.from, self.to) {
            let x = self.x(at);
            frame.push_str(&line("grid", (x, BOTTOM), (x, BOTTOM + 4.0)));
            frame.push_str(&anchored("middle", x, BOTTOM + 20.0, &label));
        }
        frame + &line("zero", (LEFT, self.y(0.0)), (RIGHT, self.y(0.0)))
    }

    fn curves(&self, points: &[IntervalPoint], index: usize) -> String {
        let place = |at, value| format!("{:.1},{:.1}", self.x(at), self.y(value));
        let upper = points.iter().map(|point| place(point.at, point.upper));
        let lower = points.iter().rev().map(|point| place(point.at, point.lower));
        let area: Vec<String> = upper.chain(lower).collect();
        let estimate: Vec<String> = points.iter().map(|point| place(point.at, point.estimate)).collect();
        let mut curves = format!(
            "<g clip-path=\"url(#clip{index})\">\n<polygon class=\"interval\" points=\"{}\"/>\n<polyline \
             class=\"estimate\" points=\"{}\"/>\n",
            area.join(" "),
            estimate.join(" ")
        );
        curves.push_str("</g>\n");
        if let Some(last) = points.last() {
            let _ = writeln!(
                curves,
                "<circle class=\"last\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{}: {}</title></circle>",
                self.x(last.at),
                self.y(last.estimate),
                minute(last.at),
                number(last.estimate)
            );
        }
        curves
    }
}

fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n")
}

fn words(class: &str, x: f64, y: f64, text: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", escaped(text))
}

fn anchored(anchor: &str, x: f64, y: f64, text: &str) -> String {
    format!(
        "<text class=\"muted\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n",
        escaped(text)
    )
}

/// Text in XML. Control characters are not allowed there, even escaped.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for each in text.chars() {
        match each {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            each if each.is_control() => escaped.push('\u{fffd}'),
            each => escaped.push(each),
        }
    }
    escaped
}
