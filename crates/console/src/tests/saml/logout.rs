//! The end of sessions, in both directions.

use super::*;

/// A request of the provider's to end sessions.
pub fn logout_request(stage: &Stage, id: &str, name_id: &str, session: Option<&str>) -> String {
    let session = session.map_or(String::new(), |index| {
        format!("<samlp:SessionIndex>{index}</samlp:SessionIndex>")
    });
    format!(
        "<samlp:LogoutRequest xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" \
         xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"{id}\" Version=\"2.0\" IssueInstant=\"{}\" \
         Destination=\"{}\"><saml:Issuer>{IDENTITY_PROVIDER}</saml:Issuer>\
         <saml:NameID Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:persistent\" SPNameQualifier=\"{SERVICE_PROVIDER}\">{name_id}\
         </saml:NameID>{session}</samlp:LogoutRequest>",
        stage.now(),
        stage.address("slo"),
    )
}

#[tokio::test]
async fn a13_a_logout_at_the_provider_ends_the_sessions_that_it_names() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.sign_in().await;
    let slo = format!("/auth/saml/{}/slo", stage.id);
    let ask = async |stage: &Stage, query: &str| {
        stage
            .scene
            .send(Method::GET, &format!("{slo}?{query}"), &[FOREIGN], "")
            .await
    };
    let other = Provider::new(KeyKind::Rsa);
    let request = |stage: &Stage, id: &str| logout_request(stage, id, "0001", Some("_session"));
    let forged = other.query("SAMLRequest", &request(&stage, "_l0"), None);
    let genuine = stage
        .idp
        .query("SAMLRequest", &request(&stage, "_l1"), Some("back"));
    let unsigned = genuine
        .split("&SigAlg")
        .next()
        .expect("it has a message")
        .to_owned();
    let bent = genuine.replace("RelayState=back", "RelayState=away");
    for query in ["", "SAMLRequest=x", &forged, &unsigned, &bent] {
        let answer = ask(&stage, query).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}: {}", answer.body);
        assert!(stage.is_in().await, "{query}");
    }
    // Somebody else, or another session of theirs.
    for (id, name, session) in [("_l2", "0002", "_session"), ("_l3", "0001", "_other")] {
        let message = logout_request(&stage, id, name, Some(session));
        let answer = ask(&stage, &stage.idp.query("SAMLRequest", &message, None)).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        assert!(stage.is_in().await, "{id}");
    }
    let answer = ask(&stage, &genuine).await;
    let location = answer.location();
    assert!(
        location.starts_with("https://idp.example.com/slo?SAMLResponse="),
        "{}",
        answer.body
    );
    assert!(location.contains("RelayState=back") && location.contains("&Signature="));
    assert!(message_of(location, "SAMLResponse").contains("InResponseTo=\"_l1\""));
    assert!(!stage.is_in().await, "the session is over");
    stage.sign_in().await;
    assert_eq!(
        ask(&stage, &genuine).await.status,
        StatusCode::BAD_REQUEST,
        "it counts once"
    );
    assert!(stage.is_in().await);
    // Without a session all of the person's end; an old request ends none.
    let all = stage
        .idp
        .query("SAMLRequest", &logout_request(&stage, "_l4", "0001", None), None);
    stage.scene.pass_seconds(400);
    assert_eq!(
        ask(&stage, &all).await.status,
        StatusCode::BAD_REQUEST,
        "it is old"
    );
    let all = logout_request(&stage, "_l5", "0001", None);
    ask(&stage, &stage.idp.query("SAMLRequest", &all, None)).await;
    assert!(!stage.is_in().await);
}

#[tokio::test]
async fn whoever_signs_out_here_can_sign_out_there() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.sign_in().await;
    let out = stage.scene.post("/signout", &[]).await;
    let kept = out
        .cookie(FAREWELL_COOKIE)
        .expect("the browser can still say who it was");
    let page = stage.scene.send(Method::GET, out.location(), &[], "").await;
    let way = format!("/auth/saml/{}/logout", stage.id);
    assert!(page.body.contains(&way), "{}", page.body);
    let stranger = stage.scene.send(Method::GET, &way, &[], "").await;
    assert_eq!(stranger.status, StatusCode::BAD_REQUEST, "{}", stranger.body);
    let cookie = format!("{FAREWELL_COOKIE}={kept}");
    let asked = stage
        .scene
        .send(Method::GET, &way, &[("cookie", &cookie)], "")
        .await;
    let message = message_of(asked.location(), "SAMLRequest");
    assert!(
        asked.location().starts_with("https://idp.example.com/slo?")
            && asked.location().contains("&Signature="),
        "{}",
        asked.body
    );
    assert!(
        message.contains(">0001<") && message.contains(">_session<"),
        "{message}"
    );
    let id = between(&message, " ID=\"", "\"").to_owned();
    let answer = |to: &str| {
        let message = format!(
            "<samlp:LogoutResponse xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" \
             xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_r\" Version=\"2.0\" IssueInstant=\"{}\" \
             Destination=\"{}\" InResponseTo=\"{to}\"><saml:Issuer>{IDENTITY_PROVIDER}</saml:Issuer><samlp:Status>\
             <samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"/></samlp:Status></samlp:LogoutResponse>",
            stage.now(),
            stage.address("slo"),
        );
        stage.idp.query("SAMLResponse", &message, None)
    };
    let kept = asked.cookie(FAREWELL_COOKIE).expect("the request is remembered");
    let cookie = format!("{FAREWELL_COOKIE}={kept}");
    let back = async |to: &str, cookie: &str| {
        let path = format!("/auth/saml/{}/slo?{}", stage.id, answer(to));
        stage
            .scene
            .send(Method::GET, &path, &[("cookie", cookie)], "")
            .await
    };
    assert_eq!(back("_other", &cookie).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(back(&id, "").await.status, StatusCode::BAD_REQUEST);
    let done = back(&id, &cookie).await;
    assert_eq!(done.location(), "/signin?left=everywhere", "{}", done.body);
    let page = stage.scene.send(Method::GET, done.location(), &[], "").await;
    assert!(
        page.body.contains("here and at your identity provider"),
        "{}",
        page.body
    );
}
