//! Connections to identity providers: what is entered where, and a test that says at which step it fails.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        connection::{
            self, Addresses, Checked, Connection, ConnectionChange, DIRECTORY_AT_MOST, Definition,
            DirectoryMatch, MatchedBy, Outcome,
        },
        oidc::{self, ClientAuth, ConnectionSpec},
        problem::{INVALID, Problem},
        saml::{self, MustSign, SamlAddresses, SamlSpec},
        scope::{AccessRead, SsoWrite},
    },
    audit,
    secrets::SecretText,
};
use muster_model::Timestamp;

use crate::{
    form::{Fields, Sent},
    session::{At, Session},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/access/connections", get(list))
        .route("/access/connections/put", post(put))
        .route("/access/connections/{name}", get(show))
        .route("/access/connections/{name}/test", post(test))
        .route("/access/connections/{name}/delete", post(delete))
}

/// A connection as a row, and what is the same on the page of each kind.
#[derive(Debug)]
struct Row {
    name: String,
    issuer: String,
    kind: &'static str,
    state: Badge,
    is_enabled: bool,
    worked: Option<When>,
    error: String,
}

impl Row {
    fn of(connection: &Connection, now: Timestamp) -> Result<Row, Problem> {
        let definition = connection.definition()?;
        Ok(Row {
            name: connection.name.clone(),
            issuer: definition.issuer().to_owned(),
            kind: match definition {
                Definition::Oidc(_) => "OpenID Connect",
                Definition::Saml(_) => "SAML",
            },
            state: match (connection.disabled_at, &connection.error, connection.succeeded_at) {
                (Some(_), _, _) => Badge::new("switched off", Tone::Off),
                (None, Some(_), _) => Badge::new("failing", Tone::Bad),
                (None, None, Some(_)) => Badge::new("works", Tone::Good),
                (None, None, None) => Badge::new("never used", Tone::Wait),
            },
            is_enabled: connection.disabled_at.is_none(),
            worked: connection.succeeded_at.map(|at| When::new(at, now)),
            error: connection.error.clone().unwrap_or_default(),
        })
    }
}

#[derive(Template)]
#[template(path = "connections.html")]
struct ListPage {
    shell: Shell,
    rows: Vec<Row>,
    /// What the form for a new one of SAML begins with.
    saml: SamlFields,
}

async fn list(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let found = app
        .db
        .read(permit.storage(), move |tx| connection::connections(tx, tenant));
    let rows = found
        .await?
        .into_iter()
        .map(|connection| Row::of(&connection, now));
    page(&ListPage {
        shell: session.shell("Identity providers", Section::Access),
        rows: rows.collect::<Result<_, _>>()?,
        saml: SamlFields::of(&SamlSpec::new()),
    })
}

/// A step of the test as a row.
#[derive(Debug)]
struct StepRow {
    step: &'static str,
    badge: Badge,
    detail: String,
}

impl StepRow {
    fn of(checked: Checked) -> StepRow {
        StepRow {
            step: checked.step,
            badge: match checked.outcome {
                Outcome::Ok => Badge::new("ok", Tone::Good),
                Outcome::Failed => Badge::new("failed", Tone::Bad),
                Outcome::Unknown => Badge::new("not known", Tone::Wait),
            },
            detail: checked.detail,
        }
    }
}

/// What the form of OpenID Connect shows.
#[derive(Debug)]
struct OidcFields {
    spec: ConnectionSpec,
    auth: String,
    scopes: String,
    acr: String,
    amr: String,
    idle_seconds: String,
    session_seconds: String,
    directory: String,
    directory_by: String,
    directory_at_most: String,
    addresses: oidc::Addresses,
}

#[derive(Template)]
#[template(path = "connection.html")]
struct OidcPage {
    shell: Shell,
    row: Row,
    steps: Vec<StepRow>,
    oidc: OidcFields,
}

/// What the form of SAML shows.
#[derive(Debug)]
struct SamlFields {
    spec: SamlSpec,
    certificates: String,
    contexts: String,
    must_be_signed: String,
    idle_seconds: String,
    session_seconds: String,
    directory: String,
    directory_at_most: String,
}

/// A number as a field of a form shows it.
fn number(seconds: Option<u64>) -> String {
    seconds.map(|seconds| seconds.to_string()).unwrap_or_default()
}

