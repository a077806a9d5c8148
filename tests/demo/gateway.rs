//! The demo behind a Gateway (`make demo GATEWAY=1`): a challenger, a canary with copies and an approval, and
//! ways back, with the shares that were asked for beside those that clients saw.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use laurel::api::{ModelAlias, condition::ConditionType};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    harness::{
        Harness, MODEL, NAME, NAMESPACE, PATIENCE, milliseconds, print_command, print_output, print_step,
    },
    serves,
    support::{
        alias::{self, Change},
        load::{Load, Plan, Report, Request},
        pods::logged,
        service::through_gateway,
    },
    table::Table,
};

/// Where the champion's manifest puts it behind the Gateway.
const PATH: &str = "/fraud";

/// The target of the clients' requests. The query distinguishes them from smoke tests in the logs of pods.
const TARGET: &str = "/invocations?from=client";

/// Predictions per second over each kind of connection.
const PER_SECOND: u32 = 30;

/// How many answers each row of the table counts.
const ENOUGH: usize = 1_000;

/// How soon after its Gateways accepted a route every request follows it.
const IN_EFFECT: Duration = Duration::from_secs(1);

/// The demo, and its table so far.
struct Demo<'a> {
    harness: &'a Harness,
    load: Load,
    table: Table,
    /// Up to when losses have been counted.
    counted: Instant,
}

/// Runs the demo. It fails if a request was lost.
pub(crate) async fn run(harness: &Harness) -> Result<()> {
    print_step("The model, and @champion is version 2, behind the Gateway public in the namespace infra");
    harness.apply("registered-model.yaml").await?;
    print_output(include_str!("gateway/champion.yaml"));
    let change = harness.change("gateway/champion.yaml").await?;
    serves(harness, change, "2").await?;

    let mut demo = Demo::begin(harness).await?;
    demo.challenger().await?;
    let canary = demo.copies().await?;
    demo.canary(canary).await?;
    demo.back_in_mid_step().await?;
    demo.at_once().await?;
    demo.end().await
}

impl<'a> Demo<'a> {
    async fn begin(harness: &'a Harness) -> Result<Self> {
        print_step(&format!(
            "{PER_SECOND} predictions a second over new connections, {PER_SECOND} over kept ones"
        ));
        let way = through_gateway(&harness.cluster, PATH).await?;
        println!("  by way of {}", way.via);
        let example = harness.mlflow.artifact((MODEL, "2"), "serving_input_example.json").await?;
        let plan = Plan::both(PER_SECOND, Duration::from_mins(30)).patient();
        let load = Load::start(&way.target, &Request::post_json(TARGET, example), plan);
        let table = Table::new(["STEP", "ASKED", "MEASURED", "ANSWERS", "LAST OLD ANSWER", "LOST"]);
        Ok(Self { harness, load, table, counted: Instant::now() })
    }

    async fn challenger(&mut self) -> Result<()> {
        print_step("A challenger: version 3 under another alias answers 10 % of the requests");
        self.harness.apply("gateway/challenger.yaml").await?;
        let challenger = json!([{ "aliasRef": { "name": "fraud-challenger" }, "weight": 10 }]);
        let change = self.patch(json!({ "traffic": { "challengers": challenger } })).await?;
        let has = |malias: &ModelAlias| alias::challenger_share(malias, "fraud-challenger") == Some(10);
        let begun = self.in_effect(change, "10 % for the challenger", has).await?;
        self.count("challenger", begun, &[("2", 90), ("3", 10)], None).await
    }

    /// Returns the change that began the canary.
    async fn copies(&mut self) -> Result<Change> {
        print_step("It looks good: a canary to version 3 begins, and the challenger leaves the route");
        let change = self.patch(json!({ "version": "3", "traffic": { "challengers": null } })).await?;
        println!("  First a shadow: it gets copies of all requests, and clients see nothing of it.");
        println!("  (Only the steps of a canary copy requests; a challenger answers its share.)");
        let is_shadow = |malias: &ModelAlias| alias::gets_copies(malias, "3");
        let begun = self.in_effect(change, "copies for version 3", is_shadow).await?;
        sleep(begun.saturating_duration_since(Instant::now())).await;
        let (from, clock) = (Instant::now(), Timestamp::now());
        self.load.until(from, PATIENCE, |seen| answers(seen) >= ENOUGH).await;
        let (sent, until) = (answers(&self.load.since(from)), Timestamp::now());
        let copied =
            logged(&self.harness.cluster, (NAMESPACE, NAME, "3"), &format!("\"POST {TARGET}")).await?;
        let copied = copied.into_iter().filter(|at| (clock..until).contains(at)).count();
        let shown = format!("{copied} copies");
        self.row("canary, step 1: a shadow", from, &[("2", 100), ("3", 0)], (Some(shown), None));
        ensure!(20 * copied.abs_diff(sent) < sent, "version 3 got {copied} copies of {sent} requests");
        Ok(change)
    }

    async fn canary(&mut self, change: Change) -> Result<()> {
        println!("  Then 10 % of the requests.");
        let begun = self.share(change, "3", 10).await?;
        self.count("canary, step 2", begun, &[("2", 90), ("3", 10)], None).await?;
        print_step("Step 2 waits for an approval");
        self.show().await?;
        self.kubectl(&["annotate", "malias", NAME, "laurel.dev/approve=3", "--overwrite"]).await?;
        let begun = self.share(change, "3", 50).await?;
        self.count("canary, step 3", begun, &[("2", 50), ("3", 50)], None).await
    }

