//! Shared by the tests on a control plane with simulated pods: `control_plane` has one operator for all its
//! tests, `faults` has one for each.
//!
//! ```text
//! machine  this machine: the checkout, free ports, who may run beside whom, the CRDs in the cluster
//! process  a child process that ends with the tests
//! mlflow   a real MLflow server as a process
//! runs     its runs, as a training job writes them
//! place    the place of a test: a namespace, a model, and a ModelAlias `champion`
//! look     what the cluster shows of a place
//! audit    an independent watch: no Service is ever written to where no pod is ready
//! hostile  valid and invalid objects of our kinds, generated from the CRDs' schemas
//! ```

pub(crate) mod audit;
pub(crate) mod hostile;
pub(crate) mod look;
pub(crate) mod machine;
pub(crate) mod mlflow;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod runs;
