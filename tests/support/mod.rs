//! Shared by the demo and the end-to-end tests: clients of the cluster, of MLflow and of serving pods.
//!
//! ```text
//! cluster  which cluster, its clients, kubectl, namespaces of our own
//! watch    everything a watch reported, with the moment it was seen: waiting, and measuring afterwards
//! alias    a ModelAlias: change it, wait until it has settled, read when what happened
//! pods     which pods there were, and how long they took to start
//! mlflow   the registry's REST API, as another user of it
//! service  how requests reach a Service from here
//! load     requests at a constant rate
//! ```

pub(crate) mod alias;
pub(crate) mod cluster;
pub(crate) mod load;
pub(crate) mod mlflow;
pub(crate) mod pods;
pub(crate) mod service;
pub(crate) mod watch;
