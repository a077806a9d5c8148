//! The smoke test: the model's own input example, sent to one pod of a version before its first traffic.
//!
//! It runs beside the reconciles, so that nothing waits for it; its end wakes the ModelAlias. An example that cannot be read,
//! or a pod that does not answer, is tried again for a while and then counts as failed. While the registry is away, nothing
//! counts: that says nothing of the version.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    api::{condition::shortened, model_alias::AliasKey, names::Version},
    cluster::{Requeue, cache::Cache},
    decide::SmokeReport,
    resolve::{Model, Subject},
};

/// How long one request may take: a first prediction may load much.
const REQUEST_LIMIT: Duration = Duration::from_mins(1);
/// How often a try that got no answer is repeated, with [`PAUSE`] in between.
const TRIES: u32 = 15;
const PAUSE: Duration = Duration::from_secs(2);

type TestKey = (String, Version);

/// The smoke tests that run and their ends. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SmokeTests {
    pods: PodAccess,
    requeue: Requeue,
    reports: Arc<Mutex<HashMap<TestKey, SmokeReport>>>,
}

/// How pods are reached.
#[derive(Clone, Debug)]
pub struct PodAccess {
    /// Where they are.
    pub cluster: Arc<Cache>,
    /// The client for them: no proxy, no redirects.
    pub http: reqwest::Client,
}

/// One test.
struct Test {
    key: TestKey,
    alias: AliasKey,
    version: Version,
    model: Model,
    port: u16,
    tests: SmokeTests,
}

enum Try {
    Ended(SmokeReport),
    /// There was no answer.
    Again(String),
    /// The registry is away.
    Unread(String),
}

impl SmokeTests {
    /// None yet.
    #[must_use]
    pub fn new(pods: PodAccess, requeue: Requeue) -> Self {
        Self { pods, requeue, reports: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TestKey, SmokeReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the test of a version stands; `uid` is the ModelAlias's.
    #[must_use]
    pub fn report(&self, uid: &str, version: Version) -> Option<SmokeReport> {
        self.lock().get(&(uid.to_owned(), version)).cloned()
    }

    /// Forgets a version's test, because its pods are made anew.
    pub fn forget(&self, uid: &str, version: Version) {
        self.lock().remove(&(uid.to_owned(), version));
    }

    /// Forgets all tests of a ModelAlias that is gone.
    pub fn forget_all(&self, uid: &str) {
        self.lock().retain(|(other, _), _| other != uid);
    }

    /// Begins a test, unless one is known already.
    pub fn start(&self, subject: &Subject<'_>, model: &Model, version: Version) {
        let key = (subject.uid.clone(), version);
        let Some(serving) = &subject.spec().serving else { return };
        {
            let mut reports = self.lock();
            if reports.contains_key(&key) {
                return;
            }
            reports.insert(key.clone(), SmokeReport::Running(None));
        }
        let test = Test {
            key,
            alias: subject.key.clone(),
            version,
            model: model.clone(),
            port: serving.port,
            tests: self.clone(),
        };
        tokio::spawn(test.run());
    }
}

impl Test {
    async fn run(self) {
        let mut seen = String::new();
        let mut tries = 0;
        while tries < TRIES && self.is_needed() {
            let (why, counts) = match self.once().await {
                Try::Ended(report) => return self.end(report),
                Try::Again(why) => (why, true),
                Try::Unread(why) => (why, false),
            };
            if self.model.registry.is_retired() {
                return self.begin_again();
            }
            self.set_report(SmokeReport::Running(Some(why.clone())));
            seen = why;
            tries += u32::from(counts);
            tokio::time::sleep(PAUSE).await;
        }
        self.end(SmokeReport::Failed(seen));
    }

    /// Whether it was not forgotten.
    fn is_needed(&self) -> bool {
        self.tests.lock().contains_key(&self.key)
    }

    /// The registry has other settings now: the next pass begins another test.
    fn begin_again(&self) {
        self.tests.lock().remove(&self.key);
        self.tests.requeue.alias(&self.alias);
    }

    /// That the example could not be read.
    fn unread(&self, why: String) -> Try {
        if matches!(self.model.registry.health().0, Some(Ok(()))) {
            Try::Again(why)
        } else {
            Try::Unread(why)
        }
    }

    /// Writes down how the test stands, unless it was forgotten meanwhile.
    fn set_report(&self, report: SmokeReport) {
        if let Some(known) = self.tests.lock().get_mut(&self.key) {
            *known = report;
        }
    }

    fn end(&self, report: SmokeReport) {
        self.set_report(report);
        self.tests.requeue.alias(&self.alias);
    }

    async fn once(&self) -> Try {
        let client = match self.model.registry.client() {
            Ok(client) => client,
            Err(set_report) => return self.unread(set_report.message),
        };
        let example = match client.input_example(&self.model.name, self.version).await {
            Ok(Some(example)) => example,
            Ok(None) => return Try::Ended(SmokeReport::NoInputExample),
            Err(error) => {
                return self.unread(format!("the input example cannot be read from the registry: {error}"));
            }
        };
        let Some(address) = self.tests.pods.cluster.ready_pod(&self.alias, self.version) else {
            return Try::Again("the version has no ready pod any more".to_owned());
        };
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        let url = format!("http://{host}:{}/invocations", self.port);
        let request = self
            .tests
            .pods
            .http
            .post(&url)
            .header("content-type", "application/json")
            .body(example.body)
            .timeout(REQUEST_LIMIT);
        match request.send().await {
            Ok(response) if response.status().is_success() => Try::Ended(SmokeReport::Passed),
            Ok(response) => {
                let status = response.status();
                let body = response.text().await.unwrap_or_default();
                Try::Ended(SmokeReport::Failed(format!(
                    "POST /invocations answered {status}: {}",
                    shortened(body.trim(), 300)
                )))
            }
            Err(error) => Try::Again(format!(
                "POST {url} got no answer: {error}; does a NetworkPolicy keep Laurel from the pods?"
            )),
        }
    }
}
