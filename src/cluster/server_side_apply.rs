//! Server-side apply: the only way in which whole objects and statuses are written.

use std::fmt::{Debug, Write};

use axum::http;
use kube::{
    Client, Resource,
    api::{Patch, PatchParams},
    core::{NamespaceResourceScope, Request, request},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::api::FIELD_MANAGER;

/// Returns the parameters for a patch of a few fields, under our field manager.
pub(crate) fn patch_parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Applies a whole object; fields set by others are kept.
///
/// # Errors
/// When it cannot be sent, or the API server rejects it.
pub(crate) async fn apply<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    object: &(impl Serialize + Debug),
) -> kube::Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let patch = |request: Request, patch: &_| request.patch(name, patch, &Patch::Apply(object));
    send(client, Some(namespace), "patch", patch).await
}

/// Creates a whole object by an apply, unless there is one of that name: then the API server reports a
/// conflict.
///
/// Applied with a resource version that no object ever has, an object that exists is not changed. Asking
/// whether it exists first would cost a request more, and somebody could create it in between.
///
/// # Errors
/// When it cannot be sent, or the API server rejects it.
pub(crate) async fn create<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    object: &impl Serialize,
) -> kube::Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    // etcd numbers its writes from 2.
    const NEVER: &str = "1";
    let mut object = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    object["metadata"]["resourceVersion"] = NEVER.into();
    apply(client, namespace, name, &object).await
}

/// Applies an object's status.
///
/// # Errors
/// When it cannot be sent, or the API server rejects it.
pub(crate) async fn apply_status<K>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    object: &(impl Serialize + Debug),
) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let status =
        |request: Request, patch: &_| request.patch_subresource("status", name, patch, &Patch::Apply(object));
    send(client, namespace, "patch_status", status).await
}

type Built = Result<http::Request<Vec<u8>>, request::Error>;

async fn send<K>(
    client: &Client,
    namespace: Option<&str>,
    call: &'static str,
    build: impl FnOnce(Request, &PatchParams) -> Built,
) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let request = Request::new(K::url_path(&(), namespace));
    let mut request =
        build(request, &PatchParams::apply(FIELD_MANAGER).force()).map_err(kube::Error::BuildRequest)?;
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = yaml_safe(body);
    // The name of the call for the client's spans, as `Api` sets it.
    request.extensions_mut().insert(call);
    client.request(request).await
}

/// Escapes JSON so that it means the same as YAML: the API server parses the body of an apply as YAML.
///
/// YAML rejects some characters that JSON allows, and folds others that it treats as line breaks. Escaped,
/// they mean the same in both. They can come from anywhere, for instance from a model's name or the last log
/// lines of a crashed server.
fn yaml_safe(json: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(json) {
        Ok(json) if json.contains(needs_escape) => {
            let escaped = json.chars().fold(String::with_capacity(json.len() + 16), |mut escaped, c| {
                // In JSON, such characters occur in strings only.
                if needs_escape(c) {
                    // Writing to a String cannot fail.
                    let _ = write!(escaped, "\\u{:04x}", u32::from(c));
                } else {
                    escaped.push(c);
                }
                escaped
            });
            escaped.into_bytes()
        }
        Ok(json) => json.into_bytes(),
        Err(other) => other.into_bytes(),
    }
}

fn needs_escape(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(object: &Value) -> String {
        String::from_utf8(yaml_safe(serde_json::to_vec(object).unwrap())).unwrap()
    }

    #[test]
    fn characters_with_another_meaning_in_yaml_are_escaped() {
        let all: String = (0..=0x1_ffff).filter_map(char::from_u32).collect();
        let object = json!({ "plain": "ü😀\n\t\"\\\u{0}", "all": all, "key\u{7f}": 1 });
        assert!(!sent(&object).contains(needs_escape));
        assert_eq!(serde_json::from_str::<Value>(&sent(&object)).unwrap(), object);
        assert_eq!(sent(&json!({ "name": "ü😀" })), r#"{"name":"ü😀"}"#);
    }
}
