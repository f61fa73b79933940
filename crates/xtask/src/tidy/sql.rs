//! SQL lives in `store.rs`, a slice writes only tables with its own prefix, and a tenant is in every primary key.

use super::{Finding, rust, slices, tables};
use crate::workspace::Tree;

/// Crates that may hold SQL: the face over both engines, the slices, the agent's spool, and xtask's own checks.
const CRATES_WITH_SQL: &[&str] = &[
    "crates/storage/",
    "crates/control/",
    "crates/agent/",
    "crates/xtask/",
];

/// Files with questions of our own language, which look like SQL and never reach the database.
const FILES_WITH_QUESTIONS: &[&str] = &["crates/control/src/query/schema.rs"];

/// Folder of migration files, beside migrations written as texts in Rust.
const MIGRATIONS_FOLDER: &str = "crates/control/migrations/";

/// Looks at every text of every Rust file that begins like a statement, and at every migration.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in tree
        .below("crates/", ".rs")
        .filter(|(path, _)| !slices::is_test(path))
    {
        if CRATES_WITH_SQL.iter().any(|known| path.starts_with(known))
            && !path.starts_with(tables::SLICES_FOLDER)
        {
            continue;
        }
        if FILES_WITH_QUESTIONS.iter().any(|known| path.ends_with(known)) {
            continue;
        }
        let code = rust::code_only(source);
        let tests_from = slices::without_tests(&code).matches('\n').count() + 1;
        let is_cut = slices::without_tests(&code).len() < code.len();
        for piece in rust::scan(source)
            .into_iter()
            .filter(|piece| piece.kind == rust::Kind::Text)
        {
            if is_statement(piece.text) && !(is_cut && piece.line >= tests_from) {
                findings.extend(check_text(path, piece));
            }
        }
    }
    for (path, text) in tree.below(MIGRATIONS_FOLDER, ".sql") {
        findings.extend(check_created(path, 1, text));
    }
    findings
}

fn check_text(path: &str, piece: rust::Piece<'_>) -> Vec<Finding> {
    if path.contains("migration") && path.starts_with("crates/control/") {
        return check_created(path, piece.line, piece.text);
    }
    let is_store = path.ends_with("/store.rs") || path.contains("/store/");
    let Some(slice) = slices::slice_of(path).filter(|_| is_store) else {
        return vec![Finding::at(
            path,
            piece.line,
            "SQL stands in a slice's `store.rs`, and nowhere else",
        )];
    };
    let mut findings = check_created(path, piece.line, piece.text);
    for table in written(piece.text) {
        let is_any = table == "{name}"
            && tables::DELETES_EVERYWHERE
                .iter()
                .any(|(known, _)| *known == slice);
        if !is_any && !has_prefix(table, slice) {
            let text = format!("slice `{slice}` writes table `{table}`, which is not its own");
            findings.push(Finding::at(path, piece.line, text));
        }
    }
    findings
}

/// Whether a text is SQL: it begins with a statement's keyword in capitals and goes on like one.
fn is_statement(text: &str) -> bool {
    let words: Vec<&str> = words(text).take(3).collect();
    let has = |word: &str| self::words(text).any(|other| other == word);
    match words.first().copied().unwrap_or_default() {
        "SELECT" => {
            has("FROM") || words.len() > 1 && words[1].starts_with(|c: char| c.is_ascii_digit() || c == '$')
        }
        "INSERT" => has("INTO"),
        "UPDATE" => has("SET"),
        "DELETE" => words.get(1) == Some(&"FROM"),
        "WITH" => has("AS") && has("SELECT"),
        "CREATE" | "ALTER" | "DROP" => words[1..]
            .iter()
            .any(|word| matches!(*word, "TABLE" | "INDEX" | "VIEW" | "UNIQUE")),
        _ => false,
    }
}

/// The tables that a statement inserts into, updates or deletes from.
fn written(sql: &str) -> Vec<&str> {
    let words: Vec<&str> = words(sql).collect();
    let mut tables = Vec::new();
    for at in 0..words.len() {
        let before = at.checked_sub(1).map_or("", |at| words[at]);
        let after = words.get(at + 1).copied().unwrap_or_default();
        let is_written = match words[at] {
            "INTO" => true,
            "FROM" => before == "DELETE",
            "UPDATE" => !matches!(before, "FOR" | "DO" | "ON" | "KEY") && after != "SET",
            _ => false,
        };
        if is_written {
            tables.push(after);
        }
    }
    tables
}

