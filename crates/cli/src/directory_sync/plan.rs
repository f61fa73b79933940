//! What has to change so that Muster knows the people and groups that the directory knows. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use muster_ldap::dn_key;
use muster_scim::{ENTERPRISE_USER, name_key};
use serde_json::{Map, Value, json};

use super::config::Vanished;
use super::mapping::{MemberName, Person, Team, Unusable};
use super::reading::Reading;

/// What this connector keeps in Muster.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub people: Vec<HeldPerson>,
    pub teams: Vec<HeldTeam>,
}

/// A person as Muster has them.
#[derive(Debug, Clone)]
pub struct HeldPerson {
    pub id: String,
    /// Nothing where another connector brought them.
    pub external_id: Option<String>,
    pub version: String,
    pub user_name: String,
    pub is_active: bool,
    /// The attributes that this program says.
    pub resource: Map<String, Value>,
}

/// A group as Muster has it.
#[derive(Debug, Clone)]
pub struct HeldTeam {
    pub id: String,
    pub external_id: Option<String>,
    pub version: String,
    pub display_name: String,
    pub members: BTreeSet<String>,
}

/// How to plan.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub vanished: Vanished,
    /// Whether people who are there under the same userName, and whose entry is gone or who are nobody's, are taken over.
    pub is_adopting: bool,
}

/// Somebody who is there, or will be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ref {
    /// An id of Muster.
    Known(String),
    /// A person who is made, by the external id.
    Person(String),
    /// A group that is made, by the external id.
    Team(String),
}

/// What happens to one person.
#[derive(Debug, Clone, PartialEq)]
pub enum PersonStep {
    Create {
        resource: Map<String, Value>,
    },
    /// As a whole; of a version, unless the step before it makes the next one.
    Replace {
        id: String,
        version: Option<String>,
        resource: Map<String, Value>,
        changed: Vec<String>,
    },
    Deactivate {
        id: String,
        version: String,
    },
    Delete {
        id: String,
        version: String,
    },
}

/// What happens to one group, its members aside.
#[derive(Debug, Clone, PartialEq)]
pub enum TeamStep {
    Create,
    Rename {
        id: String,
        version: String,
    },
    Delete {
        id: String,
        version: String,
        members: BTreeSet<String>,
    },
}

/// Who enters a group and who leaves it.
#[derive(Debug, Clone, PartialEq)]
pub struct Members {
    pub team: Ref,
    pub name: String,
    pub add: Vec<Ref>,
    pub remove: Vec<String>,
}

/// A step with the names that people know.
#[derive(Debug, Clone, PartialEq)]
pub struct Named<T> {
    /// The userName or the group's name.
    pub name: String,
    /// Nothing where there is no entry any more.
    pub dn: Option<String>,
    pub external_id: String,
    pub step: T,
}

/// Everything that has to change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub people: Vec<Named<PersonStep>>,
    /// Managers who are made by this plan: of whom, and who.
    pub managers: Vec<(Ref, Ref)>,
    pub teams: Vec<Named<TeamStep>>,
    pub members: Vec<Members>,
    /// Entries that are left out, and why.
    pub problems: Vec<Unusable>,
    /// Members whom no entry is about that was read.
    pub members_elsewhere: usize,
    /// What is there before: active people (all, where they are deleted), groups, memberships, people who are not active.
    pub before: Totals,
    /// People who are not active in Muster, and are again.
    pub reactivated: Vec<String>,
    /// Who loses the value of an attribute, and how many have one, in the order of [`ATTRIBUTES`].
    pub losses: [Losses; ATTRIBUTES.len()],
}

/// Attributes that rules of groups and policies read, and what several of their values are called.
pub const ATTRIBUTES: [(&str, &str); 8] = [
    ("displayName", "display names"),
    ("name", "names"),
    ("title", "titles"),
    ("emails", "mail addresses"),
    ("phoneNumbers", "phone numbers"),
    ("department", "departments"),
    ("organization", "organizations"),
    ("employeeNumber", "employee numbers"),
];

