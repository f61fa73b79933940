//! What is read from where, and into what it is made: the file of `muster directory`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_ldap::{Filter, Scope};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use crate::CliError;
use crate::context::read_file;

use super::preset::{Preset, defaults};

/// Bases of one search, rules and conditions of one file.
const PARTS_MAX: usize = 32;
/// Entries of a page, unless the file says otherwise. Active Directory gives no more than 1,000.
const PAGE_ENTRIES: u32 = 500;
const PAGE_ENTRIES_MAX: u32 = 5_000;
/// Share of people, groups or memberships that may go in one run.
const REMOVALS_PERCENT: u8 = 10;
/// How long one whole reading may take.
const READ_MINUTES: u64 = 30;
const READ_MINUTES_MAX: u64 = 12 * 60;

/// A configuration that was read and holds.
#[derive(Debug, Clone)]
pub struct Config {
    pub muster: Muster,
    pub ldap: Ldap,
    pub people: Query,
    pub person: PersonMap,
    /// Nothing where groups are not read.
    pub groups: Option<(Query, GroupMap)>,
    pub sync: Sync,
}

/// Where people are brought.
#[derive(Debug, Clone)]
pub struct Muster {
    /// Of the admin listener.
    pub url: Url,
    /// Who signs its certificate; the machine's authorities where absent.
    pub ca_file: Option<PathBuf>,
    pub token: Secret,
}

/// Where people are read.
#[derive(Debug, Clone)]
pub struct Ldap {
    pub host: String,
    pub port: u16,
    /// Whether TLS begins inside of the protocol. There is no way without TLS.
    pub is_start_tls: bool,
    pub ca_file: Option<PathBuf>,
    pub bind: Bind,
    pub page_entries: u32,
    pub read_minutes_max: u64,
}

/// As whom the directory is read.
#[derive(Debug, Clone)]
pub enum Bind {
    Simple {
        dn: String,
        password: Secret,
    },
    /// By a client certificate (SASL EXTERNAL).
    Certificate {
        certificate_file: PathBuf,
        key_file: PathBuf,
    },
}

/// Where a secret lies.
#[derive(Debug, Clone)]
pub enum Secret {
    File(PathBuf),
    /// In the folder that systemd gives a service (`LoadCredential=`).
    Credential(String),
}

/// One search.
#[derive(Debug, Clone)]
pub struct Query {
    pub bases: Vec<String>,
    pub scope: Scope,
    pub filter: Filter,
}

/// Which attribute is what of a person. An absent one is not read.
#[derive(Debug, Clone, Default)]
pub struct PersonMap {
    pub external_id: IdAttribute,
    pub user_name: String,
    /// What `memberUid` names.
    pub uid: Option<String>,
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub formatted_name: Option<String>,
    pub display_name: Option<String>,
    pub emails: Option<String>,
    pub phone: Option<String>,
    pub title: Option<String>,
    pub department: Option<String>,
    pub organization: Option<String>,
    pub employee_number: Option<String>,
    pub manager: Option<String>,
    pub active: Vec<ActiveRule>,
    pub inactive_when: Vec<Condition>,
}

/// Which attribute names an entry for good.
#[derive(Debug, Clone, Default)]
pub struct IdAttribute {
    pub name: String,
    /// Whether it is sixteen bytes in the order of Active Directory.
    pub is_guid: bool,
}

/// Which attribute is what of a group.
#[derive(Debug, Clone, Default)]
pub struct GroupMap {
    pub external_id: IdAttribute,
    pub display_name: String,
    /// Attributes whose values are names of members.
    pub members: Vec<String>,
    /// An attribute whose values are the `uid` of members.
    pub member_uids: Option<String>,
}

/// How a directory says that an account is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActiveRule {
    /// `userAccountControl` with the bit of disabled accounts. It must be readable.
    UserAccountControl,
    /// `accountExpires` is over.
    AccountExpires,
    /// `pwdAccountLockedTime` with the value of accounts that an administrator locked for good. A lock after wrong passwords
    /// does not count: whoever types them would take people's devices away.
    PasswordPolicyLock,
    /// `shadowExpire` is over.
    ShadowExpire,
    /// `nsAccountLock` is true.
    NsAccountLock,
    /// `krbPrincipalExpiration` is over.
    KerberosExpiration,
}

