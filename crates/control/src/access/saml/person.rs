//! What an assertion says of a person, as everybody else needs it. Pure.

use muster_saml::{Identity, NameId};
use serde::{Deserialize, Serialize};

use super::{BY_SAML, SamlSpec};
use crate::access::{connection::Connection, outside::OutsideIdentity};

/// The format of names that are others at each sign-in (SAML Core, section 8.3.8).
pub(super) const TRANSIENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient";
/// The format of names that are a person's for ever (section 8.3.7).
const PERSISTENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
/// Bytes of what a person is known by, and of the session there: both are keys of an index.
const SUBJECT_BYTES_MAX: usize = 1024;
const SESSION_BYTES_MAX: usize = 512;
const NAME_CHARS_MAX: usize = 256;
const GROUPS_MAX: usize = 1000;

/// Attributes by which people are called, the first that is there: the user principal name of ADFS, then of Entra, the principal name of
/// eduPerson, the account's name (uid), what Okta and others send by hand, and addresses last.
const USERNAMES: &[&str] = &[
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
    "urn:oid:1.3.6.1.4.1.5923.1.1.1.6",
    "urn:oid:0.9.2342.19200300.100.1.1",
    "username",
    "login",
    "uid",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
    "urn:oid:0.9.2342.19200300.100.1.3",
    "email",
];
/// Attributes with the name that people read: of Entra, of LDAP, by hand.
const DISPLAY_NAMES: &[&str] = &[
    "http://schemas.microsoft.com/identity/claims/displayname",
    "urn:oid:2.16.840.1.113730.3.1.241",
    "displayName",
    "urn:oid:2.5.4.3",
    "cn",
    "name",
];
/// Attributes that list groups: of Entra, of ADFS, by hand.
const GROUPS: &[&str] = &[
    "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups",
    "http://schemas.xmlsoap.org/claims/Group",
    "groups",
];
/// Sent by Entra instead of the groups of somebody who is in too many.
const GROUPS_ELSEWHERE: &str = "http://schemas.microsoft.com/claims/groups.link";

/// Who somebody is at the provider: what is a part of it, in this order. Two people are the same if all of it is (SAML Core, 2.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderName {
    pub value: String,
    pub format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_qualifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sp_name_qualifier: Option<String>,
}

impl ProviderName {
    pub fn of(name: &NameId) -> ProviderName {
        ProviderName {
            value: name.value.clone(),
            format: name.format.clone(),
            name_qualifier: name.name_qualifier.clone(),
            sp_name_qualifier: name.sp_name_qualifier.clone(),
        }
    }

    pub fn name_id(&self) -> NameId {
        NameId {
            value: self.value.clone(),
            format: self.format.clone(),
            name_qualifier: self.name_qualifier.clone(),
            sp_name_qualifier: self.sp_name_qualifier.clone(),
        }
    }

    /// Without qualifiers that say what holds without them: the provider's own name, and ours (SAML Core, section 8.3.7).
    pub fn plain(mut self, provider: &str, here: &str) -> ProviderName {
        self.name_qualifier = self
            .name_qualifier
            .filter(|name| name != provider && !name.is_empty());
        self.sp_name_qualifier = self
            .sp_name_qualifier
            .filter(|name| name != here && !name.is_empty());
        self
    }
}

/// Who somebody is by an attribute of their own.
#[derive(Serialize)]
struct ByAttribute<'a> {
    attribute: &'a str,
    value: &'a str,
}

/// Somebody whom an assertion names.
#[derive(Debug)]
pub(super) struct Named {
    pub identity: OutsideIdentity,
    /// The provider left groups out, because they were too many.
    pub has_more_groups: bool,
}

/// Why nothing can be made of an assertion that was judged to be sound, for whoever looks after the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error(
        "the NameID is transient, so nobody would be known again: let the provider send a persistent one, or name a subject_attribute"
    )]
    Transient,
    #[error("the attribute {0}, by which people are known, is not there or has not exactly one value")]
    NoSubject(String),
    #[error("what the person is known by, or the session there, is longer than is kept")]
    TooLong,
}

