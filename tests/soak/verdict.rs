//! The verdict: what must hold during the soak, and at the end.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::{Resource, ResourceExt};
use laurel::api::{ModelAlias, condition::ConditionType};
use tokio::time::{Instant, sleep};

use super::{
    harness::{Harness, Subject},
    lines,
};
use crate::support::{
    alias,
    load::{Outcome, Report, Sample},
    mlflow,
    watch::Watch,
};

/// Time limit until everything is at rest after the last fault.
const PATIENCE: Duration = Duration::from_mins(5);

/// How long nothing may be written: several poll intervals.
const QUIET: Duration = Duration::from_secs(20);

/// Maximum number of responses of a version that a Gateway keeps warm with one request in a million.
const WARM: usize = 2;

/// How many requests the clients send for each change, at least.
const PER_CHANGE: usize = 100;

/// Maximum number of requests to list one by one.
const LISTED: usize = 30;

/// Fails if requests were lost, with the story around the first of them.
pub(super) fn about_losses(harness: &Harness) -> String {
    let lost = harness.subjects.iter().flat_map(|subject| {
        let lost = subject.clients.report().only(|status| matches!(status.outcome, Outcome::Lost(_)));
        lost.samples().iter().map(|status| (subject, status.clone())).collect::<Vec<_>>()
    });
    with_the_story(harness, "requests were lost", lost.collect())
}

/// Fails if a response came from a version that traffic had left, or never reached.
pub(super) fn no_strays(harness: &Harness, subject: &Subject, report: &Report) -> Result<()> {
    let strays = subject.clients.strays(report);
    let strays: Vec<_> = strays.into_iter().map(|status| (subject, status)).collect();
    let allowed = if subject.plan.path().is_some() { WARM } else { 0 };
    ensure!(
        strays.len() <= allowed,
        with_the_story(harness, "responses came from a version that traffic had left", strays)
    );
    Ok(())
}

fn with_the_story(harness: &Harness, what: &str, mut samples: Vec<(&Subject, Sample)>) -> String {
    samples.sort_by_key(|(_, sample)| sample.due);
    let listed = &samples[..samples.len().min(LISTED)];
    let span = listed.first().zip(listed.last()).map(|(first, last)| (first.1.due, last.1.ended));
    let lines = listed.iter().map(|(subject, sample)| {
        format!(
            "{} {} over a {:?} connection: {:?} after {:.3} s",
            harness.story.when(sample.due),
            subject.plan.name,
            sample.connection,
            sample.outcome,
            (sample.ended - sample.due).as_secs_f64()
        )
    });
    let lines: Vec<String> = lines.collect();
    let around =
        span.map(|span| harness.story.around(span, lines::all(&harness.watched))).unwrap_or_default();
    format!("{}: {what}\n{}\n--- what happened around then\n{around}", samples.len(), lines.join("\n"))
}

/// Asserts that everything comes to rest, with the aliases in MLflow on the serving versions; then nothing is
/// written, and no request was lost.
pub(super) async fn at_the_end(harness: &mut Harness) -> Result<()> {
    harness.cluster.require_laurel().await?;
    let began = Instant::now();
    while let Err(not_yet) = is_at_rest(harness).await {
        ensure!(began.elapsed() < PATIENCE, not_yet.context(format!("still so after {PATIENCE:?}")));
        sleep(Duration::from_millis(500)).await;
    }
    harness.story.log("every ModelAlias is Ready, and every alias in MLflow names what serves");
    is_quiet(harness).await?;
    harness.story.log(format!("nothing was written for {QUIET:?}, neither in the cluster nor in MLflow"));
    is_at_rest(harness).await?;

    for subject in &mut harness.subjects {
        subject.clients.finish().await;
    }
    for subject in &harness.subjects {
        no_strays(harness, subject, &subject.clients.report())?;
    }
    let requests = harness.requests();
    ensure!(requests.lost() == 0, about_losses(harness));
    // What an overloaded machine did not send is not lost. Each change has waited for answers of its version;
    // this many more between two of them show that the clients were there all the time.
    let enough = PER_CHANGE * harness.figures().changes();
    ensure!(requests.sent() >= enough, "{enough} requests would prove something: {requests}");
    Ok(())
}

async fn is_at_rest(harness: &Harness) -> Result<()> {
    for subject in &harness.subjects {
        let malias = last(&harness.watched.aliases, subject.plan.name).context("no ModelAlias")?;
        let serves = alias::version(&malias);
        let generation = malias.metadata.generation.unwrap_or_default();
        ensure!(
            alias::is_ready(&malias, generation) && alias::holds(&malias, ConditionType::RegistrySynced),
            "{} is not at rest: {}",
            subject.plan.name,
            alias::message(&malias)
        );
        let named = harness.mlflow.alias(&harness.model, subject.plan.alias).await?.unwrap_or_default();
        ensure!(
            named == serves,
            "{} serves {serves}, and @{} names {named:?}",
            subject.plan.name,
            subject.plan.alias
        );
        let second_ago = Instant::now().checked_sub(Duration::from_secs(1)).context("no such moment")?;
        let answered = subject.clients.ended_since(second_ago).answered();
        ensure!(
            answered.contains_key(&serves) && (subject.plan.path().is_some() || answered.len() == 1),
            "{} serves {serves}, and clients are answered by {answered:?}",
            subject.plan.name
        );
    }
    Ok(())
}

fn last(aliases: &Watch<ModelAlias>, name: &str) -> Option<ModelAlias> {
    aliases.seen().into_iter().map(|seen| seen.object).rfind(|object| object.name_any() == name)
}

/// Waits until nothing was written for a while.
async fn is_quiet(harness: &Harness) -> Result<()> {
    let began = Instant::now();
    loop {
        let since = Instant::now().checked_sub(QUIET).context("no such moment")?;
        let watched = &harness.watched;
        let writes = [
            written_since(&watched.aliases, since),
            written_since(&watched.models, since),
            written_since(&watched.registries, since),
            written_since(&watched.deployments, since),
            written_since(&watched.services, since),
            in_mlflow(harness).await?,
        ]
        .concat();
        if writes.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "it is not quiet; writes in the last {QUIET:?}: {writes:#?}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Returns the objects written since a given time, once for each write. A restarted watch lists all objects
/// again, which is not a write.
fn written_since<K>(watch: &Watch<K>, since: Instant) -> Vec<String>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let mut known = BTreeMap::new();
    let mut writes = Vec::new();
    for seen in watch.seen() {
        let revision = seen.object.resource_version();
        let before = known.insert(seen.object.name_any(), revision.clone());
        if seen.at >= since && before != Some(revision) {
            writes.push(format!("{} {}", K::kind(&()), seen.object.name_any()));
        }
    }
    writes
}

/// Returns recent writes from MLflow's log.
async fn in_mlflow(harness: &Harness) -> Result<Vec<String>> {
    let (namespace, name) = mlflow::SERVICE;
    let since = format!("--since={}s", QUIET.as_secs());
    let log = ["logs", "-n", namespace, &format!("deployment/{name}"), &since].map(str::to_owned);
    let log = harness.cluster.run_kubectl(&log.each_ref().map(String::as_str), None).await?;
    let is_write =
        |line: &&str| ["\"POST ", "\"PATCH ", "\"DELETE ", "\"PUT "].iter().any(|verb| line.contains(verb));
    Ok(log.lines().filter(is_write).map(str::to_owned).collect())
}
