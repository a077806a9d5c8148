//! Validation by the API server: rejected manifests with their messages, and defaults.

use anyhow::{Context, Result, ensure};
use kube::{Api, api::DeleteParams};
use laurel::api::{ModelAlias, ModelRegistry};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, run},
    simulated::place::Place,
};

/// Asserts that every manifest is rejected with this message.
async fn refused(fixture: &Fixture, cases: impl IntoIterator<Item = (Value, &str)>) -> Result<()> {
    for (manifest, words) in cases {
        let message = fixture.error_message(&manifest).await.with_context(|| format!("expected: {words}"))?;
        ensure!(message.contains(words), "{message:?}\n  does not say\n{words:?}");
    }
    Ok(())
}

/// Asserts that the champion with this spec is rejected with this message.
async fn champion_refused(fixture: &Fixture, cases: &[(&str, &'static str)]) -> Result<()> {
    let manifests = cases.iter().map(|(spec, words)| Ok((Place::manifest(spec)?, *words)));
    refused(fixture, manifests.collect::<Result<Vec<_>>>()?).await
}

#[test]
fn an_invalid_modelalias_is_rejected_by_the_api_server() {
    run("refused-alias", async |fixture| {
        champion_refused(
            fixture,
            &[
                ("{}", "set exactly one of version and follow"),
                ("{version: '1', follow: {registry: {}}}", "set exactly one of version and follow"),
                ("{follow: {}}", "follow takes exactly one of registry, latest, best and semver"),
                ("{follow: {registry: {}, latest: {}}}", "must have at most 1 item"),
                ("{follow: {newest: {}}}", "follow takes exactly one of registry, latest, best and semver"),
                ("{follow: {registry: {}, window: {}}}", "must have at most 1 item"),
                ("{follow: {semver: {tag: semver, range: 'two or so'}}}", "spec.follow.semver.range"),
                ("{follow: {best: {metric: auc, goal: Most}}}", "spec.follow.best.goal"),
                (
                    "{version: '1', alias: latest}",
                    "MLflow reserves the aliases 'latest' and 'v' followed by digits",
                ),
                (
                    "{version: '1', alias: LATEST}",
                    "MLflow reserves the aliases 'latest' and 'v' followed by digits",
                ),
                (
                    "{version: '1', alias: v3}",
                    "MLflow reserves the aliases 'latest' and 'v' followed by digits",
                ),
                (
                    "{version: '1', previousAlias: v3}",
                    "MLflow reserves the aliases 'latest' and 'v' followed by digits",
                ),
                ("{version: '1', alias: 'a b'}", "spec.alias in body should match '^[A-Za-z0-9_-]+$'"),
                ("{version: '1', previousAlias: champion}", "previousAlias must differ from alias"),
                ("{version: '04'}", "spec.version in body should match '^[1-9][0-9]*$'"),
                ("{version: '0'}", "spec.version in body should match '^[1-9][0-9]*$'"),
                ("{version: four}", "spec.version in body should match '^[1-9][0-9]*$'"),
                ("{version: 4}", ".spec.version: expected string"),
                (
                    "{version: '1', serving: {replicas: 0}}",
                    "spec.serving.replicas in body should be greater than or equal to 1",
                ),
                (
                    "{version: '1', serving: {port: 80}}",
                    "spec.serving.port in body should be greater than or equal to 1024",
                ),
                (
                    "{version: '1', serving: {runtime: custom, keepAlive: Enabled}}",
                    "keepAlive is for the runtimes that Laurel renders; a custom server decides for itself",
                ),
                (
                    "{version: '1', serving: {runtime: tensorflow}}",
                    r#"Unsupported value: "tensorflow": supported values: "mlflow", "mlserver", "custom""#,
                ),
                ("{version: '1', rollout: {maxSurge: 2}}", "maxSurge is for strategy Rolling"),
                (
                    "{version: '1', rollout: {strategy: Rolling, maxSurge: 0}}",
                    "spec.rollout.maxSurge in body should be greater than or equal to 1",
                ),
                ("{version: '1', rollout: {progressDeadline: 0s}}", "progressDeadline is at least 1s"),
                ("{version: '1', rollout: {smokeTest: {timeout: 0s}}}", "smokeTest.timeout is at least 1s"),
                (
                    "{version: '1', serving: {env: [{name: A}, {name: B}, {name: A}]}}",
                    r#"duplicate entries for key [name="A"]"#,
                ),
                (
                    "{version: '1', serving: {templateOmit: ['spec..containers']}}",
                    "spec.serving.templateOmit[0] in body should match",
                ),
                ("{version: '1', rollout: {warmFor: soon}}", "spec.rollout.warmFor in body should match"),
                ("{version: '1', rollout: {warmFor: -5m}}", "spec.rollout.warmFor in body should match"),
                ("{version: '1', serving: {image: null}}", "spec.serving.image: Required value"),
                ("{version: '1', verison: '2'}", "verison"),
            ],
        )
        .await
    });
}

#[test]
fn metrics_that_the_runtime_does_not_use_are_rejected_by_the_api_server() {
    run("refused-metrics", async |fixture| {
        champion_refused(
            fixture,
            &[
                (
                    "{version: '1', serving: {runtime: custom, metrics: {predictions: Classes}}}",
                    "metrics.predictions is for the runtimes that Laurel renders",
                ),
                (
                    "{version: '1', serving: {metrics: {port: 9090}}}",
                    "metrics.port is for the runtime custom",
                ),
                (
                    "{version: '1', serving: {runtime: mlserver, metrics: {requests: seconds}}}",
                    "metrics.path, metrics.requests and metrics.statusLabel need metrics.port",
                ),
                (
                    "{version: '1', serving: {runtime: custom, metrics: {path: /stats}}}",
                    "metrics.path, metrics.requests and metrics.statusLabel need metrics.port",
                ),
                (
                    "{version: '1', serving: {runtime: custom, metrics: {port: 8080}}}",
                    "metrics.port must differ from serving.port",
                ),
                (
                    "{version: '1', serving: {runtime: custom, metrics: {port: 80}}}",
                    "spec.serving.metrics.port in body should be greater than or equal to 1024",
                ),
                (
                    "{version: '1', serving: {runtime: custom, metrics: {port: 9090, path: stats}}}",
                    "spec.serving.metrics.path in body should match",
                ),
                (
                    "{version: '1', serving: {runtime: custom, metrics: {port: 9090, requests: a-b}}}",
                    "spec.serving.metrics.requests in body should match",
                ),
                (
                    "{version: '1', serving: {runtime: custom, metrics: {port: 9090, statusLabel: 'a:b'}}}",
                    "spec.serving.metrics.statusLabel in body should match",
                ),
                (
                    "{version: '1', serving: {metrics: {predictions: All}}}",
                    r#"Unsupported value: "All": supported values: "Classes", "Numbers", "Disabled""#,
                ),
            ],
        )
        .await
    });
}

#[test]
fn names_that_would_not_fit_a_service_are_rejected_by_the_api_server() {
    run("refused-name", async |fixture| {
        let named = |name: &str| -> Result<Value> {
            let mut manifest = Place::manifest("version: '1'")?;
            manifest["metadata"]["name"] = name.into();
            Ok(manifest)
        };
        let long = "x".repeat(53);
        let rule = "at most 52 lower-case letters, digits and '-', starting with a letter";
        refused(fixture, [(named(&long)?, rule), (named("1st")?, rule), (named("a.b")?, rule)]).await
    });
}

#[test]
fn changes_of_immutable_fields_are_rejected_with_the_next_step() {
    run("refused-change", async |fixture| {
        fixture.apply(&serde_yaml::to_string(&Place::manifest("{version: '1', suspend: true}")?)?).await?;
        champion_refused(
            fixture,
            &[
                ("{version: '1', alias: shadow}", "alias is immutable: create another ModelAlias"),
                (
                    "{version: '1', modelRef: {name: other}}",
                    "modelRef is immutable: create another ModelAlias",
                ),
            ],
        )
        .await?;
        let model = |spec: Value| json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "model" }, "spec": spec });
        fixture.apply(&model(json!({ "modelName": fixture.model })).to_string()).await?;
        let immutable = "modelName is immutable: create another RegisteredModel";
        refused(
            fixture,
            [
                (model(json!({ "modelName": "another" })), immutable),
                (model(json!({})), immutable),
                (model(json!({ "modelName": "a/b" })), "spec.modelName in body should match"),
                (
                    model(json!({ "modelName": fixture.model, "promotion": [{ "aliases": ["a"], "tags": { "b": "c" } }] })),
                    "promotion",
                ),
                (
                    model(json!({ "modelName": fixture.model, "registryRef": { "kind": "Registry", "name": "a" } })),
                    r#"Unsupported value: "Registry""#,
                ),
                (
                    model(json!({ "modelName": fixture.model, "tags": { "a,b": "c" } })),
                    "a tag's key is 1 to 250 letters, digits, spaces or one of _ . / : -",
                ),
            ],
        )
        .await
    });
}

