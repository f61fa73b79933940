//! An ACME client by hand, every byte of which is the test's choice, and makers of the devices that attest to it.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_attest::{
    object::TpmStatement,
    testing::{
        AndroidMaker, AppleMaker, AppleProperties, EkKind, KeyDescription, KeyPair, Maker, SoftwareTpm,
        ak_certificate_spec, android_object, apple_object, tpm_object,
    },
};
use muster_trust::key::sha256;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    api::{Answer, Api, answer},
    device::{Door, logged, now},
    server::{AdminFile, Server},
};

/// Base64url without padding.
pub fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The roots of makers whose devices a tenant trusts, for as long as a test runs.
pub struct Makers {
    pub apple: AppleMaker,
    pub android: AndroidMaker,
    pub tpm: Maker,
}

/// What a maker's device proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Apple,
    AppleP384,
    Android,
    Tpm,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Apple, Kind::AppleP384, Kind::Android, Kind::Tpm];

    pub fn level(self) -> &'static str {
        match self {
            Kind::Apple | Kind::AppleP384 => "apple",
            Kind::Android => "android_tee",
            Kind::Tpm => "tpm2",
        }
    }
}

/// What an attestation is bound to.
pub struct Bound {
    /// The challenge's token.
    pub token: String,
    /// The key authorization.
    pub authorization: String,
}

/// A machine that is to be enrolled.
pub struct Machine {
    pub device_uuid: Uuid,
    pub serial: String,
}

/// An attestation object and the private key that it is of (PKCS#8, DER).
pub struct Attested {
    pub object: Vec<u8>,
    pub pkcs8: Vec<u8>,
}

impl Machine {
    pub fn new() -> Machine {
        let device_uuid = Uuid::new_v4();
        Machine {
            device_uuid,
            serial: format!("S{}", &device_uuid.simple().to_string()[..10]),
        }
    }

    /// A one-time identifier for this machine: what Apple calls ClientIdentifier.
    pub async fn identifier(&self, api: &Api) -> String {
        self.identifier_for(api, 300).await
    }

    pub async fn identifier_for(&self, api: &Api, ttl_seconds: i64) -> String {
        let asked = json!({
            "device_uuid": self.device_uuid,
            "serial": self.serial,
            "protocol": "acme",
            "ttl_seconds": ttl_seconds,
        });
        let made = api.post("/enrollment-tokens", &asked).await.expect(201);
        made["token"].as_str().expect("a token is text").to_owned()
    }

    pub fn properties(&self, bound: &Bound) -> AppleProperties {
        let udid = self.device_uuid.simple().to_string();
        AppleProperties::mac(&self.serial, &udid, sha256(bound.token.as_bytes()).as_bytes())
    }
}

impl Makers {
    /// Makers like no others, whom the tenant trusts from now on.
    pub async fn trusted_by(api: &Api) -> Makers {
        let makers = Makers {
            apple: AppleMaker::new(now()),
            android: AndroidMaker::new(now()),
            tpm: Maker::new("Test authority", now()),
        };
        let policy = json!({"policy": {
            "apple": {"roots_pem": makers.apple.root().pem()},
            "android": {"roots_pem": makers.android.root().pem()},
            "tpm": {"roots_pem": makers.tpm.root().pem()},
        }});
        answer(
            api.request(reqwest::Method::PUT, "/enrollment-policy")
                .json(&policy),
        )
        .await
        .ok();
        makers
    }

    /// What a genuine device of this kind answers.
    pub fn attest(&self, kind: Kind, machine: &Machine, bound: &Bound) -> Attested {
        match kind {
            Kind::Apple => self.apple(KeyPair::p256(), &machine.properties(bound)),
            Kind::AppleP384 => self.apple(KeyPair::p384(), &machine.properties(bound)),
            Kind::Android => self.android(machine, bound),
            Kind::Tpm => self.tpm(machine, bound),
        }
    }

    pub fn apple(&self, key: KeyPair, properties: &AppleProperties) -> Attested {
        let chain = self.apple.chain_for(key, properties);
        Attested {
            object: apple_object(&chain.x5c),
            pkcs8: chain.key.pkcs8().to_vec(),
        }
    }

    fn android(&self, machine: &Machine, bound: &Bound) -> Attested {
        const SERIAL_TAG: u32 = 713;
        let challenge = sha256(bound.authorization.as_bytes());
        let description = KeyDescription::genuine(challenge.as_bytes()).with_id(SERIAL_TAG, &machine.serial);
        let chain = self.android.chain(&description);
        Attested {
            object: android_object(&chain.x5c),
            pkcs8: chain.key.pkcs8().to_vec(),
        }
    }

    fn tpm(&self, machine: &Machine, bound: &Bound) -> Attested {
        self.tpm_named(Some(&machine.device_uuid.to_string()), bound)
    }

