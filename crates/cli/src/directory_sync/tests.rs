//! What is read and planned, without a directory: entries in, people out; two pictures in, a plan out.

use std::collections::BTreeSet;
use std::path::Path;

use muster_ldap::Entry;
use muster_scim::ENTERPRISE_USER;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::config::{ActiveRule, Bind, Condition, Config, Secret, Vanished};
use super::mapping::{MemberName, Person, Team, Unusable, person, team};
use super::plan::{Held, HeldPerson, HeldTeam, Options, PersonStep, Plan, Ref, TeamStep, plan};
use super::preset::{Preset, defaults, example};
use super::reading::Reading;
use super::search::Parts;

const NOW_SECONDS: i64 = 1_800_000_000;
const DEACTIVATE: Options = Options {
    vanished: Vanished::Deactivate,
    is_adopting: false,
};

fn entry(dn: &str, attributes: &[(&str, &[&str])]) -> Entry {
    let bytes = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect();
    Entry {
        dn: dn.to_owned(),
        attributes: attributes
            .iter()
            .map(|(name, values)| ((*name).to_owned(), bytes(values)))
            .collect(),
    }
}

fn ada() -> Entry {
    entry(
        "uid=ada,ou=people,dc=ex",
        &[
            ("entryUUID", &["u-1"]),
            ("uid", &["ada"]),
            ("cn", &["Ada Lovelace"]),
            ("givenName", &["Ada"]),
            ("sn", &["Lovelace"]),
            ("mail", &["z@ex", "ada@ex"]),
            ("departmentNumber", &["Engines"]),
            ("manager", &["UID=bob, OU=people, DC=ex"]),
        ],
    )
}

#[test]
fn an_entry_is_a_person() {
    let map = defaults(Preset::Openldap).person;
    let person = person(&ada(), &map, NOW_SECONDS).expect("a person");
    let expected = json!({
        "userName": "ada", "externalId": "u-1", "active": true, "displayName": "Ada Lovelace",
        "name": {"formatted": "Ada Lovelace", "givenName": "Ada", "familyName": "Lovelace"},
        "emails": [{"value": "ada@ex", "type": "work", "primary": true}, {"value": "z@ex", "type": "work", "primary": false}],
        ENTERPRISE_USER.id: {"department": "Engines"},
    });
    assert_eq!(Value::Object(person.resource), expected);
    assert_eq!(
        person.manager,
        Some(muster_ldap::dn_key("uid=bob,ou=people,dc=ex"))
    );
}

#[test]
fn who_has_no_id_or_no_clear_name_is_left_out() {
    let map = defaults(Preset::Openldap).person;
    let why = |attributes: &[(&str, &[&str])]| {
        person(&entry("cn=x", attributes), &map, NOW_SECONDS).expect_err("nobody")
    };
    assert_eq!(why(&[("uid", &["x"])]).external_id, None);
    assert_eq!(why(&[("entryUUID", &["u"])]).external_id.as_deref(), Some("u"));
    assert!(
        why(&[("entryUUID", &["u"]), ("uid", &["a", "b"])])
            .why
            .contains("several")
    );
    assert!(
        why(&[("entryUUID", &["u"]), ("uid", &[" "])])
            .why
            .contains("absent")
    );
}