/// Who has this value of an attribute, in any case, is not active.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub attribute: String,
    pub value: String,
}

/// How what was read is brought over.
#[derive(Debug, Clone)]
pub struct Sync {
    pub vanished: Vanished,
    pub removals_percent_max: u8,
}

/// What becomes of people whose entry is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vanished {
    #[default]
    Deactivate,
    Delete,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    muster: MusterTable,
    ldap: LdapTable,
    people: PeopleTable,
    groups: Option<GroupsTable>,
    #[serde(default)]
    sync: SyncTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MusterTable {
    url: String,
    ca_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    token_credential: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LdapTable {
    url: String,
    preset: Preset,
    ca_file: Option<PathBuf>,
    bind_dn: Option<String>,
    password_file: Option<PathBuf>,
    password_credential: Option<String>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    page_entries: Option<u32>,
    read_minutes_max: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ScopeWord {
    Base,
    One,
    Subtree,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeopleTable {
    base: OneOrMany,
    scope: Option<ScopeWord>,
    filter: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    active: Option<Vec<ActiveRule>>,
    #[serde(default)]
    inactive_when: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsTable {
    base: OneOrMany,
    scope: Option<ScopeWord>,
    filter: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    members: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SyncTable {
    #[serde(default)]
    vanished: Vanished,
    removals_percent_max: Option<u8>,
}

impl Config {
    /// Reads a file. Names of files in it are looked up beside it.
    ///
    /// # Errors
    /// The file cannot be read, or says what cannot be.
    pub fn read(path: &Path) -> Result<Config, CliError> {
        let wrong = |detail: String| CliError::Content {
            path: path.to_owned(),
            detail,
        };
        let text = String::from_utf8(read_file(path)?).map_err(|_| wrong("it is not text".to_owned()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Config::parse(&text, folder).map_err(wrong)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str, folder: &Path) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let base = defaults(file.ldap.preset);
        let people = query(
            file.people.base,
            file.people.scope,
            file.people.filter.as_deref().unwrap_or(base.people_filter),
        )
        .map_err(|wrong| format!("people: {wrong}"))?;
        let mut person = base.person;
        assign(&file.people.attributes, |name, attribute| {
            set_person(&mut person, name, attribute)
        })
        .map_err(|wrong| format!("people.attributes: {wrong}"))?;
        if let Some(active) = file.people.active {
            person.active = active;
        }
        person.inactive_when = file.people.inactive_when;
        for condition in &person.inactive_when {
            attribute_name(&condition.attribute).map_err(|wrong| format!("people.inactive_when: {wrong}"))?;
        }
        if person.inactive_when.len() > PARTS_MAX {
            return Err(format!(
                "people.inactive_when has more than {PARTS_MAX} conditions"
            ));
        }
        let groups = match file.groups {
            Some(table) => Some(groups(table, base.groups_filter, base.group)?),
            None => None,
        };
        let percent = file.sync.removals_percent_max.unwrap_or(REMOVALS_PERCENT);
        if percent > 100 {
            return Err("sync.removals_percent_max is a share of at most 100".to_owned());
        }
        Ok(Config {
            muster: muster(file.muster, folder)?,
            ldap: ldap(file.ldap, folder)?,
            people,
            person,
            groups,
            sync: Sync {
                vanished: file.sync.vanished,
                removals_percent_max: percent,
            },
        })
    }
}

fn muster(table: MusterTable, folder: &Path) -> Result<Muster, String> {
    let url = Url::parse(&table.url).map_err(|error| format!("muster.url: {error}"))?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if url.scheme() != "https" || url.host_str().is_none() || !is_plain || url.password().is_some() {
        return Err("muster.url is the address of the admin listener, https://HOST:PORT".to_owned());
    }
    Ok(Muster {
        url,
        ca_file: table.ca_file.map(|file| folder.join(file)),
        token: secret(table.token_file, table.token_credential, folder)
            .map_err(|wrong| format!("muster.token: {wrong}"))?,
    })
}

fn secret(file: Option<PathBuf>, credential: Option<String>, folder: &Path) -> Result<Secret, String> {
    match (file, credential) {
        (Some(file), None) => Ok(Secret::File(folder.join(file))),
        (None, Some(name)) => {
            let is_name = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
            match is_name && !name.is_empty() && !name.starts_with('.') {
                true => Ok(Secret::Credential(name)),
                false => Err("a credential's name has letters, digits, `-`, `_` and `.`".to_owned()),
            }
        }
        _ => Err("name a file or a credential, one of them".to_owned()),
    }
}

fn ldap(table: LdapTable, folder: &Path) -> Result<Ldap, String> {
    let url = Url::parse(&table.url).map_err(|error| format!("ldap.url: {error}"))?;
    let (is_start_tls, port) = match url.scheme() {
        "ldaps" => (false, 636),
        "ldap" => (true, 389),
        _ => return Err("ldap.url begins with ldaps:// or, for StartTLS, with ldap://".to_owned()),
    };
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !is_bare || !url.username().is_empty() || url.password().is_some() {
        return Err(
            "ldap.url is a host and a port; base, filter and bind are settings of their own".to_owned(),
        );
    }
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("ldap.url names no host")?;
    let bind = match (table.bind_dn, table.certificate_file, table.key_file) {
        (Some(dn), None, None) => {
            let dn = dn.trim().to_owned();
            if dn.is_empty() {
                return Err("ldap.bind_dn is empty: nothing is read anonymously".to_owned());
            }
            Bind::Simple {
                dn,
                password: secret(table.password_file, table.password_credential, folder)
                    .map_err(|wrong| format!("ldap.password: {wrong}"))?,
            }
        }
        (None, Some(certificate), Some(key)) => Bind::Certificate {
            certificate_file: folder.join(certificate),
            key_file: folder.join(key),
        },
        _ => {
            return Err(
                "ldap: give bind_dn with a password, or certificate_file and key_file, one of both"
                    .to_owned(),
            );
        }
    };
    let page_entries = table.page_entries.unwrap_or(PAGE_ENTRIES);
    if !(1..=PAGE_ENTRIES_MAX).contains(&page_entries) {
        return Err(format!("ldap.page_entries is 1 to {PAGE_ENTRIES_MAX}"));
    }
    let read_minutes_max = table.read_minutes_max.unwrap_or(READ_MINUTES);
    if !(1..=READ_MINUTES_MAX).contains(&read_minutes_max) {
        return Err(format!("ldap.read_minutes_max is 1 to {READ_MINUTES_MAX}"));
    }
    Ok(Ldap {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(port),
        is_start_tls,
        ca_file: table.ca_file.map(|file| folder.join(file)),
        bind,
        page_entries,
        read_minutes_max,
    })
}

fn query(base: OneOrMany, scope: Option<ScopeWord>, filter: &str) -> Result<Query, String> {
    let bases = match base {
        OneOrMany::One(base) => vec![base],
        OneOrMany::Many(bases) => bases,
    };
    if bases.is_empty() || bases.len() > PARTS_MAX || bases.iter().any(|base| base.trim().is_empty()) {
        return Err(format!("base is a name, or a list of at most {PARTS_MAX}"));
    }
    Ok(Query {
        bases,
        scope: match scope {
            Some(ScopeWord::Base) => Scope::Base,
            Some(ScopeWord::One) => Scope::One,
            Some(ScopeWord::Subtree) | None => Scope::Subtree,
        },
        filter: Filter::parse(filter).map_err(|error| error.to_string())?,
    })
}

fn groups(table: GroupsTable, filter: &str, mut map: GroupMap) -> Result<(Query, GroupMap), String> {
    let query = query(table.base, table.scope, table.filter.as_deref().unwrap_or(filter))
        .map_err(|wrong| format!("groups: {wrong}"))?;
    assign(&table.attributes, |name, attribute| {
        set_group(&mut map, name, attribute)
    })
    .map_err(|wrong| format!("groups.attributes: {wrong}"))?;
    if let Some(members) = table.members {
        if members.len() > PARTS_MAX {
            return Err(format!("groups.members has more than {PARTS_MAX} attributes"));
        }
        for name in &members {
            attribute_name(name).map_err(|wrong| format!("groups.members: {wrong}"))?;
        }
        map.members = members;
    }
    if map.members.is_empty() && map.member_uids.is_none() {
        return Err("groups: name the attributes that hold members".to_owned());
    }
    Ok((query, map))
}

/// Sets attributes by name. An empty text switches one off.
fn assign(
    table: &BTreeMap<String, String>,
    mut set: impl FnMut(&str, Option<String>) -> Result<(), String>,
) -> Result<(), String> {
    for (name, attribute) in table {
        let attribute = attribute.trim();
        if !attribute.is_empty() {
            attribute_name(attribute)?;
        }
        set(name, (!attribute.is_empty()).then(|| attribute.to_owned()))?;
    }
    Ok(())
}

/// An attribute's name as LDAP knows names (RFC 4512, section 2.5), without options.
fn attribute_name(name: &str) -> Result<(), String> {
    let is_word = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    match is_word && !name.is_empty() && name.len() <= 128 {
        true => Ok(()),
        false => Err(format!("`{name}` is no name of an attribute")),
    }
}

fn required(attribute: Option<String>) -> Result<String, String> {
    attribute
        .ok_or_else(|| "external_id, user_name and a group's display_name cannot be switched off".to_owned())
}

fn id_attribute(attribute: Option<String>) -> Result<IdAttribute, String> {
    let name = required(attribute)?;
    Ok(IdAttribute {
        is_guid: name.eq_ignore_ascii_case("objectGUID"),
        name,
    })
}

fn set_person(map: &mut PersonMap, name: &str, attribute: Option<String>) -> Result<(), String> {
    match name {
        "external_id" => map.external_id = id_attribute(attribute)?,
        "user_name" => map.user_name = required(attribute)?,
        "uid" => map.uid = attribute,
        "given_name" => map.given_name = attribute,
        "family_name" => map.family_name = attribute,
        "formatted_name" => map.formatted_name = attribute,
        "display_name" => map.display_name = attribute,
        "emails" => map.emails = attribute,
        "phone" => map.phone = attribute,
        "title" => map.title = attribute,
        "department" => map.department = attribute,
        "organization" => map.organization = attribute,
        "employee_number" => map.employee_number = attribute,
        "manager" => map.manager = attribute,
        other => return Err(format!("`{other}` is nothing of a person")),
    }
    Ok(())
}

fn set_group(map: &mut GroupMap, name: &str, attribute: Option<String>) -> Result<(), String> {
    match name {
        "external_id" => map.external_id = id_attribute(attribute)?,
        "display_name" => map.display_name = required(attribute)?,
        "member_uids" => map.member_uids = attribute,
        other => return Err(format!("`{other}` is nothing of a group")),
    }
    Ok(())
}

impl Secret {
    /// Reads the secret; a line end after it does not count. `credentials` is the folder that systemd made.
    ///
    /// # Errors
    /// It is not there, or is empty.
    pub fn read(&self, credentials: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, CliError> {
        let path = match (self, credentials) {
            (Secret::File(path), _) => path.clone(),
            (Secret::Credential(name), Some(folder)) => folder.join(name),
            (Secret::Credential(name), None) => {
                return Err(CliError::Usage(format!(
                    "the credential `{name}` is there only in a service of systemd that loads it (LoadCredential=)"
                )));
            }
        };
        let mut bytes = Zeroizing::new(read_file(&path)?);
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(CliError::Content {
                path,
                // A bind with an empty password succeeds as nobody (RFC 4513, section 5.1.2).
                detail: "it is empty".to_owned(),
            });
        }
        Ok(bytes)
    }
}
