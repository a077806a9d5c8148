//! The desired state, validated and with its references followed.

use jiff::SignedDuration;
use kube::ResourceExt;

use super::{Subject, rules_for};
use crate::{
    api::{
        APPROVE_ANNOTATION, CHANGED_BY_ANNOTATION, COMMIT_ANNOTATION, DeletionPolicy, ModelAlias,
        ModelAliasSpec, RETRY_ANNOTATION,
        condition::shortened,
        model_alias::{
            CanaryStep, Rollout, Runtime, Serving, SmokeTest, SmokeTestMode, StepApproval, Strategy,
        },
        signed_duration,
        traffic::{Challenger, TrafficSpec},
    },
    cluster::finalizer,
    decide::{
        ApprovalIntent, Blocker, ChallengerIntent, Desired, Follower, Intent, Lifecycle, ServingIntent,
        ShareIntent, SmokeTestIntent, StepIntent, StrategyIntent,
    },
    render,
};

impl Subject<'_> {
    /// Returns the desired state; `blocker` is what blocks work on it.
    #[must_use]
    pub fn intent(&self, blocker: Option<Blocker>) -> Intent {
        let (alias, spec) = (self.object, self.spec());
        let lifecycle = match self.deleting_since {
            Some(since) => Lifecycle::Deleting { since },
            None if spec.suspend => Lifecycle::Suspended,
            None => Lifecycle::Active,
        };
        Intent {
            desired: match (spec.version, follower(spec)) {
                (Some(version), _) => Desired::Version(version),
                (None, Some(follower)) => Desired::Chosen(follower),
                (None, None) => Desired::Registry,
            },
            serving: self.serving_intent(),
            previous_alias: spec.previous_alias.clone(),
            drift: spec.drift,
            lifecycle,
            deletes_alias: spec.deletion_policy == DeletionPolicy::Delete,
            has_finalizer: finalizer::is_set(&alias.metadata, finalizer::REGISTRY_ALIAS),
            rules: self
                .model
                .as_ref()
                .map_or_else(|_| Vec::new(), |model| rules_for(&model.promotion, &spec.alias)),
            retry: alias.annotations().get(RETRY_ANNOTATION).cloned(),
            approval: approval(alias),
            changed_by: annotation_text(alias, CHANGED_BY_ANNOTATION),
            commit: annotation_text(alias, COMMIT_ANNOTATION),
            blocker,
        }
    }

    fn serving_intent(&self) -> Option<ServingIntent> {
        let (serving, rollout) = (self.spec().serving.as_ref()?, &self.spec().rollout);
        let settings = self.rendering().map(|rendering| render::settings(&rendering).as_str().to_owned());
        Some(ServingIntent {
            replicas: serving.replicas.unwrap_or(1),
            size_is_open: serving.replicas.is_none(),
            settings,
            strategy: match rollout.strategy {
                Strategy::BlueGreen | Strategy::Canary => StrategyIntent::BlueGreen,
                Strategy::Rolling => StrategyIntent::Rolling { max_surge: rollout.max_surge.unwrap_or(1) },
            },
            routed: self.spec().traffic.is_some(),
            route_ref: self.spec().traffic.as_ref().and_then(|traffic| traffic.route_ref.clone()),
            steps: steps(rollout),
            challengers: self.spec().traffic.as_ref().map(challengers).unwrap_or_default(),
            progress_deadline: signed_duration(rollout.progress_deadline),
            warm_for: signed_duration(rollout.warm_for),
            counts_requests: render::metrics_port(serving).is_some(),
            watch_for: rollout.watch_for.map(signed_duration),
            history: rollout.revision_history_limit as usize,
            smoke_test: smoke_test_intent(serving, &rollout.smoke_test),
        })
    }
}

fn steps(rollout: &Rollout) -> Vec<StepIntent> {
    let is_canary = rollout.strategy == Strategy::Canary;
    let steps = rollout.steps.iter().filter(|_| is_canary);
    steps.map(step_intent).collect()
}

/// The API server accepts exactly one of them.
fn share(weight: Option<u32>, mirror: Option<u32>) -> ShareIntent {
    weight
        .map(ShareIntent::Weight)
        .or_else(|| mirror.map(ShareIntent::Mirror))
        .unwrap_or(ShareIntent::Weight(1))
}

fn step_intent(step: &CanaryStep) -> StepIntent {
    StepIntent {
        share: share(step.weight, step.mirror),
        at_least: signed_duration(step.at_least),
        at_most: step.at_most.map(signed_duration),
        needs_approval: step.approval == Some(StepApproval::Required),
    }
}

/// Returns the annotation that approves a version. The managed fields of a watched object are those that own
/// this annotation; the last of several clients that set the same value counts.
fn approval(alias: &ModelAlias) -> Option<ApprovalIntent> {
    let value = annotation_text(alias, APPROVE_ANNOTATION)?;
    let stamps = alias.metadata.managed_fields.iter().flatten();
    let last = stamps.max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    Some(ApprovalIntent {
        value,
        manager: last.and_then(|entry| entry.manager.clone()),
        at: last.and_then(|entry| entry.time.as_ref()).map(|time| time.0),
    })
}

