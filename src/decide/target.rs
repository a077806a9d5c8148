//! The target: which version should serve, or why the desired one may not.

use super::{
    Desired, GatesReport, Observed, ServingIntent, StrategyIntent, Traffic, VersionView,
    follow::{self, Choice},
    gates::{self, RuleVerdict},
};
use crate::api::{
    condition::{Reason, ReasonMessage},
    names::{ModelUri, Version},
};

/// The version to work towards.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Target {
    /// The version that should serve, and what its pods load.
    pub(super) version: Option<(Version, ModelUri)>,
    /// The desired version. If it is not the goal, `blocker` or `waiting` gives the reason.
    pub(super) desired: Option<Version>,
    /// Why the desired version cannot serve until somebody acts.
    pub(super) blocker: Option<ReasonMessage>,
    /// What is waited for before work on the desired version can begin.
    pub(super) waiting: Option<ReasonMessage>,
    /// Reports that the number refers to a different model in the registry than the one that serves here.
    pub(super) replaced: Option<ReasonMessage>,
    /// The desired version, while it is not known whether it passes the promotion rules. It is left as it is.
    pub(super) spared: Option<Version>,
    /// The report about the promotion rules.
    pub(super) gates: GatesReport,
}

impl Target {
    /// The desired version itself.
    fn of(version: Version, model_uri: ModelUri) -> Self {
        Self { version: Some((version, model_uri)), desired: Some(version), ..Self::default() }
    }

    /// Whether the goal is the desired version. Otherwise it is the serving one and stays as it is, including
    /// its settings: those in the spec are meant for the desired version.
    pub(super) fn is_desired(&self) -> bool {
        self.number() == self.desired
    }

    pub(super) fn number(&self) -> Option<Version> {
        self.version.as_ref().map(|(version, _)| *version)
    }
}

/// Chooses the goal. If the desired version cannot serve, the goal is the serving one.
pub(super) fn choose(observed: &Observed, serving: &ServingIntent) -> Target {
    let desired = match desired(observed) {
        Ok(version) => version,
        Err(cause) => return hold(observed, serving, None, cause),
    };
    if let Some(rejection) = observed.rejection(desired, serving.settings.as_deref()) {
        let cause = ReasonMessage::new(
            rejection.reason,
            format!(
                "{} (rejected; request another version, change spec.serving, or set the annotation {} to a \
                 new value to try again)",
                rejection.message,
                crate::api::RETRY_ANNOTATION
            ),
        );
        return hold(observed, serving, Some(desired), cause);
    }
    let (model_uri, replaced) = match identity(observed, desired) {
        Ok(found) => found,
        Err(cause) => {
            let (_, gates) = gates::judge(observed, desired, false);
            return Target { gates, ..hold(observed, serving, Some(desired), cause) };
        }
    };
    let pinned = pinned(observed, desired).filter(|pinned| **pinned != model_uri);
    let (verdict, gates) = gates::judge(observed, desired, pinned.is_some());
    let mut target = match verdict {
        // Its pods already answer, or are about to.
        RuleVerdict::Unknown(_) if is_being_exchanged(observed, desired) => Target::of(desired, model_uri),
        RuleVerdict::LetIn => Target::of(desired, model_uri),
        RuleVerdict::Failed(cause) => hold(observed, serving, Some(desired), cause),
        RuleVerdict::Unknown(cause) => {
            let spared = spared(observed, serving, Some(desired));
            Target { spared, ..hold(observed, serving, Some(desired), cause) }
        }
    };
    if target.blocker.is_none() && target.waiting.is_none() {
        target.replaced = replaced;
    } else if let (Some((held, model_uri)), Some(pinned)) = (&mut target.version, pinned)
        && *held == desired
    {
        // A different model with the same number is held back: the serving one stays.
        model_uri.clone_from(pinned);
    }
    if target.blocker.is_none() && target.waiting.is_none() && observed.answers_alone() == Some(desired) {
        (target.blocker, target.waiting) = split_by_transience(follow::uncertainty(observed));
    }
    Target { gates, ..target }
}

/// Chooses among the versions that can serve without anything new: those with a Deployment that have served
/// before. Any other version waits as it is until the blocker is gone.
pub(super) fn choose_blocked(
    observed: &Observed,
    serving: &ServingIntent,
    blocker: &ReasonMessage,
) -> Target {
    let desired = desired(observed).ok().or(observed.status.target_version);
    let is_known = |version: &Version| {
        observed.cluster.workloads.contains_key(version)
            && (observed.has_served(*version) || is_being_exchanged(observed, *version))
            && observed.rejection(*version, None).is_none()
    };
    let known =
        desired.filter(is_known).and_then(|version| Some((version, pinned(observed, version)?.clone())));
    let spared = spared(observed, serving, desired);
    let held = Target { spared, ..hold(observed, serving, desired, blocker.clone()) };
    match known {
        Some(known) => Target { version: Some(known), spared: None, ..held },
        None => held,
    }
}

/// Returns the version that keeps its pods while it waits. With `Rolling` it gives up their room as long as
/// what serves needs it.
fn spared(observed: &Observed, serving: &ServingIntent, waits: Option<Version>) -> Option<Version> {
    let serves = observed.answers_alone().and_then(|serves| observed.cluster.workloads.get(&serves));
    let needs_room = matches!(serving.strategy, StrategyIntent::Rolling { .. })
        && serves.is_some_and(|workload| workload.desired < serving.replicas);
    waits.filter(|_| !needs_room)
}