/// Judges every `CREATE TABLE` of a migration.
fn check_created(path: &str, line: usize, sql: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (table, definition) in created(sql) {
        if !tables::SLICES.iter().any(|(slice, _)| has_prefix(table, slice)) {
            findings.push(Finding::at(
                path,
                line,
                format!("table `{table}` has no slice's name as prefix"),
            ));
        }
        let is_exempt = tables::TABLES_WITHOUT_TENANT
            .iter()
            .any(|(known, _)| *known == table);
        if !is_exempt && !key_begins_with_tenant(definition) {
            let text = format!("the primary key of table `{table}` does not begin with `tenant_id`");
            findings.push(Finding::at(path, line, text));
        }
    }
    findings
}

/// Names and definitions of the tables that a text creates.
fn created(sql: &str) -> Vec<(&str, &str)> {
    let mut tables = Vec::new();
    for (at, _) in sql.match_indices("CREATE TABLE ") {
        let statement = &sql[at..];
        let statement = &statement[..statement.find(';').unwrap_or(statement.len())];
        let name = words(statement)
            .skip(2)
            .find(|word| !matches!(*word, "IF" | "NOT" | "EXISTS"));
        tables.extend(name.map(|name| (name, statement)));
    }
    tables
}

fn key_begins_with_tenant(definition: &str) -> bool {
    let words: Vec<&str> = words(definition).collect();
    words
        .windows(3)
        .any(|three| three[..2] == ["PRIMARY", "KEY"] && three[2] == "tenant_id")
        || definition.split(',').any(|column| {
            let column = column.rsplit_once('(').map_or(column, |(_, rest)| rest);
            self::words(column).next() == Some("tenant_id") && column.contains("PRIMARY KEY")
        })
}

fn has_prefix(table: &str, slice: &str) -> bool {
    table
        .strip_prefix(slice)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

fn words(sql: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '{' | '}');
    sql.split(move |c: char| !is_word(c))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_file(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)]))
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn a_slice_writes_its_own_tables_and_reads_any() {
        let store = "statements! { A = \"INSERT INTO devices_device (a) SELECT b FROM policy_version\n\
            ON CONFLICT (a) DO UPDATE SET a = 1\"; B = \"SELECT a FROM audit_entry FOR UPDATE SKIP LOCKED\"; }";
        assert!(check_file("crates/control/src/devices/store.rs", store).is_empty());
    }

    #[test]
    fn a_slice_writes_no_table_of_another() {
        for sql in [
            "UPDATE devices_device SET a = 1",
            "DELETE FROM devices_device WHERE a = 1",
            "WITH x AS (SELECT 1) INSERT INTO devices_device SELECT * FROM x",
            "INSERT INTO {table} (a) VALUES ($1)",
        ] {
            let found = check_file(
                "crates/control/src/policy/store.rs",
                &format!("const A: &str = \"{sql}\";"),
            );
            assert_eq!(found.len(), 1, "{sql}: {found:?}");
        }
    }

    #[test]
    fn sql_stands_in_store_only() {
        let text = "fn f() { q(\"SELECT a FROM b\") }";
        for path in [
            "crates/control/src/policy/api.rs",
            "crates/control/src/lib.rs",
            "crates/gateway/src/agent.rs",
        ] {
            assert_eq!(check_file(path, text).len(), 1, "{path}");
        }
        assert!(check_file("crates/storage/src/lib.rs", text).is_empty());
        assert!(check_file("crates/control/src/policy/tests/api.rs", text).is_empty());
        assert!(
            check_file(
                "crates/control/src/policy/api.rs",
                "#[cfg(test)]\nmod tests { const A: &str = \"SELECT a FROM b\"; }"
            )
            .is_empty()
        );
    }

    #[test]
    fn sentences_are_not_sql() {
        for text in [
            "Select a device from the list",
            "UPDATE your agent",
            "WITH care",
            "DELETE /clients/{id}",
            "CREATE a token",
        ] {
            assert!(!is_statement(text), "{text}");
        }
    }

    #[test]
    fn migrations_name_tables_by_slice_and_key_them_by_tenant() {
        let good = "CREATE TABLE devices_device (tenant_id UUID NOT NULL, id UUID NOT NULL, PRIMARY KEY (tenant_id, id));\n\
            CREATE TABLE IF NOT EXISTS audit_head (tenant_id UUID PRIMARY KEY, size BIGINT);";
        assert!(check_file("crates/control/migrations/0001.sql", good).is_empty());
        let bad = "CREATE TABLE device (tenant_id UUID, id UUID PRIMARY KEY);";
        assert_eq!(check_file("crates/control/migrations/0001.sql", bad).len(), 2);
        assert_eq!(
            check_file(
                "crates/control/src/migrations.rs",
                &format!("const A: &str = \"{bad}\";")
            )
            .len(),
            2
        );
    }
}
