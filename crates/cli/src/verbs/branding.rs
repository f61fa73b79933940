//! `muster branding`: how the tenant looks to its own people.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, clean};
use crate::{CliError, context};

/// The largest logo that a server takes.
const LOGO_BYTES_MAX: usize = 64 * 1024;
const PLACE: [&str; 2] = ["settings", "branding"];
const LOGO: [&str; 3] = ["settings", "branding", "logo"];

/// Verbs about how the tenant looks.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BrandingCommand {
    /// Show the name, the accent, the logo, whom people ask, and what they read before they sign in
    #[command(after_help = "Examples:\n  muster branding show\n  muster branding show -o json")]
    Show,
    /// Change what is named; the rest stays
    #[command(
        after_help = "Examples:\n  muster branding set --name 'Acme Ltd' --support-mail help@acme.example\n  muster branding set --accent '#7a1fa2'\n  \
        muster branding set --accent '#7a1fa2' --accent-dark '#d9a5ee'\n  muster branding set --signin-notice 'For staff of Acme only.'\n  \
        muster branding set --support-phone ''          there is none any more\n\nText on the accent and the accent as text need a contrast of 4.5 to 1 in \
        both themes; a color that cannot be read is refused with what it stands on."
    )]
    Set(SetArgs),
    /// Set the logo: a PNG of at most 64 KiB, 16 to 1024 pixels a side
    #[command(after_help = "Examples:\n  muster branding logo acme.png")]
    Logo { file: PathBuf },
    /// Take the logo away
    #[command(after_help = "Examples:\n  muster branding remove-logo")]
    RemoveLogo,
    /// Show Muster as it comes: everything is taken back, the logo as well
    #[command(after_help = "Examples:\n  muster branding reset --yes")]
    Reset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What is to change; an empty text takes it back.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    /// What people read in the header, on the sign-in page and in mails
    #[arg(long)]
    name: Option<String>,
    /// The accent of the light theme, such as '#7a1fa2'; `muster` for Muster's own
    #[arg(long, value_name = "COLOR")]
    accent: Option<String>,
    /// The accent of the dark theme; one is made from the other where none is named
    #[arg(long, value_name = "COLOR", requires = "accent")]
    accent_dark: Option<String>,
    #[arg(long, value_name = "ADDRESS")]
    support_mail: Option<String>,
    #[arg(long, value_name = "NUMBER")]
    support_phone: Option<String>,
    /// An address that begins with https://
    #[arg(long, value_name = "URL")]
    support_url: Option<String>,
    /// What people read before they sign in; plain text
    #[arg(long, value_name = "TEXT")]
    signin_notice: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Branding {
    display_name: String,
    accent: Option<Accent>,
    support: Support,
    signin_notice: String,
    logo: Option<LogoOf>,
    changed_by: Option<String>,
    changed_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Accent {
    light: String,
    dark: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Support {
    mail: String,
    phone: String,
    url: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LogoOf {
    url: String,
    width: u32,
    height: u32,
}

impl SetArgs {
    /// What is there, with what was named.
    fn over(&self, now: &Branding) -> Value {
        let text = |named: &Option<String>, now: &String| named.as_ref().unwrap_or(now).clone();
        let accent = match (&self.accent, &now.accent) {
            (Some(own), _) if own.is_empty() || own == "muster" => None,
            (Some(light), _) => Some(json!({"light": light, "dark": self.accent_dark})),
            (None, Some(accent)) => Some(json!({"light": accent.light, "dark": accent.dark})),
            (None, None) => None,
        };
        json!({
            "display_name": text(&self.name, &now.display_name),
            "accent": accent,
            "support": {
                "mail": text(&self.support_mail, &now.support.mail),
                "phone": text(&self.support_phone, &now.support.phone),
                "url": text(&self.support_url, &now.support.url),
            },
            "signin_notice": text(&self.signin_notice, &now.signin_notice),
        })
    }
}

/// Runs one verb.
pub async fn run(command: BrandingCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let call = match command {
        BrandingCommand::Show => Call::get(&PLACE),
        BrandingCommand::Set(set) => {
            let now: Answer<Branding> = api.send(Call::get(&PLACE)).await?;
            Call::put(&PLACE, set.over(&now.known))
        }
        BrandingCommand::Logo { file } => {
            let bytes = context::read_file(&file)?;
            if bytes.len() > LOGO_BYTES_MAX {
                return Err(CliError::Content {
                    path: file,
                    detail: format!(
                        "it has {} bytes; a logo has at most {LOGO_BYTES_MAX}",
                        bytes.len()
                    ),
                });
            }
            Call::put(&LOGO, Value::Null).bytes("image/png", bytes)
        }
        BrandingCommand::RemoveLogo => {
            api.send_quiet(Call::delete(&LOGO)).await?;
            Call::get(&PLACE)
        }
        BrandingCommand::Reset { yes } => {
            printer.confirm(yes, "Your people see Muster as it comes.", "reset")?;
            api.send_quiet(Call::delete(&LOGO)).await?;
            Call::put(&PLACE, json!({}))
        }
    };
    let answer: Answer<Branding> = api.send(call).await?;
    printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
}

fn sheet(printer: &Printer, branding: &Branding) -> Sheet {
    let text = |text: &str| (!text.is_empty()).then(|| clean(text));
    if branding.changed_by.is_none() {
        return Sheet::new()
            .text("Your people see Muster as it comes. `muster branding set --name 'Acme Ltd'` says where they are.");
    }
    let accent = branding
        .accent
        .as_ref()
        .map(|accent| format!("{} light, {} dark", clean(&accent.light), clean(&accent.dark)));
    let logo = branding
        .logo
        .as_ref()
        .map(|logo| format!("{} by {} pixels, {}", logo.width, logo.height, clean(&logo.url)));
    Sheet::new().fields(vec![
        (
            "name",
            Some(text(&branding.display_name).unwrap_or_else(|| "-".to_owned())),
        ),
        (
            "accent",
            Some(accent.unwrap_or_else(|| "Muster's own".to_owned())),
        ),
        ("logo", Some(logo.unwrap_or_else(|| "none".to_owned()))),
        ("help by mail", text(&branding.support.mail)),
        ("help by phone", text(&branding.support.phone)),
        ("help on a page", text(&branding.support.url)),
        ("before signing in", text(&branding.signin_notice)),
        ("changed by", branding.changed_by.as_deref().map(clean)),
        ("changed", Some(printer.ago(branding.changed_at.as_deref()))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_changes() {
        let now = Branding {
            display_name: "Acme".to_owned(),
            accent: Some(Accent {
                light: "#0f5a69".to_owned(),
                dark: "#6fc7d6".to_owned(),
            }),
            signin_notice: "Staff only.".to_owned(),
            ..Branding::default()
        };
        let nothing = SetArgs {
            name: None,
            accent: None,
            accent_dark: None,
            support_mail: Some("help@acme.example".to_owned()),
            support_phone: None,
            support_url: None,
            signin_notice: Some(String::new()),
        };
        let wanted = nothing.over(&now);
        assert_eq!(wanted["display_name"], "Acme");
        assert_eq!(wanted["accent"]["dark"], "#6fc7d6");
        assert_eq!(wanted["support"]["mail"], "help@acme.example");
        assert_eq!(wanted["signin_notice"], "");
        let own = SetArgs {
            accent: Some("#7a1fa2".to_owned()),
            ..nothing.clone()
        };
        assert_eq!(
            own.over(&now)["accent"],
            json!({"light": "#7a1fa2", "dark": null})
        );
        let back = SetArgs {
            accent: Some("muster".to_owned()),
            ..nothing
        };
        assert_eq!(back.over(&now)["accent"], Value::Null);
    }
}
