//! What anyone may read: the OpenAPI document and its page, the help page of every error code, the install's certificate.

use std::sync::LazyLock;

use askama::Template;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::problem::{NOT_FOUND, PROBLEMS},
    openapi,
};
use rust_embed::Embed;
use serde_json::Value;

use crate::{
    markdown::{self, Block, Inline},
    shell::{Refusal, Section, Shell, page},
};

#[derive(Embed)]
#[folder = "../../docs/errors"]
struct ErrorPages;

#[derive(Embed)]
#[folder = "../../docs/runbooks"]
struct Runbooks;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi::document().to_json().unwrap_or_default());
static TAGS: LazyLock<Vec<Tag>> = LazyLock::new(|| {
    serde_json::from_str(&DOCUMENT)
        .map(|json| tags(&json))
        .unwrap_or_default()
});

/// Routes that need no sign-in.
pub fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/openapi.json", get(document))
        .route("/api/v1/docs", get(documentation))
        .route("/errors", get(error_index))
        .route("/errors/{code}", get(error_page))
        .route("/runbooks", get(runbook_index))
        .route("/runbooks/{name}", get(runbook))
        .route("/ca.pem", get(authority))
}

async fn document() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, DOCUMENT.as_str()).into_response()
}

/// The calls of one tag.
struct Tag {
    name: String,
    calls: Vec<Call>,
}

/// One call of the API.
struct Call {
    id: String,
    method: String,
    path: String,
    summary: String,
    scope: String,
    parameters: Vec<Field>,
    body: Option<Shape>,
    answers: Vec<Answer>,
}

/// One field of a body or one parameter.
struct Field {
    name: String,
    kind: String,
    required: bool,
    about: String,
}

/// A body: its media type and, for JSON, its fields.
struct Shape {
    media_type: String,
    kind: String,
    fields: Vec<Field>,
}

struct Answer {
    status: String,
    shape: Option<Shape>,
}

#[derive(Template)]
#[template(path = "api.html")]
struct ApiPage<'a> {
    shell: Shell,
    tags: &'a [Tag],
    admin_url: &'a str,
}

async fn documentation(State(app): State<App>) -> Result<Response, Refusal> {
    let shell = Shell::new("Admin API", Section::Other, None);
    page(&ApiPage {
        shell,
        tags: &TAGS,
        admin_url: &app.settings.admin_url,
    })
}

fn tags(document: &Value) -> Vec<Tag> {
    let mut tags: Vec<Tag> = Vec::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, operation) in members(methods) {
            let name = operation["tags"][0].as_str().unwrap_or("service").to_owned();
            let call = call(document, method, path, operation);
            match tags.iter_mut().find(|tag| tag.name == name) {
                Some(tag) => tag.calls.push(call),
                None => tags.push(Tag {
                    name,
                    calls: vec![call],
                }),
            }
        }
    }
    tags.sort_by(|a, b| a.name.cmp(&b.name));
    tags
}

fn call(document: &Value, method: &str, path: &str, operation: &Value) -> Call {
    let parameters = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| Field {
            name: format!("{} ({})", text(&parameter["name"]), text(&parameter["in"])),
            kind: kind(&parameter["schema"]),
            required: parameter["required"].as_bool().unwrap_or(false),
            about: text(&parameter["description"]),
        });
    let answers = members(&operation["responses"]).map(|(status, answer)| Answer {
        status: status.to_owned(),
        shape: shape(document, &answer["content"]),
    });
    let scopes = operation["security"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(members);
    let scope = scopes
        .flat_map(|(_, scopes)| scopes.as_array().into_iter().flatten())
        .filter_map(Value::as_str);
    let summary = match (text(&operation["summary"]), text(&operation["description"])) {
        (summary, description) if description.is_empty() || summary == description => summary,
        (summary, description) => format!("{summary} {description}"),
    };
    Call {
        id: text(&operation["operationId"]),
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary,
        scope: scope.collect::<Vec<_>>().join(" "),
        parameters: parameters.collect(),
        body: shape(document, &operation["requestBody"]["content"]),
        answers: answers.collect(),
    }
}

fn shape(document: &Value, content: &Value) -> Option<Shape> {
    let (media_type, content) = members(content).next()?;
    let schema = resolve(document, &content["schema"]);
    Some(Shape {
        media_type: media_type.to_owned(),
        kind: kind(&content["schema"]),
        fields: fields(document, schema),
    })
}

