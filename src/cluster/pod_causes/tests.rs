use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use pretty_assertions::assert_eq;

use super::*;
use crate::{api::condition::Reason, cluster::pods};

fn version() -> Version {
    Version::new(4).unwrap()
}

fn pod(status: &str) -> Pod {
    serde_yaml::from_str(&format!("{{metadata: {{name: p, namespace: risk}}, status: {status}}}")).unwrap()
}

fn container(state: &str) -> String {
    format!(
        "{{containerStatuses: [{{name: model, image: 'r.example/x:1', imageID: '', ready: false, restartCount: 2, {state}}}]}}"
    )
}

fn waiting(reason: &str, message: &str) -> String {
    container(&format!("state: {{waiting: {{reason: {reason}, message: {message:?}}}}}"))
}

fn unscheduled(reason: &str, message: &str) -> String {
    format!(
        "{{conditions: [{{type: PodScheduled, status: 'False', reason: {reason}, message: {message:?}}}]}}"
    )
}

/// A status, the reason for it, and what its message contains: the report, the object or field, the next
/// step.
type Row = (String, Reason, &'static [&'static str]);

#[test]
fn a_status_is_reported_with_its_cause_and_the_next_step() {
    let table: Vec<Row> = vec![
        (
            waiting("ErrImagePull", "manifest unknown"),
            Reason::ImagePullFailed,
            &["r.example/x:1", "manifest unknown", "spec.serving.image", "imagePullSecrets"],
        ),
        (
            waiting("CreateContainerConfigError", "secret \"store\" not found"),
            Reason::ContainerConfigInvalid,
            &["create the Secret \"store\" in the namespace \"risk\"", "envFrom in spec.serving"],
        ),
        (
            waiting("CreateContainerConfigError", "configmap \"store\" not found"),
            Reason::ContainerConfigInvalid,
            &["create the ConfigMap \"store\" in the namespace \"risk\""],
        ),
        (
            waiting("CreateContainerConfigError", "couldn't find key token in Secret risk/store"),
            Reason::ContainerConfigInvalid,
            &["add the key \"token\" to the Secret \"store\" in the namespace \"risk\""],
        ),
        (
            waiting("RunContainerError", "exec: \"serve\": executable file not found in $PATH"),
            Reason::ContainerConfigInvalid,
            &["executable file not found", "command, args and volumeMounts in spec.serving.template"],
        ),
        (
            container(
                "state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 137, reason: OOMKilled}}",
            ),
            Reason::ModelCrashed,
            &["ran out of memory", "spec.serving.resources.limits.memory", "2 restarts"],
        ),
        (
            container("state: {terminated: {exitCode: 3, reason: Error, message: 'no model'}}"),
            Reason::ModelCrashed,
            &["exit code 3", "its last lines: no model"],
        ),
        (
            container("state: {terminated: {exitCode: 3, reason: Error}}"),
            Reason::ModelCrashed,
            &["exit code 3", "kubectl logs --previous"],
        ),
        (
            unscheduled("Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            Reason::Unschedulable,
            &["Insufficient nvidia.com/gpu", "request less in spec.serving.resources"],
        ),
        (
            unscheduled(
                "Unschedulable",
                "0/3 nodes are available: 3 node(s) had untolerated taint {gpu: x}.",
            ),
            Reason::Unschedulable,
            &["untolerated taint", "tolerations in spec.serving.template"],
        ),
        (
            unscheduled("Unschedulable", "persistentvolumeclaim \"cache\" not found"),
            Reason::Unschedulable,
            &["create the PersistentVolumeClaim \"cache\" in the namespace \"risk\""],
        ),
        (
            unscheduled("Unschedulable", "pod has unbound immediate PersistentVolumeClaims"),
            Reason::Unschedulable,
            &["kubectl get persistentvolumeclaims"],
        ),
        (
            unscheduled("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"),
            Reason::Unschedulable,
            &["schedulingGates"],
        ),
    ];
    for (status, reason, parts) in table {
        let cause = of_status(&pod(&status), version()).unwrap_or_else(|| panic!("nothing for {status}"));
        assert_eq!(cause.reason, reason, "{status}");
        for part in ["version 4"].iter().chain(parts) {
            assert!(cause.message.contains(part), "{part:?} is missing: {}", cause.message);
        }
    }
}

#[test]
fn a_container_that_starts_or_ended_as_it_should_is_no_error() {
    let states = [
        "state: {waiting: {reason: ContainerCreating}}",
        "state: {waiting: {reason: PodInitializing}}",
        "state: {running: {}}",
        "state: {terminated: {exitCode: 0, reason: Completed}}",
    ];
    for state in states {
        assert_eq!(of_status(&pod(&container(state)), version()), None, "{state}");
    }
}

#[test]
fn a_report_of_any_length_gives_a_short_message() {
    let long = "x".repeat(100_000);
    let causes = [
        of_status(&pod(&waiting("ErrImagePull", &long)), version()),
        of_status(&pod(&waiting("CreateContainerConfigError", &long)), version()),
        of_status(&pod(&unscheduled("Unschedulable", &long)), version()),
        of_end(&pod(&format!("{{phase: Failed, reason: Evicted, message: {long}}}")), version())
            .map(|ended| ended.cause),
        Some(refused(version(), &long, "risk")),
    ];
    for cause in causes {
        let cause = cause.unwrap();
        assert!(cause.message.len() < 1000, "{} bytes: {}", cause.message.len(), cause.reason);
    }
}

#[test]
fn a_pod_that_its_node_ended_or_rejected_is_reported() {
    let table: [(&str, Reason, &[&str]); 5] = [
        (
            "{phase: Failed, reason: Evicted, message: 'The node was low on resource: memory.'}",
            Reason::PodsEvicted,
            &["Evicted: The node was low on resource: memory.", "spec.serving.resources"],
        ),
        (
            "{phase: Failed, reason: Terminated, message: 'Pod was terminated in response to imminent node shutdown.'}",
            Reason::PodsEvicted,
            &["imminent node shutdown", "another pod is started"],
        ),
        (
            "{phase: Failed, reason: UnexpectedAdmissionError, message: 'no healthy devices present'}",
            Reason::PodStartFailed,
            &["UnexpectedAdmissionError: no healthy devices present", "device plugins"],
        ),
        (
            "{phase: Failed, reason: OutOfcpu, message: 'Node did not have enough resource: cpu'}",
            Reason::PodStartFailed,
            &["request less in spec.serving.resources"],
        ),
        (
            "{phase: Failed, reason: NodeAffinity}",
            Reason::PodStartFailed,
            &["nodeSelector and affinity in spec.serving.template"],
        ),
    ];
    for (status, reason, parts) in table {
        let cause = of_end(&pod(status), version()).unwrap().cause;
        assert_eq!(cause.reason, reason, "{status}");
        for part in parts {
            assert!(cause.message.contains(part), "{part:?} is missing: {}", cause.message);
        }
    }
    for other in
        ["{phase: Failed}", "{phase: Succeeded, reason: Completed}", "{phase: Running, reason: Evicted}"]
    {
        assert_eq!(of_end(&pod(other), version()), None, "{other}");
    }
}

#[test]
fn pods_that_are_not_admitted_are_reported_with_what_to_change() {
    let table = [
        ("pods \"x\" is forbidden: exceeded quota: team, requested: pods=1", "raise the quota"),
        ("pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"", "pod security level"),
        ("admission webhook \"v.example\" denied the request: no", "the policy allows"),
        (
            "error looking up service account risk/m: serviceaccount \"m\" not found",
            "create the ServiceAccount \"m\"",
        ),
        (
            "pods \"x\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi.",
            "limitranges",
        ),
        ("something else", "spec.serving"),
    ];
    for (said, next) in table {
        let cause = refused(version(), said, "risk");
        assert_eq!(cause.reason, Reason::PodsRefused);
        assert!(cause.message.contains(said) && cause.message.contains(next), "{}", cause.message);
    }
}

fn awaited(stage: Stage) -> AwaitedPod {
    AwaitedPod {
        uid: "u".into(),
        namespace: "risk".into(),
        version: version(),
        stage,
        was_killed: false,
        ip: Some("10.2.3.4".into()),
        created: None,
    }
}

fn event(reason: &str, note: &str, second: i64) -> PodEvent {
    PodEvent { reason: reason.into(), note: note.into(), at: Timestamp::from_second(second).ok() }
}

const NO_SECRET: &str = "MountVolume.SetUp failed for volume \"creds\" : secret \"s3\" not found";

fn error(pod: &AwaitedPod, events: &[PodEvent]) -> (Reason, String) {
    match of_events(pod, events) {
        Some(Explanation::Error(cause)) => (cause.reason, cause.message),
        other => panic!("{other:?}"),
    }
}

/// A stage, the Events with reason and note, the reason for them, and what its message contains.
type EventRow<'a> = (Stage, &'a [(&'a str, &'a str)], Reason, &'a [&'a str]);

