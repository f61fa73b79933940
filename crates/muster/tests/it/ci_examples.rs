//! The examples for pipelines: they are of the form that the services take, and what they run releases a policy.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, sync::Arc};

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, Uri},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    device::Obedient,
    eventually,
    jwt::TokenKey,
    server::{Options, Server, everything, muster, program, tool},
    unix_seconds, variable,
};

fn example(name: &str) -> PathBuf {
    // Where the test runs, not where it was built: build folders are shared between checkouts.
    PathBuf::from(variable("CARGO_MANIFEST_DIR").expect("cargo runs the test"))
        .join("../../deploy/ci")
        .join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_of_the_form_that_the_services_take() {
    let Some(linter) = variable("MUSTER_TEST_CHECK_JSONSCHEMA") else {
        let is_required = variable("CI").is_some_and(|value| value == "true");
        assert!(
            !is_required,
            "check-jsonschema is needed here: `cargo xtask setup` installs it"
        );
        println!("SKIPPED check-jsonschema: not installed");
        return;
    };
    let azure = [
        "--data-transform",
        "azure-pipelines",
        "--regex-variant",
        "nonunicode",
    ];
    for (file, schema, flags) in [
        ("github-actions.yml", "vendor.github-workflows", &[][..]),
        ("azure-pipelines.yml", "vendor.azure-pipelines", &azure[..]),
    ] {
        let lint = async |path: &std::path::Path| {
            let mut arguments = vec!["--builtin-schema", schema];
            arguments.extend(flags);
            arguments.push(path.to_str().expect("paths here are text"));
            tool(&linter, &arguments).await
        };
        let linted = lint(&example(file)).await;
        assert!(linted.status.success(), "{file}: {}", everything(&linted));
        // The linter looks: what the service does not know is found.
        let folder = tempfile::tempdir().expect("a folder can be made");
        let text = std::fs::read_to_string(example(file)).expect("the example is there");
        let wrong = folder.path().join(file);
        std::fs::write(
            &wrong,
            text.replace("environment: production", "enviroment: production"),
        )
        .expect("it can be written");
        assert!(!lint(&wrong).await.status.success(), "{file}");
    }
}

/// The scripts of an example by their steps' names, as a shell gets them.
fn scripts(text: &str, word: &str, name: &str) -> BTreeMap<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim_start().trim_start_matches("- ").strip_prefix(word) else {
            continue;
        };
        // What belongs to the key is further in than the key itself, which may stand behind a `- `.
        let column = line.find(word).unwrap_or_default();
        let script = if rest.trim() == "|" {
            let body = lines[at + 1..]
                .iter()
                .take_while(|next| next.trim().is_empty() || indent(next) > column);
            body.map(|line| line.trim_start()).collect::<Vec<_>>().join("\n")
        } else {
            rest.trim().to_owned()
        };
        // The name stands in the same step: before it at GitHub, behind it at Azure.
        let is_name = |line: &&&str| line.trim_start().trim_start_matches("- ").starts_with(name);
        let named = match name {
            "name:" => lines[..at].iter().rev().find(is_name),
            _ => lines[at..].iter().find(is_name),
        };
        let named = named
            .and_then(|line| line.split_once(':'))
            .expect("a step has a name")
            .1;
        found.insert(named.trim().to_owned(), script);
    }
    found
}

/// What a platform signs for its jobs: it tells by whom a token can be asked for, and whose key it is by.
struct Platform {
    address: String,
}

/// What a job shows its platform to get its own token.
const JOB_SECRET: &str = "of-this-job";

impl Platform {
    async fn start(audience: &str) -> Platform {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = format!("http://{}", listener.local_addr().expect("it has an address"));
        let key = Arc::new(TokenKey::foreign());
        let mut jwk = key.public_jwk();
        jwk["kid"] = json!("k1");
        let document = json!({"issuer": address, "jwks_uri": format!("{address}/jwks")});
        let claims =
            json!({"iss": address, "aud": audience, "sub": "repo:my-org/policies:environment:production"});
        let sign = move |headers: HeaderMap, uri: Uri| {
            let (key, mut claims) = (Arc::clone(&key), claims.clone());
            async move {
                let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
                let is_job = shown.is_some_and(|shown| {
                    shown.split_once(' ').is_some_and(|(kind, secret)| {
                        kind.eq_ignore_ascii_case("bearer") && secret == JOB_SECRET
                    })
                });
                if !is_job {
                    return Err(StatusCode::UNAUTHORIZED);
                }
                let now = unix_seconds();
                (claims["iat"], claims["exp"]) = (json!(now), json!(now + 300));
                claims["jti"] = json!(uuid::Uuid::new_v4());
                let token = key.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": "k1"}), &claims);
                // Each service names it in its own way, and both are asked for one audience.
                match uri.path() {
                    "/github"
                        if uri.query()
                            == Some(&format!(
                                "v=1&audience={}",
                                claims["aud"].as_str().unwrap_or_default()
                            )) =>
                    {
                        Ok(Json(json!({"count": 1, "value": token})))
                    }
                    "/azure" if uri.query() == Some("api-version=7.1&serviceConnectionId=connection-1") => {
                        Ok(Json(json!({"oidcToken": token})))
                    }
                    _ => Err(StatusCode::BAD_REQUEST),
                }
            }
        };
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async move || Json(document)),
            )
            .route("/jwks", get(async move || Json(json!({"keys": [jwk]}))))
            .route("/github", get(sign.clone()))
            .route("/azure", post(sign));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Platform { address }
    }
}

