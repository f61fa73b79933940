//! Landlock: after start-up this process and its children may write to the state folder, the enforced root and the TPM
//! only.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, path_beneath_rules,
};

/// The newest set of rights asked for; an older kernel gives what it has.
const RIGHTS: ABI = ABI::V3;

/// Where settings live when the enforced root is the real one. Home folders, programs and boot files stay read-only.
const SYSTEM_FOLDERS: &[&str] = &[
    "/etc",
    "/run",
    "/tmp",
    "/var",
    "/usr/local/share/ca-certificates",
    "/dev/null",
];

/// How far the sandbox reaches on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Every right asked for is enforced.
    Full,
    /// The kernel enforces some of the rights.
    Partial,
    /// The kernel has no Landlock, or it is switched off.
    Absent,
}

/// Restricts this thread and all threads and processes it starts from now on. A TPM that holds the device key stays open to
/// it.
pub fn enter(state_dir: &Path, root: &Path, tpm: Option<&Path>) -> Result<Sandbox, landlock::RulesetError> {
    let mut writable: Vec<PathBuf> = if root == Path::new("/") {
        SYSTEM_FOLDERS
            .iter()
            .map(PathBuf::from)
            .chain([state_dir.to_owned()])
            .collect()
    } else {
        vec![root.to_owned(), state_dir.to_owned(), PathBuf::from("/dev/null")]
    };
    writable.extend(tpm.map(Path::to_owned));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::from_read(RIGHTS)))?
        .add_rules(path_beneath_rules(writable, AccessFs::from_all(RIGHTS)))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Sandbox::Full,
        RulesetStatus::PartiallyEnforced => Sandbox::Partial,
        RulesetStatus::NotEnforced => Sandbox::Absent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_outside_the_state_folder_are_refused() {
        let inside = tempfile::tempdir().expect("a temporary folder");
        let outside = tempfile::tempdir().expect("a temporary folder");
        let (state, other) = (inside.path().to_owned(), outside.path().join("file"));
        // Landlock restricts a thread and its descendants, so a thread of its own keeps the other tests free.
        let (sandbox, within, without, reading) = std::thread::spawn(move || {
            let sandbox = enter(&state, &state, None).expect("Landlock answers");
            let within = std::fs::write(state.join("file"), "x");
            (
                sandbox,
                within,
                std::fs::write(other, "x"),
                std::fs::read("/proc/self/stat"),
            )
        })
        .join()
        .expect("the thread ends");
        assert!(within.is_ok() && reading.is_ok());
        match sandbox {
            Sandbox::Full | Sandbox::Partial => assert!(without.is_err(), "a write outside went through"),
            Sandbox::Absent => eprintln!("SKIPPED: this kernel has no Landlock"),
        }
    }
}
