//! How a wiped or unenrolled device leaves.

use super::*;

#[test]
fn m10_a_wiped_device_obeys_nobody_and_goes_when_its_receipt_has_arrived() {
    let mut office = Office::new();
    let mut device = office.device();
    office.activate(length(12));
    device.meet(&mut office);
    office.approved(WIPE, 0);
    office.approved(WIPE, 0);
    office.command(LOCK);
    office.activate(length(14));
    let response = office.answer(&device.request());
    let actions = device.take(&response);
    device.perform(actions, &office);
    assert_eq!(device.executed.len(), 1, "the first wipe, and nothing after it");
    assert!(device.core().effective_settings().is_empty());
    assert_eq!(lengths(&device), [12]);
    assert_eq!(device.departed, None, "its receipt has not arrived");
    let saved = device.saved();
    device.restart_from(&saved);
    let actions = device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign));
    assert!(actions.is_empty(), "{actions:?}");
    device.meet(&mut office);
    assert_eq!(device.departed, Some(Departed::Wiped));
    let answers: Vec<_> = office
        .receipts
        .iter()
        .map(|receipt| (receipt.outcome, receipt.code.as_deref()))
        .collect();
    let (done, noop, failed) = (ReceiptOutcome::Done, ReceiptOutcome::Noop, ReceiptOutcome::Failed);
    assert_eq!(answers, [(done, None), (noop, None), (failed, Some("departed"))]);
    assert!(!device.core().has_news());
}

#[test]
fn a_device_that_cannot_tell_goes_after_a_day() {
    let mut office = Office::new();
    let mut device = office.device();
    office.approved(CommandKind::Unenroll {}, 0);
    let response = office.answer(&device.request());
    let actions = device.take(&response);
    device.perform(actions, &office);
    lose_server(&mut device, &mut office, 1);
    assert_eq!(device.departed, None);
    device.seconds += 86_400;
    lose_server(&mut device, &mut office, 1);
    assert_eq!(device.departed, Some(Departed::Unenrolled));
}

#[test]
fn a_wipe_that_failed_changes_nothing() {
    let mut office = Office::new();
    let mut device = office.device();
    office.activate(length(12));
    device.meet(&mut office);
    device.outcomes = [Execution::failed("not_supported", "no volume is encrypted")].into();
    office.approved(WIPE, 0);
    device.meet(&mut office);
    assert_eq!(device.departed, None);
    assert!(!device.core().effective_settings().is_empty());
}

#[test]
fn a_wipe_that_was_not_begun_waits_for_another_delivery_after_a_start() {
    let mut office = Office::new();
    let mut device = office.device();
    let id = office.approved(WIPE, 0);
    let response = office.offer(1, device.core().state_digest());
    device.take(&response);
    let saved = device.saved();
    device.restart_from(&saved);
    let actions = device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign));
    assert!(actions.is_empty(), "it may have been taken back: {actions:?}");
    device.meet(&mut office);
    assert_eq!(device.executed, [id]);
}

#[test]
fn a_wipe_that_was_cut_off_goes_on_after_the_start() {
    let mut office = Office::new();
    let mut device = office.device();
    let id = office.approved(WIPE, 0);
    let response = office.offer(1, device.core().state_digest());
    device.take(&response);
    device.with(|core, reading, sign| core.begin(id, reading, sign));
    let saved = device.saved();
    device.restart_from(&saved);
    // What began in time may be finished after it.
    device.seconds += 2 * 86_400;
    let actions = device.with(|core, reading, sign| core.recover(reading, &mut |_| false, sign));
    device.perform(actions, &office);
    assert_eq!(device.executed, [id]);
    assert!(device.core().departed().is_some());
}
