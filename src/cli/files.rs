//! The manifests given with `-f`: files, directories with everything below them, and `-` for standard input.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::CliError;
use crate::offline::check::Manifests;

/// The extensions of manifests in a directory, as for kubectl.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// Reads all of them. A file given by two names is read once.
///
/// # Errors
/// When one cannot be read, or is not valid YAML.
pub(super) fn read(names: &[PathBuf]) -> Result<Manifests, CliError> {
    let mut manifests = Manifests::default();
    let mut seen = Vec::new();
    for name in names {
        if name.as_os_str() == "-" {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| CliError(format!("standard input: {error}")))?;
            manifests.read("-", &text).map_err(CliError)?;
            continue;
        }
        let mut files = Vec::new();
        find(name, true, &mut files)?;
        for file in files {
            let identity = file.canonicalize().unwrap_or_else(|_| file.clone());
            if seen.contains(&identity) {
                continue;
            }
            seen.push(identity);
            let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
            manifests.read(&file.display().to_string(), &text).map_err(CliError)?;
        }
    }
    Ok(manifests)
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError(format!("{}: {error}", path.display()))
}

fn find(path: &Path, is_named: bool, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let failed = |error: std::io::Error| unreadable(path, &error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        let is_manifest = path.extension().is_some_and(|it| EXTENSIONS.iter().any(|known| it == *known));
        if is_named || is_manifest {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    // A directory like .git has no manifests, and a symbolic link may lead in a circle.
    let is_hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let is_linked_dir = |path: &Path| path.is_symlink() && path.is_dir();
    paths
        .iter()
        .filter(|path| !is_hidden(path) && !is_linked_dir(path))
        .try_for_each(|path| find(path, false, files))
}
