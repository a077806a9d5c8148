//! Blockers of a ModelAlias.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::sources::Sources;
use crate::{
    api::{
        ModelAlias, ModelAliasSpec, ModelAliasStatus,
        condition::{Reason, ReasonMessage},
        names::AliasName,
    },
    cluster::Guarded,
    cluster::cache::Foreign,
    decide::{Blocker, BlockerScope},
    render,
    resolve::{Model, Subject},
};

/// Returns what blocks work on a ModelAlias. Without a current view of the cluster nothing is allowed; any
/// other blocker leaves traffic and the size of existing Deployments.
pub(super) fn blocker(sources: &Sources<'_>, subject: &Subject<'_>) -> Option<Blocker> {
    if let Some(cause) = sources.readiness.blind() {
        return Some(Blocker { cause, scope: BlockerScope::Everything });
    }
    let foreign = sources.cluster.foreign(&subject.key, &subject.uid);
    let scope = match foreign {
        Some(Foreign::Service(_)) => BlockerScope::ChangesAndService,
        Some(Foreign::Deployment(_)) | None => BlockerScope::Changes,
    };
    let cause = blocker_of_changes(sources, subject, foreign)?;
    Some(Blocker { cause, scope })
}

/// Whether the registry's data applies to this ModelAlias, so that it can be followed.
pub(super) fn hides_registry(blocker: &Blocker) -> bool {
    !matches!(blocker.cause.reason, Reason::NameTaken | Reason::InvalidTemplate)
}

fn blocker_of_changes(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    foreign: Option<Foreign>,
) -> Option<ReasonMessage> {
    let model = match &subject.model {
        Ok(model) => model,
        Err(cause) => return Some(cause.clone()),
    };
    if !model.registry.client().map_or(true, |client| client.capabilities().aliases) {
        return Some(ReasonMessage::new(
            Reason::RegistryUnsupported,
            "this registry has no aliases, which a ModelAlias needs",
        ));
    }
    let claimed = older_claim(sources, subject, model).or_else(|| other_model(&subject.status, model));
    if claimed.is_some() {
        return claimed;
    }
    if let Some(foreign) = foreign {
        let object = match foreign {
            Foreign::Service(name) => format!("Service {name:?}"),
            Foreign::Deployment(name) => format!("Deployment {name:?}"),
        };
        let message = format!(
            "the {object} has our label but belongs to another object; delete it, or rename this ModelAlias"
        );
        return Some(ReasonMessage::new(Reason::NameTaken, message));
    }
    let error = render::validate(&subject.rendering()?).err()?;
    Some(ReasonMessage::new(Reason::InvalidTemplate, format!("spec.{error}")))
}

/// Who has an alias of a model in their spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// This ModelAlias, as its main alias, or another one.
    Known,
    /// Perhaps a ModelAlias that cannot be parsed.
    Possible {
        /// Its namespace and name.
        by: String,
    },
    /// Nobody.
    None,
}

/// Returns who has an alias of a model in their spec.
pub(super) fn claim(sources: &Sources<'_>, subject: &Subject<'_>, model: &Model, alias: &AliasName) -> Claim {
    if subject.spec().alias == *alias {
        return Claim::Known;
    }
    let is_of_model = |other: &ModelAlias| is_of_model(sources, other, model);
    claim_of_others(&sources.aliases.state(), &subject.uid, alias, is_of_model)
}

/// Whoever cannot be parsed may have any alias, of any model.
fn claim_of_others(
    others: &[Arc<Guarded<ModelAlias>>],
    uid: &str,
    alias: &AliasName,
    is_of_model: impl Fn(&ModelAlias) -> bool,
) -> Claim {
    let claims = |other: &ModelAlias| {
        let spec = &other.spec;
        let names = spec.alias == *alias || spec.previous_alias.as_ref() == Some(alias);
        other.metadata.uid.as_deref() != Some(uid) && names && is_of_model(other)
    };
    if others.iter().any(|other| other.0.as_ref().is_ok_and(claims)) {
        return Claim::Known;
    }
    let unreadable = others.iter().filter(|other| other.0.is_err());
    let named =
        unreadable.map(|other| format!("{}/{}", other.namespace().unwrap_or_default(), other.name_any()));
    named.min().map_or(Claim::None, |by| Claim::Possible { by })
}

