//! An ACME server (RFC 8555) whose one challenge is `device-attest-01` (draft-ietf-acme-device-attest-07): Apple devices
//! enroll by nothing else with a key of their Secure Enclave.
//!
//! The identifier of an order is the one-time challenge of an enrollment token, so an order is as good as its token. An
//! account is its key, and its URL holds the key: whoever only signs up leaves nothing behind. One row is an order, its
//! authorization and its challenge, with one status for the three of them, which every step changes by one conditional
//! statement.

mod account_key;
mod admission;
mod attestation;
mod calls;
mod csr;
mod jws;
mod keys;
mod nonce;
mod order;
mod problem;
mod revocation;
mod store;

use std::time::Duration;

use muster_model::TenantId;
use muster_storage::{Scope, Statement};
use uuid::Uuid;

use self::{
    account_key::AccountKey,
    jws::Signer,
    keys::AcmeKeys,
    order::{Directory, Urls},
};
use crate::{
    App,
    access::{
        self,
        problem::{ACCOUNT_UNKNOWN, MALFORMED, NONCE_INVALID, PROOF_INVALID, Problem},
    },
    audit, clock, secrets,
};
pub use jws::BODY_BYTES_MAX;
pub use problem::{AcmeProblem, ErrorType, ProblemDocument};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// The content type of every request (RFC 8555 §6.2).
pub const CONTENT_TYPE: &str = "application/jose+json";
/// How long an order may take from its beginning to its certificate.
const ORDER_SECONDS: u64 = 600;
/// Orders that one account may begin within `ORDER_SECONDS`.
const ORDERS_PER_ACCOUNT_MAX: i64 = 8;
/// Orders that may be begun for one token within `ORDER_SECONDS`, whoever's they are.
const ORDERS_PER_TOKEN_MAX: i64 = 16;
/// Orders are kept this long after their time, for downloads and for revocation by the account.
const ORDERS_KEPT_DAYS: u64 = 30;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    NewAccount,
    /// The account whose URL ends with this.
    Account(String),
    /// The orders of the account whose URL has this.
    Orders(String),
    NewOrder,
    Order(Uuid),
    Finalize(Uuid),
    Authorization(Uuid),
    Challenge(Uuid),
    Certificate(Uuid),
    RevokeCertificate,
}

/// An answer with status 200 or 201.
#[derive(Debug)]
pub struct Reply {
    pub is_new: bool,
    /// The URL of what was made or asked for.
    pub location: Option<String>,
    /// The URL of what this belongs to.
    pub up: Option<String>,
    pub body: ReplyBody,
    /// Whether an enrollment ended here, and how.
    pub enrollment: Option<Ended>,
}

/// The body of an answer.
#[derive(Debug)]
pub enum ReplyBody {
    Json(Vec<u8>),
    /// A certificate chain (RFC 8555 §9.1).
    Pem(String),
    Empty,
}

/// How an enrollment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    Refused,
}

impl Reply {
    fn json<T: serde::Serialize>(value: &T) -> Result<Reply, AcmeProblem> {
        let bytes = serde_json::to_vec(value).map_err(Problem::internal)?;
        Ok(Reply::of(ReplyBody::Json(bytes)))
    }

    fn of(body: ReplyBody) -> Reply {
        Reply {
            is_new: false,
            location: None,
            up: None,
            body,
            enrollment: None,
        }
    }

    fn at(mut self, location: String) -> Reply {
        self.location = Some(location);
        self
    }
}

/// A tenant's ACME server, for one request.
pub struct Server {
    app: App,
    tenant: TenantId,
    urls: Urls,
    keys: AcmeKeys,
}

/// A request whose signature, URL and nonce were checked. Only `Server::authenticate` makes one.
struct Signed {
    key: AccountKey,
    by: SignedBy,
    payload: Vec<u8>,
}

/// How the signer named itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignedBy {
    /// By the key itself, `jwk`.
    Key,
    /// By the URL of an account, `kid`.
    Account,
}

