//! Where a test plays: a place of its own, with the operator that all tests share.

use std::{ops::Deref, time::Duration};

use anyhow::Result;
use tokio::time::Instant;

pub(crate) use crate::simulated::place::PATIENCE;
use crate::{
    harness::{PURPOSE, World},
    simulated::{
        machine::RUNTIME,
        place::{Place, reported},
    },
};

/// The longest that one test may take, without its end. Those that need the operator for themselves wait for
/// each other.
const LONGEST: Duration = Duration::from_mins(5);

/// Where a test plays.
pub(crate) struct Fixture {
    pub(crate) world: &'static World,
    place: Place,
}

impl Deref for Fixture {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// Plays a test, and cleans up however it ends.
pub(crate) fn run(name: &str, story: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    run_for(LONGEST, name, story);
}

/// The same, for one that may take longer.
pub(crate) fn run_for(longest: Duration, name: &str, story: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    RUNTIME.block_on(async {
        let world = World::get().await.unwrap_or_else(|error| panic!("{error:#}"));
        let fixture = Fixture::create(world, name).await.unwrap_or_else(|error| panic!("{error:#}"));
        let started = Instant::now();
        let mut result = reported(story(&fixture), longest).await;
        if result.is_ok() {
            result = fixture.audit.verdict().await.map(drop);
        }
        println!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        if result.is_err() {
            fixture.show().await;
            println!("--- the operator\n{}", world.log_about(&fixture.namespace));
        }
        let cleaned = fixture.clean_up().await;
        if let Err(error) = result.and(cleaned) {
            panic!("{error:#}");
        }
    });
}

impl Fixture {
    async fn create(world: &'static World, name: &str) -> Result<Self> {
        // A name of its own in each run: nothing waits until the namespace of the run before is gone.
        let namespace = format!("cp-{name}-{}", std::process::id());
        let place = Place::create(&world.cluster, &world.mlflow, namespace, PURPOSE).await?;
        Ok(Self { world, place })
    }
}
