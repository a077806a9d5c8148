//! What the ModelRegistry, the RegisteredModel and the ModelAlias of a fixture say of the registry.

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

/// The objects beside the ModelAlias, watched.
pub(super) struct Reports {
    registry: Watch<ModelRegistry>,
    model: Watch<RegisteredModel>,
}

/// Whether the condition `Ready` of one of these two has a status and a reason.
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

    /// Waits until the ModelRegistry is `Ready` or not, for a reason, in a state seen since a moment; what it
    /// says.
    pub(super) async fn registry(&self, since: Instant, status: &str, reason: Reason) -> Result<String> {
        let said =
            |it: &ModelRegistry| ready(&it.status.clone().unwrap_or_default().conditions, status, reason);
        let what = format!("{reason} of the ModelRegistry");
        let wanted =
            self.registry.until(&what, LONG, |seen| seen.at >= since && said(&seen.object).is_some());
        let last = || self.registry.last().and_then(|last| last.object.status);
        said(&wanted.await.with_context(|| format!("last {:?}", last()))?.object).context("it was said")
    }

    /// An error when the ModelRegistry was not `Ready` at some time since a moment.
    pub(super) fn connected_since(&self, since: Instant) -> Result<()> {
        for seen in self.registry.seen().into_iter().filter(|seen| seen.at >= since) {
            let conditions = seen.object.status.unwrap_or_default().conditions;
            ensure!(ready(&conditions, "True", Reason::Connected).is_some(), "{conditions:?}");
        }
        Ok(())
    }

    /// Waits until the RegisteredModel is `Ready` or not, for a reason, in a state seen since a moment; what
    /// it says.
    pub(super) async fn model(&self, since: Instant, status: &str, reason: Reason) -> Result<String> {
        let said =
            |it: &RegisteredModel| ready(&it.status.clone().unwrap_or_default().conditions, status, reason);
        let what = format!("{reason} of the RegisteredModel");
        let wanted = self.model.until(&what, LONG, |seen| seen.at >= since && said(&seen.object).is_some());
        let last = || self.model.last().and_then(|last| last.object.status);
        said(&wanted.await.with_context(|| format!("last {:?}", last()))?.object).context("it was said")
    }

    /// Waits until all three tell why the registry's answers cannot be had; what each of them says. What
    /// serves and was in step is `Ready` all the same.
    pub(super) async fn error(
        &self,
        fixture: &Fixture,
        since: Instant,
        reason: Reason,
    ) -> Result<[String; 3]> {
        let registry = self.registry(since, "False", reason).await?;
        let model = self.model(since, "False", reason).await?;
        let alias = synced(fixture, since, "Unknown", reason).await?;
        let champion = fixture.champion.last().context("the ModelAlias is there")?;
        for type_ in [ConditionType::Ready, ConditionType::Serving] {
            ensure!(holds(&champion, type_), "{type_} is not True: {:?}", condition(&champion, type_));
        }
        Ok([registry, model, alias])
    }

    /// Waits until all three say that nothing is wrong, in states seen since a moment.
    pub(super) async fn well(&self, fixture: &Fixture, since: Instant) -> Result<()> {
        self.registry(since, "True", Reason::Connected).await?;
        self.model(since, "True", Reason::ModelSynced).await?;
        synced(fixture, since, "True", Reason::Synced).await?;
        let champion = fixture.champion.last().context("the ModelAlias is there")?;
        ensure!(holds(&champion, ConditionType::Ready), "{:?}", condition(&champion, ConditionType::Ready));
        Ok(())
    }
}

/// Waits until `RegistrySynced` of the ModelAlias has a status and a reason, in a state seen since a moment;
/// what it says.
pub(super) async fn synced(
    fixture: &Fixture,
    since: Instant,
    status: &str,
    reason: Reason,
) -> Result<String> {
    says(fixture, since, ConditionType::RegistrySynced, status, reason).await
}

/// Waits until a condition of the ModelAlias has a status and a reason, in a state seen since a moment; what
/// it says.
pub(super) async fn says(
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

/// An error when a condition of the ModelAlias was not True at some time since a moment.
pub(super) fn held(fixture: &Fixture, since: Instant, type_: ConditionType) -> Result<()> {
    for seen in fixture.champion.seen().into_iter().filter(|seen| seen.at >= since) {
        ensure!(holds(&seen.object, type_), "{type_} was not True: {:?}", condition(&seen.object, type_));
    }
    Ok(())
}
