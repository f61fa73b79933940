//! The gamma and beta functions that binomial bounds are made of.
//!
//! Sources: NIST Digital Library of Mathematical Functions (DLMF) 5.11 and 8.17; C. Loader, "Fast and Accurate
//! Computation of Binomial Probabilities" (2000), for a power term without cancellation: the difference of three large
//! log-gammas loses nine digits at a million devices, the deviance form loses none.

use super::elementary::{atanh_rest, exp, ln, ln_1p};

/// ½·ln(2π).
const HALF_LN_TWO_PI: f64 = 0.918_938_533_204_672_8;
/// From here Stirling's series with six terms is exact to the last digit.
const STIRLING_FROM: f64 = 16.0;
/// The shapes of a beta distribution that are computed: 2^-10 to 2^66, which holds every `u64` and one more.
const SHAPE_MIN: f64 = 1.0 / 1024.0;
const SHAPE_MAX: f64 = 73_786_976_294_838_206_464.0;
/// Up to this first shape the continued fraction is used, which takes about as many steps as its root.
const FRACTION_SHAPE_MAX: f64 = 3_000.0;
const FRACTION_STEPS_MAX: u32 = 10_000;
/// Panels of the integral: its integrand falls by e² or more in each, so 22 reach the last digit.
const PANELS_MAX: u32 = 64;
const QUANTILE_STEPS_MAX: u32 = 400;

/// Nodes and weights of Gauss and Legendre's rule with 16 points (DLMF 3.5); each stands for itself and its mirror.
const GAUSS_LEGENDRE: [(f64, f64); 8] = [
    (0.095_012_509_837_637_44, 0.189_450_610_455_068_5),
    (0.281_603_550_779_258_9, 0.182_603_415_044_923_58),
    (0.458_016_777_657_227_37, 0.169_156_519_395_002_54),
    (0.617_876_244_402_643_8, 0.149_595_988_816_576_74),
    (0.755_404_408_355_003, 0.124_628_971_255_533_88),
    (0.865_631_202_387_831_8, 0.095_158_511_682_492_79),
    (0.944_575_023_073_232_6, 0.062_253_523_938_647_894),
    (0.989_400_934_991_649_9, 0.027_152_459_411_754_096),
];

/// Both tails of a distribution: each is exact where it is the small one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tails {
    pub lower: f64,
    pub upper: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    Lower,
    Upper,
}

/// ln Γ(value), for values between 1e-300 and 1e300; `None` outside. Error: 1e-14 of the value, or of one near the
/// zeros at 1 and 2.
pub fn ln_gamma(value: f64) -> Option<f64> {
    (1e-300..=1e300)
        .contains(&value)
        .then(|| ((value - 0.5) * ln(value) - value) + HALF_LN_TWO_PI + stirling_error(value))
}

/// ln Γ(value) − ((value − ½) ln value − value + ½ ln 2π), by DLMF 5.11.1; below 16 by Γ(v+1) = v·Γ(v).
fn stirling_error(value: f64) -> f64 {
    let mut value = value;
    let mut shifted = 0.0;
    while value < STIRLING_FROM {
        shifted += (value + 0.5) * ln_1p(1.0 / value) - 1.0;
        value += 1.0;
    }
    const TERMS: [f64; 6] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
    ];
    let square = 1.0 / value / value;
    shifted + TERMS.iter().rev().fold(0.0, |sum, term| sum * square + term) / value
}

/// A point between 0 and 1 with its complement, so that neither loses digits, and the shapes of a beta distribution.
#[derive(Debug, Clone, Copy)]
struct Place {
    x: f64,
    y: f64,
    a: f64,
    b: f64,
}

impl Place {
    fn of(x: f64, a: f64, b: f64) -> Option<Place> {
        let shapes = SHAPE_MIN..=SHAPE_MAX;
        let valid = (0.0..=1.0).contains(&x) && shapes.contains(&a) && shapes.contains(&b);
        valid.then_some(Place { x, y: 1.0 - x, a, b })
    }

