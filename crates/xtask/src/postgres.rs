//! A PostgreSQL server for one test run: own folder, free port, gone afterwards.
//!
//! The server is the child of a small shell script that waits for the end of its standard input. This process holds
//! the other end, so the server stops and its folder is removed however this process ends: normally, by Ctrl-C, or
//! by `kill -9`.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// The oldest PostgreSQL that Muster supports.
const MAJOR_VERSION_MIN: u32 = 15;
/// Where Debian keeps the server programs, one folder per major version.
const DEBIAN_PROGRAMS: &str = "/usr/lib/postgresql";
/// How long a server may take to accept connections.
const START_SECONDS_MAX: u64 = 60;
/// How often a start is tried: another process may take the free port first.
const START_TRIES: u32 = 3;
/// How long a server may take to stop.
const STOP_SECONDS_MAX: u64 = 30;

/// Starts the server, then waits for the end of standard input, then stops it and removes its folder.
/// `$1` programs, `$2` folder, `$3` port.
const KEEPER: &str = r#"
"$1/postgres" -D "$2/data" -p "$3" -k "$2" >"$2/log" 2>&1 &
server=$!
while read -r line; do :; done
kill -INT "$server" 2>/dev/null
wait "$server"
cd /
rm -rf "$2"
"#;

/// A running server; dropped, it stops.
pub struct Server {
    keeper: Child,
    folder: PathBuf,
    /// `postgres://…` of a role that may create databases and is no superuser.
    pub url: String,
    /// `postgres://…` of the superuser.
    pub admin_url: String,
}

/// The folder of the newest supported server programs on this machine.
pub fn find_programs() -> Option<PathBuf> {
    let mut candidates: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_PROGRAMS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    if let Some(folder) = process::find("postgres").and_then(|program| program.parent().map(Path::to_owned)) {
        candidates.extend(version_of(&folder).map(|version| (version, folder)));
    }
    candidates.retain(|(version, folder)| {
        *version >= MAJOR_VERSION_MIN
            && ["initdb", "postgres", "psql"]
                .iter()
                .all(|program| process::is_executable(&folder.join(program)))
    });
    candidates.into_iter().max().map(|(_, folder)| folder)
}

