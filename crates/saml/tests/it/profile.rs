//! What is asked of a response beside its signature: each of it bent, one at a time.

use std::time::Duration;

use muster_saml::testing::{Answer, KeyKind, Provider, Sign};
use muster_saml::{Expected, Identity, IdentityProvider, MustBeSigned, Profile, Reject, Verifier};

use crate::peers::NOW;

const REQUEST: &str = "_request";

struct Bench {
    provider: Provider,
    known: IdentityProvider,
}

impl Bench {
    fn new() -> Self {
        let provider = Provider::new(KeyKind::P256);
        let known = provider.known();
        Self { provider, known }
    }

    fn verify(&self, profile: &Profile, expected: Expected<'_>, message: &str) -> Result<Identity, Reject> {
        let here = Provider::service_provider();
        Verifier::new(&here, &self.known, profile)?.document(message.as_bytes(), expected, NOW)
    }

    /// Signs an answer that was bent, and returns the verdict.
    fn bent(&self, bend: impl FnOnce(&mut Answer)) -> Result<Identity, Reject> {
        let mut answer = Answer::to(REQUEST, NOW);
        bend(&mut answer);
        let message = self.provider.respond(&answer, Sign::Both);
        self.verify(&Profile::usual(), Expected::AnswerTo(REQUEST), &message)
    }

    #[track_caller]
    fn check(&self, expected: Reject, bend: impl FnOnce(&mut Answer)) {
        assert_eq!(self.bent(bend).map(|_| ()), Err(expected));
    }
}

#[test]
fn a10_an_answer_that_is_not_for_us_not_now_or_not_to_this_request_is_refused() {
    let bench = Bench::new();
    let other = || "https://other.example.com/".to_owned();
    let ago = |seconds| NOW.minus(Duration::from_secs(seconds));
    let then = |seconds| NOW.plus(Duration::from_secs(seconds));
    assert!(bench.bent(|_| {}).is_ok());

    bench.check(Reject::Version, |answer| answer.version = "1.1".to_owned());
    bench.check(Reject::Issuer, |answer| answer.issuer = other());
    bench.check(Reject::Destination, |answer| answer.destination = other());
    bench.check(Reject::Recipient, |answer| answer.recipient = other());
    bench.check(Reject::Audience, |answer| answer.audiences = vec![other()]);
    bench.check(Reject::Audience, |answer| answer.audiences = Vec::new());
    bench.check(Reject::InResponseTo, |answer| {
        answer.in_response_to = Some(other())
    });
    bench.check(Reject::Unsolicited, |answer| answer.in_response_to = None);
    bench.check(Reject::InResponseTo, |answer| {
        answer.confirmation_in_response_to = Some(other());
    });
    bench.check(Reject::Unsolicited, |answer| {
        answer.confirmation_in_response_to = None
    });
    bench.check(Reject::Confirmation, |answer| {
        answer.confirmation_method = "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches".to_owned();
    });

    bench.check(Reject::NotYetValid, |answer| answer.not_before = then(61));
    assert!(bench.bent(|answer| answer.not_before = then(60)).is_ok());
    bench.check(Reject::Expired, |answer| answer.not_on_or_after = ago(60));
    assert!(bench.bent(|answer| answer.not_on_or_after = ago(59)).is_ok());
    bench.check(Reject::Expired, |answer| answer.confirmed_until = ago(60));
    bench.check(Reject::IssueInstant, |answer| answer.issued = ago(360));
    bench.check(Reject::IssueInstant, |answer| answer.issued = then(61));
    assert!(bench.bent(|answer| answer.issued = ago(359)).is_ok());
    bench.check(Reject::IssueInstant, |answer| answer.authn_instant = then(61));
    bench.check(Reject::SessionExpired, |answer| {
        answer.session_not_on_or_after = Some(ago(60));
    });

    bench.check(Reject::SubjectMissing, |answer| answer.name_id = " ".to_owned());
    bench.check(Reject::SubjectMissing, |answer| {
        answer.name_id = "a&#9;b".to_owned()
    });
    bench.check(Reject::ValueTooLong, |answer| answer.name_id = "a".repeat(5000));
    bench.check(Reject::UnexpectedElement, |answer| {
        answer.name_id = "alice<saml:NameID>root</saml:NameID>".to_owned();
    });
    bench.check(Reject::ConditionsMissing, |answer| {
        answer.conditions = "<saml:Condition/>".to_owned();
    });
    bench.check(Reject::Audience, |answer| {
        answer.conditions =
            "<saml:AudienceRestriction><saml:Audience>x</saml:Audience></saml:AudienceRestriction>"
                .to_owned();
    });
    bench.check(Reject::AttributesMany, |answer| {
        answer.attributes = vec![("a".to_owned(), Vec::new()), ("a".to_owned(), Vec::new())];
    });
    bench.check(Reject::AttributesMany, |answer| {
        answer.attributes = (0..129).map(|index| (format!("a{index}"), Vec::new())).collect();
    });
}

