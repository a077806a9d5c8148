//! Objects to apply, including fields that the types of this release do not know.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// An object to apply, with all fields that the user set, known to this release or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Applicable<K> {
    /// The object, as far as its types are known.
    pub object: K,
    whole: Value,
}

impl<K: Serialize> Applicable<K> {
    /// Puts `part`, which may have unknown fields, at this path in `object`.
    pub(super) fn new(object: K, path: &[&str], part: Value) -> Self {
        let mut whole = serde_json::to_value(&object).unwrap_or_else(|_| Map::new().into());
        let place = path.iter().fold(&mut whole, |place, field| &mut place[*field]);
        *place = part;
        Self { object, whole }
    }

    pub(super) fn whole(&self) -> &Value {
        &self.whole
    }

    pub(super) fn into_whole(self) -> Value {
        self.whole
    }
}

impl<K> Serialize for Applicable<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.whole.serialize(serializer)
    }
}
