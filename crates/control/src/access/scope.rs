//! The scopes of the admin API. A scope is a type, so that a handler's signature says what it needs.

/// A scope as a type; `NAME` is what an OAuth token carries.
pub trait Scope: Send + Sync + 'static {
    const NAME: &'static str;
}

/// The scopes that one call needs, all of them: a scope, or a tuple of scopes.
pub trait Scopes: Send + Sync + 'static {
    const NAMES: &'static [&'static str];
}

impl<S: Scope> Scopes for S {
    const NAMES: &'static [&'static str] = &[S::NAME];
}

impl<A: Scope, B: Scope> Scopes for (A, B) {
    const NAMES: &'static [&'static str] = &[A::NAME, B::NAME];
}

impl<A: Scope, B: Scope, C: Scope> Scopes for (A, B, C) {
    const NAMES: &'static [&'static str] = &[A::NAME, B::NAME, C::NAME];
}

macro_rules! scopes {
    ($($type:ident = $name:literal, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            #[derive(Debug, Clone, Copy)]
            pub struct $type;
            impl Scope for $type {
                const NAME: &'static str = $name;
            }
        )*
        /// Every scope with its meaning.
        pub const ALL: &[(&str, &str)] = &[$(($name, $meaning)),*];
    };
}

scopes! {
    DeviceRead = "device:read", "See devices, their facts, settings and history.";
    DeviceWrite = "device:write", "Decide about quarantined devices, retire devices, revoke their certificates, change their labels.";
    GroupRead = "group:read", "See dynamic groups, their members, and why a device is in them.";
    GroupWrite = "group:write", "Make, change and delete dynamic groups.";
    CommandRead = "command:read", "See commands and their receipts.";
    OutputRead = "output:read", "Read what commands printed and collected: logs, files, outputs of scripts.";
    ScriptRead = "script:read", "See scripts.";
    ScriptWrite = "script:write", "Add and remove scripts that devices may run.";
    CommandWrite = "command:write", "Send commands and cancel them; what is destructive, and scripts, need more.";
    CommandWipe = "command:wipe", "Ask for what destroys: wipe and unenroll. People still approve it.";
    ScriptRun = "script:run", "Run scripts on devices.";
    ApprovalWrite = "approval:write", "Hand in approvals of what is destructive, reject it, and release what was held.";
    HaltWrite = "halt:write", "Stop the delivery of commands, and let it go on.";
    TokenRead = "token:read", "See enrollment tokens (never their secret).";
    TokenWrite = "token:write", "Make enrollment tokens.";
    PolicyRead = "policy:read", "See policies, versions and bundles.";
    PolicyWrite = "policy:write", "Make policies and versions.";
    PolicyActivate = "policy:activate", "Start the rollout of a version.";
    TelemetryRead = "telemetry:read", "See what devices measured, and what happened on them.";
    DirectoryRead = "directory:read", "See the people and groups of people that identity providers sent, and what was refused.";
    ScimWrite = "scim:write", "Keep people and groups of people by SCIM.";
    RolloutRead = "rollout:read", "See rollouts.";
    RolloutWrite = "rollout:write", "Pause, resume, promote, abort and roll back rollouts.";
    AlertRead = "alert:read", "See alerts, their rules and destinations (never a secret), and what was sent.";
    AlertWrite = "alert:write", "Acknowledge and silence alerts, change rules and destinations.";
    SinkRead = "sink:read", "See sinks (never a secret), how far they are, and what was set aside.";
    SinkWrite = "sink:write", "Make, change, pause and remove sinks, and send again.";
    SignalRead = "signal:read", "See who outside says something of devices (never a secret), and what arrived.";
    SignalWrite = "signal:write", "Make, change and remove sources of signals, and make their secrets.";
    QueryWrite = "query:write", "Save and schedule questions about devices, and ask devices for fresh facts.";
    LogRead = "log:read", "Read the transparency log and its proofs.";
    ClientRead = "client:read", "See API clients and their scopes.";
    ClientWrite = "client:write", "Make and remove API clients, make sign-in links, ask about tokens.";
    SecretRead = "secret:read", "See which secrets the installation and the tenant have and how old they are (never a value).";
    SecretWrite = "secret:write", "Rotate secrets, set how often they are rotated, test the store of secrets.";
    ConfigRead = "config:read", "Export the configuration, with the secrets in its settings, and plan changes to it.";
    ConfigWrite = "config:write", "Apply a planned configuration: make policies and versions, and start their rollouts.";
    RootRead = "root:read", "See the root document: whose keys devices obey.";
    RootWrite = "root:write", "Publish root documents that the root keys signed.";
    AccessRead = "access:read", "See who may do what: people, roles, grants, sessions.";
    AccessWrite = "access:write", "Give and take roles that one holds oneself, define roles, disable people, set the limits of sessions.";
    SessionWrite = "session:write", "End the sessions of others.";
    SsoWrite = "sso:write", "Connect identity providers, and change and remove their connections.";
    TenantRead = "tenant:read", "See the tenants of the installation (in the operator's tenant only).";
    TenantWrite = "tenant:write", "Make, rename, suspend, resume and close tenants (in the operator's tenant only).";
    TenantExport = "tenant:export", "Take away everything of one's tenant; in the operator's tenant also of one that its root keys have closed.";
    TenantEnter = "tenant:enter", "Visit another tenant within what that tenant lets in (in the operator's tenant only, and in person). Asking and beginning need a fresh proof.";
    VisitManage = "visit:manage", "Say whether people of the operator's tenant may visit this one, grant, deny and end their visits. Letting more in needs a fresh proof, in person.";
}

