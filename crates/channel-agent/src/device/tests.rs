//! The device against a tenant with real keys and a real log.

mod answers;
mod approved;
mod departures;
pub(crate) mod office;

use std::time::Duration;

use muster_model::command::{CommandKind, ReceiptOutcome, WipeMode};
use muster_model::report::SettingState;
use muster_model::settings::SettingValue;
use muster_trust::key::SigningKey;
use muster_trust::statement;
use serde_json::json;

use super::*;
use office::{Device, Office, read_receipt, read_report};

const LOCK: CommandKind = CommandKind::Lock { message: None };
const RESTART: CommandKind = CommandKind::Restart { delay_seconds: None };
const WIPE: CommandKind = CommandKind::Wipe { mode: WipeMode::Full };

fn lengths(device: &Device) -> Vec<i64> {
    device
        .applied
        .iter()
        .map(|settings| match settings.get("passcode.min_length") {
            Some(SettingValue::Int(length)) => *length,
            None => 0,
            other => panic!("not a length: {other:?}"),
        })
        .collect()
}

fn length(value: i64) -> serde_json::Value {
    json!({ "passcode.min_length": value })
}

/// Fails the check-in until the policy is reverted or `times` attempts are over.
fn lose_server(device: &mut Device, office: &mut Office, times: u32) {
    for _ in 0..times {
        device.seconds += 40;
        office.seconds = device.seconds;
        let actions =
            device.with(|core, reading, _| core.on_checkin_failed(CheckinFailure::Unreachable, reading));
        device.perform(actions, office);
    }
}

mod commands {
    use super::*;

    #[test]
    fn a_command_is_executed_once_and_answered() {
        let mut office = Office::new();
        let mut device = office.device();
        let id = office.command(LOCK);
        device.meet(&mut office);
        assert_eq!(device.executed, [id]);
        assert!(office.queue.is_empty(), "the receipt was accepted");
        device.meet(&mut office);
        assert_eq!(device.executed, [id]);
    }

    #[test]
    fn a_duplicate_delivery_repeats_the_outcome_and_nothing_else() {
        let mut office = Office::new();
        let mut device = office.device();
        let id = office.command(LOCK);
        let response = office.offer(1, device.core().state_digest());
        for _ in 0..3 {
            let actions = device.take(&response);
            device.perform(actions, &office);
        }
        // The receipt was confirmed, and the command still comes once more.
        device.meet(&mut office);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(device.executed, [id]);
        let request = device.request();
        assert_eq!(request.receipts.len(), 1);
        assert_eq!(read_receipt(&request.receipts[0]).outcome, ReceiptOutcome::Done);
    }

    #[test]
    fn commands_that_arrive_out_of_order_run_in_order() {
        let mut office = Office::new();
        let mut device = office.device();
        let ids = [
            office.command(LOCK),
            office.command(RESTART),
            office.command(LOCK),
        ];
        office.queue.reverse();
        device.meet(&mut office);
        assert_eq!(device.executed, ids);
    }

    #[test]
    fn an_older_sequence_is_a_replay() {
        let mut office = Office::new();
        let mut device = office.device();
        office.command(LOCK);
        office.command(LOCK);
        let withheld = office.queue.remove(0);
        device.meet(&mut office);
        office.queue.push(withheld);
        device.meet(&mut office);
        assert_eq!(device.executed.len(), 1);
        assert_eq!(device.refused, ["replayed"]);
        assert!(device.request().receipts.is_empty(), "a replay is not answered");
    }

    #[test]
    fn a_wipe_is_refused_with_a_receipt_that_says_why() {
        let mut office = Office::new();
        let mut device = office.device();
        let id = office.command(WIPE);
        let request = device.request();
        let response = office.answer(&request);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert!(device.executed.is_empty());
        assert_eq!(device.refused, ["approvals_required"]);
        let receipt = read_receipt(&device.request().receipts[0]);
        assert_eq!(
            (receipt.command_id, receipt.outcome),
            (id, ReceiptOutcome::Failed)
        );
        assert_eq!(receipt.code.as_deref(), Some("approvals_required"));
        let lock = office.command(LOCK);
        device.meet(&mut office);
        assert_eq!(device.executed, [lock], "later commands are not held up");
    }

