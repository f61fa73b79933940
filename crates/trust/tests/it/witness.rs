use muster_trust::checkpoint::{self, CheckpointBody};
use muster_trust::key::Digest;
use muster_trust::note::{NoteError, SignatureType, SignedNote, VerifierKey, verifier_key};
use muster_trust::witness::{AddCheckpoint, TreeHead, WitnessRefusal, cosignature, decide, read_answer};
use proptest::prelude::*;

use crate::support::{TestLog, at, bit_flips, key, tenant};

const LOG_KEY: u8 = 1;
const WITNESS_KEY: u8 = 2;

fn log_of(entries: u32) -> TestLog {
    let mut log = TestLog::default();
    for number in 0..entries {
        log.append(number.to_be_bytes().to_vec());
    }
    log
}

fn signed(body: &CheckpointBody, by: u8) -> SignedNote {
    body.sign(&[&key(by)]).expect("an Ed25519 key signs notes")
}

fn log_keys() -> Vec<VerifierKey> {
    let origin = checkpoint::origin(tenant(1));
    let text = verifier_key(&origin, SignatureType::Ed25519, key(LOG_KEY).public());
    vec![
        text.expect("the key is Ed25519")
            .parse()
            .expect("the text is a verifier key"),
    ]
}

fn request(log: &TestLog, old_size: u64, size: u64) -> AddCheckpoint {
    AddCheckpoint {
        old_size,
        proof: log.consistency(old_size, size),
        note: signed(&log.body(tenant(1), size, at(size)), LOG_KEY),
    }
}

fn head(log: &TestLog, size: u64) -> TreeHead {
    let body = log.body(tenant(1), size, at(size));
    TreeHead {
        origin: body.origin,
        size,
        root: body.root,
    }
}

fn check(request: &AddCheckpoint, known: Option<TreeHead>, expected: Result<u64, u16>) {
    let decided = decide(request, &log_keys(), |_| known);
    assert_eq!(
        decided.map(|head| head.size).map_err(|refusal| refusal.status()),
        expected
    );
}

#[test]
fn what_extends_the_cosigned_head_is_cosigned() {
    let log = log_of(300);
    check(&request(&log, 0, 5), None, Ok(5));
    check(&request(&log, 5, 300), Some(head(&log, 5)), Ok(300));
    check(&request(&log, 300, 300), Some(head(&log, 300)), Ok(300));
}

#[test]
fn a_sender_that_is_elsewhere_is_told_the_known_size() {
    let log = log_of(20);
    let decided = decide(&request(&log, 0, 20), &log_keys(), |_| Some(head(&log, 12)));
    assert_eq!(decided, Err(WitnessRefusal::OtherSize { known: 12 }));
    // A log that became shorter: there is nothing that it could prove.
    check(&request(&log, 5, 10), Some(head(&log, 12)), Err(409));
    check(&request(&log, 3, 9), None, Err(409));
}

#[test]
fn l3_two_histories_of_one_log_are_never_both_cosigned() {
    let (log, mut other) = (log_of(12), log_of(11));
    other.append(b"another story".to_vec());
    let fork = request(&other, 12, 12);
    let decided = decide(&fork, &log_keys(), |_| Some(head(&log, 12)));
    assert_eq!(decided, Err(WitnessRefusal::Fork { known: 12 }));
    other.append(b"and on".to_vec());
    let later = request(&other, 12, 13);
    check(&later, Some(head(&log, 12)), Err(422));
    let refusal = decide(&later, &log_keys(), |_| Some(head(&log, 12))).expect_err("it is a fork");
    assert_eq!(refusal, WitnessRefusal::OtherHistory { known: 12 });
    assert!(refusal.is_evidence());
}

