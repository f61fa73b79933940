//! Wake-ups: "come and look", within a process and, on PostgreSQL, between nodes.
//!
//! A wake-up is a hint and may be lost: whoever waits for one also polls. None is sent inside a transaction, because
//! NOTIFY in a transaction takes a lock that the whole database shares.

use std::{collections::HashSet, mem};

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

/// The longest topic; a longer one is a programming error and is dropped with a log line.
pub const WAKEUP_TOPIC_BYTES_MAX: usize = 64;
/// The longest payload; a longer one is replaced by the empty payload, which means "look at everything".
pub const WAKEUP_PAYLOAD_BYTES_MAX: usize = 256;
/// How many wake-ups a slow subscriber may fall behind before it misses some.
const SUBSCRIBER_BACKLOG_MAX: usize = 1024;
/// How many different wake-ups wait to be sent to other nodes; beyond, only their topics are kept.
const PENDING_MAX: usize = 4096;

/// "Come and look": what about, and optionally at which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wakeup {
    /// What about.
    pub topic: String,
    /// Which object; empty for all of them.
    pub payload: String,
}

/// Where wake-ups of this process meet: subscribers here, and what waits to go to other nodes.
pub(crate) struct Hub {
    subscribers: broadcast::Sender<Wakeup>,
    pending: Mutex<HashSet<Wakeup>>,
    pub waiting: Notify,
    between_nodes: bool,
}

impl Hub {
    pub fn new(between_nodes: bool) -> Self {
        let (subscribers, _) = broadcast::channel(SUBSCRIBER_BACKLOG_MAX);
        Self {
            subscribers,
            pending: Mutex::default(),
            waiting: Notify::new(),
            between_nodes,
        }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Wakeup> {
        self.subscribers.subscribe()
    }

    /// Wakes subscribers here at once and queues the wake-up for the other nodes.
    pub fn notify(&self, topic: &str, payload: &str) {
        if topic.is_empty() || topic.len() > WAKEUP_TOPIC_BYTES_MAX {
            tracing::error!(
                bytes = topic.len(),
                "a wake-up's topic must have 1 to 64 bytes; it was dropped"
            );
            return;
        }
        let payload = if payload.len() > WAKEUP_PAYLOAD_BYTES_MAX {
            ""
        } else {
            payload
        };
        let wakeup = Wakeup {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
        };
        if self.between_nodes {
            self.queue(wakeup.clone());
            self.waiting.notify_one();
        }
        self.deliver(wakeup);
    }

    /// Wakes subscribers here.
    pub fn deliver(&self, wakeup: Wakeup) {
        // An error means that nobody listens, which is fine.
        let _ = self.subscribers.send(wakeup);
    }

    /// Takes what waits to be sent.
    pub fn take_pending(&self) -> HashSet<Wakeup> {
        mem::take(&mut *self.pending.lock())
    }

    /// Queues a wake-up for other nodes; equal ones are sent once.
    pub fn queue(&self, wakeup: Wakeup) {
        let mut pending = self.pending.lock();
        if pending.len() < PENDING_MAX {
            pending.insert(wakeup);
        } else if pending.len() < 2 * PENDING_MAX {
            pending.insert(Wakeup {
                payload: String::new(),
                ..wakeup
            });
        }
    }
}
