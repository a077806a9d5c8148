//! Invalid or late responses of the registry: one fault after another, each until it is reported, then until
//! everything has recovered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use laurel::api::condition::{ConditionType, Reason};
use tokio::time::{Instant, sleep};

use super::{
    RunningCase, asked, case, cluster,
    reports::{Reports, held},
    serving, until_recorded, untouched,
};
use crate::{
    fixture::{Fixture, TWO_POLLS},
    simulated::look::selected,
    wire::{Exchange, Rule, Server, Violation},
};

/// A fault and its expected consequences.
struct Case {
    what: &'static str,
    violation: Fate,
    reason: Reason,
    /// Part of every message, in addition to the registry's URL.
    message: &'static str,
}

/// What happens to all of the operator's requests to the registry.
enum Fate {
    Refused,
    Met(Violation),
}

fn met(what: &'static str, violation: Violation, reason: Reason, message: &'static str) -> Case {
    Case { what, violation: Fate::Met(violation), reason, message }
}

/// An HTML page, as sent by proxies and login pages.
fn page(status: u16, title: &str) -> Violation {
    let body = format!(
        "<!doctype html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    );
    Violation::Answer { status, headers: vec![("content-type", "text/html; charset=utf-8".to_owned())], body }
}

/// A version serves, the previous one is warm, and nothing changes, whatever the registry does.
async fn walk(fixture: &Fixture, cases: Vec<Case>) -> Result<()> {
    let reported = serving(fixture, 2).await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    until_recorded(fixture, "2").await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    for case in cases {
        suffer(fixture, &reported, &case).await.context(case.what)?;
        untouched(fixture, &before).await.context(case.what)?;
    }
    fixture.until_quiet().await?;
    held(fixture, began, ConditionType::Ready)?;
    let writes = fixture.journal.writes();
    let writes: Vec<_> =
        writes.iter().filter(|write| write.server == Server::Registry && write.arrived >= began).collect();
    ensure!(writes.is_empty(), "the registry was written: {writes:?}");
    ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "the alias was moved");
    Ok(())
}

async fn suffer(fixture: &Fixture, reported: &Reports, case: &Case) -> Result<()> {
    let began = Instant::now();
    match &case.violation {
        Fate::Refused => fixture.registry.refuse(),
        Fate::Met(violation) => drop(fixture.registry.place(Rule::always(violation.clone()))),
    }
    let url = fixture.registry.url();
    let output = reported.error(fixture, began, case.reason).await?;
    ensure!(
        output.contains(case.message) && output.contains(&url),
        "no {:?} or no {url} in {output:?}",
        case.message
    );
    println!("  {}: reported after {:.1} s", case.what, began.elapsed().as_secs_f64());
    let lifted = Instant::now();
    fixture.registry.lift_all();
    fixture.registry.accept().await?;
    reported.well(fixture, lifted).await?;
    println!("  {}: recovered after {:.1} s", case.what, lifted.elapsed().as_secs_f64());
    Ok(())
}

pub(super) fn cases() -> Vec<RunningCase> {
    use Reason::{RegistryFailing, RegistryForbidden, RegistryUnauthorized, RegistryUnreachable};
    vec![
        case("reg-broken", async |fixture| {
            let cases = vec![
                Case {
                    what: "refused",
                    violation: Fate::Refused,
                    reason: RegistryUnreachable,
                    message: "cannot reach",
                },
                met("reset", Violation::Reset, RegistryUnreachable, "cannot reach"),
            ];
            walk(fixture, cases).await
        }),
        case("reg-breaks-off", async |fixture| {
            let cases = vec![
                met("cut", Violation::CutBody(40), RegistryUnreachable, "cannot reach"),
                met("lost", Violation::LoseAnswer, RegistryUnreachable, "cannot reach"),
            ];
            walk(fixture, cases).await
        }),
        case("reg-refuses", async |fixture| {
            let login = "You are not authenticated";
            let cases = vec![
                met("500", page(500, "Internal Server Error"), RegistryFailing, "HTTP 500"),
                met("401", page(401, login), RegistryUnauthorized, "HTTP 401"),
                met("403", page(403, "Permission denied"), RegistryForbidden, "HTTP 403"),
            ];
            walk(fixture, cases).await
        }),
        case("reg-no-registry", async |fixture| {
            let cases = vec![
                met("a login page", page(200, "Sign in"), RegistryFailing, "check the URL"),
                met("another server", page(404, "Not Found"), RegistryFailing, "check the URL"),
            ];
            walk(fixture, cases).await
        }),
        case("reg-hangs", async |fixture| {
            let late = Violation::Delay(Duration::from_secs(12));
            let cases = vec![
                met("hang", Violation::Hang, RegistryUnreachable, "within 10s"),
                met("too slow", late, RegistryUnreachable, "within 10s"),
            ];
            walk(fixture, cases).await
        }),
        case("reg-slow", slow),
        case("reg-429", rate_limited),
        case("reg-restless", restless),
    ]
}

