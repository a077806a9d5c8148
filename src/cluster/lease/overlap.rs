//! Other installations that act on the same objects. Two of them would undo each other's work for ever, so of
//! two for the whole cluster the newer one waits for the older one to go, and the older one reports it.
//!
//! Only an operator for the whole cluster looks: one for a namespace may read nothing outside of it. Such a
//! one is reported, and stops nobody: who may write in one namespace must not decide about all others.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{NAME, SCOPE, election::Seen, seen};
use crate::cluster::{backoff::WatchBackoff, error::watch_error};

/// For how long at most a Lease is believed that is not renewed, whatever it says of itself.
const LONGEST: Duration = Duration::from_mins(1);

/// When a list that failed is tried again, and how long it may take.
const RETRY: Duration = Duration::from_secs(2);

/// The Lease of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Installation {
    /// When it was created, as the API server says, in seconds.
    created: i64,
    /// Which namespaces it watches; `None` if the Lease is not one of ours.
    scope: Option<String>,
    version: Option<String>,
    seen: Seen,
}

/// What is known of other installations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// No other one acts on the same objects, or this one may not look.
    None,
    /// A newer one does as well.
    Newer(String),
    /// An older one does. This one must not act.
    Older(String),
}

impl Overlap {
    /// Why this installation must not act.
    #[must_use]
    pub fn blocker(&self) -> Option<&str> {
        match self {
            Self::Older(message) => Some(message),
            Self::None | Self::Newer(_) => None,
        }
    }
}

/// Compares the installation in a namespace with the others, by their namespaces.
fn judge(now: Instant, own: &str, all: &BTreeMap<String, Installation>) -> Overlap {
    let age = |(namespace, installation): (&String, &Installation)| (installation.created, namespace.clone());
    let mine = all.get_key_value(own).map(age);
    let acts = |(namespace, other): &(&String, &Installation)| {
        *namespace != own && other.scope.is_some() && ends(other).is_some_and(|end| now < end)
    };
    let is_wide = |other: &Installation| other.scope.as_deref() == Some("cluster");
    let Some((namespace, other)) =
        all.iter().filter(acts).min_by_key(|other| (!is_wide(other.1), age(*other)))
    else {
        return Overlap::None;
    };
    let scope = other.scope.as_deref().unwrap_or_default();
    let message = format!(
        "another Laurel, with scope {scope}, runs in the namespace {namespace:?} and acts on the same objects: \
         its Lease {NAME:?} is held by {:?}",
        other.seen.holder.as_deref().unwrap_or_default()
    );
    if !is_wide(other) || mine.is_some_and(|mine| mine < age((namespace, other))) {
        Overlap::Newer(format!("{message}; uninstall one of them"))
    } else {
        Overlap::Older(format!("{message}; this one, which is newer, waits until that one is uninstalled"))
    }
}

/// When an installation that does not renew its Lease is believed to be gone; `None` if it released it.
fn ends(installation: &Installation) -> Option<Instant> {
    let seen = &installation.seen;
    seen.holder.as_ref().map(|_| seen.since + seen.duration.min(LONGEST))
}

/// How long what is known stays so, if no Lease changes.
fn lasts(now: Instant, all: &BTreeMap<String, Installation>) -> Duration {
    const LONG: Duration = Duration::from_mins(10);
    let due = all.values().filter_map(ends).map(|end| end.saturating_duration_since(now));
    due.filter(|due| !due.is_zero()).min().map_or(LONG, |due| due + Duration::from_millis(1))
}

/// Remembers a Lease that was read, unless it is known as it is.
fn remember(all: &mut BTreeMap<String, Installation>, lease: &Lease) {
    let namespace = lease.namespace().unwrap_or_default();
    let version = lease.resource_version();
    if all.get(&namespace).is_some_and(|known| known.version == version) {
        return;
    }
    let created = lease.creation_timestamp().map_or(i64::MAX, |time| time.0.as_second());
    let scope = lease.annotations().get(SCOPE).cloned();
    all.insert(namespace, Installation { created, scope, version, seen: seen(lease) });
}

