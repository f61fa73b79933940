//! The boot event log in its crypto-agile form (TCG PC Client Platform Firmware Profile 1.06, section 10): what the
//! firmware measured. The log itself is a claim; it counts once its replay gives the quoted register values.

use crate::reject::Reject;

/// Longest event log that is read, in bytes.
pub const EVENT_LOG_BYTES_MAX: usize = 256 * 1024;
/// Most events of a log that are read.
pub const EVENTS_MAX: usize = 4096;
/// Most hash algorithms that a log may carry.
const ALGORITHMS_MAX: usize = 8;
/// Longest digest that a log may carry, in bytes.
const DIGEST_BYTES_MAX: u16 = 64;
const REGISTERS: usize = 24;

const ALG_SHA256: u16 = 0x000b;
const EV_NO_ACTION: u32 = 0x0000_0003;
const SIGNATURE_SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
const SIGNATURE_STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";
/// The register of the Secure Boot state.
const SECURE_BOOT_REGISTER: u8 = 7;
/// What a separator measures (section 10.4.1, EV_SEPARATOR).
const SEPARATORS: [[u8; 4]; 2] = [[0; 4], [0xff; 4]];
/// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c, as it is stored (UEFI 2.10, section 3.3).
const EFI_GLOBAL_VARIABLE: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];

/// An event whose digest the quoted registers vouch for. They vouch for `data` only where it is what was hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The register that was extended.
    pub pcr: u8,
    /// The event type (section 10.4.1).
    pub kind: u32,
    /// The digest that it was extended with.
    pub digest: [u8; 32],
    /// What the firmware says it measured.
    pub data: Vec<u8>,
}

/// Whether the firmware lets only signed programs boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBoot {
    /// It does.
    Enforced,
    /// It does not.
    Off,
}

/// The end of the log, or bytes that are none.
struct Malformed;

/// Replays a log and compares it with quoted values of the SHA-256 bank. Returns the events of those registers, in
/// order.
pub fn replay_event_log(log: &[u8], values: &[(u8, [u8; 32])]) -> Result<Vec<Event>, Reject> {
    if log.len() > EVENT_LOG_BYTES_MAX {
        return Err(Reject::EventLogTooLarge);
    }
    let mut reader = Reader { rest: log };
    let algorithms = read_header(&mut reader).map_err(|Malformed| Reject::EventLogMalformed)?;
    let mut registers = initial_registers();
    let mut events = Vec::new();
    let mut count = 0;
    while !reader.rest.is_empty() {
        count += 1;
        if count > EVENTS_MAX {
            return Err(Reject::EventLogTooLarge);
        }
        let event = read_event(&mut reader, &algorithms).map_err(|Malformed| Reject::EventLogMalformed)?;
        let register = registers
            .get_mut(usize::from(event.pcr))
            .ok_or(Reject::EventLogMalformed)?;
        if event.kind == EV_NO_ACTION {
            if let Some(locality) = startup_locality(&event)
                && !register.extended
            {
                register.value[31] = locality;
            }
            continue;
        }
        register.extend(&event.digest);
        if values.iter().any(|(index, _)| *index == event.pcr) {
            events.push(event);
        }
    }
    let same = values.iter().all(|(index, value)| {
        registers
            .get(usize::from(*index))
            .is_some_and(|register| register.value == *value)
    });
    same.then_some(events).ok_or(Reject::EventLogMismatch)
}

/// The Secure Boot state that a replayed log shows; `None` if register 7 was not quoted or the log does not say.
///
/// The quote vouches for digests and their order alone: types and data are whatever the sender wrote. So only data that
/// gives its digest counts, and only before the separator, which the firmware measures before it starts any other
/// program: after it, whoever rules the machine can extend the register with a state of its own.
pub fn secure_boot(events: &[Event]) -> Option<SecureBoot> {
    let separators = SEPARATORS.map(|data| crate::sha256(&data));
    let measured: Vec<&Event> = events
        .iter()
        .filter(|event| event.pcr == SECURE_BOOT_REGISTER)
        .collect();
    let end = measured
        .iter()
        .position(|event| separators.contains(&event.digest))?;
    measured[..end]
        .iter()
        .filter(|event| crate::sha256(&event.data) == event.digest)
        .find_map(|event| match efi_variable(&event.data) {
            Some(("SecureBoot", [1])) => Some(SecureBoot::Enforced),
            Some(("SecureBoot", _)) => Some(SecureBoot::Off),
            _ => None,
        })
}

