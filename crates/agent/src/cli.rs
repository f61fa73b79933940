//! The command line. Every flag has an environment variable `MUSTER_…`; usage errors end with exit code 2.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_channel_agent::limits::TOKEN_CHARS_MAX;
use url::Url;

use crate::device_key::TpmChoice;

/// Keeps this machine in the state that its organization has signed.
#[derive(Debug, Parser)]
#[command(name = "muster-agent", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// How much to log.
    #[arg(
        long,
        global = true,
        env = "MUSTER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log_level: LogLevel,

    /// How log lines are written.
    #[arg(
        long,
        global = true,
        env = "MUSTER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Least severe message that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Exchange a one-time token for this machine's identity.
    #[command(after_help = ENROLL_EXAMPLES)]
    Enroll(EnrollArgs),
    /// Keep this machine in its signed state until told to stop (SIGTERM or SIGINT).
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Print who this machine is, and when it last reached its server.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// A day of telemetry as fast as it goes, in an empty folder; prints its figures as JSON.
    #[command(hide = true)]
    BenchTelemetry(BenchTelemetryArgs),
    /// Ask for a signed statement about this machine's compliance, for a VPN or a proxy.
    #[command(after_help = COMPLIANCE_TOKEN_EXAMPLES)]
    ComplianceToken(ComplianceTokenArgs),
    /// Write certificate, key and authorities as files, for Wi-Fi and VPN programs.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub struct BenchTelemetryArgs {
    /// An empty folder.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
}

#[derive(Args)]
pub struct EnrollArgs {
    /// The device listener, for example https://mdm.example.com:8443.
    #[arg(long, env = "MUSTER_SERVER", value_name = "URL", value_parser = parse_server)]
    pub server: Url,

    /// The certificate authority that the server's certificate must come from (PEM).
    #[arg(long, env = "MUSTER_CA_FILE", value_name = "FILE")]
    pub ca_file: PathBuf,

    /// The one-time enrollment token, `@FILE` to read it from a file, or `-` for standard input.
    #[arg(long, env = "MUSTER_TOKEN", value_name = "JWT", hide_env_values = true)]
    pub token: String,

    /// Folder for this machine's key and state; created with mode 0700.
    #[arg(long, env = "MUSTER_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,

    /// Enforce settings below this folder in place of the real root.
    #[arg(long, env = "MUSTER_ROOT", value_name = "PREFIX", default_value = "/")]
    pub root: PathBuf,

    /// Where the key is kept: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`, `swtpm:path=/path/of/socket`, or
    /// `none` for the state folder. Default: in /dev/tpmrm0 if it is there and works, else in the state folder.
    #[arg(long, env = "MUSTER_TPM", value_name = "TCTI", value_parser = TpmChoice::parse)]
    pub tpm: Option<TpmChoice>,

    /// The organization's proxy ends TLS before the server: enroll although the proof of the TPM cannot name the connection.
    #[arg(long, env = "MUSTER_BEHIND_PROXY")]
    pub behind_proxy: bool,
}

impl std::fmt::Debug for EnrollArgs {
    /// The token is a credential and prints as `***`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EnrollArgs")
            .field("server", &self.server.as_str())
            .field("ca_file", &self.ca_file)
            .field("token", &"***")
            .field("state_dir", &self.state_dir)
            .field("root", &self.root)
            .field("tpm", &self.tpm)
            .field("behind_proxy", &self.behind_proxy)
            .finish()
    }
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The folder that `enroll` filled.
    #[arg(long, env = "MUSTER_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The folder that `enroll` filled.
    #[arg(long, env = "MUSTER_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,

    /// How to print it.
    #[arg(
        short,
        long,
        env = "MUSTER_OUTPUT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub output: OutputFormat,
}

#[derive(Debug, Args)]
pub struct ComplianceTokenArgs {
    /// The folder that `enroll` filled.
    #[arg(long, env = "MUSTER_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,

    /// Whom the token is for: what the VPN or proxy asks for, such as vpn.example.com.
    #[arg(long, env = "MUSTER_AUDIENCE", value_name = "TEXT")]
    pub audience: String,

    /// How long it is to live; the server may allow less [default: what the server allows].
    #[arg(long, env = "MUSTER_LIFETIME", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(30..=600))]
    pub lifetime: Option<u32>,

    /// `text` is the token alone.
    #[arg(
        short,
        long,
        env = "MUSTER_OUTPUT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub output: OutputFormat,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The folder that `enroll` filled.
    #[arg(long, env = "MUSTER_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,

    /// Folder for device.pem, device.key and ca.pem; created with mode 0700.
    #[arg(long, env = "MUSTER_OUT", value_name = "DIR")]
    pub out: PathBuf,
}

/// How `status` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

const COMPLIANCE_TOKEN_EXAMPLES: &str = "\
Examples:
  muster-agent compliance-token --state-dir /var/lib/muster-agent --audience vpn.example.com
  muster-agent compliance-token --state-dir /var/lib/muster-agent --audience proxy -o json

The token says whether this machine complies at this moment. It lives for minutes, is good for this audience alone, and only on
a connection that shows this machine's certificate.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  muster-agent export --state-dir /var/lib/muster-agent --out /etc/wpa_supplicant/muster