#[test]
fn an_invalid_experiment_is_rejected_by_the_api_server_and_a_valid_one_cannot_be_changed() {
    run("refused-experiment", async |fixture| {
        let experiment = |spec: &str| -> Result<Value> {
            let mut all = json!({
                "championRef": { "name": "champion" },
                "challengers": [{ "aliasRef": { "name": "one" } }],
                "metrics": [{ "name": "failures", "role": "Primary", "failures": {} }],
            });
            let spec: Value = serde_yaml::from_str(spec)?;
            let spec = spec.as_object().context("a spec is an object")?.clone();
            all.as_object_mut().context("a spec is an object")?.extend(spec);
            Ok(
                json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelExperiment", "metadata": { "name": "q4" },
                "spec": all }),
            )
        };
        let cases = [
            ("{challengers: []}", "spec.challengers"),
            ("{challengers: [{aliasRef: {name: champion}}]}", "the champion is not one of its challengers"),
            (
                "{challengers: [{aliasRef: {name: one}}, {aliasRef: {name: one}}]}",
                "each challenger is listed once",
            ),
            ("{metrics: []}", "spec.metrics"),
            (
                "{metrics: [{name: a, role: Guardrail, failures: {}}]}",
                "exactly one metric has the role Primary",
            ),
            (
                "{metrics: [{name: a, role: Primary}]}",
                "a metric has exactly one of predictions, failures, slow and missing",
            ),
            (
                "{metrics: [{name: a, role: Primary, predictions: {class: x}}]}",
                "predictions need a goal: Maximize or Minimize",
            ),
            (
                "{metrics: [{name: a, role: Primary, goal: Maximize, predictions: {class: x, mean: {}}}]}",
                "predictions has exactly one of mean and class",
            ),
            (
                "{metrics: [{name: a, role: Primary, goal: Maximize, failures: {}}]}",
                "of failures, slow and missing fewer are better: leave goal out",
            ),
            (
                "{metrics: [{name: a, role: Primary, failures: {}}, {name: b, role: Guardrail, predictions: {mean: {}}}]}",
                "a guardrail has one of failures, slow and missing",
            ),
            (
                "{metrics: [{name: a, role: Primary, failures: {}, tolerate: 2}]}",
                "only a guardrail has tolerate",
            ),
            (
                "{metrics: [{name: a, role: Primary, failures: {}}, {name: b, role: Guardrail, missing: {}, margin: 1}]}",
                "only the primary metric has a margin",
            ),
            ("{falseAlarm: 0}", "falseAlarm is greater than 0"),
            ("{minSamples: 10}", "spec.minSamples"),
            ("{duration: {atLeast: 48h, atMost: 24h}}", "duration.atLeast is at most duration.atMost"),
            ("{duration: {atMost: 9000h}}", "duration.atMost is from 1m to 8760h"),
        ];
        let manifests = cases.iter().map(|(spec, words)| Ok((experiment(spec)?, *words)));
        refused(fixture, manifests.collect::<Result<Vec<_>>>()?).await?;
        let mut long = experiment("{}")?;
        long["metadata"]["name"] = "a".repeat(64).into();
        refused(fixture, [(long, "the name has at most 63 characters")]).await?;

        fixture.apply(&experiment("{}")?.to_string()).await?;
        let changed = [
            experiment("{falseAlarm: 0.01}")?,
            experiment("{challengers: [{aliasRef: {name: two}}]}")?,
            experiment("{minSamples: 2000}")?,
            experiment("{duration: {atMost: 700h}}")?,
        ];
        let words = "what is compared, and how, cannot be changed: create another ModelExperiment";
        refused(fixture, changed.map(|changed| (changed, words))).await?;
        fixture.apply(&experiment("{onGuardrail: Report, onWinner: SetAlias}")?.to_string()).await
    });
}

