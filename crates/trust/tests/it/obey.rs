use std::time::Duration;

use muster_model::command::{CommandKind, WipeMode};
use muster_trust::dsse::Envelope;
use muster_trust::entry::{Object, action, detail};
use muster_trust::key::{SigningKey, sha256};
use muster_trust::obey::{MAX_REMEMBERED_POLICIES, Refusal, Trust};
use muster_trust::proof::LoggedProof;
use muster_trust::root::{Role, RoleKeys, RootDocument};
use muster_trust::statement::{self, CommandStatement, DesiredBundle};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{EPOCH, Tenant, at, command_id, device, key, policy};

const SETTINGS_JSON: &[u8] = br#"{"passcode.min_length":12}"#;
const NO_SEQUENCE: u64 = 0;

fn lock() -> CommandKind {
    CommandKind::Lock { message: None }
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    let refusal = result.expect_err("this must be refused");
    assert!(!refusal.to_string().is_empty());
    refusal.code()
}

/// What the addressed device says to a command, a minute into the story.
fn obey(trust: &Trust, envelope: &Envelope, proof: &LoggedProof) -> Result<CommandStatement, Refusal> {
    trust.check_command(envelope, proof, None, (device(1), EPOCH), NO_SEQUENCE, at(60))
}

/// Signs and logs a command that was changed before signing, and says what the device answers.
fn signed_but(change: impl FnOnce(&mut CommandStatement)) -> Result<CommandStatement, Refusal> {
    let mut tenant = Tenant::new(1);
    let mut command = tenant.command(1, lock());
    change(&mut command);
    let (envelope, index) = tenant.issue(&command);
    obey(&tenant.enrolled(), &envelope, &tenant.proof(index))
}

#[test]
fn an_honest_command_is_obeyed() {
    let mut tenant = Tenant::new(1);
    let command = tenant.command(1, lock());
    let (envelope, index) = tenant.issue(&command);
    let trust = tenant.enrolled();
    assert_eq!(obey(&trust, &envelope, &tenant.proof(index)).unwrap(), command);
}

#[test]
fn m1_a_wipe_without_approvals_is_refused_whoever_signed_it() {
    for mode in [WipeMode::Full, WipeMode::Enterprise] {
        let refusal = signed_but(|command| command.kind = CommandKind::Wipe { mode }).unwrap_err();
        assert_eq!(refusal, Refusal::ApprovalsRequired);
        assert_eq!(refusal.code(), "approvals_required");
    }
    // To name a batch is not to show who approved it.
    let batch = signed_but(|command| {
        command.kind = CommandKind::Wipe { mode: WipeMode::Full };
        command.batch = Some(sha256(b"batch"));
    });
    assert_eq!(code(batch), "approvals_required");
}

#[test]
fn commands_for_somebody_else_are_refused() {
    assert_eq!(
        code(signed_but(|command| command.device_id = device(2))),
        "wrong_device"
    );
    assert_eq!(
        code(signed_but(|command| command.epoch = EPOCH + 1)),
        "wrong_epoch"
    );
    assert_eq!(
        code(signed_but(|command| command.epoch = EPOCH - 1)),
        "wrong_epoch"
    );
    assert_eq!(
        code(signed_but(|command| command.tenant = Tenant::new(2).id)),
        "wrong_tenant"
    );
}

#[test]
fn expired_commands_are_refused() {
    assert_eq!(code(signed_but(|command| command.expires_at = at(60))), "expired");
    signed_but(|command| command.expires_at = at(61)).unwrap();
}

/// A device whose clock was set back still knows the time of the last signed log head.
#[test]
fn e10_time_does_not_run_backwards() {
    let mut tenant = Tenant::new(1);
    let command = tenant.command(1, lock());
    let (envelope, index) = tenant.issue(&command);
    let mut trust = tenant.enrolled();
    trust
        .advance_checkpoint(&tenant.checkpoint_note(at(4000)), &[])
        .unwrap();
    let result = trust.check_command(
        &envelope,
        &tenant.proof(index),
        None,
        (device(1), EPOCH),
        NO_SEQUENCE,
        at(0),
    );
    assert_eq!(code(result), "expired");
}