A certificate lives for days: export again after each renewal, for example from a timer. A key in a TPM stays there; its
file is for OpenSSL's TPM provider (Debian package tpm2-openssl) and worth nothing on another machine.";

const EXAMPLES: &str = "\
Examples:
  muster-agent enroll --server https://mdm.example.com:8443 --ca-file ca.pem --token @token.jwt --state-dir /var/lib/muster-agent
  muster-agent run --state-dir /var/lib/muster-agent
  muster-agent status --state-dir /var/lib/muster-agent

Exit codes: 0 ok, 1 failed, 2 usage.";

const ENROLL_EXAMPLES: &str = "\
Examples:
  muster-agent enroll --server https://mdm.example.com:8443 --ca-file ca.pem --token eyJ… --state-dir /var/lib/muster-agent
  muster token create --device-uuid … | muster-agent enroll --token - --server … --ca-file ca.pem --state-dir DIR
  muster-agent enroll --token @token.jwt --root /tmp/sandbox --server … --ca-file ca.pem --state-dir /tmp/agent
  muster-agent enroll --token @token.jwt --tpm swtpm:host=127.0.0.1,port=2321 --server … --ca-file ca.pem --state-dir DIR
  muster-agent enroll --token @token.jwt --tpm none --server … --ca-file ca.pem --state-dir DIR

A token on the command line is visible to other users of this machine: prefer @FILE, - or MUSTER_TOKEN.
The key never leaves a TPM, and the TPM proves to the server where the key is. A TPM that is named and cannot be used is an
error; without --tpm, a machine without a usable TPM keeps its key in the state folder and enrolls unattested.
Enrolling ends with the first check-in, which puts the first settings in force.";

const RUN_EXAMPLES: &str = "\
Examples:
  muster-agent run --state-dir /var/lib/muster-agent
  MUSTER_LOG_LEVEL=debug muster-agent run --state-dir /var/lib/muster-agent";

const STATUS_EXAMPLES: &str = "\
Examples:
  muster-agent status --state-dir /var/lib/muster-agent
  muster-agent status --state-dir /var/lib/muster-agent -o json";

/// A server is an `https` origin: no path, query, fragment or credentials, since the agent adds the path.
fn parse_server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let is_origin = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    if url.scheme() != "https" || url.host().is_none() {
        return Err("must be an https:// address".to_owned());
    }
    if !is_origin || !is_anonymous {
        return Err("must be a plain origin such as https://mdm.example.com:8443".to_owned());
    }
    Ok(url)
}

/// Why a token could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the token from {origin}: {source}")]
    Read { origin: String, source: std::io::Error },
    #[error("the token from {origin} is longer than {TOKEN_CHARS_MAX} characters")]
    TooLong { origin: String },
    #[error("the token from {origin} is empty")]
    Empty { origin: String },
}

/// Resolves the three forms of `--token`.
pub fn read_token(argument: &str) -> Result<String, TokenError> {
    let (origin, text) = match argument.strip_prefix('@') {
        _ if argument == "-" => ("standard input".to_owned(), read_bounded(std::io::stdin().lock())),
        Some(path) => (
            path.to_owned(),
            std::fs::File::open(Path::new(path)).and_then(read_bounded),
        ),
        None => ("the command line".to_owned(), Ok(argument.to_owned())),
    };
    let text = text.map_err(|source| TokenError::Read {
        origin: origin.clone(),
        source,
    })?;
    let token = text.trim();
    if token.len() > TOKEN_CHARS_MAX {
        return Err(TokenError::TooLong { origin });
    }
    if token.is_empty() {
        return Err(TokenError::Empty { origin });
    }
    Ok(token.to_owned())
}

fn read_bounded(reader: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    reader
        .take(TOKEN_CHARS_MAX as u64 + 64)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_server_is_a_plain_https_origin() {
        assert!(parse_server("https://127.0.0.1:8443").is_ok());
        assert!(parse_server("https://mdm.example.com/").is_ok());
        for bad in [
            "http://mdm.example.com",
            "https://a/b",
            "https://u:p@a",
            "https://a?x",
            "a:1",
            "",
        ] {
            assert!(parse_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_trimmed_and_bounded() {
        assert_eq!(read_token(" abc\n").expect("a plain token"), "abc");
        assert!(matches!(read_token("  "), Err(TokenError::Empty { .. })));
        assert!(matches!(
            read_token(&"x".repeat(TOKEN_CHARS_MAX + 1)),
            Err(TokenError::TooLong { .. })
        ));
        assert!(matches!(
            read_token("@/nonexistent/token"),
            Err(TokenError::Read { .. })
        ));
    }

    #[test]
    fn a_token_never_prints() {
        let arguments = [
            "muster-agent",
            "enroll",
            "--server",
            "https://a",
            "--ca-file",
            "c",
            "--state-dir",
            "d",
        ];
        let cli =
            Cli::try_parse_from(arguments.into_iter().chain(["--token", "canary-token"])).expect("valid");
        assert!(!format!("{cli:?}").contains("canary"));
    }
}
