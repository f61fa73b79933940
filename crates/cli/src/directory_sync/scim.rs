//! Muster's SCIM endpoint (RFC 7644) as a connector sees it: what it keeps, and bulk requests that change it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use muster_scim::{ENTERPRISE_USER, MEDIA_TYPE};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Method, StatusCode};
use serde_json::{Map, Value, json};
use url::Url;
use zeroize::Zeroizing;

use crate::CliError;
use crate::context::read_file;

use super::config::Muster;
use super::plan::{Held, HeldPerson, HeldTeam};

/// Longest time for one answer: a bulk request is many transactions.
const CALL_TIME_MAX: Duration = Duration::from_secs(300);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest answer: a page of groups with their members.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// People or groups of one page.
const PAGE: &str = "500";
/// Pages of a list; a bound against a cursor that never ends.
const PAGES_MAX: usize = 10_000;
/// How often a request that was refused for now is sent again.
const TRIES_MAX: u32 = 6;
/// Longest pause that the server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const BULK_URN: &str = "urn:ietf:params:scim:api:messages:2.0:BulkRequest";
/// What the server says of a resource itself, and this program does not compare.
const SERVERS_OWN: [&str; 4] = ["id", "meta", "groups", "schemas"];

/// A connector.
#[derive(Debug, Clone)]
pub struct Scim {
    http: reqwest::Client,
    base: Url,
    token: Zeroizing<String>,
}

/// What came of one operation of a bulk request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    /// The id of what was made or changed.
    pub id: Option<String>,
    /// Why it was refused.
    pub detail: Option<String>,
}

impl Answered {
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Scim {
    /// A connector with the token that the file names.
    ///
    /// # Errors
    /// The token or the certificate cannot be read.
    pub fn new(muster: &Muster, credentials: Option<&Path>) -> Result<Scim, CliError> {
        let token = muster.token.read(credentials)?;
        let token = std::str::from_utf8(&token)
            .ok()
            .map(|token| Zeroizing::new(token.trim().to_owned()))
            .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| CliError::Usage("the file of the SCIM token holds no token".to_owned()))?;
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(CALL_TIME_MAX)
            .connect_timeout(CONNECT_TIME_MAX)
            .user_agent(concat!("muster-directory/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &muster.ca_file {
            let wrong = || CliError::Content {
                path: path.clone(),
                detail: "it is no PEM file of certificates".to_owned(),
            };
            let anchors = Certificate::from_pem_bundle(&read_file(path)?).map_err(|_| wrong())?;
            if anchors.is_empty() {
                return Err(wrong());
            }
            builder = builder.tls_certs_only(anchors);
        }
        let http = builder
            .build()
            .map_err(|error| CliError::Usage(format!("muster.ca_file: {error}")))?;
        let mut base = muster.url.clone();
        base.set_path("/scim/v2");
        Ok(Scim { http, base, token })
    }

    /// Asks for one person, to see that the token is taken.
    pub async fn check(&self) -> Result<(), CliError> {
        let query = [("count", "1")];
        self.send(Method::GET, "Users", &query, None).await.map(drop)
    }

    /// Everything that this connector keeps; `is_everybody` for people whom others brought too.
    ///
    /// # Errors
    /// The server cannot be asked. What is not known is not compared.
    pub async fn held(&self, is_everybody: bool, mut progress: impl FnMut(usize)) -> Result<Held, CliError> {
        let filter = (!is_everybody).then_some("externalId pr");
        let mut held = Held::default();
        self.list("Users", filter, |resource| {
            held.people.extend(person(resource));
            progress(held.people.len());
        })
        .await?;
        self.list("Groups", Some("externalId pr"), |resource| {
            held.teams.extend(team(resource));
        })
        .await?;
        Ok(held)
    }

    async fn list(
        &self,
        endpoint: &str,
        filter: Option<&str>,
        mut take: impl FnMut(Value),
    ) -> Result<(), CliError> {
        let mut cursor = String::new();
        for _ in 0..PAGES_MAX {
            let mut query = vec![("cursor", cursor.as_str()), ("count", PAGE)];
            query.extend(filter.map(|filter| ("filter", filter)));
            let mut page = self.send(Method::GET, endpoint, &query, None).await?;
            let Some(Value::Array(resources)) = page.get_mut("Resources").map(Value::take) else {
                return Err(CliError::Answer("a list has no Resources".to_owned()));
            };
            resources.into_iter().for_each(&mut take);
            match page.get("nextCursor").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => cursor = next.to_owned(),
                _ => return Ok(()),
            }
        }
        Err(CliError::Answer("a list has no end".to_owned()))
    }

