//! The table of routes that the admin API is held to: `crates/control/src/access/routes.tsv`.

const TABLE: &str = include_str!("../../../../control/src/access/routes.tsv");

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// The scopes that the route needs, with spaces between, or `public`.
    pub scope: &'static str,
}

/// Every row.
pub fn all() -> Vec<Route> {
    let rows = TABLE
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    rows.map(|line| {
        let mut cells = line.split('\t');
        let mut next = || cells.next().expect("a row has three cells");
        Route {
            method: next(),
            path: next(),
            scope: next(),
        }
    })
    .collect()
}

impl Route {
    pub fn is_public(&self) -> bool {
        self.scope == "public"
    }

    /// Every scope that the route needs.
    pub fn scopes(&self) -> impl Iterator<Item = &'static str> + use<> {
        let scopes = if self.is_public() { "" } else { self.scope };
        scopes.split_whitespace()
    }

    /// The path with something of the right kind in every parameter's place.
    pub fn filled(&self) -> String {
        let id = |prefix: &str| format!("{prefix}_{}", "0".repeat(32));
        let of_kind = match self.path.split('/').nth(3).unwrap_or_default() {
            "access"
                if ["/routed-connections/", "/self-enrollment/"]
                    .iter()
                    .any(|part| self.path.contains(part)) =>
            {
                id("con")
            }
            "access" => id("ses"),
            "alerts" => id("alr"),
            "alert-deliveries" => id("dlv"),
            "alert-silences" => id("sil"),
            "clients" => id("cli"),
            "commands" => id("cmd"),
            "devices" => id("dev"),
            "groups" => id("grp"),
            "operator-visits" | "visits" => id("vis"),
            "operations" => "00000000-0000-0000-0000-000000000000".to_owned(),
            "policies" => id("pol"),
            "query-refreshes" => id("rfr"),
            "rollouts" => id("rol"),
            "scim-tokens" => id("sct"),
            "scripts" => "0".repeat(64),
            "tenants" => id("tnt"),
            "user-groups" => id("ugr"),
            "users" => id("usr"),
            _ => String::new(),
        };
        self.filled_with(&of_kind)
    }

    /// The path with this id in the place of `{id}`.
    pub fn filled_with(&self, id: &str) -> String {
        let path = self
            .path
            .replace("{id}", id)
            .replace("{sha256}", id)
            .replace("{name}", "of-no-one")
            .replace("{version}", "2026.05")
            .replace("{policy}", "base")
            .replace("{subject}", "rule")
            .replace("{run}", &format!("qrn_{}", "0".repeat(32)))
            .replace("{key}", &"0".repeat(43))
            .replace("{artifact}", "policy.mobileconfig")
            .replace("{path}", "0/000");
        if path.contains("/compiled") {
            path + "?platform=macos"
        } else {
            path
        }
    }
}
