//! Keeps the rings in memory: reads which versions there are from the database, and their values from the store that holds each.
//!
//! A value is fetched once and stays in memory that is wiped. Where its store cannot be asked any more, it is used for as long as the
//! operator allows and then forgotten: a store from which this node was shut out takes its keys away in the end.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use muster_model::{TenantId, Timestamp};
use muster_storage::{Database, Scope};
use muster_trust::key::SigningKey;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{
    Keyring, SealingKey, SecretText, TenantKeys, files,
    places::{EMBEDDED, Embedded, FILE, SecretStore, StoreError},
    records::{self, Kind, Record, RotatedBy},
    ring::{Link, Ring, RingName, SETTLE, Version},
    rotation::Rest,
    store, vouched,
};
use crate::{
    App, Clock,
    access::{self, problem::Problem},
    audit::{self, Newest},
    clock,
};

/// How long values are used after their store was last heard of, unless the operator sets it.
pub const CACHE: Duration = Duration::from_secs(24 * 3600);
/// How long is waited for what a store answers.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How often a store is asked whether it is there.
const CONFIRMED_EVERY: Duration = Duration::from_secs(30);
/// How often the entries about versions are read, also where no row changed.
const ENTRIES_READ_EVERY: Duration = Duration::from_secs(30);
/// How long a store that failed is left alone, at first and at most.
const REST_FIRST: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(60);
/// The longest wait that a store may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Versions are forgotten so long after they were retired, values of the embedded store at once.
const VERSIONS_KEPT: Duration = Duration::from_secs(90 * 86_400);
/// A value without a version is what a rotation left that did not end.
const STRAYS_KEPT: Duration = Duration::from_secs(86_400);
/// A node that has not said for this long that it has a certificate is gone.
const NODES_KEPT: Duration = Duration::from_secs(3 * 86_400);

/// How the store outside fares, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    pub place: String,
    /// When it last answered as it should.
    pub confirmed_at: Option<Timestamp>,
    /// Why it did not, where it did not last.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    confirmed_at: Option<Timestamp>,
    error: Option<String>,
    failures: u32,
    /// Of the clock that nobody sets: the first of the failures in a row.
    first_failed_at: Duration,
    /// Of the clock that nobody sets.
    rest_until: Duration,
    asked_at: Duration,
}

/// The stores of this process.
#[derive(Debug)]
pub struct Stores {
    embedded: Embedded,
    external: OnceLock<Box<dyn SecretStore>>,
    /// How long values of the external store are used after it was last heard of.
    cache: Duration,
    state: Mutex<State>,
    /// Held by whoever brings values from the external store: one at a time.
    asking: tokio::sync::Mutex<()>,
    /// What follows from rotations that failed.
    pub(super) rests: Mutex<HashMap<RingName, Rest>>,
}

impl Stores {
    pub(crate) fn new(db: Database, clock: Clock, keys: &Keyring, cache: Duration) -> Stores {
        Stores {
            embedded: Embedded::new(db, clock, Arc::clone(&keys.master)),
            external: OnceLock::new(),
            cache,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            rests: Mutex::default(),
        }
    }

    /// Takes the store that the operator named, before the loops start. It is not asked yet: it may be away.
    pub fn take_external(&self, store: Box<dyn SecretStore>) -> Result<(), Box<dyn SecretStore>> {
        self.external.set(store)
    }

    /// Where new values go.
    pub fn newest(&self) -> &dyn SecretStore {
        match self.external.get() {
            Some(external) => external.as_ref(),
            None => &self.embedded,
        }
    }

    fn at(&self, place: &str) -> Option<&dyn SecretStore> {
        if place == EMBEDDED {
            return Some(&self.embedded);
        }
        let external = self.external.get()?;
        (external.place() == place).then_some(external.as_ref())
    }

    /// How the store outside fares; none where everything is in the database.
    pub fn status(&self) -> Option<StoreStatus> {
        let external = self.external.get()?;
        let state = self.state.lock();
        Some(StoreStatus {
            place: external.place().to_owned(),
            confirmed_at: state.confirmed_at,
            error: state.error.clone(),
        })
    }

    /// For how long the external store has not answered as it should; nothing where there is none, or it is asked for the first time.
    pub fn silent_for(&self, now: Timestamp) -> Option<Duration> {
        self.external.get()?;
        let state = self.state.lock();
        match (&state.error, state.confirmed_at) {
            (None, _) => Some(Duration::ZERO),
            (Some(_), Some(at)) => Some(now.since(at)),
            (Some(_), None) => Some(clock::uptime() - state.first_failed_at.min(clock::uptime())),
        }
    }

