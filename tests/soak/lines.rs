//! What was watched, as lines of the story.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Event, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Resource, ResourceExt};
use laurel::{
    api::{ModelAlias, condition::ConditionType},
    render::labels::VERSION,
};

use super::{harness::Watched, story::Line};
use crate::support::{alias, pods::is_ready, watch::Watch};

/// Everything that was seen, in any order.
pub(super) fn all(watched: &Watched) -> Vec<Line> {
    [
        lines(&watched.aliases, model_alias),
        lines(&watched.services, service),
        lines(&watched.slices, slice),
        lines(&watched.pods, pod),
        lines(&watched.operators, pod),
        lines(&watched.events, event),
    ]
    .concat()
}

fn lines<K>(watch: &Watch<K>, describe: impl Fn(&K) -> String) -> Vec<Line>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let mut last = BTreeMap::new();
    let mut lines = Vec::new();
    for seen in watch.seen() {
        let name = seen.object.name_any();
        let gone = if seen.gone { " is gone;" } else { "" };
        let line = format!("{}{gone} {}", K::kind(&()), describe(&seen.object));
        // Many changes of an object change nothing of what is listed, and an event that comes again is listed
        // once.
        if last.insert(name, line.clone()) != Some(line.clone()) {
            lines.push((seen.at, line));
        }
    }
    lines
}

fn model_alias(malias: &ModelAlias) -> String {
    let status = alias::status(malias);
    let ready = alias::condition(malias, ConditionType::Ready);
    let ready = ready.map(|ready| format!("Ready={} {}: {}", ready.status, ready.reason, ready.message));
    let desired = malias.spec.version.as_ref().map_or_else(String::new, ToString::to_string);
    let target = status.target_version.as_ref().map_or_else(String::new, ToString::to_string);
    let serves = alias::version(malias);
    let name = malias.name_any();
    format!("{name}: spec {desired:?}, target {target:?}, serves {serves:?}, {}", ready.unwrap_or_default())
}

fn service(service: &Service) -> String {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let version = selector.and_then(|selector| selector.get(VERSION));
    format!("{} selects version {}", service.name_any(), version.map_or("any", String::as_str))
}

fn slice(slice: &EndpointSlice) -> String {
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let pod = endpoint.target_ref.as_ref().and_then(|pod| pod.name.clone()).unwrap_or_default();
        let is = |condition: Option<bool>, word| if condition == Some(true) { word } else { "" };
        format!("{pod}{}{}", is(conditions.ready, " ready"), is(conditions.terminating, " terminating"))
    });
    format!("{}: {}", slice.name_any(), endpoints.collect::<Vec<_>>().join(", "))
}

fn pod(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let restarts: i32 = containers.iter().map(|container| container.restart_count).sum();
    let state = containers.first().and_then(|container| container.state.clone()).unwrap_or_default();
    let waits = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
    let ended = state.terminated.map(|ended| format!("ended with {}", ended.exit_code)).unwrap_or_default();
    let terminating = if pod.metadata.deletion_timestamp.is_some() { "terminating" } else { "" };
    let ready = if is_ready(pod) { "ready" } else { "not ready" };
    let words = [status.phase.as_deref().unwrap_or_default(), ready, terminating, &waits, &ended];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    format!("{} {}, {restarts} restarts", pod.name_any(), words.join(", "))
}

fn event(event: &Event) -> String {
    let about = &event.involved_object;
    format!(
        "of {} {}: {} {}",
        about.kind.as_deref().unwrap_or_default(),
        about.name.as_deref().unwrap_or_default(),
        event.reason.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default().lines().next().unwrap_or_default()
    )
}
