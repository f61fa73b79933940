//! Membership over time, on both engines.

use std::collections::BTreeSet;

use muster_model::{
    DeviceId, GroupId, Labels, Timestamp,
    facts::{Facts, Package},
    platform::Platform,
};
use muster_storage::testing::on_both;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{Group, GroupState, NewGroup, Preview, PreviewRequest};
use crate::{
    MIGRATIONS,
    access::{
        Author,
        problem::{GROUP_IN_USE, NAME_TAKEN, NOT_FOUND, Problem},
    },
    audit, devices, fleet,
    policy::testing::{Scene, TestDevice},
};

fn definition(name: &str, include: &str, exclude: Option<&str>) -> NewGroup {
    NewGroup {
        name: name.parse().expect("it is a name"),
        description: None,
        include: include.to_owned(),
        exclude: exclude.map(str::to_owned),
    }
}

async fn create(scene: &Scene, name: &str, include: &str, exclude: Option<&str>) -> Result<Group, Problem> {
    let new = definition(name, include, exclude);
    audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
        super::create(tx, &new)
    })
    .await
}

async fn update(scene: &Scene, group: &Group, wanted: NewGroup) -> Result<Group, Problem> {
    let group = group.id;
    audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
        let tenant = tx.tenant();
        let group = super::resolve(tx, tenant, &group.to_string())?;
        super::update(tx, &group, &wanted)
    })
    .await
}

async fn delete(scene: &Scene, group: GroupId) -> Result<(), Problem> {
    audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
        let tenant = tx.tenant();
        let group = super::resolve(tx, tenant, &group.to_string())?;
        super::delete(tx, &group).map(drop)
    })
    .await
}

async fn settle(scene: &Scene) {
    while super::reconcile(&scene.app).await.expect("groups are evaluated") {}
}

async fn group(scene: &Scene, id: GroupId) -> Group {
    let tenant = scene.tenant;
    scene
        .app
        .db
        .read(scene.storage(), move |tx| {
            super::resolve(tx, tenant, &id.to_string())
        })
        .await
        .expect("the group is there")
}

async fn members(scene: &Scene, group: GroupId) -> BTreeSet<DeviceId> {
    let tenant = scene.tenant;
    let found = scene
        .app
        .db
        .read(scene.storage(), move |tx| {
            super::members(tx, tenant, group, None, 1_000)
        })
        .await;
    found
        .expect("members are read")
        .into_iter()
        .map(|member| member.id)
        .collect()
}

async fn label(scene: &Scene, device: DeviceId, json: &str) {
    let labels: Labels = serde_json::from_str(json).expect("they are labels");
    let author = Author::system(scene.tenant);
    fleet::set_labels(
        &scene.app,
        &author,
        device.to_string(),
        fleet::WantedLabels::All(labels),
    )
    .await
    .expect("labels can be set");
}

