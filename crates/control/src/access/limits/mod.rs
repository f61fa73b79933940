//! What the operator allows a tenant: requests, messages of devices, devices, people. Where nothing is said, the installation's own
//! numbers count.
//!
//! How often somebody may come is asked at every request, so each node keeps the rows in memory ([`follow`], every second). How many
//! there may be is counted in the transaction that would make one more, from the row itself. Nothing that is there is ever taken away.

pub(super) mod store;

use std::{collections::HashMap, time::Duration};

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Author, TENANTS_MAX,
    problem::{FieldError, INVALID, Problem},
};
use crate::{
    App,
    audit::{self, LoggedTx},
};

/// Requests and messages in a second that a limit may name, as the settings of the installation.
const PER_SECOND: std::ops::RangeInclusive<u32> = 10..=1_000_000;
/// Devices and people that a limit may name.
const DEVICES: std::ops::RangeInclusive<u32> = 0..=10_000_000;
const PEOPLE: std::ops::RangeInclusive<u32> = 0..=200_000;
/// That a limit is reached is logged this often for each limit of a tenant: whoever is refused tries again.
const REACHED_EVERY: Duration = Duration::from_secs(3600);
/// Limits that are remembered as told; above that all are forgotten, which costs an entry each.
const REACHED_MAX: usize = 2 * TENANTS_MAX;

/// What a tenant may. What is absent is the installation's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TenantLimits)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests of its programs in a second, and as many of its people in the console: 10 to 1,000,000; five times as many at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Of these, requests of one service account or person: 10 to 1,000,000, of which at most half of the tenant's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second_of_caller: Option<u32>,
    /// Messages of its devices in a second: 10 to 1,000,000; five times as many at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_messages_per_second: Option<u32>,
    /// Devices that are enrolled and not retired: 0 to 10,000,000. One more is refused; those that are there go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices_max: Option<u32>,
    /// People of its directory: 0 to 200,000. One more is refused; those that are there go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub people_max: Option<u32>,
}

impl Limits {
    /// Refuses numbers that no tenant could work with, each with its field.
    pub fn check(&self) -> Result<(), Problem> {
        let within = [
            ("requests_per_second", self.requests_per_second, PER_SECOND),
            (
                "requests_per_second_of_caller",
                self.requests_per_second_of_caller,
                PER_SECOND,
            ),
            (
                "device_messages_per_second",
                self.device_messages_per_second,
                PER_SECOND,
            ),
            ("devices_max", self.devices_max, DEVICES),
            ("people_max", self.people_max, PEOPLE),
        ];
        let mut errors: Vec<FieldError> = within
            .into_iter()
            .filter_map(|(field, limit, range)| {
                let limit = limit.filter(|limit| !range.contains(limit))?;
                Some(FieldError {
                    field: field.to_owned(),
                    code: "out_of_range".to_owned(),
                    detail: format!("It is {} to {}, not {limit}.", range.start(), range.end()),
                })
            })
            .collect();
        if let (Some(tenant), Some(caller)) = (self.requests_per_second, self.requests_per_second_of_caller)
            && caller > tenant
        {
            errors.push(FieldError {
                field: "requests_per_second_of_caller".to_owned(),
                code: "out_of_range".to_owned(),
                detail: format!("It is at most requests_per_second, {tenant}, not {caller}."),
            });
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(INVALID
            .detail("A limit is a number that a tenant can work with, or absent.")
            .with_errors(errors))
    }
}

/// What was set for a tenant, by whom and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub limits: Limits,
    /// Of the operator's tenant: kind and id.
    pub changed_by: String,
    pub changed_at: Timestamp,
}

/// What was set for a tenant; nothing where nobody ever set any.
pub fn set_of(tx: &mut Tx, tenant: TenantId) -> Result<Option<Set>, Problem> {
    Ok(store::limits_of(tx, tenant)?)
}

/// The limits of a tenant as its row says now.
pub fn limits_of(tx: &mut Tx, tenant: TenantId) -> Result<Limits, Problem> {
    Ok(store::limits_of(tx, tenant)?.map_or_else(Limits::default, |set| set.limits))
}

/// How many devices a tenant may have, where its operator said so. Those who ask take turns until their transactions end, so that each
/// counts the devices of the one before.
pub fn devices_in_turn(tx: &mut Tx, tenant: TenantId) -> Result<Option<u32>, Problem> {
    if limits_of(tx, tenant)?.devices_max.is_none() {
        return Ok(None);
    }
    store::take_turn(tx, tenant)?;
    Ok(limits_of(tx, tenant)?.devices_max)
}

