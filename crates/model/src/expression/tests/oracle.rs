//! Random expressions on random devices: the same answer as another implementation of the language.
//!
//! Versions are not a part of CEL. Here they are whole numbers, which the other implementation compares as such.

use std::collections::HashMap;

use cel::{Context, Program, Value as CelValue};
use proptest::prelude::*;

use super::*;

/// Draws from one number, so that a failing case is told by it.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).expect("it is below a usize")
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (self.below(4) > 0).then_some(value)
    }
}

const WORDS: &[&str] = &["", "a", "b", "ab", "root", "sales", "\u{e9}\u{20ac}"];
const KEYS: &[&str] = &["a", "b", "department"];
const PACKAGES: &[&str] = &["a", "openssl", "curl"];

/// Writes well-typed expressions.
struct Writer {
    draw: Draw,
    /// Names of the items of macros around: all are texts or all numbers.
    texts: Vec<String>,
    ints: Vec<String>,
}

impl Writer {
    fn bool(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.draw.below(9) {
                0 => "true".to_owned(),
                1 => "false".to_owned(),
                2 => "disks.all_encrypted".to_owned(),
                3 => format!("has(labels.{})", self.draw.of(KEYS)),
                4 => format!(
                    "has({})",
                    self.draw.of(&["os.id", "device.owner", "hardware.cpu_cores"])
                ),
                5 => format!("has(packages.{})", self.draw.of(PACKAGES)),
                6 => format!("{:?} in labels", self.draw.of(KEYS)),
                7 => format!("{:?} in packages", self.draw.of(PACKAGES)),
                _ => format!(
                    "{:?} in {}",
                    self.draw.of(WORDS),
                    self.draw.of(&["users", "owner.groups"])
                ),
            };
        }
        let deeper = depth - 1;
        match self.draw.below(14) {
            0 | 1 => format!("({}) && ({})", self.bool(deeper), self.bool(deeper)),
            2 | 3 => format!("({}) || ({})", self.bool(deeper), self.bool(deeper)),
            4 => format!("{} && {} || {}", self.bool(0), self.bool(0), self.bool(0)),
            5 => format!("!({})", self.bool(deeper)),
            6 => format!(
                "({}) ? ({}) : ({})",
                self.bool(deeper),
                self.bool(deeper),
                self.bool(deeper)
            ),
            7 => {
                let relation = self.draw.of(&["==", "!=", "<", "<=", ">", ">="]);
                format!("{} {relation} {}", self.int(deeper), self.int(deeper))
            }
            8 => format!(
                "{} {} {}",
                self.text(deeper),
                self.draw.of(&["==", "!="]),
                self.text(deeper)
            ),
            9 => {
                let test = self.draw.of(&["startsWith", "endsWith", "contains"]);
                format!("{}.{test}({})", self.text(deeper), self.text(deeper))
            }
            10 => {
                let relation = self.draw.of(&["==", "!=", "<", "<=", ">", ">="]);
                format!("{} {relation} {}", self.version(deeper), self.version(deeper))
            }
            11 => format!(
                "{} in [{}, {}]",
                self.text(deeper),
                self.text(deeper),
                self.text(deeper)
            ),
            12 => {
                let name = format!("n{}", self.ints.len());
                let list = format!("[{}, {}, {}]", self.int(0), self.int(0), self.int(0));
                let quantifier = self.draw.of(&["exists", "all"]);
                self.ints.push(name.clone());
                let body = self.bool(deeper);
                self.ints.pop();
                format!("{list}.{quantifier}({name}, {body})")
            }
            _ => {
                let name = format!("t{}", self.texts.len());
                let list = self
                    .draw
                    .of(&["labels", "owner.groups", "users", "[\"a\", \"b\"]"]);
                let quantifier = self.draw.of(&["exists", "all"]);
                self.texts.push(name.clone());
                let body = self.bool(deeper);
                self.texts.pop();
                format!("{list}.{quantifier}({name}, {body})")
            }
        }
    }

    fn int(&mut self, depth: usize) -> String {
        if depth == 0 {
            let bound = self.ints.clone();
            return match self.draw.below(6) {
                0 if !bound.is_empty() => bound[self.draw.below(bound.len())].clone(),
                0 | 1 => self
                    .draw
                    .of(&["0", "-1", "7", "9223372036854775807", "-9223372036854775808"])
                    .to_owned(),
                2 => self.draw.below(4).to_string(),
                3 => "hardware.cpu_cores".to_owned(),
                4 => format!("size({})", self.draw.of(&["users", "labels", "owner.groups"])),
                _ => format!("size({})", self.text(0)),
            };
        }
        let deeper = depth - 1;
        match self.draw.below(4) {
            0 => format!("-({})", self.int(deeper)),
            1 => format!(
                "(({}) ? {} : {})",
                self.bool(deeper),
                self.int(deeper),
                self.int(deeper)
            ),
            _ => {
                let operator = self.draw.of(&["+", "-", "*", "/", "%"]);
                format!("({} {operator} {})", self.int(deeper), self.int(deeper))
            }
        }
    }

    fn text(&mut self, depth: usize) -> String {
        let bound = self.texts.clone();
        match self.draw.below(if depth == 0 { 7 } else { 9 }) {
            0 | 1 if !bound.is_empty() => bound[self.draw.below(bound.len())].clone(),
            0..=2 => format!("{:?}", self.draw.of(WORDS)),
            3 => self
                .draw
                .of(&["os.id", "device.owner", "device.name", "device.model"])
                .to_owned(),
            4 => format!("labels.{}", self.draw.of(KEYS)),
            5 => format!("labels[{:?}]", self.draw.of(KEYS)),
            6 => format!("string({})", self.version(0)),
            7 => format!(
                "labels[{}]",
                self.draw.of(&["labels.a", "labels.b", "device.owner", "os.id"])
            ),
            _ => format!(
                "(({}) ? {} : {})",
                self.bool(depth - 1),
                self.text(0),
                self.text(0)
            ),
        }
    }

    fn version(&mut self, depth: usize) -> String {
        match self.draw.below(if depth == 0 { 3 } else { 4 }) {
            0 => format!("version(\"{}\")", self.draw.below(4)),
            1 => self.draw.of(&["os.version", "agent.version"]).to_owned(),
            2 => format!("packages[{:?}]", self.draw.of(PACKAGES)),
            _ => format!(
                "(({}) ? {} : {})",
                self.bool(depth - 1),
                self.version(0),
                self.version(0)
            ),
        }
    }
}

