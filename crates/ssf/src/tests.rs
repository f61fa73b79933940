use aws_lc_rs::{encoding::AsDer, rsa, signature::KeyPair};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{EncodingKey, Header};
use muster_model::Timestamp;
use muster_trust::key::{PublicKey, SigningKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Algorithm, Event, EventKind, KeySet, KeySetError, Level, Principal, PublicJwk, RejectCode, SET_BYTES_MAX,
    SecurityEvent, Status, Subject, TokenType, Verifier,
    compliance::{Check, ComplianceClaims, Confirmation},
    jwks, sign, uri,
};

const ISSUER: &str = "https://edr.example.com/";
const AUDIENCE: &str = "https://mdm.example.com/signals/in/sgs_1";
const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn p256() -> SigningKey {
    SigningKey::generate_p256().expect("a key is made")
}

fn jwk(key: &SigningKey, id: &str) -> PublicJwk {
    let PublicKey::EcdsaP256(point) = key.public() else {
        panic!("it is a P-256 key")
    };
    PublicJwk::of_point(id.to_owned(), point).expect("it is a point")
}

fn set_of(key: &SigningKey) -> KeySet {
    KeySet::parse(jwks(&[jwk(key, "k1")]).to_string().as_bytes()).expect("it is a key set")
}

fn claims(event: &str, payload: Value) -> Value {
    json!({
        "iss": ISSUER, "aud": [AUDIENCE], "iat": NOW.as_unix_seconds(), "jti": "j1",
        "sub_id": {"format": "complex", "device": {"format": "opaque", "id": "SN-1"}, "user": {"format": "email", "email": "ada@example.com"}},
        "events": {event: payload},
    })
}

fn risky() -> Value {
    claims(
        uri::RISK_LEVEL_CHANGE,
        json!({"principal": "DEVICE", "current_level": "HIGH", "event_timestamp": 1_799_999_000, "risk_reason": "malware"}),
    )
}

fn signed(key: &SigningKey, claims: &Value) -> String {
    let pem = key.to_pkcs8_pem().expect("it has a text form");
    sign(TokenType::SecurityEvent, "k1", &pem, claims).expect("it is signed")
}

fn verify(keys: &KeySet, token: &str) -> Result<SecurityEvent, RejectCode> {
    let verifier = Verifier {
        issuer: ISSUER,
        audience: AUDIENCE,
        keys,
        allowed: &Algorithm::ALL,
        age_seconds_max: 86_400,
    };
    verifier.verify(token, NOW).map_err(|reject| reject.code)
}

fn with_header(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(header),
        part(claims),
        URL_SAFE_NO_PAD.encode([7; 64])
    )
}

#[test]
fn a_token_of_the_issuer_is_read() {
    let key = p256();
    let read = verify(&set_of(&key), &signed(&key, &risky())).expect("it is genuine");
    assert_eq!((read.jti(), read.events().len()), ("j1", 1));
    let event = &read.events()[0];
    let expected = EventKind::RiskLevel {
        principal: Principal::Device,
        current: Level::High,
    };
    assert_eq!(
        (&event.kind, event.reason.as_deref()),
        (&expected, Some("malware"))
    );
    assert_eq!(read.time_of(event), Timestamp::from_unix_seconds(1_799_999_000));
    let subject = read.subject_of(event).expect("it is about somebody");
    assert_eq!(subject.device_names(), ["SN-1"]);
    assert_eq!(subject.user_names(), ["ada@example.com"]);
}

