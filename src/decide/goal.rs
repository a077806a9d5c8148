//! Which version should serve, or why the wished one may not.

use super::{
    GatesReport, Observed, ServingIntent, Traffic, VersionView, Wish,
    follow::{self, Choice},
    gates::{self, Verdict},
};
use crate::api::{
    condition::{Note, Reason},
    names::{ModelUri, Version},
};

/// The version to work towards.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Goal {
    /// The version that should serve, and what its pods load.
    pub(super) version: Option<(Version, ModelUri)>,
    /// The version that is wished for. When it is another one, `refusal` or `waiting` says why.
    pub(super) wished: Option<Version>,
    /// Why the wish cannot be met without somebody doing something.
    pub(super) refusal: Option<Note>,
    /// What is waited for before work on the wish can begin.
    pub(super) waiting: Option<Note>,
    /// That the number means another model in the registry than the one that serves here.
    pub(super) replaced: Option<Note>,
    /// The wished version, while it is not known whether the promotion rules let it in. It is left as it is.
    pub(super) spared: Option<Version>,
    /// What is told of the promotion rules.
    pub(super) gates: GatesReport,
}

impl Goal {
    /// The wished version itself.
    fn of(version: Version, model_uri: ModelUri) -> Self {
        Self { version: Some((version, model_uri)), wished: Some(version), ..Self::default() }
    }

    /// Whether the goal is the wished version. Otherwise it is what serves, and stays as it is: also its settings, for
    /// those in the spec are meant for the version that was wished for.
    pub(super) fn is_wished(&self) -> bool {
        self.number() == self.wished
    }

    pub(super) fn number(&self) -> Option<Version> {
        self.version.as_ref().map(|(version, _)| *version)
    }
}

/// Chooses the goal. Where the wish cannot be met, the goal is what serves.
pub(super) fn choose(observed: &Observed, serving: &ServingIntent) -> Goal {
    let wished = match wished(observed) {
        Ok(version) => version,
        Err(note) => return hold(observed, serving, None, note),
    };
    if let Some(rejection) = observed.rejection(wished, serving.settings.as_deref()) {
        let note = Note::new(
            rejection.reason,
            format!(
                "{} (rejected; wish for another version, change spec.serving, or set the annotation {} to a new value \
                 to try again)",
                rejection.message,
                crate::api::RETRY_ANNOTATION
            ),
        );
        return hold(observed, serving, Some(wished), note);
    }
    let (model_uri, replaced) = match identity(observed, wished) {
        Ok(found) => found,
        Err(note) => {
            let (_, gates) = gates::judge(observed, wished, false);
            return Goal { gates, ..hold(observed, serving, Some(wished), note) };
        }
    };
    let pinned = pinned(observed, wished).filter(|pinned| **pinned != model_uri);
    let (verdict, gates) = gates::judge(observed, wished, pinned.is_some());
    let mut goal = match verdict {
        // Its pods answer already, or are about to.
        Verdict::Unknown(_) if is_being_exchanged(observed, wished) => Goal::of(wished, model_uri),
        Verdict::LetIn => Goal::of(wished, model_uri),
        Verdict::Failed(note) => hold(observed, serving, Some(wished), note),
        Verdict::Unknown(note) => {
            Goal { spared: Some(wished), ..hold(observed, serving, Some(wished), note) }
        }
    };
    if goal.refusal.is_none() && goal.waiting.is_none() {
        goal.replaced = replaced;
    } else if let (Some((held, model_uri)), Some(pinned)) = (&mut goal.version, pinned)
        && *held == wished
    {
        // Another model of the same number is held back: the one that serves stays.
        model_uri.clone_from(pinned);
    }
    if goal.refusal.is_none() && goal.waiting.is_none() && observed.answers_alone() == Some(wished) {
        (goal.refusal, goal.waiting) = told_apart(follow::doubt(observed));
    }
    Goal { gates, ..goal }
}

/// Chooses among the versions that can serve without anything new: a Deployment of ours exists, and it has answered requests
/// before. Any other version waits as it is until the blocker is gone.
pub(super) fn choose_blocked(observed: &Observed, serving: &ServingIntent, blocker: &Note) -> Goal {
    let wished = wished(observed).ok().or(observed.record.target_version);
    let is_known = |version: &Version| {
        observed.cluster.workloads.contains_key(version)
            && (observed.has_served(*version) || is_being_exchanged(observed, *version))
            && observed.rejection(*version, None).is_none()
    };
    let known =
        wished.filter(is_known).and_then(|version| Some((version, pinned(observed, version)?.clone())));
    let held = Goal { spared: wished, ..hold(observed, serving, wished, blocker.clone()) };
    match known {
        Some(known) => Goal { version: Some(known), spared: None, ..held },
        None => held,
    }
}

/// A note as a refusal, or as something that is waited for.
fn told_apart(note: Option<Note>) -> (Option<Note>, Option<Note>) {
    match note {
        Some(note) if note.reason.passes_by_itself() => (None, Some(note)),
        refusal => (refusal, None),
    }
}