    /// A TPM whose attestation key the tenant's authority certified under this name.
    pub fn tpm_named(&self, identifier: Option<&str>, bound: &Bound) -> Attested {
        const ES256: i64 = -7;
        let tpm = SoftwareTpm::new(&self.tpm, EkKind::P256);
        let issuer = self.tpm.issuer();
        let certificate = issuer.issue(&ak_certificate_spec(tpm.ak_spki(), identifier, now()));
        let (cert_info, sig) = tpm.certify(sha256(bound.authorization.as_bytes()).as_bytes());
        let statement = TpmStatement {
            ver: "2.0".to_owned(),
            x5c: vec![certificate, issuer.certificate().to_vec()],
            alg: ES256,
            sig,
            cert_info,
            pub_area: tpm.device_public().to_vec(),
        };
        Attested {
            object: tpm_object(&statement),
            pkcs8: tpm.device_pkcs8().to_vec(),
        }
    }
}

/// A certificate request for a key that asks for nothing.
pub fn request_for(pkcs8: &[u8]) -> Vec<u8> {
    request_with(pkcs8, |_| {})
}

/// A certificate request for a key, bent.
pub fn request_with(pkcs8: &[u8], bend: impl FnOnce(&mut rcgen::CertificateParams)) -> Vec<u8> {
    let pair = rcgen::KeyPair::try_from(pkcs8).expect("it is a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are fine");
    bend(&mut parameters);
    let request = parameters.serialize_request(&pair).expect("it can be signed");
    request.der().to_vec()
}

/// An account of a tenant's ACME server.
pub struct Client {
    door: Door,
    pair: EcdsaKeyPair,
    /// `https://host:port/acme/tnt_…`.
    pub base: String,
    /// The account's URL.
    pub kid: String,
}

/// An order of a client, with the URLs of its parts.
#[derive(Debug, Clone)]
pub struct Order {
    pub url: String,
    pub finalize: String,
    pub authorization: String,
    pub challenge: String,
    pub token: String,
}

impl Client {
    /// A fresh account of the server's tenant.
    pub async fn new(admin: &AdminFile) -> Client {
        let mut client = Client::with_key(admin, KeyPair::p256().pkcs8());
        let made = client
            .send(
                &client.url("new-account"),
                "jwk",
                &json!({"termsOfServiceAgreed": true}),
            )
            .await;
        made.expect(201);
        client.kid = made.header("location").to_owned();
        client
    }

