//! The channel of Android devices. So far its policy compiler: settings to a `Policy` of the Android Management API,
//! without I/O.
//!
//! ```
//! use muster_channel_android::{Target, compile};
//! use muster_model::settings::Settings;
//!
//! let settings = Settings::parse(br#"{"passcode.min_length": 8, "camera.allowed": false}"#).expect("they are valid");
//! let compiled = compile(&settings, &Target::default());
//! let policy = String::from_utf8(compiled.artifacts[0].bytes.clone()).expect("JSON is text");
//! assert!(policy.contains(r#""cameraAccess":"CAMERA_ACCESS_DISABLED""#));
//! assert_eq!(compiled.outcomes.len(), 2);
//! ```

mod mode;
mod onc;
pub mod policy;

pub use mode::ManagementMode;
pub use policy::{Target, VpnApps, compile};
