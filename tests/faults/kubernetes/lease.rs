//! Two operators and their Lease: one acts, and only one writes, whatever happens to it.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::time::{Instant, sleep};

use super::{PATIENCE, case, forbidden, run_all};
use crate::{
    fixture::Fixture,
    operator::Operator,
    simulated::look::selected,
    wire::{Exchange, Proxy, Rule},
};

/// What a process logs when it begins to act, and when it may not act any more.
const ACTS: &str = "this operator acts";
const LOST: &str = "the Lease";

/// Two operators: the first acts, the second stands by.
struct Pair<'a> {
    fixture: &'a Fixture,
    second: Operator,
    /// Between the second one and the API server.
    kubernetes: Proxy,
}

fn count(operator: &Operator, text: &str) -> usize {
    operator.log(usize::MAX).matches(text).count()
}

/// Waits until a process begins to act once more than `before`. Returns how long that took since `began`.
async fn until_acts(operator: &Operator, before: usize, began: Instant) -> Result<Duration> {
    while count(operator, ACTS) <= before {
        ensure!(began.elapsed() < PATIENCE, "it does not act: {}", operator.log(20));
        sleep(Duration::from_millis(10)).await;
    }
    Ok(began.elapsed())
}

impl<'a> Pair<'a> {
    async fn start(fixture: &'a Fixture) -> Result<Self> {
        fixture.operator.take_part("first");
        fixture.operator.start().await?;
        fixture.registered(3).await?;
        fixture.get("version: '1'").await?;
        let (second, kubernetes) = fixture.second().await?;
        second.take_part("second");
        second.start().await?;
        Ok(Self { fixture, second, kubernetes })
    }

    async fn holder(&self) -> Result<Option<String>> {
        let leases: Api<Lease> =
            Api::namespaced(self.fixture.cluster.client.clone(), &self.fixture.namespace);
        Ok(leases.get("laurel").await?.spec.and_then(|spec| spec.holder_identity))
    }

    /// What was written to the API server through one of the proxies, after the first `before` requests.
    fn written(&self, proxy: &Proxy, before: usize) -> Vec<String> {
        let is_it = |exchange: &&Exchange| {
            exchange.number > before && exchange.write.is_some() && proxy.carried(exchange)
        };
        self.fixture.journal.exchanges().iter().filter(is_it).map(ToString::to_string).collect()
    }

    fn nothing_from_first(&self, before: usize) -> Result<()> {
        let written = self.written(&self.fixture.kubernetes, before);
        ensure!(written.is_empty(), "the first one writes: {written:#?}");
        Ok(())
    }

    /// The second one promotes and the alias follows. Then nobody writes anything, for two polls.
    async fn second_promotes_alone(&self, version: &str) -> Result<()> {
        let fixture = self.fixture;
        let change = fixture.desired(&format!("version: '{version}'")).await?;
        let before = fixture.journal.exchanges().len();
        fixture.champion.ready(change, PATIENCE).await?;
        fixture.until_named("champion", Some(version)).await?;
        ensure!(selected(fixture).await? == version, "traffic has not moved");
        ensure!(!self.written(&self.kubernetes, before).is_empty(), "who promoted?");
        // Time enough for the first one to find something that it wants to put back.
        fixture.until_quiet().await?;
        self.nothing_from_first(before)?;
        ensure!(fixture.named("champion").await?.as_deref() == Some(version), "who moved the alias?");
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.second.kill()
    }
}