#[test]
fn events_are_reported_with_the_object_and_the_next_step() {
    let timed_out =
        "Unable to attach or mount volumes: unmounted volumes=[creds]: timed out waiting for the condition";
    let multi = "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) other";
    let table: [EventRow; 7] = [
        (
            Stage::Preparing,
            &[("FailedMount", NO_SECRET), ("FailedMount", timed_out)],
            Reason::VolumeMountFailed,
            &[
                "secret \"s3\" not found",
                "create the Secret \"s3\" in the namespace \"risk\"",
                "spec.serving.template",
            ],
        ),
        (
            Stage::Preparing,
            &[("FailedMount", "MountVolume.SetUp failed for volume \"c\" : configmap \"c\" not found")],
            Reason::VolumeMountFailed,
            &["create the ConfigMap \"c\""],
        ),
        (
            Stage::Preparing,
            &[(
                "FailedMount",
                "MountVolume.SetUp failed for volume \"c\" : references non-existent secret key: k",
            )],
            Reason::VolumeMountFailed,
            &["secret key: k", "add the key"],
        ),
        (
            Stage::Preparing,
            &[("FailedAttachVolume", multi), ("FailedMount", timed_out)],
            Reason::VolumeMountFailed,
            &["Multi-Attach", "ReadWriteMany"],
        ),
        (
            Stage::Preparing,
            &[("FailedMount", timed_out)],
            Reason::VolumeMountFailed,
            &["unmounted volumes=[creds]"],
        ),
        (
            Stage::Preparing,
            &[("FailedCreatePodSandBox", "Failed to create pod sandbox: no IP addresses available")],
            Reason::PodStartFailed,
            &["no IP addresses available", "network plugin"],
        ),
        (
            Stage::Unplaced,
            &[("FailedScheduling", "0/1 nodes are available: 1 Too many pods.")],
            Reason::Unschedulable,
            &["Too many pods", "add capacity"],
        ),
    ];
    for (stage, notes, reason, parts) in table {
        let events: Vec<PodEvent> =
            (1..).zip(notes).map(|(second, (reason, note))| event(reason, note, second)).collect();
        let (found, message) = error(&awaited(stage), &events);
        assert_eq!(found, reason, "{message}");
        for part in ["version 4"].iter().chain(parts) {
            assert!(message.contains(part), "{part:?} is missing: {message}");
        }
    }
}

