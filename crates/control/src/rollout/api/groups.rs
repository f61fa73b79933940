//! The route that changes a group: what policies ask of whom changes with it.

use axum::{Json, extract::State};

use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::{Body, PathOf},
        scope::GroupWrite,
    },
    audit,
    groups::{self, GroupPatch, GroupView},
    rollout::change::{self, Wanted, ask_people},
};

/// Changes a group. One that policies are for is defined anew only once the people who approve have signed it, where the root document
/// names some and it is about more devices than its budget.
#[utoipa::path(
    patch, path = "/groups/{id}", tag = "groups", params(("id" = String, Path, description = "Id or name")),
    security(("oauth2" = ["group:write"])), request_body = GroupPatch, responses((status = 200, body = GroupView)),
)]
pub async fn change_group(
    permit: Permit<GroupWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(patch): Body<GroupPatch>,
) -> Result<Json<GroupView>, Problem> {
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (name, to) = (id.clone(), patch.clone());
    let changed = audit::commit(&app, permit.author(), move |tx| {
        let group = groups::resolve(tx, tenant, &name)?;
        let group = change::change_group(tx, &keys, &group, &to.wanted(&group)?)?;
        GroupView::read(tx, tenant, group)
    })
    .await;
    match changed {
        Ok(view) => {
            app.nudges.groups.notify_one();
            Ok(Json(view))
        }
        Err(problem) => {
            let wanted = Wanted::Regroup(id, patch);
            match ask_people(&app, permit.author(), &problem, wanted).await? {
                Some(operation) => Err(operation.explains(problem)),
                None => Err(problem),
            }
        }
    }
}
