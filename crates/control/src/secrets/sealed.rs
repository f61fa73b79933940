//! Secrets of other services that the operator hands to this one, such as the key of a pager: kept in the database under a key
//! that only the key folder holds.
//!
//! AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits. The context in which a secret is used is authenticated with it, so
//! that a row copied to another tenant, or to another place of the same tenant, does not open. Whoever has the database and not
//! the folder `keys` has nothing.

use std::path::{Path, PathBuf};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use muster_model::TenantId;
use zeroize::Zeroizing;

use super::{SecretsError, files};
use crate::clock;

const FILE: &str = "sealing.key";
const KEY_BYTES: usize = 32;
/// What every sealed secret begins with: the form, and which key.
const FORM: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES;

/// A secret in memory: printed by nobody, wiped when it is dropped.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    pub fn new(text: String) -> SecretText {
        SecretText(Zeroizing::new(text))
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why a sealed secret does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    #[error(
        "it was sealed with the key of another installation or node: copy keys/sealing.key, or set the secret again"
    )]
    OtherKey,
    #[error("it is damaged, or belongs to something else: set the secret again")]
    Damaged,
    #[error("no key is at hand that could open it: the store of secrets is away")]
    Away,
}

/// Where the key of the key folder is.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Whether the key of a key folder is where it was, or was never made: the folder is that of no installation yet.
pub(super) fn is_there_or_first(folder: &Path) -> bool {
    path(folder).exists() || !folder.join(files::INSTALL_ID).exists()
}

/// Refuses to make a key beside an installation that has one somewhere: what that sealed opens with nothing else.
pub(super) fn only_at_first(folder: &Path) -> Result<(), SecretsError> {
    if is_there_or_first(folder) {
        return Ok(());
    }
    Err(SecretsError::SealingMissing { path: path(folder) })
}

/// A key that seals: that of the key folder, or a version of the ring that is kept under it or in another store.
pub struct SealingKey {
    key: LessSafeKey,
    id: [u8; KEY_ID_BYTES],
}

impl SealingKey {
    /// Opens the key in `folder`, made on the first run of an installation alone.
    pub fn open(folder: &Path) -> Result<SealingKey, SecretsError> {
        let path = folder.join(FILE);
        if !path.exists() {
            only_at_first(folder)?;
            files::write_private(&path, SealingKey::generate_hex().reveal().as_bytes())?;
        }
        SealingKey::open_at(&path)
    }

    /// Opens the key in a file, which must be there.
    pub fn open_at(path: &Path) -> Result<SealingKey, SecretsError> {
        let text = Zeroizing::new(files::read(path)?);
        SealingKey::from_hex(&text).map_err(|why| SecretsError::Unreadable {
            path: path.to_owned(),
            why: why.to_owned(),
        })
    }

    /// A new key as text: 64 hexadecimal digits.
    pub fn generate_hex() -> SecretText {
        let fresh = Zeroizing::new(clock::random::<KEY_BYTES>());
        SecretText::new(hex::encode(*fresh))
    }