    #[test]
    fn a_command_of_another_device_epoch_or_key_is_neither_run_nor_answered() {
        let mut office = Office::new();
        let mut device = office.device();
        let other = DeviceId::generate(office.now(), [99; 10]);
        office.sequence = 1;
        office.command_with(LOCK, |command| command.device_id = other);
        office.command_with(LOCK, |command| command.epoch = 2);
        office.command_with(LOCK, |_| {});
        let stranger = SigningKey::ed25519_from_seed(&[77; 32]).expect("a seed makes a key");
        let forged = office.queue.last_mut().expect("just queued");
        forged.envelope = statement::sign(&forged.statement, &[&stranger]).expect("it signs");
        let request = device.request();
        let response = office.answer(&request);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert!(device.executed.is_empty());
        device.refused.sort();
        assert_eq!(
            device.refused,
            ["signature_invalid", "wrong_device", "wrong_epoch"]
        );
        assert!(!device.core().has_news());
    }

    #[test]
    fn a_command_that_is_not_in_the_log_is_refused() {
        let mut office = Office::new();
        let mut device = office.device();
        office.command(LOCK);
        office.command(LOCK);
        let mut response = office.offer(1, device.core().state_digest());
        response.commands.truncate(1);
        let proof = office.offer(1, device.core().state_digest()).commands[1]
            .proof
            .clone();
        response.commands[0].proof = proof;
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(device.refused, ["log_entry_mismatch"]);
        response.commands[0].proof.index += 1;
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(device.refused, ["log_entry_mismatch", "not_logged"]);
        assert!(device.executed.is_empty());
    }

    #[test]
    fn an_expired_command_fails_with_its_reason() {
        let mut office = Office::new();
        let mut device = office.device();
        office.command(LOCK);
        (office.seconds, device.seconds) = (office.seconds + 3600, device.seconds + 3600);
        let request = device.request();
        let response = office.answer(&request);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert!(device.executed.is_empty());
        assert_eq!(
            read_receipt(&device.request().receipts[0]).code.as_deref(),
            Some("expired")
        );
    }

    #[test]
    fn a_wall_clock_an_hour_off_changes_nothing() {
        for error in [-3600, 3600] {
            let mut office = Office::new();
            let mut device = office.device();
            device.wall_error_seconds = error;
            // A reboot: the boot clock starts over, and only the wall clock is left until the next checkpoint.
            device.boot += 1;
            (office.seconds, device.seconds) = (office.seconds + 60, device.seconds + 60);
            let id = office.command(LOCK);
            device.meet(&mut office);
            assert_eq!(device.executed, [id], "{error}");
        }
    }

    #[test]
    fn a_rewritten_or_older_log_stops_everything() {
        let mut office = Office::new();
        let mut device = office.device();
        office.command(LOCK);
        let older = office.offer(1, device.core().state_digest());
        office.command(LOCK);
        let response = office.offer(1, device.core().state_digest());
        let mut forked = response.clone();
        forked.checkpoint.as_mut().expect("it has one").consistency[0] = crate::Base64Bytes(vec![0; 32]);
        let actions = device.take(&forked);
        device.perform(actions, &office);
        assert_eq!(device.refused, ["checkpoint_forked"]);
        assert!(device.executed.is_empty());
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(device.executed.len(), 2);
        let actions = device.take(&older);
        device.perform(actions, &office);
        assert_eq!(device.refused, ["checkpoint_forked", "checkpoint_older"]);
        assert_eq!(device.executed.len(), 2);
    }
}

mod crashes {
    use super::*;

    /// Crashes after the command was recorded as started and before its outcome was.
    fn crash_while_running(
        kind: CommandKind,
        boots: u128,
        is_already_true: bool,
    ) -> (Device, CommandId, Vec<Action>) {
        let mut office = Office::new();
        let mut device = office.device();
        let id = office.command(kind);
        let response = office.offer(1, device.core().state_digest());
        device.take(&response);
        let begun = device.with(|core, reading, sign| core.begin(id, reading, sign));
        assert!(matches!(begun, Begin::Run(_)));
        let saved = device.saved();
        device.restart_from(&saved);
        device.boot += boots;
        let actions =
            device.with(|core, reading, sign| core.recover(reading, &mut |_| is_already_true, sign));
        (device, id, actions)
    }

    fn outcome(device: &mut Device) -> (ReceiptOutcome, Option<String>) {
        let receipt = read_receipt(&device.request().receipts[0]);
        (receipt.outcome, receipt.code)
    }

    #[test]
    fn an_interrupted_restart_is_done_if_the_machine_has_booted_since() {
        let (mut device, _, actions) = crash_while_running(RESTART, 1, false);
        assert!(actions.is_empty());
        assert_eq!(outcome(&mut device), (ReceiptOutcome::Done, None));
    }

