//! What a version may say, and when a stored one is still itself.

use std::time::Duration;

use muster_model::{
    PolicyId, Timestamp,
    rules::{Rule, check_rules},
    settings::Settings,
    text::Name,
};
use muster_trust::{
    bundle::{self, OpenBundle},
    key::{Digest, sha256, sha256_of},
};

use super::{Opened, Policy, Version};
use crate::{
    access::problem::{BUNDLE_REFUSED, FieldError, INVALID, Problem, SETTINGS_INVALID},
    secrets::TenantKeys,
};

/// Longest description of a policy, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1024;
/// How far the clock of who built a bundle may be ahead.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(600);

/// The checked content of a version.
#[derive(Debug, Clone)]
pub struct Content {
    /// Canonical JSON, one text for one meaning.
    pub settings_json: String,
    pub rules_json: String,
    /// Of settings and rules.
    pub sha256: Digest,
}

/// What a request to make a version comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Create,
    /// The version exists with this content: answer as the first time.
    Repeat,
    /// The version exists with other content, and versions never change.
    Refuse,
}

/// Checks what a policy is called and described as.
pub fn check_policy(name: &Name, description: Option<&str>) -> Result<(), Problem> {
    if name.as_str().parse::<PolicyId>().is_ok() {
        return Err(INVALID.detail("A name cannot look like a policy id. Choose another."));
    }
    check_description(description.unwrap_or_default())
}

/// Checks a description of a policy.
pub fn check_description(description: &str) -> Result<(), Problem> {
    if description.chars().count() > DESCRIPTION_CHARS_MAX {
        return Err(INVALID.detail(format!(
            "A description has at most {DESCRIPTION_CHARS_MAX} characters."
        )));
    }
    Ok(())
}

/// Checks settings (JSON text) and rules. Every wrong setting is named.
pub fn read_content(settings: &str, rules: &[Rule]) -> Result<Content, Problem> {
    let settings = Settings::parse(settings.as_bytes()).map_err(|errors| {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.key, only.detail),
            several => format!("{} settings are wrong; `errors` names each.", several.len()),
        };
        let errors = errors
            .iter()
            .map(|error| FieldError {
                field: error.key.clone(),
                code: error.code.to_owned(),
                detail: error.detail.clone(),
            })
            .collect();
        SETTINGS_INVALID.detail(detail).with_errors(errors)
    })?;
    check_rules(rules).map_err(|invalid| {
        let field = FieldError {
            field: "rules".to_owned(),
            code: "rule_invalid".to_owned(),
            detail: invalid.to_string(),
        };
        SETTINGS_INVALID
            .detail(format!("rules: {invalid}"))
            .with_errors(vec![field])
    })?;
    if settings.is_empty() && rules.is_empty() {
        return Err(SETTINGS_INVALID.detail("A version needs at least one setting or rule."));
    }
    let settings_json = settings.canonical_json();
    let rules_json = serde_json::to_string(rules).map_err(Problem::internal)?;
    let sha256 = sha256_of(&[settings_json.as_bytes(), b"\n", rules_json.as_bytes()]);
    Ok(Content {
        settings_json,
        rules_json,
        sha256,
    })
}

/// Decides about a request for a version that may exist.
pub fn decide(existing: Option<&Version>, content: &Content) -> Decision {
    match existing {
        None => Decision::Create,
        Some(version) if version.content_sha256 == content.sha256.as_bytes() => Decision::Repeat,
        Some(_) => Decision::Refuse,
    }
}

/// Opens the stored bundle of a version if it is the one that was signed: its digest, the policy key's signature, and
/// the policy and version that it names. The error says what is wrong.
pub fn open_bundle(bytes: &[u8], keys: &TenantKeys, version: &Version) -> Result<Opened, String> {
    if sha256(bytes).to_hex() != version.bundle_sha256 {
        return Err("its bytes do not have its digest".to_owned());
    }
    let open: OpenBundle = bundle::open(bytes).map_err(|error| error.to_string())?;
    open.verify(&keys.root).map_err(|error| error.to_string())?;
    let manifest = &open.manifest;
    if manifest.tenant != keys.tenant
        || manifest.policy_id != version.policy
        || manifest.version != version.version
        || manifest.sequence != version.sequence
    {
        return Err("it is the bundle of another version".to_owned());
    }
    let settings =
        Settings::parse(open.settings_json()).map_err(|_| "its settings are not understood".to_owned())?;
    let rules = serde_json::from_slice(open.rules_json()).map_err(|error| error.to_string())?;
    Ok(Opened { settings, rules })
}

