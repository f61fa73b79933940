//! The real agent on a machine of its own: what is signed is really there, whatever happens in between.

use std::{io::Write, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    eventually,
    machine::{Machine, Relay, activate, ended, order, reported, setting, settings_of},
    server::{Options, Server, assert_healthy, tool},
};

/// Longer than the agent's longest delay in these tests: a few failures with full jitter, and ten seconds of a full disk.
const RECOVERY: Duration = Duration::from_secs(90);

/// Settings that the machine of these tests can enforce, each with the file that must then say so.
fn enforceable() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    vec![
        (
            "passcode.min_length",
            json!(12),
            "/etc/security/pwquality.conf",
            "minlen = 12",
        ),
        (
            "passcode.history",
            json!(5),
            "/etc/security/pwhistory.conf",
            "remember = 5",
        ),
        (
            "passcode.max_age_days",
            json!(90),
            "/etc/login.defs",
            "PASS_MAX_DAYS",
        ),
        (
            "screen_lock.max_idle_seconds",
            json!(300),
            "/etc/dconf/db/local.d/90-muster-screen-lock-idle",
            "300",
        ),
        (
            "camera.allowed",
            json!(false),
            "/etc/modprobe.d/00-muster-camera.conf",
            "uvcvideo",
        ),
        (
            "bluetooth.allowed",
            json!(false),
            "/etc/modprobe.d/00-muster-bluetooth.conf",
            "btusb",
        ),
        (
            "usb.storage",
            json!("deny"),
            "/etc/modprobe.d/00-muster-usb-storage.conf",
            "usb",
        ),
        (
            "firewall.enabled",
            json!(true),
            "/etc/nftables.conf",
            "/etc/nftables.d/muster.nft",
        ),
        (
            "firewall.block_inbound",
            json!(true),
            "/etc/nftables.d/muster.nft",
            "drop",
        ),
        (
            "time.automatic",
            json!(true),
            "/etc/systemd/timesyncd.conf.d/00-muster.conf",
            "NTP",
        ),
        (
            "lockscreen.message",
            json!("Property of Example"),
            "/etc/issue",
            "Property of Example",
        ),
        (
            "diagnostics.allowed",
            json!(false),
            "/etc/popularity-contest.conf",
            "PARTICIPATE",
        ),
        (
            "apps.unknown_sources",
            json!(false),
            "/etc/apt/apt.conf.d/99zz-muster-signed-only",
            "AllowUnauthenticated",
        ),
        (
            "location.mode",
            json!("off"),
            "/etc/geoclue/conf.d/90-muster.conf",
            "false",
        ),
    ]
}

