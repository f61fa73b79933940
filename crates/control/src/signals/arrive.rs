//! What happens to a message: it is proven, read, counted once, and kept as facts of devices, in one transaction.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::{DeviceId, SignalArrivalId, SignalSourceId, TenantId, Timestamp};
use muster_scim::name_key;
use muster_ssf::{Algorithm, KeySet, Reject, RejectCode, SecurityEvent, Verifier};
use muster_storage::{Scope, Tx};
use muster_trust::key::sha256;
use subtle::ConstantTimeEq;

use super::{
    DEVICES_OF_A_PERSON_MAX, MESSAGE_AGE_MAX,
    definition::{Authentication, DeviceName, SignalKind, SignalSource, address},
    key_sets::NoKeys,
    people::HMAC_PREFIX,
    rules::{self, Outcome, Statement, Took},
    store::{self, Arrival, Counted},
};
use crate::{
    App,
    access::{self, TenantState, problem::Problem},
    audit, clock,
    devices::{self, DeviceState},
    secrets::SecretText,
};

/// How far the clock of who signs a webhook may be from ours (Standard Webhooks, "Verifying signatures").
const WEBHOOK_SKEW_SECONDS: i64 = 300;
const MESSAGE_ID_BYTES_MAX: usize = 256;
/// Signatures of one message: one for each secret of a rotation.
const SIGNATURES_MAX: usize = 8;
/// When a sender may come again whose source is one of a tenant that is shut.
const SUSPENDED_RETRY_SECONDS: u64 = 300;
const SET_MEDIA_TYPE: &str = "application/secevent+jwt";

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It was taken, or had been before.
    Accepted,
    Refused {
        code: RejectCode,
        why: String,
    },
    /// It may be sent again then.
    Later {
        seconds: u64,
    },
    /// There is no such source.
    NoSource,
}

/// A message that was proven and read.
struct Read {
    /// The same however often it is delivered, where the sender says so.
    id: Option<String>,
    statements: Vec<Statement>,
}

/// Why a message was not read.
enum NotRead {
    Refused(RejectCode, String),
    /// Keys could not be fetched, say: that is nobody's fault here.
    Later(String),
    /// Keys are being fetched.
    Busy,
}

impl From<NoKeys> for NotRead {
    fn from(no_keys: NoKeys) -> NotRead {
        match no_keys {
            NoKeys::Busy => NotRead::Busy,
            NoKeys::Failed(why) => NotRead::Later(why),
        }
    }
}

impl From<Reject> for NotRead {
    fn from(reject: Reject) -> NotRead {
        NotRead::Refused(reject.code, reject.why.to_owned())
    }
}

fn refused(code: RejectCode, why: impl Into<String>) -> NotRead {
    NotRead::Refused(code, why.into())
}

