//! Certificate revocation lists (RFC 5280 section 5) for relying parties that are not ours, such as RADIUS servers.
//!
//! A list is made when it is asked for, kept, and made anew when something was revoked or it grows old. What is kept is
//! compared with the database at most once a second, so that asking often costs nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use muster_model::Timestamp;
use muster_storage::{Scope, Tx};
use muster_trust::key::sha256_of;
use parking_lot::Mutex;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use tokio::time::timeout;

use super::{RevocationReason, issue::refused, ocsp, store};
use crate::{
    App,
    access::problem::{CA_UNAVAILABLE, NOT_FOUND, Problem, UNAVAILABLE},
    secrets::{Member, SIGNATURE_TIMEOUT, offset},
};

/// How long a list may be believed.
pub const LIST_LIVES: Duration = Duration::from_secs(24 * 3600);
/// A list is made anew after this long, so that whoever fetches one has time to fetch the next.
const LIST_RENEWED_AFTER: Duration = Duration::from_secs(6 * 3600);
/// How often the database is asked whether something was revoked.
const COMPARED_EVERY: Duration = Duration::from_secs(1);
/// Lists and responses begin earlier than they are made, for relying parties whose clock is behind.
pub const BACKDATED: Duration = Duration::from_secs(300);
/// Certificates that one list names at most. Beyond it there is no list: half of one would say that the rest is good.
const ENTRIES_MAX: usize = 1_000_000;
const PAGE: i64 = 5000;
/// Certificates of devices in quarantine that a list names. Quarantines wait for a person, so there are few.
const HELD_MAX: i64 = 100_000;

/// Lists, and what the OCSP responder keeps, in this process.
#[derive(Default)]
pub struct Revocations {
    lists: Mutex<HashMap<String, Kept>>,
    /// One list is made at a time.
    making: tokio::sync::Mutex<()>,
    pub(super) responder: ocsp::Kept,
}

impl Revocations {
    /// Something was revoked: what is kept is compared with the database before it is given out again.
    pub fn forget(&self) {
        self.lists
            .lock()
            .values_mut()
            .for_each(|kept| kept.compared_at = None);
        self.responder.forget_responses();
    }
}

struct Kept {
    der: Arc<[u8]>,
    made_at: Timestamp,
    compared_at: Option<Timestamp>,
    stamp: Stamp,
}

/// How many certificates are revoked, and when the last one was.
type Stamp = (i64, Option<i64>, [u8; 32]);

/// The newest revocation list of a device CA (DER), and how many seconds it may be kept by whoever fetches it.
pub async fn revocation_list(app: &App, authority: &str) -> Result<(Arc<[u8]>, u64), Problem> {
    const FETCHED_AGAIN_AFTER_SECONDS: u64 = 60;
    let now = app.clock.now();
    let set = app.keys.authority.set();
    let member = set
        .device_cas()
        .find(|member| member.id == authority && now < member.not_after)
        .cloned()
        .ok_or_else(|| NOT_FOUND.detail("There is no such authority, or it has expired."))?;
    if let Some(der) = kept(app, authority, now) {
        return Ok((der, FETCHED_AGAIN_AFTER_SECONDS));
    }
    let turn = timeout(SIGNATURE_TIMEOUT, app.revocations.making.lock()).await;
    let _turn = turn.map_err(|_| {
        CA_UNAVAILABLE
            .detail("The revocation list is being made and is not there yet.")
            .retry_after(SIGNATURE_TIMEOUT.as_secs())
    })?;
    // Whoever had the turn before may have made it.
    if let Some(der) = kept(app, authority, now) {
        return Ok((der, FETCHED_AGAIN_AFTER_SECONDS));
    }
    let id = member.id.clone();
    let stamp: Stamp = app
        .db
        .read(Scope::System, move |tx| stamp_of(tx, &id, now))
        .await?;
    if let Some(der) = compared(app, authority, stamp, now) {
        return Ok((der, FETCHED_AGAIN_AFTER_SECONDS));
    }
    let (stamp, der) = make(app, &member, now).await?;
    let der: Arc<[u8]> = der.into();
    let fresh = Kept {
        der: Arc::clone(&der),
        made_at: now,
        compared_at: Some(now),
        stamp,
    };
    app.revocations.lists.lock().insert(member.id.clone(), fresh);
    Ok((der, FETCHED_AGAIN_AFTER_SECONDS))
}