/// A device of which some things are unknown and some absent.
struct Device {
    facts: Option<Facts>,
    labels: Option<Labels>,
    groups: Option<Vec<String>>,
    /// Owner and model, where the server knows the device.
    device: Option<(Option<String>, Option<String>)>,
}

impl Device {
    fn draw(draw: &mut Draw) -> Device {
        let word = |draw: &mut Draw| draw.of(WORDS).to_owned();
        let mut facts = known().facts;
        facts.os = OsFacts {
            id: Some(word(draw)).filter(|_| draw.below(4) > 0),
            version: draw.maybe("2".to_owned()),
            ..OsFacts::default()
        };
        facts.agent_version = draw.maybe("3".to_owned());
        facts.hardware.cpu_cores = draw.maybe(3);
        facts.disks[0].encrypted = Some(draw.below(2) == 0);
        facts.users.retain(|_| draw.below(2) == 0);
        facts.packages = PACKAGES
            .iter()
            .filter_map(|name| {
                let version = draw.below(4).to_string();
                (draw.below(2) == 0).then(|| Package {
                    name: (*name).to_owned(),
                    version,
                })
            })
            .collect();
        let mut labels = Labels::default();
        for key in KEYS {
            if draw.below(2) == 0 {
                let (key, value) = (
                    key.parse().expect("it is a key"),
                    word(draw).parse().expect("it is a value"),
                );
                labels.set(key, value).expect("there are few");
            }
        }
        let groups = WORDS
            .iter()
            .filter(|_| draw.below(3) == 0)
            .map(|word| (*word).to_owned())
            .collect();
        let (owner, model) = (word(draw), word(draw));
        let attributes = (draw.maybe(owner), draw.maybe(model));
        Device {
            facts: draw.maybe(facts),
            labels: draw.maybe(labels),
            groups: draw.maybe(groups),
            device: draw.maybe(attributes),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            platform: Platform::Linux,
            facts: self.facts.as_ref(),
            device: self.device.as_ref().map(|(owner, model)| DeviceAttributes {
                name: "ab",
                model: model.as_deref(),
                vendor: None,
                serial: None,
                owner: owner.as_deref(),
                ownership: Ownership::Company,
                attestation: AttestationLevel::Unattested,
                enrolled_at: NOW,
            }),
            labels: self.labels.as_ref(),
            owner: None,
            owner_groups: self.groups.as_deref(),
            signals: None,
        }
    }