#[test]
fn what_happened_before_the_pod_came_so_far_is_over() {
    let events = [event("FailedScheduling", "no node", 1), event("FailedMount", NO_SECRET, 2)];
    assert_eq!(of_events(&awaited(Stage::Started), &events), None, "its volumes are mounted");
    assert_eq!(of_events(&awaited(Stage::Preparing), &events[..1]), None, "it is on a node");
    assert_eq!(of_events(&awaited(Stage::Preparing), &[]), None);
}

#[test]
fn of_two_kinds_of_events_the_same_one_is_reported_whichever_came_last() {
    let preparing = awaited(Stage::Preparing);
    let kinds = [("FailedCreatePodSandBox", "no network"), ("FailedMount", NO_SECRET)];
    let newest = |last: usize| {
        let events = [0, 1].map(|index| {
            let (reason, note) = kinds[index];
            event(reason, note, if index == last { 30 } else { 1 })
        });
        [error(&preparing, &events), error(&preparing, &[events[1].clone(), events[0].clone()])]
    };
    let all = [newest(0), newest(1)].concat();
    assert!(all.iter().all(|reported| *reported == all[0]), "{all:#?}");
    assert_eq!(all[0].0, Reason::PodStartFailed, "there are no volumes without a sandbox");
}

#[test]
fn an_event_that_is_not_repeated_any_more_is_no_cause() {
    let preparing = awaited(Stage::Preparing);
    let events = [event("FailedCreatePodSandBox", "no network", 0), event("FailedMount", NO_SECRET, 600)];
    assert_eq!(error(&preparing, &events).0, Reason::VolumeMountFailed);
}

