//! Logarithm and exponential from the four operations alone.
//!
//! The standard library's come from each platform's C library and may differ in the last digit. Two nodes that judge
//! the same counts have to write the same numbers into the log, so these use only what IEEE 754 defines exactly.
//! Errors are below 2 units in the last place.

/// The natural logarithm of 2: its first 32 bits, and the rest.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
const LOG2_E: f64 = std::f64::consts::LOG2_E;
/// Below this the exponential is zero, above it is more than a `f64` holds.
const EXP_MIN: f64 = -745.2;
const EXP_MAX: f64 = 709.7;
/// 2^54, which makes every subnormal number a normal one.
const TWO_54: f64 = 18_014_398_509_481_984.0;

/// The natural logarithm; minus infinity for zero and for what is below it.
pub(super) fn ln(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let value = value.min(f64::MAX);
    let (value, shifted) = if value < f64::MIN_POSITIVE {
        (value * TWO_54, 54)
    } else {
        (value, 0)
    };
    let bits = value.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let exponent = f64::from(exponent - shifted);
    let part = (mantissa - 1.0) / (mantissa + 1.0);
    exponent * LN_2_HIGH + (atanh_doubled(part) + exponent * LN_2_LOW)
}

/// `ln(1 + value)` without loss for small values; `value` is more than −1.
pub(super) fn ln_1p(value: f64) -> f64 {
    if value.abs() < 0.25 {
        atanh_doubled(value / (2.0 + value))
    } else {
        ln(1.0 + value)
    }
}

/// `2·atanh(part)` for |part| ≤ 0.172, by its series.
fn atanh_doubled(part: f64) -> f64 {
    2.0 * part * (1.0 + atanh_rest(part * part))
}

/// `atanh(s)/s − 1` of `square` = s² ≤ 0.03: the sum of s²ⁿ/(2n+1) from n = 1.
pub(super) fn atanh_rest(square: f64) -> f64 {
    const RECIPROCALS: [f64; 12] = [
        1.0 / 3.0,
        1.0 / 5.0,
        1.0 / 7.0,
        1.0 / 9.0,
        1.0 / 11.0,
        1.0 / 13.0,
        1.0 / 15.0,
        1.0 / 17.0,
        1.0 / 19.0,
        1.0 / 21.0,
        1.0 / 23.0,
        1.0 / 25.0,
    ];
    RECIPROCALS
        .iter()
        .rev()
        .fold(0.0, |sum, reciprocal| (sum + reciprocal) * square)
}

/// The exponential, at most the largest `f64`.
pub(super) fn exp(value: f64) -> f64 {
    if value.is_nan() || value < EXP_MIN {
        return 0.0;
    }
    if value > EXP_MAX {
        return f64::MAX;
    }
    let power = (value * LOG2_E).round();
    let rest = (value - power * LN_2_HIGH) - power * LN_2_LOW;
    let half = (power * 0.5).floor();
    (1.0 + exp_rest(rest)) * two_to(half) * two_to(power - half)
}

/// `exp(value) − 1` without loss for small values.
pub(super) fn exp_m1(value: f64) -> f64 {
    if value.abs() < 0.35 {
        exp_rest(value)
    } else {
        exp(value) - 1.0
    }
}

/// `exp(value) − 1` for |value| ≤ 0.35, by Taylor's series.
fn exp_rest(value: f64) -> f64 {
    (2..=14_u32)
        .rev()
        .fold(1.0, |sum, n| 1.0 + sum * value / f64::from(n))
        * value
}

/// 2 to a whole power between −1022 and 1023.
fn two_to(power: f64) -> f64 {
    f64::from_bits(((power as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ours: f64, theirs: f64, from: f64) {
        let error = (ours - theirs).abs() / theirs.abs().max(f64::MIN_POSITIVE);
        assert!(error < 1e-15, "{from:e}: {ours:e} is not {theirs:e}");
    }

    #[test]
    fn they_agree_with_the_standard_library() {
        let mut value = 1e-300;
        while value < 1e300 {
            check(ln(value), value.ln(), value);
            value *= 1.37;
        }
        for step in -9_990..10_000 {
            let value = f64::from(step) / 10_000.0;
            if step != 0 {
                check(ln_1p(value), value.ln_1p(), value);
                check(exp_m1(value), value.exp_m1(), value);
            }
            check(exp(value * 700.0), (value * 700.0).exp(), value * 700.0);
        }
    }

    #[test]
    fn the_ends_are_numbers() {
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(ln(-1.0), f64::NEG_INFINITY);
        assert!(ln(f64::INFINITY).is_finite());
        assert!((ln(5e-324) + 744.440_071_921_381_2).abs() < 1e-12);
        assert_eq!(exp(-1e300), 0.0);
        assert_eq!(exp(1e300), f64::MAX);
        assert!(exp(-745.0) > 0.0);
    }
}
