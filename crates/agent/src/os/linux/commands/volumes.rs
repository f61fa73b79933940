//! What a full wipe can do on Linux: make encrypted volumes unreadable for good by erasing the keys in their headers.
//!
//! A file system in use cannot be overwritten from within, so a machine whose root is not encrypted is not wiped at all, and
//! says so. `cryptsetup luksErase` (cryptsetup-erase(8)) leaves a LUKS header without a key slot; what was open stays readable
//! until the machine is off, which follows at once.

use std::time::Duration;

use serde::Deserialize;

use crate::os::linux::tools::{ToolError, Tools};

const ASK_TIME_MAX: Duration = Duration::from_secs(60);
const ERASE_TIME_MAX: Duration = Duration::from_secs(120);
const VOLUMES_MAX: usize = 64;
const DEPTH_MAX: usize = 16;
/// Must be readable before any key is known.
const BOOT: [&str; 3] = ["/boot", "/boot/efi", "/efi"];
const LUKS: &str = "crypto_LUKS";

/// What lsblk(8) says of a device; what lies on top of it are its children.
#[derive(Debug, Deserialize)]
struct Device {
    path: String,
    #[serde(default)]
    fstype: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    rm: bool,
    #[serde(default)]
    children: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Listing {
    blockdevices: Vec<Device>,
}

/// What there is to erase.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Volumes {
    /// Devices with a LUKS header.
    pub encrypted: Vec<String>,
    /// File systems of fixed disks in the clear, but for those that start the machine.
    pub plain: Vec<String>,
    /// The system itself lies on an encrypted volume.
    pub has_encrypted_root: bool,
}

pub(super) fn read(tools: Tools) -> Result<Volumes, ToolError> {
    let arguments = ["--json", "--paths", "--output", "PATH,FSTYPE,MOUNTPOINTS,RM"];
    tools
        .run_as_unit("lsblk", &arguments, ASK_TIME_MAX)
        .map(|text| parse(&text))
}

/// Nothing, where the text is not lsblk's: then there is nothing to erase, which the answer says.
fn parse(text: &str) -> Volumes {
    let mut volumes = Volumes::default();
    if let Ok(listing) = serde_json::from_str::<Listing>(text) {
        for device in &listing.blockdevices {
            visit(device, false, 0, &mut volumes);
        }
    }
    for list in [&mut volumes.encrypted, &mut volumes.plain] {
        list.sort();
        list.dedup();
        list.truncate(VOLUMES_MAX);
    }
    volumes
}

fn visit(device: &Device, is_covered: bool, depth: usize, volumes: &mut Volumes) {
    if depth > DEPTH_MAX || device.rm {
        return;
    }
    let kind = device.fstype.as_deref();
    let mounts: Vec<&str> = device.mountpoints.iter().flatten().map(String::as_str).collect();
    let is_luks = kind == Some(LUKS);
    if is_luks {
        volumes.encrypted.push(device.path.clone());
    }
    if is_covered && mounts.contains(&"/") {
        volumes.has_encrypted_root = true;
    }
    let starts =
        mounts.iter().any(|mount| BOOT.contains(mount)) || (kind == Some("vfat") && mounts.is_empty());
    let holds_data =
        kind.is_some_and(|kind| !is_luks && kind != "LVM2_member" && kind != "linux_raid_member");
    if holds_data && !is_covered && !starts {
        volumes.plain.push(device.path.clone());
    }
    for child in &device.children {
        visit(child, is_covered || is_luks, depth + 1, volumes);
    }
}

/// Erases the keys of one volume, and looks whether they are gone. Harmless where they are gone already.
pub(super) fn erase(device: &str, tools: Tools) -> Result<(), ToolError> {
    tools.run_as_unit(
        "cryptsetup",
        &["luksErase", "--batch-mode", "--", device],
        ERASE_TIME_MAX,
    )?;
    let text = tools.run_as_unit("cryptsetup", &["luksDump", "--", device], ASK_TIME_MAX)?;
    if has_key(&text) {
        return Err(ToolError::Failed {
            program: "cryptsetup".to_owned(),
            status: "success".to_owned(),
            complaint: "a key is still there".to_owned(),
        });
    }
    Ok(())
}

