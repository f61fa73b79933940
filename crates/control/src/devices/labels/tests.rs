//! Tables of labels that meet a database, on both engines.

use bytes::Bytes;
use muster_model::{DeviceId, platform::Platform};
use muster_storage::testing::on_both;

use super::{ImportMode, ImportOutcome, import, labels};
use crate::{
    MIGRATIONS,
    access::{
        Author,
        problem::{CSV_INVALID, Problem},
    },
    audit,
    devices::{self, Applicant},
    policy::testing::Scene,
};

const WHOLE: ImportMode = ImportMode {
    dry_run: false,
    partial: false,
};

async fn send(scene: &Scene, csv: &str, mode: ImportMode) -> Result<ImportOutcome, Problem> {
    let author = Author::system(scene.tenant);
    import(&scene.app, &author, Bytes::copy_from_slice(csv.as_bytes()), mode).await
}

async fn read(scene: &Scene, device: DeviceId) -> String {
    let tenant = scene.tenant;
    let labels = scene
        .app
        .db
        .read(scene.storage(), move |tx| labels(tx, tenant, device))
        .await
        .expect("labels are read");
    serde_json::to_string(&labels).expect("labels have a text form")
}

/// Devices with serial numbers S0, S1, ….
async fn fleet(scene: &Scene, count: u32) -> Vec<DeviceId> {
    let tenant = scene.tenant;
    audit::commit(&scene.app, &Author::system(tenant), move |tx| {
        let mut ids = Vec::new();
        for number in 0..count {
            let key = [&[0_u8; 64][..], &number.to_be_bytes()].concat();
            let applicant = Applicant {
                serial: Some(format!("S{number}")),
                ..Applicant::unattested(uuid::Uuid::new_v4(), Platform::Linux, key)
            };
            let admission = devices::consider(tx, tenant, &applicant)?;
            ids.push(devices::admit(tx, &applicant, admission)?.id);
        }
        Ok(ids)
    })
    .await
    .expect("the devices are admitted")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_sets_leaves_and_removes_and_may_be_sent_again() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let ids = fleet(&scene, 3).await;
        let first =
            "serial,department,site\nS0,sales,north\nS1,\"a \"\"b\"\", c\",\nS2,${7*7}'; DROP TABLE x,-\n";
        let dry = ImportMode {
            dry_run: true,
            ..WHOLE
        };
        let tried = send(&scene, first, dry).await.expect("it is a table");
        assert_eq!((tried.rows, tried.devices_changed, tried.labels_set), (3, 3, 4));
        assert_eq!(read(&scene, ids[0]).await, "{}", "a dry run changes nothing");
        let done = send(&scene, first, WHOLE).await.expect("it is a table");
        assert_eq!((done.devices_changed, done.labels_set), (3, 4));
        assert_eq!(
            read(&scene, ids[0]).await,
            r#"{"department":"sales","site":"north"}"#
        );
        assert_eq!(read(&scene, ids[1]).await, r#"{"department":"a \"b\", c"}"#);
        assert_eq!(scene.entries("device.labels_changed").await, 3);
        let again = send(&scene, first, WHOLE).await.expect("it is a table");
        assert_eq!((again.devices_changed, again.devices_unchanged), (0, 3));
        assert_eq!(scene.entries("device.labels_changed").await, 3);
        let by_id = format!("site,id\n-,{}\n,{}\n", ids[0], ids[1]);
        send(&scene, &by_id, WHOLE).await.expect("it is a table");
        assert_eq!(read(&scene, ids[0]).await, r#"{"department":"sales"}"#);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_refuses_the_table_unless_the_good_ones_are_wanted() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let ids = fleet(&scene, 2).await;
        let other = scene.beside().await;
        let foreign = other.device(Platform::Linux).await.id;
        let csv = format!(
            "id,site\n{},a\ndev_x,b\n{},c\n{},d\n{foreign},e\n",
            ids[0], ids[0], ids[1]
        );
        let refused = send(&scene, &csv, WHOLE).await.expect_err("rows are wrong");
        assert_eq!(refused.kind, CSV_INVALID);
        let fields: Vec<&str> = refused.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["row 3: id", "row 4: id", "row 6: id"]);
        assert!(
            refused.errors[1].detail.contains("Row 2"),
            "{}",
            refused.errors[1].detail
        );
        assert_eq!(
            refused.errors[0].detail, refused.errors[2].detail,
            "a foreign device is no device"
        );
        assert_eq!(read(&scene, ids[1]).await, "{}");
        let partial = ImportMode {
            partial: true,
            ..WHOLE
        };
        let done = send(&scene, &csv, partial).await.expect("good rows are there");
        assert_eq!(
            (done.devices_changed, done.devices_unchanged, done.errors_total),
            (2, 0, 3)
        );
        assert_eq!(read(&scene, ids[1]).await, r#"{"site":"d"}"#);
        assert_eq!(read(&other, foreign).await, "{}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_many_transactions_and_few_entries() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let ids = fleet(&scene, 600).await;
        let rows: String = (0..600)
            .map(|number| format!("S{number},d{}\r\n", number % 7))
            .collect();
        let done = send(&scene, &format!("serial,department\r\n{rows}"), WHOLE)
            .await
            .expect("it is a table");
        assert_eq!(done.devices_changed, 600);
        assert_eq!(scene.entries("labels.imported").await, 3);
        assert_eq!(read(&scene, ids[599]).await, r#"{"department":"d4"}"#);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_at_most_64_labels() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let ids = fleet(&scene, 1).await;
        let table = |from: usize, to: usize| {
            let keys: Vec<String> = (from..to).map(|number| format!("k{number}")).collect();
            format!(
                "serial,{}\nS0,{}\n",
                keys.join(","),
                vec!["v"; to - from].join(",")
            )
        };
        send(&scene, &table(0, 64), WHOLE).await.expect("64 fit");
        let full = read(&scene, ids[0]).await;
        let refused = send(&scene, &table(64, 65), WHOLE)
            .await
            .expect_err("one more does not");
        assert_eq!(refused.errors[0].field, "row 2");
        assert_eq!(read(&scene, ids[0]).await, full);
    })
    .await;
}
