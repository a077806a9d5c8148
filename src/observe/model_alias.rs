//! Brings together what a decision about one ModelAlias is made from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};

use super::{
    candidates::{candidates, follower},
    evidence,
};
use crate::{
    api::{
        CHANGED_BY_ANNOTATION, COMMIT_ANNOTATION, DeletionPolicy, ModelAlias, ModelAliasStatus,
        RETRY_ANNOTATION, RegisteredModel,
        condition::{Note, Reason, shortened},
        model_alias::{Rollout, Runtime, Serving, SmokeTest, Strategy},
        names::{AliasName, ModelName, Version},
        promotion::PromotionRule,
        std_duration,
    },
    cluster::{Guarded, cache::AliasKey, finalizer},
    controllers::context::Context,
    decide::{
        AliasRole, Choice, Intent, Lifecycle, Observed, OnUnavailable, RegistryView, ServingIntent,
        SmokeTestIntent, StrategyIntent, VersionView, Wish, choose,
    },
    registry::{
        VersionFacts, VersionState,
        polled::{Handle, ModelView, RegistryKey},
    },
    render::{self, Rendering},
};

/// An observation, and what is needed to act on it.
#[derive(Debug)]
pub struct Observation {
    /// What a decision may know.
    pub observed: Observed,
    /// The model and its registry, where both are known.
    pub model: Option<Model>,
}

/// A model in its registry.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name there.
    pub name: ModelName,
    /// The registry.
    pub registry: Arc<Handle>,
    /// The rules for promoting its versions.
    pub promotion: Vec<PromotionRule>,
}

/// Names the ModelAlias.
#[must_use]
pub fn key(alias: &ModelAlias) -> AliasKey {
    (alias.namespace().unwrap_or_default(), alias.name_any())
}

/// Observes everything about `alias`.
pub async fn observe(context: &Context, alias: &ModelAlias, now: Timestamp) -> Observation {
    let resolved = resolve(context, alias).or_else(|note| remembered(context, alias).ok_or(note));
    context.memory.remember_model(alias, resolved.as_ref().ok());
    let obstacle = context.readiness.blind().or_else(|| match &resolved {
        Err(note) => Some(note.clone()),
        Ok(model) => obstacle(context, alias, model),
    });
    let record = context.memory.latest_status(alias);
    let model = resolved.ok();
    let registry = match &model {
        Some(model) => registry_view(context, alias, model, &record).await,
        None => RegistryView { trouble: obstacle.clone(), ..RegistryView::default() },
    };
    let key = key(alias);
    let port = alias.spec.serving.as_ref().map(|serving| i32::from(serving.port));
    let smoke = |version| context.smoke.of(alias.uid().as_deref().unwrap_or_default(), version);
    let mut intent = intent(alias, model.as_ref(), obstacle);
    if let Lifecycle::Deleting { since } = &mut intent.lifecycle {
        *since = context.memory.deleting_since(alias, now);
    }
    if !context.trusts_changed_by {
        intent.changed_by = None;
    }
    let cluster = context.cluster.view(&key, port, smoke);
    let outbox = context.records.outbox(alias, &record);
    let mut observed = Observed { now, intent, registry, cluster, outbox, record };
    if let Some(model) = &model {
        evidence::gather(&mut observed, model).await;
    }
    Observation { observed, model }
}

/// Follows `modelRef` and `registryRef`.
fn resolve(context: &Context, alias: &ModelAlias) -> Result<Model, Note> {
    let (namespace, name) = (alias.namespace().unwrap_or_default(), &alias.spec.model_ref.name);
    let reference = ObjectRef::<Guarded<RegisteredModel>>::new(name).within(&namespace);
    let model = context.models.get(&reference).ok_or_else(|| {
        Note::new(
            Reason::RegisteredModelNotFound,
            format!("spec.modelRef: there is no RegisteredModel {name:?} in the namespace {namespace:?}; create it"),
        )
    })?;
    let model = model.0.as_ref().map_err(|error| {
        Note::new(
            Reason::RegisteredModelNotFound,
            format!("the RegisteredModel {name:?} cannot be read: {error}"),
        )
    })?;
    let registry = registry_of(context, model)?;
    let name = model.model_name().map_err(|error| Note::new(Reason::ModelNotFound, error.to_string()))?;
    Ok(Model { name, registry, promotion: model.spec.promotion.clone() })
}

