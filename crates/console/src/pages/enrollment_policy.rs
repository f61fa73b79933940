//! What the tenant asks of those who enroll: shown and changed as one form. What the form does not show stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        problem::{CONFLICT, ENROLLMENT_POLICY_INVALID, FieldError, Problem},
        scope::{ConfigRead, ConfigWrite},
    },
    audit,
    enrollment::{self, EnrollmentPolicy, StoredPolicy},
};
use muster_model::{AttestationLevel, Ownership, Platform, Timestamp};

use super::token_forms::Choice;
use crate::{
    form::{Fields, Sent},
    session::Session,
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, When},
};

/// `2026-11-28T10:00`, as browsers send a local time.
const MINUTE_CHARS: usize = 16;

pub fn router() -> Router<App> {
    Router::new().route("/enrollment-policy", get(show).post(change))
}

#[derive(Template)]
#[template(path = "enrollment_policy.html")]
pub struct PolicyPage {
    pub shell: Shell,
    pub version: i64,
    pub changed: Option<(String, When)>,
    /// Whether the stored policy takes devices that prove nothing.
    pub takes_unattested: bool,
    pub typed: Fields,
    pub levels: Vec<Choice>,
    pub ownerships: Vec<Choice>,
    pub platforms: Vec<Choice>,
    pub refused: Option<String>,
    pub errors: Vec<FieldError>,
}

