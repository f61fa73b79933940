//! The identity provider.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_model::Timestamp;
use rcgen::{CertificateParams, KeyPair, RsaKeySize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::c14n::{self, Form};
use crate::name::{
    ASSERTION, BEARER, DSIG, ENVELOPED_SIGNATURE, EXCLUSIVE_C14N, PROTOCOL, STATUS_SUCCESS, XENC,
};
use crate::xml::{self, Comments, attribute, escape};
use crate::{Certificate, DecryptionKey, Endpoint, IdentityProvider, ServiceProvider, SigningKey, sha256};

/// The name of the identity provider.
pub const IDENTITY_PROVIDER: &str = "https://idp.example.com/saml";
/// The name of the service provider.
pub const SERVICE_PROVIDER: &str = "https://mdm.example.com/saml/metadata";
const CONSUMER: &str = "https://mdm.example.com/saml/acs";
const LOGOUT: &str = "https://mdm.example.com/saml/logout";

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA of 2048 bits.
    Rsa,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
}

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Nothing.
    Nothing,
    /// The assertion.
    Assertion,
    /// The response.
    Response,
    /// The assertion, and then the response around it.
    Both,
}

/// A key pair in PKCS#8 and the certificate that names it.
pub fn signing_pair(kind: KeyKind) -> (Vec<u8>, Certificate) {
    let pair = match kind {
        KeyKind::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyKind::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
    }
    .expect("a key is generated");
    let certificate = CertificateParams::new(vec!["idp.example.com".to_owned()])
        .and_then(|parameters| parameters.self_signed(&pair))
        .expect("a certificate is issued");
    let certificate = Certificate::from_der(certificate.der()).expect("the certificate is acceptable");
    (pair.serialize_der(), certificate)
}

/// A key that assertions are encrypted for, with its certificate.
pub fn decryption_pair() -> (DecryptionKey, Certificate) {
    let (pkcs8, certificate) = signing_pair(KeyKind::Rsa);
    let key = DecryptionKey::from_pkcs8(&pkcs8).expect("the key is acceptable");
    (key, certificate)
}

/// An identity provider with a key of its own.
#[derive(Debug)]
pub struct Provider {
    pkcs8: Vec<u8>,
    key: SigningKey,
    certificate: Certificate,
}

/// What a response says. Each field is put into the XML as it is, so that tests can bend it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are named after the elements and attributes"
)]
pub struct Answer {
    pub version: String,
    pub status: String,
    pub issuer: String,
    pub destination: String,
    pub in_response_to: Option<String>,
    pub recipient: String,
    pub confirmation_in_response_to: Option<String>,
    pub confirmation_method: String,
    pub name_id: String,
    pub audiences: Vec<String>,
    pub issued: Timestamp,
    pub not_before: Timestamp,
    pub not_on_or_after: Timestamp,
    pub confirmed_until: Timestamp,
    pub session_not_on_or_after: Option<Timestamp>,
    pub authn_instant: Timestamp,
    pub authn_context: String,
    pub conditions: String,
    pub attributes: Vec<(String, Vec<String>)>,
    pub assertion_id: String,
    pub session_index: String,
    pub name_id_format: String,
}

impl Answer {
    /// A right answer to a request.
    pub fn to(request: &str, now: Timestamp) -> Self {
        let minutes = |minutes: u64| now.plus(std::time::Duration::from_secs(60 * minutes));
        Self {
            version: "2.0".to_owned(),
            status: STATUS_SUCCESS.to_owned(),
            issuer: IDENTITY_PROVIDER.to_owned(),
            destination: CONSUMER.to_owned(),
            in_response_to: Some(request.to_owned()),
            recipient: CONSUMER.to_owned(),
            confirmation_in_response_to: Some(request.to_owned()),
            confirmation_method: BEARER.to_owned(),
            name_id: "alice".to_owned(),
            audiences: vec![SERVICE_PROVIDER.to_owned()],
            issued: now,
            not_before: now,
            not_on_or_after: minutes(5),
            confirmed_until: minutes(5),
            session_not_on_or_after: Some(minutes(480)),
            authn_instant: now,
            authn_context: "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport".to_owned(),
            conditions: String::new(),
            attributes: vec![
                ("email".to_owned(), vec!["alice@example.com".to_owned()]),
                (
                    "groups".to_owned(),
                    vec!["mdm-admins".to_owned(), "tenant:finance".to_owned()],
                ),
            ],
            assertion_id: "_assertion".to_owned(),
            session_index: "_session".to_owned(),
            name_id_format: "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent".to_owned(),
        }
    }

