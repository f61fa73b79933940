//! The writer thread: many jobs in one transaction, each in its own savepoint, one fsync for all of them.
//!
//! A job that fails or panics is rolled back alone. Nobody hears of success before the commit succeeded.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::connection::Connection;
use crate::{
    error::StorageError,
    tx::{self, Scope, Tx, TxState},
};

/// The most jobs that share a commit.
const BATCH_JOBS_MAX: usize = 256;
/// No job joins a batch that has run this long, so that one commit does not keep its first job waiting.
const BATCH_AGE_MAX: Duration = Duration::from_millis(25);

pub(super) enum Message {
    Job(Box<dyn Job>),
    Stop,
}

/// A write with its types erased.
pub(super) trait Job: Send {
    /// Whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool;
    /// Runs the closure; whether its changes are to be kept.
    fn run(&mut self, tx: &mut Tx) -> bool;
    /// Answers: with the closure's own error if it failed, else by how the commit went.
    fn answer(self: Box<Self>, committed: Result<(), StorageError>);
}

struct JobOf<T, E, F> {
    scope: Scope,
    closure: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

pub(super) fn job<T, E, F>(scope: Scope, closure: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T, E>>)
where
    T: Send + 'static,
    E: From<StorageError> + Send + 'static,
    F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (
        Box::new(JobOf {
            scope,
            closure,
            outcome: None,
            reply,
        }),
        answer,
    )
}

impl<T, E, F> Job for JobOf<T, E, F>
where
    T: Send,
    E: From<StorageError> + Send,
    F: FnMut(&mut Tx) -> Result<T, E> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, tx: &mut Tx) -> bool {
        tx.state = TxState::new(self.scope);
        let outcome = match catch_unwind(AssertUnwindSafe(|| (self.closure)(tx))) {
            Ok(Ok(_)) if tx.state.failure.is_some() => Err(StorageError::Aborted.into()),
            Ok(outcome) => outcome,
            Err(panic) => Err(StorageError::panicked(&*panic).into()),
        };
        self.outcome.insert(outcome).is_ok()
    }

    fn answer(self: Box<Self>, committed: Result<(), StorageError>) {
        let answer = match self.outcome {
            Some(Err(error)) => Err(error),
            Some(Ok(value)) => committed.map(|()| value).map_err(E::from),
            None => Err(committed.err().unwrap_or(StorageError::Aborted).into()),
        };
        // An error means that the caller has gone meanwhile.
        let _ = self.reply.send(answer);
    }
}

/// Runs jobs until the queue ends or says stop.
pub(super) fn run(connection: Connection, mut queue: mpsc::Receiver<Message>) {
    let mut tx = Tx {
        connection: tx::Connection::Sqlite(connection),
        state: TxState::new(Scope::System),
    };
    while let Some(Message::Job(first)) = queue.blocking_recv() {
        if !run_batch(&mut tx, first, &mut queue) {
            return;
        }
    }
}

/// Runs `first` and what else waits; `false` when the queue said stop.
fn run_batch(tx: &mut Tx, first: Box<dyn Job>, queue: &mut mpsc::Receiver<Message>) -> bool {
    tx.state = TxState::new(Scope::System);
    if let Err(error) = tx.control("BEGIN IMMEDIATE") {
        first.answer(Err(error));
        return true;
    }
    let started = Instant::now();
    let mut done = Vec::new();
    let mut next = Some(first);
    let (mut batch, mut goes_on) = (Ok(()), true);
    while let Some(mut job) = next.take() {
        if job.is_wanted() {
            batch = run_one(tx, &mut *job);
            done.push(job);
        }
        if batch.is_err() || done.len() >= BATCH_JOBS_MAX || started.elapsed() >= BATCH_AGE_MAX {
            break;
        }
        next = match queue.try_recv() {
            Ok(Message::Job(job)) => Some(job),
            Ok(Message::Stop) => {
                goes_on = false;
                None
            }
            Err(_) => None,
        };
    }
    let committed = batch.and_then(|()| tx.control("COMMIT"));
    if let Err(error) = &committed {
        tracing::error!(%error, jobs = done.len(), "a commit failed");
        if in_transaction(tx) {
            // It fails only if the transaction is gone already.
            let _ = tx.control("ROLLBACK");
        }
    }
    for job in done {
        job.answer(committed.clone());
    }
    goes_on
}

/// Runs one job in a savepoint. An error is one that the whole batch shares: the engine gave up the transaction.
fn run_one(tx: &mut Tx, job: &mut dyn Job) -> Result<(), StorageError> {
    tx.control("SAVEPOINT job")?;
    let keep = job.run(tx);
    let failure = tx.state.failure.take();
    if !in_transaction(tx) {
        return Err(failure.unwrap_or(StorageError::Aborted));
    }
    if !keep {
        tx.control("ROLLBACK TO SAVEPOINT job")?;
    }
    tx.control("RELEASE SAVEPOINT job")
}

fn in_transaction(tx: &Tx) -> bool {
    match &tx.connection {
        tx::Connection::Sqlite(connection) => connection.in_transaction(),
        tx::Connection::Postgres(_) => false,
    }
}
