//! The secrets of connections among the secrets of the installation: their records, and sealing them anew under a new key.

use muster_model::{ConnectionId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};

use super::{Connection, ConnectionChange, Definition, context, store};
use crate::{
    App,
    access::{
        self,
        oidc::{self, ClientAuth, OwnKeys},
        problem::{INVALID, Problem},
    },
    audit,
    secrets::{self, Kind, Record, RotatedBy, SealingRing, SecretText},
};

/// The record of a connection's secret.
pub fn record_name(connection: &str) -> String {
    format!("connection:{connection}")
}

/// The secret of a connection after a change, sealed: the one that is given, the one that is known, or keys that were made.
pub fn of_change(
    sealing: &SealingRing,
    (tenant, id, at): (TenantId, ConnectionId, Timestamp),
    (change, fresh): (&ConnectionChange, Option<&SecretText>),
    before: Option<&Connection>,
) -> Result<Option<Vec<u8>>, Problem> {
    let seal = |secret: &SecretText| sealing.seal(tenant, &context(id), secret, at);
    let known = before.and_then(|before| before.secret.clone());
    match &change.definition {
        Definition::Oidc(spec) => match oidc::secret_of(spec, change.secret.as_ref(), before)? {
            oidc::Kept::Sealed(_) if change.new_keys => {
                // The one that is known goes on until the next one was published for a day.
                let text = before
                    .map(|before| before.opened_secret(sealing))
                    .transpose()?
                    .flatten();
                let keys = match text {
                    Some(text) => OwnKeys::read(&text)?.with_next(at)?,
                    None => OwnKeys::first()?,
                };
                Ok(Some(seal(&keys.text()?)?))
            }
            oidc::Kept::Sealed(sealed) => Ok(Some(sealed)),
            oidc::Kept::New(secret) => Ok(Some(seal(&secret)?)),
        },
        Definition::Saml(_) if change.secret.is_some() => {
            Err(INVALID.detail("SAML shares no secret: this server makes keys of its own. Send none."))
        }
        Definition::Saml(_) => match (known, fresh) {
            (_, Some(fresh)) => Ok(Some(seal(fresh)?)),
            (Some(known), None) => Ok(Some(known)),
            (None, None) => {
                Err(INVALID.detail("The connection was removed at the same moment. Save it again."))
            }
        },
    }
}

/// Whether a change brings another secret than the one that is known.
pub fn is_another(sealing: &SealingRing, change: &ConnectionChange, before: Option<&Connection>) -> bool {
    let known = before.and_then(|before| before.opened_secret(sealing).ok().flatten());
    match (&change.secret, known) {
        (None, _) => false,
        (Some(given), Some(known)) => given.reveal() != known.reveal(),
        (Some(_), None) => true,
    }
}

/// Remembers that a connection was given a new secret, or made a new key. One that has none keeps no record.
pub fn note(tx: &mut Tx, connection: &Connection, at: Timestamp) -> Result<(), Problem> {
    let tenant = connection.tenant;
    if connection.secret.is_none() {
        return secrets::forget(tx, tenant, &record_name(&connection.name));
    }
    let before = secrets::record(tx, tenant, &record_name(&connection.name))?;
    let mut record = record(connection, at)?;
    record.version = before.map_or(0, |before| before.version) + 1;
    secrets::note(tx, tenant, &record)
}

fn record(connection: &Connection, at: Timestamp) -> Result<Record, Problem> {
    let is_key = match connection.definition()? {
        Definition::Oidc(spec) => spec.client_auth == ClientAuth::PrivateKeyJwt,
        Definition::Saml(_) => true,
    };
    let what = if is_key {
        "key of this server"
    } else {
        "client secret"
    };
    let owner = format!("sign-in by {} ({what})", connection.name);
    let made = (Kind::ProviderSecret, RotatedBy::Holder);
    Ok(Record::new(
        record_name(&connection.name),
        made,
        owner,
        "database",
        at,
    ))
}

/// Writes records for secrets that were given before there were any.
pub async fn note_old_secrets(app: &App) -> Result<(), Problem> {
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            for connection in store::connections(tx, tenant)? {
                if connection.secret.is_some() {
                    secrets::note_old(tx, tenant, &record(&connection, connection.updated_at)?)?;
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Seals what an earlier key sealed with the newest one; answers whether everything is. It may stop anywhere and begin again.
pub async fn reseal(app: &App) -> Result<bool, Problem> {
    let (mut is_done, ring) = (true, &app.keys.sealing);
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        let scope = Scope::Tenant(tenant.uuid());
        let found = app
            .db
            .read(scope, move |tx| Ok::<_, Problem>(store::connections(tx, tenant)?))
            .await?;
        for connection in found {
            let (id, now) = (connection.id, app.clock.now());
            let Some(before) = connection
                .secret
                .clone()
                .filter(|sealed| ring.is_old(sealed, now))
            else {
                continue;
            };
            let open = connection.opened_secret(ring).ok().flatten();
            let anew = open.and_then(|open| ring.seal(tenant, &context(id), &open, now).ok());
            let Some(anew) = anew else {
                // What does not open holds the old key back, which might still open it.
                is_done = false;
                continue;
            };
            let changed = audit::housekeeping(app, scope, move |tx| {
                Ok(store::reseal(tx, tenant, id, (&before, &anew))?)
            });
            is_done &= changed.await? == 1;
        }
    }
    Ok(is_done)
}
