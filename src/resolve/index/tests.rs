//! After any events, the index answers as a walk over all objects does, and an event names everything whose
//! answers it changed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ClusterModelRegistry, ModelRegistry},
    registry::polled::RegistryIdentity,
};

const NAMESPACES: [&str; 2] = ["a", "b"];
const MODELS: [&str; 2] = ["fraud", "churn"];
const ALIASES: [&str; 3] = ["champion", "previous", "challenger"];
const URLS: [&str; 2] = ["http://one:5000", "http://two:5000/"];
const WORKSPACES: [Option<&str>; 3] = [None, Some("default"), Some("w")];

/// A ModelAlias as the walk sees it.
#[derive(Clone, Debug, PartialEq)]
struct Alias {
    uid: String,
    created: u8,
    is_readable: bool,
    model_ref: Option<String>,
    main: Option<String>,
    previous: Option<String>,
    last: Option<(usize, usize, usize)>,
    challengers: BTreeSet<String>,
    serves: bool,
}

/// What a ModelAlias has to know: its place, who owns each alias that it claims, its challengers, and its
/// champions.
type View = (Option<Place>, Vec<Option<AliasKey>>, Vec<Option<(String, bool)>>, Vec<AliasKey>);

/// The registry that a RegisteredModel names.
#[derive(Clone, Debug, PartialEq)]
enum Named {
    Unknown,
    None,
    This(RegistryKey),
}

#[derive(Clone, Debug, PartialEq)]
struct Model {
    uid: String,
    is_readable: bool,
    name: Option<String>,
    registry: Named,
}

#[derive(Clone, Debug, PartialEq)]
struct Registered {
    created: u8,
    is_default: bool,
    url: Option<usize>,
    workspace: usize,
    only_labelled: bool,
}

/// All objects, and the walk over them.
#[derive(Clone, Debug, Default)]
struct World {
    aliases: BTreeMap<AliasKey, Alias>,
    models: BTreeMap<ModelKey, Model>,
    registries: BTreeMap<RegistryKey, Registered>,
    labelled: BTreeSet<String>,
    uids: usize,
}

impl World {
    fn identity(&self, key: &RegistryKey) -> Option<RegistryIdentity> {
        let registry = self.registries.get(key)?;
        let url: url::Url = URLS[registry.url?].parse().unwrap();
        Some(RegistryIdentity::new(&url, WORKSPACES[registry.workspace]))
    }

    fn allows(&self, key: &RegistryKey, namespace: &str) -> bool {
        self.registries.get(key).is_none_or(|it| !it.only_labelled || self.labelled.contains(namespace))
    }

    fn default_of(&self, namespace: &str) -> Option<RegistryKey> {
        let newest = |own: Option<&str>| {
            let mut all: Vec<_> = self.registries.iter().filter(|(_, it)| it.is_default).collect();
            all.retain(|(key, _)| key.namespace() == own && self.allows(key, namespace));
            all.sort_by(|(one, a), (other, b)| b.created.cmp(&a.created).then(one.cmp(other)));
            all.first().map(|(key, _)| (*key).clone())
        };
        newest(Some(namespace)).or_else(|| newest(None))
    }

    fn registry_of(&self, key: &ModelKey) -> Option<RegistryKey> {
        match self.models.get(key)?.registry.clone() {
            Named::Unknown => None,
            Named::This(named) => self.allows(&named, &key.0).then_some(named),
            Named::None => self.default_of(&key.0),
        }
    }

    fn place(&self, key: &AliasKey) -> Option<Place> {
        let alias = &self.aliases[key];
        let followed = || {
            let model = (key.0.clone(), alias.model_ref.clone()?);
            let name = self.models.get(&model)?.name.clone()?;
            Some(Place { registry: self.identity(&self.registry_of(&model)?)?, model: name })
        };
        let last = || {
            let (url, workspace, model) = alias.last?;
            let url: url::Url = URLS[url].trim_end_matches('/').parse().unwrap();
            let registry = RegistryIdentity::new(&url, WORKSPACES[workspace]);
            Some(Place { registry, model: MODELS[model].to_owned() })
        };
        followed().or_else(last)
    }

