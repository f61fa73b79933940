//! A key on a PKCS#11 token (OASIS PKCS#11 v2.40): found by its label, used with `CKM_ECDSA`, never read.

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{Pkcs11Settings, secret_in};
use crate::secrets::der;

/// prime256v1 as `CKA_EC_PARAMS` holds it: its object identifier, in DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// An uncompressed point as `CKA_EC_POINT` should hold it: an OCTET STRING of 65 bytes.
const POINT_HEAD: &[u8] = &[0x04, 0x41];

const AES_KEY_BYTES: std::ffi::c_ulong = 32;
/// Of AES-GCM (NIST SP 800-38D).
const NONCE_BYTES: usize = 12;
const TAG_BITS: std::ffi::c_ulong = 128;
/// Authenticated with what is wrapped, so that nothing else that the key sealed is taken for it.
const WRAPPED_FOR: &[u8] = b"muster sealing key v1";

/// A key of a token. The session is opened when it is first needed, and anew after a failure.
pub struct Pkcs11Key {
    settings: Option<Pkcs11Settings>,
    label: String,
    open: Mutex<Option<Open>>,
}

struct Open {
    session: Session,
    key: ObjectHandle,
}

impl Pkcs11Key {
    pub fn new(settings: Option<Pkcs11Settings>, label: String) -> Pkcs11Key {
        Pkcs11Key {
            settings,
            label,
            open: Mutex::new(None),
        }
    }

    /// Finds the key, or makes it, and answers its public point. Blocks.
    pub fn take_up(&self) -> Result<Vec<u8>, String> {
        let session = self.session()?;
        if self.find(&session, ObjectClass::PRIVATE_KEY)?.is_none() {
            self.make(&session).map_err(said)?;
        }
        let key = self
            .find(&session, ObjectClass::PRIVATE_KEY)?
            .ok_or("the token made a key and does not show it")?;
        self.check_custody(&session, key)?;
        let public = self
            .find(&session, ObjectClass::PUBLIC_KEY)?
            .ok_or("the token has no public key of this label")?;
        point_of(&session, public)
    }

    /// `ECDSA-Sig-Value` over a SHA-256 digest. Blocks.
    pub fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, String> {
        let mut open = self.open.lock();
        // A token that was pulled out and put back needs a new session: the second try is on a fresh one.
        for has_more in [true, false] {
            let held = match open.take() {
                Some(held) => held,
                None => self.open_key()?,
            };
            match held.session.sign(&Mechanism::Ecdsa, held.key, digest) {
                Ok(fixed) => {
                    *open = Some(held);
                    return der::ecdsa_signature(&fixed)
                        .ok_or_else(|| "the signature has no two halves".to_owned());
                }
                Err(error) if has_more => {
                    tracing::warn!(%error, label = self.label, "the token did not sign; trying a new session");
                }
                Err(error) => return Err(said(error)),
            }
        }
        Err("the token did not sign".to_owned())
    }

    /// Encrypts with an AES key of the token, which is made where there is none. Blocks. The result is the nonce and what is sealed.
    pub fn wrap(&self, plain: &[u8]) -> Result<Vec<u8>, String> {
        let session = self.session()?;
        if self.find(&session, ObjectClass::SECRET_KEY)?.is_none() {
            let template = [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::ValueLen(AES_KEY_BYTES.into()),
                Attribute::Label(self.label.clone().into_bytes()),
            ];
            session
                .generate_key(&Mechanism::AesKeyGen, &template)
                .map_err(said)?;
        }
        let key = self
            .find(&session, ObjectClass::SECRET_KEY)?
            .ok_or("the token made a key and does not show it")?;
        self.check_custody(&session, key)?;
        let mut nonce = crate::clock::random::<NONCE_BYTES>();
        let sealed = {
            let parameters = GcmParams::new(&mut nonce, WRAPPED_FOR, TAG_BITS.into()).map_err(said)?;
            session
                .encrypt(&Mechanism::AesGcm(parameters), key, plain)
                .map_err(said)?
        };
        // A token may have chosen the nonce itself.
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what [`Self::wrap`] made. Blocks.
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let (nonce, sealed) = wrapped
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or("what is wrapped is too short")?;
        let mut nonce = *nonce;
        let session = self.session()?;
        let key = self
            .find(&session, ObjectClass::SECRET_KEY)?
            .ok_or("the token has no secret key of this label")?;
        let parameters = GcmParams::new(&mut nonce, WRAPPED_FOR, TAG_BITS.into()).map_err(said)?;
        let plain = session.decrypt(&Mechanism::AesGcm(parameters), key, sealed);
        plain.map(Zeroizing::new).map_err(said)
    }