    #[test]
    fn an_interrupted_restart_is_reported_and_never_repeated() {
        let (mut device, id, actions) = crash_while_running(RESTART, 0, false);
        assert!(actions.is_empty());
        assert_eq!(
            outcome(&mut device),
            (ReceiptOutcome::Failed, Some("interrupted".to_owned()))
        );
        assert_eq!(
            device.with(|core, reading, sign| core.begin(id, reading, sign)),
            Begin::Nothing
        );
    }

    #[test]
    fn an_interrupted_restart_whose_effect_is_seen_is_done() {
        let (mut device, _, _) = crash_while_running(RESTART, 0, true);
        assert_eq!(outcome(&mut device), (ReceiptOutcome::Done, None));
    }

    #[test]
    fn what_can_run_twice_without_harm_runs_again() {
        for kind in [LOCK, CommandKind::CollectInventory {}] {
            let (_, id, actions) = crash_while_running(kind, 0, false);
            assert_eq!(actions, [Action::Execute { command_id: id }]);
        }
    }

    #[test]
    fn a_command_that_was_accepted_and_not_begun_runs_after_the_start() {
        let mut office = Office::new();
        let mut device = office.device();
        let id = office.command(RESTART);
        let response = office.offer(1, device.core().state_digest());
        device.take(&response);
        let saved = device.saved();
        device.restart_from(&saved);
        let actions = device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign));
        device.perform(actions, &office);
        assert_eq!(device.executed, [id]);
    }

    #[test]
    fn a_finished_command_is_answered_again_after_a_crash() {
        let mut office = Office::new();
        let mut device = office.device();
        let id = office.command(LOCK);
        let response = office.offer(1, device.core().state_digest());
        let actions = device.take(&response);
        device.perform(actions, &office);
        let saved = device.saved();
        device.restart_from(&saved);
        let actions = device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign));
        assert!(actions.is_empty());
        device.meet(&mut office);
        assert_eq!(device.executed, [id]);
        assert!(office.queue.is_empty());
    }

    #[test]
    fn a_command_that_could_not_be_saved_comes_again() {
        let mut office = Office::new();
        let mut device = office.device();
        let id = office.command(LOCK);
        let before = device.saved();
        let response = office.offer(1, device.core().state_digest());
        assert_eq!(device.take(&response), [Action::Execute { command_id: id }]);
        // The disk is full: the caller goes back to what is saved, and executes nothing.
        device.restart_from(&before);
        device.meet(&mut office);
        assert_eq!(device.executed, [id]);
    }
}

mod root {
    use super::*;

    #[test]
    fn the_device_walks_forward_only() {
        let mut office = Office::new();
        let mut device = office.device();
        let mut response = office.answer(&device.request());
        response.root_documents = vec![office.root_envelope(2), office.root_envelope(3)];
        for _ in 0..2 {
            device.take(&response);
            assert_eq!(device.request().root_version, 3);
        }
        response.root_documents = vec![office.root_envelope(5)];
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(device.request().root_version, 3);
        assert_eq!(device.refused, ["root_invalid"]);
    }
}

mod policy {
    use super::*;

    #[test]
    fn a_policy_is_fetched_checked_applied_and_reported() {
        let mut office = Office::new();
        let mut device = office.device();
        office.activate(json!({"passcode.min_length": 12, "screen_lock.max_idle_seconds": 300}));
        let request = device.request();
        let response = office.answer(&request);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(lengths(&device), [12]);
        let report = read_report(&device.request().report.expect("there is news"));
        assert_eq!(report.state_digest, device.core().state_digest());
        assert_eq!(report.settings.len(), 2);
        assert!(
            report
                .settings
                .values()
                .all(|setting| setting.state == SettingState::Verified)
        );
        device.meet(&mut office);
        assert!(!device.core().has_news());
        assert_eq!(device.applied.len(), 1, "what is in force is not applied again");
    }

    #[test]
    fn several_policies_become_one_state_and_the_stricter_value_wins() {
        let mut office = Office::new();
        let mut device = office.device();
        let (weak, strict) = (office.build(1, length(8)), office.build(2, length(14)));
        office.desired = vec![weak.clone(), strict];
        device.meet(&mut office);
        assert_eq!(lengths(&device), [14]);
        office.generation += 1;
        office.desired = vec![weak];
        device.meet(&mut office);
        assert_eq!(lengths(&device), [14, 8]);
        office.generation += 1;
        office.desired.clear();
        device.meet(&mut office);
        assert_eq!(lengths(&device), [14, 8, 0]);
    }

