//! polkit(8) rules: what users may ask privileged programs to do. Root is never bound.
//!
//! polkit asks the rule files in the order of their names and takes the first answer. Other files' rules are programs
//! that cannot be judged here, so one that is asked before Muster's is reported.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;

const FOLDERS: [&str; 4] = [
    "/etc/polkit-1/rules.d",
    "/run/polkit-1/rules.d",
    "/usr/local/share/polkit-1/rules.d",
    "/usr/share/polkit-1/rules.d",
];
const ACTIONS_FOLDER: &str = "/usr/share/polkit-1/actions";

/// One setting as a list of forbidden actions.
struct Ban {
    topic: &'static str,
    /// Condition on `action.id`, in the language of polkit's rules.
    condition: &'static str,
}

const ACCOUNTS: Ban = Ban {
    topic: "accounts",
    // A user's own password stays the user's.
    condition: "action.id.indexOf(\"org.freedesktop.accounts.\") === 0 && \
                action.id !== \"org.freedesktop.accounts.change-own-password\"",
};
const WIFI: Ban = Ban {
    topic: "wifi-managed-only",
    condition: "action.id.indexOf(\"org.freedesktop.NetworkManager.settings.modify.\") === 0",
};
const TETHERING: Ban = Ban {
    topic: "tethering",
    condition: "action.id.indexOf(\"org.freedesktop.NetworkManager.wifi.share.\") === 0",
};

impl Ban {
    fn file(&self) -> String {
        format!("{}/00-muster-{}.rules", FOLDERS[0], self.topic)
    }

    fn body(&self) -> String {
        format!(
            "polkit.addRule(function(action, subject) {{\n    if ({} && subject.user !== \"root\") {{\n        \
             return polkit.Result.NO;\n    }}\n}});\n",
            self.condition
        )
    }

    fn plan(&self, machine: Machine<'_>, plan: &mut Plan) -> Result<(), Refusal> {
        if machine.root.is_real() && !machine.root.exists(ACTIONS_FOLDER) {
            return Err(Refusal::NotExpressible("polkit is not installed".to_owned()));
        }
        plan.own(&self.file(), "//", &self.body(), 0o644, &[]);
        Ok(())
    }

    fn observe(&self, machine: Machine<'_>, banned: bool, free: bool) -> Result<Finding, FileError> {
        if machine.root.is_real() && !machine.root.exists(ACTIONS_FOLDER) {
            return Ok(Finding::NotExpressible("polkit is not installed".to_owned()));
        }
        let file = self.file();
        if !machine
            .root
            .read(&file)?
            .is_some_and(|text| text.ends_with(&self.body()))
        {
            let why = format!("{file} does not forbid it");
            return Ok(Finding::Missing {
                observed: Some(SettingValue::Bool(free)),
                why,
            });
        }
        let observed = SettingValue::Bool(banned);
        let first = machine
            .root
            .drop_ins(&FOLDERS, ".rules")
            .into_iter()
            .find(|other| !other.contains("/00-muster-"));
        let earlier = first.filter(|other| base_name(other) < base_name(&file));
        Ok(match earlier {
            Some(other) => Finding::Applied {
                observed,
                why: format!("{other} is asked first and may allow it"),
            },
            None => Finding::InForce { observed, note: None },
        })
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

macro_rules! settings {
    ($($ban:ident, $banned_by:literal, $plan:ident, $observe:ident;)*) => {
        $(
            pub(super) fn $plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
                if super::boolean(value).ok_or_else(super::wrong_type)? == $banned_by {
                    return $ban.plan(machine, plan);
                }
                Ok(())
            }

            pub(super) fn $observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
                match super::boolean(value) {
                    None => Ok(super::wrong_type_found()),
                    Some($banned_by) => $ban.observe(machine, $banned_by, !$banned_by),
                    Some(_) => Ok(Finding::InForce { observed: value.clone(), note: None }),
                }
            }
        )*
    };
}

settings! {
    ACCOUNTS, false, plan_accounts, observe_accounts;
    WIFI, true, plan_wifi, observe_wifi;
    TETHERING, false, plan_tethering, observe_tethering;
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    #[test]
    fn rules_are_written_and_undone() {
        let settings =
            json!({"accounts.modify": false, "wifi.managed_only": true, "tethering.allowed": false});
        TestMachine::new().check_lifecycle(settings, |machine, reports| {
            assert!(
                reports
                    .values()
                    .all(|report| report.state == SettingState::Verified),
                "{reports:?}"
            );
            assert!(
                machine
                    .text("/etc/polkit-1/rules.d/00-muster-accounts.rules")
                    .contains("polkit.Result.NO")
            );
        });
    }

    #[test]
    fn a_rule_that_is_asked_first_is_named_and_an_edited_one_fails() {
        let earlier = "/usr/share/polkit-1/rules.d/00-kiosk.rules";
        let machine = TestMachine::new().with(earlier, "polkit.addRule(function() {});\n");
        let report = &machine.apply(json!({"accounts.modify": false}))["accounts.modify"];
        assert_eq!(report.state, SettingState::Applied);
        assert!(report.detail.as_ref().unwrap().starts_with(earlier));
        machine.put("/etc/polkit-1/rules.d/00-muster-accounts.rules", "// nothing\n");
        let report = &machine.read_back(json!({"accounts.modify": false}))["accounts.modify"];
        assert_eq!(report.state, SettingState::Failed);
    }
}
