//! The requests in the API server's audit log.

use std::{collections::BTreeSet, fmt, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{rights::Right, simulated::machine::repository};

/// One line of the log, with the relevant fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
    message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: Option<String>,
}

/// A request of the operator, and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) uri: String,
    /// `None` for paths that are not resources, such as `/version`.
    pub(crate) right: Option<Right>,
    pub(crate) namespace: String,
    /// The object's name; empty for lists and watches.
    pub(crate) name: String,
    /// Whether authorization and admission allowed it.
    pub(crate) allowed: bool,
    created: bool,
    reported: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = self.right.as_ref().map_or_else(|| "no resource".to_owned(), ToString::to_string);
        write!(f, "{right} ({}) {}", self.uri, self.reported)
    }
}

/// Returns all requests of an account so far.
pub(crate) fn requests(account: &str) -> Result<Vec<Request>> {
    let folder = repository().join(".cluster/api/logs");
    let mut requests = Vec::new();
    // A long log is rotated to another file.
    for file in fs::read_dir(&folder)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with("audit") {
            requests.extend(read(&file.path(), account)?);
        }
    }
    let hint = "was it started before it audited service accounts? `make cluster-api` restarts it";
    ensure!(!requests.is_empty(), "the audit log has no request of {account}; {hint}");
    Ok(requests)
}

fn read(log: &Path, account: &str) -> Result<Vec<Request>> {
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let mut requests = Vec::new();
    for line in text.lines().filter(|line| line.contains(account)) {
        let entry: Entry = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if entry.user.username == account {
            requests.push(request(entry));
        }
    }
    Ok(requests)
}

fn request(entry: Entry) -> Request {
    let object = entry.object_ref.filter(|object| !object.resource.is_empty());
    let right = object.as_ref().map(|object| {
        let slash = if object.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", object.resource, object.subresource);
        Right::new(&object.api_group, &resource, &entry.verb)
    });
    let object = object.unwrap_or_default();
    let code = entry.response_status.as_ref().and_then(|status| status.code);
    let reported = entry.response_status.and_then(|status| status.message).unwrap_or_default();
    // Nobody may create anything in a namespace that ends.
    let is_late = reported.ends_with("because it is being terminated");
    Request {
        uri: entry.request_uri,
        right,
        namespace: object.namespace,
        name: object.name,
        allowed: entry.annotations.decision.as_deref() == Some("allow") && (code != Some(403) || is_late),
        created: code == Some(201),
        reported,
    }
}

/// Returns the permissions that these requests need. A server-side apply is a `patch`; one that creates the
/// object needs `create` as well, which is not in the audit log.
pub(crate) fn used(requests: &[Request]) -> BTreeSet<Right> {
    let allowed = || requests.iter().filter(|request| request.allowed);
    let created = allowed().filter(|request| request.created).filter_map(|request| request.right.clone());
    let created = created.map(|right| Right { verb: "create".to_owned(), ..right });
    allowed().filter_map(|request| request.right.clone()).chain(created).collect()
}
