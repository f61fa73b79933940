//! Load of enrollments: each a device of its own, with a key in a simulated TPM, with a software key, or only as far as its
//! token is checked; and bare mutually authenticated handshakes to hold them against.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use muster_attest::testing::{EkKind, Maker, SoftwareTpm};
use muster_channel_agent::ContentType;
use muster_model::Ownership;
use muster_trust::key::SigningKey;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{CONSTANT, raw_request, read_answer};
use crate::device::Device;
use crate::faults::{Conditions, Disorder};
use crate::identity;
use crate::link::{Link, LinkError};
use crate::plan::DevicePlan;
use crate::tls::{Credentials, HTTP1};
use crate::{FarmError, FarmOptions, Shared};

/// Enrollments or handshakes at a time.
const LANES: u32 = 16;
/// Fleets of this load, apart from those that people make; each kind has its own.
const SEED: u64 = 0x6d75_7374_6572_454e;

/// What each device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrollment {
    /// Both calls, with a key that a simulated TPM proves: endorsement certificate, credential, certification, quote.
    Tpm,
    /// Both calls, with a software key.
    SoftwareKey,
    /// The first call alone: the token is checked and a session opened.
    TokenOnly,
    /// No enrollment: a handshake with a device certificate, one signature of the device key, and the cheapest answer.
    Handshake,
}

/// A load of enrollments.
#[derive(Clone, Debug)]
pub struct EnrollLoad {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// How many devices enroll, or how many handshakes are made.
    pub devices: u32,
    /// What each does.
    pub kind: Enrollment,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EnrollReport {
    /// Enrollments or handshakes.
    pub requests: u64,
    /// How long they took together.
    pub seconds: f64,
}

/// One device, ready to go: everything that only this side computes is done before the measuring.
struct Ready {
    plan: DevicePlan,
    token: String,
    key: SigningKey,
    tpm: Option<SoftwareTpm>,
}

/// Prepares devices and tokens, calls `measuring`, and enrolls them all.
///
/// # Errors
/// A device that cannot be prepared or enrolled: a load that fails measures nothing.
pub async fn load_enrollments(
    options: EnrollLoad,
    measuring: impl FnOnce(),
) -> Result<EnrollReport, FarmError> {
    let seed = SEED ^ options.kind as u64;
    let shared = Shared::prepare(&FarmOptions {
        admin_file: options.admin_file,
        devices: options.devices,
        seed,
        conditions: Conditions::CALM,
        disorder: Disorder::NONE,
        scenario: None,
        duration: None,
        state_dir: None,
        has_progress: false,
        telemetry: None,
    })
    .await?;
    if options.kind == Enrollment::Handshake {
        return handshakes(&shared, options.devices, measuring).await;
    }
    let ready = prepare(&shared, options.devices, options.kind).await?;
    measuring();
    let started = Instant::now();
    let ready = Arc::new(ready);
    let next = Arc::new(AtomicU32::new(0));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (shared, ready, next) = (Arc::clone(&shared), Arc::clone(&ready), Arc::clone(&next));
        lanes.spawn(async move {
            while let Some(device) = ready.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                enroll(&shared, device, options.kind).await?;
            }
            Ok::<_, LinkError>(())
        });
    }
    finish(lanes).await?;
    Ok(EnrollReport {
        requests: ready.len() as u64,
        seconds: started.elapsed().as_secs_f64(),
    })
}

async fn enroll(shared: &Shared, device: &Ready, kind: Enrollment) -> Result<(), LinkError> {
    let link = Link::connect(&shared.endpoint, &[], None, ContentType::Json).await?;
    if kind == Enrollment::TokenOnly {
        let spki = device.key.public().spki_der();
        identity::begin(&link, &device.token, &spki, None, &device.plan).await?;
        return Ok(());
    }
    let reading = crate::clock::read(device.plan.index, 0, shared.process);
    let tpm = device.tpm.as_ref();
    identity::enroll(&link, &device.token, &device.key, tpm, &device.plan, &reading)
        .await
        .map(drop)
}

