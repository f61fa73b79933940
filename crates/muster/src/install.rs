//! An install on disk: the data folder, its keys, its database, its first tenant.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use muster_control::{
    App, Clock, Control, MIGRATIONS, Settings,
    access::{self, NewClient},
    audit, reconcile,
    secrets::{self, Keyring, write_private},
};
use muster_model::TenantId;
use muster_storage::{Database, DatabaseUrl, OpenOptions, Scope};

use crate::{admin_file::AdminFile, config::Options, custody};

/// The name of the tenant that the first run makes.
const FIRST_TENANT: &str = "default";
const READER_THREADS: usize = 4;
const DATABASE_CONNECTIONS: usize = 16;

/// Makes the data folder for its owner alone, or checks that it is one.
pub fn data_folder(path: &Path) -> Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the data folder {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot protect the data folder {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("cannot find the data folder {}", path.display()))
}

/// Opens keys and database of an install and puts the control plane together.
pub async fn open(data_dir: &Path, options: &Options, settings: Settings) -> Result<App> {
    let clock = Clock::System;
    let keys = Keyring::open_with(data_dir, custody::of(options)?, clock.now())
        .await
        .context("the key folder cannot be used")?;
    let url = options.database(data_dir)?;
    let database = Database::open(
        &url,
        OpenOptions {
            migrations: MIGRATIONS,
            reader_threads: READER_THREADS,
            pool_size: options.database_connections.unwrap_or(DATABASE_CONNECTIONS),
            application: "muster",
        },
    )
    .await
    .with_context(|| match &url {
        DatabaseUrl::Sqlite(path) => format!("the database {} cannot be opened", path.display()),
        DatabaseUrl::Postgres(_) => "the PostgreSQL database cannot be opened".to_owned(),
    })?;
    let node = hex::encode(muster_control::clock::random::<8>());
    Ok(Control::new(database, clock, keys, settings, node))
}

/// What the first run made, for the banner.
pub struct FirstRun {
    pub root_key: PathBuf,
    pub client: NewClient,
}

/// The default tenant, made on the first run.
pub async fn first_tenant(app: &App, data_dir: &Path) -> Result<(TenantId, Option<FirstRun>)> {
    let tenants = app.db.read(Scope::System, access::tenants).await?;
    if let Some((tenant, _)) = tenants.first() {
        for (tenant, name) in &tenants {
            match secrets::find_keys(app, *tenant).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    app.keys.tenant(*tenant)?;
                }
                // The others are served; what is wrong with this one is an alarm.
                Err(problem) => {
                    tracing::error!(%problem, tenant = name, "the keys of a tenant cannot be used")
                }
            }
        }
        app.keys.tenant(*tenant)?;
        return Ok((*tenant, None));
    }
    let (tenant, client, root_key) =
        access::create_tenant(app, FIRST_TENANT, &data_dir.join("take-away")).await?;
    Ok((tenant, Some(FirstRun { root_key, client })))
}

/// The credentials for `admin.json`: those of the first run, those of an earlier start, or a new service account.
pub async fn credentials(
    app: &App,
    tenant: TenantId,
    first: Option<NewClient>,
    stored: Option<&AdminFile>,
) -> Result<(String, String)> {
    if let Some(client) = first {
        return Ok((client.id.to_string(), client.secret));
    }
    if let Some(stored) = stored
        && access::authenticate_client(app, &stored.client_id, &stored.client_secret)
            .await
            .is_ok()
    {
        return Ok((stored.client_id.clone(), stored.client_secret.clone()));
    }
    let client = access::create_admin_client(app, tenant, &format!("admin-{}", app.node)).await?;
    Ok((client.id.to_string(), client.secret))
}

/// Writes the certificate that clients of the listeners trust.
pub fn write_ca(app: &App, data_dir: &Path) -> Result<PathBuf> {
    let path = data_dir.join("ca.pem");
    write_private(&path, app.keys.authority.root_certificate_pem().as_bytes())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}

