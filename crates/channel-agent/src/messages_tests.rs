//! Every message in both encodings, with contents as a real tenant makes them.

use muster_model::attestation::{AttestationLevel, Ownership};
use muster_model::command::CommandKind;
use muster_model::facts::{Disk, Facts, Hardware, OsFacts};
use muster_model::id::{DeviceId, TenantId};
use muster_model::platform::Platform;
use muster_model::text::{DeviceUuid, Imei, SerialNumber};
use muster_model::time::Timestamp;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::checkin::{CheckinRequest, CheckinResponse};
use crate::device::tests::office::Office;
use crate::enroll::{
    AttestationChallenge, AttestationEvidence, AttestationOffer, ChannelBinding, CheckinPlan,
    EnrollBeginRequest, EnrollBeginResponse, EnrollFinishRequest, EnrollFinishResponse, EnrollmentState,
    HardwareClaims, NO_EXPORTER, PcrValue, TpmChallenge, TpmEvidence, TpmOffer, Transcript,
};
use crate::inventory::InventoryRequest;
use crate::renew::{RenewRequest, RenewResponse};
use crate::{Base64Bytes, ContentType, DecodeError, decode, encode};

const BOTH: [ContentType; 2] = [ContentType::Json, ContentType::Cbor];

fn begin_request() -> EnrollBeginRequest {
    EnrollBeginRequest {
        token: "e30.e30.c2ln".to_owned(),
        hardware: HardwareClaims {
            device_uuid: DeviceUuid::parse("4C4C4544-0042-3510-8052-B4C04F4B3132").expect("a UUID"),
            serial: Some(SerialNumber::parse("B5RKO12").expect("a serial number")),
            imei: vec![Imei::parse("490154203237518").expect("an IMEI")],
            platform: Platform::Linux,
            model: Some("Model 7".to_owned()),
            vendor: None,
        },
        public_key: Base64Bytes(vec![1, 2, 3, 255]),
        agent_version: Some("0.1.0".to_owned()),
        attestation: Some(AttestationOffer::Tpm2(TpmOffer {
            ek_certificates: vec![Base64Bytes(vec![0x30, 0])],
            ek_public: None,
            ak_public: Base64Bytes(vec![0, 0x23]),
            device_public: Base64Bytes(vec![0, 0x23, 1]),
        })),
        channel_binding: ChannelBinding::TlsExporter,
    }
}

fn tpm_evidence() -> TpmEvidence {
    TpmEvidence {
        activation_proof: Base64Bytes(vec![1; 32]),
        certify_attest: Base64Bytes(vec![0xff]),
        certify_signature: Base64Bytes(vec![2]),
        quote_attest: Base64Bytes(vec![3]),
        quote_signature: Base64Bytes(vec![4]),
        pcr_values: vec![PcrValue {
            index: 7,
            sha256: Base64Bytes(vec![5; 32]),
        }],
        event_log: Some(Base64Bytes(vec![6; 100])),
    }
}

fn facts() -> Facts {
    Facts {
        hardware: Hardware {
            memory_bytes: Some(u64::MAX),
            ..Hardware::default()
        },
        os: OsFacts {
            id: Some("debian".to_owned()),
            ..OsFacts::default()
        },
        disks: vec![Disk {
            name: "sda".to_owned(),
            size_bytes: 1,
            encrypted: Some(true),
            removable: false,
        }],
        interfaces: Vec::new(),
        users: Vec::new(),
        packages: Vec::new(),
        agent_version: None,
        collected_at: Timestamp::from_micros(1_800_000_000_000_001),
    }
}

/// A check-in with everything in it, and its answer.
fn full_checkin() -> (CheckinRequest, CheckinResponse) {
    let mut office = Office::new();
    let mut device = office.device();
    office.command(CommandKind::Lock {
        message: Some("come home".to_owned()),
    });
    office.activate(json!({"passcode.min_length": 12}));
    let first = device.request();
    let response = office.answer(&first);
    let actions = device.take(&response);
    device.perform(actions, &office);
    let request = device.request();
    assert!(request.report.is_some() && request.receipts.len() == 1);
    assert!(response.desired.is_some() && response.commands.len() == 1 && response.checkpoint.is_some());
    (request, response)
}

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    for content_type in BOTH {
        let bytes = encode(content_type, message).expect("it encodes");
        let back: T = decode(content_type, &bytes, 1 << 20).expect("it decodes");
        assert_eq!(&back, message, "{content_type:?}");
    }
}

