//! `laurel crds`: the custom resource definitions as YAML.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;

use super::{CliError, ExitStatus};
use crate::api;

/// Options of `laurel crds`.
#[derive(Clone, Debug, Args)]
pub struct CrdsOptions {
    /// Write each definition to its own file in this directory instead of printing them. May be repeated.
    #[arg(long = "output-dir", value_name = "DIR")]
    pub output_dirs: Vec<PathBuf>,
}

impl CrdsOptions {
    /// Prints the custom resource definitions as YAML documents to `out`, or writes them to the directories.
    ///
    /// # Errors
    /// When they cannot be printed or written; the message names the file.
    pub fn run(&self, mut out: impl Write) -> Result<ExitStatus, CliError> {
        let crds = api::custom_resource_definitions();
        if self.output_dirs.is_empty() {
            print(&crds, &mut out).map_err(CliError::because)?;
        }
        for dir in &self.output_dirs {
            write_each(&crds, dir)?;
        }
        Ok(ExitStatus::Good)
    }
}

fn print(crds: &[CustomResourceDefinition], out: &mut impl Write) -> io::Result<()> {
    for crd in crds {
        write!(out, "---\n{}", yaml(crd)?)?;
    }
    out.flush()
}

fn write_each(crds: &[CustomResourceDefinition], dir: &Path) -> Result<(), CliError> {
    let at = |path: &Path, error| CliError(format!("{}: {error}", path.display()));
    fs::create_dir_all(dir).map_err(|error| at(dir, error))?;
    for crd in crds {
        let file = dir.join(format!("{}.yaml", crd.name_any()));
        yaml(crd).and_then(|yaml| fs::write(&file, yaml)).map_err(|error| at(&file, error))?;
    }
    Ok(())
}

fn yaml(crd: &CustomResourceDefinition) -> io::Result<String> {
    serde_yaml::to_string(crd).map_err(io::Error::other)
}
