//! Everything that a directory said: people, groups, and what is not to be used.

use std::collections::{BTreeMap, BTreeSet};

use indicatif::ProgressBar;
use muster_scim::name_key;

use super::config::{Config, GroupMap};
use super::connect::{LdapError, Session};
use super::mapping::{
    MemberName, Person, Team, Unusable, group_attributes, member_names, person, person_attributes, team,
};
use super::search::{Bounds, every_entry, more_values, range_of};

/// People, groups, members of a group, and memberships: what a tenant of Muster may have (docs/reference/scim.md).
const PEOPLE_MAX: usize = 200_000;
const TEAMS_MAX: usize = 20_000;
const MEMBERS_MAX: usize = 200_000;
const MEMBERSHIPS_MAX: usize = 4_000_000;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    pub people: Vec<Person>,
    pub teams: Vec<Team>,
    /// Whether groups were read at all.
    pub has_teams: bool,
    pub unusable_people: Vec<Unusable>,
    pub unusable_teams: Vec<Unusable>,
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
        let (people, unusable) = parted(people, |person| (&person.dn, &person.external_id));
        reading.unusable_people = unusable;
        let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, person) in people.iter().enumerate() {
            names.entry(name_key(&person.user_name)).or_default().push(at);
        }
        let twice: BTreeSet<usize> = names.into_values().filter(|at| at.len() > 1).flatten().collect();
        for (at, person) in people.into_iter().enumerate() {
            match twice.contains(&at) {
                false => reading.people.push(person),
                true => reading.unusable_people.push(Unusable {
                    why: format!("another entry has the userName {} too", person.user_name),
                    dn: person.dn,
                    external_id: Some(person.external_id),
                    is_inactive: !person.is_active,
                }),
            }
        }
        let (teams, unusable) = parted(teams.unwrap_or_default(), |team| (&team.dn, &team.external_id));
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
}

/// What can be used, each entry once, and what cannot.
fn parted<T>(
    found: Vec<Result<T, Unusable>>,
    of: impl Fn(&T) -> (&String, &String),
) -> (Vec<T>, Vec<Unusable>) {
    let mut unusable = Vec::new();
    let mut by_dn: BTreeMap<String, T> = BTreeMap::new();
    for one in found {
        match one {
            // Bases that lie in each other give an entry twice.
            Ok(one) => drop(by_dn.insert(muster_ldap::dn_key(of(&one).0), one)),
            Err(why) => unusable.push(why),
        }
    }
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for one in by_dn.values() {
        *ids.entry(of(one).1.clone()).or_default() += 1;
    }
    let mut usable = Vec::new();
    for one in by_dn.into_values() {
        let (dn, id) = of(&one);
        match ids.get(id).copied().unwrap_or_default() {
            0 | 1 => usable.push(one),
            _ => unusable.push(Unusable {
                dn: dn.clone(),
                external_id: Some(id.clone()),
                is_inactive: false,
                why: format!("another entry has the id {id} too"),
            }),
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
    let mut people = Vec::new();
    let attributes = person_attributes(&config.person);
    let searched = every_entry(session, &config.people, &attributes, bounds, |entry| {
        people.push(person(&entry, &config.person, now_seconds));
        if people.len().is_multiple_of(100) {
            progress.set_message(format!("reading the directory: {} people", people.len()));
        }
    })
    .await?;
    let mut referrals = searched.referrals;
    cuts.extend(searched.cut.map(|cut| format!("people: {cut}")));
    let mut teams = None;
    if let Some((query, map)) = &config.groups {
        let bounds = Bounds {
            entries_max: TEAMS_MAX,
            ..bounds
        };
        let attributes = group_attributes(map);
        let (mut found, mut open) = (Vec::new(), Vec::new());
        let (mut memberships, mut is_over) = (0, false);
        let searched = every_entry(session, query, &attributes, bounds, |entry| {
            let made = team(&entry, map);
            let count = made.as_ref().map_or(0, |team| team.members.len());
            memberships += count;
            is_over |= memberships > MEMBERSHIPS_MAX || count > MEMBERS_MAX;
            if is_over {
                return;
            }
            open.extend(opened(&entry, map, found.len()));
            found.push(made);
            progress.set_message(format!("reading the directory: {} groups", found.len()));
        })
        .await?;
        if is_over {
            cuts.push(format!(
                "groups: there are more than {MEMBERSHIPS_MAX} memberships, or {MEMBERS_MAX} of one group"
            ));
        }
        referrals += searched.referrals;
        cuts.extend(searched.cut.map(|cut| format!("groups: {cut}")));
        for part in open {
            let Some(Ok(team)) = found.get_mut(part.team) else {
                continue;
            };
            progress.set_message(format!("reading the members of {}", team.display_name));
            team.members.extend(member_names(&part.values));
            if let Some(first) = part.next {
                let dn = team.dn.clone();
                let more = more_values(session, &dn, &part.attribute, first, MEMBERS_MAX).await?;
                team.members.extend(member_names(&more));
            }
        }
        teams = Some(found);
    }
    Ok(Reading::new(people, teams, cuts, referrals))
}

/// Members that a directory sends in parts.
struct Part {
    team: usize,
    attribute: String,
    values: Vec<Vec<u8>>,
    next: Option<u32>,
}

fn opened(entry: &muster_ldap::Entry, map: &GroupMap, team: usize) -> Vec<Part> {
    let one = |attribute: &String| {
        let (range, values) = range_of(entry, attribute)?;
        Some(Part {
            team,
            attribute: attribute.clone(),
            values: values.to_vec(),
            next: range.last.and_then(|last| last.checked_add(1)),
        })
    };
    map.members.iter().filter_map(one).collect()
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
                let parts = opened(&entry, map, 0);
                team.members.extend(
                    parts
                        .iter()
                        .flat_map(|part| member_names(&part.values))
                        .collect::<Vec<MemberName>>(),
                );
            }
            teams.push(made);
        }
    })
    .await?;
    Ok(Some(teams))
}
