//! Why a TPM did not do what it was asked, and what to do about it.

use super::codec::Malformed;
use super::ids::CommandCode;

/// Why an operation with a TPM failed.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// It cannot be opened.
    #[error("the TPM {tcti} cannot be opened: {source}{}", open_hint(tcti, source))]
    Unavailable {
        /// Which one.
        tcti: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It stopped answering in the middle.
    #[error("the TPM {tcti} is gone: {} failed: {source}", command.name())]
    Gone {
        /// Which one.
        tcti: String,
        /// What was asked.
        command: CommandCode,
        /// What the system says.
        source: std::io::Error,
    },
    /// It answered with an error.
    #[error("the TPM refused {}: {} (0x{code:03x}){}", command.name(), code_name(*code), code_hint(*code))]
    Refused {
        /// What was asked.
        command: CommandCode,
        /// `TPM_RC`.
        code: u32,
    },
    /// It answered with something that is not the specification's.
    #[error("the TPM's answer to {} is not valid: {source}", command.name())]
    Malformed {
        /// What was asked.
        command: CommandCode,
        /// What is wrong.
        source: Malformed,
    },
    /// What is stored about the key cannot be read.
    #[error("the stored key is not usable: {0}")]
    KeyFile(String),
    /// The key was made by another TPM, or this one was cleared since.
    #[error(
        "the device key does not belong to this TPM: it was made by another one, or this one was cleared since. \
         Remove the state folder and enroll again"
    )]
    OtherTpm,
    /// It signed, and the signature is wrong.
    #[error("the TPM's signature does not verify: it is broken, or it holds another key than it says")]
    WrongSignature,
    /// A bank of registers is switched off.
    #[error(
        "the TPM does not have the registers that the server asks for: activate its SHA-256 bank in the firmware"
    )]
    NoRegisters,
    /// It made a key that is not what was asked for.
    #[error("the TPM made a key that was not asked for: {0}")]
    UnexpectedKey(&'static str),
}

impl TpmError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "tpm_unavailable",
            Self::Gone { .. } => "tpm_gone",
            Self::Refused { .. } => "tpm_refused",
            Self::Malformed { .. } => "tpm_answer_invalid",
            Self::KeyFile(_) => "tpm_key_file_invalid",
            Self::OtherTpm => "tpm_other",
            Self::WrongSignature => "tpm_signature_wrong",
            Self::NoRegisters => "tpm_registers_missing",
            Self::UnexpectedKey(_) => "tpm_key_unexpected",
        }
    }

    /// True where the same operation may succeed a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Gone { .. } => true,
            Self::Refused { code, .. } => is_retried(*code),
            Self::Malformed { .. }
            | Self::KeyFile(_)
            | Self::OtherTpm
            | Self::WrongSignature
            | Self::NoRegisters
            | Self::UnexpectedKey(_) => false,
        }
    }

    /// True for a refusal with this code, whichever handle, session or parameter it names.
    pub(super) fn is_refusal(&self, wanted: u32) -> bool {
        matches!(self, Self::Refused { code, .. } if base(*code) == wanted)
    }
}

/// Response codes that this program tells apart (part 2, 6.6), without the number of the parameter they are about.
pub(super) mod rc {
    pub const INITIALIZE: u32 = 0x100;
    pub const FAILURE: u32 = 0x101;
    pub const BAD_TAG: u32 = 0x01E;
    pub const COMMAND_CODE: u32 = 0x143;
    pub const HIERARCHY: u32 = 0x085;
    pub const HANDLE: u32 = 0x08B;
    pub const AUTH_FAIL: u32 = 0x08E;
    pub const SCHEME: u32 = 0x092;
    pub const VALUE: u32 = 0x084;
    pub const POLICY_FAIL: u32 = 0x09D;
    pub const INTEGRITY: u32 = 0x09F;
    pub const TICKET: u32 = 0x0A0;
    pub const BAD_AUTH: u32 = 0x0A2;
    pub const CURVE: u32 = 0x0A6;
    pub const OBJECT_MEMORY: u32 = 0x902;
    pub const SESSION_MEMORY: u32 = 0x903;
    pub const SESSION_HANDLES: u32 = 0x905;
    pub const YIELDED: u32 = 0x908;
    pub const CANCELED: u32 = 0x909;
    pub const TESTING: u32 = 0x90A;
    pub const NV_RATE: u32 = 0x920;
    pub const LOCKOUT: u32 = 0x921;
    pub const RETRY: u32 = 0x922;
    pub const NV_UNAVAILABLE: u32 = 0x923;
}

/// Bits above the TPM's own code: the layer that answered, such as the kernel's resource manager.
const LAYER_MASK: u32 = 0xFFFF_F000;
/// Set in codes that name a handle, session or parameter.
const FORMAT_ONE: u32 = 0x080;
/// The part of such a code that says what is wrong.
const FORMAT_ONE_ERROR: u32 = 0x0BF;

