//! The alias in the registry: it follows traffic, never leads it.

use jiff::{SignedDuration, Timestamp};

use super::{Action, AliasRole, Desired, FormerAlias, Observed, VersionView};
use crate::api::{
    RETRY_ANNOTATION,
    condition::{ConditionStatus, Reason, ReasonMessage},
    model_alias::{Drift, PUT_BACK_MAX},
    names::Version,
};

/// How long a reverted change counts towards contention.
pub const CONTENTION: SignedDuration = SignedDuration::from_mins(10);

/// The actions on the registry, and the condition that reports them.
pub(super) struct AliasPlan {
    pub(super) actions: Vec<Action>,
    pub(super) condition: (ConditionStatus, ReasonMessage),
    /// Why the alias is not as desired yet.
    pub(super) blocker: Option<ReasonMessage>,
}

impl AliasPlan {
    fn still(status: ConditionStatus, cause: ReasonMessage) -> Self {
        Self { actions: Vec::new(), condition: (status, cause), blocker: None }
    }

    fn short(status: ConditionStatus, cause: ReasonMessage) -> Self {
        Self { blocker: Some(cause.clone()), ..Self::still(status, cause) }
    }
}

/// What the aliases have to follow.
#[derive(Clone, Copy)]
pub(super) struct AliasTarget<'a> {
    /// The version that the alias should name: the serving one; without `spec.serving`, the desired one.
    pub(super) version: Option<Version>,
    /// The version that is worked towards.
    pub(super) target: Option<Version>,
    /// The version of which it is not known yet whether it may be worked towards.
    pub(super) awaited: Option<Version>,
    /// That the number means another model in the registry than the one that serves here.
    pub(super) replaced: Option<&'a ReasonMessage>,
}

/// What stands between the alias and the version that it is to name.
enum Difference {
    /// Nothing.
    None,
    /// A rollout to what the alias names is under way.
    InFlight,
    /// Ours to write: traffic moved, the alias not yet.
    Ours,
    /// Somebody moved the alias, or asked by it for what was refused.
    Theirs,
}

/// Plans the writes that let the aliases name the version they have to, and what served before it.
pub(super) fn plan(observed: &Observed, alias_target: AliasTarget) -> AliasPlan {
    let mut plan = plan_desired(observed, alias_target);
    remove_former_alias(observed, &mut plan);
    plan
}

/// Removes the alias that the spec does not name any more, if it names what Laurel let it name.
fn remove_former_alias(observed: &Observed, plan: &mut AliasPlan) {
    if let (Some(kept), Some(FormerAlias::MayBeClaimed { by })) =
        (observed.former_alias(), &observed.registry.former_alias)
    {
        let message = format!(
            "the alias {:?} stays in the registry for now, although spec.previousAlias does not name it any more: \
             the ModelAlias {by} cannot be parsed and may claim it; correct or delete that one",
            kept.alias.as_str()
        );
        // What else is pending waits for this.
        let others = plan.blocker.take().filter(|blocker| blocker.reason != Reason::RegistryPending);
        plan.blocker = others.or_else(|| Some(ReasonMessage::new(Reason::RegistryPending, message)));
    }
    let (Some(kept), Some(replaces)) = (observed.former_alias(), observed.former_alias_names()) else {
        return;
    };
    plan.blocker.get_or_insert_with(|| {
        let message = format!(
            "the alias {:?} is removed from version {replaces} in the registry, because spec.previousAlias does not name it any more",
            kept.alias.as_str()
        );
        ReasonMessage::new(Reason::RegistryPending, message)
    });
    plan.actions.push(Action::DeleteAlias { role: AliasRole::Former, replaces });
}

