//! `muster policy compile`: what a policy becomes on each platform, from the server or from a file without any server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_channel_apple::{ApplePlatform, AppleTarget};
use muster_model::Platform;
use muster_model::compile::{Compiled, SettingOutcome};
use muster_model::settings::{Settings, definition};
use muster_trust::key::sha256;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::clock;
use crate::context::{read_input, write_private};
use crate::output::{Printer, Sheet};

pub const HELP: &str = "Examples:\n  muster policy compile baseline 2026.05\n  muster policy compile baseline 2026.05 --platform \
    macos --out compiled\n  muster policy compile --file settings.json --platform ios --unsupervised\n\nEXACT: it means there \
    what it means here. WEAKER: less, or something else, as the reason says. NOT_EXPRESSIBLE: nothing is written for it. \
    NEEDS_AGENT: our agent on the device can, the platform's own channel cannot.\n\nWith --file nothing is sent anywhere; the \
    names of payloads then do not follow from a policy, so the bytes differ from the server's. The files of --out hold \
    the policy's secrets; downloading them needs policy:write.";

/// The longest name of a file that a server may give.
const NAME_CHARS_MAX: usize = 128;

/// What `policy compile` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct CompileArgs {
    /// The policy's id or name
    #[arg(required_unless_present = "file", requires = "version")]
    policy: Option<String>,
    version: Option<String>,
    /// A JSON object of settings in place of a policy's version; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "version"])]
    file: Option<PathBuf>,
    /// Only for this platform; may be repeated
    #[arg(long, value_name = "PLATFORM", value_parser = platform)]
    platform: Vec<Platform>,
    /// For iPhones and iPads that are not supervised
    #[arg(long)]
    unsupervised: bool,
    /// Write the files into a folder for each platform here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl CompileArgs {
    /// Whether no server is asked.
    pub fn is_offline(&self) -> bool {
        self.file.is_some()
    }

    fn platforms(&self) -> Vec<Platform> {
        if self.platform.is_empty() {
            Platform::ALL.to_vec()
        } else {
            self.platform.clone()
        }
    }
}

fn platform(word: &str) -> Result<Platform, String> {
    let words = || Platform::ALL.map(Platform::as_str).join(", ");
    Platform::parse(word).ok_or_else(|| format!("one of {}", words()))
}

/// What one platform makes of the settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct View {
    platform: String,
    outcomes: Vec<Outcome>,
    artifacts: Vec<Artifact>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    key: String,
    support: String,
    why: Option<String>,
    carriers: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Artifact {
    name: String,
    media_type: String,
    bytes: u64,
    sha256: String,
}

/// Compiles a file here, without a server.
pub fn offline(arguments: &CompileArgs, printer: &Printer) -> Result<(), CliError> {
    let path = arguments.file.as_deref().unwrap_or(Path::new("-"));
    let settings = Settings::parse(&read_input(path)?).map_err(|errors| CliError::Content {
        path: path.to_owned(),
        detail: errors
            .iter()
            .map(|error| format!("{}: {} ({})", error.key, error.detail, error.code))
            .collect::<Vec<_>>()
            .join("; "),
    })?;
    let mut values = Vec::new();
    for platform in arguments.platforms() {
        let compiled = compile(&settings, platform, arguments);
        for artifact in &compiled.artifacts {
            save(arguments, platform.as_str(), &artifact.name, &artifact.bytes)?;
        }
        values.push(value_of(platform, &compiled)?);
    }
    show(values, printer)
}

/// Asks the server for a version, and for its files where they are to be written.
pub async fn online(arguments: &CompileArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let (Some(policy), Some(version)) = (&arguments.policy, &arguments.version) else {
        return Err(CliError::Usage(
            "say which policy and version, or --file".to_owned(),
        ));
    };
    let base = [
        "policies",
        policy.as_str(),
        "versions",
        version.as_str(),
        "compiled",
    ];
    let mut values = Vec::new();
    for platform in arguments.platforms() {
        let answer: Answer<View> = api.send(query(Call::get(&base), platform, arguments)).await?;
        let wanted = if arguments.out.is_some() {
            answer.known.artifacts.as_slice()
        } else {
            &[]
        };
        for artifact in wanted {
            let path = [&base[..], &[artifact.name.as_str()]].concat();
            let raw = api
                .send_raw(query(Call::get(&path).accept("*/*"), platform, arguments))
                .await?;
            if sha256(&raw.bytes).to_hex() != artifact.sha256 {
                let name = &artifact.name;
                return Err(CliError::Answer(format!(
                    "{name} does not have the digest of the list"
                )));
            }
            save(arguments, platform.as_str(), &artifact.name, &raw.bytes)?;
        }
        values.push(answer.value);
    }
    show(values, printer)
}

fn query<'a>(call: Call<'a>, platform: Platform, arguments: &CompileArgs) -> Call<'a> {
    call.query("platform", Some(platform.as_str()))
        .query("supervised", Some(!arguments.unsupervised))
}

fn compile(settings: &Settings, platform: Platform, arguments: &CompileArgs) -> Compiled {
    let apple = |platform| {
        let target = AppleTarget {
            platform,
            supervised: !arguments.unsupervised,
            organization: "Muster".to_owned(),
            identifier_prefix: "muster.offline".to_owned(),
            seed: Uuid::nil(),
            escrow_certificate: None,
        };
        muster_channel_apple::compile(settings, &target)
    };
    match platform {
        Platform::Macos => apple(ApplePlatform::Macos),
        Platform::Ios => apple(ApplePlatform::Ios),
        // The agent reads the bundle itself; there is nothing to translate.
        Platform::Linux => by_catalogue(settings, platform),
        Platform::Android => {
            muster_channel_android::compile(settings, &muster_channel_android::Target::default())
        }
        Platform::Windows => {
            muster_channel_windows::compile(settings, &muster_channel_windows::Target::at(clock::now()))
        }
    }
}

