//! `run-script` from end to end: signed, asked for by the API, delivered, run by the real agent as root of a machine of its
//! own, and its output read by the API.

use serde_json::{Value, json};

use crate::support::{
    api::Api,
    cell::Cell,
    database::each_database,
    device::logged,
    server::{Server, assert_healthy},
};

/// The most of an output that a receipt carries.
const OUTPUT_BYTES_MAX: usize = 65_536;

async fn script(api: &Api, text: &str, more: Value) -> String {
    let mut body = json!({"name": "A script", "interpreter": "sh", "text": text});
    for (name, value) in more.as_object().expect("members") {
        body[name] = value.clone();
    }
    let added = api.post("/scripts", &body).await.expect(201);
    added["sha256"].as_str().expect("a digest is text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs_on_a_real_machine_and_its_output_is_read_by_the_api() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let Some(cell) = Cell::running(&api, &server.admin).await else {
            return;
        };
        let says = script(
            &api,
            "printf '[%s]' \"$@\"; echo; id -u; test -n \"$MUSTER_COMMAND_ID\"; echo err >&2; touch /tmp/was-here\n",
            json!({}),
        )
        .await;
        let arguments = json!(["a b", "$(touch /tmp/evaluated)", "; id", ""]);
        let body = json!({"type": "run-script", "sha256": says, "arguments": arguments});
        let (done, output) = cell.run_script(&api, body).await;
        assert_eq!(done["state"], "done", "{done}");
        let text = String::from_utf8_lossy(&output).into_owned();
        assert_eq!(text, "[a b][$(touch /tmp/evaluated)][; id][]\n0\nerr\n");
        assert_eq!(done["receipt"]["detail"], "exit code 0");
        assert!(cell.has("/tmp/was-here") && !cell.has("/tmp/evaluated"));
        assert!(!done.to_string().contains("a b]"), "an output is not part of the command's page");

        let fails = script(&api, "echo before; exit 7\n", json!({})).await;
        let (failed, output) = cell.run_script(&api, json!({"type": "run-script", "sha256": fails})).await;
        assert_eq!(
            (&failed["state"], &failed["receipt"]["code"]),
            (&json!("failed"), &json!("exit_code"))
        );
        assert_eq!(output, b"before\n");

        let hangs = script(&api, "echo begun; sleep 300\n", json!({"timeout_seconds": 1})).await;
        let (late, output) = cell.run_script(&api, json!({"type": "run-script", "sha256": hangs})).await;
        assert_eq!(late["receipt"]["code"], "timed_out", "{late}");
        assert_eq!(output, b"begun\n");

        // Nobody who may only look at commands reads what scripts print.
        let reader = api.client_with("reader", &["command:read"]).await;
        let path = format!("/commands/{}/output", done["command_id"].as_str().expect("an id"));
        reader.get(&path).await.refused(403, "insufficient_scope");
        assert_eq!(logged(&api, "command.completed", 3).await.len(), 3);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_script_prints_is_bounded_by_what_was_signed() {
    let server = Server::start(crate::support::server::Options::default()).await;
    let api = server.api().await;
    let Some(cell) = Cell::running(&api, &server.admin).await else {
        return;
    };
    let floods = "head -c 3000000 /dev/zero | tr '\\0' x; printf '\\377'\n";
    for (bytes_max, more) in [
        (OUTPUT_BYTES_MAX, json!({})),
        (100, json!({"output_bytes_max": 100})),
    ] {
        let sha256 = script(&api, floods, more).await;
        let (done, output) = cell
            .run_script(&api, json!({"type": "run-script", "sha256": sha256}))
            .await;
        assert_eq!(done["state"], "done", "{done}");
        assert_eq!(output.len(), bytes_max);
        assert!(output.iter().all(|byte| *byte == b'x'));
        let detail = done["receipt"]["detail"].as_str().expect("a sentence").to_owned();
        assert!(detail.contains(&format!("cut at {bytes_max} bytes")), "{detail}");
    }
    // A script that nobody signed is not even asked for.
    let path = format!("/devices/{}/commands", cell.device);
    let unknown = json!({"type": "run-script", "sha256": "0".repeat(64)});
    let refused = api.post(&path, &unknown).await;
    assert!((400..500).contains(&refused.status), "{}", refused.word());
    assert_healthy(&server).await;
}
