//! Blockers of a ModelAlias.

use super::sources::Sources;
use crate::{
    api::{
        ModelAliasStatus,
        condition::{Reason, ReasonMessage},
        names::AliasName,
    },
    cluster::cache::{Claim, Foreign, ForeignCause, ForeignKind},
    decide::{Blocker, BlockerScope},
    render::{self, labels},
    resolve::{Model, Subject, index::Place},
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
    if !model.registry.capabilities().map_or(true, |capabilities| capabilities.aliases) {
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

/// Who has an alias of a model in their spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claimant {
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
pub(super) fn claimant(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    model: &Model,
    alias: &AliasName,
) -> Claimant {
    let is_main = subject.spec().alias == *alias;
    if is_main || sources.index().is_claimed_by_another(&place(model), alias, &subject.uid) {
        return Claimant::Known;
    }
    match sources.index().unknown_claimant() {
        Some((namespace, name)) => Claimant::Possible { by: format!("{namespace}/{name}") },
        None => Claimant::None,
    }
}

fn place(model: &Model) -> Place {
    Place { registry: model.registry.identity(), model: model.name.to_string() }
}

/// Returns an older ModelAlias that claims one of this one's two aliases, of the same model in the same
/// registry. While the settings of a registry change, both places count: the one that is used, and the one
/// that the watches already show.
fn older_claim(sources: &Sources<'_>, subject: &Subject<'_>, model: &Model) -> Option<ReasonMessage> {
    let index = sources.index();
    let used = place(model);
    let shown = index.place_of(&subject.key).filter(|shown| *shown != used);
    let places: Vec<Place> = std::iter::once(used).chain(shown).collect();
    let spec = subject.spec();
    let claims = [("spec.alias", Some(&spec.alias)), ("spec.previousAlias", spec.previous_alias.as_ref())];
    claims.into_iter().find_map(|(field, alias)| {
        let alias = alias?;
        let older = |place| index.older_claimant(place, alias, subject.metadata());
        let (namespace, name) = places.iter().find_map(older)?;
        let message = format!(
            "{field}: the alias {:?} of the model {:?} belongs to the older ModelAlias {namespace}/{name}; \
             name another alias, or delete one of the two",
            alias.as_str(),
            model.name.as_str(),
        );
        Some(ReasonMessage::new(Reason::Conflict, message))
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
mod tests;
