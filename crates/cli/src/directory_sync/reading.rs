//! Everything that a directory said: people, groups, and what is not to be used.

use std::collections::{BTreeMap, BTreeSet};

use indicatif::ProgressBar;
use muster_scim::name_key;

use crate::output::clean;

use super::config::{Config, GroupMap, IdAttribute, Query};
use super::connect::{LdapError, Session};
use super::mapping::{
    Person, Team, Unusable, external_id, group_attributes, id_bytes, person, person_attributes, team,
};
use super::search::{Bounds, every_entry, more_values, next_of, range_of, those_there};

/// People, groups, members of a group, and memberships: what a tenant of Muster may have (docs/reference/scim.md).
const PEOPLE_MAX: usize = 200_000;
const TEAMS_MAX: usize = 20_000;
const MEMBERS_MAX: usize = 200_000;
const MEMBERSHIPS_MAX: usize = 4_000_000;
/// Bytes that a member takes beside its name.
const MEMBER_BYTES: usize = 48;
/// Bytes of everything that is kept of one reading, about.
const BYTES_MAX: usize = 1024 * 1024 * 1024;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    pub people: Vec<Person>,
    pub teams: Vec<Team>,
    /// Whether groups were read at all.
    pub has_teams: bool,
    pub unusable_people: Vec<Unusable>,
    pub unusable_teams: Vec<Unusable>,
    /// Ids of entries that were not read, and were there when they were asked for by their ids: they were moved meanwhile.
    pub moved: BTreeSet<String>,
    /// Why not everything was read. Nothing is taken away then.
    pub cuts: Vec<String>,
    pub referrals: usize,
}

impl Reading {
    /// Whether what is not here is gone.
    pub fn is_complete(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Memberships as they are written.
    pub fn memberships(&self) -> usize {
        self.teams.iter().map(|team| team.members.len()).sum()
    }

    /// Takes people and groups as they were found, and sorts out what cannot be: entries that come twice, ids and names that
    /// two have. Whoever is sorted out is there all the same, and is neither changed nor taken away.
    pub fn new(
        people: Vec<Result<Person, Unusable>>,
        teams: Option<Vec<Result<Team, Unusable>>>,
        cuts: Vec<String>,
        referrals: usize,
    ) -> Reading {
        let mut reading = Reading {
            has_teams: teams.is_some(),
            cuts,
            referrals,
            ..Reading::default()
        };
        let (people, unusable) = parted(
            people,
            |person| (&person.dn, &person.external_id),
            Person::unusable,
        );
        reading.unusable_people = unusable;
        let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, person) in people.iter().enumerate() {
            names.entry(name_key(&person.user_name)).or_default().push(at);
        }
        let twice: BTreeSet<usize> = names.into_values().filter(|at| at.len() > 1).flatten().collect();
        for (at, person) in people.into_iter().enumerate() {
            match twice.contains(&at) {
                false => reading.people.push(person),
                true => {
                    let why = format!("another entry has the userName {} too", person.user_name);
                    reading.unusable_people.push(person.unusable(why));
                }
            }
        }
        let (teams, unusable) = parted(
            teams.unwrap_or_default(),
            |team| (&team.dn, &team.external_id),
            Team::unusable,
        );
        (reading.teams, reading.unusable_teams) = (teams, unusable);
        for (what, unusable) in [
            ("people", &reading.unusable_people),
            ("groups", &reading.unusable_teams),
        ] {
            let nameless = unusable.iter().filter(|one| one.external_id.is_none()).count();
            if nameless > 0 {
                reading.cuts.push(format!(
                    "{nameless} {what} have no id, so nobody knows who they are"
                ));
            }
        }
        reading
    }

    /// Takes a reading that found nobody, or no group, for one that was cut off, where there are so many in Muster: an account
    /// that lost its right to read sees just that. `allowed` is the number that a person allowed for this run.
    pub fn doubt(&mut self, people: usize, teams: usize, allowed: Option<usize>) {
        let allowed = allowed.unwrap_or_default();
        let (has_people, has_teams) = (
            !self.people.is_empty() || !self.unusable_people.is_empty(),
            !self.teams.is_empty() || !self.unusable_teams.is_empty() || !self.has_teams,
        );
        for (what, is_there, held) in [("people", has_people, people), ("groups", has_teams, teams)] {
            if !is_there && held > allowed {
                self.cuts
                    .push(format!("no {what} at all are found, and Muster has {held}"));
            }
        }
    }
}

