//! Apps: MSI files and packages that are installed, and AppLocker's rules for what may run.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use muster_model::settings::{
    SettingValue,
    windows::{Installer, Program, installer, program},
};

use super::{Context, Script, at, carried_items};
use crate::{
    syncml::{Format, Value, Verb},
    xml::Element,
};

const MSI: &str = "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/*/DownloadInstall";
const PACKAGE: &str = "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppInstallation/*";
const EXE_RULES: &str = "./Vendor/MSFT/AppLocker/ApplicationLaunchRestrictions/*/EXE/Policy";
const PACKAGE_RULES: &str = "./Vendor/MSFT/AppLocker/ApplicationLaunchRestrictions/*/StoreApps/Policy";
/// The one group of rules that is ours.
const GROUP: &str = "Muster";
const EVERYONE: &str = "S-1-1-0";
/// The publisher of the packages that are parts of the system.
const SYSTEM_PUBLISHER: &str = "CN=Microsoft Windows, O=Microsoft Corporation, L=Redmond, S=Washington, C=US";
const ANY_PUBLISHER: &str = "*";

/// Every app is a node that is added, and a command that starts its installation.
pub(super) fn required(_: &Context<'_>, value: &SettingValue, script: &mut Script) {
    for item in carried_items("apps.required", value) {
        match installer(item) {
            Some(Installer::Msi { product, url, sha256 }) => {
                let locuri = at(MSI, product);
                script.carry(MSI);
                script.push(Verb::Add, locuri.clone(), None);
                let job = msi_job(product, item.text("version"), url, sha256).write();
                script.push(Verb::Exec, locuri, Some(xml(job)));
            }
            Some(Installer::Package { family, url }) => {
                let node = at(PACKAGE, family);
                script.carry(&format!("{PACKAGE}/HostedInstall"));
                let interior = Value {
                    format: Format::Node,
                    data: String::new(),
                };
                script.push(Verb::Add, node.clone(), Some(interior));
                let application = Element::new("Application")
                    .attribute("PackageUri", url)
                    .attribute("DeploymentOptions", "0");
                script.push(
                    Verb::Exec,
                    format!("{node}/HostedInstall"),
                    Some(xml(application.write())),
                );
            }
            None => {}
        }
    }
}

const fn xml(data: String) -> Value {
    Value {
        format: Format::Xml,
        data,
    }
}

fn msi_job(product: &str, version: Option<&str>, url: &str, sha256: &str) -> Element {
    let mut element = Element::new("Product");
    if let Some(version) = version {
        element = element.attribute("Version", version);
    }
    let download =
        Element::new("Download").child(Element::new("ContentURLList").child(Element::of("ContentURL", url)));
    let validation = Element::new("Validation").child(Element::of("FileHash", sha256));
    let enforcement = Element::new("Enforcement")
        .child(Element::of("CommandLine", "/quiet /norestart"))
        .child(Element::of("TimeOut", "30"))
        .child(Element::of("RetryCount", "3"))
        .child(Element::of("RetryInterval", "5"));
    Element::new("MsiInstallJob")
        .attribute("id", product)
        .child(element.child(download).child(validation).child(enforcement))
}

/// Both lists are one set of rules. Without a list of what is allowed everything else is; with one, the parts of the system
/// still are, without which nobody could sign in.
pub(super) fn restricted(context: &Context<'_>, _: &SettingValue, script: &mut Script) {
    let (allowed, blocked) = (context.carried("apps.allowed"), context.carried("apps.blocked"));
    let mut files = Rules::default();
    let mut packages = Rules::default();
    if allowed.is_some() {
        files.allow(file_rule("system", r"%WINDIR%\*", "Allow"));
        packages.allow(package_rule("system", SYSTEM_PUBLISHER, "*", "Allow"));
    } else {
        files.allow(file_rule("all", "*", "Allow"));
        packages.allow(package_rule("all", ANY_PUBLISHER, "*", "Allow"));
    }
    for (key, list, action) in [
        ("apps.allowed", allowed, "Allow"),
        ("apps.blocked", blocked, "Deny"),
    ] {
        let items = list.iter().flat_map(|list| carried_items(key, list));
        let texts: BTreeSet<&str> = items.filter_map(SettingValue::as_text).collect();
        for text in texts {
            match program(text) {
                Some(Program::File(path)) => files.add(file_rule(text, &anywhere(path), action)),
                Some(Program::Package(name)) => {
                    packages.add(package_rule(text, ANY_PUBLISHER, name, action));
                }
                None => {}
            }
        }
    }
    for (rules, kind, node) in [(files, "Exe", EXE_RULES), (packages, "Appx", PACKAGE_RULES)] {
        if allowed.is_some() || rules.has_items {
            let collection = Element::new("RuleCollection")
                .attribute("Type", kind)
                .attribute("EnforcementMode", "Enabled")
                .children(rules.elements);
            script.add_or_replace(node, GROUP, Format::Text, collection.write());
        }
    }
}

#[derive(Default)]
struct Rules {
    elements: Vec<Element>,
    has_items: bool,
}

impl Rules {
    fn allow(&mut self, rule: Element) {
        self.elements.push(rule);
    }

    fn add(&mut self, rule: Element) {
        self.has_items = true;
        self.elements.push(rule);
    }
}

/// The name of a file alone means the file wherever it is.
fn anywhere(path: &str) -> String {
    if path.contains('\\') {
        path.to_owned()
    } else {
        format!(r"*\{path}")
    }
}

fn file_rule(name: &str, path: &str, action: &str) -> Element {
    let condition = Element::new("FilePathCondition").attribute("Path", path);
    rule("FilePathRule", name, action, condition)
}

fn package_rule(name: &str, publisher: &str, product: &str, action: &str) -> Element {
    let versions = Element::new("BinaryVersionRange")
        .attribute("LowSection", "*")
        .attribute("HighSection", "*");
    let condition = Element::new("FilePublisherCondition")
        .attribute("PublisherName", publisher)
        .attribute("ProductName", product)
        .attribute("BinaryName", "*")
        .child(versions);
    rule("FilePublisherRule", name, action, condition)
}

fn rule(kind: &'static str, name: &str, action: &str, condition: Element) -> Element {
    Element::new(kind)
        .attribute("Id", rule_id(&format!("{kind}/{action}/{name}")))
        .attribute("Name", name)
        .attribute("Description", "")
        .attribute("UserOrGroupSid", EVERYONE)
        .attribute("Action", action)
        .child(Element::new("Conditions").child(condition))
}

/// An id that is the same for the same rule: a UUID of version 8 (RFC 9562 section 5.8).
fn rule_id(rule: &str) -> String {
    let sum = digest(&SHA256, rule.as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&sum.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}
