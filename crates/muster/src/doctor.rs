//! `muster doctor` and `muster log verify --data-dir`: the invariants of an install, read from its files.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use muster_control::{
    Clock, MIGRATIONS,
    access::{self, problem::Problem},
    audit, invariants,
    secrets::{self, Keyring, Urgency},
};
use muster_integrations::ObjectArchive;
use muster_model::TenantId;
use muster_storage::{Database, Scope};

use crate::{config::Options, serve};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  muster doctor --data-dir ./data")]
pub struct DoctorArgs {
    /// Data folder of the install
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Settings file of the install
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Checks every invariant; prints a line for each.
pub async fn run(args: DoctorArgs) -> ExitCode {
    let opened = match args.options.with_file(args.config.as_deref()) {
        Ok(options) => open(&args.data_dir, &options).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(install) => finish(diagnose(&install).await),
        Err(error) => finish(Err(error)),
    }
}

/// Verifies the log of every tenant of a data folder.
pub async fn verify_logs(data_dir: &Path) -> ExitCode {
    let verify = async {
        let install = open(data_dir, &Options::from_environment()?).await?;
        let mut good = true;
        for (tenant, name) in &install.tenants {
            good &= verify_log(&install, *tenant, name).await?;
        }
        Ok(good)
    };
    finish(verify.await)
}

struct Install {
    db: Database,
    keys: Arc<Keyring>,
    archive: Option<ObjectArchive>,
    tenants: Vec<(TenantId, String)>,
}

async fn open(data_dir: &Path, options: &Options) -> Result<Install> {
    if !data_dir.join("keys").is_dir() {
        bail!(
            "{} is not the data folder of an install: it has no folder `keys`",
            data_dir.display()
        );
    }
    let keys = Arc::new(Keyring::open(data_dir, Clock::System.now())?);
    let url = options.database(data_dir)?;
    let db = Database::open_read_only(&url, MIGRATIONS)
        .await
        .context("the database cannot be opened")?;
    let tenants = db.read(Scope::System, access::tenants).await?;
    let keyring = Arc::clone(&keys);
    db.read(Scope::System, move |tx| secrets::read_tenants(tx, &keyring))
        .await?;
    for (tenant, _) in &tenants {
        let (keyring, tenant) = (Arc::clone(&keys), *tenant);
        db.read(Scope::Tenant(tenant.uuid()), move |tx| {
            secrets::read_roots(tx, &keyring, tenant)
        })
        .await?;
    }
    if let Some(path) = &keys.authority.root_key_to_carry_away {
        say!(
            "note  the root CA's key was moved to {}: carry it away",
            path.display()
        );
    }
    Ok(Install {
        db,
        keys,
        archive: serve::log_archive(options)?,
        tenants,
    })
}

async fn verify_log(install: &Install, tenant: TenantId, name: &str) -> Result<bool> {
    let keys = install.keys.tenant(tenant)?;
    // Before the database is read: what a node beside this one keeps meanwhile is newer than the snapshot.
    let kept = match audit::kept_head(&install.keys, tenant) {
        Ok(kept) => kept,
        Err(error) => {
            say!("BAD   log of {name}: {error}");
            return Ok(false);
        }
    };
    let verdict = install
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            audit::verify_tenant(tx, &keys, kept.as_ref())
        })
        .await?;
    match verdict {
        Ok(summary) => {
            say!(
                "ok    log of {name}: {} entries, root {}, {} waiting",
                summary.entries,
                summary.root,
                summary.waiting
            );
            Ok(true)
        }
        Err(why) => {
            say!("BAD   log of {name}: {why}");
            Ok(false)
        }
    }
}

async fn diagnose(install: &Install) -> Result<bool> {
    let mut good = true;
    for (tenant, name) in &install.tenants {
        good &= verify_log(install, *tenant, name).await?;
        good &= look_at_root(install, *tenant, name).await?;
        good &= look_around(install, *tenant, name).await?;
        let (tenant, keys, now) = (*tenant, install.keys.tenant(*tenant)?, Clock::System.now());
        let authorities = install.keys.authority.set();
        let findings = install
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                invariants::check(tx, &keys, &authorities, now)
            })
            .await?;
        for finding in findings {
            good &= finding.broken.is_empty();
            if finding.broken.is_empty() {
                say!("ok    {name}: {}", finding.what);
            }
            for broken in finding.broken {
                say!("BAD   {name}: {}: {broken}", finding.what);
            }
        }
    }
    Ok(good)
}

/// The root document: whether the stored ones are those of the chain, how long it lives, whether it names this server.
async fn look_at_root(install: &Install, tenant: TenantId, name: &str) -> Result<bool> {
    let (keyring, now) = (Arc::clone(&install.keys), Clock::System.now());
    let broken = install
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            secrets::broken_roots(tx, &keyring, tenant)
        })
        .await?;
    let keys = install.keys.tenant(tenant)?;
    let concerns = secrets::concerns(&keys, install.keys.refused_root(tenant).as_ref(), now);
    for broken in &broken {
        say!("BAD   {name}: a root document in the database is one of the chain: {broken}");
    }
    for concern in &concerns {
        let word = match concern.urgency {
            Urgency::Now => "BAD  ",
            Urgency::Soon | Urgency::Note => "note ",
        };
        say!("{word} {name}: {}", concern.text);
    }
    let good = broken.is_empty() && concerns.iter().all(|concern| concern.urgency < Urgency::Now);
    if good {
        say!(
            "ok    {name}: root document {} is in force until {}",
            keys.root.version,
            keys.root.expires_at
        );
    }
    Ok(good)
}

/// What others say of the log: witnesses that devices wait for, and devices that hold another history.
async fn look_around(install: &Install, tenant: TenantId, name: &str) -> Result<bool> {
    let (keys, now) = (install.keys.tenant(tenant)?, Clock::System.now());
    let (unpublished, split_views, alarms) = install
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let split_views = audit::split_views(tx, &keys)?;
            let alarms = audit::alarms(tx, tenant, now)?;
            let unpublished = audit::unpublished(tx, tenant, &keys.root, now)?;
            Ok::<_, Problem>((unpublished, split_views, alarms))
        })
        .await?;
    if let Some(why) = &unpublished {
        say!("BAD   {name}: devices see the newest entries: {why}");
    }
    for view in &split_views {
        say!(
            "BAD   {name}: every device sees this log: {} holds a signed head of {} entries that is not in it, {}",
            view.device,
            view.size,
            view.root
        );
    }
    for alarm in &alarms {
        say!("BAD   {name}: nobody tampers with the log: {alarm}");
    }
    let mut good = unpublished.is_none() && split_views.is_empty() && alarms.is_empty();
    if let Some(archive) = &install.archive {
        let root = install.keys.tenant(tenant)?.root.clone();
        let broken = audit::compare_archive(&install.db, archive, &root, now).await?;
        good &= broken.is_empty();
        if broken.is_empty() {
            say!("ok    {name}: the archive tells the same");
        }
        for why in broken {
            say!("BAD   {name}: the archive tells the same: {why}");
        }
    }
    Ok(good)
}

fn finish(outcome: Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("muster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
