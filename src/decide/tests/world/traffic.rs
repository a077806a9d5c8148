//! What must hold of a route: at each write, and at rest.

use std::{collections::BTreeSet, ops::Range};

use super::{Event, GatewayIs, World, version};
use crate::{
    api::{model_alias::SmokeTestOutcome, names::Version},
    decide::{ApprovalIntent, Mirror, Observed, ShareIntent, Shares, StepIntent, Traffic, decide},
};

/// Whether a version begins to get more than half of the requests.
fn leads(before: &Shares, after: &Shares, version: Version) -> bool {
    let half = Shares::WHOLE / 2;
    after.of(version) > half && before.of(version) <= half
}

/// Whether there is anything left of a version that served.
fn is_left(observed: &Observed, version: Version) -> bool {
    let cluster = &observed.cluster;
    let is_named = cluster.route.as_ref().is_some_and(|route| route.shares.names(version));
    is_named || cluster.workloads.contains_key(&version)
}

/// The step that a version is in, from 0.
fn rung(steps: &[StepIntent], shares: &Shares, version: Version) -> Option<usize> {
    let (weight, copies) = (shares.of(version), shares.mirrored_to(version).unwrap_or_default());
    (0..steps.len()).rev().find(|index| match steps[*index].share {
        ShareIntent::Weight(per_cent) => weight >= per_cent * 10_000,
        ShareIntent::Mirror(per_cent) => weight > Shares::LEAST || copies >= per_cent,
    })
}

impl World {
    /// Whether the route gives the version the largest share now.
    pub(super) fn serves_through_route(&self, version: Version) -> bool {
        let route = self.cluster.gateway.route();
        route.is_some_and(|route| route.shares.leader() == Some(version))
    }

    /// What happens to the route, and to what it names.
    pub(super) fn happen_at_the_gateway(&mut self, event: &Event) {
        let gateway = &mut self.cluster.gateway;
        match event {
            Event::Gateway(is) => gateway.is = *is,
            Event::RouteDeleted(_) => {
                let is_theirs = gateway.is_theirs;
                gateway.delete_route();
                self.approved_steps.retain(|_| !is_theirs);
            }
            Event::RouteEdited(to) => {
                gateway.edit(to.map(|number| Shares::led_by(version(number), [])));
                self.is_routed_by_others = true;
            }
            Event::RouteApplied(_) => {
                let is_theirs = gateway.is_theirs;
                gateway.apply_manifest();
                self.is_routed_by_others |= is_theirs;
                // The steps of a canary begin again.
                self.approved_steps.retain(|_| !is_theirs);
            }
            Event::RouteShared(shared) => gateway.set_foreign(*shared),
            Event::VersionServiceDeleted(number) => drop(gateway.services.remove(&version(*number))),
            Event::Rival { of, is } => gateway.change_rival(*of, *is),
            Event::VersionServicesRefused(refused) => gateway.refuses_services = *refused,
            _ => unreachable!("handled by its caller"),
        }
    }

    /// Whether the route names the version.
    pub(in crate::decide::tests) fn route_names(&self, version: Version) -> bool {
        self.cluster.gateway.named().contains(&version)
    }

    /// Whether each version that gets more than before has a ready pod.
    pub(super) fn is_share_possible(&self, shares: &Shares) -> bool {
        let route = self.cluster.gateway.route();
        let before = |version| route.map_or(0, |route| route.shares.of(version));
        let versions = shares.iter().map(|(version, _)| version);
        let mut more = versions.filter(|version| shares.of(*version) > before(*version));
        let copied = shares.mirror().map(|mirror| mirror.version);
        let begins =
            copied.filter(|copied| route.is_none_or(|route| route.shares.mirrored_to(*copied).is_none()));
        let has_service = |version: &Version| self.cluster.gateway.services.contains_key(version);
        more.all(|version| self.ready(version) > 0)
            && begins.is_none_or(|version| self.ready(version) > 0 && has_service(&version))
    }

