//! Making the schema: migrations, row-level security, and the role that row-level security holds for.
//!
//! One transaction does it all, under an advisory lock, so that nodes that start together wait for one another, and no
//! table exists for a moment without its policy. A login that may not create tables can still open a schema that is up to
//! date.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    connection::{UniqueIndexes, spoken, unreachable_server},
    connector::{APP_ROLE, Connector},
};
use crate::{
    error::StorageError,
    migration::{self, APPLIED, Applied, Migration, OWN_TABLES},
};

/// Any number, the same in every node.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7593685482163040)";
const HAS_OWN_TABLES: &str =
    "SELECT to_regclass('storage_migration') IS NOT NULL AND to_regclass('storage_lease') IS NOT NULL";
/// Tables of a tenant's rows whose policy is missing or was switched off.
const UNPROTECTED: &str = "SELECT c.relname FROM pg_class c \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped \
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace \
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity \
        AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'muster_tenant'))";
/// The scalar subqueries are evaluated once per statement, not once per row. An unset or empty setting matches nothing.
const POLICY: &str = "USING ((SELECT current_setting('muster.tenant', true)) = '*' OR tenant_id = \
    (SELECT nullif(nullif(current_setting('muster.tenant', true), ''), '*')::uuid))";
const BYPASSES: &str = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user";
const ROLE_MAY_READ: &str = "SELECT coalesce((SELECT has_table_privilege(oid, 'storage_migration', 'SELECT') \
    FROM pg_roles WHERE rolname = 'muster_app'), false)";
/// A role belongs to the whole server, so another database's migration may make it at the same moment.
const MAKE_ROLE: &str = "DO $$ BEGIN \
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN CREATE ROLE muster_app NOLOGIN; END IF; \
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
const INDEXES: &str = "SELECT i.relname, t.relname, string_agg(a.attname, ',' ORDER BY k.place) \
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid \
    CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place) \
    LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number \
    WHERE x.indisunique AND t.relnamespace = current_schema()::regnamespace GROUP BY 1, 2";

/// What opening learned about the database.
pub(super) struct Prepared {
    /// Whether transactions act as the app role, because row-level security does not hold for the login itself.
    pub takes_app_role: bool,
    pub indexes: UniqueIndexes,
}

pub(super) async fn prepare(
    connector: &Connector,
    known: &'static [Migration],
) -> Result<Prepared, StorageError> {
    let (client, driver) = connector
        .start()
        .await
        .map_err(|error| unreachable_server(&error))?;
    let prepared = prepare_on(&client, known).await;
    // Closing the client ends an open transaction and then the driver.
    drop(client);
    let _ = driver.await;
    prepared
}

/// As [`prepare`], but refuses a schema that is not up to date and changes nothing.
pub(super) async fn inspect(
    connector: &Connector,
    known: &'static [Migration],
) -> Result<Prepared, StorageError> {
    let (client, driver) = connector
        .start()
        .await
        .map_err(|error| unreachable_server(&error))?;
    let inspected = inspect_on(&client, known).await;
    drop(client);
    let _ = driver.await;
    inspected
}

async fn inspect_on(client: &Client, known: &'static [Migration]) -> Result<Prepared, StorageError> {
    run(client, "beginning to look", "BEGIN READ ONLY").await?;
    let has_tables = is_true(&rows(client, "looking for tables", HAS_OWN_TABLES).await?);
    let applied = if has_tables {
        applied(client).await?
    } else {
        Vec::new()
    };
    let waiting = migration::pending(known, &applied)?.len();
    if waiting > 0 || !has_tables {
        return Err(StorageError::OlderSchema { waiting });
    }
    let indexes = unique_indexes(client).await?;
    let takes_app_role = is_true(&rows(client, "asking for the role", BYPASSES).await?)
        && is_true(&rows(client, "asking for the role", ROLE_MAY_READ).await?);
    Ok(Prepared {
        takes_app_role,
        indexes,
    })
}

async fn prepare_on(client: &Client, known: &'static [Migration]) -> Result<Prepared, StorageError> {
    // Another node's migration may take its time. A migration works on the rows of every tenant.
    run(
        client,
        "locking the schema",
        &format!("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL muster.tenant = '*'; {LOCK}"),
    )
    .await?;
    migrate(client, known).await?;
    protect(client).await?;
    let takes_app_role = is_true(&rows(client, "asking for the role", BYPASSES).await?);
    if takes_app_role {
        make_app_role(client).await?;
    }
    let indexes = unique_indexes(client).await?;
    run(client, "committing the schema", "COMMIT").await?;
    Ok(Prepared {
        takes_app_role,
        indexes,
    })
}

