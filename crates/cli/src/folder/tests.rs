use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::secrets::Secrets;
use super::{Exported, Folder, write};
use crate::CliError;

const DEFAULT: (&str, &str) = ("default.yml", "kind: tenant\nformat: 1\n");
const WIFI: &str = "kind: policy\nname: wifi\nversions:\n  - version: 1\n    settings:\n      wifi.networks:\n        - ssid: \
                    office\n          security: wpa-psk\n          passphrase: {secret: office}\n";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has a parent")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }
    folder
}

fn document(
    files: &[(&str, &str)],
    secrets: &[(&str, &str)],
    stored: Option<&Value>,
) -> Result<Value, CliError> {
    let folder = folder(files);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let secrets: Secrets = secrets.iter().map(owned).collect();
    let read = Folder::read(folder.path())?;
    Ok(read.document(&secrets, stored)?.document)
}

/// Every line of a refusal, without the folder's own path.
fn refused(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let error = Folder::read(folder.path())
        .and_then(|read| read.document(&Secrets::new(), None))
        .expect_err("it is refused");
    let text = match error {
        CliError::Files(wrong) => wrong.join("\n"),
        other => other.to_string(),
    };
    text.replace(&format!("{}/", folder.path().display()), "")
}

fn stored() -> Value {
    json!({"format": 1, "policies": [
        {"name": "Büro: alle", "description": "yes", "versions": [
            {"version": "2026.10", "settings": {"camera.allowed": false, "passcode.min_length": 12}, "rules": []},
            {"version": "2", "settings": {}, "rules": [
                {"name": "os", "check": {"fact": "os.version", "op": "ge", "value": "12"}}]}],
         "active": {"version": "2026.10", "target": {"platforms": ["linux", "macos"]}}},
        {"name": "wifi", "description": null, "active": null, "versions": [{"version": "1", "rules": [], "settings": {
            "wifi.networks": [{"ssid": "office", "security": "wpa-psk", "passphrase": "correct horse"}]}}]},
    ]})
}

#[test]
fn an_export_reads_back_as_the_document_and_holds_no_secret() {
    let exported = Exported::of(&stored()).expect("it can be laid out");
    let names: Vec<&str> = exported.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "default.yml",
            "policies/policy-c46accfa3f6e4f78.yml",
            "policies/wifi.yml"
        ]
    );
    assert!(
        exported
            .files
            .iter()
            .all(|(_, text)| !text.contains("correct horse"))
    );
    assert_eq!(
        exported.secrets["wifi/1/wifi.networks/0/passphrase"],
        "correct horse"
    );

    let folder = tempfile::tempdir().expect("a folder can be made");
    assert!(
        write(folder.path(), &exported)
            .expect("it can be written")
            .is_empty()
    );
    let read = Folder::read(folder.path()).expect("it can be read");
    assert!(read.has_unknown_secrets(&Secrets::new()));
    for (secrets, stored) in [(exported.secrets.clone(), None), (Secrets::new(), Some(stored()))] {
        let again = read
            .document(&secrets, stored.as_ref())
            .expect("it can be understood");
        let laid_out = Exported::of(&again.document).expect("it can be laid out");
        assert_eq!(laid_out, exported);
        let place = &again.places["wifi/1/wifi.networks"];
        assert!(place.ends_with("policies/wifi.yml:6"), "{place}");
    }
}

/// A document with a group for which something is active, in stages and windows of its own.
fn with_groups() -> Value {
    let mut document = stored();
    document["groups"] = json!([
        {"name": "Büro", "include": "labels.site == \"b\""},
        {"name": "sales", "description": "Who: sells", "include": "labels.department == \"sales\"",
         "exclude": "labels.intern == \"yes\""},
    ]);
    document["policies"][0]["active"] = json!({
        "version": "2026.10",
        "target": {"groups": ["Büro", "sales"]},
        "stages": [
            {"name": "pilot", "percent": 2.5, "gate": {"method": "exact", "limit": 0.01,
                "slos": [{"name": "compliance:os", "limit": 0.02}]}},
            {"name": "full"},
        ],
        "windows": [{"days": ["mon"], "start": "22:00", "end": "05:00", "utc_offset_minutes": -60}],
    });
    document
}

