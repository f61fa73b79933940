//! The signed-in person behind a page request, and the parts of a request, refused as pages.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{Method, request::Parts},
    response::{IntoResponse, Response},
};
use muster_control::{
    App,
    access::{
        PagePermit, Permit,
        problem::{INVALID, NOT_FOUND, Problem, UNAUTHENTICATED},
        scope::{self, Scopes},
    },
    commands,
};
use muster_model::TenantId;
use muster_storage::Scope;
use serde::de::DeserializeOwned;

use crate::{
    look::Look,
    shell::{Halted, Person, Refusal, Section, Shell, Visiting, see_other},
    ui::{self, When},
};

/// What a form did, as the address of the next page carries it: a word of this list, never free text.
const NOTICES: &[(&str, &str)] = &[
    (
        "connection-saved",
        "The connection is saved. Enter its addresses at the provider, then test it.",
    ),
    ("connection-removed", "The connection is removed."),
    (
        "routing-saved",
        "The rules are saved. A rule to another tenant counts as soon as that tenant accepts the connection.",
    ),
    (
        "routing-removed",
        "The connection routes nobody any more. Its people belong to this tenant.",
    ),
    (
        "routing-accepted",
        "It is accepted. Give roles to groups of the connection, so that its people may do something.",
    ),
    (
        "routing-withdrawn",
        "Nobody comes by the connection any more. Who came is signed out.",
    ),
    (
        "held-decided",
        "It is decided. The person's next sign-in follows it.",
    ),
    ("own-devices-changed", "It is changed."),
    (
        "visit-asked",
        "It is asked. When the tenant has granted it, begin the visit here.",
    ),
    (
        "visit-open",
        "The tenant lets you in without asking. Begin the visit here.",
    ),
    ("visit-granted", "It is granted. Both logs say so."),
    ("visit-denied", "It is denied."),
    (
        "visit-ended",
        "The visit is over. Both logs say what was changed.",
    ),
    (
        "operator-access-changed",
        "It is changed. Visits that are beyond it are over.",
    ),
    (
        "role-given",
        "The role is given. It counts from the next click on.",
    ),
    (
        "role-taken",
        "The role is taken away. It is gone with the next click.",
    ),
    ("role-defined", "The role is defined."),
    ("role-removed", "The role is removed."),
    (
        "person-disabled",
        "The person is disabled, and their sessions are ended.",
    ),
    ("person-enabled", "The person may sign in again."),
    ("session-ended", "The session is ended."),
    (
        "program-let-in",
        "The program is let in. Go back to it. Your sessions are under Access, where it can be ended.",
    ),
    ("program-refused", "The program is refused. It gets nothing."),
    ("settings-changed", "The limits are changed."),
    (
        "proven",
        "You have proven who you are. Do what you were about to do again.",
    ),
    (
        "alert-acknowledged",
        "You look after it. Whoever was told hears so.",
    ),
    ("alert-resolved", "It is over. Whoever was told hears so."),
    ("alert-silenced", "Nobody is told while the silence lasts."),
    (
        "silence-ended",
        "The silence is over. What still fires is told now.",
    ),
    (
        "destination-saved",
        "It is saved. Send it a test message to see whether it arrives.",
    ),
    (
        "destination-removed",
        "It is removed. Nothing is sent there any more.",
    ),
    ("message-replayed", "The message is sent again."),
    ("sink-saved", "It is saved. Test it to see whether events arrive."),
    ("sink-removed", "It is removed. Nothing is sent there any more."),
    ("sink-paused", "Nothing is sent to the sink. Events wait."),
    ("sink-resumed", "The sink goes on where it was paused."),
    ("sink-letters-replayed", "What was set aside is sent again."),
    (
        "test-sent",
        "Two test messages are on their way: one that begins, one that ends.",
    ),
    (
        "command-sent",
        "The command is queued. A connected device gets it at once.",
    ),
    ("command-cancelled", "The command is cancelled."),
    (
        "branding-saved",
        "It is saved. This is how your people see it now.",
    ),
    ("logo-removed", "The logo is removed."),
    (
        "limits-changed",
        "The limits are set. They count on every node within seconds.",
    ),
    (
        "command-asked",
        "The command waits: people must look at it before a device gets it.",
    ),
    (
        "operation-asked",
        "It is asked. The devices get it as soon as nothing stands before it.",
    ),
    (
        "people-asked",
        "This asks less of many devices, so people must approve it first. They are asked here; do it again when they have.",
    ),
    (
        "approved",
        "Your approval counts. It is stored, and devices will check it themselves.",
    ),
    (
        "request-rejected",
        "It is rejected. Nothing of it is carried out.",
    ),
    ("released", "It is released. Its commands are being made."),
    (
        "operation-cancelled",
        "It is cancelled. What no device was handed is not carried out.",
    ),
    (
        "halted",
        "Nothing but harmless commands is delivered from now on.",
    ),
    ("halt-lifted", "Commands are delivered again."),
    (
        "tenant-suspended",
        "The tenant is suspended: nobody of it gets in, and its devices come later.",
    ),
    ("tenant-resumed", "The tenant goes on where it was."),
    (
        "rotation-asked",
        "The server rotates it within seconds. What is in use stays good meanwhile.",
    ),
    (
        "passkey-made",
        "The passkey is made. Hand its public key to whoever holds the root key.",
    ),
    (
        "passkey-removed",
        "The passkey is forgotten here. A root document that names it still does.",
    ),
    (
        "accepted",
        "The device is accepted. Whoever held its hardware ids is retired.",
    ),
    ("rejected", "The device is rejected and retired."),
    (
        "kept",
        "Both devices are active. The hardware ids stay with the one that had them first.",
    ),
    (
        "enrollment-policy-changed",
        "The enrollment policy is changed. It counts for every enrollment from now on.",
    ),
    (
        "retired",
        "The device is retired and its certificates are revoked.",
    ),
    (
        "revoked",
        "The device's certificates are revoked. It must enroll again.",
    ),
    (
        "labels-changed",
        "The labels are changed, and with them the device's groups.",
    ),
    ("group-created", "The group exists. Devices are being looked at."),
    (
        "group-changed",
        "The group is changed. Devices are being looked at.",
    ),
    ("group-deleted", "The group is deleted."),
    ("query-saved", "The question is saved."),
    ("query-deleted", "The question is deleted, with its answers."),
    ("policy-created", "The policy exists. Give it a first version."),
    (
        "version-created",
        "The version is signed and will never change. Activate it to reach devices.",
    ),
    (
        "version-repeated",
        "This version existed already with the same content.",
    ),
    ("activated", "The rollout has begun."),
    (
        "rollout-paused",
        "The rollout is paused. Devices that have it keep it.",
    ),
    ("rollout-resumed", "The rollout goes on."),
    ("rollout-promoted", "The rollout was promoted."),
    ("rollout-aborted", "The rollout is aborted. Its devices go back."),
    (
        "rollout-rolled-back",
        "The rollout is rolled back. Its devices go back.",
    ),
];