/// Reads who came, by what the connection says of names.
pub(super) fn named(
    connection: &Connection,
    spec: &SamlSpec,
    (saml, here): (&Identity, &str),
    session_seconds: Option<u64>,
) -> Result<Named, Unusable> {
    let name = ProviderName::of(&saml.name_id);
    let subject = subject(spec, saml, name.clone().plain(&spec.entity_id, here))?;
    let provider_name = serde_json::to_string(&name).unwrap_or_default();
    let session_bytes = saml.session_index.as_ref().map_or(0, String::len);
    if subject.len() > SUBJECT_BYTES_MAX || session_bytes > SESSION_BYTES_MAX {
        return Err(Unusable::TooLong);
    }
    let username = first(saml, spec.username_attribute.as_deref(), USERNAMES);
    let display_name = first(saml, spec.display_name_attribute.as_deref(), DISPLAY_NAMES);
    let mut groups = all(saml, spec.groups_attribute.as_deref(), GROUPS).to_vec();
    groups.retain(|group| !group.is_empty());
    let has_more_groups = !saml.values(GROUPS_ELSEWHERE).is_empty() || groups.len() > GROUPS_MAX;
    groups.truncate(GROUPS_MAX);
    Ok(Named {
        identity: OutsideIdentity {
            connection: connection.id,
            connection_name: connection.name.clone(),
            method: BY_SAML,
            issuer: spec.issuer_of_people(),
            subject,
            username: cut(username.unwrap_or(&saml.name_id.value)),
            display_name: cut(display_name.unwrap_or_default()),
            groups,
            authenticated_at: Some(saml.authn_instant),
            provider_session: saml.session_index.clone(),
            provider_name: Some(provider_name),
            in_directory: spec
                .directory
                .as_ref()
                .filter(|_| saml.name_id.format == PERSISTENT)
                .and_then(|wanted| wanted.person(Some(&saml.name_id.value))),
            idle_seconds: spec.idle_seconds,
            session_seconds,
            routed: None,
        },
        has_more_groups,
    })
}

fn subject(spec: &SamlSpec, saml: &Identity, name: ProviderName) -> Result<String, Unusable> {
    let text = match &spec.subject_attribute {
        Some(attribute) => match saml.values(attribute) {
            [value] if !value.trim().is_empty() => serde_json::to_string(&ByAttribute { attribute, value }),
            _ => return Err(Unusable::NoSubject(attribute.clone())),
        },
        None if name.format == TRANSIENT => return Err(Unusable::Transient),
        None => serde_json::to_string(&name),
    };
    text.map_err(|_| Unusable::TooLong)
}

/// The values of the attribute that is named, otherwise of the first usual one that has some.
fn all<'a>(saml: &'a Identity, named: Option<&str>, usual: &[&str]) -> &'a [String] {
    match named {
        Some(name) => saml.values(name),
        None => {
            let found = usual.iter().map(|name| saml.values(name));
            found
                .into_iter()
                .find(|values| !values.is_empty())
                .unwrap_or_default()
        }
    }
}

fn first<'a>(saml: &'a Identity, named: Option<&str>, usual: &[&str]) -> Option<&'a str> {
    let value = all(saml, named, usual).first().map(|value| value.trim());
    value.filter(|value| !value.is_empty())
}

