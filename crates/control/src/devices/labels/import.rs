//! Labels from a table: all rows are checked before the first is carried out, and a table may be sent again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use muster_model::{
    DeviceId, TenantId,
    subject::{LABELS_MAX, Labels},
    text::{DeviceUuid, LabelKey},
};
use muster_storage::Tx;
use muster_trust::key::{Digest, sha256};
use uuid::Uuid;

use super::{
    LabelChange, labels_of, record, store, store_change,
    table::{Identifier, Table, TableRow, wrong},
};
use crate::{
    App,
    access::{
        Author,
        problem::{CSV_INVALID, FieldError, Problem},
    },
    audit::{self, LoggedTx},
    devices::changes::{self, Changes},
};

/// Wrong cells that an answer names; the others are counted.
const ERRORS_MAX: usize = 1_000;
/// Rows that one transaction carries out, and devices that one entry of the log names.
const CHUNK_ROWS: usize = 250;

/// How to take a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ImportMode {
    /// Only say what would change.
    pub dry_run: bool,
    /// Carry out the good rows where others are bad; otherwise one bad row refuses the table.
    pub partial: bool,
}

/// What became of a table, or would.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct ImportOutcome {
    pub dry_run: bool,
    /// Rows of the table.
    pub rows: usize,
    pub devices_changed: usize,
    /// Devices whose labels are as the table says already.
    pub devices_unchanged: usize,
    pub labels_set: usize,
    pub labels_removed: usize,
    /// Wrong cells that were found; `errors` has the first thousand.
    pub errors_total: usize,
    pub errors: Vec<FieldError>,
}

/// Checks a table and carries it out, some hundred rows in a transaction.
///
/// A table that is cut off in its middle, by a crash, may be sent again: what is so already is no change.
pub async fn import(
    app: &App,
    author: &Author,
    csv: Bytes,
    mode: ImportMode,
) -> Result<ImportOutcome, Problem> {
    let tenant = author.tenant;
    let table = csv.clone();
    let plan = app
        .db
        .read(muster_storage::Scope::Tenant(tenant.uuid()), move |tx| {
            plan(tx, tenant, &table)
        })
        .await?;
    if plan.outcome.rows == 0 {
        return Err(CSV_INVALID.detail("The table has a header and no row."));
    }
    if plan.outcome.errors_total > 0 && !mode.dry_run && (!mode.partial || plan.changes.is_empty()) {
        let bad = plan.bad_rows.len();
        return Err(CSV_INVALID
            .detail(format!(
                "{bad} of {} rows are not valid, so no label was changed. Correct them, or ask for partial=true.",
                plan.outcome.rows
            ))
            .with_errors(plan.outcome.errors));
    }
    if mode.dry_run {
        return Ok(ImportOutcome {
            dry_run: true,
            ..plan.outcome
        });
    }
    let outcome = carry_out(app, author, &csv, plan).await;
    app.nudges.groups.notify_one();
    outcome
}

/// What a table would do.
#[derive(Default)]
struct Plan {
    outcome: ImportOutcome,
    bad_rows: BTreeSet<usize>,
    /// By row: devices are looked up in batches, so they are not found in the order of the rows.
    errors: BTreeMap<usize, Vec<FieldError>>,
    changes: Vec<(DeviceId, LabelChange)>,
}

impl Plan {
    fn refuse(&mut self, error: FieldError, row: usize) {
        self.bad_rows.insert(row);
        self.outcome.errors_total += 1;
        self.errors.entry(row).or_default().push(error);
        // The last rows' errors make room: the first thousand are named.
        while self.errors.len() > ERRORS_MAX {
            self.errors.pop_last();
        }
    }
}

