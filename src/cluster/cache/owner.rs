//! Whom an object with our labels belongs to, and whether a ModelAlias may adopt it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};

use crate::{
    api::{ModelAlias, model_alias::AliasKey, names::label_value},
    render::labels,
};

/// The ModelAlias that objects are looked at for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// The name of its model in the registry, if known.
    pub model: Option<&'a str>,
    /// `spec.alias`.
    pub alias: &'a str,
}

/// An object with our labels that does not belong to a ModelAlias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its kind.
    pub kind: ForeignKind,
    /// Its name.
    pub name: String,
    /// Why not.
    pub cause: ForeignCause,
}

/// The kind of such an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum ForeignKind {
    /// A Service.
    Service,
    /// A Deployment.
    Deployment,
}

/// Why an object does not belong to a ModelAlias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignCause {
    /// It belongs to another object, or was not created by Laurel.
    Owner,
    /// It does not have the name that Laurel gives it, which is this one: it is a copy.
    Name(String),
    /// It was created for this model.
    Model(String),
    /// It was created for this alias, or what its label holds of it.
    Alias(String),
}

/// Who controls an object that has our labels, and what it was created for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: Option<String>,
    /// The name that Laurel gives such an object, if it has another one.
    right_name: Option<String>,
    /// It has the labels that Laurel gives it, and belongs to nobody or to a ModelAlias of the same name.
    is_adoptable: bool,
    model: Option<String>,
    alias: Option<String>,
}

pub(super) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

impl Owner {
    /// `name` is the one that Laurel gives such an object.
    pub(super) fn of(metadata: &ObjectMeta, alias: &AliasKey, name: &str) -> Self {
        let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        let annotations = metadata.annotations.as_ref();
        let is_namesake = |owner: &OwnerReference| {
            let group = owner.api_version.split('/').next();
            group == Some(ModelAlias::group(&()).as_ref())
                && owner.kind == ModelAlias::kind(&())
                && owner.name == alias.1
        };
        let controller = controller(metadata);
        Self {
            uid: controller.map(|owner| owner.uid.clone()),
            right_name: (metadata.name.as_deref() != Some(name)).then(|| name.to_owned()),
            is_adoptable: metadata.deletion_timestamp.is_none()
                && label(labels::MANAGED_BY).is_some_and(|manager| manager == labels::MANAGER)
                && controller.is_none_or(is_namesake),
            model: annotations.and_then(|annotations| annotations.get(labels::MODEL_NAME)).cloned(),
            alias: label(labels::ALIAS),
        }
    }

    fn is(&self, uid: &str) -> bool {
        self.uid.as_deref() == Some(uid)
    }

    /// Why the object does not belong to the ModelAlias, and may not be adopted by it. Without a known model,
    /// nothing is adopted that was created for one.
    pub(super) fn foreign(&self, claim: &Claim<'_>) -> Option<ForeignCause> {
        if let Some(name) = &self.right_name {
            return Some(ForeignCause::Name(name.clone()));
        }
        if self.is(claim.uid) {
            return None;
        }
        if !self.is_adoptable {
            return Some(ForeignCause::Owner);
        }
        let alias = self.alias.as_ref().filter(|alias| **alias != label_value(claim.alias));
        let model = self.model.as_ref().filter(|model| Some(model.as_str()) != claim.model);
        model.cloned().map(ForeignCause::Model).or_else(|| alias.cloned().map(ForeignCause::Alias))
    }

    /// Whether the object belongs to a ModelAlias that had this one's name and is gone, or to nobody. There
    /// are no two of one name at a time.
    pub(super) fn is_orphan(&self, claim: &Claim<'_>) -> bool {
        !self.is(claim.uid) && !self.is_foreign(claim)
    }

    /// Whether the object belongs to something else.
    #[must_use]
    pub fn is_foreign(&self, claim: &Claim<'_>) -> bool {
        self.foreign(claim).is_some()
    }

    /// The patch that makes `owner` the controller of an object of this revision, in place of the one that is
    /// gone.
    #[must_use]
    pub fn replaced_by(&self, owner: &OwnerReference, revision: u64) -> Value {
        let gone = self.uid.iter().filter(|uid| **uid != owner.uid);
        let owners = gone.map(|uid| json!({ "$patch": "delete", "uid": uid })).chain([json!(owner)]);
        let owners: Vec<Value> = owners.collect();
        json!({ "metadata": { "resourceVersion": revision.to_string(), "ownerReferences": owners } })
    }
}
