//! The secrets of this slice, derived from one that every node of the installation has: what stamps nonces, and what keeps
//! the identifier of an order from those who read the database.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    hmac,
};
use muster_model::TenantId;
use zeroize::Zeroizing;

use crate::{access::problem::Problem, secrets::Keyring};

const SALT: &[u8] = b"muster-acme-v1";
const SECRET_BYTES: usize = 32;

/// The secrets of one tenant.
pub struct AcmeKeys {
    stamp: hmac::Key,
    identifier: LessSafeKey,
    tenant: TenantId,
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        SECRET_BYTES
    }
}

impl AcmeKeys {
    /// Derives the secrets of a tenant (RFC 5869), each for its one purpose.
    pub fn of(keys: &Keyring, tenant: TenantId) -> Result<AcmeKeys, Problem> {
        let source = keys
            .first_enrollment_key
            .to_pkcs8_der()
            .map_err(Problem::internal)?;
        Self::derive(&source, tenant)
    }

    pub(super) fn derive(source: &[u8], tenant: TenantId) -> Result<AcmeKeys, Problem> {
        let root = Salt::new(HKDF_SHA256, SALT).extract(source);
        let secret = |purpose: &str| -> Result<_, Problem> {
            let mut secret = Zeroizing::new([0; SECRET_BYTES]);
            root.expand(&[purpose.as_bytes(), tenant.uuid().as_bytes()], Length)
                .and_then(|expanded| expanded.fill(secret.as_mut_slice()))
                .map_err(Problem::internal)?;
            Ok(secret)
        };
        let identifier =
            UnboundKey::new(&AES_256_GCM, secret("identifier")?.as_slice()).map_err(Problem::internal)?;
        Ok(AcmeKeys {
            stamp: hmac::Key::new(hmac::HMAC_SHA256, secret("nonce")?.as_slice()),
            identifier: LessSafeKey::new(identifier),
            tenant,
        })
    }

    /// The tag of a nonce's content.
    pub fn stamp(&self, content: &[u8]) -> hmac::Tag {
        hmac::sign(&self.stamp, content)
    }

    /// Encrypts an identifier for the order `order`, under a random `nonce`.
    pub fn seal(
        &self,
        identifier: &str,
        order: uuid::Uuid,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, Problem> {
        let mut sealed = identifier.as_bytes().to_vec();
        self.identifier
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                self.context(order),
                &mut sealed,
            )
            .map_err(Problem::internal)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what `seal` encrypted for the same order.
    pub fn unseal(&self, sealed: &[u8], order: uuid::Uuid) -> Result<String, Problem> {
        let bent = || Problem::internal("the stored identifier of an ACME order does not open");
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(bent)?;
        let mut content = sealed.to_vec();
        let opened = self
            .identifier
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                self.context(order),
                &mut content,
            )
            .map_err(|_| bent())?;
        String::from_utf8(opened.to_vec()).map_err(|_| bent())
    }

    fn context(&self, order: uuid::Uuid) -> Aad<[u8; 32]> {
        let mut context = [0; 32];
        context[..16].copy_from_slice(self.tenant.uuid().as_bytes());
        context[16..].copy_from_slice(order.as_bytes());
        Aad::from(context)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_identifier_opens_for_its_order_and_tenant_alone() {
        let (tenant, order) = (TenantId::from_uuid(Uuid::from_u128(1)), Uuid::from_u128(2));
        let keys = AcmeKeys::derive(b"secret", tenant).expect("keys");
        let sealed = keys.seal("one-time", order, [7; NONCE_LEN]).expect("sealed");
        assert_eq!(keys.unseal(&sealed, order).expect("opened"), "one-time");
        assert!(!sealed.windows(8).any(|part| part == b"one-time"));
        assert!(keys.unseal(&sealed, Uuid::from_u128(3)).is_err());
        let other = AcmeKeys::derive(b"secret", TenantId::from_uuid(Uuid::from_u128(4))).expect("keys");
        assert!(other.unseal(&sealed, order).is_err());
        for cut in 0..sealed.len() {
            assert!(keys.unseal(&sealed[..cut], order).is_err(), "{cut}");
        }
    }
}
