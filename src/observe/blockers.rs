//! What forbids any action at all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::model_alias::Sources;
use crate::{
    api::{
        ModelAliasSpec, ModelAliasStatus,
        condition::{Reason, ReasonMessage},
    },
    render,
    resolve::{Model, Subject},
};

/// What forbids any action at all.
pub(super) fn blocker(sources: &Sources<'_>, subject: &Subject<'_>) -> Option<ReasonMessage> {
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
    if let Some(foreign) = sources.cluster.foreign(&subject.key, &subject.uid) {
        let message = format!(
            "the {foreign} has our label but belongs to another object; delete it, or rename this ModelAlias"
        );
        return Some(ReasonMessage::new(Reason::NameTaken, message));
    }
    let error = render::validate(&subject.rendering()?).err()?;
    Some(ReasonMessage::new(Reason::InvalidTemplate, format!("spec.{error}")))
}

/// Another ModelAlias that claimed one of this one's two aliases, of the same model in the same registry, before it.
fn older_claim(sources: &Sources<'_>, subject: &Subject<'_>, model: &Model) -> Option<ReasonMessage> {
    let age = |metadata: &ObjectMeta| {
        (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.uid.clone())
    };
    let ours = (model.registry.identity(), &model.name);
    let claims = |spec: &ModelAliasSpec| [Some(spec.alias.clone()), spec.previous_alias.clone()];
    let wanted = claims(subject.spec());
    sources.aliases.state().iter().filter_map(|other| other.0.as_ref().ok()).find_map(|other| {
        let shared = claims(&other.spec).into_iter().flatten().find(|claim| wanted.contains(&Some(claim.clone())))?;
        let is_older = other.metadata.uid.as_ref() != Some(&subject.uid) && age(&other.metadata) < age(subject.metadata());
        let is_same = || {
            // Where what it refers to is gone for now, it keeps what it had.
            let known = || other.status.as_ref().and_then(|status| status.model_name.clone());
            sources.references.follow(other).map_or_else(
                |_| known().as_deref() == Some(model.name.as_str()),
                |theirs| (theirs.registry.identity(), &theirs.name) == ours,
            )
        };
        let field = if shared == subject.spec().alias { "spec.alias" } else { "spec.previousAlias" };
        (is_older && is_same()).then(|| {
            let message = format!(
                "{field}: the alias {:?} of the model {:?} belongs to the older ModelAlias {}/{}; name another alias, or delete \
                 one of the two",
                shared.as_str(),
                model.name.as_str(),
                other.namespace().unwrap_or_default(),
                other.name_any()
            );
            ReasonMessage::new(Reason::Conflict, message)
        })
    })
}

/// That the RegisteredModel names another model than the one that this alias has served.
fn other_model(status: &ModelAliasStatus, model: &Model) -> Option<ReasonMessage> {
    let before = status
        .model_name
        .as_ref()
        .filter(|before| status.version.is_some() && **before != model.name.as_str())?;
    let message = format!(
        "spec.modelRef leads to the model {:?} now, but this ModelAlias serves the model {before:?}: its RegisteredModel was \
         made anew with another modelName; name {before:?} there again, or delete this ModelAlias",
        model.name.as_str()
    );
    Some(ReasonMessage::new(Reason::VersionReplaced, message))
}
