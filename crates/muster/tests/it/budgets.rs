//! D9: a storm of requests in one tenant leaves the others alone.

use futures_util::{StreamExt, stream};

use crate::support::{
    api::{Answer, Api},
    server::Options,
    two::Two,
};

/// Requests of a storm: far more than five seconds of any budget here.
const STORM: usize = 1500;
const AT_ONCE: usize = 32;

async fn storm(api: &Api) -> Vec<Answer> {
    let asked = stream::iter(0..STORM).map(|_| api.get("/settings"));
    asked.buffer_unordered(AT_ONCE).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_tenants_storm_of_requests_is_refused_and_the_others_do_not_notice() {
    let options = Options::default()
        .with("--api-requests-per-second", 40)
        .with("--api-requests-per-second-of-caller", 20)
        .with("--metrics-tenants", 1);
    let two = Two::start(options).await;
    let quiet = async {
        let mut answers = Vec::new();
        for _ in 0..40 {
            answers.push(two.b.get("/devices").await);
        }
        answers
    };
    let (stormy, quiet) = tokio::join!(storm(&two.a), quiet);
    for answer in &quiet {
        answer.ok();
        assert!(
            answer.header("ratelimit").starts_with("\"caller\";r="),
            "{answer:?}"
        );
    }
    let refused: Vec<&Answer> = stormy.iter().filter(|answer| answer.status == 429).collect();
    assert!(refused.len() > STORM / 4, "{} were refused", refused.len());
    assert!(refused.len() < STORM, "what the budget has is answered");
    for answer in &refused {
        answer.refused(429, "rate_limited");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(
            answer.header("ratelimit-policy"),
            "\"caller\";q=100;w=5, \"tenant\";q=200;w=5"
        );
        assert!(
            answer.header("ratelimit").starts_with("\"caller\";r=0;t=1"),
            "{answer:?}"
        );
    }
    let metrics = reqwest::get(format!("{}/metrics", two.server.admin.ops_url)).await;
    let metrics = metrics
        .expect("metrics are served")
        .text()
        .await
        .expect("they are text");
    let wanted = format!(
        "mdm_api_budget_refusals_total{{tenant=\"{}\",budget=\"caller\"}} {}",
        two.server.admin.tenant,
        refused.len()
    );
    assert!(metrics.contains(&wanted), "{wanted} is not in {metrics}");
}