#[test]
fn groups_stages_and_windows_read_back_as_the_document() {
    let exported = Exported::of(&with_groups()).expect("it can be laid out");
    let file = |name: &str| {
        let found = exported.files.iter().find(|(path, _)| path == name);
        found.map(|(_, text)| text.as_str()).unwrap_or_default()
    };
    assert_eq!(
        file("groups/sales.yml"),
        "kind: group\nname: sales\ndescription: \"Who: sells\"\ninclude: \"labels.department == \\\"sales\\\"\"\n\
         exclude: \"labels.intern == \\\"yes\\\"\"\n"
    );
    let active = "active:\n  version: \"2026.10\"\n  stages:\n    - name: pilot\n      gate:\n        limit: 0.01\n        \
        method: exact\n        slos:\n          - name: \"compliance:os\"\n            limit: 0.02\n      percent: 2.5\n    \
        - name: full\n  target:\n    groups:\n      - \"Büro\"\n      - sales\n  windows:\n    - days:\n        - mon\n      \
        end: \"05:00\"\n      start: \"22:00\"\n      utc_offset_minutes: -60\n";
    let policy = file("policies/policy-c46accfa3f6e4f78.yml");
    assert!(policy.contains(active), "{policy}");

    let folder = tempfile::tempdir().expect("a folder can be made");
    write(folder.path(), &exported).expect("it can be written");
    let read = Folder::read(folder.path()).expect("it can be read");
    let again = read
        .document(&exported.secrets, None)
        .expect("it can be understood");
    assert_eq!(again.document["groups"], with_groups()["groups"]);
    assert_eq!(
        again.document["policies"][0]["active"],
        with_groups()["policies"][0]["active"]
    );
    assert!(again.places["groups/sales"].ends_with("groups/sales.yml:1"));
    let laid_out = Exported::of(&again.document).expect("it can be laid out");
    assert_eq!(laid_out, exported);
    // The files of groups that are gone are named.
    let left = write(
        folder.path(),
        &Exported::of(&stored()).expect("it can be laid out"),
    );
    assert_eq!(left.expect("it can be written").len(), 2);
}

#[test]
fn m13_a_folder_without_groups_says_nothing_of_them_and_an_empty_one_that_there_are_none() {
    let read = |files: &[(&str, &str)]| document(files, &[], None).expect("it can be understood");
    assert_eq!(read(&[DEFAULT]), json!({"format": 1, "policies": []}));
    let emptied = read(&[DEFAULT, ("groups/.gitkeep", "")]);
    assert_eq!(emptied, json!({"format": 1, "groups": [], "policies": []}));
}

#[test]
fn what_is_exported_is_for_people_and_pinned() {
    let exported = Exported::of(&stored()).expect("it can be laid out");
    let expected = "kind: policy\nname: \"Büro: alle\"\ndescription: \"yes\"\nactive:\n  version: \"2026.10\"\n  target:\n    \
        platforms:\n      - linux\n      - macos\nversions:\n  - version: \"2026.10\"\n    settings:\n      \
        camera.allowed: false\n      passcode.min_length: 12\n  - version: \"2\"\n    rules:\n      - name: os\n        \
        check:\n          fact: os.version\n          op: ge\n          value: \"12\"\n    settings: {}\n";
    assert_eq!(exported.files[1].1, expected);
}

#[test]
fn a_folder_that_is_none_is_left_alone_and_old_files_are_named() {
    let exported = Exported::of(&stored()).expect("it can be laid out");
    let other = folder(&[("thesis.txt", "x")]);
    assert!(write(other.path(), &exported).is_err());
    let earlier = folder(&[DEFAULT, ("policies/gone.yml", "kind: policy\nname: gone\n")]);
    let left = write(earlier.path(), &exported).expect("it can be written");
    assert_eq!(left, [earlier.path().join("policies/gone.yml")]);
    assert!(left[0].exists());
}

