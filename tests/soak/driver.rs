//! Changes one ModelAlias repeatedly, and waits each time until its clients have moved.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use laurel::api::ModelAlias;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    chaos::Chaos,
    figures::{Kind, Took},
    harness::{Harness, Subject},
    plan::{AskedBy, Moves},
    random::Random,
    verdict,
};
use crate::support::alias::{self, Alias, Change};

/// A change may wait for a killed operator, an unreachable MLflow and pods on an overloaded machine. A change
/// that takes far longer hangs.
const PATIENCE: Duration = Duration::from_mins(5);

/// Maximum pause between two changes.
const REST: Duration = Duration::from_millis(1500);

/// How long only one version must answer until traffic counts as moved: with an immediate switch, and after
/// both versions answered.
const ALONE: Duration = Duration::from_secs(1);
const ALONE_AFTER_BOTH: Duration = Duration::from_secs(4);

/// The percentage of changes during which the operator is killed, in addition to kills at any moment.
const KILLS: u64 = 20;

/// The percentages of changes of a `BlueGreen` alias that roll back to the warm version, and that are
/// reverted midway.
const BACK: u64 = 65;
const TAKEN_BACK: u64 = 8;

/// The watch of an [`Alias`] keeps everything it saw; after this many changes it is restarted.
const WATCHED: usize = 40;

/// The driver of one ModelAlias.
pub(super) struct Driver<'a> {
    harness: &'a Harness,
    subject: &'a Subject,
    chaos: &'a Chaos<'a>,
    random: Random,
    alias: Alias,
    watched: usize,
    serving: String,
}

impl<'a> Driver<'a> {
    pub(super) fn of(
        harness: &'a Harness,
        subject: &'a Subject,
        chaos: &'a Chaos<'a>,
        (seed, number): (u64, u64),
    ) -> Self {
        Self {
            harness,
            subject,
            chaos,
            random: Random::of(seed, number),
            alias: harness.observe(subject),
            watched: 0,
            serving: subject.plan.versions[0].to_owned(),
        }
    }

