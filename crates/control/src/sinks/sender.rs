//! Sending: one node at a time, a sink beside the other, each stream in its order, and nothing of one sink waits for another.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use muster_model::{TenantId, Timestamp};
use muster_storage::{Lease, Scope};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Cursor, LETTERS_MAX, Letter,
    carrier::{Batch, Item, NotSent, Refusal, SinkAddress, Verdict},
    definition::{Sink, StreamKind},
    rules::{self, Read, What},
    sets, store, streams, view,
};
use crate::{
    App,
    access::problem::Problem,
    audit, clock,
    outbound::{self, AtATime, Key},
};

/// Sinks that are served at a time.
const SINKS_AT_A_TIME: AtATime = AtATime { all: 32, of_one: 8 };
/// Batches that one turn of a sink sends, and how long it may last: whoever takes everything slowly holds up nobody else.
const BATCHES_PER_TURN_MAX: usize = 20;
const TURN_MAX: Duration = Duration::from_secs(60);
/// How often lags are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a sink is left alone of which a stream waits.
const REST_MAX: Duration = Duration::from_secs(5);
/// How long after a failure of our own a sink is tried again.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Places that are read for one batch.
const READS_MAX: i64 = 1000;

/// What a sink had seen when nothing was left for it: its revision, and the ends of both streams.
type Seen = (u64, u64, u64);

/// What one turn came to.
#[derive(Debug)]
enum Turn {
    /// Nothing is left of what there was.
    Drained(Seen),
    /// There is more.
    More,
    /// It waits until then.
    Rests(Timestamp),
}

/// What the sender remembers between two passes; all of it can be lost.
#[derive(Debug, Default)]
pub struct Sender {
    running: JoinSet<(Key, u64, Turn)>,
    busy: HashSet<Key>,
    resting: HashMap<Key, (u64, Timestamp)>,
    drained: HashMap<Key, Seen>,
    /// In which turn each sink was served last.
    served: HashMap<Key, u64>,
    turns: u64,
    looked_at: Option<Duration>,
}

impl Sender {
    /// Begins to send what waits. Run it under the lease.
    pub async fn pass(&mut self, app: &App, lease: &Lease) -> Result<(), Problem> {
        self.reap();
        if app.carrier.get().is_none() {
            return Ok(());
        }
        let (sinks, ends) = app
            .db
            .read(Scope::System, |tx| {
                let ends: HashMap<TenantId, u64> = crate::telemetry::event_ends(tx)?.into_iter().collect();
                Ok::<_, Problem>((store::sinks_to_serve(tx)?, ends))
            })
            .await?;
        let now = app.clock.now();
        self.forget_gone(&sinks);
        let mut waiting = HashMap::new();
        for (tenant, name, revision) in sinks {
            let key = (tenant, name);
            let log_end = audit::signed_head(app, tenant).map_or(0, |head| head.size);
            let seen = (revision, log_end, ends.get(&tenant).copied().unwrap_or(0));
            let is_resting = self
                .resting
                .get(&key)
                .is_some_and(|(of, until)| *of == revision && *until > now);
            if self.busy.contains(&key) || is_resting || self.drained.get(&key) == Some(&seen) {
                continue;
            }
            waiting.insert(key, seen);
        }
        for key in in_turn(&waiting, &self.busy, &self.served) {
            let Some(seen) = waiting.remove(&key) else {
                continue;
            };
            let revision = seen.0;
            self.turns += 1;
            self.served.insert(key.clone(), self.turns);
            self.busy.insert(key.clone());
            let (app, lease) = (app.clone(), lease.clone());
            self.running.spawn(async move {
                let turn = serve(&app, &lease, &key, seen).await.unwrap_or_else(|problem| {
                    tracing::warn!(%problem, sink = key.1, "events wait for a sink; trying again");
                    Turn::Rests(app.clock.now().plus(REST_AFTER_FAILURE))
                });
                // The cursors keep the time; what is new in the other stream does not wait for it.
                let turn = match turn {
                    Turn::Rests(until) => Turn::Rests(until.min(app.clock.now().plus(REST_MAX))),
                    Turn::Drained(_) | Turn::More => turn,
                };
                (key, revision, turn)
            });
        }
        // Gauges that cannot be set hold nothing up.
        if let Err(problem) = self.look(app).await {
            tracing::warn!(%problem, "how far behind sinks are is not known; looking again");
        }
        Ok(())
    }

