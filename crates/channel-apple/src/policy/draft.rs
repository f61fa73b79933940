//! What the settings write into: payloads and declarations by type, and the names of what was written.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::{
    compile::Artifact,
    settings::{SettingValue, Settings},
};
use serde_json::{Map, json};
use uuid::Uuid;

use super::{ApplePlatform, AppleTarget};
use crate::{
    identity::{derive, hex_sha256},
    plist::{self, Dict, Value, dict},
};

/// Name and media type of the profile.
const PROFILE: (&str, &str) = ("policy.mobileconfig", "application/x-apple-aspen-config");
/// Name and media type of the list of declarations.
const DECLARATIONS: (&str, &str) = ("declarations.json", "application/json");
/// The version of the format of profiles and payloads.
const PAYLOAD_VERSION: i64 = 1;
const ACTIVATION: &str = "com.apple.activation.simple";

/// A payload or declaration: its type, and what tells several of one type apart.
type Place = (&'static str, String);

/// Everything written so far.
pub(super) struct Draft<'t> {
    pub target: &'t AppleTarget,
    settings: &'t Settings,
    payloads: BTreeMap<Place, Dict>,
    declarations: BTreeMap<Place, Map<String, serde_json::Value>>,
    carriers: BTreeSet<String>,
}

impl<'t> Draft<'t> {
    pub fn new(settings: &'t Settings, target: &'t AppleTarget) -> Draft<'t> {
        Draft {
            target,
            settings,
            payloads: BTreeMap::new(),
            declarations: BTreeMap::new(),
            carriers: BTreeSet::new(),
        }
    }

    pub fn is_mac(&self) -> bool {
        self.target.platform == ApplePlatform::Macos
    }

    /// Another setting of the policy.
    pub fn setting(&self, key: &str) -> Option<&'t SettingValue> {
        self.settings.get(key)
    }

    /// Writes a key of the one payload of a type.
    pub fn put(&mut self, payload: &'static str, key: &str, value: impl Into<Value>) {
        self.put_in(payload, "", key, value);
    }

    /// Writes a key of one of several payloads of a type.
    pub fn put_in(&mut self, payload: &'static str, instance: &str, key: &str, value: impl Into<Value>) {
        self.carriers.insert(format!("{payload}:{key}"));
        let members = self.payloads.entry((payload, instance.to_owned())).or_default();
        let (value, old) = (value.into(), members.get(key));
        debug_assert!(
            old.is_none_or(|old| *old == value),
            "two settings write {payload}:{key}"
        );
        members.insert(key.to_owned(), value);
    }

    /// The UUID of a payload, to name it in another one.
    pub fn payload_uuid(&self, payload: &str, instance: &str) -> String {
        uuid_text(derive(self.target.seed, &["payload", payload, instance]))
    }

    /// A UUID that follows from the seed and a name.
    pub fn derived(&self, purpose: &str, name: &str) -> Uuid {
        derive(self.target.seed, &[purpose, name])
    }

    /// Writes a member of the one declaration of a type; `path` has one or two names.
    pub fn declare(&mut self, declaration: &'static str, path: &[&str], value: serde_json::Value) {
        self.declare_in(declaration, "", path, value);
    }

    /// Writes a member of one of several declarations of a type.
    pub fn declare_in(
        &mut self,
        declaration: &'static str,
        instance: &str,
        path: &[&str],
        value: serde_json::Value,
    ) {
        self.carriers.insert(format!("{declaration}:{}", path.join(".")));
        let mut members = self
            .declarations
            .entry((declaration, instance.to_owned()))
            .or_default();
        let Some((last, outer)) = path.split_last() else {
            return;
        };
        for name in outer {
            let inner = members.entry(*name).or_insert_with(|| json!({}));
            members = inner.as_object_mut().expect("a name holds an object or a value");
        }
        members.insert((*last).to_owned(), value);
    }

    /// The names of what was written since the last call.
    pub fn take_carriers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.carriers).into_iter().collect()
    }

    /// The files.
    pub fn finish(self) -> Vec<Artifact> {
        let profile = (!self.payloads.is_empty()).then(|| artifact(PROFILE, self.profile()));
        let declarations =
            (!self.declarations.is_empty()).then(|| artifact(DECLARATIONS, self.declarations()));
        profile.into_iter().chain(declarations).collect()
    }

    fn profile(&self) -> Vec<u8> {
        let target = self.target;
        let payload = |((kind, instance), members): (&Place, &Dict)| {
            let uuid = self.payload_uuid(kind, instance);
            let name = match instance.as_str() {
                "" => format!("{}.{kind}", target.identifier_prefix),
                _ => format!("{}.{kind}.{uuid}", target.identifier_prefix),
            };
            let mut payload = common(target, kind, name, uuid);
            payload.extend(members.clone());
            Value::Dict(payload)
        };
        let payloads = self.payloads.iter().map(payload).collect();
        let name = format!("{}.policy", target.identifier_prefix);
        let uuid = uuid_text(derive(target.seed, &["profile"]));
        let mut profile = common(target, "Configuration", name, uuid);
        profile.insert("PayloadContent".to_owned(), Value::Array(payloads));
        if self.is_mac() {
            profile.insert("PayloadScope".to_owned(), "System".into());
        }
        plist::write(&profile)
    }

    fn declarations(&self) -> Vec<u8> {
        let mut all: Vec<serde_json::Value> = self
            .declarations
            .iter()
            .map(|((kind, instance), members)| self.declaration(kind, instance, members))
            .collect();
        let identifiers: Vec<_> = all.iter().map(|one| one["Identifier"].clone()).collect();
        let mut activation = Map::new();
        activation.insert("StandardConfigurations".to_owned(), identifiers.into());
        all.push(self.declaration(ACTIVATION, "", &activation));
        let mut bytes = serde_json::to_vec_pretty(&all).expect("texts, numbers and truths are JSON");
        bytes.push(b'\n');
        bytes
    }

    /// `ServerToken` is the payload's digest: it changes when and only when the payload does.
    fn declaration(
        &self,
        kind: &str,
        instance: &str,
        payload: &Map<String, serde_json::Value>,
    ) -> serde_json::Value {
        let bytes = serde_json::to_vec(payload).expect("texts, numbers and truths are JSON");
        json!({
            "Type": kind,
            "Identifier": uuid_text(derive(self.target.seed, &["declaration", kind, instance])),
            "ServerToken": hex_sha256(&bytes),
            "Payload": payload,
        })
    }
}

fn artifact((name, media_type): (&str, &'static str), bytes: Vec<u8>) -> Artifact {
    Artifact {
        name: name.to_owned(),
        media_type,
        bytes,
    }
}

fn common(target: &AppleTarget, kind: &str, identifier: String, uuid: String) -> Dict {
    dict([
        ("PayloadType", kind.into()),
        ("PayloadVersion", PAYLOAD_VERSION.into()),
        ("PayloadIdentifier", identifier.into()),
        ("PayloadUUID", uuid.into()),
        ("PayloadDisplayName", "Device policy".into()),
        ("PayloadOrganization", target.organization.as_str().into()),
    ])
}

fn uuid_text(uuid: Uuid) -> String {
    uuid.to_string().to_uppercase()
}
