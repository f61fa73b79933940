//! `collect-logs` and `collect-files`: packed, bounded, and without what is nobody's business.
//!
//! A file is sent if everybody on the machine may read it, or if it is a log; never from a home folder, the agent's own
//! folder or a file system of the kernel's, and never when it holds a private key. What is refused is named.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use muster_channel_agent::limits::COMMAND_OUTPUT_BYTES_MAX;
use muster_model::text::FilePath;
use muster_trust::statement::MAX_RECEIPT_OUTPUT_BYTES;

use super::Site;
use crate::os::ExecOutcome;
use crate::os::linux::files::FileError;

const SYSLOG: [&str; 2] = ["/var/log/syslog", "/var/log/messages"];
const SINCE_SECONDS: u32 = 24 * 3600;
/// The newest lines of the journal that are sent.
const LINES_MAX: &str = "--lines=200000";
/// Most of a log, unpacked.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most of all files of one command together, unpacked.
const FILES_BYTES_MAX: u64 = 32 * 1024 * 1024;
const LOGS: &str = "/var/log/";
/// Folders whose files are nobody else's business, or no files at all.
const NEVER: [&str; 6] = ["/proc", "/sys", "/dev", "/home", "/root", "/run/user"];
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";

/// The system's log of the last seconds: of the journal, or the end of syslog's file where there is none.
pub(super) fn logs(since_seconds: Option<u32>, site: Site<'_>) -> ExecOutcome {
    let since = since_seconds.unwrap_or(SINCE_SECONDS);
    let packed = if site.tools.has("journalctl") {
        let since = format!("--since=-{since}s");
        let arguments = ["--no-pager", "--quiet", "--output=short-iso", LINES_MAX, &since];
        match site.tools.read("journalctl", &arguments, pack_text) {
            Ok(packed) => packed.map(|packed| (packed, "the journal")),
            Err(error) => return ExecOutcome::failed("collect_failed", &error.to_string()),
        }
    } else {
        SYSLOG.iter().find_map(|path| {
            let file = site.root.open_file(path).ok()??;
            Some((pack_text(end_of(file)), *path))
        })
    };
    let Some((packed, source)) = packed else {
        return ExecOutcome::failed(
            "not_supported",
            "this machine keeps neither a journal nor a syslog file",
        );
    };
    match packed {
        Ok(packed) => packed.outcome(source),
        Err(error) => ExecOutcome::failed("collect_failed", &error.to_string()),
    }
}

/// All of the files, or none.
pub(super) fn files(paths: &[FilePath], site: Site<'_>) -> ExecOutcome {
    let encoder = GzEncoder::new(Bounded::default(), Compression::default());
    let mut archive = tar::Builder::new(encoder);
    archive.mode(tar::HeaderMode::Deterministic);
    let mut room = FILES_BYTES_MAX;
    for path in paths {
        let content = match read(path.as_str(), room, site) {
            Ok(content) => content,
            Err(refusal) => return refusal,
        };
        room -= content.len() as u64;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        let name = path.as_str().trim_start_matches('/');
        if let Err(error) = archive.append_data(&mut header, name, content.as_slice()) {
            return too_large_or(&error);
        }
    }
    let packed = archive
        .into_inner()
        .and_then(GzEncoder::finish)
        .map(|bounded| bounded.bytes);
    match packed {
        Ok(upload) => ExecOutcome {
            detail: Some(format!("{} files as tar.gz, {} bytes", paths.len(), upload.len())),
            upload: Some(upload),
            ..ExecOutcome::done()
        },
        Err(error) => too_large_or(&error),
    }
}

fn too_large_or(error: &std::io::Error) -> ExecOutcome {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => too_large(),
        _ => ExecOutcome::failed("collect_failed", &error.to_string()),
    }
}

fn too_large() -> ExecOutcome {
    ExecOutcome::failed("too_large", "the files are larger than one command may send")
}

