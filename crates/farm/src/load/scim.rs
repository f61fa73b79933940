//! People that an identity provider sends: each made, put in a group, looked for, and deactivated.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::{AdminFile, FarmError};

/// A load of SCIM.
#[derive(Clone, Debug)]
pub struct ScimLoad {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// Connections, each with one request at a time.
    pub connections: u32,
    /// How long each kind of request is sent.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScimReport {
    /// People made in a second.
    pub created_per_second: f64,
    /// Questions for one `userName`, answered in a second.
    pub found_per_second: f64,
    /// People added one by one to the same group in a second.
    pub joined_per_second: f64,
    /// People deactivated in a second.
    pub deactivated_per_second: f64,
    /// How many people there are at the end.
    pub users: u64,
}

/// Sends each kind of request for as long.
///
/// # Errors
/// A call that fails.
pub async fn load_scim(options: ScimLoad, measuring: impl FnOnce()) -> Result<ScimReport, FarmError> {
    let admin = Arc::new(Admin::new(AdminFile::read(&options.admin_file)?)?);
    admin.sign_in().await?;
    let run = uuid::Uuid::new_v4().simple().to_string();
    let group = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": format!("bench {run}")});
    let group = admin.scim(Method::POST, "/Groups", Some(&group)).await?;
    let group = Arc::new(format!("/Groups/{}", id_of(&group)?));
    measuring();
    let (ids, created_per_second) = {
        let run = Arc::new(run.clone());
        phase(&options, &admin, u64::MAX, move |admin, number| {
            let run = Arc::clone(&run);
            async move {
                let made = admin
                    .scim(Method::POST, "/Users", Some(&person(&run, number)))
                    .await?;
                id_of(&made)
            }
        })
        .await?
    };
    let known = ids.len() as u64;
    let (_, found_per_second) = phase(&options, &admin, u64::MAX, move |admin, number| {
        let name = format!("person-{}-{run}%40example.com", number % known);
        async move {
            let path = format!("/Users?filter=userName%20eq%20%22{name}%22");
            let found = admin.scim(Method::GET, &path, None).await?;
            match found["totalResults"] == 1 {
                true => Ok(String::new()),
                false => Err(FarmError::Load(format!("{path} found {}", found["totalResults"]))),
            }
        }
    })
    .await?;
    let ids = Arc::new(ids);
    let change =
        |path: String, operation: Value| (path, json!({"schemas": [PATCH], "Operations": [operation]}));
    let (_, joined_per_second) = {
        let ids = Arc::clone(&ids);
        phase(&options, &admin, known, move |admin, number| {
            let value = json!([{"value": ids[number as usize]}]);
            let (path, body) = change(
                group.to_string(),
                json!({"op": "add", "path": "members", "value": value}),
            );
            async move {
                admin
                    .scim(Method::PATCH, &path, Some(&body))
                    .await
                    .map(|_| String::new())
            }
        })
        .await?
    };
    let (_, deactivated_per_second) = phase(&options, &admin, known, move |admin, number| {
        let path = format!("/Users/{}", ids[number as usize]);
        let (path, body) = change(path, json!({"op": "replace", "path": "active", "value": false}));
        async move {
            admin
                .scim(Method::PATCH, &path, Some(&body))
                .await
                .map(|_| String::new())
        }
    })
    .await?;
    Ok(ScimReport {
        created_per_second,
        found_per_second,
        joined_per_second,
        deactivated_per_second,
        users: known,
    })
}

const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

fn person(run: &str, number: u64) -> Value {
    let name = format!("person-{number}-{run}@example.com");
    json!({
        "schemas": [
            "urn:ietf:params:scim:schemas:core:2.0:User",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
        ],
        "userName": name, "externalId": format!("{run}-{number}"), "active": true, "displayName": format!("Person {number}"),
        "name": {"givenName": "Person", "familyName": number.to_string()},
        "emails": [{"value": name, "type": "work", "primary": true}],
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "Engines"},
    })
}

fn id_of(made: &Value) -> Result<String, FarmError> {
    let id = made["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| FarmError::Load("an answer has no id".to_owned()))
}

/// Sends requests of one kind on every connection, until the time is over or there are none left; answers what each said in
/// the order of their numbers, and how many there were in a second.
async fn phase<F, W>(
    options: &ScimLoad,
    admin: &Arc<Admin>,
    requests_max: u64,
    work: F,
) -> Result<(Vec<String>, f64), FarmError>
where
    F: Fn(Arc<Admin>, u64) -> W + Send + Sync + 'static,
    W: Future<Output = Result<String, FarmError>> + Send,
{
    let (work, next) = (Arc::new(work), Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let (begun, duration) = (Instant::now(), options.duration);
    let mut tasks = JoinSet::new();
    for _ in 0..options.connections.max(1) {
        let (work, next, admin) = (Arc::clone(&work), Arc::clone(&next), Arc::clone(admin));
        tasks.spawn(async move {
            let mut said = Vec::new();
            while begun.elapsed() < duration {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= requests_max {
                    break;
                }
                said.push((number, work(Arc::clone(&admin), number).await?));
            }
            Ok::<_, FarmError>(said)
        });
    }
    let mut said = Vec::new();
    while let Some(done) = tasks.join_next().await {
        said.extend(done.map_err(|error| FarmError::Load(error.to_string()))??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    said.sort_unstable_by_key(|(number, _)| *number);
    let per_second = said.len() as f64 / seconds;
    Ok((said.into_iter().map(|(_, text)| text).collect(), per_second))
}
