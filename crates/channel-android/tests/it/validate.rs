//! Checks a policy against the facts of `data/policy-schema.tsv`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

struct Property {
    kind: &'static str,
    is_deprecated: bool,
    values: Vec<&'static str>,
}

static SCHEMAS: LazyLock<BTreeMap<&str, BTreeMap<&str, Property>>> = LazyLock::new(|| {
    let mut schemas: BTreeMap<&str, BTreeMap<&str, Property>> = BTreeMap::new();
    for line in include_str!("../data/policy-schema.tsv").lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [schema, name, kind, deprecated, values, _] = columns[..] else {
            panic!("a row has six columns: {line}");
        };
        let property = Property {
            kind,
            is_deprecated: !deprecated.is_empty(),
            values: values.split(',').filter(|value| !value.is_empty()).collect(),
        };
        schemas.entry(schema).or_default().insert(name, property);
    }
    schemas
});

/// What is wrong with a value of a schema; empty where nothing is.
pub fn faults(schema: &str, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    object(schema, value, schema, &mut faults);
    faults
}

/// Whether a path such as `passwordPolicies[].passwordQuality` leads to a property.
pub fn is_property(path: &str) -> bool {
    let mut schema = "Policy";
    for name in path.split('.') {
        let name = name.trim_end_matches("[]");
        let Some(property) = SCHEMAS.get(schema).and_then(|schema| schema.get(name)) else {
            return false;
        };
        schema = property.kind.trim_matches(['[', ']']);
    }
    true
}

fn object(schema: &str, value: &Value, path: &str, faults: &mut Vec<String>) {
    let (Some(properties), Some(members)) = (SCHEMAS.get(schema), value.as_object()) else {
        faults.push(format!("{path}: no {schema}"));
        return;
    };
    for (name, member) in members {
        let path = format!("{path}.{name}");
        match properties.get(name.as_str()) {
            None => faults.push(format!("{path}: there is no such property")),
            Some(property) if property.is_deprecated => faults.push(format!("{path}: deprecated")),
            Some(property) => typed(property.kind, property, member, &path, faults),
        }
    }
}

fn typed(kind: &str, property: &Property, value: &Value, path: &str, faults: &mut Vec<String>) {
    if let Some(item) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
        let Some(items) = value.as_array() else {
            faults.push(format!("{path}: no list"));
            return;
        };
        for item_value in items {
            typed(item, property, item_value, path, faults);
        }
        return;
    }
    let is_seconds = |text: &str| {
        text.strip_suffix('s')
            .is_some_and(|seconds| seconds.parse::<u64>().is_ok())
    };
    let is_right = match kind {
        "string" => value.as_str().is_some_and(|text| {
            property.values.is_empty() || property.values.contains(&text) && !text.ends_with("_UNSPECIFIED")
        }),
        "string:int64" => value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()),
        "string:google-duration" => value.as_str().is_some_and(is_seconds),
        "integer:int32" => value
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok_and(|number| number >= 0)),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        schema => return object(schema, value, path, faults),
    };
    if !is_right {
        faults.push(format!("{path}: {value} is no {kind} that may stand there"));
    }
}

#[test]
fn the_facts_tell_good_from_bad() {
    let faults = |json: &str| faults("Policy", &serde_json::from_str(json).expect("it is JSON")).len();
    for good in [
        r#"{"maximumTimeToLock":"60000","passwordPolicies":[{"passwordQuality":"NUMERIC"}]}"#,
        r#"{"passwordPolicies":[{"passwordExpirationTimeout":"60s"}],"openNetworkConfiguration":{"a":1}}"#,
    ] {
        assert_eq!(faults(good), 0, "{good}");
    }
    for bad in [
        r#"{"maximumTimeToLock":60000}"#,
        r#"{"cameraDisabled":true}"#,
        r#"{"cameraAccess":"CAMERA_ACCESS_UNSPECIFIED"}"#,
        r#"{"cameraAccess":"NONE"}"#,
        r#"{"locationMode":"OFF"}"#,
        r#"{"applications":[{"installType":"KIOSK"}]}"#,
        r#"{"applications":{}}"#,
        r#"{"unknown":1}"#,
        r#"{"passwordPolicies":[{"passwordExpirationTimeout":60}]}"#,
        r#"{"passwordPolicies":[{"passwordMinimumLength":-1}]}"#,
    ] {
        assert_eq!(faults(bad), 1, "{bad}");
    }
    assert!(is_property("applications[].roles[].roleType") && !is_property("applications[].role"));
}