#[test]
fn m9_a_sequence_is_used_once() {
    let mut tenant = Tenant::new(1);
    let command = tenant.command(5, lock());
    let (envelope, index) = tenant.issue(&command);
    let (trust, proof) = (tenant.enrolled(), tenant.proof(index));
    let check = |last, now| trust.check_command(&envelope, &proof, None, (device(1), EPOCH), last, now);
    check(4, at(60)).unwrap();
    let replayed = Refusal::Replayed {
        command: command.command_id,
        sequence: 5,
        last: 5,
    };
    assert_eq!(check(5, at(60)), Err(replayed.clone()));
    assert_eq!(code(check(u64::MAX, at(60))), "replayed");
    // A late duplicate of a command on record is a replay, not an expiry: it is answered with the recorded outcome.
    assert_eq!(check(5, at(90_000)), Err(replayed));
}

#[test]
fn p2_only_the_action_role_commands() {
    let mut tenant = Tenant::new(1);
    let other = Tenant::new(2);
    let command = tenant.command(1, lock());
    let p256 = SigningKey::generate_p256().unwrap();
    let strangers = [
        &tenant.root_key,
        &tenant.policy_key,
        &tenant.log_key,
        &other.action_key,
        &key(222),
        &p256,
    ];
    let envelopes: Vec<Envelope> = strangers
        .map(|key| statement::sign(&command, &[key]).unwrap())
        .into();
    for envelope in envelopes {
        let index = tenant.log_command(&envelope, command.command_id);
        assert_eq!(
            code(obey(&tenant.enrolled(), &envelope, &tenant.proof(index))),
            "signature_invalid"
        );
    }
}

#[test]
fn a_desired_state_is_not_a_command() {
    let mut tenant = Tenant::new(1);
    let desired = statement::sign(&tenant.desired(1, vec![]), &[&tenant.action_key]).unwrap();
    let index = tenant.log_command(&desired, command_id(1));
    assert_eq!(
        code(obey(&tenant.enrolled(), &desired, &tenant.proof(index))),
        "signature_invalid"
    );
}

#[test]
fn a_signed_statement_that_is_none_is_refused() {
    let mut tenant = Tenant::new(1);
    let payload = b"{\"force\":true}";
    let kind = "application/vnd.muster.command+json";
    let envelope = muster_trust::dsse::sign(kind, payload, &[&tenant.action_key]).unwrap();
    let index = tenant.log_command(&envelope, command_id(1));
    assert_eq!(
        code(obey(&tenant.enrolled(), &envelope, &tenant.proof(index))),
        "statement_malformed"
    );
}

#[test]
fn i3_a_command_that_is_not_logged_is_refused() {
    let mut tenant = Tenant::new(1);
    let (logged, index) = tenant.issue(&tenant.command(1, lock()));
    let quiet = statement::sign(&tenant.command(2, lock()), &[&tenant.action_key]).unwrap();
    let trust = tenant.enrolled();
    let good = tenant.proof(index);
    obey(&trust, &logged, &good).unwrap();
    // The proof of another command.
    assert_eq!(code(obey(&trust, &quiet, &good)), "log_entry_mismatch");
    // An entry that was never logged.
    let mut elsewhere = Tenant::new(1);
    let index = elsewhere.log_command(&quiet, command_id(2));
    assert_eq!(code(obey(&trust, &quiet, &elsewhere.proof(index))), "not_logged");
    // The right entry, another index, size or path.
    assert_eq!(
        code(obey(
            &trust,
            &logged,
            &LoggedProof {
                index: 1,
                ..good.clone()
            }
        )),
        "not_logged"
    );
    assert_eq!(
        code(obey(
            &trust,
            &logged,
            &LoggedProof {
                tree_size: 2,
                ..good.clone()
            }
        )),
        "not_logged"
    );
    assert_eq!(
        code(obey(
            &trust,
            &logged,
            &LoggedProof {
                hashes: vec![sha256(b"x")],
                ..good.clone()
            }
        )),
        "not_logged"
    );
    let huge = LoggedProof {
        entry: vec![b'x'; 1 << 20],
        ..good
    };
    assert_eq!(code(obey(&trust, &logged, &huge)), "not_logged");
}

