//! The alias in the registry: it follows traffic, never leads it.

use super::{Action, AliasRole, Observed, VersionView, Wish, goal::Goal};
use crate::api::{
    condition::{ConditionStatus, Note, Reason},
    model_alias::Drift,
    names::Version,
};

/// What is to be done about the registry, and told.
pub(super) struct Sync {
    pub(super) actions: Vec<Action>,
    pub(super) condition: (ConditionStatus, Note),
    /// Something is still to be written.
    pub(super) pending: Option<Note>,
}

impl Sync {
    fn still(status: ConditionStatus, note: Note) -> Self {
        Self { actions: Vec::new(), condition: (status, note), pending: None }
    }
}

/// What stands between the alias and what serves.
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

/// Plans the writes that let the aliases name `serves` and what served before it.
pub(super) fn plan(observed: &Observed, goal: &Goal, serves: Option<Version>) -> Sync {
    let registry = &observed.registry;
    if let Some(trouble) = &registry.trouble {
        return Sync::still(ConditionStatus::Unknown, trouble.clone());
    }
    let Some(serves) = serves else {
        let note = Note::new(Reason::RegistryPending, "the alias is set once a version serves");
        return Sync::still(ConditionStatus::False, note);
    };
    if let Some(replaced) = &goal.replaced {
        return Sync::still(ConditionStatus::False, replaced.clone());
    }
    if registry.versions.get(&serves) == Some(&VersionView::Absent) {
        let message = format!(
            "version {serves} serves, but does not exist in the registry any more, so the alias cannot name it; promote a \
             version that exists"
        );
        return Sync::still(ConditionStatus::False, Note::new(Reason::VersionNotFound, message));
    }
    let mut sync = main_alias(observed, goal, serves);
    if observed.intent.keeps_previous_alias {
        previous_alias(observed, serves, &mut sync);
    }
    sync
}

fn difference(observed: &Observed, goal: &Goal, serves: Version) -> Difference {
    let alias = observed.registry.alias;
    let under_way = goal.number() != Some(serves);
    match alias {
        Some(version) if version == serves => Difference::None,
        Some(version) if under_way && goal.number() == Some(version) => Difference::InFlight,
        Some(version) if observed.registry.written == Some(version) => Difference::Ours,
        _ if observed.intent.wish == Wish::Registry => Difference::Theirs,
        _ if observed.record.registry_version == Some(serves) => Difference::Theirs,
        _ => Difference::Ours,
    }
}

fn main_alias(observed: &Observed, goal: &Goal, serves: Version) -> Sync {
    let alias = observed.registry.alias;
    let named = alias.map_or_else(|| "nothing".to_owned(), |version| format!("version {version}"));
    let put_back = Action::SetAlias { role: AliasRole::Main, version: serves, replaces: alias };
    match (difference(observed, goal, serves), observed.intent.drift) {
        (Difference::None, _) => Sync::still(ConditionStatus::True, synced(observed, serves)),
        (Difference::InFlight, _) => {
            let message =
                format!("the alias names {named} already; version {serves} serves until that one is ready");
            Sync::still(ConditionStatus::False, Note::new(Reason::RegistryPending, message))
        }
        (Difference::Ours, _) => {
            let note = Note::new(
                Reason::RegistryPending,
                format!("the alias moves from {named} to version {serves}"),
            );
            Sync {
                actions: vec![put_back],
                condition: (ConditionStatus::False, note.clone()),
                pending: Some(note),
            }
        }
        (Difference::Theirs, Drift::Correct) => {
            let note = Note::new(
                Reason::RegistryPending,
                format!(
                    "somebody moved the alias to {named}; it is put back to version {serves}, which serves"
                ),
            );
            Sync {
                actions: vec![put_back],
                condition: (ConditionStatus::False, note.clone()),
                pending: Some(note),
            }
        }
        (Difference::Theirs, Drift::Report) => {
            let message = format!(
                "the alias names {named} in the registry, but version {serves} serves; spec.drift is Report, so it stays: \
                 set the alias to {serves}, or promote the other version"
            );
            Sync::still(ConditionStatus::False, Note::new(Reason::AliasDrifted, message))
        }
    }
}

/// In step; and, when that is because a refused version was put back, it says so.
fn synced(observed: &Observed, serves: Version) -> Note {
    let refused = observed.record.rejected.first().filter(|_| observed.intent.wish == Wish::Registry);
    match refused {
        Some(rejection) if rejection.version != serves && !rejection.held => Note::new(
            Reason::AliasPutBack,
            format!(
                "version {} was asked for and rejected ({}: {}); the alias is back on version {serves}; set it again to \
                 try again",
                rejection.version, rejection.reason, rejection.message
            ),
        ),
        _ => Note::new(Reason::Synced, format!("the alias names version {serves}, which serves")),
    }
}

/// Keeps the previous alias on what served before; a version that is gone from the registry cannot be named.
fn previous_alias(observed: &Observed, serves: Version, sync: &mut Sync) {
    let previous = match observed.serves() {
        Some(now) if now != serves => Some(now),
        _ => observed.previous(),
    };
    let Some(previous) = previous else { return };
    let registry = &observed.registry;
    let exists = registry.versions.get(&previous) != Some(&VersionView::Absent);
    if exists && registry.previous_alias != Some(previous) {
        sync.pending.get_or_insert_with(|| {
            Note::new(Reason::RegistryPending, format!("the previous alias moves to version {previous}"))
        });
        sync.actions.push(Action::SetAlias {
            role: AliasRole::Previous,
            version: previous,
            replaces: registry.previous_alias,
        });
    }
}
