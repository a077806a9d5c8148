//! The same Deployments and Services without Laurel: what a person with a good script would achieve.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    cpu::{Cost, Usage},
    parallel::{IN_FLIGHT, each},
    simulated::place::PATIENCE,
    site::{BY_HAND, Site},
    support::watch::{Seen, Watch},
    tally::Tally,
};

const APP: &str = "bench/app";
const VERSION: &str = "bench/version";

/// What Laurel made for one ModelAlias, as the template of what is made by hand.
pub(crate) struct Sample {
    deployment: Value,
    service: Value,
}

/// The name of an object in a namespace.
pub(crate) fn name(number: usize) -> String {
    format!("app-{number}")
}

impl Sample {
    /// Keeps what a person would have written.
    pub(crate) fn new(deployment: &Deployment, service: &Service) -> Result<Self> {
        let mut deployment = serde_json::to_value(deployment.spec.as_ref().context("no spec")?)?;
        let mut service = serde_json::to_value(service.spec.as_ref().context("no spec")?)?;
        deployment["template"]["metadata"] = json!({});
        for assigned in ["clusterIP", "clusterIPs"] {
            service.as_object_mut().context("a spec is an object")?.remove(assigned);
        }
        Ok(Self { deployment, service })
    }

    fn deployment(&self, number: usize, version: &str) -> Result<Deployment> {
        let labels = selector(number, version);
        let mut spec = self.deployment.clone();
        spec["selector"] = json!({ "matchLabels": labels });
        spec["template"]["metadata"]["labels"] = labels.clone();
        let metadata = json!({ "name": format!("{}-v{version}", name(number)), "labels": labels });
        Ok(serde_json::from_value(json!({ "metadata": metadata, "spec": spec }))?)
    }

    fn service(&self, number: usize, version: &str) -> Result<Service> {
        let mut spec = self.service.clone();
        spec["selector"] = selector(number, version);
        let metadata = json!({ "name": name(number), "labels": { APP: name(number) } });
        Ok(serde_json::from_value(json!({ "metadata": metadata, "spec": spec }))?)
    }
}

fn selector(number: usize, version: &str) -> Value {
    json!({ APP: name(number), VERSION: version })
}

/// The patch that moves a Service to a version.
fn moved(version: &str) -> Patch<Value> {
    Patch::Merge(json!({ "spec": { "selector": { VERSION: version } } }))
}

/// Whether a Service has been moved to a version.
pub(crate) fn is_moved(service: &Service, label: &str, version: &str) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.and_then(|selector| selector.get(label)).is_some_and(|selected| selected == version)
}

/// Counts the Services of a namespace that have a ready endpoint. There is one slice for each.
pub(crate) fn serving(site: &Site, namespace: &str) -> Tally {
    let ready = |slice: &EndpointSlice| {
        let mut conditions = slice.endpoints.iter().filter_map(|each| each.conditions.as_ref());
        conditions.any(|conditions| conditions.ready == Some(true))
    };
    Tally::start(site.api(namespace), watcher::Config::default(), ready).0
}

/// Creates as many Deployments and Services as there will be ModelAliases. Returns the time until all Services have
/// a ready endpoint.
pub(crate) async fn create(site: &Site, sample: &Sample) -> Result<Cost> {
    let count = site.options.aliases;
    println!("by hand: creating {count} Deployments and Services");
    let serving = serving(site, BY_HAND);
    let (before, began) = (Usage::now(site)?, Instant::now());
    each(0..count, |number| make(site, sample, number)).await?;
    let took = serving.until("Services serve", count, site.options.patience()).await? - began;
    println!("by hand: {:.1} s", took.as_secs_f64());
    Ok(Cost { took, cpu: Usage::now(site)?.since(before) })
}

async fn make(site: &Site, sample: &Sample, number: usize) -> Result<()> {
    let create = PostParams::default();
    site.api(BY_HAND).create(&create, &sample.deployment(number, "1")?).await?;
    site.api(BY_HAND).create(&create, &sample.service(number, "1")?).await?;
    Ok(())
}