#[test]
fn an_entry_of_another_action_does_not_record_a_command() {
    let mut tenant = Tenant::new(1);
    let envelope = statement::sign(&tenant.command(1, lock()), &[&tenant.action_key]).unwrap();
    let object = Object {
        kind: "command".to_owned(),
        id: command_id(1).to_string(),
    };
    let said = json!({ detail::STATEMENT_SHA256: sha256(&envelope.payload).to_hex() });
    let (_, index) = tenant.log_entry("command.cancelled", object, said);
    assert_eq!(
        code(obey(&tenant.enrolled(), &envelope, &tenant.proof(index))),
        "log_entry_mismatch"
    );
}

#[test]
fn without_a_checkpoint_nothing_is_obeyed() {
    let mut tenant = Tenant::new(1);
    let (envelope, index) = tenant.issue(&tenant.command(1, lock()));
    let trust = Trust::pin(&tenant.root_envelope(), tenant.id).unwrap();
    assert_eq!(
        code(obey(&trust, &envelope, &tenant.proof(index))),
        "checkpoint_missing"
    );
}

#[test]
fn p3_with_an_expired_root_nothing_is_obeyed() {
    let mut tenant = Tenant::new(1);
    let year = Duration::from_secs(365 * 86_400);
    let mut command = tenant.command(1, lock());
    command.expires_at = at(0).plus(year * 2);
    let (envelope, index) = tenant.issue(&command);
    let (trust, proof) = (tenant.enrolled(), tenant.proof(index));
    let later = at(0).plus(year);
    let result = trust.check_command(&envelope, &proof, None, (device(1), EPOCH), NO_SEQUENCE, later);
    assert_eq!(code(result), "root_expired");
    let desired = statement::sign(&tenant.desired(1, vec![]), &[&tenant.action_key]).unwrap();
    assert_eq!(
        code(trust.check_desired_state(&desired, device(1), EPOCH, later)),
        "root_expired"
    );
}

#[test]
fn p3_a_clock_that_was_set_back_does_not_revive_a_root() {
    let mut tenant = Tenant::new(1);
    let year = Duration::from_secs(365 * 86_400);
    let mut command = tenant.command(1, lock());
    command.expires_at = at(0).plus(year * 2);
    let (envelope, index) = tenant.issue(&command);
    let mut trust = tenant.enrolled();
    trust
        .advance_checkpoint(&tenant.checkpoint_note(at(0).plus(year)), &[])
        .unwrap();
    assert_eq!(
        code(obey(&trust, &envelope, &tenant.proof(index))),
        "root_expired"
    );
}

/// A log that took in an entry of another tenant proves nothing by it.
#[test]
fn t5_an_entry_of_another_tenant_proves_nothing() {
    let mut tenant = Tenant::new(1);
    let mut stranger = Tenant::new(2);
    let envelope = statement::sign(&tenant.command(1, lock()), &[&tenant.action_key]).unwrap();
    stranger.log_command(&envelope, command_id(1));
    let index = tenant.log.append(stranger.log.rows.remove(0));
    assert_eq!(
        code(obey(&tenant.enrolled(), &envelope, &tenant.proof(index))),
        "not_logged"
    );
}

#[test]
fn pinning_wants_the_first_document_of_this_tenant() {
    let tenant = Tenant::new(1);
    assert_eq!(
        code(Trust::pin(&tenant.root_envelope(), Tenant::new(2).id)),
        "root_wrong_tenant"
    );
    let forged = muster_trust::dsse::sign(
        muster_trust::root::PAYLOAD_TYPE,
        &tenant.root_document().to_bytes(),
        &[&tenant.action_key],
    );
    assert_eq!(code(Trust::pin(&forged.unwrap(), tenant.id)), "root_invalid");
}

#[test]
fn a_new_root_replaces_the_keys() {
    let mut tenant = Tenant::new(1);
    let command = tenant.command(1, lock());
    let (envelope, index) = tenant.issue(&command);
    let (mut trust, proof) = (tenant.enrolled(), tenant.proof(index));
    let mut next = RootDocument {
        version: 2,
        ..tenant.root_document()
    };
    next.keys.remove(&tenant.action_key.key_id());
    next.keys.insert(key(250).key_id(), key(250).public().clone());
    next.roles.insert(
        Role::Action,
        RoleKeys {
            keys: [key(250).key_id()].into(),
            threshold: 1,
        },
    );
    assert_eq!(
        code(trust.advance_root(&next.sign(&[&key(250)]).unwrap())),
        "root_invalid"
    );
    assert_eq!(code(trust.advance_root(&tenant.root_envelope())), "root_invalid");
    trust
        .advance_root(&next.sign(&[&tenant.root_key]).unwrap())
        .unwrap();
    assert_eq!(code(obey(&trust, &envelope, &proof)), "signature_invalid");
    let again = statement::sign(&command, &[&key(250)]).unwrap();
    obey(&trust, &again, &proof).unwrap();
    // Nobody goes back to version 1.
    assert_eq!(code(trust.advance_root(&tenant.root_envelope())), "root_invalid");
}

