//! `muster serve`: the composition of a control-plane process, from the first run to the drain.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use muster_control::{
    App,
    access::{self, Author},
    audit::{self, EventSink, LogArchive as _, SecurityEvents},
    commands,
    policy::ArtifactStore as _,
    reconcile,
    telemetry::SeriesStore as _,
};
use muster_gateway::{
    AcceptedDevices, Arrival, DeviceTls, Gateway, PublicIdentity, Sources,
    listener::{self, Limits, Listener, Socket, Tls},
    pki, program_config, server_config,
};
use muster_integrations::{Carriers, Couriers, KeySetsOfOthers, ObjectArchive, ObjectArtifacts, RemoteStore};
use muster_storage::Scope;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    admin_file::AdminFile,
    config::{Options, reachable},
    install::{self, FirstRun},
    listeners::{Listeners, ProxyListener},
    logging::LogFormat,
    ops, otlp,
    public_certificate::{self, PublicCertificate},
    secrets::{self, OwnCertificate},
    seed,
};

const DRAIN: Duration = Duration::from_secs(7);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster serve --data-dir ./data --farm 25
  muster serve --data-dir /var/lib/muster --config /etc/muster/muster.toml
  muster serve --data-dir ./node2 --database-url postgres://muster@db/muster   (copy `keys/` of the first node first)")]
pub struct ServeArgs {
    /// Folder of keys, database and admin.json; made on the first run
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Settings file (TOML); flags and environment variables are stronger
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Simulated devices that this process brings along
    #[arg(long, env = "MUSTER_FARM", value_name = "NUMBER", default_value_t = 0)]
    farm: u32,
    #[command(flatten)]
    options: Options,
}

impl ServeArgs {
    /// How log lines are written; a file that cannot be read is told of later.
    pub fn log_format(&self) -> Option<LogFormat> {
        let options = self.options.clone().with_file(self.config.as_deref());
        options.map_or(self.options.log_format, |options| options.log_format)
    }
}

/// Runs the control plane until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs) -> Result<()> {
    // Before anything says that the server is ready: a signal that comes early must end it as any other does.
    let signals = Signals::listen()?;
    let data_dir = install::data_folder(&args.data_dir)?;
    let options = args.options.clone().with_file(args.config.as_deref())?;
    let mut plane = ControlPlane::start(&data_dir, &options).await?;
    if let Some(pki) = plane.pki {
        say!("Revocation lists and OCSP are at http://{}/pki/", reachable(pki));
    }
    let (proxy, root_key) = (plane.proxy.take(), plane.root_key.take());
    announce(&plane.app, plane.tenant, &data_dir, proxy, root_key).await?;
    let stopping = plane.stop.subscribe();
    let farm = (args.farm > 0).then(|| tokio::spawn(seed::farm(data_dir.clone(), args.farm, stopping)));

    signals.first().await;
    tracing::info!("stopping: requests under way may finish");
    plane
        .stop(async {
            if let Some(farm) = farm {
                let _ = farm.await;
            }
        })
        .await;
    tracing::info!("stopped");
    Ok(())
}

/// A control plane that runs in this process.
pub struct ControlPlane {
    app: App,
    tenant: muster_model::TenantId,
    /// The first tenant's root key, where this start made it.
    root_key: Option<PathBuf>,
    /// Where proxies connect.
    proxy: Option<String>,
    /// Where revocation lists are.
    pki: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    served: JoinSet<()>,
    loops: JoinSet<()>,
}

