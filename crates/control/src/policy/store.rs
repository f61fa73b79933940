//! SQL of the `policy_` tables.

use muster_model::{EntryId, PolicyId, TenantId, Timestamp, text::VersionLabel};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{Policy, PolicySummary, Unstored, Version};

statements! {
    INSERT_POLICY = "INSERT INTO policy_policy (tenant_id, policy_id, name, description, created_at) \
        VALUES ($1, $2, $3, $4, $5)";
    DESCRIBE_POLICY = "UPDATE policy_policy SET description = $3 WHERE tenant_id = $1 AND policy_id = $2";
    HOLD_POLICY = "UPDATE policy_policy SET name = name \
        WHERE tenant_id = $1 AND policy_id = $2 AND archived_at IS NULL";
    ARCHIVE_POLICY = "UPDATE policy_policy SET archived_at = $3 \
        WHERE tenant_id = $1 AND policy_id = $2 AND archived_at IS NULL";
    RESTORE_POLICY = "UPDATE policy_policy SET archived_at = NULL \
        WHERE tenant_id = $1 AND policy_id = $2 AND archived_at IS NOT NULL";
    MANAGE_POLICY = "UPDATE policy_policy SET managed_by = $3 WHERE tenant_id = $1 AND policy_id = $2";
    POLICY = "SELECT policy_id, name, description, created_at, managed_by, archived_at FROM policy_policy \
        WHERE tenant_id = $1 AND policy_id = $2";
    POLICY_BY_NAME = "SELECT policy_id, name, description, created_at, managed_by, archived_at FROM policy_policy \
        WHERE tenant_id = $1 AND name = $2";
    POLICIES = "SELECT p.policy_id, p.name, p.description, p.created_at, p.managed_by, p.archived_at, \
        (SELECT COUNT(*) FROM policy_version v WHERE v.tenant_id = p.tenant_id AND v.policy_id = p.policy_id), \
        (SELECT v.version FROM policy_version v WHERE v.tenant_id = p.tenant_id AND v.policy_id = p.policy_id \
        ORDER BY v.sequence DESC LIMIT 1) \
        FROM policy_policy p WHERE p.tenant_id = $1 AND p.policy_id > $2 AND p.archived_at IS NULL \
        ORDER BY p.policy_id LIMIT $3";
    NEXT_SEQUENCE = "SELECT COALESCE(MAX(sequence), 0) + 1 FROM policy_version \
        WHERE tenant_id = $1 AND policy_id = $2";
    INSERT_VERSION = "INSERT INTO policy_version (tenant_id, policy_id, version, sequence, content_sha256, settings, \
        rules, bundle_sha256, bundle, entry_id, created_by, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    VERSION = "SELECT policy_id, version, sequence, content_sha256, settings, rules, bundle_sha256, entry_id, \
        created_by, created_at FROM policy_version WHERE tenant_id = $1 AND policy_id = $2 AND version = $3";
    VERSIONS = "SELECT policy_id, version, sequence, content_sha256, settings, rules, bundle_sha256, entry_id, \
        created_by, created_at FROM policy_version WHERE tenant_id = $1 AND policy_id = $2 AND sequence < $3 \
        ORDER BY sequence DESC LIMIT $4";
    BUNDLE = "SELECT bundle FROM policy_version WHERE tenant_id = $1 AND policy_id = $2 AND version = $3";
    WITHOUT_ARTIFACT = "SELECT policy_id, version, sequence, content_sha256, settings, rules, bundle_sha256, entry_id, \
        created_by, created_at, tenant_id FROM policy_version WHERE artifact_at IS NULL AND EXISTS (SELECT 1 FROM access_tenant t \
        WHERE t.tenant_id = policy_version.tenant_id AND t.state = 'active') ORDER BY sequence LIMIT $1";
    HAS_ARTIFACT = "SELECT COUNT(*) FROM policy_version \
        WHERE tenant_id = $1 AND bundle_sha256 = $2 AND artifact_at IS NOT NULL";
    BUNDLES_BEHIND = "SELECT DISTINCT bundle_sha256 FROM policy_version WHERE tenant_id = $1 AND bundle_sha256 > $2 \
        ORDER BY bundle_sha256 LIMIT $3";
    MARK_ARTIFACT = "UPDATE policy_version SET artifact_at = $3 WHERE tenant_id = $1 AND bundle_sha256 = $2";
    BUNDLE_BY_SHA256 = "SELECT bundle FROM policy_version WHERE tenant_id = $1 AND bundle_sha256 = $2 LIMIT 1";
}

pub fn insert_policy(tx: &mut Tx, tenant: TenantId, policy: &Policy) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_POLICY,
        &[
            &tenant.uuid(),
            &policy.id.uuid(),
            &policy.name.as_str(),
            &policy.description.as_deref(),
            &policy.created_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Stores another description; 0 when there is no such policy.
pub fn describe(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    description: &str,
) -> Result<u64, StorageError> {
    tx.execute(&DESCRIBE_POLICY, &[&tenant.uuid(), &policy.uuid(), &description])
}

/// Versions of every tenant whose bundles were not brought to the artifact store, at most `limit`.
pub fn without_artifact(tx: &mut Tx, limit: i64) -> Result<Vec<Unstored>, StorageError> {
    tx.query(&WITHOUT_ARTIFACT, &[&limit], |row| {
        Ok(Unstored {
            tenant: TenantId::from_uuid(row.get(10)?),
            version: version_of(row)?,
        })
    })
}

/// Whether a bundle was brought to the artifact store.
pub fn has_artifact(tx: &mut Tx, tenant: TenantId, bundle_sha256: &str) -> Result<bool, StorageError> {
    let count: i64 = tx.query_one(&HAS_ARTIFACT, &[&tenant.uuid(), &bundle_sha256], |row| row.get(0))?;
    Ok(count > 0)
}

/// Remembers that a bundle was brought to the artifact store.
pub fn mark_artifact(
    tx: &mut Tx,
    tenant: TenantId,
    bundle_sha256: &str,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&MARK_ARTIFACT, &[&tenant.uuid(), &bundle_sha256, &at.as_micros()])
}

