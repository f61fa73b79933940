//! The catalogue of settings: what each means, which values it takes, what platforms can carry.

use askama::Template;
use axum::{Router, response::Response, routing::get};
use muster_control::App;
use muster_model::{
    Platform,
    settings::{MergeRule, Reversal, SettingDef, SettingKind, catalogue},
};
use serde::Deserialize;

use crate::{
    session::{Ask, Session},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone},
};

pub fn router() -> Router<App> {
    Router::new().route("/settings", get(show))
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
}

/// A setting as a row.
#[derive(Debug)]
pub struct Row {
    pub key: &'static str,
    pub meaning: &'static str,
    pub values: String,
    pub merge: &'static str,
    /// What does not come back when the setting is taken back.
    pub lasting: Option<Lasting>,
    pub support: Vec<Support>,
}

/// Why a setting cannot be undone as if it had never been.
#[derive(Debug)]
pub struct Lasting {
    pub badge: Badge,
    pub why: &'static str,
}

impl Lasting {
    fn of(reversal: Reversal) -> Option<Lasting> {
        let (badge, why) = match reversal {
            Reversal::Reversible => return None,
            Reversal::StaysUntilChanged(why) => (Badge::new("stays until changed", Tone::Wait), why),
            Reversal::Irreversible(why) => (Badge::new("cannot be undone", Tone::Warn), why),
        };
        Some(Lasting { badge, why })
    }
}

/// What one platform does with a setting.
#[derive(Debug)]
pub struct Support {
    pub platform: String,
    pub badge: Badge,
    pub why: &'static str,
}

impl Row {
    pub fn of(def: &SettingDef) -> Row {
        let support = Platform::ALL.into_iter().map(|platform| {
            let (badge, why) = ui::support(def.support_on(platform));
            Support {
                platform: ui::platform(platform.as_str()).to_owned(),
                badge,
                why,
            }
        });
        Row {
            key: def.key,
            meaning: def.meaning,
            values: def.kind.describe(),
            merge: merge(def),
            lasting: Lasting::of(def.reversal),
            support: support.collect(),
        }
    }

    /// Whether some platform carries the setting less than exactly.
    pub fn has_reasons(&self) -> bool {
        self.support.iter().any(|support| !support.why.is_empty())
    }

    fn fits(&self, wanted: &str) -> bool {
        self.key.contains(wanted) || self.meaning.to_lowercase().contains(wanted)
    }
}

#[derive(Template)]
#[template(path = "catalogue.html")]
pub struct CataloguePage {
    pub shell: Shell,
    pub query: String,
    pub rows: Vec<Row>,
}

async fn show(session: Session, Ask(search): Ask<Search>) -> Result<Response, Refusal> {
    let wanted = search.q.trim().to_lowercase();
    let rows = catalogue().iter().map(Row::of).filter(|row| row.fits(&wanted));
    page(&CataloguePage {
        shell: session.shell("Settings catalog", Section::Settings),
        rows: rows.collect(),
        query: search.q.trim().to_owned(),
    })
}

/// What happens when two policies ask for different values.
fn merge(def: &SettingDef) -> &'static str {
    match def.merge {
        MergeRule::Highest if def.kind == SettingKind::Bool => "true wins",
        MergeRule::Lowest if def.kind == SettingKind::Bool => "false wins",
        MergeRule::Highest => "the higher value wins",
        MergeRule::Lowest => "the lower value wins",
        MergeRule::LowestNonzero => "the lower value wins; 0 means no limit and loses",
        MergeRule::LatestWord => "the stricter word wins",
        MergeRule::HighestVersion => "the higher version wins",
        MergeRule::Union => "every item of every policy",
        MergeRule::FirstPolicy => "the oldest policy wins",
    }
}
