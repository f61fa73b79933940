//! What an attestation key signs (TPMS_ATTEST; TPM 2.0 Library, part 2, 10.12): certified keys and quotes.

use crate::key::{self, Scheme};
use crate::reject::Reject;
use crate::tpm::pcr::{PcrPolicy, pcr_digest};
use crate::tpm::public::{AttestationKey, DeviceKey};
use crate::tpm::wire::{self, Malformed, Reader};

/// Bytes of the bit map of one bank of registers that are read.
const SELECT_BYTES_MAX: u8 = 4;

/// What a quote says beside its registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteFacts {
    /// Milliseconds that the TPM has been powered; never goes back while `reset_count` stands.
    pub clock_ms: u64,
    /// How often the TPM was reset: grows with every boot.
    pub reset_count: u32,
    /// How often it resumed or restarted since the last reset.
    pub restart_count: u32,
    /// Whether no higher value of the clock was reported before.
    pub clock_safe: bool,
    /// The maker's firmware version.
    pub firmware_version: u64,
    /// The digest over the selected registers.
    pub pcr_digest: Vec<u8>,
}

struct Attest<'a> {
    kind: u16,
    extra_data: &'a [u8],
    clock_ms: u64,
    reset_count: u32,
    restart_count: u32,
    clock_safe: bool,
    firmware_version: u64,
    attested: Reader<'a>,
}

/// Verifies that the TPM of `ak` holds the device key (TPM2_Certify), for this challenge.
///
/// `attest` is TPMS_ATTEST, `signature` TPMT_SIGNATURE, `extra_data` the challenge that the device was to include.
pub fn verify_certify(
    ak: &AttestationKey,
    device: &DeviceKey,
    attest: &[u8],
    signature: &[u8],
    extra_data: &[u8],
) -> Result<(), Reject> {
    verify_signature(ak, attest, signature)?;
    certified(attest, device, extra_data)
}

/// Checks a certification whose signature has been verified.
pub(crate) fn certified(attest: &[u8], device: &DeviceKey, extra_data: &[u8]) -> Result<(), Reject> {
    let mut attest = read(attest, wire::TYPE_CERTIFY)?;
    check_nonce(&attest, extra_data)?;
    let mut names = || {
        let name = attest.attested.sized()?;
        attest.attested.sized()?;
        attest.attested.end()?;
        Ok(name)
    };
    let name = names().map_err(|Malformed| Reject::AttestMalformed)?;
    crate::equal(name, &device.name)
        .then_some(())
        .ok_or(Reject::CertifyName)
}

/// Verifies a quote (TPM2_Quote) over exactly the registers of `selection` of the SHA-256 bank, for this challenge, and
/// that the policy allows their values.
///
/// `values` holds the registers in ascending order, as many as `selection`.
pub fn verify_quote(
    ak: &AttestationKey,
    attest: &[u8],
    signature: &[u8],
    extra_data: &[u8],
    selection: &[u8],
    values: &[(u8, [u8; 32])],
    policy: &PcrPolicy,
) -> Result<QuoteFacts, Reject> {
    verify_signature(ak, attest, signature)?;
    let mut attest = read(attest, wire::TYPE_QUOTE)?;
    check_nonce(&attest, extra_data)?;
    let (selected, digest) = read_quote(&mut attest.attested).map_err(|Malformed| Reject::AttestMalformed)?;
    if Some(selected) != bits_of(selection) {
        return Err(Reject::QuoteSelection);
    }
    let ascending = values.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !ascending || bits_of_values(values) != Some(selected) {
        return Err(Reject::QuoteValues);
    }
    // The digest is made with the hash of the signing scheme (part 3, 18.4).
    let hash = match ak.scheme {
        Scheme::Ecdsa(hash) | Scheme::Pkcs1(hash) | Scheme::Pss(hash) => hash,
    };
    if !crate::equal(&pcr_digest(hash, values), digest) {
        return Err(Reject::QuoteValues);
    }
    if !policy.allows(values) {
        return Err(Reject::QuotePolicy);
    }
    Ok(QuoteFacts {
        clock_ms: attest.clock_ms,
        reset_count: attest.reset_count,
        restart_count: attest.restart_count,
        clock_safe: attest.clock_safe,
        firmware_version: attest.firmware_version,
        pcr_digest: digest.to_vec(),
    })
}