/// What `modelRef` led to before, for an alias that is being deleted: with its namespace, the objects it refers to may be
/// gone first.
fn remembered(context: &Context, alias: &ModelAlias) -> Option<Model> {
    alias.metadata.deletion_timestamp.as_ref().and_then(|_| context.memory.model(alias))
}

/// The registry that a RegisteredModel names, or the one that Laurel was installed with.
///
/// # Errors
/// When there is none of that name, or no default.
pub fn registry_of(context: &Context, model: &RegisteredModel) -> Result<Arc<Handle>, Note> {
    let namespace = model.namespace().unwrap_or_default();
    let key = registry_key(model);
    context.registries.get(&key).ok_or_else(|| match key {
        RegistryKey::Default => Note::new(
            Reason::RegistryNotConfigured,
            format!(
                "the RegisteredModel {:?} names no registry and Laurel was installed without registry.url; create a \
                 ModelRegistry and set spec.registryRef",
                model.name_any()
            ),
        ),
        RegistryKey::Object { name, .. } => Note::new(
            Reason::ModelRegistryNotFound,
            format!(
                "spec.registryRef of the RegisteredModel {:?}: there is no usable ModelRegistry {name:?} in the namespace \
                 {namespace:?}; create it, or see its conditions",
                model.name_any()
            ),
        ),
    })
}

/// The key of the registry that a RegisteredModel names.
#[must_use]
pub fn registry_key(model: &RegisteredModel) -> RegistryKey {
    match &model.spec.registry_ref {
        Some(reference) => RegistryKey::Object {
            namespace: model.namespace().unwrap_or_default(),
            name: reference.name.clone(),
        },
        None => RegistryKey::Default,
    }
}

/// What forbids any action at all.
fn obstacle(context: &Context, alias: &ModelAlias, model: &Model) -> Option<Note> {
    if !model.registry.client().map_or(true, |client| client.capabilities().aliases) {
        return Some(Note::new(
            Reason::RegistryUnsupported,
            "this registry has no aliases, which a ModelAlias needs",
        ));
    }
    let claimed = older_claim(context, alias, model)
        .or_else(|| other_model(&context.memory.latest_status(alias), model));
    if claimed.is_some() {
        return claimed;
    }
    if let Some(foreign) = context.cluster.foreign(&key(alias), &alias.uid().unwrap_or_default()) {
        let message = format!(
            "the {foreign} has our label but belongs to another object; delete it, or rename this ModelAlias"
        );
        return Some(Note::new(Reason::NameTaken, message));
    }
    let fault = with_rendering(alias, model, |rendering| render::validate(rendering).err()).flatten()?;
    Some(Note::new(Reason::InvalidTemplate, format!("spec.{fault}")))
}

/// Another ModelAlias that claimed one of this one's two aliases, of the same model in the same registry, before it.
fn older_claim(context: &Context, alias: &ModelAlias, model: &Model) -> Option<Note> {
    let age = |alias: &ModelAlias| (alias.creation_timestamp().map(|time| time.0), alias.uid());
    let ours = (model.registry.identity(), &model.name);
    let claims = |alias: &ModelAlias| [Some(alias.spec.alias.clone()), alias.spec.previous_alias.clone()];
    let wanted = claims(alias);
    context.aliases.state().iter().filter_map(|other| other.0.as_ref().ok()).find_map(|other| {
        let shared = claims(other).into_iter().flatten().find(|claim| wanted.contains(&Some(claim.clone())))?;
        let is_older = other.uid() != alias.uid() && age(other) < age(alias);
        let is_same = || {
            // Where what it refers to is gone for now, it keeps what it had.
            let known = || other.status.as_ref().and_then(|status| status.model_name.clone());
            resolve(context, other).map_or_else(
                |_| known().as_deref() == Some(model.name.as_str()),
                |theirs| (theirs.registry.identity(), &theirs.name) == ours,
            )
        };
        let field = if shared == alias.spec.alias { "spec.alias" } else { "spec.previousAlias" };
        (is_older && is_same()).then(|| {
            let message = format!(
                "{field}: the alias {:?} of the model {:?} belongs to the older ModelAlias {}/{}; name another alias, or delete \
                 one of the two",
                shared.as_str(),
                model.name.as_str(),
                other.namespace().unwrap_or_default(),
                other.name_any()
            );
            Note::new(Reason::Conflict, message)
        })
    })
}

