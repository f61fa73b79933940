//! Built-in roles: a reviewed table of roles and scopes, read once. Custom roles are rows of a tenant.

use std::sync::LazyLock;

use super::scope;

const TABLE: &str = include_str!("roles.tsv");

/// The name of the role that holds everything.
pub const OWNER: &str = "owner";
/// What each built-in role is for, in the order of the table.
const MEANINGS: &[(&str, &str)] = &[
    (OWNER, "Everything."),
    (
        "administrator",
        "Everything but the root document and identity providers.",
    ),
    (
        "operator",
        "The daily work: devices, commands, rollouts, alerts. Destroys nothing.",
    ),
    (
        "helpdesk",
        "Looks at devices, locks them, and enrolls new ones. Destroys nothing.",
    ),
    (
        "security",
        "Looks at everything but the configuration; locks, wipes with approvals, halts, ends sessions.",
    ),
    (
        "auditor",
        "Looks at what happened, who did it, and who may do what. Changes nothing.",
    ),
    ("read_only", "Looks at the fleet. Changes nothing."),
];

/// A role of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltIn {
    pub name: &'static str,
    pub description: &'static str,
    /// With spaces between, in the order of the list.
    pub scopes: String,
}

static ROLES: LazyLock<Vec<BuiltIn>> =
    LazyLock::new(|| read(TABLE).expect("roles.tsv is a whole table; a test reads it too"));

/// Every built-in role, the one with the most scopes first.
pub fn built_in() -> &'static [BuiltIn] {
    &ROLES
}

/// The built-in role of a name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    built_in().iter().find(|role| role.name == name)
}

/// Reads the table: a header of names, then a row for each scope, in any order, each once.
fn read(table: &str) -> Result<Vec<BuiltIn>, String> {
    let mut lines = table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').skip(1).collect();
    let mut held = vec![Vec::new(); header.len()];
    let mut seen = Vec::new();
    for line in lines {
        let mut cells = line.split('\t');
        let name = cells.next().unwrap_or_default();
        if !scope::exists(name) || seen.contains(&name) {
            return Err(format!("{name} is no scope, or stands twice"));
        }
        seen.push(name);
        let cells: Vec<&str> = cells.collect();
        if cells.len() != header.len() {
            return Err(format!("{name} has {} cells", cells.len()));
        }
        for (cell, held) in cells.iter().zip(&mut held) {
            match *cell {
                "x" => held.push(name),
                "-" => {}
                other => return Err(format!("{name} has a cell {other:?}")),
            }
        }
    }
    if let Some((missing, _)) = scope::ALL.iter().find(|(name, _)| !seen.contains(name)) {
        return Err(format!("{missing} has no row"));
    }
    let roles = MEANINGS.iter().zip(&header).zip(held);
    let roles: Vec<BuiltIn> = roles
        .filter(|(((name, _), column), _)| name == *column)
        .map(|(((name, description), _), held)| BuiltIn {
            name,
            description,
            scopes: scope::union(held),
        })
        .collect();
    if roles.len() == MEANINGS.len() && header.len() == MEANINGS.len() {
        Ok(roles)
    } else {
        Err("the columns are not the roles".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each call of the API with its scopes.
    fn routes() -> Vec<(&'static str, &'static str, &'static str)> {
        let rows = include_str!("routes.tsv")
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let row = |line: &'static str| {
            let mut cells = line.split('\t');
            let mut next = || cells.next().expect("a row has three cells");
            (next(), next(), next())
        };
        rows.map(row)
            .filter(|(_, _, scopes)| *scopes != "public")
            .collect()
    }

    fn may(role: &str, method: &str, path: &str) -> bool {
        let role = find(role).expect("the role exists");
        let (_, _, needed) = routes()
            .into_iter()
            .find(|(m, p, _)| *m == method && *p == path)
            .expect("the route exists");
        scope::missing(needed, &role.scopes).is_empty()
    }

    #[test]
    fn the_table_is_whole() {
        let roles = read(TABLE).expect("it is read");
        assert_eq!(roles.len(), 7);
        assert_eq!(find(OWNER).expect("it is there").scopes, scope::every());
        for wrong in [
            "",
            "scope\towner\nnothing:read\tx",
            "scope\towner\ndevice:read\ty",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn t2_what_each_role_may_do_is_what_was_reviewed() {
        let reviewed = include_str!("roles_by_route.tsv");
        let mut found = String::from(
            "# Generated from roles.tsv and routes.tsv, and reviewed: which role may make which call.\n",
        );
        for (method, path, needed) in routes() {
            let roles: Vec<&str> = built_in()
                .iter()
                .filter(|role| scope::missing(needed, &role.scopes).is_empty())
                .map(|role| role.name)
                .collect();
            found.push_str(&format!("{method}\t{path}\t{}\n", roles.join(" ")));
        }
        if found != reviewed {
            let fresh = std::env::temp_dir().join("roles_by_route.tsv");
            std::fs::write(&fresh, &found).expect("it can be written");
            panic!("roles_by_route.tsv is stale; compare with {}", fresh.display());
        }
    }

    #[test]
    fn t8_the_help_desk_locks_and_does_not_wipe_and_who_only_looks_changes_nothing() {
        let helpdesk = &find("helpdesk").expect("it is there").scopes;
        assert!(scope::holds(helpdesk, "command:write") && !scope::holds(helpdesk, "command:wipe"));
        assert!(!scope::holds(helpdesk, "script:run") && !scope::holds(helpdesk, "output:read"));
        for role in ["auditor", "read_only"] {
            let role = find(role).expect("it is there");
            assert!(
                role.scopes.split(' ').all(|scope| scope.ends_with(":read")),
                "{role:?}"
            );
            for (method, path, needed) in routes() {
                // Questions that are too long for an address are asked with POST.
                let asks = [
                    "/api/v1/plan",
                    "/api/v1/queries/run",
                    "/api/v1/groups/preview",
                    "/api/v1/policies/{id}/what-if",
                    "/api/v1/policies/{id}/activation-preview",
                ];
                let changes = method != "GET" && !asks.contains(&path);
                assert!(
                    !changes || !scope::missing(needed, &role.scopes).is_empty(),
                    "{} {method} {path}",
                    role.name
                );
            }
        }
        assert!(!may("administrator", "POST", "/api/v1/root"));
        assert!(may("security", "POST", "/api/v1/halt") && !may("operator", "POST", "/api/v1/access/grants"));
    }

    #[test]
    fn no_role_of_the_configuration_reads_its_secrets_by_looking_only() {
        for role in ["read_only", "auditor", "helpdesk", "operator", "security"] {
            let scopes = &find(role).expect("it is there").scopes;
            assert!(!scope::holds(scopes, "config:read"), "{role}");
        }
    }
}
