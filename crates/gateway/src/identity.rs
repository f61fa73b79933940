//! Who is on the other side: the certificate, read once per connection, checked against the registry on every message.

use std::{net::SocketAddr, sync::Arc};

use axum::http::Extensions;
use muster_channel_agent::enroll::EXPORTER_LABEL;
use muster_control::{
    App,
    access::{
        self,
        problem::{CERTIFICATE_REQUIRED, CERTIFICATE_REVOKED, DEVICE_BLOCKED, EPOCH_MISMATCH, Problem},
    },
    certificates, clock,
    devices::{self, DeviceState, Identity, Seat},
    rollout, secrets,
};
use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::Scope;
use muster_trust::key::{Digest, sha256};
use rustls::ServerConnection;
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};

/// The other side of a connection. Every request of the connection carries it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address; none when whoever relays the connection does not know it.
    pub remote: Option<SocketAddr>,
    pub device: Option<Arc<DeviceCertificate>>,
    /// The SHA-256 of a program's certificate, whoever made it.
    pub certificate: Option<Digest>,
    pub channel_binding: ChannelBinding,
}

/// What ties a message to the TLS connection that it came over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// The exporter value of the device's own TLS connection ([`EXPORTER_LABEL`], RFC 8446 §7.5). A program in the middle has
    /// another value on each side.
    Exporter([u8; EXPORTER_BYTES]),
    /// A proxy ended the device's TLS connection: there is nothing to bind to, and who decides by it must say so.
    ProxyTerminated,
}

/// Bytes of the exporter value.
pub const EXPORTER_BYTES: usize = 32;

impl std::fmt::Debug for ChannelBinding {
    /// The exporter value is keying material and prints as `***`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ChannelBinding::Exporter(_) => f.write_str("Exporter(***)"),
            ChannelBinding::ProxyTerminated => f.write_str("ProxyTerminated"),
        }
    }
}

/// What a device certificate says. Its chain and validity were checked in the handshake.
#[derive(Debug)]
pub struct DeviceCertificate {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub epoch: u32,
    /// Lower hex.
    pub serial: String,
    /// Of the whole certificate, DER.
    pub sha256: Digest,
    pub seat: Arc<Seat>,
}

/// A device whose message is accepted, and when its certificate ends.
#[derive(Debug, Clone)]
pub struct Known {
    pub seat: Arc<Seat>,
    pub identity: Arc<Identity>,
    /// The serial of the certificate that the connection presented.
    pub serial: String,
    pub certificate_sha256: Digest,
    pub certificate_until: Timestamp,
}

impl Peer {
    /// Reads the peer of a finished handshake; none if the connection can give no exporter value, which no finished handshake
    /// does.
    pub(crate) fn of(app: &App, tls: &ServerConnection, remote: Option<SocketAddr>) -> Option<Peer> {
        let exporter = exporter(tls)?;
        let leaf = tls.peer_certificates().and_then(<[_]>::first);
        Some(Peer {
            remote,
            device: leaf
                .and_then(|leaf| DeviceCertificate::read(app, leaf))
                .map(Arc::new),
            certificate: None,
            channel_binding: ChannelBinding::Exporter(exporter),
        })
    }

    /// The peer of a program's connection: its certificate names no device here.
    pub(crate) fn of_program(tls: &ServerConnection, remote: Option<SocketAddr>) -> Option<Peer> {
        let leaf = tls.peer_certificates().and_then(<[_]>::first);
        Some(Peer {
            remote,
            device: None,
            certificate: leaf.map(|leaf| sha256(leaf)),
            channel_binding: ChannelBinding::Exporter(exporter(tls)?),
        })
    }

    /// The peer of a proxy's connection: no device, until a request brings its certificate.
    pub(crate) fn behind_proxy(remote: Option<SocketAddr>) -> Peer {
        Peer {
            remote,
            device: None,
            certificate: None,
            channel_binding: ChannelBinding::ProxyTerminated,
        }
    }
}

/// The exporter value of a finished handshake. Some HMACs: not worth a second path for connections that enroll nobody.
pub(crate) fn exporter(tls: &ServerConnection) -> Option<[u8; EXPORTER_BYTES]> {
    tls.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
        .ok()
}

/// The device behind a request, if its certificate is still good for its tenant, device and epoch.
pub async fn known(app: &App, extensions: &Extensions) -> Result<Known, Problem> {
    let peer = extensions.get::<Peer>().cloned();
    known_peer(app, peer.as_ref()).await
}

