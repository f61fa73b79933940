//! What a directory that is hostile, hidden in part, or changed while it is read does not do to people and groups.

use super::super::guard::TooMany;
use super::super::plan::Named;
use super::super::search::next_of;
use super::super::seen_twice;
use super::*;

fn held(people: &[Person], teams: &[Team]) -> Held {
    let whole = reading(people.to_vec(), teams.to_vec());
    carried(&Held::default(), &plan(&whole, &Held::default(), DEACTIVATE))
}

fn crowd(count: usize) -> Vec<Person> {
    (0..count).map(somebody).collect()
}

fn group_of(name: &str, people: &[Person]) -> Team {
    let names: Vec<&str> = people.iter().map(|person| person.dn.as_str()).collect();
    group(name, &names)
}

fn held_back(plan: &Plan) -> Vec<(&'static str, usize, usize)> {
    let too_many = plan.too_many(10, None);
    too_many
        .iter()
        .map(|one: &TooMany| (one.what, one.count, one.of))
        .collect()
}

fn says(rules: &[ActiveRule], attributes: &[(&str, &str)]) -> Result<bool, bool> {
    let mut map = defaults(Preset::Openldap).person;
    map.active = rules.to_vec();
    let mut ada = ada();
    for (name, value) in attributes {
        ada.attributes
            .push(((*name).to_owned(), vec![value.as_bytes().to_vec()]));
    }
    person(&ada, &map, NOW_SECONDS)
        .map(|person| person.is_active)
        .map_err(|unusable| unusable.is_inactive)
}

#[test]
fn one_rule_that_says_not_active_is_enough_whatever_another_says() {
    let rules = [ActiveRule::AccountExpires, ActiveRule::UserAccountControl];
    let unclear = ("accountExpires", "what");
    assert_eq!(says(&rules, &[unclear, ("userAccountControl", "514")]), Ok(false));
    assert_eq!(
        says(&rules, &[unclear, ("userAccountControl", "512")]),
        Err(false)
    );
    // A condition of the file says it as clearly.
    let mut map = defaults(Preset::ActiveDirectory).person;
    map.inactive_when = vec![Condition {
        attribute: "cn".to_owned(),
        value: "ADA LOVELACE".to_owned(),
    }];
    map.external_id.is_guid = false;
    map.external_id.name = "entryUUID".to_owned();
    map.user_name = "uid".to_owned();
    assert_eq!(
        person(&ada(), &map, NOW_SECONDS).map(|ada| ada.is_active),
        Ok(false)
    );
}

#[test]
fn nobody_is_ended_by_a_stranger_with_their_id() {
    let (ada, mut bob) = (somebody(1), somebody(2));
    let held = held(std::slice::from_ref(&ada), &[]);
    bob.external_id = ada.external_id.clone();
    bob.is_active = false;
    // The stranger's entry is not even one that can be used.
    let broken = bob.clone().unusable("two names".to_owned());
    for stranger in [Ok(bob), Err(broken)] {
        let read = Reading::new(vec![Ok(ada.clone()), stranger], None, Vec::new(), 0);
        assert_eq!(read.unusable_people.len(), 2);
        assert!(is_empty(&plan(&read, &held, DEACTIVATE)));
    }
    let mut ended = ada.clone();
    ended.is_active = false;
    let broken = ended.clone().unusable("two names".to_owned());
    let read = Reading::new(vec![Ok(ended), Err(broken.clone())], None, Vec::new(), 0);
    assert_eq!(
        steps(&plan(&read, &held, DEACTIVATE)),
        [("p1".to_owned(), "deactivate")]
    );
}

#[test]
fn an_id_of_several_values_is_none() {
    let map = defaults(Preset::Openldap).person;
    let mut ada = ada();
    ada.attributes[0].1.push(b"u-2".to_vec());
    let unusable = person(&ada, &map, NOW_SECONDS).expect_err("nobody");
    assert_eq!(unusable.external_id, None);
    assert!(unusable.why.contains("several"), "{}", unusable.why);
    assert!(!Reading::new(vec![Err(unusable)], None, Vec::new(), 0).is_complete());
}

