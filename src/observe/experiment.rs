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
        condition::{ConditionType, Reason, ReasonMessage},
        model_alias::AliasKey,
        names::{AliasName, ModelUri, Version},
        traffic::TrafficSpec,
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
}

/// Observes a ModelExperiment. Waits for nothing.
#[must_use]
pub fn observe(
    object: &ModelExperiment,
    sources: &ExperimentSources<'_>,
    now: Timestamp,
) -> ExperimentObservation {
    let namespace = object.namespace().unwrap_or_default();
    let champion_name = &object.spec.champion_ref.name;
    let names = object.spec.challengers.iter().map(|challenger| &challenger.alias_ref.name);
    let found = |name: &String| find(sources, &(namespace.clone(), name.clone()));
    let champion = found(champion_name).map_err(|message| unavailable(Reason::ChampionUnavailable, message));
    let challengers: Vec<(&String, Result<Arm, ReasonMessage>)> = names
        .map(|name| (name, found(name).map_err(|it| unavailable(Reason::ChallengerUnavailable, it))))
        .collect();
    let arms = challengers.iter().map(|(name, arm)| (*name, arm)).chain([(champion_name, &champion)]);
    let known: Vec<(&String, &Arm)> =
        arms.filter_map(|(name, arm)| Some((name, arm.as_ref().ok()?))).collect();
    let place = |arm: &Arm| Ok((sources.references.follow(&arm.object)?, arm.object.spec.alias.clone()));
    let arms = challengers.iter().map(|(name, arm)| (*name, arm)).chain([(champion_name, &champion)]);
    let place_of = |arm: &Result<Arm, ReasonMessage>| arm.as_ref().map_err(Clone::clone).and_then(place);
    let places: Places = arms.map(|(name, arm)| (name.clone(), place_of(arm))).collect();
    let source = |arm: &Arm| Source::of(arm.object.spec.serving.as_ref()?);
    let pods = known.iter().filter_map(|(name, arm)| Some(((*name).clone(), source(arm)?))).collect();
    let shares = champion.as_ref().ok().map(|arm| (&arm.object.spec.traffic, &arm.status));
    let observed = ExperimentObserved {
        now,
        name: object.name_any(),
        generation: object.metadata.generation,
        spec: object.spec.clone(),
        status: sources.memory.latest_experiment_status(object),
        challengers: challengers
            .iter()
            .map(|(name, arm)| {
                challenger_arm(champion_name, shares, name, arm.as_ref().map_err(Clone::clone)?)
            })
            .collect(),
        champion: champion.as_ref().map_err(Clone::clone).and_then(|arm| champion_arm(champion_name, arm)),
        of_other_models: of_other_models(&places, champion_name),
        counted: sources.experiments.of(&object.uid().unwrap_or_default()),
    };
    ExperimentObservation { observed, places, sources: pods }
}

impl ExperimentObservation {
    /// What is to be counted from now on.
    #[must_use]
    pub fn request(&self, object: &ModelExperiment, contests: &[Contest]) -> Request {
        let namespace = object.namespace().unwrap_or_default();
        let champion = &object.spec.champion_ref.name;
        let source = |alias: &String| self.sources.get(alias).cloned();
        let with_source = contests.iter().filter_map(|it| Some((it.clone(), source(&it.key.alias)?)));
        let champion_source = source(champion);
        Request {
            uid: object.uid().unwrap_or_default(),
            key: (namespace.clone(), object.name_any()),
            wanted: object.spec.metrics.iter().map(Wanted::from).collect(),
            contests: with_source.filter(|_| champion_source.is_some()).collect(),
            champion: ((namespace, champion.clone()), champion_source.unwrap_or_else(nowhere)),
        }
    }
}

type Places = BTreeMap<String, Result<(Model, AliasName), ReasonMessage>>;

/// Those of the `ModelAliases` that are known to serve another registered model than the champion.
fn of_other_models(places: &Places, champion: &String) -> BTreeSet<String> {
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

/// Without contests nothing is read.
fn nowhere() -> Source {
    let names = crate::state::counted::Names { requests: String::new(), status: String::new() };
    Source { port: 0, path: String::new(), names }
}

fn unavailable(reason: Reason, message: impl Into<String>) -> ReasonMessage {
    ReasonMessage::new(reason, message)
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
    if Source::of(serving).is_none() {
        return Err(format!(
            "the pods of the ModelAlias {name} do not count requests: set its spec.serving.metrics.port, where a \
             server of the runtime custom shows its metrics"
        ));
    }
    Ok(Arm { status: sources.memory.latest_status(object), object: object.clone() })
}

fn champion_arm(name: &str, arm: &Arm) -> Result<ChampionArm, ReasonMessage> {
    let cause = |message: String| unavailable(Reason::ChampionUnavailable, message);
    if arm.object.spec.traffic.is_none() {
        return Err(cause(format!(
            "the ModelAlias {name} shares no requests with its challengers: set its spec.traffic"
        )));
    }
    let type_: &str = ConditionType::TrafficSplit.into();
    let split = arm.status.conditions.iter().find(|condition| condition.type_ == type_);
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
    champion: &str,
    shares: Option<(&Option<TrafficSpec>, &ModelAliasStatus)>,
    name: &str,
    arm: &Arm,
) -> Result<ChallengerArm, ReasonMessage> {
    let cause = |message: String| unavailable(Reason::ChallengerUnavailable, message);
    let desired = shares.and_then(|(traffic, _)| traffic.as_ref());
    let mut desired = desired.iter().flat_map(|traffic| &traffic.challengers);
    let desired = desired.find(|challenger| challenger.alias_ref.name == name);
    // Without a champion, that is reported.
    if shares.is_some() && desired.is_none_or(|challenger| challenger.weight.is_none()) {
        return Err(cause(format!(
            "the ModelAlias {champion} gives {name} no share: add it to its spec.traffic.challengers with a weight"
        )));
    }
    let status = shares.map(|(_, status)| status);
    let mut given = status.iter().flat_map(|status| &status.traffic);
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
