//! Observes one ModelExperiment: its `ModelAliases`, their versions and shares, and what was counted of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::{
        ModelAlias, ModelAliasStatus, ModelExperiment,
        condition::{ConditionType, Reason, ReasonMessage, condition},
        model_alias::AliasKey,
        names::{AliasName, ModelUri, Version},
    },
    cluster::Guarded,
    decide::experiment::{ChallengerArm, ChampionArm, Contest, ExperimentObserved},
    resolve::{Model, References},
    state::{
        Memory,
        counted::{Source, Wanted},
        experiments::{Experiments, Request},
    },
};

/// The part of the context that an observation of a ModelExperiment needs.
#[derive(Clone, Copy)]
pub struct ExperimentSources<'a> {
    /// All `ModelAliases`.
    pub aliases: &'a Store<Guarded<ModelAlias>>,
    /// Where references lead.
    pub references: References<'a>,
    /// What this process remembers of single objects.
    pub memory: &'a Memory,
    /// What was counted.
    pub experiments: &'a Experiments,
}

/// The observation of a ModelExperiment, and what a reconcile needs beside it.
pub struct ExperimentObservation {
    /// The input of the decision.
    pub observed: ExperimentObserved,
    /// Where the verdicts go: each ModelAlias's model in its registry, and its alias there.
    pub places: Places,
    /// Where the pods of each ModelAlias say what they counted.
    sources: BTreeMap<String, Source>,
}

/// One ModelAlias of an experiment.
struct Arm {
    object: ModelAlias,
    status: ModelAliasStatus,
    source: Source,
}

/// Observes a ModelExperiment. Waits for nothing.
#[must_use]
pub fn observe(
    object: &ModelExperiment,
    sources: &ExperimentSources<'_>,
    now: Timestamp,
) -> ExperimentObservation {
    let namespace = object.namespace().unwrap_or_default();
    let find = |name: &str| find(sources, &(namespace.clone(), name.to_owned()));
    let name = object.spec.champion_ref.name.as_str();
    let champion = (name, find(name));
    let names = object.spec.challengers.iter().map(|it| it.alias_ref.name.as_str());
    let challengers: Vec<_> = names.map(|name| (name, find(name))).collect();
    let known_champion = known(&champion.1, Reason::ChampionUnavailable);
    let challenger = |(challenger, arm): &(&str, Result<Arm, String>)| {
        let arm = known(arm, Reason::ChallengerUnavailable)?;
        challenger_arm((name, champion.1.as_ref().ok()), (challenger, arm))
    };
    let places =
        challengers.iter().chain([&champion]).map(|(name, arm)| ((*name).to_owned(), place(sources, arm)));
    let places: Places = places.collect();
    let observed = ExperimentObserved {
        now,
        name: object.name_any(),
        generation: object.metadata.generation,
        spec: object.spec.clone(),
        status: sources.memory.latest_experiment_status(object),
        challengers: challengers.iter().map(challenger).collect(),
        champion: known_champion.and_then(|arm| champion_arm(name, arm)),
        of_other_models: of_other_models(&places, name),
        counted: sources.experiments.of(&object.uid().unwrap_or_default()),
    };
    let arms = challengers.into_iter().chain([champion]);
    let sources = arms.filter_map(|(name, arm)| Some((name.to_owned(), arm.ok()?.source))).collect();
    ExperimentObservation { observed, places, sources }
}

fn known(arm: &Result<Arm, String>, reason: Reason) -> Result<&Arm, ReasonMessage> {
    arm.as_ref().map_err(|message| ReasonMessage::new(reason, message.clone()))
}

fn place(
    sources: &ExperimentSources<'_>,
    arm: &Result<Arm, String>,
) -> Result<(Model, AliasName), ReasonMessage> {
    let unknown = |message: &String| ReasonMessage::new(Reason::RegisteredModelNotFound, message.clone());
    let arm = arm.as_ref().map_err(unknown)?;
    Ok((sources.references.follow(&arm.object)?, arm.object.spec.alias.clone()))
}

impl ExperimentObservation {
    /// What is to be counted from now on; `None` if nothing is.
    #[must_use]
    pub fn request(&self, object: &ModelExperiment, contests: &[Contest]) -> Option<Request> {
        let namespace = object.namespace().unwrap_or_default();
        let champion = &object.spec.champion_ref.name;
        let with_source =
            contests.iter().filter_map(|it| Some((it.clone(), self.sources.get(&it.key.alias)?.clone())));
        let contests: Vec<_> = with_source.collect();
        let source = self.sources.get(champion).filter(|_| !contests.is_empty())?.clone();
        Some(Request {
            uid: object.uid().unwrap_or_default(),
            key: (namespace.clone(), object.name_any()),
            wanted: object.spec.metrics.iter().map(Wanted::from).collect(),
            champion: ((namespace, champion.clone()), source),
            contests,
        })
    }
}

