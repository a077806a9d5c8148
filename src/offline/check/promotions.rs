//! The promotion rules, applied to the versions in the manifests by the operator's own function.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Known, Of};
use crate::{
    api::{
        ModelAlias, RegisteredModel,
        live::OnDrift,
        model_alias::Strategy,
        names::{ModelName, Version},
        promotion::PromotionRule,
    },
    audit::Log,
    decide::{
        Candidates, Choice, Evidence, EvidenceFacts, Metrics, NEWEST, RegistryView, RuleOutcome, choose,
        examine,
    },
    observe::{candidate, measured},
    offline::versions::{self, RunMetrics},
    registry::{RegisteredModelFacts, Registry, VersionFacts, VersionState, metrics::VersionMetrics},
    resolve::{follower, rules_for},
};

/// The expected result of a ModelAlias, as far as the registry knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// The file.
    pub file: String,
    /// The ModelAlias.
    pub object: String,
    /// The model's name in the registry.
    pub model: String,
    /// The alias.
    pub alias: String,
    /// The desired version; `None` if a follower chooses none.
    pub version: Option<String>,
    /// The verdict on it.
    pub verdict: Verdict,
    /// The message with the cause.
    pub message: String,
    /// Every rule, with its required and actual values.
    pub rules: Vec<RuleSeen>,
}

/// The verdict on a desired version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Verdict {
    /// It meets every rule, or there are no rules.
    Passed,
    /// It does not meet every rule.
    Failed,
    /// It has the alias, or had it before: rules do not apply.
    ServedBefore,
    /// It does not exist in the registry, or cannot be served.
    Missing,
    /// A follower chooses no version.
    Nothing,
}

impl Verdict {
    /// Whether it is good. A follower that chooses no version changes nothing.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Passed | Self::ServedBefore | Self::Nothing)
    }
}

/// The result of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSeen {
    /// Whether it passed.
    pub passed: bool,
    /// The required value.
    pub required: String,
    /// The actual value.
    pub seen: String,
}

/// Evaluates the desired versions of these manifests.
///
/// # Errors
/// When the registry does not return the required facts.
pub async fn evaluate(known: &Known, registry: &dyn Registry) -> Result<Vec<Promotion>, String> {
    let mut promotions = Vec::new();
    for ((namespace, _), alias) in &known.aliases {
        let reference = (namespace.clone(), alias.object.spec.model_ref.name.clone());
        let Some(model) = known.models.get(&reference) else { continue };
        // Never fails: a valid Kubernetes name is valid in a registry.
        let Ok(name) = model.object.model_name() else { continue };
        promotions.push(judge(alias, &model.object, &name, registry).await?);
    }
    Ok(promotions)
}

