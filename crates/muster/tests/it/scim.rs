//! SCIM: the conformance suite, what Entra ID and Okta send, versions and bulk, tenants and connectors, hostile bodies.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{
    api::{Api, answer},
    database::each_database,
    objects::python_tool,
    scim::{ENTERPRISE, PATCH, Provider, path_of, refused, user},
    server::{Options, Server, assert_healthy, create_tenant, program},
};

async fn conforms(options: Options) {
    let Some(scim2) = python_tool("scim2") else { return };
    let server = Server::start(options.with("--scim-requests-per-second", 1000)).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "suite").await;
    let mut command = program(&scim2);
    command
        .args(["--url", &format!("{}/scim/v2", api.origin), "test"])
        .env(
            "SCIM_CLI_HEADERS",
            format!("Authorization: Bearer {}", provider.secret),
        )
        .env("SSL_CERT_FILE", &server.admin.ca_file);
    let output = command.output().await.expect("the suite runs");
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let count = |word: &str| {
        told.lines()
            .filter(|line| line.trim_start().starts_with(word))
            .count()
    };
    println!("{told}");
    assert!(output.status.success(), "{told}");
    assert!(count("SUCCESS") > 100, "the suite ran: {told}");
    assert_eq!(
        (count("ERROR"), count("CRITICAL"), count("COMPLIANT")),
        (0, 0, 0),
        "{told}"
    );
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_the_conformance_suite_passes_completely() {
    each_database(conforms).await;
}

/// What Microsoft's documentation of its provisioning service says that it sends, in the order of a first cycle.
async fn entra(options: Options) {
    let server = Server::start(options).await;
    let api = server.api().await;
    let entra = Provider::of(&api, "entra").await;
    // "Test connection" asks for somebody who does not exist.
    let nobody = entra.find("/Users", r#"userName eq "non-existent-user""#).await;
    assert!(nobody.is_empty());
    let body = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", ENTERPRISE],
        "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef", "userName": "Test_User_ab6490ee@example.com", "active": true,
        "displayName": "lennay",
        "emails": [{"primary": true, "type": "work", "value": "Test_User_fd0ea19b@example.com"}],
        "meta": {"resourceType": "User"},
        "name": {"formatted": "givenName familyName", "familyName": "familyName", "givenName": "givenName"},
        "roles": [], ENTERPRISE: {"department": "Engines", "manager": "nobody"},
    });
    let made = entra.post("/Users", &body).await;
    let ada = made.expect(201);
    assert_eq!(
        made.header("location"),
        ada["meta"]["location"].as_str().expect("a location")
    );
    assert_eq!(
        made.header("etag"),
        ada["meta"]["version"].as_str().expect("a version")
    );
    assert_eq!(ada[ENTERPRISE]["manager"], json!({"value": "nobody"}));
    let path = path_of("Users", &ada);
    // It looks by either attribute, and the name's case is not the one that was stored.
    for filter in [
        r#"userName eq "test_user_AB6490EE@example.com""#,
        r#"externalId eq "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef""#,
        r#"emails[type eq "work"].value eq "x" or userName sw "test_user""#,
    ] {
        let found = entra.find("/Users", filter).await;
        assert_eq!(found[0]["id"], ada["id"], "{filter}");
    }
    assert!(
        entra
            .find(
                "/Users",
                r#"externalId eq "0A21F0F2-8d2a-4f8e-bf98-7363c4aed4ef""#
            )
            .await
            .is_empty()
    );
    let again = entra.post("/Users", &body).await;
    assert!(refused(&again, 409, Some("uniqueness")).contains("userName"));
    let changed = entra
        .patch(
            &path,
            json!([
                {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "updated@example.com"},
                {"op": "Replace", "path": "name.familyName", "value": "updatedFamilyName"},
                {"op": "Add", "path": format!("{ENTERPRISE}:department"), "value": "Poetry"},
            ]),
        )
        .await
        .expect(200);
    assert_eq!(changed["emails"][0]["value"], "updated@example.com");
    assert_eq!(changed["name"]["familyName"], "updatedFamilyName");
    assert_eq!(changed[ENTERPRISE]["department"], "Poetry");
    let renamed = entra
        .patch(
            &path,
            json!([{"op": "Replace", "path": "userName", "value": "ada@example.com"}]),
        )
        .await
        .expect(200);
    assert_eq!(renamed["userName"], "ada@example.com");
    // The soft delete, as a text and as a truth value; restoring; then deletion.
    for (value, active) in [
        (json!("False"), false),
        (json!("True"), true),
        (json!(false), false),
    ] {
        let changed = entra
            .patch(
                &path,
                json!([{"op": "Replace", "path": "active", "value": value}]),
            )
            .await
            .expect(200);
        assert_eq!(changed["active"], active);
    }
    let group = entra
        .post(
            "/Groups",
            &json!({
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group", "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
                "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159", "displayName": "displayName", "meta": {"resourceType": "Group"},
            }),
        )
        .await
        .expect(201);
    let group_path = path_of("Groups", &group);
    let found = answer(entra.request(Method::GET, "/Groups").query(&[
        ("excludedAttributes", "members"),
        ("filter", "displayName eq \"displayname\""),
    ]))
    .await
    .expect(200);
    assert_eq!(
        (&found["totalResults"], &found["Resources"][0]["id"]),
        (&json!(1), &group["id"])
    );
    let add = json!([{"op": "Add", "path": "members", "value": [{"$ref": null, "value": ada["id"]}]}]);
    assert_eq!(entra.patch(&group_path, add.clone()).await.status, 204);
    assert_eq!(
        entra.patch(&group_path, add).await.status,
        204,
        "it is a member already"
    );
    let shown = entra.get(&group_path).await.expect(200);
    assert_eq!(shown["members"][0]["value"], ada["id"]);
    let id = ada["id"].as_str().expect("an id");
    let is_in = format!(
        r#"id eq "{}" and members[value eq "{id}"]"#,
        group["id"].as_str().expect("an id")
    );
    assert_eq!(entra.find("/Groups", &is_in).await.len(), 1);
    assert_eq!(
        entra.get(&path).await.expect(200)["groups"][0]["value"],
        group["id"]
    );
    let remove = json!([{"op": "Remove", "path": format!("members[value eq \"{id}\"]")}]);
    assert_eq!(entra.patch(&group_path, remove).await.status, 204);
    assert_eq!(entra.find("/Groups", &is_in).await.len(), 0);
    assert_eq!(answer(entra.request(Method::DELETE, &path)).await.status, 204);
    refused(&entra.get(&path).await, 404, None);
    let returned = entra.post("/Users", &user("ada@example.com")).await.expect(201);
    assert_ne!(returned["id"], ada["id"], "an id never comes again");
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_entra_id_sends_is_done() {
    each_database(entra).await;
}

