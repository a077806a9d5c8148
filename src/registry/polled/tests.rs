//! Polls beside direct reads and writes: what was asked for later counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use pretty_assertions::assert_eq;

use super::*;
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, ModelName, Version},
    },
    registry::{RegistryError, VersionState, fake::FakeRegistry, limiter::Priority},
};

fn fraud() -> ModelName {
    "fraud".parse().unwrap()
}

fn champion() -> AliasName {
    "champion".parse().unwrap()
}

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn settings() -> Settings {
    let url: Url = "http://mlflow:5000".parse().unwrap();
    Settings {
        url: url.clone(),
        workspace: None,
        poll_interval: Duration::from_secs(30),
        limits: Limits::default(),
        pods: RegistryForPods { tracking_uri: url, workspace: None, ca: None, env_from: Vec::new() },
    }
}

/// A registry with the model `fraud`, and its memory. Nothing has been polled.
fn registries() -> (Arc<FakeRegistry>, Arc<PolledRegistry>) {
    let polled = PolledRegistry::new(
        RegistryKey::Cluster { name: "mlflow".to_owned() },
        settings(),
        Limiter::default(),
    );
    let fake = FakeRegistry::new();
    fake.add_model("fraud");
    fake.add_version("fraud", 1);
    polled.set_client(Ok(fake.clone()));
    (fake, Arc::new(polled))
}

fn plan() -> PollPlan {
    PollPlan { models: BTreeSet::from([fraud()]), ..PollPlan::default() }
}

fn judging() -> PollPlan {
    PollPlan { judged: BTreeSet::from([(fraud(), version(1))]), ..plan() }
}

fn spawn_poll(polled: &Arc<PolledRegistry>, plan: PollPlan) -> tokio::task::JoinHandle<PollOutcome> {
    let polled = polled.clone();
    tokio::spawn(async move { polled.poll(|| plan).await })
}

fn described(polled: &PolledRegistry) -> String {
    match polled.model(&fraud()) {
        ModelView::Present(facts) => facts.description,
        other => panic!("{other:?}"),
    }
}

fn tag(evidence: Option<VersionEvidence>) -> Option<String> {
    evidence?.facts.tags.get("validated").cloned()
}

#[tokio::test]
async fn evidence_read_directly_is_not_replaced_by_a_poll_that_asked_before() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    let mut old = fake.hold("version");
    let poll = spawn_poll(&polled, judging());
    old.reached().await;
    fake.tag("fraud", 1, "validated", "true");
    let direct = polled.evidence(&fraud(), version(1)).await.unwrap();
    assert_eq!(tag(direct).as_deref(), Some("true"));
    old.release();
    assert_eq!(poll.await.unwrap().changes.models, BTreeSet::new(), "the poll found nothing newer");
    let remembered = polled.remembered_evidence(&fraud(), version(1)).expect("it is remembered");
    assert_eq!(tag(remembered).as_deref(), Some("true"));
}

#[tokio::test]
async fn evidence_read_while_a_poll_without_it_runs_is_kept() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    let mut poll_waits = fake.hold("models");
    let poll = spawn_poll(&polled, plan());
    poll_waits.reached().await;
    polled.evidence(&fraud(), version(1)).await.unwrap();
    poll_waits.release();
    poll.await.unwrap();
    assert!(polled.remembered_evidence(&fraud(), version(1)).is_some(), "the poll was planned before");
    polled.poll(plan).await;
    assert!(polled.remembered_evidence(&fraud(), version(1)).is_none(), "nobody needs it any more");
}

#[tokio::test]
async fn evidence_that_a_poll_asked_for_later_is_not_replaced_by_an_older_direct_read() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    let mut old = fake.hold("version");
    let direct = {
        let polled = polled.clone();
        tokio::spawn(async move { polled.evidence(&fraud(), version(1)).await })
    };
    old.reached().await;
    fake.tag("fraud", 1, "validated", "true");
    polled.poll(judging).await;
    old.release();
    assert_eq!(tag(direct.await.unwrap().unwrap()).as_deref(), Some("true"), "the later answer counts");
}

