//! Where the rows of questions come from: devices in the order of their ids, page by page, each page one short read transaction.

use std::{collections::HashMap, sync::Arc};

use muster_model::{
    ComplianceState, DeviceId, Labels, Ownership, TenantId, Timestamp,
    facts::{Disk, Facts, Hardware, Interface, OsFacts, Package, UserAccount},
    query::{Exceeded, Flow, Plan, Row, Run, Value},
    text::LabelKey,
};
use muster_storage::Tx;
use serde::Deserialize;

use super::schema::{FACTS_FROM, Rows, SCHEMA};
use crate::{
    access::problem::{Problem, QUERY_TOO_COSTLY},
    compliance,
    devices::{self, Device, DeviceFilter, DeviceState},
    groups,
};

/// Devices that one read transaction looks at.
pub(super) const DEVICES_PER_PAGE: usize = 500;

/// A row: a device, and what of it the table lists.
pub(super) struct DeviceRow<'a> {
    pub device: &'a Device,
    pub id: &'a str,
    pub known: Option<&'a Known>,
    pub facts_at: Option<Timestamp>,
    pub labels: Option<&'a Labels>,
    pub now: Timestamp,
    pub rows: Rows,
    pub own: Own<'a>,
}

/// What a row is about besides its device.
#[derive(Clone, Copy)]
pub(super) enum Own<'a> {
    Nothing,
    Package(&'a Package),
    Disk(&'a Disk),
    Interface(&'a Interface, Option<&'a str>),
    User(&'a UserAccount),
    Label(&'a str, &'a str),
    Group(&'a str),
    Violation(&'a Violated),
}

/// An open violation.
pub(super) struct Violated {
    pub subject: String,
    pub severity: &'static str,
    pub reason: String,
    pub policy: String,
    pub since: Timestamp,
}

impl DeviceRow<'_> {
    pub fn os(&self) -> Option<&OsFacts> {
        self.known.map(|known| &known.os)
    }

    pub fn hardware(&self) -> Option<&Hardware> {
        self.known.map(|known| &known.hardware)
    }
}

impl Row for DeviceRow<'_> {
    fn column(&self, place: usize) -> Value<'_> {
        self.rows.value(self, place)
    }

    fn label(&self, key: &LabelKey) -> Value<'_> {
        let value = self.labels.and_then(|labels| labels.get(key.as_str()));
        Value::text(value)
    }
}

/// As much of facts as a question reads. Reading a long list of packages only to throw it away would be most of the work.
#[derive(Default)]
pub(super) struct Known {
    hardware: Hardware,
    os: OsFacts,
    disks: Vec<Disk>,
    interfaces: Vec<Interface>,
    users: Vec<UserAccount>,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Basics {
    hardware: Hardware,
    os: OsFacts,
}

#[derive(Deserialize)]
struct Lists {
    hardware: Hardware,
    os: OsFacts,
    #[serde(default)]
    disks: Vec<Disk>,
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    users: Vec<UserAccount>,
}

impl Known {
    /// Reads stored facts; what cannot be read is nothing.
    fn read(text: &str, rows: Rows) -> Option<Known> {
        match rows {
            Rows::Packages => {
                let facts: Facts = serde_json::from_str(text).ok()?;
                Some(Known {
                    hardware: facts.hardware,
                    os: facts.os,
                    packages: facts.packages,
                    ..Known::default()
                })
            }
            Rows::Disks | Rows::Interfaces | Rows::Users => {
                let lists: Lists = serde_json::from_str(text).ok()?;
                Some(Known {
                    hardware: lists.hardware,
                    os: lists.os,
                    disks: lists.disks,
                    interfaces: lists.interfaces,
                    users: lists.users,
                    packages: Vec::new(),
                })
            }
            Rows::Devices | Rows::Facts | Rows::Labels | Rows::Groups | Rows::Violations => {
                let basics: Basics = serde_json::from_str(text).ok()?;
                Some(Known {
                    hardware: basics.hardware,
                    os: basics.os,
                    ..Known::default()
                })
            }
        }
    }
}

/// A question on its way through the fleet.
pub(super) struct Scan {
    pub tenant: TenantId,
    pub plan: Arc<Plan>,
    pub run: Run,
    pub now: Timestamp,
    pub last: Option<DeviceId>,
    /// Devices that were looked at.
    pub devices: u64,
    pub policies: compliance::PolicyNames,
    /// Personal devices that have no rows in the table.
    pub withheld: u64,
    /// When the oldest and the newest facts came that were looked at.
    pub facts: Option<(Timestamp, Timestamp)>,
}

/// Whether a device can be part of the answer, as far as its own row says.
pub(super) fn may_match(plan: &Plan, device: &Device, id: &str, now: Timestamp) -> bool {
    if device.state == DeviceState::Retired && !names_state(plan) {
        return false;
    }
    let row = DeviceRow {
        device,
        id,
        known: None,
        facts_at: None,
        labels: None,
        now,
        rows: Rows::Devices,
        own: Own::Nothing,
    };
    plan.may_match(|place| place < FACTS_FROM, |place| row.column(place))
}

fn names_state(plan: &Plan) -> bool {
    SCHEMA
        .place(plan.table(), "state")
        .is_some_and(|place| plan.reads(place))
}

/// Whether a question's rows say how a person uses a device that is the person's own.
pub(super) fn is_withheld(plan: &Plan, device: &Device) -> bool {
    Rows::of(plan.table()).are_private() && device.ownership == Ownership::Personal
}

impl Scan {
    /// Looks at a page of devices; answers whether there are more that matter.
    pub fn page(&mut self, tx: &mut Tx) -> Result<bool, Problem> {
        let plan = Arc::clone(&self.plan);
        let rows = Rows::of(plan.table());
        let everything = DeviceFilter::default();
        let found = devices::list(tx, self.tenant, &everything, self.last, DEVICES_PER_PAGE)?;
        let any_left = found.len() == DEVICES_PER_PAGE;
        self.last = found.last().map(|device| device.id).or(self.last);
        self.devices += found.len() as u64;
        let mut meant = Vec::new();
        for device in found {
            let id = device.id.to_string();
            if !may_match(&plan, &device, &id, self.now) {
                continue;
            }
            if is_withheld(&plan, &device) {
                self.withheld += 1;
                continue;
            }
            meant.push((device, id));
        }
        let ids: Vec<DeviceId> = meant.iter().map(|(device, _)| device.id).collect();
        let reads_facts =
            rows.need_facts() || (FACTS_FROM..SCHEMA.shared.len()).any(|place| plan.reads(place));
        let facts = match reads_facts {
            true => devices::dated_facts(tx, self.tenant, &ids)?,
            false => HashMap::new(),
        };
        let labels = match rows == Rows::Labels || !plan.labels().is_empty() {
            true => devices::labels_of(tx, self.tenant, &ids)?,
            false => HashMap::new(),
        };
        for (device, id) in &meant {
            let stored = facts.get(&device.id);
            let known = stored.and_then(|(text, _)| Known::read(text, rows));
            let facts_at = stored.map(|(_, at)| *at);
            if let Some(at) = facts_at {
                let (oldest, newest) = self.facts.unwrap_or((at, at));
                self.facts = Some((oldest.min(at), newest.max(at)));
            }
            let row = DeviceRow {
                device,
                id,
                known: known.as_ref(),
                facts_at,
                labels: labels.get(&device.id),
                now: self.now,
                rows,
                own: Own::Nothing,
            };
            if self.rows_of(tx, row)? == Flow::Enough {
                return Ok(false);
            }
        }
        Ok(any_left)
    }

