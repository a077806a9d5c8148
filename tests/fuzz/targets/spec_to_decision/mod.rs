//! An object by the CRD's own schema, and anything that the cluster and the registry may show: from admission
//! to the status that would be written.
//!
//! What the API server lets in can be read; what it refuses leads nowhere. What cannot be rendered leads to
//! no action. What is decided keeps the promises from any state, also from one that no story leads to, and
//! the status that tells of it is one that the API server takes.

use std::{cell::RefCell, collections::HashMap};

use arbitrary::Unstructured;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    schema::{Admission, Generator},
    template_merge,
};
use crate::api::{ModelAlias, ModelRegistry, RegisteredModel, custom_resource_definitions};

mod judge;
mod observation;

/// One object, made or written out.
pub fn spec_to_decision(input: &[u8]) {
    KINDS.with_borrow(|kinds| {
        let written = serde_json::from_slice::<Value>(input).ok().filter(Value::is_object);
        let mut bytes = Unstructured::new(if written.is_some() { &[] } else { input });
        let mut generator = Generator::new(&mut bytes);
        let kind = match written.as_ref().and_then(|object| object["kind"].as_str()) {
            Some(kind) => kind.to_owned(),
            None => ["ModelAlias", "ModelAlias", "RegisteredModel", "ModelRegistry"][generator.below(4)]
                .to_owned(),
        };
        let Some(kind) = kinds.get(kind.as_str()) else { return };
        let object = written.map_or_else(|| kind.object(&mut generator), with_plain_metadata);
        kind.judge(object, &mut generator);
    });
}

thread_local! {
    static KINDS: RefCell<HashMap<&'static str, Kind>> = RefCell::new(kinds());
}

/// A kind of ours: how its objects are made, and which of them the API server takes.
struct Kind {
    name: &'static str,
    admission: Admission,
    /// The same schema, with a pod template's own where the kind's leaves it open.
    desires: Value,
}

fn kinds() -> HashMap<&'static str, Kind> {
    let known = ["ModelAlias", "RegisteredModel", "ModelRegistry"];
    let definitions = custom_resource_definitions();
    let kinds = known.map(|name| {
        let definition = definitions.iter().find(|definition| definition.spec.names.kind == name).unwrap();
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let schema = schema["openAPIV3Schema"].clone();
        let mut desires = schema["properties"].clone();
        if name == "ModelAlias" {
            desires["spec"]["properties"]["serving"]["properties"]["template"] =
                template_merge::pod_template();
        }
        (name, Kind { name, admission: Admission::new(schema), desires })
    });
    kinds.into()
}

impl Kind {
    fn object(&self, generator: &mut Generator) -> Value {
        let name = if generator.chance(40) { generator.text() } else { "fraud-champion".to_owned() };
        let mut object = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": self.name,
            "metadata": metadata(&name),
            "spec": generator.value(&self.desires["spec"]),
        });
        if self.name == "ModelAlias" {
            // Of two fields that exclude each other, one; else the rest of the spec is hardly ever looked at.
            let spec = object["spec"].as_object_mut();
            if let Some(spec) = spec.filter(|_| !generator.chance(20)) {
                if generator.chance(60) {
                    spec.remove("version");
                    spec.insert("follow".to_owned(), json!({ "registry": {} }));
                } else {
                    spec.remove("follow");
                    spec.insert("version".to_owned(), (generator.below(6) + 1).to_string().into());
                }
            }
        }
        if generator.chance(128) {
            object["status"] = generator.value(&self.desires["status"]);
        }
        if generator.chance(60) {
            object["metadata"]["annotations"] = json!({ "laurel.dev/retry": generator.text() });
        }
        if generator.chance(60) {
            object["metadata"]["finalizers"] = json!(["laurel.dev/registry-alias"]);
            if generator.chance(60) {
                let ago = i64::try_from(generator.below(200)).unwrap();
                let at = now().as_second() - ago;
                object["metadata"]["deletionTimestamp"] =
                    Timestamp::from_second(at).unwrap().to_string().into();
            }
        }
        object
    }

    fn judge(&self, object: Value, generator: &mut Generator) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if !is_dns_subdomain(name) {
            return;
        }
        let Ok(admitted) = self.admission.admit(object) else { return };
        match self.name {
            "ModelAlias" => {
                let alias: ModelAlias = read(admitted.clone());
                if let Some(serving) = &alias.spec.serving {
                    template_merge::check(serving, false);
                }
                judge::judge(&alias, admitted, &self.admission, generator);
            }
            "RegisteredModel" => {
                let model: RegisteredModel = read(admitted);
                model.model_name().expect("a model's name");
            }
            _ => drop(read::<ModelRegistry>(admitted)),
        }
    }
}

/// With what an API server would have written into its metadata, whatever somebody else wrote.
fn with_plain_metadata(mut object: Value) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    object["metadata"] = metadata(name);
    object
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "namespace": "risk",
        "uid": "6d1b7a52-0a4c-4d0e-8a35-2f9d4c1b0e77",
        "generation": 3,
        "creationTimestamp": "2026-11-22T00:00:00Z",
    })
}

/// An object as it is read from a watch.
fn read<K: DeserializeOwned>(admitted: Value) -> K {
    let shown = admitted.to_string();
    serde_json::from_value(admitted)
        .unwrap_or_else(|error| panic!("admitted, but cannot be read: {error}: {shown}"))
}

fn is_dns_subdomain(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}
