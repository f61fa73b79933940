//! Wald's sequential probability ratio test (A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of
//! Mathematical Statistics 16, 1945; "Sequential Analysis", 1947).

use super::{Ppm, SAMPLE_MAX, ln, ln_complement};

/// Past this many times the largest expected sample the test ends by the sign of its likelihood ratio.
const TRUNCATION_FACTOR: f64 = 3.0;

/// A test between two failure rates: `acceptable`, at which a stage should pass, and `limit`, at which it should fail.
/// Of stages at the acceptable rate about alpha fail; of stages at the limit about beta pass. Between the two either
/// may happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequentialTest {
    acceptable: Ppm,
    limit: Ppm,
    alpha: f64,
    beta: f64,
    /// What one device adds to the log-likelihood ratio.
    per_failure: f64,
    per_success: f64,
    /// From here on up the stage fails: ln((1 − beta)/alpha).
    pub fail_at: f64,
    /// From here on down the stage passes: ln(beta/(1 − alpha)).
    pub pass_at: f64,
}

/// How many devices the test takes on average, by Wald's approximation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedSample {
    pub at_acceptable: u64,
    pub at_limit: u64,
    /// Where it takes longest: at the rate between the two at which the ratio drifts neither way.
    pub between: u64,
}

impl SequentialTest {
    /// `None` unless acceptable < limit and alpha + beta < 1.
    pub fn new(acceptable: Ppm, limit: Ppm, alpha: Ppm, beta: Ppm) -> Option<SequentialTest> {
        if acceptable >= limit || alpha >= beta.complement() {
            return None;
        }
        let (ln_failure, ln_success) = (
            ln(limit.fraction()) - ln(acceptable.fraction()),
            ln_complement(limit) - ln_complement(acceptable),
        );
        Some(SequentialTest {
            acceptable,
            limit,
            alpha: alpha.fraction(),
            beta: beta.fraction(),
            per_failure: ln_failure,
            per_success: ln_success,
            fail_at: ln(beta.complement().fraction()) - ln(alpha.fraction()),
            pass_at: ln(beta.fraction()) - ln(alpha.complement().fraction()),
        })
    }

    /// The logarithm of the likelihood at the limit over the likelihood at the acceptable rate.
    pub fn log_likelihood(&self, failures: u64, sample: u64) -> f64 {
        let failures = failures.min(sample);
        failures as f64 * self.per_failure + (sample - failures) as f64 * self.per_success
    }

    /// Wald's approximation of the average sample.
    pub fn expected_sample(&self) -> ExpectedSample {
        let drift =
            |rate: Ppm| rate.fraction() * self.per_failure + rate.complement().fraction() * self.per_success;
        let at = |rate: Ppm, passes: f64| {
            whole((passes * self.pass_at + (1.0 - passes) * self.fail_at) / drift(rate))
        };
        ExpectedSample {
            at_acceptable: at(self.acceptable, 1.0 - self.alpha),
            at_limit: at(self.limit, self.beta),
            // Without drift, the variance of one device's step there is −per_failure·per_success.
            between: whole(self.fail_at * self.pass_at / (self.per_failure * self.per_success)),
        }
    }

    /// The sample at which the test ends in any case: by the sign of the log-likelihood ratio, zero passing.
    pub fn truncation_sample(&self) -> u64 {
        let expected = self.expected_sample();
        let largest = expected
            .at_acceptable
            .max(expected.at_limit)
            .max(expected.between);
        whole(largest as f64 * TRUNCATION_FACTOR)
    }

    /// The smallest sample that passes with so many failures.
    pub fn sample_to_pass(&self, failures: u64) -> u64 {
        super::first_where(failures.max(1), |sample| {
            self.log_likelihood(failures, sample) <= self.pass_at
        })
    }
}

/// Rounded up, within the samples there are.
fn whole(sample: f64) -> u64 {
    (sample.max(1.0).ceil() as u64).min(SAMPLE_MAX)
}
