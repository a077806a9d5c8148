//! Events about our own objects.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{api::condition::shortened, status::NewEvent};

/// Publishes Events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Publishes in Laurel's name; `instance` is the name of its pod, where that is known.
    #[must_use]
    pub fn new(client: &Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: "laurel.dev/laurel".to_owned(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter) }
    }

    /// Publishes Events about an object, beside the reconcile. That one fails is logged and nothing more: an Event is a
    /// courtesy.
    pub fn publish(&self, regarding: ObjectReference, events: Vec<NewEvent>) {
        // The API server takes at most 1 kB.
        const NOTE_MAX: usize = 1000;
        let recorder = self.recorder.clone();
        let publish = async move {
            for event in events {
                let event = Event {
                    type_: if event.warning { EventType::Warning } else { EventType::Normal },
                    reason: event.reason,
                    note: Some(shortened(&event.message, NOTE_MAX)),
                    action: event.action,
                    secondary: None,
                };
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    tracing::debug!(%error, reason = event.reason, "an Event could not be published");
                }
            }
        };
        tokio::spawn(publish);
    }
}
