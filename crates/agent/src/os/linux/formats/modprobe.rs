//! modprobe.d(5): which `install` command the kernel's module loader runs for a module.
//!
//! kmod reads the folders' files sorted by name and takes the first `install` line whose pattern fits.

use super::super::files::{FileError, Root};

/// Folders in the order in which they mask each other.
pub(crate) const FOLDERS: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

/// The command that counts, and the file it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Install {
    pub command: String,
    pub file: String,
}

impl Install {
    /// Whether the command does nothing but fail or succeed without loading anything.
    pub(crate) fn refuses(&self) -> bool {
        let program = self.command.split_whitespace().next().unwrap_or_default();
        [
            "/bin/false",
            "/usr/bin/false",
            "/bin/true",
            "/usr/bin/true",
            "false",
            "true",
        ]
        .contains(&program)
    }
}

/// The `install` line in force for a module, or `None` where the module is loaded as usual.
pub(crate) fn install_command(root: &Root, module: &str) -> Result<Option<Install>, FileError> {
    for file in root.drop_ins(&FOLDERS, ".conf") {
        let Some(text) = root.read(&file)? else { continue };
        if let Some(command) = find(&text, module) {
            return Ok(Some(Install { command, file }));
        }
    }
    Ok(None)
}

/// Text of a drop-in that keeps modules from being loaded, by name or by alias.
pub(crate) fn refusal(modules: &[&str]) -> String {
    modules
        .iter()
        .map(|module| format!("blacklist {module}\ninstall {module} /bin/false\n"))
        .collect()
}

/// Whether the kernel has the module loaded now. Beneath a prefix without `/proc` nothing is loaded.
pub(crate) fn loaded(root: &Root, module: &str) -> bool {
    let module = module.replace('-', "_");
    match root.read("/proc/modules") {
        Ok(Some(text)) => text
            .lines()
            .any(|line| line.split(' ').next() == Some(module.as_str())),
        Ok(None) | Err(_) => false,
    }
}

fn find(text: &str, module: &str) -> Option<String> {
    let wanted = module.replace('-', "_");
    let joined = text.replace("\\\n", " ");
    joined.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix("install")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let (pattern, command) = rest.split_once([' ', '\t'])?;
        fits(&pattern.replace('-', "_"), &wanted).then(|| command.trim().to_owned())
    })
}

/// `*` and `?` of fnmatch(3), which is all that module patterns use.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = pattern.trim_start_matches('*');
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| fits(rest, &name[at..]))
        }
        (Some('?'), Some(c)) => fits(&pattern[1..], &name[c.len_utf8()..]),
        (Some(p), Some(c)) if p == c => fits(&pattern[p.len_utf8()..], &name[c.len_utf8()..]),
        (Some(_), _) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fitting_install_line_counts() {
        let text = "# install uvcvideo /bin/true\noptions x y=1\ninstall usb_storage /sbin/modprobe --ignore-install usb_storage\n\
                    install usb-storage /bin/false\n";
        assert_eq!(
            find(text, "usb-storage").unwrap(),
            "/sbin/modprobe --ignore-install usb_storage"
        );
        assert_eq!(
            find("install uvc* \\\n/bin/false", "uvcvideo").unwrap(),
            "/bin/false"
        );
        assert_eq!(find(text, "uvcvideo"), None);
        assert_eq!(find(&refusal(&["uvcvideo"]), "uvcvideo").unwrap(), "/bin/false");
    }

    #[test]
    fn an_earlier_file_wins_over_ours() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        root.write(
            "/etc/modprobe.d/00-muster-x.conf",
            refusal(&["uvcvideo"]).as_bytes(),
            0o644,
        )
        .unwrap();
        assert!(install_command(&root, "uvcvideo").unwrap().unwrap().refuses());
        let other = b"install uvcvideo /sbin/modprobe --ignore-install uvcvideo\n";
        root.write("/usr/lib/modprobe.d/00-a.conf", other, 0o644).unwrap();
        let install = install_command(&root, "uvcvideo").unwrap().unwrap();
        assert_eq!(
            (install.refuses(), install.file.as_str()),
            (false, "/usr/lib/modprobe.d/00-a.conf")
        );
    }
}
