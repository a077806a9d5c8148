//! `laurel check` on the command line, and that it judges as the API server does.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use arbitrary::Unstructured;
use futures::{StreamExt, stream};
use laurel::offline::admission::Judge;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, run},
    simulated::hostile::{KINDS, bytes, generate::Generator, object, resource, schemas, seed},
};

/// How many manifests are thrown at both.
const COUNT: usize = 600;
const SIDE_BY_SIDE: usize = 4;

/// A manifest: a hostile one, or an ordinary one with a little something done to it.
fn manifest(index: usize, hostile: &BTreeMap<&str, Value>, ordinary: &[Value]) -> Value {
    let (seed, choices) = (seed() ^ 0x5eed, bytes(seed(), index + 100_000));
    let mut choices = Unstructured::new(&choices);
    let mut generator = Generator::new(&mut choices);
    if index.is_multiple_of(3) {
        return object(seed, index, hostile).1;
    }
    let mut manifest = ordinary[generator.below(ordinary.len())].clone();
    for _ in 0..generator.below(3) {
        let spot = 1 + generator.below(40);
        disturb(&mut manifest, &mut { spot }, &mut generator);
    }
    manifest["metadata"]["name"] = match generator.below(12) {
        0 => generator.text().into(),
        1 => Value::Null,
        2 => "a".repeat(53).into(),
        _ => format!("check-{index}").into(),
    };
    match generator.below(10) {
        0 => manifest["metadata"]["labels"] = json!({ generator.text(): generator.text() }),
        1 => manifest["metadata"]["annotations"] = json!({ generator.text(): generator.text() }),
        2 => manifest["metadata"][generator.text()] = "?".into(),
        3 => manifest["status"] = json!({ "conditions": [], "mood": "good" }),
        4 => manifest["status"] = json!({ "conditions": 7 }),
        _ => {}
    }
    manifest
}

/// Walks to a place in a value, and puts, takes or changes something there.
fn disturb(value: &mut Value, steps: &mut usize, generator: &mut Generator) -> bool {
    if *steps == 0 {
        match value {
            Value::Object(fields) if generator.chance(128) => {
                let key = if generator.chance(90) {
                    generator.text()
                } else {
                    fields.keys().next().cloned().unwrap_or_default()
                };
                let other =
                    [json!(null), json!({}), json!(generator.text()), json!(0.5)][generator.below(4)].clone();
                fields.insert(key, other);
            }
            Value::Array(items) if generator.chance(128) => items.extend(items.first().cloned()),
            _ => {
                let others = [
                    json!(null),
                    json!(""),
                    json!(-1),
                    json!(1e19),
                    json!(2.0),
                    json!([]),
                    json!({}),
                    json!(true),
                    json!("5"),
                    json!(generator.text()),
                ];
                *value = others[generator.below(others.len())].clone();
            }
        }
        return true;
    }
    *steps -= 1;
    match value {
        Value::Object(fields) => {
            let hidden = ["apiVersion", "kind", "metadata"];
            fields
                .iter_mut()
                .filter(|(key, _)| !hidden.contains(&key.as_str()))
                .any(|(_, value)| disturb(value, steps, generator))
        }
        Value::Array(items) => items.iter_mut().any(|value| disturb(value, steps, generator)),
        _ => false,
    }
}

/// Why the API server refuses an object, if it does. Nothing is stored.
async fn refused(fixture: &Fixture, manifest: &Value) -> Result<Option<String>> {
    let kind = manifest["kind"].as_str().context("a kind")?;
    let plural = resource(kind).plural;
    let path = format!(
        "/apis/laurel.dev/v1alpha1/namespaces/{}/{plural}?dryRun=All&fieldValidation=Strict",
        fixture.namespace
    );
    let request = hyper::Request::post(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(manifest)?)?;
    match fixture.cluster.client.request::<Value>(request).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            Ok(Some(status.message))
        }
        Err(error) => Err(error.into()),
    }
}

#[test]
fn offline_checks_agree_with_the_api_server() {
    run("check-agrees", async |fixture| {
        let (judge, hostile, ordinary) = (Judge::default(), schemas()?, samples()?);
        ensure!(
            KINDS.iter().all(|kind| ordinary.iter().any(|object| object["kind"] == *kind)),
            "no sample of a kind"
        );
        let manifests = (0..COUNT).map(|index| manifest(index, &hostile, &ordinary));
        let asked = stream::iter(manifests).map(async |manifest| {
            let said = refused(fixture, &manifest).await?;
            anyhow::Ok((manifest, said))
        });
        let answers: Vec<_> = asked.buffered(SIDE_BY_SIDE).collect().await;
        let (mut taken, mut differences) = (0, Vec::new());
        for answer in answers {
            let (manifest, said) = answer?;
            let violations: Vec<_> = judge.judge(&manifest).iter().map(ToString::to_string).collect();
            taken += usize::from(said.is_none());
            if violations.is_empty() != said.is_none() {
                differences.push(format!("the API server: {said:?}\n  here: {violations:?}\n  {manifest}"));
            }
        }
        println!("seed {}: of {COUNT} manifests {taken} were taken", seed());
        ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
        ensure!((COUNT / 8..COUNT * 7 / 8).contains(&taken), "that is not what was meant: {taken}");
        Ok(())
    });
}

/// The samples of our kinds.
fn samples() -> Result<Vec<Value>> {
    let folder = crate::simulated::machine::repository().join("config/samples");
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            for document in serde_yaml::Deserializer::from_str(&std::fs::read_to_string(path)?) {
                let value: Value = serde::Deserialize::deserialize(document)?;
                if KINDS.iter().any(|kind| value["kind"] == *kind) {
                    objects.push(value);
                }
            }
        }
    }
    Ok(objects)
}
