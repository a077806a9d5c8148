//! Warm rollbacks under load, in turns: by Laurel behind a route, the same route patched by hand, and by
//! Laurel with a Service alone.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    harness::{Harness, NAMESPACE, PATIENCE, milliseconds, path, serves},
    support::{
        alias::Alias,
        load::{Load, Plan, Report, Request, quantile},
        service::Way,
        watch::{Seen, Watch},
    },
    table::Table,
};

/// Number of rollbacks of each kind.
const REPETITIONS: usize = 20;

/// Pings per second over each kind of connection: a response every 5 ms shows when the last old one came.
const PER_SECOND: u32 = 100;

/// How long clients send before a rollback.
const WARM_UP: Duration = Duration::from_secs(1);

/// The versions that take turns.
const VERSIONS: [&str; 2] = ["1", "2"];

/// A route that Laurel does not know, to the Services that Laurel keeps of each version.
const BY_HAND: &str = "by-hand";

/// Times of one rollback.
#[derive(Clone, Copy)]
struct Took {
    /// From when the change was sent to the API server until the last response of the version that was left.
    since_sent: Duration,
    /// The same from when the change was seen on a watch.
    since_accepted: Duration,
    /// From then until the route or the Service that sends requests was seen with the change.
    written: Duration,
}

/// One kind of rollback.
struct Kind {
    name: &'static str,
    way: Way,
    /// What sends requests to a version.
    sender: Watch<DynamicObject>,
    took: Vec<Took>,
    reports: Vec<Report>,
}

impl Kind {
    fn new(name: &'static str, way: Way, sender: Watch<DynamicObject>) -> Self {
        Self { name, way, sender, took: Vec::new(), reports: Vec::new() }
    }

    /// Makes one change under load; `change` returns when it was accepted.
    async fn turn(
        &mut self,
        (from, to): (&str, &str),
        change: impl AsyncFnOnce() -> Result<Instant>,
    ) -> Result<()> {
        let plan = Plan::both(PER_SECOND, Duration::from_mins(5));
        let load = Load::start(&self.way.target, &Request::get("/ping"), plan);
        sleep(WARM_UP).await; // Connections are open before anything is measured.
        self.sender.until("what sends requests", PATIENCE, |_| true).await?;
        let before = self.sender.last().map(|seen| seen.object.data["spec"].clone());
        let sent = Instant::now();
        let accepted = change().await?;
        let moved = load.moved(accepted, (from, to), PATIENCE).await;
        moved.with_context(|| format!("{}: clients do not move from {from} to {to}", self.name))?;
        let has_changed = |seen: &Seen<DynamicObject>| {
            seen.at >= sent && Some(&seen.object.data["spec"]) != before.as_ref()
        };
        let written = self.sender.until("a change of what sends requests", PATIENCE, has_changed).await?.at;
        let last = load.ended_since(sent).last_answer_by(from).unwrap_or(sent);
        self.took.push(Took {
            since_sent: last.saturating_duration_since(sent),
            since_accepted: last.saturating_duration_since(accepted),
            written: written.saturating_duration_since(accepted),
        });
        self.reports.push(load.stop().await);
        Ok(())
    }

    /// The time within which `share` of the rollbacks were, in milliseconds.
    fn at(&self, share: f64, of: fn(&Took) -> Duration) -> f64 {
        milliseconds(quantile(self.took.iter().map(of).collect(), share).unwrap_or_default())
    }

    fn row(&self) -> [String; 6] {
        let both = |of| format!("{:.0} / {:.0}", self.at(0.5, of), self.at(1.0, of));
        let report = Report::of_all(self.reports.clone());
        [
            self.name.to_owned(),
            both(|took| took.since_accepted),
            both(|took| took.written),
            both(|took| took.since_sent),
            report.sent().to_string(),
            report.lost().to_string(),
        ]
    }
}

