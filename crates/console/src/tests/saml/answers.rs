//! What a provider posts: attacks, repetitions, other browsers, too much of it.

use super::*;

#[tokio::test]
async fn a10_of_the_attacks_on_a_genuine_answer_none_signs_anybody_in() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.grant("owner", "mdm-superadmins").await;
    // The attacks change this name and this group into others. Each departure is answered once.
    let begin = async || {
        let away = stage.depart("next=%2F").await;
        let said = Said {
            name_id: "alice".to_owned(),
            ..stage.answer(&away.request)
        };
        let genuine = stage.idp.respond(&said, Sign::Both);
        (away, genuine)
    };
    let (_, genuine) = begin().await;
    let many = attacks(&genuine).len();
    assert!(many > 40, "{many}");
    for place in 0..many {
        let (away, genuine) = begin().await;
        let attack = attacks(&genuine).swap_remove(place);
        if attack.name == GENUINE {
            continue;
        }
        let answer = stage
            .post(&stage.id, &attack.message, &away.flow, &away.cookie)
            .await;
        refused(attack.name, &answer);
        // The person is told nothing that helps to search for one that passes; who looks after the connection is told the code.
        let error = stage.error().await;
        let code = between(&error, "(", ")");
        assert!(code.contains('.'), "{}: {error}", attack.name);
        assert!(!answer.body.contains(code), "{}: {}", attack.name, answer.body);
    }
    let page = stage.scene.page("/access/connections").await;
    assert!(page.contains("failing"), "{page}");
    let (away, genuine) = begin().await;
    let answer = stage.arrive(&away, &genuine).await;
    assert_eq!(
        answer.status,
        StatusCode::SEE_OTHER,
        "the genuine one does: {}",
        answer.body
    );
    assert!(answer.cookie(SESSION_COOKIE).is_some());
    assert_eq!(stage.error().await, "");
    refused("the genuine one again", &stage.arrive(&away, &genuine).await);
}

#[tokio::test]
async fn a10_an_answer_that_is_not_for_us_now_and_to_this_request_is_refused() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    type Change = Box<dyn Fn(&mut Said)>;
    let text = |change: fn(&mut Said) -> &mut String, value: &str| -> Change {
        let value = value.to_owned();
        Box::new(move |said| value.clone_into(change(said)))
    };
    let now = stage.now();
    let cases: Vec<(&str, Change)> = vec![
        (
            "response.destination",
            text(|said| &mut said.destination, "https://muster.example:8440/acs"),
        ),
        (
            "assertion.recipient",
            text(|said| &mut said.recipient, "https://other.example/acs"),
        ),
        (
            "assertion.audience",
            Box::new(|said| said.audiences = vec![SERVICE_PROVIDER.to_owned()]),
        ),
        (
            "response.issuer",
            text(|said| &mut said.issuer, "https://evil.example"),
        ),
        (
            "response.in_response_to",
            Box::new(|said| said.in_response_to = Some("_other".to_owned())),
        ),
        (
            "response.in_response_to",
            Box::new(|said| said.confirmation_in_response_to = Some("_other".to_owned())),
        ),
        (
            "response.unsolicited",
            Box::new(|said| said.in_response_to = None),
        ),
        (
            "assertion.expired",
            Box::new(move |said| said.not_on_or_after = now.minus(minutes(2))),
        ),
        (
            "assertion.expired",
            Box::new(move |said| said.confirmed_until = now.minus(minutes(2))),
        ),
        (
            "assertion.not_yet_valid",
            Box::new(move |said| said.not_before = now.plus(minutes(5))),
        ),
        (
            "response.issue_instant",
            Box::new(move |said| said.issued = now.minus(minutes(20))),
        ),
        (
            "response.issue_instant",
            Box::new(move |said| said.issued = now.plus(minutes(20))),
        ),
        (
            "assertion.session_expired",
            Box::new(move |said| said.session_not_on_or_after = Some(now.minus(minutes(2)))),
        ),
        (
            "status.responder",
            text(
                |said| &mut said.status,
                "urn:oasis:names:tc:SAML:2.0:status:Responder",
            ),
        ),
        (
            "transient",
            text(
                |said| &mut said.name_id_format,
                "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
            ),
        ),
    ];
    for (code, change) in cases {
        let answer = stage.visit_as(|said| change(said)).await;
        refused(code, &answer);
        let error = stage.error().await;
        assert!(error.contains(code), "{code}: {error}");
    }
    let other = Provider::new(KeyKind::Rsa);
    type Make<'a> = Box<dyn Fn(&Said) -> String + 'a>;
    let made: Vec<(&str, Make<'_>)> = vec![
        (
            "signature.assertion_missing",
            Box::new(|said| stage.idp.respond(said, Sign::Nothing)),
        ),
        (
            "signature.assertion_missing",
            Box::new(|said| stage.idp.respond(said, Sign::Response)),
        ),
        (
            "signature.invalid",
            Box::new(|said| other.respond(said, Sign::Assertion)),
        ),
        ("xml.not_well_formed", Box::new(|_| String::new())),
        ("xml.not_well_formed", Box::new(|_| "x".repeat(1000))),
        ("xml.too_large", Box::new(|_| " ".repeat(300_000))),
    ];
    for (code, make) in made {
        let away = stage.depart("next=%2F").await;
        let message = make(&stage.answer(&away.request));
        refused(code, &stage.arrive(&away, &message).await);
        let error = stage.error().await;
        assert!(error.contains(code), "{code}: {error}");
        let honest = stage.signed(&stage.answer(&away.request));
        refused("a second answer", &stage.arrive(&away, &honest).await);
        assert!(stage.error().await.contains("used before"));
    }
    let test = stage.scene.call(Method::POST, &format!("{PATH}/test"), "").await;
    let claims = test["items"].as_array().expect("it is a list").last().cloned();
    let claims = claims.expect("there are steps");
    assert_eq!(
        (&claims["step"], &claims["outcome"]),
        (&json!("claims"), &json!("failed"))
    );
    let honest = stage.visit_as(|_| {}).await;
    assert_eq!(honest.status, StatusCode::SEE_OTHER, "{}", honest.body);
}

