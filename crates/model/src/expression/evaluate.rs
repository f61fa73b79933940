//! Answers: a walk over the typed tree that allocates nothing.

use std::{cmp::Ordering, fmt, ops::ControlFlow};

use super::{
    duration,
    node::{List, Node, Operator, Quantifier, Quantify, Relation, TextTest},
    variable::Variable,
};
use crate::{
    facts::Facts,
    rules::all_encrypted,
    signal::SignalField,
    subject::{DeviceAttributes, Subject},
    time::Timestamp,
    version::compare_versions,
};

/// A value of one part. The checker has made sure that operators meet the kinds they expect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Version(&'a str),
    Time(Timestamp),
    Duration(i64),
}

/// Why a part has no value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Missing<'a> {
    /// Nobody has said yet; the device may well have one.
    NotSent(Variable),
    /// It is known that there is none.
    Absent(Variable),
    NoLabel(&'a str),
    NoPackage(&'a str),
    /// The source has said nothing of it.
    NoSignal(&'a str, SignalField),
    /// What the source said of it is too old to count.
    OldSignal(&'a str, SignalField),
    TooLarge,
    DivisionByZero,
    NotTime(&'a str),
    NotDuration(&'a str),
    /// A part of the wrong kind, which the checker lets nobody write.
    Kind,
}

type Found<'a, T> = Result<T, Missing<'a>>;

/// The item that a macro looks at, and that of the macro around it.
pub(super) struct Scope<'a, 's> {
    pub(super) item: Value<'a>,
    pub(super) outer: Option<&'s Scope<'a, 's>>,
}

/// What an expression is asked about.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) now: Timestamp,
}

impl<'a> World<'a> {
    /// Whether a part that is true or false is true.
    pub(super) fn truth(&self, node: &'a Node, scope: Option<&Scope<'a, '_>>) -> Found<'a, bool> {
        match node {
            Node::Bool(value) => Ok(*value),
            Node::Not(inner) => self.truth(inner, scope).map(|value| !value),
            Node::All(operands) => self.join(operands, scope, Quantifier::All),
            Node::Any(operands) => self.join(operands, scope, Quantifier::Exists),
            Node::Compare(relation, sides) => {
                let [left, right] = &**sides;
                let order = compare(self.value(left, scope)?, self.value(right, scope)?)?;
                Ok(holds(*relation, order))
            }
            Node::In(item, list) => self.contains(item, list, scope),
            Node::Test(test, sides) => {
                let [text, part] = &**sides;
                let (text, part) = (self.text(text, scope)?, self.text(part, scope)?);
                Ok(match test {
                    TextTest::StartsWith => text.starts_with(part),
                    TextTest::EndsWith => text.ends_with(part),
                    TextTest::Contains => text.contains(part),
                })
            }
            Node::Quantify(quantify) => self.quantify(quantify, scope),
            Node::Has(variable) => is_there(self.read(*variable)),
            Node::HasLabel(key) => is_there(self.label(key.as_str())),
            Node::HasPackage(name) => is_there(self.package(name)),
            Node::HasSignal(source, field) => is_there(self.signal(source, *field)),
            node => match self.value(node, scope)? {
                Value::Bool(value) => Ok(value),
                _ => Err(Missing::Kind),
            },
        }
    }

    /// The value of a part of any kind.
    pub(super) fn value(&self, node: &'a Node, scope: Option<&Scope<'a, '_>>) -> Found<'a, Value<'a>> {
        match node {
            Node::Int(value) => Ok(Value::Int(*value)),
            Node::Text(text) => Ok(Value::Text(text)),
            Node::Version(text) => Ok(Value::Version(text)),
            Node::Time(at) => Ok(Value::Time(*at)),
            Node::Duration(micros) => Ok(Value::Duration(*micros)),
            Node::Read(variable) => self.read(*variable),
            Node::Label(key) => self.label(key.as_str()),
            Node::Package(name) => self.package(name),
            Node::Signal(source, field) => self.signal(source, *field),
            Node::LabelOf(key) => self.label(self.text(key, scope)?),
            Node::PackageOf(name) => self.package(self.text(name, scope)?),
            Node::Bound(depth, _) => item(scope, *depth),
            Node::Negate(inner) => match self.value(inner, scope)? {
                Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(Missing::TooLarge),
                _ => Err(Missing::Kind),
            },
            Node::Choose(parts) => {
                let [condition, yes, no] = &**parts;
                let chosen = if self.truth(condition, scope)? { yes } else { no };
                self.value(chosen, scope)
            }
            Node::Calculate(operator, sides) => {
                let [left, right] = &**sides;
                calculate(*operator, self.value(left, scope)?, self.value(right, scope)?)
            }
            Node::Size(list) => self.size(list, scope).map(Value::Int),
            Node::Length(text) => Ok(int(self.text(text, scope)?.chars().count())),
            Node::VersionOf(text) => self.text(text, scope).map(Value::Version),
            Node::TextOf(version) => match self.value(version, scope)? {
                Value::Version(text) => Ok(Value::Text(text)),
                _ => Err(Missing::Kind),
            },
            Node::TimeOf(text) => {
                let text = self.text(text, scope)?;
                text.parse().map(Value::Time).map_err(|_| Missing::NotTime(text))
            }
            Node::DurationOf(text) => {
                let text = self.text(text, scope)?;
                duration::parse(text)
                    .map(Value::Duration)
                    .ok_or(Missing::NotDuration(text))
            }
            Node::Bool(_)
            | Node::Not(_)
            | Node::All(_)
            | Node::Any(_)
            | Node::Compare(..)
            | Node::In(..)
            | Node::Test(..)
            | Node::Quantify(_)
            | Node::Has(_)
            | Node::HasLabel(_)
            | Node::HasPackage(_)
            | Node::HasSignal(..) => self.truth(node, scope).map(Value::Bool),
        }
    }

    fn text(&self, node: &'a Node, scope: Option<&Scope<'a, '_>>) -> Found<'a, &'a str> {
        match self.value(node, scope)? {
            Value::Text(text) => Ok(text),
            _ => Err(Missing::Kind),
        }
    }

    /// `&&` and `||`: an operand that decides decides, wherever it stands and whatever the others lack.
    fn join(
        &self,
        operands: &'a [Node],
        scope: Option<&Scope<'a, '_>>,
        quantifier: Quantifier,
    ) -> Found<'a, bool> {
        let mut tally = Tally::new(quantifier);
        for operand in operands {
            if tally.count(self.truth(operand, scope)).is_break() {
                break;
            }
        }
        tally.result
    }

    fn quantify(&self, quantify: &'a Quantify, scope: Option<&Scope<'a, '_>>) -> Found<'a, bool> {
        let mut tally = Tally::new(quantify.quantifier);
        self.each(&quantify.list, scope, |found| {
            tally
                .count(found.and_then(|item| self.truth(&quantify.body, Some(&Scope { item, outer: scope }))))
        })?;
        tally.result
    }

    fn contains(&self, item: &'a Node, list: &'a List, scope: Option<&Scope<'a, '_>>) -> Found<'a, bool> {
        let wanted = self.value(item, scope)?;
        match (list, wanted) {
            (List::Labels, Value::Text(key)) => Ok(self.labels()?.get(key).is_some()),
            (List::Packages, Value::Text(name)) => Ok(self
                .packages()?
                .packages
                .iter()
                .any(|package| package.name == name)),
            _ => {
                let mut tally = Tally::new(Quantifier::Exists);
                let is_wanted = |item| Ok(compare(wanted, item)?.is_eq());
                self.each(list, scope, |found| tally.count(found.and_then(is_wanted)))?;
                tally.result
            }
        }
    }

    fn size(&self, list: &'a List, scope: Option<&Scope<'a, '_>>) -> Found<'a, i64> {
        let mut count = 0;
        self.each(list, scope, |_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Hands out the items of a list until told to stop.
    pub(super) fn each(
        &self,
        list: &'a List,
        scope: Option<&Scope<'a, '_>>,
        mut visit: impl FnMut(Found<'a, Value<'a>>) -> ControlFlow<()>,
    ) -> Found<'a, ()> {
        let mut visit_text = |text: &'a str| visit(Ok(Value::Text(text)));
        // Whether it was stopped early is known to whoever did it.
        let _ = match list {
            List::Users => self
                .users()?
                .users
                .iter()
                .try_for_each(|user| visit_text(&user.name)),
            List::Packages => {
                let packages = &self.packages()?.packages;
                packages.iter().try_for_each(|package| visit_text(&package.name))
            }
            List::OwnerGroups => {
                let groups = self
                    .subject
                    .owner_groups
                    .ok_or(Missing::NotSent(Variable::OwnerGroups))?;
                groups.iter().try_for_each(|group| visit_text(group))
            }
            List::Labels => self
                .labels()?
                .iter()
                .try_for_each(|(key, _)| visit_text(key.as_str())),
            List::Items(items) => {
                // A list whose items are not all known is not known itself (cel-spec, "Aggregate values").
                for item in items.iter().filter(|item| !item.is_literal()) {
                    self.value(item, scope)?;
                }
                items.iter().try_for_each(|item| visit(self.value(item, scope)))
            }
        };
        Ok(())
    }

    fn facts(&self, variable: Variable) -> Found<'a, &'a Facts> {
        self.subject.facts.ok_or(Missing::NotSent(variable))
    }

    /// An empty list was not collected: a device without any user or package does not exist.
    fn users(&self) -> Found<'a, &'a Facts> {
        let facts = self.facts(Variable::Users)?;
        if facts.users.is_empty() {
            Err(Missing::NotSent(Variable::Users))
        } else {
            Ok(facts)
        }
    }

    fn packages(&self) -> Found<'a, &'a Facts> {
        let facts = self.facts(Variable::Packages)?;
        if facts.packages.is_empty() {
            Err(Missing::NotSent(Variable::Packages))
        } else {
            Ok(facts)
        }
    }

    fn labels(&self) -> Found<'a, &'a crate::subject::Labels> {
        self.subject.labels.ok_or(Missing::NotSent(Variable::Labels))
    }

    fn label(&self, key: &'a str) -> Found<'a, Value<'a>> {
        self.labels()?
            .get(key)
            .map(Value::Text)
            .ok_or(Missing::NoLabel(key))
    }

    /// The lowest installed version: what holds of it holds of the others, where a minimum is asked for.
    fn package(&self, name: &'a str) -> Found<'a, Value<'a>> {
        let installed = self
            .packages()?
            .packages
            .iter()
            .filter(|package| package.name == name);
        installed
            .map(|package| package.version.as_str())
            .reduce(|lowest, other| {
                if compare_versions(other, lowest).is_lt() {
                    other
                } else {
                    lowest
                }
            })
            .map(Value::Version)
            .ok_or(Missing::NoPackage(name))
    }

    /// What a source says, while it counts.
    fn signal(&self, source: &'a str, field: SignalField) -> Found<'a, Value<'a>> {
        let signals = self.subject.signals.ok_or(Missing::NotSent(Variable::Signals))?;
        let nothing = Missing::NoSignal(source, field);
        let signal = signals.get(source).ok_or(nothing)?;
        if field.is_time() {
            return signal.time(field).map(Value::Time).ok_or(nothing);
        }
        if field == SignalField::Detail {
            return signal.detail.as_deref().map(Value::Text).ok_or(nothing);
        }
        let said = signal.said(field).ok_or(nothing)?;
        if said.until <= self.now {
            return Err(Missing::OldSignal(source, field));
        }
        Ok(Value::Text(&said.text))
    }

    pub(super) fn read(&self, variable: Variable) -> Found<'a, Value<'a>> {
        let device = || self.subject.device.as_ref().ok_or(Missing::NotSent(variable));
        let attribute = |get: fn(&DeviceAttributes<'a>) -> Option<&'a str>| {
            get(device()?).map(Value::Text).ok_or(Missing::Absent(variable))
        };
        let fact = |get: fn(&'a Facts) -> Option<Value<'a>>| {
            get(self.facts(variable)?).ok_or(Missing::Absent(variable))
        };
        match variable {
            Variable::Now => Ok(Value::Time(self.now)),
            Variable::DevicePlatform => Ok(Value::Text(self.subject.platform.as_str())),
            Variable::DeviceModel => attribute(|device| device.model),
            Variable::DeviceVendor => attribute(|device| device.vendor),
            Variable::DeviceOwner => attribute(|device| device.owner),
            Variable::DeviceName => attribute(|device| Some(device.name)),
            Variable::DeviceSerial => attribute(|device| device.serial),
            Variable::DeviceOwnership => attribute(|device| Some(device.ownership.as_str())),
            Variable::DeviceAttestation => attribute(|device| Some(device.attestation.as_str())),
            Variable::DeviceEnrolledAt => Ok(Value::Time(device()?.enrolled_at)),
            Variable::OwnerActive => {
                let active = self.subject.owner.ok_or(Missing::NotSent(variable))?.active;
                active.map(Value::Bool).ok_or(Missing::Absent(variable))
            }
            Variable::OwnerDepartment => {
                let department = self.subject.owner.ok_or(Missing::NotSent(variable))?.department;
                department.map(Value::Text).ok_or(Missing::Absent(variable))
            }
            Variable::OsId => fact(|facts| text(&facts.os.id)),
            Variable::OsName => fact(|facts| text(&facts.os.name)),
            Variable::OsVersion => fact(|facts| version(&facts.os.version)),
            Variable::OsKernel => fact(|facts| version(&facts.os.kernel)),
            Variable::OsArchitecture => fact(|facts| text(&facts.os.architecture)),
            Variable::HardwareVendor => fact(|facts| text(&facts.hardware.vendor)),
            Variable::HardwareModel => fact(|facts| text(&facts.hardware.model)),
            Variable::HardwareSerial => fact(|facts| text(&facts.hardware.serial)),
            Variable::HardwareCpuModel => fact(|facts| text(&facts.hardware.cpu_model)),
            Variable::HardwareCpuCores => fact(|facts| facts.hardware.cpu_cores.map(int)),
            Variable::HardwareMemoryBytes => fact(|facts| facts.hardware.memory_bytes.map(int)),
            Variable::DisksAllEncrypted => {
                let all = all_encrypted(self.facts(variable)?).ok_or(Missing::NotSent(variable))?;
                Ok(Value::Bool(all))
            }
            Variable::UsersAdministrators => {
                let users = &self.users().map_err(|_| Missing::NotSent(variable))?.users;
                Ok(int(users.iter().filter(|user| user.administrator).count()))
            }
            Variable::AgentVersion => fact(|facts| version(&facts.agent_version)),
            Variable::FactsCollectedAt => Ok(Value::Time(self.facts(variable)?.collected_at)),
            // The checker hands these out as lists and by key only.
            Variable::Labels
            | Variable::OwnerGroups
            | Variable::Packages
            | Variable::Users
            | Variable::Signals => Err(Missing::Kind),
        }
    }
}

/// Counts truths until one decides: a true one of `exists` and `||`, a false one of `all` and `&&`.
struct Tally<'a> {
    decides: bool,
    result: Found<'a, bool>,
}

impl<'a> Tally<'a> {
    fn new(quantifier: Quantifier) -> Tally<'a> {
        let decides = quantifier == Quantifier::Exists;
        Tally {
            decides,
            result: Ok(!decides),
        }
    }

    fn count(&mut self, truth: Found<'a, bool>) -> ControlFlow<()> {
        match truth {
            Ok(value) if value == self.decides => {
                self.result = Ok(value);
                return ControlFlow::Break(());
            }
            // The first thing that is missing is the one that is named.
            Err(missing) if self.result.is_ok() => self.result = Err(missing),
            Ok(_) | Err(_) => {}
        }
        ControlFlow::Continue(())
    }
}

fn item<'a>(mut scope: Option<&Scope<'a, '_>>, depth: usize) -> Found<'a, Value<'a>> {
    for _ in 0..depth {
        scope = scope.and_then(|scope| scope.outer);
    }
    scope.map(|scope| scope.item).ok_or(Missing::Kind)
}

fn is_there<'a>(found: Found<'a, Value<'a>>) -> Found<'a, bool> {
    match found {
        Ok(_) => Ok(true),
        Err(Missing::Absent(_) | Missing::NoLabel(_) | Missing::NoPackage(_) | Missing::NoSignal(..)) => {
            Ok(false)
        }
        Err(missing) => Err(missing),
    }
}

fn compare<'a>(left: Value<'a>, right: Value<'a>) -> Found<'a, Ordering> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(&right)),
        (Value::Int(left), Value::Int(right)) | (Value::Duration(left), Value::Duration(right)) => {
            Ok(left.cmp(&right))
        }
        (Value::Text(left), Value::Text(right)) => Ok(left.cmp(right)),
        (Value::Version(left), Value::Version(right)) => Ok(compare_versions(left, right)),
        (Value::Time(left), Value::Time(right)) => Ok(left.cmp(&right)),
        _ => Err(Missing::Kind),
    }
}

const fn holds(relation: Relation, order: Ordering) -> bool {
    match relation {
        Relation::Eq => order.is_eq(),
        Relation::Ne => order.is_ne(),
        Relation::Lt => order.is_lt(),
        Relation::Le => order.is_le(),
        Relation::Gt => order.is_gt(),
        Relation::Ge => order.is_ge(),
    }
}

fn calculate<'a>(operator: Operator, left: Value<'a>, right: Value<'a>) -> Found<'a, Value<'a>> {
    let time = |micros: i64| Value::Time(Timestamp::from_micros(micros));
    let value = match (operator, left, right) {
        (Operator::Divide | Operator::Remainder, Value::Int(_), Value::Int(0)) => {
            return Err(Missing::DivisionByZero);
        }
        (_, Value::Int(left), Value::Int(right)) => match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
            Operator::Remainder => left.checked_rem(right),
        }
        .map(Value::Int),
        (Operator::Add, Value::Time(at), Value::Duration(by))
        | (Operator::Add, Value::Duration(by), Value::Time(at)) => at.as_micros().checked_add(by).map(time),
        (Operator::Subtract, Value::Time(at), Value::Duration(by)) => {
            at.as_micros().checked_sub(by).map(time)
        }
        (Operator::Subtract, Value::Time(left), Value::Time(right)) => left
            .as_micros()
            .checked_sub(right.as_micros())
            .map(Value::Duration),
        (Operator::Add, Value::Duration(left), Value::Duration(right)) => {
            left.checked_add(right).map(Value::Duration)
        }
        (Operator::Subtract, Value::Duration(left), Value::Duration(right)) => {
            left.checked_sub(right).map(Value::Duration)
        }
        _ => return Err(Missing::Kind),
    };
    value.ok_or(Missing::TooLarge)
}

