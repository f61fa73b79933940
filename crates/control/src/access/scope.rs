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
}

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
