//! What people approved: once, soon, after this enrollment, and by a proven time.

use std::collections::BTreeSet;

use muster_trust::approval::ApprovalProof;
use proptest::prelude::*;

use super::office::START_SECONDS;
use super::*;
use crate::enroll::CERTIFICATE_BACKDATED;

const DAY: i64 = 86_400;

/// A tenant whose restarts need approvals, and a device.
fn strict() -> (Office, Device) {
    let mut office = Office::new();
    office.also = BTreeSet::from(["restart".to_owned()]);
    let device = office.device();
    (office, device)
}

fn shown(office: &Office) -> ApprovalProof {
    let last = office.queue.last().expect("a command is queued");
    last.approval.clone().expect("it has one")
}

fn codes(office: &Office) -> Vec<Option<&str>> {
    office
        .receipts
        .iter()
        .map(|receipt| receipt.code.as_deref())
        .collect()
}

/// Both clocks go on.
fn wait(office: &mut Office, device: &mut Device, seconds: i64) {
    device.seconds += seconds;
    office.seconds = device.seconds;
}

/// Everything that is due, taken and not begun.
fn accept(office: &Office, device: &mut Device) -> Vec<Action> {
    let request = device.request();
    let response = office.offer(request.tree_size, request.state_digest);
    device.take(&response)
}

/// Everything that is due, taken and carried out.
fn deliver(office: &Office, device: &mut Device) {
    let actions = accept(office, device);
    device.perform(actions, office);
}

/// The program starts again from what it saved last; answers what it does then.
fn start_again(device: &mut Device, boots: u128) -> Vec<Action> {
    let saved = device.saved();
    device.restart_from(&saved);
    device.boot += boots;
    device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign))
}

#[test]
fn m9_an_approval_is_good_for_one_command() {
    let (mut office, mut device) = strict();
    let first = office.approved(RESTART, 0);
    let proof = shown(&office);
    office.again();
    device.meet(&mut office);
    assert_eq!(device.executed, [first]);
    assert_eq!(device.refused, [APPROVAL_USED_CODE]);
    assert_eq!(codes(&office), [None, Some(APPROVAL_USED_CODE)]);
    // Not after another start of the machine, and not by a new row of the same number.
    start_again(&mut device, 1);
    wait(&mut office, &mut device, 3600);
    office.command_of(RESTART, proof);
    device.meet(&mut office);
    assert_eq!(device.executed, [first]);
    let second = office.approved(RESTART, 0);
    device.meet(&mut office);
    assert_eq!(device.executed, [first, second], "what was approved anew is done");
}

#[test]
fn m9_a_command_that_the_device_does_not_remember_has_used_its_approval() {
    let (mut office, mut device) = strict();
    let first = office.approved(RESTART, 0);
    let proof = shown(&office);
    device.meet(&mut office);
    for _ in 0..10 {
        for _ in 0..30 {
            office.command(LOCK);
        }
        device.meet(&mut office);
    }
    assert_eq!(device.executed.len(), 301);
    let (sequence, batch) = (office.sequence + 1, proof.batch.sha256());
    office.command_with(RESTART, |command| {
        (command.command_id, command.sequence, command.batch) = (first, sequence, Some(batch));
    });
    office.queue.last_mut().expect("just queued").approval = Some(proof);
    device.meet(&mut office);
    assert_eq!(device.executed.len(), 301);
    assert_eq!(device.refused, [APPROVAL_USED_CODE]);
}

#[test]
fn m7_what_people_approved_begins_soon_or_is_checked_again() {
    let (mut office, mut device) = strict();
    let id = office.approved(RESTART, 0);
    accept(&office, &mut device);
    // It waits for its turn behind something that takes long.
    wait(&mut office, &mut device, 61);
    let late = device.with(|core, reading, sign| core.begin(id, reading, sign));
    assert_eq!(late, Begin::Nothing);
    let receipt = read_receipt(&device.request().receipts[0]);
    assert_eq!(
        (receipt.outcome, receipt.code.as_deref()),
        (ReceiptOutcome::NotNow, Some(APPROVAL_STALE_CODE))
    );
    assert!(device.executed.is_empty());
    device.meet(&mut office);
    assert_eq!(device.executed, [id], "it is delivered again, and checked again");
}

#[test]
fn m7_what_was_taken_back_while_it_waited_never_begins() {
    let (mut office, mut device) = strict();
    let id = office.approved(RESTART, 0);
    accept(&office, &mut device);
    office.queue.clear();
    wait(&mut office, &mut device, 2 * 3600);
    device.meet(&mut office);
    device.perform(vec![Action::Execute { command_id: id }], &office);
    device.meet(&mut office);
    assert!(device.executed.is_empty());
}

