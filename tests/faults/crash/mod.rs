//! Killed at every single write: whatever the operator has just done, or was about to do, another one finds the way on.
//!
//! A story is told once without a crash. Then it is told anew for every write that the operator made in it, each time on
//! a scene of its own: the operator is killed right after that write has reached the server, before it hears the answer.
//! Where the operator had waited before a write, it is killed right before that write is sent on, too: the world has
//! moved by then. Another operator is started, and it has to come to the same end, without anything that is never to
//! happen, and then be quiet.
//!
//! ```text
//! stories  what is told: promotions, a rollback, failures, an alias that is moved, deletions
//! picture  what a scene looks like at the end, without times
//! ```

mod picture;
mod stories;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use futures::{StreamExt, stream};
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use self::picture::{Picture, differences, picture};
use crate::{
    scene::{PATIENCE, Scene, act},
    simulated::machine::RUNTIME,
    wire::{Exchange, Fault, Rule},
};

/// How many scenes are played at the same time, by all tests together. Those that only wait whether their operator stays
/// quiet do not count.
static ROOM: Semaphore = Semaphore::const_new(6);

/// A pause between two writes in which the world moves on by itself: pods become ready, a deadline passes.
const PAUSE: Duration = Duration::from_millis(100);

/// How long nothing is written before a story begins: what came before it has ended.
const SETTLED: Duration = Duration::from_secs(1);

/// What happens to a scene.
trait Story {
    /// A short name, part of a namespace's.
    fn name(&self) -> &'static str;

    /// What is there before; the operator runs.
    async fn set(&self, scene: &Scene) -> Result<()>;

    /// What somebody does.
    async fn begin(&self, scene: &Scene) -> Result<()>;

    /// What it leads to; an error while it has not.
    fn ended(&self, picture: &Picture) -> Result<()>;
}

/// When the operator is killed, by the number of its write since the story began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// Right before the write is sent on.
    Before(usize),
    /// Right after the server has answered, before the operator hears it.
    After(usize),
}

impl Moment {
    fn number(self) -> usize {
        match self {
            Self::Before(number) | Self::After(number) => number,
        }
    }
}

/// Tells a story without a crash, then with one at every write.
fn survives(story: &impl Story) {
    let told = RUNTIME.block_on(async {
        let room = ROOM.acquire().await?;
        let (end, writes) = act(story.name(), async |scene| undisturbed(scene, story, room).await).await?;
        println!("{}: {} writes", story.name(), writes.len());
        for write in &writes {
            println!("  {write}");
        }
        let mut failures = Vec::new();
        let mut reached = BTreeSet::new();
        let mut moments = moments(&writes);
        while !moments.is_empty() {
            let longest = moments.iter().map(|moment| moment.number()).max().unwrap_or_default();
            let cases: Vec<_> = stream::iter(moments)
                .map(|moment| case(story, moment, &end))
                .buffer_unordered(usize::MAX)
                .collect()
                .await;
            for case in cases {
                match case {
                    Ok(moment) => reached.extend(moment),
                    Err(failure) => failures.push(format!("{failure:#}")),
                }
            }
            // A story may have more writes the next time it is told.
            let goes_on = reached.contains(&Moment::After(longest));
            moments = goes_on.then_some(Moment::After(longest + 1)).into_iter().collect();
        }
        let crashes = reached.len();
        println!("{}: killed at {crashes} moments", story.name());
        ensure!(failures.is_empty(), "{} of them end otherwise:\n{}", failures.len(), failures.join("\n\n"));
        ensure!(crashes + failures.len() + 2 >= writes.len(), "only {crashes} of {} writes", writes.len());
        Ok(())
    });
    if let Err(error) = told {
        panic!("{}: {error:#}", story.name());
    }
}

/// When to kill the operator in a story that had these writes: after each of them, after one more, and before those that
/// it had waited for.
fn moments(writes: &[Exchange]) -> Vec<Moment> {
    let waited = |pair: &[Exchange]| {
        let before = pair[0].ended.unwrap_or(pair[0].arrived);
        pair[1].arrived.saturating_duration_since(before) >= PAUSE
    };
    let pauses = writes.windows(2).zip(2..).filter(|(pair, _)| waited(pair));
    let before = pauses.map(|(_, number)| Moment::Before(number));
    (1..=writes.len() + 1).map(Moment::After).chain(before).collect()
}

