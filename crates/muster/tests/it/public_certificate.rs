//! The certificate that people see under the public names: from files, or from Vault's PKI engine (judged by `hvac`).

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::{
    custody::is_judged,
    support::{
        PATIENCE,
        authority::TestAuthority,
        database::each_database,
        eventually,
        server::{Options, Server, assert_healthy, everything, run_muster},
        vault::{Fault, ROLE_ID, SECRET_ID, Vault},
    },
};

const NAME: &str = "mdm.example";
const HOUR: Duration = Duration::from_secs(3600);

/// A client that knows the server under its public name and trusts this authority alone. Every request is a handshake.
fn client(server: &Server, anchor: &str) -> reqwest::Client {
    let address = server.admin.admin_url.rsplit_once(':').expect("it has a port").1;
    let address: SocketAddr = format!("127.0.0.1:{address}").parse().expect("an address");
    let anchor = reqwest::Certificate::from_pem(anchor.as_bytes()).expect("it is PEM");
    reqwest::Client::builder()
        .tls_certs_only([anchor])
        .resolve(NAME, address)
        .pool_max_idle_per_host(0)
        .tls_info(true)
        .build()
        .expect("a client")
}

fn url(server: &Server) -> String {
    let port = server.admin.admin_url.rsplit_once(':').expect("it has a port").1;
    format!("https://{NAME}:{port}/signin")
}

/// The certificate that a client is shown, where it trusts it.
async fn shown(server: &Server, anchor: &str) -> Option<Vec<u8>> {
    let answer = client(server, anchor).get(url(server)).send().await.ok()?;
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>()?;
    info.peer_certificate().map(<[u8]>::to_vec)
}

/// The record of the public certificate.
async fn record(server: &Server) -> Value {
    let listed = server.api().await.list("/secrets").await;
    let found = listed
        .into_iter()
        .find(|one| one["name"].as_str().is_some_and(|name| name.ends_with(":public")));
    found.expect("the certificate has a record")
}

