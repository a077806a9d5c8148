//! Writes the verdicts of a ModelExperiment to the registry.

use std::collections::BTreeMap;

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, ModelUri, Version},
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
            Ok(Performed::Done) => {
                tracing::info!(?action, "action applied");
                applied.done.push(action.clone());
            }
            Ok(Performed::Skipped(why)) => {
                tracing::warn!(?action, why, "action skipped");
                applied.alias_skipped = Some(why);
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

/// What became of an action.
enum Performed {
    Done,
    /// It would be wrong by now, and is not tried again.
    Skipped(String),
}

async fn perform(
    champion: &str,
    places: &Places,
    action: &ExperimentAction,
) -> Result<Performed, ReasonMessage> {
    match action {
        ExperimentAction::SetTag { alias, version, model_uri, key, value } => {
            set_tag(&place(places, alias)?.0, (*version, model_uri.as_ref()), (key, value)).await
        }
        ExperimentAction::SetAlias { from, version } => {
            let (model, alias) = place(places, champion)?;
            set_alias(&model, &alias, *from, *version).await
        }
    }
}

fn place(places: &Places, name: &str) -> Result<(Model, AliasName), ReasonMessage> {
    let gone = || {
        let message = format!("the model of the ModelAlias {name} is not known");
        Err(ReasonMessage::new(Reason::RegisteredModelNotFound, message))
    };
    places.get(name).cloned().unwrap_or_else(gone)
}

/// A version that is gone from the registry needs no tag, nor does one that is another model by now.
async fn set_tag(
    model: &Model,
    (version, model_uri): (Version, Option<&ModelUri>),
    (key, value): (&str, &str),
) -> Result<Performed, ReasonMessage> {
    let client = model.registry.client(Priority::Display)?;
    if !client.capabilities().tags {
        let message = "the registry keeps no tags of versions, so the verdict is only in this status";
        return Err(ReasonMessage::new(Reason::RegistryUnsupported, message));
    }
    let explained = |error| model.registry.explain(Some(&model.name), &error);
    let facts = client.version(&model.name, version).await.map_err(explained)?;
    let Some(facts) = facts else { return Ok(Performed::Done) };
    let is_another = model_uri.is_some_and(|judged| *judged != facts.model_uri);
    if is_another || facts.tags.get(key).is_some_and(|known| known == value) {
        return Ok(Performed::Done);
    }
    client.set_version_tag(&model.name, version, key, value).await.map_err(explained)?;
    Ok(Performed::Done)
}

/// Sets the alias from the version that was compared. One that somebody has moved since stays.
async fn set_alias(
    model: &Model,
    alias: &AliasName,
    from: Version,
    version: Version,
) -> Result<Performed, ReasonMessage> {
    let client = model.registry.client(Priority::AliasWrite)?;
    let explained = |error| model.registry.explain(Some(&model.name), &error);
    let facts = client.model(&model.name).await.map_err(explained)?;
    let named = facts.as_ref().and_then(|facts| facts.aliases.get(alias).copied());
    if named == Some(version) {
        return Ok(Performed::Done);
    }
    if named != Some(from) {
        let now = named.map_or_else(|| "is gone".to_owned(), |named| format!("names version {named}"));
        let why = format!("the alias {alias} {now} by now, and not version {from}, which was compared");
        return Ok(Performed::Skipped(why));
    }
    client.set_alias(&model.name, alias, version).await.map_err(explained)?;
    model.registry.remember_alias(&model.name, alias, Some(version));
    Ok(Performed::Done)
}
