//! Every operation of the admin API has a reviewed row that says who may call it, and every row an operation.
//!
//! Rows are `METHOD<TAB>PATH<TAB>SCOPE`; the scope is one of the API's, `token` (any valid token) or `public`.

use std::collections::BTreeMap;

use super::Finding;
use crate::openapi::DOCUMENT;
use crate::workspace::Tree;

const ROWS: &str = "crates/control/src/access/routes.tsv";
const ACCESS: &str = "crates/control/src/access/";
/// The operations of a path item (OpenAPI 3.1, section 4.8.9).
const METHODS: &[&str] = &[
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

/// Method and path.
type Operation = (String, String);

/// Compares rows and document, both ways.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(rows) = tree.get(ROWS) else {
        let is_needed = tree.has_folder(ACCESS);
        return is_needed
            .then(|| Finding::new(ROWS, "is missing: no route has an authorization row"))
            .into_iter()
            .collect();
    };
    let mut findings = Vec::new();
    let rows = read_rows(rows, &mut findings);
    // That the document exists and is up to date is the check `openapi`.
    let Some(document) = tree.get(DOCUMENT) else {
        return findings;
    };
    let operations = match read_operations(document) {
        Ok(operations) => operations,
        Err(error) => {
            findings.push(Finding::new(DOCUMENT, format!("is not JSON: {error}")));
            return findings;
        }
    };
    for ((method, path), scope) in &operations {
        match rows.get(&(method.clone(), path.clone())) {
            None => findings.push(Finding::new(
                ROWS,
                format!("{method} {path} has no authorization row"),
            )),
            Some(row) if row != scope => {
                let text =
                    format!("{method} {path} has scope `{row}` here and `{scope}` in the API's document");
                findings.push(Finding::new(ROWS, text));
            }
            Some(_) => {}
        }
    }
    for (method, path) in rows.keys().filter(|row| !operations.contains_key(*row)) {
        findings.push(Finding::new(
            ROWS,
            format!("{method} {path} is not in the API's document"),
        ));
    }
    findings
}

fn read_rows(text: &str, findings: &mut Vec<Finding>) -> BTreeMap<Operation, String> {
    let mut rows = BTreeMap::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    {
        let fields: Vec<&str> = line.split('\t').collect();
        let [method, path, scope, ..] = fields[..] else {
            findings.push(Finding::at(
                ROWS,
                number + 1,
                "a row is METHOD, PATH and SCOPE with tabs between",
            ));
            continue;
        };
        if rows
            .insert((method.to_owned(), path.to_owned()), scope.to_owned())
            .is_some()
        {
            findings.push(Finding::at(
                ROWS,
                number + 1,
                format!("{method} {path} has two rows"),
            ));
        }
    }
    rows
}

/// Every operation of the document with its scope in the words of a row.
fn read_operations(document: &str) -> serde_json::Result<BTreeMap<Operation, String>> {
    let document: serde_json::Value = serde_json::from_str(document)?;
    let mut operations = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            let Some(operation) = item.get(*method) else {
                continue;
            };
            let security = operation.get("security").or_else(|| document.get("security"));
            operations.insert((method.to_uppercase(), path.clone()), scope_of(security));
        }
    }
    Ok(operations)
}

/// A security requirement list (OpenAPI 3.1, section 4.8.30) in the words of a row.
fn scope_of(security: Option<&serde_json::Value>) -> String {
    let requirements = security
        .and_then(serde_json::Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if requirements
        .iter()
        .all(|requirement| requirement.as_object().is_some_and(serde_json::Map::is_empty))
    {
        return "public".to_owned();
    }
    let mut scopes: Vec<&str> = requirements
        .iter()
        .filter_map(serde_json::Value::as_object)
        .flat_map(|requirement| requirement.values())
        .filter_map(serde_json::Value::as_array)
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        "token".to_owned()
    } else {
        scopes.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = r#"{"security":[{"oauth2":[]}],"paths":{
        "/api/v1/devices":{"get":{"security":[{"oauth2":["device:read"]}]}},
        "/api/v1/version":{"get":{"security":[]}},
        "/oauth2/introspect":{"post":{}, "parameters":[]}}}"#;
    const ROWS_GOOD: &str = "# comment\nGET\t/api/v1/devices\tdevice:read\nGET\t/api/v1/version\tpublic\n\
        POST\t/oauth2/introspect\ttoken\n";

    fn check_rows(rows: &str) -> Vec<String> {
        let tree = Tree::of(&[(ROWS, rows), (DOCUMENT, API)]);
        check(&tree).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn rows_and_operations_agree() {
        assert!(check_rows(ROWS_GOOD).is_empty());
    }

    #[test]
    fn a_route_without_a_row_is_found() {
        let rows = ROWS_GOOD.replace("GET\t/api/v1/version\tpublic\n", "");
        assert_eq!(
            check_rows(&rows),
            ["GET /api/v1/version has no authorization row"]
        );
    }

    #[test]
    fn a_row_without_a_route_is_found() {
        let rows = format!("{ROWS_GOOD}DELETE\t/api/v1/devices\tdevice:write\n");
        assert_eq!(
            check_rows(&rows),
            ["DELETE /api/v1/devices is not in the API's document"]
        );
    }

    #[test]
    fn another_scope_is_found() {
        assert_eq!(
            check_rows(&ROWS_GOOD.replace("device:read", "device:write")).len(),
            1
        );
        assert_eq!(check_rows(&ROWS_GOOD.replace("device:read", "public")).len(), 1);
    }

    #[test]
    fn broken_and_double_rows_are_found() {
        assert_eq!(check_rows(&format!("{ROWS_GOOD}GET /x public\n")).len(), 1);
        assert_eq!(
            check_rows(&format!("{ROWS_GOOD}GET\t/api/v1/devices\tdevice:read\n")).len(),
            1
        );
    }

    #[test]
    fn a_control_plane_without_rows_is_found() {
        assert_eq!(
            check(&Tree::of(&[("crates/control/src/access/mod.rs", "")])).len(),
            1
        );
        assert!(check(&Tree::default()).is_empty());
    }
}
