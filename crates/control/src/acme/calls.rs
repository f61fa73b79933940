//! What each request does, once it is known who signed it.

use std::time::Duration;

use muster_model::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    Ended, ORDER_SECONDS, ORDERS_PER_ACCOUNT_MAX, ORDERS_PER_TOKEN_MAX, Reply, ReplyBody, Server, Signed,
    account_key::bytes,
    admission, csr,
    order::{
        AccountView, AuthorizationView, ChallengeView, Order, OrderView, OrdersView, PERMANENT_IDENTIFIER,
        Status,
    },
    problem::{AcmeProblem, ErrorType},
    store,
};
use crate::{
    access::problem::{
        ACCOUNT_UNKNOWN, CHALLENGE_INVALID, CSR_INVALID, INVALID, MALFORMED, NOT_FOUND, ORDER_NOT_READY,
        PROOF_INVALID, Problem, RATE_LIMITED,
    },
    audit, clock,
    enrollment::Refusal,
};

/// Bytes of a challenge's token: 256 bits.
const CHALLENGE_BYTES: usize = 32;
/// The longest account of a device's own failure that is kept.
const DEVICE_ERROR_CHARS_MAX: usize = 200;

/// What clients written in Go send for a time that is not set.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// RFC 8555 §7.3. Contacts, terms of service and bindings to other accounts have no meaning here and are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewAccount {
    #[serde(default)]
    only_return_existing: bool,
}

/// RFC 8555 §7.3.2 and §7.3.6.
#[derive(Deserialize)]
struct AccountUpdate {
    status: Option<String>,
}

/// RFC 8555 §7.4.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    identifiers: Vec<Identifier>,
    not_before: Option<String>,
    not_after: Option<String>,
}

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

/// draft-ietf-acme-device-attest §5. A device that could not attest says so by `error`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChallengeAnswer {
    att_obj: Option<String>,
    error: Option<String>,
}

/// RFC 8555 §7.4.
#[derive(Deserialize)]
struct Finalize {
    csr: String,
}

impl Server {
    pub(super) async fn new_account(&self, signed: &Signed) -> Result<Reply, AcmeProblem> {
        let asked: NewAccount = payload(signed)?;
        let known = !self.orders_of(signed, 1).await?.is_empty();
        if asked.only_return_existing && !known {
            return Err(ErrorType::AccountDoesNotExist.because(
                ACCOUNT_UNKNOWN.detail("The key has ordered nothing here, and that is all an account is."),
            ));
        }
        let view = AccountView::of(&self.urls, &signed.key);
        let mut reply = Reply::json(&view)?.at(self.urls.account(&signed.key));
        reply.is_new = !known;
        Ok(reply)
    }

    pub(super) fn account(&self, signed: &Signed, id: &str) -> Result<Reply, AcmeProblem> {
        own(signed, id)?;
        if !signed.payload.is_empty() {
            let asked: AccountUpdate = payload(signed)?;
            if asked.status.is_some() {
                return Err(ErrorType::Malformed.because(INVALID.detail(
                    "An account here is its key and nothing more: there is nothing to deactivate. Throw the key away.",
                )));
            }
        }
        Ok(Reply::json(&AccountView::of(&self.urls, &signed.key))?.at(self.urls.account(&signed.key)))
    }

    pub(super) async fn orders(&self, signed: &Signed, id: &str) -> Result<Reply, AcmeProblem> {
        const LISTED_MAX: i64 = 100;
        own(signed, id)?;
        nothing(signed)?;
        let orders = self.orders_of(signed, LISTED_MAX).await?;
        Reply::json(&OrdersView::of(&self.urls, &orders))
    }