/// Whether a version is in the middle of an exchange of pods, so that it has had its first traffic.
fn is_being_exchanged(observed: &Observed, version: Version) -> bool {
    let workload = observed.cluster.workloads.get(&version);
    observed.cluster.traffic == Traffic::Shared && workload.is_some_and(|workload| workload.desired > 0)
}

/// What the version's pods were started with.
fn pinned(observed: &Observed, version: Version) -> Option<&ModelUri> {
    let workload = observed.cluster.workloads.get(&version).map(|workload| &workload.model_uri);
    workload.or_else(|| observed.remembered(version).and_then(|held| held.model_uri.as_ref()))
}

/// The version that is wished for. While the registry does not answer, a follower keeps to what it last knew.
///
/// # Errors
/// Why there is none.
pub fn wished(observed: &Observed) -> Result<Version, Note> {
    let registry = &observed.registry;
    match (&observed.intent.wish, &registry.trouble) {
        (Wish::Version(version), _) => Ok(*version),
        (Wish::Registry | Wish::Chosen(_), Some(trouble)) => {
            observed.record.target_version.ok_or_else(|| trouble.clone())
        }
        (Wish::Chosen(follower), None) => match follow::target(observed, follower) {
            Choice::Version(version) => Ok(version),
            Choice::Unknown(note) => observed.record.target_version.ok_or(note),
            Choice::Nobody(note) => Err(note),
        },
        (Wish::Registry, None) => registry.alias.ok_or_else(|| {
            Note::new(
                Reason::AliasNotFound,
                "spec.follow.registry: the alias does not exist in the registry; set it there on the version to serve",
            )
        }),
    }
}

/// What the version's pods load, and whether the registry means another model by the number now.
///
/// What was pinned when the version was first started stays pinned, whatever becomes of its entry in the registry: so
/// a rollback needs no registry, and a number that was given out anew cannot slip in. Only a version that never served,
/// or somebody who asks to try again, takes the new identity.
fn identity(observed: &Observed, version: Version) -> Result<(ModelUri, Option<Note>), Note> {
    let pinned = pinned(observed, version);
    let registry = &observed.registry;
    let said = if registry.trouble.is_some() { None } else { registry.versions.get(&version) };
    match (pinned, said) {
        (Some(pinned), Some(VersionView::Ready { model_uri, .. })) if pinned != model_uri => {
            if observed.retry_is_asked() || !observed.has_served(version) {
                return Ok((model_uri.clone(), None));
            }
            let note = Note::new(
                Reason::VersionReplaced,
                format!(
                    "version {version} is {model_uri} in the registry now, but {pinned} serves here: the model was deleted \
                     and registered anew; wish for another version, or set the annotation {} to a new value to take the \
                     new one",
                    crate::api::RETRY_ANNOTATION
                ),
            );
            Ok((pinned.clone(), Some(note)))
        }
        (Some(pinned), _) => Ok((pinned.clone(), None)),
        (None, Some(VersionView::Ready { model_uri, .. })) => Ok((model_uri.clone(), None)),
        (None, Some(VersionView::Pending)) => Err(Note::new(
            Reason::VersionPending,
            format!("the registry is still taking in version {version}"),
        )),
        (None, Some(VersionView::Failed)) => Err(Note::new(
            Reason::VersionFailed,
            format!("the registration of version {version} failed in the registry; register the model again"),
        )),
        (None, Some(VersionView::Absent)) => Err(Note::new(
            Reason::VersionNotFound,
            format!("version {version} does not exist in the registry; correct spec.version, or register it"),
        )),
        (None, Some(VersionView::Unread(note))) => Err(note.clone()),
        (None, None) => Err(registry.trouble.clone().unwrap_or_else(|| {
            Note::new(
                Reason::RegistryNotRead,
                format!("version {version} has not been read from the registry yet"),
            )
        })),
    }
}

/// Stays on what serves; or, when that failed itself, on the version before it, if it can take over. Where nothing serves and
/// somebody has to do something, the version that was live before serves until then.
fn hold(observed: &Observed, serving: &ServingIntent, wished: Option<Version>, why: Note) -> Goal {
    let serves = observed.serves();
    let fallback = || observed.previous().filter(|version| observed.can_take_over(*version, serving));
    // What is held keeps the settings that its pods have, whatever the spec says by now.
    let failed = serves.is_some_and(|version| {
        let workload = observed.cluster.workloads.get(&version);
        observed.rejection(version, serving.settings_of(workload)).is_some()
    });
    let (refusal, waiting) = told_apart(Some(why));
    let lives_on = || observed.live_versions().find(|version| Some(*version) != wished && refusal.is_some());
    let held = if failed { fallback().or(serves) } else { serves.or_else(lives_on) };
    let version =
        held.and_then(|version| identity(observed, version).ok().map(|(model_uri, _)| (version, model_uri)));
    Goal { version, wished, refusal, waiting, ..Goal::default() }
}
