//! Metrics in the `OpenMetrics` text format. Label values come from closed lists; object names are never
//! labels.

use std::{borrow::Cow, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{decide::Action, registry::limiter::Waits, webhook::DeliveryOutcome};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    kind: Cow<'static, str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: Cow<'static, str>,
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum ActionOutcome {
    /// It is done.
    Done,
    /// It continues beside the reconcile.
    Begun,
    /// It failed; the reason is in a condition.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Acted {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Polled {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivered {
    outcome: &'static str,
}

/// Every metric of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconciled, Counter>,
    reconcile_seconds: Family<Kind, Histogram>,
    actions: Family<Acted, Counter>,
    polls: Family<Polled, Counter>,
    poll_seconds: Histogram,
    deliveries: Family<Delivered, Counter>,
    registry_waits: Waits,
    resident_memory: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            // A reconcile without changes takes well under a millisecond; each write adds about 10 ms.
            reconcile_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0])
            }),
            actions: Family::default(),
            polls: Family::default(),
            poll_seconds: Histogram::new([0.01, 0.05, 0.2, 1.0, 5.0, 20.0]),
            deliveries: Family::default(),
            registry_waits: Waits::default(),
            resident_memory: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("laurel_reconciles", "Reconciles, by kind and outcome", self.reconciles.clone());
        registry.register_with_unit(
            "laurel_reconcile_duration",
            "Duration of reconciles",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        registry.register("laurel_actions", "Actions decided, by kind and outcome", self.actions.clone());
        registry.register(
            "laurel_registry_polls",
            "Polls of model registries, by outcome",
            self.polls.clone(),
        );
        registry.register_with_unit(
            "laurel_registry_poll_duration",
            "Duration of polls of model registries",
            Unit::Seconds,
            self.poll_seconds.clone(),
        );
        self.registry_waits.register(registry);
        registry.register(
            "laurel_webhook_deliveries",
            "Requests to the webhook endpoint, by outcome",
            self.deliveries.clone(),
        );
        registry.register_with_unit(
            "process_resident_memory",
            "Resident memory",
            Unit::Bytes,
            self.resident_memory.clone(),
        );
    }

    /// Counts one reconcile.
    pub fn reconcile(&self, kind: Cow<'static, str>, succeeded: bool, took: Duration) {
        let outcome = if succeeded { "done" } else { "failed" };
        self.reconciles.get_or_create(&Reconciled { kind: kind.clone(), outcome }).inc();
        self.reconcile_seconds.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }

    /// Counts one action.
    pub fn action(&self, action: &Action, outcome: ActionOutcome) {
        self.actions.get_or_create(&Acted { action: action.into(), outcome: outcome.into() }).inc();
    }

    /// Counts one poll.
    pub fn poll(&self, succeeded: bool, took: Duration) {
        let outcome = if succeeded { "answered" } else { "failed" };
        self.polls.get_or_create(&Polled { outcome }).inc();
        self.poll_seconds.observe(took.as_secs_f64());
    }

    /// Returns how long requests to registries wait for their turn.
    #[must_use]
    pub fn registry_waits(&self) -> Waits {
        self.registry_waits.clone()
    }

    /// Counts one request to the webhook endpoint.
    pub fn delivery(&self, outcome: DeliveryOutcome) {
        self.deliveries.get_or_create(&Delivered { outcome: outcome.into() }).inc();
    }

    /// Returns all metrics as text.
    #[must_use]
    pub fn text(&self) -> String {
        if let Some(bytes) = resident_memory() {
            self.resident_memory.set(bytes);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).map_or_else(|error| format!("# {error}\n"), |()| text)
    }
}

/// Returns the resident memory in bytes, as Linux reports it.
fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Traffic;

    #[test]
    fn metrics_are_exposed_under_their_names() {
        let metrics = Metrics::default();
        metrics.reconcile("ModelAlias".into(), true, Duration::from_millis(3));
        metrics.reconcile("ModelRegistry".into(), false, Duration::from_millis(3));
        metrics.action(&Action::DeleteService, ActionOutcome::Done);
        metrics.action(&Action::Route(Traffic::Shared), ActionOutcome::Failed);
        metrics.poll(true, Duration::from_millis(3));
        metrics.poll(false, Duration::from_millis(3));
        metrics.delivery(DeliveryOutcome::WrongSignature);
        let text = metrics.text();
        for line in [
            r#"laurel_reconciles_total{kind="ModelAlias",outcome="done"} 1"#,
            r#"laurel_reconciles_total{kind="ModelRegistry",outcome="failed"} 1"#,
            r#"laurel_reconcile_duration_seconds_count{kind="ModelAlias"} 1"#,
            r#"laurel_actions_total{action="DeleteService",outcome="done"} 1"#,
            r#"laurel_actions_total{action="Route",outcome="failed"} 1"#,
            r#"laurel_registry_polls_total{outcome="answered"} 1"#,
            r#"laurel_registry_polls_total{outcome="failed"} 1"#,
            "laurel_registry_poll_duration_seconds_count 2",
            r#"laurel_webhook_deliveries_total{outcome="wrong_signature"} 1"#,
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