    /// Carries operations out; answers what came of each.
    ///
    /// # Errors
    /// The request as a whole was refused, or no answer came: some may have been carried out then.
    pub async fn bulk(&self, operations: &[Value]) -> Result<Vec<Answered>, CliError> {
        let body = json!({"schemas": [BULK_URN], "Operations": operations});
        let answer = self.send(Method::POST, "Bulk", &[], Some(&body)).await?;
        let told = answer.get("Operations").and_then(Value::as_array);
        let told: Vec<Answered> = told
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .map(answered)
            .collect();
        match told.len() == operations.len() {
            true => Ok(told),
            false => Err(CliError::Answer("a bulk request was answered in part".to_owned())),
        }
    }

    async fn send(
        &self,
        method: Method,
        endpoint: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        let mut url = self.base.clone();
        url.set_path(&format!("/scim/v2/{endpoint}"));
        let mut tries = 0;
        loop {
            tries += 1;
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .query(query)
                .bearer_auth(self.token.as_str())
                .header(ACCEPT, MEDIA_TYPE);
            if let Some(body) = body {
                request = request.header(CONTENT_TYPE, MEDIA_TYPE).body(body.to_string());
            }
            let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut bytes = Vec::new();
            while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
                if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                    return Err(CliError::Answer(format!(
                        "it is larger than {ANSWER_BYTES_MAX} bytes"
                    )));
                }
                bytes.extend_from_slice(&part);
            }
            if status.is_success() {
                return serde_json::from_slice(&bytes).map_err(|error| CliError::Answer(error.to_string()));
            }
            // Both say that nothing was done.
            let is_for_now = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
            if !is_for_now || tries == TRIES_MAX {
                return Err(refused(status, &bytes));
            }
            let asked = headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok());
            tokio::time::sleep(Duration::from_secs(asked.unwrap_or(1)).min(PAUSE_MAX)).await;
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        CliError::Unreachable {
            url: self.base.to_string(),
            cause: match error.is_timeout() {
                true => "no answer in time".to_owned(),
                false => cause.to_string(),
            },
        }
    }
}

fn refused(status: StatusCode, bytes: &[u8]) -> CliError {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let detail = body
        .get("detail")
        .and_then(Value::as_str)
        .unwrap_or("it says no more");
    let advice = match status {
        StatusCode::UNAUTHORIZED => " `muster scim token create NAME` makes a token.",
        _ => "",
    };
    CliError::Failed(format!("Muster refuses ({}): {detail}{advice}", status.as_u16()))
}

fn answered(told: &Value) -> Answered {
    let text = |name: &str| told.get(name).and_then(Value::as_str);
    let detail = told
        .get("response")
        .and_then(|response| response.get("detail")?.as_str());
    Answered {
        status: text("status")
            .and_then(|status| status.parse().ok())
            .unwrap_or_default(),
        id: text("location")
            .and_then(|location| location.rsplit('/').next())
            .map(str::to_owned),
        detail: detail.map(str::to_owned),
    }
}

fn text(resource: &Map<String, Value>, name: &str) -> Option<String> {
    resource.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn version(resource: &Map<String, Value>) -> Option<String> {
    resource.get("meta")?.get("version")?.as_str().map(str::to_owned)
}

fn person(resource: Value) -> Option<HeldPerson> {
    let Value::Object(mut resource) = resource else {
        return None;
    };
    let held = HeldPerson {
        id: text(&resource, "id")?,
        external_id: text(&resource, "externalId"),
        version: version(&resource)?,
        user_name: text(&resource, "userName")?,
        is_active: resource.get("active").and_then(Value::as_bool).unwrap_or(true),
        resource: Map::new(),
    };
    SERVERS_OWN.iter().for_each(|name| drop(resource.remove(*name)));
    if let Some(Value::Object(enterprise)) = resource.get_mut(ENTERPRISE_USER.id)
        && let Some(manager) = enterprise.get_mut("manager")
    {
        // Its name and address are the server's own.
        *manager = json!({"value": manager.get_mut("value").map(Value::take)});
    }
    Some(HeldPerson { resource, ..held })
}

fn team(resource: Value) -> Option<HeldTeam> {
    let resource = resource.as_object()?;
    let members = resource.get("members").and_then(Value::as_array);
    let ids = members.map(Vec::as_slice).unwrap_or_default().iter();
    Some(HeldTeam {
        id: text(resource, "id")?,
        external_id: text(resource, "externalId"),
        version: version(resource)?,
        display_name: text(resource, "displayName")?,
        members: ids
            .filter_map(|member| member.get("value")?.as_str().map(str::to_owned))
            .collect::<BTreeSet<_>>(),
    })
}