#[test]
fn every_message_survives_both_encodings() {
    check(&begin_request());
    check(&EnrollBeginResponse {
        session: "s".to_owned(),
        nonce: Base64Bytes(vec![0; 32]),
        expires_in_seconds: 120,
        channel_binding: ChannelBinding::None,
        attestation: Some(AttestationChallenge::Tpm2(TpmChallenge {
            id_object: Base64Bytes(vec![0, 1, 2]),
            encrypted_secret: Base64Bytes(vec![0, 1, 3]),
            pcr_selection: vec![0, 7],
        })),
    });
    check(&EnrollFinishRequest {
        session: "s".to_owned(),
        proof: Base64Bytes(vec![1]),
        csr: Base64Bytes(vec![2]),
        attestation: Some(AttestationEvidence::Tpm2(tpm_evidence())),
    });
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let (request, response) = full_checkin();
    check(&EnrollFinishResponse {
        tenant: TenantId::generate(now, [1; 10]),
        device_id: DeviceId::generate(now, [2; 10]),
        epoch: 3,
        certificate_chain: vec![Base64Bytes(vec![3])],
        ca_certificates: vec![Base64Bytes(vec![4])],
        root_documents: request.receipts.clone(),
        checkpoint: response.checkpoint.as_ref().expect("it has one").note.clone(),
        checkin: CheckinPlan {
            interval_seconds: 60,
            jitter_fraction: 0.25,
            wake: true,
        },
        state: EnrollmentState::Quarantined,
        attestation_level: AttestationLevel::Tpm2,
        ownership: Ownership::Personal,
    });
    check(&request);
    check(&response);
    check(&InventoryRequest {
        epoch: 1,
        facts: facts(),
    });
    check(&RenewRequest {
        csr: Base64Bytes(vec![5]),
    });
    check(&RenewResponse {
        certificate_chain: vec![Base64Bytes(vec![6])],
    });
}

#[test]
fn the_two_encodings_carry_the_same_tree() {
    let (request, response) = full_checkin();
    let tree =
        |bytes: &[u8]| decode::<serde_json::Value>(ContentType::Cbor, bytes, 1 << 20).expect("it decodes");
    let cbor = encode(ContentType::Cbor, &request).expect("it encodes");
    assert_eq!(tree(&cbor), serde_json::to_value(&request).expect("plain data"));
    let cbor = encode(ContentType::Cbor, &response).expect("it encodes");
    assert_eq!(tree(&cbor), serde_json::to_value(&response).expect("plain data"));
    let inventory = InventoryRequest {
        epoch: 1,
        facts: facts(),
    };
    let cbor = encode(ContentType::Cbor, &inventory).expect("it encodes");
    assert_eq!(tree(&cbor), serde_json::to_value(&inventory).expect("plain data"));
}

#[test]
fn the_enrollment_request_has_the_documented_form() {
    let expected = concat!(
        r#"{"token":"e30.e30.c2ln","hardware":{"device_uuid":"4c4c4544-0042-3510-8052-b4c04f4b3132","serial":"B5RKO12","#,
        r#""imei":["490154203237518"],"platform":"linux","model":"Model 7"},"public_key":"AQID/w==","agent_version":"0.1.0","#,
        r#""attestation":{"format":"tpm2","ek_certificates":["MAA="],"ak_public":"ACM=","device_public":"ACMB"},"#,
        r#""channel_binding":"tls_exporter"}"#,
    );
    let bytes = encode(ContentType::Json, &begin_request()).expect("it encodes");
    assert_eq!(String::from_utf8(bytes).expect("JSON is text"), expected);
}

