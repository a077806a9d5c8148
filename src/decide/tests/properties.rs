//! Properties of every story: changes of the spec, errors and crashes in any order. The promises themselves
//! are checked by the [world](super::world), at each single write and at rest.

use proptest::prelude::*;

use super::{
    random::scenario,
    world::{Reconcile, World},
};
use crate::{
    api::condition::Reason,
    decide::{Decision, Observed, Readiness, decide},
    status::{Applied, SubjectStatus, next},
};

/// The number of cases: `PROPTEST_CASES`, or this default.
fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

/// Returns the same observation, with every list and map built in another order.
fn made_in_another_order(observed: &Observed) -> Observed {
    let mut other = observed.clone();
    other.cluster.workloads = observed.cluster.workloads.clone().into_iter().rev().collect();
    other.cluster.endpoints = observed.cluster.endpoints.iter().rev().copied().collect();
    other.registry.versions = observed.registry.versions.clone().into_iter().rev().collect();
    other.status.versions.reverse();
    other.status.conditions.reverse();
    other
}

/// Whether a wait for this ends with something that the operator watches: pods, a smoke test, a Service.
#[expect(clippy::too_many_lines, reason = "a line for each reason")]
fn is_watched(reason: Reason) -> bool {
    match reason {
        Reason::StartingVersion
        | Reason::WaitingForPods
        | Reason::SmokeTesting
        | Reason::SmokeTestUnavailable
        | Reason::MovingTraffic
        | Reason::TrafficPending
        | Reason::CanaryStep
        | Reason::AwaitingApproval
        | Reason::ExchangingPods
        | Reason::UpdatingSettings
        | Reason::Scaling
        | Reason::ImagePullFailed
        | Reason::ModelCrashed
        | Reason::ContainerConfigInvalid
        | Reason::PodsRefused
        | Reason::Unschedulable
        | Reason::VolumeMountFailed
        | Reason::PodStartFailed
        | Reason::PodsEvicted => true,
        Reason::Serving
        | Reason::NoWorse
        | Reason::Watching
        | Reason::NotEnoughTraffic
        | Reason::NoBaseline
        | Reason::NotJudged
        | Reason::Regressed
        | Reason::Undecided
        | Reason::MetricsUnreachable
        | Reason::MetricsMissing
        | Reason::MetricsAmbiguous
        | Reason::SplitMismatch
        | Reason::StickyAssignment
        | Reason::ManyRegressed
        | Reason::NoDrift
        | Reason::InputsDrifted
        | Reason::DriftUnknown
        | Reason::AliasSet
        | Reason::Synced
        | Reason::ModelSynced
        | Reason::Connected
        | Reason::GatesPassed
        | Reason::ServedBefore
        | Reason::TrafficSplit
        | Reason::TrafficUnsupported
        | Reason::RouteUnusable
        | Reason::ChallengerUnavailable
        | Reason::ChampionUnavailable
        | Reason::SplitAsPlanned
        | Reason::ChallengerWins
        | Reason::ChampionWins
        | Reason::NoDifference
        | Reason::Collecting
        | Reason::AsDesired
        | Reason::Suspended
        | Reason::RegistryPending
        | Reason::Deleting
        | Reason::ModelRegistryNotFound
        | Reason::RegistryNotConfigured
        | Reason::RegistryNotAllowed
        | Reason::DefaultRegistry
        | Reason::NewerDefaultRegistry
        | Reason::RegistryInvalid
        | Reason::SecretNotFound
        | Reason::SecretKeyInvalid
        | Reason::RegistryNotRead
        | Reason::RegistryUnreachable
        | Reason::RegistryUnauthorized
        | Reason::RegistryForbidden
        | Reason::RegistryHostRefused
        | Reason::RegistryWorkspaceRefused
        | Reason::RegistryRefused
        | Reason::RegistryFailing
        | Reason::RegistryUnsupported
        | Reason::WebhookReceiving
        | Reason::WebhookWaiting
        | Reason::WebhookNotListening
        | Reason::WebhookDeliveriesRefused
        | Reason::WebhookUndeliverable
        | Reason::WebhookSchemeRefused
        | Reason::WebhookAddressRefused
        | Reason::WebhookEncryptionKeyMissing
        | Reason::RegisteredModelNotFound
        | Reason::ModelNotFound
        | Reason::ModelGone
        | Reason::VersionNotFound
        | Reason::VersionPending
        | Reason::VersionFailed
        | Reason::VersionReplaced
        | Reason::GatesFailed
        | Reason::AliasNotFound
        | Reason::NoCandidate
        | Reason::InvalidRange
        | Reason::Conflict
        | Reason::InvalidTemplate
        | Reason::NameTaken
        | Reason::AliasDrifted
        | Reason::AliasPutBack
        | Reason::Contested
        | Reason::ProgressDeadlineExceeded
        | Reason::SmokeTestFailed
        | Reason::BecameUnready
        | Reason::NotApproved
        | Reason::ApplyRefused
        | Reason::ApplyForbidden
        | Reason::ApplyFailed
        | Reason::Unknown => false,
    }
}

/// Returns the worlds of a story, each before its next event.
fn along(story: &super::scenario::Scenario) -> Vec<World> {
    let mut worlds = Vec::new();
    story.play_and(|world| worlds.push(world.clone()));
    worlds
}

proptest! {
    #![proptest_config(cases(400))]

    /// From any state, even if killed after any write, it reaches the desired state or reports a blocker, and
    /// then writes nothing, however much time passes.
    #[test]
    fn promise_7_it_converges_and_then_stays_quiet(story in scenario(30)) {
        let broken = story.broken();
        prop_assert!(broken.is_empty(), "{}\n{}", broken.join("\n"), story.yaml());
    }
}

proptest! {
    #![proptest_config(cases(64))]

    /// The same observation gives the same decision and the same status, regardless of the order in which it
    /// was built, and also after a round trip through a bug report.
    #[test]
    fn the_same_observation_gives_the_same_decision(story in scenario(30)) {
        for world in along(&story) {
            let observed = world.observe();
            let decision = decide(&observed);
            let text = serde_json::to_string(&observed).unwrap();
            let reported: Observed = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&reported, &observed);
            for same in [observed.clone(), reported, made_in_another_order(&observed)] {
                prop_assert_eq!(&decide(&same), &decision);
                let versions = |of: &Observed| next(of, &decision, &Applied::default(), &SubjectStatus::default()).versions;
                prop_assert_eq!(versions(&same), versions(&observed));
            }
        }
    }

    /// A wait that no watched change would end has a wake-up, and every wake-up lies in the future.
    #[test]
    fn promise_7_every_wait_ends_with_a_watched_change_or_a_wake_up(story in scenario(30)) {
        for mut world in along(&story) {
            let Decision { actions, report, wake, rejection, .. } = world.reconcile_once(&Reconcile::default());
            prop_assert!(wake.is_none_or(|at| at > world.now), "{wake:?}\n{}", story.yaml());
            if let Readiness::Progressing(cause) = report.readiness {
                let goes_on = !actions.is_empty() || rejection.is_some() || wake.is_some();
                prop_assert!(goes_on || is_watched(cause.reason), "{cause:?}\n{}", story.yaml());
            }
        }
    }
}
