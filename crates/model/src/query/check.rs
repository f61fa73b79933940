//! From a syntax tree to a plan: names are looked up, kinds have to fit.

use std::collections::BTreeSet;

use super::{
    AGGREGATES_MAX, LABELS_MAX, QUESTION_BYTES_MAX, QuestionError, SELECTED_MAX,
    lexer::tokens,
    parser::{
        Condition, Distinct, Function, Literal, Operand, OrderKey, Selected, Syntax, What, parse, short,
    },
    plan::{Aggregate, Node, OrderPart, OutputColumn, Part, Plan, Test},
    schema::{Column, Schema, Table},
    value::{Cell, Kind},
};
use crate::{
    expression::{
        duration,
        error::{Fault, did_you_mean},
    },
    text::LabelKey,
    time::Timestamp,
};

const PATTERN_CHARS_MAX: usize = 256;

impl Plan {
    /// Reads a question about a schema, as of `now`.
    ///
    /// # Errors
    ///
    /// Says where the first thing is wrong, and what to write instead.
    pub fn check(text: &str, schema: &Schema, now: Timestamp) -> Result<Plan, QuestionError> {
        if text.len() > QUESTION_BYTES_MAX {
            let detail = format_args!("a question has at most {QUESTION_BYTES_MAX} bytes");
            return Err(Fault::new(0, detail).locate(""));
        }
        let plan = tokens(text)
            .and_then(|tokens| parse(&tokens))
            .and_then(|syntax| check(&syntax, schema, now));
        plan.map_err(|fault| fault.locate(text))
    }
}

/// Which columns may stand at a place of the question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Of a row, before anything is grouped.
    Row,
    /// Of a group: columns of GROUP BY, and aggregates.
    Group,
}

struct Checker<'s> {
    schema: &'s Schema,
    table: &'static Table,
    now: Timestamp,
    reads: BTreeSet<usize>,
    labels: Vec<LabelKey>,
    /// Parts of GROUP BY with their kinds.
    keys: Vec<(Part, Kind)>,
    aggregates: Vec<Aggregate>,
}

/// A part whose name and kind are known.
struct Typed {
    part: Part,
    kind: Kind,
    name: String,
    column: Option<&'static Column>,
}

fn check(syntax: &Syntax, schema: &Schema, now: Timestamp) -> Result<Plan, Fault> {
    let (at, name) = &syntax.table;
    let table = schema.table(name).ok_or_else(|| {
        let names: Vec<&str> = schema.tables.iter().map(|table| table.name).collect();
        let all = format!("there is {}", names.join(", "));
        Fault::new(
            *at,
            format_args!(
                "there is no table {}; {}",
                short(name),
                did_you_mean(name, names, &all)
            ),
        )
    })?;
    let mut checker = Checker {
        schema,
        table,
        now,
        reads: BTreeSet::new(),
        labels: Vec::new(),
        keys: Vec::new(),
        aggregates: Vec::new(),
    };
    let filter = match &syntax.filter {
        Some(filter) => Some(checker.condition(filter, Stage::Row)?),
        None => None,
    };
    for operand in &syntax.group_by {
        let key = checker.scalar(aliased(syntax, schema, table, operand), Stage::Row)?;
        checker.keys.push((key.part, key.kind));
    }
    let is_grouped = !syntax.group_by.is_empty() || syntax.having.is_some() || selects_aggregate(syntax);
    let stage = match is_grouped {
        true => Stage::Group,
        false => Stage::Row,
    };
    let columns = checker.columns(syntax, stage)?;
    let having = match &syntax.having {
        Some(having) => Some(checker.condition(having, stage)?),
        None => None,
    };
    let distinct = match syntax.distinct {
        true => Distinct::Different,
        false => Distinct::Every,
    };
    let mut order = Vec::new();
    for (key, direction) in &syntax.order_by {
        let (at, part, kind) = checker.order_part(syntax, &columns, key, stage)?;
        if distinct == Distinct::Different && !columns.iter().any(|column| column.part == part) {
            return Err(Fault::new(at, "with DISTINCT, ORDER BY takes what is selected"));
        }
        order.push(OrderPart {
            part,
            kind,
            direction: *direction,
        });
    }
    Ok(Plan {
        table,
        reads: checker.reads,
        labels: checker.labels,
        columns,
        filter,
        is_grouped,
        group_by: checker.keys.into_iter().map(|(part, _)| part).collect(),
        aggregates: checker.aggregates,
        having,
        order,
        distinct,
        limit: syntax.limit,
        offset: syntax.offset,
    })
}

