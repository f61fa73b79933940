//! What follows from an answer: how far the cursor moves, what is set aside, when it is tried again. Pure.

use std::time::Duration;

use muster_model::Timestamp;

use super::{
    Cursor, Letter,
    carrier::{Item, NotSent, Refusal, Verdict},
};
use crate::outbound;

/// Events of one batch, at most.
pub const BATCH_EVENTS_MAX: u64 = 500;
/// The bound of the first pause, and of all.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Events that are refused one after the other before the sink counts as broken: whoever refuses everything means the sink, not
/// the events.
pub const REFUSED_IN_ROW_MAX: u64 = 200;
/// The same where whole requests are refused and nobody says why.
pub const REQUESTS_REFUSED_IN_ROW_MAX: u64 = 10;
/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 300;

/// One place of a stream as it was read.
#[derive(Debug, Clone)]
pub struct Read {
    pub place: u64,
    pub what: What,
}

/// What is at a place.
#[derive(Debug, Clone)]
pub enum What {
    /// The sink does not take it.
    Skipped,
    /// It goes out.
    Sent(Item),
    /// It cannot be written in the sink's format.
    Unreadable(String),
}

/// What follows.
#[derive(Debug, PartialEq)]
pub struct Settlement {
    pub cursor: Cursor,
    /// What is set aside.
    pub letters: Vec<Letter>,
    /// Whether the sink rests until the cursor's `next_at`.
    pub rests: bool,
}

/// A text of a bounded length.
pub fn shortened(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}

/// How many of the events that were read go into one batch of so many events and so many bytes of documents; one goes however
/// large it is.
pub fn fitting(reads: &[Read], batch_max: u64, bytes_max: usize) -> usize {
    let (mut events, mut bytes) = (0, 0);
    for (number, read) in reads.iter().enumerate() {
        let What::Sent(item) = &read.what else { continue };
        events += 1;
        bytes += item.document.len();
        if events > batch_max.max(1) || (events > 1 && bytes > bytes_max) {
            return number;
        }
    }
    reads.len()
}

/// Until when events wait for others to come along, where they do: there are fewer than fit, and the first of them is not old
/// enough. What the sink does not take waits for nobody.
pub fn lingers(reads: &[Read], is_full: bool, linger: Duration, now: Timestamp) -> Option<Timestamp> {
    if is_full || linger.is_zero() {
        return None;
    }
    let first = reads.iter().find_map(|read| match &read.what {
        What::Sent(item) => Some(item.at),
        What::Skipped | What::Unreadable(_) => None,
    })?;
    let until = first.plus(linger);
    // A clock that was ahead holds nothing up for longer.
    (until > now && first <= now).then_some(until)
}

/// Judges what was said of the events of `reads`, in their order. `room` is how many more events can be set aside.
pub fn settle(
    before: &Cursor,
    reads: &[Read],
    said: Result<Vec<Verdict>, NotSent>,
    room: u64,
    now: Timestamp,
    draw: f64,
) -> Settlement {
    let sent = reads
        .iter()
        .filter(|read| matches!(read.what, What::Sent(_)))
        .count();
    let verdicts = match said {
        Ok(verdicts) if verdicts.len() == sent => verdicts,
        Ok(_) => {
            let why = "its answer is not about the events that were sent".to_owned();
            return stay(before, &later(why), now, draw);
        }
        Err(not_sent) => match not_sent.refusal {
            Refusal::Later => return stay(before, &not_sent, now, draw),
            // Half of it says more.
            Refusal::TooMuch | Refusal::AnswerTooLong | Refusal::Refused if sent > 1 => {
                return halve(before, sent, &not_sent, now);
            }
            // That is no fault of the event.
            Refusal::AnswerTooLong => return stay(before, &not_sent, now, draw),
            Refusal::TooMuch | Refusal::Refused if before.refused_in_row >= REQUESTS_REFUSED_IN_ROW_MAX => {
                return stay(before, &not_sent, now, draw);
            }
            Refusal::TooMuch | Refusal::Refused => vec![Verdict::Refused(not_sent.why); sent],
        },
    };
    advance(before, reads, verdicts, room, now, draw)
}

/// Who does not take an event: we, as it is, or the other side.
#[derive(Debug, Clone, Copy)]
enum By {
    Us,
    Them,
}

