//! What routes take in bodies: one that is good for each, and the same with an id in each of its texts.

use serde_json::{Value, json};

use crate::support::{
    furnish::Furnished,
    openapi::{Document, Leaf},
    routes,
};

/// Members whose text is for people, or a word, a time or an address elsewhere: no object of a tenant is found by it. Every other
/// text of every body is crossed.
const NO_IDS: &[&str] = &[
    // For people.
    "description",
    "note",
    "reason",
    "message",
    "text",
    "title",
    "meaning",
    "remedy",
    "phone",
    "label",
    "display_name",
    "signin_notice",
    "mail",
    "light",
    "dark",
    // Words of closed lists, and times.
    "type",
    "mode",
    "interpreter",
    "attestation",
    "models",
    "ownership",
    "platforms",
    "scopes",
    "scope",
    "actions",
    "devices_by",
    "opens_at",
    "closes_at",
    "expires_at",
    "starts_at",
    "ends_at",
    "weekly_until",
    "daily_at",
    "time",
    "valid_until",
    // Addresses and names at services of others, and what they call things.
    "jwks_uri",
    "issuer",
    "audience",
    "sso_url",
    "slo_url",
    "entity_id",
    "metadata",
    "certificates",
    "certificate",
    "url",
    "host",
    "from",
    "to",
    "heartbeat",
    "username",
    "name_id_format",
    "required_acr",
    "required_amr",
    "required_authn_contexts",
    "tid",
    "jwks",
    "jwks_url",
    "verdict",
    "verdicts",
    "risk",
    "risks",
    "detail",
    "observed_at",
    "device",
    "access_key_id",
    "bucket",
    "authority",
    "client_certificate",
    "directory",
    "index",
    "namespace",
    "prefix",
    "region",
    "sourcetype",
    "stream",
    "groups_attribute",
    "subject_attribute",
    "username_attribute",
    "display_name_attribute",
    "name_claim",
    "groups_claim",
    "introspection_endpoint",
    "introspection_client_id",
    "required_scope",
    "claim",
    "equals",
    "matches",
    "except",
    "only",
    // Secrets, signatures and code.
    "secret",
    "client_secret",
    "introspection_secret",
    "sig",
    "roots_pem",
    "endorsement_keys",
    "pcr_values",
    "arguments",
    "paths",
    "package",
    "expression",
    "question",
    "include",
    "exclude",
];

/// Good bodies, with the own tenant's ids in them.
pub struct Bodies {
    device: String,
    group: String,
    client: String,
    role: String,
    version: String,
    hook: String,
    saved: String,
    name: String,
}

/// One text of a body, with an id in it.
pub struct BodyCrossing<'a> {
    pub id: String,
    pub kind: String,
    pub body: Box<dyn Fn(&str) -> String + 'a>,
}

impl Bodies {
    pub fn new(own: &Furnished) -> Bodies {
        let of = |place: &str| own.of(place).unwrap_or_else(|missing| panic!("{missing}"));
        let hook = of("/api/v1/alert-destinations/{name}");
        Bodies {
            device: of("/api/v1/devices/{id}"),
            group: of("/api/v1/groups/{id}"),
            client: of("/api/v1/clients/{id}"),
            role: of("/api/v1/access/roles/{name}"),
            version: of("/api/v1/policies/{id}/versions/{version}"),
            saved: of("/api/v1/queries/{name}"),
            name: hook.trim_end_matches("-hook").to_owned(),
            hook,
        }
    }