impl PolicyPage {
    /// What is wrong with a field, or with a part of it.
    fn wrong(&self, field: &str) -> Option<String> {
        let about = |error: &&FieldError| {
            error
                .field
                .strip_prefix(field)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let said: Vec<String> = self
            .errors
            .iter()
            .filter(about)
            .map(|error| match error.field.strip_prefix(field) {
                None | Some("") => error.detail.clone(),
                Some(part) => format!("{}: {}", part.trim_start_matches('.'), error.detail),
            })
            .collect();
        (!said.is_empty()).then(|| said.join(" "))
    }
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let _permit = session.permit::<ConfigRead>()?;
    let stored = enrollment::policy_of(&app, session.tenant()).await?;
    let typed = fields_of(&stored.document);
    policy_page(&app, &session, &stored, typed, None, Vec::new())
}

fn policy_page(
    app: &App,
    session: &Session,
    stored: &StoredPolicy,
    typed: Fields,
    refused: Option<String>,
    errors: Vec<FieldError>,
) -> Result<Response, Refusal> {
    let levels = AttestationLevel::ALL.map(|level| Choice {
        word: level.as_str(),
        label: ui::attestation_choice(level),
        is_on: typed.has("attestation", level.as_str()),
    });
    let ownerships = Ownership::ALL.map(|ownership| Choice {
        word: ownership.as_str(),
        label: match ownership {
            Ownership::Company => "The company's devices",
            Ownership::Personal => "Personal devices",
        },
        is_on: typed.has("ownership", ownership.as_str()),
    });
    let platforms = Platform::ALL.map(|platform| Choice {
        word: platform.as_str(),
        label: ui::platform(platform.as_str()),
        is_on: typed.has("platforms", platform.as_str()),
    });
    let now = app.clock.now();
    page(&PolicyPage {
        shell: session.shell("Enrollment policy", Section::Tokens),
        version: stored.version,
        changed: stored
            .updated_by
            .as_deref()
            .zip(stored.updated_at)
            .map(|(by, at)| (ui::author(by), When::new(at, now))),
        takes_unattested: stored
            .document
            .attestation
            .contains(&AttestationLevel::Unattested),
        levels: levels.into(),
        ownerships: ownerships.into(),
        platforms: platforms.into(),
        typed,
        refused,
        errors,
    })
}

async fn change(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<ConfigWrite>()?;
    let stored = enrollment::policy_of(&app, sent.session.tenant()).await?;
    let (document, mut errors) = read(&sent.fields, &stored.document);
    if let Err(problem) = document.check() {
        errors.extend(problem.errors.into_vec());
    }
    let changed = if errors.is_empty() {
        let expected = sent.fields.text("version").parse().ok();
        audit::commit(&app, permit.author(), move |tx| {
            enrollment::put_policy(tx, &document, expected)
        })
        .await
    } else {
        Err(ENROLLMENT_POLICY_INVALID
            .detail("Nothing was changed. What is wrong stands at its field.")
            .with_errors(errors))
    };
    match changed {
        Ok(_) => Ok(see_other("/enrollment-policy?notice=enrollment-policy-changed")),
        Err(problem) if [ENROLLMENT_POLICY_INVALID, CONFLICT].contains(&problem.kind) => {
            refused_page(&app, &sent.session, sent.fields, problem).await
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

/// The form again, as it was typed, over the policy as it is stored now.
async fn refused_page(
    app: &App,
    session: &Session,
    typed: Fields,
    problem: Problem,
) -> Result<Response, Refusal> {
    let stored = enrollment::policy_of(app, session.tenant()).await?;
    let refused = if problem.kind == CONFLICT {
        "Somebody changed the policy meanwhile. Below is what you typed: saving it now replaces their change."
            .to_owned()
    } else {
        problem.detail.clone()
    };
    let errors = problem.errors.into_vec();
    policy_page(app, session, &stored, typed, Some(refused), errors)
}

/// The fields of the form for a policy.
fn fields_of(policy: &EnrollmentPolicy) -> Fields {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: String| pairs.push((name.to_owned(), value));
    for level in &policy.attestation {
        put("attestation", level.as_str().to_owned());
    }
    for ownership in &policy.ownership {
        put("ownership", ownership.as_str().to_owned());
    }
    for platform in &policy.platforms {
        put("platforms", platform.as_str().to_owned());
    }
    put("models", policy.models.join("\n"));
    put("opens_at", minute(policy.opens_at));
    put("closes_at", minute(policy.closes_at));
    let limits = &policy.limits;
    for (name, limit) in [
        ("limits.devices_max", limits.devices_max),
        ("limits.devices_per_owner_max", limits.devices_per_owner_max),
        ("limits.devices_per_model_max", limits.devices_per_model_max),
        ("limits.enrollments_per_hour_max", limits.enrollments_per_hour_max),
    ] {
        put(name, limit.map(|limit| limit.to_string()).unwrap_or_default());
    }
    let tpm = &policy.tpm;
    for (name, is_on) in [
        ("tpm.well_known_roots", tpm.well_known_roots),
        ("tpm.only_known_endorsement_keys", tpm.only_known_endorsement_keys),
        ("tpm.event_log_required", tpm.event_log_required),
        ("tpm.secure_boot_required", tpm.secure_boot_required),
        ("apple.hardware_ids_required", policy.apple.hardware_ids_required),
    ] {
        if is_on {
            put(name, "yes".to_owned());
        }
    }
    put("tpm.roots_pem", tpm.roots_pem.clone());
    put("tpm.endorsement_keys", lines(tpm.endorsement_keys.iter()));
    let quoted: Vec<String> = tpm.pcrs_quoted.iter().map(u8::to_string).collect();
    put("tpm.pcrs_quoted", quoted.join(" "));
    let values = tpm
        .pcr_values
        .iter()
        .flat_map(|(pcr, values)| values.iter().map(move |value| format!("{pcr}: {value}")));
    put("tpm.pcr_values", lines(values));
    let oldest = policy.android.os_patch_level_min;
    put(
        "android.os_patch_level_min",
        oldest.map(|level| level.to_string()).unwrap_or_default(),
    );
    put(
        "android.revocation_list_hours_max",
        policy.android.revocation_list_hours_max.to_string(),
    );
    Fields::of(pairs)
}

fn lines<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join("\n")
}

fn minute(at: Option<Timestamp>) -> String {
    let text = at.map(|at| at.to_string()).unwrap_or_default();
    text.get(..MINUTE_CHARS).unwrap_or_default().to_owned()
}

/// Reads a form, and gathers what cannot be read.
struct Reader<'a> {
    fields: &'a Fields,
    errors: Vec<FieldError>,
}

impl Reader<'_> {
    fn refuse(&mut self, field: &str, detail: String) {
        self.errors.push(FieldError {
            field: field.to_owned(),
            code: "invalid".to_owned(),
            detail,
        });
    }

    fn number<T: std::str::FromStr>(&mut self, field: &str) -> Option<T> {
        let text = self.fields.optional(field)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.refuse(field, format!("{text:?} is not a whole number in this range."));
        }
        number
    }

