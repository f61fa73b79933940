//! The pages: one file per noun. Each has its routes, what it reads, and the template that shows it.

mod access;
mod access_forms;
mod alert_destination;
mod alerts;
mod approvals;
mod branding;
mod bulk;
mod catalogue;
mod commands;
mod compliance;
mod connections;
mod device;
mod device_forms;
mod device_login;
mod device_telemetry;
mod device_why;
mod devices;
mod enrollment_policy;
mod groups;
mod halt;
mod health;
mod labels;
mod log;
mod oidc;
mod operation_card;
mod operations;
mod overview;
mod own_device;
mod passkeys;
mod policies;
mod policy_forms;
mod quarantine;
mod query;
mod rollouts;
mod routing;
mod saml;
mod secrets;
mod signals;
mod signin;
mod sink_form;
mod sinks;
mod step_up;
mod tenant_limits;
mod tenants;
mod token_forms;
mod token_table;
mod tokens;
mod users;
mod visits;
mod ways_in;
mod what_if;

use axum::Router;
use muster_control::App;
pub use saml::is_posted_by_providers;

/// Rows of a list's page.
const ROWS: usize = 50;

/// The routes of every page.
pub fn router() -> Router<App> {
    Router::new()
        .merge(signin::router())
        .merge(oidc::router())
        .merge(saml::router())
        .merge(connections::router())
        .merge(routing::router())
        .merge(own_device::router())
        .merge(step_up::router())
        .merge(access::router())
        .merge(access_forms::router())
        .merge(overview::router())
        .merge(alert_destination::router())
        .merge(alerts::router())
        .merge(signals::router())
        .merge(sinks::router())
        .merge(sink_form::router())
        .merge(devices::router())
        .merge(compliance::router())
        .merge(device::router())
        .merge(device_forms::router())
        .merge(device_login::router())
        .merge(device_telemetry::router())
        .merge(health::router())
        .merge(groups::router())
        .merge(labels::router())
        .merge(query::router())
        .merge(device_why::router())
        .merge(policies::router())
        .merge(policy_forms::router())
        .merge(what_if::router())
        .merge(catalogue::router())
        .merge(rollouts::router())
        .merge(commands::router())
        .merge(bulk::router())
        .merge(operations::router())
        .merge(approvals::router())
        .merge(passkeys::router())
        .merge(halt::router())
        .merge(log::router())
        .merge(secrets::router())
        .merge(tenants::router())
        .merge(tenant_limits::router())
        .merge(branding::router())
        .merge(visits::router())
        .merge(tokens::router())
        .merge(users::router())
        .merge(token_forms::router())
        .merge(token_table::router())
        .merge(quarantine::router())
        .merge(enrollment_policy::router())
}
