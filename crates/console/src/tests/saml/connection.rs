//! Connections of SAML: who changes them, and what they are made of.

use super::*;

#[tokio::test]
async fn a_connection_is_changed_only_by_whoever_can_do_what_its_people_can() {
    let stage = Stage::new().await;
    let all = scope::every();
    let put =
        async |scopes: &str, path: &str, body: &str| stage.scene.ask(scopes, Method::PUT, path, body).await;
    let other = Provider::new(KeyKind::P256);
    let weak = "sso:write access:read";
    // While nobody of it can do anything, whoever connects providers changes it.
    let changed = put(weak, PATH, &definition(&stage.idp, &json!({"idle_seconds": 600}))).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    stage.visit_as(|_| {}).await;
    let body = json!({"role": "owner", "person": "corp/ada@example.com"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/grants", &body)
        .await;
    // Who enters a certificate says who people are: by changing the connection, or by another of the same provider.
    let twin = "/api/v1/access/connections/twin";
    for (path, status) in [(PATH, StatusCode::FORBIDDEN), (twin, StatusCode::CONFLICT)] {
        let refused = put(weak, path, &definition(&other, &json!({}))).await;
        assert_eq!(refused.status, status, "{path}: {}", refused.body);
    }
    let refused = put(&all, twin, &definition(&other, &json!({}))).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    for (change, what) in [
        (
            json!({"entity_id": "https://evil.example"}),
            "the entity id never changes",
        ),
        (json!({"sso_url": "http://idp.example.com/sso"}), "plain HTTP"),
        (json!({"certificates": []}), "no certificate"),
        (json!({"certificates": ["AAAA"]}), "no certificate that is one"),
        (json!({"metadata": "<x/>"}), "metadata and the rest"),
        (json!({"idle_seconds": 1}), "a limit that is none"),
        (json!({"required_authn_contexts": ["a b"]}), "no URI"),
        (json!({"client_id": "c"}), "a member of another kind"),
    ] {
        let refused = put(&all, PATH, &definition(&stage.idp, &change)).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{what}: {}",
            refused.body
        );
    }
    let oidc = json!({"definition": {"issuer": IDENTITY_PROVIDER, "client_id": "c"}, "client_secret": "s"});
    let turned = put(&all, PATH, &oidc.to_string()).await;
    assert_eq!(turned.status, StatusCode::BAD_REQUEST, "{}", turned.body);
    let mut secret: Value = serde_json::from_str(&definition(&stage.idp, &json!({}))).expect("it is JSON");
    secret["client_secret"] = json!("s");
    let shared = put(&all, PATH, &secret.to_string()).await;
    assert_eq!(shared.status, StatusCode::BAD_REQUEST, "{}", shared.body);
    // The next certificate beside the one in use; then answers by either are taken, and our own keys stay.
    let before = stage
        .scene
        .get(&format!("/auth/saml/{}/metadata", stage.id))
        .await;
    let both = [&stage.idp, &other].map(|idp| STANDARD.encode(idp.certificate().der()));
    stage.change(&json!({"certificates": both})).await;
    for idp in [&stage.idp, &other] {
        let away = stage.depart("next=%2F").await;
        let message = idp.respond(&stage.answer(&away.request), Sign::Assertion);
        assert_eq!(stage.arrive(&away, &message).await.status, StatusCode::SEE_OTHER);
    }
    let after = stage
        .scene
        .get(&format!("/auth/saml/{}/metadata", stage.id))
        .await;
    assert_eq!(before.body, after.body);
    let mut anew: Value = serde_json::from_str(&definition(&stage.idp, &json!({}))).expect("it is JSON");
    anew["new_keys"] = json!(true);
    stage.scene.call(Method::PUT, PATH, &anew.to_string()).await;
    let replaced = stage
        .scene
        .get(&format!("/auth/saml/{}/metadata", stage.id))
        .await;
    assert_ne!(before.body, replaced.body);
    assert_eq!(stage.visit_as(|_| {}).await.status, StatusCode::SEE_OTHER);
    stage.scene.call(Method::DELETE, PATH, "").await;
    let gone = stage.scene.get(&format!("/auth/saml/{}/start", stage.id)).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_provider_is_connected_by_its_metadata_in_the_console() {
    let stage = Stage::new().await;
    let certificate = STANDARD.encode(stage.idp.certificate().der());
    let metadata = format!(
        "<md:EntityDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\" \
         entityID=\"https://portal.example/idp\"><md:IDPSSODescriptor WantAuthnRequestsSigned=\"true\" \
         protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:2.0:protocol\"><md:KeyDescriptor use=\"signing\"><ds:KeyInfo>\
         <ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>\
         <md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect\" \
         Location=\"https://portal.example/sso\"/></md:IDPSSODescriptor></md:EntityDescriptor>"
    );
    let mut fields = vec![
        ("kind", "saml"),
        ("name", "portal"),
        ("metadata", &metadata),
        ("must_be_signed", "both"),
        ("groups_attribute", "teams"),
        ("enabled", "yes"),
    ];
    let unsigned = stage.scene.post("/access/connections/put", &fields).await;
    assert_eq!(
        unsigned.status,
        StatusCode::BAD_REQUEST,
        "it wants signed requests: {}",
        unsigned.body
    );
    fields.push(("sign_requests", "yes"));
    let made = stage.scene.post("/access/connections/put", &fields).await;
    assert_eq!(
        made.location(),
        "/access/connections/portal?notice=connection-saved",
        "{}",
        made.body
    );
    let page = stage.scene.page("/access/connections/portal").await;
    for part in [
        "https://portal.example/idp",
        "https://portal.example/sso",
        "teams",
        "/acs</code>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // Saved again as the page has it, without a file.
    let certificates = between(&page, "name=\"certificates\"", "</textarea>");
    let certificates = certificates
        .rsplit('>')
        .next()
        .expect("there is a field")
        .to_owned();
    assert_eq!(certificates, certificate);
    let again = [
        ("kind", "saml"),
        ("name", "portal"),
        ("entity_id", "https://portal.example/idp"),
        ("sso_url", "https://portal.example/sso"),
        ("certificates", &certificates),
        ("must_be_signed", "response"),
        ("sign_requests", "yes"),
        ("session_seconds", "3600"),
    ];
    let saved = stage.scene.post("/access/connections/put", &again).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let page = stage.scene.page("/access/connections").await;
    assert!(page.contains("switched off") && page.contains("SAML"), "{page}");
    let tested = stage.scene.post("/access/connections/portal/test", &[]).await;
    for step in ["metadata", "certificates", "keys", "logout", "reach", "claims"] {
        assert!(
            tested.body.contains(&format!(">{step}</th>")),
            "{step}: {}",
            tested.body
        );
    }
    let known = stage
        .scene
        .call(Method::GET, "/api/v1/access/connections", "")
        .await;
    let portal = &known["items"][1];
    assert_eq!(
        (&portal["definition"]["session_seconds"], &portal["kind"]),
        (&json!(3600), &json!("saml"))
    );
    assert!(portal["definition"].get("metadata").is_none(), "{portal}");
    assert!(!known.to_string().contains("PRIVATE"));
}
