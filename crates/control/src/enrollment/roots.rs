//! From the words of an enrollment policy to what the verifiers of `attest` take: anchors, registers, rules.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use muster_attest::{
    Anchors, Reject, android,
    android::RevocationList,
    roots,
    tpm::{PcrDigest, PcrPolicy},
};
use muster_model::{TenantId, Timestamp};
use muster_storage::Scope;

use super::{
    policy::{AndroidPolicy, ApplePolicy, EnrollmentPolicy, TpmPolicy},
    store,
};
use crate::{
    App,
    access::problem::{ATTESTATION_UNAVAILABLE, ENROLLMENT_POLICY_INVALID, FieldError, INVALID, Problem},
    audit::LoggedTx,
};

/// The largest list of revoked Android keys that is imported.
pub const ANDROID_STATUS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The shipped roots, read once.
static TPM: LazyLock<Anchors> = LazyLock::new(roots::tpm);
static ANDROID: LazyLock<Anchors> = LazyLock::new(roots::android);
static APPLE: LazyLock<Anchors> = LazyLock::new(roots::apple);

impl TpmPolicy {
    /// The authorities that may vouch for an endorsement key.
    pub fn anchors(&self) -> Result<Anchors, Reject> {
        anchors(self.well_known_roots.then(|| TPM.clone()), &self.roots_pem)
    }

    /// Which registers are quoted, and which values they may have.
    pub fn pcr_policy(&self) -> Option<PcrPolicy> {
        let digest = |text: &String| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).ok()?;
            Some(PcrDigest(bytes))
        };
        let allowed = self
            .pcr_values
            .iter()
            .map(|(pcr, values)| Some((*pcr, values.iter().map(digest).collect::<Option<_>>()?)))
            .collect::<Option<_>>()?;
        PcrPolicy::new(allowed, self.pcrs_quoted.clone()).ok()
    }
}

impl AndroidPolicy {
    /// The authorities that may vouch for an Android key.
    pub fn anchors(&self) -> Result<Anchors, Reject> {
        anchors(self.well_known_roots.then(|| ANDROID.clone()), &self.roots_pem)
    }

    /// What is asked beyond a genuine, locked device.
    pub fn rules(&self) -> android::Rules {
        android::Rules {
            os_patch_level_min: self.os_patch_level_min.map(u64::from),
            ..android::Rules::production()
        }
    }
}

impl ApplePolicy {
    /// The authorities that may vouch for a key of a Secure Enclave.
    pub fn anchors(&self) -> Result<Anchors, Reject> {
        anchors(self.well_known_roots.then(|| APPLE.clone()), &self.roots_pem)
    }
}

fn anchors(well_known: Option<Anchors>, pem: &str) -> Result<Anchors, Reject> {
    let own = if pem.trim().is_empty() {
        Anchors::none()
    } else {
        Anchors::from_pem(pem)?
    };
    own.merged(well_known.unwrap_or_else(Anchors::none))
}

/// Refuses roots that cannot be read, each by its member.
pub fn check(policy: &EnrollmentPolicy) -> Result<(), Problem> {
    let read = [
        ("tpm.roots_pem", policy.tpm.anchors()),
        ("android.roots_pem", policy.android.anchors()),
        ("apple.roots_pem", policy.apple.anchors()),
    ];
    let wrong: Vec<FieldError> = read
        .into_iter()
        .filter_map(|(field, anchors)| {
            let reject = anchors.err()?;
            Some(FieldError {
                field: field.to_owned(),
                code: reject.code().to_owned(),
                detail: reject.to_string(),
            })
        })
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(ENROLLMENT_POLICY_INVALID
        .detail("Roots are certificates in PEM; errors lists what cannot be read.")
        .with_errors(wrong))
}

/// Stores Google's list of revoked Android keys, as it is served at `android.googleapis.com/attestation/status`; answers how
/// many keys it names.
pub fn import_android_status(tx: &mut LoggedTx<'_>, json: &[u8]) -> Result<usize, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let list = RevocationList::parse(json, at)
        .map_err(|reject| INVALID.detail(format!("This is not Google's list of revoked keys: {reject}")))?;
    store::put_android_status(tx, tenant, json, at)?;
    tx.record(
        "enrollment.android_status_imported",
        ("enrollment-policy", tenant.to_string()),
        serde_json::json!({"keys": list.len()}),
    )?;
    Ok(list.len())
}

/// Parsed lists of this node, by tenant. A list is read again when a newer one was imported.
#[derive(Debug, Default)]
pub struct AndroidStatus {
    lists: parking_lot::Mutex<std::collections::HashMap<TenantId, Arc<RevocationList>>>,
}

/// The tenant's list of revoked Android keys. Without one, or with one that is too old, nobody can be judged.
pub async fn android_status(
    app: &App,
    tenant: TenantId,
    policy: &AndroidPolicy,
) -> Result<RevocationList, Problem> {
    let known = app.android_status.lists.lock().get(&tenant).cloned();
    let fetched_before = known.as_ref().map(|list| list.fetched_at());
    let newer = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::android_status(tx, tenant, fetched_before)?)
        })
        .await?;
    let list = match newer {
        None => known,
        Some((json, fetched_at)) => {
            let list = Arc::new(RevocationList::parse(&json, fetched_at).map_err(Problem::internal)?);
            app.android_status.lists.lock().insert(tenant, Arc::clone(&list));
            Some(list)
        }
    };
    let list = list.ok_or_else(|| {
        unavailable(
            "Google's list of revoked keys was never imported: muster enrollment android-status import.",
        )
    })?;
    let age_max = Duration::from_secs(policy.revocation_list_hours_max * 3600);
    let list = RevocationList::clone(&list).with_age_max(age_max);
    let now: Timestamp = app.clock.now();
    list.check_age(now)
        .map_err(|_| unavailable("Google's list of revoked keys is too old: import it again."))?;
    Ok(list)
}

fn unavailable(why: &str) -> Problem {
    ATTESTATION_UNAVAILABLE.detail(why).retry_after(600)
}
