//! Experiments with real models behind a Gateway: a challenger that fails loses its share, and one that is
//! better is promoted through the promotion rules.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Api;
use laurel::api::{
    ModelAlias, ModelExperiment, ModelExperimentStatus,
    model_experiment::{ArmStatus, ExperimentPhase, VERDICT_TAG, Verdict},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, manifest, run},
    support::{
        alias::{self, Alias, challenger_share},
        load::{Load, Loss, Outcome, Plan, Report, Request},
        service::{gateway_traffic, through_gateway},
        watch::Watch,
    },
};

const PATH: &str = "/laurel-test-experiment";
const CHALLENGER: &str = "challenger";

/// The rule that is code, and its file.
const RULE: (&str, &str) = ("fraud-rule", "1");
const CODE: &str = "rule.py";

/// Predictions per second over each kind of connection.
const PER_SECOND: u32 = 20;

/// The pods of the champion, of the challenger, and those that a promotion starts or keeps.
const PODS: u32 = 5;

/// For each experiment: a minute of warm-up, rounds half a minute apart, and a busy machine.
const CONCLUDED: Duration = Duration::from_mins(8);

/// A version that approves so many of a hundred payments, by chance.
async fn version_that_approves(fixture: &Fixture, per_cent: u32) -> Result<String> {
    let line = format!(
        "import numpy; return (numpy.random.random(len(model_input)) < {per_cent} / 100).astype(float)"
    );
    version_with(fixture, &line).await
}

async fn version_with(fixture: &Fixture, line: &str) -> Result<String> {
    let code = String::from_utf8(fixture.mlflow.artifact(RULE, CODE).await?)?;
    let before = "return (model_input[\"amount\"] > 200).astype(float)";
    ensure!(code.contains(before), "the code is not as expected: {code}");
    fixture.mlflow.altered_version(RULE, &fixture.model, (CODE, &code.replace(before, line))).await
}

/// One payment: the rows of one request would not be independent.
async fn payment(fixture: &Fixture) -> Result<Request> {
    let example = fixture.mlflow.artifact(RULE, "serving_input_example.json").await?;
    let mut example: Value = serde_json::from_slice(&example)?;
    let rows = example["dataframe_split"]["data"].as_array_mut().context("the example has rows")?;
    rows.truncate(1);
    Ok(Request::post_json("/invocations", example.to_string()))
}

/// The RegisteredModel, whose champion has won an experiment.
async fn rules(fixture: &Fixture, experiment: &str) -> Result<()> {
    let tag = format!("{VERDICT_TAG}{experiment}");
    let model = json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "model" },
        "spec": { "modelName": fixture.model, "registryRef": { "name": "mlflow" },
                  "promotion": [{ "name": "won", "aliases": ["champion"], "tags": { tag: "wins" } }] } });
    fixture.apply(&model.to_string()).await
}

/// Compares the challenger with the champion, and waits for the end.
async fn experiment(fixture: &Fixture, name: &str, on_winner: &str) -> Result<ModelExperimentStatus> {
    let object = json!({
        "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelExperiment", "metadata": { "name": name },
        "spec": {
            "championRef": { "name": "champion" },
            "challengers": [{ "aliasRef": { "name": CHALLENGER } }],
            "metrics": [
                { "name": "approved", "role": "Primary", "goal": "Maximize", "predictions": { "class": "1" } },
                { "name": "failures", "role": "Guardrail", "failures": {} },
            ],
            "minSamples": 200,
            "duration": { "atLeast": "30s", "atMost": "30m" },
            "onWinner": on_winner,
        },
    });
    let api: Api<ModelExperiment> = Api::namespaced(fixture.cluster.client.clone(), &fixture.namespace);
    let watch = Watch::of(api, name);
    fixture.apply(&object.to_string()).await?;
    let status = |object: &ModelExperiment| object.status.clone().unwrap_or_default();
    let is_over = |status: &ModelExperimentStatus| {
        let is_ready = status.conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
        status.phase == Some(ExperimentPhase::Concluded) && is_ready
    };
    let what = format!("the experiment {name} is concluded");
    let over = watch.until(&what, CONCLUDED, |seen| is_over(&status(&seen.object))).await;
    let last = watch.last().map(|seen| status(&seen.object)).unwrap_or_default();
    over.with_context(|| format!("{:?} {:?}", last.conditions, last.arms))?;
    println!("{}", fixture.kubectl(&["get", "modelexperiments", "-o", "wide"], None).await?);
    println!("  {}", last.result.as_ref().map(|result| result.message.clone()).unwrap_or_default());
    Ok(last)
}

fn arm(status: &ModelExperimentStatus) -> Result<&ArmStatus> {
    status.arms.first().context("no challenger")
}

