//! The syntax tree to the typed tree: names from the closed list, operators on operands that fit, and a bound on the work.

use std::collections::BTreeSet;

use super::{
    COST_MAX,
    error::Fault,
    hints,
    names::dotted,
    node::{List, Node, Operator, Quantifier, Quantify, Relation, TextTest},
    parser::{Ast, AstKind},
    variable::{FactPath, ValueKind, Variable},
};

/// A checked expression and what it reads.
pub(super) struct Checked {
    pub(super) node: Node,
    pub(super) reads: BTreeSet<FactPath>,
    pub(super) cost: u64,
}

/// Checks a whole expression, which answers true or false.
pub(super) fn check(ast: &Ast) -> Result<Checked, Fault> {
    let mut checker = Checker {
        reads: BTreeSet::new(),
        bound: Vec::new(),
    };
    let part = checker.expect(ast, ValueKind::Bool, "an expression of a rule or group answers")?;
    if part.cost > COST_MAX {
        let detail = format!(
            "answering takes up to {} steps and may take {COST_MAX}; look through long lists once, not inside each other",
            part.cost
        );
        return Err(Fault::new(ast.at, detail));
    }
    Ok(Checked {
        node: part.node,
        reads: checker.reads,
        cost: part.cost,
    })
}

/// A checked part: its kind, and how many steps evaluating it takes at most.
pub(super) struct Part {
    pub(super) node: Node,
    pub(super) kind: ValueKind,
    pub(super) cost: u64,
}

impl Part {
    pub(super) fn new(node: Node, kind: ValueKind, cost: u64) -> Part {
        Part {
            node,
            kind,
            cost: cost.saturating_add(1),
        }
    }
}

/// A checked list: the kind of its items, how many there are at most, and the steps to look at each once.
struct ListPart {
    list: List,
    item: ValueKind,
    items_max: u64,
    cost: u64,
}

pub(super) struct Checker {
    pub(super) reads: BTreeSet<FactPath>,
    /// Names of the macros around, outermost first.
    pub(super) bound: Vec<(String, ValueKind)>,
}

impl Checker {
    fn check(&mut self, ast: &Ast) -> Result<Part, Fault> {
        match &ast.kind {
            AstKind::Bool(value) => Ok(Part::new(Node::Bool(*value), ValueKind::Bool, 0)),
            AstKind::Int(value) => Ok(Part::new(Node::Int(*value), ValueKind::Int, 0)),
            AstKind::Text(text) => Ok(Part::new(Node::Text(text.as_str().into()), ValueKind::Text, 0)),
            AstKind::List(_) => Err(hints::list_as_value(ast.at, "a list")),
            AstKind::Name(_) | AstKind::Field(..) => self.path(ast),
            AstKind::Index(map, key) => self.index(ast.at, map, key),
            AstKind::Call {
                target,
                name,
                arguments,
            } => match target {
                Some(target) => self.method(ast.at, target, name, arguments),
                None => self.function(ast.at, name, arguments),
            },
            AstKind::Not(inner) => {
                let inner = self.expect(inner, ValueKind::Bool, "! takes")?;
                Ok(Part::new(
                    Node::Not(Box::new(inner.node)),
                    ValueKind::Bool,
                    inner.cost,
                ))
            }
            AstKind::Negate(inner) => self.negate(ast.at, inner),
            AstKind::Binary("in", item, list) => self.contained(ast.at, item, list),
            AstKind::Binary(symbol, left, right) => match Relation::parse(symbol) {
                Some(relation) => self.compare(ast.at, relation, left, right),
                None => self.calculate(ast.at, symbol, left, right),
            },
            AstKind::All(operands) => self.chain(operands, "&& joins", Node::All),
            AstKind::Any(operands) => self.chain(operands, "|| joins", Node::Any),
            AstKind::Choose(parts) => self.choose(parts),
        }
    }

    pub(super) fn expect(&mut self, ast: &Ast, wanted: ValueKind, why: &str) -> Result<Part, Fault> {
        let part = self.check(ast)?;
        if part.kind == wanted {
            Ok(part)
        } else {
            let (wanted, kind) = (wanted.describe(), part.kind.describe());
            Err(Fault::new(
                ast.at,
                format_args!("{why} {wanted}, and this is {kind}"),
            ))
        }
    }

