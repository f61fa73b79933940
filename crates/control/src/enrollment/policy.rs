//! What a tenant asks of those who enroll: one document, checked as a whole, and the pure decisions that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::{AttestationLevel, Ownership, Platform, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::problem::{
        ATTESTATION_REQUIRED, ENROLLMENT_LIMIT, ENROLLMENT_NOT_ALLOWED, ENROLLMENT_POLICY_INVALID,
        FieldError, Problem,
    },
    devices::{Applicant, Population},
};

const MODELS_MAX: usize = 256;
const MODEL_CHARS_MAX: usize = 128;
/// Roots that a tenant may add for one kind of hardware.
const ROOTS_PEM_BYTES_MAX: usize = 256 * 1024;
const ENDORSEMENT_KEYS_MAX: usize = 10_000;
const PCR_VALUES_MAX: usize = 64;
const PCR_LAST: u8 = 23;
/// What a quote covers unless the tenant says otherwise: firmware, boot loader, Secure Boot.
const PCRS_QUOTED: [u8; 5] = [0, 1, 2, 4, 7];
const REVOCATION_LIST_HOURS: u64 = 24;
const REVOCATION_LIST_HOURS_MAX: u64 = 31 * 24;

/// What a tenant asks of those who enroll. Everything that is left out is allowed or without limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnrollmentPolicy {
    /// Kinds of proof that are accepted: `unattested`, `tpm2`, `android_tee`, `android_strongbox`, `apple`.
    #[schema(value_type = Vec<String>)]
    pub attestation: BTreeSet<AttestationLevel>,
    /// `company`, `personal`.
    #[schema(value_type = Vec<String>)]
    pub ownership: BTreeSet<Ownership>,
    /// Operating systems that are accepted; all where empty.
    #[schema(value_type = Vec<String>)]
    pub platforms: BTreeSet<Platform>,
    /// Models that are accepted, `*` standing for any text; all where empty.
    pub models: Vec<String>,
    /// Nobody enrolls before this time.
    #[schema(value_type = Option<String>)]
    pub opens_at: Option<Timestamp>,
    /// Nobody enrolls from this time on.
    #[schema(value_type = Option<String>)]
    pub closes_at: Option<Timestamp>,
    pub limits: Limits,
    pub tpm: TpmPolicy,
    pub android: AndroidPolicy,
    pub apple: ApplePolicy,
}

/// How many devices may be enrolled. Retired devices do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub devices_max: Option<i64>,
    /// Of one owner.
    pub devices_per_owner_max: Option<i64>,
    /// Of one model.
    pub devices_per_model_max: Option<i64>,
    pub enrollments_per_hour_max: Option<i64>,
}

impl Limits {
    /// Whether there is anything to count.
    pub fn any(&self) -> bool {
        *self != Limits::default()
    }
}

/// What a TPM has to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TpmPolicy {
    /// Whether the manufacturers' roots that Muster ships are trusted.
    pub well_known_roots: bool,
    /// Roots of the tenant's own choice, PEM.
    pub roots_pem: String,
    /// Endorsement keys that are known without a certificate: SHA-256 of the SPKI, hex.
    pub endorsement_keys: BTreeSet<String>,
    /// Whether only those keys are accepted, whatever certificate a TPM has.
    pub only_known_endorsement_keys: bool,
    /// Registers of the SHA-256 bank that are quoted.
    pub pcrs_quoted: BTreeSet<u8>,
    /// Values that a register may have, hex; registers that are not named may have any.
    pub pcr_values: BTreeMap<u8, BTreeSet<String>>,
    /// Whether a measured-boot event log has to explain the registers.
    pub event_log_required: bool,
    /// Whether Secure Boot has to be on, by the event log.
    pub secure_boot_required: bool,
}

/// What an Android device has to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AndroidPolicy {
    pub well_known_roots: bool,
    pub roots_pem: String,
    /// `YYYYMM` of the oldest OS patch level that is accepted.
    pub os_patch_level_min: Option<u32>,
    /// Google's list of revoked keys is trusted for this long after it was imported; then nobody is accepted.
    pub revocation_list_hours_max: u64,
}

/// What an Apple device has to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApplePolicy {
    pub well_known_roots: bool,
    pub roots_pem: String,
    /// Whether serial number and UDID have to be attested (a user enrollment has neither).
    pub hardware_ids_required: bool,
}

