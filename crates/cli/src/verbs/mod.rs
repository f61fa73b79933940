//! One file per noun: its flags, what it asks the API, how it shows the answer.

pub mod access;
mod activation;
pub mod alert;
pub mod approver;
pub mod branding;
pub mod bundle;
mod certificate;
pub mod client;
pub mod command;
mod command_kinds;
mod command_output;
pub mod compliance;
pub mod compliance_token;
pub mod configuration;
pub mod console_link;
pub mod context;
pub mod device;
pub mod directory;
pub mod directory_sync;
pub mod enrollment;
pub mod group;
pub mod halt;
pub mod key;
pub mod label;
pub mod log;
pub mod login;
pub mod operation;
pub mod policy;
pub mod policy_compile;
pub mod policy_test;
pub mod quarantine;
pub mod query;
pub mod rollout;
pub mod root;
pub mod routing;
pub mod script;
pub mod secret;
pub mod signal;
pub mod sink;
pub mod sso;
pub mod system;
pub mod telemetry;
pub mod tenant;
mod tenant_check;
mod tenant_limits;
pub mod token;
pub mod token_table;
pub mod trust;
pub mod visit;
pub mod what_if;
pub mod why;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::CliError;
use crate::api::{Answer, Api, Call};

/// Most pages that `--all` follows; a bound against a cursor that never ends.
const PAGES_MAX: usize = 10_000;

/// Paging of a list.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Paging {
    /// Items on a page, at most 500
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Go on where the page before ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Every page
    #[arg(long)]
    all: bool,
}

/// One page of a list.
#[derive(Clone, Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default, deserialize_with = "text_or_number")]
    next_cursor: Option<String>,
}

/// Cursors are opaque: a text, or a place in the log.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}

/// Gets a page, or all of them as one.
async fn list<T: serde::de::DeserializeOwned>(
    api: &Api,
    call: Call<'_>,
    paging: &Paging,
) -> Result<Answer<Page<T>>, CliError> {
    let limit = paging.limit.or(paging.all.then_some(500));
    let call = call.query("limit", limit);
    let first = call.clone().query("cursor", paging.cursor.as_ref());
    let mut answer: Answer<Page<T>> = api.send(first).await?;
    if !paging.all {
        return Ok(answer);
    }
    for _ in 0..PAGES_MAX {
        let Some(cursor) = answer.known.next_cursor.take() else {
            break;
        };
        let next: Answer<Page<T>> = api.send(call.clone().query("cursor", Some(cursor))).await?;
        answer.known.items.extend(next.known.items);
        answer.known.next_cursor = next.known.next_cursor;
        if let (Some(all), Value::Object(mut page)) = (answer.value["items"].as_array_mut(), next.value)
            && let Some(Value::Array(items)) = page.remove("items")
        {
            all.extend(items);
        }
    }
    answer.value["next_cursor"] = Value::Null;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_text_or_a_number() {
        let cursor = |text: &str| {
            serde_json::from_str::<Page<Value>>(text)
                .expect("a page")
                .next_cursor
        };
        assert_eq!(
            cursor(r#"{"items":[],"next_cursor":"dev_1"}"#).as_deref(),
            Some("dev_1")
        );
        assert_eq!(cursor(r#"{"items":[],"next_cursor":99}"#).as_deref(), Some("99"));
        assert_eq!(cursor(r#"{"items":[],"next_cursor":null}"#), None);
        assert_eq!(cursor(r#"{"items":[]}"#), None);
    }
}
