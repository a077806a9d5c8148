//! What the pods of a version are waited for, in a sentence.

use super::Workload;
use crate::api::{
    condition::{PROBE_FAILS, Reason, ReasonMessage},
    names::Version,
};

/// What keeps a version's Deployment from being rolled out: what Kubernetes reports, or else what is waited
/// for.
pub(super) fn pods_cause(version: Version, workload: &Workload) -> ReasonMessage {
    workload.error.clone().unwrap_or_else(|| {
        let probe = workload.failing_probe.as_ref();
        let probe = probe.map_or_else(String::new, |said| {
            format!("; {PROBE_FAILS}, as it does while a model is loading: {said}")
        });
        let message = format!("{}{probe}", awaited(version, workload));
        ReasonMessage::new(Reason::WaitingForPods, message)
    })
}

/// Which pods are waited for: new ones, old ones that have to go, or only the report that all is done.
fn awaited(version: Version, workload: &Workload) -> String {
    let Workload { desired, updated_ready, outdated, .. } = workload;
    match (updated_ready < desired, *outdated) {
        (true, 0) => format!("version {version}: {updated_ready} of {desired} pods are ready"),
        (true, _) => {
            format!("version {version} gets new settings: {updated_ready} of {desired} new pods are ready")
        }
        (false, 0) => format!(
            "version {version}: {desired} of {desired} pods are ready; waiting for the Deployment's status to \
             report it"
        ),
        (false, 1) => {
            format!("version {version} gets new settings: all new pods are ready, 1 old pod is being removed")
        }
        (false, old) => format!(
            "version {version} gets new settings: all new pods are ready, {old} old pods are being removed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn workload(desired: u32, updated_ready: u32, outdated: u32) -> Workload {
        let text = format!(
            "{{desired: {desired}, pods: 3, ready: {}, rolled_out: false, settings: v1-a, model_uri: 'models:/m/4', \
             updated_ready: {updated_ready}, outdated: {outdated}}}",
            updated_ready + outdated
        );
        serde_yaml::from_str(&text).unwrap()
    }

    #[test]
    fn the_sentence_fits_what_is_waited_for() {
        let table = [
            ((2, 1, 0), "version 4: 1 of 2 pods are ready"),
            ((1, 0, 1), "version 4 gets new settings: 0 of 1 new pods are ready"),
            ((2, 1, 1), "version 4 gets new settings: 1 of 2 new pods are ready"),
            ((2, 2, 1), "version 4 gets new settings: all new pods are ready, 1 old pod is being removed"),
            ((2, 2, 2), "version 4 gets new settings: all new pods are ready, 2 old pods are being removed"),
            ((2, 2, 0), "version 4: 2 of 2 pods are ready; waiting for the Deployment's status to report it"),
        ];
        for ((desired, updated_ready, outdated), expected) in table {
            let cause = pods_cause(Version::new(4).unwrap(), &workload(desired, updated_ready, outdated));
            assert_eq!((cause.reason, cause.message.as_str()), (Reason::WaitingForPods, expected));
        }
    }

    #[test]
    fn a_failing_probe_is_reported_but_is_no_error() {
        let mut workload = workload(1, 0, 0);
        workload.failing_probe = Some("Readiness probe failed: HTTP 503".to_owned());
        let cause = pods_cause(Version::new(4).unwrap(), &workload);
        assert_eq!(cause.reason, Reason::WaitingForPods);
        assert_eq!(
            cause.message,
            "version 4: 0 of 1 pods are ready; a probe fails, as it does while a model is loading: Readiness probe \
             failed: HTTP 503"
        );
    }
}