#[test]
fn the_log_only_grows() {
    let mut tenant = Tenant::new(1);
    for sequence in 1..=3 {
        tenant.issue(&tenant.command(sequence, lock()));
    }
    let mut trust = tenant.enrolled();
    let old_note = tenant.checkpoint_note(at(1));
    for sequence in 4..=9 {
        tenant.issue(&tenant.command(sequence, lock()));
    }
    let note = tenant.checkpoint_note(at(2));
    let proof = tenant.log.consistency(3, 9);
    assert_eq!(
        code(trust.clone().advance_checkpoint(&note, &[])),
        "checkpoint_forked"
    );
    assert_eq!(
        code(trust.clone().advance_checkpoint(&note, &proof[1..])),
        "checkpoint_forked"
    );
    assert_eq!(
        code(trust.clone().advance_checkpoint(&note, &vec![sha256(b""); 1000])),
        "checkpoint_forked"
    );
    trust.advance_checkpoint(&note, &proof).unwrap();
    assert_eq!(trust.trusted_time, at(2));
    // The same head again, and a fresher signature on it, are fine; an older head is not.
    trust.advance_checkpoint(&note, &[]).unwrap();
    trust
        .advance_checkpoint(&tenant.checkpoint_note(at(5)), &[])
        .unwrap();
    assert_eq!(trust.trusted_time, at(5));
    assert_eq!(code(trust.advance_checkpoint(&old_note, &[])), "checkpoint_older");
    trust
        .advance_checkpoint(&tenant.checkpoint_note(at(4)), &[])
        .unwrap();
    assert_eq!(trust.trusted_time, at(5));
}

/// A server that shows this device another history is found out, though its log key signs both.
#[test]
fn a_forked_log_is_refused() {
    let mut tenant = Tenant::new(1);
    let mut fork = Tenant::new(1);
    for sequence in 1..=3 {
        tenant.issue(&tenant.command(sequence, lock()));
        fork.issue(&fork.command(sequence + 10, lock()));
    }
    let mut trust = tenant.enrolled();
    assert_eq!(
        code(trust.advance_checkpoint(&fork.checkpoint_note(at(9)), &[])),
        "checkpoint_forked"
    );
    fork.issue(&fork.command(20, lock()));
    let proof = fork.log.consistency(3, 4);
    assert_eq!(
        code(trust.advance_checkpoint(&fork.checkpoint_note(at(9)), &proof)),
        "checkpoint_forked"
    );
    assert_eq!(trust, tenant.enrolled(), "a refusal changes nothing");
}

#[test]
fn checkpoints_by_others_are_refused() {
    let mut tenant = Tenant::new(1);
    tenant.issue(&tenant.command(1, lock()));
    let mut trust = Trust::pin(&tenant.root_envelope(), tenant.id).unwrap();
    let body = tenant.log.body(tenant.id, 1, at(1));
    let by = |key: &SigningKey| body.sign(&[key]).unwrap().to_string();
    assert_eq!(
        code(trust.advance_checkpoint(&by(&tenant.action_key), &[])),
        "checkpoint_invalid"
    );
    let mut other = body.clone();
    other.origin = muster_trust::checkpoint::origin(Tenant::new(2).id);
    let note = other.sign(&[&tenant.log_key]).unwrap().to_string();
    assert_eq!(code(trust.advance_checkpoint(&note, &[])), "checkpoint_invalid");
    assert_eq!(
        code(trust.advance_checkpoint("garbage", &[])),
        "checkpoint_invalid"
    );
    trust.advance_checkpoint(&by(&tenant.log_key), &[]).unwrap();
}

