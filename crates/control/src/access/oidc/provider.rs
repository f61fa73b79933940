//! What an identity provider says of itself (OpenID Connect Discovery 1.0, section 4) and its keys, remembered for a while.

use std::sync::Arc;

use muster_model::ConnectionId;
use serde::Deserialize;

use super::{
    ConnectionSpec,
    jose::KeySet,
    web::{WebError, WebRequest},
};
use crate::{
    App,
    access::remembered::{AGAIN, FRESH, Remembered},
};

const URL_CHARS_MAX: usize = 2_000;

/// What is used of a provider's metadata. It may say more.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub jwks_uri: String,
    pub end_session_endpoint: Option<String>,
    /// RFC 9207, section 3.
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    pub backchannel_logout_supported: bool,
    pub code_challenge_methods_supported: Option<Vec<String>>,
    pub id_token_signing_alg_values_supported: Option<Vec<String>>,
}

/// Why a provider cannot be used, by the step at which that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("the issuer's metadata cannot be fetched: {0}")]
    Metadata(WebError),
    #[error("the issuer answered {0} where its metadata should be")]
    Status(u16),
    #[error("the issuer's metadata is not what OpenID Connect Discovery asks for: {0}")]
    Malformed(String),
    #[error(
        "the metadata is of the issuer {found}, and the connection's is {wanted}: they must be equal to the letter"
    )]
    Issuer { found: String, wanted: String },
    #[error("the issuer's keys cannot be fetched: {0}")]
    Keys(String),
}

/// What this process remembers of providers: each of a connection, as long as its issuer is the same.
#[derive(Debug, Default)]
pub struct Providers {
    metadata: Remembered<(ConnectionId, String), Metadata>,
    keys: Remembered<(ConnectionId, String), KeySet>,
}

/// Asks a provider for its metadata.
pub async fn fetch_metadata(app: &App, spec: &ConnectionSpec) -> Result<Metadata, ProviderError> {
    let base = spec.issuer.trim_end_matches('/');
    let request = WebRequest::get(format!("{base}/.well-known/openid-configuration"));
    let answer = super::send(app, request).await.map_err(ProviderError::Metadata)?;
    if answer.status != 200 {
        return Err(ProviderError::Status(answer.status));
    }
    read_metadata(&answer.body, &spec.issuer)
}

/// Reads metadata of this issuer. Every address in it must be one of the web, and safe where the issuer is.
fn read_metadata(bytes: &[u8], issuer: &str) -> Result<Metadata, ProviderError> {
    let malformed = |why: &str| ProviderError::Malformed(why.to_owned());
    let metadata: Metadata = serde_json::from_slice(bytes)
        .map_err(|_| malformed("it is not JSON with the members that it must have"))?;
    if metadata.issuer != issuer {
        return Err(ProviderError::Issuer {
            found: metadata.issuer.chars().take(200).collect(),
            wanted: issuer.to_owned(),
        });
    }
    let is_plain = issuer.starts_with("http://");
    let addresses = [
        Some(&metadata.authorization_endpoint),
        Some(&metadata.token_endpoint),
        Some(&metadata.jwks_uri),
        metadata.end_session_endpoint.as_ref(),
    ];
    for address in addresses.into_iter().flatten() {
        if !super::is_web_address(address, is_plain) || address.len() > URL_CHARS_MAX {
            return Err(malformed(
                "an address in it is none of the web, or not a safe one",
            ));
        }
    }
    let methods = metadata.code_challenge_methods_supported.as_deref();
    if methods.is_some_and(|methods| !methods.iter().any(|method| method == "S256")) {
        return Err(malformed("it does not know PKCE with S256"));
    }
    Ok(metadata)
}

/// Asks a provider for its keys.
pub async fn fetch_keys(app: &App, metadata: &Metadata) -> Result<KeySet, ProviderError> {
    let request = WebRequest::get(metadata.jwks_uri.clone());
    let answer = super::send(app, request)
        .await
        .map_err(|error| ProviderError::Keys(error.to_string()))?;
    if answer.status != 200 {
        return Err(ProviderError::Keys(format!("it answered {}", answer.status)));
    }
    let keys = KeySet::read(&answer.body)
        .ok_or_else(|| ProviderError::Keys("it answered something that is no set of keys".to_owned()))?;
    if keys.is_empty() {
        return Err(ProviderError::Keys(
            "none of them can check a signature that is accepted here".to_owned(),
        ));
    }
    Ok(keys)
}

/// A provider's metadata, remembered or fetched.
pub async fn metadata(
    app: &App,
    connection: ConnectionId,
    spec: &ConnectionSpec,
) -> Result<Arc<Metadata>, String> {
    let fetch = || {
        let (app, spec) = (app.clone(), spec.clone());
        async move {
            let fetched = fetch_metadata(&app, &spec).await;
            fetched.map_err(|error| error.to_string())
        }
    };
    let (key, when) = ((connection, spec.issuer.clone()), (FRESH, app.clock.now()));
    app.providers.metadata.get(key, when, fetch).await
}

/// A provider's keys, remembered or fetched. After `Newer` they are fetched again, unless that was just done.
pub async fn keys(
    app: &App,
    connection: ConnectionId,
    spec: &ConnectionSpec,
    metadata: &Arc<Metadata>,
    want: Want,
) -> Result<Arc<KeySet>, String> {
    let fetch = || {
        let (app, metadata) = (app.clone(), Arc::clone(metadata));
        async move {
            let fetched = fetch_keys(&app, &metadata).await;
            fetched.map_err(|error| error.to_string())
        }
    };
    let age_max = match want {
        Want::Any => FRESH,
        Want::Newer => AGAIN,
    };
    let (key, when) = ((connection, spec.issuer.clone()), (age_max, app.clock.now()));
    app.providers.keys.get(key, when, fetch).await
}

/// Which keys are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Any,
    /// A token names one that is not among those that are known.
    Newer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_with_an_address_that_is_none_is_refused() {
        let read = |text: &str| read_metadata(text.as_bytes(), "https://idp.example");
        let text = |token: &str, methods: &str| {
            format!(
                r#"{{"issuer":"https://idp.example","authorization_endpoint":"https://idp.example/auth",
                    "token_endpoint":"{token}","jwks_uri":"https://idp.example/jwks"{methods}}}"#
            )
        };
        assert!(read(&text("https://idp.example/token", "")).is_ok());
        let s256 = r#","code_challenge_methods_supported":["S256"]"#;
        assert!(read(&text("https://idp.example/token", s256)).is_ok());
        for wrong in [
            "http://idp.example/token",
            "javascript:alert(1)",
            "",
            "file:///etc/passwd",
            "https://a:b@idp.example/",
        ] {
            assert!(read(&text(wrong, "")).is_err(), "{wrong}");
        }
        let plain = r#","code_challenge_methods_supported":["plain"]"#;
        assert!(read(&text("https://idp.example/token", plain)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_no_metadata(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            proptest::prop_assert!(read_metadata(&bytes, "https://idp.example").is_err());
        }
    }
}