#[test]
fn each_directory_says_in_its_own_way_who_is_not_active() {
    let is_active = |rule: ActiveRule, attribute: &str, value: &str| {
        let mut map = defaults(Preset::Openldap).person;
        map.active = vec![rule];
        let mut ada = ada();
        ada.attributes
            .push((attribute.to_owned(), vec![value.as_bytes().to_vec()]));
        person(&ada, &map, NOW_SECONDS)
            .map(|person| person.is_active)
            .ok()
    };
    for (rule, attribute, active, inactive) in [
        (ActiveRule::UserAccountControl, "userAccountControl", "512", "514"),
        (
            ActiveRule::AccountExpires,
            "accountExpires",
            "0",
            "132000000000000000",
        ),
        // A lock after wrong passwords is no end.
        (
            ActiveRule::PasswordPolicyLock,
            "pwdAccountLockedTime",
            "20260101000000Z",
            "000001010000Z",
        ),
        (ActiveRule::ShadowExpire, "shadowExpire", "99999", "100"),
        (ActiveRule::NsAccountLock, "nsAccountLock", "FALSE", "TRUE"),
        (
            ActiveRule::KerberosExpiration,
            "krbPrincipalExpiration",
            "20990101000000Z",
            "20200101000000Z",
        ),
    ] {
        assert_eq!(is_active(rule, attribute, active), Some(true), "{attribute}");
        assert_eq!(is_active(rule, attribute, inactive), Some(false), "{attribute}");
        if rule != ActiveRule::PasswordPolicyLock {
            assert_eq!(is_active(rule, attribute, "what"), None, "{attribute}");
        }
    }
    // What says nothing of it is fine, but Active Directory always says it to whoever may read it.
    assert_eq!(is_active(ActiveRule::NsAccountLock, "other", "x"), Some(true));
    assert_eq!(is_active(ActiveRule::UserAccountControl, "other", "x"), None);
}

#[test]
fn a_condition_of_the_file_ends_a_person_too() {
    let mut map = defaults(Preset::Openldap).person;
    map.inactive_when = vec![Condition {
        attribute: "departmentNumber".to_owned(),
        value: "engines".to_owned(),
    }];
    assert_eq!(
        person(&ada(), &map, NOW_SECONDS).map(|ada| ada.is_active),
        Ok(false)
    );
}

#[test]
fn s6_text_of_an_attribute_stays_text() {
    let map = defaults(Preset::Openldap).person;
    let hostile = "*)(uid=*))(|(uid=*";
    let mut entry = ada();
    entry.attributes[2].1 = vec![hostile.as_bytes().to_vec()];
    let person = person(&entry, &map, NOW_SECONDS).expect("a person");
    assert_eq!(person.resource["displayName"], hostile);
}

#[test]
fn a_group_names_its_members_in_three_ways() {
    let map = defaults(Preset::Openldap).group;
    let found = entry(
        "cn=g,dc=ex",
        &[
            ("entryUUID", &["g-1"]),
            ("cn", &["g"]),
            ("member", &["uid=Ada, dc=ex", "uid=ada,dc=ex"]),
            ("uniqueMember", &["uid=bob,dc=ex#'0101'B"]),
            ("memberUid", &["Eve"]),
        ],
    );
    let team = team(&found, &map).expect("a group");
    let dn = |name: &str| MemberName::Dn(muster_ldap::dn_key(name));
    let expected = BTreeSet::from([
        dn("uid=ada,dc=ex"),
        dn("uid=bob,dc=ex"),
        MemberName::Uid("eve".to_owned()),
    ]);
    assert_eq!(team.members, expected);
}

#[test]
fn a_large_group_of_active_directory_comes_in_parts_that_follow_each_other() {
    let part = |description: &str, values: &[&str]| entry("cn=g", &[("member", &[]), (description, values)]);
    let mut parts = Parts::new("member", 2, 100);
    assert_eq!(parts.description(), "member;range=2-*");
    let first = part("member;range=2-3", &["c", "d"]);
    assert_eq!(
        parts.take(Some(&first)),
        Ok((&[b"c".to_vec(), b"d".to_vec()][..], false))
    );
    assert_eq!(parts.description(), "member;range=4-*");
    let last = part("Member;Range=4-*", &["e"]);
    assert_eq!(parts.take(Some(&last)), Ok((&[b"e".to_vec()][..], true)));
    let wrong = |found: Option<&Entry>| Parts::new("member", 2, 2).take(found).map(drop);
    assert!(wrong(Some(&entry("cn=g", &[]))).is_err(), "no end was said");
    assert!(
        wrong(Some(&part("member;range=2-3", &["a"]))).is_err(),
        "less than it says"
    );
    assert!(wrong(None).is_err());
    assert!(
        wrong(Some(&part("member;range=0-1", &["a", "b"]))).is_err(),
        "the same part again"
    );
    assert!(
        wrong(Some(&part("member;range=2-4", &["a", "b", "c"]))).is_err(),
        "too many"
    );
    assert!(
        wrong(Some(&part("member;range=2-4294967295", &[]))).is_err(),
        "no end"
    );
}