#[tokio::test]
async fn a10_an_answer_counts_once_and_in_the_browser_that_asked() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let away = stage.depart("next=%2F").await;
    let message = stage.signed(&stage.answer(&away.request));
    let post = async |relay_state: &str, cookie: &str| {
        stage
            .post(&stage.id, message.as_bytes(), relay_state, cookie)
            .await
    };
    refused("another browser", &post(&away.flow, "").await);
    refused("no relay state", &post("", &away.cookie).await);
    refused("an address", &post("https://evil.example/", &away.cookie).await);
    let thief = stage.depart("next=%2F").await;
    refused(
        "the cookie of another way",
        &post(&away.flow, &thief.cookie).await,
    );
    refused(
        "an answer to another request",
        &post(&thief.flow, &thief.cookie).await,
    );
    // A cookie under another name opens nothing: it is sealed for its own.
    let (_, value) = away.cookie.split_once('=').expect("it has a value");
    let renamed = format!("{FLOW_COOKIE_PREFIX}{}={value}", thief.flow);
    refused("a renamed cookie", &post(&thief.flow, &renamed).await);
    let bent = away.cookie.replace(value, &value[..value.len() - 2]);
    refused("a bent cookie", &post(&away.flow, &bent).await);

    let taken = stage.arrive(&away, &message).await;
    assert_eq!(
        (taken.status, taken.location()),
        (StatusCode::SEE_OTHER, "/"),
        "{}",
        taken.body
    );
    assert_eq!(
        taken
            .cookie(&format!("{FLOW_COOKIE_PREFIX}{}", away.flow))
            .as_deref(),
        Some(""),
        "the cookie is taken away"
    );
    refused("twice", &stage.arrive(&away, &message).await);
    assert!(stage.error().await.contains("used before"));
    let second = stage.signed(&stage.answer(&away.request));
    refused(
        "a second answer to one request",
        &stage.arrive(&away, &second).await,
    );
    // The same assertion in an answer to another request, which only a broken provider makes.
    let again = stage.depart("next=%2F").await;
    let said = Said {
        assertion_id: "_a1".to_owned(),
        ..stage.answer(&again.request)
    };
    refused(
        "an assertion that was used",
        &stage.arrive(&again, &stage.signed(&said)).await,
    );

    let late = stage.depart("next=%2F").await;
    stage.scene.pass_seconds(601);
    let message = stage.signed(&stage.answer(&late.request));
    refused("too late", &stage.arrive(&late, &message).await);
    // Nobody is sent to another site.
    for next in [
        "%2F%2Fevil.example",
        "https%3A%2F%2Fevil.example",
        "%2F%5Cevil.example",
    ] {
        let away = stage.depart(&format!("next={next}")).await;
        assert!(
            away.location
                .starts_with("https://idp.example.com/sso?tenant=1&SAMLRequest=")
        );
        let message = stage.signed(&stage.answer(&away.request));
        assert_eq!(stage.arrive(&away, &message).await.location(), "/", "{next}");
    }
}

