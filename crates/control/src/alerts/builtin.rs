//! The rules that come along. The first four are those that every installation is promised; a tenant may change any of them, and
//! switch it off. Pure.

use super::rules::{Definition, Events, NoData, Rule, Severity, When};

/// A rule that comes along: its name and what it says.
struct BuiltIn {
    name: &'static str,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
    severity: Severity,
    when: Condition,
    for_seconds: u32,
    keep_seconds: u32,
    no_data: NoData,
    destination: &'static str,
}

enum Condition {
    Expression(&'static str),
    Events {
        actions: &'static [&'static str],
        resolved_by: &'static [&'static str],
        resolve_after_seconds: u32,
    },
}

const DAY: u32 = 86_400;

/// An entry belongs to the first rule that takes its action, so what is special stands before what is general.
const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "enrollment_failure_rate",
        title: "Too many enrollments fail",
        meaning: "More than 0.2 % of the enrollments of the last hour were refused. With fewer than 20 enrollments, or fewer than 2 \
                  refusals, the share says nothing and no alert begins.",
        remedy: "See why under Enrollment, \"Why tokens were refused\", or with `muster enrollment funnel --hours 1`. Many refusals \
                 of one token are somebody who tries; many of different tokens are a policy or a clock that is wrong.",
        severity: Severity::Critical,
        when: Condition::Expression(
            "enrollment_failure_rate_1h > 0.2% and enrollment_attempts_1h >= 20 and enrollment_failures_1h >= 2",
        ),
        for_seconds: 0,
        keep_seconds: 300,
        no_data: NoData::Resolve,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "policy_violation_spike",
        title: "Policy violations increase",
        meaning: "The share of verdicts that are violations grew by more than 5 % of what it was a day ago, and there are at least 5 \
                  violations more.",
        remedy: "See under Compliance which rule grew; compare with the rollouts of the last day. Pause a rollout that causes it.",
        severity: Severity::Warning,
        when: Condition::Expression(
            "policy_violation_increase_24h > 5% and policy_violations_added_24h >= 5",
        ),
        for_seconds: 0,
        keep_seconds: 600,
        no_data: NoData::Keep,
        destination: "slack",
    },
    BuiltIn {
        name: "command_queue_latency",
        title: "Commands wait too long",
        meaning: "Of the commands of the last 15 minutes to devices that could be reached, one in a hundred waited 30 seconds or \
                  longer. Devices that were away when the command was made do not count, nor do fewer than 20 commands.",
        remedy: "Look whether the sequencer works (`muster log verify`), whether witnesses answer, and how busy the database is. \
                 While delivery is halted, commands wait on purpose.",
        severity: Severity::Error,
        when: Condition::Expression(
            "command_queue_latency_p99 >= 30s and command_queue_deliveries_15m >= 20",
        ),
        for_seconds: 60,
        keep_seconds: 300,
        no_data: NoData::Resolve,
        destination: "opsgenie",
    },
    BuiltIn {
        name: "certificate_expiry",
        title: "A certificate or token expires within 30 days",
        meaning: "A TLS certificate, a certificate authority, a root document, or a token of another service is valid for 30 days \
                  or less.",
        remedy: "Renew it: a restart renews the listeners' certificate, `muster root renew` the root document, `muster ca` the \
                 authorities. For a token of another service, renew it there and enter its new date.",
        severity: Severity::Warning,
        when: Condition::Expression("expires_in <= 30d"),
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "email",
    },
    BuiltIn {
        name: "certificate_expiry_14d",
        title: "A certificate or token expires within 14 days",
        meaning: "Two weeks are left, and nobody has renewed it since the first notice.",
        remedy: "Renew it now; see the runbook of the 30-day alert.",
        severity: Severity::Warning,
        when: Condition::Expression("expires_in <= 14d"),
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "email",
    },
    BuiltIn {
        name: "certificate_expiry_7d",
        title: "A certificate or token expires within 7 days",
        meaning: "One week is left.",
        remedy: "Renew it today; see the runbook of the 30-day alert.",
        severity: Severity::Error,
        when: Condition::Expression("expires_in <= 7d"),
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "certificate_expiry_1d",
        title: "A certificate or token expires within a day",
        meaning: "Within a day, what depends on it stops.",
        remedy: "Renew it at once; see the runbook of the 30-day alert.",
        severity: Severity::Critical,
        when: Condition::Expression("expires_in <= 1d"),
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "mass_command_held",
        title: "A command for many devices is held",
        meaning: "An account asked for more than it usually does, or for something destructive on many devices. Nothing was sent.",
        remedy: "Ask whoever asked for it, on another channel. Release it in the console if it is meant, reject it if not, and then \
                 remove the account's client.",
        severity: Severity::Critical,
        when: Condition::Events {
            actions: &["security.mass_command"],
            resolved_by: &[
                "operation.released",
                "operation.rejected",
                "operation.cancelled",
                "operation.expired",
            ],
            resolve_after_seconds: 7 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "split_view",
        title: "Somebody was shown another history",
        meaning: "A device or a witness holds a signed head of the log that is not ours, or the archive holds other entries: the log \
                  was shown differently to different parties, or was rolled back.",
        remedy: "Halt delivery. Compare with the archive and the witnesses (`muster log verify`), and read the runbook: restoring a \
                 backup without its ceremony looks the same.",
        severity: Severity::Critical,
        when: Condition::Events {
            actions: &[
                "security.split_view",
                "security.witness_conflict",
                "security.archive_conflict",
            ],
            resolved_by: &[],
            resolve_after_seconds: 7 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "row_edited",
        title: "A row of the database was changed past the server",
        meaning: "A row is not what the log records of it. The server did not act on it; whoever changed it can write to the database.",
        remedy: "Halt delivery, keep the database as it is, and find out who can write to it. The entry names the row.",
        severity: Severity::Critical,
        when: Condition::Events {
            actions: &["security.row_edited"],
            resolved_by: &[],
            resolve_after_seconds: 7 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "deployed_version_change",
        title: "Somebody tried to change a deployed version",
        meaning: "A version that exists was sent with other content, or a stored bundle is not the one that was signed. It was \
                  refused; devices would refuse it too.",
        remedy: "Find out who: the entry names the account. A pipeline that builds differently each time looks like this; a bundle \
                 that was changed in the database does as well, and that is an intrusion.",
        severity: Severity::Critical,
        when: Condition::Events {
            actions: &[
                "*.bundle_tampered",
                "policy.change_refused",
                "policy.bundle_refused",
            ],
            resolved_by: &[],
            resolve_after_seconds: DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "delivery_halted",
        title: "The delivery of commands is halted",
        meaning: "Somebody pressed the halt switch: no command reaches a device until it is lifted.",
        remedy: "Read why in the console. Lift it there when the reason is gone.",
        severity: Severity::Critical,
        when: Condition::Events {
            actions: &["commands.halted"],
            resolved_by: &["commands.halt_lifted"],
            resolve_after_seconds: 30 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "device_quarantined",
        title: "A device is in quarantine",
        meaning: "A device enrolled whose hardware belongs to another one, or contradicts what was known. It gets nothing until \
                  somebody decides.",
        remedy: "Decide under Devices, Quarantine. The runbook says what tells a repaired device from a cloned one.",
        severity: Severity::Error,
        when: Condition::Events {
            actions: &["device.quarantined"],
            resolved_by: &["device.quarantine_decided", "device.retired"],
            resolve_after_seconds: 7 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "sign_in_held",
        title: "A sign-in is held",
        meaning: "Somebody came by a connection that routes, and what the identity provider says of them leads to no tenant, to several, \
                  or to another one than before. They are signed in nowhere.",
        remedy: "Decide under Access, Routing, or with `muster routing decide`. Many at once are a claim that the provider stopped to \
                 send, or an acceptance that ended because the connection was changed.",
        severity: Severity::Warning,
        when: Condition::Events {
            actions: &["signin.held"],
            resolved_by: &["access.person_decided", "access.person_routed"],
            resolve_after_seconds: 7 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "email",
    },
    BuiltIn {
        name: "role_by_directory",
        title: "The directory gave somebody a role",
        meaning: "Members were added to a group of the directory through which people have roles in Muster. They have them from their \
                  next sign-in on.",
        remedy: "Compare with what was asked for at the identity provider. If nobody asked, take the role from the group \
                 (`muster access revoke`), and look at who holds tokens of the connector (`muster scim token list`).",
        severity: Severity::Warning,
        when: Condition::Events {
            actions: &["access.role_by_directory"],
            resolved_by: &[],
            resolve_after_seconds: DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "email",
    },
    BuiltIn {
        name: "security_event",
        title: "A security event",
        meaning: "The log holds an entry about security that no other rule is about.",
        remedy: "Open the entry from the alert; the reference of entries says what each means.",
        severity: Severity::Error,
        when: Condition::Events {
            actions: &["security.*"],
            resolved_by: &[],
            resolve_after_seconds: DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "tenant_shut",
        title: "The tenant was suspended, closed or taken away",
        meaning: "The operator of the installation suspended this tenant or handed in that it ends, or somebody took everything of it \
                  away as an archive. While it is shut nothing is sent: this came when it went on.",
        remedy: "Ask whoever did it whether it is meant: the entry names the account, and says whether it was the operator. If nobody \
                 meant it, look in the log at what was done between `tenant.suspended` and `tenant.resumed`.",
        severity: Severity::Error,
        when: Condition::Events {
            actions: &["tenant.suspended", "tenant.closing", "tenant.exported"],
            resolved_by: &[],
            resolve_after_seconds: 7 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "tenant_limit_reached",
        title: "The tenant has as much as its operator allows",
        meaning: "A device was not enrolled, or a person of the directory not taken, since the operator of the installation allows this \
                  tenant no more. What is there goes on.",
        remedy: "Retire devices that are not used, or ask the operator for more: `muster tenant limits` shows what is allowed and used.",
        severity: Severity::Warning,
        when: Condition::Events {
            actions: &["tenant.limit_reached"],
            resolved_by: &["tenant.limits_changed"],
            resolve_after_seconds: DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "email",
    },
    BuiltIn {
        name: "operator_visit",
        title: "The operator's people ask to come in, or are here",
        meaning: "A person of the operator's tenant asked for a visit to this tenant, was refused one, has begun one, or tried in one what no \
                  visit is for. In the operator's \
                  own tenant it says the same of its people's visits to others.",
        remedy: "Look under Access, Visits, or with `muster visits list`, who it is and why. Grant or deny what waits; end what nobody \
                 expected with `muster visits end`, and `muster visits allow never` lets nobody in.",
        severity: Severity::Warning,
        when: Condition::Events {
            actions: &[
                "visit.requested",
                "visit.refused",
                "visit.begun",
                "visit.overstepped",
            ],
            resolved_by: &["visit.denied", "visit.expired", "visit.ended"],
            resolve_after_seconds: 2 * DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "secret_overdue",
        title: "A secret was not rotated in time",
        meaning: "A secret is older than its period, 30 days unless it was set. What the server rotates by itself is six hours late \
                  already; what people rotate waits for them.",
        remedy: "Open Secrets in the console, or `muster secret list`: each says what to do. `muster client rotate` makes a new \
                 secret of a service account; the old one is good meanwhile.",
        severity: Severity::Warning,
        when: Condition::Expression("secret_overdue >= 1s"),
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Resolve,
        destination: "email",
    },
    BuiltIn {
        name: "secret_store_away",
        title: "The store of secrets does not answer",
        meaning: "For ten minutes the store has been sealed, throttled or away, or has refused this installation. What is in memory is \
                  used meanwhile, for a day unless it was set; nothing is rotated.",
        remedy: "See why with `muster secret stores`. Unseal the store, renew what this installation shows it, or allow its policy. \
                 The runbook says what goes on meanwhile, and what stops when the time is over.",
        severity: Severity::Error,
        when: Condition::Expression("secret_store_silent >= 10m"),
        for_seconds: 0,
        keep_seconds: 60,
        no_data: NoData::Resolve,
        destination: "pagerduty",
    },
    BuiltIn {
        name: "destination_failing",
        title: "Messages to a destination were given up",
        meaning: "A destination of alerts refused messages, or did not take them for hours.",
        remedy: "See why under Alerts, Deliveries. Give its secret again if it was changed there, press Test, then replay what was \
                 given up.",
        severity: Severity::Error,
        when: Condition::Expression("dead_letters_24h >= 1"),
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "email",
    },
    BuiltIn {
        name: "sink_failing",
        title: "A sink of events is behind",
        meaning: "A SIEM or store has not taken events for 15 minutes, or refused some for good. Nothing is lost: they wait, or are \
                  set aside.",
        remedy: "See why with `muster sink show`, and press Test: it says at which step it fails. Mend it there, then send again \
                 what was set aside with `muster sink dead replay`.",
        severity: Severity::Error,
        when: Condition::Expression("sink_lag >= 15m or sink_dead_letters >= 1"),
        for_seconds: 0,
        keep_seconds: 60,
        no_data: NoData::Keep,
        destination: "email",
    },
    BuiltIn {
        name: "sink_changed",
        title: "A sink of events was paused, changed or removed",
        meaning: "Somebody decided that a SIEM or store hears less than before, or that events go elsewhere.",
        remedy: "Ask whoever did it whether it is meant: the entry names the account. If nobody meant it, put it back, send again \
                 from then on with `muster sink replay`, and remove the account's client.",
        severity: Severity::Warning,
        when: Condition::Events {
            actions: &[
                "sink.paused",
                "sink.changed",
                "sink.removed",
                "sink.letters_discarded",
            ],
            resolved_by: &["sink.resumed"],
            resolve_after_seconds: DAY,
        },
        for_seconds: 0,
        keep_seconds: 0,
        no_data: NoData::Keep,
        destination: "pagerduty",
    },
];

/// Every rule that comes along, checked, in the order in which entries look for theirs.
pub fn built_in() -> Vec<Rule> {
    let rule = |built_in: &BuiltIn| {
        let rule = Rule::new(built_in.name, built_in.definition());
        rule.unwrap_or_else(|problem| {
            panic!("the rule {} that comes along is valid: {problem}", built_in.name)
        })
    };
    BUILT_IN.iter().map(rule).collect()
}

/// Whether a rule of this name comes along.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|built_in| built_in.name == name)
}

impl BuiltIn {
    fn definition(&self) -> Definition {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let when = match &self.when {
            Condition::Expression(text) => When::Expression((*text).to_owned()),
            Condition::Events {
                actions,
                resolved_by,
                resolve_after_seconds,
            } => When::Events(Events {
                actions: texts(actions),
                resolved_by: texts(resolved_by),
                resolve_after_seconds: Some(*resolve_after_seconds),
            }),
        };
        Definition {
            title: self.title.to_owned(),
            meaning: self.meaning.to_owned(),
            remedy: self.remedy.to_owned(),
            severity: self.severity,
            when,
            for_seconds: self.for_seconds,
            keep_seconds: self.keep_seconds,
            no_data: self.no_data,
            destinations: vec![self.destination.to_owned()],
            escalation: Vec::new(),
            enabled: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_comes_along_is_valid_and_on() {
        let rules = built_in();
        assert!(
            rules
                .iter()
                .all(|rule| rule.definition.enabled && is_built_in(&rule.name))
        );
        let promised = ["pagerduty", "slack", "opsgenie", "email"];
        for (rule, destination) in rules.iter().zip(promised) {
            assert_eq!(rule.definition.destinations, [destination]);
        }
    }

    #[test]
    fn every_rule_that_comes_along_has_a_runbook() {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runbooks"));
        for rule in built_in() {
            let page = folder.join(format!("{}.md", rule.name));
            assert!(page.is_file(), "{} is missing", page.display());
        }
    }
}
