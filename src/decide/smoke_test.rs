//! The decision about the smoke test: whether a version may get its first traffic.
//!
//! A report belongs to one attempt. It no longer counts once the version was rejected or restarted, or a
//! retry was requested: the next attempt sends its own request.

use jiff::{SignedDuration, Timestamp};

use super::{
    Action, Observed, OnUnavailable, ServingIntent,
    attempt::{Attempt, SmokeReport},
    step::{RolloutStep, deadline},
};
use crate::api::{
    condition::{Reason, ReasonMessage},
    model_alias::SmokeTestOutcome,
    names::Version,
};

/// With `onUnavailable: Skip`: how long a test that cannot run is retried before the version continues
/// without one.
pub(super) const SKIPPED_AFTER: SignedDuration = SignedDuration::from_secs(30);

impl Observed {
    /// Returns the current attempt at a version, or the one that would begin now.
    #[must_use]
    pub fn attempt(&self, version: Version) -> Attempt {
        let workload = self.cluster.workloads.get(&version);
        let retry = if self.retry_is_asked() { &self.intent.retry } else { &self.status.retried };
        Attempt {
            started_at: workload.and_then(|workload| workload.started_at),
            settings: workload.map(|workload| workload.settings.clone()).unwrap_or_default(),
            retry: retry.clone(),
            rejected_at: self
                .status
                .rejected
                .iter()
                .find(|rejection| rejection.version == version)
                .map(|rejection| rejection.at),
        }
    }

    /// Returns the report of this attempt's smoke test; `None` if none was begun.
    #[must_use]
    pub fn smoke_report(&self, version: Version) -> Option<&SmokeReport> {
        let test = self.cluster.workloads.get(&version)?.smoke.as_ref()?;
        (test.attempt == self.attempt(version)).then_some(&test.report)
    }

    /// Whether the version gets traffic without another smoke test: none is enabled, it has served before, or
    /// it passed one.
    fn needs_no_smoke_test(&self, serving: &ServingIntent, version: Version) -> bool {
        let outcome = self.remembered(version).and_then(|held| held.smoke_test);
        !serving.smoke_test.is_enabled
            || self.has_been_live(version)
            || outcome.is_some_and(|outcome| outcome != SmokeTestOutcome::Unknown)
    }
}

/// Whether a version may get its first traffic.
pub(super) enum Proof {
    /// It may.
    Given,
    /// A smoke test has to be begun.
    Missing,
    /// One is under way.
    Awaited(Option<String>),
    /// It cannot run at present.
    Unavailable {
        /// When this was first found.
        since: Timestamp,
        /// The cause and the next step.
        why: String,
    },
    /// It failed.
    Failed(String),
}

/// A version is proven if it has served before, answered its own input example, has none, or the test is
/// disabled.
pub(super) fn proof(observed: &Observed, serving: &ServingIntent, version: Version) -> Proof {
    if observed.needs_no_smoke_test(serving, version) {
        return Proof::Given;
    }
    let may_skip = serving.smoke_test.on_unavailable == OnUnavailable::Skip;
    match observed.smoke_report(version) {
        None => Proof::Missing,
        Some(SmokeReport::Running(seen)) => Proof::Awaited(seen.clone()),
        Some(SmokeReport::Unavailable { since, .. }) if may_skip && observed.now >= skipped_at(*since) => {
            Proof::Given
        }
        Some(SmokeReport::Unavailable { since, why }) => {
            Proof::Unavailable { since: *since, why: why.clone() }
        }
        Some(SmokeReport::Passed | SmokeReport::NoInputExample | SmokeReport::Skipped(_)) => Proof::Given,
        Some(SmokeReport::Failed(seen)) => Proof::Failed(seen.clone()),
    }
}

fn skipped_at(since: Timestamp) -> Timestamp {
    since.checked_add(SKIPPED_AFTER).unwrap_or(Timestamp::MAX)
}

/// Returns the smoke test to run: of the target version, until it has served. Any other is ended.
pub(super) fn wanted(
    observed: &Observed,
    serving: &ServingIntent,
    goal: Option<Version>,
) -> Option<(Version, Attempt)> {
    goal.filter(|version| !observed.needs_no_smoke_test(serving, *version))
        .map(|version| (version, observed.attempt(version)))
}

/// Runs the version's smoke test; returns true once it may get traffic.
pub(super) fn prove(
    step: &mut RolloutStep,
    observed: &Observed,
    serving: &ServingIntent,
    version: Version,
) -> bool {
    match proof(observed, serving, version) {
        Proof::Given => return true,
        Proof::Missing => {
            step.act(Action::SmokeTest { version, attempt: observed.attempt(version) });
            step.progress(
                Reason::SmokeTesting,
                format!("version {version} is ready; sending its input example to one of its pods"),
            );
        }
        Proof::Awaited(seen) => {
            let seen = seen.map_or_else(String::new, |seen| format!("; last seen: {seen}"));
            step.progress(
                Reason::SmokeTesting,
                format!(
                    "sending the input example of version {version} to one of its pods \
                     (spec.rollout.smokeTest){seen}"
                ),
            );
        }
        Proof::Unavailable { since, why } => wait(step, observed, serving, version, since, &why),
        Proof::Failed(seen) => {
            let message = format!(
                "version {version} failed its own input example: {seen}; correct the model or its image, or \
                 set spec.rollout.smokeTest.mode to Disabled"
            );
            step.reject(observed, serving, version, ReasonMessage::new(Reason::SmokeTestFailed, message));
        }
    }
    false
}

/// Reports it if the version gets its first traffic without a smoke test.
pub(super) fn report_skipped(
    step: &mut RolloutStep,
    observed: &Observed,
    serving: &ServingIntent,
    version: Version,
) {
    if observed.needs_no_smoke_test(serving, version) {
        return;
    }
    if let Some(SmokeReport::Skipped(why) | SmokeReport::Unavailable { why, .. }) =
        observed.smoke_report(version)
    {
        let message = format!("version {version} gets traffic without a smoke test: {why}");
        step.progress(Reason::SmokeTestUnavailable, message);
    }
}

/// Waits for a smoke test that cannot run. That proves nothing about the version, so no deadline rejects it;
/// after the progress deadline the condition asks somebody to act.
fn wait(
    step: &mut RolloutStep,
    observed: &Observed,
    serving: &ServingIntent,
    version: Version,
    since: Timestamp,
    why: &str,
) {
    if serving.smoke_test.on_unavailable == OnUnavailable::Skip {
        step.wake_at(skipped_at(since));
        let message = format!(
            "the smoke test of version {version} cannot be run: {why}; retrying for {SKIPPED_AFTER:#}, \
             after which the version serves without it (spec.rollout.smokeTest.onUnavailable is Skip)"
        );
        return step.progress(Reason::SmokeTestUnavailable, message);
    }
    let message = format!(
        "version {version} is ready, but its smoke test cannot be run: {why}; retrying, and the version is \
         not rejected; to serve it without the test, set spec.rollout.smokeTest.onUnavailable to Skip"
    );
    let cause = ReasonMessage::new(Reason::SmokeTestUnavailable, message);
    let deadline = deadline(observed, serving, version);
    if observed.now < deadline {
        step.wake_at(deadline);
        step.progress = Some(cause);
    } else {
        step.stalled = Some(cause);
    }
}
