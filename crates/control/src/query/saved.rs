//! Questions that are kept, and when they are asked by themselves.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{SAVED_MAX, ask::check, store};
use crate::{
    access::problem::{CONFLICT, INVALID, NOT_FOUND, PRECONDITION_FAILED, Problem},
    audit::LoggedTx,
};

const NAME_BYTES_MAX: usize = 63;
const DESCRIPTION_CHARS_MAX: usize = 500;
const MINUTE_MICROS: i64 = 60 * 1_000_000;
const DAY_MINUTES: i64 = 24 * 60;
/// The shortest time between two runs, and the longest.
const EVERY_MINUTES: std::ops::RangeInclusive<u32> = 5..=31 * 24 * 60;
/// A name that a path has another meaning for.
const NOT_A_NAME: &str = "run";

/// When a saved question is asked by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Every so many minutes, 5 at least.
    EveryMinutes(u32),
    /// Every day at this time, UTC: `06:30`.
    DailyAt(String),
}

impl Schedule {
    /// Minutes after midnight.
    fn minute_of_day(text: &str) -> Option<i64> {
        let (hour, minute) = text.split_once(':')?;
        let part = |part: &str| {
            let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse::<u8>().ok()).flatten()
        };
        let (hour, minute) = (i64::from(part(hour)?), i64::from(part(minute)?));
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    }

    fn check(&self) -> Result<(), Problem> {
        match self {
            Schedule::EveryMinutes(minutes) if EVERY_MINUTES.contains(minutes) => Ok(()),
            Schedule::EveryMinutes(_) => {
                Err(INVALID
                    .detail("schedule: every_minutes is 5 at least, and at most 44640, which is 31 days."))
            }
            Schedule::DailyAt(time) if Schedule::minute_of_day(time).is_some() => Ok(()),
            Schedule::DailyAt(_) => {
                Err(INVALID.detail("schedule: daily_at is a time of day in UTC, such as 06:30."))
            }
        }
    }

    /// The first time after `now`.
    pub fn next(&self, now: Timestamp) -> Timestamp {
        let minutes = now.as_micros().div_euclid(MINUTE_MICROS);
        let next = match self {
            Schedule::EveryMinutes(every) => {
                let every = i64::from((*every).max(*EVERY_MINUTES.start()));
                (minutes.div_euclid(every) + 1) * every
            }
            Schedule::DailyAt(time) => {
                let at = Schedule::minute_of_day(time).unwrap_or_default();
                let today = minutes.div_euclid(DAY_MINUTES) * DAY_MINUTES + at;
                match today > minutes {
                    true => today,
                    false => today + DAY_MINUTES,
                }
            }
        };
        Timestamp::from_micros(next.saturating_mul(MINUTE_MICROS))
    }

    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Schedule::EveryMinutes(minutes) => {
                let every = Duration::from_secs(u64::from(*minutes) * 60);
                match every.as_secs() % 3600 {
                    0 => format!("every {} h", every.as_secs() / 3600),
                    _ => format!("every {minutes} min"),
                }
            }
            Schedule::DailyAt(time) => format!("daily at {time} UTC"),
        }
    }
}

/// A question that is kept.
#[derive(Debug, Clone)]
pub struct Saved {
    pub name: String,
    pub description: String,
    pub question: String,
    pub schedule: Option<Schedule>,
    /// Who made it.
    pub owner: String,
    pub created_at: Timestamp,
    pub updated_by: String,
    pub updated_at: Timestamp,
    /// Counts changes.
    pub version: i64,
    pub next_run_at: Option<Timestamp>,
}

/// What a person says of a question.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedChange {
    /// The question.
    pub question: String,
    /// At most 500 characters.
    #[serde(default)]
    pub description: String,
    /// Absent, and it is asked by people alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// What has to hold before a question is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Anything,
    /// There is none of this name.
    Absent,
    Version(i64),
}

