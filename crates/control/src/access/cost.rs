//! What a decision costs: the figures of `cargo xtask bench authz`, by `muster bench-authz`.

use std::{hint::black_box, time::Instant};

use muster_trust::key::{SigningKey, sha256};
use serde::Serialize;

use super::{
    explain,
    oauth::Condition,
    roles, scope,
    scope::{CommandWrite, DeviceRead, Scopes},
};

/// Nanoseconds of one run, the smallest mean of five rounds.
fn nanoseconds(rounds_of: u32, mut run: impl FnMut()) -> f64 {
    let round = |run: &mut dyn FnMut()| {
        let begun = Instant::now();
        (0..rounds_of).for_each(|_| run());
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(rounds_of)
    };
    (0..5).map(|_| round(&mut run)).fold(f64::INFINITY, f64::min)
}

/// What one kind of decision costs.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    pub what: &'static str,
    pub nanoseconds: f64,
}

/// What decisions cost, beside what is measured in the same run.
#[derive(Debug, Clone, Serialize)]
pub struct Costs {
    /// SHA-256 of 256 bytes, in nanoseconds.
    pub digest: f64,
    /// An ECDSA P-256 verification of 256 bytes, in nanoseconds.
    pub verification: f64,
    pub decisions: Vec<Cost>,
}

/// Measures decisions about scopes, roles and claims, each so many times in five rounds.
pub fn measure(times: u32) -> Costs {
    let every = scope::every();
    let of_roles = vec!["operator".to_owned()];
    let operator = &roles::find("operator").expect("it is a role").scopes;
    let needs = <(DeviceRead, CommandWrite)>::NAMES;
    let key = SigningKey::generate_p256().expect("a key can be made");
    let message = [7_u8; 256];
    let signature = key.sign(&message).expect("it signs");
    let verification = nanoseconds(times, || {
        black_box(key.public().verify(black_box(&message), &signature)).expect("it is the key's");
    });
    let digest = nanoseconds(times, || {
        black_box(sha256(black_box(&message)));
    });
    let condition = Condition {
        claim: "sub".to_owned(),
        equals: None,
        matches: Some("repo:octo/*:environment:prod-*".to_owned()),
    };
    let claims = serde_json::json!({"sub": "repo:octo/application:environment:prod-eu-central-1"});
    let claims = serde_json::from_value(claims).expect("it is an object");
    let decisions: [(&str, f64); 5] = [
        (
            "a call that is allowed, every scope held",
            nanoseconds(times, || {
                black_box(explain::check(needs, black_box(&every), &of_roles)).expect("it is allowed");
            }),
        ),
        (
            "a call that is refused, and why",
            nanoseconds(times, || {
                let refused = explain::check(&["root:write"], black_box(operator), &of_roles);
                assert!(black_box(refused).is_err());
            }),
        ),
        (
            "the scopes that a token and its account share",
            nanoseconds(times, || {
                black_box(super::shared_scopes(black_box(operator), black_box(&every)));
            }),
        ),
        (
            "the scopes of seven roles together",
            nanoseconds(times, || {
                let lists = roles::built_in().iter().map(|role| role.scopes.as_str());
                black_box(scope::union(lists));
            }),
        ),
        (
            "a condition on a workload's claims",
            nanoseconds(times, || {
                let conditions = std::slice::from_ref(black_box(&condition));
                assert!(super::oauth::unmet(conditions, &claims).is_none());
            }),
        ),
    ];
    Costs {
        digest,
        verification,
        decisions: decisions
            .map(|(what, nanoseconds)| Cost { what, nanoseconds })
            .to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_decision_is_measured() {
        let costs = measure(20);
        let all = costs.decisions.iter().map(|cost| cost.nanoseconds);
        assert!(
            all.chain([costs.digest, costs.verification])
                .all(|nanoseconds| nanoseconds > 0.0)
        );
    }
}
