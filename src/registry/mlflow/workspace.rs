//! Whether the server has workspaces.
//!
//! MLflow before 3.10 ignores the header that names a workspace, and answers from, and writes to, what all
//! teams share. So before a client uses a workspace, it asks the server, as MLflow's own client does.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use super::{
    answer::ErrorAnswer,
    any_model,
    http::{Call, Http},
    wire::ModelPage,
};
use crate::registry::RegistryError;

/// What a server reports about itself. The second name is that of its first releases with workspaces.
const ENDPOINTS: [&str; 2] = ["server-info", "server-features"];

/// Whether the server has reported that it has workspaces. This is not asked again: a downgraded server
/// could not open its database.
#[derive(Debug, Default)]
pub(super) struct Confirmed(AtomicBool);

impl Confirmed {
    /// For a server that need not be asked.
    #[cfg(any(test, fuzzing))]
    pub(super) fn yes() -> Self {
        Self(AtomicBool::new(true))
    }
}

#[derive(Deserialize)]
struct ServerInfo {
    #[serde(default)]
    workspaces_enabled: bool,
}

impl Http {
    /// Checks that the server has workspaces, if one is configured.
    pub(super) async fn require_workspaces(&self, confirmed: &Confirmed) -> Result<(), ErrorAnswer> {
        let Some(workspace) = self.workspace() else { return Ok(()) };
        if confirmed.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.has_workspaces().await? {
            confirmed.0.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let detail = "the server has no workspaces, which need MLflow 3.10 or newer and --enable-workspaces";
        Err(RegistryError::WorkspaceRefused { workspace: workspace.to_owned(), detail: detail.to_owned() }
            .into())
    }

    async fn has_workspaces(&self) -> Result<bool, ErrorAnswer> {
        for endpoint in ENDPOINTS {
            match self.ask_unchecked::<ServerInfo>(&Call::info(endpoint)).await {
                Ok(info) => return Ok(info.workspaces_enabled),
                // The workspace is missing, so the server knows what one is.
                Err(ErrorAnswer::Absent { .. }) => return Ok(true),
                Err(ErrorAnswer::Failed(RegistryError::NotARegistry { detail, .. }))
                    if detail.starts_with("HTTP 404") => {}
                Err(error) => return Err(error),
            }
        }
        // If there is no registry at all, that is the cause. Nothing is used of this answer.
        self.ask_unchecked::<ModelPage>(&any_model()).await.map(|_| false)
    }
}
