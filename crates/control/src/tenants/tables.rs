//! The tables of the schema, as the migrations make them: what ends a tenant and what exports it walks this list, so that no table is
//! forgotten that somebody adds.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::MIGRATIONS;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    Uuid,
    Text,
    Integer,
    Bytes,
    Boolean,
}

impl ColumnKind {
    fn parse(word: &str) -> Option<ColumnKind> {
        match word {
            "UUID" => Some(ColumnKind::Uuid),
            "TEXT" => Some(ColumnKind::Text),
            "BIGINT" => Some(ColumnKind::Integer),
            "BYTEA" => Some(ColumnKind::Bytes),
            "BOOLEAN" => Some(ColumnKind::Boolean),
            _ => None,
        }
    }

    /// As the manifest of an export names it.
    pub fn word(self) -> &'static str {
        match self {
            ColumnKind::Uuid => "uuid",
            ColumnKind::Text => "text",
            ColumnKind::Integer => "integer",
            ColumnKind::Bytes => "base64",
            ColumnKind::Boolean => "boolean",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnKind,
}

/// A table whose rows are tenants'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// The columns of the primary key behind `tenant_id`; none where a tenant has one row.
    pub key: Vec<Column>,
}

/// Columns that hold secrets, sealed ones, or what opens something: they are never exported. With the reason, for the manifest.
pub const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("access_client", "secret_sha256", DIGEST),
    ("access_client", "previous_sha256", DIGEST),
    ("access_connection", "secret", SEALED),
    ("access_device_login", "device_sha256", DIGEST),
    ("access_device_login", "user_code", LIVE),
    ("access_device_login", "session_sha256", DIGEST),
    (
        "access_idempotency",
        "response",
        "answers that may show a secret once",
    ),
    ("access_replay", "value_sha256", DIGEST),
    ("access_scim_token", "secret_sha256", DIGEST),
    ("access_session", "session_sha256", DIGEST),
    ("access_session", "challenge", LIVE),
    ("access_session", "provider_session", LIVE),
    ("access_signin", "token_sha256", DIGEST),
    ("access_trust", "secret", SEALED),
    ("acme_nonce", "nonce", LIVE),
    ("acme_order", "challenge", LIVE),
    ("alerts_delivery", "secret", SEALED),
    ("alerts_destination", "secret", SEALED),
    ("alerts_destination", "previous_secret", SEALED),
    ("enrollment_session", "session_sha256", DIGEST),
    ("enrollment_session", "token_sha256", DIGEST),
    ("enrollment_session", "nonce", LIVE),
    ("enrollment_session", "offer", LIVE),
    ("enrollment_token", "challenge_sha256", DIGEST),
    ("secrets_record", "attempt", SEALED),
    ("secrets_tenant_keys", "sealed", SEALED),
    ("secrets_value", "sealed", SEALED),
    ("signals_key", "secret", SEALED),
    ("signals_source", "secret", SEALED),
    ("signals_source", "secret_before", SEALED),
    ("sinks_sink", "secret", SEALED),
    ("tenants_draft", "sealed", SEALED),
];
const SEALED: &str = "a sealed secret";
const DIGEST: &str = "the digest of a secret";
const LIVE: &str = "good for what is going on now";

/// Columns of bytes that are no secrets. One that is in neither list is left out until somebody decides.
pub const PLAIN_BYTES: &[(&str, &str)] = &[
    ("access_barred", "person_sha256"),
    ("access_idempotency", "request_sha256"),
    ("access_passkey", "key_id"),
    ("access_passkey", "credential_id"),
    ("access_passkey", "public_key"),
    ("access_routed_connection", "definition_sha256"),
    ("access_routed_person", "person_sha256"),
    ("branding_look", "logo"),
    ("acme_order", "account"),
    ("acme_order", "identifier"),
    ("acme_order", "spki"),
    ("acme_order", "certificate"),
    ("audit_entry", "body"),
    ("audit_entry", "seal"),
    ("audit_split_view", "root"),
    ("audit_tile", "hashes"),
    ("certificates_certificate", "der"),
    ("certificates_certificate", "spki_sha256"),
    ("certificates_certificate", "to_sign"),
    ("commands_operation", "batch"),
    ("commands_operation", "batch_sha256"),
    ("commands_target", "targets"),
    ("compliance_device", "judged_sha256"),
    ("compliance_judged", "judged_sha256"),
    ("configuration_plan", "plan_sha256"),
    ("devices_device", "spki"),
    ("devices_device", "spki_sha256"),
    ("devices_facts", "sha256"),
    ("enrollment_android_status", "document"),
    ("enrollment_session", "spki"),
    ("enrollment_token", "spki_sha256"),
    ("outputs_output", "content"),
    ("policy_version", "content_sha256"),
    ("policy_version", "bundle"),
    ("secrets_root_document", "envelope"),
    ("secrets_tenant_keys", "envelope"),
    ("secrets_version", "public_key"),
    ("signals_key", "point"),
    ("signals_seen", "message_sha256"),
    ("telemetry_chunk", "content"),
    ("telemetry_spool", "content"),
    ("tenants_closing", "statement"),
    ("tenants_draft", "document"),
];

/// Every table of the schema, in the order in which a tenant is deleted: its keys first, then what is sealed, then the rest, and last the
/// row that says that there is a tenant.
pub static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let mut tables: Vec<Table> = read(MIGRATIONS.iter().map(|migration| migration.sql))
        .into_values()
        .collect();
    tables.sort_by_key(|table| (rank(&table.name), table.name.clone()));
    tables
});

