//! From an admitted ModelAlias to the written status: the properties of each step.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{now, observation, read};
use crate::{
    api::{
        ModelAlias, ModelAliasStatus, RegistryStatus,
        condition::{Reason, ReasonMessage},
        model_alias::REPLICAS_MAX,
        names::Version,
        std_duration,
    },
    decide::{
        Action, Blocker, BlockerScope, Decision, Lifecycle, Observed, Outbox, Readiness, Shares, Traffic,
        decide,
    },
    fuzzing::{
        names::is_label_value,
        schema::{Admission, Generator},
    },
    registry::{
        limiter::Limits,
        polled::{Registries, RegistryKey, Settings},
    },
    render::{self, RegistryForPods, Selection},
    resolve::{Model, Subject},
    status::{self, Applied, SubjectStatus},
};

/// `stored` is the ModelAlias as stored by the API server.
pub(super) fn judge(alias: &ModelAlias, stored: Value, admission: &Admission, generator: &mut Generator) {
    let subject = Subject::new(alias, Ok(model(generator)));
    let invalid = subject.rendering().and_then(|rendering| render::validate(&rendering).err());
    let is_invalid = invalid.is_some();
    let blocker = invalid.map(|violation| Blocker {
        cause: ReasonMessage::new(Reason::InvalidTemplate, format!("spec.{violation}")),
        scope: BlockerScope::Changes,
    });
    let intent = subject.intent(blocker);
    let settings = intent.serving.as_ref().and_then(|serving| serving.settings.clone()).unwrap_or_default();
    let observed = Observed {
        now: now(),
        intent,
        registry: observation::registry(generator),
        cluster: observation::cluster(generator, &settings),
        outbox: Outbox::default(),
        live: None,
        status: alias.status.clone().unwrap_or_default(),
    };
    let decision = decide(&observed);
    assert_eq!(decision, decide(&observed), "the same observation, another decision");
    assert!(decision.wake.is_none_or(|at| at > observed.now), "it wakes in the past");
    if observed.intent.lifecycle == Lifecycle::Suspended {
        assert!(decision.actions.is_empty(), "{:?} although nothing is allowed", decision.actions);
    }
    if observed.intent.lifecycle == Lifecycle::Suspended || (is_invalid && !is_ending(&observed)) {
        let readiness = &decision.report.readiness;
        assert!(matches!(readiness, Readiness::Stalled(_) | Readiness::Suspended(_)), "{readiness:?}");
    }
    for action in &decision.actions {
        sound(action, &observed, &decision);
        rendered(action, &subject);
    }
    traffic(&observed, &decision);
    let status = status_after(alias, &observed, &decision, generator);
    written(stored, &status, admission);
}

fn is_ending(observed: &Observed) -> bool {
    matches!(observed.intent.lifecycle, Lifecycle::Deleting { .. })
}

fn model(generator: &mut Generator) -> Model {
    let url: url::Url = "http://mlflow.mlops.svc:5000".parse().unwrap();
    let settings = Settings {
        url: url.clone(),
        workspace: None,
        poll_interval: std_duration(crate::api::model_registry::default_poll_interval()),
        limits: Limits::default(),
        pods: RegistryForPods { tracking_uri: url, workspace: None, ca: None, env_from: Vec::new() },
    };
    let (registry, _) =
        Registries::default().set(&RegistryKey::Cluster { name: "mlflow".to_owned() }, settings);
    let name = generator.text().parse().unwrap_or_else(|_| "fraud".parse().unwrap());
    Model { name, registry, promotion: Vec::new() }
}

/// Properties of a single action.
fn sound(action: &Action, observed: &Observed, decision: &Decision) {
    let registry = &observed.registry;
    match action {
        Action::Route(Traffic::Nowhere) => panic!("a Service that selects nothing"),
        Action::Route(Traffic::One(version)) => {
            let ready = observed.cluster.workloads.get(version).is_some_and(|workload| workload.ready > 0);
            let stays = observed.cluster.traffic == Traffic::One(*version);
            assert!(ready || stays, "traffic moves to version {version}, which is not ready");
        }
        Action::Apply { version, replicas, .. } | Action::Scale { version, replicas } => {
            assert!(*replicas <= REPLICAS_MAX, "{replicas} pods of version {version}");
        }
        Action::SetAlias { .. } | Action::DeleteAlias { .. } | Action::WriteAudit { .. } => {
            assert!(registry.error.is_none(), "the registry is written although it does not respond");
        }
        Action::SmokeTest { version, attempt } => {
            assert_eq!(*attempt, observed.attempt(*version), "of another attempt");
            assert!(observed.cluster.workloads.contains_key(version), "of a version that does not exist");
        }
        Action::FillInReplicas { replicas } => {
            assert!((1..=REPLICAS_MAX).contains(replicas), "{replicas} pods");
        }
        Action::Share(shares) => {
            let sum: u32 = shares.iter().map(|(_, weight)| weight).sum();
            assert_eq!(sum, Shares::WHOLE, "the shares add up to the whole");
            let before = observed.cluster.route.as_ref().map(|route| &route.shares);
            for (version, weight) in shares.iter() {
                let grows = weight > before.map_or(0, |before| before.of(version));
                let ready =
                    observed.cluster.workloads.get(&version).is_some_and(|workload| workload.ready > 0);
                assert!(ready || !grows, "version {version} is not ready and gets {weight}");
            }
            if let Some(mirror) = shares.mirror() {
                let service = observed.cluster.version_services.get(&mirror.version);
                assert!(
                    service.is_some_and(|service| service.has_endpoints),
                    "copies lead nowhere: {mirror:?}"
                );
            }
        }
        Action::SetFinalizer { .. }
        | Action::Route(_)
        | Action::DeleteRoute
        | Action::ApplyVersionService { .. }
        | Action::DeleteVersionService { .. }
        | Action::Delete { .. }
        | Action::DeleteService
        | Action::Adopt(_)
        | Action::Protect(_)
        | Action::DeleteBudget => {}
    }
    let is_free = observed.intent.blocker.is_none() || is_ending(observed);
    let is_among_ours = matches!(
        action,
        Action::Route(_)
            | Action::Scale { .. }
            | Action::Share(_)
            | Action::ApplyVersionService { .. }
            | Action::Protect(_)
    );
    assert!(is_free || is_among_ours, "{action:?} against {decision:?}");
}