fn fields(document: &Value, schema: &Value) -> Vec<Field> {
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == name))
    };
    let own = members(&schema["properties"]).map(|(name, property)| Field {
        name: name.to_owned(),
        kind: kind(property),
        required: required(name),
        about: text(&property["description"]),
    });
    let parts = schema["allOf"].as_array().into_iter().flatten();
    parts
        .flat_map(|part| fields(document, resolve(document, part)))
        .chain(own)
        .collect()
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"]
        .as_str()
        .and_then(|target| target.strip_prefix('#'));
    target
        .and_then(|target| document.pointer(target))
        .unwrap_or(schema)
}

/// A schema in a word or two.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|target| target.rsplit('/').next())
    {
        return name.to_owned();
    }
    if let Some(one_of) = schema["oneOf"].as_array() {
        let named: Vec<_> = one_of.iter().map(kind).filter(|kind| kind != "null").collect();
        return named.join(" or ");
    }
    match &schema["type"] {
        Value::String(word) if word == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(word) => word.clone(),
        Value::Array(words) => {
            let words: Vec<_> = words
                .iter()
                .filter_map(Value::as_str)
                .filter(|word| *word != "null")
                .collect();
            if words == ["array"] {
                format!("list of {}", kind(&schema["items"]))
            } else {
                words.join(" or ")
            }
        }
        _ => "any".to_owned(),
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[derive(Template)]
#[template(path = "help.html")]
struct HelpPage {
    shell: Shell,
    blocks: Vec<Block>,
    /// Where all pages of the kind are listed.
    index: &'static str,
    index_label: &'static str,
}

async fn error_index() -> Result<Response, Refusal> {
    error_help("README", "Errors".to_owned())
}

async fn error_page(Path(code): Path<String>) -> Result<Response, Refusal> {
    let known = PROBLEMS.iter().find(|kind| kind.code == code);
    let known = known.ok_or_else(|| NOT_FOUND.detail("There is no such error code. /errors lists them."))?;
    error_help(known.code, known.title.to_owned())
}

fn error_help(file: &str, title: String) -> Result<Response, Refusal> {
    let file = ErrorPages::get(&format!("{file}.md"));
    let file = file.ok_or_else(|| NOT_FOUND.detail("There is no help page for this code."))?;
    help(&file.data, title, "/errors", "All error codes")
}

async fn runbook_index() -> Result<Response, Refusal> {
    runbook_help("README")
}

/// What to do about an alert.
async fn runbook(Path(name): Path<String>) -> Result<Response, Refusal> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    runbook_help(if name.bytes().all(is_name) { &name } else { "" })
}

fn runbook_help(file: &str) -> Result<Response, Refusal> {
    let file = Runbooks::get(&format!("{file}.md"));
    let file = file.ok_or_else(|| NOT_FOUND.detail("There is no such runbook. /runbooks lists them."))?;
    help(&file.data, "Runbook".to_owned(), "/runbooks", "All runbooks")
}

fn help(
    text: &[u8],
    title: String,
    index: &'static str,
    index_label: &'static str,
) -> Result<Response, Refusal> {
    page(&HelpPage {
        shell: Shell::new(title, Section::Other, None),
        blocks: markdown::read(&String::from_utf8_lossy(text), index),
        index,
        index_label,
    })
}

/// The certificate that agents are told to trust (`--ca-file`), in PEM (RFC 7468).
async fn authority(State(app): State<App>) -> Response {
    const LINE: usize = 64;
    let text = STANDARD.encode(app.keys.authority.root_certificate());
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    let mut response = pem.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-pem-file"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"muster-ca.pem\""),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_help_page() {
        for kind in PROBLEMS {
            assert!(
                ErrorPages::get(&format!("{}.md", kind.code)).is_some(),
                "docs/errors/{}.md is missing",
                kind.code
            );
        }
    }

    #[test]
    fn the_documentation_names_every_call() {
        let json: Value = serde_json::from_str(&DOCUMENT).expect("the document is JSON");
        let calls: usize = members(&json["paths"])
            .map(|(_, methods)| members(methods).count())
            .sum();
        assert_eq!(TAGS.iter().map(|tag| tag.calls.len()).sum::<usize>(), calls);
        assert!(calls > 20, "{calls}");
    }
}