#[test]
fn a_failing_probe_is_no_error_unless_the_container_was_killed_for_it() {
    let readiness =
        event("Unhealthy", "Readiness probe failed: Get \"http://10.2.3.4:8080/ping\": refused", 5);
    let liveness = event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500", 4);
    let pod = awaited(Stage::Started);
    let said = "Readiness probe failed: Get \"http://the pod:8080/ping\": refused".to_owned();
    assert_eq!(of_events(&pod, &[readiness.clone(), liveness.clone()]), Some(Explanation::Probe(said)));
    let killed = AwaitedPod { was_killed: true, ..pod };
    assert_eq!(
        of_events(&killed, std::slice::from_ref(&readiness)),
        None,
        "nothing is killed for its readiness"
    );
    let (reason, message) = error(&killed, &[readiness, liveness]);
    assert_eq!(reason, Reason::ModelCrashed);
    assert!(message.contains("statuscode: 500") && message.contains("livenessProbe"), "{message}");
}

#[test]
fn a_pod_comes_from_no_node_over_its_volumes_to_its_containers() {
    let stage = |status: &str| pods::view(&pod(status), version()).stage;
    let scheduled = "{type: PodScheduled, status: 'True'}";
    let placed = format!("{{startTime: '2026-01-01T00:00:00Z', conditions: [{scheduled}]}}");
    assert_eq!(stage("{phase: Pending}"), Stage::Unplaced);
    assert_eq!(stage(&placed), Stage::Preparing);
    let sandbox = format!(
        "{{startTime: '2026-01-01T00:00:00Z', conditions: [{scheduled}, {{type: PodReadyToStartContainers, status: 'True'}}]}}"
    );
    assert_eq!(stage(&sandbox), Stage::Started);
    assert_eq!(stage(&container("state: {running: {}}")), Stage::Started);
}

#[test]
fn events_explain_only_what_the_status_does_not() {
    let workload = |error: Option<Reason>| {
        let text =
            "{desired: 1, pods: 1, ready: 0, rolled_out: false, settings: v1-a, model_uri: 'models:/m/4'}";
        let mut workload: crate::decide::Workload = serde_yaml::from_str(text).unwrap();
        workload.error = error.map(|reason| ReasonMessage::new(reason, "status"));
        ClusterView { workloads: [(version(), workload)].into(), ..ClusterView::default() }
    };
    let explained = |mut cluster: ClusterView, pod: &AwaitedPod| {
        let events = vec![event("FailedMount", NO_SECRET, 1), event("Unhealthy", "Liveness probe failed", 1)];
        explain(&mut cluster, std::slice::from_ref(pod), |uid| {
            if uid == "u" { events.clone() } else { Vec::new() }
        });
        let workload = cluster.workloads.remove(&version()).unwrap();
        (workload.error.map(|cause| cause.reason), workload.failing_probe)
    };
    let preparing = awaited(Stage::Preparing);
    assert_eq!(explained(workload(None), &preparing), (Some(Reason::VolumeMountFailed), None));
    let quota = explained(workload(Some(Reason::PodsRefused)), &preparing);
    assert_eq!(quota, (Some(Reason::PodsRefused), None));
    let started = awaited(Stage::Started);
    assert_eq!(explained(workload(None), &started), (None, Some("Liveness probe failed".to_owned())));
    assert_eq!(explained(workload(None), &AwaitedPod { uid: "other".into(), ..preparing }), (None, None));
}

mod in_the_cache {
    use k8s_openapi::api::apps::v1::Deployment;
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::{
        api::model_alias::AliasKey,
        cluster::cache::{Cache, Claim, Projected},
    };

