//! Objects as watches deliver them: one that cannot be parsed does not block the others.

use std::borrow::Cow;

use kube::{
    Resource,
    core::{ObjectMeta, PartialObjectMeta},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

/// An object, or what is left of one that cannot be parsed.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// An object that cannot be parsed.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Why not.
    pub error: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The object as it was delivered. What it still says counts: unknown is not absent.
    pub raw: Value,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl Unreadable {
    /// Returns the text at a path of the raw object, for instance `/spec/alias`.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.raw.pointer(path)?.as_str()
    }
}

impl<'de, K: DeserializeOwned + Resource> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        match K::deserialize(&raw) {
            Ok(object) => Ok(Self(Ok(object))),
            Err(error) => {
                let error = error.to_string();
                let PartialObjectMeta { metadata, .. } =
                    PartialObjectMeta::<K>::deserialize(&raw).map_err(D::Error::custom)?;
                Ok(Self(Err(Unreadable { error, metadata, raw })))
            }
        }
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ModelAlias;

    #[test]
    fn an_object_that_cannot_be_parsed_keeps_its_metadata_and_what_it_says() {
        let object = json!({
            "metadata": { "name": "champion", "namespace": "risk" },
            "spec": { "modelRef": { "name": "fraud" }, "alias": "champion", "version": "four" },
        });
        let Guarded(object) = serde_json::from_value::<Guarded<ModelAlias>>(object).unwrap();
        let unreadable = object.unwrap_err();
        assert_eq!(unreadable.metadata.name.as_deref(), Some("champion"));
        assert_eq!(unreadable.text("/spec/alias"), Some("champion"));
        assert_eq!(unreadable.text("/spec/modelRef"), None);
    }
}
