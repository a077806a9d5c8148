//! The backends of one ModelAlias in an HTTPRoute of somebody else.
//!
//! Its rules are those that send requests to the Service with its name, or to the Services of its versions.
//! In them, its own backends are replaced, and the filters that copy requests to a version or to a challenger
//! are added or removed. Nothing else is changed: every other rule, field, filter and backend stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::http_route::{REQUEST_MIRROR, SERVICE, VERSION_SERVICE_PORT, copies, shadow, version};
use crate::{
    api::names::{Version, deployment_name},
    decide::{ChallengerShare, Mirror, Shadow, Shares},
};

/// The ModelAlias that a route is read and written for.
#[derive(Clone, Debug)]
pub struct Referrer<'a> {
    /// Its namespace, which is that of the route.
    pub namespace: &'a str,
    /// Its name, which is that of its Service.
    pub name: &'a str,
    /// The rule that it refers to; `None` for all that name it.
    pub rule: Option<&'a str>,
    /// The names of its challengers, and of those that it had.
    pub challengers: BTreeSet<String>,
    /// The names of other `ModelAliases` that look like the Service of a version of this one.
    pub namesakes: BTreeSet<String>,
}

/// What a route of somebody else has for a ModelAlias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferredShares {
    /// The weights, as parts of the whole. If rules differ, the largest of each.
    pub shares: Shares,
    /// Whether the rules differ from how they would be written for these weights.
    pub outdated: bool,
    /// Why requests cannot be shared in it, after "the HTTPRoute NAME".
    pub unusable: Option<String>,
}

/// What a backend is to a ModelAlias.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Backend {
    Service,
    Version(Version),
    Challenger(String),
    /// It belongs to somebody else.
    Foreign(String),
}

impl Referrer<'_> {
    fn backend(&self, reference: &Value) -> Backend {
        let text = |key: &str| reference.get(key).and_then(Value::as_str);
        let name = text("name").unwrap_or_default();
        let kind = text("kind").unwrap_or(SERVICE);
        let is_near = text("namespace").is_none_or(|namespace| namespace == self.namespace);
        if kind != SERVICE || !text("group").unwrap_or_default().is_empty() || !is_near {
            return Backend::Foreign(format!("{kind} {name:?}"));
        }
        if name == self.name {
            return Backend::Service;
        }
        match version(name, self.name).filter(|_| !self.namesakes.contains(name)) {
            Some(version) => Backend::Version(version),
            None if self.challengers.contains(name) => Backend::Challenger(name.to_owned()),
            None => Backend::Foreign(format!("{kind} {name:?}")),
        }
    }

    /// Returns the backends of a rule, if it is one of this ModelAlias.
    fn backends<'r>(&self, rule: &'r Value) -> Option<Vec<(Backend, &'r Value)>> {
        if self.rule.is_some_and(|name| rule["name"] != name) {
            return None;
        }
        let backends = list(rule, "backendRefs").iter().map(|reference| (self.backend(reference), reference));
        let backends: Vec<_> = backends.collect();
        let is_own = |(it, _): &(Backend, _)| matches!(it, Backend::Service | Backend::Version(_));
        backends.iter().any(is_own).then_some(backends)
    }

    /// Returns the version or the challenger that a filter copies requests to.
    fn copied_to(&self, filter: &Value) -> Option<Backend> {
        let reference =
            filter.pointer("/requestMirror/backendRef").filter(|_| filter["type"] == REQUEST_MIRROR)?;
        match self.backend(reference) {
            Backend::Service | Backend::Foreign(_) => None,
            own @ (Backend::Version(_) | Backend::Challenger(_)) => Some(own),
        }
    }

    /// Returns who gets copies by these filters: at most one version, and challengers.
    fn copies(&self, filters: &[Value]) -> (Option<Mirror>, BTreeMap<String, Shadow>) {
        let (mut mirror, mut shadows) = (None, BTreeMap::new());
        for filter in filters {
            match (self.copied_to(filter), shadow(filter)) {
                (Some(Backend::Version(version)), Some((_, shadow))) => {
                    mirror.get_or_insert(Mirror { version, per_cent: shadow.per_cent });
                }
                (Some(Backend::Challenger(name)), Some((_, shadow))) => drop(shadows.insert(name, shadow)),
                _ => {}
            }
        }
        (mirror, shadows)
    }
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn weight(reference: &Value) -> u64 {
    reference.get("weight").map_or(1, |weight| weight.as_u64().unwrap_or_default())
}

