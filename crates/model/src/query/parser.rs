//! The grammar: tokens to a syntax tree, before names and kinds are known.

use super::{
    COMPARISONS_MAX, DEPTH_MAX, KEYS_MAX, LIST_MAX, SELECTED_MAX,
    lexer::{Placed, Token},
};
use crate::expression::error::{Fault, did_you_mean};

/// What a question says.
#[derive(Debug)]
pub(super) struct Syntax {
    pub distinct: bool,
    pub selected: Vec<Selected>,
    pub table: (usize, String),
    pub filter: Option<Condition>,
    pub group_by: Vec<Operand>,
    pub having: Option<Condition>,
    pub order_by: Vec<(OrderKey, Direction)>,
    pub limit: Option<u64>,
    pub offset: u64,
}

#[derive(Debug)]
pub(super) enum Selected {
    Star(usize),
    Item(Operand, Option<(usize, String)>),
}

#[derive(Debug)]
pub(super) enum OrderKey {
    Operand(Operand),
    /// The place of a selected item, from 1.
    Place(usize, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub at: usize,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Column(String),
    Label(String),
    Aggregate(Function, Distinct, Option<Box<Operand>>),
    Literal(Literal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distinct {
    Every,
    Different,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(String),
    /// A span before now, as it was written.
    Ago(String),
    Now,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Count,
    Min,
    Max,
    Sum,
    Avg,
}

impl Function {
    const ALL: [Function; 5] = [
        Function::Count,
        Function::Min,
        Function::Max,
        Function::Sum,
        Function::Avg,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Min => "min",
            Function::Max => "max",
            Function::Sum => "sum",
            Function::Avg => "avg",
        }
    }
}

#[derive(Debug)]
pub(super) enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Truth(Operand),
    Compare(Operand, &'static str, Operand),
    In(Operand, Vec<Operand>),
    Like(Operand, Operand),
    IsNull(Operand),
}

/// Words that no name can be.
const RESERVED: &[&str] = &[
    "select", "distinct", "from", "where", "group", "by", "having", "order", "limit", "offset", "and", "or",
    "not", "in", "like", "is", "null", "between", "as", "asc", "desc", "true", "false", "join", "union",
    "on",
];

/// Reads a question.
pub(super) fn parse(tokens: &[Placed]) -> Result<Syntax, Fault> {
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        comparisons: 0,
    };
    parser.question()
}

struct Parser<'a> {
    tokens: &'a [Placed],
    next: usize,
    depth: usize,
    comparisons: usize,
}