/// Values of one attribute that go without another in their place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Losses {
    pub of: usize,
    pub names: Vec<String>,
}

/// Numbers of a kind each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub people: usize,
    pub teams: usize,
    pub memberships: usize,
    pub inactive: usize,
}

impl Plan {
    /// External ids of people and of groups who would go because their entries are gone.
    pub fn vanished(&self) -> (Vec<&str>, Vec<&str>) {
        let people = self
            .people
            .iter()
            .filter(|one| one.step.is_end() && one.dn.is_none());
        let teams = self.teams.iter().filter(|one| one.dn.is_none());
        (
            people.map(|one| one.external_id.as_str()).collect(),
            teams.map(|one| one.external_id.as_str()).collect(),
        )
    }

    /// Whether somebody would go because their entry is gone.
    pub fn has_vanished(&self) -> bool {
        let (people, teams) = self.vanished();
        !people.is_empty() || !teams.is_empty()
    }
}

impl PersonStep {
    /// Whether somebody who can sign in cannot any more.
    pub fn is_end(&self) -> bool {
        match self {
            PersonStep::Deactivate { .. } | PersonStep::Delete { .. } => true,
            PersonStep::Create { .. } | PersonStep::Replace { .. } => false,
        }
    }
}

/// Compares what was read with what is held.
pub fn plan(reading: &Reading, held: &Held, options: Options) -> Plan {
    let mut plan = Plan {
        problems: reading
            .unusable_people
            .iter()
            .chain(&reading.unusable_teams)
            .cloned()
            .collect(),
        before: before(held, options),
        ..Plan::default()
    };
    let matched = Matched::of(reading, held, options, &mut plan);
    people(reading, held, options, &matched, &mut plan);
    if reading.has_teams {
        teams(reading, held, &matched, &mut plan);
        members(reading, held, &matched, &mut plan);
    }
    plan
}

/// What is there before.
pub fn before(held: &Held, options: Options) -> Totals {
    let own = held.people.iter().filter(|one| one.external_id.is_some());
    let inactive = own.clone().filter(|one| !one.is_active).count();
    let own_teams = || held.teams.iter().filter(|one| one.external_id.is_some());
    Totals {
        people: match options.vanished {
            Vanished::Deactivate => own.filter(|one| one.is_active).count(),
            Vanished::Delete => own.count(),
        },
        teams: own_teams().count(),
        memberships: own_teams().map(|one| one.members.len()).sum(),
        inactive,
    }
}

/// Somebody who has a uid: nobody where the entry cannot be brought over; and who has it in Muster.
type Meant<'a> = (Option<Ref>, Option<&'a str>);

/// Who of the directory is who of Muster.
struct Matched<'a> {
    /// By external id, of people who were read: the one in Muster.
    people: HashMap<&'a str, &'a HeldPerson>,
    teams: HashMap<&'a str, &'a HeldTeam>,
    /// People who cannot be brought over.
    refused: HashSet<&'a str>,
    /// External ids of entries that are there, whatever can be done with them.
    present: HashSet<&'a str>,
    /// Ids of Muster that were matched.
    taken: HashSet<&'a str>,
    /// Everybody who can be a member or a manager, by the key of the name.
    by_dn: HashMap<String, Ref>,
    by_uid: HashMap<&'a str, Ref>,
    /// Ids of Muster whom a name may mean: who is a member under it stays one.
    unclear: BTreeMap<MemberName, BTreeSet<&'a str>>,
    /// Ids of Muster whose entries were moved while the directory was read.
    moved: HashSet<&'a str>,
}

