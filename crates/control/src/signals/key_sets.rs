//! The key sets of issuers, fetched when they are needed and kept for a while.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use muster_model::SignalSourceId;
use muster_ssf::KeySet;
use parking_lot::Mutex;

use crate::clock;

/// How long a key set is used without asking again.
const FRESH: Duration = Duration::from_secs(600);
/// How long it is used when nobody answers.
const KEPT: Duration = Duration::from_secs(86_400);
/// How often an issuer is asked again, whatever tokens say.
const ASKED_EVERY: Duration = Duration::from_secs(30);
/// Sources of which a set is kept; with more, all are fetched anew.
const SETS_MAX: usize = 1000;

/// Fetches key sets: an address of a tenant's choice, so that it goes out where everything goes out.
pub trait KeyFetcher: std::fmt::Debug + Send + Sync {
    /// The body of an answer of 200, at most [`muster_ssf::JWKS_BYTES_MAX`]. Errors name no address.
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, String>>;
}

/// Why there are no keys now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKeys {
    /// They are being fetched: come again in a moment.
    Busy,
    /// They cannot be fetched, for this reason.
    Failed(String),
}

/// What this node knows of issuers' keys; all of it can be lost.
#[derive(Debug, Default)]
pub struct KeySets {
    /// Set by the composition root, before the listeners open.
    pub fetcher: OnceLock<Box<dyn KeyFetcher>>,
    known: Mutex<HashMap<SignalSourceId, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    url: String,
    set: Option<(Arc<KeySet>, Duration)>,
    asked_at: Duration,
    error: Option<String>,
}

impl KeySets {
    /// The keys at an address. With `is_doubted`, they are fetched again if that was not just done: a token names a key that
    /// is not among them.
    pub async fn at(
        &self,
        source: SignalSourceId,
        url: &str,
        is_doubted: bool,
    ) -> Result<Arc<KeySet>, NoKeys> {
        let now = clock::uptime();
        let known = self
            .known
            .lock()
            .get(&source)
            .filter(|known| known.url == url)
            .cloned();
        if let Some(known) = &known {
            let age = known.set.as_ref().map(|(_, at)| now.saturating_sub(*at));
            let is_fresh = age.is_some_and(|age| age < FRESH) && !is_doubted;
            let was_just_asked = now.saturating_sub(known.asked_at) < ASKED_EVERY;
            if is_fresh || was_just_asked {
                return match &known.set {
                    Some((set, at)) if now.saturating_sub(*at) < KEPT => Ok(Arc::clone(set)),
                    _ => Err(known.error.clone().map_or(NoKeys::Busy, NoKeys::Failed)),
                };
            }
        }
        let kept = known.and_then(|known| known.set);
        // Whoever comes meanwhile takes what is kept.
        self.keep(source, url, kept.clone(), now, None);
        match self.fetch(url).await {
            Ok(set) => {
                let set = Arc::new(set);
                self.keep(source, url, Some((Arc::clone(&set), now)), now, None);
                Ok(set)
            }
            Err(error) => {
                self.keep(source, url, kept.clone(), now, Some(error.clone()));
                match kept {
                    Some((set, at)) if now.saturating_sub(at) < KEPT => Ok(set),
                    _ => Err(NoKeys::Failed(error)),
                }
            }
        }
    }

    async fn fetch(&self, url: &str) -> Result<KeySet, String> {
        let fetcher = self.fetcher.get();
        let fetcher = fetcher.ok_or_else(|| "this process fetches nothing".to_owned())?;
        let text = fetcher.fetch(url).await?;
        KeySet::parse(&text).map_err(|error| error.to_string())
    }

    fn keep(
        &self,
        source: SignalSourceId,
        url: &str,
        set: Option<(Arc<KeySet>, Duration)>,
        asked_at: Duration,
        error: Option<String>,
    ) {
        let mut known = self.known.lock();
        if known.len() >= SETS_MAX && !known.contains_key(&source) {
            known.clear();
        }
        let url = url.to_owned();
        known.insert(
            source,
            Known {
                url,
                set,
                asked_at,
                error,
            },
        );
    }

    /// Forgets the keys of a source: somebody changed it.
    pub fn forget(&self, source: SignalSourceId) {
        self.known.lock().remove(&source);
    }
}