/// That the RegisteredModel names another model than the one that this alias has served.
fn other_model(record: &ModelAliasStatus, model: &Model) -> Option<Note> {
    let before = record
        .model_name
        .as_ref()
        .filter(|before| record.version.is_some() && **before != model.name.as_str())?;
    let message = format!(
        "spec.modelRef leads to the model {:?} now, but this ModelAlias serves the model {before:?}: its RegisteredModel was \
         made anew with another modelName; name {before:?} there again, or delete this ModelAlias",
        model.name.as_str()
    );
    Some(Note::new(Reason::VersionReplaced, message))
}

/// Calls `use_it` with everything that this alias's objects are rendered from; `None` without `spec.serving`.
pub fn with_rendering<T>(
    alias: &ModelAlias,
    model: &Model,
    use_it: impl FnOnce(&Rendering) -> T,
) -> Option<T> {
    let serving = alias.spec.serving.as_ref()?;
    let owner = alias.controller_owner_ref(&())?;
    let (name, namespace) = (alias.name_any(), alias.namespace()?);
    let rendering = Rendering {
        name: &name,
        namespace: &namespace,
        owner,
        model: &model.name,
        alias: &alias.spec.alias,
        serving,
        registry: &model.registry.settings.pods,
    };
    Some(use_it(&rendering))
}

/// What is wished, checked and with its references followed.
pub(crate) fn intent(alias: &ModelAlias, model: Option<&Model>, obstacle: Option<Note>) -> Intent {
    let spec = &alias.spec;
    let lifecycle = match &alias.metadata.deletion_timestamp {
        Some(since) => Lifecycle::Deleting { since: since.0 },
        None if spec.suspend => Lifecycle::Suspended,
        None => Lifecycle::Active,
    };
    Intent {
        wish: match (spec.version, follower(spec)) {
            (Some(version), _) => Wish::Version(version),
            (None, Some(follower)) => Wish::Chosen(follower),
            (None, None) => Wish::Registry,
        },
        serving: model.and_then(|model| serving_intent(alias, model)),
        keeps_previous_alias: spec.previous_alias.is_some(),
        drift: spec.drift,
        lifecycle,
        deletes_alias: spec.deletion_policy == DeletionPolicy::Delete,
        has_finalizer: finalizer::is_set(&alias.metadata, finalizer::REGISTRY_ALIAS),
        rules: model.map_or_else(Vec::new, |model| rules_for(&model.promotion, &spec.alias)),
        retry: alias.annotations().get(RETRY_ANNOTATION).cloned(),
        changed_by: said(alias, CHANGED_BY_ANNOTATION),
        commit: said(alias, COMMIT_ANNOTATION),
        obstacle,
    }
}

/// What an annotation says, if it says anything; one line, and not too long for a status.
fn said(alias: &ModelAlias, annotation: &str) -> Option<String> {
    const MAX: usize = 250;
    let text = alias.annotations().get(annotation)?.trim();
    let line: String = text.chars().map(|each| if each.is_control() { ' ' } else { each }).collect();
    (!line.is_empty()).then(|| shortened(&line, MAX))
}

/// The promotion rules for an alias.
pub(crate) fn rules_for(promotion: &[PromotionRule], alias: &AliasName) -> Vec<PromotionRule> {
    promotion.iter().filter(|rule| rule.aliases.contains(alias)).cloned().collect()
}

fn serving_intent(alias: &ModelAlias, model: &Model) -> Option<ServingIntent> {
    let serving = alias.spec.serving.as_ref()?;
    let rollout = &alias.spec.rollout;
    let settings = with_rendering(alias, model, |rendering| render::settings(rendering).as_str().to_owned())?;
    let signed = |duration| SignedDuration::try_from(std_duration(duration)).unwrap_or(SignedDuration::MAX);
    Some(ServingIntent {
        replicas: serving.replicas,
        settings,
        strategy: match rollout.strategy {
            Strategy::BlueGreen => StrategyIntent::BlueGreen,
            Strategy::Rolling => StrategyIntent::Rolling { max_surge: rollout.max_surge.unwrap_or(1) },
        },
        progress_deadline: signed(rollout.progress_deadline),
        warm_for: signed(rollout.warm_for),
        history: rollout.history as usize,
        smoke_test: smoke_test_intent(serving, rollout),
    })
}

/// How long a smoke test's answer may take at least, as MLflow's scoring server does by itself.
const SMOKE_TEST_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);