    fn key() -> AliasKey {
        ("risk".into(), "fraud".into())
    }

    fn cache() -> Cache {
        let cache = Cache::default();
        let deployment: Deployment = serde_yaml::from_str(
            "{metadata: {name: fraud-v4, labels: {laurel.dev/version: '4'}, ownerReferences: [{apiVersion: v1, kind: K, \
             name: n, uid: u, controller: true}], annotations: {laurel.dev/settings: new, laurel.dev/model-uri: \
             'models:/m/4'}}, spec: {replicas: 1, selector: {}, template: {}}}",
        )
        .unwrap();
        deployment.insert(&cache, &key());
        cache
    }

    fn insert(cache: &Cache, name: &str, settings: &str, created: &str, status: &str) {
        let text = format!(
            "{{metadata: {{name: {name}, namespace: risk, uid: {name}, creationTimestamp: '2026-01-01T{created}Z', labels: \
             {{laurel.dev/version: '4'}}, annotations: {{laurel.dev/settings: {settings}}}}}, status: {status}}}"
        );
        serde_yaml::from_str::<Pod>(&text).unwrap().insert(cache, &key());
    }

    fn seen(cache: &Cache) -> crate::decide::Workload {
        let claim = Claim { uid: "u", model: None, alias: "champion" };
        cache.view(&key(), &claim, None, |_| None).workloads[&version()].clone()
    }

    const EVICTED: &str =
        "{phase: Failed, reason: Evicted, message: low on resource, startTime: '2026-01-01T00:00:00Z'}";

    #[test]
    fn an_eviction_is_reported_until_the_replacement_is_ready() {
        let cache = cache();
        insert(&cache, "a", "new", "00:00:00", EVICTED);
        let reported = |cache: &Cache| seen(cache).error.map(|cause| cause.reason);
        assert_eq!(reported(&cache), Some(Reason::PodsEvicted), "there is no other pod yet");
        insert(&cache, "b", "new", "00:00:05", "{phase: Pending}");
        assert_eq!(reported(&cache), Some(Reason::PodsEvicted));
        insert(&cache, "b", "new", "00:00:05", &waiting("ErrImagePull", "no"));
        assert_eq!(
            reported(&cache),
            Some(Reason::ImagePullFailed),
            "what the pod itself reports comes first"
        );
        insert(&cache, "b", "new", "00:00:05", "{conditions: [{type: Ready, status: 'True'}]}");
        assert_eq!(reported(&cache), None);
        Pod::remove(&cache, &key(), "b");
        insert(&cache, "c", "new", "09:00:00", "{phase: Pending}");
        assert_eq!(reported(&cache), None, "an old eviction explains no pod of today");
        for (key, name) in Pod::names(&cache) {
            Pod::remove(&cache, &key, &name);
        }
        Deployment::remove(&cache, &key(), "fraud-v4");
        assert_eq!(
            format!("{cache:?}"),
            format!("{:?}", Cache::default()),
            "nothing is left of what is gone"
        );
    }

    #[test]
    fn only_pods_whose_status_explains_nothing_are_looked_up_and_few_of_them() {
        let cache = cache();
        insert(&cache, "a", "old", "00:00:00", "{phase: Pending}");
        insert(&cache, "b", "new", "00:00:00", "{phase: Pending}");
        insert(&cache, "c", "new", "00:00:00", "{phase: Pending}");
        insert(&cache, "d", "new", "00:00:00", &waiting("ErrImagePull", "no"));
        insert(&cache, "e", "new", "00:00:00", "{conditions: [{type: Ready, status: 'True'}]}");
        let uids = |uid| {
            let claim = Claim { uid, model: None, alias: "champion" };
            cache.awaited_pods(&key(), &claim).into_iter().map(|pod| pod.uid).collect::<Vec<_>>()
        };
        assert_eq!(uids("u"), ["b", "c"], "those with the settings of today first");
        assert_eq!(uids("somebody else"), [] as [String; 0]);
        let workload = seen(&cache);
        assert_eq!((workload.updated_ready, workload.outdated), (1, 1));
    }
}
