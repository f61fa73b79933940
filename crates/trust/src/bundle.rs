//! Policy bundles: one version of one policy as a deterministic, signed `policy.zip`.
//!
//! | File | What |
//! |---|---|
//! | `manifest.json` | tenant, policy, version, and digest and length of every other content file |
//! | `manifest.dsse.json` | DSSE envelope over the bytes of `manifest.json`, by the policy role |
//! | `settings.json` | the settings, canonical JSON |
//! | `rules.json` | the compliance rules, JSON |
//!
//! Only the one canonical form of the archive is a bundle (see [`crate::archive`]), so every byte is covered by the
//! signature or determined by what is.

use std::collections::BTreeMap;

use muster_model::id::{PolicyId, TenantId};
use muster_model::text::VersionLabel;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::{self, ArchiveError};
use crate::dsse::{self, DsseError, Envelope};
use crate::encoding::{JsonError, from_strict_json};
use crate::key::{Digest, SigningKey, sha256};
use crate::root::{Role, RootDocument};

/// Payload type of the manifest's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.muster.bundle+json";
/// The version of this format.
pub const FORMAT: u32 = 1;
/// Longest manifest.
pub const MAX_MANIFEST_BYTES: usize = dsse::MAX_PAYLOAD_BYTES;
/// Longest name of a policy in a manifest.
pub const MAX_POLICY_NAME_CHARS: usize = 128;

/// Name of the manifest in the archive.
pub const MANIFEST: &str = "manifest.json";
/// Name of the detached signature in the archive.
pub const SIGNATURE: &str = "manifest.dsse.json";
/// Name of the settings in the archive.
pub const SETTINGS: &str = "settings.json";
/// Name of the rules in the archive.
pub const RULES: &str = "rules.json";

/// What a bundle is and contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Whose policy.
    pub tenant: TenantId,
    /// Which policy.
    pub policy_id: PolicyId,
    /// Its name when the version was made.
    pub policy_name: String,
    /// Which version.
    pub version: VersionLabel,
    /// Number of the version within the policy, from 1.
    pub sequence: u64,
    /// When the version was made.
    pub created_at: Timestamp,
    /// Every file but the manifest and its signature.
    pub files: BTreeMap<String, FileEntry>,
}

/// One file of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// Length of the content.
    pub bytes: u64,
}

/// What goes into a bundle.
#[derive(Debug, Clone)]
pub struct BundleSource<'s> {
    /// Whose policy.
    pub tenant: TenantId,
    /// Which policy.
    pub policy_id: PolicyId,
    /// Its name.
    pub policy_name: &'s str,
    /// Which version.
    pub version: &'s VersionLabel,
    /// Number of the version within the policy, from 1.
    pub sequence: u64,
    /// When the version was made.
    pub created_at: Timestamp,
    /// The settings as canonical JSON.
    pub settings_json: &'s [u8],
    /// The rules as JSON.
    pub rules_json: &'s [u8],
}

/// A finished bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The archive.
    pub bytes: Vec<u8>,
    /// SHA-256 of the archive: the bundle's name.
    pub sha256: Digest,
}

/// A bundle before its manifest is signed, for signers that live elsewhere.
#[derive(Debug, Clone)]
pub struct Draft {
    manifest_bytes: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
}

/// A bundle in canonical form whose files match its manifest. Who signed it is for [`OpenBundle::verify`] to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBundle {
    /// What it is.
    pub manifest: Manifest,
    /// The signature over the manifest's bytes.
    pub envelope: Envelope,
    /// SHA-256 of the archive.
    pub sha256: Digest,
    files: BTreeMap<String, Vec<u8>>,
}

