//! A registry for tests that holds answers back, and fails as a test asks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Capabilities, InputExample, RegisteredModelFacts, Registry, RegistryError, VersionFacts, VersionState,
    limiter::Priority,
    webhook::{DesiredWebhook, WebhookError, WebhookFacts},
};
use crate::api::{
    metric::Metric,
    names::{AliasName, ModelName, Version},
};

/// A registry in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeRegistry(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    models: BTreeMap<ModelName, RegisteredModelFacts>,
    versions: BTreeMap<(ModelName, Version), VersionFacts>,
    held: HashMap<&'static str, VecDeque<Gate>>,
    errors: HashMap<&'static str, RegistryError>,
    broken: BTreeMap<ModelName, RegistryError>,
    calls: Vec<&'static str>,
}

#[derive(Debug)]
struct Gate {
    reached: oneshot::Sender<()>,
    opened: oneshot::Receiver<()>,
}

/// A call whose answer is held back.
pub(crate) struct Held {
    reached: oneshot::Receiver<()>,
    open: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the registry has the answer.
    pub(crate) async fn reached(&mut self) {
        (&mut self.reached).await.unwrap();
    }

    /// Lets the answer go.
    pub(crate) fn release(self) {
        self.open.send(()).unwrap();
    }
}

impl FakeRegistry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn add_model(&self, name: &str) {
        let name: ModelName = name.parse().unwrap();
        let facts = RegisteredModelFacts {
            name: name.clone(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            description: String::new(),
            tags: BTreeMap::new(),
            aliases: BTreeMap::new(),
        };
        self.0.lock().models.insert(name, facts);
    }

    pub(crate) fn describe(&self, name: &str, description: &str) {
        let mut state = self.0.lock();
        description.clone_into(&mut state.models.get_mut(&name.parse().unwrap()).unwrap().description);
    }

    pub(crate) fn point(&self, name: &str, alias: &str, number: u32) {
        let mut state = self.0.lock();
        let model = state.models.get_mut(&name.parse().unwrap()).unwrap();
        model.aliases.insert(alias.parse().unwrap(), Version::new(number).unwrap());
    }

    pub(crate) fn add_version(&self, name: &str, number: u32) {
        let version = Version::new(number).unwrap();
        let facts = VersionFacts {
            version,
            created_at: Timestamp::UNIX_EPOCH,
            state: VersionState::Ready,
            model_uri: format!("models:/{name}/{number}").parse().unwrap(),
            run_id: None,
            description: String::new(),
            tags: BTreeMap::new(),
        };
        self.0.lock().versions.insert((name.parse().unwrap(), version), facts);
    }

    /// Changes when the model or its set of versions was last changed.
    pub(crate) fn touch(&self, name: &str) {
        let mut state = self.0.lock();
        let model = state.models.get_mut(&name.parse().unwrap()).unwrap();
        model.updated_at += jiff::SignedDuration::from_secs(1);
    }

    pub(crate) fn set_state(&self, name: &str, number: u32, version_state: VersionState) {
        let key_of = (name.parse().unwrap(), Version::new(number).unwrap());
        self.0.lock().versions.get_mut(&key_of).unwrap().state = version_state;
    }

    /// Lets a version come from a run.
    pub(crate) fn set_run(&self, name: &str, number: u32, run: &str) {
        let key_of = (name.parse().unwrap(), Version::new(number).unwrap());
        self.0.lock().versions.get_mut(&key_of).unwrap().run_id = Some(run.to_owned());
    }

    pub(crate) fn tag(&self, name: &str, number: u32, key: &str, value: &str) {
        let key_of = (name.parse().unwrap(), Version::new(number).unwrap());
        let mut state = self.0.lock();
        state.versions.get_mut(&key_of).unwrap().tags.insert(key.to_owned(), value.to_owned());
    }

    /// Holds the answer to the next call of a method back.
    pub(crate) fn hold(&self, method: &'static str) -> Held {
        let ((reached, is_reached), (open, opened)) = (oneshot::channel(), oneshot::channel());
        self.0.lock().held.entry(method).or_default().push_back(Gate { reached, opened });
        Held { reached: is_reached, open }
    }

    /// Lets every call of a method fail, or none any more.
    pub(crate) fn fail(&self, method: &'static str, error: Option<RegistryError>) {
        let errors = &mut self.0.lock().errors;
        match error {
            Some(error) => drop(errors.insert(method, error)),
            None => drop(errors.remove(method)),
        }
    }

    /// Lets every request that names a model fail, alone or in a batch.
    pub(crate) fn break_model(&self, name: &str, error: Option<RegistryError>) {
        let broken = &mut self.0.lock().broken;
        match error {
            Some(error) => drop(broken.insert(name.parse().unwrap(), error)),
            None => drop(broken.remove(&name.parse().unwrap())),
        }
    }

    /// Returns how often a method was called.
    pub(crate) fn calls(&self, method: &str) -> usize {
        self.0.lock().calls.iter().filter(|call| **call == method).count()
    }

    async fn answer<T>(
        &self,
        method: &'static str,
        about: impl IntoIterator<Item = &ModelName>,
        answer: impl FnOnce(&mut State) -> T,
    ) -> Result<T, RegistryError> {
        let (answer, gate) = {
            let mut state = self.0.lock();
            state.calls.push(method);
            let broken = about.into_iter().find_map(|name| state.broken.get(name).cloned());
            let error = state.errors.get(method).cloned().or(broken);
            let answer = error.map_or_else(|| Ok(answer(&mut state)), Err);
            (answer, state.held.get_mut(method).and_then(VecDeque::pop_front))
        };
        if let Some(gate) = gate {
            gate.reached.send(()).unwrap();
            gate.opened.await.unwrap();
        }
        answer
    }
}

