//! Questions are read, refused with reasons, and answered as SQLite answers them.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::{text::LabelKey, time::Timestamp};

const fn column(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        what: "",
        example: "",
        words: &[],
    }
}

static SHARED: [Column; 4] = [
    column("device", Kind::Text),
    Column {
        words: &["linux", "macos"],
        ..column("platform", Kind::Text)
    },
    column("seen_at", Kind::Time),
    column("os_version", Kind::Version),
];

static TABLES: [Table; 2] = [
    Table {
        name: "t",
        what: "",
        columns: &[
            column("a", Kind::Int),
            column("b", Kind::Text),
            column("c", Kind::Real),
            column("d", Kind::Bool),
            column("e", Kind::Int),
        ],
        star: &["a", "b", "c", "d", "e"],
        example: "",
    },
    Table {
        name: "packages",
        what: "",
        columns: &[column("name", Kind::Text), column("version", Kind::Version)],
        star: &["device", "name", "version"],
        example: "",
    },
];

static SCHEMA: Schema = Schema {
    tables: &TABLES,
    shared: &SHARED,
};

const LIMITS: Limits = Limits {
    rows_max: 1000,
    groups_max: 1000,
    bytes_max: 1 << 20,
};

#[derive(Debug, Clone)]
struct Cells(Vec<Cell>);

impl Row for Cells {
    fn column(&self, place: usize) -> Value<'_> {
        self.0.get(place).map_or(Value::Null, Cell::value)
    }
    fn label(&self, key: &LabelKey) -> Value<'_> {
        match key.as_str() {
            "site" => Value::Text("north"),
            _ => Value::Null,
        }
    }
}

fn now() -> Timestamp {
    "2026-11-28T12:00:00Z".parse().expect("it is a time")
}

fn plan(text: &str) -> Result<Plan, QuestionError> {
    Plan::check(text, &SCHEMA, now())
}

fn error(text: &str) -> String {
    plan(text).expect_err(text).to_string()
}

fn answer_with(text: &str, rows: &[Cells], limits: Limits) -> Result<Answer, Exceeded> {
    let plan = plan(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut run = Run::new(Arc::new(plan), limits);
    for row in rows {
        if run.take(row)? == Flow::Enough {
            break;
        }
    }
    run.finish()
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) | Cell::Time(value) => value.to_string(),
        Cell::Real(value) => format!("{value:?}"),
        Cell::Text(text) => text.to_string(),
    }
}

fn answers(text: &str, rows: &[Cells]) -> Vec<String> {
    let answer = answer_with(text, rows, LIMITS).expect("it is answered");
    let line = |row: &Vec<Cell>| row.iter().map(shown).collect::<Vec<_>>().join(" ");
    answer.rows.iter().map(line).collect()
}

fn device(name: &str, platform: &str, seen: &str, version: Option<&str>) -> Cells {
    let text = |text: &str| Cell::Text(text.into());
    let seen: Timestamp = seen.parse().expect("it is a time");
    Cells(vec![
        text(name),
        text(platform),
        Cell::Time(seen.as_micros()),
        version.map_or(Cell::Null, text),
        Cell::Int(i64::try_from(name.len()).expect("it is short")),
    ])
}

static FLEET: LazyLock<Vec<Cells>> = LazyLock::new(|| {
    vec![
        device("one", "linux", "2026-11-28T11:00:00Z", Some("12.10")),
        device("two", "linux", "2026-11-01T00:00:00Z", Some("12.4")),
        device("three", "macos", "2026-11-27T00:00:00Z", None),
    ]
});