    /// Whether the external store may be asked now.
    fn may_ask(&self) -> bool {
        self.state.lock().rest_until <= clock::uptime()
    }

    /// Remembers how an exchange with the external store ended.
    pub(super) fn heard<T>(&self, answer: &Result<T, StoreError>, now: Timestamp) {
        let mut state = self.state.lock();
        match answer {
            Ok(_) | Err(StoreError::Missing | StoreError::Conflict) => {
                if state.error.take().is_some() {
                    tracing::info!("the store of secrets answers again");
                }
                (state.confirmed_at, state.failures) = (Some(now), 0);
            }
            Err(error) => {
                if state.error.is_none() {
                    state.first_failed_at = clock::uptime();
                    tracing::warn!(%error, "the store of secrets cannot be used; what is in memory is used meanwhile");
                }
                state.error = Some(error.to_string());
                state.failures = state.failures.saturating_add(1);
                let pause = REST_FIRST * 2_u32.saturating_pow(state.failures.min(6) - 1);
                let asked = match error {
                    StoreError::Away { retry_after, .. } => *retry_after,
                    _ => None,
                };
                let rest = asked.map_or(pause.min(REST_MAX), |asked| asked.min(RETRY_AFTER_MAX));
                state.rest_until = clock::uptime() + rest;
            }
        }
    }

    /// Whether values of the external store are still to be used.
    fn is_fresh(&self, now: Timestamp) -> bool {
        let confirmed = self.state.lock().confirmed_at;
        confirmed.is_some_and(|at| now.since(at) <= self.cache)
    }
}

/// The tenant whose rows the installation's secrets are: its first one.
pub async fn operator(app: &App) -> Result<Option<TenantId>, Problem> {
    let tenants = app.db.read(Scope::System, access::tenants).await?;
    Ok(tenants.first().map(|(tenant, _)| *tenant))
}

/// Brings the rings up to what the database says, and fetches values that are missing. Runs at the start, and when a token names a
/// key that this node does not know. What the rows say counts before the store outside is asked, which may be slow.
pub async fn follow(app: &App) -> Result<(), Problem> {
    if follow_rows(app).await? {
        // Whoever is at it already brings the same, but for what was written since.
        if let Ok(_asking) = timeout(ANSWER_TIME, app.stores.asking.lock()).await {
            ask_outside(app).await;
        }
    }
    Ok(())
}

/// As [`follow`], on a timer: the store outside is asked in a task of its own, so that none that is slow keeps this node from what
/// the rows say next.
pub async fn keep_up(app: &App) -> Result<(), Problem> {
    if follow_rows(app).await? {
        let app = app.clone();
        tokio::spawn(async move {
            // One is enough.
            if let Ok(_asking) = app.stores.asking.try_lock() {
                ask_outside(&app).await;
            }
        });
    }
    Ok(())
}

const TOKEN_KEY: TextOf<SigningKey> = TextOf {
    parse: |text| SigningKey::from_pkcs8_pem(text.reveal()).map_err(|error| error.to_string()),
    id: |key| key.key_id().to_string(),
};
const SEALING_KEY: TextOf<SealingKey> = TextOf {
    parse: |text| SealingKey::from_hex(text.reveal().as_bytes()).map_err(str::to_owned),
    id: SealingKey::name,
};

fn token_rings(app: &App) -> [(&Ring<SigningKey>, RingName); 2] {
    [
        (&app.keys.access_tokens, RingName::AccessTokens),
        (&app.keys.enrollment_tokens, RingName::EnrollmentTokens),
    ]
}

/// Brings the rings up to what the rows say, with the values that are at hand here; answers whether there is an installation to
/// keep keys for.
async fn follow_rows(app: &App) -> Result<bool, Problem> {
    let Some(tenant) = operator(app).await? else {
        return Ok(false);
    };
    app.stores.embedded.belongs_to(tenant);
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    for (ring, name) in token_rings(app) {
        let rows = judged(app, &keys, name).await?;
        fill(app, ring, name, rows, &TOKEN_KEY).await;
    }
    let name = RingName::Sealing;
    let rows = judged(app, &keys, name).await?;
    fill(app, &app.keys.sealing, name, rows, &SEALING_KEY).await;
    Ok(true)
}