/// Measures and prints.
pub(crate) async fn run(harness: &Harness) -> Result<()> {
    let routed = warm(harness, "routed", true).await?;
    let plain = warm(harness, "plain", false).await?;
    let route = Route::copy(harness, "routed").await?;
    let watch_route = |name: &str| Watch::of(objects(harness, &route_kind()), name);
    let services = objects(harness, &ApiResource::erase::<Service>(&()));
    let mut by_laurel =
        Kind::new("behind a route, by Laurel", harness.outside("routed").await?, watch_route("routed"));
    let mut by_hand =
        Kind::new("the same route by hand", harness.outside(BY_HAND).await?, watch_route(BY_HAND));
    let service = Watch::of(services, "plain");
    let mut selector = Kind::new("a Service alone, by Laurel", harness.inside("plain").await?, service);
    for turn in 0..REPETITIONS {
        let [to, from] = if turn % 2 == 0 { VERSIONS } else { [VERSIONS[1], VERSIONS[0]] };
        roll_back(&mut by_laurel, &routed, from, to).await?;
        by_hand.turn((from, to), async || route.send_to(to).await).await?;
        roll_back(&mut selector, &plain, from, to).await?;
    }
    println!("Warm rollbacks at {} requests/s, {REPETITIONS} of each kind in turns.", 2 * PER_SECOND);
    println!(
        "From when the change was accepted or sent until the last old answer: median / longest, in ms.\n"
    );
    let mut table = Table::new(["", "FROM ACCEPTED", "OF IT UNTIL WRITTEN", "FROM SENT", "REQUESTS", "LOST"]);
    for kind in [&by_laurel, &by_hand, &selector] {
        table.row(kind.row());
    }
    println!("{table}");
    let compare = |name: &str, since: fn(&Took) -> Duration| {
        println!(
            "  From {name}, medians: by Laurel behind a route {:.2} x by hand, {:.2} x a Service alone",
            by_laurel.at(0.5, since) / by_hand.at(0.5, since),
            by_laurel.at(0.5, since) / selector.at(0.5, since),
        );
    };
    compare("accepted", |took| took.since_accepted);
    compare("sent", |took| took.since_sent);
    Ok(())
}

fn route_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"))
}

fn objects(harness: &Harness, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(harness.cluster.client.clone(), NAMESPACE, kind)
}

/// Serves version 2, with version 1 warm.
async fn warm(harness: &Harness, name: &str, routed: bool) -> Result<Alias> {
    // As each is meant to be used: a Service moves new connections only.
    let keep_alive = if routed { "Enabled" } else { "Disabled" };
    let alias = harness.serve(name, keep_alive, routed).await?;
    let change = alias.patch_spec(json!({ "version": VERSIONS[1] })).await?;
    serves(&alias, change, VERSIONS[1]).await?;
    Ok(alias)
}

async fn roll_back(kind: &mut Kind, alias: &Alias, from: &str, to: &str) -> Result<()> {
    let mut change = None;
    let patch = async || {
        let patched = alias.patch_spec(json!({ "version": to })).await?;
        change = Some(patched);
        Ok(patched.accepted)
    };
    kind.turn((from, to), patch).await?;
    serves(alias, change.context("nothing was changed")?, to).await
}

/// The route that is patched by hand.
struct Route {
    api: Api<DynamicObject>,
    watch: Watch<DynamicObject>,
    rules: Value,
}

impl Route {
    /// Copies a route of Laurel's, under another path.
    async fn copy(harness: &Harness, name: &str) -> Result<Self> {
        let api = objects(harness, &route_kind());
        let mut spec = api.get(name).await?.data["spec"].take();
        spec["rules"][0]["matches"][0]["path"]["value"] = path(BY_HAND).into();
        let mut copy = DynamicObject::new(BY_HAND, &route_kind());
        copy.data = json!({ "spec": spec });
        api.create(&PostParams::default(), &copy).await?;
        let watch = Watch::of(api.clone(), BY_HAND);
        let is_accepted = |route: &DynamicObject| {
            let conditions = &route.data["status"]["parents"][0]["conditions"];
            conditions
                .as_array()
                .is_some_and(|all| !all.is_empty() && all.iter().all(|it| it["status"] == "True"))
        };
        watch.until("the route is accepted", PATIENCE, |seen| is_accepted(&seen.object)).await?;
        Ok(Self { api, watch, rules: spec["rules"].take() })
    }

    /// Gives a version all requests but the smallest share. Returns when that was accepted.
    async fn send_to(&self, version: &str) -> Result<Instant> {
        const MOST: u32 = 999_999;
        let mut rules = self.rules.clone();
        for backend in rules[0]["backendRefs"].as_array_mut().context("a route without backends")? {
            let is_it = backend["name"].as_str().is_some_and(|name| name.ends_with(&format!("-v{version}")));
            backend["weight"] = if is_it { MOST } else { 1 }.into();
        }
        let patch = Patch::Merge(json!({ "spec": { "rules": rules } }));
        let patched = self.api.patch(BY_HAND, &PatchParams::default(), &patch).await?;
        let generation = patched.metadata.generation;
        let is_it = |seen: &Seen<DynamicObject>| seen.object.metadata.generation >= generation;
        Ok(self.watch.until("the patched route", PATIENCE, is_it).await?.at)
    }
}
