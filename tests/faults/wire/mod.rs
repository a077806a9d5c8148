//! The wire between one operator and its two servers, the API server and MLflow.
//!
//! ```text
//! proxy     between them; forwards everything, unless a rule changes it
//! rule      which requests get a fault, and which fault
//! journal   every request of both proxies, in one order
//! upstream  how a request reaches the server
//! answer    bodies that are forwarded, truncated or broken off
//! ```

mod answer;
mod journal;
mod proxy;
mod rule;
mod upstream;

pub(crate) use journal::{Exchange, Journal, Outcome, Server};
pub(crate) use proxy::Proxy;
pub(crate) use rule::{Placed, Rule, Violation};
pub(crate) use upstream::Upstream;
