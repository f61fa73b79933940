//! The HTTP-Redirect binding (SAML Bindings, section 3.4): a message, deflated, in the query of an address.

use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use url::form_urlencoded::{byte_serialize, parse};

use crate::identity_provider::Endpoint;
use crate::key::{Certificate, SignatureAlgorithm, SigningKey, decode_base64};
use crate::reject::Reject;
use crate::xml::{DOCUMENT_BYTES_MAX, with_line_feeds};

/// Octets of the relay state (section 3.4.3).
pub const RELAY_STATE_BYTES_MAX: usize = 80;
/// Octets of a query that is read.
const QUERY_BYTES_MAX: usize = 16 * 1024;

/// Where to send the browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The whole address.
    pub url: String,
    /// The ID of the message, which its answer names.
    pub id: String,
}

/// Which parameter a message travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
}

impl Kind {
    fn parameter(self) -> &'static str {
        match self {
            Self::Request => "SAMLRequest",
            Self::Response => "SAMLResponse",
        }
    }
}

/// Makes the address. Where a key is given the query is signed (section 3.4.4.1).
pub(crate) fn address(
    kind: Kind,
    endpoint: &Endpoint,
    message: &str,
    relay_state: Option<&str>,
    key: Option<&SigningKey>,
) -> Result<String, Reject> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let packed = encoder
        .write_all(message.as_bytes())
        .and_then(|()| encoder.finish())
        .map_err(|_| Reject::Encoding)?;
    let mut query = String::new();
    append(&mut query, kind.parameter(), &STANDARD.encode(packed));
    if let Some(relay_state) = relay_state {
        if relay_state.len() > RELAY_STATE_BYTES_MAX {
            return Err(Reject::RelayState);
        }
        append(&mut query, "RelayState", relay_state);
    }
    if let Some(key) = key {
        append(&mut query, "SigAlg", key.algorithm().uri());
        let signature = key.sign(query.as_bytes())?;
        append(&mut query, "Signature", &STANDARD.encode(signature));
    }
    let separator = if endpoint.as_str().contains('?') { '&' } else { '?' };
    Ok(format!("{endpoint}{separator}{query}"))
}

fn append(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(name);
    query.push('=');
    query.extend(byte_serialize(value.as_bytes()));
}

/// A message that came in a query and is signed by one of the certificates.
#[derive(Debug)]
pub(crate) struct Received {
    pub message: Vec<u8>,
    pub relay_state: Option<String>,
}

/// Reads the query of an address as it was received, with its signature, which there has to be.
pub(crate) fn read(kind: Kind, query: &str, certificates: &[Certificate]) -> Result<Received, Reject> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(Reject::TooLarge);
    }
    let message = only(query, kind.parameter())?.ok_or(Reject::Encoding)?;
    let relay_state = only(query, "RelayState")?;
    let algorithm = only(query, "SigAlg")?.ok_or(Reject::ResponseUnsigned)?;
    let signature = only(query, "Signature")?.ok_or(Reject::ResponseUnsigned)?;
    // The octets as they came: another spelling of the same value is another signature (section 3.4.4.1).
    let relayed = relay_state.map_or(String::new(), |value| format!("&RelayState={value}"));
    let signed = format!("{}={message}{relayed}&SigAlg={algorithm}", kind.parameter());
    let how = SignatureAlgorithm::from_uri(&decoded(algorithm)?)?;
    let signature = decode_base64(&decoded(signature)?).ok_or(Reject::Encoding)?;
    if !certificates
        .iter()
        .any(|certificate| certificate.verifies(how, signed.as_bytes(), &signature))
    {
        return Err(Reject::SignatureInvalid);
    }
    Ok(Received {
        message: inflate(&decode_base64(&decoded(message)?).ok_or(Reject::Encoding)?)?,
        relay_state: relay_state.map(decoded).transpose()?,
    })
}

/// The value of a parameter as it came; twice is refused.
pub(crate) fn only<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, Reject> {
    let mut values = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Reject::Encoding),
    }
}

pub(crate) fn decoded(value: &str) -> Result<String, Reject> {
    parse(format!("v={value}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .ok_or(Reject::Encoding)
}

/// Unpacks at most as much as a document may have, with line feeds.
pub(crate) fn inflate(packed: &[u8]) -> Result<Vec<u8>, Reject> {
    let mut message = Vec::new();
    DeflateDecoder::new(packed)
        .take(DOCUMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut message)
        .map_err(|_| Reject::Encoding)?;
    if message.len() > DOCUMENT_BYTES_MAX {
        return Err(Reject::TooLarge);
    }
    Ok(with_line_feeds(&message).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_unpacks_to_more_than_is_read_is_cut_off() {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![b' '; 64 * DOCUMENT_BYTES_MAX]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(packed.len() < DOCUMENT_BYTES_MAX / 8);
        assert_eq!(inflate(&packed), Err(Reject::TooLarge));
        assert_eq!(inflate(b"\xff\xff\xff"), Err(Reject::Encoding));
    }

    #[test]
    fn a_parameter_that_is_given_twice_is_refused() {
        assert_eq!(only("a=1&b=2", "b"), Ok(Some("2")));
        assert_eq!(only("a=1", "b"), Ok(None));
        assert_eq!(only("b=1&b=2", "b"), Err(Reject::Encoding));
    }
}
