//! The stories.

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use laurel::api::{ModelAlias, RegisteredModel};
use serde_json::Value;

use super::{Picture, Story, execution::until, survives};
use crate::{fixture::Fixture, simulated::look::never_ready};

/// A story of a ModelAlias.
struct Reports {
    name: &'static str,
    /// The version that the alias names before there is a ModelAlias.
    named: Option<&'static str>,
    /// The specs that are applied before, in turn. The model has versions 1, 2 and 3.
    before: &'static [&'static str],
    /// The version whose pods never become ready.
    never_ready: Option<&'static str>,
    begins_with: Trigger,
    /// The expected picture at the end: pointers and values.
    leads_to: &'static [(&'static str, &'static str)],
    /// The expected status and reason of `Ready`.
    ready: Option<(&'static str, &'static str)>,
}

/// Triggers the story.
enum Trigger {
    /// Applies a spec.
    Desired(&'static str),
    /// Moves the alias in the registry.
    MoveAlias(&'static str),
    /// Sets the image of a Deployment, as `kubectl set image` does.
    SetImage(&'static str),
    /// Deletes the ModelAlias.
    Delete,
}

impl Story for Reports {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn set(&self, fixture: &Fixture) -> Result<()> {
        fixture.registered(3).await?;
        if let Some(version) = self.named {
            fixture.move_alias(version).await?;
        }
        for desired in self.before {
            fixture.get(desired).await?;
        }
        if let Some(version) = self.never_ready {
            never_ready(fixture, version).await?;
        }
        Ok(())
    }

    async fn begin(&self, fixture: &Fixture) -> Result<()> {
        match self.begins_with {
            Trigger::Desired(desired) => fixture.desired(desired).await.map(drop),
            Trigger::MoveAlias(version) => fixture.move_alias(version).await,
            Trigger::SetImage(deployment) => {
                let image = "model=registry.example/theirs:1";
                let deployment = format!("deployment/{deployment}");
                fixture.kubectl(&["set", "image", &deployment, image]).await.map(drop)
            }
            Trigger::Delete => {
                let aliases = fixture.api::<ModelAlias>();
                Ok(aliases.delete("champion", &DeleteParams::default()).await.map(drop)?)
            }
        }
    }

    fn ended(&self, picture: &Picture) -> Result<()> {
        shows(picture, self.leads_to)?;
        self.ready.map_or(Ok(()), |wanted| is_ready(picture, wanted))
    }
}

fn shows(picture: &Picture, wanted: &[(&str, &str)]) -> Result<()> {
    for (pointer, wanted) in wanted {
        let shown = picture.pointer(pointer).cloned().unwrap_or_default();
        let text = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
        ensure!(text == *wanted, "{pointer} is {text} and not {wanted}");
    }
    Ok(())
}

/// Returns the status and reason of the champion's condition `Ready`.
fn is_ready(picture: &Picture, wanted: (&str, &str)) -> Result<()> {
    let conditions = picture.pointer("/champion/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let ready = ready.cloned().unwrap_or_default();
    let shown = (ready["status"].as_str().unwrap_or_default(), ready["reason"].as_str().unwrap_or_default());
    ensure!(shown == wanted, "Ready is {shown:?} and not {wanted:?}");
    Ok(())
}

const SERVING: Option<(&str, &str)> = Some(("True", "Serving"));

/// A version that never becomes ready.
const NEVER_READY: &str = "
version: '2'
rollout: {progressDeadline: 4s}
serving: {template: {metadata: {annotations: {kwok.laurel.test/fate: never-ready}}}}
";

#[test]
fn promise_7_a_first_promotion_killed_at_any_write_ends_the_same() {
    survives(&Reports {
        name: "first",
        named: None,
        before: &[],
        never_ready: None,
        begins_with: Trigger::Desired("{version: '1', previousAlias: previous}"),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "1"),
            ("/champion/status/version", "1"),
            ("/registered/aliases/champion", "1"),
            ("/model/status/aliases/champion", "1"),
            ("/deployments/champion-v1/ready", "2"),
        ],
        ready: SERVING,
    });
}

#[test]
fn promises_1_4_and_7_a_promotion_killed_at_any_write_ends_the_same() {
    survives(&Reports {
        name: "promotion",
        named: None,
        before: &["{version: '1', previousAlias: previous}"],
        never_ready: None,
        begins_with: Trigger::Desired("{version: '2', previousAlias: previous}"),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "2"),
            ("/champion/status/version", "2"),
            ("/champion/status/previousVersion", "1"),
            ("/registered/aliases/champion", "2"),
            ("/registered/aliases/previous", "1"),
            ("/model/status/aliases/previous", "1"),
            ("/deployments/champion-v1/ready", "2"),
            ("/deployments/champion-v2/ready", "2"),
        ],
        ready: SERVING,
    });
}

#[test]
fn promises_5_and_7_a_rollback_killed_at_any_write_ends_the_same() {
    survives(&Reports {
        name: "rollback",
        named: None,
        before: &["{version: '1', previousAlias: previous}", "{version: '2', previousAlias: previous}"],
        never_ready: None,
        begins_with: Trigger::Desired("{version: '1', previousAlias: previous}"),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "1"),
            ("/champion/status/version", "1"),
            ("/champion/status/history/0/outcome", "RolledBack"),
            ("/registered/aliases/champion", "1"),
            ("/registered/aliases/previous", "2"),
            ("/model/status/aliases/previous", "2"),
            ("/deployments/champion-v2/replicas", "2"),
        ],
        ready: SERVING,
    });
}