impl<'a> Matched<'a> {
    fn of(reading: &'a Reading, held: &'a Held, options: Options, plan: &mut Plan) -> Matched<'a> {
        let mut own: HashMap<&str, &HeldPerson> = HashMap::new();
        for one in &held.people {
            if let Some(id) = &one.external_id {
                own.entry(id).or_insert(one);
            }
        }
        let unusable = || reading.unusable_people.iter().chain(&reading.unusable_teams);
        let people = reading.people.iter().map(|one| one.external_id.as_str());
        let teams = reading.teams.iter().map(|one| one.external_id.as_str());
        let present: HashSet<&str> = people
            .chain(teams)
            .chain(unusable().filter_map(|one| one.external_id.as_deref()))
            .chain(reading.moved.iter().map(String::as_str))
            .collect();
        let mut matched = Matched {
            people: HashMap::new(),
            teams: HashMap::new(),
            refused: HashSet::new(),
            present,
            taken: HashSet::new(),
            by_dn: HashMap::new(),
            by_uid: HashMap::new(),
            unclear: BTreeMap::new(),
            moved: HashSet::new(),
        };
        let is_moved = |id: &Option<String>| id.as_ref().is_some_and(|id| reading.moved.contains(id));
        let people = held.people.iter().map(|one| (&one.id, &one.external_id));
        let teams = held.teams.iter().map(|one| (&one.id, &one.external_id));
        let moved = people.chain(teams).filter(|(_, id)| is_moved(id));
        matched.moved.extend(moved.map(|(id, _)| id.as_str()));
        matched.match_people(reading, held, &own, options, plan);
        matched.match_teams(reading, held, options);
        matched.name(reading, &own);
        matched
    }

    fn match_people(
        &mut self,
        reading: &'a Reading,
        held: &'a Held,
        own: &HashMap<&str, &'a HeldPerson>,
        options: Options,
        plan: &mut Plan,
    ) {
        let by_name: HashMap<String, &HeldPerson> = held
            .people
            .iter()
            .map(|one| (name_key(&one.user_name), one))
            .collect();
        // Who is deleted by this plan gives the name free before it is given away.
        let is_freed = options.vanished == Vanished::Delete && reading.is_complete();
        for person in &reading.people {
            let id = person.external_id.as_str();
            if let Some(found) = own.get(id) {
                self.people.insert(id, found);
                self.taken.insert(&found.id);
                continue;
            }
            let Some(holder) = by_name.get(&name_key(&person.user_name)) else {
                continue;
            };
            let is_gone = match &holder.external_id {
                Some(id) => !self.present.contains(id.as_str()),
                None => true,
            };
            if !is_gone {
                // Whoever has the name now is about to get another.
                continue;
            }
            if options.is_adopting {
                self.people.insert(id, holder);
                self.taken.insert(&holder.id);
            } else if holder.external_id.is_some() && !is_freed {
                self.refused.insert(id);
                let why = format!(
                    "the userName {} is that of {}, whose entry is gone: --adopt for one run if it is the same person, \
                     sync.vanished = \"delete\" if not",
                    person.user_name, holder.id
                );
                plan.problems.push(person.clone().unusable(why));
            }
        }
    }

    fn match_teams(&mut self, reading: &'a Reading, held: &'a Held, options: Options) {
        for one in &held.teams {
            if let Some(id) = &one.external_id {
                self.teams.entry(id).or_insert(one);
            }
        }
        let mut gone: HashMap<&str, &HeldTeam> = HashMap::new();
        if options.is_adopting {
            let is_gone = |one: &&HeldTeam| {
                let id = one.external_id.as_deref();
                id.is_some_and(|id| !self.present.contains(id))
            };
            gone = held
                .teams
                .iter()
                .filter(is_gone)
                .map(|one| (one.display_name.as_str(), one))
                .collect();
        }
        for team in &reading.teams {
            let id = team.external_id.as_str();
            let found = self.teams.get(id).copied();
            if let Some(found) = found.or_else(|| gone.remove(team.display_name.as_str())) {
                self.teams.insert(id, found);
                self.taken.insert(&found.id);
            }
        }
    }

    fn name(&mut self, reading: &'a Reading, own: &HashMap<&str, &'a HeldPerson>) {
        let mut uids: HashMap<&str, Vec<Meant<'a>>> = HashMap::new();
        for person in &reading.people {
            let id = person.external_id.as_str();
            if self.refused.contains(id) {
                continue;
            }
            let who = match self.people.get(id) {
                Some(found) => Ref::Known(found.id.clone()),
                None => Ref::Person(person.external_id.clone()),
            };
            if let Some(uid) = &person.uid {
                let known = self.people.get(id).map(|found| found.id.as_str());
                uids.entry(uid).or_default().push((Some(who.clone()), known));
            }
            self.by_dn.insert(dn_key(&person.dn), who);
        }
        for team in &reading.teams {
            let who = match self.teams.get(team.external_id.as_str()) {
                Some(found) => Ref::Known(found.id.clone()),
                None => Ref::Team(team.external_id.clone()),
            };
            self.by_dn.insert(dn_key(&team.dn), who);
        }
        // Who is there and cannot be read right stays where they are.
        for one in &reading.unusable_people {
            let found = one.external_id.as_deref().and_then(|id| own.get(id));
            for uid in &one.uids {
                let known = found.map(|found| found.id.as_str());
                uids.entry(uid).or_default().push((None, known));
            }
            if let Some(found) = found {
                let key = dn_key(&one.dn);
                self.by_dn.insert(key.clone(), Ref::Known(found.id.clone()));
                self.unclear
                    .entry(MemberName::Dn(key))
                    .or_default()
                    .insert(&found.id);
            }
        }
        // Of two people with one uid, nobody knows who is meant: nobody enters under it, and nobody leaves.
        for (uid, mut who) in uids {
            if let [(Some(_), _)] = who.as_slice() {
                self.by_uid
                    .extend(who.pop().and_then(|(who, _)| Some((uid, who?))));
                continue;
            }
            let ids = self.unclear.entry(MemberName::Uid(uid.to_owned())).or_default();
            ids.extend(who.into_iter().filter_map(|(_, known)| known));
        }
        for one in &reading.unusable_teams {
            let found = one.external_id.as_deref().and_then(|id| self.teams.get(id));
            if let Some(found) = found {
                let key = dn_key(&one.dn);
                self.by_dn.insert(key.clone(), Ref::Known(found.id.clone()));
                self.unclear
                    .entry(MemberName::Dn(key))
                    .or_default()
                    .insert(&found.id);
            }
        }
    }
}

