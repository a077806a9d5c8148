//! Where the demo plays: a namespace, a ModelAlias in it, clients that send predictions, and what is printed.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::{
    support::{
        alias::{self, Alias, Change},
        cluster::Cluster,
        load::{Load, Plan, Request},
        mlflow::Mlflow,
        pods::Pods,
        service::{Way, way_to},
    },
    table::Table,
};

pub(crate) const NAMESPACE: &str = "risk";
pub(crate) const NAME: &str = "fraud-champion";
pub(crate) const MODEL: &str = "fraud-xgboost";
pub(crate) const ALIAS: &str = "champion";

/// Predictions per second over each kind of connection.
const PER_SECOND: u32 = 20;

/// A pod starts in less than ten seconds on an idle machine; this one may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The image that the manifests name.
const IMAGE: &str = "localhost/laurel/serving:3.17.2";

/// A cluster, and what is measured on it.
pub(crate) struct Harness {
    pub(crate) cluster: Cluster,
    pub(crate) mlflow: Mlflow,
    pub(crate) champion: Alias,
    pub(crate) pods: Pods,
    pub(crate) started: Instant,
    steps: Vec<Step>,
}

/// One step of the story, as it ended.
struct Step {
    name: String,
    took: Duration,
    last_old_answer: Option<Duration>,
    shown: String,
    ended: Instant,
}

/// The clients, and the way they take.
pub(crate) struct Clients {
    pub(crate) way: Way,
    pub(crate) load: Load,
}

impl Harness {
    /// Connects to everything and begins with an empty namespace.
    pub(crate) async fn create() -> Result<Self> {
        let cluster = Cluster::connect().await?;
        cluster.require_laurel().await?;
        let mlflow = Mlflow::connect(&cluster).await?;
        print_step(&format!(
            "A clean namespace, {NAMESPACE}, that enforces the restricted Pod Security Standard"
        ));
        cluster.fresh_namespace(NAMESPACE, "demo").await?;
        let champion = Alias::observe(&cluster, NAMESPACE, NAME);
        let pods = Pods::watch(&cluster, NAMESPACE, NAME);
        Ok(Self { cluster, mlflow, champion, pods, started: Instant::now(), steps: Vec::new() })
    }

    /// `kubectl apply` of one of the manifests beside this program.
    pub(crate) async fn apply(&self, file: &str) -> Result<()> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/demo").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // On a cluster of one's own the image comes from elsewhere.
        let printed = if let Ok(image) = std::env::var("LAUREL_SERVING_IMAGE") {
            print_command(&format!(
                "sed 's|{IMAGE}|{image}|' tests/demo/{file} | kubectl apply -n {NAMESPACE} -f -"
            ));
            let text = text.replace(IMAGE, &image);
            self.cluster.run_kubectl(&["apply", "-n", NAMESPACE, "-f", "-"], Some(&text)).await?
        } else {
            print_command(&format!("kubectl apply -n {NAMESPACE} -f tests/demo/{file}"));
            let path = path.to_str().context("a path that is no text")?;
            self.cluster.run_kubectl(&["apply", "-n", NAMESPACE, "-f", path], None).await?
        };
        print_output(&printed);
        Ok(())
    }

    /// Applies a manifest of the ModelAlias.
    pub(crate) async fn change(&self, file: &str) -> Result<Change> {
        self.apply(file).await?;
        self.champion.accepted().await
    }

    /// Sends predictions from now on.
    pub(crate) async fn start_clients(&self) -> Result<Clients> {
        let way = way_to(&self.cluster, NAMESPACE, NAME).await?;
        print_step(&format!(
            "{PER_SECOND} predictions a second over new connections, {PER_SECOND} over kept ones, from now on"
        ));
        println!("  by way of {}", way.via);
        let example = self.mlflow.artifact((MODEL, "1"), "serving_input_example.json").await?;
        let request = Request::post_json("/invocations", example);
        let plan = Plan::both(PER_SECOND, Duration::from_mins(30));
        Ok(Clients { load: Load::start(&way.target, &request, plan), way })
    }

    /// Waits until clients of both kinds have moved; how long after the change was accepted the last old
    /// answer came.
    pub(crate) async fn traffic_moved(
        &self,
        load: &Load,
        change: Change,
        from: &str,
        to: &str,
    ) -> Result<Duration> {
        let moved = load.moved(change.accepted, (from, to), PATIENCE).await;
        moved.with_context(|| {
            format!("the clients do not move from version {from} to {to}: {}", load.report())
        })
    }

    /// Ends a step of the story.
    pub(crate) async fn end_step(
        &mut self,
        name: &str,
        took: Duration,
        last_old_answer: Option<Duration>,
    ) -> Result<()> {
        print_command(&format!("kubectl get malias -n {NAMESPACE}"));
        print_output(&self.cluster.run_kubectl(&["get", "malias", "-n", NAMESPACE], None).await?);
        let shown = self.champion.last().map(|malias| {
            let target = alias::status(&malias).target_version.map(|target| target.to_string());
            let ready = alias::condition(&malias, laurel::api::condition::ConditionType::Ready);
            let ready = ready.map(|ready| format!("{} {}", ready.status, ready.reason)).unwrap_or_default();
            format!("{} {} {ready}", alias::version(&malias), target.unwrap_or_default())
        });
        let name = name.to_owned();
        let shown = shown.unwrap_or_default();
        self.steps.push(Step { name, took, last_old_answer, shown, ended: Instant::now() });
        Ok(())
    }

    /// Every step, and what the clients saw while it lasted.
    pub(crate) fn table(&self, load: &Load) -> Table {
        let mut table = Table::new([
            "STEP",
            "TOOK",
            "LAST OLD ANSWER",
            "VERSION TARGET READY STATUS",
            "SENT",
            "ANSWERED",
            "LOST",
        ]);
        let mut from = self.started;
        for step in &self.steps {
            let seen = load.report().between(from, step.ended);
            from = step.ended;
            let answered: Vec<String> =
                seen.answered().iter().map(|(version, count)| format!("v{version}: {count}")).collect();
            table.row([
                step.name.clone(),
                seconds(step.took),
                step.last_old_answer.map(milliseconds).unwrap_or_default(),
                step.shown.clone(),
                seen.sent().to_string(),
                answered.join(", "),
                seen.lost().to_string(),
            ]);
        }
        table
    }
}

/// A heading.
pub(crate) fn print_step(text: &str) {
    println!("\n== {text}");
}

/// A command as a person would type it.
pub(crate) fn print_command(command: &str) {
    println!("  $ {command}");
}

/// What a command printed.
pub(crate) fn print_output(printed: &str) {
    for line in printed.lines() {
        println!("  {line}");
    }
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}
