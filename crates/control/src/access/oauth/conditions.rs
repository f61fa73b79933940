//! Which workloads a trust means: conditions on the claims of their tokens. Pure.
//!
//! A hosted issuer signs for everybody, so a trust in it is only as good as what it asks for. Each names whose workload it is: by an
//! exact value, or by a pattern whose beginning says so. A pattern's `*` stands for a piece between separators, never for more.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::jose::Members;

/// Conditions of one trust.
pub const CONDITIONS_MAX: usize = 16;
const CLAIM_CHARS_MAX: usize = 64;
const VALUE_CHARS_MAX: usize = 512;
const STARS_MAX: usize = 3;
/// Claims that say whose workload it is: GitHub, GitLab, Azure DevOps, Entra ID, Kubernetes.
const WHOSE: &[&str] = &[
    "sub",
    "repository",
    "repository_id",
    "repository_owner_id",
    "project_path",
    "project_id",
    "namespace_id",
    "oid",
];
/// How subjects begin that say of what kind they are before they say whose.
const KINDS: &[&str] = &[
    "repo:",
    "project_path:",
    "system:serviceaccount:",
    "sc://",
    "organization:",
];

/// What one claim must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The claim's name, such as `sub`, `ref` or `environment`.
    pub claim: String,
    /// The value, to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// A pattern instead: `*` stands for one or more characters that are neither `/` nor `:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
}

impl Condition {
    fn check(&self) -> Result<(), String> {
        let is_sound = |text: &str, chars_max: usize| {
            (1..=chars_max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        if !is_sound(&self.claim, CLAIM_CHARS_MAX) {
            return Err("A claim's name has 1 to 64 characters.".to_owned());
        }
        let ((Some(value), None) | (None, Some(value))) = (&self.equals, &self.matches) else {
            return Err(format!("Say of {} either equals or matches.", self.claim));
        };
        if !is_sound(value, VALUE_CHARS_MAX) {
            return Err(format!("What {} must be has 1 to 512 characters.", self.claim));
        }
        if let Some(pattern) = &self.matches {
            let stars = pattern.bytes().filter(|byte| *byte == b'*').count();
            if !(1..=STARS_MAX).contains(&stars) || pattern.contains("**") || pattern == "*" {
                return Err(format!(
                    "A pattern has one to three *, each beside something else: {pattern} has not. A value without * is said with equals."
                ));
            }
        }
        if self.equals.as_deref().is_some_and(|value| value.contains('*')) {
            return Err(format!(
                "{} has a * and would be compared to the letter. Use matches.",
                self.claim
            ));
        }
        Ok(())
    }

    /// Whether it says whose workload it is.
    fn says_whose(&self) -> bool {
        if !WHOSE.contains(&self.claim.as_str()) {
            return false;
        }
        let Some(pattern) = &self.matches else {
            return true;
        };
        let begin = pattern.split('*').next().unwrap_or_default();
        let owner = match (
            self.claim.as_str(),
            KINDS.iter().find_map(|kind| begin.strip_prefix(kind)),
        ) {
            ("sub", Some(rest)) => rest,
            // Of an unknown kind of subject, the first piece says what kind it is.
            ("sub", None) => begin.split_once([':', '/']).map_or("", |(_, rest)| rest),
            _ => begin,
        };
        owner
            .split_once([':', '/'])
            .is_some_and(|(whose, _)| !whose.is_empty())
    }

    fn holds(&self, claims: &Members) -> bool {
        let said = match claims.0.get(&self.claim) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Number(value)) => value.to_string(),
            _ => return false,
        };
        match (&self.equals, &self.matches) {
            (Some(wanted), None) => said == *wanted,
            (None, Some(pattern)) => fits(pattern, &said),
            _ => false,
        }
    }
}

/// Whether conditions mean somebody, and not everybody whom the issuer signs for.
pub fn check(conditions: &[Condition]) -> Result<(), String> {
    if conditions.len() > CONDITIONS_MAX {
        return Err("A trust has at most 16 conditions.".to_owned());
    }
    conditions.iter().try_for_each(Condition::check)?;
    if conditions.iter().any(Condition::says_whose) {
        return Ok(());
    }
    Err(format!(
        "Nothing says whose workload it is: everybody who uses this issuer would be let in. Give one of {} with equals, or with a \
         pattern that begins with the owner, such as repo:my-org/my-app:*.",
        WHOSE.join(", ")
    ))
}

/// The first condition that does not hold.
pub fn unmet<'a>(conditions: &'a [Condition], claims: &Members) -> Option<&'a Condition> {
    conditions.iter().find(|condition| !condition.holds(claims))
}

