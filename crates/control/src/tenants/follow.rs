//! What every node does when a tenant ends: it looks whether the tenant's root keys said so, and forgets its keys.
//!
//! A row of the database is not enough: whoever writes the database must not make nodes forget a log that they hold it to. Nor is an old
//! statement of the root keys: that it was handed in, when, that it was not taken back, and that its waiting time is over is what sealed
//! entries of the operator's log say, not a row.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::Scope;
use muster_trust::{closure, dsse::Envelope, entry::LogEntry, key::sha256};
use serde_json::Value;

use super::{
    CLOSINGS_MAX,
    store::{self, Closing, ClosingState},
};
use crate::{
    App,
    access::{self, TenantState, problem::Problem},
    audit, secrets,
};

/// How long every node has to forget a tenant before its rows are deleted: several times as long as between two looks.
pub const SETTLES: Duration = Duration::from_secs(5);
/// How much later than it could be at most an end may begin: an installation that was away for longer has it signed again.
const LATE: Duration = Duration::from_secs(86_400);
/// The member of entries that names a statement, by the SHA-256 of its payload: signatures that are added to the envelope change nothing.
pub const STATEMENT: &str = "statement_sha256";

/// How far the end of a tenant is to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its waiting time is over: it may begin.
    Begins,
    /// A node has begun it.
    Begun,
}

/// Takes up limits of tenants, the keys of those that were made on other nodes, and forgets tenants that their root keys ended. Runs at the start and every
/// second.
pub async fn follow(app: &App) -> Result<(), Problem> {
    access::limits::follow(app).await?;
    secrets::take_up_tenants(app).await?;
    let Some(operator) = secrets::operator(app).await? else {
        return Ok(());
    };
    let closings = app
        .db
        .read(Scope::Tenant(operator.uuid()), move |tx| {
            Ok::<_, Problem>(store::closings(tx, operator, CLOSINGS_MAX)?)
        })
        .await?;
    for closing in closings {
        let has_begun = closing.state != ClosingState::Waiting;
        if has_begun && !app.keys.is_gone(closing.id) {
            forget(app, operator, &closing).await?;
        }
        let is_over = closing.state == ClosingState::Deleted;
        if is_over && app.keys.is_gone(closing.id) && app.keys.has_folder(closing.id) {
            app.keys.remove_folder(closing.id).map_err(Problem::internal)?;
        }
    }
    Ok(())
}

/// Whether a tenant ends: the root keys that this node believes signed it, the operator's log says that it is so far, and the tenant's
/// state agrees. Nothing where this node never knew the tenant.
pub async fn is_signed(
    app: &App,
    operator: TenantId,
    closing: &Closing,
    stage: Stage,
) -> Result<Option<Result<(), String>>, Problem> {
    let Some((root, newest)) = app.keys.believed_root(closing.id) else {
        return Ok(None);
    };
    let signed = match verify(&root, &newest.payload, closing) {
        Ok(signed) => signed,
        Err(why) => return Ok(Some(Err(why))),
    };
    let (keys, tenant) = (secrets::keys_of(app, operator).await?, closing.id);
    let told = app
        .db
        .read(Scope::System, move |tx| {
            let object = tenant.to_string();
            Ok::<_, Problem>(Told {
                closing: audit::sealed_about(tx, &keys, &object, "tenant.closing")?,
                resumed: audit::sealed_about(tx, &keys, &object, "tenant.resumed")?,
                erasing: audit::sealed_about(tx, &keys, &object, "tenant.erasing")?,
                state: access::tenant(tx, tenant)?.map(|row| row.state),
            })
        })
        .await?;
    Ok(Some(told.agrees(stage, &signed, app.clock.now())))
}

/// The digest of the statement of an end, as entries name it; empty where the row holds no envelope.
pub fn statement_of(closing: &Closing) -> String {
    Envelope::from_json(&closing.statement)
        .map(|envelope| sha256(&envelope.payload).to_string())
        .unwrap_or_default()
}

