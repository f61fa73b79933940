//! An order with its one authorization and its one challenge, as stored and as clients see it (RFC 8555 §7.1).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_model::{TenantId, Timestamp, TokenId};
use serde::Serialize;
use uuid::Uuid;

use super::{account_key::AccountKey, problem::ProblemDocument};

/// The one challenge type (draft-ietf-acme-device-attest §5).
pub const CHALLENGE_TYPE: &str = "device-attest-01";
/// The identifier type of orders (draft-ietf-acme-device-attest §3, RFC 4043).
pub const PERMANENT_IDENTIFIER: &str = "permanent-identifier";

/// Where an order stands. The statuses of its authorization and challenge follow from it, so they cannot disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The challenge waits for its answer.
    Pending,
    /// The device is attested; the request for the certificate may come.
    Ready,
    /// The certificate is issued.
    Valid,
    /// The attestation or the admission was refused.
    Invalid,
}

impl Status {
    /// The word of RFC 8555 and of storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Ready => "ready",
            Status::Valid => "valid",
            Status::Invalid => "invalid",
        }
    }

    /// The status that a word names.
    pub fn parse(word: &str) -> Option<Status> {
        [Status::Pending, Status::Ready, Status::Valid, Status::Invalid]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// An order as stored.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: Uuid,
    /// The thumbprint of the account's key.
    pub account: Vec<u8>,
    pub token: TokenId,
    /// The one-time identifier, encrypted.
    pub identifier: Vec<u8>,
    /// The challenge's token, raw.
    pub challenge: Vec<u8>,
    pub status: Status,
    pub validated_at: Option<Timestamp>,
    /// The key that was attested (SPKI, DER).
    pub spki: Option<Vec<u8>>,
    /// What the attestation said, as JSON.
    pub evidence: Option<String>,
    /// Why the order failed: a problem document.
    pub error: Option<String>,
    /// The certificate (DER).
    pub certificate: Option<Vec<u8>>,
    /// The certificate and its issuers (PEM).
    pub chain: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Order {
    /// Where the order stands at `now`: one that was not finished in time is over.
    pub fn status(&self, now: Timestamp) -> Status {
        match self.status {
            Status::Pending | Status::Ready if self.expires_at <= now => Status::Invalid,
            status => status,
        }
    }

    /// The challenge's token as clients get it.
    pub fn challenge_token(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.challenge)
    }

    /// The status of the authorization and of the challenge.
    fn proof_status(&self, now: Timestamp) -> &'static str {
        match (self.status(now), self.validated_at) {
            (_, Some(_)) => "valid",
            (Status::Pending, None) => "pending",
            (Status::Ready | Status::Valid | Status::Invalid, None) => "invalid",
        }
    }

    fn problem(&self) -> Option<ProblemDocument> {
        self.error
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
    }
}

/// The URLs of a tenant's ACME server. They come from the configured origin, never from a request.
#[derive(Debug, Clone)]
pub struct Urls {
    base: String,
}

impl Urls {
    pub fn of(device_url: &str, tenant: TenantId) -> Urls {
        Urls {
            base: format!("{device_url}/acme/{tenant}"),
        }
    }

    /// The URL of a path below the tenant's part, such as `new-order`.
    pub fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    pub fn directory(&self) -> String {
        self.at("directory")
    }

    pub fn account(&self, key: &AccountKey) -> String {
        self.at(&format!("account/{}", key.id()))
    }

    pub fn order(&self, id: Uuid) -> String {
        self.at(&format!("order/{}", id.as_simple()))
    }

    fn finalize(&self, id: Uuid) -> String {
        format!("{}/finalize", self.order(id))
    }

    pub fn authorization(&self, id: Uuid) -> String {
        self.at(&format!("authz/{}", id.as_simple()))
    }

    fn challenge(&self, id: Uuid) -> String {
        self.at(&format!("challenge/{}", id.as_simple()))
    }

    fn certificate(&self, id: Uuid) -> String {
        self.at(&format!("certificate/{}", id.as_simple()))
    }

