//! What an entry is as a person or a group. Pure: an entry, the map and the time in, a person or a problem out.

use std::collections::BTreeSet;

use muster_ldap::{
    Entry, dn_key, file_time, generalized_time, guid_text, is_disabled_account, shadow_days, truth,
};
use muster_scim::ENTERPRISE_USER;
use serde_json::{Map, Value, json};

use super::config::{ActiveRule, GroupMap, IdAttribute, PersonMap};

/// Characters of a text that Muster takes (docs/reference/scim.md).
const TEXT_CHARS_MAX: usize = 2_048;
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
    /// Whether the directory says all the same that the account is not to be used.
    pub is_inactive: bool,
    pub why: String,
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
        dn: entry.dn.clone(),
        external_id: external_id.clone(),
        is_inactive: is_active == Ok(false),
        why,
    };
    let Some(id) = external_id.clone() else {
        return Err(unusable(format!("{} cannot be read", map.external_id.name)));
    };
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
        dn: entry.dn.clone(),
        external_id: external_id.clone(),
        is_inactive: false,
        why,
    };
    let Some(id) = external_id.clone() else {
        return Err(unusable(format!("{} cannot be read", map.external_id.name)));
    };
    let Some(display_name) = text(entry, Some(&map.display_name)) else {
        return Err(unusable(format!("{} is absent or no text", map.display_name)));
    };
    let mut members = BTreeSet::new();
    for name in &map.members {
        members.extend(member_names(entry.values(name)));
    }
    if let Some(name) = &map.member_uids {
        let uids = entry.values(name).iter().filter_map(|value| usable_text(value));
        members.extend(uids.map(|uid| MemberName::Uid(uid.to_lowercase())));
    }
    Ok(Team {
        dn: entry.dn.clone(),
        external_id: id,
        display_name,
        members,
    })
}

/// Members by their distinguished names. The bits that `uniqueMember` may have after one (RFC 4517, section 3.3.21) name
/// nobody else here.
pub fn member_names(values: &[Vec<u8>]) -> impl Iterator<Item = MemberName> + '_ {
    let plain = |value: &'_ Vec<u8>| -> Option<MemberName> {
        let text = std::str::from_utf8(value).ok()?;
        let name = match text.rsplit_once('#') {
            Some((name, bits)) if bits.starts_with('\'') && bits.ends_with("'B") => name,
            _ => text,
        };
        (!name.trim().is_empty()).then(|| MemberName::Dn(dn_key(name)))
    };
    values.iter().filter_map(plain)
}

fn external_id(entry: &Entry, id: &IdAttribute) -> Option<String> {
    if id.is_guid {
        return entry.values(&id.name).first().and_then(|bytes| guid_text(bytes));
    }
    text(entry, Some(&id.name))
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

fn is_active(entry: &Entry, map: &PersonMap, now_seconds: i64) -> Result<bool, String> {
    let mut is_active = true;
    for rule in &map.active {
        is_active &= rule.holds(entry, now_seconds)?;
    }
    let is_met = map.inactive_when.iter().any(|condition| {
        let mut values = entry.values(&condition.attribute).iter();
        values.any(|value| {
            std::str::from_utf8(value)
                .is_ok_and(|value| value.trim().to_lowercase() == condition.value.to_lowercase())
        })
    });
    Ok(is_active && !is_met)
}