#[test]
fn a_search_that_finds_nothing_is_a_reading_that_was_cut_off() {
    let people = crowd(3);
    let held = held(&people, &[group_of("g", &people)]);
    let before = super::super::plan::before(&held, DEACTIVATE);
    assert_eq!((before.people, before.teams, before.memberships), (3, 1, 3));
    let doubted = |mut read: Reading, allowed: Option<usize>| {
        read.doubt(before.people, before.teams, allowed);
        read
    };
    let nobody = doubted(reading(Vec::new(), Vec::new()), None);
    assert_eq!(nobody.cuts.len(), 2);
    assert!(is_empty(&plan(&nobody, &held, DEACTIVATE)));
    let no_groups = doubted(reading(people.clone(), Vec::new()), None);
    assert!(is_empty(&plan(&no_groups, &held, DEACTIVATE)));
    // Unless a person says that it is meant, or nothing is there to lose.
    assert!(doubted(reading(Vec::new(), Vec::new()), Some(3)).is_complete());
    let mut first = reading(Vec::new(), Vec::new());
    first.doubt(0, 0, None);
    assert!(first.is_complete());
    // Groups that are not read at all are no groups that are gone.
    let mut only_people = Reading::new(people.into_iter().map(Ok).collect(), None, Vec::new(), 0);
    only_people.doubt(3, 1, None);
    assert!(only_people.is_complete());
}

#[test]
fn memberships_of_groups_that_are_deleted_are_counted() {
    let people = crowd(20);
    let teams = [
        group_of("all", &people),
        group_of("few", &people[..2]),
        group("none", &[]),
    ];
    let held = held(&people, &teams);
    let without_all = plan(&reading(people.clone(), teams[1..].to_vec()), &held, DEACTIVATE);
    assert_eq!(held_back(&without_all), [("memberships", 20, 22)]);
    let without_few = plan(
        &reading(people.clone(), vec![teams[0].clone(), teams[2].clone()]),
        &held,
        DEACTIVATE,
    );
    assert_eq!(held_back(&without_few), []);
    // Who goes leaves the groups, and that is counted once.
    let planned = plan(
        &reading(people[1..].to_vec(), teams[1..].to_vec()),
        &held,
        DEACTIVATE,
    );
    assert_eq!(held_back(&planned), [("memberships", 19, 22)]);
}

#[test]
fn the_last_group_and_the_last_member_go_only_when_that_is_said() {
    let people = crowd(2);
    let held = held(&people, &[group_of("g", &people[..1])]);
    let planned = plan(&reading(people.clone(), vec![group("h", &[])]), &held, DEACTIVATE);
    assert_eq!(held_back(&planned), [("groups", 1, 1), ("memberships", 1, 1)]);
    assert!(planned.too_many(10, Some(1)).is_empty());
    let planned = plan(&reading(people, vec![group("g", &[])]), &held, DEACTIVATE);
    assert_eq!(held_back(&planned), [("memberships", 1, 1)]);
}

/// Names of steps of people and groups that go.
async fn after_a_second_look(
    read: &mut Reading,
    held: &Held,
    there: Result<BTreeSet<String>, String>,
) -> (Plan, Vec<String>) {
    let first = plan(read, held, DEACTIVATE);
    let second = seen_twice(read, held, first, DEACTIVATE, async |_: &Plan| there.clone()).await;
    let people = second.people.iter().filter(|one| one.step.is_end());
    let teams = second
        .teams
        .iter()
        .filter(|one| matches!(one.step, TeamStep::Delete { .. }));
    let names = people
        .map(|one| &one.name)
        .chain(teams.map(|one: &Named<TeamStep>| &one.name));
    let names = names.cloned().collect();
    (second, names)
}

#[tokio::test]
async fn whoever_is_found_by_their_id_after_all_stays() {
    let mut people = crowd(6);
    people[0].manager = Some(muster_ldap::dn_key(&people[1].dn));
    let teams = [group_of("g", &people), group_of("h", &people[3..])];
    let held = held(&people, &teams);
    // Two people and a group are not found; one of the people and the group were only moved.
    let mut rest = people.clone();
    rest.drain(1..3);
    let read = || reading(rest.clone(), teams[..1].to_vec());
    let there = BTreeSet::from(["e1".to_owned(), "g-h".to_owned()]);
    let (planned, gone) = after_a_second_look(&mut read(), &held, Ok(there)).await;
    assert_eq!(gone, ["p2"]);
    // Whoever was moved stays in the group whose member they are by the name before, and a manager.
    let removed: Vec<&String> = planned.members.iter().flat_map(|one| &one.remove).collect();
    assert_eq!(removed, ["usr_e2"]);
    assert_eq!(planned.people.len(), 1);
    let (_, gone) = after_a_second_look(&mut read(), &held, Ok(BTreeSet::new())).await;
    assert_eq!(gone, ["p1", "p2", "h"]);
    let mut unknown = read();
    let (planned, _) = after_a_second_look(&mut unknown, &held, Err("closed".to_owned())).await;
    assert!(is_empty(&planned), "{planned:?}");
    assert!(!unknown.is_complete());
}

