//! The program `muster-agent`: parses the command line and leaves with exit code 0 (ok), 1 (failed) or 2 (usage).

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_agent::main()
}