    /// Ends what is under way: what was cut off is sent again.
    pub async fn stop(&mut self) {
        self.running.shutdown().await;
        self.busy.clear();
        self.drained.clear();
    }

    /// Waits until nothing is under way, for tests.
    #[cfg(test)]
    pub async fn settle(&mut self) {
        while !self.running.is_empty() {
            if let Some(Ok(ended)) = self.running.join_next().await {
                self.ended(ended);
            }
        }
        self.busy.clear();
    }

    fn reap(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            match ended {
                Ok(ended) => self.ended(ended),
                Err(error) => tracing::error!(%error, "a sender of events broke"),
            }
        }
        // Whoever broke is served again.
        if self.running.is_empty() {
            self.busy.clear();
        }
    }

    fn ended(&mut self, (key, revision, turn): (Key, u64, Turn)) {
        self.busy.remove(&key);
        match turn {
            Turn::Drained(seen) => {
                self.drained.insert(key, seen);
            }
            Turn::More => {}
            Turn::Rests(until) => {
                self.resting.insert(key, (revision, until));
            }
        }
    }

    fn forget_gone(&mut self, sinks: &[(TenantId, String, u64)]) {
        let known: HashSet<(TenantId, &str)> = sinks
            .iter()
            .map(|(tenant, name, _)| (*tenant, name.as_str()))
            .collect();
        let is_known = |(tenant, name): &Key| known.contains(&(*tenant, name.as_str()));
        self.resting.retain(|key, _| is_known(key));
        self.drained.retain(|key, _| is_known(key));
        self.served.retain(|key, _| is_known(key));
    }

    /// Sets the gauges.
    async fn look(&mut self, app: &App) -> Result<(), Problem> {
        let uptime = clock::uptime();
        if self.looked_at.is_some_and(|at| uptime < at + LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(uptime);
        let shared = app.clone();
        let all = app
            .db
            .read(Scope::System, move |tx| {
                let mut all = Vec::new();
                for (tenant, _) in crate::access::tenants(tx)? {
                    all.extend(view::behind(&shared, tx, tenant)?);
                }
                Ok::<_, Problem>(all)
            })
            .await?;
        let metrics = &app.sink_metrics;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let running = || all.iter().filter(|behind| !behind.is_paused);
        metrics
            .lag_events
            .set(gauge(running().map(|behind| behind.events).max().unwrap_or(0)));
        metrics
            .lag_seconds
            .set(gauge(running().map(|behind| behind.seconds).max().unwrap_or(0)));
        metrics
            .letters
            .set(gauge(all.iter().map(|behind| behind.letters).sum()));
        metrics
            .failing
            .set(gauge(running().filter(|behind| behind.is_failing).count() as u64));
        metrics.looked_at.set(app.clock.now().as_unix_seconds());
        Ok(())
    }
}

/// Which of the sinks that wait are served now: of one tenant the sink whose last turn is longest ago.
fn in_turn(waiting: &HashMap<Key, Seen>, busy: &HashSet<Key>, served: &HashMap<Key, u64>) -> Vec<Key> {
    let mut left: Vec<Key> = waiting.keys().cloned().collect();
    left.sort_unstable_by_key(|key| (served.get(key).copied().unwrap_or_default(), key.clone()));
    outbound::in_turn(left, busy, SINKS_AT_A_TIME)
}

