//! `certs.trusted_roots`: each certificate under its SHA-1 thumbprint, which is the name of its node.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_model::{pem, settings::SettingValue};

use super::{Context, Script, carried_items};
use crate::syncml::Format;

const NODE: &str = "./Device/Vendor/MSFT/RootCATrustedCertificates/Root/*/EncodedCertificate";

pub(super) fn write(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    for item in carried_items("certs.trusted_roots", value) {
        trust(script, item.as_text().unwrap_or_default());
    }
}

/// Has the device trust the certificates of a text; answers their thumbprints.
pub(super) fn trust(script: &mut Script, text: &str) -> Vec<String> {
    let certificates = pem::certificates(text).unwrap_or_default();
    let trust_one = |der: &Vec<u8>| {
        let thumbprint = hex::encode_upper(digest(&SHA1_FOR_LEGACY_USE_ONLY, der));
        script.add_or_replace(NODE, &thumbprint, Format::Base64, STANDARD.encode(der));
        thumbprint
    };
    certificates.iter().map(trust_one).collect()
}
