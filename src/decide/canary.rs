//! The steps of a canary: what a version that has not served gets of the requests, one step after the other.
//!
//! ```text
//!          accepted, atLeast over, approved if required
//! step 1 ──────────────────────────────────────────────► step 2 ──► … ──► all requests
//!   │ a pod fails, other settings: the steps begin again, without their approvals
//!   └ no approval within atMost: the share goes, and the version is rejected
//! ```
//!
//! Which step a version is in is seen in the route, so it survives a crash after any write. The status holds
//! what the route cannot: when the step began, how long its time was stopped, and who approved it. An
//! approval is a change of the annotation that is seen while the status has the step; it is in the status
//! before anything depends on it.

use jiff::{SignedDuration, Timestamp};

use super::{
    ApprovalIntent, Decision, Lifecycle, Observed, ServingIntent, ShareIntent, StepIntent,
    cluster_view::RouteView,
    route::STEP,
    shares::{Mirror, Shares},
};
use crate::api::{
    APPROVE_ANNOTATION,
    condition::{Reason, ReasonMessage, shortened},
    model_alias::{Approval, CanaryStatus, SeenApproval, UNKNOWN},
    names::Version,
};

/// What a version in a canary has to have now.
pub(super) struct Canary {
    /// The step, from 0.
    pub(super) index: usize,
    /// Its weight in the route.
    pub(super) weight: u32,
    /// How many of the requests are copied to it, in per cent.
    mirror: Option<u32>,
}

impl Canary {
    fn at(index: usize, share: ShareIntent) -> Self {
        Self { index, weight: share.weight(), mirror: share.mirror() }
    }

    /// The version enters the route, or leaves it for copies, before the share of its step changes.
    fn at_least_share(index: usize, mirror: Option<u32>) -> Self {
        Self { index, weight: Shares::LEAST, mirror }
    }

    pub(super) fn mirror(&self, version: Version) -> Option<Mirror> {
        self.mirror.map(|per_cent| Mirror { version, per_cent })
    }
}

/// Returns the step that the version has reached in the route, from 0.
fn reached(steps: &[StepIntent], shares: &Shares, version: Version) -> Option<usize> {
    let (weight, mirror) = (shares.of(version), shares.mirrored_to(version));
    steps.iter().rposition(|step| match step.share {
        ShareIntent::Weight(_) => step.share.weight() <= weight,
        ShareIntent::Mirror(per_cent) => weight > Shares::LEAST || mirror.is_some_and(|it| per_cent <= it),
    })
}

impl Observed {
    /// Returns what a version gets in its canary. A version that has served, and one that has been through
    /// all steps, is in none.
    pub(super) fn canary(
        &self,
        serving: &ServingIntent,
        route: &RouteView,
        version: Version,
    ) -> Option<Canary> {
        let steps = &serving.steps;
        let first = steps.first().filter(|_| !self.has_served(version))?.share;
        let (weight, mirror) = (route.shares.of(version), route.shares.mirrored_to(version));
        let Some(reached) = reached(steps, &route.shares, version) else {
            return Some(match first {
                first if self.has_settled(route, STEP) && (weight > 0 || first.mirror().is_some()) => {
                    Canary::at(0, first)
                }
                ShareIntent::Mirror(_) if weight == 0 => Canary { index: 0, weight: 0, mirror: None },
                _ => Canary::at_least_share(0, None),
            });
        };
        let may_pass = self.first_unapproved(serving, version);
        let index = reached.min(may_pass);
        let share = steps[index].share;
        // It has been through the copies, and enters the route.
        let enters = share.mirror().is_some() && weight == Shares::LEAST && mirror.is_some();
        let due = if enters { STEP } else { steps[index].at_least.max(STEP) };
        let passes = index < may_pass
            && self.live_rules_let_pass(serving, version, index)
            && self.drift_lets_pass(version);
        if index < reached || !passes || !self.has_settled(route, due) {
            return Some(match share {
                ShareIntent::Mirror(_) if passes && enters => Canary::at_least_share(index, share.mirror()),
                ShareIntent::Mirror(_) if weight > Shares::LEAST => Canary::at_least_share(index, None),
                share => Canary::at(index, share),
            });
        }
        match steps.get(index + 1) {
            Some(StepIntent { share: next @ ShareIntent::Mirror(_), .. }) => {
                Some(Canary::at(index + 1, *next))
            }
            _ if weight == 0 => Some(Canary::at_least_share(index, share.mirror())),
            Some(next) => Some(Canary::at(index + 1, next.share)),
            None => None,
        }
    }

