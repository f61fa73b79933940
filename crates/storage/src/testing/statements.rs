//! Checks of declared statements against a real schema.

use crate::{Database, Engine, Scope, Statement, StorageError};

/// Prepares every statement and answers what is wrong, one line each: a statement that the engine refuses, or, on
/// PostgreSQL, a parameter or column of a type that no Rust type here stands for.
pub async fn statement_problems(db: &Database, statements: &[Statement]) -> Vec<String> {
    let mut problems = Vec::new();
    for statement in statements.iter().copied() {
        let prepared = db.read(Scope::System, move |tx| tx.prepare(&statement)).await;
        match prepared {
            Ok(found) => problems.extend(
                found
                    .into_iter()
                    .map(|problem| format!("{}: {problem}", statement.name)),
            ),
            Err(error) => problems.push(format!("{}: {}", statement.name, with_cause(&error))),
        }
    }
    problems
}

/// The statements that read a whole table on SQLite, one line each; none on PostgreSQL, whose planner rightly scans
/// tables that are small.
pub async fn whole_table_scans(db: &Database, statements: &[Statement]) -> Vec<String> {
    let mut scans = Vec::new();
    if db.engine() != Engine::Sqlite {
        return scans;
    }
    for statement in statements.iter().copied() {
        match db.read(Scope::System, move |tx| tx.plan(&statement)).await {
            Ok(steps) => {
                let steps = steps.into_iter().filter(|step| step.starts_with("SCAN "));
                scans.extend(steps.map(|step| format!("{}: {step}", statement.name)));
            }
            Err(error) => scans.push(format!("{}: {}", statement.name, with_cause(&error))),
        }
    }
    scans
}

fn with_cause(error: &StorageError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