    fn assertion(&self) -> String {
        let audiences: String = self
            .audiences
            .iter()
            .map(|audience| format!("<saml:Audience>{audience}</saml:Audience>"))
            .collect();
        let attributes: String = self
            .attributes
            .iter()
            .map(|(name, values)| {
                let values: String = values
                    .iter()
                    .map(|value| {
                        format!("<saml:AttributeValue xsi:type=\"xs:string\">{value}</saml:AttributeValue>")
                    })
                    .collect();
                format!("<saml:Attribute Name=\"{name}\">{values}</saml:Attribute>")
            })
            .collect();
        format!(
            "<saml:Assertion xmlns:saml=\"{ASSERTION}\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
             xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" ID=\"{id}\" Version=\"{version}\" IssueInstant=\"{issued}\">\
             <saml:Issuer>{issuer}</saml:Issuer>\
             <saml:Subject><saml:NameID Format=\"{format}\" \
             SPNameQualifier=\"{SERVICE_PROVIDER}\">{name_id}</saml:NameID>\
             <saml:SubjectConfirmation Method=\"{method}\"><saml:SubjectConfirmationData NotOnOrAfter=\"{confirmed}\" \
             Recipient=\"{recipient}\"{in_response_to}/></saml:SubjectConfirmation></saml:Subject>\
             <saml:Conditions NotBefore=\"{not_before}\" NotOnOrAfter=\"{not_on_or_after}\">\
             <saml:AudienceRestriction>{audiences}</saml:AudienceRestriction>{conditions}</saml:Conditions>\
             <saml:AuthnStatement AuthnInstant=\"{authn}\"{session_until} SessionIndex=\"{session}\"><saml:AuthnContext>\
             <saml:AuthnContextClassRef>{context}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>\
             <saml:AttributeStatement>{attributes}</saml:AttributeStatement></saml:Assertion>",
            id = self.assertion_id,
            format = self.name_id_format,
            session = self.session_index,
            version = self.version,
            issued = self.issued,
            issuer = self.issuer,
            name_id = self.name_id,
            method = self.confirmation_method,
            confirmed = self.confirmed_until,
            recipient = self.recipient,
            in_response_to = optional("InResponseTo", self.confirmation_in_response_to.as_deref()),
            not_before = self.not_before,
            not_on_or_after = self.not_on_or_after,
            conditions = self.conditions,
            authn = self.authn_instant,
            session_until = optional(
                "SessionNotOnOrAfter",
                self.session_not_on_or_after
                    .map(|until| until.to_string())
                    .as_deref()
            ),
            context = self.authn_context,
        )
    }

    fn response(&self, carried: &str) -> String {
        format!(
            "<samlp:Response xmlns:samlp=\"{PROTOCOL}\" xmlns:saml=\"{ASSERTION}\" ID=\"_response\" \
             Version=\"{version}\" IssueInstant=\"{issued}\" Destination=\"{destination}\"{in_response_to}>\
             <saml:Issuer>{issuer}</saml:Issuer>\
             <samlp:Status><samlp:StatusCode Value=\"{status}\"/></samlp:Status>{carried}</samlp:Response>",
            version = self.version,
            issued = self.issued,
            destination = self.destination,
            in_response_to = optional("InResponseTo", self.in_response_to.as_deref()),
            issuer = self.issuer,
            status = self.status,
        )
    }
}

fn optional(name: &str, value: Option<&str>) -> String {
    value.map_or(String::new(), |value| format!(" {name}=\"{}\"", escape(value)))
}