/// Whether a ModelAlias is about this model. Where what it refers to is gone for now, it keeps what it had.
fn is_of_model(sources: &Sources<'_>, alias: &ModelAlias, model: &Model) -> bool {
    let known = || alias.status.as_ref().and_then(|status| status.model_name.clone());
    sources.references.follow(alias).map_or_else(
        |_| known().as_deref() == Some(model.name.as_str()),
        |theirs| (theirs.registry.identity(), &theirs.name) == (model.registry.identity(), &model.name),
    )
}

/// Returns an older ModelAlias that claims one of this one's two aliases, of the same model in the same
/// registry.
fn older_claim(sources: &Sources<'_>, subject: &Subject<'_>, model: &Model) -> Option<ReasonMessage> {
    let age = |metadata: &ObjectMeta| {
        (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.uid.clone())
    };
    let claims = |spec: &ModelAliasSpec| [Some(spec.alias.clone()), spec.previous_alias.clone()];
    let wanted = claims(subject.spec());
    sources.aliases.state().iter().filter_map(|other| other.0.as_ref().ok()).find_map(|other| {
        let shared =
            claims(&other.spec).into_iter().flatten().find(|claim| wanted.contains(&Some(claim.clone())))?;
        let is_older = other.metadata.uid.as_ref() != Some(&subject.uid)
            && age(&other.metadata) < age(subject.metadata());
        let field = if shared == subject.spec().alias { "spec.alias" } else { "spec.previousAlias" };
        (is_older && is_of_model(sources, other, model)).then(|| {
            let message = format!(
                "{field}: the alias {:?} of the model {:?} belongs to the older ModelAlias {}/{}; name \
                 another alias, or delete one of the two",
                shared.as_str(),
                model.name.as_str(),
                other.namespace().unwrap_or_default(),
                other.name_any()
            );
            ReasonMessage::new(Reason::Conflict, message)
        })
    })
}

/// Reports that the RegisteredModel names a different model than the one that this alias has served.
fn other_model(status: &ModelAliasStatus, model: &Model) -> Option<ReasonMessage> {
    let before = status
        .model_name
        .as_ref()
        .filter(|before| status.version.is_some() && **before != model.name.as_str())?;
    let message = format!(
        "spec.modelRef leads to the model {:?} now, but this ModelAlias serves the model {before:?}: its \
         RegisteredModel was created again with another modelName; name {before:?} there again, or delete \
         this ModelAlias",
        model.name.as_str()
    );
    Some(ReasonMessage::new(Reason::VersionReplaced, message))
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectMeta, error_boundary::InvalidObject};
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn metadata(name: &str) -> ObjectMeta {
        serde_json::from_value(json!({ "namespace": "risk", "name": name, "uid": name })).unwrap()
    }

    fn unreadable(name: &str) -> Arc<Guarded<ModelAlias>> {
        let invalid = InvalidObject { error: "no".into(), metadata: metadata(name) };
        Arc::new(kube::core::DeserializeGuard(Err(invalid)))
    }

    fn other(name: &str, alias: &str) -> Arc<Guarded<ModelAlias>> {
        let spec = json!({ "modelRef": { "name": "fraud" }, "alias": alias, "version": "1" });
        let spec = serde_json::from_value(spec).unwrap();
        Arc::new(kube::core::DeserializeGuard(Ok(ModelAlias {
            metadata: metadata(name),
            spec,
            status: None,
        })))
    }

    #[test]
    fn promise_3_an_alias_may_be_claimed_by_whoever_cannot_be_parsed() {
        let claim = |others: &[Arc<Guarded<ModelAlias>>]| {
            claim_of_others(others, "us", &"previous".parse().unwrap(), |_| true)
        };
        let possible = Claim::Possible { by: "risk/a".to_owned() };
        assert_eq!(claim(&[other("us", "previous"), other("x", "champion")]), Claim::None);
        assert_eq!(claim(&[unreadable("b"), unreadable("a"), other("x", "champion")]), possible);
        assert_eq!(claim(&[unreadable("b"), other("x", "previous")]), Claim::Known);
    }
}
