//! A TPM in software: endorsement key, attestation key and device key in memory, and the few commands that an enrollment
//! needs. Making one costs three keys on curves, so a farm can have thousands.

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384};
use aws_lc_rs::cipher::{AES_128, AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use muster_model::time::Timestamp;

use crate::anchors::Anchors;
use crate::key::{Curve, Hash, PublicKey};
use crate::testing::authority::{Authority, CertificateSpec, KeyPair};
use crate::testing::der;
use crate::tpm::wire::{self, put_sized};
use crate::tpm::{Credential, EkParameters, IDENTITY, integrity, kdf_a, kdf_e};

const REGISTERS: usize = 24;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA.
const BORN_INSIDE: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const SIGN: u32 = 1 << 18;

/// A manufacturer of TPMs: a root and an authority below it that certifies endorsement keys.
pub struct Maker {
    root: Authority,
    issuer: Authority,
    now: Timestamp,
}

/// The kind of an endorsement key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EkKind {
    /// On P-256: the cheapest to make.
    P256,
    /// On P-384.
    P384,
    /// RSA of 2048 bits: takes a tenth of a second to make.
    Rsa2048,
}

enum EkKey {
    Curve(Curve, agreement::PrivateKey),
    Rsa(OaepPrivateDecryptingKey),
}

/// A TPM in software.
pub struct SoftwareTpm {
    ek: EkKey,
    ek_public: PublicKey,
    ek_certificates: Vec<Vec<u8>>,
    ak: EcdsaKeyPair,
    ak_spki: Vec<u8>,
    ak_public: Vec<u8>,
    device: KeyPair,
    device_public: Vec<u8>,
    /// The registers of the SHA-256 bank.
    pub registers: [[u8; 32]; REGISTERS],
    /// Milliseconds since it was powered.
    pub clock_ms: u64,
    /// Boots so far.
    pub reset_count: u32,
}

/// What a TPM answers to TPM2_Quote, with the registers read beside it.
#[derive(Debug, Clone)]
pub struct Quote {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The quoted registers, ascending.
    pub values: Vec<(u8, [u8; 32])>,
}

/// A public area on P-256, with every field that matters open to bending.
#[derive(Debug, Clone)]
pub struct PublicArea {
    /// TPMA_OBJECT.
    pub attributes: u32,
    /// Hash of the name.
    pub name_algorithm: u16,
    /// TPM_ALG_ECDSA, TPM_ALG_NULL or another.
    pub scheme: u16,
    /// Hash of the scheme, unless that is TPM_ALG_NULL.
    pub scheme_hash: u16,
    /// TPM_ECC_CURVE.
    pub curve: u16,
    /// Both coordinates.
    pub point: Vec<u8>,
}

impl PublicArea {
    /// That of an attestation key; `point` is uncompressed.
    pub fn attestation(point: &[u8]) -> Self {
        Self {
            attributes: BORN_INSIDE | RESTRICTED | SIGN,
            name_algorithm: wire::ALG_SHA256,
            scheme: wire::ALG_ECDSA,
            scheme_hash: wire::ALG_SHA256,
            curve: wire::CURVE_P256,
            point: point[1..].to_vec(),
        }
    }

    /// That of a device key; `point` is uncompressed.
    pub fn device(point: &[u8]) -> Self {
        Self {
            attributes: BORN_INSIDE | SIGN,
            ..Self::attestation(point)
        }
    }

    /// TPMT_PUBLIC.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(wire::ALG_ECC.to_be_bytes());
        out.extend(self.name_algorithm.to_be_bytes());
        out.extend(self.attributes.to_be_bytes());
        put_sized(&mut out, &[]);
        out.extend(wire::ALG_NULL.to_be_bytes());
        out.extend(self.scheme.to_be_bytes());
        if self.scheme != wire::ALG_NULL {
            out.extend(self.scheme_hash.to_be_bytes());
        }
        out.extend(self.curve.to_be_bytes());
        out.extend(wire::ALG_NULL.to_be_bytes());
        let (x, y) = self.point.split_at(self.point.len() / 2);
        put_sized(&mut out, x);
        put_sized(&mut out, y);
        out
    }
}

