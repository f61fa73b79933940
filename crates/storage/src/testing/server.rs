//! A PostgreSQL server of one's own, thrown away when dropped.

use std::{
    fs,
    io::{Error, Result},
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use uuid::Uuid;

/// Somebody else may take the free port between looking and starting.
const START_TRIES_MAX: u32 = 3;
/// Durability costs time and a test server needs none.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "300"),
    ("shared_buffers", "128MB"),
    ("listen_addresses", "127.0.0.1"),
];

/// Waits for the end of its input, which comes however this process ends, and then stops the server. `$1` is the folder
/// of the programs, `$2` the server's own.
const KEEPER: &str =
    r#"while read -r line; do :; done; "$1/pg_ctl" -D "$2/data" -w -m immediate stop; cd /; rm -rf "$2""#;

/// A running PostgreSQL server in a temporary folder, with a superuser `muster`. Stops when dropped, and also when this
/// process is killed.
pub struct PostgresServer {
    folder: TempDir,
    keeper: Option<Child>,
    programs: PathBuf,
    /// Whose server it is, when this process is root: PostgreSQL refuses to run as root.
    user: Option<(u32, u32)>,
    port: u16,
    password: String,
}

impl PostgresServer {
    /// Finds the newest installed server programs, makes a cluster and starts it on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        Self::start_with(&[], &[])
    }

    /// As [`Self::start`], with more settings (a later one wins) and files for them, by name, in the data folder.
    pub fn start_with(settings: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Self> {
        let mut server = Self {
            folder: tempfile::Builder::new().prefix("muster-postgres-").tempdir()?,
            keeper: None,
            programs: programs()?,
            user: unprivileged_user()?,
            port: 0,
            password: Uuid::new_v4().simple().to_string(),
        };
        server.hand_over(server.folder.path())?;
        server.keeper = Some(server.start_keeper()?);
        server.make_cluster()?;
        for (name, content) in files {
            server.write(&server.data().join(name), content)?;
        }
        for _ in 0..START_TRIES_MAX {
            server.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            server.write(
                &server.data().join("postgresql.auto.conf"),
                &server.configuration(settings),
            )?;
            if server.run("pg_ctl", &["-w", "-t", "60", "-l", "log", "start"])? {
                return Ok(server);
            }
        }
        let log = fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
        Err(Error::other(format!("PostgreSQL does not start: {log}")))
    }

    /// The superuser's URL over TCP.
    pub fn url(&self) -> String {
        format!(
            "postgres://muster:{}@127.0.0.1:{}/postgres",
            self.password, self.port
        )
    }

    /// The superuser's URL over the server's Unix socket.
    pub fn socket_url(&self) -> String {
        let (password, folder) = (&self.password, self.folder.path().display());
        format!(
            "postgres:///postgres?host={folder}&port={}&user=muster&password={password}",
            self.port
        )
    }

    /// Restarts the server at once, as a crash would; every connection is lost.
    pub fn crash_and_restart(&self) -> Result<()> {
        let restarted = self.run(
            "pg_ctl",
            &["-w", "-t", "60", "-l", "log", "-m", "immediate", "restart"],
        )?;
        if restarted {
            Ok(())
        } else {
            Err(Error::other("PostgreSQL does not restart"))
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn make_cluster(&self) -> Result<()> {
        let password_file = self.folder.path().join("password");
        self.write(&password_file, &self.password)?;
        let password_file = format!("--pwfile={}", password_file.display());
        let arguments = [
            "-U",
            "muster",
            "-A",
            "password",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            &password_file,
        ];
        if self.run("initdb", &arguments)? {
            Ok(())
        } else {
            Err(Error::other("initdb failed"))
        }
    }

    fn configuration(&self, settings: &[(&str, &str)]) -> String {
        let folder = self.folder.path().display();
        let mut text = format!("port = {}\nunix_socket_directories = '{folder}'\n", self.port);
        for (name, value) in SETTINGS.iter().chain(settings) {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        text
    }

    fn write(&self, path: &Path, content: &str) -> Result<()> {
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        self.hand_over(path)
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        self.user
            .map_or(Ok(()), |(user, group)| chown(path, Some(user), Some(group)))
    }

    /// Runs a server program on the data folder; whether it succeeded.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<bool> {
        let mut command = self.command(&self.programs.join(program));
        command
            .arg("-D")
            .arg(self.data())
            .args(arguments)
            .stdin(Stdio::null());
        Ok(command.status()?.success())
    }

    fn start_keeper(&self) -> Result<Child> {
        let mut keeper = self.command(Path::new("/bin/sh"));
        keeper
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.programs)
            .arg(self.folder.path());
        // A group of its own: Ctrl-C in the terminal ends this process, and that ends the keeper's input.
        keeper.process_group(0).stdin(Stdio::piped()).spawn()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test harness: the one place of this crate that starts programs"
    )]
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            // Nothing can be done about a failure.
            let _ = keeper.wait();
        }
    }
}

/// The folder of the newest installed server programs.
fn programs() -> Result<PathBuf> {
    let version = |folder: &Path| -> Option<u32> {
        let name = folder.file_name()?.to_str()?;
        name.trim_start_matches("pgsql-").parse().ok()
    };
    let installed = ["/usr/lib/postgresql", "/usr"]
        .into_iter()
        .filter_map(|parent| fs::read_dir(parent).ok())
        .flatten();
    let newest = installed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| folder.join("bin/initdb").exists())
        .filter_map(|folder| Some((version(&folder)?, folder)))
        .max();
    match newest {
        Some((_, folder)) => Ok(folder.join("bin")),
        None if Path::new("/usr/bin/initdb").exists() => Ok("/usr/bin".into()),
        None => Err(Error::other("PostgreSQL's server programs are not installed")),
    }
}

/// User and group to run as, when this process is root.
fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres")
        .or_else(|| ids("nobody"))
        .map(Some)
        .ok_or_else(|| Error::other("no user postgres or nobody"))
}