    pub(super) async fn new_order(&self, signed: &Signed) -> Result<Reply, AcmeProblem> {
        let asked: NewOrder = payload(signed)?;
        let identifier = one_identifier(asked)?;
        let token = admission::ticket(&self.app, self.tenant, &identifier).await?;
        let now = self.app.clock.now();
        // Whole seconds, so that the times that clients see are those that count.
        let created_at = Timestamp::from_unix_seconds(now.as_unix_seconds());
        let id = Uuid::from_bytes(clock::random());
        let order = Order {
            id,
            account: account(signed),
            token: token.id,
            identifier: self.keys.seal(&identifier, id, clock::random())?,
            challenge: clock::random::<CHALLENGE_BYTES>().to_vec(),
            status: Status::Pending,
            validated_at: None,
            spki: None,
            evidence: None,
            error: None,
            certificate: None,
            chain: None,
            created_at,
            expires_at: created_at.plus(Duration::from_secs(ORDER_SECONDS)),
        };
        let (tenant, stored) = (self.tenant, order.clone());
        audit::housekeeping(&self.app, self.scope(), move |tx| {
            let (of_account, of_token) = store::live(tx, tenant, &stored.account, stored.token, now)?;
            if of_account >= ORDERS_PER_ACCOUNT_MAX || of_token >= ORDERS_PER_TOKEN_MAX {
                return Err(RATE_LIMITED
                    .detail("Too many orders were begun. Wait until the time of some is over.")
                    .retry_after(ORDER_SECONDS));
            }
            Ok(store::insert_order(tx, tenant, &stored)?)
        })
        .await?;
        let mut reply = self.order_reply(&order)?;
        reply.is_new = true;
        Ok(reply)
    }

    pub(super) async fn order(&self, signed: &Signed, id: Uuid) -> Result<Reply, AcmeProblem> {
        nothing(signed)?;
        self.order_reply(&self.find(signed, id).await?)
    }

    pub(super) async fn authorization(&self, signed: &Signed, id: Uuid) -> Result<Reply, AcmeProblem> {
        nothing(signed)?;
        let order = self.find(signed, id).await?;
        let identifier = self.keys.unseal(&order.identifier, order.id)?;
        let now = self.app.clock.now();
        Reply::json(&AuthorizationView::of(&self.urls, &order, identifier, now))
    }

    pub(super) async fn certificate(&self, signed: &Signed, id: Uuid) -> Result<Reply, AcmeProblem> {
        nothing(signed)?;
        let order = self.find(signed, id).await?;
        let chain = order.chain.ok_or_else(unknown)?;
        Ok(Reply::of(ReplyBody::Pem(chain)))
    }

    /// Takes the attestation. One try: whatever it says decides the order.
    pub(super) async fn challenge(&self, signed: &Signed, id: Uuid) -> Result<Reply, AcmeProblem> {
        let order = self.find(signed, id).await?;
        if signed.payload.is_empty() || order.status(self.app.clock.now()) != Status::Pending {
            return self.challenge_reply(&order);
        }
        let answer: ChallengeAnswer = payload(signed)?;
        let object = match (answer.att_obj, answer.error) {
            (Some(text), None) => bytes(&text).ok_or_else(|| {
                Refusal::attestation("object.encoding", "attObj is not base64url without padding.")
            }),
            (_, Some(error)) => {
                let error: String = error.chars().take(DEVICE_ERROR_CHARS_MAX).collect();
                Err(Refusal::attestation(
                    "device.refused",
                    format!("The device says: {error}"),
                ))
            }
            (None, None) => {
                return Err(ErrorType::Malformed.because(
                    MALFORMED.detail("The answer to the challenge is an attestation object, `attObj`."),
                ));
            }
        };
        let proven = match object {
            Ok(object) => self.attest(signed, &order, &object).await,
            Err(refusal) => Err(refusal),
        };
        let mut ended = None;
        match proven {
            Ok((spki, evidence)) => {
                let (tenant, at) = (self.tenant, self.app.clock.now());
                audit::housekeeping(&self.app, self.scope(), move |tx| {
                    Ok(store::attested(tx, tenant, id, at, &spki, &evidence)?)
                })
                .await?;
            }
            Err(refusal) => {
                self.refuse(&order, Status::Pending, refusal).await?;
                ended = Some(Ended::Refused);
            }
        }
        let mut reply = self.challenge_reply(&self.find(signed, id).await?)?;
        reply.enrollment = ended;
        Ok(reply)
    }