impl Maker {
    /// A new manufacturer, whose certificates are valid around `now`.
    pub fn new(name: &str, now: Timestamp) -> Self {
        let root = Authority::root(der::common_name(&format!("{name} root")), now);
        let issuer = root.subordinate(der::common_name(&format!("{name} issuer")), now);
        Self { root, issuer, now }
    }

    /// What a tenant trusts to accept its TPMs.
    pub fn anchors(&self) -> Anchors {
        Anchors::from_der(self.root.certificate()).expect("a root that was just made")
    }

    /// Its root.
    pub fn root(&self) -> &Authority {
        &self.root
    }

    /// The authority that certifies endorsement keys.
    pub fn issuer(&self) -> &Authority {
        &self.issuer
    }

    /// The certificate of an endorsement key, to be issued by [`Self::issuer`]: shaped as `swtpm_localca` shapes it.
    pub fn ek_certificate_spec(&self, spki: Vec<u8>) -> CertificateSpec {
        let attributes = der::name(&[
            ("2.23.133.2.1", "id:00001014"),
            ("2.23.133.2.2", "software"),
            ("2.23.133.2.3", "id:20260101"),
        ]);
        let alternative = der::sequence(&der::explicit(4, &attributes));
        CertificateSpec::leaf(der::sequence(&[]), spki, self.now)
            .with_key_usage(0x28)
            .with("2.5.29.17", true, alternative)
            .with_purpose("2.23.133.8.1")
    }
}

