//! Signed notes (<https://c2sp.org/signed-note>) and witness cosignatures (<https://c2sp.org/tlog-cosignature>).
//!
//! A note is text, a blank line, and signature lines `— <name> <base64(key hash ‖ signature)>`. Only Ed25519 is used: plain
//! signatures (type 0x01) by logs, timestamped cosignatures (type 0x04) by witnesses.

use std::fmt;
use std::str::FromStr;

use crate::encoding::{from_base64, to_base64};
use crate::key::{KeyError, PublicKey, SigningKey, sha256_of};

/// Longest note.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// Most signature lines; the specification asks for at least 16.
pub const MAX_NOTE_SIGNATURES: usize = 32;
/// Longest key name.
pub const MAX_NAME_CHARS: usize = 255;
/// Longest signature in a line, of any type: unknown ones are kept, and may be post-quantum.
pub const MAX_NOTE_SIGNATURE_BYTES: usize = 8 * 1024;
/// Longest text of a verifier key: a name, a hash, and a key of 32 bytes.
pub const MAX_VERIFIER_KEY_BYTES: usize = 4 * MAX_NAME_CHARS;

const LINE_START: &str = "\u{2014} ";
const COSIGNATURE_HEADER: &str = "cosignature/v1\n";
const ED25519_SIGNATURE_BYTES: usize = 64;

/// What a signature line says and how it is made; part of the key hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureType {
    /// 0x01: Ed25519 over the note text.
    Ed25519,
    /// 0x04: Ed25519 over a header, a time and the note text.
    Cosignature,
}

impl SignatureType {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key; not proof of anything.
    pub name: String,
    /// The first four bytes of a hash over name, type and key.
    pub key_hash: [u8; 4],
    /// What follows the key hash.
    pub signature: Vec<u8>,
}

/// A note with its signatures. The text is not to be believed before a signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// Why a note or a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than the named bound.
    #[error("the note breaks the limit {0}")]
    TooLarge(&'static str),
    /// Not the form of a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// A line by a known key does not verify.
    #[error("the signature line of {0:?} does not verify")]
    BadSignature(String),
    /// Notes are signed with Ed25519 only.
    #[error("notes are signed with Ed25519 keys")]
    NotEd25519,
    /// The key could not sign.
    #[error("cannot sign: {0}")]
    Key(#[from] KeyError),
}

/// The key hash of the specification: SHA-256(name ‖ 0x0A ‖ type ‖ public key), first four bytes.
pub fn key_hash(name: &str, kind: SignatureType, public: &PublicKey) -> Result<[u8; 4], NoteError> {
    let PublicKey::Ed25519(raw) = public else {
        return Err(NoteError::NotEd25519);
    };
    let digest = sha256_of(&[name.as_bytes(), b"\n", &[kind.byte()], raw]);
    let [a, b, c, d, ..] = digest.0;
    Ok([a, b, c, d])
}

/// The verifier key text `<name>+<key hash hex>+<base64(type ‖ public key)>` that other tools take.
pub fn verifier_key(name: &str, kind: SignatureType, public: &PublicKey) -> Result<String, NoteError> {
    let PublicKey::Ed25519(raw) = public else {
        return Err(NoteError::NotEd25519);
    };
    let typed = [&[kind.byte()], raw.as_slice()].concat();
    Ok(format!(
        "{name}+{}+{}",
        hex::encode(key_hash(name, kind, public)?),
        to_base64(&typed)
    ))
}

/// A key that signs notes, as its text names it: `<name>+<key hash hex>+<base64(type ‖ public key)>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The name in signature lines.
    pub name: String,
    /// What its signatures say.
    pub kind: SignatureType,
    /// The Ed25519 key.
    pub public: PublicKey,
}

