//! Letting a program in from another screen (RFC 8628): it shows a code, a signed-in person types it and decides.
//!
//! The program gets a session of that person, held as a token: it may do at most what the person may do at each moment, ends when
//! they are signed out by an administrator, disabled or barred, when it is not used for as long as the tenant lets sessions idle, and
//! after eight hours in any case. There is no address with the code
//! in it, so that nobody is let in by a click on somebody else's link.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use muster_model::{TenantId, Timestamp};
use muster_storage::Scope;
use muster_trust::key::{Digest, sha256};

use super::{api::Failure, store};
use crate::{
    App,
    access::{
        PagePermit,
        problem::{INVALID, NOT_FOUND, Problem, RATE_LIMITED},
        scope,
        session::{self, NewSession},
        store::SessionKind,
    },
    audit, clock,
    strangers::{around, network},
};

/// `grant_type` (RFC 8628, section 3.4).
pub const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// The one public client: the command line.
pub const PUBLIC_CLIENT: &str = "muster-cli";
/// How long a code lives, and how often its program may ask at first.
pub const CODE_SECONDS: u64 = 600;
pub const INTERVAL_SECONDS: i64 = 5;
const INTERVAL_SECONDS_MAX: i64 = 60;
/// The longest that a program's session lives; a tenant's limit may be shorter.
pub const SESSION_SECONDS_MAX: u64 = 8 * 3600;
/// Programs that wait at once, in all, from one address, and from one network around it. With more in all the oldest goes of the network
/// that has most of them: whoever has many addresses shuts out themselves.
pub const WAITING_MAX: usize = 1_000;
pub const WAITING_FROM_ONE_MAX: usize = 20;
pub const WAITING_FROM_AROUND_MAX: usize = 100;
/// As many are read: of those who come at once on several nodes a few are above the bound.
const WAITING_READ_MAX: i64 = 2_000;
/// Letters of a code: no vowels, so that it is no word, and none that look alike. 20 letters, 8 places: 34 bits.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const CODE_LETTERS: usize = 8;
const LABEL_CHARS_MAX: usize = 64;
const CODE_BYTES_MAX: usize = 256;
/// Wrong codes that one person may type in ten minutes.
const MISTYPED_MAX: u32 = 10;
const MISTYPED_WITHIN: Duration = Duration::from_secs(600);
const PEOPLE_REMEMBERED_MAX: usize = 10_000;

/// Where a program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Asked,
    Allowed,
    Refused,
}

impl State {
    pub const fn word(self) -> &'static str {
        match self {
            State::Asked => "asked",
            State::Allowed => "allowed",
            State::Refused => "refused",
        }
    }

    pub fn read(word: &str) -> State {
        match word {
            "asked" => State::Asked,
            "allowed" => State::Allowed,
            _ => State::Refused,
        }
    }
}

/// A program that waits.
#[derive(Debug, Clone)]
pub struct Asked {
    /// All zeros until somebody decides.
    pub tenant: TenantId,
    pub device_sha256: Vec<u8>,
    /// Eight letters, without a hyphen.
    pub user_code: String,
    /// What was asked for; empty for whatever the person may do.
    pub scopes: String,
    /// What the program says of itself.
    pub label: String,
    pub address: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub polled_at: Option<Timestamp>,
    pub interval_seconds: i64,
    pub state: State,
    pub session_sha256: Option<Vec<u8>>,
}

/// A program that waits, as room is made for another.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub device_sha256: Vec<u8>,
    pub address: Option<IpAddr>,
    pub asked_at: Timestamp,
    /// Whether a person decided about it, or is about to.
    pub is_claimed: bool,
}

/// Whether one more may wait.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// In the place of this one.
    InPlaceOf(Vec<u8>),
    None,
}

/// The room for a program of this address beside those that wait. Pure.
fn room(waiting: &[Waiting], from: Option<IpAddr>) -> Room {
    let (here, about) = (network(from), around(from));
    let count = |is: &dyn Fn(&Waiting) -> bool| waiting.iter().filter(|one| is(one)).count();
    if count(&|one| network(one.address) == here) >= WAITING_FROM_ONE_MAX
        || count(&|one| around(one.address) == about) >= WAITING_FROM_AROUND_MAX
    {
        return Room::None;
    }
    if waiting.len() < WAITING_MAX {
        return Room::Free;
    }
    let mut crowds: HashMap<IpAddr, usize> = HashMap::new();
    for one in waiting {
        *crowds.entry(around(one.address)).or_default() += 1;
    }
    let unclaimed = waiting.iter().filter(|one| !one.is_claimed);
    let crowd = |one: &Waiting| crowds.get(&around(one.address)).copied().unwrap_or_default();
    match unclaimed.max_by_key(|one| (crowd(one), Reverse(one.asked_at))) {
        Some(one) => Room::InPlaceOf(one.device_sha256.clone()),
        None => Room::None,
    }
}

