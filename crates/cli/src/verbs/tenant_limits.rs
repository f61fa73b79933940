//! `muster tenant limits`: what a tenant may, set by the operator's tenant and seen by its own.

use serde::{Deserialize, Serialize};

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, clean};

pub const HELP: &str = "Examples:\n  muster tenant limits                                      what one's own tenant may\n  muster tenant limits acme\n  \
    muster tenant limits acme --devices-max 500 --people-max 2000\n  muster tenant limits acme --requests-per-second 100 --device-messages-per-second 300\n  \
    muster tenant limits acme --devices-max default           the installation's again\n\nOnly what is named changes. A limit counts on every node within \
    seconds; what there is more of than it allows goes on, and one more is refused.";

/// Whose limits, and what they are to be.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitsArgs {
    /// One's own where none is named
    tenant: Option<String>,
    /// Requests of its programs in a second, and as many of its people in the console; a number or `default`
    #[arg(long, value_name = "N", requires = "tenant")]
    requests_per_second: Option<Number>,
    /// Of these, requests of one service account or person
    #[arg(long, value_name = "N", requires = "tenant")]
    requests_per_second_of_caller: Option<Number>,
    /// Messages of its devices in a second
    #[arg(long, value_name = "N", requires = "tenant")]
    device_messages_per_second: Option<Number>,
    /// Devices that are enrolled and not retired
    #[arg(long, value_name = "N", requires = "tenant")]
    devices_max: Option<Number>,
    /// People of its directory
    #[arg(long, value_name = "N", requires = "tenant")]
    people_max: Option<Number>,
}

/// A number, or the installation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number(Option<u32>);

impl std::str::FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "default" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|number| Self(Some(number)))
            .map_err(|_| "a number, or `default`".to_owned())
    }
}

/// Of one limit.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Limit {
    set: Option<u32>,
    in_force: Option<u32>,
    used: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Limits {
    name: String,
    requests_per_second: Limit,
    requests_per_second_of_caller: Limit,
    device_messages_per_second: Limit,
    devices_max: Limit,
    people_max: Limit,
    changed_by: Option<String>,
    changed_at: Option<String>,
}

/// What is sent: absent is the installation's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Wanted {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second_of_caller: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_messages_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    people_max: Option<u32>,
}

impl LimitsArgs {
    fn changes(&self) -> bool {
        let numbers = [
            self.requests_per_second,
            self.requests_per_second_of_caller,
            self.device_messages_per_second,
            self.devices_max,
            self.people_max,
        ];
        numbers.iter().any(Option::is_some)
    }

    /// What is set now, with what was named.
    fn over(&self, now: &Limits) -> Wanted {
        let number = |named: Option<Number>, now: Limit| named.map_or(now.set, |Number(number)| number);
        Wanted {
            requests_per_second: number(self.requests_per_second, now.requests_per_second),
            requests_per_second_of_caller: number(
                self.requests_per_second_of_caller,
                now.requests_per_second_of_caller,
            ),
            device_messages_per_second: number(
                self.device_messages_per_second,
                now.device_messages_per_second,
            ),
            devices_max: number(self.devices_max, now.devices_max),
            people_max: number(self.people_max, now.people_max),
        }
    }
}

/// Shows limits, or sets those that are named.
pub async fn run(arguments: &LimitsArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let Some(tenant) = &arguments.tenant else {
        let answer: Answer<Limits> = api.send(Call::get(&["settings", "limits"])).await?;
        return printer.answer(&answer.value, |printer| sheet(printer, &answer.known));
    };
    let place = ["tenants", tenant.as_str(), "limits"];
    let mut answer: Answer<Limits> = api.send(Call::get(&place)).await?;
    if arguments.changes() {
        let body = serde_json::to_value(arguments.over(&answer.known))
            .map_err(|error| CliError::Failed(error.to_string()))?;
        answer = api.send(Call::put(&place, body)).await?;
    }
    printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
}

fn sheet(printer: &Printer, limits: &Limits) -> Sheet {
    let row = |name: &str, limit: Limit, unlimited: &str| {
        let number =
            |number: Option<u32>, none: &str| number.map_or_else(|| none.to_owned(), |n| n.to_string());
        let is_reached = limit
            .in_force
            .zip(limit.used)
            .is_some_and(|(most, used)| used >= u64::from(most));
        vec![
            name.to_owned(),
            number(limit.in_force, unlimited),
            limit.used.map_or_else(|| "-".to_owned(), |used| used.to_string()),
            match (is_reached, limit.set) {
                (true, _) => "reached: one more is refused".to_owned(),
                (false, Some(_)) => "set by the operator".to_owned(),
                (false, None) => String::new(),
            },
        ]
    };
    let rows = vec![
        row("requests per second", limits.requests_per_second, "-"),
        row("  of one caller", limits.requests_per_second_of_caller, "-"),
        row(
            "device messages per second",
            limits.device_messages_per_second,
            "-",
        ),
        row("devices", limits.devices_max, "no limit"),
        row("people of the directory", limits.people_max, "no limit"),
    ];
    let sheet = Sheet::new().rows("limits", &["limit", "in force", "there are", "note"], rows);
    match &limits.changed_by {
        Some(by) => sheet.text(format!(
            "Limits of {}, set by {} {}.",
            clean(&limits.name),
            clean(by),
            printer.ago(limits.changed_at.as_deref())
        )),
        None => sheet.text(format!(
            "Nobody set limits for {}: the installation's count.",
            clean(&limits.name)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_changes_and_default_takes_a_limit_away() {
        let set = |set| Limit {
            set: Some(set),
            ..Limit::default()
        };
        let now = Limits {
            requests_per_second: set(100),
            devices_max: set(5),
            ..Limits::default()
        };
        let arguments = LimitsArgs {
            tenant: Some("acme".to_owned()),
            requests_per_second: None,
            requests_per_second_of_caller: None,
            device_messages_per_second: None,
            devices_max: Some("default".parse().expect("it is a word")),
            people_max: Some("7".parse().expect("it is a number")),
        };
        assert!(arguments.changes());
        let wanted = Wanted {
            requests_per_second: Some(100),
            people_max: Some(7),
            ..Wanted::default()
        };
        assert_eq!(arguments.over(&now), wanted);
        assert!("-1".parse::<Number>().is_err() && "many".parse::<Number>().is_err());
    }
}
