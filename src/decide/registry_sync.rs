//! The alias in the registry: it follows traffic, never leads it.

use jiff::{SignedDuration, Timestamp};

use super::{Action, AliasRole, Observed, VersionView, Wish};
use crate::api::{
    RETRY_ANNOTATION,
    condition::{ConditionStatus, Note, Reason},
    model_alias::{Drift, PUT_BACK_MAX},
    names::Version,
};

/// For how long a change that was undone counts as part of the same quarrel.
pub const QUARREL: SignedDuration = SignedDuration::from_mins(10);

/// What is to be done about the registry, and told.
pub(super) struct Sync {
    pub(super) actions: Vec<Action>,
    pub(super) condition: (ConditionStatus, Note),
    /// Why the alias does not do yet what is wished.
    pub(super) shortfall: Option<Note>,
}

impl Sync {
    fn still(status: ConditionStatus, note: Note) -> Self {
        Self { actions: Vec::new(), condition: (status, note), shortfall: None }
    }

    fn short(status: ConditionStatus, note: Note) -> Self {
        Self { shortfall: Some(note.clone()), ..Self::still(status, note) }
    }
}

/// What the aliases have to follow.
#[derive(Clone, Copy)]
pub(super) struct Lead<'a> {
    /// The version that the alias is to name: what serves; without `spec.serving`, what is wished for.
    pub(super) version: Option<Version>,
    /// The version that is worked towards.
    pub(super) goal: Option<Version>,
    /// The version of which it is not known yet whether it may be worked towards.
    pub(super) awaited: Option<Version>,
    /// That the number means another model in the registry than the one that serves here.
    pub(super) replaced: Option<&'a Note>,
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
pub(super) fn plan(observed: &Observed, lead: Lead) -> Sync {
    let registry = &observed.registry;
    let Some(version) = lead.version else {
        return match &registry.trouble {
            Some(trouble) => Sync::still(ConditionStatus::Unknown, trouble.clone()),
            None => Sync::still(
                ConditionStatus::False,
                Note::new(Reason::RegistryPending, "the alias is set once a version serves"),
            ),
        };
    };
    if let Some(trouble) = &registry.trouble {
        // What was in step when the registry answered last is believed to be so until it says otherwise itself.
        let in_step =
            observed.record.registry_version == Some(version) && trouble.reason != Reason::ModelNotFound;
        let tell = if in_step { Sync::still } else { Sync::short };
        return tell(ConditionStatus::Unknown, trouble.clone());
    }
    if let Some(replaced) = lead.replaced {
        return Sync::short(ConditionStatus::False, replaced.clone());
    }
    if registry.versions.get(&version) == Some(&VersionView::Absent) {
        let message = format!(
            "version {version} {}, but does not exist in the registry any more, so the alias cannot name it; promote a \
             version that exists",
            stands(observed)
        );
        return Sync::short(ConditionStatus::False, Note::new(Reason::VersionNotFound, message));
    }
    // The number may mean another model by now.
    if registry.alias != Some(version) && is_unknown(observed, version) {
        let message = format!("the alias is set once the registry has said what version {version} is");
        return Sync::short(ConditionStatus::False, Note::new(Reason::RegistryPending, message));
    }
    let mut sync = main_alias(observed, lead, version);
    if observed.intent.keeps_previous_alias {
        previous_alias(observed, version, &mut sync);
    }
    if !is_recorded(observed, version) {
        sync.actions.clear();
    }
    sync
}

/// Whether the status says already what the alias is about to say. It is written first: otherwise a crash would leave nothing to
/// tell our own write from somebody else's.
fn is_recorded(observed: &Observed, version: Version) -> bool {
    let record = &observed.record;
    let is_wished = observed.intent.serving.is_none() && record.target_version == Some(version);
    is_wished || record.version == Some(version)
}

fn stands(observed: &Observed) -> &'static str {
    if observed.intent.serving.is_some() { "serves" } else { "is wished for" }
}

fn difference(observed: &Observed, lead: Lead, version: Version) -> Difference {
    let alias = observed.registry.alias;
    let under_way = lead.goal != Some(version) || lead.awaited.is_some();
    match alias {
        Some(named) if named == version => Difference::None,
        Some(named) if under_way && is_ahead(observed, lead, named) => Difference::InFlight,
        Some(named) if observed.registry.written == Some(named) => Difference::Ours,
        Some(named) if observed.intent.wish == Wish::Registry && is_unknown(observed, named) => {
            Difference::InFlight
        }
        _ if observed.intent.wish == Wish::Registry => Difference::Theirs,
        _ if observed.record.registry_version == Some(version) => Difference::Theirs,
        _ => Difference::Ours,
    }
}

