//! Polls every registry and wakes the objects that its changes concern.
#![expect(clippy::disallowed_methods, reason = "effects: reads the clock")]

use std::{sync::Arc, time::Instant};

use tokio::task::JoinHandle;

use super::{
    wake::{self, wake_all, wake_object, wake_unsettled},
    webhook,
};
use crate::{
    controllers::context::Context,
    observe::{plan_of_models, poll_plan},
    registry::polled::{Due, PolledRegistry, RegistryKey},
};

/// The reads of what is only shown, beside the polls and one at a time: these are the least urgent, and
/// nothing else waits for them.
#[derive(Default)]
struct Display(Option<JoinHandle<()>>);

impl Display {
    /// Begins a read, unless the one before has not ended.
    fn begin(&mut self, read: impl Future<Output = ()> + Send + 'static) {
        if self.0.as_ref().is_none_or(JoinHandle::is_finished) {
            self.0 = Some(tokio::spawn(read));
        }
    }
}

/// Polls a registry until it is forgotten, and wakes the objects that changes concern.
pub(super) async fn poll_forever(context: Arc<Context>, key: RegistryKey, registry: Arc<PolledRegistry>) {
    context.readiness.reached().await;
    let mut known = None;
    let mut sweeps_again = false;
    let mut display = Display::default();
    while context.registry_objects.exists(&key) {
        let began = Instant::now();
        let plan = || poll_plan(&context.watched(), &key, &registry);
        let mut has_changed = false;
        let failure = registry.poll_in_parts(plan, |changes| {
            if changes.health {
                has_changed = true;
                report_health(&key, &registry);
                wake_object(&context, &key);
                wake_unsettled(&context, &key);
            }
            wake::changed(&context, &key, &changes.models);
        });
        let failure = failure.await;
        context.metrics.poll(failure.is_none(), began.elapsed());
        if let Some(cause) = &failure {
            tracing::debug!(registry = %key, reason = %cause.reason, message = cause.message, "poll failed");
        }
        // The next poll finds those whose reconcile saw the health of before.
        if std::mem::replace(&mut sweeps_again, has_changed) && !has_changed {
            wake_unsettled(&context, &key);
        }
        if failure.is_none() {
            let (context, key, registry) = (context.clone(), key.clone(), registry.clone());
            display.begin(async move {
                let changed = registry.read_display_metrics().await;
                wake::changed(&context, &key, &changed);
            });
        }
        // The status of the object counts them.
        let watched = context.index().model_count(&key);
        if known.replace(watched) != Some(watched) {
            wake_object(&context, &key);
        }
        tokio::select! {
            () = read_until_next_poll(&context, &key, &registry) => {}
            () = registry.retirement() => return,
        }
    }
    context.registries.remove(&key);
    wake_all(&context, &key);
    if !context.registry_objects.exists(&key) {
        webhook::end(&context, &key, &registry).await;
    }
}

/// Reads the models that webhook deliveries name, until the next poll is due.
async fn read_until_next_poll(context: &Arc<Context>, key: &RegistryKey, registry: &PolledRegistry) {
    let regular = registry.next_regular_poll();
    while let Due::Models(names) = registry.next_due(regular).await {
        let plan = plan_of_models(&context.watched(), key, registry, &names);
        let changed = registry.read_named(plan).await;
        wake::changed(context, key, &changed);
    }
}

fn report_health(key: &RegistryKey, registry: &PolledRegistry) {
    if let (Some(Err(cause)), _) = registry.health() {
        tracing::warn!(registry = %key, reason = %cause.reason, message = cause.message, "registry not reachable");
    } else {
        tracing::info!(registry = %key, url = %registry.settings.url, "registry reachable");
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use pretty_assertions::assert_eq;

    use super::*;
    use crate::{
        api::names::Version,
        registry::{
            Registry,
            fake::FakeRegistry,
            limiter::Limits,
            polled::{PollPlan, Registries, Settings},
        },
        render::RegistryForPods,
    };

    fn polled(fake: &Arc<FakeRegistry>) -> Arc<PolledRegistry> {
        let url: url::Url = "http://mlflow:5000".parse().unwrap();
        let pods =
            RegistryForPods { tracking_uri: url.clone(), workspace: None, ca: None, env_from: Vec::new() };
        let (poll_interval, limits) = (Duration::from_secs(30), Limits::default());
        let settings = Settings { url, workspace: None, poll_interval, limits, pods };
        let key = RegistryKey::Cluster { name: "mlflow".to_owned() };
        let polled = Registries::default().set(&key, settings).0;
        polled.set_client(Ok(fake.clone()));
        polled
    }

    #[tokio::test]
    async fn metrics_that_are_only_shown_do_not_hold_up_a_poll() {
        let fake = FakeRegistry::new();
        fake.add_model("fraud");
        fake.add_version("fraud", 1);
        fake.set_run("fraud", 1, "run");
        let (polled, fraud) = (polled(&fake), "fraud".parse().unwrap());
        let plan = || PollPlan { models: BTreeSet::from(["fraud".parse().unwrap()]), ..PollPlan::default() };
        polled.poll(plan).await;
        let facts = fake.version(&fraud, Version::new(1).unwrap()).await.unwrap().unwrap();
        polled.display_metrics(&fraud, &[facts], &BTreeSet::from(["auc".to_owned()])).await;
        let before = fake.calls("metrics");
        let (mut held, mut display) = (fake.hold("metrics"), Display::default());
        let mut begin = || {
            let polled = polled.clone();
            display.begin(async move { drop(polled.read_display_metrics().await) });
        };
        begin();
        held.reached().await;
        for _ in 0..3 {
            assert_eq!(polled.poll(plan).await.failure, None);
            begin();
        }
        assert_eq!(fake.calls("metrics"), before + 1, "one at a time");
        held.release();
    }
}