impl VerifierKey {
    /// Whether this key signed the note as its type says: `Ok(false)` without such a line, an error if one does not verify.
    pub fn signed(&self, note: &SignedNote) -> Result<bool, NoteError> {
        match self.kind {
            SignatureType::Ed25519 => note.signed_by(&self.name, &self.public),
            SignatureType::Cosignature => Ok(note.cosigned_by(&self.public)?.is_some()),
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match verifier_key(&self.name, self.kind, &self.public) {
            Ok(text) => f.write_str(&text),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    /// Reads only the exact text that [`verifier_key`] writes.
    fn from_str(text: &str) -> Result<Self, NoteError> {
        const MALFORMED: NoteError = NoteError::Malformed("not a verifier key: name+hash+base64");
        if text.len() > MAX_VERIFIER_KEY_BYTES {
            return Err(NoteError::TooLarge("MAX_VERIFIER_KEY_BYTES"));
        }
        // A base64 text may hold a plus, a name and a hash may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MALFORMED);
        };
        check_name(name)?;
        let typed = from_base64(encoded).ok_or(MALFORMED)?;
        let (kind, raw) = match typed.split_first() {
            Some((0x01, raw)) => (SignatureType::Ed25519, raw),
            Some((0x04, raw)) => (SignatureType::Cosignature, raw),
            _ => return Err(MALFORMED),
        };
        let key = Self {
            name: name.to_owned(),
            kind,
            public: PublicKey::Ed25519(raw.try_into().map_err(|_| MALFORMED)?),
        };
        if verifier_key(&key.name, kind, &key.public)? == text {
            Ok(key)
        } else {
            Err(MALFORMED)
        }
    }
}

impl SignedNote {
    /// Starts a note without signatures.
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let note = Self {
            text: text.into(),
            signatures: Vec::new(),
        };
        check_text(&note.text)?;
        Ok(note)
    }

    /// The signed text, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in their order.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a plain Ed25519 signature under `name`.
    pub fn sign(&mut self, name: &str, key: &SigningKey) -> Result<(), NoteError> {
        let key_hash = key_hash(name, SignatureType::Ed25519, key.public())?;
        let signature = key.sign(self.text.as_bytes())?;
        self.push(NoteSignature {
            name: name.to_owned(),
            key_hash,
            signature,
        })
    }

    /// Adds a witness cosignature made at `at_seconds` since the epoch under `name`.
    pub fn cosign(&mut self, name: &str, key: &SigningKey, at_seconds: u64) -> Result<(), NoteError> {
        let key_hash = key_hash(name, SignatureType::Cosignature, key.public())?;
        let signature = key.sign(cosigned_message(&self.text, at_seconds).as_bytes())?;
        let signature = [at_seconds.to_be_bytes().as_slice(), &signature].concat();
        self.push(NoteSignature {
            name: name.to_owned(),
            key_hash,
            signature,
        })
    }

    /// Adds a line that somebody else made, for example a witness; a line that is there already is not added again.
    pub fn push(&mut self, line: NoteSignature) -> Result<(), NoteError> {
        check_name(&line.name)?;
        if self.signatures.contains(&line) {
            return Ok(());
        }
        if self.signatures.len() >= MAX_NOTE_SIGNATURES {
            return Err(NoteError::TooLarge("MAX_NOTE_SIGNATURES"));
        }
        self.signatures.push(line);
        Ok(())
    }

    /// Whether this key signed the text under `name`: `Ok(false)` without such a line, an error if one does not verify.
    pub fn signed_by(&self, name: &str, public: &PublicKey) -> Result<bool, NoteError> {
        let wanted = key_hash(name, SignatureType::Ed25519, public)?;
        let mut found = false;
        for line in self
            .signatures
            .iter()
            .filter(|line| line.name == name && line.key_hash == wanted)
        {
            let verified = public.verify(self.text.as_bytes(), &line.signature);
            verified.map_err(|_| NoteError::BadSignature(line.name.clone()))?;
            found = true;
        }
        Ok(found)
    }

    /// When this key cosigned the text, in seconds since the epoch (the latest, if several); a witness may have any name.
    pub fn cosigned_by(&self, public: &PublicKey) -> Result<Option<u64>, NoteError> {
        let mut latest = None;
        for line in &self.signatures {
            if key_hash(&line.name, SignatureType::Cosignature, public)? != line.key_hash {
                continue;
            }
            let bad = || NoteError::BadSignature(line.name.clone());
            let (time, signature) = line.signature.split_first_chunk::<8>().ok_or_else(bad)?;
            let at_seconds = u64::from_be_bytes(*time);
            if signature.len() != ED25519_SIGNATURE_BYTES || i64::try_from(at_seconds).is_err() {
                return Err(bad());
            }
            let message = cosigned_message(&self.text, at_seconds);
            public.verify(message.as_bytes(), signature).map_err(|_| bad())?;
            latest = latest.max(Some(at_seconds));
        }
        Ok(latest)
    }
}

impl fmt::Display for NoteSignature {
    /// The line without its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_hash.as_slice(), &self.signature].concat();
        write!(f, "{LINE_START}{} {}", self.name, to_base64(&bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = NoteError;

    /// Reads one line without its newline.
    fn from_str(line: &str) -> Result<Self, NoteError> {
        let parsed = parse_line(line).ok_or(NoteError::Malformed("a signature line has another form"))?;
        check_name(&parsed.name)?;
        Ok(parsed)
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.signatures {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLarge("MAX_NOTE_BYTES"));
        }
        let end = note
            .rfind("\n\n")
            .ok_or(NoteError::Malformed("no blank line before the signatures"))?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let mut parsed = Self::new(text)?;
        let lines = lines
            .strip_suffix('\n')
            .ok_or(NoteError::Malformed("no final newline, or no signature"))?;
        for line in lines.split('\n') {
            let signature: NoteSignature = line.parse()?;
            if parsed.signatures.contains(&signature) {
                return Err(NoteError::Malformed("a signature line is there twice"));
            }
            parsed.push(signature)?;
        }
        Ok(parsed)
    }
}

fn cosigned_message(text: &str, at_seconds: u64) -> String {
    format!("{COSIGNATURE_HEADER}time {at_seconds}\n{text}")
}

fn parse_line(line: &str) -> Option<NoteSignature> {
    let (name, encoded) = line.strip_prefix(LINE_START)?.split_once(' ')?;
    let bytes = from_base64(encoded)?;
    let (key_hash, signature) = bytes.split_first_chunk::<4>()?;
    if signature.is_empty() || signature.len() > MAX_NOTE_SIGNATURE_BYTES {
        return None;
    }
    Some(NoteSignature {
        name: name.to_owned(),
        key_hash: *key_hash,
        signature: signature.to_vec(),
    })
}

fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.len() > MAX_NAME_CHARS {
        return Err(NoteError::TooLarge("MAX_NAME_CHARS"));
    }
    if name
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == '+')
    {
        return Err(NoteError::Malformed(
            "a key name has a space, a control character or a plus",
        ));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if text.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLarge("MAX_NOTE_BYTES"));
    }
    if text.len() < 2 || !text.ends_with('\n') {
        return Err(NoteError::Malformed(
            "the text is empty or does not end with a newline",
        ));
    }
    if text.chars().any(|c| c < ' ' && c != '\n') {
        return Err(NoteError::Malformed("the text has control characters"));
    }
    Ok(())
}
