//! What an entry is as a person or a group. Pure: an entry, the map and the time in, a person or a problem out.

use std::collections::BTreeSet;

use muster_ldap::{
    Entry, NAME_BYTES_MAX, dn_key, file_time, generalized_time, guid_bytes, guid_text, is_disabled_account,
    shadow_days, truth,
};
use muster_scim::ENTERPRISE_USER;
use serde_json::{Map, Value, json};

use super::config::{ActiveRule, GroupMap, IdAttribute, PersonMap};

/// Characters of a text that Muster takes (docs/reference/scim.md).
const TEXT_CHARS_MAX: usize = 2_048;
/// Bytes that a text, a value or a member takes beside its own.
const PART_BYTES: usize = 48;
/// Values of one attribute by which an entry that cannot be brought over is known.
const UIDS_MAX: usize = 100;
/// Mail addresses of a person that are brought over.
const EMAILS_MAX: usize = 20;
/// The value of `pwdAccountLockedTime` that only an administrator sets (draft-behera-ldap-password-policy, section 5.3.3).
const LOCKED_FOR_GOOD: &str = "000001010000Z";

/// A person as Muster is to know them.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    pub dn: String,
    pub external_id: String,
    pub user_name: String,
    /// What `memberUid` calls them, in lower case.
    pub uid: Option<String>,
    pub is_active: bool,
    /// SCIM attributes (RFC 7643, section 4.1) without the manager.
    pub resource: Map<String, Value>,
    /// The key of the manager's name.
    pub manager: Option<String>,
}

/// A group as Muster is to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Team {
    pub dn: String,
    pub external_id: String,
    pub display_name: String,
    pub members: BTreeSet<MemberName>,
    /// Why not all of its members are known. Nobody leaves it then.
    pub gap: Option<String>,
}

/// How a group names a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberName {
    /// The key of a distinguished name.
    Dn(String),
    Uid(String),
}

/// An entry that is nobody Muster can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub dn: String,
    /// Where the entry has one: it is there, and nobody vanished.
    pub external_id: Option<String>,
    /// What `memberUid` may call them, in lower case.
    pub uids: BTreeSet<String>,
    /// Whether the directory says all the same that the account is not to be used.
    pub is_inactive: bool,
    pub why: String,
}

impl Person {
    /// The same person, who is there and not brought over.
    pub fn unusable(self, why: String) -> Unusable {
        Unusable {
            dn: self.dn,
            external_id: Some(self.external_id),
            uids: self.uid.into_iter().collect(),
            is_inactive: !self.is_active,
            why,
        }
    }

    /// About how many bytes are kept of them.
    pub fn weight(&self) -> usize {
        let texts = [&self.dn, &self.external_id, &self.user_name];
        let more = [&self.uid, &self.manager].into_iter().flatten();
        let texts: usize = texts
            .into_iter()
            .chain(more)
            .map(|text| text.len() + PART_BYTES)
            .sum();
        texts + self.resource.values().map(weight).sum::<usize>()
    }
}

impl Team {
    /// The same group, which is there and not brought over.
    pub fn unusable(self, why: String) -> Unusable {
        Unusable {
            dn: self.dn,
            external_id: Some(self.external_id),
            uids: BTreeSet::new(),
            is_inactive: false,
            why,
        }
    }

    /// About how many bytes are kept of it.
    pub fn weight(&self) -> usize {
        let texts = [&self.dn, &self.external_id, &self.display_name];
        let texts: usize = texts.into_iter().map(|text| text.len() + PART_BYTES).sum();
        texts + self.members.iter().map(MemberName::weight).sum::<usize>()
    }
}

impl MemberName {
    /// About how many bytes are kept of it.
    pub fn weight(&self) -> usize {
        let (MemberName::Dn(name) | MemberName::Uid(name)) = self;
        name.len() + PART_BYTES
    }
}

impl Unusable {
    /// About how many bytes are kept of it.
    pub fn weight(&self) -> usize {
        let texts = [&self.dn, &self.why].into_iter().chain(&self.external_id);
        let texts = texts.chain(&self.uids);
        texts.map(|text| text.len() + PART_BYTES).sum()
    }
}