#[test]
fn the_documented_minimal_check_in_is_accepted() {
    let text = r#"{"epoch":1,"state_digest":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","tree_size":12,
        "root_version":1,"last_sequence":0,"clock":"2026-11-23T21:00:00Z"}"#;
    let request: CheckinRequest = decode(ContentType::Json, text.as_bytes(), 4096).expect("it decodes");
    assert_eq!(request.state_digest, muster_trust::statement::state_digest(&[]));
    assert!(request.check_limits().is_ok());
}

#[test]
fn requests_refuse_unknown_members_and_answers_tolerate_them() {
    let mut request = serde_json::to_value(begin_request()).expect("plain data");
    request["is_admin"] = json!(true);
    let bytes = serde_json::to_vec(&request).expect("plain data");
    let refused = decode::<EnrollBeginRequest>(ContentType::Json, &bytes, 4096);
    assert!(matches!(refused, Err(DecodeError::Malformed(_))));
    let answer = br#"{"server_time":"2026-11-23T21:00:00Z","next_checkin_seconds":60,"weather":"fine"}"#;
    assert!(decode::<CheckinResponse>(ContentType::Json, answer, 4096).is_ok());
}

#[test]
fn members_past_their_limits_are_named() {
    let mut request = begin_request();
    request.token = "x".repeat(10_000);
    assert_eq!(request.check_limits().map_err(|error| error.field), Err("token"));
    let mut request = begin_request();
    request.hardware.model = Some("bell \u{7}".to_owned());
    assert_eq!(
        request.check_limits().map_err(|error| error.field),
        Err("hardware.model")
    );
    let mut request = begin_request();
    if let Some(AttestationOffer::Tpm2(offer)) = &mut request.attestation {
        offer.ek_certificates = vec![Base64Bytes(vec![0x30]); 5];
    }
    assert_eq!(
        request.check_limits().map_err(|error| error.field),
        Err("ek_certificates")
    );
    let (mut request, _) = full_checkin();
    request.receipts = vec![request.receipts[0].clone(); 65];
    assert_eq!(
        request.check_limits().map_err(|error| error.field),
        Err("receipts")
    );
}

#[test]
fn a_token_never_prints() {
    assert!(!format!("{:?}", begin_request()).contains("e30"));
}

#[test]
fn the_transcript_has_the_documented_bytes() {
    let bytes = Transcript::of("abc", &[7; 32], b"key", &[9; 32]).bytes();
    assert_eq!(bytes.len(), 145);
    assert_eq!(&bytes[..17], b"muster-enroll-v2\0");
    // SHA-256 of "abc": FIPS 180-4, example B.1.
    assert_eq!(
        hex::encode(&bytes[17..49]),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(&bytes[49..81], &[7; 32]);
    assert_eq!(&bytes[113..], &[9; 32]);
    let older = Transcript::of("abc", &[7; 32], b"key", &NO_EXPORTER);
    let older = older.bytes_v1().expect("nothing is bound");
    assert_eq!((older.len(), &older[17..]), (113, &bytes[17..113]));
    assert!(
        Transcript::of("abc", &[7; 32], b"key", &[9; 32])
            .bytes_v1()
            .is_none()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        for content_type in BOTH {
            let _ = decode::<EnrollBeginRequest>(content_type, &bytes, 4096);
            let _ = decode::<EnrollFinishRequest>(content_type, &bytes, 4096);
            let _ = decode::<CheckinRequest>(content_type, &bytes, 4096);
            let _ = decode::<CheckinResponse>(content_type, &bytes, 4096);
            let _ = decode::<InventoryRequest>(content_type, &bytes, 4096);
        }
    }

    #[test]
    fn flipped_bits_never_panic_the_device(position in any::<proptest::sample::Index>(), bit in 0_u8..8) {
        let mut office = Office::new();
        let mut device = office.device();
        office.command(CommandKind::Lock { message: None });
        office.activate(json!({"passcode.min_length": 12}));
        let response = office.answer(&device.request());
        for content_type in BOTH {
            let mut bytes = encode(content_type, &response).expect("it encodes");
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            if let Ok(response) = decode::<CheckinResponse>(content_type, &bytes, 1 << 20) {
                let actions = device.take(&response);
                device.perform(actions, &office);
            }
        }
    }
}
