//! Asks the live fleet, page by page. Each page is one short read transaction, so that no writer waits and no snapshot is
//! held for long; two pages may therefore be of two moments.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::key::Digest;

use super::{
    rules::{Case, Hypothesis},
    tally::{Counted, Tally},
};
use crate::{
    App,
    access::problem::{Problem, UNAVAILABLE},
    devices::{self, Device, DeviceFilter},
    directory,
    groups::Known,
    rollout::{self, DesiredSet, Target},
    signals,
};

/// Devices that one read transaction looks at.
pub const DEVICES_PER_PAGE: usize = 500;
/// Devices that one call looks at.
pub const DEVICES_PER_CALL_MAX: usize = 200_000;
/// How long one call takes, about; what is left is asked for with a cursor.
const TIME_BUDGET: Duration = Duration::from_secs(8);
/// Cases that are remembered; further ones are made anew.
const CASES_KEPT_MAX: usize = 4096;

/// Which devices are asked about, and how many.
#[derive(Debug, Clone)]
pub struct Range {
    pub target: Target,
    pub after: Option<DeviceId>,
    pub devices_max: usize,
    pub examples_max: usize,
}

/// What was added up, and where devices are left.
pub struct Scanned {
    pub tally: Tally,
    pub next: Option<DeviceId>,
}

/// One call's work, handed from page to page.
struct Work {
    app: App,
    tenant: TenantId,
    at: Timestamp,
    hypothesis: Arc<Hypothesis>,
    target: Target,
    /// By what devices should be at now, and whether they are in the target.
    cases: HashMap<(Digest, bool), Arc<Case>>,
    tally: Tally,
    last: Option<DeviceId>,
}

/// Adds up what the hypothesis means for the active devices of a range.
pub async fn scan(
    app: &App,
    tenant: TenantId,
    hypothesis: Arc<Hypothesis>,
    range: Range,
) -> Result<Scanned, Problem> {
    rollout::ensure(app, tenant).await?;
    let begun = Instant::now();
    let mut work = Work {
        app: app.clone(),
        tenant,
        at: app.clock.now(),
        hypothesis,
        target: range.target,
        cases: HashMap::new(),
        tally: Tally::new(range.examples_max),
        last: range.after,
    };
    let devices_max = range.devices_max.clamp(1, DEVICES_PER_CALL_MAX);
    loop {
        let left = devices_max - usize::try_from(work.tally.devices).unwrap_or(devices_max);
        let limit = left.min(DEVICES_PER_PAGE);
        let scope = Scope::Tenant(tenant.uuid());
        let (done, any_left) = app.db.read(scope, move |tx| work.page(tx, limit)).await?;
        work = done;
        let is_full = work.tally.devices >= devices_max as u64;
        if !any_left || is_full || begun.elapsed() >= TIME_BUDGET {
            return Ok(Scanned {
                next: work.last.filter(|_| any_left),
                tally: work.tally,
            });
        }
    }
}

impl Work {
    /// Looks at a page of devices; answers whether there are more.
    fn page(mut self, tx: &mut Tx, limit: usize) -> Result<(Work, bool), Problem> {
        let active = DeviceFilter::parse("state:active")?;
        let mut found = devices::list(tx, self.tenant, &active, self.last, limit + 1)?;
        let any_left = found.len() > limit;
        found.truncate(limit);
        for device in &found {
            self.device(tx, device)?;
            self.last = Some(device.id);
        }
        Ok((self, any_left))
    }

    fn device(&mut self, tx: &mut Tx, device: &Device) -> Result<(), Problem> {
        let set = desired(&self.app, tx, self.tenant, device, self.at)?;
        let is_targeted = self.target.means(&rollout::traits_of(tx, self.tenant, device)?);
        let case = self.case(&set, is_targeted);
        if !case.is_touched() {
            self.tally.add_untouched(is_targeted);
            return Ok(());
        }
        let facts = devices::facts(tx, self.tenant, device.id)?.map(|(facts, _)| facts);
        let (reported, _) = rollout::last_reported(tx, self.tenant, device, &set)?;
        let labels = devices::labels(tx, self.tenant, device.id)?;
        let owner = directory::owner_of(tx, self.tenant, device)?;
        let said = signals::of_device(tx, self.tenant, device.id)?;
        let known = Known::of(device, facts.as_ref(), Some(&labels), owner, said);
        let judged = case.judge(&known.subject(), &reported, self.at);
        let counted = Counted {
            id: device.id,
            name: &device.name,
            platform: device.platform,
            is_targeted,
        };
        let support = case.support(self.hypothesis.policy, device.platform);
        self.tally.add(counted, &case, &judged, support);
        Ok(())
    }

    fn case(&mut self, set: &DesiredSet, is_targeted: bool) -> Arc<Case> {
        let key = (set.digest, is_targeted);
        if let Some(case) = self.cases.get(&key) {
            return Arc::clone(case);
        }
        let case = Arc::new(Case::of(&set.policies, &self.hypothesis, is_targeted));
        if self.cases.len() < CASES_KEPT_MAX {
            self.cases.insert(key, Arc::clone(&case));
        }
        case
    }
}

/// What a device should be at now.
pub fn desired(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    device: &Device,
    now: Timestamp,
) -> Result<Arc<DesiredSet>, Problem> {
    let traits = rollout::traits_of(tx, tenant, device)?;
    let set = app.activations.desired(tenant, &traits, now);
    set.ok_or_else(|| {
        UNAVAILABLE
            .detail("The policies are still being read. Try again shortly.")
            .retry_after(1)
    })
}