/// A registry that takes four seconds for each response delays a promotion, and no response is discarded.
async fn slow(fixture: &Fixture) -> Result<()> {
    serving(fixture, 2).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let began = Instant::now();
    fixture.registry.place(Rule::always(Violation::Delay(Duration::from_secs(4))));
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    held(fixture, began, ConditionType::Serving)
}

/// `Retry-After` is respected, and work continues by itself.
async fn rate_limited(fixture: &Fixture) -> Result<()> {
    const LATER: Duration = Duration::from_secs(14);
    let reported = serving(fixture, 1).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    let busy = fixture
        .registry
        .place(Rule::always(Violation::status(429).header("retry-after", LATER.as_secs().to_string())));
    let url = fixture.registry.url();
    let output = reported.error(fixture, began, Reason::RegistryFailing).await?;
    ensure!(output.contains("HTTP 429") && output.contains(&url), "{output:?}");
    let told_at = (Instant::now(), busy.hits());
    // Time is the subject here: two polls, but less than `Retry-After`.
    sleep(Duration::from_secs(11)).await;
    // Other registries of the operator are polled independently.
    let more = busy.hits() - told_at.1;
    ensure!(
        more <= 1,
        "despite Retry-After {LATER:?}, it sent {more} requests within {:?}",
        told_at.0.elapsed()
    );
    let lifted = Instant::now();
    fixture.registry.lift_all();
    reported.well(fixture, lifted).await?;
    untouched(fixture, &before).await
}

/// A page that differs each time, as those with a request number do: the error is the same.
async fn restless(fixture: &Fixture) -> Result<()> {
    let reported = serving(fixture, 2).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    fails_restlessly(fixture, |_| true);
    reported.error(fixture, began, Reason::RegistryFailing).await?;
    fixture.until_quiet().await.context("the registry is unreachable")?;
    let lifted = Instant::now();
    fixture.registry.lift_all();
    reported.well(fixture, lifted).await?;
    untouched(fixture, &before).await?;

    // The same if only a version cannot be read that a rollout waits for.
    fails_restlessly(fixture, |asked| asked.path.contains("model-versions/"));
    let change = fixture.desired("version: '2'").await?;
    fixture.champion.reason(change, Reason::RegistryFailing, crate::fixture::PATIENCE).await?;
    let (reads, since) = (asked(fixture, &hyper::Method::GET, "model-versions/"), Instant::now());
    fixture.until_quiet().await.context("a version cannot be read")?;
    let reads = asked(fixture, &hyper::Method::GET, "model-versions/") - reads;
    ensure!(reads <= 20, "it sent {reads} requests within {:?}", since.elapsed());
    untouched(fixture, &before).await?;
    fixture.registry.lift_all();
    fixture.champion.ready(change, crate::fixture::PATIENCE).await.map(drop)
}

/// Each of these requests gets a different page.
fn fails_restlessly(fixture: &Fixture, wanted: fn(&Exchange) -> bool) {
    for number in 1..200 {
        let page = page(502, &format!("Bad Gateway: request {:016x} failed", 0x8f3a_0000 + number));
        fixture.registry.place(Rule::when(wanted, page).nth(number));
    }
}
