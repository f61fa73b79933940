//! Everything of a tenant as one archive, written while it is read.
//!
//! ```text
//! manifest.json                 what is in it: tables, columns, what is left out and why
//! tables/NAME/000001.ndjson     rows, one JSON object for each
//! log/…                         the log as `muster log verify --folder` reads it, with root.json
//! summary.json                  last: how many rows of each table; where it is missing, the archive was cut off
//! ```
//!
//! Tables are read page by page, each page as it is at that moment. Of a tenant that is shut all pages are of one state. Each page is read
//! only while the tenant is in the state in which the export was allowed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::encoding::to_base64;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{
    store::{self, Cell, Cells},
    tables::{TABLES, Table},
    tar,
};
use crate::{
    App,
    access::{
        self, TenantRow, TenantState,
        problem::{ILLEGAL_STATE, Problem, UNAVAILABLE},
    },
    audit, secrets,
};

/// The form of the archive, for whoever reads it.
const FORMAT: &str = "muster-tenant-export-v1";
/// Rows of one page, which is one file.
const PAGE_ROWS: i64 = 100;
/// Rows of one page where a row may be large.
const PAGE_ROWS_OF_LARGE: i64 = 4;
/// Tables whose rows may be large: bundles, collected files.
const LARGE: &[&str] = &["policy_version", "outputs_output"];
/// Parts of an archive that wait for a slow reader.
const PARTS_MAX: usize = 2;
/// Exports that one node writes at a time; one of each tenant, so that no tenant takes the places of the others.
const EXPORTS_MAX: usize = 16;
/// How long a reader may take for one part. Whoever stops reading gives the place back.
const READER_MAX: Duration = Duration::from_secs(60);

/// The tenants of which this node writes an export just now.
#[derive(Debug, Default)]
pub struct Exports(Mutex<HashSet<TenantId>>);

/// The place of one export, given back when it is dropped.
struct Place {
    exports: Arc<Exports>,
    tenant: TenantId,
}