impl Server {
    /// Makes a new cluster in a temporary folder and starts it.
    pub fn start() -> Result<Self> {
        let programs = find_programs().context("no PostgreSQL server programs")?;
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::start_once(&programs) {
                Err(error) if tries < START_TRIES => eprintln!("PostgreSQL: {error:#}; trying again"),
                outcome => return outcome,
            }
        }
    }

    fn start_once(programs: &Path) -> Result<Self> {
        let owner = Owner::choose()?;
        let folder = owner.make_folder()?;
        let password = random_hex()?;
        let made = owner
            .initialize(programs, &folder, &password)
            .and_then(|()| Self::launch(&owner, programs, &folder));
        let (keeper, port) = match made {
            Ok(made) => made,
            Err(error) => {
                fs::remove_dir_all(&folder)
                    .context("cannot remove the folder of a server that did not start")?;
                return Err(error);
            }
        };
        let url =
            |role: &str, database: &str| format!("postgres://{role}:{password}@127.0.0.1:{port}/{database}");
        let mut server = Self {
            keeper,
            folder,
            url: url("muster", "muster"),
            admin_url: url("postgres", "postgres"),
        };
        server.wait_until_ready()?;
        server.create_role(programs, &password)?;
        Ok(server)
    }

    fn launch(owner: &Owner, programs: &Path, folder: &Path) -> Result<(Child, u16)> {
        let port = free_port()?;
        let mut keeper = owner.command("/bin/sh");
        keeper
            .args(["-c", KEEPER, "postgres-keeper"])
            .arg(programs)
            .arg(folder)
            .arg(port.to_string());
        // A group of its own: Ctrl-C in the terminal reaches this process, which then lets go of the pipe.
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(folder);
        let keeper = keeper.spawn().context("cannot start PostgreSQL")?;
        Ok((keeper, port))
    }

    /// Waits for the line `ready` that the server writes into `postmaster.pid` when it takes connections.
    fn wait_until_ready(&mut self) -> Result<()> {
        let status = self.folder.join("data/postmaster.pid");
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(START_SECONDS_MAX) {
            if fs::read_to_string(&status).is_ok_and(|text| text.lines().any(|line| line.trim() == "ready")) {
                return Ok(());
            }
            if self.log().contains("FATAL") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the server did not start; its log says:\n{}", self.log())
    }

    fn create_role(&self, programs: &Path, password: &str) -> Result<()> {
        let sql = format!(
            "CREATE ROLE muster LOGIN CREATEDB NOSUPERUSER NOBYPASSRLS PASSWORD '{password}';\n\
             CREATE DATABASE muster OWNER muster;"
        );
        let mut psql = process::command(programs.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
            .arg(&self.admin_url);
        let mut psql = psql
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start psql")?;
        psql.stdin
            .take()
            .context("psql has an input")?
            .write_all(sql.as_bytes())?;
        let outcome = psql.wait_with_output()?;
        if !outcome.status.success() {
            bail!(
                "cannot create the test role: {}",
                String::from_utf8_lossy(&outcome.stderr).trim()
            );
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(STOP_SECONDS_MAX) {
            if !matches!(self.keeper.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!(
            "PostgreSQL (child of process {}) did not stop within {STOP_SECONDS_MAX} s",
            self.keeper.id()
        );
    }
}

/// Whose rights the server has: `initdb` and `postgres` refuse to run as root.
struct Owner {
    ids: Option<(u32, u32)>,
}

impl Owner {
    fn choose() -> Result<Self> {
        if !process::is_root() {
            return Ok(Self { ids: None });
        }
        let accounts = fs::read_to_string("/etc/passwd").context("cannot read the list of accounts")?;
        let ids = account_ids(&accounts, "postgres").or_else(|| account_ids(&accounts, "nobody"));
        Ok(Self {
            ids: Some(ids.context("PostgreSQL refuses root, and there is no account postgres or nobody")?),
        })
    }

    /// A command with the owner's rights; when that drops root, the standard library drops the other groups too.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = process::command(program);
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
        command
    }

    /// A new folder that only the owner can open; its path is short because a socket's path may have 107 bytes.
    fn make_folder(&self) -> Result<PathBuf> {
        let folder = tempfile::Builder::new().prefix("muster-pg-").tempdir()?.keep();
        if let Some((user, group)) = self.ids {
            std::os::unix::fs::chown(&folder, Some(user), Some(group))?;
        }
        Ok(folder)
    }

    fn initialize(&self, programs: &Path, folder: &Path, password: &str) -> Result<()> {
        let password_file = folder.join("password");
        fs::write(&password_file, password)?;
        if let Some((user, group)) = self.ids {
            std::os::unix::fs::chown(&password_file, Some(user), Some(group))?;
        }
        let mut initdb = self.command(programs.join("initdb"));
        initdb.args([
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]);
        initdb
            .args(["--auth-local=peer", "--auth-host=password"])
            .arg(format!("--pwfile={}", password_file.display()));
        initdb
            .arg("--pgdata")
            .arg(folder.join("data"))
            .current_dir(folder);
        process::output(&mut initdb)?;
        let settings = fs::OpenOptions::new()
            .append(true)
            .open(folder.join("data/postgresql.conf"));
        settings
            .and_then(|mut file| file.write_all(SETTINGS.as_bytes()))
            .context("cannot write the settings")
    }
}

/// Nothing here outlives the run, so nothing is forced to disk; many tests hold small pools at once.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 400
shared_buffers = 128MB
fsync = off
full_page_writes = off
synchronous_commit = off
max_wal_size = 2GB
log_min_messages = warning
";

/// User and group id of an account in the text of `/etc/passwd`.
fn account_ids(accounts: &str, name: &str) -> Option<(u32, u32)> {
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The major version that the programs in `folder` say they are.
fn version_of(folder: &Path) -> Option<u32> {
    let said = process::output(process::command(folder.join("postgres")).arg("--version")).ok()?;
    major_version(&said)
}

fn major_version(said: &str) -> Option<u32> {
    let number = said
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn random_hex() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_debian_and_upstream_write_them() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres"), None);
    }

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts =
            "postgresql:x:7:8::/:/bin/sh\npostgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(account_ids(accounts, "postgres"), Some((101, 104)));
        assert_eq!(account_ids(accounts, "nobody"), None);
    }

    #[test]
    fn a_server_starts_serves_a_role_without_privileges_and_leaves_nothing_behind() {
        let Some(programs) = find_programs() else {
            assert!(!process::is_ci(), "SKIPPED postgres: not installed");
            println!("SKIPPED postgres: not installed");
            return;
        };
        let server = Server::start().expect("a server starts");
        let ask = "SELECT rolsuper OR rolbypassrls, rolcreatedb FROM pg_roles WHERE rolname = current_user";
        let said = process::output(
            process::command(programs.join("psql"))
                .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", ask])
                .arg(&server.url),
        );
        assert_eq!(said.expect("the role can ask").trim(), "f|t");
        let folder = server.folder.clone();
        drop(server);
        assert!(!folder.exists(), "{} is still there", folder.display());
    }
}
