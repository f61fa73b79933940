//! Opsgenie, Alert API v2 and heartbeats (<https://docs.opsgenie.com/docs/alert-api>). Its maker ends it; what comes after is reached
//! by the signed webhook.

use muster_control::alerts::{Address, Event, NotDelivered, Notice, Severity};
use serde_json::{Value, json};

use super::{failed, given_up, judge, post_json, secret};
use crate::egress::Egress;

/// The longest message, alias and description that the API takes, in characters.
const MESSAGE_CHARS_MAX: usize = 130;
const DESCRIPTION_CHARS_MAX: usize = 15_000;

pub async fn deliver(
    egress: &Egress,
    origin: &str,
    heartbeat: Option<&str>,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    let origin = origin.trim_end_matches('/');
    let key = [("authorization", format!("GenieKey {}", secret(to)?))];
    let alias = alias(notice);
    let (url, body) = match notice.event {
        Event::Firing | Event::Test | Event::Changed => {
            (format!("{origin}/v2/alerts"), alert(notice, &alias))
        }
        Event::Acknowledged | Event::Resolved => {
            let verb = if notice.event == Event::Resolved {
                "close"
            } else {
                "acknowledge"
            };
            let note = notice.because.clone().unwrap_or_else(|| notice.headline());
            (
                format!("{origin}/v2/alerts/{alias}/{verb}?identifierType=alias"),
                json!({"source": "Muster", "note": note}),
            )
        }
        Event::Heartbeat => {
            let name = heartbeat.ok_or_else(|| given_up("no heartbeat is named".to_owned()))?;
            let url = format!("{origin}/v2/heartbeats/{name}/ping");
            let sent = egress.exchange(&url, |http, url| http.get(url).header("authorization", &key[0].1));
            return judge(&sent.await.map_err(failed)?);
        }
    };
    judge(&post_json(egress, &url, &key, &body).await?)
}

/// The key of the alert as one part of a path.
fn alias(notice: &Notice) -> String {
    notice.dedup_key.replace('/', "-")
}

fn alert(notice: &Notice, alias: &str) -> Value {
    let cut = |text: String, chars: usize| -> String { text.chars().take(chars).collect() };
    let priority = match notice.severity {
        Severity::Critical => "P1",
        Severity::Error => "P2",
        Severity::Warning => "P3",
        Severity::Info => "P5",
    };
    let mut description = notice.lines();
    description.extend([
        notice.meaning.clone(),
        notice.remedy.clone(),
        notice.runbook_url.clone(),
    ]);
    json!({
        "message": cut(notice.headline(), MESSAGE_CHARS_MAX),
        "alias": alias,
        "description": cut(description.join("\n"), DESCRIPTION_CHARS_MAX),
        "priority": priority,
        "source": "Muster",
        "entity": notice.rule,
        "details": {"rule": notice.rule, "console": notice.console_url, "runbook": notice.runbook_url},
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::notice, *};

    #[test]
    fn an_alert_fits_the_limits_of_the_api() {
        let mut notice = notice(Event::Firing);
        notice.title = "x".repeat(500);
        let alert = alert(&notice, &alias(&notice));
        assert_eq!(alert["message"].as_str().map(str::len), Some(MESSAGE_CHARS_MAX));
        assert_eq!(alert["priority"], "P1");
        assert!(
            alert["alias"]
                .as_str()
                .is_some_and(|alias| !alias.contains('/') && alias.len() <= 512)
        );
    }
}