/// A person of the directory with a number.
fn somebody(number: usize) -> Person {
    let name = format!("p{number}");
    let resource = json!({"userName": name, "externalId": format!("e{number}"), "active": true});
    Person {
        dn: format!("uid={name},dc=ex"),
        external_id: format!("e{number}"),
        uid: Some(name.clone()),
        is_active: true,
        resource: resource.as_object().cloned().unwrap_or_default(),
        manager: None,
        user_name: name,
    }
}

fn kept(person: &Person) -> HeldPerson {
    HeldPerson {
        id: format!("usr_{}", person.external_id),
        external_id: Some(person.external_id.clone()),
        version: "W/\"1\"".to_owned(),
        user_name: person.user_name.clone(),
        is_active: person.is_active,
        resource: person.resource.clone(),
    }
}

fn group(name: &str, members: &[&str]) -> Team {
    Team {
        dn: format!("cn={name},dc=ex"),
        external_id: format!("g-{name}"),
        display_name: name.to_owned(),
        members: members
            .iter()
            .map(|dn| MemberName::Dn(muster_ldap::dn_key(dn)))
            .collect(),
        gap: None,
    }
}

fn reading(people: Vec<Person>, teams: Vec<Team>) -> Reading {
    Reading::new(
        people.into_iter().map(Ok).collect(),
        Some(teams.into_iter().map(Ok).collect()),
        Vec::new(),
        0,
    )
}

/// Whether Muster knows what the directory knows.
fn is_empty(plan: &Plan) -> bool {
    plan.people.is_empty() && plan.teams.is_empty() && plan.members.is_empty() && plan.managers.is_empty()
}

fn steps(plan: &Plan) -> Vec<(String, &'static str)> {
    let word = |step: &PersonStep| match step {
        PersonStep::Create { .. } => "create",
        PersonStep::Replace { .. } => "replace",
        PersonStep::Deactivate { .. } => "deactivate",
        PersonStep::Delete { .. } => "delete",
    };
    let mut steps: Vec<_> = plan
        .people
        .iter()
        .map(|one| (one.name.clone(), word(&one.step)))
        .collect();
    steps.sort_unstable();
    steps
}

