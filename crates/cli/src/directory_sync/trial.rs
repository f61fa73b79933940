//! A try of everything that a run needs, step by step, which changes nothing.

use std::path::Path;

use serde_json::{Value, json};

use crate::clock;
use crate::error::CliError;
use crate::output::{Sheet, clean};

use super::config::{Config, Ldap};
use super::connect::{self, LdapError, Session};
use super::mapping::{Person, Team, Unusable};
use super::reading;
use super::scim::Scim;

/// People and groups that are shown.
const SHOWN: u32 = 5;

/// How a try went.
#[derive(Debug, Default)]
pub struct Trial {
    steps: Vec<Tried>,
    people: Vec<Result<Person, Unusable>>,
    teams: Vec<Result<Team, Unusable>>,
}

/// One step.
#[derive(Debug)]
struct Tried {
    name: &'static str,
    is_ok: bool,
    /// What was found, or what is wrong.
    detail: String,
    advice: Option<&'static str>,
}

impl Trial {
    /// The step at which it failed.
    pub fn failed_at(&self) -> Option<&'static str> {
        self.steps.iter().find(|step| !step.is_ok).map(|step| step.name)
    }

    fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.steps.push(Tried {
            name,
            is_ok: true,
            detail: detail.into(),
            advice: None,
        });
    }

    fn failed(&mut self, name: &'static str, detail: impl Into<String>, advice: Option<&'static str>) {
        self.steps.push(Tried {
            name,
            is_ok: false,
            detail: detail.into(),
            advice,
        });
    }

    fn no(&mut self, name: &'static str, error: &LdapError) {
        self.failed(name, error.detail.clone(), Some(error.advice()));
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let step = |one: &Tried| json!({"step": one.name, "ok": one.is_ok, "detail": one.detail, "advice": one.advice});
        let person = |one: &Result<Person, Unusable>| match one {
            Ok(person) => {
                json!({"dn": person.dn, "resource": person.resource, "manager": person.manager.is_some()})
            }
            Err(unusable) => json!({"dn": unusable.dn, "why": unusable.why}),
        };
        let team = |one: &Result<Team, Unusable>| match one {
            Ok(team) => json!({"dn": team.dn, "name": team.display_name, "members": team.members.len()}),
            Err(unusable) => json!({"dn": unusable.dn, "why": unusable.why}),
        };
        json!({
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "people": self.people.iter().map(person).collect::<Vec<_>>(),
            "groups": self.teams.iter().map(team).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn sheet(&self) -> Sheet {
        let step = |one: &Tried| {
            let word = if one.is_ok { "ok" } else { "failed" };
            vec![one.name.to_owned(), word.to_owned(), clean(&one.detail)]
        };
        let mut sheet = Sheet::new().rows(
            "steps",
            &["step", "result", "detail"],
            self.steps.iter().map(step).collect(),
        );
        if let Some(advice) = self.steps.iter().find_map(|step| step.advice) {
            sheet = sheet.text(advice);
        }
        let person = |one: &Result<Person, Unusable>| match one {
            Ok(person) => vec![
                clean(&person.user_name),
                if person.is_active { "active" } else { "inactive" }.to_owned(),
                shown(person, "/displayName"),
                shown(person, "/emails/0/value"),
                shown(
                    person,
                    &format!("/{}/department", muster_scim::ENTERPRISE_USER.id),
                ),
                person.external_id.clone(),
            ],
            Err(unusable) => vec![
                clean(&unusable.dn),
                "left out".to_owned(),
                clean(&unusable.why),
                String::new(),
                String::new(),
                String::new(),
            ],
        };
        if !self.people.is_empty() {
            let header = ["user", "state", "name", "mail", "department", "external id"];
            sheet = sheet.rows("people", &header, self.people.iter().map(person).collect());
        }
        let team = |one: &Result<Team, Unusable>| match one {
            Ok(team) => vec![
                clean(&team.display_name),
                team.members.len().to_string(),
                team.external_id.clone(),
            ],
            Err(unusable) => vec![clean(&unusable.dn), "left out".to_owned(), clean(&unusable.why)],
        };
        if !self.teams.is_empty() {
            sheet = sheet.rows(
                "groups",
                &["group", "members", "external id"],
                self.teams.iter().map(team).collect(),
            );
        }
        sheet
    }
}

fn shown(person: &Person, pointer: &str) -> String {
    let text = Value::Object(person.resource.clone());
    let text = text.pointer(pointer).and_then(Value::as_str);
    text.map_or_else(|| "-".to_owned(), clean)
}

/// Tries everything. The first step that fails is the last one.
///
/// # Errors
/// A file that the configuration names cannot be read.
pub async fn trial(config: &Config, credentials: Option<&Path>) -> Result<Trial, CliError> {
    let mut trial = Trial::default();
    let scim = Scim::new(&config.muster, credentials)?;
    if let Some(mut session) = directory(&config.ldap, credentials, &mut trial).await? {
        search(config, &mut session, &mut trial).await;
        session.end().await;
    }
    if trial.failed_at().is_none() {
        match scim.check().await {
            Ok(()) => trial.ok("Muster", "the SCIM token is taken"),
            Err(error) => trial.failed(
                "Muster",
                error.to_string(),
                Some(
                    "Is muster.url the admin listener, muster.ca_file its authority, and the token not over?",
                ),
            ),
        }
    }
    Ok(trial)
}

async fn directory(
    ldap: &Ldap,
    credentials: Option<&Path>,
    trial: &mut Trial,
) -> Result<Option<Session>, CliError> {
    let tls = connect::tls_config(ldap)?;
    let password = super::password(ldap, credentials)?;
    let addresses = match connect::resolve(ldap).await {
        Ok(addresses) => addresses,
        Err(error) => {
            trial.no("name", &error);
            return Ok(None);
        }
    };
    let listed: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    trial.ok("name", format!("{}: {}", ldap.host, listed.join(", ")));
    let stream = match connect::connect(&addresses).await {
        Ok(stream) => stream,
        Err(error) => {
            trial.no("connection", &error);
            return Ok(None);
        }
    };
    trial.ok("connection", format!("port {}", ldap.port));
    let mut session = match connect::secure(stream, ldap, &tls).await {
        Ok(session) => session,
        Err(error) => {
            trial.no(error.step.as_str(), &error);
            return Ok(None);
        }
    };
    let way = if ldap.is_start_tls { "StartTLS" } else { "ldaps" };
    trial.ok("TLS", format!("{way}, the certificate is good for {}", ldap.host));
    if let Err(error) = session.bind(&ldap.bind, &password).await {
        trial.no("bind", &error);
        return Ok(None);
    }
    trial.ok("bind", "the account is known");
    Ok(Some(session))
}

async fn search(config: &Config, session: &mut Session, trial: &mut Trial) {
    let now_seconds = clock::now().as_micros() / 1_000_000;
    match reading::sample(session, config, now_seconds, SHOWN).await {
        Err(error) => return trial.no("people", &error),
        Ok((people, _)) if people.is_empty() => {
            return trial.failed(
                "people",
                "the search finds nobody",
                Some("Is people.base where people are, does people.filter fit them, and may the account read them?"),
            );
        }
        Ok((people, referrals)) => {
            let wrong = people.iter().filter(|one| one.is_err()).count();
            trial.people = people;
            let detail = match (wrong, referrals) {
                (0, 0) => format!("the first {} are below", trial.people.len()),
                (0, _) => format!(
                    "the first {} are below; references to other servers are not followed",
                    trial.people.len()
                ),
                _ => format!(
                    "{wrong} of the first {} cannot be brought over",
                    trial.people.len()
                ),
            };
            if wrong == trial.people.len() {
                let advice = "Do people.attributes name what the entries have, and may the account read it?";
                return trial.failed("people", detail, Some(advice));
            }
            trial.ok("people", detail);
        }
    }
    match reading::sample_teams(session, config, SHOWN).await {
        Ok(None) => trial.ok("groups", "not read: the file has no [groups]"),
        Ok(Some(teams)) => {
            trial.teams = teams;
            trial.ok("groups", format!("the first {} are below", trial.teams.len()));
        }
        Err(error) => trial.no("groups", &error),
    }
}