impl Plan {
    /// Notes what somebody loses or gets back: of too many at once it is an attribute that the account may not read any more.
    fn weigh(&mut self, person: &Person, found: &HeldPerson, resource: &Map<String, Value>) {
        for (losses, (name, _)) in self.losses.iter_mut().zip(ATTRIBUTES) {
            if value_of(&found.resource, name).is_none() {
                continue;
            }
            losses.of += 1;
            if value_of(resource, name).is_none() {
                losses.names.push(person.user_name.clone());
            }
        }
        // Whoever is taken over under another id comes back because somebody said so.
        let is_same = found.external_id.as_ref() == Some(&person.external_id);
        if is_same && !found.is_active && person.is_active {
            self.reactivated.push(person.user_name.clone());
        }
    }
}

fn value_of<'a>(resource: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let work = || resource.get(ENTERPRISE_USER.id)?.get(name);
    resource.get(name).or_else(work)
}

fn people(reading: &Reading, held: &Held, options: Options, matched: &Matched<'_>, plan: &mut Plan) {
    for person in &reading.people {
        let id = person.external_id.as_str();
        if matched.refused.contains(id) {
            continue;
        }
        let found = matched.people.get(id).copied();
        let manager = person.manager.as_ref().and_then(|key| matched.by_dn.get(key));
        let resource = match manager {
            Some(Ref::Known(manager)) => wanted(person, Some(manager)),
            Some(made @ Ref::Person(_)) => {
                let who = found.map_or_else(
                    || Ref::Person(id.to_owned()),
                    |found| Ref::Known(found.id.clone()),
                );
                plan.managers.push((who, made.clone()));
                wanted(person, None)
            }
            // A manager who was not read in a reading that was cut off, or was moved meanwhile, is no manager who is gone.
            None if person.manager.is_some() => {
                let now = found.and_then(|found| manager_of(&found.resource));
                wanted(
                    person,
                    now.filter(|now| !reading.is_complete() || matched.moved.contains(now)),
                )
            }
            Some(Ref::Team(_)) | None => wanted(person, None),
        };
        let steps = match found {
            None => vec![PersonStep::Create { resource }],
            Some(found) => {
                plan.weigh(person, found, &resource);
                replaced(found, resource)
            }
        };
        let named = steps.into_iter().map(|step| named_person(person, step));
        plan.people.extend(named);
    }
    ended(reading, held, plan);
    if !reading.is_complete() {
        return;
    }
    for one in &held.people {
        let Some(external_id) = &one.external_id else {
            continue;
        };
        if matched.present.contains(external_id.as_str()) || matched.taken.contains(one.id.as_str()) {
            continue;
        }
        let (id, version) = (one.id.clone(), one.version.clone());
        let step = match options.vanished {
            Vanished::Deactivate if !one.is_active => continue,
            Vanished::Deactivate => PersonStep::Deactivate { id, version },
            Vanished::Delete => PersonStep::Delete { id, version },
        };
        plan.people.push(Named {
            name: one.user_name.clone(),
            dn: None,
            external_id: external_id.clone(),
            step,
        });
    }
}