impl Server {
    /// The server of the tenant that a part of a path names; none when this installation has no such tenant.
    pub async fn of(app: &App, tenant: &str) -> Result<Option<Server>, Problem> {
        let Ok(tenant) = tenant.parse::<TenantId>() else {
            return Ok(None);
        };
        if secrets::find_keys(app, tenant).await?.is_none() {
            return Ok(None);
        }
        app.db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                access::require_serving(tx, tenant)
            })
            .await?;
        Ok(Some(Server {
            app: app.clone(),
            tenant,
            urls: Urls::of(&app.settings.device_url, tenant),
            keys: AcmeKeys::of(&app.keys, tenant)?,
        }))
    }

    /// The directory, JSON (RFC 8555 §7.1.1).
    pub fn directory(&self) -> Vec<u8> {
        serde_json::to_vec(&Directory::of(&self.urls)).unwrap_or_default()
    }

    /// The URL of the directory.
    pub fn directory_url(&self) -> String {
        self.urls.directory()
    }

    /// A nonce that was never used.
    pub fn nonce(&self) -> String {
        nonce::issue(&self.keys, clock::random(), self.app.clock.now())
    }

    /// Answers a signed request. `path` is that of the request line, with its query; `body` has at most
    /// [`BODY_BYTES_MAX`] bytes.
    pub async fn answer(&self, path: &str, call: Call, body: &[u8]) -> Result<Reply, AcmeProblem> {
        let signed = self.authenticate(path, &call, body).await?;
        match call {
            Call::NewAccount => self.new_account(&signed).await,
            Call::Account(id) => self.account(&signed, &id),
            Call::Orders(id) => self.orders(&signed, &id).await,
            Call::NewOrder => self.new_order(&signed).await,
            Call::Order(id) => self.order(&signed, id).await,
            Call::Finalize(id) => self.finalize(&signed, id).await,
            Call::Authorization(id) => self.authorization(&signed, id).await,
            Call::Challenge(id) => self.challenge(&signed, id).await,
            Call::Certificate(id) => self.certificate(&signed, id).await,
            Call::RevokeCertificate => self.revoke(&signed).await,
        }
    }

    /// Checks, in this order: form, URL, the key, the nonce's stamp, the signature; then uses the nonce up.
    async fn authenticate(&self, path: &str, call: &Call, body: &[u8]) -> Result<Signed, AcmeProblem> {
        let unverified = jws::read(body)?;
        // The origin is configuration: what the request says of its host is never asked.
        if unverified.url != format!("{}{path}", self.app.settings.device_url) {
            return Err(ErrorType::Unauthorized
                .because(PROOF_INVALID.detail("The header's `url` is not the URL of this request.")));
        }
        let (key, by) = self.signer(&unverified.signer)?;
        call.check(by)?;
        let bad_nonce = || {
            ErrorType::BadNonce
                .because(NONCE_INVALID.detail("Repeat the request with the nonce of this answer."))
        };
        let now = self.app.clock.now();
        let stamped = unverified
            .nonce
            .as_deref()
            .and_then(|text| nonce::read(&self.keys, text, now))
            .ok_or_else(bad_nonce)?;
        let payload = unverified.verify(&key)?;
        let tenant = self.tenant;
        let is_first = audit::housekeeping(&self.app, self.scope(), move |tx| {
            Ok(store::spend_nonce(
                tx,
                tenant,
                &stamped.random,
                stamped.expires_at,
            )?)
        })
        .await?;
        if !is_first {
            return Err(bad_nonce());
        }
        Ok(Signed { key, by, payload })
    }

    fn signer(&self, signer: &Signer) -> Result<(AccountKey, SignedBy), AcmeProblem> {
        match signer {
            Signer::Key(key) => Ok((key.clone(), SignedBy::Key)),
            Signer::Account(kid) => {
                let key = self.urls.account_of(kid).ok_or_else(|| {
                    ErrorType::AccountDoesNotExist.because(
                        ACCOUNT_UNKNOWN.detail("The header's `kid` is not the URL of an account here."),
                    )
                })?;
                Ok((key, SignedBy::Account))
            }
        }
    }

    fn scope(&self) -> Scope {
        Scope::Tenant(self.tenant.uuid())
    }
}

impl Call {
    /// Whether a request for this may name its signer so (RFC 8555 §6.2).
    fn check(&self, by: SignedBy) -> Result<(), AcmeProblem> {
        let fits = match self {
            Call::NewAccount => by == SignedBy::Key,
            Call::RevokeCertificate => true,
            Call::Account(_)
            | Call::Orders(_)
            | Call::NewOrder
            | Call::Order(_)
            | Call::Finalize(_)
            | Call::Authorization(_)
            | Call::Challenge(_)
            | Call::Certificate(_) => by == SignedBy::Account,
        };
        if fits {
            return Ok(());
        }
        Err(ErrorType::Malformed.because(MALFORMED.detail(match by {
            SignedBy::Key => "This request names its account by `kid`, not its key by `jwk`.",
            SignedBy::Account => "This request shows its key by `jwk`, not its account by `kid`.",
        })))
    }
}

/// Removes used nonces that expired, and orders whose time is long over. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<u64, Problem> {
    let now = app.clock.now();
    let orders_before = now.minus(Duration::from_secs(ORDERS_KEPT_DAYS * 86_400));
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::forget(tx, now, orders_before)?)
    })
    .await
}