    /// The others that claim an alias at a place, the oldest first.
    fn claimants(&self, place: &Place, alias: &str) -> Vec<AliasKey> {
        let claims = |it: &Alias| [&it.main, &it.previous].into_iter().any(|it| it.as_deref() == Some(alias));
        let at =
            self.aliases.iter().filter(|(key, it)| claims(it) && self.place(key).as_ref() == Some(place));
        let mut at: Vec<_> = at.map(|(key, it)| ((it.created, it.uid.clone()), key.clone())).collect();
        at.sort();
        at.into_iter().map(|(_, key)| key).collect()
    }

    /// Those that name a ModelAlias as a challenger.
    fn champions(&self, key: &AliasKey) -> Vec<AliasKey> {
        let names_it =
            |champion: &AliasKey, it: &Alias| champion.0 == key.0 && it.challengers.contains(&key.1);
        let champions = self.aliases.iter().filter(|(champion, it)| names_it(champion, it));
        champions.map(|(champion, _)| champion.clone()).collect()
    }

    fn view(&self, key: &AliasKey) -> View {
        let alias = &self.aliases[key];
        let place = self.place(key);
        let claims = [&alias.main, &alias.previous].into_iter().flatten();
        let owner = |claim: &String| self.claimants(place.as_ref()?, claim).into_iter().next();
        let owners = claims.map(owner).collect();
        let challenger = |name: &String| {
            let challenger = self.aliases.get(&(key.0.clone(), name.clone()))?;
            Some((challenger.uid.clone(), challenger.serves || !challenger.is_readable))
        };
        (place, owners, alias.challengers.iter().map(challenger).collect(), self.champions(key))
    }

    fn names_in(&self, registry: &RegistryKey) -> BTreeSet<(String, ModelKey)> {
        let models = self.models.iter().filter(|(key, _)| self.registry_of(key).as_ref() == Some(registry));
        models.filter_map(|(key, it)| Some((it.name.clone()?, key.clone()))).collect()
    }
}

/// The objects as the API server delivers them.
impl World {
    fn metadata(namespace: Option<&str>, name: &str, uid: &str, created: u8) -> Value {
        let at = format!("2026-01-{:02}T00:00:00Z", created + 1);
        json!({ "namespace": namespace, "name": name, "uid": uid, "creationTimestamp": at })
    }

    fn alias(&self, key: &AliasKey) -> Guarded<ModelAlias> {
        let alias = &self.aliases[key];
        let status = alias.last.map(|(url, workspace, model)| {
            let url = URLS[url].trim_end_matches('/');
            let registry =
                json!({ "kind": "K", "name": "n", "url": url, "workspace": WORKSPACES[workspace] });
            json!({ "modelName": MODELS[model], "registry": registry })
        });
        let version = if alias.is_readable { "4" } else { "four" };
        let challenger = |name: &String| json!({ "aliasRef": { "name": name }, "weight": 5 });
        let challengers: Vec<Value> = alias.challengers.iter().map(challenger).collect();
        let gateway = json!({ "parentRefs": [{ "name": "public" }] });
        serde_json::from_value(json!({
            "metadata": Self::metadata(Some(&key.0), &key.1, &alias.uid, alias.created),
            "spec": {
                "modelRef": { "name": alias.model_ref }, "alias": alias.main, "version": version,
                "previousAlias": alias.previous,
                "serving": alias.serves.then(|| json!({ "image": "i" })),
                "traffic": (!challengers.is_empty())
                    .then(|| json!({ "gateway": gateway, "challengers": challengers })),
            },
            "status": status,
        }))
        .unwrap()
    }

