//! The file that a root ceremony carries: the published root documents, and the next one with the signatures that it has so
//! far. Nothing in it is believed before it verified.

use std::path::Path;

use muster_model::TenantId;
use muster_trust::dsse::{Envelope, pae};
use muster_trust::encoding::from_strict_json;
use muster_trust::key::{Digest, KeyId, SigningKey, sha256};
use muster_trust::root::{MAX_ROOT_BYTES, MAX_ROOT_STEPS, PAYLOAD_TYPE, Role, RootDocument};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call};
use crate::context::{self, read_input_of, write_private};
use crate::{CliError, Globals, log};

/// Largest file of a ceremony: as many documents as a device walks are seldom more than some megabytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Root documents whose chain was verified, and the next one.
#[derive(Clone, Debug)]
pub struct RootFile {
    /// Published documents, from version 1 on.
    pub published: Vec<Envelope>,
    /// The newest of them.
    pub current: RootDocument,
    /// What is to follow it.
    pub next: Option<Draft>,
}

/// The next document, with the signatures that it has so far.
#[derive(Clone, Debug)]
pub struct Draft {
    pub document: RootDocument,
    pub envelope: Envelope,
}

/// Who signed a draft: valid signatures by the root keys of the document before it and by its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signed {
    pub before: Count,
    pub own: Count,
}

/// How many of the keys that must sign did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    pub valid: u32,
    pub threshold: u32,
}

impl Count {
    fn suffices(self) -> bool {
        self.valid >= self.threshold
    }
}

impl Signed {
    /// True where devices would follow.
    pub fn suffices(&self) -> bool {
        self.before.suffices() && self.own.suffices()
    }
}

impl RootFile {
    /// Reads a file and verifies the chain in it: each document is signed by the threshold of the one before.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let content = |detail: String| CliError::Content {
            path: path.to_owned(),
            detail,
        };
        let mut value: Value = serde_json::from_slice(&read_input_of(path, FILE_BYTES_MAX)?)
            .map_err(|error| content(error.to_string()))?;
        let next = match value.as_object_mut().and_then(|members| members.remove("next")) {
            None | Some(Value::Null) => None,
            Some(next) => Some(
                Envelope::from_json(next.to_string().as_bytes())
                    .map_err(|error| content(format!("next: {error}")))?,
            ),
        };
        let published = log::envelopes(value)
            .ok_or_else(|| content("no root documents: `muster root fetch` writes such a file".to_owned()))?;
        Self::verified(published, next).map_err(|error| content(error.to_string()))
    }

    /// Verifies a chain and the document that is to follow it.
    pub fn verified(published: Vec<Envelope>, next: Option<Envelope>) -> Result<Self, CliError> {
        if published.len() > MAX_ROOT_STEPS {
            return Err(CliError::Failed(format!(
                "there are more than {MAX_ROOT_STEPS} root documents"
            )));
        }
        let current = log::walk_root(&published)?;
        let next = next.map(|envelope| Draft::open(envelope, &current)).transpose()?;
        Ok(Self {
            published,
            current,
            next,
        })
    }

    /// Gets the server's documents. The first of them must be the one of the last time, and the newest not older.
    pub async fn fetch(api: &Api, globals: &Globals) -> Result<Self, CliError> {
        let answer: Answer<Value> = api.send(Call::get(&["root"])).await?;
        let published = log::envelopes(json!({"items": answer.value["envelopes"]}))
            .ok_or_else(|| CliError::Answer("no list of root documents".to_owned()))?;
        let file = Self::verified(published, None)?;
        file.remember(globals)?;
        Ok(file)
    }

    /// Compares with what this machine saw of the tenant before, and keeps what it sees now.
    fn remember(&self, globals: &Globals) -> Result<(), CliError> {
        let path = context::folder(globals)?
            .join("roots")
            .join(format!("{}.json", self.tenant()));
        let seen = Seen {
            first_sha256: self.first_sha256(),
            version: self.current.version,
        };
        if path.exists() {
            let before: Seen =
                serde_json::from_slice(&context::read_file(&path)?).map_err(|error| CliError::Content {
                    path: path.clone(),
                    detail: error.to_string(),
                })?;
            before.check(&seen, &path)?;
            if before == seen {
                return Ok(());
            }
        }
        let text = serde_json::to_vec(&seen).map_err(|error| CliError::Answer(error.to_string()))?;
        write_private(&path, &text)
    }

    /// Writes the file whole.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        let next = self.next.as_ref().map(|next| &next.envelope);
        let mut value = json!({"items": self.published});
        if let Some(next) = next {
            value["next"] = json!(next);
        }
        let text = serde_json::to_vec_pretty(&value).map_err(|error| CliError::Answer(error.to_string()))?;
        write_private(path, &text)
    }

    pub fn tenant(&self) -> TenantId {
        self.current.tenant
    }

    /// SHA-256 of the first document: what devices pinned.
    pub fn first_sha256(&self) -> Digest {
        let first = self
            .published
            .first()
            .expect("a verified chain has a first document");
        sha256(&first.payload)
    }

    /// The document that is being made.
    pub fn draft(&self) -> Result<&Draft, CliError> {
        self.next.as_ref().ok_or_else(|| {
            CliError::Usage(
                "The file holds no next document: make one, for example with `muster root renew`.".to_owned(),
            )
        })
    }
}