/// Watches the Leases of all installations.
pub(super) async fn watch_installations(
    client: Client,
    own: String,
    overlap: watch::Sender<Option<Overlap>>,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let api = Api::<Lease>::all(client);
    let mut events = watcher(api.clone(), config).backoff(WatchBackoff::new()).boxed();
    let mut wait = Duration::MAX;
    let (mut all, mut next) = (BTreeMap::new(), BTreeMap::new());
    let mut is_known = false;
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(Event::Apply(lease)) => remember(&mut all, &lease),
                Ok(Event::Delete(lease)) => drop(all.remove(&lease.namespace().unwrap_or_default())),
                Ok(Event::Init) => next = BTreeMap::new(),
                Ok(Event::InitApply(lease)) => {
                    // One that did not change since is as old as it was.
                    let namespace = lease.namespace().unwrap_or_default();
                    next.extend(all.remove(&namespace).map(|known| (namespace, known)));
                    remember(&mut next, &lease);
                }
                Ok(Event::InitDone) => {
                    all = std::mem::take(&mut next);
                    is_known = true;
                }
                Err(error) if !is_known => unknown(&overlap, &error),
                Err(_) => {}
            },
            () = sleep(wait) => {
                // That the watch is silent does not show that another one has ended.
                let Some(leases) = read(&api).await else {
                    wait = RETRY;
                    continue;
                };
                for lease in &leases {
                    remember(&mut all, lease);
                }
            }
        }
        wait = lasts(Instant::now(), &all);
        if is_known {
            let found = judge(Instant::now(), &own, &all);
            overlap.send_if_modified(|known| {
                if known.as_ref() == Some(&found) {
                    return false;
                }
                if let Overlap::Newer(message) = &found {
                    tracing::error!("{message}");
                }
                *known = Some(found);
                true
            });
        }
    }
}

/// Reads the Leases of all installations directly.
async fn read(api: &Api<Lease>) -> Option<Vec<Lease>> {
    let named = ListParams::default().fields(&format!("metadata.name={NAME}"));
    Some(timeout(RETRY, api.list(&named)).await.ok()?.ok()?.items)
}

