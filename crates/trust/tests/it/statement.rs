use std::collections::BTreeMap;

use muster_model::command::{CommandKind, ReceiptOutcome, WipeMode};
use muster_model::report::{SettingReport, SettingState};
use muster_trust::dsse::{DsseError, sign};
use muster_trust::key::{SigningKey, sha256};
use muster_trust::statement::{
    self, CommandStatement, DesiredStateStatement, MAX_DESIRED_BUNDLES, MAX_RECEIPT_DETAIL_CHARS,
    MAX_RECEIPT_OUTPUT_BYTES, PolicyReportStatement, ReceiptStatement, Statement, StatementError,
    state_digest,
};
use proptest::prelude::*;

use crate::support::{EPOCH, Tenant, at, bit_flips, command_id, device, key, policy, tenant};

fn receipt() -> ReceiptStatement {
    ReceiptStatement {
        tenant: tenant(1),
        device_id: device(1),
        epoch: EPOCH,
        command_id: command_id(1),
        outcome: ReceiptOutcome::Noop,
        detail: Some("already locked".to_owned()),
        code: None,
        at: at(5),
        output: None,
        output_sha256: None,
    }
}

#[test]
fn a_devices_p256_key_signs_receipts_and_reports() {
    let key = SigningKey::generate_p256().unwrap();
    let envelope = statement::sign(&receipt(), &[&key]).unwrap();
    let verified = statement::verify::<ReceiptStatement>(&envelope, &[key.public()], 1).unwrap();
    assert_eq!(verified.statement, receipt());
    assert_eq!(verified.payload_sha256, sha256(&envelope.payload));
    let report = PolicyReportStatement {
        tenant: tenant(1),
        device_id: device(1),
        epoch: EPOCH,
        state_digest: state_digest(&[]),
        generation: 4,
        settings: BTreeMap::from([(
            "passcode.min_length".to_owned(),
            SettingReport {
                state: SettingState::Verified,
                observed: None,
                detail: None,
            },
        )]),
        at: at(9),
        facts_digest: Some(sha256(b"facts")),
    };
    let envelope = statement::sign(&report, &[&key]).unwrap();
    let verified = statement::verify::<PolicyReportStatement>(&envelope, &[key.public()], 1).unwrap();
    assert_eq!(verified.statement, report);
}

#[test]
fn p2_one_kind_is_not_taken_for_another() {
    let tenant = Tenant::new(1);
    let command = tenant.command(1, CommandKind::Lock { message: None });
    let envelope = statement::sign(&command, &[&tenant.action_key]).unwrap();
    let keys = [tenant.action_key.public()];
    let wrong = statement::verify::<DesiredStateStatement>(&envelope, &keys, 1);
    assert!(matches!(
        wrong,
        Err(StatementError::Dsse(DsseError::PayloadType { .. }))
    ));
    // The bytes of one kind signed as another kind do not parse.
    let relabeled = sign(
        DesiredStateStatement::PAYLOAD_TYPE,
        &envelope.payload,
        &[&tenant.action_key],
    )
    .unwrap();
    let wrong = statement::verify::<DesiredStateStatement>(&relabeled, &keys, 1);
    assert!(matches!(wrong, Err(StatementError::Json(_))));
}

#[test]
fn the_bytes_of_a_command_are_pinned() {
    let command = Tenant::new(1).command(
        7,
        CommandKind::Lock {
            message: Some("back at 5".to_owned()),
        },
    );
    let text = String::from_utf8(statement::payload(&command).unwrap()).unwrap();
    let expected = format!(
        concat!(
            r#"{{"tenant":"{}","command_id":"{}","device_id":"{}","epoch":3,"sequence":7,"#,
            r#""kind":{{"type":"lock","message":"back at 5"}},"issued_at":"{}","expires_at":"{}"}}"#
        ),
        command.tenant, command.command_id, command.device_id, command.issued_at, command.expires_at,
    );
    assert_eq!(text, expected);
}

#[test]
fn p1_no_bit_flip_of_a_statement_verifies() {
    let tenant = Tenant::new(1);
    let command = tenant.command(
        1,
        CommandKind::Restart {
            delay_seconds: Some(60),
        },
    );
    let envelope = statement::sign(&command, &[&tenant.action_key]).unwrap();
    for (at, payload) in bit_flips(&envelope.payload) {
        let changed = muster_trust::dsse::Envelope {
            payload,
            ..envelope.clone()
        };
        let result = statement::verify::<CommandStatement>(&changed, &[tenant.action_key.public()], 1);
        assert!(matches!(result, Err(StatementError::Dsse(_))), "byte {at}");
    }
}

