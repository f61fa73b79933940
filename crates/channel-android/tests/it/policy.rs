//! Single settings, and the traps of their members.

use muster_channel_android::{ManagementMode, Target, compile};
use muster_model::{
    compile::{Compiled, SettingOutcome},
    settings::{Settings, Support},
};
use serde_json::{Value, json};

fn compiled_for(json: &str, mode: ManagementMode) -> Compiled {
    let settings = Settings::parse(json.as_bytes()).unwrap_or_else(|errors| panic!("{json}: {errors:?}"));
    let target = Target {
        mode,
        ..Target::default()
    };
    compile(&settings, &target)
}

fn compiled(json: &str) -> Compiled {
    compiled_for(json, ManagementMode::FullyManaged)
}

/// The policy of the one artifact.
pub fn policy(compiled: &Compiled) -> Value {
    let [artifact] = &compiled.artifacts[..] else {
        panic!("there is one artifact");
    };
    serde_json::from_slice(&artifact.bytes).expect("the artifact is JSON")
}

fn said(json: &str) -> Value {
    policy(&compiled(json))
}

fn outcome<'c>(compiled: &'c Compiled, key: &str) -> &'c SettingOutcome {
    let mut found = compiled.outcomes.iter().filter(|outcome| outcome.key == key);
    found.next().expect("the setting has an outcome")
}