/// Why a bundle was refused or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not the canonical archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A required file is missing.
    #[error("the bundle has no {0}")]
    MissingFile(&'static str),
    /// The manifest is not one.
    #[error("the manifest is malformed: {0}")]
    Json(#[from] JsonError),
    /// The manifest breaks a rule.
    #[error("the manifest is invalid: {0}")]
    Manifest(&'static str),
    /// A file differs from the manifest, is not named in it, or is named and missing.
    #[error("the file {0:?} is not what the manifest says")]
    File(String),
    /// The signature file is not the canonical envelope over this manifest.
    #[error("{SIGNATURE} is not the signature of this manifest")]
    NotThisManifest,
    /// The signatures do not suffice.
    #[error("the bundle's signature: {0}")]
    Dsse(#[from] DsseError),
}

/// Builds and signs a bundle. With Ed25519 keys the same source gives the same bytes.
pub fn build(source: &BundleSource<'_>, keys: &[&SigningKey]) -> Result<Bundle, BundleError> {
    let draft = Draft::new(source)?;
    let envelope = dsse::sign(PAYLOAD_TYPE, draft.manifest_bytes(), keys)?;
    draft.seal(&envelope)
}

/// Opens a bundle; accepts only the bytes that [`Draft::seal`] writes for its contents.
pub fn open(bytes: &[u8]) -> Result<OpenBundle, BundleError> {
    let mut files = archive::read(bytes)?;
    let signature_bytes = files
        .remove(SIGNATURE)
        .ok_or(BundleError::MissingFile(SIGNATURE))?;
    let (manifest, manifest_bytes) = take_manifest(&mut files)?;
    let envelope = Envelope::from_json(&signature_bytes)?;
    if envelope.payload != manifest_bytes || envelope.to_json() != signature_bytes {
        return Err(BundleError::NotThisManifest);
    }
    manifest.check_files(&files)?;
    Ok(OpenBundle {
        manifest,
        envelope,
        sha256: sha256(bytes),
        files,
    })
}

/// Opens a bundle that nobody signed yet; accepts only the bytes that [`Draft::to_archive`] writes.
pub fn open_draft(bytes: &[u8]) -> Result<Draft, BundleError> {
    let mut files = archive::read(bytes)?;
    let (manifest, manifest_bytes) = take_manifest(&mut files)?;
    manifest.check_files(&files)?;
    Ok(Draft {
        manifest_bytes,
        files,
    })
}

/// Takes the manifest out of the files of an archive, in its canonical form.
fn take_manifest(files: &mut BTreeMap<String, Vec<u8>>) -> Result<(Manifest, Vec<u8>), BundleError> {
    let bytes = files.remove(MANIFEST).ok_or(BundleError::MissingFile(MANIFEST))?;
    let manifest: Manifest = from_strict_json(&bytes, MAX_MANIFEST_BYTES)?;
    manifest.check()?;
    if manifest.to_bytes() == bytes {
        Ok((manifest, bytes))
    } else {
        Err(BundleError::Manifest("not in canonical form"))
    }
}

impl Draft {
    /// Lays out the files and writes the manifest.
    pub fn new(source: &BundleSource<'_>) -> Result<Self, BundleError> {
        let contents = [(SETTINGS, source.settings_json), (RULES, source.rules_json)];
        let files = contents.map(|(name, content)| (name.to_owned(), content.to_vec()));
        let entry = |content: &[u8]| FileEntry {
            sha256: sha256(content),
            bytes: content.len() as u64,
        };
        let manifest = Manifest {
            format: FORMAT,
            tenant: source.tenant,
            policy_id: source.policy_id,
            policy_name: source.policy_name.to_owned(),
            version: source.version.clone(),
            sequence: source.sequence,
            created_at: source.created_at,
            files: contents
                .iter()
                .map(|(name, content)| ((*name).to_owned(), entry(content)))
                .collect(),
        };
        manifest.check()?;
        Ok(Self {
            manifest_bytes: manifest.to_bytes(),
            files: files.into(),
        })
    }

    /// The bytes to sign, as payload of type [`PAYLOAD_TYPE`].
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// What the manifest says.
    pub fn manifest(&self) -> Result<Manifest, BundleError> {
        Ok(from_strict_json(&self.manifest_bytes, MAX_MANIFEST_BYTES)?)
    }

    /// A file by its name in the manifest.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// The archive without a signature, to carry it to whoever signs. No device takes it.
    pub fn to_archive(&self) -> Result<Vec<u8>, BundleError> {
        let mut files = self.files.clone();
        files.insert(MANIFEST.to_owned(), self.manifest_bytes.clone());
        Ok(archive::write(&files)?)
    }

    /// Adds the signed envelope and writes the archive.
    pub fn seal(mut self, envelope: &Envelope) -> Result<Bundle, BundleError> {
        if envelope.payload != self.manifest_bytes || envelope.payload_type != PAYLOAD_TYPE {
            return Err(BundleError::NotThisManifest);
        }
        self.files.insert(MANIFEST.to_owned(), self.manifest_bytes);
        self.files.insert(SIGNATURE.to_owned(), envelope.to_json());
        let bytes = archive::write(&self.files)?;
        let sha256 = sha256(&bytes);
        Ok(Bundle { bytes, sha256 })
    }
}

impl OpenBundle {
    /// Checks that the threshold of the tenant's policy signers signed the manifest, and that it is the tenant's own.
    pub fn verify(&self, root: &RootDocument) -> Result<(), BundleError> {
        root.verify(Role::Policy, PAYLOAD_TYPE, &self.envelope)?;
        if self.manifest.tenant == root.tenant {
            Ok(())
        } else {
            Err(BundleError::Manifest("of another tenant"))
        }
    }

    /// The bundle before it was signed, and the signatures that it has: for a further signer.
    pub fn into_draft(self) -> (Draft, Envelope) {
        let draft = Draft {
            manifest_bytes: self.manifest.to_bytes(),
            files: self.files,
        };
        (draft, self.envelope)
    }

    /// The settings as JSON.
    pub fn settings_json(&self) -> &[u8] {
        self.file(SETTINGS).expect("an open bundle has its settings file")
    }

    /// The rules as JSON.
    pub fn rules_json(&self) -> &[u8] {
        self.file(RULES).expect("an open bundle has its rules file")
    }

    /// A file by its name in the manifest.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }
}

impl Manifest {
    /// The one byte string of this manifest.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has only string keys and cannot fail to serialize")
    }

    fn check(&self) -> Result<(), BundleError> {
        if self.format != FORMAT {
            return Err(BundleError::Manifest("of another format version"));
        }
        let name_chars = self.policy_name.chars().take(MAX_POLICY_NAME_CHARS + 1).count();
        if !(1..=MAX_POLICY_NAME_CHARS).contains(&name_chars)
            || self.policy_name.chars().any(char::is_control)
        {
            return Err(BundleError::Manifest("the policy name"));
        }
        for required in [SETTINGS, RULES] {
            if !self.files.contains_key(required) {
                return Err(BundleError::MissingFile(required));
            }
        }
        if self.sequence == 0 {
            Err(BundleError::Manifest("sequence starts at 1"))
        } else {
            Ok(())
        }
    }

    fn check_files(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<(), BundleError> {
        for (name, said) in &self.files {
            let content = files.get(name).ok_or_else(|| BundleError::File(name.clone()))?;
            if said.bytes != content.len() as u64 || said.sha256 != sha256(content) {
                return Err(BundleError::File(name.clone()));
            }
        }
        let unnamed = files.keys().find(|name| !self.files.contains_key(*name));
        unnamed.map_or(Ok(()), |name| Err(BundleError::File(name.clone())))
    }
}