impl Default for EnrollmentPolicy {
    fn default() -> EnrollmentPolicy {
        EnrollmentPolicy {
            attestation: AttestationLevel::ALL.into(),
            ownership: Ownership::ALL.into(),
            platforms: BTreeSet::new(),
            models: Vec::new(),
            opens_at: None,
            closes_at: None,
            limits: Limits::default(),
            tpm: TpmPolicy::default(),
            android: AndroidPolicy::default(),
            apple: ApplePolicy::default(),
        }
    }
}

impl Default for TpmPolicy {
    fn default() -> TpmPolicy {
        TpmPolicy {
            well_known_roots: true,
            roots_pem: String::new(),
            endorsement_keys: BTreeSet::new(),
            only_known_endorsement_keys: false,
            pcrs_quoted: PCRS_QUOTED.into(),
            pcr_values: BTreeMap::new(),
            event_log_required: false,
            secure_boot_required: false,
        }
    }
}

impl Default for AndroidPolicy {
    fn default() -> AndroidPolicy {
        AndroidPolicy {
            well_known_roots: true,
            roots_pem: String::new(),
            os_patch_level_min: None,
            revocation_list_hours_max: REVOCATION_LIST_HOURS,
        }
    }
}

impl Default for ApplePolicy {
    fn default() -> ApplePolicy {
        ApplePolicy {
            well_known_roots: true,
            roots_pem: String::new(),
            hardware_ids_required: true,
        }
    }
}

/// What a token asks of its one device besides the tenant's policy.
#[derive(Debug, Clone)]
pub struct TokenRules {
    pub attestation: BTreeSet<AttestationLevel>,
}

impl EnrollmentPolicy {
    /// Checks the document as a whole; every wrong member is named.
    pub fn check(&self) -> Result<(), Problem> {
        let mut wrong = Vec::new();
        let mut refuse = |field: &str, detail: String| {
            wrong.push(FieldError {
                field: field.to_owned(),
                code: "invalid".to_owned(),
                detail,
            });
        };
        if self.attestation.is_empty() {
            refuse("attestation", "Name at least one kind of proof.".to_owned());
        }
        if self.ownership.is_empty() {
            refuse("ownership", "Name company, personal or both.".to_owned());
        }
        if self.models.len() > MODELS_MAX {
            refuse("models", format!("At most {MODELS_MAX} patterns are read."));
        }
        if self
            .models
            .iter()
            .any(|model| model.is_empty() || model.chars().count() > MODEL_CHARS_MAX)
        {
            refuse(
                "models",
                format!("A pattern has 1 to {MODEL_CHARS_MAX} characters."),
            );
        }
        if let (Some(opens), Some(closes)) = (self.opens_at, self.closes_at)
            && closes <= opens
        {
            refuse("closes_at", "It lies after opens_at.".to_owned());
        }
        let limits = [
            ("limits.devices_max", self.limits.devices_max),
            ("limits.devices_per_owner_max", self.limits.devices_per_owner_max),
            ("limits.devices_per_model_max", self.limits.devices_per_model_max),
            (
                "limits.enrollments_per_hour_max",
                self.limits.enrollments_per_hour_max,
            ),
        ];
        for (field, limit) in limits {
            if limit.is_some_and(|limit| limit < 0) {
                refuse(field, "A limit is 0 or more; leave it out for none.".to_owned());
            }
        }
        self.check_hardware(&mut refuse);
        if wrong.is_empty() {
            return Ok(());
        }
        Err(ENROLLMENT_POLICY_INVALID
            .detail("The enrollment policy was not changed; errors lists what is wrong in it.")
            .with_errors(wrong))
    }

