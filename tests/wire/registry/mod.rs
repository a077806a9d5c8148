//! What the MLflow backend sends and how it understands what comes back, on the wire.
//!
//! `support` has the server to talk to; `reading`, `metrics`, `writing` and `example` match requests exactly;
//! `errors` is the table of answers that are no answer; `broken` speaks raw TCP; `tls` and `connection` are
//! about getting there.

mod broken;
mod connection;
mod errors;
mod example;
mod logged_model;
mod metrics;
mod reading;
mod support;
mod tls;
mod writing;
