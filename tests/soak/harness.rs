//! The soak's harness: a namespace, a registered model, four aliases, and watches.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Event, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{Api, Resource, runtime::watcher};
use laurel::api::{ModelAlias, ModelRegistry, RegisteredModel};
use parking_lot::{Mutex, MutexGuard};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    clients::Clients,
    figures::Figures,
    plan::{NAMESPACE, ORIGIN, PLANS, Plan, VERSIONS, objects, registered},
    story::Story,
};
use crate::support::{
    alias::Alias,
    cluster::{Cluster, OPERATOR_NAMESPACE},
    load::{Connection, Report, Request},
    mlflow::Mlflow,
    service::{Way, through_gateway, way_to},
    watch::Watch,
};

/// Maximum number of model servers that start at a time.
const STARTS: usize = 3;

/// Time limit until the first version serves.
const PATIENCE: Duration = Duration::from_mins(3);

/// A ModelAlias that is changed, and its clients.
pub(super) struct Subject {
    pub(super) plan: &'static Plan,
    pub(super) clients: Clients,
}

/// The watches of the cluster, for the whole soak.
pub(super) struct Watched {
    pub(super) aliases: Watch<ModelAlias>,
    pub(super) models: Watch<RegisteredModel>,
    pub(super) registries: Watch<ModelRegistry>,
    pub(super) deployments: Watch<Deployment>,
    pub(super) services: Watch<Service>,
    pub(super) slices: Watch<EndpointSlice>,
    pub(super) pods: Watch<Pod>,
    pub(super) operators: Watch<Pod>,
    pub(super) events: Watch<Event>,
}

/// The harness of a soak.
pub(super) struct Harness {
    pub(super) cluster: Cluster,
    pub(super) mlflow: Mlflow,
    pub(super) model: String,
    pub(super) subjects: Vec<Subject>,
    pub(super) watched: Watched,
    pub(super) story: Story,
    /// How many model servers may start at a time: each needs a core for seconds, and two cores also answer
    /// the clients.
    pub(super) room_to_start: Semaphore,
    /// The node that takes no pods at present.
    pub(super) cordoned: Mutex<Option<String>>,
    figures: Mutex<Figures>,
}

impl Harness {
    /// A fresh namespace in which the first version serves everywhere.
    pub(super) async fn create() -> Result<Self> {
        let cluster = Cluster::connect().await?;
        cluster.require_laurel().await?;
        let mlflow = Mlflow::connect(&cluster).await?;
        cluster.fresh_namespace(NAMESPACE, "soak").await?;
        mlflow.fresh_model(NAMESPACE).await?;
        for (version, copied) in registered() {
            let registered = mlflow.copy_version((ORIGIN, copied), NAMESPACE).await?;
            ensure!(registered == version, "version {registered} instead of {version}");
        }
        for plan in &PLANS {
            mlflow.set_alias(NAMESPACE, plan.alias, plan.versions[0]).await?;
        }
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": objects() }).to_string();
        cluster.run_kubectl(&["apply", "-n", NAMESPACE, "-f", "-"], Some(&objects)).await?;
        let watched = Watched::begin(&cluster);
        let example = mlflow.artifact((ORIGIN, VERSIONS[0]), "serving_input_example.json").await?;
        let prediction = Request::post_json("/invocations", example);
        // All of them first: the start of four model servers leaves two cores no room for clients.
        let ways = try_join_all(PLANS.iter().map(|plan| way_once_served(&cluster, plan))).await?;
        let begin = |(plan, way)| Subject { plan, clients: Clients::start(way, &prediction, plan) };
        let subjects = PLANS.iter().zip(ways).map(begin).collect();
        let story = Story::begin();
        story.log("the first version serves everywhere, and the clients are sending");
        Ok(Self {
            cluster,
            mlflow,
            model: NAMESPACE.to_owned(),
            subjects,
            watched,
            story,
            room_to_start: Semaphore::new(STARTS),
            cordoned: Mutex::default(),
            figures: Mutex::default(),
        })
    }

    /// Lets the node that was drained take pods again.
    pub(super) async fn uncordon(&self) -> Result<()> {
        let cordoned = self.cordoned.lock().take();
        if let Some(node) = cordoned {
            let nodes: Api<Node> = Api::all(self.cluster.client.clone());
            nodes.uncordon(&node).await?;
        }
        Ok(())
    }