/// The code without its layer and without the number of what it is about.
fn base(code: u32) -> u32 {
    let code = code & !LAYER_MASK;
    if code & FORMAT_ONE == 0 {
        code
    } else {
        code & FORMAT_ONE_ERROR
    }
}

/// True for the warnings that ask for the same command again.
pub(super) fn is_retried(code: u32) -> bool {
    matches!(base(code), rc::YIELDED | rc::TESTING | rc::NV_RATE | rc::RETRY)
}

fn code_name(code: u32) -> &'static str {
    match base(code) {
        rc::INITIALIZE => "it was not started",
        rc::FAILURE => "it failed",
        rc::BAD_TAG => "it does not know this kind of command",
        rc::COMMAND_CODE => "it does not have this command",
        rc::HIERARCHY => "the hierarchy is not usable",
        rc::HANDLE => "there is no such object",
        rc::AUTH_FAIL | rc::BAD_AUTH => "the authorization is wrong",
        rc::SCHEME => "the signing scheme is not supported",
        rc::VALUE => "a value is out of range",
        rc::POLICY_FAIL => "a policy is not satisfied",
        rc::INTEGRITY => "the data was made by another TPM or was changed",
        rc::TICKET => "the key signs only what the TPM itself made",
        rc::CURVE => "the curve is not supported",
        rc::OBJECT_MEMORY => "it has no room for another object",
        rc::SESSION_MEMORY | rc::SESSION_HANDLES => "it has no room for another session",
        rc::YIELDED | rc::TESTING | rc::RETRY => "it is busy",
        rc::CANCELED => "it was interrupted",
        rc::NV_RATE => "its memory is protected against wear for the moment",
        rc::LOCKOUT => "it is locked after wrong authorizations",
        rc::NV_UNAVAILABLE => "its memory is not available",
        _ => "an error",
    }
}

/// What to do, for the codes where somebody can do something.
fn code_hint(code: u32) -> &'static str {
    match base(code) {
        rc::INITIALIZE => ". Start it: swtpm needs --flags startup-clear",
        rc::BAD_TAG => ". This may be a TPM 1.2: a TPM 2.0 is needed",
        rc::FAILURE => ". Restart the machine; a TPM that stays so is broken",
        rc::HIERARCHY | rc::AUTH_FAIL | rc::BAD_AUTH => {
            ". The owner or endorsement hierarchy is disabled or has a password: allow it in the firmware, or clear the \
             password (tpm2_changeauth)"
        }
        rc::OBJECT_MEMORY | rc::SESSION_MEMORY | rc::SESSION_HANDLES => {
            ". Use the resource manager /dev/tpmrm0, or free the slots (tpm2_flushcontext -t -l -s)"
        }
        rc::YIELDED | rc::TESTING | rc::RETRY | rc::NV_RATE | rc::CANCELED | rc::NV_UNAVAILABLE => {
            ". Try again in a minute"
        }
        rc::LOCKOUT => ". It opens by itself after its recovery time, or with tpm2_dictionarylockout -c",
        rc::CURVE | rc::SCHEME => ". This TPM cannot hold a device key: use --tpm none",
        _ => "",
    }
}

fn open_hint(tcti: &str, source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound if tcti.starts_with("swtpm:") => ". Is the software TPM running?",
        std::io::ErrorKind::PermissionDenied => ". Run as root, or as a member of the group tss",
        std::io::ErrorKind::NotFound => ". Is there a TPM 2.0, and is it enabled in the firmware?",
        std::io::ErrorKind::ConnectionRefused => ". Is the software TPM running?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u32) -> TpmError {
        let command = CommandCode::Load;
        TpmError::Refused { command, code }
    }

    #[test]
    fn a_code_is_known_whatever_it_is_about() {
        // TPM_RC_INTEGRITY for parameter 1, and as the specification writes it.
        assert!(refused(0x1DF).is_refusal(rc::INTEGRITY));
        assert!(refused(0x09F).is_refusal(rc::INTEGRITY));
        // TPM_RC_HANDLE for handle 1, TPM_RC_AUTH_FAIL for session 1.
        assert!(refused(0x18B).is_refusal(rc::HANDLE));
        assert!(refused(0x98E).is_refusal(rc::AUTH_FAIL));
        // The kernel's resource manager does not know the command.
        assert!(refused(0x000B_0143).is_refusal(rc::COMMAND_CODE));
        assert!(!refused(0x101).is_refusal(rc::INTEGRITY));
    }

    #[test]
    fn only_warnings_that_pass_are_tried_again() {
        assert!([0x922, 0x908, 0x90A, 0x920].into_iter().all(is_retried));
        assert!(![0x902, 0x921, 0x100, 0x1DF, 0].into_iter().any(is_retried));
    }

    #[test]
    fn a_message_names_command_code_and_remedy() {
        let text = refused(0x921).to_string();
        assert!(text.contains("TPM2_Load") && text.contains("0x921"), "{text}");
        assert!(text.contains("tpm2_dictionarylockout"), "{text}");
    }
}
