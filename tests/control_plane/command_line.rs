//! The commands that read the registry or the cluster, run as by a person or a CI job: check, compare, best,
//! experiment.

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use laurel::api::{ModelAlias, ModelExperiment};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::{
        alias::{is_ready, version},
        watch::Watch,
    },
};

/// The output and the exit code of a command.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }
}

/// Runs `laurel` with the registry of the tests.
async fn laurel(fixture: &Fixture, arguments: &[&str]) -> Result<Ended> {
    laurel_with(fixture, &fixture.world.mlflow.url(), arguments).await
}

async fn laurel_with(fixture: &Fixture, registry: &str, arguments: &[&str]) -> Result<Ended> {
    let mut command = Command::new(fixture.world.program());
    command.args(arguments).env("MLFLOW_TRACKING_URI", registry).stdin(Stdio::null());
    if let Some(kubeconfig) = fixture.cluster.kubeconfig() {
        command.env("KUBECONFIG", kubeconfig);
    }
    let ended = command.output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = ended.status.code().context("it was killed")?;
    Ok(Ended { code, out: text(&ended.stdout), err: text(&ended.stderr) })
}

/// Creates a folder with one file of manifests: a RegisteredModel with these rules, and a ModelAlias with
/// this spec.
fn manifests(fixture: &Fixture, rules: &str, desired: &str) -> Result<PathBuf> {
    let folder = fixture.world.folder(&fixture.namespace)?;
    let text = format!(
        "
apiVersion: laurel.dev/v1alpha1
kind: RegisteredModel
metadata: {{name: model}}
spec:
  modelName: {}
  promotion: [{{name: rules, aliases: [champion], {rules}}}]
---
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {{name: champion}}
spec: {{modelRef: {{name: model}}, alias: champion, {desired}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: other}}
",
        fixture.model
    );
    fs::write(folder.join("model.yaml"), text)?;
    Ok(folder)
}

async fn checked(fixture: &Fixture, rules: &str, desired: &str) -> Result<Ended> {
    let folder = manifests(fixture, rules, desired)?;
    laurel(fixture, &["check", "-o", "json", "-f", folder.to_str().context("a path")?]).await
}

#[test]
fn a_check_and_the_operator_agree_on_rules_and_versions() {
    run("cli-check", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        mlflow.create_model(&fixture.model).await?;
        for auc in [0.80, 0.95, f64::NAN] {
            mlflow.register_run(&fixture.model, &[("auc", auc)]).await?;
        }
        mlflow.set_alias(&fixture.model, "champion", "1").await?;
        let rules = "metrics: [{name: auc, min: 0.9}], improves: {metric: auc, over: champion, by: 0.1}";

        let good = checked(fixture, rules, "version: '2'").await?;
        let report = good.json()?;
        ensure!(good.code == 0 && report["good"] == true && report["otherObjects"] == 1, "{good:?}");
        ensure!(report["promotions"][0]["verdict"] == "Passed", "{report:#}");
        let bad = checked(fixture, rules, "version: '3'").await?;
        let report = bad.json()?;
        ensure!(bad.code == 1 && report["promotions"][0]["verdict"] == "Failed", "{bad:?}");
        let seen = &report["promotions"][0]["rules"];
        ensure!(seen[0]["required"] == "metric auc at least 0.9", "{seen:#}");
        ensure!(seen[0]["seen"] == "NaN" && seen[0]["passed"] == false, "{seen:#}");
        // The version that has the alias is not promoted, so no rule applies.
        let same = checked(fixture, rules, "version: '1'").await?;
        ensure!(same.code == 0 && same.json()?["promotions"][0]["verdict"] == "ServedBefore", "{same:?}");
        let missing = checked(fixture, rules, "version: '9'").await?;
        ensure!(missing.code == 1 && missing.json()?["promotions"][0]["verdict"] == "Missing", "{missing:?}");
        let follows = checked(fixture, rules, "follow: {best: {metric: auc}}").await?;
        ensure!(follows.code == 0 && follows.json()?["promotions"][0]["version"] == "2", "{follows:?}");
        let wrong = checked(fixture, rules, "version: 2").await?;
        let finding = &wrong.json()?["findings"][0];
        ensure!(wrong.code == 1 && finding["path"] == "spec.version", "{wrong:?}");

        // The operator reports the same about the same rules.
        fixture
            .describe_model(&format!("promotion: [{{name: rules, aliases: [champion], {rules}}}]"))
            .await?;
        fixture.desired("version: '3'").await?;
        let reported = |it: &ModelAlias| {
            let gates = laurel::api::condition::ConditionType::GatesPassed;
            crate::support::alias::condition(it, gates)
                .is_some_and(|it| it.status == "False" && it.message.contains("metric auc at least 0.9: NaN"))
        };
        fixture.champion.until("GatesFailed", PATIENCE * 2, reported).await.map(drop)
    });
}