#[test]
fn promises_4_and_7_a_failing_rollout_killed_at_any_write_is_rejected_the_same() {
    survives(&Reports {
        name: "failing",
        named: None,
        before: &["version: '1'"],
        never_ready: None,
        begins_with: Trigger::Desired(NEVER_READY),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "1"),
            ("/champion/status/version", "1"),
            ("/champion/status/rejected/0/version", "2"),
            ("/champion/status/rejected/0/active", "true"),
            ("/champion/status/history/0/outcome", "Rejected"),
            ("/registered/aliases/champion", "1"),
            ("/deployments/champion-v1/ready", "2"),
            ("/deployments/champion-v2/replicas", "0"),
        ],
        ready: Some(("False", "ProgressDeadlineExceeded")),
    });
}

/// Taking the field over and applying it again are two writes.
#[test]
fn promise_7_an_image_set_by_hand_is_taken_back_when_killed_at_any_write() {
    survives(&Reports {
        name: "set-image",
        named: None,
        before: &["version: '1'"],
        never_ready: None,
        begins_with: Trigger::SetImage("champion-v1"),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "1"),
            ("/deployments/champion-v1/image", "registry.example/serving:1"),
            ("/deployments/champion-v1/ready", "2"),
        ],
        ready: SERVING,
    });
}

#[test]
fn promises_1_and_7_a_rolling_exchange_killed_at_any_write_ends_the_same() {
    survives(&Reports {
        name: "rolling",
        named: None,
        before: &["{version: '1', rollout: {strategy: Rolling}}"],
        never_ready: None,
        begins_with: Trigger::Desired("{version: '2', rollout: {strategy: Rolling}}"),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "2"),
            ("/champion/status/version", "2"),
            ("/registered/aliases/champion", "2"),
            ("/model/status/aliases/champion", "2"),
            ("/deployments/champion-v1/replicas", "0"),
            ("/deployments/champion-v2/ready", "2"),
        ],
        ready: SERVING,
    });
}

#[test]
fn promise_7_a_follower_killed_at_any_write_ends_the_same() {
    survives(&Reports {
        name: "follow",
        named: Some("1"),
        before: &["follow: {registry: {}}"],
        never_ready: None,
        begins_with: Trigger::MoveAlias("2"),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "2"),
            ("/champion/status/version", "2"),
            ("/champion/status/registryVersion", "2"),
            ("/registered/aliases/champion", "2"),
            ("/model/status/aliases/champion", "2"),
            ("/deployments/champion-v1/ready", "2"),
            ("/deployments/champion-v2/ready", "2"),
        ],
        ready: SERVING,
    });
}

#[test]
fn promises_6_and_7_a_follower_of_a_failing_version_killed_at_any_write_puts_the_alias_back() {
    survives(&Reports {
        name: "put-back",
        named: Some("1"),
        // Only the following rollout has a short deadline.
        before: &["follow: {registry: {}}", "{follow: {registry: {}}, rollout: {progressDeadline: 4s}}"],
        never_ready: Some("2"),
        begins_with: Trigger::MoveAlias("2"),
        leads_to: &[
            ("/services/champion/laurel.dev~1version", "1"),
            ("/champion/status/version", "1"),
            ("/champion/status/rejected/0/version", "2"),
            ("/champion/status/rejected/0/active", "false"),
            ("/champion/status/history/0/outcome", "Rejected"),
            ("/registered/aliases/champion", "1"),
            ("/deployments/champion-v1/ready", "2"),
            ("/deployments/champion-v2/replicas", "0"),
        ],
        ready: SERVING,
    });
}

#[test]
fn promises_7_and_9_a_deletion_killed_at_any_write_leaves_nothing() {
    survives(&Reports {
        name: "deletion",
        named: None,
        before: &["{version: '1', previousAlias: previous}", "{version: '2', previousAlias: previous}"],
        never_ready: None,
        begins_with: Trigger::Delete,
        leads_to: &[
            ("/champion", "null"),
            ("/services", "{}"),
            ("/deployments", "{}"),
            ("/registered/aliases", "{}"),
            ("/model/status/aliases", "null"),
        ],
        ready: None,
    });
}

/// A RegisteredModel is created for a new model, or deleted with its model.
struct Model {
    name: &'static str,
    ends: bool,
}

const MODEL: &str = "
description: Card-fraud scorer
tags: {team: risk, validated: 'true'}
deletionPolicy: Delete
";

impl Story for Model {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn set(&self, fixture: &Fixture) -> Result<()> {
        if self.ends {
            fixture.describe_model(MODEL).await?;
            until(fixture, |picture| shows(picture, &DESCRIBED)).await?;
            fixture.mlflow.register(&fixture.model).await?;
        }
        Ok(())
    }

    async fn begin(&self, fixture: &Fixture) -> Result<()> {
        if !self.ends {
            return fixture.describe_model(MODEL).await;
        }
        let models = fixture.api::<RegisteredModel>();
        Ok(models.delete("model", &DeleteParams::default()).await.map(drop)?)
    }

    fn ended(&self, picture: &Picture) -> Result<()> {
        let wanted: &[_] =
            if self.ends { &[("/model", "null"), ("/registered", "null")] } else { &DESCRIBED };
        shows(picture, wanted)
    }
}

const DESCRIBED: [(&str, &str); 4] = [
    ("/registered/description", "Card-fraud scorer"),
    ("/registered/tags/team", "risk"),
    ("/model/finalizers/0", "laurel.dev/registered-model"),
    ("/model/status/observedGeneration", "1"),
];

#[test]
fn promise_7_a_new_model_is_registered_as_described_when_killed_at_any_write() {
    survives(&Model { name: "model", ends: false });
}

#[test]
fn promises_7_and_9_a_model_s_deletion_killed_at_any_write_leaves_nothing() {
    survives(&Model { name: "model-end", ends: true });
}