/// All questions of a tenant, by name.
pub fn list(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Saved>, Problem> {
    Ok(store::list_saved(tx, tenant)?)
}

/// The question with this name.
pub fn find(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Saved, Problem> {
    store::saved(tx, tenant, name)?
        .ok_or_else(|| NOT_FOUND.detail("There is no saved question of this name."))
}

/// Keeps a question, or changes the one of this name.
pub fn put(
    tx: &mut LoggedTx<'_>,
    name: &str,
    change: &SavedChange,
    expected: Expected,
) -> Result<Saved, Problem> {
    check_name(name)?;
    if change.description.chars().count() > DESCRIPTION_CHARS_MAX {
        return Err(INVALID.detail("description: at most 500 characters."));
    }
    let (tenant, at) = (tx.tenant(), tx.at());
    check(&change.question, at)?;
    if let Some(schedule) = &change.schedule {
        schedule.check()?;
    }
    let before = store::saved(tx, tenant, name)?;
    require(before.as_ref(), expected)?;
    if before.is_none() && store::count_saved(tx, tenant)? >= SAVED_MAX as i64 {
        return Err(CONFLICT.detail(format!(
            "A tenant has at most {SAVED_MAX} saved questions. Delete one first."
        )));
    }
    let actor = tx.actor();
    let kept_schedule = before
        .as_ref()
        .filter(|before| before.schedule == change.schedule)
        .map(|before| before.next_run_at);
    let saved = Saved {
        name: name.to_owned(),
        description: change.description.clone(),
        question: change.question.clone(),
        schedule: change.schedule.clone(),
        owner: before
            .as_ref()
            .map_or_else(|| actor.clone(), |before| before.owner.clone()),
        created_at: before.as_ref().map_or(at, |before| before.created_at),
        updated_by: actor,
        updated_at: at,
        version: before.as_ref().map_or(1, |before| before.version + 1),
        next_run_at: kept_schedule
            .unwrap_or_else(|| change.schedule.as_ref().map(|schedule| schedule.next(at))),
    };
    store::put_saved(tx, tenant, &saved)?;
    let detail = serde_json::json!({
        "question": saved.question,
        "schedule": saved.schedule.as_ref().map(Schedule::describe),
        "version": saved.version,
    });
    tx.record("query.saved", ("query", saved.name.clone()), detail)?;
    Ok(saved)
}

/// Deletes a question with its answers.
pub fn remove(tx: &mut LoggedTx<'_>, name: &str, expected: Expected) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let saved = find(tx, tenant, name)?;
    require(Some(&saved), expected)?;
    store::delete_saved(tx, tenant, name)?;
    let detail = serde_json::json!({"question": saved.question});
    tx.record("query.deleted", ("query", saved.name), detail)
        .map(drop)
}

fn require(before: Option<&Saved>, expected: Expected) -> Result<(), Problem> {
    match (expected, before) {
        (Expected::Anything, _) | (Expected::Absent, None) => Ok(()),
        (Expected::Version(version), Some(before)) if before.version == version => Ok(()),
        (Expected::Absent, Some(_)) => {
            Err(PRECONDITION_FAILED.detail("There is a saved question of this name already."))
        }
        (Expected::Version(_), before) => {
            let now = before.map_or_else(
                || "deleted".to_owned(),
                |before| format!("at version {}", before.version),
            );
            Err(PRECONDITION_FAILED.detail(format!("The saved question is {now} meanwhile. Read it again.")))
        }
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| plain(byte) || matches!(byte, b'-' | b'_' | b'.'))
        && name.bytes().next().is_some_and(plain)
        && name != NOT_A_NAME;
    match is_name {
        true => Ok(()),
        false => Err(INVALID.detail(
            "A name is small letters, digits and . _ -, begins with a letter or digit, and has at most 63 of them. It is not run.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_come_at_whole_times_after_now() {
        let at = |text: &str| text.parse::<Timestamp>().expect("it is a time");
        let now = at("2026-11-28T12:07:30Z");
        let next = |schedule: Schedule| schedule.next(now).to_string();
        assert_eq!(next(Schedule::EveryMinutes(5)), "2026-11-28T12:10:00Z");
        assert_eq!(next(Schedule::EveryMinutes(60)), "2026-11-28T13:00:00Z");
        assert_eq!(
            next(Schedule::DailyAt("12:08".to_owned())),
            "2026-11-28T12:08:00Z"
        );
        assert_eq!(
            next(Schedule::DailyAt("12:07".to_owned())),
            "2026-11-29T12:07:00Z"
        );
        for bad in ["24:00", "1:30", "12:60", "noon", "", "+1:30"] {
            assert!(Schedule::DailyAt(bad.to_owned()).check().is_err(), "{bad}");
        }
        assert!(Schedule::EveryMinutes(4).check().is_err());
    }

    #[test]
    fn names_are_plain() {
        assert!(check_name("unencrypted-disks.2").is_ok());
        for bad in ["", "run", "-a", "A", "a b", "a/b", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