#[test]
fn invalid_live_rules_are_rejected_by_the_api_server() {
    run("refused-live", async |fixture| {
        let live = |live: &str| -> Result<Value> {
            let live: Value = serde_yaml::from_str(live)?;
            Ok(
                json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "live" },
                "spec": { "promotion": [{ "name": "live", "aliases": ["champion"], "live": live }] } }),
            )
        };
        let cases = [
            ("{}", "spec.promotion[0].live.checks"),
            ("{checks: []}", "spec.promotion[0].live.checks"),
            ("{checks: [{name: a}]}", "a check has exactly one of failures, slow and missing"),
            (
                "{checks: [{name: a, failures: {}, missing: {}}]}",
                "a check has exactly one of failures, slow and missing",
            ),
            ("{checks: [{name: a, slow: {over: 300ms}}]}", r#"Unsupported value: "300ms""#),
            ("{checks: [{name: a, failures: {}, tolerate: 2}]}", "margin is greater than tolerate"),
            ("{checks: [{name: a, failures: {}, max: 1}]}", "max"),
            ("{checks: [{name: a, failures: {}}, {name: a, missing: {}}]}", "duplicate entries for key"),
            ("{checks: [{name: a, failures: {}, max: 0}]}", "max is greater than 0"),
            ("{checks: [{name: a, failures: {}}], falseAlarm: 0}", "falseAlarm is greater than 0"),
            ("{checks: [{name: a, failures: {}}], warmUp: 2h}", "warmUp is at most 1h"),
            ("{checks: [{name: a, failures: {}}], unknownFor: 1s}", "unknownFor is at least 1m"),
            ("{checks: [{name: a, failures: {}}], onRegression: Stop}", r#"Unsupported value: "Stop""#),
            ("{checks: [{name: a, failures: {}}], drift: {maxShare: 0}}", "maxShare is greater than 0"),
            ("{checks: [{name: a, failures: {}}], drift: {maxShare: 1}}", "maxShare"),
            ("{checks: [{name: a, failures: {}}], drift: {minRows: 0}}", "minRows"),
            ("{checks: [{name: a, failures: {}}], drift: {maxAge: 1s}}", "maxAge is at least 1m"),
            (
                "{checks: [{name: a, failures: {}}], drift: {action: RollBack}}",
                r#"Unsupported value: "RollBack""#,
            ),
            ("{drift: {}}", "spec.promotion[0].live.checks"),
        ];
        let manifests = cases.iter().map(|(rule, words)| Ok((live(rule)?, *words)));
        refused(fixture, manifests.collect::<Result<Vec<_>>>()?).await?;
        fixture
            .apply(
                &live("{checks: [{name: a, failures: {}}, {name: b, slow: {over: 1s}, max: 0.5}]}")?
                    .to_string(),
            )
            .await?;
        let twice = json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "live" },
            "spec": { "promotion": [
                { "name": "one", "aliases": ["a", "champion"], "live": { "checks": [{ "name": "a", "failures": {} }] } },
                { "name": "two", "aliases": ["champion"], "live": { "checks": [{ "name": "a", "missing": {} }] } },
            ] } });
        refused(fixture, [(twice, "only one rule with live names an alias")]).await?;
        champion_refused(
            fixture,
            &[
                ("rollout: {warmFor: 1m, watchFor: 2m}", "watchFor is at most warmFor"),
                ("rollout: {strategy: Rolling, watchFor: 1m}", "watchFor is not for strategy Rolling"),
            ],
        )
        .await
    });
}