    /// Returns the first step that the version does not pass without an approval; the number of steps if
    /// there is none.
    fn first_unapproved(&self, serving: &ServingIntent, version: Version) -> usize {
        let known = self.status.canary.as_ref().filter(|known| known.version == version);
        let approvals = known.map(|known| known.approvals.as_slice()).unwrap_or_default();
        let mut steps = serving.steps.iter().enumerate();
        let unapproved =
            steps.find(|(index, step)| step.needs_approval && !is_approved(approvals, *index, step.share));
        unapproved.map_or(serving.steps.len(), |(index, _)| index)
    }

    /// Whether somebody has to approve the version before it gets everything. If nothing has served, or
    /// nothing of what served is left, there is nothing to compare it with.
    pub(super) fn lacks_approval(&self, serving: &ServingIntent, version: Version) -> bool {
        let cluster = &self.cluster;
        let is_left = |other: &Version| {
            cluster.workloads.contains_key(other)
                || cluster.route.as_ref().is_some_and(|route| route.shares.names(*other))
        };
        self.serves().filter(|serves| *serves != version).is_some_and(|serves| is_left(&serves))
            && !self.has_served(version)
            && self.first_unapproved(serving, version) < serving.steps.len()
    }

    /// Returns the weight of a version that keeps what it has: at most that of a step that it may be in,
    /// because somebody else may have set it.
    pub(super) fn paused_weight(&self, serving: &ServingIntent, version: Version, weight: u32) -> u32 {
        let last = serving.steps.get(self.first_unapproved(serving, version));
        let most = last.map_or(Shares::WHOLE, |step| step.share.weight().max(Shares::LEAST));
        let weight = weight.min(most);
        let mut steps = serving.steps.iter().rev().map(|step| step.share.weight());
        match steps.find(|step| (1..=weight).contains(step)) {
            Some(known) => known,
            None if serving.steps.is_empty() => Shares::LEAST,
            None => weight,
        }
    }

    /// Returns the copies that such a version keeps.
    pub(super) fn paused_mirror(
        &self,
        serving: &ServingIntent,
        version: Version,
        per_cent: u32,
    ) -> Option<Mirror> {
        let may_be_in = serving.steps.iter().take(self.first_unapproved(serving, version).saturating_add(1));
        let known = may_be_in.rev().filter_map(|step| step.share.mirror()).find(|step| *step <= per_cent)?;
        Some(Mirror { version, per_cent: known })
    }

    /// Returns when the time of the version's step is over; `None` if it is not limited or approved.
    fn approval_deadline(&self, serving: &ServingIntent, known: &CanaryStatus) -> Option<Timestamp> {
        let index = usize::try_from(known.step).ok()?.checked_sub(1)?;
        let step = serving.steps.get(index).filter(|step| is_in(known, index, step.share))?;
        let is_open = step.needs_approval && !is_approved(&known.approvals, index, step.share);
        let at_most = step.at_most.filter(|_| is_open)?;
        let stopped = SignedDuration::from_secs(stopped_seconds(known, self.now));
        let end = known.since.checked_add(at_most).and_then(|end| end.checked_add(stopped));
        Some(end.unwrap_or(Timestamp::MAX))
    }

    /// Whether the time that a step may take counts: not while the registry cannot be reached, which may keep
    /// people from judging the version.
    fn time_counts(&self) -> bool {
        self.registry.error.is_none()
    }

