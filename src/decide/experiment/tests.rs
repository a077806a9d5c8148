//! Stories of experiments: what is counted, what is concluded, and what follows.

use jiff::{SignedDuration, Timestamp};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;
use crate::{
    analysis::{
        Tally,
        ledger::{ArmBatch, Batch},
    },
    api::condition::Reason,
    status::{ExperimentApplied, experiment_events, next_experiment},
};

fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn uri(number: u32) -> ModelUri {
    format!("models:/m-{number}").try_into().unwrap()
}

fn champion_arm(number: u32, follows_registry: bool) -> ChampionArm {
    ChampionArm { version: version(number), model_uri: Some(uri(number)), weight: 80, follows_registry }
}

fn challenger_arm(number: u32, weight: u32) -> ChallengerArm {
    ChallengerArm { version: version(number), model_uri: Some(uri(number)), weight }
}

/// An experiment whose counts arrive minute by minute.
struct World {
    observed: ExperimentObserved,
    /// The registry: tags of versions, and the version that the champion's alias names.
    tags: Vec<(String, Version, String)>,
    alias: Option<Version>,
    /// Everything that was reported.
    events: Vec<String>,
}

impl World {
    /// A champion with version 4 and 80 %, and two challengers with 10 % each, the first with version 5 and the
    /// second with version 6.
    fn new(spec: &Value) -> Self {
        let mut all = json!({
            "championRef": { "name": "champion" },
            "challengers": [{ "aliasRef": { "name": "one" } }],
            "metrics": [
                { "name": "approved", "role": "Primary", "goal": "Maximize", "margin": 0.01, "predictions": { "class": "1" } },
                { "name": "failures", "role": "Guardrail", "failures": {} },
            ],
            "minSamples": 1000,
            "duration": { "atLeast": "1h", "atMost": "24h" },
        });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let spec: ModelExperimentSpec = serde_json::from_value(all).unwrap();
        let challenger = |number| Ok(challenger_arm(number, 10));
        let challengers = [5, 6].into_iter().take(spec.challengers.len()).map(challenger).collect();
        Self {
            observed: ExperimentObserved {
                now: Timestamp::from_second(1_800_000_000).unwrap(),
                name: "q4".to_owned(),
                generation: Some(1),
                spec,
                status: ModelExperimentStatus::default(),
                champion: Ok(champion_arm(4, true)),
                challengers,
                of_other_models: BTreeSet::new(),
                counted: Vec::new(),
            },
            tags: Vec::new(),
            alias: Some(version(4)),
            events: Vec::new(),
        }
    }

    /// A reconcile. Returns what was decided.
    fn reconcile(&mut self) -> ExperimentDecision {
        let decision = decide(&self.observed);
        assert_eq!(decision, decide(&self.observed), "the same observation gives the same decision");
        assert!(decision.wake.is_none_or(|wake| wake > self.observed.now));
        let mut applied = ExperimentApplied::default();
        for action in &decision.actions {
            // Only what the status already says may have an effect.
            match action {
                ExperimentAction::SetTag { alias, version, value, .. } => {
                    let arm = self.observed.status.arms.iter().find(|arm| arm.alias == *alias).unwrap();
                    assert_eq!(
                        arm.result.as_ref().unwrap().verdict.tag(),
                        Some(value.as_str()),
                        "a tag before its verdict was written"
                    );
                    self.tags.push((alias.clone(), *version, value.clone()));
                }
                ExperimentAction::SetAlias { from, version } => {
                    assert_eq!(self.observed.status.phase, Some(ExperimentPhase::Concluded));
                    assert_eq!(self.alias, Some(*from));
                    self.alias = Some(*version);
                }
            }
            applied.done.push(action.clone());
        }
        let next = next_experiment(&self.observed, &decision, &applied);
        self.events.extend(experiment_events(&self.observed.status, &next).into_iter().map(|it| it.reason));
        self.observed.status = next;
        decision
    }

    /// Reconciles until nothing changes.
    fn settle(&mut self) -> ExperimentDecision {
        for _ in 0..10 {
            let before = self.observed.status.clone();
            let decision = self.reconcile();
            if before == self.observed.status && decision.actions.is_empty() {
                return decision;
            }
        }
        panic!("it does not come to rest: {:#?}", self.observed.status);
    }

