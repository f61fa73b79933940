//! The OpenAPI document that is checked in, as far as tests make requests of it: parameters, and bodies that fit their schema.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::routes::Route;

const CHECKED_IN: &str = include_str!("../../../../../openapi/admin.json");
/// How deep a body is followed.
const DEPTH_MAX: usize = 24;

pub struct Document(Value);

/// A parameter of the query.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub name: String,
    pub required: bool,
    pub schema: Value,
}

/// One step from a schema to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Property(String),
    /// An alternative of `oneOf`, `anyOf` or `allOf`.
    Variant(usize),
    /// A member of a list, beside those that are there already.
    Item,
    /// The value of a key that is free.
    Value,
}

/// The way to a text in a body.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub steps: Vec<Step>,
    /// As people write it: `.target.devices[]`.
    pub path: String,
    /// The last name on the way.
    pub name: String,
}

impl Document {
    pub fn checked_in() -> Document {
        Document(serde_json::from_str(CHECKED_IN).expect("openapi/admin.json is JSON"))
    }

    fn operation(&self, route: &Route) -> &Value {
        &self.0["paths"][route.path][route.method.to_ascii_lowercase()]
    }

    pub fn query(&self, route: &Route) -> Vec<Parameter> {
        let parameters = self.operation(route)["parameters"].as_array();
        let of_query = parameters
            .into_iter()
            .flatten()
            .filter(|found| found["in"] == "query");
        of_query
            .map(|found| Parameter {
                name: found["name"].as_str().expect("a parameter has a name").to_owned(),
                required: found["required"] == true,
                schema: found["schema"].clone(),
            })
            .collect()
    }

    /// The media type of a route's body, and its schema.
    pub fn body(&self, route: &Route) -> Option<(&str, &Value)> {
        let content = self.operation(route)["requestBody"]["content"].as_object()?;
        let (kind, body) = content.iter().next()?;
        Some((kind, &body["schema"]))
    }

