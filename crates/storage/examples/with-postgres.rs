//! Runs a command with a throwaway PostgreSQL server in `MUSTER_TEST_POSTGRES_URL`:
//! `cargo run -p muster-storage --example with-postgres -- cargo test -p muster-storage`.

use std::process::{Command, ExitCode};

use muster_storage::testing::{POSTGRES_URL_VARIABLE, PostgresServer};

#[expect(
    clippy::disallowed_methods,
    reason = "a test harness whose purpose is to start a program"
)]
fn main() -> std::io::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-postgres PROGRAM [ARGUMENT…]");
        return Ok(ExitCode::from(2));
    };
    let server = PostgresServer::start()?;
    let status = Command::new(program)
        .args(arguments)
        .env(POSTGRES_URL_VARIABLE, server.url())
        .status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