#[test]
fn where_witnesses_are_required_they_must_have_signed() {
    let mut tenant = Tenant::new(1);
    tenant.issue(&tenant.command(1, lock()));
    let witness = &tenant.witness_key;
    let mut document = tenant.root_document();
    document.keys.insert(witness.key_id(), witness.public().clone());
    document.roles.insert(
        Role::Witness,
        RoleKeys {
            keys: [witness.key_id()].into(),
            threshold: 1,
        },
    );
    let mut trust = Trust::pin(&document.sign(&[&tenant.root_key]).unwrap(), tenant.id).unwrap();
    assert_eq!(
        code(trust.advance_checkpoint(&tenant.checkpoint_note(at(1)), &[])),
        "checkpoint_unwitnessed"
    );
    let mut note = tenant
        .log
        .body(tenant.id, 1, at(1))
        .sign(&[&tenant.log_key])
        .unwrap();
    note.cosign("witness.example/w1", witness, 1_790_000_001).unwrap();
    trust.advance_checkpoint(&note.to_string(), &[]).unwrap();
}

/// A tenant with one activated bundle, and a device that has seen the log.
fn activated() -> (Tenant, Trust, Vec<u8>, DesiredBundle, u64) {
    let mut tenant = Tenant::new(1);
    let bundle = tenant.bundle(policy(1), "1", SETTINGS_JSON);
    let (desired, index) = tenant.activate(policy(1), "1", bundle.sha256, 3);
    let trust = tenant.enrolled();
    (tenant, trust, bundle.bytes, desired, index)
}

#[test]
fn an_honest_desired_state_and_its_bundle_are_taken_up() {
    let (tenant, mut trust, bytes, desired, index) = activated();
    let state = tenant.desired(3, vec![desired.clone()]);
    let envelope = statement::sign(&state, &[&tenant.action_key]).unwrap();
    assert_eq!(
        trust
            .check_desired_state(&envelope, device(1), EPOCH, at(60))
            .unwrap(),
        state
    );
    let opened = trust
        .check_bundle(&bytes, &desired, &tenant.proof(index))
        .unwrap();
    assert_eq!(opened.settings_json(), SETTINGS_JSON);
    trust.took_up(&state);
    assert_eq!(trust.generation, 3);
    trust
        .check_desired_state(&envelope, device(1), EPOCH, at(60))
        .unwrap();
    trust
        .check_bundle(&bytes, &desired, &tenant.proof(index))
        .unwrap();
}

#[test]
fn desired_states_for_somebody_else_or_of_the_past_are_refused() {
    let (tenant, trust, _, desired, _) = activated();
    let check = |change: &dyn Fn(&mut muster_trust::statement::DesiredStateStatement)| {
        let mut state = tenant.desired(3, vec![desired.clone()]);
        change(&mut state);
        let envelope = statement::sign(&state, &[&tenant.action_key]).unwrap();
        trust.check_desired_state(&envelope, device(1), EPOCH, at(60))
    };
    check(&|_| ()).unwrap();
    assert_eq!(code(check(&|state| state.device_id = device(2))), "wrong_device");
    assert_eq!(code(check(&|state| state.epoch = EPOCH + 1)), "wrong_epoch");
    assert_eq!(
        code(check(&|state| state.tenant = Tenant::new(2).id)),
        "wrong_tenant"
    );
    assert_eq!(code(check(&|state| state.expires_at = at(60))), "expired");
    let by_policy_key = statement::sign(&tenant.desired(3, vec![desired]), &[&tenant.policy_key]).unwrap();
    assert_eq!(
        code(trust.check_desired_state(&by_policy_key, device(1), EPOCH, at(60))),
        "signature_invalid"
    );
}