impl ControlPlane {
    /// Opens the install in a data folder, a new one where there is none, and serves on every listener.
    pub async fn start(data_dir: &Path, options: &Options) -> Result<ControlPlane> {
        let listeners = Listeners::bind(options).await?;
        let (admin, device) = (listeners.admin.local_addr()?, listeners.device.local_addr()?);
        #[cfg_attr(
            not(debug_assertions),
            expect(unused_mut, reason = "faults are of debug builds")
        )]
        let api = listeners.api.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut settings = options.settings((admin, device), api)?;
        #[cfg(debug_assertions)]
        {
            settings.fault = fault()?;
        }
        let app = install::open(data_dir, options, settings).await?;
        open_artifact_store(&app, options)?;
        open_log_archive(&app, options)?;
        open_security_events(&app, options)?;
        open_telemetry_store(&app, options)?;
        open_courier(&app, options)?;
        otlp::turn_on(&app, options, &environment())?;
        open_secret_store(&app, options)?;
        let (tenant, first) = install::first_tenant(&app, data_dir).await?;
        if options.begin_halted == Some(true) {
            app.keys.forget_floor()?;
        }
        muster_control::secrets::take_up(&app).await?;
        if options.begin_halted == Some(true) {
            halt_every_tenant(&app).await?;
        }
        reconcile::sequence_now(&app).await?;
        reconcile::warm(&app).await?;

        let stored = AdminFile::read(data_dir)?;
        let (root_key, new_client) = match first {
            Some(FirstRun { root_key, client }) => (Some(root_key), Some(client)),
            None => (None, None),
        };
        let (client_id, client_secret) =
            install::credentials(&app, tenant, new_client, stored.as_ref()).await?;
        let file = AdminFile {
            admin_url: app.settings.admin_url.clone(),
            device_url: app.settings.device_url.clone(),
            ops_url: format!("http://{}", reachable(listeners.ops.local_addr()?)),
            ca_file: install::write_ca(&app, data_dir)?,
            admin_ca_file: options
                .admin_certificate
                .is_some()
                .then(|| public_certificate::anchors_file(data_dir)),
            tenant: tenant.to_string(),
            client_id,
            client_secret,
        };
        file.write(data_dir)?;

        let (stop, stopping) = watch::channel(false);
        let loops = reconcile::start(&app, &stopping);
        let proxy = listeners.proxy.as_ref().map(ProxyListener::place).transpose()?;
        let pki = listeners.pki.as_ref().map(TcpListener::local_addr).transpose()?;
        let served = serve(&app, data_dir, options, listeners, &stopping)?;
        Ok(ControlPlane {
            app,
            tenant,
            root_key,
            proxy,
            pki,
            stop,
            served,
            loops,
        })
    }

    /// Ends everything: requests under way may finish, and so may what belongs to the caller.
    pub async fn stop(mut self, belonging: impl Future<Output = ()>) {
        self.stop.send_replace(true);
        let drained = tokio::time::timeout(DRAIN, async {
            while self.served.join_next().await.is_some() {}
            while self.loops.join_next().await.is_some() {}
            belonging.await;
        });
        if drained.await.is_err() {
            tracing::warn!("not everything ended in time");
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), self.app.db.close()).await;
    }
}

/// Opens the store of bundles outside of the database, where one is named. It is not asked yet: it may be away.
fn open_artifact_store(app: &App, options: &Options) -> Result<()> {
    let Some(url) = &options.artifact_store else {
        return Ok(());
    };
    let store = ObjectArtifacts::open(url, environment())
        .with_context(|| format!("--artifact-store cannot be used: {url}"))?;
    tracing::info!(
        place = store.place(),
        "bundles are also kept in an artifact store"
    );
    app.artifacts
        .set(Box::new(store))
        .map_err(|_| anyhow::anyhow!("the artifact store was opened twice"))
}

/// Opens the archive of the log, where one is named. It is not asked yet: it may be away.
fn open_log_archive(app: &App, options: &Options) -> Result<()> {
    let Some(archive) = log_archive(options)? else {
        return Ok(());
    };
    tracing::info!(place = archive.place(), "the log is also kept in an archive");
    app.log_archive
        .set(Box::new(archive))
        .map_err(|_| anyhow::anyhow!("the archive of the log was opened twice"))
}

/// Opens another time-series store than the embedded one, where one is named. It is not asked yet: it may be away.
fn open_telemetry_store(app: &App, options: &Options) -> Result<()> {
    let Some(remote) = options.telemetry_store()? else {
        return Ok(());
    };
    let store = RemoteStore::open(&remote).context("--telemetry-write-url cannot be used")?;
    tracing::info!(place = store.place(), "telemetry is kept in a time-series store");
    app.telemetry
        .remote
        .set(Box::new(store))
        .map_err(|_| anyhow::anyhow!("the time-series store was opened twice"))
}

/// Opens the ways on which alerts and events leave, and on which identity providers are asked.
fn open_courier(app: &App, options: &Options) -> Result<()> {
    let egress = options.egress()?;
    app.carrier
        .set(Box::new(Carriers::new(egress.clone())))
        .map_err(|_| anyhow::anyhow!("the carrier of sinks was opened twice"))?;
    app.web
        .set(Box::new(egress.clone()))
        .map_err(|_| anyhow::anyhow!("the way to identity providers was opened twice"))?;
    app.signals
        .key_sets
        .fetcher
        .set(Box::new(KeySetsOfOthers::new(egress.clone())))
        .map_err(|_| anyhow::anyhow!("the way to key sets was opened twice"))?;
    app.courier
        .set(Box::new(Couriers::new(egress)))
        .map_err(|_| anyhow::anyhow!("the courier of alerts was opened twice"))
}

