//! Names to what they stand for: variables, labels, packages, and the items of macros.

use super::{
    check::{Checker, Part},
    error::Fault,
    hints,
    node::Node,
    parser::{Ast, AstKind},
    variable::{FactPath, ValueKind, Variable},
};
use crate::{
    signal::{SignalField, is_source_name},
    text::LabelKey,
};

impl Checker {
    /// `device.owner`, `labels.department`, `packages.openssl`, or the name of a macro's item.
    pub(super) fn path(&mut self, ast: &Ast) -> Result<Part, Fault> {
        let Some(path) = dotted(ast) else {
            return Err(Fault::new(
                ast.at,
                "only device, labels and the other variables have fields",
            ));
        };
        let mut segments = path.iter().copied();
        let root = segments.next().unwrap_or_default();
        let rest: Vec<&str> = segments.collect();
        if let Some(part) = self.bound_name(root) {
            return match rest.first() {
                None => Ok(part),
                Some(field) => {
                    let detail = format!("{root} is an item and has no field {}", hints::shown(field));
                    Err(Fault::new(ast.at, detail))
                }
            };
        }
        match (root, rest.as_slice()) {
            ("labels", [key]) => self.label(ast.at, key),
            ("packages", [name]) => Ok(self.package(name)),
            ("signal", [source, field]) => self.signal(ast.at, source, field),
            ("signal", _) => Err(Fault::new(
                ast.at,
                "write what a source says as in signal.defender.verdict",
            )),
            ("labels", [_, _, ..]) => {
                let detail = format!(
                    "write labels[\"{}\"] for a key with a dot",
                    hints::shown(&rest.join("."))
                );
                Err(Fault::new(ast.at, detail))
            }
            ("packages", [name, ..]) => {
                let detail = format!("packages[\"{}\"] is the version itself", hints::shown(name));
                Err(Fault::new(ast.at, detail))
            }
            _ => self.variable(ast.at, &path.join(".")),
        }
    }

    fn bound_name(&self, name: &str) -> Option<Part> {
        let outward = self.bound.iter().rev();
        let (depth, (name, kind)) = outward.enumerate().find(|(_, (bound, _))| bound == name)?;
        Some(Part::new(Node::Bound(depth, name.as_str().into()), *kind, 0))
    }

    fn variable(&mut self, at: usize, path: &str) -> Result<Part, Fault> {
        let Some(variable) = Variable::from_path(path) else {
            return Err(hints::unknown_variable(at, path));
        };
        if matches!(variable.kind(), ValueKind::Texts | ValueKind::Map) {
            return Err(hints::list_as_value(at, path));
        }
        self.reads.insert(FactPath::Variable(variable));
        let cost = variable.items_max() as u64;
        Ok(Part::new(Node::Read(variable), variable.kind(), cost))
    }

    fn label(&mut self, at: usize, key: &str) -> Result<Part, Fault> {
        let key = label_key(at, key)?;
        self.reads.insert(FactPath::Label(key.to_string()));
        Ok(Part::new(Node::Label(key), ValueKind::Text, 1))
    }

    fn package(&mut self, name: &str) -> Part {
        self.reads.insert(FactPath::Package(name.to_owned()));
        let cost = Variable::Packages.items_max() as u64;
        Part::new(Node::Package(name.into()), ValueKind::Version, cost)
    }

    fn signal(&mut self, at: usize, source: &str, field: &str) -> Result<Part, Fault> {
        if !is_source_name(source) {
            let detail = format!(
                "{} is no name of a source: it has 1 to 48 of a-z, 0-9 and _ and begins with a letter",
                hints::quoted(source)
            );
            return Err(Fault::new(at, detail));
        }
        let Some(field) = SignalField::parse(field) else {
            return Err(hints::unknown_field(at, source, field));
        };
        self.reads.insert(FactPath::Signal(source.to_owned()));
        let kind = if field.is_time() {
            ValueKind::Time
        } else {
            ValueKind::Text
        };
        Ok(Part::new(Node::Signal(source.into(), field), kind, 1))
    }

    pub(super) fn index(&mut self, at: usize, map: &Ast, key: &Ast) -> Result<Part, Fault> {
        let map_name = match dotted(map).as_deref() {
            Some(["labels"]) => Variable::Labels,
            Some(["packages"]) => Variable::Packages,
            _ => {
                let detail = "only labels and packages have an index, as in labels[\"key\"]; of a list ask exists or in";
                return Err(Fault::new(at, detail));
            }
        };
        let key_at = key.at;
        let key = self.expect(key, ValueKind::Text, "the index is")?;
        match (map_name, key.node) {
            (Variable::Labels, Node::Text(key)) => self.label(key_at, &key),
            (Variable::Labels, node) => {
                self.reads.insert(FactPath::Variable(Variable::Labels));
                Ok(Part::new(
                    Node::LabelOf(Box::new(node)),
                    ValueKind::Text,
                    key.cost + 1,
                ))
            }
            (_, Node::Text(name)) => Ok(self.package(&name)),
            (_, node) => {
                self.reads.insert(FactPath::Variable(Variable::Packages));
                let cost = key.cost.saturating_add(Variable::Packages.items_max() as u64);
                Ok(Part::new(
                    Node::PackageOf(Box::new(node)),
                    ValueKind::Version,
                    cost,
                ))
            }
        }
    }
}

/// The names of `a.b.c`, if it is nothing else.
pub(super) fn dotted(ast: &Ast) -> Option<Vec<&str>> {
    match &ast.kind {
        AstKind::Name(name) => Some(vec![name]),
        AstKind::Field(inner, name) => {
            let mut path = dotted(inner)?;
            path.push(name);
            Some(path)
        }
        _ => None,
    }
}

fn label_key(at: usize, key: &str) -> Result<LabelKey, Fault> {
    // Spaces around it would be trimmed, and the label that is read another one than the one that is written.
    LabelKey::parse(key)
        .ok()
        .filter(|parsed| parsed.as_str() == key)
        .ok_or_else(|| {
            let lower = key.to_ascii_lowercase();
            let advice = match LabelKey::parse(&lower) {
                Ok(lower) if lower.as_str() != key => format!("write labels[\"{lower}\"]"),
                _ => "it has 1 to 63 of a-z, 0-9, . _ - and begins with a letter".to_owned(),
            };
            Fault::new(
                at,
                format_args!("{} is no key of a label: {advice}", hints::quoted(key)),
            )
        })
}
