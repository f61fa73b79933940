//! Each command (TPM 2.0 Library specification, part 3) as a function.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::client::{Answer, Authorization, Command, OpenTpm, malformed};
use super::codec::{Malformed, PcrBank, PublicArea, Reader, Writer, read_pcr_selection, write_pcr_selection};
use super::error::{TpmError, rc};
use super::ids::{CommandCode, Handle, SESSION_POLICY, TAG_HASH_CHECK, alg, capability, nv, property};

/// Longest NV index that is read, in bytes: a certificate with its padding.
const NV_BYTES_MAX: usize = 8 * 1024;
/// Read at a time where the TPM does not say how much it can.
const NV_CHUNK_BYTES: usize = 512;
/// Longest nonce of a session, in bytes.
const NONCE_BYTES: usize = 16;
/// Most PCR values in one selection: 24 registers in a few banks.
const PCR_VALUES_MAX: usize = 96;

/// Who made the TPM, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmDescription {
    /// The maker's four letters in the TCG vendor registry, such as `IFX`.
    pub manufacturer: String,
    /// The firmware version.
    pub firmware: String,
}

impl fmt::Display for TpmDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, firmware {}", self.manufacturer, self.firmware)
    }
}

/// A key that is loaded or persistent.
#[derive(Clone, Debug)]
pub(super) struct LoadedKey {
    pub handle: Handle,
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// The same, read.
    pub area: PublicArea,
    /// Hash of the public area with its algorithm before it.
    pub name: Vec<u8>,
}

/// A key as `TPM2_Create` gives it: worthless without the TPM that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreatedKey {
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// What the TPM encrypted to itself.
    pub private: Vec<u8>,
}

/// A secret that only the TPM with the right two keys can read.
#[derive(Clone, Copy, Debug)]
pub struct Credential<'a> {
    /// `TPM2B_ID_OBJECT`, with its length: the secret, encrypted for the attestation key.
    pub id_object: &'a [u8],
    /// `TPM2B_ENCRYPTED_SECRET`, with its length: the seed of that encryption, encrypted to the endorsement key.
    pub encrypted_secret: &'a [u8],
}

impl Credential<'_> {
    /// True if both are what they should be in form.
    pub fn is_whole(&self) -> bool {
        [self.id_object, self.encrypted_secret].into_iter().all(|buffer| {
            let mut reader = Reader::new(buffer);
            reader.sized().is_ok_and(|content| !content.is_empty()) && reader.end().is_ok()
        })
    }
}

/// A statement of the TPM with the attestation key's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// `TPMS_ATTEST`.
    pub statement: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// One register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrValue {
    /// Its bank.
    pub hash: u16,
    /// Its number.
    pub index: u8,
    /// What it holds.
    pub digest: Vec<u8>,
}

