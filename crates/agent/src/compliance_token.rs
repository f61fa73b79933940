//! `muster-agent compliance-token`: asks the server for a signed statement about this machine, for a VPN or a proxy.

use std::io::Write as _;
use std::sync::Arc;

use http::Method;
use muster_channel_agent::compliance::{ComplianceTokenRequest, ComplianceTokenResponse};
use muster_channel_agent::device::DeviceCore;
use muster_channel_agent::limits::COMPLIANCE_TOKEN_BYTES_MAX;
use muster_channel_agent::path;

use crate::cli::{ComplianceTokenArgs, OutputFormat};
use crate::departure;
use crate::device_key::{DeviceKey, TlsKey};
use crate::error::AgentError;
use crate::identity::Identity;
use crate::link::{Link, LinkError};
use crate::machine_clock;
use crate::spool::{self, Slot};
use crate::tls::{self, ClientIdentity, JudgedAt};

/// Asks, and prints the token alone, or everything as JSON.
pub async fn print(arguments: &ComplianceTokenArgs) -> Result<(), AgentError> {
    if let Some(departure) = departure::read(&arguments.state_dir) {
        return Err(AgentError::Departed {
            how: departure.how.as_str(),
            at: departure.at,
        });
    }
    let answer = ask(arguments).await?;
    let text = match arguments.output {
        OutputFormat::Json => {
            serde_json::to_string_pretty(&answer).map_err(|error| AgentError::Start(error.into()))?
        }
        OutputFormat::Text => answer.token,
    };
    writeln!(std::io::stdout(), "{text}").map_err(AgentError::Start)
}

/// Beside a running agent, which holds the lock of the folder.
async fn ask(arguments: &ComplianceTokenArgs) -> Result<ComplianceTokenResponse, AgentError> {
    let missing = || AgentError::NotEnrolled {
        state_dir: arguments.state_dir.clone(),
    };
    let identity: Identity = spool::peek(&arguments.state_dir, Slot::Identity)?.ok_or_else(missing)?;
    let core: DeviceCore = spool::peek(&arguments.state_dir, Slot::Device)?.ok_or_else(missing)?;
    let reading = machine_clock::read();
    let at = JudgedAt::trusted(core.now(&reading), reading.wall);
    let key = TlsKey::new(Arc::new(DeviceKey::load(&arguments.state_dir)?));
    let shown = ClientIdentity {
        certificate_chain: &identity.certificate_chain,
        key: key.clone(),
    };
    let config = tls::client_config(&identity.ca_certificates, Some(shown), at)?;
    let failed = |error: LinkError| match key.take_failure() {
        Some(failure) => failure,
        None => AgentError::ComplianceToken(error),
    };
    let link = Link::connect(&identity.server, config).await.map_err(failed)?;
    let request = ComplianceTokenRequest {
        epoch: identity.epoch,
        audience: arguments.audience.clone(),
        lifetime_seconds: arguments.lifetime,
    };
    link.exchange(
        Method::POST,
        path::COMPLIANCE_TOKEN,
        &request,
        COMPLIANCE_TOKEN_BYTES_MAX,
    )
    .await
    .map_err(failed)
}
