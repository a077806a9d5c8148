//! Hundreds of valid and invalid objects beside a ModelAlias that is promoted as usual.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
};
use laurel::api::condition::Reason;
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{Fixture, run},
    simulated::{
        hostile::{KINDS, object, resource, schemas, seed},
        look::selected,
    },
};

/// Number of objects.
const COUNT: usize = 360;
/// Number of concurrent requests.
const SIDE_BY_SIDE: usize = 6;
/// Time limit for a condition on each admitted object, among hundreds, on a busy machine.
const REPORTED_WITHIN: Duration = Duration::from_mins(1);
/// Time limit for a promotion in the meantime.
const PROMPT: Duration = Duration::from_secs(45);
/// Longer than a deletion waits for a registry.
const GONE: Duration = Duration::from_secs(75);

#[test]
fn promise_10_hundreds_of_hostile_objects_are_rejected_or_reported_and_hold_up_no_other() {
    run("hostile", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        let (thrown, promoted) = tokio::join!(throw(fixture), promote_and_back(fixture));
        let accepted = thrown?;
        let took = promoted?;
        println!("promotions meanwhile: {took:?}");
        ensure!(took.iter().all(|took| *took < PROMPT), "a promotion took longer than {PROMPT:?}: {took:?}");

        let reported = until_all_are_reported(fixture, &accepted).await?;
        println!("reasons: {reported:?}");
        refused_ones_have_nothing(fixture).await?;
        ensure!(fixture.operator.is_ready().await, "the operator no longer answers");
        let log = fixture.operator.log(usize::MAX);
        ensure!(!log.contains("panicked"), "the operator's log has a panic");
        ensure!(log.matches("Laurel started").count() == 1, "the operator was restarted");

        // While all of them exist, and once they are gone.
        fixture.get("version: '2'").await?;
        delete_all(fixture).await?;
        fixture.get("version: '1'").await?;
        ensure!(selected(fixture).await? == "1", "the champion is not on version 1");
        Ok(())
    });
}

fn api(fixture: &Fixture, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(fixture.cluster.client.clone(), &fixture.namespace, &resource(kind))
}

/// The result of creating an object.
enum Thrown {
    Accepted(&'static str, String),
    /// Why it was rejected, the beginning of the message.
    Refused(String),
}

/// Creates the objects. Returns those that the API server accepts, by kind and name.
async fn throw(fixture: &Fixture) -> Result<Vec<(&'static str, String)>> {
    let (seed, schemas) = (seed(), schemas()?);
    let thrown = (0..COUNT).map(|index| object(seed, index, &schemas)).map(async |(kind, object)| {
        let refused = |words: &dyn ToString| Thrown::Refused(words.to_string().chars().take(100).collect());
        let object = match serde_json::from_value::<DynamicObject>(object) {
            Ok(object) => object,
            Err(error) => return Ok(refused(&error)),
        };
        match api(fixture, kind).create(&PostParams::default(), &object).await {
            Ok(stored) => Ok(Thrown::Accepted(kind, stored.name_any())),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                Ok(refused(&status.message.replace(&object.name_any(), "it")))
            }
            Err(error) => Err(error),
        }
    });
    let answers: Vec<kube::Result<_>> = stream::iter(thrown).buffer_unordered(SIDE_BY_SIDE).collect().await;
    let mut accepted = Vec::new();
    let mut refused = BTreeMap::<String, usize>::new();
    for answer in answers {
        match answer? {
            Thrown::Accepted(kind, name) => accepted.push((kind, name)),
            Thrown::Refused(words) => *refused.entry(words).or_default() += 1,
        }
    }
    println!("seed {seed}: {} of {COUNT} objects were accepted; rejected: {refused:#?}", accepted.len());
    ensure!((80..COUNT - 80).contains(&accepted.len()), "unexpected number of objects: {}", accepted.len());
    Ok(accepted)
}

/// Promotes and rolls back repeatedly in the meantime. Returns the durations.
async fn promote_and_back(fixture: &Fixture) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for version in ["2", "1", "2", "1"] {
        let began = Instant::now();
        fixture.get(&format!("version: '{version}'")).await?;
        took.push(began.elapsed());
        ensure!(selected(fixture).await? == version, "the champion is not on version {version}");
    }
    Ok(took)
}

/// Returns the reason of the condition `Ready`, if it is about the current spec.
fn reason(object: &DynamicObject) -> Option<&str> {
    let mut conditions = object.data["status"]["conditions"].as_array()?.iter();
    let ready = conditions.find(|condition| condition["type"] == "Ready")?;
    (ready["observedGeneration"].as_i64() == object.metadata.generation).then(|| ready["reason"].as_str())?
}

