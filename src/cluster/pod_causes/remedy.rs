//! The next step after a report of Kubernetes, from what the report names.

const SEE_EVENTS: &str = "see kubectl describe pod for the pod's Events";

/// The object that a report says not to exist: its kind and name.
fn missing_object(said: &str) -> Option<(&'static str, &str)> {
    let kinds = [
        ("secret \"", "Secret"),
        ("configmap \"", "ConfigMap"),
        ("persistentvolumeclaim \"", "PersistentVolumeClaim"),
        ("serviceaccount \"", "ServiceAccount"),
    ];
    kinds.into_iter().find_map(|(prefix, kind)| {
        said.match_indices(prefix).find_map(|(start, _)| {
            let (name, rest) = said[start + prefix.len()..].split_once('"')?;
            rest.trim_start().starts_with("not found").then_some((kind, name))
        })
    })
}

/// The key that a report says to be missing: the key, and the kind and name of its object.
fn missing_key(said: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = said.split_once("couldn't find key ")?;
    let (key, rest) = rest.split_once(" in ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let name = rest.split([' ', ',', ';']).next()?;
    Some((key, kind, name.split_once('/').map_or(name, |(_, name)| name)))
}

/// What creates what is missing.
fn creates(said: &str, namespace: &str) -> Option<String> {
    let key = |(key, kind, name)| {
        format!("add the key {key:?} to the {kind} {name:?} in the namespace {namespace:?}")
    };
    let object = |(kind, name)| format!("create the {kind} {name:?} in the namespace {namespace:?}");
    missing_key(said).map(key).or_else(|| missing_object(said).map(object))
}

/// After a container that cannot be configured.
pub(super) fn of_config(said: &str, namespace: &str) -> String {
    let check = "env and envFrom in spec.serving of the ModelAlias and of its registry";
    match creates(said, namespace) {
        Some(create) => format!("{create}, or correct {check}"),
        None => format!("check {check}"),
    }
}

/// After a volume that cannot be attached or mounted.
pub(super) fn of_volume(said: &str, namespace: &str) -> String {
    if let Some(create) = creates(said, namespace) {
        return format!("{create}, or correct volumes in spec.serving.template");
    }
    if said.contains("references non-existent") {
        return "add the key to that object, or correct volumes in spec.serving.template".to_owned();
    }
    if said.contains("Multi-Attach") {
        return "use a volume that several nodes can mount (ReadOnlyMany or ReadWriteMany), or free it from the \
                pod that holds it"
            .to_owned();
    }
    format!("check volumes in spec.serving.template and their storage; {SEE_EVENTS}")
}

/// After a pod that no node takes.
pub(super) fn of_scheduling(said: &str, namespace: &str) -> String {
    if let Some(create) = creates(said, namespace) {
        return format!("{create}, or correct volumes in spec.serving.template");
    }
    if said.contains("PersistentVolumeClaim") || said.contains("volume node affinity") {
        return "check the claims that spec.serving.template names: kubectl get persistentvolumeclaims"
            .to_owned();
    }
    let is_full = said.contains("Insufficient") || said.contains("Too many pods");
    let matches_none = ["affinity", "selector", "taint", "topology spread", "free ports"]
        .iter()
        .any(|word| said.contains(word));
    match (is_full, matches_none) {
        (true, false) => "add capacity, or request less in spec.serving.resources",
        (false, true) => {
            "correct nodeSelector, affinity and tolerations in spec.serving.template, or add a matching node"
        }
        _ => {
            "add capacity, request less in spec.serving.resources, or correct nodeSelector, affinity and \
             tolerations in spec.serving.template"
        }
    }
    .to_owned()
}

/// After an eviction; empty, or it begins with a separator.
pub(super) fn of_eviction(said: &str) -> &'static str {
    if said.contains("low on resource") || said.contains("exceeds the limit") || said.contains("Usage of") {
        "; if it happens again, request what the model needs in spec.serving.resources (memory, \
         ephemeral-storage)"
    } else {
        ""
    }
}

/// After a pod that its node rejects.
pub(super) fn of_rejection(reason: &str) -> &'static str {
    match reason {
        "UnexpectedAdmissionError" => {
            "check the device plugins of the node (kubectl describe nodes), or request other devices in \
             spec.serving.resources"
        }
        "NodeAffinity" => {
            "correct nodeSelector and affinity in spec.serving.template, or the labels of the node"
        }
        "DeadlineExceeded" => "remove activeDeadlineSeconds from spec.serving.template",
        reason if reason.starts_with("OutOf") => "add capacity, or request less in spec.serving.resources",
        _ => "check the node (kubectl describe nodes)",
    }
}

/// After pods that are not admitted.
pub(super) fn of_refusal(said: &str, namespace: &str) -> String {
    if let Some(create) = creates(said, namespace) {
        return format!("{create}, or correct spec.serving.template");
    }
    let next = if said.contains("exceeded quota") || said.contains("failed quota") {
        "raise the quota (kubectl describe resourcequotas), or set less in spec.serving.resources"
    } else if said.contains("PodSecurity") {
        "change spec.serving.template to what the namespace's pod security level allows"
    } else if said.contains("admission webhook") || said.contains("ValidatingAdmissionPolicy") {
        "change spec.serving to what the policy allows, or the policy"
    } else if said.contains("LimitRange")
        || said.contains("usage per Container")
        || said.contains("usage per Pod")
    {
        "set spec.serving.resources within the limits of the namespace (kubectl describe limitranges)"
    } else {
        "raise the quota, or change spec.serving to what the namespace allows"
    };
    next.to_owned()
}
