//! A partial pod template by Kubernetes' schema over what Laurel renders: rejected with a path and the next
//! step, or merged in full, with everything of Laurel's kept.
//!
//! The oracle checks only the Deployment. Fields that the template does not set are as rendered without one.

use std::{cell::RefCell, collections::BTreeMap};

use arbitrary::Unstructured;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::schema::Generator;
use crate::{
    api::{
        model_alias::{Runtime, Serving},
        names::{ModelUri, Version},
    },
    render::{Applicable, RegistryForPods, Rendering, deployment, validate},
};

/// Runs one template, written out or generated.
pub fn template_merge(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let mut generator = Generator::new(&mut bytes);
    let runtime = ["mlflow", "mlserver", "custom"][generator.below(3)];
    let port = [8080, 9000][generator.below(2)];
    let variables = generator.below(2);
    let variables = (0..variables).map(|_| json!({ "name": generator.text(), "value": generator.text() }));
    let env: Vec<_> = variables.collect();
    let serving = json!({ "image": "serving:1", "runtime": runtime, "port": port, "env": env });
    let mut serving: Serving = serde_json::from_value(serving).unwrap();
    let written = serde_json::from_slice::<Value>(input).ok().filter(Value::is_object);
    let template = written.unwrap_or_else(|| SCHEMA.with_borrow(|schema| generator.value(schema)));
    let ca = generator.chance(64);
    serving.template = Some(template);
    check(&serving, ca);
}

thread_local! {
    static SCHEMA: RefCell<Value> = RefCell::new(pod_template());
}

/// The schema of a pod template in the API server.
pub(super) fn pod_template() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<PodTemplateSpec>().to_value();
    // Generated often enough to be useful: the serving container, and fields that promises depend on.
    let container = &mut schema["properties"]["spec"]["properties"]["containers"]["items"]["properties"];
    container["name"]["enum"] = json!(["model", "model", "model", "proxy"]);
    let variable = &mut container["env"]["items"]["properties"];
    variable["name"]["enum"] =
        json!(["MODEL_URI", "HOME", "A", "B", "MODEL_VERSION", "__pyfunc_model_path__", ""]);
    let port = &mut container["ports"]["items"]["properties"];
    port["name"]["enum"] = json!(["http", "metrics"]);
    port["containerPort"]["enum"] = json!([8080, 9000, 9090]);
    // A partial template has no required fields.
    unrequire(&mut schema);
    schema
}

fn unrequire(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("required");
            fields.values_mut().for_each(unrequire);
        }
        Value::Array(items) => items.iter_mut().for_each(unrequire),
        _ => {}
    }
}

/// Returns the Deployment of version 4, and everything it is rendered from.
fn render(serving: &Serving, ca: bool) -> Result<Applicable<Deployment>, String> {
    let model = "Fraud (cards) ü".parse().unwrap();
    let alias = "champion".parse().unwrap();
    let registry = RegistryForPods {
        tracking_uri: "http://mlflow:5000".parse().unwrap(),
        workspace: None,
        ca: ca.then(|| serde_json::from_value(json!({ "name": "corp-ca" })).unwrap()),
        env_from: serde_json::from_value(json!([{ "secretRef": { "name": "artifact-store" } }])).unwrap(),
    };
    let rendering = Rendering {
        name: "fraud-champion",
        namespace: "risk",
        owner: OwnerReference::default(),
        model: &model,
        alias: &alias,
        serving,
        traffic: None,
        registry: &registry,
    };
    let version = Version::new(4).unwrap();
    let rendered = deployment(&rendering, version, &uri(), 2, Timestamp::UNIX_EPOCH);
    assert_eq!(validate(&rendering), rendered.clone().map(drop), "validation and rendering do not agree");
    if let Err(invalid) = &rendered {
        assert!(!invalid.0.is_empty(), "rejected without a reason");
        for violation in &invalid.0 {
            assert!(violation.path.starts_with("serving.") && violation.problem.len() > 10, "{violation:?}");
        }
    }
    rendered.map_err(|invalid| invalid.to_string())
}

fn uri() -> ModelUri {
    "models:/m-0123456789abcdef0123456789abcdef".parse().unwrap()
}

