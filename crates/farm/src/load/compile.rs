//! Compilations of one whole policy on one core, in this process: what the server computes, without wire or database.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use muster_channel_apple::{ApplePlatform, AppleTarget};
use muster_model::Timestamp;
use muster_model::compile::Compiled;
use muster_model::settings::Settings;
use uuid::Uuid;

use crate::FarmError;

/// Calls between two looks at the clock.
const BATCH: u32 = 64;
/// A policy with settings of every family.
const POLICY: &str = r#"{
    "passcode.required": true, "passcode.min_length": 12, "passcode.complexity": "complex", "passcode.history": 10,
    "passcode.max_age_days": 90, "passcode.max_failed_attempts": 10, "screen_lock.max_idle_seconds": 300,
    "screen_lock.grace_seconds": 60, "disk_encryption.required": true, "os.min_version": "15.1",
    "os.update.deferral_days": 14, "os.update.enforce": {"version": "15.2", "deadline": "2026-11-30T18:00:00Z"},
    "camera.allowed": false, "screen_capture.allowed": false, "usb.storage": "deny", "usb.data": "deny",
    "bluetooth.allowed": false, "firewall.enabled": true, "firewall.block_inbound": true,
    "wifi.networks": [
        {"ssid": "Home", "security": "wpa-psk", "passphrase": "correct horse"},
        {"ssid": "Work", "security": "wpa-eap", "identity": "host", "passphrase": "battery staple"}],
    "wifi.managed_only": true, "vpn.profiles": [{"name": "Office", "type": "ikev2", "server": "vpn.example"}],
    "certs.identity": [{"name": "id", "method": "acme", "url": "https://ca.example/acme/directory"}],
    "proxy.global": {"host": "proxy.example", "port": 3128}, "apps.required": [{"id": "com.example.mail"}],
    "apps.blocked": ["com.example.game"], "apps.unknown_sources": false, "factory_reset.allowed": false,
    "accounts.modify": false, "time.automatic": true, "lockscreen.message": "Found me?", "diagnostics.allowed": false
}"#;

/// One compilation; answers how many bytes it made.
type Case<'a> = Box<dyn Fn() -> usize + 'a>;

/// Compilations per second by platform; `json` is writing the same settings as canonical JSON, to hold them against.
pub fn load_compilations(duration: Duration) -> Result<BTreeMap<&'static str, f64>, FarmError> {
    let settings = Settings::parse(POLICY.as_bytes())
        .map_err(|errors| FarmError::Load(errors.into_iter().map(|error| error.detail).collect()))?;
    let target = |platform| AppleTarget {
        platform,
        supervised: true,
        organization: "Muster".to_owned(),
        identifier_prefix: "muster.load".to_owned(),
        seed: Uuid::nil(),
        escrow_certificate: None,
    };
    let (macos, ios) = (target(ApplePlatform::Macos), target(ApplePlatform::Ios));
    let bytes = |compiled: Compiled| -> usize {
        compiled
            .artifacts
            .iter()
            .map(|artifact| artifact.bytes.len())
            .sum()
    };
    let windows = muster_channel_windows::Target::at(Timestamp::from_unix_seconds(0));
    let android = muster_channel_android::Target::default();
    let cases: [(&str, Case<'_>); 5] = [
        ("json", Box::new(|| settings.canonical_json().len())),
        (
            "macos",
            Box::new(|| bytes(muster_channel_apple::compile(&settings, &macos))),
        ),
        (
            "ios",
            Box::new(|| bytes(muster_channel_apple::compile(&settings, &ios))),
        ),
        (
            "windows",
            Box::new(|| bytes(muster_channel_windows::compile(&settings, &windows))),
        ),
        (
            "android",
            Box::new(|| bytes(muster_channel_android::compile(&settings, &android))),
        ),
    ];
    let each = duration / u32::try_from(cases.len()).unwrap_or(1);
    let rate = |(name, case): (&'static str, Case<'_>)| {
        let (started, mut calls) = (Instant::now(), 0_u32);
        while started.elapsed() < each || calls == 0 {
            for _ in 0..BATCH {
                std::hint::black_box(case());
            }
            calls += BATCH;
        }
        (name, f64::from(calls) / started.elapsed().as_secs_f64())
    };
    Ok(cases.into_iter().map(rate).collect())
}
