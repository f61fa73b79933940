//! The project's own commands: `cargo xtask setup|test|tidy|openapi|bench`.
//!
//! Nothing here is shipped. Every command works from a fresh clone on a machine that has Rust, a C compiler and the
//! package registries, and nothing else.

mod bench;
mod node;
mod openapi;
mod peers;
mod postgres;
mod process;
mod python;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Muster's own build, test and measuring commands"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs the programs that the tests run against (Debian packages; needs root)
    Setup,
    /// Checks format, lints and house rules, then runs every test on SQLite and PostgreSQL
    Test(test::Options),
    /// Checks the house rules alone: directions, table ownership, lengths, routes, documents
    Tidy,
    /// Writes openapi/admin.json again from the code
    Openapi,
    /// Measures the release build against a peer or a limit measured in the same run
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Setup => peers::setup(),
        Command::Test(options) => test::run(&options),
        Command::Tidy => tidy::run(),
        Command::Openapi => openapi::write(),
        Command::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