impl Parser<'_> {
    fn question(&mut self) -> Result<Syntax, Fault> {
        if !self.word("select") {
            return Err(self.no_select());
        }
        let distinct = self.word("distinct");
        let selected = self.listed(SELECTED_MAX, "columns", Parser::selected)?;
        self.expect("from", "FROM and a table, as in FROM devices")?;
        let table = self.name("a table")?;
        self.no_join()?;
        let filter = self.word("where").then(|| self.condition()).transpose()?;
        let mut group_by = Vec::new();
        if self.word("group") {
            self.expect("by", "BY after GROUP")?;
            group_by = self.listed(KEYS_MAX, "columns of GROUP BY", Parser::operand)?;
        }
        let having = self.word("having").then(|| self.condition()).transpose()?;
        let mut order_by = Vec::new();
        if self.word("order") {
            self.expect("by", "BY after ORDER")?;
            order_by = self.listed(KEYS_MAX, "columns of ORDER BY", Parser::order_key)?;
        }
        let limit = self.word("limit").then(|| self.count("LIMIT")).transpose()?;
        let offset = match self.word("offset") {
            true => self.count("OFFSET")?,
            false => 0,
        };
        self.sign(";");
        match self.token() {
            Token::End => {}
            _ => return Err(self.unexpected("the end of the question")),
        }
        Ok(Syntax {
            distinct,
            selected,
            table,
            filter,
            group_by,
            having,
            order_by,
            limit,
            offset,
        })
    }

    fn no_select(&self) -> Fault {
        match self.token() {
            Token::Word(word)
                if [
                    "insert", "update", "delete", "drop", "create", "alter", "with", "pragma", "attach",
                ]
                .contains(&word.to_ascii_lowercase().as_str()) =>
            {
                self.fault("a question begins with SELECT; it reads, and can change nothing")
            }
            _ => self.fault("a question begins with SELECT, as in SELECT device, os_version FROM devices"),
        }
    }

    fn no_join(&self) -> Result<(), Fault> {
        let joins = [
            "join", "inner", "left", "right", "cross", "natural", "using", "on",
        ];
        let is_join =
            matches!(self.token(), Token::Word(word) if joins.contains(&word.to_ascii_lowercase().as_str()));
        if is_join || *self.token() == Token::Sign(",") {
            return Err(self.fault(
                "a question asks one table; no join is needed, every table has the columns of its device",
            ));
        }
        Ok(())
    }

    fn selected(&mut self) -> Result<Selected, Fault> {
        if *self.token() == Token::Sign("*") {
            let at = self.at();
            self.next += 1;
            return Ok(Selected::Star(at));
        }
        let operand = self.operand()?;
        let named = self.word("as") || matches!(self.token(), Token::Word(word) if !is_reserved(word));
        let alias = named.then(|| self.name("a name after AS")).transpose()?;
        Ok(Selected::Item(operand, alias))
    }

    fn order_key(&mut self) -> Result<(OrderKey, Direction), Fault> {
        let key = match self.token() {
            Token::Int(place) => {
                let key = OrderKey::Place(self.at(), *place);
                self.next += 1;
                key
            }
            _ => OrderKey::Operand(self.operand()?),
        };
        let direction = match self.word("desc") {
            true => Direction::Descending,
            false => {
                self.word("asc");
                Direction::Ascending
            }
        };
        Ok((key, direction))
    }

    fn condition(&mut self) -> Result<Condition, Fault> {
        let first = self.conjunction()?;
        let mut parts = vec![first];
        while self.word("or") {
            parts.push(self.conjunction()?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Condition::Or(parts),
        })
    }

    fn conjunction(&mut self) -> Result<Condition, Fault> {
        let mut parts = vec![self.negation()?];
        while self.word("and") {
            parts.push(self.negation()?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Condition::And(parts),
        })
    }

    fn negation(&mut self) -> Result<Condition, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fault(format_args!(
                "at most {DEPTH_MAX} brackets and NOTs go into each other"
            )));
        }
        let condition = if self.word("not") {
            Condition::Not(Box::new(self.negation()?))
        } else if self.sign("(") {
            if matches!(self.token(), Token::Word(word) if word.eq_ignore_ascii_case("select")) {
                return Err(
                    self.fault("there are no questions within questions; name the values: IN ('a', 'b')")
                );
            }
            let inner = self.condition()?;
            self.expect_sign(")")?;
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Condition, Fault> {
        self.comparisons += 1;
        if self.comparisons > COMPARISONS_MAX {
            return Err(self.fault(format_args!(
                "a question makes at most {COMPARISONS_MAX} comparisons"
            )));
        }
        let left = self.operand()?;
        if let Token::Sign(sign @ ("=" | "!=" | "<" | "<=" | ">" | ">=")) = *self.token() {
            self.next += 1;
            let right = self.operand()?;
            return Ok(Condition::Compare(left, sign, right));
        }
        if self.word("is") {
            let negated = self.word("not");
            self.expect("null", "NULL, as in IS NULL or IS NOT NULL")?;
            return Ok(negate(negated, Condition::IsNull(left)));
        }
        let negated = self.word("not");
        if self.word("in") {
            self.expect_sign("(")?;
            let values = self.listed(LIST_MAX, "values of IN", Parser::operand)?;
            self.expect_sign(")")?;
            return Ok(negate(negated, Condition::In(left, values)));
        }
        if self.word("like") {
            let pattern = self.operand()?;
            return Ok(negate(negated, Condition::Like(left, pattern)));
        }
        if self.word("between") {
            let low = self.operand()?;
            self.expect("and", "AND between both ends of BETWEEN")?;
            let high = self.operand()?;
            let within = vec![
                Condition::Compare(left.clone(), ">=", low),
                Condition::Compare(left, "<=", high),
            ];
            return Ok(negate(negated, Condition::And(within)));
        }
        match negated {
            true => Err(self.unexpected("IN, LIKE or BETWEEN after NOT")),
            false => Ok(Condition::Truth(left)),
        }
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let at = self.at();
        let what = match self.token().clone() {
            Token::Text(text) => self.literal(Literal::Text(text)),
            Token::Int(number) => self.literal(Literal::Int(number)),
            Token::Real(number) => self.literal(Literal::Real(number)),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "null" => self.literal(Literal::Null),
                "true" => self.literal(Literal::Bool(true)),
                "false" => self.literal(Literal::Bool(false)),
                _ if is_reserved(&word) => return Err(self.unexpected("a column or a value")),
                lower => {
                    self.next += 1;
                    match self.sign("(") {
                        true => self.call(at, lower)?,
                        false => What::Column(lower.to_owned()),
                    }
                }
            },
            Token::Sign(_) | Token::End => return Err(self.unexpected("a column or a value")),
        };
        Ok(Operand { at, what })
    }

    fn literal(&mut self, literal: Literal) -> What {
        self.next += 1;
        What::Literal(literal)
    }

    /// What follows a name and its bracket.
    fn call(&mut self, at: usize, name: &str) -> Result<What, Fault> {
        let what = match name {
            "label" => What::Label(self.text("the key of a label, as in label('site')")?),
            "ago" => What::Literal(Literal::Ago(self.text("a span, as in ago('7d')")?)),
            "now" => What::Literal(Literal::Now),
            _ => {
                let known = Function::ALL
                    .into_iter()
                    .find(|function| function.as_str() == name);
                let function = known.ok_or_else(|| {
                    let names = Function::ALL.map(Function::as_str).into_iter();
                    let names = names.chain(["label", "ago", "now"]);
                    let all = "there is count, min, max, sum, avg, label, ago and now";
                    Fault::new(
                        at,
                        format_args!(
                            "there is no {}(…); {}",
                            short(name),
                            did_you_mean(name, names, all)
                        ),
                    )
                })?;
                if function == Function::Count && self.sign("*") {
                    What::Aggregate(function, Distinct::Every, None)
                } else {
                    let distinct = match self.word("distinct") {
                        true => Distinct::Different,
                        false => Distinct::Every,
                    };
                    let inner_at = self.at();
                    let inner = match self.token().clone() {
                        Token::Word(word) if word.eq_ignore_ascii_case("label") => {
                            self.next += 1;
                            self.expect_sign("(")?;
                            let what = self.call(inner_at, "label")?;
                            Operand { at: inner_at, what }
                        }
                        _ => {
                            let (at, name) = self.name("a column")?;
                            Operand {
                                at,
                                what: What::Column(name),
                            }
                        }
                    };
                    What::Aggregate(function, distinct, Some(Box::new(inner)))
                }
            }
        };
        self.expect_sign(")")?;
        Ok(what)
    }

    fn text(&mut self, what: &str) -> Result<String, Fault> {
        match self.token().clone() {
            Token::Text(text) => {
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    fn count(&mut self, what: &str) -> Result<u64, Fault> {
        let count = match self.token() {
            Token::Int(count) => u64::try_from(*count).ok(),
            _ => None,
        };
        let count = count.ok_or_else(|| self.unexpected(&format!("a whole number after {what}")))?;
        self.next += 1;
        Ok(count)
    }

    fn name(&mut self, what: &str) -> Result<(usize, String), Fault> {
        let at = self.at();
        match self.token() {
            Token::Word(word) if !is_reserved(word) => {
                let name = word.to_ascii_lowercase();
                self.next += 1;
                Ok((at, name))
            }
            _ => Err(self.unexpected(what)),
        }
    }

    fn listed<T>(
        &mut self,
        most: usize,
        what: &str,
        mut part: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut parts = vec![part(self)?];
        while self.sign(",") {
            if parts.len() == most {
                return Err(self.fault(format_args!("there are at most {most} {what}")));
            }
            parts.push(part(self)?);
        }
        Ok(parts)
    }

    fn token(&self) -> &Token {
        self.tokens
            .get(self.next)
            .map_or(&Token::End, |placed| &placed.token)
    }

    fn at(&self) -> usize {
        let last = self.tokens.last().map_or(0, |placed| placed.at);
        self.tokens.get(self.next).map_or(last, |placed| placed.at)
    }

    /// Takes the word if it comes next.
    fn word(&mut self, wanted: &str) -> bool {
        let is = matches!(self.token(), Token::Word(word) if word.eq_ignore_ascii_case(wanted));
        self.next += usize::from(is);
        is
    }

    fn sign(&mut self, wanted: &str) -> bool {
        let is = matches!(self.token(), Token::Sign(sign) if *sign == wanted);
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, word: &str, what: &str) -> Result<(), Fault> {
        match self.word(word) {
            true => Ok(()),
            false => Err(self.unexpected(what)),
        }
    }

    fn expect_sign(&mut self, sign: &str) -> Result<(), Fault> {
        match self.sign(sign) {
            true => Ok(()),
            false => Err(self.unexpected(sign)),
        }
    }

    fn fault(&self, detail: impl std::fmt::Display) -> Fault {
        Fault::new(self.at(), detail)
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        match self.token() {
            Token::End => self.fault(format_args!("the question ends here; {wanted} is missing")),
            Token::Word(word) => {
                let words = ["where", "group", "having", "order", "limit", "offset", "from"];
                let advice = did_you_mean(word, words, &format!("{wanted} was expected"));
                self.fault(format_args!("{} does not fit here; {advice}", short(word)))
            }
            Token::Text(text) => self.fault(format_args!(
                "'{}' does not fit here; {wanted} was expected",
                short(text)
            )),
            Token::Int(_) | Token::Real(_) => {
                self.fault(format_args!("a number does not fit here; {wanted} was expected"))
            }
            Token::Sign(sign) => self.fault(format_args!("{sign} does not fit here; {wanted} was expected")),
        }
    }
}

fn negate(negated: bool, condition: Condition) -> Condition {
    match negated {
        true => Condition::Not(Box::new(condition)),
        false => condition,
    }
}

fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word.to_ascii_lowercase().as_str())
}

/// As much of a text as an error repeats.
pub(super) fn short(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    text.chars()
        .filter(|character| !character.is_control())
        .take(CHARS_MAX)
        .collect()
}
