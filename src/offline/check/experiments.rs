//! Experiments, and the `ModelAliases` that they compare.

use super::{Finding, Known, Of, references::referenced_model};
use crate::api::{
    ModelAlias, ModelExperiment,
    model_alias::Runtime,
    model_experiment::{ExperimentMetric, OnWinner},
    serving_metrics::Predictions,
};

/// Finds experiments that cannot reach a verdict, or whose winner has no effect.
pub(super) fn findings(known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((namespace, _), experiment) in &known.experiments {
        Compared { known, namespace, experiment, findings: &mut findings }.check();
    }
    findings
}

/// An experiment with what it refers to.
struct Compared<'a> {
    known: &'a Known,
    namespace: &'a str,
    experiment: &'a Of<ModelExperiment>,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Compared<'a> {
    fn check(&mut self) {
        let spec = &self.experiment.object.spec;
        let champion_name = &spec.champion_ref.name;
        let champion = self.alias(champion_name);
        if champion.is_none() {
            let message = format!(
                "these manifests have no ModelAlias {champion_name:?}; it must exist in the cluster, in the \
                 same namespace, and give the challengers a weight in its spec.traffic.challengers"
            );
            self.warning("spec.championRef", message);
        }
        for (index, challenger) in spec.challengers.iter().enumerate() {
            let field = format!("spec.challengers[{index}]");
            let name = &challenger.alias_ref.name;
            if self.alias(name).is_none() {
                let message = format!(
                    "these manifests have no ModelAlias {name:?}; it must exist in the cluster, in the same \
                     namespace, and what its pods count is not checked"
                );
                self.warning(&field, message);
            }
            if let Some(champion) = champion {
                self.share(&field, champion, name);
            }
        }
        self.counted();
        if let Some(champion) = champion.filter(|_| spec.on_winner == OnWinner::SetAlias) {
            self.winner(champion);
        }
    }

    fn alias(&self, name: &str) -> Option<&'a Of<ModelAlias>> {
        self.known.aliases.get(&(self.namespace.to_owned(), name.to_owned()))
    }

    fn error(&mut self, field: &str, message: String) {
        self.findings.push(Finding::error(&self.experiment.manifest, field, message));
    }

    fn warning(&mut self, field: &str, message: String) {
        self.findings.push(Finding::warning(&self.experiment.manifest, field, message));
    }

    /// Finds a challenger that answers no requests.
    fn share(&mut self, field: &str, champion: &Of<ModelAlias>, challenger: &str) {
        let name = &self.experiment.object.spec.champion_ref.name;
        let mut listed = champion.object.spec.traffic.iter().flat_map(|traffic| &traffic.challengers);
        match listed.find(|it| it.alias_ref.name == challenger) {
            None => self.error(
                field,
                format!(
                    "spec.traffic.challengers of {name:?} does not list {challenger:?}, so it gets no \
                     requests: list it there with a weight"
                ),
            ),
            Some(listed) if listed.weight.is_none() => self.error(
                field,
                format!(
                    "{challenger:?} gets only copies of the requests to {name:?}, and an experiment compares \
                     answers: give it a weight instead of mirror"
                ),
            ),
            Some(_) => {}
        }
    }

    /// Finds metrics that the pods of an arm do not count.
    fn counted(&mut self) {
        let spec = &self.experiment.object.spec;
        let arms = std::iter::once(&spec.champion_ref).chain(spec.challengers.iter().map(|it| &it.alias_ref));
        for name in arms.map(|arm| &arm.name) {
            let Some(alias) = self.alias(name) else { continue };
            for (index, metric) in spec.metrics.iter().enumerate() {
                if let Some(gap) = gap(&alias.object, metric) {
                    self.error(&format!("spec.metrics[{index}]"), format!("{name:?} {gap}"));
                }
            }
        }
    }

    /// Finds winners whose version would not be served.
    fn winner(&mut self, champion: &Of<ModelAlias>) {
        const FIELD: &str = "spec.onWinner";
        let spec = &self.experiment.object.spec;
        let (name, champion) = (&spec.champion_ref.name, &champion.object.spec);
        if champion.follow.as_ref().is_none_or(|follow| follow.registry.is_none()) {
            let message = format!(
                "SetAlias sets the alias {} in the registry, and {name:?} does not follow it: set \
                 spec.follow.registry there, or onWinner: Report here",
                champion.alias
            );
            self.error(FIELD, message);
        }
        let model = referenced_model(self.known, self.namespace, &champion.model_ref.name);
        for challenger in spec.challengers.iter().map(|challenger| &challenger.alias_ref.name) {
            let Some(alias) = self.alias(challenger) else { continue };
            if model.differs(&referenced_model(self.known, self.namespace, &alias.object.spec.model_ref.name))
            {
                let message = format!(
                    "SetAlias cannot set the alias {} to a version of {challenger:?}, which serves another \
                     model than {name:?}: use Report",
                    champion.alias
                );
                self.error(FIELD, message);
            }
        }
    }
}

/// Returns why the pods of a `ModelAlias` do not count a metric: the end of a sentence.
fn gap(alias: &ModelAlias, metric: &ExperimentMetric) -> Option<String> {
    // A ModelAlias without pods is reported with the share that it does not get.
    let serving = alias.spec.serving.as_ref()?;
    let name = &metric.name;
    let metrics = serving.metrics.as_ref();
    if serving.runtime == Runtime::Custom {
        if metric.predictions.is_some() || metric.missing.is_some() {
            return Some(format!(
                "has the runtime custom, whose predictions are not counted, as {name:?} needs: use failures or \
                 slow, or another runtime"
            ));
        }
        return metrics.is_none_or(|metrics| metrics.port.is_none()).then(|| {
            "has the runtime custom: set its spec.serving.metrics.port, or its requests are not counted"
                .to_owned()
        });
    }
    let needed = metric.predictions.as_ref().map(|predictions| match predictions.mean {
        Some(_) => Predictions::Numbers,
        None => Predictions::Classes,
    })?;
    let given = metrics.and_then(|metrics| metrics.predictions).unwrap_or_default();
    let [needed, given]: [&str; 2] = [needed, given].map(Into::into);
    (needed != given)
        .then(|| format!("needs spec.serving.metrics.predictions: {needed} for {name:?}; now it is {given}"))
}
