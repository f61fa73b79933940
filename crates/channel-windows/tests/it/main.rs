//! What the compiler writes, against facts about Windows' configuration service providers and about settings.

mod commands;
mod generate;
mod nodes;
mod policy;
mod schema;