/// A signed-in person. Whoever is not signed in is sent to the sign-in page and back again.
#[derive(Debug, Clone)]
pub struct Session {
    permit: PagePermit,
    notice: Option<&'static str>,
    halted: Option<Halted>,
    look: Look,
    visiting: Option<Visiting>,
}

impl Session {
    pub fn tenant(&self) -> TenantId {
        self.permit.tenant()
    }

    pub fn page_permit(&self) -> &PagePermit {
        &self.permit
    }

    /// The permit for an action of the page.
    pub fn permit<S: Scopes>(&self) -> Result<Permit<S>, Problem> {
        self.permit.permit()
    }

    /// Refuses what is done only shortly after proving who one is; the refusal leads to where that is done.
    pub fn require_fresh(&self, app: &App) -> Result<(), Problem> {
        self.permit.require_fresh(app.clock.now())
    }

    /// Whether the person holds a scope: for what a page shows and offers.
    pub fn may(&self, scope: &str) -> bool {
        scope::holds(&self.permit.held().scopes, scope)
    }

    /// What surrounds a page of this person.
    pub fn shell(&self, title: impl Into<String>, section: Section) -> Shell {
        let person = Person {
            name: self.permit.display_name().to_owned(),
            csrf: self.permit.csrf().to_owned(),
            scopes: self.permit.held().scopes.clone(),
        };
        Shell {
            notice: self.notice,
            halted: self.halted.clone(),
            look: self.look.clone(),
            visiting: self.visiting.clone(),
            is_visit_over: self.permit.is_visit_over(),
            ..Shell::new(title, section, Some(person))
        }
    }
}