/// Asks the store outside whether it is there, and for values that are missing.
async fn ask_outside(app: &App) {
    confirm(app).await;
    for (ring, name) in token_rings(app) {
        fetch_missing(app, ring, name, &TOKEN_KEY).await;
    }
    fetch_missing(app, &app.keys.sealing, RingName::Sealing, &SEALING_KEY).await;
}

/// Fetches the values of a ring's versions that are not at hand.
async fn fetch_missing<K>(app: &App, ring: &Ring<K>, name: RingName, text_of: &TextOf<K>) {
    for link in ring.links().iter().filter(|link| link.key.is_none()) {
        if is_external(&link.version)
            && let Some(key) = fetch(app, name, &link.version, text_of).await
        {
            // The rows may say something else by now.
            ring.take(&link.version, &Arc::new(key));
        }
    }
}

fn is_external(version: &Version) -> bool {
    version.place != FILE && version.place != EMBEDDED
}

/// How a key is read from its text, and what the log calls it.
struct TextOf<K> {
    parse: fn(&SecretText) -> Result<K, String>,
    id: fn(&K) -> String,
}

/// The rows of a ring as they were read last.
#[derive(Debug, Clone)]
pub(super) struct Known {
    rows: Vec<Version>,
    /// The newest entries of then.
    newest: Vec<Newest>,
    said: vouched::Said,
    /// The version of the root document of then: with another one, other keys may seal the log.
    root_version: u64,
    /// Whether what is wrong with them was told.
    is_told: bool,
    /// When the entries were read, by the clock that nobody sets.
    read_at: Duration,
}

impl Known {
    /// Whether the log was read to its end not long ago, as far as these rows and entries are concerned.
    fn is_current(&self, rows: &[Version], newest: &[Newest]) -> bool {
        let is_new = clock::uptime() < self.read_at + ENTRIES_READ_EVERY;
        is_new && self.is_same(rows, newest) && !newest.contains(&Newest::Foreign)
    }

    fn is_same(&self, rows: &[Version], newest: &[Newest]) -> bool {
        self.rows == rows && self.newest == newest
    }
}

/// The versions of a ring, as far as the log vouches for them; none can be told where the log says less than this node saw before.
/// Entries are read again when a row changed or there is a newer entry, and after a while; what was read once stays known.
async fn judged(app: &App, keys: &Arc<TenantKeys>, name: RingName) -> Result<Option<Vec<Version>>, Problem> {
    let (tenant, reader) = (keys.tenant, Arc::clone(keys));
    let before = app.keys.judged.lock().get(&name).cloned();
    let compared = before.clone();
    let (rows, newest, mut said, read_at) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let rows = store::versions(tx, tenant, name.as_str())?;
            let newest = vouched::newest(tx, &reader, name)?;
            let (said, read_at) = match compared {
                Some(known) if known.is_current(&rows, &newest) => (known.said, known.read_at),
                _ => (vouched::Said::read(tx, &reader, name)?, clock::uptime()),
            };
            Ok::<_, Problem>((rows, newest, said, read_at))
        })
        .await?;
    let root_version = keys.root.version;
    let was_hidden = before.as_ref().is_some_and(|known| {
        let is_hidden = said.remember(known.said.clone());
        is_hidden && known.root_version == root_version
    });
    let mut judged = said.judge(&rows, app.clock.now());
    if was_hidden {
        judged.edited.push(
            "entries of the log about this key are gone, or say that they are about something else"
                .to_owned(),
        );
    }
    // Another reader may be ahead of this one: what it kept on the disk is in memory too, and nothing comes between.
    let is_below = {
        let mut rings = app.keys.judged.lock();
        let mut known = said;
        if let Some(newer) = rings.get(&name) {
            known.remember(newer.said.clone());
        }
        let is_below = match app.keys.is_below_floor(keys, name, &known) {
            Ok(is_below) => is_below,
            Err(error) => {
                tracing::error!(%error, secret = name.as_str(), "what this node saw of a key cannot be kept");
                false
            }
        };
        let known = Known {
            rows: rows.clone(),
            newest: newest.clone(),
            said: known,
            root_version,
            is_told: false,
            read_at,
        };
        rings.insert(name, known);
        is_below
    };
    if is_below {
        judged.edited.push(
            "the log says less of this key than this node saw, and no version is used: restore the database, \
             or start with --begin-halted where this is a backup that people took into use"
                .to_owned(),
        );
    }
    // A row that nobody sealed is no reason to tell of the same again.
    let was_told = before.is_some_and(|known| known.is_same(&rows, &newest) && known.is_told);
    let mut is_told = was_told && !was_hidden;
    if !is_told {
        is_told = true;
        for why in &judged.edited {
            let object = ("secret", name.as_str().to_owned());
            if let Err(problem) = audit::row_edited(app, tenant, object, why).await {
                tracing::error!(%problem, "an alarm about a row is not in the log");
                is_told = false;
            }
        }
    }
    if let Some(known) = app.keys.judged.lock().get_mut(&name)
        && known.is_same(&rows, &newest)
    {
        known.is_told = is_told;
    }
    Ok((!is_below).then_some(judged.versions))
}

