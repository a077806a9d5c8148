//! What must hold of a route: at each write, and at rest.

use super::{Event, World, version};
use crate::{
    api::{model_alias::SmokeTestOutcome, names::Version},
    decide::{Observed, Shares, Traffic, decide},
};

impl World {
    /// Whether the route gives the version the largest share now.
    pub(super) fn serves_through_route(&self, version: Version) -> bool {
        let route = self.cluster.gateway.route.as_ref();
        route.is_some_and(|route| route.shares.leader() == Some(version))
    }

    /// What happens to the route, and to what it names.
    pub(super) fn happen_at_the_gateway(&mut self, event: &Event) {
        let gateway = &mut self.cluster.gateway;
        match event {
            Event::Gateway(is) => gateway.is = *is,
            Event::RouteDeleted(_) => gateway.delete_route(),
            Event::RouteEdited(to) => {
                gateway.edit(to.map(|number| Shares::led_by(version(number), [])));
                self.is_routed_by_others = true;
            }
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
        let route = self.cluster.gateway.route.as_ref();
        let before = |version| route.map_or(0, |route| route.shares.of(version));
        let versions = shares.iter().map(|(version, _)| version);
        let mut more = versions.filter(|version| shares.of(*version) > before(*version));
        more.all(|version| self.ready(version) > 0)
    }

    /// Before weights are written.
    pub(super) fn promise_of_shares(&mut self, shares: &Shares, observed: &Observed) {
        let challengers = shares.challengers().values().map(|share| share.weight);
        let sum: u32 = shares.iter().map(|(_, weight)| weight).chain(challengers).sum();
        self.promise(sum == Shares::WHOLE, |_| format!("the shares add up to the whole, not to {sum}"));
        let before = self.cluster.gateway.route.as_ref().map(|route| route.shares.clone());
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
        self.promise_of_challengers(&before, shares, observed);
        self.promise_of_no_leap(&before, shares, observed);
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
        let is_in_a_step = serving.steps.iter().any(|step| step.weight * 10_000 == had);
        let is_lowered = after.of(version) < had && is_in_a_step && !self.is_routed_by_others;
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
        if serves.is_none() || self.is_routed_by_others {
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

    /// A version that never served gets the share of the next step, and only after it had that of the last
    /// one for long enough.
    fn promise_of_steps(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        let steps = self.intent.serving.as_ref().map(|serving| serving.steps.clone()).unwrap_or_default();
        let serves = before.leader().filter(|leader| observed.is_ready(*leader));
        if steps.is_empty() || serves.is_none() || self.is_routed_by_others {
            return;
        }
        let is_new = |version: &Version| !observed.has_served(*version) && !self.answered.contains(version);
        let shares = after.iter().map(|(version, _)| (version, after.of(version)));
        let rising = shares.filter(|(version, weight)| *weight > before.of(*version) && is_new(version));
        for (version, weight) in rising.collect::<Vec<_>>() {
            let had = before.of(version);
            let shares = steps.iter().map(|step| step.weight * 10_000);
            let ladder: Vec<u32> = [0, Shares::LEAST].into_iter().chain(shares).collect();
            let index = ladder.iter().rposition(|share| *share <= had).unwrap_or_default();
            let next = ladder.get(index + 1).copied();
            let is_next = next.map_or(weight > had, |next| next == weight);
            self.promise(is_next, |_| {
                format!("version {version} goes from {had} to {next:?}, not to {weight}")
            });
            let due = index.checked_sub(2).map(|step| steps[step].at_least).unwrap_or_default();
            let since = self.shared_at.get(&version).copied().unwrap_or(self.now);
            let held = self.now.duration_since(since);
            self.promise(held >= due, |_| {
                format!("version {version} keeps {had} for {due:#}, but it was raised after {held:#}")
            });
        }
    }

    pub(super) fn remember_shares(&mut self, shares: &Shares) {
        let before =
            self.cluster.gateway.route.as_ref().map(|route| route.shares.clone()).unwrap_or_default();
        self.shared_at.retain(|version, _| shares.of(*version) == before.of(*version));
        for (version, _) in shares.iter() {
            self.shared_at.entry(version).or_insert(self.now);
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
        let is_reached = self.cluster.gateway.may_reach(version);
        self.promise(!is_reached, |_| {
            format!("the Gateway may still send requests to version {version}, which keeps its pods")
        });
    }

    /// Before the Service of a version goes: no route sends requests to it.
    pub(super) fn promise_of_version_service(&mut self, version: Version) {
        if self.intent.serving.is_some() {
            let is_reached = self.cluster.gateway.may_reach(version);
            self.promise(!is_reached, |_| format!("a route still needs the Service of version {version}"));
        }
    }

    /// At rest, the route does what the Service does.
    pub(super) fn route_is_met(&self, desired: Version) -> Result<(), String> {
        let gateway = &self.cluster.gateway;
        let is_wanted = self.intent.serving.as_ref().is_some_and(|serving| serving.routed);
        if !is_wanted {
            let is_clear = gateway.route.is_none() && gateway.services.is_empty();
            return is_clear.then_some(()).ok_or_else(|| "without spec.traffic no route is left".into());
        }
        let route = gateway.route.as_ref().ok_or("with spec.traffic there is a route")?;
        let due = Shares::led_by(desired, []).beside_challengers(desired, self.challengers_at_rest());
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
