//! Why pods are not ready, as Kubernetes reports it: in their status, in the Events about them, or in the
//! condition of their Deployment.
//!
//! Each message quotes the report, shortened, and says what to do. It names the version and not the pod: pods
//! are replaced, and the condition must not change with each of them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};

use crate::{
    api::{
        condition::{LAST_LINES, PROBE_FAILS, Reason, ReasonMessage, shortened},
        names::Version,
    },
    decide::ClusterView,
};

mod remedy;
#[cfg(test)]
mod tests;

/// The longest quotation of a report, in bytes.
pub const QUOTE_MAX: usize = 400;

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is on no node.
    Unplaced,
    /// Its node prepares volumes and network.
    Preparing,
    /// A container of it has started.
    Started,
}

/// A pod that is not ready although nothing in its status says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedPod {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// The version that it serves.
    pub version: Version,
    /// How far it has come.
    pub stage: Stage,
    /// Whether its container was killed, for instance after a failed probe.
    pub was_killed: bool,
    /// Its address, which Events quote.
    pub ip: Option<String>,
    /// Time of its creation.
    pub created: Option<Timestamp>,
}

/// What is kept of an Event about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// Its reason, such as `FailedMount`.
    pub reason: String,
    /// Its text, shortened.
    pub note: String,
    /// Time of its last occurrence.
    pub at: Option<Timestamp>,
}

impl PodEvent {
    /// Whether it may still happen, if the last Event about the pod came at `last`: the kubelet repeats what
    /// it tries in vain every two minutes at least.
    #[must_use]
    pub fn is_current(&self, last: Option<Timestamp>) -> bool {
        const REPEATED_WITHIN: SignedDuration = SignedDuration::from_mins(3);
        self.at.zip(last).is_none_or(|(at, last)| last.duration_since(at) <= REPEATED_WITHIN)
    }

    /// Whether both report the same, at whatever time.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.reason, &self.note) == (&other.reason, &other.note)
    }
}

/// The last pod of a version that its node ended or rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndedPod {
    pub(super) name: String,
    pub(super) cause: ReasonMessage,
    pub(super) at: Option<Timestamp>,
}

/// What Events say about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Explanation {
    /// What keeps it from being ready.
    Error(ReasonMessage),
    /// A probe fails. While a model is loading, it does.
    Probe(String),
}

/// Returns a condition of a pod.
pub(super) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// What the status of a pod says about why it is not ready.
pub(super) fn of_status(pod: &Pod, version: Version) -> Option<ReasonMessage> {
    let status = pod.status.as_ref()?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers
        .find_map(|container| of_container(container, version, namespace))
        .or_else(|| unscheduled(pod, version, namespace))
}

fn unscheduled(pod: &Pod, version: Version, namespace: &str) -> Option<ReasonMessage> {
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let is_gated = match scheduled.reason.as_deref() {
        Some("Unschedulable") => false,
        Some("SchedulingGated") => true,
        _ => return None,
    };
    let said = scheduled.message.as_deref().unwrap_or("no reason given");
    let next = if is_gated {
        "whoever set schedulingGates on the pods has to remove them".to_owned()
    } else {
        remedy::of_scheduling(said, namespace)
    };
    Some(unschedulable(version, said, &next))
}

fn unschedulable(version: Version, said: &str, next: &str) -> ReasonMessage {
    let said = shortened(said, QUOTE_MAX);
    let message = format!("no node takes the pods of version {version}: {said}; {next}");
    ReasonMessage::new(Reason::Unschedulable, message)
}

