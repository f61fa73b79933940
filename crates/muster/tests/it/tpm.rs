//! The real agent with a software TPM of a factory's making, against the running server.

use std::{fs, time::Duration};

use serde_json::json;

use crate::support::{
    api::Api,
    attested::{pem, put_policy},
    database::each_database,
    eventually,
    machine::{Machine, activate, ended, order, reported, setting},
    pki::{openssl_ok, peer_is_installed},
    server::{Options, Server, assert_healthy, everything, tool_with},
    swtpm::{Maker, Swtpm},
};

/// Trusts the maker's TPMs, and asks for one.
async fn trust(api: &Api, maker: &Maker) {
    // The software TPMs hold their own certificate alone, so their issuer is an anchor too.
    let roots = format!("{}{}", pem(maker.root()), pem(maker.issuer()));
    let policy = json!({
        "attestation": ["tpm2"],
        "tpm": {"well_known_roots": false, "roots_pem": roots},
    });
    put_policy(api, policy).await.ok();
}

fn machine_with(tpm: &Swtpm) -> Machine {
    let mut machine = Machine::new();
    machine.set_environment("MUSTER_TPM", &tpm.tcti());
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_a_tpm_enrolls_attested_obeys_and_keeps_no_key_on_its_disk() {
    let Some(maker) = Maker::new() else { return };
    each_database(async |options| {
        let tpm = maker.tpm(&format!("machine-{}", uuid::Uuid::new_v4().simple()), &[]);
        let server = Server::start(options).await;
        let api = server.api().await;
        trust(&api, &maker).await;
        let mut machine = machine_with(&tpm);
        machine.enroll(&api, &server.admin).await;
        let shown = api.get(&format!("/devices/{}", machine.device)).await.ok();
        assert_eq!(shown["attestation"]["level"], "tpm2");
        assert!(shown["attestation"]["facts"]["boot"]["pcrs"]["0"].is_string());
        let status = machine.status().await;
        assert_eq!(
            (&status["attestation"], &status["key"]["kind"]),
            (&json!("tpm2"), &json!("tpm"))
        );
        for file in fs::read_dir(machine.state_dir()).expect("the folder is there") {
            let bytes = fs::read(file.expect("it is listed").path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("PRIVATE KEY"), "the key is in the TPM alone");
        }
        machine.start();
        let lock = order(&api, &machine.device, &json!({"type": "lock", "message": "1"})).await;
        assert_eq!(
            ended(&api, &lock).await["state"],
            "done",
            "the TPM signs receipts"
        );
        activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
        let settings = reported(&api, &machine.device, "1").await;
        assert_eq!(setting(&settings, "camera.allowed")["state"], "verified");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_configuration_is_in_force_when_enrollment_ends() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
        let mut machine = Machine::new();
        machine.set_environment("MUSTER_TPM", "none");
        machine.enroll(&api, &server.admin).await;
        // Nobody has started `muster-agent run`.
        let status = machine.status().await;
        assert_eq!(
            (&status["settings"], &status["attestation"]),
            (&json!(1), &json!("unattested"))
        );
        let settings = reported(&api, &machine.device, "1").await;
        assert_eq!(setting(&settings, "camera.allowed")["state"], "verified");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_a_machine_that_is_installed_anew_is_the_same_device_by_its_tpm() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("anew", &[]);
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    trust(&api, &maker).await;
    let mut first = machine_with(&tpm);
    first.enroll(&api, &server.admin).await;
    let mut again = machine_with(&tpm);
    again.device_uuid = first.device_uuid;
    again.enroll(&api, &server.admin).await;
    assert_eq!(again.device, first.device);
    let shown = api.get(&format!("/devices/{}", again.device)).await.ok();
    assert_eq!((&shown["epoch"], &shown["state"]), (&json!(2), &json!("active")));
    // What is left of the first installation gets nothing any more.
    first.start();
    again.start();
    let lock = order(&api, &again.device, &json!({"type": "lock", "message": "1"})).await;
    assert_eq!(ended(&api, &lock).await["state"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_of_a_maker_that_the_tenant_does_not_trust_enrolls_nobody() {
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("stranger", &[]);
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    put_policy(&api, json!({"attestation": ["tpm2"]})).await.ok();
    let machine = machine_with(&tpm);
    let said = machine.try_enroll(&api, &server.admin).await;
    assert!(said.contains("attestation_rejected"), "{said}");
    let refused = eventually("it is in the log", Duration::from_secs(10), async || {
        let mut entries = api.list("/log/entries").await.into_iter();
        entries.find(|entry| entry["action"] == "enrollment.refused")
    })
    .await;
    let reason = refused["detail"]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("chain."), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_key_stays_in_the_tpm_and_signs_for_other_programs_there() {
    if !peer_is_installed("tpm2-openssl", "ls /usr/lib/*/ossl-modules/tpm2.so").await {
        return;
    }
    let Some(maker) = Maker::new() else { return };
    let tpm = maker.tpm("export", &[]);
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    trust(&api, &maker).await;
    let mut machine = machine_with(&tpm);
    machine.enroll(&api, &server.admin).await;
    let exported = machine.export().await;
    let key = fs::read_to_string(exported.join("device.key")).expect("it was written");
    assert!(key.starts_with("-----BEGIN TSS2 PRIVATE KEY-----"), "{key}");

    let path = |name: &str| exported.join(name).display().to_string();
    fs::write(exported.join("message"), "signed by a TPM").expect("it can be written");
    let tcti = tpm.tcti();
    let signed = tool_with(
        "openssl",
        &[
            "dgst",
            "-sha256",
            "-provider",
            "tpm2",
            "-provider",
            "default",
            "-propquery",
            "?provider=tpm2,tpm2.digest!=yes",
            "-sign",
            &path("device.key"),
            "-out",
            &path("signature"),
            &path("message"),
        ],
        &[("TPM2OPENSSL_TCTI", tcti.as_str())],
    )
    .await;
    assert!(signed.status.success(), "{}", everything(&signed));
    let public = openssl_ok(&["x509", "-in", &path("device.pem"), "-noout", "-pubkey"]).await;
    fs::write(exported.join("public.pem"), public).expect("it can be written");
    openssl_ok(&[
        "dgst",
        "-sha256",
        "-verify",
        &path("public.pem"),
        "-signature",
        &path("signature"),
        &path("message"),
    ])
    .await;
    openssl_ok(&[
        "verify",
        "-CAfile",
        &path("ca.pem"),
        "-untrusted",
        &path("device.pem"),
        &path("device.pem"),
    ])
    .await;
}
