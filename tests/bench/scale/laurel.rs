//! ModelAliases, created and promoted all at once.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        wait::{await_condition, conditions::is_deleted},
        watcher,
    },
};
use laurel::{
    api::{ModelAlias, RegisteredModel},
    render::labels,
};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    by_hand::{Sample, is_moved, serving},
    cpu::{Cost, Usage},
    parallel::each,
    simulated::place::PATIENCE,
    site::{LAUREL, Site},
    support::alias::is_ready,
    tally::Tally,
};

/// The name of a ModelAlias of a model.
pub(crate) fn name(model: usize, alias: &str) -> String {
    format!("model-{model}-{alias}")
}

/// What the creation of all ModelAliases took.
pub(crate) struct Storm {
    /// Until all Services have a ready endpoint; the CPU time until everything is at rest.
    pub(crate) serve: Cost,
    /// Until all are Ready, with the alias in the registry and the status written.
    pub(crate) ready: Duration,
    /// The operator's memory afterwards, in bytes.
    pub(crate) memory: u64,
}

/// Creates the RegisteredModel `name` of a model.
pub(crate) async fn describe(site: &Site, namespace: &str, model: &str) -> Result<()> {
    let object: RegisteredModel =
        serde_json::from_value(json!({ "metadata": { "name": model }, "spec": { "modelName": model } }))?;
    site.api(namespace).create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Creates a ModelAlias of version 1. The time limits are longer than any run.
pub(crate) async fn claim(
    site: &Site,
    namespace: &str,
    name: &str,
    (model, alias): (&str, &str),
) -> Result<()> {
    let object: ModelAlias = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "modelRef": { "name": model }, "alias": alias, "version": "1",
            "serving": { "image": "registry.example/serving:1", "replicas": 1 },
            "rollout": {
                // Simulated pods do not answer requests.
                "smokeTest": { "mode": "Disabled" },
                "progressDeadline": "4h", "warmFor": "4h",
            },
        },
    }))?;
    site.api(namespace).create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Changes the version of a ModelAlias.
pub(crate) async fn request(aliases: &Api<ModelAlias>, name: &str, version: &str) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "version": version } }));
    aliases.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Counts the ModelAliases of a namespace that are Ready.
pub(crate) fn ready(site: &Site, namespace: &str) -> Tally {
    let is_ready = |it: &ModelAlias| is_ready(it, it.metadata.generation.unwrap_or_default());
    Tally::start(site.api(namespace), watcher::Config::default(), is_ready).0
}

/// Lets Laurel make the objects of one ModelAlias, as the template of what is made by hand.
pub(crate) async fn sample(site: &Site) -> Result<Sample> {
    let ready = ready(site, LAUREL);
    describe(site, LAUREL, "model-0").await?;
    claim(site, LAUREL, "sample", ("model-0", "sample")).await?;
    ready.until("sample is Ready", 1, site.options.patience()).await?;
    let deployment = site.api::<Deployment>(LAUREL).get("sample-v1").await?;
    let service = site.api::<Service>(LAUREL).get("sample").await?;
    let sample = Sample::new(&deployment, &service)?;
    remove(site.api::<ModelAlias>(LAUREL), "sample").await?;
    remove(site.api::<RegisteredModel>(LAUREL), "model-0").await?;
    // Garbage collection follows by itself; the first measurement waits for it.
    timeout(PATIENCE, await_condition(site.api::<Service>(LAUREL), "sample", is_deleted(&uid(&service))))
        .await??;
    Ok(sample)
}

fn uid(object: &impl ResourceExt) -> String {
    object.uid().unwrap_or_default()
}

async fn remove<K>(api: Api<K>, name: &str) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let uid = uid(&api.get(name).await?);
    api.delete(name, &kube::api::DeleteParams::default()).await?;
    timeout(PATIENCE, await_condition(api, name, is_deleted(&uid))).await??;
    Ok(())
}

/// Creates all RegisteredModels and ModelAliases, with the operator running.
pub(crate) async fn create(site: &Site) -> Result<Storm> {
    let count = site.options.aliases;
    println!("Laurel: creating {count} ModelAliases of {} models", site.options.models());
    site.operator.start().await?;
    let serving = serving(site, LAUREL);
    let (before, began) = (Usage::now(site)?, Instant::now());
    each(0..site.options.models(), |number| async move {
        let model = format!("model-{number}");
        describe(site, LAUREL, &model).await?;
        claim(site, LAUREL, &name(number, "champion"), (&model, "champion")).await?;
        claim(site, LAUREL, &name(number, "challenger"), (&model, "challenger")).await
    })
    .await?;
    println!("  created after {:.0} s", began.elapsed().as_secs_f64());
    let serve = serving.until("Services serve", count, site.options.patience()).await? - began;
    println!("Laurel: {:.1} s until all serve", serve.as_secs_f64());
    // Begins only now: it would have slowed down what is compared.
    let ready = ready(site, LAUREL);
    let all_ready = ready.until("are Ready", count, site.options.patience()).await? - began;
    println!("Laurel: {:.1} s until all are Ready", all_ready.as_secs_f64());
    site.operator.until_quiet().await?;
    let cpu = Usage::now(site)?.since(before);
    Ok(Storm { serve: Cost { took: serve, cpu }, ready: all_ready, memory: site.operator.memory()? })
}

/// Promotes one ModelAlias of each model at once. Returns the time until all Services are moved,
/// and the CPU time until everything is at rest.
pub(crate) async fn promote(site: &Site) -> Result<Cost> {
    let count = site.options.models();
    println!("Laurel: {count} promotions");
    let (moved, _) = Tally::start(site.api::<Service>(LAUREL), watcher::Config::default(), |service| {
        is_moved(service, labels::VERSION, "2")
    });
    let aliases: Api<ModelAlias> = site.api(LAUREL);
    let (before, began) = (Usage::now(site)?, Instant::now());
    each(0..count, |number| {
        let aliases = aliases.clone();
        async move { request(&aliases, &name(number, "champion"), "2").await }
    })
    .await?;
    let took = moved.until("Services moved", count, site.options.patience()).await? - began;
    println!("Laurel: {:.1} s", took.as_secs_f64());
    site.operator.until_quiet().await?;
    Ok(Cost { took, cpu: Usage::now(site)?.since(before) })
}
