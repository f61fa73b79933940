//! `muster login`

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::api::{Api, Call};
use crate::context::{AdminFile, Context, Contexts, read_file};
use crate::output::{Printer, Sheet};
use crate::{CliError, Globals};

/// Longest client secret.
const SECRET_BYTES_MAX: u64 = 4096;
/// As which program a person is asked (RFC 8628).
const PROGRAM: &str = "muster-cli";
/// Longest pause between two questions whether the person has decided.
const PAUSE_SECONDS_MAX: u64 = 60;

/// What is stored.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster login --admin-file /var/lib/muster/admin.json\n  muster login --device --admin-url \
    https://mdm.example:8440 --ca-file ca.pem\n  muster login --device --admin-url https://mdm.example.com --ca-file system\n  muster \
    login --admin-url https://mdm.example:8440 --ca-file ca.pem --client-id \
    cli_… --key ci.pem\n  muster login --admin-url https://mdm.example:8440 --ca-file ca.pem --client-id cli_… \\\n      \
    --exchange-token-file token.jwt\n  muster login --name prod --admin-url https://mdm.example:8440 --ca-file ca.pem \\\n      \
    --client-id cli_… --client-secret-file - < secret\n\nThe credentials are tried before they are stored, in a file that only \
    you can read. --device asks you in the console and stores no secret: a token that ends after eight hours at the latest."
)]
pub struct LoginArgs {
    /// What the context is called
    #[arg(long, default_value = "default")]
    name: String,
    /// Origin of the admin listener
    #[arg(long, value_name = "URL", env = "MUSTER_ADMIN_URL", requires = "ca_file")]
    admin_url: Option<String>,
    /// PEM file of the authority that its certificate must come from; system: those that this machine trusts
    #[arg(long, value_name = "FILE", env = "MUSTER_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Sign in as yourself: a code is shown, and you allow it in the console
    #[arg(long, conflicts_with_all = ["key", "exchange_token_file", "client_secret_file"])]
    device: bool,
    /// With --device: ask for this and no more, such as device:read; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", requires = "device")]
    scopes: Vec<String>,
    /// With --device: what the console calls this machine
    #[arg(long, value_name = "TEXT", env = "HOSTNAME", hide_env_values = true)]
    label: Option<String>,
    /// The API client
    #[arg(long, value_name = "ID", env = "MUSTER_CLIENT_ID")]
    client_id: Option<String>,
    /// File of the private key with which the client signs who it is (`muster client key add --generate`)
    #[arg(long, value_name = "FILE", env = "MUSTER_CLIENT_KEY", conflicts_with_all = ["exchange_token_file", "client_secret_file"])]
    key: Option<PathBuf>,
    /// File of the certificate that the client shows with that key in the handshake; --admin-url is the listener of programs
    #[arg(
        long,
        value_name = "FILE",
        env = "MUSTER_CLIENT_CERTIFICATE",
        requires = "key"
    )]
    certificate: Option<PathBuf>,
    /// File in which the platform keeps the workload's token, which a trust takes; it is read at each verb
    #[arg(
        long,
        value_name = "FILE",
        env = "MUSTER_EXCHANGE_TOKEN_FILE",
        conflicts_with = "client_secret_file"
    )]
    exchange_token_file: Option<PathBuf>,
    /// The workload's token itself, which a trust takes once and now
    #[arg(
        long,
        value_name = "JWT",
        env = "MUSTER_EXCHANGE_TOKEN",
        hide_env_values = true,
        hide = true
    )]
    exchange_token: Option<String>,
    /// Its secret, which should not stand on a command line
    #[arg(
        long,
        value_name = "SECRET",
        env = "MUSTER_CLIENT_SECRET",
        hide_env_values = true,
        hide = true
    )]
    client_secret: Option<String>,
    /// File with its secret; `-` reads standard input
    #[arg(long, value_name = "FILE", env = "MUSTER_CLIENT_SECRET_FILE")]
    client_secret_file: Option<PathBuf>,
}

/// Tries the credentials, then stores them as the current context.
pub async fn run(arguments: LoginArgs, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    if arguments.name.trim().is_empty() {
        return Err(CliError::Usage("a context needs a name".to_owned()));
    }
    let mut context = read(&arguments, globals)?;
    if arguments.device {
        context.token = Some(ask_person(&Api::new(context.clone())?, &arguments, printer).await?);
    } else if let Some(token) = &arguments.exchange_token {
        context.token = Some(Api::new(context.clone())?.exchange(token).await?);
    }
    let api = Api::new(context.clone())?;
    api.send_raw(Call::get(&["version"])).await?;
    let mut stored = Contexts::load(globals)?;
    let address = context.admin_url.clone();
    stored.contexts.insert(arguments.name.clone(), context);
    stored.current = Some(arguments.name.clone());
    let path = stored.save(globals)?;
    let answer = json!({"context": arguments.name, "admin_url": address, "file": path});
    printer.answer(&answer, |_| {
        Sheet::new().text(format!("Context {} uses {address}.", arguments.name))
    })
}

