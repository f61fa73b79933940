//! Passkeys of the signed-in person: made in the browser, handed over to whoever holds the root key.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::{
        self, Passkey,
        problem::{INVALID, Problem},
        scope::CommandRead,
    },
    audit,
};
use muster_model::text::Name;
use muster_trust::{
    approval::account_of,
    encoding::from_base64,
    key::{KeyId, sha256},
    passkey::Registration,
    root::{RelyingParty, RootDocument},
};

use crate::{
    form::{Fields, Sent},
    session::{At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/passkeys", get(show).post(make))
        .route("/passkeys/{key}/remove", post(remove))
}

/// A passkey as a card.
#[derive(Debug)]
struct Row {
    key_id: String,
    name: String,
    made: When,
    party: String,
    origin: String,
    pem: String,
    standing: Badge,
    /// The person that the root document says it belongs to.
    person: Option<String>,
    counts_from: Option<When>,
}

impl Row {
    fn of(passkey: &Passkey, root: &RootDocument, now: muster_model::Timestamp) -> Row {
        let approver = root.approvers.get(&passkey.key_id());
        let cool_down = std::time::Duration::from_secs(root.approval.cool_down_seconds.into());
        let counts_from = approver.map(|approver| approver.added_at.plus(cool_down));
        Row {
            key_id: passkey.key_id().to_string(),
            name: passkey.name.clone(),
            made: When::new(passkey.created_at, now),
            party: passkey.party.id.clone(),
            origin: passkey.party.origin.clone(),
            pem: passkey.key.to_pem(),
            standing: match counts_from {
                None => Badge::new("not named yet", Tone::Wait),
                Some(from) if from > now => Badge::new("cools down", Tone::Wait),
                Some(_) => Badge::new("counts", Tone::Good),
            },
            person: approver.map(|approver| approver.person.to_string()),
            counts_from: counts_from
                .filter(|from| *from > now)
                .map(|from| When::new(from, now)),
        }
    }
}

/// What the browser is asked for.
#[derive(Debug)]
struct Making {
    party: RelyingParty,
    challenge: String,
    user: String,
    credentials: String,
}

#[derive(Template)]
#[template(path = "passkeys.html")]
struct PasskeysPage {
    shell: Shell,
    account: String,
    rows: Vec<Row>,
    /// Nothing where this console is reached by an address, for which browsers make no passkeys.
    making: Option<Making>,
    admin_url: String,
    is_full: bool,
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let account = permit.author().actor.id.clone();
    let asked = account.clone();
    let passkeys = app
        .db
        .read(permit.storage(), move |tx| {
            access::passkeys_of(tx, tenant, &asked)
        })
        .await?;
    let credentials: Vec<String> = passkeys
        .iter()
        .map(|passkey| STANDARD.encode(&passkey.credential_id))
        .collect();
    let making = RelyingParty::of_origin(&app.settings.admin_url)
        .ok()
        .map(|party| Making {
            party,
            challenge: session.page_permit().passkey_challenge().to_base64(),
            user: sha256(format!("{tenant}:{account}").as_bytes()).to_base64(),
            credentials: credentials.join(" "),
        });
    page(&PasskeysPage {
        shell: session.shell("Passkeys", Section::Approvals),
        account: account_of(&account),
        is_full: passkeys.len() >= access::PASSKEYS_PER_ACCOUNT_MAX,
        rows: passkeys
            .iter()
            .map(|passkey| Row::of(passkey, &keys.root, now))
            .collect(),
        making,
        admin_url: app.settings.admin_url.clone(),
    })
}

/// Bytes that a script put into a field.
pub fn bytes(fields: &Fields, name: &str) -> Result<Vec<u8>, Refusal> {
    from_base64(fields.text(name)).ok_or_else(|| {
        Refusal(INVALID.detail("The passkey's answer is not in the form. Passkeys need the page's script."))
    })
}

async fn make(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    // A passkey proves who somebody is, so anybody may have one; whether it approves is for the root document to say.
    let permit = sent.session.permit::<CommandRead>()?;
    sent.session.require_fresh(&app)?;
    let party = RelyingParty::of_origin(&app.settings.admin_url)
        .map_err(|why| Refusal(INVALID.detail(format!("No passkey can be made here: {why}."))))?;
    let name = sent.fields.parsed::<Name>("name")?;
    let name = name.ok_or_else(|| Refusal(INVALID.detail("Give the passkey a name.")))?;
    let registration = Registration {
        authenticator_data: bytes(&sent.fields, "authenticator_data")?,
        client_data_json: bytes(&sent.fields, "client_data_json")?,
    };
    let challenge = sent.session.page_permit().passkey_challenge();
    audit::commit(&app, permit.author(), move |tx| {
        access::add_passkey(tx, &name, &party, &challenge, &registration)
    })
    .await?;
    Ok(see_other("/passkeys?notice=passkey-made"))
}

async fn remove(State(app): State<App>, At(key): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<CommandRead>()?;
    sent.session.require_fresh(&app)?;
    let key: KeyId = parse(&key)?;
    audit::commit(&app, permit.author(), move |tx| access::remove_passkey(tx, key)).await?;
    Ok(see_other("/passkeys?notice=passkey-removed"))
}
