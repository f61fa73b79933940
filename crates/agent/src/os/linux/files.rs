//! The machine's files, seen through a root prefix.
//!
//! Every path is absolute on the machine (`/etc/login.defs`) and is resolved beneath the prefix by `openat2` with
//! `RESOLVE_IN_ROOT` (Linux 5.6, openat2(2)): an absolute symbolic link or `..` ends inside the prefix, never outside.
//! On a kernel without `openat2` paths are walked component by component and any symbolic link is refused.
//!
//! A write is atomic: temporary file in the same folder, owner, mode and SELinux label of what it replaces, fsync,
//! rename, fsync of the folder. The last component of a written path is never a symbolic link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Largest configuration file that is read or edited.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Most names listed from one folder.
pub(crate) const NAMES_MAX: usize = 10_000;
/// Most components in one path.
const COMPONENTS_MAX: usize = 64;
/// How often a racing rename may make the kernel ask for another try (openat2(2), EAGAIN).
const RESOLVE_TRIES_MAX: u32 = 16;
/// The label a replaced file hands to its successor.
const SELINUX_LABEL: &str = "security.selinux";
const SELINUX_LABEL_BYTES_MAX: usize = 1024;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{0} is a symbolic link, which Muster does not replace")]
    Symlink(String),
    #[error("{0} is not a regular file")]
    NotRegular(String),
    #[error("{0} is larger than {CONFIG_BYTES_MAX} bytes")]
    TooLarge(String),
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

fn failed(path: &str, source: impl Into<io::Error>) -> FileError {
    FileError::Io {
        path: path.to_owned(),
        source: source.into(),
    }
}

/// What is known of a file without reading it. Sizes in bytes, times in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub mode: u32,
    pub uid: u32,
    pub symlink: bool,
    pub modified_seconds: i64,
}

/// The root folder of a machine: `/`, or a prefix that stands for one.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    path: PathBuf,
    real: bool,
}

impl Root {
    pub(crate) fn new(path: &Path) -> Root {
        let resolved = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let real = resolved == Path::new("/");
        Root { path: resolved, real }
    }

    /// The running machine itself, whatever prefix the agent was given: for hardware facts only.
    pub(crate) fn running_machine() -> Root {
        Root {
            path: PathBuf::from("/"),
            real: true,
        }
    }

    /// Whether this is the running machine. Only then is any program started.
    pub(crate) fn is_real(&self) -> bool {
        self.real
    }