/// Whether a statement was taken back, among the sealed entries `resumed` of the operator's log.
pub fn is_taken_back(resumed: &[LogEntry], statement: &str) -> bool {
    resumed.iter().any(|entry| names(entry, statement))
}

fn names(entry: &LogEntry, statement: &str) -> bool {
    entry.detail.get(STATEMENT).and_then(Value::as_str) == Some(statement)
}

/// What the root keys signed.
struct Signed {
    /// SHA-256 of the payload, hexadecimal.
    statement: String,
    expires_at: Timestamp,
}

fn verify(
    root: &muster_trust::root::RootDocument,
    payload: &[u8],
    closing: &Closing,
) -> Result<Signed, String> {
    let envelope = Envelope::from_json(&closing.statement).map_err(|error| error.to_string())?;
    let verified = closure::verify(root, payload, &envelope).map_err(|error| error.to_string())?;
    Ok(Signed {
        statement: sha256(&envelope.payload).to_string(),
        expires_at: verified.statement.expires_at,
    })
}

/// What sealed entries of the operator's log say of a tenant's end, and the state of the tenant's row; none where the row is gone.
struct Told {
    closing: Vec<LogEntry>,
    resumed: Vec<LogEntry>,
    erasing: Vec<LogEntry>,
    state: Option<TenantState>,
}

impl Told {
    fn agrees(&self, stage: Stage, signed: &Signed, now: Timestamp) -> Result<(), String> {
        let statement = signed.statement.as_str();
        if is_taken_back(&self.resumed, statement) {
            return Err("its end was taken back, and needs a new statement".to_owned());
        }
        let handed_in = self.closing.iter().find(|entry| names(entry, statement));
        let handed_in = handed_in.ok_or("the operator's log does not say that its end was handed in")?;
        match (stage, self.state) {
            (Stage::Begins, Some(TenantState::Closing)) => {}
            (Stage::Begun, None | Some(TenantState::Erasing)) => {
                let has_begun = self.erasing.iter().any(|entry| names(entry, statement));
                return if has_begun {
                    Ok(())
                } else {
                    Err("the operator's log does not say that its waiting time was over".to_owned())
                };
            }
            (_, state) => {
                let state = state.map_or("gone", TenantState::as_str);
                return Err(format!("the tenant's row says that it is {state}"));
            }
        }
        let erase_at = handed_in.detail.get("erase_at").and_then(Value::as_str);
        let erase_at = erase_at.and_then(|text| text.parse::<Timestamp>().ok());
        let erase_at = erase_at.ok_or("the operator's log does not say until when it can be taken back")?;
        if now < erase_at {
            return Err(format!("it can be taken back until {erase_at}"));
        }
        let waits = erase_at.since(handed_in.at);
        if now > signed.expires_at.plus(waits).plus(LATE) {
            return Err(format!(
                "the statement expired at {}, and its waiting time is over for long: have it signed again",
                signed.expires_at
            ));
        }
        Ok(())
    }
}

async fn forget(app: &App, operator: TenantId, closing: &Closing) -> Result<(), Problem> {
    let tenant = closing.id;
    match is_signed(app, operator, closing, Stage::Begun).await? {
        // This node never had its keys.
        None => return Ok(()),
        Some(Ok(())) => {}
        Some(Err(why)) => return alarm(app, operator, closing, &why).await,
    }
    let shared = app.clone();
    tokio::task::spawn_blocking(move || shared.keys.forget_tenant(tenant))
        .await
        .map_err(Problem::internal)?
        .map_err(Problem::internal)?;
    app.heads.forget_tenant(tenant);
    app.own_entries.forget_tenant(tenant);
    app.memberships.forget_tenant(tenant);
    app.registry.forget_identities();
    app.registry.call_all(tenant);
    tracing::info!(%tenant, name = closing.name, "the tenant ended by the word of its root keys: its keys are forgotten");
    Ok(())
}

