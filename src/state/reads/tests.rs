//! Reads that run, wait and are remembered.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use pretty_assertions::assert_eq;
use tokio::sync::oneshot;

use super::*;

fn key(version: u32) -> ReadKey {
    let url = "http://mlflow:5000".parse().unwrap();
    ReadKey {
        registry: RegistryKey::Cluster { name: "mlflow".to_owned() },
        identity: RegistryIdentity::new(&url, None),
        model: "fraud".parse().unwrap(),
        seen: (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH),
        what: What::Version(Version::new(version).unwrap()),
        priority: Priority::Poll,
    }
}

fn alias(name: &str) -> Waiter {
    Waiter::Alias(("risk".to_owned(), name.to_owned()))
}

#[tokio::test]
async fn a_late_answer_is_kept_and_wakes_everybody_who_waits_for_it_once() {
    let (requeue, mut streams) = Requeue::new();
    let reads = Reads::new(requeue, FRESH, |_| false);
    let (sender, answer) = oneshot::channel();
    assert_eq!(reads.last(key(1), &alias("a"), None, async { answer.await.unwrap() }).ok(), None);
    let begun = reads.lock().reads[&key(1)].running.unwrap();
    for name in ["a", "b"] {
        let last = reads.last(key(1), &alias(name), None, async { panic!("it is being read") });
        assert_eq!(last, Err(begun), "it was not begun again");
    }
    sender.send(7).unwrap();
    let woken = [streams.aliases.next().await.unwrap(), streams.aliases.next().await.unwrap()];
    assert_eq!(woken.map(|alias| alias.name).into_iter().collect::<HashSet<_>>().len(), 2);
    assert_eq!(reads.last(key(1), &alias("a"), None, async { panic!("it is fresh") }), Ok(7));
}

