//! Where a claim leads. Pure.
//!
//! A value leads somewhere only to the letter. One that differs from a rule in nothing but case, or in space around it, leads nowhere:
//! who may name groups at a provider could otherwise make a second one that looks like the first.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::TenantId;
use muster_trust::key::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::problem::{INVALID, Problem};

/// Rules of one connection.
pub const RULES_MAX: usize = 200;
pub const VALUE_CHARS_MAX: usize = 256;
const CLAIM_CHARS_MAX: usize = 256;
/// Values of a named claim that are looked at, and groups.
pub const VALUES_MAX: usize = 50;
pub const GROUPS_MAX: usize = 1000;
/// Values that are kept of what was found.
const SHOWN_MAX: usize = 8;

/// A value of the claim, and where whoever has it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoutingRule)]
pub struct Rule {
    /// As the provider writes it, to the letter: 1 to 256 characters.
    pub value: String,
    /// The id of a tenant of the installation.
    #[schema(value_type = String)]
    pub tenant: TenantId,
}

/// Where the people of a connection belong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// The claim or attribute that is read; the groups of the connection where nothing is said.
    pub claim: Option<String>,
    pub rules: Vec<Rule>,
}

/// What a provider said of the claim that routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    Absent,
    /// Something that is no text and no list of texts.
    WrongType,
    /// The provider left some out, or sent more than are looked at.
    Incomplete,
    Values(Vec<String>),
}

impl Claimed {
    /// A claim of a token: a text, or a list of texts. Of a list with anything else in it nothing is believed.
    pub fn of_json(value: Option<&Value>, values_max: usize) -> Claimed {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts: Option<Vec<String>> = match value {
            None | Some(Value::Null) => return Claimed::Absent,
            Some(Value::Array(items)) if items.len() > values_max => return Claimed::Incomplete,
            Some(Value::Array(items)) => items.iter().map(text).collect(),
            Some(one) => text(one).map(|one| vec![one]),
        };
        texts.map_or(Claimed::WrongType, |texts| Claimed::of_texts(&texts, values_max))
    }

    /// Texts that were read already. Those that can be the value of no rule are left out.
    pub fn of_texts(texts: &[String], values_max: usize) -> Claimed {
        if texts.is_empty() {
            return Claimed::Absent;
        }
        if texts.len() > values_max {
            return Claimed::Incomplete;
        }
        let usable = texts.iter().filter(|text| is_value(text));
        Claimed::Values(usable.cloned().collect())
    }
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= VALUE_CHARS_MAX && !text.chars().any(char::is_control)
}

/// What two spellings of one value have in common.
pub fn folded(value: &str) -> String {
    let words: Vec<&str> = value.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// Why somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HeldReason)]
pub enum Reason {
    /// The provider said nothing of the claim.
    ClaimAbsent,
    /// The claim is no text and no list of texts.
    ClaimType,
    /// The provider left a part of the claim out, or sent more values than are looked at.
    ClaimIncomplete,
    /// A value that leads somewhere stands twice.
    ClaimDuplicate,
    /// A value is that of a rule in another spelling.
    ClaimSpelling,
    /// No value leads anywhere.
    NoRule,
    /// The values lead to different tenants.
    SeveralTenants,
    /// The tenant has not accepted the connection, or not as it is now.
    NotAccepted,
    /// The person belonged to another tenant before.
    Moved,
    /// The directory of the first tenant says that the person is not active.
    Inactive,
    /// Somebody decided that the person belongs nowhere.
    Refused,
}

impl Reason {
    pub const fn word(self) -> &'static str {
        match self {
            Reason::ClaimAbsent => "claim_absent",
            Reason::ClaimType => "claim_type",
            Reason::ClaimIncomplete => "claim_incomplete",
            Reason::ClaimDuplicate => "claim_duplicate",
            Reason::ClaimSpelling => "claim_spelling",
            Reason::NoRule => "no_rule",
            Reason::SeveralTenants => "several_tenants",
            Reason::NotAccepted => "not_accepted",
            Reason::Moved => "moved",
            Reason::Inactive => "inactive",
            Reason::Refused => "refused",
        }
    }

    /// A reason as it is stored; nothing for a word of a newer program.
    pub fn read(word: &str) -> Option<Reason> {
        serde_json::from_value(Value::String(word.to_owned())).ok()
    }

    /// For people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Reason::ClaimAbsent => "The identity provider said nothing of the claim that routes.",
            Reason::ClaimType => "The claim that routes is no text and no list of texts.",
            Reason::ClaimIncomplete => {
                "The identity provider left a part of the claim out, or sent too many values."
            }
            Reason::ClaimDuplicate => "A value that routes stands in the claim twice.",
            Reason::ClaimSpelling => "A value is spelled in another way than the rule that it looks like.",
            Reason::NoRule => "No value of the claim leads to a tenant.",
            Reason::SeveralTenants => "The values of the claim lead to different tenants.",
            Reason::NotAccepted => "The tenant has not accepted the connection as it is now.",
            Reason::Moved => "The claim leads to another tenant than the one that the person belongs to.",
            Reason::Inactive => "The directory of the first tenant says that the person is not active.",
            Reason::Refused => "Somebody decided that the person belongs to no tenant.",
        }
    }
}

