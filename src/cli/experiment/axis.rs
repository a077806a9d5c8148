//! The axes of the picture: which values it shows, and where they are labelled.

use jiff::{Timestamp, Unit, tz::TimeZone};

use crate::api::model_experiment::IntervalPoint;

/// The values that the picture shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Axis {
    /// Shows 0, the margin, and the intervals after the first quarter of the points: those before are much
    /// wider, and would leave nothing to see of the later ones. `None` if there is nothing to show.
    pub(super) fn of(points: &[IntervalPoint], margin: f64) -> Option<Self> {
        let later = points.iter().skip(points.len() / 4);
        let ends = later.flat_map(|point| [point.lower, point.upper]).chain([0.0, margin, -margin]);
        let (low, high) = ends.fold((0.0_f64, 0.0_f64), |(low, high), end| (low.min(end), high.max(end)));
        let room = (high - low) * 0.04;
        let axis = Self { low: low - room, high: high + room };
        let span = axis.high - axis.low;
        (!points.is_empty() && span.is_finite() && span > f64::MIN_POSITIVE * 1e6).then_some(axis)
    }

    /// Where a value is: 0 is the low end, 1 the high end.
    pub(super) fn position(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Round values on the axis with their labels, about so many.
    pub(super) fn ticks(&self, about: u32) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / f64::from(about.max(1));
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0];
        let step = power * steps.into_iter().find(|step| power * step >= rough).unwrap_or(10.0);
        let first = (self.low / step).ceil();
        let ticks = (0..=2 * about).map(|index| (first + f64::from(index)) * step);
        ticks.take_while(|tick| *tick <= self.high).map(|tick| (tick, label(tick, step))).collect()
    }
}

/// A value with as many decimals as the step between labels has.
fn label(value: f64, step: f64) -> String {
    let magnitude = step.log10().floor();
    if !(-8.0..12.0).contains(&magnitude) {
        return format!("{value:.1e}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 8")]
    let decimals = (-magnitude).max(0.0) as usize;
    // No "-0".
    let text = format!("{value:.decimals$}");
    if value.abs() < step / 2.0 { "0".to_owned() } else { text }
}

/// The points that can be drawn.
pub(super) fn drawable(points: &[IntervalPoint]) -> Vec<IntervalPoint> {
    let is_drawable = |point: &&IntervalPoint| {
        [point.lower, point.estimate, point.upper].iter().all(|value| value.is_finite())
            && point.lower <= point.upper
    };
    points.iter().filter(is_drawable).cloned().collect()
}

/// Seconds between the labels of times, from an hour to 26 weeks.
const STEPS: [i64; 11] = [
    3600,
    2 * 3600,
    6 * 3600,
    12 * 3600,
    24 * 3600,
    2 * 24 * 3600,
    7 * 24 * 3600,
    14 * 24 * 3600,
    28 * 24 * 3600,
    91 * 24 * 3600,
    182 * 24 * 3600,
];

/// Round times from one to another with their labels, at most about eight.
pub(super) fn times(from: Timestamp, to: Timestamp) -> Vec<(Timestamp, String)> {
    let (from, to) = (from.as_second(), to.as_second());
    let step = STEPS.into_iter().find(|step| (to - from) / step < 8).unwrap_or(STEPS[10]);
    let first = from.div_euclid(step) + i64::from(from.rem_euclid(step) > 0);
    let seconds = (0..16).map(|index| (first + index) * step).take_while(|second| *second <= to);
    let format = if step < 24 * 3600 { "%m-%d %H:%M" } else { "%m-%d" };
    let times = seconds.filter_map(|second| Timestamp::from_second(second).ok());
    times.map(|at| (at, at.strftime(format).to_string())).collect()
}

/// A number with four significant digits, without an exponent where one is not needed.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3e}");
    match text.parse::<f64>() {
        Ok(rounded) if rounded == 0.0 || (1e-6..1e15).contains(&rounded.abs()) => rounded.to_string(),
        _ => text,
    }
}

/// A time to the minute, in UTC.
pub(super) fn minute(at: Timestamp) -> String {
    let rounded = at.to_zoned(TimeZone::UTC).round(Unit::Minute).map_or(at, |it| it.timestamp());
    rounded.strftime("%Y-%m-%d %H:%M").to_string()
}
