//! The fixture of a test: a namespace, a registered model, and a ModelAlias `champion` to change.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, runtime::watcher};
use laurel::api::condition::Reason;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    soaking::patient_probes,
    support::{
        alias::{self, Alias, Change},
        cluster::Cluster,
        load::{Load, Plan, Report, Request},
        mlflow::{self, Mlflow},
        pods::Pods,
        service::{Way, way_to},
        watch::Watch,
    },
};

/// The model whose versions the tests register under their own names.
pub(crate) const ORIGIN: &str = "fraud-xgboost";

/// A pod starts in less than ten seconds on an idle machine; this one is not idle.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Time limit of one test, without cleaning up. An experiment takes four minutes on an idle machine.
const LONGEST: Duration = Duration::from_mins(12);

/// How many model servers may run at the same time: each needs 300 MB, and most of a core while it starts.
pub(crate) const ALL_PODS: u32 = 14;

/// A test acquires the maximum number it starts. One that acquires [`ALL_PODS`] runs alone.
static PODS: Semaphore = Semaphore::const_new(ALL_PODS as usize);

/// Predictions per second over each kind of connection.
const PER_SECOND: u32 = 10;

/// The fixture of a test.
pub(crate) struct Fixture {
    pub(crate) cluster: Cluster,
    pub(crate) mlflow: Mlflow,
    pub(crate) namespace: String,
    /// The model's name in the registry.
    pub(crate) model: String,
    pub(crate) champion: Alias,
    pub(crate) pods: Pods,
    events: Watch<Event>,
}

/// Clients of the fixture's Service.
pub(crate) struct Clients {
    load: Load,
    _way: Way,
}

/// Runs a test that starts at most `pods` pods at a time, and always cleans up.
pub(crate) fn run(name: &str, pods: u32, story: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let _room = PODS.acquire_many(pods).await.unwrap();
        let fixture = Fixture::create(name).await.unwrap_or_else(|error| panic!("{error:#}"));
        let started = Instant::now();
        let result = caught(timeout(LONGEST, story(&fixture))).await.and_then(|in_time| {
            in_time.with_context(|| format!("the test is not through after {LONGEST:?}"))?
        });
        println!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        if result.is_err() {
            fixture.show().await;
        }
        let cleaned = fixture.clean_up().await;
        if let Err(error) = result.and(cleaned) {
            panic!("{error:#}");
        }
    });
}

/// Runs something with its own fixture, alone: no other test runs at the same time.
pub(crate) fn alone(story: impl Future<Output = Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let _room = PODS.acquire_many(ALL_PODS).await.unwrap();
        story.await.unwrap_or_else(|error| panic!("{error:#}"));
    });
}

/// Turns a panic into an error, so that cleaning up still happens.
async fn caught<T>(story: impl Future<Output = T>) -> Result<T> {
    AssertUnwindSafe(story).catch_unwind().await.map_err(|panic| anyhow!(words(panic.as_ref())))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic".into())
}

impl Fixture {
    async fn create(name: &str) -> Result<Self> {
        let cluster = Cluster::connect().await?;
        cluster.require_laurel().await?;
        let mlflow = Mlflow::connect(&cluster).await?;
        let namespace = format!("laurel-test-{name}");
        cluster.fresh_namespace(&namespace, "test").await?;
        mlflow.fresh_model(&namespace).await?;
        let events = Api::namespaced(cluster.client.clone(), &namespace);
        let fixture = Self {
            champion: Alias::observe(&cluster, &namespace, "champion"),
            pods: Pods::watch(&cluster, &namespace, "champion"),
            events: Watch::start(events, watcher::Config::default()),
            model: namespace.clone(),
            namespace,
            cluster,
            mlflow,
        };
        fixture.name_registry(mlflow::URL).await?;
        Ok(fixture)
    }