    fn model(&self, key: &ModelKey) -> Guarded<RegisteredModel> {
        let model = &self.models[key];
        let registry = match &model.registry {
            Named::Unknown => json!({ "kind": 1, "name": "n" }),
            Named::None => Value::Null,
            Named::This(key) => json!({ "kind": key.object().0.to_string(), "name": key.object().1 }),
        };
        let name = if model.name.is_none() { json!(7) } else { json!(model.name) };
        let policy = if model.is_readable { "Retain" } else { "Burn" };
        serde_json::from_value(json!({
            "metadata": Self::metadata(Some(&key.0), &key.1, &model.uid, 0),
            "spec": { "modelName": name, "registryRef": registry, "deletionPolicy": policy },
        }))
        .unwrap()
    }

    fn registry<K: serde::de::DeserializeOwned>(&self, key: &RegistryKey) -> K {
        let registry = &self.registries[key];
        let mut metadata = Self::metadata(key.namespace(), key.object().1, "r", registry.created);
        metadata["annotations"] = json!({ "laurel.dev/default": registry.is_default.to_string() });
        let url = registry.url.map_or("http://[", |url| URLS[url]);
        let selector = json!({ "selector": { "matchLabels": { "mlops": "yes" } } });
        serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {
                "mlflow": { "url": url, "workspace": WORKSPACES[registry.workspace] },
                "allowedNamespaces": registry.only_labelled.then_some(selector),
            },
        }))
        .unwrap()
    }

    fn namespace(&self, name: &str) -> PartialObjectMeta<Namespace> {
        let labels = if self.labelled.contains(name) { json!({ "mlops": "yes" }) } else { json!({}) };
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
    }
}

/// Random choices.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % end
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn of<'b>(&mut self, all: &[&'b str]) -> &'b str {
        all[self.below(all.len())]
    }

    fn key(&mut self) -> (String, String) {
        (self.of(&NAMESPACES).to_owned(), self.of(&["x", "y", "z"]).to_owned())
    }

    fn registry(&mut self) -> RegistryKey {
        let name = self.of(&["r", "s"]).to_owned();
        match self.below(3) {
            0 => RegistryKey::Cluster { name },
            namespace => RegistryKey::Object { namespace: NAMESPACES[namespace - 1].to_owned(), name },
        }
    }
}

/// Changes of the world.
impl World {
    fn uid(&mut self) -> String {
        self.uids += 1;
        // Not in the order of creation.
        format!("{}-{}", (self.uids * 7) % 10, self.uids)
    }

    fn change_alias(&mut self, key: &AliasKey, choices: &mut Choices<'_>) {
        let known = self.aliases.get(key).cloned().filter(|_| choices.flag());
        let (uid, created) = match &known {
            Some(known) => (known.uid.clone(), known.created),
            None => (self.uid(), u8::try_from(choices.below(3)).unwrap()),
        };
        let is_readable = choices.below(4) > 0;
        let says = |choices: &mut Choices<'_>| is_readable || choices.flag();
        let new = Alias {
            uid,
            created,
            is_readable,
            model_ref: says(choices).then(|| choices.of(&["x", "y"]).to_owned()),
            main: says(choices).then(|| choices.of(&ALIASES).to_owned()),
            previous: choices.flag().then(|| choices.of(&ALIASES).to_owned()),
            last: choices.flag().then(|| (choices.below(2), choices.below(3), choices.below(2))),
            challengers: (0..choices.below(3)).map(|_| choices.of(&["x", "y", "z"]).to_owned()).collect(),
            serves: choices.flag(),
        };
        self.aliases.insert(key.clone(), new);
    }

    /// What an object that cannot be parsed does not say, it said before.
    fn remember_alias(&mut self, key: &AliasKey, before: Option<&Alias>) {
        let Some(alias) = self.aliases.get_mut(key).filter(|alias| !alias.is_readable) else { return };
        // Its challengers are of interest only as far as they are known.
        alias.challengers.clear();
        let Some(before) = before.filter(|before| before.uid == alias.uid).cloned() else { return };
        alias.challengers = before.challengers;
        alias.model_ref = alias.model_ref.take().or(before.model_ref);
        alias.main = alias.main.take().or(before.main);
        alias.previous = alias.previous.take().or(before.previous);
        alias.last = alias.last.or(before.last);
    }

