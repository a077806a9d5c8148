//! Errors are reported with a reason and the next step, and traffic stays where it is.

use anyhow::{Result, ensure};
use laurel::api::condition::{ConditionType, Reason};
use serde_json::{Value, json};

use crate::{
    fixture::{Clients, Fixture, ORIGIN, PATIENCE, run},
    support::alias,
};

/// Requests something impossible. Returns the message of `Ready`, while version 1 keeps serving.
async fn refused(fixture: &Fixture, clients: &Clients, spec: Value, reason: Reason) -> Result<String> {
    let change = fixture.desired(spec).await?;
    let seen = fixture.champion.reason(change, reason, PATIENCE).await?;
    fixture.reported(reason).await?;
    clients.stay_on(change.accepted, "1").await?;
    ensure!(alias::holds(&seen.object, ConditionType::Serving), "{reason}: version 1 no longer serves");
    let message = alias::message(&seen.object);
    println!("  {reason}: {message}");
    Ok(message)
}

fn contains_all(message: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(message.contains(word), "{message:?} does not name {word:?}");
    }
    Ok(())
}

#[test]
fn errors_of_the_spec_and_of_pods_are_reported_and_traffic_stays() {
    run("errors-pods", 3, async |fixture| {
        fixture.good_versions(2).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;

        let message = refused(fixture, &clients, json!({ "version": "99" }), Reason::VersionNotFound).await?;
        contains_all(&message, &["99", "spec.version"])?;

        let desired =
            json!({ "version": "2", "serving": { "image": "localhost/laurel/serving:no-such-tag" } });
        let message = refused(fixture, &clients, desired, Reason::ImagePullFailed).await?;
        contains_all(&message, &["no-such-tag"])?;

        let desired = json!({ "version": "2", "serving": { "envFrom": [{ "secretRef": { "name": "no-such-secret" } }] } });
        let message = refused(fixture, &clients, desired, Reason::ContainerConfigInvalid).await?;
        contains_all(&message, &["no-such-secret"])?;

        fixture.get(json!({ "version": "1" })).await?;
        fixture.kubectl(&["create", "quota", "tight", "--hard=pods=1"], None).await?;
        let message = refused(fixture, &clients, json!({ "version": "2" }), Reason::PodsRefused).await?;
        contains_all(&message, &["quota"])?;

        // Once the cause is gone it continues by itself.
        fixture.kubectl(&["delete", "quota", "tight"], None).await?;
        let change = fixture.champion.accepted().await?;
        fixture.champion.ready(change, PATIENCE).await?;
        clients.move_to(change, "1", "2").await?;
        clients.leave().await.map(drop)
    });
}

#[test]
fn errors_of_the_model_are_quoted_and_traffic_stays() {
    run("errors-model", 3, async |fixture| {
        fixture.good_versions(1).await?;
        let crashing = fixture.mlflow.version_from_nowhere(&fixture.model).await?;
        let wrong_example =
            ("serving_input_example.json", r#"{"dataframe_split":{"columns":["x"],"data":[["?"]]}}"#);
        let failing = fixture.mlflow.altered_version((ORIGIN, "1"), &fixture.model, wrong_example).await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;

        let message =
            refused(fixture, &clients, json!({ "version": crashing }), Reason::ModelCrashed).await?;
        contains_all(&message, &["exit code 1", "its last lines: ", "Error: "])?;

        let message =
            refused(fixture, &clients, json!({ "version": failing }), Reason::SmokeTestFailed).await?;
        contains_all(&message, &["400"])?;

        let rejected = alias::status(&fixture.champion.last().unwrap()).rejected;
        ensure!(rejected.iter().any(|each| each.version.to_string() == failing), "{rejected:?}");
        clients.leave().await.map(drop)
    });
}
