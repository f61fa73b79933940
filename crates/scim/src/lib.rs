//! SCIM 2.0 (RFC 7643, RFC 7644) without I/O: schemas, filters, paths, PATCH, bulk requests, and what answers look like.
//!
//! Everything here reads what an identity provider sent. Nothing panics on it, and each part has a bound with a name.

mod bulk;
mod discovery;
mod error;
mod evaluate;
mod filter;
mod group;
mod json;
mod name;
mod patch;
mod path;
mod project;
mod query;
mod resource;
mod schema;
#[cfg(test)]
mod tests;

pub use bulk::{BULK_BYTES_MAX, BULK_OPERATIONS_MAX, BulkOperation, BulkRequest, Method, bulk_reference};
pub use discovery::{
    Documents, Features, list_response, resource_type, resource_types, schema_document, schemas,
    service_provider_config,
};
pub use error::{ERROR_URN, ScimError, ScimType};
pub use evaluate::{compare_by, matches};
pub use filter::{Condition, Filter, Literal, Mentions, Operator};
pub use group::{GroupStep, Member, group_steps, members_of};
pub use json::{BODY_BYTES_MAX, parse};
pub use name::name_key;
pub use patch::{OPERATIONS_MAX, Operation, OperationKind, apply, operations};
pub use path::{PatchPath, Target, target};
pub use project::Projection;
pub use query::{COUNT_MAX, Order, Query, SEARCH_URN};
pub use resource::{Resource, accept, read_boolean};
pub use schema::{
    Attribute, ENTERPRISE_USER, GROUP, GROUPS, Kind, Mutability, RESOURCE_TYPES, ResourceType, Returned,
    Schema, USER, USERS,
};

/// The media type of SCIM (RFC 7644, section 8.1).
pub const MEDIA_TYPE: &str = "application/scim+json";
