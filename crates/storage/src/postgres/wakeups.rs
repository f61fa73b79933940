//! LISTEN and NOTIFY on one connection of its own, outside every transaction.
//!
//! What waits is gathered for a moment and sent as few messages; one that this node sent itself is ignored when it comes
//! back. When the connection is lost, it is made again; what was sent meanwhile by others is lost, as wake-ups may be.

use std::{collections::HashSet, future::poll_fn, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Connection, Error, Socket, tls::TlsStream};
use uuid::Uuid;

use super::connector::{Connector, Driver};
use crate::wakeup::{Hub, WAKEUP_PAYLOAD_BYTES_MAX, WAKEUP_TOPIC_BYTES_MAX, Wakeup};

const CHANNEL: &str = "muster_wakeup";
/// How long wake-ups are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(10);
/// PostgreSQL's limit is 8000 bytes.
const MESSAGE_BYTES_MAX: usize = 7900;
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
const RECEIVED_BACKLOG_MAX: usize = 256;

/// Runs until its task is aborted.
pub(super) async fn run(connector: Connector, hub: Arc<Hub>) {
    let node = Uuid::new_v4().simple().to_string();
    let mut wait = RECONNECT_WAIT_MIN;
    loop {
        let served = connect_and_serve(&connector, &hub, &node, &mut wait);
        let ended = match connector.passwords() {
            None => served.await,
            // It is made anew like those of the pool, with what the file of passwords says then.
            Some(passwords) => match tokio::time::timeout(passwords.age(), served).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Ok(()) => tracing::info!("the wake-up connection was closed"),
            Err(error) => tracing::warn!(%error, "the wake-up connection failed"),
        }
        let jitter = u32::from(Uuid::new_v4().as_bytes()[0]);
        tokio::time::sleep(wait * jitter / 255).await;
        wait = (wait * 2).min(RECONNECT_WAIT_MAX);
    }
}

async fn connect_and_serve(
    connector: &Connector,
    hub: &Hub,
    node: &str,
    wait: &mut Duration,
) -> Result<(), Error> {
    let (client, driver) = connector.open().await?;
    let (sender, received) = mpsc::channel(RECEIVED_BACKLOG_MAX);
    let drive = async {
        match driver {
            Driver::Plain(wire) => drive(*wire, sender).await,
            Driver::Tls(wire) => drive(*wire, sender).await,
        }
    };
    let work = async {
        client
            .batch_execute(&format!("{}; LISTEN {CHANNEL}", connector.session()))
            .await?;
        *wait = RECONNECT_WAIT_MIN;
        serve(&client, hub, node, received).await
    };
    tokio::select! {
        ended = drive => ended,
        ended = work => ended,
    }
}

/// Sends what waits and delivers what comes.
async fn serve(
    client: &Client,
    hub: &Hub,
    node: &str,
    mut received: mpsc::Receiver<String>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            () = hub.waiting.notified() => {
                tokio::time::sleep(GATHER).await;
                let pending = hub.take_pending();
                for message in pack(node, &pending) {
                    if let Err(error) = client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &message]).await {
                        pending.into_iter().for_each(|wakeup| hub.queue(wakeup));
                        hub.waiting.notify_one();
                        return Err(error);
                    }
                }
            }
            message = received.recv() => match message {
                Some(message) => unpack(node, &message).into_iter().for_each(|wakeup| hub.deliver(wakeup)),
                None => return Ok(()),
            },
        }
    }
}

/// Does the connection's input and output and hands on the notifications.
async fn drive<S>(mut wire: Connection<Socket, S>, sender: mpsc::Sender<String>) -> Result<(), Error>
where
    S: TlsStream + Unpin,
{
    loop {
        match poll_fn(|context| wire.poll_message(context)).await {
            // When the backlog is full the notification is dropped, as wake-ups may be.
            Some(Ok(AsyncMessage::Notification(message))) => {
                drop(sender.try_send(message.payload().to_owned()))
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

/// Messages of `node:` and then, for each wake-up, `<bytes>:<topic><bytes>:<payload>`.
fn pack(node: &str, wakeups: &HashSet<Wakeup>) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for Wakeup { topic, payload } in wakeups {
        let item = format!("{}:{topic}{}:{payload}", topic.len(), payload.len());
        match messages.last_mut() {
            Some(message) if message.len() + item.len() <= MESSAGE_BYTES_MAX => message.push_str(&item),
            _ => messages.push(format!("{node}:{item}")),
        }
    }
    messages
}

/// The wake-ups of a message of another node. Whoever may connect to the database may send anything: what does not parse
/// ends the message.
fn unpack(node: &str, message: &str) -> Vec<Wakeup> {
    let Some((sender, mut rest)) = message.split_once(':') else {
        return Vec::new();
    };
    let mut wakeups = Vec::new();
    if sender == node {
        return wakeups;
    }
    while let Some((topic, after_topic)) = piece(rest, WAKEUP_TOPIC_BYTES_MAX)
        && let Some((payload, after)) = piece(after_topic, WAKEUP_PAYLOAD_BYTES_MAX)
    {
        wakeups.push(Wakeup {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
        });
        rest = after;
    }
    wakeups
}

fn piece(text: &str, bytes_max: usize) -> Option<(&str, &str)> {
    let (length, rest) = text.split_once(':')?;
    let length: usize = length.parse().ok()?;
    if length > bytes_max {
        None
    } else {
        rest.split_at_checked(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wakeup(topic: &str, payload: &str) -> Wakeup {
        Wakeup {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
        }
    }

    #[test]
    fn packed_wakeups_come_out_on_other_nodes_only() {
        let wakeups = HashSet::from([
            wakeup("log", ""),
            wakeup("device", "a:7:ü\n"),
            wakeup("1:x", "2:y"),
        ]);
        let messages = pack("me", &wakeups);
        assert_eq!(messages.len(), 1);
        assert_eq!(
            unpack("you", &messages[0]).into_iter().collect::<HashSet<_>>(),
            wakeups
        );
        assert_eq!(unpack("me", &messages[0]), []);
    }

    #[test]
    fn many_wakeups_are_cut_into_messages_within_the_limit() {
        let wakeups: HashSet<_> = (0..1000)
            .map(|number| wakeup("device", &format!("{number:0200}")))
            .collect();
        let messages = pack(&Uuid::nil().simple().to_string(), &wakeups);
        assert!(messages.iter().all(|message| message.len() <= MESSAGE_BYTES_MAX));
        assert_eq!(
            messages.iter().flat_map(|message| unpack("you", message)).count(),
            1000
        );
    }

    #[test]
    fn foreign_messages_are_survived() {
        for message in [
            "",
            "x",
            "x:",
            "x:9",
            "x:9:",
            "x:3:abc",
            "x:99999999999999999999:a",
            "x:1:é1:é",
            "x:65:a",
        ] {
            assert_eq!(unpack("me", message), [], "{message}");
        }
        assert_eq!(unpack("me", "x:1:a0:2:b"), [wakeup("a", "")]);
    }
}