    /// Before weights are written.
    pub(super) fn promise_of_shares(&mut self, shares: &Shares, observed: &Observed) {
        let challengers = shares.challengers().values().map(|share| share.weight);
        let all = shares.iter().map(|(_, weight)| weight).chain(challengers).chain([shares.service()]);
        let sum: u32 = all.sum();
        self.promise(sum == Shares::WHOLE, |_| format!("the shares add up to the whole, not to {sum}"));
        let before = self.cluster.gateway.route().map(|route| route.shares.clone());
        let before = before.unwrap_or_default();
        for version in shares.iter().map(|(version, _)| version) {
            let weight = shares.of(version);
            let is_new = before.of(version) == 0;
            let has_service = self.cluster.gateway.services.contains_key(&version);
            let was_ready = observed.is_ready(version);
            self.promise(has_service || !is_new, |_| {
                format!("the route names version {version} only after its Service")
            });
            self.promise(was_ready || weight <= before.of(version), |_| {
                format!("version {version} is not ready and gets no share")
            });
            let is_proven = self.answered.contains(&version) || self.proven.contains(&version);
            if is_new && !is_proven {
                self.promise_of_proof(version);
            }
        }
        self.promise_of_their_route(&before, shares, observed);
        self.promise_of_challengers(&before, shares, observed);
        self.promise_of_copies(&before, shares, observed);
        self.promise_of_no_leap(&before, shares, observed);
        self.promise_of_approvals(&before, shares, observed);
        self.promise_of_steps(&before, shares, observed);
        self.promise_of_kept_share(&before, shares, observed);
        self.promise_of_one_leader(shares, observed);
    }

    /// A version in a canary loses its share only if it is not desired any more, failed, or is restarted: not
    /// because of an outage or another size.
    fn promise_of_kept_share(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        let Some(serving) = &self.intent.serving else { return };
        let Some(version) = self.desired_version().filter(|version| !observed.has_served(*version)) else {
            return;
        };
        let had = before.of(version);
        let is_closed = |(index, step): &(usize, &StepIntent)| {
            step.needs_approval && !self.approved_steps.contains(&(version, *index, step.share))
        };
        let closed = serving.steps.iter().enumerate().find(is_closed).map_or(usize::MAX, |(index, _)| index);
        let mut may_be_in = serving.steps.iter().take(closed.saturating_add(1));
        let is_in_a_step = may_be_in.any(|step| step.share == ShareIntent::Weight(had / 10_000));
        let is_free = !self.is_routed_by_others && !self.leaves_route(observed);
        let is_lowered = after.of(version) < had && is_in_a_step && is_free;
        let Some(workload) = observed.cluster.workloads.get(&version).filter(|_| is_lowered) else { return };
        let decision = decide(observed);
        let is_known_good = observed.remembered(version).and_then(|held| held.smoke_test)
            == Some(SmokeTestOutcome::Passed)
            || !serving.smoke_test.is_enabled;
        let settings = serving.settings.as_ref();
        let is_well = workload.ready > 0 && !workload.has_failed && is_known_good;
        let is_as_tested = workload.outdated == 0
            && !workload.edited
            && settings.is_none_or(|settings| *settings == workload.settings)
            && self.registry.seen.versions.get(&version) == Some(&workload.model_uri);
        let is_rejected = self.is_rejected(version) || decision.rejection.is_some();
        let is_desired = decision.target == Some(version) && !is_rejected && !self.is_refused_by_rules();
        self.promise(!(is_well && is_as_tested && is_desired), |_| {
            format!("version {version} keeps its share of {had}, and does not get {}", after.of(version))
        });
    }

