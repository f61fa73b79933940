//! The admin listener over a real application: who gets in, what pages show, what forms do.

mod access;
mod alerts;
mod approvals;
mod browser;
mod chromium;
mod enrollment;
mod enrollment_policy;
mod forms;
mod groups;
mod oauth;
mod oauth_people;
mod oidc;
mod oidc_provider;
mod pages;
mod passkeys;
mod query;
mod saml;
mod saml_provider;
mod security;
mod signals;
mod sinks;
mod tenants;
mod users;
