//! Disks by `/sys/block`, and whether what is in use on them is encrypted by dm-crypt.
//!
//! A disk counts as encrypted when everything mounted from it, apart from the boot partitions, lies on a device-mapper
//! target of type CRYPT (LUKS or plain); unencrypted when anything does not; unknown when nothing of it is in use and
//! nothing on it is open.

use std::collections::BTreeSet;

use muster_model::facts::{DISKS_MAX, Disk};

use super::super::files::Root;

const BLOCK: &str = "/sys/block";
const MOUNTS: &str = "/proc/self/mountinfo";
/// Devices that are no disks: memory, images, optical drives, and what lies on top of disks.
const NOT_DISKS: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"];
/// Must be readable before any key is known.
const BOOT: [&str; 3] = ["/boot", "/boot/efi", "/efi"];
/// `/sys/block/*/size` counts these, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;
/// Deepest stack of device-mapper targets that is followed.
const DEPTH_MAX: usize = 8;

pub(crate) fn disks(root: &Root) -> Vec<Disk> {
    let root = super::describing(root, BLOCK);
    let mounted = mounted_devices(&root);
    let names = root.list(BLOCK).into_iter().filter(|name| is_disk(name));
    names
        .take(DISKS_MAX)
        .map(|name| {
            let folder = format!("{BLOCK}/{name}");
            let sectors = root
                .read_line(&format!("{folder}/size"))
                .and_then(|text| text.parse::<u64>().ok());
            let removable = root.read_line(&format!("{folder}/removable")).as_deref() == Some("1");
            let mut uses = Vec::new();
            visit(&root, &folder, false, &mounted, 0, &mut uses);
            Disk {
                size_bytes: sectors.unwrap_or(0).saturating_mul(SECTOR_BYTES),
                encrypted: verdict(&uses),
                removable,
                name,
            }
        })
        .collect()
}

/// Whether a block device is a disk, by its name.
pub(crate) fn is_disk(name: &str) -> bool {
    !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix))
}

/// How one device on a disk is used.
struct Use {
    encrypted: bool,
    mounted: bool,
}

fn verdict(uses: &[Use]) -> Option<bool> {
    let mut mounted = uses.iter().filter(|device| device.mounted).peekable();
    if mounted.peek().is_some() {
        return Some(mounted.all(|device| device.encrypted));
    }
    uses.iter().any(|device| device.encrypted).then_some(true)
}

/// Walks from a disk over its partitions and the targets on top of them.
fn visit(
    root: &Root,
    folder: &str,
    encrypted: bool,
    mounted: &BTreeSet<String>,
    depth: usize,
    uses: &mut Vec<Use>,
) {
    if depth > DEPTH_MAX || uses.len() > DISKS_MAX {
        return;
    }
    let line = |name: &str| root.read_line(&format!("{folder}/{name}"));
    let encrypted = encrypted || line("dm/uuid").is_some_and(|uuid| uuid.starts_with("CRYPT-"));
    let is_mounted = line("dev").is_some_and(|number| mounted.contains(&number));
    uses.push(Use {
        encrypted,
        mounted: is_mounted,
    });
    for name in root.list(&format!("{folder}/holders")) {
        visit(
            root,
            &format!("{BLOCK}/{name}"),
            encrypted,
            mounted,
            depth + 1,
            uses,
        );
    }
    for name in root.list(folder) {
        let partition = format!("{folder}/{name}");
        if root.exists(&format!("{partition}/partition")) {
            visit(root, &partition, encrypted, mounted, depth + 1, uses);
        }
    }
}

/// Device numbers (`8:1`) of mounted file systems apart from the boot partitions (proc_pid_mountinfo(5)).
fn mounted_devices(root: &Root) -> BTreeSet<String> {
    // `/proc/self` is a link that the kernel resolves for the reader: read the file where it is real.
    let text = root.read(MOUNTS).ok().flatten().unwrap_or_default();
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let number = fields.nth(2)?.to_owned();
        let place = fields.nth(1)?;
        (!BOOT.contains(&place)).then_some(number)
    };
    text.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, text) in files {
            root.write(path, text.as_bytes(), 0o644).unwrap();
        }
        (folder, root)
    }

    const DISK: [(&str, &str); 6] = [
        ("/sys/block/sda/size", "2000\n"),
        ("/sys/block/sda/removable", "0\n"),
        ("/sys/block/sda/dev", "8:0\n"),
        ("/sys/block/sda/sda1/partition", "1\n"),
        ("/sys/block/sda/sda1/dev", "8:1\n"),
        ("/sys/block/loop0/size", "1\n"),
    ];

    #[test]
    fn a_root_on_luks_is_encrypted_even_with_a_plain_boot_partition() {
        let mut files = DISK.to_vec();
        files.extend([
            ("/sys/block/sda/sda2/partition", "2\n"),
            ("/sys/block/sda/sda2/dev", "8:2\n"),
            ("/sys/block/sda/sda2/holders/dm-0/dev", "253:0\n"),
            ("/sys/block/dm-0/dev", "253:0\n"),
            ("/sys/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc-root\n"),
            (
                "/proc/self/mountinfo",
                "1 1 253:0 / / rw - ext4 /dev/dm-0 rw\n2 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n",
            ),
        ]);
        let (_folder, root) = root(&files);
        let found = disks(&root);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].size_bytes, found[0].encrypted, found[0].removable),
            (1_024_000, Some(true), false)
        );
    }

    #[test]
    fn a_plain_root_is_not_encrypted_and_an_unused_disk_is_unknown() {
        let mut files = DISK.to_vec();
        files.push(("/proc/self/mountinfo", "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n"));
        let (_folder, plain) = root(&files);
        assert_eq!(disks(&plain)[0].encrypted, Some(false));
        let (_folder, unused) = root(&DISK);
        assert_eq!(disks(&unused)[0].encrypted, None);
    }
}