fn by_catalogue(settings: &Settings, platform: Platform) -> Compiled {
    let outcome = |(key, value)| {
        let def = definition(key)?;
        Some(SettingOutcome {
            key: def.key,
            support: def.support_for(platform, value),
            carriers: Vec::new(),
        })
    };
    Compiled {
        artifacts: Vec::new(),
        outcomes: settings.iter().filter_map(outcome).collect(),
    }
}

/// The same JSON as the server's.
fn value_of(platform: Platform, compiled: &Compiled) -> Result<Value, CliError> {
    let artifacts: Vec<Value> = compiled
        .artifacts
        .iter()
        .map(|artifact| {
            json!({
                "name": artifact.name, "media_type": artifact.media_type, "bytes": artifact.bytes.len(),
                "sha256": sha256(&artifact.bytes).to_hex(),
            })
        })
        .collect();
    let outcomes =
        serde_json::to_value(&compiled.outcomes).map_err(|error| CliError::Answer(error.to_string()))?;
    Ok(json!({"platform": platform.as_str(), "outcomes": outcomes, "artifacts": artifacts}))
}

/// Writes one file, private to its owner. The name is the server's, so it may name nothing but a file in the folder.
fn save(arguments: &CompileArgs, platform: &str, name: &str, bytes: &[u8]) -> Result<(), CliError> {
    let Some(folder) = &arguments.out else {
        return Ok(());
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || name.starts_with('.') || !name.chars().all(is_plain)
    {
        return Err(CliError::Answer(format!("{name:?} is no name of a file")));
    }
    write_private(&folder.join(platform).join(name), bytes)
}

fn show(values: Vec<Value>, printer: &Printer) -> Result<(), CliError> {
    let views = values
        .iter()
        .map(|value| View::deserialize(value).map_err(|error| CliError::Answer(error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    printer.answer(&json!({"platforms": values}), |_| sheet(&views))
}

/// Settings × platforms in words, then why a platform falls short, then the files.
fn sheet(views: &[View]) -> Sheet {
    let mut words: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut short, mut files) = (Vec::new(), Vec::new());
    for view in views {
        for outcome in &view.outcomes {
            let word = outcome.support.to_uppercase();
            words.entry(&outcome.key).or_default().push(word.clone());
            if let Some(why) = &outcome.why {
                short.push(vec![
                    outcome.key.clone(),
                    view.platform.clone(),
                    word,
                    why.clone(),
                ]);
            }
        }
        for artifact in &view.artifacts {
            files.push(vec![
                view.platform.clone(),
                artifact.name.clone(),
                artifact.media_type.clone(),
                artifact.bytes.to_string(),
                artifact.sha256.clone(),
            ]);
        }
    }
    short.sort();
    let mut header = vec!["setting"];
    header.extend(
        views
            .iter()
            .filter_map(|view| Platform::parse(&view.platform).map(Platform::as_str)),
    );
    let rows = words
        .into_iter()
        .map(|(key, words)| [vec![key.to_owned()], words].concat())
        .collect();
    let mut sheet = Sheet::new().rows("settings", &header, rows);
    if let [view] = views {
        let carried = view
            .outcomes
            .iter()
            .filter(|outcome| !outcome.carriers.is_empty());
        let rows: Vec<_> = carried
            .map(|outcome| vec![outcome.key.clone(), outcome.carriers.join("\n")])
            .collect();
        if !rows.is_empty() {
            sheet = sheet.rows("carriers", &["setting", "carried by"], rows);
        }
    }
    if !short.is_empty() {
        sheet = sheet.rows("reasons", &["setting", "platform", "outcome", "why"], short);
    }
    if files.is_empty() {
        sheet
    } else {
        sheet.rows(
            "files",
            &["platform", "file", "media type", "bytes", "sha256"],
            files,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(out: &Path) -> CompileArgs {
        CompileArgs {
            policy: None,
            version: None,
            file: None,
            platform: Vec::new(),
            unsupervised: false,
            out: Some(out.to_owned()),
        }
    }

    #[test]
    fn a_server_cannot_choose_another_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = arguments(folder.path());
        for name in ["../x", "/etc/x", ".x", "", "a/b", "a\\b", "a\u{0}"] {
            save(&arguments, "macos", name, b"x").expect_err(name);
        }
        save(&arguments, "macos", "policy.mobileconfig", b"x").expect("a plain name");
        let written = std::fs::read(folder.path().join("macos/policy.mobileconfig")).expect("it is there");
        assert_eq!(written, b"x");
    }

    #[test]
    fn every_platform_has_an_outcome_for_every_setting_and_the_same_json_as_the_servers() {
        let settings =
            Settings::parse(br#"{"passcode.min_length":17,"camera.allowed":false}"#).expect("valid");
        let folder = tempfile::tempdir().expect("a folder");
        for platform in Platform::ALL {
            let compiled = compile(&settings, platform, &arguments(folder.path()));
            let value = value_of(platform, &compiled).expect("it is JSON");
            let view = View::deserialize(&value).expect("it is a view");
            assert_eq!(
                (view.platform.as_str(), view.outcomes.len()),
                (platform.as_str(), 2)
            );
            assert_eq!(view.outcomes[0].key, "camera.allowed");
        }
        let compiled = compile(&settings, Platform::Macos, &arguments(folder.path()));
        let length = View::deserialize(&value_of(Platform::Macos, &compiled).expect("JSON"))
            .expect("a view")
            .outcomes[1]
            .clone();
        assert_eq!(length.support, "not_expressible");
        assert!(length.why.is_some() && length.carriers.is_empty());
    }
}
