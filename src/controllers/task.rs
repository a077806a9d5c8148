//! A reconcile in a task of its own, so that the reconciles of one kind share all cores.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

/// A task that ends with whoever waits for it: a controller that is dropped leaves no reconcile running.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    /// Begins it, in the current span.
    pub(super) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work.in_current_span()))
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Barrier},
        time::Duration,
    };

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tasks_of_one_waiter_run_at_the_same_time() {
        let both = Arc::new(Barrier::new(2));
        // Without a second thread, the first would wait for the second for ever.
        let work = |both: Arc<Barrier>| async move { both.wait().is_leader() };
        let (one, other) = (Task::spawn(work(both.clone())), Task::spawn(work(both)));
        let leaders = futures::future::join(one, other).await;
        assert!(leaders.0.unwrap() != leaders.1.unwrap());
    }

    #[tokio::test]
    async fn a_task_ends_with_its_waiter() {
        let (alive, ended) = oneshot::channel::<()>();
        let task = Task::spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(task);
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert!(ended.is_ok_and(|ended| ended.is_err()), "it still runs");
    }

    #[tokio::test]
    async fn a_panic_reaches_the_waiter() {
        let task = Task::spawn(async { panic!("a defect") });
        assert!(task.await.is_err_and(|error| error.is_panic()));
    }
}
