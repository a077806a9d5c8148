//! Properties of merging, for any template.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{render, with};
use crate::render::fixture::{Fixture, model_uri};

/// Whether `more` contains everything in `less`; list items in any position.
fn contains(more: &Value, less: &Value) -> bool {
    match (more, less) {
        (Value::Object(more), Value::Object(less)) => {
            less.iter().all(|(field, less)| more.get(field).is_some_and(|more| contains(more, less)))
        }
        (Value::Array(more), Value::Array(less)) => {
            less.iter().all(|less| more.iter().any(|more| contains(more, less)))
        }
        (more, less) => more == less,
    }
}

prop_compose! {
    fn additions()(
        labels in prop::collection::btree_map("x[a-z]{1,5}", "[a-z]{1,5}", 0..4),
        selector in prop::collection::btree_map("[a-z]{1,5}", "[a-z]{1,5}", 0..4),
        variables in prop::collection::btree_set("x[A-Z]{1,5}", 0..4),
        volumes in prop::collection::btree_set("x[a-z]{1,5}", 0..4),
        sidecars in prop::collection::btree_set("x[a-z]{1,5}", 0..4),
    ) -> Value {
        let env: Vec<_> = variables.iter().map(|name| json!({"name": name, "value": "v"})).collect();
        let mounts: Vec<_> = volumes.iter().map(|n| json!({"name": n, "mountPath": format!("/{n}")})).collect();
        let volumes: Vec<_> = volumes.iter().map(|name| json!({"name": name, "emptyDir": {}})).collect();
        let sidecars = sidecars.iter().map(|name| json!({"name": name, "image": "i"}));
        let model = json!({"name": "model", "env": env, "volumeMounts": mounts});
        let containers: Vec<_> = sidecars.chain([model]).collect();
        json!({
            "metadata": {"labels": labels},
            "spec": {"nodeSelector": selector, "containers": containers, "volumes": volumes},
        })
    }
}

/// Generates JSON that resembles a pod template.
fn hostile() -> impl Strategy<Value = Value> {
    let field = prop::sample::select(vec![
        "metadata",
        "labels",
        "annotations",
        "spec",
        "containers",
        "initContainers",
        "name",
        "env",
        "envFrom",
        "value",
        "valueFrom",
        "ports",
        "containerPort",
        "protocol",
        "volumes",
        "emptyDir",
        "volumeMounts",
        "mountPath",
        "command",
        "readinessProbe",
        "httpGet",
        "exec",
        "lifecycle",
        "preStop",
        "laurel.dev/version",
        "restartPolicy",
        "securityContext",
        "",
        "$patch",
    ]);
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["model", "http", "tmp", "/tmp", "MODEL_URI", "HOME", "Always", "", "ü"])
            .prop_map(Value::from),
    ];
    scalar.prop_recursive(7, 80, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field.clone(), inner, 0..5).prop_map(|fields| {
                fields.into_iter().map(|(field, value)| (field.to_owned(), value)).collect()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_template_that_only_adds_removes_nothing(template in additions()) {
        let rendered = serde_json::to_value(render(&Fixture::serving("")).unwrap().spec.unwrap().template).unwrap();
        let mut rendered = rendered;
        // The fingerprint distinguishes the two, as it should.
        rendered["metadata"]["annotations"].as_object_mut().unwrap().remove("laurel.dev/settings");
        let merged = serde_json::to_value(render(&with(template.clone())).unwrap().spec.unwrap().template).unwrap();
        prop_assert!(contains(&merged, &rendered), "{merged:#}");
        prop_assert!(contains(&merged, &template), "{merged:#}");
    }

    #[test]
    fn hostile_templates_are_merged_or_rejected(
        template in hostile(), metadata in hostile(), spec in hostile(), container in hostile(),
    ) {
        let container = match container {
            Value::Object(mut fields) => { fields.insert("name".into(), "model".into()); fields.into() }
            other => other,
        };
        for template in [
            template,
            json!({"metadata": metadata}),
            json!({"spec": spec}),
            json!({"spec": {"containers": [container]}}),
        ] {
            if let Ok(deployment) = render(&with(template)) {
                let template = deployment.spec.unwrap().template;
                prop_assert_eq!(&template.metadata.unwrap().labels.unwrap()["laurel.dev/version"], "4");
                let pod = template.spec.unwrap();
                let model = pod.containers.iter().find(|container| container.name == "model").unwrap();
                let uri = model.env.iter().flatten().find(|variable| variable.name == "MODEL_URI").unwrap();
                prop_assert_eq!(uri.value.clone(), Some(model_uri().to_string()));
            }
        }
    }
}