fn advance(
    before: &Cursor,
    reads: &[Read],
    verdicts: Vec<Verdict>,
    mut room: u64,
    now: Timestamp,
    draw: f64,
) -> Settlement {
    let mut cursor = before.clone();
    // Whoever takes one of these does not refuse everything.
    let is_working = verdicts.contains(&Verdict::Taken);
    let (mut letters, mut verdicts, mut stopped) = (Vec::new(), verdicts.into_iter(), None);
    for read in reads {
        let (refused, id, name) = match &read.what {
            What::Skipped => (None, "", ""),
            What::Unreadable(why) => (Some((why.clone(), By::Us)), "", ""),
            What::Sent(item) => match verdicts.next() {
                Some(Verdict::Taken) => {
                    cursor.taken += 1;
                    cursor.refused_in_row = 0;
                    (None, "", "")
                }
                Some(Verdict::TooLong(why)) => (Some((why, By::Us)), &*item.id, &*item.name),
                Some(Verdict::Refused(why)) => (Some((why, By::Them)), &*item.id, &*item.name),
                Some(Verdict::Later(why)) => {
                    stopped = Some(why);
                    break;
                }
                None => break,
            },
        };
        if let Some((why, by)) = refused {
            if room == 0 {
                stopped = Some(format!("too many events are set aside already; the last: {why}"));
                break;
            }
            match by {
                // It says nothing of the sink.
                By::Us => {}
                By::Them if cursor.refused_in_row >= REFUSED_IN_ROW_MAX && !is_working => {
                    stopped = Some(format!("it refuses everything: {why}"));
                    break;
                }
                By::Them => cursor.refused_in_row += 1,
            }
            room -= 1;
            cursor.refused += 1;
            letters.push(Letter {
                stream: before.stream,
                place: read.place,
                event_id: id.to_owned(),
                event_name: name.to_owned(),
                is_again: false,
                error: shortened(&why),
                died_at: now,
            });
        }
        // Places in between were not kept.
        cursor.missed += read.place.saturating_sub(cursor.place);
        cursor.place = read.place + 1;
    }
    if cursor.taken > before.taken {
        cursor.succeeded_at = Some(now);
        cursor.batch_max = (cursor.batch_max * 2).min(BATCH_EVENTS_MAX);
    }
    let Some(why) = stopped else {
        (cursor.attempts, cursor.next_at) = (0, now);
        (cursor.error, cursor.status) = (None, None);
        return Settlement {
            cursor,
            letters,
            rests: false,
        };
    };
    if cursor.place > before.place {
        cursor.attempts = 0;
    }
    Settlement {
        letters,
        ..stay(&cursor, &later(why), now, draw)
    }
}

fn later(why: String) -> NotSent {
    NotSent {
        why,
        refusal: Refusal::Later,
        status: None,
        retry_after: None,
    }
}

/// Nothing moves, and it rests.
fn stay(before: &Cursor, failed: &NotSent, now: Timestamp, draw: f64) -> Settlement {
    let attempts = before.attempts.saturating_add(1);
    let pause = outbound::pause(attempts, (PAUSE_FIRST, PAUSE_MAX), failed.retry_after, draw);
    Settlement {
        cursor: Cursor {
            attempts,
            next_at: now.plus(pause),
            failed_at: Some(now),
            status: failed.status,
            error: Some(shortened(&failed.why)),
            ..before.clone()
        },
        letters: Vec::new(),
        rests: true,
    }
}