/// Sends what waits for one sink.
async fn serve(app: &App, lease: &Lease, key: &Key, seen: Seen) -> Result<Turn, Problem> {
    let (tenant, name) = (key.0, key.1.clone());
    let sink = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::sink_if_readable(tx, tenant, &name)?)
        })
        .await?;
    let Some(sink) = sink.filter(|sink| !sink.is_paused) else {
        return Ok(Turn::Drained(seen));
    };
    let mut rests: Option<Timestamp> = None;
    let (mut is_more, begun) = (false, clock::uptime());
    for stream in &sink.definition.streams {
        for number in 0.. {
            let is_long = number > 0 && clock::uptime().saturating_sub(begun) > TURN_MAX;
            if number == BATCHES_PER_TURN_MAX || is_long {
                is_more = true;
                break;
            }
            // Whoever pauses a sink or points it elsewhere does not wait for the end of a turn.
            if number > 0 && !is_unchanged(app, tenant, &sink).await? {
                return Ok(Turn::More);
            }
            match step(app, lease, tenant, &sink, *stream).await? {
                Step::Moved => {}
                Step::Nothing => break,
                Step::Rests(until) => {
                    rests = Some(rests.map_or(until, |known| known.min(until)));
                    break;
                }
            }
        }
    }
    Ok(match rests {
        // The other stream has more, or may go on at once.
        _ if is_more => Turn::More,
        Some(until) => Turn::Rests(until),
        None => Turn::Drained(seen),
    })
}

/// Whether a sink is what it was when its turn began.
async fn is_unchanged(app: &App, tenant: TenantId, sink: &Sink) -> Result<bool, Problem> {
    let name = sink.name.clone();
    let now = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::sink(tx, tenant, &name)?)
        })
        .await?;
    Ok(now.is_some_and(|now| !now.is_paused && now.revision == sink.revision))
}

/// What one batch of one stream came to.
enum Step {
    Moved,
    Nothing,
    Rests(Timestamp),
}

/// What waits in one stream of a sink.
struct Waiting {
    cursor: Cursor,
    /// Room for more that is set aside.
    room: u64,
    again: Vec<Read>,
    fresh: Vec<Read>,
    end: u64,
}

async fn step(
    app: &App,
    lease: &Lease,
    tenant: TenantId,
    sink: &Sink,
    stream: StreamKind,
) -> Result<Step, Problem> {
    let Some(waiting) = waiting(app, tenant, sink, stream).await? else {
        return Ok(Step::Nothing);
    };
    let now = app.clock.now();
    if waiting.cursor.next_at > now {
        return Ok(Step::Rests(waiting.cursor.next_at));
    }
    if !waiting.again.is_empty() {
        return send_again(app, lease, tenant, sink, waiting).await;
    }
    let Waiting {
        cursor,
        room,
        fresh,
        end,
        ..
    } = waiting;
    let place = &sink.definition.place;
    let fits = rules::fitting(&fresh, cursor.batch_max, place.batch_bytes_max());
    let reads = &fresh[..fits];
    let is_full = fits < fresh.len() || fresh.len() as i64 == READS_MAX;
    if let Some(until) = rules::lingers(reads, is_full, place.linger(), now) {
        return Ok(Step::Rests(until));
    }
    if reads.is_empty() {
        // What was at the end is not kept any more. The log keeps everything: what is missing there comes later.
        if stream == StreamKind::Events && cursor.place < end {
            let gone = Cursor {
                missed: cursor.missed + (end - cursor.place),
                place: end,
                ..cursor.clone()
            };
            settle(app, lease, tenant, sink, cursor.place, (gone, Vec::new())).await?;
        }
        return Ok(Step::Nothing);
    }
    let said = send(app, tenant, sink, reads).await;
    count(app, sink, said.as_ref());
    let settled = rules::settle(&cursor, reads, said, room, app.clock.now(), outbound::draw());
    let next_at = settled.cursor.next_at;
    let kind = sink.definition.place.kind();
    let after = &settled.cursor;
    let counts = [
        ("taken", after.taken - cursor.taken),
        ("refused", after.refused - cursor.refused),
        ("missed", after.missed - cursor.missed),
    ];
    let why = after.error.clone();
    settle(
        app,
        lease,
        tenant,
        sink,
        cursor.place,
        (settled.cursor, settled.letters),
    )
    .await?;
    for (result, events) in counts {
        app.sink_metrics.events(kind, result, events);
    }
    if settled.rests {
        tracing::warn!(%tenant, sink = sink.name, stream = stream.as_str(), why, "a sink takes nothing; trying again");
        return Ok(Step::Rests(next_at));
    }
    Ok(Step::Moved)
}

