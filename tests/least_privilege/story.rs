//! The story: everything that the operator can do, and errors.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Service},
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::watcher,
};
use laurel::api::{ModelAlias, ModelExperiment, ModelRegistry, RegisteredModel, condition::Reason};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    front::Front,
    login::{Secrets, USER},
    planted::base64,
    simulated::{
        look::until_sizes,
        place::{PATIENCE, Place},
    },
    support::{alias::Alias, watch::Watch},
};

/// A place with everything that a story needs.
pub(crate) struct Story<'a> {
    pub(crate) place: &'a Place,
    pub(crate) secrets: &'a Secrets,
    pub(crate) by_password: Front,
    pub(crate) by_token: Front,
    pub(crate) registries: Watch<ModelRegistry>,
    pub(crate) models: Watch<RegisteredModel>,
    pub(crate) events: Watch<Event>,
}

impl<'a> Story<'a> {
    pub(crate) fn begin(place: &'a Place, secrets: &'a Secrets) -> Result<Self> {
        let basic = base64(format!("{USER}:{}", secrets.password.value).into_bytes());
        let everything = watcher::Config::default;
        Ok(Self {
            place,
            secrets,
            by_password: Front::open(place.mlflow.port, format!("Basic {basic}"))?,
            by_token: Front::open(place.mlflow.port, format!("Bearer {}", secrets.token.value))?,
            registries: Watch::start(place.api(), everything()),
            models: Watch::start(place.api(), everything()),
            events: Watch::start(place.api(), everything()),
        })
    }