/// As `known`, once the request is used up. A client decides how long its body takes, so what was known before the body is
/// asked again after it.
pub async fn known_peer(app: &App, peer: Option<&Peer>) -> Result<Known, Problem> {
    let certificate = peer.and_then(|peer| peer.device.clone()).ok_or_else(|| {
        CERTIFICATE_REQUIRED.detail("This call needs the device's certificate. Enroll first.")
    })?;
    known_certificate(app, &certificate).await
}

/// As `known`, for a certificate that came another way than by the handshake, checked by whoever read it.
pub async fn known_certificate(app: &App, certificate: &DeviceCertificate) -> Result<Known, Problem> {
    let now = app.clock.now();
    let trusted = app.memory.stands(clock::uptime);
    let remembered = certificate.seat.identity().filter(|_| trusted);
    let (identity, until) = match remembered.map(|identity| (check(certificate, &identity, now), identity)) {
        Some((Ok(until), identity)) => (identity, until),
        Some((Err(refusal), _)) if !may_doubt(app, certificate) => return Err(refusal),
        Some((Err(_), _)) | None => {
            let identity = learn(app, certificate, now).await?;
            let until = check(certificate, &identity, now)?;
            (identity, until)
        }
    };
    app.registry.saw(&certificate.seat, &identity, now);
    Ok(Known {
        seat: Arc::clone(&certificate.seat),
        identity,
        serial: certificate.serial.clone(),
        certificate_sha256: certificate.sha256,
        certificate_until: until,
    })
}

/// Another node may have renewed the certificate, and this one not have heard of it.
fn may_doubt(app: &App, certificate: &DeviceCertificate) -> bool {
    app.memory.is_shared() && certificate.seat.may_doubt(clock::uptime())
}

fn check(certificate: &DeviceCertificate, identity: &Identity, now: Timestamp) -> Result<Timestamp, Problem> {
    if identity.tenant != certificate.tenant {
        return Err(CERTIFICATE_REVOKED.detail("The certificate belongs to no device here."));
    }
    if identity.state == DeviceState::Retired {
        return Err(DEVICE_BLOCKED.detail("The device was retired. It must enroll again."));
    }
    if identity.epoch != certificate.epoch {
        return Err(EPOCH_MISMATCH.detail("The certificate is from an earlier enrollment of this device."));
    }
    identity
        .certificate_until(&certificate.serial)
        .filter(|until| now < *until)
        .ok_or_else(|| {
            CERTIFICATE_REVOKED.detail("The certificate was revoked. The device must enroll again.")
        })
}

async fn learn(app: &App, certificate: &DeviceCertificate, now: Timestamp) -> Result<Arc<Identity>, Problem> {
    let (tenant, id) = (certificate.tenant, certificate.device);
    let read = certificate.seat.forgotten();
    if secrets::find_keys(app, tenant).await?.is_none() {
        return Err(CERTIFICATE_REVOKED.detail("The certificate belongs to no device here."));
    }
    let identity = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            access::require_serving(tx, tenant)?;
            let device = devices::get(tx, tenant, id)?;
            let valid = certificates::of_device(tx, tenant, id)?
                .into_iter()
                .filter(|held| held.valid(device.epoch, now));
            let labels = devices::labels(tx, tenant, id)?;
            let department = labels.get(devices::DEPARTMENT);
            let stratum = devices::stratum(device.platform, device.model.as_deref(), department);
            Ok::<_, Problem>(Identity {
                tenant,
                device: id,
                epoch: device.epoch,
                state: device.state,
                stratum: Arc::new(stratum),
                held: Arc::new(rollout::held(tx, tenant, id, device.epoch)?).into(),
                certificates: valid.map(|held| (held.serial, held.not_after)).collect(),
                has_facts: devices::has_facts(tx, tenant, id)?,
                spki: device.spki,
            })
        })
        .await
        .map_err(|problem| match problem.kind.status {
            404 => CERTIFICATE_REVOKED.detail("The certificate belongs to no device here."),
            _ => problem,
        })?;
    let identity = Arc::new(identity);
    certificate.seat.learn(Arc::clone(&identity), read);
    Ok(identity)
}

impl DeviceCertificate {
    /// Reads a certificate whose chain and validity were checked.
    pub(crate) fn read(app: &App, leaf: &[u8]) -> Option<DeviceCertificate> {
        let digest = sha256(leaf);
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let serial = hex::encode(leaf.raw_serial());
        let names = leaf
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })?;
        let uri = names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("urn:muster:"),
            _ => None,
        })?;
        let mut parts = uri.split(':');
        let (tenant, device, epoch) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let device: DeviceId = device.parse().ok()?;
        let seat = app.registry.seat(device);
        Some(DeviceCertificate {
            tenant: tenant.parse().ok()?,
            device,
            epoch: epoch.parse().ok()?,
            serial,
            sha256: digest,
            seat,
        })
    }
}
