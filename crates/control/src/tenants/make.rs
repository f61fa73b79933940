//! Making a tenant in two steps: the server makes the keys that it signs with and writes the root document; whoever holds the root keys
//! signs that very document elsewhere, and only then there is a tenant.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use muster_model::{TenantId, Timestamp, text::Name};
use muster_trust::{
    dsse::Envelope,
    key::{PublicKey, sha256},
};

use super::store::{self, Draft};
use crate::{
    App,
    access::{
        self, Author, NewClient, NewTenant,
        problem::{CONFLICT, ILLEGAL_STATE, INVALID, NAME_TAKEN, NOT_FOUND, Problem, ROOT_REFUSED},
    },
    audit, clock,
    secrets::{self, FreshKeys, KeysRow},
};

/// Tenants that wait for their root keys' signatures.
pub const DRAFTS_MAX: usize = 20;
/// How long one waits.
pub const DRAFT_LIVES: Duration = Duration::from_secs(24 * 3600);
/// Root keys that a new tenant may name.
pub const ROOT_KEYS_MAX: usize = 16;
/// The person whom the first link signs in.
const FIRST_PERSON: &str = "owner";
const NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=63;

/// What a tenant is to be made of.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: String,
    pub display_name: String,
    pub root_keys: Vec<PublicKey>,
    pub root_threshold: u32,
}

/// A tenant that was made now.
pub struct Made {
    pub client: NewClient,
    /// The secret of a link that signs the first person in, and until when.
    pub link: (String, Timestamp),
}

/// Whether a text can be a tenant's name: small letters, digits and hyphens, as in the name of a host.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let is_word = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    let is_one = NAME_CHARS.contains(&name.len())
        && name.chars().all(is_word)
        && !name.starts_with('-')
        && !name.ends_with('-');
    // An id is no name: a path holds either.
    if is_one && name.parse::<TenantId>().is_err() {
        return Ok(());
    }
    Err(INVALID.detail(
        "A tenant's name is 1 to 63 small letters, digits and hyphens, and neither begins nor ends with a hyphen.",
    ))
}

/// Whether a text can be what people call a tenant; empty for nothing besides its name.
pub fn check_display_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        return Ok(());
    }
    Name::parse(name)
        .map(drop)
        .map_err(|error| INVALID.detail(format!("display_name: {error}.")))
}

fn check(wanted: &Wanted) -> Result<(), Problem> {
    check_name(&wanted.name)?;
    check_display_name(&wanted.display_name)?;
    let different: BTreeSet<_> = wanted.root_keys.iter().map(PublicKey::key_id).collect();
    if different.is_empty() || wanted.root_keys.len() > ROOT_KEYS_MAX {
        return Err(INVALID.detail(format!("root_keys: name 1 to {ROOT_KEYS_MAX} public keys.")));
    }
    if different.len() != wanted.root_keys.len() {
        return Err(INVALID.detail("root_keys: a key is named twice."));
    }
    let most = u32::try_from(different.len()).unwrap_or(u32::MAX);
    if !(1..=most).contains(&wanted.root_threshold) {
        return Err(INVALID.detail(format!(
            "root_threshold: of these keys 1 to {most} can be asked for."
        )));
    }
    Ok(())
}

/// The first step: makes the keys, and the document that the root keys are to sign.
pub async fn draft(app: &App, author: &Author, wanted: Wanted) -> Result<Draft, Problem> {
    check(&wanted)?;
    let (operator, now) = (author.tenant, app.clock.now());
    let id = TenantId::generate(now, clock::random());
    let fresh = FreshKeys::generate()?;
    let device_cas = vec![app.keys.authority.device_ca_sha256()];
    let document = fresh.first_document(id, &wanted.root_keys, wanted.root_threshold, device_cas, now);
    document
        .check()
        .map_err(|error| INVALID.detail(format!("{error}.")))?;
    let document = document.to_bytes();
    let draft = Draft {
        id,
        name: wanted.name,
        display_name: wanted.display_name,
        sealed: fresh.seal(&app.keys, id, &document)?,
        document,
        created_by: author.text(),
        created_at: now,
        expires_at: now.plus(DRAFT_LIVES),
    };
    let written = draft.clone();
    audit::commit_for_all(app, author, move |tx| {
        let at = tx.at();
        store::forget_drafts(tx, operator, at)?;
        if store::drafts(tx, operator)?.len() >= DRAFTS_MAX {
            return Err(CONFLICT.detail(format!(
                "{DRAFTS_MAX} tenants wait for their root documents. Sign one, or delete one."
            )));
        }
        let taken = || NAME_TAKEN.detail(format!("There is a tenant {:?} already.", written.name));
        if access::tenant_named(tx, &written.name)?.is_some() {
            return Err(taken());
        }
        if store::insert_draft(tx, operator, &written)? == 0 {
            return Err(taken());
        }
        let detail = serde_json::json!({
            "name": written.name, "document_sha256": sha256(&written.document).to_string(),
        });
        tx.record("tenant.drafted", ("tenant", written.id.to_string()), detail)
            .map(drop)
    })
    .await?;
    Ok(draft)
}

/// Takes a draft back.
pub async fn discard(app: &App, author: &Author, id: TenantId) -> Result<(), Problem> {
    let operator = author.tenant;
    audit::commit(app, author, move |tx| {
        if store::remove_draft(tx, operator, id)? == 0 {
            return Err(not_found());
        }
        tx.record(
            "tenant.draft_discarded",
            ("tenant", id.to_string()),
            serde_json::json!({}),
        )
        .map(drop)
    })
    .await
}