#[test]
fn m2_whoever_is_no_approver_any_more_does_not_count_when_it_begins() {
    let (mut office, mut device) = strict();
    let id = office.approved(RESTART, 0);
    accept(&office, &mut device);
    office.approver = SigningKey::ed25519_from_seed(&[66; 32]).expect("a seed makes a key");
    let root = office.root_envelope(2);
    let mut response = office.offer(device.request().tree_size, device.core().state_digest());
    (response.root_documents, response.commands) = (vec![root], Vec::new());
    device.take(&response);
    let begun = device.with(|core, reading, sign| core.begin(id, reading, sign));
    assert_eq!(begun, Begin::Nothing);
    device.meet(&mut office);
    assert!(device.executed.is_empty());
    assert_eq!(device.refused, ["approvals_invalid"]);
}

#[test]
fn m2_what_waits_is_refused_as_soon_as_its_approver_is_gone() {
    let (mut office, mut device) = strict();
    office.approved(RESTART, 0);
    accept(&office, &mut device);
    office.approver = SigningKey::ed25519_from_seed(&[66; 32]).expect("a seed makes a key");
    let mut response = office.offer(device.request().tree_size, device.core().state_digest());
    response.root_documents = vec![office.root_envelope(2)];
    let actions = device.take(&response);
    device.perform(actions, &office);
    assert!(device.executed.is_empty());
    assert_eq!(device.refused, ["approvals_invalid"]);
}

#[test]
fn m7_what_needs_approvals_waits_for_its_delivery_after_a_start_whatever_it_is() {
    let (mut office, mut device) = strict();
    let id = office.approved(RESTART, 0);
    accept(&office, &mut device);
    let actions = start_again(&mut device, 0);
    assert!(actions.is_empty(), "it may have been taken back: {actions:?}");
    device.meet(&mut office);
    assert_eq!(device.executed, [id]);
}

#[test]
fn a_command_that_needs_approvals_since_it_came_does_not_begin() {
    let mut office = Office::new();
    let mut device = office.device();
    let id = office.command(RESTART);
    accept(&office, &mut device);
    office.also = BTreeSet::from(["restart".to_owned()]);
    let mut response = office.offer(device.request().tree_size, device.core().state_digest());
    response.root_documents = vec![office.root_envelope(2)];
    let actions = device.take(&response);
    device.perform(actions, &office);
    assert!(device.executed.is_empty());
    assert_eq!(device.refused, ["approvals_required"]);
    let begun = device.with(|core, reading, sign| core.begin(id, reading, sign));
    assert_eq!(begun, Begin::Nothing);
}

#[test]
fn m6_a_wall_clock_decides_nothing_about_what_people_approved() {
    for error in [DAY + 3600, 600, -DAY] {
        let (mut office, mut device) = strict();
        let id = office.approved(RESTART, 300);
        device.meet(&mut office);
        assert_eq!(device.refused, ["too_early"]);
        start_again(&mut device, 1);
        device.wall_error_seconds = error;
        wait(&mut office, &mut device, 10);
        // The head is the one that the device has seen: the answer brings no checkpoint.
        let mut response = office.offer(device.request().tree_size, device.core().state_digest());
        response.checkpoint = None;
        let actions = device.take(&response);
        device.perform(actions, &office);
        assert!(device.executed.is_empty(), "{error}");
        assert_eq!(device.refused[1..], [TIME_UNPROVEN_CODE], "{error}");
        assert!(!device.core().has_news(), "nothing is answered");
        device.meet(&mut office);
        assert_eq!(device.refused[2..], ["too_early"], "{error}");
        wait(&mut office, &mut device, 300);
        device.meet(&mut office);
        assert_eq!(device.executed, [id], "{error}");
    }
}

#[test]
fn what_needs_nobody_does_not_wait_for_a_checkpoint() {
    let (mut office, mut device) = strict();
    let id = office.command(LOCK);
    accept(&office, &mut device);
    start_again(&mut device, 1);
    let mut response = office.offer(device.request().tree_size, device.core().state_digest());
    response.checkpoint = None;
    let actions = device.take(&response);
    device.perform(actions, &office);
    assert_eq!(device.executed, [id]);
}

#[test]
fn m5_what_was_approved_before_the_enrollment_is_for_another_one() {
    let (mut office, mut device) = strict();
    // The device enrolled a minute before the story begins.
    office.seconds = START_SECONDS - 60;
    office.approved(RESTART, 0);
    office.seconds = START_SECONDS - 59;
    let after = office.approved(RESTART, 0);
    office.seconds = START_SECONDS;
    device.meet(&mut office);
    assert_eq!(device.executed, [after]);
    assert_eq!(device.refused, ["asked_before_enrollment"]);
    assert_eq!(codes(&office)[0], Some("asked_before_enrollment"));
}