/// Whether a text fits a pattern. At most three `*`, so it takes no more than the cube of the text's length, which is bounded.
fn fits(pattern: &str, text: &str) -> bool {
    if text.len() > 4 * VALUE_CHARS_MAX {
        return false;
    }
    let Some((literal, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(literal) else {
        return false;
    };
    let piece = text.find(['/', ':']).unwrap_or(text.len());
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    ends.take_while(|end| *end <= piece)
        .any(|end| fits(rest, &text[end..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn equals(claim: &str, value: &str) -> Condition {
        Condition {
            claim: claim.to_owned(),
            equals: Some(value.to_owned()),
            matches: None,
        }
    }

    fn matches(claim: &str, pattern: &str) -> Condition {
        Condition {
            claim: claim.to_owned(),
            equals: None,
            matches: Some(pattern.to_owned()),
        }
    }

    #[test]
    fn a_trust_that_everybody_could_use_is_refused() {
        let narrow = [
            equals("sub", "repo:octo/app:ref:refs/heads/main"),
            matches("sub", "repo:octo/app:*"),
            matches("sub", "repo:octo/*:environment:production"),
            matches("sub", "project_path:octo/app:ref_type:branch:ref:*"),
            matches("sub", "system:serviceaccount:ci:*"),
            matches("sub", "sc://octo/project/*"),
            matches("sub", "workspace:octo:*"),
            equals("repository", "octo/app"),
            matches("repository", "octo/*"),
            equals("repository_id", "74"),
            equals("project_id", "20"),
        ];
        for condition in narrow {
            assert_eq!(
                check(&[condition.clone(), equals("ref", "refs/heads/main")]),
                Ok(()),
                "{condition:?}"
            );
        }
        let wide = [
            matches("sub", "repo:*"),
            matches("sub", "repo:*/app:ref:refs/heads/main"),
            matches("sub", "repo:*/*:*"),
            matches("sub", "re*:octo/app:x"),
            matches("sub", "repo:octo*"),
            matches("sub", "repo:/*"),
            matches("sub", "system:serviceaccount:*"),
            matches("sub", "system:serviceaccount:*:default"),
            matches("sub", "project_path:*"),
            matches("sub", "workspace:*"),
            matches("sub", "*"),
            matches("repository", "*/app"),
            matches("repository", "oct*"),
            equals("ref", "refs/heads/main"),
            equals("environment", "production"),
            equals("repository_owner", "octo"),
            equals("aud", "https://m.example"),
        ];
        for condition in wide {
            assert!(check(std::slice::from_ref(&condition)).is_err(), "{condition:?}");
        }
        assert!(check(&[]).is_err());
    }

    #[test]
    fn what_is_neither_a_value_nor_a_pattern_is_refused() {
        let whose = equals("sub", "x:y");
        let both = Condition {
            matches: Some("a*".to_owned()),
            ..equals("ref", "a")
        };
        let none = Condition {
            equals: None,
            ..equals("ref", "a")
        };
        let wrong = [
            both,
            none,
            equals("", "a"),
            equals("ref", ""),
            equals("ref", "refs/*"),
            matches("ref", "refs"),
            matches("ref", "a**"),
            matches("ref", "*a*b*c*"),
            equals("ref", &"x".repeat(513)),
            equals("ref", "a\nb"),
        ];
        for condition in wrong {
            assert!(
                check(&[whose.clone(), condition.clone()]).is_err(),
                "{condition:?}"
            );
        }
        assert!(check(&vec![whose; CONDITIONS_MAX + 1]).is_err());
    }

    #[test]
    fn a_star_stands_for_one_piece() {
        let cases = [
            ("refs/tags/v*", "refs/tags/v1.2", true),
            ("refs/tags/v*", "refs/tags/v", false),
            ("refs/tags/v*", "refs/tags/v1/x", false),
            ("repo:octo/app:*", "repo:octo/app:pull_request", true),
            ("repo:octo/app:*", "repo:octo/app:ref:refs/heads/main", false),
            (
                "repo:octo/*:environment:prod",
                "repo:octo/app:environment:prod",
                true,
            ),
            (
                "repo:octo/*:environment:prod",
                "repo:octo/a:environment:x:environment:prod",
                false,
            ),
            (
                "repo:octo/*:environment:prod",
                "repo:octo/app:environment:production",
                false,
            ),
            ("*-app", "my-app", true),
            ("*-app", "my-app-app", true),
            ("a*é*", "aéé", false),
            ("a*é*", "axéé", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_claim_that_is_no_single_value_meets_nothing() {
        let claims =
            |value: Value| serde_json::from_value::<Members>(json!({"x": value})).expect("it is an object");
        assert!(unmet(&[equals("x", "true")], &claims(json!(true))).is_none());
        assert!(unmet(&[equals("x", "7")], &claims(json!(7))).is_none());
        for value in [json!(["7"]), json!({"7": 7}), Value::Null] {
            assert!(unmet(&[equals("x", "7")], &claims(value)).is_some());
        }
        assert!(unmet(&[equals("y", "7")], &claims(json!("7"))).is_some());
    }

    proptest::proptest! {
        #[test]
        fn patterns_never_panic_and_a_star_never_crosses_a_separator(
            begin in "[a-z:/]{0,8}", middle in "\\PC{0,20}", end in "[a-z:/]{0,8}"
        ) {
            let text = format!("{begin}{middle}{end}");
            let found = fits(&format!("{begin}*{end}"), &text);
            let is_piece = !middle.is_empty() && !middle.contains(['/', ':']);
            proptest::prop_assert!(!is_piece || found);
            proptest::prop_assert!(!found || text.len() > begin.len() + end.len());
        }
    }
}
