//! `muster enrollment …`

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::policy::read_json;
use super::token::{LEVELS, OWNERSHIPS};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_file;
use crate::output::{Printer, Sheet, plain};

const UNATTESTED: &str = LEVELS[0];
const PLATFORMS: [&str; 5] = ["linux", "macos", "ios", "android", "windows"];
/// How a limit is taken away.
const NONE: &str = "none";

/// Verbs of enrollment.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum EnrollmentCommand {
    /// How the tokens of a time fared, and why devices were refused
    #[command(
        after_help = "Examples:\n  muster enrollment funnel\n  muster enrollment funnel --hours 24 -o json"
    )]
    Funnel {
        /// The last so many hours; 168 unless given, at most 2160
        #[arg(long, value_name = "N")]
        hours: Option<u32>,
    },
    /// What a device has to be, to get in
    #[command(subcommand)]
    Policy(PolicyCommand),
}

/// Verbs of the enrollment policy.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Show the enrollment policy
    #[command(
        after_help = "Examples:\n  muster enrollment policy show\n  muster enrollment policy show -o json > policy.json"
    )]
    Show,
    /// Change the enrollment policy
    #[command(
        after_help = "Examples:\n  muster enrollment policy set --require-attestation tpm2,apple\n  muster enrollment \
        policy set --allow-unattested\n  muster enrollment policy set --platform linux --platform macos --devices-max \
        500\n  muster enrollment policy set --devices-max none\n  muster enrollment policy set --file \
        policy.json\n\nEach flag changes its part of the stored policy, and leaves the others. A file is the whole \
        policy, or what `show -o json` printed; flags beside it win."
    )]
    Set(Box<SetArgs>),
}

/// What to change.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SetArgs {
    /// The whole policy as JSON; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Accept these kinds of hardware proof and no others, and no device without any
    #[arg(long, value_name = "KIND", value_parser = [LEVELS[1], LEVELS[2], LEVELS[3], LEVELS[4]], value_delimiter = ',')]
    require_attestation: Vec<String>,
    /// Accept devices that prove nothing, besides those that do
    #[arg(long)]
    allow_unattested: bool,
    /// Accept devices of these owners only
    #[arg(long, value_parser = OWNERSHIPS, value_delimiter = ',')]
    ownership: Vec<String>,
    /// Accept these platforms only; may be repeated
    #[arg(long, value_parser = PLATFORMS, value_delimiter = ',', conflicts_with = "any_platform")]
    platform: Vec<String>,
    /// Accept every platform
    #[arg(long)]
    any_platform: bool,
    /// Accept these models only, `*` standing for any text; may be repeated
    #[arg(long, value_name = "PATTERN", conflicts_with = "any_model")]
    model: Vec<String>,
    /// Accept every model
    #[arg(long)]
    any_model: bool,
    /// Nobody enrolls before this time (RFC 3339), or `none`
    #[arg(long, value_name = "TIME")]
    opens_at: Option<String>,
    /// Nobody enrolls from this time on (RFC 3339), or `none`
    #[arg(long, value_name = "TIME")]
    closes_at: Option<String>,
    /// How many devices there may be, or `none`
    #[arg(long, value_name = "N", value_parser = limit)]
    devices_max: Option<Value>,
    /// How many devices one owner may have, or `none`
    #[arg(long, value_name = "N", value_parser = limit)]
    devices_per_owner_max: Option<Value>,
    /// How many devices of one model there may be, or `none`
    #[arg(long, value_name = "N", value_parser = limit)]
    devices_per_model_max: Option<Value>,
    /// How many devices may enroll in an hour, or `none`
    #[arg(long, value_name = "N", value_parser = limit)]
    enrollments_per_hour_max: Option<Value>,
    /// Trust these roots of TPM manufacturers (PEM) besides those that Muster knows
    #[arg(long, value_name = "FILE")]
    tpm_roots: Option<PathBuf>,
    /// Whether a TPM has to show, by its event log, that Secure Boot is on
    #[arg(long, value_name = "BOOL")]
    secure_boot_required: Option<bool>,
}