/// What is remembered of a tenant's root documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    first_sha256: Digest,
    version: u64,
}

impl Seen {
    fn check(&self, now: &Self, path: &Path) -> Result<(), CliError> {
        if self.first_sha256 != now.first_sha256 {
            return Err(CliError::Failed(format!(
                "the server's first root document is another one than last time ({}, it was {}): it is another tenant that \
                 calls itself the same. If that is right, remove {}",
                now.first_sha256,
                self.first_sha256,
                path.display()
            )));
        }
        if now.version < self.version {
            return Err(CliError::Failed(format!(
                "the server is at root document {}, and was at {} before: its database or its keys went back. Publish the \
                 documents of a newer file with `muster root publish --in FILE`, or remove {}",
                now.version,
                self.version,
                path.display()
            )));
        }
        Ok(())
    }
}

impl Draft {
    /// A document without signatures.
    pub fn new(document: RootDocument) -> Self {
        let envelope = Envelope {
            payload: document.to_bytes(),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: Vec::new(),
        };
        Self { document, envelope }
    }

    fn open(envelope: Envelope, current: &RootDocument) -> Result<Self, CliError> {
        let wrong = |why: String| CliError::Failed(format!("the next root document is wrong: {why}"));
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(wrong(format!("its type is {}", envelope.payload_type)));
        }
        let document: RootDocument =
            from_strict_json(&envelope.payload, MAX_ROOT_BYTES).map_err(|error| wrong(error.to_string()))?;
        document.check().map_err(|error| wrong(error.to_string()))?;
        if document.tenant != current.tenant {
            return Err(wrong(format!("it belongs to {}", document.tenant)));
        }
        if document.version != current.version + 1 {
            return Err(wrong(format!(
                "it has version {}, and the newest published one is {}",
                document.version, current.version
            )));
        }
        if document.restore_epoch < current.restore_epoch {
            return Err(wrong("its restore epoch goes back".to_owned()));
        }
        let draft = Self { document, envelope };
        draft.signed(current)?;
        Ok(draft)
    }

    /// Who signed so far. A wrong signature by a root key is an error: the file was changed.
    pub fn signed(&self, current: &RootDocument) -> Result<Signed, CliError> {
        let message = pae(&self.envelope.payload_type, &self.envelope.payload);
        let mut valid: Vec<KeyId> = Vec::new();
        for signature in &self.envelope.signatures {
            let known = [current, &self.document]
                .iter()
                .find_map(|document| root_key(document, &signature.keyid));
            let Some(key) = known else { continue };
            key.verify(&message, &signature.sig).map_err(|_| {
                CliError::Failed(format!(
                    "the signature by key {} is not over this document: somebody changed the file",
                    signature.keyid
                ))
            })?;
            if !valid.contains(&signature.keyid) {
                valid.push(signature.keyid);
            }
        }
        let count = |document: &RootDocument| {
            let (_, threshold) = document.role(Role::Root);
            let by = valid.iter().filter(|id| root_key(document, id).is_some());
            Count {
                valid: u32::try_from(by.count()).unwrap_or(u32::MAX),
                threshold,
            }
        };
        Ok(Signed {
            before: count(current),
            own: count(&self.document),
        })
    }

    /// Adds a signature, by a key that counts for this step.
    pub fn sign(&mut self, current: &RootDocument, key: &SigningKey) -> Result<(), CliError> {
        let id = key.key_id();
        if root_key(current, &id).is_none() && root_key(&self.document, &id).is_none() {
            return Err(CliError::Failed(format!(
                "key {id} is a root key neither of version {} nor of version {}: its signature would not count",
                current.version, self.document.version
            )));
        }
        self.envelope
            .add_signature(key)
            .map_err(|error| CliError::Failed(error.to_string()))
    }
}

fn root_key<'d>(document: &'d RootDocument, id: &KeyId) -> Option<&'d muster_trust::key::PublicKey> {
    let role = document.roles.get(&Role::Root)?;
    role.keys.get(id).and_then(|id| document.keys.get(id))
}