    /// While the version that gets the requests is ready, a share does not go through 0 in one step.
    fn promise_of_no_leap(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        let serves = before.leader().filter(|leader| observed.is_ready(*leader));
        if serves.is_none() || self.is_routed_by_others || self.leaves_route_at_once(after, observed) {
            return;
        }
        for (version, weight) in after.iter() {
            let leaps = before.of(version) == 0 && weight > Shares::LEAST;
            self.promise(!leaps, |_| format!("version {version} enters the route at the least share"));
        }
        for (version, weight) in before.iter() {
            let leaps = weight > Shares::LEAST && after.of(version) == 0 && observed.is_ready(version);
            self.promise(!leaps, |_| format!("version {version} leaves the route from the least share"));
        }
    }

    /// Copies go to a version that is proven, and whose Service has a ready endpoint. They are no share: a
    /// step with copies sends the version no request of its own.
    fn promise_of_copies(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        let Some(Mirror { version, per_cent }) = after.mirror() else { return };
        let service = observed.cluster.version_services.get(&version);
        self.promise(service.is_some_and(|service| service.has_endpoints), |_| {
            format!("copies go only to a Service with a ready endpoint, not to that of version {version}")
        });
        let is_new = before.mirrored_to(version).is_none();
        let has_service = self.cluster.gateway.services.contains_key(&version);
        self.promise(has_service || !is_new, |_| format!("the Service of version {version} is missing"));
        let steps = self.intent.serving.iter().flat_map(|serving| &serving.steps);
        let is_asked = steps.into_iter().any(|step| step.share == ShareIntent::Mirror(per_cent));
        self.promise(is_asked, |_| format!("no step copies {per_cent} % of the requests"));
        if is_new && !self.answered.contains(&version) && !self.proven.contains(&version) {
            self.promise_of_proof(version);
        }
        let weight = after.of(version);
        self.promise(weight <= Shares::LEAST, |_| format!("version {version} gets copies and {weight}"));
    }

    /// No share is moved past a step that needs an approval without one, whatever happens.
    fn promise_of_approvals(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        let steps = self.steps();
        let serves = observed.serves().filter(|serves| is_left(observed, *serves));
        let Some(serves) = serves.filter(|_| !self.is_routed_by_others) else { return };
        for version in after.iter().map(|(version, _)| version) {
            if version == serves || self.has_served(version, observed) {
                continue;
            }
            let leads = leads(before, after, version);
            let had = rung(&steps, before, version).unwrap_or_default();
            let gets = if leads { steps.len() } else { rung(&steps, after, version).unwrap_or_default() };
            self.promise_of_approved_steps(version, &steps, had..gets);
        }
    }

    /// Before the Service selects a version: it was approved in each step that needs it.
    pub(super) fn promise_of_approved_route(&mut self, version: Version, observed: &Observed) {
        let serves = observed.serves().filter(|serves| is_left(observed, *serves));
        let serves_another = serves.is_some_and(|serves| serves != version);
        if serves_another && !self.has_served(version, observed) && !self.is_routed_by_others {
            let steps = self.steps();
            self.promise_of_approved_steps(version, &steps, 0..steps.len());
        }
    }

    fn promise_of_approved_steps(&mut self, version: Version, steps: &[StepIntent], passed: Range<usize>) {
        if !passed.is_empty() {
            self.promise_of_live_rules(version);
        }
        for index in passed.filter(|index| steps[*index].needs_approval) {
            let is_approved = self.approved_steps.contains(&(version, index, steps[index].share));
            self.promise(is_approved, |_| {
                format!("version {version} passes step {} only once it was approved there", index + 1)
            });
        }
    }

    fn has_served(&self, version: Version, observed: &Observed) -> bool {
        observed.has_served(version) || self.answered.contains(&version)
    }

    fn steps(&self) -> Vec<StepIntent> {
        self.intent.serving.as_ref().map(|serving| serving.steps.clone()).unwrap_or_default()
    }

