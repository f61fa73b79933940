//! What a visit may be and become. Pure.

use std::time::Duration;

use muster_model::{CommandKind, Timestamp};

use crate::access::{problem::INVALID, problem::Problem, roles, scope};

/// The longest visit.
pub const MINUTES_MAX: u32 = 8 * 60;
/// How long a request waits for an answer, and a granted visit to be begun.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// Who decided, of a visit that nobody was asked for.
pub const BY_SETTING: &str = "setting";
const REASON_CHARS: std::ops::RangeInclusive<usize> = 1..=500;
/// The role that a tenant's ceiling is at first.
pub const FIRST_CEILING: &str = "read_only";

/// The built-in roles that a visit can have, the one with the least first.
pub const ROLES: &[&str] = &["read_only", "auditor", "helpdesk", "operator"];

/// What a visit can hold at most, whatever its role gives: a new scope is not among them until somebody writes it here. Looking, and
/// the work on devices that destroys nothing. Never what lets somebody in, what is believed or told, what outlives the visit as a
/// credential, and what releases what others asked for.
const VISITABLE: &[&str] = &[
    "device:read",
    "group:read",
    "group:write",
    "command:read",
    "output:read",
    "script:read",
    "command:write",
    "token:read",
    "policy:read",
    "telemetry:read",
    "directory:read",
    "rollout:read",
    "rollout:write",
    "alert:read",
    "sink:read",
    "signal:read",
    "query:write",
    "log:read",
    "client:read",
    "secret:read",
    "root:read",
    "access:read",
];

/// What a visitor's transaction may write into the log, by how the actions begin. It is the second lock behind the scopes: a page or a
/// call that was forgotten is refused with the transaction.
const RECORDABLE: &[&str] = &[
    "command.",
    "group.",
    "operation.asked",
    "operation.cancelled",
    // An alarm about the visitor changes nothing, and is for the tenant's people.
    "policy.bundle_tampered",
    "query.",
    "rollout.",
    "security.",
];
/// What of that releases what somebody else held.
const NOT_RECORDABLE: &[&str] = &["rollout.promoted", "rollout.resumed"];

/// Whether a visitor does what this action says.
pub fn may_record(action: &str) -> bool {
    RECORDABLE.iter().any(|start| action.starts_with(start)) && !NOT_RECORDABLE.contains(&action)
}

/// The first action of these that no visit is for.
pub fn overstep(actions: &[&'static str]) -> Option<&'static str> {
    actions.iter().copied().find(|action| !may_record(action))
}

/// Whether a visitor sends such a command: it locks, looks or tells. Nothing that installs, removes, updates or runs, takes away what
/// somebody else set, restarts, or fetches files.
pub const fn may_send(kind: &CommandKind) -> bool {
    match kind {
        CommandKind::Lock { .. }
        | CommandKind::Locate {}
        | CommandKind::CollectInventory {}
        | CommandKind::CollectLogs { .. }
        | CommandKind::Message { .. } => true,
        CommandKind::Unlock {}
        | CommandKind::ClearPasscode {}
        | CommandKind::Restart { .. }
        | CommandKind::ShutDown { .. }
        | CommandKind::Wipe { .. }
        | CommandKind::Unenroll {}
        | CommandKind::LostModeOn { .. }
        | CommandKind::LostModeOff {}
        | CommandKind::InstallApp { .. }
        | CommandKind::RemoveApp { .. }
        | CommandKind::UpdateApp { .. }
        | CommandKind::RunScript { .. }
        | CommandKind::CollectFiles { .. }
        | CommandKind::RotateKey { .. }
        | CommandKind::UpdateOs {}
        | CommandKind::UpdateAgent { .. }
        | CommandKind::LoosenPolicy { .. } => false,
    }
}

/// Whether a setting lets a visit stand in this role; `by_setting` where no person of the tenant granted it. What only `always` granted
/// ends with `always`.
pub fn lets_stand((mode, ceiling): (Mode, &str), role: &str, by_setting: bool) -> bool {
    let is_meant = match mode {
        Mode::Never => false,
        Mode::Ask => !by_setting,
        Mode::Always => true,
    };
    is_meant && is_within(role, ceiling)
}

/// How far a tenant lets people of the operator's tenant in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Never,
    /// Each visit is granted by a person of the tenant.
    Ask,
    /// Within the ceiling.
    Always,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Never, Mode::Ask, Mode::Always];

    pub const fn word(self) -> &'static str {
        match self {
            Mode::Never => "never",
            Mode::Ask => "ask",
            Mode::Always => "always",
        }
    }

    pub fn parse(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

/// Where a visit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Requested,
    Granted,
    Denied,
    /// Nobody answered, or nobody came.
    Expired,
    Active,
    Ended,
}