/// Opens the store of secrets, where another one than the embedded is named. It is not asked yet: it may be away.
fn open_secret_store(app: &App, options: &Options) -> Result<()> {
    let Some(place) = &options.secret_store else {
        return Ok(());
    };
    let vault = crate::custody::vault(options)?;
    let ca_file = options.secret_store_ca_file.as_deref();
    let store = muster_integrations::open_secret_store(place, vault.as_ref(), &environment(), ca_file)
        .context("--secret-store cannot be used")?;
    let Some(store) = store else { return Ok(()) };
    tracing::info!(place = store.place(), "new secrets are kept in a store outside");
    app.stores
        .take_external(store)
        .map_err(|_| anyhow::anyhow!("the store of secrets was opened twice"))
}

/// Prepares the file of security events, where one is named; that it cannot be written to is an error now.
/// Stops every delivery before anybody is served: what a restored database holds may have been taken back after the backup.
async fn halt_every_tenant(app: &App) -> Result<()> {
    let tenants = app.db.read(Scope::System, access::tenants).await?;
    for (tenant, name) in tenants {
        let author = Author::system(tenant);
        audit::commit(app, &author, |tx| {
            commands::halt(tx, "the server began halted").map(drop)
        })
        .await?;
        tracing::warn!(tenant = name, "the delivery of commands is halted");
    }
    Ok(())
}

fn open_security_events(app: &App, options: &Options) -> Result<()> {
    let Some(path) = &options.security_events else {
        return Ok(());
    };
    let sink = if path == Path::new("-") {
        EventSink::Stdout
    } else {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("--security-events cannot be written: {}", path.display()))?;
        EventSink::File(path.clone())
    };
    app.security_events
        .set(SecurityEvents::to(sink))
        .map_err(|_| anyhow::anyhow!("the security events were opened twice"))
}

/// The archive that the settings name.
pub fn log_archive(options: &Options) -> Result<Option<ObjectArchive>> {
    let open = |url: &String| {
        ObjectArchive::open(url, environment())
            .with_context(|| format!("--log-archive cannot be used: {url}"))
    };
    options.log_archive.as_ref().map(open).transpose()
}

/// The variables of the environment: the storage providers' own tools read theirs by name, and no flag of ours could stand for
/// all of them.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What is to go wrong on purpose: `MUSTER_FAULT=operation.approved/before/kill`.
#[cfg(debug_assertions)]
fn fault() -> Result<Option<std::sync::Arc<muster_control::fault::Fault>>> {
    let named = environment().into_iter().find(|(name, _)| name == "MUSTER_FAULT");
    let fault = named.map(|(_, text)| text.parse().map_err(|why| anyhow::anyhow!("MUSTER_FAULT: {why}")));
    Ok(fault.transpose()?.map(std::sync::Arc::new))
}