    /// The key that an account's URL names; none for every other text.
    pub fn account_of(&self, kid: &str) -> Option<AccountKey> {
        let id = kid.strip_prefix(&self.base)?.strip_prefix("/account/")?;
        AccountKey::from_id(id)
    }
}

/// RFC 8555 §7.1.1.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
    revoke_cert: String,
    meta: DirectoryMeta,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DirectoryMeta {
    external_account_required: bool,
}

impl Directory {
    pub fn of(urls: &Urls) -> Directory {
        Directory {
            new_nonce: urls.at("new-nonce"),
            new_account: urls.at("new-account"),
            new_order: urls.at("new-order"),
            revoke_cert: urls.at("revoke-cert"),
            meta: DirectoryMeta {
                external_account_required: false,
            },
        }
    }
}

/// RFC 8555 §7.1.2.
#[derive(Debug, Serialize)]
pub struct AccountView {
    status: &'static str,
    orders: String,
}

impl AccountView {
    pub fn of(urls: &Urls, key: &AccountKey) -> AccountView {
        AccountView {
            status: "valid",
            orders: format!("{}/orders", urls.account(key)),
        }
    }
}

/// RFC 8555 §7.1.2.1.
#[derive(Debug, Serialize)]
pub struct OrdersView {
    orders: Vec<String>,
}

impl OrdersView {
    pub fn of(urls: &Urls, orders: &[Order]) -> OrdersView {
        OrdersView {
            orders: orders.iter().map(|order| urls.order(order.id)).collect(),
        }
    }
}

/// RFC 8555 §9.7.7.
#[derive(Debug, Clone, Serialize)]
struct IdentifierView {
    #[serde(rename = "type")]
    kind: &'static str,
    value: String,
}

/// RFC 8555 §7.1.3.
#[derive(Debug, Serialize)]
pub struct OrderView {
    status: &'static str,
    expires: String,
    identifiers: [IdentifierView; 1],
    authorizations: [String; 1],
    finalize: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ProblemDocument>,
}

impl OrderView {
    /// The order as its account sees it; `identifier` is what was decrypted.
    pub fn of(urls: &Urls, order: &Order, identifier: String, now: Timestamp) -> OrderView {
        OrderView {
            status: order.status(now).as_str(),
            expires: order.expires_at.to_string(),
            identifiers: [IdentifierView {
                kind: PERMANENT_IDENTIFIER,
                value: identifier,
            }],
            authorizations: [urls.authorization(order.id)],
            finalize: urls.finalize(order.id),
            certificate: order.certificate.is_some().then(|| urls.certificate(order.id)),
            error: order.problem(),
        }
    }
}

/// RFC 8555 §7.1.4.
#[derive(Debug, Serialize)]
pub struct AuthorizationView {
    status: &'static str,
    expires: String,
    identifier: IdentifierView,
    challenges: [ChallengeView; 1],
}

impl AuthorizationView {
    pub fn of(urls: &Urls, order: &Order, identifier: String, now: Timestamp) -> AuthorizationView {
        AuthorizationView {
            status: order.proof_status(now),
            expires: order.expires_at.to_string(),
            identifier: IdentifierView {
                kind: PERMANENT_IDENTIFIER,
                value: identifier,
            },
            challenges: [ChallengeView::of(urls, order, now)],
        }
    }
}

/// RFC 8555 §7.1.5.
#[derive(Debug, Serialize)]
pub struct ChallengeView {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    status: &'static str,
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    validated: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ProblemDocument>,
}

impl ChallengeView {
    pub fn of(urls: &Urls, order: &Order, now: Timestamp) -> ChallengeView {
        ChallengeView {
            kind: CHALLENGE_TYPE,
            url: urls.challenge(order.id),
            status: order.proof_status(now),
            token: order.challenge_token(),
            validated: order.validated_at.map(|at| at.to_string()),
            // An order can fail after its challenge was met; the challenge did not fail then.
            error: order.validated_at.is_none().then(|| order.problem()).flatten(),
        }
    }
}