#[test]
fn p3_a_device_never_goes_back() {
    let (mut tenant, mut trust, _, old, _) = activated();
    let new_bundle = tenant.bundle(policy(1), "2", SETTINGS_JSON);
    let (new, _) = tenant.activate(policy(1), "2", new_bundle.sha256, 7);
    trust.took_up(&tenant.desired(7, vec![new.clone()]));
    let check = |trust: &Trust, generation, bundles| {
        let envelope = statement::sign(&tenant.desired(generation, bundles), &[&tenant.action_key]).unwrap();
        trust.check_desired_state(&envelope, device(1), EPOCH, at(60))
    };
    // The whole state of yesterday, the policy of yesterday in today's state, and no policy in yesterday's state.
    assert_eq!(code(check(&trust, 3, vec![old.clone()])), "generation_rollback");
    assert_eq!(code(check(&trust, 8, vec![old.clone()])), "generation_rollback");
    assert_eq!(code(check(&trust, 6, vec![])), "generation_rollback");
    // Also when the policy was taken away in between.
    trust.took_up(&tenant.desired(9, vec![]));
    assert_eq!(code(check(&trust, 9, vec![old.clone()])), "generation_rollback");
    // The same generation with another bundle.
    let swapped = DesiredBundle {
        sha256: old.sha256,
        ..new.clone()
    };
    assert_eq!(code(check(&trust, 9, vec![swapped])), "bundle_mismatch");
    check(&trust, 9, vec![new]).unwrap();
    // A logged rollback is a new activation of the old version: it has a new generation.
    check(
        &trust,
        10,
        vec![DesiredBundle {
            generation: 10,
            ..old
        }],
    )
    .unwrap();
}

#[test]
fn p3_an_old_bundle_is_refused_even_with_its_old_proof() {
    let (mut tenant, mut trust, bytes, old, index) = activated();
    let new_bundle = tenant.bundle(policy(1), "2", SETTINGS_JSON);
    let (new, _) = tenant.activate(policy(1), "2", new_bundle.sha256, 7);
    trust
        .advance_checkpoint(&tenant.checkpoint_note(at(2)), &tenant.log.consistency(1, 2))
        .unwrap();
    trust.took_up(&tenant.desired(7, vec![new]));
    assert_eq!(
        code(trust.check_bundle(&bytes, &old, &tenant.proof(index))),
        "generation_rollback"
    );
}

#[test]
fn p3_a_bundle_must_be_the_desired_one() {
    let (mut tenant, _, bytes, desired, index) = activated();
    let other = tenant.bundle(policy(2), "1", SETTINGS_JSON);
    let (desired_other, index_other) = tenant.activate(policy(2), "1", other.sha256, 4);
    let trust = tenant.enrolled();
    let (proof, proof_other) = (tenant.proof(index), tenant.proof(index_other));
    trust.check_bundle(&bytes, &desired, &proof).unwrap();
    let check =
        |bytes: &[u8], desired: DesiredBundle, proof| code(trust.check_bundle(bytes, &desired, proof));
    assert_eq!(check(&other.bytes, desired.clone(), &proof), "bundle_mismatch");
    let as_policy_1 = DesiredBundle {
        policy_id: policy(1),
        ..desired_other.clone()
    };
    assert_eq!(check(&other.bytes, as_policy_1, &proof_other), "bundle_mismatch");
    let as_version_9 = DesiredBundle {
        version: crate::support::version("9"),
        ..desired.clone()
    };
    assert_eq!(check(&bytes, as_version_9, &proof), "bundle_mismatch");
    assert_eq!(check(&bytes, desired.clone(), &proof_other), "log_entry_mismatch");
    let other_entry = DesiredBundle {
        activation_entry: desired_other.activation_entry,
        ..desired.clone()
    };
    assert_eq!(check(&bytes, other_entry, &proof), "log_entry_mismatch");
    let later = DesiredBundle {
        generation: 5,
        ..desired
    };
    assert_eq!(check(&bytes, later, &proof), "log_entry_mismatch");
}

#[test]
fn an_activation_entry_must_say_everything() {
    let mut tenant = Tenant::new(1);
    let bundle = tenant.bundle(policy(1), "1", SETTINGS_JSON);
    let full = json!({
        detail::POLICY_ID: policy(1).to_string(),
        detail::BUNDLE_SHA256: bundle.sha256.to_hex(),
        detail::GENERATION: 3,
    });
    let mut logged = |action: &str, said: serde_json::Value| {
        let object = Object {
            kind: "policy".to_owned(),
            id: policy(1).to_string(),
        };
        let (activation_entry, index) = tenant.log_entry(action, object, said);
        let version = crate::support::version("1");
        let desired = DesiredBundle {
            policy_id: policy(1),
            version,
            sha256: bundle.sha256,
            generation: 3,
            activation_entry,
        };
        tenant
            .enrolled()
            .check_bundle(&bundle.bytes, &desired, &tenant.proof(index))
    };
    logged(action::ROLLOUT_ACTIVATED, full.clone()).unwrap();
    assert_eq!(
        code(logged("policy.version_created", full.clone())),
        "log_entry_mismatch"
    );
    for (key, wrong) in [
        (detail::POLICY_ID, json!(policy(2).to_string())),
        (detail::BUNDLE_SHA256, json!(sha256(b"other").to_hex())),
        (detail::GENERATION, json!(2)),
        (detail::GENERATION, json!("3")),
        (detail::POLICY_ID, json!(null)),
    ] {
        let mut said = full.clone();
        said[key] = wrong;
        assert_eq!(
            code(logged(action::ROLLOUT_ACTIVATED, said)),
            "log_entry_mismatch"
        );
    }
}

