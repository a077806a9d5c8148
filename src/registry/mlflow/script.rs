//! A server that is a list of answers: whatever a server may say gets through everything behind the network, without one.
//!
//! For the fuzzer, which asks a hundred thousand times a second; it is not in the program. Tests that are about the wire
//! itself have a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it serves tests alone")]

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use axum::http::Response;
use futures::FutureExt;
use reqwest::Request;
use url::Url;

use super::{Connection, Credentials, MlflowRegistry, http::Http};
use crate::api::model_registry::Stages;

/// The password that the client sends. It is not to be found in what it says.
pub const PASSWORD: &str = "correct-horse-battery";

/// What is behind the client.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<Talk>);

#[derive(Debug, Default)]
struct Talk {
    answers: VecDeque<Response<Vec<u8>>>,
    asked: Vec<Url>,
}

impl Script {
    fn talk_lock(&self) -> MutexGuard<'_, Talk> {
        self.0.lock().unwrap()
    }

    /// The next answer; `None` after the last one.
    pub(super) fn next(&self, request: &Request) -> Option<reqwest::Response> {
        let mut talk = self.talk_lock();
        talk.asked.push(request.url().clone());
        talk.answers.pop_front().map(reqwest::Response::from)
    }
}

/// A client whose server is a script.
#[derive(Debug)]
pub struct Scripted {
    registry: MlflowRegistry,
    script: Arc<Script>,
}

/// The client that all share; to make one costs more than all that is done with it.
static CLIENT: LazyLock<MlflowRegistry> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connection = Connection {
        url: "http://mlflow.test:5000/prefix".parse().unwrap(),
        workspace: None,
        stages: Stages::Ignore,
        credentials: Some(Credentials::Basic { username: "laurel".to_owned(), password: PASSWORD.into() }),
        ca_pem: None,
        timeout: Duration::from_secs(1),
    };
    MlflowRegistry::new(connection).unwrap()
});

impl Scripted {
    /// A client that works in this workspace.
    #[must_use]
    pub fn new(workspace: Option<&str>) -> Self {
        let script = Arc::new(Script::default());
        let http = Http::scripted(&CLIENT.http, workspace, script.clone());
        Self { registry: MlflowRegistry { http, stages: Stages::Ignore }, script }
    }

    /// Adds answers to the script.
    pub fn answer(&self, answers: impl IntoIterator<Item = Response<Vec<u8>>>) {
        self.script.talk_lock().answers.extend(answers);
    }

    /// What was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Url> {
        self.script.talk_lock().asked.clone()
    }

    /// Lets the client do something.
    ///
    /// # Panics
    /// Where the client waits for anything: a script answers at once.
    pub fn run<'a, F: Future>(&'a self, ask: impl FnOnce(&'a MlflowRegistry) -> F) -> F::Output {
        ask(&self.registry).now_or_never().expect("a script answers at once")
    }
}
