//! What a delivery is about. Its content is not believed: it only decides what is read from the registry.

use serde::Deserialize;

use crate::{api::names::ModelName, audit::is_log_tag};

/// What has to be read because of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// This model.
    Model(ModelName),
    /// Nothing: it reports a tag of the audit log, which Laurel itself writes. If somebody else did, the next
    /// poll sees it.
    AuditLog,
    /// Everything: it names no model.
    Unknown,
}

#[derive(Deserialize)]
struct Content {
    entity: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    name: String,
    #[serde(default)]
    key: Option<String>,
}

impl About {
    /// Returns what a body is about.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let Ok(Content { entity, data }) = serde_json::from_slice(body) else { return Self::Unknown };
        if entity == "model_version_tag" && data.key.as_deref().is_some_and(is_log_tag) {
            return Self::AuditLog;
        }
        data.name.parse().map_or(Self::Unknown, Self::Model)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn about(entity: &str, data: &serde_json::Value) -> About {
        let body = json!({ "entity": entity, "action": "set", "timestamp": "now", "data": data });
        About::of(body.to_string().as_bytes())
    }

    #[test]
    fn a_delivery_names_the_model_to_read() {
        let fraud = About::Model("fraud".parse().unwrap());
        let alias = json!({ "name": "fraud", "alias": "champion", "version": "1" });
        assert_eq!(about("model_version_alias", &alias), fraud);
        assert_eq!(about("registered_model", &json!({ "name": "fraud", "tags": {} })), fraud);
        let tag = |key: &str| json!({ "name": "fraud", "version": "1", "key": key, "value": "true" });
        assert_eq!(about("model_version_tag", &tag("validated")), fraud);
        assert_eq!(about("model_version_tag", &tag("laurel.experiment.q4")), fraud, "rules may look at it");
    }

    #[test]
    fn our_own_tags_cause_no_read() {
        for key in ["laurel.log.champion.1.Promoted", "laurel.promoted_at", "laurel.rolled_back_at"] {
            let tag = json!({ "name": "fraud", "version": "1", "key": key });
            assert_eq!(about("model_version_tag", &tag), About::AuditLog, "{key}");
        }
    }

    #[test]
    fn what_names_no_model_asks_for_everything() {
        for body in [&b""[..], b"{}", b"\xff", b"[]", br#"{"entity": "x", "data": {"name": "a/b"}}"#] {
            assert_eq!(About::of(body), About::Unknown, "{body:?}");
        }
    }
}
