//! Against the real programs: swtpm, whose TPM is the reference implementation, and tpm2-tools. They make the keys, read
//! our credentials and write the quotes, so nothing here is our word against our own.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_attest::testing::{random, random_bytes};
use muster_attest::tpm::{
    DEFAULT_SELECTION, Endorsement, PcrPolicy, endorsement_of_known_key, make_credential,
    read_attestation_key, read_device_key, verify_certify, verify_endorsement, verify_quote,
};
use muster_attest::{Anchors, Reject};
use muster_model::time::Timestamp;

/// How often a socket is tried before swtpm is given up.
const TRIES_MAX: usize = 1000;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);
/// What tpm2_certify of version 5 writes as its challenge.
const CERTIFY_EXTRA_DATA: [u8; 4] = [0x00, 0xff, 0x55, 0xaa];
/// Begin of a credential file of tpm2-tools: magic and version.
const CREDENTIAL_FILE_HEAD: [u8; 8] = [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
/// PolicyC of the EK Credential Profile 2.5, B.6.
const POLICY_C_SHA384: &str = "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5\
     b4947c2d73e63005eed2dc2b3593d165";
const RSA_EK: &str = "0x81010001";
const ECC_EK: &str = "0x81010016";
const RSA_EK_CERTIFICATE: &str = "0x1c00002";
const ECC_EK_CERTIFICATE: &str = "0x1c00016";

/// A TPM in a process of its own, with the folder for everything that the tools write.
struct Tpm {
    folder: tempfile::TempDir,
    process: Child,
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test harness starts swtpm and tpm2-tools"
)]
fn program(name: &str) -> Command {
    Command::new(name)
}

#[expect(
    clippy::disallowed_methods,
    reason = "swtpm_localca makes certificates that are valid from now on"
)]
fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_unix_seconds(i64::try_from(elapsed.as_secs()).expect("a time"))
}

