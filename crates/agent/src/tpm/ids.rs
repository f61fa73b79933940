//! Numbers of the specification (TPM 2.0 Library, part 2), by their names there.

/// Names an object, a session, an NV index or a hierarchy inside the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub u32);

impl Handle {
    /// `TPM_RH_OWNER`: the hierarchy of the storage keys.
    pub const OWNER: Self = Self(0x4000_0001);
    /// `TPM_RH_NULL`.
    pub const NULL: Self = Self(0x4000_0007);
    /// `TPM_RS_PW`: in place of a session, an authorization by password.
    pub const PASSWORD: Self = Self(0x4000_0009);
    /// `TPM_RH_ENDORSEMENT`: the hierarchy of the maker's keys.
    pub const ENDORSEMENT: Self = Self(0x4000_000B);
    /// First loaded session.
    pub const LOADED_SESSION_FIRST: Self = Self(0x0200_0000);
    /// First transient object.
    pub const TRANSIENT_FIRST: Self = Self(0x8000_0000);
    /// Where the TCG provisioning guidance keeps the storage root key.
    pub const STORAGE_ROOT: Self = Self(0x8100_0001);
    /// First of the persistent endorsement keys.
    pub const ENDORSEMENT_KEY_FIRST: Self = Self(0x8101_0000);
    /// Last of them.
    pub const ENDORSEMENT_KEY_LAST: Self = Self(0x8101_FFFF);

    /// True for an object that is forgotten when it is flushed or the TPM restarts.
    pub const fn is_transient(self) -> bool {
        self.0 >> 24 == 0x80
    }
}

/// `TPM_ALG_ID` values.
pub mod alg {
    pub const RSA: u16 = 0x0001;
    pub const AES: u16 = 0x0006;
    pub const SHA256: u16 = 0x000B;
    pub const SHA384: u16 = 0x000C;
    pub const NULL: u16 = 0x0010;
    pub const ECDSA: u16 = 0x0018;
    pub const ECC: u16 = 0x0023;
    pub const CFB: u16 = 0x0043;
}

/// `TPM_ECC_CURVE` values.
pub mod curve {
    pub const NIST_P256: u16 = 0x0003;
    pub const NIST_P384: u16 = 0x0004;
}

/// `TPMA_OBJECT` bits.
pub mod object {
    pub const FIXED_TPM: u32 = 1 << 1;
    pub const FIXED_PARENT: u32 = 1 << 4;
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    pub const ADMIN_WITH_POLICY: u32 = 1 << 7;
    pub const NO_DA: u32 = 1 << 10;
    pub const RESTRICTED: u32 = 1 << 16;
    pub const DECRYPT: u32 = 1 << 17;
    pub const SIGN: u32 = 1 << 18;
}

/// `TPMA_NV` bits.
pub mod nv {
    pub const OWNER_READ: u32 = 1 << 17;
    pub const AUTH_READ: u32 = 1 << 18;
}

/// `TPM_CAP` values.
pub mod capability {
    pub const HANDLES: u32 = 1;
    pub const TPM_PROPERTIES: u32 = 6;
}

/// `TPM_PT` values.
pub mod property {
    pub const MANUFACTURER: u32 = 0x105;
    pub const FIRMWARE_VERSION_1: u32 = 0x10B;
    pub const FIRMWARE_VERSION_2: u32 = 0x10C;
    pub const NV_BUFFER_MAX: u32 = 0x12C;
}

/// `TPM_ST_NO_SESSIONS`.
pub const TAG_NO_SESSIONS: u16 = 0x8001;
/// `TPM_ST_SESSIONS`.
pub const TAG_SESSIONS: u16 = 0x8002;
/// `TPM_ST_HASHCHECK`.
pub const TAG_HASH_CHECK: u16 = 0x8024;
/// `TPM_SE_POLICY`.
pub const SESSION_POLICY: u8 = 0x01;

/// The commands that this program sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandCode {
    CreatePrimary,
    ActivateCredential,
    Certify,
    NvRead,
    PolicySecret,
    Create,
    Load,
    Quote,
    Sign,
    FlushContext,
    NvReadPublic,
    ReadPublic,
    StartAuthSession,
    GetCapability,
    PcrRead,
}

impl CommandCode {
    /// `TPM_CC`.
    pub const fn code(self) -> u32 {
        match self {
            Self::CreatePrimary => 0x131,
            Self::ActivateCredential => 0x147,
            Self::Certify => 0x148,
            Self::NvRead => 0x14E,
            Self::PolicySecret => 0x151,
            Self::Create => 0x153,
            Self::Load => 0x157,
            Self::Quote => 0x158,
            Self::Sign => 0x15D,
            Self::FlushContext => 0x165,
            Self::NvReadPublic => 0x169,
            Self::ReadPublic => 0x173,
            Self::StartAuthSession => 0x176,
            Self::GetCapability => 0x17A,
            Self::PcrRead => 0x17E,
        }
    }

    /// The name in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreatePrimary => "TPM2_CreatePrimary",
            Self::ActivateCredential => "TPM2_ActivateCredential",
            Self::Certify => "TPM2_Certify",
            Self::NvRead => "TPM2_NV_Read",
            Self::PolicySecret => "TPM2_PolicySecret",
            Self::Create => "TPM2_Create",
            Self::Load => "TPM2_Load",
            Self::Quote => "TPM2_Quote",
            Self::Sign => "TPM2_Sign",
            Self::FlushContext => "TPM2_FlushContext",
            Self::NvReadPublic => "TPM2_NV_ReadPublic",
            Self::ReadPublic => "TPM2_ReadPublic",
            Self::StartAuthSession => "TPM2_StartAuthSession",
            Self::GetCapability => "TPM2_GetCapability",
            Self::PcrRead => "TPM2_PCR_Read",
        }
    }

    /// True where a slow chip may search for prime numbers.
    pub const fn makes_keys(self) -> bool {
        matches!(self, Self::CreatePrimary | Self::Create)
    }
}
