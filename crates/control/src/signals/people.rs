//! What people decide about sources. Everything here is in the log.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::SignalSourceId;
use muster_storage::Scope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    SOURCES_MAX,
    definition::{
        Authentication, DeviceName, SignalKind, SignalSource, SignalSourceDefinition, usual_hours,
        usual_names, yes,
    },
    store,
};
use crate::{
    App,
    access::{
        self,
        problem::{CONFLICT, INVALID, NOT_FOUND, Problem},
    },
    audit::{self, LoggedTx},
    clock,
    secrets::{self, Kind, Record, RotatedBy, SecretText},
};

/// How long the secret before stays good where nobody says otherwise.
const OVERLAP_SECONDS: u32 = 86_400;
const OVERLAP_SECONDS_MAX: u32 = 30 * 86_400;
const SECRET_BYTES: usize = 32;
/// What a secret that signs begins with (Standard Webhooks).
pub const HMAC_PREFIX: &str = "whsec_";
/// What a secret that is sent begins with, so that scanners of secrets know it.
const BEARER_PREFIX: &str = "muster_signal_";

/// A source to be. Its secret is made by [`make_secret`].
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalSourceChange {
    pub from: SignalKind,
    /// By what it may mean a device, in the order in which it is tried: `id`, `uuid`, `serial`, `imei` or `label:KEY`.
    #[serde(default = "usual_names")]
    #[schema(value_type = Vec<String>)]
    pub devices_by: Vec<DeviceName>,
    /// Whether what it says of a person is said of all devices of the person.
    #[serde(default = "yes")]
    pub follows_people: bool,
    /// After so many hours what it said is too old, and reads as unknown; at most 2160.
    #[serde(default = "usual_hours")]
    pub max_age_hours: u32,
}

/// Makes or changes a source.
pub fn put_source(
    app: &App,
    tx: &mut LoggedTx<'_>,
    name: &str,
    change: &SignalSourceChange,
) -> Result<SignalSource, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let before = store::source(tx, tenant, name)?;
    if before.is_none() && store::sources(tx, tenant)?.len() >= SOURCES_MAX {
        return Err(CONFLICT.detail(format!("A tenant has at most {SOURCES_MAX} sources of signals.")));
    }
    let definition = SignalSourceDefinition {
        from: change.from.clone(),
        devices_by: change.devices_by.clone(),
        follows_people: change.follows_people,
        max_age_hours: change.max_age_hours,
    };
    let is_new = before.is_none();
    let mut source = match before {
        Some(before) => SignalSource {
            revision: before.revision + 1,
            ..before
        },
        None => SignalSource {
            id: SignalSourceId::generate(at, clock::random()),
            name: name.to_owned(),
            definition: definition.clone(),
            secret: None,
            secret_before: None,
            secret_before_until: None,
            revision: 1,
            updated_by: String::new(),
            updated_at: at,
        },
    };
    // A secret of one kind is no secret of another.
    if secret_kind(&source.definition.from) != secret_kind(&definition.from) {
        (source.secret, source.secret_before, source.secret_before_until) = (None, None, None);
    }
    source.definition = definition;
    (source.updated_by, source.updated_at) = (tx.actor(), at);
    source.check()?;
    store::put_source(tx, tenant, &source)?;
    if source.secret.is_none() {
        secrets::forget(tx, tenant, &record_name(name))?;
    }
    app.signals.key_sets.forget(source.id);
    let action = if is_new {
        "signal_source.created"
    } else {
        "signal_source.changed"
    };
    tx.record(
        action,
        ("signal_source", source.id.to_string()),
        serde_json::json!({
            "name": source.name,
            "from": logged(&source.definition.from),
            "devices_by": source.definition.devices_by,
            "follows_people": source.definition.follows_people,
            "max_age_hours": source.definition.max_age_hours,
        }),
    )?;
    Ok(source)
}

/// What the log keeps of a kind: keys by their digest, for they may be long.
fn logged(from: &SignalKind) -> serde_json::Value {
    match from {
        SignalKind::Ssf {
            issuer,
            audience,
            jwks_url,
            jwks,
        } => serde_json::json!({
            "kind": "ssf", "issuer": issuer, "audience": audience, "jwks_url": jwks_url,
            "jwks_sha256": jwks.as_ref().map(|jwks| muster_trust::key::sha256(jwks.as_bytes()).to_hex()),
        }),
        SignalKind::Webhook { .. } => serde_json::json!(from),
    }
}

