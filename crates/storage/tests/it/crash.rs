//! A killed process loses no acknowledged row.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use muster_storage::{DatabaseUrl, Scope, testing::open};

use crate::{COUNTERS, INSERT_COUNTER, SCHEMA};

const PATH_VARIABLE: &str = "MUSTER_STORAGE_CRASH_PATH";
const ROUNDS: usize = 3;
const ROWS_BEFORE_KILL: usize = 150;

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test starts itself as the process that is killed"
)]
async fn a_killed_process_loses_no_acknowledged_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("crash.db");
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "crash::writes_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(PATH_VARIABLE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut killed = false;
        for line in lines.map_while(Result::ok) {
            let Some((_, name)) = line.split_once("acknowledged ") else {
                continue;
            };
            acknowledged.push(name.to_owned());
            if acknowledged.len() >= (round + 1) * ROWS_BEFORE_KILL && !killed {
                child.kill().expect("the child can be killed");
                killed = true;
            }
        }
        child.wait().expect("the child has ended");
        assert!(killed, "the child wrote only {} rows", acknowledged.len());

        let db = open(&DatabaseUrl::Sqlite(path.clone()), SCHEMA)
            .await
            .expect("it opens after the crash");
        let there: Vec<String> = db
            .read(Scope::System, |tx| tx.query(&COUNTERS, &[], |row| row.get(0)))
            .await
            .expect("a read");
        let there: std::collections::HashSet<_> = there.into_iter().collect();
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|name| !there.contains(*name))
            .collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        db.close().await;
    }
}

/// The child of the test above: eight writers that say what was acknowledged, until the process is killed.
#[tokio::test]
#[ignore = "started by a_killed_process_loses_no_acknowledged_row"]
#[expect(clippy::disallowed_methods, reason = "the parent says where the database is")]
async fn writes_until_killed() {
    let Ok(path) = std::env::var(PATH_VARIABLE) else {
        return;
    };
    let db = open(&DatabaseUrl::Sqlite(path.into()), SCHEMA)
        .await
        .expect("it opens");
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let db = db.clone();
            tokio::spawn(async move {
                for number in 0..i64::MAX {
                    let name = format!("{}-{writer}-{number}", std::process::id());
                    let row = name.clone();
                    db.write(Scope::System, move |tx| {
                        tx.execute(&INSERT_COUNTER, &[&row, &number])
                    })
                    .await
                    .expect("a row");
                    // One call, so that the lines of the writers do not mix; the parent may be gone already.
                    let _ = std::io::stdout()
                        .lock()
                        .write_all(format!("acknowledged {name}\n").as_bytes());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("the writer lives");
    }
}