/// Properties of any template. [`spec_to_decision`](super::spec_to_decision) uses them as well.
pub(super) fn check(serving: &Serving, ca: bool) {
    let Ok(merged) = render(serving, ca) else { return };
    let template = serving.template.clone().unwrap_or_default();
    let as_if = Serving { template: None, ..serving.clone() };
    // A custom server has no probe, so without a template it is rejected.
    let Ok(plain) = render(&Serving { runtime: known(serving.runtime), ..as_if }, ca) else { return };
    let written = serde_json::to_value(&merged).unwrap()["spec"]["template"].clone();
    let (merged, plain) = (pod(merged.object), pod(plain.object));
    labels(&merged, &plain);
    let (spec, plain) = (merged.spec.clone().unwrap(), plain.spec.unwrap());
    let model = model_container(&spec);
    identity(serving, model);
    reachable(serving, model);
    if !template.to_string().contains("ecurityContext") {
        assert_eq!(spec.security_context, plain.security_context);
        assert_eq!(model.security_context, model_container(&plain).security_context);
    }
    assert_eq!(lost(&written, &template, ""), None, "{template} is merged to {written}");
}

fn known(runtime: Runtime) -> Runtime {
    if runtime == Runtime::Custom { Runtime::Mlflow } else { runtime }
}

fn pod(deployment: Deployment) -> PodTemplateSpec {
    let spec = deployment.spec.unwrap();
    let labels = spec.template.metadata.clone().unwrap().labels.unwrap();
    for (key, value) in spec.selector.match_labels.unwrap() {
        assert_eq!(labels.get(&key), Some(&value), "the Deployment would not select its own pods");
    }
    spec.template
}

fn labels(merged: &PodTemplateSpec, plain: &PodTemplateSpec) {
    let ours = |template: &PodTemplateSpec| -> BTreeMap<String, String> {
        let metadata = template.metadata.clone().unwrap();
        let pairs = metadata.labels.into_iter().flatten().chain(metadata.annotations.into_iter().flatten());
        // The fingerprint distinguishes the two, as it should.
        pairs.filter(|(key, _)| key.starts_with("laurel.dev/") && key != "laurel.dev/settings").collect()
    };
    assert_eq!(ours(merged), ours(plain), "labels or annotations of ours");
}

fn model_container(spec: &PodSpec) -> &Container {
    let mut models = spec.containers.iter().filter(|container| container.name == "model");
    let model = models.next().expect("a container that serves");
    assert!(models.next().is_none(), "two containers of one name");
    model
}

/// Each variable that names the version is set, and has the same value everywhere: the last one would win.
fn identity(serving: &Serving, model: &Container) {
    let uri = uri();
    let mut expected = BTreeMap::from([
        ("MODEL_NAME", "Fraud (cards) ü"),
        ("MODEL_VERSION", "4"),
        ("MODEL_ALIAS", "champion"),
        ("MODEL_URI", uri.as_str()),
    ]);
    match serving.runtime {
        Runtime::Mlflow => drop(expected.insert("__pyfunc_model_path__", uri.as_str())),
        Runtime::Mlserver => drop(expected.insert("MLSERVER_MODEL_URI", uri.as_str())),
        Runtime::Custom => {}
    }
    for (name, value) in expected {
        let reported: Vec<_> = model.env.iter().flatten().filter(|variable| variable.name == name).collect();
        assert!(!reported.is_empty(), "{name} is not set");
        for variable in reported {
            assert!(
                variable.value.as_deref() == Some(value) && variable.value_from.is_none(),
                "{variable:?}"
            );
        }
    }
}

/// The Service finds the server, and only once it can answer.
fn reachable(serving: &Serving, model: &Container) {
    let ports = model.ports.iter().flatten().filter(|port| port.name.as_deref() == Some("http"));
    let ports: Vec<_> =
        ports.map(|port| (port.container_port, port.protocol.as_deref().unwrap_or("TCP"))).collect();
    assert_eq!(ports, [(i32::from(serving.port), "TCP")]);
    assert!(model.readiness_probe.is_some());
}

/// Returns the first value of the template that is missing from the result; list items in any position. A
/// null must be removed.
fn lost(merged: &Value, written: &Value, place: &str) -> Option<String> {
    match (merged, written) {
        (_, Value::Null) => None,
        (Value::Object(merged), Value::Object(written)) => written.iter().find_map(|(field, written)| {
            let place = format!("{place}.{field}");
            match merged.get(field) {
                Some(merged) => lost(merged, written, &place),
                None => (!says_nothing(written)).then_some(place),
            }
        }),
        (Value::Array(merged), Value::Array(written)) => {
            let is_lost = |item: &&Value| merged.iter().all(|merged| lost(merged, item, place).is_some());
            written.iter().find(is_lost).map(|item| format!("{place}: {item}"))
        }
        // A quantity may be written as a number.
        (Value::String(merged), Value::Number(written)) if merged.parse().ok() == written.as_f64() => None,
        (merged, written) => (merged != written).then(|| place.to_owned()),
    }
}

fn says_nothing(written: &Value) -> bool {
    match written {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(says_nothing),
        _ => false,
    }
}
