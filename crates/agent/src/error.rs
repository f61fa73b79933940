//! Why a program run failed. Every message names what to do where something can be done.

use std::path::PathBuf;

use crate::cli::TokenError;
use crate::link::LinkError;
use crate::spool::SpoolError;
use crate::tls::TlsError;
use crate::tpm::TpmError;

/// Why `muster-agent` leaves with exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("enrollment failed: {0}")]
    Link(#[from] LinkError),
    #[error("no compliance token: {0}")]
    ComplianceToken(LinkError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot read the certificate authority {path}: {source}")]
    CaFile { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error("{state_dir} holds no device key: remove the folder and enroll again")]
    NoKey { state_dir: PathBuf },
    #[error("the enrollment token is not a JWT that names a device_uuid: ask for a new one")]
    TokenShape,
    #[error(
        "{state_dir} already holds the identity {device}: use another --state-dir, or remove that one to enroll again"
    )]
    AlreadyEnrolled { state_dir: PathBuf, device: String },
    #[error("{state_dir} holds no identity: run `muster-agent enroll` first")]
    NotEnrolled { state_dir: PathBuf },
    #[error("this machine is not managed any more: {how} at {at}; `muster-agent enroll` enrolls it again")]
    Departed {
        how: &'static str,
        at: muster_model::time::Timestamp,
    },
    #[error("the device key is not usable: {0}")]
    Key(String),
    #[error("the device certificate is not usable: {0}")]
    Certificate(String),
    #[error("the server's enrollment answer was refused: {0}")]
    AnswerRefused(String),
    #[error(
        "the server does not see this machine's own TLS connection, so anybody could stand between: if the organization \
         has a proxy there, enroll with --behind-proxy"
    )]
    NotBound,
    #[error("cannot use the root prefix {path}: {source}")]
    Root { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {source}")]
    Export { path: PathBuf, source: std::io::Error },
    #[error("cannot start: {0}")]
    Start(std::io::Error),
}