/// People whose entry cannot be brought over, and says all the same that they are not active. Nobody stays in because something
/// else is wrong with their entry.
fn ended(reading: &Reading, held: &Held, plan: &mut Plan) {
    // Of several entries with one id, each must say so: nobody is ended by a stranger who gave themselves their id.
    let mut by_id: HashMap<&str, &Unusable> = HashMap::new();
    for one in &reading.unusable_people {
        if let Some(id) = &one.external_id {
            let all = by_id.entry(id).or_insert(one);
            if !one.is_inactive {
                *all = one;
            }
        }
    }
    by_id.retain(|_, one| one.is_inactive);
    for one in held.people.iter().filter(|one| one.is_active) {
        let Some(external_id) = &one.external_id else {
            continue;
        };
        let Some(entry) = by_id.get(external_id.as_str()) else {
            continue;
        };
        plan.people.push(Named {
            name: one.user_name.clone(),
            dn: Some(entry.dn.clone()),
            external_id: external_id.clone(),
            step: PersonStep::Deactivate {
                id: one.id.clone(),
                version: one.version.clone(),
            },
        });
    }
}

fn named_person(person: &Person, step: PersonStep) -> Named<PersonStep> {
    Named {
        name: person.user_name.clone(),
        dn: Some(person.dn.clone()),
        external_id: person.external_id.clone(),
        step,
    }
}

/// The manager of a resource.
fn manager_of(resource: &Map<String, Value>) -> Option<&str> {
    resource
        .get(ENTERPRISE_USER.id)?
        .get("manager")?
        .get("value")?
        .as_str()
}

/// A person's attributes with the manager.
fn wanted(person: &Person, manager: Option<&str>) -> Map<String, Value> {
    let mut resource = person.resource.clone();
    if let Some(manager) = manager {
        let enterprise = resource
            .entry(ENTERPRISE_USER.id)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(enterprise) = enterprise {
            enterprise.insert("manager".to_owned(), json!({"value": manager}));
        }
    }
    resource
}

/// What makes a person what is wanted. Whoever ends is ended by a step of its own: it must not wait for a name that somebody else
/// has.
fn replaced(found: &HeldPerson, resource: Map<String, Value>) -> Vec<PersonStep> {
    let names: BTreeSet<&String> = found.resource.keys().chain(resource.keys()).collect();
    let mut changed: Vec<String> = names
        .into_iter()
        .filter(|name| found.resource.get(*name) != resource.get(*name))
        .map(|name| match name == ENTERPRISE_USER.id {
            true => "work".to_owned(),
            false => name.clone(),
        })
        .collect();
    let mut steps = Vec::new();
    let mut version = Some(found.version.clone());
    if found.is_active && resource.get("active") == Some(&Value::Bool(false)) {
        steps.push(PersonStep::Deactivate {
            id: found.id.clone(),
            version: found.version.clone(),
        });
        version = None;
        changed.retain(|name| name != "active");
    }
    if !changed.is_empty() {
        steps.push(PersonStep::Replace {
            id: found.id.clone(),
            version,
            resource,
            changed,
        });
    }
    steps
}

