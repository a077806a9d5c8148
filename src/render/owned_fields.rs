//! Which fields of a Deployment's spec are Laurel's, in the form in which the API server lists the fields of
//! each client (`FieldsV1`).
//!
//! All of them are, except for what others set on a Deployment as a matter of course: its size, whether it is
//! paused, and labels and annotations of the pod template, such as the one of `kubectl rollout restart`.
//!
//! A field that somebody removes gets no other owner: the API server only drops it from those that Laurel
//! applied. So a Deployment is applied with a digest of its fields, which that list is compared with. Both
//! are digests of the same paths, which leave out what depends on how the API server merges: a list without
//! [`keys`], or a field in [`WHOLE`], counts as one field.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::labels;
use crate::api::names::hex;

/// Fields as `FieldsV1` lists them: `f:` before a field's name, `k:` before the keys of a list's item.
pub(crate) type Fields = Map<String, Value>;

/// The version of the recipe. A digest with another one says nothing to this release.
const RECIPE: &str = "v1-";

/// Fields that Kubernetes owns as a whole, or that hold some which it does.
const WHOLE: [&str; 8] = [
    "affinity",
    "ephemeral",
    "labelSelector",
    "nodePublishSecretRef",
    "nodeSelector",
    "secretRef",
    "selector",
    "valueFrom",
];

/// A key of a list's items, and the value that it has by default.
type Key = (&'static str, Option<&'static str>);

/// The keys that identify the items of a list; `None` for other lists. From `x-kubernetes-list-map-keys` of
/// the Kubernetes API.
fn keys(list: &str) -> Option<&'static [Key]> {
    Some(match list {
        "containers" | "initContainers" | "env" | "volumes" | "claims" => &[("name", None)],
        "volumeMounts" => &[("mountPath", None)],
        "volumeDevices" => &[("devicePath", None)],
        "ports" => &[("containerPort", None), ("protocol", Some("TCP"))],
        "topologySpreadConstraints" => &[("topologyKey", None), ("whenUnsatisfiable", None)],
        _ => return None,
    })
}

/// Returns the digest of Laurel's fields in a rendered spec.
pub(super) fn rendered(spec: &Value) -> String {
    let fields = Fields::from_iter([("f:spec".to_owned(), fields_of("spec", spec).into())]);
    digest(&fields)
}

/// Returns the digest of Laurel's fields among those that it applied.
#[must_use]
pub(crate) fn digest(fields: &Fields) -> String {
    let mut paths = Vec::new();
    collect("", "", &split(fields).map(|(ours, _)| ours).unwrap_or_default(), &mut paths);
    paths.sort_unstable();
    format!("{RECIPE}{}", hex(&Sha256::digest(paths.join("\n")), 16))
}

/// Whether a digest can be compared with one of this release.
#[must_use]
pub(crate) fn is_comparable(digest: &str) -> bool {
    digest.starts_with(RECIPE)
}

/// The fields of a value that is applied.
fn fields_of(name: &str, value: &Value) -> Fields {
    match (value, keys(name)) {
        (Value::Object(members), _) => {
            // Of a list with keys, the API server lists the items alone.
            let is_nothing = |(name, value): &(&String, &Value)| {
                keys(name).is_some() && value.as_array().is_some_and(Vec::is_empty)
            };
            let members = members.iter().filter(|member| !is_nothing(member));
            members.map(|(name, value)| (format!("f:{name}"), fields_of(name, value).into())).collect()
        }
        (Value::Array(items), Some(keys)) => {
            items.iter().map(|item| (format!("k:{}", key(keys, item)), fields_of("", item).into())).collect()
        }
        _ => Fields::new(),
    }
}

/// The keys of an item, as text.
fn key(keys: &[Key], item: &Value) -> String {
    let value = |(name, default): &Key| item.get(name).cloned().or_else(|| default.map(Value::from));
    let keys: Vec<String> =
        keys.iter().filter_map(|key| Some(format!("{:?}:{}", key.0, value(key)?))).collect();
    format!("{{{}}}", keys.join(","))
}

/// Collects the paths of the fields, as deep as they are distinguished.
fn collect(path: &str, name: &str, fields: &Fields, paths: &mut Vec<String>) {
    let members = || fields.iter().filter(|(member, _)| *member != ".");
    let keys = keys(name);
    let is_known = |(member, _): (&String, &Value)| {
        member.starts_with("f:") || (keys.is_some() && member.starts_with("k:"))
    };
    if members().next().is_none() || WHOLE.contains(&name) || !members().all(is_known) {
        paths.push(path.to_owned());
        return;
    }
    let nothing = Fields::new();
    for (member, value) in members() {
        let item = member.strip_prefix("k:").and_then(|item| serde_json::from_str(item).ok());
        let member = match (keys, item) {
            (Some(keys), Some(item)) => key(keys, &item),
            _ => member.clone(),
        };
        let name = member.strip_prefix("f:").unwrap_or_default();
        collect(&format!("{path}/{member}"), name, value.as_object().unwrap_or(&nothing), paths);
    }
}