#[test]
fn m5_nobody_else_chooses_when_the_enrollment_was() {
    let office = Office::new();
    let from = Timestamp::from_unix_seconds(START_SECONDS - DAY);
    assert_eq!(CERTIFICATE_BACKDATED, Duration::from_secs(86_400));
    // The certificate was made at the start; the checkpoint is as old as somebody likes.
    for (wall, checkpoint, expected) in [
        (START_SECONDS, START_SECONDS - 9 * DAY, START_SECONDS),
        (START_SECONDS + 9 * DAY, START_SECONDS - 9 * DAY, START_SECONDS),
        (START_SECONDS - 60, START_SECONDS - 9 * DAY, START_SECONDS - 60),
        (0, START_SECONDS - 9 * DAY, START_SECONDS - DAY),
        (0, START_SECONDS - 5, START_SECONDS - 5),
    ] {
        let mut trust = Trust::pin(&office.root_envelope(1), office.tenant).expect("the document verifies");
        let note = office.checkpoint_at(Timestamp::from_unix_seconds(checkpoint));
        trust.advance_checkpoint(&note, &[]).expect("the log signed it");
        let reading = ClockReading {
            wall: Timestamp::from_unix_seconds(wall),
            since_boot: Duration::from_secs(9),
            boot: 1,
        };
        let identity = office.device().core().identity().clone();
        let core = DeviceCore::new(identity, "0.1.0", trust, from, &reading);
        let expected = Timestamp::from_unix_seconds(expected);
        assert_eq!(core.trust().enrolled_at, Some(expected), "{wall} {checkpoint}");
    }
}

#[test]
fn a_state_from_before_is_read() {
    let (mut office, mut device) = strict();
    let mut state: serde_json::Value = serde_json::from_str(&device.saved()).expect("it is JSON");
    let trust = state["trust"].as_object_mut().expect("an object");
    assert!(trust.remove("enrolled_at").is_some());
    assert!(
        state["commands"].get("spent").is_none(),
        "what is empty is not written"
    );
    device.restart_from(&state.to_string());
    assert_eq!(device.core().trust().enrolled_at, None);
    let id = office.approved(RESTART, 0);
    device.meet(&mut office);
    assert_eq!(device.executed, [id]);
}

/// What happens between a server, whose database anybody writes, and a device.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// People approve another restart.
    Approve,
    /// A row is made for what was approved already.
    Again(u8),
    /// Everything that is due is carried out.
    Deliver,
    /// It is accepted, and the power goes before it begins.
    LosePower,
    /// The program or the machine starts again.
    Start {
        is_reboot: bool,
    },
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Approve),
        any::<u8>().prop_map(Step::Again),
        Just(Step::Deliver),
        Just(Step::LosePower),
        any::<bool>().prop_map(|is_reboot| Step::Start { is_reboot }),
        any::<u8>().prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn m9_however_it_is_delivered_an_approval_is_one_effect(steps in prop::collection::vec(step(), 1..20)) {
        let (mut office, mut device) = strict();
        let mut approved: Vec<ApprovalProof> = Vec::new();
        for step in steps {
            match step {
                Step::Approve => {
                    office.approved(RESTART, 0);
                    approved.push(shown(&office));
                }
                Step::Again(which) if !approved.is_empty() => {
                    let proof = approved[usize::from(which) % approved.len()].clone();
                    office.command_of(RESTART, proof);
                }
                Step::Again(_) => {}
                Step::Deliver => deliver(&office, &mut device),
                Step::LosePower => {
                    accept(&office, &mut device);
                    let actions = start_again(&mut device, 1);
                    device.perform(actions, &office);
                }
                Step::Start { is_reboot } => {
                    let actions = start_again(&mut device, u128::from(is_reboot));
                    device.perform(actions, &office);
                }
                Step::Wait(seconds) => wait(&mut office, &mut device, seconds.into()),
            }
        }
        wait(&mut office, &mut device, 1);
        deliver(&office, &mut device);
        for proof in &approved {
            let batch = Some(proof.batch.sha256());
            let is_of = |id: &&CommandId| {
                office.queue.iter().any(|due| due.statement.command_id == **id && due.statement.batch == batch)
            };
            prop_assert_eq!(device.executed.iter().filter(is_of).count(), 1);
        }
        prop_assert_eq!(device.executed.len(), approved.len());
    }
}