/// Takes a message that was sent to the address of a source.
pub async fn arrive(
    app: &App,
    id: SignalSourceId,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Told, Problem> {
    let found = app
        .db
        .read(Scope::System, move |tx| {
            let Some((tenant, source)) = store::source_by_id(tx, id)? else {
                return Ok::<_, Problem>(None);
            };
            let row = access::tenant(tx, tenant)?;
            let is_open = row.is_some_and(|row| row.state == TenantState::Active);
            Ok(Some((tenant, source, is_open)))
        })
        .await?;
    let Some((tenant, source, is_open)) = found else {
        return Ok(Told::NoSource);
    };
    if !is_open {
        app.signals.metrics.message(source.kind(), "later");
        return Ok(Told::Later {
            seconds: SUSPENDED_RETRY_SECONDS,
        });
    }
    let (kind, now) = (source.kind(), app.clock.now());
    match read(app, tenant, &source, headers, body, now).await {
        Ok(read) => {
            // Whose message it is was proven: nobody uses up what is another's. Those that prove nothing count by their address.
            if let Err(seconds) = app.signals.limit.take(id, clock::uptime()) {
                app.signals.metrics.message(kind, "limited");
                return Ok(Told::Later { seconds });
            }
            // Only now: whoever waits for an issuer's keys holds up nobody else.
            let Ok(_permit) = app.signals.messages.try_acquire() else {
                return Ok(Told::Later { seconds: 1 });
            };
            let (outcome, has_changed) = keep(app, tenant, source, read, now).await?;
            app.signals.metrics.message(kind, outcome);
            if has_changed {
                app.nudges.signals.notify_one();
            }
            Ok(Told::Accepted)
        }
        Err(NotRead::Refused(code, why)) => {
            app.signals.metrics.message(kind, "refused");
            tracing::info!(%tenant, source = source.name, code = code.as_str(), why, "a message of a source of signals was refused");
            note_refusal(app, tenant, id, format!("{}: {why}", code.as_str()), now).await?;
            Ok(Told::Refused { code, why })
        }
        Err(NotRead::Busy) => {
            app.signals.metrics.message(kind, "later");
            Ok(Told::Later { seconds: 1 })
        }
        Err(NotRead::Later(why)) => {
            app.signals.metrics.message(kind, "later");
            tracing::warn!(%tenant, source = source.name, why, "the keys of a source of signals are not there; it may send again");
            note_refusal(app, tenant, id, format!("its keys cannot be fetched: {why}"), now).await?;
            Ok(Told::Later { seconds: 30 })
        }
    }
}

async fn read(
    app: &App,
    tenant: TenantId,
    source: &SignalSource,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Read, NotRead> {
    let secrets = source
        .secrets(&app.keys.sealing, tenant, now)
        .map_err(|error| NotRead::Later(format!("its secret does not open: {error}")))?;
    match &source.definition.from {
        SignalKind::Ssf {
            issuer,
            audience,
            jwks_url,
            jwks,
        } => {
            if !secrets.is_empty() {
                prove_bearer(headers, &secrets)?;
            }
            if media_type(headers) != Some(SET_MEDIA_TYPE) {
                return Err(refused(
                    RejectCode::InvalidRequest,
                    "send a security event token as application/secevent+jwt",
                ));
            }
            let token = std::str::from_utf8(body)
                .map_err(|_| refused(RejectCode::InvalidRequest, "the token is no text"))?
                .trim_ascii();
            let own = address(app, source.id);
            let audience = audience.as_deref().unwrap_or(&own);
            let verify = |keys: &KeySet| {
                let verifier = Verifier {
                    issuer,
                    audience,
                    keys,
                    allowed: &Algorithm::ALL,
                    age_seconds_max: i64::try_from(MESSAGE_AGE_MAX.as_secs()).unwrap_or(i64::MAX),
                };
                verifier.verify(token, now)
            };
            let token: SecurityEvent = match (jwks, jwks_url) {
                (Some(jwks), _) => {
                    let keys = KeySet::parse(jwks.as_bytes())
                        .map_err(|error| refused(RejectCode::InvalidKey, error.to_string()))?;
                    verify(&keys)?
                }
                (None, Some(url)) => {
                    let sets = &app.signals.key_sets;
                    let keys = sets.at(source.id, url, false).await?;
                    match verify(&keys) {
                        // The issuer may have a new key.
                        Err(reject) if reject.code == RejectCode::InvalidKey => {
                            let keys = sets.at(source.id, url, true).await?;
                            verify(&keys)?
                        }
                        read => read?,
                    }
                }
                (None, None) => return Err(refused(RejectCode::InvalidKey, "the source has no keys")),
            };
            Ok(Read {
                id: Some(token.jti().to_owned()),
                statements: rules::statements(&token),
            })
        }
        SignalKind::Webhook {
            authentication,
            fields,
            verdicts,
            risks,
        } => {
            let id = match authentication {
                Authentication::Hmac => Some(prove_hmac(headers, body, &secrets, now)?),
                Authentication::Bearer => {
                    prove_bearer(headers, &secrets)?;
                    message_id(headers).map(str::to_owned)
                }
            };
            let statement = rules::message(body, fields, (verdicts, risks), now)
                .map_err(|why| refused(RejectCode::InvalidRequest, why))?;
            Ok(Read {
                id,
                statements: vec![statement],
            })
        }
    }
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

fn message_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("webhook-id")?.to_str().ok()?;
    (!id.is_empty() && id.len() <= MESSAGE_ID_BYTES_MAX).then_some(id)
}

/// Whether the header holds one of the secrets.
fn prove_bearer(headers: &HeaderMap, secrets: &[SecretText]) -> Result<(), NotRead> {
    let failed = || {
        refused(
            RejectCode::AuthenticationFailed,
            "the bearer token is not the source's",
        )
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(failed)?;
    // Digests are of one length: the comparison tells nothing of the secret's.
    let given = sha256(given.as_bytes());
    let is_one = secrets.iter().any(|secret| {
        let known = sha256(secret.reveal().as_bytes());
        bool::from(known.as_bytes().ct_eq(given.as_bytes()))
    });
    is_one.then_some(()).ok_or_else(failed)
}

/// Checks the signature of a webhook (Standard Webhooks); answers the id of the message.
fn prove_hmac(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[SecretText],
    now: Timestamp,
) -> Result<String, NotRead> {
    let failed = |why: &str| refused(RejectCode::AuthenticationFailed, why);
    let id = message_id(headers).ok_or_else(|| failed("webhook-id is missing"))?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let at = text("webhook-timestamp").ok_or_else(|| failed("webhook-timestamp is missing"))?;
    let seconds: i64 = at
        .parse()
        .map_err(|_| failed("webhook-timestamp is no number of seconds"))?;
    if seconds.abs_diff(now.as_unix_seconds()) > WEBHOOK_SKEW_SECONDS.unsigned_abs() {
        return Err(failed("webhook-timestamp is more than five minutes from now"));
    }
    let signatures = text("webhook-signature").ok_or_else(|| failed("webhook-signature is missing"))?;
    let mut message = format!("{id}.{at}.").into_bytes();
    message.extend_from_slice(body);
    let keys: Vec<hmac::Key> = secrets
        .iter()
        .filter_map(|secret| STANDARD.decode(secret.reveal().strip_prefix(HMAC_PREFIX)?).ok())
        .map(|key| hmac::Key::new(hmac::HMAC_SHA256, &key))
        .collect();
    let is_signed = signatures
        .split(' ')
        .take(SIGNATURES_MAX)
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .any(|tag| keys.iter().any(|key| hmac::verify(key, &message, &tag).is_ok()));
    match is_signed {
        true => Ok(id.to_owned()),
        false => Err(failed("the signature is not by the source's secret")),
    }
}

async fn note_refusal(
    app: &App,
    tenant: TenantId,
    source: SignalSourceId,
    why: String,
    now: Timestamp,
) -> Result<(), Problem> {
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let counted = Counted {
            refused: Some(&why),
            ..Counted::default()
        };
        store::count(tx, tenant, source, counted, now)?;
        Ok(())
    })
    .await
}

/// Keeps what a message says. Answers what became of it, and whether a device is to be looked at.
async fn keep(
    app: &App,
    tenant: TenantId,
    source: SignalSource,
    read: Read,
    now: Timestamp,
) -> Result<(&'static str, bool), Problem> {
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        if !store::hold_source(tx, tenant, source.id)? {
            // Somebody removed it just now.
            return Ok(("removed", false));
        }
        if let Some(id) = &read.id {
            let digest = sha256(id.as_bytes());
            if !store::see(tx, tenant, source.id, digest.as_bytes(), now)? {
                let counted = Counted {
                    repeated: true,
                    ..Counted::default()
                };
                store::count(tx, tenant, source.id, counted, now)?;
                return Ok(("repeated", false));
            }
        }
        let (mut is_taken, mut is_unmatched) = (false, false);
        for statement in &read.statements {
            let outcome = keep_one(tx, tenant, &source, statement, now)?;
            is_taken |= outcome == Outcome::Taken;
            is_unmatched |= outcome == Outcome::Unmatched;
        }
        let counted = Counted {
            taken: is_taken,
            unmatched: is_unmatched,
            ..Counted::default()
        };
        store::count(tx, tenant, source.id, counted, now)?;
        let word = match (is_taken, is_unmatched) {
            (true, _) => "taken",
            (false, true) => "unmatched",
            (false, false) => "ignored",
        };
        Ok((word, is_taken))
    })
    .await
}

