//! What directories of three kinds call things.

use serde::Deserialize;

use super::config::{ActiveRule, GroupMap, IdAttribute, PersonMap};

/// A kind of directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    Openldap,
    ActiveDirectory,
    Freeipa,
}

/// What holds unless the file says otherwise.
pub struct Defaults {
    pub people_filter: &'static str,
    pub person: PersonMap,
    pub groups_filter: &'static str,
    pub group: GroupMap,
}

fn named(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn id(name: &str) -> IdAttribute {
    IdAttribute {
        name: name.to_owned(),
        is_guid: name == "objectGUID",
    }
}

/// What `inetOrgPerson` calls things (RFC 2798), which all of them understand.
fn person() -> PersonMap {
    PersonMap {
        given_name: named("givenName"),
        family_name: named("sn"),
        formatted_name: named("cn"),
        display_name: named("displayName"),
        emails: named("mail"),
        phone: named("telephoneNumber"),
        title: named("title"),
        employee_number: named("employeeNumber"),
        manager: named("manager"),
        ..PersonMap::default()
    }
}

/// The attributes and filters of a kind of directory.
pub fn defaults(preset: Preset) -> Defaults {
    match preset {
        Preset::Openldap => Defaults {
            people_filter: "(objectClass=inetOrgPerson)",
            person: PersonMap {
                external_id: id("entryUUID"),
                user_name: "uid".to_owned(),
                uid: named("uid"),
                department: named("departmentNumber"),
                organization: named("o"),
                active: vec![ActiveRule::PasswordPolicyLock, ActiveRule::ShadowExpire],
                ..person()
            },
            groups_filter: "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup))",
            group: GroupMap {
                external_id: id("entryUUID"),
                display_name: "cn".to_owned(),
                members: vec!["member".to_owned(), "uniqueMember".to_owned()],
                member_uids: named("memberUid"),
            },
        },
        Preset::ActiveDirectory => Defaults {
            people_filter: "(&(objectCategory=person)(objectClass=user))",
            person: PersonMap {
                external_id: id("objectGUID"),
                user_name: "userPrincipalName".to_owned(),
                department: named("department"),
                organization: named("company"),
                employee_number: named("employeeID"),
                active: vec![ActiveRule::UserAccountControl, ActiveRule::AccountExpires],
                ..person()
            },
            groups_filter: "(objectCategory=group)",
            group: GroupMap {
                external_id: id("objectGUID"),
                display_name: "cn".to_owned(),
                members: vec!["member".to_owned()],
                member_uids: None,
            },
        },
        Preset::Freeipa => Defaults {
            people_filter: "(&(objectClass=person)(objectClass=ipaObject))",
            person: PersonMap {
                external_id: id("ipaUniqueID"),
                user_name: "uid".to_owned(),
                uid: named("uid"),
                department: named("departmentNumber"),
                active: vec![ActiveRule::NsAccountLock, ActiveRule::KerberosExpiration],
                ..person()
            },
            groups_filter: "(&(objectClass=ipaUserGroup)(objectClass=ipaObject))",
            group: GroupMap {
                external_id: id("ipaUniqueID"),
                display_name: "cn".to_owned(),
                members: vec!["member".to_owned()],
                member_uids: None,
            },
        },
    }
}

/// A file to begin with.
pub fn example(preset: Preset) -> &'static str {
    match preset {
        Preset::Openldap => include_str!("examples/openldap.toml"),
        Preset::ActiveDirectory => include_str!("examples/active-directory.toml"),
        Preset::Freeipa => include_str!("examples/freeipa.toml"),
    }
}