    fn function(&mut self, at: usize, name: &str, arguments: &[Ast]) -> Result<Part, Fault> {
        let [argument] = arguments else {
            return Err(match hints::FUNCTIONS.contains(&name) {
                true => Fault::new(at, format_args!("{name}(…) takes one argument")),
                false => hints::unknown_function(at, name),
            });
        };
        match name {
            "has" => self.has(argument),
            "size" => self.size(argument),
            "version" => self.version_of(argument),
            "timestamp" => self.time_of(argument),
            "duration" => self.duration_of(argument),
            "string" => {
                let version = self.expect(argument, ValueKind::Version, "string(…) takes")?;
                Ok(Part::new(
                    Node::TextOf(Box::new(version.node)),
                    ValueKind::Text,
                    version.cost,
                ))
            }
            _ => Err(hints::unknown_function(at, name)),
        }
    }

    fn version_of(&mut self, argument: &Ast) -> Result<Part, Fault> {
        let text = self.expect(argument, ValueKind::Text, "version(…) takes")?;
        let node = match text.node {
            Node::Text(literal) => Node::Version(literal),
            node => Node::VersionOf(Box::new(node)),
        };
        Ok(Part::new(node, ValueKind::Version, text.cost))
    }

    fn time_of(&mut self, argument: &Ast) -> Result<Part, Fault> {
        let text = self.expect(argument, ValueKind::Text, "timestamp(…) takes")?;
        let node = match text.node {
            Node::Text(literal) => Node::Time(literal.parse().map_err(|why| {
                Fault::new(argument.at, format_args!("{} is {why}", hints::quoted(&literal)))
            })?),
            node => Node::TimeOf(Box::new(node)),
        };
        Ok(Part::new(node, ValueKind::Time, text.cost))
    }

    fn duration_of(&mut self, argument: &Ast) -> Result<Part, Fault> {
        let text = self.expect(argument, ValueKind::Text, "duration(…) takes")?;
        let node = match text.node {
            Node::Text(literal) => Node::Duration(super::duration::parse(&literal).ok_or_else(|| {
                let shown = hints::quoted(&literal);
                let detail =
                    format!("{shown} is no duration; write \"24h\", \"1h30m\", \"90s\" or \"250ms\"");
                Fault::new(argument.at, detail)
            })?),
            node => Node::DurationOf(Box::new(node)),
        };
        Ok(Part::new(node, ValueKind::Duration, text.cost))
    }

    /// `has(labels.key)`, `has(packages.name)` or `has(device.owner)`.
    fn has(&mut self, argument: &Ast) -> Result<Part, Fault> {
        let path = match &argument.kind {
            AstKind::Field(..) => dotted(argument),
            _ => None,
        };
        let Some(path) = path else {
            let detail =
                "has(…) takes a field, as in has(labels.department); write \"a-b\" in labels for other keys";
            return Err(Fault::new(argument.at, detail));
        };
        let part = self.path(argument)?;
        let (node, cost) = match part.node {
            Node::Label(key) => (Node::HasLabel(key), part.cost),
            Node::Package(name) => (Node::HasPackage(name), part.cost),
            Node::Signal(source, field) => (Node::HasSignal(source, field), part.cost),
            Node::Read(variable) => (Node::Has(variable), part.cost),
            _ => {
                let detail = format!(
                    "has(…) takes a field, and {} is none",
                    hints::shown(&path.join("."))
                );
                return Err(Fault::new(argument.at, detail));
            }
        };
        Ok(Part::new(node, ValueKind::Bool, cost))
    }

    fn size(&mut self, argument: &Ast) -> Result<Part, Fault> {
        if let Some(list) = self.list(argument)? {
            return Ok(Part::new(Node::Size(list.list), ValueKind::Int, list.cost));
        }
        let text = self.expect(argument, ValueKind::Text, "size(…) takes a list or")?;
        Ok(Part::new(
            Node::Length(Box::new(text.node)),
            ValueKind::Int,
            text.cost,
        ))
    }

    fn method(&mut self, at: usize, target: &Ast, name: &str, arguments: &[Ast]) -> Result<Part, Fault> {
        let quantifier = match name {
            "exists" => Some(Quantifier::Exists),
            "all" => Some(Quantifier::All),
            _ => None,
        };
        if let Some(quantifier) = quantifier {
            return self.quantify(at, quantifier, target, arguments);
        }
        if name == "size" && arguments.is_empty() {
            return self.size(target);
        }
        let Some(test) = TextTest::parse(name) else {
            return Err(hints::unknown_method(at, name));
        };
        let [argument] = arguments else {
            return Err(Fault::new(at, format_args!("{name}(…) takes one text")));
        };
        let text = self.check(target)?;
        if text.kind != ValueKind::Text {
            return Err(hints::method_of(target.at, name, text.kind));
        }
        let part = self.expect(argument, ValueKind::Text, &format!("{name}(…) takes"))?;
        let cost = text.cost.saturating_add(part.cost);
        let node = Node::Test(test, Box::new([text.node, part.node]));
        Ok(Part::new(node, ValueKind::Bool, cost))
    }

