//! That the proxies pass everything on when no rule is in force, and do what a rule says when one is.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config, runtime::watcher};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    scene::{PATIENCE, Scene, play, play_before_start},
    simulated::look::{selected, until_sizes},
    support::{alias::version, watch::Watch},
    wire::{Exchange, Outcome, Proxy, Rule, Server, Violation},
};

#[test]
fn without_rules_an_operator_promotes_through_the_proxies() {
    play("pass", async |scene| {
        scene.registered(2).await?;
        scene.get("version: '1'").await?;
        scene.get("version: '2'").await?;
        scene.until_named("champion", Some("2")).await?;
        until_sizes(scene, [("1", 2), ("2", 2)]).await?;
        scene.until_quiet().await?;
        let writes = scene.journal.writes();
        ensure!(writes.iter().all(Exchange::succeeded), "{}", scene.journal.told_since(scene.began));
        for server in [Server::Kubernetes, Server::Registry] {
            ensure!(writes.iter().any(|write| write.server == server), "no write to {server:?}");
        }
        Ok(())
    });
}

#[test]
fn an_operator_ends_in_order_and_another_one_goes_on() {
    play("ends", async |scene| {
        scene.registered(2).await?;
        scene.get("version: '1'").await?;
        let status = scene.operator.terminate().await?;
        ensure!(status.success(), "it ended with {status}");
        let change = scene.desired("version: '2'").await?;
        scene.operator.start().await?;
        scene.champion.ready(change, PATIENCE).await?;
        scene.operator.restart().await?;
        ensure!(selected(scene).await? == "2", "traffic moved");
        Ok(())
    });
}

async fn models(scene: &Scene) -> Result<Response> {
    let url = format!("{}/api/2.0/mlflow/registered-models/get?name={}", scene.registry.url(), scene.model);
    Ok(reqwest::Client::new().get(url).timeout(Duration::from_secs(2)).send().await?)
}

async fn met(scene: &Scene, violation: Violation) -> Result<Response> {
    let placed = scene.registry.place(Rule::always(violation).times(1));
    let answer = models(scene).await;
    scene.registry.lift(&placed);
    ensure!(placed.struck() == 1, "the fault was met {} times", placed.struck());
    answer
}

fn last(scene: &Scene) -> Option<Outcome> {
    scene.journal.exchanges().pop().map(|exchange| exchange.outcome)
}

#[test]
fn a_request_meets_the_fault_that_is_meant_for_it() {
    play_before_start("faults", async |scene| {
        scene.registered(1).await?;
        let whole = models(scene).await?.bytes().await?;
        ensure!(last(scene) == Some(Outcome::Answered(200)), "{:?}", last(scene));

        let answer = met(scene, Violation::json(429, &json!({})).header("retry-after", "7")).await?;
        ensure!(answer.status() == 429 && answer.headers()["retry-after"] == "7", "{answer:?}");
        ensure!(last(scene) == Some(Outcome::Invented(429)), "{:?}", last(scene));

        let error = met(scene, Violation::Reset).await.unwrap_err();
        ensure!(format!("{error:#?}").contains("ConnectionReset"), "{error:#?}");
        ensure!(last(scene) == Some(Outcome::Kept), "{:?}", last(scene));

        let error = met(scene, Violation::Hang).await.unwrap_err();
        ensure!(format!("{error:#?}").contains("TimedOut"), "{error:#?}");
        ensure!(last(scene) == Some(Outcome::Kept), "{:?}", last(scene));

        for lost in [Violation::LoseAnswer, Violation::HangAnswer] {
            met(scene, lost).await.unwrap_err();
            ensure!(last(scene) == Some(Outcome::Answered(200)), "{:?}", last(scene));
        }

        let began = Instant::now();
        let late = met(scene, Violation::Delay(Duration::from_millis(700))).await?;
        ensure!(late.bytes().await? == whole && began.elapsed() >= Duration::from_millis(700), "no delay");

        let cut = met(scene, Violation::CutBody(10)).await?;
        ensure!(cut.status() == 200 && cut.bytes().await.is_err(), "the body is whole");

        let altered = met(scene, Violation::alter(|_, _| (500, b"oh".to_vec()))).await?;
        ensure!(altered.status() == 500 && altered.text().await? == "oh", "it is not altered");

        scene.registry.refuse();
        ensure!(models(scene).await.is_err(), "it takes connections");
        scene.registry.accept().await?;
        ensure!(models(scene).await?.bytes().await? == whole, "it takes no connections");
        Ok(())
    });
}

