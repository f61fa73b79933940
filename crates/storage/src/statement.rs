//! Named statements, the rewriting of their parameters for SQLite, and the splitting of migrations.

/// One SQL statement in the dialect that both engines share, with a name for errors and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// The constant's name.
    pub name: &'static str,
    /// The text, with `$1` parameters.
    pub sql: &'static str,
}

/// Declares the statements of a `store.rs`: one crate-visible constant for each, and `ALL` with all of them, for the
/// test that prepares every statement on both engines.
///
/// ```
/// muster_storage::statements! {
///     /// One device.
///     DEVICE = "SELECT name FROM device WHERE tenant_id = $1 AND device_id = $2";
///     RENAME = "UPDATE device SET name = $3 WHERE tenant_id = $1 AND device_id = $2";
/// }
/// # fn main() { assert_eq!(ALL, [DEVICE, RENAME]); }
/// ```
#[macro_export]
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = $sql:expr;)*) => {
        $(
            $(#[$meta])*
            pub(crate) const $name: $crate::Statement = $crate::Statement { name: stringify!($name), sql: $sql };
        )*
        /// Every statement declared here.
        pub const ALL: &[$crate::Statement] = &[$($name),*];
    };
}

impl Statement {
    /// Whether the statement can change rows: it starts with, or is a CTE around, INSERT, UPDATE or DELETE.
    pub(crate) fn writes(&self) -> bool {
        let mut words = Pieces::new(self.sql)
            .filter(|(piece, _)| *piece == Piece::Code)
            .flat_map(|(_, text)| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
            .filter(|word| !word.is_empty());
        let Some(first) = words.next() else { return false };
        if !first.eq_ignore_ascii_case("with") {
            return !first.eq_ignore_ascii_case("select");
        }
        words.any(|word| {
            ["insert", "update", "delete"]
                .iter()
                .any(|verb| word.eq_ignore_ascii_case(verb))
        })
    }
}

/// Turns `$1` into `?1`, which SQLite numbers as PostgreSQL does. Quoted text and comments stay.
pub(crate) fn for_sqlite(sql: &str) -> String {
    let mut rewritten = String::with_capacity(sql.len());
    for (piece, text) in Pieces::new(sql) {
        if piece != Piece::Code {
            rewritten.push_str(text);
            continue;
        }
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, after) = rest.split_at(at);
            let in_word = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            rewritten.push_str(before);
            let is_parameter = !in_word && after[1..].starts_with(|c: char| c.is_ascii_digit());
            rewritten.push(if is_parameter { '?' } else { '$' });
            rest = &after[1..];
        }
        rewritten.push_str(rest);
    }
    rewritten
}

/// The statements of a migration, split at `;` outside quotes and comments; comments are dropped.
pub(crate) fn split(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    for (piece, text) in Pieces::new(sql) {
        match piece {
            Piece::Comment => current.push(' '),
            Piece::Quoted => current.push_str(text),
            Piece::Code => {
                let mut parts = text.split(';');
                current.push_str(parts.next().unwrap_or_default());
                for part in parts {
                    statements.push(std::mem::take(&mut current));
                    current.push_str(part);
                }
            }
        }
    }
    statements.push(current);
    statements
        .iter()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Quoted,
    Comment,
}

/// Cuts SQL into code, quoted text (`'…'`, `"…"`) and comments (`-- …`, `/* … */`). A doubled quote inside quotes reads as
/// two quoted pieces side by side, which is the same to every caller.
struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Pieces<'a> {
    fn new(sql: &'a str) -> Self {
        Self { rest: sql }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        piece
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (Piece, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest;
        let first = text.chars().next()?;
        let until = |closing: &str, from: usize| {
            text[from..]
                .find(closing)
                .map_or(text.len(), |at| from + at + closing.len())
        };
        let (piece, length) = if first == '\'' || first == '"' {
            (Piece::Quoted, until(if first == '"' { "\"" } else { "'" }, 1))
        } else if text.starts_with("--") {
            (Piece::Comment, until("\n", 2))
        } else if text.starts_with("/*") {
            (Piece::Comment, until("*/", 2))
        } else {
            let next = ["'", "\"", "--", "/*"]
                .iter()
                .filter_map(|mark| text.find(mark))
                .min();
            (Piece::Code, next.unwrap_or(text.len()))
        };
        Some((piece, self.take(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_rewritten_outside_quotes_and_comments() {
        let check = |sql, expected: &str| assert_eq!(for_sqlite(sql), expected);
        check("SELECT $1, $12", "SELECT ?1, ?12");
        check(
            "SELECT '$1', \"a$1\", a$1 -- $1\n, $2",
            "SELECT '$1', \"a$1\", a$1 -- $1\n, ?2",
        );
        check(
            "SELECT 'it''s $1' /* $2 */ || $3",
            "SELECT 'it''s $1' /* $2 */ || ?3",
        );
        check("j ->> '$.a' = $1", "j ->> '$.a' = ?1");
        check("é = $1 'unclosed $2", "é = ?1 'unclosed $2");
    }

    #[test]
    fn migrations_are_split_outside_quotes_and_comments() {
        let statements = split(
            "-- first; not a statement\nCREATE TABLE a (b TEXT DEFAULT ';');\n/* x; */ CREATE\nINDEX c; ;",
        );
        assert_eq!(
            statements,
            ["CREATE TABLE a (b TEXT DEFAULT ';')", "CREATE\nINDEX c"]
        );
    }

    #[test]
    fn a_writing_statement_is_told_from_a_reading_one() {
        let writes = |sql| Statement { name: "T", sql }.writes();
        assert!(writes("INSERT INTO a VALUES (1)"));
        assert!(writes(" -- c\n update a SET b = 1"));
        assert!(writes("WITH x AS (DELETE FROM a RETURNING b) SELECT b FROM x"));
        assert!(!writes("SELECT 'delete' FROM a FOR UPDATE"));
        assert!(!writes("WITH x AS (SELECT 'insert') SELECT * FROM x"));
    }
}
