//! The family `usb`. `Connectivity/AllowUSBConnection` is never written: headsets alone obey it.

use muster_model::settings::SettingValue;

use super::{Context, POLICY, Script};
use crate::{syncml::Format, xml::Element};

/// Setup classes of devices that carry data: portable devices, still image, ports, modem.
const DATA_CLASSES: [&str; 4] = [
    "{eec5ad98-8080-425f-922a-dabf3de3f69a}",
    "{6bdd1fc6-810f-11d0-bec7-08002be2092f}",
    "{4d36e978-e325-11ce-bfc1-08002be10318}",
    "{4d36e96d-e325-11ce-bfc1-08002be10318}",
];
/// What stands between the items of a list in an administrative template's data.
const LIST_SEPARATOR: &str = "\u{f000}";

pub(super) fn storage(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    script.policy("Storage/RemovableDiskDenyWriteAccess", 1);
    if value.as_text() == Some("deny") {
        script.policy("System/AllowStorageCard", 0);
    }
}

/// Storage goes with it; input devices and network adapters stay, so that the device can be used and reached.
pub(super) fn data(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.policy("Storage/RemovableDiskDenyWriteAccess", 1);
    script.policy("System/AllowStorageCard", 0);
    let numbered: Vec<String> = DATA_CLASSES
        .iter()
        .enumerate()
        .map(|(index, class)| format!("{}{LIST_SEPARATOR}{class}", index + 1))
        .collect();
    let data = |id: &str, value: String| Element::new("data").attribute("id", id).attribute("value", value);
    let elements = [
        Element::new("enabled"),
        data("DeviceInstall_Classes_Deny_Retroactive", "true".to_owned()),
        data("DeviceInstall_Classes_Deny_List", numbered.join(LIST_SEPARATOR)),
    ];
    let text: String = elements.iter().map(Element::write).collect();
    let locuri = format!("{POLICY}DeviceInstallation/PreventInstallationOfMatchingDeviceSetupClasses");
    script.replace(&locuri, Format::Text, text);
}
