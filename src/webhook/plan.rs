//! What has to be done about the webhooks in the registry. MLflow's names are not unique, so what is ours is found by name and
//! by where it delivers.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use crate::registry::{
    polled::RegistryKey,
    webhook::{DesiredWebhook, WebhookFacts},
};

/// What the names of ours begin with.
const PREFIX: &str = "laurel-";

/// What has to be done first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookChange {
    /// There is none.
    Create,
    /// This one differs from what it is to be.
    Update(String),
    /// This one is as it is to be.
    Keep(String),
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What has to be done first.
    pub step: WebhookChange,
    /// Others of ours, to be deleted after that.
    pub delete: Vec<String>,
}

/// The path at which deliveries for a registry arrive.
#[must_use]
pub fn path(key: &RegistryKey) -> String {
    match key {
        RegistryKey::Cluster { name } => format!("/webhooks/{name}"),
        RegistryKey::Object { namespace, name } => format!("/webhooks/{namespace}/{name}"),
    }
}

/// The registry for which deliveries arrive at a path.
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

/// The webhook of a registry. `identity` is the object's UID, which no other cluster has.
#[must_use]
pub fn desired_webhook(
    key: &RegistryKey,
    identity: &str,
    base: &Url,
    secret: &SecretString,
) -> DesiredWebhook {
    let mut url = base.clone();
    url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), path(key)));
    let url = url.to_string();
    let name = name_of(identity);
    // MLflow never shows the secret. This tells whether it has the right one, and is too short to tell which.
    let mark = short(format!("laurel webhook secret\n{}", secret.expose_secret()).as_bytes());
    let description = format!("Made by Laurel for the {key}; secret {}", &mark[..6]);
    DesiredWebhook { name, url, description, secret: secret.clone() }
}

fn short(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash[..8].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// What has to be done so that there is exactly one such webhook. Webhooks of others are left alone.
#[must_use]
pub fn plan(desired: &DesiredWebhook, found: &[WebhookFacts]) -> Plan {
    let ours: Vec<&WebhookFacts> = found.iter().filter(|facts| is_ours(desired, facts)).collect();
    let at_rest = |facts: &&&WebhookFacts| {
        facts.is_complete
            && facts.name == desired.name
            && facts.url == desired.url
            && facts.description == desired.description
    };
    let Some(chosen) = ours.iter().find(at_rest).or_else(|| ours.first()) else {
        return Plan { step: WebhookChange::Create, delete: Vec::new() };
    };
    let id = chosen.id.clone();
    let delete = ours.iter().filter(|facts| facts.id != id).map(|facts| facts.id.clone()).collect();
    Plan { step: if at_rest(&chosen) { WebhookChange::Keep(id) } else { WebhookChange::Update(id) }, delete }
}

/// Those of ours among the webhooks that were found, for their end. `id` is the one that was registered last.
#[must_use]
pub fn to_delete(name: &str, id: Option<&str>, found: &[WebhookFacts]) -> Vec<String> {
    let is_ours = |facts: &&WebhookFacts| {
        facts.name == name || (Some(facts.id.as_str()) == id && facts.name.starts_with(PREFIX))
    };
    found.iter().filter(is_ours).map(|facts| facts.id.clone()).collect()
}

/// The name of an object's webhook.
#[must_use]
pub fn name_of(uid: &str) -> String {
    format!("{PREFIX}{uid}")
}

/// One that bears our name, or that one of us made for the same address: an object that was deleted and made anew.
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
    fn mlflow_takes_the_name_and_the_description_gives_no_secret_away() {
        let desired =
            desired_with("8c3cf3f5-8b12-4f3e-9b39-0d7a1f6a3b11", "https://a", "a very secret secret");
        assert!(desired.name.len() < 63 && desired.description.len() < 1000, "{desired:?}");
        assert!(!format!("{desired:?}").contains("a very secret"), "{desired:?}");
    }

    #[test]
    fn there_comes_to_be_exactly_one_and_others_are_left_alone() {
        let desired = desired_with("u", "https://a", "s");
        let good = listed("good", &desired);
        let plan = |found: &[WebhookFacts]| plan(&desired, found);
        let keep = |id: &str, delete: &[&str]| Plan {
            step: WebhookChange::Keep(id.to_owned()),
            delete: delete.iter().map(|id| (*id).to_owned()).collect(),
        };
        let update = |id: &str| Plan { step: WebhookChange::Update(id.to_owned()), delete: Vec::new() };
        let create = Plan { step: WebhookChange::Create, delete: Vec::new() };
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
