//! D9: a storm of requests in one tenant leaves the others alone.

use futures_util::{StreamExt, stream};

use crate::support::{
    api::{Answer, Api, answer},
    furnish::sign_in,
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

#[tokio::test(flavor = "multi_thread")]
async fn d9_the_console_of_a_tenant_is_open_while_its_programs_storm() {
    let options = Options::default()
        .with("--api-requests-per-second", 20)
        .with("--api-requests-per-second-of-caller", 20);
    let two = Two::start(options).await;
    let (cookie, _) = sign_in(&two.a, "ada", "owner").await;
    let page = async || {
        let request = two.a.http.get(format!("{}/devices", two.a.origin));
        answer(request.header("cookie", &cookie)).await
    };
    let (stormy, pages) = tokio::join!(storm(&two.a), async {
        let mut pages = Vec::new();
        for _ in 0..40 {
            pages.push(page().await);
        }
        pages
    });
    assert!(
        stormy.iter().filter(|answer| answer.status == 429).count() > STORM / 4,
        "the programs have used theirs up"
    );
    for page in &pages {
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.header("ratelimit").contains("\"console\";r="), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_storm_at_the_token_endpoint_is_told_to_wait_and_shuts_out_nobody_who_is_who_they_say() {
    let options = Options::default()
        .with("--api-requests-per-second", 40)
        .with("--api-requests-per-second-of-caller", 20);
    let two = Two::start(options).await;
    let guess = |number: usize| {
        let api = two.a.clone();
        async move {
            let id = format!("00000000-0000-4000-8000-{number:012}");
            let fields = [("client_id", id.as_str()), ("client_secret", "guessed")];
            api.ask_token(&fields).await
        }
    };
    let guessed: Vec<Answer> = stream::iter((0..STORM).map(guess))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let refused = guessed.iter().filter(|answer| answer.status == 429).count();
    assert!(refused > STORM / 4, "{refused} were told to wait");
    assert!(guessed.iter().all(|answer| matches!(answer.status, 401 | 429)));
    // They came from this very address, some of them in this account's name.
    let own = &two.server.admin;
    let in_its_name = [
        ("client_id", own.client_id.as_str()),
        ("client_secret", "guessed"),
    ];
    for _ in 0..50 {
        let answer = two.a.ask_token(&in_its_name).await;
        assert!(matches!(answer.status, 401 | 429), "{answer:?}");
    }
    let credentials = [
        ("client_id", own.client_id.as_str()),
        ("client_secret", own.client_secret.as_str()),
    ];
    two.a.ask_token(&credentials).await.ok();
    let asked = [credentials.as_slice(), &[("token", two.a.token.as_str())]].concat();
    let known = two.a.form("/oauth2/introspect", &asked).await.ok();
    assert_eq!(known["active"], true);
    // A program with good credentials that asks too often is refused as such, and leaves the API and the other tenant alone.
    let again = stream::iter(0..400).map(|_| two.a.ask_token(&credentials));
    let again: Vec<Answer> = again.buffer_unordered(AT_ONCE).collect().await;
    let refused = again.iter().filter(|answer| answer.status == 429);
    assert!(refused.clone().count() > 100, "{}", refused.count());
    for answer in again.iter().filter(|answer| answer.status == 429) {
        answer.refused(429, "rate_limited");
        assert_eq!(answer.header("retry-after"), "1");
    }
    two.a.get("/devices").await.ok();
    let other = [
        ("client_id", two.b_admin.client_id.as_str()),
        ("client_secret", two.b_admin.client_secret.as_str()),
    ];
    two.b.ask_token(&other).await.ok();
}
