//! From settings to the machine and back: plans every file, writes what differs, undoes what is no longer wanted and
//! then reads back, independently of what was written, what is in force.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::report::{SettingReport, SettingState};
use muster_model::settings::SettingValue;

use super::effects::{self, Effect};
use super::files::{FileError, Root};
use super::managed::{self, Managed, ManagedFile, ManagedStore, OWNED_MARK};
use super::settings::{self, Enforcer, apps_required, passcode_max_age_days};
use super::tools::Tools;

/// Longest explanation in a report.
const DETAIL_CHARS_MAX: usize = 500;
/// A marked file says so in one of its first lines.
const MARK_LINES_MAX: usize = 3;

/// The settings asked for, by catalogue key.
pub(crate) type SettingMap = BTreeMap<String, SettingValue>;

/// What a setting's module may look at.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'m> {
    pub root: &'m Root,
    pub tools: Tools,
    /// All settings asked for: several may share a file.
    pub settings: &'m SettingMap,
}

/// Why a setting was not even tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This machine has no way to say it.
    NotExpressible(String),
    /// It could be said, but something stands in the way.
    Failed(String),
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Refusal {
        Refusal::Failed(error.to_string())
    }
}

/// What reading back found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finding {
    /// In force as asked, or stricter.
    InForce {
        observed: SettingValue,
        note: Option<String>,
    },
    /// In force once something happens that Muster cannot bring about, such as a restart.
    Applied { observed: SettingValue, why: String },
    /// In force as far as this machine can carry it, which is less than asked for.
    Weaker { observed: SettingValue, why: String },
    /// Not in force, or looser than asked for because something else decides.
    Missing {
        observed: Option<SettingValue>,
        why: String,
    },
    /// This machine has no way to say it.
    NotExpressible(String),
}

impl From<FileError> for Finding {
    fn from(error: FileError) -> Finding {
        Finding::Missing {
            observed: None,
            why: error.to_string(),
        }
    }
}

type Edit = Box<dyn FnOnce(&str) -> Result<String, String>>;

enum Content {
    /// The whole file is Muster's.
    Own(String),
    /// Lines of a file that others own.
    Edit(Edit),
}

struct Change {
    key: String,
    content: Content,
    mode: u32,
    effects: Vec<Effect>,
}

/// The files that the settings need, by path.
#[derive(Default)]
pub(crate) struct Plan {
    key: String,
    changes: BTreeMap<String, Vec<Change>>,
}

impl Plan {
    /// A file that is Muster's alone; `comment` starts its lines of explanation.
    pub(crate) fn own(&mut self, path: &str, comment: &str, body: &str, mode: u32, effects: &[Effect]) {
        self.push(
            path,
            Content::Own(format!("{comment} {OWNED_MARK}\n{body}")),
            mode,
            effects,
        );
    }

    /// A file that is Muster's alone and whose format has no comments: the text holds [`OWNED_MARK`] in its first lines.
    pub(crate) fn own_marked(&mut self, path: &str, text: &str, mode: u32) {
        self.push(path, Content::Own(text.to_owned()), mode, &[]);
    }

    /// A change of some lines. The edit is given the text without Muster's lines, empty where there is no file.
    pub(crate) fn edit(
        &mut self,
        path: &str,
        effects: &[Effect],
        edit: impl FnOnce(&str) -> Result<String, String> + 'static,
    ) {
        self.push(path, Content::Edit(Box::new(edit)), 0o644, effects);
    }

    fn push(&mut self, path: &str, content: Content, mode: u32, effects: &[Effect]) {
        let change = Change {
            key: self.key.clone(),
            content,
            mode,
            effects: effects.to_vec(),
        };
        self.changes.entry(path.to_owned()).or_default().push(change);
    }
}

/// One file that has to become something else.
struct Step {
    path: String,
    keys: Vec<String>,
    next: Option<String>,
    mode: u32,
    /// The record while it is managed; `None` where the file goes back to what it was.
    record: Option<ManagedFile>,
    effects: Vec<Effect>,
}

