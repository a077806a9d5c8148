//! The changes that the webhooks in the registry need. Names are not unique in MLflow, so Laurel finds its
//! own webhooks by name and by URL.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use crate::registry::{
    polled::RegistryKey,
    webhook::{DesiredWebhook, WebhookFacts},
};

/// The prefix of our webhooks' names.
const PREFIX: &str = "laurel-";

/// The first change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookChange {
    /// There is none: create it.
    Create,
    /// The webhook with this id differs from the desired one: update it.
    Update(String),
    /// The webhook with this id is as desired: keep it.
    Keep(String),
}

/// The changes needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first change.
    pub first: WebhookChange,
    /// Our other webhooks, to delete after that.
    pub delete: Vec<String>,
}

/// Returns the path for deliveries of a registry.
#[must_use]
pub fn path(key: &RegistryKey) -> String {
    match key {
        RegistryKey::Cluster { name } => format!("/webhooks/{name}"),
        RegistryKey::Object { namespace, name } => format!("/webhooks/{namespace}/{name}"),
    }
}

/// Returns the registry that a path belongs to.
#[must_use]
pub fn key(path: &str) -> Option<RegistryKey> {
    let rest = path.strip_prefix("/webhooks/")?;
    let is_name = |text: &str| !text.is_empty() && !text.contains('/');
    match rest.split_once('/') {
        None => is_name(rest).then(|| RegistryKey::Cluster { name: rest.to_owned() }),
        Some((namespace, name)) => (is_name(namespace) && is_name(name))
            .then(|| RegistryKey::Object { namespace: namespace.to_owned(), name: name.to_owned() }),
    }
}

/// Returns the desired webhook of a registry. `uid` is the object's UID, unique across clusters.
#[must_use]
pub fn desired_webhook(key: &RegistryKey, uid: &str, base: &Url, secret: &SecretString) -> DesiredWebhook {
    let mut url = base.clone();
    url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), path(key)));
    let url = url.to_string();
    let name = name_of(uid);
    // MLflow never shows the secret. The mark reveals a changed secret, but is too short to recover it.
    let mark = short_hash(format!("laurel webhook secret\n{}", secret.expose_secret()).as_bytes());
    let description = format!("Made by Laurel for the {key}; secret {}", &mark[..6]);
    DesiredWebhook { name, url, description, secret: secret.clone() }
}