/// Reads a table and finds every row's device. Only rows that change something are kept.
fn plan(tx: &mut Tx, tenant: TenantId, csv: &[u8]) -> Result<Plan, Problem> {
    let mut table = Table::open(csv)?;
    let (mut plan, mut seen) = (Plan::default(), HashMap::new());
    let mut waiting = Vec::with_capacity(store::PLACES);
    while let Some(row) = table.next()? {
        plan.outcome.rows += 1;
        match row {
            Ok(row) => waiting.push(row),
            Err(errors) => {
                let row = plan.outcome.rows + 1;
                errors.into_iter().for_each(|error| plan.refuse(error, row));
            }
        }
        if waiting.len() == store::PLACES {
            plan_rows(
                tx,
                tenant,
                table.header.by,
                std::mem::take(&mut waiting),
                &mut seen,
                &mut plan,
            )?;
        }
    }
    plan_rows(tx, tenant, table.header.by, waiting, &mut seen, &mut plan)?;
    let errors = std::mem::take(&mut plan.errors);
    plan.outcome.errors = errors.into_values().flatten().take(ERRORS_MAX).collect();
    Ok(plan)
}

fn plan_rows(
    tx: &mut Tx,
    tenant: TenantId,
    by: Identifier,
    rows: Vec<TableRow>,
    seen: &mut HashMap<DeviceId, usize>,
    plan: &mut Plan,
) -> Result<(), Problem> {
    let found = find(tx, tenant, by, &rows)?;
    let mut named = Vec::with_capacity(rows.len());
    for row in rows {
        let devices = found.get(&key_of(by, &row.device)).map_or(&[][..], Vec::as_slice);
        let why = match devices {
            [device] => match seen.insert(*device, row.row) {
                None => {
                    named.push((*device, row));
                    continue;
                }
                Some(earlier) => format!("Row {earlier} names the same device."),
            },
            [] => "There is no such device, or it is retired.".to_owned(),
            _ => "More than one device has it. Use the column id.".to_owned(),
        };
        plan.refuse(wrong(row.row, by.column(), &why), row.row);
    }
    let ids: Vec<DeviceId> = named.iter().map(|(device, _)| *device).collect();
    let held = labels_of(tx, tenant, &ids)?;
    for (device, row) in named {
        let mut labels = held.get(&device).cloned().unwrap_or_default();
        let change = row.change.beyond(&labels);
        if change.apply(&mut labels).is_err() {
            let why = format!("The device would have more than {LABELS_MAX} labels.");
            plan.refuse(wrong(row.row, "", &why), row.row);
        } else if change.is_empty() {
            plan.outcome.devices_unchanged += 1;
        } else {
            plan.outcome.devices_changed += 1;
            plan.outcome.labels_set += change.set.len();
            plan.outcome.labels_removed += change.removed.len();
            plan.changes.push((device, change));
        }
    }
    Ok(())
}

/// The devices of at most `PLACES` rows, by what names them.
fn find(
    tx: &mut Tx,
    tenant: TenantId,
    by: Identifier,
    rows: &[TableRow],
) -> Result<HashMap<String, Vec<DeviceId>>, Problem> {
    let texts = || rows.iter().map(|row| row.device.clone()).collect::<Vec<_>>();
    let pairs: Vec<(DeviceId, String)> = match by {
        Identifier::Serial => store::by_serials(tx, tenant, &texts())?,
        Identifier::Name => store::by_names(tx, tenant, &texts())?,
        Identifier::DeviceUuid => {
            let uuids = rows.iter().filter_map(|row| DeviceUuid::parse(&row.device).ok());
            let uuids: Vec<Uuid> = uuids.map(DeviceUuid::uuid).collect();
            let found = store::by_uuids(tx, tenant, &uuids)?;
            found
                .into_iter()
                .map(|(device, uuid)| (device, uuid.to_string()))
                .collect()
        }
        Identifier::Id => {
            let ids = rows.iter().filter_map(|row| row.device.parse::<DeviceId>().ok());
            let ids: Vec<Uuid> = ids.map(DeviceId::uuid).collect();
            let found = store::by_ids(tx, tenant, &ids)?;
            found
                .into_iter()
                .map(|(device, _)| (device, device.to_string()))
                .collect()
        }
    };
    let mut found: HashMap<String, Vec<DeviceId>> = HashMap::new();
    for (device, text) in pairs {
        found.entry(text).or_default().push(device);
    }
    Ok(found)
}