fn plan_desired(observed: &Observed, alias_target: AliasTarget) -> AliasPlan {
    let registry = &observed.registry;
    let Some(version) = alias_target.version else {
        return match &registry.error {
            Some(error) => AliasPlan::still(ConditionStatus::Unknown, error.clone()),
            None => AliasPlan::still(
                ConditionStatus::False,
                ReasonMessage::new(Reason::RegistryPending, "the alias is set once a version serves"),
            ),
        };
    };
    if let Some(error) = &registry.error {
        // What was in step when the registry answered last is believed to be so until it says otherwise
        // itself.
        let in_step =
            observed.status.registry_version == Some(version) && error.reason != Reason::ModelNotFound;
        let plan = if in_step { AliasPlan::still } else { AliasPlan::short };
        return plan(ConditionStatus::Unknown, error.clone());
    }
    if let Some(replaced) = alias_target.replaced {
        return AliasPlan::short(ConditionStatus::False, replaced.clone());
    }
    if registry.versions.get(&version) == Some(&VersionView::Absent) {
        let message = format!(
            "version {version} {}, but does not exist in the registry any more, so the alias cannot name it; promote a \
             version that exists",
            serving_phrase(observed)
        );
        return AliasPlan::short(
            ConditionStatus::False,
            ReasonMessage::new(Reason::VersionNotFound, message),
        );
    }
    // The number may mean another model by now.
    if registry.alias != Some(version) && is_unknown(observed, version) {
        let message = format!("the alias is set once version {version} has been read from the registry");
        return AliasPlan::short(
            ConditionStatus::False,
            ReasonMessage::new(Reason::RegistryPending, message),
        );
    }
    let mut plan = main_alias(observed, alias_target, version);
    if observed.intent.previous_alias.is_some() {
        previous_alias(observed, version, &mut plan);
    }
    if !is_audited(observed, version) {
        plan.actions.clear();
    }
    plan
}

/// Whether the status says already what the alias is about to say. It is written first: otherwise a crash
/// would leave nothing to tell our own write from somebody else's.
fn is_audited(observed: &Observed, version: Version) -> bool {
    let status = &observed.status;
    let is_desired = observed.intent.serving.is_none() && status.target_version == Some(version);
    is_desired || status.version == Some(version)
}

fn serving_phrase(observed: &Observed) -> &'static str {
    if observed.intent.serving.is_some() { "serves" } else { "is requested" }
}

fn difference(observed: &Observed, alias_target: AliasTarget, version: Version) -> Difference {
    let alias = observed.registry.alias;
    let under_way = alias_target.target != Some(version) || alias_target.awaited.is_some();
    match alias {
        Some(named) if named == version => Difference::None,
        Some(named) if under_way && is_ahead(observed, alias_target, named) => Difference::InFlight,
        Some(named) if observed.registry.written == Some(named) => Difference::Ours,
        Some(named) if observed.intent.desired == Desired::Registry && is_unknown(observed, named) => {
            Difference::InFlight
        }
        _ if observed.intent.desired == Desired::Registry => Difference::Theirs,
        _ if observed.status.registry_version == Some(version) => Difference::Theirs,
        _ => Difference::Ours,
    }
}

/// Whether the alias names what is worked towards, and not what answered before and gave way.
fn is_ahead(observed: &Observed, alias_target: AliasTarget, named: Version) -> bool {
    let is_asked_for = observed.intent.desired == Desired::Registry || !observed.has_served(named);
    is_asked_for && [alias_target.target, alias_target.awaited].contains(&Some(named))
}

/// Whether the registry has not said yet what a version is: no reason to give it the alias, nor to take it
/// away.
fn is_unknown(observed: &Observed, version: Version) -> bool {
    matches!(
        observed.registry.versions.get(&version),
        None | Some(VersionView::Unread(_) | VersionView::Pending)
    )
}

fn main_alias(observed: &Observed, alias_target: AliasTarget, version: Version) -> AliasPlan {
    let alias = observed.registry.alias;
    let named = alias.map_or_else(|| "nothing".to_owned(), |version| format!("version {version}"));
    let serving_phrase = serving_phrase(observed);
    let set = |corrects: bool, message: String| AliasPlan {
        actions: vec![Action::SetAlias { role: AliasRole::Main, version, replaces: alias, corrects }],
        ..AliasPlan::short(ConditionStatus::False, ReasonMessage::new(Reason::RegistryPending, message))
    };
    match (difference(observed, alias_target, version), observed.intent.drift) {
        (Difference::None, _) => AliasPlan::still(ConditionStatus::True, synced(observed, version)),
        (Difference::InFlight, _) => {
            let message =
                format!("the alias names {named} already; version {version} serves until that one is ready");
            AliasPlan::still(ConditionStatus::False, ReasonMessage::new(Reason::RegistryPending, message))
        }
        (Difference::Ours, _) => set(false, format!("the alias moves from {named} to version {version}")),
        (Difference::Theirs, Drift::Correct) if is_contested(observed, AliasRole::Main) => {
            let message = format!(
                "another writer keeps moving the alias to {named} while version {version} {serving_phrase}; Laurel put it back {PUT_BACK_MAX} times and has stopped: stop the other writer, then set the annotation \
                 {RETRY_ANNOTATION} to a new value, or set the alias to {version} yourself"
            );
            AliasPlan::short(ConditionStatus::False, ReasonMessage::new(Reason::Contested, message))
        }
        (Difference::Theirs, Drift::Correct) => set(
            true,
            format!(
                "somebody moved the alias to {named}; putting it back on version {version}, which {serving_phrase}"
            ),
        ),
        (Difference::Theirs, Drift::Report) => {
            let message = format!(
                "the alias names {named} in the registry, but version {version} {serving_phrase}; spec.drift is Report, so it is not moved back: \
                 set the alias to {version}, or promote the other version"
            );
            AliasPlan::still(ConditionStatus::False, ReasonMessage::new(Reason::AliasDrifted, message))
        }
    }
}

