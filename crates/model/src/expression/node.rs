//! The typed tree: every name is known and every operator fits its operands.

use super::variable::Variable;
use crate::{signal::SignalField, text::LabelKey, time::Timestamp};

/// A part of a checked expression. Which kind of value a part has is decided by the checker; the evaluator relies on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Bool(bool),
    Int(i64),
    Text(Box<str>),
    /// `version("…")` of a literal.
    Version(Box<str>),
    /// `timestamp("…")` of a literal.
    Time(Timestamp),
    /// `duration("…")` of a literal, in microseconds.
    Duration(i64),
    /// A variable that is no list.
    Read(Variable),
    Label(LabelKey),
    Package(Box<str>),
    /// `signal.source.field`.
    Signal(Box<str>, SignalField),
    /// `labels[…]` with a key that is computed.
    LabelOf(Box<Node>),
    /// `packages[…]` with a name that is computed.
    PackageOf(Box<Node>),
    /// The name that a macro gives to the item it looks at: 0 is the innermost macro's.
    Bound(usize, Box<str>),
    Has(Variable),
    HasLabel(LabelKey),
    HasPackage(Box<str>),
    HasSignal(Box<str>, SignalField),
    Not(Box<Node>),
    Negate(Box<Node>),
    /// At least two operands of `&&`, which may stand in any order.
    All(Vec<Node>),
    /// At least two operands of `||`, which may stand in any order.
    Any(Vec<Node>),
    Choose(Box<[Node; 3]>),
    Compare(Relation, Box<[Node; 2]>),
    Calculate(Operator, Box<[Node; 2]>),
    In(Box<Node>, List),
    /// The items of a list.
    Size(List),
    /// The characters of a text.
    Length(Box<Node>),
    Test(TextTest, Box<[Node; 2]>),
    Quantify(Box<Quantify>),
    VersionOf(Box<Node>),
    /// `string(…)` of a version.
    TextOf(Box<Node>),
    TimeOf(Box<Node>),
    DurationOf(Box<Node>),
}

impl Node {
    /// Whether it has a value by itself.
    pub(super) const fn is_literal(&self) -> bool {
        matches!(
            self,
            Node::Bool(_)
                | Node::Int(_)
                | Node::Text(_)
                | Node::Version(_)
                | Node::Time(_)
                | Node::Duration(_)
        )
    }
}

/// `list.exists(name, body)` or `list.all(name, body)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quantify {
    pub(super) quantifier: Quantifier,
    pub(super) list: List,
    pub(super) name: Box<str>,
    pub(super) body: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    Exists,
    All,
}

/// What has items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum List {
    Users,
    OwnerGroups,
    /// The names of the installed packages.
    Packages,
    /// The keys of the labels.
    Labels,
    Items(Vec<Node>),
}

impl List {
    /// The variable, unless the items stand in the expression.
    pub(super) const fn variable(&self) -> Option<Variable> {
        match self {
            List::Users => Some(Variable::Users),
            List::OwnerGroups => Some(Variable::OwnerGroups),
            List::Packages => Some(Variable::Packages),
            List::Labels => Some(Variable::Labels),
            List::Items(_) => None,
        }
    }
}

macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($word:ident = $text:literal,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub(super) enum $name {
                $($word,)*
            }

            impl $name {
                pub(super) const ALL: &'static [$name] = &[$($name::$word,)*];

                pub(super) const fn as_str(self) -> &'static str {
                    match self {
                        $($name::$word => $text,)*
                    }
                }

                pub(super) fn parse(text: &str) -> Option<$name> {
                    $name::ALL.iter().copied().find(|word| word.as_str() == text)
                }
            }
        )*
    };
}

words! {
    Relation {
        Eq = "==",
        Ne = "!=",
        Lt = "<",
        Le = "<=",
        Gt = ">",
        Ge = ">=",
    }
    Operator {
        Add = "+",
        Subtract = "-",
        Multiply = "*",
        Divide = "/",
        Remainder = "%",
    }
    /// Methods of texts.
    TextTest {
        StartsWith = "startsWith",
        EndsWith = "endsWith",
        Contains = "contains",
    }
}

impl Quantifier {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Quantifier::Exists => "exists",
            Quantifier::All => "all",
        }
    }
}
