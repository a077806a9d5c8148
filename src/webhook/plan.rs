//! What has to be done about the webhooks in the registry. MLflow's names are not unique, so what is ours is found by name and
//! by where it delivers.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use crate::registry::{
    polled::RegistryKey,
    webhook::{WebhookFacts, WebhookWish},
};

/// What the names of ours begin with.
const PREFIX: &str = "laurel-";

/// What has to be done first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
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
    pub step: Step,
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
pub fn wish(key: &RegistryKey, identity: &str, base: &Url, secret: &SecretString) -> WebhookWish {
    let mut url = base.clone();
    url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), path(key)));
    let url = url.to_string();
    let name = name_of(identity);
    // MLflow never shows the secret. This tells whether it has the right one, and is too short to tell which.
    let mark = short(format!("laurel webhook secret\n{}", secret.expose_secret()).as_bytes());
    let description = format!("Made by Laurel for the {key}; secret {}", &mark[..6]);
    WebhookWish { name, url, description, secret: secret.clone() }
}

fn short(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash[..8].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// What has to be done so that there is exactly one such webhook. Webhooks of others are left alone.
#[must_use]
pub fn plan(wish: &WebhookWish, found: &[WebhookFacts]) -> Plan {
    let ours: Vec<&WebhookFacts> = found.iter().filter(|facts| is_ours(wish, facts)).collect();
    let as_wished = |facts: &&&WebhookFacts| {
        facts.is_complete
            && facts.name == wish.name
            && facts.url == wish.url
            && facts.description == wish.description
    };
    let Some(chosen) = ours.iter().find(as_wished).or_else(|| ours.first()) else {
        return Plan { step: Step::Create, delete: Vec::new() };
    };
    let id = chosen.id.clone();
    let delete = ours.iter().filter(|facts| facts.id != id).map(|facts| facts.id.clone()).collect();
    Plan { step: if as_wished(&chosen) { Step::Keep(id) } else { Step::Update(id) }, delete }
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
fn is_ours(wish: &WebhookWish, facts: &WebhookFacts) -> bool {
    facts.name == wish.name || (facts.name.starts_with(PREFIX) && facts.url == wish.url)
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

    fn wished(uid: &str, base: &str, secret: &str) -> WebhookWish {
        wish(&object(), uid, &base.parse().unwrap(), &secret.into())
    }

    fn listed(id: &str, wish: &WebhookWish) -> WebhookFacts {
        WebhookFacts {
            id: id.to_owned(),
            name: wish.name.clone(),
            url: wish.url.clone(),
            description: wish.description.clone(),
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
            assert_eq!(wished("u", base, "s").url, url);
        }
        let shared = wish(&cluster_object(), "u", &"http://a:9443".parse().unwrap(), &"s".into());
        assert_eq!(shared.url, "http://a:9443/webhooks/mlflow");
    }

    #[test]
    fn mlflow_takes_the_name_and_the_description_gives_no_secret_away() {
        let wish = wished("8c3cf3f5-8b12-4f3e-9b39-0d7a1f6a3b11", "https://a", "a very secret secret");
        assert!(wish.name.len() < 63 && wish.description.len() < 1000, "{wish:?}");
        assert!(!format!("{wish:?}").contains("a very secret"), "{wish:?}");
    }

    #[test]
    fn there_comes_to_be_exactly_one_and_others_are_left_alone() {
        let wish = wished("u", "https://a", "s");
        let good = listed("good", &wish);
        let plan = |found: &[WebhookFacts]| plan(&wish, found);
        let keep = |id: &str, delete: &[&str]| Plan {
            step: Step::Keep(id.to_owned()),
            delete: delete.iter().map(|id| (*id).to_owned()).collect(),
        };
        let update = |id: &str| Plan { step: Step::Update(id.to_owned()), delete: Vec::new() };
        let create = Plan { step: Step::Create, delete: Vec::new() };
        let theirs = WebhookFacts { id: "theirs".to_owned(), name: "slack".to_owned(), ..good.clone() };
        let far = listed("far", &wished("other", "https://other-cluster", "s"));
        assert_eq!(plan(&[]), create);
        assert_eq!(plan(&[theirs.clone(), far.clone()]), create);
        assert_eq!(plan(&[theirs, far, good.clone()]), keep("good", &[]));
        let twin = WebhookFacts { id: "twin".to_owned(), is_complete: false, ..good.clone() };
        assert_eq!(plan(&[twin.clone(), good.clone()]), keep("good", &["twin"]));
        assert_eq!(plan(&[twin]), update("twin"));
        assert_eq!(plan(&[listed("moved", &wished("u", "https://b", "s"))]), update("moved"));
        assert_eq!(plan(&[listed("rotated", &wished("u", "https://a", "t"))]), update("rotated"));
        assert_eq!(plan(&[listed("before", &wished("the-uid-before", "https://a", "s"))]), update("before"));
    }
}
