//! Which `ModelAliases` a ModelExperiment is about, and which challengers it has withdrawn.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::Value;

use super::Affected;
use crate::{
    api::{ModelExperiment, model_alias::AliasKey, model_experiment::ExperimentKey, names::Version},
    cluster::{Guarded, Unreadable},
};

/// What one says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExperimentFacts {
    uid: String,
    champion: String,
    challengers: BTreeSet<String>,
    /// Versions of challengers that get no requests any more.
    withdrawn: BTreeSet<(String, Version)>,
}

impl ExperimentFacts {
    /// What an object says; one that cannot be parsed says it in the same places.
    pub(super) fn of(object: &Guarded<ModelExperiment>) -> Self {
        let experiment = match &object.0 {
            Ok(experiment) => experiment,
            Err(unreadable) => return Self::of_unreadable(unreadable),
        };
        let withdrawn = experiment.status.iter().flat_map(|status| &status.withdrawn);
        let is_ending = experiment.metadata.deletion_timestamp.is_some();
        Self {
            uid: experiment.uid().unwrap_or_default(),
            champion: experiment.spec.champion_ref.name.clone(),
            challengers: experiment.spec.challengers.iter().map(|it| it.alias_ref.name.clone()).collect(),
            withdrawn: withdrawn.filter(|_| !is_ending).map(|it| (it.alias.clone(), it.version)).collect(),
        }
    }

    fn of_unreadable(unreadable: &Unreadable) -> Self {
        let list = |path: &str| unreadable.raw.pointer(path).and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let version = |it: &Value| Some((text(it, "/alias")?, text(it, "/version")?.parse().ok()?));
        let is_ending = unreadable.metadata.deletion_timestamp.is_some();
        Self {
            uid: unreadable.metadata.uid.clone().unwrap_or_default(),
            champion: unreadable.text("/spec/championRef/name").unwrap_or_default().to_owned(),
            challengers: list("/spec/challengers").filter_map(|it| text(it, "/aliasRef/name")).collect(),
            withdrawn: list("/status/withdrawn").filter(|_| !is_ending).filter_map(version).collect(),
        }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.challengers.iter().chain([&self.champion])
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Experiments {
    facts: BTreeMap<ExperimentKey, ExperimentFacts>,
    by_alias: BTreeMap<AliasKey, BTreeSet<ExperimentKey>>,
}

impl Experiments {
    /// Changes what one says; `None` if it is gone. Its UID is among `affected.gone` then.
    pub(super) fn set(
        &mut self,
        key: &ExperimentKey,
        facts: Option<ExperimentFacts>,
        affected: &mut Affected,
    ) {
        let before = self.facts.remove(key);
        if let Some(before) = &before {
            for name in before.names() {
                let alias = (key.0.clone(), name.clone());
                if let Some(experiments) = self.by_alias.get_mut(&alias) {
                    experiments.remove(key);
                    if experiments.is_empty() {
                        self.by_alias.remove(&alias);
                    }
                }
            }
            if facts.as_ref().is_none_or(|facts| facts.uid != before.uid) {
                affected.gone.push(before.uid.clone());
            }
        }
        let withdrawn = |facts: &Option<ExperimentFacts>| {
            facts.as_ref().map(|facts| facts.withdrawn.clone()).unwrap_or_default()
        };
        if withdrawn(&before) != withdrawn(&facts) {
            let champions = before.iter().chain(&facts).map(|facts| facts.champion.clone());
            affected.aliases.extend(champions.map(|name| (key.0.clone(), name)));
        }
        if let Some(facts) = facts {
            for name in facts.names() {
                self.by_alias.entry((key.0.clone(), name.clone())).or_default().insert(key.clone());
            }
            self.facts.insert(key.clone(), facts);
        }
    }

    pub(super) fn keys(&self) -> Vec<ExperimentKey> {
        self.facts.keys().cloned().collect()
    }

    /// The experiments that are about a ModelAlias.
    pub(super) fn about(&self, alias: &AliasKey) -> impl Iterator<Item = &ExperimentKey> {
        self.by_alias.get(alias).into_iter().flatten()
    }

    /// The champions of the experiments that have withdrawn a version of this challenger: another version gets its
    /// share again.
    pub(super) fn withdrawn_from(&self, challenger: &AliasKey) -> BTreeSet<AliasKey> {
        let facts = self.about(challenger).filter_map(|key| self.facts.get(key));
        let withdrawing = facts.filter(|facts| facts.withdrawn.iter().any(|(name, _)| *name == challenger.1));
        withdrawing.map(|facts| (challenger.0.clone(), facts.champion.clone())).collect()
    }

    /// The experiment of this champion that has withdrawn a version of a challenger.
    pub(super) fn withdrawn_by(
        &self,
        champion: &AliasKey,
        challenger: &str,
        version: Version,
    ) -> Option<&ExperimentKey> {
        let is_it = |key: &&ExperimentKey| {
            self.facts.get(*key).is_some_and(|facts| {
                facts.champion == champion.1 && facts.withdrawn.contains(&(challenger.to_owned(), version))
            })
        };
        self.about(champion).find(is_it)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn key(namespace: &str, name: &str) -> (String, String) {
        (namespace.to_owned(), name.to_owned())
    }

    fn facts(uid: &str, withdrawn: &Value) -> ExperimentFacts {
        let object = json!({
            "metadata": { "name": "q4", "namespace": "risk", "uid": uid },
            "spec": {
                "championRef": { "name": "champion" },
                "challengers": [{ "aliasRef": { "name": "one" } }, { "aliasRef": { "name": "two" } }],
                "metrics": [{ "name": "failures", "role": "Primary", "failures": {} }],
            },
            "status": { "withdrawn": withdrawn },
        });
        let facts = ExperimentFacts::of(&serde_json::from_value(object.clone()).unwrap());
        // A later release may write what this one cannot parse.
        let mut unreadable = object;
        unreadable["spec"]["falseAlarm"] = "low".into();
        assert_eq!(ExperimentFacts::of(&serde_json::from_value(unreadable).unwrap()), facts);
        facts
    }

    #[test]
    fn only_a_change_of_what_is_withdrawn_concerns_the_champion() {
        let mut experiments = Experiments::default();
        let mut change = |facts: Option<ExperimentFacts>| {
            let mut affected = Affected::default();
            experiments.set(&key("risk", "q4"), facts, &mut affected);
            let version = Version::new(5).unwrap();
            let by = experiments.withdrawn_by(&key("risk", "champion"), "one", version).is_some();
            let about =
                ["champion", "one", "two", "three"].map(|name| experiments.about(&key("risk", name)).count());
            let from = experiments.withdrawn_from(&key("risk", "one")).contains(&key("risk", "champion"));
            assert_eq!((by, experiments.withdrawn_from(&key("risk", "two")).len()), (from, 0));
            (affected.aliases.len(), affected.gone, by, about)
        };
        let counted = json!([]);
        let withdrawn = json!([{ "alias": "one", "version": "5", "message": "worse" }]);
        assert_eq!(change(Some(facts("a", &counted))), (0, vec![], false, [1, 1, 1, 0]));
        assert_eq!(change(Some(facts("a", &withdrawn))), (1, vec![], true, [1, 1, 1, 0]));
        assert_eq!(change(Some(facts("a", &withdrawn))), (0, vec![], true, [1, 1, 1, 0]));
        assert_eq!(change(Some(facts("b", &counted))), (1, vec!["a".to_owned()], false, [1, 1, 1, 0]));
        assert_eq!(change(None), (0, vec!["b".to_owned()], false, [0, 0, 0, 0]));
    }
}
