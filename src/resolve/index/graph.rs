//! The index itself: what objects say, and what follows from it. Every change costs what it touches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

use super::facts::{Age, AliasFacts, DefaultRank, ModelFacts, ModelKey, Place, Reference, RegistryFacts};
use crate::{
    api::{
        model_alias::AliasKey,
        names::{AliasName, ModelName},
    },
    registry::polled::RegistryKey,
};

/// The objects that a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// `ModelAliases` to reconcile.
    pub aliases: BTreeSet<AliasKey>,
    /// `RegisteredModels` to reconcile.
    pub models: BTreeSet<ModelKey>,
    /// Registries whose objects changed or are gone.
    pub registries: BTreeSet<RegistryKey>,
    /// The UIDs of objects of the kind of the event that are gone.
    pub gone: Vec<String>,
}

/// An alias of a model in a registry.
type Claim = (Place, AliasName);

#[derive(Debug)]
struct AliasEntry {
    facts: AliasFacts,
    place: Option<Place>,
}

impl AliasEntry {
    /// Returns what decides on its claims.
    fn claims(&self) -> (Option<&Place>, &Age, Vec<&AliasName>) {
        (self.place.as_ref(), &self.facts.age, self.facts.claims().collect())
    }

    /// Whether it cannot be parsed and does not say which alias of which model it claims.
    fn says_nothing(&self) -> bool {
        !self.facts.is_readable && (self.facts.alias.is_none() || self.place.is_none())
    }
}

#[derive(Debug)]
struct ModelEntry {
    facts: ModelFacts,
    registry: Option<RegistryKey>,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    aliases: BTreeMap<AliasKey, AliasEntry>,
    models: BTreeMap<ModelKey, ModelEntry>,
    registries: HashMap<RegistryKey, RegistryFacts>,
    labels: HashMap<String, BTreeMap<String, String>>,
    /// What follows from these: the claimants of each alias, the oldest first,
    claims: HashMap<Claim, BTreeMap<Age, AliasKey>>,
    /// the `ModelAliases` of each RegisteredModel,
    dependents: HashMap<ModelKey, BTreeSet<AliasKey>>,
    /// those that name each ModelAlias as a challenger,
    champions: HashMap<AliasKey, BTreeSet<AliasKey>>,
    /// those that refer to each HTTPRoute,
    route_referrers: HashMap<AliasKey, BTreeSet<AliasKey>>,
    /// the `RegisteredModels` that refer to each registry, and those that use it, by the model's name,
    references: BTreeMap<Reference, BTreeSet<ModelKey>>,
    users: HashMap<RegistryKey, BTreeMap<ModelName, BTreeSet<ModelKey>>>,
    /// the `RegisteredModels` about each model, in any registry,
    namesakes: HashMap<ModelName, BTreeSet<ModelKey>>,
    /// the default registries of each namespace and, without one, of the cluster,
    defaults: HashMap<Option<String>, BTreeMap<DefaultRank, RegistryKey>>,
    /// and the objects that cannot be parsed.
    unreadable_aliases: BTreeSet<AliasKey>,
    unreadable_models: BTreeSet<ModelKey>,
}

fn add<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: V) {
    map.entry(key).or_default().insert(value);
}

fn remove<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}

fn remove_from<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: Option<K>, value: &V) {
    if let Some(key) = key {
        remove(map, &key, value);
    }
}