impl FromRequestParts<App> for Session {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match PagePermit::from_request_parts(parts, app).await {
            Ok(permit) => {
                let (halted, look) = surroundings(app, &permit)
                    .await
                    .map_err(|problem| Refusal(problem).into_response())?;
                let now = app.clock.now();
                let visiting = permit.visit().map(|visit| Visiting {
                    tenant: visit.tenant_name.clone(),
                    person: visit.person.clone(),
                    role: visit.role.clone(),
                    until: When::new(visit.ends_at, now),
                });
                Ok(Session {
                    visiting,
                    permit,
                    notice: notice(parts.uri.query()),
                    halted,
                    look,
                })
            }
            Err(problem) if problem.kind == UNAUTHENTICATED && parts.method == Method::GET => {
                let wanted = parts.uri.path_and_query().map_or("/", |path| path.as_str());
                Err(see_other(&format!("/signin?next={}", encode(wanted))))
            }
            Err(problem) => Err(Refusal(problem).into_response()),
        }
    }
}

/// Every page says while the delivery of commands is halted, and looks as its tenant does.
async fn surroundings(app: &App, permit: &PagePermit) -> Result<(Option<Halted>, Look), Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let (halt, look) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>((commands::halt_of(tx, tenant)?, Look::read(tx, tenant)?))
        })
        .await?;
    let halted = halt.map(|halt| Halted {
        at: When::new(halt.at, now),
        by: ui::author(&halt.by),
        because: halt.because,
    });
    Ok((halted, look))
}

/// Typed parameters of a path, refused as a page.
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(value)) => Ok(At(value)),
            Err(_) => Err(Refusal(NOT_FOUND.detail("There is nothing at this address."))),
        }
    }
}

/// Typed parameters of a query, refused as a page. Unknown ones are ignored: links get old.
pub struct Ask<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Ask<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, app).await {
            Ok(Query(value)) => Ok(Ask(value)),
            Err(_) => Err(Refusal(
                INVALID.detail("The address has a parameter that this page does not understand."),
            )),
        }
    }
}

/// Whether a path is one of ours to go on to after signing in: never another site.
pub fn local_path(text: &str) -> &str {
    let is_local = text.starts_with('/')
        && !text.starts_with("//")
        && !text.contains('\\')
        && !text.starts_with("/signin")
        && text.chars().all(|char| char.is_ascii_graphic());
    if is_local { text } else { "/" }
}

/// A text as a part of a query (RFC 3986 §2.1).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A limit of rows as storage takes it.
pub fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Reads an id or a cursor of a page's address.
pub fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|_| NOT_FOUND.detail("There is nothing at this address."))
}

fn notice(query: Option<&str>) -> Option<&'static str> {
    let word = query?.split('&').find_map(|pair| pair.strip_prefix("notice="))?;
    NOTICES
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, sentence)| *sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_paths_are_gone_on_to() {
        for (given, expected) in [
            ("/devices?filter=a%20b", "/devices?filter=a%20b"),
            ("//evil.example/", "/"),
            ("https://evil.example/", "/"),
            ("/\\evil.example", "/"),
            ("/signin?next=/", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
            ("", "/"),
        ] {
            assert_eq!(local_path(given), expected, "{given}");
        }
    }

    #[test]
    fn a_notice_is_one_of_ours() {
        assert!(notice(Some("a=b&notice=retired")).is_some());
        assert_eq!(notice(Some("notice=%3Cscript%3E")), None);
    }

    #[test]
    fn encoded_text_has_no_special_characters() {
        assert_eq!(encode("a b&c=\"é\"/"), "a%20b%26c%3D%22%C3%A9%22%2F");
    }
}