/// Keeps a policy from being archived until the transaction ends; 0 when there is none, or it is archived.
pub fn hold(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<u64, StorageError> {
    tx.execute(&HOLD_POLICY, &[&tenant.uuid(), &policy.uuid()])
}

/// Puts a policy away; 0 when it is away already.
pub fn archive(tx: &mut Tx, tenant: TenantId, policy: PolicyId, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(
        &ARCHIVE_POLICY,
        &[&tenant.uuid(), &policy.uuid(), &at.as_micros()],
    )
}

/// Brings an archived policy back; 0 when it is not archived.
pub fn restore(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<u64, StorageError> {
    tx.execute(&RESTORE_POLICY, &[&tenant.uuid(), &policy.uuid()])
}

/// Says who describes the policy.
pub fn manage(tx: &mut Tx, tenant: TenantId, policy: PolicyId, by: &str) -> Result<u64, StorageError> {
    tx.execute(&MANAGE_POLICY, &[&tenant.uuid(), &policy.uuid(), &by])
}

pub fn policy(tx: &mut Tx, tenant: TenantId, id: PolicyId) -> Result<Option<Policy>, StorageError> {
    tx.query_opt(&POLICY, &[&tenant.uuid(), &id.uuid()], policy_of)
}

pub fn policy_by_name(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Policy>, StorageError> {
    tx.query_opt(&POLICY_BY_NAME, &[&tenant.uuid(), &name], policy_of)
}

pub fn policies(
    tx: &mut Tx,
    tenant: TenantId,
    after: PolicyId,
    limit: i64,
) -> Result<Vec<PolicySummary>, StorageError> {
    tx.query(&POLICIES, &[&tenant.uuid(), &after.uuid(), &limit], |row| {
        Ok(PolicySummary {
            policy: policy_of(row)?,
            versions: row.get(6)?,
            newest: row.get(7)?,
        })
    })
}

pub fn next_sequence(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<u64, StorageError> {
    tx.query_one(&NEXT_SEQUENCE, &[&tenant.uuid(), &policy.uuid()], |row| {
        row.get(0)
    })
}

pub fn insert_version(
    tx: &mut Tx,
    tenant: TenantId,
    version: &Version,
    bundle: &[u8],
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_VERSION,
        &[
            &tenant.uuid(),
            &version.policy.uuid(),
            &version.version.as_str(),
            &version.sequence,
            &version.content_sha256.as_slice(),
            &version.settings.as_str(),
            &version.rules.as_str(),
            &version.bundle_sha256.as_str(),
            &bundle,
            &version.entry.uuid(),
            &version.created_by.as_str(),
            &version.created_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn version(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    version: &str,
) -> Result<Option<Version>, StorageError> {
    tx.query_opt(&VERSION, &[&tenant.uuid(), &policy.uuid(), &version], version_of)
}

pub fn versions(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    before: u64,
    limit: i64,
) -> Result<Vec<Version>, StorageError> {
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    tx.query(
        &VERSIONS,
        &[&tenant.uuid(), &policy.uuid(), &before, &limit],
        version_of,
    )
}

pub fn bundle(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    version: &str,
) -> Result<Option<Vec<u8>>, StorageError> {
    tx.query_opt(&BUNDLE, &[&tenant.uuid(), &policy.uuid(), &version], |row| {
        row.get(0)
    })
}

pub fn bundle_by_sha256(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &str,
) -> Result<Option<Vec<u8>>, StorageError> {
    tx.query_opt(&BUNDLE_BY_SHA256, &[&tenant.uuid(), &sha256], |row| row.get(0))
}

fn policy_of(row: &Row<'_>) -> Result<Policy, StorageError> {
    Ok(Policy {
        id: PolicyId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        description: row.get(2)?,
        created_at: Timestamp::from_micros(row.get(3)?),
        managed_by: row.get(4)?,
        archived_at: row.get::<Option<i64>>(5)?.map(Timestamp::from_micros),
    })
}

fn version_of(row: &Row<'_>) -> Result<Version, StorageError> {
    let label: String = row.get(1)?;
    let version = label.parse::<VersionLabel>().map_err(|_| StorageError::Type {
        index: 1,
        expected: "a version label",
        found: label.chars().take(64).collect(),
    })?;
    Ok(Version {
        policy: PolicyId::from_uuid(row.get(0)?),
        version,
        sequence: row.get(2)?,
        content_sha256: row.get(3)?,
        settings: row.get(4)?,
        rules: row.get(5)?,
        bundle_sha256: row.get(6)?,
        entry: EntryId::from_uuid(row.get(7)?),
        created_by: row.get(8)?,
        created_at: Timestamp::from_micros(row.get(9)?),
    })
}

/// The digests of a tenant's bundles, in order, behind one.
pub fn bundles_behind(
    tx: &mut Tx,
    tenant: TenantId,
    behind: &str,
    limit: i64,
) -> Result<Vec<String>, StorageError> {
    tx.query(&BUNDLES_BEHIND, &[&tenant.uuid(), &behind, &limit], |row| {
        row.get(0)
    })
}