    fn change_model(&mut self, key: &ModelKey, choices: &mut Choices<'_>) {
        let known = self.models.get(key).cloned().filter(|_| choices.flag());
        let uid = known.map_or_else(|| self.uid(), |known| known.uid);
        let is_readable = choices.below(4) > 0;
        let says = |choices: &mut Choices<'_>| is_readable || choices.flag();
        let name = says(choices).then(|| choices.of(&MODELS).to_owned());
        let registry = match (says(choices), choices.flag()) {
            (false, _) => Named::Unknown,
            (true, false) => Named::None,
            // A name of a kind in a namespace means one of this namespace.
            (true, true) => Named::This(match choices.registry() {
                RegistryKey::Object { name, .. } => RegistryKey::Object { namespace: key.0.clone(), name },
                RegistryKey::Cluster { name } => RegistryKey::Cluster { name },
            }),
        };
        self.models.insert(key.clone(), Model { uid, is_readable, name, registry });
    }

    fn remember_model(&mut self, key: &ModelKey, before: Option<&Model>) {
        let Some(model) = self.models.get_mut(key).filter(|model| !model.is_readable) else { return };
        let Some(before) = before.filter(|before| before.uid == model.uid).cloned() else { return };
        model.name = model.name.take().or(before.name);
        if model.registry == Named::Unknown {
            model.registry = before.registry;
        }
    }

    fn change_registry(&mut self, key: &RegistryKey, choices: &mut Choices<'_>) {
        let new = Registered {
            created: u8::try_from(choices.below(3)).unwrap(),
            is_default: choices.flag(),
            url: (choices.below(4) > 0).then(|| choices.below(2)),
            workspace: choices.below(3),
            only_labelled: matches!(key, RegistryKey::Cluster { .. }) && choices.flag(),
        };
        self.registries.insert(key.clone(), new);
    }
}

/// Changes the world by what `choices` say, and tells the index. Returns what it says is concerned.
fn step(world: &mut World, index: &Index, choices: &mut Choices<'_>) -> Affected {
    let is_deleted = choices.below(4) == 0;
    match choices.below(9) {
        0..=2 => {
            let key = choices.key();
            let before = world.aliases.get(&key).cloned();
            if is_deleted && before.is_some() {
                let object = world.alias(&key);
                world.aliases.remove(&key);
                return index.alias_event(&Event::Delete(object));
            }
            world.change_alias(&key, choices);
            let object = world.alias(&key);
            world.remember_alias(&key, before.as_ref());
            index.alias_event(&Event::Apply(object))
        }
        3 | 4 => {
            let key = choices.key();
            let before = world.models.get(&key).cloned();
            if is_deleted && before.is_some() {
                let object = world.model(&key);
                world.models.remove(&key);
                return index.model_event(&Event::Delete(object));
            }
            world.change_model(&key, choices);
            let object = world.model(&key);
            world.remember_model(&key, before.as_ref());
            index.model_event(&Event::Apply(object))
        }
        5 | 6 => {
            let key = choices.registry();
            let is_deleted = is_deleted && world.registries.contains_key(&key);
            if !is_deleted {
                world.change_registry(&key, choices);
            }
            let is_cluster_wide = key.namespace().is_none();
            let affected = if is_cluster_wide {
                registry_event::<ClusterModelRegistry>(world, index, &key, is_deleted)
            } else {
                registry_event::<ModelRegistry>(world, index, &key, is_deleted)
            };
            if is_deleted {
                world.registries.remove(&key);
            }
            affected
        }
        7 => {
            let name = choices.of(&NAMESPACES);
            if is_deleted {
                let object = world.namespace(name);
                world.labelled.remove(name);
                return index.namespace_event(&Event::Delete(object));
            }
            if !world.labelled.remove(name) {
                world.labelled.insert(name.to_owned());
            }
            index.namespace_event(&Event::Apply(world.namespace(name)))
        }
        _ => relist(world, index, choices),
    }
}

fn registry_event<K: Describes + serde::de::DeserializeOwned>(
    world: &World,
    index: &Index,
    key: &RegistryKey,
    is_deleted: bool,
) -> Affected {
    let object: Guarded<K> = world.registry(key);
    index.registry_event(&if is_deleted { Event::Delete(object) } else { Event::Apply(object) })
}