#[test]
fn every_algorithm_of_the_list_is_verified_and_no_key_serves_another_one() {
    let header = |alg, id: &str| Header {
        typ: Some("secevent+jwt".to_owned()),
        kid: Some(id.to_owned()),
        ..Header::new(alg)
    };
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key is made");
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("it has a form");
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let rsa_key = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("it is read");
    let public = pair.public_key();
    let big = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
    let exponent = public.exponent().big_endian_without_leading_zero().to_vec();
    let ed = SigningKey::generate_ed25519().expect("a key is made");
    let PublicKey::Ed25519(ed_public) = ed.public() else {
        panic!("it is an Ed25519 key")
    };
    let ed_pem = ed.to_pkcs8_pem().expect("it has a text form");
    let set = json!({"keys": [
        {"kty": "RSA", "kid": "r", "n": big(&modulus), "e": big(&exponent)},
        {"kty": "RSA", "kid": "ps", "alg": "PS256", "n": big(&modulus), "e": big(&exponent)},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": big(ed_public)},
        {"kty": "oct", "kid": "o", "k": "AAAA"},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": big(&modulus), "e": big(&exponent)},
    ]});
    let keys = KeySet::parse(set.to_string().as_bytes()).expect("it is a key set");
    assert_eq!(keys.len(), 3);
    let made = |alg, id: &str, key: &EncodingKey| {
        jsonwebtoken::encode(&header(alg, id), &risky(), key).expect("it is signed")
    };
    use jsonwebtoken::Algorithm as Theirs;
    let ed_key = EncodingKey::from_ed_pem(ed_pem.as_bytes()).expect("it is read");
    for good in [
        made(Theirs::RS256, "r", &rsa_key),
        made(Theirs::PS256, "r", &rsa_key),
        made(Theirs::PS256, "ps", &rsa_key),
        made(Theirs::EdDSA, "ed", &ed_key),
    ] {
        assert!(verify(&keys, &good).is_ok());
    }
    for wrong in [
        made(Theirs::RS256, "ps", &rsa_key),
        made(Theirs::RS512, "r", &rsa_key),
        made(Theirs::RS256, "enc", &rsa_key),
        made(Theirs::RS256, "ed", &rsa_key),
        made(Theirs::HS256, "r", &EncodingKey::from_secret(&modulus)),
        made(Theirs::HS256, "ed", &EncodingKey::from_secret(ed_public)),
    ] {
        assert_eq!(verify(&keys, &wrong), Err(RejectCode::InvalidKey));
    }
    // Only what is allowed is looked at.
    let narrow = Verifier {
        issuer: ISSUER,
        audience: AUDIENCE,
        keys: &keys,
        allowed: &[Algorithm::Es256],
        age_seconds_max: 86_400,
    };
    let refused = narrow.verify(&made(Theirs::RS256, "r", &rsa_key), NOW);
    assert_eq!(refused.map_err(|reject| reject.code), Err(RejectCode::InvalidKey));
}

#[test]
fn a6_headers_that_bring_a_key_or_no_signature_are_refused_before_a_claim_is_read() {
    let key = p256();
    let keys = set_of(&key);
    for header in [
        json!({"alg": "none", "typ": "secevent+jwt"}),
        json!({"alg": "None", "typ": "secevent+jwt", "kid": "k1"}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "k1", "jwk": jwk(&key, "k1")}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "k1", "jku": "https://evil.example/"}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "k1", "x5u": "https://evil.example/"}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "k1", "x5c": ["AAAA"]}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "k1", "crit": ["exp"]}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "k1", "b64": false}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "another"}),
        json!({"alg": "ES256", "typ": "secevent+jwt", "kid": "k1"}),
    ] {
        let refused = verify(&keys, &with_header(&header, &risky()));
        assert_eq!(refused, Err(RejectCode::InvalidKey), "{header}");
    }
    for header in [
        json!({"alg": "ES256", "typ": "JWT", "kid": "k1"}),
        json!({"alg": "ES256", "kid": "k1"}),
        json!({"alg": "ES256", "typ": "compliance+jwt", "kid": "k1"}),
    ] {
        let refused = verify(&keys, &with_header(&header, &risky()));
        assert_eq!(refused, Err(RejectCode::InvalidRequest), "{header}");
    }
    // r = s = 0 (CVE-2022-21449).
    let token = signed(&key, &risky());
    let (front, _) = token.rsplit_once('.').expect("it has parts");
    let zero = format!("{front}.{}", URL_SAFE_NO_PAD.encode([0; 64]));
    assert_eq!(verify(&keys, &zero), Err(RejectCode::InvalidKey));
}

