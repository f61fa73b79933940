//! Configuration as code from outside: `muster export`, `plan` and `apply` over a folder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    device::logged,
    eventually,
    server::{AdminFile, Server, assert_healthy, create_tenant, everything, run_muster},
};

const PASSPHRASE: &str = "correct horse battery";

/// Two active policies, one with a secret, and one that is not active.
async fn furnish(api: &Api) {
    let network = json!({"ssid": "office", "security": "wpa-psk", "passphrase": PASSPHRASE});
    for (name, settings) in [
        (
            "baseline",
            json!({"passcode.min_length": 12, "camera.allowed": false}),
        ),
        ("wifi", json!({"wifi.networks": [network]})),
        ("spare", json!({"camera.allowed": true})),
    ] {
        let policy = json!({"name": name, "description": format!("About {name}: \"all\"")});
        api.post("/policies", &policy).await.expect(201);
        let version = json!({"version": "2026.10", "settings": settings});
        api.post(&format!("/policies/{name}/versions"), &version)
            .await
            .expect(201);
    }
    let rules = json!({"version": "2026.11", "settings": {}, "rules": [
        {"name": "os", "check": {"fact": "os.version", "op": "ge", "value": "12"}}]});
    api.post("/policies/baseline/versions", &rules).await.expect(201);
    let target = json!({"version": "2026.10", "target": {"platforms": ["linux", "macos"]}});
    api.post("/policies/baseline/activate", &target).await.expect(202);
    api.post("/policies/wifi/activate", &json!({"version": "2026.10"}))
        .await
        .expect(202);
}

/// A group that an active version is for, in stages and windows of its own, and one that nothing uses.
async fn furnish_groups(api: &Api) {
    let sales = json!({"name": "sales", "description": "Who sells", "include": "labels.department == \"sales\"",
        "exclude": "labels.intern == \"yes\""});
    let spare = json!({"name": "Ersatz: Büro", "include": "device.platform == \"linux\""});
    let mut ids = Vec::new();
    for group in [sales, spare] {
        let made = api.post("/groups", &group).await.expect(201);
        ids.push(made["id"].clone());
    }
    for id in &ids {
        let path = format!("/groups/{}", id.as_str().expect("an id is text"));
        eventually("the group's members are known", PATIENCE, async || {
            (api.get(&path).await.ok()["state"] == "ready").then_some(())
        })
        .await;
    }
    let activation = json!({
        "version": "2026.11",
        "target": {"groups": [ids[0]]},
        "stages": [
            {"name": "pilot", "percent": 2.5, "soak_seconds": 3600,
             "gate": {"method": "exact", "slos": [{"name": "compliance:os", "limit": 0.01}]}},
            {"name": "full", "promotion": "manual"},
        ],
        "windows": [{"days": ["mon", "fri"], "start": "22:00", "end": "05:30", "utc_offset_minutes": -60}],
    });
    api.post("/policies/baseline/activate", &activation)
        .await
        .expect(202);
}

/// A client on this machine with the credentials of a file.
struct Desk {
    folder: TempDir,
    admin_file: PathBuf,
}

