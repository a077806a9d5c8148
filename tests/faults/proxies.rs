//! Tests of the proxies: without rules they forward everything, and with a rule they follow it.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config, runtime::watcher};
use reqwest::Response;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    fixture::{Fixture, PATIENCE, run, run_before_start},
    simulated::look::{selected, until_sizes},
    support::{alias::version, watch::Watch},
    wire::{Exchange, Outcome, Proxy, Rule, Server, Violation},
};

#[test]
fn without_rules_an_operator_promotes_through_the_proxies() {
    run("pass", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        fixture.until_named("champion", Some("2")).await?;
        until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
        fixture.until_quiet().await?;
        let writes = fixture.journal.writes();
        ensure!(writes.iter().all(Exchange::succeeded), "{}", fixture.journal.writes_since(fixture.began));
        for server in [Server::Kubernetes, Server::Registry] {
            ensure!(writes.iter().any(|write| write.server == server), "no write to {server:?}");
        }
        Ok(())
    });
}

#[test]
fn an_operator_exits_in_order_and_another_one_continues() {
    run("ends", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        let status = fixture.operator.terminate().await?;
        ensure!(status.success(), "it ended with {status}");
        let change = fixture.desired("version: '2'").await?;
        fixture.operator.start().await?;
        fixture.champion.ready(change, PATIENCE).await?;
        fixture.operator.restart().await?;
        ensure!(selected(fixture).await? == "2", "traffic moved");
        Ok(())
    });
}

async fn models(fixture: &Fixture) -> Result<Response> {
    let url =
        format!("{}/api/2.0/mlflow/registered-models/get?name={}", fixture.registry.url(), fixture.model);
    Ok(reqwest::Client::new().get(url).timeout(Duration::from_secs(2)).send().await?)
}

async fn met(fixture: &Fixture, violation: Violation) -> Result<Response> {
    let placed = fixture.registry.place(Rule::always(violation).times(1));
    let answer = models(fixture).await;
    fixture.registry.lift(&placed);
    ensure!(placed.hits() == 1, "the fault was applied {} times", placed.hits());
    answer
}

fn last(fixture: &Fixture) -> Option<Outcome> {
    fixture.journal.exchanges().pop().map(|exchange| exchange.outcome)
}

#[test]
fn a_request_gets_the_fault_of_its_rule() {
    run_before_start("faults", async |fixture| {
        fixture.registered(1).await?;
        let whole = models(fixture).await?.bytes().await?;
        ensure!(last(fixture) == Some(Outcome::Answered(200)), "{:?}", last(fixture));

        let answer = met(fixture, Violation::json(429, &json!({})).header("retry-after", "7")).await?;
        ensure!(answer.status() == 429 && answer.headers()["retry-after"] == "7", "{answer:?}");
        ensure!(last(fixture) == Some(Outcome::Invented(429)), "{:?}", last(fixture));

        let error = met(fixture, Violation::Reset).await.unwrap_err();
        ensure!(format!("{error:#?}").contains("ConnectionReset"), "{error:#?}");
        ensure!(last(fixture) == Some(Outcome::Kept), "{:?}", last(fixture));

        let error = met(fixture, Violation::Hang).await.unwrap_err();
        ensure!(format!("{error:#?}").contains("TimedOut"), "{error:#?}");
        ensure!(last(fixture) == Some(Outcome::Kept), "{:?}", last(fixture));

        for lost in [Violation::LoseAnswer, Violation::HangAnswer] {
            met(fixture, lost).await.unwrap_err();
            ensure!(last(fixture) == Some(Outcome::Answered(200)), "{:?}", last(fixture));
        }

        let began = Instant::now();
        let late = met(fixture, Violation::Delay(Duration::from_millis(700))).await?;
        ensure!(late.bytes().await? == whole && began.elapsed() >= Duration::from_millis(700), "no delay");

        // Several times, because a head that is lost with the body depends on when the upstream's body ends.
        for _ in 0..20 {
            let cut = met(fixture, Violation::CutBody(10)).await?;
            ensure!(cut.status() == 200 && cut.bytes().await.is_err(), "the body is whole");
        }

        let altered = met(fixture, Violation::alter(|_, _| (500, b"oh".to_vec()))).await?;
        ensure!(altered.status() == 500 && altered.text().await? == "oh", "it is not altered");

        fixture.registry.refuse();
        ensure!(models(fixture).await.is_err(), "it accepts connections");
        fixture.registry.accept().await?;
        ensure!(models(fixture).await?.bytes().await? == whole, "it accepts no connections");
        Ok(())
    });
}

