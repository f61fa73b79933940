//! Our own keys of a connection: one signs requests, assertions are encrypted for the other. This server makes them; the private
//! halves leave it never, the certificates are in its metadata.

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::TenantId;
use muster_saml::{Certificate, DecryptionKey, Reject, SigningKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, RsaKeySize};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use zeroize::{Zeroize, Zeroizing};

use super::{BY_SAML, Connection};
use crate::{
    App,
    access::{connection::store, problem::Problem},
    secrets::SecretText,
};

/// Providers look at the key of a certificate and seldom at its end, but some refuse one that has ended.
const CERTIFICATE_DAYS: i64 = 3650;

/// A key with its certificate, both DER in base64.
#[derive(Serialize, Deserialize)]
pub(super) struct OwnKey {
    /// PKCS#8.
    key: String,
    certificate: String,
}

/// The keys of a connection, as they are sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct OwnKeys {
    pub signing: OwnKey,
    pub encryption: OwnKey,
}

impl Drop for OwnKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl OwnKey {
    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Reject> {
        let der = STANDARD.decode(self.key.as_bytes());
        der.map(Zeroizing::new).map_err(|_| Reject::KeyUnsupported)
    }

    pub fn signs(&self) -> Result<SigningKey, Reject> {
        SigningKey::from_pkcs8(&self.pkcs8()?)
    }

    pub fn decrypts(&self) -> Result<DecryptionKey, Reject> {
        DecryptionKey::from_pkcs8(&self.pkcs8()?)
    }

    pub fn certificate(&self) -> Result<Certificate, Reject> {
        Certificate::from_text(&self.certificate)
    }

    /// RSA of 2048 bits: the only kind that every provider takes.
    fn generate(purpose: &str, now: OffsetDateTime) -> Result<OwnKey, rcgen::Error> {
        let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, format!("Muster SAML {purpose}"));
        parameters.not_before = now - Duration::days(1);
        parameters.not_after = now + Duration::days(CERTIFICATE_DAYS);
        let certificate = parameters.self_signed(&pair)?;
        Ok(OwnKey {
            key: STANDARD.encode(Zeroizing::new(pair.serialize_der())),
            certificate: STANDARD.encode(certificate.der()),
        })
    }
}

/// The keys of a connection, opened.
pub(super) fn opened(app: &App, connection: &Connection) -> Result<OwnKeys, Problem> {
    let text = connection
        .opened_secret(&app.keys.sealing)?
        .ok_or_else(|| Problem::internal("a SAML connection has no keys"))?;
    serde_json::from_str(text.reveal())
        .map_err(|_| Problem::internal("the keys of a SAML connection cannot be read"))
}

/// New keys for the connection of this name, where they are wanted or it has none: making them takes a moment, which no
/// transaction waits for.
pub(in crate::access) async fn keys_for(
    app: &App,
    tenant: TenantId,
    name: &str,
    wanted: bool,
) -> Result<Option<SecretText>, Problem> {
    let (scope, name) = (muster_storage::Scope::Tenant(tenant.uuid()), name.to_owned());
    let known = app.db.read(scope, move |tx| {
        Ok::<_, Problem>(store::connection_named(tx, tenant, &name)?)
    });
    let known = known.await?.filter(|known| known.kind == BY_SAML);
    if !wanted && known.is_some_and(|known| known.has_secret()) {
        return Ok(None);
    }
    let now =
        OffsetDateTime::from_unix_timestamp(app.clock.now().as_unix_seconds()).map_err(Problem::internal)?;
    let made = tokio::task::spawn_blocking(move || {
        Ok::<_, rcgen::Error>(OwnKeys {
            signing: OwnKey::generate("signing", now)?,
            encryption: OwnKey::generate("encryption", now)?,
        })
    });
    let keys = made
        .await
        .map_err(Problem::internal)?
        .map_err(Problem::internal)?;
    let text = serde_json::to_string(&keys).map_err(Problem::internal)?;
    Ok(Some(SecretText::new(text)))
}