    /// Returns why the version is given up, if nobody approved it in time. This does not depend on the route:
    /// the share may have been taken away already.
    pub(super) fn unapproved_in_time(
        &self,
        serving: &ServingIntent,
        version: Version,
    ) -> Option<ReasonMessage> {
        let known = self.status.canary.as_ref().filter(|known| known.version == version)?;
        let deadline = self.approval_deadline(serving, known).filter(|_| self.time_counts())?;
        let is_approved_now = || approval_unseen(self, &mut Some(known.clone())).is_some_and(|it| it.is_ok());
        if self.now < deadline || is_approved_now() {
            return None;
        }
        let at_most = serving.steps.get(usize::try_from(known.step).ok()?.checked_sub(1)?)?.at_most?;
        let message = format!(
            "nobody approved version {version} within spec.rollout.steps[{}].atMost ({at_most:#}): step {} of \
             {} began at {} and waited for the annotation {APPROVE_ANNOTATION}",
            known.step.saturating_sub(1),
            known.step,
            serving.steps.len(),
            second(known.since),
        );
        Some(ReasonMessage::new(Reason::NotApproved, message))
    }

    /// Returns when to look again at a version in a step, if that is in the future.
    pub(super) fn step_ends(&self, serving: &ServingIntent, version: Version) -> Option<Timestamp> {
        let known = self.status.canary.as_ref().filter(|known| known.version == version)?;
        let end = self.approval_deadline(serving, known).filter(|_| self.time_counts());
        end.filter(|end| *end > self.now)
    }

    /// Returns what the version gets in this step, and what is waited for.
    pub(super) fn step_message(
        &self,
        serving: &ServingIntent,
        route: &RouteView,
        version: Version,
        index: usize,
    ) -> ReasonMessage {
        let step = serving.steps[index];
        let (gets, of) = in_words(serving, version, index);
        let is_open = step.needs_approval && self.first_unapproved(serving, version) <= index;
        let ends = self.settles_later(route, step.at_least);
        if ends.is_none() && is_open && route.pending.is_none() {
            let until = self.waits_until(serving, version);
            let message = format!(
                "{gets}: {of}, which waits for an approval{until}: {}",
                self.how_to_approve(version, index)
            );
            return ReasonMessage::new(Reason::AwaitingApproval, message);
        }
        let until = ends.map_or_else(String::new, |end| format!(", until {}", second(end)));
        let then = match (step.needs_approval, is_open) {
            (false, _) => "",
            (true, true) => ", and then until it is approved",
            (true, false) => ", and is approved",
        };
        let until_live =
            if self.has_live_rules() { ", and until it is no worse by its live rules" } else { "" };
        let is_held = !self.drift_lets_pass(version);
        let held = if is_held { ", and while its inputs differ from its training data" } else { "" };
        let message = format!("{gets} for at least {:#}{until}{until_live}{held}{then}: {of}", step.at_least);
        ReasonMessage::new(Reason::CanaryStep, message)
    }

    /// Returns until when the version waits for its approval. While the time is stopped, that is not known.
    fn waits_until(&self, serving: &ServingIntent, version: Version) -> String {
        let known = self.status.canary.as_ref().filter(|known| known.version == version);
        let end = known.and_then(|known| Some((known, self.approval_deadline(serving, known)?)));
        match end {
            None => String::new(),
            Some((known, end)) if known.stopped_since.is_none() && self.time_counts() => {
                format!(" until {}", second(end))
            }
            Some(_) => " (its time is stopped)".to_owned(),
        }
    }

    fn how_to_approve(&self, version: Version, index: usize) -> String {
        let plain = version.to_string();
        let has = self.intent.approval.as_ref().map(known_value);
        let other = if has.as_ref() == Some(&plain) { format!("{version}/{}", index + 1) } else { plain };
        let seen = self.status.approval.as_ref().filter(|seen| has.as_ref() == Some(&seen.value));
        let ignored = seen.and_then(|seen| seen.ignored.as_ref().map(|why| (&seen.value, why)));
        let ignored = ignored.map_or_else(String::new, |(value, why)| format!(" (it is {value:?}: {why})"));
        format!("set the annotation {APPROVE_ANNOTATION} to {other:?}{ignored}")
    }

    /// Returns the target version with what it gets in the step that it is in, as a sentence.
    pub(super) fn canary_message(
        &self,
        serving: &ServingIntent,
        route: &RouteView,
    ) -> Option<(Version, String)> {
        let version = self.status.target_version.filter(|version| !self.has_served(*version))?;
        let reached = reached(&serving.steps, &route.shares, version)?;
        let index = reached.min(self.first_unapproved(serving, version));
        // Nobody looks again while nothing is changed, so the message must not depend on the time.
        let message = if self.intent.lifecycle == Lifecycle::Active {
            self.step_message(serving, route, version, index).message
        } else {
            let (gets, of) = in_words(serving, version, index);
            format!("{gets}: {of}")
        };
        Some((version, message))
    }
}