/// The table of keys, without which nothing more can be signed for a tenant.
pub const KEYS_TABLE: &str = "secrets_tenant_keys";
/// The row that says that there is a tenant.
pub const TENANT_TABLE: &str = "access_tenant";

fn rank(table: &str) -> u8 {
    let is_sealed = LEFT_OUT.iter().any(|(of, _, why)| *of == table && *why == SEALED);
    match table {
        KEYS_TABLE => 0,
        TENANT_TABLE => 3,
        _ if is_sealed => 1,
        _ => 2,
    }
}

impl Table {
    /// Why a column is not exported; nothing where it is.
    pub fn left_out(&self, column: &Column) -> Option<&'static str> {
        let is = |table: &str, name: &str| table == self.name && name == column.name;
        let named = LEFT_OUT.iter().find(|(table, name, _)| is(table, name));
        if let Some((_, _, why)) = named {
            return Some(why);
        }
        let is_undecided =
            column.kind == ColumnKind::Bytes && !PLAIN_BYTES.iter().any(|(table, name)| is(table, name));
        is_undecided.then_some("nobody has said that it is no secret")
    }
}

/// Reads the tables out of the text of migrations, by name.
fn read<'a>(migrations: impl Iterator<Item = &'a str>) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for sql in migrations {
        let code: String = sql
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n");
        for statement in code.split(';') {
            let words: Vec<&str> = statement.split_whitespace().take(6).collect();
            match words.as_slice() {
                ["CREATE", "TABLE", name, ..] => {
                    let inner = statement
                        .split_once('(')
                        .and_then(|(_, rest)| rest.rsplit_once(')'));
                    if let Some(table) = inner.and_then(|(inner, _)| created(name, inner)) {
                        tables.insert((*name).to_owned(), table);
                    }
                }
                ["ALTER", "TABLE", name, "ADD", "COLUMN", ..] => {
                    let added = statement.split_once("COLUMN").and_then(|(_, rest)| column(rest));
                    if let (Some(table), Some(added)) = (tables.get_mut(*name), added) {
                        table.columns.push(added);
                    }
                }
                ["ALTER", "TABLE", name, "DROP", "COLUMN", dropped] => {
                    if let Some(table) = tables.get_mut(*name) {
                        table.columns.retain(|column| column.name != *dropped);
                    }
                }
                ["DROP", "TABLE", name] => {
                    tables.remove(*name);
                }
                _ => {}
            }
        }
    }
    tables
}

fn created(name: &str, inner: &str) -> Option<Table> {
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    for part in parts(inner) {
        match column(part) {
            Some(column) => {
                if part.contains("PRIMARY KEY") {
                    key = vec![column.name.clone()];
                }
                columns.push(column);
            }
            None => {
                if let Some(named) = part.trim().strip_prefix("PRIMARY KEY") {
                    let named = named.trim().trim_matches(['(', ')']);
                    key = named.split(',').map(|name| name.trim().to_owned()).collect();
                }
            }
        }
    }
    let (first, rest) = key.split_first()?;
    let of = |name: &String| columns.iter().find(|column| column.name == *name).cloned();
    let key = rest.iter().filter_map(of).collect();
    (first == "tenant_id").then(|| Table {
        name: name.to_owned(),
        columns,
        key,
    })
}

/// What commas part that stand in no brackets.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_i32, 0);
    for (at, char) in text.char_indices() {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// A column's definition; nothing where it is a constraint.
fn column(text: &str) -> Option<Column> {
    let mut words = text.split_whitespace();
    let (name, kind) = (words.next()?, ColumnKind::parse(words.next()?)?);
    Some(Column {
        name: name.to_owned(),
        kind,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_column_of_bytes_is_exported_or_named_as_left_out() {
        let decided = |table: &Table, column: &Column| {
            let is = |of: &str, name: &str| of == table.name && name == column.name;
            LEFT_OUT.iter().filter(|(of, name, _)| is(of, name)).count()
                + PLAIN_BYTES.iter().filter(|(of, name)| is(of, name)).count()
        };
        for table in TABLES.iter() {
            for column in &table.columns {
                if column.kind == ColumnKind::Bytes {
                    assert_eq!(
                        decided(table, column),
                        1,
                        "{}.{}: name it in LEFT_OUT or in PLAIN_BYTES",
                        table.name,
                        column.name
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_listed_is_a_column_of_the_schema() {
        let known: BTreeSet<(&str, &str)> = TABLES
            .iter()
            .flat_map(|table| {
                let columns = table.columns.iter();
                columns.map(|column| (table.name.as_str(), column.name.as_str()))
            })
            .collect();
        for (table, column, _) in LEFT_OUT {
            assert!(known.contains(&(*table, *column)), "{table}.{column}");
        }
        for (table, column) in PLAIN_BYTES {
            assert!(known.contains(&(*table, *column)), "{table}.{column}");
        }
    }

    #[test]
    fn a_tenant_ends_with_its_keys_first_and_its_own_row_last() {
        let names: Vec<&str> = TABLES.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names.first(), Some(&KEYS_TABLE));
        assert_eq!(names.last(), Some(&TENANT_TABLE));
        assert!(names.len() > 100);
    }
}
