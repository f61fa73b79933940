//! Who comes in, into which tenant, and what they prove again.

use super::*;

#[tokio::test]
async fn what_a_person_may_do_follows_from_their_groups() {
    let mut stage = Stage::new().await;
    let session = std::mem::take(&mut stage.scene.cookie);
    let page = stage
        .scene
        .send(Method::GET, "/signin?next=/devices", &[], "")
        .await;
    assert!(page.body.contains("Sign in with corp"), "{}", page.body);
    let answer = stage.visit_as(|_| {}).await;
    refused("nobody gave the group a role", &answer);
    assert!(
        answer.body.contains("mdm-admins") && answer.body.contains("corp/ada@example.com"),
        "{}",
        answer.body
    );
    stage.grant("helpdesk", "mdm-admins").await;
    stage.sign_in().await;
    assert!(stage.scene.page("/devices").await.contains("Ada Lovelace"));
    let me = stage.scene.page("/access/me").await;
    assert!(
        me.contains("helpdesk") && me.contains("mdm-admins") && me.contains("corp/ada@example.com"),
        "{me}"
    );
    // The same person comes again, and another of the same address is somebody else.
    stage.sign_in().await;
    let other = stage
        .visit_as(|said| {
            said.name_id = "0002".to_owned();
            said.attributes.pop();
        })
        .await;
    assert!(other.body.contains("corp/ada@example.com (2)"), "{}", other.body);
    let body = json!({"person": "corp/ada@example.com"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/people/disable", &body)
        .await;
    assert!(!stage.is_in().await);
    let disabled = stage.visit_as(|_| {}).await;
    refused("disabled", &disabled);
    assert!(disabled.body.contains("is disabled here"), "{}", disabled.body);
    // The connection works, and its page says so.
    stage.scene.cookie = session;
    let page = stage.scene.page("/access/connections/corp").await;
    assert!(
        page.contains("works") && page.contains(&stage.address("acs")),
        "{page}"
    );
}

#[tokio::test]
async fn a_browser_keeps_few_ways_that_it_never_ended() {
    let mut stage = Stage::new().await;
    let mut kept = Vec::new();
    for _ in 0..6 {
        kept.push(stage.depart("next=%2F").await.cookie);
    }
    stage.scene.cookie = kept.join("; ");
    let path = format!("/auth/saml/{}/start", stage.id);
    let answer = stage.scene.get(&path).await;
    let set: Vec<&str> = answer
        .headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    let gone = set.iter().filter(|line| line.ends_with("Max-Age=0")).count();
    assert_eq!((set.len(), gone), (4, 3), "{set:?}");
    let (oldest, _) = kept[0].split_once('=').expect("it has a value");
    assert!(set[0].starts_with(oldest), "{set:?}");
}

#[tokio::test]
async fn a_sign_in_that_begins_at_the_provider_is_refused_unless_it_was_allowed() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let unasked = |change: &dyn Fn(&mut Said)| {
        let mut said = Said {
            in_response_to: None,
            confirmation_in_response_to: None,
            ..stage.answer("_none")
        };
        change(&mut said);
        stage.signed(&said)
    };
    let message = unasked(&|_| {});
    refused("off", &stage.post(&stage.id, message.as_bytes(), "", "").await);
    stage.change(&json!({"allow_idp_initiated": true})).await;
    let answer = stage
        .post(&stage.id, message.as_bytes(), "https://evil.example/", "")
        .await;
    assert_eq!(
        (answer.status, answer.location()),
        (StatusCode::SEE_OTHER, "/"),
        "{}",
        answer.body
    );
    assert!(answer.cookie(SESSION_COOKIE).is_some());
    refused("twice", &stage.post(&stage.id, message.as_bytes(), "", "").await);
    let stolen = unasked(&|said| said.in_response_to = Some("_of_another_browser".to_owned()));
    refused(
        "an answer to a request",
        &stage.post(&stage.id, stolen.as_bytes(), "", "").await,
    );
    let old = unasked(&|said| said.issued = said.issued.minus(Duration::from_secs(900)));
    refused("old", &stage.post(&stage.id, old.as_bytes(), "", "").await);
}

#[tokio::test]
async fn t1_a_connection_of_one_tenant_signs_nobody_into_another() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let ((other, client), cookie) = stage.scene.second_tenant().await;
    let body = definition(&stage.idp, &json!({}));
    let made = stage
        .scene
        .call_in((other, client), Method::PUT, PATH, &body)
        .await;
    let theirs = made["id"].as_str().expect("it has an id").to_owned();
    // An answer to a request of one connection, brought to the other: with either cookie.
    let away = stage.depart("next=%2F").await;
    let message = stage.signed(&stage.answer(&away.request));
    let crossed = stage
        .post(&theirs, message.as_bytes(), &away.flow, &away.cookie)
        .await;
    refused("the cookie of another connection", &crossed);
    let there = stage.depart_to(&theirs, "next=%2F").await;
    let message = stage.signed(&stage.answer(&there.request));
    let crossed = stage
        .post(&theirs, message.as_bytes(), &there.flow, &there.cookie)
        .await;
    refused("an assertion for another connection", &crossed);
    // Who is known to one tenant is nobody in the other.
    stage.sign_in().await;
    let said = Said {
        destination: stage.address("acs").replace(&stage.id, &theirs),
        recipient: stage.address("acs").replace(&stage.id, &theirs),
        audiences: vec![stage.address("metadata").replace(&stage.id, &theirs)],
        ..stage.answer(&there.request)
    };
    let answer = stage
        .post(
            &theirs,
            stage.signed(&said).as_bytes(),
            &there.flow,
            &there.cookie,
        )
        .await;
    refused("no role there", &answer);
    let own = std::mem::replace(&mut stage.scene.cookie, cookie);
    let page = stage.scene.page("/access/connections").await;
    assert!(!page.contains(&stage.id), "{page}");
    let gone = stage
        .scene
        .get(&format!("/access/connections/{}", stage.id))
        .await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    stage.scene.cookie = own;
}

