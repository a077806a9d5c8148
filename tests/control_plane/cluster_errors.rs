//! What stands in the way on the cluster's side: it is told at once, and traffic stays where it is.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{ResourceExt, api::DeleteParams};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
    model_alias::Outcome,
};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::{
        look::{no_more_pods, revisions, selected, until_sizes},
        place::Place,
    },
    support::alias::{has, holds, message, status},
};

/// Version 1 serves; version 2 meets a fate. It is told why before the deadline, rejected after it, and
/// nothing else changes.
async fn fails(fixture: &Fixture, fate: &str, said: &str, reason: Reason) -> Result<String> {
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    let before = revisions(fixture).await?;
    let change = fixture
        .desired(&format!(
            "
version: '2'
rollout: {{progressDeadline: 6s}}
serving:
  template:
    metadata:
      annotations: {{kwok.laurel.test/fate: {fate}, kwok.laurel.test/message: '{said}'}}
"
        ))
        .await?;
    let early = fixture.champion.reason(change, reason, PATIENCE).await?;
    let reported = message(&early.object);
    ensure!(reported.contains(said), "the pods' own words are missing: {reported}");
    ensure!(holds(&early.object, ConditionType::Reconciling), "it is not given up before its time");

    let rejected =
        |it: &ModelAlias| has(it, Reason::ProgressDeadlineExceeded) && holds(it, ConditionType::Stalled);
    let late = fixture.champion.until("rejected", PATIENCE, rejected).await?;
    let after = message(&late.object);
    ensure!(after.contains("6s") && after.contains(said) && after.contains("laurel.dev/retry"), "{after}");
    fixture.event("Rejected").await?;
    until_sizes(fixture, [("1", 2), ("2", 0)]).await?;
    ensure!(selected(fixture).await? == "1", "traffic moved");
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias moved");
    let untouched =
        |revisions: &std::collections::BTreeMap<String, _>| revisions.get("Service champion").cloned();
    ensure!(untouched(&before) == untouched(&revisions(fixture).await?), "the Service was written");
    let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
    ensure!(last.rejected[0].version.to_string() == "2" && last.rejected[0].active, "{:?}", last.rejected);
    ensure!(last.history[0].outcome == Outcome::Rejected, "{:?}", last.history);
    Ok(reported)
}

#[test]
fn an_image_that_cannot_be_pulled_is_reported_before_the_deadline_and_rejected_after_it() {
    run("bad-image", async |fixture| {
        let reported =
            fails(fixture, "image-pull-error", "manifest unknown", Reason::ImagePullFailed).await?;
        ensure!(
            reported.contains("registry.example/serving:1") && reported.contains("spec.serving.image"),
            "{reported}"
        );
        Ok(())
    });
}

#[test]
fn a_crashing_model_is_reported_with_its_last_log_lines_and_rejected() {
    run("crash", async |fixture| {
        let reported = fails(fixture, "crash-loop", "No such artifact", Reason::ModelCrashed).await?;
        ensure!(
            reported.contains("exit code 1") && reported.contains("its last lines: No such artifact"),
            "{reported}"
        );
        Ok(())
    });
}

#[test]
fn promise_6_a_rejected_version_is_retried_on_request_or_with_other_settings() {
    run("retry", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        let fate = |fate: &str| {
            format!(
                "{{version: '2', rollout: {{progressDeadline: 2s}}, serving: {{template: {{metadata: \
                 {{annotations: {fate}}}}}}}}}"
            )
        };
        let change = fixture.desired(&fate("{kwok.laurel.test/fate: never-ready}")).await?;
        fixture.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
        until_sizes(fixture, [("1", 2), ("2", 0)]).await?;
        let asked = tokio::time::Instant::now();
        fixture.retry("again").await?;
        fixture.pods.until_since(asked, "pods of version 2", PATIENCE).await?;
        let again = |it: &ModelAlias| {
            let status = status(it);
            status.retried.as_deref() == Some("again")
                && status.rejected.first().is_some_and(|first| first.active)
        };
        fixture.champion.until_since(asked, "rejected again", PATIENCE, again).await?;
        fixture.get(&fate("{example.org/settings: other}")).await?;
        ensure!(selected(fixture).await? == "2", "other settings are another try");
        Ok(())
    });
}