/// The content of one file, if it is anybody's business.
fn read(path: &str, bytes_max: u64, site: Site<'_>) -> Result<Vec<u8>, ExecOutcome> {
    let refused = |why: &str| ExecOutcome::failed("file_refused", &format!("{path}: {why}"));
    let file = match site.root.open_file(path) {
        Ok(Some(file)) => file,
        Ok(None) => {
            return Err(ExecOutcome::failed(
                "file_missing",
                &format!("{path} is not there"),
            ));
        }
        Err(FileError::NotRegular(_)) => return Err(refused("it is no regular file")),
        Err(error) => return Err(ExecOutcome::failed("collect_failed", &error.to_string())),
    };
    // Where it really is: a link in a folder that anybody may write to leads anywhere.
    let place = site
        .root
        .path_of(&file)
        .ok_or_else(|| refused("it is not where it was"))?;
    if NEVER.iter().any(|folder| Path::new(&place).starts_with(folder)) {
        return Err(refused("files of people and of the kernel are not sent"));
    }
    if is_beneath(&file, site.state_dir) {
        return Err(refused("the agent's own files are not sent"));
    }
    let stat = file
        .metadata()
        .map_err(|error| ExecOutcome::failed("collect_failed", &error.to_string()))?;
    let is_open = stat.mode() & 0o004 != 0 && may_anybody_enter(&place, site);
    // Another name of a file in the logs' folder may be one that lies elsewhere, too.
    let is_log = place.starts_with(LOGS) && stat.nlink() == 1;
    if !is_open && !is_log {
        return Err(refused("only its owner may read it"));
    }
    let mut content = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut content);
    read.map_err(|error| ExecOutcome::failed("collect_failed", &error.to_string()))?;
    if content.len() as u64 > bytes_max {
        return Err(too_large());
    }
    if content
        .windows(PRIVATE_KEY.len())
        .any(|bytes| bytes == PRIVATE_KEY)
    {
        return Err(refused("it holds a private key"));
    }
    Ok(content)
}

/// Whether everybody may walk to a file.
fn may_anybody_enter(place: &str, site: Site<'_>) -> bool {
    let folders = place.match_indices('/').skip(1).map(|(end, _)| &place[..end]);
    let mut modes = folders.map(|folder| site.root.stat(folder).map_or(0, |stat| stat.mode));
    modes.all(|mode| mode & 0o001 != 0)
}

fn is_beneath(file: &File, folder: &Path) -> bool {
    use std::os::fd::AsRawFd as _;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    link.is_ok_and(|path| path.starts_with(folder))
}

/// A log, packed, and its text where that is short enough for the receipt itself.
struct Packed {
    gzip: Vec<u8>,
    text: Option<String>,
    is_cut: bool,
}

impl Packed {
    fn outcome(self, source: &str) -> ExecOutcome {
        let cut = if self.is_cut { ", cut" } else { "" };
        match self.text {
            Some(text) => ExecOutcome {
                detail: Some(format!("{} bytes of {source}{cut}", text.len())),
                output: Some(text),
                ..ExecOutcome::done()
            },
            None => ExecOutcome {
                detail: Some(format!("{source} as gzip, {} bytes{cut}", self.gzip.len())),
                upload: Some(self.gzip),
                ..ExecOutcome::done()
            },
        }
    }
}

/// Reads to the end, or to what fits.
fn pack_text(mut source: impl Read) -> std::io::Result<Packed> {
    let mut encoder = GzEncoder::new(Bounded::default(), Compression::default());
    let (mut start, mut bytes, mut is_cut) = (Vec::new(), 0, false);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = source.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        // The end of a gzip stream needs a little room.
        let is_full =
            bytes > LOG_BYTES_MAX || encoder.get_ref().bytes.len() > COMMAND_OUTPUT_BYTES_MAX - 512 * 1024;
        if is_full {
            is_cut = true;
            break;
        }
        encoder.write_all(&chunk[..count])?;
        if start.len() <= MAX_RECEIPT_OUTPUT_BYTES {
            start.extend_from_slice(&chunk[..count]);
        }
    }
    let text =
        (start.len() <= MAX_RECEIPT_OUTPUT_BYTES).then(|| String::from_utf8_lossy(&start).into_owned());
    Ok(Packed {
        gzip: encoder.finish()?.bytes,
        // What stands for broken bytes is longer than they are.
        text: text.filter(|text| text.len() <= MAX_RECEIPT_OUTPUT_BYTES),
        is_cut,
    })
}

/// The last part of a file, as much as is read of a log.
fn end_of(mut file: File) -> impl Read {
    use std::io::{Seek as _, SeekFrom};
    let length = file.metadata().map_or(0, |stat| stat.len());
    // A file that cannot be moved about in is read from its beginning.
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)));
    file.take(LOG_BYTES_MAX)
}

