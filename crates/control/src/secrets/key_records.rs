//! Records of what only people can rotate: the keys that devices obey, which a root document names, and the database's password.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::{
    key::KeyId,
    root::{Role, RootDocument},
};

use super::{
    TenantKeys, keeper,
    records::{self, Kind, Record, RotatedBy},
    store,
};
use crate::{
    App,
    access::{self, problem::Problem},
    audit,
};

/// How often people rotate what devices obey, unless somebody sets it: it takes a ceremony.
const PERIOD_DAYS: u32 = 90;
/// The record of the database's password.
const DATABASE_PASSWORD: &str = "database-password";
/// Digits of a key's id that tell keys apart for people.
const ID_DIGITS: usize = 8;

/// Keeps the records of the keys that devices obey, by what the newest root document and the key folder say.
pub async fn note_tenant_keys(app: &App) -> Result<(), Problem> {
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        let Ok(keys) = app.keys.tenant(tenant) else {
            continue;
        };
        let found = of_tenant(&keys);
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            found.iter().try_for_each(|record| keep(tx, tenant, record))
        })
        .await?;
    }
    Ok(())
}

/// Writes a record where it says something new: another key in the same role.
fn keep(tx: &mut Tx, tenant: TenantId, found: &Record) -> Result<(), Problem> {
    let Some(before) = store::record(tx, tenant, &found.name)? else {
        return records::note_old(tx, tenant, found);
    };
    if before.place == found.place {
        return Ok(());
    }
    let record = Record {
        version: before.version + 1,
        ..found.clone()
    };
    records::note(tx, tenant, &record)
}

fn of_tenant(keys: &TenantKeys) -> Vec<Record> {
    let mut documents: Vec<RootDocument> = Vec::new();
    for envelope in &keys.root_documents {
        let read = match documents.last() {
            None => RootDocument::verify_first(envelope, None),
            Some(before) => RootDocument::verify_next(before, envelope),
        };
        // They were verified when they were taken up.
        documents.extend(read.ok());
    }
    let since = |role: Role, id: &KeyId| {
        let names = |document: &&RootDocument| {
            document
                .roles
                .get(&role)
                .is_some_and(|role| role.keys.contains(id))
        };
        let unbroken = documents.iter().rev().take_while(names);
        unbroken
            .last()
            .map_or(keys.root.issued_at, |first| first.issued_at)
    };
    let mut found = Vec::new();
    for (role, name, key, what) in [
        (
            Role::Policy,
            "policy-key",
            &keys.policy,
            "signs versions of policies",
        ),
        (
            Role::Action,
            "action-key",
            &keys.action,
            "signs commands and what devices should be at",
        ),
        (
            Role::Log,
            "log-key",
            &keys.log,
            "seals entries of the log and signs its heads",
        ),
    ] {
        let id = key.key_id();
        found.push(record(
            name,
            what,
            &format!("keys folder ({})", short(&id)),
            since(role, &id),
        ));
    }
    let roots = keys.root.roles.get(&Role::Root);
    let oldest = roots
        .into_iter()
        .flat_map(|role| &role.keys)
        .map(|id| (since(Role::Root, id), id));
    if let Some((at, id)) = oldest.min() {
        found.push(record(
            "root-key",
            "signs root documents; the oldest one counts",
            &format!("offline ({})", short(id)),
            at,
        ));
    }
    found
}

fn record(name: &str, what: &str, place: &str, at: Timestamp) -> Record {
    let made = (Kind::SigningKey, RotatedBy::Operator);
    let mut record = Record::new(name.to_owned(), made, what.to_owned(), place, at);
    record.period_days = PERIOD_DAYS;
    record
}

fn short(id: &KeyId) -> String {
    let mut text = id.to_string();
    text.truncate(ID_DIGITS);
    text
}

/// Where a node has the database's password from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordPlace {
    /// The settings. Since when it is the same is unknown: from when it was seen first.
    Settings,
    /// A file that was written at this time.
    File(Timestamp),
}

/// Says where this node has the database's password from, and since when.
pub async fn say_database_password(app: &App, password: PasswordPlace) -> Result<(), Problem> {
    let now = app.clock.now();
    let (place, changed_at) = match password {
        PasswordPlace::Settings => ("settings", now),
        PasswordPlace::File(at) => ("file", at.min(now)),
    };
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(());
    };
    let made = (Kind::DatabasePassword, RotatedBy::Operator);
    let owner = "the login of this installation at PostgreSQL".to_owned();
    let found = Record::new(DATABASE_PASSWORD.to_owned(), made, owner, place, changed_at);
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let Some(before) = store::record(tx, tenant, DATABASE_PASSWORD)? else {
            return records::note_old(tx, tenant, &found);
        };
        // Nodes have files of their own: the newest one counts.
        let is_known = match password {
            PasswordPlace::Settings => true,
            PasswordPlace::File(_) => before.place == found.place && before.rotated_at >= found.rotated_at,
        };
        if is_known {
            return Ok(());
        }
        let record = Record {
            version: before.version + 1,
            ..found.clone()
        };
        records::note(tx, tenant, &record)
    })
    .await
}