#[test]
fn a8_another_issuer_audience_or_time_is_refused() {
    let key = p256();
    let keys = set_of(&key);
    let changed = |member: &str, value: Value| {
        let mut claims = risky();
        claims[member] = value;
        verify(&keys, &signed(&key, &claims))
    };
    let now = NOW.as_unix_seconds();
    assert_eq!(
        changed("iss", json!("https://edr.example.com")),
        Err(RejectCode::InvalidIssuer)
    );
    assert_eq!(
        changed("aud", json!("https://other")),
        Err(RejectCode::InvalidAudience)
    );
    assert_eq!(changed("aud", json!([])), Err(RejectCode::InvalidAudience));
    assert!(changed("aud", json!(AUDIENCE)).is_ok());
    assert_eq!(changed("iat", json!(now + 121)), Err(RejectCode::InvalidRequest));
    assert_eq!(
        changed("iat", json!(now - 86_401)),
        Err(RejectCode::InvalidRequest)
    );
    assert_eq!(changed("iat", json!("now")), Err(RejectCode::InvalidRequest));
    assert_eq!(changed("iat", json!(1e300)), Err(RejectCode::InvalidRequest));
    assert_eq!(changed("exp", json!(now + 60)), Err(RejectCode::InvalidRequest));
    assert_eq!(changed("jti", json!("")), Err(RejectCode::InvalidRequest));
    assert_eq!(changed("events", json!({})), Err(RejectCode::InvalidRequest));
    for member in ["iss", "aud", "iat", "jti", "events"] {
        let mut claims = risky();
        claims.as_object_mut().expect("an object").remove(member);
        assert_eq!(
            verify(&keys, &signed(&key, &claims)),
            Err(RejectCode::InvalidRequest),
            "{member}"
        );
    }
    // Ahead by what clocks may differ counts as now.
    let ahead = changed("iat", json!(now + 100)).expect("it is close enough");
    assert_eq!(ahead.issued_at(), NOW);
}

#[test]
fn every_event_of_caep_is_read() {
    let read =
        |event: &str, payload: Value| Event::parse(event, &payload.to_string()).map(|event| event.kind);
    assert_eq!(
        read(uri::SESSION_REVOKED, json!({})),
        Ok(EventKind::SessionRevoked)
    );
    assert_eq!(
        read(
            uri::CREDENTIAL_CHANGE,
            json!({"credential_type": "password", "change_type": "update"})
        ),
        Ok(EventKind::CredentialChange {
            credential_type: "password".to_owned(),
            change_type: "update".to_owned()
        })
    );
    assert_eq!(
        read(
            uri::DEVICE_COMPLIANCE_CHANGE,
            json!({"previous_status": "compliant", "current_status": "not-compliant"})
        ),
        Ok(EventKind::DeviceCompliance {
            current: Status::NotCompliant
        })
    );
    assert_eq!(
        read(
            uri::ASSURANCE_LEVEL_CHANGE,
            json!({"namespace": "NIST-AAL", "current_level": "nist-aal2", "change_direction": "increase"})
        ),
        Ok(EventKind::AssuranceLevel {
            namespace: "NIST-AAL".to_owned(),
            current: "nist-aal2".to_owned()
        })
    );
    assert_eq!(
        read(uri::VERIFICATION, json!({"state": "x"})),
        Ok(EventKind::Verification)
    );
    assert_eq!(
        read("https://example.com/unheard-of", json!({"a": [1]})),
        Ok(EventKind::Other("https://example.com/unheard-of".to_owned()))
    );
    for (event, payload) in [
        (uri::DEVICE_COMPLIANCE_CHANGE, json!({"current_status": "maybe"})),
        (
            uri::RISK_LEVEL_CHANGE,
            json!({"principal": "USER", "current_level": "EXTREME"}),
        ),
        (uri::CREDENTIAL_CHANGE, json!({"credential_type": "password"})),
        (uri::SESSION_REVOKED, json!(7)),
    ] {
        assert!(read(event, payload.clone()).is_err(), "{event} {payload}");
    }
    let at = |value: Value| {
        Event::parse(
            uri::SESSION_REVOKED,
            &json!({"event_timestamp": value}).to_string(),
        )
    };
    let seconds = at(json!(1_799_999_000)).expect("it is read").at;
    assert_eq!(seconds, Some(Timestamp::from_unix_seconds(1_799_999_000)));
    assert_eq!(
        at(json!(1_799_999_000_000_i64))
            .expect("milliseconds are understood")
            .at,
        seconds
    );
    assert_eq!(at(json!(-5)).expect("it is read").at, None);
    let reason = json!({"reason_admin": {"de": "Schadcode", "en": "malware"}}).to_string();
    let reason = Event::parse(uri::SESSION_REVOKED, &reason)
        .expect("it is read")
        .reason;
    assert_eq!(reason.as_deref(), Some("malware"));
}