#[test]
fn who_is_a_member_under_a_uid_that_is_unclear_stays_one() {
    let (ada, mut bob) = (somebody(1), somebody(2));
    let mut team = group("unix", &[]);
    team.members.insert(MemberName::Uid("p1".to_owned()));
    let held = held(&[ada.clone(), bob.clone()], &[team.clone()]);
    assert_eq!(held.teams[0].members.len(), 1);
    // Bob gives himself Ada's uid: she stays, and he does not enter.
    bob.uid = Some("p1".to_owned());
    let read = reading(vec![ada.clone(), bob.clone()], vec![team.clone()]);
    assert!(is_empty(&plan(&read, &held, DEACTIVATE)));
    // Also with an entry that is no person at all.
    let read = |people| Reading::new(people, Some(vec![Ok(team.clone())]), Vec::new(), 0);
    let two_names = read(vec![Ok(ada.clone()), Err(bob.unusable("two names".to_owned()))]);
    assert!(is_empty(&plan(&two_names, &held, DEACTIVATE)));
    // And Ada herself, whose entry has something wrong.
    let broken = read(vec![Ok(somebody(2)), Err(ada.unusable("two names".to_owned()))]);
    assert!(is_empty(&plan(&broken, &held, DEACTIVATE)));
}

#[test]
fn every_uid_of_an_entry_that_cannot_be_brought_over_is_known() {
    let map = defaults(Preset::Openldap).person;
    let found = entry("cn=x", &[("entryUUID", &["u"]), ("uid", &["Ada", "other"])]);
    let unusable = person(&found, &map, NOW_SECONDS).expect_err("two names");
    assert_eq!(
        unusable.uids,
        BTreeSet::from(["ada".to_owned(), "other".to_owned()])
    );
}

#[test]
fn names_longer_than_names_are_not_kept() {
    let long = format!("uid={},dc=ex", "é".repeat(muster_ldap::NAME_BYTES_MAX));
    let mut entry_of_ada = ada();
    entry_of_ada.dn.clone_from(&long);
    let unusable =
        person(&entry_of_ada, &defaults(Preset::Openldap).person, NOW_SECONDS).expect_err("nobody");
    assert_eq!(unusable.external_id.as_deref(), Some("u-1"));
    assert!(unusable.dn.len() <= muster_ldap::NAME_BYTES_MAX && unusable.weight() < 8_192);
    let map = defaults(Preset::Openldap).group;
    let mut found = entry(
        "cn=g",
        &[("entryUUID", &["g-g"]), ("cn", &["g"]), ("member", &[&long])],
    );
    let team = team(&found, &map).expect("a group");
    assert!(team.members.is_empty() && team.gap.is_some());
    found.dn = long;
    assert!(super::team(&found, &map).is_err());
}

#[test]
fn what_is_kept_of_an_entry_is_weighed() {
    let map = defaults(Preset::Openldap);
    let long = "x".repeat(2_000);
    let mut entry_of_ada = ada();
    let before = person(&entry_of_ada, &map.person, NOW_SECONDS)
        .expect("a person")
        .weight();
    entry_of_ada
        .attributes
        .push(("title".to_owned(), vec![long.clone().into_bytes()]));
    let after = person(&entry_of_ada, &map.person, NOW_SECONDS)
        .expect("a person")
        .weight();
    assert!(after >= before + 2_000);
    let one = group("g", &[]);
    let two = group("g", &[&format!("cn={long}")]);
    assert!(two.weight() >= one.weight() + 2_000);
}

#[test]
fn a_reading_has_one_budget_and_nothing_is_kept_after_it_is_used_up() {
    let room = || super::super::reading::Room {
        bytes: 100,
        memberships: 3,
    };
    let mut of_bytes = room();
    assert!(of_bytes.take(60, 1) && of_bytes.take(40, 1));
    assert!(!of_bytes.take(1, 0) && !of_bytes.take(1, 0));
    let mut of_members = room();
    assert!(of_members.take(1, 3) && !of_members.take(1, 1));
    assert!(
        !of_members.take(1, 0),
        "small ones that come later are not kept either"
    );
}

