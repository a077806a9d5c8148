//! Writes to the registry. `MLflow` has no compare-and-set, so the alias is read once more right before it is written.

use crate::{
    api::{
        ModelAlias,
        condition::{Note, Reason},
        names::{AliasName, Version},
    },
    decide::AliasRole,
    observe::{model_alias::Model, registries::note},
    registry::Registry,
};

fn name_of(alias: &ModelAlias, role: AliasRole) -> Result<&AliasName, Note> {
    match role {
        AliasRole::Main => Some(&alias.spec.alias),
        AliasRole::Previous => alias.spec.previous_alias.as_ref(),
    }
    .ok_or_else(|| Note::new(Reason::AsWished, "spec.previousAlias was removed meanwhile"))
}

/// That the alias still names what the decision was made from. Otherwise what is there now is remembered, and decided
/// upon anew.
async fn unmoved(
    model: &Model,
    client: &dyn Registry,
    alias: &AliasName,
    known: Option<Version>,
) -> Result<(), Note> {
    let facts = client.model(&model.name).await.map_err(|error| note(&error))?;
    let named = facts.as_ref().and_then(|facts| facts.aliases.get(alias).copied());
    if named == known {
        return Ok(());
    }
    model.registry.note_model(&model.name, facts);
    Err(Note::new(
        Reason::RegistryPending,
        format!("the alias {:?} was moved meanwhile; looking again", alias.as_str()),
    ))
}

pub(super) async fn set_alias(
    model: &Model,
    alias: &ModelAlias,
    role: AliasRole,
    version: Version,
    replaces: Option<Version>,
) -> Result<(), Note> {
    let name = name_of(alias, role)?;
    let client = model.registry.client()?;
    unmoved(model, client.as_ref(), name, replaces).await?;
    client.set_alias(&model.name, name, version).await.map_err(|error| note(&error))?;
    model.registry.note_alias(&model.name, name, Some(version));
    Ok(())
}

pub(super) async fn delete_alias(
    model: &Model,
    alias: &ModelAlias,
    role: AliasRole,
    replaces: Version,
) -> Result<(), Note> {
    let name = name_of(alias, role)?;
    let client = model.registry.client()?;
    unmoved(model, client.as_ref(), name, Some(replaces)).await?;
    client.delete_alias(&model.name, name).await.map_err(|error| note(&error))?;
    model.registry.note_alias(&model.name, name, None);
    Ok(())
}
