//! What each device should be at, from memory.
//!
//! A policy is a pile of layers, the newest on top: a rollout that is under way lies over what devices had before. A device
//! takes the first layer that reaches it, and never goes below what it holds already. A tenant's view is made from its
//! rollouts whenever one changes; a device's question is a look-up in it. The answer depends only on which layer of which
//! policy the device takes, so devices share it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use muster_model::{
    PolicyId, TenantId, Timestamp,
    rollout::{Membership, Window, is_open},
};
use muster_trust::{
    key::Digest,
    statement::{DesiredBundle, state_digest},
};
use parking_lot::RwLock;

use super::rules::{Target, Touched};
use crate::{
    compliance::ActivePolicy,
    devices::{Held, Traits},
};

/// The policies that a tenant may have active at once.
pub const ACTIVE_POLICIES_MAX: usize = 64;
/// Combinations of layers whose sets are kept; a tenant with more has them computed anew.
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
    /// What a device that is there holds.
    pub held: Arc<Held>,
}

/// Everything that a tenant's devices are told, as read from the database.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The tenant's newest generation.
    pub generation: u64,
    /// At most `ACTIVE_POLICIES_MAX`.
    pub policies: Vec<Pile>,
}

/// The layers of one policy, the newest first.
#[derive(Debug, Clone)]
pub struct Pile {
    pub policy: PolicyId,
    pub layers: Vec<Layer>,
}

/// One rollout as the view needs it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Whom its bundle is for.
    pub target: Arc<Target>,
    /// Of a roll-back: the devices that it is about. The others are left to the layers below.
    pub touched: Option<Arc<Touched>>,
    pub membership: Arc<Membership>,
    /// The bundle as each opened stage has it.
    pub openings: Vec<Opening>,
    /// Paused or replaced: only devices that have it keep it.
    pub is_closed: bool,
    /// When devices may take it.
    pub windows: Arc<[Window]>,
}

/// A stage that was opened: the bundle under the generation of its opening.
#[derive(Debug, Clone)]
pub struct Opening {
    pub bundle: DesiredBundle,
    pub policy: Arc<ActivePolicy>,
}

/// What a policy means for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// It has no layer there, or one that takes the policy away.
    Nothing,
    /// The opened stage of the layer with these places.
    Opening { layer: usize, stage: usize },
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

type Sets = RwLock<HashMap<Box<[u16]>, Arc<DesiredSet>>>;

#[derive(Debug)]
struct TenantView {
    ticket: Ticket,
    view: View,
    reads_groups: bool,
    /// By the choice of each policy.
    sets: Sets,
    /// What the sets of this view and of earlier ones put on a device.
    known: Arc<RwLock<HashMap<Digest, Arc<Held>>>>,
}

impl Activations {
    /// What a device should be at; `None` while the tenant's view has not been read: then nothing is to be changed.
    pub fn desired(&self, tenant: TenantId, traits: &Traits, now: Timestamp) -> Option<Arc<DesiredSet>> {
        let view = self.view(tenant)?;
        Some(view.set(|pile| pile.choice(traits, now)))
    }

    /// What a device has in force that reports this state under this generation. Nothing if that cannot be told: it will
    /// be told what it should be at, and report again.
    pub fn held_under(
        &self,
        tenant: TenantId,
        traits: &Traits,
        digest: &Digest,
        generation: u64,
        now: Timestamp,
    ) -> Option<Arc<Held>> {
        let view = self.view(tenant)?;
        if let Some(held) = view.known.read().get(digest) {
            return Some(Arc::clone(held));
        }
        let as_wanted = view.set(|pile| pile.choice(traits, now));
        if as_wanted.digest == *digest {
            return Some(Arc::clone(&as_wanted.held));
        }
        // What it took before a layer was closed, or on another node before this one was started.
        let as_told = view.set(|pile| pile.choice_until(traits, generation));
        (as_told.digest == *digest).then(|| Arc::clone(&as_told.held))
    }

    /// Whether groups decide about anything that the tenant's devices are told.
    pub fn reads_groups(&self, tenant: TenantId) -> bool {
        self.view(tenant).is_some_and(|view| view.reads_groups)
    }

    /// To be taken before a view is read from the database.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::AcqRel))
    }

    /// Replaces a tenant's view, unless one that was read later is there.
    pub fn learn(&self, tenant: TenantId, ticket: Ticket, view: View) {
        let mut tenants = self.tenants.write();
        let before = tenants.get(&tenant);
        if before.is_none_or(|known| known.ticket < ticket) {
            let known = before.map(|before| Arc::clone(&before.known)).unwrap_or_default();
            let layers = view.policies.iter().flat_map(|pile| &pile.layers);
            let reads_groups = layers.clone().any(Layer::reads_groups);
            let view = TenantView {
                ticket,
                reads_groups,
                view,
                sets: Sets::default(),
                known,
            };
            tenants.insert(tenant, Arc::new(view));
        }
    }

    /// Whether the tenant's view has been read.
    pub fn knows(&self, tenant: TenantId) -> bool {
        self.tenants.read().contains_key(&tenant)
    }

    /// The tenant's highest generation, as far as this node has read.
    pub fn generation(&self, tenant: TenantId) -> Option<u64> {
        self.view(tenant).map(|view| view.view.generation)
    }

    fn view(&self, tenant: TenantId) -> Option<Arc<TenantView>> {
        self.tenants.read().get(&tenant).map(Arc::clone)
    }
}

