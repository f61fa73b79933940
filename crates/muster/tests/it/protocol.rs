//! Hostile bytes on the device listener: each is refused by name, changes nothing, and the process lives on.

use muster_channel_agent::{
    ContentType,
    checkin::CheckinResponse,
    decode, encode,
    enroll::{EnrollBeginResponse, EnrollFinishResponse},
    path,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    device::{Applicant, CBOR, Device, Door, facts, now, token_for},
    eventually,
    server::{Options, Server, tool},
};

const JSON: &str = "application/json";

const MEBIBYTE: usize = 1024 * 1024;

/// A server with one device.
pub struct Ground {
    pub server: Server,
    pub api: Api,
    pub device: Device,
}

impl Ground {
    pub async fn open() -> Ground {
        let server = Server::start(Options::default()).await;
        let api = server.api().await;
        let device = Device::enroll(&api, &server.admin).await;
        Ground { server, api, device }
    }

    /// Sends bytes to the check-in as the device.
    async fn checkin(
        &self,
        content_type: Option<&str>,
        bytes: impl Into<Vec<u8>>,
    ) -> crate::support::api::Answer {
        self.device
            .door
            .send(Method::POST, path::CHECKIN, content_type, bytes.into())
            .await
    }

    async fn inventory(&self, body: &Value) -> crate::support::api::Answer {
        self.device
            .door
            .send(Method::PUT, path::INVENTORY, Some(JSON), body.to_string().into())
            .await
    }