    /// The same device as variables: what is unknown is not declared, what is absent is not a member.
    fn context(&self) -> Context<'static, 'static> {
        let mut context = Context::default();
        let number = |text: &str| text.parse::<i64>().expect("versions are whole numbers here");
        context
            .add_function("version", move |text: std::sync::Arc<String>| number(&text))
            .expect("there is no such function yet");
        let mut declare = |name: &str, value: CelValue| context.add_variable_from_value(name, value);
        if let Some(facts) = &self.facts {
            declare(
                "os",
                map([
                    ("id", facts.os.id.clone().map(CelValue::from)),
                    (
                        "version",
                        facts.os.version.as_deref().map(number).map(CelValue::from),
                    ),
                ]),
            );
            declare(
                "agent",
                map([(
                    "version",
                    facts.agent_version.as_deref().map(number).map(CelValue::from),
                )]),
            );
            let cores = facts
                .hardware
                .cpu_cores
                .map(|cores| CelValue::from(i64::from(cores)));
            declare("hardware", map([("cpu_cores", cores)]));
            declare(
                "disks",
                map([("all_encrypted", facts.disks[0].encrypted.map(CelValue::from))]),
            );
            if !facts.users.is_empty() {
                let names: Vec<CelValue> = facts.users.iter().map(|user| user.name.clone().into()).collect();
                declare("users", names.into());
            }
            if !facts.packages.is_empty() {
                let versions = facts.packages.iter();
                declare(
                    "packages",
                    map(versions.map(|package| {
                        (
                            package.name.as_str(),
                            Some(CelValue::from(number(&package.version))),
                        )
                    })),
                );
            }
        }
        if let Some(labels) = &self.labels {
            let labels = labels.iter();
            declare(
                "labels",
                map(labels.map(|(key, value)| (key.as_str(), Some(value.to_string().into())))),
            );
        }
        if let Some(groups) = &self.groups {
            let groups: Vec<CelValue> = groups.iter().cloned().map(CelValue::from).collect();
            declare("owner", map([("groups", Some(groups.into()))]));
        }
        if let Some((owner, model)) = &self.device {
            declare(
                "device",
                map([
                    ("name", Some("ab".into())),
                    ("owner", owner.clone().map(CelValue::from)),
                    ("model", model.clone().map(CelValue::from)),
                ]),
            );
        }
        context
    }
}

fn map<'a>(members: impl IntoIterator<Item = (&'a str, Option<CelValue>)>) -> CelValue {
    let members = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    members.collect::<HashMap<String, CelValue>>().into()
}

/// What the other implementation says; an error of its is our unknown.
fn oracle(text: &str, context: &Context<'_, '_>) -> Option<bool> {
    let program = Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match program.execute(context) {
        Ok(CelValue::Bool(value)) => Some(value),
        Ok(other) => panic!("{text} is {other:?}"),
        Err(_) => None,
    }
}

/// Both answers to the expression of a seed, or nothing where it is larger than we allow.
fn both(seed: u64, depth: usize) -> Option<(String, Option<bool>, Option<bool>)> {
    let mut writer = Writer {
        draw: Draw(seed),
        texts: Vec::new(),
        ints: Vec::new(),
    };
    let text = writer.bool(depth);
    let device = Device::draw(&mut writer.draw);
    let expression = match Expression::parse(&text) {
        Ok(expression) => expression,
        Err(error) => {
            let bounds = ["longer than", "nested deeper", "parts;", "steps and may take"];
            assert!(
                bounds.iter().any(|bound| error.detail.contains(bound)),
                "{text}: {error}"
            );
            return None;
        }
    };
    let context = device.context();
    let theirs = oracle(&text, &context);
    assert_eq!(
        oracle(&expression.to_string(), &context),
        theirs,
        "{text} is written as {expression}"
    );
    Some((text, expression.holds(&device.subject(), NOW), theirs))
}

#[test]
fn the_random_expressions_have_every_answer() {
    let answers: Vec<_> = (0..400)
        .filter_map(|seed| both(seed, 3))
        .map(|(_, ours, _)| ours)
        .collect();
    assert!(
        answers.len() > 350,
        "{} of 400 are within the bounds",
        answers.len()
    );
    for wanted in [Some(true), Some(false), None] {
        let count = answers.iter().filter(|answer| **answer == wanted).count();
        assert!(count > 40, "{count} of {} are {wanted:?}", answers.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(800)))]

    #[test]
    fn another_implementation_answers_the_same(seed in any::<u64>(), depth in 0_usize..5) {
        if let Some((text, ours, theirs)) = both(seed, depth) {
            prop_assert_eq!(ours, theirs, "{}", text);
        }
    }
}
