//! The operating system: os-release(5), the kernel's release, the processor's architecture.

use muster_model::facts::OsFacts;

use super::super::files::Root;
use super::super::formats::key_value::{self, Style};

/// os-release(5): the second is read where the first is missing.
const FILES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

pub(crate) fn system(root: &Root) -> OsFacts {
    // A prefix without one is a simulation on the running machine's system.
    let running = Root::running_machine();
    let text = FILES
        .iter()
        .map(|file| (root, file))
        .chain(FILES.iter().map(|file| (&running, file)));
    let text = text
        .into_iter()
        .find_map(|(root, file)| root.read(file).ok().flatten())
        .unwrap_or_default();
    let field = |name: &str| {
        key_value::get(&text, Style::Assignment, name)
            .map(|value| super::bounded(&value))
            .filter(|value| !value.is_empty())
    };
    let kernel =
        super::describing(root, "/proc/sys/kernel/osrelease").read_line("/proc/sys/kernel/osrelease");
    OsFacts {
        id: field("ID"),
        name: field("PRETTY_NAME").or_else(|| field("NAME")),
        version: field("VERSION_ID"),
        kernel,
        architecture: Some(std::env::consts::ARCH.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_names_its_system() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let text = "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nID=ubuntu\nVERSION_ID=\"24.04\"\n";
        root.write("/usr/lib/os-release", text.as_bytes(), 0o644).unwrap();
        root.write("/proc/sys/kernel/osrelease", b"6.8.0-45-generic\n", 0o644)
            .unwrap();
        let system = system(&root);
        assert_eq!(system.id.as_deref(), Some("ubuntu"));
        assert_eq!(system.version.as_deref(), Some("24.04"));
        assert_eq!(system.name.as_deref(), Some("Ubuntu 24.04.1 LTS"));
        assert_eq!(system.kernel.as_deref(), Some("6.8.0-45-generic"));
    }
}
