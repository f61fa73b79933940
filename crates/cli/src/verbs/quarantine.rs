//! `muster device quarantine …` and `muster device decide …`

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet};

/// Verbs of the quarantine.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum QuarantineCommand {
    /// Each device in quarantine beside the device whose hardware it claims, newest first
    #[command(
        after_help = "Examples:\n  muster device quarantine list\n  muster device quarantine list --all -o \
        json\n\nDecide with `muster device decide ID merge|keep-both|reject`."
    )]
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

/// What becomes of a device in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Decision {
    /// They are one machine: the new one takes the other's place, which is retired
    #[value(alias = "accept")]
    Merge,
    /// They are two machines with the same hardware ids: both are active
    KeepBoth,
    /// The new one has no business here: it is retired
    Reject,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    id: String,
    enrolled_at: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Case {
    device: Side,
    rivals: Vec<Side>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Side {
    id: String,
    name: String,
    device_uuid: String,
    serial: Option<String>,
    owner: Option<String>,
    platform: String,
    model: Option<String>,
    vendor: Option<String>,
    state: String,
    quarantine_reason: Option<String>,
    attestation: Attestation,
    ownership: String,
    protocol: String,
    enrolled_at: Option<String>,
    last_seen_at: Option<String>,
    key_sha256: String,
    claims: Vec<Claim>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Attestation {
    level: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Claim {
    kind: String,
    value: String,
}

/// Runs one verb.
pub async fn run(command: QuarantineCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let QuarantineCommand::List { paging } = command;
    let call = Call::get(&["devices"]).query("filter", Some("state:quarantined"));
    let mut found: Answer<Page<Listed>> = list(api, call, &paging).await?;
    found
        .known
        .items
        .sort_by(|left, right| right.enrolled_at.cmp(&left.enrolled_at));
    let (mut values, mut cases) = (Vec::new(), Vec::new());
    for device in &found.known.items {
        let answer: Result<Answer<Case>, CliError> =
            api.send(Call::get(&["devices", &device.id, "quarantine"])).await;
        match answer {
            Ok(answer) => {
                values.push(answer.value);
                cases.push(answer.known);
            }
            // Somebody decided about it since the list was made.
            Err(CliError::Refused(problem))
                if ["illegal_state", "not_found"].contains(&problem.code.as_str()) => {}
            Err(other) => return Err(other),
        }
    }
    let next = found.known.next_cursor;
    let value = json!({"items": values, "next_cursor": next});
    printer.answer(&value, |printer| sheet(printer, &cases))?;
    printer.next_page(next.as_deref());
    Ok(())
}

fn sheet(printer: &Printer, cases: &[Case]) -> Sheet {
    if cases.is_empty() {
        return Sheet::new().text("Nothing waits for a decision.");
    }
    let mut sheet = Sheet::new();
    for case in cases {
        let reason = case.device.quarantine_reason.clone().unwrap_or_default();
        let rivals = match case.rivals.len() {
            0 => "Nobody holds what it claims any more.",
            1 => "It stands beside the device that was there first.",
            _ => "It stands beside the devices that were there first.",
        };
        sheet = sheet.text(format!("{}: {reason}. {rivals}", case.device.name));
        let mut header = vec!["", "enrolling now"];
        header.resize(2 + case.rivals.len(), "already known");
        header.push("");
        sheet = sheet.rows("devices", &header, rows(printer, case));
    }
    sheet.text("Decide with `muster device decide ID merge`, `keep-both` or `reject`.")
}

/// A fact of a side.
type OfSide = fn(&Side) -> String;

/// One row of each fact: the new device, the others, and whether they agree.
fn rows(printer: &Printer, case: &Case) -> Vec<Vec<String>> {
    let sides: Vec<&Side> = std::iter::once(&case.device).chain(&case.rivals).collect();
    let judged: [(&str, OfSide); 11] = [
        ("uuid", |side| side.device_uuid.clone()),
        ("serial", |side| side.serial.clone().unwrap_or_default()),
        ("imei", |side| side.claimed("imei")),
        ("tpm", |side| side.claimed("tpm_ek")),
        ("model", |side| {
            let parts = [side.vendor.as_deref(), side.model.as_deref()];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
        }),
        ("platform", |side| side.platform.clone()),
        ("owner", |side| side.owner.clone().unwrap_or_default()),
        ("ownership", |side| side.ownership.clone()),
        ("attestation", |side| side.attestation.level.clone()),
        ("enrolled by", |side| side.protocol.clone()),
        ("key", |side| side.key_sha256.clone()),
    ];
    let told = |label: &str, of: &dyn Fn(&Side) -> String| {
        let mut row = vec![label.to_owned()];
        row.extend(sides.iter().map(|side| of(side)));
        row.push(String::new());
        row
    };
    let mut rows = vec![told("id", &|side| side.id.clone())];
    rows.push(told("state", &|side| side.state.clone()));
    rows.extend(judged.iter().filter_map(|(label, of)| {
        let values: Vec<String> = sides.iter().map(|side| of(side)).collect();
        judge(label, values)
    }));
    rows.push(told("enrolled", &|side| printer.ago(side.enrolled_at.as_deref())));
    rows.push(told("last seen", &|side| {
        printer.ago(side.last_seen_at.as_deref())
    }));
    rows
}

/// A row that ends with whether its values agree; nothing where there is no value.
fn judge(label: &str, values: Vec<String>) -> Option<Vec<String>> {
    if values.iter().all(String::is_empty) {
        return None;
    }
    let word = match (values.len(), values.windows(2).any(|pair| pair[0] != pair[1])) {
        (0 | 1, _) => "",
        (_, true) => "differs",
        (_, false) => "same",
    };
    let values = values
        .into_iter()
        .map(|value| if value.is_empty() { "-".to_owned() } else { value });
    let row = std::iter::once(label.to_owned()).chain(values);
    Some(row.chain([word.to_owned()]).collect())
}

impl Side {
    fn claimed(&self, kind: &str) -> String {
        let values: Vec<&str> = self
            .claims
            .iter()
            .filter(|claim| claim.kind == kind)
            .map(|claim| claim.value.as_str())
            .collect();
        values.join(" ")
    }
}

/// Carries a decision to the server, after asking.
pub async fn decide(
    api: &Api,
    printer: &Printer,
    id: &str,
    decision: Decision,
    continues: Option<String>,
    is_confirmed: bool,
) -> Result<(), CliError> {
    let (word, what, done) = match decision {
        Decision::Merge => (
            "merge",
            format!(
                "Device {id} takes the place and name of the device with the same hardware, which is retired."
            ),
            "is active; the device that it continues is retired",
        ),
        Decision::KeepBoth => (
            "keep_both",
            format!("Device {id} becomes active beside the device with the same hardware ids."),
            "is active, and so is the other",
        ),
        Decision::Reject => (
            "reject",
            format!("Device {id} is retired and its certificates are revoked."),
            "is retired",
        ),
    };
    printer.confirm(is_confirmed, &what, id)?;
    let mut body: Value = json!({"decision": word});
    if let Some(continues) = continues {
        body["continues"] = continues.into();
    }
    api.send_quiet(Call::post(&["devices", id, "quarantine-decision"]).body(body))
        .await?;
    printer.note(&format!("{id} {done}."));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn check(values: &[&str], expected: Option<&str>) {
        let row = judge("x", values.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(
            row.as_ref().and_then(|row| row.last()).map(String::as_str),
            expected,
            "{values:?}"
        );
    }

    #[test]
    fn a_row_says_whether_the_sides_agree() {
        check(&["a", "a"], Some("same"));
        check(&["a", "b"], Some("differs"));
        check(&["a", "", "a"], Some("differs"));
        check(&["a"], Some(""));
        check(&["", ""], None);
    }

    #[test]
    fn accepting_is_merging() {
        assert_eq!(Decision::from_str("accept", false), Ok(Decision::Merge));
        assert_eq!(Decision::from_str("keep-both", false), Ok(Decision::KeepBoth));
    }

    #[test]
    fn a_case_with_few_members_is_still_read() {
        let case: Case = serde_json::from_str(
            r#"{"device":{"id":"dev_1","claims":[{"kind":"imei","value":"1"},{"kind":"imei","value":"2"}]},"rivals":[{}]}"#,
        )
        .expect("a case");
        assert_eq!(case.device.claimed("imei"), "1 2");
        assert_eq!(case.rivals.len(), 1);
    }
}