impl State {
    pub const ALL: [State; 6] = [
        State::Requested,
        State::Granted,
        State::Denied,
        State::Expired,
        State::Active,
        State::Ended,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            State::Requested => "requested",
            State::Granted => "granted",
            State::Denied => "denied",
            State::Expired => "expired",
            State::Active => "active",
            State::Ended => "ended",
        }
    }

    /// A word that nobody here wrote lets nobody in.
    pub fn read(word: &str) -> State {
        let known = State::ALL.into_iter().find(|state| state.word() == word);
        known.unwrap_or(State::Ended)
    }

    /// Whether something can still become of it.
    pub const fn is_open(self) -> bool {
        match self {
            State::Requested | State::Granted | State::Active => true,
            State::Denied | State::Expired | State::Ended => false,
        }
    }
}

/// Why a visit is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Whoever visited left, or took the request back.
    Visitor,
    /// Somebody else of the operator's tenant called them back.
    Home,
    /// The visited tenant ended it.
    Visited,
    /// The visited tenant lets less in from now on.
    Setting,
    Time,
    /// The visit's session ended, or the one at home on which it stood: signed out, idle, disabled, without the role.
    Session,
    /// One of the two tenants is suspended.
    Suspended,
}

impl Because {
    pub const fn word(self) -> &'static str {
        match self {
            Because::Visitor => "visitor",
            Because::Home => "home",
            Because::Visited => "visited",
            Because::Setting => "setting",
            Because::Time => "time",
            Because::Session => "session",
            Because::Suspended => "suspended",
        }
    }
}

/// What a visit in this role may do; nothing for what is no role of visits.
pub fn scopes_of(role: &str) -> Option<String> {
    let role = ROLES.contains(&role).then(|| roles::find(role)).flatten()?;
    let held = VISITABLE
        .iter()
        .copied()
        .filter(|name| scope::holds(&role.scopes, name));
    Some(scope::union(held))
}

/// Whether a role is within a ceiling: it does no more, or only looks. Whatever the role, a visit holds what the ceiling holds too.
pub fn is_within(role: &str, ceiling: &str) -> bool {
    match (scopes_of(role), scopes_of(ceiling)) {
        (Some(held), Some(most)) => role == FIRST_CEILING || scope::missing(&held, &most).is_empty(),
        _ => false,
    }
}

/// The roles within a ceiling.
pub fn within(ceiling: &str) -> Vec<&'static str> {
    let fits = |role: &&&str| is_within(role, ceiling);
    ROLES.iter().filter(fits).copied().collect()
}

/// Refuses what is no role of visits.
pub fn check_role(role: &str) -> Result<(), Problem> {
    if ROLES.contains(&role) {
        return Ok(());
    }
    Err(INVALID.detail(format!("The role of a visit is one of {}.", ROLES.join(", "))))
}

/// Refuses what cannot be asked for.
pub fn check(reason: &str, role: &str, minutes: u32) -> Result<(), Problem> {
    if !REASON_CHARS.contains(&reason.chars().count()) || reason.chars().any(char::is_control) {
        return Err(INVALID.detail("reason: say in 1 to 500 characters on one line what the visit is for."));
    }
    check_role(role)?;
    check_minutes(minutes)
}

pub fn check_minutes(minutes: u32) -> Result<(), Problem> {
    if (1..=MINUTES_MAX).contains(&minutes) {
        return Ok(());
    }
    Err(INVALID.detail(format!("minutes: 1 to {MINUTES_MAX}.")))
}

