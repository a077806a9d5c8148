//! The MLflow backend's requests, and how it parses responses, on the wire.
//!
//! `support` has the server; `reading`, `metrics`, `writing` and `example` match requests exactly; `errors`
//! is the table of error responses; `broken` uses raw TCP; `tls` and `connection` test connecting; `limits`
//! counts what a server is asked at a time.

mod broken;
mod connection;
mod errors;
mod example;
mod limits;
mod logged_model;
mod metrics;
mod reading;
mod support;
mod tls;
mod writing;
