//! What comes back from the registry is no answer, or comes late: one fault after the other, each until it is
//! told and then until everything is well again.

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

/// What a fault leads to.
struct Case {
    what: &'static str,
    violation: Fate,
    reason: Reason,
    /// Part of every message, beside the registry's URL.
    says: &'static str,
}

/// What becomes of everything that the operator asks the registry.
enum Fate {
    Refused,
    Met(Violation),
}

fn met(what: &'static str, violation: Violation, reason: Reason, says: &'static str) -> Case {
    Case { what, violation: Fate::Met(violation), reason, says }
}

/// An HTML page, as proxies and logins send it.
fn page(status: u16, title: &str) -> Violation {
    let body = format!(
        "<!doctype html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    );
    Violation::Answer { status, headers: vec![("content-type", "text/html; charset=utf-8".to_owned())], body }
}

/// A version serves, the previous one is warm, and nothing of it changes, whatever the registry does.
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
    for said in reported.error(fixture, began, case.reason).await? {
        ensure!(
            said.contains(case.says) && said.contains(&url),
            "no {:?} or no {url} in {said:?}",
            case.says
        );
    }
    println!("  {}: told after {:.1} s", case.what, began.elapsed().as_secs_f64());
    let lifted = Instant::now();
    fixture.registry.lift_all();
    fixture.registry.accept().await?;
    reported.well(fixture, lifted).await?;
    println!("  {}: well after {:.1} s", case.what, lifted.elapsed().as_secs_f64());
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
                    says: "cannot reach",
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

/// A registry that takes four seconds for each answer delays a promotion, and no answer is thrown away.
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

/// Who is asked to come back later comes back later, and goes on by itself.
async fn rate_limited(fixture: &Fixture) -> Result<()> {
    const LATER: Duration = Duration::from_secs(14);
    let reported = serving(fixture, 1).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    let busy = fixture
        .registry
        .place(Rule::always(Violation::status(429).header("retry-after", LATER.as_secs().to_string())));
    let url = fixture.registry.url();
    for said in reported.error(fixture, began, Reason::RegistryFailing).await? {
        ensure!(said.contains("HTTP 429") && said.contains(&url), "{said:?}");
    }
    let told_at = (Instant::now(), busy.hits());
    // Time itself is the subject: two polls, but not as long as was asked for.
    sleep(Duration::from_secs(11)).await;
    // The registry that Laurel was installed with is polled for itself, and asked to wait for itself.
    let more = busy.hits() - told_at.1;
    ensure!(
        more <= 1,
        "asked to wait for {LATER:?}, it came back {more} times within {:?}",
        told_at.0.elapsed()
    );
    let lifted = Instant::now();
    fixture.registry.lift_all();
    reported.well(fixture, lifted).await?;
    untouched(fixture, &before).await
}

/// A page that is different each time, as those are that carry the number of the request: the trouble is the
/// same.
async fn restless(fixture: &Fixture) -> Result<()> {
    let reported = serving(fixture, 2).await?;
    fixture.journal.until_quiet(Duration::from_secs(2), TWO_POLLS * 3).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    fails_restlessly(fixture, |_| true);
    reported.error(fixture, began, Reason::RegistryFailing).await?;
    fixture.until_quiet().await.context("the registry is away")?;
    let lifted = Instant::now();
    fixture.registry.lift_all();
    reported.well(fixture, lifted).await?;
    untouched(fixture, &before).await?;

    // The same where only a version cannot be read, and somebody waits for it.
    fails_restlessly(fixture, |asked| asked.path.contains("model-versions/"));
    let change = fixture.desired("version: '2'").await?;
    fixture.champion.reason(change, Reason::RegistryFailing, crate::fixture::PATIENCE).await?;
    let (reads, since) = (asked(fixture, &hyper::Method::GET, "model-versions/"), Instant::now());
    fixture.until_quiet().await.context("a version cannot be read")?;
    let reads = asked(fixture, &hyper::Method::GET, "model-versions/") - reads;
    ensure!(reads <= 20, "it asked {reads} times within {:?}", since.elapsed());
    untouched(fixture, &before).await?;
    fixture.registry.lift_all();
    fixture.champion.ready(change, crate::fixture::PATIENCE).await.map(drop)
}

/// Each of these requests is answered by a page of its own.
fn fails_restlessly(fixture: &Fixture, wanted: fn(&Exchange) -> bool) {
    for number in 1..200 {
        let page = page(502, &format!("Bad Gateway: request {:016x} failed", 0x8f3a_0000 + number));
        fixture.registry.place(Rule::when(wanted, page).nth(number));
    }
}
