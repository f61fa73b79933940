//! Why a message was refused: a closed set, each with a code that never changes and a sentence for the operator's log.
//!
//! A browser is told no more than that sign-in failed: which check refused is for the log, so that nobody can search for a
//! message that passes.

use std::fmt;

macro_rules! rejects {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        /// Why a message, a piece of metadata or a key was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reject {
            $(#[doc = $meaning] $name,)*
        }

        /// Every code with its meaning, in the order of the page of documentation.
        pub const ALL_CODES: &[(&str, &str)] = &[$(($code, $meaning),)*];

        impl Reject {
            /// The stable code, such as `signature.invalid`.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What it means, in one sentence.
            pub fn meaning(&self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

rejects! {
    // Bytes, before anything is parsed.
    Encoding = "message.encoding", "The message is not base64, or what is packed in it does not unpack.";
    TooLarge = "xml.too_large", "The document, or its canonical form, is longer than is read.";
    NotUtf8 = "xml.not_utf8", "The document is not UTF-8, or declares another encoding.";
    Doctype = "xml.doctype", "The document has a DOCTYPE or another declaration.";
    ProcessingInstruction = "xml.processing_instruction", "The document holds a processing instruction.";
    Comment = "xml.comment", "The document holds a comment.";
    Cdata = "xml.cdata", "The document holds a CDATA section.";
    TooDeep = "xml.too_deep", "Elements are nested deeper than is read.";
    TooMany = "xml.too_many", "The document holds more elements, attributes or namespaces than are read.";
    NotWellFormed = "xml.not_well_formed", "The document is not well-formed XML with namespaces.";

    // Structure.
    UnexpectedElement = "structure.unexpected_element", "An element, attribute or text is missing, twice, or where it may not be.";
    NotAResponse = "structure.not_a_response", "The document is not a SAML response, or holds another one inside.";
    AssertionMissing = "structure.assertion_missing", "The response holds no assertion.";
    AssertionsMany = "structure.assertions_many", "The response holds more than one assertion, somewhere.";
    SignaturesMany = "structure.signatures_many", "There is a signature that is not that of the response or of the assertion.";
    DuplicateId = "structure.duplicate_id", "Two elements have the same ID.";
    IdMalformed = "structure.id_malformed", "An ID is missing, empty, or longer than is read.";
    Version = "structure.version", "The version is not 2.0.";
    TimeMalformed = "structure.time_malformed", "A time is not in the form 2026-11-23T21:00:00Z.";

    // Signatures.
    ResponseUnsigned = "signature.response_missing", "The response is not signed, and must be.";
    AssertionUnsigned = "signature.assertion_missing", "The assertion is not signed, and must be.";
    SignatureShape = "signature.shape", "The signature holds more or less than is accepted, such as objects or several references.";
    SignatureReference = "signature.reference", "The signature does not refer to the element that it stands in.";
    SignatureTransform = "signature.transform", "The signature transforms what it signs in a way that is not accepted.";
    SignatureAlgorithm = "signature.algorithm", "The signature or its digest is of an algorithm that is not accepted.";
    DigestMismatch = "signature.digest_mismatch", "The element is not what was signed.";
    SignatureInvalid = "signature.invalid", "The signature is by no certificate of the configured metadata.";

    // Encryption.
    EncryptionShape = "encryption.shape", "The encrypted assertion holds more or less than is accepted.";
    EncryptionAlgorithm = "encryption.algorithm", "The assertion is encrypted by an algorithm that is not accepted: only AES-GCM under RSA-OAEP is.";
    Decryption = "encryption.failed", "The assertion is encrypted for another key, or was changed.";
    EncryptionMissing = "encryption.missing", "The assertion is not encrypted, and must be.";

    // What the response says.
    StatusRequester = "status.requester", "The identity provider did not accept our request.";
    StatusResponder = "status.responder", "The identity provider failed, or refused to sign the person in.";
    StatusVersion = "status.version_mismatch", "The identity provider does not speak this version.";
    StatusOther = "status.other", "The identity provider answered with a status that is not success.";
    Issuer = "response.issuer", "The issuer is not the configured identity provider.";
    Destination = "response.destination", "The message is not addressed to this endpoint.";
    InResponseTo = "response.in_response_to", "The message does not answer the request that was sent.";
    Unsolicited = "response.unsolicited", "The message answers no request, and sign-in begins here alone.";
    IssueInstant = "response.issue_instant", "The message was made in the future, or too long ago.";

    // What the assertion says.
    SubjectMissing = "assertion.subject", "The assertion names nobody, or in a form that is not accepted.";
    Confirmation = "assertion.confirmation", "The subject is not confirmed by exactly one bearer confirmation.";
    Recipient = "assertion.recipient", "The assertion is for another recipient.";
    ConditionsMissing = "assertion.conditions", "The assertion has no conditions, or one that is not understood.";
    Audience = "assertion.audience", "The assertion is for another audience.";
    NotYetValid = "assertion.not_yet_valid", "The assertion is not valid yet.";
    Expired = "assertion.expired", "The assertion is no longer valid.";
    AuthnMissing = "assertion.authn_statement", "The assertion does not say when and how the person signed in, or says it more than once.";
    AuthnContext = "assertion.authn_context", "The person signed in by a method that was not asked for.";
    SessionExpired = "assertion.session_expired", "The session at the identity provider is over.";
    AttributesMany = "assertion.attributes", "There are more attributes or values than are read, or one attribute twice.";
    ValueTooLong = "assertion.value_too_long", "A name or a value is longer than is read.";

    // Metadata, keys, settings.
    MetadataShape = "metadata.shape", "The metadata is not the description of one SAML 2.0 identity provider.";
    MetadataExpired = "metadata.expired", "The metadata is no longer valid by its own word.";
    MetadataNoEndpoint = "metadata.endpoint", "The identity provider has no usable address for the redirect binding.";
    MetadataNoCertificate = "metadata.certificate_missing", "The metadata names no certificate for signatures.";
    CertificatesMany = "metadata.certificates_many", "The metadata names more certificates than are read.";
    CertificateMalformed = "certificate.malformed", "A certificate is longer than is read, or not an X.509 certificate.";
    KeyUnsupported = "key.unsupported", "A key is neither RSA of 2048 to 8192 bits nor on the curve P-256 or P-384.";
    Setting = "setting.invalid", "A setting of the service provider or of the profile is not usable.";
    RelayState = "setting.relay_state", "The relay state is longer than 80 bytes.";
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.meaning().trim_end_matches('.'), self.code())
    }
}

impl std::error::Error for Reject {}