/// The form in which the database answers what names a device.
fn key_of(by: Identifier, text: &str) -> String {
    match by {
        Identifier::DeviceUuid => {
            DeviceUuid::parse(text).map_or_else(|_| text.to_owned(), |uuid| uuid.uuid().to_string())
        }
        Identifier::Id | Identifier::Serial | Identifier::Name => text.to_owned(),
    }
}

async fn carry_out(app: &App, author: &Author, csv: &[u8], plan: Plan) -> Result<ImportOutcome, Problem> {
    let table_sha256 = sha256(csv);
    let is_small = plan.changes.len() <= CHUNK_ROWS;
    let mut done = ImportOutcome {
        devices_changed: 0,
        labels_set: 0,
        labels_removed: 0,
        ..plan.outcome
    };
    for chunk in plan.changes.chunks(CHUNK_ROWS) {
        let mut chunk = chunk.to_vec();
        // In the order in which every transaction holds several devices.
        chunk.sort_unstable_by_key(|(device, _)| *device);
        let chunk: Arc<[_]> = chunk.into();
        let changed = audit::commit(app, author, move |tx| {
            carry_out_chunk(tx, &chunk, table_sha256, is_small)
        })
        .await?;
        done.devices_changed += changed.len();
        for (_, change) in &changed {
            done.labels_set += change.set.len();
            done.labels_removed += change.removed.len();
        }
    }
    done.devices_unchanged = done.rows - plan.bad_rows.len() - done.devices_changed;
    Ok(done)
}

fn carry_out_chunk(
    tx: &mut LoggedTx<'_>,
    chunk: &[(DeviceId, LabelChange)],
    table_sha256: Digest,
    is_small: bool,
) -> Result<Vec<(DeviceId, LabelChange)>, Problem> {
    let tenant = tx.tenant();
    for (device, _) in chunk {
        changes::mark(tx, tenant, *device, Changes::NONE)?;
    }
    // The marks are how transactions take turns, no change of the tenant's.
    tx.excuse(chunk.len() as u64);
    let ids: Vec<DeviceId> = chunk.iter().map(|(device, _)| *device).collect();
    let mut held = labels_of(tx, tenant, &ids)?;
    let mut changed = Vec::new();
    for (device, change) in chunk {
        let labels: &mut Labels = held.entry(*device).or_default();
        let change = change.beyond(labels);
        store_change(tx, *device, &change, labels)?;
        if !change.is_empty() {
            changed.push((*device, change));
        }
    }
    if is_small {
        for (device, change) in &changed {
            record(tx, *device, change)?;
        }
    } else if !changed.is_empty() {
        record_chunk(tx, &changed, table_sha256)?;
    }
    Ok(changed)
}

/// One entry for many devices: a hundred thousand entries would drown what else the log says.
fn record_chunk(
    tx: &mut LoggedTx<'_>,
    changed: &[(DeviceId, LabelChange)],
    table_sha256: Digest,
) -> Result<(), Problem> {
    let keys: BTreeSet<&str> = changed
        .iter()
        .flat_map(|(_, change)| change.set.keys().chain(&change.removed))
        .map(LabelKey::as_str)
        .collect();
    let detail = serde_json::json!({
        "keys": keys,
        "labels_set": changed.iter().map(|(_, change)| change.set.len()).sum::<usize>(),
        "labels_removed": changed.iter().map(|(_, change)| change.removed.len()).sum::<usize>(),
        "devices": changed.iter().map(|(device, _)| device.uuid().as_simple().to_string()).collect::<Vec<_>>(),
        "change_sha256": digest(changed).to_string(),
    });
    tx.record("labels.imported", ("label_table", table_sha256.to_hex()), detail)?;
    Ok(())
}

/// SHA-256 over lines of device, key and value with tabs between; a removed label has no value.
pub fn digest(changed: &[(DeviceId, LabelChange)]) -> Digest {
    let mut text = String::new();
    for (device, change) in changed {
        for (key, value) in &change.set {
            text.push_str(&format!("{device}\t{key}\t{value}\n"));
        }
        for key in &change.removed {
            text.push_str(&format!("{device}\t{key}\n"));
        }
    }
    sha256(text.as_bytes())
}
