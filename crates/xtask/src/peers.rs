//! The real programs that tests run against, and how they get onto a Debian machine.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use crate::{node, postgres, process, python};

/// One program that is not ours.
pub struct Peer {
    /// What it is called in messages and in `SKIPPED` lines.
    pub name: &'static str,
    /// The Debian packages that bring it.
    packages: &'static [&'static str],
    /// What its absence costs.
    purpose: &'static str,
    find: fn() -> Option<PathBuf>,
}

/// Packages that conflict with others that bring the same program: they are not asked for where it is there.
const BROUGHT_OTHERWISE: &[(&str, &str)] = &[("nodejs", "node"), ("npm", "npm")];

impl Peer {
    /// The packages to ask Debian for.
    fn wanted_packages(&self) -> impl Iterator<Item = &'static str> {
        let is_there = |package: &str| {
            let mut programs = BROUGHT_OTHERWISE.iter().filter(|(name, _)| *name == package);
            programs.any(|(_, program)| process::find(program).is_some())
        };
        self.packages
            .iter()
            .copied()
            .filter(move |package| !is_there(package))
    }
}

/// Every peer of the tests.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "postgres",
        packages: &["postgresql"],
        purpose: "every store test runs on PostgreSQL 15 or newer as well as on SQLite",
        find: postgres::find_programs,
    },
    Peer {
        name: "chromium",
        packages: &["chromium", "fonts-dejavu-core"],
        purpose: "the console is tested in a real browser",
        find: find_chromium,
    },
    Peer {
        name: "oidc-provider",
        packages: &["nodejs", "npm"],
        purpose: "people sign in with a real identity provider",
        find: || node::find("oidc-provider"),
    },
    Peer {
        name: "haproxy",
        packages: &["haproxy"],
        purpose: "the listener of proxies is tested behind a real proxy that ends the TLS of devices",
        find: || process::find("haproxy"),
    },
    Peer {
        name: "openssl",
        packages: &["openssl"],
        purpose: "certificates, revocation lists and OCSP are judged by somebody else's code",
        find: || process::find("openssl"),
    },
    Peer {
        name: "freeradius",
        packages: &["freeradius", "eapoltest"],
        purpose: "a device certificate opens a Wi-Fi, and a revoked one does not",
        find: || process::find("eapol_test").and(find_administrative("freeradius")),
    },
    Peer {
        name: "slapd",
        packages: &["slapd", "ldap-utils"],
        purpose: "people and groups are read from a directory that is not ours",
        find: || process::find("ldapmodify").and(find_administrative("slapd")),
    },
    Peer {
        name: "softhsm2",
        packages: &["softhsm2", "opensc"],
        purpose: "the device CA's key is kept on a PKCS#11 token",
        find: || process::find("pkcs11-tool").and(process::find("softhsm2-util")),
    },
    Peer {
        name: "hvac",
        packages: &["python3-hvac"],
        purpose: "the stand-in for Vault is judged by the client library of the real one",
        find: find_hvac,
    },
    Peer {
        name: "swtpm",
        packages: &["swtpm", "swtpm-tools", "tpm2-tools", "libtss2-tcti-swtpm0"],
        purpose: "TPMs are asked and judged for real, as far as software can be one",
        find: || {
            let programs = ["swtpm", "swtpm_setup", "swtpm_localca", "tpm2_quote"];
            let paths = programs.map(process::find);
            paths.into_iter().collect::<Option<Vec<_>>>()?.pop()
        },
    },
    Peer {
        name: "tpm2-openssl",
        packages: &["tpm2-openssl", "libtss2-tcti-swtpm0"],
        purpose: "a key in a TPM signs for other programs too",
        find: find_tpm2_provider,
    },
    Peer {
        name: "certmonger",
        packages: &["certmonger"],
        purpose: "SCEP is tested with a client that is not ours",
        find: || find_administrative("certmonger"),
    },
    Peer {
        name: "curl",
        packages: &["curl"],
        purpose: "EST is tested with it",
        find: || process::find("curl"),
    },
    Peer {
        name: "schemathesis",
        packages: &["python3-venv"],
        purpose: "the OpenAPI document is held against the server by somebody else's code",
        find: || python::find("schemathesis"),
    },
    Peer {
        name: "moto",
        packages: &["python3-venv"],
        purpose: "bundles are kept in an S3 that is not ours",
        find: || python::find("moto_server"),
    },
    Peer {
        name: "prometheus",
        packages: &["prometheus"],
        purpose: "rules and dashboards are run by a Prometheus that scrapes a server",
        find: || process::find("promtool").and(process::find("prometheus")),
    },
    Peer {
        name: "alertmanager",
        packages: &["prometheus-alertmanager"],
        purpose: "alerts are handed to an Alertmanager",
        find: || process::find("prometheus-alertmanager"),
    },
    Peer {
        name: "aiosmtpd",
        packages: &["python3-venv"],
        purpose: "mail is taken by a server that is not ours, and the stand-ins of pagers are judged by their vendors' clients",
        find: || python::find("aiosmtpd"),
    },
    Peer {
        name: "rotel",
        packages: &["python3-venv"],
        purpose: "traces are taken by a collector that is not ours",
        find: || python::find_in_library("rotel/rotel-agent"),
    },
    Peer {
        name: "rsyslog",
        packages: &["rsyslog", "rsyslog-openssl", "rsyslog-gnutls"],
        purpose: "events are taken by a receiver of syslog over TLS that is not ours",
        find: || find_administrative("rsyslogd").filter(|_| has_library("rsyslog/lmnsd_ossl.so")),
    },
    Peer {
        name: "nats-server",
        packages: &["nats-server"],
        purpose: "events are stored by a JetStream that is not ours",
        find: || find_administrative("nats-server"),
    },
    Peer {
        name: "openssh-server",
        packages: &["openssh-server", "openssh-client"],
        purpose: "sshd says which of its settings count",
        find: || find_administrative("sshd").and(process::find("ssh-keygen")),
    },
    Peer {
        name: "kmod",
        packages: &["kmod", "procps"],
        purpose: "modprobe and sysctl read the files that settings write",
        find: || find_administrative("modprobe").and(find_administrative("sysctl")),
    },
    Peer {
        name: "pwscore",
        packages: &["libpwquality-tools", "pamtester"],
        purpose: "passwords are judged, and accounts locked, by the libraries that do it on devices",
        find: || process::find("pwscore").and(process::find("pamtester")),
    },
    Peer {
        name: "nftables",
        packages: &["nftables"],
        purpose: "the firewall's rules are checked by the program that loads them",
        find: || find_administrative("nft"),
    },
    Peer {
        name: "fapolicyd",
        packages: &["fapolicyd"],
        purpose: "the rules that block programs are loaded by the program that enforces them",
        find: || find_administrative("fapolicyd"),
    },
    Peer {
        name: "usbguard",
        packages: &["usbguard"],
        purpose: "rules for USB devices are read by the program that enforces them",
        find: || process::find("usbguard-rule-parser"),
    },
    Peer {
        name: "nmcli",
        packages: &["network-manager"],
        purpose: "networks are read by NetworkManager",
        find: || process::find("nmcli"),
    },
    Peer {
        name: "dconf",
        packages: &["dconf-cli"],
        purpose: "settings of the desktop are compiled and read back",
        find: || process::find("dconf"),
    },
    Peer {
        name: "cryptsetup",
        packages: &["cryptsetup-bin"],
        purpose: "an encrypted container is made in a file",
        find: || find_administrative("cryptsetup"),
    },
    Peer {
        name: "check-jsonschema",
        packages: &["python3-venv"],
        purpose: "the examples for GitHub Actions and Azure Pipelines are linted by somebody else's schemas",
        find: || python::find("check-jsonschema"),
    },
    Peer {
        name: "prometheus",
        packages: &["prometheus"],
        purpose: "telemetry is written to it and asked of it",
        find: || process::find("prometheus"),
    },
    Peer {
        name: "victoria-metrics",
        packages: &["victoria-metrics"],
        purpose: "telemetry is written to it and asked of it, and the embedded store is measured beside it",
        find: || process::find("victoria-metrics"),
    },
    Peer {
        name: "simplesamlphp",
        packages: &["simplesamlphp", "php-cli", "php-xml", "php-mbstring", "php-curl"],
        purpose: "an identity provider that is not ours signs people in by SAML",
        find: find_simplesamlphp,
    },
    Peer {
        name: "xmlsec1",
        packages: &["xmlsec1", "libxml2-utils"],
        purpose: "XML signatures and canonical forms are judged by somebody else's code",
        find: || process::find("xmllint").and(process::find("xmlsec1")),
    },
    Peer {
        name: "strace",
        packages: &["strace"],
        purpose: "the system says that the server starts no program, whatever it is asked",
        find: || process::find("strace"),
    },
    Peer {
        name: "systemd-analyze",
        packages: &["systemd"],
        purpose: "the units of the services are judged by systemd",
        find: || process::find("systemd-analyze"),
    },
    Peer {
        name: "faketime",
        packages: &["faketime"],
        purpose: "the agent is tested with a clock that is wrong",
        find: || process::find("faketime"),
    },
];

