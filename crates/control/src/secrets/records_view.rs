//! What people read of secrets, and what they may ask for.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::Scope;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    keeper::{self, StoreStatus},
    places::{EMBEDDED, FILE},
    records::{self, Kind, LONG_PERIODS_DAYS, PERIODS_DAYS, Record, RotatedBy},
    ring::{RingName, Version},
    rotation::REVOKED,
    store, vouched,
};
use crate::{
    App,
    access::problem::{FORBIDDEN, ILLEGAL_STATE, INVALID, NOT_FOUND, Problem, RATE_LIMITED},
    audit::LoggedTx,
};

/// A rotation may be asked for this long after the one before.
const ASKED_EVERY: Duration = Duration::from_secs(60);

/// So many versions of a key may be accepted at once because somebody asked for another one: of the ten that Vault keeps unless it is
/// told otherwise, some are left for the server's own rotations, and for the one after a revocation.
const ASKED_VERSIONS_MAX: usize = 6;
/// The end of a tenant's own keys may be asked for this long after the time before: each makes others refuse what was signed.
const REVOKED_EVERY: Duration = Duration::from_secs(3600);

/// A secret, without its value.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SecretView {
    pub name: String,
    pub kind: Kind,
    /// Who has it or uses it.
    pub owner: String,
    /// `installation`: all tenants share it, and the first tenant rotates it. `tenant`: this tenant's own.
    pub belongs_to: &'static str,
    pub rotated_by: RotatedBy,
    /// Where its newest value is kept.
    pub place: String,
    pub version: i64,
    pub rotated_at: String,
    pub period_days: u32,
    pub due_at: String,
    /// How long it should have been rotated; 0 while it is on time.
    pub overdue_seconds: u64,
    /// How much of its period is over, in percent; more than 100 when it is late.
    pub age_percent: u64,
    /// Until when the value before is good as well.
    pub overlap_until: Option<String>,
    /// When somebody asked for a rotation that was not done yet.
    pub asked_at: Option<String>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// What happens at the next rotation, or what somebody has to do.
    pub next: String,
}

fn view(record: &Record, belongs_to: &'static str, now: Timestamp) -> SecretView {
    let period = u64::from(record.period_days.max(1)) * 86_400;
    SecretView {
        name: record.name.clone(),
        kind: record.kind,
        owner: record.owner.clone(),
        belongs_to,
        rotated_by: record.rotated_by,
        place: record.place.clone(),
        version: record.version,
        rotated_at: record.rotated_at.to_string(),
        period_days: record.period_days,
        due_at: record.due_at().to_string(),
        overdue_seconds: record.overdue(now).as_secs(),
        age_percent: now.since(record.rotated_at).as_secs().saturating_mul(100) / period,
        overlap_until: record
            .overlap_until
            .filter(|until| *until > now)
            .map(|until| until.to_string()),
        asked_at: record.asked_at.map(|at| at.to_string()),
        error: record.error.clone(),
        next: next(record).to_owned(),
    }
}

fn next(record: &Record) -> &'static str {
    match (record.kind, record.rotated_by) {
        (Kind::SigningKey, RotatedBy::Operator) => {
            "Make a new key with `muster key generate`, name it with `muster root rotate`, and put its file in the place of the old one: \
             see how-to/root-ceremony. No server may change it, because devices obey it."
        }
        (Kind::SigningKey, _) if RingName::parse(&record.name).is_none() => {
            "The server makes a new key. Others see it in the key set before it signs; the old one stays there for a week after."
        }
        (Kind::SigningKey, _) => {
            "The server makes a new key. It signs after 15 seconds; the old one is accepted until the last token that it signed is over."
        }
        (Kind::SealingKey, _) => {
            "The server makes a new key, seals everything anew with it, and retires the old one when nothing needs it."
        }
        (Kind::TlsCertificate, _) => {
            "The node takes a new certificate and key for new connections. Open connections go on."
        }
        (Kind::ClientSecret, RotatedBy::Server) => {
            "The node takes a new secret into its admin.json. The old one is good for a day as well."
        }
        (Kind::ClientSecret, RotatedBy::Holder | RotatedBy::Operator) => {
            "Make a new secret with `muster client rotate`, and bring it to whoever uses it. The old one is good meanwhile."
        }
        (Kind::DestinationSecret, _) => {
            "Make a new secret at the service, and give it here by changing the destination. A webhook is signed with both for a day."
        }
        (Kind::SourceSecret, _) => {
            "Make a new secret with `muster signal secret`, and bring it to the source. The old one is good for a day as well."
        }
        (Kind::DatabasePassword, _) => {
            "Give the second login a new password, write it to the file that --database-password-file names on each node, and wait \
             until old connections are over: see how-to/rotate-the-database-password."
        }
        (Kind::ProviderSecret, _) => {
            "Make a second secret at the identity provider, give it here with `muster sso put`, and remove the first there. A key of this \
             server's own: `muster sso put … --new-key` publishes the next one a day before it signs, and the old one for a day after."
        }
    }
}

