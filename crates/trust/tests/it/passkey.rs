//! What is taken of a passkey that a browser made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_trust::key::{Digest, PublicKey, SigningKey, sha256};
use muster_trust::passkey::Registration;
use muster_trust::root::RelyingParty;

/// A software authenticator with everything that it can get wrong.
struct Making {
    kind: &'static str,
    challenge: Digest,
    origin: &'static str,
    relying_party: &'static str,
    flags: u8,
    credential_id: Vec<u8>,
    algorithm: u8,
    extensions: &'static [u8],
}

impl Making {
    fn new() -> Self {
        Self {
            kind: "webauthn.create",
            challenge: sha256(b"session"),
            origin: "https://muster.example:8440",
            relying_party: "muster.example",
            flags: 0b0100_0101,
            credential_id: vec![7; 32],
            algorithm: 0x26,
            extensions: b"",
        }
    }

    fn registration(&self, key: &PublicKey) -> Registration {
        let PublicKey::EcdsaP256(point) = key else {
            panic!("passkeys are ECDSA P-256");
        };
        let challenge = URL_SAFE_NO_PAD.encode(self.challenge.as_bytes());
        let length = u16::try_from(self.credential_id.len()).unwrap();
        Registration {
            client_data_json: format!(
                r#"{{"type":"{}","challenge":"{challenge}","origin":"{}","crossOrigin":false}}"#,
                self.kind, self.origin
            )
            .into_bytes(),
            authenticator_data: [
                sha256(self.relying_party.as_bytes()).as_bytes().as_slice(),
                &[self.flags, 0, 0, 0, 0],
                &[0; 16],
                &length.to_be_bytes(),
                &self.credential_id,
                &[0xa5, 1, 2, 3, self.algorithm, 0x20, 1, 0x21, 0x58, 0x20],
                &point[1..33],
                &[0x22, 0x58, 0x20],
                &point[33..],
                self.extensions,
            ]
            .concat(),
        }
    }
}

fn party() -> RelyingParty {
    RelyingParty::of_origin("https://muster.example:8440").unwrap()
}

#[test]
fn a_passkey_is_taken_only_as_it_was_asked_for() {
    let key = SigningKey::generate_p256().unwrap();
    let check = |change: &dyn Fn(&mut Making)| {
        let mut making = Making::new();
        change(&mut making);
        making
            .registration(key.public())
            .check(&party(), &sha256(b"session"))
    };
    let made = check(&|_| {}).unwrap();
    assert_eq!((&made.key, made.credential_id), (key.public(), vec![7; 32]));
    assert!(check(&|making| making.extensions = &[0xa0]).is_ok());
    let wrong: [&dyn Fn(&mut Making); 9] = [
        &|making| making.kind = "webauthn.get",
        &|making| making.challenge = sha256(b"another session"),
        &|making| making.origin = "https://muster.example",
        &|making| making.relying_party = "example",
        &|making| making.flags = 0b0100_0001,
        &|making| making.flags = 0b0000_0101,
        &|making| making.credential_id = Vec::new(),
        &|making| making.credential_id = vec![7; 1024],
        // An algorithm that was not asked for: EdDSA.
        &|making| making.algorithm = 0x27,
    ];
    for change in wrong {
        assert!(check(change).is_err());
    }
}

#[test]
fn a_point_that_is_not_on_the_curve_is_no_key() {
    let off = PublicKey::EcdsaP256([4; 65]);
    let registration = Making::new().registration(&off);
    assert!(registration.check(&party(), &sha256(b"session")).is_err());
}

#[test]
fn browsers_give_passkeys_to_names_only() {
    for (origin, id) in [
        ("https://muster.example:8440", "muster.example"),
        ("https://muster.example", "muster.example"),
        ("http://localhost:8440", "localhost"),
    ] {
        assert_eq!(RelyingParty::of_origin(origin).unwrap().id, id);
    }
    for origin in [
        "https://127.0.0.1:8440",
        "https://[::1]:8440",
        "http://muster.example",
        "muster.example",
        "",
    ] {
        assert!(RelyingParty::of_origin(origin).is_err(), "{origin}");
    }
}

proptest::proptest! {
    #[test]
    fn random_bytes_are_no_passkey(
        data in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        cut in 0_usize..200,
    ) {
        let challenge = sha256(b"session");
        let key = SigningKey::generate_p256().unwrap();
        let mut made = Making::new().registration(key.public());
        made.authenticator_data.truncate(cut.min(made.authenticator_data.len() - 1));
        proptest::prop_assert!(made.check(&party(), &challenge).is_err());
        made.authenticator_data = [&made.authenticator_data[..cut.min(37).min(made.authenticator_data.len())], &data].concat();
        let _ = made.check(&party(), &challenge);
        made.client_data_json = data;
        proptest::prop_assert!(made.check(&party(), &challenge).is_err());
    }
}
