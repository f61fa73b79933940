//! Software TPMs with certificates of a maker of the test's own, as a factory would leave them.
//!
//! Needs the Debian packages `swtpm` and `swtpm-tools`; nothing runs as root. Copy this file to use it elsewhere: it needs
//! `rcgen` and `tempfile`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize,
};

/// Longest time until a software TPM listens.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// `TPM2_Shutdown(TPM_SU_CLEAR)`: without it, the TPM counts a power cut against its endorsement key.
const SHUTDOWN: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0];

#[expect(
    clippy::disallowed_methods,
    reason = "the test harness starts the software TPM"
)]
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A maker of TPMs: a root, and an issuer below it that signs endorsement certificates.
pub struct Maker {
    folder: tempfile::TempDir,
    root: Vec<u8>,
    issuer: Vec<u8>,
}

impl Maker {
    /// `None`, with a line that CI counts, where software TPMs are not installed.
    pub fn new() -> Option<Self> {
        let is_there = |name| program(name).arg("--version").status().is_ok();
        if !is_there("swtpm") || !is_there("swtpm_setup") {
            println!("SKIPPED swtpm: not installed");
            return None;
        }
        let authority = |name: &str| {
            let mut parameters = CertificateParams::default();
            parameters.distinguished_name.push(DnType::CommonName, name);
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            parameters
        };
        let root_key = KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(authority("Test TPM root"), root_key).expect("it signs");
        // swtpm_localca signs with RSA only.
        let issuer_key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        let issuer = authority("Test TPM issuer")
            .signed_by(&issuer_key, &root)
            .expect("it signs");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let maker = Self {
            root: root.der().to_vec(),
            issuer: issuer.der().to_vec(),
            folder,
        };
        maker.write("issuer.key", &issuer_key.serialize_pem());
        maker.write("issuer.pem", &issuer.pem());
        maker.write_settings();
        Some(maker)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("it writes");
    }

    fn write_settings(&self) {
        let folder = self.folder.path().display();
        self.write(
            "localca.conf",
            &format!(
                "statedir = {folder}\nsigningkey = {folder}/issuer.key\nissuercert = {folder}/issuer.pem\n\
                 certserial = {folder}/certserial\n"
            ),
        );
        self.write(
            "localca.options",
            "--platform-manufacturer Test\n--platform-version 1\n--platform-model Machine\n",
        );
        self.write(
            "setup.conf",
            &format!(
                "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {folder}/localca.conf\n\
                 create_certs_tool_options = {folder}/localca.options\nactive_pcr_banks = sha256\n"
            ),
        );
    }

    /// The root certificate, DER.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The certificate between root and endorsement certificates, DER.
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Makes a TPM and starts it. `more` are arguments of `swtpm_setup`.
    pub fn tpm(&self, name: &str, more: &[&str]) -> Swtpm {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let output = program("swtpm_setup")
            .args([
                "--tpm2",
                "--create-ek-cert",
                "--create-platform-cert",
                "--lock-nvram",
            ])
            .args(["--overwrite", "--vmid", name, "--tpmstate"])
            .arg(&folder)
            .arg("--config")
            .arg(self.folder.path().join("setup.conf"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("swtpm_setup starts");
        assert!(
            output.status.success(),
            "swtpm_setup: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let mut tpm = Swtpm {
            socket: folder.join("sock"),
            folder,
            process: None,
        };
        tpm.start();
        tpm
    }
}

/// One software TPM on a Unix socket. It ends with this value.
pub struct Swtpm {
    folder: PathBuf,
    socket: PathBuf,
    process: Option<Child>,
}

impl Swtpm {
    /// What `--tpm` takes.
    pub fn tcti(&self) -> String {
        format!("swtpm:path={}", self.socket.display())
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Turns the power on.
    pub fn start(&mut self) {
        let child = program("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.folder.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", self.socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", self.socket.display()))
            .spawn()
            .expect("swtpm starts");
        self.process = Some(child);
        let end = Instant::now() + START_TIME_MAX;
        while UnixStream::connect(&self.socket).is_err() {
            assert!(Instant::now() < end, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Turns the power off, in order.
    pub fn stop(&mut self) {
        let Some(mut child) = self.process.take() else {
            return;
        };
        if let Ok(mut stream) = UnixStream::connect(&self.socket) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream
                .write_all(&SHUTDOWN)
                .and_then(|()| stream.read(&mut [0; 64]));
        }
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}
