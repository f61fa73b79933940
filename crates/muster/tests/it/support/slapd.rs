//! OpenLDAP's server with people in it, and `muster directory` that reads it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Child};

use super::{
    PATIENCE, eventually,
    haproxy::free_port,
    pki::{openssl_ok, peer_is_installed, text},
    scim::Provider,
    server::{Server, everything, run_muster, start_tool, tool, tool_with},
};

pub const SUFFIX: &str = "dc=ex,dc=com";
/// The account that reads, and its password.
pub const READER: &str = "cn=reader,dc=ex,dc=com";
pub const PASSWORD: &str = "the-readers-own-words";
/// An account whose searches the directory stops after five entries.
pub const LIMITED: &str = "cn=limited,dc=ex,dc=com";
const ADMIN: &str = "cn=admin,dc=ex,dc=com";
const ADMIN_PASSWORD: &str = "of-the-tests";

/// A directory on ports of its own. It ends with the test.
pub struct Slapd {
    _child: Child,
    pub folder: TempDir,
    pub plain_port: u16,
    pub tls_port: u16,
}

/// Whether there is a slapd here.
pub async fn is_installed() -> bool {
    peer_is_installed("slapd", "command -v slapd && command -v ldapmodify").await
}

impl Slapd {
    /// Starts a directory with these entries, in LDIF.
    pub async fn start(entries: &str) -> Slapd {
        Slapd::start_with(entries, true).await
    }

    /// As `start`; without TLS it refuses StartTLS.
    pub async fn start_with(entries: &str, has_tls: bool) -> Slapd {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path();
        certificates(path).await;
        let configuration = path.join("slapd.conf");
        fs::write(&configuration, configured(path, has_tls)).expect("it can be written");
        fs::create_dir(path.join("db")).expect("a folder");
        let all = format!("{}\n{entries}", first_entries());
        let ldif = path.join("first.ldif");
        fs::write(&ldif, all).expect("it can be written");
        let added = tool(
            "/usr/sbin/slapadd",
            &["-q", "-f", text(&configuration), "-l", text(&ldif)],
        )
        .await;
        assert!(added.status.success(), "slapadd: {}", everything(&added));
        let (plain_port, tls_port) = (free_port(), free_port());
        let mut addresses = format!("ldap://127.0.0.1:{plain_port}/");
        if has_tls {
            addresses.push_str(&format!(" ldaps://127.0.0.1:{tls_port}/"));
        }
        let log = path.join("slapd.log");
        let arguments = ["-d", "256", "-f", text(&configuration), "-h", &addresses];
        let mut child = start_tool("/usr/sbin/slapd", &arguments, &log);
        eventually("slapd listens", PATIENCE, async || {
            let ended = child.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended, "{}", fs::read_to_string(&log).unwrap_or_default());
            TcpStream::connect(("127.0.0.1", plain_port)).await.ok()
        })
        .await;
        Slapd {
            _child: child,
            folder,
            plain_port,
            tls_port,
        }
    }

    /// What slapd logged of each operation.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("slapd.log")).expect("a log")
    }

    /// Changes entries, as LDIF says.
    pub async fn modify(&self, ldif: &str) {
        let file = self.folder.path().join("change.ldif");
        fs::write(&file, ldif).expect("it can be written");
        let address = format!("ldap://127.0.0.1:{}", self.plain_port);
        let output = tool_with(
            "ldapmodify",
            &[
                "-x",
                "-H",
                &address,
                "-D",
                ADMIN,
                "-w",
                ADMIN_PASSWORD,
                "-f",
                text(&file),
            ],
            &[("LDAPNOINIT", "1")],
        )
        .await;
        assert!(output.status.success(), "{ldif}\n{}", everything(&output));
    }

    /// Writes a configuration that brings this directory to a server, over `ldaps`; answers the file.
    pub fn configuration(&self, server: &Server, provider: &Provider, more: &[(&str, &str)]) -> PathBuf {
        let path = self.folder.path();
        fs::write(path.join("token"), format!("{}\n", provider.secret)).expect("it can be written");
        fs::write(path.join("password"), format!("{PASSWORD}\n")).expect("it can be written");
        let mut all = format!(
            r#"
[muster]
url = "{}"
ca_file = "{}"
token_file = "token"

[ldap]
preset = "openldap"
url = "ldaps://localhost:{}"
ca_file = "ca.pem"
bind_dn = "{READER}"
password_file = "password"
page_entries = 50

[people]
base = "ou=people,{SUFFIX}"

[groups]
base = "ou=groups,{SUFFIX}"
"#,
            provider.api.origin,
            server.admin.ca_file.display(),
            self.tls_port,
        );
        for (from, to) in more {
            assert!(all.contains(from), "{from} is not in {all}");
            all = all.replace(from, to);
        }
        let file = path.join("directory.toml");
        fs::write(&file, all).expect("it can be written");
        file
    }
}