/// Verbs about tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Make a tenant: sign its root document here, and get its first service account
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<CreateTenantArgs>),
    #[command(flatten)]
    Remote(muster_cli::TenantCommand),
}

const CREATE_EXAMPLES: &str = "Examples:
  muster tenant create acme --out acme-admin.json                   a root key is made beside it: carry it away
  muster tenant create acme --display-name 'Acme Ltd' --root-key ada.pem --root-key bob.pem --root-threshold 2 --out acme.json
  muster tenant create acme --data-dir /var/lib/muster --admin-file acme.json   on a stopped node, without the API

The server makes the keys that it signs with; the root key stays on this machine, and nobody can end the tenant without it.";

#[derive(Debug, Args)]
pub struct CreateTenantArgs {
    /// Make it in this data folder of a stopped node, instead of through the API
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings file of the install, with --data-dir
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    create: muster_cli::CreateTenant,
    #[command(flatten)]
    options: Options,
}

/// Runs a verb about tenants.
pub async fn tenant(command: TenantCommand, globals: muster_cli::Globals) -> ExitCode {
    let create = match command {
        TenantCommand::Remote(command) => return muster_cli::run_tenant(command, globals).await,
        TenantCommand::Create(create) => *create,
    };
    let Some(data_dir) = &create.data_dir else {
        return muster_cli::create_tenant(create.create, globals).await;
    };
    match create_in_folder(data_dir, &create, &globals).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn create_in_folder(
    data_dir: &Path,
    args: &CreateTenantArgs,
    globals: &muster_cli::Globals,
) -> Result<()> {
    let Some(admin_file) = args.create.out.as_ref().or(globals.admin_file.as_ref()) else {
        bail!("--admin-file names the file for the new tenant's address and credentials");
    };
    if args.create.names_root_keys() {
        bail!("with --data-dir the root key is made in the data folder's `take-away`: name none");
    }
    let name = &args.create.name;
    let data_dir = data_folder(data_dir)?;
    let options = args.options.clone().with_file(args.config.as_deref())?;
    let Some(stored) = AdminFile::read(&data_dir)? else {
        bail!(
            "{} has no admin.json: run `muster serve` on it first",
            data_dir.display()
        );
    };
    let settings = Settings {
        admin_url: stored.admin_url.clone(),
        device_url: stored.device_url.clone(),
        ..Settings::default()
    };
    let app = open(&data_dir, &options, settings).await?;
    let (tenant, client, root_key) = access::create_tenant(&app, name, &data_dir.join("take-away")).await?;
    let file = AdminFile {
        tenant: tenant.to_string(),
        client_id: client.id.to_string(),
        client_secret: client.secret,
        ..stored
    };
    let text = serde_json::to_string_pretty(&file)?;
    write_private(admin_file, text.as_bytes())?;
    let signed = sign_first_head(&app, tenant).await;
    close(app).await;
    signed?;
    say!(
        "Tenant {name} is {tenant}. Its root key is {}: carry it away.",
        root_key.display()
    );
    Ok(())
}

/// Waits until the log of a new tenant has a signed head. After a crash the lease of the sequencer may still be the dead
/// process's, and beside running nodes it is theirs.
async fn sign_first_head(app: &App, tenant: TenantId) -> Result<()> {
    const TRIES_MAX: u32 = 40;
    const BETWEEN: Duration = Duration::from_millis(250);
    for _ in 0..TRIES_MAX {
        reconcile::sequence_now(app).await?;
        if audit::head(app, tenant).is_some() {
            return Ok(());
        }
        tokio::time::sleep(BETWEEN).await;
    }
    bail!("the tenant was made, and its log waits for a node that is busy or gone: start `muster serve`")
}

/// Releases the database of an install that nothing else uses any more.
pub async fn close(app: App) {
    app.db.close().await;
    drop(Arc::clone(&app));
}