#[test]
fn an_invalid_modelregistry_is_rejected_by_the_api_server() {
    run("refused-registry", async |fixture| {
        let registry = |spec: &str| -> Result<Value> {
            let spec: Value = serde_yaml::from_str(spec)?;
            Ok(
                json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelRegistry", "metadata": { "name": "mlflow" }, "spec": spec }),
            )
        };
        let no_url = "mlflow.url is an http:// or https:// URL with a host";
        let no_login = "mlflow.url carries no login, query or fragment; credentials belong in auth";
        let cases = [
            ("{mlflow: {url: 'ftp://mlflow:5000'}}", no_url),
            ("{mlflow: {url: 'mlflow:5000'}}", no_url),
            ("{mlflow: {url: 'http://'}}", no_url),
            ("{mlflow: {url: 'http://me:secret@mlflow:5000'}}", no_login),
            ("{mlflow: {url: 'http://mlflow:5000?a=b'}}", no_login),
            ("{mlflow: {url: 'http://mlflow'}, pollInterval: 1s}", "pollInterval is at least 5s"),
            ("{mlflow: {url: 'http://mlflow'}, requestTimeout: 500ms}", "requestTimeout is from 1s to 2m"),
            ("{mlflow: {url: 'http://mlflow'}, requestTimeout: 3m}", "requestTimeout is from 1s to 2m"),
            (
                "{mlflow: {url: 'http://mlflow'}, limits: {inFlight: 0}}",
                "spec.limits.inFlight in body should be",
            ),
            (
                "{mlflow: {url: 'http://mlflow'}, limits: {perSecond: 1001}}",
                "spec.limits.perSecond in body should",
            ),
            ("{mlflow: {url: 'http://mlflow'}, pollInterval: 1d}", "spec.pollInterval in body should match"),
            (
                "{mlflow: {url: 'http://mlflow'}, webhook: {secretRef: {name: s}, register: {url: \
                 'https://a'}}}",
                "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
            ),
            (
                "{mlflow: {url: 'http://mlflow'}, webhook: {secretRef: {name: s}, register: {url: \
                 'https://a', encryptionKeySet: false}}}",
                "webhook.register needs encryptionKeySet: true",
            ),
            (
                "{mlflow: {url: 'http://mlflow'}, webhook: {secretRef: {name: s}, register: {url: \
                 'https://u:p@a', encryptionKeySet: true}}}",
                "webhook.register.url carries no login",
            ),
            (
                "{mlflow: {url: 'http://mlflow'}, webhook: {secretRef: {name: s}, register: {url: \
                 'laurel:9443', encryptionKeySet: true}}}",
                "webhook.register.url is an http:// or https:// URL",
            ),
            ("{mlflow: {url: 'http://mlflow'}, auth: {}}", "auth takes exactly one of basic and bearer"),
            (
                "{mlflow: {url: 'http://mlflow'}, auth: {basic: {secretRef: {name: a}}, bearer: {secretRef: \
                 {name: b}}}}",
                "auth takes exactly one of basic and bearer",
            ),
            ("{}", "spec.mlflow: Required value"),
        ];
        let cases = cases.into_iter().map(|(spec, words)| Ok((registry(spec)?, words)));
        refused(fixture, cases.collect::<Result<Vec<_>>>()?).await
    });
}

