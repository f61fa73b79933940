//! `muster-agent enroll`: a one-time token and a fresh key become an identity.

mod attestation;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use muster_channel_agent::device::{DeviceCore, DeviceIdentity};
use muster_channel_agent::enroll::{
    ChannelBinding, EnrollBeginRequest, EnrollBeginResponse, EnrollFinishRequest, EnrollFinishResponse,
    HardwareClaims, NO_EXPORTER, Transcript,
};
use muster_channel_agent::limits::{ENROLL_RESPONSE_BYTES_MAX, NONCE_BYTES};
use muster_channel_agent::{Base64Bytes, path};
use muster_model::platform::Platform;
use muster_model::text::{DeviceUuid, SerialNumber};
use muster_trust::obey::Trust;
use serde::Deserialize;

use crate::cli::{EnrollArgs, read_token};
use crate::departure;
use crate::device_key::{DeviceKey, TpmChoice};
use crate::error::AgentError;
use crate::identity::{Identity, certificate_validity};
use crate::link::{Exporter, Link};
use crate::os::Machine;
use crate::spool::{Opening, Slot, Spool};
use crate::tls::{self, JudgedAt};
use crate::{AGENT_VERSION, machine_clock};

use attestation::{Attestation, unasked};

/// Largest CA file that is read, in bytes.
const CA_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Runs the whole exchange. The state folder holds the identity when this returns `Ok`, and none otherwise.
pub async fn enroll(arguments: &EnrollArgs) -> Result<Identity, AgentError> {
    let token = read_token(&arguments.token)?;
    let device_uuid = token_device_uuid(&token)?;
    let ca_certificates = read_ca_file(&arguments.ca_file)?;
    let root = prepare_root(&arguments.root)?;
    departure::forget(&arguments.state_dir)?;
    let mut spool = Spool::open(&arguments.state_dir, Opening::Create)?;
    if let Some(existing) = spool.load::<Identity>(Slot::Identity)? {
        let (state_dir, device) = (arguments.state_dir.clone(), existing.device_id.to_string());
        return Err(AgentError::AlreadyEnrolled { state_dir, device });
    }
    let choice = arguments.tpm.as_ref().unwrap_or(&TpmChoice::Automatic);
    let key = Arc::new(DeviceKey::create(&arguments.state_dir, choice)?);
    let attestation = Attestation::prepare(&key, choice)?;
    let machine = Machine::new(&root, &arguments.state_dir);
    let hardware = hardware_claims(&machine, device_uuid);

    let reading = machine_clock::read();
    let config = tls::client_config(&ca_certificates, None, JudgedAt::wall(reading.wall))?;
    let link = Link::connect(&arguments.server, config).await?;
    let begin = EnrollBeginRequest {
        token,
        hardware,
        public_key: Base64Bytes(key.public().spki_der()),
        agent_version: Some(AGENT_VERSION.to_owned()),
        attestation: attestation.as_ref().map(Attestation::offer),
        // A software key proves nothing that a program in the middle could not.
        channel_binding: match attestation {
            None => ChannelBinding::None,
            Some(_) => ChannelBinding::TlsExporter,
        },
    };
    let answer = exchange(&link, &begin, &key, attestation, arguments).await?;

    let (identity, core) = accept(answer, &key, ca_certificates, arguments, &root, device_uuid)?;
    // The device state first: an identity is only there when everything is.
    spool.save(Slot::Device, &core)?;
    spool.save(Slot::Identity, &identity)?;
    Ok(identity)
}

async fn exchange(
    link: &Link,
    begin: &EnrollBeginRequest,
    key: &Arc<DeviceKey>,
    attestation: Option<Attestation>,
    arguments: &EnrollArgs,
) -> Result<EnrollFinishResponse, AgentError> {
    let begun: EnrollBeginResponse = link
        .exchange(Method::POST, path::ENROLL_BEGIN, begin, ENROLL_RESPONSE_BYTES_MAX)
        .await?;
    let nonce: [u8; NONCE_BYTES] = begun
        .nonce
        .to_array()
        .ok_or_else(|| AgentError::AnswerRefused(format!("its nonce has not {NONCE_BYTES} bytes")))?;
    let Exporter(exporter) = match (begun.channel_binding, begin.channel_binding) {
        (ChannelBinding::TlsExporter, _) => link.exporter(),
        (ChannelBinding::None, ChannelBinding::None) => Exporter(NO_EXPORTER),
        (ChannelBinding::None, ChannelBinding::TlsExporter) if arguments.behind_proxy => {
            tracing::warn!(
                "a proxy ends TLS before the server: the enrollment is not bound to its connection"
            );
            Exporter(NO_EXPORTER)
        }
        (ChannelBinding::None, ChannelBinding::TlsExporter) => return Err(AgentError::NotBound),
    };
    let transcript = Transcript::of(&begin.token, &nonce, &begin.public_key.0, &exporter);
    let proof = key.sign(&transcript.bytes())?;
    let csr = key.certificate_request(begin.hardware.device_uuid.uuid())?;
    let evidence = match (attestation, begun.attestation) {
        (Some(attestation), Some(challenge)) => {
            Some(attestation.answer(Arc::clone(key), challenge, transcript).await?)
        }
        (Some(_), None) => {
            tracing::warn!("the server does not ask the TPM for a proof");
            None
        }
        (None, Some(_)) => return Err(unasked()),
        (None, None) => None,
    };
    let finish = EnrollFinishRequest {
        session: begun.session,
        proof: Base64Bytes(proof),
        csr: Base64Bytes(csr),
        attestation: evidence,
    };
    Ok(link
        .exchange(
            Method::POST,
            path::ENROLL_FINISH,
            &finish,
            ENROLL_RESPONSE_BYTES_MAX,
        )
        .await?)
}