/// A bundle from elsewhere that devices would take.
#[derive(Debug, Clone)]
pub struct Pushed {
    pub open: OpenBundle,
    pub content: Content,
}

/// Why a bundle from elsewhere is refused.
#[derive(Debug)]
pub enum RefusedBundle {
    /// Signed by somebody else, or for something else: worth an entry in the log.
    NotOurs { why: String, sha256: Digest },
    /// Signed as it should be, with content that no version can have.
    Content(Problem),
}

/// Checks a bundle that was built elsewhere for a policy: everything that a device checks, and that what it says is
/// written in the one way that the server itself writes it.
pub fn check_pushed(
    open: OpenBundle,
    keys: &TenantKeys,
    policy: &Policy,
    now: Timestamp,
) -> Result<Pushed, RefusedBundle> {
    let not_ours = |why: String| RefusedBundle::NotOurs {
        why,
        sha256: open.sha256,
    };
    let manifest = &open.manifest;
    open.verify(&keys.root)
        .map_err(|error| not_ours(error.to_string()))?;
    if manifest.policy_id != policy.id || manifest.policy_name != policy.name {
        return Err(not_ours(format!(
            "the bundle is of the policy {} ({}), and was pushed to {} ({})",
            manifest.policy_name, manifest.policy_id, policy.name, policy.id
        )));
    }
    let refuse = |detail: &str| RefusedBundle::Content(BUNDLE_REFUSED.detail(detail));
    if now.plus(CLOCK_DIFFERENCE_MAX) < manifest.created_at {
        return Err(refuse(
            "The bundle was created in the future. Correct --created-at or the clock.",
        ));
    }
    if manifest.files.len() != 2 {
        return Err(refuse(
            "A bundle has settings.json and rules.json, and nothing else.",
        ));
    }
    let not_text = |_| refuse("The settings are not text.");
    let settings = std::str::from_utf8(open.settings_json()).map_err(not_text)?;
    let rules: Vec<Rule> = serde_json::from_slice(open.rules_json())
        .map_err(|error| refuse(&format!("The rules are not understood: {error}.")))?;
    let content = read_content(settings, &rules).map_err(RefusedBundle::Content)?;
    if content.settings_json.as_bytes() != open.settings_json()
        || content.rules_json.as_bytes() != open.rules_json()
    {
        return Err(refuse(
            "The settings or rules are not in canonical form. Build the bundle with `muster bundle build`.",
        ));
    }
    Ok(Pushed { open, content })
}

#[cfg(test)]
mod tests {
    use muster_model::{EntryId, PolicyId, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn content(settings: &str) -> Content {
        read_content(settings, &[]).expect("the settings are valid")
    }

    fn stored(content: &Content) -> Version {
        Version {
            policy: PolicyId::from_uuid(Uuid::nil()),
            version: "2026.05".parse().expect("it is a label"),
            sequence: 1,
            content_sha256: content.sha256.as_bytes().to_vec(),
            settings: content.settings_json.clone(),
            rules: content.rules_json.clone(),
            bundle_sha256: String::new(),
            entry: EntryId::from_uuid(Uuid::nil()),
            created_by: "client:x".to_owned(),
            created_at: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn the_order_of_settings_is_no_other_content() {
        let first = content(r#"{"passcode.min_length":12,"passcode.required":true}"#);
        let second = content(r#"{ "passcode.required": true, "passcode.min_length": 12 }"#);
        assert_eq!(decide(Some(&stored(&first)), &second), Decision::Repeat);
    }

    #[test]
    fn a_version_never_changes() {
        let first = content(r#"{"passcode.min_length":12}"#);
        let second = content(r#"{"passcode.min_length":8}"#);
        assert_eq!(decide(Some(&stored(&first)), &second), Decision::Refuse);
        assert_eq!(decide(None, &second), Decision::Create);
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let problem = read_content(r#"{"passcode.min_lenght":12,"passcode.required":"yes"}"#, &[])
            .expect_err("both are wrong");
        assert_eq!(problem.code(), "settings_invalid");
        let fields: Vec<_> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert!(
            fields.contains(&"passcode.min_lenght") && fields.contains(&"passcode.required"),
            "{fields:?}"
        );
    }

    #[test]
    fn d5_a_setting_named_twice_is_refused() {
        assert!(read_content(r#"{"passcode.min_length":4,"passcode.min_length":12}"#, &[]).is_err());
    }

    #[test]
    fn an_empty_version_is_a_mistake() {
        assert!(read_content("{}", &[]).is_err());
    }
}
