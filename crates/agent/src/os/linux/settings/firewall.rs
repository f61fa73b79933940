//! `firewall.enabled` and `firewall.block_inbound`: one nftables table of Muster's own, included by nftables.conf(5).
//!
//! A packet dropped by any table is gone, so no other table can weaken this one; only flushing can, which is read back.
//! Outbound traffic, answers to it and the loopback are always let through: the management connection survives.

use muster_model::settings::SettingValue;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};
use super::super::tools::{ToolError, Tools};

const MAIN_FILE: &str = "/etc/nftables.conf";
const FILE: &str = "/etc/nftables.d/muster.nft";
const INCLUDE: &str = "include \"/etc/nftables.d/muster.nft\"";
const FOLDER_INCLUDES: [&str; 2] = [
    "include \"/etc/nftables.d/*.nft\"",
    "include \"/etc/nftables.d/*\"",
];
const TABLE: &str = "muster";

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    if !super::boolean(value).ok_or_else(super::wrong_type)? {
        return Ok(());
    }
    if machine.root.is_real() && !machine.tools.has("nft") {
        return Err(Refusal::Failed("nft (nftables) is not installed".to_owned()));
    }
    let block = machine
        .settings
        .get("firewall.block_inbound")
        .and_then(super::boolean)
        == Some(true);
    plan.own(FILE, "#", &ruleset(block), 0o644, &[Effect::FirewallLoad]);
    plan.edit(MAIN_FILE, &[Effect::FirewallLoad], |text| {
        let included = text
            .lines()
            .any(|line| line.trim() == INCLUDE || FOLDER_INCLUDES.contains(&line.trim()));
        let start = if text.is_empty() {
            "#!/usr/sbin/nft -f\n"
        } else {
            text
        };
        let newline = if start.ends_with('\n') { "" } else { "\n" };
        Ok(if included {
            text.to_owned()
        } else {
            format!("{start}{newline}{INCLUDE}\n")
        })
    });
    Ok(())
}

pub(super) fn observe_enabled(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    observe(machine, value, |policy| policy.is_some())
}

pub(super) fn observe_block_inbound(
    machine: Machine<'_>,
    value: &SettingValue,
) -> Result<Finding, FileError> {
    observe(machine, value, |policy| policy == Some("drop"))
}

/// Makes the kernel's ruleset that of the file, or removes Muster's table where there is no file.
pub(crate) fn load(root: &Root, tools: Tools) -> Result<(), ToolError> {
    if root.exists(FILE) {
        return tools.run("nft", &["-f", FILE]).map(drop);
    }
    let remove = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
    tools
        .run_with_input("nft", &["-f", "-"], remove.as_bytes())
        .map(drop)
}

/// Declaring the table before deleting it makes loading it again work whether or not it is there.
fn ruleset(block_inbound: bool) -> String {
    let (policy, refusals) = if block_inbound {
        ("drop", "")
    } else {
        ("accept", "    ct state invalid drop\n")
    };
    format!(
        "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n\
         \x20 chain input {{\n\
         \x20   type filter hook input priority filter; policy {policy};\n\
         {refusals}\
         \x20   iif \"lo\" accept\n\
         \x20   ct state established,related accept\n\
         \x20   icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept\n\
         \x20   udp sport 67 udp dport 68 accept\n\
         \x20   udp sport 547 udp dport 546 accept\n\
         \x20 }}\n\
         \x20 chain output {{\n\
         \x20   type filter hook output priority filter; policy accept;\n\
         \x20 }}\n\
         }}\n"
    )
}

