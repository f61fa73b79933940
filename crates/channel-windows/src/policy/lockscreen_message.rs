//! `lockscreen.message`: the notice before signing in, which is shown only together with a title.

use muster_model::settings::SettingValue;

use super::{Context, POLICY, Script};
use crate::syncml::Format;

const TITLE: &str = "Notice";

pub(super) fn write(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    let message = value.as_text().unwrap_or_default();
    for (node, text) in [
        ("InteractiveLogon_MessageTitleForUsersAttemptingToLogOn", TITLE),
        ("InteractiveLogon_MessageTextForUsersAttemptingToLogOn", message),
    ] {
        let locuri = format!("{POLICY}LocalPoliciesSecurityOptions/{node}");
        script.replace(&locuri, Format::Text, text.to_owned());
    }
}