/// Whether all tenants share it.
fn is_shared(record: &Record) -> bool {
    match record.kind {
        // A tenant has signing keys of its own as well.
        Kind::SigningKey => RingName::parse(&record.name).is_some(),
        Kind::SealingKey | Kind::TlsCertificate | Kind::DatabasePassword => true,
        Kind::ClientSecret | Kind::DestinationSecret | Kind::ProviderSecret | Kind::SourceSecret => false,
    }
}

/// The records that a tenant may see: its own and the installation's.
pub async fn visible(app: &App, tenant: TenantId) -> Result<Vec<Record>, Problem> {
    let operator = keeper::operator(app).await?;
    app.db
        .read(Scope::System, move |tx| {
            let mut found = records::records(tx, tenant)?;
            match operator {
                Some(operator) if operator != tenant => {
                    let of_operator = records::records(tx, operator)?.into_iter().filter(is_shared);
                    // Where the installation keeps its secrets, and what its stores say, is its operator's alone to know.
                    found.extend(of_operator.map(|record| Record {
                        place: place_for(false, &record.place),
                        error: record.error.map(|_| "the operator sees why".to_owned()),
                        ..record
                    }));
                }
                _ => {}
            }
            Ok(found)
        })
        .await
}

/// A place of the installation, as a tenant sees it.
fn place_for(is_operator: bool, place: &str) -> String {
    let is_plain = matches!(place, FILE | EMBEDDED | "memory" | "database");
    let shown = if is_operator || is_plain {
        place
    } else {
        "external"
    };
    shown.to_owned()
}

/// How the store outside fares, as people of this tenant may know it.
pub async fn store_status(app: &App, tenant: TenantId) -> Result<Option<StoreStatus>, Problem> {
    let Some(status) = app.stores.status() else {
        return Ok(None);
    };
    let is_operator = keeper::operator(app).await? == Some(tenant);
    let error = status.error.map(|why| match is_operator {
        true => why,
        false => "it does not answer as it should".to_owned(),
    });
    Ok(Some(StoreStatus {
        place: place_for(is_operator, &status.place),
        error,
        ..status
    }))
}

/// Every secret that a tenant may see, the most overdue first, then the next that is due.
pub async fn all(app: &App, tenant: TenantId) -> Result<Vec<SecretView>, Problem> {
    let now = app.clock.now();
    let mut found = visible(app, tenant).await?;
    found.sort_by_key(|record| {
        (
            std::cmp::Reverse(record.overdue(now)),
            record.due_at(),
            record.name.clone(),
        )
    });
    let shown = |record: &Record| {
        let belongs_to = if is_shared(record) {
            "installation"
        } else {
            "tenant"
        };
        view(record, belongs_to, now)
    };
    Ok(found.iter().map(shown).collect())
}

/// One of them.
pub async fn one(app: &App, tenant: TenantId, name: &str) -> Result<SecretView, Problem> {
    let found = all(app, tenant).await?;
    found
        .into_iter()
        .find(|secret| secret.name == name)
        .ok_or_else(|| NOT_FOUND.detail("There is no such secret."))
}

/// Refuses tenants that do not rotate what all share.
pub async fn only_operator(app: &App, tenant: TenantId) -> Result<(), Problem> {
    if keeper::operator(app).await? == Some(tenant) {
        Ok(())
    } else {
        Err(not_yours())
    }
}

fn not_yours() -> Problem {
    FORBIDDEN.detail("All tenants of the installation share this: its first tenant decides about it.")
}

fn own(tx: &mut LoggedTx<'_>, name: &str) -> Result<Record, Problem> {
    let tenant = tx.tenant();
    match records::record(tx, tenant, name)? {
        Some(record) => Ok(record),
        // It is another tenant's to see and not to change, or it is not there.
        None if RingName::parse(name).is_some()
            || name.starts_with("tls:")
            || name == "database-password" =>
        {
            Err(not_yours())
        }
        None => Err(NOT_FOUND.detail("There is no such secret.")),
    }
}

/// Sets how often a secret is rotated.
pub fn set_period(tx: &mut LoggedTx<'_>, name: &str, days: u32) -> Result<(), Problem> {
    let (tenant, record) = (tx.tenant(), own(tx, name)?);
    let allowed = match (record.kind, record.rotated_by) {
        (Kind::SigningKey, RotatedBy::Operator) => LONG_PERIODS_DAYS,
        _ => PERIODS_DAYS,
    };
    if !allowed.contains(&days) {
        return Err(INVALID.detail(format!(
            "This secret is rotated every 1 to {} days.",
            allowed.end()
        )));
    }
    store::set_period(tx, tenant, name, days)?;
    tx.record(
        "secret.period_set",
        ("secret", name.to_owned()),
        serde_json::json!({"period_days": days, "before": record.period_days}),
    )?;
    Ok(())
}

