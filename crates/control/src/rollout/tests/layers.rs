//! Layers: what a device takes of the rollouts that lie over each other.

use std::sync::Arc;

use muster_model::{
    DeviceId, EntryId, PolicyId, TenantId, Timestamp,
    platform::Platform,
    rollout::{Membership, Stratum, Window},
    settings::Settings,
};
use muster_trust::{key::sha256, statement::DesiredBundle};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    compliance::ActivePolicy,
    devices::{Held, Traits, stratum},
    rollout::{
        activations::{Activations, Layer, Opening, Pile, View},
        rules::{Target, Touched},
    },
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn tenant() -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(1))
}

fn policy(number: u128) -> PolicyId {
    PolicyId::from_uuid(Uuid::from_u128(number))
}

fn device(number: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(number))
}

fn traits(number: u128, held: &[(PolicyId, u64)]) -> Traits {
    Traits {
        device: device(number),
        stratum: stratum(Platform::Linux, None, None).into(),
        held: Held::of(held.to_vec()).into(),
        groups: std::sync::Arc::default(),
    }
}

/// A layer whose stages were opened under these generations.
fn layer(policy: PolicyId, generations: &[u64], membership: Membership) -> Layer {
    let opening = |generation: &u64| {
        let version: muster_model::text::VersionLabel =
            format!("v{generation}").parse().expect("it is a label");
        Opening {
            bundle: DesiredBundle {
                policy_id: policy,
                version: version.clone(),
                sha256: sha256(&generation.to_be_bytes()),
                generation: *generation,
                activation_entry: EntryId::from_uuid(Uuid::from_u128((*generation).into())),
            },
            policy: Arc::new(ActivePolicy {
                policy,
                version,
                generation: *generation,
                settings: Settings::default(),
                rules: Vec::new(),
                is_intact: true,
            }),
        }
    };
    Layer {
        target: Arc::default(),
        touched: None,
        membership: Arc::new(membership),
        openings: generations.iter().map(opening).collect(),
        is_closed: false,
        windows: Arc::from(Vec::<Window>::new()),
    }
}

fn full(policy: PolicyId, generation: u64) -> Layer {
    layer(policy, &[generation], Membership::whole())
}

/// Two stages over a hundred devices: ten of them are the pilot.
fn piloted() -> Membership {
    let kind: Stratum = stratum(Platform::Linux, None, None);
    Membership::draw(
        7,
        &[100, 1000],
        (0..100).map(|number| (device(number), kind.clone())),
    )
}

fn pilot_and_other(membership: &Membership) -> (u128, u128) {
    let kind = stratum(Platform::Linux, None, None);
    let find = |stage| (0..100).find(|number| membership.stage_of(device(*number), &kind) == stage);
    (
        find(0).expect("there is a pilot"),
        find(1).expect("there are others"),
    )
}

fn knowing(generation: u64, piles: Vec<(PolicyId, Vec<Layer>)>) -> Activations {
    let activations = Activations::default();
    let policies = piles.into_iter().map(|(policy, layers)| Pile { policy, layers });
    let view = View {
        generation,
        policies: policies.collect(),
    };
    activations.learn(tenant(), activations.ticket(), view);
    activations
}

fn told(activations: &Activations, traits: &Traits) -> Vec<u64> {
    let set = activations
        .desired(tenant(), traits, NOW)
        .expect("the view was read");
    set.bundles.iter().map(|bundle| bundle.generation).collect()
}

#[test]
fn an_unread_view_changes_nothing_and_an_empty_one_wants_nothing() {
    let activations = Activations::default();
    assert!(activations.desired(tenant(), &traits(7, &[]), NOW).is_none());
    let activations = knowing(0, Vec::new());
    assert_eq!(told(&activations, &traits(7, &[])), Vec::<u64>::new());
}

#[test]
fn a_view_that_was_read_before_another_does_not_replace_it() {
    let activations = Activations::default();
    let (early, late) = (activations.ticket(), activations.ticket());
    let view = |generation| View {
        generation,
        policies: vec![Pile {
            policy: policy(1),
            layers: vec![full(policy(1), generation)],
        }],
    };
    activations.learn(tenant(), late, view(2));
    activations.learn(tenant(), early, view(1));
    assert_eq!(told(&activations, &traits(7, &[])), [2]);
}

#[test]
fn p6_a_stage_reaches_its_devices_and_the_others_stay_where_they_are() {
    let membership = piloted();
    let (pilot, other) = pilot_and_other(&membership);
    let below = knowing(5, vec![(policy(1), vec![full(policy(1), 5)])]);
    let before = below
        .desired(tenant(), &traits(other, &[]), NOW)
        .expect("the view was read");
    let layers = vec![layer(policy(1), &[6], membership), full(policy(1), 5)];
    let activations = knowing(6, vec![(policy(1), layers)]);
    assert_eq!(told(&activations, &traits(pilot, &[])), [6]);
    let after = activations
        .desired(tenant(), &traits(other, &[]), NOW)
        .expect("the view was read");
    assert_eq!(
        (after.digest, told(&activations, &traits(other, &[]))),
        (before.digest, vec![5])
    );
}

#[test]
fn a_device_whose_kind_changes_never_goes_below_what_it_holds() {
    let membership = piloted();
    let (_, other) = pilot_and_other(&membership);
    let layers = vec![layer(policy(1), &[6], membership), full(policy(1), 5)];
    let activations = knowing(6, vec![(policy(1), layers)]);
    // It took the pilot while it was of another kind.
    assert_eq!(told(&activations, &traits(other, &[(policy(1), 6)])), [6]);
}

