//! Boot event logs.

use muster_attest::Reject;
use muster_attest::testing::{LogEvent, event_log, replayed, secure_boot_event};
use muster_attest::tpm::{EVENT_LOG_BYTES_MAX, EVENTS_MAX, SecureBoot, replay_event_log, secure_boot};

const EV_SEPARATOR: u32 = 4;
const EV_NO_ACTION: u32 = 3;

fn boot(secure_boot: u8) -> Vec<LogEvent> {
    vec![
        LogEvent::measured(0, 8, b"firmware 1.0"),
        secure_boot_event(secure_boot),
        LogEvent::measured(4, 0x8000_0003, b"boot loader"),
        LogEvent::measured(7, EV_SEPARATOR, &[0; 4]),
        LogEvent::measured(9, 13, b"not asked for"),
    ]
}

fn values(events: &[LogEvent]) -> Vec<(u8, [u8; 32])> {
    [0, 2, 4, 7]
        .map(|index| (index, replayed(events, index)))
        .to_vec()
}

#[test]
fn a_log_that_gives_the_quoted_values_is_believed() {
    for (value, expected) in [(1, SecureBoot::Enforced), (0, SecureBoot::Off)] {
        let events = boot(value);
        let replayed = replay_event_log(&event_log(&events), &values(&events)).expect("a true log");
        assert_eq!(replayed.len(), 4, "the register that was not quoted is left out");
        assert_eq!(secure_boot(&replayed), Some(expected));
    }
}

#[test]
fn a_log_that_gives_other_values_is_refused() {
    let events = boot(1);
    let quoted = values(&events);
    let check = |events: &[LogEvent]| replay_event_log(&event_log(events), &quoted).err();
    assert_eq!(check(&events), None);
    assert_eq!(check(&boot(0)), Some(Reject::EventLogMismatch));
    assert_eq!(check(&events[1..]), Some(Reject::EventLogMismatch));
    let mut order = events.clone();
    order.swap(1, 3);
    assert_eq!(check(&order), Some(Reject::EventLogMismatch));
    // Register 9 was not quoted.
    assert_eq!(check(&events[..4]), None);
}

#[test]
fn what_was_not_hashed_says_nothing() {
    // The digest is that of Secure Boot off, the text claims that it is on.
    let mut lie = boot(0);
    lie[1].data = secure_boot_event(1).data;
    let replayed = replay_event_log(&event_log(&lie), &values(&lie)).expect("the digests fit");
    assert_eq!(secure_boot(&replayed), None);
    let without: Vec<(u8, [u8; 32])> = values(&lie)[..3].to_vec();
    let replayed = replay_event_log(&event_log(&boot(1)), &without[1..2]).expect("register 2");
    assert_eq!(secure_boot(&replayed), None);
}

#[test]
fn a_state_that_was_measured_after_the_boot_says_nothing() {
    // Secure Boot is off. Root extends the register with a state of its own, and hides the firmware's measurement.
    let mut lie = boot(0);
    lie.push(secure_boot_event(1));
    lie[1].data = b"nothing to see".to_vec();
    lie[3].kind = 8;
    let replayed = replay_event_log(&event_log(&lie), &values(&lie)).expect("the digests fit");
    assert_eq!(secure_boot(&replayed), None);
    // Without a separator nobody can say what the firmware measured.
    let open: Vec<LogEvent> = boot(1)
        .into_iter()
        .filter(|event| event.kind != EV_SEPARATOR)
        .collect();
    let replayed = replay_event_log(&event_log(&open), &values(&open)).expect("the digests fit");
    assert_eq!(secure_boot(&replayed), None);
}

#[test]
fn the_start_locality_is_where_register_zero_begins() {
    let mut events = boot(1);
    let mut locality = b"StartupLocality\0".to_vec();
    locality.push(3);
    events.insert(
        0,
        LogEvent {
            pcr: 0,
            kind: EV_NO_ACTION,
            digest: [0; 32],
            data: locality,
        },
    );
    let mut first = [0; 32];
    first[31] = 3;
    let digest = events[1].digest;
    let expected = muster_attest_sha256(&[first, digest].concat());
    assert!(replay_event_log(&event_log(&events), &[(0, expected)]).is_ok());
    assert_eq!(
        replay_event_log(&event_log(&events), &[(0, replayed(&events, 0))]).err(),
        Some(Reject::EventLogMismatch)
    );
}

fn muster_attest_sha256(bytes: &[u8]) -> [u8; 32] {
    LogEvent::measured(0, 0, bytes).digest
}

#[test]
fn a_log_is_bounded_and_read_strictly() {
    let events = boot(1);
    let log = event_log(&events);
    let quoted = values(&events);
    assert_eq!(
        replay_event_log(&vec![0; EVENT_LOG_BYTES_MAX + 1], &quoted).err(),
        Some(Reject::EventLogTooLarge)
    );
    let many = vec![LogEvent::measured(1, 1, b""); EVENTS_MAX + 1];
    assert_eq!(
        replay_event_log(&event_log(&many), &quoted).err(),
        Some(Reject::EventLogTooLarge)
    );
    assert_eq!(
        replay_event_log(&[], &quoted).err(),
        Some(Reject::EventLogMalformed)
    );
    for end in 1..log.len() {
        // Only at the end of an event is a shorter log a log, and then it gives other values.
        let reject = replay_event_log(&log[..end], &quoted).err();
        let unquoted = log.len() - (4 + 4 + 4 + 2 + 32 + 4 + events[4].data.len());
        assert!(reject.is_some() || end == unquoted, "{end}");
    }
    assert_eq!(
        replay_event_log(&event_log(&[LogEvent::measured(24, 1, b"")]), &quoted).err(),
        Some(Reject::EventLogMalformed)
    );
}