fn serve(
    app: &App,
    data_dir: &Path,
    options: &Options,
    listeners: Listeners,
    stopping: &watch::Receiver<bool>,
) -> Result<JoinSet<()>> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(options.public_names.clone().unwrap_or_default());
    let addresses = listeners.addresses()?;
    let certificate = OwnCertificate::new(app.clone(), names, addresses, listeners.admin.local_addr()?)?;
    let identity = certificate.identity().clone();
    let shown = PublicIdentity::new(identity.clone());
    let public = PublicCertificate::of(options, (app, certificate.record()), (&shown, data_dir))?;
    let verifier = Arc::new(AcceptedDevices::new(app.clone()));
    let device_tls = Arc::new(DeviceTls::new(&identity, verifier)?);
    let gateway = Gateway {
        app: app.clone(),
        metrics: Arc::default(),
        stop: stopping.clone(),
    };

    let mut served = JoinSet::new();
    let socket = Socket::Tcp {
        listener: listeners.device,
        tls: Tls::Devices(Arc::clone(&device_tls)),
    };
    let devices = Listener {
        socket,
        relays: listeners.relays.clone(),
        limits: Limits::of_devices(),
    };
    serve_devices(&mut served, &gateway, devices, Arrival::Direct);
    if let Some(proxy) = listeners.proxy {
        let proxies = Listener {
            socket: proxy.socket(&identity)?,
            relays: listeners.relays,
            limits: Limits::of_devices(),
        };
        serve_devices(&mut served, &gateway, proxies, Arrival::Proxied(device_tls));
    }
    let socket = Socket::Tcp {
        listener: listeners.admin,
        tls: Tls::Server(Arc::new(server_config(&shown)?)),
    };
    let admins = Listener {
        socket,
        relays: Sources::default(),
        limits: Limits::of_admins(),
    };
    served.spawn(listener::serve(
        app.clone(),
        admins,
        muster_console::router(app.clone()),
        stopping.clone(),
        || {},
    ));
    if let Some(tcp) = listeners.api {
        let socket = Socket::Tcp {
            listener: tcp,
            tls: Tls::Programs(Arc::new(program_config(&shown)?)),
        };
        let programs = Listener {
            socket,
            relays: Sources::default(),
            limits: Limits::of_admins(),
        };
        served.spawn(listener::serve(
            app.clone(),
            programs,
            muster_console::api_router(app.clone()),
            stopping.clone(),
            || {},
        ));
    }
    if let Some(tcp) = listeners.pki {
        served.spawn(pki::serve_plain(tcp, pki::router(app.clone()), stopping.clone()));
    }
    let ops = ops::router(app.clone(), &gateway.metrics);
    served.spawn(serve_ops(listeners.ops, ops, stopping.clone()));
    served.spawn(secrets::rotate_own(
        (certificate, public.as_ref().map(|public| public.record().clone())),
        (data_dir.to_owned(), options.database(data_dir)?),
        stopping.clone(),
    ));
    if let Some(public) = public {
        served.spawn(public.keep(stopping.clone()));
    }
    Ok(served)
}

fn serve_devices(served: &mut JoinSet<()>, gateway: &Gateway, listener: Listener, arrival: Arrival) {
    let metrics = Arc::clone(&gateway.metrics);
    served.spawn(listener::serve(
        gateway.app.clone(),
        listener,
        muster_gateway::router(gateway.clone(), arrival),
        gateway.stop.clone(),
        move || {
            metrics.handshakes_failed.inc();
        },
    ));
}

async fn serve_ops(listener: TcpListener, router: axum::Router, mut stop: watch::Receiver<bool>) {
    let stopped = async move {
        let _ = stop.changed().await;
    };
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .await
    {
        tracing::error!(%error, "the ops listener ended");
    }
}

/// Says where everything is; on the first run also how to sign in and what to do with the root key.
async fn announce(
    app: &App,
    tenant: muster_model::TenantId,
    data_dir: &Path,
    proxy: Option<String>,
    root_key: Option<PathBuf>,
) -> Result<()> {
    let admin = AdminFile::path(data_dir);
    say!("Muster is running.");
    say!("  Console and API   {}", app.settings.admin_url);
    say!("  Devices           {}", app.settings.device_url);
    if let Some(proxy) = proxy {
        say!("  Proxies           {proxy}");
    }
    say!("  Credentials       {}", admin.display());
    if let Some(root_key) = root_key {
        let (secret, _) = access::create_signin_link(
            app,
            (&Author::system(tenant), &access::scope::every()),
            "first-operator",
            &[],
        )
        .await?;
        say!("  Sign in (once)    {}/signin#{secret}", app.settings.admin_url);
        say!();
        say!("The root key of your tenant is {}", root_key.display());
        say!(
            "It names every other key. Carry it away from this machine (two copies, offline) and delete it here:"
        );
        say!(
            "the server never needs it, and whoever holds it can replace every signature your devices obey."
        );
        say_root_ca(app);
    } else {
        say_root_ca(app);
        say!(
            "  Sign in           muster console-link --admin-file {}",
            admin.display()
        );
    }
    Ok(())
}

/// Says once what to do with the key of the root CA: on the first run, or when an older install was opened.
pub fn say_root_ca(app: &App) {
    if let Some(path) = &app.keys.authority.root_key_to_carry_away {
        say!();
        say!("The key of the root certificate authority is {}", path.display());
        say!("Carry it away too: it is needed for `muster ca sign` alone, which runs without this server.");
    }
}

/// The signals that end the process, heard from the first moment on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen.
    pub fn listen() -> Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first one.
    pub async fn first(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