impl Desk {
    fn new(admin_file: PathBuf) -> Desk {
        let folder = tempfile::tempdir().expect("a folder can be made");
        Desk { folder, admin_file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a line; words that begin with `@` are paths of the desk.
    async fn run(&self, line: &str) -> Output {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => word.into(),
        };
        let flags = ["--admin-file".into(), self.admin_file.clone().into_os_string()];
        run_muster(line.split_whitespace().map(word).chain(flags)).await
    }

    /// As `run`, with the exit code that it must end with; what it says.
    #[track_caller]
    fn ends(output: &Output, code: i32) -> String {
        let said = everything(output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }

    async fn json(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} -o json")).await;
        Desk::ends(&output, 0);
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file can be written");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file is there")
    }
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("it can be read").path();
        let name = PathBuf::from(path.file_name().expect("it has a name"));
        if path.is_dir() {
            found.extend(
                files(&path)
                    .into_iter()
                    .map(|(below, bytes)| (name.join(below), bytes)),
            );
        } else {
            found.insert(name, std::fs::read(&path).expect("it can be read"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_an_exported_folder_applied_elsewhere_is_exported_as_the_same_bytes() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let api = server.api().await;
        furnish(&api).await;
        furnish_groups(&api).await;
        server.stop().await;
        let other = create_tenant(&server, "other").await;
        server.restart().await;
        let desk = Desk::new(server.admin_file());
        Desk::ends(&desk.run("export --out @a --secrets-out @secrets.json").await, 0);
        let exported = files(&desk.path("a"));
        assert_eq!(exported.len(), 6, "{exported:?}");
        assert!(
            desk.read("a/policies/baseline.yml")
                .contains("groups:\n      - sales\n")
        );
        for (path, bytes) in &exported {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains(PASSPHRASE), "{}: {text}", path.display());
        }
        assert!(desk.read("secrets.json").contains(PASSPHRASE));
        let mode = std::os::unix::fs::MetadataExt::mode(
            &std::fs::metadata(desk.path("secrets.json")).expect("it is there"),
        );
        assert_eq!(mode & 0o777, 0o600);
        Desk::ends(&desk.run("plan -f @a --exit-code").await, 0);
        assert_eq!(desk.json("apply -f @a").await, json!({"applied": []}));

        // Another tenant gets it all from the folder and the file of secrets, and is exported as the same bytes.
        let second = Desk::new(refreshed(&server, &other));
        std::os::unix::fs::symlink(desk.path("a"), second.path("a")).expect("it can be linked");
        std::fs::copy(desk.path("secrets.json"), second.path("secrets.json")).expect("it can be copied");
        let said = Desk::ends(&second.run("apply -f @a").await, 1);
        assert!(
            said.contains("wifi.yml:") && said.contains("--secrets-file"),
            "{said}"
        );
        let drift = second
            .run("plan -f @a --secrets-file @secrets.json --exit-code")
            .await;
        Desk::ends(&drift, 3);
        let applied = second.json("apply -f @a --secrets-file @secrets.json").await;
        // What is for a group comes second, when the members of the group are known.
        let actions = actions(&applied["applied"]);
        assert_eq!(
            (actions.len(), actions.last()),
            (11, Some(&"activate")),
            "{applied}"
        );
        assert!(applied.get("later").is_none(), "{applied}");
        Desk::ends(
            &second.run("export --out @b --secrets-out @secrets-b.json").await,
            0,
        );
        assert_eq!(files(&second.path("b")), exported);
        assert_eq!(second.read("secrets-b.json"), desk.read("secrets.json"));
        assert_healthy(&server).await;
    })
    .await;
}

fn actions(changes: &Value) -> Vec<&str> {
    let changes = changes.as_array().expect("it is a list").iter();
    changes.filter_map(|change| change["action"].as_str()).collect()
}