fn flag<V: Ord>(set: &mut BTreeSet<V>, value: V, is_in: bool) {
    if is_in {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}

/// Returns the namespace whose defaults an object is among; `None` for the cluster's.
fn scope(key: &RegistryKey) -> Option<String> {
    match key {
        RegistryKey::Object { namespace, .. } => Some(namespace.clone()),
        RegistryKey::Cluster { .. } => None,
    }
}

/// `ModelAliases`.
impl Graph {
    pub(super) fn set_alias(&mut self, key: &AliasKey, facts: Option<AliasFacts>, affected: &mut Affected) {
        let before = self.aliases.get(key).map(|entry| &entry.facts);
        let facts = facts.map(|facts| facts.or(before));
        if before == facts.as_ref() {
            return;
        }
        if let Some(before) = before
            && facts.as_ref().is_none_or(|facts| facts.age.uid() != before.age.uid())
        {
            affected.gone.push(before.age.uid().to_owned());
        }
        let entry_before = self.aliases.remove(key);
        self.link_challengers(key, entry_before.as_ref(), facts.as_ref(), affected);
        self.link_routes(key, entry_before.as_ref(), facts.as_ref());
        if let Some(entry) = &entry_before {
            remove_from(&mut self.dependents, entry.facts.model_key(key), key);
        }
        flag(&mut self.unreadable_aliases, key.clone(), facts.as_ref().is_some_and(|it| !it.is_readable));
        let entry = facts.map(|facts| AliasEntry { place: self.place(key, &facts), facts });
        if let Some(entry) = &entry
            && let Some(model) = entry.facts.model_key(key)
        {
            add(&mut self.dependents, model, key.clone());
        }
        self.link_again(key, entry_before.as_ref(), entry.as_ref(), affected);
        // Any other one may have waited for what it claims.
        let says_nothing = |entry: &Option<AliasEntry>| entry.as_ref().is_some_and(AliasEntry::says_nothing);
        if says_nothing(&entry_before) && !says_nothing(&entry) {
            affected.aliases.extend(self.aliases.keys().cloned());
        }
        if let Some(entry) = entry {
            self.aliases.insert(key.clone(), entry);
        }
    }

    /// Replaces the challengers of a ModelAlias. Those that it begins or ceases to name are reconciled, and
    /// the champions of this one if it may not have a share any more, or may again.
    fn link_challengers(
        &mut self,
        key: &AliasKey,
        before: Option<&AliasEntry>,
        after: Option<&AliasFacts>,
        affected: &mut Affected,
    ) {
        let before = before.map(|entry| &entry.facts);
        let keys =
            |facts: Option<&AliasFacts>| facts.map(|facts| facts.challenger_keys(key)).unwrap_or_default();
        let (old, new) = (keys(before), keys(after));
        for challenger in old.difference(&new) {
            remove(&mut self.champions, challenger, key);
            affected.aliases.insert(challenger.clone());
        }
        for challenger in new.difference(&old) {
            add(&mut self.champions, challenger.clone(), key.clone());
            affected.aliases.insert(challenger.clone());
        }
        let decides =
            |facts: Option<&AliasFacts>| facts.map(|facts| (facts.age.clone(), facts.may_challenge));
        if decides(before) != decides(after) {
            affected.aliases.extend(self.champions.get(key).into_iter().flatten().cloned());
        }
    }

    /// Replaces the HTTPRoutes that a ModelAlias refers to.
    fn link_routes(&mut self, key: &AliasKey, before: Option<&AliasEntry>, after: Option<&AliasFacts>) {
        let routes =
            |facts: Option<&AliasFacts>| facts.map(|facts| facts.route_keys(key)).unwrap_or_default();
        let (old, new) = (routes(before.map(|entry| &entry.facts)), routes(after));
        for route in old.difference(&new) {
            remove(&mut self.route_referrers, route, key);
        }
        for route in new.difference(&old) {
            add(&mut self.route_referrers, route.clone(), key.clone());
        }
    }

    /// Replaces the claims of a ModelAlias, if they changed.
    fn link_again(
        &mut self,
        key: &AliasKey,
        before: Option<&AliasEntry>,
        after: Option<&AliasEntry>,
        affected: &mut Affected,
    ) {
        if before.map(AliasEntry::claims) == after.map(AliasEntry::claims) {
            return;
        }
        if let Some(before) = before {
            self.unlink_alias(key, before, affected);
        }
        if let Some(after) = after {
            self.link_alias(key, after, affected);
        }
    }

    /// Where the references of a ModelAlias lead, or else where its status says they led.
    fn place(&self, key: &AliasKey, facts: &AliasFacts) -> Option<Place> {
        let followed = || {
            let model = self.models.get(&facts.model_key(key)?)?;
            let registry = self.registries.get(model.registry.as_ref()?)?.identity.clone()?;
            Some(Place { registry, model: model.facts.name.clone()?.into() })
        };
        followed().or_else(|| facts.last_place.clone())
    }

    fn link_alias(&mut self, key: &AliasKey, entry: &AliasEntry, affected: &mut Affected) {
        let Some(place) = &entry.place else { return };
        for alias in entry.facts.claims() {
            let claimants = self.claims.entry((place.clone(), alias.clone())).or_default();
            claimants.insert(entry.facts.age.clone(), key.clone());
            // The others yield to it.
            if claimants.keys().next() == Some(&entry.facts.age) {
                affected.aliases.extend(claimants.values().filter(|other| *other != key).cloned());
            }
        }
    }

    fn unlink_alias(&mut self, key: &AliasKey, entry: &AliasEntry, affected: &mut Affected) {
        let Some(place) = &entry.place else { return };
        for alias in entry.facts.claims() {
            let claim = (place.clone(), alias.clone());
            let Some(claimants) = self.claims.get_mut(&claim) else { continue };
            // The others waited for it.
            if claimants.keys().next() == Some(&entry.facts.age) {
                affected.aliases.extend(claimants.values().filter(|other| *other != key).cloned());
            }
            claimants.remove(&entry.facts.age);
            if claimants.is_empty() {
                self.claims.remove(&claim);
            }
        }
    }

    /// Follows the references of the `ModelAliases` of a RegisteredModel again.
    fn replace_dependents(&mut self, model: &ModelKey, affected: &mut Affected) {
        for key in self.dependents.get(model).cloned().unwrap_or_default() {
            let Some(mut entry) = self.aliases.remove(&key) else { continue };
            let place = self.place(&key, &entry.facts);
            if place != entry.place {
                if entry.says_nothing() {
                    affected.aliases.extend(self.aliases.keys().cloned());
                }
                self.unlink_alias(&key, &entry, affected);
                entry.place = place;
                self.link_alias(&key, &entry, affected);
            }
            self.aliases.insert(key, entry);
        }
    }
}

/// `RegisteredModels`.
impl Graph {
    pub(super) fn set_model(&mut self, key: &ModelKey, facts: Option<ModelFacts>, affected: &mut Affected) {
        let before = self.models.get(key).map(|entry| &entry.facts);
        let facts = facts.map(|facts| facts.or(before));
        if before == facts.as_ref() {
            return;
        }
        if let Some(entry) = self.models.remove(key) {
            self.unlink_model(key, &entry);
        }
        flag(&mut self.unreadable_models, key.clone(), facts.as_ref().is_some_and(|it| !it.is_readable));
        if let Some(facts) = facts {
            let registry = facts.reference.as_ref().and_then(|reference| self.choose(reference, &key.0));
            let entry = ModelEntry { facts, registry };
            self.link_model(key, &entry);
            self.models.insert(key.clone(), entry);
        }
        self.replace_dependents(key, affected);
        affected.aliases.extend(self.dependents.get(key).into_iter().flatten().cloned());
    }

    fn link_model(&mut self, key: &ModelKey, entry: &ModelEntry) {
        if let Some(reference) = &entry.facts.reference {
            self.references.entry(reference.clone()).or_default().insert(key.clone());
        }
        let Some(name) = &entry.facts.name else { return };
        add(&mut self.namesakes, name.clone(), key.clone());
        if let Some(registry) = &entry.registry {
            let models = self.users.entry(registry.clone()).or_default();
            models.entry(name.clone()).or_default().insert(key.clone());
        }
    }

    fn unlink_model(&mut self, key: &ModelKey, entry: &ModelEntry) {
        if let Some(reference) = &entry.facts.reference
            && let Some(models) = self.references.get_mut(reference)
        {
            models.remove(key);
            if models.is_empty() {
                self.references.remove(reference);
            }
        }
        let Some(name) = &entry.facts.name else { return };
        remove(&mut self.namesakes, name, key);
        let Some(registry) = &entry.registry else { return };
        let Some(models) = self.users.get_mut(registry) else { return };
        if let Some(keys) = models.get_mut(name) {
            keys.remove(key);
            if keys.is_empty() {
                models.remove(name);
            }
        }
        if models.is_empty() {
            self.users.remove(registry);
        }
    }

    /// Chooses the registries of `RegisteredModels` again. Those concerned are reconciled.
    fn choose_again(&mut self, models: BTreeSet<ModelKey>, affected: &mut Affected) {
        for key in models {
            let Some(mut entry) = self.models.remove(&key) else { continue };
            let chosen = entry.facts.reference.as_ref().and_then(|reference| self.choose(reference, &key.0));
            if chosen != entry.registry {
                self.unlink_model(&key, &entry);
                entry.registry = chosen;
                self.link_model(&key, &entry);
            }
            self.models.insert(key.clone(), entry);
            self.replace_dependents(&key, affected);
            affected.aliases.extend(self.dependents.get(&key).into_iter().flatten().cloned());
            affected.models.insert(key);
        }
    }
}

/// Registries and namespaces.
impl Graph {
    /// The registry that a reference from a namespace leads to, if the namespace may use it.
    fn choose(&self, reference: &Reference, namespace: &str) -> Option<RegistryKey> {
        match reference {
            Reference::To(key) => {
                let is_closed =
                    self.registries.get(key).is_some_and(|it| !it.allows(self.labels.get(namespace)));
                (!is_closed).then(|| key.clone())
            }
            Reference::Default(namespace) => self.default_of(namespace),
        }
    }

    /// The default of a namespace: its own, then the cluster's.
    pub(super) fn default_of(&self, namespace: &str) -> Option<RegistryKey> {
        let newest = |scope| self.defaults(scope).next_back().cloned();
        newest(Some(namespace)).or_else(|| {
            let labels = self.labels.get(namespace);
            let allows = |key: &&RegistryKey| self.registries.get(*key).is_some_and(|it| it.allows(labels));
            self.defaults(None).rev().find(allows).cloned()
        })
    }

    /// The defaults of a namespace or, without one, of the cluster, the one that is used last.
    pub(super) fn defaults(&self, scope: Option<&str>) -> impl DoubleEndedIterator<Item = &RegistryKey> {
        self.defaults.get(&scope.map(str::to_owned)).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn set_registry(
        &mut self,
        key: &RegistryKey,
        facts: Option<RegistryFacts>,
        affected: &mut Affected,
    ) {
        let before = self.registries.get(key);
        if before == facts.as_ref() {
            return;
        }
        affected.registries.insert(key.clone());
        let is_in = |facts: Option<&RegistryFacts>| facts.and_then(|facts| facts.default.clone());
        let (rank_before, rank) = (is_in(before), is_in(facts.as_ref()));
        let may_be_default = rank_before.is_some() || rank.is_some();
        let defaults = self.defaults.entry(scope(key)).or_default();
        if let Some(rank) = rank_before {
            defaults.remove(&rank);
        }
        if let Some(rank) = rank {
            defaults.insert(rank, key.clone());
        }
        if defaults.is_empty() {
            self.defaults.remove(&scope(key));
        }
        match facts {
            Some(facts) => self.registries.insert(key.clone(), facts),
            None => self.registries.remove(key),
        };
        let mut models: BTreeSet<ModelKey> =
            self.references.get(&Reference::To(key.clone())).into_iter().flatten().cloned().collect();
        if may_be_default {
            models.extend(self.without_reference(scope(key)));
        }
        self.choose_again(models, affected);
    }

    /// The `RegisteredModels` that name no registry, of a namespace or of all.
    fn without_reference(&self, namespace: Option<String>) -> BTreeSet<ModelKey> {
        if let Some(namespace) = namespace {
            return self.references.get(&Reference::Default(namespace)).cloned().unwrap_or_default();
        }
        let all = self.references.range(Reference::Default(String::new())..);
        all.flat_map(|(_, models)| models).cloned().collect()
    }

    pub(super) fn set_labels(
        &mut self,
        namespace: &str,
        labels: Option<BTreeMap<String, String>>,
        affected: &mut Affected,
    ) {
        if self.labels.get(namespace) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.labels.insert(namespace.to_owned(), labels),
            None => self.labels.remove(namespace),
        };
        let of_it = self.models.range((namespace.to_owned(), String::new())..);
        let models = of_it.map(|(key, _)| key).take_while(|key| key.0 == namespace).cloned().collect();
        self.choose_again(models, affected);
    }
}

/// Questions.
impl Graph {
    pub(super) fn claimants(
        &self,
        place: &Place,
        alias: &AliasName,
    ) -> impl Iterator<Item = (&Age, &AliasKey)> {
        self.claims.get(&(place.clone(), alias.clone())).into_iter().flatten()
    }

    pub(super) fn place_of(&self, key: &AliasKey) -> Option<&Place> {
        self.aliases.get(key)?.place.as_ref()
    }

    pub(super) fn dependents(&self, model: &ModelKey) -> impl Iterator<Item = &AliasKey> {
        self.dependents.get(model).into_iter().flatten()
    }

    pub(super) fn champions(&self, alias: &AliasKey) -> impl Iterator<Item = &AliasKey> {
        self.champions.get(alias).into_iter().flatten()
    }

    pub(super) fn route_referrers(&self, route: &AliasKey) -> impl Iterator<Item = &AliasKey> {
        self.route_referrers.get(route).into_iter().flatten()
    }

    pub(super) fn users(&self, registry: &RegistryKey) -> Option<&BTreeMap<ModelName, BTreeSet<ModelKey>>> {
        self.users.get(registry)
    }

    pub(super) fn namesakes(&self, name: &ModelName) -> impl Iterator<Item = &ModelKey> {
        self.namesakes.get(name).into_iter().flatten()
    }

    pub(super) fn unreadable_aliases(&self, namespace: &str) -> impl Iterator<Item = &AliasKey> {
        let of_it = self.unreadable_aliases.range((namespace.to_owned(), String::new())..);
        of_it.take_while(move |key| key.0 == namespace)
    }

    /// One that cannot be parsed and does not say, as far as it can be read, which alias of which model it
    /// claims.
    pub(super) fn unknown_claimant(&self) -> Option<&AliasKey> {
        let says_nothing = |key: &&AliasKey| self.aliases.get(*key).is_some_and(AliasEntry::says_nothing);
        self.unreadable_aliases.iter().find(says_nothing)
    }

    pub(super) fn unreadable_models(&self) -> impl Iterator<Item = &ModelKey> {
        self.unreadable_models.iter()
    }

    pub(super) fn alias_keys(&self) -> Vec<AliasKey> {
        self.aliases.keys().cloned().collect()
    }

    pub(super) fn model_keys(&self) -> Vec<ModelKey> {
        self.models.keys().cloned().collect()
    }

    pub(super) fn registry_keys(&self) -> Vec<RegistryKey> {
        self.registries.keys().cloned().collect()
    }

    pub(super) fn namespaces(&self) -> Vec<String> {
        self.labels.keys().cloned().collect()
    }
}
