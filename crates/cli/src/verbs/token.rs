//! `muster token …`

use serde::Deserialize;
use serde_json::json;

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of enrollment tokens.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a one-time token for one device and print it, alone, on standard output
    #[command(
        after_help = "Examples:\n  muster token create --device-uuid \"$(cat /sys/class/dmi/id/product_uuid)\"\n  \
        muster token create --device-uuid UUID --owner 'A. Person' | muster-agent enroll --token - …\n\nIt is shown this \
        once."
    )]
    Create {
        /// The hardware UUID of the device that may use it
        #[arg(long, value_name = "UUID")]
        device_uuid: String,
        /// Its serial number, which the device must then have
        #[arg(long)]
        serial: Option<String>,
        /// Whose device it is
        #[arg(long)]
        owner: Option<String>,
        /// How long it can be used; 300 unless given, at most 86400
        #[arg(long, value_name = "SECONDS")]
        ttl_seconds: Option<u64>,
        /// Repeating the request with the same key makes one token
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List tokens, newest first, without their secrets
    #[command(after_help = "Examples:\n  muster token list")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

#[derive(Clone, Debug, Deserialize)]
struct NewToken {
    token: String,
    expires_at: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    id: String,
    device_uuid: String,
    owner: Option<String>,
    state: String,
    created_by: Option<String>,
    expires_at: Option<String>,
    device_id: Option<String>,
    last_failure: Option<String>,
}

/// Runs one verb.
pub async fn run(command: TokenCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        TokenCommand::Create {
            device_uuid,
            serial,
            owner,
            ttl_seconds,
            idempotency_key,
        } => {
            let mut body = json!({"device_uuid": device_uuid});
            let text = |value: Option<String>| value.map(serde_json::Value::from);
            let optional = [
                ("serial", text(serial)),
                ("owner", text(owner)),
                ("ttl_seconds", ttl_seconds.map(Into::into)),
            ];
            for (name, value) in optional {
                if let Some(value) = value {
                    body[name] = value;
                }
            }
            let call = Call::create(&["enrollment-tokens"], body, idempotency_key);
            let answer: Answer<NewToken> = api.send(call).await?;
            if printer.is_json() {
                return printer.json(&answer.value);
            }
            printer.line(&answer.known.token)?;
            printer.note(&format!(
                "For device {device_uuid}, once, until {}.",
                answer.known.expires_at
            ));
            Ok(())
        }
        TokenCommand::List { paging } => {
            let answer: Answer<Page<Token>> = list(api, Call::get(&["enrollment-tokens"]), &paging).await?;
            printer.answer(&answer.value, |printer| tokens(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
    }
}

fn tokens(printer: &Printer, tokens: &[Token]) -> Sheet {
    let row = |token: &Token| {
        vec![
            token.device_uuid.clone(),
            token.state.clone(),
            or_dash(token.owner.as_deref()),
            printer.ago(token.expires_at.as_deref()),
            or_dash(token.device_id.as_deref()),
            or_dash(token.last_failure.as_deref()),
            or_dash(token.created_by.as_deref()),
            token.id.clone(),
        ]
    };
    let header = [
        "device uuid",
        "state",
        "owner",
        "expires",
        "device",
        "last failure",
        "by",
        "id",
    ];
    Sheet::new().rows("tokens", &header, tokens.iter().map(row).collect())
}