/// Returns what a version gets in a step, and which step that is.
fn in_words(serving: &ServingIntent, version: Version, index: usize) -> (String, String) {
    let gets = match serving.steps[index].share {
        ShareIntent::Weight(weight) if serving.challengers.is_empty() => {
            format!("version {version} gets {weight} % of the requests")
        }
        ShareIntent::Weight(weight) => {
            format!("version {version} gets {weight} % of the requests that are not for challengers")
        }
        ShareIntent::Mirror(100) => format!("version {version} gets a copy of each request"),
        ShareIntent::Mirror(mirror) => format!("version {version} gets copies of {mirror} % of the requests"),
    };
    (gets, format!("step {} of {}", index + 1, serving.steps.len()))
}

fn is_approved(approvals: &[Approval], index: usize, share: ShareIntent) -> bool {
    let is_it = |approval: &Approval| {
        (approval.step, approval.weight, approval.mirror) == (number(index), weight_of(share), share.mirror())
    };
    approvals.iter().any(is_it)
}

fn is_in(known: &CanaryStatus, index: usize, share: ShareIntent) -> bool {
    (known.step, known.weight, known.mirror) == (number(index), weight_of(share), share.mirror())
}

/// The number of a step, as people count.
fn number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

fn weight_of(share: ShareIntent) -> Option<u32> {
    match share {
        ShareIntent::Weight(per_cent) => Some(per_cent),
        ShareIntent::Mirror(_) => None,
    }
}

pub(super) fn stopped_seconds(known: &CanaryStatus, now: Timestamp) -> i64 {
    let running = known.stopped_since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
    known.stopped_seconds.saturating_add(running)
}

/// A time for people.
fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Adds the step that the target version is in, and what the annotation approves, for the status. `runs` is
/// the version that waits for nothing but its step.
pub(super) fn add(observed: &Observed, runs: Option<Version>, decision: Decision) -> Decision {
    if matches!(observed.intent.lifecycle, Lifecycle::Deleting { .. }) {
        let (canary, approval) = (observed.status.canary.clone(), observed.status.approval.clone());
        return Decision { canary, approval, ..decision };
    }
    let mut canary = next(observed, runs, &decision);
    let approval = seen(observed, &mut canary);
    Decision { canary, approval, ..decision }
}

fn next(observed: &Observed, runs: Option<Version>, decision: &Decision) -> Option<CanaryStatus> {
    let serving = observed.intent.serving.as_ref().filter(|serving| !serving.steps.is_empty())?;
    let version = decision.target.filter(|version| !observed.has_served(*version))?;
    let is_rejected = |rejected: Version| rejected == version;
    if decision.rejection.as_ref().is_some_and(|rejection| is_rejected(rejection.version))
        || observed.rejection(version, None).is_some()
    {
        return None;
    }
    let known = observed.status.canary.clone().filter(|known| known.version == version);
    // What cannot be seen is not over.
    if observed.cluster.route_error.is_some() {
        return known.map(|known| stopped(known, observed.now));
    }
    let route = observed.cluster.route.as_ref()?;
    let reached = reached(&serving.steps, &route.shares, version)?;
    if route.pending.is_some() {
        return known.map(|known| stopped(known, observed.now));
    }
    let index = reached.min(observed.first_unapproved(serving, version));
    let share = serving.steps[index].share;
    if !is_in_effect(&route.shares, version, share) {
        return known.filter(|known| is_in(known, index, share)).map(|known| stopped(known, observed.now));
    }
    let known = match known {
        Some(known) if is_in(&known, index, share) => known,
        known => {
            let approvals = known.map(|known| known.approvals).unwrap_or_default();
            let earlier = |approval: &Approval| approval.step < number(index);
            CanaryStatus {
                version,
                step: number(index),
                weight: weight_of(share),
                mirror: share.mirror(),
                since: observed.now,
                stopped_since: None,
                stopped_seconds: 0,
                approvals: approvals.into_iter().filter(earlier).collect(),
            }
        }
    };
    let is_limited = serving.steps[index].at_most.is_some();
    let counts = !is_limited || (runs == Some(version) && observed.time_counts());
    Some(if counts { resumed(known, observed.now) } else { stopped(known, observed.now) })
}

