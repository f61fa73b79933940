//! `muster compliance verify-token`: what a VPN or a proxy does with a compliance token, without a network.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_model::Timestamp;
use muster_ssf::KeySet;
use muster_ssf::compliance::Check;
use muster_trust::key::sha256;
use serde_json::json;

use crate::CliError;
use crate::clock;
use crate::context::read_file;
use crate::output::{Printer, Sheet, clean};

/// What a token is checked against.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyTokenArgs {
    /// File that holds the token
    token: PathBuf,
    /// The tenant's key set, as GET {admin_url}/signals/{tenant}/jwks.json answers it
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// The certificate that the device showed on the connection on which the token came (PEM or DER)
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Whom the token must be for
    #[arg(long)]
    audience: String,
    /// Whom it must be from
    #[arg(long)]
    issuer: Option<String>,
    /// The device must have reported within so many seconds before the token was issued
    #[arg(long, value_name = "SECONDS")]
    reported_within: Option<i64>,
    /// Succeed also for a device that does not comply
    #[arg(long)]
    any_standing: bool,
}

/// Checks a token; an error where it does not hold, or says that the device does not comply.
pub fn verify(arguments: &VerifyTokenArgs, printer: &Printer) -> Result<(), CliError> {
    let wrong = |path: &PathBuf, detail: String| CliError::Content {
        path: path.clone(),
        detail,
    };
    let token = String::from_utf8(read_file(&arguments.token)?)
        .map_err(|_| wrong(&arguments.token, "a token is ASCII text".to_owned()))?;
    let keys = KeySet::parse(&read_file(&arguments.jwks)?)
        .map_err(|error| wrong(&arguments.jwks, error.to_string()))?;
    let certificate = certificate(&read_file(&arguments.certificate)?)
        .ok_or_else(|| wrong(&arguments.certificate, "it holds no certificate".to_owned()))?;
    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(&certificate).as_bytes());
    let check = Check {
        keys: &keys,
        issuer: arguments.issuer.as_deref(),
        audience: &arguments.audience,
        certificate_sha256: &thumbprint,
    };
    let claims = check
        .verify(token.trim(), clock::now())
        .map_err(|reject| wrong(&arguments.token, reject.why.to_owned()))?;
    printer.answer(&json!(claims), |_| {
        Sheet::new().fields(vec![
            ("device", Some(clean(&claims.sub))),
            ("tenant", Some(clean(&claims.tid))),
            (
                "compliant",
                Some(if claims.compliant { "yes" } else { "no" }.to_owned()),
            ),
            ("state", Some(clean(&claims.state))),
            ("policies", Some(clean(&claims.policies_sha256))),
            ("issuer", Some(clean(&claims.iss))),
            (
                "reported",
                claims
                    .reported_at
                    .map(|at| Timestamp::from_unix_seconds(at).to_string()),
            ),
        ])
    })?;
    if let Some(within) = arguments.reported_within
        && claims
            .reported_at
            .is_none_or(|at| claims.iat.saturating_sub(at) > within)
    {
        return Err(wrong(
            &arguments.token,
            format!("the token holds, and the device has not reported within {within} seconds before it"),
        ));
    }
    match claims.compliant || arguments.any_standing {
        true => Ok(()),
        false => Err(wrong(
            &arguments.token,
            "the token holds, and says that the device does not comply".to_owned(),
        )),
    }
}

/// The first certificate of a PEM file, or the bytes of a DER file.
fn certificate(bytes: &[u8]) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let Ok(text) = std::str::from_utf8(bytes) else {
        return (bytes.first() == Some(&0x30)).then(|| bytes.to_vec());
    };
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}