fn observe(
    machine: Machine<'_>,
    value: &SettingValue,
    fits: impl Fn(Option<&str>) -> bool,
) -> Result<Finding, FileError> {
    let Some(wanted) = super::boolean(value) else {
        return Ok(super::wrong_type_found());
    };
    if !wanted {
        return Ok(Finding::InForce {
            observed: value.clone(),
            note: None,
        });
    }
    let (policy, why) = if machine.root.is_real() {
        if !machine.tools.has("nft") {
            return Ok(Finding::Missing {
                observed: None,
                why: "nft (nftables) is not installed".to_owned(),
            });
        }
        match machine.tools.run("nft", &["list", "table", "inet", TABLE]) {
            Ok(listing) => (
                input_policy(&listing),
                "the kernel's table lets inbound traffic through".to_owned(),
            ),
            Err(error) => (None, format!("the kernel has no table of Muster: {error}")),
        }
    } else {
        of_files(machine.root)?
    };
    let observed = SettingValue::Bool(fits(policy.as_deref()));
    Ok(if fits(policy.as_deref()) {
        Finding::InForce { observed, note: None }
    } else {
        Finding::Missing {
            observed: Some(observed),
            why,
        }
    })
}

/// The policy of the input chain that loading nftables.conf gives, else why there is none.
fn of_files(root: &Root) -> Result<(Option<String>, String), FileError> {
    let text = root.read(MAIN_FILE)?.unwrap_or_default();
    let mut policy = None;
    let mut why = format!("{MAIN_FILE} does not include {FILE}");
    for line in text.lines().map(str::trim) {
        if line == INCLUDE || FOLDER_INCLUDES.contains(&line) {
            policy = root.read(FILE)?.and_then(|text| input_policy(&text));
            why = format!("{FILE} has no policy that drops inbound traffic");
        } else if line == "flush ruleset" || line == format!("delete table inet {TABLE}") {
            policy = None;
            why = format!("{MAIN_FILE} removes the table of {FILE} again ({line})");
        }
    }
    Ok((policy, why))
}

fn input_policy(text: &str) -> Option<String> {
    let start = text.find("chain input")?;
    let chain = &text[start..start + text[start..].find('}').unwrap_or(text.len() - start)];
    let policy = chain.split("policy ").nth(1)?.split([';', ' ']).next()?;
    chain.contains("hook input").then(|| policy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::{FILE, MAIN_FILE, input_policy, ruleset};
    use muster_model::report::SettingState;
    use serde_json::json;

    const ENABLED: &str = "firewall.enabled";
    const BLOCK: &str = "firewall.block_inbound";

    #[test]
    fn the_table_is_included_after_what_was_there_and_undone() {
        let main = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n}";
        let machine = TestMachine::new().with(MAIN_FILE, main);
        machine.check_lifecycle(json!({ENABLED: true, BLOCK: true}), |machine, reports| {
            assert!(
                reports
                    .values()
                    .all(|report| report.state == SettingState::Verified),
                "{reports:?}"
            );
            assert_eq!(
                machine.text(MAIN_FILE),
                format!("{main}\ninclude \"/etc/nftables.d/muster.nft\"\n")
            );
            let rules = machine.text(FILE);
            for kept in [
                "iif \"lo\" accept",
                "ct state established,related accept",
                "hook output priority filter; policy accept",
            ] {
                assert!(rules.contains(kept), "{kept}");
            }
        });
    }

    #[test]
    fn enabled_alone_does_not_block() {
        let machine = TestMachine::new();
        assert_eq!(
            machine.apply(json!({ENABLED: true}))[ENABLED].state,
            SettingState::Verified
        );
        assert_eq!(input_policy(&machine.text(FILE)).as_deref(), Some("accept"));
        assert_eq!(
            machine.read_back(json!({BLOCK: true}))[BLOCK].state,
            SettingState::Failed
        );
        assert_eq!(input_policy(&ruleset(true)).as_deref(), Some("drop"));
    }

    #[test]
    fn flushing_after_the_include_is_found() {
        let machine = TestMachine::new();
        machine.apply(json!({BLOCK: true}));
        machine.put(MAIN_FILE, &format!("{}flush ruleset\n", machine.text(MAIN_FILE)));
        let report = &machine.read_back(json!({BLOCK: true}))[BLOCK];
        assert_eq!(report.state, SettingState::Failed);
        assert!(report.detail.as_ref().unwrap().contains("flush ruleset"));
    }
}
