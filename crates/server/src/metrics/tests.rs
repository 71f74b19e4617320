//! What a scrape looks like, without a server.

use pinnace_core::{FunctionSpec, wire::FunctionDeployment};

use super::*;
use crate::catalog::{Deployed, Entry};

fn entry(number: usize, labels: &str) -> Arc<Entry> {
    let json = format!(r#"{{"service":"f-{number}","image":"a:1","labels":{labels}}}"#);
    let deployment: FunctionDeployment = serde_json::from_str(&json).unwrap();
    let spec = FunctionSpec::check(deployment).unwrap();
    let deployed = Deployed { spec, revision: 1, created_at: String::new() };
    Arc::new(Entry::new(Arc::new(deployed), 0, String::new(), 1))
}

async fn pieces(entries: Vec<Arc<Entry>>, used: HashMap<FunctionRef, Used>) -> Vec<String> {
    let catalog = Arc::new(Catalog::new(1));
    catalog.insert_all(entries);
    let provider: Arc<dyn Provider> = Arc::new(crate::scaler::fake::FakeProvider);
    let metrics = Metrics::new(catalog, provider, Arc::default(), queue());
    written(&metrics, &used).collect().await
}

/// A queue without a call, in a directory that is gone already.
fn queue() -> Arc<AsyncQueue> {
    let directory = tempfile::tempdir().unwrap();
    AsyncQueue::open(directory.path(), 0).unwrap()
}

#[tokio::test]
async fn ten_thousand_functions_come_in_small_pieces() {
    let entries: Vec<_> = (0..10_000).map(|number| entry(number, "{}")).collect();
    for entry in &entries {
        entry.stats.started(0);
        entry.stats.answered(0, 200, std::time::Duration::from_millis(1));
    }
    let pieces = pieces(entries, HashMap::new()).await;
    assert!(pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES));
    let text = pieces.concat();
    let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(lines("gateway_function_invocation_total{"), 10_000);
    assert_eq!(lines("gateway_functions_seconds_bucket{"), 120_000);
    assert_eq!(lines("# TYPE gateway_functions_seconds histogram"), 1);
}

#[tokio::test]
async fn targets_are_told_of_functions_that_are_scaled_by_one() {
    let by_cpu = r#"{"com.openfaas.scale.type":"cpu","com.openfaas.scale.target":"250"}"#;
    let entries = vec![entry(1, by_cpu), entry(2, r#"{"com.openfaas.scale.max":"3"}"#)];
    let used = Used { cpu_ns: 1_500_000_000, memory_bytes: 4096 };
    let used = HashMap::from([(entries[0].id.clone(), used)]);
    let text = pieces(entries, used).await.concat();
    let name = "function_name=\"f-1.openfaas-fn\"";
    for line in [
        format!("gateway_service_target{{{name}}} 250"),
        format!("gateway_service_target_load{{{name},scaling_type=\"cpu\"}} 250"),
        format!("gateway_service_min{{{name}}} 1"),
        format!("pod_cpu_usage_seconds_total{{{name},namespace=\"openfaas-fn\"}} 1.5"),
        format!("pod_memory_working_set_bytes{{{name},namespace=\"openfaas-fn\"}} 4096"),
    ] {
        assert!(text.lines().any(|known| known == line), "{line} not in:\n{text}");
    }
    assert_eq!(text.matches("\ngateway_service_target{").count(), 1);
    assert_eq!(text.matches("\ngateway_service_min{").count(), 2);
}

#[tokio::test]
async fn no_more_scrapes_than_may_be_are_under_way() {
    use axum::http::Request;
    use tower::ServiceExt;

    let catalog = Arc::new(Catalog::new(1));
    catalog.insert_all([entry(1, "{}")]);
    let provider: Arc<dyn Provider> = Arc::new(crate::scaler::fake::FakeProvider);
    let router = router(Metrics::new(catalog, provider, Arc::default(), queue()));
    let scrape = async || {
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let mut unread = Vec::new();
    for _ in 0..limits::SCRAPES_MAX {
        unread.push(scrape().await);
    }
    let refused = scrape().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = axum::body::to_bytes(refused.into_body(), 4096).await.unwrap();
    assert!(text.ends_with(b"(SCRAPES_MAX)\n"));
    drop(unread);
    assert_eq!(scrape().await.status(), StatusCode::OK);
}
