//! What the compiler writes, against facts about the Android Management API and about settings.

#[path = "../../../channel-windows/tests/it/generate.rs"]
mod generate;
mod policy;
mod schema;
mod validate;
