//! The registries of a story: the Secrets that they name, logins that fail, and references that are refused.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use laurel::api::{ModelRegistry, condition::Reason};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    front::{CA, Front},
    planted::{Secret, base64},
    simulated::place::PATIENCE,
    story::Story,
};

/// The user who logs in with a password.
pub(crate) const USER: &str = "laurel";

/// The secrets of a story.
pub(crate) struct Secrets {
    pub(crate) password: Secret,
    pub(crate) wrong_password: Secret,
    pub(crate) token: Secret,
    pub(crate) authority_key: Secret,
    pub(crate) artifact_store: Secret,
    pub(crate) model_key: Secret,
    pub(crate) model_password: Secret,
    pub(crate) unnamed: Secret,
}

impl Secrets {
    pub(crate) fn plant() -> Self {
        Self {
            password: Secret::plant("the registry's password", "Password"),
            wrong_password: Secret::plant("a wrong password", "Wrong"),
            token: Secret::token("the registry's token", "Token"),
            authority_key: Secret::plant("the private key beside a certificate", "Authority"),
            artifact_store: Secret::plant("the key of the artifact store", "Artifacts"),
            model_key: Secret::plant("a Secret in serving.env", "ModelKey"),
            model_password: Secret::plant("a Secret in serving.envFrom", "ModelPassword"),
            unnamed: Secret::plant("a Secret that nobody names", "Unnamed"),
        }
    }

    pub(crate) fn all(&self) -> Vec<Secret> {
        let Self {
            password,
            wrong_password,
            token,
            authority_key,
            artifact_store,
            model_key,
            model_password,
            unnamed,
        } = self;
        [password, wrong_password, token, authority_key, artifact_store, model_key, model_password, unnamed]
            .map(Clone::clone)
            .into()
    }
}

/// What the API server refused, and what it said.
pub(crate) type Rejections = Vec<(&'static str, String)>;

impl Story<'_> {
    /// The Secrets, those that nobody names included.
    pub(crate) async fn keep_secrets(&self) -> Result<()> {
        let Secrets {
            password,
            token,
            authority_key,
            artifact_store,
            model_key,
            model_password,
            unnamed,
            ..
        } = self.secrets;
        self.keep("login", json!({ "username": USER, "password": password.value })).await?;
        self.keep("token", json!({ "token": token.value })).await?;
        self.keep("corp-ca", json!({ "ca.crt": CA, "ca.key": authority_key.value })).await?;
        self.keep("artifact-store", json!({ "AWS_SECRET_ACCESS_KEY": artifact_store.value })).await?;
        self.keep("model-key", json!({ "key": model_key.value })).await?;
        self.keep("model-login", json!({ "PASSWORD": model_password.value })).await?;
        self.keep("unnamed", json!({ "value": unnamed.value })).await
    }

    async fn keep(&self, name: &str, data: Value) -> Result<()> {
        let secret =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
        self.place.apply(&secret.to_string()).await
    }

    /// One registry with a password and one with a token, both behind the certificate of a private authority.
    pub(crate) async fn registries(&self) -> Result<()> {
        let began = Instant::now();
        let login = json!({ "basic": { "secretRef": { "name": "login" } } });
        self.registry("by-password", &self.by_password, &login).await?;
        let token = json!({ "bearer": { "secretRef": { "name": "token" } } });
        self.registry("by-token", &self.by_token, &token).await?;
        for name in ["by-password", "by-token"] {
            self.until_registry(name, began, Reason::Connected).await?;
        }
        Ok(())
    }

    /// A registry for all namespaces, which needs no login.
    pub(crate) async fn registry_of_the_cluster(&self) -> Result<()> {
        let name = self.place.namespace.as_str();
        let registry = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ClusterModelRegistry",
            "metadata": { "name": name },
            "spec": { "mlflow": { "url": self.place.mlflow.url() }, "pollInterval": "5s" },
        });
        let cluster = &self.place.cluster;
        cluster.run_kubectl(&["apply", "--server-side", "-f", "-"], Some(&registry.to_string())).await?;
        let wait = ["wait", "--for=condition=Ready", "--timeout=60s", "clustermodelregistry", name];
        cluster.run_kubectl(&wait, None).await.map(drop)
    }

    async fn registry(&self, name: &str, front: &Front, auth: &Value) -> Result<()> {
        let registry = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ModelRegistry",
            "metadata": { "name": name },
            "spec": {
                "mlflow": { "url": front.url() },
                "auth": auth,
                "tls": { "caSecretRef": { "name": "corp-ca" } },
                "pollInterval": "5s",
                "serving": { "envFrom": [{ "secretRef": { "name": "artifact-store" } }] },
            },
        });
        self.place.apply(&registry.to_string()).await
    }

    /// Waits until a ModelRegistry says a reason since a moment.
    async fn until_registry(&self, name: &str, since: Instant, reason: Reason) -> Result<()> {
        let wanted: &str = reason.into();
        let says = |registry: &ModelRegistry| {
            let conditions = registry.status.clone().unwrap_or_default().conditions;
            registry.name_any() == name
                && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.reason == wanted)
        };
        let what = format!("the ModelRegistry {name}: {wanted}");
        self.registries.until(&what, PATIENCE, |seen| seen.at >= since && says(&seen.object)).await.map(drop)
    }

    /// A wrong password, and a Secret without the key that is named; then both are put right.
    pub(crate) async fn login_errors(&self) -> Result<()> {
        let Secrets { password, wrong_password, token, .. } = self.secrets;
        let since = Instant::now();
        self.keep("login", json!({ "username": USER, "password": wrong_password.value })).await?;
        let patch = json!({ "data": { "token": null, "another": base64(token.value.clone().into_bytes()) } });
        self.place.edit::<v1::Secret>("token", patch).await?;
        self.until_registry("by-password", since, Reason::RegistryUnauthorized).await?;
        self.until_registry("by-token", since, Reason::SecretKeyInvalid).await?;
        let since = Instant::now();
        self.keep("login", json!({ "username": USER, "password": password.value })).await?;
        self.keep("token", json!({ "token": token.value })).await?;
        for name in ["by-password", "by-token"] {
            self.until_registry(name, since, Reason::Connected).await?;
        }
        for front in [&self.by_password, &self.by_token] {
            ensure!(front.counts().0 > 0, "nobody logged in at {}", front.url());
        }
        ensure!(self.by_password.counts().1 > 0, "the wrong password was not tried");
        Ok(())
    }

    /// References that would lead to another namespace, and logins in URLs.
    pub(crate) async fn rejections(&self) -> Result<Rejections> {
        let registry = |url: &str, login: Value| {
            json!({
                "apiVersion": "laurel.dev/v1alpha1",
                "kind": "ModelRegistry",
                "metadata": { "name": "refused" },
                "spec": { "mlflow": { "url": url }, "auth": { "basic": { "secretRef": login } } },
            })
        };
        let (url, path) = ("http://mlflow.example:5000", json!({ "name": "../../other/secrets/login" }));
        let elsewhere = json!({ "name": "login", "namespace": "other" });
        let with_login = format!("http://laurel:{}@mlflow.example", self.secrets.token.value);
        let table = [
            ("a path as a name", registry(url, path)),
            ("a query as a name", registry(url, json!({ "name": "login?watch=true" }))),
            ("a namespace beside the name", registry(url, elsewhere)),
            ("a login in the URL", registry(&with_login, json!({ "name": "login" }))),
        ];
        let mut rejections = Vec::new();
        for (what, manifest) in table {
            rejections.push((what, self.place.error_message(&manifest).await.context(what)?));
        }
        Ok(rejections)
    }
}
