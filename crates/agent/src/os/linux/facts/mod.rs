//! What this machine is: read from `/sys`, `/proc` and `/etc`, never by running a program.
//!
//! Beneath a prefix everything is read there; hardware that the prefix does not describe is that of the running machine.

mod disks;
mod hardware;
mod network;
mod packages;
mod system;
mod users;

pub(crate) use disks::{disks, is_disk};
pub(crate) use hardware::{Claims, claims};
pub(crate) use network::interfaces;
pub(crate) use packages::{is_held, package_versions, packages as all_packages};
pub(crate) use system::system;

use muster_model::facts::{Facts, PACKAGES_MAX, TEXT_CHARS_MAX};
use muster_model::time::Timestamp;

use super::files::Root;

/// Everything about the machine, bounded by the model's limits.
pub(crate) fn collect(root: &Root, now: Timestamp) -> Facts {
    Facts {
        hardware: hardware::hardware(root),
        os: system(root),
        disks: disks(root),
        interfaces: network::interfaces(root),
        users: users::users(root),
        packages: packages::packages(root, PACKAGES_MAX),
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        collected_at: now,
    }
}

/// Text within the model's limit, without control characters.
fn bounded(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

/// The root to read hardware from: the prefix where it has the path, else the running machine.
pub(crate) fn describing(root: &Root, path: &str) -> Root {
    if root.is_real() || root.exists(path) {
        root.clone()
    } else {
        Root::running_machine()
    }
}
