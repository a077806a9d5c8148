//! Server-side apply: the one way in which whole objects and statuses are written.

use std::fmt::{Debug, Write};

use axum::http;
use kube::{
    Client, Resource,
    api::{Patch, PatchParams},
    core::{NamespaceResourceScope, Request, request},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::api::FIELD_MANAGER;

/// The parameters of a patch of a few fields, under our field manager.
pub(crate) fn patch_parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Applies a whole object; what others set in it stays.
///
/// # Errors
/// When it cannot be sent, or the API server refuses it.
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

/// Applies an object's status.
///
/// # Errors
/// When it cannot be sent, or the API server refuses it.
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
    *request.body_mut() = as_yaml_reads_it(body);
    // The name of the call, for the client's spans, as `Api` gives it.
    request.extensions_mut().insert(call);
    client.request(request).await
}

/// JSON that means the same as YAML, which is what the API server takes the body of an apply for.
///
/// YAML refuses some characters that JSON takes as they are, and folds others that it holds to be line breaks. Escaped, they
/// are what they are in both. They may come from anywhere: from a model's name, or from the last words of a server that
/// crashes.
fn as_yaml_reads_it(json: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(json) {
        Ok(json) if json.contains(differs) => {
            let escaped = json.chars().fold(String::with_capacity(json.len() + 16), |mut escaped, c| {
                // JSON has such characters only inside of its texts.
                if differs(c) {
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

fn differs(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(object: &Value) -> String {
        String::from_utf8(as_yaml_reads_it(serde_json::to_vec(object).unwrap())).unwrap()
    }

    #[test]
    fn what_yaml_reads_otherwise_is_escaped_and_means_the_same() {
        let all: String = (0..=0x1_ffff).filter_map(char::from_u32).collect();
        let object = json!({ "plain": "ü😀\n\t\"\\\u{0}", "all": all, "key\u{7f}": 1 });
        assert!(!sent(&object).contains(differs));
        assert_eq!(serde_json::from_str::<Value>(&sent(&object)).unwrap(), object);
        assert_eq!(sent(&json!({ "name": "ü😀" })), r#"{"name":"ü😀"}"#);
    }
}
