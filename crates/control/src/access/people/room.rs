//! Room for people: who came from outside, was given nothing and does not come back is forgotten.
//!
//! Whoever was given a role, had one when they last came, is signed in, has an open link or a passkey, or is disabled stays: their
//! names mean something in the log, and a disabled person would otherwise come back as somebody new. Who is forgotten and comes again
//! is new, and waits as long as everybody new.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::Scope;

use super::{PEOPLE_MAX, store};
use crate::{
    App,
    access::{Author, problem::Problem, tenants},
    audit::{self, LoggedTx},
};

/// After so long without a visit a person without a role is forgotten.
pub const UNSEEN_DAYS: u64 = 90;
/// From so many people on there is little room: those of identity providers who were not seen for a day go as well.
pub const CROWDED: i64 = PEOPLE_MAX / 10 * 9;
/// Places that people of identity providers leave to those of links: whoever floods one must not keep out who would end it.
pub const ROOM_FOR_LINKS: i64 = PEOPLE_MAX / 20;
/// People that are forgotten in one transaction.
const AT_ONCE_MAX: i64 = 500;
const DAY: Duration = Duration::from_secs(86_400);

/// Who is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::access) enum Strangers {
    /// People of identity providers.
    FromOutside,
    /// Those of links too.
    All,
}

/// Forgets who was not seen for long, in every tenant; answers how many people. A reconciler's step.
pub async fn forget_unseen(app: &App) -> Result<u64, Problem> {
    let mut forgotten = 0;
    for (tenant, _) in app.db.read(Scope::System, tenants).await? {
        forgotten += forget_unseen_of(app, tenant).await?;
    }
    Ok(forgotten)
}

async fn forget_unseen_of(app: &App, tenant: TenantId) -> Result<u64, Problem> {
    let before = app.clock.now().minus(DAY * UNSEEN_DAYS as u32);
    let found = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        Ok::<_, Problem>(store::strangers(tx, tenant, Strangers::FromOutside, before, 1)?)
    });
    if found.await?.is_empty() {
        return Ok(0);
    }
    audit::commit(app, &Author::system(tenant), move |tx| {
        forget(tx, Strangers::FromOutside, before)
    })
    .await
}

/// Makes room for one more where there is little: the longest unseen go first. Refuses where there is none. Nobody who comes from
/// outside has people of links forgotten.
pub(in crate::access) fn make_room(
    tx: &mut LoggedTx<'_>,
    comes_from_outside: bool,
    full: Problem,
) -> Result<(), Problem> {
    let (tenant, before) = (tx.tenant(), tx.at().minus(DAY));
    if store::person_count(tx, tenant)? < CROWDED {
        return Ok(());
    }
    forget(tx, Strangers::FromOutside, before)?;
    let most = match comes_from_outside {
        true => PEOPLE_MAX - ROOM_FOR_LINKS,
        false => PEOPLE_MAX,
    };
    if store::person_count(tx, tenant)? < most {
        return Ok(());
    }
    let has_room = !comes_from_outside && forget(tx, Strangers::All, before)? > 0;
    if has_room { Ok(()) } else { Err(full) }
}

fn forget(tx: &mut LoggedTx<'_>, who: Strangers, before: Timestamp) -> Result<u64, Problem> {
    let tenant = tx.tenant();
    let names = store::strangers(tx, tenant, who, before, AT_ONCE_MAX)?;
    for name in &names {
        store::delete_person(tx, tenant, name)?;
    }
    if !names.is_empty() {
        tx.record(
            "access.people_forgotten",
            ("tenant", tenant.to_string()),
            serde_json::json!({"people": names.len(), "unseen_since": before.to_string()}),
        )?;
    }
    Ok(names.len() as u64)
}

#[cfg(test)]
mod tests {
    use muster_model::{ConnectionId, platform::Platform};
    use muster_storage::testing::on_both;
    use uuid::Uuid;

    use super::*;
    use crate::{
        access::{
            people::{Grant, Outside, Person, Subject, person},
            problem::INVALID,
        },
        policy::testing::Scene,
    };

    fn of(name: &str, since: Timestamp) -> Person {
        Person {
            name: name.to_owned(),
            since,
            outside: Some(Outside {
                issuer: "https://idp.example".to_owned(),
                subject: name.to_owned(),
            }),
            connection: Some(ConnectionId::from_uuid(Uuid::nil())),
            username: name.to_owned(),
            display_name: String::new(),
            member_of: Vec::new(),
            scopes: String::new(),
            raised_at: None,
            seen_at: Some(since),
            disabled_at: None,
        }
    }

