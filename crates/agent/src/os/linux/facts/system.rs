//! The operating system: os-release(5), the kernel's release, the processor's architecture.

use muster_model::facts::OsFacts;

use super::super::files::Root;
use super::super::formats::key_value::{self, Style};

/// os-release(5): the second is read where the first is missing.
const FILES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Debian names its point releases, such as 12.5, here alone.
const POINT_RELEASE: &str = "/etc/debian_version";

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
    let release = field("ID").filter(|id| id == "debian").and_then(|_| {
        let first = if FILES.iter().any(|file| root.exists(file)) {
            root
        } else {
            &running
        };
        first.read_line(POINT_RELEASE)
    });
    let version = field("VERSION_ID").map(|version| pointed(version, release));
    let kernel =
        super::describing(root, "/proc/sys/kernel/osrelease").read_line("/proc/sys/kernel/osrelease");
    OsFacts {
        id: field("ID"),
        name: field("PRETTY_NAME").or_else(|| field("NAME")),
        version,
        kernel,
        architecture: Some(std::env::consts::ARCH.to_owned()),
    }
}

/// The version with its point release, where that belongs to it. A name such as `trixie/sid` does not.
fn pointed(version: String, release: Option<String>) -> String {
    let belongs = |release: &String| {
        release
            .strip_prefix(&version)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    match release.filter(belongs) {
        Some(release) => super::bounded(&release),
        None => version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_has_its_point_release_elsewhere() {
        let version = |release: &str| {
            let folder = tempfile::tempdir().unwrap();
            let root = Root::new(folder.path());
            root.write("/etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n", 0o644)
                .unwrap();
            root.write(POINT_RELEASE, release.as_bytes(), 0o644).unwrap();
            system(&root).version.unwrap()
        };
        assert_eq!(version("12.5\n"), "12.5");
        assert_eq!(version("trixie/sid\n"), "12");
        assert_eq!(version("121\n"), "12");
    }

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