    /// Minutes with 800 requests for the champion and 100 for each challenger. `approved` and `failed` are per
    /// thousand: of the champion, then of each challenger.
    fn minutes(&mut self, minutes: u32, approved: &[u64], failed: &[u64]) {
        for _ in 0..minutes {
            self.passes(SignedDuration::from_mins(1));
            let contests = self.reconcile().contests;
            for contest in contests {
                let arm = self
                    .observed
                    .spec
                    .challengers
                    .iter()
                    .position(|it| it.alias_ref.name == contest.key.alias)
                    .unwrap()
                    + 1;
                // By the minute, so that rounding loses nothing.
                let share = |per_mille: u64, requests: u64| {
                    let minute = u64::try_from(self.observed.now.as_second() / 60).unwrap();
                    (minute + 1) * per_mille * requests / 1000 - minute * per_mille * requests / 1000
                };
                let batch = |requests: u64, arm: usize| ArmBatch {
                    requests,
                    tallies: [("approved", approved[arm]), ("failures", failed[arm])]
                        .map(|(name, per_mille)| {
                            (name.to_owned(), Tally::new(share(per_mille, requests), requests).unwrap())
                        })
                        .into(),
                    ..ArmBatch::default()
                };
                let batch = Batch {
                    from: self.observed.now - SignedDuration::from_mins(1),
                    to: self.observed.now,
                    weights: contest.weights.map(f64::from).to_vec(),
                    arms: vec![batch(800, 0), batch(100, arm)],
                };
                let known = self.observed.counted.iter().find(|view| view.key == contest.key);
                let known = known.map(|view| view.evidence.clone());
                let mut evidence =
                    known.or(contest.evidence).unwrap_or_else(|| ExperimentEvidence::new(&contest.rules));
                evidence.add(&batch, &contest.rules);
                self.observed.counted.retain(|view| view.key != contest.key);
                self.observed.counted.push(CountedView { key: contest.key, evidence, outage: None });
            }
        }
        self.settle();
    }

    fn passes(&mut self, time: SignedDuration) {
        self.observed.now = self.observed.now.checked_add(time).unwrap();
    }

    fn arm(&self, index: usize) -> &ArmStatus {
        &self.observed.status.arms[index]
    }

    fn verdict(&self, index: usize) -> (Verdict, &str) {
        let result = self.arm(index).result.as_ref().unwrap();
        (result.verdict, &result.reason)
    }

    fn ready(&self) -> (&str, &str) {
        let ready = self.observed.status.conditions.iter().find(|it| it.type_ == "Ready").unwrap();
        (&ready.status, &ready.reason)
    }
}

#[test]
fn a_challenger_wins_after_the_least_duration_and_its_version_is_tagged_and_promoted_once() {
    let mut world = World::new(&json!({ "onWinner": "SetAlias" }));
    world.settle();
    assert_eq!(world.observed.status.phase, Some(ExperimentPhase::Collecting));
    world.minutes(59, &[500, 600], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::Collecting, "TooEarly"));
    assert_eq!(world.tags, [], "nothing is said before");
    world.minutes(3, &[500, 600], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::ChallengerWins, "Significant"));
    assert_eq!(world.observed.status.phase, Some(ExperimentPhase::Concluded));
    assert_eq!(world.observed.status.winner.as_deref(), Some("one"));
    assert_eq!(world.tags, [("one".to_owned(), version(5), "wins".to_owned())]);
    assert_eq!(world.alias, Some(version(5)));
    assert_eq!(world.ready(), ("True", "ChallengerWins"));
    assert!(world.events.contains(&"ChallengerWins".to_owned()), "{:?}", world.events);
    // Somebody moves the alias on, and the champion follows: it is never set again.
    world.alias = Some(version(9));
    world.observed.champion = Ok(champion_arm(9, true));
    let concluded = world.observed.status.clone();
    world.minutes(2000, &[500, 100], &[0, 500]);
    assert_eq!((world.alias, world.tags.len()), (Some(version(9)), 1));
    assert_eq!(world.observed.status.arms, concluded.arms, "what is over stays as it is");
    assert_eq!(world.settle().contests, []);
}

