//! The facts of `data/csp-nodes.tsv`.

use std::{collections::BTreeMap, sync::LazyLock};

/// Windows 10, version 22H2: what is newer must not be written.
const BUILD_MAX: u32 = 19_045;

/// What one node takes.
pub struct NodeFacts {
    pub verbs: Vec<&'static str>,
    pub format: &'static str,
    pub allowed_type: &'static str,
    pub allowed: &'static str,
    pub is_deprecated: bool,
    builds: Vec<&'static str>,
}

impl NodeFacts {
    /// Whether some build up to the newest supported one has the node.
    pub fn is_released(&self) -> bool {
        let build = |text: &&str| text.split('.').nth(2).and_then(|build| build.parse::<u32>().ok());
        self.builds.is_empty()
            || self
                .builds
                .iter()
                .filter_map(build)
                .any(|build| build <= BUILD_MAX)
    }

    /// Whether the node takes a value.
    pub fn allows(&self, data: &str) -> bool {
        let is_of_format = match self.format {
            "int" => data.parse::<i64>().is_ok(),
            "bool" => data == "true" || data == "false",
            "node" => data.is_empty(),
            _ => !data.is_empty(),
        };
        let is_allowed = match self.allowed_type {
            "ENUM" => self.allowed.split(',').any(|value| value == data),
            "Range" => self
                .allowed
                .trim_matches(['[', ']'])
                .split_once('-')
                .and_then(|(min, max)| Some(min.parse::<i64>().ok()?..=max.parse::<i64>().ok()?))
                .zip(data.parse::<i64>().ok())
                .is_some_and(|(range, number)| range.contains(&number)),
            _ => true,
        };
        is_of_format && is_allowed
    }
}

static NODES: LazyLock<BTreeMap<&str, NodeFacts>> = LazyLock::new(|| {
    include_str!("../data/csp-nodes.tsv")
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [
                locuri,
                access,
                format,
                _,
                allowed_type,
                allowed,
                builds,
                deprecated,
            ] = columns[..]
            else {
                panic!("a row has eight columns: {line}");
            };
            let facts = NodeFacts {
                verbs: access.split('/').collect(),
                format,
                allowed_type,
                allowed,
                is_deprecated: deprecated == "True",
                builds: builds.split(", ").filter(|build| !build.is_empty()).collect(),
            };
            (locuri, facts)
        })
        .collect()
});

/// The facts about the node of a LocURI: names in braces match any one segment.
pub fn facts(locuri: &str) -> Option<&'static NodeFacts> {
    NODES.get(locuri).or_else(|| {
        NODES
            .iter()
            .find(|(pattern, _)| matches(pattern, locuri))
            .map(|(_, facts)| facts)
    })
}

fn matches(pattern: &str, locuri: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('/'), locuri.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given => {}
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {}
            _ => return false,
        }
    }
}

#[test]
fn the_facts_tell_good_from_bad() {
    let length =
        facts("./Device/Vendor/MSFT/Policy/Config/DeviceLock/MinDevicePasswordLength").expect("it is there");
    assert!(length.allows("4") && length.allows("16"));
    assert!(!length.allows("17") && !length.allows("3") && !length.allows("x"));
    let bluetooth =
        facts("./Device/Vendor/MSFT/Policy/Config/Connectivity/AllowBluetooth").expect("it is there");
    assert!(bluetooth.allows("0") && bluetooth.allows("2") && !bluetooth.allows("1"));
    assert!(facts("./Device/Vendor/MSFT/WiFi/Profile/any%20name/WlanXml").is_some());
    assert!(facts("./Device/Vendor/MSFT/WiFi/Profile/any/WlanXml/more").is_none());
    let domain = facts("./Vendor/MSFT/Firewall/MdmStore/DomainProfile/EnableFirewall").expect("it is there");
    assert_eq!(domain.verbs, ["Replace"]);
    let future =
        facts("./Device/Vendor/MSFT/Policy/Config/DeviceLock/PasswordComplexity").expect("it is there");
    assert!(!future.is_released());
}