    fn words<T: Ord>(&mut self, field: &str, parse: impl Fn(&str) -> Option<T>) -> BTreeSet<T> {
        let mut words = BTreeSet::new();
        for word in self.fields.all(field) {
            match parse(word) {
                Some(value) => {
                    words.insert(value);
                }
                None => self.refuse(field, format!("{word:?} is not one of the choices.")),
            }
        }
        words
    }

    /// A time in UTC; one that was not touched keeps its seconds.
    fn time(&mut self, field: &str, stored: Option<Timestamp>) -> Option<Timestamp> {
        let text = self.fields.optional(field)?;
        if text == minute(stored) {
            return stored;
        }
        let whole = if text.len() == MINUTE_CHARS {
            format!("{text}:00Z")
        } else {
            text.to_owned()
        };
        let time = whole.parse().ok();
        if time.is_none() {
            self.refuse(field, "Write it as 2026-11-28T10:00, in UTC.".to_owned());
        }
        time
    }

    fn lines(&self, field: &str) -> Vec<String> {
        let lines = self.fields.text(field).lines().map(str::trim);
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn pcrs(&mut self, field: &str) -> BTreeSet<u8> {
        let mut pcrs = BTreeSet::new();
        for word in self.fields.text(field).split([' ', ',', '\n', '\r', '\t']) {
            match word.parse() {
                Ok(pcr) => {
                    pcrs.insert(pcr);
                }
                Err(_) if word.is_empty() => {}
                Err(_) => self.refuse(field, format!("{word:?} is not the number of a register.")),
            }
        }
        pcrs
    }

    /// Lines of a register and one of its values: `7: 9f86…`.
    fn pcr_values(&mut self, field: &str) -> BTreeMap<u8, BTreeSet<String>> {
        let mut values: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
        for line in self.lines(field) {
            let read = line.split_once([':', '=', ' ']).and_then(|(pcr, value)| {
                let value = value.trim_matches([' ', ':', '=', '\t']).to_ascii_lowercase();
                Some((pcr.trim().parse().ok()?, value))
            });
            match read {
                Some((pcr, value)) => {
                    values.entry(pcr).or_default().insert(value);
                }
                None => self.refuse(field, format!("{line:?} is not a register and a value.")),
            }
        }
        values
    }
}

/// The policy that a form describes, with what the form does not show from `stored`, and what cannot be read.
fn read(fields: &Fields, stored: &EnrollmentPolicy) -> (EnrollmentPolicy, Vec<FieldError>) {
    let mut reader = Reader {
        fields,
        errors: Vec::new(),
    };
    let mut policy = stored.clone();
    policy.attestation = reader.words("attestation", AttestationLevel::parse);
    policy.ownership = reader.words("ownership", Ownership::parse);
    policy.platforms = reader.words("platforms", Platform::parse);
    policy.models = reader.lines("models");
    policy.opens_at = reader.time("opens_at", stored.opens_at);
    policy.closes_at = reader.time("closes_at", stored.closes_at);
    policy.limits.devices_max = reader.number("limits.devices_max");
    policy.limits.devices_per_owner_max = reader.number("limits.devices_per_owner_max");
    policy.limits.devices_per_model_max = reader.number("limits.devices_per_model_max");
    policy.limits.enrollments_per_hour_max = reader.number("limits.enrollments_per_hour_max");
    let is_on = |name: &str| fields.has(name, "yes");
    policy.tpm.well_known_roots = is_on("tpm.well_known_roots");
    policy.tpm.only_known_endorsement_keys = is_on("tpm.only_known_endorsement_keys");
    policy.tpm.event_log_required = is_on("tpm.event_log_required");
    policy.tpm.secure_boot_required = is_on("tpm.secure_boot_required");
    policy.tpm.roots_pem = fields.text("tpm.roots_pem").replace('\r', "");
    policy.tpm.endorsement_keys = reader
        .lines("tpm.endorsement_keys")
        .iter()
        .map(|key| key.to_ascii_lowercase())
        .collect();
    policy.tpm.pcrs_quoted = reader.pcrs("tpm.pcrs_quoted");
    policy.tpm.pcr_values = reader.pcr_values("tpm.pcr_values");
    policy.apple.hardware_ids_required = is_on("apple.hardware_ids_required");
    policy.android.os_patch_level_min = reader.number("android.os_patch_level_min");
    match reader.number("android.revocation_list_hours_max") {
        Some(hours) => policy.android.revocation_list_hours_max = hours,
        None => {
            if fields.optional("android.revocation_list_hours_max").is_none() {
                reader.refuse("android.revocation_list_hours_max", "It is needed.".to_owned());
            }
        }
    }
    (policy, reader.errors)
}

#[cfg(test)]
mod tests {
    use muster_control::enrollment::{AndroidPolicy, Limits, TpmPolicy};

