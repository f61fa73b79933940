//! What a device answers: later, once, bounded; scripts, personal devices, commands before their hour.

use super::*;

#[test]
fn what_is_not_now_is_answered_and_done_at_a_later_delivery() {
    let mut office = Office::new();
    let mut device = office.device();
    device.outcomes = [
        Execution::not_now("busy", "dpkg is at work"),
        Execution::not_now("busy", "still"),
    ]
    .into();
    let id = office.command(LOCK);
    device.meet(&mut office);
    let outcomes: Vec<_> = office.receipts.iter().map(|receipt| receipt.outcome).collect();
    let (not_now, done) = (ReceiptOutcome::NotNow, ReceiptOutcome::Done);
    assert_eq!(outcomes, [not_now, not_now, done]);
    assert_eq!(device.executed, [id, id, id], "each delivery tried once");
    device.meet(&mut office);
    assert_eq!(office.receipts.len(), 3);
}

#[test]
fn what_was_put_off_is_not_done_without_another_delivery() {
    let mut office = Office::new();
    let mut device = office.device();
    device.outcomes = [Execution::not_now("busy", "a call is on")].into();
    let id = office.command(RESTART);
    let response = office.offer(1, device.core().state_digest());
    let actions = device.take(&response);
    device.perform(actions, &office);
    // The server took it back, and the machine starts again.
    let saved = device.saved();
    device.restart_from(&saved);
    device.boot += 1;
    let actions = device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign));
    assert!(actions.is_empty(), "{actions:?}");
    assert_eq!(device.executed, [id]);
    // A later command does not make it a replay.
    office.command(LOCK);
    device.meet(&mut office);
    assert_eq!(device.executed.len(), 3);
    assert!(device.refused.is_empty(), "{:?}", device.refused);
}

#[test]
fn what_was_put_off_ends_with_its_time() {
    let mut office = Office::new();
    let mut device = office.device();
    device.outcomes = [Execution::not_now("busy", "a call is on")].into();
    office.command(LOCK);
    let response = office.offer(1, device.core().state_digest());
    let actions = device.take(&response);
    device.perform(actions, &office);
    (office.seconds, device.seconds) = (office.seconds + 3600, device.seconds + 3600);
    device.meet(&mut office);
    let last = office.receipts.last().expect("it was answered");
    assert_eq!(
        (last.outcome, last.code.as_deref()),
        (ReceiptOutcome::Failed, Some("expired"))
    );
    assert_eq!(device.executed.len(), 1);
}

#[test]
fn m9_three_deliveries_are_one_effect_and_the_same_receipt() {
    let mut office = Office::new();
    let mut device = office.device();
    let mut done = Execution::done();
    done.output = Some("uid=0\n".to_owned());
    device.outcomes = [done].into();
    let id = office.command(LOCK);
    let response = office.offer(1, device.core().state_digest());
    let mut receipts = Vec::new();
    for _ in 0..3 {
        let actions = device.take(&response);
        device.perform(actions, &office);
        receipts.push(read_receipt(&device.request().receipts[0]));
        // The server has each, and forgets what was delivered.
        let mut confirmed = CheckinResponse::up_to_date(office.now(), 60);
        confirmed.receipts_accepted = vec![id];
        device.take(&confirmed);
    }
    assert_eq!(device.executed, [id]);
    assert_eq!(receipts[0].output.as_deref(), Some("uid=0\n"));
    assert!(receipts.iter().all(|receipt| *receipt == receipts[0]));
}

#[test]
fn a_long_output_is_cut_and_fills_no_checkin() {
    let mut office = Office::new();
    let mut device = office.device();
    for _ in 0..5 {
        let mut long = Execution::done();
        long.output = Some("\u{1}".repeat(70_000));
        device.outcomes.push_back(long);
        office.command(LOCK);
    }
    let response = office.offer(1, device.core().state_digest());
    let actions = device.take(&response);
    device.perform(actions, &office);
    let request = device.request();
    let body = serde_json::to_vec(&request).expect("it encodes");
    assert!(
        body.len() < crate::limits::CHECKIN_BODY_BYTES_MAX,
        "{}",
        body.len()
    );
    let output = read_receipt(&request.receipts[0]).output.expect("it has one");
    assert!(output.len() == 64 * 1024);
    // What waits is bounded: nothing new is taken before it is told.
    let lock = office.command(LOCK);
    let response = office.offer(request.tree_size, device.core().state_digest());
    let actions = device.take(&response);
    assert!(!actions.contains(&Action::Execute { command_id: lock }));
    device.meet(&mut office);
    assert_eq!(device.executed.last(), Some(&lock));
    assert!(device.saved().len() < 2 * 1024 * 1024, "{}", device.saved().len());
}

#[test]
fn a_script_runs_only_as_the_policy_role_signed_it() {
    let mut office = Office::new();
    let mut device = office.device();
    let good = office.script("id", None);
    device.meet(&mut office);
    assert_eq!(device.executed, [good]);
    let stranger = SigningKey::ed25519_from_seed(&[77; 32]).expect("a seed makes a key");
    office.script("rm -rf /", Some(&stranger));
    office.script("id", None);
    office.queue.last_mut().expect("just queued").script = None;
    let other = office.script("other", None);
    office.queue.retain(|due| due.statement.command_id != other);
    device.meet(&mut office);
    assert_eq!(device.executed, [good]);
    assert_eq!(device.refused, ["script_refused", "script_missing"]);
    let codes: Vec<_> = office.receipts[1..]
        .iter()
        .map(|receipt| receipt.code.as_deref())
        .collect();
    assert_eq!(codes, [Some("script_refused"), Some("script_missing")]);
}

#[test]
fn m11_a_personal_device_refuses_a_full_wipe_whoever_approved_it() {
    let mut office = Office::new();
    office.ownership = Ownership::Personal;
    let mut device = office.device();
    office.approved(WIPE, 0);
    device.meet(&mut office);
    assert!(device.executed.is_empty());
    assert_eq!(device.refused, ["personal_device"]);
    assert_eq!(office.receipts[0].code.as_deref(), Some("personal_device"));
    let mode = WipeMode::Enterprise;
    let id = office.approved(CommandKind::Wipe { mode }, 0);
    device.meet(&mut office);
    assert_eq!(device.executed, [id]);
}

#[test]
fn what_comes_too_early_is_done_in_its_hour_whatever_came_between() {
    let mut office = Office::new();
    let mut device = office.device();
    let wipe = office.approved(WIPE, 300);
    let lock = office.command(LOCK);
    device.meet(&mut office);
    assert_eq!(device.executed, [lock]);
    assert!(device.refused.iter().all(|code| code == "too_early"));
    assert_eq!(office.queue.len(), 1, "it was not answered");
    let saved = device.saved();
    device.restart_from(&saved);
    (office.seconds, device.seconds) = (office.seconds + 400, device.seconds + 400);
    device.meet(&mut office);
    assert_eq!(device.executed, [lock, wipe]);
}