pub(super) fn not_found() -> Problem {
    NOT_FOUND.detail("There is no such tenant.")
}

/// The second step: the document with its signatures makes the tenant. Its row, its keys, its first service account and the first entries
/// of both logs are one transaction.
pub async fn activate(
    app: &App,
    author: &Author,
    id: TenantId,
    envelope: &Envelope,
) -> Result<Made, Problem> {
    let (operator, now) = (author.tenant, app.clock.now());
    let found = app.db.read(muster_storage::Scope::System, move |tx| {
        Ok::<_, Problem>((store::draft(tx, operator, id)?, access::tenant(tx, id)?))
    });
    let draft = match found.await? {
        (Some(draft), _) if draft.expires_at > now => draft,
        (_, Some(_)) => return reissue(app, author, id, envelope).await,
        (Some(_), None) => {
            return Err(NOT_FOUND.detail("The draft of this tenant has expired. Make another."));
        }
        (None, None) => return Err(not_found()),
    };
    if envelope.payload != draft.document {
        return Err(ROOT_REFUSED.detail(
            "The signed document is not the one that this tenant was given: sign exactly the bytes of `payload`.",
        ));
    }
    let fresh = FreshKeys::open(&app.keys, id, &draft.sealed)
        .map_err(|why| Problem::internal(format!("the keys of the draft {id} do not open: {why}")))?;
    let keys = fresh
        .assemble(id, envelope)
        .map_err(|why| ROOT_REFUSED.detail(format!("{why}.")))?;
    let row = KeysRow {
        sealed: draft.sealed.clone(),
        envelope: envelope.to_json(),
    };
    let (keys, theirs) = (Arc::new(keys), secrets::keys_of(app, operator).await?);
    let new = NewTenant {
        id,
        name: draft.name,
        display_name: draft.display_name,
    };
    // Whoever acts is the operator's; the first entries of the new log say so.
    let acting = Author {
        tenant: id,
        ..author.clone()
    };
    let (of_new, held, by) = (Arc::clone(&keys), Arc::clone(&keys), author.text());
    let made = audit::commit_as(app, &acting, operator, (keys, theirs), move |tx| {
        // One of two that activate it at once removes the row.
        if store::remove_draft(tx, operator, id)? == 0 {
            return Err(active_already());
        }
        let client = access::begin_tenant(tx, &new, &of_new, &row)?;
        let link = access::first_link(tx, &client, FIRST_PERSON)?;
        let detail = serde_json::json!({
            "name": new.name, "root_sha256": of_new.root_sha256().to_string(), "by": by,
        });
        tx.record_there("tenant.created", ("tenant", id.to_string()), detail)?;
        Ok(Made { client, link })
    })
    .await?;
    // What was verified here, not what a row says by now.
    app.keys.adopt(&held).map_err(Problem::internal)?;
    if let Err(error) = app.keys.keep_roots(id) {
        tracing::warn!(%error, tenant = %id, "the root documents are kept in the database alone");
    }
    Ok(made)
}

/// Whoever made a tenant and never got the answer hands the same envelope in again: as long as nobody used the first account or the first
/// link, both are made anew, and both logs say so.
async fn reissue(app: &App, author: &Author, id: TenantId, envelope: &Envelope) -> Result<Made, Problem> {
    let ours = secrets::keys_of(app, id).await?;
    let theirs = secrets::keys_of(app, author.tenant).await?;
    if ours.root_documents.first() != Some(envelope) {
        return Err(active_already());
    }
    let acting = Author {
        tenant: id,
        ..author.clone()
    };
    audit::commit_as(app, &acting, author.tenant, (ours, theirs), move |tx| {
        access::require_open_in(tx, id)?;
        let Some((client, link)) = access::reissue_first(tx, FIRST_PERSON)? else {
            return Err(active_already());
        };
        let detail = serde_json::json!({"client": client.id.to_string()});
        tx.record_there("tenant.secret_reissued", ("tenant", id.to_string()), detail)?;
        Ok(Made { client, link })
    })
    .await
}

fn active_already() -> Problem {
    ILLEGAL_STATE.detail("The tenant has its root document already.")
}

/// Forgets drafts that nobody signed in time. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let Some(operator) = secrets::operator(app).await? else {
        return Ok(());
    };
    let now = app.clock.now();
    audit::housekeeping(app, muster_storage::Scope::Tenant(operator.uuid()), move |tx| {
        store::trim_closings(tx, operator, super::CLOSINGS_MAX)?;
        Ok(store::forget_drafts(tx, operator, now).map(drop)?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_of_a_host() {
        for good in ["a", "acme", "acme-2", "0"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "Acme",
            "-acme",
            "acme-",
            "a b",
            "a/b",
            "ä",
            "a\u{0}",
            "tnt_01h",
            long.as_str(),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn root_keys_are_different_and_the_threshold_is_among_them() {
        let key = |seed| {
            let key = muster_trust::key::SigningKey::ed25519_from_seed(&[seed; 32]);
            key.expect("a seed is a key").public().clone()
        };
        let wanted = |root_keys, root_threshold| {
            check(&Wanted {
                name: "acme".to_owned(),
                display_name: String::new(),
                root_keys,
                root_threshold,
            })
        };
        assert!(wanted(vec![key(1), key(2)], 2).is_ok());
        assert!(wanted(vec![key(1), key(1)], 1).is_err());
        assert!(wanted(vec![key(1)], 2).is_err());
        assert!(wanted(vec![key(1)], 0).is_err());
        assert!(wanted(Vec::new(), 1).is_err());
        assert!(wanted((0..17).map(key).collect(), 1).is_err());
    }
}