#[test]
fn a_closed_layer_is_kept_by_those_who_have_it_and_taken_by_nobody() {
    let mut paused = full(policy(1), 6);
    paused.is_closed = true;
    let activations = knowing(
        9,
        vec![
            (policy(1), vec![paused, full(policy(1), 5)]),
            (policy(2), vec![full(policy(2), 9)]),
        ],
    );
    assert_eq!(told(&activations, &traits(7, &[])), [5, 9]);
    assert_eq!(told(&activations, &traits(7, &[(policy(1), 6)])), [6, 9]);
}

#[test]
fn what_a_device_took_before_a_layer_was_closed_is_recognized() {
    let open = knowing(6, vec![(policy(1), vec![full(policy(1), 6), full(policy(1), 5)])]);
    let taken = open
        .desired(tenant(), &traits(7, &[]), NOW)
        .expect("the view was read");
    let mut paused = full(policy(1), 6);
    paused.is_closed = true;
    // Another node, or this one after a restart: it has never made that set.
    let activations = knowing(6, vec![(policy(1), vec![paused, full(policy(1), 5)])]);
    let held = activations.held_under(tenant(), &traits(7, &[]), &taken.digest, 6, NOW);
    assert_eq!(held.as_deref(), Some(&Held::of(vec![(policy(1), 6)])));
    let foreign = sha256(b"another state");
    assert_eq!(
        activations.held_under(tenant(), &traits(7, &[]), &foreign, 6, NOW),
        None
    );
}

#[test]
fn p6_a_roll_back_reaches_exactly_the_devices_that_were_touched() {
    let membership = piloted();
    let (pilot, other) = pilot_and_other(&membership);
    let mut back = full(policy(1), 7);
    back.touched = Some(Arc::new(Touched {
        target: Target::default(),
        membership,
        opened: 1,
        generations: vec![6],
    }));
    let activations = knowing(7, vec![(policy(1), vec![back, full(policy(1), 5)])]);
    assert_eq!(told(&activations, &traits(pilot, &[(policy(1), 6)])), [7]);
    assert_eq!(told(&activations, &traits(other, &[(policy(1), 5)])), [5]);
    // It took the pilot while it was of another kind: it goes back too.
    assert_eq!(told(&activations, &traits(other, &[(policy(1), 6)])), [7]);
}

#[test]
fn a_touched_device_that_the_earlier_version_was_not_for_loses_the_policy() {
    let mut back = full(policy(1), 7);
    back.target = Arc::new(Target {
        platforms: Some(vec![Platform::Ios]),
        ..Target::default()
    });
    back.touched = Some(Arc::new(Touched {
        target: Target::default(),
        membership: Membership::whole(),
        opened: 1,
        generations: vec![6],
    }));
    let activations = knowing(7, vec![(policy(1), vec![back])]);
    assert_eq!(
        told(&activations, &traits(7, &[(policy(1), 6)])),
        Vec::<u64>::new()
    );
}

#[test]
fn p6_a_device_is_moved_only_inside_a_window() {
    let mut windowed = full(policy(1), 6);
    // NOW is 2027-01-15, a Friday, at 08:00.
    let window = |text: &str| -> Arc<[Window]> {
        let window: Window = serde_json::from_str(text).expect("it is a window");
        vec![window].into()
    };
    windowed.windows = window(r#"{"days":["fri"],"start":"09:00","end":"10:00"}"#);
    let activations = knowing(6, vec![(policy(1), vec![windowed.clone(), full(policy(1), 5)])]);
    assert_eq!(told(&activations, &traits(7, &[])), [5]);
    assert_eq!(told(&activations, &traits(7, &[(policy(1), 6)])), [6]);
    windowed.windows = window(r#"{"days":["fri"],"start":"08:00","end":"10:00"}"#);
    let activations = knowing(6, vec![(policy(1), vec![windowed, full(policy(1), 5)])]);
    assert_eq!(told(&activations, &traits(7, &[])), [6]);
}

proptest! {
    /// Whatever lies over each other, no device is sent below what it holds: it would refuse that.
    #[test]
    fn p6_no_pile_sends_a_device_back(
        shape in proptest::collection::vec((1..3_usize, any::<bool>(), any::<bool>()), 1..8),
        number in 0..100_u128, held in 0..16_usize,
    ) {
        let mut generation = 40;
        let membership = piloted();
        let mut layers = Vec::new();
        for (opened, is_closed, is_rollback) in shape {
            let generations: Vec<u64> = (0..opened as u64).map(|stage| generation - 1 + stage).collect();
            generation -= 3;
            let mut layer = layer(policy(1), &generations, membership.clone());
            layer.is_closed = is_closed;
            if is_rollback {
                layer.membership = Arc::new(Membership::whole());
                layer.touched = Some(Arc::new(Touched {
                    target: Target::default(), membership: membership.clone(), opened: 1, generations: vec![1],
                }));
            }
            layers.push(layer);
        }
        let all: Vec<u64> = layers
            .iter()
            .flat_map(|layer| layer.openings.iter().map(|opening| opening.bundle.generation))
            .collect();
        let held = all.get(held).copied();
        let held: Vec<(PolicyId, u64)> = held.into_iter().map(|held| (policy(1), held)).collect();
        let activations = knowing(50, vec![(policy(1), layers)]);
        let told = told(&activations, &traits(number, &held));
        if let Some((_, held)) = held.first() {
            prop_assert!(told.first().is_some_and(|told| told >= held), "{told:?} after {held}");
        }
    }
}
