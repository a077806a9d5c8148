//! The registry of a RegisteredModel: the one that it names, or the default.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    ResourceExt,
    core::{PartialObjectMeta, Selector, SelectorExt},
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::{
        ClusterModelRegistry, DEFAULT_ANNOTATION, ModelRegistry, RegisteredModel, RegistryKind,
        RegistryReference,
        condition::{Reason, ReasonMessage},
    },
    cluster::Guarded,
    registry::polled::RegistryKey,
    resolve::index::Index,
};

/// The objects that describe registries, as the watches show them.
#[derive(Clone, Debug)]
pub struct RegistryObjects {
    /// Who refers to them, and which are defaults.
    pub index: Arc<Index>,
    /// All `ModelRegistries`.
    pub namespaced: Store<Guarded<ModelRegistry>>,
    /// Those of the whole cluster; `None` if Laurel watches one namespace only.
    pub cluster: Option<ClusterObjects>,
}

/// The `ClusterModelRegistries`, and the namespaces.
#[derive(Clone, Debug)]
pub struct ClusterObjects {
    /// All `ClusterModelRegistries`.
    pub registries: Store<Guarded<ClusterModelRegistry>>,
    /// All namespaces, with their labels.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl RegistryObjects {
    /// The registry that a RegisteredModel uses.
    ///
    /// # Errors
    /// When it names none and there is no default, or may not use the one that it names.
    pub fn key(&self, model: &RegisteredModel) -> Result<RegistryKey, ReasonMessage> {
        let namespace = model.namespace().unwrap_or_default();
        match &model.spec.registry_ref {
            Some(RegistryReference { kind: RegistryKind::ModelRegistry, name }) => {
                Ok(RegistryKey::Object { namespace, name: name.clone() })
            }
            Some(RegistryReference { kind: RegistryKind::ClusterModelRegistry, name }) => {
                self.named_in_cluster(&namespace, name)
            }
            None => self.index.default_of(&namespace).ok_or_else(|| self.no_default(model, &namespace)),
        }
    }

    fn named_in_cluster(&self, namespace: &str, name: &str) -> Result<RegistryKey, ReasonMessage> {
        let Some(cluster) = &self.cluster else {
            let message = format!(
                "spec.registryRef names the ClusterModelRegistry {name:?}, but this Laurel is installed for \
                 one namespace and reads no ClusterModelRegistries; name a ModelRegistry"
            );
            return Err(ReasonMessage::new(Reason::RegistryNotAllowed, message));
        };
        let object = cluster.registries.get(&ObjectRef::new(name));
        match object.map(|object| cluster.allows(&object, namespace)) {
            Some(Err(why)) => Err(ReasonMessage::new(Reason::RegistryNotAllowed, why)),
            Some(Ok(())) | None => Ok(RegistryKey::Cluster { name: name.to_owned() }),
        }
    }

    fn no_default(&self, model: &RegisteredModel, namespace: &str) -> ReasonMessage {
        let name = model.name_any();
        if let Some(closed) = self.index.defaults(None).last() {
            let closed = closed.object().1;
            let message = format!(
                "the RegisteredModel {name:?} names no registry, and the default ClusterModelRegistry {closed:?} \
                 does not allow the namespace {namespace:?} (spec.allowedNamespaces); label the namespace, \
                 or set spec.registryRef"
            );
            return ReasonMessage::new(Reason::RegistryNotAllowed, message);
        }
        let message = format!(
            "the RegisteredModel {name:?} names no registry, and there is no default; set spec.registryRef, \
             or set the annotation {DEFAULT_ANNOTATION}: \"true\" on a ModelRegistry of the namespace \
             {namespace:?} or on a ClusterModelRegistry"
        );
        ReasonMessage::new(Reason::RegistryNotConfigured, message)
    }

    /// Whether the object of this registry exists.
    #[must_use]
    pub fn exists(&self, key: &RegistryKey) -> bool {
        match key {
            RegistryKey::Object { namespace, name } => {
                self.namespaced.get(&ObjectRef::new(name).within(namespace)).is_some()
            }
            RegistryKey::Cluster { name } => {
                let cluster = self.cluster.as_ref();
                cluster.is_some_and(|cluster| cluster.registries.get(&ObjectRef::new(name)).is_some())
            }
        }
    }