async fn judge(
    alias: &Of<ModelAlias>,
    model: &RegisteredModel,
    name: &ModelName,
    registry: &dyn Registry,
) -> Result<Promotion, String> {
    let spec = &alias.object.spec;
    let reported = |version: Option<Version>, verdict, message: String| Promotion {
        file: alias.manifest.file.clone(),
        object: alias.manifest.title(),
        model: name.to_string(),
        alias: spec.alias.to_string(),
        version: version.map(|version| version.to_string()),
        verdict,
        message,
        rules: Vec::new(),
    };
    let failed = |error: crate::registry::RegistryError| error.to_string();
    let Some(facts) = registry.model(name).await.map_err(failed)? else {
        let message = format!(
            "the model {:?} does not exist in the registry yet, so it has no versions",
            name.as_str()
        );
        let verdict = if spec.version.is_some() { Verdict::Missing } else { Verdict::Nothing };
        return Ok(reported(spec.version, verdict, message));
    };
    let version = match desired_version(alias, &facts, registry).await? {
        Ok(version) => version,
        Err(nothing) => return Ok(reported(None, Verdict::Nothing, nothing)),
    };
    let Some(candidate) = registry.version(name, version).await.map_err(failed)? else {
        let message = format!("version {version} of {:?} does not exist in the registry", name.as_str());
        return Ok(reported(Some(version), Verdict::Missing, message));
    };
    if let Some(before) = served_before(spec, &facts, &candidate) {
        let message = format!("version {version} {before}, so the rules do not apply");
        return Ok(reported(Some(version), Verdict::ServedBefore, message));
    }
    if candidate.state != VersionState::Ready {
        let message = format!(
            "version {version} is {} in the registry, so it cannot be served",
            candidate.state.as_str()
        );
        return Ok(reported(Some(version), Verdict::Missing, message));
    }
    let rules = rules_for(&model.spec.promotion, &spec.alias);
    let live = live_rules(spec, &rules);
    let rules: Vec<_> = rules.into_iter().filter(PromotionRule::is_gate).collect();
    if rules.is_empty() {
        let message = format!(
            "version {version} exists in the registry, and there are no rules for {}{live}",
            spec.alias
        );
        return Ok(reported(Some(version), Verdict::Passed, message));
    }
    let rules = seen(&rules, &facts, candidate, registry).await?;
    let failed = rules.iter().filter(|rule| !rule.passed).count();
    let (verdict, message) = if failed == 0 {
        (Verdict::Passed, format!("version {version} meets all {} rules{live}", rules.len()))
    } else {
        (Verdict::Failed, format!("version {version} does not meet {failed} of {} rules", rules.len()))
    };
    Ok(Promotion { rules, ..reported(Some(version), verdict, message) })
}

/// Returns how live rules will judge the version, if there are any: the end of a sentence.
fn live_rules(spec: &crate::api::ModelAliasSpec, rules: &[PromotionRule]) -> String {
    let Some(live) = rules.iter().find_map(|rule| rule.live.as_ref()) else { return String::new() };
    let is_canary = spec.rollout.strategy == Strategy::Canary;
    let drift = match live.drift.as_ref().map(|drift| drift.action) {
        None => "",
        Some(OnDrift::Report) => "; drift of its inputs will be reported",
        Some(OnDrift::Hold) if is_canary => "; drift of its inputs will hold its canary",
        Some(OnDrift::Hold) => {
            "; drift of its inputs will be reported and hold nothing: that takes strategy Canary"
        }
    };
    if !is_canary && spec.rollout.watch_for.is_none() {
        return format!("; its live rules judge nothing: set strategy Canary, or rollout.watchFor{drift}");
    }
    let checks: Vec<&str> = live.checks.iter().map(|check| check.name.as_str()).collect();
    format!("; on live traffic it will be judged by {}{drift}", checks.join(", "))
}

/// Returns the desired version, or why there is none.
async fn desired_version(
    alias: &Of<ModelAlias>,
    facts: &RegisteredModelFacts,
    registry: &dyn Registry,
) -> Result<Result<Version, String>, String> {
    let spec = &alias.object.spec;
    if let Some(version) = spec.version {
        return Ok(Ok(version));
    }
    let Some(follower) = follower(spec) else {
        let named = facts.aliases.get(&spec.alias).copied();
        return Ok(
            named.ok_or_else(|| format!("the alias {} does not exist in the registry yet", spec.alias))
        );
    };
    let newest = registry.newest_versions(&facts.name, NEWEST).await.map_err(|error| error.to_string())?;
    let measured = if matches!(follower, crate::decide::Follower::Best { .. }) {
        versions::measured(registry, newest).await
    } else {
        newest.into_iter().map(|facts| (facts, Ok(VersionMetrics::default()))).collect()
    };
    let candidates = measured.iter().map(|(facts, metrics)| candidate(&follower, facts, metrics.as_ref()));
    match choose(&follower, &Candidates::Known(candidates.collect())) {
        Choice::Version(version) => Ok(Ok(version)),
        Choice::Nobody(cause) => Ok(Err(cause.message)),
        Choice::Unknown(cause) => Err(cause.message),
    }
}