    /// Deletes everything.
    pub(super) async fn clean_up(&self) -> Result<()> {
        self.uncordon().await?;
        self.cluster.delete_namespace(NAMESPACE).await?;
        self.mlflow.delete_model(&self.model).await
    }

    /// Observes the subject's ModelAlias from now on.
    pub(super) fn observe(&self, subject: &Subject) -> Alias {
        Alias::observe(&self.cluster, NAMESPACE, subject.plan.name)
    }

    fn figures_now(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock()
    }

    /// Counts something.
    pub(super) fn count(&self, counting: impl FnOnce(&mut Figures)) {
        counting(&mut self.figures_now());
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures_now().clone()
    }

    /// Every request so far.
    pub(super) fn requests(&self) -> Report {
        Report::of_all(self.subjects.iter().map(|subject| subject.clients.report()))
    }

    /// Returns how many requests were sent so far, and how many of them were lost.
    pub(super) fn counts(&self) -> (usize, usize) {
        let counts = self.subjects.iter().map(|subject| subject.clients.counts());
        counts.fold((0, 0), |(sent, lost), (more_sent, more_lost)| (sent + more_sent, lost + more_lost))
    }

    /// Returns the requests that ended since a given time.
    pub(super) fn of_late(&self, since: Instant) -> Report {
        Report::of_all(self.subjects.iter().map(|subject| subject.clients.ended_since(since)))
    }

    /// Returns the progress.
    pub(super) fn progress(&self) -> String {
        let (sent, lost) = self.counts();
        format!("{}; {sent} requests, {lost} lost", self.figures())
    }

    /// Returns the final figures.
    pub(super) fn summary(&self) -> String {
        let requests = self.requests();
        let kinds = [Connection::Fresh, Connection::KeepAlive]
            .map(|kind| format!("  {kind:?}: {}", requests.over(kind)))
            .join("\n");
        format!("{}\n{kinds}\n  in all: {requests}", self.figures().in_full())
    }

    /// Prints diagnostics.
    pub(super) async fn show(&self) {
        let looks: [&[&str]; 3] = [
            &["get", "modelaliases,registeredmodels,modelregistries", "-o", "wide"],
            &["get", "deployments,pods,services,endpointslices", "-o", "wide", "--show-labels"],
            &[
                "get",
                "modelaliases",
                "-o",
                r"jsonpath={range .items[*]}{.metadata.name} {.status}{'\n'}{end}",
            ],
        ];
        for look in looks {
            let arguments = [&["-n", NAMESPACE], look].concat();
            let seen =
                self.cluster.run_kubectl(&arguments, None).await.unwrap_or_else(|error| error.to_string());
            println!("--- kubectl {}\n{seen}", arguments.join(" "));
        }
    }
}

impl Watched {
    fn begin(cluster: &Cluster) -> Self {
        Self {
            aliases: watch(cluster, NAMESPACE),
            models: watch(cluster, NAMESPACE),
            registries: watch(cluster, NAMESPACE),
            deployments: watch(cluster, NAMESPACE),
            services: watch(cluster, NAMESPACE),
            slices: watch(cluster, NAMESPACE),
            pods: watch(cluster, NAMESPACE),
            operators: watch(cluster, OPERATOR_NAMESPACE),
            events: watch(cluster, NAMESPACE),
        }
    }
}

fn watch<K>(cluster: &Cluster, namespace: &str) -> Watch<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    Watch::start(Api::namespaced(cluster.client.clone(), namespace), watcher::Config::default())
}

/// Waits until the first version serves, and finds the way to it.
async fn way_once_served(cluster: &Cluster, plan: &'static Plan) -> Result<Way> {
    let alias = Alias::observe(cluster, NAMESPACE, plan.name);
    let change = alias.accepted().await?;
    alias.ready(change, PATIENCE).await?;
    let way = match plan.path() {
        Some(path) => through_gateway(cluster, &path).await,
        None => way_to(cluster, NAMESPACE, plan.name).await,
    };
    way.with_context(|| plan.name)
}
