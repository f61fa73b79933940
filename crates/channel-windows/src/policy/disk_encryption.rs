//! `disk_encryption.required`: BitLocker. Devices that did not join the maker's directory refuse to encrypt in silence and
//! answer that one command with an error; the others still hold.

use muster_model::settings::SettingValue;

use super::{Context, Script};
use crate::syncml::Format;

pub(super) fn required(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    for (node, number) in [
        ("AllowWarningForOtherDiskEncryption", 0),
        ("AllowStandardUserEncryption", 1),
        ("RequireDeviceEncryption", 1),
    ] {
        let locuri = format!("./Device/Vendor/MSFT/BitLocker/{node}");
        script.replace(&locuri, Format::Int, number.to_string());
    }
}
