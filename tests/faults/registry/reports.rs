//! What the ModelRegistry, the RegisteredModel and the ModelAlias of a fixture report about the registry.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use laurel::api::{
    ModelAlias, ModelRegistry, RegisteredModel,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE},
    support::{
        alias::{condition, holds},
        watch::Watch,
    },
};

/// A poll is 5 s, a request may hang for 10 s, and the machine may be busy.
const LONG: Duration = PATIENCE.saturating_mul(2);

/// Watches of the two objects beside the ModelAlias.
pub(super) struct Reports {
    registry: Watch<ModelRegistry>,
    model: Watch<RegisteredModel>,
}

/// Returns the message of `Ready`, if it has this status and reason.
fn ready(conditions: &[Condition], status: &str, reason: Reason) -> Option<String> {
    let reason: &str = reason.into();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    (ready.status == status && ready.reason == reason).then(|| ready.message.clone())
}

impl Reports {
    pub(super) fn watch(fixture: &Fixture) -> Self {
        Self { registry: Watch::of(fixture.api(), "mlflow"), model: Watch::of(fixture.api(), "model") }
    }

    /// Applies the two objects; the ModelRegistry's URL is the proxy's.
    pub(super) async fn describe(&self, fixture: &Fixture) -> Result<()> {
        let url = fixture.registry.url();
        fixture
            .apply(&format!(
                "
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {{name: mlflow}}
spec: {{mlflow: {{url: '{url}'}}, pollInterval: 5s}}
"
            ))
            .await?;
        fixture.describe_model("registryRef: {name: mlflow}").await
    }

    /// Waits until `Ready` of the ModelRegistry has a status and a reason, in a state seen since a given
    /// time. Returns the message.
    pub(super) async fn registry(&self, since: Instant, status: &str, reason: Reason) -> Result<String> {
        let reported =
            |it: &ModelRegistry| ready(&it.status.clone().unwrap_or_default().conditions, status, reason);
        let what = format!("{reason} of the ModelRegistry");
        let wanted =
            self.registry.until(&what, LONG, |seen| seen.at >= since && reported(&seen.object).is_some());
        let last = || self.registry.last().and_then(|last| last.object.status);
        reported(&wanted.await.with_context(|| format!("last {:?}", last()))?.object)
            .context("the condition exists")
    }

    /// Fails if the ModelRegistry was not `Ready` at any time since a given time.
    pub(super) fn connected_since(&self, since: Instant) -> Result<()> {
        for seen in self.registry.seen().into_iter().filter(|seen| seen.at >= since) {
            let conditions = seen.object.status.unwrap_or_default().conditions;
            ensure!(ready(&conditions, "True", Reason::Connected).is_some(), "{conditions:?}");
        }
        Ok(())
    }

    /// Waits until the ModelRegistry reports why it cannot be read. Returns its message. The ModelAlias, which is
    /// at rest, is not woken for it. If something else does, it says that it does not know.
    pub(super) async fn error(&self, fixture: &Fixture, since: Instant, reason: Reason) -> Result<String> {
        let registry = self.registry(since, "False", reason).await?;
        held(fixture, since, ConditionType::Ready)?;
        held(fixture, since, ConditionType::Serving)?;
        let is_unknown = |it: &Condition| it.reason.starts_with("Registry") && it.status == "Unknown";
        let synced = fixture.champion.last().and_then(|it| condition(&it, ConditionType::RegistrySynced));
        ensure!(synced.as_ref().is_some_and(|it| it.status == "True" || is_unknown(it)), "{synced:?}");
        Ok(registry)
    }

    /// Waits until the ModelRegistry reports success, in a state seen since a given time, and the other two do
    /// so, too.
    pub(super) async fn well(&self, fixture: &Fixture, since: Instant) -> Result<()> {
        self.registry(since, "True", Reason::Connected).await?;
        let began = Instant::now();
        loop {
            let champion = fixture.champion.last().context("the ModelAlias is gone")?;
            let synced = condition(&champion, ConditionType::RegistrySynced);
            let is_synced = synced.as_ref().is_some_and(|it| it.reason == "Synced" && it.status == "True");
            if is_synced && holds(&champion, ConditionType::Ready) && self.model_is_synced() {
                return Ok(());
            }
            let model = || self.model.last().map(|last| last.object.status);
            ensure!(began.elapsed() < LONG, "{:?}, {:?}", champion.status, model());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn model_is_synced(&self) -> bool {
        let status = self.model.last().and_then(|last| last.object.status).unwrap_or_default();
        ready(&status.conditions, "True", Reason::ModelSynced).is_some()
    }
}

/// Waits until `RegistrySynced` of the ModelAlias has a status and a reason, in a state seen since a given
/// time. Returns the message.
pub(super) async fn synced(
    fixture: &Fixture,
    since: Instant,
    status: &str,
    reason: Reason,
) -> Result<String> {
    condition_is(fixture, since, ConditionType::RegistrySynced, status, reason).await
}

/// Waits until a condition of the ModelAlias has a status and a reason, in a state seen since a given time.
/// Returns the message.
pub(super) async fn condition_is(
    fixture: &Fixture,
    since: Instant,
    type_: ConditionType,
    status: &str,
    reason: Reason,
) -> Result<String> {
    let name: &str = reason.into();
    let it =
        |alias: &ModelAlias| condition(alias, type_).filter(|it| it.status == status && it.reason == name);
    let what = format!("{type_} {status} {reason}");
    let seen = fixture.champion.until_since(since, &what, LONG, |alias| it(alias).is_some()).await?;
    Ok(it(&seen.object).map(|it| it.message).unwrap_or_default())
}

/// Fails if a condition of the ModelAlias was not True at any time since a given time.
pub(super) fn held(fixture: &Fixture, since: Instant, type_: ConditionType) -> Result<()> {
    for seen in fixture.champion.seen().into_iter().filter(|seen| seen.at >= since) {
        ensure!(holds(&seen.object, type_), "{type_} was not True: {:?}", condition(&seen.object, type_));
    }
    Ok(())
}
