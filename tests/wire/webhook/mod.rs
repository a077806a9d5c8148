//! The endpoint for webhooks over real sockets, and what Laurel does about the webhooks in MLflow, on the
//! wire.
//!
//! `endpoint` connects to it as MLflow does, and as others may; `registration` is a server that answers as
//! MLflow does.

mod endpoint;
mod registration;