fn teams(reading: &Reading, held: &Held, matched: &Matched<'_>, plan: &mut Plan) {
    for team in &reading.teams {
        let step = match matched.teams.get(team.external_id.as_str()) {
            None => TeamStep::Create,
            Some(found)
                if found.display_name != team.display_name
                    || found.external_id.as_deref() != Some(team.external_id.as_str()) =>
            {
                TeamStep::Rename {
                    id: found.id.clone(),
                    version: found.version.clone(),
                }
            }
            Some(_) => continue,
        };
        plan.teams.push(Named {
            name: team.display_name.clone(),
            dn: Some(team.dn.clone()),
            external_id: team.external_id.clone(),
            step,
        });
    }
    if !reading.is_complete() {
        return;
    }
    for one in &held.teams {
        let Some(external_id) = &one.external_id else {
            continue;
        };
        if matched.present.contains(external_id.as_str()) || matched.taken.contains(one.id.as_str()) {
            continue;
        }
        plan.teams.push(Named {
            name: one.display_name.clone(),
            dn: None,
            external_id: external_id.clone(),
            step: TeamStep::Delete {
                id: one.id.clone(),
                version: one.version.clone(),
                members: one.members.clone(),
            },
        });
    }
}

fn members(reading: &Reading, held: &Held, matched: &Matched<'_>, plan: &mut Plan) {
    let none = BTreeSet::new();
    let known: BTreeMap<&str, &HeldTeam> = held.teams.iter().map(|one| (one.id.as_str(), one)).collect();
    for team in &reading.teams {
        let found = matched.teams.get(team.external_id.as_str());
        let found = found.and_then(|found| known.get(found.id.as_str()).copied());
        let now = found.map_or(&none, |found| &found.members);
        let (wanted, unclear, elsewhere) = wanted_members(team, matched);
        plan.members_elsewhere += elsewhere;
        if let Some(gap) = &team.gap {
            let why = format!("not all of its members could be read, so nobody leaves it: {gap}");
            plan.problems.push(Unusable {
                dn: team.dn.clone(),
                external_id: Some(team.external_id.clone()),
                uids: BTreeSet::new(),
                is_inactive: false,
                why,
            });
        }
        let stays = |id: &str| unclear.contains(id) || matched.moved.contains(id);
        let add: Vec<Ref> = wanted
            .iter()
            .filter(|who| !matches!(who, Ref::Known(id) if now.contains(id)))
            .cloned()
            .collect();
        let remove: Vec<String> = match reading.is_complete() && team.gap.is_none() {
            true => now
                .iter()
                .filter(|id| !wanted.contains(&Ref::Known((*id).clone())) && !stays(id))
                .cloned()
                .collect(),
            false => Vec::new(),
        };
        if add.is_empty() && remove.is_empty() {
            continue;
        }
        plan.members.push(Members {
            team: match found {
                Some(found) => Ref::Known(found.id.clone()),
                None => Ref::Team(team.external_id.clone()),
            },
            name: team.display_name.clone(),
            add,
            remove,
        });
    }
}

/// Who is a member; of whom that cannot be said; and how many members are nobody that was read. A group is no member of itself.
fn wanted_members<'a>(team: &Team, matched: &Matched<'a>) -> (BTreeSet<Ref>, BTreeSet<&'a str>, usize) {
    let itself = matched.by_dn.get(&dn_key(&team.dn));
    let (mut wanted, mut unclear, mut elsewhere) = (BTreeSet::new(), BTreeSet::new(), 0);
    for name in &team.members {
        let found = match name {
            MemberName::Dn(key) => matched.by_dn.get(key),
            MemberName::Uid(uid) => matched.by_uid.get(uid.as_str()),
        };
        unclear.extend(matched.unclear.get(name).into_iter().flatten());
        match found {
            Some(found) if Some(found) == itself => {}
            Some(found) => drop(wanted.insert(found.clone())),
            None => elsewhere += 1,
        }
    }
    (wanted, unclear, elsewhere)
}