fn challengers(traffic: &TrafficSpec) -> Vec<ChallengerIntent> {
    let challenger = |it: &Challenger| ChallengerIntent {
        name: it.alias_ref.name.clone(),
        share: share(it.weight, it.mirror),
    };
    traffic.challengers.iter().map(challenger).collect()
}

fn smoke_test_intent(serving: &Serving, smoke_test: &SmokeTest) -> SmokeTestIntent {
    let default = if serving.runtime == Runtime::Custom {
        SmokeTestMode::Disabled
    } else {
        SmokeTestMode::InputExample
    };
    SmokeTestIntent {
        is_enabled: smoke_test.mode.unwrap_or(default) == SmokeTestMode::InputExample,
        timeout: signed_duration(smoke_test.timeout).max(server_timeout(serving)),
        on_unavailable: smoke_test.on_unavailable,
    }
}

/// Returns the model server's request timeout, if `spec.serving.env` sets one.
fn server_timeout(serving: &Serving) -> SignedDuration {
    const SECONDS: &str = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT";
    let set = serving.env.iter().rev().find(|variable| variable.name == SECONDS);
    let seconds = set.and_then(|variable| variable.value.as_deref()?.trim().parse::<u32>().ok());
    SignedDuration::from_secs(seconds.unwrap_or_default().into())
}

/// Returns the value of an annotation, if not empty: one line, shortened for a status.
fn annotation_text(alias: &ModelAlias, annotation: &str) -> Option<String> {
    const MAX: usize = 250;
    let text = alias.annotations().get(annotation)?.trim();
    let line: String = text.chars().map(|each| if each.is_control() { ' ' } else { each }).collect();
    (!line.is_empty()).then(|| shortened(&line, MAX))
}

/// Returns the follower, if neither the spec nor the alias in the registry chooses the version.
#[must_use]
pub fn follower(spec: &ModelAliasSpec) -> Option<Follower> {
    let follow = spec.follow.as_ref().filter(|_| spec.version.is_none())?;
    if let Some(best) = &follow.best {
        let tags = best.tags.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        return Some(Follower::Best { metric: best.metric.clone(), goal: best.goal, tags });
    }
    if let Some(semver) = &follow.semver {
        return Some(Follower::Semver { tag: semver.tag.clone(), range: semver.range.clone() });
    }
    follow.latest.as_ref().map(|_| Follower::Latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(env: &str) -> Serving {
        serde_yaml::from_str(&format!("{{image: serving:1, env: {env}}}")).unwrap()
    }

    #[test]
    fn an_approval_has_the_client_that_set_the_annotation_last() {
        let alias = |metadata: &str| -> ModelAlias {
            let spec = "{modelRef: {name: fraud}, alias: champion, version: '5'}";
            serde_yaml::from_str(&format!("{{metadata: {metadata}, spec: {spec}}}")).unwrap()
        };
        assert_eq!(approval(&alias("{name: champion}")), None);
        let annotations = "annotations: {laurel.dev/approve: \" 5/2\"}";
        let unstamped = approval(&alias(&format!("{{name: champion, {annotations}}}"))).unwrap();
        assert_eq!((unstamped.value.as_str(), unstamped.manager, unstamped.at), ("5/2", None, None));
        let stamps = "managedFields: [{manager: argocd, time: '2026-11-29T12:00:00Z'}, \
                      {manager: kubectl-annotate, time: '2026-11-29T12:00:01Z'}, {manager: old}]";
        let stamped = approval(&alias(&format!("{{name: champion, {annotations}, {stamps}}}"))).unwrap();
        assert_eq!(stamped.manager.as_deref(), Some("kubectl-annotate"));
        assert_eq!(stamped.at, Some("2026-11-29T12:00:01Z".parse().unwrap()));
    }

    #[test]
    fn a_step_has_a_share_or_copies() {
        let rollout: Rollout = serde_yaml::from_str(
            "{strategy: Canary, steps: [{mirror: 100, atLeast: 10m}, {weight: 50, atLeast: 1m, atMost: 6h, \
             approval: Required}]}",
        )
        .unwrap();
        let mirror = StepIntent {
            share: ShareIntent::Mirror(100),
            at_least: SignedDuration::from_mins(10),
            at_most: None,
            needs_approval: false,
        };
        let weight = StepIntent {
            share: ShareIntent::Weight(50),
            at_least: SignedDuration::from_mins(1),
            at_most: Some(SignedDuration::from_hours(6)),
            needs_approval: true,
        };
        assert_eq!(steps(&rollout), [mirror, weight]);
        assert_eq!(steps(&Rollout { strategy: Strategy::BlueGreen, ..rollout }), []);
    }

    #[test]
    fn a_smoke_test_waits_as_long_as_the_model_server_may_take() {
        let table = [
            ("[]", 60),
            ("[{name: MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT, value: '300'}]", 300),
            ("[{name: MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT, value: '10'}]", 60),
            ("[{name: MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT, value: soon}]", 60),
            ("[{name: MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT, valueFrom: {fieldRef: {fieldPath: a}}}]", 60),
        ];
        for (env, seconds) in table {
            let intent = smoke_test_intent(&serving(env), &SmokeTest::default());
            assert_eq!(intent.timeout, SignedDuration::from_secs(seconds), "{env}");
        }
    }
}