impl OpenTpm<'_> {
    /// `TPM2_GetCapability`.
    pub(super) fn capability<T>(
        &mut self,
        capability: u32,
        first: u32,
        count: u32,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, TpmError> {
        let code = CommandCode::GetCapability;
        let parameters = Writer::default().long(capability).long(first).long(count);
        let answer = self.send(&plain(code, &[], parameters))?;
        parse(code, &answer, |reader| {
            let _more = reader.byte()?;
            if reader.long()? != capability {
                return Err(Malformed::Tag);
            }
            read(reader)
        })
    }

    /// One of the TPM's properties, where it has it.
    fn property(&mut self, property: u32) -> Result<Option<u32>, TpmError> {
        self.capability(capability::TPM_PROPERTIES, property, 1, |reader| {
            match reader.long()? {
                0 => Ok(None),
                1 => {
                    let (found, value) = (reader.long()?, reader.long()?);
                    Ok((found == property).then_some(value))
                }
                _ => Err(Malformed::TooMany),
            }
        })
    }

    /// Who made this TPM.
    pub fn describe(&mut self) -> Result<TpmDescription, TpmError> {
        let manufacturer = self.property(property::MANUFACTURER)?.unwrap_or_default();
        let high = self.property(property::FIRMWARE_VERSION_1)?.unwrap_or_default();
        let low = self.property(property::FIRMWARE_VERSION_2)?.unwrap_or_default();
        let letters = manufacturer.to_be_bytes();
        let letters = letters.iter().filter(|byte| byte.is_ascii_alphanumeric());
        Ok(TpmDescription {
            manufacturer: letters.map(|byte| char::from(*byte)).collect(),
            firmware: format!("{}.{}.{}.{}", high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF),
        })
    }

    /// `TPM2_CreatePrimary`: derives a key from the hierarchy's seed, the same each time.
    pub(super) fn create_primary(
        &mut self,
        hierarchy: Handle,
        template: &[u8],
    ) -> Result<LoadedKey, TpmError> {
        let code = CommandCode::CreatePrimary;
        let answer = self.send(&authorized(code, &[hierarchy], creation(template)))?;
        let handle = made(code, &answer)?;
        let public = parse(code, &answer, |reader| {
            let public = reader.sized()?.to_vec();
            // Creation data, its hash, and the ticket: nothing here needs them.
            let (_data, _hash) = (reader.sized()?, reader.sized()?);
            let (_tag, _hierarchy, _digest) = (reader.short()?, reader.long()?, reader.sized()?);
            let name = reader.sized()?.to_vec();
            Ok((public, name))
        })?;
        loaded(code, handle, public)
    }

    /// `TPM2_Create`: a fresh key under a storage key.
    pub(super) fn create(&mut self, parent: Handle, template: &[u8]) -> Result<CreatedKey, TpmError> {
        let code = CommandCode::Create;
        let answer = self.send(&authorized(code, &[parent], creation(template)))?;
        parse(code, &answer, |reader| {
            let private = reader.sized()?.to_vec();
            let public = reader.sized()?.to_vec();
            let (_data, _hash) = (reader.sized()?, reader.sized()?);
            let (_tag, _hierarchy, _digest) = (reader.short()?, reader.long()?, reader.sized()?);
            Ok(CreatedKey { public, private })
        })
    }

    /// `TPM2_Load`.
    pub(super) fn load(&mut self, parent: Handle, key: &CreatedKey) -> Result<LoadedKey, TpmError> {
        let code = CommandCode::Load;
        let parameters = Writer::default().sized(&key.private).sized(&key.public);
        let answer = self.send(&authorized(code, &[parent], parameters))?;
        let handle = made(code, &answer)?;
        let name = parse(code, &answer, |reader| Ok(reader.sized()?.to_vec()))?;
        loaded(code, handle, (key.public.clone(), name))
    }

    /// `TPM2_ReadPublic`; `None` where there is no such object.
    pub(super) fn read_public(&mut self, handle: Handle) -> Result<Option<LoadedKey>, TpmError> {
        let code = CommandCode::ReadPublic;
        let answer = match self.send(&plain(code, &[handle], Writer::default())) {
            Err(error) if error.is_refusal(rc::HANDLE) => return Ok(None),
            answer => answer?,
        };
        let public = parse(code, &answer, |reader| {
            let (public, name) = (reader.sized()?.to_vec(), reader.sized()?.to_vec());
            let _qualified_name = reader.sized()?;
            Ok((public, name))
        })?;
        loaded(code, handle, public).map(Some)
    }

    /// `TPM2_StartAuthSession` for a policy, without encryption or a key that protects it: what passes on the bus between
    /// processor and chip is a secret that is used once, and bound to one enrollment.
    pub(super) fn start_policy_session(&mut self) -> Result<Handle, TpmError> {
        let code = CommandCode::StartAuthSession;
        let mut nonce = [0; NONCE_BYTES];
        // Without randomness, a nonce of zeros: nothing is encrypted or authenticated with it.
        let _ = aws_lc_rs::rand::fill(&mut nonce);
        let parameters = Writer::default().sized(&nonce).sized(&[]);
        let parameters = parameters
            .byte(SESSION_POLICY)
            .short(alg::NULL)
            .short(alg::SHA256);
        let answer = self.send(&plain(code, &[Handle::NULL, Handle::NULL], parameters))?;
        let handle = made(code, &answer)?;
        parse(code, &answer, |reader| reader.sized().map(|_| ()))?;
        Ok(handle)
    }

    /// `TPM2_PolicySecret`: the caller knows the hierarchy's authorization.
    pub(super) fn policy_secret(&mut self, authority: Handle, session: Handle) -> Result<(), TpmError> {
        let code = CommandCode::PolicySecret;
        // No nonce, command hash, policy reference or expiration.
        let parameters = Writer::default().sized(&[]).sized(&[]).sized(&[]).long(0);
        self.send(&authorized(code, &[authority, session], parameters))
            .map(|_| ())
    }

    /// `TPM2_ActivateCredential`: the secret that was encrypted to the endorsement key for this attestation key.
    pub(super) fn activate_credential(
        &mut self,
        attestation_key: Handle,
        endorsement: (Handle, Authorization),
        credential: Credential<'_>,
    ) -> Result<Vec<u8>, TpmError> {
        let code = CommandCode::ActivateCredential;
        let answer = self.send(&Command {
            code,
            handles: &[attestation_key, endorsement.0],
            authorizations: &[Authorization::Password, endorsement.1],
            parameters: Writer::default()
                .raw(credential.id_object)
                .raw(credential.encrypted_secret),
        })?;
        parse(code, &answer, |reader| Ok(reader.sized()?.to_vec()))
    }

    /// `TPM2_Certify`: the signer states that the key is in this TPM.
    pub(super) fn certify(
        &mut self,
        key: Handle,
        signer: Handle,
        nonce: &[u8],
    ) -> Result<Attested, TpmError> {
        let code = CommandCode::Certify;
        let parameters = Writer::default().sized(nonce).short(alg::NULL);
        let answer = self.send(&Command {
            code,
            handles: &[key, signer],
            authorizations: &[Authorization::Password, Authorization::Password],
            parameters,
        })?;
        attested(code, &answer)
    }

    /// `TPM2_Quote`: the signer states what the registers hold.
    pub(super) fn quote(
        &mut self,
        signer: Handle,
        nonce: &[u8],
        banks: &[PcrBank],
    ) -> Result<Attested, TpmError> {
        let code = CommandCode::Quote;
        let parameters = Writer::default().sized(nonce).short(alg::NULL);
        let parameters = write_pcr_selection(parameters, banks);
        let answer = self.send(&authorized(code, &[signer], parameters))?;
        attested(code, &answer)
    }

    /// `TPM2_PCR_Read`, as often as it takes: a TPM answers eight registers at a time. A register that the TPM does not
    /// have is left out.
    pub(super) fn read_pcrs(&mut self, banks: &[PcrBank]) -> Result<Vec<PcrValue>, TpmError> {
        let mut values: Vec<PcrValue> = Vec::new();
        for bank in banks {
            let mut wanted = bank.indexes();
            while !wanted.is_empty() && values.len() < PCR_VALUES_MAX {
                let read = self.read_some_pcrs(&PcrBank::new(bank.hash, &wanted))?;
                if read.is_empty() {
                    break;
                }
                wanted.retain(|index| read.iter().all(|value| value.index != *index));
                values.extend(read);
            }
        }
        Ok(values)
    }

    fn read_some_pcrs(&mut self, bank: &PcrBank) -> Result<Vec<PcrValue>, TpmError> {
        let code = CommandCode::PcrRead;
        let parameters = write_pcr_selection(Writer::default(), std::slice::from_ref(bank));
        let answer = self.send(&plain(code, &[], parameters))?;
        parse(code, &answer, |reader| {
            let _updates = reader.long()?;
            let selected = read_pcr_selection(reader)?;
            let count = usize::try_from(reader.long()?).map_err(|_| Malformed::TooMany)?;
            let indexes: Vec<u8> = match selected.as_slice() {
                [] => Vec::new(),
                [found] if found.hash == bank.hash => found.indexes(),
                _ => return Err(Malformed::Algorithm),
            };
            if count != indexes.len() || indexes.iter().any(|index| !bank.indexes().contains(index)) {
                return Err(Malformed::TooMany);
            }
            let hash = bank.hash;
            let value = |index| {
                let digest = reader.sized()?.to_vec();
                Ok(PcrValue { hash, index, digest })
            };
            indexes.into_iter().map(value).collect()
        })
    }

    /// `TPM2_Sign` of a SHA-256 digest by the key's own scheme. Returns the `TPMT_SIGNATURE`.
    pub(super) fn sign(&mut self, key: Handle, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        let code = CommandCode::Sign;
        let parameters = Writer::default().sized(digest).short(alg::NULL);
        // The ticket of a digest that the TPM did not make itself.
        let parameters = parameters.short(TAG_HASH_CHECK).long(Handle::NULL.0).sized(&[]);
        let answer = self.send(&authorized(code, &[key], parameters))?;
        Ok(answer.parameters)
    }

    /// `TPM2_NV_Read`, piece by piece; `None` where there is no such index or nobody but its owner may read it.
    pub(super) fn read_nv(&mut self, index: Handle) -> Result<Option<Vec<u8>>, TpmError> {
        let code = CommandCode::NvReadPublic;
        let answer = match self.send(&plain(code, &[index], Writer::default())) {
            Err(error) if error.is_refusal(rc::HANDLE) => return Ok(None),
            answer => answer?,
        };
        let (attributes, size) = parse(code, &answer, |reader| {
            let mut public = Reader::new(reader.sized()?);
            let (_index, _name_algorithm) = (public.long()?, public.short()?);
            let attributes = public.long()?;
            let _policy = public.sized()?;
            let size = usize::from(public.short()?);
            let _name = reader.sized()?;
            Ok((attributes, size))
        })?;
        let reader = if attributes & nv::AUTH_READ != 0 {
            index
        } else if attributes & nv::OWNER_READ != 0 {
            Handle::OWNER
        } else {
            return Ok(None);
        };
        if size > NV_BYTES_MAX {
            return Ok(None);
        }
        let chunk = self.property(property::NV_BUFFER_MAX)?;
        let chunk = chunk.and_then(|bytes| usize::try_from(bytes).ok());
        let chunk = chunk.unwrap_or(NV_CHUNK_BYTES).clamp(64, 2048);
        let mut content = Vec::with_capacity(size);
        while content.len() < size {
            let count = chunk.min(size - content.len());
            let read = self.read_nv_chunk((reader, index), count, content.len())?;
            content.extend(read);
        }
        Ok(Some(content))
    }

    fn read_nv_chunk(
        &mut self,
        (reader, index): (Handle, Handle),
        count: usize,
        offset: usize,
    ) -> Result<Vec<u8>, TpmError> {
        let code = CommandCode::NvRead;
        // Both are below NV_BYTES_MAX.
        let parameters = Writer::default().short(count as u16).short(offset as u16);
        let answer = self.send(&authorized(code, &[reader, index], parameters))?;
        parse(code, &answer, |reader| {
            let read = reader.sized()?;
            if read.len() == count {
                Ok(read.to_vec())
            } else {
                Err(Malformed::Size)
            }
        })
    }
}