fn of_container(container: &ContainerStatus, version: Version, namespace: &str) -> Option<ReasonMessage> {
    let name = &container.name;
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let said = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or("no details given");
    let quote = shortened(said, QUOTE_MAX);
    match waiting.and_then(|waiting| waiting.reason.as_deref()) {
        Some(
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed",
        ) => Some(ReasonMessage::new(
            Reason::ImagePullFailed,
            format!(
                "the image {:?} of version {version} cannot be pulled: {quote}; correct spec.serving.image, or \
                 give the pods imagePullSecrets in spec.serving.template",
                container.image,
            ),
        )),
        Some("CreateContainerConfigError") => Some(ReasonMessage::new(
            Reason::ContainerConfigInvalid,
            format!(
                "the container {name:?} of version {version} cannot be created: {quote}; {}",
                remedy::of_config(said, namespace)
            ),
        )),
        Some("CreateContainerError" | "RunContainerError" | "PreCreateHookError" | "PreStartHookError") => {
            Some(ReasonMessage::new(
                Reason::ContainerConfigInvalid,
                format!(
                    "the container {name:?} of version {version} cannot be started: {quote}; check the image's \
                     entrypoint, and command, args and volumeMounts in spec.serving.template",
                ),
            ))
        }
        _ => crash(container, version),
    }
}

/// How a container that is not ready ended last.
fn ended(container: &ContainerStatus) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    fn terminated(
        state: Option<&ContainerState>,
    ) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
        state?.terminated.as_ref()
    }
    if container.ready {
        return None;
    }
    let ended = terminated(container.state.as_ref()).or_else(|| terminated(container.last_state.as_ref()))?;
    // An init container that is done.
    (ended.exit_code != 0 || terminated(container.state.as_ref()).is_none()).then_some(ended)
}

/// Whether a container of the pod was killed by a signal and not for its memory: a failed probe does that.
pub(super) fn was_killed(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    statuses
        .unwrap_or_default()
        .iter()
        .filter_map(ended)
        .any(|ended| matches!(ended.exit_code, 137 | 143) && ended.reason.as_deref() != Some("OOMKilled"))
}

/// A container that exited, with its own last lines.
fn crash(container: &ContainerStatus, version: Version) -> Option<ReasonMessage> {
    let ended = ended(container)?;
    let why = match (ended.reason.as_deref(), ended.exit_code) {
        (Some("OOMKilled"), _) => "ran out of memory; raise spec.serving.resources.limits.memory".to_owned(),
        (_, code @ (137 | 143)) => {
            format!(
                "was killed (exit code {code}), for example because it did not end in time or a probe failed"
            )
        }
        (_, code) => format!("ended with exit code {code}"),
    };
    let lines = last_lines(ended.message.as_deref().unwrap_or_default());
    let lines = if lines.is_empty() {
        "it wrote nothing to its termination log; see kubectl logs --previous".to_owned()
    } else {
        format!("{LAST_LINES}: {lines}")
    };
    Some(ReasonMessage::new(
        Reason::ModelCrashed,
        format!(
            "the container {:?} of version {version} {why} ({} restarts); {lines}",
            container.name, container.restart_count
        ),
    ))
}

/// The end of a log, on one line.
fn last_lines(log: &str) -> String {
    const MOST: usize = 600;
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut text = String::new();
    for line in lines.iter().rev() {
        if !text.is_empty() && text.len() + line.len() > MOST {
            break;
        }
        text = if text.is_empty() { shortened(line, MOST) } else { format!("{line} | {text}") };
    }
    text
}

/// Why a pod ended, if its node ended or rejected it.
pub(super) fn of_end(pod: &Pod, version: Version) -> Option<EndedPod> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"))?;
    let reason = status.reason.as_deref()?;
    let said = shortened(status.message.as_deref().unwrap_or("no details given"), QUOTE_MAX);
    let cause = match reason {
        "Evicted" | "Preempting" | "Terminated" | "NodeShutdown" | "NodeLost" => ReasonMessage::new(
            Reason::PodsEvicted,
            format!(
                "a node ended a pod of version {version}: {reason}: {said}; another pod is started{}",
                remedy::of_eviction(&said)
            ),
        ),
        _ => ReasonMessage::new(
            Reason::PodStartFailed,
            format!(
                "a node rejects the pods of version {version}: {reason}: {said}; {}",
                remedy::of_rejection(reason)
            ),
        ),
    };
    let disrupted =
        condition(pod, "DisruptionTarget").and_then(|condition| condition.last_transition_time.as_ref());
    let at = disrupted.or(status.start_time.as_ref()).or(pod.metadata.creation_timestamp.as_ref());
    Some(EndedPod { name: pod.metadata.name.clone().unwrap_or_default(), cause, at: at.map(|time| time.0) })
}