fn weight(value: &Value) -> usize {
    PART_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(all) => all.iter().map(weight).sum(),
            Value::Object(all) => all.iter().map(|(name, value)| name.len() + weight(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// Attributes that are asked for.
pub fn person_attributes(map: &PersonMap) -> Vec<&str> {
    let optional = [
        &map.uid,
        &map.given_name,
        &map.family_name,
        &map.formatted_name,
        &map.display_name,
        &map.emails,
        &map.phone,
        &map.title,
        &map.department,
        &map.organization,
        &map.employee_number,
        &map.manager,
    ];
    let rules = map.active.iter().map(|rule| rule.attribute());
    let conditions = map
        .inactive_when
        .iter()
        .map(|condition| condition.attribute.as_str());
    let names = [map.external_id.name.as_str(), map.user_name.as_str()]
        .into_iter()
        .chain(optional.into_iter().filter_map(Option::as_deref))
        .chain(rules)
        .chain(conditions);
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Attributes that are asked for.
pub fn group_attributes(map: &GroupMap) -> Vec<&str> {
    let names = [map.external_id.name.as_str(), map.display_name.as_str()]
        .into_iter()
        .chain(map.members.iter().map(String::as_str))
        .chain(map.member_uids.as_deref());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The person of an entry.
pub fn person(entry: &Entry, map: &PersonMap, now_seconds: i64) -> Result<Person, Unusable> {
    let external_id = external_id(entry, &map.external_id);
    let is_active = is_active(entry, map, now_seconds);
    let unusable = |why: String| Unusable {
        dn: shown_name(&entry.dn),
        external_id: external_id.clone().ok(),
        uids: match &map.uid {
            Some(name) => lower_texts(entry.values(name)).take(UIDS_MAX).collect(),
            None => BTreeSet::new(),
        },
        is_inactive: is_active == Ok(false),
        why,
    };
    let id = external_id.clone().map_err(unusable)?;
    name_fits(&entry.dn).map_err(unusable)?;
    let Some(user_name) = text(entry, Some(&map.user_name)) else {
        return Err(unusable(format!("{} is absent or no text", map.user_name)));
    };
    if entry.values(&map.user_name).len() > 1 {
        return Err(unusable(format!(
            "{} has several values: which one is the name?",
            map.user_name
        )));
    }
    let is_active = is_active.clone().map_err(unusable)?;
    Ok(Person {
        dn: entry.dn.clone(),
        external_id: id.clone(),
        uid: text(entry, map.uid.as_deref()).map(|uid| uid.to_lowercase()),
        is_active,
        resource: resource(entry, map, (&id, &user_name, is_active)),
        manager: text(entry, map.manager.as_deref()).map(|dn| dn_key(&dn)),
        user_name,
    })
}

fn resource(
    entry: &Entry,
    map: &PersonMap,
    (id, user_name, is_active): (&str, &str, bool),
) -> Map<String, Value> {
    let mut resource = Map::new();
    let get = |name: &Option<String>| text(entry, name.as_deref());
    let put = |into: &mut Map<String, Value>, name: &str, value: Option<String>| {
        if let Some(value) = value {
            into.insert(name.to_owned(), value.into());
        }
    };
    resource.insert("userName".to_owned(), user_name.into());
    resource.insert("externalId".to_owned(), id.into());
    resource.insert("active".to_owned(), is_active.into());
    put(
        &mut resource,
        "displayName",
        get(&map.display_name).or_else(|| get(&map.formatted_name)),
    );
    put(&mut resource, "title", get(&map.title));
    let mut name = Map::new();
    put(&mut name, "formatted", get(&map.formatted_name));
    put(&mut name, "givenName", get(&map.given_name));
    put(&mut name, "familyName", get(&map.family_name));
    if !name.is_empty() {
        resource.insert("name".to_owned(), name.into());
    }
    let emails = emails(entry, map);
    if !emails.is_empty() {
        resource.insert("emails".to_owned(), emails.into());
    }
    if let Some(phone) = get(&map.phone) {
        resource.insert(
            "phoneNumbers".to_owned(),
            json!([{"value": phone, "type": "work"}]),
        );
    }
    let mut enterprise = Map::new();
    put(&mut enterprise, "employeeNumber", get(&map.employee_number));
    put(&mut enterprise, "organization", get(&map.organization));
    put(&mut enterprise, "department", get(&map.department));
    if !enterprise.is_empty() {
        resource.insert(ENTERPRISE_USER.id.to_owned(), enterprise.into());
    }
    resource
}

/// Values have no order in LDAP, so they are given one: the same entry is always the same person.
fn emails(entry: &Entry, map: &PersonMap) -> Vec<Value> {
    let Some(name) = &map.emails else {
        return Vec::new();
    };
    let addresses: BTreeSet<String> = entry
        .values(name)
        .iter()
        .filter_map(|value| usable_text(value))
        .collect();
    let one = |(at, address): (usize, String)| json!({"value": address, "type": "work", "primary": at == 0});
    addresses
        .into_iter()
        .take(EMAILS_MAX)
        .enumerate()
        .map(one)
        .collect()
}

/// The group of an entry. Members of which the directory sent only a part are added later.
pub fn team(entry: &Entry, map: &GroupMap) -> Result<Team, Unusable> {
    let external_id = external_id(entry, &map.external_id);
    let unusable = |why: String| Unusable {
        dn: shown_name(&entry.dn),
        external_id: external_id.clone().ok(),
        uids: BTreeSet::new(),
        is_inactive: false,
        why,
    };
    let id = external_id.clone().map_err(unusable)?;
    name_fits(&entry.dn).map_err(unusable)?;
    let Some(display_name) = text(entry, Some(&map.display_name)) else {
        return Err(unusable(format!("{} is absent or no text", map.display_name)));
    };
    let mut team = Team {
        dn: entry.dn.clone(),
        external_id: id,
        display_name,
        members: BTreeSet::new(),
        gap: None,
    };
    for name in &map.members {
        team.extend(entry.values(name));
    }
    if let Some(name) = &map.member_uids {
        let uids = lower_texts(entry.values(name));
        team.members.extend(uids.map(MemberName::Uid));
    }
    Ok(team)
}

impl Team {
    /// Takes members by their names. One that is longer than a name can be is a gap.
    pub fn extend(&mut self, values: &[Vec<u8>]) {
        let fits = |value: &&Vec<u8>| value.len() <= NAME_BYTES_MAX;
        self.members
            .extend(values.iter().filter(fits).filter_map(|value| member_name(value)));
        let long = values.iter().filter(|value| !fits(value)).count();
        if long > 0 {
            self.gap = Some(format!(
                "{long} of its members have names longer than {NAME_BYTES_MAX} bytes"
            ));
        }
    }
}

/// The name of an entry as it is told: no longer than a name can be.
fn shown_name(dn: &str) -> String {
    let end = dn.floor_char_boundary(NAME_BYTES_MAX);
    dn.get(..end).unwrap_or_default().to_owned()
}

fn name_fits(dn: &str) -> Result<(), String> {
    match dn.len() <= NAME_BYTES_MAX {
        true => Ok(()),
        false => Err(format!("its name is longer than {NAME_BYTES_MAX} bytes")),
    }
}

fn lower_texts(values: &[Vec<u8>]) -> impl Iterator<Item = String> + '_ {
    let texts = values.iter().filter_map(|value| usable_text(value));
    texts.map(|text| text.to_lowercase())
}

/// A member by the distinguished name. The bits that `uniqueMember` may have after it (RFC 4517, section 3.3.21) name nobody
/// else here.
fn member_name(value: &[u8]) -> Option<MemberName> {
    let text = std::str::from_utf8(value).ok()?;
    let name = match text.rsplit_once('#') {
        Some((name, bits)) if bits.starts_with('\'') && bits.ends_with("'B") => name,
        _ => text,
    };
    (!name.trim().is_empty()).then(|| MemberName::Dn(dn_key(name)))
}

/// The id of an entry. Values have no order, so that one of several would be another one tomorrow.
///
/// # Errors
/// Why it has none.
pub fn external_id(entry: &Entry, id: &IdAttribute) -> Result<String, String> {
    let unreadable = || format!("{} cannot be read", id.name);
    match entry.values(&id.name) {
        [value] if id.is_guid => guid_text(value).ok_or_else(unreadable),
        [value] => usable_text(value).ok_or_else(unreadable),
        [] => Err(unreadable()),
        _ => Err(format!("{} has several values: which one is the id?", id.name)),
    }
}

/// What an entry with this id has as the value of the attribute.
pub fn id_bytes(text: &str, id: &IdAttribute) -> Option<Vec<u8>> {
    match id.is_guid {
        true => guid_bytes(text).map(Vec::from),
        false => Some(text.as_bytes().to_vec()),
    }
}

fn text(entry: &Entry, name: Option<&str>) -> Option<String> {
    entry.values(name?).iter().find_map(|value| usable_text(value))
}

/// A value that is text, not blank, and not longer than Muster takes.
fn usable_text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let is_usable = !text.is_empty() && !text.contains('\0') && text.chars().count() <= TEXT_CHARS_MAX;
    is_usable.then(|| text.to_owned())
}

impl ActiveRule {
    fn attribute(self) -> &'static str {
        match self {
            ActiveRule::UserAccountControl => "userAccountControl",
            ActiveRule::AccountExpires => "accountExpires",
            ActiveRule::PasswordPolicyLock => "pwdAccountLockedTime",
            ActiveRule::ShadowExpire => "shadowExpire",
            ActiveRule::NsAccountLock => "nsAccountLock",
            ActiveRule::KerberosExpiration => "krbPrincipalExpiration",
        }
    }

    /// Whether this rule leaves the account usable. A value that is there and says nothing is an error: nobody is let in or
    /// shut out by a guess.
    fn holds(self, entry: &Entry, now_seconds: i64) -> Result<bool, String> {
        let name = self.attribute();
        let unclear = || format!("{name} says nothing that is understood");
        let Some(value) = entry.text(name) else {
            return match (self, entry.values(name).is_empty()) {
                (ActiveRule::UserAccountControl, _) => Err(format!("{name} cannot be read")),
                (_, true) => Ok(true),
                (_, false) => Err(unclear()),
            };
        };
        let is_later = |time: Option<i64>| time.is_none_or(|time| time > now_seconds);
        match self {
            ActiveRule::UserAccountControl => is_disabled_account(value).map(|disabled| !disabled),
            ActiveRule::AccountExpires => file_time(value).map(is_later),
            ActiveRule::PasswordPolicyLock => Some(value != LOCKED_FOR_GOOD),
            ActiveRule::ShadowExpire => shadow_days(value).map(is_later),
            ActiveRule::NsAccountLock => truth(value).map(|locked| !locked),
            ActiveRule::KerberosExpiration => generalized_time(value).map(|time| is_later(Some(time))),
        }
        .ok_or_else(unclear)
    }
}

/// Whether every rule leaves the account usable. One that says clearly that it does not is enough, whatever the others say.
fn is_active(entry: &Entry, map: &PersonMap, now_seconds: i64) -> Result<bool, String> {
    let told: Vec<_> = map
        .active
        .iter()
        .map(|rule| rule.holds(entry, now_seconds))
        .collect();
    let is_met = map.inactive_when.iter().any(|condition| {
        let mut values = entry.values(&condition.attribute).iter();
        values.any(|value| {
            std::str::from_utf8(value)
                .is_ok_and(|value| value.trim().to_lowercase() == condition.value.to_lowercase())
        })
    });
    if is_met || told.contains(&Ok(false)) {
        return Ok(false);
    }
    told.into_iter().try_fold(true, |all, one| Ok(all && one?))
}
