//! Replacing an intermediate: a key and a request here, a certificate from the offline root, and its installation.
//!
//! Each step writes the register whole; a running process follows it. Nothing here touches the database.

use std::path::Path;

use muster_model::Timestamp;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{
    SecretsError,
    custody::{Custody, KeyPlace},
    der, files, first_run,
    profile::{self, CaRole},
    register::{self, AuthorityState, CaCertificate, Record, Register},
};

const REQUEST_LABEL: &str = "CERTIFICATE REQUEST";
const CERTIFICATE_LABEL: &str = "CERTIFICATE";

/// An authority, for lists.
#[derive(Debug)]
pub struct Listed {
    pub record: Record,
    /// `None` while it waits for its certificate.
    pub not_after: Option<Timestamp>,
}

/// Every authority of a key folder.
pub fn list(folder: &Path) -> Result<Vec<Listed>, SecretsError> {
    let listed = register_of(folder)?.authorities.into_iter().map(|record| {
        let not_after = match record.state {
            AuthorityState::Requested => None,
            AuthorityState::Active | AuthorityState::Superseded | AuthorityState::Retired => {
                let path = register::certificate_path(folder, &record.id);
                Some(read_certificate(&path, &files::read(&path)?)?.not_after)
            }
        };
        Ok(Listed { record, not_after })
    });
    listed.collect()
}

/// Makes a key, or takes up the one that is at `place`, and answers the authority's id and its request (PEM).
pub async fn request(
    folder: &Path,
    role: CaRole,
    place: &KeyPlace,
    custody: &Custody,
    now: Timestamp,
) -> Result<(String, String), SecretsError> {
    let mut register = register_of(folder)?;
    if role == CaRole::Listener && *place != KeyPlace::File {
        return Err(refused("the listener CA's key is kept in a file"));
    }
    let key = custody.take_up(place).await?;
    let id = register::id_of(key.point());
    if register.find(&id).is_some() {
        return Err(refused(&format!(
            "the key at {place} is of the authority {id} already: name another"
        )));
    }
    let to_sign = profile::request_to_sign(role, key.point())?;
    let request = der::signed(&to_sign, &key.sign(&to_sign).await?);
    if let Some(text) = key.file_text() {
        files::write_private(&register::key_path(folder, &id), text.as_bytes())?;
    }
    register.authorities.push(Record {
        id: id.clone(),
        role,
        state: AuthorityState::Requested,
        key: key.place().to_string(),
        since: now.to_string(),
    });
    register.write(folder)?;
    Ok((id, profile::pem(REQUEST_LABEL, &request)))
}

/// What the offline root signs: the id that the authority will have, and its certificate (PEM).
pub fn sign(
    root_key: &str,
    root_certificate: &[u8],
    role: CaRole,
    request: &[u8],
    now: Timestamp,
) -> Result<(String, String), SecretsError> {
    let root_certificate = profile::from_pem(CERTIFICATE_LABEL, root_certificate)
        .ok_or_else(|| refused("the root's certificate is neither PEM nor DER"))?;
    let root_key = KeyPair::from_pem(root_key)?;
    let certified = x509_parser::parse_x509_certificate(&root_certificate)
        .is_ok_and(|(_, root)| root.public_key().raw == root_key.subject_public_key_info());
    if !certified {
        return Err(refused("the root's key is not the one of the root's certificate"));
    }
    let point = requested_point(request).map_err(|why| refused(&why))?;
    let root = Issuer::from_ca_cert_der(&CertificateDer::from(root_certificate), root_key)?;
    let certificate = first_run::certify(role, &point, &root, now)?;
    Ok((
        register::id_of(&point),
        profile::pem(CERTIFICATE_LABEL, &certificate),
    ))
}

