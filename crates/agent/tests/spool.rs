//! The spool under `kill -9`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use muster_agent::spool::{Opening, Slot, Spool};

/// Tells the child where to write. The child is this same test program.
const FOLDER_VARIABLE: &str = "MUSTER_TEST_SPOOL_FOLDER";
const KILLS: usize = 8;
const SAVES_PER_LIFE: usize = 25;

#[expect(
    clippy::disallowed_methods,
    reason = "the test harness starts itself as the process to kill"
)]
fn start_child(folder: &Path) -> Child {
    let program = std::env::current_exe().expect("a running program has a path");
    Command::new(program)
        .args([
            "--exact",
            "child_that_saves_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts")
}

#[test]
#[ignore = "started by `what_was_saved_survives_kill_9`"]
#[expect(
    clippy::disallowed_methods,
    reason = "the only way to hand a value to a test that runs as a child"
)]
fn child_that_saves_until_it_is_killed() {
    let folder = std::env::var(FOLDER_VARIABLE).expect("the parent sets it");
    let mut spool = Spool::open(Path::new(&folder), Opening::Create).expect("it opens");
    let mut number = spool.load::<u64>(Slot::Device).expect("it reads").unwrap_or(0);
    loop {
        number += 1;
        spool.save(Slot::Device, &number).expect("it saves");
        println!("saved {number}");
    }
}

#[test]
fn what_was_saved_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut last = 0;
    for _ in 0..KILLS {
        let mut child = start_child(folder.path());
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let numbers = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("saved ")?.parse::<u64>().ok());
        last = numbers.take(SAVES_PER_LIFE).last().expect("the child saves");
        child.kill().expect("SIGKILL is sent");
        child.wait().expect("it ends");
        let spool = Spool::open(folder.path(), Opening::Existing).expect("it opens after the kill");
        let found = spool
            .load::<u64>(Slot::Device)
            .expect("it reads")
            .expect("it was saved");
        assert!(
            found >= last,
            "{last} was acknowledged and {found} is on the disk"
        );
    }
    assert!(last >= (KILLS * SAVES_PER_LIFE) as u64);
}