impl Provider {
    /// With a new key.
    pub fn new(kind: KeyKind) -> Self {
        let (pkcs8, certificate) = signing_pair(kind);
        let key = SigningKey::from_pkcs8(&pkcs8).expect("the key is acceptable");
        Self {
            pkcs8,
            key,
            certificate,
        }
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its key, in PKCS#8.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// As the service provider knows it.
    pub fn known(&self) -> IdentityProvider {
        let endpoint =
            |path: &str| Endpoint::parse(&format!("https://idp.example.com/{path}")).expect("an address");
        IdentityProvider::new(IDENTITY_PROVIDER, endpoint("sso"), vec![self.certificate.clone()])
            .expect("the identity provider is acceptable")
            .with_single_logout(endpoint("slo"))
    }

    /// The service provider that the answers are for.
    pub fn service_provider() -> ServiceProvider {
        ServiceProvider::new(SERVICE_PROVIDER, Endpoint::parse(CONSUMER).expect("an address"))
            .expect("the service provider is acceptable")
            .with_single_logout(Endpoint::parse(LOGOUT).expect("an address"))
    }

    /// The response in XML.
    pub fn respond(&self, answer: &Answer, sign: Sign) -> String {
        let assertion = self.assertion(answer, sign);
        self.wrap(answer, &assertion, sign)
    }

    /// The response in XML around what is given instead of an assertion.
    pub fn respond_with(&self, answer: &Answer, carried: &str, sign: Sign) -> String {
        self.wrap(answer, carried, sign)
    }

    /// The response in XML, with the assertion encrypted for a certificate.
    pub fn respond_encrypted(&self, answer: &Answer, sign: Sign, recipient: &Certificate) -> String {
        let assertion = self.assertion(answer, sign);
        self.wrap(answer, &encrypt(assertion.as_bytes(), recipient), sign)
    }

    /// An assertion in XML.
    pub fn assertion(&self, answer: &Answer, sign: Sign) -> String {
        match sign {
            Sign::Assertion | Sign::Both => self.sign_element(&answer.assertion(), &answer.assertion_id),
            Sign::Nothing | Sign::Response => answer.assertion(),
        }
    }

    fn wrap(&self, answer: &Answer, carried: &str, sign: Sign) -> String {
        let response = answer.response(carried);
        match sign {
            Sign::Response | Sign::Both => self.sign_element(&response, "_response"),
            Sign::Nothing | Sign::Assertion => response,
        }
    }

    /// Signs the root element of a document, which has that ID: the signature follows its issuer.
    pub fn sign_element(&self, source: &str, id: &str) -> String {
        self.sign_element_as(source, id, "")
    }

    /// The same, with `InclusiveNamespaces` of these prefixes.
    pub fn sign_element_as(&self, source: &str, id: &str, prefixes: &str) -> String {
        self.sign_element_with(source, id, prefixes, |signed_info| signed_info)
    }

    /// The same, with a `SignedInfo` that is changed before it is signed: a right signature that says something else.
    pub fn sign_element_with(
        &self,
        source: &str,
        id: &str,
        prefixes: &str,
        change: impl FnOnce(String) -> String,
    ) -> String {
        let document =
            xml::parse(source.as_bytes(), Comments::Refused).expect("what is signed is within the limits");
        let root = document.root_element();
        assert_eq!(attribute(root, "ID"), Some(id), "the element has the ID");
        let inclusive: Vec<String> = prefixes.split_ascii_whitespace().map(str::to_owned).collect();
        let form = Form {
            without: None,
            inclusive: &inclusive,
        };
        let canonical = c14n::canonicalize(root, &form).expect("what is signed is within the limits");
        let list = if prefixes.is_empty() {
            String::new()
        } else {
            format!("<ec:InclusiveNamespaces xmlns:ec=\"{EXCLUSIVE_C14N}\" PrefixList=\"{prefixes}\"/>")
        };
        let signed_info = format!(
            "<ds:SignedInfo xmlns:ds=\"{DSIG}\"><ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE_C14N}\"></ds:CanonicalizationMethod>\
             <ds:SignatureMethod Algorithm=\"{}\"></ds:SignatureMethod><ds:Reference URI=\"#{id}\"><ds:Transforms>\
             <ds:Transform Algorithm=\"{ENVELOPED_SIGNATURE}\"></ds:Transform>\
             <ds:Transform Algorithm=\"{EXCLUSIVE_C14N}\">{list}</ds:Transform></ds:Transforms>\
             <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"></ds:DigestMethod>\
             <ds:DigestValue>{}</ds:DigestValue></ds:Reference></ds:SignedInfo>",
            self.key.algorithm().uri(),
            STANDARD.encode(sha256(&canonical)),
        );
        let signed_info = change(signed_info);
        let parsed = xml::parse(signed_info.as_bytes(), Comments::Refused).expect("SignedInfo is XML");
        let form = Form {
            without: None,
            inclusive: &[],
        };
        let to_sign = c14n::canonicalize(parsed.root_element(), &form).expect("SignedInfo is short");
        let value = STANDARD.encode(self.key.sign(&to_sign).expect("the key signs"));
        let certificate = STANDARD.encode(self.certificate.der());
        let signature = format!(
            "<ds:Signature xmlns:ds=\"{DSIG}\">{signed_info}<ds:SignatureValue>{value}</ds:SignatureValue><ds:KeyInfo>\
             <ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>"
        );
        let issuer = root.first_element_child().expect("there is an issuer");
        let mut signed = source.to_owned();
        signed.insert_str(issuer.range().end, &signature);
        signed
    }

    /// Makes the query of an address for the redirect binding, signed.
    pub fn query(&self, parameter: &str, message: &str, relay_state: Option<&str>) -> String {
        let endpoint = Endpoint::parse("https://x.example").expect("an address");
        let kind = if parameter == "SAMLRequest" {
            crate::redirect::Kind::Request
        } else {
            crate::redirect::Kind::Response
        };
        let address = crate::redirect::address(kind, &endpoint, message, relay_state, Some(&self.key));
        let address = address.expect("the message fits");
        address.split_once('?').expect("there is a query").1.to_owned()
    }
}

/// The message in an address of the redirect binding, whoever signed it.
pub fn message_of(url: &str, parameter: &str) -> String {
    let query = url.split_once('?').expect("there is a query").1;
    let value = crate::redirect::only(query, parameter).expect("it is there once");
    let packed = crate::redirect::decoded(value.expect("it is there")).expect("it is encoded");
    let packed = STANDARD.decode(packed).expect("it is base64");
    String::from_utf8(crate::redirect::inflate(&packed).expect("it unpacks")).expect("it is text")
}

/// Encrypts the octets of an assertion: AES-256-GCM, its key under RSA-OAEP.
pub fn encrypt(assertion: &[u8], recipient: &Certificate) -> String {
    // One message per key and process: neither repeats.
    let mut material = [0; 44];
    aws_lc_rs::rand::fill(&mut material).expect("there is randomness");
    let (key, nonce) = material.split_at(32);
    let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 octets are a key"));
    let mut sealed = assertion.to_vec();
    let unique = Nonce::try_assume_unique_for_key(nonce).expect("12 octets are a nonce");
    sealing
        .seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
        .expect("it is sealed");
    let sealed = [nonce, &sealed].concat();

    let (_, certificate) = X509Certificate::from_der(recipient.der()).expect("it was read before");
    let public = PublicEncryptingKey::from_der(certificate.public_key().raw).expect("an RSA key");
    let public = OaepPublicEncryptingKey::new(public).expect("an RSA key");
    let mut wrapped = vec![0; public.ciphertext_size()];
    let wrapped = public
        .encrypt(&OAEP_SHA1_MGF1SHA1, key, &mut wrapped, None)
        .expect("the key fits");
    format!(
        "<saml:EncryptedAssertion><xenc:EncryptedData xmlns:xenc=\"{XENC}\" Type=\"{XENC}Element\">\
         <xenc:EncryptionMethod Algorithm=\"http://www.w3.org/2009/xmlenc11#aes256-gcm\"/>\
         <ds:KeyInfo xmlns:ds=\"{DSIG}\"><xenc:EncryptedKey>\
         <xenc:EncryptionMethod Algorithm=\"{XENC}rsa-oaep-mgf1p\"/>\
         <xenc:CipherData><xenc:CipherValue>{}</xenc:CipherValue></xenc:CipherData></xenc:EncryptedKey></ds:KeyInfo>\
         <xenc:CipherData><xenc:CipherValue>{}</xenc:CipherValue></xenc:CipherData></xenc:EncryptedData>\
         </saml:EncryptedAssertion>",
        STANDARD.encode(wrapped),
        STANDARD.encode(sealed),
    )
}
