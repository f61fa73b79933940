//! `muster proxy-certificate`: what a proxy needs that ends the TLS of devices (`docs/how-to/run-behind-a-proxy.md`).

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use muster_control::{
    Clock,
    secrets::{Keyring, write_private},
};

use crate::admin_file::AdminFile;

/// RFC 7468 §2.
const PEM_LINE_CHARS: usize = 64;

/// Make the files for a proxy that ends the TLS of devices: its certificate, and the authorities of devices
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster proxy-certificate --data-dir /var/lib/muster --names devices.example.com --out-dir /etc/haproxy/muster")]
pub struct ProxyCertificateArgs {
    /// Folder of keys, database and admin.json
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Names or addresses by which devices reach the proxy
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    names: Vec<String>,
    /// Where proxy.pem (certificate and key) and device-ca.pem are written
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

/// Issues the certificate and writes the files, for their owner alone.
pub fn run(args: ProxyCertificateArgs) -> Result<()> {
    ensure!(
        AdminFile::path(&args.data_dir).exists(),
        "{} is not the data folder of an install",
        args.data_dir.display()
    );
    let now = Clock::System.now();
    let keys = Keyring::open(&args.data_dir, now).context("the key folder cannot be used")?;
    let (mut names, mut addresses) = (Vec::new(), Vec::<IpAddr>::new());
    for name in args.names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name),
        }
    }
    let (chain, key) = keys.authority.server_certificate(&names, &addresses, now)?;
    let mut identity: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    identity.push_str(&pem("PRIVATE KEY", &key));
    // A proxy wants the chain up to an authority that signed itself.
    let mut authorities = keys.authority.accepted_device_cas(now);
    authorities.push(keys.authority.root_certificate().clone());
    let authorities: String = authorities.iter().map(|der| pem("CERTIFICATE", der)).collect();
    fs::create_dir_all(&args.out_dir)
        .with_context(|| format!("cannot make the folder {}", args.out_dir.display()))?;
    for (name, text) in [("proxy.pem", identity), ("device-ca.pem", authorities)] {
        let path = args.out_dir.join(name);
        write_private(&path, text.as_bytes())?;
        say!("{}", path.display());
    }
    Ok(())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(PEM_LINE_CHARS)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
