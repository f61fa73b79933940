//! Why something is not permitted, in words that help: what it needs, what the caller has, which role gives it, who can give it.

use muster_model::TenantId;
use muster_storage::Scope;

use super::{
    people,
    problem::{Explanation, FORBIDDEN, Problem},
    roles, scope,
};
use crate::App;

/// Refuses what needs scopes that are not held.
pub fn check(needs: &[&str], held: &str, of_roles: &[String]) -> Result<(), Problem> {
    let missing: Vec<&str> = needs
        .iter()
        .copied()
        .filter(|name| !scope::holds(held, name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let explanation = explanation(needs, &missing, of_roles);
    let mut problem = FORBIDDEN.detail(sentence(&explanation));
    problem.explanation = Some(Box::new(explanation));
    Err(problem)
}

/// Why these scopes are not enough for those.
pub fn explanation(needs: &[&str], missing: &[&str], of_roles: &[String]) -> Explanation {
    let given_by = roles::built_in()
        .iter()
        .rev()
        .filter(|role| missing.iter().all(|name| scope::holds(&role.scopes, name)));
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Explanation {
        needs: texts(needs),
        missing: texts(missing),
        roles: of_roles.to_vec(),
        given_by: given_by.map(|role| role.name.to_owned()).collect(),
        ask: Vec::new(),
    }
}

fn sentence(explanation: &Explanation) -> String {
    let list = |words: &[String], last: &str| match words {
        [] => String::new(),
        [one] => one.clone(),
        [before @ .., end] => format!("{} {last} {end}", before.join(", ")),
    };
    let missing = list(&explanation.missing, "and");
    let scopes = if explanation.missing.len() == 1 {
        "scope"
    } else {
        "scopes"
    };
    let have = match explanation.roles.as_slice() {
        [] => "The credentials do not hold it.".to_owned(),
        [one] => format!("The role {one} does not give it."),
        several => format!("The roles {} do not give it.", list(several, "and")),
    };
    format!(
        "This needs the {scopes} {missing}. {have} It comes with the role {}.",
        list(&explanation.given_by, "or")
    )
}

/// Adds who can give what is missing.
pub async fn with_helpers(app: &App, tenant: TenantId, mut problem: Problem) -> Problem {
    let Some(explanation) = &mut problem.explanation else {
        return problem;
    };
    let (missing, now) = (explanation.missing.clone(), app.clock.now());
    let found = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
        people::who_can_give(tx, tenant, &missing, now)
    });
    // The refusal stands whether or not the database says who can help.
    explanation.ask = found.await.unwrap_or_default();
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_missing_and_what_would_give_it() {
        let roles = ["auditor".to_owned(), "read_only".to_owned()];
        let refused = check(&["command:write", "device:read"], "device:read log:read", &roles);
        let problem = refused.expect_err("it is not held");
        assert_eq!(
            problem.detail,
            "This needs the scope command:write. The roles auditor and read_only do not give it. It comes with the role \
             security, helpdesk, operator, administrator or owner."
        );
        let explanation = problem.explanation.expect("it is explained");
        assert_eq!(explanation.missing, ["command:write"]);
        assert!(check(&["device:read"], "log:read device:read", &[]).is_ok());
    }
}
