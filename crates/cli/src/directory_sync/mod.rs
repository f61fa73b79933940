//! People and groups of an LDAP directory, brought to Muster's SCIM endpoint as an ordinary connector.
//!
//! The server does not speak LDAP: this runs in the directory's own network, holds the directory's password there, and has a
//! SCIM token that opens nothing else. Reading, planning and carrying out are three steps: what was not read is not planned
//! away, and nothing is carried out of which too much would go. Decision 0030.

mod carry;
mod config;
mod connect;
mod guard;
mod mapping;
mod plan;
mod preset;
mod reading;
mod report;
mod scim;
mod search;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeSet;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::CliError;
use crate::{clock, progress};

pub use config::Config;
pub use preset::{Preset, example};
pub use report::Report;
pub use trial::trial;

use config::{Bind, Ldap};
use connect::{LdapError, Session};
use plan::{Held, Options, Plan};
use reading::Reading;
use scim::Scim;

/// How one run is to be.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// Only look.
    pub is_dry: bool,
    pub is_adopting: bool,
    /// So many people, groups or memberships may go in this run, whatever the share.
    pub removals_allowed: Option<usize>,
}

impl From<LdapError> for CliError {
    fn from(error: LdapError) -> Self {
        let advice = error.advice();
        CliError::Failed(format!("{error}\n{advice}"))
    }
}

/// Reads the directory and brings over what changed.
///
/// # Errors
/// The directory or Muster could not be asked. What was not taken over, or was held back, is told by the report.
pub async fn run(
    config: &Config,
    credentials: Option<&Path>,
    options: RunOptions,
) -> Result<(Report, Result<(), CliError>), CliError> {
    let scim = Scim::new(&config.muster, credentials)?;
    let mut session = open(&config.ldap, credentials).await?;
    let spinner = progress::spinner("reading the directory".to_owned());
    let now_seconds = clock::now().as_micros() / 1_000_000;
    let mut reading = match reading::read(&mut session, config, now_seconds, &spinner).await {
        Ok(reading) => reading,
        Err(error) => {
            session.end().await;
            return Err(error.into());
        }
    };
    spinner.set_message("asking Muster what it has");
    let held = scim
        .held(options.is_adopting, |count| {
            spinner.set_message(format!("asking Muster what it has: {count} people"));
        })
        .await?;
    let allowed = options.removals_allowed;
    let how = Options {
        vanished: config.sync.vanished,
        is_adopting: options.is_adopting,
    };
    let before = plan::before(&held, how);
    reading.doubt(before.people, before.teams, allowed);
    let too_many = |plan: &Plan| plan.too_many(config.sync.removals_percent_max, allowed);
    let mut plan = plan::plan(&reading, &held, how);
    let mut held_back = too_many(&plan);
    if held_back.is_empty() && plan.has_vanished() {
        spinner.set_message("asking the directory once more who is gone");
        plan = seen_twice(&mut reading, &held, plan, how, async |plan: &Plan| {
            ask_again(&mut session, config, credentials, plan).await
        })
        .await;
        held_back = too_many(&plan);
    }
    session.end().await;
    spinner.finish_and_clear();
    let mut report = Report {
        reading,
        plan,
        done: None,
        held_back,
    };
    if options.is_dry || !report.held_back.is_empty() {
        return Ok((report, Ok(())));
    }
    let bar = progress::bar(carry::size(&report.plan), "changes");
    let (done, outcome) = carry::carry(&report.plan, &scim, &bar).await;
    bar.finish_and_clear();
    report.done = Some(done);
    Ok((report, outcome))
}

/// The plan after everybody who would go because their entry is gone was asked for once more. Whoever is there stays; where
/// that cannot be found out, nobody goes.
async fn seen_twice(
    reading: &mut Reading,
    held: &Held,
    plan: Plan,
    how: Options,
    mut ask: impl AsyncFnMut(&Plan) -> Result<BTreeSet<String>, String>,
) -> Plan {
    match ask(&plan).await {
        Ok(there) if there.is_empty() => return plan,
        Ok(there) => reading.moved = there,
        Err(why) => reading
            .cuts
            .push(format!("who is gone could not be asked for again: {why}")),
    }
    plan::plan(reading, held, how)
}

/// Which of those who would go are there all the same. A directory that ended the connection meanwhile is asked in a new one.
async fn ask_again(
    session: &mut Session,
    config: &Config,
    credentials: Option<&Path>,
    plan: &Plan,
) -> Result<BTreeSet<String>, String> {
    let (people, teams) = plan.vanished();
    if let Ok(there) = reading::still_there(session, config, &people, &teams).await {
        return Ok(there);
    }
    let mut anew = open(&config.ldap, credentials)
        .await
        .map_err(|error| error.to_string())?;
    let there = reading::still_there(&mut anew, config, &people, &teams).await;
    anew.end().await;
    there.map_err(|error| error.detail)
}

/// A connection that is bound.
async fn open(ldap: &Ldap, credentials: Option<&Path>) -> Result<Session, CliError> {
    let tls = connect::tls_config(ldap)?;
    let password = password(ldap, credentials)?;
    let addresses = connect::resolve(ldap).await?;
    let stream = connect::connect(&addresses).await?;
    let mut session = connect::secure(stream, ldap, &tls).await?;
    session.bind(&ldap.bind, &password).await?;
    Ok(session)
}

/// The password of the bind; empty where a certificate speaks.
fn password(ldap: &Ldap, credentials: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, CliError> {
    match &ldap.bind {
        Bind::Simple { password, .. } => password.read(credentials),
        Bind::Certificate { .. } => Ok(Zeroizing::new(Vec::new())),
    }
}
