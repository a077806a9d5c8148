//! What a pod's status says, in the few words that a decision needs.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};

use super::pod_causes::{self, Stage, condition};
use crate::{
    api::{condition::ReasonMessage, names::Version},
    render::labels,
};

/// What is kept of a pod.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// The version that it serves.
    pub version: Version,
    /// It is ready and not ending.
    pub ready: bool,
    /// It is ending.
    pub ending: bool,
    /// It was ready at some time.
    pub was_ready: bool,
    /// Its containers are not ready, as its node says. A node that is gone says nothing.
    pub unready_containers: bool,
    /// Since when it is on a node.
    pub placed: Option<Timestamp>,
    /// Since when it is not ready, as its conditions say.
    pub unready_since: Option<Timestamp>,
    /// The fingerprint of the settings that it was made with.
    pub settings: Option<String>,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// What keeps it from being ready, as far as its status says.
    pub error: Option<ReasonMessage>,
    /// Its UID.
    pub uid: String,
    /// Time of its creation.
    pub created: Option<Timestamp>,
    /// How far it has come.
    pub stage: Stage,
    /// Whether its container was killed by a signal, and not for its memory.
    pub was_killed: bool,
}

impl PodView {
    /// Whether it failed by itself: pods that are ending, and those whose node is gone, did not.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.was_ready && !self.ready && !self.ending && self.unready_containers
    }

    /// Whether it is waited for and only Events may say why.
    #[must_use]
    pub fn is_unexplained(&self) -> bool {
        !self.ready && !self.ending && (self.error.is_none() || self.was_killed)
    }

    /// Since when it has been on a node without being ready. One that was ready in between counts from when
    /// it was ready last.
    #[must_use]
    pub fn tried_since(&self) -> Option<Timestamp> {
        let placed = self.placed.filter(|_| !self.ready && !self.ending)?;
        let unready_since = self.unready_since.filter(|_| self.was_ready);
        Some(unready_since.map_or(placed, |since| since.max(placed)))
    }
}

/// Whether a pod is ready and not ending.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = |condition: &PodCondition| condition.type_ == "Ready" && condition.status == "True";
    pod.metadata.deletion_timestamp.is_none() && conditions.iter().any(ready)
}

/// What is kept of `pod`, which serves `version`.
#[must_use]
pub fn view(pod: &Pod, version: Version) -> PodView {
    let status = pod.status.as_ref();
    let is_evicted = condition(pod, "DisruptionTarget").is_some_and(|condition| condition.status == "True");
    let ending = pod.metadata.deletion_timestamp.is_some() || is_evicted;
    let containers = condition(pod, "ContainersReady").filter(|condition| condition.status == "False");
    PodView {
        version,
        ready: is_ready(pod),
        ending,
        was_ready: is_ready(pod) || containers.is_some_and(|condition| changed_after_start(pod, condition)),
        unready_containers: containers.is_some(),
        placed: placed(pod),
        unready_since: unready_since(pod),
        settings: pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(labels::SETTINGS))
            .cloned(),
        ip: status.and_then(|status| status.pod_ip.clone()),
        error: if ending { None } else { pod_causes::of_status(pod, version) },
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        stage: stage(pod),
        was_killed: pod_causes::was_killed(pod),
    }
}

fn placed(pod: &Pod) -> Option<Timestamp> {
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "True");
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    scheduled.and_then(|condition| condition.last_transition_time.as_ref()).or(started).map(|time| time.0)
}

/// Returns when its containers were ready last; if its node does not say that they are not, when the pod was.
fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let containers = condition(pod, "ContainersReady").filter(|condition| condition.status == "False");
    let unready = containers
        .or_else(|| condition(pod, "Ready").filter(|condition| condition.status != "True"))
        .and_then(|condition| condition.last_transition_time.as_ref());
    unready.map(|time| time.0)
}

/// Whether a condition changed after a container that is not ready was started: `ContainersReady` is `False`
/// from before that, so the pod was ready in between.
fn changed_after_start(pod: &Pod, condition: &PodCondition) -> bool {
    let statuses =
        pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let started = statuses.iter().filter(|container| !container.ready).filter_map(first_start).min();
    let changed = condition.last_transition_time.as_ref().map(|time| time.0);
    changed.zip(started).is_some_and(|(changed, started)| changed > started)
}

/// The earliest start of a container that its status still knows.
fn first_start(container: &ContainerStatus) -> Option<Timestamp> {
    let states = [container.last_state.as_ref(), container.state.as_ref()];
    states.into_iter().flatten().find_map(|state| {
        let terminated = state.terminated.as_ref().and_then(|terminated| terminated.started_at.as_ref());
        let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
        terminated.or(running).map(|time| time.0)
    })
}