#[test]
fn json_and_yaml_say_the_same_and_numbers_are_labels() {
    let yaml = (
        "policies/p.yml",
        "kind: policy\nname: p\nactive: {version: 2026.10}\nversions:\n- version: 2026.10\n  settings: \
                {passcode.min_length: 12}\n",
    );
    let json = (
        "policies/p.json",
        "{\n\t\"kind\": \"policy\", \"name\": \"p\", \"active\": {\"version\": \"2026.10\"},\n\t\"versions\": \
                [{\"version\": \"2026.10\", \"settings\": {\"passcode.min_length\": 12}}]}",
    );
    let read = |file| document(&[DEFAULT, file], &[], None).expect("it can be understood");
    assert_eq!(read(yaml), read(json));
    assert_eq!(read(yaml)["policies"][0]["active"]["version"], "2026.10");
}

#[test]
fn secrets_come_from_their_file_or_from_the_version_that_is_there() {
    let files = [DEFAULT, ("policies/wifi.yml", WIFI)];
    let passphrase = |document: &Value| {
        document["policies"][0]["versions"][0]["settings"]["wifi.networks"][0]["passphrase"].clone()
    };
    let given = document(&files, &[("office", "from the file")], Some(&stored())).expect("it is known");
    assert_eq!(passphrase(&given), "from the file");
    let there = document(&files, &[], Some(&stored())).expect("it is there");
    assert_eq!(passphrase(&there), "correct horse");
    let said = refused(&files);
    assert!(
        said.starts_with("policies/wifi.yml:9: the secret `office`"),
        "{said}"
    );
    let marked = WIFI.replace("{secret: office}", "\"***\"");
    let said = refused(&[DEFAULT, ("policies/wifi.yml", &marked)]);
    assert!(
        said.starts_with("policies/wifi.yml:9: `***` stands for a secret"),
        "{said}"
    );
}

