//! Apple's management channel without I/O: what policies become on macOS and iOS.
//!
//! Profiles and declarations are written as Apple's device management schema describes them; the tests check every key
//! against it.

mod identity;
mod plist;
pub mod policy;

pub use policy::{ApplePlatform, AppleTarget, compile};