#[test]
fn subjects_of_rfc_9493_name_devices_and_people() {
    let read = |value: Value| Subject::parse(&value.to_string()).expect("it is a subject");
    let uuid = read(json!({"format": "uri", "uri": "urn:uuid:0d4f8b1e-0000-4000-8000-000000000001"}));
    assert_eq!(uuid.device_names(), ["0d4f8b1e-0000-4000-8000-000000000001"]);
    let account = read(json!({"format": "account", "uri": "acct:ada@example.com"}));
    assert_eq!(
        (account.device_names().len(), account.user_names()),
        (0, vec!["ada@example.com"])
    );
    let person = read(json!({"format": "iss_sub", "iss": "https://idp", "sub": "ada"}));
    assert_eq!(
        (person.device_names().len(), person.user_names()),
        (0, vec!["ada"])
    );
    let aliases = read(
        json!({"format": "complex", "device": {"format": "aliases", "identifiers": [
            {"format": "opaque", "id": "SN-1"}, {"format": "phone_number", "phone_number": "+1"},
            {"format": "iss_sub", "iss": "https://edr", "sub": "agent-7"},
            {"format": "aliases", "identifiers": [{"format": "opaque", "id": "hidden"}]},
        ]}}),
    );
    assert_eq!(aliases.device_names(), ["SN-1", "agent-7"]);
    let draft = read(json!({"user": {"format": "email", "email": "ada@example.com"}}));
    assert_eq!(
        (draft.device_names().len(), draft.user_names()),
        (0, vec!["ada@example.com"])
    );
    assert_eq!(read(json!({"format": "of-tomorrow", "x": 1})), Subject::default());
    let long = read(json!({"format": "opaque", "id": "x".repeat(513)}));
    assert!(long.device_names().is_empty());
}

