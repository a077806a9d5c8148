//! The samples for CI do what they say: the shell of their steps is run here, and the tasks of the DAG as
//! plain Python.
//!
//! Two kinds of steps are left out, because they are about another machine: those that take laurel from its
//! image, and the one that opens a pull request.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use laurel::api::ModelAlias;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::machine::repository,
    support::alias::{is_ready, version},
};

const SAMPLES: &str = "config/samples/ci";

/// A machine that runs the jobs of a workflow, as GitHub does.
struct Runner {
    /// Where the repository is checked out.
    checkout: PathBuf,
    /// Where the files are by which steps speak with it.
    temp: PathBuf,
    /// What expressions such as `vars.NAMESPACE` stand for.
    values: BTreeMap<&'static str, String>,
    path: String,
}

/// A step that was run.
#[derive(Debug)]
struct Step {
    name: String,
    is_good: bool,
    said: String,
}

impl Runner {
    fn new(fixture: &Fixture, values: &[(&'static str, &str)]) -> Result<Self> {
        let folder = fixture.world.folder(&fixture.namespace)?;
        let (checkout, temp) = (folder.join("checkout"), folder.join("temp"));
        for folder in [checkout.join("models"), temp.clone()] {
            fs::create_dir_all(folder)?;
        }
        let kubeconfig = fs::read_to_string(fixture.cluster.kubeconfig().context("a kubeconfig")?)?;
        let mut known = BTreeMap::from([
            ("vars.MLFLOW_TRACKING_URI", fixture.world.mlflow.url()),
            ("secrets.MLFLOW_TRACKING_TOKEN", String::new()),
            ("vars.NAMESPACE", fixture.namespace.clone()),
            ("vars.LAUREL_IMAGE", String::new()),
            ("secrets.KUBECONFIG", kubeconfig),
        ]);
        known.extend(values.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let programs = fixture.world.program();
        let programs = [programs.parent().context("a folder")?.to_owned(), repository().join(".cluster/bin")];
        let path = std::env::join_paths(programs)?.into_string().ok().context("a path")?;
        let path = format!("{path}:{}", std::env::var("PATH")?);
        Ok(Self { checkout, temp, values: known, path })
    }

    /// Runs a job, until a step fails; what became of each step that has a shell script.
    async fn job(&self, workflow: &str, job: &str) -> Result<Vec<Step>> {
        let text = fs::read_to_string(repository().join(SAMPLES).join(workflow))?;
        let workflow: Value = serde_yaml::from_str(&text)?;
        let job = &workflow["jobs"][job];
        let mut set = BTreeMap::new();
        for file in ["env", "path", "summary"] {
            fs::write(self.temp.join(file), "")?;
        }
        let mut done = Vec::new();
        for step in job["steps"].as_array().context("steps")? {
            let (Some(name), Some(script)) = (step["name"].as_str(), step["run"].as_str()) else { continue };
            if script.contains("docker ") || script.contains("gh pr") {
                continue;
            }
            let mut command = Command::new("bash");
            command.args(["-eo", "pipefail", "-c", script]).current_dir(&self.checkout);
            command.env("PATH", &self.path).env("RUNNER_TEMP", &self.temp);
            for (variable, file) in [("ENV", "env"), ("PATH", "path"), ("STEP_SUMMARY", "summary")] {
                command.env(format!("GITHUB_{variable}"), self.temp.join(file));
            }
            for env in [&workflow["env"], &job["env"], &step["env"]] {
                for (key, value) in env.as_object().into_iter().flatten() {
                    command.env(key, self.meant(value.as_str().context("a text")?)?);
                }
            }
            command.envs(&set).stdin(Stdio::null());
            let ended = command.output().await?;
            let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            done.push(Step { name: name.to_owned(), is_good: ended.status.success(), said: said.concat() });
            if !ended.status.success() {
                break;
            }
            let lines = fs::read_to_string(self.temp.join("env"))?;
            let lines = lines.lines().filter_map(|line| line.split_once('='));
            set.extend(lines.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        Ok(done)
    }

    /// A value with its expressions replaced by what they stand for.
    fn meant(&self, text: &str) -> Result<String> {
        let Some(expression) = text.strip_prefix("${{ ").and_then(|rest| rest.strip_suffix(" }}")) else {
            return Ok(text.to_owned());
        };
        self.values.get(expression).cloned().with_context(|| format!("nobody said what {expression} is"))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.checkout.join(file), text)?)
    }
}

/// The manifests of a model whose alias nothing serves: an alias in the registry is all that is promoted.
fn manifests(fixture: &Fixture, version: &str) -> String {
    format!(
        "
apiVersion: laurel.dev/v1alpha1
kind: RegisteredModel
metadata:
  name: fraud
spec:
  modelName: {}
  promotion:
    - name: live
      aliases: [live]
      tags: {{validated: 'true'}}
---
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata:
  name: live
spec:
  modelRef: {{name: fraud}}
  alias: live
  version: \"{version}\"
",
        fixture.model
    )
}

fn good(steps: &[Step]) -> Result<()> {
    for step in steps {
        println!("  {}: {}", step.name, if step.is_good { "good" } else { "failed" });
    }
    ensure!(!steps.is_empty() && steps.iter().all(|step| step.is_good), "{steps:#?}");
    Ok(())
}

#[test]
fn the_workflow_fails_on_unmet_rules_and_applies_what_is_merged() {
    run("ci-github", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        mlflow.create_model(&fixture.model).await?;
        for number in ["1", "2"] {
            mlflow.register(&fixture.model).await?;
            let value = if number == "1" { "true" } else { "not yet" };
            mlflow.set_version_tag((&fixture.model, number), "validated", value).await?;
        }
        let runner = Runner::new(fixture, &[])?;
        let workflow = "github-actions.yaml";
        runner.write("models/fraud.yaml", &manifests(fixture, "1"))?;
        good(&runner.job(workflow, "check").await?)?;
        let applied = runner.job(workflow, "apply").await?;
        good(&applied)?;
        ensure!(applied.len() == 3, "{applied:#?}");
        ensure!(mlflow.alias(&fixture.model, "live").await? == Some("1".to_owned()), "{applied:#?}");

        runner.write("models/fraud.yaml", &manifests(fixture, "2"))?;
        let refused = runner.job(workflow, "check").await?;
        let last = refused.last().context("a step")?;
        ensure!(!last.is_good && last.said.contains("tag validated = \"true\": \"not yet\""), "{refused:#?}");
        let summary = fs::read_to_string(runner.temp.join("summary"))?;
        ensure!(summary.contains("does not meet 1 of 1 rules"), "{summary}");
        mlflow.set_version_tag((&fixture.model, "2"), "validated", "true").await?;
        good(&runner.job(workflow, "check").await?)?;
        good(&runner.job(workflow, "apply").await?)?;
        ensure!(mlflow.alias(&fixture.model, "live").await? == Some("2".to_owned()), "it is not promoted");
        Ok(())
    });
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=test", "-c", "user.email=test@invalid", "-c", "init.defaultBranch=main"]);
    let ended = command.args(arguments).current_dir(folder).output().await?;
    ensure!(ended.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[test]
fn the_workflow_that_promotes_commits_one_changed_line() {
    run("ci-promote", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        mlflow.create_model(&fixture.model).await?;
        for auc in [0.8, 0.9, 0.95] {
            let (number, _) = mlflow.register_run(&fixture.model, &[("auc", auc)]).await?;
            let value = if number == "3" { "false" } else { "true" };
            mlflow.set_version_tag((&fixture.model, &number), "validated", value).await?;
        }
        let manifest = "models/fraud.yaml";
        let inputs =
            [("inputs.manifest", manifest), ("inputs.model", &fixture.model), ("inputs.version", "")];
        let runner = Runner::new(fixture, &inputs)?;
        let remote = runner.temp.join("remote");
        git(&runner.temp, &["init", "--bare", "remote"]).await?;
        git(&runner.checkout, &["init"]).await?;
        git(&runner.checkout, &["remote", "add", "origin", remote.to_str().context("a path")?]).await?;
        runner.write(manifest, &manifests(fixture, "1"))?;
        git(&runner.checkout, &["add", "."]).await?;
        git(&runner.checkout, &["commit", "-m", "first"]).await?;
        good(&runner.job("github-actions-promote.yaml", "promote").await?)?;
        let branch = format!("promote-{}-2", fixture.model);
        let changed = git(&remote, &["show", "--unified=0", "--format=%s", &branch]).await?;
        ensure!(changed.starts_with(&format!("Promote {} to version 2\n", fixture.model)), "{changed}");
        let lines: Vec<_> = changed.lines().filter(|line| line.starts_with(['+', '-'])).skip(2).collect();
        ensure!(lines == ["-  version: \"1\"", "+  version: \"2\""], "{changed}");
        Ok(())
    });
}

/// Runs Python with MLflow's libraries and the sample beside it.
async fn python(fixture: &Fixture, least_auc: &str, script: &str) -> Result<String> {
    let mut command = Command::new(repository().join(".cluster/bin/python-mlflow"));
    command.args(["-c", script]).current_dir(repository().join(SAMPLES).join("airflow"));
    command.envs([
        ("MODEL", fixture.model.as_str()),
        ("LEAST_AUC", least_auc),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]);
    command.envs([("MLFLOW_TRACKING_URI", fixture.world.mlflow.url().as_str()), ("PYTHONPATH", ".")]);
    let ended = command.stdin(Stdio::null()).output().await?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[test]
fn the_dag_trains_registers_and_validates_and_a_follower_promotes() {
    run("ci-airflow", async |fixture| {
        let compiled = "compile(open('fraud_dag.py').read(), 'fraud_dag.py', 'exec')";
        python(fixture, "0", compiled).await.context("fraud_dag.py")?;
        let tasks = "
import fraud_training as it
trained = it.train()
version = it.register(trained)
print('DONE', version, it.validate(version))
";
        fixture.world.mlflow.create_model(&fixture.model).await?;
        fixture.describe_model("").await?;
        let follows = "follow: {best: {metric: auc, tags: {validated: 'true'}}}";
        let none = python(fixture, "1.1", tasks).await?;
        ensure!(none.contains("DONE None False"), "{none}");
        let good = python(fixture, "0.7", tasks).await?;
        ensure!(good.contains("DONE 1 True"), "{good}");
        fixture.desired(follows).await?;
        let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == "1";
        fixture.champion.until("Ready with version 1", PATIENCE * 2, it).await.map(drop)
    });
}
