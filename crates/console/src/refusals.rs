//! Why enrollments are refused, in sentences: what each code means and what an operator does about it.

use muster_control::access::problem::{
    ATTESTATION_REJECTED, ATTESTATION_REQUIRED, CHALLENGE_INVALID, CSR_INVALID, DEVICE_MISMATCH,
    ENROLLMENT_LIMIT, ENROLLMENT_NOT_ALLOWED, IDENTITY_CONFLICT, KEY_REUSED, PROBLEMS, PROOF_INVALID,
    ProblemKind, RATE_LIMITED, TOKEN_EXPIRED, TOKEN_INVALID, TOKEN_REDEEMED,
};

/// Refusals that a person should look at: somebody copied, swapped or pretends.
pub const ALERTS: [ProblemKind; 4] = [
    IDENTITY_CONFLICT,
    KEY_REUSED,
    DEVICE_MISMATCH,
    ATTESTATION_REJECTED,
];

const SENTENCES: &[(ProblemKind, &str, &str)] = &[
    (
        IDENTITY_CONFLICT,
        "The device showed a key, a TPM or a hardware id that contradicts a device that is enrolled.",
        "Find out which machine it is. If its hardware was swapped, retire the old device and make a new token.",
    ),
    (
        KEY_REUSED,
        "The device showed the key of another device: a copied disk or state folder.",
        "Remove the agent's state on the copy; it makes its own key when it enrolls again.",
    ),
    (
        DEVICE_MISMATCH,
        "The token was used on another machine than the one that it names.",
        "Compare the token's UUID and serial number with the machine. If the token got into other hands, do not make another.",
    ),
    (
        ATTESTATION_REJECTED,
        "The proof of the hardware did not hold: a wrong chain, a wrong signature, or values that the policy does not allow.",
        "The log entry has the exact cause. Add the manufacturer's root to the enrollment policy if the hardware is right.",
    ),
    (
        ATTESTATION_REQUIRED,
        "The device brought no proof of its hardware, or not the kind that is asked for.",
        "Turn on its TPM or use another way to enroll; or accept its kind of proof in the enrollment policy.",
    ),
    (
        ENROLLMENT_NOT_ALLOWED,
        "The enrollment policy does not take such a device: its platform, model, ownership, or the time.",
        "Compare the device with the enrollment policy.",
    ),
    (
        ENROLLMENT_LIMIT,
        "A limit of the enrollment policy is reached.",
        "Retire devices that are not used any more, or raise the limit in the enrollment policy.",
    ),
    (
        CHALLENGE_INVALID,
        "The challenge of an ACME, SCEP or EST token was used after its time, or twice.",
        "Make a new token, with more seconds if people need longer.",
    ),
    (
        TOKEN_EXPIRED,
        "The token was used after its time.",
        "Make a new token, with more seconds if people need longer.",
    ),
    (
        TOKEN_REDEEMED,
        "The token was used a second time, with another key.",
        "Make a token for each device. If nobody did this on purpose, look at both devices.",
    ),
    (
        TOKEN_INVALID,
        "The token is not one of this install, or was changed.",
        "Copy the whole token, or make a new one.",
    ),
    (
        PROOF_INVALID,
        "The device could not prove that it holds its key, or answered on another connection.",
        "Try again without a proxy that opens the connection; else look at the agent's log.",
    ),
    (
        CSR_INVALID,
        "The certificate request is not acceptable: its subject, key or signature.",
        "Compare the request's common name with the token's subject, and its key with what is accepted.",
    ),
    (
        RATE_LIMITED,
        "The token was tried too often.",
        "Make a new token.",
    ),
];

/// What a code means, and what to do. A code without its own sentences has its title.
pub fn explain(code: &str) -> (&'static str, &'static str) {
    const LOOK: &str = "Read the page of the code, and the log.";
    if let Some((_, meaning, advice)) = SENTENCES.iter().find(|(kind, _, _)| kind.code == code) {
        return (meaning, advice);
    }
    let known = PROBLEMS.iter().find(|kind| kind.code == code);
    (known.map_or("The device was refused.", |kind| kind.title), LOOK)
}

/// Whether a person should look at a refusal with this code.
pub fn is_alert(code: &str) -> bool {
    ALERTS.iter().any(|kind| kind.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_is_explained_and_an_unknown_code_still_says_something() {
        for kind in ALERTS {
            assert!(
                SENTENCES.iter().any(|(known, _, _)| *known == kind),
                "{}",
                kind.code
            );
            assert!(is_alert(kind.code));
        }
        assert_eq!(explain("conflict").0, "The change contradicts what is stored");
        assert!(!explain("of_tomorrow").0.is_empty() && !is_alert("of_tomorrow"));
    }
}
