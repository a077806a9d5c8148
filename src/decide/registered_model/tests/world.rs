//! One RegisteredModel, its model in a registry, and an operator that may be killed after any write.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::status::{ModelApplied, ModelListing, model_outcome};

/// More reconciles than it ever takes.
const STEPS_MAX: usize = 8;

pub(super) fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn desired(description: Option<&str>, pairs: &[(&str, &str)]) -> DesiredModel {
    DesiredModel {
        name: Some("fraud".to_owned().try_into().unwrap()),
        description: description.map(str::to_owned),
        tags: tags(pairs),
        ..DesiredModel::default()
    }
}

/// What happens from outside, and when the operator reconciles.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Describe {
        description: Option<&'static str>,
        tags: Vec<(&'static str, &'static str)>,
    },
    Policy {
        deletes_model: bool,
    },
    Delete,
    Refer {
        does: bool,
    },
    /// Somebody else sets a tag that the object does not describe.
    SetForeignTag {
        value: &'static str,
    },
    /// Somebody else changes a tag that Laurel has set.
    EditTag,
    CreateElsewhere,
    /// Somebody sets an alias of the model.
    SetAlias,
    /// Somebody deletes the model, or renames it.
    LoseModel,
    /// The same, and a poll in the middle shows the model without its aliases.
    LoseModelInParts,
    /// The object that describes the registry leads to another workspace, or back.
    Move,
    /// Somebody asks to create a lost model anew.
    Retry,
    Answers {
        does: bool,
    },
    Poll,
    Sleep {
        seconds: i64,
    },
    Restart,
    /// The operator is killed, or the registry stops answering, after this many writes, if there are as many.
    Reconcile {
        killed_after: Option<usize>,
        fails_after: Option<usize>,
    },
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let description = prop_oneof![Just(None), Just(Some("")), Just(Some("one")), Just(Some("two"))];
    let pool = vec![("team", "risk"), ("tier", "gold"), ("area", "cards")];
    let tags = proptest::sample::subsequence(pool, 0..=3);
    let event = prop_oneof![
        3 => (description, tags).prop_map(|(description, tags)| Event::Describe { description, tags }),
        1 => any::<bool>().prop_map(|deletes_model| Event::Policy { deletes_model }),
        1 => Just(Event::Delete),
        1 => any::<bool>().prop_map(|does| Event::Refer { does }),
        1 => prop_oneof![Just("a"), Just("b")].prop_map(|value| Event::SetForeignTag { value }),
        1 => Just(Event::EditTag),
        1 => Just(Event::CreateElsewhere),
        2 => Just(Event::SetAlias),
        1 => Just(Event::LoseModel),
        2 => Just(Event::LoseModelInParts),
        1 => Just(Event::Move),
        1 => Just(Event::Retry),
        2 => any::<bool>().prop_map(|does| Event::Answers { does }),
        3 => Just(Event::Poll),
        1 => (1_i64..50).prop_map(|seconds| Event::Sleep { seconds }),
        1 => Just(Event::Restart),
        8 => (proptest::option::of(1_usize..5), proptest::option::of(0_usize..4)).prop_map(
            |(killed_after, fails_after)| Event::Reconcile { killed_after, fails_after }
        ),
    ];
    vec(event, 0..40)
}

fn unread() -> ModelPresence {
    ModelPresence::Unknown(ReasonMessage::new(Reason::RegistryNotRead, "not read yet"))
}

/// A workspace in a registry.
#[derive(Default)]
struct Place {
    name: &'static str,
    model: Option<ModelContent>,
    /// The tags that somebody else has set.
    foreign: BTreeMap<String, String>,
    /// A killed operator set tags that no status lists.
    has_lost_tags: bool,
    /// Whether the status is about this place, and has listed aliases since the operator created the model.
    is_known: Option<bool>,
}

