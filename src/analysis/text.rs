//! Numbers for people, and for the verdict of a tag.

/// A share in per cent, with three significant digits: `1.22 %`.
pub(super) fn per_cent(share: f64) -> String {
    format!("{} %", significant(share * 100.0))
}

/// A number with three significant digits, without an exponent where one is not needed.
#[must_use]
pub fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor();
    if !(-6.0..15.0).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 8")]
    let decimals = (2.0 - magnitude).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The logarithm of evidence, with one decimal and without a negative zero.
pub(super) fn evidence(ln: f64) -> String {
    format!("{:.1}", (ln * 10.0).round() / 10.0 + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(per_cent(0.012_185), "1.22 %");
        assert_eq!(per_cent(0.0), "0 %");
        assert_eq!(per_cent(1.0), "100 %");
        assert_eq!(significant(0.000_123_4), "0.000123");
        assert_eq!(significant(-0.5), "-0.5");
        assert_eq!(significant(48_211.0), "48211");
        assert_eq!(significant(1e-9), "1.00e-9");
        assert_eq!(evidence(9.236), "9.2");
        assert_eq!(evidence(-0.0), "0.0");
        assert_eq!(evidence(-0.04), "0.0");
    }
}
