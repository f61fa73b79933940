//! Trying a connection step by step, and saying at which one it fails and what to do.

use super::{
    Connection, ConnectionSpec, flow, jose,
    provider::{self, Metadata, ProviderError},
    web::{WebError, WebRequest},
};
use crate::{
    App,
    access::{
        connection::{Checked, Outcome, checked, last_sign_in, sentence},
        problem::Problem,
    },
};

/// Tries a connection as far as that is possible without a person.
pub async fn probe(app: &App, connection: &Connection) -> Result<Vec<Checked>, Problem> {
    let spec = connection.oidc()?;
    let mut steps = Vec::new();
    let Some(metadata) = probe_metadata(app, &spec, &mut steps).await else {
        return Ok(steps);
    };
    if let Some(said) = &metadata.id_token_signing_alg_values_supported
        && !jose::accepted().any(|name| said.iter().any(|known| known == name))
    {
        steps.push(checked(
            "keys",
            Outcome::Failed,
            "The provider signs with no algorithm that is accepted: RS256 or ES256 is what it should use.",
        ));
    }
    match provider::fetch_keys(app, &metadata).await {
        Ok(keys) => steps.push(checked(
            "keys",
            Outcome::Ok,
            format!("{} can check signatures.", keys.len()),
        )),
        Err(error) => steps.push(checked("keys", Outcome::Failed, sentence(&error.to_string()))),
    }
    steps.push(probe_client(app, connection, &spec, &metadata).await?);
    steps.push(probe_redirect(app, connection, &spec, &metadata).await?);
    steps.push(last_sign_in(connection));
    Ok(steps)
}

async fn probe_metadata(app: &App, spec: &ConnectionSpec, steps: &mut Vec<Checked>) -> Option<Metadata> {
    let error = match provider::fetch_metadata(app, spec).await {
        Ok(metadata) => {
            steps.push(checked("reach", Outcome::Ok, "The provider answers."));
            steps.push(checked("metadata", Outcome::Ok, "It says where everything is."));
            steps.push(checked(
                "issuer",
                Outcome::Ok,
                "It is the issuer of this connection.",
            ));
            let logout = metadata.backchannel_logout_supported;
            steps.push(if logout {
                checked("logout", Outcome::Ok, "It can tell this server when somebody signs out there.")
            } else {
                checked(
                    "logout",
                    Outcome::Unknown,
                    "It does not say that it tells when somebody signs out there: sessions here end by their limits.",
                )
            });
            return Some(metadata);
        }
        Err(error) => error,
    };
    let text = sentence(&error.to_string());
    match &error {
        ProviderError::Metadata(WebError::Refused(_)) => steps.push(checked(
            "reach",
            Outcome::Failed,
            format!("{text} Whoever runs this server allows the provider's network."),
        )),
        ProviderError::Metadata(WebError::Unresolved) => {
            steps.push(checked(
                "reach",
                Outcome::Failed,
                format!("{text} Look at the issuer's spelling, and at DNS."),
            ));
        }
        ProviderError::Metadata(_) => steps.push(checked(
            "reach",
            Outcome::Failed,
            format!("{text} Look at firewalls, and at the certificate: --egress-ca-file adds an authority."),
        )),
        ProviderError::Status(_) | ProviderError::Malformed(_) | ProviderError::Keys(_) => {
            steps.push(checked("reach", Outcome::Ok, "Something answers."));
            steps.push(checked(
                "metadata",
                Outcome::Failed,
                format!("{text} The issuer is what stands before /.well-known/openid-configuration."),
            ));
        }
        ProviderError::Issuer { .. } => {
            steps.push(checked("reach", Outcome::Ok, "The provider answers."));
            steps.push(checked("metadata", Outcome::Ok, "It says where everything is."));
            steps.push(checked("issuer", Outcome::Failed, text));
        }
    }
    None
}

/// A code that no provider made: a provider that knows this client says that the code is wrong, another that the client is.
async fn probe_client(
    app: &App,
    connection: &Connection,
    spec: &ConnectionSpec,
    metadata: &Metadata,
) -> Result<Checked, Problem> {
    let form = vec![
        ("grant_type", "authorization_code".to_owned()),
        ("code", "muster-connection-test".to_owned()),
        ("redirect_uri", super::addresses(app, connection.id).redirect_uri),
        (
            "code_verifier",
            "muster-connection-test-muster-connection-test".to_owned(),
        ),
    ];
    let request = flow::token_request(app, connection, spec, metadata, form)?;
    let answer = match super::send(app, request).await {
        Ok(answer) => answer,
        Err(error) => return Ok(checked("client", Outcome::Failed, sentence(&error.to_string()))),
    };
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error: String = body["error"]
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(64)
        .collect();
    Ok(match error.as_str() {
        "invalid_grant" => checked(
            "client",
            Outcome::Ok,
            "The provider knows this client and its secret or key.",
        ),
        "invalid_client" | "unauthorized_client" => checked(
            "client",
            Outcome::Failed,
            format!(
                "The provider refuses the client ({error}): compare client_id, client_auth and the secret."
            ),
        ),
        "" => checked(
            "client",
            Outcome::Unknown,
            format!("The provider answered {} without saying why.", answer.status),
        ),
        other => checked("client", Outcome::Unknown, format!("The provider says {other}.")),
    })
}

/// Asked without a person, a provider that knows the redirect address sends the browser there with an error, and another does not.
async fn probe_redirect(
    app: &App,
    connection: &Connection,
    spec: &ConnectionSpec,
    metadata: &Metadata,
) -> Result<Checked, Problem> {
    let redirect_uri = super::addresses(app, connection.id).redirect_uri;
    let mut location = reqwest::Url::parse(&metadata.authorization_endpoint).map_err(Problem::internal)?;
    location
        .query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &spec.client_id)
        .append_pair("redirect_uri", &redirect_uri)
        .append_pair("scope", "openid")
        .append_pair("prompt", "none")
        .append_pair("state", "muster-connection-test")
        .append_pair("nonce", "muster-connection-test")
        .append_pair("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
        .append_pair("code_challenge_method", "S256");
    let answer = super::send(app, WebRequest::get(location)).await;
    let detail = format!("The provider sends people back to {redirect_uri}.");
    Ok(match answer {
        Ok(answer)
            if answer
                .location
                .as_deref()
                .is_some_and(|to| to.starts_with(&redirect_uri)) =>
        {
            checked("redirect_uri", Outcome::Ok, detail)
        }
        Ok(answer) if answer.status == 400 => checked(
            "redirect_uri",
            Outcome::Failed,
            format!(
                "The provider refuses the request: enter {redirect_uri} there as redirect URI, to the letter."
            ),
        ),
        Ok(answer) => checked(
            "redirect_uri",
            Outcome::Unknown,
            format!(
                "It cannot be seen from here (the provider answered {}). Its redirect URI is {redirect_uri}.",
                answer.status
            ),
        ),
        Err(error) => checked("redirect_uri", Outcome::Failed, sentence(&error.to_string())),
    })
}
