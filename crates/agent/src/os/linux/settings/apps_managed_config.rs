//! `apps.managed_config`: policies of browsers that read a folder of them.
//!
//! Chromium and its relatives read every file of a folder, and of two values for one policy that of the file that sorts last
//! counts; Firefox reads one file. A text that is JSON stands for that value, any other text for itself.

use std::collections::BTreeMap;

use muster_model::settings::SettingValue;
use serde_json::{Map, Value};

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::managed::OWNED_MARK;

/// Sorted last.
const NAME: &str = "zz-muster.json";
const FIREFOX_FILE: &str = "/etc/firefox/policies/policies.json";
/// A member that no browser knows, and that says whose the file is.
const MARK: &str = "//";

/// Apps with their folder; `None` is Firefox.
const APPS: [(&str, Option<&str>); 9] = [
    ("chromium", Some("/etc/chromium/policies/managed")),
    ("org.chromium.Chromium", Some("/etc/chromium/policies/managed")),
    ("google-chrome", Some("/etc/opt/chrome/policies/managed")),
    ("com.google.Chrome", Some("/etc/opt/chrome/policies/managed")),
    ("microsoft-edge", Some("/etc/opt/edge/policies/managed")),
    ("com.microsoft.Edge", Some("/etc/opt/edge/policies/managed")),
    ("brave", Some("/etc/brave/policies/managed")),
    ("firefox", None),
    ("org.mozilla.firefox", None),
];

type Policies = Map<String, Value>;

