use muster_trust::encoding::from_base64;
use muster_trust::key::{PublicKey, SigningKey};
use muster_trust::note::{
    MAX_NOTE_SIGNATURES, NoteError, NoteSignature, SignatureType, SignedNote, key_hash, verifier_key,
};
use proptest::prelude::*;

use crate::support::{bit_flips, key};

const TEXT: &str = "example.com/log\n5\nAAAA\n";

/// A note that another implementation made: the example of golang.org/x/mod/sumdb/note.
#[test]
fn a_note_of_another_implementation_verifies() {
    let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let note = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n\
                \n\
                \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let raw = from_base64(vkey.rsplit('+').next().unwrap()).unwrap();
    let public = PublicKey::Ed25519(raw[1..].try_into().unwrap());
    assert_eq!(
        verifier_key("PeterNeumann", SignatureType::Ed25519, &public).unwrap(),
        vkey
    );
    let parsed: SignedNote = note.parse().unwrap();
    assert!(parsed.signed_by("PeterNeumann", &public).unwrap());
    assert!(!parsed.signed_by("PeterNeumann", key(1).public()).unwrap());
    assert!(!parsed.signed_by("Somebody", &public).unwrap());
    assert_eq!(parsed.to_string(), note);
}

#[test]
fn key_hashes_depend_on_name_type_and_key() {
    let plain = key_hash("a", SignatureType::Ed25519, key(1).public()).unwrap();
    assert_ne!(
        plain,
        key_hash("b", SignatureType::Ed25519, key(1).public()).unwrap()
    );
    assert_ne!(
        plain,
        key_hash("a", SignatureType::Cosignature, key(1).public()).unwrap()
    );
    assert_ne!(
        plain,
        key_hash("a", SignatureType::Ed25519, key(2).public()).unwrap()
    );
    let p256 = SigningKey::generate_p256().unwrap();
    assert_eq!(
        key_hash("a", SignatureType::Ed25519, p256.public()),
        Err(NoteError::NotEd25519)
    );
}

#[test]
fn signatures_and_cosignatures_are_kept_and_told_apart() {
    let mut note = SignedNote::new(TEXT).unwrap();
    note.sign("example.com/log", &key(1)).unwrap();
    note.cosign("witness.example/w1", &key(2), 1_700_000_000).unwrap();
    let unknown = NoteSignature {
        name: "else".to_owned(),
        key_hash: [9; 4],
        signature: vec![1; 2420],
    };
    note.push(unknown.clone()).unwrap();
    let again: SignedNote = note.to_string().parse().unwrap();
    assert_eq!(again, note);
    assert!(again.signed_by("example.com/log", key(1).public()).unwrap());
    assert!(!again.signed_by("witness.example/w1", key(2).public()).unwrap());
    assert_eq!(again.cosigned_by(key(2).public()).unwrap(), Some(1_700_000_000));
    assert_eq!(again.cosigned_by(key(1).public()).unwrap(), None);
    assert!(again.signatures().contains(&unknown));
}

#[test]
fn a_cosignature_is_bound_to_its_time() {
    let mut note = SignedNote::new(TEXT).unwrap();
    note.cosign("w", &key(2), 1_700_000_000).unwrap();
    let mut line = note.signatures()[0].clone();
    line.signature[7] ^= 1;
    let mut changed = SignedNote::new(TEXT).unwrap();
    changed.push(line).unwrap();
    assert!(matches!(
        changed.cosigned_by(key(2).public()),
        Err(NoteError::BadSignature(_))
    ));
}

#[test]
fn p1_no_bit_flip_of_a_note_verifies() {
    let mut note = SignedNote::new(TEXT).unwrap();
    note.sign("log", &key(1)).unwrap();
    for (at, changed) in bit_flips(note.to_string().as_bytes()) {
        let Ok(text) = String::from_utf8(changed) else {
            continue;
        };
        let Ok(parsed) = text.parse::<SignedNote>() else {
            continue;
        };
        assert_ne!(
            parsed.signed_by("log", key(1).public()),
            Ok(true),
            "byte {at}: {text:?}"
        );
    }
}

#[test]
fn malformed_notes_are_refused() {
    let mut note = SignedNote::new(TEXT).unwrap();
    note.sign("log", &key(1)).unwrap();
    let good = note.to_string();
    let line = good.lines().last().unwrap();
    let wrong = [
        String::new(),
        "\n".to_owned(),
        "\n\n".to_owned(),
        TEXT.to_owned(),
        format!("{TEXT}\n"),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        format!("{good}x\n"),
        format!("{good}{line}\n"),
        good.replace('\u{2014}', "-"),
        good.replace(" log ", " l+g "),
        good.replace(" log ", " l\u{a0}g "),
        good.replace(" log ", "  "),
        good.replace(" log ", " log  "),
        good.replace("AAAA", "AA\tA"),
        good.replace("AAAA", "AA\rA"),
        format!("{TEXT}\n\u{2014} log AAAA\n"),
        format!("{TEXT}\n\u{2014} log AAAAAA==\n"),
        format!("{}\n{good}", "x".repeat(70_000)),
    ];
    for text in wrong {
        assert!(text.parse::<SignedNote>().is_err(), "{text:?}");
    }
    for text in ["", "\n", "no newline", "a\u{1}\n"] {
        assert!(SignedNote::new(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_number_of_signatures_is_bounded() {
    let mut note = SignedNote::new(TEXT).unwrap();
    let line = |n: u8| NoteSignature {
        name: format!("k{n}"),
        key_hash: [n; 4],
        signature: vec![n; 64],
    };
    for n in 0..MAX_NOTE_SIGNATURES as u8 {
        note.push(line(n)).unwrap();
    }
    note.push(line(0)).unwrap();
    assert_eq!(
        note.push(line(200)),
        Err(NoteError::TooLarge("MAX_NOTE_SIGNATURES"))
    );
    assert_eq!(
        note.to_string().parse::<SignedNote>().unwrap().signatures().len(),
        MAX_NOTE_SIGNATURES
    );
}

proptest! {
    #[test]
    fn the_parser_never_panics(text in "[a-z\n +\u{2014}=AZ/]{0,200}", any in ".{0,100}") {
        let _ = any.parse::<SignedNote>();
        if let Ok(note) = text.parse::<SignedNote>() {
            prop_assert_eq!(note.to_string(), text);
        }
    }

    #[test]
    fn what_is_signed_is_read_back(lines in proptest::collection::vec("[ -~]{0,30}", 1..6), name in "[a-z./]{1,20}") {
        let text = format!("{}x\n", lines.join("\n"));
        let mut note = SignedNote::new(text.clone()).unwrap();
        note.sign(&name, &key(3)).unwrap();
        let again: SignedNote = note.to_string().parse().unwrap();
        prop_assert_eq!(again.text(), text);
        prop_assert!(again.signed_by(&name, key(3).public()).unwrap());
    }
}