    use super::*;

    fn full() -> EnrollmentPolicy {
        let value = |digit: char| digit.to_string().repeat(64);
        EnrollmentPolicy {
            attestation: [AttestationLevel::Tpm2, AttestationLevel::Apple].into(),
            ownership: [Ownership::Company].into(),
            platforms: [Platform::Linux, Platform::Macos].into(),
            models: vec!["ThinkPad*".to_owned(), "Latitude 7?".to_owned()],
            opens_at: Some(Timestamp::from_unix_seconds(1_800_000_017)),
            closes_at: Some(Timestamp::from_unix_seconds(1_900_000_000)),
            limits: Limits {
                devices_max: Some(9),
                devices_per_owner_max: None,
                devices_per_model_max: Some(0),
                enrollments_per_hour_max: Some(5),
            },
            tpm: TpmPolicy {
                well_known_roots: false,
                endorsement_keys: [value('a'), value('b')].into(),
                pcr_values: [(7, [value('c'), value('d')].into())].into(),
                secure_boot_required: true,
                ..TpmPolicy::default()
            },
            android: AndroidPolicy {
                os_patch_level_min: Some(202_601),
                roots_pem: "the form does not show this".to_owned(),
                ..AndroidPolicy::default()
            },
            ..EnrollmentPolicy::default()
        }
    }

    #[test]
    fn a_form_that_was_not_touched_changes_nothing() {
        for policy in [EnrollmentPolicy::default(), full()] {
            let (read, errors) = read(&fields_of(&policy), &policy);
            assert_eq!((read, errors.len()), (policy, 0), "{errors:?}");
        }
    }

    fn check(field: &str, text: &str) {
        let stored = EnrollmentPolicy::default();
        let mut pairs = vec![(field.to_owned(), text.to_owned())];
        pairs.push(("android.revocation_list_hours_max".to_owned(), "24".to_owned()));
        let (_, errors) = read(&Fields::of(pairs), &stored);
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, [field], "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        check("limits.devices_max", "many");
        check("limits.devices_max", "9".repeat(30).as_str());
        check("opens_at", "tomorrow");
        check("closes_at", "2026-13-01T00:00");
        check("attestation", "magic");
        check("platforms", "beos");
        check("tpm.pcrs_quoted", "0 1 256");
        check("tpm.pcr_values", "seven: 00");
        check("tpm.pcr_values", "7");
        check("android.os_patch_level_min", "-1");
        check("android.revocation_list_hours_max", "x");
    }
}