/// Waits until each object has a condition with a reason from the closed list and a message. Counts the
/// reasons.
async fn until_all_are_reported(
    fixture: &Fixture,
    accepted: &[(&str, String)],
) -> Result<BTreeMap<String, usize>> {
    let began = Instant::now();
    loop {
        let mut reasons = BTreeMap::<String, usize>::new();
        let mut silent = Vec::new();
        for kind in KINDS {
            let objects = api(fixture, kind).list(&ListParams::default()).await?;
            for object in objects.iter().filter(|object| object.name_any().starts_with("hostile-")) {
                match reason(object) {
                    Some(reason) => {
                        reason
                            .parse::<Reason>()
                            .with_context(|| format!("{reason:?} is not one of our reasons"))?;
                        *reasons.entry(format!("{kind} {reason}")).or_default() += 1;
                    }
                    None => silent.push(format!("{kind} {}: {}", object.name_any(), object.data)),
                }
            }
        }
        let reported: usize = reasons.values().sum();
        if silent.is_empty() && reported >= accepted.len() / 2 {
            return Ok(reasons);
        }
        ensure!(
            began.elapsed() < REPORTED_WITHIN,
            "{} objects have no condition:\n{}",
            silent.len(),
            silent.join("\n")
        );
        sleep(Duration::from_millis(500)).await;
    }
}

/// Reasons that forbid every action: such an object may have no workloads.
const NOTHING: [Reason; 7] = [
    Reason::RegisteredModelNotFound,
    Reason::ModelRegistryNotFound,
    Reason::Conflict,
    Reason::InvalidTemplate,
    Reason::ModelNotFound,
    Reason::VersionNotFound,
    Reason::Suspended,
];

async fn refused_ones_have_nothing(fixture: &Fixture) -> Result<()> {
    let all = ListParams::default();
    let owners = |objects: Vec<Option<Vec<_>>>| -> Vec<String> {
        let owners = objects.into_iter().flatten().flatten();
        owners
            .map(|owner: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| owner.name)
            .collect()
    };
    // The aliases first: one that is unblocked in the meantime may have workloads by the time the others are
    // read.
    let aliases = api(fixture, "ModelAlias").list(&all).await?;
    let services = fixture.api::<Service>().list(&all).await?.items;
    let deployments = fixture.api::<Deployment>().list(&all).await?.items;
    let services = owners(services.into_iter().map(|it| it.metadata.owner_references).collect());
    let deployments = owners(deployments.into_iter().map(|it| it.metadata.owner_references).collect());
    let mut looked_at = 0;
    for alias in aliases.iter() {
        let Some(reason) = reason(alias).and_then(|reason| reason.parse::<Reason>().ok()) else { continue };
        if NOTHING.contains(&reason) {
            looked_at += 1;
            let name = alias.name_any();
            ensure!(!services.contains(&name), "{name} reports {reason} and has a Service");
            ensure!(!deployments.contains(&name), "{name} reports {reason} and has a Deployment");
        }
    }
    println!("blocked by the operator, without workloads: {looked_at}");
    ensure!(looked_at > 10, "too few were blocked to prove anything: {looked_at}");
    Ok(())
}

/// Deletes everything but the champion, its model and the default registry: all of it is deleted, including
/// what serves.
async fn delete_all(fixture: &Fixture) -> Result<()> {
    let stays = |name: &str| matches!(name, "champion" | "model" | "default");
    for kind in KINDS {
        let api = api(fixture, kind);
        let names = api.list(&ListParams::default()).await?.items.into_iter().map(|object| object.name_any());
        let deleted = names.filter(|name| !stays(name)).map(|name| {
            let api = api.clone();
            async move { api.delete(&name, &DeleteParams::default()).await.map(drop) }
        });
        let deleted: Vec<_> = stream::iter(deleted).buffer_unordered(SIDE_BY_SIDE).collect().await;
        deleted.into_iter().collect::<kube::Result<Vec<()>>>()?;
    }
    let began = Instant::now();
    loop {
        let mut left = Vec::new();
        for kind in KINDS {
            let objects = api(fixture, kind).list(&ListParams::default()).await?;
            left.extend(objects.iter().map(ResourceExt::name_any).filter(|name| !stays(name)));
        }
        if left.is_empty() {
            println!("all were gone after {:.1} s", began.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(began.elapsed() < GONE, "still there: {left:?}");
        sleep(Duration::from_millis(500)).await;
    }
}