#[tokio::test]
async fn a_version_is_not_judged_by_what_was_read_before_somebody_moved_an_alias() {
    let (fake, polled) = registries();
    polled.poll(judging).await;
    // Whoever corrects a version and moves the alias on it asks for another judgement.
    fake.tag("fraud", 1, "validated", "true");
    fake.point("fraud", "champion", 1);
    polled.read_named(PollPlan { models: BTreeSet::from([fraud()]), ..PollPlan::default() }).await;
    assert_eq!(polled.remembered_evidence(&fraud(), version(1)), None);
    assert_eq!(tag(polled.evidence(&fraud(), version(1)).await.unwrap()).as_deref(), Some("true"));
}

#[tokio::test]
async fn a_model_read_directly_is_not_replaced_by_a_poll_that_asked_before() {
    let (fake, polled) = registries();
    fake.describe("fraud", "today's");
    polled.poll(plan).await;
    fake.describe("fraud", "somebody's");
    let mut old = fake.hold("models");
    let poll = spawn_poll(&polled, plan());
    old.reached().await;
    fake.describe("fraud", "today's");
    polled.read_model(&fraud(), Priority::Decision).await.unwrap();
    old.release();
    poll.await.unwrap();
    assert_eq!(described(&polled), "today's");
}

#[tokio::test]
async fn a_model_read_directly_is_not_replaced_by_a_direct_read_that_was_begun_before() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    let mut old = fake.hold("model");
    let read = {
        let polled = polled.clone();
        tokio::spawn(async move { polled.read_model(&fraud(), Priority::Decision).await })
    };
    old.reached().await;
    fake.describe("fraud", "today's");
    polled.read_model(&fraud(), Priority::Decision).await.unwrap();
    old.release();
    read.await.unwrap().unwrap();
    assert_eq!(described(&polled), "today's");
}

#[tokio::test]
async fn an_alias_that_was_written_is_not_replaced_by_a_poll_that_asked_before() {
    for is_known in [true, false] {
        let (fake, polled) = registries();
        polled.poll(plan).await;
        if !is_known {
            polled.forget_model(&fraud());
        }
        let mut old = fake.hold("models");
        let poll = spawn_poll(&polled, plan());
        old.reached().await;
        polled
            .client(Priority::AliasWrite)
            .unwrap()
            .set_alias(&fraud(), &champion(), version(1))
            .await
            .unwrap();
        polled.remember_alias(&fraud(), &champion(), Some(version(1)));
        old.release();
        poll.await.unwrap();
        match polled.model(&fraud()) {
            ModelView::Present(facts) => assert_eq!(facts.aliases.get(&champion()), Some(&version(1))),
            ModelView::Unknown(_) => assert!(!is_known),
            ModelView::Absent => panic!("it exists"),
        }
        assert!(polled.poll(plan).await.changes.models.contains(&fraud()), "the next poll reports it");
    }
}

#[tokio::test]
async fn a_version_that_a_later_list_shows_is_not_replaced_by_an_older_read() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    let mut old = fake.hold("version");
    let read = {
        let polled = polled.clone();
        tokio::spawn(async move { polled.read_version(&fraud(), version(2), Priority::Decision).await })
    };
    old.reached().await;
    fake.add_version("fraud", 2);
    polled.poll(|| PollPlan { followed: [(fraud(), FollowerNeeds::default())].into(), ..plan() }).await;
    old.release();
    assert_eq!(read.await.unwrap().unwrap(), None);
    assert!(polled.remembered_version(&fraud(), version(2)).unwrap().is_some(), "the list is newer");
}

fn unreachable() -> RegistryError {
    RegistryError::Unreachable { url: "http://mlflow:5000/".to_owned(), cause: "refused".to_owned() }
}

fn is_present(polled: &PolledRegistry, name: &str) -> bool {
    matches!(polled.model(&name.parse().unwrap()), ModelView::Present(_))
}

