//! What is looked at before a root key signs something of a tenant that somebody else wrote: its first document, or its end.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_model::Timestamp;
use muster_trust::closure::TenantClosureStatement;
use muster_trust::dsse::Envelope;
use muster_trust::key::{KeyId, sha256};
use muster_trust::root::{ApprovalRules, DEFAULT_BUDGETS, Role, RootDocument};
use muster_trust::statement::Statement as _;

use crate::output::{Sheet, clean};

/// How long the first root document of a tenant may be good, from now on.
const DOCUMENT_LIVES_MAX: Duration = Duration::from_secs(366 * 86_400);
/// What a first root document names: no approvers and no witnesses, which the root keys name later.
const FIRST_ROLES: [Role; 4] = [Role::Root, Role::Policy, Role::Action, Role::Log];

/// What a first root document was asked for.
pub struct Asked<'a> {
    /// As the server named the tenant.
    pub id: &'a str,
    pub root_keys: BTreeSet<KeyId>,
    pub threshold: u32,
}

/// Looks whether a document is the first one of this tenant and is what such a document is: exactly these root keys, one key for each
/// thing that the server signs, nobody who approves, the budgets and rules of a fresh install. A server that was taken over adds an
/// approver or a budget of its own and gets no signature. Answers the document; the error says what is wrong.
pub fn check_document(payload: &[u8], asked: &Asked<'_>, now: Timestamp) -> Result<RootDocument, String> {
    let document: RootDocument = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    document.check().map_err(|error| error.to_string())?;
    if document.to_bytes() != payload {
        return Err("it is not written as this program would write it".to_owned());
    }
    if document.version != 1 || document.tenant.to_string() != asked.id {
        return Err("it is not the first document of the tenant".to_owned());
    }
    let root = document.roles.get(&Role::Root);
    if root.is_none_or(|root| root.keys != asked.root_keys || root.threshold != asked.threshold) {
        return Err("it names other root keys, or another threshold, than were asked for".to_owned());
    }
    if !document.roles.keys().eq(FIRST_ROLES.iter()) {
        return Err("it names other roles than root, policy, action and log".to_owned());
    }
    let others = document.roles.iter().filter(|(role, _)| **role != Role::Root);
    for (role, named) in others {
        if named.keys.len() != 1 || named.threshold != 1 {
            return Err(format!("it does not name exactly one {role} key"));
        }
    }
    if !document.approvers.is_empty() {
        return Err("it names somebody who approves".to_owned());
    }
    if document.budgets != DEFAULT_BUDGETS || document.approval != ApprovalRules::default() {
        return Err("its budgets or its rules of approval are not those of a fresh install".to_owned());
    }
    if document.restore_epoch != 0 || !document.settled_heads.is_empty() {
        return Err("it speaks of a past that the tenant does not have".to_owned());
    }
    if document.expires_at > now.plus(DOCUMENT_LIVES_MAX) {
        return Err(format!(
            "it is good until {}, for more than a year",
            document.expires_at
        ));
    }
    Ok(document)
}

/// What is about to be signed, for whoever compares it with what the server says elsewhere.
pub fn what_is_signed(document: &RootDocument, payload: &[u8]) -> Sheet {
    let mut fields = vec![("signing", Some(format!("root document 1, {}", sha256(payload))))];
    for (role, name) in FIRST_ROLES
        .into_iter()
        .zip(["root key", "policy key", "action key", "log key"])
    {
        let named = document.roles.get(&role);
        let ids = named.into_iter().flat_map(|named| &named.keys);
        fields.extend(ids.map(|id| (name, Some(id.to_string()))));
    }
    let authorities = document.device_ca_sha256.iter();
    fields.extend(authorities.map(|digest| ("device CA", Some(digest.to_string()))));
    fields.push(("good until", Some(document.expires_at.to_string())));
    Sheet::new().fields(fields)
}

