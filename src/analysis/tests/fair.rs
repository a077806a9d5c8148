//! Evidence has mean 1 where the null hypothesis is true: no simulation, but every outcome of every small
//! table.

use super::support::{pair, tally};
use crate::analysis::sequential::{
    Comparison, Direction, ln_bound_evidence, ln_dirichlet, over_grid, under_grid,
};

/// `n` over `k`, exact.
fn choose(n: u64, k: u64) -> f64 {
    (0..k).fold(1.0, |product, i| product * float(n - i) / float(i + 1))
}

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn power(base: f64, exponent: u64) -> f64 {
    base.powi(i32::try_from(exponent).unwrap())
}

#[test]
fn a_comparison_is_fair_for_every_table() {
    let mut tables = 0;
    for n_baseline in 0..=12_u64 {
        for n_candidate in 0..=12 - n_baseline {
            for k in 0..=n_baseline + n_candidate {
                for (direction, null) in
                    [(Direction::Above, 1.0), (Direction::Above, 1.5), (Direction::Below, 2.0)]
                {
                    let mean = mean_evidence(n_baseline, n_candidate, k, direction, null);
                    assert!((mean - 1.0).abs() < 1e-12, "{n_baseline} {n_candidate} {k} {null}: {mean}");
                    tables += 1;
                }
            }
        }
    }
    assert!(tables > 2000, "{tables}");
}

/// The mean of the evidence over all attributions of `k` failures, with odds ratio `null`.
fn mean_evidence(n_baseline: u64, n_candidate: u64, k: u64, direction: Direction, null: f64) -> f64 {
    let (mut weights, mut sum) = (0.0, 0.0);
    for j in k.saturating_sub(n_baseline)..=k.min(n_candidate) {
        let weight = choose(n_candidate, j) * choose(n_baseline, k - j) * power(null, j);
        let mut comparison = Comparison::new(direction, null);
        comparison.add(pair((k - j, n_baseline), (j, n_candidate)), 1.0);
        weights += weight;
        sum += weight * comparison.ln_evidence().exp();
    }
    sum / weights
}

#[test]
fn the_test_of_the_split_is_fair() {
    for share in [0.5, 0.1, 0.01] {
        for n in 1..=12 {
            let chance = |c: u64| choose(n, c) * power(share, c) * power(1.0 - share, n - c);
            let evidence = |c: u64| ln_dirichlet(&[n - c, c], &[1.0 - share, share], 100.0).unwrap().exp();
            let mean: f64 = (0..=n).map(|c| chance(c) * evidence(c)).sum();
            assert!((mean - 1.0).abs() < 1e-12, "{n} at {share}: {mean}");
        }
    }
}

#[test]
fn the_test_of_a_bound_is_fair_at_the_bound_and_less_than_fair_on_its_side() {
    for bound in [0.001, 0.05, 0.5] {
        for n in 1..=12 {
            let mean = |rate: f64, grid: &[f64]| -> f64 {
                let chance = |k: u64| choose(n, k) * power(rate, k) * power(1.0 - rate, n - k);
                let evidence = |k| ln_bound_evidence(tally(k, n), bound, grid).exp();
                (0..=n).map(|k| chance(k) * evidence(k)).sum()
            };
            let (under, over) = (under_grid(bound), over_grid(bound));
            assert!((mean(bound, &under) - 1.0).abs() < 1e-12);
            assert!((mean(bound, &over) - 1.0).abs() < 1e-12);
            assert!(mean(bound * 1.5, &under) < 1.0 && mean(bound / 2.0, &over) < 1.0);
        }
    }
}