    fn quantify(
        &mut self,
        at: usize,
        quantifier: Quantifier,
        target: &Ast,
        arguments: &[Ast],
    ) -> Result<Part, Fault> {
        let word = quantifier.as_str();
        let form = format!("write users.{word}(user, user != \"root\")");
        let [name, body] = arguments else {
            return Err(Fault::new(
                at,
                format_args!("{word} takes a name and a condition: {form}"),
            ));
        };
        let AstKind::Name(name_text) = &name.kind else {
            return Err(Fault::new(
                name.at,
                format_args!("{word} begins with a name for the item: {form}"),
            ));
        };
        let is_taken = hints::is_root(name_text) || self.bound.iter().any(|(bound, _)| bound == name_text);
        if is_taken {
            let detail =
                format!("{name_text} is the name of something else already; choose another for the item");
            return Err(Fault::new(name.at, detail));
        }
        let Some(list) = self.list(target)? else {
            let detail =
                format!("{word} looks through users, owner.groups, packages, labels or a list in brackets");
            return Err(Fault::new(target.at, detail));
        };
        self.bound.push((name_text.clone(), list.item));
        let body = self.expect(body, ValueKind::Bool, &format!("the condition of {word} answers"));
        self.bound.pop();
        let body = body?;
        let cost = list
            .items_max
            .saturating_mul(body.cost.saturating_add(1))
            .saturating_add(list.cost);
        let node = Node::Quantify(Box::new(Quantify {
            quantifier,
            list: list.list,
            name: name_text.as_str().into(),
            body: body.node,
        }));
        Ok(Part::new(node, ValueKind::Bool, cost))
    }

    /// The list that a part of the expression is; `None` where it is something else.
    fn list(&mut self, ast: &Ast) -> Result<Option<ListPart>, Fault> {
        if let AstKind::List(items) = &ast.kind {
            return self.items(ast.at, items).map(Some);
        }
        let path = dotted(ast).map(|path| path.join("."));
        let list = match path.as_deref() {
            Some("users") => List::Users,
            Some("owner.groups") => List::OwnerGroups,
            Some("packages") => List::Packages,
            Some("labels") => List::Labels,
            _ => return Ok(None),
        };
        let items_max = list.variable().map_or(0, Variable::items_max) as u64;
        self.reads.extend(list.variable().map(FactPath::Variable));
        Ok(Some(ListPart {
            list,
            item: ValueKind::Text,
            items_max,
            cost: items_max,
        }))
    }

    fn items(&mut self, at: usize, items: &[Ast]) -> Result<ListPart, Fault> {
        let mut parts = Vec::with_capacity(items.len());
        for item in items {
            let part = self.check(item)?;
            parts.push((item.at, part));
        }
        let Some(kind) = parts.first().map(|(_, part)| part.kind) else {
            return Err(Fault::new(
                at,
                "the list is empty; write false for what no value is in",
            ));
        };
        if let Some((at, other)) = parts.iter().find(|(_, part)| part.kind != kind) {
            let (first, other) = (kind.describe(), other.kind.describe());
            let detail =
                format!("the items of a list are of one kind: the first is {first}, this is {other}");
            return Err(Fault::new(*at, detail));
        }
        Ok(ListPart {
            item: kind,
            items_max: parts.len() as u64,
            cost: parts
                .iter()
                .fold(0, |sum: u64, (_, part)| sum.saturating_add(part.cost)),
            list: List::Items(parts.into_iter().map(|(_, part)| part.node).collect()),
        })
    }

    fn contained(&mut self, at: usize, item: &Ast, list: &Ast) -> Result<Part, Fault> {
        let part = self.check(item)?;
        let Some(found) = self.list(list)? else {
            let detail = "after in comes users, owner.groups, packages, labels or a list in brackets; \
                          for a part of a text write text.contains(\"part\")";
            return Err(Fault::new(list.at, detail));
        };
        if part.kind != found.item {
            return Err(hints::kinds_differ(item.at, &part, found.item));
        }
        if let List::Items(items) = &found.list {
            for item in items {
                hints::known_word(at, &part.node, item)?;
            }
        }
        let cost = part.cost.saturating_add(found.cost);
        Ok(Part::new(
            Node::In(Box::new(part.node), found.list),
            ValueKind::Bool,
            cost,
        ))
    }

