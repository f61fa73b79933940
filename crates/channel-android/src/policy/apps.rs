//! Apps: one list of all that settings say about packages. Of two settings about one app the stricter counts: blocked, then
//! kiosk, then installed, then available.

use std::collections::BTreeMap;

use muster_model::settings::{
    SettingValue,
    Support::{self, NotExpressible, Weaker},
    android::{VERSIONED_APPS_MAX, version_code},
};
use serde_json::{Map, Value, json};

use super::{
    Context, Document, carried_items,
    vpn_profiles::{self, STRONGSWAN},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Install {
    Available,
    ForceInstalled,
    Kiosk,
    Blocked,
}

#[derive(Default)]
struct App {
    install: Option<Install>,
    minimum_version: Option<i32>,
    configuration: Map<String, Value>,
}

#[derive(Default)]
struct Apps(BTreeMap<String, App>);

impl Apps {
    fn app(&mut self, package: &str) -> &mut App {
        self.0.entry(package.to_owned()).or_default()
    }

    fn install(&mut self, package: &str, install: Install) {
        let app = self.app(package);
        app.install = app.install.max(Some(install));
    }
}

pub(super) fn required(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    write(context, document);
    document.carry("applications[].packageName");
    document.carry("applications[].installType");
    if carried_items("apps.required", value).any(|item| version_code(item).is_some()) {
        document.carry("applications[].minimumVersionCode");
    }
}

pub(super) fn blocked(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    write(context, document);
    document.carry("applications[].installType");
}

pub(super) fn allowed(context: &Context<'_>, value: &SettingValue, document: &mut Document) {
    write(context, document);
    document.carry("playStoreMode");
    if carried_items("apps.allowed", value).next().is_some() {
        document.carry("applications[].installType");
    }
}

pub(super) fn managed_config(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    write(context, document);
    document.carry("applications[].managedConfiguration");
}

/// The role of a kiosk instead of the install type of that name, which is deprecated.
pub(super) fn kiosk(context: &Context<'_>, _: &SettingValue, document: &mut Document) {
    write(context, document);
    document.carry("applications[].installType");
    document.carry("applications[].roles[].roleType");
    document.set("kioskCustomization.systemNavigation", "NAVIGATION_DISABLED");
}

/// What is said of a setting whose apps are blocked as well.
pub(super) fn conflict(context: &Context<'_>, key: &str, value: &SettingValue) -> Option<Support> {
    let blocked = context.carried("apps.blocked")?;
    let is_blocked =
        |package: &str| carried_items("apps.blocked", blocked).any(|item| item.as_text() == Some(package));
    let packages: Vec<&str> = match key {
        "apps.required" => carried_items(key, value)
            .filter_map(|item| item.text("id"))
            .collect(),
        "vpn.profiles" => carried_items(key, value)
            .map(|tunnel| vpn_profiles::package(context, tunnel))
            .collect(),
        "kiosk.app" => value.as_text().into_iter().collect(),
        _ => return None,
    };
    if packages.iter().all(|package| is_blocked(package)) {
        Some(NotExpressible("the app is blocked as well"))
    } else if packages.iter().any(|package| is_blocked(package)) {
        Some(Weaker("an app that is blocked as well is not installed"))
    } else {
        None
    }
}

/// Writes the list of all apps; called for every setting that says something about apps.
pub(super) fn write(context: &Context<'_>, document: &mut Document) {
    let mut apps = Apps::default();
    let list = |key: &'static str| {
        context
            .carried(key)
            .into_iter()
            .flat_map(move |value| carried_items(key, value))
    };
    for package in list("apps.allowed").filter_map(SettingValue::as_text) {
        apps.install(package, Install::Available);
    }
    for package in list("apps.blocked").filter_map(SettingValue::as_text) {
        apps.install(package, Install::Blocked);
    }
    let mut versioned_apps = 0;
    for item in list("apps.required") {
        let package = item.text("id").unwrap_or_default();
        apps.install(package, Install::ForceInstalled);
        if let Some(code) = version_code(item).filter(|_| versioned_apps < VERSIONED_APPS_MAX) {
            versioned_apps += 1;
            apps.app(package).minimum_version = Some(code);
        }
    }
    if let Some(package) = context.carried("kiosk.app").and_then(SettingValue::as_text) {
        apps.install(package, Install::Kiosk);
    }
    for tunnel in list("vpn.profiles") {
        apps.install(vpn_profiles::package(context, tunnel), Install::ForceInstalled);
    }
    configure(context, &mut apps);
    let is_only_allowed = context.is_carried("apps.allowed");
    put_in(document, apps, is_only_allowed);
}

fn configure(context: &Context<'_>, apps: &mut Apps) {
    if let Some(tunnels) = context.carried("vpn.profiles") {
        let is_of_strongswan = |tunnel: &SettingValue| {
            tunnel.text("type") == Some("ikev2") && vpn_profiles::package(context, tunnel) == STRONGSWAN
        };
        if carried_items("vpn.profiles", tunnels).any(is_of_strongswan) {
            apps.app(STRONGSWAN).configuration = vpn_profiles::configuration(tunnels);
        }
    }
    let Some(configured) = context.carried("apps.managed_config") else {
        return;
    };
    for item in carried_items("apps.managed_config", configured) {
        let app = apps.app(item.text("app").unwrap_or_default());
        if let Some(SettingValue::Object(values)) = item.member("values") {
            let text = |value: &SettingValue| json!(value.as_text().unwrap_or_default());
            let texts = values.iter().map(|(name, value)| (name.clone(), text(value)));
            app.configuration.extend(texts);
        }
    }
}

/// The store offers every app that is not blocked, unless there is a list of the only ones.
fn put_in(document: &mut Document, apps: Apps, is_only_allowed: bool) {
    let unasked = if is_only_allowed {
        Install::Blocked
    } else {
        Install::Available
    };
    let entry = |(package, app): (String, App)| {
        let mut entry = Map::new();
        let mut insert = |name: &str, value: Value| entry.insert(name.to_owned(), value);
        let install = app.install.unwrap_or(unasked);
        let word = match install {
            Install::Available => "AVAILABLE",
            Install::ForceInstalled => "FORCE_INSTALLED",
            Install::Kiosk => "REQUIRED_FOR_SETUP",
            Install::Blocked => "BLOCKED",
        };
        insert("packageName", json!(package));
        insert("installType", json!(word));
        if install == Install::Kiosk {
            insert("roles", json!([{"roleType": "KIOSK"}]));
        }
        if let Some(code) = app.minimum_version {
            insert("minimumVersionCode", json!(code));
        }
        if !app.configuration.is_empty() {
            insert("managedConfiguration", Value::Object(app.configuration));
        }
        Value::Object(entry)
    };
    let entries: Vec<Value> = apps.0.into_iter().map(entry).collect();
    let mode = if is_only_allowed { "WHITELIST" } else { "BLACKLIST" };
    document.root.insert("playStoreMode".to_owned(), json!(mode));
    if !entries.is_empty() {
        document
            .root
            .insert("applications".to_owned(), Value::Array(entries));
    }
}
