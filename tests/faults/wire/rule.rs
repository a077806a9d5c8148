//! Which requests meet a fault, and which fault.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, anyhow};
use futures::future::BoxFuture;
use hyper::Method;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::journal::Exchange;

type Alteration = Arc<dyn Fn(u16, Vec<u8>) -> (u16, Vec<u8>) + Send + Sync>;
type Hook = Arc<dyn Fn(Exchange) -> BoxFuture<'static, ()> + Send + Sync>;

/// What happens to a request.
#[derive(Clone)]
pub(crate) enum Violation {
    /// It is answered in the server's place and does not reach the server.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Headers beside it.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
    /// It reaches the server this much later, also when the operator has given up by then.
    Delay(Duration),
    /// It does not reach the server and is never answered.
    Hang,
    /// It does not reach the server; the connection is reset.
    Reset,
    /// The server does what is asked, but its answer is lost: the connection is reset.
    LoseAnswer,
    /// The server does what is asked, but its answer never comes.
    HangAnswer,
    /// The answer begins, and then nothing more of it comes: a watch that goes stale, until it is broken off.
    Silence,
    /// The connection breaks after so many bytes of the answer's body.
    CutBody(usize),
    /// The answer is made anew from the server's own: its status and its body; that of a watch line by line.
    Alter(Alteration),
    /// This happens before the request is sent on. When the proxy refuses connections afterwards, it is not
    /// sent on.
    Before(Hook),
    /// This happens after the server has answered, before the answer is passed on.
    After(Hook),
}

impl Violation {
    /// An answer without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: String::new() }
    }

    /// An answer of the API server: a `Status` with this code and reason.
    pub(crate) fn kubernetes(code: u16, reason: &str, message: &str) -> Self {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        Self::json(code, &body)
    }

    /// An answer in JSON.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self::Answer { status, headers, body: body.to_string() }
    }

    /// Another header for an answer.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    /// Does something before the request is sent on.
    pub(crate) fn before<F>(hook: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::Before(Arc::new(move |exchange| Box::pin(hook(exchange))))
    }

    /// Does something after the server has answered, before the answer is passed on.
    pub(crate) fn after<F>(hook: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::After(Arc::new(move |exchange| Box::pin(hook(exchange))))
    }

    /// Makes the server's answer anew, from its status and its body; that of a watch line by line.
    pub(crate) fn alter(alter: impl Fn(u16, Vec<u8>) -> (u16, Vec<u8>) + Send + Sync + 'static) -> Self {
        Self::Alter(Arc::new(alter))
    }
}

/// Lets requests meet a fault.
pub(crate) struct Rule {
    wanted: Box<dyn Fn(&Exchange) -> bool + Send + Sync>,
    skip: usize,
    times: usize,
    violation: Violation,
}

impl Rule {
    /// For the requests that `wanted` holds for.
    pub(crate) fn when(
        wanted: impl Fn(&Exchange) -> bool + Send + Sync + 'static,
        violation: Violation,
    ) -> Self {
        Self { wanted: Box::new(wanted), skip: 0, times: usize::MAX, violation }
    }

    /// For every request.
    pub(crate) fn always(violation: Violation) -> Self {
        Self::when(|_| true, violation)
    }

    /// For every write.
    pub(crate) fn writes(violation: Violation) -> Self {
        Self::when(|exchange| exchange.write.is_some(), violation)
    }

    /// For the requests of a method whose path (with its query) contains `part`.
    pub(crate) fn on(method: Method, part: &str, violation: Violation) -> Self {
        let part = part.to_owned();
        Self::when(move |exchange| exchange.method == method && exchange.path.contains(&part), violation)
    }

    /// For watches whose path contains `part`.
    pub(crate) fn watches(part: &str, violation: Violation) -> Self {
        let part = part.to_owned();
        Self::when(move |exchange| exchange.is_watch() && exchange.path.contains(&part), violation)
    }

    /// Only for the n-th of them, from 1.
    pub(crate) fn nth(self, n: usize) -> Self {
        Self { skip: n - 1, times: 1, ..self }
    }

    /// Not for the first ones.
    pub(crate) fn skip(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// At most so often.
    pub(crate) fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }
}

/// A rule in force. It stays in force when this is dropped.
#[derive(Clone)]
pub(crate) struct Placed(Arc<InForce>);

struct InForce {
    rule: Rule,
    met: AtomicUsize,
    cleaned: watch::Sender<usize>,
}

impl Placed {
    pub(super) fn new(rule: Rule) -> Self {
        Self(Arc::new(InForce { rule, met: AtomicUsize::new(0), cleaned: watch::Sender::new(0) }))
    }

    /// Counts a request, if it is for this rule; whether it is to meet the fault.
    pub(super) fn meets(&self, exchange: &Exchange) -> bool {
        let InForce { rule, met, .. } = &*self.0;
        (rule.wanted)(exchange) && {
            let before = met.fetch_add(1, Ordering::Relaxed);
            before >= rule.skip && before - rule.skip < rule.times
        }
    }

    /// The fault, for a request that meets it.
    pub(super) fn strike(&self) -> Violation {
        self.0.cleaned.send_modify(|cleaned| *cleaned += 1);
        self.0.rule.violation.clone()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many requests have met the fault so far.
    pub(crate) fn hits(&self) -> usize {
        *self.0.cleaned.borrow()
    }

    /// Waits until so many requests have met the fault.
    pub(crate) async fn until_struck(&self, times: usize, deadline: Duration) -> Result<()> {
        let mut cleaned = self.0.cleaned.subscribe();
        let enough = cleaned.wait_for(|cleaned| *cleaned >= times);
        let late =
            |_| anyhow!("the fault was met {} times within {deadline:?}, and not {times} times", self.hits());
        timeout(deadline, enough).await.map_err(late)??;
        Ok(())
    }
}
