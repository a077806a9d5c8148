//! Whether enough is known of the cluster to decide anything.

use std::sync::{Mutex, PoisonError};

/// What has still to be read from the cluster before anything may be decided.
#[derive(Debug, Default)]
pub struct Readiness {
    waiting: Mutex<Vec<&'static str>>,
    all_read: tokio::sync::watch::Sender<bool>,
}

impl Readiness {
    /// Nothing is decided until `what` has been read.
    pub fn expect(&self, what: &'static str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// `what` has been read.
    pub fn read(&self, what: &'static str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| *other != what);
        if waiting.is_empty() {
            self.all_read.send_replace(true);
        }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves once everything has been read.
    pub async fn reached(&self) {
        let mut all_read = self.all_read.subscribe();
        // The sender lives as long as this object does.
        let _ = all_read.wait_for(|read| *read).await;
    }
}
