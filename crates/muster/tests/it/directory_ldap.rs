//! LDAP: people and groups of a real directory, brought to a server by `muster directory`; what a directory, or somebody between,
//! can do with it.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    device::{Applicant, Device, Door},
    eventually,
    pki::text,
    scim::Provider,
    server::{Options, Server, assert_healthy, everything},
    slapd::{
        LIMITED, PASSWORD, READER, SUFFIX, Slapd, directory, group, is_installed, person, report, synced,
    },
    variable,
};

/// A server, and its connector for a directory.
async fn connected(options: Options) -> (Server, Api, Provider) {
    let server = Server::start(options).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "ldap").await;
    (server, api, provider)
}

async fn device_of(server: &Server, api: &Api, owner: &str) -> Device {
    let applicant = Applicant::new();
    let body = json!({"device_uuid": applicant.device_uuid, "owner": owner});
    let made = api.post("/enrollment-tokens", &body).await.expect(201);
    let token = made["token"].as_str().expect("a token").to_owned();
    let finished = applicant.try_enroll(&Door::of(&server.admin), &token).await;
    finished.expect(201);
    applicant.with_identity(&server.admin, &finished)
}

async fn becomes(api: &Api, group: &str, count: u64) {
    eventually(&format!("{group} has {count} members"), PATIENCE, async || {
        let shown = api.get(&format!("/groups/{group}")).await.ok();
        (shown["state"] == "ready" && shown["members"] == count).then_some(())
    })
    .await;
}

async fn user(provider: &Provider, name: &str) -> Value {
    let found = provider.find("/Users", &format!("userName eq \"{name}\"")).await;
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0].clone()
}

fn no_change(report: &Value) {
    let done = report["done"].as_object().expect("it ran");
    for (what, count) in done {
        assert!(*count == json!(0) || *count == json!([]), "{what}: {report}");
    }
}

