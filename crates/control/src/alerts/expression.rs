//! The expressions of rules: comparisons of signals with numbers, joined by `and`, `or`, `not` and parentheses. Pure.
//!
//! ```text
//! expression = conjunction { "or" conjunction }
//! conjunction = negation { "and" negation }
//! negation = "not" negation | "(" expression ")" | signal ( ">" | ">=" | "<" | "<=" | "==" | "!=" ) number [ unit ]
//! unit = "%" | "s" | "m" | "h" | "d"
//! ```
//!
//! A number has the unit of its signal, or there is no expression: `expires_in < 30` and `devices > 5%` are refused when they are
//! written, not when they should have fired. What compares an absent signal is unknown, and stays unknown unless the rest
//! decides alone (Kleene's logic).

use super::signal::{ObjectReadings, Of, Readings, Signal, Unit};

/// The longest expression.
pub const EXPRESSION_BYTES_MAX: usize = 512;
/// How deep parentheses and `not` may nest.
const DEPTH_MAX: usize = 16;

/// Yes, no, or nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Compare(Signal, Comparison, f64),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
}

/// An expression that was read and whose units fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    root: Node,
    of: Of,
    /// The signal that is compared first: the one that people are shown.
    first: Signal,
}

/// Why a text is no expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} (at character {at})")]
pub struct ExpressionError {
    pub why: String,
    /// From 1.
    pub at: usize,
}

impl Expression {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionError {
                why: format!("an expression has at most {EXPRESSION_BYTES_MAX} bytes"),
                at: EXPRESSION_BYTES_MAX,
            });
        }
        let mut parser = Parser {
            text,
            at: 0,
            of: Of::Tenant,
            first: None,
        };
        let root = parser.disjunction(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.error("`and`, `or` or the end is expected"));
        }
        let first = parser.first.expect("every expression compares a signal");
        Ok(Expression {
            root,
            of: parser.of,
            first,
        })
    }

    /// What the rule looks at: the tenant as a whole, or each object of a kind.
    pub fn of(&self) -> Of {
        self.of
    }

    /// The signal that is compared first.
    pub fn first(&self) -> Signal {
        self.first
    }

    /// Whether it holds, of the tenant or of one object.
    pub fn holds(&self, readings: &Readings, object: Option<&ObjectReadings>) -> Truth {
        self.root.holds(readings, object)
    }
}

impl Node {
    fn holds(&self, readings: &Readings, object: Option<&ObjectReadings>) -> Truth {
        match self {
            Node::Compare(signal, comparison, limit) => match readings.value(*signal, object) {
                Some(value) if value.is_finite() => truth(comparison.holds(value, *limit)),
                Some(_) | None => Truth::Unknown,
            },
            Node::Not(inner) => match inner.holds(readings, object) {
                Truth::Yes => Truth::No,
                Truth::No => Truth::Yes,
                Truth::Unknown => Truth::Unknown,
            },
            Node::And(left, right) => match (left.holds(readings, object), right.holds(readings, object)) {
                (Truth::No, _) | (_, Truth::No) => Truth::No,
                (Truth::Yes, Truth::Yes) => Truth::Yes,
                (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
            },
            Node::Or(left, right) => match (left.holds(readings, object), right.holds(readings, object)) {
                (Truth::Yes, _) | (_, Truth::Yes) => Truth::Yes,
                (Truth::No, Truth::No) => Truth::No,
                (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
            },
        }
    }
}

impl Comparison {
    #[expect(
        clippy::float_cmp,
        reason = "counts are whole numbers, and whoever compares them means exactly"
    )]
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Comparison::Above => value > limit,
            Comparison::AtLeast => value >= limit,
            Comparison::Below => value < limit,
            Comparison::AtMost => value <= limit,
            Comparison::Equal => value == limit,
            Comparison::Unequal => value != limit,
        }
    }
}

const fn truth(holds: bool) -> Truth {
    if holds { Truth::Yes } else { Truth::No }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    of: Of,
    first: Option<Signal>,
}