#[test]
fn signed_nonsense_is_refused() {
    let tenant = Tenant::new(1);
    let good = tenant.command(1, CommandKind::Wipe { mode: WipeMode::Full });
    let text = String::from_utf8(statement::payload(&good).unwrap()).unwrap();
    for wrong in [
        text.replace("\"epoch\":3", "\"epoch\":3,\"epoch\":4"),
        text.replace("\"epoch\":3", "\"epoch\":3,\"force\":true"),
        text.replace("\"epoch\":3", "\"epoch\":-3"),
        text.replace("\"epoch\":3", "\"epoch\":4294967296"),
        text.replace("\"wipe\"", "\"explode\""),
        text.replace("\"mode\":\"full\"", "\"mode\":\"full\",\"approved\":true"),
        text.replace("dev_", "cmd_"),
        format!("{text}{text}"),
    ] {
        assert_ne!(wrong, text);
        let envelope = sign(
            CommandStatement::PAYLOAD_TYPE,
            wrong.as_bytes(),
            &[&tenant.action_key],
        )
        .unwrap();
        let result = statement::verify::<CommandStatement>(&envelope, &[tenant.action_key.public()], 1);
        assert!(matches!(result, Err(StatementError::Json(_))), "{wrong}");
    }
}

#[test]
fn statements_are_bounded() {
    let tenant = Tenant::new(1);
    let invalid =
        |result: Result<_, StatementError>| assert!(matches!(result, Err(StatementError::Invalid(_))));
    let mut command = tenant.command(
        1,
        CommandKind::Restart {
            delay_seconds: Some(3601),
        },
    );
    invalid(statement::sign(&command, &[&key(1)]));
    command.kind = CommandKind::CollectInventory {};
    command.expires_at = command.issued_at;
    invalid(statement::sign(&command, &[&key(1)]));
    let long = |chars| Some("x".repeat(chars));
    invalid(statement::sign(
        &ReceiptStatement {
            detail: long(MAX_RECEIPT_DETAIL_CHARS + 1),
            ..receipt()
        },
        &[&key(1)],
    ));
    invalid(statement::sign(
        &ReceiptStatement {
            output: long(MAX_RECEIPT_OUTPUT_BYTES + 1),
            ..receipt()
        },
        &[&key(1)],
    ));
    statement::sign(
        &ReceiptStatement {
            detail: long(MAX_RECEIPT_DETAIL_CHARS),
            ..receipt()
        },
        &[&key(1)],
    )
    .unwrap();
    let mut log = Tenant::new(1);
    let bundle = log.activate(policy(1), "1", sha256(b"bundle"), 3).0;
    invalid(statement::sign(
        &tenant.desired(3, vec![bundle.clone(), bundle.clone()]),
        &[&key(1)],
    ));
    invalid(statement::sign(
        &tenant.desired(2, vec![bundle.clone()]),
        &[&key(1)],
    ));
    let many = vec![bundle; MAX_DESIRED_BUNDLES + 1];
    invalid(statement::sign(&tenant.desired(3, many), &[&key(1)]));
}

#[test]
fn the_state_digest_is_sorted_and_empty_is_the_hash_of_nothing() {
    assert_eq!(state_digest(&[]), sha256(b""));
    let mut tenant = Tenant::new(1);
    let one = tenant.activate(policy(1), "1", sha256(b"one"), 3).0;
    let two = tenant.activate(policy(2), "1", sha256(b"two"), 4).0;
    let lines = format!(
        "{} 3 {}\n{} 4 {}\n",
        policy(1),
        sha256(b"one"),
        policy(2),
        sha256(b"two")
    );
    assert_eq!(
        state_digest(&[one.clone(), two.clone()]),
        sha256(lines.as_bytes())
    );
    assert_eq!(
        state_digest(&[two.clone(), one.clone()]),
        sha256(lines.as_bytes())
    );
    assert_ne!(state_digest(&[one]), state_digest(&[two]));
}

proptest! {
    #[test]
    fn the_decoder_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let envelope = sign(CommandStatement::PAYLOAD_TYPE, &payload, &[&key(1)]).unwrap();
        prop_assert!(statement::verify::<CommandStatement>(&envelope, &[key(1).public()], 1).is_err());
    }
}