/// Applies settings and undoes those that are gone. One report per setting, none left out.
pub(crate) fn apply(machine: Machine<'_>, store: &ManagedStore) -> BTreeMap<String, SettingReport> {
    let mut refusals = BTreeMap::new();
    let mut plan = Plan::default();
    let mut effects_of: BTreeMap<String, Vec<Effect>> = BTreeMap::new();
    for (key, value) in machine.settings {
        let Some(enforcer) = settings::enforcer(key) else {
            continue;
        };
        if let Err(why) = settings::check_kind(key, value) {
            refusals.insert(key.clone(), Refusal::Failed(why));
            continue;
        }
        plan.key = key.clone();
        if let Err(refusal) = (enforcer.plan)(machine, value, &mut plan) {
            refusals.insert(key.clone(), refusal);
        }
    }
    for change in plan.changes.values().flatten() {
        effects_of
            .entry(change.key.clone())
            .or_default()
            .extend(&change.effects);
    }
    let changed = match write(machine, store, plan, &mut refusals) {
        Ok(effects) => effects,
        Err(error) => {
            for key in machine.settings.keys() {
                let why = format!("the record of changes could not be kept: {error}");
                refusals.entry(key.clone()).or_insert(Refusal::Failed(why));
            }
            BTreeSet::new()
        }
    };
    let mut complaints = run_effects(machine, &changed);
    let mut findings = observe_all(machine);
    if machine.root.is_real() {
        // The files may be right and the running machine not: a flushed ruleset, a radio switched on by hand.
        let unmet = findings
            .iter()
            .filter(|(_, finding)| !matches!(finding, Finding::InForce { .. }));
        let again: BTreeSet<Effect> = unmet
            .filter_map(|(key, _)| effects_of.get(key))
            .flatten()
            .copied()
            .filter(|e| !changed.contains(e))
            .collect();
        if !again.is_empty() {
            complaints.extend(run_effects(machine, &again));
            findings = observe_all(machine);
        }
    }
    let complaint = |key: &String| {
        effects_of
            .get(key)
            .into_iter()
            .flatten()
            .find_map(|effect| complaints.get(effect).cloned())
    };
    let reports = machine.settings.keys().map(|key| {
        let refusal = refusals
            .remove(key)
            .or_else(|| complaint(key).map(Refusal::Failed));
        (key.clone(), report(key, findings.remove(key), refusal))
    });
    reports.collect()
}

/// Reads back what is in force, changing nothing.
pub(crate) fn read_back(machine: Machine<'_>) -> BTreeMap<String, SettingReport> {
    let findings = observe_all(machine).into_iter();
    let mut reports: BTreeMap<_, _> = findings
        .map(|(key, finding)| (key.clone(), report(&key, Some(finding), None)))
        .collect();
    for key in machine.settings.keys() {
        reports
            .entry(key.clone())
            .or_insert_with(|| report(key, None, None));
    }
    reports
}

fn observe_all(machine: Machine<'_>) -> BTreeMap<String, Finding> {
    let known = machine
        .settings
        .iter()
        .filter_map(|(key, value)| Some((key, value, settings::enforcer(key)?)));
    let observe = |(key, value, enforcer): (&String, &SettingValue, &Enforcer)| {
        let finding = match settings::check_kind(key, value) {
            Ok(()) => (enforcer.observe)(machine, value).unwrap_or_else(Finding::from),
            Err(why) => Finding::Missing { observed: None, why },
        };
        (key.clone(), finding)
    };
    known.map(observe).collect()
}

fn run_effects(machine: Machine<'_>, wanted: &BTreeSet<Effect>) -> BTreeMap<Effect, String> {
    let mut complaints = BTreeMap::new();
    if machine.root.is_real() {
        for effect in wanted {
            if let Err(error) = effects::run(*effect, machine.root, machine.tools) {
                complaints.insert(*effect, error.to_string());
            }
        }
    }
    complaints
}

/// Writes every file that differs; the effects of those that changed.
fn write(
    machine: Machine<'_>,
    store: &ManagedStore,
    plan: Plan,
    refusals: &mut BTreeMap<String, Refusal>,
) -> Result<BTreeSet<Effect>, FileError> {
    let mut managed = store.load()?;
    let before = managed.clone();
    let mut changes = plan.changes;
    for path in managed.files.keys() {
        changes.entry(path.clone()).or_default();
    }
    let mut steps = Vec::new();
    for (path, changes) in changes {
        let keys: Vec<String> = changes.iter().map(|change| change.key.clone()).collect();
        match step(machine.root, &managed, path, changes, refusals) {
            Ok(step) => steps.extend(step),
            Err(error) => refuse(refusals, &keys, &error),
        }
    }
    for step in &steps {
        note_pending(machine.root, &mut managed, step);
    }
    for package in apps_required::missing(machine) {
        managed.note_package(&package);
    }
    if managed != before {
        store.save(&managed)?;
    }
    let intended = managed.clone();
    let mut effects = BTreeSet::new();
    for step in steps {
        match carry_out(machine.root, &step, &mut managed) {
            Ok(()) => effects.extend(&step.effects),
            Err(error) => refuse(refusals, &step.keys, &error),
        }
    }
    if managed.files != intended.files {
        remove_empty_folders(machine.root, &mut managed);
    }
    if managed != intended {
        store.save(&managed)?;
    }
    settle_password_ages(machine, store, &mut managed, refusals)?;
    Ok(effects)
}

/// Ages of existing passwords stand in no file of Muster's to write: what each account had is recorded first.
fn settle_password_ages(
    machine: Machine<'_>,
    store: &ManagedStore,
    managed: &mut Managed,
    refusals: &mut BTreeMap<String, Refusal>,
) -> Result<(), FileError> {
    let new = passcode_max_age_days::unrecorded(machine, &managed.password_ages);
    if !new.is_empty() {
        managed.password_ages.extend(new);
        store.save(managed)?;
    }
    let before = managed.password_ages.clone();
    if let Err(error) = passcode_max_age_days::set_ages(machine, &mut managed.password_ages) {
        refusals.insert(passcode_max_age_days::KEY.to_owned(), Refusal::Failed(error));
    }
    if managed.password_ages != before {
        store.save(managed)
    } else {
        Ok(())
    }
}

