//! The contract: the custom resources of `laurel.dev/v1alpha1` and the words they are written in.

pub mod names;
