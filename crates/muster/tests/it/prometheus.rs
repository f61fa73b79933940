//! The shipped rules and dashboards, run by a Prometheus that is not ours and scrapes a real server.

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;

use crate::support::{
    PATIENCE,
    device::Device,
    eventually,
    haproxy::free_port,
    mail::tool,
    server::{Options, Server, everything, program},
};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_rules_fire_and_end_where_their_tests_say() {
    let Some(promtool) = tool("promtool", "prometheus") else {
        return;
    };
    let file = format!("{DEPLOY}/prometheus/mdm.rules.test.yml");
    let output = program(&promtool)
        .args(["test", "rules", &file])
        .output()
        .await
        .expect("promtool starts");
    let said = everything(&output);
    assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shipped_rule_has_a_runbook() {
    let rules =
        fs::read_to_string(format!("{DEPLOY}/prometheus/mdm.rules.yml")).expect("the rules are there");
    let urls: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url:"))
        .collect();
    assert_eq!(urls.len(), rules.matches("- alert:").count());
    for url in urls {
        let name = url
            .trim()
            .trim_matches('"')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let page = format!("{DEPLOY}/../docs/runbooks/{name}.md");
        assert!(Path::new(&page).is_file(), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_in_the_format_that_promtool_checks() {
    let Some(promtool) = tool("promtool", "prometheus") else {
        return;
    };
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    Device::enroll(&api, &server.admin).await.checkin().await;
    let metrics = reqwest::get(format!("{}/metrics", server.admin.ops_url)).await;
    let metrics = metrics.expect("it answers").bytes().await.expect("it is text");
    let mut command = program(&promtool);
    command.args(["check", "metrics"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = command.spawn().expect("promtool starts");
    let mut input = running.stdin.take().expect("it is piped");
    tokio::io::AsyncWriteExt::write_all(&mut input, &metrics)
        .await
        .expect("it reads");
    drop(input);
    let output = running.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{}", everything(&output));
}

/// Every expression of a dashboard.
fn expressions(of: &Value, found: &mut Vec<String>) {
    match of {
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get("expr") {
                found.push(text.clone());
            }
            members.values().for_each(|member| expressions(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// Expressions that have nothing to show on a server without a past, witnesses or devices that fail.
fn may_be_empty(expression: &str) -> bool {
    [
        "offset 24h",
        "histogram_quantile",
        "witness_answers",
        "alert_deliveries",
        "mdm_checkins",
    ]
    .iter()
    .any(|part| expression.contains(part))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboards_is_answered_by_a_prometheus_that_scrapes_a_server() {
    let Some(prometheus) = tool("prometheus", "prometheus") else {
        return;
    };
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    Device::enroll(&api, &server.admin).await.checkin().await;
    let folder = server.folder();
    let (port, target) = (
        free_port(),
        server.admin.ops_url.trim_start_matches("http://").to_owned(),
    );
    let configuration = folder.path().join("prometheus.yml");
    let rules = format!("{DEPLOY}/prometheus/mdm.rules.yml");
    fs::write(
        &configuration,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{muster_url: 'https://mdm.example'}}}}\n\
             rule_files: ['{rules}']\n\
             scrape_configs: [{{job_name: muster, static_configs: [{{targets: ['{target}']}}]}}]\n"
        ),
    )
    .expect("it can be written");
    let mut command = program(&prometheus);
    command
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.path().join("tsdb").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.path().join("prometheus.log")).expect("a file can be made"));
    let _running = command.kill_on_drop(true).spawn().expect("prometheus starts");
    let origin = format!("http://127.0.0.1:{port}");
    let query = async |expression: &str| -> Value {
        let asked = reqwest::Client::new()
            .get(format!("{origin}/api/v1/query"))
            .query(&[("query", expression)]);
        match asked.send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    };
    let is_full = |answer: &Value| {
        answer["data"]["result"]
            .as_array()
            .is_some_and(|found| !found.is_empty())
    };
    eventually("rules were evaluated, and Prometheus has seen it", PATIENCE * 2, async || {
        let seen = query("increase(mdm_enrollments_total[1h]) >= 0 and on () mdm_alert_evaluated_timestamp_seconds > 0").await;
        is_full(&seen).then_some(())
    })
    .await;
    let mut count = 0;
    for dashboard in ["muster", "muster-alerts"] {
        let text =
            fs::read_to_string(format!("{DEPLOY}/grafana/{dashboard}.json")).expect("the dashboard is there");
        assert!(
            text.contains("${DS_PROMETHEUS}"),
            "the data source is asked for at import"
        );
        let mut found = Vec::new();
        expressions(&serde_json::from_str(&text).expect("it is JSON"), &mut found);
        for expression in found {
            let answer = query(&expression).await;
            assert_eq!(answer["status"], "success", "{expression}: {answer}");
            assert!(
                is_full(&answer) || may_be_empty(&expression),
                "{dashboard}: nothing for {expression}"
            );
            count += 1;
        }
    }
    assert!(count >= 20, "{count}");
    let loaded: Value = reqwest::get(format!("{origin}/api/v1/rules"))
        .await
        .expect("it answers")
        .json()
        .await
        .expect("JSON");
    let rules = loaded["data"]["groups"].as_array().expect("groups").iter();
    let rules: Vec<&Value> = rules
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .collect();
    assert!(rules.len() >= 11);
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
    }
}