/// What Muster has after a plan was carried out.
fn carried(held: &Held, plan: &Plan) -> Held {
    let mut after = held.clone();
    for one in &plan.people {
        let at = |id: &str| {
            held.people
                .iter()
                .position(|person| person.id == id)
                .expect("it is there")
        };
        match &one.step {
            PersonStep::Create { resource } => after.people.push(HeldPerson {
                id: format!("usr_{}", one.external_id),
                external_id: Some(one.external_id.clone()),
                version: "W/\"1\"".to_owned(),
                user_name: one.name.clone(),
                is_active: resource["active"] == true,
                resource: resource.clone(),
            }),
            PersonStep::Replace { id, resource, .. } => {
                let person = &mut after.people[at(id)];
                person.user_name = one.name.clone();
                person.external_id = Some(one.external_id.clone());
                person.is_active = resource["active"] == true;
                person.resource = resource.clone();
            }
            PersonStep::Deactivate { id, .. } => {
                let person = &mut after.people[at(id)];
                person.is_active = false;
                person.resource.insert("active".to_owned(), false.into());
            }
            PersonStep::Delete { id, .. } => after.people[at(id)].external_id = None,
        }
    }
    for one in &plan.teams {
        match &one.step {
            TeamStep::Create => after.teams.push(HeldTeam {
                id: format!("ugr_{}", one.external_id),
                external_id: Some(one.external_id.clone()),
                version: String::new(),
                display_name: one.name.clone(),
                members: BTreeSet::new(),
            }),
            TeamStep::Rename { id, .. } => {
                let team = after
                    .teams
                    .iter_mut()
                    .find(|team| team.id == *id)
                    .expect("it is there");
                team.display_name = one.name.clone();
            }
            TeamStep::Delete { id, .. } => after.teams.retain(|team| team.id != *id),
        }
    }
    let id = |who: &Ref| match who {
        Ref::Known(id) => id.clone(),
        Ref::Person(id) => format!("usr_{id}"),
        Ref::Team(id) => format!("ugr_{id}"),
    };
    for one in &plan.members {
        let team = after
            .teams
            .iter_mut()
            .find(|team| team.id == id(&one.team))
            .expect("it is there");
        team.members.extend(one.add.iter().map(id));
        team.members.retain(|id| !one.remove.contains(id));
    }
    for (of, boss) in &plan.managers {
        let person = after
            .people
            .iter_mut()
            .find(|person| person.id == id(of))
            .expect("it is there");
        let work = person
            .resource
            .entry(ENTERPRISE_USER.id)
            .or_insert_with(|| json!({}));
        work["manager"] = json!({"value": id(boss)});
    }
    after.people.retain(|person| person.external_id.is_some());
    after
}

#[test]
fn a_second_run_changes_nothing() {
    let (mut ada, bob, mut eve) = (somebody(1), somebody(2), somebody(3));
    ada.manager = Some(muster_ldap::dn_key(&bob.dn));
    eve.manager = Some(muster_ldap::dn_key(&ada.dn));
    let teams = vec![
        group("inner", &[&ada.dn, "uid=nobody,dc=ex"]),
        group("outer", &["cn=inner,dc=ex", &eve.dn, "cn=outer,dc=ex"]),
    ];
    let read = reading(vec![ada, bob, eve], teams);
    let none = Held::default();
    let first = plan(&read, &none, DEACTIVATE);
    assert_eq!(
        (first.people.len(), first.managers.len(), first.teams.len()),
        (3, 2, 2)
    );
    assert_eq!(first.members_elsewhere, 1);
    let second = plan(&read, &carried(&none, &first), DEACTIVATE);
    assert!(is_empty(&second), "{second:?}");
}

#[test]
fn who_is_renamed_keeps_the_id_and_who_is_gone_is_deactivated_once() {
    let (ada, bob) = (somebody(1), somebody(2));
    let held = Held {
        people: vec![kept(&ada), kept(&bob)],
        teams: Vec::new(),
    };
    let mut renamed = ada.clone();
    renamed.user_name = "countess".to_owned();
    renamed.resource.insert("userName".to_owned(), "countess".into());
    let read = reading(vec![renamed], Vec::new());
    let first = plan(&read, &held, DEACTIVATE);
    assert_eq!(
        steps(&first),
        [
            ("countess".to_owned(), "replace"),
            ("p2".to_owned(), "deactivate")
        ]
    );
    assert!(matches!(&first.people[0].step, PersonStep::Replace { id, .. } if id == "usr_e1"));
    let second = plan(&read, &carried(&held, &first), DEACTIVATE);
    assert!(is_empty(&second), "{second:?}");
    let deleting = Options {
        vanished: Vanished::Delete,
        ..DEACTIVATE
    };
    assert_eq!(steps(&plan(&read, &held, deleting))[1].1, "delete");
}

