//! Slack, incoming webhooks (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).

use muster_control::alerts::{Address, Event, NotDelivered, Notice};
use serde_json::{Value, json};

use super::{given_up, judge, post_json, secret};
use crate::egress::Egress;

/// The longest text of a section.
const TEXT_CHARS_MAX: usize = 3000;
/// The longest text of a header.
const HEADER_CHARS_MAX: usize = 150;

pub async fn deliver(
    egress: &Egress,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    if notice.event == Event::Heartbeat {
        return Err(given_up("Slack takes no heartbeats".to_owned()));
    }
    let answer = post_json(egress, secret(to)?, &[], &message(notice)).await?;
    let status = judge(&answer)?;
    if answer.body.trim_ascii() == b"ok" {
        return Ok(status);
    }
    Err(NotDelivered {
        status,
        ..given_up("it did not answer \"ok\": that is no incoming webhook of Slack".to_owned())
    })
}

/// Slack's control characters, so that no text of ours mentions a channel or makes a link.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn message(notice: &Notice) -> Value {
    let headline = notice.headline();
    let mut parts: Vec<String> = notice
        .lines()
        .iter()
        .map(|line| format!("• {}", escaped(line)))
        .collect();
    if matches!(notice.event, Event::Firing) {
        parts.push(escaped(&notice.meaning));
        parts.push(format!("*What to do:* {}", escaped(&notice.remedy)));
    }
    if let Some(because) = &notice.because {
        parts.push(escaped(because));
    }
    let text: String = parts.join("\n").chars().take(TEXT_CHARS_MAX).collect();
    let header: String = headline.chars().take(HEADER_CHARS_MAX).collect();
    let links = format!(
        "<{}|Open in Muster> · <{}|Runbook> · {} · {}",
        notice.console_url,
        notice.runbook_url,
        escaped(&notice.rule),
        notice.severity.as_str()
    );
    let mut blocks =
        vec![json!({"type": "header", "text": {"type": "plain_text", "text": header, "emoji": false}})];
    if !text.is_empty() {
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}}));
    }
    blocks
        .push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": links, "verbatim": true}]}));
    json!({"text": escaped(&headline), "blocks": blocks})
}

#[cfg(test)]
mod tests {
    use super::{super::testing::notice, *};

    #[test]
    fn nobody_is_mentioned_by_what_an_alert_says() {
        let text = message(&notice(Event::Firing)).to_string();
        assert!(text.contains("&lt;!channel&gt; &amp;"), "{text}");
        assert!(text.contains("op &lt;1&gt;"), "{text}");
        let header = &message(&notice(Event::Firing))["blocks"][0]["text"];
        assert_eq!(header["type"], "plain_text");
    }

    #[test]
    fn the_end_of_an_alert_says_so() {
        let message = message(&notice(Event::Resolved));
        assert!(
            message["text"]
                .as_str()
                .is_some_and(|text| text.starts_with("[RESOLVED]"))
        );
    }
}
