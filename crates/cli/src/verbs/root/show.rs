//! Root documents as tables.

use std::time::Duration;

use muster_trust::key::sha256;
use muster_trust::root::{Role, RootDocument};
use muster_trust::root_change;
use serde_json::Value;

use crate::CliError;
use crate::output::{Printer, Sheet};
use crate::root_file::{Count, RootFile, Signed};

/// What the next document of a file changes, with a mark before what weakens.
pub fn changes(file: &RootFile) -> Result<Sheet, CliError> {
    let draft = file.draft()?;
    let list = root_change::changes(&file.current, &draft.document);
    let title = format!(
        "Root document {} of {} (SHA-256 {}) changes, against version {}:",
        draft.document.version,
        file.tenant(),
        sha256(&draft.envelope.payload),
        file.current.version
    );
    if list.is_empty() {
        return Ok(Sheet::new().text(format!("{title}\nnothing but its version and times")));
    }
    let rows = list
        .into_iter()
        .map(|change| vec![if change.weakens { "!" } else { "" }.to_owned(), change.text])
        .collect();
    Ok(Sheet::new().text(title).rows("changes", &["", "change"], rows))
}

/// Who signed, and what is to be done next.
pub fn signatures(file: &RootFile, signed: &Signed) -> Sheet {
    let version = file.next.as_ref().map_or(0, |next| next.document.version);
    let next = if signed.suffices() {
        "It is complete: carry it back, and `muster root publish --in FILE`."
    } else {
        "More signatures are needed: `muster root sign --in FILE --key KEY`."
    };
    Sheet::new().text(format!(
        "Root document {version} is signed by {}.\n{next}",
        counts(file, signed)
    ))
}

/// How many of which keys signed.
pub fn counts(file: &RootFile, signed: &Signed) -> String {
    let version = file.current.version;
    let of = |count: Count, version: u64| {
        format!(
            "{} of {} root keys of version {version}",
            count.valid, count.threshold
        )
    };
    format!(
        "{} and {}",
        of(signed.before, version),
        of(signed.own, version + 1)
    )
}

/// What was verified.
pub fn verified(file: &RootFile, signed: Option<&Signed>, printer: &Printer) -> Sheet {
    let sheet = Sheet::new().fields(vec![
        ("tenant", Some(file.tenant().to_string())),
        ("version", Some(file.current.version.to_string())),
        ("first document", Some(file.first_sha256().to_string())),
        (
            "expires",
            Some(printer.when(Some(&file.current.expires_at.to_string()))),
        ),
    ]);
    match signed {
        Some(signed) => sheet.text(format!(
            "The next document is signed by {}.",
            counts(file, signed)
        )),
        None => sheet.text("Every document is signed by the one before it."),
    }
}

/// A whole document.
pub fn document(file: &RootFile, warnings: &Value, printer: &Printer) -> Sheet {
    let document = &file.current;
    let budget = format!(
        "{} devices an hour, or {} of the fleet where that is more",
        document.budgets.destructive_per_hour_min, document.budgets.destructive_fraction
    );
    let mut sheet = Sheet::new()
        .fields(vec![
            ("tenant", Some(document.tenant.to_string())),
            ("version", Some(document.version.to_string())),
            ("made", Some(printer.when(Some(&document.issued_at.to_string())))),
            (
                "expires",
                Some(printer.when(Some(&document.expires_at.to_string()))),
            ),
            ("first document", Some(file.first_sha256().to_string())),
            ("restore epoch", Some(document.restore_epoch.to_string())),
            ("settled heads", settled(document)),
            ("budget", Some(budget)),
            (
                "cool-down",
                Some(humantime::format_duration(seconds(document.approval.cool_down_seconds)).to_string()),
            ),
            (
                "delay",
                Some(humantime::format_duration(seconds(document.approval.delay_seconds)).to_string()),
            ),
            ("also approved", also(document)),
        ])
        .rows("keys", &["role", "must sign", "key", "algorithm"], keys(document))
        .rows(
            "approvers",
            &["person", "key", "kind", "accounts", "counts from"],
            approvers(document),
        );
    if document.role(Role::Approver).1 == 1 {
        sheet = sheet.text("One person alone approves destructive commands (m = 1).");
    }
    for warning in warnings.as_array().into_iter().flatten() {
        sheet = sheet.text(format!("warning: {}", warning.as_str().unwrap_or_default()));
    }
    sheet
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

/// Heads of other histories that whoever holds the root keys has looked into.
fn settled(document: &RootDocument) -> Option<String> {
    let heads: Vec<String> = document.settled_heads.iter().map(ToString::to_string).collect();
    (!heads.is_empty()).then(|| heads.join(", "))
}

fn also(document: &RootDocument) -> Option<String> {
    let kinds: Vec<&str> = document.approval.also.iter().map(String::as_str).collect();
    (!kinds.is_empty()).then(|| kinds.join(", "))
}

fn keys(document: &RootDocument) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for role in Role::ALL {
        let Some(members) = document.roles.get(&role) else {
            continue;
        };
        for (index, id) in members.keys.iter().enumerate() {
            let (name, must) = match index {
                0 => (
                    role.to_string(),
                    format!("{} of {}", members.threshold, members.keys.len()),
                ),
                _ => (String::new(), String::new()),
            };
            let algorithm = document.keys.get(id).map(|key| format!("{:?}", key.algorithm()));
            rows.push(vec![name, must, id.to_string(), algorithm.unwrap_or_default()]);
        }
    }
    rows
}

fn approvers(document: &RootDocument) -> Vec<Vec<String>> {
    let cool_down = seconds(document.approval.cool_down_seconds);
    document
        .approvers
        .iter()
        .map(|(id, approver)| {
            let accounts: Vec<&str> = approver.accounts.iter().map(String::as_str).collect();
            let kind = approver
                .passkey
                .as_ref()
                .map_or("file".to_owned(), |party| format!("passkey of {}", party.id));
            vec![
                approver.person.to_string(),
                root_change::short(id),
                kind,
                accounts.join(" "),
                approver.added_at.plus(cool_down).to_string(),
            ]
        })
        .collect()
}
