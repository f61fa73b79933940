//! Values that can be checked by hand, and what holds for every input. Values against SciPy are in
//! `tests/gate_reference.rs`, promises by simulation in `tests/gate_rates.rs`.

use proptest::prelude::*;

use super::*;

const LIMIT: Ppm = Ppm::known(5_000);
const CONFIDENCE: Ppm = Ppm::known(950_000);
const ERROR: Ppm = Ppm::known(50_000);

#[test]
fn half_a_percent_takes_598_devices() {
    assert_eq!(sample_needed(LIMIT, CONFIDENCE), 598);
    assert_eq!(samples_needed(4, LIMIT, CONFIDENCE), [598, 947, 1258, 1549, 1829]);
    let upper = exact_upper(0, 100, CONFIDENCE);
    assert!((upper - 0.029_513_049_607_039_94).abs() < 1e-16, "{upper}");
    assert!(exact_upper(0, 597, CONFIDENCE) > 0.005 && exact_upper(0, 598, CONFIDENCE) < 0.005);
}

#[test]
fn evidence_at_every_look_takes_more_devices_than_one_look() {
    let needed: Vec<u64> = (0..4)
        .map(|failures| anytime_sample_needed(failures, LIMIT, CONFIDENCE))
        .collect();
    assert_eq!(needed, [756, 1329, 1769, 2162]);
    assert!(ln_evidence_below(0, needed[0] - 1, LIMIT) < ln_evidence_needed(CONFIDENCE));
    assert_eq!(ln_evidence_above(0, 0, LIMIT), 0.0);
    assert_eq!(ln_evidence_above(0, 1, LIMIT), 0.0);
    assert!(ln_evidence_above(0, 1_000_000, LIMIT) < 0.0);
}

#[test]
fn walds_test_has_walds_numbers() {
    let test = SequentialTest::new(Ppm::known(2_500), LIMIT, ERROR, ERROR).expect("2,500 is less than 5,000");
    // ln 19, and one device's step: ln 2 for a failure, ln(0.995/0.9975) for a success.
    assert!((test.fail_at - 2.944_438_979_166_440_3).abs() < 1e-14);
    assert!((test.pass_at + 2.944_438_979_166_440_3).abs() < 1e-14);
    let one = test.log_likelihood(1, 1) - std::f64::consts::LN_2;
    assert!(one.abs() < 1e-15, "{one}");
    assert!((test.log_likelihood(0, 1) + 0.002_509_411_605_425_751_7).abs() < 1e-16);
    assert_eq!(test.sample_to_pass(0), 1_174);
    assert_eq!(test.sample_to_pass(1), 1_451);
    let ExpectedSample {
        at_acceptable,
        at_limit,
        between,
    } = test.expected_sample();
    assert_eq!((at_acceptable, at_limit, between), (3_441, 2_736, 4_985));
    assert_eq!(test.truncation_sample(), 3 * between);
}

#[test]
fn a_sequential_test_needs_two_rates_and_small_errors() {
    assert_eq!(SequentialTest::new(LIMIT, LIMIT, ERROR, ERROR), None);
    assert_eq!(
        SequentialTest::new(Ppm::known(1), LIMIT, Ppm::known(500_000), Ppm::known(500_000)),
        None
    );
}

#[test]
fn a_share_is_a_fraction_with_six_decimals() {
    let read = |text: &str| serde_json::from_str::<Ppm>(text).ok().map(Ppm::get);
    assert_eq!(read("0.005"), Some(5_000));
    assert_eq!(read("0.000001"), Some(1));
    assert_eq!(read("0.999999"), Some(999_999));
    for wrong in [
        "0",
        "1",
        "-0.1",
        "0.0000015",
        "5000",
        "1e400",
        "\"0.005\"",
        "null",
    ] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
    for ppm in 1..MILLION {
        let share = Ppm::known(ppm);
        assert_eq!(Ppm::from_fraction(share.fraction()), Some(share));
    }
}

#[test]
fn outside_the_domain_there_is_no_value() {
    for (x, a, b) in [
        (f64::NAN, 1.0, 1.0),
        (-0.1, 1.0, 1.0),
        (1.1, 1.0, 1.0),
        (0.5, 0.0, 1.0),
        (0.5, 1.0, f64::INFINITY),
    ] {
        assert_eq!(beta_regularized(x, a, b), None);
        assert_eq!(beta_quantile(x, a, b), None);
    }
    assert_eq!(ln_gamma(0.0), None);
    assert_eq!(ln_gamma(f64::NAN), None);
}