#[test]
fn a_rule_applies_to_the_nth_matching_request() {
    run_before_start("nth", async |fixture| {
        fixture.registered(1).await?;
        fixture.registry.place(Rule::on(Method::GET, "registered-models/get", Violation::status(503)).nth(2));
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(models(fixture).await?.status().as_u16());
        }
        ensure!(seen == [200, 503, 200], "{seen:?}");
        fixture.registry.place(Rule::always(Violation::status(502)).skip(1).times(2));
        seen.clear();
        for _ in 0..4 {
            seen.push(models(fixture).await?.status().as_u16());
        }
        ensure!(seen == [200, 502, 502, 200], "{seen:?}");
        Ok(())
    });
}

fn client(proxy: &Proxy) -> Result<Client> {
    Ok(Client::try_from(Config::new(proxy.url().parse()?))?)
}

#[test]
fn watches_stream_through_and_can_be_dropped() {
    run_before_start("watch", async |fixture| {
        let maps: Api<ConfigMap> = Api::namespaced(client(&fixture.kubernetes)?, &fixture.namespace);
        let watch = Watch::start(maps, watcher::Config::default());
        let map = |value: &str| {
            format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: map}}, data: {{key: '{value}'}}}}")
        };
        let shows = |map: &ConfigMap, value: &str| {
            map.data.as_ref().is_some_and(|data| data.get("key").is_some_and(|key| key == value))
        };
        let opened = |exchange: &Exchange| exchange.is_watch() && exchange.outcome == Outcome::Answered(200);
        fixture.journal.until("a watch", PATIENCE, opened).await?;
        fixture.apply(&map("one")).await?;
        watch.until("one", PATIENCE, |seen| shows(&seen.object, "one")).await?;

        let before = fixture.journal.exchanges().len();
        fixture.kubernetes.drop_streams();
        fixture.journal.until("another watch", PATIENCE, |it| it.number > before && opened(it)).await?;
        fixture.apply(&map("two")).await?;
        watch.until("two", PATIENCE, |seen| shows(&seen.object, "two")).await.map(drop)
    });
}

#[test]
fn hooks_run_before_a_request_is_forwarded_and_after_its_response() {
    run("hooks", async |fixture| {
        fixture.registered(1).await?;
        let (mlflow, model) = (fixture.mlflow, fixture.model.clone());
        let (reported, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let look = move |exchange: Exchange| {
            let (model, reported) = (model.clone(), reported.clone());
            async move {
                let named = mlflow.alias(&model, "champion").await.unwrap();
                reported.send((exchange.outcome, named)).unwrap();
            }
        };
        let alias = "registered-models/alias";
        fixture.registry.place(Rule::on(Method::POST, alias, Violation::before(look.clone())).times(1));
        fixture.get("version: '1'").await?;
        let before = timeout(PATIENCE, hears.recv()).await?;
        ensure!(before == Some((Outcome::Open, None)), "{before:?}");

        fixture.registry.lift_all();
        fixture.registry.place(Rule::on(Method::POST, alias, Violation::after(look)).times(1));
        fixture.mlflow.delete_alias(&fixture.model, "champion").await?;
        let after = timeout(PATIENCE, hears.recv()).await?;
        ensure!(after == Some((Outcome::Answered(200), Some("1".to_owned()))), "{after:?}");
        let set = |write: &Exchange| write.path.contains(alias) && write.body.contains("\"champion\"");
        ensure!(
            fixture.journal.writes().iter().filter(|write| set(write)).count() == 2,
            "it was not set twice"
        );
        ensure!(version(&fixture.champion.last().unwrap()) == "1", "version 1 serves");
        Ok(())
    });
}
