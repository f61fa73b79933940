//! The family `wifi`, and `certs.trusted_roots`, which is part of the same Open Network Configuration.

use muster_model::settings::SettingValue;

use super::{Context, Document, carried_items};
use crate::onc::NetworkConfiguration;

pub(super) fn managed_only(_: &Context<'_>, _: &SettingValue, document: &mut Document) {
    document.set(
        "deviceConnectivityManagement.configureWifi",
        "DISALLOW_CONFIGURING_WIFI",
    );
}

/// Called for either setting; the configuration is made of both.
pub(super) fn write(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    let mut configuration = NetworkConfiguration::default();
    if let Some(roots) = context.carried("certs.trusted_roots") {
        for text in carried_items("certs.trusted_roots", roots).filter_map(SettingValue::as_text) {
            configuration.trust(text);
        }
    }
    if let Some(networks) = context.carried("wifi.networks") {
        for network in carried_items("wifi.networks", networks) {
            configuration.join(network);
        }
    }
    document.set("openNetworkConfiguration", configuration.into_value());
}