    /// A client that signs with this P-256 key and has no account.
    pub fn with_key(admin: &AdminFile, pkcs8: &[u8]) -> Client {
        let door = Door::of(admin);
        Client {
            base: format!("{}/acme/{}", door.url, admin.tenant),
            door,
            pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).expect("a P-256 key"),
            kid: String::new(),
        }
    }

    /// The same key at another tenant's server.
    pub fn at(&self, admin: &AdminFile) -> Client {
        let door = Door::of(admin);
        let base = format!("{}/acme/{}", door.url, admin.tenant);
        let pkcs8 = self.pair.to_pkcs8v1().expect("a key can be written");
        Client {
            kid: self.kid.replace(&self.base, &base),
            base,
            door,
            pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
                .expect("a P-256 key"),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    pub async fn nonce(&self) -> String {
        let answer = answer(self.door.http.head(self.url("new-nonce"))).await;
        answer.expect(200);
        answer.header("replay-nonce").to_owned()
    }

    pub fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
    }

    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let canonical = format!(
            "{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":{},\"y\":{}}}",
            jwk["x"], jwk["y"]
        );
        text(sha256(canonical.as_bytes()).as_bytes())
    }

    /// The header of a request that is right.
    pub async fn header(&self, url: &str, by: &str) -> Value {
        let mut header = json!({"alg": "ES256", "nonce": self.nonce().await, "url": url});
        match by {
            "jwk" => header["jwk"] = self.jwk(),
            _ => header["kid"] = json!(self.kid),
        }
        header
    }

    /// An envelope with this header and payload, signed.
    pub fn seal(&self, header: &Value, payload: &str) -> Value {
        let (protected, payload) = (text(header.to_string()), text(payload));
        let signed = format!("{protected}.{payload}");
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("a key signs");
        json!({"protected": protected, "payload": payload, "signature": text(signature)})
    }

    /// Posts a body as it is.
    pub async fn post_raw(&self, url: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.door.http.post(url).body(body);
        answer(request.header("content-type", "application/jose+json")).await
    }

    /// Posts a signed payload; `by` is `kid` or `jwk`.
    pub async fn send(&self, url: &str, by: &str, payload: &Value) -> Answer {
        let envelope = self.seal(&self.header(url, by).await, &payload.to_string());
        self.post_raw(url, envelope.to_string()).await
    }

    pub async fn post(&self, url: &str, payload: &Value) -> Answer {
        self.send(url, "kid", payload).await
    }

    /// POST-as-GET.
    pub async fn get(&self, url: &str) -> Answer {
        let envelope = self.seal(&self.header(url, "kid").await, "");
        self.post_raw(url, envelope.to_string()).await
    }

    pub async fn try_order(&self, identifier: &str) -> Answer {
        let asked = json!({"identifiers": [{"type": "permanent-identifier", "value": identifier}]});
        self.post(&self.url("new-order"), &asked).await
    }

    pub async fn order(&self, identifier: &str) -> Order {
        let made = self.try_order(identifier).await;
        let order = made.expect(201);
        let url_of = |value: &Value| value.as_str().expect("a URL is text").to_owned();
        let authorization = url_of(&order["authorizations"][0]);
        let challenge = self.get(&authorization).await.ok()["challenges"][0].clone();
        assert_eq!(challenge["type"], "device-attest-01");
        Order {
            url: made.header("location").to_owned(),
            finalize: url_of(&order["finalize"]),
            authorization,
            challenge: url_of(&challenge["url"]),
            token: url_of(&challenge["token"]),
        }
    }

    /// What an attestation for this order has to be bound to.
    pub fn bound(&self, order: &Order) -> Bound {
        Bound {
            authorization: format!("{}.{}", order.token, self.thumbprint()),
            token: order.token.clone(),
        }
    }

    pub async fn answer_challenge(&self, order: &Order, object: &[u8]) -> Answer {
        self.post(&order.challenge, &json!({"attObj": text(object)}))
            .await
    }

    pub async fn finalize(&self, order: &Order, request: &[u8]) -> Answer {
        self.post(&order.finalize, &json!({"csr": text(request)})).await
    }

    /// An order whose challenge was met by a genuine device.
    pub async fn ready(&self, makers: &Makers, machine: &Machine, identifier: &str) -> (Order, Attested) {
        let order = self.order(identifier).await;
        let attested = makers.attest(Kind::Apple, machine, &self.bound(&order));
        let met = self.answer_challenge(&order, &attested.object).await.ok();
        assert_eq!(met["status"], "valid", "{met}");
        (order, attested)
    }

    /// All of it; answers the certificate (DER) and its private key (PKCS#8).
    pub async fn enroll(&self, makers: &Makers, machine: &Machine, api: &Api) -> (Vec<u8>, Vec<u8>) {
        let identifier = machine.identifier(api).await;
        let (order, attested) = self.ready(makers, machine, &identifier).await;
        let done = self.finalize(&order, &request_for(&attested.pkcs8)).await.ok();
        assert_eq!(done["status"], "valid", "{done}");
        let chain = self.get(done["certificate"].as_str().expect("a URL")).await;
        assert_eq!(chain.header("content-type"), "application/pem-certificate-chain");
        (first_of(&chain.text()), attested.pkcs8)
    }
}

/// The first certificate of a PEM text, DER.
pub fn first_of(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let first = CertificateDer::from_pem_slice(pem.as_bytes()).expect("the chain begins with a certificate");
    first.to_vec()
}

/// A server with makers that its tenant trusts.
pub struct Site {
    pub server: Server,
    pub api: Api,
    pub makers: Makers,
}

impl Site {
    pub async fn start(options: super::server::Options) -> Site {
        let server = Server::start(options).await;
        let api = server.api().await;
        let makers = Makers::trusted_by(&api).await;
        Site { server, api, makers }
    }

    /// Imports a list of revoked Android keys that names none.
    pub async fn import_android_list(&self) {
        let request = self
            .api
            .request(reqwest::Method::PUT, "/enrollment-policy/android-status")
            .json(&json!({"entries": {}}));
        answer(request).await.ok();
    }

    pub async fn client(&self) -> Client {
        Client::new(&self.server.admin).await
    }

    /// The entries of the log with this action, oldest first, once there are `count`.
    pub async fn logged(&self, action: &str, count: usize) -> Vec<Value> {
        logged(&self.api, action, count).await
    }
}

/// Asserts a refusal under both of its names.
#[track_caller]
pub fn refused(what: &str, answer: &Answer, status: u16, kind: &str, code: &str) {
    let body = answer.json();
    let expected = format!("urn:ietf:params:acme:error:{kind}");
    assert_eq!(
        (answer.status, body["type"].as_str(), body["code"].as_str()),
        (status, Some(expected.as_str()), Some(code)),
        "{what}: {body}"
    );
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{what}"
    );
    assert!(
        !answer.header("replay-nonce").is_empty(),
        "{what}: a fresh nonce to go on with"
    );
}
