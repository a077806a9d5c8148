//! A way to the registry that can be closed: how one test's registry goes away while the others keep theirs.

use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::simulated::machine::free_port;

/// Passes connections on while it is open.
pub(crate) struct Gate {
    port: u16,
    to: u16,
    passing: Arc<Mutex<JoinSet<()>>>,
}

impl Gate {
    /// Opens a way to a port of this machine.
    pub(crate) async fn open(to: u16) -> Result<Self> {
        let gate = Self { port: free_port()?, to, passing: Arc::default() };
        gate.open_again().await?;
        Ok(gate)
    }

    /// Opens it again, at the same address.
    pub(crate) async fn open_again(&self) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.context("the gate's port")?;
        let to = self.to;
        self.lock().spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((mut inner, _)) = listener.accept().await {
                passing.spawn(async move {
                    if let Ok(mut outer) = TcpStream::connect(("127.0.0.1", to)).await {
                        // Either end may hang up as it likes.
                        let _ = copy_bidirectional(&mut inner, &mut outer).await;
                    }
                });
            }
        });
        Ok(())
    }

    /// Closes it: what passes is cut off, and new connections are refused.
    pub(crate) async fn close(&self) {
        let mut passing = std::mem::take(&mut *self.lock());
        passing.shutdown().await;
    }

    /// The registry's address by this way.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, JoinSet<()>> {
        self.passing.lock()
    }
}
