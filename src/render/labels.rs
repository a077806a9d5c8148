//! Labels and annotations of what Laurel makes.

/// The ModelAlias an object belongs to. With [`VERSION`] it selects the pods of one version.
pub const MODEL_ALIAS: &str = "laurel.dev/model-alias";
/// The version that a pod serves.
pub const VERSION: &str = "laurel.dev/version";