    /// A model that is created in the registry, and one that is adopted.
    pub(crate) async fn models(&self) -> Result<()> {
        let place = self.place;
        place
            .describe_model("{registryRef: {name: by-password}, description: Scores, tags: {team: risk}}")
            .await?;
        place.mlflow.create_model(&self.adopted()).await?;
        let adopted = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "RegisteredModel",
            "metadata": { "name": "adopted" },
            "spec": {
                "modelName": self.adopted(),
                "registryRef": { "name": "by-token" },
                "deletionPolicy": "Delete",
            },
        });
        place.apply(&adopted.to_string()).await?;
        for name in ["model", "adopted"] {
            let synced = |model: &RegisteredModel| {
                let conditions = model.status.clone().unwrap_or_default().conditions;
                model.name_any() == name
                    && conditions.iter().any(|condition| condition.reason == "ModelSynced")
            };
            let what = format!("the RegisteredModel {name} in the registry");
            self.models.until(&what, PATIENCE, |seen| synced(&seen.object)).await?;
        }
        for _ in 0..3 {
            place.mlflow.register(&place.model).await?;
        }
        Ok(())
    }

    fn adopted(&self) -> String {
        format!("{}-adopted", self.place.model)
    }

    /// The life of one ModelAlias up to its deletion: a first version, a promotion, a rollback, other
    /// settings, versions that are deleted, a version that fails, twice.
    pub(crate) async fn champion(&self) -> Result<()> {
        let place = self.place;
        let env = "env: [{name: KEY, valueFrom: {secretKeyRef: {name: model-key, key: key}}}]";
        let serving = format!("{env}, envFrom: [{{secretRef: {{name: model-login}}}}]");
        let desired = |version: &str, serving: &str, rollout: &str| {
            format!(
                "{{version: '{version}', previousAlias: previous, serving: {{{serving}}}, rollout: \
                 {{{rollout}}}}}"
            )
        };
        place.get(&desired("1", &serving, "")).await?;
        place.get(&desired("2", &serving, "")).await?;
        place.until_named("previous", Some("1")).await?;
        place.get(&desired("1", &serving, "")).await?;
        place
            .get(&desired("1", &format!("{serving}, image: 'registry.example/serving:2', port: 9000"), ""))
            .await?;
        place.get(&desired("2", &serving, "warmFor: 1s, revisionHistoryLimit: 0")).await?;
        until_sizes(place, [("2", 2)]).await?;

        // Nothing but its Events could say why this one is not ready, so they are read.
        let waits = "template: {metadata: {annotations: {kwok.laurel.test/fate: never-ready}}}";
        let slow = desired("3", &format!("{serving}, {waits}"), "progressDeadline: 6s");
        let change = place.desired(&slow).await?;
        place.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
        place.get(&desired("2", &serving, "")).await?;

        let crash = "template: {metadata: {annotations: {kwok.laurel.test/fate: crash-loop}}}";
        let fails = desired("3", &format!("{serving}, {crash}"), "progressDeadline: 2s");
        let change = place.desired(&fails).await?;
        place.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
        place.event("Rejected").await?;
        // A repeated Event is counted, not created again.
        place.retry("again").await?;
        let counted = |event: &Event| event.reason.as_deref() == Some("Rejected") && event.series.is_some();
        self.events.until("the same Event twice", PATIENCE, |seen| counted(&seen.object)).await?;
        place.get(&desired("2", &serving, "")).await.map(drop)
    }

    /// An experiment, which says what it lacks.
    pub(crate) async fn experiment(&self) -> Result<()> {
        let experiment = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ModelExperiment",
            "metadata": { "name": "experiment" },
            "spec": {
                "championRef": { "name": "champion" },
                "challengers": [{ "aliasRef": { "name": "rolling" } }],
                "metrics": [{ "name": "failures", "role": "Primary", "failures": {} }],
            },
        });
        self.place.apply(&experiment.to_string()).await?;
        let lacks = |experiment: &ModelExperiment| {
            let conditions = experiment.status.clone().unwrap_or_default().conditions;
            conditions.iter().any(|condition| condition.reason == "ChampionUnavailable")
        };
        let watch = Watch::of(self.place.api(), "experiment");
        watch.until("its champion shares no requests", PATIENCE, |seen| lacks(&seen.object)).await.map(drop)
    }

    /// The other runtimes, one of them with the other strategy.
    pub(crate) async fn runtimes(&self) -> Result<()> {
        let rolling = |version: &str| {
            json!({
                "alias": "rolling",
                "version": version,
                "serving": { "runtime": "mlserver", "image": "registry.example/mlserver:1", "replicas": 2 },
                "rollout": { "strategy": "Rolling", "smokeTest": { "mode": "Disabled" } },
            })
        };
        self.alias("rolling", rolling("1")).await?;
        self.alias("rolling", rolling("2")).await?;
        let probe = json!({ "httpGet": { "path": "/ready", "port": "http" } });
        let template = json!({ "spec": { "containers": [{ "name": "model", "readinessProbe": probe }] } });
        let serving = json!({ "runtime": "custom", "image": "registry.example/own:1", "template": template });
        self.alias("custom", json!({ "alias": "custom", "version": "1", "serving": serving })).await
    }

    /// `ModelAliases` whose names are taken by objects of somebody else: only then such an object is read.
    pub(crate) async fn taken_names(&self) -> Result<()> {
        let place = self.place;
        let selector = json!({ "matchLabels": { "app": "theirs" } });
        let container = json!({ "name": "theirs", "image": "registry.example/theirs:1" });
        let pod =
            json!({ "metadata": { "labels": { "app": "theirs" } }, "spec": { "containers": [container] } });
        let theirs = [
            (
                "apps/v1",
                "Deployment",
                "their-deployment-v1",
                json!({ "selector": selector, "template": pod }),
            ),
            ("v1", "Service", "their-service", json!({ "ports": [{ "port": 80 }] })),
            ("policy/v1", "PodDisruptionBudget", "their-budget", json!({ "selector": selector })),
        ];
        for (version, kind, name, spec) in &theirs {
            // Laurel recognises budgets of others by this label, so it finds this one only by its name.
            let labels = json!({ "app.kubernetes.io/managed-by": "laurel" });
            let metadata = json!({ "name": name, "labels": labels });
            let object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec });
            place.apply(&object.to_string()).await?;
        }
        let names = ["their-deployment", "their-service", "their-budget"];
        let watched = names.map(|name| Alias::observe(&place.cluster, &place.namespace, name));
        let mut changes = Vec::new();
        for (name, watched) in names.iter().zip(&watched) {
            let serving = json!({ "image": "registry.example/serving:1", "replicas": 2 });
            let rollout = json!({ "smokeTest": { "mode": "Disabled" } });
            let spec = json!({ "alias": name, "version": "1", "serving": serving, "rollout": rollout });
            self.create_alias(name, spec).await?;
            changes.push(watched.accepted().await?);
        }
        let is_reported = |alias: &ModelAlias| {
            let conditions = alias.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.message.contains("has another owner"))
        };
        for watched in &watched {
            watched.until("the object of somebody else", PATIENCE, is_reported).await?;
        }
        for (_, kind, name, _) in &theirs {
            place.kubectl(&["delete", kind, name]).await?;
        }
        for (watched, change) in watched.iter().zip(&changes) {
            watched.ready(*change, PATIENCE).await?;
        }
        Ok(())
    }

    /// Applies a ModelAlias, and waits until its desired state is reached.
    async fn alias(&self, name: &str, spec: Value) -> Result<()> {
        let watched = Alias::observe(&self.place.cluster, &self.place.namespace, name);
        self.create_alias(name, spec).await?;
        let change = watched.accepted().await?;
        watched.ready(change, PATIENCE).await.map(drop)
    }

    async fn create_alias(&self, name: &str, mut spec: Value) -> Result<()> {
        spec["modelRef"] = json!({ "name": "model" });
        let alias = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ModelAlias",
            "metadata": { "name": name },
            "spec": spec,
        });
        self.place.apply(&alias.to_string()).await
    }

    /// Returns the pod templates of all serving pods, by name.
    pub(crate) async fn templates(&self) -> Result<Vec<(String, Value)>> {
        let deployments = self.place.api::<Deployment>().list(&ListParams::default()).await?;
        let template = |deployment: Deployment| -> Result<(String, Value)> {
            let name = deployment.name_any();
            let template = deployment.spec.with_context(|| format!("{name} has no spec"))?.template;
            Ok((name, serde_json::to_value(template)?))
        };
        deployments.items.into_iter().map(template).collect()
    }

    /// Deletions: `serving` of a ModelAlias, then all of them, then a model with its policy.
    pub(crate) async fn ends(&self) -> Result<()> {
        let place = self.place;
        place.get("{version: '2', serving: null, rollout: null}").await?;
        let began = Instant::now();
        while place.api::<Service>().get_opt("champion").await?.is_some() {
            ensure!(began.elapsed() < PATIENCE, "the Service is left");
            sleep(std::time::Duration::from_millis(100)).await;
        }
        self.delete::<ModelAlias>("champion").await?;
        self.delete::<RegisteredModel>("adopted").await?;
        ensure!(place.mlflow.model(&self.adopted()).await?.is_none(), "the model is left in the registry");
        Ok(())
    }

    async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let api = self.place.api::<K>();
        let object = api.get(name).await?;
        api.delete(name, &DeleteParams::default()).await?;
        self.place.gone(&api, &object, PATIENCE).await
    }
}
