//! `os.min_version`: the version is asked for, and the server judges the answer.

use muster_model::settings::SettingValue;

use super::{Context, Script};
use crate::syncml::Verb;

const VERSION: &str = "./DevDetail/SwV";

pub(super) fn write(_: &Context<'_>, _: &SettingValue, script: &mut Script) {
    script.carry(VERSION);
    script.push(Verb::Get, VERSION.to_owned(), None);
}