/// `cargo xtask setup`: installs what is missing; may run any number of times.
pub fn setup() -> Result<bool> {
    let missing = install_missing()?;
    for peer in PEERS {
        if let Some(path) = (peer.find)() {
            println!("{}: {}", peer.name, path.display());
        }
    }
    Ok(missing.is_empty())
}

/// Installs missing peers where that is possible and returns those that are still missing, each said loudly.
pub fn install_missing() -> Result<Vec<&'static Peer>> {
    let wanted = missing();
    if !wanted.is_empty() && process::is_root() && process::find("apt-get").is_some() {
        install_packages(&wanted)?;
    }
    if let Err(error) = node::install() {
        eprintln!("npm's programs are missing, and their tests will be skipped: {error:#}");
    }
    if let Err(error) = python::install() {
        eprintln!("the Python tools are not complete: {error:#}");
    }
    let missing = missing();
    for peer in &missing {
        eprintln!("MISSING {}: {}", peer.name, peer.purpose);
        eprintln!(
            "        as root: apt-get update && apt-get install --yes {}",
            peer.packages.join(" ")
        );
    }
    Ok(missing)
}

/// Asks apt for everything at once, and where that fails for each peer alone: one package that cannot be had holds up no other.
fn install_packages(wanted: &[&Peer]) -> Result<()> {
    let _no_start = NoServiceStart::new();
    let install = |packages: &[&str]| -> Result<bool> {
        eprintln!("installing {}", packages.join(" "));
        let arguments = ["install", "--yes", "--no-install-recommends"];
        process::succeeds(apt_get(&arguments).args(packages))
    };
    let updated = process::succeeds(&mut apt_get(&["update"]))?;
    let packages: Vec<&str> = wanted.iter().flat_map(|peer| peer.wanted_packages()).collect();
    if updated && (packages.is_empty() || install(&packages)?) {
        return Ok(());
    }
    eprintln!(
        "apt-get did not install everything at once, its own words are above: each program is tried alone"
    );
    for peer in wanted {
        let packages: Vec<&str> = peer.wanted_packages().collect();
        if !packages.is_empty() && !install(&packages)? {
            eprintln!("apt-get did not install {}", peer.name);
        }
    }
    Ok(())
}

