//! Refusals as SCIM writes them (RFC 7644, section 3.12).

use serde_json::{Value, json};

/// The URN of an error message.
pub const ERROR_URN: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// The detail error keywords (RFC 7644, table 9; RFC 9865, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScimType {
    InvalidFilter,
    TooMany,
    Uniqueness,
    Mutability,
    InvalidSyntax,
    InvalidPath,
    NoTarget,
    InvalidValue,
    InvalidCursor,
}

impl ScimType {
    const ALL: [ScimType; 9] = [
        ScimType::InvalidFilter,
        ScimType::TooMany,
        ScimType::Uniqueness,
        ScimType::Mutability,
        ScimType::InvalidSyntax,
        ScimType::InvalidPath,
        ScimType::NoTarget,
        ScimType::InvalidValue,
        ScimType::InvalidCursor,
    ];

    /// The keyword of a text, where it is one.
    pub fn read(text: &str) -> Option<ScimType> {
        ScimType::ALL.into_iter().find(|known| known.as_str() == text)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            ScimType::InvalidFilter => "invalidFilter",
            ScimType::TooMany => "tooMany",
            ScimType::Uniqueness => "uniqueness",
            ScimType::Mutability => "mutability",
            ScimType::InvalidSyntax => "invalidSyntax",
            ScimType::InvalidPath => "invalidPath",
            ScimType::NoTarget => "noTarget",
            ScimType::InvalidValue => "invalidValue",
            ScimType::InvalidCursor => "invalidCursor",
        }
    }
}

/// A refusal: status, keyword and a sentence. The sentence names attributes, never their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScimError {
    pub status: u16,
    pub kind: Option<ScimType>,
    pub detail: String,
}

impl ScimError {
    pub fn new(status: u16, detail: impl Into<String>) -> ScimError {
        ScimError {
            status,
            kind: None,
            detail: detail.into(),
        }
    }

    /// A refusal with status 400 and a keyword.
    pub fn of(kind: ScimType, detail: impl Into<String>) -> ScimError {
        let status = if kind == ScimType::Uniqueness { 409 } else { 400 };
        ScimError {
            status,
            kind: Some(kind),
            detail: detail.into(),
        }
    }

    /// The message as it is sent.
    pub fn body(&self) -> Value {
        let mut body =
            json!({"schemas": [ERROR_URN], "status": self.status.to_string(), "detail": self.detail});
        if let Some(kind) = self.kind {
            body["scimType"] = kind.as_str().into();
        }
        body
    }
}

impl std::fmt::Display for ScimError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for ScimError {}

pub(crate) fn syntax(detail: impl Into<String>) -> ScimError {
    ScimError::of(ScimType::InvalidSyntax, detail)
}

pub(crate) fn value(detail: impl Into<String>) -> ScimError {
    ScimError::of(ScimType::InvalidValue, detail)
}
