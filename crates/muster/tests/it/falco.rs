//! The rules for Falco: only their structure can be checked here, for the engine cannot be installed.

use crate::support::{
    objects::python,
    server::{everything, program},
    variable,
};

/// Every item is one thing with the members that the engine demands, and every name that a condition uses is defined: here, or
/// among the macros of Falco's own rules that the file names.
const JUDGE: &str = r#"
import re, sys
from ruamel.yaml import YAML
items = YAML(typ="safe").load(open(sys.argv[1]))
heads = {"rule", "macro", "list", "required_engine_version", "required_plugin_versions"}
of_falco = {"spawned_process", "open_read", "open_write"}
priorities = {"EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFORMATIONAL", "DEBUG"}
words = {"and", "or", "not", "in", "pmatch", "startswith", "endswith", "contains", "exists"}
names, rules = set(), 0
for item in items:
    head = heads & set(item)
    assert len(head) == 1, item
    head = head.pop()
    if head in ("rule", "macro", "list"):
        assert item[head] not in names, item[head]
        names.add(item[head])
    if head == "list":
        assert isinstance(item["items"], list), item
    if head == "macro":
        assert item["condition"].strip(), item
    if head == "rule":
        rules += 1
        assert set(item) <= {"rule", "desc", "condition", "output", "priority", "source", "tags"}, item
        for member in ("desc", "condition", "output"):
            assert item[member].strip(), item
        assert item["priority"] in priorities, item
        assert item.get("source", "syscall") in ("syscall", "muster"), item
        assert ("json.value" in item["condition"]) == (item.get("source") == "muster"), item
    if "condition" in item:
        text = item["condition"]
        assert text.count("(") == text.count(")"), item
        text = re.sub(r'"[^"]*"', "", text)
        for name in re.findall(r"(?<![\w./\[\]-])([a-z][a-z_]+)(?![\w./\[-])", text):
            before = re.search(r"(=|startswith|endswith|contains)\s+" + name, text)
            assert name in words | of_falco | names or before, (item[head], name)
assert rules >= 8, rules
print("rules", rules)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn m6_the_rules_for_falco_are_well_formed() {
    let Some(python) = python() else { return };
    let folder = variable("CARGO_MANIFEST_DIR").expect("cargo runs the test");
    let rules = format!("{folder}/../../deploy/falco/muster_rules.yaml");
    let mut command = program(&python);
    command.args(["-c", JUDGE, &rules]).kill_on_drop(true);
    let output = command.output().await.expect("python starts");
    let said = everything(&output);
    assert!(output.status.success() && said.starts_with("rules "), "{said}");
}
