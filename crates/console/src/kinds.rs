//! Commands for people: what each does in words, and the fields of its form.

use muster_control::access::problem::INVALID;
use muster_model::{
    CommandKind,
    command::{RotatedKey, WipeMode},
};
use serde_json::{Map, Value};

use crate::{form::Fields, shell::Refusal};

/// A type of command as a choice.
#[derive(Debug)]
pub struct Choice {
    /// What `type` holds.
    pub kind: &'static str,
    pub label: &'static str,
    pub meaning: &'static str,
    pub fields: &'static [Field],
    /// It removes something for good.
    pub is_danger: bool,
}

/// A field of a command's form.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub label: &'static str,
    pub hint: &'static str,
    pub input: Input,
    pub is_required: bool,
}

/// How a field is filled in.
#[derive(Debug)]
pub enum Input {
    /// At most so many characters.
    Text(usize),
    /// From 0 to this.
    Number(u32),
    /// One value a line.
    Lines,
    /// Value and label of each.
    Select(&'static [(&'static str, &'static str)]),
}

const fn text(name: &'static str, label: &'static str, hint: &'static str, chars_max: usize) -> Field {
    Field {
        name,
        label,
        hint,
        input: Input::Text(chars_max),
        is_required: false,
    }
}

const fn required(field: Field) -> Field {
    Field {
        is_required: true,
        ..field
    }
}

const fn number(name: &'static str, label: &'static str, max: u32) -> Field {
    Field {
        name,
        label,
        hint: "optional",
        input: Input::Number(max),
        is_required: false,
    }
}

const fn select(
    name: &'static str,
    label: &'static str,
    options: &'static [(&'static str, &'static str)],
) -> Field {
    Field {
        name,
        label,
        hint: "",
        input: Input::Select(options),
        is_required: true,
    }
}

const fn choice(
    kind: &'static str,
    label: &'static str,
    meaning: &'static str,
    fields: &'static [Field],
) -> Choice {
    Choice {
        kind,
        label,
        meaning,
        fields,
        is_danger: false,
    }
}

const fn danger(choice: Choice) -> Choice {
    Choice {
        is_danger: true,
        ..choice
    }
}

const PACKAGE: Field = required(text(
    "package",
    "Package",
    "as the device's package manager calls it",
    255,
));

/// Every type, the often used ones first.
pub const CHOICES: &[Choice] = &[
    choice(
        "lock",
        "Lock",
        "Locks the screens of all sessions.",
        &[text("message", "Message on the lock screen", "optional", 256)],
    ),
    choice("unlock", "Unlock", "Unlocks what a lock locked.", &[]),
    choice(
        "message",
        "Message",
        "Shows a text to whoever is signed in.",
        &[required(text("text", "Text", "", 256))],
    ),
    choice(
        "restart",
        "Restart",
        "Restarts the device.",
        &[number("delay_seconds", "Delay in seconds", 3600)],
    ),
    choice(
        "shut-down",
        "Shut down",
        "Turns the device off.",
        &[number("delay_seconds", "Delay in seconds", 3600)],
    ),
    choice(
        "collect-inventory",
        "Collect inventory",
        "Asks the device to send its facts now.",
        &[],
    ),
    choice(
        "collect-logs",
        "Collect logs",
        "Asks for the system's log of the last seconds.",
        &[number("since_seconds", "How far back, in seconds", 604_800)],
    ),
    choice(
        "collect-files",
        "Collect files",
        "Asks for files.",
        &[Field {
            name: "paths",
            label: "Paths",
            hint: "absolute, one a line, at most 16",
            input: Input::Lines,
            is_required: true,
        }],
    ),
    choice(
        "install-app",
        "Install app",
        "Installs a package, or this version of it.",
        &[PACKAGE, text("version", "Version", "optional", 128)],
    ),
    choice(
        "update-app",
        "Update app",
        "Brings a package to its newest version.",
        &[PACKAGE],
    ),
    choice("remove-app", "Remove app", "Removes a package.", &[PACKAGE]),
    choice(
        "update-os",
        "Update OS",
        "Installs the updates of the operating system.",
        &[],
    ),
    choice(
        "update-agent",
        "Update agent",
        "Installs this version of the agent.",
        &[required(text("version", "Version", "", 128))],
    ),
    choice(
        "run-script",
        "Run script",
        "Runs a script that the policy signer signed.",
        &[
            required(text(
                "sha256",
                "SHA-256 of the signed script",
                "64 hexadecimal digits",
                64,
            )),
            Field {
                name: "arguments",
                label: "Arguments",
                hint: "optional, one a line",
                input: Input::Lines,
                is_required: false,
            },
            number("timeout_seconds", "Seconds that it may run", 3600),
        ],
    ),
    choice(
        "rotate-key",
        "Rotate key",
        "Makes the device replace a key of its own.",
        &[select(
            "key",
            "Which key",
            &[
                ("certificate", "The device certificate"),
                ("disk-recovery", "The recovery key of the disk"),
            ],
        )],
    ),
    choice(
        "clear-passcode",
        "Clear passcode",
        "The next sign-in chooses a new passcode; the old one ends.",
        &[],
    ),
    choice(
        "lost-mode-on",
        "Lost mode on",
        "Locks the device to one screen that says whom to call.",
        &[
            text("message", "Message", "optional", 256),
            text("phone", "Whom to call", "optional", 256),
        ],
    ),
    choice("lost-mode-off", "Lost mode off", "Ends lost mode.", &[]),
    choice(
        "locate",
        "Locate",
        "Asks where the device is. Only in lost mode.",
        &[],
    ),
    danger(choice(
        "wipe",
        "Wipe",
        "Removes data for good.",
        &[select(
            "mode",
            "What",
            &[
                ("enterprise", "What belongs to the organization"),
                ("full", "Everything on the device"),
            ],
        )],
    )),
    danger(choice(
        "unenroll",
        "Unenroll",
        "The device leaves the management and forgets what it was given.",
        &[],
    )),
];

/// The choice of this type.
pub fn find(kind: &str) -> Option<&'static Choice> {
    CHOICES.iter().find(|choice| choice.kind == kind)
}

