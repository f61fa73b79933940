//! `deny.toml` held against the packages that are really built: banned names, licenses, sources.
//!
//! The file is cargo-deny's, which checks more (advisories, duplicates); this much runs everywhere, with cargo alone.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::process;
use crate::workspace::Tree;

const POLICY: &str = "deny.toml";
const LOCK: &str = "Cargo.lock";

#[derive(Deserialize)]
struct Policy {
    bans: Bans,
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// Whose own matter it may be. That nobody else brings it is for cargo-deny to say.
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    source: Option<String>,
}

/// Asks cargo which packages are built for this machine and judges each.
pub fn check(tree: &Tree) -> Vec<Finding> {
    judge(tree).unwrap_or_else(|error| vec![Finding::new(POLICY, format!("cannot be checked: {error:#}"))])
}

fn judge(tree: &Tree) -> Result<Vec<Finding>> {
    let policy: Policy = toml::from_str(tree.get(POLICY).unwrap_or_default()).context("deny.toml")?;
    let lock: Lock = toml::from_str(tree.get(LOCK).unwrap_or_default()).context("Cargo.lock")?;
    let built = process::output(process::cargo().args([
        "tree",
        "--workspace",
        "--locked",
        "--quiet",
        "--edges=normal,build,dev",
        "--prefix=none",
        "--format={p}\t{l}\t",
    ]))?;
    let mut findings = judge_packages(&policy, &built);
    findings.extend(judge_sources(&lock));
    Ok(findings)
}

/// Lines are `name version …<TAB>license<TAB>…`.
fn judge_packages(policy: &Policy, built: &str) -> Vec<Finding> {
    let packages: BTreeSet<(&str, &str)> = built
        .lines()
        .filter_map(|line| {
            let (package, rest) = line.split_once('\t')?;
            Some((package.split(' ').next()?, rest.split('\t').next()?))
        })
        .collect();
    let mut findings = Vec::new();
    for (name, license) in packages {
        let mut bans = policy.bans.deny.iter();
        if let Some(ban) = bans.find(|ban| ban.name == name && ban.wrappers.is_empty()) {
            findings.push(Finding::new(
                POLICY,
                format!("`{name}` is built, and banned: {}", ban.reason),
            ));
        }
        if !is_allowed(license, &policy.licenses.allow) {
            findings.push(Finding::new(
                POLICY,
                format!("`{name}` has license `{license}`, which is not allowed"),
            ));
        }
    }
    findings
}

/// Packages come from the registry or from this work tree; git and other registries have no review and no checksum.
fn judge_sources(lock: &Lock) -> Vec<Finding> {
    let is_foreign = |package: &&Locked| {
        package
            .source
            .as_deref()
            .is_some_and(|source| !source.starts_with("registry+"))
    };
    lock.package
        .iter()
        .filter(is_foreign)
        .map(|package| {
            Finding::new(
                LOCK,
                format!("`{}` does not come from the registry", package.name),
            )
        })
        .collect()
}

/// Whether an SPDX expression can be met by allowed licenses (SPDX 2.3, Annex D; `/` is cargo's old `OR`).
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at, allowed) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, allowed);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let met = any_of(words, at, allowed);
        let is_closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && is_closed;
    }
    let mut license = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        license.push_str(&format!(
            " WITH {}",
            words.get(*at + 1).copied().unwrap_or_default()
        ));
        *at += 2;
    }
    allowed.contains(&license)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let text = "[bans]\ndeny = [{ crate = \"ring\", reason = \"one library\" }]\n[licenses]\nallow = [\"MIT\", \"ISC\"]\n";
        toml::from_str(text).expect("a policy")
    }

    #[test]
    fn expressions_are_met_by_choice_and_by_all() {
        let allowed = policy().licenses.allow;
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "MIT AND ISC",
            "(GPL-3.0 OR MIT) AND ISC",
            "A WITH x OR MIT",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT WITH x",
            "MIT ISC",
            "(MIT",
            "MIT)",
            "MIT AND",
        ] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn banned_names_and_licenses_are_found_once() {
        let built = "ring v0.17.14\tISC\t\nring v0.17.14\tISC\t (*)\nx v1.0.0 (proc-macro)\tGPL-3.0\t\n\ny v1.0.0\tMIT\t\n";
        let found: Vec<String> = judge_packages(&policy(), built)
            .into_iter()
            .map(|finding| finding.text)
            .collect();
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn packages_from_git_are_found() {
        let lock: Lock = toml::from_str(
            "[[package]]\nname = \"a\"\nsource = \"git+https://example.com/a\"\n[[package]]\nname = \"b\"\n\
             [[package]]\nname = \"c\"\nsource = \"registry+https://example.com\"\n",
        )
        .expect("a lock file");
        assert_eq!(judge_sources(&lock).len(), 1);
    }
}
