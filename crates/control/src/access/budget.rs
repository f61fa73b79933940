//! How many requests a tenant, and each of its callers, may make, and how many messages its devices: one tenant's storm leaves the others
//! alone. Every answer of the admin listener says what is left (draft-ietf-httpapi-ratelimit-headers-10).

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    future::Future,
    net::IpAddr,
    time::Duration,
};

use axum::{
    http::{HeaderName, HeaderValue},
    response::Response,
};
use muster_model::TenantId;
use muster_trust::key::sha256;
use parking_lot::{Mutex, RwLock};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{
    Author,
    limits::Limits,
    problem::{Problem, RATE_LIMITED},
};
use crate::{
    limit::{BURST_SECONDS, Left, Limit, Share},
    strangers::network,
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The label of tenants that are not named.
const OTHER: &str = "_other";
/// What one address may fail at in a second at the endpoints of the authorization server; five times as much may come at once.
const FAILURES_PER_SECOND: u32 = 20;

/// By what requests come: the budgets of one leave those of the others alone, so that no program of a tenant shuts out its people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// The API, with a token.
    Api,
    /// Pages, with a session.
    Console,
    /// The authorization server, with the credentials of a service account.
    OAuth,
}

impl Door {
    /// As metrics and headers name the budget of a whole tenant.
    const fn budget(self) -> &'static str {
        match self {
            Door::Api => "tenant",
            Door::Console => "console",
            Door::OAuth => "oauth",
        }
    }

    const fn others(self) -> &'static str {
        match self {
            Door::Api | Door::OAuth => "The programs of this tenant have",
            Door::Console => "The people of this tenant have",
        }
    }
}

/// What a device says, by what is refused first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceMessage {
    /// A check-in with receipts: somebody waits for the word that a command was carried out.
    Receipts,
    /// A check-in without, a wake stream, a renewal.
    Checkin,
    /// Telemetry, inventories, outputs, bundles: whoever sends or fetches them keeps them and comes again.
    Other,
    /// A device that wants to become one.
    Enroll,
}

impl DeviceMessage {
    /// Hundredths of the tenant's bucket that are left to what matters more.
    const fn kept_percent(self) -> u32 {
        match self {
            DeviceMessage::Receipts => 0,
            DeviceMessage::Checkin => 20,
            DeviceMessage::Other | DeviceMessage::Enroll => 40,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            DeviceMessage::Receipts => "receipts",
            DeviceMessage::Checkin => "checkin",
            DeviceMessage::Other => "other",
            DeviceMessage::Enroll => "enroll",
        }
    }
}

