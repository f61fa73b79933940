//! How many files and connections this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process has open besides its devices'.
const OTHER_FILES: u64 = 256;

/// How many devices this process can have of which each takes so many files; none is no limit.
pub fn devices_max(files_each: u64) -> Option<u64> {
    let Rlimit { current, .. } = getrlimit(Resource::Nofile);
    current.map(|files| files.saturating_sub(OTHER_FILES) / files_each)
}

/// Raises the soft limit of open files to the hard one: each device holds a connection, and the usual soft limit is 1024.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, ?current, "the limit of open files was not raised; many devices may not connect");
    }
}