/// The operand that a name in GROUP BY stands for, where it is the name of something selected.
fn aliased<'a>(syntax: &'a Syntax, schema: &Schema, table: &Table, operand: &'a Operand) -> &'a Operand {
    let What::Column(name) = &operand.what else {
        return operand;
    };
    if schema.place(table, name).is_some() {
        return operand;
    }
    let named = syntax.selected.iter().find_map(|selected| match selected {
        Selected::Item(item, Some((_, alias))) if alias == name => Some(item),
        Selected::Item(..) | Selected::Star(_) => None,
    });
    named.unwrap_or(operand)
}

fn selects_aggregate(syntax: &Syntax) -> bool {
    let is = |operand: &Operand| matches!(operand.what, What::Aggregate(..));
    let selected = syntax.selected.iter().any(|selected| match selected {
        Selected::Item(operand, _) => is(operand),
        Selected::Star(_) => false,
    });
    selected
        || syntax.order_by.iter().any(|(key, _)| match key {
            OrderKey::Operand(operand) => is(operand),
            OrderKey::Place(..) => false,
        })
}

impl Checker<'_> {
    fn columns(&mut self, syntax: &Syntax, stage: Stage) -> Result<Vec<OutputColumn>, Fault> {
        let mut columns = Vec::new();
        for selected in &syntax.selected {
            match selected {
                Selected::Star(at) => {
                    for name in self.table.star {
                        let operand = Operand {
                            at: *at,
                            what: What::Column((*name).to_owned()),
                        };
                        let typed = self.scalar(&operand, stage)?;
                        columns.push(output(typed, None));
                    }
                }
                Selected::Item(operand, alias) => {
                    let typed = self.scalar(operand, stage)?;
                    columns.push(output(typed, alias.as_ref().map(|(_, alias)| alias.clone())));
                }
            }
        }
        if columns.len() > SELECTED_MAX {
            return Err(Fault::new(
                0,
                format_args!("a question selects at most {SELECTED_MAX} columns"),
            ));
        }
        Ok(columns)
    }

    fn order_part(
        &mut self,
        syntax: &Syntax,
        columns: &[OutputColumn],
        key: &OrderKey,
        stage: Stage,
    ) -> Result<(usize, Part, Kind), Fault> {
        let operand = match key {
            OrderKey::Place(at, place) => {
                let index = usize::try_from(*place)
                    .ok()
                    .and_then(|place| place.checked_sub(1));
                let column = index.and_then(|index| columns.get(index)).ok_or_else(|| {
                    Fault::new(
                        *at,
                        format_args!(
                            "ORDER BY a number names a selected column, 1 to {}",
                            columns.len()
                        ),
                    )
                })?;
                return Ok((*at, column.part.clone(), column.kind));
            }
            OrderKey::Operand(operand) => operand,
        };
        if let What::Column(name) = &operand.what {
            let has_alias = syntax.selected.iter().any(|selected| match selected {
                Selected::Item(_, Some((_, alias))) => alias == name,
                Selected::Item(_, None) | Selected::Star(_) => false,
            });
            if let Some(column) = columns.iter().find(|column| has_alias && column.name == *name) {
                return Ok((operand.at, column.part.clone(), column.kind));
            }
        }
        let typed = self.scalar(operand, stage)?;
        Ok((operand.at, typed.part, typed.kind))
    }

    /// A column, a label or an aggregate.
    fn scalar(&mut self, operand: &Operand, stage: Stage) -> Result<Typed, Fault> {
        let at = operand.at;
        let typed = match &operand.what {
            What::Literal(_) => {
                return Err(Fault::new(
                    at,
                    "a column stands here, and a value behind the sign: WHERE platform = 'linux'",
                ));
            }
            What::Column(name) => self.column(at, name)?,
            What::Label(key) => self.label(at, key)?,
            What::Aggregate(..) if stage == Stage::Row => {
                return Err(Fault::new(
                    at,
                    "aggregates have no place here; conditions on them go behind HAVING",
                ));
            }
            What::Aggregate(function, distinct, of) => {
                return self.aggregate(at, *function, *distinct, of.as_deref());
            }
        };
        if stage == Stage::Row {
            return Ok(typed);
        }
        match self.keys.iter().position(|(part, _)| *part == typed.part) {
            Some(key) => Ok(Typed {
                part: Part::Key(key),
                ..typed
            }),
            None => {
                let name = &typed.name;
                Err(Fault::new(
                    at,
                    format_args!("{name} differs within a group; write GROUP BY {name}, or max({name})"),
                ))
            }
        }
    }

    fn column(&mut self, at: usize, name: &str) -> Result<Typed, Fault> {
        let place = self.schema.place(self.table, name);
        let column = place.and_then(|place| Some((place, self.schema.column(self.table, place)?)));
        let (place, column) = column.ok_or_else(|| self.unknown_column(at, name))?;
        self.reads.insert(place);
        Ok(Typed {
            part: Part::Column(place),
            kind: column.kind,
            name: column.name.to_owned(),
            column: Some(column),
        })
    }

    fn unknown_column(&self, at: usize, name: &str) -> Fault {
        let elsewhere = self
            .schema
            .tables
            .iter()
            .find(|table| table.columns.iter().any(|column| column.name == name));
        if let Some(table) = elsewhere {
            return Fault::new(
                at,
                format_args!(
                    "{name} is no column of {}; ask FROM {}",
                    self.table.name, table.name
                ),
            );
        }
        let names: Vec<&str> = self
            .schema
            .columns(self.table)
            .map(|column| column.name)
            .collect();
        let all = format!("there is {}", names.join(", "));
        let advice = did_you_mean(name, names, &all);
        Fault::new(
            at,
            format_args!("{} has no column {}; {advice}", self.table.name, short(name)),
        )
    }

    fn label(&mut self, at: usize, key: &str) -> Result<Typed, Fault> {
        let key = LabelKey::parse(key).map_err(|error| {
            Fault::new(
                at,
                format_args!("'{}' is no key of a label: it {error}", short(key)),
            )
        })?;
        let name = format!("label.{}", key.as_str());
        let known = self.labels.iter().position(|known| *known == key);
        let index = match known {
            Some(index) => index,
            None if self.labels.len() == LABELS_MAX => {
                return Err(Fault::new(
                    at,
                    format_args!("a question reads at most {LABELS_MAX} labels"),
                ));
            }
            None => {
                self.labels.push(key);
                self.labels.len() - 1
            }
        };
        Ok(Typed {
            part: Part::Label(index),
            kind: Kind::Text,
            name,
            column: None,
        })
    }

    fn aggregate(
        &mut self,
        at: usize,
        function: Function,
        distinct: Distinct,
        of: Option<&Operand>,
    ) -> Result<Typed, Fault> {
        let inner = of.map(|of| self.scalar(of, Stage::Row)).transpose()?;
        let word = function.as_str();
        let kind = match (function, &inner) {
            (Function::Count, _) => Kind::Int,
            (Function::Min | Function::Max, Some(inner)) => inner.kind,
            (Function::Sum, Some(inner)) if inner.kind.is_number() => inner.kind,
            (Function::Avg, Some(inner)) if inner.kind.is_number() => Kind::Real,
            (_, Some(inner)) => {
                let (name, kind) = (&inner.name, inner.kind.as_str());
                return Err(Fault::new(
                    at,
                    format_args!("{word} takes numbers, and {name} is a {kind}"),
                ));
            }
            (_, None) => return Err(Fault::new(at, format_args!("{word} takes a column"))),
        };
        let inside = inner.as_ref().map_or("*", |inner| inner.name.as_str());
        let name = match distinct {
            Distinct::Different => format!("{word}(distinct {inside})"),
            Distinct::Every => format!("{word}({inside})"),
        };
        let aggregate = Aggregate {
            function,
            distinct,
            of: inner.map(|inner| inner.part),
            kind,
        };
        let known = self.aggregates.iter().position(|known| *known == aggregate);
        let index = match known {
            Some(index) => index,
            None if self.aggregates.len() == AGGREGATES_MAX => {
                return Err(Fault::new(
                    at,
                    format_args!("a question has at most {AGGREGATES_MAX} aggregates"),
                ));
            }
            None => {
                self.aggregates.push(aggregate);
                self.aggregates.len() - 1
            }
        };
        Ok(Typed {
            part: Part::Aggregate(index),
            kind,
            name,
            column: None,
        })
    }

    fn condition(&mut self, condition: &Condition, stage: Stage) -> Result<Node, Fault> {
        Ok(match condition {
            Condition::And(parts) => Node::And(self.conditions(parts, stage)?),
            Condition::Or(parts) => Node::Or(self.conditions(parts, stage)?),
            Condition::Not(inner) => Node::Not(Box::new(self.condition(inner, stage)?)),
            Condition::Truth(operand) => {
                let typed = self.scalar(operand, stage)?;
                if typed.kind != Kind::Bool {
                    let detail = format!("{} is no condition; compare it, as in {0} = …", typed.name);
                    return Err(Fault::new(operand.at, detail));
                }
                Node::Truth(typed.part)
            }
            Condition::Compare(left, sign, right) => self.compare(left, sign, right, stage)?,
            Condition::In(left, values) => {
                let typed = self.scalar(left, stage)?;
                let values = values.iter().map(|value| self.value(value, &typed));
                let values = values.collect::<Result<_, _>>()?;
                Node::In(typed.part, values, typed.kind)
            }
            Condition::Like(left, pattern) => {
                let typed = self.scalar(left, stage)?;
                let What::Literal(Literal::Text(text)) = &pattern.what else {
                    return Err(Fault::new(
                        pattern.at,
                        "LIKE takes a text in which % stands for anything: LIKE 'win%'",
                    ));
                };
                if !matches!(typed.kind, Kind::Text | Kind::Version) {
                    let detail = format!(
                        "LIKE takes texts, and {} is a {}",
                        typed.name,
                        typed.kind.as_str()
                    );
                    return Err(Fault::new(left.at, detail));
                }
                if text.chars().count() > PATTERN_CHARS_MAX {
                    let detail = format!("a pattern has at most {PATTERN_CHARS_MAX} characters");
                    return Err(Fault::new(pattern.at, detail));
                }
                Node::Like(typed.part, text.clone())
            }
            Condition::IsNull(operand) => Node::IsNull(self.scalar(operand, stage)?.part),
        })
    }

    fn conditions(&mut self, parts: &[Condition], stage: Stage) -> Result<Vec<Node>, Fault> {
        parts.iter().map(|part| self.condition(part, stage)).collect()
    }

    fn compare(&mut self, left: &Operand, sign: &str, right: &Operand, stage: Stage) -> Result<Node, Fault> {
        let test = match sign {
            "=" => Test::Equal,
            "!=" => Test::Different,
            "<" => Test::Less,
            "<=" => Test::AtMost,
            ">" => Test::More,
            _ => Test::AtLeast,
        };
        match (&left.what, &right.what) {
            (What::Literal(_), What::Literal(_)) => Err(Fault::new(
                left.at,
                "two values are compared; one of them has to be a column",
            )),
            (What::Literal(_), _) => {
                let typed = self.scalar(right, stage)?;
                let value = self.value(left, &typed)?;
                Ok(Node::Compare(Part::Literal(value), test, typed.part, typed.kind))
            }
            (_, What::Literal(_)) => {
                let typed = self.scalar(left, stage)?;
                let value = self.value(right, &typed)?;
                Ok(Node::Compare(typed.part, test, Part::Literal(value), typed.kind))
            }
            _ => {
                let (a, b) = (self.scalar(left, stage)?, self.scalar(right, stage)?);
                let fits = a.kind == b.kind || (a.kind.is_number() && b.kind.is_number());
                if !fits {
                    let (first, second) = (a.kind.as_str(), b.kind.as_str());
                    let detail = format!(
                        "{} is a {first} and {} a {second}: they do not compare",
                        a.name, b.name
                    );
                    return Err(Fault::new(right.at, detail));
                }
                Ok(Node::Compare(a.part, test, b.part, a.kind))
            }
        }
    }

    /// A value to compare a part with.
    fn value(&self, operand: &Operand, with: &Typed) -> Result<Cell, Fault> {
        let What::Literal(literal) = &operand.what else {
            return Err(Fault::new(
                operand.at,
                "IN takes values, as in IN ('linux', 'macos')",
            ));
        };
        let at = operand.at;
        match (literal, with.kind) {
            (Literal::Null, _) => Err(Fault::new(
                at,
                format_args!("nothing equals NULL; write {} IS NULL or IS NOT NULL", with.name),
            )),
            (Literal::Text(text), Kind::Text | Kind::Version) => {
                known_word(at, text, with)?;
                Ok(Cell::Text(text.as_str().into()))
            }
            (Literal::Text(text), Kind::Time) => time(at, text),
            (Literal::Now, Kind::Time) => Ok(Cell::Time(self.now.as_micros())),
            (Literal::Ago(span), Kind::Time) => {
                let micros = span_micros(span).ok_or_else(|| {
                    Fault::new(
                        at,
                        "a span is a number and its unit: '90s', '30m', '12h', '7d', '4w'",
                    )
                })?;
                Ok(Cell::Time(self.now.as_micros().saturating_sub(micros)))
            }
            (Literal::Int(number), Kind::Int) => Ok(Cell::Int(*number)),
            (Literal::Int(number), Kind::Real) => Ok(Cell::Real(*number as f64)),
            (Literal::Real(number), Kind::Int | Kind::Real) => Ok(Cell::Real(*number)),
            (Literal::Bool(value), Kind::Bool) => Ok(Cell::Bool(*value)),
            (_, kind) => {
                let advice = match kind {
                    Kind::Text => "write 'text'",
                    Kind::Version => "write '12.4'",
                    Kind::Int | Kind::Real => "write a number without quotes",
                    Kind::Bool => "write true or false",
                    Kind::Time => "write '2026-11-01', '2026-11-01T08:00:00Z' or ago('7d')",
                };
                let kind = kind.as_str();
                Err(Fault::new(
                    at,
                    format_args!("{} is a {kind}; {advice}", with.name),
                ))
            }
        }
    }
}

