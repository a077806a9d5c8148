//! Valid and invalid objects of our kinds, generated from the CRDs' schemas.

use std::{collections::BTreeMap, env};

use anyhow::{Context, Result};
use arbitrary::Unstructured;
use kube::{api::ApiResource, core::GroupVersionKind};
use laurel::api::custom_resource_definitions;
use serde_json::{Value, json};

use generate::Generator;

#[path = "../../fuzz/targets/schema/generate.rs"]
pub(crate) mod generate;

pub(crate) const KINDS: [&str; 4] = ["ModelAlias", "RegisteredModel", "ModelRegistry", "ModelExperiment"];

/// The seed of a run's objects: `PROPTEST_RNG_SEED`, or a random one.
pub(crate) fn seed() -> u64 {
    env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122)
}

/// A kind of ours as a resource.
pub(crate) fn resource(kind: &str) -> ApiResource {
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk("laurel.dev", "v1alpha1", kind));
    if kind == "ModelRegistry" {
        "modelregistries".clone_into(&mut resource.plural);
    } else if kind == "ModelAlias" {
        "modelaliases".clone_into(&mut resource.plural);
    }
    resource
}

/// The schemas of the kinds' specs, from which hostile objects are generated.
pub(crate) fn schemas() -> Result<BTreeMap<&'static str, Value>> {
    KINDS.iter().map(|kind| Ok((*kind, schema(kind)?))).collect()
}

/// Returns the schema of a kind's spec, from which hostile objects are generated.
fn schema(kind: &str) -> Result<Value> {
    let definitions = custom_resource_definitions();
    let definition = definitions.iter().find(|definition| definition.spec.names.kind == kind);
    let schema = serde_json::to_value(&definition.context("a kind of ours")?.spec.versions[0].schema)?;
    let mut schema = schema["openAPIV3Schema"]["properties"]["spec"].clone();
    let fields = &mut schema["properties"];
    match kind {
        "ModelAlias" => {
            // Many references that resolve; and few pods, because the machine is shared.
            fields["modelRef"]["properties"]["name"] = json!({ "enum": ["model", "model", "model", "model", "model", "model", "model", "mode l", "nobody"] });
            let aliases = (1..60).map(|number| format!("a{number}"));
            let others = ["champion", "latest", "V3", "a b", "", "ünï"].map(str::to_owned);
            fields["alias"]["enum"] = aliases.chain(others).collect();
            fields["version"]["enum"] = json!(["1", "2", "1", "2", "3", "0", 1]);
            fields["serving"]["properties"]["replicas"]["maximum"] = json!(2);
            fields["serving"]["properties"]["template"] = json!({
                "type": "object",
                "properties": { "spec": { "type": "object", "properties": {
                    "nodeSelector": { "type": "object", "additionalProperties": { "type": "string" } },
                    "priority": { "type": "integer" },
                    "containers": { "type": "array", "items": { "type": "object", "required": ["name"], "properties": {
                        "name": { "enum": ["model", "proxy", "", "UPPER"] },
                        "image": { "type": "string" },
                        "imagee": { "type": "string" },
                        "env": { "type": "array", "items": { "type": "object", "properties": {
                            "name": { "type": "string" }, "value": { "type": "string" },
                        } } },
                        "ports": { "type": "array", "items": { "type": "object", "properties": {
                            "name": { "enum": ["http", "x", "not a name"] },
                            "containerPort": { "type": "integer" },
                        } } },
                    } } },
                } } },
            });
        }
        "ModelRegistry" => {
            // Only addresses of this machine.
            fields["mlflow"]["properties"]["url"] = json!({ "enum": [
                "http://127.0.0.1:9", "https://127.0.0.1:9/x", "http://[::1]:9", "http://127.0.0.1:99999",
                "http://127.0.0.1.5", "http://127.0.0.999", "http://[::1%25eth0]/", "http://127.0.0.1:9/?x", "ftp://127.0.0.1",
                "http://u:p@127.0.0.1", "", "127.0.0.1", "http://", "http://xn--/", 7,
            ] });
        }
        "ModelExperiment" => {
            let name = json!({ "enum": ["champion", "hostile-1", "hostile-2", "nobody", "cham pion"] });
            fields["championRef"]["properties"]["name"] = name.clone();
            fields["challengers"]["items"]["properties"]["aliasRef"]["properties"]["name"] = name;
        }
        // Deleting a model from a missing registry would wait, which another test covers.
        _ => fields["deletionPolicy"] = json!({ "enum": ["Retain", "Retain", "Retain", "retain", 7] }),
    }
    Ok(schema)
}

/// Returns the bytes of one object, deterministic for a seed.
pub(crate) fn bytes(seed: u64, index: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::new();
    while bytes.len() < 3000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

pub(crate) fn object(seed: u64, index: usize, schemas: &BTreeMap<&str, Value>) -> (&'static str, Value) {
    let bytes = bytes(seed, index);
    let mut bytes = Unstructured::new(&bytes);
    let mut generator = Generator::new(&mut bytes);
    let kind = KINDS[[0, 0, 0, 1, 2, 3][generator.below(6)]];
    let name = if generator.chance(24) { generator.text() } else { format!("hostile-{index}") };
    let mut spec = generator.value(&schemas[kind]);
    if let (Some(spec), "ModelAlias", false) = (spec.as_object_mut(), kind, generator.chance(24)) {
        // Keeps one of two mutually exclusive fields, and often a plain `serving`, so that many objects
        // serve.
        let other = if spec.contains_key("version") { "follow" } else { "version" };
        spec.remove(other);
        if !spec.contains_key("version") {
            spec.insert("follow".to_owned(), json!({ "registry": {} }));
        }
        if !generator.chance(90) {
            let template = spec.get("serving").and_then(|serving| serving.get("template")).cloned();
            let mut serving = json!({ "image": "registry.example/serving:1" });
            if let Some(template) = template.filter(|_| generator.chance(90)) {
                serving["template"] = template;
            }
            spec.insert("serving".to_owned(), serving);
            // Simulated pods do not answer requests.
            spec.insert("rollout".to_owned(), json!({ "smokeTest": { "mode": "Disabled" } }));
        }
    }
    let metadata = json!({ "name": name, "annotations": { "laurel.dev/retry": generator.text() } });
    (kind, json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec }))
}
