//! Rollbacks to a warm version, one at a time, in turns with Services moved by hand, so that a busy machine affects
//! both equally.

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use laurel::{api::ModelAlias, render::labels};
use tokio::time::{Instant, sleep};

use crate::{
    by_hand::{Pair, Sample, is_moved, serving},
    laurel::{claim, describe, name, ready, request},
    parallel::each,
    simulated::place::PATIENCE,
    site::{LATE, LAUREL, Site},
    support::watch::{Seen, Watch},
    tally::Tally,
    wire::{Journal, Proxy, Rule, Server, Upstream, Violation},
};

/// How late the other registry answers.
const LATENESS: Duration = Duration::from_millis(2_500);
/// The versions of its models. Each is new to Laurel once.
const VERSIONS: [&str; 4] = ["1", "2", "3", "4"];
/// Not in phase with anything that is periodic.
const PAUSE: Duration = Duration::from_millis(170);

/// The times of both.
pub(crate) struct Turns {
    pub(crate) by_hand: Vec<Duration>,
    pub(crate) laurel: Vec<Duration>,
    /// How many ModelAliases waited for a registry at the start of each turn.
    pub(crate) waiting: Vec<usize>,
}

/// Rolls back the first of the models that were promoted, then the next ones while ModelAliases of another registry
/// wait for its answers.
pub(crate) async fn measure(site: &Site, sample: &Sample) -> Result<[Turns; 2]> {
    let pair = Pair::create(site, sample).await?;
    let count = site.options.rollbacks;
    println!("{count} rollbacks, in turns with {count} Services moved by hand");
    let alone = turns(site, &pair, 0..count, None).await?;
    println!("the same while {} ModelAliases wait for a registry that answers late", site.options.waiting);
    let mut late = Late::create(site).await?;
    let beside = turns(site, &pair, count..2 * count, Some(&mut late)).await?;
    Ok([alone, beside])
}

async fn turns(
    site: &Site,
    pair: &Pair,
    models: Range<usize>,
    mut late: Option<&mut Late<'_>>,
) -> Result<Turns> {
    let mut turns = Turns { by_hand: Vec::new(), laurel: Vec::new(), waiting: Vec::new() };
    for (turn, model) in models.enumerate() {
        if let Some(late) = &mut late {
            turns.waiting.push(late.keep_waiting().await?);
        }
        turns.by_hand.push(pair.move_to(["2", "1"][turn % 2]).await?);
        sleep(PAUSE).await;
        turns.laurel.push(roll_back(site, model).await?);
        sleep(PAUSE).await;
    }
    Ok(turns)
}

/// Returns the time from when the API server has accepted the rollback of a model until a watch shows its Service
/// moved.
async fn roll_back(site: &Site, model: usize) -> Result<Duration> {
    let alias = name(model, "champion");
    let service = Watch::of(site.api::<Service>(LAUREL), &alias);
    service.until("the Service", PATIENCE, |_| true).await?;
    request(&site.api(LAUREL), &alias, "1").await?;
    let accepted = Instant::now();
    let there = |seen: &Seen<Service>| is_moved(&seen.object, labels::VERSION, "1");
    let moved = service.until("the Service moved", PATIENCE, there).await?;
    // The watch may be ahead of the answer to the request.
    Ok(moved.at.saturating_duration_since(accepted))
}

/// ModelAliases of a registry that answers late, which are made to wait for it all the time.
struct Late<'a> {
    site: &'a Site,
    ready: Tally,
    /// The index of the requested version.
    requested: usize,
    _proxy: Proxy,
}

impl<'a> Late<'a> {
    async fn create(site: &'a Site) -> Result<Self> {
        let waiting = site.options.waiting;
        site.register("late", waiting, VERSIONS.len()).await?;
        let upstream = Upstream::Local(site.mlflow.port);
        let proxy = Proxy::open(Server::Registry, upstream, &Arc::<Journal>::default()).await?;
        proxy.place(Rule::always(Violation::Delay(LATENESS)));
        site.registry(LATE, &proxy.url()).await?;
        let serving = serving(site, LATE);
        let ready = ready(site, LATE);
        each(0..waiting, |number| async move {
            let model = format!("late-{number}");
            describe(site, LATE, &model).await?;
            claim(site, LATE, &model, (&model, "champion")).await
        })
        .await?;
        // The start of their pods is not what is measured.
        serving.until("Services of the late registry serve", waiting, site.options.patience()).await?;
        Ok(Self { site, ready, requested: 0, _proxy: proxy })
    }

    /// Requests another version of each if only half of them are waiting. Returns how many are.
    async fn keep_waiting(&mut self) -> Result<usize> {
        let all = self.site.options.waiting;
        let waiting = all.saturating_sub(self.ready.reached());
        if waiting > all / 2 {
            return Ok(waiting);
        }
        self.requested = (self.requested + 1) % VERSIONS.len();
        let aliases: Api<ModelAlias> = self.site.api(LATE);
        each(0..all, |number| {
            let (aliases, version) = (aliases.clone(), VERSIONS[self.requested]);
            async move { request(&aliases, &format!("late-{number}"), version).await }
        })
        .await?;
        Ok(all)
    }
}
