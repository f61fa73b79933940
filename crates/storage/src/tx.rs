//! A transaction, its scope, and the rows it reads.

use uuid::Uuid;

use crate::{
    error::StorageError,
    lease::{self, Lease},
    postgres, sqlite,
    statement::Statement,
    value::{self, FromValue, ToValue, Value, ValueRef},
};

/// Whose rows a transaction may touch. PostgreSQL enforces it by row-level security; SQLite has no such thing, so there
/// the tenant in every query's `WHERE` is the only guard, and the same tests run on PostgreSQL to prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Rows of one tenant.
    Tenant(Uuid),
    /// Rows of every tenant: for reconcilers, first run, and looking up whose a credential is.
    System,
}

impl Scope {
    /// The value of PostgreSQL's `muster.tenant` setting: a UUID or `*`, never anything that needs quoting.
    pub(crate) fn setting(self) -> String {
        match self {
            Self::Tenant(tenant) => tenant.hyphenated().to_string(),
            Self::System => "*".to_owned(),
        }
    }
}

/// A transaction in progress. Only [`crate::Database`] makes, commits and rolls back one.
pub struct Tx {
    pub(crate) connection: Connection,
    pub(crate) state: TxState,
}

pub(crate) enum Connection {
    Sqlite(sqlite::Connection),
    Postgres(postgres::Connection),
}

/// What a transaction has done so far.
pub(crate) struct TxState {
    pub scope: Scope,
    pub changes: u64,
    /// The failure after which the transaction cannot go on, if there was one.
    pub failure: Option<StorageError>,
    /// How many [`Tx::attempt`]s are open.
    depth: u32,
}

impl TxState {
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            changes: 0,
            failure: None,
            depth: 0,
        }
    }
}

impl Tx {
    /// Runs a statement and answers how many rows it changed.
    pub fn execute(&mut self, statement: &Statement, params: &[&dyn ToValue]) -> Result<u64, StorageError> {
        let changed = self.run(statement, params, &mut |_| true)?;
        self.state.changes += changed;
        Ok(changed)
    }