/// What Okta's documentation of SCIM 2.0 says that it sends.
async fn okta(options: Options) {
    let server = Server::start(options).await;
    let api = server.api().await;
    let okta = Provider::of(&api, "okta").await;
    let page = okta
        .get("/Users?startIndex=1&count=100&filter=userName%20eq%20%22isaac.brock%40example.com%22")
        .await;
    let page = page.expect(200);
    assert_eq!(
        (&page["totalResults"], &page["startIndex"]),
        (&json!(0), &json!(1))
    );
    let body = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "isaac.brock@example.com",
        "name": {"givenName": "Isaac", "familyName": "Brock"},
        "emails": [{"primary": true, "value": "isaac.brock@example.com", "type": "work"}], "displayName": "Isaac Brock",
        "locale": "en-US", "externalId": "00ujl29u0le5T6Aj10h7", "groups": [], "password": "1mz050nq", "active": true,
    });
    let made = okta.post("/Users", &body).await;
    assert!(!made.text().contains("1mz050nq"));
    let isaac = made.expect(201);
    let path = path_of("Users", &isaac);
    // A profile is replaced as a whole, with what the server says of it inside.
    let mut whole = okta.get(&path).await.expect(200);
    whole["name"]["familyName"] = json!("Brook");
    let replaced = okta.send(Method::PUT, &path, &whole).await.expect(200);
    assert_eq!(
        (&replaced["name"]["familyName"], &replaced["id"]),
        (&json!("Brook"), &isaac["id"])
    );
    let off = okta
        .patch(&path, json!([{"op": "replace", "value": {"active": false}}]))
        .await
        .expect(200);
    assert_eq!(off["active"], false);
    okta.patch(&path, json!([{"op": "replace", "value": {"active": true}}]))
        .await
        .expect(200);
    let other = okta.user("other@example.com").await;
    let group = okta.group("Test SCIMv2", &[]).await;
    let group_path = path_of("Groups", &group);
    let rename = json!([{"op": "replace", "value": {"id": group["id"], "displayName": "Test SCIM2"}}]);
    assert_eq!(okta.patch(&group_path, rename).await.status, 204);
    let both = json!([{"op": "replace", "path": "members", "value": [
        {"value": isaac["id"], "display": "isaac.brock@example.com"}, {"value": other["id"], "display": "other@example.com"},
    ]}]);
    assert_eq!(okta.patch(&group_path, both).await.status, 204);
    let swap = json!([
        {"op": "remove", "path": format!("members[value eq \"{}\"]", other["id"].as_str().expect("an id"))},
        {"op": "add", "path": "members", "value": [{"value": isaac["id"], "display": "isaac.brock@example.com"}]},
    ]);
    assert_eq!(okta.patch(&group_path, swap).await.status, 204);
    let shown = okta.get(&group_path).await.expect(200);
    assert_eq!(shown["displayName"], "Test SCIM2");
    assert_eq!(shown["members"].as_array().map(Vec::len), Some(1));
    // An import goes by pages of a hundred.
    for number in 0..120 {
        okta.user(&format!("person-{number}@example.com")).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    for start in [1, 101, 201] {
        let page = okta
            .get(&format!("/Users?startIndex={start}&count=100"))
            .await
            .expect(200);
        assert_eq!(
            (&page["totalResults"], &page["startIndex"]),
            (&json!(122), &json!(start))
        );
        for person in page["Resources"].as_array().expect("a list") {
            assert!(seen.insert(person["id"].as_str().expect("an id").to_owned()));
        }
    }
    assert_eq!(seen.len(), 122);
    let (mut cursor, mut by_cursor) = (String::new(), 0);
    loop {
        let page = okta
            .get(&format!("/Users?cursor={cursor}&count=50"))
            .await
            .expect(200);
        by_cursor += page["Resources"].as_array().map_or(0, Vec::len);
        match page["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(by_cursor, 122);
    let sorted = okta
        .get("/Users?sortBy=userName&sortOrder=descending&count=2")
        .await
        .expect(200);
    assert_eq!(sorted["Resources"][0]["userName"], "person-9@example.com");
    assert_eq!(
        answer(okta.request(Method::DELETE, &group_path)).await.status,
        204
    );
    refused(&okta.get(&group_path).await, 404, None);
    assert!(okta.get(&path).await.expect(200).get("groups").is_none());
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_okta_sends_is_done() {
    each_database(okta).await;
}

async fn versions_and_bulk(options: Options) {
    let server = Server::start(options).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "bulk").await;
    let made = provider.user("ada@example.com").await;
    let path = path_of("Users", &made);
    let shown = provider.get(&path).await;
    let tag = shown.header("etag").to_owned();
    let unchanged = answer(provider.request(Method::GET, &path).header("if-none-match", &tag)).await;
    assert_eq!((unchanged.status, unchanged.bytes.len()), (304, 0));
    let change = |tag: String, title: &str| {
        let body =
            json!({"schemas": [PATCH], "Operations": [{"op": "add", "path": "title", "value": title}]});
        provider
            .request(Method::PATCH, &path)
            .header("if-match", tag)
            .header("content-type", "application/scim+json")
            .body(body.to_string())
    };
    let changed = answer(change(tag.clone(), "Countess")).await.expect(200);
    refused(&answer(change(tag, "Duchess")).await, 412, None);
    let newest = changed["meta"]["version"].as_str().expect("a version").to_owned();
    // What changes nothing makes no version.
    let same = answer(change(newest.clone(), "Countess")).await.expect(200);
    assert_eq!(same["meta"]["version"], newest.as_str());
    // A group of somebody who is made later in the same request; one that fails; one that refers to it.
    let bulk = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
        "Operations": [
            {"method": "POST", "path": "/Groups", "bulkId": "g", "data": {
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "Poets",
                "members": [{"type": "User", "value": "bulkId:u"}],
            }},
            {"method": "POST", "path": "/Users", "bulkId": "u", "data": user("byron@example.com")},
            {"method": "POST", "path": "/Users", "bulkId": "x", "data": user("ADA@example.com")},
            {"method": "POST", "path": "/Groups", "bulkId": "y", "data": {
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "Nobody",
                "members": [{"value": "bulkId:x"}],
            }},
            {"method": "PATCH", "path": "/Groups/bulkId:g", "data": {"schemas": [PATCH], "Operations": [
                {"op": "add", "path": "members", "value": [{"value": made["id"]}]},
            ]}},
            {"method": "DELETE", "path": "/Users/usr_00000000000000000000000000000000"},
        ],
    });
    let done = provider.post("/Bulk", &bulk).await.expect(200);
    let statuses: Vec<&str> = done["Operations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["status"].as_str().expect("a status"))
        .collect();
    assert_eq!(statuses, ["201", "201", "409", "409", "200", "404"], "{done}");
    assert_eq!(done["Operations"][2]["response"]["scimType"], "uniqueness");
    let group = provider.find("/Groups", r#"displayName eq "Poets""#).await;
    assert_eq!(group[0]["members"].as_array().map(Vec::len), Some(2));
    // Everything at once, and nothing of a client itself.
    let search = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "attributes": ["displayName", "userName"]});
    let all = provider.post("/.search", &search).await.expect(200);
    assert_eq!(all["totalResults"], 3);
    assert!(all["Resources"][0].get("meta").is_none());
    refused(&provider.get("/Me").await, 501, None);
    // People see what was refused, and why.
    let log = api.list("/directory/requests?refused=true").await;
    assert!(
        log.iter().any(|row| row["status"] == 412) && log.iter().any(|row| row["scim_type"] == "uniqueness"),
        "{log:?}"
    );
    assert!(log.iter().all(|row| row["connector"] == "bulk"));
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_guard_changes_and_bulk_requests_refer_to_themselves() {
    each_database(versions_and_bulk).await;
}

async fn strangers(options: Options) {
    let mut server = Server::start(options).await;
    server.stop().await;
    let file = create_tenant(&server, "other").await;
    server.restart().await;
    let made = crate::support::server::AdminFile::read(&file);
    let other_admin = crate::support::server::AdminFile {
        tenant: made.tenant,
        client_id: made.client_id,
        client_secret: made.client_secret,
        ..server.admin.clone()
    };
    let (api, other) = (server.api().await, Api::sign_in(&other_admin).await);
    let (entra, okta) = (
        Provider::of(&api, "entra").await,
        Provider::of(&api, "okta").await,
    );
    let foreign = Provider::of(&other, "entra").await;
    let ada = entra
        .post("/Users", &{
            let mut ada = user("ada@example.com");
            ada["externalId"] = json!("1");
            ada
        })
        .await
        .expect(201);
    let path = path_of("Users", &ada);
    // Another tenant has the same name, and none of this one's.
    refused(&foreign.get(&path).await, 404, None);
    refused(&answer(foreign.request(Method::DELETE, &path)).await, 404, None);
    let same = foreign.user("ada@example.com").await;
    refused(&entra.get(&path_of("Users", &same)).await, 404, None);
    let theirs = json!([{"op": "add", "path": "members", "value": [{"value": ada["id"]}]}]);
    let group = foreign.group("Theirs", &[]).await;
    refused(
        &foreign.patch(&path_of("Groups", &group), theirs).await,
        400,
        Some("invalidValue"),
    );
    assert_eq!(
        other
            .get(&format!("/users/{}", ada["id"].as_str().expect("an id")))
            .await
            .status,
        404
    );
    // Another connector of the same tenant sees the person without the external id, and changes nothing.
    let seen = okta.get(&path).await.expect(200);
    assert!(seen.get("externalId").is_none());
    assert!(okta.find("/Users", r#"externalId eq "1""#).await.is_empty());
    let taken = okta
        .patch(
            &path,
            json!([{"op": "replace", "path": "active", "value": false}]),
        )
        .await;
    assert!(refused(&taken, 403, None).contains("connector entra"));
    // Spellings that read the same are the same name.
    refused(
        &okta.post("/Users", &user("ADA@EXAMPLE.COM")).await,
        409,
        Some("uniqueness"),
    );
    refused(
        &okta.post("/Users", &user("\u{ff41}da@example.com")).await,
        409,
        Some("uniqueness"),
    );
    // A token ends at once when it is revoked; one of another scope opens nothing, and a SCIM token nothing else.
    assert_eq!(entra.api.get("/devices").await.status, 403);
    refused(
        &answer(api.http.get(format!("{}/scim/v2/Users", api.origin))).await,
        401,
        None,
    );
    let reader = api.client_with("reader", &["directory:read"]).await;
    let with_reader = answer(
        api.http
            .get(format!("{}/scim/v2/Users", api.origin))
            .bearer_auth(&reader.token),
    )
    .await;
    refused(&with_reader, 403, None);
    assert_eq!(
        api.delete(&format!("/scim-tokens/{}", entra.token_id))
            .await
            .status,
        204
    );
    refused(&entra.get("/Users").await, 401, None);
    // While the connector exists, its people are its own; when it is removed, the next one takes over.
    let clients = api.list("/clients").await;
    let gone = clients
        .iter()
        .find(|client| client["name"] == "entra")
        .expect("the connector is a client");
    let gone = gone["client_id"].as_str().expect("an id");
    assert_eq!(api.delete(&format!("/clients/{gone}")).await.status, 204);
    okta.patch(
        &path,
        json!([{"op": "replace", "path": "title", "value": "Countess"}]),
    )
    .await
    .expect(200);
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_tenants_and_connectors_keep_to_themselves() {
    each_database(strangers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_hostile_bodies_are_bounded() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "hostile").await;
    let raw = async |method: Method, path: &str, body: String| {
        let request = provider
            .request(method, path)
            .header("content-type", "application/scim+json");
        answer(request.body(body)).await
    };
    let group = provider.group("Everyone", &[]).await;
    let group = path_of("Groups", &group);
    let begun = std::time::Instant::now();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(
        &raw(Method::POST, "/Users", deep).await,
        400,
        Some("invalidSyntax"),
    );
    let double =
        r#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"a","USERNAME":"b"}"#
            .to_owned();
    refused(
        &raw(Method::POST, "/Users", double).await,
        400,
        Some("invalidSyntax"),
    );
    let operation = r#"{"op":"add","path":"members","value":[]},"#.repeat(90_000);
    let many = format!(
        r#"{{"schemas":["{PATCH}"],"Operations":[{}]}}"#,
        operation.trim_end_matches(',')
    );
    refused(&raw(Method::PATCH, &group, many).await, 400, Some("invalidValue"));
    let huge = "x".repeat(5 * 1024 * 1024);
    refused(&raw(Method::POST, "/Users", huge).await, 413, None);
    let members = (0..100_000)
        .map(|_| r#"{"value":"usr_00000000000000000000000000000000"}"#)
        .collect::<Vec<_>>()
        .join(",");
    let nobody = format!(
        r#"{{"schemas":["{PATCH}"],"Operations":[{{"op":"add","path":"members","value":[{members}]}}]}}"#
    );
    let told = raw(Method::PATCH, &group, nobody).await;
    assert!([400, 413].contains(&told.status), "{}", told.text());
    let filter = format!("userName eq \"{}\"", "x".repeat(9000));
    let told = answer(
        provider
            .request(Method::GET, "/Users")
            .query(&[("filter", filter)]),
    )
    .await;
    refused(&told, 400, Some("invalidFilter"));
    let wide = vec!["title pr"; 300].join(" or ");
    let told = answer(provider.request(Method::GET, "/Users").query(&[("filter", wide)])).await;
    refused(&told, 400, Some("invalidFilter"));
    let told = provider
        .get("/Users?startIndex=9223372036854775807&count=9223372036854775807")
        .await;
    assert_eq!(told.expect(200)["Resources"], json!([]));
    let bulk = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": vec![json!({"method": "DELETE", "path": "/Users/x"}); 1001]});
    refused(&provider.post("/Bulk", &bulk).await, 413, None);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "it took {:?}",
        begun.elapsed()
    );
    let secret = raw(Method::POST, "/Users", json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "a", "active": "hunter2", "password": "hunter2"}).to_string()).await;
    assert!(!refused(&secret, 400, Some("invalidValue")).contains("hunter2"));
    // The media type of something else, and an address where nothing is.
    let told = answer(
        provider
            .request(Method::POST, "/Users")
            .header("content-type", "text/plain")
            .body("{}"),
    )
    .await;
    refused(&told, 415, None);
    refused(&provider.get("/Devices").await, 404, None);
    refused(&provider.send(Method::PUT, "/Users", &json!({})).await, 405, None);
    assert!(!server.log().contains("hunter2"));
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_provider_that_sends_too_much_is_told_to_wait() {
    let server = Server::start(Options::default().with("--scim-requests-per-second", 1)).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "eager").await;
    for _ in 0..5 {
        provider.get("/Users").await.expect(200);
    }
    let told = provider.get("/Users").await;
    refused(&told, 429, None);
    assert_eq!(told.header("retry-after"), "1");
}