struct Register {
    value: [u8; 32],
    extended: bool,
}

impl Register {
    fn extend(&mut self, digest: &[u8; 32]) {
        let mut both = [0; 64];
        both[..32].copy_from_slice(&self.value);
        both[32..].copy_from_slice(digest);
        self.value = crate::sha256(&both);
        self.extended = true;
    }
}

/// Registers 17 to 22 belong to a dynamic launch and begin with all bits set.
fn initial_registers() -> Vec<Register> {
    (0..REGISTERS)
        .map(|index| Register {
            value: if (17..=22).contains(&index) {
                [0xff; 32]
            } else {
                [0; 32]
            },
            extended: false,
        })
        .collect()
}

fn startup_locality(event: &Event) -> Option<u8> {
    match event.data.split_last() {
        Some((locality, signature)) if event.pcr == 0 && signature == SIGNATURE_STARTUP_LOCALITY => {
            Some(*locality)
        }
        _ => None,
    }
}

/// The first event, in the old form, lists the algorithms of the others (section 10.4.5.1).
fn read_header(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, Malformed> {
    let _register = reader.u32()?;
    if reader.u32()? != EV_NO_ACTION {
        return Err(Malformed);
    }
    reader.take(20)?;
    let length = reader.u32()?;
    let mut header = Reader {
        rest: reader.take(length as usize)?,
    };
    if header.take(SIGNATURE_SPEC_ID.len())? != SIGNATURE_SPEC_ID {
        return Err(Malformed);
    }
    // Platform class, version, errata, size of numbers.
    header.take(4 + 1 + 1 + 1 + 1)?;
    let count = header.u32()? as usize;
    if count > ALGORITHMS_MAX {
        return Err(Malformed);
    }
    let mut algorithms = Vec::new();
    for _algorithm in 0..count {
        let (algorithm, bytes) = (header.u16()?, header.u16()?);
        let known = algorithms.iter().any(|(other, _)| *other == algorithm);
        let wrong = algorithm == ALG_SHA256 && bytes != 32;
        if known || wrong || bytes > DIGEST_BYTES_MAX {
            return Err(Malformed);
        }
        algorithms.push((algorithm, bytes));
    }
    let vendor = header.take(1)?[0];
    header.take(usize::from(vendor))?;
    if !header.rest.is_empty() || !algorithms.iter().any(|(algorithm, _)| *algorithm == ALG_SHA256) {
        return Err(Malformed);
    }
    Ok(algorithms)
}

fn read_event(reader: &mut Reader<'_>, algorithms: &[(u16, u16)]) -> Result<Event, Malformed> {
    let pcr = u8::try_from(reader.u32()?).map_err(|_| Malformed)?;
    let kind = reader.u32()?;
    let count = reader.u32()? as usize;
    if count > algorithms.len() {
        return Err(Malformed);
    }
    let mut digest = None;
    for _digest in 0..count {
        let algorithm = reader.u16()?;
        let (_, bytes) = algorithms
            .iter()
            .find(|(known, _)| *known == algorithm)
            .ok_or(Malformed)?;
        let value = reader.take(usize::from(*bytes))?;
        if algorithm == ALG_SHA256 {
            // A second digest would make two readings of one event.
            if digest.is_some() {
                return Err(Malformed);
            }
            digest = value.try_into().ok();
        }
    }
    let length = reader.u32()? as usize;
    Ok(Event {
        pcr,
        kind,
        digest: digest.ok_or(Malformed)?,
        data: reader.take(length)?.to_vec(),
    })
}

/// Name and value of a global EFI variable in UEFI_VARIABLE_DATA (section 10.4.2.6). Names are read up to ASCII.
fn efi_variable(data: &[u8]) -> Option<(&'static str, &[u8])> {
    const NAME: &str = "SecureBoot";
    let mut reader = Reader { rest: data };
    let guid = reader.take(16).ok()?;
    let name_units = usize::try_from(reader.u64().ok()?).ok()?;
    let value_bytes = usize::try_from(reader.u64().ok()?).ok()?;
    let name = reader.take(name_units.checked_mul(2)?).ok()?;
    let value = reader.take(value_bytes).ok()?;
    let expected: Vec<u8> = NAME.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let found = guid == EFI_GLOBAL_VARIABLE && name == expected && reader.rest.is_empty();
    found.then_some((NAME, value))
}

/// Little-endian, unlike everything that a TPM itself writes.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}
