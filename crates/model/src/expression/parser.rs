//! Tokens to a syntax tree (cel-spec, "Syntax"): precedence only, no names and no types.

use super::{
    DEPTH_MAX, LIST_ITEMS_MAX, NODES_MAX,
    error::Fault,
    lexer::{Token, TokenKind},
};

/// A node of the syntax tree and the byte offset where people look for it.
#[derive(Debug)]
pub(super) struct Ast {
    pub(super) at: usize,
    depth: usize,
    pub(super) kind: AstKind,
}

#[derive(Debug)]
pub(super) enum AstKind {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Ast>),
    Name(String),
    Field(Box<Ast>, String),
    Index(Box<Ast>, Box<Ast>),
    Call {
        target: Option<Box<Ast>>,
        name: String,
        arguments: Vec<Ast>,
    },
    Not(Box<Ast>),
    Negate(Box<Ast>),
    /// A relation or an arithmetic operator.
    Binary(&'static str, Box<Ast>, Box<Ast>),
    All(Vec<Ast>),
    Any(Vec<Ast>),
    Choose(Box<[Ast; 3]>),
}

const RELATIONS: &[&str] = &["==", "!=", "<", "<=", ">", ">=", "in"];
const SUMS: &[&str] = &["+", "-"];
const PRODUCTS: &[&str] = &["*", "/", "%"];