impl SamlFields {
    fn of(spec: &SamlSpec) -> SamlFields {
        SamlFields {
            certificates: spec.certificates.join("\n\n"),
            contexts: spec.required_authn_contexts.join(" "),
            must_be_signed: match spec.must_be_signed {
                MustSign::Assertion => "assertion",
                MustSign::Response => "response",
                MustSign::Both => "both",
            }
            .to_owned(),
            idle_seconds: number(spec.idle_seconds),
            session_seconds: number(spec.session_seconds),
            directory: connector_of(spec.directory.as_ref()),
            directory_at_most: most_of(spec.directory.as_ref()),
            spec: spec.clone(),
        }
    }
}

#[derive(Template)]
#[template(path = "connection_saml.html")]
struct SamlPage {
    shell: Shell,
    row: Row,
    steps: Vec<StepRow>,
    saml: SamlFields,
    fingerprints: Vec<String>,
    addresses: SamlAddresses,
}

/// The page of a connection, with what a test of it found.
fn connection_page(
    app: &App,
    session: &Session,
    connection: &Connection,
    steps: Vec<Checked>,
) -> Result<Response, Refusal> {
    let row = Row::of(connection, app.clock.now())?;
    let shell = session.shell(row.name.clone(), Section::Access);
    let steps = steps.into_iter().map(StepRow::of).collect();
    match (connection.definition()?, connection::addresses(app, connection)) {
        (Definition::Oidc(spec), Addresses::Oidc(addresses)) => page(&OidcPage {
            shell,
            row,
            steps,
            oidc: OidcFields {
                auth: word_of(spec.client_auth).to_owned(),
                scopes: spec.scopes.join(" "),
                acr: spec.required_acr.join(" "),
                amr: spec.required_amr.join(" "),
                idle_seconds: number(spec.idle_seconds),
                session_seconds: number(spec.session_seconds),
                directory: connector_of(spec.directory.as_ref()),
                directory_by: match spec.directory.as_ref().map(|directory| directory.by) {
                    Some(MatchedBy::Oid) => "oid".to_owned(),
                    Some(MatchedBy::Subject) | None => "subject".to_owned(),
                },
                directory_at_most: most_of(spec.directory.as_ref()),
                spec: *spec,
                addresses,
            },
        }),
        (Definition::Saml(spec), Addresses::Saml(addresses)) => page(&SamlPage {
            shell,
            row,
            steps,
            saml: SamlFields::of(&spec),
            fingerprints: spec.fingerprints(),
            addresses,
        }),
        (Definition::Oidc(_), Addresses::Saml(_)) | (Definition::Saml(_), Addresses::Oidc(_)) => {
            Err(Refusal(Problem::internal(
                "a connection is of another kind than its definition",
            )))
        }
    }
}

const fn word_of(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::SecretBasic => "secret_basic",
        ClientAuth::SecretPost => "secret_post",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
    }
}

async fn show(State(app): State<App>, session: Session, At(name): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let tenant = session.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| connection::named(tx, tenant, &name));
    connection_page(&app, &session, &found.await?, Vec::new())
}

async fn test(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let tenant = sent.session.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| connection::named(tx, tenant, &name));
    let found = found.await?;
    let steps = connection::probe(&app, &found).await?;
    connection_page(&app, &sent.session, &found, steps)
}

/// The connector that a form shows.
fn connector_of(directory: Option<&DirectoryMatch>) -> String {
    directory
        .map(|directory| directory.connector.clone())
        .unwrap_or_default()
}

/// The role that its groups give at most, as a form shows it.
fn most_of(directory: Option<&DirectoryMatch>) -> String {
    directory.map_or_else(
        || DIRECTORY_AT_MOST.to_owned(),
        |directory| directory.at_most.clone(),
    )
}

/// Whose people a form says that a connection's people are.
fn directory_of(fields: &Fields) -> Option<DirectoryMatch> {
    fields
        .optional("directory_connector")
        .map(|connector| DirectoryMatch {
            connector: connector.to_owned(),
            by: if fields.has("directory_by", "oid") {
                MatchedBy::Oid
            } else {
                MatchedBy::Subject
            },
            at_most: fields
                .optional("directory_at_most")
                .unwrap_or(DIRECTORY_AT_MOST)
                .to_owned(),
        })
}

/// A limit of sessions below the tenant's.
fn seconds(fields: &Fields, name: &str) -> Result<Option<u64>, Problem> {
    let number = |text: &str| {
        text.parse()
            .map_err(|_| INVALID.detail("The limits of sessions are numbers of seconds."))
    };
    fields.optional(name).map(number).transpose()
}