    fn mirrored(self) -> Place {
        Place {
            x: self.y,
            y: self.x,
            a: self.b,
            b: self.a,
        }
    }

    /// ln(xᵃ yᵇ / B(a, b)), in Loader's form.
    fn ln_power(self) -> f64 {
        let Place { x, y, a, b } = self;
        let n = a + b;
        // From the smaller of the two, which was not rounded when it became the complement of the other.
        let excess = if x <= y { a - n * x } else { n * y - b };
        0.5 * ln(a * (b / n)) - HALF_LN_TWO_PI + (stirling_error(n) - stirling_error(a) - stirling_error(b))
            - deviance(a, n * x, excess)
            - deviance(b, n * y, -excess)
    }

    /// The lower tail is `exp(ln_power)` times this, where x is below the mean.
    fn series(self) -> f64 {
        if self.a <= FRACTION_SHAPE_MAX {
            self.fraction()
        } else {
            self.integral()
        }
    }

    /// The continued fraction DLMF 8.17.22, evaluated from the front (Lentz's method).
    fn fraction(self) -> f64 {
        const TINY: f64 = 1e-300;
        let Place { x, a, b, .. } = self;
        let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
        let mut c = 1.0;
        let mut d = 1.0 / nonzero(1.0 - (a + b) / (a + 1.0) * x);
        let mut value = d;
        for step in 1..FRACTION_STEPS_MAX {
            let m = f64::from(step);
            let doubled = a + 2.0 * m;
            let even = (m / (doubled - 1.0)) * ((b - m) / doubled) * x;
            let odd = -((a + m) / doubled) * ((a + b + m) / (doubled + 1.0)) * x;
            for term in [even, odd] {
                d = 1.0 / nonzero(1.0 + term * d);
                c = nonzero(1.0 + term / c);
                value *= c * d;
            }
            if (c * d - 1.0).abs() <= f64::EPSILON {
                break;
            }
        }
        value / a
    }

    /// The integral from x downwards, relative to the integrand at x, panel by panel.
    fn integral(self) -> f64 {
        let Place { x, y, a, b } = self;
        let slope = ((a - 1.0) / x - (b - 1.0) / y).max(0.0);
        let bend = ((a - 1.0) / x / x + (b - 1.0).abs() / y / y).sqrt();
        let half_width = 1.0 / (slope + bend);
        let density = |down: f64| exp((a - 1.0) * ln_1p(-down / x) + (b - 1.0) * ln_1p(down / y));
        let (mut sum, mut from) = (0.0, 0.0);
        for _ in 0..PANELS_MAX {
            let half = half_width.min((x - from) * 0.5);
            let middle = from + half;
            let panel: f64 = GAUSS_LEGENDRE
                .iter()
                .map(|(node, weight)| {
                    weight
                        * (density(middle - half * node)
                            + density((middle + half * node).min(x * (1.0 - 1e-16))))
                })
                .sum();
            sum += panel * half;
            from += 2.0 * half;
            if panel * half <= sum * 1e-17 || from >= x {
                break;
            }
        }
        sum / x / y
    }
}

/// `count·ln(count/expected) − excess`, where `excess` = count − expected: never negative, and without loss where
/// the two are close.
fn deviance(count: f64, expected: f64, excess: f64) -> f64 {
    let relative = excess / expected;
    if relative.abs() < 0.2 {
        let part = relative / (2.0 + relative);
        return excess * part + 2.0 * count * part * atanh_rest(part * part);
    }
    let ratio = count / expected;
    let logarithm = if ratio.is_finite() {
        ln(ratio)
    } else {
        ln(count) - ln(expected)
    };
    count * logarithm - excess
}

/// The regularized incomplete beta function I_x(a, b) and its complement (DLMF 8.17). `None` unless x is in 0…1 and the
/// shapes are between 2^-10 and 2^66.
///
/// Relative error: 1e-12 where a + b is below a million. Beyond, what the digits of x allow: about 1e-16·√(a + b).
pub fn beta_regularized(x: f64, a: f64, b: f64) -> Option<Tails> {
    Place::of(x, a, b).map(tails)
}