/// Bytes up to what one upload may hold.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > COMMAND_OUTPUT_BYTES_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_site::TestSite;
    use super::*;
    use flate2::read::GzDecoder;
    use muster_model::command::ReceiptOutcome;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn collect(machine: &TestSite, paths: &[&str]) -> ExecOutcome {
        machine.answer(&serde_json::json!({"type": "collect-files", "paths": paths}).to_string())
    }

    fn unpacked(outcome: ExecOutcome) -> Vec<(String, String)> {
        let upload = outcome.upload.unwrap_or_else(|| panic!("{:?}", outcome.detail));
        let mut archive = tar::Archive::new(GzDecoder::new(upload.as_slice()));
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), text)
            })
            .collect()
    }

    #[test]
    fn files_come_packed_under_their_names() {
        let machine = TestSite::new()
            .with("/etc/hostname", "laptop-7\n")
            .with("/etc/apt/sources.list", "deb x\n");
        let found = unpacked(collect(&machine, &["/etc/hostname", "/etc/apt/sources.list"]));
        let expected = [
            ("etc/hostname", "laptop-7\n"),
            ("etc/apt/sources.list", "deb x\n"),
        ];
        assert_eq!(
            found,
            expected.map(|(path, text)| (path.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn secrets_and_files_of_people_are_refused_however_they_are_named() {
        let machine = TestSite::new()
            .with("/etc/open", "x")
            .with("/home/ada/letter", "x")
            .with("/etc/key.pem", "-----BEGIN PRIVATE KEY-----\n")
            .with("/var/lib/closed/open", "x");
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(machine.folder().join("var/lib/closed"), closed).unwrap();
        machine.root.write("/etc/shadow", b"root:x", 0o640).unwrap();
        machine.root.write("/var/log/auth.log", b"log", 0o640).unwrap();
        let folder = machine.folder();
        symlink("/etc/shadow", folder.join("var/log/link")).unwrap();
        symlink("/home/ada/letter", folder.join("etc/letter")).unwrap();
        std::fs::hard_link(folder.join("etc/shadow"), folder.join("var/log/hard")).unwrap();
        std::fs::create_dir(folder.join("etc/folder")).unwrap();
        for path in [
            "/etc/shadow",
            "/home/ada/letter",
            "/etc/letter",
            "/var/lib/closed/open",
            "/etc/key.pem",
            "/var/log/link",
            "/var/log/hard",
            "/etc/folder",
        ] {
            let outcome = collect(&machine, &["/etc/open", path]);
            assert_eq!(outcome.code.as_deref(), Some("file_refused"), "{path}");
            assert!(outcome.upload.is_none());
        }
        let outcome = collect(&machine, &["/etc/nothing"]);
        assert_eq!(outcome.code.as_deref(), Some("file_missing"));
        assert_eq!(
            collect(&machine, &["/var/log/auth.log"]).outcome,
            ReceiptOutcome::Done
        );
    }

    #[test]
    fn the_agents_own_folder_is_never_sent() {
        let machine = TestSite::new();
        machine.put("/var/lib/agent/open.txt", "x");
        let mut site = machine.site();
        let own = machine.folder().join("var/lib/agent");
        site.state_dir = &own;
        let outcome = files(&[FilePath::parse("/var/lib/agent/open.txt").unwrap()], site);
        assert_eq!(outcome.code.as_deref(), Some("file_refused"));
    }

    #[test]
    fn what_is_too_large_is_not_sent_in_part() {
        let machine = TestSite::new();
        let path = machine.folder().join("large");
        File::create(&path).unwrap().set_len(FILES_BYTES_MAX + 1).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(collect(&machine, &["/large"]).code.as_deref(), Some("too_large"));
    }

    #[test]
    fn a_short_log_is_in_the_receipt_and_a_long_one_beside_it() {
        let machine = TestSite::new();
        let logs = r#"{"type":"collect-logs"}"#;
        assert_eq!(machine.answer(logs).code.as_deref(), Some("not_supported"));
        machine.put("/var/log/syslog", "one\ntwo\n");
        assert_eq!(machine.answer(logs).output.as_deref(), Some("one\ntwo\n"));
        machine.put("/var/log/syslog", &"a line of the log\n".repeat(10_000));
        let outcome = machine.answer(logs);
        let mut text = String::new();
        GzDecoder::new(outcome.upload.unwrap().as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!((outcome.output, text.len()), (None, 180_000));
    }

    #[test]
    fn a_log_that_does_not_pack_is_cut() {
        let mut state = 7_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(12 * 1024 * 1024)
        .collect();
        let packed = pack_text(noise.as_slice()).unwrap();
        assert!(packed.is_cut && packed.gzip.len() <= COMMAND_OUTPUT_BYTES_MAX);
    }
}
