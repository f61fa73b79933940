//! What every page has around its content, and how a refusal looks to a person.

use askama::Template;
use axum::{
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use muster_control::{
    access::{
        problem::{Explanation, FieldError, Problem, STEP_UP},
        scope,
    },
    trace::current_id,
};
use muster_storage::StorageError;

use crate::{
    assets::{ADDRESSES, Addresses},
    edge::page_of_form,
    look::Look,
    ui::When,
};

/// The entries of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Overview,
    Devices,
    Groups,
    Query,
    Health,
    Compliance,
    Policies,
    Settings,
    Rollouts,
    Commands,
    Approvals,
    Alerts,
    Log,
    Secrets,
    Tokens,
    Users,
    Access,
    Tenants,
    Branding,
    /// Pages that stand beside the navigation.
    Other,
}

/// One entry of the navigation.
pub struct NavEntry {
    pub section: Section,
    pub href: &'static str,
    pub label: &'static str,
    /// The scope without which the entry is not shown.
    pub needs: &'static str,
    /// A path on a 20 by 20 grid.
    pub icon: &'static str,
}

/// The navigation, in its order.
pub const NAVIGATION: &[NavEntry] = &[
    NavEntry {
        section: Section::Overview,
        href: "/",
        label: "Overview",
        needs: "device:read",
        icon: "M3 9.5 10 3l7 6.5V17h-5v-5H8v5H3z",
    },
    NavEntry {
        section: Section::Devices,
        href: "/devices",
        label: "Devices",
        needs: "device:read",
        icon: "M3 4h14v9H3zM7 17h6M10 13v4",
    },
    NavEntry {
        section: Section::Groups,
        href: "/groups",
        label: "Groups",
        needs: "group:read",
        icon: "M3 3.5h6v6H3zM11 3.5h6v6h-6zM3 11.5h6v5H3zM11 11.5h6v5h-6z",
    },
    NavEntry {
        section: Section::Query,
        href: "/query",
        label: "Query",
        needs: "device:read",
        icon: "M8.5 3.5a5 5 0 1 0 .01 0M12 12l5 5M6 8.5h5",
    },
    NavEntry {
        section: Section::Health,
        href: "/health",
        label: "Health",
        needs: "telemetry:read",
        icon: "M2.5 10.5h4l2-5 3 9 2-4h4",
    },
    NavEntry {
        section: Section::Compliance,
        href: "/compliance",
        label: "Compliance",
        needs: "device:read",
        icon: "M10 2.5l6 2.5v5c0 4-2.5 6.5-6 7.5-3.5-1-6-3.5-6-7.5V5zM7 10l2 2 4-4",
    },
    NavEntry {
        section: Section::Policies,
        href: "/policies",
        label: "Policies",
        needs: "policy:read",
        icon: "M5 2.5h7l3.5 3.5v11.5H5zM8 9h5M8 12.5h5",
    },
    NavEntry {
        section: Section::Rollouts,
        href: "/rollouts",
        label: "Rollouts",
        needs: "rollout:read",
        icon: "M3 14.5h4v-4h4v-4h6M13.5 3.5l3.5 3-3.5 3",
    },
    NavEntry {
        section: Section::Commands,
        href: "/commands",
        label: "Commands",
        needs: "command:read",
        icon: "M3 4h14v12H3zM6 8l2.5 2L6 12M10.5 12H14",
    },
    NavEntry {
        section: Section::Approvals,
        href: "/approvals",
        label: "Approvals",
        needs: "command:read",
        icon: "M10 3a3 3 0 1 0 .01 0M4.5 17c0-4 2.5-6 5.5-6M11.5 14.5l2 2 4-4.5",
    },
    NavEntry {
        section: Section::Alerts,
        href: "/alerts",
        label: "Alerts",
        needs: "alert:read",
        icon: "M5 14V9a5 5 0 0 1 10 0v5l1.5 1.5h-13zM8.5 17.5h3",
    },
    NavEntry {
        section: Section::Tokens,
        href: "/tokens",
        label: "Enrollment",
        needs: "token:read",
        icon: "M7 10a3.5 3.5 0 1 0 0 .01M10.5 10H17v3M14 10v2.5",
    },
    NavEntry {
        section: Section::Users,
        href: "/users",
        label: "Users",
        needs: "directory:read",
        icon: "M7.5 3.5a3 3 0 1 0 .01 0M2 16.5c0-3.5 2.5-5.5 5.5-5.5s5.5 2 5.5 5.5M13 4a2.5 2.5 0 1 1 0 5M14.5 11.5c2 .5 3.5 2.2 3.5 5",
    },
    NavEntry {
        section: Section::Log,
        href: "/log",
        label: "Log",
        needs: "log:read",
        icon: "M4 4h12M4 8h12M4 12h8M4 16h5M13.5 15l1.5 1.5 2.5-3",
    },
    NavEntry {
        section: Section::Access,
        href: "/access",
        label: "Access",
        needs: "access:read",
        icon: "M7 4a3 3 0 1 0 .01 0M2.5 16c0-3.5 2-5.5 4.5-5.5 1.2 0 2.3.5 3.1 1.3M12.5 9.5h5v4.5l-2.5 2-2.5-2z",
    },
    NavEntry {
        section: Section::Secrets,
        href: "/secrets",
        label: "Secrets",
        needs: "secret:read",
        icon: "M4.5 9h11v8h-11zM7 9V6a3 3 0 0 1 6 0v3M10 12v2",
    },
    NavEntry {
        section: Section::Tenants,
        href: "/tenants",
        label: "Tenants",
        needs: "tenant:read",
        icon: "M3 17V7l5-3v13M8 9h9v8M11 12h1M14 12h1M5 10h1M5 13h1M2 17h16",
    },
    NavEntry {
        section: Section::Branding,
        href: "/branding",
        label: "Branding",
        needs: "access:write",
        icon: "M4 16.5c2.5.5 4-.5 4-2.5l7-8.5 2 2-8.5 7M4 16.5c1-1 .5-2.5 1.5-3.3a1.8 1.8 0 0 1 2.6 2.3",
    },
    NavEntry {
        section: Section::Settings,
        href: "/settings",
        label: "Catalog",
        needs: "policy:read",
        icon: "M4 4h5v12H4zM11 4h5v12h-5zM6 7h1M13 7h1",
    },
];

