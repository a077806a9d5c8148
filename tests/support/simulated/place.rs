//! The place of a test: a namespace, a registered model, and a ModelAlias `champion` to change.

use std::{any::Any, fmt::Debug, future::Future, panic::AssertUnwindSafe, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::{GroupVersionKind, NamespaceResourceScope},
    runtime::{
        wait::{await_condition, conditions::is_deleted},
        watcher,
    },
};
use laurel::api::{ModelAlias, condition::Reason};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{audit::Audit, mlflow::Mlflow};
use crate::support::{
    alias::{Alias, Change},
    cluster::Cluster,
    pods::Pods,
    watch::Watch,
};

/// Simulated pods are ready at once, and the registry is polled every 5 seconds; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The default spec, which tests override.
const CHAMPION: &str = "
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {name: champion}
spec:
  modelRef: {name: model}
  alias: champion
  serving:
    image: registry.example/serving:1
    replicas: 2
  rollout:
    smokeTest: {mode: Disabled}       # Simulated pods do not answer requests.
    progressDeadline: 30s
  deletionPolicy: Delete
";

/// The place of a test.
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    pub(crate) mlflow: &'static Mlflow,
    pub(crate) namespace: String,
    /// The model's name in the registry.
    pub(crate) model: String,
    pub(crate) champion: Alias,
    pub(crate) pods: Pods,
    pub(crate) audit: Audit,
    events: Watch<Event>,
}

/// Runs a story, and turns a panic or a timeout into an error, so that cleaning up still happens.
pub(crate) async fn reported(story: impl Future<Output = Result<()>>, longest: Duration) -> Result<()> {
    let reported = AssertUnwindSafe(timeout(longest, story)).catch_unwind().await;
    let in_time = reported.map_err(|panic| anyhow!(words(panic.as_ref())))?;
    in_time.with_context(|| format!("the test is not through after {longest:?}"))?
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic".into())
}

impl Place {
    /// Creates a namespace for a test, and watches it.
    pub(crate) async fn create(
        cluster: &Cluster,
        mlflow: &'static Mlflow,
        namespace: String,
        purpose: &str,
    ) -> Result<Self> {
        cluster.fresh_namespace(&namespace, purpose).await?;
        let events = Api::namespaced(cluster.client.clone(), &namespace);
        Ok(Self {
            cluster: cluster.clone(),
            mlflow,
            champion: Alias::observe(cluster, &namespace, "champion"),
            pods: Pods::watch(cluster, &namespace, "champion"),
            audit: Audit::begin(cluster, &namespace),
            events: Watch::start(events, watcher::Config::default()),
            model: namespace.clone(),
            namespace,
        })
    }

    /// Creates a model with `count` versions in the registry, and the RegisteredModel `model` for it.
    pub(crate) async fn registered(&self, count: usize) -> Result<()> {
        self.mlflow.create_model(&self.model).await?;
        for _ in 0..count {
            self.mlflow.register(&self.model).await?;
        }
        self.describe_model("").await
    }

    /// Applies the RegisteredModel `model`; `spec` is YAML, one line for each field.
    pub(crate) async fn describe_model(&self, spec: &str) -> Result<()> {
        let mut manifest: Value = serde_yaml::from_str(&format!(
            "
apiVersion: laurel.dev/v1alpha1
kind: RegisteredModel
metadata: {{name: model}}
spec: {{modelName: {}}}
",
            self.model
        ))?;
        merge(&mut manifest["spec"], serde_yaml::from_str(spec)?);
        self.apply_value(&manifest).await?;
        Ok(())
    }

