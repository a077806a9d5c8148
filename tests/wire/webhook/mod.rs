//! The webhook endpoint over real sockets, and the registration of webhooks in MLflow, on the wire.
//!
//! `endpoint` connects to it as MLflow does, and as others may; `registration` has a server that responds as
//! MLflow does.

mod endpoint;
mod registration;