/// Whether the route gives the version what its step gives it. Somebody else may have given it more: then the
/// step has not begun.
fn is_in_effect(shares: &Shares, version: Version, share: ShareIntent) -> bool {
    /// Weights that are shared with challengers are whole numbers.
    const ROUNDED: u32 = 10;
    let weight = shares.of(version);
    match share {
        ShareIntent::Weight(_) => weight.abs_diff(share.weight()) <= ROUNDED,
        ShareIntent::Mirror(_) => weight <= Shares::LEAST,
    }
}

fn stopped(known: CanaryStatus, now: Timestamp) -> CanaryStatus {
    CanaryStatus { stopped_since: Some(known.stopped_since.unwrap_or(now)), ..known }
}

fn resumed(known: CanaryStatus, now: Timestamp) -> CanaryStatus {
    CanaryStatus { stopped_seconds: stopped_seconds(&known, now), stopped_since: None, ..known }
}

/// The part of an annotation that is kept.
fn known_value(approval: &ApprovalIntent) -> String {
    const VALUE_MAX: usize = 64;
    shortened(&approval.value, VALUE_MAX)
}

/// Returns the annotation as the status has to have it, and adds the approval that it gives now, if any.
fn seen(observed: &Observed, canary: &mut Option<CanaryStatus>) -> Option<SeenApproval> {
    let value = known_value(observed.intent.approval.as_ref()?);
    match approval_unseen(observed, canary) {
        Some(given) => Some(SeenApproval { value, ignored: given.err() }),
        None => observed.status.approval.clone(),
    }
}

/// Adds the approval that the annotation gives, or returns why it gives none; `None` if it has been acted on.
/// Each value is judged once, when it is first seen: a value that was there before a step was reached does
/// not approve that step.
fn approval_unseen(observed: &Observed, canary: &mut Option<CanaryStatus>) -> Option<Result<(), String>> {
    let approval = observed.intent.approval.as_ref()?;
    let value = known_value(approval);
    let is_known = observed.status.approval.as_ref().is_some_and(|known| known.value == value);
    (!is_known).then(|| approve(observed, approval, canary.as_mut()))
}

/// Adds the approval that a new value of the annotation gives.
///
/// # Errors
/// Why it gives none.
fn approve(
    observed: &Observed,
    approval: &ApprovalIntent,
    canary: Option<&mut CanaryStatus>,
) -> Result<(), String> {
    let (version, step) = parsed(&approval.value)
        .ok_or("it is neither a version nor a version and a step, as in \"5\" and \"5/2\"")?;
    // Who set it has seen the status as it was.
    let known = observed.status.canary.as_ref().filter(|known| known.version == version);
    let canary = canary
        .filter(|now| known.is_some_and(|known| (known.version, known.step) == (now.version, now.step)));
    let canary =
        canary.ok_or_else(|| format!("version {version} was in no step of a canary when it was set"))?;
    let current = canary.step;
    if let Some(step) = step.filter(|step| *step != current) {
        return Err(format!("version {version} was in step {current}, not {step}, when it was set"));
    }
    let index = usize::try_from(current.saturating_sub(1)).unwrap_or(usize::MAX);
    let steps = observed.intent.serving.as_ref().map(|serving| serving.steps.as_slice()).unwrap_or_default();
    let Some(of) = steps.get(index).filter(|step| step.needs_approval) else {
        return Err(format!("step {current} of version {version} needed no approval when it was set"));
    };
    if is_approved(&canary.approvals, index, of.share) {
        return Err(format!("step {current} of version {version} was approved before"));
    }
    canary.approvals.push(Approval {
        step: current,
        weight: weight_of(of.share),
        mirror: of.share.mirror(),
        manager: approval.manager.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        at: approval.at.unwrap_or(observed.now),
    });
    Ok(())
}

fn parsed(value: &str) -> Option<(Version, Option<u32>)> {
    let value = value.trim();
    match value.split_once('/') {
        None => Some((value.parse().ok()?, None)),
        Some((version, step)) => Some((version.parse().ok()?, Some(step.parse().ok()?))),
    }
}
