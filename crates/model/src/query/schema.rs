//! What can be asked: tables and columns.

use super::value::Kind;

/// A column, with what people read about it.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    /// What it says, in one sentence without a stop.
    pub what: &'static str,
    pub example: &'static str,
    /// Everything it can be, where that is a closed set.
    pub words: &'static [&'static str],
}

/// A table.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub name: &'static str,
    pub what: &'static str,
    /// Its own columns; those of [`Schema::shared`] are in every table.
    pub columns: &'static [Column],
    /// What `*` stands for.
    pub star: &'static [&'static str],
    /// A question that shows what the table is good for.
    pub example: &'static str,
}

/// Everything that can be asked.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    pub tables: &'static [Table],
    /// Columns that every table has: those of the row's device.
    pub shared: &'static [Column],
}

impl Schema {
    /// The table with this name.
    pub fn table(&self, name: &str) -> Option<&'static Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The place of a column in a table, as [`super::Row::column`] is asked for it: shared columns first.
    pub fn place(&self, table: &Table, name: &str) -> Option<usize> {
        let named = |column: &Column| column.name == name;
        let own = table.columns.iter().position(named);
        own.map(|at| at + self.shared.len())
            .or_else(|| self.shared.iter().position(named))
    }

    /// The column at a place.
    pub fn column(&self, table: &Table, place: usize) -> Option<&'static Column> {
        match place.checked_sub(self.shared.len()) {
            Some(own) => table.columns.get(own),
            None => self.shared.get(place),
        }
    }

    /// Columns of a table, its own first.
    pub fn columns(&self, table: &Table) -> impl Iterator<Item = &'static Column> {
        table.columns.iter().chain(self.shared)
    }
}
