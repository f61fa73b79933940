//! How a tenant looks to its own people: its name, its accent, its logo, whom to ask, and what they read before they sign in.
//!
//! Nothing of it is markup. Colors are checked against every ground and text of the console (`colors.rs`), the logo is a PNG that was read
//! to its last byte (`png.rs`), texts are plain. What a browser fetches is found by an address that follows from the tenant's id and the
//! content: it changes with the content, so it may be kept for ever, and nobody finds out by a file that they have whether some tenant
//! uses it.

mod api;
pub mod colors;
pub mod png;
mod store;
#[cfg(test)]
mod tests;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::key::sha256;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use api::{BrandingView, router, view};
use colors::{Color, DARK, LIGHT, check, for_dark};

use crate::{
    App,
    access::{
        self, Author,
        problem::{BODY_TOO_LARGE, FieldError, INVALID, Problem},
    },
    audit,
};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;

const NAME_CHARS_MAX: usize = 60;
const NOTICE_CHARS_MAX: usize = 500;
const NOTICE_LINES_MAX: usize = 6;
const MAIL_CHARS_MAX: usize = 254;
const PHONE_CHARS_MAX: usize = 32;
const URL_CHARS_MAX: usize = 500;
/// Hex digits of the address of a logo.
const ADDRESS_CHARS: usize = 32;

/// The accent of each theme, `#rrggbb`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = BrandingAccent)]
pub struct Accent {
    pub light: String,
    pub dark: String,
}

/// Whom people of the tenant ask; what is empty is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BrandingSupport)]
#[serde(deny_unknown_fields, default)]
pub struct Support {
    /// An address of mail.
    pub mail: String,
    /// Digits, spaces and `+ ( ) - / .`
    pub phone: String,
    /// An `https` address without credentials.
    pub url: String,
}

impl Support {
    pub fn is_empty(&self) -> bool {
        *self == Support::default()
    }
}

/// A logo, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logo {
    /// Under which it is fetched.
    pub address: String,
    /// Pixels.
    pub width: u32,
    pub height: u32,
}

/// How a tenant looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Empty where the tenant's own name is shown.
    pub display_name: String,
    pub accent: Option<Accent>,
    pub support: Support,
    /// Plain text; empty where there is none.
    pub signin_notice: String,
    pub logo: Option<Logo>,
    pub changed_by: String,
    pub changed_at: Timestamp,
}

/// What a look is to be, without the logo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = BrandingRequest)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// At most 60 characters; empty shows the tenant's name.
    #[serde(default)]
    pub display_name: String,
    /// Absent shows Muster's own.
    pub accent: Option<WantedAccent>,
    #[serde(default)]
    pub support: Support,
    /// What people read before they sign in: at most 500 characters in 6 lines, plain text.
    #[serde(default)]
    pub signin_notice: String,
}

/// The accent of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = BrandingAccentRequest)]
#[serde(deny_unknown_fields)]
pub struct WantedAccent {
    /// `#rrggbb`, dark enough for white text.
    pub light: String,
    /// `#rrggbb`, light enough for dark text; one is made from the other where it is absent.
    #[serde(default)]
    pub dark: Option<String>,
}

/// The accent as it is kept, if it can be read everywhere.
fn accent(wanted: &WantedAccent) -> Result<Accent, FieldError> {
    let wrong = |field: &str, code: &str, detail: String| FieldError {
        field: format!("accent.{field}"),
        code: code.to_owned(),
        detail,
    };
    let parse = |field: &str, text: &str| {
        text.parse::<Color>()
            .map_err(|error| wrong(field, "no_color", error.to_string()))
    };
    let light = parse("light", &wanted.light)?;
    check(light, &LIGHT).map_err(|error| wrong("light", "contrast", error.to_string()))?;
    let dark = match wanted.dark.as_deref().filter(|dark| !dark.is_empty()) {
        Some(dark) => {
            let dark = parse("dark", dark)?;
            check(dark, &DARK).map_err(|error| wrong("dark", "contrast", error.to_string()))?;
            dark
        }
        None => for_dark(light),
    };
    Ok(Accent {
        light: light.to_string(),
        dark: dark.to_string(),
    })
}