/// The fields under `spec` that are Laurel's, and all fields without them; `None` where none is Laurel's.
pub(crate) fn split(fields: &Fields) -> Option<(Fields, Fields)> {
    let spec = fields.get("f:spec")?.as_object()?;
    let (mut ours, mut theirs) =
        part(spec, |field| !["f:replicas", "f:paused", "f:template"].contains(&field));
    if let Some(template) = object(spec, "f:template") {
        let (mut own, mut other) = part(template, |field| field == "f:spec");
        if let Some(metadata) = object(template, "f:metadata") {
            let (own_metadata, other_metadata) = split_metadata(metadata);
            put(&mut own, "f:metadata", own_metadata);
            put(&mut other, "f:metadata", other_metadata);
        }
        put(&mut ours, "f:template", own);
        put(&mut theirs, "f:template", other);
    }
    let mut rest = fields.clone();
    rest.remove("f:spec");
    put(&mut rest, "f:spec", theirs);
    (!ours.is_empty()).then_some((ours, rest))
}

/// The labels and annotations of a pod template: Laurel's own, and those of others.
fn split_metadata(metadata: &Fields) -> (Fields, Fields) {
    let (mut ours, mut theirs) = (Fields::new(), Fields::new());
    for field in ["f:labels", "f:annotations"] {
        let Some(pairs) = object(metadata, field) else { continue };
        let (own, other) = part(pairs, |key| key.strip_prefix("f:").is_some_and(labels::is_own));
        put(&mut ours, field, own);
        put(&mut theirs, field, other);
    }
    (ours, theirs)
}

/// The members that are Laurel's, and the others without the maps that are parted on their own.
fn part(fields: &Fields, is_ours: impl Fn(&str) -> bool) -> (Fields, Fields) {
    let is_map = |field: &str| field == "f:template" || field == "f:metadata";
    let members = fields.iter().filter(|(field, _)| *field != "." && !is_map(field));
    members.map(|(field, value)| (field.clone(), value.clone())).partition(|(field, _)| is_ours(field))
}

fn object<'a>(fields: &'a Fields, field: &str) -> Option<&'a Fields> {
    fields.get(field)?.as_object()
}

fn put(fields: &mut Fields, field: &str, members: Fields) {
    if !members.is_empty() {
        fields.insert(field.to_owned(), members.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A spec with one of everything that is distinguished, and much that is not.
    fn spec() -> Value {
        serde_yaml::from_str(include_str!("owned_fields/spec.yaml")).unwrap()
    }

    /// What the API server (v1.36) listed as Laurel's when this spec was applied.
    fn applied() -> Fields {
        serde_json::from_str(include_str!("owned_fields/applied.json")).unwrap()
    }

    #[test]
    fn what_is_rendered_and_what_the_api_server_lists_have_the_same_digest() {
        assert_eq!(rendered(&spec()), digest(&applied()));
    }

    /// The fields without one, as the API server lists them after somebody removed it.
    fn without(path: &[&str]) -> Fields {
        let mut fields = applied();
        let container = ["f:spec", "f:template", "f:spec", "f:containers", "k:{\"name\":\"m\"}"];
        let (member, parents) = path.split_last().unwrap();
        let parent = container.iter().chain(parents).fold(&mut fields, |fields, member| {
            fields.get_mut(*member).and_then(Value::as_object_mut).unwrap()
        });
        assert!(parent.remove(*member).is_some(), "{path:?}");
        fields
    }

    #[test]
    fn a_field_that_is_removed_changes_the_digest() {
        let removed: [&[&str]; 10] = [
            &["f:livenessProbe"],
            &["f:livenessProbe", "f:periodSeconds"],
            &["f:env", "k:{\"name\":\"A\"}"],
            &["f:resources", "f:limits", "f:memory"],
            &["f:securityContext", "f:allowPrivilegeEscalation"],
            &["f:securityContext", "f:capabilities", "f:drop"],
            &["f:args"],
            &["f:lifecycle"],
            &["f:volumeMounts", "k:{\"mountPath\":\"/tmp\"}"],
            &["f:ports", "k:{\"containerPort\":81,\"protocol\":\"UDP\"}"],
        ];
        for path in removed {
            assert_ne!(digest(&without(path)), digest(&applied()), "{path:?}");
        }
    }

    #[test]
    fn what_others_may_change_does_not_change_the_digest() {
        let spec = |replicas: u32, template: Value| {
            rendered(&json!({ "replicas": replicas, "minReadySeconds": 0, "template": template }))
        };
        let annotated =
            |key: &str| json!({ "metadata": { "annotations": { (key): "x", "laurel.dev/a": "y" } } });
        assert_eq!(spec(1, annotated("a")), spec(2, annotated("b")));
        assert_ne!(spec(1, annotated("a")), spec(1, annotated("laurel.dev/b")));
    }

    #[test]
    fn a_digest_of_another_recipe_is_not_compared() {
        assert!(is_comparable(&rendered(&spec())));
        assert!(!is_comparable("v2-0123456789abcdef"));
    }
}
