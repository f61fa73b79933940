//! Reaching a PostgreSQL server: TCP, Unix sockets, TLS, wrong passwords, restarts.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use muster_storage::{
    DatabaseUrl, Scope, Statement, StorageError,
    testing::{PostgresServer, TestDatabase, open, postgres_url},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{COUNTERS, INSERT_COUNTER, SCHEMA};

/// Runs a statement outside of Muster's ways, as the URL's user itself.
pub async fn directly(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("it connects");
    tokio::spawn(connection);
    client.batch_execute(sql).await.expect("it runs");
}

/// A server of its own, where a server may be had at all.
fn server(settings: &[(&str, &str)], files: &[(&str, &str)]) -> Option<PostgresServer> {
    postgres_url()?;
    Some(PostgresServer::start_with(settings, files).expect("a server starts"))
}

/// A server whose superuser tests may use, shared by those that do it no harm.
pub fn shared_server() -> Option<&'static PostgresServer> {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    postgres_url()?;
    Some(SERVER.get_or_init(|| PostgresServer::start().expect("a server starts")))
}

async fn opens(url: &str) -> Result<(), StorageError> {
    let db = open(&url.parse::<DatabaseUrl>()?, SCHEMA).await?;
    db.read(Scope::System, |tx| {
        tx.query(&COUNTERS, &[], |row| row.get::<String>(0))
    })
    .await
    .map(drop)
}

#[tokio::test]
async fn sockets_tls_and_passwords() {
    let issued =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate is made");
    let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let settings = [
        ("ssl", "on"),
        ("ssl_cert_file", "server.pem"),
        ("ssl_key_file", "server.key"),
    ];
    let Some(server) = server(&settings, &[("server.pem", &certificate), ("server.key", &key)]) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &certificate).expect("the file can be written");
    let root = root.display();
    let by_name = server.url().replace("127.0.0.1", "localhost");

    let check = async |url: String, works: bool| {
        let opened = opens(&url).await;
        assert_eq!(
            opened.is_ok(),
            works,
            "{opened:?} for {:?}",
            url.parse::<DatabaseUrl>()
        );
        let shown = opened
            .err()
            .map(|error| format!("{error} {error:?}"))
            .unwrap_or_default();
        let password = url
            .split(':')
            .nth(2)
            .and_then(|rest| rest.split('@').next())
            .unwrap_or("?");
        assert!(!shown.contains(password), "{shown}");
    };
    check(server.url(), true).await;
    check(server.socket_url(), true).await;
    check(format!("{by_name}?sslmode=require&sslrootcert={root}"), true).await;
    check(format!("{by_name}?sslmode=verify-full&sslrootcert={root}"), true).await;
    check(format!("{by_name}?sslmode=disable"), true).await;
    // The certificate names localhost only, and the system's roots do not know it.
    check(
        format!("{}?sslmode=verify-full&sslrootcert={root}", server.url()),
        false,
    )
    .await;
    check(format!("{by_name}?sslmode=require"), false).await;
    check(
        format!("{by_name}?sslmode=require&sslrootcert=/nowhere.pem"),
        false,
    )
    .await;
    let password = server
        .url()
        .split([':', '@'])
        .nth(2)
        .expect("a password")
        .to_owned();
    check(server.url().replace(&password, "wrong-password"), false).await;
}

