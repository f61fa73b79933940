//! `serve --farm N`: simulated devices in the same process, over the real listeners, and a first policy for them.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admin_file::AdminFile;

const POLICY: &str = "baseline";
const VERSION: &str = "2026.11";
const SEED: u64 = 1;
/// How often to ask whether the farm is enrolled, and for how long at most: the policy comes in any case.
const ENROLLED_ASKED_EVERY: Duration = Duration::from_millis(250);
const ENROLLED_ASKED_MAX: u32 = 480;

/// Makes a first policy where there is none, then runs the farm until the process stops.
pub async fn farm(data_dir: PathBuf, devices: u32, mut stop: watch::Receiver<bool>) {
    let run = async {
        let file = AdminFile::read(&data_dir)?.context("admin.json was just written")?;
        let options = muster_farm::FarmOptions::in_process(
            AdminFile::path(&data_dir),
            devices,
            SEED,
            data_dir.join("farm"),
        );
        let stopped = async move {
            let _ = stop.changed().await;
        };
        // The policy comes when the devices are there, so that the first rollout has something to count.
        let seeding = async {
            if let Err(error) = first_policy(&file, devices).await {
                tracing::error!(error = format!("{error:#}"), "the first policy was not made");
            }
        };
        let (summary, ()) = tokio::join!(muster_farm::run(options, stopped), seeding);
        let summary = summary?;
        tracing::info!(%summary, "the farm has ended");
        anyhow::Ok(())
    };
    if let Err(error) = run.await {
        tracing::error!(error = format!("{error:#}"), "the farm ended");
    }
}

async fn first_policy(file: &AdminFile, devices: u32) -> Result<()> {
    #[derive(Deserialize)]
    struct Token {
        access_token: String,
    }
    let anchors = file.admin_ca_file.as_ref().unwrap_or(&file.ca_file);
    let anchors = reqwest::Certificate::from_pem_bundle(&std::fs::read(anchors)?)?;
    let http = reqwest::Client::builder().tls_certs_only(anchors).build()?;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &file.client_id),
        ("client_secret", &file.client_secret),
    ];
    let token: Token = http
        .post(format!("{}/oauth2/token", file.admin_url))
        .form(&form)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let url = |path: &str| format!("{}/api/v1{path}", file.admin_url);
    let listed: Value = http
        .get(url("/policies?limit=1"))
        .bearer_auth(&token.access_token)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    if listed["items"].as_array().is_some_and(|items| !items.is_empty()) {
        return Ok(());
    }
    for _ in 0..ENROLLED_ASKED_MAX {
        let overview: Value = http
            .get(url("/overview"))
            .bearer_auth(&token.access_token)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        if overview["devices"]["total"].as_u64() >= Some(u64::from(devices)) {
            break;
        }
        tokio::time::sleep(ENROLLED_ASKED_EVERY).await;
    }
    let calls = [
        (
            "/policies".to_owned(),
            json!({"name": POLICY, "description": "A first policy for the simulated fleet"}),
        ),
        (
            format!("/policies/{POLICY}/versions"),
            json!({"version": VERSION, "settings": settings(), "rules": []}),
        ),
        (
            format!("/policies/{POLICY}/activate"),
            json!({"version": VERSION}),
        ),
    ];
    for (path, body) in calls {
        let answer = http
            .post(url(&path))
            .bearer_auth(&token.access_token)
            .json(&body)
            .send()
            .await?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "{path} answered {status}: {}",
            answer.text().await?
        );
    }
    Ok(())
}

fn settings() -> Value {
    json!({
        "passcode.required": true,
        "passcode.min_length": 12,
        "passcode.complexity": "alphanumeric",
        "passcode.max_failed_attempts": 10,
        "screen_lock.max_idle_seconds": 600,
        "firewall.enabled": true,
        "usb.storage": "readonly",
        "bluetooth.allowed": true,
        "time.automatic": true,
        "diagnostics.allowed": false,
    })
}
