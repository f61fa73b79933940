//! Packages that came, changed or went, and whether an update waits for a restart.

use std::collections::BTreeMap;

use muster_model::telemetry::{EventKind, Metric};

use super::super::facts::all_packages;
use super::{APPS, Collector, Look, LookAt};

const STATUS: &str = "/var/lib/dpkg/status";
const RESTART: [&str; 2] = ["/run/reboot-required", "/var/run/reboot-required"];
/// Most packages that are compared.
const PACKAGES_MAX: usize = 20_000;
/// Most changes that are told of one look: an upgrade of the whole system is not a thousand events.
const TOLD_MAX: usize = 64;

impl Collector {
    pub(super) fn see_apps(&mut self, at: LookAt<'_>, look: &mut Look) {
        if at.wants(&[Metric::RebootRequired]) {
            let waits = RESTART.iter().any(|path| self.root.exists(path));
            look.read(Metric::RebootRequired, f64::from(u8::from(waits)));
        }
        // The file is large and seldom changes: it is read when it did.
        let written = self.root.stat(STATUS).map(|stat| stat.modified_seconds);
        if let Some(written) = written
            && written != self.seen.packages_at
        {
            let packages = all_packages(&self.root, PACKAGES_MAX).into_iter();
            let now: BTreeMap<String, String> =
                packages.map(|package| (package.name, package.version)).collect();
            if self.seen.packages_at != 0 {
                tell(&self.apps, &now, at, look);
            }
            self.seen.packages_at = written;
            self.seen.packages = now.len() as u64;
            let bytes = serde_json::to_vec(&now).expect("names and versions are texts");
            look.memos.push((APPS, bytes));
            self.apps = now;
        }
        if self.seen.packages > 0 {
            look.read(Metric::Packages, self.seen.packages as f64);
        }
    }
}

fn tell(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>, at: LookAt<'_>, look: &mut Look) {
    let mut told = 0;
    for (app, version) in now {
        let old = before.get(app);
        if old == Some(version) || told == TOLD_MAX {
            continue;
        }
        told += 1;
        let (app, version) = (("app", app.clone()), ("version", version.clone()));
        match old {
            None => look.happened(EventKind::AppInstalled, at.now, [app, version]),
            Some(old) => look.happened(
                EventKind::AppUpdated,
                at.now,
                [app, ("from", old.clone()), version],
            ),
        }
    }
    let gone = before.iter().filter(|(app, _)| !now.contains_key(*app));
    for (app, version) in gone.take(TOLD_MAX - told) {
        let pairs = [("app", app.clone()), ("version", version.clone())];
        look.happened(EventKind::AppRemoved, at.now, pairs);
    }
}
