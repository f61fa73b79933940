//! Single settings, and the traps of their nodes.

use muster_model::settings::Support;

use crate::commands::{Command, commands, compiled, data};

fn sent(json: &str) -> Vec<Command> {
    commands(&compiled(json))
}

#[test]
fn the_switch_of_the_device_lock_is_inverted() {
    let commands = sent(r#"{"passcode.required":true}"#);
    assert_eq!(data(&commands, "DevicePasswordEnabled").as_deref(), Some("0"));
}

#[test]
fn every_part_of_the_device_lock_turns_it_on_first() {
    for json in [
        r#"{"passcode.min_length":8}"#,
        r#"{"passcode.history":5}"#,
        r#"{"passcode.complexity":"numeric"}"#,
        r#"{"passcode.max_age_days":90}"#,
        r#"{"passcode.max_failed_attempts":10}"#,
    ] {
        let commands = sent(json);
        assert!(commands[0].locuri.ends_with("/DevicePasswordEnabled"), "{json}");
        assert_eq!(commands.len(), 2, "{json}");
    }
}

#[test]
fn a_length_that_the_node_does_not_take_is_not_rounded() {
    for length in [1, 3, 17, 64] {
        let compiled = compiled(&format!("{{\"passcode.min_length\":{length}}}"));
        assert!(matches!(compiled.outcomes[0].support, Support::NotExpressible(_)));
        assert!(compiled.artifacts.is_empty());
    }
}

#[test]
fn kinds_of_characters_run_from_strict_to_loose_and_share_their_classes() {
    for (json, kind, classes) in [
        (r#"{"passcode.complexity":"numeric"}"#, Some("1"), None),
        (r#"{"passcode.complexity":"alphanumeric"}"#, Some("0"), Some("2")),
        (r#"{"passcode.complexity":"complex"}"#, Some("0"), Some("4")),
        (r#"{"passcode.min_complex_chars":3}"#, None, Some("3")),
        (
            r#"{"passcode.complexity":"alphanumeric","passcode.min_complex_chars":3}"#,
            Some("0"),
            Some("3"),
        ),
    ] {
        let commands = sent(json);
        assert_eq!(
            data(&commands, "AlphanumericDevicePasswordRequired").as_deref(),
            kind,
            "{json}"
        );
        assert_eq!(
            data(&commands, "MinDevicePasswordComplexCharacters").as_deref(),
            classes,
            "{json}"
        );
    }
}

#[test]
fn bluetooth_microphone_and_location_have_their_own_numbers() {
    let commands = sent(r#"{"bluetooth.allowed":false,"microphone.allowed":false,"location.mode":"on"}"#);
    assert_eq!(data(&commands, "AllowBluetooth").as_deref(), Some("0"));
    assert_eq!(data(&commands, "LetAppsAccessMicrophone").as_deref(), Some("2"));
    assert_eq!(data(&commands, "AllowLocation").as_deref(), Some("2"));
    assert_eq!(
        data(&sent(r#"{"location.mode":"off"}"#), "AllowLocation").as_deref(),
        Some("0")
    );
}

#[test]
fn the_three_profiles_of_the_firewall_are_replaced_only() {
    let commands = sent(r#"{"firewall.enabled":true,"firewall.block_inbound":true}"#);
    assert_eq!(commands.len(), 9);
    assert!(commands.iter().all(|command| command.verb == "Replace"));
}

#[test]
fn active_hours_are_the_complement_of_the_window() {
    let commands = sent(r#"{"os.update.window":{"start":"21:00","end":"05:00"}}"#);
    assert_eq!(data(&commands, "ActiveHoursStart").as_deref(), Some("5"));
    assert_eq!(data(&commands, "ActiveHoursEnd").as_deref(), Some("21"));
    let commands = sent(r#"{"os.update.window":{"start":"02:30","end":"04:00"}}"#);
    assert_eq!(data(&commands, "ScheduledInstallTime").as_deref(), Some("3"));
    assert_eq!(data(&commands, "ActiveHoursStart"), None);
}

#[test]
fn a_deferral_past_the_end_of_one_node_is_said_to_be_weaker() {
    let compiled = compiled(r#"{"os.update.deferral_days":60}"#);
    assert!(matches!(compiled.outcomes[0].support, Support::Weaker(_)));
    let commands = commands(&compiled);
    assert_eq!(
        data(&commands, "DeferQualityUpdatesPeriodInDays").as_deref(),
        Some("30")
    );
    assert_eq!(
        data(&commands, "DeferFeatureUpdatesPeriodInDays").as_deref(),
        Some("60")
    );
}

#[test]
fn a_deadline_is_counted_in_days_from_now() {
    let commands =
        sent(r#"{"os.update.enforce":{"version":"10.0.22631","deadline":"2026-10-01T18:00:00Z"}}"#);
    assert_eq!(
        data(&commands, "ConfigureDeadlineForQualityUpdates").as_deref(),
        Some("8")
    );
    assert_eq!(
        data(&commands, "Update/ProductVersion").as_deref(),
        Some("Windows 11")
    );
    assert_eq!(data(&commands, "TargetReleaseVersion").as_deref(), Some("23H2"));
}

#[test]
fn j9_a_network_is_added_then_replaced_and_its_texts_stay_whole() {
    let passphrase = "]]></keyMaterial><a b='\\\"'>&amp;";
    let commands = sent(&format!(
        r#"{{"wifi.networks":[{{"ssid":"a/b & c","security":"wpa-psk","passphrase":"{passphrase}","hidden":true}}]}}"#
    ));
    let verbs: Vec<&str> = commands.iter().map(|command| command.verb.as_str()).collect();
    assert_eq!(verbs, ["Add", "Replace"]);
    assert!(
        commands[0]
            .locuri
            .ends_with("/WiFi/Profile/a%2Fb%20%26%20c/WlanXml")
    );
    assert_eq!(commands[0].data, commands[1].data);
    let profile = commands[0].data.as_deref().expect("it has a value");
    let document = roxmltree::Document::parse(profile).expect("it is well-formed");
    let text = |name: &str| {
        let found = document.descendants().find(|node| node.tag_name().name() == name);
        found.and_then(|node| node.text()).map(str::to_owned)
    };
    assert_eq!(
        text("keyMaterial").as_deref(),
        Some(passphrase.replace("\\\"", "\"").as_str())
    );
    assert_eq!(text("hex").as_deref(), Some("612F6220262063"));
    assert_eq!(text("nonBroadcast").as_deref(), Some("true"));
}

#[test]
fn a_root_certificate_stands_under_its_thumbprint() {
    let pem = "-----BEGIN CERTIFICATE-----\\nMAMCAQE=\\n-----END CERTIFICATE-----";
    let commands = sent(&format!(r#"{{"certs.trusted_roots":["{pem}","{pem}"]}}"#));
    assert_eq!(commands.len(), 2, "the same certificate is sent once");
    // SHA-1 of 30 03 02 01 01.
    assert!(
        commands[0]
            .locuri
            .ends_with("/Root/90D80B0214715C2117F1DB310CC56F1E87DC4775/EncodedCertificate"),
        "{}",
        commands[0].locuri
    );
    assert_eq!(commands[0].data.as_deref(), Some("MAMCAQE="));
}

#[test]
fn a_network_trusts_its_own_authority_by_thumbprint() {
    let pem = "-----BEGIN CERTIFICATE-----\\nMAMCAQE=\\n-----END CERTIFICATE-----";
    let commands = sent(&format!(
        r#"{{"wifi.networks":[{{"ssid":"a","security":"wpa-eap","eap":"tls","ca_certificate":"{pem}"}}]}}"#
    ));
    assert!(commands[0].locuri.contains("/RootCATrustedCertificates/"));
    let profile = data(&commands, "/WlanXml").expect("it has a value");
    assert!(profile.contains("<TrustedRootCA>"));
}

#[test]
fn what_the_platform_cannot_set_up_is_left_out_and_said() {
    let compiled = compiled(
        r#"{"vpn.profiles":[{"name":"a","type":"ikev2","server":"v.example"},
            {"name":"b","type":"wireguard","server":"v.example","public_key":"k"}]}"#,
    );
    assert!(matches!(compiled.outcomes[0].support, Support::Weaker(_)));
    assert_eq!(commands(&compiled).len(), 2, "one profile, added and replaced");
}

#[test]
fn the_proxy_is_replaced_and_holds_for_the_machine() {
    let commands =
        sent(r#"{"proxy.global":{"host":"p.example","port":3128,"bypass":["*.example","10.0.0.0/8"]}}"#);
    assert!(commands.iter().all(|command| command.verb == "Replace"));
    assert_eq!(data(&commands, "ProxyAddress").as_deref(), Some("p.example:3128"));
    assert_eq!(data(&commands, "ProxySettingsPerUser").as_deref(), Some("0"));
    assert_eq!(data(&commands, "Exceptions").as_deref(), Some("*.example"));
}

#[test]
fn apps_are_added_before_their_installation_starts() {
    let digest = "ab".repeat(32);
    let commands = sent(&format!(
        r#"{{"apps.required":[
            {{"id":"{{23170F69-40C1-2702-1900-000001000000}}","version":"1.2","source":"https://a.example/x.msi#sha256={digest}"}},
            {{"id":"Example.App_8wekyb3d8bbwe","source":"https://a.example/x.msix"}},
            {{"id":"setup"}}]}}"#
    ));
    let verbs: Vec<&str> = commands.iter().map(|command| command.verb.as_str()).collect();
    assert_eq!(verbs, ["Add", "Exec", "Add", "Exec"]);
    let job = commands[1].data.as_deref().expect("it has a job");
    assert!(job.contains(&format!("<FileHash>{digest}</FileHash>")), "{job}");
    assert!(job.contains("Version=\"1.2\""));
}

#[test]
fn a_list_of_blocked_programs_allows_the_others() {
    let commands = sent(r#"{"apps.blocked":["game.exe","Example.Game_8wekyb3d8bbwe"]}"#);
    let rules = data(&commands, "/EXE/Policy").expect("there are rules for files");
    assert!(
        rules.contains(r#"Path="*" "#) || rules.contains(r#"Path="*"/>"#),
        "{rules}"
    );
    assert!(rules.contains(r#"Action="Deny""#) && rules.contains(r"*\game.exe"));
    let packages = data(&commands, "/StoreApps/Policy").expect("there are rules for packages");
    assert!(packages.contains(r#"ProductName="Example.Game""#));
}

#[test]
fn a_list_of_allowed_programs_leaves_the_system_running() {
    let commands = sent(r#"{"apps.allowed":["C:\\Tools\\*"],"apps.blocked":["C:\\Tools\\bad.exe"]}"#);
    let rules = data(&commands, "/EXE/Policy").expect("there are rules for files");
    assert!(rules.contains(r"%WINDIR%\*") && !rules.contains(r#"Path="*"/>"#));
    assert!(rules.contains(r"C:\Tools\bad.exe") && rules.contains("Deny"));
}

#[test]
fn a_kiosk_needs_an_app_user_model_id() {
    let commands = sent(r#"{"kiosk.app":"Example.App_8wekyb3d8bbwe!App"}"#);
    let configuration = data(&commands, "/AssignedAccess/Configuration").expect("it is set");
    assert!(configuration.contains("AppUserModelId=\"Example.App_8wekyb3d8bbwe!App\""));
    assert!(sent(r#"{"kiosk.app":"com.example.app"}"#).is_empty());
}

#[test]
fn a_character_that_xml_cannot_hold_is_not_sent() {
    let compiled = compiled("{\"lockscreen.message\":\"a\u{ffff}b\"}");
    assert!(matches!(compiled.outcomes[0].support, Support::NotExpressible(_)));
    assert!(compiled.artifacts.is_empty());
}