    fn negate(&mut self, at: usize, inner: &Ast) -> Result<Part, Fault> {
        let inner = self.check(inner)?;
        // A sign in front of a literal is a part of it, with and without parentheses.
        if let Node::Int(number) = inner.node
            && let Some(negated) = number.checked_neg()
        {
            return Ok(Part::new(Node::Int(negated), ValueKind::Int, 0));
        }
        match inner.kind {
            ValueKind::Int => Ok(Part::new(
                Node::Negate(Box::new(inner.node)),
                ValueKind::Int,
                inner.cost,
            )),
            kind => {
                let detail = format!("- stands before a whole number, and this is {}", kind.describe());
                Err(Fault::new(at, detail))
            }
        }
    }

    fn compare(&mut self, at: usize, relation: Relation, left: &Ast, right: &Ast) -> Result<Part, Fault> {
        let (left_at, right_at) = (left.at, right.at);
        let (left, right) = (self.check(left)?, self.check(right)?);
        if left.kind != right.kind {
            return Err(match (&left.node, &right.node) {
                (Node::Text(_) | Node::Int(_), _) => hints::kinds_differ(left_at, &left, right.kind),
                _ => hints::kinds_differ(right_at, &right, left.kind),
            });
        }
        hints::known_word(left_at, &right.node, &left.node)?;
        hints::known_word(right_at, &left.node, &right.node)?;
        let is_ordered = match left.kind {
            ValueKind::Int | ValueKind::Version | ValueKind::Time | ValueKind::Duration => true,
            ValueKind::Bool | ValueKind::Text | ValueKind::Texts | ValueKind::Map => false,
        };
        if !is_ordered && !matches!(relation, Relation::Eq | Relation::Ne) {
            return Err(hints::no_order(at, relation.as_str(), left.kind));
        }
        let cost = left.cost.saturating_add(right.cost);
        let node = Node::Compare(relation, Box::new([left.node, right.node]));
        Ok(Part::new(node, ValueKind::Bool, cost))
    }

    fn calculate(&mut self, at: usize, symbol: &str, left: &Ast, right: &Ast) -> Result<Part, Fault> {
        let (left, right) = (self.check(left)?, self.check(right)?);
        let Some(operator) = Operator::parse(symbol) else {
            return Err(Fault::new(at, format_args!("there is no operator {symbol}")));
        };
        let kind = match (operator, left.kind, right.kind) {
            (_, ValueKind::Int, ValueKind::Int) => ValueKind::Int,
            (Operator::Add, ValueKind::Time, ValueKind::Duration)
            | (Operator::Add, ValueKind::Duration, ValueKind::Time)
            | (Operator::Subtract, ValueKind::Time, ValueKind::Duration) => ValueKind::Time,
            (Operator::Subtract, ValueKind::Time, ValueKind::Time)
            | (Operator::Add | Operator::Subtract, ValueKind::Duration, ValueKind::Duration) => {
                ValueKind::Duration
            }
            (_, left, right) => return Err(hints::no_arithmetic(at, symbol, left, right)),
        };
        let cost = left.cost.saturating_add(right.cost);
        Ok(Part::new(
            Node::Calculate(operator, Box::new([left.node, right.node])),
            kind,
            cost,
        ))
    }

    fn chain(&mut self, operands: &[Ast], why: &str, kind: fn(Vec<Node>) -> Node) -> Result<Part, Fault> {
        let (mut nodes, mut cost) = (Vec::with_capacity(operands.len()), 0_u64);
        for operand in operands {
            let part = self.expect(operand, ValueKind::Bool, why)?;
            cost = cost.saturating_add(part.cost);
            nodes.push(part.node);
        }
        Ok(Part::new(kind(nodes), ValueKind::Bool, cost))
    }

    fn choose(&mut self, parts: &[Ast; 3]) -> Result<Part, Fault> {
        let [condition, yes, no] = parts;
        let condition = self.expect(condition, ValueKind::Bool, "before ? stands")?;
        let yes = self.check(yes)?;
        let no = self.expect(
            no,
            yes.kind,
            "both values of a choice are of one kind: the first is",
        )?;
        let cost = condition.cost.saturating_add(yes.cost.max(no.cost));
        let node = Node::Choose(Box::new([condition.node, yes.node, no.node]));
        Ok(Part::new(node, yes.kind, cost))
    }
}