#[async_trait]
impl Registry for FakeRegistry {
    fn with_priority(self: Arc<Self>, _: Priority) -> Arc<dyn Registry> {
        self
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { aliases: true, batch_listing: true, tags: true, metrics: true }
    }

    async fn probe(&self) -> Result<Option<String>, RegistryError> {
        self.answer("probe", [], |_| Some("3.0".to_owned())).await
    }

    async fn models(
        &self,
        names: &BTreeSet<ModelName>,
    ) -> Result<BTreeMap<ModelName, RegisteredModelFacts>, RegistryError> {
        let known = |state: &mut State| {
            let models = state.models.iter().filter(|(name, _)| names.contains(*name));
            models.map(|(name, facts)| (name.clone(), facts.clone())).collect()
        };
        self.answer("models", names, known).await
    }

    async fn model(&self, name: &ModelName) -> Result<Option<RegisteredModelFacts>, RegistryError> {
        self.answer("model", [name], |state| state.models.get(name).cloned()).await
    }

    async fn version(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionFacts>, RegistryError> {
        self.answer("version", [name], |state| state.versions.get(&(name.clone(), version)).cloned()).await
    }

    async fn newest_versions(
        &self,
        name: &ModelName,
        limit: usize,
    ) -> Result<Vec<VersionFacts>, RegistryError> {
        let newest = |state: &mut State| {
            let versions = state.versions.iter().rev().filter(|((of, _), _)| of == name);
            versions.map(|(_, facts)| facts.clone()).take(limit).collect()
        };
        self.answer("newest_versions", [name], newest).await
    }

    async fn newest_versions_of(
        &self,
        names: &BTreeSet<ModelName>,
        _: usize,
    ) -> Result<BTreeMap<ModelName, Vec<VersionFacts>>, RegistryError> {
        let newest = |state: &mut State| {
            let mut found = BTreeMap::<ModelName, Vec<VersionFacts>>::new();
            for ((name, _), facts) in
                state.versions.iter().rev().filter(|((name, _), _)| names.contains(name))
            {
                found.entry(name.clone()).or_default().push(facts.clone());
            }
            found
        };
        self.answer("newest_versions_of", names, newest).await
    }

    async fn metrics(&self, _: &str) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
        self.answer("metrics", [], |_| None).await
    }

    async fn logged_model_metrics(
        &self,
        _: &str,
        _: &BTreeMap<String, Metric>,
    ) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
        self.answer("logged_model_metrics", [], |_| None).await
    }

    async fn input_example(
        &self,
        name: &ModelName,
        _: Version,
        _: usize,
    ) -> Result<Option<InputExample>, RegistryError> {
        self.answer("input_example", [name], |_| None).await
    }

    async fn create_model(
        &self,
        name: &ModelName,
        _: &str,
        _: &BTreeMap<String, String>,
    ) -> Result<(), RegistryError> {
        self.answer("create_model", [name], |_| ()).await
    }

    async fn set_description(&self, name: &ModelName, _: &str) -> Result<(), RegistryError> {
        self.answer("set_description", [name], |_| ()).await
    }

    async fn set_model_tag(&self, name: &ModelName, _: &str, _: &str) -> Result<(), RegistryError> {
        self.answer("set_model_tag", [name], |_| ()).await
    }

    async fn delete_model_tag(&self, name: &ModelName, _: &str) -> Result<(), RegistryError> {
        self.answer("delete_model_tag", [name], |_| ()).await
    }

    async fn set_version_tag(
        &self,
        name: &ModelName,
        _: Version,
        _: &str,
        _: &str,
    ) -> Result<(), RegistryError> {
        self.answer("set_version_tag", [name], |_| ()).await
    }

    async fn delete_version_tag(&self, name: &ModelName, _: Version, _: &str) -> Result<(), RegistryError> {
        self.answer("delete_version_tag", [name], |_| ()).await
    }

    async fn delete_model(&self, name: &ModelName) -> Result<(), RegistryError> {
        self.answer("delete_model", [name], |state| drop(state.models.remove(name))).await
    }

    async fn set_alias(
        &self,
        name: &ModelName,
        alias: &AliasName,
        version: Version,
    ) -> Result<(), RegistryError> {
        let set = |state: &mut State| {
            if let Some(model) = state.models.get_mut(name) {
                model.aliases.insert(alias.clone(), version);
            }
        };
        self.answer("set_alias", [name], set).await
    }

    async fn delete_alias(&self, name: &ModelName, alias: &AliasName) -> Result<(), RegistryError> {
        let delete = |state: &mut State| {
            if let Some(model) = state.models.get_mut(name) {
                model.aliases.remove(alias);
            }
        };
        self.answer("delete_alias", [name], delete).await
    }

    async fn webhooks(&self) -> Result<Vec<WebhookFacts>, WebhookError> {
        Ok(Vec::new())
    }

    async fn create_webhook(&self, _: &DesiredWebhook) -> Result<String, WebhookError> {
        Ok("1".to_owned())
    }

    async fn update_webhook(&self, _: &str, _: &DesiredWebhook) -> Result<(), WebhookError> {
        Ok(())
    }

    async fn delete_webhook(&self, _: &str) -> Result<(), WebhookError> {
        Ok(())
    }

    async fn test_webhook(&self, _: &str) -> Result<Result<(), String>, WebhookError> {
        Ok(Ok(()))
    }
}
