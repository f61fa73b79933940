//! `muster witness` as a process of its own, and root documents that demand it.

use std::{path::PathBuf, process::Stdio, sync::Arc};

use muster_trust::{
    dsse::Envelope,
    key::{PublicKey, SigningKey},
    note::{SignatureType, verifier_key},
    root::{Role, RoleKeys, RootDocument},
};
use reqwest::header::CONTENT_TYPE;
use tempfile::TempDir;
use tokio::process::Child;

use super::{
    PATIENCE, eventually,
    haproxy::free_port,
    server::{Server, muster},
};

pub const NAME: &str = "witness.example/w1";

/// A running witness. It is killed when the test ends.
pub struct Witness {
    folder: Arc<TempDir>,
    name: String,
    port: u16,
    log_keys: Vec<String>,
    child: Option<Child>,
}

impl Witness {
    /// Starts one that knows these logs.
    pub async fn start(folder: Arc<TempDir>, name: &str, log_keys: Vec<String>) -> Witness {
        let mut witness = Witness {
            folder,
            name: name.to_owned(),
            port: free_port(),
            log_keys,
            child: None,
        };
        witness.start_again().await;
        witness
    }

    pub async fn start_again(&mut self) {
        let log = std::fs::File::create(self.folder.path().join(format!("{}.stderr", self.name)));
        let mut command = muster();
        command
            .args(["witness", "--name", NAME, "--data-dir"])
            .arg(self.data_dir())
            .args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        for key in &self.log_keys {
            command.args(["--log", key]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log can be kept"))
            .kill_on_drop(true);
        self.child = Some(command.spawn().expect("the program muster starts"));
        eventually("the witness listens", PATIENCE, async || {
            self.submit(String::new()).await.ok().map(drop)
        })
        .await;
    }

    pub async fn stop(&mut self) {
        let mut child = self.child.take().expect("the witness runs");
        child.kill().await.expect("a child can be killed");
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{}.stderr", self.name))).unwrap_or_default()
    }

    pub fn key(&self) -> SigningKey {
        let pem = std::fs::read_to_string(self.data_dir().join("witness-key.pem")).expect("it has a key");
        SigningKey::from_pkcs8_pem(&pem).expect("it is a key")
    }

    /// Its verifier key.
    pub fn verifier_key(&self) -> String {
        verifier_key(NAME, SignatureType::Cosignature, self.key().public()).expect("it is Ed25519")
    }

    /// `--witness` for a server whose root document does not name it.
    pub fn with_key(&self) -> String {
        format!("{}#{}", self.url(), self.verifier_key())
    }

    /// Files of evidence that it keeps.
    pub fn evidence(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.data_dir().join("evidence")).expect("the folder is there");
        files
            .map(|file| std::fs::read_to_string(file.expect("it can be read").path()).expect("it is text"))
            .collect()
    }

    /// Submits a body as any client would; status, content type and body of the answer.
    pub async fn submit(&self, body: String) -> Result<(u16, String, String), reqwest::Error> {
        let url = format!("{}/add-checkpoint", self.url());
        let answer = reqwest::Client::new().post(url).body(body).send().await?;
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind
            .map_or("", |kind| kind.to_str().expect("it is text"))
            .to_owned();
        Ok((answer.status().as_u16(), kind, answer.text().await?))
    }
}

/// The newest root document of a server.
pub fn root_document(server: &Server) -> RootDocument {
    let documents = documents(server);
    let first = RootDocument::verify_first(&documents[0], None).expect("it verifies");
    documents[1..].iter().fold(first, |current, next| {
        RootDocument::verify_next(&current, next).expect("it verifies")
    })
}

/// The verifier key of the tenant's log.
pub fn log_key(server: &Server) -> String {
    let root = root_document(server);
    let (keys, _) = root.role(Role::Log);
    verifier_key(&root.log_origin, SignatureType::Ed25519, keys[0]).expect("it is Ed25519")
}

fn root_file(server: &Server) -> PathBuf {
    let keys = server.data_dir().join("keys/tenants");
    keys.join(&server.admin.tenant).join("root.json")
}

fn documents(server: &Server) -> Vec<Envelope> {
    let text = std::fs::read(root_file(server)).expect("the root document is there");
    serde_json::from_slice(&text).expect("it holds envelopes")
}

/// Gives a stopped server the next root document, which demands cosignatures.
pub fn demand_witnesses(server: &Server, witnesses: &[&PublicKey], threshold: u32) {
    let take_away = server.data_dir().join("take-away");
    let pem = std::fs::read_to_string(take_away.join(format!("root-key-{}.pem", server.admin.tenant)));
    let key =
        SigningKey::from_pkcs8_pem(&pem.expect("the root key was not carried away")).expect("it is a key");
    let mut next = root_document(server);
    next.version += 1;
    for public in witnesses {
        next.keys.insert(public.key_id(), (*public).clone());
    }
    next.roles.insert(
        Role::Witness,
        RoleKeys {
            keys: witnesses.iter().map(|public| public.key_id()).collect(),
            threshold,
        },
    );
    let mut all = documents(server);
    all.push(next.sign(&[&key]).expect("it is valid"));
    let text = serde_json::to_vec(&all).expect("envelopes are JSON");
    std::fs::write(root_file(server), text).expect("it can be written");
}