async fn follows(options: Options) {
    let (server, api, provider) = connected(options).await;
    let people = ["ada", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ivy"];
    let mut entries: String = people.iter().map(|uid| person(uid, "")).collect();
    let hostile = "*)(uid=*))(|(uid=*";
    entries.push_str(&person(
        "joe",
        &format!("displayName: {hostile}\ndepartmentNumber: Engines\nmanager: UID=ada, ou=People,{SUFFIX}\n"),
    ));
    entries.push_str(&group("inner", &["uid=ada,ou=people", "uid=joe,ou=people"]));
    entries.push_str(&group("outer", &["cn=inner,ou=groups", "cn=reader"]));
    entries.push_str(&format!(
        "dn: cn=unix,ou=groups,{SUFFIX}\nobjectClass: posixGroup\ncn: unix\ngidNumber: 5\nmemberUid: bob\nmemberUid: cat\n\n"
    ));
    let slapd = Slapd::start(&entries).await;
    let file = slapd.configuration(&server, &provider, &[]);
    let device = device_of(&server, &api, "Ada").await;
    for (name, include) in [
        ("outer", "\"outer\" in owner.groups"),
        ("left", "owner.active == false"),
    ] {
        let body = json!({"name": name, "include": include});
        api.post("/groups", &body).await.expect(201);
    }
    // First a look, which changes nothing.
    let tried = directory(&["test"], &file).await;
    let said = everything(&tried);
    assert!(tried.status.success() && said.contains("ada@ex.com"), "{said}");
    let planned = directory(&["sync", "--dry-run"], &file).await;
    let said = everything(&planned);
    assert!(
        said.contains("create") && said.contains("10 changes of people"),
        "{said}"
    );
    assert!(provider.find("/Users", "externalId pr").await.is_empty());
    // Everybody comes, and once.
    let first = synced(&[], &file).await;
    let done = &first["done"];
    assert_eq!(
        (&done["created"], &done["groups_created"]),
        (&json!(10), &json!(3)),
        "{first}"
    );
    assert_eq!(done["members_added"], 5, "{first}");
    assert_eq!(first["read"]["members_elsewhere"], 1, "the reader is no person");
    no_change(&synced(&[], &file).await);
    let joe = user(&provider, "joe").await;
    assert_eq!(joe["displayName"], hostile);
    let enterprise = &joe[crate::support::scim::ENTERPRISE];
    assert_eq!(enterprise["manager"]["value"], user(&provider, "ada").await["id"]);
    becomes(&api, "outer", 1).await;
    // Who is renamed stays who they are; who is locked and who is gone is barred.
    let before = user(&provider, "bob").await["id"].clone();
    slapd
        .modify(&format!(
            "dn: uid=bob,ou=people,{SUFFIX}\nchangetype: modrdn\nnewrdn: uid=robert\ndeleteoldrdn: 1\n\n\
             dn: uid=cat,ou=people,{SUFFIX}\nchangetype: modify\nreplace: shadowExpire\nshadowExpire: 1\n\n\
             dn: uid=ada,ou=people,{SUFFIX}\nchangetype: delete\n"
        ))
        .await;
    let second = synced(&[], &file).await;
    let done = &second["done"];
    assert_eq!(
        (&done["deactivated"], &done["created"]),
        (&json!(2), &json!(0)),
        "{second}"
    );
    // Who is gone was asked for once more, by an id that the directory understands.
    assert!(
        slapd.log().contains("(&(objectClass=inetOrgPerson)(|(entryUUID="),
        "{}",
        slapd.log()
    );
    assert_eq!(user(&provider, "robert").await["id"], before);
    assert_eq!(user(&provider, "cat").await["active"], false);
    assert_eq!(user(&provider, "ada").await["active"], false);
    assert!(user(&provider, "joe").await[crate::support::scim::ENTERPRISE]["manager"].is_null());
    let link = async |person: &str| api.post("/console-links", &json!({"person": person})).await;
    link("ada").await.refused(403, "insufficient_scope");
    link("cat").await.refused(403, "insufficient_scope");
    link("robert").await.expect(201);
    becomes(&api, "left", 1).await;
    becomes(&api, "outer", 0).await;
    no_change(&synced(&[], &file).await);
    // An emptied directory does not end the company.
    let gone = ["robert", "dan", "eve", "fay", "gus", "hal"];
    let changes: String = gone
        .iter()
        .map(|uid| format!("dn: uid={uid},ou=people,{SUFFIX}\nchangetype: delete\n\n"))
        .collect();
    slapd.modify(&changes).await;
    let held = directory(&["sync"], &file).await;
    let said = everything(&held);
    assert_eq!(held.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--allow-removals 6") && said.contains("robert"),
        "{said}"
    );
    assert_eq!(user(&provider, "dan").await["active"], true);
    let refused = directory(&["sync", "--allow-removals", "5"], &file).await;
    assert_eq!(refused.status.code(), Some(1));
    let allowed = synced(&["--allow-removals", "6"], &file).await;
    assert_eq!(allowed["done"]["deactivated"], 6, "{allowed}");
    assert_eq!(user(&provider, "dan").await["active"], false);
    no_change(&synced(&[], &file).await);
    drop(device);
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_groups_of_a_directory_are_followed() {
    if is_installed().await {
        each_database(follows).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_binding_works_and_each_failure_says_where() {
    if !is_installed().await {
        return;
    }
    let (server, _, provider) = connected(Options::default()).await;
    let slapd = Slapd::start(&person("ada", "")).await;
    let bind = format!("bind_dn = \"{READER}\"\npassword_file = \"password\"");
    let tls = format!("ldaps://localhost:{}", slapd.tls_port);
    let plain = format!("ldap://localhost:{}", slapd.plain_port);
    let external = "certificate_file = \"reader.pem\"\nkey_file = \"reader.key\"";
    for good in [
        &[][..],
        &[(tls.as_str(), plain.as_str())],
        &[(bind.as_str(), external)],
    ] {
        let file = slapd.configuration(&server, &provider, good);
        let tried = directory(&["test"], &file).await;
        assert!(tried.status.success(), "{good:?}: {}", everything(&tried));
    }
    let people = format!("ou=people,{SUFFIX}");
    for (step, bad) in [
        ("name", ("localhost", "nobody.invalid")),
        ("connection", (tls.as_str(), "ldaps://localhost:1")),
        ("TLS", ("ca_file = \"ca.pem\"", "ca_file = \"other.pem\"")),
        ("TLS", ("ldaps://localhost", "ldaps://127.0.0.1")),
        ("bind", (READER, "cn=nobody,dc=ex,dc=com")),
        ("people", (people.as_str(), "ou=nowhere,dc=ex,dc=com")),
        ("people", ("[groups]", "filter = \"(uid=nobody)\"\n[groups]")),
        ("Muster", ("token_file = \"token\"", "token_file = \"password\"")),
    ] {
        let file = slapd.configuration(&server, &provider, &[bad]);
        let tried = directory(&["test"], &file).await;
        let said = everything(&tried);
        assert_eq!(tried.status.code(), Some(1), "{bad:?}: {said}");
        assert!(said.contains(&format!("it fails at {step}")), "{bad:?}: {said}");
        assert!(
            !said.contains(PASSWORD) && !said.contains(&provider.secret),
            "{said}"
        );
    }
}

/// Somebody between who answers StartTLS in their own way, and keeps what they are sent.
async fn between(answer: &'static [u8]) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let mut has_answered = false;
                while let Ok(count) = stream.read(&mut buffer).await {
                    if count == 0 {
                        break;
                    }
                    kept.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend_from_slice(&buffer[..count]);
                    // After the first answer it only listens, as a plain directory would for a bind.
                    if !has_answered && stream.write_all(answer).await.is_err() {
                        break;
                    }
                    has_answered = true;
                }
            });
        }
    });
    (port, heard)
}

