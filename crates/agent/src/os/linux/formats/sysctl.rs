//! sysctl.d(5): which value of a kernel parameter counts at the start of the machine.
//!
//! Files of all folders are read sorted by name, a name in an earlier folder masking the same in later ones; the last value
//! counts, except that a full name beats any pattern.

use super::super::files::{FileError, Root};

/// Folders in the order in which they mask each other.
const FOLDERS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// A value, and the file it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub value: String,
    pub file: String,
}

/// Every assignment of every file, in the order in which they are read.
pub(crate) struct Assignments(Vec<(String, Found)>);

impl Assignments {
    pub(crate) fn read(root: &Root) -> Result<Assignments, FileError> {
        let mut all = Vec::new();
        for file in root.drop_ins(&FOLDERS, ".conf") {
            let text = root.read(&file)?.unwrap_or_default();
            for (name, value) in text.lines().filter_map(assignment) {
                let file = file.clone();
                all.push((name, Found { value, file }));
            }
        }
        Ok(Assignments(all))
    }

    /// What counts for a parameter, written with slashes.
    pub(crate) fn get(&self, parameter: &str) -> Option<&Found> {
        let exact = self.0.iter().rfind(|(name, _)| name == parameter);
        let pattern = || {
            self.0
                .iter()
                .rfind(|(name, _)| name.contains(['*', '?']) && fits(name, parameter))
        };
        exact.or_else(pattern).map(|(_, found)| found)
    }
}

/// The value that the kernel has now.
pub(crate) fn live(root: &Root, parameter: &str) -> Option<String> {
    root.read_line(&format!("/proc/sys/{parameter}"))
}

/// A name as a path: where the first separator is a dot, dots are slashes and slashes dots (sysctl.d(5)).
pub(crate) fn path(name: &str) -> String {
    if name
        .find('/')
        .is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot))
    {
        return name.trim_start_matches('/').to_owned();
    }
    let swapped = |c: char| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    name.chars().map(swapped).collect()
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    Some((
        path(name.strip_prefix('-').unwrap_or(name)),
        value.trim().to_owned(),
    ))
}

/// A star stays within its component.
fn fits(pattern: &str, parameter: &str) -> bool {
    let (patterns, parts): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), parameter.split('/').collect());
    patterns.len() == parts.len()
        && patterns
            .iter()
            .zip(parts)
            .all(|(pattern, part)| super::modprobe::fits(pattern, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(files: &[(&str, &str)], name: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, text) in files {
            root.write(path, text.as_bytes(), 0o644).unwrap();
        }
        let all = Assignments::read(&root).unwrap();
        all.get(&path(name)).map(|found| found.value.clone())
    }

    #[test]
    fn the_last_file_by_name_counts_and_etc_masks() {
        let files = [
            ("/usr/lib/sysctl.d/99-b.conf", "kernel.kptr_restrict = 0\n"),
            ("/etc/sysctl.d/50-a.conf", "kernel.kptr_restrict = 2\n"),
        ];
        assert_eq!(value(&files, "kernel.kptr_restrict").as_deref(), Some("0"));
        let masked = [files[0], ("/etc/sysctl.d/99-b.conf", "# nothing\n"), files[1]];
        assert_eq!(value(&masked, "kernel.kptr_restrict").as_deref(), Some("2"));
    }

    #[test]
    fn a_full_name_beats_a_pattern_wherever_it_stands() {
        let text = "net.ipv4.conf.all.rp_filter = 1\n-net/ipv4/conf/*/rp_filter = 2\n";
        let files = [("/etc/sysctl.d/a.conf", text)];
        assert_eq!(value(&files, "net.ipv4.conf.all.rp_filter").as_deref(), Some("1"));
        assert_eq!(
            value(&files, "net.ipv4.conf.eth0/1.rp_filter").as_deref(),
            Some("2")
        );
        assert_eq!(value(&files, "net.ipv4.rp_filter"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in "[ -~]{0,80}") {
            assignment(&line);
        }
    }
}