/// How often people typed codes that are none, so that nobody tries them out. It counts on this node alone, which is enough: a
/// guess hits with a chance of one to 25 million even when as many programs wait as can.
#[derive(Debug, Default)]
pub struct Mistyped(Mutex<HashMap<(TenantId, String), (Timestamp, u32)>>);

impl Mistyped {
    fn count(&self, person: &(TenantId, String), now: Timestamp) -> u32 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_now = counts
            .get(person)
            .filter(|(since, _)| now.since(*since) < MISTYPED_WITHIN);
        of_now.map_or(0, |(_, count)| *count)
    }

    fn add(&self, person: (TenantId, String), now: Timestamp) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= PEOPLE_REMEMBERED_MAX {
            counts.retain(|_, (since, _)| now.since(*since) < MISTYPED_WITHIN);
        }
        let entry = counts.entry(person).or_insert((now, 0));
        if now.since(entry.0) >= MISTYPED_WITHIN {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

/// What a program is told that asks to be let in.
#[derive(Debug)]
pub struct Begun {
    pub device_code: String,
    /// With a hyphen.
    pub user_code: String,
}

/// Letters from random bytes, each as likely as the others.
fn letters(mut random: impl FnMut() -> [u8; 32]) -> String {
    let mut code = String::with_capacity(CODE_LETTERS);
    while code.len() < CODE_LETTERS {
        // 240 is the last multiple of 20: above it some letters would be likelier.
        let fair = random().into_iter().filter(|byte| *byte < 240);
        let wanted = CODE_LETTERS - code.len();
        code.extend(
            fair.take(wanted)
                .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])),
        );
    }
    code
}

/// A code as people type it, read: upper case, and nothing but letters.
fn typed(text: &str) -> Option<String> {
    let letters = text.chars().filter(|char| !matches!(char, '-' | ' '));
    let code: String = letters
        .take(CODE_LETTERS + 1)
        .collect::<String>()
        .to_ascii_uppercase();
    (code.len() == CODE_LETTERS && code.bytes().all(|byte| LETTERS.contains(&byte))).then_some(code)
}

fn shown(code: &str) -> String {
    let (first, second) = code.split_at_checked(CODE_LETTERS / 2).unwrap_or((code, ""));
    format!("{first}-{second}")
}

/// Takes a program that asks to be let in.
pub async fn begin(
    app: &App,
    scopes: Option<&str>,
    label: Option<&str>,
    address: Option<IpAddr>,
) -> Result<Begun, Failure> {
    let wanted = scopes.unwrap_or_default();
    if let Some(unknown) = wanted.split_whitespace().find(|name| !scope::exists(name)) {
        let shown: String = unknown.chars().take(64).collect();
        return Err(Failure::of(
            "invalid_scope",
            format!("There is no scope {shown}. The metadata lists them."),
        ));
    }
    let label = label
        .unwrap_or_default()
        .chars()
        .filter(|char| !char.is_control());
    let now = app.clock.now();
    let device_code = clock::random_secret();
    let asked = Asked {
        tenant: TenantId::from_uuid(uuid::Uuid::nil()),
        device_sha256: sha256(device_code.as_bytes()).as_bytes().to_vec(),
        user_code: letters(clock::random),
        scopes: scope::union([wanted]),
        label: label.take(LABEL_CHARS_MAX).collect::<String>().trim().to_owned(),
        address: address.map_or_else(
            || "unknown".to_owned(),
            |address| address.to_canonical().to_string(),
        ),
        created_at: now,
        expires_at: now.plus(Duration::from_secs(CODE_SECONDS)),
        polled_at: None,
        interval_seconds: INTERVAL_SECONDS,
        state: State::Asked,
        session_sha256: None,
    };
    let user_code = shown(&asked.user_code);
    let taken = audit::housekeeping(app, Scope::System, move |tx| {
        store::forget_asked(tx, now)?;
        match room(&store::waiting(tx, WAITING_READ_MAX)?, address) {
            Room::Free => {}
            Room::InPlaceOf(oldest) => drop(store::evict_asked(tx, &oldest)?),
            Room::None => return Ok(false),
        }
        store::insert_asked(tx, &asked)?;
        Ok(true)
    });
    if taken.await? {
        Ok(Begun {
            device_code,
            user_code,
        })
    } else {
        Err(RATE_LIMITED
            .detail("Too many programs wait to be let in. Try again in ten minutes.")
            .into())
    }
}

