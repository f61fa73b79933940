//! Who presents a token of the API, and what it may do at this moment.

use muster_model::{SessionId, Timestamp};

use super::{Author, people, scope, session::Standing};

/// Who presented a token, and what it may do now.
pub struct Caller {
    pub author: Author,
    pub scopes: String,
    /// The roles behind them.
    pub roles: Vec<String>,
    /// What the person may do besides, shortly after they proved who they are.
    pub held_back: String,
    /// Whether it is a person who did not prove who they are a short time ago.
    pub is_stale: bool,
    /// The session behind it, where there is one.
    pub session: Option<SessionId>,
}

impl Caller {
    /// A person, by a program. What needs a fresh proof in the console needs one here.
    pub(super) fn of_person(author: Author, held: people::Held, is_fresh: bool) -> Caller {
        let (scopes, held_back) = held_now(&held.scopes, is_fresh);
        Caller {
            author,
            scopes,
            roles: held.roles(),
            held_back,
            is_stale: !is_fresh,
            session: None,
        }
    }
}

/// What a person may do of what they hold, and what only after a fresh proof.
pub(super) fn held_now(scopes: &str, is_fresh: bool) -> (String, String) {
    let (held_back, now): (Vec<&str>, Vec<&str>) = scopes
        .split_whitespace()
        .partition(|name| !is_fresh && scope::NEEDS_PROOF.contains(name));
    (now.join(" "), held_back.join(" "))
}

/// The person of a session, with what they may do now.
pub(super) fn caller_of(session: Standing, now: Timestamp) -> Caller {
    let is_fresh = session.is_fresh(now);
    let id = session.row.id;
    Caller {
        session: id,
        ..Caller::of_person(session.author(), session.held, is_fresh)
    }
}
