//! Reading the two streams, as they are.

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;

use super::{
    carrier::Item,
    definition::{Sink, SinkFormat, StreamKind},
    formats,
    rules::{Read, What},
};
use crate::{App, access::problem::Problem, audit, telemetry};

/// The place that the next event of a stream gets.
pub fn end(app: &App, tx: &mut Tx, tenant: TenantId, stream: StreamKind) -> Result<u64, Problem> {
    match stream {
        StreamKind::Log => Ok(audit::signed_head(app, tenant).map_or(0, |head| head.size)),
        StreamKind::Events => telemetry::event_end(tx, tenant),
    }
}

/// The place of the first event of a time or later; the end where there is none.
pub fn place_at(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    stream: StreamKind,
    at: Timestamp,
) -> Result<u64, Problem> {
    match stream {
        StreamKind::Log => Ok(audit::place_at(tx, tenant, at)?.min(end(app, tx, tenant, stream)?)),
        StreamKind::Events => telemetry::event_place_at(tx, tenant, at),
    }
}

/// When the event at a place happened, or the first one behind it that is kept; nothing at the end.
pub fn time_at(
    tx: &mut Tx,
    tenant: TenantId,
    stream: StreamKind,
    place: u64,
) -> Result<Option<Timestamp>, Problem> {
    match stream {
        StreamKind::Log => {
            let rows = audit::entries_from(tx, tenant, place, 1)?;
            Ok(rows.first().and_then(|row| Some(row.entry().ok()?.at)))
        }
        StreamKind::Events => {
            let rows = telemetry::events_from(tx, tenant, place, 1)?;
            Ok(rows.first().map(|(_, event)| event.received_at))
        }
    }
}

/// Events from a place on, as the sink takes them, at most so many.
pub fn read(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &Sink,
    stream: StreamKind,
    place: u64,
    limit: i64,
) -> Result<Vec<Read>, Problem> {
    let definition = &sink.definition;
    match stream {
        StreamKind::Log => {
            let rows = audit::entries_from(tx, tenant, place, limit)?;
            let read = |row: audit::EntryRow| {
                let entry = match row.entry() {
                    Ok(entry) => entry,
                    Err(why) => return (row.place, What::Unreadable(why)),
                };
                if !definition.takes(&entry.action) {
                    return (row.place, What::Skipped);
                }
                let what = match formats::of_entry(definition.format, row.place, &entry) {
                    Ok(document) => What::Sent(Item {
                        stream,
                        place: row.place,
                        id: entry.id.to_string(),
                        at: entry.at,
                        severity: formats::severity_of_entry(&entry),
                        name: entry.action,
                        document,
                    }),
                    Err(problem) => What::Unreadable(problem.detail),
                };
                (row.place, what)
            };
            if definition.format == SinkFormat::Set {
                return rows.into_iter().map(|row| set_of(tx, tenant, row)).collect();
            }
            Ok(rows.into_iter().map(read).map(placed).collect())
        }
        StreamKind::Events => {
            let rows = telemetry::events_from(tx, tenant, place, limit)?;
            let read = |(place, event): (u64, telemetry::Event)| {
                if !definition.takes(&event.name) {
                    return (place, What::Skipped);
                }
                let document = formats::of_event(definition.format, tenant, place, &event);
                let item = Item {
                    stream,
                    place,
                    id: event.id.to_string(),
                    at: event.at,
                    severity: formats::severity_of_event(&event),
                    name: event.name,
                    document,
                };
                (place, What::Sent(item))
            };
            Ok(rows.into_iter().map(read).map(placed).collect())
        }
    }
}

/// The claims of an entry, for a receiver of shared signals.
fn set_of(tx: &mut Tx, tenant: TenantId, row: audit::EntryRow) -> Result<Read, Problem> {
    let what = match row.entry() {
        Err(why) => What::Unreadable(why),
        Ok(entry) if !formats::set::ACTIONS.contains(&entry.action.as_str()) => What::Skipped,
        Ok(entry) => match formats::set::of_entry(tx, tenant, &entry)? {
            None => What::Skipped,
            Some(claims) => What::Sent(Item {
                stream: StreamKind::Log,
                place: row.place,
                id: entry.id.to_string(),
                at: entry.at,
                severity: formats::severity_of_entry(&entry),
                name: entry.action,
                document: claims.to_string(),
            }),
        },
    };
    Ok(placed((row.place, what)))
}

fn placed((place, what): (u64, What)) -> Read {
    Read { place, what }
}