/// Nothing moves, and the next batch is smaller.
fn halve(before: &Cursor, sent: usize, failed: &NotSent, now: Timestamp) -> Settlement {
    Settlement {
        cursor: Cursor {
            batch_max: (sent as u64 / 2).max(1),
            next_at: now,
            failed_at: Some(now),
            status: failed.status,
            error: Some(shortened(&failed.why)),
            ..before.clone()
        },
        letters: Vec::new(),
        rests: false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::definition::StreamKind, *};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const BYTES: usize = 1024 * 1024;

    fn item(place: u64) -> Read {
        Read {
            place,
            what: What::Sent(Item {
                stream: StreamKind::Log,
                place,
                id: format!("e{place}"),
                at: NOW,
                name: "device.enrolled".to_owned(),
                severity: 1,
                document: "x".repeat(10),
            }),
        }
    }

    fn skipped(place: u64) -> Read {
        Read {
            place,
            what: What::Skipped,
        }
    }

    fn judged(cursor: &Cursor, reads: &[Read], said: Result<Vec<Verdict>, NotSent>) -> Settlement {
        settle(cursor, reads, said, 1000, NOW, 1.0)
    }

    fn refused(why: &str) -> Verdict {
        Verdict::Refused(why.to_owned())
    }

    fn failed(refusal: Refusal) -> NotSent {
        NotSent {
            refusal,
            ..later("no".to_owned())
        }
    }

    #[test]
    fn the_cursor_moves_past_what_was_taken_and_never_past_what_waits() {
        let before = Cursor::at(StreamKind::Log, 5);
        let reads = [item(5), skipped(6), item(7), item(8), item(9)];
        let said = vec![
            Verdict::Taken,
            refused("mapping"),
            Verdict::Later("429".to_owned()),
            Verdict::Taken,
        ];
        let after = judged(&before, &reads, Ok(said));
        assert_eq!(
            (after.cursor.place, after.cursor.taken, after.cursor.refused),
            (8, 1, 1)
        );
        assert_eq!((after.letters.len(), after.letters[0].place), (1, 7));
        assert!(after.rests && after.cursor.attempts == 1 && after.cursor.error.as_deref() == Some("429"));
        assert_eq!(after.cursor.next_at, NOW.plus(Duration::from_secs(1)));
    }

    #[test]
    fn what_is_not_kept_any_more_is_counted() {
        let before = Cursor::at(StreamKind::Events, 5);
        let after = judged(&before, &[item(8), item(10)], Ok(vec![Verdict::Taken; 2]));
        assert_eq!((after.cursor.place, after.cursor.missed), (11, 4));
        assert!(!after.rests && after.cursor.error.is_none());
    }

    #[test]
    fn a_batch_that_is_refused_as_a_whole_is_halved_until_the_one_is_found() {
        let mut cursor = Cursor::at(StreamKind::Log, 0);
        let reads: Vec<Read> = (0..500).map(item).collect();
        let mut tries = 0;
        while cursor.place < 500 {
            tries += 1;
            assert!(tries < 100, "it comes to its end");
            let rest = &reads[usize::try_from(cursor.place).expect("small")..];
            let batch = &rest[..fitting(rest, cursor.batch_max, BYTES)];
            let said = match batch.iter().any(|read| read.place == 123) {
                true => Err(failed(Refusal::Refused)),
                false => Ok(vec![Verdict::Taken; batch.len()]),
            };
            let after = judged(&cursor, batch, said);
            assert!(!after.rests);
            assert!(after.letters.iter().all(|letter| letter.place == 123));
            cursor = after.cursor;
        }
        assert_eq!((cursor.taken, cursor.refused), (499, 1));
    }

    #[test]
    fn whoever_refuses_everything_is_broken_and_nothing_more_is_set_aside() {
        let mut cursor = Cursor::at(StreamKind::Log, 0);
        let reads: Vec<Read> = (0..500).map(item).collect();
        let after = judged(&cursor, &reads, Ok(vec![refused("read-only"); 500]));
        assert_eq!(after.letters.len() as u64, REFUSED_IN_ROW_MAX);
        assert!(after.rests && after.cursor.place == REFUSED_IN_ROW_MAX);
        let again = judged(&after.cursor, &reads[200..], Ok(vec![refused("read-only"); 300]));
        assert!(again.letters.is_empty() && again.rests && again.cursor.place == REFUSED_IN_ROW_MAX);
        // Whole requests: sooner.
        cursor.refused_in_row = REQUESTS_REFUSED_IN_ROW_MAX;
        let after = judged(&cursor, &reads[..1], Err(failed(Refusal::Refused)));
        assert!(after.letters.is_empty() && after.rests && after.cursor.place == 0);
        // One that is taken proves that it works.
        let after = judged(&cursor, &reads[..1], Ok(vec![Verdict::Taken]));
        assert_eq!(after.cursor.refused_in_row, 0);
    }

    #[test]
    fn one_device_s_events_hold_up_nothing_however_many_they_are() {
        type Case<'a> = (&'a [Read], fn(u64) -> Verdict);
        let too_long = |place| match place {
            3..503 => Verdict::TooLong("the message has 9000 bytes".to_owned()),
            _ => Verdict::Taken,
        };
        let mapping = |place| match place {
            3..503 => refused("mapping"),
            _ => Verdict::Taken,
        };
        let unreadable = |place| match place {
            3..503 => Read {
                place,
                what: What::Unreadable("no JSON".to_owned()),
            },
            _ => item(place),
        };
        let sent = (0..520).map(item).collect::<Vec<Read>>();
        let mixed = (0..520).map(unreadable).collect::<Vec<Read>>();
        let cases: [Case<'_>; 3] = [(&sent, too_long), (&sent, mapping), (&mixed, |_| Verdict::Taken)];
        for (reads, verdict) in cases {
            let (mut cursor, mut letters, mut tries) = (Cursor::at(StreamKind::Log, 0), 0, 0);
            cursor.batch_max = BATCH_EVENTS_MAX;
            while cursor.place < 520 {
                tries += 1;
                assert!(tries < 10, "it stands at {}", cursor.place);
                let rest = &reads[usize::try_from(cursor.place).expect("small")..];
                let batch = &rest[..fitting(rest, cursor.batch_max, BYTES)];
                let of = |read: &Read| matches!(read.what, What::Sent(_)).then(|| verdict(read.place));
                let after = judged(&cursor, batch, Ok(batch.iter().filter_map(of).collect()));
                letters += after.letters.len();
                cursor = after.cursor;
            }
            assert_eq!((cursor.taken, cursor.refused, letters), (20, 500, 500));
        }
        // Room bounds what is set aside, whoever does not take it.
        let (before, reads) = (Cursor::at(StreamKind::Log, 3), &sent[3..5]);
        let said = vec![too_long(3), too_long(4)];
        let after = settle(&before, reads, Ok(said), 1, NOW, 0.0);
        assert!(after.rests && after.cursor.place == 4 && after.letters.len() == 1);
    }

    #[test]
    fn an_answer_that_is_too_long_is_asked_for_in_halves_and_blamed_on_no_event() {
        let mut cursor = Cursor::at(StreamKind::Log, 0);
        let reads: Vec<Read> = (0..500).map(item).collect();
        for _ in 0..9 {
            let batch = &reads[..fitting(&reads, cursor.batch_max, BYTES)];
            cursor = judged(&cursor, batch, Err(failed(Refusal::AnswerTooLong))).cursor;
        }
        let after = judged(&cursor, &reads[..1], Err(failed(Refusal::AnswerTooLong)));
        assert!(after.rests && after.letters.is_empty() && after.cursor.place == 0);
        assert_eq!(after.cursor.batch_max, 1);
    }

    #[test]
    fn nothing_is_lost_when_there_is_no_more_room_to_set_aside() {
        let before = Cursor::at(StreamKind::Log, 0);
        let reads = [item(0), item(1)];
        let after = settle(&before, &reads, Ok(vec![refused("no"); 2]), 1, NOW, 0.0);
        assert!(after.rests && after.cursor.place == 1 && after.letters.len() == 1);
    }

    #[test]
    fn an_answer_about_other_events_moves_nothing() {
        let before = Cursor::at(StreamKind::Log, 0);
        let after = judged(&before, &[item(0), item(1)], Ok(vec![Verdict::Taken]));
        assert!(after.rests && after.cursor.place == 0);
    }

    #[test]
    fn events_wait_for_others_until_there_are_enough_or_they_are_old() {
        let (reads, minute) = ([skipped(1), item(2)], Duration::from_secs(60));
        assert_eq!(lingers(&reads, false, minute, NOW), Some(NOW.plus(minute)));
        assert_eq!(lingers(&reads, false, minute, NOW.plus(minute)), None);
        assert_eq!(lingers(&reads, true, minute, NOW), None);
        assert_eq!(lingers(&reads, false, Duration::ZERO, NOW), None);
        assert_eq!(lingers(&reads, false, minute, NOW.minus(minute)), None);
        assert_eq!(lingers(&reads[..1], false, minute, NOW), None);
    }

    #[test]
    fn a_batch_is_bounded_by_events_and_by_bytes() {
        let reads: Vec<Read> = (0..600).map(item).collect();
        assert_eq!(fitting(&reads, 500, BYTES), 500);
        assert_eq!(fitting(&reads, 0, BYTES), 1);
        let mut large = reads.clone();
        for read in &mut large {
            if let What::Sent(item) = &mut read.what {
                item.document = "x".repeat(BYTES / 4);
            }
        }
        assert_eq!(fitting(&large, 500, BYTES), 4);
    }
}
