//! What the tests on a control plane with simulated pods share: `control_plane` has one operator for all its
//! tests, `violations` has one for each.
//!
//! ```text
//! machine  this machine: the checkout, free ports, who may run beside whom, the CRDs in the cluster
//! process  a child process that ends with the tests
//! mlflow   a real MLflow server as a process
//! runs     its runs, as a training job writes them
//! place    where a test plays: a namespace and a model of its own, and a ModelAlias `champion`
//! look     what the cluster shows of a place
//! audit    an independent watch: no Service is ever written to where no pod is ready
//! hostile  objects of our kinds, right and wrong, made from the CRDs' own schemas
//! ```

pub(crate) mod audit;
pub(crate) mod hostile;
pub(crate) mod look;
pub(crate) mod machine;
pub(crate) mod mlflow;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod runs;
