//! `helm`, `kubectl` and the objects that they print.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde::Deserialize;
use serde_json::Value;

pub(crate) const NAMESPACE: &str = "laurel-system";
pub(crate) const ALL_VALUES: &str = "tests/distribution/chart/all-values.yaml";

/// A file of this repository.
pub(crate) fn file(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = file(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the `.yaml` files in a folder, sorted.
pub(crate) fn yaml_files(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(file(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    names.sort();
    names
}

/// The YAML documents in `text`, without empty ones.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{error} in:\n{text}")))
        .filter(|document| !document.is_null())
        .collect()
}

fn run(variable: &str, name: &str, arguments: &[&str]) -> Output {
    let program = env::var_os(variable).unwrap_or_else(|| OsString::from(name));
    Command::new(&program).args(arguments).current_dir(file("")).output().unwrap_or_else(|error| {
        panic!("cannot run {}: {error}; put {name} on the PATH or name it in {variable}", program.display())
    })
}

pub(crate) fn helm(arguments: &[&str]) -> Output {
    run("HELM", "helm", arguments)
}

/// Returns the output of a successful command.
pub(crate) fn printed(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of an installation.
#[derive(Debug)]
pub(crate) struct Objects(pub(crate) Vec<Value>);

impl Objects {
    /// Renders the chart with these arguments to `helm template`.
    pub(crate) fn of_chart(arguments: &[&str]) -> Self {
        let fixed = ["template", "laurel", "charts/laurel", "--namespace", NAMESPACE];
        Self(documents(&printed(helm(&[&fixed, arguments].concat()))))
    }

    /// Builds a kustomize folder.
    pub(crate) fn of_kustomization(folder: &str) -> Self {
        Self(documents(&printed(run("KUBECTL", "kubectl", &["kustomize", folder]))))
    }

    pub(crate) fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// Returns the only object of a kind.
    pub(crate) fn one<'a>(&'a self, kind: &'a str) -> &'a Value {
        let found: Vec<_> = self.all(kind).collect();
        assert_eq!(found.len(), 1, "objects of kind {kind}");
        found[0]
    }

    /// Returns an object by its kind and name.
    pub(crate) fn named<'a>(&'a self, kind: &'a str, name: &str) -> &'a Value {
        self.all(kind).find(|object| object["metadata"]["name"] == name).expect(name)
    }

    /// Returns the kinds of all objects, sorted.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<_> = self.0.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        kinds
    }

    /// Returns the operator's pod template.
    pub(crate) fn pod_spec(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }
}