/// Returns the evidence that a version served before: an alias, or the operator's tags.
fn served_before(
    spec: &crate::api::ModelAliasSpec,
    facts: &RegisteredModelFacts,
    candidate: &VersionFacts,
) -> Option<String> {
    let known = [Some(&spec.alias), spec.previous_alias.as_ref()];
    let mut known = known.into_iter().flatten();
    if let Some(alias) = known.find(|alias| facts.aliases.get(alias) == Some(&candidate.version)) {
        return Some(format!("has the alias {alias} in the registry"));
    }
    let log = Log::of(std::slice::from_ref(candidate)).about(&spec.alias);
    let live = log.entries.iter().find(|line| line.is_live())?;
    Some(format!("was live as {} on {} according to its tags in the registry", spec.alias, live.entry.at))
}

/// Returns the result of each rule.
async fn seen(
    rules: &[PromotionRule],
    facts: &RegisteredModelFacts,
    candidate: VersionFacts,
    registry: &dyn Registry,
) -> Result<Vec<RuleSeen>, String> {
    let version = candidate.version;
    let over = rules.iter().filter_map(|rule| rule.improves.as_ref());
    let over: BTreeSet<Version> = over.filter_map(|rule| facts.aliases.get(&rule.over).copied()).collect();
    let others: Vec<_> = over.into_iter().filter(|other| *other != version).collect();
    let others =
        versions::by_number(registry, &facts.name, &others).await.map_err(|error| error.to_string())?;
    let judged = others.into_iter().flatten().chain([candidate]).collect();
    let judged = versions::measured(registry, judged).await;
    let view = RegistryView {
        aliases: facts.aliases.iter().map(|(alias, version)| (alias.to_string(), *version)).collect(),
        evidence: judged
            .into_iter()
            .map(|(facts, metrics)| (facts.version, evidence(facts, metrics)))
            .collect(),
        ..RegistryView::default()
    };
    let findings = examine(rules, version, &view).into_iter().map(|finding| match finding.outcome {
        RuleOutcome::Unknown(cause) => Err(cause.message),
        outcome => Ok(RuleSeen {
            passed: outcome == RuleOutcome::Passed,
            required: finding.required,
            seen: finding.seen,
        }),
    });
    findings.collect()
}

fn evidence(facts: VersionFacts, metrics: RunMetrics) -> Evidence {
    let (sources, known) = (facts.metric_sources(), metrics.clone().unwrap_or_default());
    Evidence::Known(EvidenceFacts {
        registered_at: facts.created_at,
        has_description: !facts.description.trim().is_empty(),
        tags: facts.tags,
        measured: measured(&sources),
        of_logged_model: known.of_logged_model,
        unread: known.unread,
        metrics: metrics.map_or_else(Metrics::Unread, |metrics| Metrics::Known(metrics.values)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_how_live_traffic_will_judge_a_version() {
        let rules: Vec<PromotionRule> = serde_yaml::from_str(
            "[{name: live, aliases: [champion], live: {checks: [{name: failures, failures: {}}, {name: nan, missing: {}}]}}]",
        )
        .unwrap();
        let of = |rollout: &str, rules: &[PromotionRule]| {
            let spec =
                format!("{{modelRef: {{name: fraud}}, alias: champion, version: '1', rollout: {rollout}}}");
            live_rules(&serde_yaml::from_str(&spec).unwrap(), rules)
        };
        assert_eq!(of("{}", &[]), "");
        assert_eq!(of("{watchFor: 5m}", &rules), "; on live traffic it will be judged by failures, nan");
        let with_drift = |action: &str| {
            let mut rules = rules.clone();
            let drift = format!("{{action: {action}}}");
            rules[0].live.as_mut().unwrap().drift = Some(serde_yaml::from_str(&drift).unwrap());
            of("{strategy: Canary, steps: [{weight: 5, atLeast: 1m}]}", &rules)
        };
        let judged = "; on live traffic it will be judged by failures, nan";
        assert_eq!(with_drift("Report"), format!("{judged}; drift of its inputs will be reported"));
        assert_eq!(with_drift("Hold"), format!("{judged}; drift of its inputs will hold its canary"));
        assert_eq!(
            of("{}", &rules),
            "; its live rules judge nothing: set strategy Canary, or rollout.watchFor"
        );
    }
}
