//! Android Key Attestation chains, with every field of the description open to bending.

use muster_model::time::Timestamp;

use crate::anchors::Anchors;
use crate::testing::authority::{Authority, CertificateSpec, KeyPair};
use crate::testing::der;

const OID_KEY_DESCRIPTION: &str = "1.3.6.1.4.1.11129.2.1.17";
const OID_PROVISIONING: &str = "1.3.6.1.4.1.11129.2.1.30";
const NAME_SERIAL: &str = "2.5.4.5";

/// The authorities above a device's attested keys.
pub struct AndroidMaker {
    root: Authority,
    intermediate: Authority,
    attestation: Authority,
    now: Timestamp,
}

/// An attested key and its chain.
pub struct AndroidChain {
    /// Leaf, attestation key, intermediate, root.
    pub x5c: Vec<Vec<u8>>,
    /// The attested key.
    pub key: KeyPair,
}

/// The boot state in a description.
#[derive(Debug, Clone)]
pub struct RootOfTrust {
    /// Hash of the verifying key.
    pub boot_key: Vec<u8>,
    /// Whether the bootloader is locked.
    pub device_locked: bool,
    /// 0 verified, 1 self-signed, 2 unverified, 3 failed.
    pub boot_state: u8,
    /// Hash of all that was verified.
    pub boot_hash: Option<Vec<u8>>,
}

/// KeyDescription.
#[derive(Debug, Clone)]
pub struct KeyDescription {
    /// Version of the attestation.
    pub attestation_version: u64,
    /// 0 software, 1 TEE, 2 StrongBox.
    pub attestation_level: u8,
    /// The same for the key.
    pub key_level: u8,
    /// The challenge.
    pub challenge: Vec<u8>,
    /// 0 generated, 2 imported.
    pub origin: Option<u64>,
    /// The boot state.
    pub root_of_trust: Option<RootOfTrust>,
    /// Version of the system.
    pub os_version: Option<u64>,
    /// Security patch of the system.
    pub os_patch_level: Option<u64>,
    /// Further entries that the hardware vouches for: tag and value, such as identifiers.
    pub hardware: Vec<(u32, Vec<u8>)>,
    /// Further entries that only software vouches for.
    pub software: Vec<(u32, Vec<u8>)>,
}

impl KeyDescription {
    /// A key in the TEE of a locked, verified device.
    pub fn genuine(challenge: &[u8]) -> Self {
        Self {
            attestation_version: 300,
            attestation_level: 1,
            key_level: 1,
            challenge: challenge.to_vec(),
            origin: Some(0),
            root_of_trust: Some(RootOfTrust {
                boot_key: vec![7; 32],
                device_locked: true,
                boot_state: 0,
                boot_hash: Some(vec![8; 32]),
            }),
            os_version: Some(160_000),
            os_patch_level: Some(202_609),
            hardware: Vec::new(),
            software: Vec::new(),
        }
    }

    /// With an identifier, such as tag 713 for the serial number.
    pub fn with_id(mut self, tag: u32, text: &str) -> Self {
        self.hardware.push((tag, der::octets(text.as_bytes())));
        self
    }

    /// Made by an application.
    pub fn made_by(mut self, package: &str, signer: &[u8; 32]) -> Self {
        let info = der::sequence(&[der::octets(package.as_bytes()), der::integer(1)].concat());
        let application = der::sequence(&[der::set(&info), der::set(&der::octets(signer))].concat());
        self.software.push((709, der::octets(&application)));
        self
    }

    /// The contents of the extension.
    pub fn encode(&self) -> Vec<u8> {
        let mut hardware = vec![(1, der::set(&der::integer(2))), (2, der::integer(3))];
        hardware.extend(self.origin.map(|origin| (702, der::integer(origin))));
        hardware.extend(self.root_of_trust.as_ref().map(|root| (704, root.encode())));
        hardware.extend(self.os_version.map(|version| (705, der::integer(version))));
        hardware.extend(self.os_patch_level.map(|level| (706, der::integer(level))));
        hardware.extend(self.hardware.iter().cloned());
        der::sequence(
            &[
                der::integer(self.attestation_version),
                der::enumerated(self.attestation_level),
                der::integer(self.attestation_version),
                der::enumerated(self.key_level),
                der::octets(&self.challenge),
                der::octets(&[]),
                list(&self.software),
                list(&hardware),
            ]
            .concat(),
        )
    }
}