#[test]
fn l3_a_wrong_proof_under_a_proper_checkpoint_is_no_evidence() {
    let log = log_of(40);
    // Everybody can fetch the checkpoint of 40 entries and send it with whatever else.
    for known in [8, 12, 39] {
        let good = request(&log, known, 40);
        for place in 0..good.proof.len() {
            let mut bent = good.clone();
            bent.proof[place].0[0] ^= 1;
            let refusal = decide(&bent, &log_keys(), |_| Some(head(&log, known))).expect_err("a wrong proof");
            assert!(!refusal.is_evidence(), "{known}, {place}: {refusal}");
        }
        for proof in [Vec::new(), vec![Digest([9; 32]); 7], request(&log, 3, 40).proof] {
            let mut other = good.clone();
            other.proof = proof;
            let refusal =
                decide(&other, &log_keys(), |_| Some(head(&log, known))).expect_err("a wrong proof");
            assert!(!refusal.is_evidence(), "{known}: {refusal}");
        }
    }
}

#[test]
fn only_a_known_key_of_the_log_counts() {
    let log = log_of(4);
    let mut forged = request(&log, 0, 4);
    forged.note = signed(&log.body(tenant(1), 4, at(4)), 9);
    check(&forged, None, Err(403));
    let mut foreign = request(&log, 0, 4);
    foreign.note = signed(&log.body(tenant(2), 4, at(4)), LOG_KEY);
    check(&foreign, None, Err(404));
    let mut early = request(&log, 0, 4);
    early.old_size = 5;
    check(&early, None, Err(400));
    let mut proof_of_nothing = request(&log, 0, 4);
    proof_of_nothing.proof.push(Digest([7; 32]));
    check(&proof_of_nothing, None, Err(422));
}

#[test]
fn a_request_reads_back_and_the_answer_makes_a_cosigned_checkpoint() {
    let log = log_of(40);
    let sent = request(&log, 7, 40);
    let text = sent.to_string();
    assert!(text.starts_with("old 7\n"));
    assert_eq!(text.parse::<AddCheckpoint>().as_ref(), Ok(&sent));
    let line = cosignature(&sent.note, "witness.example/w1", &key(WITNESS_KEY), 1_790_000_000);
    let answer = format!("{}\n", line.expect("it can sign"));
    let mut note = sent.note.clone();
    for line in read_answer(&answer).expect("it is a line") {
        note.push(line).expect("there is room");
    }
    assert_eq!(
        note.cosigned_by(key(WITNESS_KEY).public()),
        Ok(Some(1_790_000_000))
    );
}

#[test]
fn forms_that_are_not_requests_are_refused() {
    let good = request(&log_of(9), 4, 9).to_string();
    for (from, to) in [
        ("old 4", "old 04"),
        ("old 4", "old -4"),
        ("old 4", "new 4"),
        ("old 4", "old 18446744073709551615"),
        ("old 4\n", "old 4\nAAAA\n"),
        ("\n\n", "\n"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(bad.parse::<AddCheckpoint>().is_err(), "{bad}");
    }
    let long = format!(
        "old 4\n{}\n{good}",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".repeat(64)
    );
    assert!(long.parse::<AddCheckpoint>().is_err());
}

#[test]
fn a_verifier_key_is_read_only_as_it_is_written() {
    let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let read: VerifierKey = text.parse().expect("another program wrote it");
    assert_eq!(read.to_string(), text);
    assert_eq!(
        (read.name.as_str(), read.kind),
        ("PeterNeumann", SignatureType::Ed25519)
    );
    for (place, bent) in bit_flips(text.as_bytes()) {
        if let Ok(bent) = String::from_utf8(bent) {
            assert!(bent.parse::<VerifierKey>().is_err(), "byte {place}: {bent}");
        }
    }
    assert_eq!(
        "a+b".parse::<VerifierKey>().map(drop),
        Err(NoteError::Malformed("not a verifier key: name+hash+base64"))
    );
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC*", bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = text.parse::<AddCheckpoint>();
        let _ = text.parse::<VerifierKey>();
        let _ = read_answer(&text);
        let lossy = String::from_utf8_lossy(&bytes).into_owned();
        let _ = format!("old 1\n\n{lossy}").parse::<AddCheckpoint>();
        let _ = lossy.parse::<AddCheckpoint>();
    }
}
