//! The statement that ends a tenant: signed by its root keys, which no server has.
//!
//! Whoever holds the server and an administrator's session can stop serving a tenant, and cannot have it deleted.

use muster_model::id::TenantId;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dsse::Envelope;
use crate::key::{Digest, KeyId, SigningKey, sha256};
use crate::root::{Role, RootDocument};
use crate::statement::{self, Statement, StatementError, Verified};

/// Longest reason.
pub const MAX_CLOSURE_REASON_CHARS: usize = 500;
/// How long a closure may be valid at most, in seconds: 30 days.
pub const MAX_CLOSURE_SECONDS: i64 = 30 * 86_400;

/// "Delete this tenant and everything of it", by the threshold of root keys of its newest root document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantClosureStatement {
    /// Which tenant ends.
    pub tenant: TenantId,
    /// The version of the root document by which it is signed: the newest one.
    pub root_version: u64,
    /// SHA-256 of the payload of that document.
    pub root_sha256: Digest,
    /// Why, for whoever reads the operator's log later; 1 to [`MAX_CLOSURE_REASON_CHARS`] characters.
    pub reason: String,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// After this time nobody may hand it in any more.
    pub expires_at: Timestamp,
}

impl Statement for TenantClosureStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.muster.tenant-closure+json";
    const MAX_BYTES: usize = 8 * 1024;

    fn check(&self) -> Result<(), StatementError> {
        let invalid = |what| Err(StatementError::Invalid(what));
        let chars = self.reason.chars().count();
        if chars == 0 || chars > MAX_CLOSURE_REASON_CHARS || self.reason.trim().is_empty() {
            return invalid("the reason is empty or longer than MAX_CLOSURE_REASON_CHARS");
        }
        if self.reason.chars().any(char::is_control) {
            return invalid("the reason has a control character");
        }
        if self.issued_at >= self.expires_at {
            return invalid("it expires before it is issued");
        }
        let seconds = self.expires_at.as_unix_seconds() - self.issued_at.as_unix_seconds();
        if seconds > MAX_CLOSURE_SECONDS {
            return invalid("it is valid for longer than MAX_CLOSURE_SECONDS");
        }
        Ok(())
    }
}

/// Why a closure was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClosureError {
    /// The envelope, its signatures or its content are wrong.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It ends another tenant.
    #[error("the statement is about {found}, and the tenant is {expected}")]
    Tenant {
        /// The tenant that would be deleted.
        expected: TenantId,
        /// The tenant that the statement names.
        found: TenantId,
    },
    /// It is not by the newest root document.
    #[error("the statement is by root document {found}, and the newest one is {expected}, {sha256}")]
    Root {
        /// The newest version.
        expected: u64,
        /// The version that it names.
        found: u64,
        /// The digest of the newest document.
        sha256: Digest,
    },
}

/// Signs a closure with root keys.
pub fn sign(statement: &TenantClosureStatement, keys: &[&SigningKey]) -> Result<Envelope, StatementError> {
    statement::sign(statement, keys)
}

/// Returns the statement if the threshold of root keys of the newest document signed it for this very tenant and document.
/// `root` is that document, `root_payload` its bytes. Whether it has expired is the reader's to say: it counts when it is handed in.
pub fn verify(
    root: &RootDocument,
    root_payload: &[u8],
    envelope: &Envelope,
) -> Result<Verified<TenantClosureStatement>, ClosureError> {
    let (keys, threshold) = root.role(Role::Root);
    let verified: Verified<TenantClosureStatement> = statement::verify(envelope, &keys, threshold)?;
    let found = &verified.statement;
    if found.tenant != root.tenant {
        return Err(ClosureError::Tenant {
            expected: root.tenant,
            found: found.tenant,
        });
    }
    let digest = sha256(root_payload);
    if found.root_version != root.version || found.root_sha256 != digest {
        return Err(ClosureError::Root {
            expected: root.version,
            found: found.root_version,
            sha256: digest,
        });
    }
    Ok(verified)
}

