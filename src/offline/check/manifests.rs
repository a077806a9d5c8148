//! Files of manifests: what is ours in them, and what is not.

use serde::Deserialize;
use serde_json::Value;

use crate::offline::admission::Judge;

/// An object of ours, as it stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The file.
    pub file: String,
    /// The object.
    pub object: Value,
}

impl Manifest {
    /// Its kind and name, with its namespace where it has one: `ModelAlias risk/fraud-champion`.
    #[must_use]
    pub fn title(&self) -> String {
        let kind = self.object["kind"].as_str().unwrap_or("?");
        let name = self.name().unwrap_or("(without a name)");
        match self.namespace() {
            "" => format!("{kind} {name}"),
            namespace => format!("{kind} {namespace}/{name}"),
        }
    }

    /// Its name, where it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.object["metadata"]["name"].as_str()
    }

    /// Its namespace; empty where it names none and takes the one that kubectl is told.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// What was read from files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// How many files.
    pub files: usize,
    /// The objects of ours.
    pub ours: Vec<Manifest>,
    /// How many objects of other kinds.
    pub others: usize,
}

impl Manifests {
    /// Reads the documents of one more file, in YAML or JSON. Lists are taken apart, as kubectl does.
    ///
    /// # Errors
    /// Where it is no YAML, in one sentence.
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), String> {
        self.files += 1;
        let old = old_booleans(text);
        for document in serde_yaml::Deserializer::from_str(text) {
            // By way of YAML's own value, which refuses a key that is there twice.
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
            _ => self.others += 1,
        }
    }
}

/// What kubectl, which reads YAML 1.1, takes for a boolean where it is not quoted.
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

/// Those of these words that stand in a text without quotes, and never with.
fn old_booleans(text: &str) -> Vec<(String, bool)> {
    let spellings = OLD_BOOLEANS.iter().flat_map(|(word, meaning)| {
        let capital = word[..1].to_uppercase() + &word[1..];
        [(*word).to_owned(), capital, word.to_uppercase()].map(|spelling| (spelling, *meaning))
    });
    let is_plain = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let before = text[..at].trim_end_matches([' ', '\t']);
            let after = text[at + word.len()..].trim_start_matches([' ', '\t']);
            let is_apart = before.len() < at || before.ends_with(['[', ',', '{', '\n']);
            is_apart
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

/// JSON has no such numbers, so kubectl cannot send them.
fn check_numbers(value: &serde_yaml::Value) -> Result<(), String> {
    match value {
        serde_yaml::Value::Number(number) if number.as_f64().is_some_and(|number| !number.is_finite()) => {
            Err(format!("{number} is a number that JSON cannot write; quote it, or write another"))
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
    fn ours_are_found_among_others_also_in_lists() {
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
        assert_eq!(titles, ["ModelAlias risk/a", "Nonsense (without a name)"]);
        assert_eq!((read.files, read.others), (1, 2));
    }

    #[test]
    fn words_that_kubectl_takes_for_booleans_are_booleans() {
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
    fn what_is_no_yaml_is_told_with_its_file() {
        for text in ["a: {", "a: 1\na: 2", "a: .nan"] {
            let error = Manifests::default().read("x.yaml", text).unwrap_err();
            assert!(error.starts_with("x.yaml: "), "{error}");
        }
    }
}
