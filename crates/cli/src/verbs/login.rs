//! `muster login`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::api::{Api, Call};
use crate::context::{AdminFile, Context, Contexts, read_file};
use crate::output::{Printer, Sheet};
use crate::{CliError, Globals};

/// Longest client secret.
const SECRET_BYTES_MAX: u64 = 4096;

/// What is stored.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster login --admin-file /var/lib/muster/admin.json\n  muster login --name prod \
    --admin-url https://mdm.example:8440 --ca-file ca.pem \\\n      --client-id cli_… --client-secret-file - < secret\n\nThe \
    credentials are tried before they are stored, in a file that only you can read."
)]
pub struct LoginArgs {
    /// What the context is called
    #[arg(long, default_value = "default")]
    name: String,
    /// Origin of the admin listener
    #[arg(long, value_name = "URL", env = "MUSTER_ADMIN_URL", requires_all = ["ca_file", "client_id"])]
    admin_url: Option<String>,
    /// PEM file of the authority that its certificate must come from
    #[arg(long, value_name = "FILE", env = "MUSTER_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// The API client
    #[arg(long, value_name = "ID", env = "MUSTER_CLIENT_ID")]
    client_id: Option<String>,
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
    let context = read(&arguments, globals)?;
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
    match (&arguments.admin_url, &arguments.ca_file, &arguments.client_id, &globals.admin_file) {
        (Some(url), Some(ca), Some(client), _) => Context::new(url, ca, client, &secret(arguments)?),
        (None, _, _, Some(path)) => Context::from_admin_file(&AdminFile::read(path)?),
        _ => Err(CliError::Usage(
            "say where to: --admin-file FILE, or --admin-url, --ca-file, --client-id and --client-secret-file".to_owned(),
        )),
    }
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
                "give the secret: --client-secret-file FILE, or `-` for standard input".to_owned(),
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
