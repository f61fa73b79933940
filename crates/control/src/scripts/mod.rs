//! Scripts that devices may run: signed by the tenant's policy role, here or elsewhere, and named by what was signed.
//!
//! A command names a script by its SHA-256; whoever queues it did not write it, and a device runs nothing that the policy role
//! did not sign.

mod api;
mod store;

use muster_model::{TenantId, Timestamp, text::Sha256Text};
use muster_storage::{Statement, Tx};
use muster_trust::{
    dsse::Envelope,
    root::Role,
    statement::{self, Interpreter, ScriptStatement, Statement as _, StatementError},
};

use crate::{
    access::problem::{INVALID, NOT_FOUND, Problem, SCRIPT_LIMIT, SCRIPT_REFUSED},
    audit::LoggedTx,
};
pub use api::router;

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Scripts that one tenant may have.
pub const SCRIPTS_MAX: i64 = 1000;

/// A script as stored.
#[derive(Debug, Clone)]
pub struct Script {
    /// Of the signed payload.
    pub sha256: String,
    pub name: String,
    pub interpreter: String,
    pub timeout_seconds: u32,
    pub output_bytes_max: u32,
    /// The DSSE envelope, as JSON.
    pub envelope: String,
    pub created_by: String,
    pub created_at: Timestamp,
}

/// Signs a script with the policy key that this server holds, and keeps it. One that is there already is the answer.
pub fn add(tx: &mut LoggedTx<'_>, script: &ScriptStatement) -> Result<Script, Problem> {
    let envelope =
        statement::sign(script, &[&tx.keys().policy]).map_err(|error| INVALID.detail(error.to_string()))?;
    keep(tx, &envelope)
}

/// Keeps a script that was signed elsewhere, if the policy role of the tenant's root document signed it.
pub fn keep(tx: &mut LoggedTx<'_>, envelope: &Envelope) -> Result<Script, Problem> {
    let verified = {
        let root = &tx.keys().root;
        let (keys, threshold) = root.role(Role::Policy);
        statement::verify::<ScriptStatement>(envelope, &keys, threshold).map_err(refused)?
    };
    let tenant = tx.tenant();
    let statement = verified.statement;
    if statement.tenant != tenant {
        return Err(SCRIPT_REFUSED.detail("The script was signed for another tenant."));
    }
    let sha256 = verified.payload_sha256.to_string();
    if let Some(known) = store::by_sha256(tx, tenant, &sha256)? {
        return Ok(known);
    }
    if store::count(tx, tenant)? >= SCRIPTS_MAX {
        return Err(SCRIPT_LIMIT.detail(format!(
            "A tenant has at most {SCRIPTS_MAX} scripts. Remove some first."
        )));
    }
    let script = Script {
        sha256: sha256.clone(),
        name: statement.name.to_string(),
        interpreter: interpreter_word(statement.interpreter).to_owned(),
        timeout_seconds: statement.timeout_seconds,
        output_bytes_max: statement.output_bytes_max,
        envelope: serde_json::to_string(envelope).map_err(Problem::internal)?,
        created_by: tx.actor(),
        created_at: tx.at(),
    };
    store::insert(tx, tenant, &script)?;
    tx.record(
        "script.added",
        ("script", sha256.clone()),
        serde_json::json!({
            "name": script.name,
            "interpreter": script.interpreter,
            "script_sha256": sha256,
            "timeout_seconds": script.timeout_seconds,
        }),
    )?;
    Ok(script)
}

/// Forgets a script: no new command can name it. One that waits for a device fails there.
pub fn remove(tx: &mut LoggedTx<'_>, sha256: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let script = get(tx, tenant, sha256)?;
    store::delete(tx, tenant, sha256)?;
    tx.record(
        "script.removed",
        ("script", sha256.to_owned()),
        serde_json::json!({"name": script.name}),
    )?;
    Ok(())
}

/// The script with this SHA-256.
pub fn get(tx: &mut Tx, tenant: TenantId, sha256: &str) -> Result<Script, Problem> {
    store::by_sha256(tx, tenant, sha256)?.ok_or_else(|| NOT_FOUND.detail("There is no such script."))
}

/// A page of scripts by SHA-256 after `after`, at most `limit`.
pub fn list(tx: &mut Tx, tenant: TenantId, after: &str, limit: usize) -> Result<Vec<Script>, Problem> {
    Ok(store::list(tx, tenant, after, limit)?)
}

/// Refuses a command whose script is not here: no device could run it.
pub fn require(tx: &mut Tx, tenant: TenantId, sha256: &Sha256Text) -> Result<(), Problem> {
    match store::by_sha256(tx, tenant, sha256.as_str())? {
        Some(_) => Ok(()),
        None => Err(INVALID.detail("There is no script with this sha256. Add it first, with POST /scripts.")),
    }
}

/// What a device is handed with a command that names a script.
pub fn envelope(tx: &mut Tx, tenant: TenantId, sha256: &str) -> Result<Option<Envelope>, Problem> {
    let script = store::by_sha256(tx, tenant, sha256)?;
    Ok(script.and_then(|script| serde_json::from_str(&script.envelope).ok()))
}

/// The text of a script, by its envelope.
fn text(script: &Script) -> Result<ScriptStatement, Problem> {
    let envelope: Envelope = serde_json::from_str(&script.envelope).map_err(Problem::internal)?;
    muster_trust::encoding::from_strict_json(&envelope.payload, ScriptStatement::MAX_BYTES)
        .map_err(Problem::internal)
}

const fn interpreter_word(interpreter: Interpreter) -> &'static str {
    match interpreter {
        Interpreter::Sh => "sh",
        Interpreter::Bash => "bash",
        Interpreter::Python3 => "python3",
    }
}

fn refused(error: StatementError) -> Problem {
    match error {
        StatementError::Dsse(error) => SCRIPT_REFUSED.detail(format!(
            "The script is not signed as the tenant's root document asks for: {error}."
        )),
        StatementError::Json(error) => SCRIPT_REFUSED.detail(format!("The script is malformed: {error}.")),
        StatementError::Invalid(why) => SCRIPT_REFUSED.detail(format!("The script is not valid: {why}.")),
    }
}
