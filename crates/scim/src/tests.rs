use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::*;

const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

fn user(members: Value) -> Resource {
    let mut sent = json!({"schemas": [USER.id], "userName": "ada@example.com"});
    for (name, value) in members.as_object().expect("members") {
        sent[name] = value.clone();
    }
    accept(&USERS, sent).expect("it is a user")
}

fn patch(resource: &mut Resource, ops: Value) -> Result<(), ScimError> {
    let request = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": ops});
    apply(&USERS, resource, operations(request)?)
}

fn patched(members: Value, ops: Value) -> Value {
    let mut resource = user(members);
    patch(&mut resource, ops).expect("it is carried out");
    Value::Object(resource)
}

fn refused(members: Value, ops: Value) -> ScimType {
    let error = patch(&mut user(members), ops).expect_err("it is refused");
    error.kind.expect("with a keyword")
}

fn finds(filter: &str, members: Value) -> bool {
    matches(
        &Filter::parse(&USERS, filter).unwrap_or_else(|error| panic!("{filter}: {error}")),
        &user(members),
    )
}

#[test]
fn a_user_is_brought_into_one_form() {
    let stored = user(json!({
        "userName": "Ada@Example.com", "DISPLAYname": "Ada", "id": "mine", "meta": {"version": "9"}, "password": "t1meMa$heen", "active": "False",
        "Emails": {"value": "ada@example.com", "TYPE": "work", "primary": true}, "nickName": null, "photos": [],
        "unknown": 1, "urn:example:2.0:Badge": {"color": "red"}, "roles": ["a", "a"],
        "URN:ietf:params:scim:schemas:extension:enterprise:2.0:user": {"Department": "R&D", "manager": "usr_1"},
    }));
    assert_eq!(
        Value::Object(stored),
        json!({
            "userName": "Ada@Example.com", "displayName": "Ada", "active": false,
            "emails": [{"value": "ada@example.com", "type": "work", "primary": true}], "roles": [{"value": "a"}],
            ENTERPRISE: {"department": "R&D", "manager": {"value": "usr_1"}},
        })
    );
}

#[test]
fn s4_what_is_no_user_is_refused_without_its_values() {
    let refuse = |sent: Value| accept(&USERS, sent).expect_err("it is refused");
    let with = |name: &str, value: Value| json!({"schemas": [USER.id], "userName": "a", name: value});
    assert_eq!(
        refuse(json!({"userName": "a"})).kind,
        Some(ScimType::InvalidSyntax)
    );
    assert_eq!(refuse(json!([])).kind, Some(ScimType::InvalidSyntax));
    for sent in [
        json!({"schemas": [USER.id]}),
        json!({"schemas": [USER.id], "userName": "  "}),
        with("active", json!("hunter2")),
        with("title", json!(7)),
        with("title", json!("x".repeat(2049))),
        with("name", json!("hunter2")),
        with(
            "emails",
            json!([{"value": "a", "primary": true}, {"value": "b", "primary": true}]),
        ),
        with(
            "emails",
            json!(
                (0..101)
                    .map(|n| json!({"value": n.to_string()}))
                    .collect::<Vec<_>>()
            ),
        ),
    ] {
        let error = refuse(sent);
        assert_eq!(error.kind, Some(ScimType::InvalidValue), "{error}");
        assert!(!error.detail.contains("hunter2"));
    }
}

