//! FileVault, and where its recovery key goes. An iPhone's storage is encrypted once it has a passcode.

use muster_model::settings::SettingValue;

use super::Draft;
use crate::plist::Value;

const FILE_VAULT: &str = "com.apple.MCX.FileVault2";
const ESCROW: &str = "com.apple.security.FDERecoveryKeyEscrow";
const CERTIFICATE: &str = "com.apple.security.pkcs1";
const ESCROW_CERTIFICATE: &str = "recovery-keys";
/// How often a user may put off turning FileVault on: not once.
const BYPASSES_MAX: i64 = 0;

pub(super) fn required(draft: &mut Draft<'_>, _: &SettingValue) {
    if !draft.is_mac() {
        draft.put("com.apple.mobiledevice.passwordpolicy", "forcePIN", true);
        return;
    }
    draft.put(FILE_VAULT, "Enable", "On");
    // Without a user's password in the profile, it is turned on at the next login.
    draft.put(FILE_VAULT, "Defer", true);
    draft.put(FILE_VAULT, "DeferForceAtUserLoginMaxBypassAttempts", BYPASSES_MAX);
    draft.put_in("com.apple.MCX", "FileVault2", "dontAllowFDEDisable", true);
}

pub(super) fn escrow(draft: &mut Draft<'_>, _: &SettingValue) {
    let Some(certificate) = draft.target.escrow_certificate.clone() else {
        return;
    };
    draft.put_in(
        CERTIFICATE,
        ESCROW_CERTIFICATE,
        "PayloadContent",
        Value::Data(certificate),
    );
    let uuid = draft.payload_uuid(CERTIFICATE, ESCROW_CERTIFICATE);
    draft.put(ESCROW, "EncryptCertPayloadUUID", uuid);
    let location = format!("The recovery key goes to {}.", draft.target.organization);
    draft.put(ESCROW, "Location", location);
}