#[tokio::test]
async fn one_bad_answer_is_no_outage_but_three_in_a_row_are() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    for error in [unreachable(), RegistryError::ServerFailed { status: 503, detail: String::new() }] {
        fake.fail("models", Some(error.clone()));
        fake.fail("model", Some(error));
        for _ in 0..2 {
            let outcome = polled.poll(plan).await;
            assert!(
                !outcome.changes.health && outcome.changes.models.is_empty() && outcome.failure.is_some()
            );
            assert!(is_present(&polled, "fraud"), "what is known stays known");
        }
        let outcome = polled.poll(plan).await;
        assert!(outcome.changes.health && matches!(polled.health().0, Some(Err(_))));
        assert!(!is_present(&polled, "fraud"));
        assert!(!polled.poll(plan).await.changes.health);
        fake.fail("models", None);
        fake.fail("model", None);
        assert!(polled.poll(plan).await.changes.health && is_present(&polled, "fraud"));
    }
    fake.fail("models", Some(unreachable()));
    polled.poll(plan).await;
    polled.poll(plan).await;
    fake.fail("models", None);
    polled.poll(plan).await;
    fake.fail("models", Some(unreachable()));
    assert!(!polled.poll(plan).await.changes.health, "they were not in a row");
}

#[tokio::test]
async fn a_registry_that_never_answered_is_reported_at_once() {
    let (fake, polled) = registries();
    fake.fail("probe", Some(unreachable()));
    assert!(polled.poll(plan).await.changes.health);
    let Some(Err(cause)) = polled.health().0 else { panic!("{:?}", polled.health()) };
    assert_eq!(cause.reason, Reason::RegistryUnreachable);
}

/// 250 models: three chunks.
fn many(fake: &FakeRegistry) -> impl Fn() -> PollPlan {
    let names: Vec<String> = (0..250).map(|number| format!("m{number:03}")).collect();
    for name in &names {
        fake.add_model(name);
    }
    let models: BTreeSet<ModelName> = names.iter().map(|name| name.parse().unwrap()).collect();
    move || PollPlan { models: models.clone(), ..PollPlan::default() }
}

#[tokio::test]
async fn a_model_that_the_server_chokes_on_is_named_and_condemns_no_other() {
    let (fake, polled) = registries();
    let plan = many(&fake);
    polled.poll(&plan).await;
    fake.break_model("m007", Some(RegistryError::ServerFailed { status: 500, detail: "no such row".into() }));
    let before = fake.calls("models");
    for _ in 0..2 {
        assert_eq!(polled.poll(&plan).await, PollOutcome::default(), "one bad answer is no broken model");
        assert!(is_present(&polled, "m007"), "what is known stays known");
    }
    let outcome = polled.poll(&plan).await;
    assert_eq!(outcome.changes.models, BTreeSet::from(["m007".parse().unwrap()]));
    assert!(!outcome.changes.health && outcome.failure.is_none());
    assert_eq!(fake.calls("models") - before, 9, "one request for each hundred");
    let ModelView::Unknown(cause) = polled.model(&"m007".parse().unwrap()) else { panic!("it is broken") };
    assert!(cause.message.contains("no such row"), "{}", cause.message);
    assert_eq!((0..250).filter(|number| is_present(&polled, &format!("m{number:03}"))).count(), 249);
    fake.break_model("m007", None);
    assert_eq!(polled.poll(&plan).await.changes.models.len(), 1);
}

#[tokio::test]
async fn a_listing_that_no_registry_gives_is_reported_although_each_model_can_be_read() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    let detail = "its pages repeat".to_owned();
    fake.fail("models", Some(RegistryError::NotARegistry { url: "http://mlflow:5000/".into(), detail }));
    let failed = [polled.poll(plan).await, polled.poll(plan).await, polled.poll(plan).await];
    assert!(failed.iter().all(|outcome| outcome.failure.is_some()) && failed[2].changes.health);
    assert_eq!(fake.calls("model"), 0);
}