/// What a person is asked who typed a code.
#[derive(Debug, Clone)]
pub struct Question {
    /// As it is typed, with a hyphen.
    pub code: String,
    pub label: String,
    pub address: String,
    pub asked_at: Timestamp,
    /// What the program would be able to do, of what the person may do now.
    pub scopes: Vec<(&'static str, &'static str)>,
    /// What it asked for that the person may not do.
    pub left_out: Vec<String>,
}

/// Finds the program of a code.
pub async fn find(app: &App, permit: &PagePermit, code: &str) -> Result<Question, Problem> {
    let asked = look_up(app, permit, code).await?;
    let held = &permit.held().scopes;
    let most = if asked.scopes.is_empty() {
        held
    } else {
        &asked.scopes
    };
    let given = scope::ALL
        .iter()
        .filter(|(name, _)| scope::holds(most, name) && scope::holds(held, name));
    Ok(Question {
        code: shown(&asked.user_code),
        label: asked.label,
        address: asked.address,
        asked_at: asked.created_at,
        scopes: given.copied().collect(),
        left_out: scope::missing(&asked.scopes, held)
            .into_iter()
            .map(str::to_owned)
            .collect(),
    })
}

async fn look_up(app: &App, permit: &PagePermit, code: &str) -> Result<Asked, Problem> {
    let now = app.clock.now();
    let person = (permit.tenant(), permit.author().actor.id.clone());
    if app.mistyped.count(&person, now) >= MISTYPED_MAX {
        return Err(RATE_LIMITED.detail("Too many codes were wrong. Try again in ten minutes."));
    }
    let found = match typed(code) {
        None => None,
        Some(code) => {
            app.db
                .read(Scope::System, move |tx| {
                    Ok::<_, Problem>(store::asked_by_code(tx, &code)?)
                })
                .await?
        }
    };
    let is_ours = |asked: &Asked| asked.tenant == permit.tenant() || asked.tenant.uuid().is_nil();
    let found = found.filter(|asked| asked.state == State::Asked && asked.expires_at > now && is_ours(asked));
    found.ok_or_else(|| {
        app.mistyped.add(person, now);
        NOT_FOUND.detail("No program waits with this code. Codes live ten minutes and are used once; look at the other screen.")
    })
}

/// Lets a program in as the person, or turns it away. Letting in needs a fresh proof of who the person is.
pub async fn decide(app: &App, permit: &PagePermit, code: &str, state: State) -> Result<(), Problem> {
    let now = app.clock.now();
    crate::access::visits::refuse(permit.author())?;
    if state == State::Allowed {
        permit.require_fresh(now)?;
    }
    let asked = look_up(app, permit, code).await?;
    let held = &permit.held().scopes;
    if state == State::Allowed
        && !asked.scopes.is_empty()
        && crate::access::shared_scopes(&asked.scopes, held).is_empty()
    {
        return Err(INVALID.detail("You hold nothing of what the program asks for."));
    }
    let (tenant, hash, person) = (permit.tenant(), permit.hash, permit.author().actor.id.clone());
    // The program belongs to nobody until now. That it becomes the tenant's lets nobody in.
    let code = asked.user_code.clone();
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::claim_asked(tx, tenant, &code)?)
    })
    .await?;
    audit::commit(app, permit.author(), move |tx| {
        let session = (state == State::Allowed).then(|| hash.as_bytes().as_slice());
        let at = tx.at();
        if store::decide(tx, tenant, &asked.user_code, (state, session), at)? == 0 {
            return Err(NOT_FOUND.detail("Somebody decided about this program just now."));
        }
        let action = match state {
            State::Allowed => "access.device_login_allowed",
            State::Asked | State::Refused => "access.device_login_refused",
        };
        let told =
            serde_json::json!({"label": asked.label, "address": asked.address, "scopes": asked.scopes});
        tx.record(action, ("user", person.clone()), told).map(drop)
    })
    .await
}

