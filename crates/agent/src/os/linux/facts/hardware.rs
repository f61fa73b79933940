//! Vendor, model, serial number, processor and memory: SMBIOS by `/sys/class/dmi/id`, device trees, `/proc`.

use muster_model::facts::Hardware;
use muster_model::text::{DeviceUuid, SerialNumber};
use uuid::Uuid;

use super::super::files::Root;

const DMI: &str = "/sys/class/dmi/id";
const DEVICE_TREE: &str = "/sys/firmware/devicetree/base";
const MACHINE_ID: &str = "/etc/machine-id";

/// What the machine says of itself at enrollment. Claims, never credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub device_uuid: Option<Uuid>,
    pub serial: Option<String>,
    pub vendor: Option<String>,
    pub model: Option<String>,
}

/// The claims: from the prefix if it describes any hardware or names itself, else from the running machine.
pub(crate) fn claims(root: &Root) -> Claims {
    let own = claims_of(root);
    let names_itself = own.device_uuid.is_some();
    let real = if root.is_real() || names_itself {
        own.clone()
    } else {
        claims_of(&Root::running_machine())
    };
    let described = root.exists(DMI) || root.exists(DEVICE_TREE);
    let hardware = if described || root.is_real() {
        own
    } else {
        claims_of(&Root::running_machine())
    };
    // A prefix with its own identity is another machine than this one: it does not borrow this one's serial number.
    let serial = if names_itself && !described && !root.is_real() {
        None
    } else {
        hardware.serial
    };
    Claims {
        device_uuid: real.device_uuid,
        serial,
        vendor: hardware.vendor,
        model: hardware.model,
    }
}

pub(super) fn hardware(root: &Root) -> Hardware {
    let claims = claims(root);
    let processor = super::describing(root, "/proc/cpuinfo");
    let (cpu_model, cpu_cores) = cpu(&processor);
    let memory = super::describing(root, "/proc/meminfo");
    Hardware {
        vendor: claims.vendor,
        model: claims.model,
        serial: claims.serial,
        cpu_model,
        cpu_cores,
        memory_bytes: memory_bytes(&memory),
    }
}

fn claims_of(root: &Root) -> Claims {
    let dmi = |name: &str| {
        Some(super::bounded(
            &root
                .read_line(&format!("{DMI}/{name}"))
                .filter(|text| is_telling(text))?,
        ))
    };
    let tree = |name: &str| Some(super::bounded(&root.read_line(&format!("{DEVICE_TREE}/{name}"))?));
    // SMBIOS first (world has it), then the identity that systemd gives every installation (machine-id(5)).
    let device_uuid = dmi("product_uuid").or_else(|| root.read_line(MACHINE_ID));
    let device_uuid = device_uuid.and_then(|text| text.parse::<DeviceUuid>().ok());
    let serial = ["product_serial", "board_serial", "chassis_serial"]
        .into_iter()
        .find_map(dmi);
    let serial = serial.or_else(|| tree("serial-number"));
    Claims {
        device_uuid: device_uuid.map(DeviceUuid::uuid),
        serial: serial
            .and_then(|text| text.parse::<SerialNumber>().ok())
            .map(|serial| serial.as_str().to_owned()),
        vendor: dmi("sys_vendor").or_else(|| dmi("board_vendor")),
        model: dmi("product_name")
            .or_else(|| dmi("board_name"))
            .or_else(|| tree("model")),
    }
}

/// Vendors leave the same placeholders everywhere; what is no serial number is no model's name either.
fn is_telling(text: &str) -> bool {
    text.parse::<SerialNumber>().is_ok()
}

/// Name of the first processor and number of logical ones.
fn cpu(root: &Root) -> (Option<String>, Option<u32>) {
    let Ok(Some(text)) = root.read("/proc/cpuinfo") else {
        return (None, None);
    };
    let field = |name: &str| {
        let value = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name);
        value
            .map(|(_, value)| super::bounded(value.trim()))
            .filter(|value| !value.is_empty())
    };
    let count = text
        .lines()
        .filter(|line| {
            line.split(':')
                .next()
                .is_some_and(|key| key.trim() == "processor")
        })
        .count();
    let name = ["model name", "Model", "Hardware", "cpu model"]
        .into_iter()
        .find_map(field);
    (name, u32::try_from(count).ok().filter(|count| *count > 0))
}

fn memory_bytes(root: &Root) -> Option<u64> {
    let text = root.read("/proc/meminfo").ok()??;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
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

    #[test]
    fn smbios_is_read_and_placeholders_are_not_taken_for_values() {
        let (_folder, root) = root(&[
            (
                "/sys/class/dmi/id/product_uuid",
                "4C4C4544-0043-3010-8052-B4C04F564231\n",
            ),
            ("/sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n"),
            ("/sys/class/dmi/id/board_serial", "CN12345\n"),
            ("/sys/class/dmi/id/sys_vendor", "Dell Inc.\n"),
            ("/sys/class/dmi/id/product_name", "Default string\n"),
        ]);
        let claims = claims(&root);
        assert_eq!(
            claims.device_uuid.unwrap().to_string(),
            "4c4c4544-0043-3010-8052-b4c04f564231"
        );
        assert_eq!((claims.serial.as_deref(), claims.model), (Some("CN12345"), None));
        assert_eq!(claims.vendor.as_deref(), Some("Dell Inc."));
    }

    #[test]
    fn a_prefix_with_a_machine_id_is_a_machine_of_its_own() {
        let (_folder, root) = root(&[("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")]);
        let claims = claims(&root);
        assert_eq!(
            claims.device_uuid.unwrap().simple().to_string(),
            "0123456789abcdef0123456789abcdef"
        );
        assert_eq!(claims.serial, None);
    }

    #[test]
    fn processors_and_memory_are_counted() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Acme 9\n\nprocessor\t: 1\nmodel name\t: Acme 9\n";
        let (_folder, root) = root(&[
            ("/proc/cpuinfo", cpuinfo),
            ("/proc/meminfo", "MemTotal:  2048 kB\n"),
        ]);
        let hardware = hardware(&root);
        assert_eq!(
            (hardware.cpu_model.as_deref(), hardware.cpu_cores),
            (Some("Acme 9"), Some(2))
        );
        assert_eq!(hardware.memory_bytes, Some(2_097_152));
    }
}