#[tokio::test]
async fn a15_the_provider_is_asked_again_before_what_is_destructive() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let device = stage.scene.device("S-1").await.id;
    let name = stage.scene.name(device).await;
    let retire = format!("/devices/{device}/retire");
    let yesterday = stage.now().minus(Duration::from_secs(86_400));
    let answer = stage.visit_as(|said| said.authn_instant = yesterday).await;
    let value = answer.cookie(SESSION_COOKIE).expect("a session begins");
    stage.scene.cookie = format!("{SESSION_COOKIE}={value}");
    let asked = stage.scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED, "{}", asked.body);
    let page = stage.scene.page("/step-up?next=/devices").await;
    let way = format!("/auth/saml/{}/start?next=%2Fdevices", stage.id);
    assert!(
        page.contains(&way) && !page.contains("With a new sign-in link"),
        "{page}"
    );
    let proof = async |stage: &Stage, change: &dyn Fn(&mut Said)| {
        let away = stage.depart("purpose=step-up&next=%2Fdevices").await;
        assert!(message_of(&away.location, "SAMLRequest").contains("ForceAuthn=\"true\""));
        let mut said = stage.answer(&away.request);
        change(&mut said);
        stage.arrive(&away, &stage.signed(&said)).await
    };
    refused(
        "not asked anew",
        &proof(&stage, &|said| said.authn_instant = yesterday).await,
    );
    assert!(stage.error().await.contains("ForceAuthn"));
    let other = proof(&stage, &|said| said.name_id = "0002".to_owned()).await;
    assert!(other.body.contains("somebody else"), "{}", other.body);
    let proven = proof(&stage, &|_| {}).await;
    assert_eq!(proven.location(), "/devices?notice=proven", "{}", proven.body);
    assert!(
        proven.cookie(SESSION_COOKIE).is_none(),
        "it is the session that there was"
    );
    let done = stage.scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
    // A proof for a session that ended meanwhile proves nothing.
    let away = stage.depart("purpose=step-up&next=%2Fdevices").await;
    stage.scene.post("/signout", &[]).await;
    let message = stage.signed(&stage.answer(&away.request));
    refused("the session is over", &stage.arrive(&away, &message).await);
}
