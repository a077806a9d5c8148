//! How a story is told: without a crash, with one, with many.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

use super::{
    Story,
    effects::effects,
    kill::{Crash, Moment},
    picture::{Picture, differences, picture},
};
use crate::{
    fixture::{Fixture, PATIENCE, run_case},
    wire::Exchange,
};

/// How many cases are result at the same time, by all tests together. Those that only wait whether their
/// operator stays quiet do not count.
static ROOM: Semaphore = Semaphore::const_new(6);

/// How long nothing is written before a story begins: what came before it has ended.
const SETTLED: Duration = Duration::from_secs(1);

/// How a story goes without a crash.
pub(super) struct Undisturbed {
    pub(super) writes: Vec<Exchange>,
    pub(super) effects: BTreeSet<String>,
    end: Picture,
}

impl Undisturbed {
    fn ends_like(&self, picture: &Picture) -> Result<()> {
        let differences = differences(&self.end, picture);
        ensure!(
            differences.is_empty(),
            "it ends otherwise than without a crash:\n{}",
            differences.join("\n")
        );
        Ok(())
    }

    fn goes_like(&self, writes: &[Exchange]) -> Result<()> {
        let effects = effects(writes);
        let others: Vec<&String> = effects.difference(&self.effects).collect();
        ensure!(others.is_empty(), "on its way it does what it does not without a crash: {others:#?}");
        Ok(())
    }
}

/// Tells a story without a crash.
pub(super) async fn undisturbed(story: &impl Story) -> Result<Undisturbed> {
    let room = ROOM.acquire().await?;
    run_case(story.name(), async |fixture| {
        let base = set(fixture, story).await?;
        story.begin(fixture).await?;
        until(fixture, |picture| story.ended(picture)).await?;
        drop(room);
        fixture.until_quiet().await?;
        let end = picture(fixture).await?;
        story.ended(&end)?;
        let writes = fixture.journal.writes().split_off(base);
        Ok(Undisturbed { effects: effects(&writes), writes, end })
    })
    .await
}

/// Tells a story with a crash; the moment, where the story came so far.
pub(super) async fn once(
    story: &impl Story,
    moment: Moment,
    undisturbed: &Undisturbed,
) -> Result<Option<Moment>> {
    let room = ROOM.acquire().await?;
    let reported = run_case(story.name(), async |fixture| {
        let base = set(fixture, story).await?;
        let crash = Crash::prepare(fixture, base, moment);
        story.begin(fixture).await?;
        crash.or_through(fixture, undisturbed).await?;
        let happened = crash.is_over();
        if happened {
            fixture.heal().await?;
        }
        let at = fixture.journal.writes().into_iter().nth(base + moment.number() - 1);
        let at = at.map(|write| format!("killed {moment:?}: {write}")).unwrap_or_default();
        same_end(fixture, undisturbed, base, room).await.context(at)?;
        Ok(happened.then_some(moment))
    });
    reported.await.with_context(|| format!("{} with a crash {moment:?}", story.name()))
}

/// Tells a story with operators of which each is killed one write later than the one before it, until one is
/// through; how many there were.
pub(super) async fn many(story: &impl Story, undisturbed: &Undisturbed) -> Result<usize> {
    let room = ROOM.acquire().await?;
    let reported = run_case(story.name(), async |fixture| {
        let most = undisturbed.writes.len() + 3;
        let base = set(fixture, story).await?;
        let mut crash = Crash::prepare(fixture, base, Moment::After(1));
        story.begin(fixture).await?;
        let mut lives = 1;
        loop {
            crash.or_through(fixture, undisturbed).await?;
            if !crash.is_over() {
                break;
            }
            lives += 1;
            ensure!(lives <= most, "it is not through after {most} operators");
            fixture.pass().await?;
            crash = Crash::prepare(fixture, fixture.journal.count(), Moment::After(lives));
            fixture.operator.launch()?;
        }
        fixture.pass().await?;
        same_end(fixture, undisturbed, base, room).await?;
        Ok(lives)
    });
    reported
        .await
        .with_context(|| format!("{} with operators that are killed one after the other", story.name()))
}

/// Sets the fixture; how many writes there were before the story begins.
async fn set(fixture: &Fixture, story: &impl Story) -> Result<usize> {
    fixture.operator.start().await?;
    story.set(fixture).await?;
    // The history of what came before is written into the registry beside everything else.
    until(fixture, is_audited).await?;
    fixture.journal.until_quiet(SETTLED, PATIENCE).await?;
    Ok(fixture.journal.count())
}

/// Whether all that the status tells of is in the registry.
fn is_audited(picture: &Picture) -> Result<()> {
    let history = picture.pointer("/champion/status/history").and_then(Value::as_array);
    let pending = history.into_iter().flatten().filter(|entry| entry["recorded"] == "Pending").count();
    ensure!(pending == 0, "{pending} entries of the history are not in the registry yet");
    Ok(())
}

impl Crash {
    /// Waits until it has happened, or until the story is through without it.
    async fn or_through(&self, fixture: &Fixture, undisturbed: &Undisturbed) -> Result<()> {
        let through = async {
            until(fixture, |picture| undisturbed.ends_like(picture)).await?;
            fixture.journal.until_quiet(3 * SETTLED, PATIENCE).await
        };
        tokio::select! {
            () = self.happened() => Ok(()),
            through = through => through,
        }
    }
}

/// The fixture comes to the end that it has without a crash, and is quiet then. While it is watched for that,
/// another fixture has room.
async fn same_end(
    fixture: &Fixture,
    undisturbed: &Undisturbed,
    base: usize,
    room: SemaphorePermit<'_>,
) -> Result<()> {
    until(fixture, |picture| undisturbed.ends_like(picture)).await?;
    drop(room);
    fixture.until_quiet().await?;
    undisturbed.ends_like(&picture(fixture).await?).context("later")?;
    undisturbed.goes_like(&fixture.journal.writes().split_off(base))
}

/// Waits until the fixture looks as it is to.
pub(super) async fn until(fixture: &Fixture, is_so: impl Fn(&Picture) -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match is_so(&picture(fixture).await?) {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() >= PATIENCE => {
                return Err(error).with_context(|| format!("still after {PATIENCE:?}"));
            }
            Err(_) => sleep(Duration::from_millis(400)).await,
        }
    }
}
