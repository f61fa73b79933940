//! The certificates of a device: `muster device certificates` and `muster device revoke`.

use serde::Deserialize;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// Why a certificate is revoked (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Reason {
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::Unspecified => "unspecified",
            Reason::KeyCompromise => "key_compromise",
            Reason::CaCompromise => "ca_compromise",
            Reason::AffiliationChanged => "affiliation_changed",
            Reason::Superseded => "superseded",
            Reason::CessationOfOperation => "cessation_of_operation",
            Reason::PrivilegeWithdrawn => "privilege_withdrawn",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Certificates {
    items: Vec<CertificateDetail>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CertificateDetail {
    serial: String,
    epoch: u64,
    not_after: String,
    revoked_at: Option<String>,
    revocation_reason: Option<String>,
    authority: Option<String>,
}

/// Lists the certificates of a device, newest first.
pub async fn list(api: &Api, printer: &Printer, id: &str) -> Result<(), CliError> {
    let answer: Answer<Certificates> = api.send(Call::get(&["devices", id, "certificates"])).await?;
    printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
}

/// Revokes the certificate of a serial number, or every one of the device.
pub async fn revoke(
    api: &Api,
    printer: &Printer,
    id: &str,
    serial: Option<&str>,
    reason: Reason,
    yes: bool,
) -> Result<(), CliError> {
    let Some(serial) = serial else {
        let what = format!("No certificate of device {id} is accepted any more; it has to enroll again.");
        printer.confirm(yes, &what, id)?;
        api.send_quiet(Call::post(&["devices", id, "certificates", "revoke"]))
            .await?;
        printer.note(&format!("Every certificate of {id} is revoked."));
        return Ok(());
    };
    let what = format!("Certificate {serial} of device {id} is not accepted any more, here or elsewhere.");
    printer.confirm(yes, &what, id)?;
    let call = Call::post(&["devices", id, "certificates", serial, "revoke"])
        .body(serde_json::json!({"reason": reason.as_str()}));
    api.send_quiet(call).await?;
    printer.note(&format!("{serial} is revoked."));
    Ok(())
}

fn sheet(printer: &Printer, known: &Certificates) -> Sheet {
    let row = |held: &CertificateDetail| {
        vec![
            held.serial.clone(),
            held.epoch.to_string(),
            printer.when(Some(&held.not_after)),
            or_dash(held.revoked_at.as_deref()),
            or_dash(held.revocation_reason.as_deref()),
            or_dash(held.authority.as_deref()),
        ]
    };
    let header = ["serial", "epoch", "until", "revoked", "reason", "authority"];
    Sheet::new().rows("certificates", &header, known.items.iter().map(row).collect())
}
