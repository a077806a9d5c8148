//! Writes the verdicts of a ModelExperiment to the registry.

use std::collections::BTreeMap;

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, Version},
    },
    decide::experiment::ExperimentAction,
    registry::limiter::Priority,
    resolve::Model,
    status::ExperimentApplied,
};

/// The models of the experiment's `ModelAliases`, with their aliases in the registry.
type Places = BTreeMap<String, Result<(Model, AliasName), ReasonMessage>>;

/// Performs the actions in their order. A tag that cannot be set does not hold up the others, but the alias: the
/// promotion rules may ask for the tag.
pub async fn apply(champion: &str, places: &Places, actions: &[ExperimentAction]) -> ExperimentApplied {
    let mut applied = ExperimentApplied::default();
    for action in actions {
        if matches!(action, ExperimentAction::SetAlias { .. }) && applied.failure.is_some() {
            continue;
        }
        match perform(champion, places, action).await {
            Ok(()) => {
                tracing::info!(?action, "action applied");
                applied.done.push(action.clone());
            }
            Err(cause) => {
                tracing::warn!(?action, reason = %cause.reason, message = cause.message, "action failed");
                applied.failure.get_or_insert(cause);
            }
        }
    }
    applied
}

async fn perform(champion: &str, places: &Places, action: &ExperimentAction) -> Result<(), ReasonMessage> {
    match action {
        ExperimentAction::SetTag { alias, version, key, value } => {
            set_tag(&place(places, alias)?.0, *version, key, value).await
        }
        ExperimentAction::SetAlias { from, version } => {
            let (model, alias) = place(places, champion)?;
            set_alias(&model, &alias, *from, *version).await
        }
    }
}

fn place(places: &Places, name: &str) -> Result<(Model, AliasName), ReasonMessage> {
    let gone = || {
        let message = format!("there is no ModelAlias {name} any more, so its model is not known");
        Err(ReasonMessage::new(Reason::ChallengerUnavailable, message))
    };
    places.get(name).cloned().unwrap_or_else(gone)
}

/// A version that is gone from the registry needs no tag.
async fn set_tag(model: &Model, version: Version, key: &str, value: &str) -> Result<(), ReasonMessage> {
    let client = model.registry.client(Priority::Display)?;
    if !client.capabilities().tags {
        let message = "the registry keeps no tags of versions, so the verdict is only in this status";
        return Err(ReasonMessage::new(Reason::RegistryUnsupported, message));
    }
    let explained = |error| model.registry.explain(Some(&model.name), &error);
    let facts = client.version(&model.name, version).await.map_err(explained)?;
    if facts.is_none_or(|facts| facts.tags.get(key).is_some_and(|known| known == value)) {
        return Ok(());
    }
    client.set_version_tag(&model.name, version, key, value).await.map_err(explained)
}

/// Sets the alias from the version that was compared. One that somebody has moved since stays.
async fn set_alias(
    model: &Model,
    alias: &AliasName,
    from: Version,
    version: Version,
) -> Result<(), ReasonMessage> {
    let client = model.registry.client(Priority::AliasWrite)?;
    let explained = |error| model.registry.explain(Some(&model.name), &error);
    let facts = client.model(&model.name).await.map_err(explained)?;
    let named = facts.as_ref().and_then(|facts| facts.aliases.get(alias).copied());
    if named == Some(version) {
        return Ok(());
    }
    if named != Some(from) {
        let now = named.map_or_else(|| "is gone".to_owned(), |named| format!("names version {named}"));
        let message = format!(
            "the alias {alias} {now} by now, and not version {from} that was compared, so it is not set to version \
             {version}: set it by hand if that is right"
        );
        return Err(ReasonMessage::new(Reason::AliasDrifted, message));
    }
    client.set_alias(&model.name, alias, version).await.map_err(explained)?;
    model.registry.remember_alias(&model.name, alias, Some(version));
    Ok(())
}