/// Goes on without knowing where a role does not allow to look, as those of older releases.
fn unknown(overlap: &watch::Sender<Option<Overlap>>, error: &watcher::Error) {
    let (error, status) = watch_error(error);
    overlap.send_if_modified(|known| {
        let is_denied = status == 403 && known.is_none();
        if is_denied {
            tracing::warn!(
                error,
                "cannot see whether another Laurel acts on the same objects: grant the ClusterRole list and \
                 watch on the leases named {NAME:?}"
            );
            *known = Some(Overlap::None);
        }
        is_denied
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::Time};
    use kube::api::ObjectMeta;
    use pretty_assertions::assert_eq;

    use super::*;

    const OWN: &str = "laurel-system";

    fn lease(namespace: &str, created: &str, scope: Option<&str>, holder: &str, version: &str) -> Lease {
        let annotations = scope.map(|scope| [(SCOPE.to_owned(), scope.to_owned())].into());
        Lease {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                creation_timestamp: Some(Time(created.parse().unwrap())),
                resource_version: Some(version.to_owned()),
                annotations,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(12),
                ..LeaseSpec::default()
            }),
        }
    }

    fn known(leases: &[Lease]) -> BTreeMap<String, Installation> {
        let mut all = BTreeMap::new();
        for lease in leases {
            remember(&mut all, lease);
        }
        all
    }

    const MONDAY: &str = "2026-11-23T10:00:00Z";
    const TUESDAY: &str = "2026-11-24T10:00:00Z";

    #[test]
    fn promise_14_the_older_of_two_installations_acts_and_both_report_it() {
        let older = lease("a", MONDAY, Some("cluster"), "laurel-1", "1");
        let newer = lease("b", TUESDAY, Some("cluster"), "laurel-2", "2");
        let all = known(&[older.clone(), newer]);
        let now = Instant::now();
        let Overlap::Newer(message) = judge(now, "a", &all) else { panic!("the older one acts") };
        assert!(message.contains("\"b\"") && message.contains("laurel-2"), "{message}");
        let waits = judge(now, "b", &all);
        assert!(waits.blocker().is_some_and(|message| message.contains("\"a\"")), "{waits:?}");
        // One that has no Lease yet is the newest.
        assert!(judge(now, OWN, &known(&[older])).blocker().is_some());
    }

    #[test]
    fn of_two_created_in_the_same_second_one_acts() {
        let twins = ["a", "b"].map(|namespace| lease(namespace, MONDAY, Some("cluster"), namespace, "1"));
        let verdict = |own| judge(Instant::now(), own, &known(&twins)).blocker().is_some();
        assert_eq!((verdict("a"), verdict("b")), (false, true));
    }

    #[test]
    fn one_for_a_namespace_counts_and_what_is_released_expired_or_not_ours_does_not() {
        let own = || lease(OWN, TUESDAY, Some("cluster"), "laurel-1", "1");
        let verdict = |other: Lease, later: u64| {
            let all = known(&[own(), other]);
            judge(Instant::now() + Duration::from_secs(later), OWN, &all) != Overlap::None
        };
        let tenant = lease("a", MONDAY, Some("namespace"), "laurel-2", "2");
        let reported = judge(Instant::now(), OWN, &known(&[own(), tenant.clone()]));
        assert!(matches!(reported, Overlap::Newer(_)), "one for a namespace stops nobody: {reported:?}");
        assert!(matches!(judge(Instant::now(), OWN, &known(&[tenant])), Overlap::Newer(_)));
        assert!(verdict(lease("a", MONDAY, Some("cluster"), "laurel-2", "2"), 11));
        assert!(!verdict(lease("a", MONDAY, Some("cluster"), "laurel-2", "2"), 13), "it is not renewed");
        assert!(!verdict(lease("a", MONDAY, Some("cluster"), "", "2"), 0), "it was released");
        assert!(!verdict(lease("a", MONDAY, None, "somebody", "2"), 0), "it is another program's");
    }

    #[test]
    fn a_lease_is_not_believed_for_as_long_as_it_likes() {
        let mut endless = lease("a", MONDAY, Some("cluster"), "laurel-2", "2");
        endless.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
        let all = known(&[endless]);
        assert!(judge(Instant::now(), OWN, &all).blocker().is_some());
        assert_eq!(judge(Instant::now() + LONGEST, OWN, &all), Overlap::None);
    }

    #[test]
    fn only_a_change_shows_that_another_one_still_runs() {
        let mut all = known(&[lease("a", MONDAY, Some("cluster"), "laurel-2", "2")]);
        let first = all["a"].seen.since;
        remember(&mut all, &lease("a", MONDAY, Some("cluster"), "laurel-2", "2"));
        assert_eq!(all["a"].seen.since, first, "a list read again shows nothing new");
        remember(&mut all, &lease("a", MONDAY, Some("cluster"), "laurel-2", "3"));
        assert!(all["a"].seen.since > first);
        let now = all["a"].seen.since;
        assert!(lasts(now, &all) > Duration::from_secs(12) && lasts(now, &all) < Duration::from_secs(13));
        assert!(lasts(now + Duration::from_mins(1), &all) > Duration::from_mins(1), "it has expired");
    }

    #[tokio::test]
    async fn a_silent_watch_is_checked_by_a_direct_read() {
        use std::sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        };

        use kube::Config;
        use wiremock::{Mock, MockServer, ResponseTemplate, matchers::query_param};

        let server = MockServer::start().await;
        let hangs = ResponseTemplate::new(200).set_delay(Duration::from_hours(1));
        Mock::given(query_param("watch", "true")).respond_with(hangs).with_priority(1).mount(&server).await;
        let lists = Arc::<AtomicUsize>::default();
        let counted = lists.clone();
        // Renewed once, after the list that the watch begins with.
        let list = move |_: &wiremock::Request| {
            let version = if counted.fetch_add(1, Ordering::SeqCst) == 0 { "1" } else { "2" };
            let mut other = lease("a", MONDAY, Some("cluster"), "laurel-2", version);
            other.spec.as_mut().unwrap().lease_duration_seconds = Some(1);
            ResponseTemplate::new(200).set_body_json(serde_json::json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList",
                "metadata": { "resourceVersion": version }, "items": [other],
            }))
        };
        Mock::given(wiremock::matchers::method("GET")).respond_with(list).mount(&server).await;
        // There may be one already; it is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        let (sender, mut overlap) = watch::channel(None);
        let watching = tokio::spawn(watch_installations(client, OWN.to_owned(), sender));
        let mut wait = async |is_wanted: fn(&Overlap) -> bool| {
            let known = overlap.wait_for(|known| known.as_ref().is_some_and(is_wanted));
            drop(timeout(Duration::from_mins(2), known).await.expect("in time").unwrap());
        };
        wait(|known| known.blocker().is_some()).await;
        wait(|known| *known == Overlap::None).await;
        assert!(lists.load(Ordering::SeqCst) > 2, "its renewal was seen before it counted as ended");
        watching.abort();
    }
}