/// What time makes of a visit that nobody touches.
pub fn overdue(state: State, answer_by: Timestamp, ends_at: Option<Timestamp>, now: Timestamp) -> bool {
    match state {
        State::Requested | State::Granted => answer_by <= now,
        State::Active => ends_at.is_none_or(|end| end <= now),
        State::Denied | State::Expired | State::Ended => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_visit_holds_what_lets_in_releases_destroys_or_needs_a_proof() {
        for role in ROLES {
            let held = scopes_of(role).expect("it is a role");
            assert!(!held.is_empty());
            for never in [
                "approval:write",
                "policy:activate",
                "halt:write",
                "token:write",
                "tenant:enter",
                "tenant:read",
                "visit:manage",
                "config:read",
                "config:write",
            ]
            .iter()
            .chain(scope::NEEDS_PROOF)
            {
                assert!(!scope::holds(&held, never), "{role} holds {never}");
            }
        }
        for role in ["owner", "administrator", "security", "nobody", ""] {
            assert_eq!(scopes_of(role), None);
        }
    }

    #[test]
    fn every_visitable_scope_is_one_and_a_role_of_visits_gives_it() {
        for name in VISITABLE {
            assert!(scope::exists(name), "{name}");
            let given = |role: &&str| scope::holds(&scopes_of(role).unwrap_or_default(), name);
            assert!(ROLES.iter().any(given), "{name}");
        }
    }

    #[test]
    fn a_ceiling_lets_in_what_does_no_more() {
        assert_eq!(within("read_only"), ["read_only"]);
        assert_eq!(within("auditor"), ["read_only", "auditor"]);
        assert_eq!(within("helpdesk"), ["read_only", "helpdesk"]);
        assert!(is_within("helpdesk", "operator") && !is_within("auditor", "operator"));
        assert!(within("owner").is_empty() && !is_within("owner", "owner"));
    }

    #[test]
    fn a_visitor_releases_nothing_and_touches_no_access() {
        for action in [
            "command.created",
            "group.updated",
            "rollout.paused",
            "query.saved",
            // What tells of them.
            "security.mass_command",
            "security.destructive_refused",
            "policy.bundle_tampered",
        ] {
            assert!(may_record(action), "{action}");
        }
        for action in [
            "rollout.promoted",
            "rollout.resumed",
            "operation.approved",
            "operation.released",
            "commands.halted",
            "passkey.made",
            "client.created",
            "session.stepped_up",
            "visit.granted",
            "tenant.suspended",
            "policy.created",
        ] {
            assert!(!may_record(action), "{action}");
        }
        assert_eq!(
            overstep(&["command.created", "client.created"]),
            Some("client.created")
        );
        assert_eq!(overstep(&["command.created"]), None);
    }

    #[test]
    fn a_visitor_locks_looks_and_tells_and_sends_nothing_else() {
        let kind = |json: &str| CommandKind::parse(json.as_bytes()).expect("it is a command");
        for json in [
            r#"{"type":"lock"}"#,
            r#"{"type":"locate"}"#,
            r#"{"type":"collect-inventory"}"#,
            r#"{"type":"collect-logs"}"#,
            r#"{"type":"message","text":"hello"}"#,
        ] {
            assert!(may_send(&kind(json)), "{json}");
        }
        for json in [
            r#"{"type":"install-app","package":"sudo"}"#,
            r#"{"type":"remove-app","package":"sudo"}"#,
            r#"{"type":"update-app","package":"sudo"}"#,
            r#"{"type":"update-os"}"#,
            r#"{"type":"clear-passcode"}"#,
            r#"{"type":"shut-down"}"#,
            r#"{"type":"restart"}"#,
            r#"{"type":"collect-files","paths":["/etc/shadow"]}"#,
            r#"{"type":"wipe","mode":"full"}"#,
            r#"{"type":"unlock"}"#,
            r#"{"type":"lost-mode-off"}"#,
        ] {
            assert!(!may_send(&kind(json)), "{json}");
        }
    }

    #[test]
    fn what_only_the_setting_granted_ends_with_the_setting() {
        for (mode, by_setting, stands) in [
            (Mode::Always, true, true),
            (Mode::Always, false, true),
            (Mode::Ask, false, true),
            (Mode::Ask, true, false),
            (Mode::Never, true, false),
            (Mode::Never, false, false),
        ] {
            let found = lets_stand((mode, "helpdesk"), "helpdesk", by_setting);
            assert_eq!(found, stands, "{mode:?} {by_setting}");
            assert!(
                !lets_stand((mode, "helpdesk"), "operator", by_setting),
                "{mode:?}"
            );
        }
    }

    #[test]
    fn a_state_is_read_as_it_is_written_and_no_other_word_is_open() {
        for state in State::ALL {
            assert_eq!(State::read(state.word()), state);
        }
        assert!(!State::read("activ").is_open());
        for mode in Mode::ALL {
            assert_eq!(Mode::parse(mode.word()), Some(mode));
        }
        assert_eq!(Mode::parse("sometimes"), None);
    }

    #[test]
    fn a_reason_is_a_line_and_a_visit_is_short() {
        assert!(check("ticket 7", "read_only", 1).is_ok());
        assert!(check(&"a".repeat(500), "operator", MINUTES_MAX).is_ok());
        for (reason, role, minutes) in [
            ("", "read_only", 1),
            ("a\nb", "read_only", 1),
            ("a", "owner", 1),
            ("a", "read_only", 0),
            ("a", "read_only", 481),
        ] {
            assert!(
                check(reason, role, minutes).is_err(),
                "{reason:?} {role} {minutes}"
            );
        }
        assert!(check(&"a".repeat(501), "read_only", 1).is_err());
    }

    #[test]
    fn time_ends_what_is_open() {
        let at = Timestamp::from_unix_seconds;
        assert!(overdue(State::Requested, at(10), None, at(10)));
        assert!(!overdue(State::Granted, at(10), None, at(9)));
        assert!(overdue(State::Active, at(0), Some(at(10)), at(10)));
        assert!(!overdue(State::Active, at(0), Some(at(10)), at(9)));
        assert!(!overdue(State::Ended, at(0), None, at(9)));
    }
}
