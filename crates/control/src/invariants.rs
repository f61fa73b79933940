//! What must be true of a tenant at every moment: run by `muster doctor`, and after every test that breaks something.

use muster_model::{PolicyId, Timestamp};
use muster_storage::Tx;
use uuid::Uuid;

use crate::{
    access::problem::Problem,
    certificates, commands, compliance, devices, policy, rollout,
    secrets::{AuthoritySet, TenantKeys},
};

/// One invariant, and what breaks it.
#[derive(Debug)]
pub struct Finding {
    pub what: &'static str,
    pub broken: Vec<String>,
}

/// Checks a tenant's rows against each other and against the log.
pub fn check(
    tx: &mut Tx,
    keys: &TenantKeys,
    authorities: &AuthoritySet,
    now: Timestamp,
) -> Result<Vec<Finding>, Problem> {
    let tenant = keys.tenant;
    Ok(vec![
        Finding {
            what: "a hardware identifier belongs to one active device",
            broken: devices::broken_claims(tx, tenant)?,
        },
        Finding {
            what: "a valid certificate has a device that may use it",
            broken: certificates::broken(tx, tenant, now)?,
        },
        Finding {
            what: "a valid certificate chains to an accepted authority, and a revoked one is in a list",
            broken: certificates::broken_chains(tx, authorities, tenant, now)?,
        },
        Finding {
            what: "a command that waits was logged, and one that needed approvals had them, within the budget",
            broken: commands::broken(tx, keys)?,
        },
        Finding {
            what: "an open violation belongs to an active device and a known policy",
            broken: compliance::broken(tx, tenant)?,
        },
        Finding {
            what: "a policy is off its devices only because the log says so",
            broken: rollout::broken(tx, keys)?,
        },
        Finding {
            what: "a bundle is the one that was signed",
            broken: broken_bundles(tx, keys)?,
        },
    ])
}

fn broken_bundles(tx: &mut Tx, keys: &TenantKeys) -> Result<Vec<String>, Problem> {
    const POLICIES_MAX: usize = 10_000;
    const VERSIONS_MAX: usize = 10_000;
    let mut broken = Vec::new();
    for summary in policy::list(tx, keys.tenant, PolicyId::from_uuid(Uuid::nil()), POLICIES_MAX)? {
        for version in policy::versions(tx, keys.tenant, summary.policy.id, u64::MAX >> 1, VERSIONS_MAX)? {
            if let Err(problem) = policy::bundle(tx, keys, &version) {
                broken.push(format!(
                    "{} {}: {}",
                    summary.policy.name, version.version, problem.detail
                ));
            }
        }
    }
    Ok(broken)
}
