//! An install on disk: the data folder, its keys, its database, its first tenant.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use muster_control::{
    App, Clock, Control, MIGRATIONS, Settings,
    access::{self, NewClient},
    audit, reconcile,
    secrets::{Keyring, write_private},
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
        for (tenant, _) in &tenants {
            app.keys.tenant(*tenant)?;
        }
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
    /// Make a tenant with its keys and a service account that holds every scope
    Create(CreateTenantArgs),
}

#[derive(Debug, Args)]
pub struct CreateTenantArgs {
    /// Data folder of the install
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Settings file of the install
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the tenant's admin.json is written
    #[arg(long, value_name = "FILE")]
    admin_file: PathBuf,
    /// The tenant's name
    name: String,
    #[command(flatten)]
    options: Options,
}

/// Runs a verb about tenants.
pub async fn tenant(command: TenantCommand) -> Result<()> {
    let TenantCommand::Create(args) = command;
    let data_dir = data_folder(&args.data_dir)?;
    let options = args.options.with_file(args.config.as_deref())?;
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
    let (tenant, client, root_key) =
        access::create_tenant(&app, &args.name, &data_dir.join("take-away")).await?;
    let file = AdminFile {
        tenant: tenant.to_string(),
        client_id: client.id.to_string(),
        client_secret: client.secret,
        ..stored
    };
    let text = serde_json::to_string_pretty(&file)?;
    write_private(&args.admin_file, text.as_bytes())?;
    let signed = sign_first_head(&app, tenant).await;
    close(app).await;
    signed?;
    say!(
        "Tenant {} is {tenant}. Its root key is {}: carry it away.",
        args.name,
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
