//! The kinds of operating system that Muster manages.

use serde::{Deserialize, Serialize};

/// An operating system family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    Linux,
    Macos,
    Ios,
    Android,
    Windows,
}

impl Platform {
    pub const ALL: [Platform; 5] = [
        Platform::Linux,
        Platform::Macos,
        Platform::Ios,
        Platform::Android,
        Platform::Windows,
    ];

    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Platform::Linux => "linux",
            Platform::Macos => "macos",
            Platform::Ios => "ios",
            Platform::Android => "android",
            Platform::Windows => "windows",
        }
    }

    /// The platform that a word names.
    pub fn parse(word: &str) -> Option<Platform> {
        Platform::ALL
            .into_iter()
            .find(|platform| platform.as_str() == word)
    }
}