#[test]
fn snippets_are_included_and_a_version_overrides_them() {
    let policy = "kind: policy\nname: p\nversions:\n  - version: a\n    include: [lib/base.yml]\n    settings:\n      \
                  camera.allowed: true\n";
    let base = ("lib/base.yml", "camera.allowed: false\npasscode.min_length: 12\n");
    let read =
        document(&[DEFAULT, base, ("policies/p.yml", policy)], &[], None).expect("it can be understood");
    let settings = &read["policies"][0]["versions"][0]["settings"];
    assert_eq!(
        settings,
        &json!({"camera.allowed": true, "passcode.min_length": 12})
    );

    let twice = policy.replace("[lib/base.yml]", "[lib/base.yml, lib/more.yml]");
    let more = ("lib/more.yml", "passcode.min_length: 10\n");
    let said = refused(&[DEFAULT, base, more, ("policies/p.yml", &twice)]);
    assert!(said.starts_with("lib/more.yml:1: two included files"), "{said}");
    for outside in [
        "../secret.yml",
        "/etc/passwd",
        "policies/p.yml",
        "lib/../default.yml",
        "lib",
    ] {
        let policy = policy.replace("lib/base.yml", outside);
        let said = refused(&[DEFAULT, base, ("policies/p.yml", &policy)]);
        assert!(said.contains("include a file under lib/"), "{outside}: {said}");
    }
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    let policy = |rest: &str| format!("kind: policy\nname: p\n{rest}");
    let check = |files: &[(&str, &str)], expected: &str| {
        let said = refused(files);
        assert!(said.contains(expected), "{expected}\n{said}");
    };
    let one = |text: &str, expected: &str| check(&[DEFAULT, ("policies/p.yml", text)], expected);
    one(
        &policy("activ: {version: 1}\n"),
        "policies/p.yml:3: a policy has no `activ`",
    );
    one(
        "kind: group\nname: p\n",
        "policies/p.yml:1: files here have `kind: policy`",
    );
    one("kind: policy\n", "policies/p.yml:1: a policy needs `name`");
    one(
        &policy("versions:\n- settings: {}\n"),
        "policies/p.yml:4: a version needs `version`",
    );
    one(
        &policy(
            "versions:\n- version: 1\n  settings:\n    camera.alowed: true\n    passcode.min_length: twelve\n",
        ),
        "policies/p.yml:6: camera.alowed:",
    );
    one(
        &policy("versions:\n- version: 1\n  settings:\n    passcode.min_length: twelve\n"),
        "policies/p.yml:6: passcode.min_length:",
    );
    one(
        &policy("versions:\n- version: 1\n  rules: [{name: r}]\n"),
        "policies/p.yml:5: rules:",
    );
    one(
        &policy("name: q\n"),
        "policies/p.yml:3: `name` stands twice, first on line 2",
    );
    let active = |members: &str| policy(&format!("active:\n  version: 1\n  {members}\n"));
    one(
        &active("stages: [{name: full, percent: 5}]"),
        "policies/p.yml:5: stages: the last stage is everything",
    );
    one(
        &active("stages: [{name: full, gate: {limitt: 1}}]"),
        "policies/p.yml:5: stages: unknown field `limitt`",
    );
    one(
        &active("windows: [{days: [], start: \"22:00\", end: \"05:00\"}]"),
        "policies/p.yml:5: windows: a window names at least one day",
    );
    let group = |rest: &str, expected: &str| {
        let text = format!("kind: group\nname: g\n{rest}");
        check(&[DEFAULT, ("groups/g.yml", &text)], expected);
    };
    group("members: []\n", "groups/g.yml:3: a group has no `members`");
    group("description: d\n", "groups/g.yml:1: a group needs `include`");
    group("include: labels.a ==\n", "groups/g.yml:3: include, line 1");
    group(
        "include: labels.a == \"b\"\nexclude: nobody == 1\n",
        "groups/g.yml:4: exclude, line 1",
    );
    check(
        &[DEFAULT, ("groups/p.yml", "kind: policy\nname: p\n")],
        "groups/p.yml:1: files here have `kind: group`",
    );
    check(
        &[
            DEFAULT,
            ("policies/a.yml", "kind: policy\nname: p\n"),
            ("policies/b.yml", "kind: policy\nname: p\n"),
        ],
        "policies/b.yml:1: the policy p is in",
    );
    check(
        &[("policies/p.yml", "kind: policy\nname: p\n")],
        "has no default.yml",
    );
    check(
        &[("default.yml", "kind: tenant\nformat: 2\n")],
        "default.yml:1: write `format: 1`",
    );
    check(
        &[DEFAULT, ("policy/p.yml", "kind: policy\nname: p\n")],
        "policy: no such folder is read",
    );
    check(
        &[DEFAULT, ("p.yml", "kind: policy\nname: p\n")],
        "p.yml: this file is read from nowhere",
    );
    check(&[DEFAULT, ("policies/deep/p.yml", "")], "move the files up");
}

#[cfg(unix)]
#[test]
fn j5_links_are_not_followed() {
    let policy = "kind: policy\nname: p\nversions:\n  - version: a\n    include: [lib/out.yml]\n";
    for place in ["policies/out.yml", "lib/out.yml", "policies2"] {
        let folder = folder(&[
            DEFAULT,
            ("policies/p.yml", policy),
            ("lib/x.yml", "camera.allowed: true\n"),
        ]);
        std::os::unix::fs::symlink(Path::new("/etc/hostname"), folder.path().join(place))
            .expect("it can be linked");
        let error = Folder::read(folder.path())
            .and_then(|read| read.document(&Secrets::new(), None))
            .expect_err("it is refused");
        let text = match error {
            CliError::Files(wrong) => wrong.join("\n"),
            other => other.to_string(),
        };
        assert!(text.contains("links are not followed"), "{place}: {text}");
    }
}

#[test]
fn a_document_of_a_newer_server_is_not_written_without_what_is_unknown() {
    let mut newer = stored();
    newer["scripts"] = json!([]);
    assert!(Exported::of(&newer).is_err());
    let mut newer = stored();
    newer["policies"][0]["active"]["approval"] = json!("four eyes");
    assert!(Exported::of(&newer).is_err());
    let mut newer = stored();
    newer["groups"] = json!([{"name": "a", "include": "labels.a == \"b\"", "owner": "somebody"}]);
    assert!(Exported::of(&newer).is_err());
    let mut newer = stored();
    newer["policies"][1]["versions"][0]["settings"]["wifi.new"] = json!("secret?");
    assert!(Exported::of(&newer).is_err());
}
