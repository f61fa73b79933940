//! Installed packages from dpkg's status file, streamed: it is tens of megabytes on a desktop.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};

use muster_model::facts::Package;

use super::super::files::Root;

const STATUS: &str = "/var/lib/dpkg/status";
/// Most of the file that is read.
const STATUS_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// A longer line is skipped; names and versions are far shorter.
const LINE_BYTES_MAX: u64 = 8 * 1024;
const NAME_CHARS_MAX: usize = 256;

/// At most `limit` packages, sorted by name; none on a machine without dpkg.
pub(crate) fn packages(root: &Root, limit: usize) -> Vec<Package> {
    let Ok(Some(file)) = root.open_file(STATUS) else {
        return Vec::new();
    };
    let mut packages = parse(
        BufReader::with_capacity(64 * 1024, file.take(STATUS_BYTES_MAX)),
        limit,
    );
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    packages
}

/// Versions of the named packages, as far as they are installed.
pub(crate) fn package_versions(root: &Root, names: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let all = packages(root, usize::MAX).into_iter();
    all.filter(|package| names.contains(package.name.as_str()))
        .map(|package| (package.name, package.version))
        .collect()
}

/// Whether a package is installed and held back: neither upgraded nor removed unless somebody insists.
pub(crate) fn is_held(root: &Root, name: &str) -> Option<bool> {
    let file = root.open_file(STATUS).ok()??;
    let reader = BufReader::with_capacity(64 * 1024, file.take(STATUS_BYTES_MAX));
    let mut in_stanza = false;
    for line in reader.split(b'\n') {
        let line = line.ok()?;
        let line = std::str::from_utf8(&line).unwrap_or_default();
        if let Some(found) = line.strip_prefix("Package:") {
            in_stanza = found.trim() == name;
        } else if let Some(status) = line.strip_prefix("Status:").filter(|_| in_stanza) {
            let status = status.trim();
            return status
                .ends_with(" installed")
                .then(|| status.starts_with("hold "));
        }
    }
    None
}

/// One stanza's fields, as far as they are read yet.
#[derive(Default)]
struct Stanza {
    name: Option<String>,
    version: Option<String>,
    installed: bool,
}

impl Stanza {
    fn package(self) -> Option<Package> {
        let (name, version) = (self.name?, self.version?);
        let bounded = [&name, &version]
            .iter()
            .all(|text| !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX);
        (self.installed && bounded).then_some(Package { name, version })
    }
}

fn parse(mut reader: impl BufRead, limit: usize) -> Vec<Package> {
    let mut found = Vec::new();
    let mut stanza = Stanza::default();
    let mut line = Vec::new();
    while found.len() < limit {
        line.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if !line.ends_with(b"\n") && line.len() as u64 == LINE_BYTES_MAX && !skip_line(&mut reader) {
            break;
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            continue;
        };
        let text = text.trim_end();
        if text.is_empty() {
            found.extend(std::mem::take(&mut stanza).package());
        } else if let Some(name) = text.strip_prefix("Package:") {
            stanza.name = Some(name.trim().to_owned());
        } else if let Some(version) = text.strip_prefix("Version:") {
            stanza.version = Some(version.trim().to_owned());
        } else if let Some(status) = text.strip_prefix("Status:") {
            stanza.installed = status.trim().ends_with(" installed");
        }
    }
    if found.len() < limit {
        found.extend(stanza.package());
    }
    found
}

/// Reads on to the next line without keeping anything; false at the end.
fn skip_line(reader: &mut impl BufRead) -> bool {
    loop {
        let Ok(chunk) = reader.fill_buf() else {
            return false;
        };
        if chunk.is_empty() {
            return false;
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(chunk.len(), |at| at + 1);
        reader.consume(length);
        if end.is_some() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str, limit: usize) -> Vec<String> {
        parse(text.as_bytes(), limit)
            .into_iter()
            .map(|package| format!("{} {}", package.name, package.version))
            .collect()
    }

    #[test]
    fn only_installed_packages_count_and_the_limit_holds() {
        let text = format!(
            "Package: bash\nStatus: install ok installed\nVersion: 5.2\nDescription: x\n {}\n more\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: zsh\nStatus: install ok installed\nVersion: 5.9-4\n",
            "long ".repeat(5_000)
        );
        assert_eq!(names(&text, 10), ["bash 5.2", "zsh 5.9-4"]);
        assert_eq!(names(&text, 1), ["bash 5.2"]);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(bytes.as_slice(), 3);
        }
    }
}