/// The credentials of a tenant with the addresses that the server has now.
fn refreshed(server: &Server, file: &Path) -> PathBuf {
    let text = std::fs::read_to_string(file).expect("the file is there");
    let mut admin: Value = serde_json::from_str(&text).expect("it is JSON");
    let AdminFile { admin_url, .. } = &server.admin;
    admin["admin_url"] = json!(admin_url);
    let path = file.with_extension("now.json");
    std::fs::write(&path, admin.to_string()).expect("it can be written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_a_file_that_is_missing_deletes_nothing_without_prune_and_within_the_budget_alone() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        furnish(&api).await;
        let desk = Desk::new(server.admin_file());
        Desk::ends(&desk.run("export --out @a").await, 0);
        for name in ["spare", "wifi"] {
            std::fs::remove_file(desk.path(&format!("a/policies/{name}.yml"))).expect("it is there");
        }
        let plan = desk.json("plan -f @a").await;
        assert_eq!(plan["deletions"], 2, "{plan}");
        assert_eq!(actions(&plan["changes"]), ["would_delete", "would_delete"]);
        let said = Desk::ends(&desk.run("apply -f @a").await, 1);
        assert!(said.contains("prune_required"), "{said}");
        let said = Desk::ends(&desk.run("apply -f @a --prune --deletion-budget 1").await, 1);
        assert!(said.contains("deletion_budget_exceeded"), "{said}");
        assert_eq!(api.list("/policies").await.len(), 3);
        assert_eq!(desk.json("apply -f @a --partial").await, json!({"applied": []}));

        let plan = desk.json("plan -f @a --prune").await;
        let digest = plan["plan_sha256"].as_str().expect("it has a digest").to_owned();
        let applied = desk
            .json(&format!(
                "apply -f @a --prune --deletion-budget 2 --plan-sha256 {digest}"
            ))
            .await;
        assert_eq!(applied["applied"].as_array().map(Vec::len), Some(2), "{applied}");
        let names: Vec<Value> = api
            .list("/policies")
            .await
            .into_iter()
            .map(|policy| policy["name"].clone())
            .collect();
        assert_eq!(names, ["baseline"]);
        assert_eq!(logged(&api, "policy.archived", 2).await.len(), 2);
        assert_eq!(logged(&api, "rollout.withdrawn", 1).await.len(), 1);
        // The versions are artifacts, and stay.
        api.get("/policies/wifi/versions/2026.10/bundle")
            .await
            .expect(200);
        Desk::ends(&desk.run("plan -f @a --exit-code").await, 0);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_a_group_whose_file_is_missing_is_deleted_by_prune_alone_and_not_while_it_is_used() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        furnish(&api).await;
        furnish_groups(&api).await;
        let desk = Desk::new(server.admin_file());
        Desk::ends(&desk.run("export --out @a").await, 0);
        let files: Vec<PathBuf> = files(&desk.path("a/groups")).into_keys().collect();
        assert_eq!(
            files,
            [
                PathBuf::from("group-b322b0270514c6d6.yml"),
                PathBuf::from("sales.yml")
            ]
        );
        std::fs::remove_file(desk.path("a/groups").join(&files[0])).expect("it is there");
        let plan = desk.json("plan -f @a").await;
        assert_eq!(actions(&plan["changes"]), ["would_delete"], "{plan}");
        assert_eq!(plan["changes"][0]["group"], "Ersatz: Büro");
        let said = Desk::ends(&desk.run("apply -f @a").await, 1);
        assert!(said.contains("prune_required"), "{said}");
        assert_eq!(desk.json("apply -f @a --partial").await, json!({"applied": []}));
        let said = Desk::ends(&desk.run("apply -f @a --prune --deletion-budget 0").await, 1);
        assert!(said.contains("deletion_budget_exceeded"), "{said}");
        assert_eq!(api.list("/groups").await.len(), 2);
        let applied = desk.json("apply -f @a --prune").await;
        assert_eq!(actions(&applied["applied"]), ["delete_group"]);
        assert_eq!(api.list("/groups").await.len(), 1);
        assert_eq!(logged(&api, "group.deleted", 1).await.len(), 1);

        // A folder without groups/ says nothing of groups; an empty one says that there are none.
        std::fs::remove_file(desk.path("a/groups/sales.yml")).expect("it is there");
        desk.write("a/groups/.gitkeep", "");
        let said = Desk::ends(&desk.run("plan -f @a --prune").await, 1);
        assert!(said.contains("the target names the group sales"), "{said}");
        let file = "a/policies/baseline.yml";
        let everywhere = desk
            .read(file)
            .replace("  target:\n    groups:\n      - sales\n", "");
        desk.write(file, &everywhere);
        let said = Desk::ends(&desk.run("apply -f @a --prune").await, 1);
        assert!(said.contains("group_in_use"), "{said}");
        std::fs::remove_dir_all(desk.path("a/groups")).expect("it is there");
        let applied = desk.json("apply -f @a --prune").await;
        assert_eq!(actions(&applied["applied"]), ["activate"]);
        assert_eq!(api.list("/groups").await.len(), 1);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_groups_in_a_document_need_the_scopes_of_groups() {
    let server = Server::start(Default::default()).await;
    let api = server.api().await;
    furnish_groups_alone(&api).await;
    let bare = api.client_with("bare", &["config:read", "config:write"]).await;
    let reader = api
        .client_with("reader", &["config:read", "config:write", "group:read"])
        .await;
    let writer = api.client_with("writer", &["config:write", "group:write"]).await;
    let with_groups = json!({"format": 1, "policies": [], "partial": true,
        "groups": [{"name": "north", "include": "labels.site == \"north\""}]});
    let without = json!({"format": 1, "policies": []});

    assert_eq!(bare.get("/export").await.ok().get("groups"), None);
    assert_eq!(reader.get("/export").await.ok()["groups"][0]["name"], "sales");
    bare.post("/plan", &without).await.expect(200);
    bare.post("/plan", &with_groups)
        .await
        .refused(403, "insufficient_scope");
    let planned = reader.post("/plan", &with_groups).await.expect(200);
    assert_eq!(actions(&planned["changes"]), ["create_group", "keep"]);
    let digest = json!({"plan_sha256": planned["plan_sha256"]});
    let mut whole = with_groups.clone();
    whole["plan_sha256"] = planned["plan_sha256"].clone();
    for caller in [&bare, &reader] {
        for body in [&digest, &whole] {
            caller
                .post("/apply", body)
                .await
                .refused(403, "insufficient_scope");
        }
    }
    assert_eq!(api.list("/groups").await.len(), 1);
    let applied = writer.post("/apply", &digest).await.expect(200);
    assert_eq!(actions(&applied["applied"]), ["create_group"]);
}

async fn furnish_groups_alone(api: &Api) {
    let sales = json!({"name": "sales", "include": "labels.department == \"sales\""});
    api.post("/groups", &sales).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_plan_that_was_looked_at_is_applied() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        furnish(&api).await;
        let desk = Desk::new(server.admin_file());
        Desk::ends(&desk.run("export --out @a").await, 0);
        let file = "a/policies/baseline.yml";
        let changed = desk.read(file).replace(
            "active:\n  version: \"2026.10\"",
            "active:\n  version: \"2026.11\"",
        ) + "# a comment\n";
        desk.write(file, &changed);
        let plan = desk.json("plan -f @a").await;
        let digest = plan["plan_sha256"].as_str().expect("it has a digest").to_owned();
        api.post("/policies/baseline/activate", &json!({"version": "2026.10"}))
            .await
            .expect(202);
        let said = Desk::ends(&desk.run(&format!("apply -f @a --plan-sha256 {digest}")).await, 1);
        assert!(said.contains("the plan is another one now"), "{said}");
        Desk::ends(&desk.run("plan -f @a --exit-code").await, 3);
        let applied = desk.json("apply -f @a").await;
        assert_eq!(applied["applied"][0]["action"], "activate", "{applied}");
        let policy = api.get("/policies/baseline").await.ok();
        assert_eq!(policy["managed_by"], "git");
        Desk::ends(&desk.run("plan -f @a --exit-code").await, 0);
        // What is written is canonical: comments are not kept.
        Desk::ends(&desk.run("export --out @a").await, 0);
        assert_eq!(desk.read(file) + "# a comment\n", changed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_by_file_and_line_and_send_nothing() {
    let server = Server::start(Default::default()).await;
    let api = server.api().await;
    let desk = Desk::new(server.admin_file());
    furnish(&api).await;
    Desk::ends(&desk.run("export --out @a").await, 0);
    let file = "a/policies/spare.yml";
    let good = desk.read(file);
    desk.write(file, &good.replace("camera.allowed: true", "camera.alowed: yes"));
    let said = Desk::ends(&desk.run("plan -f @a").await, 1);
    assert!(
        said.contains("spare.yml:7: `yes` is a truth to some readers"),
        "{said}"
    );
    desk.write(file, &good.replace("camera.allowed: true", "camera.alowed: true"));
    let said = Desk::ends(&desk.run("plan -f @a").await, 1);
    assert!(said.contains("spare.yml:7: camera.alowed"), "{said}");
    // A version never changes: the server's refusal is told by file and line as well.
    desk.write(
        file,
        &good.replace("camera.allowed: true", "camera.allowed: false"),
    );
    let said = Desk::ends(&desk.run("apply -f @a").await, 1);
    assert!(
        said.contains("spare.yml:5") && said.contains("version_exists"),
        "{said}"
    );
    for line in [
        "plan",
        "plan -f @a --prune --partial",
        "apply -f @a --deletion-budget 3",
        "export",
    ] {
        Desk::ends(&desk.run(line).await, 2);
    }
    Desk::ends(&desk.run("plan -f @nowhere").await, 1);
    assert_eq!(
        api.list("/log/entries?limit=500&action=configuration.applied")
            .await
            .len(),
        0
    );
}
