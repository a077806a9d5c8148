//! The soak: promise 2 under chaos.
//!
//! Clients send 200 requests a second while four aliases of one model, one of them behind a Gateway with
//! another one as its challenger, are promoted and rolled back as fast as possible, the operator is killed,
//! MLflow is killed and hung, model servers are evicted and nodes drained. No request may be lost, and none
//! may be answered by a version that traffic has left. A seed determines what happens; the timing depends on
//! the machine.
//!
//! ```text
//! plan     what serves: four aliases, and how often each is asked
//! harness  the cluster, MLflow and the watches
//! driver   changes one ModelAlias again and again, and waits each time until its clients have moved
//! chaos    kills the operator, kills and hangs MLflow, evicts pods and drains nodes
//! clients  a ModelAlias's clients, and which version may answer them when
//! verdict  what must hold: all along, and at the end
//! story    what happened when, printed as it happens, and around a loss
//! listed   what was watched, as lines of the story
//! figures  the counters
//! random   choices from a seed
//! ```

mod chaos;
mod clients;
mod driver;
mod figures;
mod harness;
mod lines;
mod plan;
mod random;
mod story;
mod verdict;

use std::{convert::Infallible, time::Duration};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep},
};

#[allow(unused_imports, reason = "the end-to-end tests use it too")]
pub(crate) use plan::patient_probes;

use self::{chaos::Chaos, driver::Driver, figures::Figures, harness::Harness};

/// What to do, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The seed of every choice.
    pub(crate) seed: u64,
    /// When to stop.
    pub(crate) enough: Enough,
    /// Whether to leave everything in place after a loss, for inspection.
    pub(crate) stays_on_failure: bool,
    /// Whether model servers are evicted and nodes drained.
    pub(crate) evicts: bool,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Enough {
    /// After this many promotions and rollbacks, with at least a tenth as many kills of the operator and
    /// a twentieth as many restarts of MLflow.
    Changes(usize),
    /// After this time.
    Time(Duration),
}

impl Enough {
    fn is_reached(self, figures: &Figures, started: Instant) -> bool {
        match self {
            Self::Changes(changes) => {
                figures.changes() >= changes
                    && figures.operator_kills >= changes / 10
                    && figures.mlflow_restarts >= changes / 20
            }
            Self::Time(time) => started.elapsed() >= time,
        }
    }
}

/// How long the clients send before anything is changed.
const CALM: Duration = Duration::from_secs(5);

/// Interval between progress lines.
const PROGRESS: Duration = Duration::from_secs(15);

/// Time limit for changes in progress to complete after the stop.
const LAST_CHANGES: Duration = Duration::from_mins(10);

/// Runs the soak. An error lists what was lost and the story around it; without one, every promise held.
pub(crate) async fn soak(options: Options) -> Result<()> {
    println!("Soak with seed {}, {:?}", options.seed, options.enough);
    let mut harness = Harness::create().await?;
    let result = run(&mut harness, options).await;
    if let Err(cause) = &result {
        println!("FAILED: {cause:#}"); // First: what follows is long.
        harness.show().await;
    }
    let stays = result.is_err() && options.stays_on_failure;
    let cleaned = if stays { Ok(()) } else { harness.clean_up().await };
    result.with_context(|| format!("the soak with seed {} failed", options.seed)).and(cleaned)
}

async fn run(harness: &mut Harness, options: Options) -> Result<()> {
    let calm = Instant::now();
    sleep(CALM).await; // To compare with.
    harness.story.log(format!("undisturbed: {}", harness.of_late(calm)));
    make_changes(harness, options).await?;
    verdict::at_the_end(harness).await?;
    println!("\n{}", harness.summary());
    Ok(())
}

async fn make_changes(harness: &Harness, options: Options) -> Result<()> {
    let chaos = Chaos::of(harness);
    let (stop, stopped) = watch::channel(false);
    let mut drivers: Vec<Driver> = (1..)
        .zip(&harness.subjects)
        .map(|(number, subject)| Driver::of(harness, subject, &chaos, (options.seed, number)))
        .collect();
    let driven = async {
        let driven = try_join_all(drivers.iter_mut().map(|driver| driver.drive(stopped.clone())));
        let rage = async {
            chaos.rage(options, stopped.clone()).await;
            Ok(())
        };
        tokio::try_join!(driven, rage).map(drop)
    };
    tokio::select! {
        driven = driven => driven,
        Err(lost) = supervise(harness, options.enough, stop) => Err(lost),
    }
}

/// Prints progress, and stops everything when done. Fails if a request is lost, or if a change in progress
/// does not complete.
async fn supervise(harness: &Harness, enough: Enough, stop: watch::Sender<bool>) -> Result<Infallible> {
    let started = Instant::now();
    let mut listed = started;
    let mut stopped: Option<Instant> = None;
    let mut looks = interval(Duration::from_secs(1));
    loop {
        looks.tick().await;
        if harness.counts().1 > 0 {
            sleep(Duration::from_secs(5)).await; // What else is lost with it, and what comes after it.
            bail!(verdict::about_losses(harness));
        }
        if listed.elapsed() >= PROGRESS {
            harness.story.log(format!("{}; of late {}", harness.progress(), harness.of_late(listed)));
            listed = Instant::now();
        }
        match stopped {
            None if enough.is_reached(&harness.figures(), started) => {
                harness.story.log("done; waiting for changes in progress");
                stop.send_replace(true);
                stopped = Some(Instant::now());
            }
            Some(since) if since.elapsed() > LAST_CHANGES => {
                bail!("changes in progress did not complete within {LAST_CHANGES:?}")
            }
            _ => {}
        }
    }
}
