//! Boot event logs in the crypto-agile form.

const EV_NO_ACTION: u32 = 3;
const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
const ALG_SHA256: u16 = 0x000b;
const EFI_GLOBAL_VARIABLE: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];

/// An event to be logged.
#[derive(Debug, Clone)]
pub struct LogEvent {
    /// The register.
    pub pcr: u8,
    /// The event type.
    pub kind: u32,
    /// What it is extended with.
    pub digest: [u8; 32],
    /// What was measured.
    pub data: Vec<u8>,
}

impl LogEvent {
    /// An event whose digest is the hash of its data.
    pub fn measured(pcr: u8, kind: u32, data: &[u8]) -> Self {
        Self {
            pcr,
            kind,
            digest: crate::sha256(data),
            data: data.to_vec(),
        }
    }
}

/// The measurement of the `SecureBoot` variable.
pub fn secure_boot_event(value: u8) -> LogEvent {
    let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let data = [
        &EFI_GLOBAL_VARIABLE[..],
        &10_u64.to_le_bytes(),
        &1_u64.to_le_bytes(),
        &name,
        &[value],
    ]
    .concat();
    LogEvent::measured(7, EV_EFI_VARIABLE_DRIVER_CONFIG, &data)
}

/// A log with one bank, that of SHA-256.
pub fn event_log(events: &[LogEvent]) -> Vec<u8> {
    let mut header = b"Spec ID Event03\0".to_vec();
    header.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    header.extend(1_u32.to_le_bytes());
    header.extend(ALG_SHA256.to_le_bytes());
    header.extend(32_u16.to_le_bytes());
    header.push(0);
    let mut log = 0_u32.to_le_bytes().to_vec();
    log.extend(EV_NO_ACTION.to_le_bytes());
    log.extend([0; 20]);
    log.extend((header.len() as u32).to_le_bytes());
    log.extend(header);
    for event in events {
        log.extend(u32::from(event.pcr).to_le_bytes());
        log.extend(event.kind.to_le_bytes());
        log.extend(1_u32.to_le_bytes());
        log.extend(ALG_SHA256.to_le_bytes());
        log.extend(event.digest);
        log.extend((event.data.len() as u32).to_le_bytes());
        log.extend(&event.data);
    }
    log
}

/// What a register that began at zero holds after these events.
pub fn replayed(events: &[LogEvent], pcr: u8) -> [u8; 32] {
    events
        .iter()
        .filter(|event| event.pcr == pcr && event.kind != EV_NO_ACTION)
        .fold([0; 32], |value, event| {
            crate::sha256(&[value, event.digest].concat())
        })
}
