//! What a provider says about the end of sessions counts once: as soon as it was carried out everywhere, so that it can be said again
//! where it was not.

use std::time::Duration;

use muster_model::TenantId;
use muster_storage::Scope;
use muster_trust::key::Digest;

use super::{Connection, store};
use crate::{App, access::problem::Problem, audit};

/// For longer than a message is taken.
const REMEMBERED: Duration = Duration::from_secs(900);

/// A message that counts once.
pub(in crate::access) struct Once {
    tenant: TenantId,
    kind: &'static str,
    sha256: Digest,
}

impl Once {
    /// The message of a connection's provider that has this hash among those of its kind.
    pub(in crate::access) fn new(connection: &Connection, kind: &'static str, sha256: Digest) -> Once {
        Once {
            tenant: connection.tenant,
            kind,
            sha256,
        }
    }

    /// Whether it was carried out before.
    pub(in crate::access) async fn is_over(&self, app: &App) -> Result<bool, Problem> {
        let (tenant, kind, sha256) = (self.tenant, self.kind, self.sha256);
        app.db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                let which = (kind, sha256.as_bytes().as_slice());
                Ok::<_, Problem>(store::was_counted(tx, tenant, which)?)
            })
            .await
    }

    /// Notes that it was carried out.
    pub(in crate::access) async fn done(self, app: &App) -> Result<(), Problem> {
        let (tenant, kind, sha256) = (self.tenant, self.kind, self.sha256);
        let until = app.clock.now().plus(REMEMBERED);
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            let which = (kind, sha256.as_bytes().as_slice());
            Ok(store::count_once(tx, tenant, which, until)?)
        })
        .await
        .map(drop)
    }
}
