//! `usb.data`: usbguard blocks what is plugged in.
//!
//! Built-in devices, hubs, keyboards and mice keep working, so that nobody is locked out; a device that is a keyboard and
//! something else besides is blocked. usbguard takes the first rule that fits, and its own rule file comes first.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::formats::key_value::{self, Style};
use super::super::tools::{ToolError, Tools};

const CONFIGURATION: &str = "/etc/usbguard/usbguard-daemon.conf";
const RULE_FOLDER: &str = "/etc/usbguard/rules.d/";
const FILE: &str = "/etc/usbguard/rules.d/00-muster.conf";
/// usbguard-rules.conf(5); the classes are those of usb.org.
const RULES: [&str; 3] = [
    "allow with-connect-type \"hardwired\"",
    "block with-interface one-of { 01:*:* 02:*:* 05:*:* 06:*:* 07:*:* 08:*:* 0a:*:* 0b:*:* 0d:*:* 0e:*:* 0f:*:* 10:*:* \
     11:*:* dc:*:* e0:*:* ef:*:* fe:*:* ff:*:* }",
    "allow with-interface one-of { 03:*:* 09:*:* }",
];
/// usbguard-daemon.conf(5): rules are asked for what is there and what comes, and what no rule names is blocked.
const DAEMON: [(&str, &str); 3] = [
    ("ImplicitPolicyTarget", "block"),
    ("PresentDevicePolicy", "apply-policy"),
    ("InsertedDevicePolicy", "apply-policy"),
];
const NOT_INSTALLED: &str = "usbguard is not installed; as root: apt-get install usbguard";

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if super::text(value).ok_or_else(super::wrong_type)? != "deny" {
        return Ok(());
    }
    if !machine.root.exists(CONFIGURATION) {
        return Err(Refusal::NotExpressible(NOT_INSTALLED.to_owned()));
    }
    let body: String = RULES.iter().map(|rule| format!("{rule}\n")).collect();
    // usbguard refuses to start where others may read its rules.
    plan.own(FILE, "#", &body, 0o600, &[Effect::UsbGuardRestart]);
    plan.edit(CONFIGURATION, &[Effect::UsbGuardRestart], |text| {
        let set =
            |text: String, (key, value): (&str, &str)| key_value::set(&text, Style::Assignment, key, value);
        let text = DAEMON.into_iter().fold(text.to_owned(), set);
        Ok(match key_value::get(&text, Style::Assignment, "RuleFolder") {
            Some(folder) if !folder.is_empty() => text,
            Some(_) | None => key_value::set(&text, Style::Assignment, "RuleFolder", RULE_FOLDER),
        })
    });
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let Some(word) = super::text(value) else {
        return Ok(super::wrong_type_found());
    };
    let in_force = Finding::InForce {
        observed: value.clone(),
        note: None,
    };
    if word != "deny" {
        return Ok(in_force);
    }
    let Some(daemon) = machine.root.read(CONFIGURATION)? else {
        return Ok(Finding::NotExpressible(NOT_INSTALLED.to_owned()));
    };
    let why = match daemon_obstacle(&daemon) {
        Some(why) => Some(why),
        None => rule_obstacle(machine.root, &daemon)?,
    };
    let why = why.or_else(|| not_running(machine));
    Ok(match why {
        None => in_force,
        Some(why) => Finding::Missing {
            observed: Some(SettingValue::Text("allow".to_owned())),
            why,
        },
    })
}

fn daemon_obstacle(daemon: &str) -> Option<String> {
    DAEMON.iter().find_map(|(key, wanted)| {
        let found = key_value::get(daemon, Style::Assignment, key).unwrap_or_default();
        // Rejecting takes a device off the bus, which is stricter.
        let strict = found == *wanted || (*wanted == "block" && found == "reject");
        (!strict).then(|| format!("{CONFIGURATION} sets {key} to {found:?}, not to {wanted}"))
    })
}

/// A rule of ours that is not read, or one of others that lets something in.
fn rule_obstacle(root: &Root, daemon: &str) -> Result<Option<String>, FileError> {
    let of = |key: &str| key_value::get(daemon, Style::Assignment, key).filter(|path| path.starts_with('/'));
    let mut files: Vec<String> = of("RuleFile").into_iter().collect();
    if let Some(folder) = of("RuleFolder") {
        let folder = folder.trim_end_matches('/').to_owned();
        files.extend(
            root.list(&folder)
                .into_iter()
                .map(|name| format!("{folder}/{name}")),
        );
    }
    let mut seen = Vec::new();
    for file in files {
        let text = root.read(&file)?.unwrap_or_default();
        for line in text.lines().map(str::trim) {
            if RULES.contains(&line) {
                seen.push(line.to_owned());
            } else if line.starts_with("allow") {
                let shown: String = line.chars().take(80).collect();
                return Ok(Some(format!("{file} lets a device in: {shown}")));
            }
        }
        if file == FILE && root.stat(&file).is_some_and(|stat| stat.mode & 0o077 != 0) {
            return Ok(Some(format!(
                "{file} is readable by others, so usbguard does not start"
            )));
        }
    }
    Ok((seen != RULES).then(|| "usbguard does not read the rules".to_owned()))
}

fn not_running(machine: Machine<'_>) -> Option<String> {
    if !machine.root.is_real() {
        return None;
    }
    let show = ["show", "--property=ActiveState", "--value", "usbguard.service"];
    match machine.tools.run("systemctl", &show) {
        Ok(state) if state.trim() == "active" => None,
        Ok(_) => Some("usbguard is not running; as root: systemctl enable --now usbguard".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

pub(crate) fn restart(tools: Tools) -> Result<(), ToolError> {
    tools
        .run("systemctl", &["try-restart", "usbguard.service"])
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{CONFIGURATION, FILE};
    use muster_model::report::SettingState;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "usb.data";
    const DEBIAN: &str = "RuleFile=/etc/usbguard/rules.conf\n\nRuleFolder=/etc/usbguard/rules.d/\n\n\
                          ImplicitPolicyTarget=allow\nPresentDevicePolicy=keep\nInsertedDevicePolicy=apply-policy\n";

    #[test]
    fn rules_are_private_and_everything_goes_back() {
        let machine = TestMachine::new().with(CONFIGURATION, DEBIAN);
        machine.check_lifecycle(json!({KEY: "deny"}), |machine, reports| {
            assert_eq!(reports[KEY].state, SettingState::Weaker, "{reports:?}");
            assert!(
                machine
                    .text(CONFIGURATION)
                    .contains("\nImplicitPolicyTarget=block\nPresentDevicePolicy=apply-policy\n")
            );
            let mode = machine.path(FILE).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        });
    }

    #[test]
    fn a_device_that_somebody_let_in_is_named() {
        let machine = TestMachine::new()
            .with(CONFIGURATION, DEBIAN)
            .with("/etc/usbguard/rules.conf", "allow id 0951:1666 serial \"x\"\n");
        let report = &machine.apply(json!({KEY: "deny"}))[KEY];
        assert_eq!(report.state, SettingState::Failed);
        assert_eq!(
            report.detail.as_deref(),
            Some("/etc/usbguard/rules.conf lets a device in: allow id 0951:1666 serial \"x\"")
        );
    }

    #[test]
    fn without_usbguard_the_report_says_what_to_install() {
        let report = &TestMachine::new().apply(json!({KEY: "deny"}))[KEY];
        assert_eq!(report.state, SettingState::NotExpressible);
        assert!(report.detail.as_ref().unwrap().contains("usbguard"));
    }
}
