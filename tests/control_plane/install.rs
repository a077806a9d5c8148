//! `helm install` beside another operator.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    fixture::{Fixture, run},
    simulated::machine::repository,
};

/// Renders the chart as an install does, which asks the cluster. Returns its error, if any.
fn error_message(fixture: &Fixture, namespace: &str, set: &str) -> Result<Option<String>> {
    let bundled = repository().join(".cluster/bin/helm");
    let output = Command::new(if bundled.exists() { bundled } else { "helm".into() })
        .args(["template", "laurel", "charts/laurel", "--dry-run=server", "--namespace", namespace])
        .args(["--set", set])
        .arg("--kubeconfig")
        .arg(fixture.cluster.kubeconfig().context("the rig has a kubeconfig")?)
        .current_dir(repository())
        .output()
        .context("helm")?;
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn an_operator_with_an_overlapping_scope_is_refused_and_the_other_one_is_named() {
    run("overlap", async |fixture| {
        let lease = |holder: &str, scope: &str| {
            json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": "laurel", "annotations": { "laurel.dev/scope": scope } },
                "spec": { "holderIdentity": holder },
            })
            .to_string()
        };
        let namespace = format!("{:?}", fixture.namespace);
        let names_it =
            |message: &Option<String>| message.as_ref().is_some_and(|message| message.contains(&namespace));
        for (holder, theirs, ours, is_refused) in [
            ("laurel-0", "cluster", "cluster", true),
            ("laurel-0", "namespace", "cluster", true),
            ("", "namespace", "cluster", false),
            // Who installs it for one namespace may ask for nothing outside of that.
            ("laurel-0", "cluster", "namespace", false),
        ] {
            fixture.apply(&lease(holder, theirs)).await?;
            let message = error_message(fixture, "elsewhere", &format!("scope={ours}"))?;
            ensure!(names_it(&message) == is_refused, "{holder:?} {theirs} {ours}: {message:?}");
            let next_step = format!("kubectl -n {} delete lease laurel", fixture.namespace);
            ensure!(
                !is_refused || message.is_some_and(|message| message.contains(&next_step)),
                "no next step"
            );
        }
        Ok(())
    });
}

#[test]
fn an_upgrade_from_a_release_without_the_lease_is_refused_while_that_runs() {
    run("no-lease", async |fixture| {
        let namespace = &fixture.namespace;
        let deployment = |replicas: u32, env: &str| {
            format!(
                "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: laurel
  labels: {{app.kubernetes.io/managed-by: Helm}}
  annotations: {{meta.helm.sh/release-name: laurel, meta.helm.sh/release-namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: laurel}}}}
  template:
    metadata: {{labels: {{app: laurel}}}}
    spec:
      containers: [{{name: laurel, image: registry.example/laurel, env: [{{name: {env}, value: a}}]}}]
"
            )
        };
        for (replicas, env, set, is_refused) in [
            (1, "LAUREL_LOG_FORMAT", "scope=namespace", true),
            (1, "LAUREL_LOG_FORMAT", "scope=namespace,replicas=0", false),
            (0, "LAUREL_LOG_FORMAT", "scope=namespace", false),
            (1, "LAUREL_LEASE_NAMESPACE", "scope=namespace", false),
        ] {
            fixture.apply(&deployment(replicas, env)).await?;
            let message = error_message(fixture, namespace, &format!("crds.install=false,{set}"))?;
            let says_how = message.as_ref().is_some_and(|message| message.contains("--set replicas=0"));
            ensure!(says_how == is_refused, "{replicas} {env} {set}: {message:?}");
            ensure!(is_refused || message.is_none(), "{message:?}");
        }
        Ok(())
    });
}