fn oidc_of(fields: &Fields) -> Result<ConnectionSpec, Problem> {
    let words = |name: &str| fields.text(name).split_whitespace().map(str::to_owned).collect();
    let optional = |name: &str| fields.optional(name).map(str::to_owned);
    Ok(ConnectionSpec {
        client_auth: match fields.text("client_auth") {
            "secret_basic" => ClientAuth::SecretBasic,
            "secret_post" => ClientAuth::SecretPost,
            "private_key_jwt" => ClientAuth::PrivateKeyJwt,
            _ => return Err(INVALID.detail("Choose how this server proves who it is.")),
        },
        scopes: words("scopes"),
        name_claim: optional("name_claim"),
        groups_claim: optional("groups_claim"),
        required_acr: words("required_acr"),
        required_amr: words("required_amr"),
        tid: optional("tid"),
        directory: directory_of(fields),
        idle_seconds: seconds(fields, "idle_seconds")?,
        session_seconds: seconds(fields, "session_seconds")?,
        ..ConnectionSpec::new(fields.text("issuer"), fields.text("client_id"))
    })
}

/// A provider of SAML: by the metadata that was chosen, otherwise by what stands in the fields.
fn saml_of(fields: &Fields) -> Result<SamlSpec, Problem> {
    let optional = |name: &str| fields.optional(name).map(str::to_owned);
    let mut spec = SamlSpec {
        metadata: optional("metadata"),
        name_id_format: optional("name_id_format"),
        subject_attribute: optional("subject_attribute"),
        username_attribute: optional("username_attribute"),
        display_name_attribute: optional("display_name_attribute"),
        groups_attribute: optional("groups_attribute"),
        required_authn_contexts: fields
            .text("required_authn_contexts")
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        must_be_signed: match fields.text("must_be_signed") {
            "assertion" => MustSign::Assertion,
            "response" => MustSign::Response,
            "both" => MustSign::Both,
            _ => return Err(INVALID.detail("Choose what the provider must sign.")),
        },
        must_be_encrypted: fields.has("must_be_encrypted", "yes"),
        sign_requests: fields.has("sign_requests", "yes"),
        allow_idp_initiated: fields.has("allow_idp_initiated", "yes"),
        directory: directory_of(fields),
        idle_seconds: seconds(fields, "idle_seconds")?,
        session_seconds: seconds(fields, "session_seconds")?,
        ..SamlSpec::new()
    };
    if spec.metadata.is_none() {
        fields.text("entity_id").clone_into(&mut spec.entity_id);
        fields.text("sso_url").clone_into(&mut spec.sso_url);
        spec.slo_url = optional("slo_url");
        spec.certificates = certificates_of(fields.text("certificates"));
        spec.valid_until = optional("valid_until");
    }
    Ok(spec)
}

/// Certificates in PEM one after the other, or base64 with an empty line between two.
fn certificates_of(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = text.replace("\r\n", "\n");
    let parts: Vec<String> = if text.contains(END) {
        text.split_inclusive(END).map(str::to_owned).collect()
    } else {
        text.split("\n\n").map(str::to_owned).collect()
    };
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

async fn put(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let name = sent.fields.text("name").to_owned();
    let is_saml = sent.fields.text("kind") == saml::BY_SAML;
    let change = ConnectionChange {
        definition: if is_saml {
            Definition::Saml(Box::new(saml_of(&sent.fields)?))
        } else {
            Definition::Oidc(Box::new(oidc_of(&sent.fields)?))
        },
        secret: sent
            .fields
            .optional("client_secret")
            .map(|secret| SecretText::new(secret.to_owned())),
        enabled: sent.fields.has("enabled", "yes"),
        new_keys: sent.fields.has("new_keys", "yes"),
    };
    let made = connection::save(&app, permit, name, change).await?;
    Ok(see_other(&format!(
        "/access/connections/{}?notice=connection-saved",
        made.name
    )))
}

async fn delete(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| connection::delete(tx, &permit, &name)).await?;
    Ok(see_other("/access/connections?notice=connection-removed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_certificates_are_read_however_they_are_pasted() {
        let pem = "-----BEGIN CERTIFICATE-----\r\nAA\r\nBB\r\n-----END CERTIFICATE-----\r\n";
        let two = certificates_of(&format!("{pem}{pem}"));
        assert_eq!(
            two,
            ["-----BEGIN CERTIFICATE-----\nAA\nBB\n-----END CERTIFICATE-----"; 2]
        );
        assert_eq!(certificates_of("AA\nBB\n\nCC\n"), ["AA\nBB", "CC"]);
        assert!(certificates_of(" \n\n ").is_empty());
    }
}
