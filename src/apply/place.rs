//! Where an object of a ModelAlias is written: never over one of that name with another owner.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, Resource, ResourceExt, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        model_alias::AliasKey,
    },
    cluster::{error::error_message, server_side_apply},
};

/// The place of an object, and the ModelAlias that owns it.
pub(super) struct Place<'a> {
    pub(super) client: &'a Client,
    pub(super) key: &'a AliasKey,
    /// The UID of the ModelAlias.
    pub(super) uid: &'a str,
    pub(super) name: &'a str,
}

impl Place<'_> {
    /// Applies an object that is known to be ours.
    pub(super) async fn apply<K>(&self, object: &(impl Serialize + Debug)) -> Result<K, ReasonMessage>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let applied = server_side_apply::apply(self.client, &self.key.0, self.name, object).await;
        applied.map_err(|error| self.error::<K>(&error, "apply"))
    }

    /// Creates an object that no watch has shown. If there is one, it is applied, unless its owner is
    /// another. One whose name `was_taken` is looked for first: at rest nothing is written.
    pub(super) async fn create<K>(
        &self,
        object: &(impl Serialize + Debug),
        was_taken: bool,
    ) -> Result<K, ReasonMessage>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        if !was_taken {
            match server_side_apply::create(self.client, &self.key.0, self.name, object).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                created => return created.map_err(|error| self.error::<K>(&error, "apply")),
            }
        }
        let api = Api::<K>::namespaced(self.client.clone(), &self.key.0);
        let there = api.get_metadata_opt(self.name).await.map_err(|error| self.error::<K>(&error, "read"))?;
        let is_ours = |owners: &[OwnerReference]| owners.iter().any(|owner| owner.uid == self.uid);
        if there.is_some_and(|there| !is_ours(there.owner_references())) {
            let described = self.described::<K>();
            let message = format!("{described} has another owner; delete it, or rename this ModelAlias");
            return Err(ReasonMessage::new(Reason::NameTaken, message));
        }
        self.apply(object).await
    }

    fn described<K: Resource<DynamicType = ()>>(&self) -> String {
        format!("the {} {:?}", K::kind(&()), self.name)
    }

    fn error<K: Resource<DynamicType = ()>>(&self, error: &kube::Error, verb: &str) -> ReasonMessage {
        error_message(error, verb, &self.described::<K>())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::Config;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};
    use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::method};

    use super::*;

    const PATH: &str = "/api/v1/namespaces/risk/services/fraud";

    /// An API server with this Service, or none. It answers a create for one that exists with a conflict;
    /// `denies` those for one that does not exist as well.
    async fn server(there: Option<Value>, denies: bool) -> MockServer {
        let server = MockServer::start().await;
        let status = |code: u16, reason: &str| {
            let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "no", "reason": reason, "code": code });
            ResponseTemplate::new(code).set_body_json(body)
        };
        let found = match &there {
            Some(there) => ResponseTemplate::new(200).set_body_json(there),
            None => status(404, "NotFound"),
        };
        Mock::given(method("GET")).respond_with(found).mount(&server).await;
        let exists = there.is_some();
        let answer = move |request: &Request| {
            let applied: Value = request.body_json().unwrap();
            let is_create = applied["metadata"]["resourceVersion"] != Value::Null;
            if is_create && (exists || denies) {
                return status(409, "Conflict");
            }
            ResponseTemplate::new(200).set_body_json(json!({ "metadata": { "name": "fraud" } }))
        };
        Mock::given(method("PATCH")).respond_with(answer).mount(&server).await;
        server
    }

    fn service(owner: &str) -> Value {
        let owner = json!({ "apiVersion": "v1", "kind": "ModelAlias", "name": "fraud", "uid": owner });
        json!({ "metadata": { "name": "fraud", "ownerReferences": [owner] } })
    }

    /// Creates the Service. Returns the requests.
    async fn create(server: &MockServer, was_taken: bool) -> (Result<Service, ReasonMessage>, Vec<String>) {
        // There may be one already; it is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        let key: AliasKey = ("risk".into(), "fraud".into());
        let place = Place { client: &client, key: &key, uid: "ours", name: "fraud" };
        let created = place.create::<Service>(&service("ours"), was_taken).await;
        let requests = server.received_requests().await.unwrap();
        assert!(requests.iter().all(|request| request.url.path() == PATH));
        (created, requests.iter().map(|request| request.method.to_string()).collect())
    }

    #[tokio::test]
    async fn an_object_is_created_with_one_request() {
        let (created, requests) = create(&server(None, false).await, false).await;
        assert_eq!((created.map(|it| it.name_any()), requests), (Ok("fraud".into()), vec!["PATCH".into()]));
    }

    #[tokio::test]
    async fn an_object_with_another_owner_is_not_touched() {
        for there in [service("theirs"), json!({ "metadata": { "name": "fraud" } })] {
            let server = server(Some(there), false).await;
            let (created, requests) = create(&server, false).await;
            assert_eq!(created.unwrap_err().reason, Reason::NameTaken);
            assert_eq!(requests, ["PATCH", "GET"], "it was never applied");
            let (created, requests) = create(&server, true).await;
            assert_eq!(created.unwrap_err().reason, Reason::NameTaken);
            assert_eq!(requests, ["PATCH", "GET", "GET"], "nothing is sent while it is taken");
        }
    }

    #[tokio::test]
    async fn an_object_of_ours_that_the_watch_has_not_shown_is_applied() {
        let (created, requests) = create(&server(Some(service("ours")), false).await, false).await;
        assert!(created.is_ok());
        assert_eq!(requests, ["PATCH", "GET", "PATCH"]);
    }

    #[tokio::test]
    async fn a_server_that_creates_nothing_with_a_resource_version_is_asked_without_one() {
        let (created, requests) = create(&server(None, true).await, false).await;
        assert!(created.is_ok());
        assert_eq!(requests, ["PATCH", "GET", "PATCH"]);
    }
}
