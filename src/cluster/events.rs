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
    /// Creates a publisher with Laurel as the reporter; `instance` is the name of its pod, if known.
    #[must_use]
    pub fn new(client: &Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: "laurel.dev/laurel".to_owned(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter) }
    }

    /// Publishes Events about an object, concurrently with the reconcile. Failures are only logged: Events
    /// are best effort.
    pub fn publish(&self, regarding: ObjectReference, events: Vec<NewEvent>) {
        // The API server accepts at most 1 kB.
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
                    tracing::debug!(%error, reason = event.reason, "cannot publish Event");
                }
            }
        };
        tokio::spawn(publish);
    }
}
