//! `kiosk.app`: assigned access for one app, in an account that the platform makes and signs in by itself.

use muster_model::settings::SettingValue;

use super::{Context, Script};
use crate::{syncml::Format, xml::Element};

const NODE: &str = "./Vendor/MSFT/AssignedAccess/Configuration";
const ACCESS_2017: &str = "http://schemas.microsoft.com/AssignedAccess/2017/config";
const ACCESS_2018: &str = "http://schemas.microsoft.com/AssignedAccess/201810/config";
const PROFILE_ID: &str = "{6e9d0c7a-3a55-8c1e-9d0f-2b7c5a4e1f60}";

pub(super) fn write(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    let app = Element::new("KioskModeApp").attribute("AppUserModelId", value.as_text().unwrap_or_default());
    let profile = Element::new("Profile").attribute("Id", PROFILE_ID).child(app);
    let config = Element::new("Config")
        .child(Element::new("AutoLogonAccount").attribute("rs5:DisplayName", "Kiosk"))
        .child(Element::new("DefaultProfile").attribute("Id", PROFILE_ID));
    let configuration = Element::new("AssignedAccessConfiguration")
        .attribute("xmlns", ACCESS_2017)
        .attribute("xmlns:rs5", ACCESS_2018)
        .child(Element::new("Profiles").child(profile))
        .child(Element::new("Configs").child(config));
    script.add_or_replace(NODE, "", Format::Text, configuration.write());
}