#[test]
fn a_status_that_is_not_success_is_told_by_its_code() {
    let bench = Bench::new();
    let status = |name: &str| format!("urn:oasis:names:tc:SAML:2.0:status:{name}");
    bench.check(Reject::StatusRequester, |answer| {
        answer.status = status("Requester")
    });
    bench.check(Reject::StatusResponder, |answer| {
        answer.status = status("Responder")
    });
    bench.check(Reject::StatusVersion, |answer| {
        answer.status = status("VersionMismatch")
    });
    bench.check(Reject::StatusOther, |answer| {
        answer.status = status("PartialLogout")
    });
    // A failure carries no assertion and no signature, and is told all the same.
    let message = bench.provider.respond(&Answer::to(REQUEST, NOW), Sign::Nothing);
    let start = message.find("<saml:Assertion").expect("there is one");
    let failure =
        format!("{}</samlp:Response>", &message[..start]).replace("status:Success", "status:Responder");
    let verdict = bench.verify(&Profile::usual(), Expected::AnswerTo(REQUEST), &failure);
    assert_eq!(verdict.map(|_| ()), Err(Reject::StatusResponder));
    let nothing = failure.replace("status:Responder", "status:Success");
    let verdict = bench.verify(&Profile::usual(), Expected::AnswerTo(REQUEST), &nothing);
    assert_eq!(verdict.map(|_| ()), Err(Reject::AssertionMissing));
}

#[test]
fn everything_that_a_sign_in_needs_is_told() {
    let bench = Bench::new();
    let answer = Answer {
        conditions: "<saml:OneTimeUse/><saml:ProxyRestriction Count=\"0\"/>".to_owned(),
        ..Answer::to(REQUEST, NOW)
    };
    let message = bench.provider.respond(&answer, Sign::Assertion);
    let profile = Profile {
        groups_attribute: Some("groups".to_owned()),
        ..Profile::usual()
    };
    let identity = bench
        .verify(&profile, Expected::AnswerTo(REQUEST), &message)
        .expect("the answer is right");
    assert_eq!(identity.issuer, "https://idp.example.com/saml");
    assert_eq!(identity.name_id.value, "alice");
    assert_eq!(
        identity.name_id.format,
        "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
    );
    assert_eq!(
        identity.name_id.sp_name_qualifier.as_deref(),
        Some("https://mdm.example.com/saml/metadata")
    );
    assert_eq!(identity.session_index.as_deref(), Some("_session"));
    assert_eq!(identity.session_not_on_or_after, answer.session_not_on_or_after);
    assert_eq!(identity.values("email"), ["alice@example.com"]);
    assert!(identity.values("Email").is_empty());
    assert_eq!(identity.groups, ["mdm-admins", "tenant:finance"]);
    assert_eq!(identity.authn_context, answer.authn_context);
    assert_eq!(identity.authn_instant, NOW);
    assert_eq!(identity.in_response_to.as_deref(), Some(REQUEST));
    assert_eq!(identity.assertion_id, "_assertion");
    assert!(identity.is_one_time);
    assert_eq!(identity.not_on_or_after, answer.not_on_or_after);
    assert_eq!(identity.replay_until, NOW.plus(Duration::from_secs(360)));
}

#[test]
fn who_keeps_an_assertion_until_it_is_told_takes_it_once() {
    let bench = Bench::new();
    let answer = Answer {
        not_on_or_after: NOW.plus(Duration::from_secs(86_400)),
        confirmed_until: NOW.plus(Duration::from_secs(86_400)),
        ..Answer::to(REQUEST, NOW)
    };
    let message = bench.provider.respond(&answer, Sign::Assertion);
    let (here, profile) = (Provider::service_provider(), Profile::usual());
    let verifier = Verifier::new(&here, &bench.known, &profile).expect("the profile is usable");
    let at = |now| verifier.document(message.as_bytes(), Expected::AnswerTo(REQUEST), now);
    let until = at(NOW).expect("the answer is right").replay_until;
    assert!(at(until.minus(Duration::from_secs(1))).is_ok());
    assert_eq!(at(until).map(|_| ()), Err(Reject::IssueInstant));
}