/// Why the cluster creates no pods, as the condition of their Deployment says.
pub(super) fn refused(version: Version, said: &str, namespace: &str) -> ReasonMessage {
    let message = format!(
        "the cluster refuses pods of version {version}: {}; {}",
        shortened(said, 600),
        remedy::of_refusal(said, namespace)
    );
    ReasonMessage::new(Reason::PodsRefused, message)
}

/// Adds to a view of the cluster what Events say about the pods that are waited for. `events` returns those
/// of the pod with a UID.
pub fn explain(cluster: &mut ClusterView, awaited: &[AwaitedPod], events: impl Fn(&str) -> Vec<PodEvent>) {
    for pod in awaited {
        let Some(workload) = cluster.workloads.get_mut(&pod.version) else { continue };
        match of_events(pod, &events(&pod.uid)) {
            Some(Explanation::Error(cause)) if workload.error.is_none() || pod.was_killed => {
                workload.error = Some(cause);
            }
            Some(Explanation::Probe(said)) if workload.failing_probe.is_none() => {
                workload.failing_probe = Some(said);
            }
            _ => {}
        }
    }
}

/// What Events say about a pod that is not ready. What happened at an earlier stage than the pod is in now is
/// over.
///
/// Several Events may be repeated in turn. Which one is reported does not depend on which came last, but on
/// its kind, and among those of one kind on their order.
fn of_events(pod: &AwaitedPod, events: &[PodEvent]) -> Option<Explanation> {
    let relevant: Vec<&PodEvent> = events.iter().filter(|event| is_about(pod, event)).collect();
    let last = relevant.iter().filter_map(|event| event.at).max();
    let current = relevant.into_iter().filter(|event| event.is_current(last));
    let event = current.min_by_key(|event| rank(event))?;
    let (version, namespace) = (pod.version, pod.namespace.as_str());
    let note =
        pod.ip.as_ref().map_or_else(|| event.note.clone(), |ip| event.note.replace(ip.as_str(), "the pod"));
    let note = shortened(&note, QUOTE_MAX);
    let error = |reason, message| Some(Explanation::Error(ReasonMessage::new(reason, message)));
    match pod.stage {
        Stage::Unplaced => {
            let next = remedy::of_scheduling(&event.note, namespace);
            Some(Explanation::Error(unschedulable(version, &note, &next)))
        }
        Stage::Preparing if event.reason.contains("PodSandBox") || event.reason == "NetworkNotReady" => {
            error(
                Reason::PodStartFailed,
                format!(
                    "a node cannot start the pods of version {version}: {note}; check the node, its container \
                 runtime and its network plugin"
                ),
            )
        }
        Stage::Preparing => error(
            Reason::VolumeMountFailed,
            format!(
                "the pods of version {version} wait for a volume: {note}; {}",
                remedy::of_volume(&event.note, namespace)
            ),
        ),
        Stage::Started if pod.was_killed => error(
            Reason::ModelCrashed,
            format!(
                "the pods of version {version} are restarted because {PROBE_FAILS}: {note}; give the model more \
                 time with startupProbe or livenessProbe in spec.serving.template, or see kubectl logs --previous"
            ),
        ),
        Stage::Started => Some(Explanation::Probe(note)),
    }
}

/// The causes come before what follows from them.
fn rank(event: &PodEvent) -> u8 {
    match event.reason.as_str() {
        "NetworkNotReady" => 0,
        reason if reason.contains("PodSandBox") => 1,
        // That volumes were not there in time follows from what the others say.
        _ if event.note.contains("timed out waiting for the condition") => 3,
        _ => 2,
    }
}

fn is_about(pod: &AwaitedPod, event: &PodEvent) -> bool {
    let reason = event.reason.as_str();
    match pod.stage {
        Stage::Unplaced => reason == "FailedScheduling",
        Stage::Preparing => matches!(
            reason,
            "FailedMount"
                | "FailedMapVolume"
                | "FailedAttachVolume"
                | "FailedCreatePodSandBox"
                | "FailedPodSandBoxStatus"
                | "NetworkNotReady"
        ),
        Stage::Started => reason == "Unhealthy" && (!pod.was_killed || !event.note.starts_with("Readiness")),
    }
}