/// The watch was interrupted: some objects were deleted, changed or created meanwhile.
fn relist(world: &mut World, index: &Index, choices: &mut Choices<'_>) -> Affected {
    let mut all = Affected::default();
    let mut add = |one: Affected| {
        all.aliases.extend(one.aliases);
        all.models.extend(one.models);
        all.gone.extend(one.gone);
    };
    if choices.flag() {
        let before = world.aliases.clone();
        world.aliases.retain(|_, _| choices.below(3) > 0);
        let changed = choices.key();
        world.change_alias(&changed, choices);
        add(index.alias_event(&Event::Init));
        for key in world.aliases.clone().keys() {
            let object = world.alias(key);
            world.remember_alias(key, before.get(key));
            add(index.alias_event(&Event::InitApply(object)));
        }
        add(index.alias_event(&Event::InitDone));
    } else {
        let before = world.models.clone();
        world.models.retain(|_, _| choices.below(3) > 0);
        let changed = choices.key();
        world.change_model(&changed, choices);
        add(index.model_event(&Event::Init));
        for key in world.models.clone().keys() {
            let object = world.model(key);
            world.remember_model(key, before.get(key));
            add(index.model_event(&Event::InitApply(object)));
        }
        add(index.model_event(&Event::InitDone));
    }
    all
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> T {
    name.parse().expect("it is a name")
}

/// Compares every answer of the index with the walk.
fn compare(world: &World, index: &Index) -> Result<(), TestCaseError> {
    for (key, alias) in &world.aliases {
        let place = world.place(key);
        prop_assert_eq!(index.champions(key), world.champions(key), "the champions of {:?}", key);
        prop_assert_eq!(index.place_of(key), place.clone(), "the place of {:?}", key);
        let metadata = world.alias(key);
        let Some(place) = place else { continue };
        for name in ALIASES {
            let claimants = world.claimants(&place, name);
            let age = |key: &AliasKey| (world.aliases[key].created, world.aliases[key].uid.clone());
            let older = claimants.first().filter(|first| age(first) < age(key)).cloned();
            let name: AliasName = parsed(name);
            let metadata = kube::Resource::meta(&metadata);
            prop_assert_eq!(index.older_claimant(&place, &name, metadata), older);
            let by_another = claimants.iter().any(|other| other != key);
            prop_assert_eq!(index.is_claimed_by_another(&place, &name, &alias.uid), by_another);
        }
    }
    for model in
        NAMESPACES.iter().flat_map(|ns| ["x", "y", "z"].map(|name| ((*ns).to_owned(), name.to_owned())))
    {
        let names_it = |key: &AliasKey, alias: &Alias| {
            key.0 == model.0 && alias.model_ref.as_deref() == Some(model.1.as_str())
        };
        let dependents =
            world.aliases.iter().filter(|(key, it)| names_it(key, it)).map(|(key, _)| key.clone());
        let dependents: Vec<_> = dependents.collect();
        let unreadable = world.aliases.iter().filter(|(key, it)| key.0 == model.0 && !it.is_readable);
        let may: BTreeSet<_> = unreadable.map(|(key, _)| key).chain(&dependents).cloned().collect();
        prop_assert_eq!(index.may_refer(&model), may);
        prop_assert_eq!(index.dependents(&model), dependents);
    }
    for key in world.registries.keys() {
        let names = world.names_in(key);
        let models: BTreeSet<_> = names.iter().map(|(_, model)| model.clone()).collect();
        prop_assert_eq!(index.users(key), models, "the users of {}", key);
        let distinct: BTreeSet<ModelName> = names.iter().map(|(name, _)| name.parse().unwrap()).collect();
        prop_assert_eq!(index.model_count(key), distinct.len());
        prop_assert_eq!(index.models_of(key), distinct);
        let one = BTreeSet::from([parsed::<ModelName>(MODELS[0])]);
        let about = names.iter().filter(|(name, _)| name == MODELS[0]).map(|(_, model)| model.clone());
        prop_assert_eq!(index.about(key, &one), about.collect::<BTreeSet<_>>());
    }
    for namespace in NAMESPACES {
        prop_assert_eq!(
            index.default_of(namespace),
            world.default_of(namespace),
            "the default of {}",
            namespace
        );
    }
    for name in MODELS {
        let namesakes =
            world.models.iter().filter(|(_, it)| it.name.as_deref() == Some(name) || !it.is_readable);
        let namesakes: BTreeSet<_> = namesakes.map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(index.namesakes(&parsed::<ModelName>(name)), namesakes);
    }
    Ok(())
}

/// Checks that an event named everything whose view it changed, except the object that it is about.
fn named(before: &World, after: &World, affected: &Affected) -> Result<(), TestCaseError> {
    for (key, alias) in &after.aliases {
        let Some(known) = before.aliases.get(key).filter(|known| *known == alias) else { continue };
        if before.view(key) != after.view(key) {
            prop_assert!(affected.aliases.contains(key), "{key:?} {known:?} was not named");
        }
    }
    for (key, model) in &after.models {
        let is_same = before.models.get(key) == Some(model);
        let place = |world: &World| {
            let registry = world.registry_of(key);
            let identity = registry.as_ref().and_then(|registry| world.identity(registry));
            (registry, identity)
        };
        if is_same && place(before) != place(after) {
            prop_assert!(affected.models.contains(key), "{key:?} was not named");
        }
    }
    let uids = |world: &World| world.aliases.values().map(|it| it.uid.clone()).collect::<BTreeSet<_>>();
    let gone: BTreeSet<_> = uids(before).difference(&uids(after)).cloned().collect();
    prop_assert_eq!(affected.gone.iter().cloned().collect::<BTreeSet<_>>(), gone);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_index_answers_as_a_walk_over_all_objects_does(
        steps in prop::collection::vec(prop::collection::vec(any::<u8>(), 24), 1..40)
    ) {
        let (mut world, index) = (World::default(), Index::default());
        for choices in &steps {
            let before = world.clone();
            let affected = step(&mut world, &index, &mut Choices(choices.iter()));
            named(&before, &world, &affected)?;
            compare(&world, &index)?;
        }
    }
}

/// A ModelAlias whose spec and status refer to these HTTPRoutes.
fn referring(name: &str, spec: Option<&str>, status: Option<&str>) -> Guarded<ModelAlias> {
    let mut alias = json!({
        "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelAlias",
        "metadata": { "name": name, "namespace": "a", "uid": name },
        "spec": { "modelRef": { "name": "fraud" }, "alias": name },
    });
    if let Some(route) = spec {
        alias["spec"]["traffic"] = json!({ "routeRef": { "name": route } });
    }
    if let Some(route) = status {
        alias["status"] = json!({ "routeRef": { "name": route } });
    }
    serde_json::from_value(alias).unwrap()
}

#[test]
fn a_change_of_a_route_concerns_those_that_refer_to_it_and_nobody_else() {
    let index = Index::default();
    let key = |name: &str| ("a".to_owned(), name.to_owned());
    let referrers = |route: &str| index.route_referrers(&key(route));
    index.alias_event(&Event::Apply(referring("one", Some("public"), None)));
    index.alias_event(&Event::Apply(referring("two", Some("public"), Some("former"))));
    index.alias_event(&Event::Apply(referring("three", None, None)));
    assert_eq!(referrers("public"), [key("one"), key("two")]);
    assert_eq!(referrers("former"), [key("two")], "it is still to be handed back");
    assert_eq!(index.route_referrers(&("b".to_owned(), "public".to_owned())), []);
    index.alias_event(&Event::Apply(referring("two", Some("public"), Some("public"))));
    assert_eq!((referrers("former"), referrers("public").len()), (vec![], 2));
    index.alias_event(&Event::Delete(referring("one", Some("public"), None)));
    index.alias_event(&Event::Apply(referring("two", None, None)));
    assert_eq!(referrers("public"), []);
}