/// Who is signed in.
pub struct Person {
    pub name: String,
    pub csrf: String,
    /// What they may do, with spaces between.
    pub scopes: String,
}

/// The halt switch while it is on.
#[derive(Debug, Clone)]
pub struct Halted {
    pub at: When,
    pub by: String,
    pub because: String,
}

/// In which tenant somebody of the operator's tenant is, as whom, and until when.
#[derive(Debug, Clone)]
pub struct Visiting {
    pub tenant: String,
    pub person: String,
    pub role: String,
    pub until: When,
}

/// What surrounds a page.
pub struct Shell {
    pub title: String,
    pub section: Section,
    pub person: Option<Person>,
    /// What the form before this page did.
    pub notice: Option<&'static str>,
    /// Whether the delivery of commands is halted.
    pub halted: Option<Halted>,
    /// How the tenant looks.
    pub look: Look,
    /// Of a visit to another tenant: every page says so.
    pub visiting: Option<Visiting>,
    /// Whether a visit ended from which the person came back here.
    pub is_visit_over: bool,
    pub assets: &'static Addresses,
    pub navigation: Vec<&'static NavEntry>,
    pub version: &'static str,
}

impl Shell {
    pub fn new(title: impl Into<String>, section: Section, person: Option<Person>) -> Shell {
        let may = |entry: &&NavEntry| {
            person
                .as_ref()
                .is_some_and(|person| scope::holds(&person.scopes, entry.needs))
        };
        Shell {
            navigation: NAVIGATION.iter().filter(may).collect(),
            title: title.into(),
            section,
            person,
            notice: None,
            halted: None,
            look: Look::default(),
            visiting: None,
            is_visit_over: false,
            assets: &ADDRESSES,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Whether the person holds a scope: what they may not do is not offered.
    pub fn may(&self, wanted: &str) -> bool {
        self.person
            .as_ref()
            .is_some_and(|person| scope::holds(&person.scopes, wanted))
    }

    /// What the program is called here.
    pub fn product(&self) -> &str {
        if self.look.name.is_empty() {
            "Muster"
        } else {
            &self.look.name
        }
    }

    /// Who is signed in.
    pub fn name(&self) -> &str {
        self.person.as_ref().map_or("", |person| &person.name)
    }

    /// The value that every form carries.
    pub fn csrf(&self) -> &str {
        self.person.as_ref().map_or("", |person| &person.csrf)
    }
}

/// Renders a page. A template that fails is a fault of ours.
pub fn page(template: &impl Template) -> Result<Response, Refusal> {
    page_with(StatusCode::OK, template)
}

/// Renders a page under a status.
pub fn page_with(status: StatusCode, template: &impl Template) -> Result<Response, Refusal> {
    let text = template
        .render()
        .map_err(|error| Refusal(Problem::internal(error)))?;
    Ok((status, Html(text)).into_response())
}

/// Sends the browser on after a form, so that a reload does not send the form again.
pub fn see_other(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, path.to_owned())]).into_response()
}

/// A problem as a page.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal(problem)
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Refusal {
        Refusal(error.into())
    }
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage<'a> {
    shell: Shell,
    problem: &'a Problem,
    errors: &'a [FieldError],
    explanation: Option<&'a Explanation>,
    /// Where a person proves who they are, and what they come back to.
    step_up: Option<String>,
    request_id: Option<String>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = self.0;
        let request_id = current_id().map(|id| id.to_string());
        if let Some(cause) = problem.cause() {
            tracing::error!(code = problem.code(), %cause, request_id = request_id.as_deref(), "a page failed");
        }
        let status = StatusCode::from_u16(problem.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let shell = Shell::new(problem.kind.title, Section::Other, None);
        let template = RefusalPage {
            shell,
            problem: &problem,
            errors: &problem.errors,
            explanation: problem.explanation.as_deref(),
            step_up: (problem.kind == STEP_UP)
                .then(|| format!("/step-up?next={}", crate::session::encode(&page_of_form()))),
            request_id,
        };
        let mut response = match template.render() {
            Ok(text) => (status, Html(text)).into_response(),
            Err(_) => status.into_response(),
        };
        if let Some(seconds) = problem.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