/// The integral takes over from the continued fraction without a step.
#[test]
fn both_ways_to_a_tail_agree() {
    for rest in [0.5, 40.0, 3_000.0, 1e5, 1e7] {
        for place in [0.9, 0.99, 0.999] {
            let (under, over) = (3_000.0, 3_000.000_000_000_5);
            let x = place * under / (under + rest);
            let lower = |a: f64| beta_regularized(x, a, rest).expect("in the domain").lower;
            let (first, second) = (lower(under), lower(over));
            assert!(
                (first / second - 1.0).abs() < 1e-8,
                "{x} {rest}: {first:e} {second:e}"
            );
        }
    }
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..2_000_u64,
        (0..64_u32).prop_map(|bits| u64::MAX >> bits)
    ]
}

fn share() -> impl Strategy<Value = Ppm> {
    prop_oneof![1..MILLION, 1..20_000_u32].prop_map(Ppm::known)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn bounds_bracket_the_share(failures in count(), sample in count(), confidence in (500_000..MILLION).prop_map(Ppm::known)) {
        let ratio = if sample == 0 { None } else { Some(failures.min(sample) as f64 / sample as f64) };
        for (lower, upper) in [
            (exact_lower(failures, sample, confidence), exact_upper(failures, sample, confidence)),
            (anytime_lower(failures, sample, confidence), anytime_upper(failures, sample, confidence)),
        ] {
            prop_assert!((0.0..=1.0).contains(&lower) && (0.0..=1.0).contains(&upper), "{lower} {upper}");
            let ratio = ratio.unwrap_or(lower);
            prop_assert!(lower <= ratio * (1.0 + 1e-9) + 1e-10 && ratio <= upper * (1.0 + 1e-9) + 1e-10, "{lower} {ratio} {upper}");
        }
    }

    #[test]
    fn every_count_has_a_number(failures in count(), sample in count(), limit in share(), acceptable in share()) {
        for chance in [
            binomial_at_most(failures, sample, limit.fraction()),
            binomial_at_least(failures, sample, limit.fraction()),
        ] {
            prop_assert!((0.0..=1.0).contains(&chance), "{chance}");
        }
        prop_assert!(ln_evidence_below(failures, sample, limit).is_finite());
        prop_assert!(ln_evidence_above(failures, sample, limit).is_finite());
        if let Some(test) = SequentialTest::new(acceptable, limit, ERROR, ERROR) {
            prop_assert!(test.log_likelihood(failures, sample).is_finite());
            prop_assert!(test.truncation_sample() > 0 && test.sample_to_pass(failures) >= failures.min(SAMPLE_MAX));
        }
    }

    #[test]
    fn tails_are_complements_and_quantiles_are_inverses(
        x in 0.0..=1.0_f64, a in 0.01..1e7_f64, b in 0.01..1e7_f64, probability in 1e-12..1.0_f64,
    ) {
        let tails = beta_regularized(x, a, b).expect("in the domain");
        prop_assert!((tails.lower + tails.upper - 1.0).abs() < 1e-12);
        let point = beta_quantile(probability, a, b).expect("in the domain");
        let again = beta_regularized(point, a, b).expect("in the domain").lower;
        // One unit in the last place of the point moves the tail by so much.
        let (below, above) = (point * (1.0 - 1e-15), (point * (1.0 + 1e-15)).min(1.0));
        let lower = |x: f64| beta_regularized(x, a, b).expect("in the domain").lower;
        let slack = lower(above) - lower(below) + 1e-11 * probability;
        prop_assert!((again - probability).abs() <= slack, "{a} {b} {probability}: {point} {again}");
    }

    #[test]
    fn more_failures_are_more_evidence_above(failures in prop_oneof![0..3_u64, 0..500_u64], sample in 500..100_000_u64, limit in share()) {
        let (below, above) = (ln_evidence_below, ln_evidence_above);
        prop_assert!(above(failures + 1, sample, limit) >= above(failures, sample, limit) - 1e-9);
        prop_assert!(below(failures + 1, sample, limit) <= below(failures, sample, limit) + 1e-9);
    }

    #[test]
    fn the_exact_decision_is_that_of_the_exact_bound(failures in 0..200_u64, sample in 200..50_000_u64, limit in share()) {
        let upper = exact_upper(failures, sample, CONFIDENCE);
        let lower = exact_lower(failures, sample, CONFIDENCE);
        let close = |bound: f64| (bound / limit.fraction() - 1.0).abs() < 1e-9;
        prop_assert!(close(upper) || exact_shows_below(failures, sample, limit, CONFIDENCE) == (upper < limit.fraction()));
        prop_assert!(close(lower) || exact_shows_above(failures, sample, limit, CONFIDENCE) == (lower > limit.fraction()));
    }
}
