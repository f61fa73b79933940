//! Microsoft Teams: an Adaptive Card for the workflow "When a Teams webhook request is received"
//! (<https://learn.microsoft.com/power-automate/teams/send-a-message-in-teams>, <https://adaptivecards.io/explorer/>).

use muster_control::alerts::{Address, Event, NotDelivered, Notice, Severity};
use serde_json::{Value, json};

use super::{given_up, judge, post_json, secret};
use crate::egress::Egress;

pub async fn deliver(
    egress: &Egress,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    if notice.event == Event::Heartbeat {
        return Err(given_up("Teams takes no heartbeats".to_owned()));
    }
    judge(&post_json(egress, secret(to)?, &[], &message(notice)).await?)
}

fn message(notice: &Notice) -> Value {
    let color = match (notice.event, notice.severity) {
        (Event::Resolved, _) => "Good",
        (_, Severity::Critical | Severity::Error) => "Attention",
        (_, Severity::Warning) => "Warning",
        (_, Severity::Info) => "Default",
    };
    let line = |text: String| json!({"type": "TextBlock", "text": escaped(&text), "wrap": true});
    let mut body = vec![json!({
        "type": "TextBlock", "text": escaped(&notice.headline()), "weight": "Bolder", "size": "Medium", "color": color, "wrap": true,
    })];
    body.extend(notice.lines().into_iter().map(line));
    if notice.event == Event::Firing {
        body.extend([line(notice.meaning.clone()), line(notice.remedy.clone())]);
    }
    body.extend(notice.because.clone().map(line));
    let open = |title: &str, url: &str| json!({"type": "Action.OpenUrl", "title": title, "url": url});
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
                "actions": [open("Open in Muster", &notice.console_url), open("Runbook", &notice.runbook_url)],
            },
        }],
    })
}

/// The characters of Markdown that a text block would take for more than text.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let special = matches!(
                c,
                '*' | '_' | '[' | ']' | '(' | ')' | '`' | '#' | '<' | '>' | '\\'
            );
            special.then_some('\\').into_iter().chain([c])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::notice, *};

    #[test]
    fn a_text_of_an_alert_is_no_markup() {
        assert_eq!(escaped("a [x](http://y) *b*"), "a \\[x\\]\\(http://y\\) \\*b\\*");
        let card = &message(&notice(Event::Firing))["attachments"][0];
        assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
        assert_eq!(card["content"]["type"], "AdaptiveCard");
        assert_eq!(card["content"]["body"][0]["color"], "Attention");
    }
}
