//! Blockers of a ModelAlias.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::sources::Sources;
use crate::{
    api::{
        ModelAlias, ModelAliasSpec, ModelAliasStatus,
        condition::{Reason, ReasonMessage},
        names::AliasName,
    },
    cluster::cache::{Claim, Foreign, ForeignCause, ForeignKind},
    decide::{Blocker, BlockerScope},
    render::{self, labels},
    resolve::{Model, Subject},
};

/// Returns what blocks work on a ModelAlias. Without a current view of the cluster nothing is allowed; any
/// other blocker leaves traffic and the size of existing Deployments.
pub(super) fn blocker(sources: &Sources<'_>, subject: &Subject<'_>) -> Option<Blocker> {
    if let Some(cause) = sources.readiness.blind() {
        return Some(Blocker { cause, scope: BlockerScope::Everything });
    }
    // Without `spec.serving`, what has these names is in nobody's way.
    let serves = subject.spec().serving.is_some();
    let foreign = sources.cluster.foreign(&subject.key, &subject.claim()).filter(|_| serves);
    let scope = match foreign.as_ref().map(|foreign| foreign.kind) {
        Some(ForeignKind::Service) => BlockerScope::ChangesAndService,
        Some(ForeignKind::Deployment) | None => BlockerScope::Changes,
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
        return Some(name_taken(&foreign, &subject.claim()));
    }
    let error = render::validate(&subject.rendering()?).err()?;
    Some(ReasonMessage::new(Reason::InvalidTemplate, format!("spec.{error}")))
}

/// Reports an object that has the labels of a ModelAlias, but is not its own.
fn name_taken(foreign: &Foreign, claim: &Claim<'_>) -> ReasonMessage {
    let object = format!("the {} {:?}", foreign.kind, foreign.name);
    let message = match &foreign.cause {
        ForeignCause::Owner => format!(
            "{object} has our label but belongs to another object; delete it, or rename this ModelAlias"
        ),
        ForeignCause::Name(name) => format!(
            "{object} has the labels of {name:?}, so requests may reach its pods; delete it, or remove the \
             labels with the prefix laurel.dev/ from it and its pods"
        ),
        ForeignCause::Model(model) => format!(
            "{object} was created for the model {model:?} (annotation {}), but spec.modelRef leads to {}; \
             delete it, or rename this ModelAlias",
            labels::MODEL_NAME,
            claim.model.map_or_else(|| "none".to_owned(), |model| format!("the model {model:?}")),
        ),
        ForeignCause::Alias(alias) => format!(
            "{object} was created for the alias {alias:?} (label {}), but spec.alias is {:?}; delete it, or \
             rename this ModelAlias",
            labels::ALIAS,
            claim.alias,
        ),
    };
    ReasonMessage::new(Reason::NameTaken, message)
}

/// Whether an alias of a model is in the spec of a ModelAlias: of this one as its main alias, or of another
/// one.
pub(super) fn is_claimed(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    model: &Model,
    alias: &AliasName,
) -> bool {
    let is_other = |other: &ModelAlias| other.metadata.uid.as_ref() != Some(&subject.uid);
    subject.spec().alias == *alias
        || sources.aliases.state().iter().filter_map(|other| other.0.as_ref().ok()).any(|other| {
            let spec = &other.spec;
            let names = spec.alias == *alias || spec.previous_alias.as_ref() == Some(alias);
            is_other(other) && names && is_of_model(sources, other, model)
        })
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
