//! Private key files: PKCS #8 in PEM (RFC 5958), with a passphrase (PBES2 of RFC 8018: PBKDF2 with HMAC-SHA-256, AES-256-CBC)
//! or without. OpenSSL reads what is written here, and what it writes with these algorithms is read here.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use muster_trust::encoding::{from_pem, to_pem};
use muster_trust::key::{PublicKey, SigningKey};
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::der::{Decode as _, Encode as _};
use pkcs8::pkcs5::{self, pbes2};
use zeroize::Zeroizing;

use crate::CliError;
use crate::context::read_file;

const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// Rounds of PBKDF2 in files that are written (OWASP, Password Storage Cheat Sheet, 2023).
const ROUNDS: u32 = 600_000;
/// More rounds than this are not computed, whatever a file says.
const ROUNDS_MAX: u32 = 10_000_000;
const SALT_BYTES: usize = 16;
const IV_BYTES: usize = 16;
const AES_KEY_BYTES: usize = 32;
/// Shortest passphrase that a new key is given.
const PASSPHRASE_CHARS_MIN: usize = 8;

/// Where the passphrase of a key file is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PassphraseSource {
    /// File whose first line is the passphrase of the key files; asked for where it is absent
    #[arg(long, value_name = "FILE", env = "MUSTER_PASSPHRASE_FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// The passphrase of a key that is made.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NewPassphrase {
    #[command(flatten)]
    pub source: PassphraseSource,
    /// Write the key without a passphrase: for a medium that is encrypted itself
    #[arg(long, conflicts_with = "passphrase_file")]
    pub no_passphrase: bool,
}

type Passphrase = Zeroizing<String>;

/// Reads a private key; asks for its passphrase where it has one.
pub fn read(path: &Path, source: &PassphraseSource) -> Result<SigningKey, CliError> {
    let wrong = |detail: String| CliError::Content {
        path: path.to_owned(),
        detail,
    };
    let text = String::from_utf8(read_file(path)?).map(Zeroizing::new);
    let text = text.map_err(|_| wrong("not a private key: write PKCS #8 as PEM".to_owned()))?;
    if PublicKey::from_pem(&text).is_ok() {
        return Err(wrong(
            "this is the public half; the private key is needed".to_owned(),
        ));
    }
    match from_pem(ENCRYPTED_LABEL, &text) {
        Some(der) => {
            let passphrase = passphrase(source, &format!("Passphrase of {}: ", path.display()))?;
            decrypt(&der, &passphrase).map_err(wrong)
        }
        None => {
            SigningKey::from_pkcs8_pem(&text).map_err(|error| wrong(format!("not a private key: {error}")))
        }
    }
}

/// Reads a public key file.
pub fn read_public(path: &Path) -> Result<PublicKey, CliError> {
    let wrong = |detail: &str| CliError::Content {
        path: path.to_owned(),
        detail: detail.to_owned(),
    };
    let text = String::from_utf8(read_file(path)?).map(Zeroizing::new);
    let text = text.map_err(|_| wrong("not a public key: write it as PEM"))?;
    if text.contains("PRIVATE KEY") {
        return Err(wrong(
            "this is a private key: keep it where it is, and hand over its public half (`muster key show`)",
        ));
    }
    PublicKey::from_pem(&text).map_err(|_| wrong("not the PEM of an Ed25519 or P-256 public key"))
}

/// Makes an Ed25519 key in a new file that only its owner can read. A file that is there is never overwritten.
pub fn generate(path: &Path, passphrase: &NewPassphrase) -> Result<SigningKey, CliError> {
    let unusable = |error: muster_trust::key::KeyError| CliError::Failed(format!("no key was made: {error}"));
    if path.exists() {
        return Err(CliError::File {
            path: path.to_owned(),
            source: std::io::ErrorKind::AlreadyExists.into(),
        });
    }
    let passphrase = passphrase.choose(path)?;
    let key = SigningKey::generate_ed25519().map_err(unusable)?;
    let pem = match passphrase {
        None => key.to_pkcs8_pem().map_err(unusable)?,
        Some(passphrase) => encrypt(&key, &passphrase)?,
    };
    write_new(path, pem.as_bytes(), 0o600)?;
    Ok(key)
}

