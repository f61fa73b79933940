//! What the claims of a token must say (OpenID Connect Core 1.0, section 3.1.3.7; Back-Channel Logout 1.0, section 2.6). Pure.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{
    ConnectionSpec,
    connection::{InDirectory, MatchedBy},
    jose::{Members, Signed, texts_of},
};

/// How far two clocks may be apart.
const SKEW_SECONDS: i64 = 60;
/// An ID token is used at once: one that was made before is not fresh news.
const ID_TOKEN_AGE_SECONDS_MAX: i64 = 600;
/// A logout token as well (Back-Channel Logout 1.0, section 4).
const LOGOUT_TOKEN_AGE_SECONDS_MAX: i64 = 300;
/// Longest subject (OpenID Connect Core 1.0, section 2).
const SUBJECT_CHARS_MAX: usize = 255;
const NAME_CHARS_MAX: usize = 128;
/// Groups of one person, and the length of each.
pub const GROUPS_MAX: usize = 500;
const GROUP_CHARS_MAX: usize = 256;
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What was asked for, which the answer must fit.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub nonce: &'a str,
    /// The access token that came along.
    pub access_token: Option<&'a str>,
    /// The person must have been asked since then, in seconds since the epoch.
    pub authenticated_since: Option<i64>,
    pub now: i64,
}

/// Who came, as an ID token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub subject: String,
    /// What the person signs in with there, or is called.
    pub username: String,
    pub display_name: String,
    pub groups: Vec<String>,
    /// Whether the provider left groups out because there are too many for a token.
    pub has_more_groups: bool,
    pub authenticated_at: Option<i64>,
    pub provider_session: Option<String>,
    /// Who the person is to the connector that the connection names.
    pub in_directory: Option<InDirectory>,
}

/// Judges an ID token; answers who came, or what is wrong in words for people.
pub fn judge(spec: &ConnectionSpec, signed: &Signed, asked: &Asked<'_>) -> Result<Identity, String> {
    let claims = &signed.claims;
    check_parties(spec, claims)?;
    check_times(claims, asked.now, ID_TOKEN_AGE_SECONDS_MAX)?;
    if claims.text("nonce") != Some(asked.nonce) {
        return Err("the token was made for another request: its nonce is not ours".to_owned());
    }
    if let (Some(hash), Some(token)) = (claims.0.get("at_hash"), asked.access_token)
        && hash.as_str() != Some(access_token_hash(signed.algorithm, token).as_str())
    {
        return Err("the access token is not the one that the ID token names".to_owned());
    }
    let authenticated_at = claims.seconds("auth_time");
    if let Some(since) = asked.authenticated_since {
        match authenticated_at {
            None => {
                return Err(
                    "the token does not say when the person was asked (auth_time); let the provider send it"
                        .to_owned(),
                );
            }
            Some(at) if at + SKEW_SECONDS < since => {
                return Err("the provider did not ask the person again".to_owned());
            }
            Some(_) => {}
        }
    }
    check_strength(spec, claims)?;
    Ok(identity(spec, claims, subject(claims)?, authenticated_at))
}