fn enforceable_settings() -> Value {
    enforceable()
        .into_iter()
        .map(|(key, value, ..)| (key.to_owned(), value))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Asserts that the machine's files and the signed report both say that everything enforceable is in force.
fn assert_in_force(machine: &Machine, settings: &Value) {
    for (key, value, file, words) in enforceable() {
        let shown = setting(settings, key);
        assert_eq!(
            (&shown["state"], &shown["observed"]),
            (&json!("verified"), &value),
            "{shown}"
        );
        let text = machine
            .read(file)
            .unwrap_or_else(|| panic!("{key}: {file} is not there"));
        assert!(text.contains(words), "{key}: {file} says {text:?}");
    }
}

async fn compliance(api: &Api, device: &str) -> Value {
    api.get(&format!("/devices/{device}")).await.ok()["compliance"]["state"].clone()
}

async fn becomes(api: &Api, device: &str, state: &str) {
    eventually(&format!("{device} is {state}"), PATIENCE, async || {
        (compliance(api, device).await == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_policy_is_put_in_force_read_back_and_reported() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut machine = Machine::running(&api, &server.admin).await;
        activate(&api, "base", "2026.05", &enforceable_settings()).await;
        let settings = reported(&api, &machine.device, "2026.05").await;
        assert_in_force(&machine, &settings);
        becomes(&api, &machine.device, "compliant").await;
        let device = api.get(&format!("/devices/{}", machine.device)).await.ok();
        assert_eq!(
            (&device["policy"]["version"], &device["policy"]["state"]),
            (&json!("2026.05"), &json!("verified"))
        );
        let status = eventually("everything is told", PATIENCE, async || {
            let status = machine.status().await;
            (status["news"] == false).then_some(status)
        })
        .await;
        assert_eq!(status["settings"], json!(enforceable().len()));
        assert_eq!(status["device_id"], json!(machine.device));
        assert_eq!(machine.stop().await, Some(0), "{}", machine.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_cannot_express_is_reported_and_never_left_out() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let machine = Machine::running(&api, &server.admin).await;
    let asked = json!({
        "camera.allowed": false,
        "screen_capture.allowed": false,
        "factory_reset.allowed": false,
        "microphone.allowed": false,
        "os.min_version": "99",
        "passcode.max_failed_attempts": 5,
    });
    activate(&api, "wishes", "1", &asked).await;
    let settings = reported(&api, &machine.device, "1").await;
    let list = settings["settings"].as_array().expect("settings are a list");
    assert_eq!(
        list.len(),
        asked.as_object().expect("an object").len(),
        "none is left out: {settings}"
    );
    for (key, state) in [
        ("camera.allowed", "verified"),
        ("screen_capture.allowed", "not_expressible"),
        ("factory_reset.allowed", "not_expressible"),
        ("microphone.allowed", "weaker"),
        ("os.min_version", "failed"),
        // This machine's PAM does not know how to lock accounts out.
        ("passcode.max_failed_attempts", "failed"),
    ] {
        let shown = setting(&settings, key);
        assert_eq!(shown["state"], state, "{shown}");
        assert!(
            state == "verified" || shown["detail"].as_str().is_some_and(|why| !why.is_empty()),
            "{shown}"
        );
    }
    becomes(&api, &machine.device, "noncompliant").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_changes_and_reverts_and_a_rule_is_judged_by_facts() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let machine = Machine::new();
    machine.write("/etc/issue", "Debian GNU/Linux 13\n");
    let mut machine = machine;
    machine.enroll(&api, &server.admin).await;
    machine.start();
    activate(&api, "base", "1", &enforceable_settings()).await;
    reported(&api, &machine.device, "1").await;
    activate(&api, "base", "2", &json!({"passcode.min_length": 16})).await;
    let settings = reported(&api, &machine.device, "2").await;
    assert_eq!(
        settings["settings"].as_array().map(Vec::len),
        Some(1),
        "{settings}"
    );
    assert_eq!(setting(&settings, "passcode.min_length")["observed"], 16);
    let quality = machine.read("/etc/security/pwquality.conf").expect("it is there");
    assert!(
        quality.contains("minlen = 16") && !quality.contains("minlen = 12"),
        "{quality}"
    );
    for (key, _, file, words) in enforceable()
        .into_iter()
        .filter(|(key, ..)| *key != "passcode.min_length")
    {
        let text = machine.read(file).unwrap_or_default();
        assert!(!text.contains(words), "{key} is still in {file}: {text}");
    }
    assert_eq!(
        machine.read("/etc/issue").as_deref(),
        Some("Debian GNU/Linux 13\n"),
        "what was there before is back"
    );
    becomes(&api, &machine.device, "compliant").await;

    let rule = json!({"name": "new enough", "check": {"fact": "os.version", "op": "ge", "value": "99"}});
    let expression =
        json!({"name": "private", "expression": "device.ownership == \"personal\" && has(os.version)"});
    let rules = [rule, expression];
    let body = json!({"version": "3", "settings": {"passcode.min_length": 16}, "rules": rules});
    api.post("/policies/base/versions", &body).await.expect(201);
    api.post("/policies/base/activate", &json!({"version": "3"}))
        .await
        .expect(202);
    let settings = reported(&api, &machine.device, "3").await;
    let verdict = |subject: &str| {
        let verdicts = settings["verdicts"].as_array().cloned().unwrap_or_default();
        verdicts
            .into_iter()
            .find(|verdict| verdict["subject"] == subject)
            .expect("the rule has a verdict")
    };
    assert_eq!(verdict("new enough")["verdict"], "noncompliant");
    assert_eq!(verdict("private")["verdict"], "noncompliant");
    assert_eq!(verdict("private")["reason"], "device.ownership is company");
    becomes(&api, &machine.device, "noncompliant").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changes_by_hand_is_put_right() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut machine = Machine::running(&api, &server.admin).await;
    activate(&api, "base", "1", &enforceable_settings()).await;
    reported(&api, &machine.device, "1").await;
    machine.stop().await;
    machine.remove("/etc/modprobe.d/00-muster-camera.conf");
    let quality = machine.read("/etc/security/pwquality.conf").expect("it is there");
    machine.write(
        "/etc/security/pwquality.conf",
        &quality.replace("minlen = 12", "minlen = 4"),
    );
    machine.write("/etc/nftables.d/muster.nft", "");
    machine.start();
    eventually("the files are put right", PATIENCE, async || {
        let camera = machine.read("/etc/modprobe.d/00-muster-camera.conf").is_some();
        let firewall = machine
            .read("/etc/nftables.d/muster.nft")
            .is_some_and(|text| text.contains("drop"));
        let quality = machine
            .read("/etc/security/pwquality.conf")
            .is_some_and(|text| text.contains("minlen = 12"));
        (camera && firewall && quality).then_some(())
    })
    .await;
    assert_in_force(&machine, &settings_of(&api, &machine.device).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_policy_cannot_be_put_right_the_report_says_so() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut machine = Machine::running(&api, &server.admin).await;
    activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
    reported(&api, &machine.device, "1").await;
    becomes(&api, &machine.device, "compliant").await;
    machine.stop().await;
    machine.remove("/etc/modprobe.d/00-muster-camera.conf");
    // A folder that is not empty stands where the file should be.
    machine.write("/etc/modprobe.d/00-muster-camera.conf/x", "in the way");
    machine.start();
    eventually("the failure is reported", PATIENCE, async || {
        let settings = settings_of(&api, &machine.device).await;
        let shown = setting(&settings, "camera.allowed");
        (shown["state"] == "failed" && !shown["detail"].is_null()).then_some(())
    })
    .await;
    becomes(&api, &machine.device, "noncompliant").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_of_the_machine_is_shown() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let machine = Machine::running(&api, &server.admin).await;
        let path = format!("/devices/{}/facts", machine.device);
        let facts = eventually("the facts come", PATIENCE, async || {
            let answer = api.get(&path).await;
            (answer.status == 200).then(|| answer.json()["facts"].clone())
        })
        .await;
        assert_eq!(
            (&facts["os"]["id"], &facts["os"]["version"]),
            (&json!("debian"), &json!("13"))
        );
        assert!(
            facts["hardware"]["cpu_cores"]
                .as_u64()
                .is_some_and(|cores| cores > 0),
            "{facts}"
        );
        assert!(
            facts["hardware"]["memory_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes > 1 << 20),
            "{facts}"
        );
        assert!(
            facts["os"]["kernel"].is_string() && facts["agent_version"].is_string(),
            "{facts}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_agent_at_any_moment_loses_no_policy_and_repeats_no_command() {
    const ROUNDS: u64 = 10;
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut machine = Machine::running(&api, &server.admin).await;
    let device = machine.device.clone();
    let mut restarts = Vec::new();
    for round in 0..ROUNDS {
        let length = 8 + round;
        let version = format!("{round}");
        restarts.push(order(&api, &device, &json!({"type": "restart", "delay_seconds": round})).await);
        let locked = order(
            &api,
            &device,
            &json!({"type": "lock", "message": format!("round {round}")}),
        )
        .await;
        let wanted = json!({"passcode.min_length": length, "camera.allowed": round % 2 == 0, "firewall.enabled": true});
        activate(&api, "base", &version, &wanted).await;
        tokio::time::sleep(Duration::from_millis(round * 23)).await;
        machine.kill().await;
        machine.start();
        let settings = reported(&api, &device, &version).await;
        assert_eq!(setting(&settings, "passcode.min_length")["observed"], length);
        assert!(
            machine
                .read("/etc/security/pwquality.conf")
                .is_some_and(|text| text.contains(&format!("minlen = {length}")))
        );
        let state = ended(&api, &locked).await["state"].clone();
        assert!(
            state == "done" || state == "noop",
            "a lock may be repeated: {state}"
        );
    }
    for command in &restarts {
        let state = ended(&api, command).await["state"].clone();
        assert!(
            matches!(state.as_str(), Some("done" | "noop" | "failed")),
            "{command} is {state}"
        );
        assert!(
            machine.logged(&format!("executing command={command}")) <= 1,
            "{}",
            machine.log()
        );
    }
    assert!(machine.runs());
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_server_was_gone_comes_back_and_reports() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let relay = Relay::to(&server.admin).await;
        let api = server.api().await;
        let mut machine = Machine::running(&api, &relay.in_front_of(&server.admin)).await;
        activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
        reported(&api, &machine.device, "1").await;
        relay.cut();
        server.kill().await;
        eventually("the agent notices", RECOVERY, async || {
            (machine.logged("check-in failed") >= 2).then_some(())
        })
        .await;
        assert!(
            machine.read("/etc/modprobe.d/00-muster-camera.conf").is_some(),
            "the policy stays in force"
        );
        server.restart().await;
        let api = server.api().await;
        activate(
            &api,
            "base",
            "2",
            &json!({"camera.allowed": false, "bluetooth.allowed": false}),
        )
        .await;
        let command = order(&api, &machine.device, &json!({"type": "lock"})).await;
        relay.point(&server.admin);
        let state = eventually("the command ends", RECOVERY, async || {
            let shown = api.get(&format!("/commands/{command}")).await.ok();
            (!shown["completed_at"].is_null()).then(|| shown["state"].clone())
        })
        .await;
        assert_eq!(state, "done");
        reported(&api, &machine.device, "2").await;
        assert!(machine.runs());
    })
    .await;
}

/// The library that shifts a program's clock.
pub fn faketime() -> Option<PathBuf> {
    let folders = [
        "/usr/lib/x86_64-linux-gnu/faketime",
        "/usr/lib/aarch64-linux-gnu/faketime",
        "/usr/lib64/faketime",
    ];
    let found = folders
        .iter()
        .map(|folder| PathBuf::from(folder).join("libfaketime.so.1"))
        .find(|path| path.exists());
    if found.is_none() {
        skip("libfaketime is not installed");
    }
    found
}

/// Says loudly that a test could not be carried out here, or panics where that is not allowed.
pub fn skip(why: &str) {
    let required = crate::support::variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
    assert!(!required, "{why}, and this run must not skip anything");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_clock_is_an_hour_off_enrolls_obeys_and_executes() {
    let Some(library) = faketime() else { return };
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    for (offset, sign) in [("+3600", 1), ("-3600", -1)] {
        let mut machine = Machine::new();
        machine.set_environment("LD_PRELOAD", library.to_str().expect("paths here are text"));
        machine.set_environment("FAKETIME", offset);
        machine.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        machine.enroll(&api, &server.admin).await;
        machine.start();
        let command = order(
            &api,
            &machine.device,
            &json!({"type": "lock", "ttl_seconds": 600}),
        )
        .await;
        activate(
            &api,
            "base",
            &format!("v{sign}"),
            &json!({"camera.allowed": false}),
        )
        .await;
        assert_eq!(
            ended(&api, &command).await["state"],
            "done",
            "{offset}: {}",
            machine.log()
        );
        let settings = reported(&api, &machine.device, &format!("v{sign}")).await;
        assert_eq!(
            setting(&settings, "camera.allowed")["state"],
            "verified",
            "{offset}"
        );
        let status = machine.status().await;
        let told = status["last_checkin_at"]
            .as_str()
            .expect("a time")
            .parse::<muster_model::Timestamp>()
            .expect("a time");
        let off = told.as_unix_seconds() - crate::support::unix_seconds();
        assert!(
            (off - sign * 3600).abs() < 120,
            "the clock of the machine was really shifted: {off}"
        );
        machine.stop().await;
    }
}

/// A small file system in memory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted as `name` in a folder, with room for so many megabytes; says so where that cannot be done.
    pub async fn mounted(folder: &tempfile::TempDir, name: &str, megabytes: u32) -> Option<SmallDisk> {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).expect("a folder can be made");
        let text = path.to_str().expect("paths here are text");
        let size = format!("size={megabytes}m,mode=0700");
        let output = tool("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text]).await;
        if !output.status.success() {
            skip("no file system can be mounted here (not root)");
            return None;
        }
        Some(SmallDisk(path))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes away what [`SmallDisk::fill`] wrote.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("it can be removed");
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).expect("it can be made");
        for size in [65_536, 4096, 512, 64, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    #[expect(
        clippy::disallowed_methods,
        reason = "the test must not leave a file system behind"
    )]
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_nothing_for_good() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let Some(disk) = SmallDisk::mounted(&folder, "small", 2).await else {
        return;
    };
    let server = Server::start(Options::default().with("--checkin-interval-seconds", 2)).await;
    let api = server.api().await;
    let mut machine = Machine::new().with_state_dir(disk.0.join("state"));
    machine.enroll(&api, &server.admin).await;
    machine.start();
    let first = order(&api, &machine.device, &json!({"type": "lock"})).await;
    ended(&api, &first).await;
    disk.fill();
    let command = order(&api, &machine.device, &json!({"type": "restart"})).await;
    eventually("the agent says that it cannot save", RECOVERY, async || {
        (machine.logged("the state cannot be saved") > 0).then_some(())
    })
    .await;
    assert!(machine.runs(), "{}", machine.log());
    assert!(
        machine.read("/run/muster/restart-requested").is_none(),
        "what cannot be written down is not executed"
    );
    disk.empty();
    let state = eventually("the command ends", RECOVERY, async || {
        let shown = api.get(&format!("/commands/{command}")).await.ok();
        (!shown["completed_at"].is_null()).then(|| shown["state"].clone())
    })
    .await;
    assert_eq!(state, "done");
    assert_eq!(
        machine.logged(&format!("executing command={command}")),
        1,
        "{}",
        machine.log()
    );
    activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
    reported(&api, &machine.device, "1").await;
    assert!(machine.runs());
    machine.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_a_retired_device_keeps_quiet_and_keeps_its_policy() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut machine = Machine::running(&api, &server.admin).await;
    activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
    reported(&api, &machine.device, "1").await;
    api.post(&format!("/devices/{}/retire", machine.device), &json!({}))
        .await
        .expect(204);
    eventually("the agent is told", PATIENCE, async || {
        (machine.logged("device_blocked") > 0).then_some(())
    })
    .await;
    assert!(machine.runs());
    assert!(machine.read("/etc/modprobe.d/00-muster-camera.conf").is_some());
    let begun = machine.logged("check-in failed");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        machine.logged("check-in failed") <= begun + 1,
        "it does not storm: {}",
        machine.log()
    );
}