async fn prepare(shared: &Arc<Shared>, devices: u32, kind: Enrollment) -> Result<Vec<Ready>, FarmError> {
    let maker = Arc::new(Maker::new("Muster load", crate::clock::wall()));
    if kind == Enrollment::Tpm {
        shared
            .admin
            .trust_tpm_root(&pem(maker.root().certificate()))
            .await?;
    }
    let mut preparing = JoinSet::new();
    let mut ready = Vec::new();
    for index in 0..devices {
        let (shared, maker) = (Arc::clone(shared), Arc::clone(&maker));
        preparing.spawn(async move { ready_device(&shared, &maker, index, kind).await });
        if preparing.len() >= LANES as usize
            && let Some(made) = preparing.join_next().await
        {
            ready.push(made.map_err(|error| FarmError::Load(error.to_string()))??);
        }
    }
    while let Some(made) = preparing.join_next().await {
        ready.push(made.map_err(|error| FarmError::Load(error.to_string()))??);
    }
    Ok(ready)
}

async fn ready_device(
    shared: &Shared,
    maker: &Maker,
    index: u32,
    kind: Enrollment,
) -> Result<Ready, FarmError> {
    let load = |error: &dyn std::fmt::Display| FarmError::Load(error.to_string());
    let plan = DevicePlan::new(shared.seed, index);
    let uuid = plan.device_uuid.to_string();
    let token = shared
        .admin
        .enrollment_token(&uuid, &plan.serial(), &plan.owner(), Ownership::Company)
        .await?;
    let tpm = (kind == Enrollment::Tpm).then(|| SoftwareTpm::new(maker, EkKind::P256));
    let key = match &tpm {
        Some(tpm) => SigningKey::from_pkcs8_der(tpm.device_pkcs8()).map_err(|error| load(&error))?,
        None => SigningKey::generate_p256().map_err(|error| load(&error))?,
    };
    Ok(Ready {
        plan,
        token,
        key,
        tpm,
    })
}

async fn handshakes(
    shared: &Arc<Shared>,
    count: u32,
    measuring: impl FnOnce(),
) -> Result<EnrollReport, FarmError> {
    let device = Device::enter(Arc::clone(shared), 0)
        .await
        .ok_or_else(|| FarmError::Load("the device of the handshakes could not be enrolled".to_owned()))?;
    let device = Arc::new(device);
    measuring();
    let started = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (shared, device, next) = (Arc::clone(shared), Arc::clone(&device), Arc::clone(&next));
        lanes.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                handshake(&shared, &device).await?;
            }
            Ok::<_, LinkError>(())
        });
    }
    finish(lanes).await?;
    Ok(EnrollReport {
        requests: u64::from(count),
        seconds: started.elapsed().as_secs_f64(),
    })
}

async fn handshake(shared: &Shared, device: &Device) -> Result<(), LinkError> {
    let (key_pkcs8, identity) = device.credentials()?;
    let credentials = Credentials {
        certificate_chain: &identity.certificate_chain,
        key_pkcs8: &key_pkcs8,
    };
    let mut stream = shared
        .endpoint
        .connect(&identity.ca_certificates, Some(credentials), HTTP1)
        .await?;
    device.sign_nothing()?;
    let request = raw_request("GET", CONSTANT, &shared.endpoint.authority(), &[]);
    stream.write_all(&request).await.map_err(LinkError::unreachable)?;
    match read_answer(&mut stream, &mut Vec::with_capacity(1024)).await? {
        200 => Ok(()),
        status => Err(LinkError::Protocol(format!(
            "the constant was answered with {status}"
        ))),
    }
}

async fn finish(mut lanes: JoinSet<Result<(), LinkError>>) -> Result<(), FarmError> {
    while let Some(lane) = lanes.join_next().await {
        lane.map_err(|error| FarmError::Load(error.to_string()))?
            .map_err(|error| FarmError::Load(error.to_string()))?;
    }
    Ok(())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}