    fn at<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => {
                let name = name.rsplit('/').next().expect("a reference has a name");
                self.at(&self.0["components"]["schemas"][name])
            }
            None => schema,
        }
    }

    /// Every text in a body, wherever it may be.
    pub fn leaves(&self, schema: &Value) -> Vec<Leaf> {
        let mut found = Vec::new();
        let start = Leaf {
            steps: Vec::new(),
            path: String::new(),
            name: String::new(),
        };
        self.walk(schema, &start, &mut BTreeSet::new(), &mut found);
        found
    }

    fn walk<'a>(
        &'a self,
        schema: &'a Value,
        leaf: &Leaf,
        above: &mut BTreeSet<&'a str>,
        found: &mut Vec<Leaf>,
    ) {
        let go = |step: Step, path: &str, name: Option<&str>| Leaf {
            steps: leaf.steps.iter().cloned().chain([step]).collect(),
            path: format!("{}{path}", leaf.path),
            name: name.map_or_else(|| leaf.name.clone(), ToOwned::to_owned),
        };
        let name = schema["$ref"].as_str();
        if leaf.steps.len() > DEPTH_MAX || name.is_some_and(|name| !above.insert(name)) {
            return;
        }
        let schema = self.at(schema);
        let alternatives = ["oneOf", "anyOf", "allOf"].map(|word| schema[word].as_array());
        for (index, variant) in alternatives.into_iter().flatten().flatten().enumerate() {
            self.walk(variant, &go(Step::Variant(index), "", None), above, found);
        }
        for (property, inner) in schema["properties"].as_object().into_iter().flatten() {
            let step = Step::Property(property.clone());
            self.walk(
                inner,
                &go(step, &format!(".{property}"), Some(property)),
                above,
                found,
            );
        }
        if schema["items"].is_object() {
            self.walk(&schema["items"], &go(Step::Item, "[]", None), above, found);
        }
        if schema["additionalProperties"].is_object() {
            let values = &schema["additionalProperties"];
            self.walk(values, &go(Step::Value, "{}", None), above, found);
        }
        if is_of_type(schema, "string") && schema["enum"].is_null() && schema["const"].is_null() {
            found.push(leaf.clone());
        }
        if let Some(name) = name {
            above.remove(name);
        }
    }

    /// Where a body has objects whose members the schema names, as pointers (RFC 6901), with these names.
    pub fn closed_objects<'a>(&'a self, schema: &'a Value, body: &Value) -> Vec<(String, BTreeSet<&'a str>)> {
        let mut found = Vec::new();
        self.close(schema, body, "", &mut found);
        found
    }

    fn close<'a>(
        &'a self,
        schema: &'a Value,
        body: &Value,
        pointer: &str,
        found: &mut Vec<(String, BTreeSet<&'a str>)>,
    ) {
        let schema = self.at(schema);
        for variant in ["oneOf", "anyOf"]
            .iter()
            .filter_map(|word| schema[word].as_array())
        {
            if let Some(variant) = variant.iter().find(|variant| self.fits(variant, body)) {
                self.close(variant, body, pointer, found);
            }
        }
        let properties = schema["properties"].as_object();
        if let (Some(body), Some(properties)) = (body.as_object(), properties) {
            if !schema["additionalProperties"].is_object() {
                found.push((
                    pointer.to_owned(),
                    properties.keys().map(String::as_str).collect(),
                ));
            }
            for (name, inner) in body {
                if let Some(schema) = properties.get(name) {
                    self.close(schema, inner, &format!("{pointer}/{name}"), found);
                }
            }
        }
        for (place, inner) in body.as_array().into_iter().flatten().enumerate() {
            self.close(&schema["items"], inner, &format!("{pointer}/{place}"), found);
        }
    }

    /// A body like `base` with `value` at the end of these steps.
    pub fn with(&self, schema: &Value, steps: &[Step], base: Option<&Value>, value: &Value) -> Value {
        let schema = self.at(schema);
        let Some((step, rest)) = steps.split_first() else {
            return value.clone();
        };
        let base = base.filter(|base| !base.is_null());
        match step {
            Step::Variant(index) => {
                let words = ["oneOf", "anyOf", "allOf"].map(|word| schema[word].as_array());
                let variants: Vec<&Value> = words.into_iter().flatten().flatten().collect();
                let variant = variants[*index];
                // What is there is of this alternative only if it has what the alternative must have.
                let fits = base.filter(|base| self.fits(variant, base));
                let part = self.with(variant, rest, fits, value);
                if schema["allOf"].is_null() {
                    return part;
                }
                // One of several parts of the same object.
                let mut whole = base.cloned().unwrap_or_else(|| self.sample(schema, ""));
                if let (Some(whole), Some(part)) = (whole.as_object_mut(), part.as_object()) {
                    whole.extend(part.clone());
                }
                whole
            }
            Step::Property(name) => {
                let mut object = base
                    .and_then(Value::as_object)
                    .cloned()
                    .or_else(|| self.sample(schema, "").as_object().cloned())
                    .unwrap_or_default();
                let inner = self.with(&schema["properties"][name], rest, object.get(name), value);
                object.insert(name.clone(), inner);
                Value::Object(object)
            }
            Step::Item => {
                let mut list = base.and_then(Value::as_array).cloned().unwrap_or_default();
                // A member that is there is changed; a plain text is put beside the others.
                let is_text = rest.is_empty();
                let first = if is_text || list.is_empty() {
                    None
                } else {
                    Some(list.remove(0))
                };
                list.push(self.with(&schema["items"], rest, first.as_ref(), value));
                Value::Array(list)
            }
            Step::Value => json!({"key": self.with(&schema["additionalProperties"], rest, None, value)}),
        }
    }

    fn fits(&self, variant: &Value, base: &Value) -> bool {
        let variant = self.at(variant);
        let required = variant["required"].as_array().into_iter().flatten();
        let has_all = required
            .filter_map(Value::as_str)
            .all(|name| base.get(name).is_some());
        let known = variant["properties"].as_object();
        let is_known = |name: &String| known.is_none_or(|known| known.contains_key(name));
        let constants = known.into_iter().flatten().all(|(name, inner)| {
            let words = inner["enum"].as_array();
            words.is_none_or(|words| base.get(name).is_none_or(|value| words.contains(value)))
        });
        has_all && constants && base.as_object().is_none_or(|base| base.keys().all(is_known))
    }

    /// The smallest body that fits a schema, as far as the schema says.
    pub fn sample(&self, schema: &Value, name: &str) -> Value {
        let schema = self.at(schema);
        let given = [&schema["example"], &schema["const"], &schema["enum"][0]];
        if let Some(given) = given.into_iter().find(|given| !given.is_null()) {
            return given.clone();
        }
        for word in ["oneOf", "anyOf"] {
            let variants = schema[word].as_array();
            let variant = variants.and_then(|all| all.iter().find(|one| one["type"] != "null"));
            if let Some(variant) = variant {
                return self.sample(variant, name);
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let mut whole = Map::new();
            for part in parts {
                whole.extend(self.sample(part, name).as_object().cloned().unwrap_or_default());
            }
            return Value::Object(whole);
        }
        if is_of_type(schema, "object") || schema["properties"].is_object() {
            let required = schema["required"].as_array().into_iter().flatten();
            let members = required.filter_map(Value::as_str).map(|member| {
                let inner = self.sample(&schema["properties"][member], member);
                (member.to_owned(), inner)
            });
            return Value::Object(members.collect());
        }
        if is_of_type(schema, "array") {
            return json!([]);
        }
        if is_of_type(schema, "integer") || is_of_type(schema, "number") {
            return schema.get("minimum").cloned().unwrap_or(json!(1));
        }
        if is_of_type(schema, "boolean") {
            return json!(false);
        }
        json!(sample_text(name))
    }

    /// Something that a parameter of the query takes.
    pub fn sample_of(&self, parameter: &Parameter) -> String {
        match self.sample(&parameter.schema, &parameter.name) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }
}

/// A text that a member or parameter of this name takes.
fn sample_text(name: &str) -> &'static str {
    match name {
        "at" | "until" | "ends_at" | "expires_at" => "2098-01-01T00:00:00Z",
        "since" | "starts_at" | "time" => "2026-01-01T00:00:00Z",
        "from" => "-1h",
        "url" | "jwks_uri" => "https://192.0.2.1/x",
        "metric" => "cpu_used_ratio",
        "object" => "policy:none",
        "platform" => "macos",
        "device_uuid" => "6f1d1c1e-98a5-4b4a-9a0d-2f5b6f2f3f10",
        "version" => "2026.05",
        "include" => "true",
        _ => "sample",
    }
}

pub fn is_of_type(schema: &Value, wanted: &str) -> bool {
    match &schema["type"] {
        Value::String(word) => word == wanted,
        Value::Array(words) => words.iter().any(|word| word == wanted),
        _ => false,
    }
}
