//! Stored people and groups as SCIM answers them.

use muster_model::{ClientId, Timestamp};
use muster_scim::{ENTERPRISE_USER, GROUP, Resource, USER};
use serde_json::{Map, Value, json};

use super::{Team, User, teams, teams::MemberRow};

/// A version as in ETag. It is weak: what is answered depends on what was asked for.
pub fn tag(version: i64) -> String {
    format!("W/\"{version}\"")
}

/// Who asks, and at which address.
#[derive(Debug, Clone)]
pub struct Asker {
    pub connector: ClientId,
    /// Of `/scim/v2`, without a final slash.
    pub base: String,
}

fn meta(kind: &str, location: String, version: i64, created: Timestamp, changed: Timestamp) -> Value {
    json!({
        "resourceType": kind, "created": created.to_string(), "lastModified": changed.to_string(), "location": location,
        "version": tag(version),
    })
}

impl Asker {
    /// Where a person is.
    pub fn user_location(&self, user: &User) -> String {
        format!("{}/Users/{}", self.base, user.id)
    }

    /// Where a group is.
    pub fn team_location(&self, team: &Team) -> String {
        format!("{}/Groups/{}", self.base, team.id)
    }

    /// A person, without the groups.
    pub fn user(&self, user: &User) -> Resource {
        let mut shown = user.resource.clone();
        let mut schemas = vec![USER.id];
        if shown.contains_key(ENTERPRISE_USER.id) {
            schemas.push(ENTERPRISE_USER.id);
        }
        shown.insert("schemas".to_owned(), json!(schemas));
        shown.insert("id".to_owned(), user.id.to_string().into());
        self.put_external_id(&mut shown, user.connector, user.external_id.as_deref());
        let location = self.user_location(user);
        let meta = meta("User", location, user.version, user.created_at, user.updated_at);
        shown.insert("meta".to_owned(), meta);
        shown
    }

    /// The groups of a person: those that list the person come first.
    pub fn groups(&self, all: &[Team], direct: usize) -> Value {
        let one = |(at, team): (usize, &Team)| {
            json!({
                "value": team.id, "$ref": self.team_location(team), "display": team.display_name,
                "type": if at < direct { "direct" } else { "indirect" },
            })
        };
        all.iter().enumerate().map(one).collect()
    }

    /// A group, without its members.
    pub fn team(&self, team: &Team) -> Resource {
        let mut shown = Map::new();
        shown.insert("schemas".to_owned(), json!([GROUP.id]));
        shown.insert("id".to_owned(), team.id.to_string().into());
        shown.insert("displayName".to_owned(), team.display_name.clone().into());
        self.put_external_id(&mut shown, team.connector, team.external_id.as_deref());
        let location = self.team_location(team);
        let meta = meta("Group", location, team.version, team.created_at, team.updated_at);
        shown.insert("meta".to_owned(), meta);
        shown
    }

    /// An external id is between the server and the client that gave it (RFC 7643, section 3.1).
    fn put_external_id(&self, shown: &mut Resource, connector: ClientId, external_id: Option<&str>) {
        if let Some(external_id) = external_id.filter(|_| connector == self.connector) {
            shown.insert("externalId".to_owned(), external_id.into());
        }
    }
}

/// A member of a group, with the name for people where that is wanted.
pub fn member(base: &str, row: &MemberRow, is_named: bool) -> Value {
    let id = teams::member_id((row.id, row.is_group));
    let (kind, path) = if row.is_group {
        ("Group", "Groups")
    } else {
        ("User", "Users")
    };
    let mut shown = Map::new();
    shown.insert("$ref".to_owned(), format!("{base}/{path}/{id}").into());
    shown.insert("value".to_owned(), id.into());
    shown.insert("type".to_owned(), kind.into());
    if let Some(display) = row.display.as_ref().filter(|_| is_named) {
        shown.insert("display".to_owned(), display.clone().into());
    }
    Value::Object(shown)
}
