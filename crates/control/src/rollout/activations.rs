//! What each device should be at, from memory.
//!
//! A tenant's view is made from its current rollouts whenever one changes; a device's question is one look-up in it. The
//! answer depends only on which rollouts mean the device, so devices share it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use muster_model::{DeviceId, TenantId, platform::Platform};
use muster_trust::{
    key::Digest,
    statement::{DesiredBundle, state_digest},
};
use parking_lot::RwLock;

use super::rules::Target;
use crate::compliance::ActivePolicy;

/// The policies that a tenant may have active at once: one bit each in a mask.
pub const ACTIVE_POLICIES_MAX: usize = 64;
/// Combinations of rollouts whose sets are kept; a tenant with more has them computed anew.
const SETS_KEPT_MAX: usize = 4096;

/// What a device should be at.
#[derive(Debug)]
pub struct DesiredSet {
    /// `state_digest` of the bundles: what an up-to-date device sends.
    pub digest: Digest,
    /// The generation that the statement carries.
    pub generation: u64,
    pub bundles: Vec<DesiredBundle>,
    /// The same policies, opened, for the evaluator.
    pub policies: Vec<Arc<ActivePolicy>>,
}

/// One rollout as the view needs it: whom it is for and what it puts there.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub target: Arc<Target>,
    pub bundle: DesiredBundle,
    pub policy: Arc<ActivePolicy>,
}

/// A state of the tenant's policies: the newest one, or the one before a paused rollout.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub generation: u64,
    /// At most `ACTIVE_POLICIES_MAX`.
    pub candidates: Vec<Candidate>,
}

/// A paused rollout: devices that have not reported it stay in the world before it.
#[derive(Debug, Clone)]
pub struct Paused {
    pub generation: u64,
    pub target: Arc<Target>,
    /// Devices that have it and keep it.
    pub holders: HashSet<DeviceId>,
    pub before: World,
}

/// Everything that a tenant's devices are told, as read from the database.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub newest: World,
    /// The oldest first: the first one that means a device decides.
    pub paused: Vec<Paused>,
}

/// The views of all tenants, one per process.
#[derive(Debug, Default)]
pub struct Activations {
    tenants: RwLock<HashMap<TenantId, Arc<TenantView>>>,
    tickets: AtomicU64,
}

/// A place in the order of readings: a view that was read before another must not replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct TenantView {
    ticket: Ticket,
    newest: World,
    paused: Vec<PausedView>,
    /// By the world's place (0 is the newest) and the mask of its candidates.
    sets: RwLock<HashMap<(usize, u64), Arc<DesiredSet>>>,
}

#[derive(Debug)]
struct PausedView {
    generation: u64,
    target: Arc<Target>,
    holders: RwLock<HashSet<DeviceId>>,
    before: World,
}

impl Activations {
    /// What a device should be at; `None` while the tenant's view has not been read: then nothing is to be changed.
    pub fn desired(&self, tenant: TenantId, platform: Platform, device: DeviceId) -> Option<Arc<DesiredSet>> {
        let view = self.view(tenant)?;
        Some(view.desired(platform, device))
    }

    /// To be taken before a view is read from the database.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::AcqRel))
    }

    /// Replaces a tenant's view, unless one that was read later is there.
    pub fn learn(&self, tenant: TenantId, ticket: Ticket, view: View) {
        let mut tenants = self.tenants.write();
        if tenants.get(&tenant).is_none_or(|known| known.ticket < ticket) {
            tenants.insert(tenant, Arc::new(TenantView::of(ticket, view)));
        }
    }

    /// Whether the tenant's view has been read.
    pub fn knows(&self, tenant: TenantId) -> bool {
        self.tenants.read().contains_key(&tenant)
    }

    /// The tenant's highest generation, as far as this node has read.
    pub fn generation(&self, tenant: TenantId) -> Option<u64> {
        self.view(tenant).map(|view| view.newest.generation)
    }

    /// A device reported `generation`: it keeps what a paused rollout gave it.
    pub fn reported(&self, tenant: TenantId, device: DeviceId, generation: u64) {
        let Some(view) = self.view(tenant) else { return };
        for paused in &view.paused {
            if generation >= paused.generation && !paused.holders.read().contains(&device) {
                paused.holders.write().insert(device);
            }
        }
    }

    /// Tenants with a paused rollout, whose holders other nodes may have learned of.
    pub fn with_pauses(&self) -> Vec<TenantId> {
        let tenants = self.tenants.read();
        tenants
            .iter()
            .filter(|(_, view)| !view.paused.is_empty())
            .map(|(tenant, _)| *tenant)
            .collect()
    }

    fn view(&self, tenant: TenantId) -> Option<Arc<TenantView>> {
        self.tenants.read().get(&tenant).map(Arc::clone)
    }
}

