//! One-shot actions on their way to a device.

use muster_model::trace::{TRACEPARENT_BYTES_MAX, TraceContext};
use muster_trust::approval::ApprovalProof;
use muster_trust::dsse::Envelope;
use muster_trust::proof::LoggedProof;
use serde::{Deserialize, Deserializer, Serialize};

/// What an uploaded output is: a gzip file (RFC 1952), by the media type of RFC 6713.
pub const OUTPUT_CONTENT_TYPE: &str = "application/gzip";

/// A command that is due. It is delivered again until its receipt was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueCommand {
    /// A DSSE envelope over a `CommandStatement`, by the action role.
    pub envelope: Envelope,
    /// Ties the `command.created` entry to the checkpoint.
    pub proof: LoggedProof,
    /// Who approved it, and that this device is on the list: of commands that need approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalProof>,
    /// Of `run-script`: a DSSE envelope over a `ScriptStatement`, by the policy role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Envelope>,
    /// Where what the device does for it belongs in a trace: a W3C `traceparent`. Nothing signs it, and it decides nothing; what is
    /// no such text is none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient"
    )]
    pub traceparent: Option<String>,
}

impl DueCommand {
    /// Where what is done for it belongs, if the server says so.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::parse(self.traceparent.as_deref()?)
    }
}

/// A text of the right length, or nothing: what decides nothing must not make a message unreadable.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Any::deserialize(deserializer)? {
        Any::Text(text) if text.len() <= TRACEPARENT_BYTES_MAX => Some(text),
        Any::Text(_) | Any::Other(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_nothing_makes_no_message_unreadable() {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(default, deserialize_with = "lenient")]
            traceparent: Option<String>,
        }
        let read = |json: &str| serde_json::from_str::<Holder>(json).map(|holder| holder.traceparent);
        for odd in [
            "{}",
            r#"{"traceparent":7}"#,
            r#"{"traceparent":{"a":[1]}}"#,
            r#"{"traceparent":null}"#,
            &format!("{{\"traceparent\":\"{}\"}}", "0".repeat(300)),
        ] {
            assert_eq!(read(odd).expect("it is read"), None, "{odd}");
        }
        let text = r#"{"traceparent":"no such thing"}"#;
        assert_eq!(read(text).expect("it is read").as_deref(), Some("no such thing"));
    }
}
