//! The family `usb`. Both settings share one member; the stricter one counts. Its default forbids files, so that `allow` is
//! said.

use muster_model::settings::SettingValue;

use super::{Context, Document};

fn access(context: &Context<'_>, document: &mut Document) {
    let access = if context.is_carried("usb.data") {
        "DISALLOW_USB_DATA_TRANSFER"
    } else if context.is_carried("usb.storage") {
        "DISALLOW_USB_FILE_TRANSFER"
    } else {
        "ALLOW_USB_DATA_TRANSFER"
    };
    document.set("deviceConnectivityManagement.usbDataAccess", access);
}

pub(super) fn storage(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set("mountPhysicalMediaDisabled", true);
    access(context, document);
}

pub(super) fn data(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    access(context, document);
}