fn facts_of(os: &str, packages: &[(&str, &str)]) -> Facts {
    let json = format!(r#"{{"hardware":{{}},"os":{{"id":"{os}"}},"collected_at":"2026-11-23T21:00:00Z"}}"#);
    let facts: Facts = serde_json::from_str(&json).expect("they are facts");
    Facts {
        packages: packages
            .iter()
            .map(|(name, version)| Package {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
            })
            .collect(),
        ..facts
    }
}

/// Stores facts, and settles them at once or leaves the mark.
async fn facts(scene: &Scene, device: DeviceId, facts: Facts, at_once: bool) {
    let (app, tenant, now) = (scene.app.clone(), scene.tenant, scene.app.clock.now());
    let moves = audit::housekeeping(&scene.app, scene.storage(), move |tx| {
        let device = devices::get(tx, tenant, device)?;
        devices::put_facts(tx, &device, tenant, &facts, now)?;
        if at_once {
            super::settle(&app, tx, tenant, &[device.id], now)
        } else {
            Ok(super::Moves::default())
        }
    })
    .await
    .expect("facts are stored");
    super::note(&scene.app, &moves);
}

async fn preview(scene: &Scene, include: &str, exclude: Option<&str>) -> Result<Preview, Problem> {
    let (tenant, now) = (scene.tenant, scene.app.clock.now());
    let request = PreviewRequest {
        include: include.to_owned(),
        exclude: exclude.map(str::to_owned),
        shown: 1_000,
    };
    scene
        .app
        .db
        .read(scene.storage(), move |tx| {
            super::preview(tx, tenant, &request, now)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_follow_labels_facts_and_states() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (one, two) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
        );
        let sales = create(&scene, "sales", "labels.department == \"sales\"", None)
            .await
            .expect("made");
        let debian = create(
            &scene,
            "debian",
            "os.id == \"debian\"",
            Some("labels.hold == \"yes\""),
        )
        .await
        .expect("made");
        assert_eq!(sales.state, GroupState::Evaluating);
        settle(&scene).await;
        assert_eq!(group(&scene, sales.id).await.state, GroupState::Ready);
        assert!(members(&scene, sales.id).await.is_empty());

        label(&scene, one.id, r#"{"department":"sales"}"#).await;
        assert_eq!(
            members(&scene, sales.id).await,
            BTreeSet::from([one.id]),
            "in the same transaction"
        );
        assert_eq!(group(&scene, sales.id).await.members, 1);

        facts(&scene, one.id, facts_of("debian", &[]), true).await;
        facts(&scene, two.id, facts_of("debian", &[]), false).await;
        assert_eq!(members(&scene, debian.id).await, BTreeSet::from([one.id]));
        settle(&scene).await;
        assert_eq!(members(&scene, debian.id).await, BTreeSet::from([one.id, two.id]));
        let known = super::of(&scene.app, scene.tenant, one.id).await.expect("read");
        assert_eq!(known.len(), 2);

        label(&scene, one.id, r#"{"hold":"yes"}"#).await;
        assert!(
            super::of(&scene.app, scene.tenant, one.id)
                .await
                .expect("read")
                .is_empty()
        );
        assert_eq!(members(&scene, debian.id).await, BTreeSet::from([two.id]));

        let device = two.id;
        audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
            let tenant = tx.tenant();
            let device = devices::get(tx, tenant, device)?;
            devices::retire(tx, &device)
        })
        .await
        .expect("retired");
        settle(&scene).await;
        assert!(members(&scene, debian.id).await.is_empty());
        assert_eq!(group(&scene, debian.id).await.members, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_group_is_evaluated_anew_and_a_deleted_one_leaves_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let mut of_platform = std::collections::BTreeMap::new();
        for platform in [Platform::Linux, Platform::Windows, Platform::Linux] {
            let device = scene.device(platform).await;
            of_platform
                .entry(platform.as_str())
                .or_insert_with(BTreeSet::new)
                .insert(device.id);
        }
        let made = create(&scene, "g", "device.platform == \"linux\"", None)
            .await
            .expect("made");
        settle(&scene).await;
        assert_eq!(members(&scene, made.id).await, of_platform["linux"]);
        let wanted = definition("g2", "device.platform == \"windows\"", None);
        update(&scene, &made, wanted.clone()).await.expect("changed");
        settle(&scene).await;
        assert_eq!(members(&scene, made.id).await, of_platform["windows"]);
        let before = scene.entries("group.updated").await;
        update(&scene, &made, wanted).await.expect("nothing changes");
        assert_eq!(scene.entries("group.updated").await, before);

        let (tenant, id) = (scene.tenant, made.id);
        let used = audit::housekeeping(&scene.app, scene.storage(), move |tx| {
            super::uses(tx, tenant, &[id], "rollout rol_1")
        })
        .await;
        used.expect("it is there");
        let refused = delete(&scene, made.id).await.expect_err("it is used");
        assert_eq!(refused.kind, GROUP_IN_USE);
        assert!(refused.detail.contains("rollout rol_1"), "{}", refused.detail);
        let free = audit::housekeeping(&scene.app, scene.storage(), move |tx| {
            super::let_go(tx, tenant, "rollout rol_1")
        })
        .await;
        free.expect("let go");
        delete(&scene, made.id).await.expect("nothing uses it");
        assert!(
            super::of(&scene.app, tenant, *of_platform["windows"].first().expect("one"))
                .await
                .expect("read")
                .is_empty()
        );
        create(&scene, "g2", "true", None)
            .await
            .expect("the name is free at once");
        settle(&scene).await;
        assert_eq!(
            scene
                .value::<i64>("SELECT COUNT(*) FROM groups_group WHERE tenant_id = $1")
                .await,
            1
        );
        assert_eq!(
            scene
                .value::<i64>("SELECT COUNT(*) FROM groups_member WHERE tenant_id = $1")
                .await,
            3
        );
        let gone = delete(&scene, made.id).await.expect_err("it is gone");
        assert_eq!(gone.kind, NOT_FOUND);
        assert_eq!(
            create(&scene, "g2", "true", None).await.expect_err("taken").kind,
            NAME_TAKEN
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_devices_than_a_page_and_what_reads_the_time() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        // Two whole pages and a part of a third.
        let tenant = scene.tenant;
        audit::commit(&scene.app, &Author::system(tenant), move |tx| {
            for number in 0..600_u32 {
                let key = [&[0_u8; 64][..], &number.to_be_bytes()].concat();
                let applicant = devices::Applicant::unattested(uuid::Uuid::new_v4(), Platform::Linux, key);
                let admission = devices::consider(tx, tenant, &applicant)?;
                devices::admit(tx, &applicant, admission)?;
            }
            Ok(())
        })
        .await
        .expect("the devices are admitted");
        let all = create(&scene, "all", "device.platform == \"linux\"", None)
            .await
            .expect("made");
        let young = create(
            &scene,
            "young",
            "device.enrolled_at > now - duration(\"1h\")",
            None,
        )
        .await
        .expect("made");
        settle(&scene).await;
        let active = scene
            .value::<i64>("SELECT COUNT(*) FROM devices_device WHERE tenant_id = $1")
            .await;
        assert_eq!(members(&scene, all.id).await.len() as i64, active);
        assert_eq!(members(&scene, young.id).await.len() as i64, active);
        scene.pass_seconds(2 * 3600);
        settle(&scene).await;
        settle(&scene).await;
        assert!(
            members(&scene, young.id).await.is_empty(),
            "time passes for groups too"
        );
        assert_eq!(members(&scene, all.id).await.len() as i64, active);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j1_j4_what_looks_like_code_in_labels_and_groups_is_text() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        for hostile in [
            "'; DROP TABLE devices_label; --",
            "\" || true || \"",
            "${7*7}{{7*7}}%n<script>",
            "\\",
            "%_!",
        ] {
            let json = serde_json::json!({"department": hostile}).to_string();
            label(&scene, device.id, &json).await;
            let quoted = serde_json::Value::from(hostile).to_string();
            let made = create(
                &scene,
                &format!("g {hostile}"),
                &format!("labels.department == {quoted}"),
                None,
            )
            .await
            .unwrap_or_else(|problem| panic!("{hostile}: {problem}"));
            let other = create(
                &scene,
                &format!("o {hostile}"),
                "labels.department == \"x\"",
                None,
            )
            .await
            .expect("made");
            settle(&scene).await;
            assert_eq!(
                members(&scene, made.id).await,
                BTreeSet::from([device.id]),
                "{hostile}"
            );
            assert!(members(&scene, other.id).await.is_empty(), "{hostile}");
        }
        for bad in [
            "labels.department == \"",
            "true; true",
            "1",
            "'; DROP TABLE x; --",
            "nothing.here",
            "",
        ] {
            let problem = preview(&scene, bad, None).await.expect_err("it is no expression");
            assert_eq!(problem.code(), "expression_invalid", "{bad}");
            assert!(
                problem.errors[0].field.starts_with("include: line 1, column "),
                "{:?}",
                problem.errors
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t_groups_of_another_tenant_are_not_there() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let other = scene.beside().await;
        let (own, foreign) = (
            scene.device(Platform::Linux).await,
            other.device(Platform::Linux).await,
        );
        let of_own = create(&scene, "same", "true", None).await.expect("made");
        let of_other = create(&other, "same", "true", None)
            .await
            .expect("names are free in every tenant");
        settle(&scene).await;
        assert_eq!(members(&scene, of_own.id).await, BTreeSet::from([own.id]));
        assert_eq!(members(&other, of_other.id).await, BTreeSet::from([foreign.id]));
        assert_eq!(members(&other, of_own.id).await, BTreeSet::new());
        assert_eq!(
            delete(&other, of_own.id).await.expect_err("foreign").kind,
            NOT_FOUND
        );
        assert_eq!(preview(&other, "true", None).await.expect("it works").members, 1);
        let author = Author::system(other.tenant);
        let refused = fleet::set_labels(
            &other.app,
            &author,
            own.id.to_string(),
            fleet::WantedLabels::All(Labels::default()),
        )
        .await;
        assert_eq!(refused.expect_err("foreign").kind, NOT_FOUND);
        let tenant = other.tenant;
        let used = audit::housekeeping(&other.app, other.storage(), move |tx| {
            super::uses(tx, tenant, &[of_own.id], "x")
        })
        .await;
        assert_eq!(used.expect_err("foreign").kind, NOT_FOUND);
        assert!(
            super::of(&scene.app, other.tenant, own.id)
                .await
                .expect("read")
                .is_empty()
        );
    })
    .await;
}

/// One random event in the life of a fleet.
#[derive(Debug, Clone)]
enum Step {
    Label(usize, u8),
    Facts(usize, u8, bool),
    Redefine(usize, usize),
    Retire(usize),
    Settle,
}

const EXPRESSIONS: [(&str, Option<&str>); 6] = [
    ("labels.a == \"1\"", None),
    ("os.id == \"debian\"", Some("labels.a == \"1\"")),
    ("packages[\"curl\"] >= version(\"8.0\")", None),
    ("!has(labels.a) || device.platform == \"windows\"", None),
    ("\"g1\" in owner.groups", Some("os.id == \"fedora\"")),
    ("true", Some("has(labels.b)")),
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_usize, 0..5_u8).prop_map(|(device, labels)| Step::Label(device, labels)),
        4 => (0..4_usize, 0..4_u8, any::<bool>()).prop_map(|(device, facts, now)| Step::Facts(device, facts, now)),
        2 => (0..3_usize, 0..EXPRESSIONS.len()).prop_map(|(group, to)| Step::Redefine(group, to)),
        1 => (3..4_usize).prop_map(Step::Retire),
        1 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 1..14)
}

async fn play(scene: &Scene, devices: &[TestDevice], groups: &mut [Group], step: &Step) {
    const LABELS: [&str; 5] = [
        "{}",
        r#"{"a":"1"}"#,
        r#"{"a":"2","b":"x"}"#,
        r#"{"owner.groups":"g0; g1"}"#,
        r#"{"b":"1"}"#,
    ];
    const PACKAGES: [(&str, &[(&str, &str)]); 4] = [
        ("debian", &[]),
        ("debian", &[("curl", "8.5.0")]),
        ("fedora", &[("curl", "7.88")]),
        ("fedora", &[]),
    ];
    match step {
        Step::Label(device, labels) => {
            let json: Labels = serde_json::from_str(LABELS[usize::from(*labels)]).expect("they are labels");
            // A retired device takes no labels.
            let _ = fleet::set_labels(
                &scene.app,
                &Author::system(scene.tenant),
                devices[*device].id.to_string(),
                fleet::WantedLabels::All(json),
            )
            .await;
        }
        Step::Facts(device, which, at_once) => {
            let (os, packages) = PACKAGES[usize::from(*which)];
            facts(scene, devices[*device].id, facts_of(os, packages), *at_once).await;
        }
        Step::Redefine(group, to) => {
            let (include, exclude) = EXPRESSIONS[*to];
            let wanted = definition(&format!("g{group}"), include, exclude);
            groups[*group] = update(scene, &groups[*group], wanted).await.expect("changed");
        }
        Step::Retire(device) => {
            let device = devices[*device].id;
            let _ = audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
                let tenant = tx.tenant();
                let device = devices::get(tx, tenant, device)?;
                devices::retire(tx, &device)
            })
            .await;
        }
        Step::Settle => settle(scene).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_incrementally_is_what_a_full_evaluation_finds() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let mut runner = TestRunner::deterministic();
        for round in 0..12 {
            let mut devices = Vec::new();
            for platform in [
                Platform::Linux,
                Platform::Windows,
                Platform::Linux,
                Platform::Linux,
            ] {
                devices.push(scene.device(platform).await);
            }
            let mut groups = Vec::new();
            for (at, (include, exclude)) in EXPRESSIONS.into_iter().take(3).enumerate() {
                groups.push(
                    create(&scene, &format!("g{at}"), include, exclude)
                        .await
                        .expect("made"),
                );
            }
            let steps = steps()
                .new_tree(&mut runner)
                .expect("steps can be made")
                .current();
            for step in &steps {
                play(&scene, &devices, &mut groups, step).await;
            }
            settle(&scene).await;
            for made in &groups {
                let stored = group(&scene, made.id).await;
                let incremental = members(&scene, made.id).await;
                let full = preview(&scene, &stored.include, stored.exclude.as_deref())
                    .await
                    .expect("it works");
                let full: BTreeSet<DeviceId> = full.items.iter().map(|member| member.id).collect();
                assert_eq!(incremental, full, "round {round}: {stored:?} after {steps:?}");
                assert_eq!(stored.members, full.len() as u64, "round {round}: the count");
                delete(&scene, made.id).await.expect("nothing uses it");
            }
            settle(&scene).await;
        }
        assert_eq!(
            scene
                .value::<i64>("SELECT COUNT(*) FROM devices_change WHERE tenant_id = $1")
                .await,
            0
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_says_what_decided() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        label(&scene, device.id, r#"{"department":"sales"}"#).await;
        let made = create(
            &scene,
            "g",
            "labels.department == \"sales\" && os.id == \"debian\"",
            Some("device.platform == \"windows\""),
        )
        .await
        .expect("made");
        settle(&scene).await;
        let (tenant, id, now) = (scene.tenant, device.id, Timestamp::from_unix_seconds(0));
        let explain = async || {
            let group = made.clone();
            let explained = scene
                .app
                .db
                .read(scene.storage(), move |tx| {
                    let device = devices::get(tx, tenant, id)?;
                    super::explain(tx, tenant, &group, &device, now)
                })
                .await;
            explained.expect("it can be explained")
        };
        let unknown = explain().await;
        assert_eq!((unknown.answer.as_str(), unknown.is_member), ("unknown", false));
        assert_eq!(unknown.include.answer, "unknown");
        facts(&scene, id, facts_of("debian", &[]), true).await;
        let member = explain().await;
        assert_eq!((member.answer.as_str(), member.is_member), ("member", true));
        assert!(
            member
                .include
                .because
                .as_deref()
                .unwrap_or_default()
                .contains("sales"),
            "{member:?}"
        );
        let values: Vec<_> = member
            .include
            .values
            .iter()
            .map(|read| read.value.as_deref())
            .collect();
        assert_eq!(values, [Some("debian"), Some("sales")]);
        assert_eq!(
            member.exclude.as_ref().map(|side| side.answer.as_str()),
            Some("false")
        );
        facts(&scene, id, facts_of("fedora", &[]), true).await;
        let outside = explain().await;
        assert_eq!((outside.answer.as_str(), outside.is_member), ("outside", false));
        assert!(
            outside
                .include
                .because
                .as_deref()
                .unwrap_or_default()
                .contains("fedora"),
            "{outside:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_follows_what_this_one_moved() {
    on_both(MIGRATIONS, async |db| {
        if db.db().engine() == muster_storage::Engine::Sqlite {
            return;
        }
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await.id;
        let made = create(&scene, "g", "labels.a == \"1\"", None)
            .await
            .expect("made");
        settle(&scene).await;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let now = scene.app.clock.now();
        let other = crate::Control::new(
            db.db().clone(),
            scene.app.clock.clone(),
            crate::secrets::Keyring::open(folder.path(), now).expect("keys can be made"),
            crate::Settings::default(),
            "other".to_owned(),
        );
        let tenant = scene.tenant;
        super::follow_moves(&other).await.expect("followed");
        assert!(super::of(&other, tenant, device).await.expect("read").is_empty());
        assert!(other.memberships.known(tenant, device).is_some());
        label(&scene, device, r#"{"a":"1"}"#).await;
        super::follow_moves(&other).await.expect("followed");
        let known = super::of(&other, tenant, device).await.expect("read");
        assert_eq!(&*known, &[made.id]);
        // What was followed once is not news again: memory stays.
        super::follow_moves(&other).await.expect("followed");
        assert!(other.memberships.known(tenant, device).is_some());
        let changed = definition("g", "labels.a == \"2\"", None);
        update(&scene, &made, changed).await.expect("changed");
        settle(&scene).await;
        super::follow_moves(&other).await.expect("followed");
        assert!(super::of(&other, tenant, device).await.expect("read").is_empty());
    })
    .await;
}
