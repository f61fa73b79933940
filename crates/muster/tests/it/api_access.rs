//! Access without stored secrets as others speak it: PyJWT signs assertions, npm's oidc-provider issues what workloads exchange,
//! and the command line does both.

use std::{path::PathBuf, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
};

use crate::support::{
    api::Api,
    database::each_database,
    haproxy::free_port,
    server::{Options, Server, assert_healthy, everything, muster, program, tool},
    variable,
};

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A program that is a peer; where peers are required its absence fails.
fn peer(variable_name: &str, what: &str) -> Option<PathBuf> {
    let found = variable(variable_name).map(PathBuf::from);
    if found.is_none() {
        let is_required = ["CI", "MUSTER_REQUIRE_PEERS"]
            .into_iter()
            .any(|name| variable(name).is_some_and(|value| value == "true" || value == "1"));
        assert!(!is_required, "{what} is required here and is not installed");
        println!("SKIPPED {what}: not installed");
    }
    found
}

/// The command line with a home of its own.
async fn cli(server: &Server, home: &std::path::Path, words: &[&str]) -> std::process::Output {
    let mut command = muster();
    command.args(words).env("HOME", home).stdin(Stdio::null());
    command.env("MUSTER_ADMIN_URL", &server.admin.admin_url);
    command.env("MUSTER_CA_FILE", &server.admin.ca_file);
    command.output().await.expect("it can be started")
}

async fn client(api: &Api, name: &str, scopes: &[&str]) -> String {
    let body = json!({"name": name, "scopes": scopes, "without_secret": true});
    let made = api.post("/clients", &body).await.expect(201);
    made["client_id"].as_str().expect("an id is text").to_owned()
}

const SIGN: &str = r#"
import json, sys, time, uuid, jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
kind, client, audience = sys.argv[1:4]
make = {"ES256": lambda: ec.generate_private_key(ec.SECP256R1()), "EdDSA": ed25519.Ed25519PrivateKey.generate}
key = make.get(kind, lambda: rsa.generate_private_key(65537, 2048))()
library = jwt.get_algorithm_by_name(kind)
public = json.loads(library.to_jwk(key.public_key()))
public.pop("key_ops", None)
def sign(lifetime):
    now = int(time.time())
    claims = {"iss": client, "sub": client, "aud": audience, "iat": now, "exp": now + lifetime, "jti": str(uuid.uuid4())}
    return jwt.encode(claims, key, algorithm=kind)
print(json.dumps({"jwk": public, "good": sign(60), "long": sign(3600)}))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn assertions_that_pyjwt_signs_are_understood() {
    let Some(tools) = peer("MUSTER_TEST_PYTHON_TOOLS", "PyJWT") else {
        return;
    };
    let python = tools.join("python3");
    let python = python.to_str().expect("paths here are text");
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let audience = format!("{}/oauth2/token", server.admin.admin_url);
        for kind in ["ES256", "EdDSA", "PS256", "RS256"] {
            let id = client(&api, kind, &["device:read"]).await;
            let made = tool(python, &["-c", SIGN, kind, &id, &audience]).await;
            assert!(made.status.success(), "{}", everything(&made));
            let made: Value = serde_json::from_slice(&made.stdout).expect("it is JSON");
            let text = |name: &str| made[name].as_str().expect("it is text").to_owned();
            let path = format!("/clients/{id}/keys");
            let added = api.post(&path, &json!({"jwk": made["jwk"]})).await.expect(201);
            let ask = async |assertion: &str| {
                let fields = [
                    ("grant_type", "client_credentials"),
                    ("client_assertion_type", ASSERTION),
                    ("client_assertion", assertion),
                ];
                Api::anonymous(&server.admin).form("/oauth2/token", &fields).await
            };
            let token = ask(&text("good")).await.ok()["access_token"].clone();
            let theirs = api.with_token(token.as_str().expect("a token is text"));
            theirs.get("/devices").await.ok();
            assert_eq!(
                ask(&text("good")).await.expect(401)["error"],
                "invalid_client",
                "{kind}: once"
            );
            assert_eq!(
                ask(&text("long")).await.expect(401)["error"],
                "invalid_client",
                "{kind}: too long"
            );
            // The key goes, and with it what it brought.
            let thumbprint = added["thumbprint"].as_str().expect("it is text");
            api.delete(&format!("{path}/{thumbprint}")).await.expect(204);
            theirs.get("/devices").await.refused(401, "unauthenticated");
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_signs_with_a_key_that_it_made() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let home = tempfile::tempdir().expect("a folder can be made");
    let id = client(&api, "ci", &["device:read"]).await;
    let key = home.path().join("ci.pem");
    let key = key.to_str().expect("paths here are text");
    let file = server.admin_file();
    let file = file.to_str().expect("paths here are text");
    let words = [
        "client",
        "key",
        "add",
        &id,
        "--generate",
        key,
        "--admin-file",
        file,
    ];
    let added = cli(&server, home.path(), &words).await;
    assert!(added.status.success(), "{}", everything(&added));
    let login = cli(&server, home.path(), &["login", "--client-id", &id, "--key", key]).await;
    assert!(login.status.success(), "{}", everything(&login));
    // Each verb signs anew.
    for _ in 0..2 {
        let listed = cli(&server, home.path(), &["device", "list"]).await;
        assert!(listed.status.success(), "{}", everything(&listed));
    }
    let stored =
        std::fs::read_to_string(home.path().join(".config/muster/contexts.toml")).expect("it is stored");
    assert!(
        !stored.contains("client_secret") && !stored.contains("PRIVATE"),
        "{stored}"
    );
}

/// npm's oidc-provider, which gives a program of its own a token for this API.
struct Issuer {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

const ISSUER: &str = r#"
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { generateKeyPairSync } from "node:crypto";
import { pathToFileURL } from "node:url";
const require = createRequire(process.argv[1] + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const audience = process.argv[2];
const server = createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...privateKey.export({ format: "jwk" }), kid: "k1", use: "sig", alg: "RS256" };
const job = (name) => ({ client_id: name, client_secret: "of-the-platform", grant_types: ["client_credentials"],
  redirect_uris: [], response_types: [] });
const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  clients: [job("deploy-production"), job("somebody-else")],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({ scope: "", audience: resource, accessTokenFormat: "jwt", accessTokenTTL: 300 }),
    },
  },
});
server.on("request", provider.callback());
for (const [name, resource] of [["deploy-production", audience], ["somebody-else", audience], ["deploy-production", "https://other.example"]]) {
  const answer = await fetch(`${issuer}/token`, {
    method: "POST",
    headers: { authorization: "Basic " + Buffer.from(`${name}:of-the-platform`).toString("base64") },
    body: new URLSearchParams({ grant_type: "client_credentials", resource }),
  });
  const said = await answer.json();
  console.log(JSON.stringify({ issuer, token: said.access_token, error: said.error_description }));
}
"#;

