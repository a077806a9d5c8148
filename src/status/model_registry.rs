//! The next status of a ModelRegistry, from the state of its registry and webhook, and the Events for the
//! change.

use jiff::Timestamp;
use url::Url;

use super::{NewEvent, condition_events, kstatus, readiness_events};
use crate::{
    api::{
        ModelRegistryStatus,
        condition::{ConditionType, DesiredCondition, Reason, ReasonMessage, merge_conditions},
        model_registry::WebhookStatus,
    },
    decide::Readiness,
};

/// The state of a registry and of the object that describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryObserved {
    /// The time of the observation.
    pub now: Timestamp,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The status before; `None` for a new object.
    pub previous: Option<ModelRegistryStatus>,
    /// The state of the registry.
    pub health: RegistryHealth,
    /// The server's version, if known.
    pub server_version: Option<String>,
    /// How many of its models are watched.
    pub watched_models: usize,
    /// The state of its webhook; `None` if it was not checked.
    pub webhook: Option<WebhookReport>,
    /// The condition `Default`, if the object is marked as the default.
    pub default: Option<DesiredCondition>,
}

/// The state of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryHealth {
    /// The object is not valid.
    Invalid(ReasonMessage),
    /// There is no connection: a Secret is missing, or has no usable content.
    Unconnected(ReasonMessage),
    /// It has not been read yet.
    Unread,
    /// The last poll failed.
    Failing(ReasonMessage),
    /// The last poll read it.
    Answering(Url),
}

/// The state of a webhook.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WebhookReport {
    /// The condition `WebhookReady`; `None` without `spec.webhook`.
    pub condition: Option<DesiredCondition>,
    /// `status.webhook`.
    pub status: Option<WebhookStatus>,
}

impl RegistryHealth {
    /// Derives the state from the connection and the last poll; `poll` is `None` before the first one.
    #[must_use]
    pub fn new(
        url: &Url,
        connection: Result<(), ReasonMessage>,
        poll: Option<Result<(), ReasonMessage>>,
    ) -> Self {
        match (connection, poll) {
            (Err(error), _) => Self::Unconnected(error),
            (Ok(()), None) => Self::Unread,
            (Ok(()), Some(Err(error))) => Self::Failing(error),
            (Ok(()), Some(Ok(()))) => Self::Answering(url.clone()),
        }
    }

    fn readiness(&self) -> Readiness {
        match self {
            Self::Invalid(blocker) => Readiness::Stalled(blocker.clone()),
            Self::Unconnected(error) | Self::Failing(error) if error.reason.is_transient() => {
                Readiness::Progressing(error.clone())
            }
            Self::Unconnected(error) | Self::Failing(error) => Readiness::Stalled(error.clone()),
            Self::Unread => {
                let message = "the registry has not been read yet";
                Readiness::Progressing(ReasonMessage::new(Reason::RegistryNotRead, message))
            }
            Self::Answering(url) => {
                Readiness::Settled(ReasonMessage::new(Reason::Connected, format!("{url} answers")))
            }
        }
    }
}

/// Returns the status to write; `None` if nothing but time has changed, and before the first poll after a
/// start: the previous operator's status is better than none.
#[must_use]
pub fn registry_status(observed: &RegistryObserved) -> Option<ModelRegistryStatus> {
    let RegistryObserved {
        now,
        generation,
        previous,
        health,
        server_version,
        watched_models,
        webhook,
        default,
    } = observed;
    let before = previous.clone().unwrap_or_default();
    if *health == RegistryHealth::Unread && !before.conditions.is_empty() {
        return None;
    }
    let mut conditions =
        merge_conditions(&before.conditions, kstatus(&health.readiness()), *generation, *now);
    let mut optional = |type_, condition: Option<&DesiredCondition>| {
        let name: &str = ConditionType::into(type_);
        if condition.is_none() {
            conditions.retain(|condition| condition.type_ != name);
        }
        let condition = condition.into_iter().cloned().collect();
        conditions = merge_conditions(&conditions, condition, *generation, *now);
    };
    optional(ConditionType::Default, default.as_ref());
    let mut webhook_status = before.webhook;
    if let Some(webhook) = webhook {
        webhook_status.clone_from(&webhook.status);
        optional(ConditionType::WebhookReady, webhook.condition.as_ref());
    }
    let next = ModelRegistryStatus {
        observed_generation: *generation,
        server_version: server_version.clone().or(before.server_version),
        watched_models: u32::try_from(*watched_models).ok(),
        webhook: webhook_status,
        conditions,
    };
    (previous.as_ref() != Some(&next)).then_some(next)
}