#[test]
fn a_rule_is_for_the_nth_of_what_it_names() {
    play_before_start("nth", async |scene| {
        scene.registered(1).await?;
        scene.registry.place(Rule::on(Method::GET, "registered-models/get", Violation::status(503)).nth(2));
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(models(scene).await?.status().as_u16());
        }
        ensure!(seen == [200, 503, 200], "{seen:?}");
        scene.registry.place(Rule::always(Violation::status(502)).skip(1).times(2));
        seen.clear();
        for _ in 0..4 {
            seen.push(models(scene).await?.status().as_u16());
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
    play_before_start("watch", async |scene| {
        let maps: Api<ConfigMap> = Api::namespaced(client(&scene.kubernetes)?, &scene.namespace);
        let watch = Watch::start(maps, watcher::Config::default());
        let map = |value: &str| {
            format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: map}}, data: {{key: '{value}'}}}}")
        };
        let shows = |map: &ConfigMap, value: &str| {
            map.data.as_ref().is_some_and(|data| data.get("key").is_some_and(|key| key == value))
        };
        let opened = |exchange: &Exchange| exchange.is_watch() && exchange.outcome == Outcome::Answered(200);
        scene.journal.until("a watch", PATIENCE, opened).await?;
        scene.apply(&map("one")).await?;
        watch.until("one", PATIENCE, |seen| shows(&seen.object, "one")).await?;

        let before = scene.journal.exchanges().len();
        scene.kubernetes.drop_streams();
        scene.journal.until("another watch", PATIENCE, |it| it.number > before && opened(it)).await?;
        scene.apply(&map("two")).await?;
        watch.until("two", PATIENCE, |seen| shows(&seen.object, "two")).await.map(drop)
    });
}

#[test]
fn hooks_run_before_a_request_is_sent_on_and_after_it_was_answered() {
    play("hooks", async |scene| {
        scene.registered(1).await?;
        let (mlflow, model) = (scene.mlflow, scene.model.clone());
        let (reported, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let look = move |exchange: Exchange| {
            let (model, reported) = (model.clone(), reported.clone());
            async move {
                let named = mlflow.alias(&model, "champion").await.unwrap();
                reported.send((exchange.outcome, named)).unwrap();
            }
        };
        let alias = "registered-models/alias";
        scene.registry.place(Rule::on(Method::POST, alias, Violation::before(look.clone())).times(1));
        scene.get("version: '1'").await?;
        let before = timeout(PATIENCE, hears.recv()).await?;
        ensure!(before == Some((Outcome::Open, None)), "{before:?}");

        scene.registry.lift_all();
        scene.registry.place(Rule::on(Method::POST, alias, Violation::after(look)).times(1));
        scene.mlflow.delete_alias(&scene.model, "champion").await?;
        let after = timeout(PATIENCE, hears.recv()).await?;
        ensure!(after == Some((Outcome::Answered(200), Some("1".to_owned()))), "{after:?}");
        let body: Value = serde_json::from_str(&scene.journal.writes().pop().unwrap().body)?;
        ensure!(body["alias"] == "champion" || body["status"].is_object(), "{body}");
        ensure!(version(&scene.champion.last().unwrap()) == "1", "version 1 serves");
        Ok(())
    });
}
