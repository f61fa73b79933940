//! The channel of Windows devices. So far its policy compiler: settings to the SyncML commands of configuration service
//! providers (CSP), without I/O.
//!
//! ```
//! use muster_channel_windows::{Target, compile};
//! use muster_model::{settings::Settings, time::Timestamp};
//!
//! let settings = Settings::parse(br#"{"passcode.min_length": 12, "camera.allowed": false}"#).expect("they are valid");
//! let compiled = compile(&settings, &Target::at(Timestamp::from_unix_seconds(1_790_000_000)));
//! let commands = String::from_utf8(compiled.artifacts[0].bytes.clone()).expect("SyncML is text");
//! assert!(commands.contains("DeviceLock/MinDevicePasswordLength"));
//! assert_eq!(compiled.outcomes.len(), 2);
//! ```

mod eap;
pub mod policy;
mod syncml;
mod xml;

pub use policy::{ScepEnrollment, Target, compile};
