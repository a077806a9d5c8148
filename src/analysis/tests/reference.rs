//! Values computed by other programs: `reference.json`, a case a line.
//!
//! scipy 1.17.1 and statsmodels computed all but edge cases, whose expected value is a definition; `null` is
//! "no verdict". One is from arithmetic with 60 digits, "huge and slightly off": in scipy's difference of `ln
//! Γ` of 10^7 only seven digits are left (it returns -0.759016364…). Tallies are `[bad, total]`; sums are
//! `[n, Σ, Σ²]`.

use pretty_assertions::assert_eq;
use serde::Deserialize;

use crate::analysis::{
    Pair, Tally,
    moments::{Moments, UnitSums},
    sequential::{
        BoundTest, Comparison, Direction, Interval, chi_square, fisher_one_sided, fisher_two_sided,
        interval::rho, ln_bound_evidence, ln_dirichlet, one_sided_lower, over_grid, p_anytime, under_grid,
    },
    single_look::{mann_whitney, newcombe, two_proportions, two_sided_normal, welch},
};

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(flatten)]
    test: Test,
}

#[derive(Deserialize)]
#[serde(tag = "test", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Test {
    TwoProportions { baseline: [u64; 2], candidate: [u64; 2], expected: Option<TwoProportions> },
    Fisher { baseline: [u64; 2], candidate: [u64; 2], expected: Fisher },
    Welch { baseline: (u64, f64, f64), candidate: (u64, f64, f64), expected: Option<Welch> },
    MannWhitney { baseline: Vec<u64>, candidate: Vec<u64>, expected: MannWhitney },
    Split { requests: Vec<u64>, weights: Vec<f64>, expected: Option<Split> },
    ShareOfFailures { failures: Vec<u64>, weights: Vec<f64>, concentration: f64, expected: Evidence },
    Comparison { batches: Vec<Batch>, expected: Evidence },
    Interval { estimate: f64, standard_error: f64, n: f64, alpha: f64, expected: Ends },
    Ratio { baseline: Units, candidate: Units, expected: Ratio },
    Bound { tally: [u64; 2], bound: f64, expected: Bound },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TwoProportions {
    z: f64,
    p_two_sided: f64,
    p_greater: f64,
    newcombe: [f64; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fisher {
    p_two_sided: f64,
    p_greater: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Welch {
    t: f64,
    df: f64,
    p_two_sided: f64,
    p_greater: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MannWhitney {
    u: f64,
    z: f64,
    p_two_sided: f64,
    chance_larger: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Split {
    chi_square: f64,
    p_single_look: f64,
    ln_evidence: f64,
    p_anytime: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Evidence {
    ln_evidence: f64,
    #[serde(default)]
    per_odds: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct Batch {
    baseline: [u64; 2],
    candidate: [u64; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ends {
    rho: f64,
    interval: [f64; 2],
    rho_one_sided: f64,
    lower_one_sided: f64,
    p_value: f64,
}

#[derive(Deserialize)]
struct Units {
    n: u64,
    x: f64,
    y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ratio {
    baseline: [f64; 2],
    candidate: [f64; 2],
    z: f64,
    p_two_sided: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bound {
    ln_under: f64,
    ln_over: f64,
}

fn tally([bad, total]: [u64; 2]) -> Tally {
    Tally::new(bad, total).unwrap()
}

fn pair(baseline: [u64; 2], candidate: [u64; 2]) -> Pair {
    Pair { baseline: tally(baseline), candidate: tally(candidate) }
}

/// Both within 1e-8 of the expected value; exact for 0.
fn close(name: &str, what: &str, actual: f64, expected: f64) {
    let error = (actual - expected).abs();
    assert!(error <= 1e-8 * expected.abs() + 1e-12, "{name}: {what} is {actual}, not {expected}");
}

impl Test {
    fn check(self, name: &str) {
        match self {
            Self::TwoProportions { baseline, candidate, expected } => {
                check_two_proportions(name, pair(baseline, candidate), expected);
            }
            Self::Fisher { baseline, candidate, expected } => {
                let table = pair(baseline, candidate);
                close(name, "p", fisher_two_sided(table).unwrap(), expected.p_two_sided);
                close(name, "one-sided p", fisher_one_sided(table).unwrap(), expected.p_greater);
            }
            Self::Welch { baseline, candidate, expected } => {
                let of = |(n, sum, squares)| Moments::new(n, sum, squares).unwrap();
                check_welch(name, of(baseline), of(candidate), expected);
            }
            Self::MannWhitney { baseline, candidate, expected } => {
                let result = mann_whitney(&baseline, &candidate).unwrap();
                close(name, "U", result.u, expected.u);
                close(name, "z", result.z, expected.z);
                close(name, "p", result.p_two_sided, expected.p_two_sided);
                close(name, "chance", result.chance_larger, expected.chance_larger);
            }
            Self::Split { requests, weights, expected } => check_split(name, &requests, &weights, expected),
            Self::ShareOfFailures { failures, weights, concentration, expected } => {
                let actual = ln_dirichlet(&failures, &weights, concentration).unwrap_or(0.0);
                close(name, "ln E", actual, expected.ln_evidence);
            }
            Self::Comparison { batches, expected } => check_comparison(name, &batches, &expected),
            Self::Interval { estimate, standard_error, n, alpha, expected } => {
                let interval = Interval::new(estimate, standard_error, n, alpha).unwrap();
                close(name, "ρ", rho(alpha), expected.rho);
                close(name, "one-sided ρ", rho(2.0 * alpha), expected.rho_one_sided);
                close(name, "lower end", interval.lower, expected.interval[0]);
                close(name, "upper end", interval.upper, expected.interval[1]);
                close(name, "p", interval.p_value, expected.p_value);
                let lower = one_sided_lower(estimate, standard_error, n, alpha).unwrap();
                close(name, "one-sided lower end", lower, expected.lower_one_sided);
            }
            Self::Ratio { baseline, candidate, expected } => {
                check_ratio(name, baseline, candidate, &expected);
            }
            Self::Bound { tally: counts, bound, expected } => {
                let counts = tally(counts);
                let under = ln_bound_evidence(counts, bound, &under_grid(bound));
                let over = ln_bound_evidence(counts, bound, &over_grid(bound));
                close(name, "ln E under", under, expected.ln_under);
                close(name, "ln E over", over, expected.ln_over);
                let mut test = BoundTest::new(bound);
                test.add(counts, 1.0);
                close(name, "ln E under, of the test", test.ln_under(1.0), expected.ln_under);
            }
        }
    }
}

fn check_two_proportions(name: &str, table: Pair, expected: Option<TwoProportions>) {
    let Some(expected) = expected else {
        assert_eq!((two_proportions(table), newcombe(table, 0.95)), (None, None), "{name}");
        return;
    };
    let result = two_proportions(table).unwrap();
    close(name, "z", result.z, expected.z);
    close(name, "p", result.p_two_sided, expected.p_two_sided);
    close(name, "one-sided p", result.p_greater, expected.p_greater);
    let (lower, upper) = newcombe(table, 0.95).unwrap();
    close(name, "lower end", lower, expected.newcombe[0]);
    close(name, "upper end", upper, expected.newcombe[1]);
}

fn check_welch(name: &str, baseline: Moments, candidate: Moments, expected: Option<Welch>) {
    let Some(expected) = expected else {
        assert_eq!(welch(baseline, candidate), None, "{name}");
        return;
    };
    let result = welch(baseline, candidate).unwrap();
    close(name, "t", result.t, expected.t);
    close(name, "df", result.df, expected.df);
    close(name, "p", result.p_two_sided, expected.p_two_sided);
    close(name, "one-sided p", result.p_greater, expected.p_greater);
}

fn check_split(name: &str, requests: &[u64], weights: &[f64], expected: Option<Split>) {
    let Some(expected) = expected else {
        assert_eq!(ln_dirichlet(requests, weights, 100.0), None, "{name}");
        assert_eq!(chi_square(requests, weights), None, "{name}");
        return;
    };
    let ln_evidence = ln_dirichlet(requests, weights, 100.0).unwrap();
    let (statistic, p) = chi_square(requests, weights).unwrap();
    close(name, "ln E", ln_evidence, expected.ln_evidence);
    close(name, "p at any time", p_anytime(ln_evidence), expected.p_anytime);
    close(name, "χ²", statistic, expected.chi_square);
    close(name, "p", p, expected.p_single_look);
}

fn check_comparison(name: &str, batches: &[Batch], expected: &Evidence) {
    let mut comparison = Comparison::new(Direction::Above, 1.0);
    for batch in batches {
        comparison.add(pair(batch.baseline, batch.candidate), 1.0);
    }
    close(name, "ln E", comparison.ln_since_the_beginning(), expected.ln_evidence);
    assert_eq!(comparison.sums().len(), expected.per_odds.len(), "{name}");
    for (actual, expected) in comparison.sums().iter().zip(&expected.per_odds) {
        match expected {
            Some(expected) => close(name, "ln e", *actual, *expected),
            // The other program's probability underflowed.
            None => assert!(actual.is_finite() && *actual < -700.0, "{name}: {actual}"),
        }
    }
}

fn check_ratio(name: &str, baseline: Units, candidate: Units, expected: &Ratio) {
    let of =
        |it: Units| UnitSums { n: it.n, x: it.x, y: it.y, xx: it.xx, yy: it.yy, xy: it.xy }.ratio().unwrap();
    let ((r_baseline, v_baseline), (r_candidate, v_candidate)) = (of(baseline), of(candidate));
    close(name, "R of the baseline", r_baseline, expected.baseline[0]);
    close(name, "its variance", v_baseline, expected.baseline[1]);
    close(name, "R of the candidate", r_candidate, expected.candidate[0]);
    close(name, "its variance", v_candidate, expected.candidate[1]);
    let z = (r_candidate - r_baseline) / (v_baseline + v_candidate).sqrt();
    close(name, "z", z, expected.z);
    close(name, "p", two_sided_normal(z).unwrap(), expected.p_two_sided);
}

#[test]
fn all_values_are_those_of_other_programs() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("reference.json")).unwrap();
    assert_eq!(cases.len(), 56);
    for case in cases {
        case.test.check(&case.name);
    }
}