impl Place {
    /// The status is about another place now: what Laurel set here is not its own any more.
    fn leave(&mut self) {
        self.is_known = None;
        self.has_lost_tags = false;
        self.foreign = self.model.as_ref().map(|model| model.tags.clone()).unwrap_or_default();
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct World {
    now: Timestamp,
    // The object.
    desired: DesiredModel,
    has_finalizer: bool,
    is_deleting: bool,
    is_gone: bool,
    status: Option<RegisteredModelStatus>,
    // What this operator remembers.
    deleting_since: Option<Timestamp>,
    polled: ModelPresence,
    // The registry.
    answers: bool,
    place: Place,
    /// The other one.
    elsewhere: Place,
    referrers: Vec<Referrer>,
    /// How often somebody asked to create the model anew.
    retries: u32,
    pub(super) broken: Vec<String>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: at(1_000_000),
            desired: desired(Some("one"), &[("team", "risk")]),
            has_finalizer: false,
            is_deleting: false,
            is_gone: false,
            status: None,
            deleting_since: None,
            polled: unread(),
            answers: true,
            place: Place { name: "a", ..Place::default() },
            elsewhere: Place { name: "b", ..Place::default() },
            referrers: Vec::new(),
            retries: 0,
            broken: Vec::new(),
        }
    }

    fn check(&mut self, holds: bool, promise: &str) {
        if !holds {
            self.broken.push(promise.to_owned());
        }
    }

    pub(super) fn play(&mut self, event: &Event) {
        match event {
            // Tags that were set by an operator that was killed before it wrote the status are known only
            // while they are described.
            Event::Describe { .. } if self.place.has_lost_tags || self.elsewhere.has_lost_tags => {}
            Event::Describe { description, tags } if !self.is_deleting => {
                let DesiredModel { deletes_model, retry, .. } = self.desired.clone();
                self.desired = DesiredModel { deletes_model, retry, ..desired(*description, tags) };
            }
            Event::Policy { deletes_model } => self.desired.deletes_model = *deletes_model,
            Event::Delete => {
                self.is_deleting = true;
                self.is_gone |= !self.has_finalizer;
            }
            Event::Refer { does: true } => self.referrers = vec![Referrer::Alias("champion".into())],
            Event::Refer { does: false } => self.referrers.clear(),
            Event::SetForeignTag { value } => self.write_elsewhere("theirs", value),
            Event::EditTag if self.manages("team") && self.has_tag("team") => {
                self.write_elsewhere("team", "somebody");
            }
            Event::CreateElsewhere => self.create_elsewhere(),
            Event::SetAlias => {
                let aliases = self.place.model.as_mut().map(|model| &mut model.aliases);
                if let Some(aliases) = aliases {
                    aliases.insert("champion".to_owned(), Version::new(3).unwrap());
                }
            }
            Event::LoseModel => self.lose_model(),
            Event::LoseModelInParts => {
                self.place.model.iter_mut().for_each(|model| model.aliases.clear());
                self.poll();
                self.reconcile(None, None);
                self.lose_model();
            }
            Event::Move => self.move_place(),
            Event::Retry => {
                self.retries += 1;
                self.desired.retry = Some(self.retries.to_string());
            }
            Event::Answers { does } => self.answers = *does,
            Event::Poll => self.poll(),
            Event::Sleep { seconds } => self.now += SignedDuration::from_secs(*seconds),
            Event::Restart => self.restart(),
            Event::Reconcile { killed_after, fails_after } => {
                self.reconcile(*killed_after, *fails_after);
            }
            Event::Describe { .. } | Event::EditTag => {}
        }
    }

    fn manages(&self, key: &str) -> bool {
        let status = self.status.as_ref().filter(|_| self.place.is_known.is_some());
        status.is_some_and(|status| status.owned_tags.iter().any(|managed| managed == key))
    }

    fn has_tag(&self, key: &str) -> bool {
        self.place.model.as_ref().is_some_and(|model| model.tags.contains_key(key))
    }