/// Asks the external store whether it is there, where that was not asked for a while.
async fn confirm(app: &App) {
    let Some(external) = app.stores.external.get() else {
        return;
    };
    let is_due = {
        let mut state = app.stores.state.lock();
        let is_due = clock::uptime() >= state.asked_at + CONFIRMED_EVERY.min(app.stores.cache / 4)
            || state.error.is_some();
        let is_due = is_due && state.rest_until <= clock::uptime();
        if is_due {
            state.asked_at = clock::uptime();
        }
        is_due
    };
    if is_due {
        // A store may answer that it is well and refuse us all the same, so something of ours is asked for.
        let asked = match in_time(external.health()).await {
            Ok(()) => in_time(external.newest(RingName::AccessTokens.as_str()))
                .await
                .map(drop),
            Err(error) => Err(error),
        };
        app.stores.heard(&asked, app.clock.now());
    }
}

async fn fill<K>(app: &App, ring: &Ring<K>, name: RingName, rows: Option<Vec<Version>>, text_of: &TextOf<K>) {
    // Which key of the folder was ended is hidden: none is used.
    let Some(rows) = rows else {
        ring.set(Vec::new());
        return;
    };
    // Before there are rows the ring is what the key folder holds.
    if rows.is_empty() {
        return;
    }
    let (known, now) = (ring.links(), app.clock.now());
    let mut links = Vec::with_capacity(rows.len());
    for version in rows {
        // What a retired version signed is refused, and its value may be gone.
        if !version.is_accepted(now) {
            continue;
        }
        let held = known
            .iter()
            .find(|link| is_same_value(&link.version, &version))
            .and_then(|link| link.key.clone());
        let key = match held {
            Some(_) if is_external(&version) && !app.stores.is_fresh(now) => None,
            Some(key) => Some(key),
            None if is_external(&version) => None,
            None => fetch(app, name, &version, text_of).await.map(Arc::new),
        };
        links.push(Link { version, key });
    }
    ring.set(links);
}

async fn fetch<K>(app: &App, name: RingName, version: &Version, text_of: &TextOf<K>) -> Option<K> {
    let fail = |why: String| {
        tracing::error!(
            secret = name.as_str(),
            version = version.number,
            why,
            "a key cannot be read"
        )
    };
    let text = if version.place == FILE {
        match app.keys.first_of(name) {
            Ok(text) => text,
            Err(error) => {
                fail(error.to_string());
                return None;
            }
        }
    } else {
        let Some(store) = app.stores.at(&version.place) else {
            fail(format!(
                "it is kept at {}, which the settings do not name",
                version.place
            ));
            return None;
        };
        if is_external(version) && !app.stores.may_ask() {
            return None;
        }
        let mut read = store.read(name.as_str(), &version.store_version);
        if is_external(version) {
            read = in_time(read).boxed();
        }
        let read = read.await;
        if is_external(version) {
            app.stores.heard(&read, app.clock.now());
        }
        match read {
            Ok(text) => text,
            Err(StoreError::Away { .. }) => return None,
            Err(error) => {
                fail(error.to_string());
                return None;
            }
        }
    };
    let key = (text_of.parse)(&text).map_err(fail).ok()?;
    if version
        .key_id
        .as_ref()
        .is_some_and(|id| *id != (text_of.id)(&key))
    {
        fail("its store gives another key than the one that the log records".to_owned());
        return None;
    }
    Some(key)
}

/// What a store answers, where it does so in time.
async fn in_time<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::away("it did not answer in time");
    timeout(ANSWER_TIME, asked).await.map_err(late)?
}