fn tails(place: Place) -> Tails {
    if place.x <= 0.0 {
        return Tails {
            lower: 0.0,
            upper: 1.0,
        };
    }
    if place.y <= 0.0 {
        return Tails {
            lower: 1.0,
            upper: 0.0,
        };
    }
    let below_mean = below_mean(place);
    let from = if below_mean { place } else { place.mirrored() };
    let tail = (exp(from.ln_power()) * from.series()).clamp(0.0, 1.0);
    if below_mean {
        Tails {
            lower: tail,
            upper: 1.0 - tail,
        }
    } else {
        Tails {
            lower: 1.0 - tail,
            upper: tail,
        }
    }
}

fn below_mean(place: Place) -> bool {
    place.x <= (place.a + 1.0) / (place.a + place.b + 2.0)
}

/// ln(tail / (xᵃ (1−x)ᵇ / B(a, b))): the average likelihood beyond x against the one at x, where both are too small
/// for a `f64`. `x` is strictly between 0 and 1, the shapes as for [`beta_regularized`].
pub(super) fn ln_tail_over_power(tail: Tail, x: f64, a: f64, b: f64) -> Option<f64> {
    let place = Place::of(x, a, b).filter(|place| place.x > 0.0 && place.y > 0.0)?;
    let (place, direct) = match tail {
        Tail::Lower => (place, below_mean(place)),
        Tail::Upper => (place.mirrored(), !below_mean(place)),
    };
    if direct {
        return Some(ln(place.series()));
    }
    let other = place.mirrored();
    let rest = (exp(other.ln_power()) * other.series()).clamp(0.0, 1.0);
    Some(ln(1.0 - rest) - place.ln_power())
}

/// The point below which a beta distribution has `probability`: the inverse of the lower tail of
/// [`beta_regularized`]. `None` unless the probability is in 0…1 and the shapes fit.
pub fn beta_quantile(probability: f64, a: f64, b: f64) -> Option<f64> {
    quantile(Tail::Lower, probability, a, b)
}

/// The point where `tail` has `probability`. Newton's method, on the logarithm of the tail and within a bracket.
pub(super) fn quantile(tail: Tail, probability: f64, a: f64, b: f64) -> Option<f64> {
    let mut x = a / (a + b);
    Place::of(x, a, b)?;
    if !(0.0..=1.0).contains(&probability) {
        return None;
    }
    if probability == 0.0 || probability == 1.0 {
        return Some(if (tail == Tail::Lower) == (probability == 0.0) {
            0.0
        } else {
            1.0
        });
    }
    let wanted = ln(probability);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..QUANTILE_STEPS_MAX {
        let place = Place::of(x, a, b)?;
        let tails = tails(place);
        let value = if tail == Tail::Lower {
            tails.lower
        } else {
            tails.upper
        };
        if (value < probability) == (tail == Tail::Lower) {
            low = x;
        } else {
            high = x;
        }
        // The tail over x times its density: how far a unit of its logarithm is.
        let reach = value * place.y / exp(place.ln_power());
        let step = (ln(value) - wanted) * reach;
        let next = match tail {
            Tail::Lower => x * exp(-step),
            Tail::Upper => x + x * step,
        };
        // The error after a step is about the square of the step.
        if (next - x).abs() <= 1e-13 * x {
            return Some(next);
        }
        let inside = next > low && next < high;
        let next = if inside { next } else { middle(low, high) };
        if high - low <= f64::EPSILON * low {
            return Some(next);
        }
        x = next;
    }
    Some(x)
}

/// Between the two; nearer to zero while the lower end is still zero or far below the upper.
fn middle(low: f64, high: f64) -> f64 {
    if low == 0.0 {
        high / 64.0
    } else if high > 4.0 * low {
        (low * high).sqrt()
    } else {
        0.5 * (low + high)
    }
}
