//! Every bound of the agent protocol, by name. A message past one of them is refused whole.

/// Largest body of the first enrollment call, in bytes: nothing is known of the caller yet.
pub const ENROLL_BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest body of the second enrollment call, in bytes: it may carry a measured-boot event log.
pub const ENROLL_FINISH_BODY_BYTES_MAX: usize = 256 * 1024;
/// Largest answer to either enrollment call, in bytes.
pub const ENROLL_RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Largest check-in request, in bytes.
pub const CHECKIN_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest check-in answer, in bytes.
pub const CHECKIN_RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest inventory upload, in bytes.
pub const INVENTORY_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest renewal request, in bytes.
pub const RENEW_BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest renewal answer, in bytes.
pub const RENEW_RESPONSE_BYTES_MAX: usize = 256 * 1024;
/// Largest request for a compliance token, and its answer, in bytes.
pub const COMPLIANCE_TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Largest policy bundle, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest problem+json body that a client reads, in bytes.
pub const PROBLEM_BYTES_MAX: usize = 16 * 1024;
/// Longest line of the wake stream, in bytes.
pub const WAKE_LINE_BYTES_MAX: usize = 1024;

/// Deepest nesting of arrays and objects in any message.
pub const DEPTH_MAX: usize = 16;

/// Longest enrollment token, in characters.
pub const TOKEN_CHARS_MAX: usize = 8 * 1024;
/// Most IMEIs in the hardware claims.
pub const IMEI_COUNT_MAX: usize = 4;
/// Longest free-text hardware claim (vendor, model), in characters.
pub const HARDWARE_TEXT_CHARS_MAX: usize = 128;
/// Longest agent version, in characters.
pub const AGENT_VERSION_CHARS_MAX: usize = 64;
/// Longest public key (SPKI DER) or CSR, in bytes.
pub const DER_BYTES_MAX: usize = 16 * 1024;
/// Longest proof-of-possession signature, in bytes.
pub const PROOF_BYTES_MAX: usize = 256;
/// Most endorsement certificates that a device sends: the leaf and its intermediates.
pub const EK_CERTIFICATES_MAX: usize = 4;
/// Longest single certificate in an attestation, in bytes.
pub const ATTESTATION_CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// Longest structure of a TPM (a public area, an attestation, a signature, a credential), in bytes.
pub const TPM_STRUCTURE_BYTES_MAX: usize = 2 * 1024;
/// Platform configuration registers of one bank.
pub const PCR_COUNT: usize = 24;
/// Longest measured-boot event log, in bytes.
pub const EVENT_LOG_BYTES_MAX: usize = 128 * 1024;
/// Length of the enrollment nonce and of the session identifier, in bytes.
pub const NONCE_BYTES: usize = 32;
/// How long an enrollment session lives, in seconds.
pub const ENROLL_SESSION_SECONDS: u32 = 120;

/// Most receipts in one check-in.
pub const RECEIPTS_MAX: usize = 64;
/// Most bytes of receipts in one check-in, unless a single one is longer.
pub const RECEIPTS_BYTES_MAX: usize = 256 * 1024;
/// Largest output of one command beside its receipt, in bytes: a gzip file.
pub const COMMAND_OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most commands in one check-in answer.
pub const COMMANDS_MAX: usize = 32;
/// Most bundles in one desired state.
pub const BUNDLES_MAX: usize = muster_trust::statement::MAX_DESIRED_BUNDLES;
/// Most root documents in one answer; a device further behind gets the rest at its next check-in.
pub const ROOT_DOCUMENTS_MAX: usize = 64;
/// Most hashes in one consistency proof: two per level of a tree of 2^63 leaves.
pub const CONSISTENCY_HASHES_MAX: usize = 128;

/// How often the server writes a keep-alive line into the wake stream, in seconds.
pub const WAKE_KEEPALIVE_SECONDS: u64 = 25;

/// Largest telemetry upload as it comes over the wire, in bytes.
pub const TELEMETRY_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest telemetry batch when it is inflated, in bytes.
pub const TELEMETRY_INFLATED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How much larger a telemetry batch may be inflated than it came.
pub const TELEMETRY_RATIO_MAX: usize = 50;
/// Values (arrays, objects, texts, numbers) in one telemetry batch.
pub const TELEMETRY_NODES_MAX: usize = 100_000;
/// Largest answer to a telemetry upload, in bytes.
pub const TELEMETRY_RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// Most series in one telemetry batch.
pub const TELEMETRY_SERIES_MAX: usize = 1024;
/// Most windows in one telemetry batch, over all series.
pub const TELEMETRY_WINDOWS_MAX: usize = 12_000;
/// Most events in one telemetry batch.
pub const TELEMETRY_EVENTS_MAX: usize = 2048;
/// Most finished spans in one telemetry batch.
pub const TELEMETRY_SPANS_MAX: usize = 1024;
/// Most attributes of one event or span.
pub const TELEMETRY_ATTRIBUTES_MAX: usize = 16;
/// Longest name of an attribute or a span, in bytes.
pub const TELEMETRY_NAME_BYTES_MAX: usize = 128;
/// Longest value of an attribute, in bytes.
pub const TELEMETRY_TEXT_BYTES_MAX: usize = 512;
/// Most reasons for which telemetry is counted as dropped.
pub const TELEMETRY_REASONS_MAX: usize = 16;
