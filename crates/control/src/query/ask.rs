//! Answering a question: a bounded number at once, each for a bounded time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use muster_model::{
    DeviceId, RefreshId, TenantId, Timestamp,
    query::{Answer, Limits, Plan, Run},
};
use muster_storage::Scope;
use parking_lot::Mutex;

use super::{
    schema::SCHEMA,
    source::{Scan, costly},
};
use crate::{
    App,
    access::problem::{Problem, QUERY_INVALID, QUERY_TOO_COSTLY, RATE_LIMITED},
    compliance,
};

/// Groups, or different rows, of one question.
const GROUPS_MAX: usize = 100_000;
/// Memory for the rows and groups of one question, about.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long one question is worked on.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Questions that this node answers at once, and of one tenant.
const AT_ONCE_MAX: usize = 8;
const AT_ONCE_OF_TENANT_MAX: usize = 4;

/// Questions that are being answered by this node, and what it knows of refreshes.
#[derive(Debug, Default)]
pub struct Queries {
    asking: Arc<Mutex<HashMap<TenantId, usize>>>,
    /// Whether any device of any tenant is being asked for fresh facts. Where none is, check-ins need not look.
    pub(super) refreshing: AtomicBool,
    /// How far this node has called the devices of each refresh.
    pub(super) called: Mutex<HashMap<RefreshId, DeviceId>>,
}

impl Queries {
    /// Whether any device is being asked for fresh facts.
    pub fn is_refreshing(&self) -> bool {
        self.refreshing.load(Ordering::Acquire)
    }

    fn begin(&self, tenant: TenantId) -> Result<Asking, Problem> {
        let mut asking = self.asking.lock();
        let of_tenant = asking.get(&tenant).copied().unwrap_or_default();
        let all: usize = asking.values().sum();
        if of_tenant >= AT_ONCE_OF_TENANT_MAX || all >= AT_ONCE_MAX {
            return Err(RATE_LIMITED
                .detail("As many questions are being answered as may be at once. Ask again in a moment.")
                .retry_after(2));
        }
        asking.insert(tenant, of_tenant + 1);
        Ok(Asking {
            tenant,
            asking: Arc::clone(&self.asking),
        })
    }
}

/// A question that counts while it is answered.
struct Asking {
    tenant: TenantId,
    asking: Arc<Mutex<HashMap<TenantId, usize>>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut asking = self.asking.lock();
        match asking.get_mut(&self.tenant) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                asking.remove(&self.tenant);
            }
        }
    }
}

/// An answer, and what it is made of.
#[derive(Debug, Clone)]
pub struct Answered {
    pub table: &'static str,
    pub answer: Answer,
    pub asked_at: Timestamp,
    pub took: Duration,
    /// Devices that were looked at.
    pub devices: u64,
    /// Personal devices that have no rows in this table.
    pub withheld: u64,
    /// When the oldest and the newest facts came that were looked at; nothing where no facts were needed.
    pub facts: Option<(Timestamp, Timestamp)>,
}

/// Reads a question.
///
/// # Errors
///
/// `query_invalid`, with the place.
pub fn check(question: &str, now: Timestamp) -> Result<Plan, Problem> {
    Plan::check(question, &SCHEMA, now).map_err(|error| {
        QUERY_INVALID.detail(format!("The question cannot be read: {error}.").replace("?.", "?"))
    })
}

/// Answers a question from what is stored.
///
/// # Errors
///
/// `query_invalid` with the place, `query_too_costly`, or `rate_limited` while too many others are being answered.
pub async fn ask(app: &App, tenant: TenantId, question: &str, rows_max: usize) -> Result<Answered, Problem> {
    let (begun, now) = (Instant::now(), app.clock.now());
    let plan = Arc::new(check(question, now)?);
    let _asking = app.queries.begin(tenant)?;
    let limits = Limits {
        rows_max,
        groups_max: GROUPS_MAX,
        bytes_max: MEMORY_BYTES_MAX,
    };
    let mut scan = Scan {
        tenant,
        run: Run::new(Arc::clone(&plan), limits),
        plan: Arc::clone(&plan),
        now,
        last: None,
        devices: 0,
        policies: compliance::PolicyNames::default(),
        withheld: 0,
        facts: None,
    };
    loop {
        let page = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
            let any_left = scan.page(tx)?;
            Ok::<_, Problem>((scan, any_left))
        });
        let (done, any_left) = page.await?;
        scan = done;
        if !any_left {
            break;
        }
        if begun.elapsed() > TIME_MAX {
            return Err(QUERY_TOO_COSTLY.detail(format!(
                "The question was worked on for {} seconds and had looked at {} devices. Narrow it with WHERE, on columns of the \
                 device first: platform, model, owner, last_seen_at.",
                TIME_MAX.as_secs(),
                scan.devices
            )));
        }
    }
    let Scan {
        run,
        devices,
        withheld,
        facts,
        ..
    } = scan;
    Ok(Answered {
        table: plan.table().name,
        answer: run.finish().map_err(costly)?,
        asked_at: now,
        took: begun.elapsed(),
        devices,
        withheld,
        facts,
    })
}