impl SoftwareTpm {
    /// A new TPM of this maker.
    pub fn new(maker: &Maker, kind: EkKind) -> Self {
        let (ek, ek_public) = make_ek(kind);
        let certificate = maker
            .issuer
            .issue(&maker.ek_certificate_spec(ek_public.to_spki()));
        let ak_pair = KeyPair::p256();
        let device = KeyPair::p256();
        Self {
            ek,
            ek_public,
            ek_certificates: vec![certificate, maker.issuer.certificate().to_vec()],
            ak: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ak_pair.pkcs8())
                .expect("a key that was just made"),
            ak_spki: ak_pair.spki(),
            ak_public: PublicArea::attestation(ak_pair.point()).encode(),
            device_public: PublicArea::device(device.point()).encode(),
            device,
            registers: [[0; 32]; REGISTERS],
            clock_ms: 60_000,
            reset_count: 1,
        }
    }

    /// Makes another attestation key and another device key, as a machine does that was installed anew: the endorsement key
    /// stays.
    pub fn make_fresh_keys(&mut self) {
        let ak_pair = KeyPair::p256();
        self.ak = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ak_pair.pkcs8())
            .expect("a key that was just made");
        self.ak_spki = ak_pair.spki();
        self.ak_public = PublicArea::attestation(ak_pair.point()).encode();
        self.device = KeyPair::p256();
        self.device_public = PublicArea::device(self.device.point()).encode();
    }

    /// The certificate of the endorsement key and that of its issuer.
    pub fn ek_certificates(&self) -> &[Vec<u8>] {
        &self.ek_certificates
    }

    /// The SubjectPublicKeyInfo of the endorsement key.
    pub fn ek_spki(&self) -> Vec<u8> {
        self.ek_public.to_spki()
    }

    /// TPMT_PUBLIC of the attestation key.
    pub fn ak_public(&self) -> &[u8] {
        &self.ak_public
    }

    /// The SubjectPublicKeyInfo of the attestation key.
    pub fn ak_spki(&self) -> &[u8] {
        &self.ak_spki
    }

    /// TPMT_PUBLIC of the device key.
    pub fn device_public(&self) -> &[u8] {
        &self.device_public
    }

    /// The SubjectPublicKeyInfo of the device key.
    pub fn device_spki(&self) -> Vec<u8> {
        self.device.spki()
    }

    /// The private device key, which no real TPM gives away: for a TLS stack that wants a file.
    pub fn device_pkcs8(&self) -> &[u8] {
        self.device.pkcs8()
    }

    /// Signs with the device key: ECDSA with SHA-256 in the form of RFC 3279.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.device.sign(message)
    }

    /// TPM2_ActivateCredential: the secret, if the credential is for this TPM and its attestation key.
    pub fn activate(&self, credential: &Credential) -> Option<[u8; 32]> {
        let name = name_of(&self.ak_public);
        self.activate_for(credential, &name)
    }

    /// The same for a key of another name, as if it were loaded.
    pub fn activate_for(&self, credential: &Credential, name: &[u8]) -> Option<[u8; 32]> {
        let parameters = EkParameters::of(&self.ek_public);
        let seed = self.seed(parameters, unsized_part(&credential.encrypted_secret)?)?;
        let protected = unsized_part(&credential.id_object)?;
        let mut reader = wire::Reader::new(protected);
        let mac = reader.sized().ok()?;
        let mut identity = protected.get(2 + mac.len()..)?.to_vec();
        if integrity(parameters, &seed, &identity, name) != mac {
            return None;
        }
        let key = kdf_a(
            parameters.hash,
            &seed,
            b"STORAGE",
            name,
            parameters.symmetric_bytes,
        );
        let algorithm = if parameters.symmetric_bytes == 16 {
            &AES_128
        } else {
            &AES_256
        };
        let key = DecryptingKey::cfb128(UnboundCipherKey::new(algorithm, &key).ok()?).ok()?;
        let context = DecryptionContext::Iv128(FixedLength::from([0; 16]));
        let plain = key.decrypt(&mut identity, context).ok()?;
        unsized_part(plain)?.try_into().ok()
    }

    /// TPM2_Certify of the device key by the attestation key: TPMS_ATTEST and TPMT_SIGNATURE.
    pub fn certify(&self, extra_data: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let attest = certify_attest(
            &name_of(&self.device_public),
            extra_data,
            self.clock_ms,
            self.reset_count,
        );
        let signature = self.sign_attest(&attest);
        (attest, signature)
    }

    /// TPM2_Quote over registers of the SHA-256 bank.
    pub fn quote(&self, extra_data: &[u8], selection: &[u8]) -> Quote {
        let mut selection = selection.to_vec();
        selection.sort_unstable();
        selection.dedup();
        let values: Vec<(u8, [u8; 32])> = selection
            .iter()
            .map(|index| (*index, self.registers[usize::from(*index)]))
            .collect();
        let attest = quote_attest(&values, extra_data, self.clock_ms, self.reset_count);
        let signature = self.sign_attest(&attest);
        Quote {
            attest,
            signature,
            values,
        }
    }

    /// Signs any bytes with the attestation key, which a real TPM refuses: for bent structures. TPMT_SIGNATURE.
    pub fn sign_attest(&self, attest: &[u8]) -> Vec<u8> {
        let signature = self.ak.sign(&SystemRandom::new(), attest).expect("a key signs");
        let (r, s) = signature.as_ref().split_at(32);
        let mut out = wire::ALG_ECDSA.to_be_bytes().to_vec();
        out.extend(wire::ALG_SHA256.to_be_bytes());
        put_sized(&mut out, r);
        put_sized(&mut out, s);
        out
    }

    /// TPM2_PCR_Extend.
    pub fn extend(&mut self, index: u8, digest: &[u8; 32]) {
        let register = &mut self.registers[usize::from(index)];
        *register = crate::sha256(&[&register[..], digest].concat());
    }

    fn seed(&self, parameters: EkParameters, encrypted: &[u8]) -> Option<Vec<u8>> {
        match &self.ek {
            EkKey::Rsa(key) => {
                let mut plain = vec![0; key.min_output_size()];
                let seed = key
                    .decrypt(&OAEP_SHA256_MGF1SHA256, encrypted, &mut plain, Some(IDENTITY))
                    .ok()?;
                Some(seed.to_vec())
            }
            EkKey::Curve(curve, key) => {
                let mut reader = wire::Reader::new(encrypted);
                let (x, y) = (reader.sized().ok()?, reader.sized().ok()?);
                let point = [&[4][..], x, y].concat();
                let own = key.compute_public_key().ok()?;
                let own_x = own.as_ref().get(1..=curve.octets())?;
                let peer = agreement::UnparsedPublicKey::new(ecdh_of(*curve), point);
                agreement::agree(key, peer, (), |z| Ok(kdf_e(parameters, z, x, own_x))).ok()
            }
        }
    }
}

