//! Security event tokens (RFC 8417) by the profile of the framework (SSF 1.0, section 4.1).

use std::fmt;

use muster_model::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    event::Event,
    jws,
    keys::{Algorithm, KeySet},
    reject::{Reject, RejectCode},
    subject::Subject,
};

/// The longest token that is read, in bytes.
pub const SET_BYTES_MAX: usize = 64 * 1024;
/// Events of one token.
pub const EVENTS_MAX: usize = 8;
/// How far the clocks of two sides may be apart.
pub const SKEW_SECONDS: i64 = 120;
const ID_BYTES_MAX: usize = 512;
const TYPE: &str = "secevent+jwt";

/// Whom a token must be from and for.
#[derive(Debug)]
pub struct Verifier<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
    pub keys: &'a KeySet,
    pub allowed: &'a [Algorithm],
    /// Tokens that were issued longer ago are refused.
    pub age_seconds_max: i64,
}

/// What a token says whose signature, type, issuer, audience and times were checked. Only [`Verifier::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityEvent {
    jti: String,
    issued_at: Timestamp,
    subject: Option<Subject>,
    events: Vec<Event>,
}

impl SecurityEvent {
    /// The same however often the token is delivered.
    pub fn jti(&self) -> &str {
        &self.jti
    }

    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Whom an event of the token is about.
    pub fn subject_of<'a>(&'a self, event: &'a Event) -> Option<&'a Subject> {
        self.subject.as_ref().or(event.subject.as_ref())
    }

    /// When an event happened: what it says, but never after the token was issued.
    pub fn time_of(&self, event: &Event) -> Timestamp {
        event.at.map_or(self.issued_at, |at| at.min(self.issued_at))
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    iat: f64,
    jti: String,
    aud: Audience,
    events: Events,
    #[serde(default)]
    sub_id: Option<Box<RawValue>>,
    #[serde(default)]
    exp: Option<IgnoredAny>,
}

/// One audience or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Audience::One(one) => one == wanted,
            Audience::Many(many) => many.iter().any(|one| one == wanted),
        }
    }
}

/// Events by their URI, each once.
struct Events(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EventsVisitor;
        impl<'de> Visitor<'de> for EventsVisitor {
            type Value = Events;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of events by their URIs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Events, A::Error> {
                let mut events: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((uri, payload)) = map.next_entry::<String, Box<RawValue>>()? {
                    if events.len() == EVENTS_MAX || events.iter().any(|(known, _)| *known == uri) {
                        return Err(serde::de::Error::custom("too many events, or one of them twice"));
                    }
                    events.push((uri, payload));
                }
                Ok(Events(events))
            }
        }
        deserializer.deserialize_map(EventsVisitor)
    }
}

impl Verifier<'_> {
    /// Reads a token that arrived at `now`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<SecurityEvent, Reject> {
        if token.len() > SET_BYTES_MAX {
            return Err(Reject::request("the token is longer than 64 KiB"));
        }
        let claims: Claims = jws::open(token, TYPE, self.allowed, self.keys)?;
        if claims.iss != self.issuer {
            return Err(Reject {
                code: RejectCode::InvalidIssuer,
                why: "the token is of another issuer than this source's",
            });
        }
        if !claims.aud.names(self.audience) {
            return Err(Reject {
                code: RejectCode::InvalidAudience,
                why: "the token is for another audience than this source's",
            });
        }
        if claims.exp.is_some() {
            return Err(Reject::request(
                "a security event token has no exp: an event does not end",
            ));
        }
        if claims.jti.is_empty() || claims.jti.len() > ID_BYTES_MAX {
            return Err(Reject::request("jti has 1 to 512 bytes"));
        }
        let now_seconds = now.as_unix_seconds();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is out of range saturates and is refused"
        )]
        let iat = claims.iat as i64;
        if !claims.iat.is_finite() || iat > now_seconds.saturating_add(SKEW_SECONDS) {
            return Err(Reject::request("the token was issued in the future"));
        }
        if iat < now_seconds.saturating_sub(self.age_seconds_max) {
            return Err(Reject::request("the token was issued too long ago"));
        }
        if claims.events.0.is_empty() {
            return Err(Reject::request("the token holds no event"));
        }
        let events: Vec<Event> = claims
            .events
            .0
            .iter()
            .map(|(uri, payload)| Event::parse(uri, payload.get()))
            .collect::<Result<_, _>>()?;
        Ok(SecurityEvent {
            jti: claims.jti,
            // A clock that is ahead by what is allowed must not make statements that outlive newer ones.
            issued_at: Timestamp::from_unix_seconds(iat.min(now_seconds)),
            subject: claims.sub_id.and_then(|text| Subject::parse(text.get())),
            events,
        })
    }
}