/// Whether the alias names what is worked towards, and not what answered before and gave way.
fn is_ahead(observed: &Observed, lead: Lead, named: Version) -> bool {
    let is_asked_for = observed.intent.wish == Wish::Registry || !observed.has_served(named);
    is_asked_for && [lead.goal, lead.awaited].contains(&Some(named))
}

/// Whether the registry has not said yet what a version is: no reason to give it the alias, nor to take it away.
fn is_unknown(observed: &Observed, version: Version) -> bool {
    matches!(
        observed.registry.versions.get(&version),
        None | Some(VersionView::Unread(_) | VersionView::Pending)
    )
}

fn main_alias(observed: &Observed, lead: Lead, version: Version) -> Sync {
    let alias = observed.registry.alias;
    let named = alias.map_or_else(|| "nothing".to_owned(), |version| format!("version {version}"));
    let stands = stands(observed);
    let set = |corrects: bool, message: String| Sync {
        actions: vec![Action::SetAlias { role: AliasRole::Main, version, replaces: alias, corrects }],
        ..Sync::short(ConditionStatus::False, Note::new(Reason::RegistryPending, message))
    };
    match (difference(observed, lead, version), observed.intent.drift) {
        (Difference::None, _) => Sync::still(ConditionStatus::True, synced(observed, version)),
        (Difference::InFlight, _) => {
            let message =
                format!("the alias names {named} already; version {version} serves until that one is ready");
            Sync::still(ConditionStatus::False, Note::new(Reason::RegistryPending, message))
        }
        (Difference::Ours, _) => set(false, format!("the alias moves from {named} to version {version}")),
        (Difference::Theirs, Drift::Correct) if is_contested(observed) => {
            let message = format!(
                "something else goes on moving the alias: it names {named} again, but version {version} {stands}; Laurel put \
                 it back {PUT_BACK_MAX} times and has stopped: stop the other writer, then set the annotation \
                 {RETRY_ANNOTATION} to a new value, or set the alias to {version} yourself"
            );
            Sync::short(ConditionStatus::False, Note::new(Reason::Contested, message))
        }
        (Difference::Theirs, Drift::Correct) => set(
            true,
            format!(
                "somebody moved the alias to {named}; it is put back to version {version}, which {stands}"
            ),
        ),
        (Difference::Theirs, Drift::Report) => {
            let message = format!(
                "the alias names {named} in the registry, but version {version} {stands}; spec.drift is Report, so it stays: \
                 set the alias to {version}, or promote the other version"
            );
            Sync::still(ConditionStatus::False, Note::new(Reason::AliasDrifted, message))
        }
    }
}

/// Whether the alias was put back so often, and so lately, that somebody else must be keeping it elsewhere. It stays so until
/// the alias agrees, the wish changes or a person asks.
fn is_contested(observed: &Observed) -> bool {
    let put_back = &observed.record.put_back_at;
    put_back.len() >= PUT_BACK_MAX && !observed.retry_is_asked()
}

/// When a quarrel over the alias is forgotten.
pub(super) fn quarrel_ends(observed: &Observed) -> Option<Timestamp> {
    let ends = observed.record.put_back_at.first()?.checked_add(QUARREL).ok()?;
    (ends > observed.now).then_some(ends)
}

/// In step; and, when that is because a refused version was put back, it says so.
fn synced(observed: &Observed, version: Version) -> Note {
    let refused = observed.record.rejected.first().filter(|_| observed.intent.wish == Wish::Registry);
    match refused {
        Some(rejection) if rejection.version != version && !rejection.held => Note::new(
            Reason::AliasPutBack,
            format!(
                "version {} was asked for and rejected ({}: {}); the alias is back on version {version}; set it again to \
                 try again",
                rejection.version, rejection.reason, rejection.message
            ),
        ),
        _ => Note::new(
            Reason::Synced,
            format!("the alias names version {version}, which {}", stands(observed)),
        ),
    }
}

/// Keeps the previous alias on what served before; a version that is gone from the registry cannot be named.
fn previous_alias(observed: &Observed, version: Version, sync: &mut Sync) {
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
    let corrects = registry.previous_written == Some(previous);
    if corrects && is_contested(observed) {
        let message = format!(
            "something else goes on moving the alias in spec.previousAlias away from version {previous}; Laurel has stopped \
             putting it back: stop the other writer, then set the annotation {RETRY_ANNOTATION} to a new value"
        );
        sync.shortfall.get_or_insert_with(|| Note::new(Reason::Contested, message));
        return;
    }
    sync.shortfall.get_or_insert_with(|| {
        Note::new(Reason::RegistryPending, format!("the previous alias moves to version {previous}"))
    });
    sync.actions.push(Action::SetAlias {
        role: AliasRole::Previous,
        version: previous,
        replaces: registry.previous_alias,
        corrects,
    });
}
