//! PagerDuty, Events API v2 (<https://developer.pagerduty.com/docs/send-alert-event>).

use muster_control::alerts::{Address, Event, NotDelivered, Notice};
use serde_json::{Value, json};

use super::{given_up, judge, post_json, secret};
use crate::egress::Egress;

/// The longest summary that the API takes, in characters.
const SUMMARY_CHARS_MAX: usize = 1024;

pub async fn deliver(
    egress: &Egress,
    url: &str,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    let body = event(secret(to)?, notice)?;
    judge(&post_json(egress, url, &[], &body).await?)
}

fn event(routing_key: &str, notice: &Notice) -> Result<Value, NotDelivered> {
    let action = match notice.event {
        Event::Firing | Event::Test | Event::Changed => "trigger",
        Event::Acknowledged => "acknowledge",
        Event::Resolved => "resolve",
        Event::Heartbeat => return Err(given_up("PagerDuty takes no heartbeats".to_owned())),
    };
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": notice.dedup_key,
    });
    if action == "trigger" {
        let summary: String = notice.headline().chars().take(SUMMARY_CHARS_MAX).collect();
        event["payload"] = json!({
            "summary": summary,
            "source": format!("muster {}", notice.tenant),
            "severity": notice.severity.as_str(),
            "timestamp": notice.started_at.to_string(),
            "component": "muster",
            "group": notice.tenant.to_string(),
            "class": notice.rule,
            "custom_details": {
                "what it means": notice.meaning,
                "what to do": notice.remedy,
                "about": notice.lines(),
            },
        });
        event["client"] = "Muster".into();
        event["client_url"] = notice.console_url.clone().into();
        event["links"] = json!([{"href": notice.runbook_url, "text": "Runbook"}]);
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::notice, *};

    #[test]
    fn every_event_of_an_alert_has_the_same_dedup_key() {
        let of = |what| event("R0", &notice(what)).expect("an event");
        let (begin, end) = (of(Event::Firing), of(Event::Resolved));
        assert_eq!(begin["event_action"], "trigger");
        assert_eq!(of(Event::Acknowledged)["event_action"], "acknowledge");
        assert_eq!(end["event_action"], "resolve");
        assert_eq!(begin["dedup_key"], end["dedup_key"]);
        assert_eq!(begin["payload"]["severity"], "critical");
        assert!(begin["dedup_key"].as_str().is_some_and(|key| key.len() <= 255));
        assert!(event("R0", &notice(Event::Heartbeat)).is_err());
    }
}
