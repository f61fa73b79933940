//! The embedded engine: one writer thread with group commit, and reader threads that share a queue.
//!
//! Durability: WAL with `synchronous=FULL`, so an acknowledged commit survives a crash of the process and of the machine.
//! A lock file keeps a second process away, whose writes would otherwise fail at random with "database is locked".

mod connection;
mod open;
mod writer;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::connection::{Connection, column};
use crate::{
    error::StorageError,
    migration::Migration,
    tx::{Scope, Tx, TxState},
};

/// How many reads may wait for a reader thread; more wait before they are queued.
const READ_QUEUE_JOBS_MAX: usize = 4096;
/// How many writes may wait for the writer thread; more wait before they are queued.
const WRITE_QUEUE_JOBS_MAX: usize = 4096;

/// The threads of one SQLite database.
pub(crate) struct Sqlite {
    writer: mpsc::Sender<writer::Message>,
    readers: mpsc::Sender<ReadMessage>,
    reader_threads: usize,
    /// Every thread holds a sender and sends nothing: the channel ends when the last thread has ended.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

enum ReadMessage {
    Job(Box<dyn FnOnce(&mut Tx) + Send>),
    Stop,
}

impl Sqlite {
    pub async fn open(
        path: PathBuf,
        migrations: &'static [Migration],
        reader_threads: usize,
    ) -> Result<Self, StorageError> {
        let opened = tokio::task::spawn_blocking(move || open::open(&path, migrations, reader_threads));
        let opened = opened
            .await
            .map_err(|error| StorageError::Panicked(error.to_string()))??;
        Self::start(opened)
    }

    pub async fn open_read_only(
        path: PathBuf,
        migrations: &'static [Migration],
    ) -> Result<Self, StorageError> {
        let opened = tokio::task::spawn_blocking(move || open::open_read_only(&path, migrations));
        let opened = opened
            .await
            .map_err(|error| StorageError::Panicked(error.to_string()))??;
        Self::start(opened)
    }

    fn start(opened: open::Opened) -> Result<Self, StorageError> {
        let reader_threads = opened.readers.len();
        let lock = Arc::new(opened.lock);
        let (alive, ended) = mpsc::channel(1);
        let (readers, read_queue) = mpsc::channel(READ_QUEUE_JOBS_MAX);
        let read_queue = Arc::new(Mutex::new(read_queue));
        for (number, connection) in opened.readers.into_iter().enumerate() {
            let (queue, held) = (Arc::clone(&read_queue), (Arc::clone(&lock), alive.clone()));
            start(format!("sqlite-read-{number}"), move || {
                run_reader(connection, &queue);
                drop(held);
            })?;
        }
        let (writer, write_queue) = mpsc::channel(WRITE_QUEUE_JOBS_MAX);
        start("sqlite-write".to_owned(), move || {
            writer::run(opened.writer, write_queue);
            drop((lock, alive));
        })?;
        Ok(Self {
            writer,
            readers,
            reader_threads,
            ended: tokio::sync::Mutex::new(ended),
        })
    }

    pub async fn read<T, E, F>(&self, scope: Scope, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnOnce(&mut Tx) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |tx: &mut Tx| {
            if !reply.is_closed() {
                // An error means that the caller has gone meanwhile.
                let _ = reply.send(run_read(tx, scope, job));
            }
        });
        self.readers
            .send(ReadMessage::Job(job))
            .await
            .map_err(|_| StorageError::Closed)?;
        answer.await.map_err(|_| StorageError::Closed)?
    }

    pub async fn write<T, E, F>(&self, scope: Scope, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
    {
        let (job, answer) = writer::job(scope, job);
        self.writer
            .send(writer::Message::Job(job))
            .await
            .map_err(|_| StorageError::Closed)?;
        answer.await.map_err(|_| StorageError::Closed)?
    }

    pub async fn close(&self) {
        // Errors mean that the threads have ended already.
        let _ = self.writer.send(writer::Message::Stop).await;
        for _ in 0..self.reader_threads {
            let _ = self.readers.send(ReadMessage::Stop).await;
        }
        while self.ended.lock().await.recv().await.is_some() {}
    }
}

fn start(name: String, body: impl FnOnce() + Send + 'static) -> Result<(), StorageError> {
    let started = thread::Builder::new().name(name.clone()).spawn(body);
    started
        .map(drop)
        .map_err(|error| StorageError::io("starting thread", name.as_ref(), error))
}

fn run_reader(connection: Connection, queue: &Mutex<mpsc::Receiver<ReadMessage>>) {
    let mut tx = Tx {
        connection: crate::tx::Connection::Sqlite(connection),
        state: TxState::new(Scope::System),
    };
    loop {
        let message = queue.lock().blocking_recv();
        match message {
            Some(ReadMessage::Job(job)) => job(&mut tx),
            Some(ReadMessage::Stop) | None => return,
        }
    }
}

fn run_read<T, E: From<StorageError>>(
    tx: &mut Tx,
    scope: Scope,
    job: impl FnOnce(&mut Tx) -> Result<T, E>,
) -> Result<T, E> {
    tx.state = TxState::new(scope);
    tx.control("BEGIN")?;
    let outcome = catch_unwind(AssertUnwindSafe(|| job(tx)));
    let failure = tx.state.failure.take();
    // A read has nothing to keep, and the engine may have ended the transaction itself after a failure.
    let ended = tx.control("ROLLBACK");
    match (outcome, failure) {
        (Err(panic), _) => Err(StorageError::panicked(&*panic).into()),
        (Ok(Ok(_)), Some(_)) => Err(StorageError::Aborted.into()),
        (Ok(Ok(_)), None) if ended.is_err() => Err(StorageError::Aborted.into()),
        (Ok(outcome), _) => outcome,
    }
}