/// Whether two versions are one value.
pub(super) fn is_same_value(one: &Version, other: &Version) -> bool {
    (one.number, &one.place, &one.store_version, &one.key_id)
        == (other.number, &other.place, &other.store_version, &other.key_id)
}

impl Keyring {
    /// The first version of a ring, as the key folder holds it.
    fn first_of(&self, name: RingName) -> Result<SecretText, super::SecretsError> {
        if let (RingName::Sealing, Some(text)) = (name, &self.master_text) {
            return Ok(text.clone());
        }
        let path = match name {
            RingName::AccessTokens => self.folder.join("access-tokens.pem"),
            RingName::EnrollmentTokens => self.folder.join("enrollment-tokens.pem"),
            RingName::Sealing => match &self.authority.custody().sealing_key_file {
                Some(path) => path.clone(),
                None => self.folder.join("sealing.key"),
            },
        };
        let text = files::read(&path)?;
        let text = String::from_utf8(text).map_err(|_| super::SecretsError::Unreadable {
            path,
            why: "it is not text".to_owned(),
        })?;
        Ok(SecretText::new(text))
    }
}

/// Takes up the keys of the key folder as the first versions, where the database knows none. It changes nothing of them: they sign
/// as before.
pub async fn take_up(app: &App) -> Result<(), Problem> {
    let Some(tenant) = operator(app).await? else {
        return Ok(());
    };
    let now = app.clock.now();
    let publics = [
        Some(app.keys.access_tokens.current(now)),
        Some(app.keys.enrollment_tokens.current(now)),
        None,
    ];
    let mut rows = Vec::new();
    for (name, key) in RingName::ALL.into_iter().zip(publics) {
        let key = key.transpose().map_err(Problem::internal)?;
        let version = Version {
            number: 1,
            place: FILE.to_owned(),
            store_version: String::new(),
            public_key: key.map(|key| key.public().spki_der()),
            key_id: None,
            created_at: now,
            activates_at: now,
            retires_at: None,
        };
        rows.push((name, version));
    }
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        for (name, version) in &rows {
            if !store::versions(tx, tenant, name.as_str())?.is_empty() {
                continue;
            }
            store::insert_version(tx, tenant, name.as_str(), version)?;
            records::note_old(tx, tenant, &record_of(*name, version, FILE))?;
        }
        Ok(())
    })
    .await?;
    follow(app).await
}

/// The record of a version of a ring.
pub(super) fn record_of(name: RingName, version: &Version, place: &str) -> Record {
    let (kind, owner) = match name {
        RingName::AccessTokens => (
            Kind::SigningKey,
            "access tokens of people's and programs' clients",
        ),
        RingName::EnrollmentTokens => (Kind::SigningKey, "enrollment tokens of devices"),
        RingName::Sealing => (Kind::SealingKey, "secrets of other services in the database"),
    };
    let made = (kind, RotatedBy::Server);
    let mut record = Record::new(
        name.as_str().to_owned(),
        made,
        owner.to_owned(),
        place,
        version.created_at,
    );
    record.version = version.number;
    record
}

/// Why this node cannot sign tokens, where it cannot.
pub fn readiness(app: &App) -> Result<(), Problem> {
    let now = app.clock.now();
    let unavailable = |error: super::NoKey| crate::access::problem::UNAVAILABLE.detail(error.to_string());
    app.keys
        .access_tokens
        .current(now)
        .map(drop)
        .map_err(unavailable)?;
    app.keys
        .enrollment_tokens
        .current(now)
        .map(drop)
        .map_err(unavailable)
}

/// Follows at most once a second, for tokens that name a key which is not known here: another node may have made it just now.
pub async fn look_again(app: &App) -> bool {
    const AT_MOST_EVERY: Duration = Duration::from_secs(1);
    {
        let mut looked = app.keys.looked_at.lock();
        let now = clock::uptime();
        if *looked + AT_MOST_EVERY > now {
            return false;
        }
        *looked = now;
    }
    follow(app).await.is_ok()
}