    /// Returns the default that overrides this one: a newer one in the same namespace, or in the cluster.
    #[must_use]
    pub fn newer_default(&self, key: &RegistryKey) -> Option<String> {
        let chosen = self.index.defaults(key.namespace()).pop()?;
        (chosen != *key).then(|| chosen.object().1.to_owned())
    }

    /// Returns the other defaults, whose conditions depend on this one.
    #[must_use]
    pub fn defaults_beside(&self, key: &RegistryKey) -> Vec<RegistryKey> {
        let mut others = self.index.defaults(key.namespace());
        others.retain(|other| other != key);
        others.sort();
        others
    }
}

impl ClusterObjects {
    /// Checks that a namespace may use a registry. One that cannot be parsed denies nothing: it is not usable
    /// anyway.
    fn allows(&self, object: &Guarded<ClusterModelRegistry>, namespace: &str) -> Result<(), String> {
        let Ok(object) = &object.0 else { return Ok(()) };
        let Some(allowed) = &object.spec.allowed_namespaces else { return Ok(()) };
        let name = object.name_any();
        let selector = Selector::try_from(allowed.selector.clone()).map_err(|error| {
            format!(
                "the ClusterModelRegistry {name:?} allows no namespace: spec.allowedNamespaces.selector: \
                 {error}"
            )
        })?;
        let labels = self.namespaces.get(&ObjectRef::new(namespace)).map(|it| it.labels().clone());
        if selector.matches(&labels.unwrap_or_default()) {
            return Ok(());
        }
        Err(format!(
            "the ClusterModelRegistry {name:?} does not allow the namespace {namespace:?} \
             (spec.allowedNamespaces); label the namespace, or name another registry"
        ))
    }
}

