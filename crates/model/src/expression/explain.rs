//! Why an expression is false: what was found, for people.

use std::ops::ControlFlow;

use super::{
    SHOWN_CHARS_MAX,
    evaluate::{Scope, Value, World},
    node::{List, Node, Quantifier, Quantify},
};

/// How many findings a reason names.
const FINDINGS_MAX: usize = 4;

/// What was found instead of what the expression asks for.
pub(super) fn why_false<'a>(root: &'a Node, world: &World<'a>) -> String {
    let mut reason = Reason {
        world,
        findings: Vec::new(),
    };
    reason.explain(root, None, Wanted::True);
    if reason.findings.is_empty() {
        return "the expression is false for every device".to_owned();
    }
    reason.findings.join(", ")
}

/// What a part should have been.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    True,
    False,
}

impl Wanted {
    const fn is_true(self) -> bool {
        matches!(self, Wanted::True)
    }

    const fn opposite(self) -> Wanted {
        match self {
            Wanted::True => Wanted::False,
            Wanted::False => Wanted::True,
        }
    }
}

struct Reason<'w, 'a> {
    world: &'w World<'a>,
    findings: Vec<String>,
}

impl<'a> Reason<'_, 'a> {
    /// Explains a part that is not what was wanted of it.
    fn explain(&mut self, node: &'a Node, scope: Option<&Scope<'a, '_>>, wanted: Wanted) {
        match node {
            Node::Not(inner) => self.explain(inner, scope, wanted.opposite()),
            Node::All(operands) | Node::Any(operands) => {
                let is_decided_by_one = matches!(node, Node::All(_)) == wanted.is_true();
                let mut failing = operands
                    .iter()
                    .filter(|operand| self.world.truth(operand, scope) == Ok(!wanted.is_true()))
                    .collect::<Vec<_>>();
                if is_decided_by_one {
                    failing.truncate(1);
                }
                for operand in failing {
                    self.explain(operand, scope, wanted);
                }
            }
            Node::Choose(parts) => {
                let [condition, yes, no] = &**parts;
                self.values(condition, scope);
                if let Ok(is_met) = self.world.truth(condition, scope) {
                    self.explain(if is_met { yes } else { no }, scope, wanted);
                }
            }
            Node::Quantify(quantify) => self.quantified(quantify, scope, wanted),
            Node::In(item, list) => self.contained(item, list, scope, wanted),
            node => self.values(node, scope),
        }
    }

    fn quantified(&mut self, quantify: &'a Quantify, scope: Option<&Scope<'a, '_>>, wanted: Wanted) {
        let name = name_of(&quantify.list);
        let decides = quantify.quantifier == Quantifier::Exists;
        if decides == wanted.is_true() {
            let what = match quantify.quantifier {
                Quantifier::Exists => "has nothing that was asked for",
                Quantifier::All => "has nothing else",
            };
            self.add(format!("{name} {what}"));
            return;
        }
        let mut decisive = None;
        let world = self.world;
        let searched = world.each(&quantify.list, scope, |found| match found {
            Ok(item) if world.truth(&quantify.body, Some(&Scope { item, outer: scope })) == Ok(decides) => {
                decisive = Some(item);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        if let (Ok(()), Some(item)) = (searched, decisive) {
            self.add(format!("{name} has {}", shown(item)));
        }
    }

    fn contained(&mut self, item: &'a Node, list: &'a List, scope: Option<&Scope<'a, '_>>, wanted: Wanted) {
        if list.variable().is_none() {
            return self.values(item, scope);
        }
        if let Ok(item) = self.world.value(item, scope) {
            let has = if wanted.is_true() { "has no" } else { "has" };
            self.add(format!("{} {has} {}", name_of(list), shown(item)));
        }
    }

    /// Names the values that a part reads.
    fn values(&mut self, node: &'a Node, scope: Option<&Scope<'a, '_>>) {
        match node {
            Node::Read(_)
            | Node::Label(_)
            | Node::LabelOf(_)
            | Node::Package(_)
            | Node::PackageOf(_)
            | Node::Signal(..) => {
                if let Ok(value) = self.world.value(node, scope) {
                    self.add(format!("{} is {}", Written(node), shown(value)));
                }
            }
            Node::Has(_) | Node::HasLabel(_) | Node::HasPackage(_) | Node::HasSignal(..) => {
                let state = match self.world.truth(node, scope) {
                    Ok(true) => "there",
                    _ => "absent",
                };
                let written = Written(node).to_string();
                let path = written.trim_start_matches("has(").trim_end_matches(')');
                self.add(format!("{path} is {state}"));
            }
            Node::Size(list) => {
                if let (Some(variable), Ok(Value::Int(count))) =
                    (list.variable(), self.world.value(node, scope))
                {
                    self.add(format!("{variable} has {count} items"));
                }
            }
            Node::Bound(_, name) => {
                if let Ok(value) = self.world.value(node, scope) {
                    self.add(format!("{name} is {}", shown(value)));
                }
            }
            Node::In(item, _) => self.values(item, scope),
            Node::Quantify(quantify) => {
                let is_met = self.world.truth(node, scope) == Ok(true);
                self.quantified(quantify, scope, if is_met { Wanted::False } else { Wanted::True });
            }
            Node::Not(inner)
            | Node::Negate(inner)
            | Node::Length(inner)
            | Node::VersionOf(inner)
            | Node::TextOf(inner)
            | Node::TimeOf(inner)
            | Node::DurationOf(inner) => self.values(inner, scope),
            Node::All(parts) | Node::Any(parts) => parts.iter().for_each(|part| self.values(part, scope)),
            Node::Choose(parts) => parts.iter().for_each(|part| self.values(part, scope)),
            Node::Compare(_, sides) | Node::Calculate(_, sides) | Node::Test(_, sides) => {
                sides.iter().for_each(|side| self.values(side, scope));
            }
            Node::Bool(_)
            | Node::Int(_)
            | Node::Text(_)
            | Node::Version(_)
            | Node::Time(_)
            | Node::Duration(_) => {}
        }
    }

    fn add(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

fn name_of(list: &List) -> &'static str {
    list.variable().map_or("the list", |variable| variable.path())
}

/// A node as it is written.
struct Written<'a>(&'a Node);

impl std::fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        super::print::write_node(f, self.0)
    }
}

fn shown(value: Value<'_>) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Text("") => "empty".to_owned(),
        Value::Text(text) | Value::Version(text) => text.chars().take(SHOWN_CHARS_MAX).collect(),
        Value::Time(at) => at.to_string(),
        Value::Duration(micros) => super::duration::Written(micros).to_string(),
    }
}