/// What is asked of the browsers that can be asked, by file, and the apps that cannot.
struct Asked {
    files: BTreeMap<String, (Option<&'static str>, Policies)>,
    unknown: Vec<String>,
}

impl Asked {
    fn read(value: &SettingValue) -> Option<Asked> {
        let mut asked = Asked {
            files: BTreeMap::new(),
            unknown: Vec::new(),
        };
        for item in super::list(value)? {
            let app = super::member(item, "app").and_then(super::text)?;
            let SettingValue::Object(values) = super::member(item, "values")? else {
                return None;
            };
            let Some((_, folder)) = APPS.iter().find(|(name, _)| *name == app) else {
                asked.unknown.push(app.chars().take(64).collect());
                continue;
            };
            let file = folder.map_or_else(|| FIREFOX_FILE.to_owned(), |folder| format!("{folder}/{NAME}"));
            let (_, policies) = asked.files.entry(file).or_insert((*folder, Map::new()));
            for (name, value) in values {
                policies.insert(name.clone(), json(super::text(value)?));
            }
        }
        Some(asked)
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

pub(super) fn plan(_machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let asked = Asked::read(value).ok_or_else(super::wrong_type)?;
    for (file, (folder, policies)) in asked.files {
        let mut document = Map::new();
        document.insert(MARK.to_owned(), Value::String(OWNED_MARK.to_owned()));
        match folder {
            Some(_) => document.extend(policies),
            None => {
                document.insert("policies".to_owned(), Value::Object(policies));
            }
        }
        let text =
            serde_json::to_string_pretty(&document).map_err(|error| Refusal::Failed(error.to_string()))?;
        plan.own_marked(&file, &format!("{text}\n"), 0o644);
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(asked) = Asked::read(value) else {
        return Ok(super::wrong_type_found());
    };
    for (file, (folder, policies)) in &asked.files {
        let found = match folder {
            Some(folder) => chromium(machine.root, folder)?,
            None => firefox(machine.root)?,
        };
        for (name, wanted) in policies {
            let why = match found.get(name) {
                Some((value, _)) if value == wanted => continue,
                Some((_, other)) => format!("{other} sets {name} otherwise"),
                None => format!("{file} does not set {name}"),
            };
            return Ok(Finding::Missing { observed: None, why });
        }
    }
    let observed = value.clone();
    if asked.unknown.is_empty() {
        return Ok(Finding::InForce { observed, note: None });
    }
    let why = format!("these apps read no policies: {}", asked.unknown.join(", "));
    if asked.files.is_empty() {
        return Ok(Finding::NotExpressible(why));
    }
    Ok(Finding::Weaker { observed, why })
}

/// Each policy with the file that decides it.
type Found = BTreeMap<String, (Value, String)>;

fn chromium(root: &Root, folder: &str) -> Result<Found, FileError> {
    let mut found = Found::new();
    for name in root.list(folder) {
        let file = format!("{folder}/{name}");
        found.extend(policies(&root.read(&file)?.unwrap_or_default(), &file));
    }
    Ok(found)
}

fn firefox(root: &Root) -> Result<Found, FileError> {
    let text = root.read(FIREFOX_FILE)?.unwrap_or_default();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(policies(&document["policies"].to_string(), FIREFOX_FILE))
}

/// A file that is no JSON object is not read at all.
fn policies(text: &str, file: &str) -> Found {
    let policies: Policies = serde_json::from_str(text).unwrap_or_default();
    let from_file = |(name, value)| (name, (value, file.to_owned()));
    policies.into_iter().map(from_file).collect()
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::FIREFOX_FILE;
    use muster_model::report::SettingState;
    use serde_json::{Value, json};

    const KEY: &str = "apps.managed_config";
    const CHROMIUM: &str = "/etc/chromium/policies/managed/zz-muster.json";

    #[test]
    fn texts_become_the_values_they_stand_for() {
        let policy = json!({KEY: [
            {"app": "chromium", "values": {"HomepageLocation": "https://x.example/", "SafeBrowsingProtectionLevel": "2",
                "URLBlocklist": "[\"a.example\"]"}},
            {"app": "firefox", "values": {"DisableTelemetry": "true"}},
        ]});
        TestMachine::new().check_lifecycle(policy, |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
            let chromium: Value = serde_json::from_str(&machine.text(CHROMIUM)).unwrap();
            assert_eq!(chromium["HomepageLocation"], "https://x.example/");
            assert_eq!(chromium["SafeBrowsingProtectionLevel"], 2);
            assert_eq!(chromium["URLBlocklist"], json!(["a.example"]));
            let firefox: Value = serde_json::from_str(&machine.text(FIREFOX_FILE)).unwrap();
            assert_eq!(firefox["policies"]["DisableTelemetry"], true);
        });
    }

    #[test]
    fn a_file_that_sorts_later_is_named() {
        let later = "/etc/chromium/policies/managed/zzz.json";
        let machine = TestMachine::new().with(later, r#"{"HomepageLocation": "https://other.example/"}"#);
        let report = &machine
            .apply(json!({KEY: [{"app": "chromium", "values": {"HomepageLocation": "https://x.example/"}}]}))
            [KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().starts_with(later));
    }

    #[test]
    fn a_lost_record_does_not_make_the_file_an_original() {
        let machine = TestMachine::new();
        let policy = json!({KEY: [{"app": "firefox", "values": {"DisableTelemetry": "true"}}]});
        machine.apply(policy.clone());
        std::fs::remove_file(machine.state_file("managed.json")).unwrap();
        machine.apply(policy);
        machine.apply(json!({}));
        assert!(!machine.exists(FIREFOX_FILE));
    }

    #[test]
    fn apps_without_a_folder_are_named() {
        let unknown = json!({"app": "org.gimp.GIMP", "values": {"a": "b"}});
        let report = &TestMachine::new().apply(json!({KEY: [unknown]}))[KEY];
        assert_eq!(report.state, SettingState::NotExpressible);
        let known = json!({"app": "chromium", "values": {"a": "b"}});
        let report = &TestMachine::new().apply(json!({KEY: [known, unknown]}))[KEY];
        assert_eq!(report.state, SettingState::Weaker);
        assert!(report.detail.as_ref().unwrap().contains("org.gimp.GIMP"));
    }
}