/// What a program gets that was let in.
#[derive(Debug)]
pub struct LetIn {
    pub token: String,
    pub seconds: i64,
    pub scope: String,
}

/// Answers a program that asks whether it was let in (RFC 8628, section 3.5).
pub async fn poll(app: &App, device_code: &str) -> Result<LetIn, Failure> {
    if device_code.is_empty() || device_code.len() > CODE_BYTES_MAX {
        return Err(Failure::of("invalid_request", "Send the device_code."));
    }
    let (hash, now) = (sha256(device_code.as_bytes()), app.clock.now());
    let asked = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::asked_by_device(tx, hash.as_bytes())?)
        })
        .await?;
    let Some(asked) = asked.filter(|asked| asked.expires_at > now) else {
        return Err(Failure::of(
            "expired_token",
            "The code is unknown, was used, or has expired. Ask for a new one.",
        ));
    };
    if asked.state == State::Asked {
        return Err(wait(app, hash, &asked, now).await?);
    }
    let session = asked.session_sha256.as_deref().and_then(Digest::from_slice);
    let (State::Allowed, Some(session)) = (asked.state, session) else {
        take(app, asked.tenant, hash).await?;
        return Err(denied("The person refused."));
    };
    let standing = app
        .db
        .read(Scope::System, move |tx| session::standing(tx, &session, now))
        .await?;
    let Some(standing) = standing else {
        take(app, asked.tenant, hash).await?;
        return Err(denied("The person who allowed it is not signed in any more."));
    };
    let scope = match asked.scopes.as_str() {
        "" => standing.held.scopes.clone(),
        most => crate::access::shared_scopes(&standing.held.scopes, most),
    };
    let row = &standing.row;
    let settings = &standing.settings;
    let mut seconds = SESSION_SECONDS_MAX.min(settings.session_seconds);
    if row.connection.is_some() {
        // What the connection or the provider said of the length holds for what the person lets in.
        let left = row.expires_at.since(now).as_secs();
        seconds = seconds.min(left.max(1));
    }
    let (method, made_by, roles, member_of) = (
        row.method.clone(),
        row.made_by.clone(),
        row.roles.clone(),
        row.member_of.clone(),
    );
    let (connection, authenticated_at, most) = (row.connection, row.authenticated_at, asked.scopes);
    let (provider_session, provider_name) = (row.provider_session.clone(), row.provider_name.clone());
    let (tenant, idle_seconds) = (standing.row.tenant, row.idle_seconds);
    let routed = row.routed.clone();
    let author = standing.author();
    let begun = audit::commit(app, &author, move |tx| {
        // Of two polls at once, one takes it.
        if store::take_asked(tx, tenant, hash.as_bytes())? == 0 {
            return Ok(None);
        }
        let new = NewSession {
            method: method.clone().into(),
            made_by: made_by.clone(),
            roles: roles.clone(),
            connection,
            // Whoever signs out at the provider ends what they let in.
            provider_session: provider_session.clone(),
            provider_name: provider_name.clone(),
            member_of: member_of.clone(),
            authenticated_at,
            idle_seconds,
            session_seconds: Some(seconds),
            kind: SessionKind::Api,
            scopes: most.clone(),
            routed: routed.clone(),
        };
        session::start(tx, new).map(Some)
    });
    let token = begun
        .await?
        .ok_or_else(|| Failure::of("expired_token", "The code was used."))?;
    Ok(LetIn {
        token,
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        scope,
    })
}

fn denied(why: &str) -> Failure {
    Failure::of("access_denied", why)
}

async fn take(app: &App, tenant: TenantId, hash: Digest) -> Result<(), Problem> {
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::take_asked(tx, tenant, hash.as_bytes())?)
    })
    .await
    .map(drop)
}