/// The write of the status after the actions is lost each time.
#[test]
fn a_crash_after_any_write_repeats_it_without_harm() {
    let mut world = World::new(&json!({ "onWinner": "SetAlias" }));
    world.minutes(60, &[500, 600], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::Collecting, "TooEarly"));
    world.passes(SignedDuration::from_mins(1));
    let decision = decide(&world.observed);
    world.observed.status = next_experiment(&world.observed, &decision, &ExperimentApplied::default());
    assert_eq!(world.observed.status.phase, Some(ExperimentPhase::Concluded));
    let written = world.observed.status.clone();
    for _ in 0..2 {
        world.observed.status = written.clone();
        world.alias = Some(version(4));
        let actions: Vec<&'static str> = world.reconcile().actions.iter().map(Into::into).collect();
        assert_eq!(actions, ["SetTag", "SetAlias"]);
    }
    // The champion has followed before the status was written.
    world.observed.status = written;
    world.alias = Some(version(5));
    world.observed.champion = Ok(champion_arm(5, true));
    world.settle();
    assert_eq!((world.alias, world.ready()), (Some(version(5)), ("True", "ChallengerWins")));
    let ready = world.observed.status.conditions.iter().find(|it| it.type_ == "Ready").unwrap();
    assert!(!ready.message.contains("not set"), "{}", ready.message);
    // A person rolls back, and it stays so.
    assert!(world.observed.status.alias_set);
    world.alias = Some(version(4));
    world.observed.champion = Ok(champion_arm(4, true));
    world.settle();
    assert_eq!(world.alias, Some(version(4)));
}

#[test]
fn a_guardrail_acts_at_once_and_withdraws_its_challenger_only() {
    let two = json!([{ "aliasRef": { "name": "one" } }, { "aliasRef": { "name": "two" } }]);
    let mut world = World::new(&json!({ "challengers": two }));
    world.minutes(5, &[500, 500, 500], &[1, 300, 1]);
    assert_eq!(world.verdict(0), (Verdict::ChampionWins, "GuardrailFailed"));
    let [withdrawn] = &world.observed.status.withdrawn[..] else { panic!("{:?}", world.observed.status) };
    assert_eq!((withdrawn.alias.as_str(), withdrawn.version), ("one", version(5)));
    assert!(withdrawn.message.contains("failures:"), "{}", withdrawn.message);
    assert_eq!(world.tags, [("one".to_owned(), version(5), "loses".to_owned())]);
    assert_eq!(world.observed.status.phase, Some(ExperimentPhase::Collecting), "the other one goes on");
    assert_eq!(world.verdict(1), (Verdict::Collecting, "TooEarly"));
    assert!(world.events.contains(&"ChallengerWithdrawn".to_owned()));
    // Without a share it is no longer there to be compared.
    let gone = ReasonMessage::new(Reason::ChallengerUnavailable, "no share");
    world.observed.challengers[0] = Err(gone);
    world.settle();
    assert_eq!(world.ready(), ("True", "Collecting"), "that one has its verdict");
    world.minutes(80, &[500, 500, 600], &[1, 1, 1]);
    assert_eq!(world.verdict(1), (Verdict::ChallengerWins, "Significant"));
    assert_eq!(world.observed.status.phase, Some(ExperimentPhase::Concluded));
    assert_eq!(world.observed.status.winner.as_deref(), Some("two"));
    assert_eq!(world.observed.status.withdrawn.len(), 1, "as long as the experiment is there");
}

#[test]
fn a_version_that_was_withdrawn_stays_so_when_another_one_was_there_in_between() {
    let two = json!([{ "aliasRef": { "name": "one" } }, { "aliasRef": { "name": "two" } }]);
    let mut world = World::new(&json!({ "challengers": two }));
    world.minutes(5, &[500, 500, 500], &[1, 300, 1]);
    world.observed.challengers[0] = Ok(challenger_arm(7, 10));
    world.minutes(2, &[500, 500, 500], &[1, 1, 1]);
    world.observed.challengers[0] = Ok(challenger_arm(5, 10));
    world.minutes(2, &[500, 500, 500], &[1, 1, 1]);
    let withdrawn: Vec<Version> = world.observed.status.withdrawn.iter().map(|it| it.version).collect();
    assert_eq!(withdrawn, [version(5)]);
}