/// Reads all tokens as one expression.
pub(super) fn parse(tokens: Vec<Token>) -> Result<Ast, Fault> {
    let mut parser = Parser {
        tokens,
        next: 0,
        nodes: 0,
        nesting: 0,
    };
    if parser.peek() == &TokenKind::End {
        return Err(Fault::new(
            0,
            "the expression is empty; write a condition, or true",
        ));
    }
    let ast = parser.expression()?;
    match parser.peek() {
        TokenKind::End => Ok(ast),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    /// Ends with [`TokenKind::End`], which is never taken.
    tokens: Vec<Token>,
    next: usize,
    nodes: usize,
    nesting: usize,
}

impl Parser {
    fn peek(&self) -> &TokenKind {
        &self.tokens[self.next].kind
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn take(&mut self, symbol: &'static str) -> bool {
        let taken = self.peek() == &TokenKind::Symbol(symbol);
        self.next += usize::from(taken);
        taken
    }

    fn take_any(&mut self, symbols: &[&'static str]) -> Option<&'static str> {
        let TokenKind::Symbol(symbol) = *self.peek() else {
            return None;
        };
        let taken = symbols.contains(&symbol).then_some(symbol);
        self.next += usize::from(taken.is_some());
        taken
    }

    fn expect(&mut self, symbol: &'static str, why: &str) -> Result<(), Fault> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(Fault::new(
                self.at(),
                format_args!("a {symbol} is missing here: {why}"),
            ))
        }
    }

    fn unexpected(&self) -> Fault {
        let before = self.next.checked_sub(1).map(|before| &self.tokens[before]);
        if let Some(Token {
            at,
            kind: TokenKind::Name(word),
        }) = before
            && word.eq_ignore_ascii_case("not")
        {
            return Fault::new(*at, "write ! for \"not\"");
        }
        let detail = match self.peek() {
            TokenKind::Name(word) if word.eq_ignore_ascii_case("and") => "write && for \"and\"".to_owned(),
            TokenKind::Name(word) if word.eq_ignore_ascii_case("or") => "write || for \"or\"".to_owned(),
            TokenKind::Name(word) => {
                format!("{} cannot stand here; join conditions with && or ||", shown(word))
            }
            TokenKind::Int(number) => format!("{number} cannot stand here; an operator is missing before it"),
            TokenKind::Text(_) => "a text cannot stand here; an operator is missing before it".to_owned(),
            TokenKind::Symbol(symbol) => format!("{symbol} cannot stand here; a value is missing before it"),
            TokenKind::End => "the expression ends too early; a value is missing".to_owned(),
        };
        Fault::new(self.at(), detail)
    }

    fn node(&mut self, at: usize, kind: AstKind) -> Result<Ast, Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let detail = format!("an expression has at most {NODES_MAX} parts; make several rules of it");
            return Err(Fault::new(at, detail));
        }
        let depth = 1 + match &kind {
            AstKind::Bool(_) | AstKind::Int(_) | AstKind::Text(_) | AstKind::Name(_) => 0,
            AstKind::List(items) | AstKind::All(items) | AstKind::Any(items) => deepest(items),
            AstKind::Field(inner, _) | AstKind::Not(inner) | AstKind::Negate(inner) => inner.depth,
            AstKind::Index(left, right) | AstKind::Binary(_, left, right) => left.depth.max(right.depth),
            AstKind::Call {
                target, arguments, ..
            } => deepest(arguments).max(target.as_ref().map_or(0, |target| target.depth)),
            AstKind::Choose(parts) => deepest(parts.as_slice()),
        };
        if depth > DEPTH_MAX {
            return Err(too_deep(at));
        }
        Ok(Ast { at, depth, kind })
    }

    /// Runs a production one level deeper, so that no text can exhaust the stack.
    fn nested(&mut self, production: fn(&mut Parser) -> Result<Ast, Fault>) -> Result<Ast, Fault> {
        if self.nesting == DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        self.nesting += 1;
        let read = production(self);
        self.nesting -= 1;
        read
    }

    fn expression(&mut self) -> Result<Ast, Fault> {
        self.nested(Parser::choice)
    }

    fn choice(&mut self) -> Result<Ast, Fault> {
        let at = self.at();
        let condition = self.any()?;
        if !self.take("?") {
            return Ok(condition);
        }
        let yes = self.any()?;
        self.expect(":", "a choice is written condition ? value : other value")?;
        let no = self.expression()?;
        self.node(at, AstKind::Choose(Box::new([condition, yes, no])))
    }

    fn any(&mut self) -> Result<Ast, Fault> {
        self.chain("||", Parser::all, AstKind::Any)
    }

    fn all(&mut self) -> Result<Ast, Fault> {
        self.chain("&&", Parser::relation, AstKind::All)
    }

    fn chain(
        &mut self,
        symbol: &'static str,
        operand: fn(&mut Parser) -> Result<Ast, Fault>,
        kind: fn(Vec<Ast>) -> AstKind,
    ) -> Result<Ast, Fault> {
        let at = self.at();
        let first = operand(self)?;
        if self.peek() != &TokenKind::Symbol(symbol) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.take(symbol) {
            operands.push(operand(self)?);
        }
        self.node(at, kind(operands))
    }

    fn relation(&mut self) -> Result<Ast, Fault> {
        self.binary(RELATIONS, Parser::sum)
    }

    fn sum(&mut self) -> Result<Ast, Fault> {
        self.binary(SUMS, Parser::product)
    }

    fn product(&mut self) -> Result<Ast, Fault> {
        self.binary(PRODUCTS, Parser::unary)
    }

    fn binary(
        &mut self,
        symbols: &[&'static str],
        operand: fn(&mut Parser) -> Result<Ast, Fault>,
    ) -> Result<Ast, Fault> {
        let mut left = operand(self)?;
        loop {
            let at = self.at();
            let Some(symbol) = self.take_any(symbols) else {
                return Ok(left);
            };
            let right = operand(self)?;
            left = self.node(at, AstKind::Binary(symbol, Box::new(left), Box::new(right)))?;
        }
    }

    fn unary(&mut self) -> Result<Ast, Fault> {
        let at = self.at();
        if self.take("!") {
            let inner = self.nested(Parser::unary)?;
            return self.node(at, AstKind::Not(Box::new(inner)));
        }
        if !self.take("-") {
            return self.postfix();
        }
        // Two signs side by side cancel out (cel-spec, "Syntax"): `--x` is `x`, not `-(-x)`.
        let mut is_negative = true;
        while self.take("-") {
            is_negative = !is_negative;
        }
        // The smallest number has no positive counterpart: the sign belongs to the literal.
        if let TokenKind::Int(number) = *self.peek()
            && is_negative
        {
            self.next += 1;
            let number = 0_i64.checked_sub_unsigned(number).ok_or_else(|| too_large(at))?;
            let literal = self.node(at, AstKind::Int(number))?;
            return self.suffixes(literal);
        }
        let inner = self.nested(Parser::unary)?;
        if is_negative {
            self.node(at, AstKind::Negate(Box::new(inner)))
        } else {
            Ok(inner)
        }
    }

    fn postfix(&mut self) -> Result<Ast, Fault> {
        let first = self.primary()?;
        self.suffixes(first)
    }

    fn suffixes(&mut self, mut ast: Ast) -> Result<Ast, Fault> {
        loop {
            let at = self.at();
            if self.take(".") {
                let name_at = self.at();
                let name =
                    self.name("after a dot comes a name; write labels[\"a-b\"] where it is no plain word")?;
                if self.take("(") {
                    let arguments = self.items(")", "the arguments end with )")?;
                    let target = Some(Box::new(ast));
                    let call = AstKind::Call {
                        target,
                        name,
                        arguments,
                    };
                    ast = self.node(name_at, call)?;
                } else {
                    // A path is looked for where it begins.
                    ast = self.node(ast.at, AstKind::Field(Box::new(ast), name))?;
                }
            } else if self.take("[") {
                let index = self.expression()?;
                self.expect("]", "an index is written labels[\"key\"]")?;
                ast = self.node(at, AstKind::Index(Box::new(ast), Box::new(index)))?;
            } else {
                return Ok(ast);
            }
        }
    }

    fn name(&mut self, otherwise: &str) -> Result<String, Fault> {
        let TokenKind::Name(name) = self.peek() else {
            return Err(Fault::new(self.at(), otherwise));
        };
        let name = name.clone();
        self.next += 1;
        Ok(name)
    }

    fn primary(&mut self) -> Result<Ast, Fault> {
        let at = self.at();
        if self.take("(") {
            let inner = self.expression()?;
            self.expect(")", "a group ends with )")?;
            return Ok(inner);
        }
        if self.take("[") {
            let items = self.items("]", "a list ends with ]")?;
            return self.node(at, AstKind::List(items));
        }
        let kind = match self.peek().clone() {
            TokenKind::Int(number) => AstKind::Int(i64::try_from(number).map_err(|_| too_large(at))?),
            TokenKind::Text(text) => AstKind::Text(text),
            TokenKind::Name(word) => match word.as_str() {
                "true" => AstKind::Bool(true),
                "false" => AstKind::Bool(false),
                "null" => {
                    let detail = "there is no null; write has(device.owner) to ask whether there is a value";
                    return Err(Fault::new(at, detail));
                }
                _ => AstKind::Name(word),
            },
            TokenKind::Symbol(_) | TokenKind::End => return Err(self.unexpected()),
        };
        self.next += 1;
        match kind {
            AstKind::Name(name) if self.take("(") => {
                let arguments = self.items(")", "the arguments end with )")?;
                let call = AstKind::Call {
                    target: None,
                    name,
                    arguments,
                };
                self.node(at, call)
            }
            kind => self.node(at, kind),
        }
    }

    /// Values between commas up to the closing symbol; a comma may follow the last one.
    fn items(&mut self, close: &'static str, why: &str) -> Result<Vec<Ast>, Fault> {
        let mut items = Vec::new();
        while !self.take(close) {
            if items.len() == LIST_ITEMS_MAX {
                let detail =
                    format!("a list has at most {LIST_ITEMS_MAX} items; use a label or a group instead");
                return Err(Fault::new(self.at(), detail));
            }
            items.push(self.expression()?);
            if !self.take(",") {
                self.expect(close, why)?;
                break;
            }
        }
        Ok(items)
    }
}

fn deepest(items: &[Ast]) -> usize {
    items.iter().map(|item| item.depth).max().unwrap_or(0)
}

fn too_deep(at: usize) -> Fault {
    let detail = format!("it is nested deeper than {DEPTH_MAX} levels; make several rules of it");
    Fault::new(at, detail)
}

fn too_large(at: usize) -> Fault {
    Fault::new(at, format_args!("a whole number is at most {}", i64::MAX))
}

/// A word as a message shows it.
fn shown(word: &str) -> String {
    word.chars().take(super::SHOWN_CHARS_MAX).collect()
}