fn read(arguments: &LoginArgs, globals: &Globals) -> Result<Context, CliError> {
    let (url, ca) = match (&arguments.admin_url, &arguments.ca_file, &globals.admin_file) {
        (Some(url), Some(ca), _) => (url.clone(), ca.clone()),
        // As a person or by a token, of the file only the address is taken.
        (None, _, Some(path)) if arguments.device => {
            let file = AdminFile::read(path)?;
            (file.admin_url.clone(), file.admin_ca().to_owned())
        }
        (None, _, Some(path)) => return Context::from_admin_file(&AdminFile::read(path)?),
        _ => {
            return Err(CliError::Usage(
                "say where to: --admin-file FILE, or --admin-url and --ca-file with --device, or with --client-id and one of \
                 --key, --exchange-token-file and --client-secret-file"
                    .to_owned(),
            ));
        }
    };
    if arguments.device {
        return Context::new(&url, &ca, PROGRAM, "");
    }
    let Some(client) = &arguments.client_id else {
        return Err(CliError::Usage(
            "say which API client: --client-id cli_…".to_owned(),
        ));
    };
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|source| CliError::File {
            path: path.clone(),
            source,
        })
    };
    let mut context = Context::new(&url, &ca, client, "")?;
    match (
        &arguments.key,
        &arguments.exchange_token_file,
        &arguments.exchange_token,
    ) {
        (Some(file), _, _) => {
            context.key_file = Some(absolute(file)?);
            context.certificate_file = arguments.certificate.as_ref().map(absolute).transpose()?;
        }
        (None, Some(file), _) => context.exchange_token_file = Some(absolute(file)?),
        (None, None, Some(_)) => {}
        (None, None, None) => context.client_secret = secret(arguments)?,
    }
    Ok(context)
}

#[derive(Deserialize)]
struct Codes {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    expires_in: u64,
    #[serde(default)]
    interval: u64,
}

#[derive(Deserialize)]
struct LetIn {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

/// Shows a code and waits until the person has decided about it (RFC 8628).
async fn ask_person(api: &Api, arguments: &LoginArgs, printer: &Printer) -> Result<String, CliError> {
    let scopes = arguments.scopes.join(" ");
    let label = arguments.label.as_deref().unwrap_or("muster");
    let form = [("client_id", PROGRAM), ("scope", &scopes), ("label", label)];
    let codes: Codes = api.post_form("device_authorization", &form).await?;
    printer.note(&format!(
        "Open {} where you are signed in, and enter the code\n\n    {}\n\nOnly a code that you asked for yourself, in this window. \
         It ends in {} minutes.",
        codes.verification_uri,
        codes.user_code,
        codes.expires_in / 60
    ));
    let mut pause = codes.interval.clamp(1, PAUSE_SECONDS_MAX);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", PROGRAM),
        ("device_code", &codes.device_code),
    ];
    let mut waited = 0;
    while waited <= codes.expires_in {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        waited += pause;
        match api.post_form::<LetIn>("token", &form).await {
            Ok(let_in) => {
                printer.note(&format!(
                    "You are signed in for {} minutes.",
                    let_in.expires_in / 60
                ));
                return Ok(let_in.access_token);
            }
            Err(CliError::SignIn { error, .. }) if error == "authorization_pending" => {}
            Err(CliError::SignIn { error, .. }) if error == "slow_down" => {
                pause = (pause + 5).min(PAUSE_SECONDS_MAX);
            }
            // A connection that breaks says nothing about the person.
            Err(CliError::Unreachable { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Err(CliError::Failed("nobody entered the code in time".to_owned()))
}

fn secret(arguments: &LoginArgs) -> Result<String, CliError> {
    let bytes = match (&arguments.client_secret, &arguments.client_secret_file) {
        (_, Some(path)) if path == Path::new("-") => {
            let mut bytes = Vec::new();
            let read = std::io::stdin()
                .lock()
                .take(SECRET_BYTES_MAX)
                .read_to_end(&mut bytes);
            read.map_err(|source| CliError::File {
                path: path.clone(),
                source,
            })?;
            bytes
        }
        (_, Some(path)) => read_file(path)?,
        (Some(secret), None) => secret.clone().into_bytes(),
        (None, None) => {
            return Err(CliError::Usage(
                "say how: --key FILE, --exchange-token-file FILE, or --client-secret-file FILE (`-` for standard input)"
                    .to_owned(),
            ));
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| CliError::Usage("the secret is not text".to_owned()))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(CliError::Usage("the secret is empty".to_owned()));
    }
    Ok(secret.to_owned())
}
