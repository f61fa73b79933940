//! What one node alone has and rotates by itself: the certificate of its listeners, and the secret in its `admin.json`.

use muster_model::{ClientId, Timestamp};
use muster_storage::Scope;

use super::{
    keeper,
    records::{Kind, Record, RotatedBy},
    rotation::ROTATED,
    store,
};
use crate::{
    App,
    access::{self, Author, problem::Problem},
    audit,
};

/// The record of a client's secret.
pub fn client_record_name(client: ClientId) -> String {
    format!("client:{client}")
}

/// Says that this node has a certificate since now: it was made at the start.
pub async fn say_certificate(app: &App, name: &str, node: &str) -> Result<(), Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(());
    };
    let record = certificate(name, node, app.clock.now());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let before = store::record(tx, tenant, &record.name)?;
        let mut record = record.clone();
        record.version = before.map_or(0, |before| before.version) + 1;
        super::records::note(tx, tenant, &record)
    })
    .await
}

fn certificate(name: &str, node: &str, now: Timestamp) -> Record {
    let made = (Kind::TlsCertificate, RotatedBy::Server);
    let owner = format!("the listeners of {node}");
    let mut record = Record::new(name.to_owned(), made, owner, "memory", now);
    record.seen_at = Some(now);
    record
}

/// Whether this node's certificate is to be renewed now.
pub async fn is_certificate_due(app: &App, name: &str) -> Result<bool, Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(false);
    };
    let (name, now) = (name.to_owned(), app.clock.now());
    let record = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        Ok::<_, Problem>(store::record(tx, tenant, &name)?)
    });
    Ok(record.await?.is_some_and(|record| record.is_due(now)))
}

/// Enters that this node's certificate was renewed.
pub async fn certificate_renewed(
    app: &App,
    name: &str,
    node: &str,
    ends_at: Timestamp,
) -> Result<(), Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(());
    };
    let (name, node) = (name.to_owned(), node.to_owned());
    audit::commit(app, &Author::system(tenant), move |tx| {
        let before = store::record(tx, tenant, &name)?;
        let mut record = certificate(&name, &node, tx.at());
        record.version = before.map_or(0, |before| before.version) + 1;
        super::records::note(tx, tenant, &record)?;
        tx.record(
            ROTATED,
            ("secret", name.clone()),
            serde_json::json!({"version": record.version, "place": "memory", "ends_at": ends_at.to_string()}),
        )?;
        Ok(())
    })
    .await
}

/// Says that this node is still there, and that the secret of its `admin.json` is its own to rotate.
pub async fn say_present(app: &App, name: &str, node: &str, client: ClientId) -> Result<(), Problem> {
    let Some(operator) = keeper::operator(app).await? else {
        return Ok(());
    };
    let (name, node, now) = (name.to_owned(), node.to_owned(), app.clock.now());
    audit::housekeeping(app, Scope::System, move |tx| {
        let (owner, place) = (format!("the listeners of {node}"), "memory");
        store::claim(tx, operator, &name, (&owner, place), now)?;
        if let Some(client) = access::client(tx, client)? {
            let named = client_record_name(client.id);
            let owner = format!("{}: the administration of {node}", client.name);
            store::claim(tx, client.tenant, &named, (&owner, "admin.json"), now)?;
        }
        Ok(())
    })
    .await
}