impl<'a> Parser<'a> {
    fn disjunction(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        let mut node = self.conjunction(depth)?;
        while self.word("or") {
            node = Node::Or(Box::new(node), Box::new(self.conjunction(depth)?));
        }
        Ok(node)
    }

    fn conjunction(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        let mut node = self.negation(depth)?;
        while self.word("and") {
            node = Node::And(Box::new(node), Box::new(self.negation(depth)?));
        }
        Ok(node)
    }

    fn negation(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        if depth >= DEPTH_MAX {
            return Err(self.error("it is nested too deep"));
        }
        if self.word("not") {
            return Ok(Node::Not(Box::new(self.negation(depth + 1)?)));
        }
        self.skip_space();
        if self.eat("(") {
            let inner = self.disjunction(depth + 1)?;
            self.skip_space();
            if !self.eat(")") {
                return Err(self.error("`)` is expected"));
            }
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, ExpressionError> {
        let signal = self.signal()?;
        self.skip_space();
        let operators = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        let found = operators.into_iter().find(|(text, _)| self.eat(text));
        let Some((_, comparison)) = found else {
            return Err(self.error("a comparison such as `>` is expected"));
        };
        let limit = self.number(signal)?;
        self.first.get_or_insert(signal);
        Ok(Node::Compare(signal, comparison, limit))
    }

    fn signal(&mut self) -> Result<Signal, ExpressionError> {
        self.skip_space();
        let name = self.while_of(|c| c.is_ascii_alphanumeric() || c == '_');
        let Some(signal) = Signal::parse(name) else {
            self.at -= name.len();
            return Err(self.error("the name of a signal is expected; GET /alert-signals lists them"));
        };
        match (self.of, signal.of()) {
            (_, Of::Tenant) => {}
            (Of::Tenant, of) => self.of = of,
            (one, other) if one == other => {}
            (
                Of::Expiring | Of::Destination | Of::Secret | Of::Sink,
                Of::Expiring | Of::Destination | Of::Secret | Of::Sink,
            ) => {
                self.at -= name.len();
                return Err(self.error("signals of two kinds of objects cannot be mixed"));
            }
        }
        Ok(signal)
    }

    fn number(&mut self, signal: Signal) -> Result<f64, ExpressionError> {
        self.skip_space();
        let start = self.at;
        let digits = self.while_of(|c| c.is_ascii_digit() || c == '.');
        let number: f64 = match digits.parse() {
            Ok(number) if digits.starts_with(|c: char| c.is_ascii_digit()) => number,
            _ => {
                self.at = start;
                return Err(self.error("a number is expected"));
            }
        };
        let unit = self.while_of(|c| c.is_ascii_alphabetic() || c == '%');
        let factor = match (signal.unit(), unit) {
            (Unit::Count, "") | (Unit::Seconds, "s") => 1.0,
            (Unit::Ratio, "%") => 0.01,
            (Unit::Seconds, "m") => 60.0,
            (Unit::Seconds, "h") => 3600.0,
            (Unit::Seconds, "d") => 86_400.0,
            (wanted, _) => {
                let how = match wanted {
                    Unit::Count => "a plain number",
                    Unit::Ratio => "a percentage such as 0.2%",
                    Unit::Seconds => "a time such as 30s, 5m, 2h or 30d",
                };
                self.at = start;
                return Err(self.error(&format!("{} is compared with {how}", signal.name())));
            }
        };
        Ok(number * factor)
    }

    /// Takes a word that stands alone.
    fn word(&mut self, word: &str) -> bool {
        let before = self.at;
        self.skip_space();
        let rest = &self.text[self.at..];
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if rest.strip_prefix(word).is_some_and(ends) {
            self.at += word.len();
            return true;
        }
        self.at = before;
        false
    }

    fn eat(&mut self, text: &str) -> bool {
        let is_there = self.text[self.at..].starts_with(text);
        if is_there {
            self.at += text.len();
        }
        is_there
    }

    fn while_of(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_space(&mut self) {
        self.while_of(char::is_whitespace);
    }

    fn error(&self, why: &str) -> ExpressionError {
        ExpressionError {
            why: why.to_owned(),
            at: self.text[..self.at].chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(values: &[(Signal, f64)]) -> Readings {
        Readings {
            tenant: values.iter().copied().collect(),
            ..Readings::default()
        }
    }

    #[track_caller]
    fn check(text: &str, values: &[(Signal, f64)], wanted: Truth) {
        let expression = Expression::parse(text).expect("it is an expression");
        assert_eq!(expression.holds(&readings(values), None), wanted, "{text}");
    }

    #[test]
    fn numbers_have_the_unit_of_their_signal() {
        check(
            "enrollment_failure_rate_1h > 0.2%",
            &[(Signal::EnrollmentFailureRate, 0.003)],
            Truth::Yes,
        );
        check(
            "enrollment_failure_rate_1h > 0.2%",
            &[(Signal::EnrollmentFailureRate, 0.001)],
            Truth::No,
        );
        check(
            "command_queue_latency_p99 >= 0.5m",
            &[(Signal::QueueLatency, 30.0)],
            Truth::Yes,
        );
        for wrong in [
            "devices > 5%",
            "command_queue_latency_p99 > 30",
            "enrollment_failure_rate_1h > 0.002",
            "devices > 1d",
        ] {
            assert!(Expression::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_absent_signal_is_unknown_unless_the_rest_decides() {
        let known = [(Signal::Devices, 3.0)];
        check("enrollment_failure_rate_1h > 0.2%", &known, Truth::Unknown);
        check("not enrollment_failure_rate_1h > 0.2%", &known, Truth::Unknown);
        check(
            "enrollment_failure_rate_1h > 0.2% and devices > 5",
            &known,
            Truth::No,
        );
        check(
            "enrollment_failure_rate_1h > 0.2% or devices < 5",
            &known,
            Truth::Yes,
        );
        check(
            "enrollment_failure_rate_1h > 0.2% and devices < 5",
            &known,
            Truth::Unknown,
        );
        check("devices > 1", &[(Signal::Devices, f64::NAN)], Truth::Unknown);
    }

    #[test]
    fn and_binds_stronger_than_or() {
        let known = [(Signal::Devices, 3.0), (Signal::Quarantined, 0.0)];
        check(
            "devices == 3 or devices == 4 and devices_quarantined > 5",
            &known,
            Truth::Yes,
        );
        check(
            "(devices == 3 or devices == 4) and devices_quarantined > 5",
            &known,
            Truth::No,
        );
        check("not (devices != 3)", &known, Truth::Yes);
    }

    #[test]
    fn an_error_says_where() {
        let at = |text: &str| Expression::parse(text).map(drop).map_err(|error| error.at);
        assert_eq!(at("devices > 1 and nothing > 2"), Err(17));
        assert_eq!(at("devices 5"), Err(9));
        assert_eq!(at("(devices > 5"), Err(13));
        assert_eq!(at(""), Err(1));
        assert_eq!(at("devices > 5 devices"), Err(13));
        assert!(Expression::parse("expires_in < 30d and dead_letters_24h > 1").is_err());
        assert!(Expression::parse(&"not ".repeat(40)).is_err());
        assert!(Expression::parse(&"(".repeat(400)).is_err());
    }

    #[test]
    fn an_expression_knows_what_it_is_of() {
        let of = |text: &str| Expression::parse(text).map(|expression| expression.of());
        assert_eq!(of("devices > 1"), Ok(Of::Tenant));
        assert_eq!(of("devices > 1 and expires_in < 30d"), Ok(Of::Expiring));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,120}") {
            let _ = Expression::parse(&text);
        }

        #[test]
        fn no_almost_expression_makes_the_parser_panic(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["devices", "expires_in", ">", "<=", "5", "30d", "0.2%", "and", "or", "not", "(", ")", " ", "é", "."]),
                0..40,
            )
        ) {
            let _ = Expression::parse(&parts.concat());
        }
    }
}