    async fn write(scene: &Scene, people: Vec<Person>) {
        let tenant = scene.tenant;
        audit::housekeeping(&scene.app, scene.storage(), move |tx| {
            for person in &people {
                store::insert_person(tx, tenant, person)?;
                store::came(tx, tenant, person)?;
            }
            Ok(())
        })
        .await
        .expect("they are written");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_has_no_role_and_does_not_come_is_forgotten_after_90_days_and_nobody_else() {
        on_both(crate::MIGRATIONS, async |db| {
            let scene = Scene::new(db.db().clone()).await;
            scene.device(Platform::Linux).await;
            let (tenant, begun) = (scene.tenant, scene.app.clock.now());
            let mut powerful = of("corp/powerful", begun);
            "device:read".clone_into(&mut powerful.scopes);
            let known = ["corp/stranger", "corp/granted", "corp/barred", "corp/linked"];
            let mut people: Vec<Person> = known.iter().map(|name| of(name, begun)).collect();
            people.push(powerful);
            write(&scene, people).await;
            audit::commit(&scene.app, &Author::system(tenant), move |tx| {
                let grant = Grant {
                    subject: Subject::Person("corp/granted".to_owned()),
                    role: "helpdesk".to_owned(),
                    granted_by: "test".to_owned(),
                    granted_at: tx.at(),
                    expires_at: None,
                };
                store::insert_grant(tx, tenant, &grant)?;
                super::super::disable_person(tx, "corp/barred").map(drop)
            })
            .await
            .expect("it is written");
            scene.sql("UPDATE access_person SET issuer = NULL, subject = NULL WHERE tenant_id = $1 AND person = 'corp/linked'").await;
            assert_eq!(forget_unseen(&scene.app).await.expect("it works"), 0, "not yet");
            scene.pass_seconds(89 * 86_400);
            write(&scene, vec![of("corp/new", scene.app.clock.now())]).await;
            scene.pass_seconds(2 * 86_400);
            assert_eq!(forget_unseen(&scene.app).await.expect("it works"), 1);
            assert_eq!(forget_unseen(&scene.app).await.expect("it works"), 0);
            assert_eq!(scene.entries("access.people_forgotten").await, 1);
            let left: Result<Vec<Person>, Problem> = scene
                .app
                .db
                .read(scene.storage(), move |tx| Ok(store::persons(tx, tenant, "", 100)?))
                .await;
            let left: Vec<String> = left.expect("it can be read").into_iter().map(|person| person.name).collect();
            assert_eq!(
                left,
                ["corp/barred", "corp/granted", "corp/linked", "corp/new", "corp/powerful"]
            );
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_of_people_keeps_nobody_out_for_longer_than_a_day() {
        on_both(crate::MIGRATIONS, async |db| {
            let scene = Scene::new(db.db().clone()).await;
            let tenant = scene.tenant;
            let begun = scene.app.clock.now();
            write(&scene, vec![of("corp/0-first", begun.minus(DAY * 2))]).await;
            let flood = (1..PEOPLE_MAX - ROOM_FOR_LINKS)
                .map(|number| of(&format!("corp/{number}"), begun))
                .collect();
            write(&scene, flood).await;
            let room = async || {
                audit::commit(&scene.app, &Author::system(tenant), move |tx| {
                    let made = make_room(tx, true, INVALID.detail("full"));
                    tx.excuse(1);
                    made
                })
                .await
            };
            room().await.expect("the longest unseen goes");
            write(&scene, vec![of("corp/last", begun)]).await;
            assert!(room().await.is_err(), "everybody came today");
            audit::commit(&scene.app, &Author::system(tenant), move |tx| {
                let made = make_room(tx, false, INVALID.detail("full"));
                tx.excuse(1);
                made
            })
            .await
            .expect("whoever comes by a link has room");
            scene.pass_seconds(86_401);
            room().await.expect("there is room the next day");
            let first: Result<Option<Person>, Problem> = scene
                .app
                .db
                .read(scene.storage(), move |tx| person(tx, tenant, "corp/0-first"))
                .await;
            assert!(first.expect("it can be read").is_none());
        })
        .await;
    }
}
