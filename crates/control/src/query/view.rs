//! Answers and saved questions as the API shows them.

use muster_model::{
    QueryRunId, Timestamp,
    query::{Cell, Column, Table},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ask::Answered,
    saved::{Saved, Schedule},
    schema::{EXAMPLES, SCHEMA},
    store::StoredRun,
};

/// The answer to a question.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AnswerView {
    /// The table that was asked.
    pub table: String,
    pub columns: Vec<AnswerColumn>,
    /// Rows of values, in the order of the columns: texts, numbers, booleans, times as texts (RFC 3339), `null`.
    #[schema(value_type = Vec<Vec<Object>>)]
    pub rows: Vec<Vec<Value>>,
    /// There are more rows than were asked for, or than an answer may have.
    pub truncated: bool,
    #[schema(value_type = String)]
    pub asked_at: Timestamp,
    pub took_ms: u64,
    /// Devices that were looked at.
    pub devices: u64,
    /// Personally owned devices that have no rows in this table.
    pub withheld_devices: u64,
    /// When the oldest facts came that were looked at; absent where the question needs no facts.
    #[schema(value_type = Option<String>)]
    pub facts_oldest_at: Option<Timestamp>,
    /// When the newest came.
    #[schema(value_type = Option<String>)]
    pub facts_newest_at: Option<Timestamp>,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnswerColumn {
    pub name: String,
    /// `text`, `integer`, `number`, `boolean`, `time` or `version`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl AnswerView {
    pub fn of(answered: &Answered) -> AnswerView {
        let columns = answered.answer.columns.iter().map(|column| AnswerColumn {
            name: column.name.clone(),
            kind: column.kind.as_str().to_owned(),
        });
        let rows = answered.answer.rows.iter();
        AnswerView {
            table: answered.table.to_owned(),
            columns: columns.collect(),
            rows: rows.map(|row| row.iter().map(value).collect()).collect(),
            truncated: answered.answer.is_truncated,
            asked_at: answered.asked_at,
            took_ms: u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX),
            devices: answered.devices,
            withheld_devices: answered.withheld,
            facts_oldest_at: answered.facts.map(|(oldest, _)| oldest),
            facts_newest_at: answered.facts.map(|(_, newest)| newest),
        }
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Bool(value) => Value::Bool(*value),
        Cell::Int(value) => Value::from(*value),
        Cell::Real(value) => Value::from(*value),
        Cell::Time(micros) => Value::String(Timestamp::from_micros(*micros).to_string()),
        Cell::Text(text) => Value::String(text.to_string()),
    }
}

/// A saved question.
#[derive(Debug, Serialize, ToSchema)]
pub struct SavedView {
    pub name: String,
    pub description: String,
    pub question: String,
    pub schedule: Option<Schedule>,
    /// Who made it.
    pub owner: String,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    pub updated_by: String,
    #[schema(value_type = String)]
    pub updated_at: Timestamp,
    /// Counts changes. `ETag` says it too, for `If-Match`.
    pub version: i64,
    #[schema(value_type = Option<String>)]
    pub next_run_at: Option<Timestamp>,
}

impl From<Saved> for SavedView {
    fn from(saved: Saved) -> SavedView {
        SavedView {
            name: saved.name,
            description: saved.description,
            question: saved.question,
            schedule: saved.schedule,
            owner: saved.owner,
            created_at: saved.created_at,
            updated_by: saved.updated_by,
            updated_at: saved.updated_at,
            version: saved.version,
            next_run_at: saved.next_run_at,
        }
    }
}

/// A run of a scheduled question.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunView {
    #[schema(value_type = String)]
    pub id: QueryRunId,
    #[schema(value_type = String)]
    pub at: Timestamp,
    pub took_ms: i64,
    pub rows: i64,
    /// Rows that were not in the answer before; absent for the first one.
    pub added: Option<i64>,
    /// Rows of the answer before that are gone.
    pub removed: Option<i64>,
    /// Why there is no answer.
    pub error: Option<String>,
}

impl From<&StoredRun> for RunView {
    fn from(run: &StoredRun) -> RunView {
        RunView {
            id: run.id,
            at: run.at,
            took_ms: run.took_ms,
            rows: run.rows,
            added: run.added,
            removed: run.removed,
            error: run.error.clone(),
        }
    }
}

/// A run with its answer, and what changed since the one before.
#[derive(Debug, Serialize, ToSchema)]
pub struct WholeRunView {
    #[serde(flatten)]
    pub run: RunView,
    pub answer: Option<AnswerView>,
    #[schema(value_type = Vec<Vec<Object>>)]
    pub added_rows: Vec<Vec<Value>>,
    #[schema(value_type = Vec<Vec<Object>>)]
    pub removed_rows: Vec<Vec<Value>>,
}

/// What can be asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuerySchemaView {
    pub tables: Vec<TableView>,
    /// Columns that every table has: those of the row's device.
    pub shared: Vec<ColumnView>,
    /// Questions to begin with.
    pub examples: Vec<ExampleView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TableView {
    pub name: String,
    pub description: String,
    pub example: String,
    /// Its own columns.
    pub columns: Vec<ColumnView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ColumnView {
    pub name: String,
    /// `text`, `integer`, `number`, `boolean`, `time` or `version`.
    #[serde(rename = "type")]
    pub kind: String,
    pub description: String,
    pub example: String,
    /// Everything that it can be, where that is a closed set.
    pub values: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ExampleView {
    pub asks: String,
    pub question: String,
}

impl QuerySchemaView {
    pub fn read() -> QuerySchemaView {
        let table = |table: &Table| TableView {
            name: table.name.to_owned(),
            description: table.what.to_owned(),
            example: table.example.to_owned(),
            columns: table.columns.iter().map(ColumnView::of).collect(),
        };
        QuerySchemaView {
            tables: SCHEMA.tables.iter().map(table).collect(),
            shared: SCHEMA.shared.iter().map(ColumnView::of).collect(),
            examples: EXAMPLES
                .iter()
                .map(|(asks, question)| ExampleView {
                    asks: (*asks).to_owned(),
                    question: (*question).to_owned(),
                })
                .collect(),
        }
    }
}

impl ColumnView {
    fn of(column: &Column) -> ColumnView {
        ColumnView {
            name: column.name.to_owned(),
            kind: column.kind.as_str().to_owned(),
            description: column.what.to_owned(),
            example: column.example.to_owned(),
            values: column.words.iter().map(|word| (*word).to_owned()).collect(),
        }
    }
}
