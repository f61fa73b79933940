//! Credential protection (TPM 2.0 Library, part 1, 24; TPM2_MakeCredential in part 3, 12.6): a secret that only the TPM
//! which holds the endorsement key can read, and only while it holds the attestation key of a given name.

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepPublicEncryptingKey, PublicEncryptingKey,
};

use crate::key::{Curve, Hash, PublicKey};
use crate::reject::Reject;
use crate::tpm::endorsement::Endorsement;
use crate::tpm::public::AttestationKey;
use crate::tpm::wire::put_sized;

/// Bytes of entropy that [`make_credential`] takes.
pub const ENTROPY_BYTES: usize = 48;
/// The label of the seed, with its terminating zero.
pub(crate) const IDENTITY: &[u8] = b"IDENTITY\0";
const RSA_MODULUS_BYTES_SMALL: usize = 256;

/// What a TPM needs for TPM2_ActivateCredential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// TPM2B_ID_OBJECT.
    pub id_object: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
}

/// What the TCG's default templates say of an endorsement key of a kind (EK Credential Profile 2.5, B.3 and B.4).
///
/// A client's word for them is never taken: a weaker hash would be its choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EkParameters {
    pub hash: Hash,
    pub symmetric_bytes: usize,
}

impl EkParameters {
    pub fn of(key: &PublicKey) -> Self {
        let strong = match key {
            PublicKey::Rsa { modulus, .. } => modulus.len() > RSA_MODULUS_BYTES_SMALL,
            PublicKey::Ec { curve, .. } => *curve == Curve::P384,
        };
        if strong {
            Self {
                hash: Hash::Sha384,
                symmetric_bytes: 32,
            }
        } else {
            Self {
                hash: Hash::Sha256,
                symmetric_bytes: 16,
            }
        }
    }

    pub fn hash_bytes(self) -> usize {
        self.hash.algorithm().output_len()
    }
}

/// Encrypts `secret` to the TPM of `ek`, bound to the name of `ak`.
///
/// `entropy` must be fresh and uniformly random: it is the seed of an RSA key's credential (whose OAEP padding draws its
/// own randomness) and the ephemeral private key of a curve's. One in about 2^32 such keys is out of range:
/// [`Reject::CredentialEntropy`].
pub fn make_credential(
    ek: &Endorsement,
    ak: &AttestationKey,
    secret: &[u8; 32],
    entropy: &[u8; ENTROPY_BYTES],
) -> Result<Credential, Reject> {
    let parameters = EkParameters::of(&ek.public);
    let (seed, encrypted_seed) = match &ek.public {
        PublicKey::Rsa { .. } => seed_to_rsa(ek, parameters, entropy)?,
        PublicKey::Ec { curve, point } => seed_to_curve(*curve, point, parameters, entropy)?,
    };
    let mut identity = Vec::with_capacity(2 + secret.len());
    put_sized(&mut identity, secret);
    encrypt(parameters, &seed, &ak.name, &mut identity)?;
    let mac = integrity(parameters, &seed, &identity, &ak.name);

    let mut protected = Vec::new();
    put_sized(&mut protected, &mac);
    protected.extend_from_slice(&identity);
    let mut id_object = Vec::new();
    put_sized(&mut id_object, &protected);
    let mut encrypted_secret = Vec::new();
    put_sized(&mut encrypted_secret, &encrypted_seed);
    Ok(Credential {
        id_object,
        encrypted_secret,
    })
}

/// What a device that has activated the credential answers: HMAC-SHA-256 of the transcript under the secret.
pub fn activation_proof(secret: &[u8; 32], transcript: &[u8]) -> [u8; 32] {
    let mut proof = [0; 32];
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    proof.copy_from_slice(hmac::sign(&key, transcript).as_ref());
    proof
}

/// Checks a device's answer, in time that does not depend on it.
pub fn verify_activation(secret: &[u8; 32], transcript: &[u8], proof: &[u8]) -> Result<(), Reject> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, transcript, proof).map_err(|_| Reject::ActivationProof)
}