/// What a person does only shortly after proving who they are, and a program for them: what is destructive, and what changes who
/// may do what, who is told, and whom is believed.
pub const NEEDS_PROOF: &[&str] = &[
    DeviceWrite::NAME,
    CommandWipe::NAME,
    ScriptRun::NAME,
    ScriptWrite::NAME,
    ApprovalWrite::NAME,
    ClientWrite::NAME,
    RootWrite::NAME,
    AccessWrite::NAME,
    SessionWrite::NAME,
    SsoWrite::NAME,
    ScimWrite::NAME,
    SecretWrite::NAME,
    AlertWrite::NAME,
    SinkWrite::NAME,
    SignalWrite::NAME,
    TenantWrite::NAME,
    TenantExport::NAME,
];

/// Whether `name` is a scope that exists.
pub fn exists(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}

/// Every scope, as an OAuth `scope` value.
pub fn every() -> String {
    ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

/// The scopes of these lists in the order of the list and each once, so that equal sets are equal texts. What does not exist is
/// left out.
pub fn union<'a>(lists: impl IntoIterator<Item = &'a str>) -> String {
    let held: std::collections::BTreeSet<&str> = lists.into_iter().flat_map(str::split_whitespace).collect();
    let names = ALL.iter().map(|(name, _)| *name);
    names
        .filter(|name| held.contains(name))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a list of scopes holds one.
pub fn holds(list: &str, name: &str) -> bool {
    list.split(' ').any(|held| held == name)
}

/// The scopes of `wanted` that `list` does not hold.
pub fn missing<'a>(wanted: &'a str, list: &str) -> Vec<&'a str> {
    wanted
        .split_whitespace()
        .filter(|name| !holds(list, name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each scope with what it is for and which calls need it, as the book has it.
    fn catalogue() -> String {
        let mut text = String::from(
            "# Scopes\n\nA scope is what one call of the API, or one page, needs. A token holds scopes; [roles](roles.md) are names for \
             several. This page is held to the program by a test.\n\nWhat is marked *fresh* a person does only shortly after proving who \
             they are, in the console and by a program that they let in ([access to the API](api-access.md)).\n\n",
        );
        for (name, meaning) in ALL {
            let fresh = if NEEDS_PROOF.contains(name) {
                " *Fresh.*"
            } else {
                ""
            };
            text.push_str(&format!("## `{name}`\n\n{meaning}{fresh}\n\n"));
            let rows = include_str!("routes.tsv")
                .lines()
                .filter(|line| !line.starts_with('#'));
            for row in rows {
                let cells: Vec<&str> = row.split('\t').collect();
                if let [method, path, needs] = cells.as_slice()
                    && holds(needs, name)
                {
                    text.push_str(&format!("- `{method} {path}`\n"));
                }
            }
            text.push('\n');
        }
        format!("{}\n", text.trim_end())
    }

    #[test]
    fn the_book_lists_every_scope_with_its_calls() {
        let written = include_str!("../../../../docs/reference/scopes.md");
        let found = catalogue();
        if found != written {
            let fresh = std::env::temp_dir().join("scopes.md");
            std::fs::write(&fresh, &found).expect("it can be written");
            panic!(
                "docs/reference/scopes.md is stale; compare with {}",
                fresh.display()
            );
        }
    }

    #[test]
    fn what_needs_a_proof_is_a_scope() {
        assert!(NEEDS_PROOF.iter().all(|name| exists(name)));
    }

    #[test]
    fn whoever_held_every_scope_before_holds_every_scope_after_the_newest_migration() {
        let newest = crate::MIGRATIONS
            .iter()
            .rev()
            .find(|migration| migration.sql.contains("UPDATE access_client SET scopes"));
        let sql = newest.expect("scopes were added before").sql;
        assert!(
            sql.contains(&format!("SET scopes = '{}'", every())),
            "a new scope needs a migration that adds it to administrators"
        );
    }
}