    /// Applies the default registry of the namespace.
    pub(crate) async fn default_registry(&self, url: &str) -> Result<()> {
        let registry = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ModelRegistry",
            "metadata": { "name": "default", "annotations": { "laurel.dev/default": "true" } },
            "spec": { "mlflow": { "url": url }, "pollInterval": "5s" },
        });
        self.apply(&registry.to_string()).await
    }

    /// Does the same as `kubectl apply --server-side` with a manifest of one or more objects.
    pub(crate) async fn apply(&self, manifest: &str) -> Result<()> {
        for document in serde_yaml::Deserializer::from_str(manifest) {
            self.apply_value(&Value::deserialize(document)?).await?;
        }
        Ok(())
    }

    async fn apply_value(&self, manifest: &Value) -> kube::Result<DynamicObject> {
        let text = |pointer| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, version) =
            text("/apiVersion").split_once('/').unwrap_or_else(|| ("", text("/apiVersion")));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.cluster.client.clone(), &self.namespace, &resource);
        let applied = PatchParams::apply("kubectl").force().validation_strict();
        api.patch(text("/metadata/name"), &applied, &Patch::Apply(manifest)).await
    }

    /// Applies a cluster-scoped object.
    pub(crate) async fn apply_cluster_wide(&self, manifest: &Value) -> Result<()> {
        let text = |pointer| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = text("/apiVersion").split_once('/').unwrap_or_default();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
        let api: Api<DynamicObject> = Api::all_with(self.cluster.client.clone(), &resource);
        let applied = PatchParams::apply("kubectl").force().validation_strict();
        api.patch(text("/metadata/name"), &applied, &Patch::Apply(manifest)).await?;
        Ok(())
    }

    /// Deletes a cluster-scoped object.
    pub(crate) async fn delete_cluster_wide(&self, group: &str, kind: &str, name: &str) -> Result<()> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api: Api<DynamicObject> = Api::all_with(self.cluster.client.clone(), &resource);
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Returns why the API server rejects a manifest, as kubectl shows it.
    pub(crate) async fn error_message(&self, manifest: &Value) -> Result<String> {
        match self.apply_value(manifest).await {
            // A server-side apply with a field of the wrong type returns 500.
            Err(kube::Error::Api(status)) if [400, 422, 500].contains(&status.code) => Ok(status.message),
            Err(error) => Err(error.into()),
            Ok(_) => Err(anyhow!("it was accepted:\n{}", serde_yaml::to_string(manifest)?)),
        }
    }

    /// Returns the manifest of `champion`; `spec` is YAML merged over the default spec, where `null` removes
    /// a field.
    pub(crate) fn manifest(spec: &str) -> Result<Value> {
        let mut manifest: Value = serde_yaml::from_str(CHAMPION)?;
        merge(&mut manifest["spec"], serde_yaml::from_str(spec)?);
        Ok(manifest)
    }

    /// Applies the ModelAlias `champion`, as [`manifest`](Self::manifest) has it.
    pub(crate) async fn desired(&self, spec: &str) -> Result<Change> {
        self.apply_value(&Self::manifest(spec)?).await?;
        self.champion.accepted().await
    }

    /// Applies the ModelAlias, and waits until the desired state is reached.
    pub(crate) async fn get(&self, spec: &str) -> Result<Change> {
        let change = self.desired(spec).await?;
        self.champion.ready(change, PATIENCE).await?;
        Ok(change)
    }

    /// Returns an API for this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// Edits an object by hand, with a JSON merge patch.
    pub(crate) async fn edit<K>(&self, name: &str, patch: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        Ok(self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Sets the retry annotation.
    pub(crate) async fn retry(&self, value: &str) -> Result<()> {
        let annotation = json!({ "metadata": { "annotations": { "laurel.dev/retry": value } } });
        self.edit::<ModelAlias>("champion", annotation).await.map(drop)
    }

    /// kubectl in the namespace.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["-n", self.namespace.as_str()];
        self.cluster.run_kubectl(&[&namespace[..], arguments].concat(), None).await
    }

    /// Returns the version that an alias of the model names in the registry.
    pub(crate) async fn named(&self, alias: &str) -> Result<Option<String>> {
        self.mlflow.alias(&self.model, alias).await
    }

    /// Waits until an alias of the model names a version in the registry; `None` for no version.
    pub(crate) async fn until_named(&self, alias: &str, version: Option<&str>) -> Result<()> {
        let began = Instant::now();
        loop {
            let named = self.named(alias).await?;
            if named.as_deref() == version {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "@{alias} names {named:?} and not {version:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for an Event about the ModelAlias.
    pub(crate) async fn reported(&self, reason: Reason) -> Result<()> {
        self.event(reason.into()).await
    }

    /// The same, for an Event whose reason is not a condition's.
    pub(crate) async fn event(&self, reason: &str) -> Result<()> {
        let wanted = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.involved_object.kind.as_deref() == Some("ModelAlias")
        };
        let what = format!("an Event with reason {reason}");
        self.events.until(&what, PATIENCE, |seen| wanted(&seen.object)).await.map(drop)
    }

    /// Prints diagnostics.
    pub(crate) async fn show(&self) {
        let looks: [&[&str]; 4] = [
            &["get", "laurel", "-o", "wide"],
            &["get", "deployments,pods,services", "-o", "wide", "--show-labels"],
            &["get", "modelaliases", "-o", "jsonpath={.items[*].status}"],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ];
        for look in looks {
            let seen = self.kubectl(look).await.unwrap_or_else(|error| error.to_string());
            println!("--- kubectl -n {} {}\n{seen}", self.namespace, look.join(" "));
        }
    }

    /// Deletes everything. Waits for each ModelAlias; the rest needs no operator.
    pub(crate) async fn clean_up(&self) -> Result<()> {
        let aliases: Api<ModelAlias> = self.api();
        for alias in aliases.list(&ListParams::default()).await? {
            aliases.delete(&alias.name_any(), &DeleteParams::default()).await?;
            self.gone(&aliases, &alias, Duration::from_secs(75)).await?;
        }
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            deleted => Ok(deleted.map(drop)?),
        }
    }

    /// Waits until an object is gone.
    pub(crate) async fn gone<K>(&self, api: &Api<K>, object: &K, deadline: Duration) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
        let gone = await_condition(api.clone(), &name, is_deleted(&uid));
        timeout(deadline, gone).await.with_context(|| format!("{name} is still there"))??;
        Ok(())
    }
}

/// Merges `over` over `base`, object by object; `null` removes.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over,
    }
}