/// Deletes versions that are long retired, and values that no version names any more.
pub async fn forget_retired(app: &App) -> Result<(), Problem> {
    let Some(tenant) = operator(app).await? else {
        return Ok(());
    };
    let now = app.clock.now();
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        for name in RingName::ALL.map(RingName::as_str) {
            let versions = store::versions(tx, tenant, name)?;
            let is_used = |number: i64| {
                let number = number.to_string();
                let named = |version: &&Version| version.place == EMBEDDED && version.store_version == number;
                // A little later than nodes with a clock behind ours.
                let until = now.minus(SETTLE * 4);
                // A number may come again, when every value before was forgotten.
                versions
                    .iter()
                    .filter(named)
                    .any(|version| version.is_accepted(until))
            };
            for value in store::values_of(tx, tenant, name, now.minus(STRAYS_KEPT))? {
                if !is_used(value) {
                    store::delete_value(tx, tenant, name, value)?;
                }
            }
            store::forget_versions(tx, tenant, name, now.minus(VERSIONS_KEPT))?;
        }
        store::forget_unseen(tx, tenant, now.minus(NODES_KEPT))?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use futures_util::future::{BoxFuture, pending};
    use muster_model::EntryId;
    use muster_storage::testing::on_both;

    use super::*;
    use crate::{
        MIGRATIONS, access::Author, policy::testing::Scene, reconcile, secrets::records_view,
        secrets::rotation,
    };

    /// A store that takes every request and answers none.
    #[derive(Debug)]
    struct Silent;

    impl SecretStore for Silent {
        fn place(&self) -> &str {
            "vault:silent"
        }

        fn read<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<SecretText, StoreError>> {
            pending().boxed()
        }

        fn newest<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
            pending().boxed()
        }

        fn write<'a>(
            &'a self,
            _: &'a str,
            _: &'a SecretText,
            _: Option<&'a str>,
        ) -> BoxFuture<'a, Result<String, StoreError>> {
            pending().boxed()
        }

        fn health(&self) -> BoxFuture<'_, Result<(), StoreError>> {
            pending().boxed()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_answers_nothing_keeps_no_revocation_from_a_node() {
        on_both(MIGRATIONS, async |db| {
            let scene = Scene::new(db.db().clone()).await;
            let (app, name) = (&scene.app, RingName::AccessTokens);
            take_up(app).await.expect("the first keys are taken up");
            let signer = || app.keys.access_tokens.current(app.clock.now()).expect("a key");
            let before = signer().key_id();
            scene.pass_seconds(31 * 86_400);
            let mut held = None;
            let lease = reconcile::hold(app, &mut held, rotation::ROTATION_LEASE).await;
            let lease = lease.expect("the database answers").expect("nobody else rotates");
            assert!(rotation::rotate_due(app, &lease).await.expect("it rotates"));
            scene.pass_seconds(20);
            assert_ne!(signer().key_id(), before);
            let is_accepted = || app.keys.access_tokens.public(&before, app.clock.now()).is_some();
            assert!(is_accepted());
            assert!(app.stores.take_external(Box::new(Silent)).is_ok());
            let author = Author::system(scene.tenant);
            let revoked = audit::commit(app, &author, move |tx| records_view::revoke(tx, name.as_str()));
            revoked.await.expect("it is revoked");
            for _ in 0..2 {
                let kept = timeout(Duration::from_secs(3), keep_up(app)).await;
                kept.expect("it waits for no store").expect("rows can be read");
            }
            assert!(!is_accepted());
            // Whoever needs a value waits for it, and not for ever.
            let followed = timeout(Duration::from_secs(20), follow(app)).await;
            followed.expect("it comes to its end").expect("rows can be read");
            let status = app.stores.status().expect("there is a store");
            assert_eq!(status.error.as_deref(), Some("it did not answer in time"));
        })
        .await;
    }

    #[test]
    fn what_the_log_says_is_read_again_when_there_is_a_newer_entry_or_a_row_that_hides_it() {
        let entry =
            |second: i64| Newest::Entry(EntryId::generate(Timestamp::from_unix_seconds(second), [0; 10]));
        let known = |newest: Vec<Newest>| Known {
            rows: Vec::new(),
            newest,
            said: vouched::Said::default(),
            root_version: 1,
            is_told: true,
            read_at: clock::uptime(),
        };
        let before = known(vec![entry(5), Newest::Nothing]);
        assert!(before.is_current(&[], &[entry(5), Newest::Nothing]));
        // No row of a version changes when the entry of a revocation is all there is.
        assert!(!before.is_current(&[], &[entry(5), entry(6)]));
        let hidden = [entry(5), Newest::Foreign];
        assert!(!known(hidden.to_vec()).is_current(&[], &hidden));
    }
}
