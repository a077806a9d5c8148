//! Crash tests: the operator is killed at every single write, and the next one must complete the work.
//!
//! A story runs once without a crash. Then it runs again for every write of the operator, each time in a new
//! fixture: the operator is killed right after that write has reached the server, before it gets the
//! response. If the operator had paused before a write, it is also killed right before that write is
//! forwarded, because the cluster has moved by then. Another operator is started, and must reach the same
//! end, with no effects other than without a crash; then it must be quiet. The invariants must hold on the
//! way as well.
//!
//! Finally, the first operator is killed after its first write, the next one after its second, and so on, so
//! that recoveries are interrupted as well.
//!
//! ```text
//! stories    the stories: promotions, a rollback, failures, an alias that is moved, deletions
//! execution  runs of a story: without a crash, with one, with many
//! kill       when the operator is killed, and how
//! picture    what a fixture looks like at the end, without times
//! effects    what the operator did on the way
//! ```

mod effects;
mod execution;
mod kill;
mod picture;
mod stories;

use std::collections::BTreeSet;

use anyhow::{Error, Result, ensure};
use futures::{StreamExt, stream};

use self::{
    execution::{Undisturbed, many, once, undisturbed},
    kill::{Moment, moments},
    picture::Picture,
};
use crate::{fixture::Fixture, simulated::machine::RUNTIME};

/// What happens in a fixture.
trait Story {
    /// A short name, part of the namespace's name.
    fn name(&self) -> &'static str;

    /// Sets up the initial state; the operator is running.
    async fn set(&self, fixture: &Fixture) -> Result<()>;

    /// Triggers the story.
    async fn begin(&self, fixture: &Fixture) -> Result<()>;

    /// Checks that the end is reached; an error until then.
    fn ended(&self, picture: &Picture) -> Result<()>;
}

/// Runs a story without a crash, then with one at every write, then with many.
fn survives(story: &impl Story) {
    if let Err(error) = RUNTIME.block_on(run(story)) {
        panic!("{}: {error:#}", story.name());
    }
}

async fn run(story: &impl Story) -> Result<()> {
    let undisturbed = undisturbed(story).await?;
    let writes = undisturbed.writes.len();
    println!("{}: {writes} writes", story.name());
    for write in &undisturbed.writes {
        println!("  {write}");
    }
    let ((reached, mut failures), many) =
        tokio::join!(at_every_write(story, &undisturbed), many(story, &undisturbed));
    match many {
        Ok(lives) => println!("{}: {lives} operators in a row, each killed one write later", story.name()),
        Err(failure) => failures.push(failure),
    }
    println!("{}: killed at {} moments: {reached:?}", story.name(), reached.len());
    let reported: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    ensure!(reported.is_empty(), "{} go otherwise:\n{}", reported.len(), reported.join("\n\n"));
    // The number of status writes depends on how fast pods become ready; the effects do not. Some tags are no
    // moment of their own.
    let effects = undisturbed.effects.iter().filter(|effect| !effect.contains("set-tag")).count();
    ensure!(reached.len() >= effects, "only {} moments for {effects} effects", reached.len());
    Ok(())
}

/// Runs a story with a crash at every write. Returns the moments that were reached, and the errors.
async fn at_every_write(story: &impl Story, undisturbed: &Undisturbed) -> (BTreeSet<Moment>, Vec<Error>) {
    let (mut reached, mut failures) = (BTreeSet::new(), Vec::new());
    let mut moments = moments(&undisturbed.writes);
    while !moments.is_empty() {
        let longest = moments.iter().map(|moment| moment.number()).max().unwrap_or_default();
        let cases = stream::iter(moments).map(|moment| once(story, moment, undisturbed));
        for case in cases.buffer_unordered(usize::MAX).collect::<Vec<_>>().await {
            match case {
                Ok(moment) => reached.extend(moment),
                Err(failure) => failures.push(failure),
            }
        }
        // A story may have more writes in the next run.
        let goes_on = reached.contains(&Moment::After(longest));
        moments = goes_on.then_some(Moment::After(longest + 1)).into_iter().collect();
    }
    (reached, failures)
}
