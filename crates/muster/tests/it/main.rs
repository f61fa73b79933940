//! The real programs from outside: `muster serve` and `muster-agent` as processes, over their own listeners, on SQLite and
//! on PostgreSQL (`MUSTER_TEST_POSTGRES_URL`).
//!
//! A test is named after the behavior it holds, with the letter of the abuse case in front where there is one.

mod support;

mod acme;
mod acme_attestations;
mod acme_orders;
mod acme_requests;
mod admin_limits;
mod agent;
mod api_document;
mod approvals;
mod artifacts;
mod attacker;
mod attestation;
mod authorities;
mod bundles;
mod certificates;
mod certmonger;
mod ci_examples;
mod commands;
mod compliance;
mod crash;
mod custody;
mod device_nodes;
mod enrollment;
mod enrollment_tokens;
mod est;
mod falco;
mod first_run;
mod gitops;
mod groups;
mod idempotency;
mod injection;
mod log_archive;
mod log_endpoints;
mod log_search;
mod log_tamper;
mod nodes;
mod oauth;
mod outputs;
mod policy;
mod policy_compile;
mod policy_test;
mod protocol;
mod proxies;
mod quarantine;
mod radius;
mod receipts;
mod revocation;
mod rollouts;
mod root;
mod routes;
mod scep;
mod split_view;
mod telemetry;
mod tenants;
mod tokens;
mod tpm;
mod transport;
mod whatif;
mod witnesses;
