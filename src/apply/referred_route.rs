//! Writes to the HTTPRoute of somebody else.
//!
//! Its rules are one atomic list, which server-side apply cannot share among field managers. So they are
//! written as they were read, with other backends of this ModelAlias, over exactly the revision that was
//! read.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch},
    runtime::reflector::Store,
};
use serde_json::json;

use super::{
    Effects,
    workloads::{Done, serving_was_removed},
};
use crate::{
    api::{
        ModelAlias,
        condition::{Reason, ReasonMessage},
        http_route::HttpRoute,
    },
    cluster::{
        Guarded,
        cache::{Cache, ReferableRoute},
        error::error_message,
        server_side_apply::patch_parameters,
    },
    decide::{Observed, Shares},
    render,
    resolve::{Referral, Subject},
};

/// How many times a write is tried that somebody else got ahead of.
const ATTEMPTS: usize = 3;

/// Writes the weights, if the route still has those that were observed.
pub(super) async fn write(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    shares: &Shares,
) -> Done {
    let port = effects.cluster.service_port(&subject.key);
    let port = port.or_else(|| subject.spec().serving.as_ref().map(|serving| serving.port));
    let route = TheirRoute {
        client: effects.client,
        cluster: effects.cluster,
        aliases: effects.aliases,
        referral: subject.referral().ok_or_else(serving_was_removed)?,
        port: port.unwrap_or_default(),
    };
    route.write(observed.cluster.route.as_ref().map(|route| &route.shares), shares).await
}

/// The route, and the ModelAlias that refers to it.
struct TheirRoute<'a> {
    client: &'a Client,
    cluster: &'a Cache,
    aliases: &'a Store<Guarded<ModelAlias>>,
    referral: Referral<'a>,
    /// The port of the Service with the ModelAlias's name.
    port: u16,
}

