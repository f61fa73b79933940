//! What the operator does with a tenant that there is: renames it, suspends it, lets it go on, and hands in that it ends.

use std::sync::Arc;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::{closure, dsse::Envelope, key::sha256};

use super::{
    follow::{STATEMENT, is_taken_back},
    make::{self, not_found},
    store::{self, Closing, ClosingState},
};
use crate::{
    App,
    access::{
        self, Author, TenantRow, TenantState,
        problem::{CLOSURE_REFUSED, ILLEGAL_STATE, INVALID, OPERATOR_ONLY, Problem},
    },
    audit,
    secrets::{self, TenantKeys},
};

/// How far a signer's clock may be ahead of ours.
const CLOCK_AHEAD: std::time::Duration = std::time::Duration::from_secs(300);
/// Longest reason of a suspension.
const REASON_CHARS_MAX: usize = 500;
/// Characters of a refusal that the log keeps.
const WHY_CHARS_MAX: usize = 300;

/// Refuses whoever is not of the operator's tenant: the installation's first one.
pub async fn require_operator(app: &App, tenant: TenantId) -> Result<(), Problem> {
    if secrets::operator(app).await? == Some(tenant) {
        return Ok(());
    }
    Err(OPERATOR_ONLY.detail(
        "Tenants are seen, made and ended by the operator's tenant, the first one of the installation.",
    ))
}

/// A tenant by its id or its name.
pub async fn find(app: &App, text: &str) -> Result<TenantRow, Problem> {
    let (id, name) = (text.parse::<TenantId>().ok(), text.to_owned());
    let found = app.db.read(Scope::System, move |tx| match id {
        Some(id) => access::tenant(tx, id),
        None => access::tenant_named(tx, &name),
    });
    found.await?.ok_or_else(not_found)
}

/// The keys of the operator, whose log tells what was done, and of the tenant to which it is done.
async fn keys(
    app: &App,
    operator: TenantId,
    tenant: TenantId,
) -> Result<(Arc<TenantKeys>, Arc<TenantKeys>), Problem> {
    if operator == tenant {
        return Err(ILLEGAL_STATE.detail(
            "This is the operator's tenant: it can be neither suspended nor closed, since nobody could let it go on.",
        ));
    }
    Ok((
        secrets::keys_of(app, operator).await?,
        secrets::keys_of(app, tenant).await?,
    ))
}

/// Changes what people call a tenant.
pub async fn rename(
    app: &App,
    author: &Author,
    tenant: TenantId,
    display_name: String,
) -> Result<(), Problem> {
    make::check_display_name(&display_name)?;
    let operator = author.tenant;
    let ours = secrets::keys_of(app, operator).await?;
    let theirs = secrets::keys_of(app, tenant).await?;
    audit::commit_across(app, author, ours, theirs, move |tx| {
        if !access::rename_tenant(tx, tenant, &display_name)? {
            return Err(not_found());
        }
        let detail = serde_json::json!({"display_name": display_name});
        tell(tx, operator, tenant, "tenant.renamed", detail)
    })
    .await
}

/// Writes one entry into the log of the operator and one into the tenant's; one where they are the same.
pub(super) fn tell(
    tx: &mut audit::LoggedTx<'_>,
    operator: TenantId,
    tenant: TenantId,
    action: &'static str,
    detail: serde_json::Value,
) -> Result<(), Problem> {
    let object = || ("tenant", tenant.to_string());
    if operator != tenant {
        tx.record_there(action, object(), detail.clone())?;
    }
    tx.record(action, object(), detail).map(drop)
}

/// Shuts a tenant: from the answer on, no node lets anybody of it in, and its devices are told to come later.
pub async fn suspend(app: &App, author: &Author, tenant: TenantId, reason: &str) -> Result<(), Problem> {
    if reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(INVALID.detail(format!(
            "reason: at most {REASON_CHARS_MAX} characters on one line."
        )));
    }
    let (operator, reason) = (author.tenant, reason.to_owned());
    let (ours, theirs) = keys(app, operator, tenant).await?;
    audit::commit_across(app, author, ours, theirs, move |tx| {
        if !access::set_tenant_state(tx, tenant, TenantState::Active, TenantState::Suspended)? {
            return Err(wrong_state(tx, tenant, "suspended", "active")?);
        }
        access::visits::end_suspended(tx, tenant)?;
        tell(
            tx,
            operator,
            tenant,
            "tenant.suspended",
            serde_json::json!({"reason": reason}),
        )
    })
    .await?;
    app.registry.forget_identities();
    app.registry.call_all(tenant);
    app.memory.settle().await;
    Ok(())
}

/// Lets a tenant go on that is suspended, or that ends and whose waiting time is not over.
pub async fn resume(app: &App, author: &Author, tenant: TenantId) -> Result<(), Problem> {
    let operator = author.tenant;
    let (ours, theirs) = keys(app, operator, tenant).await?;
    audit::commit_across(app, author, ours, theirs, move |tx| {
        let was_closing = store::remove_waiting(tx, operator, tenant)? == 1;
        // What was handed in last, by the log: that statement is never good again.
        let taken_back = if was_closing {
            let keys = Arc::clone(tx.keys());
            let closed = audit::sealed_about(tx, &keys, &tenant.to_string(), "tenant.closing")?;
            closed
                .first()
                .and_then(|entry| entry.detail.get(STATEMENT).cloned())
        } else {
            None
        };
        let from = if was_closing {
            TenantState::Closing
        } else {
            TenantState::Suspended
        };
        if !access::set_tenant_state(tx, tenant, from, TenantState::Active)? {
            return Err(wrong_state(
                tx,
                tenant,
                "resumed",
                "suspended, or closing within its waiting time",
            )?);
        }
        let mut detail = serde_json::json!({"closure_taken_back": was_closing});
        if let Some(statement) = taken_back {
            detail[STATEMENT] = statement;
        }
        tell(tx, operator, tenant, "tenant.resumed", detail)
    })
    .await?;
    app.registry.forget_identities();
    Ok(())
}

