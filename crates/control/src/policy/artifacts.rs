//! The artifact store: a second, immutable home of bundles, outside of the database.
//!
//! Where one is configured, every bundle is written there once, and an activation asks it: a bundle that is not the same
//! there and here is not activated. Reads by devices go to the database, and to the store where the database was edited.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use muster_model::{TenantId, text::VersionLabel};
use muster_storage::{Scope, Tx};
use muster_trust::key::{Digest, sha256};

use super::{Version, store};
use crate::{
    App,
    access::problem::{BUNDLE_CHANGED, Problem, UNAVAILABLE},
    audit,
};

/// Largest bundle that is read back from the store (`policy.zip` has the same limit).
const ARTIFACT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bundles that one pass brings to the store.
const STORED_PER_PASS: i64 = 64;

/// What became of writing an object that must not be there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Stored,
    /// There is an object of this name; it was left alone.
    Present,
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    #[error("{0}")]
    Unavailable(String),
    #[error("the object is larger than a bundle can be")]
    TooLarge,
}

/// Somewhere that keeps objects, and writes a name only once.
pub trait ArtifactStore: std::fmt::Debug + Send + Sync {
    /// Where it is, for messages; without credentials.
    fn place(&self) -> &str;

    /// Writes an object unless there is one of this name. Names are parts joined by `/`.
    fn put_once<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Put, ArtifactError>>;

    /// The object of this name, if there is one.
    fn get<'a>(
        &'a self,
        name: &'a str,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ArtifactError>>;

    /// Removes an object; that there is none is no error.
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ArtifactError>>;
}

/// A stored bundle as the artifact store's reconciler needs it.
#[derive(Debug, Clone)]
pub struct Unstored {
    pub tenant: TenantId,
    pub version: Version,
}

/// Brings bundles of tenants in operation to the artifact store that are not there yet. Answers how many; may run twice.
pub async fn store_artifacts(app: &App) -> Result<usize, Problem> {
    if app.artifacts.get().is_none() {
        return Ok(0);
    }
    let waiting = app
        .db
        .read(Scope::System, |tx| {
            Ok::<_, Problem>(store::without_artifact(tx, STORED_PER_PASS)?)
        })
        .await?;
    let mut stored = 0;
    for one in waiting {
        match keep(app, one.tenant, &one.version).await {
            Ok(()) => stored += 1,
            Err(problem) if problem.kind == BUNDLE_CHANGED => {
                let author = crate::access::Author::system(one.tenant);
                super::report_tampering(app, &author, &one.version, &problem.detail).await?;
                mark(app, one.tenant, &one.version.bundle_sha256).await?;
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok(stored)
}

/// Before an activation: the artifact store has the version's bundle, and the database has the same. Passes where no store
/// is configured.
pub async fn require_artifact(
    app: &App,
    tenant: TenantId,
    policy: &str,
    label: &VersionLabel,
) -> Result<(), Problem> {
    if app.artifacts.get().is_none() {
        return Ok(());
    }
    let (policy, label) = (policy.to_owned(), label.clone());
    let (version, is_stored) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let policy = super::resolve(tx, tenant, &policy)?;
            let version = super::version(tx, tenant, policy.id, &label)?;
            let is_stored = store::has_artifact(tx, tenant, &version.bundle_sha256)?;
            Ok::<_, Problem>((version, is_stored))
        })
        .await?;
    if !is_stored {
        return keep(app, tenant, &version).await;
    }
    match fetch(app, tenant, &version.bundle_sha256).await? {
        Some(bytes) if sha256(&bytes).to_hex() == version.bundle_sha256 => Ok(()),
        Some(_) => Err(changed("the artifact store holds other bytes under its name")),
        None => Err(changed("it is gone from the artifact store")),
    }
}

/// The bytes of a bundle from the artifact store, if they are still what the digest says.
pub async fn artifact(app: &App, tenant: TenantId, digest: &Digest) -> Result<Option<Bytes>, Problem> {
    if app.artifacts.get().is_none() {
        return Ok(None);
    }
    let found = fetch(app, tenant, &digest.to_hex()).await?;
    Ok(found.filter(|bytes| sha256(bytes) == *digest))
}

/// Writes one bundle to the store, or finds it there, and remembers that.
async fn keep(app: &App, tenant: TenantId, version: &Version) -> Result<(), Problem> {
    let Some(artifacts) = app.artifacts.get() else {
        return Ok(());
    };
    let (policy, label) = (version.policy, version.version.clone());
    let bytes = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx: &mut Tx| {
            Ok::<_, Problem>(store::bundle(tx, tenant, policy, label.as_str())?)
        })
        .await?
        .ok_or_else(|| changed("it is gone from the database"))?;
    if sha256(&bytes).to_hex() != version.bundle_sha256 {
        return Err(changed("its bytes in the database do not have its digest"));
    }
    let name = name(tenant, &version.bundle_sha256);
    match artifacts
        .put_once(&name, bytes.clone().into())
        .await
        .map_err(unavailable)?
    {
        Put::Stored => {}
        Put::Present => match fetch(app, tenant, &version.bundle_sha256).await? {
            Some(found) if found == bytes => {}
            Some(_) | None => return Err(changed("the artifact store holds other bytes under its name")),
        },
    }
    mark(app, tenant, &version.bundle_sha256).await
}

async fn mark(app: &App, tenant: TenantId, bundle_sha256: &str) -> Result<(), Problem> {
    let (digest, now) = (bundle_sha256.to_owned(), app.clock.now());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(store::mark_artifact(tx, tenant, &digest, now)?)
    })
    .await
    .map(drop)
}

async fn fetch(app: &App, tenant: TenantId, bundle_sha256: &str) -> Result<Option<Bytes>, Problem> {
    let Some(artifacts) = app.artifacts.get() else {
        return Ok(None);
    };
    let name = name(tenant, bundle_sha256);
    match artifacts.get(&name, ARTIFACT_BYTES_MAX).await {
        Ok(found) => Ok(found),
        Err(ArtifactError::TooLarge) => {
            Err(changed("the artifact store holds something else under its name"))
        }
        Err(error) => Err(unavailable(error)),
    }
}

/// Removes the bundles of a tenant that ends from the artifact store. May run twice.
pub async fn remove_artifacts(app: &App, tenant: TenantId) -> Result<(), Problem> {
    const PAGE: i64 = 100;
    let Some(artifacts) = app.artifacts.get() else {
        return Ok(());
    };
    let mut after = String::new();
    loop {
        let behind = after.clone();
        let bundles = app
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                Ok::<_, Problem>(store::bundles_behind(tx, tenant, &behind, PAGE)?)
            })
            .await?;
        let Some(last) = bundles.last().cloned() else {
            return Ok(());
        };
        for bundle in bundles {
            artifacts
                .remove(&name(tenant, &bundle))
                .await
                .map_err(unavailable)?;
        }
        after = last;
    }
}

fn name(tenant: TenantId, bundle_sha256: &str) -> String {
    format!("bundles/{tenant}/{bundle_sha256}.zip")
}

fn changed(why: &str) -> Problem {
    BUNDLE_CHANGED.detail(format!(
        "The bundle is not what was signed: {why}. Make a new version and look into who can write there."
    ))
}

fn unavailable(error: ArtifactError) -> Problem {
    UNAVAILABLE
        .detail(format!(
            "The artifact store could not be asked: {error}. Nothing was changed; try again when it answers."
        ))
        .retry_after(5)
}