    /// Runs a statement and maps each of its rows, in order.
    pub fn query<T>(
        &mut self,
        statement: &Statement,
        params: &[&dyn ToValue],
        mut map: impl FnMut(&Row<'_>) -> Result<T, StorageError>,
    ) -> Result<Vec<T>, StorageError> {
        let mut found = Vec::new();
        let mut refused = None;
        let changed = self.run(statement, params, &mut |row| match map(row) {
            Ok(item) => {
                found.push(item);
                true
            }
            Err(error) => {
                refused = Some(error);
                false
            }
        })?;
        self.state.changes += changed;
        refused.map_or(Ok(found), Err)
    }

    /// Runs a statement that answers exactly one row.
    pub fn query_one<T>(
        &mut self,
        statement: &Statement,
        params: &[&dyn ToValue],
        map: impl FnMut(&Row<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.query_opt(statement, params, map)?
            .ok_or(StorageError::NoRow {
                statement: statement.name,
            })
    }

    /// Runs a statement that answers at most one row.
    pub fn query_opt<T>(
        &mut self,
        statement: &Statement,
        params: &[&dyn ToValue],
        map: impl FnMut(&Row<'_>) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let mut found = self.query(statement, params, map)?;
        if found.len() > 1 {
            return Err(StorageError::ManyRows {
                statement: statement.name,
            });
        }
        Ok(found.pop())
    }

    /// Rows changed so far in this transaction. Rows changed by foreign key actions are not counted.
    pub fn changes(&self) -> u64 {
        self.state.changes
    }

    /// Whose rows this transaction may touch.
    pub fn scope(&self) -> Scope {
        self.state.scope
    }

    /// Runs a part that may fail without costing the whole transaction: on `Err` its changes are undone and the
    /// transaction goes on.
    pub fn attempt<T, E: From<StorageError>>(
        &mut self,
        part: impl FnOnce(&mut Tx) -> Result<T, E>,
    ) -> Result<T, E> {
        self.check_alive()?;
        let name = format!("attempt_{}", self.state.depth);
        let changes_before = self.state.changes;
        self.control(&format!("SAVEPOINT {name}"))?;
        self.state.depth += 1;
        let outcome = part(self);
        self.state.depth -= 1;
        // A conflict or a lost connection dooms the whole transaction: it is for `Database::write` to retry.
        if self
            .state
            .failure
            .as_ref()
            .is_some_and(StorageError::is_transient)
        {
            return outcome.and(Err(StorageError::Aborted.into()));
        }
        match outcome {
            Ok(value) if self.state.failure.is_none() => {
                self.control(&format!("RELEASE SAVEPOINT {name}"))?;
                Ok(value)
            }
            other => {
                self.control(&format!("ROLLBACK TO SAVEPOINT {name}"))?;
                self.control(&format!("RELEASE SAVEPOINT {name}"))?;
                self.state.failure = None;
                self.state.changes = changes_before;
                other.and(Err(StorageError::Aborted.into()))
            }
        }
    }

    /// Makes the rest of the transaction depend on a lease: fails with [`StorageError::LeaseLost`] if somebody else has
    /// it, and otherwise keeps anybody from taking it before this transaction ends.
    pub fn fence(&mut self, lease: &Lease) -> Result<(), StorageError> {
        let held = self.run(&lease::FENCE, &[&lease.name, &lease.token], &mut |_| true)?;
        if held == 1 {
            Ok(())
        } else {
            Err(StorageError::LeaseLost {
                name: lease.name.clone(),
            })
        }
    }

    /// Prepares a statement and answers what about its types cannot be used from Rust. For tests.
    pub(crate) fn prepare(&mut self, statement: &Statement) -> Result<Vec<String>, StorageError> {
        match &mut self.connection {
            Connection::Sqlite(connection) => connection.prepare(statement).map(|()| Vec::new()),
            Connection::Postgres(connection) => connection.prepare(statement),
        }
    }

    /// The steps of SQLite's plan for a statement. For tests.
    pub(crate) fn plan(&mut self, statement: &Statement) -> Result<Vec<String>, StorageError> {
        match &mut self.connection {
            Connection::Sqlite(connection) => connection.plan(statement),
            Connection::Postgres(_) => Ok(Vec::new()),
        }
    }

    fn run(
        &mut self,
        statement: &Statement,
        params: &[&dyn ToValue],
        each: &mut dyn FnMut(&Row<'_>) -> bool,
    ) -> Result<u64, StorageError> {
        self.check_alive()?;
        let values = bindable(params)?;
        let outcome = match &mut self.connection {
            Connection::Sqlite(connection) => connection.run(statement, &values, each),
            Connection::Postgres(connection) => connection.run(statement, &values, each),
        };
        outcome.inspect_err(|error| self.state.failure = Some(error.clone()))
    }

    /// Runs a transaction control statement.
    pub(crate) fn control(&mut self, sql: &str) -> Result<(), StorageError> {
        let outcome = match &mut self.connection {
            Connection::Sqlite(connection) => connection.control(sql),
            Connection::Postgres(connection) => connection.control(sql),
        };
        outcome.inspect_err(|error| self.state.failure = Some(error.clone()))
    }

    fn check_alive(&self) -> Result<(), StorageError> {
        if self.state.failure.is_some() {
            Err(StorageError::Aborted)
        } else {
            Ok(())
        }
    }
}

/// The values of the parameters, none of them beyond what a BIGINT holds.
fn bindable<'a>(params: &'a [&'a dyn ToValue]) -> Result<Vec<Value<'a>>, StorageError> {
    let value_of = |(at, param): (usize, &'a &'a dyn ToValue)| match param.to_value() {
        Value::Unsigned(number) => i64::try_from(number)
            .map(Value::Int)
            .map_err(|_| StorageError::Type {
                index: at + 1,
                expected: "at most 2^63 - 1",
                found: number.to_string(),
            }),
        other => Ok(other),
    };
    params.iter().enumerate().map(value_of).collect()
}

/// One row of an answer.
pub struct Row<'a>(pub(crate) RowOf<'a>);

pub(crate) enum RowOf<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// Reads the column at `index`, counted from 0.
    pub fn get<T: FromValue>(&self, index: usize) -> Result<T, StorageError> {
        value::read(index, self.value(index))
    }

    fn value(&self, index: usize) -> ValueRef<'_> {
        match self.0 {
            RowOf::Sqlite(row) => sqlite::column(row, index),
            RowOf::Postgres(row) => postgres::column(row, index),
        }
    }
}