impl Issuer {
    async fn start(tools: &std::path::Path, audience: &str) -> Issuer {
        let tools = tools.to_str().expect("paths here are text");
        let mut process = program("node".as_ref())
            .args(["--input-type=module", "-e", ISSUER, tools, audience])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node can be started");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Issuer {
            _process: process,
            lines,
            address: String::new(),
        }
    }

    async fn token(&mut self) -> String {
        loop {
            let line = self
                .lines
                .next_line()
                .await
                .expect("it can be read")
                .expect("it goes on");
            let Ok(said) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            said["issuer"]
                .as_str()
                .expect("it says who it is")
                .clone_into(&mut self.address);
            return said["token"]
                .as_str()
                .unwrap_or_else(|| panic!("no token: {said}"))
                .to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_issuers_token_is_exchanged_by_the_command_line() {
    let Some(tools) = peer("MUSTER_TEST_NODE_TOOLS", "oidc-provider") else {
        return;
    };
    each_database(async |options| {
        let server = Server::start(options.with("--egress-allow", "127.0.0.0/8")).await;
        let api = server.api().await;
        let mut issuer = Issuer::start(&tools, &server.admin.admin_url).await;
        let (good, other_job, other_audience) = (issuer.token().await, issuer.token().await, issuer.token().await);
        let id = client(&api, "deploy", &["device:read", "policy:read"]).await;
        let trust = json!({"definition": {"workload": {
            "issuer": issuer.address, "audience": server.admin.admin_url, "client_id": id, "scopes": ["device:read"],
            "conditions": [{"claim": "sub", "equals": "deploy-production"}],
        }}});
        api.put("/trusts/platform", &trust).await.ok();
        let home = tempfile::tempdir().expect("a folder can be made");
        let file = home.path().join("token");
        let words = [
            "login",
            "--client-id",
            &id,
            "--exchange-token-file",
            file.to_str().expect("paths here are text"),
        ];
        for (what, token) in [("another job", &other_job), ("another audience", &other_audience)] {
            std::fs::write(&file, token).expect("it can be written");
            let refused = cli(&server, home.path(), &words).await;
            assert_eq!(refused.status.code(), Some(1), "{what}: {}", everything(&refused));
            assert!(!everything(&refused).contains(token.as_str()), "{what}: no token is printed");
        }
        std::fs::write(&file, &good).expect("it can be written");
        let login = cli(&server, home.path(), &words).await;
        assert!(login.status.success(), "{}", everything(&login));
        let listed = cli(&server, home.path(), &["device", "list"]).await;
        assert!(listed.status.success(), "{}", everything(&listed));
        let more = cli(&server, home.path(), &["policy", "list"]).await;
        assert_eq!(more.status.code(), Some(1), "the trust gives no more");
        let fields = [
            ("grant_type", EXCHANGE),
            ("client_id", id.as_str()),
            ("subject_token", good.as_str()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ];
        let said = Api::anonymous(&server.admin).form("/oauth2/token", &fields).await.ok();
        assert_eq!((&said["expires_in"], &said["scope"]), (&json!(900), &json!("device:read")));
        api.delete("/trusts/platform").await.expect(204);
        let over = api.with_token(said["access_token"].as_str().expect("a token is text"));
        over.get("/devices").await.refused(401, "unauthenticated");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_asked_for_with_a_certificate_is_its_holders_alone() {
    each_database(async |options| {
        let port = free_port().to_string();
        let server = Server::start(options.with("--api-listen", format!("127.0.0.1:{port}"))).await;
        let api = server.api().await;
        let programs = format!("https://127.0.0.1:{port}");
        let home = tempfile::tempdir().expect("a folder can be made");
        let path = |name: &str| {
            home.path()
                .join(name)
                .to_str()
                .expect("paths here are text")
                .to_owned()
        };
        for name in ["ci", "thief"] {
            let (key, certificate, subject) = (
                path(&format!("{name}.key")),
                path(&format!("{name}.pem")),
                format!("/CN={name}"),
            );
            let words = [
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-subj",
                &subject,
                "-days",
                "2",
            ];
            let made = tool("openssl", &words).await;
            assert!(made.status.success(), "{}", everything(&made));
        }
        let id = client(&api, "ci", &["device:read"]).await;
        let (file, certificate, key) = (server.admin_file(), path("ci.pem"), path("ci.key"));
        let file = file.to_str().expect("paths here are text");
        let words = [
            "client",
            "key",
            "add",
            &id,
            "--certificate",
            &certificate,
            "--admin-file",
            file,
        ];
        let added = cli(&server, home.path(), &words).await;
        assert!(added.status.success(), "{}", everything(&added));
        let ca = server.admin.ca_file.to_str().expect("paths here are text");
        let curl = async |who: Option<&str>, words: &[&str]| {
            let (certificate, key) = (
                path(&format!("{}.pem", who.unwrap_or_default())),
                path(&format!("{}.key", who.unwrap_or_default())),
            );
            let mut all = vec!["--silent", "--cacert", ca];
            if who.is_some() {
                all.extend(["--cert", &certificate, "--key", &key]);
            }
            all.extend(words);
            let asked = tool("curl", &all).await;
            assert!(asked.status.success(), "{}", everything(&asked));
            serde_json::from_slice::<Value>(&asked.stdout).expect("the answer is JSON")
        };
        let (endpoint, form) = (
            format!("{programs}/oauth2/token"),
            format!("grant_type=client_credentials&client_id={id}"),
        );
        for who in [None, Some("thief")] {
            assert_eq!(
                curl(who, &["--data", &form, &endpoint]).await["error"],
                "invalid_client",
                "{who:?}"
            );
        }
        let token = curl(Some("ci"), &["--data", &form, &endpoint]).await["access_token"].clone();
        let token = token.as_str().expect("a token is text");
        let (bearer, devices) = (
            format!("Authorization: Bearer {token}"),
            format!("{programs}/api/v1/devices"),
        );
        assert!(curl(Some("ci"), &["--header", &bearer, &devices]).await["items"].is_array());
        // Whoever stole it cannot use it: with another certificate, with none, or where none is asked for.
        for who in [None, Some("thief")] {
            assert_eq!(
                curl(who, &["--header", &bearer, &devices]).await["code"],
                "unauthenticated",
                "{who:?}"
            );
        }
        api.with_token(token)
            .get("/devices")
            .await
            .refused(401, "unauthenticated");
        let asked = [
            ("token", token),
            ("client_id", server.admin.client_id.as_str()),
            ("client_secret", server.admin.client_secret.as_str()),
        ];
        let said = Api::anonymous(&server.admin)
            .form("/oauth2/introspect", &asked)
            .await
            .ok();
        assert!(said["cnf"]["x5t#S256"].is_string(), "{said}");
        // The listener has no pages, and the command line knows the way.
        let page = tool(
            "curl",
            &[
                "--silent",
                "--cacert",
                ca,
                "--output",
                "-",
                "--write-out",
                "%{http_code}",
                &format!("{programs}/devices"),
            ],
        )
        .await;
        assert!(everything(&page).contains("404"), "{}", everything(&page));
        let words = [
            "login",
            "--admin-url",
            &programs,
            "--client-id",
            &id,
            "--key",
            &key,
            "--certificate",
            &certificate,
        ];
        let login = cli(&server, home.path(), &words).await;
        assert!(login.status.success(), "{}", everything(&login));
        let listed = cli(&server, home.path(), &["device", "list"]).await;
        assert!(listed.status.success(), "{}", everything(&listed));
        let metadata = curl(
            None,
            &[&format!("{programs}/.well-known/oauth-authorization-server")],
        )
        .await;
        assert_eq!(
            metadata["mtls_endpoint_aliases"]["token_endpoint"],
            json!(endpoint)
        );
        assert_healthy(&server).await;
    })
    .await;
}