/// Says that nobody decided yet, or that the program asks too often.
async fn wait(app: &App, hash: Digest, asked: &Asked, now: Timestamp) -> Result<Failure, Problem> {
    let early = Duration::from_secs(u64::try_from(asked.interval_seconds).unwrap_or(1));
    // Networks are not that even: half a second is forgiven.
    let is_early = asked
        .polled_at
        .is_some_and(|at| now.since(at) + Duration::from_millis(500) < early);
    let interval = if is_early {
        (asked.interval_seconds + 5).min(INTERVAL_SECONDS_MAX)
    } else {
        asked.interval_seconds
    };
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::polled(tx, hash.as_bytes(), now, interval)?)
    })
    .await?;
    Ok(if is_early {
        Failure::of("slow_down", format!("Ask every {interval} seconds from now on."))
    } else {
        Failure::of("authorization_pending", "Nobody has decided yet.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_eight_letters_of_twenty_each_as_likely() {
        let mut drawn = 0_u32;
        let mut drawing = || {
            drawn += 1;
            *sha256(&drawn.to_be_bytes()).as_bytes()
        };
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..3000 {
            for letter in letters(&mut drawing).bytes() {
                *counts.entry(letter).or_insert(0_u32) += 1;
            }
        }
        assert_eq!(counts.len(), LETTERS.len());
        let (least, most) = (counts.values().min(), counts.values().max());
        assert!(
            most.zip(least).is_some_and(|(most, least)| most - least < 200),
            "{counts:?}"
        );
    }

    #[test]
    fn people_type_codes_as_they_like() {
        for text in ["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "bcdf--ghjk"] {
            assert_eq!(typed(text).as_deref(), Some("BCDFGHJK"), "{text}");
        }
        for text in ["", "BCDF-GHJ", "BCDF-GHJKL", "ABCD-EFGH", "BCDF_GHJK", "ÄCDFGHJK"] {
            assert_eq!(typed(text), None, "{text}");
        }
        assert_eq!(shown("BCDFGHJK"), "BCDF-GHJK");
    }

    #[test]
    fn whoever_asks_from_everywhere_shuts_nobody_out() {
        let waits = |number: usize, address: String, is_claimed: bool| Waiting {
            device_sha256: number.to_be_bytes().to_vec(),
            address: address.parse().ok(),
            asked_at: Timestamp::from_unix_seconds(1_800_000_000 + number as i64),
            is_claimed,
        };
        let from = |text: &str| text.parse::<IpAddr>().ok();
        // An honest one, the oldest, and one that a person has claimed, among those of somebody with many networks.
        let mut waiting = vec![
            waits(0, "192.0.2.1".to_owned(), false),
            waits(1, "2001:db8:1::1".to_owned(), true),
        ];
        for number in 2..WAITING_MAX {
            let (net, host) = (number % 20, number);
            waiting.push(waits(number, format!("2001:db8:{net:x}:{host:x}::1"), false));
        }
        assert_eq!(
            room(&waiting, from("198.51.100.7")),
            Room::InPlaceOf(2_usize.to_be_bytes().to_vec())
        );
        // Few addresses of one network: those at the bound are refused, and nobody else.
        let few = |count: usize, of: fn(usize) -> String| -> Vec<Waiting> {
            (0..count)
                .map(|number| waits(number, of(number), false))
                .collect()
        };
        let one = few(WAITING_FROM_ONE_MAX, |_| "2001:db8::1".to_owned());
        assert_eq!(room(&one, from("2001:db8::2")), Room::None);
        assert_eq!(room(&one, from("2001:db8:0:1::2")), Room::Free);
        let around = few(WAITING_FROM_AROUND_MAX, |number| {
            format!("2001:db8:0:{number:x}::1")
        });
        assert_eq!(room(&around, from("2001:db8:0:ffff::2")), Room::None);
        assert_eq!(room(&around, from("2001:db8:1::2")), Room::Free);
        let around = few(WAITING_FROM_AROUND_MAX, |number| format!("192.0.2.{number}"));
        assert_eq!(room(&around, from("192.0.2.200")), Room::None);
        assert_eq!(room(&around, from("192.0.3.200")), Room::Free);
        // Nobody who is claimed goes.
        let claimed: Vec<Waiting> = waiting
            .iter()
            .map(|one| Waiting {
                is_claimed: true,
                ..one.clone()
            })
            .collect();
        assert_eq!(room(&claimed, from("198.51.100.7")), Room::None);
    }

    #[test]
    fn whoever_tries_codes_out_is_stopped_for_a_while() {
        let (mistyped, person) = (
            Mistyped::default(),
            (TenantId::from_uuid(uuid::Uuid::nil()), "mara".to_owned()),
        );
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        for _ in 0..MISTYPED_MAX {
            mistyped.add(person.clone(), now);
        }
        assert_eq!(mistyped.count(&person, now), MISTYPED_MAX);
        assert_eq!(mistyped.count(&person, now.plus(MISTYPED_WITHIN)), 0);
    }
}