#[test]
fn sign_in_that_began_elsewhere_is_taken_where_it_is_expected_alone() {
    let bench = Bench::new();
    let unsolicited = Answer {
        in_response_to: None,
        confirmation_in_response_to: None,
        ..Answer::to(REQUEST, NOW)
    };
    let message = bench.provider.respond(&unsolicited, Sign::Assertion);
    let profile = Profile::usual();
    let verdict = bench.verify(&profile, Expected::Unsolicited, &message);
    assert_eq!(verdict.map(|identity| identity.in_response_to), Ok(None));
    let answer = bench.provider.respond(&Answer::to(REQUEST, NOW), Sign::Assertion);
    let verdict = bench.verify(&profile, Expected::Unsolicited, &answer);
    assert_eq!(verdict.map(|_| ()), Err(Reject::InResponseTo));
}

#[test]
fn what_has_to_be_signed_is_signed() {
    let bench = Bench::new();
    let verdict = |must_be_signed, sign| {
        let profile = Profile {
            must_be_signed,
            ..Profile::usual()
        };
        let message = bench.provider.respond(&Answer::to(REQUEST, NOW), sign);
        bench
            .verify(&profile, Expected::AnswerTo(REQUEST), &message)
            .map(|_| ())
    };
    use MustBeSigned::{Assertion, Both, Response};
    let (no_response, no_assertion) = (Err(Reject::ResponseUnsigned), Err(Reject::AssertionUnsigned));
    let table = [
        (Assertion, Sign::Nothing, no_assertion),
        (Assertion, Sign::Assertion, Ok(())),
        (Assertion, Sign::Response, no_assertion),
        (Assertion, Sign::Both, Ok(())),
        (Response, Sign::Nothing, no_response),
        (Response, Sign::Assertion, no_response),
        (Response, Sign::Response, Ok(())),
        (Response, Sign::Both, Ok(())),
        (Both, Sign::Nothing, no_response),
        (Both, Sign::Assertion, no_response),
        (Both, Sign::Response, no_assertion),
        (Both, Sign::Both, Ok(())),
    ];
    for (must_be_signed, sign, expected) in table {
        assert_eq!(
            verdict(must_be_signed, sign),
            expected,
            "{must_be_signed:?} {sign:?}"
        );
    }
}

#[test]
fn another_method_of_signing_in_than_was_asked_for_is_refused() {
    let bench = Bench::new();
    let message = bench.provider.respond(&Answer::to(REQUEST, NOW), Sign::Assertion);
    let asked = |context: &str| Profile {
        authn_contexts: vec![context.to_owned()],
        ..Profile::usual()
    };
    let verdict = |profile: &Profile| {
        bench
            .verify(profile, Expected::AnswerTo(REQUEST), &message)
            .map(|_| ())
    };
    let password = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport";
    assert_eq!(verdict(&asked(password)), Ok(()));
    let mfa = "https://refeds.org/profile/mfa";
    assert_eq!(verdict(&asked(mfa)), Err(Reject::AuthnContext));
}

#[test]
fn a_profile_that_allows_too_much_is_refused() {
    let bench = Bench::new();
    let message = bench.provider.respond(&Answer::to(REQUEST, NOW), Sign::Assertion);
    let skewed = Profile {
        skew_seconds: 301,
        ..Profile::usual()
    };
    let old = Profile {
        age_seconds_max: 3601,
        ..Profile::usual()
    };
    // There is no key that anything could be encrypted for.
    let encrypted = Profile {
        must_be_encrypted: true,
        ..Profile::usual()
    };
    for profile in [skewed, old, encrypted] {
        let verdict = bench.verify(&profile, Expected::AnswerTo(REQUEST), &message);
        assert_eq!(verdict.map(|_| ()), Err(Reject::Setting), "{profile:?}");
    }
}

#[test]
fn fields_of_forms_are_base64_within_a_limit() {
    let bench = Bench::new();
    let (here, profile) = (Provider::service_provider(), Profile::usual());
    let verifier = Verifier::new(&here, &bench.known, &profile).expect("the profile is usable");
    let verdict = |field: &str| {
        verifier
            .response(field, Expected::AnswerTo(REQUEST), NOW)
            .map(|_| ())
    };
    assert_eq!(verdict("?"), Err(Reject::Encoding));
    assert_eq!(verdict(""), Err(Reject::NotWellFormed));
    assert_eq!(
        verdict(&"A".repeat(muster_saml::MESSAGE_BYTES_MAX + 4)),
        Err(Reject::TooLarge)
    );
    assert_eq!(verdict("PGEv\r\n Pg=="), Err(Reject::NotAResponse));
}