    fn open_key(&self) -> Result<Open, String> {
        let session = self.session()?;
        let key = self.find(&session, ObjectClass::PRIVATE_KEY)?;
        let key = key.ok_or("the token has no private key of this label")?;
        Ok(Open { session, key })
    }

    fn session(&self) -> Result<Session, String> {
        let settings = self
            .settings
            .as_ref()
            .ok_or("the settings name no PKCS#11 token")?;
        let module = Pkcs11::new(&settings.module).map_err(said)?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(said(error)),
        }
        let slots = module.get_slots_with_initialized_token().map_err(said)?;
        let slot = slots.into_iter().find(|slot| {
            module
                .get_token_info(*slot)
                .is_ok_and(|token| token.label() == settings.token)
        });
        let slot = slot.ok_or_else(|| format!("there is no token {:?}", settings.token))?;
        let session = module.open_rw_session(slot).map_err(said)?;
        let pin = AuthPin::from(secret_in(&settings.pin_file)?.as_str().to_owned());
        match session.login(UserType::User, Some(&pin)) {
            // Another session of this process is signed in, and so is the process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(error) => Err(said(error)),
        }
    }

    fn find(&self, session: &Session, class: ObjectClass) -> Result<Option<ObjectHandle>, String> {
        let template = [
            Attribute::Class(class),
            Attribute::Label(self.label.clone().into_bytes()),
            Attribute::Token(true),
        ];
        let found = session.find_objects(&template).map_err(said)?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(format!("the token has {} objects of this label", found.len())),
        }
    }

    fn make(&self, session: &Session) -> Result<(), Error> {
        let label = self.label.clone().into_bytes();
        let id = crate::clock::random::<8>().to_vec();
        let public = [
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::EcParams(P256.to_vec()),
            Attribute::Label(label.clone()),
            Attribute::Id(id.clone()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Label(label),
            Attribute::Id(id),
        ];
        session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .map(drop)
    }

    /// A key that can leave the token is no better than a file.
    fn check_custody(&self, session: &Session, key: ObjectHandle) -> Result<(), String> {
        let asked = [AttributeType::Sensitive, AttributeType::Extractable];
        let answered = session.get_attributes(key, &asked).map_err(said)?;
        let kept = answered.contains(&Attribute::Sensitive(true))
            && answered.contains(&Attribute::Extractable(false));
        if kept {
            Ok(())
        } else {
            Err("the key can be taken out of the token: make it sensitive and not extractable".to_owned())
        }
    }
}

fn point_of(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, String> {
    let asked = [AttributeType::EcParams, AttributeType::EcPoint];
    let mut point = None;
    for answered in session.get_attributes(public, &asked).map_err(said)? {
        match answered {
            Attribute::EcParams(curve) if curve != P256 => return Err("the key is not P-256".to_owned()),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            _ => {}
        }
    }
    let bytes = point.ok_or("the token does not say the public point")?;
    // Some tokens leave the OCTET STRING out.
    let point = match bytes.strip_prefix(POINT_HEAD) {
        Some(point) if bytes.len() == POINT_HEAD.len() + der::P256_POINT_BYTES => point.to_vec(),
        _ => bytes,
    };
    if der::is_point(&point) {
        Ok(point)
    } else {
        Err("the public point is not an uncompressed one of P-256".to_owned())
    }
}

fn said(error: Error) -> String {
    error.to_string()
}