/// Of a dump: version 1 says `Key Slot 0: ENABLED`; version 2 lists `  0: luks2` beneath `Keyslots:`.
fn has_key(dump: &str) -> bool {
    let mut in_slots = false;
    for line in dump.lines() {
        if line.starts_with("Key Slot") && line.ends_with("ENABLED") {
            return true;
        }
        if !line.starts_with([' ', '\t']) {
            in_slots = line.starts_with("Keyslots:");
        } else if in_slots
            && line
                .trim_start()
                .split_once(':')
                .is_some_and(|(slot, _)| slot.parse::<u8>().is_ok())
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAPTOP: &str = r#"{"blockdevices":[
        {"path":"/dev/sda","fstype":null,"mountpoints":[null],"rm":false,"children":[
            {"path":"/dev/sda1","fstype":"vfat","mountpoints":["/boot/efi"],"rm":false},
            {"path":"/dev/sda2","fstype":"ext4","mountpoints":["/boot"],"rm":false},
            {"path":"/dev/sda3","fstype":"crypto_LUKS","mountpoints":[null],"rm":false,"children":[
                {"path":"/dev/mapper/sda3_crypt","fstype":"LVM2_member","mountpoints":[null],"rm":false,"children":[
                    {"path":"/dev/mapper/vg-root","fstype":"ext4","mountpoints":["/"],"rm":false},
                    {"path":"/dev/mapper/vg-swap","fstype":"swap","mountpoints":["[SWAP]"],"rm":false}]}]}]},
        {"path":"/dev/sdb","fstype":"ext4","mountpoints":["/srv"],"rm":false},
        {"path":"/dev/sdc","fstype":"exfat","mountpoints":["/media/stick"],"rm":true}]}"#;

    #[test]
    fn what_can_be_erased_and_what_cannot_is_told_apart() {
        let volumes = parse(LAPTOP);
        let expected = Volumes {
            encrypted: vec!["/dev/sda3".to_owned()],
            plain: vec!["/dev/sdb".to_owned()],
            has_encrypted_root: true,
        };
        assert_eq!(volumes, expected);
        let plain =
            parse(r#"{"blockdevices":[{"path":"/dev/vda","fstype":"ext4","mountpoints":["/"],"rm":false}]}"#);
        assert!(!plain.has_encrypted_root && plain.encrypted.is_empty());
        assert_eq!(parse("{}"), Volumes::default());
    }

    /// On a file that is a LUKS device, where cryptsetup is installed.
    #[test]
    fn an_erased_volume_has_no_key_and_may_be_erased_again() {
        let tools = Tools::new(true);
        if !tools.has("cryptsetup") {
            eprintln!("SKIPPED: cryptsetup is not installed");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for version in ["luks1", "luks2"] {
            let path = folder.path().join(version);
            std::fs::File::create(&path).unwrap().set_len(20 << 20).unwrap();
            let device = path.display().to_string();
            let format = [
                "luksFormat",
                "--batch-mode",
                "--type",
                version,
                "--pbkdf-force-iterations",
                "1000",
                "--pbkdf",
                "pbkdf2",
                "--",
                &device,
                "-",
            ];
            if let Err(error) = tools.run_with_input("cryptsetup", &format, b"a passphrase") {
                eprintln!("SKIPPED: {error}");
                return;
            }
            let dump = tools.run("cryptsetup", &["luksDump", "--", &device]).unwrap();
            assert!(has_key(&dump), "{dump}");
            for _ in 0..2 {
                erase(&device, tools).unwrap();
            }
            let opened = tools.run_with_input(
                "cryptsetup",
                &["open", "--test-passphrase", "--", &device],
                b"a passphrase",
            );
            assert!(opened.is_err(), "{version} opens with its old passphrase");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(?s)[\\PC\n\t:0-9]{0,200}") {
            parse(&text);
            has_key(&text);
        }
    }
}