/// The kept list, if it was compared a moment ago.
fn kept(app: &App, authority: &str, now: Timestamp) -> Option<Arc<[u8]>> {
    let lists = app.revocations.lists.lock();
    let kept = lists.get(authority)?;
    let is_fresh = kept.compared_at.is_some_and(|at| now.since(at) < COMPARED_EVERY);
    (is_fresh && now.since(kept.made_at) < LIST_RENEWED_AFTER).then(|| Arc::clone(&kept.der))
}

/// The kept list, if nothing was revoked since it was made.
fn compared(app: &App, authority: &str, stamp: Stamp, now: Timestamp) -> Option<Arc<[u8]>> {
    let mut lists = app.revocations.lists.lock();
    let kept = lists.get_mut(authority)?;
    if kept.stamp != stamp || now.since(kept.made_at) >= LIST_RENEWED_AFTER {
        return None;
    }
    kept.compared_at = Some(now);
    Some(Arc::clone(&kept.der))
}

async fn make(app: &App, member: &Arc<Member>, now: Timestamp) -> Result<(Stamp, Vec<u8>), Problem> {
    let id = member.id.clone();
    let (stamp, entries) = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>((stamp_of(tx, &id, now)?, entries(tx, &id, now)?))
        })
        .await?;
    let until = now.plus(LIST_LIVES).min(member.not_after);
    let list = CertificateRevocationListParams {
        this_update: offset(now.minus(BACKDATED)),
        next_update: offset(until),
        // It must grow with every list, on whichever node it is made: the time does.
        crl_number: SerialNumber::from(now.as_micros().unsigned_abs()),
        issuing_distribution_point: None,
        revoked_certs: entries,
        key_identifier_method: KeyIdMethod::PreSpecified(member.key_identifier.clone()),
    };
    let to_sign = member.issuer().list_to_sign(&list).map_err(Problem::internal)?;
    let der = app
        .keys
        .authority
        .sign(&member.id, &to_sign)
        .await
        .map_err(refused)?;
    tracing::info!(
        authority = member.id,
        revoked = stamp.0,
        "a revocation list was made"
    );
    Ok((stamp, der))
}

/// What a list is compared by: how much is revoked, when the last was, and whose devices are in quarantine.
fn stamp_of(tx: &mut Tx, authority: &str, now: Timestamp) -> Result<Stamp, Problem> {
    let (revoked, last) = store::revoked_stamp(tx, authority, now)?;
    let held = store::held(tx, authority, now, HELD_MAX)?;
    let serials: Vec<&[u8]> = held.iter().map(|held| held.serial.as_bytes()).collect();
    Ok((revoked, last, *sha256_of(&serials).as_bytes()))
}

fn entries(tx: &mut Tx, authority: &str, now: Timestamp) -> Result<Vec<RevokedCertParams>, Problem> {
    let mut entries = store::held(tx, authority, now, HELD_MAX)?
        .into_iter()
        .map(entry)
        .collect::<Result<Vec<_>, _>>()?;
    let mut after = String::new();
    loop {
        let page = store::revoked(tx, authority, now, &after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(entries);
        };
        after.clone_from(&last.serial);
        if entries.len() + page.len() > ENTRIES_MAX {
            return Err(UNAVAILABLE
                .detail("More certificates are revoked than a list can name. Use OCSP.")
                .retry_after(LIST_RENEWED_AFTER.as_secs()));
        }
        for revoked in page {
            entries.push(entry(revoked)?);
        }
    }
}

fn entry(revoked: store::Revoked) -> Result<RevokedCertParams, Problem> {
    let serial = hex::decode(&revoked.serial).map_err(Problem::internal)?;
    let reason = revoked.reason.as_deref().map(RevocationReason::of);
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial),
        revocation_time: offset(revoked.at),
        reason_code: reason.and_then(RevocationReason::in_list),
        invalidity_date: None,
    })
}