/// Returns the parts of a rule that [`read`] looks at.
#[must_use]
pub fn projection(rule: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["name", "backendRefs"] {
        kept.extend(rule.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    let mirrors = list(rule, "filters").iter().filter(|filter| filter["type"] == REQUEST_MIRROR);
    kept.insert("filters".to_owned(), mirrors.cloned().collect());
    Value::Object(kept)
}

/// Returns what the rules of a route have for a ModelAlias.
#[must_use]
pub fn read(rules: &[Value], referrer: &Referrer<'_>) -> ReferredShares {
    let own: Vec<_> = rules.iter().filter_map(|rule| Some((rule, referrer.backends(rule)?))).collect();
    let mut all = own.iter().map(|(rule, backends)| shares_of(rule, backends, referrer));
    let first = all.next().unwrap_or_default();
    let (shares, differ) = all.fold((first, false), |(shares, differ), other| {
        let differs = differ || shares != other;
        (if shares == other { shares } else { largest(&shares, &other) }, differs)
    });
    ReferredShares {
        outdated: differ || rewrite(rules, referrer, &shares, VERSION_SERVICE_PORT).is_some(),
        shares,
        unusable: unusable(rules, referrer, own.iter().flat_map(|(_, backends)| backends)),
    }
}

fn unusable<'b>(
    rules: &[Value],
    referrer: &Referrer<'_>,
    own: impl Iterator<Item = &'b (Backend, &'b Value)>,
) -> Option<String> {
    let mut own = own.peekable();
    let alias = referrer.name;
    if own.peek().is_none() {
        let is_named = |name: &str| rules.iter().any(|rule| rule["name"] == name);
        return Some(match referrer.rule {
            Some(rule) if !is_named(rule) => {
                format!("has no rule with the name {rule:?}; correct spec.traffic.routeRef.rule")
            }
            Some(rule) => format!(
                "does not send requests to the Service {alias:?} in its rule {rule:?}; add that backend"
            ),
            None => {
                format!("has no rule that sends requests to the Service {alias:?}; add that backend to one")
            }
        });
    }
    let foreign = own.find_map(|(backend, _)| match backend {
        Backend::Foreign(what) => Some(what),
        Backend::Service | Backend::Version(_) | Backend::Challenger(_) => None,
    })?;
    Some(format!(
        "sends requests of a rule with the backend {alias:?} to the {foreign} as well, which is neither this \
         ModelAlias nor one of spec.traffic.challengers; give it a rule of its own, or list the ModelAlias \
         as a challenger"
    ))
}

/// Returns the weights of a rule, as parts of the whole.
fn shares_of(rule: &Value, backends: &[(Backend, &Value)], referrer: &Referrer<'_>) -> Shares {
    let own = backends.iter().filter(|(backend, _)| !matches!(backend, Backend::Foreign(_)));
    let weights: Vec<(&Backend, &Value, u64)> = own.map(|(it, value)| (it, *value, weight(value))).collect();
    let sum = weights.iter().map(|(_, _, weight)| *weight).fold(0, u64::saturating_add);
    let whole = u64::from(Shares::WHOLE);
    // What is named keeps the least share.
    let part = |weight: u64| match sum {
        0 => 0,
        _ if sum == whole || weight == 0 => weight,
        _ => (u128::from(weight) * u128::from(whole) / u128::from(sum)).max(1).try_into().unwrap_or(whole),
    };
    let mut parts: Vec<u64> = weights.iter().map(|(_, _, weight)| part(*weight)).collect();
    let given: u64 = parts.iter().sum();
    if let Some(most) = parts.iter_mut().max().filter(|_| sum > 0) {
        *most = (*most + whole).saturating_sub(given);
    }
    let mut versions: BTreeMap<Version, u32> = BTreeMap::new();
    let (mut service, mut challengers) = (0, BTreeMap::<String, ChallengerShare>::new());
    for ((backend, value, _), part) in weights.into_iter().zip(parts) {
        let part = u32::try_from(part).unwrap_or(Shares::WHOLE);
        match backend {
            Backend::Service => service += part,
            Backend::Version(version) => *versions.entry(*version).or_default() += part,
            Backend::Challenger(name) => {
                let number = value.get("port").and_then(Value::as_u64).and_then(|it| it.try_into().ok());
                let share = ChallengerShare { port: number.unwrap_or_default(), weight: 0 };
                challengers.entry(name.clone()).or_insert(share).weight += part;
            }
            Backend::Foreign(_) => {}
        }
    }
    let (mirror, shadows) = referrer.copies(list(rule, "filters"));
    let shares = versions.into_iter().collect::<Shares>().with_service(service);
    let mut shares = shares.with_mirror(mirror).with_shadows(shadows);
    for (name, share) in challengers {
        shares.add_challenger(&name, share);
    }
    shares
}

/// Returns the larger one of each two weights: what one of the rules names is named.
fn largest(one: &Shares, other: &Shares) -> Shares {
    let mut versions: BTreeMap<Version, u32> = one.iter().collect();
    for (version, weight) in other.iter() {
        let known = versions.entry(version).or_default();
        *known = weight.max(*known);
    }
    let mirror = one.mirror().or_else(|| other.mirror());
    let service = one.service().max(other.service());
    let mut shadows = other.shadows().clone();
    shadows.extend(one.shadows().clone());
    let shares = versions.into_iter().collect::<Shares>().with_service(service);
    let mut shares = shares.with_mirror(mirror).with_shadows(shadows);
    for (name, share) in other.challengers().iter().chain(one.challengers()) {
        shares.add_challenger(name, *share);
    }
    shares
}