/// What a command does, as a title.
pub fn words(kind: &CommandKind) -> String {
    match kind {
        CommandKind::Wipe { mode: WipeMode::Full } => "Wipe everything".to_owned(),
        CommandKind::Wipe {
            mode: WipeMode::Enterprise,
        } => "Wipe what belongs to the organization".to_owned(),
        CommandKind::InstallApp {
            package,
            version: Some(version),
        } => format!("Install {package} {version}"),
        CommandKind::InstallApp {
            package,
            version: None,
        } => format!("Install {package}"),
        CommandKind::RemoveApp { package } => format!("Remove {package}"),
        CommandKind::UpdateApp { package } => format!("Update {package}"),
        CommandKind::UpdateAgent { version } => format!("Update the agent to {version}"),
        CommandKind::RotateKey {
            key: RotatedKey::Certificate,
        } => "Renew the device certificate".to_owned(),
        CommandKind::RotateKey {
            key: RotatedKey::DiskRecovery,
        } => "Replace the disk's recovery key".to_owned(),
        CommandKind::Lock { .. }
        | CommandKind::Unlock {}
        | CommandKind::ClearPasscode {}
        | CommandKind::Restart { .. }
        | CommandKind::ShutDown { .. }
        | CommandKind::Unenroll {}
        | CommandKind::LostModeOn { .. }
        | CommandKind::LostModeOff {}
        | CommandKind::Locate {}
        | CommandKind::RunScript { .. }
        | CommandKind::CollectInventory {}
        | CommandKind::CollectLogs { .. }
        | CommandKind::CollectFiles { .. }
        | CommandKind::UpdateOs {}
        | CommandKind::Message { .. } => label(kind.type_name()).to_owned(),
        CommandKind::LoosenPolicy {
            bundle_sha256: Some(_),
            ..
        } => "Let a policy ask for less".to_owned(),
        CommandKind::LoosenPolicy {
            bundle_sha256: None, ..
        } => "Take a policy away".to_owned(),
    }
}

