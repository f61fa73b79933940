//! No two types of the API have one name in the OpenAPI document: the one would stand where the other is meant, and nothing says so.

use std::collections::BTreeMap;

use super::Finding;
use crate::workspace::Tree;

const FOLDER: &str = "crates/control/src/";

/// Compares the names of every type that derives `ToSchema`. Generic types have their parameters in their names.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let sources = tree
        .iter()
        .filter(|(path, _)| path.starts_with(FOLDER) && path.ends_with(".rs"));
    let mut named: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let mut findings = Vec::new();
    for (path, text) in sources {
        for (line, name) in names(text) {
            match named.get(&name) {
                None => {
                    named.insert(name, (path.to_owned(), line));
                }
                Some((first, at)) => {
                    let text = format!(
                        "`{name}` is also the name of a schema at {first}:{at}: give one of them another with \
                         `#[schema(as = …)]`"
                    );
                    findings.push(Finding::at(path, line, text));
                }
            }
        }
    }
    findings
}

/// Lines and names of the schemas that a source defines.
fn names(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Whether the attributes above are of a schema, and what they call it.
    let (mut is_schema, mut called) = (false, None);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("#[") {
            is_schema |= line.starts_with("#[derive(") && line.contains("ToSchema");
            if let Some((_, rest)) = line.split_once("schema(as = ") {
                let name = rest.split([',', ')']).next().unwrap_or_default();
                called = Some(name.to_owned());
            }
            continue;
        }
        if line.starts_with("//") {
            continue;
        }
        if is_schema && let Some(defined) = defined(line) {
            let name = called.take().unwrap_or_else(|| defined.to_owned());
            if !line.contains(&format!("{defined}<")) {
                found.push((index + 1, name));
            }
        }
        (is_schema, called) = (false, None);
    }
    found
}

/// The name of the type that a line begins to define.
fn defined(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let kind = words.next()?;
    let name = words.next()?;
    let end = name
        .find(|letter: char| !letter.is_alphanumeric())
        .unwrap_or(name.len());
    ["struct", "enum"].contains(&kind).then_some(&name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_document_calls_types() {
        let text = "#[derive(Debug, ToSchema)]\n#[serde(x)]\npub struct Plain {\n\n#[derive(ToSchema)]\n#[schema(as = Other)]\n\
                    /// Said.\nenum Named {\n#[derive(ToSchema)]\nstruct Many<T> {\n#[derive(Debug)]\nstruct No;\n";
        let names: Vec<String> = names(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["Plain", "Other"]);
    }
}