/// Returns the rules of a route with these weights; `None` if they have them. `port` is that of the Service
/// with the ModelAlias's name, for where the route does not name it.
#[must_use]
pub fn rewrite(rules: &[Value], referrer: &Referrer<'_>, shares: &Shares, port: i32) -> Option<Vec<Value>> {
    let rewritten: Vec<Value> = rules
        .iter()
        .map(|rule| match referrer.backends(rule) {
            Some(backends) => rewritten(rule, &backends, referrer, shares, port),
            None => rule.clone(),
        })
        .collect();
    (rewritten != rules).then_some(rewritten)
}

fn rewritten(
    rule: &Value,
    backends: &[(Backend, &Value)],
    referrer: &Referrer<'_>,
    shares: &Shares,
    port: i32,
) -> Value {
    let mut rule = rule.clone();
    let is_back = matches!(backends, [(Backend::Service, reference)] if weight(reference) > 0);
    if !(is_back && shares.are_handed_back()) {
        rule["backendRefs"] = backend_refs(backends, referrer, shares, port).into();
    }
    let filters = list(&rule, "filters");
    let with_copies = with_copies(filters, referrer, shares);
    if with_copies.is_empty() && !filters.is_empty() {
        rule.as_object_mut().map(|rule| rule.remove("filters"));
    } else if with_copies != filters {
        rule["filters"] = with_copies.into();
    }
    rule
}

/// Returns the backends of a rule: those of the ModelAlias in the place of the first of them.
fn backend_refs(
    backends: &[(Backend, &Value)],
    referrer: &Referrer<'_>,
    shares: &Shares,
    port: i32,
) -> Vec<Value> {
    let is_foreign = |(backend, _): &&(Backend, &Value)| matches!(backend, Backend::Foreign(_));
    let own = || backends.iter().filter(|backend| !is_foreign(backend));
    // What else a backend has, as filters, is the same for all of them.
    let template = own().next().and_then(|(_, reference)| reference.as_object()).cloned().unwrap_or_default();
    let reference = |name: &str, port: i32, weight: u32| {
        let mut reference = template.clone();
        let fields = json!({ "group": "", "kind": SERVICE, "name": name, "port": port, "weight": weight });
        reference.extend(fields.as_object().cloned().unwrap_or_default());
        Value::Object(reference)
    };
    let known_port =
        own().find(|(backend, _)| *backend == Backend::Service).and_then(|(_, it)| it["port"].as_i64());
    let port = known_port.and_then(|port| port.try_into().ok()).unwrap_or(port);
    // Alone, it has the weight that the API server gives it, unless others have shares.
    let is_alone = shares.are_handed_back() && backends.iter().all(|it| !is_foreign(&it));
    let sum = || own().map(|(_, it)| weight(it)).fold(0, u64::saturating_add);
    let service = match shares.service() {
        0 => None,
        _ if is_alone => Some(1),
        _ if shares.are_handed_back() => Some(u32::try_from(sum()).unwrap_or(Shares::WHOLE)),
        weight => Some(weight),
    };
    let service = service.map(|weight| reference(referrer.name, port, weight));
    let versions = shares.iter().map(|(version, weight)| {
        reference(&deployment_name(referrer.name, version), VERSION_SERVICE_PORT, weight)
    });
    let challengers =
        shares.challengers().iter().map(|(name, share)| reference(name, share.port.into(), share.weight));
    let new: Vec<Value> = service.into_iter().chain(versions).chain(challengers).collect();
    let first = backends.iter().position(|backend| !is_foreign(&backend)).unwrap_or_default();
    let before = backends[..first].iter();
    let after = backends[first..].iter().filter(is_foreign);
    let kept = |(_, reference): &(Backend, &Value)| (*reference).clone();
    before.map(kept).chain(new).chain(after.map(kept)).collect()
}

/// Returns filters with those that copy requests as `shares` say: in the places that they have, or else last.
fn with_copies(filters: &[Value], referrer: &Referrer<'_>, shares: &Shares) -> Vec<Value> {
    let own = |mirror: Mirror| {
        copies(&deployment_name(referrer.name, mirror.version), VERSION_SERVICE_PORT, mirror.per_cent)
    };
    let shadow = |(name, it): (&String, &Shadow)| copies(name, it.port.into(), it.per_cent);
    let mut due: Vec<Value> =
        shares.mirror().map(own).into_iter().chain(shares.shadows().iter().map(shadow)).collect();
    let mut kept = Vec::with_capacity(filters.len() + due.len());
    for filter in filters {
        if let Some(index) = due.iter().position(|due| due == filter) {
            kept.push(due.remove(index));
        } else if referrer.copied_to(filter).is_none() {
            kept.push(filter.clone());
        }
    }
    kept.extend(due);
    kept
}

#[cfg(test)]
mod tests;
