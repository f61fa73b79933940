//! SQL of the `devices_` tables.

use muster_model::{AttestationLevel, ComplianceState, DeviceId, Ownership, Platform, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{
    Applicant, Device, DeviceState, Protocol,
    changes::{self, Changes},
    filter::DeviceFilter,
};

macro_rules! device_columns {
    () => {
        "device_id, device_uuid, serial, name, owner, platform, model, vendor, epoch, state, quarantine_reason, \
         attestation_level, spki, compliance_state, compliance_at, agent_version, enrolled_at, last_seen_at, \
         ownership, protocol, attestation, merged_into"
    };
}

statements! {
    INSERT = concat!("INSERT INTO devices_device (tenant_id, spki_sha256, ", device_columns!(), ", owner_key) VALUES \
        ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, \
        $24, $25)");
    BY_ID = concat!("SELECT ", device_columns!(), " FROM devices_device WHERE tenant_id = $1 AND device_id = $2");
    BY_UUID = concat!("SELECT ", device_columns!(), " FROM devices_device WHERE tenant_id = $1 AND device_uuid = $2 \
        ORDER BY enrolled_at DESC, device_id LIMIT 16");
    BY_NAME = concat!("SELECT ", device_columns!(), " FROM devices_device WHERE tenant_id = $1 AND name = $2 \
        ORDER BY device_id LIMIT 2");
    BY_KEY = concat!("SELECT ", device_columns!(), " FROM devices_device WHERE tenant_id = $1 AND spki_sha256 = $2");
    LIST = concat!("SELECT ", device_columns!(), " FROM devices_device WHERE tenant_id = $1 AND device_id > $2 \
        AND ($3 = '' OR platform = $3) AND ($4 = '' OR state = $4) AND ($5 = '' OR compliance_state = $5) \
        AND ($6 = '' OR LOWER(COALESCE(model, '')) = $6) \
        AND ($7 = '' OR LOWER(name) LIKE $7 ESCAPE '!' OR LOWER(COALESCE(serial, '')) LIKE $7 ESCAPE '!' \
            OR LOWER(COALESCE(owner, '')) LIKE $7 ESCAPE '!' OR LOWER(COALESCE(model, '')) LIKE $7 ESCAPE '!') \
        AND ($9 = '' OR EXISTS (SELECT 1 FROM devices_label l WHERE l.tenant_id = devices_device.tenant_id \
            AND l.device_id = devices_device.device_id AND l.key = $9 AND ($10 = '' OR l.value = $10))) \
        AND ($11 = '' OR EXISTS (SELECT 1 FROM devices_label l WHERE l.tenant_id = devices_device.tenant_id \
            AND l.device_id = devices_device.device_id AND l.key = $11 AND ($12 = '' OR l.value = $12))) \
        ORDER BY device_id LIMIT $8");
    LIST_EPOCHS = "SELECT device_id, epoch FROM devices_device WHERE tenant_id = $1 AND state = 'active' \
        AND ($2 = '' OR platform = $2) AND ($3 = '' OR state = $3) AND ($4 = '' OR compliance_state = $4) \
        AND ($5 = '' OR LOWER(COALESCE(model, '')) = $5) \
        AND ($6 = '' OR LOWER(name) LIKE $6 ESCAPE '!' OR LOWER(COALESCE(serial, '')) LIKE $6 ESCAPE '!' \
            OR LOWER(COALESCE(owner, '')) LIKE $6 ESCAPE '!' OR LOWER(COALESCE(model, '')) LIKE $6 ESCAPE '!') \
        AND ($7 = '' OR EXISTS (SELECT 1 FROM devices_label l WHERE l.tenant_id = devices_device.tenant_id \
            AND l.device_id = devices_device.device_id AND l.key = $7 AND ($8 = '' OR l.value = $8))) \
        AND ($9 = '' OR EXISTS (SELECT 1 FROM devices_label l WHERE l.tenant_id = devices_device.tenant_id \
            AND l.device_id = devices_device.device_id AND l.key = $9 AND ($10 = '' OR l.value = $10))) \
        ORDER BY device_id LIMIT $11";
    EPOCH_OF_ACTIVE = "SELECT epoch FROM devices_device WHERE tenant_id = $1 AND device_id = $2 AND state = 'active'";
    COUNT = "SELECT COUNT(*) FROM devices_device WHERE tenant_id = $1 \
        AND ($2 = '' OR platform = $2) AND ($3 = '' OR state = $3) AND ($4 = '' OR compliance_state = $4) \
        AND ($5 = '' OR LOWER(COALESCE(model, '')) = $5) \
        AND ($6 = '' OR LOWER(name) LIKE $6 ESCAPE '!' OR LOWER(COALESCE(serial, '')) LIKE $6 ESCAPE '!' \
            OR LOWER(COALESCE(owner, '')) LIKE $6 ESCAPE '!' OR LOWER(COALESCE(model, '')) LIKE $6 ESCAPE '!') \
        AND ($7 = '' OR EXISTS (SELECT 1 FROM devices_label l WHERE l.tenant_id = devices_device.tenant_id \
            AND l.device_id = devices_device.device_id AND l.key = $7 AND ($8 = '' OR l.value = $8))) \
        AND ($9 = '' OR EXISTS (SELECT 1 FROM devices_label l WHERE l.tenant_id = devices_device.tenant_id \
            AND l.device_id = devices_device.device_id AND l.key = $9 AND ($10 = '' OR l.value = $10)))";
    SUMMARY = "SELECT platform, state, compliance_state, COUNT(*) FROM devices_device WHERE tenant_id = $1 \
        GROUP BY platform, state, compliance_state";
    NEXT_EPOCH = "UPDATE devices_device SET epoch = epoch + 1, state = $3, quarantine_reason = $4, owner = $5, \
        enrolled_at = $6, last_seen_at = $6, spki = $7, spki_sha256 = $8, attestation_level = $9, attestation = $10, \
        ownership = $11, protocol = $12, serial = COALESCE(serial, $13), merged_into = NULL, \
        owner_key = $14 \
        WHERE tenant_id = $1 AND device_id = $2 RETURNING epoch";
    AWAITS_DECISION = "UPDATE devices_device SET state = state WHERE tenant_id = $1 AND device_id = $2 \
        AND state = 'quarantined'";
    SHARERS = "SELECT c.device_id FROM devices_claim c \
        JOIN devices_device d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
        WHERE c.tenant_id = $1 AND c.kind = $2 AND c.value = $3 AND c.shared AND d.state = 'active' \
        ORDER BY d.enrolled_at, c.device_id LIMIT 16";
    UNSHARE_CLAIM = "UPDATE devices_claim SET shared = FALSE WHERE tenant_id = $1 AND device_id = $2 AND kind = $3 \
        AND value = $4";
    WAITING_WITH_TPM = "SELECT c.device_id FROM devices_claim c \
        JOIN devices_device d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
        WHERE c.tenant_id = $1 AND c.kind = 'tpm_ek' AND c.value = $2 AND d.state = 'quarantined' \
        ORDER BY d.enrolled_at DESC, c.device_id LIMIT 1";
    MERGED_INTO = "UPDATE devices_device SET merged_into = $3 WHERE tenant_id = $1 AND device_id = $2";
    INHERIT = "UPDATE devices_device SET owner = COALESCE(owner, $3), owner_key = COALESCE(owner_key, $5), name = $4 \
        WHERE tenant_id = $1 AND device_id = $2";
    OF_OWNER = concat!("SELECT ", device_columns!(), " FROM devices_device WHERE tenant_id = $1 AND owner_key = $2 \
        ORDER BY device_id LIMIT $3");
    OWNED = "SELECT COUNT(*) FROM devices_device WHERE tenant_id = $1 AND owner = $2 AND state <> 'retired'";
    OF_MODEL = "SELECT COUNT(*) FROM devices_device WHERE tenant_id = $1 AND model = $2 AND state <> 'retired'";
    LIVE = "SELECT COUNT(*) FROM devices_device WHERE tenant_id = $1 AND state <> 'retired'";
    ENROLLED_SINCE = "SELECT COUNT(*) FROM devices_device WHERE tenant_id = $1 AND enrolled_at > $2";
    SAY_CLAIM = "INSERT INTO devices_claim (tenant_id, device_id, kind, value, shared) VALUES ($1, $2, $3, $4, FALSE) \
        ON CONFLICT (tenant_id, device_id, kind, value) DO NOTHING";
    SAID_CLAIMS = "SELECT kind, value, shared FROM devices_claim WHERE tenant_id = $1 AND device_id = $2 \
        ORDER BY kind, value";
    SHARE_CLAIM = "UPDATE devices_claim SET shared = TRUE WHERE tenant_id = $1 AND device_id = $2 AND kind = $3 \
        AND value = $4";
    FORGET_CLAIMS = "DELETE FROM devices_claim WHERE tenant_id = $1 AND device_id = $2 AND NOT shared";
    TPM_ELSEWHERE = "SELECT COUNT(*) FROM devices_claim c \
        JOIN devices_device d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
        WHERE c.kind = 'tpm_ek' AND c.value = $2 AND c.tenant_id <> $1 AND d.state <> 'retired'";
    SET_STATE = "UPDATE devices_device SET state = $3, quarantine_reason = $4 WHERE tenant_id = $1 AND device_id = $2";
    REKEY = "UPDATE devices_device SET spki = $3, spki_sha256 = $4 WHERE tenant_id = $1 AND device_id = $2";
    SET_COMPLIANCE = "UPDATE devices_device SET compliance_state = $3, compliance_at = $4 \
        WHERE tenant_id = $1 AND device_id = $2";
    SEEN = "UPDATE devices_device SET last_seen_at = $3 WHERE tenant_id = $1 AND device_id = $2 AND last_seen_at < $3";
    LEARN = "UPDATE devices_device SET model = COALESCE($3, model), vendor = COALESCE($4, vendor), \
        agent_version = COALESCE($5, agent_version), name = CASE WHEN $6 = '' THEN name ELSE $6 END \
        WHERE tenant_id = $1 AND device_id = $2";
    CLAIM = "INSERT INTO devices_hardware (tenant_id, kind, value, device_id) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, kind, value) DO UPDATE SET device_id = $4 WHERE devices_hardware.device_id = $4";
    HOLDER = "SELECT device_id FROM devices_hardware WHERE tenant_id = $1 AND kind = $2 AND value = $3";
    CLAIMS = "SELECT kind, value FROM devices_hardware WHERE tenant_id = $1 AND device_id = $2 ORDER BY kind, value";
    RELEASE = "DELETE FROM devices_hardware WHERE tenant_id = $1 AND device_id = $2";
    HELD_BY_INACTIVE = "SELECT h.kind, h.value, h.device_id FROM devices_hardware h \
        LEFT JOIN devices_device d ON d.tenant_id = h.tenant_id AND d.device_id = h.device_id \
        WHERE h.tenant_id = $1 AND COALESCE(d.state, '') <> 'active' ORDER BY h.kind, h.value LIMIT 100";
    PUT_FACTS = "INSERT INTO devices_facts (tenant_id, device_id, facts, sha256, updated_at) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (tenant_id, device_id) DO UPDATE SET facts = $3, sha256 = $4, updated_at = $5";
    FACTS = "SELECT facts, updated_at FROM devices_facts WHERE tenant_id = $1 AND device_id = $2";
    FACTS_BETWEEN = "SELECT device_id, facts FROM devices_facts WHERE tenant_id = $1 AND device_id > $2 \
        AND device_id <= $3 ORDER BY device_id";
    DATED_FACTS_BETWEEN = "SELECT device_id, facts, updated_at FROM devices_facts WHERE tenant_id = $1 \
        AND device_id >= $2 AND device_id <= $3 ORDER BY device_id";
    HAS_FACTS = "SELECT COUNT(*) FROM devices_facts WHERE tenant_id = $1 AND device_id = $2";
}

/// A hardware identifier that a device claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub kind: &'static str,
    pub value: String,
}