#[test]
fn p2_a_bundle_by_the_wrong_signer_is_refused() {
    let mut tenant = Tenant::new(1);
    let staging = tenant.bundle_by(policy(1), "1", SETTINGS_JSON, &key(201));
    let (desired, index) = tenant.activate(policy(1), "1", staging.sha256, 3);
    let result = tenant
        .enrolled()
        .check_bundle(&staging.bytes, &desired, &tenant.proof(index));
    assert_eq!(code(result), "bundle_invalid");
    // Not even one bundle that its log and its desired state call by its right name, when it is not canonical.
    let mut padded = tenant.bundle(policy(1), "2", SETTINGS_JSON).bytes;
    padded.push(0);
    let (desired, index) = tenant.activate(policy(1), "2", sha256(&padded), 4);
    let result = tenant
        .enrolled()
        .check_bundle(&padded, &desired, &tenant.proof(index));
    assert_eq!(code(result), "bundle_invalid");
}

#[test]
fn trust_survives_a_restart() {
    let (tenant, mut trust, _, desired, _) = activated();
    trust.took_up(&tenant.desired(3, vec![desired]));
    let json = serde_json::to_string(&trust).unwrap();
    assert_eq!(serde_json::from_str::<Trust>(&json).unwrap(), trust);
}

#[test]
fn what_a_device_remembers_is_bounded_and_keeps_what_is_in_force() {
    let (tenant, mut trust, _, desired, _) = activated();
    for generation in 0..=MAX_REMEMBERED_POLICIES as u64 {
        let id = muster_model::id::PolicyId::generate(at(generation), [7; 10]);
        let bundle = DesiredBundle {
            policy_id: id,
            generation: generation + 10,
            ..desired.clone()
        };
        let old = DesiredBundle {
            generation: 1,
            ..desired.clone()
        };
        trust.took_up(&tenant.desired(generation + 10, vec![old, bundle]));
    }
    assert_eq!(trust.applied.len(), MAX_REMEMBERED_POLICIES);
    assert!(trust.applied.contains_key(&policy(1)));
}

proptest! {
    /// Whatever is changed in the proof, the device does not obey.
    #[test]
    fn a_changed_proof_is_refused(others in 1u64..40, place in any::<usize>(), bit in any::<usize>()) {
        let mut tenant = Tenant::new(1);
        for sequence in 0..others {
            tenant.issue(&tenant.command(sequence, lock()));
        }
        let (envelope, index) = tenant.issue(&tenant.command(others + 1, lock()));
        let (trust, good) = (tenant.enrolled(), tenant.proof(index));
        prop_assert!(obey(&trust, &envelope, &good).is_ok());
        let mut proof = good.clone();
        let place = place % proof.hashes.len();
        proof.hashes[place].0[(bit / 8) % 32] ^= 1 << (bit % 8);
        prop_assert_eq!(code(obey(&trust, &envelope, &proof)), "not_logged");
        let mut proof = good;
        let bit = bit % (proof.entry.len() * 8);
        proof.entry[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(code(obey(&trust, &envelope, &proof)), "not_logged");
    }

    #[test]
    fn foreign_proofs_are_decoded_without_panic(text in "\\{\"entry\":\"[A-Za-z0-9+/=]{0,8}\",\"index\":[0-9]{0,22},\"tree_size\":[0-9]{1,20},\"hashes\":\\[(\"[A-Za-z0-9+/=]{40,46}\")?\\]\\}") {
        let _ = serde_json::from_str::<LoggedProof>(&text);
    }
}