    #[test]
    fn a_setting_that_the_machine_says_nothing_about_is_reported_failed() {
        let mut office = Office::new();
        let mut device = office.device();
        office.activate(length(12));
        device.meet(&mut office);
        device.with(|core, reading, sign| core.on_applied(&BTreeMap::new(), reading, sign));
        let report = read_report(&device.request().report.expect("there is news"));
        assert_eq!(report.settings["passcode.min_length"].state, SettingState::Failed);
    }

    #[test]
    fn an_older_desired_state_is_a_rollback() {
        let mut office = Office::new();
        let mut device = office.device();
        office.activate(length(12));
        let older = office.desired.clone();
        device.meet(&mut office);
        office.activate(length(14));
        device.meet(&mut office);
        let newest = office.generation;
        office.desired = older;
        office.generation = 1;
        device.meet(&mut office);
        // The statement claims to be new, the bundle in it is old.
        office.generation = newest + 1;
        device.meet(&mut office);
        assert_eq!(lengths(&device), [12, 14]);
        assert_eq!(device.refused, ["generation_rollback", "generation_rollback"]);
    }

    #[test]
    fn a_changed_bundle_or_a_foreign_proof_is_refused() {
        let mut office = Office::new();
        let mut device = office.device();
        let activated = office.activate(length(12));
        let request = device.request();
        let response = office.answer(&request);
        for position in [0, activated.bytes.len() / 2, activated.bytes.len() - 1] {
            device.take(&response);
            let mut bytes = activated.bytes.clone();
            bytes[position] ^= 1;
            let sha256 = activated.desired.sha256;
            let actions = device.with(|core, reading, sign| core.on_bundle(sha256, &bytes, reading, sign));
            device.perform(actions, &office);
        }
        assert_eq!(device.refused, ["bundle_mismatch"; 3]);
        let other = office.build(2, length(14));
        let mut response = office.answer(&device.request());
        let proofs = std::mem::take(&mut response.desired.as_mut().expect("it has one").bundles);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(device.refused.last().map(String::as_str), Some("proof_missing"));
        office.desired = vec![other];
        let mut foreign = office.answer(&device.request());
        foreign.desired.as_mut().expect("it has one").bundles[0].proof = proofs[0].proof.clone();
        let actions = device.take(&foreign);
        device.perform(actions, &office);
        assert_eq!(
            device.refused.last().map(String::as_str),
            Some("log_entry_mismatch")
        );
        assert!(device.applied.is_empty());
    }

    #[test]
    fn settings_that_the_agent_does_not_know_are_refused_and_reported_once() {
        let mut office = Office::new();
        let mut device = office.device();
        office.activate(json!({"passcode.min_length": 12, "telepathy.allowed": false}));
        device.meet(&mut office);
        device.meet(&mut office);
        assert!(device.applied.is_empty());
        assert!(device.refused.iter().all(|code| code == SETTINGS_INVALID_CODE));
        assert!(!device.core().has_news());
    }

    #[test]
    fn a_report_is_confirmed_only_by_the_answer_to_the_check_in_that_carried_it() {
        let mut office = Office::new();
        let mut device = office.device();
        let request = device.request();
        let late = office.answer(&request);
        office.activate(length(12));
        let request = device.request();
        let response = office.answer(&request);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert!(device.core().has_news());
        device.take(&late);
        assert!(
            device.core().has_news(),
            "a late answer knows nothing of the report"
        );
        device.meet(&mut office);
        assert!(!device.core().has_news());
    }

    #[test]
    fn the_times_of_reports_never_go_back() {
        let mut office = Office::new();
        let mut device = office.device();
        office.activate(length(12));
        device.meet(&mut office);
        // A reboot with a clock that is an hour fast; the next checkpoint puts it right.
        (device.boot, device.wall_error_seconds) = (device.boot + 1, 3600);
        let report = |device: &mut Device| {
            device.with(|core, reading, sign| core.on_applied(&BTreeMap::new(), reading, sign));
            read_report(&device.request().report.expect("there is news")).at
        };
        let fast = report(&mut device);
        (office.seconds, device.seconds) = (office.seconds + 60, device.seconds + 60);
        office.command(LOCK);
        device.meet(&mut office);
        assert!(
            device.with(|core, reading, _| core.now(reading)) < fast,
            "the clock was put right"
        );
        assert!(report(&mut device) > fast);
    }