/// `muster directory …` with a configuration.
pub async fn directory(words: &[&str], configuration: &Path) -> Output {
    let arguments = [&["directory"], words, &["--config", text(configuration)]].concat();
    run_muster(arguments).await
}

/// A run that goes well; answers its report.
pub async fn synced(words: &[&str], configuration: &Path) -> Value {
    let output = directory(&[&["sync", "-o", "json"], words].concat(), configuration).await;
    assert!(output.status.success(), "{words:?}: {}", everything(&output));
    report(&output)
}

/// The report of a run, whatever came of it.
pub fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", everything(output)))
}

/// A person as LDIF.
pub fn person(uid: &str, more: &str) -> String {
    format!(
        "dn: uid={uid},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\nobjectClass: shadowAccount\n\
         uid: {uid}\ncn: {uid}\nsn: {uid}\nuidNumber: 1\ngidNumber: 1\nhomeDirectory: /\nmail: {uid}@ex.com\n{more}\n"
    )
}

/// A group of people and groups as LDIF.
pub fn group(name: &str, members: &[&str]) -> String {
    let members: String = members
        .iter()
        .map(|member| format!("member: {member},{SUFFIX}\n"))
        .collect();
    format!("dn: cn={name},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {name}\n{members}\n")
}

fn first_entries() -> String {
    let account = |dn: &str| {
        format!(
            "dn: {dn}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: {}\nuserPassword: {PASSWORD}\n\n",
            dn.trim_start_matches("cn=").split(',').next().unwrap_or_default()
        )
    };
    let unit =
        |name: &str| format!("dn: ou={name},{SUFFIX}\nobjectClass: organizationalUnit\nou: {name}\n\n");
    format!(
        "dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: ex\ndc: ex\n\n{}{}{}{}",
        account(READER),
        account(LIMITED),
        unit("people"),
        unit("groups")
    )
}

/// An authority, a certificate for `localhost`, one for the reader, and an authority that signed nothing.
async fn certificates(folder: &Path) {
    let at = |name: &str| text(&folder.join(name)).to_owned();
    for name in ["ca", "other"] {
        openssl_ok(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &at(&format!("{name}.key")),
            "-out",
            &at(&format!("{name}.pem")),
        ])
        .await;
    }
    fs::write(folder.join("server.ext"), "subjectAltName=DNS:localhost\n").expect("it can be written");
    fs::write(folder.join("reader.ext"), "extendedKeyUsage=clientAuth\n").expect("it can be written");
    for (name, subject) in [("server", "/CN=localhost"), ("reader", "/CN=reader")] {
        openssl_ok(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            subject,
            "-keyout",
            &at(&format!("{name}.key")),
            "-out",
            &at(&format!("{name}.csr")),
        ])
        .await;
        openssl_ok(&[
            "x509",
            "-req",
            "-in",
            &at(&format!("{name}.csr")),
            "-CA",
            &at("ca.pem"),
            "-CAkey",
            &at("ca.key"),
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &at(&format!("{name}.ext")),
            "-out",
            &at(&format!("{name}.pem")),
        ])
        .await;
    }
}

fn configured(folder: &Path, has_tls: bool) -> String {
    let folder = text(folder);
    let tls = match has_tls {
        true => format!(
            "TLSCACertificateFile {folder}/ca.pem\nTLSCertificateFile {folder}/server.pem\n\
             TLSCertificateKeyFile {folder}/server.key\nTLSVerifyClient try\n"
        ),
        false => String::new(),
    };
    format!(
        r#"include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
{tls}sizelimit unlimited
authz-regexp "cn=reader" "{READER}"
database mdb
maxsize 268435456
suffix "{SUFFIX}"
rootdn "{ADMIN}"
rootpw {ADMIN_PASSWORD}
directory {folder}/db
index entryUUID eq
limits dn.exact="{LIMITED}" size.soft=5 size.hard=5 size.prtotal=5
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{READER}" read by dn.exact="{LIMITED}" read by * none
overlay memberof
"#
    )
}