fn short_hash(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash[..8].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Returns the changes after which there is exactly one such webhook. Other clients' webhooks are not
/// touched.
#[must_use]
pub fn plan(desired: &DesiredWebhook, found: &[WebhookFacts]) -> Plan {
    let ours: Vec<&WebhookFacts> = found.iter().filter(|facts| is_ours(desired, facts)).collect();
    let is_as_desired = |facts: &&&WebhookFacts| {
        facts.is_complete
            && facts.name == desired.name
            && facts.url == desired.url
            && facts.description == desired.description
    };
    let Some(chosen) = ours.iter().find(is_as_desired).or_else(|| ours.first()) else {
        return Plan { first: WebhookChange::Create, delete: Vec::new() };
    };
    let id = chosen.id.clone();
    let delete = ours.iter().filter(|facts| facts.id != id).map(|facts| facts.id.clone()).collect();
    let first = if is_as_desired(&chosen) { WebhookChange::Keep(id) } else { WebhookChange::Update(id) };
    Plan { first, delete }
}

/// Returns our webhooks among those found, to be deleted. `id` is the id that was registered last.
#[must_use]
pub fn to_delete(name: &str, id: Option<&str>, found: &[WebhookFacts]) -> Vec<String> {
    let is_ours = |facts: &&WebhookFacts| {
        facts.name == name || (Some(facts.id.as_str()) == id && facts.name.starts_with(PREFIX))
    };
    found.iter().filter(is_ours).map(|facts| facts.id.clone()).collect()
}

/// Returns the name of an object's webhook.
#[must_use]
pub fn name_of(uid: &str) -> String {
    format!("{PREFIX}{uid}")
}

/// Whether a webhook has our name, or was created by Laurel for the same URL: the object was deleted and
/// created again.
fn is_ours(desired: &DesiredWebhook, facts: &WebhookFacts) -> bool {
    facts.name == desired.name || (facts.name.starts_with(PREFIX) && facts.url == desired.url)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn object() -> RegistryKey {
        RegistryKey::Object { namespace: "risk".to_owned(), name: "mlflow".to_owned() }
    }

    fn cluster_object() -> RegistryKey {
        RegistryKey::Cluster { name: "mlflow".to_owned() }
    }

    fn desired_with(uid: &str, base: &str, secret: &str) -> DesiredWebhook {
        desired_webhook(&object(), uid, &base.parse().unwrap(), &secret.into())
    }

    fn listed(id: &str, desired: &DesiredWebhook) -> WebhookFacts {
        WebhookFacts {
            id: id.to_owned(),
            name: desired.name.clone(),
            url: desired.url.clone(),
            description: desired.description.clone(),
            is_complete: true,
        }
    }

    #[test]
    fn paths_lead_to_registries_and_back() {
        for it in [cluster_object(), object()] {
            assert_eq!(key(&path(&it)), Some(it));
        }
        for nowhere in [
            "",
            "/",
            "/webhooks",
            "/webhooks/",
            "/webhooks/a/",
            "/webhooks//b",
            "/webhooks/a/b/c",
            "/x/mlflow",
        ] {
            assert_eq!(key(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn the_path_is_added_to_the_prefix_of_an_ingress() {
        for (base, url) in [
            ("https://laurel.example", "https://laurel.example/webhooks/risk/mlflow"),
            ("https://laurel.example/hooks/", "https://laurel.example/hooks/webhooks/risk/mlflow"),
        ] {
            assert_eq!(desired_with("u", base, "s").url, url);
        }
        let shared = desired_webhook(&cluster_object(), "u", &"http://a:9443".parse().unwrap(), &"s".into());
        assert_eq!(shared.url, "http://a:9443/webhooks/mlflow");
    }

    #[test]
    fn mlflow_accepts_the_name_and_the_description_does_not_reveal_the_secret() {
        let desired =
            desired_with("8c3cf3f5-8b12-4f3e-9b39-0d7a1f6a3b11", "https://a", "a very secret secret");
        assert!(desired.name.len() < 63 && desired.description.len() < 1000, "{desired:?}");
        assert!(!format!("{desired:?}").contains("a very secret"), "{desired:?}");
    }

    #[test]
    fn exactly_one_webhook_remains_and_those_of_others_are_not_touched() {
        let desired = desired_with("u", "https://a", "s");
        let good = listed("good", &desired);
        let plan = |found: &[WebhookFacts]| plan(&desired, found);
        let keep = |id: &str, delete: &[&str]| Plan {
            first: WebhookChange::Keep(id.to_owned()),
            delete: delete.iter().map(|id| (*id).to_owned()).collect(),
        };
        let update = |id: &str| Plan { first: WebhookChange::Update(id.to_owned()), delete: Vec::new() };
        let create = Plan { first: WebhookChange::Create, delete: Vec::new() };
        let theirs = WebhookFacts { id: "theirs".to_owned(), name: "slack".to_owned(), ..good.clone() };
        let far = listed("far", &desired_with("other", "https://other-cluster", "s"));
        assert_eq!(plan(&[]), create);
        assert_eq!(plan(&[theirs.clone(), far.clone()]), create);
        assert_eq!(plan(&[theirs, far, good.clone()]), keep("good", &[]));
        let twin = WebhookFacts { id: "twin".to_owned(), is_complete: false, ..good.clone() };
        assert_eq!(plan(&[twin.clone(), good.clone()]), keep("good", &["twin"]));
        assert_eq!(plan(&[twin]), update("twin"));
        assert_eq!(plan(&[listed("moved", &desired_with("u", "https://b", "s"))]), update("moved"));
        assert_eq!(plan(&[listed("rotated", &desired_with("u", "https://a", "t"))]), update("rotated"));
        assert_eq!(
            plan(&[listed("before", &desired_with("the-uid-before", "https://a", "s"))]),
            update("before")
        );
    }
}