async fn tag(fixture: &Fixture, version: &str, experiment: &str) -> Result<Option<String>> {
    let facts = fixture.mlflow.version_facts((&fixture.model, version)).await?;
    let key = format!("{VERDICT_TAG}{experiment}");
    let tags = facts["tags"].as_array().cloned().unwrap_or_default();
    let tag = tags.into_iter().find(|tag| tag["key"] == key.as_str());
    Ok(tag.and_then(|tag| tag["value"].as_str().map(str::to_owned)))
}

/// Waits until the challenger has this share, or none.
async fn has_share(fixture: &Fixture, since: Instant, share: Option<u32>) -> Result<Instant> {
    let has = |champion: &ModelAlias| challenger_share(champion, CHALLENGER) == share;
    let what = format!("a share of {share:?} for the challenger");
    Ok(fixture.champion.until_since(since, &what, PATIENCE, has).await?.at)
}

fn bad_answers(report: &Report) -> usize {
    report.only(|sample| matches!(sample.outcome, Outcome::Lost(Loss::Status(_)))).sent()
}

#[test]
fn promises_2_and_5_a_challenger_that_fails_loses_its_share_and_one_that_wins_is_promoted() {
    run("experiment", PODS, async |fixture| {
        let champion = version_that_approves(fixture, 50).await?;
        let fails = version_with(fixture, "raise ValueError(\"no such column\")").await?;
        let better = version_that_approves(fixture, 80).await?;
        let Fixture { mlflow, model, .. } = fixture;
        mlflow.set_alias(model, "champion", &champion).await?;
        mlflow.set_alias(model, "challenger", &fails).await?;
        let mut traffic = gateway_traffic(PATH);
        traffic["challengers"] = json!([{ "aliasRef": { "name": CHALLENGER }, "weight": 30 }]);
        let follows =
            json!({ "follow": { "registry": {} }, "previousAlias": "previous", "traffic": traffic });
        let served = fixture.get(follows).await?;
        let spec = json!({ "alias": "challenger", "follow": { "registry": {} },
            // Its example is answered as its requests are.
            "rollout": { "smokeTest": { "mode": "Disabled" } } });
        let challenger = Alias::observe(&fixture.cluster, &fixture.namespace, CHALLENGER);
        let begun = challenger.apply(&manifest(CHALLENGER, spec)).await?;
        challenger.ready(begun, PATIENCE).await?;
        // Before it can win, it has to: the champion that serves already is not asked.
        rules(fixture, "q2").await?;
        let shared = has_share(fixture, served.accepted, Some(30)).await?;
        let way = through_gateway(&fixture.cluster, PATH).await?;
        let plan = Plan::both(PER_SECOND, Duration::from_mins(30)).patient();
        let load = Load::start(&way.target, &payment(fixture).await?, plan);

        let lost = experiment(fixture, "q1", "SetAlias").await?;
        let result = arm(&lost)?.result.clone().context("no result")?;
        ensure!(
            (result.verdict, result.reason.as_str()) == (Verdict::ChampionWins, "GuardrailFailed"),
            "{result:?}"
        );
        let gone = has_share(fixture, shared, None).await?;
        ensure!(tag(fixture, &fails, "q1").await?.as_deref() == Some("loses"), "it is not tagged");
        ensure!(mlflow.alias(model, "champion").await?.as_deref() == Some(&champion), "the alias was moved");
        let bad = bad_answers(&load.since(shared));
        println!(
            "  {bad} bad answers until its share was gone, {:.1?} after it had it",
            gone.duration_since(shared)
        );

        // Another version there gets the share again.
        let asked = Instant::now();
        mlflow.set_alias(model, "challenger", &better).await?;
        let again = has_share(fixture, asked, Some(30)).await?;
        let won = experiment(fixture, "q2", "SetAlias").await?;
        ensure!(won.winner.as_deref() == Some(CHALLENGER) && won.alias_set, "{won:?}");
        let result = arm(&won)?.result.clone().context("no result")?;
        let estimate: f64 = result.estimate.context("no estimate")?.parse()?;
        ensure!((0.15..0.45).contains(&estimate), "80 % against 50 %, and it found {estimate}");
        ensure!(tag(fixture, &better, "q2").await?.as_deref() == Some("wins"), "it is not tagged");
        let promoted = |malias: &ModelAlias| alias::version(malias) == better;
        fixture.champion.until_since(again, "it is promoted", PATIENCE, promoted).await?;
        let is_kept = async || mlflow.alias(model, "previous").await;
        let waits_since = Instant::now();
        while is_kept().await?.as_deref() != Some(&champion) {
            ensure!(waits_since.elapsed() < PATIENCE, "@previous names {:?}", is_kept().await?);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        ensure!(mlflow.alias(model, "champion").await?.as_deref() == Some(&better), "@champion");
        let report = load.stop().await;
        println!("  {report}");
        ensure!(report.lost() == bad_answers(&report), "requests were lost: {report}");
        ensure!(bad_answers(&report) == bad, "the version that fails answered after its share was gone");
        Ok(())
    });
}
