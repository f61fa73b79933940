//! Groups in documents, on both engines.

use muster_storage::testing::on_both;
use serde_json::{Value, json};

use super::{apply, changes, export, plan, refused};
use crate::{
    MIGRATIONS,
    access::{Author, problem::Problem},
    audit, groups,
    policy::testing::Scene,
};

const GROUPS: &str = r#""groups":[
    {"name":"sales","description":"Who sells","include":"labels.department==\"sales\"","exclude":"labels.intern == \"yes\""},
    {"name":"north","include":"labels.site == \"north\""}]"#;
const FOR_SALES: &str = r#""policies":[{"name":"baseline","versions":[
    {"version":"1","settings":{"passcode.min_length":8}},{"version":"2","settings":{"passcode.min_length":12}}],
    "active":{"version":"1","target":{"groups":["sales"],"exclude_groups":["north"]}}}]"#;

fn both() -> String {
    format!(r#"{{"format":1,{GROUPS},{FOR_SALES}}}"#)
}

async fn found(scene: &Scene) {
    while groups::reconcile(&scene.app).await.expect("members can be found") {}
}

/// Applies what can be, finds the members, and applies the rest.
async fn apply_both_steps(scene: &Scene, document: &str) {
    let first = apply(scene, &plan(scene, document).await).await;
    assert_eq!(first.status, 200, "{first:?}");
    found(scene).await;
    let second = apply(scene, &plan(scene, document).await).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(second.json().get("later"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_a_new_group_is_activated_by_a_second_plan_when_its_members_are_known() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, &both()).await;
        let made = [
            "create_group north",
            "create_group sales",
            "create_policy baseline",
            "add_version baseline 1",
            "add_version baseline 2",
        ];
        let later = ["activate_later baseline 1"];
        assert_eq!(changes(&planned["changes"]), [made.as_slice(), later.as_slice()].concat());
        assert_eq!(
            planned["changes"][5]["detail"],
            "For every device in sales without north. No version is active. The members of north, sales are found after this \
             plan is applied; then another plan activates it."
        );
        let applied = apply(&scene, &planned).await.json();
        assert_eq!((changes(&applied["applied"]), changes(&applied["later"])), (made.map(str::to_owned).to_vec(), later.map(str::to_owned).to_vec()));
        assert!(applied["applied"][0]["group_id"].as_str().is_some_and(|id| id.starts_with("grp_")));
        assert_eq!(scene.entries("rollout.activated").await, 0);
        assert_eq!(scene.entries("group.created").await, 2);

        // Until the members are known, the same plan can be tried again.
        let rest = plan(&scene, &both()).await;
        assert_eq!(changes(&rest["changes"]), ["activate baseline 1"]);
        let early = apply(&scene, &rest).await;
        assert_eq!((early.status, early.code().as_str()), (409, "illegal_state"));
        assert!(early.headers.contains("retry-after: "), "{}", early.headers);
        found(&scene).await;
        assert_eq!(plan(&scene, &both()).await["plan_sha256"], rest["plan_sha256"]);
        let answer = apply(&scene, &rest).await;
        assert_eq!(changes(&answer.json()["applied"]), ["activate baseline 1"], "{answer:?}");
        assert_eq!(plan(&scene, &both()).await["changes"], json!([]));
        for done in [&rest, &planned] {
            assert_eq!(apply(&scene, done).await.json(), json!({"applied": []}));
        }
        assert_eq!(scene.entries("rollout.activated").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_exported_by_name_and_come_back_as_the_same_bytes() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        apply_both_steps(&scene, &both()).await;
        let exported = export(&scene).await;
        let expected = r#"{"format":1,"groups":[{"name":"north","include":"labels.site == \"north\""},{"name":"sales","description":"Who sells","include":"labels.department == \"sales\"","exclude":"labels.intern == \"yes\""}],"policies":["#;
        assert!(exported.starts_with(expected), "{exported}");
        let target = r#""target":{"groups":["sales"],"exclude_groups":["north"]}"#;
        assert!(exported.contains(target), "{exported}");
        assert_eq!(plan(&scene, &exported).await["changes"], json!([]));
        let other = scene.beside().await;
        apply_both_steps(&other, &exported).await;
        assert_eq!(export(&other).await, exported);
        assert_eq!(export(&scene).await, exported);

        // Ids mean the same groups.
        let group = |name: &'static str| {
            let tenant = scene.tenant;
            scene.app.db.read(scene.storage(), move |tx| groups::resolve(tx, tenant, name))
        };
        let (sales, north) = (group("sales").await, group("north").await);
        let by_id = exported.replace(
            target,
            &format!(
                r#""target":{{"groups":["{}"],"exclude_groups":["{}"]}}"#,
                sales.expect("it is there").id,
                north.expect("it is there").id
            ),
        );
        assert_eq!(plan(&scene, &by_id).await["changes"], json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_expression_is_a_change_and_moves_what_is_activated_for_it_to_a_second_plan() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        apply_both_steps(&scene, &both()).await;
        let described = both().replace("Who sells", "Whoever sells");
        let planned = plan(&scene, &described).await;
        assert_eq!(changes(&planned["changes"]), ["update_group sales"]);
        assert_eq!(apply(&scene, &planned).await.status, 200);
        let bare = described.replace(r#""description":"Whoever sells","#, "");
        assert_eq!(changes(&plan(&scene, &bare).await["changes"]), ["keep sales"]);

        // What is active stays active: only who is in the group changes.
        let wider = described.replace(r#","exclude":"labels.intern == \"yes\"""#, "");
        let planned = plan(&scene, &wider).await;
        assert_eq!(changes(&planned["changes"]), ["update_group sales"]);
        assert_eq!(
            planned["changes"][0]["detail"],
            r#"Its members are found anew: devices with labels.department == "sales"."#
        );
        // Another version for it waits.
        let newer = wider.replace(r#""active":{"version":"1""#, r#""active":{"version":"2""#);
        let planned = plan(&scene, &newer).await;
        assert_eq!(
            changes(&planned["changes"]),
            ["update_group sales", "activate_later baseline 2"]
        );
        apply_both_steps(&scene, &newer).await;
        assert_eq!(scene.entries("rollout.activated").await, 2);
        assert_eq!(scene.entries("group.updated").await, 2);
        assert_eq!(plan(&scene, &newer).await["changes"], json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_a_group_is_deleted_by_prune_alone_within_the_budget_and_not_while_it_is_used() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        apply_both_steps(&scene, &both()).await;
        let before = export(&scene).await;
        let policies = FOR_SALES.replace(r#","exclude_groups":["north"]"#, "");
        let without = |members: &str| {
            format!(r#"{{"format":1,"groups":[{{"name":"sales","include":"labels.department == \"sales\"","exclude":"labels.intern == \"yes\""}}],{members}}}"#)
        };
        let kept = ["keep sales", "would_delete north"];
        let planned = plan(&scene, &without(FOR_SALES)).await;
        assert_eq!((changes(&planned["changes"]), &planned["deletions"]), (kept.map(str::to_owned).to_vec(), &json!(1)));
        assert_eq!(apply(&scene, &planned).await.code(), "prune_required");
        let part = plan(&scene, &without(&format!(r#"{FOR_SALES},"partial":true"#))).await;
        assert_eq!(changes(&part["changes"]), ["keep sales", "keep north"]);
        // A document that says nothing of groups, or of this one, deletes none.
        let silent = format!(r#"{{"format":1,{FOR_SALES},"prune":true}}"#);
        assert_eq!(plan(&scene, &silent).await["changes"], json!([]));

        // What a target of the document names cannot be deleted by it.
        let named = without(&format!(r#"{FOR_SALES},"prune":true"#));
        assert_eq!(refused(&scene, "/plan", &named).await, (400, "invalid".to_owned()));
        // What goes by it still is a rollout under way.
        let pruned = plan(&scene, &without(&format!(r#"{policies},"prune":true"#))).await;
        assert_eq!(
            changes(&pruned["changes"]),
            ["activate baseline 1", "keep sales", "delete_group north"]
        );
        let answer = apply(&scene, &pruned).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "group_in_use"));
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.starts_with("north: The group is used by rol_"), "{detail}");
        assert_eq!(export(&scene).await, before, "nothing was changed");

        let first = plan(&scene, &format!(r#"{{"format":1,{policies}}}"#)).await;
        assert_eq!(apply(&scene, &first).await.status, 200);
        // Nobody is there to wait for: the rollout is completed, and what lay under it is gone.
        crate::rollout::reconcile(&scene.app).await.expect("the reconciler runs");
        let pruned = plan(&scene, &without(&format!(r#"{policies},"prune":true"#))).await;
        let body = |budget: usize| json!({"plan_sha256": pruned["plan_sha256"], "deletion_budget": budget}).to_string();
        assert_eq!(refused(&scene, "/apply", &body(0)).await, (422, "deletion_budget_exceeded".to_owned()));
        let answer = scene.call("POST", "/apply", Some(&body(1))).await;
        assert_eq!(changes(&answer.json()["applied"]), ["delete_group north"], "{answer:?}");
        assert_eq!(scene.entries("group.deleted").await, 1);

        // With its policy, a group goes in one plan.
        let pruned = plan(&scene, r#"{"format":1,"groups":[],"policies":[],"prune":true}"#).await;
        assert_eq!(changes(&pruned["changes"]), ["archive_policy baseline", "delete_group sales"]);
        assert_eq!(apply(&scene, &pruned).await.status, 200);
        assert_eq!(export(&scene).await, r#"{"format":1,"policies":[]}"#);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_with_groups_is_not_applied_when_somebody_changed_a_group_since() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, &both()).await;
        let author = Author::system(scene.tenant);
        let made = audit::commit(&scene.app, &author, |tx| {
            let new = groups::NewGroup {
                name: "north".parse().map_err(Problem::internal)?,
                description: None,
                include: "labels.site == \"far north\"".to_owned(),
                exclude: None,
            };
            groups::create(tx, &new)
        });
        made.await.expect("the group can be made");
        let answer = apply(&scene, &planned).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "plan_changed"));
        assert_eq!(scene.entries("group.created").await, 1);
        let again = plan(&scene, &both()).await;
        assert_eq!(
            changes(&again["changes"])[..2],
            ["update_group north", "create_group sales"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_cannot_be_are_refused_by_name() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let groups = |groups: &str| format!(r#"{{"format":1,"groups":[{groups}],"policies":[]}}"#);
        let one = r#"{"name":"a","include":"labels.a == \"b\""}"#;
        let id = "grp_00000000000000000000000000000001";
        let cases = [
            (
                groups(&format!("{one},{one}")),
                400,
                "invalid",
                "The document has the group a twice.",
            ),
            (groups(r#"{"name":"a"}"#), 400, "invalid", "include"),
            (
                groups(r#"{"name":"a","include":"labels.a ==","members":[]}"#),
                400,
                "invalid",
                "members",
            ),
            (
                groups(r#"{"name":"a","include":"labels.a =="}"#),
                422,
                "expression_invalid",
                "groups/a: include, ",
            ),
            (
                groups(&format!(r#"{{"name":"{id}","include":"labels.a == \"b\""}}"#)),
                400,
                "invalid",
                "looks like an id",
            ),
            (
                both().replace(r#"["sales"]"#, r#"["sale"]"#),
                400,
                "invalid",
                "baseline: the target names the group sale, which is",
            ),
            (
                both().replace(r#"["sales"]"#, &format!(r#"["{id}"]"#)),
                400,
                "invalid",
                "neither in the document nor stored",
            ),
            (
                both().replace(r#"["sales"]"#, "[]"),
                400,
                "invalid",
                "names nobody",
            ),
        ];
        for (document, status, code, said) in cases {
            let answer = scene.call("POST", "/plan", Some(&document)).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{document}"
            );
            let detail: Value = answer.json()["detail"].clone();
            assert!(
                detail.as_str().is_some_and(|detail| detail.contains(said)),
                "{said}: {detail}"
            );
        }
    })
    .await;
}