impl TheirRoute<'_> {
    async fn write(&self, before: Option<&Shares>, shares: &Shares) -> Done {
        for _ in 0..ATTEMPTS {
            if self.attempt(before, shares).await? {
                return Ok(());
            }
        }
        Err(changed("somebody else keeps writing it"))
    }

    /// Tries it once. Returns whether it is done: not if somebody else wrote the route in between.
    async fn attempt(&self, before: Option<&Shares>, shares: &Shares) -> Result<bool, ReasonMessage> {
        let (namespace, name) = self.referral.route_key();
        let resource = ApiResource::erase::<HttpRoute>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        let described = format!("the HTTPRoute {name:?}");
        let read = api.get_opt(&name).await.map_err(|error| error_message(&error, "read", &described))?;
        let read = read.ok_or_else(|| changed("it is gone"))?;
        let route = ReferableRoute::of(&self.keep(&read)?);
        let referrer = self.referral.referrer(&route, self.aliases);
        let rules = read.data["spec"]["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        // What was decided leads on from what was observed, and from nothing else.
        let seen = render::read(rules, &referrer);
        if Some(&seen.shares) != before {
            return Err(changed("it has other backends than a moment ago"));
        }
        if let Some(why) = seen.unusable.filter(|_| !shares.are_handed_back()) {
            return Err(changed(&format!("it {why}")));
        }
        let Some(rules) = render::rewrite(rules, &referrer, shares, self.port.into()) else {
            return Ok(true);
        };
        let patch = Patch::Merge(json!({
            "metadata": { "uid": read.metadata.uid, "resourceVersion": read.metadata.resource_version },
            "spec": { "rules": rules },
        }));
        match api.patch(&name, &patch_parameters(), &patch).await {
            Ok(written) => self.keep(&written).map(|_| true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(error_message(&error, "write the weights of", &described)),
        }
    }

    /// Keeps the route in the cache: the next decision is about what was read or written last.
    fn keep(&self, route: &DynamicObject) -> Result<HttpRoute, ReasonMessage> {
        let typed = serde_json::to_value(route).and_then(serde_json::from_value::<HttpRoute>);
        let typed = typed.map_err(|error| changed(&format!("it cannot be parsed: {error}")))?;
        self.cluster.keep_route(&typed);
        Ok(typed)
    }
}

fn changed(why: &str) -> ReasonMessage {
    let message =
        format!("the weights in the HTTPRoute of spec.traffic.routeRef were not written: {why}; retrying");
    ReasonMessage::new(Reason::TrafficPending, message)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use kube::{Config, runtime::reflector::store};
    use parking_lot::Mutex;
    use pretty_assertions::assert_eq;
    use serde_json::Value;
    use wiremock::{
        Mock, MockServer, Request, ResponseTemplate,
        matchers::{method, path},
    };

    use super::*;
    use crate::api::{names::Version, traffic::RouteReference};

    const PATH: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/risk/httproutes/public";

    fn route(backends: &Value) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "public", "namespace": "risk", "uid": "u", "resourceVersion": "1" },
            "spec": { "rules": [
                { "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }], "backendRefs": backends },
                { "backendRefs": [{ "name": "other", "port": 1 }] },
            ] },
        })
    }

    fn service() -> Value {
        json!([{ "group": "", "kind": "Service", "name": "fraud", "port": 8080, "weight": 1 }])
    }

    fn all_to_the_service() -> Shares {
        Shares::led_by_service([], BTreeMap::new())
    }

    fn entering() -> Shares {
        Shares::led_by_service([(Version::new(4).unwrap(), Shares::LEAST)], BTreeMap::new())
    }

    /// An API server with this route, which somebody else writes after each of the first `rivals` reads: then
    /// it has these backends.
    async fn server(rivals: usize, backends: Value) -> (MockServer, Arc<Mutex<Value>>) {
        let server = MockServer::start().await;
        let stored = Arc::new(Mutex::new(route(&service())));
        let (read, written) = (stored.clone(), stored.clone());
        let left = Mutex::new(rivals);
        let bump = |route: &mut Value| {
            let version: u32 = route["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            route["metadata"]["resourceVersion"] = (version + 1).to_string().into();
        };
        let get = move |_: &Request| {
            let mut stored = read.lock();
            let seen = stored.clone();
            let mut left = left.lock();
            if *left > 0 {
                *left -= 1;
                stored["spec"]["rules"][0]["backendRefs"] = backends.clone();
                stored["metadata"]["labels"] = json!({ "rivals": left.to_string() });
                bump(&mut stored);
            }
            ResponseTemplate::new(200).set_body_json(seen)
        };
        let patch = move |request: &Request| {
            let (patch, mut stored) = (request.body_json::<Value>().unwrap(), written.lock());
            if patch["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"] {
                let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "", "reason": "Conflict", "code": 409 });
                return ResponseTemplate::new(409).set_body_json(body);
            }
            assert_eq!(patch["metadata"]["uid"], "u");
            stored["spec"]["rules"] = patch["spec"]["rules"].clone();
            bump(&mut stored);
            ResponseTemplate::new(200).set_body_json(&*stored)
        };
        Mock::given(method("GET")).and(path(PATH)).respond_with(get).mount(&server).await;
        Mock::given(method("PATCH")).and(path(PATH)).respond_with(patch).mount(&server).await;
        (server, stored)
    }

    /// Writes weights over the observed ones. Returns the methods of the requests.
    async fn write_to(server: &MockServer, before: &Shares, shares: &Shares) -> (Done, Vec<String>) {
        // There may be one already; it is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        let (cluster, (aliases, _writer)) = (Cache::default(), store());
        let alias: ModelAlias = serde_json::from_value(json!({
            "metadata": { "name": "fraud", "namespace": "risk" },
            "spec": { "modelRef": { "name": "fraud" }, "alias": "champion" },
            "status": { "routeRef": RouteReference { name: "public".into(), rule: None } },
        }))
        .unwrap();
        let (key, status) = (alias.key(), alias.status.clone().unwrap());
        let referral = Referral::of(&key, &alias.spec, &status).unwrap();
        let their_route =
            TheirRoute { client: &client, cluster: &cluster, aliases: &aliases, referral, port: 8080 };
        let done = their_route.write(Some(before), shares).await;
        let kept = their_route.referral.route(&cluster).unwrap();
        let kept = kept.view(&their_route.referral.referrer(&kept, &aliases)).shares;
        if done.is_ok() {
            assert_eq!(kept, *shares, "the cache has what was written");
        }
        let requests = server.received_requests().await.unwrap();
        (done, requests.iter().map(|request| request.method.to_string()).collect())
    }

    #[tokio::test]
    async fn only_the_backends_are_written_and_over_the_revision_that_was_read() {
        let (server, stored) = server(0, service()).await;
        let (done, requests) = write_to(&server, &all_to_the_service(), &entering()).await;
        assert_eq!((done, requests), (Ok(()), vec!["GET".to_owned(), "PATCH".to_owned()]));
        let (mut after, before) = (stored.lock().clone(), route(&service()));
        assert_eq!(after["spec"]["rules"][0]["backendRefs"].as_array().unwrap().len(), 2);
        after["spec"]["rules"][0]["backendRefs"] = service();
        assert_eq!(after["spec"], before["spec"]);
    }

    #[tokio::test]
    async fn nothing_is_written_that_is_there_already() {
        let (server, _) = server(0, service()).await;
        let (done, requests) = write_to(&server, &all_to_the_service(), &all_to_the_service()).await;
        assert_eq!((done, requests), (Ok(()), vec!["GET".to_owned()]));
    }

    #[tokio::test]
    async fn a_write_that_somebody_got_ahead_of_is_tried_again_from_what_they_wrote() {
        let (server, stored) = server(1, service()).await;
        let (done, requests) = write_to(&server, &all_to_the_service(), &entering()).await;
        assert_eq!((done, requests), (Ok(()), ["GET", "PATCH", "GET", "PATCH"].map(str::to_owned).to_vec()));
        assert_eq!(stored.lock()["metadata"]["labels"], json!({ "rivals": "0" }), "their change is kept");
    }

    #[tokio::test]
    async fn nothing_is_written_over_other_backends_than_those_that_were_observed() {
        let (server, stored) = server(1, json!([{ "name": "other", "port": 1 }])).await;
        let (done, requests) = write_to(&server, &all_to_the_service(), &entering()).await;
        assert_eq!(done.unwrap_err().reason, Reason::TrafficPending);
        assert_eq!(requests, ["GET", "PATCH", "GET"]);
        assert_eq!(stored.lock()["spec"]["rules"][0]["backendRefs"][0]["name"], "other");
    }

    #[tokio::test]
    async fn nothing_is_shared_with_a_backend_that_somebody_adds_meanwhile() {
        let mut backends = service();
        backends.as_array_mut().unwrap().push(json!({ "name": "other", "port": 1 }));
        let (server, stored) = server(1, backends.clone()).await;
        let (done, requests) = write_to(&server, &all_to_the_service(), &entering()).await;
        assert!(done.unwrap_err().message.contains("to the Service \"other\" as well"));
        assert_eq!(requests, ["GET", "PATCH", "GET"]);
        assert_eq!(stored.lock()["spec"]["rules"][0]["backendRefs"], backends);
    }

    #[tokio::test]
    async fn somebody_who_writes_all_the_time_is_not_tried_against_for_ever() {
        let (server, _) = server(9, service()).await;
        let (done, requests) = write_to(&server, &all_to_the_service(), &entering()).await;
        assert!(done.is_err());
        assert_eq!(requests.len(), 2 * ATTEMPTS);
    }
}