#[test]
fn a_reading_that_was_cut_off_takes_nothing_away() {
    let (ada, bob) = (somebody(1), somebody(2));
    let teams = vec![group("g", &[&ada.dn])];
    let whole = reading(
        vec![ada.clone(), bob.clone()],
        vec![group("g", &[&ada.dn, &bob.dn]), group("h", &[])],
    );
    let held = carried(&Held::default(), &plan(&whole, &Held::default(), DEACTIVATE));
    let mut cut = reading(vec![ada.clone(), somebody(3)], teams.clone());
    cut.cuts.push("sizeLimitExceeded".to_owned());
    let planned = plan(&cut, &held, DEACTIVATE);
    assert_eq!(steps(&planned), [("p3".to_owned(), "create")]);
    assert!(planned.teams.is_empty() && planned.members.is_empty());
    // An entry whose id cannot be read may be anybody.
    let nameless = Unusable {
        dn: "uid=p2,dc=ex".to_owned(),
        external_id: None,
        uids: BTreeSet::new(),
        is_inactive: false,
        why: "no id".to_owned(),
    };
    let read = Reading::new(
        vec![Ok(ada), Err(nameless)],
        Some(teams.into_iter().map(Ok).collect()),
        Vec::new(),
        0,
    );
    assert!(!read.is_complete());
    assert!(is_empty(&plan(&read, &held, DEACTIVATE)));
}

#[test]
fn of_two_entries_with_one_name_neither_counts_and_nobody_is_taken_away() {
    let (ada, bob, mut eve) = (somebody(1), somebody(2), somebody(3));
    let held = Held {
        people: vec![kept(&ada), kept(&bob)],
        teams: Vec::new(),
    };
    eve.user_name = "P2".to_owned();
    let read = reading(vec![ada, bob, eve, somebody(4)], Vec::new());
    let planned = plan(&read, &held, DEACTIVATE);
    assert_eq!(steps(&planned), [("p4".to_owned(), "create")]);
    assert_eq!(planned.problems.len(), 2);
    assert!(
        planned
            .problems
            .iter()
            .all(|one| one.why.contains("another entry has the userName"))
    );
}

#[test]
fn nobody_stays_in_by_making_something_wrong_with_their_entry() {
    let (ada, mut bob) = (somebody(1), somebody(2));
    let held = Held {
        people: vec![kept(&ada), kept(&bob)],
        teams: Vec::new(),
    };
    // Bob gave himself Ada's name before his account was disabled.
    bob.user_name = "p1".to_owned();
    bob.is_active = false;
    let read = reading(vec![ada.clone(), bob.clone()], Vec::new());
    assert_eq!(read.people.len(), 0);
    let planned = plan(&read, &held, DEACTIVATE);
    assert_eq!(steps(&planned), [("p2".to_owned(), "deactivate")]);
    let after = carried(&held, &planned);
    assert!(is_empty(&plan(&read, &after, DEACTIVATE)));
    // Or a name that another connector keeps: the end does not wait for it.
    bob.user_name = "somebody else".to_owned();
    bob.resource.insert("userName".to_owned(), "somebody else".into());
    bob.resource.insert("active".to_owned(), false.into());
    let planned = plan(&reading(vec![ada, bob], Vec::new()), &held, DEACTIVATE);
    let words: Vec<&str> = steps(&planned).into_iter().map(|(_, word)| word).collect();
    assert_eq!(words, ["deactivate", "replace"]);
    assert!(matches!(
        &planned.people[1].step,
        PersonStep::Replace { version: None, .. }
    ));
}