    /// Takes the request for the certificate, admits the device and issues.
    pub(super) async fn finalize(&self, signed: &Signed, id: Uuid) -> Result<Reply, AcmeProblem> {
        let order = self.find(signed, id).await?;
        match order.status(self.app.clock.now()) {
            Status::Ready => {}
            // The answer to an earlier request may have been lost.
            Status::Valid => return self.order_reply(&order),
            Status::Pending | Status::Invalid => return Err(not_ready()),
        }
        let asked: Finalize = payload(signed)?;
        let der = bytes(&asked.csr).ok_or_else(|| {
            ErrorType::Malformed.because(MALFORMED.detail("`csr` is base64url without padding."))
        })?;
        let spki = csr::read(&der)?;
        if signed.key.is_spki(&spki) {
            return Err(
                ErrorType::BadCsr.because(CSR_INVALID.detail("The account's key is not the device's."))
            );
        }
        let admitted = admission::admit(&self.app, self.tenant, &self.keys, &order, &spki).await;
        let certified = match admitted {
            Ok(certified) => certified,
            Err(refusal) => {
                let told = self.refuse(&order, Status::Ready, refusal).await?;
                // Another request for the same order may have been first.
                let now = self.find(signed, id).await?;
                return match now.status {
                    Status::Valid => self.order_reply(&now),
                    Status::Pending | Status::Ready | Status::Invalid => Err(told),
                };
            }
        };
        let tenant = self.tenant;
        audit::housekeeping(&self.app, self.scope(), move |tx| {
            Ok(store::issued(
                tx,
                tenant,
                id,
                &certified.certificate,
                &certified.chain,
            )?)
        })
        .await?;
        let mut reply = self.order_reply(&self.find(signed, id).await?)?;
        reply.enrollment = Some(Ended::Done);
        Ok(reply)
    }

    /// What was attested: the key (SPKI, DER) and what goes with it, as it is kept.
    async fn attest(
        &self,
        signed: &Signed,
        order: &Order,
        object: &[u8],
    ) -> Result<(Vec<u8>, String), Refusal> {
        let identifier = self.keys.unseal(&order.identifier, order.id)?;
        let token = admission::ticket(&self.app, self.tenant, &identifier).await?;
        let proof = admission::attest(
            &self.app,
            self.tenant,
            &token,
            &signed.key,
            &order.challenge_token(),
            object,
        )
        .await?;
        let evidence = serde_json::to_string(&proof.evidence).map_err(Problem::internal)?;
        Ok((proof.spki, evidence))
    }

    /// Ends an order and records why. What is ours to repair, or the client's to try again, ends nothing.
    async fn refuse(
        &self,
        order: &Order,
        from: Status,
        refusal: Refusal,
    ) -> Result<AcmeProblem, AcmeProblem> {
        let told = AcmeProblem::from((*refusal.problem).clone());
        if told.problem.kind.status >= 500 || told.kind == ErrorType::RateLimited {
            return Err(told);
        }
        let document = serde_json::to_string(&told.document(None)).map_err(Problem::internal)?;
        let (tenant, id) = (self.tenant, order.id);
        let is_first = audit::housekeeping(&self.app, self.scope(), move |tx| {
            Ok(store::refused(tx, tenant, id, from, &document)?)
        })
        .await?;
        // Looking the identifier up has recorded already that it is none any more.
        if !is_first || told.problem.kind == CHALLENGE_INVALID {
            return Ok(told);
        }
        let problem = admission::record(&self.app, self.tenant, order.token, refusal).await;
        Ok(problem.into())
    }

