//! AWS Secrets Manager (<https://docs.aws.amazon.com/secretsmanager/latest/apireference>). Credentials come as for object storage:
//! from the environment, a web identity, or the instance.
//!
//! Secrets Manager has no check-and-set: the newest version is compared before a write, and the lease of the rotation is what keeps
//! two nodes apart.

use std::{path::Path, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use muster_control::secrets::{SecretStore, SecretText, StoreError};
use object_store::{
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer},
    client::{HttpRequest, HttpRequestBody},
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    SecretStoreError,
    exchange::{self, Answer},
    is_path, variable,
};

const SERVICE: &str = "secretsmanager";
/// How long whoever gives credentials may take: less than a store has for its answer.
const CREDENTIALS_TIME: Duration = Duration::from_secs(4);

pub struct Aws {
    http: Client,
    endpoint: String,
    region: String,
    prefix: String,
    place: String,
    /// Asked for credentials alone: it knows every way to them.
    credentials: AmazonS3,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Aws {
    /// The store of `REGION/PREFIX`.
    pub fn new(
        path: &str,
        environment: &[(String, String)],
        ca_file: Option<&Path>,
    ) -> Result<Aws, SecretStoreError> {
        let place = format!("aws:{path}");
        let unknown = || SecretStoreError::Unknown(place.clone());
        if !is_path(path) {
            return Err(unknown());
        }
        let (region, prefix) = path.split_once('/').ok_or_else(unknown)?;
        let names = ["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"];
        let named = names.iter().find_map(|name| variable(environment, name));
        let endpoint = named.map_or_else(
            || format!("https://{SERVICE}.{region}.amazonaws.com"),
            str::to_owned,
        );
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let is_loopback = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"]
            .iter()
            .any(|start| endpoint.starts_with(start));
        if !endpoint.starts_with("https://") && !is_loopback {
            let why = "the endpoint of AWS Secrets Manager is https, except on loopback";
            return Err(SecretStoreError::Settings(why.to_owned()));
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name("credentials-alone")
            .with_region(region);
        for (name, value) in environment.iter().filter(|(name, _)| name.starts_with("AWS_")) {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let credentials = builder
            .with_region(region)
            // Nobody waits longer for credentials than for an answer.
            .with_retry(RetryConfig {
                max_retries: 1,
                retry_timeout: CREDENTIALS_TIME,
                ..RetryConfig::default()
            })
            .build()
            .map_err(|_| SecretStoreError::Settings("the credentials of AWS cannot be used".to_owned()))?;
        Ok(Aws {
            http: exchange::client(ca_file)?,
            endpoint,
            region: region.to_owned(),
            prefix: prefix.to_owned(),
            place,
            credentials,
        })
    }

    fn id(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn ask(&self, operation: &str, body: Value) -> Result<Answer, StoreError> {
        let none = || StoreError::away("no credentials of AWS can be had");
        let asked = self.credentials.credentials();
        let credential = timeout(CREDENTIALS_TIME, asked.get_credential()).await;
        let credential = credential.map_err(|_| none())?.map_err(|_| none())?;
        let body = body.to_string();
        let mut signed: HttpRequest = http::Request::builder()
            .method("POST")
            .uri(format!("{}/", self.endpoint))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("{SERVICE}.{operation}"))
            .body(HttpRequestBody::from(body.clone()))
            .map_err(|_| StoreError::Invalid("the endpoint of AWS is no URL".to_owned()))?;
        AwsAuthorizer::new(&credential, SERVICE, &self.region)
            .try_authorize(&mut signed, None)
            .map_err(|_| StoreError::away("the request cannot be signed"))?;
        let mut request = self.http.post(format!("{}/", self.endpoint)).body(body);
        for (name, value) in signed.headers() {
            request = request.header(name, value);
        }
        exchange::send(request).await
    }
}

/// What AWS calls the error.
fn kind(answer: &Answer) -> &str {
    let kind = answer.body["__type"].as_str().unwrap_or_default();
    kind.rsplit('#').next().unwrap_or_default()
}

fn refusal(answer: &Answer) -> StoreError {
    let who = "AWS Secrets Manager";
    match kind(answer) {
        "ResourceNotFoundException" => StoreError::Missing,
        "ResourceExistsException" => StoreError::Conflict,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "InvalidClientTokenId" => StoreError::Denied(format!(
            "{who} does not know this installation, or does not let it"
        )),
        "ThrottlingException"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "InternalServiceError" => StoreError::Away {
            why: format!("{who} is throttled or broken"),
            retry_after: answer.retry_after,
        },
        _ => exchange::refusal(who, answer),
    }
}

fn version_of(body: &Value) -> Result<String, StoreError> {
    let version = body["VersionId"].as_str().filter(|version| is_version(version));
    version
        .map(str::to_owned)
        .ok_or_else(|| StoreError::Invalid("AWS says no version".to_owned()))
}

fn is_version(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

/// A request's own name, so that a repetition of it makes no second version.
fn request_token() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::away("no randomness can be had"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl SecretStore for Aws {
    fn place(&self) -> &str {
        &self.place
    }

    fn read<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<SecretText, StoreError>> {
        async move {
            let asked = json!({"SecretId": self.id(name), "VersionId": version});
            let answer = self.ask("GetSecretValue", asked).await?;
            if answer.status != StatusCode::OK {
                return Err(refusal(&answer));
            }
            let value = answer.body["SecretString"].as_str();
            let value = value.ok_or_else(|| StoreError::Invalid("AWS gave no text".to_owned()))?;
            Ok(SecretText::new(value.to_owned()))
        }
        .boxed()
    }

    fn newest<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let answer = self
                .ask("DescribeSecret", json!({"SecretId": self.id(name)}))
                .await?;
            if answer.status != StatusCode::OK {
                return match refusal(&answer) {
                    StoreError::Missing => Ok(None),
                    other => Err(other),
                };
            }
            let versions = answer.body["VersionIdsToStages"].as_object();
            let current = versions.into_iter().flatten().find(|(_, stages)| {
                let stages = stages.as_array();
                stages.is_some_and(|stages| stages.iter().any(|stage| stage == "AWSCURRENT"))
            });
            Ok(current.map(|(version, _)| version.clone()))
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a str,
        value: &'a SecretText,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        async move {
            if self.newest(name).await?.as_deref() != after {
                return Err(StoreError::Conflict);
            }
            let token = request_token()?;
            let (operation, body) = match after {
                None => (
                    "CreateSecret",
                    json!({"Name": self.id(name), "SecretString": value.reveal(), "ClientRequestToken": token}),
                ),
                Some(_) => (
                    "PutSecretValue",
                    json!({"SecretId": self.id(name), "SecretString": value.reveal(), "ClientRequestToken": token}),
                ),
            };
            let answer = self.ask(operation, body).await?;
            if answer.status != StatusCode::OK {
                return Err(refusal(&answer));
            }
            version_of(&answer.body)
        }
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.newest("muster-probe").await.map(drop) }.boxed()
    }
}