#[test]
fn who_comes_back_under_another_id_is_taken_over_only_when_that_is_said() {
    let before = somebody(1);
    let held = Held {
        people: vec![kept(&before)],
        teams: Vec::new(),
    };
    let mut anew = before.clone();
    anew.external_id = "new".to_owned();
    anew.resource.insert("externalId".to_owned(), "new".into());
    let read = reading(vec![anew], Vec::new());
    let refused = plan(&read, &held, DEACTIVATE);
    assert_eq!(steps(&refused), [("p1".to_owned(), "deactivate")]);
    assert!(refused.problems[0].why.contains("--adopt"));
    // Where people are deleted, whoever has the name next is somebody else.
    let deleting = Options {
        vanished: Vanished::Delete,
        ..DEACTIVATE
    };
    let replaced = plan(&read, &held, deleting);
    assert_eq!(
        steps(&replaced),
        [("p1".to_owned(), "create"), ("p1".to_owned(), "delete")]
    );
    let adopting = Options {
        is_adopting: true,
        ..DEACTIVATE
    };
    let adopted = plan(&read, &held, adopting);
    assert_eq!(steps(&adopted), [("p1".to_owned(), "replace")]);
    assert!(adopted.problems.is_empty());
}

#[test]
fn an_empty_directory_does_not_end_the_company() {
    let everybody: Vec<Person> = (0..100).map(somebody).collect();
    let held = Held {
        people: everybody.iter().map(kept).collect(),
        teams: Vec::new(),
    };
    let without = |count: usize| {
        plan(
            &reading(everybody[count..].to_vec(), Vec::new()),
            &held,
            DEACTIVATE,
        )
    };
    assert!(without(10).too_many(10, None).is_empty());
    let held_back = without(11).too_many(10, None);
    assert_eq!(
        (held_back[0].what, held_back[0].count, held_back[0].of),
        ("people", 11, 100)
    );
    assert_eq!(held_back[0].names.len(), 11);
    assert!(without(11).too_many(10, Some(11)).is_empty());
    assert_eq!(without(100).too_many(10, Some(99)).len(), 1);
    // Five may always go, unless five is everybody.
    let few = |count: usize| Held {
        people: everybody[..count].iter().map(kept).collect(),
        teams: Vec::new(),
    };
    let only = reading(everybody[5..6].to_vec(), Vec::new());
    let planned = plan(&only, &few(6), DEACTIVATE);
    assert_eq!(planned.people.len(), 5);
    assert!(planned.too_many(10, None).is_empty());
    let planned = plan(&only, &few(5), DEACTIVATE);
    assert_eq!(planned.too_many(10, None)[0].count, 5);
    assert!(planned.too_many(10, Some(5)).is_empty());
    // Everybody is there, and none is active any more.
    let locked = everybody.iter().cloned().map(|mut person| {
        person.is_active = false;
        person.resource.insert("active".to_owned(), false.into());
        person
    });
    let planned = plan(&reading(locked.collect(), Vec::new()), &held, DEACTIVATE);
    assert_eq!(planned.too_many(10, None)[0].count, 100);
}

#[test]
fn members_that_cannot_be_read_any_more_are_held_back() {
    let people: Vec<Person> = (0..20).map(somebody).collect();
    let names: Vec<&str> = people.iter().map(|person| person.dn.as_str()).collect();
    let whole = reading(people.clone(), vec![group("g", &names)]);
    let held = carried(&Held::default(), &plan(&whole, &Held::default(), DEACTIVATE));
    let planned = plan(&reading(people, vec![group("g", &[])]), &held, DEACTIVATE);
    let held_back = planned.too_many(10, None);
    assert_eq!((held_back[0].what, held_back[0].count), ("memberships", 20));
}

#[test]
fn of_two_people_with_one_uid_neither_is_a_member() {
    let (mut ada, mut bob) = (somebody(1), somebody(2));
    (ada.uid, bob.uid) = (Some("x".to_owned()), Some("x".to_owned()));
    let mut team = group("g", &[]);
    team.members.insert(MemberName::Uid("x".to_owned()));
    let planned = plan(&reading(vec![ada, bob], vec![team]), &Held::default(), DEACTIVATE);
    assert_eq!((planned.members.len(), planned.members_elsewhere), (0, 1));
}

fn parsed(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/muster"))
}

