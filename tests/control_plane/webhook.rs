//! MLflow's webhooks: with them a registry that is polled every ten minutes is followed at once.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    runtime::watcher,
};
use laurel::api::{ModelAlias, ModelRegistry, condition::Reason};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::{
    fixture::{Fixture, run},
    simulated::machine::RUNTIME,
    support::{
        alias::{is_ready, version},
        watch::Watch,
    },
};

/// MLflow caches its webhooks for a minute in each worker, so the first delivery may be that late.
const PATIENCE: Duration = Duration::from_secs(90);

const SECRET: &str = "wonderland";

/// One for all deliveries: on a busy machine, making fifty of them takes longer than the endpoint waits for the
/// headers of a request.
static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
    client.build().unwrap()
});

/// A proxy in front of MLflow that counts requests: Laurel opens a connection for each.
pub(crate) struct Counted {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Counted {
    pub(crate) async fn before(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://127.0.0.1:{}", listener.local_addr()?.port());
        let asked = Arc::new(AtomicUsize::new(0));
        let counts = asked.clone();
        RUNTIME.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counts.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        // Either end may close the connection.
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Ok(Self { url, asked })
    }

    fn so_far(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A ModelRegistry `webhook` with a webhook, polled every ten minutes.
pub(crate) struct WithWebhook {
    pub(crate) registry: Watch<ModelRegistry>,
    asked: Counted,
}

impl WithWebhook {
    /// Creates the Secret and the ModelRegistry, and lets the model use it. `register` sets whether Laurel
    /// registers the webhook.
    pub(crate) async fn create(fixture: &Fixture, register: bool) -> Result<Self> {
        fixture.world.mlflow.create_model(&fixture.model).await?;
        let asked = Counted::before(fixture.world.mlflow.port).await?;
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": "push" },
            "stringData": { "secret": SECRET },
        });
        fixture.apply(&secret.to_string()).await?;
        let mut webhook = json!({ "secretRef": { "name": "push" } });
        if register {
            let url = format!("http://{}", fixture.world.webhook_address);
            webhook["register"] = json!({ "url": url, "encryptionKeySet": true });
        }
        let registry = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ModelRegistry",
            "metadata": { "name": "webhook" },
            "spec": { "mlflow": { "url": asked.url }, "pollInterval": "10m", "webhook": webhook },
        });
        fixture.apply(&registry.to_string()).await?;
        let registry = Watch::start(fixture.api(), watcher::Config::default());
        fixture.describe_model("{registryRef: {name: webhook}}").await?;
        Ok(Self { registry, asked })
    }

    /// Waits until the condition of the webhook has this reason.
    pub(crate) async fn reports(&self, status: &str, reason: Reason) -> Result<ModelRegistry> {
        let it = |registry: &ModelRegistry| {
            condition(registry).is_some_and(|condition| {
                condition.reason == <&str>::from(reason) && condition.status == status
            })
        };
        let what = format!("WebhookReady {status} {reason}");
        let seen = self.registry.until(&what, PATIENCE, |seen| it(&seen.object)).await?;
        Ok(seen.object)
    }
}

fn condition(registry: &ModelRegistry) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let conditions = registry.status.clone()?.conditions;
    conditions.into_iter().find(|condition| condition.type_ == "WebhookReady")
}

/// Waits until the ModelAlias serves a version, in a state seen since a given time.
pub(crate) async fn serves(fixture: &Fixture, since: Instant, wanted: &str) -> Result<()> {
    let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == wanted;
    fixture.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await.map(drop)
}

/// Returns the webhooks in MLflow that deliver to this fixture.
async fn webhooks(fixture: &Fixture) -> Result<Vec<Value>> {
    let path = format!("/webhooks/{}/webhook", fixture.namespace);
    let is_ours = |webhook: &Value| webhook["url"].as_str().is_some_and(|url| url.ends_with(&path));
    Ok(fixture.world.mlflow.webhooks().await?.into_iter().filter(is_ours).collect())
}