/// TPMS_ATTEST of a certified key.
pub fn certify_attest(name: &[u8], extra_data: &[u8], clock_ms: u64, reset_count: u32) -> Vec<u8> {
    let mut out = attest_head(wire::TYPE_CERTIFY, extra_data, clock_ms, reset_count);
    put_sized(&mut out, name);
    put_sized(&mut out, name);
    out
}

/// TPMS_ATTEST of a quote over registers of the SHA-256 bank, signed with SHA-256.
pub fn quote_attest(
    values: &[(u8, [u8; 32])],
    extra_data: &[u8],
    clock_ms: u64,
    reset_count: u32,
) -> Vec<u8> {
    let mut out = attest_head(wire::TYPE_QUOTE, extra_data, clock_ms, reset_count);
    out.extend(1_u32.to_be_bytes());
    out.extend(wire::ALG_SHA256.to_be_bytes());
    let mut map = [0_u8; 3];
    for (index, _) in values {
        map[usize::from(index / 8)] |= 1 << (index % 8);
    }
    out.push(map.len() as u8);
    out.extend(map);
    let all: Vec<u8> = values.iter().flat_map(|(_, value)| *value).collect();
    put_sized(&mut out, &Hash::Sha256.of(&all));
    out
}

/// The certificate of an attestation key as an attestation authority issues it, with a permanent identifier if given.
pub fn ak_certificate_spec(ak_spki: &[u8], identifier: Option<&str>, now: Timestamp) -> CertificateSpec {
    let spec = CertificateSpec::leaf(der::sequence(&[]), ak_spki.to_vec(), now).with_purpose("2.23.133.8.3");
    let Some(identifier) = identifier else {
        return spec;
    };
    let value = der::sequence(&der::tlv(0x0c, identifier.as_bytes()));
    let other = [
        der::oid(&der::oid_octets("1.3.6.1.5.5.7.8.3")),
        der::explicit(0, &value),
    ]
    .concat();
    spec.with("2.5.29.17", true, der::sequence(&der::explicit(0, &other)))
}

fn attest_head(kind: u16, extra_data: &[u8], clock_ms: u64, reset_count: u32) -> Vec<u8> {
    let mut out = wire::MAGIC.to_be_bytes().to_vec();
    out.extend(kind.to_be_bytes());
    put_sized(&mut out, &[0; 34]);
    put_sized(&mut out, extra_data);
    out.extend(clock_ms.to_be_bytes());
    out.extend(reset_count.to_be_bytes());
    out.extend(0_u32.to_be_bytes());
    out.push(1);
    out.extend(0x2026_0101_0000_0000_u64.to_be_bytes());
    out
}

fn make_ek(kind: EkKind) -> (EkKey, PublicKey) {
    let curve = match kind {
        EkKind::P256 => Curve::P256,
        EkKind::P384 => Curve::P384,
        EkKind::Rsa2048 => {
            let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key is made");
            let spki = key.public_key().as_der().expect("a key has an encoding");
            let public = PublicKey::from_spki(spki.as_ref()).expect("a key that was just made");
            let key = OaepPrivateDecryptingKey::new(key).expect("a key that was just made");
            return (EkKey::Rsa(key), public);
        }
    };
    let key = agreement::PrivateKey::generate(ecdh_of(curve)).expect("a key is made");
    let point = key.compute_public_key().expect("a key has a public half");
    let public = PublicKey::from_point(curve, point.as_ref()).expect("a point of its curve");
    (EkKey::Curve(curve, key), public)
}

fn ecdh_of(curve: Curve) -> &'static agreement::Algorithm {
    match curve {
        Curve::P256 => &ECDH_P256,
        Curve::P384 => &ECDH_P384,
    }
}

/// The name of a public area whose name algorithm is SHA-256.
fn name_of(public: &[u8]) -> Vec<u8> {
    let mut name = wire::ALG_SHA256.to_be_bytes().to_vec();
    name.extend(crate::sha256(public));
    name
}

/// The contents of a TPM2B that is all there is.
fn unsized_part(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = wire::Reader::new(bytes);
    let part = reader.sized().ok()?;
    reader.end().ok()?;
    Some(part)
}