/// How a story ends without a crash, and the writes that lead there.
async fn undisturbed(
    scene: &Scene,
    story: &impl Story,
    room: SemaphorePermit<'_>,
) -> Result<(Picture, Vec<Exchange>)> {
    let base = begin(scene, story, None).await?.0;
    until(scene, PATIENCE, |picture| story.ended(picture)).await?;
    drop(room);
    scene.until_quiet().await?;
    let end = picture(scene).await?;
    story.ended(&end)?;
    Ok((end, scene.journal.writes().split_off(base)))
}

/// Tells a story with a crash; the moment, where the story came so far.
async fn case(story: &impl Story, moment: Moment, end: &Picture) -> Result<Option<Moment>> {
    let room = ROOM.acquire().await?;
    let told = act(story.name(), async |scene| crashed(scene, story, moment, end, room).await);
    told.await.with_context(|| format!("{} with a crash {moment:?}", story.name()))
}

async fn crashed(
    scene: &Scene,
    story: &impl Story,
    moment: Moment,
    end: &Picture,
    room: SemaphorePermit<'_>,
) -> Result<Option<Moment>> {
    let (base, crash) = begin(scene, story, Some(moment)).await?;
    let crash = crash.context("there is a moment")?;
    let same = |picture: &Picture| match differences(end, picture) {
        none if none.is_empty() => Ok(()),
        some => Err(anyhow!("it ends otherwise than without a crash:\n{}", some.join("\n"))),
    };
    let without = async {
        until(scene, PATIENCE, same).await?;
        scene.journal.until_quiet(3 * SETTLED, PATIENCE).await
    };
    tokio::select! {
        () = crash.happened() => {}
        ended = without => ended?,
    }
    let happened = crash.is_over();
    let what = scene.journal.writes().into_iter().nth(base + moment.number() - 1);
    let told = format!("killed {moment:?}: {}", what.map(|write| write.to_string()).unwrap_or_default());
    if happened {
        scene.heal().await?;
    }
    until(scene, PATIENCE, same).await.with_context(|| told.clone())?;
    drop(room);
    scene.until_quiet().await.with_context(|| told.clone())?;
    same(&picture(scene).await?).with_context(|| format!("later, {told}"))?;
    Ok(happened.then_some(moment))
}

/// Sets the scene and begins the story; the number of writes before it.
async fn begin(scene: &Scene, story: &impl Story, moment: Option<Moment>) -> Result<(usize, Option<Crash>)> {
    scene.operator.start().await?;
    story.set(scene).await?;
    scene.journal.until_quiet(SETTLED, PATIENCE).await?;
    let base = scene.journal.count();
    let crash = moment.map(|moment| Crash::prepare(scene, base, moment));
    story.begin(scene).await?;
    Ok((base, crash))
}

/// Waits until the scene looks as it is to.
async fn until(scene: &Scene, deadline: Duration, is_so: impl Fn(&Picture) -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match is_so(&picture(scene).await?) {
            Ok(()) => return Ok(()),
            Err(error) if began.elapsed() >= deadline => {
                return Err(error).with_context(|| format!("still after {deadline:?}"));
            }
            Err(_) => sleep(Duration::from_millis(400)).await,
        }
    }
}

/// A crash that is to happen.
struct Crash {
    over: Arc<(AtomicBool, Notify)>,
}

impl Crash {
    /// Lets the operator be killed at its n-th write after `base` of them. From that write on nothing of it reaches a
    /// server.
    fn prepare(scene: &Scene, base: usize, moment: Moment) -> Self {
        let over = Arc::new((AtomicBool::new(false), Notify::new()));
        let (noted, operator) = (over.clone(), scene.operator.clone());
        let proxies = [scene.kubernetes.clone(), scene.registry.clone()];
        let kill = move |_| {
            for proxy in &proxies {
                proxy.refuse();
            }
            let (noted, operator) = (noted.clone(), operator.clone());
            async move {
                spawn_blocking(move || operator.kill()).await.unwrap().unwrap();
                noted.0.store(true, Ordering::SeqCst);
                noted.1.notify_one();
            }
        };
        let number = base + moment.number();
        for proxy in [&scene.kubernetes, &scene.registry] {
            let fault = match moment {
                Moment::Before(_) => Fault::before(kill.clone()),
                Moment::After(_) => Fault::after(kill.clone()),
            };
            proxy.place(Rule::when(move |exchange| exchange.write == Some(number), fault));
        }
        Self { over }
    }

    async fn happened(&self) {
        self.over.1.notified().await;
    }

    fn is_over(&self) -> bool {
        self.over.0.load(Ordering::SeqCst)
    }
}