const fn secret_kind(from: &SignalKind) -> Option<Authentication> {
    match from {
        SignalKind::Ssf { .. } => None,
        SignalKind::Webhook { authentication, .. } => Some(*authentication),
    }
}

/// Removes a source. What it said counts no more, from now on.
pub fn remove_source(app: &App, tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let source = source(tx, name)?;
    store::delete_source(tx, tenant, source.id, at)?;
    secrets::forget(tx, tenant, &record_name(name))?;
    app.signals.key_sets.forget(source.id);
    tx.record(
        "signal_source.removed",
        ("signal_source", source.id.to_string()),
        serde_json::json!({"name": name}),
    )?;
    Ok(())
}

/// How long the secret before stays good.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FreshSecret {
    /// Seconds; a day where it is left out, at most 30 days, 0 for at once.
    #[serde(default)]
    pub overlap_seconds: Option<u32>,
}

/// Makes a new secret, which is shown once. The one before stays good for a while, so that both sides can change over.
pub fn make_secret(
    app: &App,
    tx: &mut LoggedTx<'_>,
    name: &str,
    wanted: &FreshSecret,
) -> Result<SecretText, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let overlap = wanted.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
    if overlap > OVERLAP_SECONDS_MAX {
        return Err(INVALID.detail("The secret before stays good for at most 30 days."));
    }
    let mut source = source(tx, name)?;
    let bytes: [u8; SECRET_BYTES] = clock::random();
    let prefix = match source.definition.from {
        SignalKind::Webhook {
            authentication: Authentication::Hmac,
            ..
        } => HMAC_PREFIX,
        SignalKind::Webhook { .. } | SignalKind::Ssf { .. } => BEARER_PREFIX,
    };
    let text = match prefix {
        HMAC_PREFIX => STANDARD.encode(bytes),
        _ => hex::encode(bytes),
    };
    let secret = SecretText::new(format!("{prefix}{text}"));
    let until = at.plus(Duration::from_secs(u64::from(overlap)));
    source.take_secret(&app.keys.sealing, tenant, &secret, (at, until))?;
    source.revision += 1;
    (source.updated_by, source.updated_at) = (tx.actor(), at);
    store::put_source(tx, tenant, &source)?;
    let before = secrets::record(tx, tenant, &record_name(name))?;
    let mut record = record(&source);
    record.version = before.map_or(0, |before| before.version) + 1;
    record.overlap_until = source.secret_before_until.filter(|until| *until > at);
    secrets::note(tx, tenant, &record)?;
    tx.record(
        "signal_source.secret_made",
        ("signal_source", source.id.to_string()),
        serde_json::json!({"name": name, "overlap_seconds": overlap}),
    )?;
    Ok(secret)
}

/// The record of the secret that a source shows or signs with.
fn record_name(source: &str) -> String {
    format!("signal-source:{source}")
}

fn record(source: &SignalSource) -> Record {
    let owner = format!("{}, which sends signals", source.name);
    let made = (Kind::SourceSecret, RotatedBy::Holder);
    Record::new(
        record_name(&source.name),
        made,
        owner,
        "database",
        source.updated_at,
    )
}

/// Writes records for secrets that were made before there were any.
pub async fn note_old_secrets(app: &App) -> Result<(), Problem> {
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            for source in store::sources(tx, tenant)? {
                if source.secret.is_some() {
                    secrets::note_old(tx, tenant, &record(&source))?;
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn source(tx: &mut LoggedTx<'_>, name: &str) -> Result<SignalSource, Problem> {
    let tenant = tx.tenant();
    store::source(tx, tenant, name)?.ok_or_else(|| NOT_FOUND.detail("There is no such source of signals."))
}

/// A secret, shown this once.
#[derive(Serialize, ToSchema)]
pub struct SecretShown {
    pub secret: String,
    /// What the other side is to be told besides.
    pub settings: BTreeMap<&'static str, String>,
}