#[test]
fn key_sets_are_bounded_and_weak_keys_are_left_out() {
    let parse = |value: Value| KeySet::parse(value.to_string().as_bytes()).map(|set| set.len());
    let good = serde_json::to_value(jwk(&p256(), "k1")).expect("it has a text form");
    assert_eq!(parse(json!({"keys": [good]})), Ok(1));
    assert_eq!(
        parse(json!({"keys": vec![good.clone(); 65]})),
        Err(KeySetError::TooMany)
    );
    assert_eq!(
        KeySet::parse(&vec![b' '; 128 * 1024 + 1]).map(|set| set.len()),
        Err(KeySetError::TooLong)
    );
    assert_eq!(parse(json!([])), Err(KeySetError::Unreadable));
    let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
    let fine = URL_SAFE_NO_PAD.encode([0xff; 256]);
    for weak in [
        json!({"kty": "RSA", "n": short, "e": "AQAB"}),
        json!({"kty": "RSA", "n": fine, "e": "AQABAQABAQAB"}),
        json!({"kty": "RSA", "n": fine, "e": "Ag"}),
        json!({"kty": "RSA", "n": fine, "e": "AQAB", "alg": "ES256"}),
        json!({"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "oct", "k": "AAAA"}),
        json!(7),
    ] {
        assert_eq!(parse(json!({"keys": [weak]})), Err(KeySetError::NoUsableKey));
    }
    // Two keys that fit and no kid: nobody guesses.
    let (one, two) = (p256(), p256());
    let both = json!({"keys": [jwk(&one, "a"), jwk(&two, "b")]}).to_string();
    let keys = KeySet::parse(both.as_bytes()).expect("it is a key set");
    assert!(keys.find(Algorithm::Es256, None).is_none() && keys.find(Algorithm::Es256, Some("b")).is_some());
}

fn statement() -> ComplianceClaims {
    let now = NOW.as_unix_seconds();
    ComplianceClaims {
        iss: "https://mdm.example.com/signals/ten_1".to_owned(),
        sub: "dev_1".to_owned(),
        aud: "vpn".to_owned(),
        iat: now,
        exp: now + 300,
        jti: "j".to_owned(),
        tid: "ten_1".to_owned(),
        device_uuid: "u".to_owned(),
        compliant: true,
        state: "compliant".to_owned(),
        policies_sha256: "00".to_owned(),
        evaluated_at: now,
        reported_at: None,
        cnf: Confirmation {
            certificate_sha256: "thumb".to_owned(),
        },
    }
}

#[test]
fn a_compliance_token_is_for_one_audience_one_certificate_and_some_minutes() {
    let key = p256();
    let keys = set_of(&key);
    let pem = key.to_pkcs8_pem().expect("it has a text form");
    let made =
        |claims: &ComplianceClaims| sign(TokenType::Compliance, "k1", &pem, claims).expect("it is signed");
    let check = |token: &str, audience: &str, certificate: &str, later: i64| {
        let check = Check {
            keys: &keys,
            issuer: None,
            audience,
            certificate_sha256: certificate,
        };
        let now = Timestamp::from_unix_seconds(NOW.as_unix_seconds() + later);
        check.verify(token, now).map_err(|reject| reject.code)
    };
    let token = made(&statement());
    assert_eq!(check(&token, "vpn", "thumb", 0), Ok(statement()));
    assert_eq!(
        check(&token, "proxy", "thumb", 0),
        Err(RejectCode::InvalidAudience)
    );
    assert_eq!(check(&token, "vpn", "stolen", 0), Err(RejectCode::AccessDenied));
    assert_eq!(
        check(&token, "vpn", "thumb", 300),
        Err(RejectCode::InvalidRequest)
    );
    assert_eq!(
        check(&token, "vpn", "thumb", -61),
        Err(RejectCode::InvalidRequest)
    );
    let long = ComplianceClaims {
        exp: statement().iat + 601,
        ..statement()
    };
    assert_eq!(
        check(&made(&long), "vpn", "thumb", 0),
        Err(RejectCode::InvalidRequest)
    );
    // A token of another purpose by the same key.
    let event = signed(
        &key,
        &serde_json::to_value(statement()).expect("it has a text form"),
    );
    assert_eq!(check(&event, "vpn", "thumb", 0), Err(RejectCode::InvalidRequest));
    assert_eq!(verify(&keys, &token), Err(RejectCode::InvalidRequest));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let text = String::from_utf8_lossy(&bytes);
        let keys = set_of(&p256());
        let _ = verify(&keys, &text);
        let _ = KeySet::parse(&bytes);
        let _ = Subject::parse(&text);
        let _ = Event::parse(uri::RISK_LEVEL_CHANGE, &text);
    }

    #[test]
    fn signed_nonsense_and_flipped_bits_never_panic(at in any::<prop::sample::Index>(), bit in 0_u8..8, value in ".{0,80}", number in any::<f64>()) {
        let key = p256();
        let keys = set_of(&key);
        let mut claims = risky();
        claims["sub_id"] = json!(value);
        claims["iat"] = json!(number);
        let _ = verify(&keys, &signed(&key, &claims));
        let mut bytes = signed(&key, &risky()).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = verify(&keys, &text);
        }
    }
}

#[test]
fn a_token_past_the_limit_is_not_looked_at() {
    let keys = set_of(&p256());
    assert_eq!(
        verify(&keys, &"a".repeat(SET_BYTES_MAX + 1)),
        Err(RejectCode::InvalidRequest)
    );
}