    /// Text of a file, or `None` where there is none. At most [`CONFIG_BYTES_MAX`].
    pub(crate) fn read(&self, path: &str) -> Result<Option<String>, FileError> {
        let Some(file) = self.open_file(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(CONFIG_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| failed(path, e))?;
        if bytes.len() as u64 > CONFIG_BYTES_MAX {
            return Err(FileError::TooLarge(path.to_owned()));
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| FileError::NotText(path.to_owned()))
    }

    /// Trimmed text of a one-line file such as those of `/sys`; anything unreadable or empty is `None`.
    pub(crate) fn read_line(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        self.open_file(path)
            .ok()??
            .take(4096)
            .read_to_end(&mut bytes)
            .ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A regular file opened for reading, or `None` where there is none.
    pub(crate) fn open_file(&self, path: &str) -> Result<Option<File>, FileError> {
        // NONBLOCK: a FIFO planted in place of a file must not hang the agent.
        let fd = match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed(path, errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed(path, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some(File::from(fd))),
            _ => Err(FileError::NotRegular(path.to_owned())),
        }
    }

    /// Size of the file system at a path, and what programs can still write to it, in bytes (statvfs(3)).
    pub(crate) fn room(&self, path: &str) -> Option<(u64, u64)> {
        let folder = self.resolve(path, OFlags::PATH).ok()?;
        let room = rustix::fs::fstatvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(room.f_frsize);
        // What is reserved for root is neither free nor used.
        let reserved = room.f_bfree.saturating_sub(room.f_bavail);
        Some((
            bytes(room.f_blocks.saturating_sub(reserved)),
            bytes(room.f_bavail),
        ))
    }

    /// Sorted names in a folder, without dot files; empty where there is no such folder.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let Ok(fd) = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Vec::new();
        };
        let Ok(dir) = Dir::new(fd) else { return Vec::new() };
        let mut names: Vec<String> = dir
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| !name.starts_with('.'))
            .take(NAMES_MAX)
            .collect();
        names.sort();
        names
    }

    /// What is at a path, without following a link in its last component.
    pub(crate) fn stat(&self, path: &str) -> Option<FileStat> {
        let (dir, name) = self.parent(path).ok()?;
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileStat {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            symlink: FileType::from_raw_mode(stat.st_mode) == FileType::Symlink,
            modified_seconds: stat.st_mtime,
        })
    }

    /// Whether another program holds a record lock on a file, as dpkg and apt do while they work (fcntl(2)). A file that is
    /// not there, or cannot be asked, is not locked.
    pub(crate) fn is_locked(&self, path: &str) -> bool {
        let Ok(fd) = self.resolve(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY) else {
            return false;
        };
        // Closing the file gives the lock back.
        let asked = rustix::fs::fcntl_lock(&fd, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        matches!(asked, Err(Errno::AGAIN | Errno::ACCESS))
    }

    /// Where an open file lies on the machine, whatever links led to it; nothing where it lies nowhere any more.
    pub(crate) fn path_of(&self, file: &File) -> Option<String> {
        use std::os::fd::AsRawFd as _;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        let inside = link.strip_prefix(&self.path).ok()?;
        let text = format!("/{}", inside.to_str()?);
        (!text.ends_with(" (deleted)")).then_some(text)
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path, OFlags::PATH).is_ok()
    }

    /// Where a symbolic link points, as text.
    pub(crate) fn read_link(&self, path: &str) -> Option<String> {
        let (dir, name) = self.parent(path).ok()?;
        rustix::fs::readlinkat(dir, name, Vec::new())
            .ok()?
            .into_string()
            .ok()
    }

    /// Files of several drop-in folders as their readers see them: a name in an earlier folder masks the same name
    /// in later ones, and the result is sorted by name (systemd, modprobe.d(5), udev(7)).
    pub(crate) fn drop_ins(&self, folders: &[&str], suffix: &str) -> Vec<String> {
        let mut by_name = std::collections::BTreeMap::new();
        for folder in folders {
            for name in self
                .list(folder)
                .into_iter()
                .filter(|name| name.ends_with(suffix))
            {
                by_name
                    .entry(name.clone())
                    .or_insert_with(|| format!("{folder}/{name}"));
            }
        }
        by_name.into_values().collect()
    }

    /// Replaces or creates a file and the folders it lies in. `mode` counts only for a new file.
    pub(crate) fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<(), FileError> {
        self.make_parents(path)?;
        let (dir, name) = self.parent(path).map_err(|e| failed(path, e))?;
        let existing = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Some(stat),
                FileType::Symlink => return Err(FileError::Symlink(path.to_owned())),
                _ => return Err(FileError::NotRegular(path.to_owned())),
            },
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(path, errno)),
        };
        let temporary = temporary_name(name);
        remove_at(&dir, &temporary).map_err(|errno| failed(path, errno))?;
        let written = write_temporary(&dir, &temporary, name, content, mode, existing.as_ref())
            .and_then(|()| Ok(rustix::fs::renameat(&dir, &temporary, &dir, name)?))
            .and_then(|()| Ok(rustix::fs::fsync(&dir)?));
        written.map_err(|source| {
            // A failed clean-up leaves a dot file that the next write removes.
            let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
            failed(path, source)
        })
    }

    /// Removes a file; one that is already gone is fine.
    pub(crate) fn remove(&self, path: &str) -> Result<(), FileError> {
        let removed = self.parent(path).and_then(|(dir, name)| {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
            rustix::fs::fsync(&dir)
        });
        match removed {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(failed(path, errno)),
        }
    }

    /// Removes what a crash in the middle of [`Root::write`] may have left beside a file.
    pub(crate) fn remove_leftover(&self, path: &str) -> Result<(), FileError> {
        match self.parent(path) {
            Ok((dir, name)) => remove_at(&dir, &temporary_name(name)).map_err(|errno| failed(path, errno)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(failed(path, errno)),
        }
    }

    /// Removes a folder if nothing is left in it.
    pub(crate) fn remove_empty_folder(&self, path: &str) {
        if let Ok((dir, name)) = self.parent(path) {
            // Not empty, or gone: either way it stays as it is.
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
        }
    }

    /// Folders that writing a file would have to make, outermost first.
    pub(crate) fn missing_folders(&self, path: &str) -> Vec<String> {
        let components = components(path).unwrap_or_default();
        let folders = (1..components.len()).map(|count| format!("/{}", components[..count].join("/")));
        folders.filter(|folder| !self.exists(folder)).collect()
    }

    fn make_parents(&self, path: &str) -> Result<(), FileError> {
        if !self.real {
            std::fs::create_dir_all(&self.path).map_err(|e| failed(path, e))?;
        }
        for folder in self.missing_folders(path) {
            self.make_folder(&folder).map_err(|e| failed(&folder, e))?;
        }
        Ok(())
    }

    fn make_folder(&self, path: &str) -> Result<(), Errno> {
        let (dir, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            // Somebody else was faster, or a link leads nowhere: writing beneath it will tell.
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        // The agent's own umask must not decide who may read a new folder of /etc.
        let made = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
        rustix::fs::fsync(&dir)
    }

    fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str), Errno> {
        let components = components(path)?;
        let (name, folder) = components.split_last().ok_or(Errno::INVAL)?;
        let folder = format!("/{}", folder.join("/"));
        Ok((self.resolve(&folder, OFlags::RDONLY | OFlags::DIRECTORY)?, name))
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.path, folder, Mode::empty())?;
        let components = components(path)?;
        let relative = if components.is_empty() {
            ".".to_owned()
        } else {
            components.join("/")
        };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RESOLVE_TRIES_MAX {
            match rustix::fs::openat2(&root, &relative, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(Errno::NOSYS) => return walk(root, &components, flags),
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }
}

/// The strict walk of kernels without `openat2`: no symbolic link is followed at all.
fn walk(root: OwnedFd, components: &[&str], flags: OFlags) -> Result<OwnedFd, Errno> {
    let Some((name, folders)) = components.split_last() else {
        return rustix::fs::openat(&root, ".", flags | OFlags::CLOEXEC, Mode::empty());
    };
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = root;
    for folder in folders {
        at = rustix::fs::openat(&at, *folder, step, Mode::empty())?;
    }
    rustix::fs::openat(
        &at,
        *name,
        flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn temporary_name(name: &str) -> String {
    format!(".{name}.muster-tmp")
}

fn remove_at(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn components(path: &str) -> Result<Vec<&str>, Errno> {
    let components: Vec<&str> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    let foreign = components.iter().any(|name| *name == ".." || name.contains('\0'));
    if foreign || components.len() > COMPONENTS_MAX {
        Err(Errno::INVAL)
    } else {
        Ok(components)
    }
}

fn write_temporary(
    dir: &OwnedFd,
    temporary: &str,
    name: &str,
    content: &[u8],
    mode: u32,
    existing: Option<&rustix::fs::Stat>,
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(
        dir,
        temporary,
        flags,
        Mode::from_raw_mode(0o600),
    )?);
    file.write_all(content)?;
    let mut mode = mode;
    if let Some(old) = existing {
        let new = rustix::fs::fstat(&file)?;
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(old.st_uid),
                rustix::fs::Gid::from_raw(old.st_gid),
            );
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        mode = old.st_mode & 0o7777;
        copy_label(dir, name, &file);
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    file.sync_all()
}

/// Hands the SELinux label on; machines without SELinux have none, and one that cannot be copied is not worth a failure.
fn copy_label(dir: &OwnedFd, name: &str, file: &File) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(old) = rustix::fs::openat(dir, name, flags, Mode::empty()) else {
        return;
    };
    let mut label = [0_u8; SELINUX_LABEL_BYTES_MAX];
    if let Ok(length) = rustix::fs::fgetxattr(&old, SELINUX_LABEL, &mut label) {
        let _ = rustix::fs::fsetxattr(
            file,
            SELINUX_LABEL,
            &label[..length],
            rustix::fs::XattrFlags::empty(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        (folder, root)
    }

    #[test]
    fn a_write_makes_folders_and_keeps_the_mode_of_what_it_replaces() {
        let (folder, root) = root();
        assert_eq!(root.missing_folders("/etc/a/b.conf"), ["/etc", "/etc/a"]);
        root.write("/etc/a/b.conf", b"one", 0o640).unwrap();
        let file = folder.path().join("etc/a/b.conf");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert!(root.missing_folders("/etc/a/b.conf").is_empty());
        root.write("/etc/a/b.conf", b"two", 0o600).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o604);
        assert_eq!(root.read("/etc/a/b.conf").unwrap().unwrap(), "two");
        assert_eq!(root.list("/etc/a"), ["b.conf"], "no temporary file stays behind");
    }

    #[test]
    fn links_never_lead_out_of_the_prefix() {
        let (folder, root) = root();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        symlink(outside.path(), folder.path().join("etc")).unwrap();
        symlink("../../../../../../etc/passwd", folder.path().join("climb")).unwrap();
        assert!(root.read("/etc/secret").unwrap().is_none());
        assert!(root.read("/climb").unwrap().is_none());
        assert!(root.write("/etc/secret", b"changed", 0o644).is_err());
        assert_eq!(
            std::fs::read_to_string(outside.path().join("secret")).unwrap(),
            "outside"
        );
        assert!(root.read("/../etc/passwd").is_err(), "dot-dot is no path of ours");
    }

    #[test]
    fn an_absolute_link_ends_inside_the_prefix() {
        let (folder, root) = root();
        root.write("/usr/lib/os-release", b"ID=debian\n", 0o644).unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        symlink("/usr/lib/os-release", folder.path().join("etc/os-release")).unwrap();
        assert_eq!(root.read("/etc/os-release").unwrap().unwrap(), "ID=debian\n");
    }

    #[test]
    fn a_link_in_place_of_the_file_is_refused() {
        let (folder, root) = root();
        root.write("/etc/real", b"kept", 0o644).unwrap();
        symlink("real", folder.path().join("etc/issue")).unwrap();
        assert!(matches!(
            root.write("/etc/issue", b"x", 0o644),
            Err(FileError::Symlink(_))
        ));
        assert_eq!(root.read("/etc/real").unwrap().unwrap(), "kept");
    }

    #[test]
    fn a_fifo_or_an_oversized_file_is_refused_without_hanging() {
        let (folder, root) = root();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(root.read("/fifo"), Err(FileError::NotRegular(_))));
        std::fs::write(
            folder.path().join("big"),
            vec![b'x'; CONFIG_BYTES_MAX as usize + 1],
        )
        .unwrap();
        assert!(matches!(root.read("/big"), Err(FileError::TooLarge(_))));
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        assert!(matches!(root.read("/binary"), Err(FileError::NotText(_))));
    }

    #[test]
    fn the_walk_without_openat2_refuses_every_link() {
        let (folder, root) = root();
        root.write("/etc/real", b"kept", 0o644).unwrap();
        symlink("etc", folder.path().join("alias")).unwrap();
        let open = || rustix::fs::open(folder.path(), OFlags::PATH, Mode::empty()).unwrap();
        assert!(walk(open(), &["etc", "real"], OFlags::RDONLY).is_ok());
        assert!(walk(open(), &["alias", "real"], OFlags::RDONLY).is_err());
    }

    #[test]
    fn drop_ins_mask_by_name_and_sort_across_folders() {
        let (_folder, root) = root();
        for path in [
            "/etc/x.d/20-b.conf",
            "/usr/lib/x.d/20-b.conf",
            "/usr/lib/x.d/10-a.conf",
            "/etc/x.d/n.txt",
        ] {
            root.write(path, b"", 0o644).unwrap();
        }
        let seen = root.drop_ins(&["/etc/x.d", "/usr/lib/x.d"], ".conf");
        assert_eq!(seen, ["/usr/lib/x.d/10-a.conf", "/etc/x.d/20-b.conf"]);
    }
}