/// The browser of the console's tests.
pub fn find_chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find_map(|name| process::find(name))
}

/// A program that Debian puts where only administrators' paths lead.
fn find_administrative(name: &str) -> Option<PathBuf> {
    process::find(name).or_else(|| {
        let path = PathBuf::from("/usr/sbin").join(name);
        path.is_file().then_some(path)
    })
}

/// OpenSSL's provider of keys in a TPM.
fn find_tpm2_provider() -> Option<PathBuf> {
    find_library("ossl-modules/tpm2.so")
}

fn has_library(name: &str) -> bool {
    find_library(name).is_some()
}

/// A library, where Debian puts it on any architecture.
fn find_library(name: &str) -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?;
    libraries
        .filter_map(Result::ok)
        .map(|folder| folder.path().join(name))
        .find(|path| path.is_file())
}

/// Debian's package of the library, for Debian's interpreter.
fn find_hvac() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/lib/python3/dist-packages/hvac");
    path.is_dir().then_some(path)
}

/// Where Debian puts the pages of SimpleSAMLphp, and the interpreter that serves them.
fn find_simplesamlphp() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/share/simplesamlphp/www");
    process::find("php").filter(|_| path.is_dir())
}

fn missing() -> Vec<&'static Peer> {
    PEERS.iter().filter(|peer| (peer.find)().is_none()).collect()
}

/// Where Debian's packages ask whether they may start a service (invoke-rc.d(8)).
const START_POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it lives, packages start no service: the tests want the programs, not a database of the machine's own.
/// A policy that is there already is left alone.
struct NoServiceStart {
    is_ours: bool,
}

impl NoServiceStart {
    fn new() -> Self {
        use std::os::unix::fs::OpenOptionsExt;
        let policy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(START_POLICY);
        // Where the policy cannot be written, packages start what they start.
        let is_ours = policy
            .and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"))
            .is_ok();
        Self { is_ours }
    }
}

impl Drop for NoServiceStart {
    fn drop(&mut self) {
        if self.is_ours && std::fs::remove_file(START_POLICY).is_err() {
            eprintln!("{START_POLICY} was written and cannot be removed: remove it by hand");
        }
    }
}

fn apt_get(arguments: &[&str]) -> std::process::Command {
    let mut command = process::command("apt-get");
    command
        .arg("--quiet")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    // Output goes to standard error: the last line of standard output belongs to the test's count.
    command.stdout(std::io::stderr());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_says_what_it_is_for_and_which_packages_bring_it() {
        for peer in PEERS {
            assert!(
                !peer.packages.is_empty() && !peer.purpose.is_empty(),
                "{}",
                peer.name
            );
        }
    }
}