async fn applied(client: &Client) -> Result<Vec<Applied>, StorageError> {
    Ok(rows(client, "reading migrations", APPLIED)
        .await?
        .into_iter()
        .filter_map(applied_row)
        .collect())
}

async fn unique_indexes(client: &Client) -> Result<UniqueIndexes, StorageError> {
    Ok(rows(client, "listing indexes", INDEXES)
        .await?
        .into_iter()
        .filter_map(unique_index)
        .collect())
}

async fn migrate(client: &Client, known: &'static [Migration]) -> Result<(), StorageError> {
    if !is_true(&rows(client, "looking for tables", HAS_OWN_TABLES).await?) {
        for table in OWN_TABLES {
            run(client, "making tables", table).await?;
        }
    }
    for migration in migration::pending(known, &applied(client).await?)? {
        for statement in migration.statements() {
            run(client, migration.name, &statement).await?;
        }
        let Migration { version, name, .. } = migration;
        let row = format!(
            "INSERT INTO storage_migration (version, name, digest) VALUES ({version}, '{}', '{}')",
            name.replace('\'', "''"),
            migration.digest()
        );
        run(client, "recording a migration", &row).await?;
        tracing::info!(version, name, "migrated");
    }
    Ok(())
}

/// Puts row-level security on every table of a tenant's rows.
async fn protect(client: &Client) -> Result<(), StorageError> {
    for row in rows(client, "looking for tables", UNPROTECTED).await? {
        let Some(Some(table)) = row.into_iter().next() else {
            continue;
        };
        let table = quoted(&table);
        let protect = format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY; \
             DROP POLICY IF EXISTS muster_tenant ON {table}; CREATE POLICY muster_tenant ON {table} {POLICY}"
        );
        run(client, "protecting a table", &protect).await?;
    }
    Ok(())
}

/// Makes the role that a login beyond row-level security acts as.
async fn make_app_role(client: &Client) -> Result<(), StorageError> {
    run(client, "making the role muster_app", MAKE_ROLE).await?;
    let schema = rows(client, "asking for the schema", "SELECT current_schema()").await?;
    let schema = schema
        .into_iter()
        .flatten()
        .flatten()
        .next()
        .unwrap_or_else(|| "public".to_owned());
    let schema = quoted(&schema);
    let grants = format!(
        "GRANT USAGE ON SCHEMA {schema} TO {APP_ROLE}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {APP_ROLE}; \
         REVOKE INSERT, UPDATE, DELETE ON storage_migration FROM {APP_ROLE}"
    );
    run(client, "granting to muster_app", &grants).await?;
    const MEMBER: &str = "SELECT pg_has_role(current_user, 'muster_app', 'MEMBER')";
    if !is_true(&rows(client, "asking for the role", MEMBER).await?) {
        run(client, "joining muster_app", "GRANT muster_app TO CURRENT_USER").await?;
    }
    Ok(())
}

async fn run(client: &Client, step: &'static str, sql: &str) -> Result<(), StorageError> {
    client
        .batch_execute(sql)
        .await
        .map_err(|error| failure(step, &error))
}

/// All rows as text.
async fn rows(
    client: &Client,
    step: &'static str,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, StorageError> {
    let messages = client
        .simple_query(sql)
        .await
        .map_err(|error| failure(step, &error))?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

fn failure(step: &'static str, error: &tokio_postgres::Error) -> StorageError {
    if error.is_closed() {
        unreachable_server(error)
    } else {
        StorageError::Engine {
            statement: step,
            source: spoken(error),
        }
    }
}

fn is_true(rows: &[Vec<Option<String>>]) -> bool {
    rows.first()
        .and_then(|row| row.first())
        .is_some_and(|value| value.as_deref() == Some("t"))
}

fn applied_row(row: Vec<Option<String>>) -> Option<Applied> {
    let [version, name, digest] = <[Option<String>; 3]>::try_from(row).ok()?;
    Some(Applied {
        version: version?.parse().ok()?,
        name: name?,
        digest: digest?,
    })
}

fn unique_index(row: Vec<Option<String>>) -> Option<(String, (String, Vec<String>))> {
    let [index, table, columns] = <[Option<String>; 3]>::try_from(row).ok()?;
    let columns = columns
        .map(|list| list.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    Some((index?, (table?, columns)))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