/// Writes a new file; one that is there is never overwritten.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CliError> {
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| CliError::File {
        path: path.to_owned(),
        source,
    })
}

impl NewPassphrase {
    /// Without a passphrase, and without asking.
    pub fn none() -> Self {
        Self {
            no_passphrase: true,
            ..Self::default()
        }
    }

    fn choose(&self, path: &Path) -> Result<Option<Passphrase>, CliError> {
        if self.no_passphrase {
            return Ok(None);
        }
        let chosen = passphrase(&self.source, &format!("Passphrase for {}: ", path.display()))?;
        if chosen.chars().count() < PASSPHRASE_CHARS_MIN {
            return Err(CliError::Usage(format!(
                "A passphrase has at least {PASSPHRASE_CHARS_MIN} characters."
            )));
        }
        if self.source.passphrase_file.is_none() && *passphrase(&self.source, "Once more: ")? != *chosen {
            return Err(CliError::Usage("The two passphrases differ.".to_owned()));
        }
        Ok(Some(chosen))
    }
}

fn passphrase(source: &PassphraseSource, prompt: &str) -> Result<Passphrase, CliError> {
    if let Some(path) = &source.passphrase_file {
        let text = String::from_utf8(read_file(path)?)
            .map(Zeroizing::new)
            .map_err(|_| CliError::Content {
                path: path.clone(),
                detail: "not text".to_owned(),
            })?;
        return Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()));
    }
    let terminal = console::Term::stderr();
    if !terminal.is_term() {
        return Err(CliError::Usage(
            "Nobody can be asked for a passphrase here: give --passphrase-file FILE, or for a new key --no-passphrase."
                .to_owned(),
        ));
    }
    let failed = |source| CliError::File {
        path: PathBuf::from("the terminal"),
        source,
    };
    terminal.write_str(prompt).map_err(failed)?;
    terminal.read_secure_line().map(Zeroizing::new).map_err(failed)
}

/// The key as a PEM that its passphrase opens.
fn encrypt(key: &SigningKey, passphrase: &str) -> Result<Zeroizing<String>, CliError> {
    let unusable = |_| CliError::Failed("the key could not be encrypted".to_owned());
    let (mut salt, mut iv) = ([0; SALT_BYTES], [0; IV_BYTES]);
    aws_lc_rs::rand::fill(&mut salt).map_err(unusable)?;
    aws_lc_rs::rand::fill(&mut iv).map_err(unusable)?;
    let plain = key
        .to_pkcs8_der()
        .map_err(|error| CliError::Failed(format!("the key could not be encrypted: {error}")))?;
    // Room for the padding, so that no second copy is made.
    let mut bytes = Vec::with_capacity(plain.len() + IV_BYTES);
    bytes.extend_from_slice(&plain);
    let aes = derive(ROUNDS, &salt, passphrase);
    let cipher = UnboundCipherKey::new(&AES_256, aes.as_slice())
        .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
        .map_err(unusable)?;
    cipher
        .less_safe_encrypt(&mut bytes, EncryptionContext::Iv128(FixedLength::from(iv)))
        .map_err(unusable)?;
    let document = pbes2::Parameters::pbkdf2_sha256_aes256cbc(ROUNDS, &salt, &iv)
        .map_err(|error| error.to_string())
        .and_then(|parameters| {
            let document = EncryptedPrivateKeyInfo {
                encryption_algorithm: pkcs5::EncryptionScheme::Pbes2(parameters),
                encrypted_data: &bytes,
            };
            document.to_der().map_err(|error| error.to_string())
        })
        .map_err(|error| CliError::Failed(format!("the key could not be encrypted: {error}")))?;
    Ok(to_pem(ENCRYPTED_LABEL, &document))
}