async fn killed_and_handed_over(fixture: &Fixture) -> Result<()> {
    let pair = Pair::start(fixture).await?;
    let second = &pair.second;
    // A standby reads, and writes nothing.
    fixture.get("version: '2'").await?;
    ensure!(pair.written(&pair.kubernetes, 0).is_empty() && count(second, ACTS) == 0, "a standby acts");
    ensure!(pair.holder().await?.as_deref() == Some("first"), "{:?}", pair.holder().await?);

    let killed = Instant::now();
    fixture.operator.kill()?;
    let took = until_acts(second, 0, killed).await?;
    println!("  after a kill the standby acts after {took:.1?}");
    ensure!(took < Duration::from_secs(15), "{took:?} is too long");
    fixture.get("version: '3'").await?;

    // A restarted container takes over from its own former process at once.
    second.kill()?;
    let restarted = Instant::now();
    second.launch()?;
    let took = until_acts(second, 1, restarted).await?;
    println!("  a restarted leader acts after {took:.1?}");
    ensure!(took < Duration::from_secs(8), "{took:?} is too long");

    let acted = count(&fixture.operator, ACTS);
    fixture.operator.start().await?;
    let asked = Instant::now();
    let handed_over = async {
        let took = until_acts(&fixture.operator, acted, asked).await?;
        println!("  after SIGTERM the standby acts after {took:.1?}");
        // One second on a machine that has time; well before a Lease expires on one that has not.
        ensure!(took < Duration::from_secs(8), "{took:?} is too long");
        Ok(())
    };
    let (ended, handed_over) = tokio::join!(second.terminate(), handed_over);
    ensure!(ended?.success(), "it does not end in order");
    handed_over?;
    fixture.get("version: '1'").await?;
    Ok(())
}

/// The leader reaches MLflow, but not the API server any more.
async fn cut_off(fixture: &Fixture) -> Result<()> {
    let pair = Pair::start(fixture).await?;
    let cut = Instant::now();
    fixture.kubernetes.refuse();
    let took = until_acts(&pair.second, 0, cut).await?;
    println!("  after the leader is cut off the standby acts after {took:.1?}");
    let lost = count(&fixture.operator, LOST) > 0;
    ensure!(lost, "the first one has not ended: {}", fixture.operator.log(20));
    pair.second_promotes_alone("2").await?;
    fixture.operator.kill()?;
    fixture.kubernetes.accept().await?;
    pair.end()
}

/// The leader is stopped in the middle of a promotion, and continues when another one acts.
async fn paused(fixture: &Fixture) -> Result<()> {
    let pair = Pair::start(fixture).await?;
    fixture.desired("version: '2'").await?;
    let stopped = Instant::now();
    fixture.operator.signal("STOP")?;
    until_acts(&pair.second, 0, stopped).await?;
    let promoted = pair.second_promotes_alone("3").await;
    fixture.operator.signal("CONT")?;
    promoted?;
    let before = fixture.journal.exchanges().len();
    let continued = Instant::now();
    while count(&fixture.operator, LOST) == 0 {
        ensure!(continued.elapsed() < PATIENCE, "the first one does not end");
        sleep(Duration::from_millis(20)).await;
    }
    fixture.until_quiet().await?;
    pair.nothing_from_first(before)?;
    fixture.operator.kill()?;
    pair.end()
}

/// One that cannot take part is not ready: a rollout stops there, and the operators of before go on.
async fn without_permission(fixture: &Fixture) -> Result<()> {
    fixture.operator.take_part("first");
    let denied = Rule::on(Method::GET, "/leases?", forbidden("list", "leases.coordination.k8s.io", ""));
    fixture.kubernetes.place(denied);
    fixture.operator.launch()?;
    let began = Instant::now();
    loop {
        let (status, text) = fixture.operator.readiness().await.unwrap_or_default();
        if text.contains("the Lease \"laurel\"") && text.contains("forbidden") {
            ensure!(status == 503, "it is ready");
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "{status} {text}");
        sleep(Duration::from_millis(50)).await;
    }
    fixture.kubernetes.lift_all();
    until_acts(&fixture.operator, 0, Instant::now()).await?;
    while !fixture.operator.is_ready().await {
        ensure!(began.elapsed() < PATIENCE, "it does not become ready");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[test]
fn promise_14_one_of_two_operators_writes_whether_the_other_is_killed_cut_off_or_paused() {
    run_all([
        case("lease-ends", async |fixture| killed_and_handed_over(fixture).await),
        case("lease-cut", async |fixture| cut_off(fixture).await),
        case("lease-stop", async |fixture| paused(fixture).await),
        case("lease-denied", async |fixture| without_permission(fixture).await),
    ]);
}
