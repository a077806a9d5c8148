//! A server that is a list of answers: it tests the client with any response, without a network.
//!
//! It is for the fuzzer, which sends a hundred thousand requests a second, and not part of the program. Tests
//! of the wire protocol use a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "used by tests only")]

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::http::Response;
use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use reqwest::Request;
use url::Url;

use super::{Connection, Credentials, MlflowRegistry, http::Http};
use crate::{
    api::model_registry::Stages,
    fence::Fence,
    registry::limiter::{Limiter, Limits, Waits},
};

/// The password that the client sends. It must not appear in any message.
pub const PASSWORD: &str = "correct-horse-battery";

/// The server behind the client.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<Exchange>);

#[derive(Debug, Default)]
struct Exchange {
    answers: VecDeque<Response<Vec<u8>>>,
    asked: Vec<Url>,
}

impl Script {
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock()
    }

    /// Returns the next answer; `None` after the last one.
    pub(super) fn next(&self, request: &Request) -> Option<reqwest::Response> {
        let mut exchange = self.exchange();
        exchange.asked.push(request.url().clone());
        exchange.answers.pop_front().map(reqwest::Response::from)
    }
}

/// A client whose server is a script.
#[derive(Debug)]
pub struct Scripted {
    registry: MlflowRegistry,
    script: Arc<Script>,
}

/// The shared client: creating one costs more than using it.
static CLIENT: LazyLock<MlflowRegistry> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connection = Connection {
        url: "http://mlflow.test:5000/prefix".parse().unwrap(),
        workspace: None,
        stages: Stages::Ignore,
        credentials: Some(Credentials::Basic { username: "laurel".to_owned(), password: PASSWORD.into() }),
        ca_pem: None,
        timeout: Duration::from_secs(1),
        fence: Fence::default(),
        limiter: Limiter::new(Limits::NONE, Waits::default()),
    };
    MlflowRegistry::new(connection).unwrap()
});

impl Scripted {
    /// Creates a client for this workspace.
    #[must_use]
    pub fn new(workspace: Option<&str>) -> Self {
        let script = Arc::new(Script::default());
        let http = Http::scripted(&CLIENT.http, workspace, script.clone());
        Self { registry: MlflowRegistry { http, stages: Stages::Ignore, lists: Arc::default() }, script }
    }

    /// Adds answers to the script.
    pub fn answer(&self, answers: impl IntoIterator<Item = Response<Vec<u8>>>) {
        self.script.exchange().answers.extend(answers);
    }

    /// Returns the URLs requested so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Url> {
        self.script.exchange().asked.clone()
    }

    /// Runs requests of the client.
    ///
    /// # Panics
    /// When the client waits for anything: a script answers at once.
    pub fn run<'a, F: Future>(&'a self, ask: impl FnOnce(&'a MlflowRegistry) -> F) -> F::Output {
        ask(&self.registry).now_or_never().expect("a script answers at once")
    }
}