/// What a type is called; the word itself where it is unknown.
pub fn label(kind: &str) -> &str {
    find(kind).map_or(kind, |choice| choice.label)
}

/// The arguments that [`words`] leaves out, with what each is called.
pub fn facts(kind: &CommandKind) -> Vec<(&'static str, String)> {
    if let CommandKind::LoosenPolicy {
        policy_id,
        bundle_sha256,
    } = kind
    {
        let bundle = bundle_sha256
            .as_ref()
            .map(|sha256| ("SHA-256 of the bundle", sha256.to_string()));
        return [("Policy", policy_id.to_string())]
            .into_iter()
            .chain(bundle)
            .collect();
    }
    let document = serde_json::to_value(kind).unwrap_or_default();
    let fields = find(kind.type_name()).map_or(&[][..], |choice| choice.fields);
    let said = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(" ")
        }
        other => other.to_string(),
    };
    fields
        .iter()
        .filter(|field| !matches!(field.input, Input::Select(_)) && field.name != "package")
        .filter_map(|field| Some((field.label, said(document.get(field.name)?))))
        .collect()
}

/// Reads a form as a command of the model, whose rules bound every argument.
pub fn read(form: &Fields) -> Result<CommandKind, Refusal> {
    let Some(choice) = find(form.text("type")) else {
        return Err(Refusal(INVALID.detail("Choose one of the commands.")));
    };
    let mut document = Map::new();
    document.insert("type".to_owned(), choice.kind.into());
    for field in choice.fields {
        match field.input {
            Input::Text(_) | Input::Select(_) => {
                if let Some(text) = form.optional(field.name) {
                    document.insert(field.name.to_owned(), text.into());
                }
            }
            Input::Number(_) => {
                if let Some(number) = form.parsed::<u32>(field.name)? {
                    document.insert(field.name.to_owned(), number.into());
                }
            }
            Input::Lines => {
                let lines = form.text(field.name).lines().map(str::trim);
                let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
                if !lines.is_empty() {
                    document.insert(field.name.to_owned(), lines.into());
                }
            }
        }
    }
    let text = Value::Object(document).to_string();
    CommandKind::parse(text.as_bytes()).map_err(|error| Refusal(INVALID.detail(format!("{error}."))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_can_be_chosen() {
        let not_for_devices = ["loosen-policy"];
        for kind in CommandKind::TYPES {
            assert!(find(kind).is_some() || not_for_devices.contains(&kind), "{kind}");
        }
        assert_eq!(CHOICES.len() + not_for_devices.len(), CommandKind::TYPES.len());
    }

    #[test]
    fn what_is_destructive_is_marked() {
        for choice in CHOICES {
            let mut form = vec![("type".to_owned(), choice.kind.to_owned())];
            for field in choice.fields {
                let value = match (field.name, &field.input) {
                    ("sha256", _) => "0".repeat(64),
                    ("paths", _) => "/etc/hosts\n/etc/hostname".to_owned(),
                    (_, Input::Number(_)) => "7".to_owned(),
                    (_, Input::Select(options)) => options[0].0.to_owned(),
                    (_, Input::Text(_) | Input::Lines) => "1x".to_owned(),
                };
                form.push((field.name.to_owned(), value));
            }
            let kind = read(&Fields::of(form)).expect("it is a command");
            assert_eq!(kind.type_name(), choice.kind);
            assert_eq!(kind.is_destructive(), choice.is_danger, "{}", choice.kind);
            assert!(!words(&kind).is_empty());
        }
    }

    #[test]
    fn arguments_are_told() {
        let kind = CommandKind::parse(br#"{"type":"collect-files","paths":["/a","/b"]}"#).expect("a command");
        assert_eq!(facts(&kind), [("Paths", "/a /b".to_owned())]);
        let wipe = CommandKind::Wipe { mode: WipeMode::Full };
        assert_eq!(
            (words(&wipe), facts(&wipe)),
            ("Wipe everything".to_owned(), Vec::new())
        );
    }
}