/// A caller of a tenant, by one door: the hash of what it is called.
type Caller = (TenantId, Door, u64);
/// An address, and the account that it names, where that account has proven from there who it is.
type Failing = (IpAddr, Option<u64>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabel {
    tenant: String,
    /// Whose budget was used up: `tenant`, `console`, `oauth` or `caller`.
    budget: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedDevice {
    tenant: String,
    /// `receipts`, `checkin`, `other` or `enroll`.
    message: &'static str,
}

/// What each tenant and each caller may still ask.
#[derive(Debug)]
pub struct Budgets {
    tenants: Limit<(TenantId, Door)>,
    callers: Limit<Caller>,
    devices: Limit<TenantId>,
    failures: Limit<Failing>,
    /// Accounts that have proven who they are at the authorization server, with the address.
    proven: Limit<(u64, IpAddr)>,
    /// What the operator set, by tenant; of all others the numbers of the installation count.
    limits: RwLock<HashMap<TenantId, Limits>>,
    refused: Family<RefusedLabel, Counter>,
    refused_devices: Family<RefusedDevice, Counter>,
    /// The tenants that have a label of their own, at most so many.
    named: Mutex<HashSet<TenantId>>,
    named_max: usize,
}

/// What is left of both budgets.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// The name of the tenant's.
    of: &'static str,
    tenant: Left,
    caller: Left,
}

/// What an installation allows each tenant about which its operator said nothing, in a second; five times as much at once.
#[derive(Debug, Clone, Copy)]
pub struct PerSecond {
    pub requests: u32,
    pub requests_of_caller: u32,
    pub device_messages: u32,
}

tokio::task_local! {
    static SAID: Cell<Option<Budget>>;
}

fn hashed(name: &str) -> u64 {
    let hash = sha256(name.as_bytes()).0;
    hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Budgets {
    /// At most so many tenants are named in metrics.
    pub fn new(per_second: PerSecond, named_max: usize) -> Budgets {
        Budgets {
            tenants: Limit::new(per_second.requests),
            callers: Limit::new(per_second.requests_of_caller),
            devices: Limit::new(per_second.device_messages),
            failures: Limit::new(FAILURES_PER_SECOND),
            proven: Limit::new(FAILURES_PER_SECOND),
            limits: RwLock::default(),
            refused: Family::default(),
            refused_devices: Family::default(),
            named: Mutex::default(),
            named_max,
        }
    }

    /// Registers everything under the prefixes `mdm_api` and `mdm_device`.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("mdm_api").register(
            "budget_refusals",
            "Requests of the admin listener that were refused as their tenant or their caller had made too many",
            self.refused.clone(),
        );
        registry.sub_registry_with_prefix("mdm_device").register(
            "budget_refusals",
            "Messages of devices that were refused as the devices of their tenant had sent too many",
            self.refused_devices.clone(),
        );
    }

    /// What counts from now on, of every tenant that has limits of its own.
    pub fn set_limits(&self, limits: HashMap<TenantId, Limits>) {
        if *self.limits.read() != limits {
            *self.limits.write() = limits;
        }
    }

    fn limits_of(&self, tenant: TenantId) -> Limits {
        self.limits.read().get(&tenant).copied().unwrap_or_default()
    }

    /// Takes one request of the API of this caller at `now`, of a clock that does not go back.
    ///
    /// # Errors
    ///
    /// `rate_limited`, with the seconds after which to come again. A caller that has used up its own budget takes nothing of its
    /// tenant's, and one that is refused because others have used up the tenant's keeps its own.
    pub fn take(&self, author: &Author, now: Duration) -> Result<(), Problem> {
        self.take_by(Door::Api, author, now)
    }

    /// As [`Budgets::take`], by any door.
    pub fn take_by(&self, door: Door, author: &Author, now: Duration) -> Result<(), Problem> {
        let limits = self.limits_of(author.tenant);
        let share = |own: Option<u32>, whole: Share| Share {
            per_second: own.unwrap_or(whole.per_second),
            ..whole
        };
        let of_tenant = share(limits.requests_per_second, self.tenants.whole());
        let of_caller = share(limits.requests_per_second_of_caller, self.callers.whole());
        // A visit more is no budget more.
        let behind = author.voucher.as_ref().filter(|_| author.visit.is_some());
        let who = (author.tenant, door, hashed(&behind.unwrap_or(&author.actor).id));
        let theirs = (author.tenant, door);
        let mut caller = self.callers.take_share(who, of_caller, now);
        let tenant = match caller {
            Ok(_) => self.tenants.take_share(theirs, of_tenant, now),
            Err(_) => Ok(self.tenants.left(theirs, of_tenant, now)),
        };
        if tenant.is_err() {
            caller = Ok(self.callers.give_back(who, of_caller, now));
        }
        let left = |taken: Result<Left, Left>| taken.unwrap_or_else(|none| none);
        let budget = Budget {
            of: door.budget(),
            tenant: left(tenant),
            caller: left(caller),
        };
        // Work of our own, outside of a request, tells nobody.
        let _ = SAID.try_with(|said| said.set(Some(budget)));
        let (whose, which, left) = match (caller, tenant) {
            (Ok(_), Ok(_)) => return Ok(()),
            (Err(left), _) => ("You have", "caller", left),
            (Ok(_), Err(left)) => (door.others(), door.budget(), left),
        };
        let label = RefusedLabel {
            tenant: self.name_of(author.tenant),
            budget: which,
        };
        self.refused.get_or_create(&label).inc();
        let sentence = format!(
            "{whose} made more requests than {} in a second. Wait a moment, and send fewer.",
            left.per_second
        );
        Err(RATE_LIMITED.detail(sentence).retry_after(left.reset_seconds))
    }

    /// Takes one message of a device of this tenant.
    ///
    /// # Errors
    ///
    /// `rate_limited`, with the seconds after which to come again.
    pub fn take_device(
        &self,
        tenant: TenantId,
        message: DeviceMessage,
        now: Duration,
    ) -> Result<(), Problem> {
        let share = Share {
            kept_percent: message.kept_percent(),
            ..self.of_devices(tenant)
        };
        let taken = self.devices.take_share(tenant, share, now).map(drop);
        taken.map_err(|left| self.refuse_device(tenant, message, left))
    }

    /// Refuses where not even what matters most could be taken, and takes nothing: for messages of which only their content says what
    /// they are.
    ///
    /// # Errors
    ///
    /// As of [`Budgets::take_device`].
    pub fn check_device(&self, tenant: TenantId, now: Duration) -> Result<(), Problem> {
        let left = self.devices.left(tenant, self.of_devices(tenant), now);
        if left.remaining > 0 {
            return Ok(());
        }
        Err(self.refuse_device(tenant, DeviceMessage::Checkin, left))
    }

    fn of_devices(&self, tenant: TenantId) -> Share {
        let whole = self.devices.whole();
        Share {
            per_second: self
                .limits_of(tenant)
                .device_messages_per_second
                .unwrap_or(whole.per_second),
            ..whole
        }
    }

    fn refuse_device(&self, tenant: TenantId, message: DeviceMessage, left: Left) -> Problem {
        let label = RefusedDevice {
            tenant: self.name_of(tenant),
            message: message.as_str(),
        };
        self.refused_devices.get_or_create(&label).inc();
        RATE_LIMITED
            .detail("The devices of this tenant sent more than they may in a second. Come again later.")
            .retry_after(left.reset_seconds)
    }

    /// Refuses whoever has failed too often at the authorization server, before anything is asked about them. Failures count by address;
    /// an account that has proven from there who it is has a count of its own, so that no neighbor shuts it out.
    ///
    /// # Errors
    ///
    /// `rate_limited`, with the seconds after which to come again.
    pub fn check_credentials(
        &self,
        account: Option<&str>,
        from: Option<IpAddr>,
        now: Duration,
    ) -> Result<(), Problem> {
        let failing = self.failing(account, from);
        self.failures.check(&failing, now).map_err(|seconds| {
            RATE_LIMITED
                .detail("Too many credentials that came from your address were refused. Try again in a few seconds.")
                .retry_after(seconds)
        })
    }

    /// Counts credentials that were refused.
    pub fn credentials_failed(&self, account: Option<&str>, from: Option<IpAddr>, now: Duration) {
        // With nothing left it is refused before it comes here; of those that came at once it matters as little.
        let _ = self.failures.take(self.failing(account, from), now);
    }

    /// Remembers that an account has proven who it is, from this address.
    pub fn credentials_proven(&self, account: &str, from: Option<IpAddr>, now: Duration) {
        let _ = self.proven.take((hashed(account), network(from)), now);
    }

    fn failing(&self, account: Option<&str>, from: Option<IpAddr>) -> Failing {
        let from = network(from);
        let known = account
            .map(hashed)
            .filter(|account| self.proven.knows(&(*account, from)));
        (from, known)
    }

    fn name_of(&self, tenant: TenantId) -> String {
        let mut named = self.named.lock();
        if named.len() < self.named_max {
            named.insert(tenant);
        }
        if named.contains(&tenant) {
            tenant.to_string()
        } else {
            OTHER.to_owned()
        }
    }
}