#[test]
fn a_group_of_which_a_part_is_missing_loses_nobody_and_others_go_on() {
    let people = crowd(20);
    let teams = [group_of("large", &people), group_of("small", &people)];
    let held = held(&people, &teams);
    let mut large = group_of("large", &people[..5]);
    large.gap = Some("member: noSuchObject (32)".to_owned());
    let planned = plan(
        &reading(people.clone(), vec![large, group_of("small", &people[1..])]),
        &held,
        DEACTIVATE,
    );
    assert_eq!(planned.members.len(), 1);
    assert_eq!(planned.members[0].remove, ["usr_e0"]);
    assert_eq!(planned.problems.len(), 1);
    assert!(planned.problems[0].why.contains("nobody leaves it"));
}

#[test]
fn a_part_is_whole_when_it_holds_as_much_as_it_says() {
    let range = |first, last| muster_ldap::Range { first, last };
    assert_eq!(next_of(range(0, Some(1499)), 1500), Ok(Some(1500)));
    assert_eq!(next_of(range(1500, None), 7), Ok(None));
    assert!(next_of(range(0, Some(1499)), 1499).is_err());
    assert!(next_of(range(5, Some(u32::MAX)), 1).is_err());
}

/// Entries with an attribute of the map, and what they are without it.
fn with_department(count: usize) -> (Vec<Person>, Vec<Person>) {
    let without = crowd(count);
    let mut with = without.clone();
    for person in &mut with {
        let work = json!({"department": "Engines", "employeeNumber": "1"});
        person.resource.insert(ENTERPRISE_USER.id.to_owned(), work);
        person
            .resource
            .insert("emails".to_owned(), json!([{"value": "a@ex"}]));
    }
    (with, without)
}

#[test]
fn an_attribute_that_vanishes_for_many_is_held_back() {
    let (with, without) = with_department(20);
    let held = held(&with, &[]);
    let mut some = with.clone();
    some[..5].clone_from_slice(&without[..5]);
    assert_eq!(
        held_back(&plan(&reading(some, Vec::new()), &held, DEACTIVATE)),
        []
    );
    let planned = plan(&reading(without, Vec::new()), &held, DEACTIVATE);
    let expected = [
        ("mail addresses", 20, 20),
        ("departments", 20, 20),
        ("employee numbers", 20, 20),
    ];
    assert_eq!(held_back(&planned), expected);
    assert!(planned.too_many(10, Some(20)).is_empty());
    assert_eq!(
        planned.too_many(10, None)[0].sentence(),
        "20 of 20 mail addresses would go"
    );
    // Another value in its place is no loss.
    let mut moved = with;
    for person in &mut moved {
        person.resource[ENTERPRISE_USER.id]["department"] = "Looms".into();
    }
    assert_eq!(
        held_back(&plan(&reading(moved, Vec::new()), &held, DEACTIVATE)),
        []
    );
}

#[test]
fn many_who_are_active_again_at_once_are_held_back() {
    let people = crowd(20);
    let mut locked = people.clone();
    for person in &mut locked {
        person.is_active = false;
        person.resource.insert("active".to_owned(), false.into());
    }
    let held = held(&locked, &[]);
    let mut some = locked.clone();
    some[..5].clone_from_slice(&people[..5]);
    assert_eq!(
        held_back(&plan(&reading(some, Vec::new()), &held, DEACTIVATE)),
        []
    );
    let planned = plan(&reading(people, Vec::new()), &held, DEACTIVATE);
    assert_eq!(held_back(&planned), [("inactive people", 20, 20)]);
    assert_eq!(
        planned.too_many(10, None)[0].sentence(),
        "20 of 20 inactive people would be active again"
    );
}

#[test]
fn two_entries_whose_names_cannot_be_told_apart_are_two() {
    let (ada, mut bob) = (somebody(1), somebody(2));
    let held = held(
        &[ada.clone(), bob.clone()],
        &[group_of("g", &[ada.clone(), bob.clone()])],
    );
    bob.dn = ada.dn.to_uppercase();
    let read = reading(
        vec![ada.clone(), bob.clone()],
        vec![group_of("g", std::slice::from_ref(&ada))],
    );
    assert_eq!(read.unusable_people.len(), 2);
    assert!(is_empty(&plan(&read, &held, DEACTIVATE)));
    // The same entry twice is one.
    let read = reading(vec![ada.clone(), ada], Vec::new());
    assert_eq!((read.people.len(), read.unusable_people.len()), (1, 0));
}

#[test]
fn an_error_of_a_directory_is_one_line() {
    use super::super::connect::{LdapError, Step};
    let error = LdapError::new(Step::Search, "cn=a\nroot: all is well\u{1b}[2J: gone");
    assert!(!error.to_string().contains(char::is_control));
}