/// Writes what a tenant may. The caller records it in both logs.
pub fn put(tx: &mut LoggedTx<'_>, tenant: TenantId, limits: &Limits) -> Result<(), Problem> {
    let (by, at) = (tx.author().text(), tx.at());
    Ok(store::put_limits(tx, tenant, limits, (&by, at))?)
}

/// Takes up what was set on this node or another. Runs at the start and every second, and after each change on the node that made it.
pub async fn follow(app: &App) -> Result<(), Problem> {
    let most = i64::try_from(TENANTS_MAX).unwrap_or(i64::MAX);
    let all = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::all_limits(tx, most)?)
        })
        .await?;
    let all: HashMap<TenantId, Limits> = all
        .into_iter()
        .map(|(tenant, set)| (tenant, set.limits))
        .collect();
    app.budgets.set_limits(all);
    Ok(())
}

/// Which number of things is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reached {
    Devices,
    People,
}

impl Reached {
    pub const fn as_str(self) -> &'static str {
        match self {
            Reached::Devices => "devices_max",
            Reached::People => "people_max",
        }
    }
}

/// Which limits this node told of, and when.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<(TenantId, Reached), Timestamp>>);

impl Told {
    fn is_due(&self, of: (TenantId, Reached), now: Timestamp) -> bool {
        let mut told = self.0.lock();
        if told.get(&of).is_some_and(|at| now.since(*at) < REACHED_EVERY) {
            return false;
        }
        if told.len() >= REACHED_MAX {
            told.clear();
        }
        told.insert(of, now);
        true
    }

    fn forget(&self, of: (TenantId, Reached)) {
        self.0.lock().remove(&of);
    }
}

/// Writes into the tenant's log that something was refused because of a limit of the operator, once an hour, so that an alert begins and
/// people hear of it. Where that fails it is told of with the next refusal: whoever was refused hears why in any case.
pub async fn note_reached(app: &App, tenant: TenantId, reached: Reached) {
    if !app.limits_told.is_due((tenant, reached), app.clock.now()) {
        return;
    }
    if let Err(problem) = record_reached(app, tenant, reached).await {
        app.limits_told.forget((tenant, reached));
        tracing::warn!(%tenant, limit = reached.as_str(), code = problem.code(), "that a limit is reached could not be logged yet");
    }
}

async fn record_reached(app: &App, tenant: TenantId, reached: Reached) -> Result<(), Problem> {
    audit::observe(app, &Author::system(tenant), move |tx| {
        let limits = limits_of(tx, tenant)?;
        let most = match reached {
            Reached::Devices => limits.devices_max,
            Reached::People => limits.people_max,
        };
        tx.record(
            "tenant.limit_reached",
            ("tenant", tenant.to_string()),
            serde_json::json!({"limit": reached.as_str(), "most": most}),
        )
        .map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_nobody_can_work_with_is_refused_by_its_field() {
        assert!(Limits::default().check().is_ok());
        let least = Limits {
            requests_per_second: Some(10),
            devices_max: Some(0),
            people_max: Some(0),
            ..Limits::default()
        };
        assert!(least.check().is_ok());
        let wrong = Limits {
            requests_per_second: Some(9),
            device_messages_per_second: Some(1_000_001),
            people_max: Some(200_001),
            ..Limits::default()
        };
        let problem = wrong.check().expect_err("three are out of range");
        let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            ["requests_per_second", "device_messages_per_second", "people_max"]
        );
        let larger = Limits {
            requests_per_second: Some(20),
            requests_per_second_of_caller: Some(21),
            ..Limits::default()
        };
        let problem = larger.check().expect_err("a caller is a part of its tenant");
        assert_eq!(problem.errors[0].field, "requests_per_second_of_caller");
    }

    #[test]
    fn a_reached_limit_is_told_of_once_an_hour_for_each_tenant_and_kind() {
        let told = Told::default();
        let tenant = |n| TenantId::from_uuid(uuid::Uuid::from_u128(n));
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_800_000_000 + seconds);
        assert!(told.is_due((tenant(1), Reached::Devices), at(0)));
        assert!(!told.is_due((tenant(1), Reached::Devices), at(3599)));
        assert!(told.is_due((tenant(1), Reached::People), at(1)));
        assert!(told.is_due((tenant(2), Reached::Devices), at(1)));
        assert!(told.is_due((tenant(1), Reached::Devices), at(3600)));
        told.forget((tenant(1), Reached::Devices));
        assert!(
            told.is_due((tenant(1), Reached::Devices), at(3601)),
            "it was not told after all"
        );
    }
}
