//! Prometheus Alertmanager, API v2 (<https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>).

use std::time::Duration;

use muster_control::alerts::{Address, Event, NotDelivered, Notice};
use serde_json::{Value, json};

use super::{judge, post_json};
use crate::egress::Egress;

/// How long an alert stays there when nothing comes any more: it is repeated every four hours while it goes on.
const ENDS_AFTER: Duration = Duration::from_secs(24 * 3600);
/// A heartbeat ends after so many that did not come.
const HEARTBEATS_MISSED: u64 = 3;

pub async fn deliver(
    egress: &Egress,
    url: &str,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    // It knows nothing of people: who acknowledged something is not for it.
    if notice.event == Event::Acknowledged {
        return Ok(None);
    }
    let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
    let token = to
        .secret
        .map(|token| ("authorization", format!("Bearer {}", token.reveal())));
    let headers: Vec<_> = token.into_iter().collect();
    judge(&post_json(egress, &url, &headers, &alerts(notice)).await?)
}

/// One alert for the whole of it: labels are what Alertmanager tells alerts apart by, so they stay the same from begin to end.
fn alerts(notice: &Notice) -> Value {
    let ends_at = match notice.event {
        Event::Resolved => notice.at,
        Event::Heartbeat => {
            let interval = Duration::from_secs(notice.interval_seconds.unwrap_or(3600) * HEARTBEATS_MISSED);
            notice.at.plus(interval)
        }
        Event::Firing | Event::Acknowledged | Event::Test | Event::Changed => notice.at.plus(ENDS_AFTER),
    };
    json!([{
        "labels": {
            "alertname": name(notice),
            "severity": notice.severity.as_str(),
            "tenant": notice.tenant.to_string(),
            "alert": notice.dedup_key,
            "service": "muster",
        },
        "annotations": {
            "summary": notice.title,
            "description": notice.lines().join("\n"),
            "meaning": notice.meaning,
            "remedy": notice.remedy,
            "runbook_url": notice.runbook_url,
        },
        "startsAt": notice.started_at.to_string(),
        "endsAt": ends_at.to_string(),
        "generatorURL": notice.console_url,
    }])
}

/// The rule in the field's way of writing: `mass_command_held` is `MusterMassCommandHeld`; a heartbeat is `Watchdog`.
fn name(notice: &Notice) -> String {
    if notice.event == Event::Heartbeat {
        return "Watchdog".to_owned();
    }
    let words = notice.rule.split(['_', '-']).map(|word| {
        let mut chars = word.chars();
        chars
            .next()
            .map(|first| first.to_uppercase().chain(chars).collect::<String>())
            .unwrap_or_default()
    });
    words.fold("Muster".to_owned(), |name, word| name + &word)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::notice, *};

    #[test]
    fn an_alert_keeps_its_labels_to_the_end() {
        let (begin, end) = (alerts(&notice(Event::Firing)), alerts(&notice(Event::Resolved)));
        assert_eq!(begin[0]["labels"], end[0]["labels"]);
        assert_eq!(begin[0]["labels"]["alertname"], "MusterMassCommandHeld");
        assert!(begin[0]["endsAt"].as_str() > end[0]["endsAt"].as_str());
    }
}
