//! Trouble is told, with its reason and the next step, and traffic stays where it is.

use anyhow::{Result, ensure};
use laurel::api::condition::{ConditionType, Reason};
use serde_json::{Value, json};

use crate::{
    fixture::{Clients, Fixture, ORIGIN, PATIENCE, run},
    support::alias,
};

/// Wishes for something that cannot be had; returns what the condition `Ready` says, while version 1 goes on
/// serving.
async fn refused(fixture: &Fixture, clients: &Clients, spec: Value, reason: Reason) -> Result<String> {
    let change = fixture.desired(spec).await?;
    let seen = fixture.champion.reason(change, reason, PATIENCE).await?;
    fixture.reported(reason).await?;
    clients.stay_on(change.accepted, "1").await?;
    ensure!(
        alias::holds(&seen.object, ConditionType::Serving),
        "{reason}: version 1 does not serve any more"
    );
    let message = alias::message(&seen.object);
    println!("  {reason}: {message}");
    Ok(message)
}

fn says(message: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(message.contains(word), "{message:?} does not name {word:?}");
    }
    Ok(())
}

#[test]
fn errors_of_the_spec_and_of_pods_are_reported_and_traffic_stays() {
    run("trouble-pods", 3, async |fixture| {
        fixture.good_versions(2).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;

        let message = refused(fixture, &clients, json!({ "version": "99" }), Reason::VersionNotFound).await?;
        says(&message, &["99", "spec.version"])?;

        let desired =
            json!({ "version": "2", "serving": { "image": "localhost/laurel/serving:no-such-tag" } });
        let message = refused(fixture, &clients, desired, Reason::ImagePullFailed).await?;
        says(&message, &["no-such-tag"])?;

        let desired = json!({ "version": "2", "serving": { "envFrom": [{ "secretRef": { "name": "no-such-secret" } }] } });
        let message = refused(fixture, &clients, desired, Reason::ContainerConfigInvalid).await?;
        says(&message, &["no-such-secret"])?;

        fixture.get(json!({ "version": "1" })).await?;
        fixture.kubectl(&["create", "quota", "tight", "--hard=pods=1"], None).await?;
        let message = refused(fixture, &clients, json!({ "version": "2" }), Reason::PodsRefused).await?;
        says(&message, &["quota"])?;

        // With the trouble gone it goes on by itself.
        fixture.kubectl(&["delete", "quota", "tight"], None).await?;
        let change = fixture.champion.accepted().await?;
        fixture.champion.ready(change, PATIENCE).await?;
        clients.move_to(change, "1", "2").await?;
        clients.leave().await.map(drop)
    });
}

#[test]
fn errors_of_the_model_are_quoted_and_traffic_stays() {
    run("trouble-model", 3, async |fixture| {
        fixture.good_versions(1).await?;
        let crashing = fixture.mlflow.version_from_nowhere(&fixture.model).await?;
        let wrong_example =
            ("serving_input_example.json", r#"{"dataframe_split":{"columns":["x"],"data":[["?"]]}}"#);
        let failing = fixture.mlflow.altered_version((ORIGIN, "1"), &fixture.model, wrong_example).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;

        let message =
            refused(fixture, &clients, json!({ "version": crashing }), Reason::ModelCrashed).await?;
        says(&message, &["exit code 1", "its last lines: ", "Error: "])?;

        let message =
            refused(fixture, &clients, json!({ "version": failing }), Reason::SmokeTestFailed).await?;
        says(&message, &["400"])?;

        let rejected = alias::status(&fixture.champion.last().unwrap()).rejected;
        ensure!(rejected.iter().any(|each| each.version.to_string() == failing), "{rejected:?}");
        clients.leave().await.map(drop)
    });
}
