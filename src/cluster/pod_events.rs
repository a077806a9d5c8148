//! Reads the Events about a single pod. Events are never watched: a cluster has many, and they matter only
//! while a pod is waited for.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client, api::ListParams};

use super::pod_causes::{AwaitedPod, PodEvent, QUOTE_MAX};
use crate::api::condition::shortened;

/// How many Events of a pod are read.
const READ_MAX: u32 = 50;

/// How many are kept: the latest.
const KEPT_MAX: usize = 8;

/// Reads the latest warnings about a pod.
pub(crate) async fn read(client: &Client, pod: &AwaitedPod) -> Result<Vec<PodEvent>, kube::Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), &pod.namespace);
    let selector = format!("regarding.kind=Pod,regarding.uid={},type=Warning", pod.uid);
    let listed = api.list(&ListParams::default().fields(&selector).limit(READ_MAX)).await?;
    let mut events: Vec<PodEvent> = listed.items.into_iter().map(kept).collect();
    events.sort_by_key(|event| std::cmp::Reverse(event.at));
    events.truncate(KEPT_MAX);
    Ok(events)
}

fn kept(event: Event) -> PodEvent {
    PodEvent {
        at: last_seen(&event),
        reason: shortened(&event.reason.unwrap_or_default(), 64),
        // Longer than a quotation, because the next step depends on what the end of the text names.
        note: shortened(&event.note.unwrap_or_default(), 2 * QUOTE_MAX),
    }
}

/// Time of the last occurrence. The kubelet still writes the fields that the API calls deprecated.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let deprecated = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.or(deprecated).or(first).or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}