/// Issuer, audience and directory.
fn check_parties(spec: &ConnectionSpec, claims: &Members) -> Result<(), String> {
    let issuer = claims.text("iss").unwrap_or_default();
    if issuer != spec.issuer {
        return Err(format!(
            "the token's issuer is {}, and the connection's is {}",
            cut(issuer),
            spec.issuer
        ));
    }
    let audience = claims.texts("aud").unwrap_or_default();
    if audience != [spec.client_id.as_str()] {
        return Err("the token is not for this client alone: its audience is another".to_owned());
    }
    if claims.0.contains_key("azp") && claims.text("azp") != Some(&spec.client_id) {
        return Err("the token was issued to another client (azp)".to_owned());
    }
    match &spec.tid {
        Some(wanted) if claims.text("tid") != Some(wanted) => {
            Err("the token is of another directory: its tid is not the connection's".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_times(claims: &Members, now: i64, age_max: i64) -> Result<(), String> {
    let (Some(issued), Some(expires)) = (claims.seconds("iat"), claims.seconds("exp")) else {
        return Err("the token does not say when it was issued and when it ends".to_owned());
    };
    if expires.saturating_add(SKEW_SECONDS) <= now {
        return Err("the token has expired; if that happens always, compare the clocks".to_owned());
    }
    let begins = claims.seconds("nbf").unwrap_or(issued).max(issued);
    if begins > now.saturating_add(SKEW_SECONDS) {
        return Err("the token is not valid yet; compare the clocks".to_owned());
    }
    if issued.saturating_add(age_max) < now {
        return Err("the token was issued too long ago".to_owned());
    }
    Ok(())
}

/// How well the provider knows the person.
pub fn check_strength(spec: &ConnectionSpec, claims: &Members) -> Result<(), String> {
    if !spec.required_acr.is_empty() {
        let said = claims.text("acr").unwrap_or_default();
        if !spec.required_acr.iter().any(|wanted| wanted == said) {
            return Err(format!(
                "the connection asks for one of {} (acr), and the provider says {:?}",
                spec.required_acr.join(", "),
                cut(said)
            ));
        }
    }
    let said = claims.texts("amr").unwrap_or_default();
    match spec
        .required_amr
        .iter()
        .find(|wanted| !said.contains(&wanted.as_str()))
    {
        None => Ok(()),
        Some(missing) => Err(format!(
            "the connection asks for {missing} (amr), and the provider did not ask the person for it"
        )),
    }
}

fn subject(claims: &Members) -> Result<String, String> {
    let subject = claims.text("sub").unwrap_or_default();
    let is_sound = !subject.is_empty()
        && subject.chars().count() <= SUBJECT_CHARS_MAX
        && !subject.chars().any(char::is_control);
    is_sound
        .then(|| subject.to_owned())
        .ok_or_else(|| "the token does not say who came (sub)".to_owned())
}

/// Who an access token of the provider is of, and their groups.
pub fn identity_of(spec: &ConnectionSpec, claims: &Members) -> Result<Identity, String> {
    Ok(identity(
        spec,
        claims,
        subject(claims)?,
        claims.seconds("auth_time"),
    ))
}

fn identity(spec: &ConnectionSpec, claims: &Members, subject: String, at: Option<i64>) -> Identity {
    let named = |name: &str| claims.text(name).map(tidied).filter(|text| !text.is_empty());
    let own = spec.name_claim.as_deref().and_then(named);
    let username = own
        .or_else(|| named("preferred_username"))
        .or_else(|| named("email"))
        .unwrap_or_else(|| tidied(&subject));
    let display_name = named("name").unwrap_or_else(|| username.clone());
    let groups = spec.groups_claim.as_deref().unwrap_or_default();
    let found = pick(claims, groups).and_then(texts_of).unwrap_or_default();
    let sound = found
        .iter()
        .filter(|name| !name.is_empty() && name.chars().count() <= GROUP_CHARS_MAX);
    let mut sound: Vec<String> = sound.map(|name| (*name).to_owned()).collect();
    sound.sort_unstable();
    sound.dedup();
    let left_out = claims
        .0
        .get("_claim_names")
        .is_some_and(|names| names.get(groups).is_some());
    let has_more_groups = left_out || sound.len() > GROUPS_MAX || claims.0.get("hasgroups").is_some();
    sound.truncate(GROUPS_MAX);
    let in_directory = spec.directory.as_ref().and_then(|wanted| match wanted.by {
        MatchedBy::Subject => wanted.person(Some(&subject)),
        MatchedBy::Oid => wanted.person(claims.text("oid")),
    });
    Identity {
        in_directory,
        username,
        display_name,
        groups: sound,
        has_more_groups,
        authenticated_at: at,
        provider_session: claims
            .text("sid")
            .filter(|sid| sid.len() <= SUBJECT_CHARS_MAX)
            .map(str::to_owned),
        subject,
    }
}

/// A claim by its name, or by a JSON Pointer (RFC 6901) into nested ones.
pub(super) fn pick<'a>(claims: &'a Members, name: &str) -> Option<&'a Value> {
    match name.strip_prefix('/') {
        None => claims.0.get(name),
        Some(path) => {
            let (first, rest) = path
                .split_once('/')
                .map_or((path, None), |(first, rest)| (first, Some(rest)));
            let value = claims.0.get(&first.replace("~1", "/").replace("~0", "~"))?;
            rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
        }
    }
}

/// A name without what cannot be seen, cut.
fn tidied(text: &str) -> String {
    let seen = text.chars().filter(|char| !char.is_control());
    seen.take(NAME_CHARS_MAX).collect::<String>().trim().to_owned()
}

fn cut(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(80).collect()
}

/// `at_hash` (OpenID Connect Core 1.0, section 3.1.3.6).
fn access_token_hash(algorithm: &str, token: &str) -> String {
    let kind = match algorithm {
        "RS384" | "PS384" | "ES384" => &digest::SHA384,
        "RS512" | "PS512" | "EdDSA" => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let whole = digest::digest(kind, token.as_bytes());
    URL_SAFE_NO_PAD.encode(&whole.as_ref()[..whole.as_ref().len() / 2])
}

/// Whose sessions end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    pub subject: Option<String>,
    pub provider_session: Option<String>,
    /// So that a token counts once.
    pub id: String,
}

/// Judges a logout token.
pub fn judge_logout(spec: &ConnectionSpec, signed: &Signed, now: i64) -> Result<Logout, String> {
    let claims = &signed.claims;
    check_parties(
        &ConnectionSpec {
            tid: None,
            ..spec.clone()
        },
        claims,
    )?;
    check_times(claims, now, LOGOUT_TOKEN_AGE_SECONDS_MAX)?;
    if claims.0.contains_key("nonce") {
        return Err("a logout token has no nonce: this is another token".to_owned());
    }
    let event = claims.0.get("events").and_then(|events| events.get(LOGOUT_EVENT));
    if !event.is_some_and(Value::is_object) {
        return Err("the token does not say that it is about a logout".to_owned());
    }
    let id = claims
        .text("jti")
        .filter(|id| !id.is_empty() && id.len() <= SUBJECT_CHARS_MAX);
    let logout = Logout {
        subject: subject(claims).ok(),
        provider_session: claims.text("sid").map(str::to_owned),
        id: id.ok_or("the token has no id (jti)")?.to_owned(),
    };
    if logout.subject.is_none() && logout.provider_session.is_none() {
        return Err("the token says neither who nor which session".to_owned());
    }
    Ok(logout)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn spec() -> ConnectionSpec {
        ConnectionSpec {
            tid: Some("directory-1".to_owned()),
            required_amr: vec!["mfa".to_owned()],
            ..ConnectionSpec::new("https://idp.example", "muster")
        }
    }

    fn claims() -> Value {
        json!({
            "iss": "https://idp.example", "aud": "muster", "sub": "0001", "iat": NOW, "exp": NOW + 300, "nonce": "n",
            "tid": "directory-1", "amr": ["pwd", "mfa"], "preferred_username": "ada@example.com", "name": "Ada",
            "groups": ["admins", "admins", ""], "auth_time": NOW - 10, "sid": "s1",
        })
    }

    fn judged(change: impl FnOnce(&mut Value)) -> Result<Identity, String> {
        let mut claims = claims();
        change(&mut claims);
        let signed = Signed {
            claims: serde_json::from_value(claims).expect("it is an object"),
            algorithm: "RS256",
        };
        let asked = Asked {
            nonce: "n",
            access_token: Some("at"),
            authenticated_since: None,
            now: NOW,
        };
        judge(&spec(), &signed, &asked)
    }

    #[test]
    fn a_sound_token_says_who_came() {
        let identity = judged(|_| ()).expect("it is sound");
        assert_eq!(
            (identity.subject.as_str(), identity.username.as_str()),
            ("0001", "ada@example.com")
        );
        assert_eq!(identity.groups, ["admins"]);
        assert_eq!(identity.provider_session.as_deref(), Some("s1"));
        let right = access_token_hash("RS256", "at");
        assert!(judged(|claims| claims["at_hash"] = json!(right)).is_ok());
        assert!(judged(|claims| claims["aud"] = json!(["muster"])).is_ok());
    }

    #[test]
    fn a14_a_token_with_one_wrong_claim_is_refused() {
        let wrong: &[(&str, Value)] = &[
            ("iss", json!("https://idp.example/")),
            ("iss", json!("https://evil.example")),
            ("aud", json!("other")),
            ("aud", json!(["muster", "other"])),
            ("aud", Value::Null),
            ("azp", json!("other")),
            ("azp", json!(["muster"])),
            ("exp", json!(NOW - 61)),
            ("exp", Value::Null),
            ("iat", json!(NOW + 61)),
            ("iat", json!(NOW - 601)),
            ("nbf", json!(NOW + 120)),
            ("nonce", json!("m")),
            ("nonce", Value::Null),
            ("tid", json!("directory-2")),
            ("tid", Value::Null),
            ("amr", json!(["pwd"])),
            ("amr", json!("pwd")),
            ("sub", json!("")),
            ("sub", json!(1)),
            ("sub", json!("x".repeat(256))),
            ("at_hash", json!("AAAA")),
            ("at_hash", json!(1)),
        ];
        for (name, value) in wrong {
            assert!(
                judged(|claims| claims[*name] = value.clone()).is_err(),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a15_a_fresh_proof_needs_a_fresh_time() {
        let fresh = |time: Value| {
            let mut claims = claims();
            claims["auth_time"] = time;
            let signed = Signed {
                claims: serde_json::from_value(claims).expect("it is an object"),
                algorithm: "RS256",
            };
            let asked = Asked {
                nonce: "n",
                access_token: None,
                authenticated_since: Some(NOW),
                now: NOW,
            };
            judge(&spec(), &signed, &asked)
        };
        assert!(fresh(json!(NOW)).is_ok());
        assert!(fresh(json!(NOW - 3600)).is_err() && fresh(Value::Null).is_err());
    }

    #[test]
    fn nested_and_missing_groups_are_understood() {
        let nested = ConnectionSpec {
            groups_claim: Some("/realm_access/roles".to_owned()),
            ..ConnectionSpec::new("i", "c")
        };
        let claims: Members =
            serde_json::from_value(json!({"realm_access": {"roles": ["a", "b"]}})).expect("it is an object");
        let found = identity(&nested, &claims, "s".to_owned(), None);
        assert_eq!(found.groups, ["a", "b"]);
        let over: Members =
            serde_json::from_value(json!({"_claim_names": {"groups": "src1"}})).expect("it is an object");
        assert!(identity(&ConnectionSpec::new("i", "c"), &over, "s".to_owned(), None).has_more_groups);
    }

    #[test]
    fn a13_a_logout_token_is_nothing_else_and_nothing_else_is_one() {
        let logout = |change: fn(&mut Value)| {
            let mut claims = json!({
                "iss": "https://idp.example", "aud": "muster", "iat": NOW, "exp": NOW + 120, "jti": "j", "sid": "s1",
                "events": {LOGOUT_EVENT: {}},
            });
            change(&mut claims);
            let signed = Signed {
                claims: serde_json::from_value(claims).expect("it is an object"),
                algorithm: "RS256",
            };
            judge_logout(&spec(), &signed, NOW)
        };
        assert!(logout(|_| ()).is_ok());
        let wrong: &[fn(&mut Value)] = &[
            |claims| claims["nonce"] = json!("n"),
            |claims| claims["events"] = json!({}),
            |claims| claims["events"] = json!({LOGOUT_EVENT: true}),
            |claims| claims["sid"] = Value::Null,
            |claims| claims["jti"] = Value::Null,
            |claims| claims["iat"] = json!(NOW - 301),
            |claims| claims["exp"] = json!(NOW - 61),
            |claims| claims["aud"] = json!("other"),
            |claims| claims["iss"] = json!("https://evil.example"),
        ];
        for change in wrong {
            assert!(logout(*change).is_err());
        }
        assert!(
            judged(|claims| {
                claims.as_object_mut().expect("it is an object").remove("nonce");
            })
            .is_err()
        );
    }
}