/// Where values lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub tenant: TenantId,
    /// The values that lead there.
    pub values: Vec<String>,
}

/// What routing found, as it is kept and as people see it: nothing of the claim but what routing needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// Values that lead to tenants, or look as if they did.
    pub values: Vec<String>,
    /// The tenants that they lead to.
    #[schema(value_type = Vec<String>)]
    pub tenants: BTreeSet<TenantId>,
    /// Why they lead to no single one. Of a claim of which nothing is believed there is nothing else to tell it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl Table {
    /// Refuses rules that could be taken for each other, or are too many.
    pub fn check(&self) -> Result<(), Problem> {
        let refuse = |why: String| Err(INVALID.detail(why));
        if let Some(claim) = &self.claim
            && (claim.is_empty()
                || claim.chars().count() > CLAIM_CHARS_MAX
                || claim.chars().any(char::is_control))
        {
            return refuse("A claim's name has 1 to 256 characters.".to_owned());
        }
        if self.rules.len() > RULES_MAX {
            return refuse(format!("A connection has at most {RULES_MAX} rules."));
        }
        let mut known: BTreeMap<String, &str> = BTreeMap::new();
        for rule in &self.rules {
            if !is_value(&rule.value) || rule.value.trim() != rule.value {
                return refuse(
                    "The value of a rule has 1 to 256 characters, without space around them.".to_owned(),
                );
            }
            if let Some(other) = known.insert(folded(&rule.value), &rule.value) {
                return refuse(format!(
                    "{other:?} and {:?} are the same value, or look the same. Each value has one rule.",
                    rule.value
                ));
            }
        }
        Ok(())
    }

    /// Where a claim leads: to one tenant, or nowhere.
    pub fn decide(&self, claimed: &Claimed) -> Result<Match, Reason> {
        let values = match claimed {
            Claimed::Absent => return Err(Reason::ClaimAbsent),
            Claimed::WrongType => return Err(Reason::ClaimType),
            Claimed::Incomplete => return Err(Reason::ClaimIncomplete),
            Claimed::Values(values) => values,
        };
        let exact: BTreeMap<&str, TenantId> = self
            .rules
            .iter()
            .map(|rule| (rule.value.as_str(), rule.tenant))
            .collect();
        let known: BTreeSet<String> = self.rules.iter().map(|rule| folded(&rule.value)).collect();
        let mut matched = Vec::new();
        let mut tenants = BTreeSet::new();
        for value in values {
            match exact.get(value.as_str()) {
                Some(_) if matched.contains(value) => return Err(Reason::ClaimDuplicate),
                Some(tenant) => {
                    matched.push(value.clone());
                    tenants.insert(*tenant);
                }
                None if known.contains(&folded(value)) => return Err(Reason::ClaimSpelling),
                None => {}
            }
        }
        let mut tenants = tenants.into_iter();
        match (tenants.next(), tenants.next()) {
            (None, _) => Err(Reason::NoRule),
            (Some(tenant), None) => Ok(Match {
                tenant,
                values: matched,
            }),
            (Some(_), Some(_)) => Err(Reason::SeveralTenants),
        }
    }

    /// What of a claim has to do with routing.
    pub fn found(&self, claimed: &Claimed) -> Found {
        let reason = self.decide(claimed).err();
        let Claimed::Values(values) = claimed else {
            return Found {
                reason,
                ..Found::default()
            };
        };
        let is_near = |value: &&String| {
            let folded = folded(value);
            self.rules.iter().any(|rule| self::folded(&rule.value) == folded)
        };
        let mut near: Vec<String> = values.iter().filter(is_near).cloned().collect();
        near.sort_unstable();
        near.truncate(SHOWN_MAX);
        let tenants = self.rules.iter().filter(|rule| values.contains(&rule.value));
        Found {
            tenants: tenants.map(|rule| rule.tenant).collect(),
            values: near,
            reason,
        }
    }

    /// The values that lead to a tenant, in their order.
    pub fn values_of(&self, tenant: TenantId) -> Vec<String> {
        let rules = self.rules.iter().filter(|rule| rule.tenant == tenant);
        let mut values: Vec<String> = rules.map(|rule| rule.value.clone()).collect();
        values.sort_unstable();
        values
    }
}

