//! What a list is asked for, in the URL or in a search request (RFC 7644, sections 3.4.2 and 3.4.3; RFC 9865).

use serde_json::Value;

use crate::{
    error::{ScimError, ScimType, syntax, value},
    project::Projection,
};

/// The URN of a search request.
pub const SEARCH_URN: &str = "urn:ietf:params:scim:api:messages:2.0:SearchRequest";
/// Resources on one page.
pub const COUNT_MAX: usize = 1000;
const COUNT: usize = 100;

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// A question for a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// As sent: each resource type reads it for itself.
    pub filter: Option<String>,
    /// The first is 1.
    pub start_index: usize,
    /// At most [`COUNT_MAX`]; 0 asks for the total alone.
    pub count: usize,
    /// Empty asks for the first page.
    pub cursor: Option<String>,
    pub sort_by: Option<String>,
    pub order: Order,
    pub projection: Projection,
}

impl Query {
    /// Reads the parameters of a URL, as (name, value) in their order.
    pub fn of_url(pairs: &[(String, String)]) -> Result<Query, ScimError> {
        let mut raw = Raw::default();
        for (name, text) in pairs {
            raw.put(name, Value::String(text.clone()))?;
        }
        raw.query()
    }

    /// Reads a search request.
    pub fn of_search(sent: Value) -> Result<Query, ScimError> {
        let Value::Object(members) = sent else {
            return Err(syntax("A search request is a JSON object."));
        };
        let mut raw = Raw::default();
        for (name, member) in members {
            raw.put(&name, member)?;
        }
        match raw.is_search {
            true => raw.query(),
            false => Err(syntax(format!(
                "schemas is missing, or does not name {SEARCH_URN}."
            ))),
        }
    }
}

#[derive(Default)]
struct Raw {
    filter: Option<String>,
    start_index: Option<i64>,
    count: Option<i64>,
    cursor: Option<String>,
    sort_by: Option<String>,
    order: Option<String>,
    attributes: Vec<String>,
    excluded: Vec<String>,
    is_search: bool,
}

impl Raw {
    fn put(&mut self, name: &str, sent: Value) -> Result<(), ScimError> {
        match name.to_ascii_lowercase().as_str() {
            "filter" => self.filter = Some(text("filter", sent)?).filter(|text| !text.trim().is_empty()),
            "startindex" => self.start_index = Some(number("startIndex", &sent)?),
            "count" => self.count = Some(number("count", &sent)?),
            "cursor" => self.cursor = Some(text("cursor", sent)?),
            "sortby" => self.sort_by = Some(text("sortBy", sent)?).filter(|text| !text.is_empty()),
            "sortorder" => self.order = Some(text("sortOrder", sent)?),
            "attributes" => self.attributes = names("attributes", sent)?,
            "excludedattributes" => self.excluded = names("excludedAttributes", sent)?,
            "schemas" => {
                let urns = sent.as_array().map(Vec::as_slice).unwrap_or_default();
                self.is_search = urns.iter().any(|urn| {
                    urn.as_str()
                        .is_some_and(|urn| urn.eq_ignore_ascii_case(SEARCH_URN))
                });
            }
            // Clients add parameters of their own.
            _ => {}
        }
        Ok(())
    }

    fn query(self) -> Result<Query, ScimError> {
        let order = match self.order.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("ascending") => Order::Ascending,
            Some("descending") => Order::Descending,
            Some(_) => return Err(value("sortOrder is ascending or descending.")),
        };
        if self.cursor.is_some() && (self.start_index.is_some() || self.sort_by.is_some()) {
            return Err(ScimError::of(
                ScimType::InvalidCursor,
                "A cursor goes with neither startIndex nor sortBy.",
            ));
        }
        // What is below the smallest value is the smallest value (RFC 7644, section 3.4.2.4).
        let clamp = |number: i64, low: usize| usize::try_from(number).unwrap_or(low).max(low);
        Ok(Query {
            filter: self.filter,
            start_index: clamp(self.start_index.unwrap_or(1), 1),
            count: self.count.map_or(COUNT, |count| clamp(count, 0)).min(COUNT_MAX),
            cursor: self.cursor,
            sort_by: self.sort_by,
            order,
            projection: Projection::parse(&self.attributes, &self.excluded)?,
        })
    }
}

fn text(name: &str, sent: Value) -> Result<String, ScimError> {
    match sent {
        Value::String(text) if !text.contains('\0') => Ok(text),
        _ => Err(value(format!("{name} is a text."))),
    }
}

fn number(name: &str, sent: &Value) -> Result<i64, ScimError> {
    let read = match sent {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| value(format!("{name} is a whole number.")))
}

fn names(name: &str, sent: Value) -> Result<Vec<String>, ScimError> {
    let wrong = || value(format!("{name} lists names of attributes."));
    let listed: Vec<String> = match sent {
        Value::String(text) => text.split(',').map(str::to_owned).collect(),
        Value::Array(items) => items
            .into_iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    Ok(listed
        .iter()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect())
}