fn output(typed: Typed, alias: Option<String>) -> OutputColumn {
    OutputColumn {
        name: alias.unwrap_or(typed.name),
        kind: typed.kind,
        part: typed.part,
    }
}

/// Refuses a word that a column can never be, such as the platform `Linux`.
fn known_word(at: usize, text: &str, with: &Typed) -> Result<(), Fault> {
    let words = with.column.map_or(&[][..], |column| column.words);
    if words.is_empty() || words.contains(&text) {
        return Ok(());
    }
    let all = format!("it is one of {}", words.join(", "));
    let advice = did_you_mean(text, words.iter().copied(), &all);
    Err(Fault::new(
        at,
        format_args!("{} is never '{}'; {advice}", with.name, short(text)),
    ))
}

fn time(at: usize, text: &str) -> Result<Cell, Fault> {
    let forms = [
        text.to_owned(),
        format!("{text}T00:00:00Z"),
        text.replacen(' ', "T", 1) + "Z",
        text.replacen(' ', "T", 1) + ":00Z",
    ];
    let read = forms.iter().find_map(|form| form.parse::<Timestamp>().ok());
    read.map(|time| Cell::Time(time.as_micros())).ok_or_else(|| {
        Fault::new(
            at,
            "a time is '2026-11-01' or '2026-11-01T08:00:00Z' in UTC, or ago('7d')",
        )
    })
}

/// Days and weeks, and what durations are written in elsewhere.
fn span_micros(text: &str) -> Option<i64> {
    const DAY_MICROS: i64 = 86_400 * 1_000_000;
    let days = |text: &str, days: i64| {
        let count = i64::from(text.parse::<u32>().ok()?);
        count.checked_mul(days * DAY_MICROS)
    };
    if let Some(weeks) = text.strip_suffix('w') {
        return days(weeks, 7);
    }
    if let Some(whole) = text.strip_suffix('d') {
        return days(whole, 1);
    }
    duration::parse(text).filter(|micros| *micros >= 0)
}