/// Creates a second version of half of them at once, and moves each Service as soon as that is ready. Returns the
/// time until all are moved.
pub(crate) async fn promote(site: &Site, sample: &Sample) -> Result<Cost> {
    let count = site.options.models();
    println!("by hand: {count} promotions");
    let services: Api<Service> = site.api(BY_HAND);
    let (moved_there, _) =
        Tally::start(services.clone(), watcher::Config::default(), |it| is_moved(it, VERSION, "2"));
    let new = watcher::Config::default().labels(&format!("{VERSION}=2"));
    let ready = |it: &Deployment| it.status.as_ref().is_some_and(|status| status.ready_replicas >= Some(1));
    let (_ready, names) = Tally::start(site.api::<Deployment>(BY_HAND), new, ready);
    let (before, began) = (Usage::now(site)?, Instant::now());
    let create = each((0..count).map(|number| number * 2), |number| async move {
        let deployment = sample.deployment(number, "2")?;
        site.api(BY_HAND).create(&PostParams::default(), &deployment).await?;
        Ok(())
    });
    let patch = names.take(count).map(|deployment| {
        let services = services.clone();
        async move {
            let service = deployment.trim_end_matches("-v2");
            services.patch(service, &PatchParams::default(), &moved("2")).await?;
            anyhow::Ok(())
        }
    });
    let patch = patch.buffer_unordered(IN_FLIGHT).try_collect::<()>();
    let all = moved_there.until("Services moved", count, site.options.patience());
    let ((), (), last) = tokio::try_join!(create, patch, all)?;
    let took = last - began;
    println!("by hand: {:.1} s", took.as_secs_f64());
    Ok(Cost { took, cpu: Usage::now(site)?.since(before) })
}

/// Deletes all of it, and waits until it is gone: Laurel gets a cluster that is as empty.
pub(crate) async fn remove(site: &Site) -> Result<()> {
    println!("by hand: deleting everything");
    let (all, background) = (ListParams::default(), DeleteParams::background());
    site.api::<Deployment>(BY_HAND).delete_collection(&background, &all).await?;
    let services: Api<Service> = site.api(BY_HAND);
    let names = services.list_metadata(&all).await?.items.into_iter().map(|service| service.name_any());
    each(names, |name| {
        let (services, background) = (services.clone(), background.clone());
        async move { Ok(services.delete(&name, &background).await.map(drop)?) }
    })
    .await?;
    let pods: Api<Pod> = site.api(BY_HAND);
    let began = Instant::now();
    while !pods.list_metadata(&all.clone().limit(1)).await?.items.is_empty() {
        ensure!(began.elapsed() < site.options.patience(), "the pods do not end");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// One Service with two versions, to be moved back and forth by hand.
pub(crate) struct Pair {
    services: Api<Service>,
}

impl Pair {
    pub(crate) async fn create(site: &Site, sample: &Sample) -> Result<Self> {
        let serving = serving(site, BY_HAND);
        make(site, sample, 0).await?;
        let second = sample.deployment(0, "2")?;
        site.api(BY_HAND).create(&PostParams::default(), &second).await?;
        serving.until("Service serves", 1, site.options.patience()).await?;
        Ok(Self { services: site.api(BY_HAND) })
    }

    /// Returns the time from the request that moves the Service to a version until a watch shows it.
    pub(crate) async fn move_to(&self, version: &str) -> Result<Duration> {
        let service = Watch::of(self.services.clone(), &name(0));
        service.until("the Service", PATIENCE, |_| true).await?;
        let began = Instant::now();
        self.services.patch(&name(0), &PatchParams::default(), &moved(version)).await?;
        let there = |seen: &Seen<Service>| is_moved(&seen.object, VERSION, version);
        Ok(service.until("the Service moved", PATIENCE, there).await?.at - began)
    }
}
