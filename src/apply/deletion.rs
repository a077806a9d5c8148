//! Deletes objects: only the one that was seen, never another one that was created under its name since.

use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;

use super::workloads::Done;
use crate::{
    api::model_alias::AliasKey,
    cluster::{
        cache::{Cache, Projected},
        error::error_message,
    },
};

/// Deletes the object with this UID, which was seen under this name; `None` if none was.
pub(super) async fn delete<K>(
    client: &Client,
    cluster: &Cache,
    alias: &AliasKey,
    name: &str,
    uid: Option<String>,
) -> Done
where
    K: Projected + Resource<Scope = NamespaceResourceScope> + DeserializeOwned + std::fmt::Debug,
{
    let Some(uid) = uid else { return Ok(()) };
    let parameters =
        DeleteParams::background().preconditions(Preconditions { uid: Some(uid), resource_version: None });
    match Api::<K>::namespaced(client.clone(), &alias.0).delete(name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        // There is another object, and the watch will show it.
        Err(kube::Error::Api(status)) if status.is_conflict() => return Ok(()),
        Err(error) => return Err(error_message(&error, "delete", &format!("the {} {name:?}", K::kind(&())))),
        Ok(_) => {}
    }
    K::remove(cluster, alias, name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::Config;
    use serde_json::json;
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{body_partial_json, method, path},
    };

    use super::*;

    /// Deletes a Service that the API server answers so for, if the request names its UID. Returns whether
    /// the cache still has it.
    async fn delete_seen(status: u16, reason: &str) -> (Done, bool) {
        let server = MockServer::start().await;
        let answer = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "code": status,
            "status": if status == 200 { "Success" } else { "Failure" }, "message": "", "reason": reason });
        Mock::given(method("DELETE"))
            .and(path("/api/v1/namespaces/risk/services/fraud"))
            .and(body_partial_json(json!({ "preconditions": { "uid": "seen" } })))
            .respond_with(ResponseTemplate::new(status).set_body_json(answer))
            .expect(1)
            .mount(&server)
            .await;
        // There may be one already; it is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        let cache = Cache::default();
        let alias: AliasKey = ("risk".into(), "fraud".into());
        let service: Service =
            serde_json::from_value(json!({ "metadata": { "name": "fraud", "uid": "seen" } })).unwrap();
        service.insert(&cache, &alias);
        let uid = cache.service(&alias).unwrap().uid;
        let deleted = delete::<Service>(&client, &cache, &alias, "fraud", uid).await;
        (deleted, cache.service(&alias).is_some())
    }

    #[tokio::test]
    async fn only_the_object_that_was_seen_is_deleted() {
        assert_eq!(delete_seen(200, "").await, (Ok(()), false));
        assert_eq!(delete_seen(404, "NotFound").await, (Ok(()), false));
        assert_eq!(delete_seen(409, "Conflict").await, (Ok(()), true), "another one has its name");
        assert!(delete_seen(500, "InternalError").await.0.is_err());
    }
}
