//! Sectioned `key=value` files: systemd units and drop-ins, GLib key files (dconf, NetworkManager, GeoClue).

/// One assignment, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub section: String,
    pub key: String,
    pub value: String,
}

/// All assignments of a file. Lines that are none are skipped, as their readers do.
pub(crate) fn parse(text: &str) -> Vec<Assignment> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            found.push(Assignment {
                section: section.clone(),
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            });
        }
    }
    found
}

/// Last value of a key in a section.
pub(crate) fn get(text: &str, section: &str, key: &str) -> Option<String> {
    parse(text)
        .into_iter()
        .rfind(|a| a.section == section && a.key == key)
        .map(|a| a.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_in_the_named_section_counts() {
        let text = "# c\n[A]\nx=1\n; x=7\n[B]\nx=2\n[A]\nx = 3\nrubbish\n";
        assert_eq!(get(text, "A", "x").as_deref(), Some("3"));
        assert_eq!(get(text, "B", "x").as_deref(), Some("2"));
        assert_eq!(get(text, "C", "x"), None);
    }
}
