//! Permissions of roles and requests.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A verb on a resource, `kind/subresource` included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) verb: String,
}

impl Right {
    pub(crate) fn new(group: &str, resource: &str, verb: &str) -> Self {
        Self { group: group.to_owned(), resource: resource.to_owned(), verb: verb.to_owned() }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

/// Returns everything that a `Role` or `ClusterRole` grants, one by one.
pub(crate) fn granted(role: &Value) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().context("a role without rules")? {
        let fields: Vec<&str> =
            rule.as_object().into_iter().flatten().map(|(field, _)| field.as_str()).collect();
        let fields: Vec<&str> = fields.into_iter().filter(|field| *field != "resourceNames").collect();
        ensure!(fields == ["apiGroups", "resources", "verbs"], "a rule in an unexpected form: {rule}");
        let (groups, resources, verbs): (Vec<String>, Vec<String>, Vec<String>) =
            (words(&rule["apiGroups"])?, words(&rule["resources"])?, words(&rule["verbs"])?);
        for group in &groups {
            for resource in &resources {
                rights.extend(verbs.iter().map(|verb| Right::new(group, resource, verb)));
            }
        }
    }
    Ok(rights)
}

fn words<T: DeserializeOwned>(list: &Value) -> Result<T> {
    Ok(serde_json::from_value(list.clone())?)
}