    async fn back_in_mid_step(&mut self) -> Result<()> {
        print_step("In the middle of step 3 somebody wants version 2 back");
        let change = self.patch(json!({ "version": "2" })).await?;
        let last = self.harness.traffic_moved(&self.load, change, "3", "2").await?;
        self.count("back in mid-step", change.accepted + last, &[("2", 100), ("3", 0)], Some(last)).await
    }

    async fn at_once(&mut self) -> Result<()> {
        print_step("Without steps: a promotion moves everything at once, and so does the rollback");
        let rollout = json!({ "strategy": "BlueGreen", "steps": null });
        let change = self.patch(json!({ "version": "3", "rollout": rollout })).await?;
        serves(self.harness, change, "3").await?;
        let last = self.harness.traffic_moved(&self.load, change, "2", "3").await?;
        self.count("promotion", change.accepted + last, &[("2", 0), ("3", 100)], None).await?;
        let change = self.patch(json!({ "version": "2" })).await?;
        let last = self.harness.traffic_moved(&self.load, change, "3", "2").await?;
        self.count("rollback", change.accepted + last, &[("2", 100), ("3", 0)], Some(last)).await
    }

    async fn end(self) -> Result<()> {
        print_step("What happened");
        println!("\n{}", self.table);
        let report = self.load.stop().await;
        println!("  {report}");
        what_to_try();
        ensure!(report.lost() == 0, "requests were lost: {report}");
        println!("\nNot one request was lost.");
        Ok(())
    }

    /// Changes the champion as a person would.
    async fn patch(&self, spec: Value) -> Result<Change> {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch", "malias", NAME, "--type=merge", "-p", &patch]).await?;
        self.harness.champion.accepted().await
    }

    /// Waits until a version has its share. Returns since when every request follows it.
    async fn share(&self, change: Change, version: &str, weight: u32) -> Result<Instant> {
        let what = format!("{weight} % for version {version}");
        self.in_effect(change, &what, |malias| alias::share(malias, version) == Some(weight)).await
    }

    async fn in_effect(
        &self,
        change: Change,
        what: &str,
        is_desired: impl Fn(&ModelAlias) -> bool,
    ) -> Result<Instant> {
        let accepted = |it: &ModelAlias| is_desired(it) && alias::holds(it, ConditionType::TrafficSplit);
        let seen = self.harness.champion.until_since(change.accepted, what, PATIENCE, accepted).await?;
        Ok(seen.at + IN_EFFECT)
    }

    /// Adds a row once enough requests were answered.
    async fn count(
        &mut self,
        step: &str,
        from: Instant,
        asked: &[(&str, u32)],
        last_old_answer: Option<Duration>,
    ) -> Result<()> {
        let enough = self.load.until(from, PATIENCE, |seen| answers(seen) >= ENOUGH).await;
        ensure!(enough, "too few answers to count: {}", self.load.since(from));
        self.row(step, from, asked, (None, last_old_answer));
        Ok(())
    }

    fn row(
        &mut self,
        step: &str,
        from: Instant,
        asked: &[(&str, u32)],
        (copies, last_old_answer): (Option<String>, Option<Duration>),
    ) {
        let now = Instant::now();
        let seen = self.load.report().between(from, now);
        let with_copies = |shares: Vec<String>, copies: Option<String>| {
            shares.into_iter().chain(copies).collect::<Vec<_>>().join(", ")
        };
        let desired = asked.iter().map(|(version, share)| format!("v{version} {share} %")).collect();
        let measured = asked.iter().map(|(version, _)| format!("v{version} {:.1} %", seen.share(version)));
        let meanwhile = self.load.ended_since(self.counted);
        self.counted = now;
        self.table.row([
            step.to_owned(),
            with_copies(desired, copies.is_some().then(|| "all copied".to_owned())),
            with_copies(measured.collect(), copies),
            answers(&seen).to_string(),
            last_old_answer.map(milliseconds).unwrap_or_default(),
            meanwhile.lost().to_string(),
        ]);
    }

    async fn show(&self) -> Result<()> {
        self.kubectl(&["get", "malias", "-o", "wide"]).await
    }

    /// kubectl in the namespace, printed with its output.
    async fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        let quoted = |word: &&str| if word.contains('{') { format!("'{word}'") } else { (*word).to_owned() };
        let words: Vec<String> = arguments.iter().map(quoted).collect();
        print_command(&format!("kubectl -n {NAMESPACE} {}", words.join(" ")));
        let arguments = [&["-n", NAMESPACE], arguments].concat();
        print_output(&self.harness.cluster.run_kubectl(&arguments, None).await?);
        Ok(())
    }
}

fn answers(seen: &Report) -> usize {
    seen.answered().values().sum()
}

fn what_to_try() {
    println!(
        "
  Everything is still up. To try:

    kubectl get malias -n {NAMESPACE} -o wide
    kubectl get httproute {NAME} -n {NAMESPACE} -o yaml
    kubectl get events -n {NAMESPACE} --field-selector involvedObject.kind=ModelAlias"
    );
}