#[tokio::test]
async fn a_chunk_that_is_not_answered_condemns_no_other_and_not_at_once() {
    let (fake, polled) = registries();
    let plan = many(&fake);
    polled.poll(&plan).await;
    let timeout =
        RegistryError::TimedOut { url: "http://mlflow:5000/".into(), limit: Duration::from_secs(10) };
    fake.break_model("m107", Some(timeout));
    for _ in 0..2 {
        let outcome = polled.poll(&plan).await;
        assert!(!outcome.changes.health && outcome.changes.models.is_empty(), "{outcome:?}");
    }
    let outcome = polled.poll(&plan).await;
    assert!(!outcome.changes.health);
    assert_eq!(outcome.changes.models.len(), 100, "its chunk");
    assert!(is_present(&polled, "m007") && !is_present(&polled, "m108") && is_present(&polled, "m207"));
    fake.break_model("m107", None);
    assert_eq!(polled.poll(&plan).await.changes.models.len(), 100);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_asked_for_every_chunk() {
    let (fake, polled) = registries();
    let plan = many(&fake);
    polled.poll(&plan).await;
    let before = fake.calls("models");
    fake.fail("models", Some(unreachable()));
    assert!(polled.poll(&plan).await.failure.is_some());
    assert_eq!(fake.calls("models") - before, 2);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_now_keeps_the_client() {
    let (_, polled) = registries();
    let failed = |reason| Err(ReasonMessage::new(reason, "why"));
    for reason in [Reason::ApplyFailed, Reason::ApplyForbidden] {
        polled.renew_client(failed(reason));
        assert!(polled.capabilities().is_ok(), "{reason}");
    }
    polled.renew_client(failed(Reason::SecretNotFound));
    assert!(polled.capabilities().is_err_and(|cause| cause.reason == Reason::SecretNotFound));
    polled.renew_client(failed(Reason::ApplyFailed));
    assert!(
        polled.capabilities().is_err_and(|cause| cause.reason == Reason::ApplyFailed),
        "there is none to keep"
    );
}

#[test]
fn a_processed_object_is_known_even_if_it_is_not_usable() {
    let registries = Registries::default();
    let key = RegistryKey::Cluster { name: "mlflow".to_owned() };
    assert!(matches!(registries.look_up(&key), Lookup::Unknown));
    registries.set_unreadable(&key);
    assert!(matches!(registries.look_up(&key), Lookup::Unusable));
    let (registry, is_new) = registries.set(&key, settings());
    assert!(is_new && matches!(registries.look_up(&key), Lookup::Usable(_)));
    registries.set_unreadable(&key);
    assert!(!registry.is_retired(), "what an object described before it could not be parsed stays in use");
    registries.set_unusable(&key);
    assert!(registry.is_retired() && matches!(registries.look_up(&key), Lookup::Unusable));
    registries.remove(&key);
    assert!(matches!(registries.look_up(&key), Lookup::Unknown), "nothing is kept of what is gone");
}

/// The plan of a poll if `fraud` has a follower with these needs.
fn following(has_tags: bool) -> impl Fn() -> PollPlan {
    let needs = FollowerNeeds { has_tags, ..FollowerNeeds::default() };
    move || PollPlan { followed: [(fraud(), needs.clone())].into(), ..plan() }
}

#[tokio::test]
async fn versions_are_listed_again_if_the_model_changed_or_what_is_followed_changes_no_time() {
    let (fake, polled) = registries();
    let lists = async |plan: &dyn Fn() -> PollPlan| {
        let before = fake.calls("newest_versions");
        polled.poll(plan).await;
        fake.calls("newest_versions") - before
    };
    let numbers = following(false);
    assert_eq!([lists(&numbers).await, lists(&numbers).await], [1, 1], "the second one confirms the first");
    assert_eq!([lists(&numbers).await, lists(&numbers).await], [0, 0]);
    fake.add_version("fraud", 2);
    fake.touch("fraud");
    let outcome = polled.poll(&numbers).await;
    assert_eq!(outcome.changes.models, BTreeSet::from([fraud()]));
    assert_eq!(
        polled.listing(&fraud(), &FollowerNeeds::default()).unwrap().as_ref().as_ref().unwrap().len(),
        2
    );
    assert_eq!([lists(&numbers).await, lists(&numbers).await], [1, 0]);
    let tags = following(true);
    fake.tag("fraud", 2, "validated", "true");
    assert_eq!([lists(&tags).await, lists(&tags).await, lists(&tags).await], [1, 1, 1]);
    assert_eq!(lists(&numbers).await, 0);
    fake.set_state("fraud", 2, VersionState::Pending);
    fake.touch("fraud");
    assert_eq!([lists(&numbers).await, lists(&numbers).await, lists(&numbers).await], [1, 1, 1]);
    assert_eq!(lists(&plan).await, 0);
    assert!(polled.listing(&fraud(), &FollowerNeeds::default()).is_none(), "nobody follows it any more");
}

#[tokio::test]
async fn a_list_is_used_only_for_what_it_was_read_for() {
    let (fake, polled) = registries();
    polled.poll(following(false)).await;
    polled.poll(following(false)).await;
    // Setting a tag changes no time, so the list that is known may not show it.
    fake.tag("fraud", 1, "semver", "1.0.0");
    let tags = FollowerNeeds { has_tags: true, ..FollowerNeeds::default() };
    let metric = FollowerNeeds { metrics: ["auc".to_owned()].into(), ..FollowerNeeds::default() };
    assert!(polled.listing(&fraud(), &FollowerNeeds::default()).is_some());
    assert_eq!(polled.listing(&fraud(), &tags), None);
    assert_eq!(polled.listing(&fraud(), &metric), None, "a metric that was left out is not absent");
    let outcome = polled.poll(following(true)).await;
    assert_eq!(outcome.changes.models, BTreeSet::from([fraud()]));
    assert!(polled.listing(&fraud(), &tags).is_some());
    // The same list, read for something else: its follower waits for it.
    let plan = || PollPlan { followed: [(fraud(), metric.clone())].into(), ..plan() };
    assert_eq!(polled.poll(plan).await.changes.models, BTreeSet::from([fraud()]));
    assert!(polled.listing(&fraud(), &metric).is_some());
    assert_eq!(polled.listing(&fraud(), &tags), None);
}

#[tokio::test]
async fn a_named_model_is_read_by_itself() {
    let (fake, polled) = registries();
    let all = many(&fake);
    polled
        .poll(|| PollPlan { judged: judging().judged, followed: following(true)().followed, ..all() })
        .await;
    let listed = polled.listing(&fraud(), &FollowerNeeds::default());
    fake.describe("m007", "new");
    fake.describe("m008", "new");
    let calls = |method| fake.calls(method);
    let before = (calls("models"), calls("newest_versions"), calls("version"));
    let named =
        |name: &str| PollPlan { models: BTreeSet::from([name.parse().unwrap()]), ..PollPlan::default() };
    assert_eq!(polled.read_named(named("m007")).await, named("m007").models);
    assert_eq!((calls("models") - 1, calls("newest_versions"), calls("version")), before);
    assert!(
        is_present(&polled, "m249")
            && polled.listing(&fraud(), &FollowerNeeds::default()) == listed
            && listed.is_some()
    );
    assert!(polled.remembered_evidence(&fraud(), version(1)).is_some(), "the rest stays known");
    assert_eq!(polled.read_named(PollPlan::default()).await, BTreeSet::new(), "nobody watches it");
    assert_eq!(calls("models") - 1, before.0);
}

#[tokio::test]
async fn a_named_model_that_cannot_be_read_is_left_to_the_next_poll() {
    let (fake, polled) = registries();
    polled.poll(plan).await;
    let regular = polled.next_regular_poll();
    fake.fail("models", Some(unreachable()));
    assert_eq!(polled.read_named(plan()).await, BTreeSet::new());
    assert!(is_present(&polled, "fraud") && matches!(polled.health().0, Some(Ok(()))));
    assert_eq!(polled.next_due(regular).await, Due::Poll);
    polled.poll(plan).await;
    polled.read_soon(&fraud());
    assert_eq!(polled.next_due(regular).await, Due::Models(BTreeSet::from([fraud()])));
}

#[tokio::test]
async fn our_own_write_causes_a_read_of_that_model_only() {
    let (_, polled) = registries();
    polled.next_due(polled.next_regular_poll()).await;
    polled.poll(plan).await;
    polled.remember_alias(&fraud(), &champion(), Some(version(1)));
    let Due::Models(names) = polled.next_due(polled.next_regular_poll()).await else {
        panic!("not everything")
    };
    assert_eq!(names, BTreeSet::from([fraud()]));
    assert_eq!(polled.read_named(plan()).await, names, "others that depend on it are woken");
}

#[tokio::test]
async fn what_was_read_is_used_while_the_slowest_list_is_being_read() {
    let (fake, polled) = registries();
    let churn: ModelName = "churn".parse().unwrap();
    fake.add_model("churn");
    fake.add_version("churn", 1);
    fake.fail("newest_versions_of", Some(unreachable()));
    let slow = fake.hold("newest_versions");
    let needs = FollowerNeeds::default();
    let models = BTreeSet::from([fraud(), churn.clone()]);
    let followed = models.iter().map(|name| (name.clone(), needs.clone())).collect();
    let plan = PollPlan { models: models.clone(), followed, ..PollPlan::default() };
    let (reports, mut reported) = tokio::sync::mpsc::unbounded_channel();
    let poll = {
        let polled = polled.clone();
        tokio::spawn(async move { polled.poll_in_parts(|| plan, |part| drop(reports.send(part))).await })
    };
    let mut next = async || loop {
        let part: PollChanges = reported.recv().await.unwrap();
        if part != PollChanges::default() {
            return part;
        }
    };
    assert_eq!(next().await, PollChanges { models: models.clone(), health: true });
    assert_eq!(polled.health().0, Some(Ok(())));
    assert!(models.iter().all(|name| matches!(polled.model(name), ModelView::Present(_))));
    let first = next().await.models;
    assert_eq!(first.len(), 1, "one list is held back");
    let is_listed = |name: &&ModelName| polled.listing(name, &needs).is_some();
    assert_eq!(models.iter().filter(is_listed).collect::<Vec<_>>(), Vec::from_iter(&first));
    slow.release();
    assert_eq!(poll.await.unwrap(), None);
    assert_eq!(models.iter().filter(is_listed).count(), 2);
}

#[tokio::test]
async fn the_versions_of_many_models_that_changed_are_read_together() {
    let (fake, polled) = registries();
    let plan = many(&fake);
    for name in plan().models {
        fake.add_version(name.as_str(), 7);
    }
    polled.poll(&plan).await;
    let last: ModelName = "m249".parse().unwrap();
    assert_eq!(fake.calls("newest_versions_of"), 3, "one request for each chunk");
    assert_eq!(polled.remembered_version(&last, version(7)).unwrap().unwrap().version, version(7));
    assert_eq!(polled.remembered_version(&last, version(8)), None, "it may be newer than the list");
    assert_eq!(polled.newest_versions(&last).await.unwrap().len(), 1);
    assert_eq!((fake.calls("newest_versions"), fake.calls("version")), (0, 0));
    polled.newest_versions(&last).await.unwrap();
    assert_eq!(fake.calls("newest_versions"), 1, "whoever looks again wants to see what changes no time");
    polled.poll(&plan).await;
    assert_eq!(fake.calls("newest_versions_of"), 3, "nothing has changed");
    let other: ModelName = "m100".parse().unwrap();
    assert!(polled.remembered_version(&other, version(7)).is_some(), "whoever was woken may look later");
}

/// After a start, thousands of objects ask for their models while the first poll reads them.
#[tokio::test]
async fn what_a_poll_is_about_to_read_is_not_asked_for_again() {
    let (fake, polled) = registries();
    let plan = many(&fake);
    let mut slow = fake.hold("models");
    let poll = {
        let (polled, plan) = (polled.clone(), plan());
        tokio::spawn(async move { polled.poll(|| plan).await })
    };
    slow.reached().await;
    assert!(plan().models.iter().all(|name| matches!(polled.model(name), ModelView::Unknown(_))));
    slow.release();
    poll.await.unwrap();
    assert!(is_present(&polled, "m249"));
    let soon = tokio::time::timeout(Duration::from_millis(10), polled.next_due(polled.next_regular_poll()));
    assert!(soon.await.is_err(), "nothing is left to read");
}

fn fraud_among(others: impl Fn() -> PollPlan) -> impl Fn() -> PollPlan {
    move || {
        let mut plan = others();
        plan.models.insert(fraud());
        plan
    }
}

#[tokio::test]
async fn a_version_that_was_read_ahead_is_not_used_once_its_model_has_changed() {
    let (fake, polled) = registries();
    let plan = fraud_among(many(&fake));
    fake.set_state("fraud", 1, VersionState::Pending);
    polled.poll(&plan).await;
    assert_eq!(polled.remembered_version(&fraud(), version(1)), None, "its registration is in progress");
    fake.set_state("fraud", 1, VersionState::Ready);
    fake.touch("fraud");
    polled.read_named(PollPlan { models: BTreeSet::from([fraud()]), ..PollPlan::default() }).await;
    assert_eq!(fake.calls("newest_versions_of"), 3, "a single model is not read ahead");
    assert_eq!(polled.remembered_version(&fraud(), version(1)), None);
    polled.newest_versions(&fraud()).await.unwrap();
    assert_eq!(fake.calls("newest_versions"), 1);
}

#[tokio::test]
async fn versions_that_cannot_be_read_together_are_read_one_by_one_and_hold_up_nothing() {
    let (fake, polled) = registries();
    let plan = fraud_among(many(&fake));
    fake.fail("newest_versions_of", Some(unreachable()));
    let outcome = polled.poll(&plan).await;
    assert_eq!((outcome.failure, outcome.changes.models), (None, plan().models));
    assert_eq!(polled.newest_versions(&fraud()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn followers_use_versions_that_were_read_ahead_unless_they_look_at_tags() {
    let (fake, polled) = registries();
    let all = fraud_among(many(&fake));
    let lists = async |needs: FollowerNeeds| {
        let before = fake.calls("newest_versions");
        fake.touch("fraud");
        fake.touch("m001");
        let followed = [(fraud(), needs)].into();
        polled.poll(|| PollPlan { followed, ..all() }).await;
        fake.calls("newest_versions") - before
    };
    assert_eq!(lists(FollowerNeeds::default()).await, 0);
    assert_eq!(lists(FollowerNeeds { has_tags: true, ..FollowerNeeds::default() }).await, 1);
}

fn about_drift() -> PollPlan {
    PollPlan { drift: BTreeSet::from([(fraud(), version(1))]), ..plan() }
}

#[tokio::test]
async fn tags_about_drift_are_read_where_a_rule_needs_them_and_with_few_polls() {
    let (fake, polled) = registries();
    fake.tag("fraud", 1, "laurel.drift.share", "0.1");
    fake.tag("fraud", 1, "validated", "true");
    polled.poll(plan).await;
    assert_eq!((polled.drift_tags(&fraud(), version(1)), fake.calls("version")), (None, 0));
    let changed = polled.poll(about_drift).await.changes.models;
    assert_eq!(changed, BTreeSet::from([fraud()]));
    let only = BTreeMap::from([("laurel.drift.share".to_owned(), "0.1".to_owned())]);
    assert_eq!(polled.drift_tags(&fraud(), version(1)), Some(only));
    let calls = fake.calls("version");
    fake.tag("fraud", 1, "laurel.drift.share", "0.2");
    assert_eq!(polled.poll(about_drift).await.changes.models, BTreeSet::new());
    assert_eq!(fake.calls("version"), calls, "not again so soon");
    assert_eq!(polled.read_named(about_drift()).await, BTreeSet::from([fraud()]), "a delivery is about it");
    let tags = polled.drift_tags(&fraud(), version(1)).unwrap();
    assert_eq!(tags["laurel.drift.share"], "0.2");
    polled.poll(plan).await;
    assert_eq!(polled.drift_tags(&fraud(), version(1)), None, "no rule needs them any more");
}

#[tokio::test]
async fn tags_about_drift_that_cannot_be_read_stay_as_they_were() {
    let (fake, polled) = registries();
    fake.tag("fraud", 1, "laurel.drift.share", "0.1");
    polled.poll(about_drift).await;
    fake.fail("version", Some(unreachable()));
    polled.read_named(about_drift()).await;
    assert!(polled.drift_tags(&fraud(), version(1)).is_some());
}

/// Thousands of ModelAliases with a rule do not hold up the next poll.
#[tokio::test]
async fn a_poll_reads_a_bounded_number_of_tags_about_drift_and_the_next_ones_the_others() {
    let (fake, polled) = registries();
    let all = || PollPlan { drift: (1..=250).map(|number| (fraud(), version(number))).collect(), ..plan() };
    let mut reads = Vec::new();
    for _ in 0..4 {
        let before = fake.calls("version");
        polled.poll(all).await;
        reads.push(fake.calls("version") - before);
    }
    assert_eq!(reads, [100, 100, 50, 0]);
}