fn count(app: &App, sink: &Sink, said: Result<&Vec<Verdict>, &NotSent>) {
    let result = if said.is_ok() { "settled" } else { "failed" };
    app.sink_metrics.batch(sink.definition.place.kind(), result);
}

/// Reads what waits, in one snapshot.
async fn waiting(
    app: &App,
    tenant: TenantId,
    sink: &Sink,
    stream: StreamKind,
) -> Result<Option<Waiting>, Problem> {
    let (shared, sink) = (app.clone(), sink.clone());
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let cursors = store::cursors(tx, tenant, &sink.name)?;
            let Some(cursor) = cursors.into_iter().find(|cursor| cursor.stream == stream) else {
                return Ok(None);
            };
            let batch = i64::try_from(cursor.batch_max).unwrap_or(1);
            let mut again = Vec::new();
            for letter in store::letters_again(tx, tenant, &sink.name, stream, batch)? {
                let mut read = streams::read(tx, tenant, &sink, stream, letter.place, 1)?;
                read.retain(|read| read.place == letter.place);
                let gone = || Read {
                    place: letter.place,
                    what: What::Unreadable("it is not kept any more".to_owned()),
                };
                again.push(read.pop().unwrap_or_else(gone));
            }
            let held = store::count_letters(tx, tenant, &sink.name)?;
            Ok::<_, Problem>(Some(Waiting {
                room: LETTERS_MAX.saturating_sub(held),
                fresh: streams::read(tx, tenant, &sink, stream, cursor.place, READS_MAX)?,
                end: streams::end(&shared, tx, tenant, stream)?,
                again,
                cursor,
            }))
        })
        .await
}

/// Hands over what is to be sent of `reads`.
async fn send(app: &App, tenant: TenantId, sink: &Sink, reads: &[Read]) -> Result<Vec<Verdict>, NotSent> {
    let later = |why: String| NotSent {
        why,
        refusal: Refusal::Later,
        status: None,
        retry_after: None,
    };
    let items: Vec<Item> = reads
        .iter()
        .filter_map(|read| match &read.what {
            What::Sent(item) => Some(item.clone()),
            What::Skipped | What::Unreadable(_) => None,
        })
        .collect();
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let carrier = app.carrier.get();
    let carrier = carrier.ok_or_else(|| later("this process sends nothing".to_owned()))?;
    let secret = sink
        .open_secret(&app.keys.sealing, tenant)
        .map_err(|error| later(format!("the secret of the sink does not open: {error}")))?;
    let address = SinkAddress {
        tenant,
        name: &sink.name,
        place: &sink.definition.place,
        format: sink.definition.format,
        secret: secret.as_ref(),
        now: app.clock.now(),
    };
    let items = sets::signed(app, tenant, &sink.definition.place, items)
        .await
        .map_err(|problem| later(format!("the events were not signed: {problem}")))?;
    let batch = Batch { items };
    match timeout(
        sink.definition.place.batch_time_max(),
        carrier.send(address, &batch),
    )
    .await
    {
        Ok(said) => said,
        Err(_) => Err(later("it took too long".to_owned())),
    }
}

/// Writes what follows, unless somebody moved the cursor meanwhile or the lease is another node's.
async fn settle(
    app: &App,
    lease: &Lease,
    tenant: TenantId,
    sink: &Sink,
    from: u64,
    (cursor, letters): (Cursor, Vec<Letter>),
) -> Result<(), Problem> {
    let (lease, name) = (lease.clone(), sink.name.clone());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        tx.fence(&lease)?;
        if store::settle_cursor(tx, tenant, &name, from, &cursor)? {
            for letter in &letters {
                store::put_letter(tx, tenant, &name, letter)?;
            }
        }
        Ok(())
    })
    .await
}