fn limit(text: &str) -> Result<Value, String> {
    if text == NONE {
        return Ok(Value::Null);
    }
    let number: u32 = text
        .parse()
        .map_err(|_| format!("it is a whole number, or {NONE}"))?;
    Ok(number.into())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Funnel {
    issued: i64,
    redeemed: i64,
    expired_unused: i64,
    with_failures: i64,
    failures: Vec<Failures>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Failures {
    code: String,
    tokens: i64,
    redeemed: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    policy: Map<String, Value>,
    version: i64,
    updated_by: Option<String>,
    updated_at: Option<String>,
}

/// Runs one verb.
pub async fn run(command: EnrollmentCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        EnrollmentCommand::Funnel { hours } => {
            let call = Call::get(&["enrollment-funnel"]).query("hours", hours);
            let answer: Answer<Funnel> = api.send(call).await?;
            printer.answer(&answer.value, |_| funnel(&answer.known))
        }
        EnrollmentCommand::Policy(PolicyCommand::Show) => {
            let answer: Answer<Stored> = api.send(Call::get(&["enrollment-policy"])).await?;
            printer.answer(&answer.value, |printer| policy(printer, &answer.known))
        }
        EnrollmentCommand::Policy(PolicyCommand::Set(arguments)) => set(&arguments, api, printer).await,
    }
}

async fn set(arguments: &SetArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let (mut document, version) = match &arguments.file {
        Some(path) => from_file(path)?,
        None => {
            let answer: Answer<Stored> = api.send(Call::get(&["enrollment-policy"])).await?;
            (answer.known.policy, Some(answer.known.version))
        }
    };
    let roots = match &arguments.tpm_roots {
        Some(path) => Some(text_of(path)?),
        None => None,
    };
    if !edit(arguments, roots, &mut document) && arguments.file.is_none() {
        return Err(CliError::Usage(
            "Nothing to change: give --file, or a flag that changes something.".to_owned(),
        ));
    }
    let body = json!({"policy": document, "version": version});
    let answer: Answer<Stored> = api.send(Call::put(&["enrollment-policy"], body)).await?;
    printer.answer(&answer.value, |printer| policy(printer, &answer.known))?;
    if accepts_unattested(&answer.known.policy) {
        printer.note("Devices without any proof of their hardware are accepted.");
    }
    Ok(())
}

/// A policy alone, or what `show -o json` prints, whose version then has to be the stored one.
fn from_file(path: &Path) -> Result<(Map<String, Value>, Option<i64>), CliError> {
    let not_one = || CliError::Content {
        path: path.to_owned(),
        detail: "it is no enrollment policy: a JSON object".to_owned(),
    };
    let Value::Object(mut document) = read_json(path)? else {
        return Err(not_one());
    };
    match document.remove("policy") {
        None => Ok((document, None)),
        Some(Value::Object(policy)) => Ok((policy, document.get("version").and_then(Value::as_i64))),
        Some(_) => Err(not_one()),
    }
}

fn text_of(path: &Path) -> Result<String, CliError> {
    String::from_utf8(read_file(path)?).map_err(|_| CliError::Content {
        path: path.to_owned(),
        detail: "it is not text in PEM".to_owned(),
    })
}

/// Applies the flags; false where none was given.
fn edit(arguments: &SetArgs, tpm_roots: Option<String>, document: &mut Map<String, Value>) -> bool {
    let mut changes: Vec<(&str, &str, Value)> = Vec::new();
    if !arguments.require_attestation.is_empty() || arguments.allow_unattested {
        let mut levels = arguments.require_attestation.clone();
        if levels.is_empty() {
            levels = words(document.get("attestation"));
        }
        if arguments.allow_unattested && !levels.iter().any(|level| level == UNATTESTED) {
            levels.push(UNATTESTED.to_owned());
        }
        changes.push(("", "attestation", json!(levels)));
    }
    let lists = [
        ("ownership", &arguments.ownership, false),
        ("platforms", &arguments.platform, arguments.any_platform),
        ("models", &arguments.model, arguments.any_model),
    ];
    for (name, list, is_any) in lists {
        if !list.is_empty() || is_any {
            changes.push(("", name, json!(list)));
        }
    }
    for (name, time) in [
        ("opens_at", &arguments.opens_at),
        ("closes_at", &arguments.closes_at),
    ] {
        if let Some(time) = time {
            let value = if time == NONE { Value::Null } else { json!(time) };
            changes.push(("", name, value));
        }
    }
    for (name, limit) in [
        ("devices_max", &arguments.devices_max),
        ("devices_per_owner_max", &arguments.devices_per_owner_max),
        ("devices_per_model_max", &arguments.devices_per_model_max),
        ("enrollments_per_hour_max", &arguments.enrollments_per_hour_max),
    ] {
        if let Some(limit) = limit {
            changes.push(("limits", name, limit.clone()));
        }
    }
    if let Some(roots) = tpm_roots {
        changes.push(("tpm", "roots_pem", roots.into()));
    }
    if let Some(is_required) = arguments.secure_boot_required {
        changes.push(("tpm", "secure_boot_required", is_required.into()));
    }
    let any = !changes.is_empty();
    for (part, name, value) in changes {
        put(document, part, name, value);
    }
    any
}

fn put(document: &mut Map<String, Value>, part: &str, name: &str, value: Value) {
    if part.is_empty() {
        document.insert(name.to_owned(), value);
        return;
    }
    let inner = document.entry(part).or_insert_with(|| json!({}));
    if let Some(inner) = inner.as_object_mut() {
        inner.insert(name.to_owned(), value);
    }
}

fn words(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn accepts_unattested(policy: &Map<String, Value>) -> bool {
    words(policy.get("attestation"))
        .iter()
        .any(|level| level == UNATTESTED)
}

fn funnel(funnel: &Funnel) -> Sheet {
    let waiting = funnel.issued - funnel.redeemed - funnel.expired_unused;
    let share = |count: i64| match funnel.issued {
        0 => "-".to_owned(),
        issued => format!("{} %", count * 100 / issued),
    };
    let steps = [
        ("issued", funnel.issued),
        ("redeemed", funnel.redeemed),
        ("waiting", waiting),
        ("expired unused", funnel.expired_unused),
        ("refused at least once", funnel.with_failures),
    ];
    let steps = steps.map(|(name, count)| vec![name.to_owned(), count.to_string(), share(count)]);
    let failures = funnel.failures.iter().map(|failure| {
        vec![
            failure.code.clone(),
            failure.tokens.to_string(),
            failure.redeemed.to_string(),
        ]
    });
    Sheet::new()
        .rows("tokens", &["tokens", "count", "share"], steps.into())
        .rows(
            "refusals",
            &["refused for", "tokens", "used after all"],
            failures.collect(),
        )
}

fn policy(printer: &Printer, stored: &Stored) -> Sheet {
    let part = |name: &str| stored.policy.get(name).cloned().unwrap_or_default();
    let any = |name: &str| match words(stored.policy.get(name)) {
        list if list.is_empty() => "any".to_owned(),
        list => list.join(", "),
    };
    let time = |name: &str| match part(name) {
        Value::Null => None,
        other => Some(printer.when(Some(&plain(&other)))),
    };
    let (limits, tpm) = (part("limits"), part("tpm"));
    let limit = |name: &str| Some(&limits[name]).filter(|limit| !limit.is_null()).map(plain);
    let yes = |value: &Value| Some(if value == true { "yes" } else { "no" }.to_owned());
    let roots = tpm["roots_pem"].as_str().unwrap_or_default();
    let own_roots = roots.matches("BEGIN CERTIFICATE").count();
    let version = match stored.version {
        0 => "the default".to_owned(),
        version => version.to_string(),
    };
    Sheet::new().fields(vec![
        ("version", Some(version)),
        ("changed by", stored.updated_by.clone()),
        (
            "changed",
            stored.updated_at.as_deref().map(|at| printer.when(Some(at))),
        ),
        ("attestation", Some(any("attestation"))),
        ("ownership", Some(any("ownership"))),
        ("platforms", Some(any("platforms"))),
        ("models", Some(any("models"))),
        ("opens", time("opens_at")),
        ("closes", time("closes_at")),
        ("devices at most", limit("devices_max")),
        ("per owner", limit("devices_per_owner_max")),
        ("per model", limit("devices_per_model_max")),
        ("per hour", limit("enrollments_per_hour_max")),
        ("known TPM makers", yes(&tpm["well_known_roots"])),
        ("own TPM roots", Some(own_roots.to_string())),
        ("secure boot", yes(&tpm["secure_boot_required"])),
    ])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: SetArgs,
    }

    fn check(flags: &str, expected: Option<(&str, Value)>) {
        let stored = json!({
            "attestation": ["tpm2", "apple"], "limits": {"devices_max": 5, "devices_per_owner_max": 1},
            "android": {"roots_pem": "x"},
        });
        let Value::Object(mut document) = stored.clone() else {
            panic!("it is an object")
        };
        let line = std::iter::once("set").chain(flags.split_whitespace());
        let line = Line::try_parse_from(line).expect("it parses");
        let any = edit(&line.arguments, None, &mut document);
        assert_eq!(any, expected.is_some(), "{flags}");
        let mut wanted = stored;
        if let Some((place, value)) = expected {
            let (parent, name) = place.rsplit_once('/').expect("a place has a slash");
            wanted.pointer_mut(parent).expect("it is there")[name] = value;
        }
        assert_eq!(Value::Object(document), wanted, "{flags}");
    }

    #[test]
    fn a_flag_changes_its_part_alone() {
        check("", None);
        check(
            "--require-attestation tpm2,android_strongbox",
            Some(("/attestation", json!(["tpm2", "android_strongbox"]))),
        );
        check(
            "--allow-unattested",
            Some(("/attestation", json!(["tpm2", "apple", "unattested"]))),
        );
        check(
            "--require-attestation tpm2 --allow-unattested",
            Some(("/attestation", json!(["tpm2", "unattested"]))),
        );
        check(
            "--platform linux,macos",
            Some(("/platforms", json!(["linux", "macos"]))),
        );
        check("--any-platform", Some(("/platforms", json!([]))));
        check("--model ThinkPad*", Some(("/models", json!(["ThinkPad*"]))));
        check("--opens-at none", Some(("/opens_at", Value::Null)));
        check("--devices-max none", Some(("/limits/devices_max", Value::Null)));
        check("--devices-max 7", Some(("/limits/devices_max", json!(7))));
    }

    #[test]
    fn a_policy_is_read_alone_and_as_it_is_shown() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let read = |text: &str| {
            let path = folder.path().join("policy.json");
            std::fs::write(&path, text).expect("it can be written");
            from_file(&path).map(|(document, version)| (Value::Object(document), version))
        };
        assert_eq!(
            read(r#"{"models":["x"]}"#).expect("a policy"),
            (json!({"models": ["x"]}), None)
        );
        assert_eq!(
            read(r#"{"policy":{"models":["x"]},"version":3,"updated_by":null}"#).expect("as shown"),
            (json!({"models": ["x"]}), Some(3))
        );
        for wrong in ["[]", "1", r#"{"policy":[]}"#, "{"] {
            assert!(matches!(read(wrong), Err(CliError::Content { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(limit("none"), Ok(Value::Null));
        assert_eq!(limit("0"), Ok(json!(0)));
        assert!(limit("-1").is_err() && limit("many").is_err());
    }
}
