//! What is seen of challengers and champions: other `ModelAliases` of the same namespace.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};

use super::sources::Sources;
use crate::{
    api::{ModelAlias, model_alias::AliasKey, names::Version},
    cluster::{Guarded, cache::Claim},
    decide::{ChallengerView, ChampionView},
    render,
    resolve::{Referral, Subject},
};

/// Returns the challengers that the spec or the route names. There are a few at most.
pub(super) fn challengers(sources: &Sources<'_>, subject: &Subject<'_>) -> BTreeMap<String, ChallengerView> {
    let (namespace, name) = &subject.key;
    let desired = subject.spec().traffic.iter().flat_map(|traffic| &traffic.challengers);
    let desired = desired.map(|challenger| challenger.alias_ref.name.clone());
    let route = sources.cluster.route(&subject.key);
    let named = route.map(|route| route.challengers(name)).unwrap_or_default();
    let referred = subject.referral().and_then(|referral| {
        let route = referral.route(sources.cluster)?;
        Some(route.challengers(&referral.referrer(&route, sources.aliases)))
    });
    let all: BTreeSet<String> = desired.chain(named).chain(referred.into_iter().flatten()).collect();
    let view = |challenger: String| {
        let view = challenger_view(sources, name, &(namespace.clone(), challenger.clone()));
        (challenger, view)
    };
    all.into_iter().map(view).collect()
}

fn challenger_view(sources: &Sources<'_>, champion: &str, key: &AliasKey) -> ChallengerView {
    let excluded = |why: String| ChallengerView { service: None, excluded: Some(why) };
    let (namespace, name) = key;
    if render::is_version_service(name, champion) {
        return excluded(format!(
            "its Service has the name of a Service of a version of {champion:?}; rename the challenger"
        ));
    }
    let Some(object) = sources.aliases.get(&ObjectRef::new(name).within(namespace)) else {
        return excluded(format!("there is no ModelAlias {name:?} in the namespace {namespace:?}"));
    };
    let uid = object.uid().unwrap_or_default();
    let readable = object.0.as_ref().ok();
    let alias = match &object.0 {
        Ok(alias) => alias.spec.alias.as_str(),
        Err(unreadable) => unreadable.text("/spec/alias").unwrap_or_default(),
    };
    let status = readable.and_then(|alias| alias.status.as_ref());
    let claim = Claim { uid: &uid, model: status.and_then(|status| status.model_name.as_deref()), alias };
    let serves = status.and_then(|status| status.version);
    ChallengerView {
        service: sources.cluster.challenger(key, &claim, serves),
        excluded: why_excluded(&object, readable)
            .or_else(|| withdrawn(sources, &(namespace.clone(), champion.to_owned()), name, serves?)),
    }
}

/// Why an experiment has taken the share from this version of a challenger, if one has.
fn withdrawn(
    sources: &Sources<'_>,
    champion: &AliasKey,
    challenger: &str,
    version: Version,
) -> Option<String> {
    let experiment = sources.index().withdrawn_by(champion, challenger, version)?;
    Some(format!(
        "version {version} was withdrawn by the ModelExperiment {experiment:?}, because a guardrail found it worse"
    ))
}

/// Why a challenger gets no share, even while its Service still answers. One that cannot be parsed may be
/// fine.
fn why_excluded(object: &Guarded<ModelAlias>, readable: Option<&ModelAlias>) -> Option<String> {
    if object.meta().deletion_timestamp.is_some() {
        return Some("it is being deleted".to_owned());
    }
    let serves = readable.is_none_or(|alias| alias.spec.serving.is_some());
    (!serves).then(|| "it has no spec.serving".to_owned())
}

/// Returns the `ModelAliases` that name this one as a challenger. The route of one that is being deleted goes
/// anyway, and that of a suspended one stays as it is.
pub(super) fn champions(sources: &Sources<'_>, subject: &Subject<'_>) -> BTreeMap<String, ChampionView> {
    if !sources.manages_routes {
        return BTreeMap::new();
    }
    let view = |key: AliasKey| {
        let object = sources.aliases.get(&ObjectRef::new(&key.1).within(&key.0))?;
        let is_active = |it: &&ModelAlias| it.metadata.deletion_timestamp.is_none() && !it.spec.suspend;
        let champion = object.0.as_ref().ok().filter(is_active)?;
        let status = champion.status.clone().unwrap_or_default();
        let referral = Referral::of(&key, &champion.spec, &status).filter(|_| status.route_ref.is_some());
        let route = match referral {
            Some(referral) => referral.route(sources.cluster).map(|route| {
                let named = route.challengers(&referral.referrer(&route, sources.aliases));
                route.of_champion(&named, status.route.as_ref(), &subject.key.1)
            }),
            None => sources.cluster.champion_route(&key, status.route.as_ref(), &subject.key.1),
        };
        Some((key.1, ChampionView { route }))
    };
    sources.index().champions(&subject.key).into_iter().filter_map(view).collect()
}