fn cut(text: &str) -> String {
    let seen = text.chars().filter(|char| !char.is_control());
    seen.take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use muster_model::{ConnectionId, TenantId, Timestamp};
    use muster_saml::Attribute;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_000_000);
    const HERE: &str = "https://muster.example/auth/saml/x/metadata";

    fn said(attributes: &[(&str, &[&str])]) -> Identity {
        let attribute = |(name, values): &(&str, &[&str])| Attribute {
            name: (*name).to_owned(),
            friendly_name: None,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        Identity {
            issuer: "https://idp.example".to_owned(),
            name_id: NameId {
                value: "0001".to_owned(),
                format: PERSISTENT.to_owned(),
                name_qualifier: None,
                sp_name_qualifier: None,
            },
            assertion_id: "_a".to_owned(),
            replay_until: NOW,
            is_one_time: false,
            in_response_to: None,
            not_on_or_after: NOW,
            session_index: Some("_s".to_owned()),
            session_not_on_or_after: None,
            authn_instant: NOW,
            authn_context: String::new(),
            attributes: attributes.iter().map(attribute).collect(),
            groups: Vec::new(),
            signed_by: [0; 32],
        }
    }

    fn spec() -> SamlSpec {
        SamlSpec {
            entity_id: "https://idp.example".to_owned(),
            ..SamlSpec::new()
        }
    }

    fn read(spec: &SamlSpec, saml: &Identity) -> Result<Named, Unusable> {
        let connection = Connection::for_tests(
            TenantId::from_uuid(Uuid::nil()),
            ConnectionId::from_uuid(Uuid::nil()),
            "corp",
        );
        named(&connection, spec, (saml, HERE), None)
    }

    #[test]
    fn the_usual_attributes_of_each_provider_are_read() {
        const CLAIMS: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims";
        let upn = format!("{CLAIMS}/upn");
        let name = format!("{CLAIMS}/name");
        let address = format!("{CLAIMS}/emailaddress");
        let check = |attributes: &[(&str, &[&str])], username: &str, shown: &str, groups: &[&str]| {
            let found = read(&spec(), &said(attributes)).expect("it is usable").identity;
            assert_eq!(found.username, username);
            assert_eq!(found.display_name, shown);
            assert_eq!(found.groups, groups);
        };
        // Entra.
        check(
            &[
                (&address, &["ada.lovelace@example.com"]),
                (&name, &["ada@example.com"]),
                (
                    "http://schemas.microsoft.com/identity/claims/displayname",
                    &["Ada Lovelace"],
                ),
                (
                    "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups",
                    &["6f3c", "77aa"],
                ),
            ],
            "ada@example.com",
            "Ada Lovelace",
            &["6f3c", "77aa"],
        );
        // ADFS.
        check(
            &[
                (&upn, &["ada@corp.example"]),
                (&name, &["CORP\\ada"]),
                ("http://schemas.xmlsoap.org/claims/Group", &["mdm-admins"]),
            ],
            "ada@corp.example",
            "",
            &["mdm-admins"],
        );
        // Okta, as it is set up by hand; LDAP's names as they are on the wire; nothing at all.
        check(
            &[("email", &["ada@example.com"]), ("groups", &["Everyone"])],
            "ada@example.com",
            "",
            &["Everyone"],
        );
        check(
            &[
                ("urn:oid:0.9.2342.19200300.100.1.1", &["ada"]),
                ("urn:oid:2.16.840.1.113730.3.1.241", &["Ada"]),
            ],
            "ada",
            "Ada",
            &[],
        );
        check(&[], "0001", "", &[]);
    }

    #[test]
    fn what_a_connection_names_counts_and_nothing_else() {
        let spec = SamlSpec {
            username_attribute: Some("account".to_owned()),
            groups_attribute: Some("teams".to_owned()),
            ..spec()
        };
        let found = read(&spec, &said(&[("email", &["a@b"]), ("groups", &["owner"])])).expect("it is usable");
        assert_eq!(found.identity.username, "0001");
        assert!(found.identity.groups.is_empty());
    }

    #[test]
    fn people_are_the_same_only_if_all_of_their_name_is() {
        let subject = |change: &dyn Fn(&mut Identity)| {
            let mut saml = said(&[]);
            change(&mut saml);
            read(&spec(), &saml).map(|named| named.identity.subject)
        };
        let plain = subject(&|_| {}).expect("it is usable");
        // What a provider says or leaves out without another meaning.
        assert_eq!(
            subject(&|saml| {
                saml.name_id.name_qualifier = Some("https://idp.example".to_owned());
                saml.name_id.sp_name_qualifier = Some(HERE.to_owned());
            }),
            Ok(plain.clone())
        );
        let others: [&dyn Fn(&mut Identity); 4] = [
            &|saml| saml.name_id.value = "0001 ".to_owned(),
            &|saml| saml.name_id.format = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress".to_owned(),
            &|saml| saml.name_id.name_qualifier = Some("https://other.example".to_owned()),
            &|saml| saml.name_id.sp_name_qualifier = Some("https://other.example".to_owned()),
        ];
        for other in others {
            assert_ne!(subject(other), Ok(plain.clone()));
        }
        assert_eq!(
            subject(&|saml| saml.name_id.format = TRANSIENT.to_owned()),
            Err(Unusable::Transient)
        );
        assert_eq!(
            subject(&|saml| saml.name_id.value = "x".repeat(2000)),
            Err(Unusable::TooLong)
        );
        assert_eq!(
            subject(&|saml| saml.session_index = Some("x".repeat(513))),
            Err(Unusable::TooLong)
        );
    }

    #[test]
    fn a_subject_of_an_attribute_is_no_subject_of_a_name() {
        let spec = SamlSpec {
            subject_attribute: Some("oid".to_owned()),
            ..spec()
        };
        let mut saml = said(&[("oid", &["0001"])]);
        saml.name_id.format = TRANSIENT.to_owned();
        let found = read(&spec, &saml).expect("it is usable").identity;
        assert_eq!(found.subject, r#"{"attribute":"oid","value":"0001"}"#);
        for wrong in [&[][..], &["a", "b"][..], &[" "][..]] {
            let refused = read(&spec, &said(&[("oid", wrong)])).map(|_| ());
            assert_eq!(refused, Err(Unusable::NoSubject("oid".to_owned())));
        }
    }

    #[test]
    fn groups_that_entra_left_out_are_told() {
        let found = read(
            &spec(),
            &said(&[(GROUPS_ELSEWHERE, &["https://graph.example/groups"])]),
        );
        assert!(found.expect("it is usable").has_more_groups);
    }
}
