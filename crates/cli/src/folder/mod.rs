//! A tenant's configuration as a folder of files: `default.yml`, one file for each policy under `policies/`, and one for each
//! group under `groups/`. A folder without `groups/` says nothing about groups.
//!
//! Files are YAML or JSON and each says its `kind`. What is exported is written in one way only, so that an export of the
//! same state is the same bytes; comments of a file that was there are not kept. Secrets are never written: a reference
//! stands in their place (see [`secrets`]).

mod read;
pub mod secrets;
mod write;

pub use read::{Folder, read_settings, read_value};
pub use write::{Exported, write};

/// The file that makes a folder a configuration.
pub const DEFAULT_FILE: &str = "default.yml";
/// The version of the document's form.
pub const FORMAT: u64 = 1;
/// Files of one folder.
pub const FILES_MAX: usize = 2_000;
/// The folder of snippets that versions include.
pub const SNIPPETS: &str = "lib";
/// Endings of files that are read.
pub const ENDINGS: [&str; 3] = ["yml", "yaml", "json"];

/// What stands under a folder of its own, one file each.
#[derive(Clone, Copy, Debug)]
pub struct KindOfFile {
    /// What the files say as `kind`.
    pub kind: &'static str,
    /// The folder, and the member of the document.
    pub folder: &'static str,
    /// Whether a document without the folder says that there are none; otherwise it says nothing about them.
    pub is_always_said: bool,
}

/// Every kind that stands under a folder of its own.
pub const KINDS: &[KindOfFile] = &[
    KindOfFile {
        kind: "group",
        folder: "groups",
        is_always_said: false,
    },
    KindOfFile {
        kind: "policy",
        folder: "policies",
        is_always_said: true,
    },
];

#[cfg(test)]
mod tests;
