//! The units for systemd, by the measure of systemd itself.

use std::path::Path;

use crate::support::{
    pki::peer_is_installed,
    server::{everything, tool},
};

/// Unit, and the most that systemd may call its exposure, of 100. The agent writes settings of the machine, so it can do more.
const UNITS: &[(&str, u8)] = &[("muster.service", 20), ("muster-agent.service", 35)];

#[tokio::test(flavor = "multi_thread")]
async fn j12_systemd_finds_little_that_a_service_could_do() {
    if !peer_is_installed("systemd-analyze", "command -v systemd-analyze").await {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd");
    for (unit, most) in UNITS {
        let path = folder.join(unit).display().to_string();
        let judge = async |most: u8| {
            let threshold = format!("--threshold={most}");
            tool(
                "systemd-analyze",
                &["security", "--no-pager", "--offline=true", &threshold, &path],
            )
            .await
        };
        let judged = judge(*most).await;
        assert!(judged.status.success(), "{unit}: {}", everything(&judged));
        // It judges: nothing that runs is without any exposure.
        assert!(!judge(0).await.status.success(), "{unit}");
    }
}