/// Somebody wrote past the server that a tenant ends: it is not forgotten, and the operator's log says so, once an hour.
pub async fn alarm(app: &App, operator: TenantId, closing: &Closing, why: &str) -> Result<(), Problem> {
    let why = format!("it says that the tenant ends, which its root keys and the log do not: {why}");
    audit::row_edited(app, operator, ("tenant_closing", closing.id.to_string()), &why).await
}

#[cfg(test)]
mod tests {
    use muster_model::EntryId;
    use muster_trust::entry::{Actor, ActorKind, Object};
    use serde_json::json;

    use super::*;

    const HOUR: i64 = 3600;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + hours * HOUR)
    }

    fn entry(action: &str, detail: Value) -> LogEntry {
        let tenant = TenantId::generate(at(0), [7; 10]);
        LogEntry {
            id: EntryId::generate(at(0), [1; 10]),
            at: at(0),
            tenant,
            actor: Actor {
                kind: ActorKind::User,
                id: "ada".to_owned(),
            },
            action: action.to_owned(),
            object: Object {
                kind: "tenant".to_owned(),
                id: tenant.to_string(),
            },
            detail: detail.as_object().cloned().unwrap_or_default(),
        }
    }

    /// Signed for a day, handed in at hour 0 with a waiting time of ten hours.
    fn signed() -> Signed {
        Signed {
            statement: sha256(b"statement").to_string(),
            expires_at: at(24),
        }
    }

    fn told(state: Option<TenantState>) -> Told {
        let detail = json!({STATEMENT: signed().statement, "erase_at": at(10)});
        Told {
            closing: vec![entry("tenant.closing", detail)],
            resumed: Vec::new(),
            erasing: Vec::new(),
            state,
        }
    }

    fn begins(told: &Told, hours: i64) -> bool {
        told.agrees(Stage::Begins, &signed(), at(hours)).is_ok()
    }

    #[test]
    fn an_end_begins_after_the_waiting_time_of_its_sealed_entry_and_not_long_after() {
        let told = told(Some(TenantState::Closing));
        assert!(!begins(&told, 9));
        assert!(begins(&told, 10));
        assert!(begins(&told, 24 + 10 + 24));
        assert!(!begins(&told, 24 + 10 + 25));
    }

    #[test]
    fn an_end_that_nobody_handed_in_or_that_is_of_another_statement_does_not_begin() {
        let mut other = told(Some(TenantState::Closing));
        other.closing.clear();
        assert!(!begins(&other, 11));
        let detail = json!({STATEMENT: sha256(b"another").to_string(), "erase_at": at(10)});
        other.closing.push(entry("tenant.closing", detail));
        assert!(!begins(&other, 11));
    }

    #[test]
    fn a_statement_that_was_taken_back_is_never_good_again() {
        let mut told = told(Some(TenantState::Closing));
        let of_another = json!({STATEMENT: sha256(b"another").to_string()});
        told.resumed.push(entry("tenant.resumed", of_another));
        assert!(begins(&told, 11));
        let taken_back = json!({STATEMENT: signed().statement});
        told.resumed.push(entry("tenant.resumed", taken_back));
        assert!(!begins(&told, 11));
    }

    #[test]
    fn keys_are_forgotten_only_where_entry_statement_and_state_agree() {
        let begun = |told: &Told| told.agrees(Stage::Begun, &signed(), at(11)).is_ok();
        let erasing = || entry("tenant.erasing", json!({STATEMENT: signed().statement}));
        for state in [None, Some(TenantState::Erasing)] {
            let mut told = told(state);
            assert!(!begun(&told), "no entry says that it has begun");
            told.erasing.push(erasing());
            assert!(begun(&told));
            told.closing.clear();
            assert!(!begun(&told), "nobody handed it in");
        }
        for state in [TenantState::Active, TenantState::Suspended, TenantState::Closing] {
            let mut told = told(Some(state));
            told.erasing.push(erasing());
            assert!(!begun(&told), "{}", state.as_str());
            assert!(!begins(&told, 9));
        }
    }
}
