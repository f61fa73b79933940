//! Keys that others publish, remembered for a while: of issuers whose tokens are exchanged, and of service accounts.
//!
//! What is fetched is named by its address and by nothing else, so that a thousand trusts in one issuer fetch its keys once.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use crate::{
    App,
    access::{
        jose::{self, JoseError, KeySet, Signed},
        oidc::{self, WebRequest},
        remembered::{AGAIN, FRESH, Remembered},
    },
};

const URL_CHARS_MAX: usize = 2_000;

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A JWK set (RFC 7517) at this address.
    Set(String),
    /// Where the metadata of this issuer says (OpenID Connect Discovery 1.0, section 4; RFC 8414).
    Issuer(String),
}

/// What this process remembers of keys of others.
pub type Issuers = Remembered<Place, KeySet>;

/// Why a token of another was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbelieved {
    #[error("{0}")]
    Token(JoseError),
    /// Nothing about the token: its keys cannot be had.
    #[error("the keys cannot be fetched: {0}")]
    Keys(String),
}

/// Checks a token's signature by the keys at a place; they are fetched anew where the token names one that is not among them.
pub async fn open(app: &App, place: &Place, token: &str, types: &[&str]) -> Result<Signed, Unbelieved> {
    let keys = keys(app, place, FRESH).await.map_err(Unbelieved::Keys)?;
    let found = match jose::open(token, &keys, types) {
        Err(JoseError::UnknownKey) => {
            let newer = self::keys(app, place, AGAIN).await.map_err(Unbelieved::Keys)?;
            jose::open(token, &newer, types)
        }
        other => other,
    };
    found.map_err(Unbelieved::Token)
}

/// Keys that are not older than this, where they can be had.
async fn keys(app: &App, place: &Place, age_max: Duration) -> Result<Arc<KeySet>, String> {
    let fetch = || {
        let (app, place) = (app.clone(), place.clone());
        async move { fetch(&app, &place).await }
    };
    let when = (age_max, app.clock.now());
    app.issuers.get(place.clone(), when, fetch).await
}

async fn fetch(app: &App, place: &Place) -> Result<KeySet, String> {
    let address = match place {
        Place::Set(address) => address.clone(),
        Place::Issuer(issuer) => jwks_uri(app, issuer).await?,
    };
    let body = get(app, address).await?;
    let keys = KeySet::read(&body).ok_or("they are no JWK set")?;
    if keys.is_empty() {
        return Err("none of them can check a signature that is accepted here".to_owned());
    }
    Ok(keys)
}

async fn get(app: &App, address: String) -> Result<Vec<u8>, String> {
    let answer = oidc::send(app, WebRequest::get(address)).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status {
        200 => Ok(answer.body),
        other => Err(format!("the answer was {other}")),
    }
}

/// What is used of an issuer's metadata. Issuers of workloads have no more than this.
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

async fn jwks_uri(app: &App, issuer: &str) -> Result<String, String> {
    let base = issuer.trim_end_matches('/');
    let body = get(app, format!("{base}/.well-known/openid-configuration")).await?;
    read_metadata(&body, issuer)
}

fn read_metadata(bytes: &[u8], issuer: &str) -> Result<String, String> {
    let metadata: Metadata = serde_json::from_slice(bytes)
        .map_err(|_| "the issuer's metadata is not JSON with issuer and jwks_uri".to_owned())?;
    if metadata.issuer != issuer {
        return Err("the metadata is of another issuer: they must be equal to the letter".to_owned());
    }
    let is_plain = issuer.starts_with("http://");
    if metadata.jwks_uri.len() > URL_CHARS_MAX || !oidc::is_web_address(&metadata.jwks_uri, is_plain) {
        return Err("jwks_uri of the metadata is no address of the web, or not a safe one".to_owned());
    }
    Ok(metadata.jwks_uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_another_issuer_or_with_an_unsafe_address_is_refused() {
        let read = |issuer: &str, keys: &str| {
            let text = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{keys}","more":1}}"#);
            read_metadata(text.as_bytes(), "https://ci.example")
        };
        assert!(read("https://ci.example", "https://ci.example/keys").is_ok());
        for (issuer, keys) in [
            ("https://ci.example/", "https://ci.example/keys"),
            ("https://ci.example", "http://ci.example/keys"),
            ("https://ci.example", "file:///etc/passwd"),
            ("https://ci.example", "https://a:b@ci.example/"),
        ] {
            assert!(read(issuer, keys).is_err(), "{issuer} {keys}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_no_metadata(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            proptest::prop_assert!(read_metadata(&bytes, "https://ci.example").is_err());
        }
    }
}