    /// Somebody sets the annotation: a new value approves the version that it names, in the step that the
    /// version is in.
    pub(super) fn annotate(&mut self, value: Option<&str>) {
        let before = self.intent.approval.as_ref().map(|approval| approval.value.as_str());
        if before == value {
            return;
        }
        self.intent.approval = value.map(|value| ApprovalIntent {
            value: value.to_owned(),
            manager: Some("kubectl-annotate".to_owned()),
            at: Some(self.now),
        });
        let Some(value) = value else { return };
        let (named, step) = value.split_once('/').unwrap_or((value, ""));
        let Ok(version) = named.parse::<Version>() else { return };
        let (steps, route) = (self.steps(), self.cluster.gateway.route());
        let index = route.and_then(|route| rung(&steps, &route.shares, version));
        if let Some(index) = index.filter(|index| step.is_empty() || step == (index + 1).to_string()) {
            self.approved_steps.insert((version, index, steps[index].share));
        }
    }

    /// Whether an approval that would lead on is not there, or is one of those that are ignored.
    pub(super) fn waits_for_approval(&self) -> bool {
        let Some(version) = self.desired_version() else { return false };
        let (steps, route) = (self.steps(), self.cluster.gateway.route());
        let is_ignored = self.status.approval.as_ref().is_some_and(|seen| seen.ignored.is_some());
        let lacks = |index: usize| !self.approved_steps.contains(&(version, index, steps[index].share));
        let open =
            (0..steps.len()).find(|index| steps[*index].needs_approval && (is_ignored || lacks(*index)));
        open.is_some() && open == route.and_then(|route| rung(&steps, &route.shares, version))
    }

    /// When a version is given up because nobody approved it: it had the time, and nobody did.
    pub(super) fn was_approved_too_late(&mut self, version: Version, observed: &Observed) -> bool {
        let steps = self.steps();
        let Some((index, since)) = self.steps_since.get(&version).copied() else { return false };
        let Some(step) = steps.get(index).filter(|step| step.needs_approval) else { return false };
        let held = self.now.duration_since(since);
        let is_late = step.at_most.is_some_and(|at_most| held >= at_most);
        let is_approved = self.approved_steps.contains(&(version, index, step.share))
            && observed.status.approval.as_ref().is_none_or(|seen| seen.ignored.is_none());
        self.not_approved.insert(version);
        is_late && !is_approved && self.registry.error.is_none()
    }

    /// A version that never served gets the share of the next step, and only after it had that of the last
    /// one for long enough.
    fn promise_of_steps(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        let steps = self.steps();
        let serves = before.leader().filter(|leader| observed.is_ready(*leader));
        if steps.is_empty() || serves.is_none() || self.is_routed_by_others {
            return;
        }
        let versions: BTreeSet<Version> = after.iter().map(|(version, _)| version).collect();
        let copied = after.mirror().map(|mirror| mirror.version);
        for version in versions.into_iter().chain(copied) {
            let (had, weight) = (before.of(version), after.of(version));
            if self.has_served(version, observed) {
                continue;
            }
            let from = rung(&steps, before, version);
            let leads = leads(before, after, version);
            let to = if leads { Some(steps.len()) } else { rung(&steps, after, version) };
            if to <= from {
                continue;
            }
            let next = from.map_or(0, |from| from + 1);
            let is_exact = |step: &StepIntent| match step.share {
                ShareIntent::Weight(per_cent) => weight == per_cent * 10_000,
                ShareIntent::Mirror(per_cent) => after.mirrored_to(version) == Some(per_cent),
            };
            let is_next = to == Some(next) && steps.get(next).is_none_or(is_exact);
            self.promise(is_next, |_| {
                format!("version {version} goes to step {} from {had}, not to {to:?} with {weight}", next + 1)
            });
            let due = from.map(|from| steps[from].at_least).unwrap_or_default();
            let since = self.steps_since.get(&version).map_or(self.now, |(_, since)| *since);
            let held = self.now.duration_since(since);
            self.promise(held >= due || from.is_none(), |_| {
                format!("version {version} keeps {had} for {due:#}, but it was raised after {held:#}")
            });
        }
    }