#[test]
fn filters_find_what_they_say() {
    let ada = || {
        json!({
            "name": {"familyName": "Lovelace"}, "title": "Countess", "active": true, "externalId": "E1",
            "emails": [{"value": "ada@work.example", "type": "work"}, {"value": "ada@home.example", "type": "home"}],
            ENTERPRISE: {"department": "Engines"},
        })
    };
    for filter in [
        r#"userName eq "ADA@example.com""#,
        r#"USERNAME EQ "ada@EXAMPLE.com""#,
        r#"urn:ietf:params:scim:schemas:core:2.0:User:userName sw "ada""#,
        r#"name.familyName co "love""#,
        r#"emails[type eq "work" and value co "@work.example"]"#,
        r#"emails co "home""#,
        r#"emails[type eq "work"].value eq "ADA@work.example""#,
        r#"emails[type eq "home"].value pr and title pr"#,
        r#"emails.type eq "home""#,
        r#"title pr and not (userType pr)"#,
        r#"title eq "x" or active eq true"#,
        r#"active eq "True""#,
        r#"externalId eq "E1""#,
        r#"not(externalId eq "e1")"#,
        &format!(r#"{ENTERPRISE}:department eq "engines""#),
        r#"nickName eq null and title ne null"#,
        r#"title gt "Abc" and title le "countess""#,
        r#"userName ew "example.com" AND (title eq "x" OR title ne "y")"#,
    ] {
        assert!(finds(filter, ada()), "{filter}");
    }
    for filter in [
        r#"emails[type eq "home" and value co "@work.example"]"#,
        r#"active eq false"#,
        r#"emails[type eq "home"].value eq "ada@work.example""#,
        r#"nickName pr"#,
        r#"title eq "x" and userName pr or title eq "y""#,
    ] {
        assert!(!finds(filter, ada()), "{filter}");
    }
}

#[test]
fn d1_bad_filters_are_refused_by_name() {
    let deep = format!("{}title pr{}", "(".repeat(30), ")".repeat(30));
    let deeper = "not (".repeat(100_000);
    let wide = vec!["title pr"; 257].join(" or ");
    let long = format!("title eq \"{}\"", "x".repeat(9000));
    for filter in [
        "",
        "userName",
        "userName eq",
        "userName eq ada",
        r#"userName eq "ada"#,
        r#"userName is "ada""#,
        "title pr and",
        "(title pr",
        "title pr)",
        "not title pr",
        r#"ghost eq "x""#,
        "name.ghost pr",
        r#"emails[type eq "work""#,
        r#"emails[value[type pr] pr]"#,
        "active gt true",
        r#"active eq "maybe""#,
        r#"name eq "x""#,
        "title gt null",
        r#"title eq "\q""#,
        &deep,
        &deeper,
        &wide,
        &long,
    ] {
        let error = Filter::parse(&USERS, filter).expect_err(&filter.chars().take(40).collect::<String>());
        assert_eq!(error.kind, Some(ScimType::InvalidFilter), "{filter:.40}");
    }
}

#[test]
fn a_filter_of_one_equality_is_known_for_what_it_is() {
    let equals = |filter: &str, name: &str| {
        Filter::parse(&USERS, filter)
            .expect("a filter")
            .equals(name)
            .map(str::to_owned)
    };
    assert_eq!(equals(r#"userName eq "Ada""#, "userName"), Some("Ada".to_owned()));
    assert_eq!(
        equals(r#"active eq true and externalId eq "1""#, "externalId"),
        Some("1".to_owned())
    );
    assert_eq!(equals(r#"userName eq "a" or title pr"#, "userName"), None);
    assert_eq!(equals(r#"not (userName eq "a")"#, "userName"), None);
}

#[test]
fn what_a_filter_asks_of_members_is_known() {
    let read = |filter: &str| Filter::parse(&GROUPS, filter).expect("a filter");
    for filter in [
        r#"id eq "g" and members[value eq "u"]"#,
        r#"members.value eq "u""#,
        r#"displayName pr and members eq "u""#,
    ] {
        assert_eq!(read(filter).requires("members"), Some("u"), "{filter}");
        let mentions = read(filter).mentions("members");
        assert_eq!(
            (mentions.ids, mentions.asks_more),
            (vec!["u".to_owned()], false),
            "{filter}"
        );
    }
    let either = read(r#"members.value eq "u" or not (members[value eq "v"])"#);
    assert_eq!(either.requires("members"), None);
    assert_eq!(either.mentions("members").ids, ["u", "v"]);
    for filter in [
        r#"members pr"#,
        r#"members[type eq "User"]"#,
        r#"members.value sw "u""#,
        r#"members[value pr]"#,
    ] {
        assert!(read(filter).mentions("members").asks_more, "{filter}");
    }
    assert_eq!(
        read(r#"displayName eq "x""#).mentions("members"),
        Mentions::default()
    );
}

#[test]
fn whether_somebody_is_active_is_changed_and_never_taken_away() {
    for (operation, kind) in [
        (json!({"op": "remove", "path": "active"}), ScimType::Mutability),
        (
            json!({"op": "replace", "path": "active", "value": null}),
            ScimType::InvalidValue,
        ),
        (
            json!({"op": "replace", "value": {"active": null, "title": "Countess"}}),
            ScimType::InvalidValue,
        ),
    ] {
        assert_eq!(
            refused(json!({"active": false}), json!([operation])),
            kind,
            "{operation}"
        );
    }
}

/// The requests that Microsoft documents for its provisioning service, and the forms that it is known to send besides.
#[test]
fn entra_id_is_understood() {
    let work =
        || json!({"emails": [{"value": "old@example.com", "type": "work", "primary": true}], "active": true});
    // "Disable User", and the text that the service sends without its SCIM compliance flag.
    assert_eq!(
        patched(
            work(),
            json!([{"op": "Replace", "path": "active", "value": false}])
        )["active"],
        false
    );
    assert_eq!(
        patched(
            work(),
            json!([{"op": "Replace", "path": "active", "value": "False"}])
        )["active"],
        false
    );
    assert_eq!(
        patched(work(), json!([{"op": "Replace", "value": {"active": "False"}}]))["active"],
        false
    );
    // "Update User [Multi-valued properties]".
    let done = patched(
        work(),
        json!([
            {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "new@example.com"},
            {"op": "Replace", "path": "name.familyName", "value": "Lovelace"},
        ]),
    );
    assert_eq!(
        done["emails"],
        json!([{"value": "new@example.com", "type": "work", "primary": true}])
    );
    assert_eq!(done["name"], json!({"familyName": "Lovelace"}));
    // An address that is not there yet, an extension's attribute by its whole name, a manager by the bare id.
    let done = patched(
        json!({}),
        json!([
            {"op": "Add", "path": "emails[type eq \"work\"].value", "value": "new@example.com"},
            {"op": "Add", "path": "addresses[type eq \"work\"].country", "value": "DE"},
            {"op": "Add", "path": format!("{ENTERPRISE}:department"), "value": "Engines"},
            {"op": "Add", "path": format!("{ENTERPRISE}:manager"), "value": "usr_1"},
            {"op": "Add", "path": "roles[primary eq \"True\"].value", "value": "auditor"},
        ]),
    );
    assert_eq!(
        done["emails"],
        json!([{"type": "work", "value": "new@example.com"}])
    );
    assert_eq!(done["addresses"], json!([{"type": "work", "country": "DE"}]));
    assert_eq!(
        done[ENTERPRISE],
        json!({"department": "Engines", "manager": {"value": "usr_1"}})
    );
    assert_eq!(done["roles"], json!([{"primary": true, "value": "auditor"}]));
    // Without a path, with names that are paths.
    let done = patched(
        work(),
        json!([{"op": "replace", "value": {
            "displayName": "Ada", "name.givenName": "Ada", format!("{ENTERPRISE}:department"): "Poetry",
            "emails[type eq \"work\"].value": "third@example.com", "id": "other", "meta": {"version": "1"},
        }}]),
    );
    assert_eq!(
        (&done["displayName"], &done["name"]["givenName"]),
        (&json!("Ada"), &json!("Ada"))
    );
    assert_eq!(done[ENTERPRISE], json!({"department": "Poetry"}));
    assert_eq!(done["emails"][0]["value"], "third@example.com");
    assert!(done.get("id").is_none() && done.get("meta").is_none());
    assert_eq!(
        patched(
            json!({ENTERPRISE: {"department": "x"}}),
            json!([{"op": "Remove", "path": format!("{ENTERPRISE}:department")}])
        )
        .get(ENTERPRISE),
        None
    );
}

#[test]
fn patch_follows_the_specification() {
    let two = || json!({"emails": [{"value": "a", "type": "work", "primary": true}, {"value": "b", "type": "home"}]});
    let emails = |ops: Value| patched(two(), ops)["emails"].clone();
    let add = emails(
        json!([{"op": "add", "path": "emails", "value": [{"value": "c", "primary": true}, {"value": "b", "type": "home"}]}]),
    );
    assert_eq!(
        add,
        json!([{"value": "a", "type": "work", "primary": false}, {"value": "b", "type": "home"}, {"value": "c", "primary": true}])
    );
    assert_eq!(
        emails(json!([{"op": "replace", "path": "emails", "value": [{"value": "c"}]}])),
        json!([{"value": "c"}])
    );
    assert_eq!(emails(json!([{"op": "remove", "path": "emails"}])), Value::Null);
    assert_eq!(
        emails(json!([{"op": "remove", "path": "emails[type eq \"work\"]"}])),
        json!([{"value": "b", "type": "home"}])
    );
    assert_eq!(
        emails(
            json!([{"op": "replace", "path": "emails[type eq \"home\"]", "value": {"value": "d", "type": "other"}}])
        ),
        json!([{"value": "a", "type": "work", "primary": true}, {"value": "d", "type": "other"}])
    );
    assert_eq!(
        emails(json!([{"op": "remove", "path": "emails.type"}])),
        json!([{"value": "a", "primary": true}, {"value": "b"}])
    );
    let name = patched(
        json!({"name": {"givenName": "A", "familyName": "L"}}),
        json!([{"op": "replace", "path": "name", "value": {"givenName": "B"}}]),
    );
    assert_eq!(name["name"], json!({"givenName": "B", "familyName": "L"}));
    assert_eq!(
        patched(
            json!({}),
            json!([{"op": "replace", "path": "password", "value": "hunter2"}])
        )
        .get("password"),
        None
    );
    assert_eq!(
        patched(
            json!({}),
            json!([{"op": "add", "path": "urn:example:Badge:color", "value": "red"}])
        ),
        json!({"userName": "ada@example.com"})
    );
}

#[test]
fn patch_is_refused_with_the_keyword_of_the_specification() {
    let one = |op: Value| refused(json!({}), json!([op]));
    assert_eq!(
        one(json!({"op": "replace", "path": "id", "value": "x"})),
        ScimType::Mutability
    );
    assert_eq!(
        one(json!({"op": "add", "path": "groups", "value": []})),
        ScimType::Mutability
    );
    assert_eq!(
        one(json!({"op": "remove", "path": "userName"})),
        ScimType::Mutability
    );
    assert_eq!(one(json!({"op": "remove"})), ScimType::NoTarget);
    assert_eq!(
        one(json!({"op": "replace", "path": "emails[type eq \"work\"].value", "value": "x"})),
        ScimType::NoTarget
    );
    assert_eq!(
        one(json!({"op": "add", "path": "emails[type eq", "value": "x"})),
        ScimType::InvalidPath
    );
    assert_eq!(
        one(json!({"op": "add", "path": "userName[value eq \"a\"]", "value": "x"})),
        ScimType::InvalidPath
    );
    assert_eq!(
        one(json!({"op": "add", "path": "a b", "value": "x"})),
        ScimType::InvalidPath
    );
    assert_eq!(one(json!({"op": "add", "path": "title"})), ScimType::InvalidValue);
    assert_eq!(one(json!({"op": "add", "value": "x"})), ScimType::InvalidValue);
    assert_eq!(
        one(json!({"op": "replace", "path": "userName", "value": ""})),
        ScimType::InvalidValue
    );
    assert_eq!(
        one(json!({"op": "move", "path": "title"})),
        ScimType::InvalidSyntax
    );
    assert_eq!(refused(json!({}), json!([])), ScimType::InvalidValue);
    assert_eq!(
        refused(
            json!({}),
            Value::Array(vec![json!({"op": "add", "value": {}}); 1001])
        ),
        ScimType::InvalidValue
    );
}

fn steps(ops: Value) -> Vec<GroupStep> {
    let request = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": ops});
    group_steps(operations(request).expect("a request")).expect("steps")
}

#[test]
fn groups_are_changed_step_by_step() {
    let add = |ids: &[&str]| GroupStep::Add(ids.iter().map(|id| (*id).to_owned()).collect());
    let remove = |ids: &[&str]| GroupStep::Remove(ids.iter().map(|id| (*id).to_owned()).collect());
    // Entra ID.
    assert_eq!(
        steps(json!([{"op": "Add", "path": "members", "value": [{"value": "b"}, {"value": "a"}]}])),
        [add(&["a", "b"])]
    );
    assert_eq!(
        steps(json!([{"op": "Remove", "path": "members", "value": [{"value": "a"}]}])),
        [remove(&["a"])]
    );
    assert_eq!(
        steps(json!([{"op": "Remove", "path": "members[value eq \"a\"]"}])),
        [remove(&["a"])]
    );
    assert_eq!(
        steps(json!([{"op": "remove", "path": "members[value eq \"a\" or value eq \"b\"]"}])),
        [remove(&["a", "b"])]
    );
    assert_eq!(
        steps(json!([{"op": "Replace", "path": "displayName", "value": "x"}])),
        [GroupStep::DisplayName("x".to_owned())]
    );
    // Okta: a new name with the id beside it, members as one list.
    assert_eq!(
        steps(json!([{"op": "replace", "value": {"id": "g", "displayName": "x"}}])),
        [GroupStep::DisplayName("x".to_owned())]
    );
    assert_eq!(
        steps(
            json!([{"op": "replace", "path": "members", "value": [{"value": "a", "display": "ada@example.com"}]}])
        ),
        [GroupStep::Replace(vec!["a".to_owned()])]
    );
    assert_eq!(
        steps(json!([{"op": "remove", "path": "members"}])),
        [GroupStep::Replace(Vec::new())]
    );
    assert!(matches!(
        &steps(json!([{"op": "remove", "path": "members[type eq \"User\"]"}]))[..],
        [GroupStep::RemoveWhere(_)]
    ));
    assert_eq!(
        steps(json!([{"op": "replace", "path": "nickName", "value": "x"}])),
        []
    );
    let refused = |op: Value| {
        let request =
            json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [op]});
        group_steps(operations(request).expect("a request"))
            .expect_err("it is refused")
            .kind
    };
    assert_eq!(
        refused(json!({"op": "remove", "path": "displayName"})),
        Some(ScimType::Mutability)
    );
    assert_eq!(
        refused(json!({"op": "replace", "path": "members[value eq \"a\"].value", "value": "b"})),
        Some(ScimType::Mutability)
    );
    assert_eq!(
        refused(json!({"op": "add", "path": "members", "value": [7]})),
        Some(ScimType::InvalidValue)
    );
}

#[test]
fn answers_hold_what_was_asked_for() {
    let whole = || {
        let resource = json!({
            "schemas": ["s"], "id": "1", "userName": "a", "name": {"givenName": "A", "familyName": "B"},
            "emails": [{"value": "x", "type": "work"}], ENTERPRISE: {"department": "D", "division": "E"},
        });
        match resource {
            Value::Object(resource) => resource,
            _ => Map::new(),
        }
    };
    let show = |attributes: &[&str], excluded: &[&str]| {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let projection = Projection::parse(&texts(attributes), &texts(excluded)).expect("a projection");
        Value::Object(projection.of(&USERS, whole()))
    };
    assert_eq!(show(&[], &[]), Value::Object(whole()));
    assert_eq!(
        show(&["USERNAME"], &[]),
        json!({"schemas": ["s"], "id": "1", "userName": "a"})
    );
    assert_eq!(
        show(
            &[
                "name.givenName",
                "emails.type",
                "emails.value",
                &format!("{ENTERPRISE}:division"),
                "ghost"
            ],
            &[]
        ),
        json!({
            "schemas": ["s"], "id": "1", "name": {"givenName": "A"}, "emails": [{"type": "work", "value": "x"}],
            ENTERPRISE: {"division": "E"},
        })
    );
    assert_eq!(show(&[ENTERPRISE], &[])[ENTERPRISE]["department"], "D");
    let less = show(&[], &["id", "schemas", "emails", "name.familyName", ENTERPRISE]);
    assert_eq!(
        less,
        json!({"schemas": ["s"], "id": "1", "userName": "a", "name": {"givenName": "A"}})
    );
    assert!(Projection::parse(&["a".to_owned()], &["b".to_owned()]).is_err());
}

#[test]
fn d10_lists_are_bounded_whatever_is_asked() {
    let ask = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        Query::of_url(&pairs)
    };
    let query = ask(&[("startIndex", "-3"), ("count", "1000000000"), ("x", "y")]).expect("a query");
    assert_eq!((query.start_index, query.count), (1, COUNT_MAX));
    assert_eq!(ask(&[("count", "-1")]).expect("a query").count, 0);
    assert!(ask(&[("count", "many")]).is_err() && ask(&[("sortOrder", "up")]).is_err());
    assert!(ask(&[("cursor", ""), ("startIndex", "2")]).is_err());
    assert!(ask(&[("startIndex", "9223372036854775807")]).is_ok());
    assert!(Query::of_search(json!({"count": 1})).is_err());
    let search = json!({"schemas": [SEARCH_URN], "attributes": ["userName"], "startIndex": 2, "sortOrder": "descending"});
    let query = Query::of_search(search).expect("a query");
    assert_eq!((query.start_index, query.order), (2, Order::Descending));
}

#[test]
fn bulk_references_are_found_and_resolved() {
    let request = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "failOnErrors": 1,
        "Operations": [
            {"method": "POST", "path": "/Users", "bulkId": "q", "data": {}},
            {"method": "patch", "path": "/Groups/bulkId:g", "data": {"members": [{"value": "bulkId:q"}]}},
        ],
    });
    let mut request = BulkRequest::parse(request).expect("a request");
    assert_eq!(request.operations[1].references(), ["g", "q"]);
    request.operations[1].resolve(&|name| (name == "q").then(|| "usr_1".to_owned()));
    assert_eq!(request.operations[1].data["members"][0]["value"], "usr_1");
    assert_eq!(request.operations[1].path, "/Groups/bulkId:g");
    request.operations[1].resolve(&|name| (name == "g").then(|| "ugr_1".to_owned()));
    assert_eq!(request.operations[1].path, "/Groups/ugr_1");
    let many = vec![json!({"method": "DELETE", "path": "/Users/1"}); 1001];
    let error = BulkRequest::parse(
        json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": many}),
    );
    assert_eq!(error.expect_err("too many").status, 413);
}

#[test]
fn every_schema_describes_itself() {
    let at = Documents {
        base: "https://mdm.example.com/scim/v2",
        documentation: "https://mdm.example.com/docs",
    };
    let listed = schemas(at);
    assert_eq!(listed["totalResults"], 3);
    for schema in listed["Resources"].as_array().expect("a list") {
        let urn = schema["id"].as_str().expect("a URN");
        assert_eq!(schema_document(at, urn).as_ref(), Some(schema));
        assert!(schema["attributes"].as_array().is_some_and(|all| !all.is_empty()));
    }
    assert_eq!(resource_types(at)["totalResults"], 2);
    assert!(resource_type(at, "Device").is_none());
}

/// Texts that look like what the parsers read.
fn near_grammar() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("userName"),
        Just("emails"),
        Just("type"),
        Just("value"),
        Just("name.givenName"),
        Just(" "),
        Just("["),
        Just("]"),
        Just("("),
        Just(")"),
        Just("not"),
        Just("and"),
        Just("or"),
        Just("eq"),
        Just("pr"),
        Just("\""),
        Just("\\"),
        Just("."),
        Just("true"),
        Just("null"),
        Just("1e9"),
        Just(":"),
        Just("urn:"),
        Just(ENTERPRISE),
        Just("é"),
        Just("members"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        near_grammar().prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("userName".to_owned()),
        Just("members".to_owned()),
        Just("emails".to_owned()),
        Just("op".to_owned()),
        Just("path".to_owned()),
        Just("value".to_owned()),
        Just("Operations".to_owned()),
        Just("primary".to_owned()),
        Just(ENTERPRISE.to_owned()),
        near_grammar(),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn d12_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(parse(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        drop(Filter::parse(&USERS, &text));
        drop(PatchPath::parse(&USERS, &text));
        drop(name_key(&text));
    }

    #[test]
    fn d12_random_filters_never_panic(text in near_grammar()) {
        for kind in RESOURCE_TYPES {
            if let Ok(filter) = Filter::parse(kind, &text) {
                let _ = matches(&filter, &user(json!({"emails": [{"value": "a", "type": "work"}]})));
            }
            drop(PatchPath::parse(kind, &text));
        }
    }

    #[test]
    fn d12_random_documents_never_panic(document in any_json(), paths in proptest::collection::vec((near_grammar(), 0..3_u8), 0..4)) {
        let mut whole = document.clone();
        drop(members_of(&mut whole));
        drop(operations(document.clone()).and_then(group_steps));
        drop(BulkRequest::parse(document.clone()));
        drop(Query::of_search(document.clone()));
        let ops: Vec<Operation> = paths
            .into_iter()
            .map(|(path, what)| Operation {
                kind: [OperationKind::Add, OperationKind::Remove, OperationKind::Replace][usize::from(what)],
                path: (!path.is_empty()).then_some(path),
                value: Some(document.clone()),
            })
            .collect();
        let mut resource = user(json!({"emails": [{"value": "a", "type": "work"}], "name": {"givenName": "A"}}));
        drop(group_steps(ops.clone()));
        // What was carried out is a resource that is taken in again as it is.
        if apply(&USERS, &mut resource, ops).is_ok() {
            let mut sent = Value::Object(resource.clone());
            sent["schemas"] = json!([USER.id]);
            prop_assert_eq!(accept(&USERS, sent), Ok(resource));
        }
    }
}
