//! Leases: who of several nodes does a job, until when, and a fencing token that grows with each new holder.

use std::time::Duration;

use crate::{Database, Scope, StorageError, statements};

statements! {
    ACQUIRE = "INSERT INTO storage_lease (name, holder, token, expires_at) VALUES ($1, $2, 1, $3) \
        ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = storage_lease.token + 1, \
        expires_at = excluded.expires_at \
        WHERE storage_lease.expires_at <= $4 OR storage_lease.holder = excluded.holder \
        OR storage_lease.expires_at > $5 RETURNING token";
    RENEW = "UPDATE storage_lease SET expires_at = $4 \
        WHERE name = $1 AND holder = $2 AND token = $3 AND expires_at > $5";
    RELEASE = "UPDATE storage_lease SET expires_at = 0, holder = '' WHERE name = $1 AND holder = $2 AND token = $3";
    FENCE = "UPDATE storage_lease SET token = token WHERE name = $1 AND token = $2";
}

/// Clocks of nodes differ by less. A lease that ends later than two of its terms and this from now was taken by a clock that
/// was wrong: nobody renews it, and the job would rest until that hour comes.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(60);

/// The right to do a job until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// Higher than every earlier holder's; [`crate::Tx::fence`] checks it.
    pub token: i64,
}

impl Database {
    /// Takes the lease `name` for `ttl`, if it is free, has expired or is already `holder`'s. Taking one's own lease
    /// again gives a new token, so two tasks of one process with the same `holder` cannot both hold it. A lease that was taken
    /// by a clock far ahead is free too: whoever still holds it is stopped by [`crate::Tx::fence`].
    pub async fn acquire_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        now_micros: i64,
    ) -> Result<Option<Lease>, StorageError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        let expires_at = expiry(now_micros, ttl);
        let latest = expiry(now_micros, ttl * 2 + CLOCKS_DIFFER_MAX);
        self.write(Scope::System, move |tx| {
            let values: [&dyn crate::ToValue; 5] = [&name, &holder, &expires_at, &now_micros, &latest];
            let token = tx.query_opt(&ACQUIRE, &values, |row| row.get(0))?;
            Ok(token.map(|token| Lease {
                name: name.clone(),
                holder: holder.clone(),
                token,
            }))
        })
        .await
    }

    /// Keeps a lease for `ttl` more. `false`: it has expired or is somebody else's; stop the job.
    pub async fn renew_lease(
        &self,
        lease: &Lease,
        ttl: Duration,
        now_micros: i64,
    ) -> Result<bool, StorageError> {
        let lease = lease.clone();
        let expires_at = expiry(now_micros, ttl);
        self.write(Scope::System, move |tx| {
            let Lease { name, holder, token } = &lease;
            Ok::<_, StorageError>(tx.execute(&RENEW, &[name, holder, token, &expires_at, &now_micros])? == 1)
        })
        .await
    }

    /// Gives a lease back, if it is still held.
    pub async fn release_lease(&self, lease: Lease) -> Result<(), StorageError> {
        self.write(Scope::System, move |tx| {
            tx.execute(&RELEASE, &[&lease.name, &lease.holder, &lease.token])
                .map(drop)
        })
        .await
    }
}

fn expiry(now_micros: i64, ttl: Duration) -> i64 {
    now_micros.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
}