#[tokio::test]
async fn reads_of_thousands_of_objects_run_a_few_at_a_time_and_the_urgent_one_next() {
    let (requeue, mut streams) = Requeue::new();
    let reads = Reads::new(requeue, FRESH, |_| true);
    let (running, most, order) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Mutex<Vec<u32>>>)>::default();
    let start = |version: u32, priority| {
        let (running, most, order) = (running.clone(), most.clone(), order.clone());
        let read = async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            order.lock().push(version);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            version
        };
        let key = ReadKey { priority, ..key(version) };
        assert!(reads.last(key, &alias(&version.to_string()), None, read).is_err());
    };
    for version in 1..=10_000 {
        start(version, Priority::Poll);
    }
    start(10_001, Priority::Decision);
    for _ in 0..=10_000 {
        streams.aliases.next().await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), UNNEEDED_AT_ONCE + 1);
    let mut order = order.lock().clone();
    assert_eq!(
        order.iter().position(|version| *version == 10_001),
        Some(UNNEEDED_AT_ONCE),
        "it did not wait"
    );
    order.sort_unstable();
    assert!(order.into_iter().eq(1..=10_001), "each is read once");
    while !reads.lock().backlogs.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn needed_reads_leave_no_room_for_others_and_each_runs_in_the_end() {
    let (requeue, mut streams) = Requeue::new();
    let reads = Reads::new(requeue, FRESH, |_| true);
    let gate = tokio::sync::watch::Sender::new(false);
    let begun = Arc::new(AtomicUsize::new(0));
    let start = |version: u32, priority| {
        let (mut opened, begun) = (gate.subscribe(), begun.clone());
        let read = async move {
            begun.fetch_add(1, Ordering::SeqCst);
            opened.wait_for(|is_open| *is_open).await.unwrap();
            version
        };
        let key = ReadKey { priority, ..key(version) };
        assert!(reads.last(key, &alias(&version.to_string()), None, read).is_err());
    };
    for version in 1..=100 {
        start(version, Priority::Poll);
    }
    for version in 101..=200 {
        start(version, Priority::Decision);
    }
    let expect = async |count| {
        while begun.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    };
    expect(AT_ONCE).await;
    let running = |backlog: &Backlog<u32>| (backlog.needed.running, backlog.unneeded.running);
    let expected = (AT_ONCE - UNNEEDED_AT_ONCE, UNNEEDED_AT_ONCE);
    assert_eq!(reads.lock().backlogs.values().map(running).collect::<Vec<_>>(), [expected]);
    gate.send_replace(true);
    for _ in 0..200 {
        streams.aliases.next().await.unwrap();
    }
    while !reads.lock().backlogs.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_read_that_panics_is_begun_again() {
    let (requeue, mut streams) = Requeue::new();
    let reads = Reads::new(requeue, FRESH, |_| true);
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let panics = async move {
        count.fetch_add(1, Ordering::SeqCst);
        panic!("a defect")
    };
    assert_eq!(reads.last(key(1), &alias("a"), None, panics).ok(), None);
    while begun.load(Ordering::SeqCst) == 0 || reads.lock().reads[&key(1)].running.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(reads.last(key(1), &alias("a"), None, async { 7 }).ok(), None);
    assert_eq!(streams.aliases.next().await.unwrap().name, "a");
}

#[tokio::test]
async fn only_who_waited_gets_an_old_answer_and_only_once() {
    let (requeue, mut streams) = Requeue::new();
    let reads = Reads::new(requeue, FRESH, |answer| *answer == 0);
    let age = |version| {
        let mut store = reads.lock();
        let (at, _) = store.reads.get_mut(&key(version)).unwrap().answer.as_mut().unwrap();
        *at = Instant::now().checked_sub(FRESH).unwrap();
    };
    for (version, answer) in [(1, 7), (2, 0)] {
        assert_eq!(reads.last(key(version), &alias("a"), None, async move { answer }).ok(), None);
        streams.aliases.next().await.unwrap();
        age(version);
        assert_eq!(reads.last(key(version), &alias("a"), None, async { panic!("it is there") }), Ok(answer));
    }
    assert_eq!(reads.last(key(1), &alias("b"), Some(8), async { panic!("it is known") }), Ok(8));
    assert_eq!(reads.last(key(1), &alias("a"), None, async { 7 }).ok(), None, "it may be out of date");
    assert_eq!(streams.aliases.next().await.unwrap().name, "a");
    assert_eq!(reads.last(key(2), &alias("b"), None, async { 0 }), Ok(0), "it may be stale");
}

#[tokio::test]
async fn an_answer_that_is_never_fresh_is_returned_once_to_each_who_waited() {
    let (requeue, mut streams) = Requeue::new();
    let reads = Reads::new(requeue, Duration::ZERO, |_| false);
    for answer in [7, 8] {
        assert_eq!(reads.last(key(1), &alias("a"), None, async move { answer }).ok(), None);
        streams.aliases.next().await.unwrap();
        assert_eq!(reads.last(key(1), &alias("a"), None, async { panic!("it is there") }), Ok(answer));
    }
}

#[tokio::test]
async fn what_nobody_needs_is_dropped() {
    let reads = Reads::new(Requeue::new().0, FRESH, |_| true);
    for version in 1..=1000 {
        assert!(reads.last(key(version), &alias("a"), None, async { 7 }).is_err());
        tokio::task::yield_now().await;
        let long_ago = Instant::now().checked_sub(KEPT).unwrap();
        for read in reads.lock().reads.values_mut() {
            read.running = None;
            read.answer = Some((long_ago, 7));
        }
    }
    assert!(reads.lock().reads.len() <= FEW, "{}", reads.lock().reads.len());
}

#[tokio::test]
async fn registered_models_are_woken_like_model_aliases() {
    let (requeue, mut streams) = Requeue::new();
    let reads = Reads::new(requeue, FRESH, |_| true);
    let model = Waiter::Model("risk".to_owned(), "fraud".to_owned());
    assert!(reads.last(key(1), &model, None, async { 7 }).is_err());
    assert_eq!(streams.models.next().await.unwrap().name, "fraud");
    assert_eq!(reads.last(key(1), &model, None, async { panic!("it is fresh") }), Ok(7));
}