fn seed_to_rsa(
    ek: &Endorsement,
    parameters: EkParameters,
    entropy: &[u8; ENTROPY_BYTES],
) -> Result<(Vec<u8>, Vec<u8>), Reject> {
    let seed = entropy[..parameters.hash_bytes().min(ENTROPY_BYTES)].to_vec();
    let algorithm = match parameters.hash {
        Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        Hash::Sha384 | Hash::Sha512 => &OAEP_SHA384_MGF1SHA384,
    };
    let key = PublicEncryptingKey::from_der(&ek.spki_der)
        .ok()
        .and_then(|key| OaepPublicEncryptingKey::new(key).ok())
        .ok_or(Reject::CredentialKey)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let written = key
        .encrypt(algorithm, &seed, &mut ciphertext, Some(IDENTITY))
        .map_err(|_| Reject::CredentialKey)?
        .len();
    ciphertext.truncate(written);
    Ok((seed, ciphertext))
}

fn seed_to_curve(
    curve: Curve,
    point: &[u8],
    parameters: EkParameters,
    entropy: &[u8; ENTROPY_BYTES],
) -> Result<(Vec<u8>, Vec<u8>), Reject> {
    let algorithm = match curve {
        Curve::P256 => &ECDH_P256,
        Curve::P384 => &ECDH_P384,
    };
    let octets = curve.octets();
    let ephemeral = agreement::PrivateKey::from_private_key(algorithm, &entropy[..octets])
        .map_err(|_| Reject::CredentialEntropy)?;
    let public = ephemeral
        .compute_public_key()
        .map_err(|_| Reject::CredentialEntropy)?;
    // The point is uncompressed: an octet, then both coordinates.
    let (x, y) = public.as_ref()[1..].split_at(octets);
    let peer = agreement::UnparsedPublicKey::new(algorithm, point);
    let seed = agreement::agree(&ephemeral, peer, Reject::CredentialKey, |z| {
        Ok(kdf_e(parameters, z, x, &point[1..=octets]))
    })?;
    let mut encrypted = Vec::new();
    put_sized(&mut encrypted, x);
    put_sized(&mut encrypted, y);
    Ok((seed, encrypted))
}

fn encrypt(parameters: EkParameters, seed: &[u8], name: &[u8], identity: &mut [u8]) -> Result<(), Reject> {
    let key = kdf_a(
        parameters.hash,
        seed,
        b"STORAGE",
        name,
        parameters.symmetric_bytes,
    );
    let algorithm = if parameters.symmetric_bytes == 16 {
        &AES_128
    } else {
        &AES_256
    };
    let context = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    UnboundCipherKey::new(algorithm, &key)
        .and_then(EncryptingKey::cfb128)
        .and_then(|key| key.less_safe_encrypt(identity, context))
        .map(|_context| ())
        .map_err(|_| Reject::CredentialKey)
}

/// The HMAC over the encrypted identity and the name.
pub(crate) fn integrity(parameters: EkParameters, seed: &[u8], identity: &[u8], name: &[u8]) -> Vec<u8> {
    let key = kdf_a(parameters.hash, seed, b"INTEGRITY", &[], parameters.hash_bytes());
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac_of(parameters.hash), &key));
    context.update(identity);
    context.update(name);
    context.sign().as_ref().to_vec()
}

fn hmac_of(hash: Hash) -> hmac::Algorithm {
    match hash {
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    }
}

/// KDFa (part 1, 11.4.10.2): `bytes` bytes from a key, a label and a context. The second context is always empty here.
pub(crate) fn kdf_a(hash: Hash, key: &[u8], label: &[u8], context_u: &[u8], bytes: usize) -> Vec<u8> {
    let key = hmac::Key::new(hmac_of(hash), key);
    let bits = (bytes as u32 * 8).to_be_bytes();
    let mut out = Vec::new();
    let mut counter: u32 = 1;
    while out.len() < bytes {
        let mut context = hmac::Context::with_key(&key);
        context.update(&counter.to_be_bytes());
        context.update(label);
        context.update(&[0]);
        context.update(context_u);
        context.update(&bits);
        out.extend_from_slice(context.sign().as_ref());
        counter += 1;
    }
    out.truncate(bytes);
    out
}

/// KDFe (part 1, 11.4.10.3): a seed as long as the hash, from a shared secret and both x coordinates.
pub(crate) fn kdf_e(parameters: EkParameters, z: &[u8], party_u: &[u8], party_v: &[u8]) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(parameters.hash.algorithm());
    context.update(&1_u32.to_be_bytes());
    context.update(z);
    context.update(IDENTITY);
    context.update(party_u);
    context.update(party_v);
    context.finish().as_ref().to_vec()
}
