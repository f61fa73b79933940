//! T1: the isolation matrix. Every route and page with every id of another tenant, made from the lists of routes, so that a
//! new route is crossed without anybody adding it (`docs/reference/isolation.md`).

mod bodies;
mod members;
mod picture;
mod rows;

use std::time::Instant;

use self::{
    picture::Picture,
    rows::{Breadth, Caller, Rows},
};
use crate::support::{
    crossing::Crossings,
    database::{Place, each_database},
    furnish::furnish,
    server::{Options, assert_healthy},
    two::Two,
};

/// Fewer than these, and a list of routes is not read as it was.
const CROSSINGS_MIN: usize = 8000;
const OWN_KIND_MIN: usize = 3000;

#[tokio::test(flavor = "multi_thread")]
async fn t1_every_id_of_another_tenant_is_as_if_it_did_not_exist() {
    each_database(async |options| {
        let begun = Instant::now();
        // What reads an id refuses one of another kind before any database is asked: once is enough.
        let (breadth, least) = match &options.place {
            Place::Sqlite => (Breadth::EveryKind, CROSSINGS_MIN),
            Place::Postgres(_) => (Breadth::OwnKind, OWN_KIND_MIN),
        };
        let two = Two::start(options).await;
        let (foreign, own) = tokio::join!(
            furnish(&two.server, &two.a, &two.server.admin, "alpha"),
            furnish(&two.server, &two.b, &two.b_admin, "beta"),
        );
        let furnished = begun.elapsed();
        let caller = Caller {
            api: two.b.clone(),
            device: own.device.door.clone(),
            session: own.session.clone(),
        };
        let rows = Rows::new(&caller, (&own, &foreign), breadth).unwrap_or_else(|missing| {
            panic!("the matrix has holes:\n{}", missing.join("\n"));
        });
        let before = Picture::take_when_quiet(&two).await;
        let crossings = Crossings::new(two.b.http.clone(), own.device.door.http.clone());
        rows.cross(&crossings).await;
        let changed = before.differences(&Picture::take(&two).await);
        crossings.assert_none_and(&changed);
        assert!(
            crossings.count() >= least,
            "the matrix is whole: {}",
            crossings.count()
        );
        assert_healthy(&two.server).await;
        println!(
            "isolation: {} routes x {} ids = {} crossings, 0 leaks, in {:.1} s ({:.1} s to furnish two tenants)",
            rows.routes(),
            foreign.ids().len(),
            crossings.count(),
            begun.elapsed().as_secs_f64(),
            furnished.as_secs_f64(),
        );
    })
    .await;
}

/// Otherwise the matrix would compare refusals that have nothing to do with whose an id is.
#[tokio::test(flavor = "multi_thread")]
async fn every_id_of_the_matrix_is_real_for_its_own_tenant() {
    let two = Two::start(Options::default()).await;
    let own = furnish(&two.server, &two.a, &two.server.admin, "alpha").await;
    let caller = Caller {
        api: two.a.clone(),
        device: own.device.door.clone(),
        session: own.session.clone(),
    };
    let rows = Rows::new(&caller, (&own, &own), Breadth::OwnKind).unwrap_or_else(|missing| {
        panic!("the matrix has holes:\n{}", missing.join("\n"));
    });
    rows.prove_that_ids_are_real(&two.a, &own).await;
}