/// Whether the alias was put back so often, and so lately, that somebody else must be keeping it elsewhere.
/// It stays so until the alias agrees, the desired version changes or a retry is requested. While it is being
/// written, that may still be the attempt that lasts.
fn is_contested(observed: &Observed, role: AliasRole) -> bool {
    let is_writing = observed.registry.writing.contains(&role);
    observed.status.put_back_at.len() >= PUT_BACK_MAX && !is_writing && !observed.retry_is_asked()
}

/// When the contention over the alias is forgotten.
pub(super) fn contention_ends(observed: &Observed) -> Option<Timestamp> {
    let ends = observed.status.put_back_at.first()?.checked_add(CONTENTION).ok()?;
    (ends > observed.now).then_some(ends)
}

/// In step; and, when that is because a refused version was put back, it says so.
fn synced(observed: &Observed, version: Version) -> ReasonMessage {
    let refused = observed.status.rejected.first().filter(|_| observed.intent.desired == Desired::Registry);
    match refused {
        Some(rejection) if rejection.version != version && !rejection.active => ReasonMessage::new(
            Reason::AliasPutBack,
            format!(
                "version {} was asked for and rejected ({}: {}); the alias is back on version {version}; set it again to \
                 try again",
                rejection.version, rejection.reason, rejection.message
            ),
        ),
        _ => ReasonMessage::new(
            Reason::Synced,
            format!("the alias names version {version}, which {}", serving_phrase(observed)),
        ),
    }
}

/// Keeps the previous alias on what served before; a version that is gone from the registry cannot be named.
fn previous_alias(observed: &Observed, version: Version, plan: &mut AliasPlan) {
    let previous = match observed.serves() {
        Some(now) if now != version => Some(now),
        _ => observed.previous(),
    };
    let Some(previous) = previous else { return };
    let registry = &observed.registry;
    let exists = registry.versions.get(&previous) != Some(&VersionView::Absent);
    if !exists || registry.previous_alias == Some(previous) {
        return;
    }
    // It is written down first: otherwise nothing would tell later that it was Laurel who set it.
    let kept = observed.status.previous_alias.as_ref();
    let is_known = kept.is_some_and(|kept| {
        observed.intent.previous_alias.as_ref() == Some(&kept.alias) && kept.versions.contains(&previous)
    });
    if !is_known {
        let message = format!("the previous alias is about to move to version {previous}");
        plan.blocker.get_or_insert_with(|| ReasonMessage::new(Reason::RegistryPending, message));
        return;
    }
    let corrects = registry.previous_written == Some(previous);
    if corrects && is_contested(observed, AliasRole::Previous) {
        let message = format!(
            "another writer keeps moving the alias in spec.previousAlias away from version {previous}; Laurel has stopped \
             putting it back: stop the other writer, then set the annotation {RETRY_ANNOTATION} to a new value"
        );
        plan.blocker.get_or_insert_with(|| ReasonMessage::new(Reason::Contested, message));
        return;
    }
    plan.blocker.get_or_insert_with(|| {
        ReasonMessage::new(Reason::RegistryPending, format!("the previous alias moves to version {previous}"))
    });
    plan.actions.push(Action::SetAlias {
        role: AliasRole::Previous,
        version: previous,
        replaces: registry.previous_alias,
        corrects,
    });
}