fn keep_one(
    tx: &mut Tx,
    tenant: TenantId,
    source: &SignalSource,
    statement: &Statement,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    let mut found = Vec::new();
    let mut outcome = Outcome::Ignored;
    if !statement.what.is_empty() {
        match devices_of(tx, tenant, source, statement)? {
            Ok(devices) => {
                outcome = Outcome::Older;
                store::matched(tx, tenant, source.id, &statement.subject)?;
                for device in &devices {
                    let mut said = store::said(tx, tenant, *device, source.id)?.unwrap_or_default();
                    let max_age = source.definition.max_age();
                    let due = match said.take(statement, now.minus(max_age)) {
                        Took::Nothing => continue,
                        Took::Changed => now,
                        // Nobody reads another word; only its end moves.
                        Took::Again => said.clone().signal(max_age).ends_next(now).unwrap_or(now),
                    };
                    outcome = Outcome::Taken;
                    store::put_said(tx, tenant, *device, source.id, &said, due)?;
                }
                found = devices;
            }
            Err(reason) => {
                outcome = Outcome::Unmatched;
                store::unmatch(tx, tenant, source.id, &statement.subject, reason, now)?;
            }
        }
    }
    let arrival = Arrival {
        id: SignalArrivalId::generate(now, clock::random()),
        source: String::new(),
        arrived_at: now,
        event: statement.event.clone(),
        subject: statement.subject.clone(),
        device: found.first().copied(),
        devices: i64::try_from(found.len()).unwrap_or(i64::MAX),
        outcome: outcome.as_str().to_owned(),
        detail: statement.detail.clone(),
    };
    store::arrived(tx, tenant, source.id, &arrival)?;
    Ok(outcome)
}