/// Asks again and again, with a handshake each time, and counts.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    running: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    fn start(server: &Server, anchor: &str) -> Load {
        let (http, url) = (client(server, anchor), url(server));
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, counted) = (Arc::clone(&stop), Arc::clone(&good));
        let running = tokio::spawn(async move {
            let mut failed = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                match http.get(&url).send().await {
                    Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failed.push(format!("{error:?}")),
                }
            }
            failed
        });
        Load { stop, good, running }
    }

    async fn assert_none_failed(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.running.await.expect("it ran");
        let good = self.good.load(Ordering::Relaxed);
        println!(
            "handshakes while the certificate was replaced: {good} good, {} failed",
            failed.len()
        );
        assert!(failed.is_empty() && good > 20, "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_files_is_replaced_without_a_failed_handshake() {
    each_database(async |options| {
        let authority = TestAuthority::new("a company's authority");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| -> PathBuf { folder.path().join(name) };
        let put = |names: &[&str]| {
            let (certificate, key) = authority.issue(names, HOUR);
            fs::write(at("key.pem"), key).expect("it is written");
            fs::write(at("chain.pem"), certificate).expect("it is written");
        };
        put(&[NAME]);
        let mut server = Server::start(
            options
                .with("--public-names", NAME)
                .with("--admin-certificate", at("chain.pem").display())
                .with("--admin-certificate-key", at("key.pem").display()),
        )
        .await;
        let anchor = authority.pem();
        let first = shown(&server, &anchor).await.expect("people trust it");
        // This machine, and devices, go on with the installation's own.
        let own = fs::read_to_string(&server.admin.ca_file).expect("it is there");
        assert!(
            shown(&server, &own).await.is_none(),
            "under the public name it is the company's"
        );
        assert_eq!(record(&server).await["place"], "file");
        let admin = server.data_dir().join("admin.json");
        let named: Value =
            serde_json::from_slice(&fs::read(&admin).expect("it is there")).expect("it is JSON");
        let anchors =
            fs::read_to_string(named["admin_ca_file"].as_str().expect("it is named")).expect("it is there");
        assert!(anchors.contains(anchor.trim()) && anchors.contains(own.trim()));
        let asked = run_muster(&["--admin-file", &admin.display().to_string(), "secret", "list"]).await;
        assert!(asked.status.success(), "{}", everything(&asked));

        let load = Load::start(&server, &anchor);
        put(&[NAME, "m.example"]);
        let second = eventually("the new one is shown", PATIENCE, async || {
            shown(&server, &anchor).await.filter(|now| *now != first)
        })
        .await;
        eventually("its record says so", PATIENCE, async || {
            (record(&server).await["version"].as_i64() > Some(1)).then_some(())
        })
        .await;
        // What is no certificate, of another key, or for another name, is said and not shown.
        let (other, _) = authority.issue(&[NAME], HOUR);
        let (elsewhere, key) = authority.issue(&["elsewhere.example"], HOUR);
        for (content, why) in [
            ("nothing".to_owned(), "holds no certificate"),
            (other, "the key is of another certificate"),
        ] {
            fs::write(at("chain.pem"), content).expect("it is written");
            eventually(why, PATIENCE, async || {
                record(&server).await["error"]
                    .as_str()?
                    .contains(why)
                    .then_some(())
            })
            .await;
        }
        fs::write(at("key.pem"), key).expect("it is written");
        fs::write(at("chain.pem"), elsewhere).expect("it is written");
        eventually("another name is refused", PATIENCE, async || {
            let error = record(&server).await["error"].as_str()?.to_owned();
            error.contains("for none of these names").then_some(())
        })
        .await;
        assert_eq!(shown(&server, &anchor).await, Some(second), "the good one stays");
        load.assert_none_failed().await;
        assert_healthy(&server).await;
        // What is over stops no start, and the node's own is shown meanwhile; so it is when one ends.
        server.stop().await;
        let (certificate, key) = authority.issue(&[NAME], Duration::from_secs(20));
        fs::write(at("key.pem"), key).expect("it is written");
        fs::write(at("chain.pem"), certificate).expect("it is written");
        server.restart().await;
        assert!(shown(&server, &anchor).await.is_some());
        eventually("it ends, and the node's own is shown", PATIENCE, async || {
            shown(&server, &own).await.map(drop)
        })
        .await;
        server.restart().await;
        assert!(shown(&server, &own).await.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vaults_pki_certifies_and_renews_by_itself_and_its_absence_stops_nothing() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret-id");
    fs::write(&secret, SECRET_ID).expect("it is written");
    vault.certify_for(40).await;
    vault.set(Fault::Sealed).await;
    let server = Server::start(
        Options::default()
            .with("--public-names", NAME)
            .with("--admin-certificate", "vault:pki/muster")
            .with("--vault-url", &vault.url)
            .with("--vault-role-id", ROLE_ID)
            .with("--vault-secret-id-file", secret.display()),
    )
    .await;
    let anchor = vault.authority_pem().await;
    assert!(shown(&server, &anchor).await.is_none(), "there is none yet");
    eventually("why is said", PATIENCE, async || {
        record(&server).await["error"]
            .as_str()?
            .contains("sealed")
            .then_some(())
    })
    .await;
    vault.set(Fault::None).await;
    let first = eventually("it is certified", PATIENCE, async || {
        shown(&server, &anchor).await
    })
    .await;
    let load = Load::start(&server, &anchor);
    eventually("it is renewed before it ends", PATIENCE, async || {
        shown(&server, &anchor).await.filter(|now| *now != first)
    })
    .await;
    let about = record(&server).await;
    assert_eq!(
        (&about["place"], &about["rotated_by"]),
        (&"vault:pki/muster".into(), &"server".into())
    );
    load.assert_none_failed().await;
    assert_healthy(&server).await;
}