    /// The device is served as before.
    pub async fn still_serves(&mut self) {
        assert!(self.server.runs());
        self.device.checkin().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_another_encoding_is_refused() {
    let mut ground = Ground::open().await;
    let body = ground.device.checkin_body().to_string();
    let others = [
        None,
        Some("text/plain"),
        Some("application/xml"),
        Some("application/jsonp"),
        Some("json"),
        Some(""),
        Some("*/*"),
    ];
    for kind in others {
        let answer = ground.checkin(kind, body.clone()).await;
        answer.refused(415, "unsupported_media_type");
    }
    for kind in [JSON, "application/json; charset=utf-8", "Application/JSON"] {
        ground.checkin(Some(kind), body.clone()).await.expect(200);
    }
    // What it says it is, it must be.
    ground.checkin(Some(CBOR), body).await.refused(400, "malformed");
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_a_body_past_its_limit_is_refused_however_it_is_sent() {
    let mut ground = Ground::open().await;
    let spaces = |count: usize| vec![b' '; count];
    let door = Door::of(&ground.server.admin);
    for (path, limit) in [(path::ENROLL_BEGIN, 64 * 1024), (path::ENROLL_FINISH, 256 * 1024)] {
        door.send(Method::POST, path, Some(JSON), spaces(limit + 1))
            .await
            .refused(413, "body_too_large");
        door.send(Method::POST, path, Some(JSON), spaces(limit))
            .await
            .refused(400, "malformed");
    }
    let as_device = &ground.device.door;
    for (method, path, limit) in [
        (Method::POST, path::CHECKIN, MEBIBYTE),
        (Method::POST, path::RENEW, 64 * 1024),
        (Method::PUT, path::INVENTORY, 4 * MEBIBYTE),
    ] {
        let answer = as_device.send(method, path, Some(JSON), spaces(limit + 1)).await;
        answer.refused(413, "body_too_large");
    }
    // Without a length in advance.
    let chunks = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let url = format!("{}{}", as_device.url, path::CHECKIN);
    let request = as_device.http.post(url).header("content-type", JSON).body(body);
    answer(request).await.refused(413, "body_too_large");
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_json_that_is_deep_doubled_or_trailing_is_malformed() {
    let mut ground = Ground::open().await;
    let good = ground.device.checkin_body().to_string();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with = |member: &str| format!("{},{member}}}", good.trim_end_matches('}'));
    let many: String = (0..50_000).map(|number| format!("\"k{number}\":0,")).collect();
    let bad = [
        ("17 levels", with(&format!("\"receipts\":{}", nested(16)))),
        ("100,000 levels", nested(100_000)),
        ("open levels", "[".repeat(500_000)),
        ("objects", "{\"a\":".repeat(100_000)),
        ("a doubled member", with("\"epoch\":1")),
        ("an unknown member", with("\"admin\":true")),
        ("many members", format!("{{{many}\"epoch\":1}}")),
        (
            "a long number",
            with(&format!("\"report\":{}", "9".repeat(10_000))),
        ),
        (
            "a long exponent",
            good.replace("\"epoch\":1", "\"epoch\":1e999999"),
        ),
        ("a negative epoch", good.replace("\"epoch\":1", "\"epoch\":-1")),
        (
            "a huge epoch",
            good.replace("\"epoch\":1", "\"epoch\":4294967296"),
        ),
        (
            "text for a number",
            good.replace("\"epoch\":1", "\"epoch\":\"1\""),
        ),
        ("bytes behind it", format!("{good}{good}")),
        ("no object", "[]".to_owned()),
        ("null", "null".to_owned()),
        ("nothing", String::new()),
        ("half", good[..good.len() / 2].to_owned()),
        ("NUL", format!("{good}\0")),
        ("a byte order mark", format!("\u{feff}{good}")),
        ("a lone surrogate", with("\"agent_version\":\"\\ud800\"")),
    ];
    for (what, body) in bad {
        let answer = ground.checkin(Some(JSON), body).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("malformed")),
            "{what}: {}",
            answer.text()
        );
        assert!(answer.bytes.len() < 16 * 1024, "{what}: a problem is short");
    }
    let answer = ground
        .checkin(Some(JSON), [&good.as_bytes()[..20], &[0xff, 0xfe, 0xc0]].concat())
        .await;
    answer.refused(400, "malformed");
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_cbor_that_is_deep_endless_or_lies_about_lengths_is_malformed() {
    let mut ground = Ground::open().await;
    let good = encode(ContentType::Cbor, &ground.device.checkin_body()).expect("it can be written");
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("deep arrays", vec![0x81; 100_000]),
        ("deep maps", vec![0xa1; 100_000]),
        ("deep tags", vec![0xc6; 100_000]),
        ("open arrays", vec![0x9f; 100_000]),
        (
            "an array of 2^64 - 1",
            vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (
            "a map of 2^64 - 1",
            vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (
            "text of 2^63",
            vec![0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (
            "bytes of 2^63",
            vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("endless text", [vec![0x7f], [0x61, 0x61].repeat(10_000)].concat()),
        ("a lone break", vec![0xff]),
        ("a reserved length", vec![0x9c]),
        ("bytes behind it", [good.as_slice(), &[0xf6]].concat()),
        ("half", good[..good.len() / 2].to_vec()),
        ("nothing", Vec::new()),
        ("text that is not UTF-8", vec![0xa1, 0x62, 0xff, 0xfe, 0x01]),
        ("a big number as a member", vec![0xa1, 0xc2, 0x41, 0x01, 0x01]),
    ];
    for (what, body) in bad {
        let answer = ground.checkin(Some(CBOR), body).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("malformed")),
            "{what}: {}",
            answer.text()
        );
    }
    let doubled = [
        &[0xa2_u8][..],
        &[0x65],
        b"epoch",
        &[0x01, 0x65],
        b"epoch",
        &[0x01],
    ]
    .concat();
    ground
        .checkin(Some(CBOR), doubled)
        .await
        .refused(400, "malformed");
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_bent_messages_never_break_the_server() {
    const ROUNDS: u64 = 400;
    let mut ground = Ground::open().await;
    let seed = u64::from_le_bytes(
        ground.device.applicant.device_uuid.as_bytes()[..8]
            .try_into()
            .expect("8 bytes"),
    );
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = ground.device.checkin_body();
    for round in 0..ROUNDS {
        let kind = if round % 2 == 0 {
            ContentType::Json
        } else {
            ContentType::Cbor
        };
        let mut bytes = encode(kind, &good).expect("it can be written");
        for _ in 0..=draw() % 3 {
            let place = usize::try_from(draw()).unwrap_or(usize::MAX) % bytes.len();
            bytes[place] ^= 1 << (draw() % 8);
        }
        let answer = ground.checkin(Some(kind.as_str()), bytes).await;
        assert!(
            matches!(answer.status, 200 | 400 | 403),
            "round {round}: {} {}",
            answer.status,
            answer.text()
        );
    }
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_compressed_bodies_are_not_unpacked() {
    let mut ground = Ground::open().await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("bomb");
    std::fs::write(&file, vec![b' '; 64 * MEBIBYTE]).expect("it can be written");
    let packed = tool("gzip", &["-9", "-c", file.to_str().expect("paths here are text")])
        .await
        .stdout;
    assert!(packed.len() < MEBIBYTE / 8, "the bomb is small on the wire");
    for encoding in ["gzip", "zstd", "gzip, gzip", "br"] {
        let request = ground
            .device
            .door
            .http
            .post(format!("{}{}", ground.device.door.url, path::CHECKIN));
        let request = request
            .header("content-type", JSON)
            .header("content-encoding", encoding)
            .body(packed.clone());
        let answer = answer(request).await;
        assert!(
            matches!(answer.status, 400 | 415),
            "{encoding}: {}",
            answer.text()
        );
    }
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_values_that_nobody_heard_of_are_refused_and_the_process_lives() {
    let mut ground = Ground::open().await;
    let with = |pointer: &str, value: Value| {
        let mut body = json!({"epoch": 1, "facts": facts()});
        *body.pointer_mut(pointer).expect("the member is there") = value;
        body
    };
    let bad = [
        with("/facts/disks/0/encrypted", json!("partly")),
        with(
            "/facts/disks/0",
            json!({"name": "a", "size_bytes": -1, "removable": false}),
        ),
        with(
            "/facts/disks/0",
            json!({"name": "a", "size_bytes": 1, "removable": false, "raid": 5}),
        ),
        with("/facts/os", json!({"id": "plan9", "edition": "4"})),
        with("/facts/hardware/cpu_cores", json!(4_294_967_296_u64)),
        with("/facts/collected_at", json!("yesterday")),
        with("/facts/collected_at", json!("999999-01-01T00:00:00Z")),
        with("/facts/packages", json!("all of them")),
        with(
            "/facts/packages",
            json!(vec![json!({"name": "a", "version": "1"}); 20_001]),
        ),
        with("/facts/hardware/model", json!("m".repeat(257))),
    ];
    for body in bad {
        let answer = ground.inventory(&body).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("malformed")),
            "{}",
            answer.text()
        );
    }
    let unknown = ground
        .api
        .get(&format!("/devices/{}/facts", ground.device.id()))
        .await;
    unknown.refused(404, "not_found");
    let plan9 = Applicant::new().claiming("platform", json!("plan9"));
    let token = token_for(&ground.api, plan9.device_uuid).await;
    plan9
        .begin(&Door::of(&ground.server.admin), &token)
        .await
        .refused(400, "malformed");
    for (member, value) in [
        ("serial", "To be filled by O.E.M."),
        ("model", "a\nb"),
        ("device_uuid", "00000000-0000-0000-0000-000000000000"),
    ] {
        let mut body = plan9.claiming("platform", json!("linux")).begin_body(&token);
        body["hardware"][member] = json!(value);
        Door::of(&ground.server.admin)
            .post(path::ENROLL_BEGIN, &body)
            .await
            .refused(400, "malformed");
    }
    ground
        .inventory(&json!({"epoch": 1, "facts": facts()}))
        .await
        .expect(204);
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_a_message_of_another_epoch_or_without_a_certificate_is_refused() {
    let mut ground = Ground::open().await;
    for epoch in [0, 2, u32::MAX] {
        ground
            .device
            .try_checkin_with("epoch", json!(epoch))
            .await
            .refused(403, "epoch_mismatch");
        ground
            .inventory(&json!({"epoch": epoch, "facts": facts()}))
            .await
            .refused(403, "epoch_mismatch");
    }
    let door = Door::of(&ground.server.admin);
    door.post(path::CHECKIN, &ground.device.checkin_body())
        .await
        .refused(401, "certificate_required");
    door.post(path::RENEW, &json!({"csr": ""}))
        .await
        .refused(401, "certificate_required");
    let inventory = json!({"epoch": 1, "facts": facts()}).to_string().into_bytes();
    let put = door
        .send(Method::PUT, path::INVENTORY, Some(JSON), inventory)
        .await;
    put.refused(401, "certificate_required");
    door.send(Method::GET, path::WAKE, None, Vec::new())
        .await
        .refused(401, "certificate_required");
    let bundle = format!("{}{}", path::BUNDLES, "0".repeat(64));
    door.send(Method::GET, &bundle, None, Vec::new())
        .await
        .refused(401, "certificate_required");
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_who_one_is_comes_before_what_one_says() {
    let ground = Ground::open().await;
    let door = Door::of(&ground.server.admin);
    for bytes in [b"{".to_vec(), vec![b' '; 2 * MEBIBYTE], b"[".repeat(1000)] {
        let answer = door.send(Method::POST, path::CHECKIN, Some(JSON), bytes).await;
        answer.refused(401, "certificate_required");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_that_are_not_the_protocols_are_refused_as_problems() {
    let ground = Ground::open().await;
    for path in [
        "/",
        "/agent",
        "/agent/v2/checkin",
        "/agent/v1/checkin/",
        "/agent/v1/../v1/secret",
        "/api/v1/devices",
        "/metrics",
        "/console",
    ] {
        let answer = ground.device.door.send(Method::GET, path, None, Vec::new()).await;
        answer.refused(404, "not_found");
    }
    for (method, path) in [
        (Method::GET, path::CHECKIN),
        (Method::DELETE, path::INVENTORY),
        (Method::POST, path::WAKE),
    ] {
        let answer = ground.device.door.send(method, path, None, Vec::new()).await;
        answer.refused(405, "method_not_allowed");
        assert!(
            answer.json()["request_id"]
                .as_str()
                .is_some_and(|id| !id.is_empty())
        );
    }
    for name in [
        "0",
        "..%2f..%2fkeys",
        &"g".repeat(64),
        &"A".repeat(64),
        &"0".repeat(65),
    ] {
        let path = format!("{}{name}", path::BUNDLES);
        let answer = ground
            .device
            .door
            .send(Method::GET, &path, None, Vec::new())
            .await;
        answer.refused(400, "malformed");
    }
    let absent = format!("{}{}", path::BUNDLES, "0".repeat(64));
    let answer = ground
        .device
        .door
        .send(Method::GET, &absent, None, Vec::new())
        .await;
    answer.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_speak_cbor_from_its_enrollment_on() {
    let server = Server::start(Options::default()).await;
    let (api, door, applicant) = (server.api().await, Door::of(&server.admin), Applicant::new());
    let token = token_for(&api, applicant.device_uuid).await;
    let send = async |path: &str, body: &Value| {
        let bytes = encode(ContentType::Cbor, body).expect("it can be written");
        let answer = door.send(Method::POST, path, Some(CBOR), bytes).await;
        assert_eq!(answer.header("content-type"), CBOR, "{}", answer.text());
        answer
    };
    let begun = send(path::ENROLL_BEGIN, &applicant.begin_body(&token)).await;
    let begun: EnrollBeginResponse = decode(ContentType::Cbor, &begun.bytes, MEBIBYTE).expect("an answer");
    let begun = serde_json::to_value(begun).expect("it is JSON too");
    let finished = send(path::ENROLL_FINISH, &applicant.finish_body(&token, &begun)).await;
    assert_eq!(finished.status, 201);
    let enrolled: EnrollFinishResponse =
        decode(ContentType::Cbor, &finished.bytes, MEBIBYTE).expect("an answer");
    let in_json = crate::support::api::Answer {
        bytes: serde_json::to_vec(&enrolled).expect("JSON"),
        ..finished
    };
    let device = applicant.with_identity(&server.admin, &in_json);

    let inventory = json!({"epoch": 1, "facts": facts()});
    device
        .send(Method::PUT, path::INVENTORY, ContentType::Cbor, &inventory)
        .await
        .expect(204);
    let asked = api
        .post(
            &format!("/devices/{}/commands", device.id()),
            &json!({"type": "lock"}),
        )
        .await
        .expect(202);
    let command = asked["command_id"].as_str().expect("an id is text");
    eventually("the command is delivered", PATIENCE, async || {
        let answer = device
            .send(
                Method::POST,
                path::CHECKIN,
                ContentType::Cbor,
                &device.checkin_body(),
            )
            .await;
        let answer: CheckinResponse = decode(ContentType::Cbor, &answer.bytes, MEBIBYTE).expect("an answer");
        (answer.commands.len() == 1).then_some(())
    })
    .await;
    let mut body = device.checkin_body();
    body["receipts"] = json!([device.receipt(command, "done")]);
    let answer = device
        .send(Method::POST, path::CHECKIN, ContentType::Cbor, &body)
        .await;
    let answer: CheckinResponse = decode(ContentType::Cbor, &answer.bytes, MEBIBYTE).expect("an answer");
    assert_eq!(answer.receipts_accepted.len(), 1);
    assert_eq!(
        api.get(&format!("/commands/{command}")).await.ok()["state"],
        "done"
    );

    // Asked in one, answered in the other, and refused in JSON always.
    let request = device
        .door
        .http
        .post(format!("{}{}", device.door.url, path::CHECKIN))
        .header("accept", CBOR);
    assert_eq!(
        crate::support::api::answer(request.json(&device.checkin_body()))
            .await
            .header("content-type"),
        CBOR
    );
    let answer = device
        .send(
            Method::POST,
            path::CHECKIN,
            ContentType::Cbor,
            &json!({"epoch": 9}),
        )
        .await;
    answer.refused(400, "malformed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_devices_clock_is_no_authority() {
    let ground = Ground::open().await;
    for clock in ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z", &now().to_string()] {
        ground.device.checkin_with("clock", json!(clock)).await;
    }
    ground
        .device
        .try_checkin_with("clock", json!("noon"))
        .await
        .refused(400, "malformed");
    let seen = ground
        .api
        .get(&format!("/devices/{}", ground.device.id()))
        .await
        .ok();
    let seen = seen["last_seen_at"].as_str().expect("a time is text").to_owned();
    assert!(!seen.starts_with("1970") && !seen.starts_with("2100"), "{seen}");
}
