//! `certs.identity`: SCEP. The nodes and the command that starts the request go in one piece. Their name tells the request
//! apart from others, so that a device which has made it refuses the piece as a whole (418) and asks for no second
//! certificate. The status of `Exec` says that the request began; the node `Status` says how it ended.

use aws_lc_rs::digest::{SHA256, digest};
use muster_model::settings::SettingValue;

use super::{Context, Script, at, carried_items};
use crate::syncml::{Command, Format, Step, Value, Verb};

const ROOT: &str = "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/*";
const CLIENT_AUTHENTICATION: &str = "1.3.6.1.5.5.7.3.2";
/// Digital signature and key encipherment (RFC 5280 section 4.2.1.3).
const KEY_USAGE: &str = "160";
const KEY_BITS: &str = "2048";
/// In the TPM where there is one.
const KEY_PROTECTION: &str = "2";

pub(super) fn write(context: &Context<'_>, value: &SettingValue, script: &mut Script) {
    for item in carried_items("certs.identity", value) {
        script.carry(&format!("{ROOT}/Install/ServerURL"));
        script.carry(&format!("{ROOT}/Install/Enroll"));
        let step = request(context, item);
        script.step(step);
    }
}

fn request(context: &Context<'_>, item: &SettingValue) -> Step {
    let name = item.text("name").unwrap_or_default();
    let url = item.text("url").unwrap_or_default();
    let subject = item
        .text("subject")
        .map_or_else(|| format!("CN={name}"), str::to_owned);
    let mut values = vec![
        ("ServerURL", Format::Text, url.to_owned()),
        ("EKUMapping", Format::Text, CLIENT_AUTHENTICATION.to_owned()),
        ("KeyUsage", Format::Int, KEY_USAGE.to_owned()),
        ("SubjectName", Format::Text, subject),
        ("KeyLength", Format::Int, KEY_BITS.to_owned()),
        ("KeyProtection", Format::Int, KEY_PROTECTION.to_owned()),
        ("HashAlgorithm", Format::Text, "SHA-2".to_owned()),
    ];
    let node = at(ROOT, &node_name(name, &values));
    if let Some(scep) = &context.target.scep {
        values.push(("Challenge", Format::Text, scep.challenge.clone()));
        values.push(("CAThumbprint", Format::Text, scep.authority_thumbprint.clone()));
    }
    let add = |locuri: String, format, data| Command {
        verb: Verb::Add,
        locuri,
        value: Some(Value { format, data }),
    };
    let mut commands = vec![
        add(node.clone(), Format::Node, String::new()),
        add(format!("{node}/Install"), Format::Node, String::new()),
    ];
    for (leaf, format, data) in values {
        commands.push(add(format!("{node}/Install/{leaf}"), format, data));
    }
    commands.push(Command {
        verb: Verb::Exec,
        locuri: format!("{node}/Install/Enroll"),
        value: None,
    });
    Step::Atomic(commands)
}

/// The name, and a mark of what is asked for.
fn node_name(name: &str, values: &[(&str, Format, String)]) -> String {
    const MARK_BYTES: usize = 4;
    let mut text = String::new();
    for (leaf, _, data) in values {
        text.push_str(&format!("{leaf}={}:{data};", data.len()));
    }
    let sum = digest(&SHA256, text.as_bytes());
    format!("{name}-{}", hex::encode(&sum.as_ref()[..MARK_BYTES]))
}