/// The root keys among those that signed; whether they verify is what [`verify`] says.
pub fn signers(root: &RootDocument, envelope: &Envelope) -> Vec<KeyId> {
    let (keys, _) = root.role(Role::Root);
    let named = keys.iter().map(|key| key.key_id());
    named
        .filter(|id| envelope.signatures.iter().any(|signature| signature.keyid == *id))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use uuid::Uuid;

    use super::*;
    use crate::checkpoint;
    use crate::dsse::DsseError;
    use crate::root::{ApprovalRules, DEFAULT_BUDGETS, RoleKeys};

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::ed25519_from_seed(&[seed; 32]).expect("a seed is a key")
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    /// A document with three root keys, two of which must sign, and one key for each other role.
    fn root() -> (RootDocument, Vec<SigningKey>) {
        let roots: Vec<SigningKey> = (1..=3).map(key).collect();
        let others = [
            (Role::Policy, key(10)),
            (Role::Action, key(11)),
            (Role::Log, key(12)),
        ];
        let mut roles = BTreeMap::from([(
            Role::Root,
            RoleKeys {
                keys: roots.iter().map(SigningKey::key_id).collect(),
                threshold: 2,
            },
        )]);
        for (role, key) in &others {
            let keys = BTreeSet::from([key.key_id()]);
            roles.insert(*role, RoleKeys { keys, threshold: 1 });
        }
        let all = roots.iter().chain(others.iter().map(|(_, key)| key));
        let document = RootDocument {
            tenant: tenant(1),
            version: 1,
            issued_at: at(0),
            expires_at: at(1000),
            keys: all.map(|key| (key.key_id(), key.public().clone())).collect(),
            roles,
            log_origin: checkpoint::origin(tenant(1)),
            budgets: DEFAULT_BUDGETS,
            device_ca_sha256: vec![sha256(b"ca")],
            approvers: BTreeMap::new(),
            approval: ApprovalRules::default(),
            restore_epoch: 0,
            settled_heads: BTreeSet::new(),
        };
        (document, roots)
    }

    fn closure(root: &RootDocument) -> TenantClosureStatement {
        TenantClosureStatement {
            tenant: root.tenant,
            root_version: root.version,
            root_sha256: sha256(&root.to_bytes()),
            reason: "the contract ended".to_owned(),
            issued_at: at(10),
            expires_at: at(20),
        }
    }

    #[test]
    fn a_tenant_ends_by_the_threshold_of_its_root_keys() {
        let (root, keys) = root();
        let statement = closure(&root);
        let signed = |keys: &[&SigningKey]| {
            let envelope = sign(&statement, keys).expect("it can be signed");
            verify(&root, &root.to_bytes(), &envelope).map(|verified| verified.statement)
        };
        assert_eq!(signed(&[&keys[0], &keys[2]]), Ok(statement.clone()));
        let threshold = |valid| {
            let error = DsseError::Threshold { valid, threshold: 2 };
            Err(ClosureError::Statement(StatementError::Dsse(error)))
        };
        assert_eq!(signed(&[&keys[1]]), threshold(1));
        // Keys of other roles, and of nobody, do not count.
        assert_eq!(signed(&[&keys[1], &key(11), &key(12), &key(99)]), threshold(1));
        assert_eq!(signed(&[&key(10), &key(11)]), threshold(0));
    }

    #[test]
    fn a_closure_of_another_tenant_or_document_is_refused() {
        let (root, keys) = root();
        let check = |change: &dyn Fn(&mut TenantClosureStatement)| {
            let mut statement = closure(&root);
            change(&mut statement);
            let envelope = sign(&statement, &[&keys[0], &keys[1]]).expect("it can be signed");
            verify(&root, &root.to_bytes(), &envelope)
        };
        let other = check(&|statement| statement.tenant = tenant(2));
        assert!(matches!(other, Err(ClosureError::Tenant { .. })));
        let version = check(&|statement| statement.root_version = 2);
        assert!(matches!(version, Err(ClosureError::Root { .. })));
        let digest = check(&|statement| statement.root_sha256 = sha256(b"another"));
        assert!(matches!(digest, Err(ClosureError::Root { .. })));
    }

    #[test]
    fn no_signature_of_another_purpose_closes_a_tenant() {
        let (root, keys) = root();
        let payload = statement::payload(&closure(&root)).expect("it is bounded");
        let as_root = crate::dsse::sign(crate::root::PAYLOAD_TYPE, &payload, &[&keys[0], &keys[1]]);
        let refused = verify(&root, &root.to_bytes(), &as_root.expect("it can be signed"));
        let is_type = |error| {
            matches!(
                error,
                ClosureError::Statement(StatementError::Dsse(DsseError::PayloadType { .. }))
            )
        };
        assert!(refused.is_err_and(is_type));
    }

    #[test]
    fn what_is_out_of_bounds_is_not_signed() {
        let (root, keys) = root();
        let check = |change: &dyn Fn(&mut TenantClosureStatement)| {
            let mut statement = closure(&root);
            change(&mut statement);
            sign(&statement, &[&keys[0]]).is_err()
        };
        assert!(check(&|statement| statement.reason = "  ".to_owned()));
        assert!(check(&|statement| statement.reason = "x".repeat(501)));
        assert!(check(&|statement| statement.reason = "line\nbreak".to_owned()));
        assert!(check(&|statement| statement.expires_at = statement.issued_at));
        assert!(check(
            &|statement| statement.expires_at = at(11 + MAX_CLOSURE_SECONDS)
        ));
    }

    proptest::proptest! {
        #[test]
        fn random_payloads_are_refused_and_never_panic(payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let (root, keys) = root();
            let envelope = crate::dsse::sign(TenantClosureStatement::PAYLOAD_TYPE, &payload, &[&keys[0], &keys[1]]).expect("it can be signed");
            proptest::prop_assert!(verify(&root, &root.to_bytes(), &envelope).is_err());
        }
    }
}