/// How long it is until then.
fn left(until: Timestamp, now: Timestamp) -> Option<Duration> {
    (now < until).then(|| until.since(now))
}

/// Ends at once what earlier versions of a key signed, for a key that somebody else has.
pub fn revoke(tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let record = own(tx, name)?;
    if RingName::parse(name).is_none()
        && (record.kind, record.rotated_by) == (Kind::SigningKey, RotatedBy::Server)
    {
        if let Some(wait) = record
            .revoked_at
            .and_then(|before| left(before.plus(REVOKED_EVERY), at))
        {
            return Err(RATE_LIMITED
                .detail("It was revoked less than an hour ago.")
                .retry_after(wait.as_secs().max(1)));
        }
        // Its own slice makes the new key first: without one nothing could be signed.
        store::ask_revoke(tx, tenant, name, at)?;
        tx.record(
            REVOKED,
            ("secret", name.to_owned()),
            serde_json::json!({"asked": true, "version": record.version}),
        )?;
        return Ok(());
    }
    let ring = match RingName::parse(name) {
        Some(ring @ (RingName::AccessTokens | RingName::EnrollmentTokens)) => ring,
        Some(RingName::Sealing) | None => {
            return Err(
                ILLEGAL_STATE.detail("Only keys that sign tokens have earlier versions that can be ended.")
            );
        }
    };
    let keys = std::sync::Arc::clone(tx.keys());
    let versions = vouched::versions(tx, &keys, ring, at)?;
    let newest = versions.last().map_or(0, |version| version.number);
    let is_used = versions.last().is_some_and(|version| version.activates_at <= at);
    if newest < 2 || !is_used {
        return Err(
            ILLEGAL_STATE.detail("Rotate the key first, and wait 15 seconds until the new one signs.")
        );
    }
    let ended = store::revoke_before(tx, tenant, (name, newest), at)?;
    tx.record(
        REVOKED,
        ("secret", name.to_owned()),
        serde_json::json!({"before_version": newest, "versions_ended": ended}),
    )?;
    Ok(())
}

/// How long it is until the first of too many versions is over.
fn wait_for_room(versions: &[Version], now: Timestamp) -> Option<Duration> {
    let accepted: Vec<&Version> = versions
        .iter()
        .filter(|version| version.is_accepted(now))
        .collect();
    if accepted.len() < ASKED_VERSIONS_MAX {
        return None;
    }
    let first = accepted.iter().filter_map(|version| version.retires_at).min();
    Some(first.map_or(ASKED_EVERY, |at| at.since(now)))
}

/// Asks the server to rotate a secret now.
pub fn ask(tx: &mut LoggedTx<'_>, name: &str) -> Result<(), Problem> {
    let (tenant, at, record) = (tx.tenant(), tx.at(), own(tx, name)?);
    match record.rotated_by {
        RotatedBy::Server => {}
        RotatedBy::Holder | RotatedBy::Operator => {
            return Err(ILLEGAL_STATE.detail(format!(
                "The server cannot bring a new secret to where this one is used. {}",
                next(&record)
            )));
        }
    }
    if at < record.rotated_at.plus(ASKED_EVERY) && record.version > 1 {
        return Err(RATE_LIMITED.detail("It was rotated less than a minute ago."));
    }
    let rows = match RingName::parse(name) {
        Some(ring) => store::versions(tx, tenant, ring.as_str())?,
        None => Vec::new(),
    };
    if let Some(wait) = wait_for_room(&rows, at) {
        return Err(RATE_LIMITED
            .detail(format!(
                "What {ASKED_VERSIONS_MAX} versions of this key signed is still accepted: wait, or revoke earlier ones first."
            ))
            .retry_after(wait.as_secs().max(1)));
    }
    store::ask(tx, tenant, name, at)?;
    tx.record(
        "secret.rotation_asked",
        ("secret", name.to_owned()),
        serde_json::json!({"version": record.version}),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_for_so_many_versions_that_none_is_left_for_the_server() {
        let at = Timestamp::from_unix_seconds;
        let version = |number: i64, retires_at: Option<i64>| Version {
            number,
            place: EMBEDDED.to_owned(),
            store_version: number.to_string(),
            public_key: None,
            key_id: None,
            created_at: at(number),
            activates_at: at(number),
            retires_at: retires_at.map(at),
        };
        let mut versions: Vec<Version> = (1..6)
            .map(|number| version(number, Some(1000 + number)))
            .collect();
        assert_eq!(wait_for_room(&versions, at(100)), None);
        versions.push(version(6, None));
        assert_eq!(wait_for_room(&versions, at(100)), Some(Duration::from_secs(901)));
        assert_eq!(wait_for_room(&versions, at(1001)), None, "one is over");
        assert_eq!(wait_for_room(&[], at(0)), None);
    }
}