#[tokio::test]
async fn a_crash_of_the_server_costs_neither_node_nor_acknowledged_rows() {
    // What was written outlives a process without fsync; only a machine's crash needs that.
    let Some(server) = server(&[("synchronous_commit", "on")], &[]) else {
        return;
    };
    let db = TestDatabase::postgres(&server.url(), SCHEMA).await;
    let writer = {
        let db = db.db().clone();
        tokio::spawn(async move {
            let (mut acknowledged, mut unknown) = (Vec::new(), 0);
            for number in 0..i64::MAX {
                let written = db
                    .write(Scope::System, move |tx| {
                        tx.execute(&INSERT_COUNTER, &[&number.to_string(), &number])
                    })
                    .await;
                match written {
                    Ok(_) => acknowledged.push(number),
                    Err(StorageError::OutcomeUnknown(_)) => unknown += 1,
                    Err(error) => {
                        assert!(error.is_transient(), "{error:?}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                if number > 200 && acknowledged.last() == Some(&number) && acknowledged.len() > 250 {
                    return (acknowledged, unknown);
                }
            }
            (acknowledged, unknown)
        })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let server = tokio::task::spawn_blocking(move || server.crash_and_restart().map(|()| server));
    let _server = server.await.expect("no panic").expect("it restarts");
    let (acknowledged, unknown) = writer.await.expect("the writer lives");
    let there = db
        .read(Scope::System, |tx| {
            tx.query(&COUNTERS, &[], |row| row.get::<String>(0))
        })
        .await;
    let there: std::collections::HashSet<String> = there.expect("a read").into_iter().collect();
    assert!(
        acknowledged
            .iter()
            .all(|number| there.contains(&number.to_string()))
    );
    assert!(
        there.len() <= acknowledged.len() + unknown,
        "{} {} {unknown}",
        there.len(),
        acknowledged.len()
    );
}

#[tokio::test]
async fn a_statement_whose_columns_changed_is_prepared_again() {
    const ALL_COLUMNS: Statement = Statement {
        name: "ALL_COLUMNS",
        sql: "SELECT * FROM counter",
    };
    let Some(server) = postgres_url() else { return };
    let db = TestDatabase::postgres(&server, SCHEMA).await;
    let DatabaseUrl::Postgres(url) = db.url() else {
        panic!("it is PostgreSQL")
    };
    for _ in 0..2 {
        let read = db
            .write(Scope::System, |tx| {
                tx.query(&ALL_COLUMNS, &[], |row| row.get::<String>(0))
            })
            .await;
        assert!(read.is_ok(), "{read:?}");
        directly(
            url,
            "ALTER TABLE counter ADD COLUMN note TEXT; ALTER TABLE counter ALTER note SET DEFAULT 'x'",
        )
        .await;
        directly(url, "ALTER TABLE counter RENAME note TO note_before").await;
        let read = db
            .write(Scope::System, |tx| {
                tx.query(&ALL_COLUMNS, &[], |row| row.get::<String>(0))
            })
            .await;
        assert!(read.is_ok(), "{read:?}");
        directly(url, "ALTER TABLE counter DROP COLUMN note_before").await;
    }
}

/// Passes bytes between a client and the server until, once `armed`, the client says COMMIT, and then cuts the
/// connection: `delivers` says whether the server hears the COMMIT first.
async fn cutting_proxy(server_port: u16, armed: Arc<AtomicBool>, delivers: bool) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", server_port))
                .await
                .expect("the server");
            tokio::spawn(pass_until_commit(client, server, Arc::clone(&armed), delivers));
        }
    });
    port
}

async fn pass_until_commit(
    client: TcpStream,
    server: TcpStream,
    armed: Arc<AtomicBool>,
    delivers: bool,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = [0; 4096];
    loop {
        let length = from_client.read(&mut buffer).await?;
        let heard = &buffer[..length];
        let commits = armed.load(Ordering::SeqCst) && heard.windows(7).any(|bytes| bytes == b"COMMIT\0");
        if commits {
            // The client hears nothing more, whatever the server does.
            answers.abort();
        }
        if !commits || delivers {
            to_server.write_all(heard).await?;
        }
        if commits || length == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_connection_lost_during_commit_leaves_the_outcome_unknown() {
    let Some(server) = postgres_url() else { return };
    for delivers in [true, false] {
        let direct = TestDatabase::postgres(&server, SCHEMA).await;
        let DatabaseUrl::Postgres(url) = direct.url() else {
            panic!("it is PostgreSQL")
        };
        let mut through = url::Url::parse(url).expect("a URL");
        let armed = Arc::new(AtomicBool::new(false));
        let port = cutting_proxy(through.port().unwrap_or(5432), Arc::clone(&armed), delivers).await;
        through.set_port(Some(port)).expect("a port can be set");
        let proxied = open(&DatabaseUrl::Postgres(through.to_string()), SCHEMA)
            .await
            .expect("it opens");
        // Opening commits too.
        armed.store(true, Ordering::SeqCst);
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let written = proxied.write(Scope::System, move |tx| {
            counted.fetch_add(1, Ordering::SeqCst);
            tx.execute(&INSERT_COUNTER, &[&"a", &1i64])
        });
        let written = written.await;
        assert!(
            matches!(written, Err(StorageError::OutcomeUnknown(_))),
            "{written:?}"
        );
        assert_eq!(runs.load(Ordering::SeqCst), 1, "it must not run twice");
        let there = direct
            .read(Scope::System, |tx| {
                tx.query(&COUNTERS, &[], |row| row.get::<String>(0))
            })
            .await;
        assert_eq!(there.expect("a read").len(), usize::from(delivers));
    }
}
