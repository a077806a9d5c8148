//! The endpoint for webhooks over real sockets, and what Laurel does about the webhooks in MLflow, on the wire.
//!
//! `endpoint` connects to it as MLflow does, and as others may; `registration` is a server that answers as MLflow does.

#![expect(clippy::disallowed_types, reason = "effects: connects to the endpoint")]
#![expect(clippy::disallowed_methods, reason = "effects: signs with the time of now")]

mod endpoint;
mod registration;
