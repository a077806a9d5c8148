//! Killed at every single write: whatever the operator has just done, or was about to do, another one finds
//! the way on.
//!
//! A story is told once without a crash. Then it is told anew for every write that the operator made in it,
//! each time on a fixture of its own: the operator is killed right after that write has reached the server,
//! before it hears the answer. Where the operator had waited before a write, it is killed right before that
//! write is sent on, too: the world has moved by then. Another operator is started, and it has to come to the
//! same end, by nothing but what is done without a crash; then it has to be quiet. What is never to happen
//! does not happen on the way, either.
//!
//! Once more the first operator is killed after its first write, the next one after its second, and so on:
//! the ways back from a crash are interrupted, too.
//!
//! ```text
//! stories  what is told: promotions, a rollback, failures, an alias that is moved, deletions
//! execution  how it is told: without a crash, with one, with many
//! kill     when the operator is killed, and how
//! picture  what a fixture looks like at the end, without times
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

/// What happens to a fixture.
trait Story {
    /// A short name, part of a namespace's.
    fn name(&self) -> &'static str;

    /// What is there before; the operator runs.
    async fn set(&self, fixture: &Fixture) -> Result<()>;

    /// What somebody does.
    async fn begin(&self, fixture: &Fixture) -> Result<()>;

    /// What it leads to; an error while it has not.
    fn ended(&self, picture: &Picture) -> Result<()>;
}

/// Tells a story without a crash, then with one at every write, then with many.
fn survives(story: &impl Story) {
    if let Err(error) = RUNTIME.block_on(tell(story)) {
        panic!("{}: {error:#}", story.name());
    }
}

async fn tell(story: &impl Story) -> Result<()> {
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
    // How often it tells on the way how far it is depends on how fast pods become ready; what it does, does
    // not.
    let effects = undisturbed.effects.len();
    ensure!(reached.len() >= effects, "only {} moments for {effects} effects", reached.len());
    Ok(())
}

/// Tells a story with a crash at every write; the moments that were reached, and what went wrong.
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
        // A story may have more writes the next time it is told.
        let goes_on = reached.contains(&Moment::After(longest));
        moments = goes_on.then_some(Moment::After(longest + 1)).into_iter().collect();
    }
    (reached, failures)
}