async fn until_hooks(fixture: &Fixture, count: usize) -> Result<Vec<Value>> {
    let began = Instant::now();
    loop {
        let webhooks = webhooks(fixture).await?;
        if webhooks.len() == count {
            return Ok(webhooks);
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "there are {} webhooks and not {count}: {webhooks:?}",
            webhooks.len()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Sends a delivery as MLflow does. Returns the response's status.
async fn deliver(fixture: &Fixture, id: &str, secret: &str, sent: u64) -> Result<u16> {
    deliver_at(fixture, &format!("{}/webhook", fixture.namespace), id, secret, sent).await
}

async fn deliver_at(fixture: &Fixture, path: &str, id: &str, secret: &str, sent: u64) -> Result<u16> {
    deliver_about(fixture, &fixture.model, path, id, secret, sent).await
}

async fn deliver_about(
    fixture: &Fixture,
    model: &str,
    path: &str,
    id: &str,
    secret: &str,
    sent: u64,
) -> Result<u16> {
    let body = json!({ "entity": "model_version_alias", "action": "created", "data": { "name": model } });
    let body = body.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{id}.{sent}.{body}").as_bytes());
    let url = format!("http://{}/webhooks/{path}", fixture.world.webhook_address);
    let answer = CLIENT
        .post(url)
        .header("X-MLflow-Delivery-Id", id)
        .header("X-MLflow-Timestamp", sent)
        .header("X-MLflow-Signature", format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
        .body(body)
        .send()
        .await?;
    Ok(answer.status().as_u16())
}

/// Waits until the registry has not been read for a while. Returns the number of requests so far.
async fn until_quiet(webhook: &WithWebhook) -> Result<usize> {
    const QUIET: Duration = Duration::from_secs(3);
    let began = Instant::now();
    let (mut last, mut since) = (webhook.asked.so_far(), Instant::now());
    while since.elapsed() < QUIET {
        ensure!(began.elapsed() < PATIENCE, "the registry is read over and over");
        sleep(Duration::from_millis(50)).await; // Time itself is the subject: nothing happens.
        let asked = webhook.asked.so_far();
        if asked != last {
            (last, since) = (asked, Instant::now());
        }
    }
    Ok(last)
}

#[test]
fn an_alias_moved_in_mlflow_is_followed_at_once_with_polls_ten_minutes_apart() {
    run("push", async |fixture| {
        let webhook = WithWebhook::create(fixture, true).await?;
        webhook.reports("True", Reason::WebhookReceiving).await?;
        let made = until_hooks(fixture, 1).await?;
        ensure!(made[0]["status"] == "ACTIVE" && made[0].get("secret").is_none(), "{made:?}");
        for _ in 0..3 {
            fixture.world.mlflow.register(&fixture.model).await?;
        }
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "1").await?;
        fixture.desired("follow: {registry: {}}").await?;
        serves(fixture, Instant::now(), "1").await?;
        for wanted in ["2", "3", "1"] {
            let moved = Instant::now();
            fixture.world.mlflow.set_alias(&fixture.model, "champion", wanted).await?;
            serves(fixture, moved, wanted).await?;
            println!("  version {wanted} serves after {:.2} s", moved.elapsed().as_secs_f64());
        }
        Ok(())
    });
}

#[test]
fn promise_9_the_webhook_is_registered_and_deleted_with_its_field_and_others_stay() {
    run("push-ends", async |fixture| {
        let _alone = fixture.world.keeps_running.lock().await;
        let url = format!("http://{}/webhooks/{}/webhook", fixture.world.webhook_address, fixture.namespace);
        let theirs = fixture.world.mlflow.create_webhook("by-hand", &url, "theirs").await?;
        let webhook = WithWebhook::create(fixture, true).await?;
        webhook.reports("True", Reason::WebhookReceiving).await?;
        until_hooks(fixture, 2).await?;

        // A new operator finds its own webhook again.
        fixture.world.kill_operator()?;
        fixture.world.start_operator().await?;
        let without = json!({ "spec": { "webhook": { "register": null } } });
        fixture.edit::<ModelRegistry>("webhook", without).await?;
        until_hooks(fixture, 1).await?;

        let again = format!("http://{}", fixture.world.webhook_address);
        let with =
            json!({ "spec": { "webhook": { "register": { "url": again, "encryptionKeySet": true } } } });
        fixture.edit::<ModelRegistry>("webhook", with).await?;
        until_hooks(fixture, 2).await?;
        fixture.api::<ModelRegistry>().delete("webhook", &DeleteParams::default()).await?;
        let left = until_hooks(fixture, 1).await?;
        ensure!(left[0]["webhook_id"] == json!(theirs), "somebody else's was deleted");
        fixture.world.mlflow.delete_webhook(&theirs).await
    });
}

#[test]
fn promise_7_deliveries_cost_a_bounded_number_of_reads_and_no_writes() {
    run("push-burst", async |fixture| {
        let _alone = fixture.world.keeps_running.lock().await;
        let webhook = WithWebhook::create(fixture, false).await?;
        webhook.reports("Unknown", Reason::WebhookWaiting).await?;
        ensure!(deliver(fixture, "first", SECRET, now()).await? == 200);
        webhook.reports("True", Reason::WebhookReceiving).await?;
        let before = until_quiet(&webhook).await?;
        let revision = webhook.registry.last().and_then(|seen| seen.object.resource_version());

        let began = Instant::now();
        let ids: Vec<String> = (0..50).map(|number| format!("burst-{number}")).collect();
        for answer in join_all(ids.iter().map(|id| deliver(fixture, id, SECRET, now()))).await {
            ensure!(answer? == 200, "a delivery of the burst was rejected");
        }
        let took = began.elapsed();
        let reads = until_quiet(&webhook).await? - before;
        // At most two reads a second, each of one or two requests, and one after the burst.
        let most = (usize::try_from(took.as_millis())? / 500 + 2) * 2;
        println!("  50 deliveries in {took:?} cost {reads} requests to MLflow, of {most} at most");
        ensure!((1..=most).contains(&reads), "50 deliveries in {took:?} cost {reads} requests");

        // The same again: each is answered, and none causes a read. Nor does one about a model that nobody uses.
        let before = webhook.asked.so_far();
        let path = format!("{}/webhook", fixture.namespace);
        for (id, model) in [("unknown", "another"), ("hostile", "\0")] {
            ensure!(deliver_about(fixture, model, &path, id, SECRET, now()).await? == 200, "{model:?}");
        }
        for answer in join_all(ids.iter().map(|id| deliver(fixture, id, SECRET, now()))).await {
            ensure!(answer? == 200, "a repetition was rejected");
        }
        ensure!(deliver(fixture, "forged", "alice", now()).await? == 401, "a forged delivery was accepted");
        ensure!(deliver(fixture, "old", SECRET, now() - 600).await? == 401, "an old delivery was accepted");
        ensure!(
            deliver(fixture, "early", SECRET, now() + 600).await? == 401,
            "an early delivery was accepted"
        );
        ensure!(
            until_quiet(&webhook).await? == before,
            "MLflow was read for a delivery that must be ignored"
        );
        let after = webhook.registry.last().and_then(|seen| seen.object.resource_version());
        // Unless the hour changed in the meantime: the status has the hour of the last delivery.
        let hour = webhook.registry.last().and_then(|seen| seen.object.status?.webhook?.last_delivery);
        let hour_changed =
            hour.is_some_and(|hour| hour.as_second() + 120 > i64::try_from(now()).unwrap_or_default());
        ensure!(revision == after || hour_changed, "the status was written: {revision:?} {after:?}");
        Ok(())
    });
}

#[test]
fn promise_10_the_cause_of_a_failing_webhook_is_reported() {
    run("webhook-causes", async |fixture| {
        let _alone = fixture.world.keeps_running.lock().await;
        let webhook = WithWebhook::create(fixture, false).await?;
        webhook.reports("Unknown", Reason::WebhookWaiting).await?;
        ensure!(deliver(fixture, "forged", "alice", now()).await? == 401, "a forged delivery was accepted");
        let refused = webhook.reports("False", Reason::WebhookDeliveriesRefused).await?;
        let message = condition(&refused).context("the condition")?.message;
        ensure!(message.contains("spec.webhook.secretRef"), "{message}");
        ensure!(deliver(fixture, "right", SECRET, now()).await? == 200, "a delivery was rejected");
        webhook.reports("True", Reason::WebhookReceiving).await?;

        // The secret changes: the new one is read because of a delivery signed with it, and the old one is
        // accepted for a while.
        let secrets = fixture.api::<Secret>();
        let rotated = json!({ "stringData": { "secret": "looking-glass" } });
        secrets.patch("push", &PatchParams::default(), &Patch::Merge(rotated)).await?;
        let began = Instant::now();
        while deliver(fixture, &format!("new-{}", began.elapsed().as_nanos()), "looking-glass", now()).await?
            != 200
        {
            ensure!(began.elapsed() < PATIENCE, "the new secret is not accepted");
            sleep(Duration::from_millis(200)).await;
        }
        ensure!(
            deliver(fixture, "still-old", SECRET, now()).await? == 200,
            "the old secret is rejected at once"
        );

        secrets.delete("push", &DeleteParams::default()).await?;
        fixture.edit::<ModelRegistry>("webhook", json!({ "spec": { "pollInterval": "9m" } })).await?;
        let missing = webhook.reports("False", Reason::SecretNotFound).await?;
        let message = condition(&missing).context("the condition")?.message;
        ensure!(message.contains("\"push\""), "{message}");
        ensure!(deliver(fixture, "late", "looking-glass", now()).await? == 401, "accepted without a secret");
        let ready = missing.status.into_iter().flat_map(|status| status.conditions);
        let is_ready = |it: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            it.type_ == "Ready" && it.status == "True"
        };
        ensure!(ready.into_iter().any(|it| is_ready(&it)), "polling fails");
        Ok(())
    });
}

#[test]
fn a_cluster_registry_accepts_deliveries_with_a_secret_of_the_operators_namespace() {
    run("push-cluster", async |fixture| {
        let name = fixture.namespace.as_str();
        // The operator runs outside the cluster, so its namespace is the kubeconfig's.
        let operator = fixture.cluster.client.default_namespace();
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name, "namespace": operator },
            "stringData": { "secret": "first" },
        });
        let registry = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ClusterModelRegistry",
            "metadata": { "name": name },
            "spec": { "mlflow": { "url": fixture.mlflow.url() }, "webhook": { "secretRef": { "name": name } } },
        });
        let apply = ["apply", "--server-side", "-f", "-"];
        let delivered = async {
            ensure!(
                deliver_at(fixture, name, "early", "first", now()).await? == 404,
                "accepted without an object"
            );
            for object in [secret, registry] {
                fixture.cluster.run_kubectl(&apply, Some(&object.to_string())).await?;
            }
            let began = Instant::now();
            // Each attempt is another delivery; a '.' in an id would make it one without a signature.
            let id = |began: Instant| format!("attempt-{}", began.elapsed().as_nanos());
            while deliver_at(fixture, name, &id(began), "first", now()).await? != 200 {
                ensure!(began.elapsed() < PATIENCE, "deliveries are not accepted");
                sleep(Duration::from_millis(200)).await;
            }
            ensure!(
                deliver_at(fixture, name, "forged", "third", now()).await? == 401,
                "a forged one is accepted"
            );
            Ok(())
        };
        let delivered: Result<()> = delivered.await;
        let delete = ["delete", "--ignore-not-found"];
        fixture.cluster.run_kubectl(&[&delete[..], &["clustermodelregistry", name]].concat(), None).await?;
        fixture.cluster.run_kubectl(&[&delete[..], &["secret", name, "-n", operator]].concat(), None).await?;
        delivered
    });
}