#[test]
fn the_end_concludes_from_what_is_known_even_if_an_arm_is_away_at_that_moment() {
    let mut world = World::new(&json!({ "duration": { "atLeast": "1h", "atMost": "2h" } }));
    world.minutes(110, &[500, 500], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::Collecting, "TooWide"));
    let away = ReasonMessage::new(Reason::ChampionUnavailable, "it is changing its version");
    world.observed.champion = Err(away);
    world.observed.counted.clear();
    world.minutes(15, &[500, 500], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::NoDifference, "DurationReached"));
    assert_eq!(world.tags.len(), 1);
}

#[test]
fn a_report_withdraws_nothing() {
    let mut world = World::new(&json!({ "onGuardrail": "Report" }));
    world.minutes(5, &[500, 500], &[1, 300]);
    assert_eq!(world.verdict(0), (Verdict::ChampionWins, "GuardrailFailed"));
    assert_eq!(world.observed.status.withdrawn, []);
}

#[test]
fn equal_versions_end_within_the_margin_or_with_the_time() {
    let mut world = World::new(&json!({ "metrics": [
        { "name": "approved", "role": "Primary", "goal": "Maximize", "margin": 0.05, "predictions": { "class": "1" } },
    ] }));
    world.minutes(240, &[500, 500], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::NoDifference, "WithinMargin"));
    assert_eq!(world.tags, [("one".to_owned(), version(5), "no_difference".to_owned())]);

    let mut world = World::new(&json!({ "duration": { "atLeast": "1h", "atMost": "2h" } }));
    world.minutes(121, &[500, 500], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::NoDifference, "DurationReached"));
}

#[test]
fn what_was_never_known_is_no_verdict_at_the_end() {
    let mut world = World::new(&json!({ "minSamples": 1_000_000, "onWinner": "SetAlias" }));
    world.minutes(24 * 60 + 1, &[500, 900], &[0, 0]);
    assert_eq!(world.observed.status.phase, Some(ExperimentPhase::Concluded));
    assert_eq!(world.verdict(0), (Verdict::Undecided, "TooFewSamples"));
    assert_eq!((world.tags.len(), world.alias), (0, Some(version(4))));
    let concluded = world.observed.status.conditions.iter().find(|it| it.type_ == "Concluded").unwrap();
    assert_eq!((concluded.status.as_str(), concluded.reason.as_str()), ("True", "Undecided"));
}

#[test]
fn another_version_begins_anew_and_an_absence_does_not() {
    let mut world = World::new(&json!({}));
    world.minutes(30, &[500, 600], &[0, 0]);
    let samples = world.arm(0).result.clone().unwrap().samples;
    let away = ReasonMessage::new(Reason::ChampionUnavailable, "it is changing its version");
    let champion = std::mem::replace(&mut world.observed.champion, Err(away));
    world.minutes(10, &[500, 600], &[0, 0]);
    assert_eq!(world.ready(), ("False", "ChampionUnavailable"));
    assert_eq!(
        world.arm(0).result.clone().unwrap().samples,
        samples,
        "nothing was counted, and nothing lost"
    );
    world.observed.champion = champion;
    world.minutes(2, &[500, 600], &[0, 0]);
    assert!(world.arm(0).result.clone().unwrap().samples > samples);

    let since = world.arm(0).since;
    world.observed.challengers[0] = Ok(challenger_arm(7, 10));
    world.settle();
    assert_eq!((world.arm(0).version, world.arm(0).result.clone()), (Some(version(7)), None));
    assert!(world.arm(0).since > since && world.events.contains(&"BegunAnew".to_owned()));
    world.minutes(59, &[500, 600], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::Collecting, "TooEarly"), "its own hour");
}