#[test]
fn an_experiment_is_shown_and_what_is_missing_is_named() {
    run("cli-experiment", async |fixture| {
        let namespace = fixture.namespace.as_str();
        let shown = async |name: &str, more: &[&str]| {
            laurel(fixture, &[&["experiment", name, "-n", namespace], more].concat()).await
        };
        let none = shown("q4", &[]).await?;
        ensure!(none.code == 2 && none.err.contains("has none; name another one with -n"), "{none:?}");
        let experiment = json!({
            "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelExperiment", "metadata": { "name": "q4" },
            "spec": {
                "championRef": { "name": "champion" }, "challengers": [{ "aliasRef": { "name": "other" } }],
                "metrics": [{ "name": "failures", "role": "Primary", "failures": {} }],
            },
        });
        fixture.apply(&experiment.to_string()).await?;
        let watch = Watch::of(fixture.api(), "q4");
        let is_seen = |experiment: &ModelExperiment| experiment.status.is_some();
        watch.until("a status of the experiment", PATIENCE, |seen| is_seen(&seen.object)).await?;
        let text = shown("q4", &[]).await?;
        ensure!(text.code == 0 && text.out.contains("there is no ModelAlias champion"), "{text:?}");
        let picture = fixture.world.folder(namespace)?.join("q4.svg");
        let picture = picture.to_str().context("a path")?;
        let json = shown("q4", &["-o", "json", "--svg", picture]).await?;
        ensure!(json.json()?["status"]["phase"] == "Pending", "{json:?}");
        ensure!(fs::read_to_string(picture)?.starts_with("<svg"), "it is no picture");
        let other = shown("q5", &[]).await?;
        ensure!(other.code == 2 && other.err.contains("has q4"), "{other:?}");
        Ok(())
    });
}