/// What a tenant takes from a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub claim: Option<String>,
    pub values: Vec<String>,
    pub assigned_people: bool,
    pub definition_sha256: Digest,
}

/// By what somebody belongs to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    Values(&'a [String]),
    Assignment,
}

impl Accepted {
    /// Whether it holds for a connection as it is now.
    pub fn stands(&self, claim: Option<&str>, definition: Digest) -> bool {
        self.claim.as_deref() == claim && self.definition_sha256 == definition
    }

    pub fn takes(&self, by: By<'_>) -> bool {
        match by {
            By::Values(values) => values.iter().any(|value| self.values.contains(value)),
            By::Assignment => self.assigned_people,
        }
    }
}

/// What somebody decided about a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// For as long as routing finds this.
    Assign {
        tenant: TenantId,
        found: String,
    },
    Refuse,
}

/// What is known of a person who comes.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub placed: Option<TenantId>,
    pub decision: Option<Decision>,
}

/// Where a person belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub tenant: TenantId,
    /// Because a person said so, not a rule.
    pub is_assigned: bool,
}

/// Where somebody belongs, after what was decided about them, where they were, and what the tenant takes. `home` takes what it routes
/// to itself.
pub fn place(
    table: &Table,
    claimed: &Claimed,
    standing: &Standing,
    home: TenantId,
    takes: impl Fn(TenantId, By<'_>) -> bool,
) -> Result<Place, Reason> {
    let said = table.decide(claimed);
    let found = found_text(table, claimed);
    let assigned = match &standing.decision {
        Some(Decision::Refuse) => return Err(Reason::Refused),
        Some(Decision::Assign { tenant, found: then }) if *then == found => Some(*tenant),
        Some(Decision::Assign { .. }) | None => None,
    };
    if let Some(tenant) = assigned {
        let is_taken = tenant == home || takes(tenant, By::Assignment);
        return is_taken
            .then_some(Place {
                tenant,
                is_assigned: true,
            })
            .ok_or(Reason::NotAccepted);
    }
    let Match { tenant, values } = said?;
    if standing.placed.is_some_and(|placed| placed != tenant) {
        return Err(Reason::Moved);
    }
    let is_taken = tenant == home || takes(tenant, By::Values(&values));
    is_taken
        .then_some(Place {
            tenant,
            is_assigned: false,
        })
        .ok_or(Reason::NotAccepted)
}

/// What routing found, as one text: a decision holds while it is the same.
pub fn found_text(table: &Table, claimed: &Claimed) -> String {
    serde_json::to_string(&table.found(claimed)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use muster_trust::key::sha256;
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    fn table(rules: &[(&str, u128)]) -> Table {
        Table {
            claim: None,
            rules: rules
                .iter()
                .map(|(value, number)| Rule {
                    value: (*value).to_owned(),
                    tenant: tenant(*number),
                })
                .collect(),
        }
    }

    fn values(texts: &[&str]) -> Claimed {
        Claimed::Values(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    const EVERYBODY: fn(TenantId, By<'_>) -> bool = |_, _| true;

    #[test]
    fn t10_exactly_one_tenant_is_where_somebody_belongs() {
        let table = table(&[("acme", 1), ("acme-eu", 1), ("beta", 2)]);
        let leads = |claimed: Claimed| table.decide(&claimed).map(|found| found.tenant);
        assert_eq!(leads(values(&["x", "acme"])), Ok(tenant(1)));
        assert_eq!(leads(values(&["acme", "acme-eu"])), Ok(tenant(1)));
        for (claimed, reason) in [
            (values(&["x"]), Reason::NoRule),
            (values(&["acme", "beta"]), Reason::SeveralTenants),
            (values(&["acme", "acme"]), Reason::ClaimDuplicate),
            (values(&["acme", "ACME"]), Reason::ClaimSpelling),
            (values(&[" acme"]), Reason::ClaimSpelling),
            (values(&["Beta"]), Reason::ClaimSpelling),
            (Claimed::Absent, Reason::ClaimAbsent),
            (Claimed::WrongType, Reason::ClaimType),
            (Claimed::Incomplete, Reason::ClaimIncomplete),
        ] {
            assert_eq!(leads(claimed.clone()), Err(reason), "{claimed:?}");
        }
    }

    #[test]
    fn t10_a_claim_of_a_wrong_type_says_nothing() {
        let read = |value: Value| Claimed::of_json(Some(&value), VALUES_MAX);
        assert_eq!(read(json!("acme")), values(&["acme"]));
        assert_eq!(read(json!(["acme", "x"])), values(&["acme", "x"]));
        for wrong in [
            json!(7),
            json!(true),
            json!({"acme": true}),
            json!(["acme", 7]),
            json!([["acme"]]),
        ] {
            assert_eq!(read(wrong.clone()), Claimed::WrongType, "{wrong}");
        }
        assert_eq!(Claimed::of_json(None, VALUES_MAX), Claimed::Absent);
        for unusable in [
            json!(""),
            json!("a\u{0}b"),
            json!("x".repeat(VALUE_CHARS_MAX + 1)),
        ] {
            assert_eq!(read(unusable), values(&[]));
        }
        assert_eq!(read(json!(null)), Claimed::Absent);
        assert_eq!(read(json!([])), Claimed::Absent);
        assert_eq!(read(json!(vec!["x"; VALUES_MAX + 1])), Claimed::Incomplete);
    }

    #[test]
    fn values_that_look_the_same_have_one_rule() {
        assert!(table(&[("acme", 1), ("beta", 2)]).check().is_ok());
        for wrong in [
            table(&[("acme", 1), ("acme", 2)]),
            table(&[("acme", 1), ("ACME", 1)]),
            table(&[("a b", 1), ("A  b", 2)]),
            table(&[(" acme", 1)]),
            table(&[("", 1)]),
            table(&vec![("x", 1); RULES_MAX + 1]),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        let nameless = Table {
            claim: Some(String::new()),
            rules: Vec::new(),
        };
        assert!(nameless.check().is_err());
    }

    #[test]
    fn t10_nobody_moves_without_a_word_of_a_person() {
        let table = table(&[("acme", 1), ("beta", 2)]);
        let home = tenant(9);
        let was = |placed: u128, decision: Option<Decision>| Standing {
            placed: Some(tenant(placed)),
            decision,
        };
        let go = |claimed: &Claimed, standing: &Standing| place(&table, claimed, standing, home, EVERYBODY);
        assert_eq!(go(&values(&["beta"]), &was(1, None)), Err(Reason::Moved));
        let decided = Decision::Assign {
            tenant: tenant(2),
            found: found_text(&table, &values(&["beta"])),
        };
        let moved = go(&values(&["beta"]), &was(1, Some(decided.clone())));
        assert_eq!(moved.map(|place| place.tenant), Ok(tenant(2)));
        // What was decided holds for what was found then, and for nothing else.
        let other = go(&values(&["acme", "beta"]), &was(2, Some(decided)));
        assert_eq!(other, Err(Reason::SeveralTenants));
        assert_eq!(
            go(&values(&["acme"]), &was(1, Some(Decision::Refuse))),
            Err(Reason::Refused)
        );
    }

    #[test]
    fn t10_what_was_decided_about_one_gap_says_nothing_about_another() {
        let table = table(&[("acme", 1), ("beta", 2)]);
        let gaps = [
            Claimed::Absent,
            Claimed::WrongType,
            Claimed::Incomplete,
            values(&["x"]),
        ];
        for decided in &gaps {
            let standing = Standing {
                placed: None,
                decision: Some(Decision::Assign {
                    tenant: tenant(1),
                    found: found_text(&table, decided),
                }),
            };
            for claimed in &gaps {
                let found = place(&table, claimed, &standing, tenant(9), EVERYBODY);
                assert_eq!(found.is_ok(), claimed == decided, "{decided:?} {claimed:?}");
            }
        }
    }

    #[test]
    fn t10_a_tenant_gets_nobody_whom_it_does_not_take() {
        let table = table(&[("acme", 1), ("new", 1), ("ours", 9)]);
        let home = tenant(9);
        let accepted = Accepted {
            claim: None,
            values: vec!["acme".to_owned()],
            assigned_people: false,
            definition_sha256: sha256(b"{}"),
        };
        let go = |claimed: &Claimed, standing: &Standing| {
            place(&table, claimed, standing, home, |_, by| accepted.takes(by))
        };
        let nobody = Standing::default();
        assert!(go(&values(&["acme"]), &nobody).is_ok());
        assert!(go(&values(&["ours"]), &nobody).is_ok());
        // A rule that came later is not what was accepted.
        assert_eq!(go(&values(&["new"]), &nobody), Err(Reason::NotAccepted));
        let assigned = Standing {
            placed: None,
            decision: Some(Decision::Assign {
                tenant: tenant(1),
                found: found_text(&table, &values(&["x"])),
            }),
        };
        assert_eq!(go(&values(&["x"]), &assigned), Err(Reason::NotAccepted));
        assert!(accepted.stands(None, sha256(b"{}")));
        assert!(!accepted.stands(None, sha256(b"{\"another\":1}")));
        assert!(!accepted.stands(Some("org"), sha256(b"{}")));
    }

    proptest! {
        #[test]
        fn t10_whatever_is_claimed_leads_to_one_tenant_of_the_table_or_nowhere(
            claimed in prop::collection::vec("[aAbB ]{0,3}", 0..6),
            rules in prop::collection::vec(("[ab]{1,2}", 1u128..4), 0..6),
        ) {
            let rules: Vec<(&str, u128)> = rules.iter().map(|(value, number)| (value.as_str(), *number)).collect();
            let table = table(&rules);
            prop_assume!(table.check().is_ok());
            let json = json!(claimed);
            if let Ok(found) = table.decide(&Claimed::of_json(Some(&json), VALUES_MAX)) {
                prop_assert!(!found.values.is_empty());
                for value in &claimed {
                    for rule in &table.rules {
                        if rule.value == *value {
                            prop_assert_eq!(rule.tenant, found.tenant);
                        }
                    }
                }
            }
        }
    }
}
