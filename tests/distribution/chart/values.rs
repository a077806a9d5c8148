//! The values: all documented, all in the schema, and nothing else is accepted.

use pretty_assertions::assert_eq;
use serde_json::Value;

use super::tools::{ALL_VALUES, Objects, documents, helm, read};

const VALUES: &str = "charts/laurel/values.yaml";

fn schema() -> Value {
    serde_json::from_str(&read("charts/laurel/values.schema.json")).unwrap()
}

/// A field of the schema with a description is one value, whatever it contains; the others are groups of
/// values.
fn is_value(schema: &Value) -> bool {
    schema["description"].as_str().is_some_and(|text| !text.is_empty())
}

fn below<'a>(parent: &'a str, key: &'a str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// The paths of all values in a values file.
fn set_values(values: &Value, schema: &Value, path: &str) -> Vec<String> {
    match values.as_object() {
        Some(fields) if !is_value(schema) => fields
            .iter()
            .flat_map(|(key, value)| set_values(value, &schema["properties"][key], &below(path, key)))
            .collect(),
        _ => vec![path.to_owned()],
    }
}

/// Returns the paths of all values in the schema, except Helm's own. Every group must be closed.
fn known_values(schema: &Value, path: &str) -> Vec<String> {
    if is_value(schema) {
        return vec![path.to_owned()];
    }
    assert_eq!(schema["additionalProperties"], false, "{path}");
    let fields = schema["properties"]
        .as_object()
        .unwrap_or_else(|| panic!("{path} has neither description nor fields"));
    let paths = fields.iter().flat_map(|(key, schema)| known_values(schema, &below(path, key)));
    paths.filter(|path| path != "global").collect()
}

fn sorted(mut paths: Vec<String>) -> Vec<String> {
    paths.sort();
    paths
}

#[test]
fn schema_and_values_have_the_same_fields() {
    let schema = schema();
    let defaults = set_values(&documents(&read(VALUES))[0], &schema, "");
    assert_eq!(sorted(defaults), sorted(known_values(&schema, "")));
}

#[test]
fn the_test_values_change_every_value() {
    let schema = schema();
    let (defaults, all) = (&documents(&read(VALUES))[0], &documents(&read(ALL_VALUES))[0]);
    let paths = set_values(defaults, &schema, "");
    assert_eq!(sorted(set_values(all, &schema, "")), sorted(paths.clone()));
    // Values of one scope would be rejected with the other.
    for path in paths.into_iter().filter(|path| path != "scope") {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert_ne!(defaults.pointer(&pointer), all.pointer(&pointer), "{path}");
    }
}

#[test]
fn every_value_is_documented() {
    let text = read(VALUES);
    let mut previous = "";
    let mut top = "";
    let mut bare = Vec::new();
    for line in text.lines() {
        let (key, value) = line.split_once(':').unwrap_or_default();
        let indented = key.starts_with(' ');
        if !line.trim_start().starts_with('#') && !key.is_empty() {
            if !indented {
                top = key;
            }
            let kubernetes_own = indented && (top == "resources" || key.trim_start().starts_with("- "));
            // A group without a comment needs one at each of its values.
            let group = value.trim().is_empty() && top != "resources";
            if !previous.trim_start().starts_with('#') && !kubernetes_own && !group {
                bare.push(line);
            }
        }
        previous = line;
    }
    assert_eq!(bare, Vec::<&str>::new());
}

fn error_message(set: &str) -> Option<String> {
    let output = helm(&["template", "laurel", "charts/laurel", "--set", set]);
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn wrong_values_are_rejected_by_name() {
    for (set, field) in [
        ("registy.url=http://mlflow", "registy"),
        ("registry.uri=http://mlflow", "uri"),
        ("registry.url=http://mlflow,registry.pollInterval=soon", "pollInterval"),
        ("registry.url=http://mlflow,registry.requestTimeout=10", "requestTimeout"),
        ("registry.url=http://mlflow,registry.limits.inFlight=0", "inFlight"),
        ("registry.url=http://mlflow,registry.limits.perMinute=100", "perMinute"),
        ("registry.url=http://mlflow,registry.stages=Some", "stages"),
        ("registry.url=http://mlflow,registry.name=A", "name"),
        ("registry.auth.basic.secretRef.name=login", "url"),
        ("registry.url=http://mlflow,registry.auth.basic.secret=login", "secret"),
        (
            "registry.url=http://mlflow,registry.auth.basic.secretRef.name=a,registry.auth.bearer.secretRef.name=b",
            "auth",
        ),
        (
            "registry.url=http://mlflow,scope=namespace,registry.allowedNamespaces.selector.matchLabels.a=b",
            "scope",
        ),
        ("registry.workspace=Team_A,registry.url=http://mlflow", "workspace"),
        ("registry.workspace=team-a", "url"),
        ("registry.webhook.secretRef.name=webhook,webhook.enabled=true,webhook.tls.secretName=cert", "url"),
        ("registry.webhook.secretRef.name=webhook,registry.url=http://mlflow", "enabled"),
        (
            "registry.webhook.secretRef.name=webhook,registry.webhook.register.url=https://a,registry.url=http://mlflow,webhook.enabled=true,webhook.tls.secretName=c",
            "encryptionKeySet",
        ),
        ("webhook.enabled=true", "secretName"),
        ("webhook.port=8080", "port"),
        ("webhook.scheme=ftp", "scheme"),
        ("scope=everything", "scope"),
        ("replicas=6", "replicas"),
        ("logFormat=xml", "logFormat"),
        ("crds.instal=false", "instal"),
        ("image.digest=sha256:12", "digest"),
        ("image.tag=a b", "tag"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("imagePullSecrets[0]=pull-secret", "imagePullSecrets"),
        ("extraEnv.RUST_LOG=debug", "extraEnv"),
        ("resources.memory=1Gi", "memory"),
        ("podLabels.a.b=c", "podLabels"),
    ] {
        let error_message = error_message(set).unwrap_or_else(|| panic!("{set} is accepted"));
        assert!(error_message.contains(field), "{set}: {error_message}");
    }
}

#[test]
fn a_registry_url_is_a_plain_url() {
    for wrong in [
        "mlflow:5000",
        "ftp://mlflow",
        "http://",
        "http:///path",
        "http://user:secret@mlflow",
        "http://mlflow?x=1",
        "http://mlflow/#top",
        "http://ml flow",
    ] {
        let error_message =
            error_message(&format!("registry.url={wrong}")).unwrap_or_else(|| panic!("{wrong} is accepted"));
        assert!(error_message.contains("url"), "{wrong}: {error_message}");
    }
    for fine in [
        "http://mlflow",
        "http://mlflow.mlops.svc:5000",
        "https://mlflow.example/prefix/",
        "http://[fd00::1]:5000",
    ] {
        assert_eq!(error_message(&format!("registry.url={fine}")), None, "{fine}");
    }
}

#[test]
fn as_a_subchart_it_accepts_what_helm_adds() {
    Objects::of_chart(&["--set", "global.anything=yes"]);
}
