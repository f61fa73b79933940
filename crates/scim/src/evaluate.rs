//! What a filter says of a resource, and how resources are ordered.

use std::{cmp::Ordering, str::FromStr};

use muster_model::Timestamp;
use serde_json::{Map, Value};

use crate::{
    filter::{Condition, Filter, Literal, Operator},
    path::Target,
    schema::{Attribute, Kind},
};

/// Whether the filter is true of a resource, or of one value of an attribute.
pub fn matches(filter: &Filter, of: &Map<String, Value>) -> bool {
    match filter {
        Filter::Present(target) => values(target, of).iter().any(|value| is_present(value)),
        Filter::Not(inner) => !matches(inner, of),
        Filter::And(all) => all.iter().all(|one| matches(one, of)),
        Filter::Or(any) => any.iter().any(|one| matches(one, of)),
        Filter::Any { target, filter } => values(target, of)
            .iter()
            .filter_map(|value| value.as_object())
            .any(|value| matches(filter, value)),
        Filter::Compare(condition) => holds(condition, of),
    }
}

fn holds(condition: &Condition, of: &Map<String, Value>) -> bool {
    let values = values(&condition.target, of);
    let leaf = condition.target.leaf();
    let equals = |value: &&Value| is(leaf, value, Operator::Equal, &condition.literal);
    match (condition.operator, &condition.literal) {
        (Operator::Equal, Literal::Null) => !values.iter().any(|value| is_present(value)),
        (Operator::NotEqual, Literal::Null) => values.iter().any(|value| is_present(value)),
        (Operator::NotEqual, _) => !values.iter().any(equals),
        (operator, literal) => values.iter().any(|value| is(leaf, value, operator, literal)),
    }
}

fn is(leaf: &Attribute, value: &Value, operator: Operator, literal: &Literal) -> bool {
    match (value, literal) {
        (Value::Bool(held), Literal::Bool(wanted)) => held == wanted,
        (Value::String(held), Literal::Text(wanted)) if leaf.kind == Kind::DateTime => {
            let times = (Timestamp::from_str(held), Timestamp::from_str(wanted));
            match times {
                (Ok(held), Ok(wanted)) => ordered(operator, held.cmp(&wanted)).unwrap_or(false),
                _ => text_is(held, operator, wanted),
            }
        }
        (Value::String(held), Literal::Text(wanted)) if leaf.is_case_exact => text_is(held, operator, wanted),
        (Value::String(held), Literal::Text(wanted)) => {
            text_is(&held.to_lowercase(), operator, &wanted.to_lowercase())
        }
        _ => false,
    }
}

fn text_is(held: &str, operator: Operator, wanted: &str) -> bool {
    match operator {
        Operator::Contains => held.contains(wanted),
        Operator::StartsWith => held.starts_with(wanted),
        Operator::EndsWith => held.ends_with(wanted),
        other => ordered(other, held.cmp(wanted)).unwrap_or(false),
    }
}

fn ordered(operator: Operator, order: Ordering) -> Option<bool> {
    match operator {
        Operator::Equal => Some(order.is_eq()),
        Operator::NotEqual => Some(order.is_ne()),
        Operator::Greater => Some(order.is_gt()),
        Operator::GreaterOrEqual => Some(order.is_ge()),
        Operator::Less => Some(order.is_lt()),
        Operator::LessOrEqual => Some(order.is_le()),
        Operator::Contains | Operator::StartsWith | Operator::EndsWith => None,
    }
}

fn is_present(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The values that a target means, each of several.
fn values<'v>(target: &Target, of: &'v Map<String, Value>) -> Vec<&'v Value> {
    let holder = match target.extension {
        Some(schema) => of.get(schema.id).and_then(Value::as_object),
        None => Some(of),
    };
    let Some(value) = holder.and_then(|holder| holder.get(target.attribute.name)) else {
        return Vec::new();
    };
    let items: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        one => vec![one],
    };
    match target.sub {
        None => items,
        Some(sub) => items.into_iter().filter_map(|item| item.get(sub.name)).collect(),
    }
}

/// By what a resource is ordered (RFC 7644, section 3.4.2.3): the first or primary value; nothing comes last.
pub fn compare_by(target: &Target, of: &Map<String, Value>) -> Option<String> {
    let preferred = |value: &Value| {
        let items = value.as_array()?;
        let primary = items.iter().find(|item| item["primary"] == Value::Bool(true));
        primary.or(items.first()).cloned()
    };
    let holder = match target.extension {
        Some(schema) => of.get(schema.id)?.as_object()?,
        None => of,
    };
    let value = holder.get(target.attribute.name)?;
    let value = preferred(value).unwrap_or_else(|| value.clone());
    let leaf = target.sub.or_else(|| target.attribute.sub("value"));
    let value = match leaf {
        Some(sub) => value.get(sub.name)?.clone(),
        None => value,
    };
    let is_exact = leaf.unwrap_or(target.attribute).is_case_exact;
    match value {
        Value::String(text) if is_exact => Some(text),
        Value::String(text) => Some(text.to_lowercase()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}