/// Answers a request, and says on the answer what its caller may still ask.
pub async fn told(answer: impl Future<Output = Response>) -> Response {
    let answer = async {
        let response = answer.await;
        (response, SAID.with(Cell::get))
    };
    let (mut response, budget) = SAID.scope(Cell::new(None), answer).await;
    if let Some(Budget { of, tenant, caller }) = budget {
        let policy = [("caller", caller), (of, tenant)]
            .map(|(name, left)| format!("\"{name}\";q={};w={BURST_SECONDS}", left.quota));
        let limit = [("caller", caller), (of, tenant)]
            .map(|(name, left)| format!("\"{name}\";r={};t={}", left.remaining, left.reset_seconds));
        let headers = response.headers_mut();
        for (name, value) in [(POLICY, policy.join(", ")), (LIMIT, limit.join(", "))] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_trust::entry::{Actor, ActorKind};

    fn author(tenant: TenantId, name: &str) -> Author {
        Author {
            actor: Actor {
                kind: ActorKind::User,
                id: name.to_owned(),
            },
            ..Author::system(tenant)
        }
    }

    fn tenant(n: u128) -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn budgets(requests: u32, requests_of_caller: u32) -> Budgets {
        let per_second = PerSecond {
            requests,
            requests_of_caller,
            device_messages: 10,
        };
        Budgets::new(per_second, 8)
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn d9_a_callers_storm_leaves_its_tenant_and_a_tenants_storm_leaves_the_others() {
        let budgets = budgets(4, 2);
        let (a, b) = (tenant(1), tenant(2));
        let many = |who: &Author, now| (0..100).filter(|_| budgets.take(who, now).is_ok()).count();
        assert_eq!(
            many(&author(a, "one"), at(1)),
            10,
            "five seconds of its own budget"
        );
        assert_eq!(many(&author(a, "two"), at(1)), 10, "the rest of the tenant's");
        assert_eq!(many(&author(a, "three"), at(1)), 0, "the tenant has none left");
        assert_eq!(
            many(&author(b, "one"), at(1)),
            10,
            "another tenant has all of its own"
        );
        assert_eq!(many(&author(a, "three"), at(2)), 4, "a second fills four again");
        let problem = budgets
            .take(&author(a, "three"), at(2))
            .expect_err("it is used up");
        assert_eq!(
            (problem.kind, problem.retry_after_seconds),
            (RATE_LIMITED, Some(1))
        );
    }

    #[test]
    fn d9_the_programs_of_a_tenant_leave_its_people_in_the_console_alone() {
        let budgets = budgets(4, 4);
        let many = |door, who: &str| {
            let who = author(tenant(1), who);
            (0..100)
                .filter(|_| budgets.take_by(door, &who, at(1)).is_ok())
                .count()
        };
        assert_eq!(many(Door::Api, "build"), 20);
        assert_eq!(many(Door::Api, "other"), 0, "the programs have used theirs up");
        assert_eq!(
            many(Door::Console, "ada"),
            20,
            "people have a budget of their own"
        );
        assert_eq!(many(Door::OAuth, "build"), 20);
        assert_eq!(many(Door::Console, "bob"), 0);
    }

    #[test]
    fn d9_what_the_operator_set_for_a_tenant_counts_for_it_alone() {
        let budgets = budgets(4, 4);
        let own = Limits {
            requests_per_second: Some(20),
            requests_per_second_of_caller: Some(10),
            device_messages_per_second: Some(20),
            ..Limits::default()
        };
        budgets.set_limits(HashMap::from([(tenant(1), own)]));
        let many = |n, who: &str| {
            let who = author(tenant(n), who);
            (0..1000).filter(|_| budgets.take(&who, at(1)).is_ok()).count()
        };
        assert_eq!((many(1, "one"), many(1, "two"), many(1, "three")), (50, 50, 0));
        assert_eq!(many(2, "one"), 20);
        let devices = |n| {
            let taken = |_: &usize| {
                let message = DeviceMessage::Receipts;
                budgets.take_device(tenant(n), message, at(1)).is_ok()
            };
            (0..1000).filter(taken).count()
        };
        assert_eq!((devices(1), devices(2)), (100, 50));
        budgets.set_limits(HashMap::new());
        assert_eq!(many(1, "one"), 0, "what was used up is not given back");
        assert!(budgets.take(&author(tenant(1), "one"), at(2)).is_ok());
    }

    #[test]
    fn d9_receipts_of_devices_are_taken_when_everything_else_is_refused_already() {
        let budgets = budgets(4, 4);
        let many = |message| {
            (0..1000)
                .filter(|_| budgets.take_device(tenant(1), message, at(1)).is_ok())
                .count()
        };
        assert_eq!(many(DeviceMessage::Other), 30);
        assert_eq!(many(DeviceMessage::Enroll), 0);
        assert_eq!(many(DeviceMessage::Checkin), 10);
        assert!(
            budgets.check_device(tenant(1), at(1)).is_ok(),
            "receipts may come"
        );
        assert_eq!(many(DeviceMessage::Receipts), 10);
        let refused = budgets
            .check_device(tenant(1), at(1))
            .expect_err("nothing is left");
        assert_eq!(refused.retry_after_seconds, Some(1));
        assert!(budgets.check_device(tenant(2), at(1)).is_ok());
        let refused = budgets.take_device(tenant(1), DeviceMessage::Other, at(1));
        let seconds = refused
            .expect_err("what can wait is told to wait longer")
            .retry_after_seconds;
        assert_eq!(seconds, Some(3));
    }

    #[test]
    fn d9_failures_at_the_authorization_server_shut_out_their_address_and_nobody_who_proved_who_they_are() {
        let budgets = budgets(4, 4);
        let from: Option<IpAddr> = Some("192.0.2.1".parse().expect("it is an address"));
        budgets.credentials_proven("build", from, at(1));
        for _ in 0..200 {
            budgets.credentials_failed(None, from, at(1));
            budgets.credentials_failed(Some("guessed"), from, at(1));
        }
        assert!(budgets.check_credentials(None, from, at(1)).is_err());
        assert!(budgets.check_credentials(Some("guessed"), from, at(1)).is_err());
        assert!(budgets.check_credentials(Some("build"), from, at(1)).is_ok());
        let elsewhere: Option<IpAddr> = Some("192.0.2.2".parse().expect("it is an address"));
        assert!(budgets.check_credentials(None, elsewhere, at(1)).is_ok());
        for _ in 0..200 {
            budgets.credentials_failed(Some("build"), from, at(1));
        }
        assert!(
            budgets.check_credentials(Some("build"), from, at(1)).is_err(),
            "its own failures count as well"
        );
    }
}