    fn check_hardware(&self, refuse: &mut impl FnMut(&str, String)) {
        let roots = [
            ("tpm.roots_pem", &self.tpm.roots_pem),
            ("android.roots_pem", &self.android.roots_pem),
            ("apple.roots_pem", &self.apple.roots_pem),
        ];
        for (field, pem) in roots {
            if pem.len() > ROOTS_PEM_BYTES_MAX {
                refuse(field, "At most 256 KiB of certificates are read.".to_owned());
            }
        }
        if self.tpm.endorsement_keys.len() > ENDORSEMENT_KEYS_MAX {
            refuse(
                "tpm.endorsement_keys",
                format!("At most {ENDORSEMENT_KEYS_MAX} keys are kept."),
            );
        }
        if !self.tpm.endorsement_keys.iter().all(|key| is_sha256(key)) {
            refuse(
                "tpm.endorsement_keys",
                "A key is the SHA-256 of its SPKI: 64 digits in lower-case hex.".to_owned(),
            );
        }
        if self.tpm.pcrs_quoted.iter().any(|pcr| *pcr > PCR_LAST) || self.tpm.pcrs_quoted.is_empty() {
            refuse(
                "tpm.pcrs_quoted",
                "Name one or more registers from 0 to 23.".to_owned(),
            );
        }
        for (pcr, values) in &self.tpm.pcr_values {
            let field = format!("tpm.pcr_values.{pcr}");
            if !self.tpm.pcrs_quoted.contains(pcr) {
                refuse(
                    &field,
                    "The register has values and is not quoted: add it to pcrs_quoted.".to_owned(),
                );
            }
            if values.is_empty()
                || values.len() > PCR_VALUES_MAX
                || !values.iter().all(|value| is_sha256(value))
            {
                refuse(
                    &field,
                    "Name 1 to 64 values: 64 digits in lower-case hex each.".to_owned(),
                );
            }
        }
        if !(1..=REVOCATION_LIST_HOURS_MAX).contains(&self.android.revocation_list_hours_max) {
            refuse(
                "android.revocation_list_hours_max",
                format!("It is from 1 to {REVOCATION_LIST_HOURS_MAX} hours."),
            );
        }
    }

    /// Refuses an applicant that the tenant does not take. Limits are counted by `within`.
    pub fn admits(&self, applicant: &Applicant, token: &TokenRules, now: Timestamp) -> Result<(), Problem> {
        let not_allowed = |why: &str| Err(ENROLLMENT_NOT_ALLOWED.detail(why));
        if self.opens_at.is_some_and(|opens| now < opens) {
            return not_allowed("Enrollment has not opened yet.");
        }
        if self.closes_at.is_some_and(|closes| now >= closes) {
            return not_allowed("Enrollment is closed.");
        }
        if !self.ownership.contains(&applicant.ownership) {
            return not_allowed("The tenant does not enroll devices of this ownership.");
        }
        if !self.platforms.is_empty() && !self.platforms.contains(&applicant.platform) {
            return not_allowed("The tenant does not enroll devices of this platform.");
        }
        let model = applicant.model.as_deref().unwrap_or_default();
        if !self.models.is_empty() && !self.models.iter().any(|pattern| matches(pattern, model)) {
            return not_allowed("The tenant does not enroll devices of this model.");
        }
        let accepted = self.attestation.contains(&applicant.level);
        let wanted = token.attestation.is_empty() || token.attestation.contains(&applicant.level);
        if accepted && wanted {
            return Ok(());
        }
        Err(ATTESTATION_REQUIRED.detail(if applicant.level.is_attested() {
            "The tenant does not accept this kind of hardware proof."
        } else {
            "The tenant accepts only keys that hardware holds and proves."
        }))
    }