    /// A body that a route of the API takes, where the schema alone does not say enough.
    fn known(&self, method: &str, path: &str) -> Option<Value> {
        let path = path.trim_start_matches("/api/v1");
        let question = json!({"question": "SELECT device_id FROM devices"});
        let target =
            json!({"devices": [self.device], "groups": [self.group], "exclude_groups": [self.group]});
        Some(match (method, path) {
            (_, "/settings/branding") => json!({
                "display_name": self.name, "signin_notice": "For staff.", "support": {"mail": "help@example.com"},
                "accent": {"light": "#0f5a69", "dark": "#6fc7d6"},
            }),
            // So much that nobody of the test meets it.
            (_, "/tenants/{id}/limits") => json!({"devices_max": 100_000, "people_max": 100_000}),
            (_, "/access/grants" | "/access/grants/revoke") => {
                json!({"role": self.role, "client": self.client})
            }
            (_, "/access/people/disable" | "/access/people/enable" | "/access/sessions/end") => {
                json!({"person": "nobody"})
            }
            (_, "/access/roles/{name}") => json!({"description": "reads", "scopes": ["log:read"]}),
            (_, "/access/connections/{name}") => json!({
                "definition": {"issuer": format!("https://{}.example", self.name), "client_id": self.name},
                "client_secret": "not-a-secret",
            }),
            (_, "/alert-destinations/{name}") => json!({
                "place": {"kind": "webhook", "url": "https://192.0.2.1/hook"},
                "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            }),
            (_, "/alert-rules/{name}") => json!({
                "title": "t", "severity": "warning", "when": {"expression": "policy_violation_increase_24h > 999999%"},
                "destinations": [self.hook],
                "escalation": [{"after_minutes": 10, "destinations": [self.hook]}],
            }),
            (_, "/alert-silences") => json!({
                "matcher": {"object": "nothing-*"}, "reason": "moving", "starts_at": "2098-12-31T00:00:00Z",
                "ends_at": "2099-01-01T00:00:00Z",
            }),
            (_, "/clients") => json!({"name": "crossed-client", "scopes": ["log:read"], "roles": []}),
            (_, "/clients/{id}/keys") => json!({"jwk": {
                "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            }}),
            (_, "/clients/{id}/jwks-uri") => json!({"jwks_uri": "https://192.0.2.1/jwks"}),
            (_, "/commands") => json!({"type": "lock", "devices": [self.device]}),
            (_, "/devices/{id}/commands") => json!({"type": "lock"}),
            (_, "/console-links") => json!({"person": "crossed-person", "roles": ["read_only"]}),
            (_, "/devices/{id}/labels") => json!({"labels": {"site": "north"}}),
            (_, "/devices/{id}/certificates/{serial}/revoke") => json!({"reason": "unspecified"}),
            (_, "/devices/{id}/quarantine-decision") => {
                json!({"decision": "merge", "continues": self.device})
            }
            (_, "/enrollment-tokens") => json!({"device_uuid": "6f1d1c1e-98a5-4b4a-9a0d-2f5b6f2f3f10"}),
            ("POST", "/groups") => json!({"name": "crossed-group", "include": "true"}),
            ("PATCH", "/groups/{id}") => json!({"name": format!("{}-group", self.name)}),
            (_, "/access/held-sign-ins/{reference}/decide") => json!({"decision": "refuse"}),
            // A document of nobody: the tenant's own answer says that it has one, or is not to be closed.
            (_, "/tenants/{id}/root" | "/tenants/{id}/close") => json!({
                "payloadType": "application/octet-stream", "payload": "AA==",
                "signatures": [{"keyid": "0".repeat(64), "sig": "AA=="}],
            }),
            (_, "/tenants/{id}/visits") => json!({"reason": "ticket 1", "role": "read_only", "minutes": 5}),
            (_, "/settings/operator-access") => json!({"mode": "never", "ceiling": "read_only"}),
            (_, "/operations/{id}/approvals") => json!({"keyid": "0".repeat(64), "sig": "AA=="}),
            (_, "/plan" | "/apply") => json!({"format": 1, "partial": true, "policies": [{
                "name": self.name, "active": {"version": self.version, "target": target},
            }]}),
            (
                _,
                "/policies/{id}/activate" | "/policies/{id}/activation-preview" | "/policies/{id}/what-if",
            ) => {
                json!({"version": self.version, "target": target})
            }
            (_, "/policies/{id}/versions") => {
                json!({"version": "2026.05", "settings": {"firewall.enabled": true}})
            }
            (_, "/queries/run" | "/query-refreshes") => json!({"saved": self.saved}),
            (_, "/queries/{name}") => question,
            (_, "/scim-tokens") => json!({"connector": "crossed-provider"}),
            (_, "/scripts") => json!({"name": "crossed", "interpreter": "sh", "text": "id"}),
            (_, "/secrets/{name}") => json!({"period_days": 30}),
            (_, "/signal-sources/{name}") => json!({"from": {"kind": "webhook", "authentication": "bearer"}}),
            (_, "/sinks/{name}") => json!({
                "place": {"kind": "elastic", "url": "https://192.0.2.1:9200"}, "secret": "VnVhQ2ZHY0JDZGJrUW0=",
            }),
            (_, "/sinks/{name}/replay") => json!({"from": "beginning"}),
            (_, "/trusts/{name}") => json!({"definition": {"workload": {
                "issuer": "https://crossed.example", "audience": "muster", "client_id": self.client, "scopes": ["log:read"],
                "conditions": [{"claim": "sub", "equals": "build"}],
            }}}),
            _ => return None,
        })
    }

    /// A body that a route of the API takes, and its media type.
    pub fn plain(&self, document: &Document, method: &str, path: &str) -> Option<(String, String)> {
        let route = routes::all()
            .into_iter()
            .find(|route| route.method == method && route.path == path)?;
        let (kind, schema) = document
            .body(&route)
            .unwrap_or(("application/json", &Value::Null));
        let body = match kind {
            "application/json" if schema.is_null() => "{}".to_owned(),
            "application/json" => self
                .known(method, path)
                .unwrap_or_else(|| document.sample(schema, ""))
                .to_string(),
            "application/zip" => "PK".to_owned(),
            _ => self.table(path, &self.device),
        };
        Some((body, kind.to_owned()))
    }

    /// A table (CSV) with this device's id in it.
    fn table(&self, path: &str, id: &str) -> String {
        match path {
            "/api/v1/labels/import" => format!("device,site\n{},north\n{id},north\n", self.device),
            "/api/v1/enrollment-tokens/bulk" => format!("device_uuid,serial\n{},{id}\n", uuid::Uuid::nil()),
            _ => String::new(),
        }
    }

    /// Every text of a route's body that may be an id, with each id of the other tenant.
    pub fn crossings<'a>(
        &'a self,
        document: &'a Document,
        method: &'a str,
        path: &'a str,
        foreign: &'a Furnished,
    ) -> Result<Vec<(String, BodyCrossing<'a>)>, String> {
        let route = routes::all()
            .into_iter()
            .find(|route| route.method == method && route.path == path)
            .expect("rows of the API come from the table");
        let Some((kind, schema)) = document.body(&route) else {
            return Ok(Vec::new());
        };
        let mut made = Vec::new();
        if kind == "text/csv" {
            if self.table(path, "").is_empty() {
                return Err(
                    "it takes a table: give it one with an id in it in `Bodies::table` \
                     (crates/muster/tests/it/isolation/bodies.rs)"
                        .to_owned(),
                );
            }
            for (of, id) in foreign.ids() {
                let crossing = BodyCrossing {
                    id: id.to_owned(),
                    kind: kind.to_owned(),
                    body: Box::new(move |id| self.table(path, id)),
                };
                made.push((format!("a table that names {of}"), crossing));
            }
        }
        if kind != "application/json" {
            return Ok(made);
        }
        let base = self.known(method, path);
        let leaves: Vec<Leaf> = document
            .leaves(schema)
            .into_iter()
            .filter(|leaf| !NO_IDS.contains(&leaf.name.as_str()))
            .collect();
        for leaf in leaves {
            for (of, id) in foreign.kinds() {
                let (base, steps) = (base.clone(), leaf.steps.clone());
                let crossing = BodyCrossing {
                    id: id.to_owned(),
                    kind: kind.to_owned(),
                    body: Box::new(move |id| {
                        document
                            .with(schema, &steps, base.as_ref(), &json!(id))
                            .to_string()
                    }),
                };
                made.push((format!("{} = the id of {of}", leaf.path), crossing));
            }
        }
        Ok(made)
    }

    /// What SCIM takes where the id is in the path.
    pub fn scim(method: &str, path: &str) -> String {
        let urn = if path.contains("/Groups") { "Group" } else { "User" };
        let schema = format!("urn:ietf:params:scim:schemas:core:2.0:{urn}");
        match method {
            "PATCH" => json!({
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
                "Operations": [{"op": "replace", "path": "displayName", "value": "Other"}],
            }),
            _ => json!({"schemas": [schema], "userName": "other@example.com", "displayName": "Other"}),
        }
        .to_string()
    }

    /// Where SCIM takes ids beside its paths, `ID` in the place of each: what it is, the method, the path and the body.
    pub fn scim_crossings(team: &str) -> Vec<(String, &'static str, String, String)> {
        let urn = |kind: &str| format!("urn:ietf:params:scim:schemas:core:2.0:{kind}");
        let message = |kind: &str| format!("urn:ietf:params:scim:api:messages:2.0:{kind}");
        let get = |filter: &str| {
            let (kind, filter) = filter.split_once(' ').expect("a kind and a filter");
            let query = filter
                .replace(' ', "%20")
                .replace('"', "%22")
                .replace('[', "%5B")
                .replace(']', "%5D");
            let path = format!("/{kind}?filter={query}");
            (format!("GET /{kind} where {filter}"), "GET", path, String::new())
        };
        let patch = |path: &str, value: Value| {
            let operation = json!({"op": "add", "path": path, "value": value});
            let body = json!({"schemas": [message("PatchOp")], "Operations": [operation]});
            let what = format!("PATCH of the own group's {path}");
            (what, "PATCH", format!("/Groups/{team}"), body.to_string())
        };
        let bulk = |method: &str, path: &str| {
            let mut operation = json!({"method": method, "path": path, "bulkId": "b"});
            if method != "DELETE" {
                let kind = if path.starts_with("/Groups") {
                    "Groups/x"
                } else {
                    "Users/x"
                };
                operation["data"] = serde_json::from_str(&Bodies::scim(method, kind)).expect("it is JSON");
            }
            let body = json!({"schemas": [message("BulkRequest")], "Operations": [operation]});
            (
                format!("bulk {method} of {path}"),
                "POST",
                "/Bulk".to_owned(),
                body.to_string(),
            )
        };
        let search = json!({"schemas": [message("SearchRequest")], "filter": "id eq \"ID\""}).to_string();
        let user = json!({"schemas": [urn("User")], "userName": "ID", "externalId": "ID"}).to_string();
        let group =
            json!({"schemas": [urn("Group")], "displayName": "crossed", "members": [{"value": "ID"}]});
        let create = |kind: &str, body: String| (format!("POST /{kind}"), "POST", format!("/{kind}"), body);
        vec![
            get("Users id eq \"ID\""),
            get("Users userName eq \"ID\""),
            get("Users externalId eq \"ID\""),
            get("Groups id eq \"ID\""),
            get("Groups displayName eq \"ID\""),
            get("Groups members.value eq \"ID\""),
            patch("members", json!([{"value": "ID"}])),
            bulk("DELETE", "/Users/ID"),
            bulk("DELETE", "/Groups/ID"),
            bulk("PUT", "/Users/ID"),
            bulk("PATCH", "/Groups/ID"),
            (
                "POST /Users/.search".to_owned(),
                "POST",
                "/Users/.search".to_owned(),
                search.clone(),
            ),
            ("POST /.search".to_owned(), "POST", "/.search".to_owned(), search),
            create("Users", user),
            create("Groups", group.to_string()),
        ]
    }
}
