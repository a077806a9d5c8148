//! Reads files of manifests, and separates our objects from others.

use serde::Deserialize;
use serde_json::Value;

use crate::{api::http_route::GATEWAY_GROUP, offline::admission::Judge};

/// One of our objects, as written in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The file.
    pub file: String,
    /// The object.
    pub object: Value,
}

impl Manifest {
    /// Returns its kind and name, with its namespace if it has one: `ModelAlias risk/fraud-champion`.
    #[must_use]
    pub fn title(&self) -> String {
        let kind = self.object["kind"].as_str().unwrap_or("?");
        let name = self.name().unwrap_or("(no name)");
        match self.namespace() {
            "" => format!("{kind} {name}"),
            namespace => format!("{kind} {namespace}/{name}"),
        }
    }

    /// Returns its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.object["metadata"]["name"].as_str()
    }

    /// Returns its namespace; empty if it has none and kubectl's applies.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// The contents of files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// Number of files.
    pub files: usize,
    /// Our objects.
    pub ours: Vec<Manifest>,
    /// Number of objects of other kinds.
    pub others: usize,
    /// The HTTPRoutes among these.
    pub routes: Vec<Manifest>,
}

impl Manifests {
    /// Adds the documents of a file, in YAML or JSON. Lists are expanded, as by kubectl.
    ///
    /// # Errors
    /// When it is not valid YAML.
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), String> {
        self.files += 1;
        let old = old_booleans(text);
        for document in serde_yaml::Deserializer::from_str(text) {
            // YAML's own value type rejects duplicate keys.
            let read =
                serde_yaml::Value::deserialize(document).map_err(|error| format!("{file}: {error}"))?;
            check_numbers(&read).map_err(|problem| format!("{file}: {problem}"))?;
            let mut object = serde_json::to_value(read).map_err(|error| format!("{file}: {error}"))?;
            as_booleans(&mut object, &old);
            self.add(file, object);
        }
        Ok(())
    }

    fn add(&mut self, file: &str, object: Value) {
        let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match object {
            Value::Null => {}
            Value::Object(mut list) if is_list && list.get("items").is_some_and(Value::is_array) => {
                let Some(Value::Array(items)) = list.remove("items") else { return };
                for item in items {
                    self.add(file, item);
                }
            }
            object if Judge::is_ours(&object) => {
                self.ours.push(Manifest { file: file.to_owned(), object });
            }
            object => {
                self.others += 1;
                let group = object["apiVersion"].as_str().and_then(|version| version.split('/').next());
                if object["kind"] == "HTTPRoute" && group == Some(GATEWAY_GROUP) {
                    self.routes.push(Manifest { file: file.to_owned(), object });
                }
            }
        }
    }
}

/// Unquoted words that kubectl, which reads YAML 1.1, treats as booleans.
const OLD_BOOLEANS: [(&str, bool); 8] = [
    ("y", true),
    ("yes", true),
    ("on", true),
    ("true", true),
    ("n", false),
    ("no", false),
    ("off", false),
    ("false", false),
];

/// Finds the words that a text contains without quotes, and never with quotes.
fn old_booleans(text: &str) -> Vec<(String, bool)> {
    let spellings = OLD_BOOLEANS.iter().flat_map(|(word, meaning)| {
        let capital = word[..1].to_uppercase() + &word[1..];
        [(*word).to_owned(), capital, word.to_uppercase()].map(|spelling| (spelling, *meaning))
    });
    let is_plain = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let before = text[..at].trim_end_matches([' ', '\t']);
            let after = text[at + word.len()..].trim_start_matches([' ', '\t']);
            let is_separate = before.len() < at || before.ends_with(['[', ',', '{', '\n']);
            is_separate
                && before.ends_with([':', '-', '[', ',', '{', '\n'])
                && (after.is_empty() || after.starts_with(['\r', '\n', '#', ',', ']', '}']))
        })
    };
    let is_quoted =
        |word: &str| ['"', '\''].iter().any(|quote| text.contains(&format!("{quote}{word}{quote}")));
    spellings.filter(|(word, _)| is_plain(word) && !is_quoted(word)).collect()
}

fn as_booleans(value: &mut Value, words: &[(String, bool)]) {
    match value {
        Value::String(text) => {
            if let Some((_, meaning)) = words.iter().find(|(word, _)| word == text) {
                *value = Value::Bool(*meaning);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| as_booleans(item, words)),
        Value::Object(fields) => fields.values_mut().for_each(|value| as_booleans(value, words)),
        _ => {}
    }
}

/// Rejects numbers that JSON does not have, which kubectl cannot send.
fn check_numbers(value: &serde_yaml::Value) -> Result<(), String> {
    match value {
        serde_yaml::Value::Number(number) if number.as_f64().is_some_and(|number| !number.is_finite()) => {
            Err(format!("{number} is not a valid number in JSON; quote it, or use another"))
        }
        serde_yaml::Value::Sequence(items) => items.iter().try_for_each(check_numbers),
        serde_yaml::Value::Mapping(fields) => fields.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn our_objects_are_found_among_others_and_in_lists() {
        let mut read = Manifests::default();
        let text = "
apiVersion: v1
kind: Secret
metadata: {name: s}
---
---
apiVersion: v1
kind: List
items:
  - {apiVersion: laurel.dev/v1alpha1, kind: ModelAlias, metadata: {name: a, namespace: risk}}
  - {apiVersion: apps/v1, kind: Deployment}
---
{\"apiVersion\": \"laurel.dev/v1\", \"kind\": \"Nonsense\"}
";
        read.read("x.yaml", text).unwrap();
        let titles: Vec<_> = read.ours.iter().map(Manifest::title).collect();
        assert_eq!(titles, ["ModelAlias risk/a", "Nonsense (no name)"]);
        assert_eq!((read.files, read.others), (1, 2));
    }

    #[test]
    fn words_that_kubectl_treats_as_booleans_are_booleans() {
        let of = |text: &str| {
            let mut read = Manifests::default();
            read.read("x.yaml", &format!("apiVersion: laurel.dev/v1alpha1\n{text}")).unwrap();
            read.ours[0].object["it"].clone()
        };
        assert_eq!(of("it: yes"), true);
        assert_eq!(of("it: {a: Off, b: [on, y]}"), serde_json::json!({ "a": false, "b": [true, true] }));
        assert_eq!(of("it: 'yes'"), "yes");
        assert_eq!(of("it: 'on' # not on"), "on");
        assert_eq!(of("it: yesterday"), "yesterday");
        assert_eq!(of("it: a yes"), "a yes");
    }

    #[test]
    fn an_error_in_yaml_names_the_file() {
        for text in ["a: {", "a: 1\na: 2", "a: .nan"] {
            let error = Manifests::default().read("x.yaml", text).unwrap_err();
            assert!(error.starts_with("x.yaml: "), "{error}");
        }
    }
}