/// How much more can be kept of a reading.
pub struct Room {
    pub bytes: usize,
    pub memberships: usize,
}

impl Room {
    /// Whether there is room, which is taken.
    pub fn take(&mut self, bytes: usize, memberships: usize) -> bool {
        let left = (
            self.bytes.checked_sub(bytes),
            self.memberships.checked_sub(memberships),
        );
        match left {
            (Some(bytes), Some(memberships)) => {
                (self.bytes, self.memberships) = (bytes, memberships);
                true
            }
            _ => {
                // What comes after it is left out too.
                (self.bytes, self.memberships) = (0, 0);
                false
            }
        }
    }
}

/// What can be used, each entry once, and what cannot.
fn parted<T>(
    found: Vec<Result<T, Unusable>>,
    of: impl Fn(&T) -> (&String, &String),
    refused: impl Fn(T, String) -> Unusable,
) -> (Vec<T>, Vec<Unusable>) {
    // Bases that lie in each other give an entry twice. Two entries with one id, or with names that cannot be told apart, are two.
    let mut once: BTreeMap<(String, Option<String>), Result<T, Unusable>> = BTreeMap::new();
    for one in found {
        let (dn, id) = match &one {
            Ok(one) => (of(one).0, Some(of(one).1.clone())),
            Err(unusable) => (&unusable.dn, unusable.external_id.clone()),
        };
        once.insert((muster_ldap::dn_key(dn), id), one);
    }
    let (mut names, mut ids): (BTreeMap<String, usize>, BTreeMap<String, usize>) = Default::default();
    for (name, id) in once.keys() {
        *names.entry(name.clone()).or_default() += 1;
        if let Some(id) = id {
            *ids.entry(id.clone()).or_default() += 1;
        }
    }
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for ((name, id), one) in once {
        let is_alone = names.get(&name) == Some(&1);
        let id = id.unwrap_or_default();
        match one {
            Err(one) => unusable.push(one),
            Ok(one) if ids.get(&id) != Some(&1) => {
                unusable.push(refused(one, format!("another entry has the id {id} too")));
            }
            Ok(one) if !is_alone => {
                unusable.push(refused(
                    one,
                    "another entry has the same name, as far as names can be compared".to_owned(),
                ));
            }
            Ok(one) => usable.push(one),
        }
    }
    (usable, unusable)
}

/// Reads people and groups.
///
/// # Errors
/// The directory refused, or the connection ended: there is no reading then.
pub async fn read(
    session: &mut Session,
    config: &Config,
    now_seconds: i64,
    progress: &ProgressBar,
) -> Result<Reading, LdapError> {
    let mut cuts = Vec::new();
    let bounds = Bounds {
        page_entries: config.ldap.page_entries,
        entries_max: PEOPLE_MAX,
        pages_max: usize::MAX,
    };
    let mut room = Room {
        bytes: BYTES_MAX,
        memberships: MEMBERSHIPS_MAX,
    };
    let no_room = "it is more than 1 GiB, or more memberships than Muster has";
    let (mut people, mut is_full) = (Vec::new(), false);
    let attributes = person_attributes(&config.person);
    let searched = every_entry(session, &config.people, &attributes, bounds, |entry| {
        let made = person(&entry, &config.person, now_seconds);
        let weight = made.as_ref().map_or_else(Unusable::weight, Person::weight);
        is_full |= !room.take(weight, 0);
        if is_full {
            return;
        }
        people.push(made);
        if people.len().is_multiple_of(100) {
            progress.set_message(format!("reading the directory: {} people", people.len()));
        }
    })
    .await?;
    let mut referrals = searched.referrals;
    cuts.extend(searched.cut.map(|cut| format!("people: {cut}")));
    if is_full {
        cuts.push(format!("people: {no_room}"));
    }
    let mut teams = None;
    if let Some((query, map)) = &config.groups {
        let bounds = Bounds {
            entries_max: TEAMS_MAX,
            ..bounds
        };
        let attributes = group_attributes(map);
        let (mut found, mut open) = (Vec::new(), Vec::new());
        let searched = every_entry(session, query, &attributes, bounds, |entry| {
            let mut made = team(&entry, map);
            let mut parts = Vec::new();
            if let Ok(team) = &mut made {
                parts = opened(&entry, map, team, found.len());
                if team.members.len() > MEMBERS_MAX {
                    team.members.clear();
                    team.gap = Some(format!("it has more than {MEMBERS_MAX} members"));
                }
            }
            let weight = made.as_ref().map_or_else(Unusable::weight, Team::weight);
            let count = made.as_ref().map_or(0, |team| team.members.len());
            is_full |= !room.take(weight, count);
            if is_full {
                return;
            }
            open.extend(parts);
            found.push(made);
            progress.set_message(format!("reading the directory: {} groups", found.len()));
        })
        .await?;
        referrals += searched.referrals;
        cuts.extend(searched.cut.map(|cut| format!("groups: {cut}")));
        for part in open {
            let Some(Ok(team)) = found.get_mut(part.team) else {
                continue;
            };
            progress.set_message(format!("reading the members of {}", clean(&team.display_name)));
            let dn = team.dn.clone();
            let rest = MEMBERS_MAX.saturating_sub(team.members.len());
            let gap = more_values(session, &dn, &part.attribute, part.next, rest, |values| {
                let weight = values.iter().map(|value| value.len() + MEMBER_BYTES).sum();
                is_full |= !room.take(weight, values.len());
                if !is_full {
                    team.extend(values);
                }
                !is_full
            })
            .await?;
            team.gap = team.gap.take().or(gap);
        }
        if is_full {
            cuts.push(format!("groups: {no_room}"));
        }
        teams = Some(found);
    }
    Ok(Reading::new(people, teams, cuts, referrals))
}