/// Checks the answer before anything of it is stored: the certificate is over our key, the root documents form a chain of
/// this tenant, the checkpoint is signed by the log they name.
fn accept(
    answer: EnrollFinishResponse,
    key: &DeviceKey,
    ca_certificates: Vec<Base64Bytes>,
    arguments: &EnrollArgs,
    root: &Path,
    device_uuid: DeviceUuid,
) -> Result<(Identity, DeviceCore), AgentError> {
    let leaf = answer
        .certificate_chain
        .first()
        .ok_or_else(|| AgentError::AnswerRefused("it holds no certificate".to_owned()))?;
    if !key.is_certified_by(&leaf.0) {
        return Err(AgentError::AnswerRefused(
            "its certificate is not over this machine's key".to_owned(),
        ));
    }
    let refused = |refusal: muster_trust::obey::Refusal| AgentError::AnswerRefused(refusal.to_string());
    let (first, later) = answer
        .root_documents
        .split_first()
        .ok_or_else(|| AgentError::AnswerRefused("it holds no root document".to_owned()))?;
    let mut trust = Trust::pin(first, answer.tenant).map_err(refused)?;
    for document in later {
        trust.advance_root(document).map_err(refused)?;
    }
    trust
        .advance_checkpoint(&answer.checkpoint, &[])
        .map_err(refused)?;
    let reading = machine_clock::read();
    let identity = DeviceIdentity {
        tenant: answer.tenant,
        device_id: answer.device_id,
        epoch: answer.epoch,
        platform: Platform::Linux,
        ownership: answer.ownership,
    };
    let certified_from = certificate_validity(&leaf.0)?.not_before;
    let core = DeviceCore::new(identity, AGENT_VERSION, trust, certified_from, &reading);
    let anchors = if answer.ca_certificates.is_empty() {
        ca_certificates
    } else {
        answer.ca_certificates
    };
    let identity = Identity {
        server: arguments.server.clone(),
        tenant: answer.tenant,
        device_id: answer.device_id,
        epoch: answer.epoch,
        device_uuid: device_uuid.uuid(),
        root: root.to_owned(),
        certificate_chain: answer.certificate_chain,
        ca_certificates: anchors,
        checkin: answer.checkin,
        enrolled_at: reading.wall,
        attestation: answer.attestation_level,
    };
    identity.validity()?;
    Ok((identity, core))
}

/// What the machine says about itself. The UUID is the token's, since that is the device it was issued for; a firmware
/// that holds a placeholder for a serial number has none.
fn hardware_claims(machine: &Machine, device_uuid: DeviceUuid) -> HardwareClaims {
    let facts = machine.hardware_claims();
    if let Some(found) = facts.device_uuid
        && found != device_uuid.uuid()
    {
        tracing::warn!(firmware = %found, token = %device_uuid.uuid(), "the token names another UUID than the firmware");
    }
    HardwareClaims {
        device_uuid,
        serial: facts
            .serial
            .as_deref()
            .and_then(|serial| SerialNumber::parse(serial).ok()),
        imei: Vec::new(),
        platform: Platform::Linux,
        model: facts.model,
        vendor: facts.vendor,
    }
}

/// Reads `device_uuid` from the token without checking its signature: the server checks, the agent only repeats it.
fn token_device_uuid(token: &str) -> Result<DeviceUuid, AgentError> {
    #[derive(Deserialize)]
    struct Claims {
        device_uuid: DeviceUuid,
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(AgentError::TokenShape);
    };
    let payload = URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|_| AgentError::TokenShape)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| AgentError::TokenShape)?;
    Ok(claims.device_uuid)
}

fn read_ca_file(path: &Path) -> Result<Vec<Base64Bytes>, AgentError> {
    use std::io::Read as _;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(CA_FILE_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let pem = read().map_err(|source| AgentError::CaFile {
        path: path.to_owned(),
        source,
    })?;
    Ok(tls::read_pem_certificates(&pem)?)
}

/// The prefix is stored absolute, since `run` may start in another folder.
fn prepare_root(root: &Path) -> Result<std::path::PathBuf, AgentError> {
    let prepare = || -> std::io::Result<std::path::PathBuf> {
        std::fs::create_dir_all(root)?;
        root.canonicalize()
    };
    prepare().map_err(|source| AgentError::Root {
        path: root.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn the_device_uuid_comes_from_the_token() {
        let text = "4c4c4544-0042-3510-8052-b4c04f4b3132";
        let found = token_device_uuid(&token(&format!(r#"{{"device_uuid":"{text}","exp":1}}"#)))
            .expect("it is there");
        assert_eq!(found.uuid().to_string(), text);
    }

    #[test]
    fn anything_else_is_not_a_token() {
        for bad in ["", "a.b", "a.b.c.d", "e30.e30.c2ln", "e30.!!.c2ln"] {
            assert!(
                matches!(token_device_uuid(bad), Err(AgentError::TokenShape)),
                "{bad}"
            );
        }
        let zero = token(r#"{"device_uuid":"00000000-0000-0000-0000-000000000000"}"#);
        assert!(token_device_uuid(&zero).is_err());
    }
}