    /// Takes the rows that one device has in the table.
    fn rows_of(&mut self, tx: &mut Tx, base: DeviceRow<'_>) -> Result<Flow, Problem> {
        let rows = base.rows;
        let mut taken = Taken {
            run: &mut self.run,
            row: base,
        };
        let known = taken.row.known;
        match rows {
            Rows::Devices => taken.all([Own::Nothing]),
            Rows::Facts => taken.all(known.map(|_| Own::Nothing)),
            Rows::Packages => taken.all(known.iter().flat_map(|known| &known.packages).map(Own::Package)),
            Rows::Disks => taken.all(known.iter().flat_map(|known| &known.disks).map(Own::Disk)),
            Rows::Users => taken.all(known.iter().flat_map(|known| &known.users).map(Own::User)),
            Rows::Interfaces => {
                let interfaces = known.iter().flat_map(|known| &known.interfaces);
                taken.all(interfaces.flat_map(|interface| {
                    let none = interface
                        .addresses
                        .is_empty()
                        .then_some(Own::Interface(interface, None));
                    let each = interface.addresses.iter();
                    none.into_iter()
                        .chain(each.map(move |address| Own::Interface(interface, Some(address))))
                }))
            }
            Rows::Labels => {
                let labels = taken.row.labels;
                taken.all(
                    labels
                        .iter()
                        .flat_map(|labels| labels.iter())
                        .map(|(key, value)| Own::Label(key.as_str(), value.as_str())),
                )
            }
            Rows::Groups => {
                let named = groups::named_of(tx, self.tenant, taken.row.device.id)?;
                let of_group = taken;
                for (_, name) in &named {
                    let row = DeviceRow {
                        own: Own::Group(name),
                        ..copy(&of_group.row)
                    };
                    if of_group.run.take(&row).map_err(costly)? == Flow::Enough {
                        return Ok(Flow::Enough);
                    }
                }
                Ok(Flow::More)
            }
            Rows::Violations => {
                if taken.row.device.compliance == ComplianceState::Compliant {
                    return Ok(Flow::More);
                }
                let open =
                    compliance::open_violations(tx, self.tenant, taken.row.device.id, &mut self.policies)?;
                for (violation, policy) in open {
                    let violated = Violated {
                        subject: violation.subject,
                        severity: violation.severity.as_str(),
                        reason: violation.reason,
                        policy,
                        since: violation.since,
                    };
                    let row = DeviceRow {
                        own: Own::Violation(&violated),
                        ..copy(&taken.row)
                    };
                    if taken.run.take(&row).map_err(costly)? == Flow::Enough {
                        return Ok(Flow::Enough);
                    }
                }
                Ok(Flow::More)
            }
        }
    }
}

/// The same row without what it is about, for as long as both live.
fn copy<'a>(row: &DeviceRow<'a>) -> DeviceRow<'a> {
    DeviceRow {
        device: row.device,
        id: row.id,
        known: row.known,
        facts_at: row.facts_at,
        labels: row.labels,
        now: row.now,
        rows: row.rows,
        own: Own::Nothing,
    }
}

struct Taken<'a, 'r> {
    run: &'a mut Run,
    row: DeviceRow<'r>,
}

impl<'r> Taken<'_, 'r> {
    fn all(&mut self, owns: impl IntoIterator<Item = Own<'r>>) -> Result<Flow, Problem> {
        for own in owns {
            self.row.own = own;
            if self.run.take(&self.row).map_err(costly)? == Flow::Enough {
                return Ok(Flow::Enough);
            }
        }
        Ok(Flow::More)
    }
}

/// A question that takes more memory than it may.
pub(super) fn costly(exceeded: Exceeded) -> Problem {
    QUERY_TOO_COSTLY.detail(format!("The question costs too much: {exceeded}."))
}