/// What an action writes can be rendered, and has valid names.
fn rendered(action: &Action, subject: &Subject<'_>) {
    let Some(rendering) = subject.rendering() else { return };
    let labels = match action {
        Action::Apply { version, model_uri, replicas } => {
            let deployment = render::deployment(&rendering, *version, model_uri, *replicas, now())
                .expect("it was validated")
                .object;
            let name = deployment.name_any();
            assert!(super::is_dns_subdomain(&name) && name.len() <= 63 && !name.contains('.'), "{name:?}");
            deployment.metadata.labels
        }
        Action::Route(Traffic::One(version)) => {
            let service = render::service(&rendering.service(), Selection::One(*version));
            assert!(service.spec.unwrap().selector.is_some_and(|selector| selector.len() == 2));
            service.metadata.labels
        }
        _ => None,
    };
    for value in labels.iter().flatten().map(|(_, value)| value) {
        assert!(is_label_value(value), "no label: {value:?}");
    }
}

/// The serving version is neither deleted nor scaled to zero, before or after these actions.
fn traffic(observed: &Observed, decision: &Decision) {
    if observed.intent.serving.is_none() || is_ending(observed) {
        return;
    }
    let mut selected: BTreeSet<Version> = match observed.cluster.traffic {
        Traffic::One(version) => [version].into(),
        Traffic::Shared => observed.cluster.endpoints.clone(),
        Traffic::Nowhere => BTreeSet::new(),
    };
    for action in &decision.actions {
        match action {
            Action::Route(Traffic::One(version)) => selected = [*version].into(),
            Action::Delete { version } | Action::Scale { version, replicas: 0 } => {
                let shared = observed.cluster.traffic == Traffic::Shared;
                assert!(shared || !selected.contains(version), "version {version} answers, and {action:?}");
            }
            _ => {}
        }
    }
}

/// Computes the status, after all actions or only some.
fn status_after(
    alias: &ModelAlias,
    observed: &Observed,
    decision: &Decision,
    generator: &mut Generator,
) -> ModelAliasStatus {
    let done = decision.actions.len() - generator.below(decision.actions.len() + 1);
    let failed = decision.actions.get(done);
    let (begun, done) = decision.actions[..done].iter().cloned().partition(Action::goes_on);
    let mut applied = Applied { done, begun, ..Applied::default() };
    if let Some(failed) = failed {
        applied.failed(failed, ReasonMessage::new(Reason::ApplyRefused, generator.text()));
    }
    let identity = SubjectStatus {
        generation: alias.metadata.generation,
        registry: Some(RegistryStatus {
            kind: "ModelRegistry".to_owned(),
            name: "mlflow".to_owned(),
            url: "http://mlflow.mlops.svc:5000".to_owned(),
            workspace: None,
        }),
        model_name: Some("fraud".to_owned()),
        endpoint: None,
        selector: None,
    };
    let next = status::next(observed, decision, &applied, &identity);
    let _ = status::events(&observed.status, &next, &applied);
    let states = ["Ready", "Reconciling", "Stalled"];
    let holding = next.conditions.iter().filter(|condition| condition.status == "True");
    let holding = holding.filter(|condition| states.contains(&condition.type_.as_str())).count();
    let is_suspended = matches!(decision.report.readiness, Readiness::Suspended(_));
    assert!(holding == 1 || (holding == 0 && is_suspended), "{:?}", next.conditions);
    next
}

/// The API server accepts the status unchanged.
fn written(mut object: Value, status: &ModelAliasStatus, admission: &Admission) {
    object["status"] = json!(status);
    let written = object["status"].clone();
    match admission.admit(object) {
        Ok(stored) => {
            assert_eq!(stored["status"], written, "something of the status is lost");
            read::<ModelAlias>(stored);
        }
        Err(violations) => panic!("the API server rejects the status: {violations:?}"),
    }
}
