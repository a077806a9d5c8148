//! Texts as names of everything: accepted names are valid wherever they are used, and different names stay
//! different.

use std::{cell::RefCell, collections::BTreeSet};

use serde_json::{Value, json};

use super::schema::Admission;
use crate::{
    api::{
        custom_resource_definitions,
        names::{
            AliasName, MODEL_ALIAS_NAME_MAX, ModelName, ModelUri, Version, deployment_name, label_value,
        },
    },
    registry::{Registry, mlflow::script::Scripted},
    render::labels,
};

/// The separator between two texts; names with any other character are tried.
const SEPARATOR: char = '\u{1e}';
/// Every pair is compared.
const TEXTS_MAX: usize = 8;

/// Checks each text as each kind of name, and each pair.
pub fn names(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let texts: BTreeSet<&str> = input.split(SEPARATOR).take(TEXTS_MAX).collect();
    for text in &texts {
        SCHEMAS.with_borrow(|schemas| schemas.agree(text));
        let _ = text.parse::<ModelUri>();
        assert!(is_label_value(&label_value(text)), "{text:?} gives the label {:?}", label_value(text));
    }
    let labels: BTreeSet<String> = texts.iter().map(|text| label_value(text)).collect();
    assert_eq!(labels.len(), texts.len(), "two texts with one label: {texts:?}");
    deployments(&texts);
    filter(&texts.iter().filter_map(|text| text.parse().ok()).collect());
}

thread_local! {
    static SCHEMAS: RefCell<Schemas> = RefCell::new(Schemas::new());
}

/// The fields of the API that contain names.
struct Schemas {
    model: Admission,
    alias: Admission,
    version: Admission,
}

impl Schemas {
    fn new() -> Self {
        Self {
            model: field("RegisteredModel", "modelName"),
            alias: field("ModelAlias", "alias"),
            version: field("ModelAlias", "version"),
        }
    }

    /// What the API server accepts can be parsed, and it rejects everything else.
    fn agree(&self, text: &str) {
        let admits = |admission: &Admission| admission.admit(json!(text)).is_ok();
        assert_eq!(admits(&self.model), text.parse::<ModelName>().is_ok(), "as a model's name: {text:?}");
        assert_eq!(admits(&self.alias), text.parse::<AliasName>().is_ok(), "as an alias: {text:?}");
        assert_eq!(admits(&self.version), text.parse::<Version>().is_ok(), "as a version: {text:?}");
    }
}

fn field(kind: &str, field: &str) -> Admission {
    let definitions = custom_resource_definitions();
    let definition = definitions.iter().find(|definition| definition.spec.names.kind == kind).unwrap();
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    let mut schema: Value = schema["openAPIV3Schema"]["properties"]["spec"]["properties"][field].clone();
    // An optional field of an object may be null; a name may not.
    schema.as_object_mut().unwrap().remove("nullable");
    Admission::new(schema)
}

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether Kubernetes accepts it as the value of a label, and it is not empty.
pub(super) fn is_label_value(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&value.len())
        && value.chars().all(|c| edge(c) || "-_.".contains(c))
        && value.starts_with(edge)
        && value.ends_with(edge)
}

/// Texts that may name a ModelAlias: its Service and its Deployments then have valid, distinct names.
fn deployments(texts: &BTreeSet<&str>) {
    let fits = |text: &&&str| {
        text.len() <= MODEL_ALIAS_NAME_MAX
            && is_dns_label(text)
            && text.starts_with(|c: char| c.is_ascii_lowercase())
    };
    let aliases: Vec<_> = texts.iter().filter(fits).collect();
    let versions: BTreeSet<Version> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    let versions = versions.into_iter().chain(Version::new(Version::MAX)).collect::<BTreeSet<_>>();
    let mut names = BTreeSet::new();
    for alias in &aliases {
        for &version in &versions {
            let name = deployment_name(alias, version);
            assert!(is_dns_label(&name), "{name:?}");
            for value in labels::selector(alias, Some(version)).values() {
                assert!(is_label_value(value), "no label: {value:?}");
            }
            names.insert(name);
        }
    }
    assert_eq!(names.len(), aliases.len() * versions.len(), "two Deployments with one name: {texts:?}");
}

/// MLflow parses each name from the filters exactly once.
fn filter(models: &BTreeSet<ModelName>) {
    let server = Scripted::new(None);
    server.answer((0..=models.len()).map(|_| axum::http::Response::new(b"{}".to_vec())));
    let found = server.run(|registry| registry.models(models)).unwrap();
    assert!(found.is_empty());
    let mut asked = Vec::new();
    for url in server.asked() {
        for (key, value) in url.query_pairs() {
            match &*key {
                "filter" => asked.extend(read_filter(&value)),
                "max_results" => {}
                other => panic!("{other:?} is requested"),
            }
        }
    }
    asked.sort();
    let expected: Vec<_> = models.iter().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(asked, expected);
}

/// Parses a filter as MLflow does: a lexer for SQL splits it, and Python parses the list.
fn read_filter(filter: &str) -> Vec<String> {
    let list = filter.strip_prefix("name IN (").and_then(|rest| rest.strip_suffix(')')).expect(filter);
    let mut names = Vec::new();
    let mut rest = list;
    loop {
        let inside = rest.strip_prefix('\'').expect(filter);
        let end = inside.find(['\'', '"', '\n', '\r', '\0']).expect(filter);
        assert!(inside[end..].starts_with('\''), "it ends early for one of the two: {filter:?}");
        names.push(read_literal(&inside[..end]));
        rest = &inside[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return names,
            None => panic!("there is text outside the names: {filter:?}"),
        }
    }
}

/// Parses a Python literal; only `\xNN` escapes are used.
fn read_literal(literal: &str) -> String {
    let mut parts = literal.split('\\');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let digits = part.strip_prefix('x').and_then(|part| part.get(..2)).expect(literal);
        text.push(char::from(u8::from_str_radix(digits, 16).expect(literal)));
        text.push_str(&part[3..]);
    }
    text
}