    /// Refuses an applicant who would be one too many.
    pub fn within(&self, there: &Population, applicant: &Applicant) -> Result<(), Problem> {
        let reached = |limit: Option<i64>, count: i64| limit.is_some_and(|limit| count >= limit);
        let limits = &self.limits;
        let why = if reached(limits.devices_max, there.live) {
            "The tenant has as many devices as it may have."
        } else if applicant.owner.is_some() && reached(limits.devices_per_owner_max, there.of_owner) {
            "The owner has as many devices as one person may have."
        } else if applicant.model.is_some() && reached(limits.devices_per_model_max, there.of_model) {
            "There are as many devices of this model as there may be."
        } else if reached(limits.enrollments_per_hour_max, there.enrolled_in_the_last_hour) {
            return Err(ENROLLMENT_LIMIT
                .detail("As many devices as may enroll in an hour did. Try again later.")
                .retry_after(600));
        } else {
            return Ok(());
        };
        Err(ENROLLMENT_LIMIT.detail(why))
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is what a pattern describes, in any case of letters; `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicant(level: AttestationLevel) -> Applicant {
        Applicant {
            owner: Some("A. Person".to_owned()),
            model: Some("ThinkPad X1".to_owned()),
            level,
            ..Applicant::unattested(uuid::Uuid::from_u128(1), Platform::Linux, vec![1])
        }
    }

    fn check(policy: EnrollmentPolicy, level: AttestationLevel, expected: Option<&str>) {
        let rules = TokenRules {
            attestation: BTreeSet::new(),
        };
        let now = Timestamp::from_unix_seconds(1_000);
        let outcome = policy.admits(&applicant(level), &rules, now);
        assert_eq!(outcome.err().map(|problem| problem.code()), expected);
    }

    #[test]
    fn the_default_takes_everybody() {
        for level in AttestationLevel::ALL {
            check(EnrollmentPolicy::default(), level, None);
        }
        assert!(EnrollmentPolicy::default().check().is_ok());
    }

    #[test]
    fn a_software_key_is_refused_where_hardware_is_asked_for() {
        let policy = EnrollmentPolicy {
            attestation: [AttestationLevel::Tpm2].into(),
            ..EnrollmentPolicy::default()
        };
        check(
            policy.clone(),
            AttestationLevel::Unattested,
            Some("attestation_required"),
        );
        check(
            policy.clone(),
            AttestationLevel::Apple,
            Some("attestation_required"),
        );
        check(policy, AttestationLevel::Tpm2, None);
    }

    #[test]
    fn platform_model_ownership_and_time_are_kept() {
        let default = EnrollmentPolicy::default;
        let policies = [
            EnrollmentPolicy {
                platforms: [Platform::Android].into(),
                ..default()
            },
            EnrollmentPolicy {
                models: vec!["Latitude*".to_owned()],
                ..default()
            },
            EnrollmentPolicy {
                ownership: [Ownership::Personal].into(),
                ..default()
            },
            EnrollmentPolicy {
                opens_at: Some(Timestamp::from_unix_seconds(1_001)),
                ..default()
            },
            EnrollmentPolicy {
                closes_at: Some(Timestamp::from_unix_seconds(1_000)),
                ..default()
            },
        ];
        for policy in policies {
            check(policy, AttestationLevel::Tpm2, Some("enrollment_not_allowed"));
        }
    }

    #[test]
    fn each_limit_is_counted() {
        let one = Some(1);
        let full = Population {
            live: 1,
            of_owner: 1,
            of_model: 1,
            enrolled_in_the_last_hour: 1,
        };
        let limits = [
            Limits {
                devices_max: one,
                ..Limits::default()
            },
            Limits {
                devices_per_owner_max: one,
                ..Limits::default()
            },
            Limits {
                devices_per_model_max: one,
                ..Limits::default()
            },
            Limits {
                enrollments_per_hour_max: one,
                ..Limits::default()
            },
        ];
        for limits in limits {
            assert!(limits.any());
            let policy = EnrollmentPolicy {
                limits,
                ..EnrollmentPolicy::default()
            };
            let somebody = applicant(AttestationLevel::Tpm2);
            assert!(policy.within(&Population::default(), &somebody).is_ok());
            let refused = policy.within(&full, &somebody).map_err(|problem| problem.code());
            assert_eq!(refused, Err("enrollment_limit"));
        }
    }

    #[test]
    fn wrong_members_are_all_named() {
        let policy = EnrollmentPolicy {
            attestation: BTreeSet::new(),
            limits: Limits {
                devices_max: Some(-1),
                ..Limits::default()
            },
            tpm: TpmPolicy {
                pcr_values: [(9, ["zz".to_owned()].into())].into(),
                ..TpmPolicy::default()
            },
            ..EnrollmentPolicy::default()
        };
        let problem = policy.check().expect_err("it is wrong");
        let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "attestation",
                "limits.devices_max",
                "tpm.pcr_values.9",
                "tpm.pcr_values.9"
            ]
        );
    }

    #[test]
    fn unknown_members_are_errors() {
        assert!(serde_json::from_str::<EnrollmentPolicy>(r#"{"attestations":["tpm2"]}"#).is_err());
        assert!(serde_json::from_str::<EnrollmentPolicy>(r#"{"attestation":["tpm2"]}"#).is_ok());
    }

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, text, expected) in [
            ("ThinkPad*", "thinkpad x1", true),
            ("*X1", "ThinkPad X1", true),
            ("Think*X1", "ThinkPad X1", true),
            ("Think*X2", "ThinkPad X1", false),
            ("ThinkPad", "ThinkPad X1", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