/// Turns a reason into a blocker, or into something to wait for.
fn split_by_transience(cause: Option<ReasonMessage>) -> (Option<ReasonMessage>, Option<ReasonMessage>) {
    match cause {
        Some(cause) if cause.reason.is_transient() => (None, Some(cause)),
        blocker => (blocker, None),
    }
}

/// Whether a version is in the middle of an exchange of pods, so it has had its first traffic.
fn is_being_exchanged(observed: &Observed, version: Version) -> bool {
    let workload = observed.cluster.workloads.get(&version);
    observed.cluster.traffic == Traffic::Shared && workload.is_some_and(|workload| workload.desired > 0)
}

/// The model that the version's pods were started with.
fn pinned(observed: &Observed, version: Version) -> Option<&ModelUri> {
    let workload = observed.cluster.workloads.get(&version).map(|workload| &workload.model_uri);
    workload.or_else(|| observed.remembered(version).and_then(|held| held.model_uri.as_ref()))
}

/// Returns the desired version. While the registry does not answer, a follower keeps its last choice.
///
/// # Errors
/// Why there is no version.
pub fn desired(observed: &Observed) -> Result<Version, ReasonMessage> {
    let registry = &observed.registry;
    match (&observed.intent.desired, &registry.error) {
        (Desired::Version(version), _) => Ok(*version),
        (Desired::Registry | Desired::Chosen(_), Some(error)) => {
            observed.status.target_version.ok_or_else(|| error.clone())
        }
        (Desired::Chosen(follower), None) => match follow::target(observed, follower) {
            Choice::Version(version) => Ok(version),
            Choice::Unknown(cause) => observed.status.target_version.ok_or(cause),
            Choice::Nobody(cause) => Err(cause),
        },
        (Desired::Registry, None) => registry.alias.ok_or_else(|| alias_not_found(observed)),
    }
}

fn alias_not_found(observed: &Observed) -> ReasonMessage {
    let next = match &observed.registry.similar_alias {
        Some(similar) => format!(
            ", but {similar:?} does, and letter case counts: set it there as spec.alias is written, or create a \
             ModelAlias whose spec.alias is {similar:?}"
        ),
        None => "; set it there on the version to serve".to_owned(),
    };
    let message = format!("spec.follow.registry: the alias does not exist in the registry{next}");
    ReasonMessage::new(Reason::AliasNotFound, message)
}

/// Returns the model URI that the version's pods load, and whether the number refers to a different model in
/// the registry now.
///
/// The model URI of a version's first start stays pinned, whatever happens to its entry in the registry: so a
/// rollback needs no registry, and a reused number cannot slip in. Only a version that never served, or a
/// requested retry, takes the new model.
fn identity(
    observed: &Observed,
    version: Version,
) -> Result<(ModelUri, Option<ReasonMessage>), ReasonMessage> {
    let pinned = pinned(observed, version);
    let registry = &observed.registry;
    let reported = if registry.error.is_some() { None } else { registry.versions.get(&version) };
    match (pinned, reported) {
        (Some(pinned), Some(VersionView::Ready { model_uri, .. })) if pinned != model_uri => {
            if observed.retry_is_asked() || !observed.has_served(version) {
                return Ok((model_uri.clone(), None));
            }
            let cause = ReasonMessage::new(
                Reason::VersionReplaced,
                format!(
                    "version {version} is {model_uri} in the registry now, but {pinned} serves here: the \
                     model was deleted and registered again; request another version, or set the annotation \
                     {} to a new value to take the new one",
                    crate::api::RETRY_ANNOTATION
                ),
            );
            Ok((pinned.clone(), Some(cause)))
        }
        (Some(pinned), _) => Ok((pinned.clone(), None)),
        (None, Some(VersionView::Ready { model_uri, .. })) => Ok((model_uri.clone(), None)),
        (None, Some(VersionView::Pending)) => Err(ReasonMessage::new(
            Reason::VersionPending,
            format!("the registration of version {version} is pending in the registry"),
        )),
        (None, Some(VersionView::Failed)) => Err(ReasonMessage::new(
            Reason::VersionFailed,
            format!("the registration of version {version} failed in the registry; register the model again"),
        )),
        (None, Some(VersionView::Absent)) => Err(ReasonMessage::new(
            Reason::VersionNotFound,
            format!("version {version} does not exist in the registry; correct spec.version, or register it"),
        )),
        (None, Some(VersionView::Unread(cause))) => Err(cause.clone()),
        (None, None) => Err(registry.error.clone().unwrap_or_else(|| {
            ReasonMessage::new(
                Reason::RegistryNotRead,
                format!("version {version} has not been read from the registry yet"),
            )
        })),
    }
}

/// Holds the serving version; or, if it failed, the one before it, if that can take over. If nothing serves
/// and somebody has to act, the version that was live before serves until then.
fn hold(
    observed: &Observed,
    serving: &ServingIntent,
    desired: Option<Version>,
    why: ReasonMessage,
) -> Target {
    let serves = observed.serves();
    let fallback = || observed.previous().filter(|version| observed.can_take_over(*version, serving));
    // A held version keeps its pods' settings, regardless of the current spec.
    let failed = serves.is_some_and(|version| {
        let workload = observed.cluster.workloads.get(&version);
        observed.rejection(version, serving.settings_of(workload)).is_some()
    });
    let (blocker, waiting) = split_by_transience(Some(why));
    let lives_on = || observed.live_versions().find(|version| Some(*version) != desired && blocker.is_some());
    let held = if failed { fallback().or(serves) } else { serves.or_else(lives_on) };
    let version =
        held.and_then(|version| identity(observed, version).ok().map(|(model_uri, _)| (version, model_uri)));
    Target { version, desired, blocker, waiting, ..Target::default() }
}
