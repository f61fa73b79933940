//! Which crate may use which: every row of [`tables::CRATES`] against the crates' manifests.

use super::{Finding, tables};
use crate::workspace::Tree;

/// Compares the workspace crates that each manifest depends on with the table.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.below("crates/", "/Cargo.toml") {
        let manifest = match text.parse::<toml::Table>() {
            Ok(manifest) => manifest,
            Err(error) => {
                findings.push(Finding::new(path, format!("is not TOML: {error}")));
                continue;
            }
        };
        let name = manifest
            .get("package")
            .and_then(|package| package.get("name")?.as_str())
            .unwrap_or_default();
        let Some((_, allowed)) = tables::CRATES.iter().find(|(known, _)| *known == name) else {
            findings.push(Finding::new(
                path,
                format!("crate `{name}` has no row in the table of crate directions"),
            ));
            continue;
        };
        for dependency in dependencies(&manifest) {
            let is_ours = tables::CRATES.iter().any(|(known, _)| *known == dependency);
            if is_ours && !allowed.contains(&dependency) {
                findings.push(Finding::new(
                    path,
                    format!("`{name}` must not depend on `{dependency}`"),
                ));
            }
        }
    }
    findings
}

/// The names in `[dependencies]`, `[build-dependencies]` and their target-specific forms.
fn dependencies(manifest: &toml::Table) -> Vec<&str> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = targets
        .into_iter()
        .flat_map(|targets| targets.values().filter_map(toml::Value::as_table));
    std::iter::once(manifest)
        .chain(tables)
        .flat_map(|table| [table.get("dependencies"), table.get("build-dependencies")])
        .flatten()
        .filter_map(toml::Value::as_table)
        .flat_map(|dependencies| {
            dependencies
                .iter()
                .map(|(key, value)| value.get("package").and_then(|name| name.as_str()).unwrap_or(key))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_manifest(text: &str) -> Vec<String> {
        let tree = Tree::of(&[("crates/x/Cargo.toml", text)]);
        check(&tree).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn allowed_directions_and_foreign_crates_pass() {
        let manifest = "[package]\nname = \"muster-cli\"\n[dependencies]\nmuster-model.workspace = true\nserde = \"1\"\n";
        assert!(check_manifest(manifest).is_empty());
    }

    #[test]
    fn the_client_must_not_use_the_control_plane() {
        let manifest = "[package]\nname = \"muster-cli\"\n[dependencies]\nmuster-control.workspace = true\n";
        assert_eq!(
            check_manifest(manifest),
            ["`muster-cli` must not depend on `muster-control`"]
        );
    }

    #[test]
    fn renamed_and_target_dependencies_count() {
        let manifest = "[package]\nname = \"muster-model\"\n\
            [target.'cfg(unix)'.dependencies]\nx = { package = \"muster-trust\", path = \"../trust\" }\n\
            [build-dependencies]\nmuster-storage = { path = \"../storage\" }\n";
        assert_eq!(check_manifest(manifest).len(), 2);
    }

    #[test]
    fn development_dependencies_are_free() {
        let manifest =
            "[package]\nname = \"muster-farm\"\n[dev-dependencies]\nmuster-control.workspace = true\n";
        assert!(check_manifest(manifest).is_empty());
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        assert_eq!(check_manifest("[package]\nname = \"muster-common\"\n").len(), 1);
    }
}