    #[test]
    fn the_policy_in_force_is_enforced_again_after_a_start() {
        let mut office = Office::new();
        let mut device = office.device();
        office.activate(length(12));
        device.meet(&mut office);
        let saved = device.saved();
        device.restart_from(&saved);
        let actions = device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign));
        device.perform(actions, &office);
        assert_eq!(lengths(&device), [12, 12]);
    }

    #[test]
    fn want_flags_become_actions() {
        let mut office = Office::new();
        let mut device = office.device();
        let request = device.request();
        let mut response = office.answer(&request);
        (response.want_inventory, response.want_report, response.renew) = (true, true, true);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!((device.inventories, device.renewals), (1, 1));
        assert_eq!(device.applied.len(), 1);
        assert!(device.request().report.is_some());
    }
}

mod last_known_good {
    use super::*;

    /// A device with `length(12)` proven good and `length(14)` fresh in force.
    fn on_probation() -> (Office, Device) {
        let mut office = Office::new();
        let mut device = office.device();
        office.activate(length(12));
        device.meet(&mut office);
        office.activate(length(14));
        let request = device.request();
        let response = office.answer(&request);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(lengths(&device), [12, 14]);
        (office, device)
    }

    #[test]
    fn a_policy_that_cuts_the_device_off_is_reverted_and_stays_out() {
        let (mut office, mut device) = on_probation();
        lose_server(&mut device, &mut office, PROBATION_FAILURES);
        assert_eq!(lengths(&device), [12, 14, 12]);
        assert_eq!(device.refused, [REVERTED_CODE]);
        let request = device.request();
        let response = office.answer(&request);
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert_eq!(lengths(&device), [12, 14, 12], "it is not taken up again");
        let report = read_report(&device.request().report.expect("there is news"));
        assert_eq!(
            report.state_digest,
            statement::state_digest(&office.desired_statement().bundles)
        );
        let setting = &report.settings["passcode.min_length"];
        assert_eq!(setting.state, SettingState::Failed);
        assert!(
            setting
                .detail
                .as_deref()
                .is_some_and(|detail| detail.contains(REVERTED_CODE))
        );
        office.activate(length(16));
        device.meet(&mut office);
        assert_eq!(lengths(&device), [12, 14, 12, 16], "something newer is");
    }

    #[test]
    fn a_few_failures_or_a_short_time_revert_nothing() {
        let (mut office, mut device) = on_probation();
        lose_server(&mut device, &mut office, PROBATION_FAILURES - 1);
        assert_eq!(lengths(&device), [12, 14]);
        let (office, mut device) = on_probation();
        for _ in 0..50 {
            device.seconds += 1;
            let actions =
                device.with(|core, reading, _| core.on_checkin_failed(CheckinFailure::Unreachable, reading));
            device.perform(actions, &office);
        }
        assert!(PROBATION_TIME > Duration::from_secs(50));
        assert_eq!(lengths(&device), [12, 14]);
    }

    #[test]
    fn an_error_answer_shows_that_the_network_works() {
        let (mut office, mut device) = on_probation();
        let answered =
            device.with(|core, reading, _| core.on_checkin_failed(CheckinFailure::Answered, reading));
        assert!(answered.is_empty());
        lose_server(&mut device, &mut office, 100);
        assert_eq!(
            lengths(&device),
            [12, 14],
            "proven good: days without a server change nothing"
        );
    }

    #[test]
    fn a_server_that_was_gone_clears_the_policy() {
        let (mut office, mut device) = on_probation();
        lose_server(&mut device, &mut office, PROBATION_FAILURES + 10);
        assert_eq!(lengths(&device), [12, 14, 12]);
        device.meet(&mut office);
        assert_eq!(
            lengths(&device),
            [12, 14, 12, 14],
            "the server is back, and so is its policy"
        );
        assert!(!device.core().has_news());
    }

    #[test]
    fn probation_survives_a_crash() {
        let (mut office, mut device) = on_probation();
        lose_server(&mut device, &mut office, 3);
        let saved = device.saved();
        device.restart_from(&saved);
        lose_server(&mut device, &mut office, PROBATION_FAILURES - 3);
        assert_eq!(lengths(&device), [12, 14, 12]);
    }

    #[test]
    fn a_policy_is_tried_again_only_so_often() {
        let (mut office, mut device) = on_probation();
        for _ in 0..RETRIES_MAX + 5 {
            lose_server(&mut device, &mut office, PROBATION_FAILURES + 10);
            let request = device.request();
            let response = office.answer(&request);
            let actions = device.take(&response);
            device.perform(actions, &office);
        }
        let tries = lengths(&device).iter().filter(|length| **length == 14).count();
        assert_eq!(tries, 1 + RETRIES_MAX as usize);
    }
}