/// Puts an authority into service: new certificates come from it, those of the one before are still accepted.
pub fn install(folder: &Path, certificate: &[u8], now: Timestamp) -> Result<String, SecretsError> {
    let certificate = profile::from_pem(CERTIFICATE_LABEL, certificate)
        .ok_or_else(|| refused("the certificate is neither PEM nor DER"))?;
    let read = CaCertificate::read(&certificate).map_err(|why| refused(&why))?;
    let root = files::read(&folder.join(first_run::ROOT_CERTIFICATE))?;
    read.check_issued_by(&root).map_err(|why| refused(&why))?;
    if now < read.not_before || read.not_after <= now {
        return Err(refused("the certificate is not valid now"));
    }
    let mut register = register_of(folder)?;
    let id = register::id_of(&read.point);
    let role = match register.find(&id) {
        None => {
            return Err(refused(
                "the certificate is for a key that was not requested here",
            ));
        }
        Some(record) if record.state != AuthorityState::Requested => {
            return Err(refused(&format!("the authority {id} is installed already")));
        }
        Some(record) => record.role,
    };
    let (clients, servers) = read.usages;
    let is_for_role = match role {
        CaRole::Device => clients,
        CaRole::Listener => servers,
    };
    if !is_for_role {
        return Err(refused(&format!(
            "the certificate is not one of a {} CA",
            role.as_str()
        )));
    }
    files::write_private(&register::certificate_path(folder, &id), &certificate)?;
    for record in register
        .authorities
        .iter_mut()
        .filter(|record| record.role == role)
    {
        if record.state == AuthorityState::Active {
            record.state = AuthorityState::Superseded;
            record.since = now.to_string();
        }
        if record.id == id {
            record.state = AuthorityState::Active;
            record.since = now.to_string();
        }
    }
    forget_expired(folder, &mut register, now)?;
    register.write(folder)?;
    Ok(id)
}

/// Takes authorities out of the register that have expired, and with them every certificate that they signed.
fn forget_expired(folder: &Path, register: &mut Register, now: Timestamp) -> Result<(), SecretsError> {
    let mut expired = Vec::new();
    for record in &register.authorities {
        match record.state {
            AuthorityState::Requested | AuthorityState::Active => {}
            AuthorityState::Superseded | AuthorityState::Retired => {
                let path = register::certificate_path(folder, &record.id);
                if read_certificate(&path, &files::read(&path)?)?.not_after < now {
                    expired.push(record.id.clone());
                }
            }
        }
    }
    register
        .authorities
        .retain(|record| !expired.contains(&record.id));
    Ok(())
}

/// Ends the acceptance of what an authority signed. One that never got its certificate is forgotten.
pub fn retire(folder: &Path, id: &str, now: Timestamp) -> Result<AuthorityState, SecretsError> {
    let mut register = register_of(folder)?;
    let record = register
        .find(id)
        .ok_or_else(|| refused(&format!("there is no authority {id}")))?;
    let before = record.state;
    match before {
        AuthorityState::Active => {
            return Err(refused(
                "an active authority cannot be retired: install its successor first",
            ));
        }
        AuthorityState::Retired => return Ok(before),
        AuthorityState::Superseded => {
            record.state = AuthorityState::Retired;
            record.since = now.to_string();
        }
        AuthorityState::Requested => register.authorities.retain(|record| record.id != id),
    }
    register.write(folder)?;
    Ok(before)
}

fn register_of(folder: &Path) -> Result<Register, SecretsError> {
    Register::read(folder)?
        .ok_or_else(|| refused("there are no authorities here: run `muster serve` on this data folder first"))
}

/// The point of a PKCS#10 request for a P-256 key that signed it.
fn requested_point(request: &[u8]) -> Result<Vec<u8>, String> {
    let request = profile::from_pem(REQUEST_LABEL, request).ok_or("the request is neither PEM nor DER")?;
    let (_, read) = X509CertificationRequest::from_der(&request).map_err(|_| "the request is not PKCS#10")?;
    let info = &read.certification_request_info;
    let point = der::p256_point(info.subject_pki.raw).ok_or("the request's key is not P-256")?;
    aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point)
        .verify(info.raw, &read.signature_value.data)
        .map_err(|_| "the request is not signed by its key")?;
    Ok(point.to_vec())
}

fn read_certificate(path: &Path, bytes: &[u8]) -> Result<CaCertificate, SecretsError> {
    CaCertificate::read(bytes).map_err(|why| SecretsError::Unreadable {
        path: path.to_owned(),
        why,
    })
}

fn refused(why: &str) -> SecretsError {
    SecretsError::Ceremony(why.to_owned())
}