#[test]
fn all_passcode_settings_are_one_entry_with_the_quality_that_they_need() {
    for (json, quality) in [
        (r#"{"passcode.required":true}"#, json!("SOMETHING")),
        (r#"{"passcode.min_length":8}"#, json!("NUMERIC")),
        (
            r#"{"passcode.min_length":8,"passcode.complexity":"alphanumeric"}"#,
            json!("ALPHANUMERIC"),
        ),
        (
            r#"{"passcode.min_complex_chars":2,"passcode.complexity":"numeric"}"#,
            json!("COMPLEX"),
        ),
        (
            r#"{"passcode.history":5,"passcode.max_failed_attempts":10}"#,
            Value::Null,
        ),
    ] {
        let policy = said(json);
        assert_eq!(policy["passwordPolicies"].as_array().map(Vec::len), Some(1));
        let entry = &policy["passwordPolicies"][0];
        assert_eq!(entry["passwordQuality"], quality, "{json}");
        assert_eq!(entry["passwordScope"], "SCOPE_DEVICE");
    }
    let policy = said(r#"{"passcode.complexity":"complex","passcode.min_complex_chars":3}"#);
    assert_eq!(policy["passwordPolicies"][0]["passwordMinimumSymbols"], 3);
}

#[test]
fn times_have_the_units_of_their_members() {
    let policy = said(r#"{"passcode.max_age_days":90,"screen_lock.max_idle_seconds":300}"#);
    assert_eq!(
        policy["passwordPolicies"][0]["passwordExpirationTimeout"],
        "7776000s"
    );
    assert_eq!(policy["maximumTimeToLock"], "300000");
}

#[test]
fn loosest_values_are_said_where_the_default_is_stricter() {
    let policy = said(r#"{"usb.data":"allow","apps.unknown_sources":true,"developer_mode.allowed":true}"#);
    assert_eq!(
        policy["deviceConnectivityManagement"]["usbDataAccess"],
        "ALLOW_USB_DATA_TRANSFER"
    );
    let overrides = &policy["advancedSecurityOverrides"];
    assert_eq!(overrides["untrustedAppsPolicy"], "ALLOW_INSTALL_DEVICE_WIDE");
    assert_eq!(overrides["developerSettings"], "DEVELOPER_SETTINGS_ALLOWED");
    assert!(
        compiled(r#"{"camera.allowed":true,"usb.storage":"allow"}"#)
            .artifacts
            .is_empty()
    );
}

#[test]
fn the_stricter_of_two_usb_settings_counts() {
    for (data, storage, access) in [
        ("allow", "deny", "DISALLOW_USB_FILE_TRANSFER"),
        ("deny", "allow", "DISALLOW_USB_DATA_TRANSFER"),
        ("deny", "deny", "DISALLOW_USB_DATA_TRANSFER"),
    ] {
        let policy = said(&format!(r#"{{"usb.data":"{data}","usb.storage":"{storage}"}}"#));
        assert_eq!(policy["deviceConnectivityManagement"]["usbDataAccess"], access);
    }
    let readonly = compiled(r#"{"usb.storage":"readonly"}"#);
    assert!(matches!(readonly.outcomes[0].support, Support::NotExpressible(_)));
    assert!(readonly.artifacts.is_empty());
}

#[test]
fn versions_become_api_levels() {
    assert_eq!(said(r#"{"os.min_version":"14"}"#)["minimumApiLevel"], 34);
    let unknown = compiled(r#"{"os.min_version":"99"}"#);
    assert!(matches!(unknown.outcomes[0].support, Support::NotExpressible(_)));
}

#[test]
fn updates_have_one_type_and_rules_for_the_rest() {
    let policy = said(
        r#"{"os.update.window":{"start":"22:00","end":"04:30"},"os.update.deferral_days":7,
            "os.update.enforce":{"version":"14","deadline":"2026-11-30T18:00:00Z"}}"#,
    );
    assert_eq!(
        policy["systemUpdate"],
        json!({"type":"WINDOWED","startMinutes":1320,"endMinutes":270})
    );
    let rules = policy["unifiedUpdatePolicy"]["rules"]
        .as_array()
        .expect("there are rules");
    assert_eq!(
        rules[0]["predicate"]["dateLowerBound"],
        json!({"year":2026,"month":11,"day":30})
    );
    assert_eq!(rules[0]["outcome"]["outcomeType"], "FORCE");
    assert_eq!(rules[1]["predicate"]["updateAgeUpperBound"], "604800s");
    assert_eq!(rules[1]["outcome"]["outcomeType"], "BLOCK");
}

#[test]
fn a_deferral_is_never_made_longer() {
    let policy = said(r#"{"os.update.deferral_days":7}"#);
    assert_eq!(
        policy.get("systemUpdate"),
        None,
        "to postpone is to postpone by 30 days"
    );
    assert_eq!(
        said(r#"{"os.update.deferral_days":45}"#)["systemUpdate"]["type"],
        "POSTPONE"
    );
    let short = compiled(r#"{"os.update.window":{"start":"22:00","end":"22:10"}}"#);
    assert!(matches!(short.outcomes[0].support, Support::Weaker(_)));
}

#[test]
fn networks_and_authorities_are_one_open_network_configuration() {
    let pem = "-----BEGIN CERTIFICATE-----\\nMAMCAQE=\\n-----END CERTIFICATE-----";
    let policy = said(&format!(
        r#"{{"certs.trusted_roots":["{pem}"],"wifi.networks":[
            {{"ssid":"a","security":"wpa-psk","passphrase":"correct \"horse\"","hidden":true}},
            {{"ssid":"b","security":"wpa-eap","eap":"ttls","identity":"me","passphrase":"secret","ca_certificate":"{pem}"}},
            {{"ssid":"c","security":"wpa-eap","eap":"tls"}},
            {{"ssid":"d","security":"open"}}]}}"#
    ));
    let configuration = &policy["openNetworkConfiguration"];
    let certificates = configuration["Certificates"]
        .as_array()
        .expect("there are authorities");
    assert_eq!(certificates.len(), 1);
    assert_eq!(certificates[0]["X509"], "MAMCAQE=");
    let networks = configuration["NetworkConfigurations"]
        .as_array()
        .expect("there are networks");
    let psk = &networks[0]["WiFi"];
    assert_eq!(
        (&psk["Security"], &psk["Passphrase"]),
        (&json!("WPA-PSK"), &json!("correct \"horse\""))
    );
    assert_eq!(psk["HiddenSSID"], true);
    let ttls = &networks[1]["WiFi"]["EAP"];
    assert_eq!(
        (&ttls["Outer"], &ttls["Identity"]),
        (&json!("EAP-TTLS"), &json!("me"))
    );
    assert_eq!(ttls["ServerCARefs"], json!([certificates[0]["GUID"]]));
    assert_eq!(networks[2]["WiFi"]["EAP"]["ClientCertType"], "KeyPairAlias");
    assert_eq!(networks[3]["WiFi"]["Security"], "None");
}

#[test]
fn a_list_of_required_apps_does_not_forbid_the_others() {
    let policy = said(r#"{"apps.required":[{"id":"com.example.app","version":"17"}]}"#);
    assert_eq!(policy["playStoreMode"], "BLACKLIST");
    assert_eq!(
        policy["applications"],
        json!([{"packageName":"com.example.app","installType":"FORCE_INSTALLED","minimumVersionCode":17}])
    );
}

#[test]
fn a_list_of_allowed_apps_forbids_the_others() {
    let policy = said(
        r#"{"apps.allowed":["com.example.a"],"apps.managed_config":[{"app":"com.example.b","values":{"k":"v"}}]}"#,
    );
    assert_eq!(policy["playStoreMode"], "WHITELIST");
    assert_eq!(policy["applications"][0]["installType"], "AVAILABLE");
    assert_eq!(policy["applications"][1]["installType"], "BLOCKED");
    assert_eq!(
        said(r#"{"apps.allowed":[]}"#),
        json!({"playStoreMode":"WHITELIST"})
    );
}

#[test]
fn a_blocked_app_is_not_installed_and_that_is_said() {
    let both = compiled(
        r#"{"apps.required":[{"id":"com.example.a"},{"id":"com.example.b"}],"apps.blocked":["com.example.a"]}"#,
    );
    assert!(matches!(
        outcome(&both, "apps.required").support,
        Support::Weaker(_)
    ));
    let policy = policy(&both);
    assert_eq!(policy["applications"][0]["installType"], "BLOCKED");
    assert_eq!(policy["applications"][1]["installType"], "FORCE_INSTALLED");
    let kiosk = compiled(r#"{"kiosk.app":"com.example.a","apps.blocked":["com.example.a"]}"#);
    assert!(matches!(
        outcome(&kiosk, "kiosk.app").support,
        Support::NotExpressible(_)
    ));
}

#[test]
fn a_kiosk_is_a_role() {
    let policy = said(r#"{"kiosk.app":"com.example.kiosk"}"#);
    let app = &policy["applications"][0];
    assert_eq!(app["installType"], "REQUIRED_FOR_SETUP");
    assert_eq!(app["roles"], json!([{"roleType":"KIOSK"}]));
}

#[test]
fn a_tunnel_is_an_app_with_its_configuration() {
    let policy = said(
        r#"{"vpn.profiles":[{"name":"Office","type":"ikev2","server":"vpn.example","always_on":true},
            {"name":"Lab","type":"wireguard","server":"lab.example","public_key":"k"}]}"#,
    );
    assert_eq!(
        policy["alwaysOnVpnPackage"]["packageName"],
        "org.strongswan.android"
    );
    let apps = policy["applications"].as_array().expect("there are apps");
    assert_eq!(apps[0]["packageName"], "com.wireguard.android");
    let profile = &apps[1]["managedConfiguration"]["managed_profiles"][0];
    assert_eq!(profile["remote"]["gateway"], "vpn.example");
    assert_eq!(
        profile["_uuid"],
        apps[1]["managedConfiguration"]["pref_default_vpn_profile"]
    );
}

#[test]
fn a_proxy_needs_its_port_and_a_script_stands_alone() {
    let compiled = compiled(r#"{"proxy.global":{"host":"p.example"}}"#);
    assert!(matches!(compiled.outcomes[0].support, Support::NotExpressible(_)));
    let policy =
        said(r#"{"proxy.global":{"host":"p.example","port":3128,"bypass":["*.example","10.0.0.0/8"]}}"#);
    assert_eq!(
        policy["recommendedGlobalProxy"],
        json!({"host":"p.example","port":3128,"excludedHosts":["*.example"]})
    );
    let policy = said(r#"{"proxy.global":{"host":"p.example","pac":"https://p.example/pac"}}"#);
    assert_eq!(
        policy["recommendedGlobalProxy"],
        json!({"pacUri":"https://p.example/pac"})
    );
}

#[test]
fn a_mode_of_management_takes_away_and_says_so() {
    let json =
        r#"{"usb.data":"deny","microphone.allowed":false,"camera.allowed":false,"passcode.required":true}"#;
    let owned = compiled_for(json, ManagementMode::PersonallyOwnedWorkProfile);
    assert!(matches!(
        outcome(&owned, "usb.data").support,
        Support::NotExpressible(_)
    ));
    assert!(matches!(
        outcome(&owned, "camera.allowed").support,
        Support::Weaker(_)
    ));
    let of_owned = policy(&owned);
    assert_eq!(of_owned.get("deviceConnectivityManagement"), None);
    assert_eq!(of_owned["passwordPolicies"][0]["passwordScope"], "SCOPE_PROFILE");
    let company = policy(&compiled_for(json, ManagementMode::CompanyOwnedWorkProfile));
    assert_eq!(company["personalUsagePolicies"]["cameraDisabled"], true);
    assert_eq!(company.get("microphoneAccess"), None);
}

#[test]
fn what_the_platform_has_no_control_for_is_not_said() {
    let compiled =
        compiled(r#"{"firewall.enabled":true,"disk_encryption.escrow":true,"diagnostics.allowed":false}"#);
    assert!(compiled.artifacts.is_empty());
    assert!(
        compiled
            .outcomes
            .iter()
            .all(|outcome| outcome.carriers.is_empty())
    );
}