/// Looks whether a closure is one of this very tenant by its newest root document, and still good. Whether its signatures verify is
/// not asked here. The error says what is wrong.
pub fn check_closure(
    envelope: &Envelope,
    root: &RootDocument,
    newest: &[u8],
    now: Timestamp,
) -> Result<TenantClosureStatement, String> {
    if envelope.payload_type != TenantClosureStatement::PAYLOAD_TYPE {
        return Err(format!("it is no closure, but {}", clean(&envelope.payload_type)));
    }
    if envelope.payload.len() > TenantClosureStatement::MAX_BYTES {
        return Err("it is longer than a closure can be".to_owned());
    }
    let statement: TenantClosureStatement =
        serde_json::from_slice(&envelope.payload).map_err(|error| error.to_string())?;
    statement.check().map_err(|error| error.to_string())?;
    if statement.tenant != root.tenant {
        return Err(format!(
            "it ends {}, and the root documents are those of {}",
            statement.tenant, root.tenant
        ));
    }
    if statement.root_version != root.version || statement.root_sha256 != sha256(newest) {
        return Err(format!(
            "it is by root document {}, and the newest one is {}, {}",
            statement.root_version,
            root.version,
            sha256(newest)
        ));
    }
    if statement.expires_at <= now {
        return Err(format!("it expired at {}", statement.expires_at));
    }
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_model::TenantId;
    use muster_model::text::Name;
    use muster_trust::checkpoint;
    use muster_trust::closure;
    use muster_trust::key::SigningKey;
    use muster_trust::root::{Approver, RoleKeys};

    use super::*;

    const CLOSURE_LIVES: Duration = Duration::from_secs(7 * 86_400);

    fn key(seed: u8) -> SigningKey {
        SigningKey::ed25519_from_seed(&[seed; 32]).expect("a seed is a key")
    }

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }

    fn tenant() -> TenantId {
        TenantId::generate(now(), [7; 10])
    }

    /// A first document as a good server writes it for the root key 1.
    fn document() -> RootDocument {
        let of = [
            (Role::Root, 1),
            (Role::Policy, 2),
            (Role::Action, 3),
            (Role::Log, 4),
        ];
        let only = |seed| RoleKeys {
            keys: [key(seed).key_id()].into(),
            threshold: 1,
        };
        RootDocument {
            tenant: tenant(),
            version: 1,
            issued_at: now(),
            expires_at: now().plus(Duration::from_secs(365 * 86_400)),
            keys: of
                .iter()
                .map(|(_, seed)| (key(*seed).key_id(), key(*seed).public().clone()))
                .collect(),
            roles: of.iter().map(|(role, seed)| (*role, only(*seed))).collect(),
            log_origin: checkpoint::origin(tenant()),
            budgets: DEFAULT_BUDGETS,
            device_ca_sha256: vec![sha256(b"authority")],
            approvers: BTreeMap::new(),
            approval: ApprovalRules::default(),
            restore_epoch: 0,
            settled_heads: BTreeSet::new(),
        }
    }

    fn check(document: &RootDocument) -> Result<(), String> {
        let id = tenant().to_string();
        let asked = Asked {
            id: &id,
            root_keys: [key(1).key_id()].into(),
            threshold: 1,
        };
        check_document(&document.to_bytes(), &asked, now()).map(drop)
    }

    fn refused(change: impl FnOnce(&mut RootDocument)) {
        let mut document = document();
        change(&mut document);
        assert!(check(&document).is_err(), "{document:?}");
    }

    fn also(document: &mut RootDocument, role: Role, seed: u8) {
        let key = key(seed);
        document.keys.insert(key.key_id(), key.public().clone());
        let named = document.roles.entry(role).or_insert(RoleKeys {
            keys: BTreeSet::new(),
            threshold: 1,
        });
        named.keys.insert(key.key_id());
    }

    #[test]
    fn a_first_document_as_a_fresh_install_writes_it_is_signed() {
        assert_eq!(check(&document()), Ok(()));
    }

    #[test]
    fn a_document_with_another_root_key_threshold_or_tenant_is_not_signed() {
        refused(|document| also(document, Role::Root, 9));
        refused(|document| {
            also(document, Role::Root, 9);
            if let Some(root) = document.roles.get_mut(&Role::Root) {
                root.threshold = 2;
            }
        });
        refused(|document| document.version = 2);
        refused(|document| {
            document.tenant = TenantId::generate(now(), [9; 10]);
            document.log_origin = checkpoint::origin(document.tenant);
        });
    }

    #[test]
    fn a_document_that_names_somebody_who_approves_is_not_signed() {
        refused(|document| also(document, Role::Approver, 9));
        refused(|document| {
            also(document, Role::Approver, 9);
            let eve = Approver {
                person: Name::parse("eve").expect("a name"),
                accounts: BTreeSet::new(),
                added_at: now(),
                passkey: None,
            };
            document.approvers.insert(key(9).key_id(), eve);
        });
    }

    #[test]
    fn a_document_with_a_witness_or_a_second_key_of_a_role_is_not_signed() {
        refused(|document| also(document, Role::Witness, 9));
        for role in [Role::Policy, Role::Action, Role::Log] {
            refused(|document| also(document, role, 9));
        }
        refused(|document| {
            document.keys.insert(key(9).key_id(), key(9).public().clone());
        });
    }

    #[test]
    fn a_document_with_other_budgets_or_rules_is_not_signed() {
        refused(|document| document.budgets.destructive_per_hour_min = 6);
        refused(|document| document.budgets.destructive_fraction = 1.0);
        refused(|document| document.approval.cool_down_seconds = 0);
        refused(|document| document.approval.delay_seconds = 0);
        refused(|document| {
            document.approval.also.insert("lock".to_owned());
        });
    }

    #[test]
    fn a_document_with_a_past_is_not_signed() {
        refused(|document| document.restore_epoch = 1);
        refused(|document| {
            document.settled_heads.insert(sha256(b"head"));
        });
    }

    #[test]
    fn a_document_that_is_good_for_more_than_a_year_is_not_signed() {
        refused(|document| document.expires_at = now().plus(Duration::from_secs(367 * 86_400)));
        refused(|document| {
            // A year from a day that is still to come.
            document.issued_at = now().plus(Duration::from_secs(30 * 86_400));
            document.expires_at = document.issued_at.plus(Duration::from_secs(365 * 86_400));
        });
    }

    #[test]
    fn a_closure_of_somebody_else_is_signed_only_for_this_tenant_and_document() {
        let root = document();
        let payload = root.to_bytes();
        let statement = TenantClosureStatement {
            tenant: tenant(),
            root_version: 1,
            root_sha256: sha256(&payload),
            reason: "the contract ended".to_owned(),
            issued_at: now(),
            expires_at: now().plus(CLOSURE_LIVES),
        };
        let signed = |change: &dyn Fn(&mut TenantClosureStatement)| {
            let mut statement = statement.clone();
            change(&mut statement);
            closure::sign(&statement, &[&key(1)]).expect("it is signed")
        };
        let check = |envelope: &Envelope| check_closure(envelope, &root, &payload, now());
        let good = signed(&|_| {});
        assert_eq!(check(&good).as_ref(), Ok(&statement));
        let other = TenantId::generate(now(), [9; 10]);
        for wrong in [
            signed(&|statement| statement.tenant = other),
            signed(&|statement| statement.root_version = 2),
            signed(&|statement| statement.root_sha256 = sha256(b"another")),
            signed(&|statement| {
                statement.issued_at = now().minus(CLOSURE_LIVES);
                statement.expires_at = now();
            }),
            document().sign(&[&key(1)]).expect("it is signed"),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_signed_is_shown_with_its_keys_and_authorities() {
        let document = document();
        let shown = format!("{:?}", what_is_signed(&document, &document.to_bytes()));
        for key in document.keys.keys() {
            assert!(shown.contains(&key.to_string()), "{shown}");
        }
        assert!(shown.contains(&sha256(b"authority").to_string()), "{shown}");
    }
}