/// The devices that a statement is about, at least one; otherwise why there is none.
fn devices_of(
    tx: &mut Tx,
    tenant: TenantId,
    source: &SignalSource,
    statement: &Statement,
) -> Result<Result<Vec<DeviceId>, &'static str>, Problem> {
    // What is said of a person is about all that the person works with.
    let mut people = Vec::new();
    if source.definition.follows_people {
        for person in &statement.people {
            let owned = devices::of_owner(tx, tenant, &name_key(person), DEVICES_OF_A_PERSON_MAX)?;
            let active = owned
                .into_iter()
                .filter(|device| device.state == DeviceState::Active);
            people.extend(active.map(|device| device.id));
        }
    }
    let mut is_ambiguous = false;
    for name in &statement.devices {
        for by in &source.definition.devices_by {
            match named(tx, tenant, by, name)?.as_slice() {
                [] => {}
                [device] => {
                    people.push(*device);
                    people.sort_unstable();
                    people.dedup();
                    return Ok(Ok(people));
                }
                _ => is_ambiguous = true,
            }
        }
    }
    people.sort_unstable();
    people.dedup();
    Ok(match (people.is_empty(), is_ambiguous) {
        (false, _) => Ok(people),
        (true, true) => Err("more than one device has this name"),
        (true, false) if statement.devices.is_empty() && statement.people.is_empty() => {
            Err("the message names nobody that can be a device")
        }
        (true, false) => Err("no active device is known by this name"),
    })
}

/// Active devices by one kind of name; more than one says nothing.
fn named(tx: &mut Tx, tenant: TenantId, by: &DeviceName, name: &str) -> Result<Vec<DeviceId>, Problem> {
    let claimed = match by {
        DeviceName::Id => name.parse::<DeviceId>().ok().into_iter().collect(),
        DeviceName::Uuid => match uuid::Uuid::parse_str(name) {
            Ok(uuid) => devices::claimed(tx, tenant, "uuid", &uuid.as_hyphenated().to_string())?
                .into_iter()
                .collect(),
            Err(_) => Vec::new(),
        },
        DeviceName::Serial => devices::claimed(tx, tenant, "serial", name)?
            .into_iter()
            .collect(),
        DeviceName::Imei => devices::claimed(tx, tenant, "imei", name)?.into_iter().collect(),
        DeviceName::Label(key) => devices::labeled(tx, tenant, key.as_str(), name)?,
    };
    let mut active = Vec::new();
    for device in claimed {
        if devices::active(tx, tenant, device)?.is_some() {
            active.push(device);
        }
    }
    Ok(active)
}