impl TenantView {
    fn set(&self, choose: impl Fn(&Pile) -> Choice) -> Arc<DesiredSet> {
        let piles = self.view.policies.iter().take(ACTIVE_POLICIES_MAX);
        let choices: Vec<Choice> = piles.map(choose).collect();
        let key: Vec<u16> = choices.iter().map(|choice| choice.code()).collect();
        if let Some(set) = self.sets.read().get(key.as_slice()) {
            return Arc::clone(set);
        }
        let set = Arc::new(self.made(&choices));
        remember(&mut self.known.write(), set.digest, Arc::clone(&set.held));
        remember(&mut self.sets.write(), key.into_boxed_slice(), Arc::clone(&set));
        set
    }

    fn made(&self, choices: &[Choice]) -> DesiredSet {
        let (mut bundles, mut policies, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for (pile, choice) in self.view.policies.iter().zip(choices) {
            let Some(opening) = pile.opening(*choice) else {
                continue;
            };
            held.push((pile.policy, opening.bundle.generation));
            bundles.push(opening.bundle.clone());
            policies.push(Arc::clone(&opening.policy));
        }
        DesiredSet {
            digest: state_digest(&bundles),
            generation: self.view.generation,
            bundles,
            policies,
            held: Arc::new(Held::of(held)),
        }
    }
}

/// Keeps a bounded number of what can be made again.
fn remember<K: Eq + std::hash::Hash, V>(kept: &mut HashMap<K, V>, key: K, value: V) {
    if kept.len() >= SETS_KEPT_MAX {
        kept.clear();
    }
    kept.insert(key, value);
}

impl Choice {
    fn code(self) -> u16 {
        match self {
            Choice::Nothing => 0,
            Choice::Opening { layer, stage } => u16::try_from(1 + layer * 256 + stage).unwrap_or(u16::MAX),
        }
    }
}

impl Pile {
    /// What the policy means for a device now.
    fn choice(&self, traits: &Traits, now: Timestamp) -> Choice {
        let takes = |layer: &Layer, _| !layer.is_closed && is_open(&layer.windows, now);
        let natural = self.first(traits, takes);
        let Some((layer, stage, held)) = self.kept(traits) else {
            return natural.map_or(Choice::Nothing, |(choice, _)| choice);
        };
        let keeps = Choice::Opening { layer, stage };
        match natural {
            Some((_, generation)) if generation < held => keeps,
            Some((choice, _)) => choice,
            None if self.layers[layer].target.means(traits) => keeps,
            None => Choice::Nothing,
        }
    }

    /// What the policy meant for a device when the tenant was at a generation, as far as that can still be told.
    fn choice_until(&self, traits: &Traits, generation: u64) -> Choice {
        self.first(traits, |_, opened| opened <= generation)
            .map_or(Choice::Nothing, |(choice, _)| choice)
    }

    /// The first layer that counts and reaches a device, with the generation under which it does.
    fn first(&self, traits: &Traits, counts: impl Fn(&Layer, u64) -> bool) -> Option<(Choice, u64)> {
        for (at, layer) in self.layers.iter().enumerate() {
            let Some(stage) = layer.reaches(self.policy, traits) else {
                continue;
            };
            let generation = layer.openings[stage].bundle.generation;
            if !counts(layer, generation) {
                continue;
            }
            let choice = if layer.target.means(traits) {
                Choice::Opening { layer: at, stage }
            } else {
                Choice::Nothing
            };
            return Some((choice, generation));
        }
        None
    }

    /// The newest opening that a device holds: layer, stage, generation.
    fn kept(&self, traits: &Traits) -> Option<(usize, usize, u64)> {
        let openings = self.layers.iter().enumerate().flat_map(|(at, layer)| {
            let openings = layer.openings.iter().enumerate();
            openings.map(move |(stage, opening)| (at, stage, opening.bundle.generation))
        });
        openings
            .filter(|(_, _, generation)| traits.held.has(self.policy, *generation))
            .max_by_key(|(_, _, generation)| *generation)
    }

    fn opening(&self, choice: Choice) -> Option<&Opening> {
        match choice {
            Choice::Nothing => None,
            Choice::Opening { layer, stage } => self.layers.get(layer)?.openings.get(stage),
        }
    }
}

impl Layer {
    fn reads_groups(&self) -> bool {
        let touched = self
            .touched
            .iter()
            .flat_map(|touched| touched.target.named_groups());
        self.target.named_groups().chain(touched).next().is_some()
    }

    /// The opened stage that holds a device, if this layer is about it.
    fn reaches(&self, policy: PolicyId, traits: &Traits) -> Option<usize> {
        let is_meant = match &self.touched {
            Some(touched) => touched.holds(policy, traits),
            None => self.target.means(traits),
        };
        let stage = self.membership.stage_of(traits.device, &traits.stratum);
        (is_meant && stage < self.openings.len()).then_some(stage)
    }
}
