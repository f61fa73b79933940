//! Enrollment: a one-time token and a fresh key become a device identity, exactly once.

mod admission;
mod agent;
mod api;
mod bulk;
mod own_device;
mod policy;
mod roots;
mod store;
mod token;
mod tpm;

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Statement, Tx};

use crate::{
    App,
    access::problem::Problem,
    audit::{self, LoggedTx},
};
pub use admission::{Candidate, ClaimedHardware, Enrolled, Evidence, Refusal, admit, refused};
pub use agent::{Exporter, begin, finish};
pub use api::{TokenView, router};
pub use bulk::{BulkOutcome, BulkRow, ROWS_MAX as BULK_ROWS_MAX, create_tokens};
pub use own_device::own_device;
pub use policy::{AndroidPolicy, ApplePolicy, EnrollmentPolicy, Limits, TokenRules, TpmPolicy};
pub use roots::{ANDROID_STATUS_BYTES_MAX, AndroidStatus, android_status, import_android_status};
pub use token::{MadeToken, NewTokenRequest, Ticket, Token, create_token, find_token, list, ticket};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// How long a session waits for its second call. Physical TPMs are slow.
pub const SESSION_SECONDS: u64 = 120;
/// Tokens are listed this long.
const TOKENS_KEPT_DAYS: u64 = 90;

/// How the tokens of a time fared.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Funnel {
    pub issued: i64,
    pub redeemed: i64,
    pub expired_unused: i64,
    pub with_failures: i64,
    /// Why tokens were refused: the code of each token's last refusal, most frequent first.
    pub failures: Vec<FailureCount>,
}

/// How many tokens were last refused for one reason.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct FailureCount {
    pub code: String,
    pub tokens: i64,
    /// Of these, how many were used after all.
    pub redeemed: i64,
}

/// Counts the tokens made since `since`.
pub fn funnel(tx: &mut Tx, tenant: TenantId, since: Timestamp, now: Timestamp) -> Result<Funnel, Problem> {
    let (issued, redeemed, expired_unused, with_failures) = store::funnel(tx, tenant, since, now)?;
    Ok(Funnel {
        issued,
        redeemed,
        expired_unused,
        with_failures,
        failures: store::failures(tx, tenant, since)?,
    })
}

/// The tenant's enrollment policy as stored; version 0 is the default that nobody changed.
#[derive(Debug, Clone, Default)]
pub struct StoredPolicy {
    pub document: EnrollmentPolicy,
    pub version: i64,
    pub updated_by: Option<String>,
    pub updated_at: Option<Timestamp>,
}

/// The tenant's enrollment policy.
pub async fn policy_of(app: &App, tenant: TenantId) -> Result<StoredPolicy, Problem> {
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::policy(tx, tenant)?.unwrap_or_default())
        })
        .await
}

/// Replaces the tenant's enrollment policy. `expected` is the version that the caller saw; another one is a conflict.
pub fn put_policy(
    tx: &mut LoggedTx<'_>,
    document: &EnrollmentPolicy,
    expected: Option<i64>,
) -> Result<StoredPolicy, Problem> {
    document.check()?;
    roots::check(document)?;
    let (tenant, at, actor) = (tx.tenant(), tx.at(), tx.actor());
    let before = store::policy(tx, tenant)?.unwrap_or_default();
    if expected.is_some_and(|expected| expected != before.version) {
        return Err(crate::access::problem::CONFLICT
            .detail("The enrollment policy was changed meanwhile. Read it again and repeat the change."));
    }
    let version = store::put_policy(tx, tenant, document, &actor, at)?;
    tx.record(
        "enrollment.policy_changed",
        ("enrollment-policy", tenant.to_string()),
        serde_json::json!({"version": version, "before": before.document, "after": document}),
    )?;
    Ok(StoredPolicy {
        document: document.clone(),
        version,
        updated_by: Some(actor),
        updated_at: Some(at),
    })
}

/// Removes sessions and tokens whose time is long over. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<u64, Problem> {
    let now = app.clock.now();
    let tokens_before = now.minus(Duration::from_secs(TOKENS_KEPT_DAYS * 86_400));
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::forget(tx, now, tokens_before)?)
    })
    .await
}
