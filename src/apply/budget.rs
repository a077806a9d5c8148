//! Writes to the PodDisruptionBudget.

use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    ResourceExt,
    api::ListParams,
    core::{Selector, SelectorExt},
};

use super::{
    Effects,
    deletion::delete,
    workloads::{Done, api, apply, selected_by, serving_was_removed},
};
use crate::{
    api::condition::ReasonMessage,
    cluster::error::error_message,
    decide::Traffic,
    render::{self, Selection, labels},
    resolve::Subject,
    state::Effect,
};

/// Lets the PodDisruptionBudget protect what requests are sent to. One of somebody else for the same pods
/// stays the only one: of two, Kubernetes would let no pod go.
pub(super) async fn protect(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    traffic: Traffic,
) -> Result<Effect, ReasonMessage> {
    let rendering = subject.service_rendering().ok_or_else(serving_was_removed)?;
    let Some(selection) = Selection::of(traffic) else { return Ok(Effect::UnderWay) };
    let known = effects.cluster.budget(&subject.key);
    let is_taken = match &known {
        Some(known) => known.owner.is_foreign(&subject.claim()),
        None => is_protected_by_others(effects, subject, traffic).await?,
    };
    if is_taken {
        return Ok(Effect::UnderWay);
    }
    let budget = render::disruption_budget(&rendering, selection);
    apply::<PodDisruptionBudget>(effects, subject, rendering.name, &budget, known.is_some()).await?;
    Ok(Effect::Done)
}

/// Whether there is a PodDisruptionBudget of somebody else that has our name or selects our pods.
async fn is_protected_by_others(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    traffic: Traffic,
) -> Result<bool, ReasonMessage> {
    let theirs = api::<PodDisruptionBudget>(effects, subject).list(&of_others()).await;
    let theirs = theirs.map_err(|error| error_message(&error, "list", "the PodDisruptionBudgets"))?.items;
    if theirs.is_empty() {
        return Ok(false);
    }
    let one = ListParams::default().labels(&selected_by(subject, traffic)).limit(1);
    let pods = api::<Pod>(effects, subject).list(&one).await;
    let pods = pods.map_err(|error| error_message(&error, "list", "the pods that get requests"))?;
    let is_name_taken = theirs.iter().any(|budget| budget.name_any() == subject.key.1);
    Ok(is_name_taken || theirs.iter().any(|budget| pods.iter().any(|pod| selects(budget, pod))))
}

/// Selects the `PodDisruptionBudgets` that Laurel has not rendered. There is one of Laurel for each
/// ModelAlias: to read them all for each would take longer with each.
fn of_others() -> ListParams {
    ListParams::default().labels(&format!("{}!={}", labels::MANAGED_BY, labels::MANAGER))
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    selector.is_some_and(|selector| selector.matches(pod.labels()))
}

pub(super) async fn delete_budget(effects: &Effects<'_>, subject: &Subject<'_>) -> Done {
    let known = effects.cluster.budget(&subject.key).and_then(|known| known.uid);
    delete::<PodDisruptionBudget>(effects.client, effects.cluster, &subject.key, &subject.key.1, known).await
}