impl TenantView {
    fn of(ticket: Ticket, view: View) -> TenantView {
        let paused = view.paused.into_iter().map(|paused| PausedView {
            generation: paused.generation,
            target: paused.target,
            holders: RwLock::new(paused.holders),
            before: paused.before,
        });
        TenantView {
            ticket,
            newest: view.newest,
            paused: paused.collect(),
            sets: RwLock::default(),
        }
    }

    fn desired(&self, platform: Platform, device: DeviceId) -> Arc<DesiredSet> {
        let (place, world) = self.world(platform, device);
        let mask = world.mask(platform, device);
        if let Some(set) = self.sets.read().get(&(place, mask)) {
            return Arc::clone(set);
        }
        let set = Arc::new(world.set(mask));
        let mut sets = self.sets.write();
        if sets.len() < SETS_KEPT_MAX {
            sets.insert((place, mask), Arc::clone(&set));
        }
        set
    }

    /// The world that a device lives in: before the oldest paused rollout that means it and that it does not have.
    fn world(&self, platform: Platform, device: DeviceId) -> (usize, &World) {
        let held_back = self.paused.iter().position(|paused| {
            paused.target.means(platform, device) && !paused.holders.read().contains(&device)
        });
        match held_back {
            Some(at) => (at + 1, &self.paused[at].before),
            None => (0, &self.newest),
        }
    }
}

impl World {
    fn mask(&self, platform: Platform, device: DeviceId) -> u64 {
        let mut mask = 0;
        for (bit, candidate) in self.candidates.iter().take(ACTIVE_POLICIES_MAX).enumerate() {
            if candidate.target.means(platform, device) {
                mask |= 1 << bit;
            }
        }
        mask
    }