/// A crash loses at most what was counted since the last write.
#[test]
fn after_a_restart_counting_goes_on_from_the_status() {
    let mut world = World::new(&json!({}));
    world.minutes(59, &[500, 600], &[0, 0]);
    let before = world.arm(0).result.clone().unwrap();
    world.observed.counted.clear();
    world.settle();
    assert_eq!(world.arm(0).result.clone().unwrap(), before);
    world.minutes(3, &[500, 600], &[0, 0]);
    assert_eq!(world.verdict(0), (Verdict::ChallengerWins, "Significant"));
}

#[test]
fn wrong_shares_conclude_nothing_and_need_a_person() {
    let mut world = World::new(&json!({ "onWinner": "SetAlias" }));
    // As many requests arrive as with 80 and 10 per cent.
    world.observed.challengers[0] = Ok(challenger_arm(5, 20));
    world.minutes(90, &[500, 700], &[0, 400]);
    assert_eq!(world.verdict(0), (Verdict::Collecting, "SplitMismatch"));
    assert_eq!((world.ready(), world.tags.len()), (("False", "SplitMismatch"), 0));
    assert_eq!(world.observed.status.withdrawn, []);
}

#[test]
fn an_alias_that_is_not_followed_or_was_moved_is_not_set() {
    let mut world = World::new(&json!({ "onWinner": "SetAlias" }));
    world.observed.champion = Ok(champion_arm(4, false));
    world.minutes(62, &[500, 600], &[0, 0]);
    assert_eq!((world.alias, world.ready()), (Some(version(4)), ("True", "ChallengerWins")));
    let ready = world.observed.status.conditions.iter().find(|it| it.type_ == "Ready").unwrap();
    assert!(ready.message.contains("does not follow its alias"), "{}", ready.message);
    // Somebody lets it follow, months later: that is not asked for any more.
    world.observed.champion = Ok(champion_arm(4, true));
    world.settle();
    assert_eq!((world.alias, world.observed.status.alias_set), (Some(version(4)), false));
}

#[test]
fn a_version_of_another_model_wins_but_the_alias_is_not_set_to_its_number() {
    let mut world = World::new(&json!({ "onWinner": "SetAlias" }));
    world.observed.of_other_models.insert("one".to_owned());
    world.minutes(62, &[500, 600], &[0, 0]);
    assert_eq!((world.alias, world.ready()), (Some(version(4)), ("True", "ChallengerWins")));
    assert_eq!(world.tags.len(), 1);
}

#[test]
fn the_same_number_with_another_model_begins_anew() {
    let mut world = World::new(&json!({}));
    world.minutes(30, &[500, 600], &[0, 0]);
    let since = world.arm(0).since;
    let replaced = ChallengerArm { model_uri: Some(uri(50)), ..challenger_arm(5, 10) };
    world.observed.challengers[0] = Ok(replaced);
    world.settle();
    assert!(world.arm(0).since > since && world.arm(0).result.is_none());
}

/// A ModelAlias changes often while pods come and go; that alone writes nothing.
#[test]
fn without_new_counts_nothing_is_written() {
    let mut world = World::new(&json!({}));
    world.minutes(30, &[500, 500], &[0, 0]);
    world.passes(SignedDuration::from_mins(1));
    world.settle();
    let before = world.observed.status.clone();
    for _ in 0..20 {
        world.passes(SignedDuration::from_secs(20));
        world.reconcile();
    }
    assert_eq!(world.observed.status, before);
}

#[test]
fn the_history_of_an_interval_is_bounded_and_keeps_its_last_point() {
    let mut world =
        World::new(&json!({ "duration": { "atLeast": "1h", "atMost": "72h" }, "minSamples": 1_000_000 }));
    let mut longest = 0;
    for _ in 0..70 {
        world.minutes(60, &[500, 500], &[0, 0]);
        let history = &world.arm(0).history;
        longest = longest.max(history.len());
        assert!(history.windows(2).all(|pair| pair[0].at < pair[1].at));
    }
    assert!((32..=POINTS).contains(&longest), "{longest}");
    let status = serde_json::to_string(&world.observed.status).unwrap();
    assert!(status.len() < 16_000, "{} bytes", status.len());
}

/// [`super::arm`] has it.
const POINTS: usize = 64;