/// Sends what was set aside and somebody wants sent again. What is refused once more stays where it is.
async fn send_again(
    app: &App,
    lease: &Lease,
    tenant: TenantId,
    sink: &Sink,
    waiting: Waiting,
) -> Result<Step, Problem> {
    let reads = rules::fitting(
        &waiting.again,
        waiting.cursor.batch_max,
        sink.definition.place.batch_bytes_max(),
    );
    let reads = &waiting.again[..reads];
    let said = send(app, tenant, sink, reads).await;
    count(app, sink, said.as_ref());
    // As if the cursor stood there; where it stands is left alone.
    let before = Cursor {
        place: reads.first().map_or(0, |read| read.place),
        refused_in_row: 0,
        ..waiting.cursor.clone()
    };
    let settled = rules::settle(
        &before,
        reads,
        said,
        LETTERS_MAX,
        app.clock.now(),
        outbound::draw(),
    );
    let through = settled.cursor.place;
    let done: Vec<u64> = reads
        .iter()
        .map(|read| read.place)
        .filter(|place| *place < through && settled.letters.iter().all(|letter| letter.place != *place))
        .collect();
    let cursor = Cursor {
        place: waiting.cursor.place,
        missed: waiting.cursor.missed,
        refused: waiting.cursor.refused,
        refused_in_row: waiting.cursor.refused_in_row,
        ..settled.cursor
    };
    let (taken, next_at) = (cursor.taken - waiting.cursor.taken, cursor.next_at);
    let (stream, lease, name) = (cursor.stream, lease.clone(), sink.name.clone());
    let letters = settled.letters;
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        tx.fence(&lease)?;
        store::settle_cursor(tx, tenant, &name, cursor.place, &cursor)?;
        for place in &done {
            store::delete_letter(tx, tenant, &name, (stream, *place))?;
        }
        for letter in &letters {
            store::put_letter(tx, tenant, &name, letter)?;
        }
        Ok(())
    })
    .await?;
    app.sink_metrics
        .events(sink.definition.place.kind(), "taken", taken);
    Ok(match settled.rests {
        true => Step::Rests(next_at),
        false => Step::Moved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn the_tenant_with_the_fewest_sinks_under_way_has_its_turn() {
        let waits = |keys: &[Key]| {
            keys.iter()
                .map(|key| (key.clone(), (1, 0, 0)))
                .collect::<HashMap<_, _>>()
        };
        let many: Vec<Key> = (0..20)
            .map(|number| (tenant(1), format!("{number:02}")))
            .collect();
        let (one, nobody) = ((tenant(2), "live".to_owned()), HashMap::new());
        let mut keys = many.clone();
        keys.push(one.clone());
        let first = in_turn(&waits(&keys), &HashSet::new(), &nobody);
        assert_eq!(first.len(), SINKS_AT_A_TIME.of_one + 1);
        assert!(first[..2].contains(&one), "{first:?}");
        // Those of the first turn do not answer: the others of their tenant wait, and nobody else does.
        let busy: HashSet<Key> = first.into_iter().filter(|key| *key != one).collect();
        assert_eq!(in_turn(&waits(&keys), &busy, &nobody), [one]);
        // Whose turn is longest ago comes first.
        let served = many
            .iter()
            .zip(1..)
            .map(|(key, turn)| (key.clone(), 100 - turn))
            .collect();
        let next = in_turn(&waits(&many), &HashSet::new(), &served);
        assert_eq!(next[0], many[19]);
        let lots: Vec<Key> = (0..50).map(|number| (tenant(number), "a".to_owned())).collect();
        assert_eq!(
            in_turn(&waits(&lots), &HashSet::new(), &nobody).len(),
            SINKS_AT_A_TIME.all
        );
    }
}