fn installed(name: &str) -> bool {
    program(name)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn run(command: &mut Command) -> bool {
    let output = command.output().expect("the program starts");
    if !output.status.success() {
        println!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

impl Tpm {
    /// Makes a TPM with endorsement certificates of a local authority, and starts it.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let state = path("state");
        std::fs::create_dir(&state).expect("a folder");
        let authority = format!(
            "statedir={0}\nsigningkey={0}/issuer.key\nissuercert={0}/issuer.pem\ncertserial={0}/serial\n",
            folder.path().display()
        );
        std::fs::write(path("authority.conf"), authority).expect("a file");
        std::fs::write(path("authority.options"), "--tpm-spec-family 2.0\n").expect("a file");
        let setup = format!(
            "create_certs_tool=/usr/bin/swtpm_localca\ncreate_certs_tool_config={0}/authority.conf\n\
             create_certs_tool_options={0}/authority.options\nactive_pcr_banks=sha256\n",
            folder.path().display()
        );
        std::fs::write(path("setup.conf"), setup).expect("a file");
        let made = run(program("swtpm_setup")
            .args([
                "--tpm2",
                "--create-ek-cert",
                "--lock-nvram",
                "--vmid",
                "test",
                "--tpmstate",
            ])
            .arg(&state)
            .arg("--config")
            .arg(path("setup.conf")));
        assert!(made, "swtpm_setup makes a TPM");
        let process = program("swtpm")
            .args([
                "socket",
                "--tpm2",
                "--flags",
                "not-need-init,startup-clear",
                "--tpmstate",
            ])
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", path("tpm").display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", path("tpm.ctrl").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm starts");
        let tpm = Self { folder, process };
        tpm.wait();
        tpm
    }

    fn wait(&self) {
        for _try in 0..TRIES_MAX {
            if UnixStream::connect(self.path("tpm.ctrl")).is_ok() {
                return;
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        panic!("swtpm never listened");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Runs a tool in the folder; arguments are parted by spaces.
    fn tries(&self, line: &str) -> bool {
        let mut words = line.split(' ');
        let tool = words.next().expect("a tool");
        let ok = run(program(tool).args(words).current_dir(self.folder.path()).env(
            "TPM2TOOLS_TCTI",
            format!("swtpm:path={}", self.path("tpm").display()),
        ));
        // There is no resource manager, and room for three objects only.
        if !["tpm2_startauthsession", "tpm2_policysecret", "tpm2_policyor"].contains(&tool) {
            run(program("tpm2_flushcontext").arg("-t").env(
                "TPM2TOOLS_TCTI",
                format!("swtpm:path={}", self.path("tpm").display()),
            ));
        }
        ok
    }

    fn tool(&self, line: &str) {
        assert!(self.tries(line), "{line}");
    }

    /// The endorsement certificate of an index with its issuer, verified to the root that swtpm_localca made.
    fn endorsement(&self, index: &str) -> Endorsement {
        self.tool(&format!("tpm2_nvread {index} -C o -o ek.der"));
        let certificate = trim(self.read("ek.der"));
        let issuer = der_of(&self.path("issuer.pem"));
        let root = self.read("swtpm-localca-rootca-cert.pem");
        let anchors = Anchors::from_pem(std::str::from_utf8(&root).expect("text")).expect("a root");
        let ek = verify_endorsement(&[&certificate, &issuer], &anchors, now()).expect("a genuine TPM");
        assert!(ek.manufacturer.is_some() && ek.model.is_some() && ek.version.is_some());
        let missing = verify_endorsement(&[&certificate], &anchors, now());
        assert_eq!(missing.err(), Some(Reject::ChainUnknownRoot));
        ek
    }

    /// A public area as the tools write it, without its length.
    fn public(&self, name: &str) -> Vec<u8> {
        self.read(name)[2..].to_vec()
    }

    /// Whether TPM2_ActivateCredential gives this secret back.
    fn activates(
        &self,
        ek_handle: &str,
        id_object: &[u8],
        encrypted_secret: &[u8],
        secret: &[u8; 32],
    ) -> bool {
        let file = [&CREDENTIAL_FILE_HEAD[..], id_object, encrypted_secret].concat();
        std::fs::write(self.path("credential"), file).expect("a file");
        let _ = std::fs::remove_file(self.path("secret"));
        if ek_handle == ECC_EK {
            // The templates of strong keys take either of two policies; PolicySecret is the first.
            std::fs::write(self.path("second"), hex::decode(POLICY_C_SHA384).expect("hex")).expect("a file");
            self.tool("tpm2_startauthsession --policy-session -g sha384 -S session");
            self.tool("tpm2_policysecret -S session -c e -L first");
            self.tool("tpm2_policyor -S session sha384:first,second");
        } else {
            self.tool("tpm2_startauthsession --policy-session -S session");
            self.tool("tpm2_policysecret -S session -c e");
        }
        let activated = self.tries(&format!(
            "tpm2_activatecredential -c ak.ctx -C {ek_handle} -i credential -o secret -P session:session"
        ));
        self.tool("tpm2_flushcontext session");
        activated && self.read("secret") == secret
    }
}

/// The first element of some DER: a TPM pads what it stores.
fn trim(bytes: Vec<u8>) -> Vec<u8> {
    let length = 4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    bytes[..length].to_vec()
}

fn der_of(pem: &Path) -> Vec<u8> {
    let ok = run(program("openssl")
        .args(["x509", "-outform", "DER", "-out"])
        .arg(pem.with_extension("der"))
        .arg("-in")
        .arg(pem));
    assert!(ok, "openssl reads {}", pem.display());
    std::fs::read(pem.with_extension("der")).expect("a file")
}

/// The whole exchange with one endorsement key.
fn exchange(tpm: &Tpm, ek: &Endorsement, ek_handle: &str, [ak_algorithm, ak_hash, ak_scheme]: [&str; 3]) {
    let label = format!("{ek_handle} {ak_algorithm} {ak_hash} {ak_scheme}");
    tpm.tool(&format!(
        "tpm2_createak -C {ek_handle} -c ak.ctx -G {ak_algorithm} -g {ak_hash} -s {ak_scheme} -u ak.pub -n ak.name"
    ));
    let ak = read_attestation_key(&tpm.public("ak.pub")).expect("an attestation key");
    assert_eq!(ak.name, tpm.read("ak.name"), "{label}");

    let secret = random();
    let credential = make_credential(ek, &ak, &secret, &random_bytes()).expect("a credential");
    let (id_object, encrypted) = (&credential.id_object, &credential.encrypted_secret);
    assert!(tpm.activates(ek_handle, id_object, encrypted, &secret), "{label}");
    let mut other = ak.clone();
    other.name[5] ^= 1;
    let elsewhere = make_credential(ek, &other, &secret, &random_bytes()).expect("a credential");
    let (id_object, encrypted) = (&elsewhere.id_object, &elsewhere.encrypted_secret);
    assert!(
        !tpm.activates(ek_handle, id_object, encrypted, &secret),
        "{label}: another name"
    );

    tpm.tool("tpm2_createprimary -C o -G ecc -c parent.ctx");
    tpm.tool(
        "tpm2_create -C parent.ctx -G ecc256:ecdsa -u device.pub -r device.priv \
         -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda",
    );
    tpm.tool("tpm2_load -C parent.ctx -u device.pub -r device.priv -c device.ctx");
    let device = read_device_key(&tpm.public("device.pub")).expect("a device key");
    tpm.tool(&format!(
        "tpm2_certify -c device.ctx -C ak.ctx -g {ak_hash} --scheme {ak_scheme} -o certify.attest -s certify.signature"
    ));
    let (attest, signature) = (tpm.read("certify.attest"), tpm.read("certify.signature"));
    // The tool writes the structure with its length in front.
    let attest = attest
        .strip_prefix(&((attest.len() - 2) as u16).to_be_bytes()[..])
        .unwrap_or(&attest);
    let certified = |extra: &[u8]| verify_certify(&ak, &device, attest, &signature, extra);
    assert_eq!(certified(&CERTIFY_EXTRA_DATA), Ok(()), "{label}");
    assert_eq!(certified(&random()), Err(Reject::AttestNonce), "{label}");

    let nonce = random();
    tpm.tool(&format!(
        "tpm2_quote -c ak.ctx -l sha256:0,2,4,7 -q {} -m quote.attest -s quote.signature -g {ak_hash} --scheme {ak_scheme}",
        hex::encode(nonce)
    ));
    tpm.tool("tpm2_pcrread sha256:0,2,4,7 -o quote.values");
    let values = tpm.read("quote.values");
    let values: Vec<(u8, [u8; 32])> = DEFAULT_SELECTION
        .into_iter()
        .zip(values.as_chunks::<32>().0.iter().copied())
        .collect();
    let quoted = |selection: &[u8], values: &[(u8, [u8; 32])]| {
        let (attest, signature) = (tpm.read("quote.attest"), tpm.read("quote.signature"));
        verify_quote(
            &ak,
            &attest,
            &signature,
            &nonce,
            selection,
            values,
            &PcrPolicy::allow_all(),
        )
    };
    let facts = quoted(&DEFAULT_SELECTION, &values).expect("a genuine quote");
    assert!(facts.clock_ms > 0 && facts.firmware_version > 0, "{label}");
    assert_eq!(
        quoted(&[0, 2, 4], &values[..3]).err(),
        Some(Reject::QuoteSelection),
        "{label}"
    );
    let mut changed = values.clone();
    changed[3].1[31] ^= 1;
    assert_eq!(
        quoted(&DEFAULT_SELECTION, &changed).err(),
        Some(Reject::QuoteValues),
        "{label}"
    );
}

#[test]
fn swtpm_and_its_tools_agree_with_us() {
    for name in ["swtpm", "swtpm_setup", "tpm2_quote", "openssl"] {
        if !installed(name) {
            println!("SKIPPED swtpm: not installed ({name})");
            return;
        }
    }
    let tpm = Tpm::start();
    tpm.tool("tpm2_pcrextend 7:sha256=abababababababababababababababababababababababababababababababab");
    let rsa = tpm.endorsement(RSA_EK_CERTIFICATE);
    exchange(&tpm, &rsa, RSA_EK, ["ecc", "sha256", "ecdsa"]);
    exchange(&tpm, &rsa, RSA_EK, ["ecc384", "sha384", "ecdsa"]);
    exchange(&tpm, &rsa, RSA_EK, ["rsa", "sha256", "rsassa"]);
    exchange(&tpm, &rsa, RSA_EK, ["rsa", "sha256", "rsapss"]);
    // The default of swtpm is P-384.
    let ecc = tpm.endorsement(ECC_EK_CERTIFICATE);
    exchange(&tpm, &ecc, ECC_EK, ["ecc", "sha256", "ecdsa"]);
    // A key without certificate, as an administrator would import it: P-256 by the template of the TCG.
    tpm.tool("tpm2_createek -c 0x81010017 -G ecc -u ek.pub");
    tpm.tool("tpm2_readpublic -c 0x81010017 -f der -o ek.spki");
    let known = endorsement_of_known_key(&tpm.read("ek.spki")).expect("a key");
    assert_eq!(known.spki_der, tpm.read("ek.spki"));
    exchange(&tpm, &known, "0x81010017", ["ecc", "sha256", "ecdsa"]);
}