#[tokio::test]
async fn what_strangers_post_is_bounded() {
    let stage = Stage::new().await;
    let away = stage.depart("next=%2F").await;
    let path = format!("/auth/saml/{}/acs", stage.id);
    let send = async |body: &str| {
        let headers = [FOREIGN, ("cookie", away.cookie.as_str())];
        stage.scene.send(Method::POST, &path, &headers, body).await
    };
    let huge = format!("SAMLResponse={}", "A".repeat(1024 * 1024));
    assert_eq!(send(&huge).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for body in [
        "",
        "RelayState=x",
        "SAMLResponse=QQ&SAMLResponse=QQ",
        "SAMLResponse=%",
    ] {
        let answer = send(body).await;
        assert!(
            matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN),
            "{body}: {}",
            answer.body
        );
    }
    // Other forms of other sites are refused as ever.
    let foreign = stage
        .scene
        .send(Method::POST, "/signin", &[FOREIGN], "secret=x")
        .await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    let garbage = format!("SAMLResponse=QQ%3D%3D&RelayState={}", away.flow);
    let mut last = StatusCode::OK;
    for _ in 0..2000 {
        last = send(&garbage).await.status;
        if last == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_assertion_is_encrypted_for_the_key_in_our_metadata() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let path = format!("/auth/saml/{}/metadata", stage.id);
    let metadata = stage.scene.send(Method::GET, &path, &[], "").await;
    assert_eq!(metadata.headers["content-type"], "application/samlmetadata+xml");
    let text = &metadata.body;
    for part in [
        stage.address("metadata"),
        stage.address("acs"),
        stage.address("slo"),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    assert!(
        !text.contains("PRIVATE") && text.contains("AuthnRequestsSigned=\"true\""),
        "{text}"
    );
    let (_, rest) = text
        .split_once("use=\"encryption\"")
        .expect("there is a key for it");
    let certificate = between(rest, "<ds:X509Certificate>", "</ds:X509Certificate>");
    let certificate = Certificate::from_text(certificate).expect("it is a certificate");
    for (sign, must_be_encrypted) in [(Sign::Assertion, false), (Sign::Both, true)] {
        stage
            .change(&json!({"must_be_encrypted": must_be_encrypted}))
            .await;
        let away = stage.depart("next=%2F").await;
        let message = stage
            .idp
            .respond_encrypted(&stage.answer(&away.request), sign, &certificate);
        assert!(!message.contains("ada@example.com"));
        let answer = stage.arrive(&away, &message).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    }
    refused("in the clear", &stage.visit_as(|_| {}).await);
    assert!(stage.error().await.contains("encryption.missing"));
    // For another key, and encrypted without a signature.
    let (_, other) = muster_saml::testing::decryption_pair();
    for (sign, recipient) in [(Sign::Assertion, &other), (Sign::Nothing, &certificate)] {
        let away = stage.depart("next=%2F").await;
        let message = stage
            .idp
            .respond_encrypted(&stage.answer(&away.request), sign, recipient);
        refused(
            "another key, or no signature",
            &stage.arrive(&away, &message).await,
        );
    }
}