pub fn insert(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<(), StorageError> {
    tx.execute(
        &INSERT,
        &[
            &tenant.uuid(),
            &muster_trust::key::sha256(&device.spki).as_bytes().as_slice(),
            &device.id.uuid(),
            &device.device_uuid,
            &device.serial,
            &device.name.as_str(),
            &device.owner,
            &device.platform.as_str(),
            &device.model,
            &device.vendor,
            &i64::from(device.epoch),
            &device.state.as_str(),
            &device.quarantine_reason,
            &device.attestation_level.as_str(),
            &device.spki.as_slice(),
            &device.compliance.as_str(),
            &device.compliance_at.map(|at| at.as_micros()),
            &device.agent_version,
            &device.enrolled_at.as_micros(),
            &device.last_seen_at.as_micros(),
            &device.ownership.as_str(),
            &device.protocol.as_str(),
            &device.attestation.as_str(),
            &device.merged_into.map(|id| id.uuid()),
            &owner_key(device.owner.as_deref()),
        ],
    )?;
    changes::mark(tx, tenant, device.id, Changes::ALL)
}

/// By what an owner and a person of the directory are the same.
fn owner_key(owner: Option<&str>) -> Option<String> {
    owner.map(muster_scim::name_key)
}

/// The devices of an owner, retired ones too.
pub fn of_owner(
    tx: &mut Tx,
    tenant: TenantId,
    owner_key: &str,
    limit: i64,
) -> Result<Vec<Device>, StorageError> {
    tx.query(&OF_OWNER, &[&tenant.uuid(), &owner_key, &limit], device_of)
}

pub fn by_id(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<Option<Device>, StorageError> {
    tx.query_opt(&BY_ID, &[&tenant.uuid(), &id.uuid()], device_of)
}

pub fn by_uuid(tx: &mut Tx, tenant: TenantId, device_uuid: Uuid) -> Result<Vec<Device>, StorageError> {
    tx.query(&BY_UUID, &[&tenant.uuid(), &device_uuid], device_of)
}

pub fn by_name(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Vec<Device>, StorageError> {
    tx.query(&BY_NAME, &[&tenant.uuid(), &name], device_of)
}

/// Gives a device another key. Another device's key breaks the unique index.
pub fn rekey(tx: &mut Tx, tenant: TenantId, device: DeviceId, spki: &[u8]) -> Result<(), StorageError> {
    tx.execute(
        &REKEY,
        &[
            &tenant.uuid(),
            &device.uuid(),
            &spki,
            &muster_trust::key::sha256(spki).as_bytes().as_slice(),
        ],
    )
    .map(drop)
}

pub fn by_key(tx: &mut Tx, tenant: TenantId, spki_sha256: &[u8]) -> Result<Option<Device>, StorageError> {
    tx.query_opt(&BY_KEY, &[&tenant.uuid(), &spki_sha256], device_of)
}

pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &DeviceFilter,
    after: DeviceId,
    limit: i64,
) -> Result<Vec<Device>, StorageError> {
    let like = filter.like();
    tx.query(
        &LIST,
        &[
            &tenant.uuid(),
            &after.uuid(),
            &filter.platform(),
            &filter.state(),
            &filter.compliance(),
            &filter.model(),
            &like.as_str(),
            &limit,
            &filter.label(0).0,
            &filter.label(0).1,
            &filter.label(1).0,
            &filter.label(1).1,
        ],
        device_of,
    )
}

pub fn count(tx: &mut Tx, tenant: TenantId, filter: &DeviceFilter) -> Result<i64, StorageError> {
    let like = filter.like();
    tx.query_one(
        &COUNT,
        &[
            &tenant.uuid(),
            &filter.platform(),
            &filter.state(),
            &filter.compliance(),
            &filter.model(),
            &like.as_str(),
            &filter.label(0).0,
            &filter.label(0).1,
            &filter.label(1).0,
            &filter.label(1).1,
        ],
        |row| row.get(0),
    )
}

/// Ids and epochs of the active devices that a filter matches.
pub fn list_epochs(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &DeviceFilter,
    limit: i64,
) -> Result<Vec<(DeviceId, u32)>, StorageError> {
    let like = filter.like();
    tx.query(
        &LIST_EPOCHS,
        &[
            &tenant.uuid(),
            &filter.platform(),
            &filter.state(),
            &filter.compliance(),
            &filter.model(),
            &like.as_str(),
            &filter.label(0).0,
            &filter.label(0).1,
            &filter.label(1).0,
            &filter.label(1).1,
            &limit,
        ],
        |row| Ok((DeviceId::from_uuid(row.get(0)?), row.get(1)?)),
    )
}

/// The enrollment epoch of a device that is active.
pub fn epoch_of_active(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<Option<u32>, StorageError> {
    tx.query_opt(&EPOCH_OF_ACTIVE, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))
}

/// Rows of (platform, state, compliance, devices).
pub fn summary(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(String, String, String, i64)>, StorageError> {
    tx.query(&SUMMARY, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })
}

/// Begins the device's next enrollment, with the key and the proof that the applicant brings.
pub fn next_epoch(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
    state: DeviceState,
    reason: Option<&str>,
    applicant: &Applicant,
    at: Timestamp,
) -> Result<u32, StorageError> {
    changes::mark(tx, tenant, id, Changes::ALL)?;
    tx.query_one(
        &NEXT_EPOCH,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &state.as_str(),
            &reason,
            &applicant.owner,
            &at.as_micros(),
            &applicant.spki.as_slice(),
            &muster_trust::key::sha256(&applicant.spki).as_bytes().as_slice(),
            &applicant.level.as_str(),
            &applicant.attestation.as_str(),
            &applicant.ownership.as_str(),
            &applicant.protocol.as_str(),
            &applicant.serial,
            &owner_key(applicant.owner.as_deref()),
        ],
        |row| row.get(0),
    )
}

/// Holds a device that waits for a decision until the transaction ends; `false` when somebody decided already.
pub fn awaits_decision(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<bool, StorageError> {
    let rows = tx.execute(&AWAITS_DECISION, &[&tenant.uuid(), &id.uuid()])?;
    Ok(rows == 1)
}

/// Active devices that an operator lets make a claim which another holds, the first enrolled first.
pub fn sharers(tx: &mut Tx, tenant: TenantId, claim: &Claim) -> Result<Vec<DeviceId>, StorageError> {
    tx.query(
        &SHARERS,
        &[&tenant.uuid(), &claim.kind, &claim.value.as_str()],
        |row| Ok(DeviceId::from_uuid(row.get(0)?)),
    )
}

pub fn unshare_claim(tx: &mut Tx, tenant: TenantId, id: DeviceId, claim: &Claim) -> Result<(), StorageError> {
    tx.execute(
        &UNSHARE_CLAIM,
        &[&tenant.uuid(), &id.uuid(), &claim.kind, &claim.value.as_str()],
    )
    .map(drop)
}

/// The device in quarantine that proved this TPM. It holds no claim, and is that machine all the same.
pub fn waiting_with_tpm(
    tx: &mut Tx,
    tenant: TenantId,
    ek_sha256: &str,
) -> Result<Option<DeviceId>, StorageError> {
    tx.query_opt(&WAITING_WITH_TPM, &[&tenant.uuid(), &ek_sha256], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

pub fn merged_into(tx: &mut Tx, tenant: TenantId, id: DeviceId, heir: DeviceId) -> Result<(), StorageError> {
    tx.execute(&MERGED_INTO, &[&tenant.uuid(), &id.uuid(), &heir.uuid()])
        .map(drop)
}

/// Gives a device the name, and where it has none the owner, of the one that it follows.
pub fn inherit(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
    owner: Option<&str>,
    name: &str,
) -> Result<(), StorageError> {
    changes::mark(tx, tenant, id, Changes::ATTRIBUTES)?;
    tx.execute(
        &INHERIT,
        &[&tenant.uuid(), &id.uuid(), &owner, &name, &owner_key(owner)],
    )
    .map(drop)
}

/// Devices of an owner that are not retired.
pub fn owned(tx: &mut Tx, tenant: TenantId, owner: &str) -> Result<i64, StorageError> {
    tx.query_one(&OWNED, &[&tenant.uuid(), &owner], |row| row.get(0))
}

/// Devices of a model that are not retired.
pub fn of_model(tx: &mut Tx, tenant: TenantId, model: &str) -> Result<i64, StorageError> {
    tx.query_one(&OF_MODEL, &[&tenant.uuid(), &model], |row| row.get(0))
}

/// Devices that are not retired.
pub fn live(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&LIVE, &[&tenant.uuid()], |row| row.get(0))
}

pub fn enrolled_since(tx: &mut Tx, tenant: TenantId, since: Timestamp) -> Result<i64, StorageError> {
    tx.query_one(&ENROLLED_SINCE, &[&tenant.uuid(), &since.as_micros()], |row| {
        row.get(0)
    })
}

/// Notes what a device says of itself, whether it holds the claim or not.
pub fn say_claim(tx: &mut Tx, tenant: TenantId, id: DeviceId, claim: &Claim) -> Result<(), StorageError> {
    tx.execute(
        &SAY_CLAIM,
        &[&tenant.uuid(), &id.uuid(), &claim.kind, &claim.value.as_str()],
    )
    .map(drop)
}

/// What a device says of itself, as (kind, value, whether an operator lets another device say it too).
pub fn said_claims(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
) -> Result<Vec<(String, String, bool)>, StorageError> {
    tx.query(&SAID_CLAIMS, &[&tenant.uuid(), &id.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

pub fn share_claim(tx: &mut Tx, tenant: TenantId, id: DeviceId, claim: &Claim) -> Result<(), StorageError> {
    tx.execute(
        &SHARE_CLAIM,
        &[&tenant.uuid(), &id.uuid(), &claim.kind, &claim.value.as_str()],
    )
    .map(drop)
}

/// Forgets what a device said in an earlier enrollment; what an operator lets it share stays.
pub fn forget_claims(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<(), StorageError> {
    tx.execute(&FORGET_CLAIMS, &[&tenant.uuid(), &id.uuid()])
        .map(drop)
}

/// Across tenants: whether a TPM belongs to a device of another tenant.
pub fn tpm_elsewhere(tx: &mut Tx, tenant: TenantId, ek_sha256: &str) -> Result<bool, StorageError> {
    tx.query_one(&TPM_ELSEWHERE, &[&tenant.uuid(), &ek_sha256], |row| {
        row.get::<i64>(0)
    })
    .map(|rows| rows > 0)
}

pub fn set_state(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
    state: DeviceState,
    reason: Option<&str>,
) -> Result<u64, StorageError> {
    changes::mark(tx, tenant, id, Changes::ALL)?;
    tx.execute(
        &SET_STATE,
        &[&tenant.uuid(), &id.uuid(), &state.as_str(), &reason],
    )
}

pub fn set_compliance(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
    state: ComplianceState,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &SET_COMPLIANCE,
        &[&tenant.uuid(), &id.uuid(), &state.as_str(), &at.as_micros()],
    )
}

pub fn seen(tx: &mut Tx, tenant: TenantId, id: DeviceId, at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&SEEN, &[&tenant.uuid(), &id.uuid(), &at.as_micros()])
        .map(drop)
}

pub fn learn(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
    model: Option<&str>,
    vendor: Option<&str>,
    agent_version: Option<&str>,
    name: &str,
) -> Result<(), StorageError> {
    tx.execute(
        &LEARN,
        &[&tenant.uuid(), &id.uuid(), &model, &vendor, &agent_version, &name],
    )
    .map(drop)
}

/// Takes a claim that is free or already the device's; answers `false` when another device holds it.
pub fn claim(tx: &mut Tx, tenant: TenantId, claim: &Claim, id: DeviceId) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &CLAIM,
        &[&tenant.uuid(), &claim.kind, &claim.value.as_str(), &id.uuid()],
    )?;
    Ok(rows == 1)
}

pub fn holder(tx: &mut Tx, tenant: TenantId, claim: &Claim) -> Result<Option<DeviceId>, StorageError> {
    tx.query_opt(
        &HOLDER,
        &[&tenant.uuid(), &claim.kind, &claim.value.as_str()],
        |row| Ok(DeviceId::from_uuid(row.get(0)?)),
    )
}

/// The claims that a device holds, as (kind, value).
pub fn claims(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<Vec<(String, String)>, StorageError> {
    tx.query(&CLAIMS, &[&tenant.uuid(), &id.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

pub fn release(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<(), StorageError> {
    tx.execute(&RELEASE, &[&tenant.uuid(), &id.uuid()]).map(drop)
}

/// Hardware identifiers that are held by a device which is not active, as (kind, value, device).
pub fn held_by_inactive(
    tx: &mut Tx,
    tenant: TenantId,
) -> Result<Vec<(String, String, DeviceId)>, StorageError> {
    tx.query(&HELD_BY_INACTIVE, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?, DeviceId::from_uuid(row.get(2)?)))
    })
}

pub fn put_facts(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
    facts: &str,
    sha256: &[u8],
    at: Timestamp,
) -> Result<(), StorageError> {
    // Facts say the model and the vendor too, which are attributes.
    changes::mark(tx, tenant, id, Changes::FACTS.and(Changes::ATTRIBUTES))?;
    tx.execute(
        &PUT_FACTS,
        &[&tenant.uuid(), &id.uuid(), &facts, &sha256, &at.as_micros()],
    )
    .map(drop)
}

pub fn facts(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeviceId,
) -> Result<Option<(String, Timestamp)>, StorageError> {
    tx.query_opt(&FACTS, &[&tenant.uuid(), &id.uuid()], |row| {
        Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)))
    })
}

/// The facts of every device after `after` up to `until`.
pub fn facts_between(
    tx: &mut Tx,
    tenant: TenantId,
    after: DeviceId,
    until: DeviceId,
) -> Result<Vec<(DeviceId, String)>, StorageError> {
    let parameters: [&dyn muster_storage::ToValue; 3] = [&tenant.uuid(), &after.uuid(), &until.uuid()];
    tx.query(&FACTS_BETWEEN, &parameters, |row| {
        Ok((DeviceId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// The facts of every device from `first` to `last`, with when they came.
pub fn dated_facts_between(
    tx: &mut Tx,
    tenant: TenantId,
    first: DeviceId,
    last: DeviceId,
) -> Result<Vec<(DeviceId, String, Timestamp)>, StorageError> {
    let parameters: [&dyn muster_storage::ToValue; 3] = [&tenant.uuid(), &first.uuid(), &last.uuid()];
    tx.query(&DATED_FACTS_BETWEEN, &parameters, |row| {
        let at = Timestamp::from_micros(row.get(2)?);
        Ok((DeviceId::from_uuid(row.get(0)?), row.get(1)?, at))
    })
}

pub fn has_facts(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<bool, StorageError> {
    tx.query_one(&HAS_FACTS, &[&tenant.uuid(), &id.uuid()], |row| row.get::<i64>(0))
        .map(|rows| rows > 0)
}

fn device_of(row: &Row<'_>) -> Result<Device, StorageError> {
    Ok(Device {
        id: DeviceId::from_uuid(row.get(0)?),
        device_uuid: row.get(1)?,
        serial: row.get(2)?,
        name: row.get(3)?,
        owner: row.get(4)?,
        platform: Platform::parse(&row.get::<String>(5)?).unwrap_or(Platform::Linux),
        model: row.get(6)?,
        vendor: row.get(7)?,
        epoch: row.get(8)?,
        state: DeviceState::parse(&row.get::<String>(9)?),
        quarantine_reason: row.get(10)?,
        attestation_level: AttestationLevel::parse(&row.get::<String>(11)?)
            .unwrap_or(AttestationLevel::Unattested),
        spki: row.get(12)?,
        compliance: ComplianceState::parse(&row.get::<String>(13)?).unwrap_or(ComplianceState::Unknown),
        compliance_at: row.get::<Option<i64>>(14)?.map(Timestamp::from_micros),
        agent_version: row.get(15)?,
        enrolled_at: Timestamp::from_micros(row.get(16)?),
        last_seen_at: Timestamp::from_micros(row.get(17)?),
        ownership: Ownership::parse(&row.get::<String>(18)?).unwrap_or(Ownership::Personal),
        protocol: Protocol::parse(&row.get::<String>(19)?).unwrap_or(Protocol::Agent),
        attestation: row.get(20)?,
        merged_into: row.get::<Option<Uuid>>(21)?.map(DeviceId::from_uuid),
    })
}