fn decrypt(der: &[u8], passphrase: &str) -> Result<SigningKey, String> {
    let document = EncryptedPrivateKeyInfo::from_der(der)
        .map_err(|error| format!("not an encrypted private key: {error}"))?;
    let unknown = || {
        "its encryption is not known here: write it with `openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256`"
            .to_owned()
    };
    let parameters = document.encryption_algorithm.pbes2().ok_or_else(unknown)?;
    let (pbes2::Kdf::Pbkdf2(kdf), pbes2::EncryptionScheme::Aes256Cbc { iv }) =
        (&parameters.kdf, &parameters.encryption)
    else {
        return Err(unknown());
    };
    if kdf.prf != pbes2::Pbkdf2Prf::HmacWithSha256 {
        return Err(unknown());
    }
    if !(1..=ROUNDS_MAX).contains(&kdf.iteration_count) {
        return Err(format!("it asks for more than {ROUNDS_MAX} rounds"));
    }
    let wrong = |_| "the passphrase is wrong, or the file is damaged".to_owned();
    let aes = derive(kdf.iteration_count, kdf.salt, passphrase);
    let cipher = UnboundCipherKey::new(&AES_256, aes.as_slice())
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(wrong)?;
    let mut bytes = Zeroizing::new(document.encrypted_data.to_vec());
    let plain = cipher
        .decrypt(&mut bytes, DecryptionContext::Iv128(FixedLength::from(*iv)))
        .map_err(wrong)?;
    SigningKey::from_pkcs8_der(plain)
        .map_err(|_| "the passphrase is wrong, or the file is damaged".to_owned())
}

fn derive(rounds: u32, salt: &[u8], passphrase: &str) -> Zeroizing<[u8; AES_KEY_BYTES]> {
    let mut key = Zeroizing::new([0; AES_KEY_BYTES]);
    let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(
        PBKDF2_HMAC_SHA256,
        rounds,
        salt,
        passphrase.as_bytes(),
        key.as_mut_slice(),
    );
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_file(folder: &Path, passphrase: &str) -> PassphraseSource {
        let path = folder.join("passphrase");
        std::fs::write(&path, format!("{passphrase}\nnot read\n")).expect("written");
        PassphraseSource {
            passphrase_file: Some(path),
        }
    }

    #[test]
    fn a_key_with_a_passphrase_comes_back_with_it_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = with_file(folder.path(), "correct horse");
        let new = NewPassphrase {
            source: source.clone(),
            no_passphrase: false,
        };
        let path = folder.path().join("ada.pem");
        let key = generate(&path, &new).expect("made");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(
            text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            "{text}"
        );
        assert_eq!(read(&path, &source).expect("opened").key_id(), key.key_id());
        let wrong = read(&path, &with_file(folder.path(), "correct house")).expect_err("another passphrase");
        assert!(wrong.to_string().contains("passphrase is wrong"), "{wrong}");
        assert!(
            generate(&path, &new).is_err(),
            "a file that is there is never overwritten"
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_short_passphrase_and_nobody_to_ask_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        let new = NewPassphrase {
            source: with_file(folder.path(), "short"),
            no_passphrase: false,
        };
        assert!(matches!(generate(&path, &new), Err(CliError::Usage(_))));
        assert!(!path.exists());
    }

    #[test]
    fn a_private_key_is_not_taken_for_a_public_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (private, public) = (folder.path().join("a.pem"), folder.path().join("a.pub"));
        let key = generate(&private, &NewPassphrase::none()).expect("made");
        std::fs::write(&public, key.public().to_pem()).expect("written");
        assert!(read_public(&private).is_err());
        assert_eq!(&read_public(&public).expect("read"), key.public());
        assert!(read(&public, &PassphraseSource::default()).is_err());
    }

    /// Made by OpenSSL 3 with `openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -v2 aes-256-cbc -passout
    /// pass:from-openssl`.
    #[test]
    fn a_key_that_openssl_encrypted_is_read() {
        let pem = include_str!("testdata/openssl-ed25519.pem");
        let der = from_pem(ENCRYPTED_LABEL, pem).expect("a PEM");
        let key = decrypt(&der, "from-openssl").expect("opened");
        let public = include_str!("testdata/openssl-ed25519.pub");
        assert_eq!(key.public().to_pem(), public);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decrypt(&bytes, "x").is_err());
        }
    }
}
