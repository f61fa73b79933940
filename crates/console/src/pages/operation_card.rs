//! What somebody asks of a list of devices, as those see it who decide about it.

use std::collections::{BTreeSet, HashMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    access::{Author, Passkey, passkeys_of, problem::Problem},
    commands::{self, Operation, OperationState},
    devices,
    secrets::TenantKeys,
};
use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::{
    approval::{BatchStatement, account_of},
    key::sha256,
    root::{Role, RootDocument},
};

use crate::{
    kinds,
    ui::{self, Badge, Tone, When},
};

/// Devices whose owners and models a card counts.
const LOOKED_AT: usize = 200;
/// Owners, models and devices that a card names.
const NAMED: usize = 10;

/// Who looks, and by which document.
pub struct Viewer<'a> {
    pub tenant: TenantId,
    pub author: &'a Author,
    pub keys: &'a TenantKeys,
    pub lists: &'a commands::Lists,
    pub now: Timestamp,
}

/// An operation with everything that a decision needs.
#[derive(Debug)]
pub struct Card {
    pub id: String,
    pub title: String,
    pub facts: Vec<(&'static str, String)>,
    pub state: Badge,
    pub is_danger: bool,
    /// `3 of 1,204 devices`.
    pub scale: String,
    pub whose: Whose,
    pub by: String,
    pub is_own: bool,
    pub asked: When,
    pub expires: When,
    pub reason: String,
    /// Why it is held or waits, or how it ended.
    pub because: Option<String>,
    /// Why nobody should sign it: it is not what was asked for.
    pub edited: Option<&'static str>,
    pub next: Option<When>,
    pub consent: Option<Consent>,
    pub can_approve: bool,
    pub can_reject: bool,
    pub can_release: bool,
    pub can_cancel: bool,
}

/// Whose devices they are.
#[derive(Debug, Default)]
pub struct Whose {
    /// Owner and number of devices, the most first; an owner without a name is nobody.
    pub owners: Vec<(String, usize)>,
    pub owners_more: usize,
    pub models: Vec<(String, usize)>,
    /// Page and name.
    pub devices: Vec<(String, String)>,
    /// Devices that are not named here.
    pub devices_more: u64,
    /// How many were looked at, where that is not all.
    pub looked_at: Option<usize>,
}

/// What people approve, and who has.
#[derive(Debug)]
pub struct Consent {
    pub per_hour: u32,
    /// Whether devices begin one after the other; a policy's change is for no device.
    pub is_paced: bool,
    pub first: When,
    pub last: When,
    /// Whether the last begins later than the first.
    pub takes_hours: bool,
    pub threshold: u32,
    pub people: Vec<(String, When)>,
    /// What is missing, in words.
    pub missing: String,
    /// The root document names nobody who approves.
    pub nobody: bool,
    pub by_passkey: ByPasskey,
}

/// Whether the person can approve in this browser.
#[derive(Debug)]
pub enum ByPasskey {
    Ready {
        /// Base64 of what the passkey signs.
        challenge: String,
        relying_party: String,
        origin: String,
        /// Base64 of each credential, with a space between.
        credentials: String,
    },
    Not(&'static str),
}

impl Card {
    pub fn of(tx: &mut Tx, viewer: &Viewer<'_>, operation: Operation) -> Result<Card, Problem> {
        let now = viewer.now;
        let whose = whose(tx, viewer.tenant, &operation)?;
        let waits = operation.state == OperationState::AwaitingApproval;
        let statement = operation.batch.as_ref().map(commands::statement_of).transpose()?;
        // Whoever writes into the database must not choose what people read while they sign something else.
        let edited = match waits && statement.is_some() {
            true => viewer.lists.asked(tx, viewer.keys, &operation)?.err(),
            false => None,
        };
        let fleet = match &statement {
            Some(statement) => statement.fleet,
            None => devices::active_count(tx, viewer.tenant)?,
        };
        let consent = match &statement {
            Some(statement) => Some(Consent::of(tx, viewer, &operation, statement)?),
            None => None,
        };
        let is_own = operation.created_by == viewer.author.text();
        let held = operation.state == OperationState::Held;
        Ok(Card {
            id: operation.id.to_string(),
            title: kinds::words(&operation.kind),
            facts: kinds::facts(&operation.kind),
            state: state(operation.state),
            is_danger: operation.kind.is_destructive(),
            scale: scale(operation.targets, fleet),
            whose,
            by: ui::author(&operation.created_by),
            is_own,
            asked: When::new(operation.created_at, now),
            expires: When::new(operation.expires_at, now),
            reason: operation
                .reason
                .map(|reason| reason.to_string())
                .unwrap_or_default(),
            // What is missing is said by the document as it is now.
            because: operation.because.filter(|_| !waits),
            edited,
            next: operation
                .next_at
                .filter(|next| *next > now)
                .map(|next| When::new(next, now)),
            can_approve: waits && edited.is_none(),
            can_reject: waits || held,
            can_release: held && !is_own,
            can_cancel: waits || held || operation.state == OperationState::Running,
            consent,
        })
    }
}

fn scale(targets: u64, fleet: u64) -> String {
    let count = |number: u64| ui::count(i64::try_from(number).unwrap_or(i64::MAX));
    let noun = if fleet == 1 { "device" } else { "devices" };
    format!("{} of {} {noun}", count(targets), count(fleet.max(targets)))
}

/// The word of an operation's state.
pub fn state(state: OperationState) -> Badge {
    match state {
        OperationState::AwaitingApproval => Badge::new("awaiting approval", Tone::Wait),
        OperationState::Held => Badge::new("held", Tone::Warn),
        OperationState::Running => Badge::new("running", Tone::Wait),
        OperationState::Completed => Badge::new("completed", Tone::Good),
        OperationState::Cancelled => Badge::new("cancelled", Tone::Off),
        OperationState::Rejected => Badge::new("rejected", Tone::Off),
        OperationState::Expired => Badge::new("expired", Tone::Warn),
    }
}

fn whose(tx: &mut Tx, tenant: TenantId, operation: &Operation) -> Result<Whose, Problem> {
    let targets = commands::targets_of(tx, tenant, operation, 0, LOOKED_AT)?;
    let found: Vec<_> = targets.iter().map(|target| target.device).collect();
    Whose::of(tx, tenant, &found, operation.targets)
}

impl Whose {
    /// Of the first devices of a list that has `total`.
    pub fn of(
        tx: &mut Tx,
        tenant: TenantId,
        list: &[muster_model::DeviceId],
        total: u64,
    ) -> Result<Whose, Problem> {
        let (mut owners, mut models) = (HashMap::new(), HashMap::new());
        let mut named = Vec::new();
        for id in list.iter().take(LOOKED_AT) {
            // A device that is gone has no page any more; the list still counts it.
            let Ok(device) = devices::get(tx, tenant, *id) else {
                continue;
            };
            *owners.entry(device.owner.unwrap_or_default()).or_insert(0) += 1;
            let model = device
                .model
                .unwrap_or_else(|| ui::platform(device.platform.as_str()).to_owned());
            *models.entry(model).or_insert(0) += 1;
            if named.len() < NAMED {
                named.push((format!("/devices/{id}"), device.name));
            }
        }
        let looked_at = list.len().min(LOOKED_AT);
        let (owners, owners_more) = most(owners);
        Ok(Whose {
            owners,
            owners_more,
            models: most(models).0,
            devices_more: total.saturating_sub(named.len() as u64),
            devices: named,
            looked_at: (looked_at as u64 != total).then_some(looked_at),
        })
    }
}

/// The most frequent, and how many others there are.
fn most(counts: HashMap<String, usize>) -> (Vec<(String, usize)>, usize) {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let more = counts.len().saturating_sub(NAMED);
    counts.truncate(NAMED);
    (counts, more)
}

impl Consent {
    fn of(
        tx: &mut Tx,
        viewer: &Viewer<'_>,
        operation: &Operation,
        statement: &BatchStatement,
    ) -> Result<Consent, Problem> {
        let Some(batch) = &operation.batch else {
            return Err(Problem::internal("a statement without its batch"));
        };
        let (_, threshold) = viewer.keys.root.role(Role::Approver);
        let people: BTreeSet<&str> = batch.given.iter().map(|given| given.person.as_str()).collect();
        let missing = threshold.saturating_sub(u32::try_from(people.len()).unwrap_or(u32::MAX));
        let account = viewer.author.actor.id.as_str();
        let passkeys = passkeys_of(tx, viewer.tenant, account)?;
        let challenge = sha256(&batch.approved().to_sign());
        Ok(Consent {
            per_hour: statement.per_hour,
            is_paced: statement.kind.is_for_devices(),
            first: When::new(statement.not_before, viewer.now),
            last: When::new(statement.slot(statement.count.saturating_sub(1)), viewer.now),
            takes_hours: statement.count > u64::from(statement.per_hour),
            threshold,
            people: batch
                .given
                .iter()
                .map(|given| (given.person.clone(), When::new(given.at, viewer.now)))
                .collect(),
            missing: match missing {
                _ if threshold == 0 => "nobody is named who could approve it".to_owned(),
                0 => "nothing is missing".to_owned(),
                1 => "one more person must approve".to_owned(),
                several => format!("{several} more people must approve"),
            },
            nobody: threshold == 0,
            by_passkey: by_passkey(
                &viewer.keys.root,
                &passkeys,
                operation.accounts().contains(&account_of(account)),
                challenge.as_bytes(),
            ),
        })
    }
}

fn by_passkey(root: &RootDocument, passkeys: &[Passkey], is_own: bool, challenge: &[u8]) -> ByPasskey {
    if is_own {
        return ByPasskey::Not("You asked for it: somebody else approves it.");
    }
    let counts = |passkey: &&Passkey| {
        let approver = root.approvers.get(&passkey.key_id());
        approver.is_some_and(|approver| approver.passkey.as_ref() == Some(&passkey.party))
    };
    let named: Vec<&Passkey> = passkeys.iter().filter(counts).collect();
    match named.first() {
        None if passkeys.is_empty() => ByPasskey::Not("You have no passkey here."),
        None => ByPasskey::Not("The root document does not name your passkey."),
        Some(first) => {
            let of_site = named.iter().filter(|passkey| passkey.party == first.party);
            let credentials: Vec<String> = of_site
                .map(|passkey| STANDARD.encode(&passkey.credential_id))
                .collect();
            ByPasskey::Ready {
                challenge: STANDARD.encode(challenge),
                relying_party: first.party.id.clone(),
                origin: first.party.origin.clone(),
                credentials: credentials.join(" "),
            }
        }
    }
}