#[test]
fn pods_rejected_by_a_quota_are_reported_with_its_message() {
    run("quota", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        let quota = no_more_pods(fixture).await?;
        let change = fixture.desired("version: '2'").await?;
        let refused = fixture.champion.reason(change, Reason::PodsRefused, PATIENCE).await?;
        let said = message(&refused.object);
        ensure!(said.contains("exceeded quota: full") && said.contains("version 2"), "{said}");
        ensure!(selected(fixture).await? == "1", "traffic moved");
        quota.delete("full", &DeleteParams::default()).await?;
        fixture.champion.ready(change, PATIENCE).await.map(drop)
    });
}

#[test]
fn a_typo_in_the_template_is_rejected_by_the_api_server_and_changes_nothing() {
    run("template", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let before = revisions(fixture).await?;
        let change = fixture
            .desired("{version: '1', serving: {template: {spec: {containers: [{name: model, imagee: x}]}}}}")
            .await?;
        let refused = fixture.champion.reason(change, Reason::ApplyRefused, PATIENCE).await?;
        let said = message(&refused.object);
        ensure!(said.contains("imagee") && said.contains("spec.serving"), "{said}");
        ensure!(holds(&refused.object, ConditionType::Stalled), "somebody has to correct it");
        ensure!(holds(&refused.object, ConditionType::Serving), "what serves goes on");
        let after = revisions(fixture).await?;
        ensure!(
            before["Deployment champion-v1"] == after["Deployment champion-v1"],
            "the Deployment was written"
        );
        fixture.get("version: '1'").await.map(drop)
    });
}

/// A null would be lost: `kubectl apply` sends none.
#[test]
fn omitted_fields_stay_omitted_when_kubectl_applies_the_manifest_again() {
    run("omit", async |fixture| {
        fixture.registered(1).await?;
        let desired = "{version: '1', serving: {templateOmit: ['spec.containers[model].livenessProbe']}}";
        let manifest = Place::manifest(desired)?.to_string();
        let namespace = fixture.namespace.clone();
        for _ in 0..2 {
            let apply = ["apply", "-n", namespace.as_str(), "-f", "-"];
            fixture.cluster.run_kubectl(&apply, Some(&manifest)).await?;
            let change = fixture.champion.accepted().await?;
            fixture.champion.ready(change, PATIENCE).await?;
            let deployment = fixture.api::<Deployment>().get("champion-v1").await?;
            let pod = deployment.spec.and_then(|spec| spec.template.spec).context("no pod template")?;
            let model = pod.containers.first().context("no container")?;
            ensure!(model.liveness_probe.is_none(), "there is a livenessProbe");
            ensure!(model.readiness_probe.is_some(), "there is no readinessProbe");
        }
        Ok(())
    });
}

#[test]
fn a_template_whose_last_annotation_is_removed_stays_valid() {
    run("template-null", async |fixture| {
        fixture.registered(1).await?;
        let annotated = |annotations: &str| {
            format!("{{version: '1', serving: {{template: {{metadata: {{annotations: {annotations}}}}}}}}}")
        };
        fixture.get(&annotated("{example.org/settings: other}")).await?;
        fixture.get(&annotated("{}")).await.map(drop)
    });
}

#[test]
fn a_service_with_another_owner_is_not_touched() {
    run("name-taken", async |fixture| {
        fixture.registered(1).await?;
        fixture
            .apply(
                "{apiVersion: v1, kind: Service, metadata: {name: champion}, spec: {selector: {app: \
                 theirs}, ports: [{port: 80}]}}",
            )
            .await?;
        let services = fixture.api::<Service>();
        let theirs = services.get("champion").await?;
        fixture.audit.excuse(&theirs);
        let change = fixture.desired("version: '1'").await?;
        let refused = fixture.champion.reason(change, Reason::NameTaken, PATIENCE).await?;
        let said = message(&refused.object);
        ensure!(said.contains(r#"the Service "champion" has another owner"#), "{said}");
        let now = services.get("champion").await?;
        ensure!(now.resource_version() == theirs.resource_version(), "their Service was written");
        services.delete("champion", &DeleteParams::default()).await?;
        fixture.champion.ready(change, PATIENCE).await.map(drop)
    });
}
