//! The tests: each looks at a part of the evidence.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    audit::used,
    evidence::{self, Evidence},
    install::Scope,
    rights::Right,
    simulated::machine::RUNTIME,
    support::cluster::Cluster,
};

const SCOPES: [Scope; 2] = [Scope::Cluster, Scope::Namespace];

fn list(lines: impl IntoIterator<Item = impl ToString>) -> String {
    [String::new()]
        .into_iter()
        .chain(lines.into_iter().map(|line| line.to_string()))
        .collect::<Vec<_>>()
        .join("\n  ")
}

fn the_role_is_exactly_what_the_code_uses(evidence: &Evidence) {
    let refused: Vec<String> =
        evidence.requests.iter().filter(|request| !request.allowed).map(ToString::to_string).collect();
    assert!(refused.is_empty(), "the chart grants too little; refused were:{}", list(refused));
    let beside: Vec<String> =
        evidence.requests.iter().filter(|request| request.right.is_none()).map(ToString::to_string).collect();
    assert!(beside.is_empty(), "the operator asks for what no role grants:{}", list(beside));

    let used = used(&evidence.requests);
    let spare: BTreeSet<&Right> = evidence.granted.difference(&used).collect();
    assert!(spare.is_empty(), "the chart grants what nothing used:{}", list(spare));
    let missing: BTreeSet<&Right> = used.difference(&evidence.granted).collect();
    assert!(missing.is_empty(), "used without being granted by the role:{}", list(missing));
}

#[test]
fn promise_12_for_all_namespaces_the_role_is_exactly_what_the_code_uses() {
    the_role_is_exactly_what_the_code_uses(evidence::of(Scope::Cluster));
}

#[test]
fn promise_12_in_one_namespace_the_role_is_exactly_what_the_code_uses_and_no_cluster_role_is_needed() {
    let evidence = evidence::of(Scope::Namespace);
    the_role_is_exactly_what_the_code_uses(evidence);
    assert!(evidence.kinds.iter().all(|kind| !kind.starts_with("Cluster")), "{:?}", evidence.kinds);
    let elsewhere: Vec<String> = evidence
        .requests
        .iter()
        .filter(|request| request.namespace != evidence.namespace)
        .map(ToString::to_string)
        .collect();
    assert!(elsewhere.is_empty(), "asked for outside the namespace:{}", list(elsewhere));
}

#[test]
fn promise_12_secrets_are_read_one_by_one_where_an_object_names_them() {
    for evidence in SCOPES.map(evidence::of) {
        let mut read: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for request in &evidence.requests {
            let Some(right) = request.right.as_ref().filter(|right| right.resource == "secrets") else {
                continue;
            };
            read.entry((&request.namespace, &request.name)).or_default().insert(&right.verb);
        }
        let named = ["corp-ca", "login", "token"];
        let expected = named.map(|name| ((evidence.namespace.as_str(), name), BTreeSet::from(["get"])));
        assert_eq!(read, expected.into(), "serving pods' Secrets are the kubelet's to read");
    }
}

#[test]
fn promise_12_no_secret_is_revealed() {
    for evidence in SCOPES.map(evidence::of) {
        for (what, text) in &evidence.texts {
            assert!(!text.trim().is_empty(), "{what} is empty");
            for secret in &evidence.secrets {
                let shown = secret.shown_in(text);
                assert_eq!(shown, None, "{what} shows {}", secret.what);
            }
        }
        // The search finds what is there.
        for secret in evidence
            .secrets
            .iter()
            .filter(|secret| !secret.what.contains("wrong") && !secret.what.contains("own token"))
        {
            assert!(secret.shown_in(&evidence.kept).is_some(), "{} is not in the Secrets", secret.what);
        }
        let log = evidence.texts.iter().find(|(what, _)| what == "its log").map(|(_, text)| text.as_str());
        for word in [r#""level":"DEBUG""#, "(hidden)", "RegistryUnauthorized", "SecretKeyInvalid", "by-token"]
        {
            assert!(log.is_some_and(|log| log.contains(word)), "the log does not speak of {word}");
        }
    }
}

#[test]
fn promise_12_references_to_other_namespaces_and_urls_with_credentials_are_rejected() {
    for evidence in SCOPES.map(evidence::of) {
        let reasons = ["should match", "should match", "field not declared in schema", "carries no login"];
        assert_eq!(evidence.rejections.len(), reasons.len());
        for ((what, said), reason) in evidence.rejections.iter().zip(reasons) {
            assert!(said.contains(reason), "{what}: {said}");
        }
    }
}

/// Asks the API server whether it would take a pod of this template; what it says, warnings included.
async fn admission(cluster: &Cluster, namespace: &str, template: &Value) -> Result<String> {
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "spec": template["spec"] });
    // The account is made with the release, and not here.
    pod["spec"].as_object_mut().map(|spec| spec.remove("serviceAccountName"));
    let ask = ["create", "-n", namespace, "--dry-run=server", "-o", "name", "-f", "-"];
    cluster.run_kubectl(&ask, Some(&pod.to_string())).await
}

#[test]
fn promise_12_every_pod_passes_the_restricted_standard_without_a_warning() {
    let evidence = evidence::of(Scope::Cluster);
    RUNTIME.block_on(async {
        let result: Result<()> = async {
            let cluster = evidence::cluster().await?;
            let namespace = format!("lp-pods-{}", std::process::id());
            cluster.fresh_namespace(&namespace, "least-privilege-test").await?;
            let warn = "pod-security.kubernetes.io/warn=restricted";
            cluster.run_kubectl(&["label", "namespace", &namespace, warn], None).await?;
            let asked = ask_for_all(cluster, &namespace, evidence).await;
            cluster.terminate_namespace(&namespace).await?;
            asked
        }
        .await;
        result.unwrap();
    });
}

async fn ask_for_all(cluster: &Cluster, namespace: &str, evidence: &Evidence) -> Result<()> {
    let names: BTreeSet<&str> = evidence.templates.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["champion-v2", "rolling-v2", "custom-v1", "the operator"] {
        ensure!(names.contains(name), "no template of {name} among {names:?}");
    }
    for (name, template) in &evidence.templates {
        let said = admission(cluster, namespace, template).await?;
        ensure!(said.trim() == "pod/a", "{name}: {said}");
        if name != "the operator" {
            ensure!(template["spec"]["automountServiceAccountToken"] == false, "{name} gets a token");
        }
    }
    // The namespace does refuse.
    let mut loose = evidence.templates[0].1.clone();
    loose["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
    let error_message = admission(cluster, namespace, &loose).await.map_err(|error| error.to_string());
    ensure!(
        error_message.as_ref().is_err_and(|said| said.contains("violates PodSecurity")),
        "{error_message:?}"
    );
    Ok(())
}
