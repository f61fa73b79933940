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
use muster_model::{TenantId, TokenId};
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
    limit::{BURST_SECONDS, Left, Limit, Meter, Share},
    strangers::network,
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The label of tenants that are not named.
const OTHER: &str = "_other";
/// What one address may fail at in a second at the endpoints of the authorization server; five times as much may come at once.
const FAILURES_PER_SECOND: u32 = 20;

/// Check-ins of one device in a second that count as those with receipts: whoever says more of them is refused with the others.
const RECEIPTS_PER_SECOND: u32 = 1;

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

/// What one device may still send, whatever its tenant has left.
#[derive(Debug, Default)]
pub struct OfDevice {
    messages: Meter,
    receipts: Meter,
}

impl OfDevice {
    /// What a check-in counts as. Anybody can put a receipt into it, so that few of them count as more than a check-in.
    pub fn checkin(&self, has_receipts: bool, now: Duration) -> DeviceMessage {
        if has_receipts && self.receipts.take(RECEIPTS_PER_SECOND, now) {
            DeviceMessage::Receipts
        } else {
            DeviceMessage::Checkin
        }
    }
}

/// A caller of a tenant, by one door: the hash of what it is called.
type Caller = (TenantId, Door, u64);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabel {
    tenant: String,
    /// Whose budget was used up: `tenant`, `console`, `oauth` or `caller`.
    budget: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedDevice {
    tenant: String,
    /// `receipts`, `checkin`, `other` or `enroll` where the tenant's devices sent too much; `device` where this one did.
    message: &'static str,
}

/// What each tenant and each caller may still ask.
#[derive(Debug)]
pub struct Budgets {
    tenants: Limit<(TenantId, Door)>,
    callers: Limit<Caller>,
    devices: Limit<TenantId>,
    /// Enrollments by their token: what a device that is none yet may send.
    enrollments: Limit<TokenId>,
    per_device: u32,
    /// Credentials that were refused at the authorization server, by address.
    failures: Limit<IpAddr>,
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
    pub messages_of_device: u32,
}

tokio::task_local! {
    static SAID: Cell<Option<Budget>>;
}

fn hashed(name: &str) -> u64 {
    let hash = sha256(name.as_bytes()).0;
    hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What one caller of a tenant may: half of the tenant's at most, so that no single one shuts out the others.
pub(crate) fn caller_of(tenant: u32, caller: u32) -> u32 {
    caller.min((tenant / 2).max(1))
}

impl Budgets {
    /// At most so many tenants are named in metrics.
    pub fn new(per_second: PerSecond, named_max: usize) -> Budgets {
        Budgets {
            tenants: Limit::new(per_second.requests),
            callers: Limit::new(per_second.requests_of_caller),
            devices: Limit::new(per_second.device_messages),
            enrollments: Limit::new(per_second.messages_of_device),
            per_device: per_second.messages_of_device,
            failures: Limit::new(FAILURES_PER_SECOND),
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
        let mut of_caller = share(limits.requests_per_second_of_caller, self.callers.whole());
        of_caller.per_second = caller_of(of_tenant.per_second, of_caller.per_second);
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

    /// Takes one message of a device's own budget, before anything is asked about it: whoever is no device any more, or sends without
    /// end, takes nothing of its tenant's.
    ///
    /// # Errors
    ///
    /// `rate_limited`, with the seconds after which to come again.
    pub fn take_of_device(&self, tenant: TenantId, of: &OfDevice, now: Duration) -> Result<(), Problem> {
        if of.messages.take(self.of_device(tenant), now) {
            return Ok(());
        }
        Err(self.refuse_one(tenant, 1))
    }

    /// Takes one enrollment: of its token first, and then of the tenant's devices.
    ///
    /// # Errors
    ///
    /// As of [`Budgets::take_device`].
    pub fn take_enrollment(&self, tenant: TenantId, token: TokenId, now: Duration) -> Result<(), Problem> {
        let share = Share {
            per_second: self.of_device(tenant),
            ..self.enrollments.whole()
        };
        self.enrollments
            .take_share(token, share, now)
            .map_err(|left| self.refuse_one(tenant, left.reset_seconds))?;
        self.take_device(tenant, DeviceMessage::Enroll, now)
    }

    /// What one device may send in a second: a quarter of its tenant's at most.
    fn of_device(&self, tenant: TenantId) -> u32 {
        let of_tenant = self.of_devices(tenant).per_second;
        self.per_device.min((of_tenant / 4).max(1))
    }

    fn refuse_one(&self, tenant: TenantId, seconds: u64) -> Problem {
        self.count_refused(tenant, "device");
        RATE_LIMITED
            .detail("This device sent more than one may in a second. Come again later.")
            .retry_after(seconds)
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
        self.count_refused(tenant, message.as_str());
        RATE_LIMITED
            .detail("The devices of this tenant sent more than they may in a second. Come again later.")
            .retry_after(left.reset_seconds)
    }

    fn count_refused(&self, tenant: TenantId, message: &'static str) {
        let label = RefusedDevice {
            tenant: self.name_of(tenant),
            message,
        };
        self.refused_devices.get_or_create(&label).inc();
    }

    /// Counts credentials that were refused at the authorization server on the address that they came from. They are always looked at
    /// first, so that nobody's failures refuse anybody who is who they say.
    ///
    /// # Errors
    ///
    /// `rate_limited`, with the seconds after which to come again, instead of what is wrong with them.
    pub fn credentials_failed(&self, from: Option<IpAddr>, now: Duration) -> Result<(), Problem> {
        self.failures.take(network(from), now).map_err(|seconds| {
            RATE_LIMITED
                .detail("Too many credentials that came from your address were refused. Try again in a few seconds.")
                .retry_after(seconds)
        })
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
            messages_of_device: 5,
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
        assert_eq!(
            many(Door::Api, "build"),
            10,
            "half of the tenant's, whatever a caller may"
        );
        assert_eq!(many(Door::Api, "other"), 10);
        assert_eq!(many(Door::Api, "third"), 0, "the programs have used theirs up");
        assert_eq!(
            many(Door::Console, "ada"),
            10,
            "people have a budget of their own"
        );
        assert_eq!(many(Door::OAuth, "build"), 10);
        assert_eq!(
            many(Door::Console, "bob"),
            10,
            "nobody shuts out the others alone"
        );
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
        assert_eq!(many(2, "one"), 10);
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
    fn d9_one_device_uses_up_its_own_budget_and_a_part_of_its_tenants() {
        let budgets = budgets(4, 4);
        let (loud, quiet) = (OfDevice::default(), OfDevice::default());
        let taken = |of: &OfDevice| {
            (0..1000)
                .filter(|_| budgets.take_of_device(tenant(1), of, at(1)).is_ok())
                .count()
        };
        assert_eq!(
            taken(&loud),
            10,
            "a quarter of ten in a second, whatever a device may"
        );
        assert_eq!(taken(&quiet), 10);
        let refused = budgets
            .take_of_device(tenant(1), &loud, at(1))
            .expect_err("it is used up");
        assert_eq!(
            (refused.kind, refused.retry_after_seconds),
            (RATE_LIMITED, Some(1))
        );
        let left = |message| budgets.take_device(tenant(1), message, at(1)).is_ok();
        assert!(left(DeviceMessage::Other), "the tenant's is as it was");
        let receipts = (0..1000)
            .filter(|_| loud.checkin(true, at(1)) == DeviceMessage::Receipts)
            .count();
        assert_eq!(receipts, 5, "more of them are check-ins");
        assert_eq!(quiet.checkin(false, at(1)), DeviceMessage::Checkin);
        assert_eq!(quiet.checkin(true, at(1)), DeviceMessage::Receipts);
    }

    #[test]
    fn d9_the_holder_of_one_token_uses_up_nothing_but_its_own() {
        let budgets = budgets(4, 4);
        let token = |n| TokenId::from_uuid(uuid::Uuid::from_u128(n));
        let begun = |n| {
            (0..1000)
                .filter(|_| budgets.take_enrollment(tenant(1), token(n), at(1)).is_ok())
                .count()
        };
        assert_eq!((begun(1), begun(2)), (10, 10));
        assert!(
            budgets
                .take_device(tenant(1), DeviceMessage::Other, at(1))
                .is_ok()
        );
    }

    #[test]
    fn d9_failures_at_the_authorization_server_count_by_address() {
        let budgets = budgets(4, 4);
        let address = |text: &str| Some(text.parse::<IpAddr>().expect("it is an address"));
        let failed = |from| {
            (0..200)
                .filter(|_| budgets.credentials_failed(from, at(1)).is_ok())
                .count()
        };
        assert_eq!(failed(address("192.0.2.1")), 100);
        assert_eq!(failed(address("192.0.2.2")), 100);
        let refused = budgets.credentials_failed(address("192.0.2.1"), at(1));
        let refused = refused.expect_err("it has used them up");
        assert_eq!(refused.retry_after_seconds, Some(1));
    }
}