fn refuse(refusals: &mut BTreeMap<String, Refusal>, keys: &[String], error: &FileError) {
    for key in keys {
        refusals
            .entry(key.clone())
            .or_insert_with(|| Refusal::Failed(error.to_string()));
    }
}

/// What has to be done to one file, `None` where it is as it should be.
fn step(
    root: &Root,
    managed: &Managed,
    path: String,
    changes: Vec<Change>,
    refusals: &mut BTreeMap<String, Refusal>,
) -> Result<Option<Step>, FileError> {
    let current = root.read(&path)?;
    let record = managed.files.get(&path);
    let base = match record {
        Some(record) => record.base(current.as_deref()),
        None => current.clone().filter(|text| !is_marked(text)),
    };
    let mut next = base.clone();
    let mut owned = false;
    let mut mode = 0o644;
    let mut keys = Vec::new();
    let mut effects = record.map(|record| record.effects.clone()).unwrap_or_default();
    for change in changes {
        match change.content {
            Content::Own(text) => (next, owned, mode) = (Some(text), true, change.mode),
            Content::Edit(edit) => match edit(next.as_deref().unwrap_or_default()) {
                Ok(text) if next.is_some() || !text.is_empty() => next = Some(text),
                Ok(_) => {}
                Err(why) => {
                    refusals
                        .entry(change.key.clone())
                        .or_insert(Refusal::Failed(format!("{path}: {why}")));
                }
            },
        }
        keys.push(change.key);
        effects.extend(change.effects);
    }
    effects.sort();
    effects.dedup();
    let trace = next.as_deref().map(|text| managed::trace(text, owned));
    let settled = match record {
        Some(record) => {
            record.pending.is_none() && record.written == trace && record.owned == owned && next != base
        }
        None => next == base,
    };
    if settled && next == current {
        return Ok(None);
    }
    let kept = (next != base).then(|| ManagedFile {
        original: base,
        written: record.and_then(|record| record.finished(current.as_deref())),
        pending: trace,
        owned,
        effects: effects.clone(),
    });
    Ok(Some(Step {
        path,
        keys,
        next,
        mode,
        record: kept,
        effects,
    }))
}

fn note_pending(root: &Root, managed: &mut Managed, step: &Step) {
    if let Some(record) = &step.record {
        managed.files.insert(step.path.clone(), record.clone());
        managed.made_folders.extend(root.missing_folders(&step.path));
    }
}

fn carry_out(root: &Root, step: &Step, managed: &mut Managed) -> Result<(), FileError> {
    match &step.next {
        Some(text) if root.read(&step.path)?.as_ref() != Some(text) => {
            root.write(&step.path, text.as_bytes(), step.mode)?;
        }
        Some(_) => root.remove_leftover(&step.path)?,
        None => {
            root.remove_leftover(&step.path)?;
            root.remove(&step.path)?;
        }
    }
    if step.record.is_none() {
        managed.files.remove(&step.path);
    } else if let Some(record) = managed.files.get_mut(&step.path) {
        record.written = record.pending.take();
    }
    Ok(())
}

/// Innermost first, so that a folder that only held another one goes as well.
fn remove_empty_folders(root: &Root, managed: &mut Managed) {
    for folder in managed.made_folders.iter().rev() {
        root.remove_empty_folder(folder);
    }
    managed.made_folders.retain(|folder| root.exists(folder));
}

fn is_marked(text: &str) -> bool {
    text.lines()
        .take(MARK_LINES_MAX)
        .any(|line| line.trim_end_matches(['"', ',']).ends_with(OWNED_MARK))
}

fn report(key: &str, finding: Option<Finding>, refusal: Option<Refusal>) -> SettingReport {
    let Some(finding) = finding else {
        return settings::unsupported(key);
    };
    let (state, observed, detail) = match (finding, refusal) {
        (Finding::InForce { observed, note }, _) => match settings::shortfall(key) {
            Some(why) => (SettingState::Weaker, Some(observed), Some(why.to_owned())),
            None => (SettingState::Verified, Some(observed), note),
        },
        (Finding::NotExpressible(why), _) | (_, Some(Refusal::NotExpressible(why))) => {
            (SettingState::NotExpressible, None, Some(why))
        }
        (Finding::Missing { observed, why }, Some(Refusal::Failed(reason))) => {
            (SettingState::Failed, observed, Some(format!("{reason}; {why}")))
        }
        (
            Finding::Applied { observed, why } | Finding::Weaker { observed, why },
            Some(Refusal::Failed(reason)),
        ) => (
            SettingState::Failed,
            Some(observed),
            Some(format!("{reason}; {why}")),
        ),
        (Finding::Missing { observed, why }, None) => (SettingState::Failed, observed, Some(why)),
        (Finding::Applied { observed, why }, None) => (SettingState::Applied, Some(observed), Some(why)),
        (Finding::Weaker { observed, why }, None) => (SettingState::Weaker, Some(observed), Some(why)),
    };
    let detail = detail.map(|text| text.chars().take(DETAIL_CHARS_MAX).collect());
    SettingReport {
        state,
        observed,
        detail,
    }
}