/// Each ModelAlias's model in its registry and its alias there, or why they are not known.
pub type Places = BTreeMap<String, Result<(Model, AliasName), ReasonMessage>>;

/// Those of the `ModelAliases` that are known to serve another registered model than the champion.
fn of_other_models(places: &Places, champion: &str) -> BTreeSet<String> {
    let Some(Ok((of_champion, _))) = places.get(champion) else { return BTreeSet::new() };
    let is_another =
        |model: &Model| model.name != of_champion.name || model.registry.key != of_champion.registry.key;
    let others = places.iter().filter(|(_, place)| place.as_ref().is_ok_and(|(model, _)| is_another(model)));
    others.map(|(name, _)| name.clone()).collect()
}

/// The model that the pods of a version load.
fn model_uri(status: &ModelAliasStatus, version: Version) -> Option<ModelUri> {
    status.versions.iter().find(|known| known.version == version)?.model_uri.clone()
}

fn find(sources: &ExperimentSources<'_>, key: &AliasKey) -> Result<Arm, String> {
    let (namespace, name) = key;
    let found = sources.aliases.get(&ObjectRef::new(name).within(namespace));
    let found = found
        .ok_or_else(|| format!("there is no ModelAlias {name} in the namespace {namespace}; create it"))?;
    let object =
        found.0.as_ref().map_err(|error| format!("the ModelAlias {name} cannot be read: {error}"))?;
    if object.metadata.deletion_timestamp.is_some() {
        return Err(format!("the ModelAlias {name} is being deleted"));
    }
    let serving = object.spec.serving.as_ref();
    let serving =
        serving.ok_or_else(|| format!("the ModelAlias {name} serves nothing: set its spec.serving"))?;
    let source = Source::of(serving).ok_or_else(|| {
        format!(
            "the pods of the ModelAlias {name} do not count requests: set its spec.serving.metrics.port, \
             where a server of the runtime custom shows its metrics"
        )
    })?;
    Ok(Arm { status: sources.memory.latest_status(object), object: object.clone(), source })
}

fn champion_arm(name: &str, arm: &Arm) -> Result<ChampionArm, ReasonMessage> {
    let cause = |message: String| ReasonMessage::new(Reason::ChampionUnavailable, message);
    if arm.object.spec.traffic.is_none() {
        return Err(cause(format!(
            "the ModelAlias {name} shares no requests with its challengers: set its spec.traffic"
        )));
    }
    let split = condition(&arm.status.conditions, ConditionType::TrafficSplit);
    let unavailable: &str = Reason::ChallengerUnavailable.into();
    // Whether each challenger has its share is looked at one by one.
    if split.is_none_or(|split| split.status != "True" && split.reason != unavailable) {
        return Err(cause(format!(
            "the ModelAlias {name} does not share requests as it should now{}",
            split.map_or_else(String::new, |split: &Condition| format!(": {}", split.message))
        )));
    }
    let mut own = arm.status.traffic.iter().filter(|share| share.alias_ref.is_none() && share.weight > 0);
    match (own.next(), own.next()) {
        (Some(share), None) if arm.status.version == Some(share.version) => Ok(ChampionArm {
            version: share.version,
            model_uri: model_uri(&arm.status, share.version),
            weight: share.weight,
            follows_registry: arm.object.spec.follow.as_ref().is_some_and(|follow| follow.registry.is_some()),
        }),
        _ => Err(cause(format!(
            "the ModelAlias {name} is changing its version; counting goes on when one version serves alone"
        ))),
    }
}

fn challenger_arm(
    (champion, champion_arm): (&str, Option<&Arm>),
    (name, arm): (&str, &Arm),
) -> Result<ChallengerArm, ReasonMessage> {
    let cause = |message: String| ReasonMessage::new(Reason::ChallengerUnavailable, message);
    let desired = champion_arm.and_then(|arm| arm.object.spec.traffic.as_ref());
    let mut desired = desired.iter().flat_map(|traffic| &traffic.challengers);
    let desired = desired.find(|challenger| challenger.alias_ref.name == name);
    // Without a champion, that is reported.
    if champion_arm.is_some() && desired.is_none_or(|challenger| challenger.weight.is_none()) {
        return Err(cause(format!(
            "the ModelAlias {champion} gives {name} no share: add it to its spec.traffic.challengers with a weight"
        )));
    }
    let mut given = champion_arm.iter().flat_map(|arm| &arm.status.traffic);
    let share = given.find(|share| share.alias_ref.as_deref() == Some(name) && share.weight > 0);
    let Some(version) = arm.status.version else {
        return Err(cause(format!("the ModelAlias {name} does not serve a version yet: see its conditions")));
    };
    match share {
        Some(share) if share.version == version => {
            Ok(ChallengerArm { version, model_uri: model_uri(&arm.status, version), weight: share.weight })
        }
        _ => Err(cause(format!(
            "the ModelAlias {name} gets no requests now: see the condition TrafficSplit of the ModelAlias {champion}"
        ))),
    }
}