#[test]
fn defaults_are_filled_in_and_can_be_read_back() {
    run("defaults", async |fixture| {
        fixture
            .apply(
                "
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {name: champion}
spec:
  modelRef: {name: model}
  alias: champion
  version: '1'
  serving: {image: registry.example/serving:1}
---
apiVersion: laurel.dev/v1alpha1
kind: ModelRegistry
metadata: {name: mlflow}
spec:
  mlflow: {url: 'http://127.0.0.1:1'}
  auth: {bearer: {secretRef: {name: token}}}
",
            )
            .await?;
        let aliases: Api<ModelAlias> = fixture.api();
        let spec = serde_json::to_value(aliases.get("champion").await?.spec)?;
        let desired = json!({
            "modelRef": { "name": "model" },
            "alias": "champion",
            "version": "1",
            "serving": {
                "runtime": "mlflow",
                "image": "registry.example/serving:1",
                "port": 8080,
            },
            "rollout": {
                "strategy": "BlueGreen",
                "progressDeadline": spec["rollout"]["progressDeadline"],
                "warmFor": spec["rollout"]["warmFor"],
                "revisionHistoryLimit": 3,
            },
            "drift": "Correct",
            "deletionPolicy": "Retain",
        });
        ensure!(spec == desired, "{spec:#}");
        let stored =
            fixture.kubectl(&["get", "malias", "champion", "-o", "jsonpath={.spec.rollout}"]).await?;
        let rollout: Value = serde_json::from_str(&stored)?;
        ensure!(
            rollout["strategy"] == "BlueGreen" && rollout["revisionHistoryLimit"] == 3,
            "not stored: {stored}"
        );
        let registry = fixture
            .kubectl(&[
                "get",
                "mreg",
                "mlflow",
                "-o",
                "jsonpath={.spec.pollInterval} {.spec.requestTimeout} {.spec.limits} {.spec.auth.bearer.secretRef.key}",
            ])
            .await?;
        ensure!(registry == r#"30s 10s {"inFlight":16,"perSecond":50} token"#, "{registry}");
        fixture.api::<ModelRegistry>().delete("mlflow", &DeleteParams::default()).await?;
        Ok(())
    });
}