/// A count or size; what is larger than any number here is the largest.
fn int<'a>(value: impl TryInto<i64>) -> Value<'a> {
    Value::Int(value.try_into().unwrap_or(i64::MAX))
}

fn text(text: &Option<String>) -> Option<Value<'_>> {
    text.as_deref().map(Value::Text)
}

fn version(text: &Option<String>) -> Option<Value<'_>> {
    text.as_deref().map(Value::Version)
}

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| text.chars().take(super::SHOWN_CHARS_MAX).collect::<String>();
        match self {
            Missing::NotSent(variable) if variable.is_of_the_device() => {
                write!(f, "the device has not sent {variable}")
            }
            Missing::NotSent(variable) => write!(f, "{variable} is not known here"),
            Missing::Absent(variable) => write!(f, "{variable} is absent"),
            Missing::NoLabel(key) => write!(f, "the device has no label {}", shown(key)),
            Missing::NoPackage(name) => write!(f, "the package {} is not installed", shown(name)),
            Missing::NoSignal(source, field) => {
                write!(f, "{} has said nothing about {}", shown(source), field.as_str())
            }
            Missing::OldSignal(source, field) => {
                write!(
                    f,
                    "what {} said about {} is too old",
                    shown(source),
                    field.as_str()
                )
            }
            Missing::TooLarge => f.write_str("a number is larger than can be counted"),
            Missing::DivisionByZero => f.write_str("a number is divided by zero"),
            Missing::NotTime(text) => {
                write!(f, "{:?} is no time of the form 2026-11-23T21:00:00Z", shown(text))
            }
            Missing::NotDuration(text) => write!(f, "{:?} is no duration such as 24h", shown(text)),
            Missing::Kind => f.write_str("the expression compares values of two kinds"),
        }
    }
}