/// Whether a text is what a person sees, and turns nothing around it: no control characters but line feeds where they may be, and none
/// that change the direction of what follows (Unicode Standard Annex 9), end a line unseen or take no room.
fn is_plain(text: &str, lines_max: usize) -> bool {
    let is_hidden = |letter: char| {
        (letter.is_control() && !(letter == '\n' && lines_max > 1))
            || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    !text.chars().any(is_hidden) && text.lines().count() <= lines_max
}

fn is_mail(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "._+-".contains(letter);
    let is_of_host = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
    text.len() <= MAIL_CHARS_MAX
        && text.split_once('@').is_some_and(|(local, host)| {
            !local.is_empty()
                && local.chars().all(is_letter)
                && host.contains('.')
                && !host.starts_with(['.', '-'])
                && !host.ends_with(['.', '-'])
                && host.chars().all(is_of_host)
        })
}

fn is_phone(text: &str) -> bool {
    text.len() <= PHONE_CHARS_MAX
        && text.chars().filter(char::is_ascii_digit).count() >= 3
        && text
            .chars()
            .all(|letter| letter.is_ascii_digit() || " +()-/.".contains(letter))
}

fn is_url(text: &str) -> bool {
    let is_https = |url: Url| {
        url.scheme() == "https" && url.has_host() && url.username().is_empty() && url.password().is_none()
    };
    // Nothing that a browser would read another way than a person.
    let is_written = text
        .chars()
        .all(|letter| letter.is_ascii_graphic() && letter != '\\');
    text.len() <= URL_CHARS_MAX
        && text.starts_with("https://")
        && is_written
        && Url::parse(text).is_ok_and(is_https)
}

impl Wanted {
    /// The look that it makes, by whom and when, or every field that is wrong.
    ///
    /// # Errors
    ///
    /// `invalid`, with the fields.
    pub fn checked(&self, (by, at): (String, Timestamp)) -> Result<Look, Problem> {
        let mut errors = Vec::new();
        let mut refuse = |field: &str, is_right: bool, detail: String| {
            if !is_right {
                errors.push(FieldError {
                    field: field.to_owned(),
                    code: "invalid".to_owned(),
                    detail,
                });
            }
        };
        let name = self.display_name.trim();
        refuse(
            "display_name",
            name.chars().count() <= NAME_CHARS_MAX && is_plain(name, 1),
            format!("At most {NAME_CHARS_MAX} characters on one line."),
        );
        let notice = self.signin_notice.replace("\r\n", "\n");
        let notice = notice.trim();
        refuse(
            "signin_notice",
            notice.chars().count() <= NOTICE_CHARS_MAX && is_plain(notice, NOTICE_LINES_MAX),
            format!("At most {NOTICE_CHARS_MAX} characters in {NOTICE_LINES_MAX} lines, plain text."),
        );
        let support = Support {
            mail: self.support.mail.trim().to_owned(),
            phone: self.support.phone.trim().to_owned(),
            url: self.support.url.trim().to_owned(),
        };
        refuse(
            "support.mail",
            support.mail.is_empty() || is_mail(&support.mail),
            "An address such as help@example.com.".to_owned(),
        );
        refuse(
            "support.phone",
            support.phone.is_empty() || is_phone(&support.phone),
            format!("At most {PHONE_CHARS_MAX} digits, spaces and + ( ) - / ."),
        );
        refuse(
            "support.url",
            support.url.is_empty() || is_url(&support.url),
            "An address that begins with https:// and holds no credentials.".to_owned(),
        );
        let accent = match self.accent.as_ref().map(accent).transpose() {
            Ok(accent) => accent,
            Err(error) => {
                errors.push(error);
                None
            }
        };
        if let Some(first) = errors.first() {
            let detail = format!("{}: {}", first.field, first.detail);
            return Err(INVALID.detail(detail).with_errors(errors));
        }
        Ok(Look {
            display_name: name.to_owned(),
            accent,
            support,
            signin_notice: notice.to_owned(),
            logo: None,
            changed_by: by,
            changed_at: at,
        })
    }
}

/// How a tenant looks; nothing where nobody ever said.
pub fn look(tx: &mut Tx, tenant: TenantId) -> Result<Option<Look>, Problem> {
    Ok(store::look(tx, tenant)?)
}

/// What people call a tenant: the name that it gave itself, else the one that the operator gave it, else none.
pub fn name_of(tx: &mut Tx, tenant: TenantId) -> Result<String, Problem> {
    let own = store::look(tx, tenant)?.map(|look| look.display_name);
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        return Ok(own);
    }
    Ok(access::tenant(tx, tenant)?.map_or_else(String::new, |row| row.display_name))
}

