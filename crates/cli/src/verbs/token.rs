//! `muster token …`

use muster_model::{AttestationLevel, Ownership};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Page, Paging, list, token_table};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};
use crate::qr::{self, Ink};

/// How a device can enroll.
const PROTOCOLS: [&str; 4] = ["agent", "acme", "scep", "est"];
/// Kinds of proof, as words on the line.
pub const LEVELS: [&str; 5] = [
    AttestationLevel::Unattested.as_str(),
    AttestationLevel::Tpm2.as_str(),
    AttestationLevel::AndroidTee.as_str(),
    AttestationLevel::AndroidStrongbox.as_str(),
    AttestationLevel::Apple.as_str(),
];
/// Whose devices there are, as words on the line.
pub const OWNERSHIPS: [&str; 2] = [Ownership::Company.as_str(), Ownership::Personal.as_str()];

/// Verbs of enrollment tokens.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a one-time token for one device and print it, alone, on standard output
    #[command(
        after_help = "Examples:\n  muster token create --device-uuid \"$(cat /sys/class/dmi/id/product_uuid)\"\n  \
        muster token create --device-uuid UUID --owner 'A. Person' | muster-agent enroll --token - …\n  muster token \
        create --device-uuid UUID --attestation tpm2 --qr\n  muster token create --device-uuid UUID --protocol scep \
        --subject laptop-7\n\nIt is shown this once. For ACME it is the ClientIdentifier, with the directory \
        https://DEVICE-HOST/acme/TENANT/directory; for SCEP the challengePassword, at https://DEVICE-HOST/scep; for EST the \
        password of HTTP Basic."
    )]
    Create(CreateArgs),
    /// Make a token for each row of a CSV table
    #[command(
        after_help = "Examples:\n  muster token create-bulk --file devices.csv --out tokens.csv\n  muster token \
        create-bulk --file devices.csv --partial -o json\n\nThe first row names the columns: device_uuid, and where \
        needed serial, owner, ownership, protocol, subject, attestation, ttl_seconds. With a bad row nothing is made, \
        unless --partial. The exit code is 1 where any row is bad."
    )]
    CreateBulk(token_table::BulkArgs),
    /// List tokens, newest first, without their secrets
    #[command(after_help = "Examples:\n  muster token list")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

/// What a token is for.
#[derive(Clone, Debug, clap::Args)]
pub struct CreateArgs {
    /// The hardware UUID of the device that may use it
    #[arg(long, value_name = "UUID")]
    device_uuid: String,
    /// Its serial number, which the device must then have
    #[arg(long)]
    serial: Option<String>,
    /// Whose device it is
    #[arg(long)]
    owner: Option<String>,
    /// The company's or a personal one, which can never be wiped whole
    #[arg(long, value_parser = OWNERSHIPS)]
    ownership: Option<String>,
    /// How the device enrolls; `agent` unless given
    #[arg(long, value_parser = PROTOCOLS)]
    protocol: Option<String>,
    /// For SCEP and EST: the common name of the request; the UUID unless given
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// A kind of hardware proof that is enough; may be repeated. Without, what the enrollment policy accepts
    #[arg(long, value_name = "KIND", value_parser = LEVELS, value_delimiter = ',')]
    attestation: Vec<String>,
    /// How long it can be used; 300 unless given, at most 86400
    #[arg(long, value_name = "SECONDS")]
    ttl_seconds: Option<u64>,
    /// Show it as a QR code too, on standard error
    #[arg(long)]
    qr: bool,
    /// Repeating the request with the same key makes one token
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
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
    protocol: String,
    attestation: Vec<String>,
    created_by: Option<String>,
    expires_at: Option<String>,
    device_id: Option<String>,
    last_failure: Option<String>,
}

/// Runs one verb.
pub async fn run(command: TokenCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        TokenCommand::Create(arguments) => create(arguments, api, printer).await,
        TokenCommand::CreateBulk(arguments) => token_table::run(arguments, api, printer).await,
        TokenCommand::List { paging } => {
            let answer: Answer<Page<Token>> = list(api, Call::get(&["enrollment-tokens"]), &paging).await?;
            printer.answer(&answer.value, |printer| tokens(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
    }
}

async fn create(arguments: CreateArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let (body, device_uuid) = (body_of(&arguments), arguments.device_uuid);
    let call = Call::create(&["enrollment-tokens"], body, arguments.idempotency_key);
    let answer: Answer<NewToken> = api.send(call).await?;
    if printer.is_json() {
        printer.json(&answer.value)?;
    } else {
        printer.line(&answer.known.token)?;
    }
    if arguments.qr {
        let ink = if printer.has_color() {
            Ink::Colored
        } else {
            Ink::Plain
        };
        match qr::draw(&answer.known.token, ink) {
            Some(drawing) => printer.note(&drawing),
            None => printer.note("The token is too long for a QR code."),
        }
    }
    if !printer.is_json() {
        printer.note(&format!(
            "For device {device_uuid}, once, until {}.",
            answer.known.expires_at
        ));
    }
    Ok(())
}

/// The request, without what is left to the server.
fn body_of(arguments: &CreateArgs) -> Value {
    let mut body = json!({"device_uuid": arguments.device_uuid});
    let text = |value: &Option<String>| value.as_deref().map(Value::from);
    let levels = (!arguments.attestation.is_empty()).then(|| json!(arguments.attestation));
    let optional = [
        ("serial", text(&arguments.serial)),
        ("owner", text(&arguments.owner)),
        ("ownership", text(&arguments.ownership)),
        ("protocol", text(&arguments.protocol)),
        ("subject", text(&arguments.subject)),
        ("attestation", levels),
        ("ttl_seconds", arguments.ttl_seconds.map(Into::into)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

fn tokens(printer: &Printer, tokens: &[Token]) -> Sheet {
    let row = |token: &Token| {
        let protocol = match token.attestation.as_slice() {
            [] => token.protocol.clone(),
            levels => format!("{} ({})", token.protocol, levels.join(" ")),
        };
        vec![
            token.device_uuid.clone(),
            token.state.clone(),
            protocol,
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
        "protocol",
        "owner",
        "expires",
        "device",
        "last failure",
        "by",
        "id",
    ];
    Sheet::new().rows("tokens", &header, tokens.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: CreateArgs,
    }

    fn check(line: &str, expected: Value) {
        let line = Line::try_parse_from(std::iter::once("create").chain(line.split(' ')));
        assert_eq!(body_of(&line.expect("it parses").arguments), expected);
    }

    #[test]
    fn what_is_not_said_is_left_to_the_server() {
        check("--device-uuid u", json!({"device_uuid": "u"}));
        check(
            "--device-uuid u --protocol acme --attestation apple,tpm2 --attestation android_tee --ttl-seconds 60",
            json!({
                "device_uuid": "u", "protocol": "acme", "attestation": ["apple", "tpm2", "android_tee"],
                "ttl_seconds": 60,
            }),
        );
        check(
            "--device-uuid u --serial s --owner o --ownership personal --protocol scep --subject n",
            json!({
                "device_uuid": "u", "serial": "s", "owner": "o", "ownership": "personal", "protocol": "scep",
                "subject": "n",
            }),
        );
    }
}