/// Returns the Events for a new status.
#[must_use]
pub fn registry_events(observed: &RegistryObserved, next: &ModelRegistryStatus) -> Vec<NewEvent> {
    let before = observed.previous.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let of = |type_, action| condition_events(type_, before, &next.conditions, action);
    let others = [of(ConditionType::WebhookReady, "Push"), of(ConditionType::Default, "Default")];
    readiness_events(before, &next.conditions, "Connect")
        .into_iter()
        .chain(others.into_iter().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::api::condition::ConditionStatus;

    fn healths() -> Vec<RegistryHealth> {
        let cause = |reason| ReasonMessage::new(reason, "why");
        vec![
            RegistryHealth::Invalid(cause(Reason::RegistryInvalid)),
            RegistryHealth::Unconnected(cause(Reason::SecretNotFound)),
            RegistryHealth::Unconnected(cause(Reason::ApplyFailed)),
            RegistryHealth::Unread,
            RegistryHealth::Failing(cause(Reason::RegistryUnreachable)),
            RegistryHealth::Failing(cause(Reason::RegistryForbidden)),
            RegistryHealth::Answering("http://mlflow".parse().unwrap()),
        ]
    }

    fn webhooks() -> Vec<Option<WebhookReport>> {
        let condition = DesiredCondition {
            type_: ConditionType::WebhookReady,
            status: ConditionStatus::True,
            cause: ReasonMessage::new(Reason::WebhookReceiving, "why"),
        };
        let status = Some(WebhookStatus { id: Some("1".into()), last_delivery: None });
        let ready = WebhookReport { condition: Some(condition), status: status.clone() };
        let removed = WebhookReport { condition: None, status };
        vec![None, Some(WebhookReport::default()), Some(removed), Some(ready)]
    }

    fn observed(health: &RegistryHealth, webhook: Option<&WebhookReport>) -> RegistryObserved {
        RegistryObserved {
            now: Timestamp::UNIX_EPOCH,
            generation: Some(1),
            previous: None,
            health: health.clone(),
            server_version: None,
            watched_models: 2,
            webhook: webhook.cloned(),
            default: None,
        }
    }

    fn all() -> impl Iterator<Item = RegistryObserved> {
        healths()
            .into_iter()
            .flat_map(|health| webhooks().into_iter().map(move |webhook| observed(&health, webhook.as_ref())))
    }

    fn is_true(status: &ModelRegistryStatus, type_: &str) -> bool {
        status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    }

    #[test]
    fn exactly_one_of_ready_reconciling_and_stalled_holds() {
        for observed in all() {
            let status = registry_status(&observed).expect("a new object gets a status");
            let holds = ["Ready", "Reconciling", "Stalled"].map(|type_| is_true(&status, type_));
            assert_eq!(holds.iter().filter(|holds| **holds).count(), 1, "{observed:?}");
            assert_eq!(holds[0], matches!(observed.health, RegistryHealth::Answering(_)), "{observed:?}");
            let stalls = match &observed.health {
                RegistryHealth::Invalid(_) => true,
                RegistryHealth::Unconnected(cause) | RegistryHealth::Failing(cause) => {
                    !cause.reason.is_transient()
                }
                RegistryHealth::Unread | RegistryHealth::Answering(_) => false,
            };
            assert_eq!(holds[2], stalls, "{observed:?}");
        }
    }

    #[test]
    fn nothing_is_written_while_only_time_passes() {
        for first in all() {
            for mut second in all() {
                second.previous = registry_status(&first);
                let Some(status) = registry_status(&second) else { continue };
                let later = Timestamp::from_second(3600).unwrap();
                let third = RegistryObserved { now: later, previous: Some(status), ..second };
                assert_eq!(registry_status(&third), None);
            }
        }
    }

    #[test]
    fn the_previous_operator_s_status_is_kept_until_the_first_poll() {
        for first in all() {
            let previous = registry_status(&first);
            for webhook in webhooks() {
                let unread = RegistryObserved {
                    previous: previous.clone(),
                    ..observed(&RegistryHealth::Unread, webhook.as_ref())
                };
                assert_eq!(registry_status(&unread), None);
            }
        }
    }

    #[test]
    fn the_webhook_status_is_kept_between_checks_and_removed_with_its_field() {
        let invalid = &healths()[0];
        let answering = &healths()[6];
        let [unseen, none, removed, ready] = &webhooks()[..] else { panic!("four") };
        let with = registry_status(&observed(answering, ready.as_ref())).unwrap();
        assert!(is_true(&with, "WebhookReady"));
        let after = |health, webhook: &Option<WebhookReport>| {
            let previous = Some(with.clone());
            registry_status(&RegistryObserved { previous, ..observed(health, webhook.as_ref()) }).unwrap()
        };
        let kept = after(invalid, unseen);
        assert!(is_true(&kept, "WebhookReady") && kept.webhook == with.webhook, "{kept:?}");
        for (webhook, status) in [(none, None), (removed, with.webhook.clone())] {
            let next = after(answering, webhook);
            assert!(next.conditions.iter().all(|condition| condition.type_ != "WebhookReady"), "{next:?}");
            assert_eq!(next.webhook, status);
        }
    }

    #[test]
    fn the_last_known_server_version_is_kept() {
        let known = RegistryObserved { server_version: Some("3.18".into()), ..observed(&healths()[6], None) };
        let previous = registry_status(&known);
        let next = registry_status(&RegistryObserved { previous, ..observed(&healths()[4], None) }).unwrap();
        assert_eq!(next.server_version.as_deref(), Some("3.18"));
    }

    #[test]
    fn a_missing_connection_takes_precedence_over_earlier_reads() {
        let url = "http://mlflow".parse().unwrap();
        let cause = ReasonMessage::new(Reason::SecretNotFound, "why");
        for poll in [None, Some(Ok(())), Some(Err(ReasonMessage::new(Reason::RegistryForbidden, "why")))] {
            let health = RegistryHealth::new(&url, Err(cause.clone()), poll);
            assert_eq!(health, RegistryHealth::Unconnected(cause.clone()));
        }
        assert_eq!(RegistryHealth::new(&url, Ok(()), None), RegistryHealth::Unread);
        assert_eq!(RegistryHealth::new(&url, Ok(()), Some(Ok(()))), RegistryHealth::Answering(url));
    }

    #[test]
    fn an_event_is_published_if_a_reason_changes() {
        let mut failing = observed(&healths()[5], webhooks()[3].as_ref());
        let next = registry_status(&failing).unwrap();
        let reasons =
            |events: Vec<NewEvent>| events.into_iter().map(|event| event.reason).collect::<Vec<_>>();
        assert_eq!(reasons(registry_events(&failing, &next)), ["RegistryForbidden", "WebhookReceiving"]);
        failing.previous = Some(next.clone());
        assert_eq!(registry_events(&failing, &next), []);
    }
}