/// Whether an object is marked as the default.
#[must_use]
pub fn is_default(object: &impl ResourceExt) -> bool {
    object.annotations().get(DEFAULT_ANNOTATION).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use kube::{
        Resource,
        runtime::{reflector, watcher::Event},
    };
    use serde::de::DeserializeOwned;

    use super::*;

    fn store<K>(objects: &[impl AsRef<str>]) -> Store<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + 'static,
    {
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        for object in objects {
            writer.apply_watcher_event(&Event::InitApply(serde_yaml::from_str(object.as_ref()).unwrap()));
        }
        writer.apply_watcher_event(&Event::InitDone);
        store
    }

    const AT: [&str; 3] = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"];

    fn registry(kind: &str, place: &str, name: &str, age: usize, marked: &str, rest: &str) -> String {
        let at = AT[age];
        format!(
            "{{apiVersion: laurel.dev/v1alpha1, kind: {kind}, metadata: {{{place} name: {name}, \
             creationTimestamp: '{at}', annotations: {{laurel.dev/default: '{marked}'}}}}, spec: {{mlflow: \
             {{url: 'http://{name}'}}{rest}}}}}"
        )
    }

    fn own(name: &str, age: usize, marked: &str) -> String {
        registry("ModelRegistry", "namespace: risk,", name, age, marked, "")
    }

    fn shared(name: &str, age: usize, marked: &str, rest: &str) -> String {
        registry("ClusterModelRegistry", "", name, age, marked, rest)
    }

    fn parsed<K: DeserializeOwned>(object: &str) -> K {
        serde_yaml::from_str(object).unwrap()
    }

    fn objects(own: &[String], shared: &[String]) -> RegistryObjects {
        const NAMESPACES: [&str; 2] =
            ["{metadata: {name: risk, labels: {mlops: 'yes'}}}", "{metadata: {name: play, labels: {}}}"];
        let index = Index::default();
        for object in own {
            index.registry_event(&Event::Apply(parsed::<Guarded<ModelRegistry>>(object)));
        }
        for object in shared {
            index.registry_event(&Event::Apply(parsed::<Guarded<ClusterModelRegistry>>(object)));
        }
        for object in NAMESPACES {
            index.namespace_event(&Event::Apply(parsed(object)));
        }
        RegistryObjects {
            index: Arc::new(index),
            namespaced: store(own),
            cluster: Some(ClusterObjects { registries: store(shared), namespaces: store(&NAMESPACES) }),
        }
    }

    fn model(namespace: &str, spec: &str) -> RegisteredModel {
        let model = format!("{{metadata: {{name: fraud, namespace: {namespace}}}, spec: {spec}}}");
        serde_yaml::from_str(&model).unwrap()
    }

    fn key(objects: &RegistryObjects, namespace: &str, spec: &str) -> Result<String, Reason> {
        let key = objects.key(&model(namespace, spec));
        key.map(|key| key.to_string()).map_err(|cause| cause.reason)
    }

    #[test]
    fn a_reference_names_one_of_either_kind() {
        let objects = objects(&[own("mlflow", 0, "true")], &[shared("mlflow", 0, "true", "")]);
        let of = |spec| key(&objects, "risk", spec).unwrap();
        assert_eq!(of("{registryRef: {name: mlflow}}"), "ModelRegistry risk/mlflow");
        assert_eq!(of("{registryRef: {kind: ModelRegistry, name: other}}"), "ModelRegistry risk/other");
        assert_eq!(
            of("{registryRef: {kind: ClusterModelRegistry, name: mlflow}}"),
            "ClusterModelRegistry mlflow"
        );
    }

    #[test]
    fn the_default_is_the_namespace_s_own_then_the_cluster_s() {
        let both = objects(&[own("near", 0, "true")], &[shared("far", 1, "true", "")]);
        assert_eq!(key(&both, "risk", "{}").unwrap(), "ModelRegistry risk/near");
        assert_eq!(key(&both, "play", "{}").unwrap(), "ClusterModelRegistry far");
        let unmarked = objects(&[own("near", 0, "false")], &[shared("far", 1, "yes", "")]);
        assert_eq!(key(&unmarked, "risk", "{}"), Err(Reason::RegistryNotConfigured));
    }

    #[test]
    fn the_newest_default_is_used_and_ties_go_to_the_first_by_name() {
        let two = objects(&[own("a", 1, "true"), own("b", 2, "true"), own("c", 0, "true")], &[]);
        assert_eq!(key(&two, "risk", "{}").unwrap(), "ModelRegistry risk/b");
        let known = |name: &str| RegistryKey::Object { namespace: "risk".into(), name: name.into() };
        assert_eq!(two.newer_default(&known("a")).as_deref(), Some("b"));
        assert_eq!(two.newer_default(&known("b")), None);
        assert_eq!(two.defaults_beside(&known("b")), [known("a"), known("c")]);
        let twins = objects(&[], &[shared("b", 1, "true", ""), shared("a", 1, "true", "")]);
        assert_eq!(key(&twins, "play", "{}").unwrap(), "ClusterModelRegistry a");
    }

    #[test]
    fn a_namespace_uses_only_registries_that_allow_it() {
        let only = ", allowedNamespaces: {selector: {matchLabels: {mlops: 'yes'}}}";
        let all = ", allowedNamespaces: {selector: {}}";
        let closed = objects(&[], &[shared("mlflow", 0, "true", only)]);
        let named = "{registryRef: {kind: ClusterModelRegistry, name: mlflow}}";
        assert_eq!(key(&closed, "risk", named).unwrap(), "ClusterModelRegistry mlflow");
        assert_eq!(key(&closed, "risk", "{}").unwrap(), "ClusterModelRegistry mlflow");
        assert_eq!(key(&closed, "play", named), Err(Reason::RegistryNotAllowed));
        assert_eq!(key(&closed, "play", "{}"), Err(Reason::RegistryNotAllowed));
        let open = objects(&[], &[shared("mlflow", 0, "true", only), shared("old", 0, "true", all)]);
        assert_eq!(key(&open, "play", "{}").unwrap(), "ClusterModelRegistry old");
    }

    #[test]
    fn laurel_for_one_namespace_uses_no_cluster_registry() {
        let mut objects = objects(&[], &[]);
        objects.cluster = None;
        let named = "{registryRef: {kind: ClusterModelRegistry, name: mlflow}}";
        assert_eq!(key(&objects, "risk", named), Err(Reason::RegistryNotAllowed));
        assert_eq!(key(&objects, "risk", "{}"), Err(Reason::RegistryNotConfigured));
    }
}