    fn set(&self, mask: u64) -> DesiredSet {
        let chosen = self
            .candidates
            .iter()
            .enumerate()
            .filter(|(bit, _)| *bit < 64 && mask & (1 << bit) != 0);
        let (mut bundles, mut policies) = (Vec::new(), Vec::new());
        for (_, candidate) in chosen {
            bundles.push(candidate.bundle.clone());
            policies.push(Arc::clone(&candidate.policy));
        }
        DesiredSet {
            digest: state_digest(&bundles),
            generation: self.generation,
            bundles,
            policies,
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_model::{EntryId, PolicyId, settings::Settings};
    use muster_trust::key::sha256;
    use uuid::Uuid;

    use super::*;

    fn tenant() -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(1))
    }

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(Uuid::from_u128(number))
    }

    fn candidate(policy: u128, generation: u64, target: Target) -> Candidate {
        let policy = PolicyId::from_uuid(Uuid::from_u128(policy));
        let version: muster_model::text::VersionLabel =
            format!("v{generation}").parse().expect("it is a label");
        Candidate {
            target: Arc::new(target),
            bundle: DesiredBundle {
                policy_id: policy,
                version: version.clone(),
                sha256: sha256(&generation.to_be_bytes()),
                generation,
                activation_entry: EntryId::from_uuid(Uuid::from_u128(generation.into())),
            },
            policy: Arc::new(ActivePolicy {
                policy,
                version,
                generation,
                settings: Settings::default(),
                rules: Vec::new(),
                is_intact: true,
            }),
        }
    }

    fn everybody() -> Target {
        Target::default()
    }

    fn generations(activations: &Activations, platform: Platform, id: DeviceId) -> (u64, Vec<u64>) {
        let set = activations
            .desired(tenant(), platform, id)
            .expect("the view was read");
        (
            set.generation,
            set.bundles.iter().map(|bundle| bundle.generation).collect(),
        )
    }

    #[test]
    fn an_unread_view_changes_nothing_and_an_empty_one_wants_nothing() {
        let activations = Activations::default();
        assert!(
            activations
                .desired(tenant(), Platform::Linux, device(7))
                .is_none()
        );
        activations.learn(tenant(), activations.ticket(), View::default());
        let set = activations
            .desired(tenant(), Platform::Linux, device(7))
            .expect("the view was read");
        assert_eq!(set.digest, sha256(b""));
    }

    #[test]
    fn a_device_is_told_the_rollouts_that_mean_it() {
        let only_linux = Target {
            platforms: Some(vec![Platform::Linux]),
            devices: None,
        };
        let only_seven = Target {
            platforms: None,
            devices: Some(vec![device(7)]),
        };
        let candidates = vec![
            candidate(1, 1, everybody()),
            candidate(2, 2, only_linux),
            candidate(3, 3, only_seven),
        ];
        let activations = Activations::default();
        activations.learn(
            tenant(),
            activations.ticket(),
            View {
                newest: World {
                    generation: 3,
                    candidates,
                },
                paused: Vec::new(),
            },
        );
        assert_eq!(
            generations(&activations, Platform::Linux, device(7)),
            (3, vec![1, 2, 3])
        );
        assert_eq!(
            generations(&activations, Platform::Linux, device(8)),
            (3, vec![1, 2])
        );
        assert_eq!(generations(&activations, Platform::Ios, device(8)), (3, vec![1]));
    }

    #[test]
    fn a_view_that_was_read_earlier_replaces_no_later_one() {
        let activations = Activations::default();
        let (earlier, later) = (activations.ticket(), activations.ticket());
        let newest = World {
            generation: 1,
            candidates: vec![candidate(1, 1, everybody())],
        };
        activations.learn(
            tenant(),
            later,
            View {
                newest,
                paused: Vec::new(),
            },
        );
        activations.learn(tenant(), earlier, View::default());
        assert_eq!(
            generations(&activations, Platform::Linux, device(7)),
            (1, vec![1])
        );
    }

    #[test]
    fn devices_with_the_same_rollouts_share_one_set() {
        let activations = Activations::default();
        let newest = World {
            generation: 1,
            candidates: vec![candidate(1, 1, everybody())],
        };
        activations.learn(
            tenant(),
            activations.ticket(),
            View {
                newest,
                paused: Vec::new(),
            },
        );
        let one = activations
            .desired(tenant(), Platform::Linux, device(7))
            .expect("the view was read");
        let other = activations
            .desired(tenant(), Platform::Linux, device(8))
            .expect("the view was read");
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn a_pause_moves_no_device_and_takes_nothing_back() {
        let paused = Paused {
            generation: 5,
            target: Arc::new(Target {
                platforms: Some(vec![Platform::Linux]),
                devices: None,
            }),
            holders: HashSet::from([device(7)]),
            before: World {
                generation: 4,
                candidates: vec![candidate(1, 2, everybody())],
            },
        };
        let newest = World {
            generation: 6,
            candidates: vec![candidate(1, 5, everybody()), candidate(2, 6, everybody())],
        };
        let activations = Activations::default();
        activations.learn(
            tenant(),
            activations.ticket(),
            View {
                newest,
                paused: vec![paused],
            },
        );
        assert_eq!(
            generations(&activations, Platform::Linux, device(7)),
            (6, vec![5, 6])
        );
        assert_eq!(
            generations(&activations, Platform::Linux, device(8)),
            (4, vec![2])
        );
        assert_eq!(
            generations(&activations, Platform::Ios, device(8)),
            (6, vec![5, 6])
        );
        activations.reported(tenant(), device(8), 5);
        assert_eq!(
            generations(&activations, Platform::Linux, device(8)),
            (6, vec![5, 6])
        );
    }
}