#[test]
fn versions_times_and_labels_mean_what_people_mean() {
    let ask = |text: &str| answers(text, &FLEET);
    assert_eq!(ask("select device from t where os_version < '12.9'"), ["two"]);
    assert_eq!(ask("SELECT device FROM t WHERE NOT os_version < '12.9'"), ["one"]);
    assert_eq!(ask("SELECT device FROM t WHERE os_version IS NULL"), ["three"]);
    assert_eq!(ask("SELECT device FROM t WHERE seen_at < ago('7d')"), ["two"]);
    assert_eq!(ask("SELECT device FROM t WHERE seen_at >= '2026-11-28'"), ["one"]);
    assert_eq!(
        ask("SELECT device FROM t WHERE label('site') = 'north' LIMIT 1 OFFSET 2"),
        ["three"]
    );
    assert_eq!(
        ask("SELECT device FROM t ORDER BY os_version DESC;"),
        ["one", "two", "three"]
    );
    assert_eq!(
        ask(
            "SELECT platform, count(*) AS n, max(os_version) FROM t GROUP BY platform HAVING count(*) > 0 ORDER BY n DESC"
        ),
        ["linux 2 12.10", "macos 1 null"]
    );
    assert_eq!(
        ask("SELECT count(*), avg(a), min(device) FROM t WHERE device = 'x'"),
        ["0 null null"]
    );
    assert_eq!(
        ask("SELECT label('site') AS site, count(distinct platform) FROM t GROUP BY site"),
        ["north 2"]
    );
    assert_eq!(
        ask("SELECT DISTINCT platform FROM t ORDER BY 1"),
        ["linux", "macos"]
    );
    assert_eq!(
        ask("SELECT device FROM t WHERE device NOT IN ('one', 'it''s') AND device LIKE 'T%O'"),
        ["two"]
    );
    assert_eq!(ask("SELECT device FROM t WHERE a NOT BETWEEN 3 AND 4"), ["three"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_to_write() {
    let cases = [
        ("SELECT devise FROM t", "column 8", "did you mean device?"),
        ("SELECT device FROM tt", "column 20", "there is no table tt"),
        ("SELECT name FROM t", "column 8", "ask FROM packages"),
        ("DROP TABLE t", "column 1", "can change nothing"),
        (
            "SELECT device FROM t JOIN packages",
            "column 22",
            "no join is needed",
        ),
        (
            "SELECT device FROM t WHERE platform = 'Linux'",
            "column 39",
            "did you mean linux?",
        ),
        (
            "SELECT device FROM t WHERE a = '1'",
            "column 32",
            "a number without quotes",
        ),
        ("SELECT device FROM t WHERE a = NULL", "column 32", "IS NULL"),
        ("SELECT device, count(*) FROM t", "column 8", "GROUP BY device"),
        ("SELECT device FROM t WHERE count(*) > 1", "column 28", "HAVING"),
        (
            "SELECT device FROM t WHERE a IN (SELECT a FROM t)",
            "column 34",
            "a column or a value",
        ),
        (
            "SELECT device FROM t WHERE (SELECT 1)",
            "column 29",
            "questions within",
        ),
        (
            "SELECT device\nFROM t\nWERE a = 1",
            "line 3, column 1",
            "did you mean where?",
        ),
        (
            "SELECT device FROM t WHERE device = \"x\"",
            "column 37",
            "single ones",
        ),
        ("SELECT device FROM t WHERE device", "column 28", "compare it"),
        (
            "SELECT device FROM t WHERE seen_at > 'yesterday'",
            "column 38",
            "ago('7d')",
        ),
        ("SELECT medn(a) FROM t", "column 8", "there is no medn(…)"),
        ("SELECT device FROM t LIMIT -1", "column 28", "whole number"),
        ("SELECT sum(device) FROM t", "column 8", "sum takes numbers"),
        ("SELECT device FROM t WHERE device = 'x", "column 37", "no end"),
        (
            "SELECT DISTINCT device FROM t ORDER BY a",
            "column 40",
            "DISTINCT",
        ),
        (
            "SELECT device FROM t; SELECT 1",
            "column 23",
            "the end of the question",
        ),
        (
            "SELECT device FROM t WHERE a + 1 = 2",
            "column 30",
            "no arithmetic",
        ),
    ];
    for (text, place, advice) in cases {
        let error = error(text);
        assert!(error.contains(place) && error.contains(advice), "{text}: {error}");
    }
}

#[test]
fn every_bound_is_kept() {
    let deep = format!(
        "SELECT a FROM t WHERE {}a = 1{}",
        "(".repeat(DEPTH_MAX + 1),
        ")".repeat(DEPTH_MAX + 1)
    );
    let nots = format!("SELECT a FROM t WHERE {} d", "NOT ".repeat(1000));
    let values = format!(
        "SELECT a FROM t WHERE a IN ({})",
        vec!["1"; LIST_MAX + 1].join(",")
    );
    let wide = format!("SELECT {} FROM t", vec!["a"; SELECTED_MAX + 1].join(","));
    let many = format!(
        "SELECT a FROM t WHERE {}",
        vec!["d"; COMPARISONS_MAX + 1].join(" OR ")
    );
    let long = format!("SELECT a FROM t WHERE b = '{}'", "x".repeat(QUESTION_BYTES_MAX));
    for text in [deep, nots, values, wide, many, long] {
        assert!(error(&text).contains("at most"), "{}", error(&text));
    }
    let rows: Vec<Cells> = (0..5000)
        .map(|number| {
            Cells(vec![
                Cell::Null,
                Cell::Null,
                Cell::Null,
                Cell::Null,
                Cell::Int(number),
            ])
        })
        .collect();
    let grouped = answer_with("SELECT a, count(*) FROM t GROUP BY a", &rows, LIMITS);
    assert_eq!(
        grouped.expect_err("there are 5000 groups"),
        Exceeded::Groups(1000)
    );
    let first = answer_with("SELECT a FROM t ORDER BY a DESC", &rows, LIMITS).expect("it is answered");
    assert_eq!(
        (first.rows.len(), first.is_truncated, &first.rows[0][0]),
        (1000, true, &Cell::Int(4999))
    );
    let first =
        answer_with("SELECT a FROM t ORDER BY a LIMIT 2 OFFSET 3", &rows, LIMITS).expect("it is answered");
    assert_eq!(
        (first.rows.len(), first.is_truncated, &first.rows[0][0]),
        (2, false, &Cell::Int(3))
    );
    let tight = Limits {
        bytes_max: 1000,
        ..LIMITS
    };
    assert_eq!(
        answer_with("SELECT a FROM t", &rows, tight).expect_err("it is little"),
        Exceeded::Bytes(1000)
    );
}

#[test]
fn what_is_known_early_decides_early() {
    let plan =
        plan("SELECT device FROM t WHERE platform = 'linux' AND a = 1 AND NOT (platform = 'macos' OR a = 2)");
    let plan = plan.expect("it is a question");
    let of = |platform: &'static str| plan.may_match(|place| place < 4, |_| Value::Text(platform));
    assert!(of("linux") && !of("macos"));
}

fn cell() -> impl Strategy<Value = Cells> {
    let int = || prop_oneof![Just(Cell::Null), (-3_i64..4).prop_map(Cell::Int)];
    let text = prop_oneof![
        Just(Cell::Null),
        "[aAbB_%]{0,3}".prop_map(|text| Cell::Text(text.into()))
    ];
    let real = prop_oneof![
        Just(Cell::Null),
        prop::sample::select(vec![0.0, 0.5, -1.25, 2.0, 100.0]).prop_map(Cell::Real)
    ];
    let bool = prop_oneof![Just(Cell::Null), any::<bool>().prop_map(Cell::Bool)];
    (int(), text, real, bool, int()).prop_map(|(a, b, c, d, e)| {
        let none = [Cell::Null, Cell::Null, Cell::Null, Cell::Null];
        Cells(none.into_iter().chain([a, b, c, d, e]).collect())
    })
}

fn comparison() -> impl Strategy<Value = String> {
    let sign = || prop::sample::select(vec!["=", "!=", "<>", "<", "<=", ">", ">="]);
    let number = || prop::sample::select(vec!["a", "c", "e"]);
    let not = || prop::sample::select(vec!["", "NOT "]);
    let value = || prop_oneof![(-3_i64..4).prop_map(|n| n.to_string()), Just("0.5".to_owned())];
    prop_oneof![
        (number(), sign(), value()).prop_map(|(a, s, v)| format!("{a} {s} {v}")),
        (value(), sign(), number()).prop_map(|(v, s, a)| format!("{v} {s} {a}")),
        (number(), sign(), number()).prop_map(|(a, s, b)| format!("{a} {s} {b}")),
        (sign(), "[aAbB]{0,2}").prop_map(|(s, v)| format!("b {s} '{v}'")),
        (not(), "[aAbB_%]{0,4}").prop_map(|(n, v)| format!("b {n}LIKE '{v}'")),
        (number(), not(), value(), value()).prop_map(|(a, n, v, w)| format!("{a} {n}IN ({v}, {w})")),
        (number(), not(), value(), value()).prop_map(|(a, n, v, w)| format!("{a} {n}BETWEEN {v} AND {w}")),
        (prop::sample::select(vec!["a", "b", "c", "d", "e"]), not())
            .prop_map(|(a, n)| format!("{a} IS {n}NULL")),
        Just("d".to_owned()),
        Just("d = true".to_owned()),
        Just("d != false".to_owned()),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    comparison().prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} OR {b} AND {a}")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

fn question() -> impl Strategy<Value = String> {
    let columns = || prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 1..=5);
    let filter =
        || prop::option::of(condition()).prop_map(|c| c.map_or(String::new(), |c| format!(" WHERE {c}")));
    let direction = || prop::sample::select(vec!["", " DESC", " ASC"]);
    let plain = (
        columns(),
        filter(),
        any::<bool>(),
        direction(),
        0_u64..8,
        0_u64..4,
    )
        .prop_map(|(columns, filter, distinct, direction, limit, offset)| {
            let places: Vec<String> = (1..=columns.len())
                .map(|place| format!("{place}{direction}"))
                .collect();
            let distinct = if distinct { "DISTINCT " } else { "" };
            let columns = columns.join(", ");
            let places = places.join(", ");
            format!(
                "SELECT {distinct}{columns} FROM t{filter} ORDER BY {places} LIMIT {limit} OFFSET {offset}"
            )
        });
    let unordered = (columns(), filter()).prop_map(|(columns, filter)| {
        let columns = columns.join(", ");
        format!("SELECT {columns} FROM t{filter}")
    });
    let totals = "count(*), count(b), count(DISTINCT e), sum(a), sum(c), avg(a), avg(c), min(b), max(c), min(e), sum(distinct e)";
    let having = || {
        prop::sample::select(vec![
            "",
            " HAVING count(*) > 1",
            " HAVING max(a) >= 0 OR min(b) IS NULL",
        ])
    };
    let grouped = (columns(), filter(), having()).prop_map(move |(columns, filter, having)| {
        let columns = columns.join(", ");
        format!("SELECT {columns}, {totals} FROM t{filter} GROUP BY {columns}{having}")
    });
    let whole = filter().prop_map(move |filter| format!("SELECT {totals} FROM t{filter}"));
    prop_oneof![plain, unordered, grouped, whole]
}

/// The answer of SQLite, in the form of [`shown`]; its booleans are numbers.
fn oracle(text: &str, rows: &[Cells]) -> Vec<String> {
    let db = rusqlite::Connection::open_in_memory().expect("memory is there");
    db.execute_batch("CREATE TABLE t (a INTEGER, b TEXT, c REAL, d INTEGER, e INTEGER)")
        .expect("it is SQL");
    for row in rows {
        let values = row.0[4..].iter().map(|cell| match cell {
            Cell::Null => rusqlite::types::Value::Null,
            Cell::Bool(value) => i64::from(*value).into(),
            Cell::Int(value) | Cell::Time(value) => (*value).into(),
            Cell::Real(value) => (*value).into(),
            Cell::Text(text) => text.to_string().into(),
        });
        db.execute(
            "INSERT INTO t VALUES (?, ?, ?, ?, ?)",
            rusqlite::params_from_iter(values),
        )
        .expect("a row");
    }
    let mut statement = db.prepare(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let cells = (0..columns).map(|at| {
            Ok(match row.get::<_, rusqlite::types::Value>(at)? {
                rusqlite::types::Value::Null => "null".to_owned(),
                rusqlite::types::Value::Integer(value) => value.to_string(),
                rusqlite::types::Value::Real(value) => format!("{value:?}"),
                rusqlite::types::Value::Text(text) => text,
                rusqlite::types::Value::Blob(_) => unreachable!("there are no blobs"),
            })
        });
        Ok(cells.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
    });
    rows.expect("it runs")
        .collect::<rusqlite::Result<_>>()
        .expect("rows come")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn answers_are_those_of_sqlite(text in question(), rows in prop::collection::vec(cell(), 0..40)) {
        let bool_as_number = |cell: &Cell| match cell {
            Cell::Bool(value) => i64::from(*value).to_string(),
            other => shown(other),
        };
        let answer = answer_with(&text, &rows, LIMITS).expect("it is answered");
        let mut ours: Vec<String> =
            answer.rows.iter().map(|row| row.iter().map(bool_as_number).collect::<Vec<_>>().join(" ")).collect();
        let mut theirs = oracle(&text, &rows);
        if !text.contains("ORDER BY") {
            ours.sort();
            theirs.sort();
        }
        prop_assert_eq!(ours, theirs, "{}", text);
    }

    #[test]
    fn any_text_is_a_question_or_a_refusal(
        noise in "\\PC{0,200}",
        words in prop::collection::vec(prop::sample::select(vec![
            "SELECT", "FROM", "t", "WHERE", "a", "b", "(", ")", "NOT", "AND", "OR", "IN", "LIKE", "'x'", "''", "1", "-1.5",
            "count", "*", ",", "GROUP", "BY", "ORDER", "LIMIT", "IS", "NULL", "BETWEEN", "label", "ago", "=", "<", "AS",
            "HAVING", "DISTINCT", "max", "é", "'", ";",
        ]), 0..40),
        rows in prop::collection::vec(cell(), 0..3),
    ) {
        let _ = plan(&noise);
        let words = words.join(" ");
        for text in [words.clone(), format!("SELECT a FROM t WHERE {words}"), format!("SELECT {words} FROM t")] {
            if plan(&text).is_ok() {
                let _ = answer_with(&text, &rows, LIMITS);
            }
        }
    }

    #[test]
    fn a_filter_known_early_never_refuses_what_matches(text in condition(), row in cell()) {
        let plan = plan(&format!("SELECT a FROM t WHERE {text}")).expect("it is a question");
        let plan = Arc::new(plan);
        let mut run = Run::new(Arc::clone(&plan), LIMITS);
        run.take(&row).expect("it is small");
        let matches = !run.finish().expect("it is small").rows.is_empty();
        let may = plan.may_match(|place| place % 2 == 0, |place| row.column(place));
        prop_assert!(may || !matches);
    }
}
