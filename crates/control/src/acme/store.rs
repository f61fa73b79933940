//! SQL of the `acme_` tables.

use muster_model::{TenantId, Timestamp, TokenId};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::order::{Order, Status};

macro_rules! order_columns {
    () => {
        "order_id, account, jti, identifier, challenge, status, validated_at, spki, evidence, error, certificate, \
         chain, created_at, expires_at"
    };
}

statements! {
    SPEND_NONCE = "INSERT INTO acme_nonce (tenant_id, nonce, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    FORGET_NONCES = "DELETE FROM acme_nonce WHERE expires_at < $1";
    INSERT_ORDER = "INSERT INTO acme_order \
        (tenant_id, order_id, account, jti, identifier, challenge, status, created_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    ORDER = concat!("SELECT ", order_columns!(), " FROM acme_order WHERE tenant_id = $1 AND order_id = $2 AND account = $3");
    ORDERS = concat!("SELECT ", order_columns!(), " FROM acme_order WHERE tenant_id = $1 AND account = $2 \
        ORDER BY created_at DESC, order_id LIMIT $3");
    LIVE_OF_ACCOUNT = "SELECT COUNT(*) FROM acme_order WHERE tenant_id = $1 AND account = $2 AND expires_at > $3";
    LIVE_OF_TOKEN = "SELECT COUNT(*) FROM acme_order WHERE tenant_id = $1 AND jti = $2 AND expires_at > $3";
    ATTESTED = "UPDATE acme_order SET status = 'ready', validated_at = $3, spki = $4, evidence = $5 \
        WHERE tenant_id = $1 AND order_id = $2 AND status = 'pending' AND expires_at > $3";
    REFUSED = "UPDATE acme_order SET status = 'invalid', error = $4 \
        WHERE tenant_id = $1 AND order_id = $2 AND status = $3";
    ISSUED = "UPDATE acme_order SET status = 'valid', certificate = $3, chain = $4 \
        WHERE tenant_id = $1 AND order_id = $2 AND status = 'ready'";
    ORDERED = "SELECT COUNT(*) FROM acme_order WHERE tenant_id = $1 AND account = $2 AND certificate = $3";
    FORGET_ORDERS = "DELETE FROM acme_order WHERE expires_at < $1";
}

/// Remembers that a nonce was used; `false` when it had been before.
pub fn spend_nonce(
    tx: &mut Tx,
    tenant: TenantId,
    nonce: &[u8],
    expires_at: Timestamp,
) -> Result<bool, StorageError> {
    let rows = tx.execute(&SPEND_NONCE, &[&tenant.uuid(), &nonce, &expires_at.as_micros()])?;
    Ok(rows == 1)
}

pub fn insert_order(tx: &mut Tx, tenant: TenantId, order: &Order) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_ORDER,
        &[
            &tenant.uuid(),
            &order.id,
            &order.account.as_slice(),
            &order.token.uuid(),
            &order.identifier.as_slice(),
            &order.challenge.as_slice(),
            &order.status.as_str(),
            &order.created_at.as_micros(),
            &order.expires_at.as_micros(),
        ],
    )
    .map(drop)
}

/// An order of this account; another account's is as if it were not there.
pub fn order(tx: &mut Tx, tenant: TenantId, id: Uuid, account: &[u8]) -> Result<Option<Order>, StorageError> {
    tx.query_opt(&ORDER, &[&tenant.uuid(), &id, &account], order_of)
}

/// The newest orders of an account.
pub fn orders(tx: &mut Tx, tenant: TenantId, account: &[u8], limit: i64) -> Result<Vec<Order>, StorageError> {
    tx.query(&ORDERS, &[&tenant.uuid(), &account, &limit], order_of)
}

/// (of the account, of the token): the orders whose time is not over.
pub fn live(
    tx: &mut Tx,
    tenant: TenantId,
    account: &[u8],
    token: TokenId,
    now: Timestamp,
) -> Result<(i64, i64), StorageError> {
    let of_account = tx.query_one(
        &LIVE_OF_ACCOUNT,
        &[&tenant.uuid(), &account, &now.as_micros()],
        |row| row.get(0),
    )?;
    let of_token = tx.query_one(
        &LIVE_OF_TOKEN,
        &[&tenant.uuid(), &token.uuid(), &now.as_micros()],
        |row| row.get(0),
    )?;
    Ok((of_account, of_token))
}

/// Stores what was attested; `false` when the challenge was answered before or its time is over.
pub fn attested(
    tx: &mut Tx,
    tenant: TenantId,
    id: Uuid,
    at: Timestamp,
    spki: &[u8],
    evidence: &str,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &ATTESTED,
        &[&tenant.uuid(), &id, &at.as_micros(), &spki, &evidence],
    )?;
    Ok(rows == 1)
}

/// Ends an order that is in state `from`; `false` when it is not.
pub fn refused(
    tx: &mut Tx,
    tenant: TenantId,
    id: Uuid,
    from: Status,
    error: &str,
) -> Result<bool, StorageError> {
    let rows = tx.execute(&REFUSED, &[&tenant.uuid(), &id, &from.as_str(), &error])?;
    Ok(rows == 1)
}

/// Stores the certificate (DER) of an order and its chain (PEM); `false` when it has one.
pub fn issued(
    tx: &mut Tx,
    tenant: TenantId,
    id: Uuid,
    certificate: &[u8],
    chain: &str,
) -> Result<bool, StorageError> {
    let rows = tx.execute(&ISSUED, &[&tenant.uuid(), &id, &certificate, &chain])?;
    Ok(rows == 1)
}

/// Whether the account ordered this certificate (DER).
pub fn ordered(
    tx: &mut Tx,
    tenant: TenantId,
    account: &[u8],
    certificate: &[u8],
) -> Result<bool, StorageError> {
    let rows: i64 = tx.query_one(&ORDERED, &[&tenant.uuid(), &account, &certificate], |row| {
        row.get(0)
    })?;
    Ok(rows > 0)
}

/// Removes nonces that expired and orders that ended before `orders_before`.
pub fn forget(tx: &mut Tx, now: Timestamp, orders_before: Timestamp) -> Result<u64, StorageError> {
    let nonces = tx.execute(&FORGET_NONCES, &[&now.as_micros()])?;
    Ok(nonces + tx.execute(&FORGET_ORDERS, &[&orders_before.as_micros()])?)
}

fn order_of(row: &Row<'_>) -> Result<Order, StorageError> {
    let status: String = row.get(5)?;
    Ok(Order {
        id: row.get(0)?,
        account: row.get(1)?,
        token: TokenId::from_uuid(row.get(2)?),
        identifier: row.get(3)?,
        challenge: row.get(4)?,
        // A word that is none of ours stands for an order that nothing can be done with.
        status: Status::parse(&status).unwrap_or(Status::Invalid),
        validated_at: row.get::<Option<i64>>(6)?.map(Timestamp::from_micros),
        spki: row.get(7)?,
        evidence: row.get(8)?,
        error: row.get(9)?,
        certificate: row.get(10)?,
        chain: row.get(11)?,
        created_at: Timestamp::from_micros(row.get(12)?),
        expires_at: Timestamp::from_micros(row.get(13)?),
    })
}