/// How far a pod has come.
fn stage(pod: &Pod) -> Stage {
    let status = pod.status.as_ref();
    let containers = status
        .into_iter()
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
    let mut container_states =
        containers.flat_map(|container| [container.state.as_ref(), container.last_state.as_ref()]);
    let is_ready_for_containers =
        condition(pod, "PodReadyToStartContainers").is_some_and(|condition| condition.status == "True");
    let has_started = |state: Option<&ContainerState>| {
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    if is_ready_for_containers || container_states.any(has_started) {
        Stage::Started
    } else if placed(pod).is_some() {
        Stage::Preparing
    } else {
        Stage::Unplaced
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::api::condition::Reason;

    fn pod(status: &str) -> PodView {
        let pod: Pod = serde_yaml::from_str(&format!("metadata: {{name: p}}\nstatus:\n{status}")).unwrap();
        view(&pod, Version::new(3).unwrap())
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_named() {
        let view = pod("
  containerStatuses:
  - {name: model, image: 'r.example/x:1', imageID: '', ready: false, restartCount: 0,
     state: {waiting: {reason: ImagePullBackOff, message: 'not found'}}}");
        let cause = view.error.unwrap();
        assert_eq!(cause.reason, Reason::ImagePullFailed);
        assert!(
            cause.message.contains("r.example/x:1") && cause.message.contains("not found"),
            "{}",
            cause.message
        );
    }

    #[test]
    fn a_crash_quotes_the_last_log_lines() {
        let view = pod("
  containerStatuses:
  - {name: model, image: i, imageID: '', ready: false, restartCount: 2,
     state: {waiting: {reason: CrashLoopBackOff, message: back-off}},
     lastState: {terminated: {exitCode: 1, reason: Error, message: \"Traceback\\nNo such artifact: model\\n\"}}}");
        let cause = view.error.unwrap();
        assert_eq!(cause.reason, Reason::ModelCrashed);
        assert!(
            cause.message.ends_with("its last lines: Traceback | No such artifact: model"),
            "{}",
            cause.message
        );
    }

    #[test]
    fn a_recovered_container_is_not_an_error() {
        let view = pod("
  conditions: [{type: Ready, status: 'True'}]
  containerStatuses:
  - {name: model, image: i, imageID: '', ready: true, restartCount: 1, state: {running: {}},
     lastState: {terminated: {exitCode: 1, message: old}}}");
        assert_eq!((view.ready, view.error), (true, None));
    }

    #[test]
    fn a_pod_that_is_no_longer_ready_has_failed() {
        let unready = |started: &str| {
            pod(&format!(
                "
  conditions: [{{type: Ready, status: 'False'}},
    {{type: ContainersReady, status: 'False', lastTransitionTime: '2026-01-01T00:01:00Z'}}]
  containerStatuses:
  - {{name: model, image: i, imageID: '', ready: false, restartCount: 0,
     state: {{running: {{startedAt: '{started}'}}}}}}"
            ))
        };
        assert!(unready("2026-01-01T00:00:10Z").has_failed(), "it was ready in between");
        assert!(!unready("2026-01-01T00:01:00Z").has_failed(), "it has not been ready yet");
    }

    #[test]
    fn a_pod_that_is_evicted_or_whose_node_is_gone_has_not_failed() {
        let known = |conditions: &str| PodView {
            was_ready: true,
            ..pod(&format!("\n  conditions: [{{type: Ready, status: 'False'}}, {conditions}]"))
        };
        assert!(known("{type: ContainersReady, status: 'False'}").has_failed());
        assert!(!known("{type: ContainersReady, status: 'True'}").has_failed(), "only its node is away");
        let evicted =
            known("{type: ContainersReady, status: 'False'}, {type: DisruptionTarget, status: 'True'}");
        assert!(!evicted.has_failed());
    }

    #[test]
    fn an_attempt_begins_when_a_pod_is_on_a_node() {
        let scheduled = |status: &str| {
            pod(&format!(
                "
  conditions: [{{type: PodScheduled, status: '{status}', lastTransitionTime: '2026-01-01T00:01:00Z'}}]"
            ))
        };
        assert_eq!(scheduled("False").tried_since(), None);
        assert_eq!(scheduled("True").tried_since(), Some("2026-01-01T00:01:00Z".parse().unwrap()));
    }

    #[test]
    fn promise_6_an_attempt_begins_again_when_a_pod_that_was_ready_is_not() {
        let unready = |started: &str, condition: &str| {
            pod(&format!(
                "
  conditions: [{{type: PodScheduled, status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z'}},
    {{type: {condition}, status: 'False', lastTransitionTime: '2026-01-01T00:30:00Z'}}]
  containerStatuses:
  - {{name: model, image: i, imageID: '', ready: false, restartCount: 0,
     state: {{running: {{startedAt: '{started}'}}}}}}"
            ))
        };
        let at = |time: &str| Some(format!("2026-01-01T00:{time}Z").parse().unwrap());
        assert_eq!(unready("2026-01-01T00:00:05Z", "ContainersReady").tried_since(), at("30:00"));
        let loads = unready("2026-01-01T00:30:00Z", "ContainersReady");
        assert_eq!(loads.tried_since(), at("00:00"), "it has not been ready yet");
        let known = PodView { was_ready: true, ..unready("2026-01-01T00:00:05Z", "Ready") };
        assert_eq!(known.tried_since(), at("30:00"), "its node is away");
    }

    #[test]
    fn an_unschedulable_pod_quotes_the_scheduler() {
        let view = pod("
  conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: '0/1 nodes: Insufficient nvidia.com/gpu'}]");
        assert!(view.error.unwrap().message.contains("nvidia.com/gpu"));
    }
}
