//! SQL of the split views that devices proved.

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{StorageError, Tx, statements};
use muster_trust::key::Digest;

use super::SplitView;

statements! {
    PUT_SPLIT_VIEW = "INSERT INTO audit_split_view (tenant_id, device_id, size, root, note, seen_at) \
        VALUES ($1, $2, $3, $4, $5, $6) \
        ON CONFLICT (tenant_id, device_id) DO UPDATE SET size = $3, root = $4, note = $5, seen_at = $6 \
        WHERE audit_split_view.size <> $3 OR audit_split_view.root <> $4 OR audit_split_view.seen_at < $7";
    SPLIT_VIEWS = "SELECT device_id, size, root, note, seen_at FROM audit_split_view WHERE tenant_id = $1 \
        ORDER BY device_id LIMIT $2";
}

/// Stores what a device proved; answers 0 where it proved the same before, and not before `since`.
pub fn put(tx: &mut Tx, tenant: TenantId, view: &SplitView, since: Timestamp) -> Result<u64, StorageError> {
    tx.execute(
        &PUT_SPLIT_VIEW,
        &[
            &tenant.uuid(),
            &view.device.uuid(),
            &i64::try_from(view.size).unwrap_or(i64::MAX),
            &view.root.as_bytes().as_slice(),
            &view.note.as_str(),
            &view.seen_at.as_micros(),
            &since.as_micros(),
        ],
    )
}

pub fn list(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<SplitView>, StorageError> {
    tx.query(&SPLIT_VIEWS, &[&tenant.uuid(), &limit], |row| {
        let root: Vec<u8> = row.get(2)?;
        Ok(SplitView {
            device: DeviceId::from_uuid(row.get(0)?),
            size: row.get(1)?,
            // A root that somebody cut short is none of a tree, and so is zero.
            root: Digest::from_slice(&root).unwrap_or(Digest([0; 32])),
            note: row.get(3)?,
            seen_at: Timestamp::from_micros(row.get(4)?),
        })
    })
}