/// `ExtendedResponse` with a result, to the first request.
const REFUSES: &[u8] = &[0x30, 12, 2, 1, 1, 0x78, 7, 10, 1, 2, 4, 0, 4, 0];
const AGREES: &[u8] = &[0x30, 12, 2, 1, 1, 0x78, 7, 10, 1, 0, 4, 0, 4, 0];
/// It agrees, and says in the clear that the bind to come went well.
const AGREES_AND_GOES_ON: &[u8] = &[
    0x30, 12, 2, 1, 1, 0x78, 7, 10, 1, 0, 4, 0, 4, 0, 0x30, 12, 2, 1, 2, 0x61, 7, 10, 1, 0, 4, 0, 4, 0,
];
/// It takes StartTLS for a bind, which it grants.
const MISTAKES: &[u8] = &[0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0];
/// A referral to somewhere else.
const REFERS: &[u8] =
    b"\x30\x27\x02\x01\x01\x78\x22\x0a\x01\x0a\x04\x00\x04\x00\xa3\x19\x04\x17ldap://attacker.invalid";

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_stripped_starttls_ends_before_anything_is_said() {
    if !is_installed().await {
        return;
    }
    let (server, _, provider) = connected(Options::default()).await;
    let slapd = Slapd::start_with("", false).await;
    let tls = format!("ldaps://localhost:{}", slapd.tls_port);
    for (answer, step) in [
        (REFUSES, "StartTLS"),
        (MISTAKES, "StartTLS"),
        (REFERS, "StartTLS"),
        (AGREES_AND_GOES_ON, "StartTLS"),
        (AGREES, "TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "StartTLS"),
    ] {
        let (port, heard) = between(answer).await;
        let url = format!("ldap://127.0.0.1:{port}");
        let file = slapd.configuration(&server, &provider, &[(&tls, &url)]);
        // Whoever agrees and then waits is waited for a while.
        let ended = tokio::time::timeout(Duration::from_secs(40), directory(&["sync"], &file)).await;
        let output = ended.expect("it ends");
        let said = everything(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cannot be read: {step}: ")), "{said}");
        let heard =
            String::from_utf8_lossy(&heard.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        assert!(
            !heard.contains(PASSWORD) && !heard.contains("cn=reader"),
            "{heard:?}"
        );
    }
    // A real directory without TLS.
    let url = format!("ldap://localhost:{}", slapd.plain_port);
    let file = slapd.configuration(&server, &provider, &[(&tls, &url)]);
    let output = directory(&["sync"], &file).await;
    assert!(
        everything(&output).contains("StartTLS: it is refused"),
        "{}",
        everything(&output)
    );
    let log = slapd.log();
    assert!(
        log.contains("EXT oid=1.3.6.1.4.1.1466.20037") && !log.contains(" BIND "),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_referral_is_counted_and_never_followed() {
    if !is_installed().await {
        return;
    }
    let (server, _, provider) = connected(Options::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let elsewhere = listener.local_addr().expect("an address");
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = visits.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let referral = |name: &str| {
        format!(
            "dn: cn={name},ou=people,{SUFFIX}\nobjectClass: referral\nobjectClass: extensibleObject\ncn: {name}\n\
             ref: ldap://{elsewhere}/ou=people,{SUFFIX}\n\n"
        )
    };
    let entries = format!("{}{}{}", person("ada", ""), referral("a"), referral("b"));
    let slapd = Slapd::start(&entries).await;
    let file = slapd.configuration(&server, &provider, &[]);
    let first = synced(&[], &file).await;
    assert_eq!(
        (&first["read"]["referrals"], &first["done"]["created"]),
        (&json!(2), &json!(1)),
        "{first}"
    );
    // A base that is elsewhere is an error, and nobody is taken away.
    let base = format!("ou=people,{SUFFIX}");
    let file = slapd.configuration(&server, &provider, &[(&base, &format!("cn=a,{base}"))]);
    let output = directory(&["sync"], &file).await;
    let said = everything(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("not followed"),
        "{said}"
    );
    assert_eq!(user(&provider, "ada").await["active"], true);
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_stops_early_takes_nobody_away() {
    if !is_installed().await {
        return;
    }
    let (server, _, provider) = connected(Options::default()).await;
    let entries: String = (0..12).map(|number| person(&format!("p{number}"), "")).collect();
    let slapd = Slapd::start(&entries).await;
    let whole = slapd.configuration(&server, &provider, &[]);
    assert_eq!(synced(&[], &whole).await["done"]["created"], 12);
    let limited = slapd.configuration(&server, &provider, &[(READER, LIMITED)]);
    let output = directory(&["sync", "-o", "json", "--allow-removals", "100"], &limited).await;
    assert_eq!(output.status.code(), Some(1), "{}", everything(&output));
    let told = report(&output);
    assert_eq!(told["read"]["complete"], false, "{told}");
    assert_eq!(told["done"]["deactivated"], 0, "{told}");
    // One that finds nobody at all is no company that ended.
    let nobody = "filter = \"(uid=nobody)\"\n[groups]";
    let hidden = slapd.configuration(&server, &provider, &[("[groups]", nobody)]);
    let output = directory(&["sync"], &hidden).await;
    let said = everything(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("no people at all are found"),
        "{said}"
    );
    assert_eq!(user(&provider, "p0").await["active"], true);
    // Two entries with one name: neither counts, and the others go on.
    slapd
        .modify(&format!(
            "dn: uid=p1,ou=people,{SUFFIX}\nchangetype: modify\nreplace: mail\nmail: P2@EX.COM\n\n\
             dn: uid=p3,ou=people,{SUFFIX}\nchangetype: modify\nreplace: title\ntitle: Dr\n"
        ))
        .await;
    let by_mail = "[people.attributes]\nuser_name = \"mail\"\n[groups]";
    let file = slapd.configuration(&server, &provider, &[("[groups]", by_mail)]);
    let output = directory(&["sync", "-o", "json"], &file).await;
    let told = report(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told["problems"].as_array().map(Vec::len), Some(2), "{told}");
    let done = &told["done"];
    assert_eq!(
        (&done["updated"], &done["deactivated"]),
        (&json!(10), &json!(0)),
        "{told}"
    );
    assert_eq!(user(&provider, "p3@ex.com").await["title"], "Dr");
    assert_eq!(user(&provider, "p1").await["active"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_set_up_anew_is_taken_over_when_that_is_said_and_who_is_gone_can_be_deleted() {
    if !is_installed().await {
        return;
    }
    let (server, _, provider) = connected(Options::default()).await;
    let slapd = Slapd::start(&["ada", "bob"].map(|uid| person(uid, "")).concat()).await;
    let file = slapd.configuration(&server, &provider, &[]);
    synced(&[], &file).await;
    let before = user(&provider, "ada").await;
    let gone = format!("dn: uid=ada,ou=people,{SUFFIX}\nchangetype: delete\n\n");
    let (dn, rest) = person("ada", "")
        .split_once('\n')
        .map(|(dn, rest)| (dn.to_owned(), rest.to_owned()))
        .expect("lines");
    slapd
        .modify(&format!("{gone}{dn}\nchangetype: add\n{rest}"))
        .await;
    let output = directory(&["sync"], &file).await;
    let said = everything(&output);
    assert!(
        output.status.code() == Some(1) && said.contains("--adopt"),
        "{said}"
    );
    assert_eq!(user(&provider, "ada").await["active"], false);
    let adopted = synced(&["--adopt"], &file).await;
    assert_eq!(adopted["done"]["updated"], 1, "{adopted}");
    let after = user(&provider, "ada").await;
    assert_eq!((&after["id"], &after["active"]), (&before["id"], &json!(true)));
    assert_ne!(after["externalId"], before["externalId"]);
    no_change(&synced(&[], &file).await);
    slapd.modify(&gone).await;
    let deleting = "[groups]\nscope = \"one\"";
    let file = slapd.configuration(&server, &provider, &[("[groups]", deleting)]);
    let text = fs::read_to_string(&file).expect("a file") + "[sync]\nvanished = \"delete\"\n";
    fs::write(&file, text).expect("it can be written");
    assert_eq!(synced(&[], &file).await["done"]["deleted"], 1);
    assert!(provider.find("/Users", "userName eq \"ada\"").await.is_empty());
    assert_healthy(&server).await;
}

/// How many people the measurement has, unless `MUSTER_TEST_PEOPLE` says otherwise.
const PEOPLE: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn many_people_come_page_by_page() {
    if !is_installed().await {
        return;
    }
    let count = variable("MUSTER_TEST_PEOPLE")
        .and_then(|count| count.parse().ok())
        .unwrap_or(PEOPLE);
    let (server, _, provider) = connected(Options::default()).await;
    let mut entries = String::new();
    let mut names = Vec::new();
    for number in 0..count {
        entries.push_str(&person(&format!("p{number}"), "departmentNumber: Engines\n"));
        names.push(format!("uid=p{number},ou=people"));
    }
    entries.push_str(&group(
        "everybody",
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    ));
    let slapd = Slapd::start(&entries).await;
    let file = slapd.configuration(&server, &provider, &[("page_entries = 50", "page_entries = 500")]);
    let begun = Instant::now();
    let first = synced(&[], &file).await;
    let first_time = begun.elapsed();
    assert_eq!(
        (&first["done"]["created"], &first["done"]["members_added"]),
        (&json!(count), &json!(count))
    );
    let begun = Instant::now();
    no_change(&synced(&[], &file).await);
    println!(
        "{count} people in one group: first run {first_time:?}, second run, which changes nothing, {:?}",
        begun.elapsed()
    );
    let log = fs::read_to_string(slapd.folder.path().join("slapd.log")).expect("a log");
    assert!(
        log.matches("SRCH base=\"ou=people").count() >= 2 * count.div_ceil(500),
        "{}",
        text(slapd.folder.path())
    );
}