fn smoke_test_intent(serving: &Serving, rollout: &Rollout) -> SmokeTestIntent {
    let default =
        if serving.runtime == Runtime::Custom { SmokeTest::Disabled } else { SmokeTest::InputExample };
    SmokeTestIntent {
        is_enabled: rollout.smoke_test.unwrap_or(default) == SmokeTest::InputExample,
        timeout: server_timeout(serving).map_or(SMOKE_TEST_TIMEOUT, |set| set.max(SMOKE_TEST_TIMEOUT)),
        on_unavailable: OnUnavailable::Wait,
    }
}

/// How long the model server may work on a request, where `spec.serving.env` sets it.
fn server_timeout(serving: &Serving) -> Option<SignedDuration> {
    /// In seconds.
    const VARIABLE: &str = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT";
    let set = serving.env.iter().rev().find(|variable| variable.name == VARIABLE)?;
    let seconds: u32 = set.value.as_deref()?.trim().parse().ok()?;
    Some(SignedDuration::from_secs(seconds.into()))
}

/// What the registry says of the aliases and of every version that matters now.
async fn registry_view(
    context: &Context,
    alias: &ModelAlias,
    model: &Model,
    record: &ModelAliasStatus,
) -> RegistryView {
    let facts = match model.registry.model(&model.name) {
        ModelView::Unknown(trouble) => {
            return RegistryView { trouble: Some(trouble), ..RegistryView::default() };
        }
        ModelView::Absent => {
            let message = format!(
                "the model {:?} does not exist in the registry; its RegisteredModel creates it, or see that object's conditions",
                model.name.as_str()
            );
            return RegistryView {
                trouble: Some(Note::new(Reason::ModelNotFound, message)),
                ..RegistryView::default()
            };
        }
        ModelView::Present(facts) => facts,
    };
    let spec = &alias.spec;
    let named = facts.aliases.get(&spec.alias).copied();
    let follower = follower(spec);
    let candidates = follower.as_ref().map(|follower| candidates(follower, model)).unwrap_or_default();
    let wished = match follower.map(|follower| choose(&follower, &candidates)) {
        Some(Choice::Version(version)) => Some(version),
        Some(Choice::Unknown(_)) => record.target_version,
        Some(Choice::Nobody(_)) => None,
        None => spec.version.or(named),
    };
    let wanted: BTreeSet<Version> =
        [wished, named, record.version, record.previous_version].into_iter().flatten().collect();
    let is_pinned =
        |version| record.versions.iter().any(|held| held.version == version && held.model_uri.is_some());
    let awaited = wished.filter(|version| !is_pinned(*version));
    let answers = join_all(wanted.into_iter().map(async |version| {
        Some((version, ask(context, alias, model, version, awaited == Some(version)).await?))
    }));
    let versions = answers.await.into_iter().flatten().collect();
    RegistryView {
        trouble: None,
        alias: named,
        previous_alias: spec.previous_alias.as_ref().and_then(|alias| facts.aliases.get(alias).copied()),
        versions,
        candidates,
        aliases: BTreeMap::new(),
        evidence: BTreeMap::new(),
        written: context.alias_writes.last_written(alias, AliasRole::Main),
        previous_written: context.alias_writes.last_written(alias, AliasRole::Previous),
    }
}

/// What the registry says of a version, from memory where it is remembered. Only a version that cannot be started without
/// an answer is waited for; the others are read beside the pass, and wake it.
async fn ask(
    context: &Context,
    alias: &ModelAlias,
    model: &Model,
    version: Version,
    wait: bool,
) -> Option<VersionView> {
    if let Some(known) = model.registry.remembered_version(&model.name, version) {
        return Some(version_view(known));
    }
    if wait {
        return Some(match model.registry.read_version(&model.name, version).await {
            Ok(said) => version_view(said),
            Err(note) => VersionView::Unread(note),
        });
    }
    let (model, wakeups, key) = (model.clone(), context.wakeups.clone(), key(alias));
    tokio::spawn(async move {
        let answered = model.registry.read_version(&model.name, version).await.is_ok();
        if answered && model.registry.remembered_version(&model.name, version).is_some() {
            wakeups.alias(&key);
        }
    });
    None
}

fn version_view(said: Option<VersionFacts>) -> VersionView {
    match said {
        None => VersionView::Absent,
        Some(facts) => match facts.state {
            VersionState::Pending => VersionView::Pending,
            VersionState::Failed => VersionView::Failed,
            VersionState::Ready => VersionView::Ready { model_uri: facts.model_uri },
        },
    }
}