fn wrong_state(tx: &mut Tx, tenant: TenantId, what: &str, needs: &str) -> Result<Problem, Problem> {
    Ok(match access::tenant(tx, tenant)? {
        None => not_found(),
        Some(row) => ILLEGAL_STATE.detail(format!(
            "The tenant is {}, and only one that is {needs} can be {what}.",
            row.state.as_str()
        )),
    })
}

/// Takes the statement of a suspended tenant's root keys that it ends. It is deleted when the waiting time is over.
pub async fn close(app: &App, author: &Author, tenant: TenantId, envelope: &Envelope) -> Result<(), Problem> {
    let operator = author.tenant;
    let (ours, theirs) = keys(app, operator, tenant).await?;
    let row = app
        .db
        .read(Scope::System, move |tx| access::tenant(tx, tenant))
        .await?
        .ok_or_else(not_found)?;
    if row.state != TenantState::Suspended {
        return Err(ILLEGAL_STATE.detail(format!(
            "The tenant is {}. Suspend it first: a tenant at work is not closed.",
            row.state.as_str()
        )));
    }
    // What is checked is the newest document that there is, not the newest that this node happens to know.
    let theirs = if secrets::follow_roots(app, tenant).await? {
        secrets::keys_of(app, tenant).await?
    } else {
        theirs
    };
    let now = app.clock.now();
    let verified = match check(&theirs, envelope, now) {
        Ok(verified) => verified,
        Err(why) => {
            note_refused(app, author, tenant, envelope, &why).await?;
            return Err(CLOSURE_REFUSED.detail(format!("{why}.")));
        }
    };
    let signers = closure::signers(&theirs.root, envelope)
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    let closing = Closing {
        id: tenant,
        name: row.name,
        state: ClosingState::Waiting,
        statement: envelope.to_json(),
        signers,
        reason: verified.reason,
        asked_by: author.text(),
        asked_at: now,
        erase_at: now.plus(app.settings.tenant_closing),
        erasing_at: None,
        note: None,
        removed: String::new(),
        deleted_at: None,
    };
    let statement = sha256(&envelope.payload).to_string();
    let closed = audit::commit_across(app, author, ours, theirs, move |tx| {
        let keys = Arc::clone(tx.keys());
        let resumed = audit::sealed_about(tx, &keys, &tenant.to_string(), "tenant.resumed")?;
        if is_taken_back(&resumed, &statement) {
            return Err(CLOSURE_REFUSED.detail("This end was taken back. Have another statement signed."));
        }
        if !access::set_tenant_state(tx, tenant, TenantState::Suspended, TenantState::Closing)? {
            return Err(wrong_state(tx, tenant, "closed", "suspended")?);
        }
        if store::insert_closing(tx, operator, &closing)? == 0 {
            return Err(ILLEGAL_STATE.detail("The tenant ends already."));
        }
        let detail = serde_json::json!({
            "reason": closing.reason, "signers": closing.signers, "erase_at": closing.erase_at,
            STATEMENT: statement,
        });
        tell(tx, operator, tenant, "tenant.closing", detail)
    })
    .await;
    if let Err(problem) = &closed
        && problem.kind == CLOSURE_REFUSED
    {
        note_refused(app, author, tenant, envelope, "this end was taken back").await?;
    }
    closed?;
    app.nudges.tenants.notify_one();
    Ok(())
}

fn check(
    keys: &TenantKeys,
    envelope: &Envelope,
    now: Timestamp,
) -> Result<closure::TenantClosureStatement, String> {
    let newest = keys
        .root_documents
        .last()
        .ok_or("the tenant has no root document")?;
    let verified =
        closure::verify(&keys.root, &newest.payload, envelope).map_err(|error| error.to_string())?;
    let statement = verified.statement;
    if statement.expires_at <= now {
        return Err(format!("the statement expired at {}", statement.expires_at));
    }
    if statement.issued_at > now.plus(CLOCK_AHEAD) {
        return Err(format!(
            "the statement was signed at {}, which is still to come",
            statement.issued_at
        ));
    }
    Ok(statement)
}

/// A refused attempt is logged, although it changed nothing.
async fn note_refused(
    app: &App,
    author: &Author,
    tenant: TenantId,
    envelope: &Envelope,
    why: &str,
) -> Result<(), Problem> {
    let why: String = why.chars().take(WHY_CHARS_MAX).collect();
    let detail = serde_json::json!({"offered_sha256": sha256(&envelope.payload).to_string(), "why": why});
    audit::observe(app, author, move |tx| {
        tx.record(
            "tenant.closure_refused",
            ("tenant", tenant.to_string()),
            detail.clone(),
        )
        .map(drop)
    })
    .await
}

/// Writes down that everything of a tenant was taken away: in its own log, and in the operator's where the operator did it.
pub async fn note_export(app: &App, author: &Author, tenant: TenantId) -> Result<(), Problem> {
    let by = author.tenant;
    if by == tenant {
        return audit::commit(app, author, move |tx| {
            tx.record(
                "tenant.exported",
                ("tenant", tenant.to_string()),
                serde_json::json!({}),
            )
            .map(drop)
        })
        .await;
    }
    let (ours, theirs) = keys(app, by, tenant).await?;
    audit::commit_across(app, author, ours, theirs, move |tx| {
        tell(
            tx,
            by,
            tenant,
            "tenant.exported",
            serde_json::json!({"by_operator": true}),
        )
    })
    .await
}