/// Runs what an example runs, in the order of its steps, against a server. What only the service can do (checking out, secure
/// files, artifacts) is done by the test.
async fn released_by(file: &str, word: &str, name: &str, tag_variable: &str) {
    let server = Server::start(Options::default().with("--egress-allow", "127.0.0.0/8")).await;
    let platform = Platform::start(&server.admin.admin_url).await;
    let api = server.api().await;
    api.post("/policies", &json!({"name": "base"})).await.expect(201);
    let scopes = ["policy:read", "policy:write", "policy:activate", "log:read"];
    let client: Value = api
        .post(
            "/clients",
            &json!({"name": "pipeline", "scopes": scopes, "without_secret": true}),
        )
        .await
        .ok();
    let trust = json!({"definition": {"workload": {
        "issuer": platform.address, "audience": server.admin.admin_url, "client_id": client["client_id"], "scopes": scopes,
        "conditions": [{"claim": "sub", "equals": "repo:my-org/policies:environment:production"}],
    }}});
    api.put("/trusts/platform", &trust).await.ok();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let work = folder.path();
    let put = |name: &str, bytes: &[u8]| std::fs::write(work.join(name), bytes).expect("it can be written");
    put("settings.yml", b"camera.allowed: false\n");
    put(
        "rules.yml",
        b"- name: os\n  check: {fact: os.version, op: exists}\n",
    );
    put("root.json", &api.get("/log/root").await.bytes);
    let key = server
        .data_dir()
        .join(format!("keys/tenants/{}/policy.pem", server.admin.tenant));
    let key = std::fs::read_to_string(key).expect("the key is there");
    let ca = std::fs::read_to_string(&server.admin.ca_file).expect("the certificate is there");
    put("policy.pem", key.as_bytes());
    put("ca.pem", ca.as_bytes());
    let path = |name: &str| work.join(name).display().to_string();
    let programs = work.join("bin");
    std::fs::create_dir(&programs).expect("a folder can be made");
    std::os::unix::fs::symlink(muster().as_std().get_program(), programs.join("muster"))
        .expect("it can be linked");
    let search = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
    let text = |field: &str| client[field].as_str().expect("credentials are text").to_owned();
    let environment = [
        ("PATH", search),
        ("HOME", path("")),
        ("RUNNER_TEMP", path("")),
        ("MUSTER_ADMIN_URL", server.admin.admin_url.clone()),
        ("MUSTER_CLIENT_ID", text("client_id")),
        (
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            format!("{}/github?v=1", platform.address),
        ),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", JOB_SECRET.to_owned()),
        ("SYSTEM_OIDCREQUESTURI", format!("{}/azure", platform.address)),
        ("SYSTEM_ACCESSTOKEN", JOB_SECRET.to_owned()),
        ("SERVICE_CONNECTION_ID", "connection-1".to_owned()),
        ("AGENT_TEMPDIRECTORY", path("")),
        ("MUSTER_CA", ca),
        ("MUSTER_CA_FILE", path("ca.pem")),
        ("MUSTER_POLICY_KEY", key),
        ("KEY_FILE", path("policy.pem")),
        ("POLICY", "base".to_owned()),
        (tag_variable, "policy-2026.05".to_owned()),
        ("GIT_AUTHOR_DATE", "2026-05-04T08:00:00Z".to_owned()),
        ("GIT_COMMITTER_DATE", "2026-05-04T08:00:00Z".to_owned()),
    ];
    let run = async |script: &str| {
        let mut shell = program(std::path::Path::new("bash"));
        shell
            .args(["-eu", "-o", "pipefail", "-c", script])
            .current_dir(work);
        shell
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
        let output = shell
            .stdin(Stdio::null())
            .output()
            .await
            .expect("a shell is there");
        assert!(output.status.success(), "{script}\n{}", everything(&output));
    };
    run("git init -q . && git -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m policy")
        .await;
    let example = std::fs::read_to_string(example(file)).expect("the example is there");
    let scripts = scripts(&example, word, name);
    for step in [
        "Sign in",
        "Build and sign the bundle",
        "Test it on a simulated farm",
        "Upload it",
        "Activate it",
    ] {
        let script = scripts
            .get(step)
            .unwrap_or_else(|| panic!("{file} has no step {step}: {scripts:?}"));
        // A smaller fleet says the same of a healthy bundle.
        run(&script.replace("--devices 500", "--devices 30")).await;
    }
    assert!(
        !example.contains("CLIENT_SECRET"),
        "{file} stores no secret of Muster's"
    );
    let mut device = Obedient::enroll(&api, &server.admin).await;
    eventually("a device has what the pipeline released", PATIENCE, async || {
        device.obey().await;
        (device.core.effective_settings().len() == 1).then_some(())
    })
    .await;
    let version = api.get("/policies/base/versions/2026.05").await.ok();
    assert_eq!(
        version["created_by"],
        format!("client:{}", text("client_id")),
        "{version}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_example_for_github_runs_releases_a_policy() {
    released_by("github-actions.yml", "run:", "name:", "GITHUB_REF_NAME").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_example_for_azure_runs_releases_a_policy() {
    released_by(
        "azure-pipelines.yml",
        "bash:",
        "displayName:",
        "BUILD_SOURCEBRANCHNAME",
    )
    .await;
}