/// Which ids are there all the same: people and groups that were not read, asked for one by one. An entry that was moved from
/// one place to another while both were read is in neither reading.
///
/// # Errors
/// The directory could not be asked: nobody knows then who is gone.
pub async fn still_there(
    session: &mut Session,
    config: &Config,
    people: &[&str],
    teams: &[&str],
) -> Result<BTreeSet<String>, LdapError> {
    let mut there = BTreeSet::new();
    let mut look = async |query: &Query, id: &IdAttribute, wanted: &[&str]| {
        let wanted: Vec<Vec<u8>> = wanted.iter().filter_map(|text| id_bytes(text, id)).collect();
        those_there(session, query, &id.name, &wanted, |entry| {
            there.extend(external_id(&entry, id).ok());
        })
        .await
    };
    look(&config.people, &config.person.external_id, people).await?;
    if let Some((query, map)) = &config.groups {
        look(query, &map.external_id, teams).await?;
    }
    Ok(there)
}

/// Members that a directory sends in parts, and where the next part begins.
struct Part {
    team: usize,
    attribute: String,
    next: u32,
}

/// Takes the first parts into the group; answers what is still to be asked for.
fn opened(entry: &muster_ldap::Entry, map: &GroupMap, team: &mut Team, at: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    for attribute in &map.members {
        let Some((range, values)) = range_of(entry, attribute) else {
            continue;
        };
        team.extend(values);
        match next_of(range, values.len()) {
            _ if range.first != 0 => team.gap = Some(format!("{attribute}: the first part is missing")),
            Err(why) => team.gap = Some(format!("{attribute}: {why}")),
            Ok(None) => {}
            Ok(Some(next)) => parts.push(Part {
                team: at,
                attribute: attribute.clone(),
                next,
            }),
        }
    }
    parts
}

/// The first few people and groups, to be shown.
pub async fn sample(
    session: &mut Session,
    config: &Config,
    now_seconds: i64,
    count: u32,
) -> Result<(Vec<Result<Person, Unusable>>, usize), LdapError> {
    let bounds = Bounds {
        page_entries: count,
        entries_max: PEOPLE_MAX,
        pages_max: 1,
    };
    let mut people = Vec::new();
    let attributes = person_attributes(&config.person);
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let searched = every_entry(session, &config.people, &attributes, bounds, |entry| {
        if people.len() < wanted {
            people.push(person(&entry, &config.person, now_seconds));
        }
    })
    .await?;
    Ok((people, searched.referrals))
}

/// The first few groups, to be shown, and how many members each answer held.
pub async fn sample_teams(
    session: &mut Session,
    config: &Config,
    count: u32,
) -> Result<Option<Vec<Result<Team, Unusable>>>, LdapError> {
    let Some((query, map)) = &config.groups else {
        return Ok(None);
    };
    let bounds = Bounds {
        page_entries: count,
        entries_max: TEAMS_MAX,
        pages_max: 1,
    };
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let mut teams = Vec::new();
    every_entry(session, query, &group_attributes(map), bounds, |entry| {
        if teams.len() < wanted {
            let mut made = team(&entry, map);
            if let Ok(team) = &mut made {
                opened(&entry, map, team, 0);
            }
            teams.push(made);
        }
    })
    .await?;
    Ok(Some(teams))
}