/// Changes how the author's tenant looks, but for its logo. The tenant's log says what was changed.
pub async fn put(app: &App, author: &Author, wanted: Wanted) -> Result<(), Problem> {
    let tenant = author.tenant;
    audit::commit(app, author, move |tx| {
        let look = wanted.checked((tx.author().text(), tx.at()))?;
        store::put_look(tx, tenant, &look)?;
        let detail = serde_json::json!({
            "display_name": look.display_name, "accent": look.accent, "support": look.support,
            "signin_notice": look.signin_notice,
        });
        tx.record("tenant.branding_changed", ("tenant", tenant.to_string()), detail)
            .map(drop)
    })
    .await
}

/// The address of a logo.
fn address_of(tenant: TenantId, bytes: &[u8]) -> String {
    let whole = [b"muster logo\0", tenant.uuid().as_bytes().as_slice(), bytes].concat();
    let mut address = sha256(&whole).to_hex();
    address.truncate(ADDRESS_CHARS);
    address
}

/// Takes a logo of the author's tenant: a PNG.
///
/// # Errors
///
/// `body_too_large`, and `invalid` with what is wrong with the file.
pub async fn put_logo(app: &App, author: &Author, file: &[u8]) -> Result<(), Problem> {
    let read = png::read(file).map_err(|error| match error {
        png::PngError::TooLarge => BODY_TOO_LARGE.detail(error.to_string()),
        _ => INVALID.detail(error.to_string()),
    })?;
    let tenant = author.tenant;
    let logo = Logo {
        address: address_of(tenant, &read.bytes),
        width: read.width,
        height: read.height,
    };
    audit::commit(app, author, move |tx| {
        let (by, at) = (tx.author().text(), tx.at());
        store::put_logo(tx, tenant, (&logo, &read.bytes), (&by, at))?;
        let detail = serde_json::json!({
            "sha256": sha256(&read.bytes).to_string(), "width": logo.width, "height": logo.height,
        });
        tx.record("tenant.logo_changed", ("tenant", tenant.to_string()), detail)
            .map(drop)
    })
    .await
}

/// Takes the logo of the author's tenant away; nothing happens where it has none.
pub async fn remove_logo(app: &App, author: &Author) -> Result<(), Problem> {
    let tenant = author.tenant;
    audit::commit(app, author, move |tx| {
        let (by, at) = (tx.author().text(), tx.at());
        if store::remove_logo(tx, tenant, (&by, at))? == 0 {
            return Ok(());
        }
        tx.record(
            "tenant.logo_removed",
            ("tenant", tenant.to_string()),
            serde_json::json!({}),
        )
        .map(drop)
    })
    .await
}

/// The logo at an address: for whoever was shown a page that names it, signed in or not.
pub async fn logo_at(app: &App, address: &str) -> Result<Option<Vec<u8>>, Problem> {
    let is_one = address.len() == ADDRESS_CHARS && address.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_one {
        return Ok(None);
    }
    let address = address.to_owned();
    app.db
        .read(Scope::System, move |tx| Ok(store::logo_at(tx, &address)?))
        .await
}