impl RootOfTrust {
    fn encode(&self) -> Vec<u8> {
        der::sequence(
            &[
                der::octets(&self.boot_key),
                der::boolean(self.device_locked),
                der::enumerated(self.boot_state),
                self.boot_hash
                    .as_ref()
                    .map(|hash| der::octets(hash))
                    .unwrap_or_default(),
            ]
            .concat(),
        )
    }
}

fn list(entries: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries
        .iter()
        .flat_map(|(tag, value)| der::explicit(*tag, value))
        .collect();
    der::sequence(&entries)
}

impl AndroidMaker {
    /// A device whose keys are provisioned remotely.
    pub fn new(now: Timestamp) -> Self {
        let intermediate = der::name(&[("2.5.4.3", "Droid CA2"), ("2.5.4.10", "Google LLC")]);
        let root = Authority::root(der::name(&[(NAME_SERIAL, "f92009e853b6b045")]), now);
        // The provisioning service says in the certificate how many it issued.
        Self::below(root, intermediate, now, |spec| {
            spec.with(OID_PROVISIONING, false, vec![0xa1, 0x01, 0x05])
        })
    }

    /// A device with keys from the factory, whose attestation key is no authority.
    pub fn factory(now: Timestamp) -> Self {
        let intermediate = der::name(&[(NAME_SERIAL, "87f4514475ba0a2b"), ("2.5.4.12", "TEE")]);
        let root = Authority::root(der::name(&[(NAME_SERIAL, "f92009e853b6b045")]), now);
        Self::below(root, intermediate, now, |spec| {
            spec.without("2.5.29.19")
                .with("2.5.29.19", true, der::sequence(&[]))
                .with_key_usage(0x80)
        })
    }

    /// A device below this root, whose attestation key's certificate is bent.
    pub fn below(
        root: Authority,
        intermediate: Vec<u8>,
        now: Timestamp,
        bend: impl FnOnce(CertificateSpec) -> CertificateSpec,
    ) -> Self {
        let intermediate = root.subordinate(intermediate, now);
        let attestation = intermediate.subordinate_bent(der::common_name("attestation"), now, bend);
        Self {
            root,
            intermediate,
            attestation,
            now,
        }
    }

    /// What a tenant trusts to accept its devices.
    pub fn anchors(&self) -> Anchors {
        Anchors::from_der(self.root.certificate()).expect("a root that was just made")
    }

    /// Its root.
    pub fn root(&self) -> &Authority {
        &self.root
    }

    /// The authority below the root.
    pub fn intermediate(&self) -> &Authority {
        &self.intermediate
    }

    /// The attestation key.
    pub fn attestation(&self) -> &Authority {
        &self.attestation
    }

    /// A new key with this description.
    pub fn chain(&self, description: &KeyDescription) -> AndroidChain {
        self.chain_bent(description, |spec| spec)
    }

    /// A new key with this description, whose certificate is bent.
    pub fn chain_bent(
        &self,
        description: &KeyDescription,
        bend: impl FnOnce(CertificateSpec) -> CertificateSpec,
    ) -> AndroidChain {
        let key = KeyPair::p256();
        let mut spec = CertificateSpec::bare(der::common_name("Android Keystore Key"), key.spki(), self.now)
            .with_key_usage(0x80)
            .with(OID_KEY_DESCRIPTION, false, description.encode());
        // A device without a clock: what Android writes there.
        spec.not_before = Timestamp::from_unix_seconds(0);
        spec.not_after = Timestamp::from_unix_seconds(2_461_449_600);
        let leaf = self.attestation.issue(&bend(spec));
        let issuers = [&self.attestation, &self.intermediate, &self.root];
        let mut x5c = vec![leaf];
        x5c.extend(issuers.map(|issuer| issuer.certificate().to_vec()));
        AndroidChain { x5c, key }
    }
}
