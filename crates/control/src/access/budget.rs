//! How many requests a tenant, and each of its callers, may make of the admin listener: one tenant's storm leaves the others
//! alone. Every answer says what is left (draft-ietf-httpapi-ratelimit-headers-10).

use std::{cell::Cell, collections::HashSet, future::Future, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue},
    response::Response,
};
use muster_model::TenantId;
use muster_trust::key::sha256;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{
    Author,
    problem::{Problem, RATE_LIMITED},
};
use crate::limit::{BURST_SECONDS, Left, Limit};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The label of tenants that are not named.
const OTHER: &str = "_other";

/// A caller of a tenant: the hash of what it is called.
type Caller = (TenantId, u64);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabel {
    tenant: String,
    /// Whose budget was used up: `tenant` or `caller`.
    budget: &'static str,
}

/// What each tenant and each caller may still ask.
#[derive(Debug)]
pub struct Budgets {
    tenants: Limit<TenantId>,
    callers: Limit<Caller>,
    refused: Family<RefusedLabel, Counter>,
    /// The tenants that have a label of their own, at most so many.
    named: Mutex<HashSet<TenantId>>,
    named_max: usize,
}

/// What is left of both budgets.
#[derive(Debug, Clone, Copy)]
struct Budget {
    tenant: Left,
    caller: Left,
}

tokio::task_local! {
    static SAID: Cell<Option<Budget>>;
}

impl Budgets {
    /// Requests in a second of a tenant, and of one of its callers; five times as many at once. At most so many tenants are named
    /// in metrics.
    pub fn new(of_tenant: u32, of_caller: u32, named_max: usize) -> Budgets {
        Budgets {
            tenants: Limit::new(of_tenant),
            callers: Limit::new(of_caller),
            refused: Family::default(),
            named: Mutex::default(),
            named_max,
        }
    }

    /// Registers everything under the prefix `mdm_api`.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("mdm_api").register(
            "budget_refusals",
            "Requests of the admin listener that were refused as their tenant or their caller had made too many",
            self.refused.clone(),
        );
    }

    /// Takes one request of this caller at `now`, of a clock that does not go back.
    ///
    /// # Errors
    ///
    /// `rate_limited`, with the seconds after which to come again. A caller that has used up its own budget takes nothing of its
    /// tenant's, and one that is refused because others have used up the tenant's keeps its own.
    pub fn take(&self, author: &Author, now: Duration) -> Result<(), Problem> {
        let hash = sha256(author.actor.id.as_bytes()).0;
        let hash = hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let who = (author.tenant, hash);
        let mut caller = self.callers.take_of(who, now);
        let tenant = match caller {
            Ok(_) => self.tenants.take_of(author.tenant, now),
            Err(_) => Ok(self.tenants.left(author.tenant, now)),
        };
        if tenant.is_err() {
            caller = Ok(self.callers.give_back(who, now));
        }
        let left = |taken: Result<Left, Left>| taken.unwrap_or_else(|none| none);
        let budget = Budget {
            tenant: left(tenant),
            caller: left(caller),
        };
        // Work of our own, outside of a request, tells nobody.
        let _ = SAID.try_with(|said| said.set(Some(budget)));
        let (whose, which, left) = match (caller, tenant) {
            (Ok(_), Ok(_)) => return Ok(()),
            (Err(left), _) => ("You have", "caller", left),
            (Ok(_), Err(left)) => ("The callers of this tenant have", "tenant", left),
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
    if let Some(Budget { tenant, caller }) = budget {
        let policy = [("caller", caller), ("tenant", tenant)]
            .map(|(name, left)| format!("\"{name}\";q={};w={BURST_SECONDS}", left.quota));
        let limit = [("caller", caller), ("tenant", tenant)]
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

    #[test]
    fn d9_a_callers_storm_leaves_its_tenant_and_a_tenants_storm_leaves_the_others() {
        let budgets = Budgets::new(4, 2, 8);
        let at = Duration::from_secs;
        let (a, b) = (
            TenantId::from_uuid(uuid::Uuid::from_u128(1)),
            TenantId::from_uuid(uuid::Uuid::from_u128(2)),
        );
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
}