    /// Makes one change after another, until stopped.
    pub(super) async fn drive(&mut self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        while !*stopped.borrow() {
            let name = self.subject.plan.name;
            self.step().await.with_context(|| format!("ModelAlias {name}"))?;
            let rest = self.random.up_to(REST);
            tokio::select! {
                () = sleep(rest) => {} // At any moment: time itself is the subject.
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<()> {
        if self.watched == WATCHED {
            (self.alias, self.watched) = (self.harness.observe(self.subject), 0);
        }
        self.watched += 1;
        let last = self.alias.until("the ModelAlias", PATIENCE, |_| true).await?.object;
        let last = self.alias.last().unwrap_or(last);
        let warm = alias::status(&last).previous_version.map(|version| version.to_string());
        let warm = warm.filter(|_| self.subject.plan.moves != Moves::Rolling);
        let others = self.subject.plan.versions.into_iter().filter(|version| *version != self.serving);
        let cold: Vec<&str> = others.filter(|version| Some(*version) != warm.as_deref()).collect();
        let (back, taken_back) = (self.random.chance(BACK), self.random.chance(TAKEN_BACK));
        let cold = (*self.random.one_of(&cold)).to_owned();
        // While others start pods, roll back to a warm version.
        let room = self.harness.room_to_start.try_acquire_many(self.subject.plan.starts()).ok();
        if let Some(warm) = warm.as_ref().filter(|_| back || room.is_none()) {
            drop(room);
            return self.change(Kind::Rollback, warm).await;
        }
        let _room = match room {
            Some(room) => room,
            None => self.harness.room_to_start.acquire_many(self.subject.plan.starts()).await?,
        };
        match warm {
            Some(_) if taken_back && self.subject.plan.asked_by == AskedBy::Spec => {
                self.take_back(&cold).await
            }
            None if self.subject.plan.moves == Moves::Rolling => self.change(Kind::Exchange, &cold).await,
            _ if self.subject.plan.moves == Moves::Canary => self.change(Kind::Canary, &cold).await,
            _ => self.change(Kind::Promotion, &cold).await,
        }
    }

    /// Requests another version, and waits until all clients are answered by it.
    async fn change(&mut self, kind: Kind, to: &str) -> Result<()> {
        let from = std::mem::replace(&mut self.serving, to.to_owned());
        let begun = self.subject.clients.may_be_answered_by([&from, to]);
        let change = self.desired(to).await?;
        let meddling = self.perhaps_kill_the_operator(kind);
        let at_once = kind.is_at_once() && self.subject.plan.path().is_none();
        let ready = self.settled(begun, change, at_once);
        let (ready, ()) = tokio::join!(ready, meddling);
        let ready = ready?;
        let last_old = self.subject.clients.ended_since(begun).last_answer_by(&from);
        let since = |moment: Instant| moment.saturating_duration_since(change.accepted);
        let took = Took { ready: since(ready), moved: last_old.map_or(Duration::ZERO, since) };
        self.harness.count(|figures| figures.count(kind, self.subject.plan.asked_by.into(), took));
        self.harness.story.log(format!(
            "{} {from} -> {to}: {kind:?}, last old response after {:.2} s, Ready after {:.2} s",
            self.subject.plan.name,
            took.moved.as_secs_f64(),
            took.ready.as_secs_f64()
        ));
        Ok(())
    }

    /// Requests another version and reverts it at any moment.
    async fn take_back(&mut self, other: &str) -> Result<()> {
        let serving = self.serving.clone();
        let begun = self.subject.clients.may_be_answered_by([&serving, other]);
        self.desired(other).await?;
        sleep(self.random.up_to(Duration::from_secs(8))).await; // At any moment: time itself is the subject.
        let change = self.desired(&serving).await?;
        self.settled(begun, change, false).await?;
        self.harness.count(|figures| figures.taken_back += 1);
        self.harness
            .story
            .log(format!("{} stays on {serving}: {other} was reverted", self.subject.plan.name));
        Ok(())
    }

    async fn desired(&self, version: &str) -> Result<Change> {
        match self.subject.plan.asked_by {
            AskedBy::Spec => {
                let spec = json!({ "version": version });
                self.patiently("the spec", || self.alias.patch_spec(spec.clone())).await
            }
            AskedBy::Registry => {
                self.set_alias(version).await?;
                let generation = self.alias.last().context("the ModelAlias is gone")?.metadata.generation;
                Ok(Change { generation: generation.unwrap_or_default(), accepted: Instant::now() })
            }
        }
    }

    async fn set_alias(&self, version: &str) -> Result<()> {
        let Harness { mlflow, model, .. } = self.harness;
        self.patiently("the alias", || mlflow.set_alias(model, self.subject.plan.alias, version)).await
    }

    /// Retries while MLflow is unreachable, or the API server overloaded, as a person would.
    async fn patiently<T, F: Future<Output = Result<T>>>(
        &self,
        what: &str,
        change: impl Fn() -> F,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            let why = match timeout(Duration::from_secs(20), change()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(refused)) => refused.context(format!("{what} was not changed")),
                Err(hangs) => anyhow!(hangs).context(format!("no answer to a change of {what}")),
            };
            if began.elapsed() > PATIENCE {
                return Err(why);
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// Waits until the desired version serves and every client has moved. Returns when it served.
    async fn settled(&self, begun: Instant, change: Change, at_once: bool) -> Result<Instant> {
        let desired = self.serving.as_str();
        let is_met = |malias: &ModelAlias| {
            alias::is_ready(malias, change.generation) && alias::version(malias) == desired
        };
        let what = format!("Ready with version {desired}");
        let ready = self.alias.until_since(change.accepted, &what, PATIENCE, is_met).await?;
        let alone = if at_once { ALONE } else { ALONE_AFTER_BOTH };
        let clients = &self.subject.clients;
        // If both may have answered, only responses after the desired version served count.
        let since = if at_once { begun } else { ready.at };
        clients.stay_on(since, desired, (alone, at_once), PATIENCE).await?;
        verdict::no_strays(self.harness, self.subject, &clients.ended_since(begun))?;
        Ok(ready.at)
    }

    /// Kills the operator during some changes.
    fn perhaps_kill_the_operator(&mut self, kind: Kind) -> impl Future<Output = ()> + use<'a> {
        // About as long as a change takes.
        let midst = match (kind, self.subject.plan.asked_by) {
            (Kind::Rollback, AskedBy::Spec) => Duration::from_millis(250),
            (Kind::Rollback, AskedBy::Registry) => Duration::from_secs(5),
            (Kind::Promotion, _) => Duration::from_secs(10),
            (Kind::Canary, _) => Duration::from_secs(25),
            (Kind::Exchange, _) => Duration::from_secs(30),
        };
        let kills = self.random.chance(KILLS);
        let moment = self.random.up_to(midst);
        let (chaos, name) = (self.chaos, self.subject.plan.name);
        async move {
            if kills {
                sleep(moment).await; // At any moment: time itself is the subject.
                chaos.try_to_kill_operator(&format!("{moment:?} into a change of {name}")).await;
            }
        }
    }
}