    /// Applies the ModelRegistry and the RegisteredModel, with the shortest poll interval.
    pub(crate) async fn name_registry(&self, url: &str) -> Result<()> {
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelRegistry", "metadata": { "name": "mlflow" },
              "spec": { "mlflow": { "url": url }, "pollInterval": "5s" } },
            { "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "model" },
              "spec": { "modelName": self.model, "registryRef": { "name": "mlflow" } } },
        ] });
        self.apply(&objects.to_string()).await
    }

    /// `kubectl apply` of anything into the namespace.
    pub(crate) async fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl(&["apply", "-f", "-"], Some(manifest)).await.map(drop)
    }

    /// kubectl in the namespace.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let namespace = ["-n", self.namespace.as_str()];
        self.cluster.run_kubectl(&[&namespace[..], arguments].concat(), input).await
    }

    /// Registers `count` good versions, numbered from 1.
    pub(crate) async fn good_versions(&self, count: usize) -> Result<()> {
        for number in ["1", "2", "3"].iter().take(count) {
            let registered = self.mlflow.copy_version((ORIGIN, number), &self.model).await?;
            ensure!(registered == *number, "version {registered} instead of {number}");
        }
        Ok(())
    }

    /// `kubectl apply` of the ModelAlias with `spec` merged over the defaults.
    pub(crate) async fn desired(&self, spec: Value) -> Result<Change> {
        self.champion.apply(&manifest("champion", spec)).await
    }

    /// Applies the ModelAlias, and waits until the desired state is reached.
    pub(crate) async fn get(&self, spec: Value) -> Result<Change> {
        let change = self.desired(spec).await?;
        self.champion.ready(change, PATIENCE).await?;
        Ok(change)
    }

    /// Waits for an Event about the ModelAlias.
    pub(crate) async fn reported(&self, reason: Reason) -> Result<()> {
        self.reported_as(reason.into()).await
    }

    /// Waits for an Event about the ModelAlias with a reason that no condition has.
    pub(crate) async fn reported_as(&self, reason: &str) -> Result<()> {
        let wanted = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.involved_object.kind.as_deref() == Some("ModelAlias")
        };
        let what = format!("an Event with reason {reason}");
        self.events.until(&what, Duration::from_secs(20), |seen| wanted(&seen.object)).await.map(drop)
    }

    /// Sends predictions from now on.
    pub(crate) async fn clients(&self) -> Result<Clients> {
        let way = way_to(&self.cluster, &self.namespace, "champion").await?;
        let request = Request::post_json("/invocations", self.example().await?);
        let plan = Plan::both(PER_SECOND, LONGEST).patient();
        Ok(Clients { load: Load::start(&way.target, &request, plan), _way: way })
    }

    /// Returns the input example of the model.
    pub(crate) async fn example(&self) -> Result<Vec<u8>> {
        self.mlflow.artifact((ORIGIN, "1"), "serving_input_example.json").await
    }

    /// Prints diagnostics.
    async fn show(&self) {
        let looks: [&[&str]; 5] = [
            &["get", "modelaliases,registeredmodels,modelregistries", "-o", "wide"],
            &["get", "deployments,pods,services", "-o", "wide", "--show-labels"],
            &["get", "httproutes", "--ignore-not-found", "-o", "yaml"],
            &["get", "modelalias", "champion", "-o", "jsonpath={.status}"],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ];
        for look in looks {
            let seen = self.kubectl(look, None).await.unwrap_or_else(|error| error.to_string());
            println!("--- kubectl -n {} {}\n{seen}", self.namespace, look.join(" "));
        }
    }

    /// Deletes everything.
    async fn clean_up(&self) -> Result<()> {
        self.cluster.delete_namespace(&self.namespace).await?;
        self.mlflow.delete_model(&self.model).await
    }
}

impl Clients {
    /// Returns the requests since a given time.
    pub(crate) fn since(&self, moment: Instant) -> Report {
        self.load.since(moment)
    }

    /// Waits until clients of both kinds have moved. Returns the time from the accepted change to the last
    /// old response.
    pub(crate) async fn move_to(&self, change: Change, from: &str, to: &str) -> Result<Duration> {
        let moved = self.load.moved(change.accepted, (from, to), PATIENCE).await;
        moved.with_context(|| {
            format!("the clients do not move from version {from} to {to}: {}", self.since(change.accepted))
        })
    }

    /// Waits until a version has answered.
    pub(crate) async fn until_answered_by(&self, from: Instant, version: &str) {
        self.load.until(from, PATIENCE, |report| report.first_answer_by(version).is_some()).await;
    }

    /// Asserts that since a given time only one version has answered, more than once.
    pub(crate) async fn stay_on(&self, moment: Instant, version: &str) -> Result<()> {
        self.load.until(moment, PATIENCE, |report| report.sent() >= 10).await;
        let answered = self.since(moment).answered();
        ensure!(answered.keys().eq([version]), "traffic did not stay on version {version}: {answered:?}");
        Ok(())
    }

    /// Ends the load, and ignores losses.
    pub(crate) async fn end(self) -> Report {
        self.load.stop().await
    }

    /// Ends the load, and fails if a request was lost.
    pub(crate) async fn leave(self) -> Result<Report> {
        let report = self.end().await;
        println!("  {report}");
        ensure!(report.lost() == 0, "requests were lost: {report}");
        ensure!(report.sent() > 2 * report.not_sent(), "the clients could not keep their rate: {report}");
        Ok(report)
    }
}

/// Returns the serving version in the status.
pub(crate) fn serving(fixture: &Fixture) -> String {
    fixture.champion.last().as_ref().map(alias::version).unwrap_or_default()
}

/// A ModelAlias that keeps the alias of its name, with `spec` merged over the defaults.
pub(crate) fn manifest(name: &str, spec: Value) -> String {
    let image = std::env::var("LAUREL_SERVING_IMAGE");
    let mut whole = json!({
        "modelRef": { "name": "model" },
        "alias": name,
        "serving": {
            "image": image.as_deref().unwrap_or("localhost/laurel/serving:3.17.2"),
            "resources": { "requests": { "cpu": "100m", "memory": "300Mi" } },
            "template": { "spec": { "containers": [patient_probes()] } },
        },
        "rollout": { "progressDeadline": "2m" },
    });
    merge(&mut whole, spec);
    let manifest = json!({
        "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelAlias", "metadata": { "name": name }, "spec": whole
    });
    manifest.to_string()
}

/// Merges `over` over `base`, object by object.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}