impl Exports {
    /// A place for an export of this tenant; the error says why there is none.
    fn take(self: &Arc<Exports>, tenant: TenantId) -> Result<Place, Problem> {
        let busy = |why: String| UNAVAILABLE.detail(why).retry_after(60);
        let mut taken = self.0.lock();
        if taken.len() >= EXPORTS_MAX {
            return Err(busy(format!("This node writes {EXPORTS_MAX} exports already.")));
        }
        if !taken.insert(tenant) {
            return Err(busy(
                "This node writes an export of this tenant already.".to_owned(),
            ));
        }
        Ok(Place {
            exports: Arc::clone(self),
            tenant,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.exports.0.lock().remove(&self.tenant);
    }
}

/// The archive in parts. Where something fails, the last part is the error, and the reader's connection is cut.
pub fn start(app: &App, tenant: TenantRow) -> Result<mpsc::Receiver<Result<Bytes, std::io::Error>>, Problem> {
    let place = app.exports.take(tenant.id)?;
    let (parts, taken) = mpsc::channel(PARTS_MAX);
    let app = app.clone();
    tokio::spawn(async move {
        let _place = place;
        let writer = Writer {
            modified: app.clock.now(),
            folder: "muster-export",
            parts,
        };
        if let Err(problem) = write(&app, &tenant, &writer).await {
            tracing::warn!(%problem, tenant = %tenant.id, "the export of a tenant was not finished");
            let broken = Err(std::io::Error::other("the export broke off"));
            let _ = tokio::time::timeout(READER_MAX, writer.parts.send(broken)).await;
        }
    });
    Ok(taken)
}

struct Writer {
    parts: mpsc::Sender<Result<Bytes, std::io::Error>>,
    folder: &'static str,
    modified: Timestamp,
}

impl Writer {
    async fn file(&self, name: &str, content: &[u8]) -> Result<(), Problem> {
        let name = format!("{}/{name}", self.folder);
        let bytes = tar::file(&name, content, self.modified.as_unix_seconds())
            .ok_or_else(|| Problem::internal(format!("{name} does not fit into an archive")))?;
        self.send(bytes).await
    }

    async fn json(&self, name: &str, value: &Value) -> Result<(), Problem> {
        let text = serde_json::to_vec_pretty(value).map_err(Problem::internal)?;
        self.file(name, &text).await
    }

    async fn send(&self, bytes: Vec<u8>) -> Result<(), Problem> {
        match tokio::time::timeout(READER_MAX, self.parts.send(Ok(bytes.into()))).await {
            Ok(sent) => sent.map_err(|_| Problem::internal("nobody reads the export any more")),
            Err(_) => Err(Problem::internal("the reader of the export stands still")),
        }
    }
}

async fn write(app: &App, tenant: &TenantRow, writer: &Writer) -> Result<(), Problem> {
    writer
        .json("manifest.json", &manifest(tenant, writer.modified))
        .await?;
    let mut rows = BTreeMap::new();
    for (index, table) in TABLES.iter().enumerate() {
        let count = write_table(app, (tenant.id, tenant.state), (index, table), writer).await?;
        rows.insert(table.name.as_str(), count);
    }
    let entries = write_log(app, (tenant.id, tenant.state), writer).await?;
    let total: u64 = rows.values().sum();
    let summary = json!({"format": FORMAT, "rows": total, "tables": rows, "log_entries": entries});
    writer.json("summary.json", &summary).await?;
    writer.send(tar::end()).await
}

/// What the archive holds, and what it leaves out.
pub fn manifest(tenant: &TenantRow, at: Timestamp) -> Value {
    let tables: Vec<Value> = TABLES
        .iter()
        .map(|table| {
            let (mut columns, mut left_out) = (Vec::new(), Vec::new());
            for column in &table.columns {
                match table.left_out(column) {
                    None => columns.push(json!({"name": column.name, "type": column.kind.word()})),
                    Some(why) => left_out.push(json!({"name": column.name, "why": why})),
                }
            }
            json!({"name": table.name, "columns": columns, "left_out": left_out})
        })
        .collect();
    json!({
        "format": FORMAT, "tenant": tenant.id.to_string(), "name": tenant.name, "display_name": tenant.display_name,
        "state": tenant.state.as_str(), "created_at": tenant.created_at, "exported_at": at, "tables": tables,
    })
}

/// Refuses the next page where the tenant's state is not the one in which the export was allowed: the operator's ends with a closing that
/// is taken back, and the owner's with a suspension.
fn require_state(tx: &mut Tx, tenant: TenantId, state: TenantState) -> Result<(), Problem> {
    match access::tenant(tx, tenant)? {
        Some(row) if row.state == state => Ok(()),
        _ => Err(ILLEGAL_STATE.detail(format!(
            "The tenant is not {} any more: its export is not finished.",
            state.as_str()
        ))),
    }
}

async fn write_table(
    app: &App,
    (tenant, state): (TenantId, TenantState),
    (index, table): (usize, &'static Table),
    writer: &Writer,
) -> Result<u64, Problem> {
    let limit = if LARGE.contains(&table.name.as_str()) {
        PAGE_ROWS_OF_LARGE
    } else {
        PAGE_ROWS
    };
    let (mut behind, mut count, mut part): (Option<Cells>, u64, u32) = (None, 0, 0);
    loop {
        let from = behind.take();
        let rows = app
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                require_state(tx, tenant, state)?;
                Ok::<_, Problem>(store::rows(tx, tenant, (index, from.as_ref()), limit)?)
            })
            .await?;
        if rows.is_empty() {
            return Ok(count);
        }
        let mut text = Vec::new();
        for row in &rows {
            serde_json::to_writer(&mut text, &line(table, row)).map_err(Problem::internal)?;
            text.push(b'\n');
        }
        part += 1;
        writer
            .file(&format!("tables/{}/{part:06}.ndjson", table.name), &text)
            .await?;
        count += rows.len() as u64;
        let is_last = rows.len() < usize::try_from(limit).unwrap_or(usize::MAX) || table.key.is_empty();
        if is_last {
            return Ok(count);
        }
        behind = rows.into_iter().next_back();
    }
}

/// A row as an object, without what is left out.
pub fn line(table: &Table, row: &Cells) -> Map<String, Value> {
    let columns = table.columns.iter().zip(row);
    columns
        .filter(|(column, _)| table.left_out(column).is_none())
        .map(|(column, cell)| {
            let value = match cell {
                Cell::Null => Value::Null,
                Cell::Uuid(uuid) => json!(uuid.as_hyphenated().to_string()),
                Cell::Text(text) => json!(text),
                Cell::Integer(number) => json!(number),
                Cell::Bytes(bytes) => json!(to_base64(bytes)),
                Cell::Boolean(truth) => json!(truth),
            };
            (column.name.clone(), value)
        })
        .collect()
}

/// The log as far as it is signed: what can be verified with nothing but its key.
async fn write_log(
    app: &App,
    (tenant, state): (TenantId, TenantState),
    writer: &Writer,
) -> Result<u64, Problem> {
    let keys = secrets::keys_of(app, tenant).await?;
    let roots = serde_json::to_vec(&keys.root_documents).map_err(Problem::internal)?;
    writer.file("log/root.json", &roots).await?;
    let scope = Scope::Tenant(tenant.uuid());
    let Some((size, note)) = app
        .db
        .read(scope, move |tx| audit::stored_checkpoint(tx, tenant))
        .await?
    else {
        return Ok(0);
    };
    for path in audit::log_files(size) {
        let bytes = app
            .db
            .read(scope, move |tx| {
                require_state(tx, tenant, state)?;
                audit::log_file(tx, tenant, path, size)
            })
            .await?;
        writer.file(&format!("log/{path}"), &bytes).await?;
    }
    writer
        .file(&format!("log/checkpoints/{size}"), note.as_bytes())
        .await?;
    writer.file("log/checkpoint", note.as_bytes()).await?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_tenant_has_one_place_and_leaves_the_others_theirs() {
        let exports: Arc<Exports> = Arc::default();
        let first = exports.take(tenant(1)).expect("a place");
        assert!(exports.take(tenant(1)).is_err());
        let second = exports.take(tenant(2)).expect("a place");
        drop(first);
        let again = exports.take(tenant(1)).expect("it was given back");
        drop((second, again));
        let all: Vec<_> = (0..20)
            .filter_map(|number| exports.take(tenant(number)).ok())
            .collect();
        assert_eq!(all.len(), EXPORTS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_does_not_hold_the_place_for_ever() {
        let (parts, _taken) = mpsc::channel(PARTS_MAX);
        let writer = Writer {
            modified: Timestamp::from_micros(0),
            folder: "x",
            parts,
        };
        for _ in 0..PARTS_MAX {
            assert!(writer.send(vec![0]).await.is_ok());
        }
        assert!(writer.send(vec![0]).await.is_err());
    }
}