    /// A key from its text, with or without white space behind it.
    pub fn from_hex(text: &[u8]) -> Result<SealingKey, &'static str> {
        let bytes = Zeroizing::new(hex::decode(text.trim_ascii_end()).map_err(|_| "it is not hexadecimal")?);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| "it is not a key of 256 bits")?;
        // A name for the key that says nothing about it.
        let name = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            b"muster sealing key id v1",
        );
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&name.as_ref()[..KEY_ID_BYTES]);
        Ok(SealingKey {
            key: LessSafeKey::new(key),
            id,
        })
    }

    /// The name of the key, which says nothing about it: 16 hexadecimal digits.
    pub fn name(&self) -> String {
        hex::encode(self.id)
    }

    /// What everything begins with that this key seals.
    pub fn head(&self) -> Vec<u8> {
        [&[FORM][..], &self.id].concat()
    }

    /// Whether this key sealed it, as far as its head says.
    pub fn sealed(&self, sealed: &[u8]) -> bool {
        sealed.len() > HEAD_BYTES && sealed[0] == FORM && sealed[1..HEAD_BYTES] == self.id
    }

    /// Seals a secret for one use of one tenant. `context` names the use, such as `alerts/destination/pager`.
    pub fn seal(&self, tenant: TenantId, context: &str, secret: &SecretText) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = clock::random();
        let mut text = secret.reveal().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(tenant, context)),
                &mut text,
            )
            .expect("AES-GCM seals whatever fits into memory");
        let mut sealed = Vec::with_capacity(HEAD_BYTES + NONCE_LEN + text.len());
        sealed.push(FORM);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        sealed
    }

    /// Opens what `seal` made for the same tenant and context.
    pub fn unseal(&self, tenant: TenantId, context: &str, sealed: &[u8]) -> Result<SecretText, UnsealError> {
        let (head, rest) = sealed.split_at_checked(HEAD_BYTES).ok_or(UnsealError::Damaged)?;
        if head[0] != FORM {
            return Err(UnsealError::Damaged);
        }
        if head[1..] != self.id {
            return Err(UnsealError::OtherKey);
        }
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(UnsealError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| UnsealError::Damaged)?;
        let mut text = Zeroizing::new(text.to_vec());
        let open = self
            .key
            .open_in_place(nonce, Aad::from(bound(tenant, context)), &mut text)
            .map_err(|_| UnsealError::Damaged)?;
        let open = std::str::from_utf8(open).map_err(|_| UnsealError::Damaged)?;
        Ok(SecretText::new(open.to_owned()))
    }
}

fn bound(tenant: TenantId, context: &str) -> Vec<u8> {
    format!("muster-sealed-v1\0{tenant}\0{context}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_secret_opens_for_its_own_tenant_and_use_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = SealingKey::open(folder.path()).expect("a key is made");
        let secret = SecretText::new("R0UT1NGKEY".to_owned());
        let sealed = key.seal(tenant(1), "alerts/pager", &secret);
        assert!(!sealed.windows(10).any(|part| part == b"R0UT1NGKEY"));
        let again = SealingKey::open(folder.path()).expect("it is read again");
        let opened = again
            .unseal(tenant(1), "alerts/pager", &sealed)
            .expect("it opens");
        assert_eq!(opened.reveal(), "R0UT1NGKEY");
        for (of, context) in [(tenant(2), "alerts/pager"), (tenant(1), "alerts/other")] {
            assert_eq!(
                again.unseal(of, context, &sealed).map(drop),
                Err(UnsealError::Damaged)
            );
        }
    }

    #[test]
    fn a_node_with_another_key_says_so() {
        let (one, other) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let sealed = SealingKey::open(one.path()).expect("a key").seal(
            tenant(1),
            "x",
            &SecretText::new("y".to_owned()),
        );
        let found = SealingKey::open(other.path())
            .expect("a key")
            .unseal(tenant(1), "x", &sealed);
        assert_eq!(found.map(drop), Err(UnsealError::OtherKey));
    }

    #[test]
    fn no_key_is_made_beside_an_installation_that_has_one_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = SealingKey::open(folder.path()).expect("the first run makes a key");
        std::fs::write(folder.path().join(files::INSTALL_ID), "x").expect("it is written");
        let again = SealingKey::open(folder.path()).expect("it is read again");
        assert_eq!(again.name(), made.name());
        std::fs::remove_file(path(folder.path())).expect("it is removed");
        let refused = SealingKey::open(folder.path()).map(drop);
        assert!(matches!(refused, Err(SecretsError::SealingMissing { .. })));
        assert!(!path(folder.path()).exists());
    }

    #[test]
    fn nobody_prints_a_secret() {
        let secret = SecretText::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_open_and_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let folder = tempfile::tempdir().expect("a folder");
            let key = SealingKey::open(folder.path()).expect("a key");
            proptest::prop_assert!(key.unseal(tenant(1), "x", &bytes).is_err());
        }
    }
}