    fn write_elsewhere(&mut self, key: &str, value: &'static str) {
        let is_ours = self.manages(key);
        if let Some(model) = &mut self.place.model {
            model.tags.insert(key.to_owned(), value.to_owned());
            if !is_ours {
                self.place.foreign.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    fn create_elsewhere(&mut self) {
        if self.place.model.is_none() {
            self.place.model = Some(ModelContent::default());
            // Where Laurel has been before, it takes the tag for its own.
            if self.place.is_known.is_none() && self.status.is_some() {
                self.write_elsewhere("tier", "theirs");
            }
        }
    }

    fn move_place(&mut self) {
        std::mem::swap(&mut self.place, &mut self.elsewhere);
        self.polled = unread();
    }

    fn lose_model(&mut self) {
        self.place.model = None;
        self.place.foreign.clear();
    }

    /// What a direct read finds.
    fn found(&self) -> ModelPresence {
        self.place.model.clone().map_or(ModelPresence::Absent, ModelPresence::Present)
    }

    fn poll(&mut self) {
        if self.answers {
            self.polled = self.found();
        }
    }

    fn restart(&mut self) {
        self.polled = unread();
        self.deleting_since = None;
    }

    pub(super) fn observe(&mut self) -> ModelObserved {
        if self.is_deleting {
            self.deleting_since.get_or_insert(self.now);
        }
        let registry = match &self.polled {
            _ if !self.answers => ModelPresence::Unknown(unreachable()),
            _ if self.is_deleting => self.found(),
            polled => polled.clone(),
        };
        ModelObserved {
            now: self.now,
            desired: self.desired.clone(),
            has_finalizer: self.has_finalizer,
            deleting_since: self.deleting_since.filter(|_| self.is_deleting),
            previous: self.status.clone(),
            referrers: self.referrers.clone(),
            registry,
            versions_error: None,
            awaits_versions: false,
            registry_object: Some(super::registry("http://mlflow", self.place.name)),
        }
    }

    /// Whether anything was written.
    fn reconcile(&mut self, killed_after: Option<usize>, fails_after: Option<usize>) -> bool {
        if self.is_gone {
            return false;
        }
        let observed = self.observe();
        let decision = decide(&observed);
        let mut applied = ModelApplied::default();
        let mut has_described = false;
        for action in &decision.actions {
            self.answers &= fails_after != Some(applied.done.len());
            has_described |= action.describes();
            match self.perform(&observed, action) {
                Ok(()) => applied.done.push(action.clone()),
                Err(failure) => {
                    applied.failure = Some(failure);
                    break;
                }
            }
            if killed_after == Some(applied.done.len()) {
                self.place.has_lost_tags |= has_described;
                self.restart();
                return true;
            }
        }
        if has_described {
            self.polled = unread();
            self.poll();
            applied.found = self.place.model.clone().filter(|_| self.answers);
            applied.failure = applied.failure.or_else(|| applied.found.is_none().then(unreachable));
        }
        let listing = matches!(observed.registry, ModelPresence::Present(_)).then(ModelListing::default);
        let outcome = model_outcome(&observed, listing, &decision, &applied);
        let waits = observed.deleting_since.is_none() || applied.has_released();
        self.check(waits || outcome.wake.is_some(), "a deletion that waits has a wake-up");
        let has_written = !applied.done.is_empty() || outcome.status.is_some();
        if let Some(status) = outcome.status.filter(|_| !self.is_gone) {
            self.status = Some(status);
            let content = match (&applied.found, &observed.registry) {
                (Some(content), _) | (None, ModelPresence::Present(content)) => Some(content),
                (None, ModelPresence::Unknown(_) | ModelPresence::Absent) => None,
            };
            if let Some(content) = content.filter(|_| observed.deleting_since.is_none()) {
                let created = |action: &ModelAction| matches!(action, ModelAction::CreateModel { .. });
                let has_known = self.place.is_known == Some(true) && !applied.done.iter().any(created);
                self.place.is_known = Some(has_known || !content.aliases.is_empty());
                // Whoever has set a described tag, it is managed from now on.
                if applied.failure.is_none() {
                    self.place.foreign.retain(|key, _| !self.desired.tags.contains_key(key));
                }
                self.elsewhere.leave();
            }
            let mut keys = self.place.model.iter().flat_map(|model| model.tags.keys());
            let is_lost = |key: &String| !self.place.foreign.contains_key(key) && !self.manages(key);
            self.place.has_lost_tags &= keys.any(is_lost);
        }
        has_written
    }

    fn perform(&mut self, observed: &ModelObserved, action: &ModelAction) -> Result<(), ReasonMessage> {
        if let ModelAction::SetFinalizer { present } = action {
            self.has_finalizer = *present;
            self.is_gone = self.is_deleting && !present;
            return Ok(());
        }
        if !self.answers {
            return Err(unreachable());
        }
        if let ModelAction::CreateModel { description, tags, again: _ } = action {
            self.check(!self.is_deleting, "a model is not created for an object in deletion");
            self.check(!self.misses_content(), "a lost model gets no empty twin unless somebody asks for it");
            self.check(self.has_finalizer == self.desired.deletes_model, "the finalizer comes first");
            let content = ModelContent {
                description: description.clone(),
                tags: tags.clone(),
                ..ModelContent::default()
            };
            // Whoever was faster, these tags are described from now on.
            self.place.foreign.retain(|key, _| !tags.contains_key(key));
            self.place.model.get_or_insert(content);
            return Ok(());
        }
        if *action == ModelAction::DeleteModel {
            self.deletes(observed);
            self.lose_model();
            self.polled = ModelPresence::Absent;
            return Ok(());
        }
        let Some(model) = &mut self.place.model else {
            return Err(ReasonMessage::new(Reason::RegistryRefused, "there is no such model"));
        };
        if let ModelAction::SetTag { key, .. } = action {
            self.place.foreign.remove(key);
        }
        match action {
            ModelAction::SetDescription { description } => model.description.clone_from(description),
            ModelAction::SetTag { key, value } => drop(model.tags.insert(key.clone(), value.clone())),
            ModelAction::DeleteTag { key } => drop(model.tags.remove(key)),
            ModelAction::SetFinalizer { .. } | ModelAction::CreateModel { .. } | ModelAction::DeleteModel => {
            }
        }
        let kept = self.place.foreign.iter().all(|(key, value)| model.tags.get(key) == Some(value));
        self.check(kept, "a tag of somebody else is not touched");
        Ok(())
    }

    /// Whether the status knows aliases of a model that is gone, and nobody has asked to create it anew.
    fn misses_content(&self) -> bool {
        let status = self.status.as_ref();
        let knows_aliases = self.place.is_known == Some(true);
        let is_asked = self.desired.retry != status.and_then(|status| status.retried.clone());
        self.place.model.is_none() && knows_aliases && !is_asked
    }

    fn deletes(&mut self, observed: &ModelObserved) {
        let in_time = self.deleting_since.is_some_and(|since| self.now < since + REGISTRY_DEADLINE);
        self.check(self.is_deleting && in_time, "a model is deleted only with its object, and in time");
        self.check(self.desired.deletes_model, "a model is deleted only by its policy");
        self.check(self.referrers.is_empty(), "a model is deleted only after what refers to it");
        let is_known = matches!(observed.registry, ModelPresence::Present(_));
        self.check(is_known && self.place.model.is_some(), "only a model that is there is deleted");
    }

    /// Lets everything answer and nothing else happen until the operator has nothing left to do.
    pub(super) fn settle(&mut self) {
        self.answers = true;
        self.poll();
        let keeps_model = self.is_deleting
            && self.has_finalizer
            && (!self.desired.deletes_model || !self.referrers.is_empty())
            && self.place.model.is_some();
        let mut steps = 0;
        while !self.is_gone && (self.reconcile(None, None) || self.is_deleting) && steps < 4 * STEPS_MAX {
            steps += 1;
            // What refers to the model is waited for in steps of five seconds.
            self.now += if self.is_deleting { RETRY_DELETION } else { SignedDuration::from_secs(1) };
        }
        let limit = if self.is_deleting { 2 * STEPS_MAX } else { STEPS_MAX };
        self.check(steps <= limit, "it converges");
        if self.is_gone {
            self.check(
                !keeps_model || self.place.model.is_some(),
                "a model that is retained or referred to stays",
            );
            return;
        }
        if self.misses_content() {
            self.check_gone();
        } else {
            self.check_described();
        }
        self.now += SignedDuration::from_hours(24);
        let written = self.reconcile(None, None);
        self.check(!written, "at rest it writes nothing");
    }

    fn check_gone(&mut self) {
        let status = self.status.clone().unwrap_or_default();
        let is_gone = status.conditions.iter().any(|condition| {
            condition.type_ == "Stalled" && condition.status == "True" && condition.reason == "ModelGone"
        });
        self.check(is_gone, "a lost model is reported");
    }

    fn check_described(&mut self) {
        let model = self.place.model.clone().unwrap_or_default();
        self.check(self.place.model.is_some() && !self.is_deleting, "the model is there");
        let is_met = self.desired.description.as_ref().is_none_or(|text| *text == model.description);
        self.check(is_met, "the description is as described");
        let mut expected = self.desired.tags.clone();
        expected.extend(self.place.foreign.clone());
        self.check(model.tags == expected, "the tags are as described, beside those of others");
        self.check(self.has_finalizer == self.desired.deletes_model, "the finalizer is as the policy");
        let status = self.status.clone().unwrap_or_default();
        let is_ready = status.conditions.iter().any(|condition| {
            condition.type_ == "Ready" && condition.status == "True" && condition.reason == "ModelSynced"
        });
        self.check(is_ready, "it is Ready");
        let managed: Vec<String> = self.desired.tags.keys().cloned().collect();
        self.check(status.owned_tags == managed, "the status lists the managed tags");
    }
}
