//! Generates any state of the cluster and the registry, including unreachable ones.

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use crate::{
    api::condition::Reason,
    decide::{ClusterView, RegistryView},
    fuzzing::schema::Generator,
};

/// Versions from this list, so that they often coincide.
fn version(generator: &mut Generator) -> String {
    (generator.below(5) + 1).to_string()
}

fn maybe(generator: &mut Generator, of: impl Fn(&mut Generator) -> Value) -> Value {
    if generator.chance(150) { of(generator) } else { Value::Null }
}

fn cause(generator: &mut Generator) -> Value {
    let reasons: Vec<_> = Reason::iter().collect();
    json!({ "reason": reasons[generator.below(reasons.len())], "message": generator.text() })
}

fn model_uri(generator: &mut Generator) -> Value {
    ["models:/m-0123456789abcdef0123456789abcdef", "models:/fraud/1", "s3://b/x"][generator.below(3)].into()
}

fn count(generator: &mut Generator) -> u32 {
    [0, 1, 2, 3, 10_000][generator.below(5)]
}

/// Including manual edits of a Deployment.
fn desired(generator: &mut Generator) -> u32 {
    if generator.chance(10) { i32::MAX.unsigned_abs() } else { count(generator) }
}

pub(super) fn registry(generator: &mut Generator) -> RegistryView {
    let mut versions = Map::new();
    for number in 1..=5 {
        let view = match generator.below(6) {
            0 => continue,
            1 => json!("Absent"),
            2 => json!("Pending"),
            3 => json!("Failed"),
            4 => json!({ "Unread": cause(generator) }),
            _ => json!({ "Ready": { "model_uri": model_uri(generator) } }),
        };
        versions.insert(number.to_string(), view);
    }
    let view = json!({
        "error": if generator.chance(50) { cause(generator) } else { Value::Null },
        "alias": maybe(generator, |generator| version(generator).into()),
        "previous_alias": maybe(generator, |generator| version(generator).into()),
        "versions": versions,
        "written": maybe(generator, |generator| version(generator).into()),
        "previous_written": maybe(generator, |generator| version(generator).into()),
    });
    serde_json::from_value(view).unwrap()
}

/// `settings` is the current fingerprint.
pub(super) fn cluster(generator: &mut Generator, settings: &str) -> ClusterView {
    let mut workloads = Map::new();
    for number in 1..=5 {
        if generator.chance(128) {
            workloads.insert(number.to_string(), workload(generator, settings));
        }
    }
    let traffic = match generator.below(4) {
        0 => json!("Nowhere"),
        1 => json!("Shared"),
        _ => json!({ "One": version(generator) }),
    };
    let shares: Map<String, Value> =
        (0..generator.below(4)).map(|_| (version(generator), generator.below(1000).into())).collect();
    let route: Value = maybe(generator, |generator| {
        json!({
            "shares": shares,
            "outdated": generator.chance(40),
            "revision": { "uid": "r", "generation": generator.below(3) },
            "pending": generator.chance(60).then(|| generator.text()),
        })
    });
    let mut services = Map::new();
    for number in 1..=5 {
        if generator.chance(100) {
            let service = json!({ "outdated": generator.chance(40), "has_endpoints": generator.chance(200) });
            services.insert(number.to_string(), service);
        }
    }
    let view = json!({
        "route": route,
        "version_services": services,
        "traffic": traffic,
        "service_outdated": generator.chance(60),
        "budget_is_unknown": generator.chance(20),
        "endpoints": (0..generator.below(3)).map(|_| version(generator)).collect::<Vec<_>>(),
        "workloads": workloads,
    });
    serde_json::from_value(view).unwrap()
}

fn workload(generator: &mut Generator, settings: &str) -> Value {
    let report = match generator.below(7) {
        0 => None,
        1 => Some(json!({ "Running": generator.text() })),
        2 => Some(json!({ "Unavailable": { "since": "2026-11-22T11:59:00Z", "why": generator.text() } })),
        3 => Some(json!("Passed")),
        4 => Some(json!("NoInputExample")),
        5 => Some(json!({ "Skipped": generator.text() })),
        _ => Some(json!({ "Failed": generator.text() })),
    };
    let settings = if generator.chance(60) { "v1-other" } else { settings };
    let started_at: Value = maybe(generator, |_| "2026-11-22T11:50:00Z".into());
    let attempt = if generator.chance(60) {
        Value::Null
    } else {
        json!({ "started_at": started_at, "settings": settings })
    };
    let smoke = report.map(|report| match attempt {
        Value::Null => json!({ "report": report }),
        attempt => json!({ "attempt": attempt, "report": report }),
    });
    json!({
        "desired": desired(generator),
        "pods": count(generator),
        "ready": count(generator),
        "rolled_out": generator.chance(128),
        "edited": generator.chance(40),
        "settings": settings,
        "model_uri": model_uri(generator),
        "started_at": started_at,
        "error": maybe(generator, cause),
        "smoke": smoke,
        "has_failed": generator.chance(60),
        "tried_since": maybe(generator, |_| "2026-11-22T11:51:00Z".into()),
    })
}