/// A command without authorization.
fn plain<'a>(code: CommandCode, handles: &'a [Handle], parameters: Writer) -> Command<'a> {
    Command {
        code,
        handles,
        authorizations: &[],
        parameters,
    }
}

/// A command whose first handle is authorized by the empty password.
fn authorized<'a>(code: CommandCode, handles: &'a [Handle], parameters: Writer) -> Command<'a> {
    Command {
        code,
        handles,
        authorizations: &[Authorization::Password],
        parameters,
    }
}

/// Parameters of both creations: no authorization and no data of ours, the template, no outside information, no registers.
fn creation(template: &[u8]) -> Writer {
    let nothing = Writer::default().sized(&[]).sized(&[]).finish();
    Writer::default()
        .sized(&nothing)
        .sized(template)
        .sized(&[])
        .long(0)
}

/// Reads all parameters of an answer; nothing may be left.
fn parse<T>(
    code: CommandCode,
    answer: &Answer,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<T, TpmError> {
    let mut reader = Reader::new(&answer.parameters);
    let value = read(&mut reader).map_err(malformed(code))?;
    reader.end().map_err(malformed(code))?;
    Ok(value)
}

fn made(code: CommandCode, answer: &Answer) -> Result<Handle, TpmError> {
    answer.handle.ok_or_else(|| malformed(code)(Malformed::Truncated))
}

fn loaded(
    code: CommandCode,
    handle: Handle,
    (public, name): (Vec<u8>, Vec<u8>),
) -> Result<LoadedKey, TpmError> {
    let area = PublicArea::parse(&public).map_err(malformed(code))?;
    Ok(LoadedKey {
        handle,
        public,
        area,
        name,
    })
}

fn attested(code: CommandCode, answer: &Answer) -> Result<Attested, TpmError> {
    let mut reader = Reader::new(&answer.parameters);
    let statement = reader.sized().map_err(malformed(code))?.to_vec();
    let signature = reader.rest().to_vec();
    Ok(Attested { statement, signature })
}