    fn order_reply(&self, order: &Order) -> Result<Reply, AcmeProblem> {
        let identifier = self.keys.unseal(&order.identifier, order.id)?;
        let view = OrderView::of(&self.urls, order, identifier, self.app.clock.now());
        Ok(Reply::json(&view)?.at(self.urls.order(order.id)))
    }

    fn challenge_reply(&self, order: &Order) -> Result<Reply, AcmeProblem> {
        let view = ChallengeView::of(&self.urls, order, self.app.clock.now());
        let mut reply = Reply::json(&view)?;
        reply.up = Some(self.urls.authorization(order.id));
        Ok(reply)
    }

    async fn orders_of(&self, signed: &Signed, limit: i64) -> Result<Vec<Order>, AcmeProblem> {
        let (tenant, account) = (self.tenant, account(signed));
        let read =
            move |tx: &mut muster_storage::Tx| Ok::<_, Problem>(store::orders(tx, tenant, &account, limit)?);
        Ok(self.app.db.read(self.scope(), read).await?)
    }

    /// The account's own order. Another's is as unknown as none.
    async fn find(&self, signed: &Signed, id: Uuid) -> Result<Order, AcmeProblem> {
        let (tenant, account) = (self.tenant, account(signed));
        let read =
            move |tx: &mut muster_storage::Tx| Ok::<_, Problem>(store::order(tx, tenant, id, &account)?);
        self.app.db.read(self.scope(), read).await?.ok_or_else(unknown)
    }
}

/// The account of a request, as orders name it.
pub(super) fn account(signed: &Signed) -> Vec<u8> {
    signed.key.thumbprint().as_bytes().to_vec()
}

/// Reads a payload; members that are not known are ignored (RFC 8555 §7.1).
pub(super) fn payload<T: DeserializeOwned>(signed: &Signed) -> Result<T, AcmeProblem> {
    serde_json::from_slice(&signed.payload).map_err(|_| {
        ErrorType::Malformed
            .because(MALFORMED.detail("The payload is not the JSON object that this request takes."))
    })
}

/// A POST-as-GET has no payload (RFC 8555 §6.3).
fn nothing(signed: &Signed) -> Result<(), AcmeProblem> {
    if signed.payload.is_empty() {
        return Ok(());
    }
    Err(ErrorType::Malformed.because(MALFORMED.detail("This request has an empty payload (POST-as-GET).")))
}

fn own(signed: &Signed, id: &str) -> Result<(), AcmeProblem> {
    if signed.key.id() == id {
        return Ok(());
    }
    Err(ErrorType::Unauthorized
        .because(PROOF_INVALID.detail("The account is another one than the signer's.")))
}

fn one_identifier(asked: NewOrder) -> Result<String, AcmeProblem> {
    // Some clients write "none" as the first moment of their calendar.
    let is_set = |time: &Option<String>| time.as_deref().is_some_and(|time| time != NO_TIME);
    if is_set(&asked.not_before) || is_set(&asked.not_after) {
        return Err(ErrorType::Malformed.because(
            INVALID.detail("How long a certificate is good is the tenant's to say, not the order's."),
        ));
    }
    let [identifier]: [Identifier; 1] = asked.identifiers.try_into().map_err(|_| {
        ErrorType::RejectedIdentifier.because(INVALID.detail("An order is for exactly one identifier."))
    })?;
    if identifier.kind != PERMANENT_IDENTIFIER {
        return Err(ErrorType::UnsupportedIdentifier.because(INVALID.detail(
            "The identifier's type is permanent-identifier, and its value the challenge of an enrollment token.",
        )));
    }
    Ok(identifier.value)
}

fn unknown() -> AcmeProblem {
    ErrorType::Malformed.because(NOT_FOUND.detail("The account has no such thing here."))
}

fn not_ready() -> AcmeProblem {
    ErrorType::OrderNotReady
        .because(ORDER_NOT_READY.detail("The order waits for its attestation, has failed, or has ended."))
}