#[test]
fn every_example_is_a_configuration() {
    for preset in [Preset::Openldap, Preset::ActiveDirectory, Preset::Freeipa] {
        let config = parsed(example(preset)).expect("it holds");
        assert_eq!(config.ldap.port, 636);
        assert!(!config.ldap.is_start_tls && config.groups.is_some());
        assert!(matches!(
            &config.ldap.bind,
            Bind::Simple { password: Secret::File(path), .. } if path == Path::new("/etc/muster/ldap-password")
        ));
    }
}

#[test]
fn a_configuration_that_cannot_hold_is_refused_with_its_place() {
    let good = example(Preset::Openldap);
    let bad = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        parsed(&good.replace(from, to)).expect_err(to)
    };
    assert!(bad("https://mdm", "http://mdm").contains("muster.url"));
    assert!(bad("ldaps://ldap", "http://ldap").contains("ldap.url"));
    assert!(
        bad(
            "ldaps://ldap.example.com",
            "ldaps://ldap.example.com/dc=ex??sub?(uid=*)"
        )
        .contains("ldap.url")
    );
    assert!(bad("password_file", "password").contains("password"));
    assert!(bad("password_file = \"ldap-password\"", "").contains("ldap.password"));
    assert!(bad("cn=muster,ou=services,dc=example,dc=com", " ").contains("anonymously"));
    assert!(bad("user_name = \"mail\"", "user_name = \"mail)(x=\"").contains("no name of an attribute"));
    assert!(bad("user_name = \"mail\"", "user_name = \"\"").contains("switched off"));
    assert!(bad("# filter = \"(objectClass", "filter = \"((objectClass").contains("people"));
    assert!(bad("removals_percent_max = 10", "removals_percent_max = 101").contains("removals_percent_max"));
}

mod doubt;

proptest! {
    #[test]
    fn whatever_an_entry_holds_it_is_a_person_or_a_reason(
        values in proptest::collection::vec(("[a-zA-Z;=-]{1,12}", proptest::collection::vec(any::<Vec<u8>>(), 0..3)), 0..8),
        preset in prop_oneof![Just(Preset::Openldap), Just(Preset::ActiveDirectory), Just(Preset::Freeipa)],
    ) {
        let defaults = defaults(preset);
        let mut attributes = values;
        for ((name, _), known) in attributes.iter_mut().zip(["uid", "objectGUID", "userAccountControl", "entryUUID", "member", "mail"]) {
            *name = known.to_owned();
        }
        let entry = Entry { dn: "cn=x".to_owned(), attributes };
        let _ = person(&entry, &defaults.person, NOW_SECONDS);
        let _ = team(&entry, &defaults.group);
    }

    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing(
        before in proptest::collection::btree_set(0_usize..12, 0..12),
        after in proptest::collection::btree_set(0_usize..12, 0..12),
        members in proptest::collection::vec(proptest::collection::btree_set(0_usize..12, 0..8), 0..4),
        bosses in proptest::collection::vec(0_usize..12, 12),
    ) {
        let picture = |people: &BTreeSet<usize>, shift: usize| {
            let people = people.iter().map(|number| {
                let mut person = somebody(*number);
                person.manager = bosses.get((number + shift) % 12).map(|boss| muster_ldap::dn_key(&somebody(*boss).dn));
                person
            });
            let teams = members.iter().enumerate().skip(shift).map(|(at, members)| {
                let names: Vec<String> = members.iter().map(|number| somebody((number + shift) % 12).dn).collect();
                group(&at.to_string(), &names.iter().map(String::as_str).collect::<Vec<_>>())
            });
            reading(people.collect(), teams.collect())
        };
        let mut held = Held::default();
        for read in [picture(&before, 0), picture(&after, 1)] {
            let planned = plan(&read, &held, DEACTIVATE);
            held = carried(&held, &planned);
            let again = plan(&read, &held, DEACTIVATE);
            prop_assert!(is_empty(&again), "{again:?}");
        }
    }
}