fn check_nonce(attest: &Attest<'_>, extra_data: &[u8]) -> Result<(), Reject> {
    crate::equal(attest.extra_data, extra_data)
        .then_some(())
        .ok_or(Reject::AttestNonce)
}

fn read(bytes: &[u8], kind: u16) -> Result<Attest<'_>, Reject> {
    let mut reader = Reader::new(bytes);
    // Before all else: without it a TPM made none of the rest.
    match reader.u32() {
        Ok(wire::MAGIC) => {}
        Ok(_) => return Err(Reject::AttestMagic),
        Err(Malformed) => return Err(Reject::AttestMalformed),
    }
    let attest = read_fields(reader).map_err(|Malformed| Reject::AttestMalformed)?;
    if attest.kind != kind {
        return Err(Reject::AttestType);
    }
    Ok(attest)
}

fn read_fields(mut reader: Reader<'_>) -> Result<Attest<'_>, Malformed> {
    let kind = reader.u16()?;
    let _qualified_signer = reader.sized()?;
    let extra_data = reader.sized()?;
    let clock_ms = reader.u64()?;
    let reset_count = reader.u32()?;
    let restart_count = reader.u32()?;
    let clock_safe = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    Ok(Attest {
        kind,
        extra_data,
        clock_ms,
        reset_count,
        restart_count,
        clock_safe,
        firmware_version: reader.u64()?,
        attested: reader,
    })
}

/// The bit map of the one selected bank, which is that of SHA-256, and the digest.
fn read_quote<'a>(attested: &mut Reader<'a>) -> Result<(u32, &'a [u8]), Malformed> {
    let banks = attested.u32()?;
    // Another bank beside it, or none, is another selection than was asked for.
    let mut selected = None;
    if banks > 16 {
        return Err(Malformed);
    }
    for _bank in 0..banks {
        let hash = attested.u16()?;
        let length = attested.u8()?;
        if length > SELECT_BYTES_MAX {
            return Err(Malformed);
        }
        let map = attested.take(usize::from(length))?;
        let bits = map
            .iter()
            .rev()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        selected = (banks == 1 && hash == wire::ALG_SHA256).then_some(bits);
    }
    let digest = attested.sized()?;
    attested.end()?;
    Ok((selected.unwrap_or(0), digest))
}

/// The bit map of register numbers; `None` if one is out of range or there is none.
fn bits_of(indexes: &[u8]) -> Option<u32> {
    let mut bits = 0_u32;
    for index in indexes {
        bits |= 1_u32.checked_shl(u32::from(*index))?;
    }
    (bits != 0).then_some(bits)
}

fn bits_of_values(values: &[(u8, [u8; 32])]) -> Option<u32> {
    let indexes: Vec<u8> = values.iter().map(|(index, _)| *index).collect();
    bits_of(&indexes)
}

fn verify_signature(ak: &AttestationKey, message: &[u8], signature: &[u8]) -> Result<(), Reject> {
    let (scheme, signature) = read_signature(signature)?;
    if scheme != ak.scheme {
        return Err(Reject::SignatureScheme);
    }
    ak.key
        .verifies(scheme, message, &signature)
        .then_some(())
        .ok_or(Reject::AttestSignature)
}

/// Reads TPMT_SIGNATURE: the scheme, and the signature in the form that [`key::PublicKey::verifies`] takes.
pub(crate) fn read_signature(bytes: &[u8]) -> Result<(Scheme, Vec<u8>), Reject> {
    let mut reader = Reader::new(bytes);
    let mut fields = || {
        let algorithm = reader.u16()?;
        let hash = reader.u16()?;
        let first = reader.sized()?;
        let second = if algorithm == wire::ALG_ECDSA {
            reader.sized()?
        } else {
            &[]
        };
        reader.end()?;
        Ok((algorithm, hash, first, second))
    };
    let (algorithm, hash, first, second) = fields().map_err(|Malformed| Reject::SignatureMalformed)?;
    let hash = wire::hash_of(hash).ok_or(Reject::SignatureScheme)?;
    match algorithm {
        wire::ALG_ECDSA => {
            let der = key::sequence(&[key::positive(first), key::positive(second)].concat());
            Ok((Scheme::Ecdsa(hash), der))
        }
        wire::ALG_RSASSA => Ok((Scheme::Pkcs1(hash), first.to_vec())),
        wire::ALG_RSAPSS => Ok((Scheme::Pss(hash), first.to_vec())),
        _ => Err(Reject::SignatureScheme),
    }
}