    pub(super) fn remember_shares(&mut self, shares: &Shares) {
        let before = self.cluster.gateway.route().map(|route| route.shares.clone()).unwrap_or_default();
        let steps = self.steps();
        let versions: BTreeSet<Version> = [&before, shares]
            .into_iter()
            .flat_map(|it| {
                it.iter().map(|(version, _)| version).chain(it.mirror().map(|copied| copied.version))
            })
            .collect();
        for version in versions {
            let known = self.steps_since.get(&version).map(|(index, _)| *index);
            let returns = rung(&steps, &before, version).is_none() && !self.is_routed_by_others;
            match rung(&steps, shares, version) {
                None => self.approved_steps.retain(|(approved, ..)| *approved != version),
                // It stays where it is, or what somebody else gave it is taken away.
                after if after == known && !returns => {}
                Some(after) => drop(self.steps_since.insert(version, (after, self.now))),
            }
        }
    }

    /// The largest share goes to a ready version, or stays where it is.
    fn promise_of_one_leader(&mut self, shares: &Shares, observed: &Observed) {
        let Some(leader) = shares.leader() else { return };
        let is_full = observed.cluster.workloads.get(&leader).is_some_and(|workload| workload.counted() > 0);
        let holds = is_full || self.serves_through_route(leader);
        self.promise(holds, |_| format!("version {leader} may get the largest share"));
    }

    /// Before pods go: the data plane of the route does not reach them any more.
    pub(super) fn promise_of_what_the_gateway_reaches(&mut self, version: Version) {
        let is_reached = self.cluster.gateway.may_reach(version) && !self.has_lost_reference;
        self.promise(!is_reached, |_| {
            format!("the Gateway may still send requests to version {version}, which keeps its pods")
        });
    }

    /// Before the Service of a version goes: no route sends requests to it.
    pub(super) fn promise_of_version_service(&mut self, version: Version) {
        if self.intent.serving.is_some() && !self.has_lost_reference {
            let is_reached = self.cluster.gateway.may_reach(version);
            self.promise(!is_reached, |_| format!("a route still needs the Service of version {version}"));
        }
    }

    /// At rest, the route does what the Service does.
    pub(super) fn route_is_met(&self, desired: Version) -> Result<(), String> {
        let gateway = &self.cluster.gateway;
        let is_wanted = self.intent.serving.as_ref().is_some_and(|serving| serving.routed);
        if !is_wanted {
            // While the Gateway does not accept that their route was handed back, it may still reach them.
            let is_reached = gateway.is == GatewayIs::Away && self.status.route_ref.is_some();
            let is_clear = gateway.rendered.route.is_none() && (gateway.services.is_empty() || is_reached);
            self.their_route_is_met()?;
            return is_clear.then_some(()).ok_or_else(|| "without spec.traffic no route is left".into());
        }
        self.their_route_is_met()?;
        let route = gateway.route().ok_or("with spec.traffic there is a route")?;
        let due = Shares::led_by(desired, []).beside_challengers(desired, self.challengers_at_rest());
        let due = due.with_shadows(self.shadows_at_rest());
        if self.cluster.traffic != Traffic::One(desired) || route.shares != due {
            return Err(format!("the route has {:?}, but {desired} is desired", route.shares));
        }
        if route.is_edited || !gateway.has_accepted() || gateway.named().is_empty() {
            return Err("the route is not as it is rendered".into());
        }
        let deployments = || self.cluster.deployments.iter().filter(|(_, it)| it.desired > 0);
        if let Some((version, _)) = deployments().find(|(version, _)| !gateway.services.contains_key(version))
        {
            return Err(format!("version {version} has no Service of its own"));
        }
        self.unavailable_challengers_are_reported()?;
        let mut services = gateway.services.keys();
        match services.find(|version| !self.cluster.deployments.contains_key(version)) {
            Some(version) => Err(format!("the Service of version {version} is left")),
            None => Ok(()),
        }
    }
}
