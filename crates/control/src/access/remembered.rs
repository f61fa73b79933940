//! What others publish, remembered for a while: keys of issuers, and what identity providers say of themselves.
//!
//! Whoever sends tokens that name unknown keys, or begins sign-ins at a provider that does not answer, makes this server ask twice a
//! minute and no more. One question runs at a time: who comes meanwhile takes what is kept, or waits for the same answer.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muster_model::Timestamp;
use tokio::sync::Mutex as Turn;

/// How long what was fetched is used without asking again.
pub const FRESH: Duration = Duration::from_secs(3600);
/// How long it is used where nobody answers.
const STALE_MAX: Duration = Duration::from_secs(86_400);
/// How long after one question the next is asked at the earliest, whatever tokens say.
pub const AGAIN: Duration = Duration::from_secs(30);
/// What is remembered of a kind.
const REMEMBERED_MAX: usize = 1_000;

/// What this process remembers, by its names. All of it can be lost.
#[derive(Debug)]
pub struct Remembered<K, T>(Arc<Mutex<HashMap<K, Known<T>>>>);

#[derive(Debug)]
struct Known<T> {
    value: Option<(Arc<T>, Timestamp)>,
    asked_at: Option<Timestamp>,
    error: Option<String>,
    /// Held by the question that runs.
    turn: Arc<Turn<()>>,
}

enum Look<T> {
    Known(Result<Arc<T>, String>),
    Ask {
        stale: Option<Arc<T>>,
        turn: Arc<Turn<()>>,
    },
}

impl<K, T> Default for Remembered<K, T> {
    fn default() -> Self {
        Remembered(Arc::default())
    }
}

impl<K, T> Clone for Remembered<K, T> {
    fn clone(&self) -> Self {
        Remembered(Arc::clone(&self.0))
    }
}

impl<K, T> Remembered<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Send + Sync + 'static,
{
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Known<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, key: &K, age_max: Duration, now: Timestamp) -> Look<T> {
        let mut all = self.lock();
        if all.len() >= REMEMBERED_MAX && !all.contains_key(key) {
            all.clear();
        }
        let known = all.entry(key.clone()).or_insert_with(|| Known {
            value: None,
            asked_at: None,
            error: None,
            turn: Arc::default(),
        });
        let kept = |age_max: Duration| {
            let (value, at) = known.value.as_ref()?;
            (now.since(*at) < age_max).then(|| Arc::clone(value))
        };
        if let Some(fresh) = kept(age_max) {
            return Look::Known(Ok(fresh));
        }
        let stale = kept(STALE_MAX);
        if known.asked_at.is_some_and(|at| now.since(at) < AGAIN) {
            match (&stale, &known.error) {
                (Some(stale), _) => return Look::Known(Ok(Arc::clone(stale))),
                (None, Some(error)) => return Look::Known(Err(error.clone())),
                (None, None) => {}
            }
        }
        let turn = Arc::clone(&known.turn);
        Look::Ask { stale, turn }
    }

    fn note(&self, key: &K, change: impl FnOnce(&mut Known<T>)) {
        if let Some(known) = self.lock().get_mut(key) {
            change(known);
        }
    }

    /// What is not older than `age_max`, where it can be had.
    pub async fn get<F>(
        &self,
        key: K,
        (age_max, now): (Duration, Timestamp),
        fetch: impl FnOnce() -> F,
    ) -> Result<Arc<T>, String>
    where
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let (stale, turn) = match self.look(&key, age_max, now) {
            Look::Known(answer) => return answer,
            Look::Ask { stale, turn } => (stale, turn),
        };
        let turn = match &stale {
            Some(stale) => match turn.try_lock_owned() {
                Ok(turn) => turn,
                Err(_) => return Ok(Arc::clone(stale)),
            },
            None => turn.lock_owned().await,
        };
        // Whoever had the turn before asked for this one as well.
        if let Look::Known(answer) = self.look(&key, age_max, now) {
            return answer;
        }
        self.note(&key, |known| {
            known.asked_at = Some(now);
            known.error = None;
        });
        let (all, asked) = (self.clone(), fetch());
        // It is asked to its end: whoever goes away again and again does not make it ask again and again.
        let asking = tokio::spawn(async move {
            let answer = asked.await.map(Arc::new);
            all.note(&key, |known| match &answer {
                Ok(value) => known.value = Some((Arc::clone(value), now)),
                Err(error) => known.error = Some(error.clone()),
            });
            drop(turn);
            answer
        });
        match asking.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => stale.ok_or(error),
            Err(_) => stale.ok_or_else(|| "the question was broken off".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    struct Asked(Arc<AtomicUsize>);

    impl Asked {
        fn times(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }

        /// A question that is answered so, after the others had their turn.
        fn with(
            &self,
            answer: Result<u32, &'static str>,
        ) -> impl FnOnce() -> futures_util::future::BoxFuture<'static, Result<u32, String>> + use<> {
            let asked = Arc::clone(&self.0);
            move || {
                Box::pin(async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    answer.map_err(str::to_owned)
                })
            }
        }
    }

    #[tokio::test]
    async fn who_comes_while_it_is_asked_waits_for_the_same_answer() {
        let (all, asked) = (Remembered::<&str, u32>::default(), Asked(Arc::default()));
        let come = || all.get("idp", (FRESH, at(0)), asked.with(Ok(1)));
        let (one, two, three) = tokio::join!(come(), come(), come());
        for answer in [one, two, three] {
            assert_eq!(answer.as_deref(), Ok(&1));
        }
        assert_eq!(asked.times(), 1);
    }

    #[tokio::test]
    async fn a_provider_that_does_not_answer_is_asked_twice_a_minute_and_no_more() {
        let (all, asked) = (Remembered::<&str, u32>::default(), Asked(Arc::default()));
        for second in 0..30 {
            let answer = all.get("idp", (FRESH, at(second)), asked.with(Err("away"))).await;
            assert_eq!(answer.as_deref(), Err(&"away".to_owned()));
        }
        assert_eq!(asked.times(), 1, "the failure is remembered");
        let answer = all.get("idp", (FRESH, at(30)), asked.with(Ok(1))).await;
        assert_eq!((answer.as_deref(), asked.times()), (Ok(&1), 2));
        // What is kept is used without waiting, and asked for again now and then.
        for second in 0..60 {
            let late = at(30 + 3600 + second);
            let answer = all.get("idp", (FRESH, late), asked.with(Err("away"))).await;
            assert_eq!(answer.as_deref(), Ok(&1), "{second}");
        }
        assert_eq!(asked.times(), 4);
        let answer = all.get("idp", (FRESH, at(90_000)), asked.with(Err("away"))).await;
        assert_eq!(answer.as_deref(), Err(&"away".to_owned()), "not for ever");
    }

    #[tokio::test]
    async fn who_goes_away_breaks_off_no_question() {
        let (all, asked) = (Remembered::<&str, u32>::default(), Asked(Arc::default()));
        for _ in 0..5 {
            let mut come = Box::pin(all.get("idp", (FRESH, at(0)), asked.with(Ok(1))));
            let gone = futures_util::poll!(&mut come);
            drop((gone, come));
        }
        let answer = all.get("idp", (FRESH, at(0)), asked.with(Ok(1))).await;
        assert_eq!((answer.as_deref(), asked.times()), (Ok(&1), 1));
    }
}