#[test]
fn a_check_does_not_hold_back_a_rollback() {
    run("cli-rollback", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        let began = tokio::time::Instant::now();
        loop {
            // The tags follow traffic.
            let back = checked(fixture, "tags: {validated: 'true'}", "version: '1'").await?;
            let promotion = &back.json()?["promotions"][0];
            if promotion["verdict"] == "ServedBefore" {
                ensure!(back.code == 0, "{back:?}");
                ensure!(
                    promotion["message"].as_str().is_some_and(|it| it.contains("was live as")),
                    "{back:?}"
                );
                return Ok(());
            }
            ensure!(promotion["verdict"] == "Failed" && began.elapsed() < PATIENCE * 2, "{back:?}");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn promise_3_an_unreachable_registry_is_not_a_verdict() {
    run("cli-away", async |fixture| {
        let folder = manifests(fixture, "tags: {validated: 'true'}", "version: '1'")?;
        let folder = folder.to_str().context("a path")?;
        let away = laurel_with(fixture, "http://127.0.0.1:9", &["check", "-f", folder]).await?;
        ensure!(away.code == 2 && away.err.contains("cannot check the promotion rules"), "{away:?}");
        ensure!(
            away.out.contains("2 objects in 1 file"),
            "findings that need no registry are missing: {away:?}"
        );
        for ask in [&["best", "x", "--metric", "auc"][..], &["compare", "x", "1"]] {
            let away = laurel_with(fixture, "http://127.0.0.1:9", ask).await?;
            ensure!(away.code == 2 && away.out.is_empty() && away.err.contains("127.0.0.1:9"), "{away:?}");
        }
        let unreadable = laurel(fixture, &["check", "-f", "/nowhere"]).await?;
        ensure!(unreadable.code == 2 && unreadable.err.contains("/nowhere"), "{unreadable:?}");
        Ok(())
    });
}

#[test]
fn best_prints_the_version_that_a_follower_serves() {
    run("cli-best", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        mlflow.create_model(&fixture.model).await?;
        for (cost, validated) in [(9.0, "true"), (5.0, "true"), (1.0, "no"), (f64::NAN, "true")] {
            let (number, _) = mlflow.register_run(&fixture.model, &[("cost", cost)]).await?;
            mlflow.set_version_tag((&fixture.model, &number), "validated", validated).await?;
        }
        let ask =
            ["best", &fixture.model, "--metric", "cost", "--goal", "Minimize", "--tag", "validated=true"];
        let text = laurel(fixture, &ask).await?;
        ensure!(text.code == 0 && text.out.starts_with("version 2 of "), "{text:?}");
        let answer = laurel(fixture, &[&ask[..], &["-o", "json"]].concat()).await?.json()?;
        let order: Vec<_> =
            answer["candidates"].as_array().context("a list")?.iter().map(|it| &it["version"]).collect();
        ensure!(order == [&json!("2"), &json!("1"), &json!("4")], "{answer:#}");
        let none = laurel(fixture, &["best", &fixture.model, "--metric", "nothing"]).await?;
        ensure!(none.code == 1 && none.out.starts_with("none: "), "{none:?}");

        fixture.describe_model("").await?;
        let change = fixture
            .desired("follow: {best: {metric: cost, goal: Minimize, tags: {validated: 'true'}}}")
            .await?;
        fixture.champion.ready(change, PATIENCE).await?;
        let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == "2";
        fixture.champion.until("Ready with version 2", PATIENCE * 2, it).await.map(drop)
    });
}

#[test]
fn versions_are_compared_by_metrics_tags_and_aliases() {
    run("cli-compare", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        mlflow.create_model(&fixture.model).await?;
        for (auc, cost) in [(0.9, 12.0), (0.93, 14.0)] {
            mlflow.register_run(&fixture.model, &[("auc", auc), ("cost", cost)]).await?;
        }
        mlflow.set_alias(&fixture.model, "champion", "1").await?;
        mlflow.set_version_tag((&fixture.model, "2"), "validated", "true").await?;
        let folder = manifests(
            fixture,
            "metrics: [{name: auc, min: 0.5}], improves: {metric: cost, over: champion, goal: Minimize}",
            "version: '1'",
        )?;
        let folder = folder.to_str().context("a path")?;
        let ask = ["compare", &fixture.model, "@champion", "2", "-f", folder];
        let text = laurel(fixture, &ask).await?;
        ensure!(text.code == 0, "{text:?}");
        for line in ["metric auc (larger is better)", "0.93 *", "12 *", "tag validated"] {
            ensure!(text.out.contains(line), "{line}\n{}", text.out);
        }
        let answer = laurel(fixture, &[&ask[..], &["-o", "json"]].concat()).await?.json()?;
        ensure!(answer["versions"][0]["aliases"] == json!(["champion"]), "{answer:#}");
        ensure!(answer["metrics"][0]["best"] == json!(["2"]), "{answer:#}");
        ensure!(answer["metrics"][1]["best"] == json!(["1"]), "{answer:#}");
        let missing = laurel(fixture, &["compare", &fixture.model, "1", "7"]).await?;
        ensure!(missing.code == 1 && missing.out.contains("version 7 does not exist"), "{missing:?}");
        Ok(())
    });
}
