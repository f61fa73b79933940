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

/// A certificate that listeners of this node show, as its record names it.
#[derive(Debug, Clone)]
pub struct ListenerCertificate {
    /// The record.
    pub name: String,
    /// How people call the node.
    pub node: String,
    /// Where it comes from: `memory`, a file, an engine.
    pub place: String,
    pub rotated_by: RotatedBy,
}

impl ListenerCertificate {
    fn owner(&self) -> String {
        format!("the listeners of {}", self.node)
    }

    fn record(&self, since: Timestamp, now: Timestamp) -> Record {
        let made = (Kind::TlsCertificate, self.rotated_by);
        let mut record = Record::new(self.name.clone(), made, self.owner(), &self.place, since);
        record.seen_at = Some(now);
        record
    }
}

/// Says that this node has a certificate since then: its start made or read it.
pub async fn say_certificate(
    app: &App,
    certificate: &ListenerCertificate,
    since: Timestamp,
) -> Result<(), Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(());
    };
    let record = certificate.record(since, app.clock.now());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let before = store::record(tx, tenant, &record.name)?;
        let mut record = record.clone();
        record.version = before.map_or(0, |before| before.version) + 1;
        super::records::note(tx, tenant, &record)
    })
    .await
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

/// Enters that this node's certificate was renewed: it has this one since then, until then.
pub async fn certificate_renewed(
    app: &App,
    certificate: &ListenerCertificate,
    (since, ends_at): (Timestamp, Timestamp),
) -> Result<(), Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(());
    };
    let certificate = certificate.clone();
    audit::commit(app, &Author::system(tenant), move |tx| {
        let before = store::record(tx, tenant, &certificate.name)?;
        let mut record = certificate.record(since, tx.at());
        record.version = before.map_or(0, |before| before.version) + 1;
        super::records::note(tx, tenant, &record)?;
        tx.record(
            ROTATED,
            ("secret", record.name.clone()),
            serde_json::json!({"version": record.version, "place": record.place, "ends_at": ends_at.to_string()}),
        )?;
        Ok(())
    })
    .await
}

/// Writes down why this node's certificate could not be renewed.
pub async fn certificate_failed(app: &App, name: &str, why: &str) -> Result<(), Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(());
    };
    let (name, why) = (name.to_owned(), why.to_owned());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(store::failed(tx, tenant, &name, &why).map(drop)?)
    })
    .await
}

/// Says that this node is still there with its certificates, and that the secret of its `admin.json` is its own to rotate.
pub async fn say_present(
    app: &App,
    certificates: &[ListenerCertificate],
    client: ClientId,
) -> Result<(), Problem> {
    let Some(operator) = keeper::operator(app).await? else {
        return Ok(());
    };
    let (certificates, now) = (certificates.to_vec(), app.clock.now());
    audit::housekeeping(app, Scope::System, move |tx| {
        for certificate in &certificates {
            let (owner, place) = (certificate.owner(), certificate.place.as_str());
            let is = (certificate.rotated_by, owner.as_str(), place);
            store::claim(tx, operator, &certificate.name, is, now)?;
        }
        if let Some(client) = access::client(tx, client)? {
            let named = client_record_name(client.id);
            let node = certificates.first().map_or("this node", |one| one.node.as_str());
            let owner = format!("{}: the administration of {node}", client.name);
            let is = (RotatedBy::Server, owner.as_str(), "admin.json");
            store::claim(tx, client.tenant, &named, is, now)?;
        }
        Ok(())
    })
    .await
}
