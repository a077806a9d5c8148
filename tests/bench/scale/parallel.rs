//! Many requests, a bounded number at a time.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};

/// As many as Laurel reconciles at a time.
pub(crate) const IN_FLIGHT: usize = 32;

/// Does `work` for each item, [`IN_FLIGHT`] at a time. The first failure ends it.
pub(crate) async fn each<T, W>(items: impl IntoIterator<Item = T>, work: impl FnMut(T) -> W) -> Result<()>
where
    W: Future<Output = Result<()>>,
{
    stream::iter(items).map(work).buffer_unordered(IN_FLIGHT).try_collect().await
}
